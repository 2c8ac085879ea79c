"""The flow of balanced factors W = A Bᵀ whose columns differ by any number of decades.

The state holds Bᵀ and A of `product` with their columns divided by e^l, and then l, one number for
each column, which no field changes: W = A e^{2l} Bᵀ. Columns that turn or shrink are made
orthonormal again between two steps, and their sizes are taken into l. Then neither the product of
the smallest columns nor their angles to the large ones are lost in rounding or underflow, nor is
the sign of det W = det A · det B · e^{2 Σ l}, which the flow keeps.
"""

import numpy as np

from dlnds._kernels import product
from dlnds._kernels.dense import add_multiple, copy, dot, length, room
from dlnds._kernels.jit import jit, part
from dlnds._kernels.linear import layer

#: How much smaller than the largest column others are made at most in the field: e^{2l} of those is
#: then nothing beside rounding.
DEEPEST = 150.0
#: Cosines of a column with all others, in sum, and the factor in its squared size, up to which they
#: are left as they are; and the difference of the columns of A and B, in terms of their sizes.
LEANING, GROWN, UNBALANCED = 0.5, 4.0, 5e-11
#: The least size of a row, in terms of the largest, by which its entries are judged.
SHARE = 1e-3
#: Sweeps of Jacobi's method after which it is taken to have converged, as it does in under ten.
SWEEPS = 40
EPS = float(np.finfo(np.float64).eps)


@part
def scales(x, params, out):
    """Write e^l, l not far below the largest; return the place of that."""
    k = out.size
    logs, top = x[x.size - k :], 0
    for a in range(1, k):
        if logs[a] > logs[top]:
            top = a
    for a in range(k):
        out[a] = np.exp(max(logs[a], logs[top] - DEEPEST))
    return top


@part
def multiply_columns(x, params, factors, out):
    """Write the factors of ``x`` with their columns multiplied."""
    for i in range(1, 3):
        before, after = layer(x, params, i), layer(out, params, i)
        for p in range(before.shape[0]):
            for q in range(before.shape[1]):
                after[p, q] = before[p, q] * factors[p if i == 1 else q]


@part
def inverse(factors):
    """Return 1 / factors."""
    out = np.empty(factors.size)
    for a in range(factors.size):
        out[a] = 1.0 / factors[a]
    return out


@jit
def field(t, x, params, out):
    """Write the field of the factors, divided by e^l, and zeros."""
    k, n = params[0][4], x.size - params[0][4]
    sizes, plain, moved = np.empty(k), room(n), room(n)
    scales(x, params, sizes)
    multiply_columns(x, params, sizes, plain)
    product.loss_field(t, plain, params, moved)
    multiply_columns(moved, params, inverse(sizes), out)
    out[n:] = 0.0


@jit
def jvp(t, x, v, params, out):
    """Write the derivative of `field` along ``v``: e^{-l} f(e^l x) changes with l, too."""
    k, n = params[0][4], x.size - params[0][4]
    sizes, rates = np.empty(k), np.empty(k)
    plain, change, moved, turned = room(n), room(n), room(n), room(n)
    top = scales(x, params, sizes)
    for a in range(k):  # of the logarithms: those far below the largest follow it
        near = x[n + a] > x[n + top] - DEEPEST
        rates[a] = v[n + a] if near else v[n + top]
    multiply_columns(x, params, rates, plain)
    for i in range(n):
        plain[i] += v[i]
    multiply_columns(plain, params, sizes, change)
    multiply_columns(x, params, sizes, plain)
    product.loss_jvp(t, plain, change, params, moved)
    back = inverse(sizes)
    multiply_columns(moved, params, back, out)
    product.loss_field(t, plain, params, moved)
    for a in range(k):
        back[a] *= rates[a]
    multiply_columns(moved, params, back, turned)
    for i in range(n):
        out[i] -= turned[i]
    out[n:] = 0.0


@part
def column_factors(params, factors, out):
    """Write for each entry of the factors that of its column."""
    for i in range(1, 3):
        block = layer(out, params, i)
        for p in range(block.shape[0]):
            for q in range(block.shape[1]):
                block[p, q] = factors[p if i == 1 else q]


@jit
def jacobian(t, x, params, out):
    """Write the derivatives of `field` along all axes, from the Jacobian of the factors."""
    k, n = params[0][4], x.size - params[0][4]
    sizes, plain, entries = np.empty(k), room(n), room(n)
    scales(x, params, sizes)
    multiply_columns(x, params, sizes, plain)
    square = np.empty((n, n))
    product.loss_jacobian(t, plain, params, square)
    column_factors(params, sizes, entries)
    for i in range(n):
        for j in range(n):
            out[i, j] = square[i, j] * (entries[j] / entries[i])
    axis, column = np.zeros(x.size), np.empty(x.size)
    for a in range(n, x.size):
        axis[a] = 1.0
        jvp(t, x, axis, params, column)
        axis[a] = 0.0
        for i in range(x.size):
            out[i, a] = column[i]
    out[n:] = 0.0


@part
def means_of(x, params):
    """Return the root mean squares of the columns, those of both factors together."""
    means, count = np.zeros(params[0][4]), params[0][3] + params[0][5]
    for i in range(1, 3):
        block = layer(x, params, i)
        for p in range(block.shape[0]):
            for q in range(block.shape[1]):
                means[p if i == 1 else q] += block[p, q] ** 2 / count
    for a in range(means.size):
        means[a] = np.sqrt(means[a])
    return means


@part
def rows_of(x, params, sizes, i):
    """Return the roots of the sizes of the rows of A e^l, or of B e^l, in terms of the largest."""
    block = layer(x, params, i)
    rows, largest = np.zeros(block.shape[1] if i == 1 else block.shape[0]), 0.0
    for p in range(block.shape[0]):
        for q in range(block.shape[1]):
            a, unit = (p, q) if i == 1 else (q, p)
            rows[unit] += (sizes[a] * block[p, q]) ** 2
            largest = max(largest, rows[unit])
    for unit in range(rows.size):
        rows[unit] = np.sqrt(max(np.sqrt(rows[unit] / largest), SHARE))
    return rows


@jit
def error_scale(t, x, params, out):
    """Write for each entry of the factors the size of its column, less in small rows; and ones.

    A column is judged by itself, whatever its part in W. Where rows of W differ in size, as in the
    example of RC20, all columns have to be known better in the small ones.
    """
    k, n, means = params[0][4], x.size - params[0][4], means_of(x, params)
    sizes = np.empty(k)
    scales(x, params, sizes)
    for i in range(1, 3):
        scaled, rows = layer(out, params, i), rows_of(x, params, sizes, i)
        for p in range(scaled.shape[0]):
            for q in range(scaled.shape[1]):
                a, unit = (p, q) if i == 1 else (q, p)
                scaled[p, q] = means[a] * rows[unit]
    out[n:] = 1.0


@part
def columns_of(x, params):
    """Return the columns of B, and those of A, as rows."""
    k = params[0][4]
    inputs, outputs = layer(x, params, 1), layer(x, params, 2)
    right, left = np.empty((k, inputs.shape[1])), np.empty((k, outputs.shape[0]))
    for a in range(k):
        for i in range(right.shape[1]):
            right[a, i] = inputs[a, i]
        for i in range(left.shape[1]):
            left[a, i] = outputs[i, a]
    return right, left


@part
def is_sound(right, left):
    """Tell whether columns are of size one and far from dependent, of both factors alike."""
    k = right.shape[0]
    squares = np.empty(k)
    for a in range(k):
        first, second = dot(right[a], right[a]), dot(left[a], left[a])
        squares[a] = 0.5 * (first + second)
        if not abs(first - second) <= UNBALANCED * squares[a]:
            return False
        if not 1.0 / GROWN <= squares[a] <= GROWN:
            return False
    for a in range(k):
        leaning = 0.0
        for b in range(k):
            if b != a:
                first, second = dot(right[a], right[b]), dot(left[a], left[b])
                size = np.sqrt(squares[a] * squares[b])
                if not abs(first - second) <= UNBALANCED * size:
                    return False
                leaning += 0.5 * abs(first + second) / size
        if not leaning <= LEANING:
            return False
    return True


@part
def descending(right, left, logs):
    """Sort the columns by their part of W."""
    for a in range(1, logs.size):
        for b in range(a, 0, -1):
            if logs[b] > logs[b - 1]:
                logs[b], logs[b - 1] = logs[b - 1], logs[b]
                swap(right[b], right[b - 1])
                swap(left[b], left[b - 1])


@part
def swap(a, b):
    """Exchange two vectors."""
    for i in range(a.size):
        a[i], b[i] = b[i], a[i]


@part
def multiply_by(factor, a):
    """Compute ``a *= factor``."""
    for i in range(a.size):
        a[i] *= factor


@part
def orthonormalize(right, left, logs):
    """Make the rows of ``right`` orthonormal; move what that takes to ``left``.

    Σ_j e^{m_j} a_j b_jᵀ with b_j = Σ_{i≤j} R_ij q_i is Σ_i e^{m_i} c_i q_iᵀ with
    c_i = Σ_{j≥i} R_ij e^{m_j − m_i} a_j: nothing large comes to what is small.
    """
    k = logs.size
    for j in range(k):
        for _ in range(2):
            for i in range(j):
                part_of = dot(right[i], right[j])
                add_multiple(-part_of, right[i], right[j])
                add_multiple(part_of * np.exp(logs[j] - logs[i]), left[j], left[i])
        size = length(right[j])
        multiply_by(1.0 / size, right[j])
        multiply_by(size, left[j])


@part
def turn_pair(first, second, q_first, q_second, ratio):
    """Make ``first`` normal to ``second``, which counts ``ratio`` times; tell if it was not.

    By a rotation of both, and of q, by the small one of the two angles.
    """
    alpha, beta, gamma = dot(first, first), dot(second, second), dot(first, second)
    if not abs(gamma) > first.size * EPS * np.sqrt(alpha * beta):
        return False
    apart = alpha - ratio * ratio * beta
    sign = 1.0 if apart >= 0.0 else -1.0
    tau = 2.0 * gamma * sign / (abs(apart) + np.sqrt(apart**2 + (2.0 * ratio * gamma) ** 2))
    t = ratio * tau
    c = 1.0 / np.sqrt(1.0 + t * t)
    for i in range(first.size):
        x, y = first[i], second[i]
        first[i], second[i] = c * (x + t * ratio * y), c * (y - tau * x)
    for i in range(q_first.size):
        x, y = q_first[i], q_second[i]
        q_first[i], q_second[i] = c * (x + t * y), c * (y - t * x)
    return True


@part
def diagonalize(right, left, logs):
    """Make the rows of ``left`` orthonormal, too, by rotations; write ln s of W, in ``logs``."""
    k = logs.size
    for _ in range(SWEEPS):
        turned = False
        for a in range(k):
            for b in range(a + 1, k):
                ratio = np.exp(logs[b] - logs[a])
                turned |= turn_pair(left[a], left[b], right[a], right[b], ratio)
        if not turned:
            break
    for a in range(k):
        size = length(left[a])
        multiply_by(1.0 / size, left[a])
        logs[a] += np.log(size)


@jit
def canonical(t, x, params, out):
    """Write the same W with its singular vectors as columns, and l = ½ ln s, s descending."""
    k, n = params[0][4], x.size - params[0][4]
    right, left = columns_of(x, params)
    logs = room(k)
    for a in range(k):
        first, last = length(right[a]), length(left[a])
        multiply_by(1.0 / first, right[a])
        multiply_by(1.0 / last, left[a])
        logs[a] = 2.0 * x[n + a] + np.log(first * last)
    descending(right, left, logs)
    orthonormalize(right, left, logs)
    diagonalize(right, left, logs)
    descending(right, left, logs)
    inputs, outputs = layer(out, params, 1), layer(out, params, 2)
    for a in range(k):
        out[n + a] = 0.5 * logs[a]
        for i in range(right.shape[1]):
            inputs[a, i] = right[a, i]
        for i in range(left.shape[1]):
            outputs[i, a] = left[a, i]


@jit
def restore(x, params, reference, rtol, thorough):
    """Make columns orthonormal again that are no more; tell whether it had to."""
    right, left = columns_of(x, params)
    if is_sound(right, left):
        return False
    better = room(x.size)
    canonical(0.0, x, params, better)
    copy(better, x)
    return True
