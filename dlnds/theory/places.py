"""Coordinates in which a critical point is simplest: canonical ones, and those of the modes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array, Flags, Integers
from dlnds.theory import spectra, strings, tolerances
from dlnds.theory.coordinates import Turning, flat, kernel, layers_of
from dlnds.theory.moments import Problem, canonical_state


class Place(NamedTuple):
    """A balanced critical point in the coordinates in which it is canonical.

    There the target of ``problem`` is diagonal and ``modes`` are learnt by the first hidden units;
    ``bases`` are those of all levels, W_i = bases[i] · (layers there) · bases[i − 1]ᵀ.
    """

    problem: Problem
    modes: tuple[int, ...]
    state: Array
    bases: list[Array]


def canonical_place(problem: Problem, layers: Sequence[Array]) -> Place | None:
    """Return where a balanced critical point of a whitened problem is canonical, or None.

    Problems with orthogonal K are whitened too.
    """
    whitened = problem.whitened()
    if whitened is None or problem.depth < 2:
        return None
    problem = whitened
    found = spectra.balanced_frames(problem, layers)
    if found is None:
        return None
    chosen, frames = found
    sigma, widths = problem.modes[1], problem.widths
    rest = problem.target - (frames[-1] * sigma[chosen]) @ frames[0].T
    left, _, right = np.linalg.svd(rest, full_matrices=False)
    count = int(np.count_nonzero(sigma)) - len(chosen)
    others = [j for j in range(len(sigma)) if j not in chosen][:count]
    bases = [np.hstack([f, kernel(f.T, f.shape[1])]) for f in frames]
    for end, open_modes in ((-1, left[:, :count]), (0, right[:count].T)):
        known = np.hstack([frames[end], open_modes])
        bases[end] = np.empty((len(known), len(known)))
        places = [*chosen, *others]
        bases[end][:, places] = known
        spare = np.setdiff1d(np.arange(len(known)), places)
        bases[end][:, spare] = kernel(known.T, len(places))
    target = np.zeros_like(problem.target)
    np.fill_diagonal(target, sigma)
    left, right = (np.eye(d, len(sigma)) for d in target.shape)
    turned = Problem(widths, target, None, (left, sigma, right))
    state = canonical_state(widths, left[:, chosen], sigma[chosen], right[:, chosen])
    return Place(turned, tuple(chosen), state, bases)


class Parts(NamedTuple):
    """Which part of a problem the inputs, the columns of K, and the outputs are in.

    Parts share no entry of Σ or K. So the reflection of one, of all its inputs and outputs, is a
    symmetry of the flow: W_1 v = 0 = uᵀ W_h for all v and u of a part stays so.
    """

    inputs: Integers
    columns: Integers
    outputs: Integers

    def used(self, widths: Sequence[int], states: Array, least: float = 0.0) -> Flags:
        """Tell of each part whether states (…, parameter) have weights in W_1 or W_h above this."""
        layers = layers_of(widths, states)
        sizes = (np.linalg.norm(layers[0], axis=-2), np.linalg.norm(layers[-1], axis=-1))
        used = np.zeros((*states.shape[:-1], 1 + max(map(np.max, self))), bool)
        for size, labels in zip(sizes, (self.inputs, self.outputs), strict=True):
            row = np.nonzero(size > least)
            used[(*row[:-1], labels[row[-1]])] = True
        return used

    def without(self, widths: Sequence[int], states: Array, least: float) -> Array:
        """Return states with zeros for the weights of the parts that they do not use."""
        used, states = self.used(widths, states, least), states.copy()
        layers = layers_of(widths, states)
        layers[0][...] *= used[..., None, self.inputs]
        layers[-1][...] *= used[..., self.outputs, None]
        return states


def parts_of(problem: Problem) -> Parts:
    """Return the parts of a problem: one for each mode where Σ is diagonal and K = I."""
    target = problem.target
    root = np.eye(problem.widths[0]) if problem.root is None else problem.root
    joined = np.zeros((len(root) + root.shape[1] + len(target),) * 2, bool)
    ends = np.cumsum([0, *root.shape, len(target)])
    joined[: ends[1], ends[1] : ends[2]] = root != 0.0
    joined[ends[1] : ends[2], ends[2] :] = target.T != 0.0
    _, label = scipy.sparse.csgraph.connected_components(joined, directed=False)
    return Parts(*np.split(label, ends[1:3]))


def mode_place(problem: Problem, layers: Sequence[Array]) -> Place:
    """Return where Σ is diagonal at a critical point: inputs and outputs are modes.

    Hidden units are what they were. Of raw inputs K V is triangular, and the identity of none. The
    weights of `parts_of` the problem that the point does not use are zero there, exactly.
    """
    problem = problem.whitened() or problem
    found = strings.learnt(problem, layers)
    left, right = (np.hstack([f, kernel(f.T, f.shape[1])]) for f in found.frames)
    sigma, inner, root = problem.modes[1], right, None
    if problem.root is not None:
        seen = problem.root @ right
        basis, _ = np.linalg.qr(seen[:, ::-1], mode="complete")
        first = basis[:, : seen.shape[1]][:, ::-1]
        inner = np.hstack([first, basis[:, seen.shape[1] :]])
        root = _clean(inner.T @ seen)
    target = _clean(left.T @ problem.target @ right)
    np.fill_diagonal(target, np.where(sigma > 0.0, np.diagonal(target), 0.0))
    frames = (np.eye(len(left), len(sigma)), sigma, np.eye(len(right), len(sigma)))
    turned = Problem(problem.widths, target, root, frames)
    bases = [inner, *(np.eye(len(w)) for w in layers[:-1]), left]
    state = Turning(problem.widths, [b.T for b in bases])(flat(layers)[None])[0]
    least = tolerances.CRITICAL * float(np.linalg.norm(state))
    state = parts_of(turned).without(problem.widths, state, least)
    return Place(turned, found.modes, state, bases)


def _clean(matrix: Array) -> Array:
    """Return a matrix without entries that are nothing but rounding."""
    return np.where(np.abs(matrix) > tolerances.EXACT * np.abs(matrix).max(), matrix, 0.0)
