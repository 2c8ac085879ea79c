"""Several steps along a branch at once, by compiled functions."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dlnds._kernels import branches, jit
from dlnds.arrays import Array
from dlnds.continuation.residuals import Compiled


class Stride(NamedTuple):
    """A solution as compiled functions find it."""

    #: The solution (x, p), its unit tangent, the orbit's basis (component × generator), ∂F/∂x.
    point: Array
    tangent: Array
    basis: Array
    jacobian: Array
    iterations: int
    contraction: float
    residual: float
    multiplier: float
    #: The step that led there, and the one to try next.
    taken: float
    next_step: float


class Limits(NamedTuple):
    """What holds for every step: accuracy, length that components are compared with, and bounds."""

    rtol: float
    unit: float
    low: float = -np.inf
    high: float = np.inf
    smallest: float = 0.0
    largest: float = np.inf
    least_cosine: float = -1.0


def strides(
    compiled: Compiled, limits: Limits, point: Array, tangent: Array, step: float, count: int
) -> Iterator[Stride]:
    """Yield the solutions that follow a point (x, p), as many as are clearly regular.

    A step of 0 corrects the point itself.
    """
    n = len(point) - 1
    points, tangents = np.empty((2, count + 1, n + 1))
    points[0], tangents[0] = point, tangent
    bases = np.empty((count, compiled.n_generators, n))
    jacobians, found = np.empty((count, n, n)), np.zeros((count, branches.FOUND))
    follow: Any = jit.ready(branches.follow, branches.FOLLOW)
    number = follow(
        *(compiled.params, compiled.decay, compiled.action),
        jit.ready(compiled.field, jit.FIELD),
        jit.ready(compiled.jacobian, jit.JACOBIAN),
        *(tuple(map(float, limits)), step, points, tangents, bases, jacobians, found),
    )
    for k in range(number):
        row = found[k]
        yield Stride(
            *(points[k + 1], tangents[k + 1], bases[k, : int(row[branches.RANK])].T, jacobians[k]),
            *(int(row[branches.ITERATIONS]), float(row[branches.CONTRACTION_RATE])),
            *(float(row[branches.RESIDUAL]), float(row[branches.MULTIPLIER])),
            *(float(row[branches.TAKEN]), float(row[branches.NEXT_STEP])),
        )


def next_step(
    step: float, contraction: float, cosine: float, smallest: float, largest: float
) -> float:
    """Return the step to try after one, see the compiled function of this name."""
    rule: Any = branches.next_step
    return float(rule(step, contraction, cosine, smallest, largest))
