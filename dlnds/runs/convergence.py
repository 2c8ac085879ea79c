"""Rates at which runs surely converge, beside those at which they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import known_options
from dlnds.runs.observe import durations, states_of
from dlnds.systems.network import check_layered
from dlnds.theory import decayed_rates, rates, tolerances
from dlnds.theory.coordinates import layers_of, product
from dlnds.theory.rates import Quadratic
from dlnds.theory.symmetry import imbalances

#: What bounds rest on.
_BOUNDS = ("partial_products", "ball", "margin", "imbalance")
#: Components up to which the Hessian is looked at.
MOST = 640
#: What runs of other than gradient flow say of their method.
_NO_FLOW = ("imported", "iteration")


@known_options
def convergence_bounds(net: Any, run: xr.Dataset) -> xr.Dataset:
    """Return proven lower bounds on the rate −d ln(L − L_min)/dt along a run, beside its own.

    Parameters
    ----------
    net
        A `LinearNetwork`, or a `LossNetwork` with linear measurements or the power 2; with weight
        decay any.
    run
        Its run, or a stack of runs, with ``state``.

    Returns
    -------
    xarray.Dataset
        Schema ``convergence_bounds``, rows of the run, and a dim ``bound``:

        - ``excess_loss`` L − L_min and its ``rate`` ‖∇L‖²/(L − L_min), NaN at a minimum;
        - ``rate_bound(bound)``, ``rate_margin(bound)`` = rate − rate_bound, and ``excess_bound
          (bound)``, which ``excess_loss`` does not exceed from the first row on;
        - ``excess_error``, what the excess loss of each row is known to: that below it is nothing
          but the error of the run (NaN where the least loss is not known), see the notes;
        - ``decision(bound)``: ``proven``, or why a bound is not there (NaN);
        - ``deficiency_margin``, which ``smallest_singular_value`` of W K never falls below, and
          ``imbalance_change``, the largest ‖C_i − C_i(0)‖_F, which is zero but for the errors of
          the run: what held, and by how much. Under weight decay λ C_i(0) decays by e^{−2λt} in
          it, there is no such margin, and ``asymptotic_rate`` is twice the least curvature across
          the minimum: a run that goes there tends to this rate, or to a larger one.

        Bounds are

        - ``partial_products``, of the weights in each row. It holds of any states, also those of
          gradient descent: the rate is that of the flow from there;
        - ``ball``, of each row for all later times: the way that is left to a minimum, at most
          2 √((L − L_min)/μ), is so short that the weights keep the rate μ;
        - ``margin``, of the first row alone: Σ is nearer to W K than any map of lower rank, and
          the layers are balanced, or not too far from it;
        - ``imbalance``, of the first row alone: two layers with an imbalance, a margin, or both.

        Decisions are ``bottleneck`` (a hidden layer is narrower than both ends: W cannot go
        everywhere, and no such inequality holds; but near the minimum where a run of up to 640
        weights ends ``ball`` has one, if the best map is the only one), ``no_ball`` (in no row),
        ``no_margin``, ``too_unbalanced`` and ``no_imbalance`` (the first row lacks what it takes),
        ``singular_inputs``, ``not_two_layers``, and ``no_flow``: what holds for later times is of
        gradient flow, not of descent or a run of others. Under weight decay ``ball`` is the only
        bound: the others rest on the loss without (``weight_decay``). It is there near the global
        minimum of whitened inputs whose layers decay alike, of a `LossNetwork` with the square loss
        too; of others the minimum or its curvature is not known (``no_minimum``), or it has zeros
        beside turns of hidden units. Where equal σ_j are not all learnt, runs to other directions
        of these than the first ones have ``no_ball``.

    Raises
    ------
    ValueError, TypeError
        If the run is of another system or has no states, or for another loss without weight decay:
        of these nothing is proven.

    Notes
    -----
    With L_i = W_{i+1:h} and R_i = W_{1:i−1} the Polyak–Łojasiewicz inequality is
    ‖∇L‖² ≥ 2 μ (L − L_min), μ = Σ_i σ(L_i)² σ(R_i K)², σ the d_h-th and the k-th singular value;
    L = ½‖Σ − W K‖², K (d_0 × k). Twice the smallest of d_h k eigenvalues of the tangent kernel
    (``ntk_eigenvalue`` of `observe`) is between the two. Linear measurements have
    K = √m I, with m their smallest second derivative that is not zero.

    ``margin``: ‖Σ − W K‖ never grows, so that σ_n(W) ≥ c for all times, n = min(d_h, k), and
    balanced layers then have μ ≥ h c^{2−2/h} σ_k(K)² if d_0 = d_h, c^{2−2/h} σ_k(K)² if not. The
    C_i, which are conserved, are allowed for by what they can change.

    ``imbalance``: with C = W_1 W_1ᵀ − W_2ᵀ W_2, a = [λ_{d_0}(C)]_+ and N = [λ_1(−C)]_+ the
    eigenvalue x = λ_{d_0}(W_1ᵀ W_1) has (x − a)(x + N) ≥ σ_{d_0}(W)², and that of W_2 W_2ᵀ the
    same with −C; μ is at least their sum times σ_k(K)². Equality for one input and one output.

    Under weight decay ‖∇L‖² ≥ 2 (μ − K ρ)(L − L_min) within a distance ρ of the global minima, with
    their least curvature μ and a bound K on third derivatives of L, and with 2 (μ − 3 K ρ) at a
    bottleneck within ρ of one of them, whose curvature is that of its Hessian; a run that is at a
    distance δ of some minimum, and less than 2 √((L − L_min)/r) before its end, with this rate r,
    stays within the sum. Under decay the nearest minimum is searched by turns of hidden units:
    another one makes bounds smaller.

    Between two rows the path is at most √(Δt ΔL) long; ``excess_bound`` of ``partial_products``
    takes the least rate so near to them, and is nearer the more rows there are. Times are
    differences of the compensated clock; of a run without ``time_low`` the bounds have the shortest
    time that its rounding leaves open, which may be none. All are of the
    exact flow, which a run follows up to r of the scale of each weight, √(s s') of the sizes of the
    units that it joins: 10 ``rtol``, or, where it took implicit steps, 0.1 ``rtol``^0.6 if that is
    more. √(2 (L − L_min)) is then known to ε = r Σ_i ‖L_i‖ E_i ‖R_i K‖ (and what a bottleneck and a
    penalty add), with E_i² the sum of squared scales of layer i, or what bounds leave of an E_i of
    rows before, and a tenth of E_i more each time that it leaves e⁻¹. ``excess_error`` is
    ε √(2 (L − L_min)) + ½ ε²: r times a number as long as the excess is not nothing but error, and
    more where a layer fades beside others. It is of first order, and does not tell how much later
    or earlier a run leaves a saddle than the exact flow. States that others have made are taken for
    exact.

    References
    ----------
    KNS16 (Karimi, Nutini & Schmidt, arXiv:1608.04636) for the inequality; LZB22 (Liu, Zhu & Belkin,
    arXiv:2003.00307) for the ball; ACGH18 (Arora, Cohen, Golowich & Hu, arXiv:1810.02281) for the
    margin; MVM23 (Min, Vidal & Mallada, ICML 2023) for the imbalance.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork((2, 2, 2, 2), [[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial("aligned", scale=[1.2, 0.9]))
    >>> found = dl.convergence_bounds(net, run)
    >>> found.rate[0].round(3).item(), found.rate_bound[:, 0].values.round(3).tolist()
    (8.205, [3.937, nan, 3.145, nan])
    >>> dl.schema.decode(found.decision).values.tolist()
    ['proven', 'proven', 'proven', 'not_two_layers']
    """
    check_layered(net, with_decay=True)
    if net.is_decayed:
        return _under_decay(net, run)
    loss = net.quadratic
    if loss is None:
        raise ValueError(
            f"net: needs the square loss or linear measurements, got {net!r}; of other losses no "
            "constant is known by which they exceed their least value"
        )
    known, dims, states = states_of(net, run)
    layers = layers_of(net.widths, states)
    excess, rate = rates.measured(loss, layers)
    is_flow = known.attrs.get("method") not in _NO_FLOW
    partials = rates.partials(loss, layers)
    found = _bounds(loss, layers, partials, excess, is_flow)
    if loss.is_bottleneck and is_flow and net.dim <= MOST:
        found["ball"] = _at_bottleneck(net, loss, states, excess)
    bounds = np.stack([least for least, _ in found.values()], axis=-2)
    words = np.stack([word for _, word in found.values()], axis=-1)
    certified, keeping = np.full_like(bounds, np.nan), None
    if is_flow:
        shortest, longest = _passing(known)
        local = rates.between_rows(partials, excess, longest)
        certified = _certified(excess, shortest, local, found)
        steady = np.fmax(0.0 if loss.is_bottleneck else local, found["ball"][0][..., :-1])
        keeping = shortest, np.nan_to_num(steady)
    more = _kept(loss, layers, excess, dims)
    more["excess_error"] = dims, _error(net, known, layers, excess, float(loss.lowest), keeping)
    return _finished(net, known, dims, (excess, rate), (bounds, certified, words), more)


def _error(
    net: Any,
    known: xr.Dataset,
    layers: Sequence[Array],
    excess: Array,
    lowest: float,
    keeping: tuple[Array, Array] | None,
) -> Array:
    """Return the error of the excess loss of rows (…, time), of which ``lowest`` is subtracted.

    Along flows errors last, but for the durations and rates of ``keeping``.
    """
    if net.quadratic is None or not math.isfinite(lowest):
        return np.full_like(excess, np.nan)
    rtol = float(known.attrs.get("rtol", 0.0))
    implicit = known["n_jac"].values if "n_jac" in known else known.attrs.get("n_jac", 0)
    inside = np.where(np.asarray(implicit) > 0, 0.1 * rtol**0.6, 0.0)
    part = np.maximum(10.0 * rtol, inside) + tolerances.rounding(net.dim)
    scales = rates.error_scales(layers)
    scales = scales if keeping is None else rates.lasting(scales, *keeping)
    moved = rates.sensitivity(net.quadratic, layers, scales, net.decays, lowest) * part[..., None]
    rounding, rest = tolerances.rounding(net.dim), np.sqrt(2.0 * np.maximum(excess, 0.0))
    moved = moved + rounding * rest  # of Σ − W K
    least = (tolerances.SMALLEST / (rtol or 1.0)) ** 2  # where squares of what is allowed underflow
    return np.asarray(moved * (rest + 0.5 * moved) + rounding * lowest + least)


def _finished(
    net: Any,
    known: xr.Dataset,
    dims: tuple[str, ...],
    measured: tuple[Array, Array],
    proven: tuple[Array, Array, Array],
    more: dict[str, Any],
) -> xr.Dataset:
    """Return the excess and its rate, the bounds with what they certify and why, and ``more``."""
    (excess, rate), (bounds, certified, words) = measured, proven
    of_bounds = (*dims[:-1], "bound", dims[-1])
    variables = {
        "excess_loss": (dims, excess),
        "rate": (dims, rate),
        "rate_bound": (of_bounds, bounds),
        "rate_margin": (of_bounds, rate[..., None, :] - bounds),
        "excess_bound": (of_bounds, certified),
        "decision": (of_bounds[:-1], schema.flag(schema.RATE_DECISIONS, words)),
        **more,
    }
    kept = [name for name in ("time", "iteration", "sample") if name in known.variables]
    coords = {name: known[name].variable for name in kept} | {"bound": list(_BOUNDS)}
    return schema.finish(xr.Dataset(variables, coords), "convergence_bounds", net.attributes())


def _under_decay(net: Any, run: xr.Dataset) -> xr.Dataset:
    """Return what is known of the rate of a run under weight decay."""
    known, dims, states = states_of(net, run)
    none = np.asarray(~np.isfinite(states).all(axis=-1))  # beyond the end of one of several runs
    states = np.where(none[..., None], 0.0, states)
    layers, orbit = layers_of(net.widths, states), net.decayed_minimum
    loss = np.where(none, np.nan, net.loss(states))
    excess, force = loss - net.lowest_loss, np.linalg.norm(net.gradient(states), axis=-1)
    rate = force**2 / np.where(excess > 0.0, excess, np.nan)
    is_flow = known.attrs.get("method") not in _NO_FLOW
    word = "no_minimum" if orbit is None else "no_ball" if is_flow else "no_flow"
    ball = np.full_like(loss, np.nan)
    if orbit is not None and is_flow:
        found = decayed_rates.from_orbit(orbit, decayed_rates.distances(orbit, layers), excess)
        ball = np.maximum.accumulate(np.where(found > 0.0, found, -np.inf), axis=-1)
        ball = np.where((ball > 0.0) & ~none, ball, np.nan)
    bounds, certified = (np.full((*loss.shape[:-1], 4, loss.shape[-1]), np.nan) for _ in range(2))
    bounds[..., 1, :] = ball
    has_ball = np.asarray(np.isfinite(ball).any(axis=-1, keepdims=True))
    keeping = (_passing(known)[0], np.nan_to_num(ball[..., :-1])) if is_flow else None
    if keeping is not None:
        steady = rates.decayed(excess, *keeping)
        certified[..., 1, :] = np.where(has_ball, steady, np.nan)
    words = np.full((*loss.shape[:-1], 4), "weight_decay", object)
    words[..., 1] = np.where(has_ball[..., 0], "proven", word)
    steady_rate = math.nan if orbit is None else 2.0 * orbit.curvature
    more = {"asymptotic_rate": steady_rate} | _faded(net, known, layers, loss, dims)
    lowest = float(net.lowest_loss)
    more["excess_error"] = dims, _error(net, known, layers, excess, lowest, keeping)
    return _finished(net, known, dims, (excess, rate), (bounds, certified, words), more)


def _faded(
    net: Any, known: xr.Dataset, layers: Sequence[Array], loss: Array, dims: tuple[str, ...]
) -> dict[str, Any]:
    """Return how exact a run with weight decay is by its C_i, and what of a margin there is."""
    W = product(layers)
    change = np.full_like(loss, np.nan)
    if "time" in known.variables and not isinstance(net.weight_decay, tuple):
        steps, _ = durations(known)
        passed = np.cumsum(np.concatenate([0.0 * loss[..., :1], steps], axis=-1), axis=-1)
        fade = np.exp(-2.0 * net.weight_decay * passed)[..., None, None]
        lacks = [C - fade * C[..., :1, :, :] for C in imbalances(layers)]
        sizes = [np.linalg.norm(lack, axis=(-2, -1)) for lack in lacks]
        change = np.max([0.0 * loss, *sizes], axis=0)
    return {
        "deficiency_margin": (dims[:-1], np.full(loss.shape[:-1], np.nan)),
        "smallest_singular_value": (dims, rates.smallest(W, min(W.shape[-2:])) + 0.0 * loss),
        "imbalance_change": (dims, change),
    }


def _bounds(
    loss: Quadratic,
    layers: Sequence[Array],
    partials: rates.Partials,
    excess: Array,
    is_flow: bool,
) -> dict[str, tuple[Array, Array]]:
    """Return rates (…, time) of all bounds, and the word (…) that says why one is not there."""
    first, start = [w[..., 0, :, :] for w in layers], excess[..., 0]
    _, margin = rates.deficiency_margin(loss, start)
    lacks = "bottleneck" if loss.is_bottleneck else ""

    def kept(lack: str, function: Callable[[], Array], empty: Any) -> tuple[Array, Array]:
        if lacks or lack:
            return np.full_like(excess, np.nan), np.full(start.shape, lacks or lack, object)
        rate = np.broadcast_to(function(), excess.shape)
        words = np.where((rate > 0.0).any(axis=-1), "proven", empty)
        return np.where((rate > 0.0) & np.isfinite(excess), rate, np.nan), words

    no_flow, uneven = "" if is_flow else "no_flow", loss.root.shape[0] != loss.root.shape[1]
    no_target = "no_margin" if loss.target is None else "singular_inputs" if uneven else ""
    local = np.full_like(excess, np.nan) if lacks else partials.rate()
    return {
        "partial_products": (local, np.full(start.shape, lacks or "proven", object)),
        "ball": kept(
            no_flow,
            lambda: np.maximum.accumulate(rates.from_ball(partials, excess), axis=-1),
            "no_ball",
        ),
        "margin": kept(
            no_flow or no_target,
            lambda: rates.from_margin(loss, first, start, margin)[..., None],
            np.where(margin > 0.0, "too_unbalanced", "no_margin"),
        ),
        "imbalance": kept(
            no_flow or ("" if len(layers) == 2 else "not_two_layers"),
            lambda: rates.from_imbalance(loss, first, margin)[..., None],
            "no_imbalance",
        ),
    }


def _at_bottleneck(net: Any, loss: Quadratic, states: Array, excess: Array) -> tuple[Array, Array]:
    """Return the rates (…, time) that rows keep near the minimum where the run ends, and words."""
    kept, words = np.full_like(excess, np.nan), np.full(excess.shape[:-1], "bottleneck", object)
    for place in np.ndindex(words.shape):
        own, above = states[place], excess[place]
        rows = np.flatnonzero(np.isfinite(above))
        if not rows.size:
            continue
        layers = layers_of(net.widths, own[rows[-1]])
        minimum = rates.bottleneck_at(loss, layers, lambda now: net.hessian(net.pack(now)))
        if minimum is None:
            continue
        away = np.linalg.norm(own[rows] - net.pack(minimum.layers), axis=-1)
        found = np.maximum.accumulate(rates.kept(minimum.rate_within, away, above[rows]))
        kept[(*place, rows)] = np.where(found > 0.0, found, np.nan)
        words[place] = "proven" if (found > 0.0).any() else "no_ball"
    return kept, words


def _passing(known: xr.Dataset) -> tuple[Array, Array]:
    """Return the shortest and the longest time that may be between rows (…, time − 1)."""
    steps, error = durations(known)
    return np.where(steps > error, steps - error, 0.0 * steps), steps + error


def _certified(
    excess: Array, shortest: Array, local: Array, found: dict[str, tuple[Array, Array]]
) -> Array:
    """Return what the excess (…, bound, time) is at most, from the first row on.

    After the shortest durations between rows, of which ``local`` rates hold all along.
    """
    between = {name: rate[..., :-1] for name, (rate, _) in found.items()}
    ball = between["ball"]
    if np.isfinite(between["partial_products"]).any():
        between["partial_products"] = local
    if np.isfinite(ball).any():  # before there is one the loss falls
        between["ball"] = np.where(np.isfinite(excess[..., :-1]), np.nan_to_num(ball), np.nan)
    every = [rates.decayed(excess, shortest, rate) for rate in between.values()]
    return np.stack(every, axis=-2)


def _kept(
    loss: Quadratic, layers: Sequence[Array], excess: Array, dims: tuple[str, ...]
) -> dict[str, Any]:
    """Return what the bounds of the first row rest on, along the run."""
    image = product(layers) @ loss.root
    margin, _ = rates.deficiency_margin(loss, excess[..., 0])
    changes = [np.linalg.norm(C - C[..., :1, :, :], axis=(-2, -1)) for C in imbalances(layers)]
    return {
        "deficiency_margin": (dims[:-1], margin),
        "smallest_singular_value": (dims, rates.smallest(image, loss.least)),
        "imbalance_change": (dims, np.max([np.zeros_like(excess), *changes], axis=0)),
    }
