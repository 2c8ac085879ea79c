"""Critical points under weight decay, the same for all layers, of whitened problems.

They are balanced and aligned: each layer holds mode j with the same size s_j, a root of
λ = s^{h−2} (σ_j − s^h).
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlnds.arrays import Array, Flags, Integers
from dlnds.theory import tolerances
from dlnds.theory.coordinates import product
from dlnds.theory.moments import (
    Problem,
    count_pairs,
    equal,
    exceeds,
    groups,
    limited,
    rank_tolerance,
)
from dlnds.theory.spectra import KnownSpectrum


class Point(NamedTuple):
    """The modes that a critical point has learnt, and how large layers are in each."""

    modes: Integers
    sizes: Array


def most_decay(sigma: float, depth: int) -> float:
    """Return the decay below which there is a mode of size s > 0: a pitchfork or a fold."""
    if depth == 1:
        return np.inf
    if depth == 2:
        return sigma
    top = (depth - 2.0) * sigma / (2.0 * depth - 2.0)
    return float(top ** ((depth - 2.0) / depth) * depth * sigma / (2.0 * depth - 2.0))


def all_most_decays(sigma: Array, depth: int) -> Array:
    """Return the same of all modes, 0 of those with σ = 0."""
    return np.array([most_decay(s, depth) if s else 0.0 for s in sigma])


def folded(sigma: Array, decay: float, depth: int, largest: float = 0.0) -> Flags:
    """Tell of which modes the decay is where their two roots are one, to rounding.

    Of two layers, where the mode is zero and its root leaves: a pitchfork. All σ are known to
    rounding of the ``largest``, here or of others, which moves where roots meet by up to twice as
    much.
    """
    if depth == 1 or not decay:
        return np.zeros(len(sigma), bool)
    most = all_most_decays(sigma, depth)
    lost = rank_tolerance(1) * max(largest, float(sigma.max(initial=0.0)))
    parts = lost / np.where(sigma > 0.0, sigma, np.inf)
    return np.asarray(np.abs(decay - most) <= np.maximum(tolerances.EXACT, 2.0 * parts) * most)


def root(sigma: float, decay: float, depth: int, *, upper: bool, largest: float = 0.0) -> float:
    """Return the larger or the smaller root s, NaN where there is none.

    One layer has s = σ/(1 + λ), two have s² = σ − λ; neither has a smaller one. More layers have
    two roots below the fold at s^h = (h − 2) σ/(2h − 2), and at it this one; two layers have none
    at their pitchfork.
    """
    if sigma and folded(np.array([sigma]), decay, depth, largest)[0]:
        return _fold(sigma, depth) if depth >= 3 else np.nan
    if (depth < 3 and not upper) or not 0.0 <= decay < most_decay(sigma, depth):
        return np.nan
    if depth == 1:
        return sigma / (1.0 + decay)
    if depth == 2:
        return float(np.sqrt(sigma - decay))
    from scipy.optimize import brentq  # here, since loading it takes long

    fold = _fold(sigma, depth)
    least = float((decay / sigma) ** (1.0 / (depth - 2.0)))  # where s^{h−2} σ = λ
    ends = (fold, float(sigma ** (1.0 / depth))) if upper else (least, fold)
    if not upper and decay == 0.0:
        return 0.0

    def excess(s: float) -> float:
        return s ** (depth - 2) * (sigma - s**depth) - decay

    values = [excess(end) for end in ends]
    for end, value in zip(ends, values, strict=True):
        if value == 0.0:
            return end
    if values[0] * values[1] > 0.0:  # at an end, to rounding
        return ends[int(np.argmin(np.abs(values)))]
    return float(brentq(excess, *ends, xtol=1e-300, rtol=4.0 * np.finfo(float).eps))


def _fold(sigma: float, depth: int) -> float:
    """Return the root of three layers and more where both are one."""
    return float(((depth - 2.0) * sigma / (2.0 * depth - 2.0)) ** (1.0 / depth))


def recognized(problem: Problem, layers: Sequence[Array], decay: float) -> Point | None:
    """Return the modes and sizes of layers that are critical under a decay, None of others."""
    depth, none = problem.depth, Point(np.zeros(0, np.int64), np.zeros(0))
    if not any(w.any() for w in layers):
        return none
    limit = tolerances.EXACT / (4.0 * depth)
    _, values, right = np.linalg.svd(layers[0], full_matrices=False)
    scale, sizes = float(values[0]), values[values > limit * values[0]]
    if not scale or len(sizes) > min(problem.widths):
        return None
    frames = [right[: len(sizes)].T]
    for w in layers:
        # Of the smaller sizes what rounding adds of the larger ones would grow from layer to layer.
        frame, corner = np.linalg.qr((w @ frames[-1]) / sizes)
        frames.append(frame * np.where(np.diagonal(corner) < 0.0, -1.0, 1.0))
        if not np.linalg.norm(w - (frames[-1] * sizes) @ frames[-2].T) <= limit * scale:
            return None
    sigma, (first, last) = problem.modes[1], (frames[0], frames[-1])
    strengths = sizes**depth + decay * sizes ** (2.0 - depth)
    images = problem.target @ first, problem.target.T @ last
    # Singular vectors are known to rounding in terms of their own singular values, which strengths
    # between them do not notice to first order.
    misses = [
        np.sum(last * images[0], axis=0) - strengths,
        (images[0] - last * strengths) * sizes / scale,
        (images[1] - first * strengths) * sizes / scale,
    ]
    if not all(np.linalg.norm(miss) <= limit * sigma[0] for miss in misses):
        return None
    left = list(range(len(sigma)))
    modes = [left.pop(int(np.argmin(np.abs(sigma[left] - value)))) for value in strengths]
    return Point(np.array(modes), sizes)


class Match(NamedTuple):
    """The roots (mode) that layers are nearest to: 1 the larger, −1 the smaller one, 0 none.

    ``residual`` is how far they are, in terms of σ_0^{1/h}, and ``second`` how far at least from
    others. ``at_fold`` tells whether some root is a double one.
    """

    signs: Integers
    residual: float
    second: float
    at_fold: bool


def matched(problem: Problem, layers: Sequence[Array], decay: float) -> Match:
    """Return the critical point that layers are near to, by the sizes of modes in all of them.

    Of equal σ_j the first modes get the larger roots.
    """
    (left, sigma, right), h = problem.modes, len(layers)
    scale, rest = float(sigma[0]) ** (1.0 / h) or 1.0, product(layers)
    signs, chosen, inside = np.zeros(len(sigma), np.int64), *np.zeros((2, len(sigma)))
    misses, second, at_fold = [0.0], np.inf, np.zeros(len(sigma), bool)
    for group in groups(sigma):
        candidates = _candidates(float(sigma[group].mean()), decay, h, float(sigma[0]))
        U, V = left[:, group], right[:, group]
        inner = U.T @ rest @ V
        rest = rest - U @ inner @ V.T
        own = _padded(layers[0] @ V if h > 1 else inner, len(group))
        apart = np.abs(own[:, None] - candidates.sizes)
        nearest = np.argmin(apart, axis=1)
        chosen[group], signs[group] = candidates.sizes[nearest], candidates.signs[nearest]
        inside[group], at_fold[group] = _padded(inner, len(group)), candidates.at_fold
        second = min(second, float(np.sort(apart, axis=1)[:, 1:2].min(initial=np.inf)) / scale)
    strength, goal = inside / scale**h, (chosen / scale) ** h
    kept = limited(signs != 0, goal * (2.0 * strength - goal), min(problem.widths))
    signs, chosen, goal = (np.where(kept, values, 0) for values in (signs, chosen, goal))
    misses.append(float(np.abs(strength - goal).max(initial=0.0)))
    misses.append(float(np.linalg.norm(rest)) / scale**h)
    sizes = np.sort(chosen)[::-1]
    for w in layers:
        count = max(len(sizes), min(w.shape))
        lacks = _padded(w, count) - np.pad(sizes, (0, count - len(sizes)))
        misses.append(float(np.abs(lacks).max()) / scale)
    return Match(signs, max(misses), second, bool((at_fold & kept).any()))


def _padded(matrix: Array, count: int) -> Array:
    """Return so many singular values, descending, zero where there are no more."""
    values = np.linalg.svd(matrix, compute_uv=False)[:count]
    return np.pad(values, (0, count - len(values)))


class _Candidates(NamedTuple):
    """The sizes that a mode may have, their signs, and whether two roots are one."""

    sizes: Array
    signs: Integers
    at_fold: bool


def _candidates(sigma: float, decay: float, depth: int, largest: float) -> _Candidates:
    """Return the sizes that a mode may have."""
    at_fold = bool(sigma and folded(np.array([sigma]), decay, depth, largest)[0])
    if depth == 1:
        return _Candidates(np.array([sigma / (1.0 + decay)]), np.array([1]), False)
    if depth > 2 and at_fold:
        return _Candidates(np.array([0.0, _fold(sigma, depth)]), np.array([0, 1]), True)
    count = 0 if at_fold else counts(np.array([sigma]), decay, depth)[0]
    signs = np.array([0, 1, -1][: 1 + count])
    found = [root(sigma, decay, depth, upper=sign > 0) for sign in signs[1:]]
    return _Candidates(np.array([0.0, *found]), signs, False)


def spectrum(problem: Problem, point: Point, decay: float) -> KnownSpectrum:
    """Return the Hessian's eigenvalues that turns do not explain at a critical point, for λ > 0.

    With r = |S|: of each mode h s^{2h−2} − (h−2) λ, and 2λ; of each pair of learnt ones
    κ + λ ∓ λμ, κ = Σ_i s_a^{2(h−i)} s_b^{2(i−1)}, μ = Σ_i (s_a/s_b)^{h−2i}, i < h, and 2λ; of a
    learnt and another one s_a^{h−2} (σ_a ± σ_q); 2λ again for what turns hidden units away from
    unused ones, and those of the residual network at its origin. The zeros are turns of hidden
    units; and turns among equal singular values, of which not all are learnt alike. Those of a fold
    or a pitchfork are exact: rounding of σ and λ would give them a sign, at a fold of √ε.
    """
    widths, depth, sigma = problem.widths, problem.depth, problem.modes[1]
    if depth == 1:
        return KnownSpectrum(np.full(widths[0] * widths[1], 1.0 + decay), "closed_form")
    chosen, s = point
    others, rank, alike = np.setdiff1d(np.arange(len(sigma)), chosen), len(chosen), equal(sigma)
    spare, powers = abs(widths[0] - widths[-1]), s ** (depth - 2)
    at_fold = folded(sigma, decay, depth)
    upper = s > [_fold(each, depth) for each in sigma[chosen]]
    growth = depth * s ** (2 * depth - 2) - (depth - 2) * decay
    found = [np.where(at_fold[chosen], 0.0, growth)]
    turning, tied = rank * sum(d - rank for d in widths[1:-1]), 0
    for a, b in itertools.combinations(range(rank), 2):
        i, ratio = np.arange(1, depth + 1), s[a] / s[b]
        middle = np.sum(s[a] ** (2.0 * (depth - i)) * s[b] ** (2.0 * (i - 1))) + decay
        mu = decay * np.sum(ratio ** (depth - 2.0 * i[:-1]))
        same, double = alike[chosen[a], chosen[b]], at_fold[chosen[[a, b]]].all()
        apart = bool(same and not double and upper[a] != upper[b])
        lower = 0.0 if same and double else middle - mu
        found.append(np.array([middle + mu] if apart else [middle + mu, lower]))
        turning, tied = turning + depth - 1, tied + apart
    for a, power in zip(chosen, powers, strict=True):
        same = alike[a, others]
        found += [power * (sigma[a] + sigma[others]), power * (sigma[a] - sigma[others[~same]])]
        found.append(np.full(spare, power * sigma[a]))
        tied += int(np.count_nonzero(same))
    found.append(np.full((depth - 1) * rank + turning, 2.0 * decay))
    free = [d - rank for d in widths]
    if depth > 2:
        found.append(np.full(sum(a * b for a, b in itertools.pairwise(free)), decay))
    else:
        falls = np.where(at_fold[others], 0.0, decay - sigma[others])
        both = np.concatenate([decay + sigma[others], falls, np.full(spare, decay)])
        found.append(np.repeat(both, free[1]))
    dimensions = (turning, turning + tied, True)
    return KnownSpectrum(np.concatenate(found), "closed_form", dimensions)


def counts(sigma: Array, decay: float, depth: int) -> list[int]:
    """Return how many roots s > 0 each mode has."""
    most, limits = 2 if depth >= 3 and decay else 1, all_most_decays(sigma, depth)
    found = np.where((sigma > 0.0) & (decay < limits), most, 0)
    found[folded(sigma, decay, depth)] = 1 if depth >= 3 else 0
    return [int(count) for count in np.where(sigma > 0.0, found, 0)]


def attracted(sigma: Array, strengths: Array, decay: float, widths: Sequence[int]) -> Flags:
    """Tell of which modes an aligned product goes to the larger root: p is above the smaller one.

    Two layers: above half of σ − λ, as without decay. Not of more modes than widths allow: those
    with which the product is nearest. A single layer has all.
    """
    depth = len(widths) - 1
    signs = np.where(counts(sigma, decay, depth), 1, 0)
    upper, lower = (
        np.nan_to_num(sizes(sigma, sign * signs[None], decay, depth)[0]) ** depth
        for sign in (1, -1)
    )
    least = {1: -np.inf, 2: 0.5 * upper}.get(depth, lower)
    largest = sigma[0] or 1.0
    goal, unit = upper / largest, strengths / largest
    above = (signs != 0) & (strengths > least)
    return limited(above, goal * (2.0 * unit - goal), min(widths))


def sizes(sigma: Array, signs: Integers, decay: float, depth: int) -> Array:
    """Return the sizes of all modes (point, mode), NaN where a root does not exist.

    ``signs`` (point, mode) are 1 on the upper root, −1 on the lower one, 0 where a mode is not
    learnt. Without decay there is no lower root apart from zero.
    """
    roots = np.zeros((3, len(sigma)))
    for j in np.flatnonzero(np.any(signs, axis=0)):
        roots[-1, j] = np.nan
        for sign in (1, -1) if decay else (1,):
            roots[sign, j] = root(sigma[j], decay, depth, upper=sign > 0, largest=sigma[0])
    return np.asarray(roots[signs, np.arange(len(sigma))])


def losses(sigma: Array, sizes: Array, decay: float, depth: int) -> Array:
    """Return ½ Σ (σ_j − s_j^h)² + ½ λ h Σ s_j² over the last axis."""
    lacks, weights = sigma - sizes**depth, depth * sizes**2
    return np.asarray(0.5 * np.sum(lacks**2 + decay * weights, axis=-1))


def least_loss(sigma: Array, most: int, decay: float, depth: int) -> float:
    """Return the least loss of all: each of the largest modes is learnt if that costs less."""
    return float(np.sum(np.min(_either(sigma, most, decay, depth)[1], axis=0)))


def least_point(problem: Problem, decay: float) -> Point:
    """Return the modes and sizes of a global minimum."""
    sizes, (learnt, not_learnt) = _either(
        problem.modes[1], min(problem.widths), decay, problem.depth
    )
    modes = np.flatnonzero((sizes > 0.0) & (learnt < not_learnt))
    return Point(modes, sizes[modes])


def _either(sigma: Array, most: int, decay: float, depth: int) -> tuple[Array, Array]:
    """Return sizes of the largest modes, and losses (2, mode) of all with these and without."""
    leading = (np.arange(len(sigma)) < most).astype(np.int64) * (sigma > 0.0)
    learnt = np.nan_to_num(sizes(sigma, leading[None], decay, depth)[0])
    each = [losses(sigma[:, None], s[:, None], decay, depth) for s in (learnt, 0.0 * learnt)]
    return learnt, np.stack(each)


def indices(problem: Problem, signs: Integers, decay: float) -> Integers:
    """Return how many eigenvalues of the Hessian are negative, of many points (point, mode).

    Those of lower roots; of pairs a, b of learnt modes, (σ_a − σ_b)(s_a^h + s_b^h)/(s_a² − s_b²),
    negative if that of the larger σ is on its lower root, or if both are and σ_a = σ_b; of pairs of
    a learnt mode and a larger one that is not; of two layers σ_q > λ of the residual network. A
    mode at its fold, or of two layers at its pitchfork, has an eigenvalue of zero.
    """
    if problem.depth == 1:
        return np.zeros(len(signs), np.int64)
    sigma, learnt = problem.modes[1], signs != 0
    lower = ((signs < 0) & ~folded(sigma, decay, problem.depth)).astype(np.int64)
    larger, alike = exceeds(sigma).astype(np.int64), equal(sigma).astype(np.int64)
    below, counts = lower.sum(axis=1), np.sum((lower @ larger.T) * learnt, axis=1)
    counts += below + (np.sum((lower @ alike) * lower, axis=1) - below) // 2
    counts += count_pairs(learnt, larger.astype(bool))
    if problem.depth == 2:
        free = problem.widths[1] - learnt.sum(axis=1)
        growing = (sigma > decay) & ~folded(sigma, decay, problem.depth)
        counts += free * np.sum(~learnt & growing, axis=1)
    return np.asarray(counts)


def kinds(problem: Problem, signs: Integers, index: Integers, loss: Array, decay: float) -> Array:
    """Return the kinds of points (point, mode) of such an index and loss.

    With a mode at its fold, the loss falls to third order on one side.
    """
    sigma, most = problem.modes[1], min(problem.widths)
    at_fold = is_degenerate(problem, signs, decay) & (problem.depth >= 3)
    rounding = 16.0 * np.finfo(float).eps * np.sum(sigma**2)
    lowest = loss <= least_loss(sigma, most, decay, problem.depth) + rounding
    names = np.where(lowest, "global_minimum", "minimum" if decay else "nonstrict_saddle")
    names = np.where(at_fold, "nonstrict_saddle", names)
    return np.where(index > 0, "strict_saddle", names)


def is_degenerate(problem: Problem, signs: Integers, decay: float) -> Flags:
    """Tell at which points (point, mode) the Hessian has a zero that no turn explains.

    A mode is on a double root, or that of two layers is about to leave zero.
    """
    double = folded(problem.modes[1], decay, problem.depth)
    learnt = signs != 0 if problem.depth >= 3 else signs == 0
    free = problem.depth >= 3 or np.count_nonzero(signs, axis=1) < problem.widths[1]
    return np.asarray((learnt & double).any(axis=1) & free)
