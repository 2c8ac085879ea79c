"""The isotropy group: which turns of hidden layers leave a state where it is."""

import itertools
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.sparse.csgraph

from dlnds.arrays import Array

#: Unknowns above which a group whose levels are joined is not taken apart.
MOST_UNKNOWNS = 1500


def orthogonal_isotropy(layers: Sequence[Array], rtol: float) -> str:
    """Return the part of the orthogonal groups that keeps layers, as a product of O(m).

    What the ends reach is kept point by point. The rest of the hidden layers falls into
    irreducible parts; m equal ones can be turned into each other by O(m).
    """
    blocks, units = _unreached(layers, rtol)
    if not sum(units):
        return "trivial"
    if not any(b.any() for b in blocks):
        return " x ".join(f"O({m})" for m in units if m)
    unknowns = sum(m * m for m in units)
    if unknowns > MOST_UNKNOWNS:
        return ""
    algebra = _commutant(blocks, units, rtol)
    rng = np.random.default_rng(0)
    element = np.zeros((sum(units), sum(units)))
    ends = np.cumsum([0, *units])
    parts = np.split(algebra @ rng.normal(size=algebra.shape[1]), np.cumsum([m * m for m in units]))
    for (i, j), part in zip(itertools.pairwise(ends), parts, strict=False):
        element[i:j, i:j] = part.reshape(j - i, j - i)
    values, vectors = np.linalg.eigh(element + element.T)
    spread = np.abs(values).max()
    cluster = np.concatenate([[0], np.cumsum(np.diff(values) > 1e-7 * spread)])
    turned = vectors.T @ (element - element.T) @ vectors
    count = int(cluster[-1]) + 1
    joined = np.zeros((count, count))
    np.add.at(joined, np.ix_(cluster, cluster), np.abs(turned))
    _, label = scipy.sparse.csgraph.connected_components(joined > 1e-7 * spread, directed=False)
    sizes = sorted(np.bincount(label).tolist(), reverse=True)
    if sum(m * m for m in sizes) != algebra.shape[1]:
        return ""  # complex or quaternionic parts
    return " x ".join(f"O({m})" for m in sizes)


def _unreached(layers: Sequence[Array], rtol: float) -> tuple[list[Array], list[int]]:
    """Return layers between the parts of hidden layers that no path from the ends reaches."""
    depth = len(layers)
    sizes = [layers[0].shape[1], *(len(w) for w in layers)]
    reached = [np.zeros((d, 0)) for d in sizes]
    reached[0], reached[-1] = np.eye(sizes[0]), np.eye(sizes[-1])
    while True:
        before = [b.shape[1] for b in reached]
        for i in range(1, depth):
            parts = [reached[i], layers[i - 1] @ reached[i - 1], layers[i].T @ reached[i + 1]]
            reached[i] = _range(np.hstack(parts), rtol)
        if [b.shape[1] for b in reached] == before:
            break
    rest = [scipy.linalg.null_space(b.T) if b.size else np.eye(len(b)) for b in reached]
    blocks = [rest[i].T @ layers[i - 1] @ rest[i - 1] for i in range(2, depth)]
    least = rtol * max(float(np.linalg.norm(w)) for w in layers)
    blocks = [np.where(np.linalg.norm(b) > least, b, 0.0) for b in blocks]
    return blocks, [rest[i].shape[1] for i in range(1, depth)]


def _range(matrix: Array, rtol: float) -> Array:
    """Return an orthonormal basis of the columns of a matrix, none if it is zero."""
    if not matrix.any():
        return np.zeros((len(matrix), 0))
    U, s, _ = np.linalg.svd(matrix, full_matrices=False)
    basis: Array = U[:, s > rtol * s[0]]
    return basis


def _commutant(blocks: Sequence[Array], units: Sequence[int], rtol: float) -> Array:
    """Return a basis (entries of Q_1, Q_2, …; element) of Q_i B_i = B_i Q_{i−1}.

    The same is asked of the transposes.
    """
    ends = np.cumsum([0, *(m * m for m in units)])
    rows = [np.zeros((0, ends[-1]))]
    for i, b in enumerate(blocks):
        after, before = np.eye(units[i + 1]), np.eye(units[i])
        first, second = slice(ends[i], ends[i + 1]), slice(ends[i + 1], ends[i + 2])
        forth, back = np.zeros((b.size, ends[-1])), np.zeros((b.size, ends[-1]))
        forth[:, second], forth[:, first] = np.kron(after, b.T), -np.kron(b, before)
        back[:, first], back[:, second] = np.kron(before, b), -np.kron(b.T, after)
        rows += [forth, back]
    basis: Array = scipy.linalg.null_space(np.concatenate(rows), rcond=rtol)
    return basis
