"""What the flow of layers conserves, C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}, and the sizes of units.

Functions take the state and the sizes of `linear`; the C_i, and symmetric matrices S_i like them,
are kept one after the other in a vector, i = 1..h−1, each row by row.
"""

import numpy as np

from dlnds._kernels.dense import (
    clear,
    dot,
    fill,
    matrix_at,
    multiply,
    multiply_left_transposed,
    multiply_right_transposed,
    room,
    scale,
)
from dlnds._kernels.jit import jit, part, sums
from dlnds._kernels.linear import layer

#: Drift of the C_i, relative to the squared size of the units, that is left alone: at a thorough
#: look, and between two of them. At wide layers to mend it takes as long as some steps, and this
#: part of the tolerance of a run is left alone.
TOLERATED, BETWEEN, OF_RTOL = 5e-11, 1e-9, 1e-3
#: Part of the drift that one call may leave, and the iterations it may take; the part of its square
#: that an iteration of a call that is not thorough has to leave less than.
LEFT, ITERATIONS, STALLED = 0.05, 30, 0.8
#: Entries of all C_i up to which loops over them are faster than products of matrices.
FEW_ENTRIES = 200
#: Curvature, in terms of the sizes of units, of a direction that does not change the C_i; and the
#: largest relative move that is one.
SINGULAR, LARGEST_MOVE = 1e-10, 1e-2


@part
def width(params, i):
    """Return d_i."""
    return params[0][3 + i]


@part
def square(vector, params, i):
    """Return block i = 1..h−1 (d_i × d_i) as a view."""
    start = 0
    for j in range(1, i):
        start += width(params, j) * width(params, j)
    d = width(params, i)
    return matrix_at(vector, start, d, d)


@sums
def squares(x, params, i, ends, starts):
    """Write the squared weights of layer i of the units it ends in, and of those it starts from."""
    weights = layer(x, params, i)
    clear(starts)
    for a in range(weights.shape[0]):
        total, row = 0.0, weights[a]
        for b in range(row.size):
            square = row[b] * row[b]
            total += square
            starts[b] += square
        ends[a] = total


@part
def widest(params):
    """Return the largest width."""
    largest = 0
    for i in range(params[0][0] + 1):
        largest = max(largest, width(params, i))
    return largest


@jit
def error_scale(t, x, params, out):
    """Write for each weight the geometric mean of the sizes of the two units that it joins.

    The size of a unit is the root mean square of all weights that end in it or start from it. What
    has not been learnt yet is so judged by itself, not by the modes that are learnt already.
    """
    depth = params[0][0]
    most = widest(params)
    ends, next_ends, starts = room(most), room(most), room(most)
    roots = matrix_at(room((depth + 1) * most), 0, depth + 1, most)  # of the sizes
    clear(ends)
    for i in range(1, depth + 1):
        squares(x, params, i, next_ends, starts)
        before, here = width(params, i - 1), width(params, i)
        feeding = width(params, i - 2) if i > 1 else 0
        for b in range(before):
            roots[i - 1, b] = np.sqrt(np.sqrt((ends[b] + starts[b]) / (feeding + here)))
        ends, next_ends = next_ends, ends
    for a in range(width(params, depth)):
        roots[depth, a] = np.sqrt(np.sqrt(ends[a] / width(params, depth - 1)))
    for i in range(1, depth + 1):
        scales, earlier = layer(out, params, i), roots[i - 1]
        for a in range(scales.shape[0]):
            root, row = roots[i, a], scales[a]
            for b in range(row.size):
                row[b] = root * earlier[b]


@part
def grams(x, params, differences, totals):
    """Write C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1} and M_i = W_i W_iᵀ + W_{i+1}ᵀ W_{i+1} for each i."""
    for i in range(1, params[0][0]):
        before, after = layer(x, params, i), layer(x, params, i + 1)
        first, second = square(differences, params, i), square(totals, params, i)
        multiply_right_transposed(before, before, first, 0.0)
        multiply_left_transposed(after, after, second, 0.0)
    for i in range(totals.size):
        into, out_of = differences[i], totals[i]
        differences[i], totals[i] = into - out_of, into + out_of


@part
def drift(x, params, reference, sizes):
    """Return the largest relative change of a C_i[k, k]; write the squared sizes of all units."""
    largest, place, most = 0.0, 0, widest(params)
    ends, next_ends, starts = room(most), room(most), room(most)
    for i in range(1, params[0][0] + 1):
        squares(x, params, i, next_ends, starts)
        if i > 1:
            kept = square(reference, params, i - 1)
            for k in range(kept.shape[0]):
                size = ends[k] + starts[k]
                if size > 0.0:
                    largest = max(largest, abs(ends[k] - starts[k] - kept[k, k]) / size)
                sizes[place + k] = size
            place += kept.shape[0]
        ends, next_ends = next_ends, ends
    return largest


@sums
def drift_between(x, params, reference, sizes):
    """Return the largest change of a C_i[k, m], m < k, in terms of the sizes of units k and m."""
    largest, place = 0.0, 0
    for i in range(1, params[0][0]):
        into, out_of = layer(x, params, i), layer(x, params, i + 1)
        kept = square(reference, params, i)
        for k in range(into.shape[0]):
            for m in range(k):
                change = -kept[k, m]
                for b in range(into.shape[1]):
                    change += into[k, b] * into[m, b]
                for a in range(out_of.shape[0]):
                    change -= out_of[a, k] * out_of[a, m]
                size = sizes[place + k] * sizes[place + m]
                if change**2 > largest * size and size > 0.0:
                    largest = change**2 / size
        place += into.shape[0]
    return np.sqrt(largest)


@part
def off_diagonal(residual, params, sizes):
    """Return the largest entry k, l of a block in terms of the sizes of units k and l."""
    largest, place = 0.0, 0
    for i in range(1, params[0][0]):
        block = square(residual, params, i)
        for k in range(block.shape[0]):
            for m in range(k):
                change, size = block[k, m] ** 2, sizes[place + k] * sizes[place + m]
                if change > largest * size and size > 0.0:
                    largest = change / size
        place += block.shape[0]
    return np.sqrt(largest)


@part
def move(x, params, S, out):
    """Write S_i W_i − W_i S_{i−1}, along which W_h…W_1 does not change to first order."""
    depth = params[0][0]
    for i in range(1, depth + 1):
        weights, moved = layer(x, params, i), layer(out, params, i)
        fill(0.0, moved)
        if i > 1:
            multiply(weights, square(S, params, i - 1), moved, 0.0)
        if i < depth:
            multiply(square(S, params, i), weights, moved, -1.0)
        else:
            scale(-1.0, moved)


@part
def inverse_sizes(sizes, params, residual, out):
    """Write, for each entry k, l of a block, one over the sum of the squared sizes of both units.

    What cannot be mended by a small move is nothing but rounding, between units of no size: zero.
    """
    place = 0
    for i in range(1, params[0][0]):
        block, result = square(residual, params, i), square(out, params, i)
        for k in range(block.shape[0]):
            for m in range(block.shape[0]):
                size = sizes[place + k] + sizes[place + m]
                small = abs(block[k, m]) < LARGEST_MOVE * size
                result[k, m] = 1.0 / size if small else 0.0
        place += block.shape[0]


@part
def times(a, b, out):
    """Multiply entry by entry."""
    for i in range(out.size):
        out[i] = a[i] * b[i]


@part
def derivative(x, params, totals, S, out):
    """Write the derivative of the C_i along the move with the symmetric matrices ``S``.

    That is Y_i + Y_iᵀ with Y_i = S_i M_i − W_i S_{i−1} W_iᵀ − W_{i+1}ᵀ S_{i+1} W_{i+1}.
    """
    depth = params[0][0]
    clear(out)
    for i in range(2, depth):
        weights, before, after = layer(x, params, i), square(S, params, i - 1), square(S, params, i)
        size = weights.shape[0] * weights.shape[1]
        product = matrix_at(room(size), 0, weights.shape[0], weights.shape[1])
        multiply(weights, before, product, 0.0)
        multiply_right_transposed(product, weights, square(out, params, i), 1.0)
        multiply(after, weights, product, 0.0)
        multiply_left_transposed(weights, product, square(out, params, i - 1), 1.0)
    for i in range(1, depth):
        block = square(out, params, i)
        multiply(square(S, params, i), square(totals, params, i), block, -1.0)
        for k in range(block.shape[0]):
            for m in range(k + 1):
                block[k, m] += block[m, k]
                block[m, k] = block[k, m]


@part
def add(a, factor, b, out):
    """Compute ``a + factor b``."""
    for i in range(out.size):
        out[i] = a[i] + factor * b[i]


@part
def solve(x, params, totals, weights, residual, thorough, S):
    """Find S along which the C_i change by ``residual``, of which what is left is written.

    Conjugate residuals, preconditioned by ``weights``. What is left gets less with each iteration,
    which is why all but thorough calls stop where it hardly does: modes that are much smaller than
    the units that they share take many iterations and are seen in no C_i.
    """
    image, turned = room(residual.size), room(residual.size)
    better, direction, weighted = room(residual.size), room(residual.size), room(residual.size)
    clear(S)
    clear(direction)
    clear(image)
    times(weights, residual, better)
    size, last = dot(residual, better), 1.0
    enough = LEFT**2 * size
    for _ in range(ITERATIONS):
        derivative(x, params, totals, better, turned)
        curvature = dot(better, turned)
        if not (size > enough and curvature > SINGULAR * size):
            break
        add(better, curvature / last, direction, direction)
        add(turned, curvature / last, image, image)
        times(weights, image, weighted)
        length = curvature / dot(image, weighted)
        add(S, length, direction, S)
        add(residual, -length, image, residual)
        add(better, -length, weighted, better)
        before, last, size = size, curvature, dot(residual, better)
        if not (thorough or size < STALLED * before):
            break


@jit
def restore(x, params, reference, rtol, thorough):
    """Move the state to where its C_i are those of ``reference``; tell whether it had to.

    Whether is seen from the diagonals of the C_i, or from all entries if ``thorough``.

    The move Ẇ_i = S_i W_i − W_i S_{i−1} with symmetric S_i is normal to the level set of the C_i
    and leaves W_h…W_1, and so the loss, as it is. The C_i change along it by a positive
    semidefinite operator.
    """
    sizes, residual, totals = room(params[0][-1]), room(reference.size), room(reference.size)
    tolerated, few = TOLERATED if thorough else BETWEEN, reference.size <= FEW_ENTRIES
    if not few:
        tolerated = max(tolerated, OF_RTOL * rtol)
    little = drift(x, params, reference, sizes) <= tolerated
    if little and not thorough:
        return False
    if little and few:
        little = drift_between(x, params, reference, sizes) <= tolerated
        if little:
            return False
    grams(x, params, residual, totals)
    add(reference, -1.0, residual, residual)
    if little and off_diagonal(residual, params, sizes) <= tolerated:
        return False
    S, weights, moved = room(residual.size), room(residual.size), room(x.size)
    inverse_sizes(sizes, params, residual, weights)
    solve(x, params, totals, weights, residual, thorough, S)
    for i in range(S.size):
        if not abs(S[i]) < LARGEST_MOVE:
            S[i] = 0.0
    move(x, params, S, moved)
    add(x, 1.0, moved, x)
    return True
