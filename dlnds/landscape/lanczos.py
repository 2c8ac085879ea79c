"""Eigenvalues at the lower end of a symmetric operator of which only products are known.

Block Lanczos iteration with thick restarts, and with what is found put aside. Repeated eigenvalues
are the rule where a network has symmetries, and a single Krylov space holds one vector of each; so
fresh starts follow until one finds nothing more. `scipy.sparse.linalg.eigsh` is not used because a
Krylov space that closes, as it does after as many steps as there are distinct eigenvalues, lets it
go on from vectors of a generator of its own, so that equal calls differ.
"""

import itertools
from collections.abc import Callable

import numpy as np
import scipy.linalg

from dlnds.arrays import Array
from dlnds.errors import ConvergenceError, check_memory

Product = Callable[[Array], Array]

#: Vectors that a Krylov space starts from: so many copies of an eigenvalue come together.
BLOCK = 4
#: Vectors of a Krylov space beyond twice those that are wanted.
SPARE = 96
#: Restarts after which a search has failed.
MOST_RESTARTS = 500


def spectral_radius(product: Product, dim: int) -> float:
    """Return the norm of the operator to a few per cent, from below, by the power method."""
    vector, size = np.random.default_rng(0).normal(size=dim), 0.0
    for _ in range(30):
        vector = product(vector / np.linalg.norm(vector))
        norm = float(np.linalg.norm(vector))
        if norm == 0.0 or not np.isfinite(norm):
            return norm
        size = max(size, norm)
    return size


def lowest_eigenvalues(
    product: Product, dim: int, radius: float, *, below: float = np.inf, count: int | None = None
) -> Array:
    """Return the ``count`` lowest eigenvalues, or all that are less than ``below``, ascending.

    The residuals ‖H v − λ v‖ are at most τ = 16 ε √n ‖H‖, with ``radius`` for ‖H‖. The last start
    finds nothing: if an eigenvalue were missed by δ, its residual would be at least δ times the
    part of the random start along the eigenvector, which is of the order 1/√n; so δ is of the order
    √n τ at most.

    Raises
    ------
    ConvergenceError
        If a search does not come to an end.
    """
    tolerance = 16.0 * np.finfo(float).eps * np.sqrt(dim) * radius
    values, vectors = np.empty(0), np.empty((0, dim))
    for start in itertools.count():
        limit, most = below, dim
        if count is not None:
            done = len(values) >= count
            limit = np.sort(values)[count - 1] - tolerance if done else np.inf
            most = 1 if done else count - len(values)
        more, their = _search(product, vectors, limit, most, tolerance, start)
        if not len(more):
            break
        values, vectors = np.append(values, more), np.vstack([vectors, their])
    return np.sort(values)[:count]


def _search(
    product: Product, found: Array, limit: float, most: int, tolerance: float, start: int
) -> tuple[Array, Array]:
    """Return up to ``most`` lowest eigenvalues < ``limit`` and their eigenvectors, from a start.

    ``found`` are the eigenvectors (rows) to stay orthogonal to. No values if the lowest one, which
    is converged as well, is not below the limit. The basis grows to twice what is wanted.
    """
    room, dim = found.shape[1] - len(found), found.shape[1]
    block = np.random.default_rng(start).normal(size=(min(BLOCK, room), dim))
    block, _ = _orthonormal(_outside(block, found), [found], 0.0)
    basis, projected, wanted = np.empty((0, dim)), np.zeros((0, 0)), 0
    for _ in range(MOST_RESTARTS):
        rows = min(2 * wanted + SPARE, room)
        if rows > len(basis):
            check_memory("which", 2 * rows * dim)
            basis = np.vstack([basis[: len(projected)], np.empty((rows - len(projected), dim))])
        projected, block, coupling = _expand(product, found, basis, projected, block, tolerance)
        values, turn = np.linalg.eigh(projected)
        below = int(np.count_nonzero(values < limit))
        wanted = min(most, max(1, below))
        last = turn[len(turn) - coupling.shape[1] :, :wanted]
        if (np.linalg.norm(coupling @ last, axis=0) <= tolerance).all():
            done = min(wanted, below)
            return values[:done], turn[:, :done].T @ basis[: len(turn)]
        kept = (len(turn) + wanted) // 2
        basis[:kept] = turn[:, :kept].T @ basis[: len(turn)]
        projected = np.diag(values[:kept])
    raise ConvergenceError(
        f"x: {MOST_RESTARTS} restarts with {len(basis)} vectors do not settle the "
        f"eigenvalues below {limit:.3g}"
    )


def _expand(
    product: Product,
    found: Array,
    basis: Array,
    projected: Array,
    block: Array,
    tolerance: float,
) -> tuple[Array, Array, Array]:
    """Fill the basis block by block; return VᵀHV, the next block, and what couples it to the last.

    The directions of the next block that are dropped change H by a quarter of the tolerance.
    """
    coupling = np.zeros((0, len(block)))
    while len(block) and len(projected) + len(block) <= len(basis):
        before, width = len(projected), len(projected) + len(block)
        basis[before:width] = block
        image = np.stack([product(v) for v in block])
        grown = np.empty((width, width))
        grown[:before, :before] = projected
        grown[:, before:] = basis[:width] @ image.T
        grown[before:, :before] = grown[:before, before:].T
        projected = grown
        rest = _outside(image - projected[:, before:].T @ basis[:width], found)
        block, coupling = _orthonormal(rest, [found, basis[:width]], tolerance / 4.0)
    return projected, block, coupling


def _outside(vectors: Array, rows: Array) -> Array:
    """Return vectors without their parts along orthonormal rows."""
    return vectors - (vectors @ rows.T) @ rows


def _orthonormal(vectors: Array, others: list[Array], tiny: float) -> tuple[Array, Array]:
    """Return orthonormal rows that span the vectors, and factors: vectors = factorsᵀ · rows.

    Directions smaller than ``tiny`` are dropped, so that a closed space leaves none. The vectors
    are orthogonal to the others up to rounding, and are made so again once they are of unit length;
    what loses half of it is rounding, and is dropped as well.
    """
    rows, factors = _independent(vectors, tiny)
    for other in others:
        rows = _outside(rows, other)
    rows, turn = _independent(rows, 0.5)
    return rows, turn @ factors


def _independent(vectors: Array, smallest: float) -> tuple[Array, Array]:
    q, r, order = scipy.linalg.qr(vectors.T, mode="economic", pivoting=True)
    rank = int(np.count_nonzero(np.abs(np.diagonal(r)) > smallest))
    factors = np.empty_like(r)
    factors[:, order] = r
    return q[:, :rank].T, factors[:rank]
