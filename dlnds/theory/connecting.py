"""Between which critical points runs lead, and in how many dimensions: connecting sets.

All is a matter of how many modes of each value of σ are learnt, of one S and of another S'.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlnds.arrays import Array, Flags, Integers
from dlnds.theory import tolerances
from dlnds.theory.moments import count_pairs, exceeds, groups

#: What is known of a pair: no run leads from one to the other, a single orbit modulo symmetry,
#: a set of more dimensions, or that is an open question.
NO, ORBIT, SET, OPEN = range(4)


class Connecting(NamedTuple):
    """Of each pair of points (source, target) what leads from one to the other.

    ``dimension`` modulo symmetry and ``full_dimension`` in the space of weights, from A_S itself to
    the orbit of A_S'; along the orbits counts too. −1 where there are none.
    """

    leads: Integers
    dimension: Integers
    full_dimension: Integers


def connecting_sets(
    widths: Sequence[int], sigma: Array, learnt: Flags, pairs: Sequence[Integers] | None = None
) -> Connecting:
    """Return what is known of the connecting sets between sets of modes (point, mode).

    Of all pairs, or of some: numbers of their sources and targets.

    Runs lead from S to S' if each mode that is lost is swapped for a better one of its own. With
    t = |S'| − |S|, k = rank Σ and ι(S) the number of pairs j ∈ S, q ∉ S with σ_q > σ_j,
    dim M = ι(S) − ι(S') + t (k − |S|) − t (t − 1)/2, modulo symmetry, and in the space of weights
    Σ_{0<i<h} [t (d_i − |S|) − t (t + 1)/2] more.
    """
    ties = groups(sigma)
    counts = np.stack([learnt[:, tie].sum(axis=1) for tie in ties], axis=1) if ties else None
    shape = (len(learnt), len(learnt)) if pairs is None else np.shape(pairs[0])
    if counts is None:
        none = np.full(shape, -1)
        return Connecting(np.zeros(shape, np.int64), none, none)
    which = np.divmod(np.arange(len(learnt) ** 2), len(learnt)) if pairs is None else pairs
    source, target = (np.asarray(rows, np.int64) for rows in which)
    change = counts[target] - counts[source]
    gained, lost = np.maximum(change, 0), np.maximum(-change, 0)
    better = np.cumsum(gained, axis=1) - gained
    possible = (better >= np.cumsum(lost, axis=1)).all(axis=1) & change.any(axis=1)
    rank, index = counts.sum(axis=1), count_pairs(learnt, exceeds(sigma))
    more = rank[target] - rank[source]
    dimension = index[source] - index[target] - more * (more - 1) // 2
    dimension += more * (sum(map(len, ties)) - rank[source])
    hidden = [more * (d - rank[source]) - more * (more + 1) // 2 for d in widths[1:-1]]
    leads = np.where(possible, np.where(dimension > 1, SET, ORBIT), NO)
    if len(widths) > 3:
        leads[~possible & ~_ruled_out(sigma, ties, counts, source, target)] = OPEN
    found = [leads, dimension, dimension + sum(hidden)]
    for column in found[1:]:
        column[leads == NO] = -1
    return Connecting(*(column.reshape(shape) for column in found))


def _ruled_out(
    sigma: Array, ties: Sequence[Integers], counts: Integers, source: Integers, target: Integers
) -> Flags:
    """Tell between which sets no run leads, by invariant sets and the loss, for h ≥ 3.

    The rank does not fall and the loss does; best modes that are learnt stay so; best modes that
    are not learnt at the end never were; at constant rank no worse mode joins. There may be more
    such reasons.
    """
    sizes = np.array([len(tie) for tie in ties])
    energy = counts @ np.array([np.sum(sigma[tie] ** 2) / len(tie) for tie in ties])
    rank, number = counts.sum(axis=1), np.arange(len(ties))
    kept = np.cumprod(counts == sizes, axis=1).sum(axis=1)
    empty = np.cumprod(counts == 0, axis=1).sum(axis=1)
    worst = np.where(counts > 0, number, -1).max(axis=1)
    no_fall = energy[target] <= energy[source] * (1.0 + tolerances.TIE)
    ruled: Flags = (rank[target] < rank[source]) | no_fall
    ruled |= kept[target] < kept[source]
    ruled |= empty[target] > empty[source]
    ruled |= (rank[target] == rank[source]) & (worst[target] > worst[source])
    return ruled
