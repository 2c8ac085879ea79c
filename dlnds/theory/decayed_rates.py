"""Lower bounds on rates under weight decay: a Polyak–Łojasiewicz inequality near a minimum.

Within a distance ρ of the orbit M of a minimum, let x* be its nearest point to x, d = x − x* and
f(s) = L(x* + s d). d is normal to M, so that f'(0) = 0, f''(0) ≥ μ ‖d‖² with the least curvature μ
across M, and f''(s) ≥ (μ − K ‖d‖) ‖d‖² with a bound K on third derivatives. Then
L − L_min = f(1) − f(0) ≤ f'(1)²/(2 min f'') ≤ ‖∇L‖²/(2 (μ − K ρ)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlnds.arrays import Array
from dlnds.theory import penalized, tolerances
from dlnds.theory.moments import Problem
from dlnds.theory.rates import kept

#: Sweeps that turn hidden units to where the orbit is nearest: any turn is a point of it.
_SWEEPS = 8


class Orbit(NamedTuple):
    """The global minima U_i diag(sizes) U_{i−1}ᵀ of all layers, with free hidden frames U_i.

    ``curvature`` is the least one across them, ``rest`` the largest singular value of Σ − W.
    """

    left: Array
    sizes: Array
    right: Array
    depth: int
    curvature: float
    rest: float


def least_orbit(problem: Problem, decay: float) -> Orbit | None:
    """Return the minima of least loss; None if they have zeros of the Hessian beside turns."""
    left, sigma, right = problem.modes
    point = penalized.least_point(problem, decay)
    eigenvalues = penalized.spectrum(problem, point, decay).eigenvalues
    if not eigenvalues.min() > tolerances.EXACT * eigenvalues.max():
        return None
    rests = sigma.copy()
    rests[point.modes] -= point.sizes**problem.depth
    frames = left[:, point.modes], right[:, point.modes]
    curvature, rest = float(eigenvalues.min()), float(rests.max(initial=0.0))
    return Orbit(frames[0], point.sizes, frames[1], problem.depth, curvature, rest)


def distances(orbit: Orbit, layers: Sequence[Array]) -> Array:
    """Return how far layers (…, row, column) are from a point of the orbit that is near.

    The hidden frames are those of the products with it of the layers on both sides, in turn.
    """
    h, stack = orbit.depth, layers[0].shape[:-2]
    frames = [np.broadcast_to(orbit.right, (*stack, *orbit.right.shape))]
    for w in layers[:-1]:
        frames.append(_polar(w @ (frames[-1] * orbit.sizes)))
    frames.append(np.broadcast_to(orbit.left, (*stack, *orbit.left.shape)))
    for _ in range(_SWEEPS):
        for i in range(1, h):
            before = layers[i - 1] @ (frames[i - 1] * orbit.sizes)
            after = np.swapaxes(layers[i], -2, -1) @ (frames[i + 1] * orbit.sizes)
            frames[i] = _polar(before + after)
    squares = [
        np.sum((w - (U * orbit.sizes) @ np.swapaxes(V, -2, -1)) ** 2, axis=(-2, -1))
        for w, V, U in zip(layers, frames[:-1], frames[1:], strict=True)
    ]
    return np.asarray(np.sqrt(np.sum(squares, axis=0)))


def _polar(matrices: Array) -> Array:
    """Return the orthonormal columns that are nearest to those of matrices."""
    U, _, Vt = np.linalg.svd(matrices, full_matrices=False)
    return np.asarray(U @ Vt)


def rate_within(orbit: Orbit, distance: Array) -> Array:
    """Return 2 (μ − K ρ), which the rate is at least within a distance ρ of the orbit.

    f''' = 3 ⟨w', w''⟩ − ⟨Σ − w, w'''⟩ of the product w(s) of layers x* + s d. Products of q layers
    are at most (s_1 + ρ/√q)^q, sums over places of d's at most what equal ‖d_i‖ give.
    """
    h, top = orbit.depth, float(orbit.sizes.max(initial=0.0))

    def most(count: int) -> Array:
        return np.asarray((top + distance / math.sqrt(count)) ** count if count else 1.0)

    third = np.zeros_like(distance)
    if h > 1:
        third = third + 3.0 * math.sqrt(h) * (h - 1) * most(h - 1) * most(h - 2)
    if h > 2:
        rest = orbit.rest + most(h) - top**h
        third = third + rest * (h - 1) * (h - 2) / math.sqrt(h) * most(h - 3)
    return 2.0 * (orbit.curvature - third * distance)


def from_orbit(orbit: Orbit, distance: Array, excess: Array) -> Array:
    """Return the rate that rows keep for all later times, zero if none is known."""
    return kept(lambda reach: rate_within(orbit, reach), distance, excess)
