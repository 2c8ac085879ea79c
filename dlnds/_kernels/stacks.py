"""The Jacobian of the flow of a deep linear network times many vectors at once.

Vectors are the columns of a matrix (parameter, vector); some rows of it make up layer i of all of
them, a stack of matrices. Every product with a weight then runs along the vectors, which lie next
to each other: faster than the vectors one by one, and than a product with the matrix, even if that
were given. Products of single matrices are those of a stack with one column; so all are of one
kind. State, ``params`` and names are those of `linear`.
"""

import numpy as np

from dlnds._kernels import losses
from dlnds._kernels.dense import assign, assign_identity, scaled_sum
from dlnds._kernels.jit import jit, part
from dlnds._kernels.linear import buffer_size, input_side, layer, output_side, root, write_signal
from dlnds._kernels.vectors import add_combination

# Products of a matrix with each matrix of a stack ``v``, added to the stack ``out``. Stacks are
# given as matrices of all their vectors, whose rows are those of the matrices one after the other.


@part
def add_products(a, a_row, a_column, a_inner, v, v_row, v_column, v_inner, sizes, out):
    """Add the sums of ``a`` times rows of ``v`` over an inner index to each row of ``out``.

    The strides say how far the place in an array moves with the row and the column of a matrix of
    ``out``, and with the inner index; ``sizes`` are the numbers of these three.
    """
    rows, columns, inner = sizes
    for i in range(rows):
        for j in range(columns):
            first, start = i * a_row + j * a_column, i * v_row + j * v_column
            add_combination(a, first, a_inner, v, start, v_inner, inner, out, i * columns + j)


@part
def add_left(a, v, out):
    """Add ``a v``."""
    rows, inner = a.shape
    columns = v.shape[0] // inner
    add_products(a, inner, 0, 1, v, 0, 1, columns, (rows, columns, inner), out)


@part
def add_left_transposed(a, v, out):
    """Add ``aᵀ v``."""
    inner, rows = a.shape
    columns = v.shape[0] // inner
    add_products(a, 1, 0, rows, v, 0, 1, columns, (rows, columns, inner), out)


@part
def add_right(v, a, out):
    """Add ``v a``."""
    inner, columns = a.shape
    sizes = (v.shape[0] // inner, columns, inner)
    add_products(a, 0, 1, columns, v, inner, 0, 1, sizes, out)


@part
def add_right_transposed(v, a, out):
    """Add ``v aᵀ``."""
    columns, inner = a.shape
    sizes = (v.shape[0] // inner, columns, inner)
    add_products(a, 0, inner, 1, v, inner, 0, 1, sizes, out)


@part
def add_transposed_right(v, a, out):
    """Add ``vᵀ a``."""
    inner, columns = a.shape
    rows = v.shape[0] // inner
    add_products(a, 0, 1, columns, v, 1, 0, rows, (rows, columns, inner), out)


@part
def add_left_of_transposed(a, v, out):
    """Add ``a vᵀ``."""
    rows, inner = a.shape
    columns = v.shape[0] // inner
    add_products(a, inner, 0, 1, v, 0, inner, 1, (rows, columns, inner), out)


@part
def stacked_layer(vectors, params, i):
    """Return layer i = 1..h of vectors (parameter, vector) as a view."""
    sizes = params[0]
    starts = 4 + sizes[0]
    return vectors[sizes[starts + i - 1] : sizes[starts + i]]


@part
def stacked_side(buffer, params, i):
    """Return block i = 0..h of the input side (d_i × k) of all vectors as a view."""
    sizes = params[0]
    place, k = 5 + 2 * sizes[0] + i, sizes[1]
    return buffer[sizes[place] * k : sizes[place + 1] * k]


@part
def squared_norm(a):
    """Return the sum of squares of a matrix."""
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += a[i, j] * a[i, j]
    return total


@part
def input_products(x, params, products):
    """Write P_1, …, P_h into ``products``, from zeros."""
    first = layer(x, params, 1)
    if params[0][2] == losses.WHITENED:
        assign(first, input_side(products, params, 1))
    else:
        add_left(first, root(params), input_side(products, params, 1))
    for i in range(2, params[0][0] + 1):
        before = input_side(products, params, i - 1)
        add_left(layer(x, params, i), before, input_side(products, params, i))


@part
def input_changes(x, vectors, params, products, changes):
    """Write the derivatives of P_1, …, P_h along the vectors, from zeros."""
    first, change = stacked_layer(vectors, params, 1), stacked_side(changes, params, 1)
    if params[0][2] == losses.WHITENED:
        assign(first, change)
    else:
        add_right(first, root(params), change)
    for i in range(2, params[0][0] + 1):
        before, change = stacked_side(changes, params, i - 1), stacked_side(changes, params, i)
        add_left(layer(x, params, i), before, change)
        add_right(stacked_layer(vectors, params, i), input_side(products, params, i - 1), change)


@part
def trace(x, params, products):
    """Return the trace of the Jacobian, −Σ_i ‖L_i‖² ‖P_{i−1}‖², from the P_i."""
    depth, inputs, total = params[0][0], float(params[0][3]), 0.0
    if params[0][2] != losses.WHITENED:
        inputs = squared_norm(root(params))
    lefts = np.zeros(buffer_size(params, params[0][3 + depth]))
    assign_identity(output_side(lefts, params, depth))
    for i in range(depth, 1, -1):
        after = output_side(lefts, params, i)
        add_left(after, layer(x, params, i), output_side(lefts, params, i - 1))
    for i in range(1, depth + 1):
        total -= squared_norm(output_side(lefts, params, i)) * inputs
        inputs = squared_norm(input_side(products, params, i))
    return total


@jit
def tangent(t, x, vectors, params, out):
    """Write the derivative of the field along each column of ``vectors``; return its trace.

    As `linear.jvp_from_inputs`, of which every product is here one with a stack.
    """
    depth, count, size = params[0][0], vectors.shape[1], buffer_size(params, params[0][1])
    products, signals = np.zeros(size), np.zeros(size)
    changes, d_signals = np.zeros((size, count)), np.zeros((size, count))
    input_products(x, params, products)
    input_changes(x, vectors, params, products, changes)
    out[:] = 0.0
    signal, d_signal = input_side(signals, params, depth), stacked_side(d_signals, params, depth)
    write_signal(params, input_side(products, params, depth), signal)
    change = stacked_side(changes, params, depth)
    scaled_sum(-1.0, change, 0.0, change, d_signal)
    for i in range(depth, 1, -1):
        slot = stacked_layer(out, params, i)
        add_right_transposed(d_signal, input_side(products, params, i - 1), slot)
        add_left_of_transposed(signal, stacked_side(changes, params, i - 1), slot)
        weights, earlier = layer(x, params, i), input_side(signals, params, i - 1)
        d_earlier = stacked_side(d_signals, params, i - 1)
        add_left_transposed(weights, d_signal, d_earlier)
        add_transposed_right(stacked_layer(vectors, params, i), signal, d_earlier)
        add_left_transposed(weights, signal, earlier)
        signal, d_signal = earlier, d_earlier
    slot = stacked_layer(out, params, 1)
    if params[0][2] == losses.WHITENED:
        assign(d_signal, slot)
    else:
        add_right_transposed(d_signal, root(params), slot)
    return trace(x, params, products)
