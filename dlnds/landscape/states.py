"""States that users give: alone, or with what knows how accurate they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_number
from dlnds.systems.protocol import check_state


def read_point(
    net: Any, x: ArrayLike | xr.Dataset, rtol: float | None, name: str = "x"
) -> tuple[Array, float | None, float]:
    """Return a state, a tolerance for whether it is critical, and its relative accuracy if known.

    A run is as accurate as where it takes itself for over, at ten times its tolerance.
    """
    if rtol is not None:
        rtol = check_number("rtol", rtol, minimum=1e-15, maximum=0.1)
    if not isinstance(x, xr.Dataset):
        return check_state(name, net, x), rtol, 0.0
    if "state" in x and x["state"].ndim > 1:
        sizes = dict(x["state"].sizes)
        raise ValueError(f"{name}: needs one row of a run, such as x.isel(time=-1), got {sizes}")
    wanted: dict[str, Any] = {"state": ("parameter",)}
    row = schema.read(
        name, x, ("run", "critical_point"), wanted, optional={"error": ()}, digest=net.digest
    )
    state = check_state(name, net, row["state"].values)
    if row.attrs["schema"] == "run":
        return state, rtol, 10.0 * float(row.attrs.get("rtol", 0.0))
    error, size = float(row["error"]), float(np.linalg.norm(state))
    return state, rtol, error / size if size else 0.0
