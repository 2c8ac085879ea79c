"""Runs on data that they were not trained on, and when it would have been best to stop them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_array, check_finite, check_number, known_options
from dlnds.runs.observe import states_of
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.product import ProductFlow, check_maps, check_packed
from dlnds.theory import generalization, tolerances


@known_options
def evaluate(
    net: Any, run: xr.Dataset, X: ArrayLike | xr.DataArray, Y: ArrayLike | xr.DataArray
) -> xr.Dataset:
    """Return the loss of a run on other data, such as a test set.

    Parameters
    ----------
    net
        The network that was trained, of any kind.
    run
        Its run, or a stack of runs, with ``state``.
    X, Y
        Inputs (features × samples) in the original coordinates, also of a network whose inputs are
        whitened, and targets (outputs × samples) or labels, as the network was made from. Of
        `losses.completion` X = [rows, columns], integers, and Y their values; of
        `losses.measurements` the matrices and what they measure.

    Returns
    -------
    xarray.Dataset
        Schema ``evaluation``, dims and times of the run: ``loss``, all of it, divided by the number
        of samples if that on which the network was trained is, and ``train_loss``, that of the run
        with its irreducible part (left out where this is not known). ``best_time`` (or
        ``best_iteration``) and ``lowest_loss`` are those of the row with the smallest loss.

    Raises
    ------
    ValueError, TypeError
        If the run is of another network or has no states, or data do not fit.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> X = np.random.default_rng(0).normal(size=(3, 80))
    >>> Y = X[:2] + 0.5 * np.random.default_rng(1).normal(size=(2, 80))
    >>> net = dl.LinearNetwork.from_data(X[:, :20], Y[:, :20], hidden=(4,))
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0))
    >>> test = dl.evaluate(net, run, X[:, 20:], Y[:, 20:])
    >>> bool(test.loss[-1] > test.train_loss[-1]), bool(test.best_time < run.time[-1])
    (True, True)
    """
    check_packed(net, "net")
    known, dims, states = states_of(net, run)
    found = {"loss": (dims, _of_rows(states, lambda rows: net.loss_on(rows, X, Y)))}
    rest = getattr(net, "irreducible_loss", 0.0)
    train = "data_loss" if "data_loss" in known else "loss"  # without weight decay
    known = schema.read("run", known, "run", {}, optional={train: dims}, partial=(train,))
    if train in known and np.isfinite(rest):
        found["train_loss"] = (dims, known[train].transpose(*dims).values + rest)
    return _with_best(net, known, dims, found, "loss")


@known_options
def generalization_error(
    net: LinearNetwork | ProductFlow,
    run: xr.Dataset,
    teacher: ArrayLike,
    *,
    covariance: ArrayLike | None = None,
    noise: float = 0.0,
) -> xr.Dataset:
    """Return the exact test error of a run for a linear teacher: over all inputs, no samples.

    Parameters
    ----------
    net
        The network that was trained, or its `ProductFlow`.
    run
        Its run, or a stack of runs, with ``state``.
    teacher
        W̄ (d_h × features), in the original inputs.
    covariance
        C̄ (features × features) of the inputs of the test; None is the identity.
    noise
        τ, the standard deviation of noise in each output of the test.

    Returns
    -------
    xarray.Dataset
        Schema ``evaluation``, dims and times of the run: ``generalization_error``, the expected
        ½‖y − W x‖²; ``best_time`` (or ``best_iteration``) and ``lowest_error`` of the best row.

    Raises
    ------
    ValueError, TypeError
        If the run is of another network or has no states, or shapes do not fit.

    Notes
    -----
    E_g = ½ ‖(W − W̄) C̄^{1/2}‖_F² + ½ d_h τ².

    References
    ----------
    AS20 (Advani, Saxe & Sompolinsky, arXiv:1710.03667), LG19 (Lampinen & Ganguli, arXiv:1809.10374)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0))
    >>> error = dl.generalization_error(net, run, np.diag([2.0, 0.0]), noise=0.1)
    >>> round(float(error.generalization_error[-1]), 6)
    0.51
    """
    check_maps(net, with_decay=True)
    known, dims, states = states_of(net, run)
    goal = check_array("teacher", teacher, ndim=2)
    widths = net.square_factors.widths
    needed = net.original_maps(np.zeros((widths[-1], widths[0]))).shape
    if goal.shape != needed:
        raise ValueError(f"teacher: needs the shape {needed}, got {goal.shape}")
    spread = None if covariance is None else _covariance(covariance, goal.shape[1])
    tau = check_number("noise", noise, minimum=0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        check_finite("teacher", generalization.error(0.0 * goal, goal, spread, tau))

    def error(rows: Array) -> Array:
        return generalization.error(net.original_maps(net.product(rows)), goal, spread, tau)

    found = {"generalization_error": (dims, _of_rows(states, error))}
    best = _with_best(net, known, dims, found, "generalization_error")
    return best.assign_attrs(made_by="generalization_error")


def _covariance(value: ArrayLike, size: int) -> Array:
    """Return a symmetric positive semidefinite matrix."""
    C = check_array("covariance", value, ndim=2, shape=(size, size))
    values = np.linalg.eigvalsh(C)
    noise = tolerances.rounding(size) * float(np.abs(values).max())
    if np.abs(C - C.T).max() > noise or values[0] < -noise:
        raise ValueError("covariance: needs a symmetric positive semidefinite matrix")
    return C


def _of_rows(states: Array, function: Callable[[Array], Array]) -> Array:
    """Return one number for each state, NaN where a run did not come."""
    there = np.isfinite(states).all(axis=-1)
    values = np.full(there.shape, np.nan)
    values[there] = function(states[there])
    return values


def _with_best(
    net: Any, run: xr.Dataset, dims: tuple[str, ...], found: dict[str, Any], name: str
) -> xr.Dataset:
    """Return what was found of the rows of a run, and which row is best."""
    clock = "time" if "time" in run.variables else "iteration"
    values, times = found[name][1], run[clock]
    lowest = "lowest_" + name.rpartition("_")[2]
    rows = np.nanargmin(values, axis=-1)
    best = np.take_along_axis(values, rows[..., None], axis=-1)[..., 0]
    spread = np.broadcast_to(times.transpose(*(d for d in dims if d in times.dims)), values.shape)
    when = np.take_along_axis(spread, rows[..., None], axis=-1)[..., 0]
    found |= {f"best_{clock}": (dims[:-1], when), lowest: (dims[:-1], best)}
    kept = {key: run[key] for key in ("time", "iteration", "sample") if key in run.variables}
    coords = {key: value.variable for key, value in kept.items()}
    return schema.finish(xr.Dataset(found, coords), "evaluation", net.attributes())


@known_options
def early_stopping(
    net: LinearNetwork, teacher: ArrayLike, strength: ArrayLike = 1e-3
) -> xr.Dataset:
    """Return when aligned runs are best stopped if a teacher made the data, in closed form.

    Parameters
    ----------
    net
        A whitened network; its target, such as a teacher and noise, is what is trained on.
    teacher
        W̄ (d_h × features) in the original inputs (of those that the data have).
    strength
        p_0 = u_jᵀ W v_j of the modes at the start, of layers with the singular values p_0^{1/h}:
        one number, or one for each of min(d_0, …, d_h) modes.

    Returns
    -------
    xarray.Dataset
        Schema ``early_stopping``, dim ``mode``: ``optimal_strength`` p* = u_jᵀ W̄ v_j;
        ``stopping_time`` when the mode has it, 0 if it begins beyond it, infinity if it never does
        (p* ≥ σ: no early stop); and of all modes together ``best_time``, with ``lowest_error``
        then, ``error_at_start`` and ``error_at_end``. Errors are E_g for test inputs with the
        covariance of those trained on, without noise of the test.

    Raises
    ------
    ValueError, TypeError
        If the network is not whitened, or shapes do not fit.

    Notes
    -----
    Aligned runs keep the singular vectors û_j, v̂_j of the target, so that
    E_g = ½‖W̄‖² + ½ Σ_j p_j² − Σ_j p_j û_jᵀ W̄ v̂_j: each mode is best at p*, which it reaches after
    [F(p*/σ) − F(p_0/σ)]/(h σ^{2−2/h}); for two layers ln[(σ/p_0 − 1) p*/(σ − p*)]/(2σ). The least
    of the sum is found among times.

    References
    ----------
    AS20 (Advani, Saxe & Sompolinsky, arXiv:1710.03667), LG19 (Lampinen & Ganguli,
    arXiv:1809.10374); SMG14 (Saxe, McClelland & Ganguli, arXiv:1312.6120) for the time law.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    >>> stop = dl.early_stopping(net, np.diag([1.5, 0.0]), strength=1e-4)
    >>> stop.optimal_strength.values.tolist(), stop.stopping_time.values.round(4).tolist()
    ([1.5, 0.0], [2.7505, 0.0])
    """
    check_network(net)
    if not net.whitened:
        raise ValueError("net: needs a whitened network, where modes do not disturb each other")
    features = net.widths[0] if net.whitening is None else len(net.whitening)
    goal = check_array("teacher", teacher, ndim=2, shape=(net.widths[-1], features))
    goal = goal if net.whitening is None else goal @ net.whitening
    with np.errstate(over="ignore"):
        check_finite("teacher", np.sum(goal**2, keepdims=True))
    left, sigma, right = (part[..., : min(net.widths)] for part in net.singular_modes)
    start = check_array("strength", strength, ndim=(0, 1))
    if start.ndim and len(start) != len(sigma):
        raise ValueError(f"strength: needs one number or {len(sigma)}, got {len(start)}")
    if start.min() < 0.0:
        raise ValueError("strength: needs numbers of at least 0")
    start = np.broadcast_to(start, sigma.shape)
    best = np.sum(left * (goal @ right), axis=0)
    times = generalization.stopping_times(start, best, sigma, net.depth)
    value = generalization.errors_of_modes(start, best, sigma, net.depth)
    rest = 0.5 * float(np.sum(goal**2) - np.sum(best**2))
    passages = generalization.passages(start, sigma, net.depth)
    when, least = generalization.best_time(value, passages)
    ends = rest + value(np.array([0.0, np.inf]))
    variables = {
        "optimal_strength": ("mode", best),
        "stopping_time": ("mode", times),
        "best_time": ((), when),
        "lowest_error": ((), rest + least),
        "error_at_start": ((), ends[0]),
        "error_at_end": ((), ends[1]),
    }
    return schema.finish(xr.Dataset(variables), "early_stopping", net.attributes())
