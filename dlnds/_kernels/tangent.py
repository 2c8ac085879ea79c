"""Tangent vectors carried along a flow or a map, and made orthonormal again.

A flow moves one vector z: the state x (n numbers), the integral of tr J, and a frame, the matrix
(n × k) whose columns are the tangent vectors. It is integrated by the steps of `runge_kutta`, which
know nothing of the parts. What moves z, here called a system, is a tuple: the integers of ``form``
(see below), params, room for a matrix, field, tangent, jvp, jacobian, error scale. (With a function
in the first place Numba would warn.)

Made orthonormal, a frame U becomes Q with U = Q R, R upper triangular with a positive diagonal.
"""

import numpy as np
from numba import types

from dlnds._kernels.dense import assign, assign_transposed, copy, dot, multiply
from dlnds._kernels.jit import FIELD, JACOBIAN, JVP, PARAMS, TANGENT, jit, part
from dlnds._kernels.runge_kutta import (
    ACCEPTED,
    END_REACHED,
    EVALUATIONS,
    FIRST_STAGE,
    NOT_FINITE,
    OUT_OF_STEPS,
    STATE,
    STEP,
    STEPS,
    TIME,
    accepted_step,
    ahead,
    all_finite,
    begin,
    mind_stability,
    move_clock,
)

# Places in ``form``: sizes n and k; where derivatives come from; whether the matrix is formed,
# rather than products with each vector; whether the state is held where it is; steps between two
# orthonormalizations (0: only at the end of a call), and steps since the last one.
DIM, COUNT, SOURCE, WHOLE, HELD, PAUSE, SINCE, FORM_SIZE = 0, 1, 2, 3, 4, 5, 6, 7
STACKED, MATRIX, PRODUCTS, DIFFERENCES = 0, 1, 2, 3
#: What `advance` and `iterate` return besides the codes of `runge_kutta`: a vector depends on
#: those before it, to rounding.
DEPENDENT = 8
#: Strain (see `orthonormalize`) above which orthonormalizations come more often, and below which
#: they come less often; above which steps are undone and made again with more of them; above which
#: half of all digits are lost, if the times are given; and the most steps between two.
STRAINED, RELAXED, SPOILT, LOST, LONGEST_PAUSE = 1.5, 0.25, 3.0, 18.0, 64
#: Part of the spread of growth that counts as strain: at 2 it is 1e7, the root of all digits.
SPREAD = 0.125
EPSILON = float(np.finfo(np.float64).eps)


@part
def along(system, t, x, v, out):
    """Write the derivative of the field along ``v``."""
    form, params, _, field, _, jvp, _, _ = system
    if form[SOURCE] != DIFFERENCES:
        jvp(t, x, v, params, out)
        return
    largest, size = 1.0, 0.0
    for i in range(x.size):
        largest = max(largest, abs(x[i]))
        size = max(size, abs(v[i]))
    if size == 0.0:
        copy(v, out)
        return
    step = EPSILON ** (1.0 / 3.0) * largest / size
    shifted, other = np.empty(x.size), np.empty(x.size)
    for i in range(x.size):
        shifted[i] = x[i] + step * v[i]
    field(t, shifted, params, out)
    for i in range(x.size):
        shifted[i] = x[i] - step * v[i]
    field(t, shifted, params, other)
    for i in range(x.size):
        out[i] = (out[i] - other[i]) / (2.0 * step)


@part
def each_along(system, t, x, vectors, out):
    """Write the derivative of the field along each column of ``vectors``."""
    v, column = np.empty(x.size), np.empty(x.size)
    for j in range(vectors.shape[1]):
        for i in range(x.size):
            v[i] = vectors[i, j]
        along(system, t, x, v, column)
        for i in range(x.size):
            out[i, j] = column[i]


@part
def derivatives(system, t, x, frame, out):
    """Write the derivative of the field along each vector; return tr J, if it is at hand, or 0."""
    form, params, matrix, _, tangent, _, _, _ = system
    if form[SOURCE] == STACKED:
        return tangent(t, x, frame, params, out)
    if form[WHOLE] == 0:
        each_along(system, t, x, frame, out)
        return 0.0
    write_matrix(system, t, x)
    multiply(matrix, frame, out, False)
    trace = 0.0
    for i in range(matrix.shape[0]):
        trace += matrix[i, i]
    return trace


@part
def write_matrix(system, t, x):
    """Write the Jacobian into the room for it, column by column if the system gives none."""
    form, params, matrix, _, tangent, _, jacobian, _ = system
    if form[SOURCE] == MATRIX:
        jacobian(t, x, params, matrix)
        return
    units = np.zeros(matrix.shape)
    for i in range(x.size):
        units[i, i] = 1.0
    if form[SOURCE] == STACKED:
        tangent(t, x, units, params, matrix)
    else:
        each_along(system, t, x, units, matrix)


@part
def clear(rows, j, R):
    """Take the components along the rows before it out of row j; return its length before, after.

    Done twice where much was taken out, since the rounding of that is not orthogonal.
    """
    before = np.sqrt(dot(rows[j], rows[j]))
    left = before
    for _ in range(2):
        for i in range(j):
            component = dot(rows[i], rows[j])
            R[i, j] += component
            for m in range(rows.shape[1]):
                rows[j, m] -= component * rows[i, m]
        previous, left = left, np.sqrt(dot(rows[j], rows[j]))
        if left > 0.7 * previous:
            break
    return before, left


@part
def replace(rows, j):
    """Put a vector in row j that is orthogonal to the rows before it; return its length."""
    n = rows.shape[1]
    scratch, left = np.zeros((j + 1, j + 1)), 0.0
    for axis in range(n):
        for m in range(n):
            rows[j, m] = 1.0 if m == axis else 0.0
        _, left = clear(rows, j, scratch)
        if left > 0.5 / np.sqrt(n):  # at least one axis is this far from the others' span
            break
    return left


@part
def orthonormalize(rows, R, logs):
    """Make the rows orthonormal and add the logarithms of the diagonal of R to ``logs``.

    Return the strain and whether all vectors were independent. One that was not is replaced, and
    has a zero on the diagonal. The strain is the logarithm of the largest factor that a vector lost
    to projection, and with it accuracy, or a part of that by which the vectors differ in growth:
    what is small then drowns in the rounding of what is large.
    """
    lost, independent = 1.0, True
    shortest, longest = np.inf, 0.0
    R[:] = 0.0
    for j in range(rows.shape[0]):
        before, left = clear(rows, j, R)
        if left > 16.0 * EPSILON * before:
            R[j, j] = left
            lost = max(lost, before / left)
            shortest, longest = min(shortest, left), max(longest, left)
            logs[j] += np.log(left)
        else:
            independent = False
            logs[j] = -np.inf
            left = replace(rows, j)
        for m in range(rows.shape[1]):
            rows[j, m] /= left
    if not independent:
        return np.inf, False
    return max(np.log(lost), SPREAD * np.log(longest / shortest)), True


@part
def compose(R, logs, triangle):
    """Multiply D T, the product of the R so far, by R from the left.

    D = diag(exp ``logs``) and T = ``triangle`` has ones on its diagonal: so that the product
    neither overflows nor loses what grows least. ``logs`` is D without this R.
    """
    for i in range(R.shape[0]):
        for j in range(i + 1, R.shape[0]):
            total = triangle[i, j]
            for m in range(i + 1, j + 1):
                total += R[i, m] / R[i, i] * np.exp(logs[m] - logs[i]) * triangle[m, j]
            triangle[i, j] = total


@part
def turn(frame, rows, R, logs, triangle, bearable):
    """Make a frame orthonormal if the strain is bearable; return as `orthonormalize`.

    How it was changed is noted in ``logs`` and ``triangle``.
    """
    before = logs.copy()
    assign_transposed(frame, rows)
    strain, independent = orthonormalize(rows, R, logs)
    if strain > bearable:
        copy(before, logs)
        return strain, independent
    assign_transposed(rows, frame)
    if independent and triangle.size:
        compose(R, before, triangle)
    return strain, independent


@jit
def tangent_field(t, z, system, out):
    """Write the derivative of the state, the trace of the Jacobian, and that of the vectors."""
    form, params, _, field, _, _, _, _ = system
    n, count = form[DIM], form[COUNT]
    x, velocity = z[:n], out[:n]
    if form[HELD]:
        velocity[:] = 0.0
    else:
        field(t, x, params, velocity)
    frame, change = z[n + 1 :].reshape(n, count), out[n + 1 :].reshape(n, count)
    out[n] = derivatives(system, t, x, frame, change)


@jit
def tangent_scale(t, z, system, out):
    """Write what errors are judged against: each vector by its own size.

    The norm of the error is the root mean square over all components. The scale of the state is
    smaller by the square root of the number of vectors, so that these do not outvote it.
    """
    form, params, _, _, _, _, _, error_scale = system
    n, count = form[DIM], form[COUNT]
    error_scale(t, z[:n], params, out[:n])
    for i in range(n):
        out[i] /= np.sqrt(count + 1.0)
    out[n] = 1.0
    frame, scale = z[n + 1 :].reshape(n, count), out[n + 1 :].reshape(n, count)
    sizes = np.zeros(count)
    for i in range(n):
        for j in range(count):
            sizes[j] += frame[i, j] * frame[i, j]
    for j in range(count):
        sizes[j] = np.sqrt(sizes[j] / n)
    for i in range(n):
        for j in range(count):
            scale[i, j] = sizes[j]


@part
def adapt(form, strain):
    """Choose the steps to the next orthonormalization by the strain since the last."""
    if strain > STRAINED:
        form[PAUSE] = max(1, form[PAUSE] // 2)
    elif strain < RELAXED:
        form[PAUSE] = min(LONGEST_PAUSE, 2 * form[PAUSE])


@jit
def advance(
    move,
    judge,
    field,
    tangent,
    jvp,
    jacobian,
    error_scale,
    params,
    t_end,
    rtol,
    max_steps,
    form,
    clock,
    counters,
    work,
    matrix,
    triangle,
    logs,
):
    """Integrate state and tangent vectors to ``t_end``; return why that is the end.

    ``move`` and ``judge`` are `tangent_field` and `tangent_scale`, which are handed over so that
    they are not compiled into each of the stages. ``logs`` grow by the logarithms of the diagonals
    of R, ``triangle``, if it has a size, by the rest of R (see `compose`). At the end the vectors
    are orthonormal. A call with the same clock, counters and work goes on where the last stopped.
    """
    system = (form, params, matrix, field, tangent, jvp, jacobian, error_scale)
    z, stages, n, count = work[STATE], work[FIRST_STAGE:], form[DIM], form[COUNT]
    frame, rows, R = z[n + 1 :].reshape(n, count), np.empty((count, n)), np.empty((count, count))
    z_new, here, scale = np.empty(z.size), np.empty(z.size), np.zeros(z.size)
    if counters[EVALUATIONS] == 0 and not begin(
        move, judge, system, t_end, rtol, 0.0, clock, counters, work
    ):
        return NOT_FINITE
    judge(clock[TIME], z, system, here)
    z_kept, clock_kept = z.copy(), clock.copy()
    while True:
        remaining = ahead(t_end, clock)
        if counters[STEPS] >= max_steps:
            return OUT_OF_STEPS
        wanted = clock[STEP]
        code, h = accepted_step(
            move, judge, system, remaining, rtol, 0.0, clock, counters, work, z_new, here, scale
        )
        if code != ACCEPTED:
            return code
        last = h == remaining
        move_clock(clock, h, t_end, last)
        if last:  # cut short: the next one need not be
            clock[STEP] = max(clock[STEP], wanted)
        mind_stability(h, z, z_new, stages, clock, counters)
        copy(z_new, z)
        copy(stages[12], stages[0])
        copy(scale, here)
        counters[STEPS] += 1
        form[SINCE] += 1
        if not last and form[SINCE] != form[PAUSE]:
            continue
        bearable = SPOILT if form[PAUSE] > 0 else LOST
        if form[SINCE] == 1:
            bearable = np.inf
        strain, independent = turn(frame, rows, R, logs, triangle, bearable)
        spoilt = strain > bearable
        if (spoilt and form[PAUSE] == 0) or (not independent and not spoilt):
            return DEPENDENT
        if spoilt:
            form[PAUSE] = max(1, form[SINCE] // 4)
            copy(z_kept, z)
            copy(clock_kept, clock)
        else:
            if form[SINCE] == form[PAUSE]:
                adapt(form, strain)
            copy(z, z_kept)
            copy(clock, clock_kept)
        form[SINCE] = 0
        move(clock[TIME], z, system, stages[0])
        judge(clock[TIME], z, system, here)
        counters[EVALUATIONS] += 1
        if clock[TIME] == t_end:
            return END_REACHED


@part
def volume_change(matrix, alpha, beta):
    """Return ln |det(α + β J)|."""
    n = matrix.shape[0]
    rows, R, logs = np.empty((n, n)), np.empty((n, n)), np.zeros(n)
    for i in range(n):
        for j in range(n):
            rows[i, j] = beta * matrix[i, j]
        rows[i, i] += alpha
    orthonormalize(rows, R, logs)
    total = 0.0
    for i in range(n):
        total += logs[i]
    return total


@jit
def iterate(
    field,
    tangent,
    jvp,
    jacobian,
    params,
    alpha,
    beta,
    first,
    last,
    form,
    x,
    frame,
    matrix,
    triangle,
    logs,
):
    """Iterate x → α x + β f(x) and tangent vectors from number ``first`` to ``last``.

    Return a code, the number reached, and the sum of ln |det| of the map's Jacobians, or 0 if there
    is no room for the matrix. ``logs`` and ``triangle`` are as in `advance`. Only where vectors are
    made orthonormal after each iteration may one be mapped to zero: its logarithm is minus
    infinity.
    """
    system = (form, params, matrix, field, tangent, jvp, jacobian, field)
    image, moved = np.empty(x.size), np.empty(frame.shape)
    count, n, volume = frame.shape[1], x.size, 0.0
    rows, R = np.empty((count, n)), np.empty((count, count))
    for number in range(first, last):
        t = float(number)
        derivatives(system, t, x, frame, moved)
        for i in range(n):
            for j in range(count):
                moved[i, j] = alpha * frame[i, j] + beta * moved[i, j]
        if matrix.size and count == n:
            if form[WHOLE] == 0:
                write_matrix(system, t, x)
            volume += volume_change(matrix, alpha, beta)
        if not form[HELD]:
            field(t, x, params, image)
            for i in range(n):
                image[i] = alpha * x[i] + beta * image[i]
            if not all_finite(image):
                return NOT_FINITE, number, volume
            copy(image, x)
        if not all_finite(moved.reshape(moved.size)):
            return NOT_FINITE, number, volume
        assign(moved, frame)
        form[SINCE] += 1
        if form[SINCE] == form[PAUSE] or number + 1 == last:
            bearable = LOST if form[SINCE] > 1 else np.inf
            strain, independent = turn(frame, rows, R, logs, triangle, bearable)
            if strain > bearable or (not independent and triangle.size):
                return DEPENDENT, number + 1, volume
            form[SINCE] = 0
    return END_REACHED, last, volume


@jit
def apply(field, tangent, jvp, jacobian, params, t, form, x, frame, matrix, out):
    """Write the derivative of the field along each vector."""
    derivatives((form, params, matrix, field, tangent, jvp, jacobian, field), t, x, frame, out)


@jit
def no_tangent(t, x, vectors, params, out):
    """Stand for the derivative along many vectors of a system that has none."""
    out[:] = np.nan
    return np.nan


_VECTOR, _MATRIX, _INTEGERS = types.float64[::1], types.float64[:, ::1], types.int64[::1]
_FIELD, _NUMBER, _COUNT = types.FunctionType(FIELD), types.float64, types.int64
_DERIVATIVES = tuple(types.FunctionType(s) for s in (TANGENT, JVP, JACOBIAN))
_SYSTEM = types.Tuple((_INTEGERS, PARAMS, _MATRIX, _FIELD, *_DERIVATIVES, _FIELD))
#: ``tangent_field(t, z, system, out)`` and ``tangent_scale``
MOVE = types.void(_NUMBER, _VECTOR, _SYSTEM, _VECTOR)
ADVANCE = types.int64(
    *(types.FunctionType(MOVE), types.FunctionType(MOVE), _FIELD, *_DERIVATIVES, _FIELD, PARAMS),
    *(_NUMBER, _NUMBER, _COUNT, _INTEGERS, _VECTOR, _INTEGERS),
    *(_MATRIX, _MATRIX, _MATRIX, _VECTOR),
)
ITERATE = types.Tuple((types.int64, types.int64, _NUMBER))(
    *(_FIELD, *_DERIVATIVES, PARAMS, _NUMBER, _NUMBER, _COUNT, _COUNT, _INTEGERS),
    *(_VECTOR, _MATRIX, _MATRIX, _MATRIX, _VECTOR),
)
APPLY = types.void(
    *(_FIELD, *_DERIVATIVES, PARAMS, _NUMBER, _INTEGERS, _VECTOR, _MATRIX, _MATRIX, _MATRIX)
)
