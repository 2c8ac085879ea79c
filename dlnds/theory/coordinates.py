"""Bases of hidden units that suit the weights of a state."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from dlnds.arrays import Array


def span(*blocks: Array) -> Array:
    """Return an orthonormal basis (at least one column) of the columns of all blocks."""
    scaled = [block / max(float(np.linalg.norm(block)), np.finfo(float).tiny) for block in blocks]
    U, s, _ = np.linalg.svd(np.hstack(scaled), full_matrices=False)
    rank = np.count_nonzero(s > len(U) * np.finfo(float).eps)
    return U[:, : max(1, int(rank))]


def is_identity(basis: Array) -> bool:
    """Tell whether a square matrix is the identity, exactly."""
    return bool(np.array_equal(basis, np.eye(len(basis))))


def turning(widths: Sequence[int], bases: Sequence[Array]) -> Callable[[Array], Array]:
    """Return the way back of states with such widths, whose layers are B_iᵀ W_i B_{i−1}."""
    pairs = list(itertools.pairwise(bases))
    ends = np.cumsum([0, *(b * a for a, b in itertools.pairwise(widths))])

    def lift(states: Array) -> Array:
        count = len(states)
        turned = [
            b @ states[:, i:j].reshape(count, b.shape[1], a.shape[1]) @ a.T
            for (i, j), (a, b) in zip(itertools.pairwise(ends), pairs, strict=True)
        ]
        return np.concatenate([w.reshape(count, w.shape[1] * w.shape[2]) for w in turned], axis=1)

    return lift


def unit_bases(layers: Sequence[Array]) -> list[Array]:
    """Return for each hidden layer the principal axes of the weights of its units."""
    return [_principal_axes(w @ w.T + after.T @ after) for w, after in itertools.pairwise(layers)]


def _principal_axes(gram: Array) -> Array:
    """Return orthonormal axes of a symmetric matrix whose diagonal spans many orders of magnitude.

    Axes computed together would mix units by the rounding of the largest. So those that are smaller
    by 1e6 are only turned by the small angles that take them out of the way of the larger, which
    keeps their own digits, and then on their own.
    """
    sizes = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    noise = 16.0 * np.finfo(float).eps * np.multiply.outer(sizes, sizes)
    if not (np.abs(gram - np.diag(sizes**2)) > noise).any():
        return np.eye(len(gram))
    near = sizes >= 1e-6 * sizes.max()  # all, if what is left is rounding
    large, small = np.flatnonzero(near), np.flatnonzero(~near)
    values, first = np.linalg.eigh(gram[np.ix_(large, large)])
    if not small.size:
        return first[:, ::-1]
    count = int(np.count_nonzero(values > 1e-12 * values[-1]))
    start = np.zeros_like(gram)  # axes of the large units, the main ones first, then the small
    start[large, : len(large)] = first[:, ::-1]
    start[small, len(large) :] = np.eye(len(small))
    turned = start.T @ gram @ start
    weights = values[::-1][:count]
    tilt = (turned[:count, count:] / weights[:, None]).T
    if not (np.abs(tilt) < 2.0).all():  # as it is for all but rounding
        return start
    along = _inverse_root(np.eye(count) + tilt.T @ tilt)
    across = _inverse_root(np.eye(len(gram) - count) + tilt @ tilt.T)
    main = start @ np.vstack([along, tilt @ along])
    away = start @ np.vstack([-tilt.T @ across, across])
    rest = across @ (turned[count:, count:] - (tilt * weights) @ tilt.T) @ across
    return np.hstack([main, away @ _principal_axes(rest)])


def _inverse_root(matrix: Array) -> Array:
    """Return the inverse square root of a symmetric matrix near the identity."""
    values, vectors = np.linalg.eigh(matrix)
    root: Array = (vectors / np.sqrt(values)) @ vectors.T
    return root
