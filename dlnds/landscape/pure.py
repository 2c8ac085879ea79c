"""What kind of critical point a state of a network is, for any convex loss of its map."""

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
    state, _, _ = read_point(net, x, rtol)
    layers, criterion = net.unpack(state), net.criterion
    W = product(layers)
    limit = tolerances.NEARLY if rtol is None else rtol
    G, first = criterion.gradient(W), float(np.linalg.norm(criterion.gradient(0.0 * W)))
    strength = max(first, float(np.linalg.norm(G))) or 1.0
    force = _relative_gradient(net, state, strength)
    # What is lost of a singular value, and of the gradient of the map: rounding and the distance.
    zero = min(max(rtol or tolerances.RANK, _MARGIN * force), limit)
    rank, rank_is_clear = _rank(layers, W, zero)
    slope = float(np.linalg.norm(G)) / strength
    smooth, is_clear = rank == min(net.widths), _far(slope, zero)
    critical = force <= limit and not (slope <= zero and criterion.recedes())
    variables: dict[str, Any] = {
        "rank": np.int64(rank),
        "ranks_are_clear": np.int8(rank_is_clear),
        "loss": float(net.loss(state)),
        "relative_gradient": force,
        "map_gradient": slope,
        "pure": np.int8(-1 if not critical else smooth or slope <= zero),
        "tightened": np.int8(-1),
    }
    decided = ("not_critical", True, 1, True)
    if critical and slope <= zero:
        decided = ("global_minimum", is_clear, 0, is_clear)
    elif critical:
        spectrum = counted(net, state, zero)
        variables |= {"index": np.int64(spectrum[0]), "nullity": np.int64(spectrum[1])}
        sure = bool(is_clear and rank_is_clear and spectrum[2])
        decided = _saddle_or_minimum(net, state, rank, spectrum[0], spectrum[1], sure)
    kind, clear, order, exact = decided
    variables["kind"] = schema.flag(schema.CLASSIFIED_KINDS, kind)
    variables["kind_is_clear"] = np.int8(clear)
    variables["order_of_descent"] = np.int64(order)
    variables["order_is_exact"] = np.int8(exact)
    attrs = net.attributes() | ({} if rtol is None else {"rtol": limit})
    return schema.finish(xr.Dataset(variables), "classification", attrs)


def _relative_gradient(net: LossNetwork, state: Array, strength: float) -> float:
    """Return the largest ‖∇_i L‖ / (Π_{k≠i} ‖W_k‖ · strength), zero where that is 0/0."""
    sizes = [float(np.linalg.norm(w)) for w in net.unpack(state)]
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
    """Return index and nullity of the Hessian, and whether they are clear."""
    check_memory("x", 3 * net.dim**2)
    values = scipy.linalg.eigvalsh(net.hessian(state))
    edge = max(zero, tolerances.HESSIAN) * float(np.abs(values).max())
    index, small = np.count_nonzero(values < -edge), np.count_nonzero(np.abs(values) <= edge)
    clear = _far(float(-values[0]), edge) if values[0] < 0.0 else True
    clear &= all(_far(float(value), edge) for value in values if value > 0.0)
    return int(index), int(small), clear


def _saddle_or_minimum(
    net: LossNetwork, state: Array, rank: int, index: int, nullity: int, sure: bool
) -> tuple[str, bool, int, bool]:
    """Return kind, whether it is clear, order of descent and whether it is exact, where ∇ℓ ≠ 0.

    A local minimum of smaller rank than the widths allow has ∇ℓ(W) = 0, for convex ℓ. Where the
    rank is full the states of one map are a manifold of n − r (d_0 + d_h − r) dimensions.
    """
    if index:
        return "strict_saddle", sure, 2, sure
    if rank < min(net.widths):
        parts = net.theory(state).leading_parts()
        order = min((part.degree for part in parts), default=3)
        return "nonstrict_saddle", sure, order, bool(sure and parts)
    fiber = net.dim - rank * (net.widths[0] + net.widths[-1] - rank)
    if nullity <= fiber:
        return "minimum", sure, 0, sure
    return "undecided", False, 3, False
