"""What kind of critical point a state of a network is, for any convex loss of its map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_memory
from dlnds.landscape.states import read_point
from dlnds.systems.losses import LossNetwork
from dlnds.systems.network import check_undecayed
from dlnds.theory import tolerances
from dlnds.theory.coordinates import product

#: How many times what counts as zero has to be off the limit so that it is clear.
_CLEAR = 30.0
#: What is zero, in terms of the accuracy of the state.
_MARGIN = 1e3


def classified(net: LossNetwork, x: ArrayLike | xr.Dataset, rtol: float | None) -> xr.Dataset:
    """Return what `classify` does, of a network with any loss; see there."""
    check_undecayed(net)
    given, _, _ = read_point(net, x, rtol)
    criterion, limit = net.criterion, tolerances.NEARLY if rtol is None else rtol
    state, force = _resting(net, given, limit, rtol or tolerances.CRITICAL)
    layers = net.unpack(state)
    W = product(layers)
    G, first = criterion.gradient(W), criterion.gradient(0.0 * W)
    strength = _strength(criterion, layers, G, first)
    # What is lost of a singular value, and of the gradient of the map: rounding and the distance.
    zero = min(max(rtol or tolerances.RANK, _MARGIN * force), limit)
    inputs, outputs = criterion.seen()
    rank, rank_is_clear = _rank(layers, outputs.T @ W @ inputs, zero)
    whole, whole_is_clear = _rank(layers, W, zero)
    slope = float(np.linalg.norm(G)) / strength
    widths = (inputs.shape[1], *net.widths[1:-1], outputs.shape[1])
    # There all maps of at most this rank are reached nearby, seen or not.
    smooth, is_clear = whole == min(net.widths), _far(slope, zero)
    critical = force <= limit and not (slope <= zero and criterion.recedes())
    variables: dict[str, Any] = {
        "rank": np.int64(whole),
        "ranks_are_clear": np.int8(rank_is_clear and whole_is_clear),
        "loss": float(net.loss(given)),
        "relative_gradient": force,
        "map_gradient": slope,
        "pure": np.int8(-1 if not critical else smooth or slope <= zero),
        "tightened": np.int8(-1),
    }
    decided = ("not_critical", True, 1, True)
    if critical and slope <= zero:
        is_clear = is_clear and _has_fallen(G, first, strength, limit)
        decided = ("global_minimum", is_clear, 0, is_clear)
    elif critical:
        spectrum = counted(net, state, zero)
        variables |= {"index": np.int64(spectrum[0]), "nullity": np.int64(spectrum[1])}
        sure = spectrum[2] and bool(spectrum[0] or (is_clear and rank_is_clear))
        decided = _saddle_or_minimum(net, state, widths, rank, spectrum[0], spectrum[1], sure)
    kind, clear, order, exact = decided
    variables["kind"] = schema.flag(schema.CLASSIFIED_KINDS, kind)
    variables["kind_is_clear"] = np.int8(clear)
    variables["order_of_descent"] = np.int64(order)
    variables["order_is_exact"] = np.int8(exact)
    attrs = net.attributes() | ({} if rtol is None else {"rtol": limit})
    return schema.finish(xr.Dataset(variables), "classification", attrs)


def _resting(net: LossNetwork, state: Array, limit: float, zero: float) -> tuple[Array, float]:
    """Return a state and its relative gradient, without layers that vanish up to rounding.

    If it is critical without them, and is not with them: the force on others is in terms of these.
    """
    force = _relative_gradient(net, state)
    sizes = np.array([float(np.linalg.norm(w)) for w in net.unpack(state)])
    small = sizes <= zero * sizes.max()
    if force <= limit or not small.any():
        return state, force
    kept = zip(net.unpack(state), small, strict=True)
    rest = net.pack([0.0 * w if gone else w for w, gone in kept])
    other = _relative_gradient(net, rest)
    return (rest, other) if other <= limit else (state, force)


def _strength(criterion: Any, layers: Sequence[Array], G: Array, first: Array) -> float:
    """Return the size of gradients of the map, now and at W = 0.

    If that is nothing beside what it is at other maps as large as the layers make them, as where
    all that is observed is zero, they have no other measure than this.
    """
    usual = float(criterion.steepness(np.prod([np.linalg.norm(w) for w in layers])))
    size = float(np.linalg.norm(first))
    if size <= tolerances.RANK * usual:
        return usual or 1.0
    return max(size, float(np.linalg.norm(G))) or 1.0


def _has_fallen(G: Array, first: Array, strength: float, limit: float) -> bool:
    """Tell whether each entry of the gradient is small in terms of what it was itself at W = 0.

    Where entries are of unlike size, one that has not moved may be nothing beside others.
    """
    counts = np.abs(first) > tolerances.rounding(first.size) * strength
    return bool((np.abs(G[counts]) <= limit * np.abs(first[counts])).all())


def _relative_gradient(net: LossNetwork, state: Array) -> float:
    """Return the largest ‖∇_i L‖ / (Π_{k≠i} ‖W_k‖ · strength), zero where that is 0/0."""
    layers = net.unpack(state)
    W = product(layers)
    G, first = net.criterion.gradient(W), net.criterion.gradient(0.0 * W)
    strength = _strength(net.criterion, layers, G, first)
    sizes = [float(np.linalg.norm(w)) for w in layers]
    found = 0.0
    for i, part in enumerate(net.unpack(net.gradient(state))):
        others = float(np.prod([*sizes[:i], *sizes[i + 1 :]])) * strength
        found = max(found, float(np.linalg.norm(part)) / others if others else 0.0)
    return found


def _rank(layers: tuple[Array, ...], W: Array, zero: float) -> tuple[int, bool]:
    """Return the rank of W, relative to the sizes of its layers, and whether it is clear."""
    scale = float(np.prod([np.linalg.norm(w, 2) for w in layers]))
    if not scale:
        return 0, True
    values = np.linalg.svd(W, compute_uv=False)[: min(len(layers[0]), *W.shape)] / scale
    return int(np.count_nonzero(values > zero)), all(_far(float(s), zero) for s in values)


def _far(value: float, limit: float) -> bool:
    return not limit / _CLEAR < value < limit * _CLEAR


def counted(net: Any, state: Array, zero: float) -> tuple[int, int, bool]:
    """Return index and nullity of the Hessian, and whether a kind by these is clear.

    One clearly negative eigenvalue makes a strict saddle, however others are.
    """
    check_memory("x", 3 * net.dim**2)
    values = scipy.linalg.eigvalsh(net.hessian(state))
    edge = max(zero, tolerances.HESSIAN) * float(np.abs(values).max())
    index, small = np.count_nonzero(values < -edge), np.count_nonzero(np.abs(values) <= edge)
    if index:
        return int(index), int(small), bool(-values[0] > _CLEAR * edge)
    clear = _far(float(-values[0]), edge) if values[0] < 0.0 else True
    clear &= all(_far(float(value), edge) for value in values if value > 0.0)
    return int(index), int(small), clear


def _saddle_or_minimum(
    net: LossNetwork,
    state: Array,
    widths: tuple[int, ...],
    rank: int,
    index: int,
    nullity: int,
    sure: bool,
) -> tuple[str, bool, int, bool]:
    """Return kind, whether it is clear, order of descent and whether it is exact, where ∇ℓ ≠ 0.

    A local minimum of smaller rank than the widths allow has ∇ℓ(W) = 0, for convex ℓ. Where the
    rank is full the states of one map are a manifold of n − r (d_0 + d_h − r) dimensions,
    with d_0 and d_h of the ``widths`` that the loss sees: weights of others are free.
    """
    if index:
        return "strict_saddle", sure, 2, sure
    if rank < min(widths):
        parts = net.theory(state).leading_parts()
        order = min((part.degree for part in parts), default=3)
        return "nonstrict_saddle", sure, order, bool(sure and parts)
    fiber = net.dim - rank * (widths[0] + widths[-1] - rank)
    if nullity <= fiber:
        return "minimum", sure, 0, sure
    return "undecided", False, 3, False
