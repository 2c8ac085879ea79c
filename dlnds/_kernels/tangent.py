"""Tangent vectors carried along a flow or a map, and made orthonormal again.

A flow moves one vector z: the state x (n numbers), the integral of tr J, and a frame, the matrix
(n × k) whose columns are the tangent vectors. It is integrated by the loop of `runge_kutta`, which
knows nothing of the parts: its ``params`` are a `System`.

Made orthonormal, a frame U becomes Q with U = Q R, R upper triangular with a positive diagonal.
"""

from collections import namedtuple

import numba
import numpy as np
from numba import types

from dlnds._kernels import runge_kutta
from dlnds._kernels.dense import (
    assign,
    assign_identity,
    assign_transposed,
    copy,
    dot,
    length,
    multiply,
)
from dlnds._kernels.jit import FIELD, JACOBIAN, JVP, PARAMS, TANGENT, inlined, jit, part, variant
from dlnds._kernels.runge_kutta import (
    CLOCKS,
    END_REACHED,
    NOT_FINITE,
    OUT_OF_STEPS,
    WORK,
    Rows,
    all_finite,
    begin,
    move_on,
    record,
)

#: Sizes n and k; where derivatives come from; whether the matrix is formed, rather than products
#: with each vector; whether the state is held where it is; steps between two orthonormalizations
#: (0: only at the end of a call), and steps since the last one.
FORM = record("", "dim count source whole held pause since")
STACKED, MATRIX, PRODUCTS, DIFFERENCES = 0, 1, 2, 3
#: What derivatives are computed from: the form (one record), params and functions of a system, and
#: room for its matrix.
System = namedtuple("System", "form params matrix field tangent jvp jacobian error_scale")
#: What the loop of a run asks for.
Moved = namedtuple("Moved", "params field error_scale")
#: Growth of the vectors: logarithms of the diagonals of R, and, if it has a size, the rest of R
#: (see `compose`).
Growth = namedtuple("Growth", "logs triangle")
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
def system_of(parts):
    """Return a system under its names, which Python cannot pass."""
    form, params, matrix, field, tangent, jvp, jacobian, error_scale = parts
    return System(form, params, matrix, field, tangent, jvp, jacobian, error_scale)


@part
def along(system, t, x, v, out):
    """Write the derivative of the field along ``v``."""
    params, field = system.params, system.field
    if system.form[0].source != DIFFERENCES:
        system.jvp(t, x, v, params, out)
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
    form, matrix = system.form[0], system.matrix
    if form.source == STACKED:
        return system.tangent(t, x, frame, system.params, out)
    if form.whole == 0:
        each_along(system, t, x, frame, out)
        return 0.0
    write_matrix(system, t, x)
    multiply(matrix, frame, out, 0.0)
    trace = 0.0
    for i in range(matrix.shape[0]):
        trace += matrix[i, i]
    return trace


@part
def write_matrix(system, t, x):
    """Write the Jacobian into the room for it, column by column if the system gives none."""
    source, params, matrix = system.form[0].source, system.params, system.matrix
    if source == MATRIX:
        system.jacobian(t, x, params, matrix)
        return
    units = np.empty(matrix.shape)
    assign_identity(units)
    if source == STACKED:
        system.tangent(t, x, units, params, matrix)
    else:
        each_along(system, t, x, units, matrix)


@part
def clear(rows, j, R):
    """Take the components along the rows before it out of row j; return its length before, after.

    Done twice where much was taken out, since the rounding of that is not orthogonal.
    """
    before = length(rows[j])
    left = before
    for _ in range(2):
        for i in range(j):
            component = dot(rows[i], rows[j])
            R[i, j] += component
            for m in range(rows.shape[1]):
                rows[j, m] -= component * rows[i, m]
        previous, left = left, length(rows[j])
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
def turn(frame, rows, R, growth, bearable):
    """Make a frame orthonormal if the strain is bearable; return as `orthonormalize`.

    How it was changed is noted in ``growth``.
    """
    logs, triangle = growth.logs, growth.triangle
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
    form = system.form[0]
    n, count = form.dim, form.count
    x, velocity = z[:n], out[:n]
    if form.held:
        velocity[:] = 0.0
    else:
        system.field(t, x, system.params, velocity)
    frame, change = z[n + 1 :].reshape(n, count), out[n + 1 :].reshape(n, count)
    out[n] = derivatives(system, t, x, frame, change)


@jit
def tangent_scale(t, z, system, out):
    """Write what errors are judged against: each vector by its own size.

    The norm of the error is the root mean square over all components. The scale of the state is
    smaller by the square root of the number of vectors, so that these do not outvote it.
    """
    form = system.form[0]
    n, count = form.dim, form.count
    system.error_scale(t, z[:n], system.params, out[:n])
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
        form.pause = max(1, form.pause // 2)
    elif strain < RELAXED:
        form.pause = min(LONGEST_PAUSE, 2 * form.pause)


@part
def named(parts):
    """Return the method, which has its names already."""
    return parts


@part
def finish(method, task, now, reference, work, trial):
    """Do what is left of an accepted step: its dense output is never used."""
    move_on(now, work, trial)


@inlined
def error_inside(method, now, h, unread, work, trial):
    """Return that nothing is read inside a step."""
    return 0.0


accepted_step = variant(
    runge_kutta.accepted_step, "accepted_step", {"error_inside": error_inside}, inlined
)


@inlined
def next_step(method, tasks, clock, remaining, unread, work, trial):
    """Make a step; return a code and the step."""
    return accepted_step(method, tasks[0], clock[0], remaining, unread, work, trial)


#: The loop of a run, without what tangent vectors do not need.
drive = variant(runge_kutta.advance, "drive", {f.__name__: f for f in (named, next_step, finish)})


@part
def return_to(kept, clock):
    """Set a clock back, but for what it counts."""
    now = clock[0]
    steps, evaluations = now.steps, now.evaluations
    clock[0] = kept[0]
    now.steps, now.evaluations = steps, evaluations


@part
def orthonormal(form, frame, growth, z, kept):
    """Make the frame of a state orthonormal, or go back to ``kept`` if the strain was too much.

    Return whether it was not, and whether there is a way on.
    """
    n, count = form.dim, form.count
    rows, R = np.empty((count, n)), np.empty((count, count))
    bearable = SPOILT if form.pause > 0 else LOST
    if form.since == 1:
        bearable = np.inf
    strain, independent = turn(frame, rows, R, growth, bearable)
    spoilt = strain > bearable
    if (spoilt and form.pause == 0) or (not independent and not spoilt):
        return not spoilt, False
    if spoilt:
        form.pause = max(1, form.since // 4)
        copy(kept, z)
    else:
        if form.since == form.pause:
            adapt(form, strain)
        copy(z, kept)
    form.since = 0
    return not spoilt, True


@jit
def advance(parts, move, judge, tasks, clock, work, growth):
    """Integrate state and tangent vectors to the end of a task; return why that is the end.

    ``move`` and ``judge`` are `tangent_field` and `tangent_scale`, which are handed over so that
    they are not compiled into each of the stages. At the end the vectors are orthonormal. A call
    with the same clock and work goes on where the last stopped.
    """
    system, z, nothing = system_of(parts), work.state, np.empty(0)
    method = Moved(system, move, judge)
    form, now, most = system.form[0], clock[0], tasks[0].max_steps
    begun = now.evaluations > 0 or begin(move, judge, system, tasks[0], now, work)
    if not begun:
        return NOT_FINITE
    frame = z[form.dim + 1 :].reshape(form.dim, form.count)
    legs, rows = tasks.copy(), Rows(np.full(1, np.inf), np.empty((0, 2)), np.empty((0, z.size)))
    z_kept, clock_kept = z.copy(), clock.copy()
    while True:
        if now.steps >= most:
            return OUT_OF_STEPS
        steps = now.steps
        legs[0].max_steps = most
        if form.pause > form.since:
            legs[0].max_steps = min(most, steps + form.pause - form.since)
        code, _ = drive(method, legs, clock, nothing, nothing, work, rows)
        form.since += now.steps - steps
        if code not in (END_REACHED, OUT_OF_STEPS) or now.steps == steps:
            return code
        if code == OUT_OF_STEPS and form.since != form.pause:
            return code
        good, possible = orthonormal(form, frame, growth, z, z_kept)
        if not possible:
            return DEPENDENT
        if good:
            clock_kept[0] = clock[0]
        else:
            return_to(clock_kept, clock)
        method.field(now.time, z, system, work.stages[0])
        now.evaluations += 1
        if now.time == tasks[0].end:
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


@part
def iterate_frame(system, update, t, x, frame, moved):
    """Write the frame that a map moves vectors to; return ln |det| of its Jacobian.

    The latter is 0 if there is no room for the matrix.
    """
    alpha, beta = update
    n, count = frame.shape
    derivatives(system, t, x, frame, moved)
    for i in range(n):
        for j in range(count):
            moved[i, j] = alpha * frame[i, j] + beta * moved[i, j]
    if system.matrix.size == 0 or count != n:
        return 0.0
    if system.form[0].whole == 0:
        write_matrix(system, t, x)
    return volume_change(system.matrix, alpha, beta)


@part
def iterate_state(system, update, t, x):
    """Move the state by a map, unless it is held; tell whether that is finite."""
    if system.form[0].held:
        return True
    alpha, beta = update
    image = np.empty(x.size)
    system.field(t, x, system.params, image)
    for i in range(x.size):
        image[i] = alpha * x[i] + beta * image[i]
    if not all_finite(image):
        return False
    copy(image, x)
    return True


@jit
def iterate(parts, update, span, x, frame, growth):
    """Iterate x → α x + β f(x) and tangent vectors from the first to the last number of ``span``.

    Return a code, the number reached, and the sum of ln |det| of the map's Jacobians, or 0 if there
    is no room for the matrix. Only where vectors are made orthonormal after each iteration may one
    be mapped to zero: its logarithm is minus infinity.
    """
    system, (first, last), volume = system_of(parts), span, 0.0
    form, moved = system.form[0], np.empty(frame.shape)
    rows, R = np.empty((form.count, form.dim)), np.empty((form.count, form.count))
    for number in range(first, last):
        t = float(number)
        volume += iterate_frame(system, update, t, x, frame, moved)
        if not iterate_state(system, update, t, x):
            return NOT_FINITE, number, volume
        if not all_finite(moved.reshape(moved.size)):
            return NOT_FINITE, number, volume
        assign(moved, frame)
        form.since += 1
        if form.since == form.pause or number + 1 == last:
            bearable = LOST if form.since > 1 else np.inf
            strain, independent = turn(frame, rows, R, growth, bearable)
            if strain > bearable or (not independent and growth.triangle.size):
                return DEPENDENT, number + 1, volume
            form.since = 0
    return END_REACHED, last, volume


@jit
def apply(parts, t, x, frame, out):
    """Write the derivative of the field along each vector."""
    derivatives(system_of(parts), t, x, frame, out)


@jit
def no_tangent(t, x, vectors, params, out):
    """Stand for the derivative along many vectors of a system that has none."""
    out[:] = np.nan
    return np.nan


_VECTOR, _MATRIX, _FIELD = types.float64[::1], types.float64[:, ::1], types.FunctionType(FIELD)
_DERIVATIVES = tuple(types.FunctionType(s) for s in (TANGENT, JVP, JACOBIAN))
_PARTS = (numba.from_dtype(FORM)[::1], PARAMS, _MATRIX, _FIELD, *_DERIVATIVES, _FIELD)
_GROWTH = types.NamedTuple((_VECTOR, _MATRIX), Growth)
#: ``tangent_field(t, z, system, out)`` and ``tangent_scale``
MOVE = types.void(types.float64, _VECTOR, types.NamedTuple(_PARTS, System), _VECTOR)
ADVANCE = types.int64(
    *(types.Tuple(_PARTS), types.FunctionType(MOVE), types.FunctionType(MOVE)),
    *(numba.from_dtype(runge_kutta.TASK)[::1], CLOCKS, WORK, _GROWTH),
)
ITERATE = types.Tuple((types.int64, types.int64, types.float64))(
    *(types.Tuple(_PARTS), types.UniTuple(types.float64, 2), types.UniTuple(types.int64, 2)),
    *(_VECTOR, _MATRIX, _GROWTH),
)
APPLY = types.void(types.Tuple(_PARTS), types.float64, _VECTOR, _MATRIX, _MATRIX)
