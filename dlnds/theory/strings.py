"""Critical points taken apart: what is learnt, and the strings of the residual network.

At a critical point with learnt modes S bases of the hidden layers exist in which W_i =
blkdiag(D_S, Z_i). With the unlearnt part B = Σ_Qᵀ of the target, from outputs back to inputs, the
Z_1, …, Z_h, B form a cycle of h + 1 arrows in which all products of h arrows vanish. So it is a
direct sum of strings of at most h units, each carried on from node to node: their numbers, which
ranks of products tell, name the kind of a point up to the changes of bases that keep W and Σ.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_memory
from dlnds.theory import tolerances
from dlnds.theory.coordinates import n_weights, product, sent_back
from dlnds.theory.moments import Problem, count_pairs, equal, exceeds, groups, named_modes, turns

#: Kinds of points that are tried for the largest sheet of a fiber: a few milliseconds, or seconds.
FEW_KINDS, MANY_KINDS, MOST_KINDS = 100, 10_000, 50_000


class AmbiguousRankError(ValueError):
    """A rank that the tolerance does not decide clearly."""


class Learnt(NamedTuple):
    """What a state has learnt, and how far it is from being critical."""

    #: The layers as the target sees them: the first is W_1 K.
    layers: list[Array]
    #: What the rounding of each of them is relative to: ‖W_1‖ ‖K‖, ‖W_2‖, …
    grains: Array
    modes: tuple[int, ...]
    #: Dimensions in which W can turn among equal singular values: other index sets name it then.
    freedom: int
    #: Frames U_S (d_h × r) and V_S (k × r) with W K = U_S diag(sizes) V_Sᵀ.
    left: Array
    sizes: Array
    right: Array
    #: U (d_h × m) and V (k × m) of all modes, turned among equal σ_j as those that are learnt.
    frames: tuple[Array, Array]
    #: Largest deviation of a mode's strength from 0 or 1.
    mode_residual: float
    #: Largest ‖∇_i‖ relative to what the sizes of the layers allow.
    relative_gradient: float

    #: The rounding of these strengths.
    blur: float

    def is_critical(self, rtol: float | None = None) -> bool:
        """Tell whether the state is critical to a relative accuracy, or to what runs leave."""
        limit = tolerances.NEARLY if rtol is None else rtol
        return self.relative_gradient <= limit and self.mode_residual <= tolerances.MODE

    @property
    def clear(self) -> bool:
        """Whether rounding does not decide if the state is critical."""
        return self.is_critical() or self.blur <= 0.1 * self.mode_residual


class Strings(NamedTuple):
    """Ranks of the products around the cycle, and how clearly they were decided."""

    #: rank(start node, number of arrows), without the learnt modes.
    ranks: Integers
    #: Strings that begin at a node and pass so many arrows.
    counts: Integers
    #: Smallest relative singular value that counts, and largest that does not.
    smallest_kept: float
    largest_dropped: float


def learnt(problem: Problem, layers: Sequence[Array], rtol: float | None = None) -> Learnt:
    """Return what layers have learnt: the nearest W = P_S Σ, mode by mode.

    Rounding is relative to each layer, so that nothing depends on how sizes are shared among them;
    but a solver leaves layers that vanish below ``rtol`` times the largest one. Such layers are
    taken for zero if the state is critical then, and not as it is; so is what W_1 reads of data if
    it is nothing but the rounding of what it reads of inputs without data.
    """
    sizes = [_size(w) for w in layers]
    grains = np.array(sizes)
    if problem.root is not None:
        grains[0] *= _size(problem.root)
    seen = [problem.image(layers[0]), *layers[1:]]
    found, zero = _learnt(problem, seen, grains), rtol or tolerances.CRITICAL
    unread = [_size(w) for w in seen] <= zero * grains
    for small in (unread, unread | (np.array(sizes) <= zero * max(sizes))):
        if found.is_critical(rtol):
            return found
        rest = [np.zeros_like(w) if gone else w for w, gone in zip(seen, small, strict=True)]
        other = _learnt(problem, rest, grains)
        if other.is_critical(rtol):
            return other
    return found


def _learnt(problem: Problem, seen: list[Array], grains: Array) -> Learnt:
    left, sigma, right = problem.modes
    image = product(seen)
    strength = problem.strength(image)[sigma > 0.0] / sigma[sigma > 0.0]
    U, V, freedom, together = left, right, 0, [g for g in groups(sigma) if len(g) > 1]
    blocks = [left[:, g].T @ image @ right[:, g] / sigma[g].mean() for g in together]
    turned = [np.linalg.eigh(0.5 * (block + block.T)) for block in blocks]
    own = strength.copy()
    for group, (values, _) in zip(together, turned, strict=True):
        strength[group] = values[::-1]
    chosen = problem.nearest(strength)
    for group, (values, vectors) in zip(together, turned, strict=True):
        count = int(np.count_nonzero(chosen[group]))
        named = named_modes(own, group, count)
        places = np.append(named, np.setdiff1d(group, named))
        strength[places], chosen[places] = values[::-1], np.arange(len(group)) < count
        if 0 < count < len(group):
            U, V = U.copy(), V.copy()
            U[:, places], V[:, places] = (f[:, group] @ vectors[:, ::-1] for f in (left, right))
            freedom += count * (len(group) - count)
    modes = np.flatnonzero(chosen)
    residual = float(np.abs(strength - chosen).max(initial=0.0))
    return Learnt(
        layers=seen,
        grains=grains,
        modes=tuple(modes.tolist()),
        freedom=freedom,
        left=U[:, modes],
        sizes=sigma[modes],
        right=V[:, modes],
        frames=(U, V),
        mode_residual=residual,
        blur=tolerances.rounding(max(problem.widths))
        * _blur(seen, grains)
        / (sigma[sigma > 0.0].min(initial=np.inf)),
        relative_gradient=_relative_gradient(seen, problem.target, float(sigma[0])),
    )


def _blur(layers: Sequence[Array], grains: Array) -> float:
    """Return by how much a product of layers changes if each of them changes by its grain."""
    before = [np.eye(layers[0].shape[1])]
    for w in layers[:-1]:
        before.append(w @ before[-1])
    after, total = np.eye(len(layers[-1])), 0.0
    for w, grain, image in zip(layers[::-1], grains[::-1], before[::-1], strict=True):
        total += _size(after) * grain * _size(image)
        after = after @ w
    return total


def _relative_gradient(layers: Sequence[Array], target: Array, size: float) -> float:
    """Return the largest ‖∇_i‖ / (Π_{k≠i} ‖W_k‖ · max(‖Σ‖, Π ‖W_k‖)), spectral norms.

    Of layers of norm 1, so that products of small ones do not underflow.
    """
    norms = [_size(w) for w in layers]
    units = [w / (norm or 1.0) for w, norm in zip(layers, norms, strict=True)]
    total = math.prod(norms)
    scale, share = max(size, total), 1.0 if total >= size else total / size
    image = functools.reduce(lambda done, w: w @ done, units)
    signal = target / (scale or 1.0) - share * image
    return max(float(np.linalg.norm(gradient)) for gradient in sent_back(units, signal))


def hessian_scale(problem: Problem, layers: Sequence[Array]) -> float:
    """Return the size that second derivatives can have at such layers and such a target."""
    norms = np.sort([np.linalg.norm(w, 2) for w in layers])[::-1]
    root = 1.0 if problem.root is None else float(np.linalg.norm(problem.root, 2))
    outer = root * float(np.prod(norms[:-1]))
    inner = root * float(np.prod(norms[:-2])) * float(np.linalg.norm(problem.target, 2))
    return max(outer**2, inner)


def adapted_bases(
    layers: Sequence[Array], left: Array, sizes: Array, right: Array
) -> tuple[list[Array], list[Array]]:
    """Return bases of all levels in which layers are block-diagonal, and their inverses.

    Where W = left · diag(sizes) · rightᵀ is critical, inverse[i] W_i basis[i − 1] is
    blkdiag(diag(sizes^{1/h}), Z_i).
    """
    depth, rank = len(layers), len(sizes)
    check_memory("x", 5 * sum(w.shape[1] ** 2 for w in layers) + 5 * len(layers[-1]) ** 2)
    root = sizes ** (1.0 / depth)
    forward, back = [right], [left.T]
    for w in layers[:-1]:
        forward.append(w @ forward[-1] / root)
    for w in layers[:0:-1]:
        back.append(back[-1] @ w / root[:, None])
    bases, inverses = [], []
    for x, f in zip((*forward, left), (right.T, *back[::-1]), strict=True):
        q, _ = scipy.linalg.qr(f.T) if rank else (np.eye(len(x)), None)
        rest = q[:, rank:]
        bases.append(np.hstack([x, rest]))
        inverses.append(np.vstack([f, rest.T - (rest.T @ x) @ f]))
    return bases, inverses


class Residual(NamedTuple):
    """The residual network of a critical point: a cycle of arrows, and the rounding of each."""

    #: Z_1, …, Z_h and B.
    arrows: list[Array]
    #: What their rounding is relative to.
    grains: Array
    #: How exactly the state is critical, in the units of the rounding: the largest product of h
    #: arrows, and what W lacks of P_S Σ.
    defect: float


def residual(problem: Problem, found: Learnt) -> Residual:
    """Return the residual network of a critical point."""
    layers, r = found.layers, len(found.sizes)
    units = [layers[0].shape[1] - r, *(len(w) - r for w in layers)]
    if not any(units):
        return Residual([np.zeros((0, 0))] * len(units), np.zeros(len(units)), 0.0)
    bases, inverses = adapted_bases(layers, found.left, found.sizes, found.right)
    triples = zip(layers, inverses[1:], bases[:-1], strict=True)
    blocks = [inverse[r:] @ w @ basis[:, r:] for w, inverse, basis in triples]
    # The bases of what is not learnt are orthonormal, their inverses oblique.
    grains = [g * _size(inv[r:]) for g, inv in zip(found.grains, inverses[1:], strict=True)]
    left, sigma, right = problem.modes
    target = (left * sigma) @ right.T  # without the rounding of a rank-deficient one
    closing = bases[0][:, r:].T @ target.T @ bases[-1][:, r:]
    arrows = [*blocks, closing * (np.count_nonzero(sigma) > r)]
    sizes = np.array([*grains, 0.0])
    longest = [value for _, n, value in _measured(arrows, sizes, len(blocks)) if n == len(blocks)]
    defect = max(float(values.max(initial=0.0)) for values in longest)
    return Residual(arrows, sizes, defect)


def _size(matrix: Array) -> float:
    """Return the spectral norm, zero of nothing."""
    return float(np.linalg.svd(matrix, compute_uv=False)[0]) if matrix.any() else 0.0


def residual_blocks(problem: Problem, found: Learnt, rtol: float) -> list[Array]:
    """Return Z_1, …, Z_h and B of a critical point; Z_i that are rounding at ``rtol`` are zero."""
    arrows, grains, _ = residual(problem, found)
    return [
        z if _size(z) > rtol * grain else np.zeros_like(z)
        for z, grain in zip(arrows, grains, strict=True)
    ]


def _measured(
    arrows: Sequence[Array], grains: Array, longest: int
) -> Iterator[tuple[int, int, Array]]:
    """Yield start, number of arrows, and singular values of the products around the cycle.

    In units of what a product changes by if each arrow changes by its grain: the relative accuracy
    of the layers at which they are no longer told from zero.
    """
    nodes, norms = len(arrows), [_size(a) for a in arrows]
    for start in range(nodes):
        done, size, blur = np.eye(arrows[start].shape[1]), 1.0, 0.0
        for length in range(1, longest + 1):
            arrow = (start + length - 1) % nodes
            blur = norms[arrow] * blur + grains[arrow] * size
            done = arrows[arrow] @ done
            values = np.linalg.svd(done, compute_uv=False) if done.size else np.zeros(0)
            size = float(values.max(initial=0.0))
            seen = values > tolerances.rounding(max(done.shape)) * size
            with np.errstate(divide="ignore", invalid="ignore"):
                yield start, length, np.where(seen, values / blur, 0.0)


def count_strings(
    arrows: Sequence[Array], rtol: float, longest: int, grains: Array | None = None
) -> Strings:
    """Return how many strings begin at each node and how far they go.

    ``arrows[i]`` leads from node i to node i + 1, the last one back to node 0. The ranks of all
    products of up to ``longest`` arrows are decided at ``rtol``, relative to what a product changes
    by if each factor changes by its grain, or by its norm; longer products vanish.

    Raises
    ------
    AmbiguousRankError
        If the singular values have no clear gap at ``rtol``, or the ranks fit no strings.
    """
    if grains is None:
        grains = np.array([_size(a) for a in arrows])
    measured = list(_measured(arrows, grains, longest))
    found = _at(arrows, measured, rtol)
    above, below = found.smallest_kept, found.largest_dropped
    if above < tolerances.CLEAR_GAP * below or found.counts.min() < 0:
        raise AmbiguousRankError(
            f"rtol: ranks are not clear at {rtol:g}: relative singular values of products of "
            f"layers from {above:.2g} count, up to {below:.2g} do not"
        )
    return found


class Decision(NamedTuple):
    """The strings of a critical point, where they were decided, and what else is possible."""

    strings: Strings
    #: The ratio of the next ones above and below.
    gap: float
    #: The largest below, in terms of what rounding and the error of the state explain.
    unexplained: float
    #: Ranks of the other strings that are possible.
    others: tuple[Integers, ...]

    @property
    def possible(self) -> tuple[Integers, ...]:
        """The ranks that were decided on, and those of the other strings that are possible."""
        return self.strings.ranks, *self.others

    @property
    def sure(self) -> bool:
        """Whether the gap is no accident among singular values that are spread everywhere.

        What is below it must be rounding, or the error of a state that is not quite critical: in
        bases that are far from orthonormal singular values of products get as small as rounding,
        and some of them may be lost in it, where a wide gap above them says nothing.
        """
        return self.gap >= tolerances.WIDE_GAP and self.unexplained <= tolerances.EXPLAINED


def decided(
    problem: Problem, found: Learnt, rtol: float | None = None, accuracy: float = 0.0
) -> Decision:
    """Return the strings of a critical point, decided at ``rtol`` or in the widest gap.

    The gap is that of the relative singular values of products of layers, see `_measured`, above
    the accuracy of the state and below that at which nothing is known. Ranks that fit no strings
    are no choice. Others are possible nearer to rounding, in a gap half as wide (in decades), or
    within a factor of ten from ``rtol``.

    Raises
    ------
    AmbiguousRankError
        If no ranks near ``rtol`` fit strings.
    """
    arrows, grains, defect = residual(problem, found)
    error = max(defect, accuracy) if rtol is None else 0.0
    measured = list(_measured(arrows, grains, problem.depth - 1))
    return _decide(arrows, measured, tolerances.rounding(max(problem.widths)), error, rtol)


def _decide(
    arrows: Sequence[Array],
    measured: Sequence[tuple[int, int, Array]],
    rounding: float,
    error: float,
    rtol: float | None,
) -> Decision:
    """Return the decision on singular values above the rounding and the error of the state.

    Rounding is a bound: smaller values are possible as well, down to a single rounding.
    """
    least, faint = max(rounding, error), float(np.finfo(float).eps)
    most = max(tolerances.ERROR, tolerances.CLEAR_GAP * least)
    values = np.concatenate([np.zeros(0), *(found for _, _, found in measured)])
    lowest = faint if rtol is None and error <= rounding else least
    edges = np.log(np.unique([lowest, *values[(values > lowest) & (values < most)], most]))
    widths = edges[1:] - np.maximum(edges[:-1], np.log(least))
    several = [_at(arrows, measured, middle) for middle in np.exp(0.5 * (edges[1:] + edges[:-1]))]
    possible = np.array([one.counts.min(initial=0) >= 0 for one in several])
    if rtol is None:
        fits = np.where(possible, widths, widths - np.ptp(edges))
        best = int(np.argmax(np.where(widths > 0.0, fits, -np.inf)))
        rivals = (np.arange(len(several)) < best) | (widths > 0.5 * widths[best])
    else:
        away = np.maximum(edges[:-1] - np.log(rtol), np.log(rtol) - edges[1:])
        best = int(np.argmin(np.where(possible, away, np.inf)))
        rivals = away < np.log(tolerances.CLEAR_GAP)
        if not possible[best] or not rivals[best]:
            raise AmbiguousRankError(f"rtol: at {rtol:g} the ranks of products of layers disagree")
    chosen = possible & rivals & (np.arange(len(several)) != best)
    others = tuple(several[k].ranks for k in np.flatnonzero(chosen))
    unexplained = float(np.exp(edges[best])) / least
    return Decision(several[best], float(np.exp(widths[best])), unexplained, others)


def _at(
    arrows: Sequence[Array], measured: Iterable[tuple[int, int, Array]], rtol: float
) -> Strings:
    """Return the strings that singular values above ``rtol`` leave, possible or not."""
    nodes = len(arrows)
    ranks = np.zeros((nodes, nodes + 2), np.int64)
    ranks[:, 0] = [a.shape[1] for a in arrows]
    kept, dropped = np.inf, 0.0
    for start, length, values in measured:
        above = values > rtol
        ranks[start, length] = np.count_nonzero(above)
        kept = min(kept, float(values[above].min(initial=np.inf)))
        dropped = max(dropped, float(values[~above].max(initial=0.0)))
    return Strings(ranks, _counts(ranks), kept, dropped)


def order_of_descent(ranks: Integers, depth: int) -> int:
    """Return the size of the smallest set of layers whose cyclic blocks all are above rank r.

    ``ranks(node, arrows)`` are those without the learnt modes: shortest paths over the layers, from
    each first layer on.
    """
    best = depth
    for first in range(1, depth + 1):
        size = {first: 1}
        for last in range(first + 1, depth + 1):
            steps = [n for i, n in size.items() if ranks[i, last - 1 - i] > 0]
            if steps:
                size[last] = min(steps) + 1
        ends = [n for i, n in size.items() if i > first and ranks[i, depth - i + first] > 0]
        best = min([best, *ends])
    return best


def is_minimum(problem: Problem, layers: Sequence[Array]) -> bool | None:
    """Tell whether layers are at a global minimum of the square loss; all others are saddles.

    There the largest σ_j are learnt, as many as the widths let W have. None where there is nothing
    to learn, so that states have nothing to be small beside.
    """
    if not problem.modes[1].any():
        return None
    found, sigma = learnt(problem, layers), problem.modes[1]
    most = sigma[: min(*problem.widths, len(sigma))]
    lacking = float(np.sum(most**2) - np.sum(sigma[list(found.modes)] ** 2))
    return found.is_critical() and lacking <= tolerances.TIE * float(np.sum(most**2))


def descent(problem: Problem, ranks: Integers) -> tuple[int, bool]:
    """Return the order of descent at a saddle, and whether it is more than a bound."""
    order = order_of_descent(ranks, problem.depth)
    full = np.count_nonzero(problem.modes[1]) == min(problem.widths[0], problem.widths[-1])
    canonical = not ranks[: problem.depth, 1].any()
    return order, bool(order == 2 or full or canonical)


def _counts(ranks: Integers) -> Integers:
    """Return how many strings begin at each node and pass so many arrows, from ranks of products.

    A product has as many strings passing all of it as its rank.
    """
    earlier = np.roll(ranks, 1, axis=0)
    return ranks[:, :-2] - earlier[:, 1:-1] - ranks[:, 1:-1] + earlier[:, 2:]


def homomorphisms(counts: Integers, within: Sequence[int] | None = None) -> int:
    """Return the dimension of the endomorphisms of a sum of strings around a cycle.

    From a string I to a string J there is, up to a factor, one map if J passes the beginning of I
    and ends no later than I does, and else none. ``within`` counts only maps that vanish at all
    other nodes. No string passes a node twice.
    """
    nodes = len(counts)
    strings = [(int(a), int(n), int(counts[a, n])) for a, n in np.argwhere(counts)]
    total = 0
    for (a, n, many), (b, m, others) in itertools.product(strings, repeat=2):
        reached = m - (a - b) % nodes  # arrows from the beginning of I to the end of J
        inside = within is None or all((a + k) % nodes in within for k in range(reached + 1))
        if 0 <= reached <= n and inside:
            total += many * others
    return total


def orbit_dimension(widths: Sequence[int], counts: Integers) -> int:
    """Return the dimension of the GL orbit of layers whose strings do not pass the last arrow."""
    hidden = range(1, len(widths) - 1)
    return sum(d * d for d in widths[1:-1]) - homomorphisms(counts, hidden)


def inertia(problem: Problem, modes: Sequence[int], ranks: Integers) -> tuple[int, int]:
    """Return the numbers of negative and of zero eigenvalues of the Hessian at a critical point.

    In bases in which layers are block-diagonal the second derivative ‖D_1‖² − 2⟨R, D_2⟩ falls
    apart. What joins learnt with other units depends on W alone, since products of h arrows
    vanish: pairs j ∈ S, q ∉ S have the signs of σ_j ± σ_q. In the residual network a weight of
    layer i from a string I to a string J meets those from J to I: i < j do if J passes nodes i to
    j − 1, and I those from j around to i − 1. Such a form has as many eigenvalues of either sign
    as its rank. Where no weight from J to I is met, W may change by the sum of those from I to J.
    """
    sigma, depth = problem.modes[1], problem.depth
    outputs, inputs = problem.target.shape
    learnt, rank = np.isin(np.arange(len(sigma)), modes)[None], len(modes)
    larger, same = (count_pairs(learnt, r).item() for r in (exceeds(sigma), equal(sigma)))
    counts = _counts(ranks)
    strings = [(int(a), int(n), int(counts[a, n])) for a, n in np.argwhere(counts)]
    pairs, alone = 0, 0
    for (a, n, many), (b, m, others) in itertools.product(strings, repeat=2):
        met, single = _meetings((a, n), (b, m), depth)
        pairs += many * others * met  # each twice, from I and from J
        alone += many * others * single
    nonzero = rank * (inputs + outputs - rank) - same + pairs + alone
    return larger + pairs // 2, n_weights(problem.widths) - nonzero


@functools.lru_cache(maxsize=10_000)
def _meetings(first: tuple[int, int], second: tuple[int, int], depth: int) -> tuple[int, int]:
    """Return the rank of the form between the weights from a string I to J and from J to I.

    With it whether W changes by those from I to J that do not meet any.
    """
    nodes = depth + 1
    (a, n), (b, m) = first, second

    def passes(start: int, length: int, begin: int, end: int) -> bool:
        return (begin - start) % nodes + (end - begin) % nodes <= length

    met, seen = np.zeros((depth, depth), np.int64), np.zeros(depth, np.int64)
    for i in range(1, depth + 1):
        if not (passes(a, n, i - 1, i - 1) and passes(b, m, i, i)):
            continue
        seen[i - 1] = passes(a, n, 0, i - 1) and passes(b, m, i, depth)
        for j in range(1, depth + 1):
            if i < j:
                met[i - 1, j - 1] = passes(b, m, i, j - 1) and passes(a, n, j, i - 1)
            elif j < i:
                met[i - 1, j - 1] = passes(a, n, j, i - 1) and passes(b, m, i, j - 1)
    rank = _rank(met)
    return rank, _rank(np.column_stack([met, seen])) - rank


def _rank(matrix: Array | Integers) -> int:
    """Return the rank of a small matrix of zeros and ones."""
    return int(np.linalg.matrix_rank(matrix)) if matrix.any() else 0


class FiberDimension(NamedTuple):
    """How many dimensions the critical points over the same W and Σ have at one of them."""

    #: Of the points of the same kind.
    sheet: int
    #: Of the largest sheet that passes through the point, as far as kinds were tried.
    largest: int
    #: Whether all kinds were tried.
    complete: bool


def fiber_dimension(
    widths: Sequence[int], rank: int, open_modes: int, counts: Integers, most: int
) -> FiberDimension:
    """Return the dimensions of the fiber at a point with such strings.

    The points of one kind are one orbit of GL(d_1) × … × GL(d_{h−1}) and of the changes of the
    inputs and outputs that keep W and Σ. A sheet passes through a point if its kind is reached by
    exchanges: two strings that overlap, or meet, become the longer and the shorter one that pass
    the same nodes. ``open_modes`` is the rank of Σ − W; about ``most`` kinds are tried.
    """
    ends = np.zeros((2, 2), np.int64)
    ends[0] = widths[0] - rank - open_modes, rank
    ends[1] = widths[-1] - rank - open_modes, open_modes
    acting = sum(d * d for d in widths[1:-1]) + homomorphisms(ends)
    kinds, maps, _, _ = _combinatorics(len(widths))
    start = np.array([counts[kind] for kind in kinds])
    start[-1] += rank
    fewest, complete = _fewest_maps(len(widths), tuple(start.tolist()), most)
    return FiberDimension(acting - int(start @ maps @ start), acting - fewest, complete)


@functools.cache
def _combinatorics(nodes: int) -> tuple[list[tuple[int, int]], Integers, Integers, Integers]:
    """Return the kinds of strings, maps between them, exchanges, and which products they pass.

    Exchanges (exchange, kind) are the changes of counts that make strings longer. No string gets as
    many arrows as there are layers, and none passes the last arrow anew. The last matrix tells for
    each product around the cycle (product, kind) whether a string passes all of it.
    """
    kinds = [(a, n) for a in range(nodes) for n in range(nodes - 1)] + [(0, nodes - 1)]
    number = {kind: place for place, kind in enumerate(kinds)}
    maps = [[0 <= m - (a - b) % nodes <= n for b, m in kinds] for a, n in kinds]
    rows = []
    for first, second in itertools.product(kinds, repeat=2):
        shift = (second[0] - first[0]) % nodes
        meets = shift == first[1] + 1 and second[0] != 0
        overlaps = 0 < shift <= first[1] < shift + second[1]
        longer = (first[0], shift + second[1])
        if (meets or overlaps) and longer[1] < nodes - 1:
            row = np.zeros(len(kinds), np.int64)
            np.add.at(row, [number[first], number[second], number[longer]], [-1, -1, 1])
            if overlaps:
                row[number[second[0], first[1] - shift]] += 1
            rows.append(row)
    passes = [[(a - b) % nodes + n <= m for b, m in kinds] for a, n in kinds]
    exchanges = np.array(rows, np.int64).reshape(-1, len(kinds))
    return kinds, np.array(maps, np.int64), exchanges, np.array(passes, np.int64)


@functools.lru_cache(maxsize=10_000)
def _fewest_maps(nodes: int, counts: tuple[int, ...], most: int) -> tuple[int, bool]:
    """Return the least cᵀ maps c over all counts that exchanges lead to, and if all were tried."""
    _, maps, exchanges, passes = _combinatorics(nodes)
    start = np.array(counts)
    key = np.random.default_rng(0).integers(2**62, size=len(start))  # tells counts apart, mod 2⁶⁴
    new, seen = start[None], np.array([start @ key])
    best = int(start @ maps @ start)
    while len(new) and len(seen) < most:
        after = (new[:, None] + exchanges).reshape(-1, len(start))
        after = after[(after >= 0).all(axis=1)]
        names, first = np.unique(after @ key, return_index=True)
        fresh = ~np.isin(names, seen)
        new, seen = after[first[fresh]], np.concatenate([seen, names[fresh]])
        best = min([best, *_forms(new, maps).tolist()])
    if len(new):
        return min(best, _descend(start, maps, exchanges, passes)), False
    return best, True


def _forms(counts: Integers, maps: Integers) -> Integers:
    """Return cᵀ maps c of each row c."""
    forms: Integers = np.einsum("ri,ij,rj->r", counts, maps, counts, optimize=True)
    return forms


def _descend(start: Integers, maps: Integers, exchanges: Integers, passes: Integers) -> int:
    """Return a small cᵀ maps c: exchanges that lower it most, then pairs of one back and one forth.

    A pair is taken if no product has a smaller rank than at the start.
    """
    pairs = (exchanges[:, None] - exchanges).reshape(-1, len(start))
    counts, lowest = start, passes @ start
    for moves in (exchanges, pairs):
        while True:
            after = counts + moves
            allowed = (after >= 0).all(axis=1) & (after @ passes.T >= lowest).all(axis=1)
            after = after[allowed]
            forms = _forms(after, maps)
            if not forms.size or forms.min() >= counts @ maps @ counts:
                break
            counts = after[forms.argmin()]
    return int(counts @ maps @ counts)


def all_canonical_dimensions(
    problem: Problem, learnt: Flags, most: int
) -> tuple[Integers, Integers, Flags]:
    """Return the dimensions of orbit and fiber at the canonical points of index sets (point, mode).

    The last array tells where the fiber's is no lower bound. But for equal singular values all
    depend on the rank only: the Z blocks vanish, and open modes lead from outputs to inputs.
    """
    inputs, sigma = problem.target.shape[1], problem.modes[1]
    widths, modes = (inputs, *problem.widths[1:]), int(np.count_nonzero(sigma))
    ranks = learnt.sum(axis=1)
    orbit, fiber, complete = np.zeros((3, len(ranks)), np.int64)
    for rank in np.unique(ranks).tolist():
        here, counts = ranks == rank, np.zeros((len(widths), len(widths)), np.int64)
        counts[:, 0] = np.array(widths) - rank
        counts[[0, -1], 0] -= modes - rank
        counts[-1, 1] = modes - rank
        found = fiber_dimension(widths, rank, modes - rank, counts, most)
        orbit[here] = sum(d * d - (d - rank) ** 2 for d in widths[1:-1])
        fiber[here] = found.largest + (problem.widths[0] - inputs) * widths[1]
        complete[here] = found.complete
    return orbit, fiber + turns(sigma, learnt), complete.astype(bool)


def dimensions(
    problem: Problem,
    layers: Sequence[Array],
    found: Learnt,
    most: int,
    rtol: float | None = None,
    accuracy: float = 0.0,
) -> tuple[int, FiberDimension, Decision]:
    """Return the dimensions of the GL orbit and of the fiber at a critical point, and its strings.

    Input directions without data, which W K does not see, are free. Where W itself can turn among
    equal singular values, the points with the same loss count as one fiber.
    """
    widths, depth, rank = problem.widths, problem.depth, len(found.sizes)
    inputs, decision = problem.target.shape[1], decided(problem, found, rtol, accuracy)
    counts, unseen = decision.strings.counts, widths[0] - inputs
    open_modes = int(np.count_nonzero(problem.modes[1])) - rank
    fiber = fiber_dimension((inputs, *widths[1:]), rank, open_modes, counts, most)
    if unseen:
        linear = _without_data(problem, layers[0], found, rtol, accuracy)
        decision = decision._replace(
            gap=min(decision.gap, linear.gap),
            unexplained=max(decision.unexplained, linear.unexplained),
            others=(*decision.others, *linear.others),
        )
        counts = linear.strings.counts
    else:
        start, length = np.indices(decision.strings.ranks.shape)
        counts = _counts(np.where(start + length <= depth, decision.strings.ranks, 0))
    counts[0, depth] += rank  # the learnt modes, from inputs to outputs
    orbit = orbit_dimension(widths, counts)
    free = unseen * widths[1] + found.freedom
    fiber = fiber._replace(sheet=fiber.sheet + free, largest=fiber.largest + free)
    return orbit, fiber, decision


def _without_data(
    problem: Problem, first: Array, found: Learnt, rtol: float | None, accuracy: float
) -> Decision:
    """Return the strings of the residual network with all inputs, and without a way back."""
    arrows, grains, _ = residual(problem, found)
    # As large as what layer 1 reads of the others, so that both have the same rounding.
    block = unseen_block(problem, first, found) * (
        _size(problem.root) if problem.root is not None else 1.0
    )
    start = np.hstack([arrows[0], block])
    closing = np.zeros((start.shape[1], len(problem.target) - len(found.sizes)))
    cycle = [start, *arrows[1:-1], closing]
    measured = list(_measured(cycle, grains, problem.depth))
    return _decide(cycle, measured, tolerances.rounding(max(problem.widths)), accuracy, rtol)


def unseen_block(problem: Problem, first: Array, found: Learnt) -> Array:
    """Return what the residual network's first layer reads of inputs without data."""
    assert problem.root is not None
    _, inverses = adapted_bases(found.layers, found.left, found.sizes, found.right)
    unseen = scipy.linalg.null_space(problem.root.T)
    block: Array = inverses[1][len(found.sizes) :] @ first @ unseen
    return block
