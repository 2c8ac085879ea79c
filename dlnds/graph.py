"""The saddle-connection graph: orbits that lead from one critical point to another."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from dlnds import schema
from dlnds.critical import critical_points
from dlnds.errors import check_array, check_integer, check_memory, known_options
from dlnds.exact import growth_time
from dlnds.moments import balanced_layers, canonical_frames, equal, exceeds
from dlnds.systems.layers import flat
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.protocol import Array

#: Distances from the saddle for which escape times are given unless others are wanted.
SCALES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


_POINTS, _WEIGHTS = (0.5 * a for a in np.polynomial.legendre.leggauss(14))
_POINTS = _POINTS + 0.5


class _Orbit(NamedTuple):
    """One orbit in mode coordinates, which all edges with the same pair of modes share.

    ``size`` and ``angle`` are the singular value of the moving mode in every layer and the angle of
    its singular vectors from mode i towards mode j, at the samples.
    """

    size: Array
    angle: Array
    length: float
    rate: float
    times: Array


@known_options
def connections(
    net: LinearNetwork,
    max_rank: int | None = None,
    modes: Sequence[int] | None = None,
    *,
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
        i towards j, and the exact ``loss(edge, point)``; `edge_states` gives the weights.

    Raises
    ------
    ValueError, TypeError
        If the network is not whitened, a scale is not positive, or as `critical_points`.

    Notes
    -----
    *Add*: a straight segment, a from 0 to s_j = σ_j^{1/h} in every layer, of length √h s_j, with
    ȧ = a^{h−1}(σ_j − a^h). *Swap*: W = N w wᵀ in the modes i and j, w = (cos φ, sin φ), turns from
    i to j; with β = h σ_i/(2Δ), Δ = σ_j − σ_i,
    1/N = ₂F₁(−h/2, 1; β + 1; sin²φ)/σ_i, φ̇ = N^{1−2/h} Δ sin φ cos φ, which departs at the rate
    s_i^{h−2} Δ. At h = 2 the orbits are arcs of the ellipses w_i²/σ_i + w_j²/σ_j = 1 for √N w.
    Edges are unique up to the symmetries if the singular values are distinct.

    References
    ----------
    WA25

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
    points = critical_points(net, max_rank, modes)
    edges = _edges(net, points)
    check_memory("n_points", 3 * count * len(edges))
    sigma, depth = net.singular_values, net.depth
    pairs = sorted({pair for _, pair in edges})
    orbits = {pair: _orbit(sigma, pair, depth, count, distances) for pair in pairs}
    start = 0.5 * np.array([np.sum(np.delete(sigma, s) ** 2) for s, _ in edges])
    chosen = [orbits[pair] for _, pair in edges]
    lost, gained = (np.array([pair[k] for _, pair in edges], np.int64) for k in (0, 1))
    below = np.where(lost < 0, 0.0, sigma[lost]) if edges else np.zeros(0)
    targets = [tuple(sorted({*s, j} - {i})) for s, (i, j) in edges]
    dataset = xr.Dataset(
        {
            "kind": ("edge", schema.flag(schema.EDGE_KINDS, np.where(lost < 0, "add", "swap"))),
            "mode": ("edge", gained),
            "mode_lost": ("edge", lost),
            "drop": ("edge", 0.5 * (sigma[gained] ** 2 - below**2) if edges else np.zeros(0)),
            "length": ("edge", np.array([orbit.length for orbit in chosen])),
            "order": ("edge", np.where(lost < 0, depth, 2)),
            "rate": ("edge", np.array([orbit.rate for orbit in chosen])),
            "escape_time": (("edge", "scale"), _rows([o.times for o in chosen], len(distances))),
            "is_generic": ("edge", np.array([_is_generic(s, pair) for s, pair in edges], np.int8)),
            "family_dimension": ("edge", _family_dimensions(sigma, edges)),
            "size": (("edge", "point"), _rows([o.size for o in chosen], count)),
            "angle": (("edge", "point"), _rows([o.angle for o in chosen], count)),
        },
        coords={
            "source": ("edge", schema.index_set_labels(s for s, _ in edges)),
            "target": ("edge", schema.index_set_labels(targets)),
            "scale": distances,
            "singular_value": ("mode", sigma),
        },
    )
    loss = _loss_along(dataset, start, sigma, depth)
    dataset = dataset.assign(loss=(("edge", "point"), loss))
    left, _, right = net.singular_modes
    dataset = dataset.assign(left=(("output", "mode"), left), right=(("input", "mode"), right))
    return schema.finish(dataset, "connections", net.attributes())


def _rows(parts: Sequence[Array], size: int) -> Array:
    return np.stack(parts) if parts else np.zeros((0, size))


def _edges(net: LinearNetwork, points: xr.Dataset) -> list[tuple[tuple[int, ...], tuple[int, int]]]:
    """Return (S, (i, j)) for all swaps, and with i = −1 for additions, between listed points."""
    sets = [schema.index_set_modes(str(label)) for label in points["critical_point"].values]
    known, larger = set(sets), exceeds(net.singular_values)
    allowed = sorted({mode for s in sets for mode in s})
    edges = []
    for s in sets:
        others = [j for j in allowed if j not in s]
        edges += [(s, (-1, j)) for j in others if tuple(sorted((*s, j))) in known]
        edges += [(s, (i, j)) for i in s for j in others if larger[i, j]]
    return edges


def _is_generic(source: tuple[int, ...], pair: tuple[int, int]) -> bool:
    return pair == (-1, len(source)) and source == tuple(range(len(source)))


def _family_dimensions(
    sigma: Array, edges: Sequence[tuple[tuple[int, ...], tuple[int, int]]]
) -> NDArray[np.int64]:
    """Return how many dimensions of directions of equal modes an edge is one of."""
    same, dimensions = equal(sigma), []
    for s, (i, j) in edges:
        learnt = np.isin(np.arange(len(sigma)), s)
        lost = int(np.count_nonzero(same[i] & learnt)) - 1 if i >= 0 else 0
        dimensions.append(lost + int(np.count_nonzero(same[j] & ~learnt)) - 1)
    return np.array(dimensions, np.int64)


def _orbit(sigma: Array, pair: tuple[int, int], depth: int, count: int, scales: Array) -> _Orbit:
    i, j = pair
    high, fractions = float(sigma[j]), np.linspace(0.0, 1.0, count)
    if i >= 0:
        return _swap(float(sigma[i]), high, depth, 0.5 * np.pi * fractions, scales)
    half = high * (1.0 - np.sqrt(0.5))  # where σ p − p²/2 is half of σ²/2
    starts = (scales / np.sqrt(depth)) ** depth
    times = [growth_time(p, half, high, depth) if p < half else 0.0 for p in starts.tolist()]
    size = high ** (1.0 / depth)
    length = float(np.sqrt(depth)) * size
    return _Orbit(size * fractions, np.zeros(count), length, high, np.array(times))


def _swap(low: float, high: float, depth: int, angles: Array, scales: Array) -> _Orbit:
    """Return the orbit that turns from the lower mode to the higher one.

    Length and time are integrals over u = ln tan φ, of functions analytic up to ±iπ/2.
    """
    gap, size = high - low, low ** (1.0 / depth)

    def strength(u: Array) -> Array:
        return _strength(np.arctan(np.exp(u)), low, high, depth)

    def mean(u: Array) -> Array:
        """Σ along the direction of the mode."""
        weighted: Array = low + gap * expit(2.0 * u)
        return weighted

    u, weights = _gauss_points(-45.0, 45.0, 1.0)
    N, turn = strength(u), np.sqrt(expit(2.0 * u) * expit(-2.0 * u))  # dφ/du
    growth = depth * (mean(u) - N) / gap
    length = float(weights @ (np.sqrt(growth**2 / depth + 2.0 * turn**2) * N ** (1.0 / depth)))

    def lack(end: float) -> float:
        point = np.array([end])
        value = 0.5 * strength(point) ** 2 - strength(point) * mean(point)
        return float(value[0]) + 0.25 * (low**2 + high**2)

    end = scipy.optimize.brentq(lack, -45.0, 45.0, xtol=1e-14)
    times = []
    for scale in scales.tolist():  # at a distance ε from the saddle φ is ε/(√2 s)
        first = np.log(np.tan(min(scale / (np.sqrt(2.0) * size), 1.5)))
        u, weights = _gauss_points(min(first, end), end, 1.0)
        times.append(float(weights @ strength(u) ** (2.0 / depth - 1.0)) / gap)
    sizes = _strength(angles, low, high, depth) ** (1.0 / depth)
    return _Orbit(sizes, angles, length, size ** (depth - 2) * gap, np.array(times))


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


def _loss_along(graph: xr.Dataset, start: Array, sigma: Array, depth: int) -> Array:
    """Return ½‖Σ − W‖² along each orbit: a mode of strength N in the direction φ of a plane."""
    strength, angle = graph["size"].values ** depth, graph["angle"].values
    lost = graph["mode_lost"].values
    low = np.where(lost >= 0, sigma[lost], 0.0)[:, None]
    high = sigma[graph["mode"].values][:, None]
    swap = low * np.cos(angle) ** 2 + high * np.sin(angle) ** 2
    along = np.where(lost[:, None] >= 0, swap, high)
    loss: Array = start[:, None] + 0.5 * low**2 + 0.5 * strength**2 - strength * along
    return loss


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
    row = graph.isel(edge=_number(graph, edge))
    widths = [int(d) for d in graph.attrs["widths"]]
    depth, sigma = len(widths) - 1, graph["singular_value"].values
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
