"""The Hessian at points of the GL orbits of A_S of whitened problems, from its factors.

In the coordinates of the modes W_1 and W_h have no weights for a mode q that is not learnt. So the
Hessian joins w, what W_1 reads of q, and z, what W_h writes to it, with nothing else. With
L = W_{2:h} and R = W_{1:h−1} between hidden units and learnt modes, there

    ½‖L w‖² + ½‖Rᵀ z‖² − σ_q zᵀ W_{2:h−1} w,    W_{2:h−1} = R Σ_S⁻¹ L  (h ≥ 3).

Its other eigenvalues are those of Jᵀ J, with the derivative J of W between learnt modes. No sum
cancels in these factors, however far the layers are from balanced.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array, Flags, Integers
from dlnds.theory import strings, tolerances
from dlnds.theory.coordinates import Turning, images, kernel, layers_of, readings
from dlnds.theory.moments import Problem, equal
from dlnds.theory.places import Place, mode_place


class Modes(NamedTuple):
    """Eigenvalues and eigenvectors (parameter × eigenvalue) of the Hessian at such a point.

    ``zero`` are those of its kernel; ``gained`` the mode that one belongs to, −1 for those between
    learnt ones; ``clear``, if rounding leaves seven digits of the others.
    """

    values: Array
    vectors: Array
    zero: Flags
    gained: Integers
    clear: bool


class _Block(NamedTuple):
    """Weights that the Hessian joins with nothing else, and its eigenvectors among them, by row.

    Of as many as there are values; the others are in the kernel.
    """

    weights: Integers
    values: Array
    vectors: Array
    gained: int


def hessian_modes(problem: Problem, layers: Sequence[Array]) -> Modes | None:
    """Return the eigenvectors of the Hessian at a point of the GL orbit of A_S, None elsewhere."""
    whitened = problem.whitened()
    if whitened is None or problem.depth < 2:
        return None
    found = strings.learnt(whitened, layers)
    if not found.is_critical(tolerances.CRITICAL):
        return None
    if any(z.any() for z in strings.residual_blocks(whitened, found, tolerances.CRITICAL)[:-1]):
        return None
    place = mode_place(whitened, layers)
    blocks = list(_blocks(place))
    dim = place.state.size
    values, vectors, zero = np.zeros(dim), np.zeros((dim, dim)), np.ones(dim, bool)
    gained, row = np.full(dim, -1), 0
    for weights, known, basis, mode in blocks:
        rows = slice(row, row + weights.size)
        values[row : row + known.size], zero[row : row + known.size] = known, False
        vectors[rows, weights] = np.vstack([basis, kernel(basis, len(basis)).T])
        gained[rows], row = mode, row + weights.size
    turned = Turning(problem.widths, place.bases)(vectors).T
    ranking = np.argsort(values, kind="stable")
    clear = _accuracy(place) <= tolerances.HESSIAN
    return Modes(values[ranking], turned[:, ranking], zero[ranking], gained[ranking], clear)


def _learnt_layers(place: Place) -> list[Array]:
    """Return the layers between learnt modes and hidden units."""
    layers = list(layers_of(place.problem.widths, place.state))
    chosen = list(place.modes)
    layers[0], layers[-1] = layers[0][:, chosen], layers[-1][chosen]
    return layers


def _accuracy(place: Place) -> float:
    """Return how large the rounding of L and R is in terms of their smallest singular values."""
    layers, accuracy = _learnt_layers(place), 0.0
    if not place.modes:
        return accuracy
    noise = tolerances.rounding(max(place.problem.widths))
    image = images(layers, np.eye(len(place.modes)))[-1]
    for factor, parts in ((readings(layers)[0], layers[1:]), (image, layers[:-1])):
        size = np.prod([np.linalg.norm(w, 2) for w in parts])
        least = np.linalg.svd(factor, compute_uv=False)[-1]
        accuracy = max(accuracy, noise * float(size / least) if least > 0.0 else np.inf)
    return accuracy


def _blocks(place: Place) -> Iterator[_Block]:
    """Yield all blocks of the Hessian in the coordinates of the modes."""
    problem, learnt = place.problem, _learnt_layers(place)
    widths, sigma = problem.widths, problem.modes[1]
    numbers = [w.astype(np.int64) for w in layers_of(widths, np.arange(float(place.state.size)))]
    into, out_of = numbers[0], numbers[-1]
    chosen, m = list(place.modes), len(sigma)
    reading, image = readings(learnt)[0], images(learnt, np.eye(len(chosen)))[-1]
    yield _between_learnt(problem.depth, learnt, [into[:, chosen], *numbers[1:-1], out_of[chosen]])
    for q in np.setdiff1d(np.arange(m), chosen):
        weights = np.append(into[:, q], out_of[q])
        yield _Block(weights, *_open_mode(problem, chosen, int(q), reading.T, image), int(q))
    for ends, factor in ((into.T[m:], reading.T), (out_of[m:], image)):
        for weights in ends:
            left, sizes, _ = np.linalg.svd(factor, full_matrices=False)
            yield _Block(weights, sizes**2, left.T, -1)


def _between_learnt(depth: int, layers: Sequence[Array], weights: Sequence[Integers]) -> _Block:
    """Return the block in which W changes between learnt modes: Jᵀ J, and the orbit beside it."""
    rank = layers[0].shape[1]
    before = images(layers, np.eye(rank))
    parts = [np.kron(after, p.T) for after, p in zip(readings(layers), before, strict=True)]
    _, sizes, right = np.linalg.svd(np.hstack(parts), full_matrices=False)
    return _Block(np.concatenate([w.ravel() for w in weights]), sizes**2, right, -1)


def _open_mode(
    problem: Problem, chosen: Sequence[int], q: int, into: Array, out_of: Array
) -> tuple[Array, Array]:
    """Return the eigenvalues that are not zero in the block of a mode, and eigenvectors by row.

    The block is T [[a, −b], [−b, a]] Tᵀ, with T = blkdiag(Lᵀ, R) and diagonal a = 1, b = σ_q/σ_j.
    Two layers have W_{2:h−1} = I, so that units that have learnt nothing join with a = 0, b = σ_q.
    """
    sigma, rank = problem.modes[1], len(chosen)
    ratio = np.where(equal(sigma)[q, chosen], 1.0, sigma[q] / sigma[chosen])
    a, b = np.ones(rank), ratio
    if problem.depth == 2 and sigma[q] > 0.0:
        rest = kernel(into.T, rank)
        oblique = rest - into @ ((out_of.T @ rest) / sigma[chosen][:, None])
        into, out_of = np.hstack([into, oblique]), np.hstack([out_of, rest])
        a, b = (np.append(c, np.full(rest.shape[1], s)) for c, s in ((a, 0.0), (b, sigma[q])))
    bases, factors = zip(*(np.linalg.qr(ends) for ends in (into, out_of)), strict=True)
    values, vectors = _factored(scipy.linalg.block_diag(*factors), a, b)
    return values, (scipy.linalg.block_diag(*bases) @ vectors).T


def _factored(factor: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Return the eigenvalues of F K Fᵀ that are not zero, ascending, and eigenvectors.

    K = [[a, −b], [−b, a]] has diagonal blocks. Small eigenvalues are lost in the rounding of large
    ones, and are those of the inverse, which has them right; a step with the matrix, or its
    inverse, gives vectors the digits of their small parts.
    """

    def joint(same: Array, other: Array) -> Array:
        rows = [[np.diag(same), -np.diag(other)], [-np.diag(other), np.diag(same)]]
        return np.block(rows)

    direct = factor @ joint(a, b) @ factor.T
    values, vectors = np.linalg.eigh(direct)
    negative, determinant = int(np.count_nonzero(b > a)), (a - b) * (a + b)
    if not len(a):
        return values, vectors
    if not determinant.all():  # modes that are equal turn at no cost
        lost = int(np.count_nonzero(determinant == 0.0))
        kept = np.delete(np.arange(len(values)), np.arange(negative, negative + lost))
        return values[kept], vectors[:, kept]
    back = scipy.linalg.solve_triangular(factor, np.eye(len(factor)))
    inverse = back.T @ joint(a / determinant, -b / determinant) @ back
    inverse_values, others = np.linalg.eigh(inverse)
    places = np.arange(len(values))
    order = np.append(places[:negative][::-1], places[negative:][::-1])
    reciprocal, others = 1.0 / inverse_values[order], others[:, order]
    middle = np.sqrt(np.abs(values).max() / np.abs(inverse_values).max())
    small = np.abs(reciprocal) < middle
    values = np.where(small, reciprocal, values)
    vectors = np.where(small, inverse @ others, direct @ vectors)
    return values, vectors / np.linalg.norm(vectors, axis=0)
