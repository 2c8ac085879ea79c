"""The landscape atlas: critical points, arcs, connections and modes of one problem in one tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.errors import check_generator, check_integer, check_memory, known_options
from dlnds.landscape.points import critical_points
from dlnds.landscape.singularities import learning_coefficient
from dlnds.runs.flow import flow
from dlnds.saddles.arcs import canonical_arcs
from dlnds.saddles.graph import connections, count_edges
from dlnds.saddles.visits import observed_connections, overlay
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.protocol import check_state
from dlnds.systems.stored import problem_coordinate
from dlnds.theory import spectra, strings

#: Most connections that an atlas holds.
MOST_CONNECTIONS = 250_000


@known_options
def build_atlas(
    net: LinearNetwork,
    max_rank: int | None = None,
    modes: Sequence[int] | None = None,
    *,
    n_alpha: int = 33,
    n_runs: int = 0,
    scale: float = 1e-2,
    rng: Any = None,
    max_steps: int = 100_000,
    workers: int = 1,
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
        Samples of each arc, and of each connecting orbit.
    n_runs
        How many runs from Gaussian starts to observe.
    scale, rng
        Standard deviation of the weights they start from, and seed or `numpy.random.Generator`
        (SPEC 7): the first start is ``net.initial("gaussian", scale=scale, rng=rng)``.
    max_steps, workers
        For these runs, as for `flow`.
    progress
        Show progress bars.

    Returns
    -------
    xarray.DataTree
        Schema ``atlas``: ``points`` as of `critical_points`, with what holds at A_S (below);
        ``arcs``, as of `critical_arcs`, from all these points; ``modes``, the singular modes of the
        target; ``assumptions``, as of `check_assumptions`. The attributes ``learning_coefficient``
        and ``learning_order`` are those of the global minima, as of `learning_coefficient`. For
        whitened networks ``connections``, as of `connections`; more than 250,000 are left out, and
        the attribute ``n_connections`` tells how many there are. With runs ``visits``, as of
        `observed_connections`, which are also laid over the connections as by `overlay`.

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
        As `critical_points`, and for the runs as `flow`.

    Examples
    --------
    >>> import dlnds as dl
    >>> atlas = dl.build_atlas(dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0], [0, 1.0]]))
    >>> atlas["points"]["index"].values.tolist(), atlas["points"]["nullity"].values.tolist()
    ([0, 0, 1, 0], [21, 18, 18, 17])
    """
    count = check_integer("n_runs", n_runs, minimum=0)
    generator = check_generator("rng", rng)
    check_network(net)
    points = critical_points(net, max_rank, modes)
    check_memory("n_runs", count * net.dim)
    points = points.assign(_at_canonical_points(net, points))
    nodes = {
        "points": schema.finish(points, "critical_points", {}),
        "arcs": canonical_arcs(net, points, n_alpha, progress),
        "modes": net.modes,
        "assumptions": net.assumptions,
    }
    minima = learning_coefficient(net)
    attrs = net.attributes() | {
        "learning_coefficient": float(minima.learning_coefficient),
        "learning_order": int(minima.order),
    }
    if net.whitened:
        attrs["n_connections"] = count_edges(points)
        if attrs["n_connections"] <= MOST_CONNECTIONS:
            nodes["connections"] = connections(net, max_rank, modes, n_points=n_alpha)
    if count:
        options = {"max_steps": max_steps, "workers": workers, "progress": progress}
        nodes["visits"] = _visits(net, count, scale, generator, options)
        if "connections" in nodes:
            nodes["connections"] = overlay(nodes["connections"], nodes["visits"])
    root = schema.finish(xr.Dataset(coords=problem_coordinate(net)), "atlas", attrs)
    return xr.DataTree.from_dict({"/": root, **nodes})


def _visits(
    net: LinearNetwork, count: int, scale: float, rng: np.random.Generator, options: dict[str, Any]
) -> xr.Dataset:
    """Return what runs from Gaussian starts did."""
    starts = [net.initial(scale=scale, rng=rng) for _ in range(count)]
    for start in starts:
        check_state("scale", net, start)
    runs = flow(net, np.stack(starts), save=("mode_strength",), **options)
    entropy = str(getattr(rng.bit_generator.seed_seq, "entropy", ""))
    return observed_connections(net, runs).assign_attrs(start_scale=scale, rng_entropy=entropy)


def _at_canonical_points(net: LinearNetwork, points: xr.Dataset) -> dict[str, Any]:
    """Return what is known in closed form at each A_S."""
    learnt = points["learnt"].values
    index, nullity = spectra.canonical_inertia(net.problem, learnt)
    kinds = strings.MANY_KINDS
    orbit, fiber, complete = strings.all_canonical_dimensions(net.problem, learnt, kinds)
    orders = {"global_minimum": 0, "strict_saddle": 2, "nonstrict_saddle": net.depth}
    order = [orders[kind] for kind in schema.decode(points["kind"]).values]
    rates = spectra.canonical_rates(net.problem, learnt) if net.whitened else ()
    return schema.columns(
        "critical_point",
        index=index,
        transverse_index=index,
        nullity=nullity,
        order_of_descent=np.array(order, np.int64),
        orbit_dimension=orbit,
        fiber_dimension=fiber,
        is_complete=complete.astype(np.int8),
        **dict(zip(("departure_rate", "convergence_rate"), rates, strict=False)),
    )
