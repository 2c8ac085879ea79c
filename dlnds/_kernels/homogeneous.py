"""Gradient flow of a homogeneous network: vector field, directional derivative, Jacobian.

H(X) = W_h σ(W_{h−1} σ(… σ(W_1 X))), σ(z) = max(z, αz)^p entry by entry, which is c z^p with c = 1
for z > 0 and c = α^p otherwise. With A_0 = X, Z_i = W_i A_{i−1} and A_i = σ(Z_i), the signal
B_h = −∂ℓ/∂S at S = Z_h goes back by B_i = σ'(Z_i) ∘ W_{i+1}ᵀ B_{i+1}, and Ẇ_i = B_i A_{i−1}ᵀ.

State and ``params`` are those of `linear`, with samples in the columns of K = X, but that floats
end with p, α and the two constants of the loss. The form `FIXED` stands for the loss −⟨G, S⟩ of a
fixed signal G in place of the labels: the neural correlation function is minus it.

Derivatives of σ are those of its two sides; where z = 0 those of the left side.
At the end the ascent of a homogeneous form, such as these are, on the unit sphere.
"""

import numpy as np
from numba import types

from dlnds._kernels import linear
from dlnds._kernels.dense import (
    add_left,
    add_left_transposed,
    add_multiple,
    assign,
    fill,
    scaled_sum,
)
from dlnds._kernels.jit import FIELD, PARAMS, jit, part, sums
from dlnds._kernels.linear import (
    buffer_size,
    input_side,
    layer,
    root,
    target,
    write_loss_signal,
    write_loss_signal_change,
)

#: The form of the loss −⟨G, S⟩, beside those of `linear`; and where the floats end with what.
FIXED = 5
POWER, SLOPE, FACTOR = -4, -3, -2


@part
def write_signal(params, image, out):
    """Write −∂ℓ/∂S at S = ``image`` into ``out``; of the power losses there is the square one."""
    form = params[0][2]
    if form == FIXED:
        assign(target(params), out)
    elif form == linear.POWER:
        factor = params[1][FACTOR]
        scaled_sum(factor, target(params), -factor, image, out)
    else:
        write_loss_signal(params, image, out)


@part
def write_signal_change(params, image, change, out):
    """Write the derivative of the signal along ``change`` into ``out``, which may be ``change``."""
    form = params[0][2]
    if form == FIXED:
        fill(0.0, out)
    elif form == linear.POWER:
        scaled_sum(-params[1][FACTOR], change, 0.0, change, out)
    else:
        write_loss_signal_change(params, image, change, out)


@part
def values_before(values, params, i):
    """Return A_{i−1} as a view."""
    return root(params) if i == 1 else input_side(values, params, i - 1)


@part
def raise_times(z, times, out):
    """Multiply ``out`` by ``z`` so many times, entry by entry."""
    for _ in range(times):
        for k in range(z.size):
            out[k] *= z[k]


@part
def weigh(z, left, right, out):
    """Write ``right`` where z > 0, ``left`` elsewhere."""
    for k in range(z.size):
        out[k] = right if z[k] > 0.0 else left


@part
def activate(z, params, value, slope):
    """Write σ(z) and σ'(z) of a vector."""
    p = int(params[1][POWER])
    weigh(z, p * params[1][SLOPE] ** p, float(p), slope)
    raise_times(z, p - 1, slope)
    for k in range(z.size):
        value[k] = slope[k] * z[k] / p


@part
def bend(z, params, curvature):
    """Write σ''(z) of a vector."""
    p = int(params[1][POWER])
    factor = float(p * (p - 1))
    weigh(z, factor * params[1][SLOPE] ** p, factor, curvature)
    raise_times(z, p - 2, curvature)


@part
def entrywise(a, b, out):
    """Write the product of two vectors entry by entry."""
    for k in range(out.size):
        out[k] = a[k] * b[k]


@sums
def add_outer(a, b, out):
    """Add ``a bᵀ``."""
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            total = 0.0
            for k in range(a.shape[1]):
                total += a[i, k] * b[j, k]
            out[i, j] += total


@part
def forward(x, params, inner, values, slopes):
    """Write Z_1, …, Z_h into ``inner``, the A_i and the σ'(Z_i), i < h."""
    inner[:] = 0.0
    depth = params[0][0]
    for i in range(1, depth + 1):
        z = input_side(inner, params, i)
        add_left(layer(x, params, i), values_before(values, params, i), z)
        if i < depth:
            value, slope = input_side(values, params, i), input_side(slopes, params, i)
            activate(z.ravel(), params, value.ravel(), slope.ravel())


@part
def backward(x, params, inner, slopes, back, signals):
    """Write the B_i into ``signals``, and for i < h the W_{i+1}ᵀ B_{i+1} into ``back``."""
    depth = params[0][0]
    back[:] = 0.0
    write_signal(params, input_side(inner, params, depth), input_side(signals, params, depth))
    for i in range(depth - 1, 0, -1):
        before = input_side(back, params, i)
        add_left_transposed(layer(x, params, i + 1), input_side(signals, params, i + 1), before)
        slope = input_side(slopes, params, i)
        entrywise(slope.ravel(), before.ravel(), input_side(signals, params, i).ravel())


@jit
def field(t, x, params, out):
    """Write Ẇ_i = B_i A_{i−1}ᵀ."""
    size = buffer_size(params, params[0][1])
    inner, values, slopes = np.empty(size), np.empty(size), np.empty(size)
    back, signals = np.empty(size), np.empty(size)
    forward(x, params, inner, values, slopes)
    backward(x, params, inner, slopes, back, signals)
    out[:] = 0.0
    for i in range(1, params[0][0] + 1):
        before = values_before(values, params, i)
        add_outer(input_side(signals, params, i), before, layer(out, params, i))


@jit
def jvp(t, x, v, params, out):
    """Write the derivative of the field along ``v``: minus the Hessian times ``v``."""
    depth, size = params[0][0], buffer_size(params, params[0][1])
    inner, values, slopes = np.empty(size), np.empty(size), np.empty(size)
    back, signals, curvature = np.empty(size), np.empty(size), np.empty(size)
    d_inner, d_values, d_signals = np.zeros(size), np.empty(size), np.zeros(size)
    forward(x, params, inner, values, slopes)
    backward(x, params, inner, slopes, back, signals)
    for i in range(1, depth + 1):
        change = input_side(d_inner, params, i)
        add_left(layer(v, params, i), values_before(values, params, i), change)
        if i > 1:
            add_left(layer(x, params, i), input_side(d_values, params, i - 1), change)
        if i < depth:
            slope = input_side(slopes, params, i)
            entrywise(slope.ravel(), change.ravel(), input_side(d_values, params, i).ravel())
    last, d_last = input_side(inner, params, depth), input_side(d_inner, params, depth)
    write_signal_change(params, last, d_last, input_side(d_signals, params, depth))
    out[:] = 0.0
    for i in range(depth, 0, -1):
        d_signal, slot = input_side(d_signals, params, i), layer(out, params, i)
        if i < depth:
            after = input_side(signals, params, i + 1)
            add_left_transposed(layer(v, params, i + 1), after, d_signal)
            d_after = input_side(d_signals, params, i + 1)
            add_left_transposed(layer(x, params, i + 1), d_after, d_signal)
            bent = input_side(curvature, params, i).ravel()
            bend(input_side(inner, params, i).ravel(), params, bent)
            slope, change = input_side(slopes, params, i).ravel(), input_side(d_inner, params, i)
            flat, before, moved = d_signal.ravel(), input_side(back, params, i), change.ravel()
            sent = before.ravel()
            for k in range(flat.size):
                flat[k] = slope[k] * flat[k] + bent[k] * moved[k] * sent[k]
        add_outer(d_signal, values_before(values, params, i), slot)
        if i > 1:
            add_outer(input_side(signals, params, i), input_side(d_values, params, i - 1), slot)


@part
def second_derivatives(x, params, n, last, slopes, bent, back, Q):
    """Write Q_j = ∂B_j/∂Z_j (d_j × d_j) of sample n into ``Q[j]``, j = 1..h.

    Q_{j−1} = σ'_{j−1} W_jᵀ Q_j W_j σ'_{j−1} + diag(σ''_{j−1} ∘ W_jᵀ B_j); ``last`` is that of the
    loss, which is a sum over outputs.
    """
    depth = params[0][0]
    for o in range(last.shape[0]):
        for k in range(last.shape[0]):
            Q[depth, o, k] = last[o, n] if o == k else 0.0
    for j in range(depth, 1, -1):
        w, slope = layer(x, params, j), input_side(slopes, params, j - 1)
        curved, sent = input_side(bent, params, j - 1), input_side(back, params, j - 1)
        half = np.zeros((w.shape[0], w.shape[1]))
        for a in range(w.shape[0]):
            for b in range(w.shape[0]):
                for s in range(w.shape[1]):
                    half[a, s] += Q[j, a, b] * w[b, s]
        for s in range(w.shape[1]):
            for r in range(w.shape[1]):
                total = 0.0
                for a in range(w.shape[0]):
                    total += w[a, s] * half[a, r]
                Q[j - 1, s, r] = slope[s, n] * total * slope[r, n]
            Q[j - 1, s, s] += curved[s, n] * sent[s, n]


@part
def extend_chain(w, slope, n, chain, longer):
    """Write N_{i,j} = N_{i,j−1} σ'_{j−1} W_jᵀ, given N_{i,j−1} and W_j."""
    for a in range(chain.shape[0]):
        for b in range(w.shape[0]):
            total = 0.0
            for s in range(w.shape[1]):
                total += chain[a, s] * slope[s, n] * w[b, s]
            longer[a, b] = total


@part
def add_block(n, before, earlier, curved, chain, slope, signal, coupled, row, column, out):
    """Add what sample n gives to the block of W_i[p, q] and W_j[r, s].

    A_{i−1}[q] (M[p, r] A_{j−1}[s] + N[p, s] σ'_{j−1}[s] B_j[r]), M = N_{i,j} Q_j and
    N = N_{i,j−1}; the second term only if the layers differ.
    """
    rows, inputs, columns = curved.shape[1], before.shape[0], earlier.shape[0]
    line = np.empty(rows * columns)
    for p in range(curved.shape[0]):
        for r in range(rows):
            for s in range(columns):
                line[r * columns + s] = curved[p, r] * earlier[s, n]
                if coupled:
                    line[r * columns + s] += chain[p, s] * slope[s, n] * signal[r, n]
        for q in range(inputs):
            if before[q, n] != 0.0:
                place = out[row + p * inputs + q, column : column + line.size]
                add_multiple(before[q, n], line, place)


@jit
def jacobian(t, x, params, out):
    """Write minus the Hessian of the loss, one sample after the other, block by block.

    Where W_j changes, j ≥ i, the B_i of a sample change by N_{i,j} Q_j through Z_j and by
    N_{i,j−1} σ'_{j−1} through the transposed W_j, N_{i,j} = σ'_i W_{i+1}ᵀ σ'_{i+1} … W_jᵀ.
    """
    sizes, m = params[0], params[0][1]
    depth, size = sizes[0], buffer_size(params, m)
    inner, values, slopes = np.empty(size), np.empty(size), np.empty(size)
    back, signals, bent = np.empty(size), np.empty(size), np.empty(size)
    forward(x, params, inner, values, slopes)
    backward(x, params, inner, slopes, back, signals)
    bend(inner, params, bent)
    last = np.ones((sizes[3 + depth], m))
    write_signal_change(params, input_side(inner, params, depth), last, last)
    widest = 0
    for i in range(1, depth + 1):
        widest = max(widest, sizes[3 + i])
    Q = np.empty((depth + 1, widest, widest))
    for k in range(out.shape[0]):
        out[k, k:] = 0.0
    for n in range(m):
        second_derivatives(x, params, n, last, slopes, bent, back, Q)
        for i in range(1, depth + 1):
            before, d = values_before(values, params, i), sizes[3 + i]
            chain, shorter = np.zeros((d, d)), np.zeros((d, d))
            for a in range(d):
                chain[a, a] = 1.0
            for j in range(i, depth + 1):
                slope = input_side(slopes, params, max(1, j - 1))
                width = sizes[3 + j]
                if j > i:
                    shorter, chain = chain, np.empty((d, width))
                    extend_chain(layer(x, params, j), slope, n, shorter, chain)
                curved = np.zeros((d, width))
                for a in range(d):
                    for b in range(width):
                        for c in range(width):
                            curved[a, c] += chain[a, b] * Q[j, b, c]
                earlier, signal = values_before(values, params, j), input_side(signals, params, j)
                row, column = sizes[3 + depth + i], sizes[3 + depth + j]
                add_block(
                    n, before, earlier, curved, shorter, slope, signal, j > i, row, column, out
                )
    for k in range(out.shape[0]):
        for c in range(k):
            out[k, c] = out[c, k]


@jit
def climb(gradient, params, degree, most, tolerance, u, force):
    """Move ``u`` on the unit sphere to where the form N of a gradient is largest, as seen from it.

    Steps of Barzilai and Borwein along the part of ∇N across u, shortened until N does not fall.
    ``force`` is left at that part. Return N (by Euler, ⟨∇N, u⟩ = degree · N), the size of the
    force in terms of ∇N, and the steps taken. Written without parts of its own, so that it runs as
    plain Python on forms that are not compiled.
    """
    other, next_force = np.empty_like(u), np.empty_like(u)
    gradient(0.0, u, params, force)
    value = np.dot(force, u) / degree
    whole = np.sqrt(np.dot(force, force))
    force -= degree * value * u
    size = np.sqrt(np.dot(force, force))
    step = 0.3 / max(size, 1e-300)
    steps = 0
    while steps < most and size > tolerance * whole and step * size > 1e-14:
        steps += 1
        other[:] = u + step * force
        other /= np.sqrt(np.dot(other, other))
        gradient(0.0, other, params, next_force)
        next_value = np.dot(next_force, other) / degree
        whole = np.sqrt(np.dot(next_force, next_force))
        if not next_value >= value - 1e-14 * abs(value):
            step *= 0.25
            continue
        next_force -= degree * next_value * other
        u -= other
        force -= next_force
        moved, turned = np.dot(u, u), abs(np.dot(u, force))
        u[:] = other
        force[:] = next_force
        value = next_value
        size = np.sqrt(np.dot(force, force))
        longest = 1.0 / max(size, 1e-300)
        step = min(moved / turned, longest) if turned > 0.0 else longest
    return value, size / max(whole, 1e-300), steps


CLIMB = types.Tuple((types.float64, types.float64, types.int64))(
    types.FunctionType(FIELD),
    PARAMS,
    types.float64,
    types.int64,
    types.float64,
    types.float64[::1],
    types.float64[::1],
)
