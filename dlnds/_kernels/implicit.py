"""Adaptive implicit integration: Radau IIA collocation of order 9 with the exact Jacobian.

Five stages at the right Radau points; A-, B- and L-stable, so that what has converged stays where
it is while steps grow with the plateau (Hairer & Wanner, *Solving Ordinary Differential Equations
II* (1996), sections IV.5 and IV.8). The stage equations Z = h A F(x + Z) are solved by Newton's
method with one Jacobian a step: the eigenvalues of A decouple them into one system (I − h μ J) for
each real eigenvalue and each complex pair. Small systems are inverted; large ones are solved in
Krylov spaces of products with the Jacobian, in which all shifts of one right side share a basis.

The tableau is computed from its definition; tests check it as algebra. Steps are saved by the code
of the explicit method: the collocation polynomial is written in its basis.
"""

import numpy as np
from numba import types

from dlnds._kernels.dense import copy, eliminate, magnitude, pivot, substitute
from dlnds._kernels.jit import FIELD, JACOBIAN, JVP, PARAMS, RESTORE, jit, part
from dlnds._kernels.runge_kutta import (
    ACCEPTED,
    BUFFER_FULL,
    COEFFICIENTS,
    END_REACHED,
    EVALUATIONS,
    FIRST_STAGE,
    JACOBIANS,
    LAST_STEP,
    NOT_FINITE,
    NOTHING,
    OUT_OF_STEPS,
    OUTGROWN,
    PREVIOUS,
    STATE,
    STEP,
    STEP_TOO_SMALL,
    STEPS,
    SWITCH,
    TIME,
    TRIALS,
    UNSAVED,
    ahead,
    all_finite,
    begin,
    blows_up,
    interpolate,
    move_clock,
    outgrown,
    save,
    weighted_norm,
    widen,
)

STAGES = 5
ORDER = 2 * STAGES - 1


def _nodes(count):
    """Return the right Radau points, the roots of P_s − P_{s−1} on [0, 1]."""
    difference = np.zeros(count + 1)
    difference[count - 1 :] = -1.0, 1.0
    slope = np.polynomial.legendre.legder(difference)
    roots = np.sort(np.polynomial.legendre.legroots(difference).real)
    for _ in range(3):
        value = np.polynomial.legendre.legval(roots, difference)
        roots = roots - value / np.polynomial.legendre.legval(roots, slope)
    roots[-1] = 1.0
    return 0.5 + 0.5 * roots


def _integrals(nodes):
    """Return A: the integrals from 0 to each node of the Lagrange polynomials."""
    powers = np.arange(1, len(nodes) + 1)
    vandermonde = nodes[:, None] ** (powers - 1)
    return np.linalg.solve(vandermonde.T, (nodes[:, None] ** powers / powers).T).T


def _nested(nodes):
    """Return the matrix from stage values to the coefficients of `runge_kutta.interpolate`."""
    columns, factor = [], np.ones_like(nodes)
    for k in range(len(nodes)):
        factor = factor * (nodes if k % 2 == 0 else 1.0 - nodes)
        columns.append(factor)
    return np.linalg.inv(np.stack(columns, axis=1))


NODES = _nodes(STAGES)
INTEGRALS = _integrals(NODES)
DENSE = _nested(NODES)


def _spectrum(A):
    """Return eigenvalues of A, one of each pair, real first, with both transformations."""
    values, vectors = np.linalg.eig(A)
    chosen = np.flatnonzero(values.imag > -1e-12)
    chosen = chosen[np.argsort(np.abs(values[chosen].imag))]
    weight = np.where(np.abs(values[chosen].imag) < 1e-12, 1.0, 2.0)
    return values[chosen], vectors[:, chosen] * weight, np.linalg.inv(vectors)[chosen]


#: μ, and what maps stages to decoupled unknowns (INTO) and back (the real part of OUT_OF).
SHIFTS, OUT_OF, INTO = _spectrum(INTEGRALS)
REAL_SHIFT = float(SHIFTS[0].real)
# The embedded quadrature has the weight μ_1 at the start of the step and order s: its difference
# from the solution, in terms of the stages.
_first = np.zeros(STAGES)
_first[0] = -REAL_SHIFT
EMBEDDED = np.linalg.solve(
    INTEGRALS.T, np.linalg.solve((NODES[:, None] ** np.arange(STAGES)).T, _first)
)

ITERATIONS = 10
SAFETY, SLOWEST, FASTEST = 0.9, 0.2, 8.0
#: Newton's method stops at this part of the allowed error.
SMALL_UPDATE = 1e-3
#: The embedded error is of lower order than the solution; so the tolerance it is held to is larger.
EXPONENT = (STAGES + 1) / (2.0 * STAGES)
#: Largest Krylov space, and the part of a right side that may be left unsolved.
KRYLOV, UNSOLVED = 120, 1e-3
#: Steps in a row at which an explicit method would be as long, before it takes over.
PATIENCE = 4
#: Steps of an explicit method of order 8 reach to about this over the norm of the Jacobian.
REACH = 2.0


@jit
def factorize(M, pivots):
    """Overwrite M by its triangular factors, with row interchanges; tell whether all is finite.

    A pivot that is nothing but the rounding of its row is that of a direction in which the field
    does not change; it is raised to the size of that rounding, so that the direction stays at rest.
    """
    n = M.shape[0]
    noise = np.zeros(n)
    for i in range(n):
        for j in range(n):
            noise[i] = max(noise[i], magnitude(M[i, j]))
        if not np.isfinite(noise[i]):
            return False
        noise[i] *= 1e-16 * n
    for k in range(n):
        best = pivot(M, pivots, k)
        noise[k], noise[best] = noise[best], noise[k]
        if magnitude(M[k, k]) < noise[k]:
            M[k, k] = noise[k]
        eliminate(M, k)
    return True


@part
def shifted(J, factor, M):
    """Write I − ``factor`` J."""
    for i in range(J.shape[0]):
        for j in range(J.shape[0]):
            M[i, j] = -factor * J[i, j]
        M[i, i] += 1.0


@jit
def factorize_all(J, h, factors, pivots):
    """Factorize I − h μ J for each μ; tell whether all are finite."""
    for k in range(SHIFTS.size):
        shifted(J, h * SHIFTS[k], factors[k])
        if not factorize(factors[k], pivots[k]):
            return False
    return True


@part
def krylov_basis(jvp, params, t, x, tolerance, count, basis, hessenberg):
    """Extend an orthonormal basis of the Krylov space of J in units of ``tolerance`` by one."""
    n = x.size
    direction, image = np.empty(n), np.empty(n)
    for i in range(n):
        direction[i] = basis[count, i] * tolerance[i]
    jvp(t, x, direction, params, image)
    for i in range(n):
        image[i] = image[i] / tolerance[i] if tolerance[i] > 0.0 else 0.0
    for _ in range(2):  # once more, against the loss of orthogonality
        for k in range(count + 1):
            part = 0.0
            for i in range(n):
                part += basis[k, i] * image[i]
            hessenberg[k, count] += part
            for i in range(n):
                image[i] -= part * basis[k, i]
    size = 0.0
    for i in range(n):
        size += image[i] ** 2
    size = np.sqrt(size)
    hessenberg[count + 1, count] = size
    for i in range(n):
        basis[count + 1, i] = image[i] / size if size > 0.0 else 0.0
    return size


@part
def krylov_solve(jvp, params, t, x, h, shift, right, tolerance, counters, out):
    """Solve (I − h μ J) out = right in a Krylov space; tell whether that succeeded."""
    n = x.size
    most = min(n, KRYLOV)
    start = 0.0
    for i in range(n):
        if right[i] != 0.0 and tolerance[i] > 0.0:
            start += (right[i] / tolerance[i]) ** 2
    start = np.sqrt(start)
    out[:] = 0.0
    if start == 0.0:
        return True
    if not np.isfinite(start):
        return False
    basis, hessenberg = np.empty((most + 1, n)), np.zeros((most + 1, most))
    for i in range(n):
        basis[0, i] = right[i] / tolerance[i] / start if tolerance[i] > 0.0 else 0.0
    for count in range(most):
        size = krylov_basis(jvp, params, t, x, tolerance, count, basis, hessenberg)
        counters[EVALUATIONS] += 2
        rows = count + 1
        last = rows == most or size == 0.0
        if not (last or rows % 5 == 0):
            continue
        small, pivots = np.empty((rows, rows), np.complex128), np.empty(rows, np.int64)
        y = np.zeros(rows, np.complex128)
        y[0] = start
        shifted(hessenberg[:rows, :rows].copy(), h * shift, small)
        if not factorize(small, pivots):
            return False
        substitute(small, pivots, y)
        if abs(h * shift * size * y[rows - 1]) <= UNSOLVED * start or size == 0.0 or rows == n:
            for k in range(rows):
                for i in range(n):
                    out[i] += y[k] * basis[k, i] * tolerance[i]
            return True
    return False


@jit
def solve_dense(jvp, params, t, x, h, index, right, tolerance, factors, pivots, counters):
    """Overwrite ``right`` by the solution of I − h μ J for one μ, from its factors."""
    substitute(factors[index], pivots[index], right)
    return True


@jit
def solve_free(jvp, params, t, x, h, index, right, tolerance, factors, pivots, counters):
    """Overwrite ``right`` by the solution of I − h μ J for one μ; tell whether that succeeded."""
    n = x.size
    part, solved = np.empty(n), True
    solutions = np.zeros((2, n), np.complex128)
    for half in range(2):
        for i in range(n):
            part[i] = right[i].real if half == 0 else right[i].imag
        if half == 0 or index > 0:
            solved &= krylov_solve(
                jvp, params, t, x, h, SHIFTS[index], part, tolerance, counters, solutions[half]
            )
    for i in range(n):
        right[i] = solutions[0, i] + 1j * solutions[1, i]
    return solved


@part
def stage_fields(field, params, t, x, h, Z, derivatives, counters):
    """Evaluate the field at all stages; tell whether all is finite."""
    n = x.size
    state, finite = np.empty(n), True
    for i in range(STAGES):
        for k in range(n):
            state[k] = x[k] + Z[i, k]
        field(t + NODES[i] * h, state, params, derivatives[i])
        finite &= all_finite(derivatives[i])
    counters[EVALUATIONS] += STAGES
    return finite


@part
def newton_update(
    solve, jvp, params, t, x, h, Z, derivatives, tolerance, factors, pivots, counters, update
):
    """Write the update of all stages and return its weighted size, negative if that failed."""
    n = x.size
    right = np.empty(n, np.complex128)
    residual = np.empty((STAGES, n))
    for i in range(STAGES):
        for k in range(n):
            total = 0.0
            for j in range(STAGES):
                total += INTEGRALS[i, j] * derivatives[j, k]
            residual[i, k] = h * total - Z[i, k]
    update[:] = 0.0
    for m in range(SHIFTS.size):
        for k in range(n):
            value = 0.0 + 0.0j
            for i in range(STAGES):
                value += INTO[m, i] * residual[i, k]
            right[k] = value
        if not solve(jvp, params, t, x, h, m, right, tolerance, factors, pivots, counters):
            return -1.0
        for i in range(STAGES):
            for k in range(n):
                update[i, k] += (OUT_OF[i, m] * right[k]).real
    largest = 0.0
    for i in range(STAGES):
        largest = max(largest, weighted_norm(update[i], tolerance))
    return largest


@part
def newton(
    field, solve, jvp, params, t, x, h, Z, derivatives, tolerance, factors, pivots, counters
):
    """Solve for the stages from a guess; return the iterations, negative without success."""
    update = np.empty_like(Z)
    before, rate = 0.0, 1.0
    for iteration in range(1, ITERATIONS + 1):
        if not stage_fields(field, params, t, x, h, Z, derivatives, counters):
            return -iteration
        size = newton_update(
            solve,
            jvp,
            params,
            t,
            x,
            h,
            Z,
            derivatives,
            tolerance,
            factors,
            pivots,
            counters,
            update,
        )
        if not (size >= 0.0 and np.isfinite(size)):
            return -iteration
        if iteration > 1:
            rate = size / before
            if size > SMALL_UPDATE and rate > 0.9:
                return -iteration
        Z += update
        if size <= SMALL_UPDATE or (rate < 1.0 and size * rate / (1.0 - rate) <= SMALL_UPDATE):
            return iteration
        before = size
    return -ITERATIONS


@part
def error_estimate(
    field, solve, jvp, params, t, x, h, Z, derivative, tolerance, factors, pivots, counters, again
):
    """Return the weighted size of (I − h μ J)⁻¹ (h μ f(x) + Σ e_i Z_i)."""
    n = x.size
    right = np.empty(n, np.complex128)
    slope, state = derivative.copy(), np.empty(n)
    error = np.empty(n)
    for attempt in range(2):
        for k in range(n):
            total = h * REAL_SHIFT * slope[k]
            for i in range(STAGES):
                total += EMBEDDED[i] * Z[i, k]
            right[k] = total
        if not solve(jvp, params, t, x, h, 0, right, tolerance, factors, pivots, counters):
            return np.inf
        for k in range(n):
            error[k] = right[k].real
        size = weighted_norm(error, tolerance)
        if size < 1.0 or not again or attempt == 1:
            return size
        for k in range(n):
            state[k] = x[k] + error[k]
        field(t, state, params, slope)
        counters[EVALUATIONS] += 1
    return size


@part
def predict(work, clock, h, known, Z):
    """Guess the stages from the polynomial of the last step, or as zero where there is none."""
    if not known or h > 4.0 * clock[LAST_STEP]:
        Z[:] = 0.0
        return
    x, before = work[STATE], work[PREVIOUS]
    for i in range(STAGES):
        theta = 1.0 + NODES[i] * h / clock[LAST_STEP]
        interpolate(before, work[COEFFICIENTS:FIRST_STAGE], theta, Z[i])
        for k in range(x.size):
            Z[i, k] -= x[k]


@part
def norm_of(J):
    """Return the largest absolute row sum."""
    largest = 0.0
    for i in range(J.shape[0]):
        total = 0.0
        for j in range(J.shape[1]):
            total += abs(J[i, j])
        largest = max(largest, total)
    return largest


@part
def norm_along(jvp, params, t, x, direction, counters):
    """Return an estimate of the norm of J by two products, and leave a better direction."""
    image, size = np.empty(x.size), 0.0
    for _ in range(2):
        total = 0.0
        for i in range(x.size):
            total += direction[i] ** 2
        for i in range(x.size):
            direction[i] /= np.sqrt(total)
        jvp(t, x, direction, params, image)
        counters[EVALUATIONS] += 2
        size = 0.0
        for i in range(x.size):
            size += image[i] ** 2
        size = np.sqrt(size)
        if size > 0.0:
            copy(image, direction)
    return size


@jit
def advance(
    field,
    error_scale,
    jacobian,
    jvp,
    factorize_all,
    solve,
    restore,
    params,
    reference,
    dense,
    switching,
    t_end,
    t_eval,
    rtol,
    atol,
    max_steps,
    clock,
    counters,
    work,
    grown,
    times,
    states,
):
    """Integrate like the driver of the explicit method, with the same clock, counters and work.

    ``dense`` chooses between matrices and products with the Jacobian. If ``switching``, the call
    ends with ``SWITCH`` once explicit steps would be as long.
    """
    x, n = work[STATE], work.shape[1]
    derivative, row = work[FIRST_STAGE], 0
    if counters[EVALUATIONS] == 0 and not begin(
        field, error_scale, params, t_end, rtol, atol, clock, counters, work
    ):
        return NOT_FINITE, row
    wide, wide_a = 0.1 * rtol**EXPONENT, 0.0
    if atol > 0.0:
        wide_a = atol * wide / rtol
    size = n if dense else 0
    J, factors = np.empty((size, size)), np.empty((SHIFTS.size, size, size), np.complex128)
    pivots = np.empty((SHIFTS.size, size), np.int64)
    Z, derivatives = np.zeros((STAGES, n)), np.empty((STAGES, n))
    scale, tolerance, x_new = np.empty(n), np.empty(n), np.empty(n)
    direction = np.sin(1.0 + np.arange(n))
    fresh, factored, known = False, 0.0, False
    rejected, limit, short, stiffness = False, FASTEST, 0, 0.0
    error_before, h_before, pause = 0.0, 0.0, ACCEPTED
    while True:
        row, fitted = save(clock, counters, work, t_eval, row, times, states)
        if not fitted:
            return BUFFER_FULL, row
        if pause != ACCEPTED:
            return pause, row
        remaining = ahead(t_end, clock)
        if not remaining > 0.0:
            return END_REACHED, row
        if counters[STEPS] >= max_steps:
            return OUT_OF_STEPS, row
        t = clock[TIME]
        tolerance[:] = NOTHING
        widen(error_scale, t, x, params, wide, wide_a, scale, tolerance)
        accepted, finite = False, True
        if blows_up(x, clock):
            return STEP_TOO_SMALL, row
        for _ in range(TRIALS):
            h = clock[STEP]
            if 1.01 * h >= remaining:
                h = remaining
            if not np.isfinite(t + h):
                return END_REACHED, row
            if dense and not fresh:
                jacobian(t, x, params, J)
                counters[JACOBIANS] += 1
                fresh, factored = True, 0.0
                stiffness = norm_of(J)
            if not dense and not fresh:
                stiffness = norm_along(jvp, params, t, x, direction, counters)
                fresh = True
            if dense and h != factored:
                factored = h
                if not factorize_all(J, h, factors, pivots):
                    clock[STEP] = SLOWEST * h
                    continue
            predict(work, clock, h, known and not rejected, Z)
            iterations = newton(
                field,
                solve,
                jvp,
                params,
                t,
                x,
                h,
                Z,
                derivatives,
                tolerance,
                factors,
                pivots,
                counters,
            )
            if iterations < 0:
                finite = all_finite(derivatives[STAGES - 1])
                clock[STEP] = h * (0.5 if finite else SLOWEST)
                rejected, limit = True, 1.0
                continue
            for k in range(n):
                x_new[k] = x[k] + Z[STAGES - 1, k]
            widen(error_scale, t + h, x_new, params, wide, wide_a, scale, tolerance)
            error = error_estimate(
                field, solve, jvp, params, t, x, h, Z, derivative, tolerance, factors, pivots,
                counters, rejected or not known,
            )  # fmt: skip
            finite = np.isfinite(error)
            if not finite:
                clock[STEP] = SLOWEST * h
                rejected, limit = True, 1.0
                continue
            safety = SAFETY * (2 * ITERATIONS + 1) / (2 * ITERATIONS + iterations)
            factor = FASTEST
            if error > 0.0:
                factor = safety * error ** (-1.0 / (STAGES + 1))
                if error_before > 0.0 and not rejected:  # as the errors of two steps foretell
                    trend = (error_before / error) ** (1.0 / (STAGES + 1)) * h / h_before
                    factor = min(factor, factor * trend)
            factor = min(limit, max(SLOWEST, factor))
            clock[STEP] = h * factor
            if error <= 1.0:
                accepted = True
                break
            rejected, limit = True, 1.0
        if not accepted:
            return STEP_TOO_SMALL if finite else NOT_FINITE, row
        rejected, limit, known, fresh = False, FASTEST, True, False
        error_before, h_before = max(error, 1e-2), h
        move_clock(clock, h, t_end, h == remaining)
        coefficients = work[COEFFICIENTS:FIRST_STAGE]
        coefficients[:] = 0.0
        for i in range(STAGES):
            for j in range(STAGES):
                for k in range(n):
                    coefficients[i, k] += DENSE[i, j] * Z[j, k]
        copy(x, work[PREVIOUS])
        copy(x_new, x)
        restore(x, params, reference, True)
        field(clock[TIME], x, params, derivative)
        counters[EVALUATIONS] += 1
        counters[STEPS] += 1
        counters[UNSAVED] = 1
        short = short + 1 if h * stiffness < REACH else 0
        if switching and short >= PATIENCE:
            pause = SWITCH
        elif outgrown(scale, grown):
            pause = OUTGROWN


_VECTOR, _MATRIX, _FIELD = types.float64[::1], types.float64[:, ::1], types.FunctionType(FIELD)
_FACTORS, _PIVOTS = types.complex128[:, :, ::1], types.int64[:, ::1]
#: What is handed to the driver, rather than called by it, is not optimized again with it.
FACTORIZE = types.boolean(_MATRIX, types.float64, _FACTORS, _PIVOTS)
SOLVE = types.boolean(
    types.FunctionType(JVP),
    PARAMS,
    types.float64,
    _VECTOR,
    types.float64,
    types.int64,
    types.complex128[::1],
    _VECTOR,
    _FACTORS,
    _PIVOTS,
    types.int64[::1],
)
ADVANCE = types.Tuple((types.int64, types.int64))(
    _FIELD,
    _FIELD,
    types.FunctionType(JACOBIAN),
    types.FunctionType(JVP),
    types.FunctionType(FACTORIZE),
    types.FunctionType(SOLVE),
    types.FunctionType(RESTORE),
    PARAMS,
    _VECTOR,
    types.boolean,
    types.boolean,
    types.float64,
    _VECTOR,
    types.float64,
    types.float64,
    types.int64,
    _VECTOR,
    types.int64[::1],
    _MATRIX,
    _VECTOR,
    _MATRIX,
    _MATRIX,
)
