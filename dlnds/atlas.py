"""The landscape atlas: critical points, arcs and modes of one problem in one tree."""

from collections.abc import Sequence

import xarray as xr

from dlnds import schema
from dlnds._version import __version__
from dlnds.arcs import activation_arcs
from dlnds.critical import critical_points
from dlnds.errors import known_options
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
        Schema ``atlas``: ``points`` as of `critical_points`, with ``index`` (Morse index) and
        ``nullity`` of the Hessian at A_S, and for whitened networks ``departure_rate`` (minus its
        lowest eigenvalue, 0 if none is negative) and ``convergence_rate`` (0 where there is no
        exponential one); ``arcs`` as of `activation_arcs`; ``modes``, the singular
        modes of the target; ``assumptions``, as of `check_assumptions`.

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
    index, nullity = canonical_inertia(net, points["learnt"].values)
    points = points.assign(index=("critical_point", index), nullity=("critical_point", nullity))
    if net.whitened:
        departure, convergence = canonical_rates(net, points["learnt"].values)
        points["departure_rate"] = ("critical_point", departure)
        points["convergence_rate"] = ("critical_point", convergence)
    nodes = {
        "points": schema.finish(points, "critical_points", {}),
        "arcs": activation_arcs(net, points, n_alpha=n_alpha, progress=progress),
        "modes": net.modes,
        "assumptions": net.assumptions,
    }
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {"schema": "atlas", "dlnds_version": __version__, **net.attributes()}
    return tree
