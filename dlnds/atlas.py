"""The landscape atlas: critical points, arcs and modes of one problem in one tree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds._version import __version__
from dlnds.arcs import canonical_arcs
from dlnds.critical import critical_points
from dlnds.errors import known_options
from dlnds.fibers import canonical_dimensions
from dlnds.linearization import canonical_inertia, canonical_rates
from dlnds.systems.linear import LinearNetwork


@known_options
def build_atlas(
    net: LinearNetwork,
    max_rank: int | None = None,
    modes: Sequence[int] | None = None,
    *,
    n_alpha: int = 33,
    progress: bool = False,
) -> xr.DataTree:
    """Return the atlas of a network's landscape.

    Parameters
    ----------
    net
        The network.
    max_rank, modes
        Which index sets to list, as for `critical_points`.
    n_alpha
        Samples of each arc.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.DataTree
        Schema ``atlas``: ``points`` as of `critical_points`, with what holds at A_S (below);
        ``arcs``, as of `critical_arcs`, from all these points; ``modes``, the singular modes of the
        target; ``assumptions``, as of `check_assumptions`.

        At A_S: ``index`` (Morse index; the fiber lies in the kernel, so that ``transverse_index``
        is the same) and ``nullity`` of the Hessian, ``order_of_descent``, ``orbit_dimension``,
        ``fiber_dimension`` and its ``is_complete`` as of `fiber_dimension`, and for whitened
        networks the rates ``departure_rate`` (0 if no eigenvalue is negative) and
        ``convergence_rate`` (0 but at minima without degenerate directions).

        Arcs that add a mode lead to a point which is listed. Of more than 100,000 arcs only those
        that descend to another point are kept, or of these only those that add a mode; the
        attribute ``selection`` of the node says ``all``, ``descending`` or ``activations``.

    Raises
    ------
    ValueError, TypeError
        As `critical_points`.

    Examples
    --------
    >>> import dlnds as dl
    >>> atlas = dl.build_atlas(dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0], [0, 1.0]]))
    >>> atlas["points"]["index"].values.tolist(), atlas["points"]["nullity"].values.tolist()
    ([0, 0, 1, 0], [21, 18, 18, 17])
    """
    points = critical_points(net, max_rank, modes)
    points = points.assign(_at_canonical_points(net, points))
    nodes = {
        "points": schema.finish(points, "critical_points", {}),
        "arcs": canonical_arcs(net, points, n_alpha, progress),
        "modes": net.modes,
        "assumptions": net.assumptions,
    }
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {"schema": "atlas", "dlnds_version": __version__, **net.attributes()}
    return tree


def _at_canonical_points(net: LinearNetwork, points: xr.Dataset) -> dict[str, Any]:
    """Return what is known in closed form at each A_S."""
    learnt = points["learnt"].values
    index, nullity = canonical_inertia(net, learnt)
    orbit, fiber, complete = canonical_dimensions(net, learnt)
    orders = {"global_minimum": 0, "strict_saddle": 2, "nonstrict_saddle": net.depth}
    order = [orders[kind] for kind in schema.decode(points["kind"]).values]
    columns = {
        "index": index,
        "transverse_index": index,
        "nullity": nullity,
        "order_of_descent": np.array(order, np.int64),
        "orbit_dimension": orbit,
        "fiber_dimension": fiber,
        "is_complete": complete.astype(np.int8),
    }
    if net.whitened:
        rates = canonical_rates(net, learnt)
        columns |= dict(zip(("departure_rate", "convergence_rate"), rates, strict=True))
    return {name: ("critical_point", values) for name, values in columns.items()}
