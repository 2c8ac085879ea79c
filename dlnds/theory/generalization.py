"""Errors on data that are not trained on by a noisy teacher, and when to stop (AS20, LG19)."""

from collections.abc import Callable

import numpy as np
import scipy.optimize
import scipy.special

from dlnds.arrays import Array
from dlnds.theory.laws import mode_strength, passage_time
from dlnds.theory.observables import inner

#: Grid of logarithms of odds on which errors are looked at, and the part by which the least one
#: has to be less than that in the end.
_ODDS, _PARTS, _WORTH = 30.0, 121, 1e-9
#: Of many modes so many times are enough.
_MOST = 4000


def error(maps: Array, teacher: Array, covariance: Array | None, noise: float) -> Array:
    """Return E_g = ½ tr (W − W̄) C̄ (W − W̄)ᵀ + ½ d_h τ² of maps W (…, d_h, d_0)."""
    off = maps - teacher
    weighted = off if covariance is None else off @ covariance
    return 0.5 * inner(off, weighted) + 0.5 * len(teacher) * noise**2


def stopping_times(starts: Array, goals: Array, sigma: Array, depth: int) -> Array:
    """Return when modes that go from p_0 to σ pass p*, by the time law of a mode.

    0 where they begin at p* or go away from it, infinity where they do not come to it.
    """
    times = np.full(len(sigma), np.inf)
    for j, (start, goal, value) in enumerate(zip(starts, goals, sigma, strict=True)):
        if min(start, value) < goal < max(start, value):
            times[j] = passage_time(start, goal, value, depth)
        elif goal == start or (goal < start) == (start < value):  # it goes away from there
            times[j] = 0.0
    return times


def errors_of_modes(
    starts: Array, goals: Array, sigma: Array, depth: int
) -> Callable[[Array], Array]:
    """Return ½ Σ_j (p_j(t) − p*_j)² as a function of times."""

    def value(times: Array) -> Array:
        finite = np.minimum(times, np.finfo(float).max)
        modes = zip(starts, goals, sigma, strict=True)
        parts = [(_strength(p, s, depth, finite) - goal) ** 2 for p, goal, s in modes]
        return np.asarray(0.5 * np.sum(parts, axis=0))

    return value


def _strength(start: float, sigma: float, depth: int, times: Array) -> Array:
    if depth == 1:
        return np.asarray(sigma + (start - sigma) * np.exp(-times))
    return np.asarray(mode_strength(start, sigma, depth, times))


def passages(starts: Array, sigma: Array, depth: int) -> Array:
    """Return times between which no mode changes much, ascending from 0 to infinity.

    Those at which modes have gone parts of the way from p_0 to σ, on an even grid of their odds.
    """
    parts = scipy.special.expit(np.linspace(-_ODDS, _ODDS, _PARTS))
    found = [np.array([0.0, np.inf])]
    for start, value in zip(starts, sigma, strict=True):
        between = start + (value - start) * parts
        same = np.full(len(between), start), np.full(len(between), value)
        found.append(stopping_times(same[0], between, same[1], depth))
    times = np.unique(np.concatenate(found))
    return np.append(times[: -1 : 1 + len(times) // _MOST], np.inf)


def best_time(value: Callable[[Array], Array], times: Array) -> tuple[float, float]:
    """Return when an error is least, and how large it is then; infinity if it is at the end.

    ``times`` are those of `passages`, between which the error has one least value at most.
    """
    values = value(times)
    k = int(values.argmin())
    if values[k] >= (1.0 - _WORTH) * values[-1]:  # not worth stopping
        return float(times[-1]), float(values[-1])
    inner = times[:-1]
    bounds = inner[max(k - 1, 0)], inner[min(k + 1, len(inner) - 1)]
    if not bounds[0] < bounds[1]:
        return float(times[k]), float(values[k])
    found = scipy.optimize.minimize_scalar(
        lambda t: float(value(np.array([t]))[0]),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-12 * bounds[1]},
    )
    if found.fun < values[k]:
        return float(found.x), float(found.fun)
    return float(times[k]), float(values[k])
