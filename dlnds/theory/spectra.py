"""Hessian spectra: in closed form, or of products with vectors; and what is zero in them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads its modules when they are used
from numpy.typing import ArrayLike

from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import ConvergenceError, check_memory
from dlnds.theory import strings, tolerances
from dlnds.theory.coordinates import images, n_weights, product, readings
from dlnds.theory.moments import Problem, count_pairs, equal, exceeds

Product = Callable[[Array], Array]

#: Vectors of a Krylov space beyond twice those that are wanted, and restarts after which a search
#: has failed.
SPARE, MOST_RESTARTS = 40, 500
#: How many are looked for first where it is not known how many there are, and how roughly.
FEW, ROUGH = 8, 2e-2
#: The matrix is written down where more than this part of all vectors are wanted.
MANY = 1 / 8
#: Size up to which a matrix is written down for its largest eigenvalue, and the residual otherwise.
_SMALL, _RESIDUAL = 32, 1e-11


class Decision(NamedTuple):
    """Which of some numbers count as zero, and how clearly."""

    zero: Flags
    largest_zero: float
    smallest_nonzero: float

    @property
    def rank(self) -> int:
        """How many do not."""
        return int(np.count_nonzero(~self.zero))

    @property
    def nullity(self) -> int:
        """How many do."""
        return int(np.count_nonzero(self.zero))


def decided(values: ArrayLike, tolerance: float) -> Decision:
    """Return which eigenvalues or singular values are zero: those of at most this modulus."""
    modulus = np.abs(values)
    return _decision(modulus, modulus <= tolerance)


def counted(values: ArrayLike, index: int, nullity: int) -> Decision:
    """Return which of ascending eigenvalues are zero: so many, after so many negative ones."""
    places = np.arange(np.size(values))
    return _decision(np.abs(values), (places >= index) & (places < index + nullity))


def _decision(modulus: Any, zero: Flags) -> Decision:
    return Decision(
        zero,
        largest_zero=float(modulus[zero].max(initial=0.0)),
        smallest_nonzero=float(modulus[~zero].min(initial=np.inf)),
    )


def rank(values: ArrayLike, rtol: float) -> int:
    """Return how many singular values exceed ``rtol`` times the largest."""
    return decided(values, rtol * float(np.max(np.asarray(values), initial=0.0))).rank


def symmetric_modes(matrix: Array, *, vectors: bool) -> tuple[Array, Array | None]:
    """Return ascending eigenvalues, and orthonormal eigenvectors (component, eigen) if asked for.

    The matrix is destroyed.
    """
    options: dict[str, bool] = {"overwrite_a": True, "check_finite": False}
    if not vectors:
        return scipy.linalg.eigvalsh(matrix, **options), None
    values, frame = scipy.linalg.eigh(matrix, **options)
    return values, turned(frame)


def general_modes(matrix: Array, *, vectors: bool) -> tuple[Any, Any]:
    """Return complex eigenvalues, ascending by their real parts, and unit eigenvectors if asked.

    The matrix is destroyed.
    """
    options: dict[str, bool] = {"overwrite_a": True, "check_finite": False}
    found = scipy.linalg.eig(matrix, right=vectors, **options)
    values, frame = found if vectors else (found, None)
    order = np.lexsort((values.imag, values.real))
    return values[order], None if frame is None else turned(frame[:, order])


def turned(frame: Any) -> Any:
    """Return complex vectors (component, eigen) times phases that make them comparable.

    The real part is orthogonal to the imaginary one, no shorter, and its largest entry is positive.
    """
    turn = np.exp(-0.5j * np.angle(np.sum(frame**2, axis=0)))
    found = np.where(frame.imag.any(axis=0), frame * turn, frame)
    largest = np.abs(found.real).argmax(axis=0)
    signs = np.where(found.real[largest, np.arange(found.shape[1])] < 0.0, -1.0, 1.0)
    return found * signs if np.iscomplexobj(frame) else found.real * signs


class KnownSpectrum(NamedTuple):
    """Eigenvalues that are known without the matrix: all that may be nonzero.

    ``method`` is ``"closed_form"`` if those that are zero are so exactly, ``"gram"`` if they are
    computed from a smaller matrix. ``dimensions`` are those of the symmetry orbit and of the set of
    critical points, and whether the second is exact, if they come with it.
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
    learnt = np.isin(np.arange(len(problem.modes[1])), chosen)[None]
    found = strings.all_canonical_dimensions(problem, learnt, strings.FEW_KINDS)
    orbit, fiber, complete = (part.item() for part in found)
    return orbit, fiber, bool(complete)


class Closed(NamedTuple):
    """The Hessian's eigenvalues at points A_S of a whitened problem, by modes.

    Those that may be nonzero, with s_j = σ_j^{1/h}: ``mixed`` (j, l), for j, l ∈ S; ``sums`` and
    ``differences`` (j, k), for j ∈ S, k ∉ S, of which the latter are zero where σ_j and σ_k are not
    ``distinct``; ``ends`` (j), |d_0 − d_h| times, for j ∈ S; and if h = 2 plus and minus ``spare``
    (k), d_1 − r times each, for k ∉ S. Along a negative difference mode k is learnt in place of j,
    along a negative ``spare`` besides the others.
    """

    mixed: Array
    sums: Array
    differences: Array
    distinct: Flags
    ends: Array
    spare: Array


def closed(sigma: Array, depth: int) -> Closed:
    """Return Σ_i s_j^{2(h−i)} s_l^{2(i−1)}, s_j^{h−2}(σ_j ± σ_k), s_j^{2(h−1)} and σ_k (WA25)."""
    s = sigma ** (1.0 / depth)
    powers = (s**2)[:, None] ** np.arange(depth)
    strength = (s ** (depth - 2))[:, None]
    return Closed(
        mixed=powers[:, ::-1] @ powers.T,
        sums=strength * (sigma[:, None] + sigma),
        differences=strength * (sigma[:, None] - sigma),
        distinct=~equal(sigma),
        ends=s ** (2 * (depth - 1)),
        spare=sigma if depth == 2 else np.zeros_like(sigma),
    )


def canonical_eigenvalues(problem: Problem, chosen: list[int]) -> tuple[Array, float]:
    """Return the nonzero Hessian eigenvalues at A_S of a whitened problem.

    With them the largest that is left out because σ_j and σ_k count as equal.
    """
    widths, depth, sigma = problem.widths, problem.depth, problem.modes[1]
    if depth == 1:
        return np.ones(widths[0] * widths[1]), 0.0
    found, left_out = map_eigenvalues(problem, chosen, depth)
    spare = np.delete(closed(sigma, depth).spare, chosen)
    spare = np.repeat(spare[spare > 0.0], widths[1] - len(chosen))
    return np.concatenate([found, spare, -spare]), left_out


def map_eigenvalues(problem: Problem, chosen: list[int], depth: int) -> tuple[Array, float]:
    """Return those of `canonical_eigenvalues` whose directions move the end-to-end map.

    These are the eigenvalues of the Riemannian Hessian of W at rank |S|, in the metric of ``depth``
    balanced layers.
    """
    sigma, widths = problem.modes[1], problem.widths
    table, modes = closed(sigma, depth), np.arange(len(sigma))
    across = np.ix_(modes[chosen], np.delete(modes, chosen))
    differences, distinct = table.differences[across], table.distinct[across]
    parts = [
        table.mixed[chosen][:, chosen],
        table.sums[across],
        differences[distinct],
        np.repeat(table.ends[chosen], abs(widths[0] - widths[-1])),
    ]
    found = np.concatenate([np.ravel(part) for part in parts])
    return found, float(np.abs(differences[~distinct]).max(initial=0.0))


def canonical_inertia(problem: Problem, learnt: Flags) -> tuple[Integers, Integers]:
    """Return Morse index and nullity at the canonical points of many index sets (point, mode).

    Counted from the closed spectrum. Points with the same S and no residual network's weights are
    joined by invertible changes of coordinates for every input covariance, so the inertia is that
    of the whitened problem; input directions without data add d_1 zeros each.
    """
    widths, depth, sigma = problem.widths, problem.depth, problem.modes[1]
    ranks, (outputs, inputs) = learnt.sum(axis=1), problem.target.shape
    if depth == 1:
        return np.zeros_like(ranks), np.full_like(ranks, (widths[0] - inputs) * outputs)
    table = closed(sigma, depth)
    index = count_pairs(learnt, table.distinct & (table.differences < 0.0))
    nonzero = ranks * (inputs + outputs - ranks) - count_pairs(learnt, ~table.distinct)
    spare = (widths[1] - ranks) * (~learnt & (table.spare > 0.0)).sum(axis=1)
    return index + spare, n_weights(widths) - nonzero - 2 * spare


def canonical_rates(problem: Problem, learnt: Flags) -> tuple[Array, Array]:
    """Return the rates of departure and of convergence at canonical points (point, mode).

    Departure: minus the lowest Hessian eigenvalue, 0 if none is negative. Convergence: at global
    minima of rank min d_i the smallest eigenvalue that is not zero, 0 elsewhere: at other minima
    degenerate directions decay algebraically. For whitened problems.
    """
    widths, depth, sigma = problem.widths, problem.depth, problem.modes[1]
    if depth == 1:
        return np.zeros(len(learnt)), np.ones(len(learnt))
    table, ranks = closed(sigma, depth), learnt.sum(axis=1)
    departure = -_least(learnt, np.where(table.distinct, table.differences, 0.0))
    spare = np.where(learnt, 0.0, table.spare).max(axis=1) * (ranks < widths[1])
    alone = np.diagonal(table.mixed) if widths[0] == widths[-1] else table.ends
    own = np.where(learnt, alone, np.inf).min(axis=1)
    across = _least(learnt, np.where(table.distinct, table.differences, np.inf))
    exact = (count_pairs(learnt, exceeds(sigma)) == 0) & (ranks == min(widths))
    departure = np.maximum(np.maximum(departure, spare), 0.0)
    return departure, np.where(exact, np.minimum(own, across), 0.0)


def _least(learnt: Flags, values: Array) -> Array:
    """Return for each set S (point, mode) the least value (j, k) of all j ∈ S, k ∉ S."""
    least = np.full(len(learnt), np.inf)
    for inside, row in zip(learnt.T, values, strict=True):
        across = np.where(learnt, np.inf, row).min(axis=1)
        least = np.minimum(least, np.where(inside, across, np.inf))
    return least


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
    if not all(np.linalg.norm(m) <= allowed for m in misses):
        return None
    return problem.name_learnt(problem.image(product(layers))).tolist(), frames


def _matching(values: Array, sizes: Array, allowed: float) -> list[int] | None:
    """Return the places of descending values among descending sizes, or None if one is missing."""
    places, left = [], iter(enumerate(sizes.tolist()))
    for value in values.tolist():
        place, size = next((pair for pair in left if pair[1] <= value + allowed), (0, -np.inf))
        if size < value - allowed:
            return None
        places.append(place)
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


def spectral_radius(product: Product, dim: int) -> float:
    """Return the norm of a symmetric operator to a few per cent from below, by the power method."""
    vector, size = np.random.default_rng(0).normal(size=dim), 0.0
    for _ in range(30):
        vector = product(vector / np.linalg.norm(vector))
        norm = float(np.linalg.norm(vector))
        if norm == 0.0 or not np.isfinite(norm):
            return norm
        size = max(size, norm)
    return size


def largest_eigenvalue(product: Product, dim: int) -> float:
    """Return the largest eigenvalue of a symmetric operator, by Lanczos from a random start.

    Its residual is at most 1e-11 of it, and the error of the value less. NaN of an operator that is
    not finite.

    Raises
    ------
    ConvergenceError
        If the search does not come to an end.
    """
    start = np.random.default_rng(0).normal(size=dim)
    image = product(start)
    if not np.isfinite(image).all():
        return np.nan
    if not image.any():
        return 0.0
    if dim <= _SMALL:
        return float(np.linalg.eigvalsh(np.stack([product(v) for v in np.eye(dim)]))[-1])
    iterative = scipy.sparse.linalg
    operator = iterative.LinearOperator((dim, dim), matvec=product, dtype=float)
    words = {"which": "LA", "v0": start, "tol": _RESIDUAL, "maxiter": MOST_RESTARTS}
    try:
        return float(iterative.eigsh(operator, 1, return_eigenvectors=False, **words)[0])
    except iterative.ArpackNoConvergence as error:
        raise ConvergenceError(f"x: {MOST_RESTARTS} restarts do not settle the largest") from error


def count_below(matrix: Array, value: float) -> int:
    """Return the number of eigenvalues of a symmetric matrix below a value, by its L D Lᵀ.

    Pivots of two rows are indefinite (Bunch and Kaufman): they have one negative eigenvalue.
    """
    shifted = matrix - value * np.eye(len(matrix))
    work = 64 * len(matrix)  # of whole blocks
    factored, pivots, _ = scipy.linalg.lapack.dsytrf(shifted, lower=1, lwork=work)
    single = pivots > 0
    falling = np.count_nonzero(np.diagonal(factored)[single] < 0.0)
    return int(falling + np.count_nonzero(~single) // 2)


def lowest_eigenvalues(
    product: Product, dim: int, radius: float, *, below: float = np.inf, count: int | None = None
) -> Array:
    """Return the values of `lowest_modes`."""
    return lowest_modes(product, dim, radius, below=below, count=count)[0]


def lowest_modes(
    product: Product, dim: int, radius: float, *, below: float = np.inf, count: int | None = None
) -> tuple[Array, Array]:
    """Return the ``count`` lowest eigenvalues, or all that are less than ``below``, ascending.

    With them orthonormal eigenvectors (component, eigen).

    Of a symmetric operator H with the norm ``radius``, by searches at random starts for the largest
    eigenvalues of 2 ‖H‖ − H, in which those already found are zero: a Krylov space holds one vector
    of each eigenvalue, but repeated ones are the rule where a network has symmetries. How many are
    less than ``below``, at least, a rough search tells, for Ritz values are not below eigenvalues;
    those beyond, which are often many, are not settled. Residuals are at most τ = 16 ε √n ‖H‖. The
    last start finds nothing: if an eigenvalue were missed by δ, its residual would be at least δ
    times the part of the random start along the eigenvector, which is of the order 1/√n; so δ is of
    the order √n τ at most.

    Raises
    ------
    ConvergenceError
        If a search does not come to an end.
    """
    if radius == 0.0:
        size = min(dim if below > 0.0 else 0, dim if count is None else count)
        return np.zeros(size), np.eye(dim, size)
    rng, tolerance = np.random.default_rng(0), 16.0 * np.finfo(float).eps * np.sqrt(dim)
    found, vectors, wanted = np.empty(0), np.empty((dim, 0)), count or FEW
    while True:
        if wanted >= MANY * dim:  # they would take as much memory, and more time
            check_memory("which", 2 * dim * dim)
            found, vectors = np.linalg.eigh(np.stack([product(v) for v in np.eye(dim)]))
            size = int(np.count_nonzero(found < below))
            return found[:size][:count], vectors[:, :size][:, :count]
        known, there = (product, found, vectors, 2.0 * radius), wanted
        if count is None:
            rough, _ = _search(*known, wanted, ROUGH, rng)
            there = max(1, int(np.count_nonzero(rough < below)))
        more, their = _search(*known, there, tolerance, rng)
        limit = below
        if count is not None and len(found) >= count:
            limit = np.sort(found)[count - 1] - tolerance * radius
        new = more < limit
        if not new.any():
            order = np.argsort(found)[:count]
            return found[order], vectors[:, order]
        found, vectors = np.append(found, more[new]), np.hstack([vectors, their[:, new]])
        more_below = 2 * wanted if there == wanted else FEW
        wanted = more_below if count is None else max(1, count - len(found))


def _search(
    product: Product,
    found: Array,
    vectors: Array,
    shift: float,
    wanted: int,
    tolerance: float,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Return so many lowest eigenvalues, and their vectors, beside those that are found."""
    dim, room = len(vectors), min(2 * wanted + SPARE, len(vectors))
    check_memory("which", (room + wanted) * dim)

    def image(v: Array) -> Array:
        known: Array = vectors @ ((shift - found) * (vectors.T @ v))
        return shift * v - product(v) - known

    iterative = scipy.sparse.linalg
    try:
        values, more = iterative.eigsh(
            iterative.LinearOperator((dim, dim), matvec=image, dtype=float),
            wanted,
            which="LA",
            v0=rng.normal(size=dim),
            ncv=room,
            maxiter=MOST_RESTARTS,
            tol=0.5 * tolerance,
            rng=rng,
        )
    except iterative.ArpackNoConvergence as error:
        raise ConvergenceError(
            f"x: {MOST_RESTARTS} restarts with {room} vectors do not settle the lowest eigenvalues"
        ) from error
    return shift - values, more
