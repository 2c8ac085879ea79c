"""Large equations that fall into parts: linear algebra part by part.

Components belong to one part if the Jacobian, or the orbit's tangent space, joins them. Where a
state has a symmetry, as aligned layers have that of the signs of their modes, there are many small
parts, and one that moves with p. All is as exact as for the whole matrix, at a fraction of the
time; and of large sparse matrices only the entries are kept.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads scipy.sparse when it is used, for large equations only
from scipy.linalg import lapack

from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_memory

#: Components above which a matrix is looked at for parts, and a symmetric one not diagonalized.
LARGE = 600
#: Matrices with more nonzero entries than one in so many are taken as a whole.
SPARSE = 16

#: An array, or a sparse one of scipy.
Matrix = Any


class Parts(NamedTuple):
    """The components of the part that moves, and of the others (part, component) by their size."""

    moving: Integers
    others: list[Integers]


def thinned(matrix: Matrix) -> Matrix:
    """Return a matrix by its entries if it is large and most of them are zero, whole if not."""
    height, width = matrix.shape
    if width <= LARGE:
        return whole(matrix)
    count = np.count_nonzero(matrix) if type(matrix) is np.ndarray else matrix.nnz
    return scipy.sparse.csr_array(matrix) if count <= height * width // SPARSE else whole(matrix)


def whole(matrix: Matrix) -> Array:
    """Return a matrix with all of its entries.

    Raises
    ------
    ValueError
        If they do not fit into the memory.
    """
    if type(matrix) is np.ndarray:
        return matrix
    check_memory("x0", 4 * matrix.shape[0] * matrix.shape[1])  # what is computed of it takes more
    return np.asarray(matrix.toarray(), float)


def entries(matrix: Matrix) -> Array:
    """Return the entries of a matrix, of a sparse one those that are there."""
    return matrix if type(matrix) is np.ndarray else np.asarray(matrix.data, float)


def frobenius(matrix: Matrix) -> float:
    """Return ‖A‖_F."""
    return float(np.linalg.norm(entries(matrix)))


def spectral_norm(matrix: Matrix) -> float:
    """Return ‖A‖."""
    if type(matrix) is np.ndarray:
        return float(np.linalg.norm(matrix, 2))
    return math.sqrt(float(_by_blocks(matrix.T @ matrix)[-1]))


def is_above(matrix: Matrix, shift: float) -> bool:
    """Tell whether all eigenvalues of a symmetric matrix are above a number."""
    if type(matrix) is np.ndarray:
        return not lapack.dpotrf(matrix - shift * np.eye(len(matrix)))[1]
    return bool(_by_blocks(matrix)[0] > shift)


def _by_blocks(matrix: Matrix) -> Array:
    """Return the eigenvalues, ascending, of a sparse symmetric matrix, block by block."""
    labels, sizes = _components(matrix.shape[1], [matrix.tocoo().coords])
    return values_of(matrix, Parts(np.empty(0, np.intp), _by_size(labels, sizes)))


def parts_of(jacobian: Matrix, basis: Matrix, moved: Flags) -> Parts | None:
    """Return the parts of a thin matrix, None if it is none or does not fall into parts.

    What is ``moved`` is one part, with all that is joined with it.
    """
    if type(jacobian) is np.ndarray:
        return None
    n = jacobian.shape[1]
    moving = np.flatnonzero(moved)
    pairs = [
        jacobian.tocoo().coords,
        _pairs_of_rows(scipy.sparse.csr_array(basis.T)),
        (np.repeat(moving[:1], moving.size), moving),
    ]
    labels, sizes = _components(n, pairs)
    if sizes.max() > n // 2:
        return None
    own = np.arange(sizes.size) == (labels[moving[0]] if moving.size else -1)
    return Parts(np.flatnonzero(own[labels]), _by_size(labels, np.where(own, 0, sizes)))


def _pairs_of_rows(rows: Matrix) -> tuple[Integers, Integers]:
    """Return pairs of components that rows join: the first one of each, and all of them."""
    counts = np.diff(rows.indptr)
    first = rows.indices[rows.indptr[:-1][counts > 0]]
    return np.repeat(first, counts[counts > 0]), rows.indices


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


def stack(matrix: Matrix, places: Integers, columns: Integers | None = None) -> Array:
    """Return the blocks (part, component, component) of a thin matrix, square ones of places."""
    at = places if columns is None else columns
    height, width = places.shape[-1], at.shape[-1]
    number = np.full(matrix.shape[1], -1)
    number[at.ravel()] = np.arange(at.size)
    rows = matrix[places.ravel()].tocoo()
    row, column = rows.coords[0], number[rows.coords[1]]
    own = (column >= 0) & (column // width == row // height)
    blocks = np.zeros((places.size, width))
    blocks[row[own], column[own] % width] = rows.data[own]
    return blocks.reshape(*places.shape, width)


def held(matrix: Matrix, basis: Matrix, size: float) -> Matrix:
    """Return A − c B Bᵀ of a thin matrix, as it is."""
    orbit = scipy.sparse.csr_array(basis)
    return scipy.sparse.csr_array(matrix - size * (orbit @ orbit.T))


def span(rows: Matrix, rtol: float, unit: float) -> Matrix:
    """Return an orthonormal basis (component × vector) of the span of rows, thin if these are.

    Singular values up to ``rtol``, in terms of the largest or a unit, are zero.
    """
    rows = thinned(rows)
    if type(rows) is np.ndarray:
        _, sizes, frames = np.linalg.svd(rows, full_matrices=False)
        kept = sizes > rtol * max(unit, float(sizes.max(initial=0.0)))
        return np.ascontiguousarray(frames[kept].T)
    blocks = list(_blocks_of_rows(rows))
    found = [np.linalg.svd(block, full_matrices=False)[1:] for _, block in blocks]
    least = rtol * max([unit, *(float(sizes.max(initial=0.0)) for sizes, _ in found)])
    none = np.empty(0, np.intp)
    pieces, end = [(np.empty(0), none, none)], 0
    for (places, _), (sizes, frames) in zip(blocks, found, strict=True):
        part, vector = np.nonzero(sizes > least)
        number = np.repeat(end + np.arange(part.size), places.shape[1])
        pieces.append((frames[part, vector].ravel(), places[part].ravel(), number))
        end += part.size
    data, component, number = map(np.concatenate, zip(*pieces, strict=True))
    return scipy.sparse.csr_array((data, (component, number)), shape=(rows.shape[1], end))


def _blocks_of_rows(rows: Matrix) -> Iterator[tuple[Integers, Array]]:
    """Yield places (part, component) and blocks (part, row, component) of rows that join them."""
    first, others = _pairs_of_rows(rows)
    labels, sizes = _components(rows.shape[1], [(first, others)])
    own = np.full(rows.shape[0], -1)
    own[np.diff(rows.indptr) > 0] = labels[rows.indices[rows.indptr[:-1][np.diff(rows.indptr) > 0]]]
    heights = np.bincount(own[own >= 0], minlength=sizes.size)
    for height in np.unique(heights[heights > 0]).tolist():
        for places in _by_size(labels, np.where(heights == height, sizes, 0)):
            chosen = np.isin(own, labels[places[:, 0]])
            order = np.flatnonzero(chosen)[np.argsort(own[chosen], kind="stable")]
            order = order.reshape(-1, height)  # parts are in the order of their labels in both
            yield places, stack(rows, order, places)


def values_of(matrix: Matrix, parts: Parts) -> Array:
    """Return the eigenvalues, ascending, of a thin symmetric matrix without a part that moves."""
    found = [np.linalg.eigvalsh(stack(matrix, places)).ravel() for places in parts.others]
    return np.sort(np.concatenate(found))


def decomposed(
    parts: Parts | None, matrix: Matrix, basis: Matrix, size: float, slope: Array | None = None
) -> Iterator[tuple[Integers, tuple[Array, Array, Array]]]:
    """Yield places and singular value decompositions of [J − c B Bᵀ, ∂F/∂p], part by part.

    Or of J − c B Bᵀ alone. Places are (part, component), p the last one; factors have the part
    first. Of what has no parts there is one.
    """
    n = matrix.shape[1]
    if parts is None:
        block = whole(matrix) - size * whole(basis @ basis.T)
        wide = block if slope is None else np.column_stack([block, slope])
        yield np.arange(wide.shape[1])[None], tuple(part[None] for part in np.linalg.svd(wide))
        return
    pinned = held(matrix, basis, size)
    for places in parts.others:
        yield places, np.linalg.svd(stack(pinned, places))
    if slope is None:
        return
    own = parts.moving
    block = np.column_stack([stack(pinned, own[None])[0], slope[own]])
    yield np.append(own, n)[None], tuple(part[None] for part in np.linalg.svd(block))
