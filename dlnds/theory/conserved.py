"""The conserved C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}: derivatives, and what changes none of them.

All of their derivatives are those of the generators G of GL: for symmetric E_i, half the transposed
derivative DCᵀE is E_i W_i − W_i E_{i−1}, the tangent vector Gᵀ E.
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from dlnds.arrays import Array
from dlnds.theory import tolerances
from dlnds.theory.coordinates import flat, images, readings
from dlnds.theory.moments import Problem


def generated(layers: Sequence[Array], matrices: Sequence[Array]) -> Array:
    """Return E_i W_i − W_i E_{i−1} of all layers, as a vector, for E_1, …, E_{h−1} (E_0 = E_h = 0).

    For symmetric ones that is the gradient of ¼ Σ_i ‖C_i − C_i*‖² where C_i − C_i* = E_i.
    """
    parts = [np.zeros_like(w) for w in layers]
    for i, matrix in enumerate(matrices):
        parts[i] += matrix @ layers[i]
        parts[i + 1] -= layers[i + 1] @ matrix
    return flat(parts)


def generating(widths: Sequence[int], matrices: Sequence[Array]) -> Array:
    """Return the matrix (parameter × parameter) of `generated`, which is linear in the layers."""
    outer = [*matrices, np.zeros((widths[-1], widths[-1]))]
    inner = [np.zeros((widths[0], widths[0])), *matrices]
    blocks = [
        np.kron(after, np.eye(columns)) - np.kron(np.eye(rows), before.T)
        for before, after, columns, rows in zip(inner, outer, widths, widths[1:], strict=False)
    ]
    return np.asarray(scipy.linalg.block_diag(*blocks), float)


def entries(widths: Sequence[int]) -> NDArray[np.intp]:
    """Return the places of the different entries among all of the symmetric C_i."""
    kept = [np.triu(np.ones((d, d), bool)).ravel() for d in widths[1:-1]]
    return np.flatnonzero(np.concatenate([np.zeros(0, bool), *kept]))


def derivative(widths: Sequence[int], generators: Array) -> Array:
    """Return the derivative (entry × parameter) of all entries of the C_i from the generators."""
    ends = np.cumsum([0, *(d * d for d in widths[1:-1])])
    swapped = [
        begin + np.arange(d * d).reshape(d, d).T.ravel()
        for begin, d in zip(ends, widths[1:-1], strict=False)
    ]
    order = np.concatenate([np.zeros(0, np.intp), *swapped])
    rows: Array = generators + generators[order]
    return rows


def image_derivative(problem: Problem, layers: Sequence[Array]) -> Array:
    """Return the derivative (entry × parameter) of the map W K: L_i ⊗ P_{i−1}ᵀ of each layer."""
    before = images(layers, np.eye(problem.widths[0]))
    pairs = zip(readings(layers), before, strict=True)
    return np.hstack([np.kron(left, problem.image(right).T) for left, right in pairs])


def turning(skew: Array, change: Array) -> Array:
    """Return the parts of the orthogonal groups' generators across all changes of the C_i.

    Where hidden widths are the rank of W, so that GL acts freely, these rows are independent and
    span what `fixing` projects on: the tangent vectors of GL orthogonal to those of symmetric
    matrices, which are the rows of ``change``, the `derivative` of the C_i.
    """
    frame, _ = np.linalg.qr(change.T)
    rows = skew
    for _ in range(2):  # the first leaves rounding of what is taken away
        rows = rows - (rows @ frame) @ frame.T
    return rows


def fixing(problem: Problem, layers: Sequence[Array], change: Array) -> Array:
    """Return the orthogonal projector on the directions that change neither W K nor any C_i.

    ``change`` is the `derivative` of the C_i. Their number is that at maps whose rank is the
    smallest width and C_i that are free to change; elsewhere more do not. A projector depends on x
    as smoothly as they do, a basis need not.
    """
    blocks = [image_derivative(problem, layers), change]
    scaled = [block / (np.linalg.norm(block) or 1.0) for block in blocks]
    _, _, frame = np.linalg.svd(np.concatenate(scaled), full_matrices=False)
    least, dim = min(problem.widths), change.shape[1]
    count = least * (sum(problem.target.shape) - least) + _n_imbalances(problem.widths)
    if count == dim:
        return np.zeros((0, dim))
    seen = frame[:count]
    projector: Array = np.eye(dim) - seen.T @ seen
    return projector


def is_free(widths: Sequence[int], change: Array) -> bool:
    """Tell whether the C_i can change in all directions, from their `derivative`."""
    sizes = np.linalg.svd(change, compute_uv=False)
    rank = np.count_nonzero(sizes > tolerances.RANK * sizes.max(initial=0.0))
    return bool(rank == _n_imbalances(widths))


def _n_imbalances(widths: Sequence[int]) -> int:
    """Return the number of different entries of the symmetric C_i."""
    return sum(d * (d + 1) // 2 for d in widths[1:-1])
