"""Named states to start a network of layers from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from dlnds.arrays import Array
from dlnds.errors import check_array, check_finite
from dlnds.theory import moments

if TYPE_CHECKING:
    from dlnds.systems.linear import LinearNetwork
    from dlnds.systems.network import LayeredSystem

#: Size, in terms of the imbalance, of starts that count as zero in it.
_TINY = 1e-12

KINDS = ("gaussian", "balanced", "aligned", "delta_balanced")


def aligned(net: "LinearNetwork", scale: ArrayLike) -> Array:
    """Return the balanced state in the singular basis of the target with these singular values."""
    if not net.whitened:
        raise ValueError("kind: 'aligned' needs a whitened problem, where alignment is preserved")
    rank = min(net.widths)
    sizes = check_array("scale", scale, ndim=(0, 1))
    if sizes.ndim and len(sizes) != rank:
        raise ValueError(
            f"scale: needs one number or one for each of {rank} modes, got {len(sizes)}"
        )
    if sizes.min() < 0.0:
        raise ValueError("scale: needs numbers of at least 0")
    left, _, right = net.singular_modes
    frames = moments.canonical_frames(net.widths, left[:, :rank], right[:, :rank])
    return net.pack(moments.balanced_layers(frames, np.broadcast_to(sizes, (rank,))))


def balanced(
    net: "LayeredSystem", layers: Sequence[Array], rng: np.random.Generator
) -> tuple[Array, ...]:
    """Return 0-balanced layers with the product of ``layers`` and random hidden bases."""
    rank = min(net.widths)
    product = net.product(net.pack(layers))
    left, values, right = np.linalg.svd(product, full_matrices=False)
    inner = [np.linalg.qr(rng.normal(size=(width, rank)))[0] for width in net.widths[1:-1]]
    frames = [right[:rank].T, *inner, left[:, :rank]]
    return moments.balanced_layers(frames, values[:rank] ** (1.0 / net.depth))


def unbalanced(net: "LayeredSystem", start: Array, change: Array, delta: float) -> Array:
    """Return ``start + c · change``, from a balanced start, with largest imbalance ``delta``.

    There C_i = c A_i + c² B_i; in the unknown u = c/√δ the equation has no large or small numbers.
    """
    if net.depth == 1:
        raise ValueError("kind: 'delta_balanced' needs at least two layers")
    if delta == 0.0:
        return start
    with np.errstate(over="ignore"):
        size = float(check_finite("scale", np.sum(start**2, keepdims=True))[0])
    if delta <= 64.0 * np.finfo(float).eps * size:
        raise ValueError(f"delta: {delta:g} is lost in the rounding of weights of this scale")
    if start.any():  # alike in size, so that the linear part is not lost in the others
        change = change * (max(np.sqrt(size), _TINY * np.sqrt(delta)) / np.linalg.norm(change))
    with np.errstate(over="ignore", invalid="ignore"):
        both, own, quadratic = (net._imbalances(x) for x in (start + change, start, change))
        linear = [b - o - q for b, o, q in zip(both, own, quadratic, strict=True)]
        check_finite("delta", np.array([np.sum(part**2) for part in [*linear, *quadratic]]))
    root, upper = np.sqrt(delta), 1.0

    def excess(u: float) -> float:
        terms = zip(linear, quadratic, strict=True)
        return max(float(np.linalg.norm(u * a / root + u**2 * b)) for a, b in terms) - 1.0

    while excess(upper) < 0.0:
        upper *= 2.0
    from scipy.optimize import brentq  # here, since loading it takes longer than all other starts

    u = brentq(excess, 0.0, upper, xtol=1e-300, rtol=1e-14, maxiter=1000)
    result: Array = start + root * float(u) * change
    return result
