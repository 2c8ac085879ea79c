"""Steps along branches: bordered Jacobians, their factors, Newton's steps by these.

Vectors z are a state x with a parameter after it, scaled by typical sizes of both.
"""

import math

import numpy as np
from numba import types

from dlnds._kernels.jit import jit, part, sums

_vector = types.float64[::1]
_matrix = types.float64[:, ::1]
_pivots = types.int64[::1]
_given_vector = types.Array(types.float64, 1, "A", readonly=True)
_given_matrix = types.Array(types.float64, 2, "A", readonly=True)

#: ``assemble(jacobian, slope, normal, pin, ratio, matrix, factors, pivots)``
ASSEMBLE = types.UniTuple(types.float64, 4)(
    *(_given_matrix, _given_vector, _vector, _matrix, types.float64, _matrix, _matrix, _pivots),
)
#: ``advance(factors, pivots, force, unit, basis, normal, start, scale, z, out)``
ADVANCE = types.float64(
    *(_matrix, _pivots, _vector, types.float64, _matrix, *(5 * (_vector,))),
)
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
def assemble(jacobian, slope, normal, pin, ratio, matrix, factors, pivots):
    """Compute [J / w − P, r ∂F/∂p / w; normal], and its factors if there is room for them.

    Return w, the root mean square of what a unit of x, and one of p, changes, or 1 if that is 0;
    the least pivot in terms of the largest; the determinant's sign, and the logarithm of its size.
    Without a pin P is 0.
    """
    n, square = slope.size, ratio * ratio * sum_of_squares(slope)
    for i in range(n):
        square += sum_of_squares(jacobian[i])
    weight = math.sqrt(square / n) if 0.0 < square < np.inf else 1.0
    for i in range(n):
        for j in range(n):
            matrix[i, j] = jacobian[i, j] / weight
        for j in range(pin.shape[0]):
            matrix[i, j] -= pin[i, j]
        matrix[i, n] = slope[i] * (ratio / weight)
    for j in range(n + 1):
        matrix[n, j] = normal[j]
    for i in range(factors.shape[0]):
        for j in range(n + 1):
            factors[i, j] = matrix[i, j]
    least, sign, volume = factorize(factors, pivots)
    return weight, least, sign, volume


@part
def factorize(factors, pivots):
    """Overwrite a matrix by triangular factors of its transpose, those of LAPACK.

    Return the least pivot in terms of the largest, not a number if the matrix is not finite, and
    the determinant's sign, and the logarithm of its size.
    """
    least, largest, sign, volume, n = np.inf, 0.0, 1.0, 0.0, factors.shape[0]
    for k in range(n):
        best = k
        for j in range(k + 1, n):
            if abs(factors[k, j]) > abs(factors[k, best]):
                best = j
        pivots[k] = best
        if best != k:
            sign = -sign
            for i in range(n):
                factors[i, k], factors[i, best] = factors[i, best], factors[i, k]
        size = abs(factors[k, k])
        if not 0.0 < size < np.inf:
            return (0.0, 0.0, -np.inf) if size == 0.0 else (np.nan, 0.0, 0.0)
        least, largest, volume = min(least, size), max(largest, size), volume + math.log(size)
        if factors[k, k] < 0.0:
            sign = -sign
        inverse = 1.0 / factors[k, k]
        for j in range(k + 1, n):
            factors[k, j] *= inverse
        for i in range(k + 1, n):
            multiple = factors[i, k]
            if multiple != 0.0:
                for j in range(k + 1, n):
                    factors[i, j] -= multiple * factors[k, j]
    return least / largest if n else 0.0, sign, volume


@sums
def product(matrix, i, first, last, x):
    """Return the product of a part of a row of a matrix and a vector."""
    total = 0.0
    for j in range(first, last):
        total += matrix[i, j] * x[j]
    return total


@part
def substitute(factors, pivots, x):
    """Overwrite a right side by the solution; without pivots by its product with an inverse."""
    n = x.size
    if not pivots.size:
        right = np.empty(n)
        for i in range(n):
            right[i] = x[i]
        for i in range(n):
            x[i] = product(factors, i, 0, n, right)
        return
    for i in range(n):
        x[i] = (x[i] - product(factors, i, 0, i, x)) / factors[i, i]
    for i in range(n - 2, -1, -1):
        x[i] -= product(factors, i, i + 1, n, x)
    for k in range(n - 1, -1, -1):
        x[k], x[pivots[k]] = x[pivots[k]], x[k]


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
