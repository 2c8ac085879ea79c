"""Derivatives of layers most of whose weights are zero, as sparse matrices.

Such are aligned layers, one weight for each mode: every product of them has as few entries, and so
have the Hessian and the generators of the symmetry. They take a memory of so many numbers as there
are weights, where a matrix takes the square.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # loads scipy.sparse when it is used, for large networks only

from dlnds.arrays import Array
from dlnds.theory.moments import Problem

#: A matrix of ``scipy.sparse``.
Sparse = Any
#: Weights above which derivatives are sparse, and entries in a row or column that are few.
LARGE, FEW = 600, 4


def is_thin(layers: Sequence[Array]) -> bool:
    """Tell whether layers have few entries in each row and each column."""
    used = [w != 0.0 for w in layers]
    return all(bool((u.sum(axis=k) <= FEW).all()) for u in used for k in (0, 1))


def jacobian(problem: Problem, layers: Sequence[Array], decay: float = 0.0) -> Sparse:
    """Return minus the Hessian of the loss with weight decay (weight × weight).

    For i ≤ j the block of W_i[p, q] and W_j[r, s] is
    (L_iᵀ L_j)[p, r] (P_{i−1} P_{j−1}ᵀ)[q, s] − W_{i+1:j−1}[s, p] (P_{i−1} Rᵀ L_j)[q, r],
    with P_0 = K and P_i = W_i P_{i−1}; the second term only for i < j.
    """
    depth, thin = len(layers), [scipy.sparse.csr_array(w) for w in layers]
    root = np.eye(layers[0].shape[1]) if problem.root is None else problem.root
    rights, lefts = [scipy.sparse.csr_array(root)], [scipy.sparse.eye_array(len(layers[-1]))]
    for w, after in zip(thin, reversed(thin), strict=True):
        rights.append(w @ rights[-1])
        lefts.append(lefts[-1] @ after)
    lefts.reverse()
    rest = (scipy.sparse.csr_array(problem.target) - rights[-1]).T
    blocks: list[list[Sparse]] = [[None] * depth for _ in range(depth)]
    for i in range(depth):
        back, between = rights[i] @ rest, scipy.sparse.eye_array(len(layers[i]))
        for j in range(i, depth):
            later = lefts[j + 1]
            block = -scipy.sparse.kron(lefts[i + 1].T @ later, rights[i] @ rights[j].T, "coo")
            if j > i:
                block = block + _crossed(between, back @ later)
                between = thin[j] @ between
                blocks[j][i] = block.T
            blocks[i][j] = block
    whole = scipy.sparse.block_array(blocks, format="csr")
    return _tidy(whole - decay * scipy.sparse.eye_array(whole.shape[0], format="csr"))


def _crossed(one: Sparse, other: Sparse) -> Sparse:
    """Return the matrix with A[s, p] B[q, r] in row (p, q) and column (r, s)."""
    pairs = scipy.sparse.kron(one.T, other, "coo")
    rows, (s, r) = pairs.coords[0], np.divmod(pairs.coords[1], other.shape[1])
    return scipy.sparse.coo_array((pairs.data, (rows, r * one.shape[0] + s)), shape=pairs.shape)


def generators(layers: Sequence[Array], orthogonal: bool) -> Sparse:
    """Return the tangent vectors (generator × weight) of the orbit, as `symmetry.generators`."""
    ends = np.cumsum([0, *(w.size for w in layers)]).tolist()
    parts = [scipy.sparse.csr_array((0, ends[-1]))]
    for i, (w, after) in enumerate(itertools.pairwise(layers)):
        d, unit = len(w), scipy.sparse.eye_array(len(w))
        pieces = [scipy.sparse.kron(unit, scipy.sparse.csr_array(w))]
        pieces += [-scipy.sparse.kron(scipy.sparse.csr_array(after.T), unit)]
        left, right = ends[i], ends[-1] - ends[i + 2]
        around = [scipy.sparse.csr_array((d * d, n)) for n in (left, right)]
        rows = scipy.sparse.hstack([around[0], *pieces, around[1]], format="csr")
        if orthogonal:
            a, b = np.triu_indices(d, 1)
            rows = rows[a * d + b] - rows[b * d + a]
        parts.append(rows)
    return _tidy(scipy.sparse.vstack(parts, format="csr"))


def _tidy(matrix: Sparse) -> Sparse:
    """Return a matrix without entries that are zero."""
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix
