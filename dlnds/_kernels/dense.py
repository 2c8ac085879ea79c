"""Products of dense matrices: plain loops below the size where BLAS wins, BLAS above it.

Each product is written to ``out``, or added to it if ``add`` is true. Loops stand where an array
expression would do because they compile several times faster.
"""

import numpy as np

from dlnds._kernels.jit import LOOP_LIMIT, jit, part, sums


@jit
def multiply(a, b, out, add):
    """Compute ``a b``."""
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[1]
    if rows * inner * columns > LOOP_LIMIT:
        blas_product(a, b, out, add)
        return
    if not add:
        fill(0.0, out)
    for i in range(rows):
        for k in range(inner):
            factor = a[i, k]
            for j in range(columns):
                out[i, j] += factor * b[k, j]


@jit
def multiply_left_transposed(a, b, out, add):
    """Compute ``aᵀ b``."""
    inner, rows, columns = a.shape[0], a.shape[1], b.shape[1]
    if rows * inner * columns > LOOP_LIMIT:
        blas_product(a.T, b, out, add)
        return
    if not add:
        fill(0.0, out)
    for k in range(inner):
        for i in range(rows):
            factor = a[k, i]
            for j in range(columns):
                out[i, j] += factor * b[k, j]


@jit
def multiply_right_transposed(a, b, out, add):
    """Compute ``a bᵀ``."""
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[0]
    if rows * inner * columns > LOOP_LIMIT:
        blas_product(a, b.T, out, add)
        return
    for i in range(rows):
        for j in range(columns):
            total = out[i, j] if add else 0.0
            for k in range(inner):
                total += a[i, k] * b[j, k]
            out[i, j] = total


@part
def blas_product(a, b, out, add):
    """Compute ``a b`` of matrices in either memory order by BLAS."""
    if add:
        product = np.empty(out.shape)  # so that both products are of one type
        np.dot(a, b, product)
        scaled_sum(1.0, out, 1.0, product, out)
    else:
        np.dot(a, b, out)


@part
def fill(value, out):
    """Set all entries to ``value``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = value


@part
def scaled_sum(alpha, a, beta, b, out):
    """Compute ``alpha a + beta b``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = alpha * a[i, j] + beta * b[i, j]


@part
def assign(a, out):
    """Copy ``a``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j]


@part
def assign_transposed(a, out):
    """Copy ``aᵀ``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[j, i]


@part
def assign_identity(out):
    """Set ``out`` to the identity."""
    fill(0.0, out)
    for i in range(out.shape[0]):
        out[i, i] = 1.0


@sums
def dot(a, b):
    """Return the product of two vectors."""
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total
