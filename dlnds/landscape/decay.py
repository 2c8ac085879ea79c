"""Critical points under weight decay: all of them, their branches, and of what kind one is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array, Integers
from dlnds.errors import check_array, check_integer, check_memory, known_options
from dlnds.landscape import pure
from dlnds.landscape.index_sets import decayed_branches
from dlnds.landscape.states import read_point
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.losses import has_criterion
from dlnds.theory import names, penalized, tolerances
from dlnds.theory.moments import groups


@known_options
def decay_diagram(
    net: LinearNetwork,
    bounds: Sequence[float] = (0.0, 2.0),
    *,
    n_points: int = 201,
    max_rank: int | None = None,
    modes: Sequence[int] | None = None,
) -> xr.Dataset:
    """Return all critical points of a whitened network as weight decay varies, in closed form.

    Parameters
    ----------
    net
        The network. Its own weight decay does not matter.
    bounds
        The smallest and the largest weight decay λ, the same for all layers.
    n_points
        Number of equidistant values of λ.
    max_rank, modes
        Which branches to list, as for `critical_points`.

    Returns
    -------
    xarray.Dataset
        Schema ``decay_diagram``: of each ``branch``, named as the points of `critical_points`, at
        each ``weight_decay``: ``loss``, with the penalty, and ``size(branch, weight_decay, mode)``,
        the s_j of all layers, NaN where the branch does not exist; ``index`` of the Hessian, −1
        there, and ``kind``, ``not_critical`` there. ``most_decay(mode)`` is the λ at which the
        roots of a mode end: a fold where upper and lower one meet for three layers or more, σ_j for
        two layers, a pitchfork; infinite for a single layer.

    Raises
    ------
    ValueError
        If bounds are negative or do not ascend, the network is not whitened, there are more than
        100,000 branches, or they do not fit into memory.

    Notes
    -----
    Lower roots begin at s = 0 for λ = 0, where they are no points of their own: branches with any
    do not exist there.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 2

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork((1, 1, 1, 1), [[2.0]])
    >>> found = dl.decay_diagram(net, (0.0, 2.0), n_points=3)
    >>> found.branch.values.tolist(), found.most_decay.values.round(4).tolist()
    (['{}', '{0⁺}', '{0⁻}'], [1.1906])
    >>> found["size"].sel(branch="{0⁺}", mode=0).values.round(4).tolist()
    [1.2599, 1.0, nan]
    """
    check_network(net, with_decay=True)
    if not net.whitened:
        raise ValueError("net: needs whitened inputs, got raw ones")
    ends = check_array("bounds", bounds, ndim=1, shape=(2,))
    if not 0.0 <= ends[0] < ends[1]:
        raise ValueError(
            f"bounds: needs two ascending numbers of at least 0, got {tuple(ends.tolist())}"
        )
    n_points = check_integer("n_points", n_points, minimum=2)
    check_memory("n_points", n_points)
    decays = np.linspace(ends[0], ends[1], n_points)
    sigma, depth = net.problem.modes[1], net.depth
    # All roots that there are somewhere between the bounds.
    least = max(float(ends[0]), np.finfo(float).tiny)
    at_fold = penalized.folded(sigma, least, depth) & (depth >= 3)  # where both branches end
    first = np.where(at_fold, 2, penalized.counts(sigma, least, depth)).tolist()
    two = np.zeros(len(sigma), bool)  # no mode keeps a double root
    labels, signs = decayed_branches(net.undecayed(), first, max_rank, modes, two)
    check_memory("n_points", signs.size * len(decays))
    columns = [_at(net, signs, decay) for decay in decays.tolist()]
    variables: dict[str, Any] = {
        name: (("branch", "weight_decay", "mode")[: values[0].ndim + 1], np.stack(values, axis=1))
        for name, values in ((name, [c[name] for c in columns]) for name in columns[0])
    }
    variables["rank"] = ("branch", np.count_nonzero(signs, axis=1))
    variables["most_decay"] = ("mode", penalized.all_most_decays(sigma, depth))
    coords = {
        "branch": labels,
        "weight_decay": decays,
        "mode": np.arange(len(sigma)),
        "singular_value": ("mode", sigma.copy()),
    }
    return schema.finish(xr.Dataset(variables, coords), "decay_diagram", net.attributes())


def _at(net: LinearNetwork, signs: Any, decay: float) -> dict[str, Any]:
    """Return what is known of all branches at one decay."""
    sigma = net.problem.modes[1]
    sizes = penalized.sizes(sigma, signs, decay, net.depth)
    loss = penalized.losses(sigma, sizes, decay, net.depth)
    index = penalized.indices(net.problem, signs, decay)
    kinds = penalized.kinds(net.problem, signs, index, loss, decay)
    none = np.isnan(loss)
    return {
        "loss": loss,
        "size": np.where(none[:, None], np.nan, sizes),
        "index": np.where(none, -1, index),
        "kind": schema.flag(schema.CLASSIFIED_KINDS, np.where(none, "not_critical", kinds)),
    }


def table(net: Any, max_rank: int | None, modes: Sequence[int] | None) -> xr.Dataset:
    """Return the critical points of a decayed network."""
    decay, sigma = net.equal_decay, net.problem.modes[1]
    roots = penalized.counts(sigma, decay, net.depth)
    double = penalized.folded(sigma, decay, net.depth)
    labels, signs = decayed_branches(net, roots, max_rank, modes, double)
    sizes = penalized.sizes(sigma, signs, decay, net.depth)
    loss = penalized.losses(sigma, sizes, decay, net.depth)
    index = penalized.indices(net.problem, signs, decay)
    kinds = penalized.kinds(net.problem, signs, index, loss, decay)
    along = ("critical_point", "mode")
    variables = {
        "learnt": (along, signs != 0),
        "size": (along, sizes),
        "rank": ("critical_point", np.count_nonzero(signs, axis=1)),
        "loss": ("critical_point", loss),
        "index": ("critical_point", index),
        "kind": ("critical_point", schema.flag(schema.CLASSIFIED_KINDS, kinds)),
        "degenerate": (
            "critical_point",
            penalized.is_degenerate(net.problem, signs, decay).astype(np.int8),
        ),
        "most_decay": ("mode", penalized.all_most_decays(sigma, net.depth)),
    }
    coords = {
        "critical_point": labels,
        "mode": np.arange(len(sigma)),
        "singular_value": ("mode", sigma.copy()),
    }
    return schema.finish(xr.Dataset(variables, coords), "decayed_points", net.attributes())


def classified(net: Any, x: ArrayLike | xr.Dataset, rtol: float | None) -> xr.Dataset:
    """Return what `classify` does, of a network with weight decay; see there."""
    state, rtol, accuracy = read_point(net, x, rtol)
    limit = tolerances.NEARLY if rtol is None else rtol
    force = _relative_gradient(net, state)
    in_closed_form = not has_criterion(net) and net.whitened and net.mean_decay > 0.0
    find = _of_roots if in_closed_form else _of_hessian
    found = find(net, state, limit, max(force, accuracy))
    kind, clear, order, exact = found.pop("decided")
    if not force <= limit or kind == "not_critical" or net.theory(state).recedes():
        kind, clear, order, exact = "not_critical", True, 1, True
        found = {name: found[name] for name in found if name not in ("index", "nullity", "size")}
    variables = {
        **found,
        "loss": float(net.loss(state)),
        "relative_gradient": force,
        "tightened": np.int8(-1),
        "kind": schema.flag(schema.CLASSIFIED_KINDS, kind),
        "kind_is_clear": np.int8(clear),
        "order_of_descent": np.int64(order),
        "order_is_exact": np.int8(exact),
    }
    attrs = net.attributes() | ({} if rtol is None else {"rtol": rtol})
    coords = {} if has_criterion(net) else {"singular_value": ("mode", net.singular_values)}
    coords = coords if "learnt" in found else {}
    return schema.finish(xr.Dataset(variables, coords), "classification", attrs)


def _relative_gradient(net: Any, state: Array) -> float:
    """Return ‖∇L‖ in terms of what decay pulls with, or would with weights of a usual size."""
    usual = float(net.decays.max()) * net.fitting_size ** (1.0 / net.depth)
    pull = float(np.linalg.norm(np.repeat(net.decays, _sizes(net)) * state))
    size = max(pull, usual)
    return float(np.linalg.norm(net.gradient(state))) / size if size else 0.0


def _sizes(net: Any) -> list[int]:
    """Return the number of weights of each layer."""
    return [b * a for a, b in itertools.pairwise(net.widths)]


def _of_roots(net: LinearNetwork, state: Array, limit: float, force: float) -> dict[str, Any]:
    """Return what is known of the critical point that has the same modes on the same roots."""
    decay, h, sigma = net.mean_decay, net.depth, net.problem.modes[1]
    factors = np.sqrt(net.decays / decay)
    layers = [c * w for c, w in zip(factors, net.unpack(state), strict=True)]
    match = penalized.matched(net.problem, layers, decay)
    signs = match.signs[None]
    sizes = penalized.sizes(sigma, signs, decay, h)
    loss = penalized.losses(sigma, sizes, decay, h)
    index = penalized.indices(net.problem, signs, decay)
    kind = str(penalized.kinds(net.problem, signs, index, loss, decay)[0])
    kind = "undecided" if match.at_fold and not index[0] else kind
    gap = match.second / max(match.residual, force, tolerances.RANK)
    clear = gap > tolerances.CLEAR_GAP and kind != "undecided"
    modes = np.flatnonzero(match.signs)
    order = {"strict_saddle": 2, "undecided": 3}.get(kind, 0)
    near = match.residual <= max(limit, tolerances.MODE)
    return {
        "learnt": ("mode", match.signs != 0),
        "size": ("mode", sizes[0]),
        "critical_point": names.of_roots(modes.tolist(), match.signs[modes].tolist(), h),
        "ambiguous": np.int8(_is_ambiguous(sigma, match.signs)),
        "rank": np.int64(len(modes)),
        "excess": float(net.loss(state)) - net.lowest_loss,
        "mode_residual": match.residual,
        "decision_gap": gap,
        "index": np.int64(index[0]),
        "decided": (kind if near else "not_critical", clear, order, clear),
    }


def _is_ambiguous(sigma: Array, signs: Integers) -> bool:
    """Tell whether equal singular values are not all on the same roots."""
    return any(np.ptp(signs[group]) > 0 for group in groups(sigma))


def _of_hessian(net: Any, state: Array, limit: float, force: float) -> dict[str, Any]:
    """Return what the Hessian tells, and where a minimum is known to be global."""
    W = net.product(state)
    zero = min(max(tolerances.RANK, 1e3 * force), limit)
    index, nullity, sure = pure.counted(net, state, zero)
    spans = np.linalg.svd(net.generators(state), compute_uv=False)
    orbit = int(np.count_nonzero(spans > tolerances.RANK * spans.max(initial=0.0)))
    values = np.linalg.svd(W, compute_uv=False)
    rank = int(np.count_nonzero(values > zero * values[0]))
    found = {"rank": np.int64(rank), "index": np.int64(index), "nullity": np.int64(nullity)}
    if index:
        return found | {"decided": ("strict_saddle", sure, 2, sure)}
    if _is_global(net, state, W, max(tolerances.HESSIAN, 10.0 * force)):
        return found | {"decided": ("global_minimum", True, 0, True)}
    if nullity <= orbit:
        return found | {"decided": ("minimum", sure, 0, sure)}
    return found | {"decided": ("undecided", False, 3, False)}


def _is_global(net: Any, state: Array, W: Array, slack: float) -> bool:
    """Tell whether a critical point of a convex loss ℓ ≥ 0 is known to be a global minimum.

    One layer: all are. Two: the penalty of the layers of W is at least λ ‖W‖_*, and just that at
    critical points, where −∇ℓ(W) = λ U Vᵀ + a rest; with ‖∇ℓ(W)‖ ≤ λ this is the condition for a
    minimum of the convex ℓ(W) + λ ‖W‖_*. More: the origin is, if a map of ‖W‖ = p, which costs at
    least c p^{2/h} with c = ½ h λ, does not gain that: it gains no more than ‖∇ℓ(0)‖ p, and where
    it costs less than it may gain, c p^{2/h} ≤ ℓ(0).
    """
    if net.depth == 1:
        return True
    signal = net.criterion.gradient(W) if has_criterion(net) else net.problem.signal(W)
    if net.depth == 2:
        least = net.mean_decay * (1.0 + slack)
        if net.mean_decay and np.linalg.norm(signal, 2) <= least:
            return True
    if state.any():
        return False
    power, cost = 0.5 * net.depth, 0.5 * net.depth * net.mean_decay
    gain = np.linalg.norm(signal) * net.data_loss(state) ** (power - 1.0)
    return bool(gain <= cost**power)
