"""Flow of the end-to-end map W = A Bᵀ of balanced networks, in factors of its rank.

The state is that of two balanced layers, W_1 = Bᵀ (k × d_0) and W_2 = A (d_h × k), with the sizes
of `linear` for them; the depth h follows, and then the last of those integers again. With
N = AᵀA = BᵀB, (WWᵀ)^a = A N^{2a−1} Aᵀ for a > 0, so that no power of a singular matrix is taken.
For minus the gradient R of the loss by W, and Φ = AᵀRB, the flow of W is that of

    Ȧ = R B F + A P,    Ḃᵀ = F AᵀR + M Bᵀ,    F = N^{1−2/h},    P + M = T,

T = Σ_{1<j<h} N^{p_j} Φ N^{q_j}, p_j = 2(h−j)/h − 1, q_j = 2(j−1)/h − 1. AᵀA = BᵀB is kept if
½ (P − M) has a certain symmetric part; its skew part only turns the columns. It is chosen so that
N P + P N = T N + ½ E and N M + M N = N T − ½ E, E = F Δ − Δ F, Δ = Φ − Φᵀ: then large columns come
to small ones no faster than these move by themselves. RB and AᵀR are the field of the two layers as
a network of their own, which is this one for h = 2. For h = 1 the sum over j is −N^{-1} Φ N^{-1}:
the flow projected to the tangent space of the matrices of rank k. It can lose the rank in finite
time, and there it ends: the field is not finite any more.
"""

import numpy as np

from dlnds._kernels import linear
from dlnds._kernels.dense import (
    assign,
    assign_identity,
    fill,
    multiply,
    multiply_left_transposed,
    multiply_right_transposed,
    scaled_sum,
)
from dlnds._kernels.jit import jit, part, variant

#: Sweeps of Jacobi's method after which it is taken to have converged, as it does in under ten.
SWEEPS = 40
#: Eigenvalues below this are taken as this: products of negative powers of them stay finite.
SMALLEST = 1e-90
#: Of the two layers as a network; kernels of other losses are variants at the end.
layers_jacobian = linear.jacobian
#: Square workspaces: Q, N, Φ, T, P, M, F, and two to work with.
SPACES = 9


@part
def depth_of(params):
    """Return h."""
    return params[0][-2]


@part
def rotate(N, Q, a, b):
    """Make N[a, b] zero by a rotation, and turn the columns of Q along; tell if it was not."""
    limit = N.shape[0] * np.finfo(np.float64).eps * np.sqrt(abs(N[a, a]) * abs(N[b, b]))
    if not abs(N[a, b]) > limit:
        return False
    tau = (N[b, b] - N[a, a]) / (2.0 * N[a, b])
    t = 1.0 / (abs(tau) + np.sqrt(1.0 + tau * tau))
    if tau < 0.0:
        t = -t
    c = 1.0 / np.sqrt(1.0 + t * t)
    s = c * t
    shift = t * N[a, b]
    first, second = N[a, a] - shift, N[b, b] + shift
    for i in range(N.shape[0]):
        x, y = N[i, a], N[i, b]
        N[i, a], N[i, b] = c * x - s * y, s * x + c * y
        x, y = Q[i, a], Q[i, b]
        Q[i, a], Q[i, b] = c * x - s * y, s * x + c * y
    for i in range(N.shape[0]):
        N[a, i], N[b, i] = N[i, a], N[i, b]
    N[a, a], N[b, b], N[a, b], N[b, a] = first, second, 0.0, 0.0
    return True


@part
def diagonalize(N, Q):
    """Write eigenvectors of a positive definite N into the columns of Q, eigenvalues onto N.

    By Jacobi's method: rounding then changes small eigenvalues of a graded N (whose entries are
    bounded by its diagonal) in terms of themselves. Others lose what is 1e-16 of the largest, and
    with it the modes that are still to be learnt.
    """
    assign_identity(Q)
    for _ in range(SWEEPS):
        turned = False
        for a in range(N.shape[0]):
            for b in range(a + 1, N.shape[0]):
                turned |= rotate(N, Q, a, b)
        if not turned:
            break


@part
def quotient(x, y, c):
    """Return (x^c − y^c)/(x − y), or c x^{c−1}, for positive x and y, near or far."""
    if x < y:  # (x − y)/y is −1 for all x far below y
        x, y = y, x
    apart = np.log1p((x - y) / y)
    if apart == 0.0:
        return c * x ** (c - 1.0)
    return y ** (c - 1.0) * np.expm1(c * apart) / np.expm1(apart)


@part
def exponents(h, j):
    """Return p_j and q_j."""
    return 2.0 * (h - j) / h - 1.0, 2.0 * (j - 1) / h - 1.0


@part
def inner_terms(h):
    """Return the first and the last j, and the weight, of the terms of T."""
    if h == 1:
        return 1, 1, -1.0
    return 2, h - 1, 1.0


@part
def inner_sum(h, x, y):
    """Return the sum of x^{p_j} y^{q_j} over the terms of T."""
    first, last, weight = inner_terms(h)
    total = 0.0
    for j in range(first, last + 1):
        p, q = exponents(h, j)
        total += weight * x**p * y**q
    return total


@part
def turned_in(Q, a, work, out):
    """Compute ``Qᵀ a Q``."""
    multiply(a, Q, work, 0.0)
    multiply_left_transposed(Q, work, out, 0.0)


@part
def turned_out(Q, a, work, out):
    """Compute ``Q a Qᵀ``."""
    multiply(Q, a, work, 0.0)
    multiply_right_transposed(work, Q, out, 0.0)


@jit
def force(t, x, params, out):
    """Write the field of the two layers, RB = Σ(KᵀB) − A(BᵀCB) and AᵀR = (AᵀΣ − AᵀA BᵀK) Kᵀ.

    So no matrix of the size of W is made, which would take longer than all products with it.
    """
    A, Bt, target = linear.layer(x, params, 2), linear.layer(x, params, 1), linear.target(params)
    k, columns = Bt.shape[0], target.shape[1]
    image, back, gram = np.empty((k, columns)), np.empty((k, columns)), np.empty((k, k))
    linear.times_root(Bt, params, image)
    multiply_right_transposed(image, image, gram, 0.0)
    left, tall = linear.layer(out, params, 2), np.empty((A.shape[0], k))
    multiply_right_transposed(target, image, left, 0.0)
    multiply(A, gram, tall, 0.0)
    scaled_sum(1.0, left, -1.0, tall, left)
    multiply_left_transposed(A, A, gram, 0.0)
    scaled_sum(-1.0, gram, 0.0, gram, gram)
    multiply_left_transposed(A, target, back, 0.0)
    multiply(gram, image, back, 1.0)
    linear.times_root_transposed(back, params, linear.layer(out, params, 1))


@part
def force_change(x, v, params, out):
    """Write the derivative of `force` along ``v``."""
    A, Bt, target = linear.layer(x, params, 2), linear.layer(x, params, 1), linear.target(params)
    dA, dBt = linear.layer(v, params, 2), linear.layer(v, params, 1)
    k, columns = Bt.shape[0], target.shape[1]
    image, change, back = np.empty((k, columns)), np.empty((k, columns)), np.empty((k, columns))
    gram, d_gram, other = np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
    linear.times_root(Bt, params, image)
    linear.times_root(dBt, params, change)
    multiply_right_transposed(image, image, gram, 0.0)
    multiply_right_transposed(change, image, d_gram, 0.0)
    multiply_right_transposed(image, change, d_gram, 1.0)
    left, tall = linear.layer(out, params, 2), np.empty((A.shape[0], k))
    multiply_right_transposed(target, change, left, 0.0)
    multiply(dA, gram, tall, 0.0)
    multiply(A, d_gram, tall, 1.0)
    scaled_sum(1.0, left, -1.0, tall, left)
    multiply_left_transposed(A, A, gram, 0.0)
    multiply_left_transposed(dA, A, other, 0.0)
    multiply_left_transposed(A, dA, other, 1.0)
    scaled_sum(-1.0, gram, 0.0, gram, gram)
    scaled_sum(-1.0, other, 0.0, other, other)
    multiply_left_transposed(dA, target, back, 0.0)
    multiply(other, image, back, 1.0)
    multiply(gram, change, back, 1.0)
    linear.times_root_transposed(back, params, linear.layer(out, params, 1))


@part
def prepare(x, V, params, s):
    """Write into the workspaces ``s`` what the factors of the flow are at ``x``.

    The eigenvectors Q of N, its eigenvalues, Φ, T, P and M in that basis, and F in the basis of the
    state. N is the mean of AᵀA and BᵀB.
    """
    A, Bt, h = linear.layer(x, params, 2), linear.layer(x, params, 1), depth_of(params)
    Q, N, phi, T, P, M, power, work = s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
    multiply_left_transposed(A, A, N, 0.0)
    multiply_right_transposed(Bt, Bt, N, 1.0)
    scaled_sum(0.5, N, 0.0, N, N)
    diagonalize(N, Q)
    k = N.shape[0]
    for a in range(k):
        if not N[a, a] >= SMALLEST:
            N[a, a] = np.nan if h == 1 else SMALLEST  # the rank is lost, and the flow ends
    multiply_left_transposed(A, linear.layer(V, params, 2), T, 0.0)
    turned_in(Q, T, work, phi)
    fill(0.0, P)
    for a in range(k):
        P[a, a] = N[a, a] ** (1.0 - 2.0 / h)
        for b in range(k):
            T[a, b] = inner_sum(h, N[a, a], N[b, b]) * phi[a, b]
    turned_out(Q, P, work, power)
    for a in range(k):
        M[a, a] = P[a, a]  # of F, on the diagonals
    for a in range(k):
        for b in range(k):
            half = 0.5 * (M[a, a] - M[b, b]) * (phi[a, b] - phi[b, a])
            if a != b:
                P[a, b] = (T[a, b] * N[b, b] + half) / (N[a, a] + N[b, b])
                M[a, b] = (N[a, a] * T[a, b] - half) / (N[a, a] + N[b, b])
    for a in range(k):
        P[a, a] = M[a, a] = 0.5 * T[a, a]


@part
def combine(V, x, F, first, last, params, out, kept):
    """Write ``V_2 F + W_2 first`` and ``F V_1 + last W_1``, as `multiply` does."""
    multiply(linear.layer(V, params, 2), F, linear.layer(out, params, 2), kept)
    multiply(linear.layer(x, params, 2), first, linear.layer(out, params, 2), 1.0)
    multiply(F, linear.layer(V, params, 1), linear.layer(out, params, 1), kept)
    multiply(last, linear.layer(x, params, 1), linear.layer(out, params, 1), 1.0)


@part
def workspaces(params):
    """Return the square workspaces."""
    k = params[0][4]
    return np.empty((SPACES, k, k))


@part
def factors_of(s):
    """Return F, P and M in the basis of the state, from what `prepare` wrote."""
    factors = np.empty((3, s.shape[1], s.shape[1]))
    assign(s[6], factors[0])
    turned_out(s[0], s[4], s[7], factors[1])
    turned_out(s[0], s[5], s[7], factors[2])
    return factors


@jit
def field(t, x, params, out):
    """Write Ȧ and Ḃᵀ."""
    V, s = np.empty(x.size), workspaces(params)
    force(t, x, params, V)
    prepare(x, V, params, s)
    factors = factors_of(s)
    combine(V, x, factors[0], factors[1], factors[2], params, out, 0.0)


@part
def change_of_inner(h, N, phi, nu, left, right, d_T):
    """Add the part of the change of T that comes with the change ``nu`` of N."""
    k = N.shape[0]
    first, last, weight = inner_terms(h)
    for j in range(first, last + 1):
        p, q = exponents(h, j)
        for a in range(k):
            for b in range(k):
                left[a, b] = weight * quotient(N[a, a], N[b, b], p) * nu[a, b]
                right[a, b] = weight * quotient(N[a, a], N[b, b], q) * nu[a, b]
        for a in range(k):
            for b in range(k):
                before, after = 0.0, 0.0
                for c in range(k):
                    before += left[a, c] * phi[c, b]
                    after += phi[a, c] * right[c, b]
                d_T[a, b] += before * N[b, b] ** q + N[a, a] ** p * after


@part
def change_of_shares(h, s, nu, d_phi, d_T, d_F, d_P, d_M):
    """Write the changes of P and M: those of the equations which they solve."""
    N, phi, T, P, M = s[1], s[2], s[3], s[4], s[5]
    k, c = N.shape[0], 1.0 - 2.0 / h
    for a in range(k):
        for b in range(k):
            half = 0.5 * (N[a, a] ** c - N[b, b] ** c) * (d_phi[a, b] - d_phi[b, a])
            first, last = d_T[a, b] * N[b, b], N[a, a] * d_T[a, b]
            for i in range(k):
                one = d_F[a, i] * (phi[i, b] - phi[b, i])
                half += 0.5 * (one - (phi[a, i] - phi[i, a]) * d_F[i, b])
                first += T[a, i] * nu[i, b] - nu[a, i] * P[i, b] - P[a, i] * nu[i, b]
                last += nu[a, i] * T[i, b] - nu[a, i] * M[i, b] - M[a, i] * nu[i, b]
            d_P[a, b] = (first + half) / (N[a, a] + N[b, b])
            d_M[a, b] = (last - half) / (N[a, a] + N[b, b])


@part
def differentiate(x, v, V, dV, params, s, d, factors, out):
    """Write the change of the field along ``v``, with that of the two-layer field, ``dV``.

    ``factors`` are F, P and M in the basis of the state. Powers of N change by the differences of
    Daleckii and Krein in its eigenvectors.
    """
    A, Bt, h = linear.layer(x, params, 2), linear.layer(x, params, 1), depth_of(params)
    dA, dBt = linear.layer(v, params, 2), linear.layer(v, params, 1)
    Q, N, phi, work = s[0], s[1], s[2], s[7]
    nu, d_phi, d_T, d_F, d_P, d_M, other = d[0], d[1], d[2], d[3], d[4], d[5], d[6]
    k = N.shape[0]
    multiply_left_transposed(A, dA, d_T, 0.0)
    multiply_right_transposed(Bt, dBt, d_T, 1.0)
    for a in range(k):
        for b in range(k):
            other[a, b] = 0.5 * (d_T[a, b] + d_T[b, a])
    turned_in(Q, other, work, nu)
    multiply_left_transposed(dA, linear.layer(V, params, 2), other, 0.0)
    multiply_left_transposed(A, linear.layer(dV, params, 2), other, 1.0)
    turned_in(Q, other, work, d_phi)
    for a in range(k):
        for b in range(k):
            d_T[a, b] = inner_sum(h, N[a, a], N[b, b]) * d_phi[a, b]
            d_F[a, b] = quotient(N[a, a], N[b, b], 1.0 - 2.0 / h) * nu[a, b]
    change_of_inner(h, N, phi, nu, d[7], d[8], d_T)
    change_of_shares(h, s, nu, d_phi, d_T, d_F, d_P, d_M)
    turned_out(Q, d_F, work, other)
    turned_out(Q, d_P, work, nu)
    turned_out(Q, d_M, work, d_phi)
    combine(V, x, other, nu, d_phi, params, out, 0.0)
    combine(dV, v, factors[0], factors[1], factors[2], params, out, 1.0)


@jit
def jvp(t, x, v, params, out):
    """Write the derivative of `field` along ``v``."""
    V, dV, s, d = np.empty(x.size), np.empty(x.size), workspaces(params), workspaces(params)
    force(t, x, params, V)
    force_change(x, v, params, dV)
    prepare(x, V, params, s)
    differentiate(x, v, V, dV, params, s, d, factors_of(s), out)


@jit
def jacobian(t, x, params, out):
    """Write the derivatives of `field` along all axes, from the Jacobian of the two layers."""
    n = x.size
    V, s, d = np.empty(n), workspaces(params), workspaces(params)
    force(t, x, params, V)
    prepare(x, V, params, s)
    factors = factors_of(s)
    columns = np.empty((n, n))  # symmetric
    layers_jacobian(t, x, params, columns)
    axis, column = np.zeros(n), np.empty(n)
    for j in range(n):
        axis[j] = 1.0
        differentiate(x, axis, V, columns[j], params, s, d, factors, column)
        axis[j] = 0.0
        for i in range(n):
            out[i, j] = column[i]


loss_force = linear.loss_field_from_inputs


@part
def loss_force_change(x, v, params, out):
    """Write the derivative of the field of the two layers under another loss along ``v``."""
    linear.loss_jvp_from_inputs(0.0, x, v, params, out)


_OTHER = {
    "force": loss_force,
    "force_change": loss_force_change,
    "layers_jacobian": linear.loss_jacobian,
}
loss_field = variant(field, "loss_field", _OTHER)
loss_jvp = variant(jvp, "loss_jvp", _OTHER)
loss_jacobian = variant(jacobian, "loss_jacobian", _OTHER)
