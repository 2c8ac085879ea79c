"""Large equations that fall into parts: linear algebra part by part.

Components belong to one part if the Jacobian, or the orbit's tangent space, joins them. Where a
state has a symmetry, as aligned layers have that of the signs of their modes, there are many small
parts, and one that moves with p. All is as exact as for the whole matrix, at a fraction of the
time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.sparse when it is used, for large equations only

from dlnds.arrays import Array, Flags, Integers

#: Components above which a matrix is looked at for parts, and a symmetric one not diagonalized.
LARGE = 600
#: Matrices with more nonzero entries than one in so many are taken as a whole.
SPARSE = 16


class Parts(NamedTuple):
    """The components of the part that moves, and of the others (part, component) by their size."""

    moving: Integers
    others: list[Integers]


def parts_of(jacobian: Array, basis: Array, moved: Flags) -> Parts | None:
    """Return the parts of a large equation, None if it is not large or does not fall into parts.

    What is ``moved`` is one part, with all that is joined with it.
    """
    if not is_sparse(jacobian):
        return None
    n = len(jacobian)
    moving = np.flatnonzero(moved)
    pairs = [
        np.divmod(np.flatnonzero(jacobian), n),
        _pairs_of_rows(basis.T),
        (np.repeat(moving[:1], moving.size), moving),
    ]
    labels, sizes = _components(n, pairs)
    if sizes.max() > n // 2:
        return None
    own = np.arange(sizes.size) == (labels[moving[0]] if moving.size else -1)
    return Parts(np.flatnonzero(own[labels]), _by_size(labels, np.where(own, 0, sizes)))


def is_sparse(matrix: Array) -> bool:
    """Tell whether a matrix is large and most of its entries are zero."""
    large = matrix.shape[1] > LARGE
    return large and bool(np.count_nonzero(matrix) <= matrix.size // SPARSE)


def product(one: Array, other: Array) -> Array:
    """Return a product of matrices, by the entries of the first one where most are zero."""
    thin = scipy.sparse.csr_array(one) if is_sparse(one) else one
    return np.asarray(thin @ other, float)


def _pairs_of_rows(rows: Array) -> tuple[Integers, Integers]:
    """Return pairs of components that rows join: the first one that is not zero, and each other."""
    columns, places = np.nonzero(rows.T)
    first = np.zeros(len(rows), np.intp)
    first[places[::-1]] = columns[::-1]
    return first[places], columns


def _components(n: int, pairs: list[tuple[Integers, Integers]]) -> tuple[Integers, Integers]:
    """Return for each component the number of its part, and the sizes of parts."""
    one, other = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    graph = scipy.sparse.coo_array((np.ones(one.size, np.int8), (one, other)), shape=(n, n))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return labels, np.bincount(labels)


def _by_size(labels: Integers, sizes: Integers) -> list[Integers]:
    """Return the places (part, component) of parts of each size, without those of size 0."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels))
    return [
        order[ends[np.flatnonzero(sizes == size), None] - size + np.arange(size)]
        for size in np.unique(sizes[sizes > 0]).tolist()
    ]


def stack(matrix: Array, places: Integers) -> Array:
    """Return the square blocks (part, component, component) of a matrix."""
    return matrix[places[..., :, None], places[..., None, :]]


def pin(basis: Array, places: Integers) -> Array:
    """Return the same of B Bᵀ."""
    rows = basis[places]
    return np.asarray(rows @ np.swapaxes(rows, -1, -2), float)


def span(rows: Array, rtol: float, unit: float) -> Array:
    """Return an orthonormal basis (component × vector) of the span of rows.

    Singular values up to ``rtol``, in terms of the largest or a unit, are zero.
    """
    blocks = list(_blocks_of_rows(rows))
    found = [np.linalg.svd(block, full_matrices=False)[1:] for _, block in blocks]
    least = rtol * max([unit, *(float(sizes.max(initial=0.0)) for sizes, _ in found)])
    kept = [np.nonzero(sizes > least) for sizes, _ in found]
    basis, end = np.zeros((rows.shape[1], sum(len(part) for part, _ in kept))), 0
    for (places, _), (_, frames), (part, vector) in zip(blocks, found, kept, strict=True):
        begin, end = end, end + len(part)
        basis[places[part], np.arange(begin, end)[:, None]] = frames[part, vector]
    return basis


def _blocks_of_rows(rows: Array) -> Iterator[tuple[Integers, Array]]:
    """Yield places (part, component) and blocks (part, row, component) of rows that join them."""
    count, n = rows.shape
    if not is_sparse(rows):
        yield np.arange(n)[None], rows[None]
        return
    first, others = _pairs_of_rows(rows)
    labels, sizes = _components(n, [(first, others)])
    leading = np.argmax(rows != 0.0, axis=1)
    own = np.where(rows[np.arange(count), leading] != 0.0, labels[leading], -1)
    shapes = sizes, np.bincount(own[own >= 0], minlength=sizes.size)
    for height in np.unique(shapes[1][shapes[1] > 0]).tolist():
        for places in _by_size(labels, np.where(shapes[1] == height, sizes, 0)):
            chosen = np.isin(own, labels[places[:, 0]])
            order = np.flatnonzero(chosen)[np.argsort(own[chosen], kind="stable")]
            order = order.reshape(-1, height)  # parts are in the order of their labels in both
            yield places, rows[order[:, :, None], places[:, None, :]]


def decomposed(
    parts: Parts, matrix: Array, basis: Array, size: float, slope: Array
) -> Iterator[tuple[Integers, tuple[Array, Array, Array]]]:
    """Yield places and singular value decompositions of [J − c B Bᵀ, ∂F/∂p], part by part.

    Places are (part, component), p the last one; factors have the part first.
    """
    n = len(matrix)
    for places in parts.others:
        yield places, np.linalg.svd(stack(matrix, places) - size * pin(basis, places))
    own = parts.moving
    block = np.column_stack([stack(matrix, own) - size * pin(basis, own), slope[own]])
    yield np.append(own, n)[None], tuple(part[None] for part in np.linalg.svd(block))
