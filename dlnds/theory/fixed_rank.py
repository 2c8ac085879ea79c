"""The manifold of matrices of one rank, in the metrics of balanced networks (BRTW22).

A point W = U diag(s) Vᵀ is held by its thin singular value decomposition; vectors are matrices of
the shape of W. With h layers the metric is g_W(Z_1, Z_2) = ⟨𝒜_W^{-1} Z_1, Z_2⟩, where
𝒜_W(Z) = Σ_{j=1}^{h} (WWᵀ)^{(h−j)/h} Z (WᵀW)^{(j−1)/h}; h = 1 is that of the space around, where
𝒜_W is the projection to the tangent space.
"""

from typing import NamedTuple

import numpy as np

from dlnds.arrays import Array


class Point(NamedTuple):
    """A matrix by its singular vectors U (d_h × k), V (d_0 × k) and values s, and the depth h."""

    U: Array
    s: Array
    V: Array
    depth: int


class Blocks(NamedTuple):
    """A matrix Z = U C Vᵀ + P Vᵀ + U Qᵀ + what is not tangent, P across U and Q across V."""

    C: Array
    P: Array
    Q: Array


def thin_modes(A: Array, B: Array) -> tuple[Array, Array, Array]:
    """Return the k singular vectors U, values and vectors V of A Bᵀ."""
    (first, R), (last, T) = np.linalg.qr(A), np.linalg.qr(B)
    inner, s, outer = np.linalg.svd(R @ T.T)
    return first @ inner, s, last @ outer.T


def point(A: Array, B: Array, depth: int) -> Point:
    """Return the point A Bᵀ; signs such that the largest entry of each left vector is positive."""
    U, s, V = thin_modes(A, B)
    signs = np.sign(U[np.abs(U).argmax(axis=0), np.arange(len(s))])
    return Point(U * signs, s, V * signs, depth)


def blocks(w: Point, Z: Array) -> Blocks:
    """Return the tangent parts of a matrix."""
    right, left = Z @ w.V, Z.T @ w.U
    C = w.U.T @ right
    return Blocks(C, right - w.U @ C, left - w.V @ C.T)


def matrix(w: Point, z: Blocks) -> Array:
    """Return the tangent vector of these parts."""
    return (w.U @ z.C + z.P) @ w.V.T + w.U @ z.Q.T


def pair_values(s: Array, depth: int) -> Array:
    """Return 𝒜_W's eigenvalues on u_a v_bᵀ, (s_a² − s_b²)/(s_a^{2/h} − s_b^{2/h}), as a sum."""
    powers = s[:, None] ** (2.0 * np.arange(depth) / depth)
    return powers[:, ::-1] @ powers.T


def operator(w: Point, Z: Array) -> Array:
    """Return 𝒜_W(Z), which is tangent for any Z (d_h × d_0): for ∇L the Riemannian gradient."""
    return matrix(w, _scaled(w, blocks(w, Z), 1.0))


def inverse_operator(w: Point, Z: Array) -> Array:
    """Return the tangent Y with 𝒜_W(Y) = Z, for the tangent part of Z."""
    return matrix(w, _scaled(w, blocks(w, Z), -1.0))


def _scaled(w: Point, z: Blocks, power: float) -> Blocks:
    sides = w.s ** (power * (2.0 - 2.0 / w.depth))
    return Blocks(z.C * pair_values(w.s, w.depth) ** power, z.P * sides, z.Q * sides)


def projection(w: Point, Z: Array) -> Array:
    """Return the tangent part of a matrix, by the inner product of the space around."""
    return matrix(w, blocks(w, Z))


def inner_product(w: Point, first: Array, second: Array) -> float:
    """Return g_W of the tangent parts of two matrices."""
    one, other = _scaled(w, blocks(w, first), -1.0), blocks(w, second)
    return float(sum(np.sum(a * b) for a, b in zip(one, other, strict=True)))


def orthonormal_basis(w: Point) -> Array:
    """Return k (d_0 + d_h − k) tangent matrices (number, d_h, d_0) that are orthonormal in g_W."""
    k, sides = len(w.s), w.s ** (1.0 - 1.0 / w.depth)
    left = np.linalg.qr(w.U, mode="complete")[0][:, k:]
    right = np.linalg.qr(w.V, mode="complete")[0][:, k:]
    sizes = np.sqrt(pair_values(w.s, w.depth))
    parts = [
        np.einsum("ia,jb,ab->abij", w.U, w.V, sizes),
        np.einsum("ip,jb,b->pbij", left, w.V, sides),
        np.einsum("ia,jq,a->qaij", w.U, right, sides),
    ]
    shape = (-1, len(w.U), len(w.V))
    return np.concatenate([part.reshape(shape) for part in parts])


def retraction(w: Point, Z: Array) -> tuple[Array, Array]:
    """Return factors A, B of the matrix of the same rank that is nearest to W + Z, Z tangent.

    W + Z has twice the rank, and its singular values are those of a matrix of that size.
    """
    z, k = blocks(w, Z), len(w.s)
    (left, R), (right, T) = np.linalg.qr(z.P), np.linalg.qr(z.Q)
    inner = np.block([[np.diag(w.s) + z.C, T.T], [R, np.zeros((len(R), len(T)))]])
    first, s, last = np.linalg.svd(inner, full_matrices=False)
    root = np.sqrt(s[:k])
    U, V = np.hstack([w.U, left]) @ first[:, :k], np.hstack([w.V, right]) @ last[:k].T
    return U * root, V * root


def horizontal_lift(w: Point, A: Array, Z: Array) -> tuple[Array, Array]:
    """Return changes of factors with the product's change Z, that keep AᵀA = BᵀB.

    Of all of these that which is across the turns of the columns.
    """
    z, root = blocks(w, Z), np.sqrt(w.s)
    shares = root / np.add.outer(w.s, w.s)
    turn = (w.U.T @ A) / root[:, None]
    dA = w.U @ (z.C * shares) + z.P / root
    dB = w.V @ (z.C.T * shares) + z.Q / root
    return dA @ turn, dB @ turn


def _terms(depth: int) -> list[tuple[float, float | None, float | None]]:
    """Return weight and exponents of the terms of 𝒜; None stands for the identity.

    The exponent 0 is the projection to the range, as in 𝒜 of a single layer.
    """
    if depth == 1:
        return [(1.0, 0.0, None), (1.0, None, 0.0), (-1.0, 0.0, 0.0)]
    powers = [None, *(j / depth for j in range(1, depth))]
    return [(1.0, a, b) for a, b in zip(powers[::-1], powers, strict=True)]


def _times_power(U: Array, s: Array, a: float | None, Z: Array) -> Array:
    """Return (U diag(s²) Uᵀ)^a Z."""
    return Z if a is None else (U * s ** (2.0 * a)) @ (U.T @ Z)


def _power_change(U: Array, s: Array, a: float | None, X: Array) -> Array:
    """Return the change of (U diag(s²) Uᵀ)^a with the symmetric change X, at fixed rank.

    By divided differences of λ^a in the eigenbasis; the part of X across U on both sides counts as
    zero, as it is for changes along the manifold.
    """
    if a is None:
        return np.zeros_like(X)
    right = X @ U
    inner = U.T @ right
    cross = (right - U @ inner) * s ** (2.0 * a - 2.0)
    half = U @ (0.5 * _quotients(s**2, a) * inner) + cross
    changed: Array = half @ U.T
    return changed + changed.T


def _quotients(values: Array, a: float) -> Array:
    """Return (x^a − y^a)/(x − y) for pairs of positive values, near or far."""
    x, y = values[:, None], values[None, :]
    apart = np.log1p((x - y) / y)
    equal = apart == 0.0
    apart = np.where(equal, 1.0, apart)
    ratio = np.where(equal, a, np.expm1(a * apart) / np.expm1(apart))
    return y ** (a - 1.0) * ratio


def _operator_change(w: Point, Z: Array, X: Array) -> Array:
    """Return the change of 𝒜_W(X), X fixed, with the change Z of W."""
    W = (w.U * w.s) @ w.V.T
    outer, inner = Z @ W.T, Z.T @ W
    change = np.zeros_like(X)
    for weight, a, b in _terms(w.depth):
        first = _power_change(w.U, w.s, a, outer + outer.T)
        second = _power_change(w.V, w.s, b, inner + inner.T)
        change += weight * first @ _times_power(w.V, w.s, b, X.T).T
        change += weight * _times_power(w.U, w.s, a, X) @ second
    return change


def _transposed_change(w: Point, Y: Array, G: Array) -> Array:
    """Return the matrix whose inner product with Z is that of Y with the change of 𝒜_W(G)."""
    W = (w.U * w.s) @ w.V.T
    total = np.zeros_like(W)
    for weight, a, b in _terms(w.depth):
        outer = Y @ _times_power(w.V, w.s, b, G.T)
        inner = _times_power(w.U, w.s, a, G).T @ Y
        total += weight * _power_change(w.U, w.s, a, outer + outer.T) @ W
        total += weight * W @ _power_change(w.V, w.s, b, inner + inner.T)
    return total


def hessian(w: Point, Z: Array, G: Array, change: Array) -> Array:
    """Return the Riemannian Hessian along a tangent Z of a loss with the gradient G.

    ``change`` is that of G along Z, as in the space around. Half the Lie derivative of the metric
    along the gradient ξ = 𝒜(G): with Y_i = 𝒜^{-1} Z_i it is
    ⟨Z_1, G'[Z_2]⟩ + ½⟨Y_1, 𝒜'[Z_2] G⟩ + ½⟨Y_2, 𝒜'[Z_1] G⟩ − ½⟨Y_1, 𝒜'[ξ] Y_2⟩.
    """
    tangent = projection(w, Z)
    Y, flow = inverse_operator(w, tangent), operator(w, G)
    own = _operator_change(w, tangent, G) - _operator_change(w, flow, Y)
    return operator(w, change + 0.5 * _transposed_change(w, Y, G)) + 0.5 * projection(w, own)
