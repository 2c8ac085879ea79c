"""Adaptive implicit integration: Radau IIA collocation of order 9 with the exact Jacobian.

Five stages at the right Radau points; A-, B- and L-stable, so that what has converged stays where
it is while steps grow with the plateau (Hairer & Wanner, *Solving Ordinary Differential Equations
II* (1996), sections IV.5 and IV.8). The stage equations Z = h A F(x + Z) are solved by Newton's
method with one Jacobian a step: the eigenvalues of A decouple them into one system (I − h μ J) for
each real eigenvalue and each complex pair. Small systems are inverted; large ones are solved in
Krylov spaces of products with the Jacobian, in which all shifts of one right side share a basis.

The tableau is computed from its definition; tests check it as algebra. The loop of a run is that of
the explicit method, whose code saves steps too: the collocation polynomial is written in its basis.
"""

from collections import namedtuple
from typing import Any

import numba
import numpy as np
from numba import types

from dlnds._kernels import runge_kutta
from dlnds._kernels.dense import (
    add_multiple,
    copy,
    eliminate,
    fill,
    magnitude,
    pivot,
    substitute,
)
from dlnds._kernels.jit import FIELD, JACOBIAN, JVP, PARAMS, RESTORE, inlined, jit, part, variant
from dlnds._kernels.runge_kutta import (
    ACCEPTED,
    CLOCKS,
    END_REACHED,
    FASTEST,
    NOT_FINITE,
    NOTHING,
    OUT_OF_STEPS,
    OUTGROWN,
    SAFETY,
    SLOWEST,
    STEP_TOO_SMALL,
    SWITCH,
    TRIALS,
    all_finite,
    allow,
    at_border,
    driver,
    growth,
    interpolate,
    outgrown,
    record,
    weighted_norm,
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


def _one_more(nodes, shift):
    """Return a point inside, the weights of u and u′ there, and the largest ω over ω′ there.

    The polynomial u of the step, and that of one degree more through its stages that satisfies the
    equation at this point, too, differ by a multiple a of ω(θ) = θ Π (θ − c_i). To first order
    (ω′ − h ω J) a = h f(u) − u′ there; where ω = μ ω′ the factors of the step solve that. Of these
    points that with the largest ω is taken.
    """
    omega = np.polynomial.Polynomial.fromroots([0.0, *nodes])
    points = (omega - shift * omega.deriv()).roots()
    point = points[np.argmax(np.where(points < 1.0, np.abs(omega(points)), 0.0))]
    powers = np.arange(1, len(nodes) + 1)
    rows = np.stack([point**powers, powers * point ** (powers - 1)])
    weights = rows @ np.linalg.inv(nodes[:, None] ** powers)
    return point, weights, np.abs(omega(omega.deriv().roots())).max() / omega.deriv()(point)


BETWEEN, BETWEEN_WEIGHTS, BETWEEN_SIZE = _one_more(NODES, REAL_SHIFT)

ITERATIONS = 10
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

#: How a method knows the Jacobian: by products with it, as a matrix, by differences of the field.
PRODUCTS, MATRIX, DIFFERENCES = 0, 1, 2
#: Relative step of these differences.
DIFFERENCE = 1.5e-8
#: What an implicit method asks of a system. ``form`` is one of these three; ``factorize`` and
#: ``solve`` are those below for matrices or for products.
Implicit = namedtuple(
    "Implicit", "params field error_scale restore form jacobian jvp factorize solve"
)
#: What steps of one call remember: the step that is tried, that of the factors, the norm of J; the
#: error and the step before this; how much a step may grow; whether J is that at the state, whether
#: there was a step before, and one refused since; steps in a row that were short for this method.
MEMORY = record("h factored stiffness last_error last_h limit", "fresh known rejected short")
#: What steps of one call work with: clock and memory (of one record); J, the factors of I − h μ J
#: and their pivots for each μ; the stages (less the state) and their fields; the end of the step,
#: its error scale, the error allowed, and the direction in which J stretches most.
Space = namedtuple(
    "Space", "clock memory J factors pivots Z fields state scale tolerance direction"
)


def space_of(clock: Any, dim: int, dense: bool) -> Any:
    """Return the space of one call of a run, for systems of this size."""
    rows, memory = dim if dense else 0, np.zeros(1, MEMORY)
    memory[0].limit = FASTEST
    return Space(
        *(clock, memory, np.empty((rows, rows))),
        np.empty((SHIFTS.size, rows, rows), np.complex128),
        np.empty((SHIFTS.size, rows), np.int64),
        *(np.zeros((STAGES, dim)), np.empty((STAGES, dim))),
        *(np.empty(dim), np.zeros(dim), np.empty(dim), np.sin(1.0 + np.arange(dim))),
    )


@part
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
def factorize_all(h, space):
    """Factorize I − h μ J for each μ; tell whether all are finite."""
    for k in range(SHIFTS.size):
        shifted(space.J, h * SHIFTS[k], space.factors[k])
        if not factorize(space.factors[k], space.pivots[k]):
            return False
    return True


@part
def in_units(v, tolerance, out):
    """Write a vector in units of ``tolerance``, without what must not err; return its length."""
    total = 0.0
    for i in range(v.size):
        out[i] = v[i] / tolerance[i] if tolerance[i] > 0.0 else 0.0
        total += out[i] ** 2
    return np.sqrt(total)


@part
def krylov_basis(product, x, space, count, basis, hessenberg):
    """Extend an orthonormal basis of the Krylov space of J in units of the tolerance by one."""
    n, (params, jvp) = x.size, product
    direction, image = np.empty(n), np.empty(n)
    for i in range(n):
        direction[i] = basis[count, i] * space.tolerance[i]
    jvp(space.clock[0].time, x, direction, params, image)
    space.clock[0].evaluations += 2
    in_units(image, space.tolerance, image)
    for _ in range(2):  # once more, against the loss of orthogonality
        for k in range(count + 1):
            component = 0.0
            for i in range(n):
                component += basis[k, i] * image[i]
            hessenberg[k, count] += component
            for i in range(n):
                image[i] -= component * basis[k, i]
    size = 0.0
    for i in range(n):
        size += image[i] ** 2
    size = np.sqrt(size)
    hessenberg[count + 1, count] = size
    for i in range(n):
        basis[count + 1, i] = image[i] / size if size > 0.0 else 0.0
    return size


@part
def small_solution(hessenberg, factor, start, y):
    """Write the solution of I − ``factor`` J in a Krylov space; tell whether it is finite."""
    rows = y.size
    matrix, pivots = np.empty((rows, rows), np.complex128), np.empty(rows, np.int64)
    y[:] = 0.0
    y[0] = start
    shifted(hessenberg, factor, matrix)
    if not factorize(matrix, pivots):
        return False
    substitute(matrix, pivots, y)
    return True


@part
def krylov_solve(product, x, factor, right, space, out):
    """Solve (I − ``factor`` J) out = right in a Krylov space; tell whether that succeeded."""
    n = x.size
    most = min(n, KRYLOV)
    basis, hessenberg = np.empty((most + 1, n)), np.zeros((most + 1, most))
    start = in_units(right, space.tolerance, basis[0])
    out[:] = 0.0
    if start == 0.0:
        return True
    if not np.isfinite(start):
        return False
    for i in range(n):
        basis[0, i] /= start
    for count in range(most):
        size = krylov_basis(product, x, space, count, basis, hessenberg)
        rows = count + 1
        last = rows == most or size == 0.0
        if not (last or rows % 5 == 0):
            continue
        y = np.empty(rows, np.complex128)
        if not small_solution(hessenberg[:rows, :rows].copy(), factor, start, y):
            return False
        if abs(factor * size * y[rows - 1]) <= UNSOLVED * start or size == 0.0 or rows == n:
            for k in range(rows):
                for i in range(n):
                    out[i] += y[k] * basis[k, i] * space.tolerance[i]
            return True
    return False


@jit
def solve_dense(product, x, index, right, space):
    """Overwrite ``right`` by the solution of I − h μ J for one μ, from its factors."""
    substitute(space.factors[index], space.pivots[index], right)
    return True


@jit
def solve_free(product, x, index, right, space):
    """Overwrite ``right`` by the solution of I − h μ J for one μ; tell whether that succeeded."""
    n, factor = x.size, space.memory[0].h * SHIFTS[index]
    half, solved = np.empty(n), True
    solutions = np.zeros((2, n), np.complex128)
    for number in range(2):
        for i in range(n):
            half[i] = right[i].real if number == 0 else right[i].imag
        if number == 0 or index > 0:
            solved &= krylov_solve(product, x, factor, half, space, solutions[number])
    for i in range(n):
        right[i] = solutions[0, i] + 1j * solutions[1, i]
    return solved


@inlined
def stage_fields(method, x, space):
    """Evaluate the field at all stages; tell whether all is finite."""
    now, h = space.clock[0], space.memory[0].h
    state, finite = np.empty(x.size), True
    for i in range(STAGES):
        for k in range(x.size):
            state[k] = x[k] + space.Z[i, k]
        method.field(now.time + NODES[i] * h, state, method.params, space.fields[i])
        finite &= all_finite(space.fields[i])
    now.evaluations += STAGES
    return finite


@part
def newton_update(method, x, space, update):
    """Write the update of all stages and return its weighted size, negative if that failed."""
    n, h, Z = x.size, space.memory[0].h, space.Z
    right = np.empty(n, np.complex128)
    residual = np.empty((STAGES, n))
    for i in range(STAGES):
        for k in range(n):
            total = 0.0
            for j in range(STAGES):
                total += INTEGRALS[i, j] * space.fields[j, k]
            residual[i, k] = h * total - Z[i, k]
    fill(0.0, update)
    for m in range(SHIFTS.size):
        for k in range(n):
            value = 0.0 + 0.0j
            for i in range(STAGES):
                value += INTO[m, i] * residual[i, k]
            right[k] = value
        if not method.solve((method.params, method.jvp), x, m, right, space):
            return -1.0
        for i in range(STAGES):
            for k in range(n):
                update[i, k] += (OUT_OF[i, m] * right[k]).real
    largest = 0.0
    for i in range(STAGES):
        largest = max(largest, weighted_norm(update[i], space.tolerance))
    return largest


@inlined
def newton(method, x, space):
    """Solve for the stages from a guess; return the iterations, negative without success."""
    Z, update = space.Z, np.empty((STAGES, x.size))
    before, rate = 0.0, 1.0
    for iteration in range(1, ITERATIONS + 1):
        if not stage_fields(method, x, space):
            return -iteration
        size = newton_update(method, x, space, update)
        if not (size >= 0.0 and np.isfinite(size)):
            return -iteration
        if iteration > 1:
            rate = size / before
            if size > SMALL_UPDATE and rate > 0.9:
                return -iteration
        for i in range(STAGES):
            add_multiple(1.0, update[i], Z[i])
        if size <= SMALL_UPDATE or (rate < 1.0 and size * rate / (1.0 - rate) <= SMALL_UPDATE):
            return iteration
        before = size
    return -ITERATIONS


@inlined
def error_estimate(method, x, derivative, space):
    """Return the weighted size of (I − h μ J)⁻¹ (h μ f(x) + Σ e_i Z_i)."""
    n, now, memory = x.size, space.clock[0], space.memory[0]
    right, error = np.empty(n, np.complex128), np.empty(n)
    slope, state, size = np.empty(n), np.empty(n), np.inf
    copy(derivative, slope)
    for attempt in range(2):
        for k in range(n):
            total = memory.h * REAL_SHIFT * slope[k]
            for i in range(STAGES):
                total += EMBEDDED[i] * space.Z[i, k]
            right[k] = total
        if not method.solve((method.params, method.jvp), x, 0, right, space):
            return np.inf
        for k in range(n):
            error[k] = right[k].real
        size = weighted_norm(error, space.tolerance)
        again = memory.rejected == 1 or memory.known == 0
        if size < 1.0 or not again or attempt == 1:
            return size
        for k in range(n):
            state[k] = x[k] + error[k]
        method.field(now.time, state, method.params, slope)
        now.evaluations += 1
    return size


@inlined
def dense_error(method, x, space):
    """Return the weighted size of the error of the polynomial between the stages.

    The error at the end says nothing of it where a component is very stiff: there the stages are
    right however long the step is.
    """
    n, now, h = x.size, space.clock[0], space.memory[0].h
    right, error = np.empty(n, np.complex128), np.empty(n)
    state, slope = np.empty(n), np.empty(n)
    for k in range(n):
        value = 0.0
        for i in range(STAGES):
            value += BETWEEN_WEIGHTS[0, i] * space.Z[i, k]
        state[k] = x[k] + value
    method.field(now.time + BETWEEN * h, state, method.params, slope)
    now.evaluations += 1
    for k in range(n):
        value = h * slope[k]
        for i in range(STAGES):
            value -= BETWEEN_WEIGHTS[1, i] * space.Z[i, k]
        right[k] = value
    if not method.solve((method.params, method.jvp), x, 0, right, space):
        return np.inf
    for k in range(n):
        error[k] = BETWEEN_SIZE * right[k].real
    size = weighted_norm(error, space.tolerance)
    return size if np.isfinite(size) else np.inf


@inlined
def predict(work, space):
    """Guess the stages from the polynomial of the last step, or as zero where there is none."""
    now, memory, Z = space.clock[0], space.memory[0], space.Z
    if memory.known == 0 or memory.rejected == 1 or memory.h > 4.0 * now.last_step:
        fill(0.0, Z)
        return
    for i in range(STAGES):
        theta = 1.0 + NODES[i] * memory.h / now.last_step
        interpolate(work.previous, work.coefficients, theta, Z[i])
        for k in range(work.state.size):
            Z[i, k] -= work.state[k]


@inlined
def norm_of(J):
    """Return the largest absolute row sum."""
    largest = 0.0
    for i in range(J.shape[0]):
        total = 0.0
        for j in range(J.shape[1]):
            total += abs(J[i, j])
        largest = max(largest, total)
    return largest


@inlined
def norm_along(method, x, space):
    """Return an estimate of the norm of J by two products, and leave a better direction."""
    now, direction = space.clock[0], space.direction
    image, size = np.empty(x.size), 0.0
    for _ in range(2):
        total = 0.0
        for i in range(x.size):
            total += direction[i] ** 2
        for i in range(x.size):
            direction[i] /= np.sqrt(total)
        method.jvp(now.time, x, direction, method.params, image)
        now.evaluations += 2
        size = 0.0
        for i in range(x.size):
            size += image[i] ** 2
        size = np.sqrt(size)
        if size > 0.0:
            copy(image, direction)
    return size


@inlined
def named(parts):
    """Return what the method asks of a system under its names."""
    params, field, error_scale, restore, form, jacobian, jvp, factorize, solve, _ = parts
    return Implicit(params, field, error_scale, restore, form, jacobian, jvp, factorize, solve)


@inlined
def prepare(parts, method, now, work):
    """Return what the steps of a call share."""
    return parts[-1]


@inlined
def pause(task, now, remaining, sparse, space, grown):
    """Return why there is no step now, or `ACCEPTED`."""
    if space.memory[0].short >= PATIENCE and task.patience < np.inf:
        return SWITCH
    if outgrown(space.scale, grown):
        return OUTGROWN
    return OUT_OF_STEPS if now.steps >= task.max_steps else ACCEPTED


@part
def difference(field, now, x, params, derivative, scale, J):
    """Write the Jacobian by differences of the field, along which it leads."""
    state, value = x.copy(), np.empty(x.size)
    for j in range(x.size):
        step = DIFFERENCE * max(abs(x[j]), scale[j])
        if step == 0.0:
            step = DIFFERENCE
        state[j] = x[j] + (step if derivative[j] >= 0.0 else -step)
        step = state[j] - x[j]
        field(now.time, state, params, value)
        for i in range(x.size):
            J[i, j] = (value[i] - derivative[i]) / step
        state[j] = x[j]
    now.evaluations += x.size


@inlined
def linearize(method, work, space):
    """Form and factorize what is not at hand for the step; tell whether all is finite."""
    now, memory, x = space.clock[0], space.memory[0], work.state
    if memory.fresh == 0:
        memory.fresh = 1
        if method.form != PRODUCTS:
            if method.form == MATRIX:
                method.jacobian(now.time, x, method.params, space.J)
            else:
                difference(
                    method.field, now, x, method.params, work.stages[0], space.scale, space.J
                )
            now.jacobians += 1
            memory.factored, memory.stiffness = 0.0, norm_of(space.J)
        else:
            memory.stiffness = norm_along(method, x, space)
    if method.form != PRODUCTS and memory.h != memory.factored:
        memory.factored = memory.h
        return method.factorize(memory.h, space)
    return True


@inlined
def embedded(rtol):
    """Return the relative error that the embedded method, and the dense output, may make."""
    return 0.1 * rtol**EXPONENT


@part
def allow_embedded(method, task, t, x, space):
    """Raise the error allowed, as `EXPONENT` says, to that at a state."""
    rtol, atol = embedded(task.rtol), 0.0
    if task.atol > 0.0:
        atol = task.atol * rtol / task.rtol
    allow(method.error_scale, t, x, method.params, rtol, atol, space.scale, space.tolerance)


@inlined
def refuse(h, now, memory):
    """Note that a step is refused, and that ``h`` is tried next."""
    now.step, memory.rejected, memory.limit = h, 1, 1.0


@inlined
def growth_after(error, iterations, memory):
    """Return the factor by which the step may change, from its error and how hard it was."""
    safety, trend = SAFETY * (2 * ITERATIONS + 1) / (2 * ITERATIONS + iterations), 1.0
    if error > 0.0 and memory.last_error > 0.0 and memory.rejected == 0:  # as two errors foretell
        trend = (memory.last_error / error) ** (1.0 / (STAGES + 1)) * memory.h / memory.last_h
    return growth(error, safety, trend, STAGES + 1, memory.limit)


@inlined
def accepted_step(method, task, now, remaining, unread, work, space):
    """Shorten the step until its error is acceptable; return a code and the step.

    Where something is read inside it, so must the error there be, or it ends at what is read first.
    """
    x, memory, finite, beyond = work.state, space.memory[0], True, False
    for k in range(x.size):
        space.tolerance[k] = NOTHING
    allow_embedded(method, task, now.time, x, space)
    for _ in range(TRIALS):
        h = now.step
        if 1.01 * h >= remaining and h != unread:
            h = remaining
        if not np.isfinite(now.time + h):
            return END_REACHED, h
        memory.h = h
        if not linearize(method, work, space):
            now.step = SLOWEST * h
            continue
        predict(work, space)
        iterations = newton(method, x, space)
        if iterations < 0:
            finite = all_finite(space.fields[STAGES - 1])
            beyond |= not finite
            refuse(h * (0.5 if finite else SLOWEST), now, memory)
            continue
        for k in range(x.size):
            space.state[k] = x[k] + space.Z[STAGES - 1, k]
        allow_embedded(method, task, now.time + h, space.state, space)
        error = error_estimate(method, x, work.stages[0], space)
        finite = np.isfinite(error) and all_finite(space.scale)
        if not finite:
            beyond = True
            refuse(SLOWEST * h, now, memory)
            continue
        now.step = h * growth_after(error, iterations, memory)
        inside = dense_error(method, x, space) if error <= 1.0 and h > unread else 0.0
        now.between = embedded(task.rtol) * inside
        if inside > 1.0:
            now.step = max(unread, h * growth(inside, SAFETY, 1.0, STAGES + 1, 1.0))
        elif error <= 1.0 and beyond and at_border(now, h, space.state, x):
            return STEP_TOO_SMALL, h
        elif error <= 1.0:
            memory.last_error, memory.last_h = max(error, 1e-2), h
            return ACCEPTED, h
        refuse(now.step, now, memory)
    return STEP_TOO_SMALL if finite else NOT_FINITE, now.step


@inlined
def next_step(method, tasks, clock, remaining, unread, work, space):
    """Make a step; return a code and the step."""
    return accepted_step(method, tasks[0], clock[0], remaining, unread, work, space)


@inlined
def finish(method, task, now, reference, work, space):
    """Do what is left of an accepted step: dense output, and what is conserved."""
    memory = space.memory[0]
    memory.rejected, memory.limit, memory.known, memory.fresh = 0, FASTEST, 1, 0
    memory.short = memory.short + 1 if memory.h * memory.stiffness < REACH else 0
    fill(0.0, work.coefficients)
    for i in range(STAGES):
        for j in range(STAGES):
            for k in range(work.state.size):
                work.coefficients[i, k] += DENSE[i, j] * space.Z[j, k]
    copy(work.state, work.previous)
    copy(space.state, work.state)
    method.restore(work.state, method.params, reference, task.rtol, True)
    method.field(now.time, work.state, method.params, work.stages[0])
    now.evaluations += 1


advance = variant(
    runge_kutta.advance,
    "advance_implicitly",
    {f.__name__: f for f in (named, prepare, pause, next_step, finish)},
)

_VECTOR, _MATRIX, _FIELD = types.float64[::1], types.float64[:, ::1], types.FunctionType(FIELD)
_JVP = types.FunctionType(JVP)
_SPACE = types.NamedTuple(
    (
        *(CLOCKS, numba.from_dtype(MEMORY)[::1]),
        *(_MATRIX, types.complex128[:, :, ::1], types.int64[:, ::1], _MATRIX, _MATRIX),
        *(_VECTOR, _VECTOR, _VECTOR, _VECTOR),
    ),
    Space,
)
#: What is handed to the driver, rather than called by it, is not optimized again with it.
FACTORIZE = types.boolean(types.float64, _SPACE)
SOLVE = types.boolean(
    types.Tuple((PARAMS, _JVP)), _VECTOR, types.int64, types.complex128[::1], _SPACE
)
ADVANCE = driver(
    (
        *(PARAMS, _FIELD, _FIELD, types.FunctionType(RESTORE), types.int64),
        *(types.FunctionType(s) for s in (JACOBIAN, JVP, FACTORIZE, SOLVE)),
        _SPACE,
    )
)
