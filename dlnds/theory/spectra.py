"""Hessian spectra of networks that are known without the Hessian."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from dlnds.arrays import Array
from dlnds.errors import check_memory
from dlnds.theory import strings, tolerances
from dlnds.theory.coordinates import images, readings
from dlnds.theory.moments import Problem, equal, turns


class KnownSpectrum(NamedTuple):
    """Eigenvalues that are known without the matrix: all that may be nonzero.

    ``method`` is ``"closed_form"`` if none of them is zero, ``"gram"`` if they are computed from a
    smaller matrix. ``dimensions`` are those of the symmetry orbit and of the set of critical
    points, and whether the second is exact, if they come with it.
    """

    eigenvalues: Array
    method: str
    dimensions: tuple[int, int, bool] | None = None


def known_spectrum(problem: Problem, layers: Sequence[Array]) -> KnownSpectrum | None:
    """Return the eigenvalues that may be nonzero, and how they are known, or None.

    ``"closed_form"``: at a balanced critical point of a whitened problem, an orthogonal change of
    the hidden bases away from a canonical one. ``"gram"``: at a minimum without residual, whatever
    the covariance and the representative, where the Hessian is JᵀJ, J the derivative of W K.
    """
    if problem.root is None:
        balanced = ([], []) if problem.depth == 1 else balanced_frames(problem, layers)
        if balanced is not None:
            chosen = balanced[0]
            found, left_out = canonical_eigenvalues(problem, chosen)
            if left_out <= tolerances.EXACT * found.max(initial=0.0):
                return KnownSpectrum(found, "closed_form", _canonical_dimensions(problem, chosen))
    values = _gram_eigenvalues(problem, layers)
    return None if values is None else KnownSpectrum(values, "gram")


def _canonical_dimensions(problem: Problem, chosen: list[int]) -> tuple[int, int, bool] | None:
    """Return the dimensions of orbit and fiber at A_S of a whitened problem, see `strings`."""
    if problem.depth == 1:
        return None
    sigma = problem.modes[1]
    learnt = np.isin(np.arange(len(sigma)), chosen)
    orbit, fiber = strings.canonical_dimensions(
        problem.widths, int(np.count_nonzero(sigma)), len(chosen), strings.FEW_KINDS
    )
    return orbit, fiber.largest + int(turns(sigma, learnt[None])[0]), fiber.complete


def canonical_eigenvalues(problem: Problem, chosen: list[int]) -> tuple[Array, float]:
    """Return the nonzero Hessian eigenvalues at A_S of a whitened problem.

    With them the largest that is left out because σ_j and σ_k count as equal.
    """
    widths, depth, sigma = problem.widths, problem.depth, problem.modes[1]
    if depth == 1:
        return np.ones(widths[0] * widths[1]), 0.0
    found, left_out = map_eigenvalues(problem, chosen, depth)
    if depth == 2:
        others = np.delete(sigma, chosen)
        spare = np.repeat(others[others > 0.0], widths[1] - len(chosen))
        found = np.concatenate([found, spare, -spare])
    return found, left_out


def map_eigenvalues(problem: Problem, chosen: list[int], depth: int) -> tuple[Array, float]:
    """Return those of `canonical_eigenvalues` whose directions move the end-to-end map.

    These are the eigenvalues of the Riemannian Hessian of W at rank |S|, in the metric of ``depth``
    balanced layers.
    """
    sigma = problem.modes[1]
    rest = np.ones(len(sigma), bool)
    rest[chosen] = False
    learnt, others = sigma[chosen], sigma[rest]
    s = learnt ** (1.0 / depth)
    powers = (s**2)[:, None] ** np.arange(depth)
    strength = (s ** (depth - 2))[:, None]
    differ = ~equal(sigma)[chosen][:, rest]
    differences = strength * (learnt[:, None] - others)
    parts = [
        powers[:, ::-1] @ powers.T,
        strength * (learnt[:, None] + others),
        differences[differ],
        np.repeat(s ** (2 * (depth - 1)), abs(problem.widths[0] - problem.widths[-1])),
    ]
    found = np.concatenate([np.ravel(part) for part in parts])
    return found, float(np.abs(differences[~differ]).max(initial=0.0))


def balanced_frames(
    problem: Problem, layers: Sequence[Array]
) -> tuple[list[int], list[Array]] | None:
    """Return S and U_0, …, U_h if the layers are W_i = U_i diag(σ_j^{1/h}) U_{i−1}ᵀ, or None.

    U_h and U_0 are modes of Σ. The frames are found one after the other, each the nearest to
    orthonormal ones; comparing the layers with what they give, instead of the C_i, squares no small
    singular value. A relative change of the layers by δ changes the Hessian by less than 4 h δ.
    """
    limit = tolerances.EXACT / (4.0 * problem.depth)
    norms = [float(np.linalg.norm(w)) for w in layers]
    if max(norms) - min(norms) > 2.0 * limit * max(norms):
        return None
    sizes = problem.modes[1] ** (1.0 / problem.depth)
    _, values, right = np.linalg.svd(layers[0], full_matrices=False)
    scale = float(values[0])
    chosen = _matching(values[values > limit * scale], sizes, limit * scale)
    if chosen is None or len(chosen) > min(problem.widths):
        return None
    if not chosen:
        empty = [np.zeros((d, 0)) for d in problem.widths]
        return None if any(w.any() for w in layers) else ([], empty)
    size, frames = sizes[chosen], [right[: len(chosen)].T]
    for w in layers:
        left, _, turn = np.linalg.svd((w @ frames[-1]) * size, full_matrices=False)
        frames.append(left @ turn)
        if not np.linalg.norm(w - (frames[-1] * size) @ frames[-2].T) <= limit * scale:
            return None
    first, last, image = frames[0], frames[-1], size**problem.depth
    target, allowed = problem.target, limit * float(problem.modes[1][0])
    misses = [target @ first - last * image, target.T @ last - first * image]
    return (chosen, frames) if all(np.linalg.norm(m) <= allowed for m in misses) else None


def _matching(values: Array, sizes: Array, allowed: float) -> list[int] | None:
    """Return the places of descending values among descending sizes, or None if one is missing."""
    places, known, k = [], sizes.tolist(), 0
    for value in values.tolist():
        while k < len(known) and known[k] > value + allowed:
            k += 1
        if k == len(known) or known[k] < value - allowed:
            return None
        places.append(k)
        k += 1
    return places


def _gram_eigenvalues(problem: Problem, layers: Sequence[Array]) -> Array | None:
    """Return the eigenvalues of J Jᵀ = Σ_i (L_i L_iᵀ) ⊗ (P_{i−1}ᵀ P_{i−1}), or None.

    L_i = W_{i+1:h}, P_i = W_{1:i} K. None where the matrix is no smaller than the Hessian, or where
    the residual adds to that.
    """
    outputs, columns = problem.target.shape
    if outputs * columns >= sum(w.size for w in layers):
        return None
    root = np.eye(problem.widths[0]) if problem.root is None else problem.root
    inputs, lefts = images(layers, root), readings(layers)
    residual = problem.target - layers[-1] @ inputs[-1]
    squares = np.stack([w @ w.T for w in lefts])
    grams = np.stack([p.T @ p for p in inputs])
    if not _negligible(layers, grams, squares, residual):
        return None
    check_memory("x", 2 * (outputs * columns) ** 2)
    blocks = squares.reshape(len(layers), -1).T @ grams.reshape(len(layers), -1)
    blocks = blocks.reshape(outputs, outputs, columns, columns).transpose(0, 2, 1, 3)
    matrix = blocks.reshape(outputs * columns, -1).T  # in the order of LAPACK, and symmetric
    values: Array = scipy.linalg.eigvalsh(matrix, overwrite_a=True, check_finite=False)
    return values


def _negligible(layers: Sequence[Array], grams: Array, squares: Array, residual: Array) -> bool:
    """Tell whether H − JᵀJ is below ``tolerances.EXACT`` ‖H‖, by the norms of its blocks.

    The block of layers i < j has at most the norm ‖W_{i+1:j−1}‖ ‖P_{i−1}‖ ‖R‖ ‖L_j‖, and H at least
    that of each diagonal block. For a positive semidefinite B, from ‖B‖_F and ‖B²‖_F:
    ‖B²‖_F / ‖B‖_F ≤ ‖B‖ ≤ ‖B²‖_F^{1/2}.
    """
    sides = [np.linalg.norm(b, axis=(1, 2)) for b in (grams, squares)]
    fourth = [np.linalg.norm(b @ b, axis=(1, 2)) for b in (grams, squares)]
    before, after = ((f**0.25).tolist() for f in fourth)
    sums = [0.0] * len(layers)
    for i in range(len(layers)):
        between, size = np.eye(len(layers[i])), 1.0
        for j in range(i + 1, len(layers)):
            sums[i] += size * before[i] * after[j]
            sums[j] += size * before[i] * after[j]
            if j + 1 < len(layers):
                between = layers[j] @ between
                size = _norm(between)
    present = np.maximum(sides[0] * sides[1], np.finfo(float).tiny)
    largest = float(np.max(fourth[0] * fourth[1] / present))
    return _norm(residual) * max(sums) < tolerances.EXACT * largest


def _norm(matrix: Array) -> float:
    """Return a bound on the spectral norm, at most r^{1/4} times it, cheaper than that itself."""
    return math.sqrt(np.linalg.norm(matrix @ matrix.T))
