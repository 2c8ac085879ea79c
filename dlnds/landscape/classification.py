"""Kind of any critical point: strict and non-strict saddles, minima, order of descent."""

import itertools
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from dlnds import schema
from dlnds.errors import known_options
from dlnds.landscape.critical import check_point
from dlnds.systems.linear import LinearNetwork
from dlnds.theory import strings
from dlnds.theory.moments import count_pairs, exceeds


@known_options
def classify(net: LinearNetwork, x: ArrayLike, *, rtol: float = 1e-8) -> xr.Dataset:
    """Return what kind of critical point a state is, and how clearly that was decided.

    Parameters
    ----------
    net
        The network, with any input covariance and any target.
    x
        State (parameter).
    rtol
        How accurately the state is critical: gradients and singular values below this, relative to
        the sizes of the layers they are made of, count as zero.

    Returns
    -------
    xarray.Dataset
        Schema ``classification``: ``kind`` (flags ``global_minimum``, ``strict_saddle``,
        ``nonstrict_saddle``, ``not_critical``); ``critical_point``, the label of the index set S,
        and ``learnt(mode)``; ``ambiguous``, 1 where equal singular values let other index sets
        name the same point; ``rank``; ``loss`` above the irreducible one and ``excess`` above the
        global minimum; ``tightened``, 1 if all pairs of layers are (−1 if not critical);
        ``order_of_descent`` (0 at minima, 1 where not critical) and ``order_is_exact``, 0 where it
        is a lower bound. ``relative_gradient`` is the largest ‖∇_i‖ / (Π_{k≠i} ‖W_k‖ · max(‖Σ‖, Π
        ‖W_k‖)) and ``mode_residual`` how far a mode's strength is from 0 or 1. For each ``pair``
        of layers ``earlier`` < ``later``: ``between_rank`` of W_{earlier+1:later−1},
        ``complementary_rank`` of the block through the data, and ``tightened_pair``. The attributes
        ``smallest_kept`` and ``largest_dropped`` are the relative singular values on both sides of
        the rank decisions.

    Raises
    ------
    ValueError
        If the state has the wrong shape or is not finite, or a rank is not clear at ``rtol``; the
        message says between which ranks.

    Notes
    -----
    With r = |S| and r_max = min(d_0, …, d_h, rank Σ): if r = r_max, S = {1..r} is a global minimum
    and any other S a strict saddle. If r < r_max, S ≠ {1..r} is a strict saddle; for S = {1..r} a
    pair of layers is tightened if W_{j+1:i−1} or W_{1:j−1} Σᵀ W_{i+1:h} has rank r, and the saddle
    is non-strict if all pairs are. The order of descent is the size k of the smallest set of layers
    whose k cyclic blocks all have rank above r; it is exact if rank Σ = min(d_0, d_h), at A_S, and
    for k = 2. Equal singular values count as equal: any of them are the largest.

    References
    ----------
    AMG24

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    >>> point = dl.classify(net, net.critical_state((0,)))
    >>> dl.schema.decode(point.kind).item(), int(point.order_of_descent)
    ('nonstrict_saddle', 3)
    """
    state, rtol = check_point(net, x, rtol)
    found = strings.learnt(net.problem, net.unpack(state), rtol)
    loss = float(net.loss(state))
    learnt = np.isin(np.arange(len(net.singular_values)), found.modes)
    variables: dict[str, Any] = {
        "learnt": ("mode", learnt),
        "critical_point": schema.index_set_label(found.modes),
        "ambiguous": np.int8(found.freedom > 0),
        "rank": np.int64(len(found.modes)),
        "loss": loss,
        "excess": loss - net.lowest_loss,
        "relative_gradient": found.relative_gradient,
        "mode_residual": found.mode_residual,
        "kind": schema.flag(schema.POINT_KINDS, "not_critical"),
        "tightened": np.int8(-1),
        "order_of_descent": np.int64(1),
        "order_is_exact": np.int8(1),
    }
    attrs = {**net.attributes(), "rtol": rtol}
    if found.is_critical(rtol):
        blocks = strings.residual_blocks(net.problem, found, rtol)
        counted = strings.count_strings(blocks, rtol, net.depth - 1)
        variables.update(_decided(net, learnt, counted, not any(z.any() for z in blocks[:-1])))
        attrs["smallest_kept"] = counted.smallest_kept
        attrs["largest_dropped"] = counted.largest_dropped
    coords = {"singular_value": ("mode", net.singular_values)}
    return schema.finish(xr.Dataset(variables, coords=coords), "classification", attrs)


def _decided(
    net: LinearNetwork, learnt: NDArray[np.bool_], counted: strings.Strings, canonical: bool
) -> dict[str, Any]:
    """Return what the ranks of a critical point tell of its kind."""
    sigma, rank, depth = net.singular_values, int(learnt.sum()), net.depth
    pairs = list(itertools.combinations(range(1, depth + 1), 2))
    between = np.array([counted.ranks[j, i - 1 - j] for j, i in pairs], np.int64)
    complementary = np.array([counted.ranks[i, depth - i + j] for j, i in pairs], np.int64)
    pivots = (between == 0) | (complementary == 0)
    top = count_pairs(learnt[None], exceeds(sigma))[0] == 0
    if rank == net.max_rank:
        kind, order = ("global_minimum", 0) if top else ("strict_saddle", 2)
    elif top:
        kind = "nonstrict_saddle" if pivots.all() else "strict_saddle"
        order = _order_of_descent(counted.ranks, depth)
    else:
        kind, order = "strict_saddle", 2
    full = np.count_nonzero(sigma) == min(net.widths[0], net.widths[-1])
    return {
        "kind": schema.flag(schema.POINT_KINDS, kind),
        "tightened": np.int8(pivots.all()),
        "order_of_descent": np.int64(order),
        "order_is_exact": np.int8(order <= 2 or full or canonical),
        "earlier": ("pair", np.array([j for j, _ in pairs], np.int64)),
        "later": ("pair", np.array([i for _, i in pairs], np.int64)),
        "between_rank": ("pair", between + rank),
        "complementary_rank": ("pair", complementary + rank),
        "tightened_pair": ("pair", pivots),
    }


def _order_of_descent(ranks: NDArray[np.int64], depth: int) -> int:
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
