"""Closed forms of the gradient flow, where they exist, as runs."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_ascending, check_number, known_options
from dlnds.runs.recording import Names, observe_rows, recorded
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.protocol import check_state
from dlnds.systems.stored import run_coordinates
from dlnds.theory import tolerances
from dlnds.theory.laws import mode_strength

#: Largest exponent μt of one application of the matrix solution.
_LONGEST = 300.0


@known_options
def exact_flow(
    net: LinearNetwork,
    start: ArrayLike,
    t_eval: ArrayLike,
    *,
    save: Names = ("state",),
) -> xr.Dataset:
    """Return the run from a start for which the flow is known in closed form.

    Parameters
    ----------
    net
        A whitened network.
    start
        State (parameter) at time 0: any (one layer); aligned with the target and 0-balanced (any
        depth); aligned (two layers); or W_2ᵀW_2 − W_1W_1ᵀ = cI (two layers, balanced for c = 0).
        With weight decay any (one layer), or 0-balanced (two layers that decay alike).
    t_eval
        Times, ascending, from 0 on.
    save
        What to record, as for `flow`.

    Returns
    -------
    xarray.Dataset
        Schema ``run`` with ``method`` ``"exact"``. For starts that are not aligned the weights are
        known up to an orthogonal change of the hidden units: the attribute ``defined_modulo`` is
        then ``"O(d_1)"``, and ``product`` is the exact variable.

    Raises
    ------
    ValueError, TypeError
        If the network is not whitened, the times do not ascend from 0, or no closed form is known.

    Notes
    -----
    Aligned and balanced: ṗ = h p^{2−2/h} (σ − p) for each mode, solved by
    t = [F(p/σ) − F(p_0/σ)] / (h σ^a), F(u) = u^{1−a}/(1−a) ₂F₁(1, 1−a; 2−a; u), a = 2 − 2/h,
    inverted to about 1e-10. Two layers: with Q = [W_1ᵀ; W_2] and F = [[−c/2, Σᵀ], [Σ, c/2]],
    QQᵀ = e^{Ft} Q_0 [I + Q_0ᵀ ∫_0^t e^{2Fs} ds Q_0]⁻¹ Q_0ᵀ e^{Ft}, in the eigenbasis of F. Weight
    decay λ takes λI from F; an imbalance would decay, and F with it.

    References
    ----------
    SMG14 (Saxe, McClelland & Ganguli, arXiv:1312.6120); WA25 (Wendin & Altafini, arXiv:2511.10362),
    section 6; FUK98 (Fukumizu, ICONIP 1998); BDFS22 (Braun, Dominé, Fitzgerald & Saxe, NeurIPS
    2022).

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.exact_flow(net, net.initial("aligned", scale=0.1), [0, 5, 10, 20])
    >>> run.loss.round(4).values.tolist()
    [2.497, 0.5087, 0.0041, 0.0]
    """
    check_network(net, with_decay=True)
    if not net.whitened:
        raise ValueError("net: needs a whitened network; closed forms are known for these only")
    state = check_state("start", net, start)
    times = check_ascending("t_eval", t_eval)
    check_number("t_eval", times[0], minimum=0.0)
    states, modulo = _solve(net, state, times)
    names = recorded(net, save)
    variables = {
        "time": ("time", times),
        "time_low": ("time", np.zeros(len(times))),
        **observe_rows(net, names, states, state[None]),
        "stop_reason": ((), np.int8(schema.STOP_REASONS.index("end_reached"))),
    }
    attrs = {"method": "exact", "made_by": "exact_flow", "limit": net.limit(states[-1]).label}
    attrs |= net.attributes()
    if modulo:
        attrs["defined_modulo"] = modulo
    return schema.finish(xr.Dataset(variables, run_coordinates(net, names)), "run", attrs)


def _solve(net: LinearNetwork, state: Array, times: Array) -> tuple[Array, str]:
    """Return the states at the times, and modulo what they are known."""
    if net.depth == 1:
        rate = 1.0 + net.mean_decay
        end = net.target.ravel() / rate
        return end + np.multiply.outer(np.exp(-rate * times), state - end), ""
    layers, small = net.unpack(state), tolerances.ALIGNED * float(np.sum(state**2))
    frames = _aligned_frames(net, layers, small)
    imbalances = net.imbalances(state)
    balanced = all(np.abs(c).max() <= small for c in imbalances)
    if net.is_decayed and not (net.depth == 2 and balanced and np.ptp(net.decays) == 0.0):
        raise ValueError(
            "start: no closed form is known; with weight decay it needs two layers that are "
            "balanced and decay alike, or one layer"
        )
    if net.is_decayed and frames is not None:
        return _two_layer_modes(net, layers, frames, times), ""
    if frames is not None and balanced:
        return _balanced_modes(net, layers, frames, times), ""
    if net.depth != 2:
        raise ValueError(
            "start: no closed form is known; for this depth it must be aligned and balanced"
        )
    if frames is not None:
        return _two_layer_modes(net, layers, frames, times), ""
    excess = -imbalances[0]
    level = float(np.mean(np.diag(excess)))
    if np.abs(excess - level * np.eye(len(excess))).max() > small:
        raise ValueError(
            "start: no closed form is known; two layers must be aligned with the target, or have "
            "W_2ᵀW_2 − W_1W_1ᵀ = cI"
        )
    return _riccati(net, layers, level, times), "O(d_1)"


def _aligned_frames(
    net: LinearNetwork, layers: tuple[Array, ...], small: float
) -> list[Array] | None:
    """Return frames U_0, …, U_h with W_i = U_i S_i U_{i−1}ᵀ, S_i diagonal; None if there are none.

    The hidden frames are the images of the right singular vectors of the target, or, where a mode
    has no weight in a layer, the preimages of the left ones.
    """
    rank = min(net.widths)
    left, _, right = net.singular_modes
    frames = [right[:, :rank], *(np.zeros((d, rank)) for d in net.widths[1:-1]), left[:, :rank]]
    for i in range(1, net.depth):
        frames[i] = _normalized(layers[i - 1] @ frames[i - 1], layers[i - 1])
    for i in range(net.depth - 1, 0, -1):
        missing = ~frames[i].any(axis=0)
        frames[i][:, missing] = _normalized(layers[i].T @ frames[i + 1], layers[i])[:, missing]
    for i, (layer, weights) in enumerate(
        zip(layers, _mode_weights(layers, frames), strict=True), 1
    ):
        rebuilt = (frames[i] * weights) @ frames[i - 1].T
        if np.abs(layer - rebuilt).max() > np.sqrt(small) * np.sqrt(tolerances.ALIGNED):
            return None
    return frames


def _normalized(columns: Array, layer: Array) -> Array:
    """Return unit columns; zero those that are rounding of the layer they are images of."""
    sizes = np.linalg.norm(columns, axis=0)
    there = sizes > 16.0 * np.finfo(float).eps * np.linalg.norm(layer)
    unit: Array = columns * np.where(there, 1.0 / np.where(there, sizes, 1.0), 0.0)
    return unit


def _mode_weights(layers: tuple[Array, ...], frames: list[Array]) -> Array:
    """Return the weight of each mode in each layer (layer, mode)."""
    return np.stack(
        [
            np.einsum("ij,ij->j", frames[i], layer @ frames[i - 1])
            for i, layer in enumerate(layers, 1)
        ]
    )


def _states(net: LinearNetwork, frames: list[Array], weights: Array) -> Array:
    """Return the states of mode weights (time, layer, mode)."""
    layers = [
        np.einsum("ij,tj,kj->tik", frames[i + 1], weights[:, i], frames[i])
        for i in range(net.depth)
    ]
    return np.concatenate([w.reshape(len(weights), -1) for w in layers], axis=1)


def _balanced_modes(
    net: LinearNetwork, layers: tuple[Array, ...], frames: list[Array], times: Array
) -> Array:
    weights = _mode_weights(layers, frames)
    signs = np.sign(weights)
    sigma = net.singular_modes[1]
    start = np.prod(weights, axis=0)
    sizes = np.stack(
        [
            mode_strength(abs(p), s if p > 0.0 else -s, net.depth, times) ** (1.0 / net.depth)
            for p, s in zip(start, sigma, strict=False)
        ],
        axis=1,
    )
    return _states(net, frames, sizes[:, None, :] * signs)


def _two_layer_modes(
    net: LinearNetwork, layers: tuple[Array, ...], frames: list[Array], times: Array
) -> Array:
    """Return the states of aligned modes a_1, a_2, each with its own a_2² − a_1²."""
    start = _mode_weights(layers, frames)
    weights = np.zeros((len(times), *start.shape))
    for j, pair in enumerate(start.T):
        sigma, level = net.singular_modes[1][j], pair[1] ** 2 - pair[0] ** 2
        generator = np.array([[-0.5 * level, sigma], [sigma, 0.5 * level]])
        generator -= net.mean_decay * np.eye(2)
        modes = _riccati_factors(generator, pair[:, None], times)[:, :, 0]
        larger = int(np.argmax(np.abs(pair)))  # which never changes its sign
        weights[:, :, j] = (
            modes * np.where(modes[:, larger] * pair[larger] < 0.0, -1.0, 1.0)[:, None]
        )
    return _states(net, frames, weights)


def _riccati(net: LinearNetwork, layers: tuple[Array, ...], level: float, times: Array) -> Array:
    """Return the states of two layers with W_2ᵀW_2 − W_1W_1ᵀ = λI, turned towards the start."""
    inputs = net.widths[0]
    generator = np.block(
        [
            [-0.5 * level * np.eye(inputs), net.target.T],
            [net.target, 0.5 * level * np.eye(len(net.target))],
        ]
    )
    generator -= net.mean_decay * np.eye(len(generator))
    start = np.concatenate([layers[0].T, layers[1]])
    factors = _riccati_factors(generator, start, times)
    turned = [Z @ scipy.linalg.orthogonal_procrustes(Z, start)[0] for Z in factors]
    return np.stack([net.pack((Q[:inputs].T, Q[inputs:])) for Q in turned])


def _riccati_factors(generator: Array, start: Array, times: Array) -> Array:
    """Return Z(t) (time, row, column) with Z Zᵀ = QQᵀ(t), Q(0) = ``start``, at ascending times."""
    rates, basis = np.linalg.eigh(generator)
    longest = _LONGEST / max(float(np.abs(rates).max()), np.finfo(float).tiny)
    factor, reached, factors = basis.T @ start, 0.0, []
    for t in times:
        while t - reached > longest:
            factor, reached = _propagate(rates, factor, longest), reached + longest
        factors.append(basis @ _propagate(rates, factor, t - reached))
    return np.stack(factors)


def _propagate(rates: Array, factor: Array, t: float) -> Array:
    """Return Z(t) in the eigenbasis of the generator, from the factor G at time 0.

    Z = e^{μt} G N^{−1/2}, N = I + Gᵀ φ G, φ = expm1(2μt)/(2μ). The rows I and φ^{1/2} G, all scaled
    by e^{−μ_max t}, have a QR factorization with triangle N^{1/2}. Where a row of φ^{1/2} G is
    large, the row of Z is that of Q rescaled; where it is small, it is found from the triangle,
    relative to its own size.
    """
    if t == 0.0:
        return factor
    columns, top = factor.shape[1], max(float(rates.max()), 0.0)
    safe = np.where(rates == 0.0, 1.0, np.abs(rates))
    integral = np.where(rates == 0.0, t, -np.expm1(-2.0 * safe * t) / (2.0 * safe))
    weight = np.sqrt(integral) * np.exp((np.maximum(rates, 0.0) - top) * t)
    rows = np.concatenate([np.exp(-top * t) * np.eye(columns), weight[:, None] * factor])
    order = np.argsort(-np.abs(rows).max(axis=1), kind="stable")
    Q, triangle, pivots = scipy.linalg.qr(rows[order], mode="economic", pivoting=True)
    places = np.argsort(order)[columns:]
    large = Q[places] * (np.exp(np.minimum(rates, 0.0) * t) / np.sqrt(integral))[:, None]
    growing = (np.exp((rates - top) * t)[:, None] * factor)[:, pivots]
    small = scipy.linalg.solve_triangular(triangle, growing.T, trans="T").T
    learnt = np.abs(rows[columns:]).max(axis=1) > np.exp(-top * t)
    image: Array = np.where(learnt[:, None], large, small)
    return image
