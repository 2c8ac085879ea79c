"""The saddle-connection graph: orbits that lead from one critical point to another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_array, check_integer, check_memory, known_options
from dlnds.landscape.points import critical_points
from dlnds.systems.linear import NAMELESS, LinearNetwork, check_network
from dlnds.theory import laws
from dlnds.theory.connecting import connecting_sets
from dlnds.theory.coordinates import flat
from dlnds.theory.moments import balanced_layers, canonical_frames, count_pairs, equal, exceeds

#: Points up to which the graph says of each pair whether runs lead from one to the other.
MOST_PAIRED = 512
#: Distances from the saddle for which escape times are given unless others are wanted.
SCALES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


class _Edges(NamedTuple):
    """All edges: rows of the table of points, and modes i (−1 if none is lost) and j."""

    source: Integers
    target: Integers
    lost: Integers
    gained: Integers


class _Orbit(NamedTuple):
    """One orbit in mode coordinates, which all edges with the same pair of modes share.

    ``size`` and ``angle`` are the singular value of the moving mode in every layer and the angle of
    its singular vectors from mode i towards mode j, ``loss`` is its change, at the samples.
    """

    size: Array
    angle: Array
    loss: Array
    length: float
    rate: float
    escape_time: Array


@known_options
def connections(
    net: LinearNetwork,
    max_rank: int | None = None,
    modes: Sequence[int] | None = None,
    *,
    rank: int | None = None,
    n_points: int = 33,
    scales: ArrayLike = SCALES,
) -> xr.Dataset:
    """Return the graph of connecting orbits between the canonical critical points.

    Parameters
    ----------
    net
        A whitened network, or one of inputs with a covariance c I: in other coordinates, and c
        times as fast, that is a whitened one.
    max_rank, modes
        Which index sets are the nodes, as for `critical_points`.
    rank
        k, for the restricted problem: the Riemannian gradient flow of end-to-end maps of rank k, in
        place of the flow of weights. Its nodes are the sets of k modes, its edges the swaps.
    n_points
        Samples of each orbit.
    scales
        Distances ε from the saddle, in the space of weights, at which runs start for which escape
        times are given.

    Returns
    -------
    xarray.Dataset
        Schema ``connections``, dim ``edge`` with the coordinates ``source`` and ``target``, index
        sets: ``kind``, ``add`` for S → S ∪ {j} or ``swap`` for S → S∖{i} ∪ {j} with σ_j > σ_i;
        ``mode``, the mode j that is learnt, and ``mode_lost``, i or −1; ``drop`` of the loss;
        ``length`` of the orbit in the space of weights; how it departs: ``order`` of the loss, and
        ``rate`` λ, at which the distance grows like exp(λ t) for order 2, and like ȧ = λ a^{h−1} in
        every layer for order h ≥ 3; ``escape_time(edge, scale)`` from the distance ``scale`` until
        half of the drop is lost; ``is_generic``, 1 on the path ∅ → {0} → {0,1} → … that runs from
        small random starts take; ``family_dimension``, above zero where equal singular values make
        it one of a family, and ``dimension``, that of the set of orbits from source to target. The
        orbit in mode coordinates: ``size(edge, point)``, the singular value
        of the moving mode in every layer, ``angle(edge, point)`` of its singular vectors from mode
        i towards j, and the exact ``loss(edge, point)``; `edge_states` gives the weights. With
        ``rank`` the attribute ``minima`` lists, between spaces, the nodes that are global minima of
        the restricted problem, those of k largest σ_j; all others are strict saddles of it.

        Edges lead on from one to the other, but runs join more points than these: of each pair
        ``leads(start_point, end_point)`` says if there are runs from one to the other: ``no``; a
        single ``orbit``, up to symmetries; a ``set`` of them of the dimension
        ``dimension_between(start_point, end_point)``, in which those along an orbit count as one;
        or ``open``, if that is not known, with the dimension it would have. ``full_dimension`` is
        that in the space of weights, from A_S itself. −1 where there are none. Of more than 512
        points the pairs are left out.

    Raises
    ------
    ValueError, TypeError
        If the covariance of the inputs is not c I, a scale is not positive, ``rank`` is not from 1
        to the largest rank of the nodes or comes with ``max_rank``, or as `critical_points`.

    Notes
    -----
    *Add*: a straight segment, a from 0 to s_j = σ_j^{1/h} in every layer, of length √h s_j, with
    ȧ = a^{h−1}(σ_j − a^h). *Swap*: W = N w wᵀ in the modes i and j, w = (cos φ, sin φ), turns from
    i to j; with β = h σ_i/(2Δ), Δ = σ_j − σ_i,
    1/N = ₂F₁(−h/2, 1; β + 1; sin²φ)/σ_i, φ̇ = N^{1−2/h} Δ sin φ cos φ, which departs at the rate
    s_i^{h−2} Δ. At h = 2 the orbits are arcs of the ellipses w_i²/σ_i + w_j²/σ_j = 1 for √N w.
    Edges are unique up to the symmetries if the singular values are distinct.

    *Pairs*: runs lead from S to S' if each mode that is lost can be swapped for a better one of its
    own, σ_j > σ_i: a direct sum of swaps and additions does. The dimension, with t = |S'| − |S|
    and k positive σ, is ι(S) − ι(S') + t (k − |S|) − t (t − 1)/2, ι the number of better modes
    that are not learnt, for each that is. It was found transversal in all cases that were tried,
    not proved. That no other pairs are joined is proved for h = 2, and for h ≥ 3 up to four modes;
    for more by invariant sets, or because the loss would rise, and otherwise it is open.

    The flow of end-to-end maps of rank k, Ẇ = 𝒜_W(Σ − W), is the image of the balanced flow of
    weights, so its orbits, rates and times are those of the swaps. The map from weights to W takes
    the balanced weights to the metric g_W as a Riemannian submersion, and gradient lines are
    horizontal: ‖ẋ‖² = ⟨∇ℓ, 𝒜_W ∇ℓ⟩ = g_W(Ẇ, Ẇ). So lengths and distances agree too.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362); BRTW22 (Bah, Rauhut, Terstiege & Westdickenberg,
    arXiv:1910.05505) for the restricted problem.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> graph = dl.connections(dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 0.9])))
    >>> list(zip(graph.source.values.tolist(), graph.target.values.tolist()))[:3]
    [('{}', '{0}'), ('{}', '{1}'), ('{0}', '{0,1}')]
    >>> swap = graph.isel(edge=dl.schema.decode(graph.kind) == "swap")
    >>> swap.source.item(), swap.target.item(), round(float(swap.length[0]), 12)
    ('{1}', '{0}', 2.650048995916)
    """
    check_network(net)
    count = check_integer("n_points", n_points, minimum=2)
    distances = _distances(scales)
    given, (net, speed) = net, _whitened(net)
    points = _nodes(net, max_rank, modes, rank)
    sigma, learnt = net.singular_values, points["learnt"].values
    check_memory("n_points", (3 * count + 8) * count_edges(points))
    edges = _edges(learnt, sigma)
    labels, (left, _, right) = points["critical_point"].values, net.singular_modes
    variables = {
        **_differences(net, learnt, edges),
        **_pairs(net, learnt),
        **_along(net, points["loss"].values, edges, count, distances),
        "left": (("output", "mode"), left),
        "right": (("input", "mode"), right),
    }
    ends = schema.columns("edge", source=labels[edges.source], target=labels[edges.target])
    coords = {**ends, "scale": distances, "singular_value": ("mode", sigma)}
    if "leads" in variables:
        coords |= {"start_point": labels, "end_point": labels}
    for name, power in _SPEEDS.items():
        dims, values, *words = variables[name]
        variables[name] = (dims, values * speed**power, *words)
    attrs = given.attributes()
    if rank is not None:
        minima = labels[count_pairs(learnt, exceeds(sigma)) == 0]
        attrs |= {"restricted_to_rank": rank, "minima": " ".join(minima.tolist())}
    return schema.finish(xr.Dataset(variables, coords), "connections", attrs)


def _whitened(net: LinearNetwork) -> tuple[LinearNetwork, float]:
    """Return a whitened network with the same runs, and how many times faster they are.

    Of K Kᵀ = c I the loss is c/2 ‖Σ Kᵀ/c − W‖². Otherwise no orbit stays in the modes it begins in.
    """
    speed = net.problem.gain
    if speed is None:
        raise ValueError(
            "net: needs a whitened network, or inputs with a covariance c I; others have no closed "
            "orbits (grow_manifold follows theirs)"
        )
    if net.input_root is None:
        return net, 1.0
    target = net.target @ net.input_root.T / speed
    return dataclasses.replace(net, target=target, input_root=None, **NAMELESS), speed


def _distances(scales: ArrayLike) -> Array:
    """Return distances from the saddle; refuse those whose powers are not numbers."""
    distances = check_array("scales", scales, ndim=1)
    with np.errstate(over="ignore", under="ignore"):
        powers = distances**4
    if not ((distances > 0.0) & np.isfinite(powers) & (powers > 0.0)).all():
        raise ValueError(
            "scales: needs positive distances whose powers neither overflow nor vanish, "
            f"got {distances.min()} to {distances.max()}"
        )
    return distances


def _differences(net: LinearNetwork, learnt: Flags, edges: _Edges) -> dict[str, Any]:
    """Return what tells the ends of edges from each other, and which edges there are."""
    source, _, lost, gained = edges
    added, sigma, rank = lost < 0, net.singular_values, learnt.sum(axis=1)
    leading = (learnt == (np.arange(len(sigma)) < rank[:, None])).all(axis=1)
    below = np.where(added, 0.0, sigma[lost])
    return schema.columns(
        "edge",
        kind=schema.flag(schema.EDGE_KINDS, ["swap", "add"])[added.astype(int)],
        mode=gained,
        mode_lost=lost,
        drop=0.5 * (sigma[gained] ** 2 - below**2),
        order=np.where(added, net.depth, 2),
        is_generic=(added & leading[source] & (gained == rank[source])).astype(np.int8),
        family_dimension=_family_dimensions(learnt, sigma, edges),
        dimension=connecting_sets(net.widths, sigma, learnt, (source, edges.target)).dimension,
    )


def _pairs(net: LinearNetwork, learnt: Flags) -> dict[str, Any]:
    """Return of each pair of points whether runs lead from one to the other, if they are not many.

    Those of one layer, with one point, have no runs to others.
    """
    if len(learnt) > MOST_PAIRED:
        return {}
    found, dims = (
        connecting_sets(net.widths, net.singular_values, learnt),
        ("start_point", "end_point"),
    )
    return {
        "leads": (dims, found.leads.astype(np.int8)),
        "dimension_between": (dims, found.dimension.astype(np.int16)),
        "full_dimension": (dims, found.full_dimension.astype(np.int32)),
    }


def _along(
    net: LinearNetwork, start: Array, edges: _Edges, count: int, scales: Array
) -> dict[str, Any]:
    """Return the orbits of edges from points of the loss ``start``; many edges share one."""
    pairs, which = np.unique([edges.lost, edges.gained], axis=1, return_inverse=True)
    sigma, depth = net.singular_values, net.depth
    orbits = [_orbit(sigma, i, j, depth, count, scales) for i, j in pairs.T.tolist()]
    sizes = {"edge": -1, "point": count, "scale": len(scales)}
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(("length", "rate"), ("edge",))
    dims |= {"escape_time": ("edge", "scale")}
    dims |= dict.fromkeys(("size", "angle", "loss"), ("edge", "point"))
    found = {}
    for name, along in dims.items():
        column = np.reshape([getattr(orbit, name) for orbit in orbits], [sizes[d] for d in along])
        found[name] = (along, column[which])
    samples, change = found["loss"]
    return {**found, "loss": (samples, start[edges.source][:, None] + change)}


def _nodes(
    net: LinearNetwork, max_rank: int | None, modes: Sequence[int] | None, rank: int | None
) -> xr.Dataset:
    """Return the critical points of the problem, or of the one restricted to a rank."""
    if rank is None:
        return critical_points(net, max_rank, modes)
    if max_rank is not None:
        raise ValueError("rank: stands in place of max_rank, give one of them")
    if net.depth == 1:
        raise ValueError("rank: needs a network of at least two layers")
    top = net.max_rank if modes is None else min(net.max_rank, len(modes))
    rank = check_integer("rank", rank, minimum=1, maximum=top)
    points = critical_points(net, rank, modes)
    return points.isel(critical_point=points["rank"].values == rank)


def _joinable(learnt: Flags) -> Flags:
    """Tell which modes can be added to which sets without leaving the table of points."""
    rank, allowed = learnt.sum(axis=1), learnt.any(axis=0)
    addable: Flags = ~learnt & allowed & (rank < rank.max())[:, None]
    return addable


def count_edges(points: xr.Dataset) -> int:
    """Return how many connections there are between the critical points of a table."""
    learnt, sigma = points["learnt"].values, points["singular_value"].values
    swaps = count_pairs(learnt, exceeds(sigma) & learnt.any(axis=0))
    return int(np.count_nonzero(_joinable(learnt)) + swaps.sum())


def _edges(learnt: Flags, sigma: Array) -> _Edges:
    """Return all additions and swaps between the points (point, mode), by source, lost, gained."""
    source, gained = np.nonzero(_joinable(learnt))
    parts = [(source, np.full(len(source), -1), gained)]
    larger = exceeds(sigma) & learnt.any(axis=0)
    for i in range(len(sigma)):
        rows = np.flatnonzero(learnt[:, i])
        place, gained = np.nonzero(~learnt[rows] & larger[i])
        parts.append((rows[place], np.full(len(place), i), gained))
    columns = np.concatenate(parts, axis=1)
    source, lost, gained = columns[:, np.lexsort(columns[::-1])]
    return _Edges(source, ends_in(learnt, source, lost, gained), lost, gained)


def ends_in(learnt: Flags, source: Integers, lost: Integers, gained: Integers) -> Integers:
    """Return the rows of a table of sets (row, mode) that rows of it lead to, −1 if to none.

    Each loses one mode and gains another, where these are not −1.
    """
    ends, number = learnt[source], np.arange(len(source))
    for modes, there in ((lost, False), (gained, True)):
        ends[number[modes >= 0], modes[modes >= 0]] = there
    packed = [np.packbits(rows, axis=1) for rows in (learnt, ends)]
    keys, sought = (rows.view(f"S{rows.shape[1]}").ravel() for rows in packed)
    order = np.argsort(keys)
    places = order[np.minimum(np.searchsorted(keys, sought, sorter=order), len(keys) - 1)]
    return np.where(keys[places] == sought, places, -1)


def _family_dimensions(learnt: Flags, sigma: Array, edges: _Edges) -> Integers:
    """Return how many dimensions of directions of equal modes an edge is one of."""
    same = equal(sigma).astype(np.int64)
    inside, outside = learnt @ same, ~learnt @ same
    lost = np.where(edges.lost >= 0, inside[edges.source, edges.lost] - 1, 0)
    return lost + outside[edges.source, edges.gained] - 1


def _orbit(sigma: Array, i: int, j: int, depth: int, count: int, scales: Array) -> _Orbit:
    """Return the orbit along which mode j is learnt, and i lost unless it is −1."""
    high, fractions = float(sigma[j]), np.linspace(0.0, 1.0, count)
    if i >= 0:
        return _swap(laws.Turn(float(sigma[i]), high, depth), 0.5 * np.pi * fractions, scales)
    half = high * (1.0 - np.sqrt(0.5))  # where σ p − p²/2 is half of σ²/2
    starts = (scales / np.sqrt(depth)) ** depth
    times = [laws.growth_time(p, half, high, depth) if p < half else 0.0 for p in starts.tolist()]
    size, powers = high ** (1.0 / depth), fractions**depth
    change = high**2 * (0.5 * powers**2 - powers)
    length = float(np.sqrt(depth)) * size
    return _Orbit(size * fractions, np.zeros(count), change, length, high, np.array(times))


def _swap(turn: laws.Turn, angles: Array, scales: Array) -> _Orbit:
    """Return the orbit that turns from the lower mode to the higher one."""
    low, high, depth = turn
    size = low ** (1.0 / depth)
    first = np.log(np.tan(np.minimum(scales / (np.sqrt(2.0) * size), 1.5)))  # φ is ε/(√2 s) there
    strength = turn.strength_at(angles)
    mean = low * np.cos(angles) ** 2 + high * np.sin(angles) ** 2
    change = 0.5 * low**2 + 0.5 * strength**2 - strength * mean
    times = turn.times(first, turn.halfway())
    return _Orbit(strength ** (1.0 / depth), angles, change, turn.length(), turn.rate, times)


@known_options
def edge_states(graph: xr.Dataset, edge: int | tuple[str, str]) -> xr.Dataset:
    """Return the weights along one connecting orbit.

    Parameters
    ----------
    graph
        What `connections` returns.
    edge
        Number of the edge, or its source and target, such as ``("{}", "{0}")``.

    Returns
    -------
    xarray.Dataset
        Schema ``edge_path``: ``state(point, parameter)`` and the exact ``loss(point)``; source and
        target in the attributes.

    Raises
    ------
    ValueError, TypeError
        If the Dataset is no graph, or has no such edge.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([2.0, 1.0]))
    >>> path = dl.edge_states(dl.connections(net), ("{1}", "{0}"))
    >>> bool(abs(net.gradient(path.state.values[[0, -1]])).max() < 1e-14)
    True
    """
    graph = schema.read(
        "graph", graph, "connections", _MOVING, attributes=["widths"], empty=["edge"]
    )
    row, widths = graph.isel(edge=_number(graph, edge)), [int(d) for d in graph.attrs["widths"]]
    ends = (widths[0], widths[-1])
    if (graph.sizes["input"], graph.sizes["output"], graph.sizes["mode"]) != (*ends, min(ends)):
        raise ValueError(f"graph: needs all modes of {ends[0]} inputs and {ends[1]} outputs")
    states = (("point", "parameter"), _states(row, widths))
    variables = {"state": states, "loss": ("point", row["loss"].values)}
    dataset = xr.Dataset(variables, schema.state_coordinates(widths))
    kept = {k: v for k, v in graph.attrs.items() if k not in ("schema", "dlnds_version")}
    names = {name: str(row[name].item()) for name in ("source", "target")}
    return schema.finish(dataset, "edge_path", {**kept, **names})


def _states(row: xr.Dataset, widths: Sequence[int]) -> Array:
    """Return the states (point, parameter) along one edge: resting modes, and one that moves."""
    i, j, depth = int(row["mode_lost"]), int(row["mode"]), len(widths) - 1
    resting = [m for m in schema.index_set_modes(str(row["source"].item())) if m != i]
    rest = row["singular_value"].values[resting] ** (1.0 / depth)
    ends = [row[name].values for name in ("left", "right")]
    states = []
    for size, angle in zip(row["size"].values, row["angle"].values, strict=True):
        frames = [np.column_stack([f[:, resting], _moving(f, i, j, float(angle))]) for f in ends]
        layers = balanced_layers(canonical_frames(widths, *frames), np.append(rest, size))
        states.append(flat(layers))
    return np.stack(states)


#: Powers of the speed of a flow that is faster by a constant, with what is as large as its energy.
_SPEEDS = {"drop": 1, "loss": 1, "rate": 1, "escape_time": -1}
#: What of connections their states are computed from.
_MOVING = {
    "singular_value": ("mode",),
    "left": ("output", "mode"),
    "right": ("input", "mode"),
    **dict.fromkeys(("size", "angle", "loss"), ("edge", "point")),
    **dict.fromkeys(("source", "target", "mode", "mode_lost"), ("edge",)),
}


def _number(graph: xr.Dataset, edge: Any) -> int:
    if not graph.sizes["edge"]:
        raise ValueError("graph: has no edges")
    if not isinstance(edge, tuple):
        return check_integer("edge", edge, minimum=0, maximum=graph.sizes["edge"] - 1)
    ends = list(zip(graph["source"].values, graph["target"].values, strict=True))
    if edge not in ends:
        raise ValueError(f"edge: there is none from {edge[0]} to {edge[-1]}")
    return ends.index(edge)


def _moving(frame: Array, i: int, j: int, angle: float) -> Array:
    if i < 0:
        return frame[:, j]
    moving: Array = np.cos(angle) * frame[:, i] + np.sin(angle) * frame[:, j]
    return moving
