"""The linear algebra of steps along branches: bordered systems, orbits, spectra across them."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from dlnds._kernels import bordered as kernels
from dlnds._kernels import jit
from dlnds.arrays import Array, Integers
from dlnds.continuation.parts import (
    LARGE,
    Matrix,
    Parts,
    entries,
    frobenius,
    held,
    parts_of,
    stack,
    values_of,
    whole,
)
from dlnds.continuation.residuals import Residual
from dlnds.theory import tolerances

#: Reciprocal condition of a bordered system below which it is solved in its regular part only.
SINGULAR = 1e-10
#: Largest size of a matrix with compiled factors, and pivots, in terms of the largest, beyond doubt
#: those of a regular one.
SMALL, CLEAR = 64, 1e-4
#: What stands for −B Bᵀ where there is no orbit.
NO_PIN = np.empty((0, 0))
#: Reciprocal condition of the generators' Gram matrix above which their rank is full beyond doubt.
INDEPENDENT = 1e-4
#: Eigenvalues that are known of it at least; vectors of a block Krylov space beyond those, its
#: blocks at most, and relative residuals.
FEWEST, SPARE, MOST_BLOCKS, RITZ_RTOL = 12, 20, 12, 1e-11


def orthonormal(rows: Array, unit: float) -> Array | None:
    """Return an orthonormal basis of the span of rows that are clearly independent, or None.

    By Cholesky's factors of their Gram matrix, which for many generators is much faster than a
    singular value decomposition; the error is rounding over its condition.
    """
    gram = rows @ rows.T
    size = float(np.abs(gram).sum(axis=0).max())
    factor, info = lapack.dpotrf(gram, lower=1)
    if info or len(rows) > rows.shape[1]:
        return None
    condition = lapack.dpocon(factor, size, uplo="L")[0]
    if condition < INDEPENDENT or condition * size < INDEPENDENT * unit**2:
        return None
    basis: Array = scipy.linalg.blas.dtrsm(1.0, factor, rows, lower=1).T
    return basis


class Factors(NamedTuple):
    """A matrix and the triangular factors of its transpose."""

    matrix: Array
    #: Or, without pivots, its pseudoinverse where it is singular.
    factors: Array
    pivots: Integers
    #: The sign of its determinant, and the logarithm of its size.
    sign: float
    volume: float
    #: Its reciprocal condition, infinite where pivots leave no doubt that it is regular.
    doubtful: float = math.inf
    #: Of one that falls into parts, their places and inverses, in place of the matrix and factors.
    parts: Sequence[tuple[Integers, Array]] = ()

    @property
    def condition(self) -> float:
        """An estimate of its reciprocal condition in the largest sum of a row."""
        return self.doubtful if self.doubtful < math.inf else _by_lapack(self.matrix)[2]

    def is_regular(self, least: float) -> bool:
        """Tell whether its reciprocal condition is above the least one, as clear pivots tell."""
        return least <= 1e-2 * CLEAR < self.doubtful or self.condition > least

    def solve(self, right: Array, transposed: bool = False) -> Array:
        """Return the solution, or that of the transpose, of least norm where it is singular."""
        if self.parts:
            solution = np.zeros_like(right)
            for places, block in self.parts:
                own = np.swapaxes(block, -1, -2) if transposed else block
                solution[places] = np.matmul(own, right[places][..., None])[..., 0]
            return solution
        if not self.pivots.size:
            inverse: Array = self.factors.T if transposed else self.factors
            return inverse @ right
        found: Array = lapack.dgetrs(self.factors.T, self.pivots, right, trans=not transposed)[0]
        return found


def assembled(
    jacobian: Matrix, slope: Array, normal: Array, basis: Matrix, ratio: float
) -> tuple[Factors | None, float]:
    """Return [J / w − B Bᵀ, r ∂F/∂p / w; normal] with factors, None if not finite, and w.

    That is the usual size of what is divided by it.
    """
    parts = parts_of(jacobian, basis, (slope != 0.0) | (normal[:-1] != 0.0))
    if parts is not None and parts.moving.size:
        return _in_parts(parts, jacobian, slope, normal, basis, ratio)
    n, jacobian, basis = len(normal), whole(jacobian), whole(basis)
    room = n if n <= SMALL else 0
    matrix, factors, pivots = np.empty((n, n)), np.empty((room, room)), np.empty(room, np.int64)
    orbit = basis @ basis.T if basis.size else NO_PIN
    compute: Any = jit.ready(kernels.assemble, kernels.ASSEMBLE)
    weight, least, *determinant = compute(
        *(jacobian, slope, normal, orbit, ratio, matrix, factors, pivots)
    )
    if least >= CLEAR:
        return Factors(matrix, factors, pivots, *determinant), weight
    return None if math.isnan(least) else factorized(matrix), weight


def mean_size(jacobian: Matrix, slope: Array, ratio: float) -> float:
    """Return the root mean square over the rows of [J, r ∂F/∂p]."""
    size = math.hypot(frobenius(jacobian), ratio * float(np.linalg.norm(slope)))
    return size / math.sqrt(slope.size)


def _in_parts(
    parts: Parts, jacobian: Matrix, slope: Array, normal: Array, basis: Matrix, ratio: float
) -> tuple[Factors | None, float]:
    """Return the same, and w, of what falls into parts."""
    n, own = len(slope), parts.moving
    weight = mean_size(jacobian, slope, ratio) or 1.0
    if not math.isfinite(weight):
        return None, 1.0
    matrix = held(jacobian / weight, basis, 1.0)
    blocks = [stack(matrix, at) for at in (own, *parts.others)]
    column = slope[own] * (ratio / weight)
    blocks[0] = np.block([[blocks[0], column[:, None]], [normal[own], normal[-1:]]])[None]
    signs, volumes = zip(*(np.linalg.slogdet(block) for block in blocks), strict=True)
    determinant = float(np.prod(np.concatenate(signs))), float(np.concatenate(volumes).sum())
    inverses, condition = _inverses(blocks)
    places = np.append(own, n)[None], *parts.others
    empty = np.empty((0, 0)), np.empty((0, 0)), np.empty(0, np.int64)
    pairs = tuple(zip(places, inverses, strict=True))
    return Factors(*empty, *determinant, condition, pairs), weight


def _inverses(blocks: Sequence[Array]) -> tuple[list[Array], float]:
    """Return the inverses of all blocks, pseudoinverses if one is singular, and the condition."""
    largest = max(float(np.linalg.norm(block, 1, (-2, -1)).max()) for block in blocks)
    try:
        inverses = [np.asarray(np.linalg.inv(block), float) for block in blocks]
        size = max(float(np.linalg.norm(block, 1, (-2, -1)).max()) for block in inverses)
        condition = 1.0 / (largest * size)
    except np.linalg.LinAlgError:
        condition = 0.0
    if condition > SINGULAR:
        return inverses, condition
    top = max(float(np.linalg.norm(block, 2, (-2, -1)).max()) for block in blocks)
    least = 10.0 * SINGULAR * top
    found = []
    for block in blocks:
        left, sizes, right = np.linalg.svd(block)
        factors = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > least)
        found.append(np.swapaxes(right, -1, -2) * factors[..., None, :] @ np.swapaxes(left, -1, -2))
    return found, condition


def factorized(matrix: Array) -> Factors | None:
    """Return the factors of a matrix, None if it is not finite."""
    factors, pivots, condition = _by_lapack(matrix)
    if not condition > SINGULAR and not np.isfinite(matrix).all():
        return None
    diagonal = np.diagonal(factors)
    odd = np.count_nonzero(pivots != np.arange(len(matrix))) + np.count_nonzero(diagonal < 0.0)
    with np.errstate(divide="ignore"):
        volume = float(np.log(np.abs(diagonal)).sum())
    determinant = (1.0 - 2.0 * (odd % 2)) if diagonal.all() else 0.0, volume
    if condition > SINGULAR:
        return Factors(matrix, factors, pivots, *determinant, condition)
    inverse = np.asarray(np.linalg.pinv(matrix, rcond=10.0 * SINGULAR), float)
    return Factors(matrix, inverse, np.empty(0, np.int64), *determinant, condition)


def _by_lapack(matrix: Array) -> tuple[Array, Integers, float]:
    """Return triangular factors of a transpose, their pivots, and its reciprocal condition."""
    columns = matrix.T
    factors, pivots, info = lapack.dgetrf(columns)
    condition = 0.0 if info else lapack.dgecon(factors, lapack.dlange("1", columns))[0]
    return factors.T, pivots.astype(np.int64), condition


def pinned(basis: Array, size: float) -> Array | float:
    """Return −c B Bᵀ, which takes the kernel along the orbit out of a Jacobian."""
    if not basis.shape[1]:
        return 0.0
    orbit: Array = basis @ basis.T
    orbit *= -size
    return orbit


def transverse_values(
    residual: Residual, jacobian: Matrix, basis: Matrix, nearest: int = FEWEST
) -> Array:
    """Return the eigenvalues of a Jacobian across the orbit, by ascending real part.

    Of large symmetric ones only those ``nearest`` to zero are exact, see `_nearest_values`.
    """
    if residual.symmetric:
        return _symmetric_values(jacobian, basis, nearest)
    jacobian, basis = whole(jacobian), whole(basis)
    if basis.shape[1]:
        across = scipy.linalg.null_space(basis.T)
        jacobian = across.T @ jacobian @ across
    if not math.isfinite(jacobian.sum()):
        raise np.linalg.LinAlgError("the Jacobian is not finite")
    real, imag, _, _, info = lapack.dgeev(jacobian.T, compute_vl=0, compute_vr=0)
    if info:
        raise np.linalg.LinAlgError("the Jacobian's eigenvalues are not found")
    pairs = sorted(zip(real.tolist(), imag.tolist(), strict=True))
    return np.array(list(itertools.starmap(complex, pairs)), complex)


def values_by_rows(jacobian: Array, rows: Array, dimension: int) -> tuple[Array, Array]:
    """Return the eigenvalues of a Jacobian with fast and slow rows across an orbit, and rates.

    A rate is what an eigenvalue has to be compared with: the mean of the sizes of the rows by how
    much they take part in it, |w_i v_i| with its left and right eigenvectors. Fast rows come first,
    the slow eigenvalues are lost in their rounding else.
    """
    order = np.argsort(-rows, kind="stable")
    if not math.isfinite(jacobian.sum()):
        raise np.linalg.LinAlgError("the Jacobian is not finite")
    values, left, right = scipy.linalg.eig(jacobian[np.ix_(order, order)], left=True)
    parts = np.abs(left * right)
    rates = rows[order] @ parts / parts.sum(axis=0)
    across = np.argsort(np.abs(values) / rates, kind="stable")[dimension:]
    return values[across], rates[across]


def _symmetric_values(jacobian: Matrix, basis: Matrix, nearest: int) -> Array:
    """Return the eigenvalues of a symmetric Jacobian across the orbit."""
    numbers, orbit = entries(jacobian), basis.shape[1]
    size = 1.0 + 2.0 * math.sqrt(np.vdot(numbers, numbers))
    parts = parts_of(jacobian, basis, np.zeros(jacobian.shape[1], bool))
    if parts is not None:
        return values_of(held(jacobian, basis, size), parts)[orbit:]
    matrix = pinned(whole(basis), size) + whole(jacobian)
    if len(matrix) > LARGE:
        known = _nearest_values(matrix, orbit, max(nearest, FEWEST), RITZ_RTOL * size)
        if known is not None:
            return known
    values, _, info = lapack.dsyevd(matrix.T, compute_v=0, lower=1, overwrite_a=1)
    if info:
        raise np.linalg.LinAlgError("the Jacobian's eigenvalues are not found")
    return np.asarray(values[orbit:], float)


def _nearest_values(matrix: Array, orbit: int, nearest: int, error: float) -> Array | None:
    """Return the eigenvalues nearest to zero and, for the others, ∓ the largest of their moduli.

    How many are positive is known from the inertia of the factors. None if an eigenvalue is zero,
    which the inverse does not resolve, or the residuals ‖J v − value v‖ are not within the error.
    """
    solve, positive, _ = _inverse(matrix)
    near = None if solve is None else _ritz_values(matrix, solve, nearest, error)
    if near is None or np.abs(near).min() <= tolerances.KERNEL * np.abs(near).max():
        return None
    bound = float(np.abs(near).max())
    zero = len(matrix) - orbit - positive
    low, high = near[near < 0.0][::-1][:zero], near[near > 0.0][:positive]
    values = np.concatenate([np.full(zero, -bound), np.full(positive, bound)])
    values[zero - len(low) : zero] = low[::-1]
    values[zero : zero + len(high)] = high
    return values


def _inverse(matrix: Array) -> tuple[Callable[[Array], Array] | None, int, float]:
    """Return what multiplies by the inverse, the number of positive eigenvalues, the least pivot.

    Cholesky's factors, a fourth of the time, where there are none; Bunch's and Kaufman's else.
    """
    factor, info = lapack.dpotrf(-matrix.T, overwrite_a=1)
    if not info:
        least = float(np.diagonal(factor).min()) ** 2
        return lambda right: -lapack.dpotrs(factor, right)[0], 0, least
    factors, pivots, info = lapack.dsytrf(matrix.T, lower=1, lwork=64 * len(matrix))
    if info:
        return None, 0, 0.0
    pairs = np.count_nonzero(pivots < 0) // 2  # blocks of two rows have one eigenvalue of each sign
    single = np.diagonal(factors)[pivots > 0]
    positive = int(pairs + np.count_nonzero(single > 0.0))
    least = float(np.abs(single).min(initial=np.inf))
    return lambda right: lapack.dsytrs(factors, pivots, right, lower=1)[0], positive, least


def _ritz_values(
    matrix: Array, solve: Callable[[Array], Array], nearest: int, error: float
) -> Array | None:
    """Return the eigenvalues nearest to zero, by a block Krylov space of the inverse, or None."""
    width = nearest + SPARE
    block = np.random.default_rng(0).normal(size=(len(matrix), width))
    space, images = np.empty((len(matrix), 0)), np.empty((len(matrix), 0))
    for number in range(min(MOST_BLOCKS, len(matrix) // width)):
        for _ in range(2):  # the first leaves rounding only where the space is closed
            block = np.linalg.qr(block - space @ (space.T @ block))[0]
        image = solve(block)
        space, images = np.hstack([space, block]), np.hstack([images, image])
        block = image
        if number % 2 == 0:
            continue
        inverse, turn = np.linalg.eigh(space.T @ images)
        vectors = space @ turn[:, np.argsort(-np.abs(inverse))[:nearest]]
        vectors /= np.linalg.norm(vectors, axis=0)
        products = matrix @ vectors
        values = np.einsum("ij,ij->j", vectors, products)
        if np.linalg.norm(products - vectors * values, axis=0).max() <= error:
            return np.sort(values)
    return None
