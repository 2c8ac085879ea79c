"""KKT points of ⟨M, Z_h…Z_1⟩ on the unit sphere in closed form: mixtures of singular modes of M.

∇N = λ z with λ > 0 makes the layers balanced and their product diagonal in the singular modes of M,
with the value z_j in every layer, z_j^{h−2} = λ/σ_j. So there is one point for each set T of modes,
up to turns of the hidden layers and of modes with equal σ_j.
"""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_memory
from dlnds.theory.coordinates import flat, n_weights
from dlnds.theory.moments import balanced_layers, canonical_frames, exceeds, groups


class Rays(NamedTuple):
    """KKT points (ray, weight) of a linear form with N > 0, by falling value, one for each orbit.

    ``taken`` (ray, mode) are the modes of M that each mixes, of equal ones the first. Of
    (∇²N − λ)/λ across the point ``rising`` eigenvalues are positive, ``family`` are zero by
    symmetry, and ``highest`` is the largest. ``n_left_out`` more have lower values.
    """

    points: Array
    value: Array
    taken: Flags
    rising: Integers
    family: Integers
    highest: Array
    n_left_out: int


def mixtures(
    widths: Sequence[int], modes: tuple[Array, Array, Array], most: int, together: int | None = None
) -> Rays:
    """Return the KKT points of ⟨U diag(σ) Vᵀ, Z_h…Z_1⟩, at most so many.

    ``together`` is the largest number of modes that are mixed, by default all that find room.

    N_T = h^{−h/2} (Σ_T σ_j^{−2/(h−2)})^{−(h−2)/2} and z_j = c σ_j^{−1/(h−2)} for all sets T of at
    most min d_i modes with h ≥ 3. For two layers λ = σ_j: one point for each value of σ.
    """
    left, sigma, right = modes
    depth, ties = len(widths) - 1, groups(sigma)
    room = min(widths if together is None else (*widths, together)) if depth > 2 else 1
    total = _count([len(tie) for tie in ties], room) if depth > 2 else len(ties)
    check_memory("max_directions", min(most, total) * n_weights(widths))
    inverse = np.zeros(len(sigma))
    if depth > 2 and ties:
        with np.errstate(over="ignore"):
            inverse[sigma > 0.0] = (sigma[sigma > 0.0] / sigma[0]) ** (-1.0 / (depth - 2))
    costs = [float(inverse[tie[0]]) ** 2 if depth > 2 else k for k, tie in enumerate(ties)]
    found: list[tuple[Array, float, Integers]] = []
    for counts in itertools.islice(_by_cost(costs, [len(t) for t in ties], room), most):
        chosen = np.concatenate([t[:n] for t, n in zip(ties, counts, strict=True)])
        sizes = inverse[chosen] if depth > 2 else np.ones(1)
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = sizes / (np.sqrt(depth) * np.linalg.norm(sizes))
        frames = canonical_frames(widths, left[:, chosen], right[:, chosen])
        value = float(np.sum(sigma[chosen] * sizes**depth))
        if not value > 0.0:  # σ_j beyond what can be raised to such powers
            break
        found.append((flat(balanced_layers(frames, sizes)), value, chosen))
    taken = np.zeros((len(found), len(sigma)), bool)
    for row, (_, _, chosen) in zip(taken, found, strict=True):
        row[chosen] = True
    spectra: Any = [_spectrum(widths, sigma, row) for row in taken]
    rising, family, highest = np.reshape(spectra, (-1, 3)).T
    return Rays(
        np.reshape([point for point, _, _ in found], (-1, n_weights(widths))),
        np.array([value for _, value, _ in found]),
        taken,
        rising.astype(np.int64),
        family.astype(np.int64),
        highest,
        total - len(found),
    )


def _by_cost(costs: Sequence[float], copies: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    """Yield how often to take each item, by rising total cost, at most so many in all.

    Items come by rising cost. Each selection but the first comes from one other that costs less:
    the last item once more, or the next one as well if there is no more of it, or instead.
    """
    if not costs or most < 1:
        return
    first = (1, *[0] * (len(costs) - 1))
    heap = [(costs[0], first, 0)]
    while heap:
        total, counts, last = heapq.heappop(heap)
        yield counts
        after = last + 1
        more = last if counts[last] < copies[last] else after
        steps: list[tuple[int, tuple[int, ...]]] = [(after, (last,))]
        steps += [(more, ())] if sum(counts) < most else []
        for gained, lost in steps:
            if gained == len(costs):
                continue
            changed = list(counts)
            changed[gained] += 1
            cost = total + costs[gained]
            for item in lost:
                changed[item] -= 1
                cost -= costs[item]
            heapq.heappush(heap, (cost, tuple(changed), gained))


def _count(copies: Sequence[int], most: int) -> int:
    """Return how many selections of 1 to ``most`` items there are."""
    ways = [1] + [0] * most
    for number in copies:
        ways = [sum(ways[max(0, n - number) : n + 1]) for n in range(most + 1)]
    return sum(ways) - 1


def _spectrum(widths: Sequence[int], sigma: Array, taken: Flags) -> tuple[int, int, float]:
    """Return what is known of the eigenvalues of (∇²N − λ)/λ across a KKT point.

    How many are positive, how many zero, and the largest.
    """
    depth, count, larger = len(widths) - 1, int(np.count_nonzero(taken)), exceeds(sigma)
    inside, outside = np.flatnonzero(taken), np.flatnonzero(~taken)
    better = int(np.count_nonzero(larger[np.ix_(inside, outside)]))
    same = int(np.count_nonzero(~(larger | larger.T)[np.ix_(inside, outside)]))
    ratios = sigma[inside]
    apart = outside[(larger | larger.T)[inside[-1], outside]]
    highest = [-2.0, *(-1.0 for _ in range(widths[0] != widths[-1]))]
    highest += [float(sigma[apart].max()) / float(ratios.min()) - 1.0] if apart.size else []
    if depth == 2:
        rising, family = better * widths[1], (same + 1) * widths[1] - 1
    else:
        rising = (count - 1) * (count + 2) // 2 + better
        hidden = [count * (d - count) + count * (count - 1) // 2 for d in widths[1:-1]]
        family = sum(hidden) + same
        if count > 1:
            r = (float(ratios.max()) / float(ratios.min())) ** (1.0 / (depth - 2))
            powers = np.arange(depth - 2, 1 - depth, -2)  # μ = (r^{h−1} − r^{1−h})/(r − 1/r)
            highest.append(float(np.sum(r ** powers.astype(float))) - 1.0)
    return rising, family, max([*highest, 0.0] if family else highest)
