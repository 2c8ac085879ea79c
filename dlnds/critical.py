"""Critical points by index set."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dlnds import schema
from dlnds.errors import check_integer, check_integers, known_options
from dlnds.moments import count_pairs, exceeds
from dlnds.systems.linear import LinearNetwork, check_network

#: Most critical points that one table may hold.
MOST_POINTS = 100_000


@known_options
def critical_points(
    net: LinearNetwork, max_rank: int | None = None, modes: Sequence[int] | None = None
) -> xr.Dataset:
    """Return one critical point for each critical value: the index sets of learnt modes.

    Every critical point of the loss has W = P_S Σ for a set S of modes with σ_j > 0; the quotient
    by the symmetries has one point A_S for each (`LinearNetwork.critical_state`).

    Parameters
    ----------
    net
        The network.
    max_rank
        List only sets of at most this many modes.
    modes
        List only subsets of these modes.

    Returns
    -------
    xarray.Dataset
        Schema ``critical_points``, dim ``critical_point`` labelled by the index set, by rank and
        then in the order of the modes: ``learnt(critical_point, mode)``, ``rank``, ``loss`` (above
        the irreducible one) and ``kind`` of A_S.

    Raises
    ------
    ValueError
        If a mode does not exist or has σ_j = 0, or the list would be longer than 100,000; the
        message names the count.

    Notes
    -----
    L_S = ½ Σ_{j∉S} σ_j². With r = |S| and r_max = min(d_0, …, d_h, rank Σ), A_S is a global minimum
    if r = r_max and S holds the r largest σ_j, and a strict saddle if S does not hold the r largest
    or r = r_max. If r < r_max and S holds the r largest it is a strict saddle for h = 2, and for h
    ≥ 3 a saddle that the Hessian does not show. Equal singular values: any of them count as
    largest. A single layer has one critical point.

    References
    ----------
    WA25; AMG24 for the classification.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> points = dl.critical_points(net)
    >>> points.critical_point.values.tolist(), points.loss.values.tolist()
    (['{}', '{0}', '{1}', '{0,1}'], [2.5, 0.5, 2.0, 0.0])
    >>> dl.schema.decode(points.kind).sel(critical_point="{1}").item()
    'strict_saddle'
    """
    check_network(net)
    sigma = net.singular_values
    allowed = _allowed_modes(net, modes)
    top = min(net.max_rank, len(allowed))
    if max_rank is not None:
        top = min(top, check_integer("max_rank", max_rank, minimum=0))
    ranks = range(top + 1)
    if net.depth == 1:
        if top < np.count_nonzero(sigma):
            raise ValueError("modes: a single layer has one critical point, with all modes learnt")
        ranks = range(top, top + 1)
    _check_count([math.comb(len(allowed), r) for r in ranks])
    sets = [s for r in ranks for s in itertools.combinations(allowed, r)]
    learnt = np.zeros((len(sets), len(sigma)), bool)
    for row, chosen in zip(learnt, sets, strict=True):
        row[list(chosen)] = True
    variables = {
        "learnt": (("critical_point", "mode"), learnt),
        "rank": ("critical_point", learnt.sum(axis=1)),
        "loss": ("critical_point", 0.5 * np.sum(np.where(learnt, 0.0, sigma**2), axis=1)),
        "kind": ("critical_point", _canonical_kinds(net, learnt)),
    }
    dataset = xr.Dataset(
        variables,
        coords={
            "critical_point": schema.index_set_labels(sets),
            "mode": np.arange(len(sigma)),
            "singular_value": ("mode", sigma),
        },
    )
    return schema.finish(dataset, "critical_points", net.attributes())


def _allowed_modes(net: LinearNetwork, modes: Sequence[int] | None) -> tuple[int, ...]:
    positive = np.flatnonzero(net.singular_values)
    if modes is None:
        return tuple(positive.tolist())
    chosen = check_integers("modes", modes, minimum=0, maximum=len(net.singular_values) - 1)
    if not set(chosen) <= set(positive.tolist()):
        raise ValueError(f"modes: needs modes with σ_j > 0, which are 0 to {len(positive) - 1}")
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"modes: needs different modes, got {chosen}")
    return tuple(sorted(chosen))


def _check_count(counts: Sequence[int]) -> None:
    """Refuse a list that is too long, by its length and by what would do; ``counts`` go by rank."""
    if sum(counts) > MOST_POINTS:
        totals = list(itertools.accumulate(counts))
        fits = sum(total <= MOST_POINTS for total in totals) - 1
        raise ValueError(
            f"max_rank: there are {totals[-1]:,} critical points, at most {MOST_POINTS:,} can be "
            f"listed; max_rank = {fits} gives {totals[fits]:,}, or name the modes of interest"
        )


def _canonical_kinds(net: LinearNetwork, learnt: NDArray[np.bool_]) -> NDArray[np.int8]:
    top = count_pairs(learnt, exceeds(net.singular_values)) == 0
    full = learnt.sum(axis=1) == net.max_rank
    below = "nonstrict_saddle" if net.depth >= 3 else "strict_saddle"
    words = np.where(~top, "strict_saddle", np.where(full, "global_minimum", below))
    kinds: NDArray[np.int8] = schema.flag(schema.POINT_KINDS, words)
    return kinds
