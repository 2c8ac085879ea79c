"""States and layers: what is in which place, products of layers, and bases of hidden units."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dlnds.arrays import Array, Flags, Integers
from dlnds.theory import tolerances

_EPS = float(np.finfo(float).eps)


def n_weights(widths: Sequence[int]) -> int:
    """Return the number of weights Σ d_i d_{i−1}."""
    return sum(b * a for a, b in itertools.pairwise(widths))


def places_of(widths: Sequence[int]) -> tuple[slice, ...]:
    """Return where the layers W_1, …, W_h are in a state, each row by row."""
    return _places(tuple(widths))


@functools.lru_cache(maxsize=1024)
def _places(widths: tuple[int, ...]) -> tuple[slice, ...]:
    sizes = (b * a for a, b in itertools.pairwise(widths))
    ends = itertools.accumulate(sizes, initial=0)
    return tuple(itertools.starmap(slice, itertools.pairwise(ends)))


def layers_of(widths: Sequence[int], states: Array) -> tuple[Array, ...]:
    """Return the layers of a state, or of each in a stack (…, parameter)."""
    pairs = zip(places_of(widths), itertools.pairwise(widths), strict=True)
    stack = states.shape[:-1]
    return tuple(states[..., place].reshape(*stack, b, a) for place, (a, b) in pairs)


def block_places(widths: Sequence[int], kept: Sequence[Integers]) -> Integers:
    """Return the places in a state of the weights between some units of every level."""
    pairs = zip(places_of(widths), widths[:-1], itertools.pairwise(kept), strict=True)
    return np.concatenate(
        [place.start + np.add.outer(b * d, a).ravel() for place, d, (a, b) in pairs]
    )


def flat(parts: Iterable[Array]) -> Array:
    """Return the numbers of all parts as one vector."""
    return np.concatenate([np.ravel(part) for part in parts])


def product(layers: Sequence[Array]) -> Array:
    """Return W = W_h…W_1 of layers, or of stacks of them, from the narrower end."""
    if layers[0].shape[-1] <= layers[-1].shape[-2]:
        return functools.reduce(lambda done, w: w @ done, layers)
    return functools.reduce(lambda done, w: done @ w, layers[::-1])


def images(layers: Sequence[Array], first: Array) -> list[Array]:
    """Return P_0, …, P_{h−1}, with P_i = W_{1:i} K for K = ``first``."""
    return [*itertools.accumulate(layers[:-1], lambda done, w: w @ done, initial=first)]


def readings(layers: Sequence[Array]) -> list[Array]:
    """Return L_1, …, L_h, with L_i = W_{i+1:h}."""
    last = np.eye(layers[-1].shape[-2])
    return [*itertools.accumulate(layers[:0:-1], np.matmul, initial=last)][::-1]


def sent_back(layers: Sequence[Array], signal: Array) -> list[Array]:
    """Return W_{i+1:h}ᵀ G W_{1:i−1}ᵀ of all layers i, for G (d_h × d_0)."""
    products, parts = list(itertools.accumulate(layers[:-1], lambda done, w: w @ done)), []
    for w, done in zip(layers[:0:-1], products[::-1], strict=True):
        parts.append(signal @ done.T)
        signal = w.T @ signal
    return [*parts, signal][::-1]


def adjacency(widths: Sequence[int], layers: Sequence[Array], steps: int = 1) -> Array:
    """Return blk_k of matrices from level i − k to level i, with k = ``steps``."""
    ends = np.cumsum((0, *widths))
    A = np.zeros((ends[-1], ends[-1]))
    for i, block in enumerate(layers, steps):
        A[ends[i] : ends[i + 1], ends[i - steps] : ends[i - steps + 1]] = block
    return A


def span(*blocks: Array) -> Array:
    """Return an orthonormal basis (at least one column) of the columns of all blocks."""
    scaled = [block / max(float(np.linalg.norm(block)), np.finfo(float).tiny) for block in blocks]
    U, s, _ = np.linalg.svd(np.hstack(scaled), full_matrices=False)
    rank = np.count_nonzero(s > len(U) * np.finfo(float).eps)
    return U[:, : max(1, int(rank))]


def kernel(matrix: Array, rank: int) -> Array:
    """Return an orthonormal basis of what a matrix of this rank maps to zero, in columns."""
    if rank == 0:
        return np.eye(matrix.shape[1])
    return np.linalg.svd(matrix)[2][rank:].T


def is_identity(basis: Array) -> bool:
    """Tell whether a matrix is the identity, exactly, or all of a stack are."""
    rows, columns = basis.shape[-2:]
    return rows == columns and bool((basis == _unit(rows)).all())


@functools.lru_cache(maxsize=8)  # of wide layers each is large
def _unit(size: int) -> Array:
    """Return the identity; read-only."""
    unit = np.eye(size)
    unit.setflags(write=False)
    return unit


def are_identities(bases: Array) -> Flags:
    """Tell of each square matrix of a stack whether it is the identity, exactly."""
    found = np.all(bases == _unit(bases.shape[-1]), axis=(-2, -1))
    return np.asarray(found)


def transposed(stack: Array) -> Array:
    """Return the transpose of a matrix, or of each in a stack."""
    return stack.swapaxes(-1, -2)


@dataclass(frozen=True)
class Turning:
    """The way back of states with such widths, whose layers are B_iᵀ W_i B_{i−1}.

    The bases B_0, …, B_h are matrices for rows (time, parameter) of states, or stacks of them for
    as many runs (run, time, parameter).
    """

    widths: tuple[int, ...]
    bases: Sequence[Array]

    def __call__(self, states: Array) -> Array:
        """Return the states in the coordinates that were turned."""
        layers = layers_of(self.widths, states)
        rows = [None if kept else b[..., None, :, :] for b, kept in self._turns]
        turned = [w if b is None else b @ w for w, b in zip(layers, rows[1:], strict=True)]
        pairs = zip(turned, rows[:-1], strict=True)
        return flat_rows([w if a is None else w @ transposed(a) for w, a in pairs])

    @functools.cached_property
    def _turns(self) -> list[tuple[Array, bool]]:
        """The bases, and whether they leave their level as it is."""
        return [(basis, is_identity(basis)) for basis in self.bases]

    def after(self, inner: "Turning") -> "Turning":
        """Return both ways in one, that of another first."""
        pairs = zip(self.bases, inner.bases, strict=True)
        return Turning(inner.widths, [outer @ basis for outer, basis in pairs])

    def of(self, runs: Integers) -> "Turning":
        """Return the way back of some of the runs."""
        return Turning(self.widths, [basis[runs] for basis in self.bases])


def flat_rows(layers: Iterable[Array]) -> Array:
    """Return the states (…, parameter) of stacks (…, row, column) of layers."""
    return np.concatenate([w.reshape(*w.shape[:-2], w.shape[-2] * w.shape[-1]) for w in layers], -1)


def unit_bases(layers: Sequence[Array]) -> list[Array]:
    """Return for each hidden layer, or for each of a stack, the principal axes of its units."""
    grams = [
        w @ transposed(w) + transposed(after) @ after for w, after in itertools.pairwise(layers)
    ]
    alike = len({gram.shape for gram in grams}) == 1  # all at once take half of the time
    stacks = [np.array(grams)] if alike else [gram[None] for gram in grams]
    found = (_all_axes(s.reshape(-1, *s.shape[-2:])).reshape(s.shape) for s in stacks)
    return [axes for stack in found for axes in stack]


def _all_axes(grams: Array) -> Array:
    """Return the principal axes of each of a stack: at once, where no entry is small."""
    sizes = np.sqrt(np.maximum(grams.diagonal(0, 1, 2), 0.0))
    turned, axes = ~_is_diagonal(grams, sizes), np.empty_like(grams)
    axes[:] = _unit(grams.shape[1])
    if not turned.any():
        return axes
    near = (sizes >= 1e-6 * sizes.max(axis=1, initial=0.0)[:, None]).all(axis=1)
    at_once = turned & near
    axes[at_once] = np.linalg.eigh(grams[at_once])[1][:, :, ::-1]
    for k in np.flatnonzero(turned & ~near):
        axes[k] = _principal_axes(grams[k])
    return axes


def _is_diagonal(grams: Array, sizes: Array) -> Flags:
    """Tell of each whether nothing but rounding is beside the diagonal, the ``sizes`` squared."""
    noise = (16.0 * _EPS * sizes)[:, :, None] * sizes[:, None, :]
    beside = (np.abs(grams) > noise) & (_unit(grams.shape[1]) == 0.0)
    return np.asarray(~beside.any(axis=(1, 2)))


def _principal_axes(gram: Array) -> Array:
    """Return orthonormal axes of a symmetric matrix whose diagonal spans many orders of magnitude.

    Axes computed together would mix units by the rounding of the largest. So those that are smaller
    by 1e6 are only turned by the small angles that take them out of the way of the larger, which
    keeps their own digits, and then on their own.
    """
    sizes = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    if _is_diagonal(gram[None], sizes[None])[0]:
        return np.eye(len(gram))
    near = sizes >= 1e-6 * sizes.max()  # all, if what is left is rounding
    large, small = np.flatnonzero(near), np.flatnonzero(~near)
    values, first = np.linalg.eigh(gram[np.ix_(large, large)])
    if not small.size:
        return first[:, ::-1]
    count = int(np.count_nonzero(values > tolerances.FACTOR_RANK * values[-1]))
    start = np.zeros_like(gram)  # axes of the large units, the main ones first, then the small
    start[large, : len(large)] = first[:, ::-1]
    start[small, len(large) :] = np.eye(len(small))
    turned = start.T @ gram @ start
    weights = values[::-1][:count]
    tilt = (turned[:count, count:] / weights[:, None]).T
    if not (np.abs(tilt) < 2.0).all():  # as it is for all but rounding
        return start
    along = _inverse_root(np.eye(count) + tilt.T @ tilt)
    across = _inverse_root(np.eye(len(gram) - count) + tilt @ tilt.T)
    main = start @ np.vstack([along, tilt @ along])
    away = start @ np.vstack([-tilt.T @ across, across])
    rest = across @ (turned[count:, count:] - (tilt * weights) @ tilt.T) @ across
    return np.hstack([main, away @ _principal_axes(rest)])


def _inverse_root(matrix: Array) -> Array:
    """Return the inverse square root of a symmetric matrix near the identity."""
    values, vectors = np.linalg.eigh(matrix)
    root: Array = (vectors / np.sqrt(values)) @ vectors.T
    return root
