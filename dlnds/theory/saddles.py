"""What is known in closed form of the flow near critical points without residual weights."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array, Integers
from dlnds.errors import check_memory
from dlnds.theory import spectra, strings, tolerances
from dlnds.theory.coordinates import Turning, layers_of, n_weights, product
from dlnds.theory.forms import LeadingPart, correlation
from dlnds.theory.moments import Problem, groups
from dlnds.theory.places import canonical_place


class Directions(NamedTuple):
    """Unit vectors along which the distance r grows, or shrinks, like ṙ = rate · r^{order−1}.

    ``mode`` is learnt along one, or forgotten, and ``lost`` is the mode that it takes the place of;
    −1 where there is none.
    """

    frame: Array
    rate: Array
    order: Integers
    mode: Integers
    lost: Integers


def joined(parts: Sequence[Directions], dim: int) -> Directions:
    """Return all directions, by order and the fastest first."""
    none = np.zeros(0, np.int64)
    parts = [Directions(np.zeros((0, dim)), np.zeros(0), none, none, none), *parts]
    columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    ranking = np.lexsort((-columns[1], columns[2]))
    return Directions(*(column[ranking] for column in columns))


def strict_directions(problem: Problem, modes: Sequence[int], stable: bool) -> Directions:
    """Return the eigenvectors of the Hessian at A_S of a problem with a diagonal target.

    With eigenvalues that are negative, or positive where ``stable``.
    """
    found = list(_eigenvectors(problem, modes))
    kept = [row for row in found if (row[1] > 0.0 if stable else row[1] < 0.0)]
    frame = _frame(problem.widths, [entries for entries, _, _ in kept])
    rates = np.array([abs(value) for _, value, _ in kept])
    gained, lost = np.array([pair for _, _, pair in kept], np.int64).reshape(-1, 2).T
    return Directions(frame, rates, np.full(len(kept), 2), gained, lost)


#: Weights by layer, row and column.
_Entries = list[tuple[int, int, int, float]]


def _frame(widths: Sequence[int], vectors: Sequence[_Entries]) -> Array:
    """Return unit vectors (direction, parameter) with these entries."""
    dim = n_weights(widths)
    check_memory("x", len(vectors) * dim)
    frame = np.zeros((len(vectors), dim))
    for row, entries in zip(frame, vectors, strict=True):
        layers = layers_of(widths, row)
        for layer, after, before, weight in entries:
            layers[layer][after, before] = weight
        row /= np.linalg.norm(row)
    return frame


def _eigenvectors(
    problem: Problem, modes: Sequence[int]
) -> Iterable[tuple[_Entries, float, tuple[int, int]]]:
    """Yield the entries, the eigenvalue, and the mode gained and lost; see `spectra.closed`."""
    h, sigma, widths = problem.depth, problem.modes[1], problem.widths
    table, unit = spectra.closed(sigma, h), {j: p for p, j in enumerate(modes)}
    m, last, none = len(sigma), h - 1, (-1, -1)
    others = [k for k in range(m) if k not in unit]
    roots = sigma ** (1.0 / h)
    for j, p in unit.items():
        for i, q in unit.items():
            places = [(p, q)] * h
            places[0], places[-1] = (p, i), (j, q)
            sizes = roots[j] ** (last - np.arange(h)) * roots[i] ** np.arange(h)
            entries = [(n, *places[n], c) for n, c in enumerate(sizes.tolist())]
            yield entries, table.mixed[j, i], none
        for k in others:
            yield [(last, k, p, 1.0), (0, p, k, -1.0)], table.sums[j, k], none
            if table.distinct[j, k]:
                value = table.differences[j, k]
                yield [(last, k, p, 1.0), (0, p, k, 1.0)], value, (k, j) if value < 0.0 else none
        for k in range(m, max(widths[0], widths[-1])):
            yield [(0, p, k, 1.0) if widths[0] > m else (last, k, p, 1.0)], table.ends[j], none
    open_modes = [k for k in others if table.spare[k] > 0.0]
    for k, e in itertools.product(open_modes, range(len(unit), widths[1])):
        yield [(1, k, e, 1.0), (0, e, k, 1.0)], -table.spare[k], (k, -1)
        yield [(1, k, e, 1.0), (0, e, k, -1.0)], table.spare[k], (k, -1)


def channels(problem: Problem, modes: Sequence[int], stable: bool) -> Directions:
    """Return the channels by which the residual network leaves its origin, or comes to it, at A_S.

    Rank-one layers of the same norm through hidden units r + 1, for a diagonal target: with h ≥ 3
    layers one for each open mode, with one sign changed if they are stable; and, stable for any
    h, those between outputs and inputs without target, which decay by themselves.
    """
    widths, h, sigma, unit = problem.widths, problem.depth, problem.modes[1], len(modes)
    if unit >= min(widths):
        return joined([], n_weights(widths))
    positive = np.flatnonzero(sigma)
    opened = np.setdiff1d(positive, modes) if h > 2 else positive[:0]
    ends = [np.setdiff1d(np.arange(d), positive) for d in (widths[0], widths[-1])]
    spare = list(zip(*ends, strict=False)) if stable else []
    pairs = [*((k, k) for k in opened), *spare]
    vectors = []
    for number, (entry, output) in enumerate(pairs):
        places = [(unit, unit)] * h
        places[0], places[-1] = (unit, entry), (output, unit)
        sign = -1.0 if stable and number < len(opened) else 1.0
        weights = [sign, *[1.0] * (h - 1)]
        vectors.append([(i, *places[i], w) for i, w in enumerate(weights)])
    rate = np.append(sigma[opened] * h ** (1.0 - 0.5 * h), [h ** (1.0 - h)] * len(spare))
    order = np.repeat([h, 2 * h], [len(opened), len(spare)])
    none = np.full(len(pairs), -1)
    gained = np.append(opened, none[len(opened) :])
    return Directions(_frame(widths, vectors), rate, order, gained, none)


class Strict(NamedTuple):
    """Directions of order 2, which of them are of one ``kind``, and the modes that are learnt.

    Those of one kind have an eigenvalue, and gain and lose modes of equal value: symmetries turn
    one into the other.
    """

    directions: Directions
    kind: Integers
    learnt: tuple[int, ...] | None


def known_strict(problem: Problem, layers: Sequence[Array]) -> Strict | None:
    """Return the eigenvectors of negative eigenvalues where they are known in closed form."""
    place = canonical_place(problem, layers)
    if place is None:
        return None
    found = joined([strict_directions(place.problem, place.modes, False)], len(place.state))
    classes = np.zeros(len(problem.modes[1]) + 1, np.int64)
    for number, tie in enumerate(groups(problem.modes[1]), 1):
        classes[tie] = number
    _, kind = np.unique(classes[np.stack([found.mode, found.lost])], axis=1, return_inverse=True)
    found = found._replace(frame=Turning(problem.widths, place.bases)(found.frame))
    return Strict(found, kind.ravel(), place.modes)


def leading_parts(problem: Problem, layers: Sequence[Array]) -> list[LeadingPart]:
    """Return the leading part of −L at a point of the GL orbit of A_S, in the residual network."""
    signal, largest = (problem.signal(w) for w in (product(layers), 0.0 * product(layers)))
    noise = tolerances.EXACT * float(np.linalg.norm(largest))
    parts = residual_parts(problem.widths, layers, signal, noise)
    if not parts or problem.gain is None:
        return [part._replace(by_itself=not any(w.any() for w in layers)) for part in parts]
    learnt = problem.name_learnt(problem.image(product(layers)))
    others = np.setdiff1d(np.flatnonzero(problem.modes[1]), learnt)
    return [part._replace(names=(learnt, others)) for part in parts]


def residual_parts(
    widths: Sequence[int], layers: Sequence[Array], signal: Array, noise: float
) -> list[LeadingPart]:
    """Return the leading part of −ℓ(W) at a critical point without residual weights, if any.

    In bases of all levels the layers are blkdiag(D, Z_i), D diagonal, with Z = 0. To leading order
    −ℓ changes by ⟨G, W⟩ = ⟨G_Q, Z_h…Z_1⟩, for the signal G = −∇ℓ(W), which vanishes between learnt
    modes; its degree is h. Inputs and outputs of Z are the singular modes of G_Q. For two layers it
    is a part of the Hessian but at the origin. There is none if all units of some level have
    learnt, or if G = 0, up to ``noise``.
    """
    depth = len(layers)
    if not any(w.any() for w in layers):
        return [correlation(widths, np.eye(widths[0]), signal)] if signal.any() else []
    bases = _orbit_bases(layers) if depth > 2 else None
    if bases is None:
        return []
    outward, inward = map(list, zip(*bases, strict=True))
    kept = [b.shape[1] for b in outward]
    if not min(kept):
        return []
    left, sizes, right = np.linalg.svd(outward[-1].T @ signal @ inward[0].T)
    if not (sizes > noise).any():
        return []
    outward[-1], inward[-1] = outward[-1] @ left, left.T @ inward[-1]
    outward[0], inward[0] = outward[0] @ right.T, right @ inward[0]
    inner = np.zeros((len(left), len(right)))
    np.fill_diagonal(inner, np.where(sizes > noise, sizes, 0.0))
    check_memory("x", n_weights(widths) * n_weights(kept))
    lacks = [np.abs(b.T - a).max(initial=0.0) for b, a in bases]
    pairs = zip(inward[1:], outward[:-1], strict=True)
    embed = scipy.linalg.block_diag(*(np.kron(f.T, b) for f, b in pairs))
    embed = np.where(np.abs(embed) > tolerances.NO_PART, embed, 0.0)
    part = correlation(kept, np.eye(kept[0]), inner, embed=embed)
    return [part._replace(exact=max(lacks) <= tolerances.BALANCED)]


def _orbit_bases(layers: Sequence[Array]) -> list[tuple[Array, Array]] | None:
    """Return B_i and F_i by level if the layers are blkdiag(D, 0) in bases of the levels, or None.

    B_i F_i is the projection on what has not been learnt, along what has; balanced layers have
    F_i = B_iᵀ.
    """
    left, sizes, right = np.linalg.svd(product(layers), full_matrices=False)
    rank = int(np.count_nonzero(sizes > tolerances.CRITICAL * sizes[0]))
    frames = (left[:, :rank], sizes[:rank], right[:rank].T)
    bases, inverses = strings.adapted_bases(layers, *frames)
    for w, inverse, basis in zip(layers, inverses[1:], bases[:-1], strict=True):
        turned = inverse @ w @ basis
        size = np.linalg.norm(turned)
        turned[:rank, :rank] = 0.0
        if not np.linalg.norm(turned) <= tolerances.CRITICAL * size:
            return None
    return [(b[:, rank:], f[rank:]) for b, f in zip(bases, inverses, strict=True)]


class Dimensions(NamedTuple):
    """Of the set of points whose runs begin, or end, at a saddle: whole, and modulo its isotropy.

    ``complete`` is 0 where they are lower bounds.
    """

    whole: int
    quotient: int
    complete: bool


def dimensions(
    widths: Sequence[int], rank: int, modes: int, swaps: int, stable: bool
) -> Dimensions:
    """Return the dimensions of the unstable or stable set at A_S.

    ``swaps`` strict directions do not join residual units. Of the residual network's balanced
    weights those with Z_{1:h} = P, symmetric and positive semidefinite between the open modes, make
    the unstable set; those with −Q P the stable one, where Q is any isometry that is the identity
    on the open modes and P may reach beyond them.
    """
    units = [d - rank for d in widths]
    open_modes = modes - rank
    spare = sorted((units[0] - open_modes, units[-1] - open_modes)) if stable else [0, 0]
    size = open_modes + spare[0]
    most = min(size, *units)
    quotient = swaps + size * most - most * (most - 1) // 2
    quotient += _frames(spare[1], min(most, spare[0]))
    return Dimensions(quotient + sum(_frames(n, most) for n in units[1:-1]), quotient, True)


def _frames(size: int, count: int) -> int:
    """Return the dimension of the orthonormal frames of so many vectors in R^size."""
    return size * count - count * (count + 1) // 2
