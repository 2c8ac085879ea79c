"""Critical points taken apart: what is learnt, and the strings of the residual network.

At a critical point with learnt modes S bases of the hidden layers exist in which W_i =
blkdiag(D_S, Z_i). With the unlearnt part B = Σ_Qᵀ of the target, from outputs back to inputs, the
Z_1, …, Z_h, B form a cycle of h + 1 arrows in which all products of h arrows vanish. So it is a
direct sum of strings of at most h units, each carried on from node to node: their numbers, which
ranks of products tell, name the kind of a point up to the changes of bases that keep W and Σ.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_memory
from dlnds.theory import tolerances
from dlnds.theory.coordinates import product, sent_back
from dlnds.theory.moments import Problem, groups, named_modes, turns

#: Kinds of points that are tried for the largest sheet of a fiber: a few milliseconds, or seconds.
FEW_KINDS, MANY_KINDS, MOST_KINDS = 100, 10_000, 50_000


class AmbiguousRankError(ValueError):
    """A rank that the tolerance does not decide clearly."""


class Learnt(NamedTuple):
    """What a state has learnt, and how far it is from being critical."""

    #: The layers as the target sees them, see `image_layers`.
    layers: list[Array]
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

    def is_critical(self, rtol: float) -> bool:
        """Tell whether the state is critical to a relative accuracy."""
        return self.relative_gradient <= rtol and self.mode_residual <= tolerances.MODE


class Strings(NamedTuple):
    """Ranks of the products around the cycle, and how clearly they were decided."""

    #: rank(start node, number of arrows), without the learnt modes.
    ranks: Integers
    #: Strings that begin at a node and pass so many arrows.
    counts: Integers
    #: Smallest relative singular value that counts, and largest that does not.
    smallest_kept: float
    largest_dropped: float


def image_layers(problem: Problem, layers: Sequence[Array], rtol: float) -> list[Array]:
    """Return the layers as the target sees them: the first is W_1 K.

    What is below ``rtol`` times the largest layer is zero.
    """
    least = np.full(len(layers), rtol * max(float(np.linalg.norm(w)) for w in layers))
    if problem.root is not None:  # the rounding of W_1 K is relative to its factors
        least[0] *= float(np.linalg.norm(problem.root, 2))
    seen = [problem.image(layers[0]), *layers[1:]]
    return [
        w if np.linalg.norm(w) > bound else np.zeros_like(w)
        for w, bound in zip(seen, least, strict=True)
    ]


def learnt(problem: Problem, layers: Sequence[Array], rtol: float) -> Learnt:
    """Return what layers have learnt: the nearest W = P_S Σ, mode by mode."""
    left, sigma, right = problem.modes
    image = problem.image(product(layers))
    strength = problem.strength(image)[sigma > 0.0] / sigma[sigma > 0.0]
    U, V, freedom = left, right, 0
    for group in groups(sigma):
        if len(group) == 1:
            continue
        block = left[:, group].T @ image @ right[:, group] / sigma[group].mean()
        values, vectors = np.linalg.eigh(0.5 * (block + block.T))
        count = int(np.count_nonzero(values > 0.5))
        named = named_modes(strength, group, count)
        places = np.append(named, np.setdiff1d(group, named))
        strength[places] = values[::-1]
        if 0 < count < len(group):
            U, V = U.copy(), V.copy()
            U[:, places], V[:, places] = (f[:, group] @ vectors[:, ::-1] for f in (left, right))
            freedom += count * (len(group) - count)
    chosen = strength > 0.5
    modes = np.flatnonzero(chosen)
    residual = float(np.abs(strength - chosen).max(initial=0.0))
    seen = image_layers(problem, layers, rtol)
    return Learnt(
        layers=seen,
        modes=tuple(modes.tolist()),
        freedom=freedom,
        left=U[:, modes],
        sizes=sigma[modes],
        right=V[:, modes],
        frames=(U, V),
        mode_residual=residual,
        relative_gradient=_relative_gradient(seen, problem.target, float(sigma[0])),
    )


def _relative_gradient(layers: Sequence[Array], target: Array, size: float) -> float:
    """Return the largest ‖∇_i‖ / (Π_{k≠i} ‖W_k‖ · max(‖Σ‖, Π ‖W_k‖)), spectral norms."""
    norms = np.array([np.linalg.svd(w, compute_uv=False)[0] for w in layers])
    scale, worst = max(size, float(np.prod(norms))), 0.0
    signal = target - functools.reduce(lambda done, w: w @ done, layers)
    for i, gradient in enumerate(sent_back(layers, signal)):
        allowed = scale * float(np.prod(norms[:i]) * np.prod(norms[i + 1 :]))
        if allowed > 0.0:
            worst = max(worst, float(np.linalg.norm(gradient)) / allowed)
    return worst


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


def residual_blocks(problem: Problem, found: Learnt, rtol: float) -> list[Array]:
    """Return Z_1, …, Z_h and B of a critical point; Z_i below ``rtol`` ‖W_i‖ are set to zero."""
    layers, r = found.layers, len(found.sizes)
    units = [layers[0].shape[1] - r, *(len(w) - r for w in layers)]
    if not any(units):  # no residual network
        return [np.zeros((0, 0))] * len(units)
    bases, inverses = adapted_bases(layers, found.left, found.sizes, found.right)
    blocks = []
    for w, inverse, basis in zip(layers, inverses[1:], bases[:-1], strict=True):
        z = inverse[r:] @ w @ basis[:, r:]
        small = np.linalg.norm(z) <= rtol * np.linalg.norm(inverse @ w @ basis)
        blocks.append(np.zeros_like(z) if small else z)
    left, sigma, right = problem.modes
    target = (left * sigma) @ right.T  # without the rounding of a rank-deficient one
    closing = bases[0][:, r:].T @ target.T @ bases[-1][:, r:]
    return [*blocks, closing * (np.count_nonzero(sigma) > r)]


def count_strings(arrows: Sequence[Array], rtol: float, longest: int) -> Strings:
    """Return how many strings begin at each node and how far they go.

    ``arrows[i]`` leads from node i to node i + 1, the last one back to node 0. The ranks of all
    products of up to ``longest`` arrows are decided at ``rtol``, relative to the norms of the
    factors; longer products vanish.

    Raises
    ------
    AmbiguousRankError
        If the singular values have no clear gap at ``rtol``, or the ranks fit no strings.
    """
    nodes, units = len(arrows), [a.shape[1] for a in arrows]
    singular = [np.linalg.svd(a, compute_uv=False) if a.any() else np.zeros(1) for a in arrows]
    ranks = np.zeros((nodes, nodes + 2), np.int64)
    ranks[:, 0] = units
    kept, dropped = np.inf, 0.0
    for start in range(nodes):
        product, scale = np.eye(units[start]), 1.0
        for length in range(1, longest + 1):
            arrow = (start + length - 1) % nodes
            scale *= singular[arrow][0]
            if not scale:
                break
            product = arrows[arrow] @ product
            values = singular[arrow] if length == 1 else np.linalg.svd(product, compute_uv=False)
            values = values / scale
            rank = int(np.count_nonzero(values > rtol))
            above, below = values[:rank].min(initial=np.inf), values[rank:].max(initial=0.0)
            if above < tolerances.CLEAR_GAP * below:
                raise AmbiguousRankError(
                    f"rtol: at {rtol:g} a product of {length} blocks has a rank between {rank} and "
                    f"{rank + 1}: relative singular values {above:.2g} and {below:.2g}"
                )
            kept, dropped = min(kept, float(above)), max(dropped, float(below))
            ranks[start, length] = rank
    counts = _counts(ranks)
    if counts.min() < 0:
        raise AmbiguousRankError(
            f"rtol: the ranks found at {rtol:g} contradict each other: relative singular values "
            f"from {kept:.2g} count, up to {dropped:.2g} do not"
        )
    return Strings(ranks, counts, kept, dropped)


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
    problem: Problem, layers: Sequence[Array], found: Learnt, rtol: float, most: int
) -> tuple[int, FiberDimension, Strings]:
    """Return the dimensions of the GL orbit and of the fiber at a critical point, and its strings.

    Input directions without data, which W K does not see, are free. Where W itself can turn among
    equal singular values, the points with the same loss count as one fiber.
    """
    widths, depth, rank = problem.widths, problem.depth, len(found.sizes)
    blocks, inputs = residual_blocks(problem, found, rtol), problem.target.shape[1]
    strings, unseen = count_strings(blocks, rtol, depth - 1), widths[0] - inputs
    open_modes = int(np.count_nonzero(problem.modes[1])) - rank
    fiber = fiber_dimension((inputs, *widths[1:]), rank, open_modes, strings.counts, most)
    if unseen:
        first = np.hstack([blocks[0], unseen_block(problem, layers[0], found)])
        closing = np.zeros((first.shape[1], len(problem.target) - rank))
        linear = count_strings([first, *blocks[1:-1], closing], rtol, depth).counts
    else:
        start, length = np.indices(strings.ranks.shape)
        linear = _counts(np.where(start + length <= depth, strings.ranks, 0))
    linear[0, depth] += rank  # the learnt modes, from inputs to outputs
    orbit = orbit_dimension(widths, linear)
    free = unseen * widths[1] + found.freedom
    fiber = fiber._replace(sheet=fiber.sheet + free, largest=fiber.largest + free)
    return orbit, fiber, strings


def unseen_block(problem: Problem, first: Array, found: Learnt) -> Array:
    """Return what the residual network's first layer reads of inputs without data."""
    assert problem.root is not None
    _, inverses = adapted_bases(found.layers, found.left, found.sizes, found.right)
    unseen = scipy.linalg.null_space(problem.root.T)
    block: Array = inverses[1][len(found.sizes) :] @ first @ unseen
    return block
