"""The picture of branches: one variable against another, stability by line style."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.errors import known_options, nearest
from dlnds.plot.canvas import axes, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {
    "fold": ("o", "#d73027"),
    "branch_point": ("s", "#4575b4"),
    "hopf": ("^", "#e08214"),
    "index_change": ("v", "#7b3294"),
    "symmetry_change": ("D", "#7b3294"),
    "user": ("x", "black"),
    "cusp": ("*", "#1a9850"),
}


@known_options
def branches(
    data: xr.Dataset | xr.DataTree,
    *,
    x: str = "p",
    y: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Draw a branch, or all of a diagram: stable parts as full lines, special points marked.

    Parameters
    ----------
    data
        What `branch`, `diagram` or `fold_curve` returns.
    x, y
        Variables to draw against each other: any that has one number a row, such as ``"p"``,
        ``"arclength"``, ``"index"`` or what the residual observes; ``"norm"`` is ‖x‖, which ``y``
        is if nothing else is said and no ``loss`` is there.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If it is no branch, or has no such variable.

    Examples
    --------
    >>> import dlnds as dl
    >>> fold = dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.5, 1.0))
    >>> dl.plot.branches(fold, y="norm").get_ylabel()
    'norm $\\|x\\|$'
    """
    parts = [data] if isinstance(data, xr.Dataset) else _nodes(data)
    if not parts or any(part.attrs.get("schema") != "branch" for part in parts):
        raise ValueError("data: needs what branch or diagram returns")
    rows = {"state": ("step", "parameter"), **dict.fromkeys(("p", "index", "event"), ("step",))}
    parts = [schema.check_content("data", part, rows) for part in parts]
    for word, given in (("x", x), ("y", y)):
        if not isinstance(given, str) and (given is not None or word == "x"):
            raise TypeError(f"{word}: needs the name of a variable, got {given!r}")
    name = y or ("loss" if "loss" in parts[0] else "norm")
    ax = axes(ax, figsize=(8.0, 5.5))
    seen: set[str] = set()
    for number, part in enumerate(parts):
        first, second = _variable(part, x), _variable(part, name)
        _draw(ax, part, first.values, second.values, f"C{number % 10}")
        seen |= _mark(ax, part, first.values, second.values)
    handles = [ax.plot([], [], color="0.3", label="stable")[0]]
    if any((part["index"].values > 0).any() for part in parts):
        handles += ax.plot([], [], color="0.3", linestyle="--", label="unstable")
    for kind, (marker, colour) in _MARKERS.items():
        if kind in seen:
            handles += ax.plot([], [], marker, color=colour, label=schema.spoken(kind))
    ax.set_xlabel(label(_variable(parts[0], x)))
    ax.set_ylabel(label(_variable(parts[0], name)))
    ax.legend(handles=handles)
    return ax


def _nodes(data: Any) -> list[xr.Dataset]:
    """Return the branches of a diagram, none of what is not one."""
    return [node.to_dataset() for node in getattr(data, "children", {}).values()]


def _variable(branch: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable with one number for each row."""
    if name == "norm":
        norm = np.linalg.norm(branch["state"].values, axis=1)
        return xr.DataArray(norm, dims="step", attrs={"long_name": "norm", "symbol": r"$\|x\|$"})
    known = [str(n) for n, v in branch.variables.items() if v.dims == ("step",)]
    if name not in known:
        raise ValueError(f"y: there is no {name!r} with one number a row{nearest(name, known)}")
    return branch[name]


def _draw(ax: "Axes", branch: xr.Dataset, x: Any, y: Any, colour: str) -> None:
    """Draw pieces of the same stability, each up to the next one."""
    stable = branch["index"].values == 0
    cuts = [0, *(np.flatnonzero(stable[1:] != stable[:-1]) + 1).tolist(), len(stable)]
    for a, b in itertools.pairwise(cuts):
        piece = slice(a, min(b + 1, len(stable)))
        ax.plot(x[piece], y[piece], color=colour, linestyle="-" if stable[a] else "--")


def _mark(ax: "Axes", branch: xr.Dataset, x: Any, y: Any) -> set[str]:
    kinds = schema.decode(branch["event"]).values
    for kind, (marker, colour) in _MARKERS.items():
        rows = kinds == kind
        if rows.any():
            ax.plot(x[rows], y[rows], marker, color=colour, markersize=5, zorder=4)
    return set(kinds.tolist())
