"""Steps along a branch: solutions near predictions, with tangents and bases of the orbits.

The equation is F(x, p) = f(p, x) − decay · p x = 0. Its symmetry acts linearly: each entry of its
generators is plus or minus one component of x. ``action`` (2 × entry) tells where in the matrix
(generator × component) and which, from 1 on, with a sign.

What is not clearly regular is left to the caller, who has slower methods.
"""

import numpy as np
from numba import types

from dlnds._kernels.dense import add_multiple, dot, eliminate, fill, pivot, substitute
from dlnds._kernels.jit import FIELD, JACOBIAN, PARAMS, jit, part

#: What `follow` tells of each point.
FOUND = 7
TAKEN, NEXT_STEP, RANK, ITERATIONS, CONTRACTION_RATE, RESIDUAL, MULTIPLIER = range(FOUND)
#: Norms of generators across others, in terms of the largest, that are nonzero and zero.
INDEPENDENT, DEPENDENT = 1e-6, 1e-12
#: Pivots below this fraction of the largest are not clearly nonzero.
SMALLEST_PIVOT = 1e-7
#: Newton steps at most, and how many times smaller one has to be for its factors to serve again.
MOST_ITERATIONS, CONTRACTION = 12, 0.1
#: How many times smaller the second one is as a rule, and the cosine of two tangents at least.
USUAL_CONTRACTION, USUAL_COSINE = 0.01, 0.99


@part
def orbit_basis(x, action, unit, rows):
    """Write an orthonormal basis of the generators at x; return its length, −1 if it is unclear.

    By Gram's and Schmidt's process, the largest first, each of them twice.
    """
    n = x.size
    fill(0.0, rows)
    for entry in range(action.shape[1]):
        place, label = action[0, entry], action[1, entry]
        rows[place // n, place % n] = x[label - 1] if label > 0 else -x[-label - 1]
    largest = unit
    for k in range(rows.shape[0]):
        best, size = k, -1.0
        for i in range(k, rows.shape[0]):
            square = dot(rows[i], rows[i])
            if square > size:
                best, size = i, square
        size = np.sqrt(size)
        largest = max(largest, size)
        if size <= DEPENDENT * largest:
            return k
        if size < INDEPENDENT * largest:
            return -1
        for j in range(n):
            rows[k, j], rows[best, j] = rows[best, j], rows[k, j]
        for i in range(k):
            add_multiple(-dot(rows[i], rows[k]), rows[i], rows[k])
        size = np.sqrt(dot(rows[k], rows[k]))
        for j in range(n):
            rows[k, j] /= size
        for i in range(k + 1, rows.shape[0]):
            add_multiple(-dot(rows[k], rows[i]), rows[k], rows[i])
    return rows.shape[0]


@part
def move_to(equation, point, state):
    """Copy x out of a point (x, p) and return p and decay · p."""
    for i in range(state.size):
        state[i] = point[i]
    return point[state.size], equation[1] * point[state.size]


@part
def evaluate(equation, point, state, out):
    """Write F at a point."""
    params, _, _, field, _ = equation
    p, decay = move_to(equation, point, state)
    field(p, state, params, out)
    add_multiple(-decay, state, out)


@part
def evaluate_matrix(equation, point, state, out):
    """Write ∂F/∂x at a point and return the root mean square of its singular values."""
    params, _, _, _, jacobian = equation
    p, decay = move_to(equation, point, state)
    jacobian(p, state, params, out)
    total = 0.0
    for i in range(state.size):
        out[i, i] -= decay
        total += dot(out[i], out[i])
    return np.sqrt(total / state.size) if total > 0.0 else 1.0


@part
def factorize(J, rows, rank, weight, point, decay, tangent, M, pivots):
    """Write the factors of the bordered matrix, pinned along the orbit; tell if it is regular."""
    n = J.shape[0]
    for i in range(n):
        for j in range(n):
            M[i, j] = J[i, j]
        M[i, n] = -decay * point[i]
        M[n, i] = tangent[i]
    M[n, n] = tangent[n]
    for k in range(rank):
        for i in range(n):
            if rows[k, i] != 0.0:
                add_multiple(-weight * rows[k, i], rows[k], M[i, :n])
    largest = 0.0
    for k in range(n + 1):
        pivot(M, pivots, k)
        largest = max(largest, abs(M[k, k]))
        if not abs(M[k, k]) > SMALLEST_PIVOT * largest:
            return False
        eliminate(M, k)
    return np.isfinite(largest)


@part
def displaced(rows, rank, weight, tangent, point, start, across, right):
    """Add what is asked of a point in a plane: no way from the start along orbit and tangent."""
    n, largest = across.size, 0.0
    right[n] = tangent[n] * (point[n] - start[n])
    for i in range(n):
        across[i] = point[i] - start[i]
        right[n] += tangent[i] * across[i]
    for k in range(rank):
        multiplier = weight * dot(rows[k], across)
        largest = max(largest, abs(multiplier))
        add_multiple(-multiplier, rows[k], right[:n])
    return largest


@part
def solve_near(equation, rtol, unit, point, tangent, rows, J, found):
    """Move a prediction (x, p) to the solution in the plane across the tangent and the orbit.

    Write the new unit tangent, the basis of the orbit into the first ``rows``, ∂F/∂x, and what is
    `FOUND`; tell whether all of it is clear.
    """
    n = J.shape[0]
    state, force, right = np.empty(n), np.empty(n), np.empty(n + 1)
    M, pivots, start = np.empty((n + 1, n + 1)), np.empty(n + 1, np.int64), point.copy()
    last, size, iteration, rank, weight = np.inf, np.inf, 0, 0, 1.0
    moved, converged, outdated, fresh = True, False, True, True
    while True:
        if moved:
            rank, moved = orbit_basis(point[:n], equation[2], unit, rows), False
        if outdated:
            size = evaluate_matrix(equation, point, state, J)
            weight, outdated = size if iteration == 0 else weight, False
            regular = rank >= 0
            regular = regular and factorize(
                J, rows, rank, weight, point, equation[1], tangent, M, pivots
            )
            if not regular:
                return False
        evaluate(equation, point, state, right[:n])
        if converged:
            break
        iteration += 1
        found[MULTIPLIER] = displaced(rows, rank, weight, tangent, point, start, force, right)
        substitute(M, pivots, right)
        add_multiple(-1.0, right, point)
        size = np.sqrt(dot(right, right)) / (1.0 + np.sqrt(dot(point, point)))
        if iteration == 1:
            found[CONTRACTION_RATE] = 0.0
        elif iteration == 2:
            found[CONTRACTION_RATE] = size / last
        converged = size <= rtol or (fresh and size <= 1e3 * rtol and size > 0.5 * last)
        fresh = iteration > 1 and size > CONTRACTION * last
        moved, outdated = converged, converged or fresh
        stuck = iteration == MOST_ITERATIONS or (iteration > 2 and size > 0.9 * last)
        if not np.isfinite(size) or (stuck and not converged):
            return False
        last = size
    found[RANK], found[ITERATIONS] = rank, iteration
    found[RESIDUAL] = np.sqrt(dot(right[:n], right[:n]))
    write_tangent(M, pivots, rows, rank, tangent)
    return True


@part
def write_tangent(M, pivots, rows, rank, tangent):
    """Write the unit tangent that the factors at a solution give, in the direction of theirs."""
    n = tangent.size - 1
    for i in range(n):
        tangent[i] = 0.0
    tangent[n] = 1.0
    substitute(M, pivots, tangent)
    for k in range(rank):
        add_multiple(-dot(rows[k], tangent[:n]), rows[k], tangent[:n])
    size = np.sqrt(dot(tangent, tangent))
    for i in range(n + 1):
        tangent[i] /= size


@jit
def next_step(step, contraction, cosine, smallest, largest):
    """Return the step to try next, from how much smaller the second correction of this one was.

    The first one is of the order of the step's square, and so is that ratio. The turn of the
    tangent, too, holds the step back.
    """
    ease = 2.0 if contraction <= 0.0 else np.sqrt(USUAL_CONTRACTION / contraction)
    ease = min(max(ease, 0.5), 0.8 if cosine < USUAL_COSINE else 2.0)
    return min(max(ease * step, smallest), largest)


@jit
def follow(
    params, decay, action, field, jacobian, limits, step, points, tangents, bases, jacobians, found
):
    """Write the points that follow the first one, with all that `solve_near` writes of them.

    Return how many there are: fewer than there is space for where a step is not clear, turns too
    much, or would lead beyond the bounds of p. A step of 0 corrects the first point.
    """
    n, equation = jacobians.shape[1], (params, decay, action, field, jacobian)
    rtol, unit, low, high, smallest, largest, least_cosine = limits
    for k in range(1, points.shape[0]):
        ahead = points[k - 1, n] + step * tangents[k - 1, n]
        if not low <= ahead <= high:
            return k - 1
        for i in range(n + 1):
            points[k, i] = points[k - 1, i] + step * tangents[k - 1, i]
            tangents[k, i] = tangents[k - 1, i]
        if not solve_near(
            equation,
            rtol,
            unit,
            points[k],
            tangents[k],
            bases[k - 1],
            jacobians[k - 1],
            found[k - 1],
        ):
            return k - 1
        cosine = dot(tangents[k], tangents[k - 1])
        if not cosine >= least_cosine:
            return k - 1
        found[k - 1, TAKEN] = step
        step = next_step(step, found[k - 1, CONTRACTION_RATE], cosine, smallest, largest)
        found[k - 1, NEXT_STEP] = step
    return points.shape[0] - 1


_MATRIX, _STACK = types.float64[:, ::1], types.float64[:, :, ::1]
FOLLOW = types.int64(
    PARAMS,
    types.float64,
    types.int64[:, ::1],
    types.FunctionType(FIELD),
    types.FunctionType(JACOBIAN),
    types.UniTuple(types.float64, 7),
    types.float64,
    *(_MATRIX, _MATRIX, _STACK, _STACK, _MATRIX),
)
