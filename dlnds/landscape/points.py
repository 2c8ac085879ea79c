"""Critical points: one for each index set, the kind and the canonical form of any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import known_options
from dlnds.landscape import decay, pure
from dlnds.landscape.index_sets import index_sets
from dlnds.landscape.states import read_point
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.losses import has_criterion
from dlnds.systems.product import ProductFlow, check_maps, has_maps
from dlnds.theory import moments, strings, symmetry, tolerances
from dlnds.theory.coordinates import flat
from dlnds.theory.moments import count_pairs, exceeds


@known_options
def critical_points(
    net: LinearNetwork | ProductFlow,
    max_rank: int | None = None,
    modes: Sequence[int] | None = None,
) -> xr.Dataset:
    """Return one critical point for each critical value: the index sets of learnt modes.

    Every critical point of the loss has W = P_S Σ for a set S of modes with σ_j > 0; the quotient
    by the symmetries has one point A_S for each (`LinearNetwork.critical_state`).

    Parameters
    ----------
    net
        The network. Of a `ProductFlow` all critical points have its rank k: the sets of k modes,
        a minimum if they are the k largest, and otherwise strict saddles of the loss on the
        matrices of rank k.
    max_rank
        List only sets of at most this many modes.
    modes
        List only subsets of these modes.

    Returns
    -------
    xarray.Dataset
        Schema ``critical_points``, dim ``critical_point`` labelled by the index set, by rank and
        then in the order of the modes: ``learnt(critical_point, mode)``, ``rank``, ``loss`` (above
        the irreducible one) and ``kind`` of A_S. Under weight decay schema ``decayed_points``: one
        row for each index set and choice of roots, such as ``"{0⁺,2⁻}"`` for the upper root of mode
        0 and the lower one of mode 2; ``loss`` has the penalty, ``kind`` may be ``minimum`` (not
        the global one) too, and there are ``index``, of the Hessian, ``size(critical_point,
        mode)``, the s_j of all layers, ``most_decay(mode)``, the λ where its roots end, and
        ``degenerate``, 1 at a point whose Hessian has a zero that no symmetry explains: with a mode
        whose roots are one there, to 1e-12, which has no mark.

    Raises
    ------
    ValueError
        If a mode does not exist or has σ_j = 0, or the list would be longer than 100,000; the
        message names the count. With weight decay if the network is not whitened, or λ not the same
        for all layers.

    Notes
    -----
    L_S = ½ Σ_{j∉S} σ_j². With r = |S| and r_max = min(d_0, …, d_h, rank Σ), A_S is a global minimum
    if r = r_max and S holds the r largest σ_j, and a strict saddle if S does not hold the r largest
    or r = r_max. If r < r_max and S holds the r largest it is a strict saddle for h = 2, and for h
    ≥ 3 a saddle that the Hessian does not show. Equal singular values: any of them count as
    largest. A single layer has one critical point.

    With weight decay λ and h ≥ 3 layers each mode of S has two roots s of λ = s^{h−2} (σ_j − s^h)
    below its fold: 3^k points of k modes. At the fold they are one, a saddle that the Hessian does
    not show: the loss falls to third order towards smaller s. Two layers have s² = σ_j − λ alone.
    Points with all modes on upper roots and S the r largest are minima for h ≥ 3, for any r: the
    one of least loss is global. Other points are strict saddles.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362); AMG24 (Achour, Malgouyres & Gerchinovitz,
    arXiv:2107.13289) for the classification.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> points = dl.critical_points(net)
    >>> points.critical_point.values.tolist(), points.loss.values.tolist()
    (['{}', '{0}', '{1}', '{0,1}'], [2.5, 0.5, 2.0, 0.0])
    >>> dl.schema.decode(points.kind).sel(critical_point="{1}").item()
    'strict_saddle'
    >>> points = dl.critical_points(dl.LinearNetwork((1, 1, 1, 1), [[2.0]], weight_decay=1.1))
    >>> points.critical_point.values.tolist(), dl.schema.decode(points.kind).values.tolist()
    (['{}', '{0⁺}', '{0⁻}'], ['global_minimum', 'minimum', 'strict_saddle'])
    """
    check_maps(net, with_decay=True)
    if not has_maps(net):
        return decay.table(net, max_rank, modes)
    sets = index_sets(net, max_rank, modes)
    sigma, below = net.problem.modes[1], "nonstrict_saddle" if net.depth >= 3 else "strict_saddle"
    learnt = np.zeros((len(sets), len(sigma)), bool)
    for row, chosen in zip(learnt, sets, strict=True):
        row[list(chosen)] = True
    kinds = _kinds(sigma, learnt, net.critical_ranks[1], below)
    variables = {
        "learnt": (("critical_point", "mode"), learnt),
        "rank": ("critical_point", learnt.sum(axis=1)),
        "loss": ("critical_point", 0.5 * np.sum(np.where(learnt, 0.0, sigma**2), axis=1)),
        "kind": ("critical_point", schema.flag(schema.POINT_KINDS, kinds)),
    }
    coords = {
        "critical_point": schema.index_set_labels(sets),
        "mode": np.arange(len(sigma)),
        "singular_value": ("mode", sigma.copy()),
    }
    return schema.finish(xr.Dataset(variables, coords), "critical_points", net.attributes())


def _kinds(sigma: Array, learnt: Flags, most: int, below: str) -> Any:
    """Return what points over index sets (point, mode) are, and ``below`` the largest rank."""
    top = count_pairs(learnt, exceeds(sigma)) == 0
    full = learnt.sum(axis=1) == most
    return np.where(~top, "strict_saddle", np.where(full, "global_minimum", below))


@known_options
def classify(net: Any, x: ArrayLike | xr.Dataset, *, rtol: float | None = None) -> xr.Dataset:
    """Return what kind of critical point a state is, and how clearly that was decided.

    Parameters
    ----------
    net
        The `LinearNetwork`, with any input covariance and any target, or a `LossNetwork`.
    x
        State (parameter); or what knows how accurate its state is: a row of a run of this network,
        ``run.isel(time=-1)``, or what `find_critical_point` returns.
    rtol
        Gradients and singular values below this, relative to the sizes of the layers they are made
        of, count as zero. ``None`` takes a state for critical if it is so to 1e-3, about what runs
        leave, and decides ranks in the widest gap of the singular values above the accuracy of the
        state: what ``x`` says of it, how far it is from critical, and rounding.

    Returns
    -------
    xarray.Dataset
        Schema ``classification``: ``kind`` (flags ``global_minimum``, ``strict_saddle``,
        ``nonstrict_saddle``, ``not_critical``) and ``kind_is_clear``, 0 if others are possible as
        well; ``critical_point``, the label of the index set S, and ``learnt(mode)``; ``ambiguous``,
        1 where equal singular values let other index sets name the same point; ``rank``; ``loss``
        above the irreducible one and ``excess`` above the global minimum; ``tightened``, 1 if all
        pairs of layers are (−1 if not critical); ``order_of_descent`` (0 at minima, 1 where not
        critical) and ``order_is_exact``, 0 where it is a lower bound, or the least of those that
        are possible. ``relative_gradient`` is the largest ‖∇_i‖ / (Π_{k≠i} ‖W_k‖ · max(‖Σ‖, Π
        ‖W_k‖)) and ``mode_residual`` how far a mode's strength is from 0 or 1. For each ``pair`` of
        layers ``earlier`` < ``later``:
        ``between_rank`` of W_{earlier+1:later−1}, ``complementary_rank`` of the block through the
        data, and ``tightened_pair``. ``ranks_are_clear`` is 0 if these may be others as well.
        ``decision_gap`` says how they were decided: the ratio of the relative singular values on
        both sides of the decision, or of the accuracy; the attributes ``smallest_kept`` and
        ``largest_dropped`` are these values. Where the state is not critical nothing is decided:
        0, NaN, and no pairs nor these attributes.

    Raises
    ------
    ValueError
        If the state has the wrong shape or is not finite, or two kinds are possible at the given
        ``rtol``.

    Notes
    -----
    With r = |S| and r_max = min(d_0, …, d_h, rank Σ): if r = r_max, the leading modes, S =
    {0..r−1}, are a global minimum and any other S a strict saddle. If r < r_max, S ≠ {0..r−1} is a
    strict saddle; for S = {0..r−1} a pair of layers is tightened if W_{j+1:i−1} or W_{1:j−1} Σᵀ
    W_{i+1:h} has rank r, and the saddle is non-strict if all pairs are. The order of descent is at
    least the size k of the smallest set of layers whose k cyclic blocks all have rank above r, and
    is k if rank Σ = min(d_0, d_h), at A_S, and for k = 2. Equal singular values count as equal: any
    of them are the largest.

    A singular value of a product is relative to what the product changes by if each layer changes
    by its own size. Then nothing depends on how sizes are shared among layers, and other bases of
    hidden layers cost as many digits as their condition numbers have.

    Of a `LossNetwork` no index sets are known, but its losses ℓ are convex: W with ∇ℓ(W) = 0 is a
    global minimum, and other points of less than the smallest width's rank are no minima. In place
    of what is told of index sets and pairs there are ``map_gradient``, ‖∇ℓ(W)‖ in terms of that at
    W = 0 (where that is nothing, of what it is at maps as large as the layers make them), ``pure``,
    1 if W is critical for ℓ on all maps that the layers make, of the smallest width's rank or less,
    which is so if ∇ℓ(W) = 0 or the rank is the smallest width, entries that are not observed among
    them (else it is critical for its layers alone: spurious), and ``index`` and
    ``nullity`` of the Hessian where ∇ℓ(W) ≠ 0. A global minimum is not clear if an entry of ∇ℓ(W),
    above rounding of others, is not small in terms of its own at W = 0. Two kinds more are
    possible, where the rank is the smallest width: ``minimum``, if the Hessian is positive across
    the states of one map, of which it is not known whether it is global; and ``undecided``, if it
    has other zeros.

    With weight decay points are named as by `critical_points`, and ``size(mode)`` are the s_j of
    all layers (their geometric mean, if layers decay differently), for whitened inputs; ``index``
    is that of the Hessian, and ``minimum`` is one that is not global. ``relative_gradient`` is in
    terms of λ ‖x‖, and ``decision_gap`` of how far the sizes are from those roots and others: a
    state near a fold is not clear, at it ``undecided``. Of raw inputs, and other losses ℓ ≥ 0, the
    Hessian decides, and ``minimum`` is one of which it is not known whether it is global. It is
    known to be for one layer; for two if ‖∇ℓ(W)‖ ≤ λ; and at the origin of h layers if ‖∇ℓ(0)‖_F
    ℓ(0)^{h/2−1} ≤ (½ h λ)^{h/2}, since a map W costs at least ½ h λ ‖W‖_F^{2/h}.

    The order of descent at a saddle that the Hessian does not show is the degree of the leading
    form, where its layers hold what has been learnt and nothing else; elsewhere a lower bound.

    References
    ----------
    AMG24 (Achour, Malgouyres & Gerchinovitz, arXiv:2107.13289); TKB20 (Trager, Kohn & Bruna,
    arXiv:1910.01671)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    >>> point = dl.classify(net, net.critical_state((0,)))
    >>> dl.schema.decode(point.kind).item(), int(point.order_of_descent)
    ('nonstrict_saddle', 3)
    """
    if not has_criterion(net):
        check_network(net, with_decay=True, wanted="a LinearNetwork or LossNetwork")
    if net.is_decayed:
        return decay.classified(net, x, rtol)
    if has_criterion(net):
        return pure.classified(net, x, rtol)
    state, rtol, accuracy = check_point(net, x, rtol)
    found = strings.learnt(net.problem, net.unpack(state), rtol)
    loss = float(net.loss(state))
    variables = {
        **_index_set(net, found),
        "rank": np.int64(len(found.modes)),
        "loss": loss,
        "excess": loss - net.lowest_loss,
        "relative_gradient": found.relative_gradient,
        "mode_residual": found.mode_residual,
        "kind": schema.flag(schema.CLASSIFIED_KINDS, "not_critical"),
        "kind_is_clear": np.int8(found.clear),
        "tightened": np.int8(-1),
        "order_of_descent": np.int64(1),
        "order_is_exact": np.int8(1),
        "ranks_are_clear": np.int8(0),
        "decision_gap": np.nan,
    }
    attrs = net.attributes() | ({} if rtol is None else {"rtol": rtol})
    if found.is_critical(rtol):
        decision = strings.decided(net.problem, found, rtol, accuracy)
        learnt = variables["learnt"][1]
        kinds = {_kind(net, learnt, ranks) for ranks in decision.possible}
        if rtol is not None and len(kinds) > 1:
            raise strings.AmbiguousRankError(
                f"rtol: at {rtol:g} this may be a {' or a '.join(sorted(kinds))}: relative "
                f"singular values from {decision.strings.smallest_kept:.2g} count, up to "
                f"{decision.strings.largest_dropped:.2g} do not"
            )
        variables.update(_decided(net, learnt, decision, rtol is not None or decision.sure))
        variables["decision_gap"] = decision.gap
        attrs["smallest_kept"] = decision.strings.smallest_kept
        attrs["largest_dropped"] = decision.strings.largest_dropped
    coords = {"singular_value": ("mode", net.singular_values)}
    return schema.finish(xr.Dataset(variables, coords=coords), "classification", attrs)


def _pairs(depth: int, ranks: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    """Return all pairs of layers, and the ranks between them and around, without learnt modes."""
    earlier, later = np.add(np.triu_indices(depth, 1), 1)
    return (
        earlier,
        later,
        ranks[earlier, later - 1 - earlier],
        ranks[later, depth - later + earlier],
    )


def _kind(net: LinearNetwork, learnt: Flags, ranks: Integers) -> str:
    """Return the kind of a critical point from ranks of products of layers."""
    _, _, between, complementary = _pairs(net.depth, ranks)
    tightened = ((between == 0) | (complementary == 0)).all()
    below = "nonstrict_saddle" if tightened else "strict_saddle"
    return str(_kinds(net.singular_values, learnt[None], net.max_rank, below)[0])


def _decided(
    net: LinearNetwork, learnt: Flags, decision: strings.Decision, sure: bool
) -> dict[str, Any]:
    """Return what the ranks of a critical point tell of it, and whether others may tell more.

    ``sure``: ranks that are not among the possible ones are not expected.
    """
    rank, ranks = int(learnt.sum()), decision.strings.ranks
    earlier, later, between, complementary = _pairs(net.depth, ranks)
    pivots = (between == 0) | (complementary == 0)
    kinds = [_kind(net, learnt, possible) for possible in decision.possible]
    by_ranks = rank < net.max_rank and kinds[0] in ("nonstrict_saddle", "strict_saddle")
    clear = len(set(kinds)) == 1 and (sure or not by_ranks)
    pairs = zip(kinds, decision.possible, strict=True)
    orders, exact = zip(*(_order(net, kind, ranks) for kind, ranks in pairs), strict=True)
    orders = orders if clear else (2,)
    return {
        "kind": schema.flag(schema.CLASSIFIED_KINDS, kinds[0]),
        "kind_is_clear": np.int8(clear),
        "tightened": np.int8(pivots.all()),
        "order_of_descent": np.int64(min(orders)),
        "order_is_exact": np.int8(clear and len(set(orders)) == 1 and all(exact)),
        "ranks_are_clear": np.int8(sure and len(kinds) == 1),
        "earlier": ("pair", earlier),
        "later": ("pair", later),
        "between_rank": ("pair", between + rank),
        "complementary_rank": ("pair", complementary + rank),
        "tightened_pair": ("pair", pivots),
    }


def _order(net: LinearNetwork, kind: str, ranks: Integers) -> tuple[int, bool]:
    """Return the order of descent at a critical point, and whether it is more than a bound."""
    if kind != "nonstrict_saddle":
        return 0 if kind == "global_minimum" else 2, True
    return strings.descent(net.problem, ranks)


@known_options
def canonicalize(
    net: LinearNetwork, x: ArrayLike | xr.Dataset, *, rtol: float | None = None
) -> xr.Dataset:
    """Return the canonical representative of a critical point and the way there.

    Parameters
    ----------
    net
        The network.
    x
        Critical state (parameter), or what has one, as for `classify`.
    rtol
        How accurately it is critical, as for `classify`.

    Returns
    -------
    xarray.Dataset
        Schema ``canonical_form``: ``state(parameter)``, the canonical A_S over the same end-to-end
        map; ``group_element(entry)``, the matrices P_1, …, P_{h−1} with their coordinates
        ``hidden, unit, unit_before``; ``moved_state(parameter)``, P·x, which has the layers of A_S
        and Z blocks beside them; ``residual``, their norm ‖P·x − A_S‖, zero exactly if ``x`` is on
        the GL orbit of A_S; ``error``, the norm of what is neither, which is rounding times the
        condition of the P_i; ``learnt(mode)`` and ``critical_point``, the index set.

    Raises
    ------
    ValueError
        If the state is not critical; the message says how far it is from that.

    Notes
    -----
    With W = U D^h Vᵀ the first r columns of P_i^{-1} are W_{1:i} V D^{−i} and the first r rows of
    P_i are D^{−(h−i)} Uᵀ W_{i+1:h}; the rest is an orthonormal basis of the kernel of these rows.
    With equal singular values W need not be U_S D_S^h V_Sᵀ of the label S: A_S is then the balanced
    state of W itself.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362); AMG24 (Achour, Malgouyres & Gerchinovitz,
    arXiv:2107.13289)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([2.0, 1.0]))
    >>> x = dl.act(net, [np.diag([3.0, 0.5, 1.0])], net.critical_state((1,)))
    >>> canon = dl.canonicalize(net, x)
    >>> canon.critical_point.item(), bool(canon.residual < 1e-15)
    ('{1}', True)
    """
    state, found, _ = check_critical(net, x, rtol)
    modes = net.map_modes(found.left, found.sizes, found.right)
    layers = net.unpack(state)
    _, inverses = strings.adapted_bases(layers, *modes)
    group = inverses[1:-1]
    moved = flat(symmetry.moved(layers, group))
    canonical = moments.canonical_state(net.widths, *modes)
    variables = {
        "state": ("parameter", canonical),
        "group_element": ("entry", flat(group) if group else np.zeros(0)),
        "moved_state": ("parameter", moved),
        "residual": ((), float(np.linalg.norm(moved - canonical))),
        "error": ((), _between(net, moved, canonical, len(found.modes))),
        **_index_set(net, found),
    }
    coords = {**net.coordinates(), **_entry_coordinates(net.widths[1:-1])}
    attrs = net.attributes() | ({} if rtol is None else {"rtol": rtol})
    return schema.finish(xr.Dataset(variables, coords), "canonical_form", attrs)


def _between(net: LinearNetwork, moved: Array, canonical: Array, rank: int) -> float:
    """Return the norm of what a moved state has beside the learnt layers and the Z blocks."""
    root = np.eye(net.widths[0]) if net.input_root is None else net.input_root
    pairs, total = zip(net.unpack(moved), net.unpack(canonical), strict=True), 0.0
    for i, (w, a) in enumerate(pairs, 1):
        seen = root if i == 1 else np.eye(w.shape[1])
        rest = w - a
        rows = rest[:rank] @ seen if i < net.depth else rest[:0]
        columns = rest[rank * (i < net.depth) :, :rank] if i > 1 else rest[:, :0]
        total += float(np.sum(rows**2) + np.sum(columns**2))
    return float(np.sqrt(total))


def _index_set(net: LinearNetwork, found: strings.Learnt) -> dict[str, Any]:
    """Return the index set of a point."""
    return {
        "learnt": ("mode", np.isin(np.arange(len(net.problem.modes[1])), found.modes)),
        "critical_point": schema.index_set_label(found.modes),
        "ambiguous": np.int8(found.freedom > 0),
    }


def _entry_coordinates(sizes: Sequence[int]) -> dict[str, Any]:
    """Return the hidden layer, row and column of each entry of P_1, …, P_{h−1}."""
    places = [np.indices((d, d)).reshape(2, -1) for d in sizes]
    hidden = np.repeat(np.arange(1, len(sizes) + 1), [d * d for d in sizes])
    rows, columns = np.concatenate([np.zeros((2, 0), np.int64), *places], axis=1)
    return schema.columns("entry", hidden=hidden, unit=rows, unit_before=columns)


def check_point(
    net: LinearNetwork, x: ArrayLike | xr.Dataset, rtol: float | None, name: str = "x"
) -> tuple[Array, float | None, float]:
    """Return a state of a network without decay, and what `read_point` does."""
    check_network(net)
    return read_point(net, x, rtol, name)


def check_critical(
    net: LinearNetwork, x: ArrayLike | xr.Dataset, rtol: float | None, name: str = "x"
) -> tuple[Array, strings.Learnt, float]:
    """Return a state, what it has learnt, and its accuracy; refuse one that is not critical."""
    state, rtol, accuracy = check_point(net, x, rtol, name)
    found = strings.learnt(net.problem, net.unpack(state), rtol)
    if not found.is_critical(rtol):
        raise ValueError(
            f"{name}: needs a critical point, got a relative gradient of "
            f"{found.relative_gradient:.3g} and mode strengths off 0 and 1 by "
            f"{found.mode_residual:.3g}; rtol is "
            f"{tolerances.NEARLY if rtol is None else rtol:g} (find_critical_point goes to one "
            "near by)"
        )
    return state, found, accuracy
