"""The saddle-connection graph: orbits that lead from one critical point to another."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import (
    check_array,
    check_integer,
    check_memory,
    check_numbers,
    known_options,
)
from dlnds.landscape.critical import critical_points
from dlnds.runs.exact import growth_time
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.theory.coordinates import flat
from dlnds.theory.moments import balanced_layers, canonical_frames, count_pairs, equal, exceeds

#: Distances from the saddle for which escape times are given unless others are wanted.
SCALES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


_POINTS, _WEIGHTS = (0.5 * a for a in np.polynomial.legendre.leggauss(14))
_POINTS = _POINTS + 0.5


#: Beyond these values of ln tan φ the ends of a swap are what they tend to, up to rounding.
_REACH = 20.0


class _Edges(NamedTuple):
    """All edges: rows of the table of points, and modes i (−1 if none is lost) and j."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    lost: NDArray[np.int64]
    gained: NDArray[np.int64]


class _Orbit(NamedTuple):
    """One orbit in mode coordinates, which all edges with the same pair of modes share.

    ``size`` and ``angle`` are the singular value of the moving mode in every layer and the angle of
    its singular vectors from mode i towards mode j, ``change`` that of the loss, at the samples.
    """

    size: Array
    angle: Array
    change: Array
    length: float
    rate: float
    times: Array


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
        A whitened network.
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
        it one of a family. The orbit in mode coordinates: ``size(edge, point)``, the singular value
        of the moving mode in every layer, ``angle(edge, point)`` of its singular vectors from mode
        i towards j, and the exact ``loss(edge, point)``; `edge_states` gives the weights. With
        ``rank`` the attribute ``minima`` lists, between spaces, the nodes that are global minima of
        the restricted problem, those of k largest σ_j; all others are strict saddles of it.

    Raises
    ------
    ValueError, TypeError
        If the network is not whitened, a scale is not positive, ``rank`` is not from 1 to the
        largest rank of the nodes or comes with ``max_rank``, or as `critical_points`.

    Notes
    -----
    *Add*: a straight segment, a from 0 to s_j = σ_j^{1/h} in every layer, of length √h s_j, with
    ȧ = a^{h−1}(σ_j − a^h). *Swap*: W = N w wᵀ in the modes i and j, w = (cos φ, sin φ), turns from
    i to j; with β = h σ_i/(2Δ), Δ = σ_j − σ_i,
    1/N = ₂F₁(−h/2, 1; β + 1; sin²φ)/σ_i, φ̇ = N^{1−2/h} Δ sin φ cos φ, which departs at the rate
    s_i^{h−2} Δ. At h = 2 the orbits are arcs of the ellipses w_i²/σ_i + w_j²/σ_j = 1 for √N w.
    Edges are unique up to the symmetries if the singular values are distinct.

    The flow of end-to-end maps of rank k, Ẇ = 𝒜_W(Σ − W), is the image of the balanced flow of
    weights, so its orbits, rates and times are those of the swaps. The map from weights to W takes
    the balanced weights to the metric g_W as a Riemannian submersion, and gradient lines are
    horizontal: ‖ẋ‖² = ⟨∇ℓ, 𝒜_W ∇ℓ⟩ = g_W(Ẇ, Ẇ). So lengths and distances agree too.

    References
    ----------
    WA25; BRTW22 for the restricted problem.

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
    if not net.whitened:
        raise ValueError("net: needs a whitened network; others have no closed orbits")
    count = check_integer("n_points", n_points, minimum=2)
    distances = check_array("scales", scales, ndim=1)
    if distances.min() <= 0.0:
        raise ValueError(f"scales: needs positive distances, got {distances.min()}")
    with np.errstate(over="ignore", under="ignore"):
        if not np.isfinite(distances**4).all() or (distances**4 == 0.0).any():
            raise ValueError("scales: needs distances whose powers neither overflow nor vanish")
    points = _nodes(net, max_rank, modes, rank)
    sigma, learnt = net.singular_values, points["learnt"].values
    check_memory("n_points", (3 * count + 8) * count_edges(points))
    edges = _edges(learnt, sigma)
    pairs, which = np.unique([edges.lost, edges.gained], axis=1, return_inverse=True)
    orbits = [_orbit(sigma, i, j, net.depth, count, distances) for i, j in pairs.T.tolist()]
    along = _along(orbits, which, (count, len(distances)))
    start = points["loss"].values[edges.source]
    labels, added = points["critical_point"].values, edges.lost < 0
    below = np.where(added, 0.0, sigma[edges.lost])
    left, _, right = net.singular_modes
    dataset = xr.Dataset(
        {
            "kind": ("edge", schema.flag(schema.EDGE_KINDS, ["swap", "add"])[added.astype(int)]),
            "mode": ("edge", edges.gained),
            "mode_lost": ("edge", edges.lost),
            "drop": ("edge", 0.5 * (sigma[edges.gained] ** 2 - below**2)),
            "length": ("edge", along["length"]),
            "order": ("edge", np.where(added, net.depth, 2)),
            "rate": ("edge", along["rate"]),
            "escape_time": (("edge", "scale"), along["times"]),
            "is_generic": ("edge", _are_generic(learnt, edges)),
            "family_dimension": ("edge", _family_dimensions(learnt, sigma, edges)),
            "size": (("edge", "point"), along["size"]),
            "angle": (("edge", "point"), along["angle"]),
            "loss": (("edge", "point"), start[:, None] + along["change"]),
            "left": (("output", "mode"), left),
            "right": (("input", "mode"), right),
        },
        coords={
            "source": ("edge", labels[edges.source]),
            "target": ("edge", labels[edges.target]),
            "scale": distances,
            "singular_value": ("mode", sigma),
        },
    )
    attrs = net.attributes()
    if rank is not None:
        minima = labels[count_pairs(learnt, exceeds(sigma)) == 0]
        attrs |= {"restricted_to_rank": rank, "minima": " ".join(minima.tolist())}
    return schema.finish(dataset, "connections", attrs)


def _along(
    orbits: Sequence[_Orbit], which: NDArray[np.int64], sizes: tuple[int, int]
) -> dict[str, Array]:
    """Return what edges share with others: the rows of their orbits."""
    count, scales = sizes
    shapes = {"size": (count,), "angle": (count,), "change": (count,), "times": (scales,)}
    return {
        name: np.array([getattr(orbit, name) for orbit in orbits]).reshape(
            len(orbits), *shapes.get(name, ())
        )[which]
        for name in _Orbit._fields
    }


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


def _joinable(learnt: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which modes can be added to which sets without leaving the table of points."""
    rank, allowed = learnt.sum(axis=1), learnt.any(axis=0)
    addable: NDArray[np.bool_] = ~learnt & allowed & (rank < rank.max())[:, None]
    return addable


def _exchangeable(learnt: NDArray[np.bool_], sigma: Array) -> NDArray[np.bool_]:
    """Tell at (i, j) whether mode j of the table can take the place of mode i."""
    larger: NDArray[np.bool_] = exceeds(sigma) & learnt.any(axis=0)
    return larger


def count_edges(points: xr.Dataset) -> int:
    """Return how many connections there are between the critical points of a table."""
    learnt, sigma = points["learnt"].values, points["singular_value"].values
    swaps = count_pairs(learnt, _exchangeable(learnt, sigma))
    return int(np.count_nonzero(_joinable(learnt)) + swaps.sum())


def _edges(learnt: NDArray[np.bool_], sigma: Array) -> _Edges:
    """Return all additions and swaps between the points (point, mode), by source, lost, gained."""
    source, gained = np.nonzero(_joinable(learnt))
    parts = [(source, np.full(len(source), -1), gained)]
    larger = _exchangeable(learnt, sigma)
    for i in range(len(sigma)):
        rows = np.flatnonzero(learnt[:, i])
        place, gained = np.nonzero(~learnt[rows] & larger[i])
        parts.append((rows[place], np.full(len(place), i), gained))
    source, lost, gained = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((gained, lost, source))
    source, lost, gained = source[order], lost[order], gained[order]
    wanted, edge = learnt[source], np.arange(len(source))
    wanted[edge, gained] = True
    wanted[edge[lost >= 0], lost[lost >= 0]] = False
    return _Edges(source, _rows_of(learnt, wanted), lost, gained)


def _rows_of(table: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return in which rows of a table of different rows the wanted ones stand."""
    keys, sought = (
        np.packbits(rows, axis=1).view(f"S{-(-rows.shape[1] // 8)}").ravel()
        for rows in (table, wanted)
    )
    order = np.argsort(keys)
    places: NDArray[np.int64] = order[np.searchsorted(keys, sought, sorter=order)]
    return places


def _are_generic(learnt: NDArray[np.bool_], edges: _Edges) -> NDArray[np.int8]:
    """Tell which edges add the next mode to the leading ones."""
    rank = learnt.sum(axis=1)
    leading = (learnt == (np.arange(learnt.shape[1]) < rank[:, None])).all(axis=1)
    generic = leading[edges.source] & (edges.lost < 0) & (edges.gained == rank[edges.source])
    flags: NDArray[np.int8] = generic.astype(np.int8)
    return flags


def _family_dimensions(learnt: NDArray[np.bool_], sigma: Array, edges: _Edges) -> NDArray[np.int64]:
    """Return how many dimensions of directions of equal modes an edge is one of."""
    same = equal(sigma).astype(np.int64)
    inside, outside = learnt @ same, ~learnt @ same
    lost = np.where(edges.lost >= 0, inside[edges.source, edges.lost] - 1, 0)
    dimensions: NDArray[np.int64] = lost + outside[edges.source, edges.gained] - 1
    return dimensions


def _orbit(sigma: Array, i: int, j: int, depth: int, count: int, scales: Array) -> _Orbit:
    high, fractions = float(sigma[j]), np.linspace(0.0, 1.0, count)
    if i >= 0:
        return _swap(_Turn(float(sigma[i]), high, depth), 0.5 * np.pi * fractions, scales)
    half = high * (1.0 - np.sqrt(0.5))  # where σ p − p²/2 is half of σ²/2
    starts = (scales / np.sqrt(depth)) ** depth
    times = [growth_time(p, half, high, depth) if p < half else 0.0 for p in starts.tolist()]
    size, powers = high ** (1.0 / depth), fractions**depth
    change = high**2 * (0.5 * powers**2 - powers)
    length = float(np.sqrt(depth)) * size
    return _Orbit(size * fractions, np.zeros(count), change, length, high, np.array(times))


class _Turn(NamedTuple):
    """The orbit that turns from a lower mode to a higher one, in u = ln tan φ.

    Length and time are integrals over u of functions analytic up to ±iπ/2.
    """

    low: float
    high: float
    depth: int

    @property
    def gap(self) -> float:
        """Δ = σ_j − σ_i."""
        return self.high - self.low

    def strength(self, u: Array) -> Array:
        """Return N at u."""
        return _strength(np.arctan(np.exp(u)), self.low, self.high, self.depth)

    def mean(self, u: Array) -> Array:
        """Return Σ along the direction of the mode."""
        weighted: Array = self.low + self.gap * expit(2.0 * u)
        return weighted

    def place(self, level: float) -> float:
        """Return u where mode j has a strength, N sin²φ = level."""
        if level < 1e-16 * self.low:
            return 0.5 * float(np.log(level / self.low))

        def excess(u: float) -> float:
            point = np.array([u])
            return float(np.log(self.strength(point) * expit(2.0 * point))[0] - np.log(level))

        return float(scipy.optimize.brentq(excess, -45.0, 45.0, xtol=1e-14))

    def halfway(self) -> float:
        """Return u where half of the drop is lost."""

        def lack(u: float) -> float:
            point = np.array([u])
            value = 0.5 * self.strength(point) ** 2 - self.strength(point) * self.mean(point)
            return float(value[0]) + 0.25 * (self.low**2 + self.high**2)

        return float(scipy.optimize.brentq(lack, -45.0, 45.0, xtol=1e-14))

    def times(self, starts: Array, end: float) -> Array:
        """Return the times from the starts to the end: ∫ N^{2/h − 1} du / Δ."""
        power, near = 2.0 / self.depth - 1.0, min(-_REACH, end)
        straight = np.minimum(starts - near, 0.0)  # where N is σ_i
        starts = np.clip(starts, near, end)
        pieces = np.floor(end - starts)  # whole ones, which all starts share, next to the end
        count, parts = int(pieces.max(initial=0.0)), (end - pieces - starts)[:, None]
        u = end - np.arange(1.0, count + 1.0)[:, None] + _POINTS
        first = starts[:, None] + parts * _POINTS
        values = self.strength(np.concatenate([u, first]).ravel()) ** power
        whole, rest = np.split(values.reshape(-1, len(_POINTS)) @ _WEIGHTS, [count])
        sums = np.concatenate([[0.0], np.cumsum(whole)])[pieces.astype(int)]
        total: Array = sums + parts[:, 0] * rest - straight * self.low**power
        return total / self.gap

    def length(self) -> float:
        """Return the length in the space of weights."""
        end = _REACH + float(np.log(self.high / self.low)) / self.depth
        u, weights = _gauss_points(-_REACH, end, 1.0)
        N, turn = self.strength(u), np.sqrt(expit(2.0 * u) * expit(-2.0 * u))  # dφ/du
        growth = self.depth * (self.mean(u) - N) / self.gap
        speed = np.sqrt(growth**2 / self.depth + 2.0 * turn**2) * N ** (1.0 / self.depth)
        sizes = np.array([self.low, self.high]) ** (1.0 / self.depth)
        return float(weights @ speed + np.sqrt(2.0) * sizes @ np.exp([-_REACH, -end]))


def _swap(turn: _Turn, angles: Array, scales: Array) -> _Orbit:
    """Return the orbit that turns from the lower mode to the higher one."""
    low, high, depth = turn
    size = low ** (1.0 / depth)
    first = np.log(np.tan(np.minimum(scales / (np.sqrt(2.0) * size), 1.5)))  # φ is ε/(√2 s) there
    strength = _strength(angles, low, high, depth)
    mean = low * np.cos(angles) ** 2 + high * np.sin(angles) ** 2
    change = 0.5 * low**2 + 0.5 * strength**2 - strength * mean
    sizes, rate = strength ** (1.0 / depth), size ** (depth - 2) * turn.gap
    times = turn.times(first, turn.halfway())
    return _Orbit(sizes, angles, change, turn.length(), rate, times)


def orbit_time(sigma: Array, lost: int, gained: int, depth: int, start: float, end: float) -> float:
    """Return the time in which mode j grows from a strength to another along an edge.

    NaN where it does not: for strengths that are not positive, or beyond σ_j.
    """
    high = float(sigma[gained])
    if lost < 0:
        return growth_time(start, end, high, depth)
    if not 0.0 < start < high or not 0.0 < end < high:
        return float("nan")
    turn = _Turn(float(sigma[lost]), high, depth)
    begin, finish = turn.place(start), turn.place(end)
    time = turn.times(np.array([min(begin, finish)]), max(begin, finish))
    return float(np.copysign(time[0], finish - begin))


def _gauss_points(begin: float, end: float, width: float) -> tuple[Array, Array]:
    """Return points and weights of an integral over pieces of about the given width."""
    edges = np.linspace(begin, end, 1 + max(1, int(np.ceil((end - begin) / width))))
    points = edges[:-1, None] + np.diff(edges)[:, None] * _POINTS
    return points.ravel(), np.outer(np.diff(edges), _WEIGHTS).ravel()


def _strength(phi: Array, low: float, high: float, depth: int) -> Array:
    """Return N at angles: σ_i/N = ₂F₁(−h/2, 1; β + 1; sin²φ), β = h σ_i/(2 (σ_j − σ_i)).

    As ∫_0^∞ β e^{−βw} (cos²φ + e^{−w} sin²φ)^{h/2} dw, by Gauss points on short pieces: the
    integrand is analytic up to ±iπ around the axis for every φ. (scipy's ₂F₁ is NaN for some β.)
    """
    half = 0.5 * depth
    beta, cos2, sin2 = half * low / (high - low), np.cos(phi) ** 2, np.sin(phi) ** 2
    bend = float(np.max(np.log(np.maximum(sin2, 1e-30) / np.maximum(cos2, 1e-30))))
    end = min(max(bend, 0.0) + 40.0, 40.0 / beta)  # the second term has vanished there
    w, weights = _gauss_points(0.0, end, min(2.0, 2.0 / beta))
    terms = (cos2[:, None] + sin2[:, None] * np.exp(-w)) ** half
    rest = np.exp(-beta * end) * cos2**half
    strength: Array = low / (terms @ (weights * beta * np.exp(-beta * w)) + rest)
    return strength


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
    if not isinstance(graph, xr.Dataset) or graph.attrs.get("schema") != "connections":
        raise TypeError("graph: needs the Dataset that connections returns")
    graph = schema.check_content("graph", graph, _MOVING, ["widths"])
    row = graph.isel(edge=_number(graph, edge))
    check_numbers("graph", row, _MOVING)
    widths = [int(d) for d in graph.attrs["widths"]]
    if (graph.sizes["input"], graph.sizes["output"]) != (widths[0], widths[-1]):
        raise ValueError(f"graph: needs modes of {widths[0]} inputs and {widths[-1]} outputs")
    depth, sigma = len(widths) - 1, graph["singular_value"].values
    if len(sigma) != min(widths[0], widths[-1]) or np.any(np.diff(sigma) > 0.0):
        raise ValueError(f"graph: needs all modes in their order, got {sigma.tolist()}")
    kept = [m for m in schema.index_set_modes(str(row["source"].item())) if m != row["mode_lost"]]
    i, j = int(row["mode_lost"]), int(row["mode"])
    left, right = graph["left"].values, graph["right"].values
    states = []
    for size, angle in zip(row["size"].values, row["angle"].values, strict=True):
        sizes = np.append(sigma[kept] ** (1.0 / depth), size)
        frames = [
            np.column_stack([f[:, kept], _moving(f, i, j, float(angle))]) for f in (left, right)
        ]
        states.append(flat(balanced_layers(canonical_frames(widths, *frames), sizes)))
    dataset = xr.Dataset(
        {
            "state": (("point", "parameter"), np.stack(states)),
            "loss": ("point", row["loss"].values),
        },
        coords=schema.state_coordinates(widths),
    )
    ends = {name: str(row[name].item()) for name in ("source", "target")}
    kept_attrs = {k: v for k, v in graph.attrs.items() if k not in ("schema", "dlnds_version")}
    return schema.finish(dataset, "edge_path", {**kept_attrs, **ends})


#: What of connections their states are computed from.
_MOVING = {
    "singular_value": ("mode",),
    "left": ("output", "mode"),
    "right": ("input", "mode"),
    **dict.fromkeys(("size", "angle", "loss"), ("edge", "point")),
    **dict.fromkeys(("source", "target", "mode", "mode_lost"), ("edge",)),
}


def _number(graph: xr.Dataset, edge: Any) -> int:
    if isinstance(edge, tuple):
        ends = zip(graph["source"].values, graph["target"].values, strict=True)
        found = [k for k, pair in enumerate(ends) if pair == edge]
        if not found:
            raise ValueError(f"edge: there is none from {edge[0]} to {edge[-1]}")
        return found[0]
    return check_integer("edge", edge, minimum=0, maximum=graph.sizes["edge"] - 1)


def _moving(frame: Array, i: int, j: int, angle: float) -> Array:
    vector: Array = frame[:, j]
    if i >= 0:
        vector = np.cos(angle) * frame[:, i] + np.sin(angle) * frame[:, j]
    return vector
