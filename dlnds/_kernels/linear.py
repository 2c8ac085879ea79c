"""Gradient flow of a deep linear network: vector field, directional derivative, Jacobian.

With the target Σ (d_h × k) and the input root K (d_0 × k, C = K Kᵀ; the identity if the problem is
whitened) the loss is ½‖R‖², R = Σ − W_h…W_1 K. The network then looks like a whitened one whose
first layer K is frozen, so general input covariance is no second case below: only products with an
identity K are left out. Nor is another loss ℓ of the image S = W K: there K holds the inputs, one
sample a column, Σ the labels, and the signal R that is propagated back is −∂ℓ/∂S.

Layout of ``params``: integers h, k, the form of the loss, d_0, …, d_h, then where
each layer starts in the state and where it ends, then the sums d_0 + … + d_{i−1} for
i = 0, …, h + 1; floats Σ, then K unless whitened, each row by row, and for losses other than the
square one their two constants. The state holds W_1, …, W_h, each row by row.

The field Ẇ_i = W_{i+1:h}ᵀ R Kᵀ W_{1:i−1}ᵀ (WA25; BRTW22 for general covariance) is computed from
the partial products of one side, P_i = W_{1:i} K (d_i × k) or L_i = W_{i+1:h} (d_h × d_i). The
system takes the narrower one.

Other losses ℓ take the labels Y = Σ and the image S, one sample a column, and two constants, the
factor c before the sum over samples and the power p:

- logistic: c Σ log(1 + exp(−Y S)), entry by entry, Y = ±1;
- cross entropy: c Σ_n Σ_o Y_on log(Σ_j exp(S_jn) / S_on), columns of Y with the sum 1;
- power: (c/p) Σ |Y − S|^p.

Losses of linear measurements of W have S = W, k = d_0. Entries, ½ Σ V (Y − W)² with weights V, have
these in the place of K; others, ½ Σ_m v_m (y_m − ⟨A_m, W⟩)², the floats A, y and v alone. Of sparse
A_m the floats are their number, where each begins and ends, places and values of their entries in
W, and y and v.

Differences of nearly equal probabilities are never taken, so that signals are accurate to rounding
however large the margins are.
"""

import numpy as np

from dlnds._kernels.dense import (
    add_left,
    add_left_of_transposed,
    add_left_transposed,
    add_right,
    add_right_transposed,
    add_transposed_right,
    assign,
    assign_identity,
    assign_transposed,
    fill,
    matrix_at,
    multiply,
    multiply_left_transposed,
    multiply_right_transposed,
    room,
    scaled_sum,
)
from dlnds._kernels.jit import inlined, jit, part, variant

#: Forms of the square loss come first: with an input root, and of a whitened problem.
ROOT, WHITENED, LOGISTIC, CROSS_ENTROPY, POWER, ENTRIES, MEASUREMENTS, SPARSE = range(8)
#: Whether the loss is the square one; kernels of other losses are variants at the end.
SQUARE = True


@part
def layer(x, params, i):
    """Return W_i, i = 1..h, as a view of the state."""
    sizes = params[0]
    starts = 4 + sizes[0]
    return matrix_at(x, sizes[starts + i - 1], sizes[3 + i], sizes[2 + i])


@part
def buffer_size(params, breadth):
    """Return the size of h + 1 blocks of d_i × ``breadth`` numbers."""
    return params[0][-1] * breadth


@part
def input_side(buffer, params, i):
    """Return block i = 0..h of the input side (d_i × k) as a view."""
    sizes = params[0]
    place, k = 5 + 2 * sizes[0] + i, sizes[1]
    return matrix_at(buffer, sizes[place] * k, sizes[3 + i], k)


@part
def output_side(buffer, params, i):
    """Return block i = 0..h of the output side (d_h × d_i) as a view."""
    sizes = params[0]
    place, outputs = 5 + 2 * sizes[0] + i, sizes[3 + sizes[0]]
    return matrix_at(buffer, sizes[place] * outputs, outputs, sizes[3 + i])


@part
def target(params):
    """Return Σ (d_h × k) as a view."""
    sizes, floats = params
    outputs, k = sizes[3 + sizes[0]], sizes[1]
    return matrix_at(floats, 0, outputs, k)


@part
def root(params):
    """Return K (d_0 × k) as a view, if the problem is not whitened."""
    sizes, floats = params
    return matrix_at(floats, sizes[3 + sizes[0]] * sizes[1], sizes[3], sizes[1])


@inlined
def has_root(params):
    """Tell whether there is a K, and S is not W itself."""
    return params[0][2] != WHITENED and params[0][2] < ENTRIES


@part
def times_root(a, params, out):
    """Write ``a K`` into ``out``."""
    if not has_root(params):
        assign(a, out)
    else:
        multiply(a, root(params), out, 0.0)


@part
def times_root_transposed(a, params, out):
    """Write ``a Kᵀ`` into ``out``."""
    if not has_root(params):
        assign(a, out)
    else:
        multiply_right_transposed(a, root(params), out, 0.0)


@inlined
def write_signal(params, image, out):
    """Write R = Σ − S at S = ``image`` into ``out``, which may be ``image`` itself."""
    scaled_sum(1.0, target(params), -1.0, image, out)


@inlined
def write_signal_change(params, image, change, out):
    """Write the derivative of R along ``change`` of S into ``out``, which may be ``change``."""
    scaled_sum(-1.0, change, 0.0, change, out)


@part
def write_loss_signal(params, image, out):
    """Write R = −∂ℓ/∂S of another loss, as `write_signal` does."""
    if params[0][2] <= WHITENED:
        scaled_sum(1.0, target(params), -1.0, image, out)
    elif params[0][2] == ENTRIES:
        entries_signal(target(params), entry_weights(params), image, out)
    elif params[0][2] == MEASUREMENTS:
        measured_signal(measurements(params), 1.0, image, out)
    elif params[0][2] == SPARSE:
        sparse_signal(params[1], 1.0, image, out)
    else:
        loss_signal(params[0][2], target(params), params[1][-2:], image, out)


@part
def write_loss_signal_change(params, image, change, out):
    """Write the derivative of `write_loss_signal`, as `write_signal_change` does."""
    if params[0][2] <= WHITENED:
        scaled_sum(-1.0, change, 0.0, change, out)
    elif params[0][2] == ENTRIES:
        entries_change(entry_weights(params), change, out)
    elif params[0][2] == MEASUREMENTS:
        measured_signal(measurements(params), 0.0, change, out)
    elif params[0][2] == SPARSE:
        sparse_signal(params[1], 0.0, change, out)
    else:
        loss_signal_change(params[0][2], target(params), params[1][-2:], image, change, out)


@part
def input_products(x, params, products):
    """Write P_1, …, P_h into ``products``."""
    for i in range(1, params[0][0] + 1):
        weights, product = layer(x, params, i), input_side(products, params, i)
        if i == 1:
            times_root(weights, params, product)
        else:
            multiply(weights, input_side(products, params, i - 1), product, 0.0)


@part
def output_products(x, params, products):
    """Write L_{h−1}, …, L_0 into ``products``."""
    depth = params[0][0]
    assign(layer(x, params, depth), output_side(products, params, depth - 1))
    for i in range(depth - 1, 0, -1):
        after = output_side(products, params, i)
        multiply(after, layer(x, params, i), output_side(products, params, i - 1), 0.0)


@jit
def field_from_inputs(t, x, params, out):
    """Write the field as Ẇ_i = B_i P_{i−1}ᵀ, B_{i−1} = W_iᵀ B_i, B_h = R."""
    depth = params[0][0]
    size = buffer_size(params, params[0][1])
    products, signals = room(size), room(size)
    input_products(x, params, products)
    signal = input_side(signals, params, depth)
    write_signal(params, input_side(products, params, depth), signal)
    for i in range(depth, 0, -1):
        slot = layer(out, params, i)
        if i == 1:
            times_root_transposed(signal, params, slot)
        else:
            multiply_right_transposed(signal, input_side(products, params, i - 1), slot, 0.0)
            earlier = input_side(signals, params, i - 1)
            multiply_left_transposed(layer(x, params, i), signal, earlier, 0.0)
            signal = earlier


@jit
def field_from_outputs(t, x, params, out):
    """Write the field as Ẇ_i = L_iᵀ T_{i−1}, T_i = T_{i−1} W_iᵀ, T_0 = R Kᵀ."""
    depth, outputs = params[0][0], params[0][3 + params[0][0]]
    size = buffer_size(params, outputs)
    products, signals = room(size), room(size)
    output_products(x, params, products)
    image = np.empty((outputs, params[0][1]))
    times_root(output_side(products, params, 0), params, image)
    signal = output_side(signals, params, 0)
    write_signal(params, image, image)
    times_root_transposed(image, params, signal)
    for i in range(1, depth):
        after = output_side(products, params, i)
        multiply_left_transposed(after, signal, layer(out, params, i), 0.0)
        later = output_side(signals, params, i)
        multiply_right_transposed(signal, layer(x, params, i), later, 0.0)
        signal = later
    assign(signal, layer(out, params, depth))


@jit
def jvp_from_inputs(t, x, v, params, out):
    """Write the derivative of `field_from_inputs` along ``v``: minus the Hessian times ``v``."""
    depth = params[0][0]
    size = buffer_size(params, params[0][1])
    products, signals = room(size), room(size)
    d_products, d_signals = room(size), room(size)
    input_products(x, params, products)
    times_root(layer(v, params, 1), params, input_side(d_products, params, 1))
    for i in range(2, depth + 1):
        change = input_side(d_products, params, i)
        multiply(layer(v, params, i), input_side(products, params, i - 1), change, 0.0)
        before = input_side(d_products, params, i - 1)
        multiply(layer(x, params, i), before, change, 1.0)
    signal, d_signal = input_side(signals, params, depth), input_side(d_signals, params, depth)
    image = input_side(products, params, depth)
    write_signal(params, image, signal)
    write_signal_change(params, image, input_side(d_products, params, depth), d_signal)
    for i in range(depth, 1, -1):
        slot = layer(out, params, i)
        multiply_right_transposed(d_signal, input_side(products, params, i - 1), slot, 0.0)
        before = input_side(d_products, params, i - 1)
        multiply_right_transposed(signal, before, slot, 1.0)
        weights, direction = layer(x, params, i), layer(v, params, i)
        d_earlier = input_side(d_signals, params, i - 1)
        multiply_left_transposed(weights, d_signal, d_earlier, 0.0)
        multiply_left_transposed(direction, signal, d_earlier, 1.0)
        earlier = input_side(signals, params, i - 1)
        multiply_left_transposed(weights, signal, earlier, 0.0)
        signal, d_signal = earlier, d_earlier
    times_root_transposed(d_signal, params, layer(out, params, 1))


@jit
def jvp_from_outputs(t, x, v, params, out):
    """Write the derivative of `field_from_outputs` along ``v``: minus the Hessian times ``v``."""
    depth, outputs = params[0][0], params[0][3 + params[0][0]]
    size = buffer_size(params, outputs)
    products, signals = room(size), room(size)
    d_products, d_signals = room(size), room(size)
    output_products(x, params, products)
    assign(layer(v, params, depth), output_side(d_products, params, depth - 1))
    for i in range(depth - 1, 0, -1):
        change = output_side(d_products, params, i - 1)
        multiply(output_side(products, params, i), layer(v, params, i), change, 0.0)
        after = output_side(d_products, params, i)
        multiply(after, layer(x, params, i), change, 1.0)
    image, d_image = np.empty((outputs, params[0][1])), np.empty((outputs, params[0][1]))
    signal, d_signal = output_side(signals, params, 0), output_side(d_signals, params, 0)
    times_root(output_side(products, params, 0), params, image)
    times_root(output_side(d_products, params, 0), params, d_image)
    write_signal_change(params, image, d_image, d_image)
    times_root_transposed(d_image, params, d_signal)
    write_signal(params, image, image)
    times_root_transposed(image, params, signal)
    for i in range(1, depth):
        slot = layer(out, params, i)
        multiply_left_transposed(output_side(products, params, i), d_signal, slot, 0.0)
        multiply_left_transposed(output_side(d_products, params, i), signal, slot, 1.0)
        weights, direction = layer(x, params, i), layer(v, params, i)
        d_later = output_side(d_signals, params, i)
        multiply_right_transposed(d_signal, weights, d_later, 0.0)
        multiply_right_transposed(signal, direction, d_later, 1.0)
        later = output_side(signals, params, i)
        multiply_right_transposed(signal, weights, later, 0.0)
        signal, d_signal = later, d_later
    assign(d_signal, layer(out, params, depth))


@part
def subtract_block(a, g, b, e, row, column, out):
    """Write ``b[p, s] e[q, r] − a[p, r] g[q, s]`` at row (p, q), column (r, s) of one block."""
    for p in range(a.shape[0]):
        for q in range(g.shape[0]):
            line = out[row + p * g.shape[0] + q]
            for r in range(a.shape[1]):
                first = column + r * g.shape[1]
                alpha, epsilon = a[p, r], e[q, r]
                for s in range(g.shape[1]):
                    line[first + s] = epsilon * b[p, s] - alpha * g[q, s]


@part
def add_kronecker(left, right, g, out):
    """Add ``left[p] right[r] g[q, s]`` at row (p, q), column (r, s)."""
    for p in range(left.size):
        for q in range(g.shape[0]):
            line = out[p * g.shape[0] + q]
            for r in range(right.size):
                factor = left[p] * right[r]
                for s in range(g.shape[1]):
                    line[r * g.shape[1] + s] += factor * g[q, s]


@part
def scale_columns(a, factors, out):
    """Write ``a`` with its columns multiplied by ``factors``."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = a[i, j] * factors[j]


@part
def add_curvature(params, inputs, lefts, out):
    """Add −Dᵀ ℓ'' D, D the derivative of the image S by the weights, and make ``out`` symmetric.

    For i ≤ j the block of W_i[p, q] and W_j[r, s] is
    −Σ_o L_i[o, p] Σ_{o'} L_j[o', r] Σ_n P_{i−1}[q, n] ℓ''[o, o', n] P_{j−1}[s, n],
    o' = o alone where ℓ is a sum over entries: again Kronecker products. The sums are taken from
    right to left.
    """
    sizes, one = params[0], np.ones(1)
    depth, outputs, k = sizes[0], sizes[3 + sizes[0]], sizes[1]
    image = input_side(inputs, params, depth)
    change, curvature = np.empty((outputs, k)), np.empty((outputs, k))
    for o in range(outputs):
        fill(0.0, change)
        fill(1.0, change[o : o + 1])
        write_loss_signal_change(params, image, change, curvature)
        first, end = o, o + 1
        if sizes[2] == CROSS_ENTROPY:
            first, end = 0, outputs
        for i in range(1, depth + 1):
            before, after = input_side(inputs, params, i - 1), output_side(lefts, params, i)
            weighted = np.empty((before.shape[0], k))
            row = sizes[3 + depth + i]
            for j in range(i, depth + 1):
                earlier, later = input_side(inputs, params, j - 1), output_side(lefts, params, j)
                g = np.empty((before.shape[0], earlier.shape[0]))
                part = np.zeros((before.shape[0], later.shape[1] * earlier.shape[0]))
                for other in range(first, end):
                    scale_columns(before, curvature[other], weighted)
                    multiply_right_transposed(weighted, earlier, g, 0.0)
                    add_kronecker(one, later[other], g, part)
                columns = out[row : sizes[4 + depth + i], sizes[3 + depth + j] :]
                add_kronecker(after[o], one, part, columns)
    for row in range(out.shape[0]):
        for column in range(row):
            out[row, column] = out[column, row]


@part
def measured_slope(params, one, inputs, lefts, out):
    """Write the gradient of ⟨A, W⟩ by the weights, with the layers L_iᵀ A P_{i−1}ᵀ."""
    for i in range(1, params[0][0] + 1):
        before, after = input_side(inputs, params, i - 1), output_side(lefts, params, i)
        half = np.empty((after.shape[1], one.shape[1]))
        multiply_left_transposed(after, one, half, 0.0)
        multiply_right_transposed(half, before, layer(out, params, i), 0.0)


@part
def add_measured_curvature(params, inputs, lefts, out):
    """Add −Σ_m v_m g_m g_mᵀ, g_m the gradient of ⟨A_m, W⟩."""
    sizes = params[0]
    outputs, k = sizes[3 + sizes[0]], sizes[1]
    operators, results, weights = measurements(params)
    count = results.shape[0]
    slopes, weighted = np.empty((count, out.shape[0])), np.empty((count, out.shape[0]))
    for m in range(count):
        measured_slope(params, operators[m].reshape(outputs, k), inputs, lefts, slopes[m])
        for place in range(out.shape[0]):
            weighted[m, place] = -weights[m, 0] * slopes[m, place]
    multiply_left_transposed(slopes, weighted, out, 1.0)


@part
def add_sparse_curvature(params, inputs, lefts, out):
    """Add the same of sparse A_m: the layers of g_m are sums over their entries."""
    sizes = params[0]
    starts, places, values, _, weights = sparse_measurements(params[1])
    count = weights.size
    slopes, weighted = np.zeros((count, out.shape[0])), np.empty((count, out.shape[0]))
    for m in range(count):
        for n in range(int(starts[m]), int(starts[m + 1])):
            row, column = divmod(int(places[n]), sizes[1])
            for i in range(1, sizes[0] + 1):
                before, after = input_side(inputs, params, i - 1), output_side(lefts, params, i)
                slope = layer(slopes[m], params, i)
                for p in range(slope.shape[0]):
                    factor = values[n] * after[row, p]
                    for q in range(slope.shape[1]):
                        slope[p, q] += factor * before[q, column]
        for place in range(out.shape[0]):
            weighted[m, place] = -weights[m] * slopes[m, place]
    multiply_left_transposed(slopes, weighted, out, 1.0)


@jit
def jacobian(t, x, params, out):
    """Write minus the Hessian of the loss, block by block.

    For i ≤ j the block of W_i[p, q] and W_j[r, s] is
    (L_iᵀ L_j)[p, r] (P_{i−1} P_{j−1}ᵀ)[q, s] − W_{i+1:j−1}[s, p] (P_{i−1} Rᵀ L_j)[q, r],
    the second term only for i < j: Kronecker products, no loop over columns. Losses other than the
    square one have `add_curvature` in place of the first term.
    """
    sizes = params[0]
    depth, outputs = sizes[0], sizes[3 + sizes[0]]
    inputs = np.empty(buffer_size(params, sizes[1]))
    lefts = np.empty(buffer_size(params, outputs))
    if not has_root(params):
        assign_identity(input_side(inputs, params, 0))
    else:
        assign(root(params), input_side(inputs, params, 0))
    input_products(x, params, inputs)
    assign_identity(output_side(lefts, params, depth))
    output_products(x, params, lefts)
    residual = np.empty((outputs, sizes[1]))
    write_signal(params, input_side(inputs, params, depth), residual)
    for i in range(1, depth + 1):
        before, after = input_side(inputs, params, i - 1), output_side(lefts, params, i)
        back = np.empty((before.shape[0], outputs))
        multiply_right_transposed(before, residual, back, 0.0)
        between = np.empty((sizes[3 + i], sizes[3 + i]))
        assign_identity(between)
        for j in range(i, depth + 1):
            later = output_side(lefts, params, j)
            a = np.zeros((after.shape[1], later.shape[1]))
            g = np.zeros((before.shape[0], sizes[2 + j]))
            if SQUARE:
                multiply_left_transposed(after, later, a, 0.0)
                multiply_right_transposed(before, input_side(inputs, params, j - 1), g, 0.0)
            b, e = np.zeros((a.shape[0], g.shape[1])), np.zeros((g.shape[0], a.shape[1]))
            if j > i:
                assign_transposed(between, b)
                multiply(back, later, e, 0.0)
                longer = np.empty((sizes[3 + j], between.shape[1]))
                multiply(layer(x, params, j), between, longer, 0.0)
                between = longer
            row, column = sizes[3 + depth + i], sizes[3 + depth + j]
            subtract_block(a, g, b, e, row, column, out)
            if j > i:
                a, g, b, e = a.T.copy(), g.T.copy(), e.T.copy(), b.T.copy()
                subtract_block(a, g, b, e, column, row, out)
    if not SQUARE:
        if sizes[2] == MEASUREMENTS:
            add_measured_curvature(params, inputs, lefts, out)
        elif sizes[2] == SPARSE:
            add_sparse_curvature(params, inputs, lefts, out)
        else:
            add_curvature(params, inputs, lefts, out)


_OTHER = {
    "SQUARE": False,
    "write_signal": write_loss_signal,
    "write_signal_change": write_loss_signal_change,
}
loss_field_from_inputs = variant(field_from_inputs, "loss_field_from_inputs", _OTHER)
loss_field_from_outputs = variant(field_from_outputs, "loss_field_from_outputs", _OTHER)
loss_jvp_from_inputs = variant(jvp_from_inputs, "loss_jvp_from_inputs", _OTHER)
loss_jvp_from_outputs = variant(jvp_from_outputs, "loss_jvp_from_outputs", _OTHER)
loss_jacobian = variant(jacobian, "loss_jacobian", _OTHER)


# The Jacobian times many vectors at once, the columns of a matrix (parameter, vector): some rows of
# it make up layer i of all of them, a stack of matrices. Every product with a weight then runs
# along the vectors, which lie next to each other: faster than the vectors one by one, and than a
# product with the matrix, even if that were given. Products of single matrices are those of a stack
# with one column; so all are of one kind.


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
def stack_products(x, params, products):
    """Write P_1, …, P_h into ``products``, from zeros."""
    first = layer(x, params, 1)
    if params[0][2] == WHITENED:
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
    if params[0][2] == WHITENED:
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
    if params[0][2] != WHITENED:
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

    As `jvp_from_inputs`, of which every product is here one with a stack.
    """
    depth, count, size = params[0][0], vectors.shape[1], buffer_size(params, params[0][1])
    products, signals = np.zeros(size), np.zeros(size)
    changes, d_signals = np.zeros((size, count)), np.zeros((size, count))
    stack_products(x, params, products)
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
    if params[0][2] == WHITENED:
        assign(d_signal, slot)
    else:
        add_right_transposed(d_signal, root(params), slot)
    return trace(x, params, products)


# Losses of linear measurements.


@part
def entry_weights(params):
    """Return the weights of entries (d_h × d_0), zero where none is observed, as a view."""
    sizes, floats = params
    outputs, k = sizes[3 + sizes[0]], sizes[1]
    return matrix_at(floats, outputs * k, outputs, k)


@part
def entries_signal(targets, weights, image, out):
    """Write V (Y − S) into ``out``, which may be ``image`` itself."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = weights[i, j] * (targets[i, j] - image[i, j])


@part
def entries_change(weights, change, out):
    """Write the derivative of `entries_signal` into ``out``, which may be ``change``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = -weights[i, j] * change[i, j]


@part
def measurements(params):
    """Return A (measurement × entry), y and v (measurement × 1) as views."""
    sizes, floats = params
    entries = sizes[3 + sizes[0]] * sizes[1]
    count = floats.size // (entries + 2)
    operators = matrix_at(floats, 0, count, entries)
    results = matrix_at(floats, count * entries, count, 1)
    return operators, results, matrix_at(floats, count * (entries + 1), count, 1)


@part
def measured_signal(measured, kept, image, out):
    """Write Σ_m v_m (c y_m − ⟨A_m, S⟩) A_m into ``out``, which may be ``image``; c is ``kept``."""
    operators, results, weights = measured
    rests = np.empty((results.shape[0], 1))
    entries = operators.shape[1]
    multiply(operators, image.reshape(entries, 1), rests, 0.0)
    for m in range(rests.shape[0]):
        rests[m, 0] = weights[m, 0] * (kept * results[m, 0] - rests[m, 0])
    multiply_left_transposed(operators, rests, out.reshape(entries, 1), 0.0)


@part
def sparse_measurements(floats):
    """Return where each A_m begins and ends, places and values of their entries, y and v."""
    count = int(floats[0])
    entries = int(floats[count + 1])
    values, results = 2 + count + entries, 2 + count + 2 * entries
    return (
        floats[1 : 2 + count],
        floats[2 + count : values],
        floats[values:results],
        floats[results : results + count],
        floats[results + count : results + 2 * count],
    )


@part
def sparse_signal(floats, kept, image, out):
    """Write what `measured_signal` does of sparse A_m."""
    starts, places, values, results, weights = sparse_measurements(floats)
    rests, columns = np.empty(results.size), image.shape[1]
    for m in range(rests.size):
        rest = kept * results[m]
        for n in range(int(starts[m]), int(starts[m + 1])):
            row, column = divmod(int(places[n]), columns)
            rest -= values[n] * image[row, column]
        rests[m] = weights[m] * rest
    fill(0.0, out)
    for m in range(rests.size):
        for n in range(int(starts[m]), int(starts[m + 1])):
            row, column = divmod(int(places[n]), columns)
            out[row, column] += rests[m] * values[n]


# Losses other than the square one of data.


@jit
def loss_signal(form, targets, constants, image, out):
    """Write −∂ℓ/∂S at ``image`` into ``out``, which may be ``image`` itself."""
    if form == CROSS_ENTROPY:
        cross_entropy_signal(targets, constants[0], image, out)
        return
    factor, exponent = constants[0], constants[1] - 1.0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            label = targets[i, j]
            if form == LOGISTIC:
                out[i, j] = factor * label * logistic(-label * image[i, j])
            else:
                rest = label - image[i, j]
                out[i, j] = factor * np.sign(rest) * np.abs(rest) ** exponent


@jit
def loss_signal_change(form, targets, constants, image, change, out):
    """Write the derivative of the signal along ``change`` into ``out``, which may be ``change``."""
    if form == CROSS_ENTROPY:
        cross_entropy_change(constants[0], image, change, out)
        return
    factor, power = constants[0], constants[1]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            if form == LOGISTIC:
                margin = image[i, j]
                curvature = logistic(margin) * logistic(-margin)
            else:
                curvature = (power - 1.0) * np.abs(targets[i, j] - image[i, j]) ** (power - 2.0)
            out[i, j] = -factor * curvature * change[i, j]


@part
def logistic(z):
    """Return 1/(1 + exp(−z)) without overflow."""
    if z >= 0.0:
        return 1.0 / (1.0 + np.exp(-z))
    small = np.exp(z)
    return small / (1.0 + small)


@part
def relative_weights(image, sample, weights):
    """Write exp(S − max S) of one column into ``weights``; return the place of the largest."""
    top = 0
    for i in range(1, weights.size):
        if image[i, sample] > image[top, sample]:
            top = i
    for i in range(weights.size):
        weights[i] = np.exp(image[i, sample] - image[top, sample])
    return top


@part
def cross_entropy_signal(targets, factor, image, out):
    """Write c (y_o Σ_{j≠o} e_j − (1 − y_o) e_o) / Σ_j e_j, e = exp(S), for each sample."""
    weights = np.empty(image.shape[0])
    for n in range(image.shape[1]):
        relative_weights(image, n, weights)
        total = 0.0
        for i in range(weights.size):
            total += weights[i]
        for i in range(weights.size):
            target, others = targets[i, n], 0.0
            if target != 0.0:
                for j in range(weights.size):
                    if j != i:
                        others += weights[j]
            out[i, n] = factor * (target * others - (1.0 - target) * weights[i]) / total


@part
def cross_entropy_change(factor, image, change, out):
    """Write −c π_o (v_o − Σ_j π_j v_j), π = softmax(S), v measured from that of the largest π."""
    weights = np.empty(image.shape[0])
    for n in range(image.shape[1]):
        top = relative_weights(image, n, weights)
        total, mean, origin = 0.0, 0.0, change[top, n]
        for i in range(weights.size):
            total += weights[i]
            mean += weights[i] * (change[i, n] - origin)
        mean /= total
        for i in range(weights.size):
            out[i, n] = -factor * weights[i] / total * (change[i, n] - origin - mean)
