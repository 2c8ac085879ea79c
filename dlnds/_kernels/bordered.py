"""Steps along branches: bordered Jacobians, their factors, Newton's steps and tangents by these.

Vectors z are a state x with a parameter after it, scaled by typical sizes of both.
"""

import math

import numpy as np
from numba import types

from dlnds._kernels.dense import assign
from dlnds._kernels.jit import jit, part, sums

_vector = types.float64[::1]
_matrix = types.float64[:, ::1]
_pivots = types.int64[::1]
_given_vector = types.Array(types.float64, 1, "A", readonly=True)
_given_matrix = types.Array(types.float64, 2, "A", readonly=True)

#: ``usual_size(jacobian, slope, ratio)``
USUAL_SIZE = types.float64(_given_matrix, _given_vector, types.float64)
#: ``assemble(jacobian, slope, normal, ratio, out)``
ASSEMBLE = types.float64(_given_matrix, _given_vector, _vector, types.float64, _matrix)
#: ``factorize(matrix, factors, pivots)``
FACTORIZE = types.float64(_matrix, _matrix, _pivots)
#: ``substitute(factors, pivots, x)``
SUBSTITUTE = types.void(_matrix, _pivots, _vector)
#: ``advance(factors, pivots, force, unit, basis, normal, start, scale, z, out)``
ADVANCE = types.float64(
    *(_matrix, _pivots, _vector, types.float64, _matrix, *(5 * (_vector,))),
)
#: ``lead(factors, pivots, basis, scale, tangent, heading)``
LEAD = types.UniTuple(types.float64, 2)(_matrix, _pivots, _matrix, *(3 * (_vector,)))
#: ``course(z, heading, other, other_heading, scale, t, out, tangent)``
COURSE = types.void(*(5 * (_vector,)), types.float64, _vector, _vector)


@sums
def sum_of_squares(a):
    """Return the sum of the squares of a vector, which need not be contiguous."""
    total = 0.0
    for i in range(a.size):
        total += a[i] * a[i]
    return total


@jit
def usual_size(jacobian, slope, ratio):
    """Return the root mean square of what a unit of x, and one of p, changes; 1 if it is 0."""
    square, n = ratio * ratio * sum_of_squares(slope), slope.size
    for i in range(n):
        square += sum_of_squares(jacobian[i])
    return math.sqrt(square / n) if 0.0 < square < np.inf else 1.0


@jit
def assemble(jacobian, slope, normal, ratio, out):
    """Compute [J / w, r ∂F/∂p / w; normal], and return w, the usual size of the divided."""
    n, weight = slope.size, usual_size(jacobian, slope, ratio)
    for i in range(n):
        for j in range(n):
            out[i, j] = jacobian[i, j] / weight
        out[i, n] = slope[i] * (ratio / weight)
    for j in range(n + 1):
        out[n, j] = normal[j]
    return weight


@part
def clear(factors, k):
    """Clear row k beyond the diagonal by multiples of the column at it."""
    n, inverse = factors.shape[0], 1.0 / factors[k, k]
    for j in range(k + 1, n):
        factors[k, j] *= inverse
    for i in range(k + 1, n):
        multiple = factors[i, k]
        if multiple != 0.0:
            for j in range(k + 1, n):
                factors[i, j] -= multiple * factors[k, j]


@jit
def factorize(matrix, factors, pivots):
    """Compute triangular factors of the transpose; return the least pivot in terms of the largest.

    Those of LAPACK, of which we see the transpose. Not a number if the matrix is not finite.
    """
    assign(matrix, factors)
    least, largest, n = np.inf, 0.0, matrix.shape[0]
    for k in range(n):
        best = k
        for j in range(k + 1, n):
            if abs(factors[k, j]) > abs(factors[k, best]):
                best = j
        pivots[k] = best
        if best != k:
            for i in range(n):
                factors[i, k], factors[i, best] = factors[i, best], factors[i, k]
        size = abs(factors[k, k])
        if not size < np.inf:
            return np.nan
        least, largest = min(least, size), max(largest, size)
        if size > 0.0:
            clear(factors, k)
    return least / largest if largest > 0.0 else 0.0


@sums
def product(row, first, last, x):
    """Return the product of a part of a row and a vector."""
    total = 0.0
    for j in range(first, last):
        total += row[j] * x[j]
    return total


@jit
def substitute(factors, pivots, x):
    """Overwrite a right side by the solution; without pivots by its product with an inverse."""
    n = x.size
    if not pivots.size:
        right = np.empty(n)
        for i in range(n):
            right[i] = x[i]
        for i in range(n):
            x[i] = product(factors[i], 0, n, right)
        return
    for i in range(n):
        x[i] = (x[i] - product(factors[i], 0, i, x)) / factors[i, i]
    for i in range(n - 2, -1, -1):
        x[i] -= product(factors[i], i + 1, n, x)
    for k in range(n - 1, -1, -1):
        x[k], x[pivots[k]] = x[pivots[k]], x[k]


@part
def without_orbit(basis, v):
    """Take out of a vector, but its last component, what is along the columns of a basis."""
    for j in range(basis.shape[1]):
        along = 0.0
        for i in range(basis.shape[0]):
            along += basis[i, j] * v[i]
        for i in range(basis.shape[0]):
            v[i] -= along * basis[i, j]


@jit
def advance(factors, pivots, force, unit, basis, normal, start, scale, z, out):
    """Make a step of Newton's method, and return its length.

    It ends orthogonal to the normal and the orbit as seen from the start, ``force`` is F, and the
    unit what it is divided by.
    """
    n, size, square = force.size, 0.0, 0.0
    lack, step = np.empty(n + 1), np.empty(n + 1)
    step[n] = 0.0
    for k in range(n + 1):
        lack[k] = (z[k] - start[k]) / scale[k]
        step[n] += normal[k] * lack[k]
        size += (start[k] / scale[k]) ** 2
    for i in range(n):
        step[i] = force[i] / unit
    for j in range(basis.shape[1]):
        along = 0.0
        for i in range(n):
            along += basis[i, j] * lack[i]
        for i in range(n):
            step[i] -= along * basis[i, j]
    substitute(factors, pivots, step)
    for k in range(n + 1):
        square += step[k] ** 2
        out[k] = z[k] - scale[k] * step[k]
    return math.sqrt(square) / (1.0 + math.sqrt(size))


@jit
def lead(factors, pivots, basis, scale, tangent, heading):
    """Compute the unit tangent across the orbit, and the same in scaled coordinates.

    Return the lengths of both before, infinite or not a number where there is no tangent.
    """
    n = scale.size - 1
    for k in range(n):
        heading[k] = 0.0
    heading[n] = 1.0
    substitute(factors, pivots, heading)
    without_orbit(basis, heading)
    stretch = math.sqrt(sum_of_squares(heading))
    for k in range(n + 1):
        tangent[k] = heading[k] * scale[k]
    length = math.sqrt(sum_of_squares(tangent))
    for k in range(n + 1):
        tangent[k] /= length
        heading[k] = tangent[k] / scale[k]
    scaled = math.sqrt(sum_of_squares(heading))
    for k in range(n + 1):
        heading[k] /= scaled
    return length, stretch


@jit
def course(z, heading, other, other_heading, scale, t, out, tangent):
    """Compute a point, and the unit tangent, of the cubic curve through two along their headings.

    The tangent is one in scaled coordinates.
    """
    n, chord = z.size, np.empty(z.size)
    for k in range(n):
        chord[k] = (other[k] - z[k]) / scale[k]
    length = math.sqrt(sum_of_squares(chord))
    for k in range(n):
        one, two = length * heading[k], length * other_heading[k]
        way = t * t * (3.0 - 2.0 * t) * chord[k] + t * (1.0 - t) * ((1.0 - t) * one - t * two)
        out[k] = z[k] + scale[k] * way
        turn = (1.0 - t) * (1.0 - 3.0 * t) * one + t * (3.0 * t - 2.0) * two
        tangent[k] = 6.0 * t * (1.0 - t) * chord[k] + turn
    length = math.sqrt(sum_of_squares(tangent))
    for k in range(n):
        tangent[k] /= length
