"""Critical points under weight decay, the same for all layers, of whitened problems.

They are balanced and aligned: each layer holds mode j with the same size s_j, a root of
λ = s^{h−2} (σ_j − s^h).
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlnds.arrays import Array, Integers
from dlnds.theory import tolerances
from dlnds.theory.moments import Problem, equal
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


def root(sigma: float, decay: float, depth: int, *, upper: bool) -> float:
    """Return the larger or the smaller root s, NaN where there is none.

    One layer has s = σ/(1 + λ), two have s² = σ − λ; neither has a smaller one. More layers have
    two roots below the fold at s^h = (h − 2) σ/(2h − 2).
    """
    if (depth < 3 and not upper) or not 0.0 <= decay < most_decay(sigma, depth):
        return np.nan
    if depth == 1:
        return sigma / (1.0 + decay)
    if depth == 2:
        return float(np.sqrt(sigma - decay))
    from scipy.optimize import brentq  # here, since loading it takes long

    fold = float(((depth - 2.0) * sigma / (2.0 * depth - 2.0)) ** (1.0 / depth))
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
        frames.append((w @ frames[-1]) / sizes)
        if not np.linalg.norm(w - (frames[-1] * sizes) @ frames[-2].T) <= limit * scale:
            return None
        if not np.linalg.norm((frames[-1].T @ frames[-1] - np.eye(len(sizes))) * sizes) <= scale * (
            limit
        ):
            return None
    sigma, (first, last) = problem.modes[1], (frames[0], frames[-1])
    strengths = sizes**depth + decay * sizes ** (2.0 - depth)
    misses = [
        problem.target @ first - last * strengths,
        problem.target.T @ last - first * strengths,
    ]
    if not all(np.linalg.norm(miss) <= limit * sigma[0] for miss in misses):
        return None
    left = list(range(len(sigma)))
    modes = [left.pop(int(np.argmin(np.abs(sigma[left] - value)))) for value in strengths]
    return Point(np.array(modes), sizes)


def spectrum(problem: Problem, point: Point, decay: float) -> KnownSpectrum:
    """Return the Hessian's eigenvalues that may be nonzero at a critical point, for λ > 0.

    With r = |S|: of each mode h s^{2h−2} − (h−2) λ, and 2λ; of each pair of learnt ones
    κ + λ ∓ λμ, κ = Σ_i s_a^{2(h−i)} s_b^{2(i−1)}, μ = Σ_i (s_a/s_b)^{h−2i}, i < h, and 2λ; of a
    learnt and another one s_a^{h−2} (σ_a ± σ_q); 2λ again for what turns hidden units away from
    unused ones, and those of the residual network at its origin. The zeros are turns of hidden
    units; and turns among equal singular values, of which not all are learnt alike.
    """
    widths, depth, sigma = problem.widths, problem.depth, problem.modes[1]
    if depth == 1:
        return KnownSpectrum(np.full(widths[0] * widths[1], 1.0 + decay), "closed_form")
    chosen, s = point
    others, rank, alike = np.setdiff1d(np.arange(len(sigma)), chosen), len(chosen), equal(sigma)
    spare, powers = abs(widths[0] - widths[-1]), s ** (depth - 2)
    found = [depth * s ** (2 * depth - 2) - (depth - 2) * decay]
    turning, tied = rank * sum(d - rank for d in widths[1:-1]), 0
    for a, b in itertools.combinations(range(rank), 2):
        i, ratio = np.arange(1, depth + 1), s[a] / s[b]
        middle = np.sum(s[a] ** (2.0 * (depth - i)) * s[b] ** (2.0 * (i - 1))) + decay
        mu = decay * np.sum(ratio ** (depth - 2.0 * i[:-1]))
        apart = bool(alike[chosen[a], chosen[b]]) and abs(ratio - 1.0) > tolerances.TIE
        found.append(np.array([middle + mu] if apart else [middle + mu, middle - mu]))
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
        both = np.concatenate([decay + sigma[others], decay - sigma[others], np.full(spare, decay)])
        found.append(np.repeat(both, free[1]))
    dimensions = (turning, turning + tied, True)
    return KnownSpectrum(np.concatenate(found), "closed_form", dimensions)
