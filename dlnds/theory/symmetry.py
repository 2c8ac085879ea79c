"""The action W_i → P_i W_i P_{i−1}^{-1} of GL(d_1) × … × GL(d_{h−1}), and its generators."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from dlnds.arrays import Array


def moved(layers: Sequence[Array], group: Sequence[Array]) -> list[Array]:
    """Return P_i W_i P_{i−1}^{-1} for matrices P_1, …, P_{h−1}; the ends stay as they are."""
    result: list[Array] = list(layers)
    for i, p in enumerate(group):
        result[i] = p @ result[i]
        result[i + 1] = scipy.linalg.solve(p.T, result[i + 1].T).T
    return result


def generators(layers: Sequence[Array], orthogonal: bool) -> Array:
    """Return the tangent vectors (generator, parameter) of the orbit through a state.

    One for each unit matrix K_i = e_a e_bᵀ of each hidden layer; for the orthogonal group one for
    each e_a e_bᵀ − e_b e_aᵀ, a < b.
    """
    ends = np.cumsum([0, *(w.size for w in layers)]).tolist()
    parts = [np.zeros((0, ends[-1]))]
    for i in range(len(layers) - 1):
        w, after = layers[i], layers[i + 1]
        d = len(w)
        rows = np.zeros((d, d, ends[-1]))
        first = rows[:, :, ends[i] : ends[i + 1]].reshape(d, d, *w.shape)
        second = rows[:, :, ends[i + 1] : ends[i + 2]].reshape(d, d, *after.shape)
        units = np.arange(d)
        first[units, :, units, :] = w
        for a in range(d):
            second[a, units, :, units] = -after[:, a]
        rows[:, :, ends[i] : ends[i + 1]] = first.reshape(d, d, -1)
        rows[:, :, ends[i + 1] : ends[i + 2]] = second.reshape(d, d, -1)
        if orthogonal:
            above, below = np.triu_indices(d, 1)
            parts.append(rows[above, below] - rows[below, above])
        else:
            parts.append(rows.reshape(d * d, -1))
    return np.concatenate(parts)


def tangents(widths: Sequence[int], orthogonal: bool) -> Callable[[Array], Array]:
    """Return `generators` as a function of the flat state, many times as fast."""
    (places, labels), count = action(widths, orthogonal)
    weights, signs = np.abs(labels) - 1, np.sign(labels).astype(float)
    shape = count, sum(a * b for a, b in itertools.pairwise(widths))

    def vectors(x: Array) -> Array:
        rows = np.zeros(shape)
        rows.ravel()[places] = signs * x[weights]
        return rows

    return vectors


def action(widths: Sequence[int], orthogonal: bool) -> tuple[NDArray[np.int64], int]:
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
