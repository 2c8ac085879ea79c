"""Ways to leave a critical point: what changes in its layers along each kind of arc.

In the bases of a critical point its layers are blkdiag(D_S, Z_i). Learnt modes are changed within
the first block, whatever the Z_i are. A channel of an unlearnt mode is a unit of each hidden layer
that no Z_i touches: e_i with Z_{i+1} e_i = 0 and f_i with f_iᵀ Z_i = 0, f_iᵀ e_i = 1. The layers
Z_i + α e_i f_{i−1}ᵀ, from v_k to u_j at the ends, have the product Z_h…Z_1 + α^h u_j v_kᵀ.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array, Flags
from dlnds.theory import strings, tolerances
from dlnds.theory.coordinates import kernel
from dlnds.theory.moments import Problem

#: Layer, counted from 0, what it gains at each sample of the arc, and the matrix it gains so often.
Term = tuple[int, Array, Array]


#: L − L_S from α or θ, σ of `mode`, σ of `mode_lost`, the sign of the layers' product, and h.
CHANGES: dict[str, Callable[[Array, Array, Array, Array, int], Array]] = {
    "activation": lambda a, high, low, sign, h: 0.5 * a ** (2 * h) - sign * high * a**h,
    "cross": lambda a, high, low, sign, h: 0.5 * a ** (2 * h),
    "scaling": lambda a, high, low, sign, h: 0.5 * high**2 * ((1.0 + a) ** h - 1.0) ** 2,
    "rotation": lambda a, high, low, sign, h: -0.5 * np.sin(a) ** 2 * (high**2 - low**2),
    "rotation_kept": lambda a, high, low, sign, h: -(np.sin(a) ** 2) * low * (high - low),
}


class Arc(NamedTuple):
    """What moves along one arc, as the columns of the schema ``arcs`` say it."""

    parameter: Array
    shape: str
    kind: str
    mode: int
    mode_lost: int
    mode_read: int
    n_layers: int


class Place(NamedTuple):
    """A critical point taken apart into what arcs are made of."""

    layers: tuple[Array, ...]
    sigma: Array
    found: strings.Learnt
    #: K⁺, if the inputs are not whitened.
    hook: Array | None
    #: Bases of all levels and their inverses, see `strings.adapted_bases`.
    bases: list[Array]
    inverses: list[Array]
    #: By layer what lies beside the orbit of A_S: Z_i, and what W_1 does with inputs without data.
    fiber: dict[int, Array]
    counted: strings.Strings
    #: e_i and f_i of the hidden layers in full, None if some layer has no free unit.
    channel: list[tuple[Array, Array]] | None
    #: What the Z_i do to the unlearnt modes.
    blocked: Flags
    held: Flags


def take_apart(
    problem: Problem, layers: Sequence[Array], found: strings.Learnt, rtol: float
) -> Place:
    """Return a critical point taken apart; ranks are decided at ``rtol``.

    A mode is *blocked* if the point that has learnt it as well, with the same Z_i, is not critical:
    for some layer i both v_j passes Z_{i−1}…Z_1 and u_j passes (Z_h…Z_{i+1})ᵀ. It is *held* if u_j
    passes Z_hᵀ: then even fewer layers of its channel than h − 1 are not critical.

    Raises
    ------
    AmbiguousRankError
        If a rank is not clear at ``rtol``.
    """
    blocks = strings.residual_blocks(problem, found, rtol)
    depth, hook = problem.depth, None
    counted = strings.count_strings(blocks, rtol, depth - 1)
    bases, inverses = strings.adapted_bases(found.layers, found.left, found.sizes, found.right)
    rank, blocks = len(found.sizes), blocks[:-1]
    ends = zip((bases[-1], bases[0]), found.frames, strict=True)
    rest = [basis[:, rank:].T @ frame for basis, frame in ends]
    outward = _passes([z.T for z in blocks[::-1]], rest[0], rtol)
    inward = _passes(blocks, rest[1], rtol)
    both = [inward[i - 2] & outward[depth - i - 1] for i in range(2, depth)]
    pairs = zip(bases[1:], blocks, inverses, strict=False)
    beside = [basis[:, rank:] @ z @ inverse[rank:] for basis, z, inverse in pairs]
    if problem.root is not None:
        hook = scipy.linalg.pinv(problem.root)
        unseen = layers[0] - problem.image(layers[0]) @ hook
        beside[0] = beside[0] @ hook
        if np.linalg.norm(unseen) > rtol * np.linalg.norm(layers[0]):
            beside[0] += unseen
    return Place(
        layers=tuple(layers),
        sigma=problem.modes[1],
        found=found,
        hook=hook,
        bases=bases,
        inverses=inverses,
        fiber={i: w for i, w in enumerate(beside) if w.any()},
        counted=counted,
        channel=_channel(blocks, counted, bases, inverses, rank),
        blocked=np.any(both, axis=0) if both else np.zeros(len(found.frames[0].T), bool),
        held=outward[0],
    )


def _passes(arrows: Sequence[Array], vectors: Array, rtol: float) -> list[Flags]:
    """Tell for each column, and after each arrow, if something of it is left."""
    left, scale = [], 1.0
    for arrow in arrows:
        vectors = arrow @ vectors
        scale *= float(np.linalg.norm(arrow, 2)) if arrow.any() else 0.0
        left.append(np.linalg.norm(vectors, axis=0) > rtol * scale)
    return left


def _channel(
    blocks: Sequence[Array],
    counted: strings.Strings,
    bases: Sequence[Array],
    inverses: Sequence[Array],
    rank: int,
) -> list[tuple[Array, Array]] | None:
    """Return e_i and f_i of all hidden layers, as long as each other, if all have them."""
    if not (counted.counts[1 : len(blocks), 0] > 0).all():
        return None
    pairs = []
    for i, (z, after) in enumerate(itertools.pairwise(blocks), 1):
        left = kernel(z.T, counted.ranks[i - 1, 1])
        right = kernel(after, counted.ranks[i, 1])
        a, s, b = np.linalg.svd(left.T @ right)
        e, f = (right @ b[0] / np.sqrt(s[0]), left @ a[:, 0] / np.sqrt(s[0]))
        pairs.append((bases[i][:, rank:] @ e, f @ inverses[i][rank:]))
    return pairs


def states(place: Place, arc: Arc) -> Array:
    """Return the states (sample, parameter) along an arc.

    Layers that end at zero are zero there: whether such a point is critical is a matter of sizes.
    """
    count = len(arc.parameter)
    layers = [np.repeat(w[None], count, axis=0) for w in place.layers]
    for i, gains, matrix in _TERMS[arc.shape](place, arc):
        layers[i] += gains[:, None, None] * matrix
    for w, start in zip(layers, place.layers, strict=True):
        sizes = np.linalg.norm(w, axis=(1, 2))
        w[sizes <= tolerances.EXACT * np.linalg.norm(start)] = 0.0
    return np.concatenate([w.reshape(count, -1) for w in layers], axis=1)


def is_possible(place: Place, shape: str) -> bool:
    """Tell whether a point has what arcs of such a shape are made of."""
    if shape == "fiber":
        return bool(place.fiber)
    return shape not in ("plateau", "activation", "cross") or place.channel is not None


def _term(place: Place, layer: int, gains: Array, matrix: Array) -> Term:
    """Return what a layer gains if, in case of the first, W_1 K gains ``matrix``."""
    if layer == 0 and place.hook is not None:
        matrix = matrix @ place.hook
    return layer, gains, matrix


def _unit(place: Place, mode: int) -> int:
    """Return the hidden unit, in the bases of the point, that carries a learnt mode."""
    return place.found.modes.index(mode)


def _channel_terms(place: Place, arc: Arc) -> list[Term]:
    """Return the first layers of a channel that reads one mode and writes the same or another."""
    assert place.channel is not None
    U, V = place.found.frames
    read = arc.mode if arc.mode_read < 0 else arc.mode_read
    outs = [*(e for e, _ in place.channel), U[:, arc.mode]]
    ins = [V[:, read], *(f for _, f in place.channel)]
    falls = (arc.shape, arc.kind) == ("activation", "increasing")
    return [
        _term(place, i, -arc.parameter if falls and i == 0 else arc.parameter, np.outer(e, f))
        for i, e, f in zip(range(arc.n_layers), outs, ins, strict=False)
    ]


def _scaling_terms(place: Place, arc: Arc) -> list[Term]:
    """Return what makes a learnt mode 1 + α times as large in every layer."""
    unit = _unit(place, arc.mode)
    root = place.found.sizes[unit] ** (1.0 / len(place.layers))
    pairs = zip(range(arc.n_layers), place.bases[1:], place.inverses, strict=False)
    return [
        _term(place, i, arc.parameter, root * np.outer(basis[:, unit], inverse[unit]))
        for i, basis, inverse in pairs
    ]


def _rotation_terms(place: Place, arc: Arc) -> list[Term]:
    """Return what turns mode i to j: u in the last layer, and u(θ)ᵀ Σ or v in the first."""
    unit, (U, V) = _unit(place, arc.mode_lost), place.found.frames
    size, depth = float(place.found.sizes[unit]), len(place.layers)
    root = size ** (1.0 / depth)
    gain = place.sigma[arc.mode] / size if arc.shape == "rotation" else 1.0
    turned, gained = np.cos(arc.parameter) - 1.0, np.sin(arc.parameter)
    last, first = root * place.inverses[-2][unit], root * place.bases[1][:, unit]
    return [
        (depth - 1, turned, np.outer(U[:, arc.mode_lost], last)),
        (depth - 1, gained, np.outer(U[:, arc.mode], last)),
        _term(place, 0, turned, np.outer(first, V[:, arc.mode_lost])),
        _term(place, 0, gained, np.outer(first, gain * V[:, arc.mode])),
    ]


def _orbit_terms(place: Place, arc: Arc) -> list[Term]:
    """Return what scales the unit of a learnt mode in the first hidden layer by 1 + α."""
    unit, growth = _unit(place, arc.mode), arc.parameter
    out, back = place.bases[1][:, unit], place.inverses[1][unit]
    return [
        (0, growth, np.outer(out, back @ place.layers[0])),
        (1, -growth / (1.0 + growth), np.outer(place.layers[1] @ out, back)),
    ]


_TERMS: dict[str, Callable[[Place, Arc], list[Term]]] = {
    "orbit": _orbit_terms,
    "fiber": lambda place, arc: [(i, -arc.parameter, w) for i, w in place.fiber.items()],
    "plateau": _channel_terms,
    "activation": _channel_terms,
    "cross": _channel_terms,
    "scaling": _scaling_terms,
    "rotation": _rotation_terms,
    "rotation_kept": _rotation_terms,
}
