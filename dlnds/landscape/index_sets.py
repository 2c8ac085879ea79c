"""Index sets of learnt modes, and the roots that each mode has under weight decay."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_integer, check_integers
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.product import ProductFlow
from dlnds.theory import names

#: Most critical points that one table may hold.
MOST_POINTS = 100_000


def decayed_branches(
    net: LinearNetwork,
    roots: Sequence[int],
    max_rank: int | None,
    modes: Sequence[int] | None,
    double: Flags,
) -> tuple[Any, Integers]:
    """Return the labels of index sets with all choices among so many roots of each mode.

    And on which root each mode is (branch, mode): 1 on the upper, −1 on the lower one, or 0. Those
    that are ``double`` have no marks.
    """
    sets = index_sets(net, max_rank, modes, roots)
    rows = [
        (chosen, words)
        for chosen in sets
        for words in itertools.product(*((1, -1)[: roots[j]] for j in chosen))
    ]
    signs = np.zeros((len(rows), len(roots)), np.int64)
    for row, (chosen, words) in zip(signs, rows, strict=True):
        row[list(chosen)] = words
    marks = np.where(double, 0, signs)
    labels = [
        names.of_roots(chosen, own[list(chosen)].tolist(), net.depth)
        for (chosen, _), own in zip(rows, marks, strict=True)
    ]
    return np.array(labels, np.str_), signs


def index_sets(
    net: LinearNetwork | ProductFlow,
    max_rank: int | None,
    modes: Sequence[int] | None,
    roots: Sequence[int] | None = None,
) -> list[tuple[int, ...]]:
    """Return the sets of modes that are asked for, of modes that have roots."""
    least, most = net.critical_ranks
    allowed = _allowed_modes(net.problem.modes[1], modes)
    if len(allowed) < least:
        raise ValueError(
            f"modes: needs at least {least} modes with σ_j > 0, got {len(allowed)}; there are no "
            f"critical points of rank {least} without"
        )
    if max_rank is not None:
        most = min(most, check_integer("max_rank", max_rank, minimum=0))
    if most < least:
        raise ValueError(f"max_rank: needs at least {least}, the rank of all, got {most}")
    counts = {j: 1 if roots is None else roots[j] for j in allowed}
    held = {j: count for j, count in counts.items() if count}
    return _listed(held, range(least, min(most, len(held)) + 1))


def _allowed_modes(sigma: Array, modes: Sequence[int] | None) -> tuple[int, ...]:
    """Return the modes that sets are made of."""
    positive = tuple(np.flatnonzero(sigma).tolist())
    if modes is None:
        return positive
    chosen = check_integers("modes", modes, minimum=0, maximum=len(sigma) - 1)
    if not set(chosen) <= set(positive):
        raise ValueError(f"modes: needs modes with σ_j > 0, which are 0 to {len(positive) - 1}")
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"modes: needs different modes, got {chosen}")
    return tuple(sorted(chosen))


def _listed(counts: dict[int, int], ranks: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the sets of so many modes, each of which has so many roots.

    Refuse too long a list of points, by its length and what would do.
    """
    choices = [1]  # by rank
    for count in counts.values():
        choices = [a + count * b for a, b in zip([*choices, 0], [0, *choices], strict=True)]
    totals = list(itertools.accumulate(choices[r] for r in ranks))
    if totals[-1] > MOST_POINTS:
        fits = sum(total <= MOST_POINTS for total in totals) - 1
        raise ValueError(
            f"max_rank: there are {totals[-1]:,} critical points, at most {MOST_POINTS:,} can be "
            f"listed; max_rank = {fits} gives {totals[fits]:,}, or name the modes of interest"
        )
    return [chosen for r in ranks for chosen in itertools.combinations(counts, r)]
