"""The symmetry of layers: the action, its generators, what it leaves fixed, and what it conserves.

GL(d_1) × … × GL(d_{h−1}) acts by W_i → P_i W_i P_{i−1}^{-1}; the flow keeps the part with
orthogonal P_i, and conserves C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}. All derivatives of these are those
of the generators G of GL: for symmetric E_i, half the transposed derivative DCᵀE is E_i W_i −
W_i E_{i−1}, the tangent vector Gᵀ E.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array, Integers
from dlnds.theory import spectra, tolerances
from dlnds.theory.coordinates import flat, images, kernel, n_weights, readings, transposed
from dlnds.theory.moments import Problem

#: Unknowns above which an isotropy group whose levels are joined is not taken apart.
MOST_UNKNOWNS = 1500


def moved(layers: Sequence[Array], group: Sequence[Array]) -> list[Array]:
    """Return P_i W_i P_{i−1}^{-1} for matrices P_1, …, P_{h−1}; the ends stay as they are."""
    result: list[Array] = list(layers)
    for i, p in enumerate(group):
        result[i] = p @ result[i]
        result[i + 1] = scipy.linalg.solve(p.T, result[i + 1].T).T
    return result


def turned(layers: Sequence[Array], group: Sequence[Array]) -> list[Array]:
    """Return P_i W_i P_{i−1}ᵀ for P_1, …, P_{h−1} with orthonormal rows; the ends stay."""
    result: list[Array] = list(layers)
    for i, p in reversed([*enumerate(group)]):
        result[i] = p @ result[i]
        result[i + 1] = result[i + 1] @ transposed(p)
    return result


def generators(layers: Sequence[Array], orthogonal: bool) -> Array:
    """Return the tangent vectors (generator, parameter) of the orbit through a state.

    One for each unit matrix K_i = e_a e_bᵀ of each hidden layer; for the orthogonal group one for
    each e_a e_bᵀ − e_b e_aᵀ, a < b.
    """
    ends = np.cumsum([0, *(w.size for w in layers)]).tolist()
    parts = [np.zeros((0, ends[-1]))]
    for i, (w, after) in enumerate(itertools.pairwise(layers)):
        d, unit = len(w), np.eye(len(w))
        rows = np.zeros((d * d, ends[-1]))
        rows[:, ends[i] : ends[i + 1]] = np.kron(unit, w)
        rows[:, ends[i + 1] : ends[i + 2]] = -np.kron(after.T, unit)
        if orthogonal:
            a, b = np.triu_indices(d, 1)
            rows = rows[a * d + b] - rows[b * d + a]
        parts.append(rows)
    return np.concatenate(parts)


def tangents(widths: Sequence[int], orthogonal: bool) -> Callable[[Array], Array]:
    """Return `generators` as a function of the flat state, many times as fast."""
    (places, labels), count = action(widths, orthogonal)
    weights, signs = np.abs(labels) - 1, np.sign(labels).astype(float)
    shape = count, n_weights(widths)

    def vectors(x: Array) -> Array:
        rows = np.zeros(shape)
        rows.ravel()[places] = signs * x[weights]
        return rows

    return vectors


def action(widths: Sequence[int], orthogonal: bool) -> tuple[Integers, int]:
    """Return where the entries of `generators` are, and how many these are.

    Each nonzero entry is plus or minus one weight: which, is read off a state of labels. The first
    row holds places in the flat matrix, the second the weights, from 1 on, with their signs.
    """
    sizes = [rows * columns for columns, rows in itertools.pairwise(widths)]
    labels = np.split(np.arange(1.0, sum(sizes) + 1.0), np.cumsum(sizes)[:-1])
    shapes = zip(labels, widths[1:], widths[:-1], strict=True)
    signed = generators([label.reshape(a, b) for label, a, b in shapes], orthogonal)
    places = np.flatnonzero(signed)
    return np.stack([places, signed.ravel()[places].astype(np.int64)]), len(signed)


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
    ends = np.cumsum([m * m for m in units])[:-1]
    parts = np.split(algebra @ rng.normal(size=algebra.shape[1]), ends)
    squares = [part.reshape(m, m) for part, m in zip(parts, units, strict=True)]
    element = scipy.linalg.block_diag(*squares)
    values, vectors = np.linalg.eigh(element + element.T)
    spread = np.abs(values).max()
    cluster = np.concatenate([[0], np.cumsum(np.diff(values) > tolerances.SAME_BLOCK * spread)])
    turned = vectors.T @ (element - element.T) @ vectors
    count = int(cluster[-1]) + 1
    joined = np.zeros((count, count))
    np.add.at(joined, np.ix_(cluster, cluster), np.abs(turned))
    _, label = scipy.sparse.csgraph.connected_components(
        joined > tolerances.SAME_BLOCK * spread, directed=False
    )
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
            U, s, _ = np.linalg.svd(np.hstack(parts), full_matrices=False)
            reached[i] = U[:, : spectra.rank(s, rtol)]
        if [b.shape[1] for b in reached] == before:
            break
    rest = [kernel(b.T, b.shape[1]) for b in reached]
    blocks = [rest[i].T @ layers[i - 1] @ rest[i - 1] for i in range(2, depth)]
    least = rtol * max(float(np.linalg.norm(w)) for w in layers)
    blocks = [np.where(np.linalg.norm(b) > least, b, 0.0) for b in blocks]
    return blocks, [rest[i].shape[1] for i in range(1, depth)]


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


def imbalances(layers: Sequence[Array]) -> tuple[Array, ...]:
    """Return C_1, …, C_{h−1} of layers, or of stacks of them."""
    return tuple(
        w @ transposed(w) - transposed(after) @ after for w, after in itertools.pairwise(layers)
    )


def imbalance(layers: Sequence[Array]) -> Array:
    """Return the largest ‖C_i‖_F of layers, or of each of stacks of them."""
    norms = [np.linalg.norm(c, axis=(-2, -1)) for c in imbalances(layers)]
    largest: Array = np.max([np.zeros(layers[0].shape[:-2]), *norms], axis=0)
    return largest


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


def entries(widths: Sequence[int]) -> Integers:
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


def turns_across(skew: Array, change: Array) -> Array:
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
    return spectra.rank(sizes, tolerances.RANK) == _n_imbalances(widths)


def _n_imbalances(widths: Sequence[int]) -> int:
    """Return the number of different entries of the symmetric C_i."""
    return sum(d * (d + 1) // 2 for d in widths[1:-1])
