"""The fiber {W K = W* K} as a space: contractions of its points, paths of frames, its components.

With W* K = U diag(s) Vᵀ of rank ρ and E_i = W_{1:i} K V, the layers are moved one after the other,
by straight lines within the fiber, to E_i E_{i−1}^+ (with Vᵀ K^+ in place of E_0^+). What is left
are frames E_i (d_i × ρ) of full rank, the last of them the same for all points.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array, Flags

#: A curve of matrices from 0 to 1.
Curve = Callable[[float], Array]


class Contracted(NamedTuple):
    """A point of a fiber, and what its contraction leaves of it."""

    layers: Sequence[Array]
    #: Vᵀ K^+ (ρ × d_0).
    reading: Array
    #: E_1, …, E_h.
    frames: Sequence[Array]

    def at(self, position: float) -> list[Array]:
        """Return the layers when so many of them have been moved, the last one by a part."""
        ends = standard(self.frames, self.reading)
        parts = np.clip(position - np.arange(len(ends)), 0.0, 1.0).tolist()
        return [(1.0 - t) * w + t * end for t, w, end in zip(parts, self.layers, ends, strict=True)]


def contracted(layers: Sequence[Array], root: Array | None, right: Array) -> Contracted:
    """Return a point of the fiber over maps with the right frame V (k × ρ) of W K."""
    inverse = np.eye(len(right)) if root is None else np.linalg.pinv(root)
    first = right if root is None else root @ right
    frames = [*itertools.accumulate(layers, lambda done, w: w @ done, initial=first)][1:]
    return Contracted(layers, right.T @ inverse, frames)


def standard(frames: Sequence[Array], reading: Array) -> list[Array]:
    """Return the layers E_i E_{i−1}^+."""
    inverses = [reading, *map(np.linalg.pinv, frames[:-1])]
    return [frame @ inverse for frame, inverse in zip(frames, inverses, strict=True)]


def joining(start: Contracted, end: Contracted) -> Callable[[float], list[Array]]:
    """Return the path between two points of a component, for positions from 0 to 2 h + 1.

    The contraction of the first, layer by layer; the frames; the contraction of the other, back.
    """
    depth = len(start.layers)
    pairs = zip(start.frames[:-1], end.frames[:-1], strict=True)
    curves = [frames_between(first, last) for first, last in pairs]
    last = start.frames[-1], end.frames[-1]

    def layers(position: float) -> list[Array]:
        if position <= depth:
            return start.at(position)
        if position >= depth + 1.0:
            return end.at(2.0 * depth + 1.0 - position)
        t = position - depth
        frames = [*(curve(t) for curve in curves), (1.0 - t) * last[0] + t * last[1]]
        return standard(frames, start.reading)

    return layers


def frames_between(first: Array, last: Array) -> Curve:
    """Return a path of matrices (d × ρ) of rank ρ; if d = ρ their determinants have one sign.

    With E = Q P (polar), the positive definite P move on a straight line, and the orthonormal Q are
    turned by the rotation that takes one to the other.
    """
    (turned, size), (goal, other_size) = map(scipy.linalg.polar, (first, last))
    rank = turned.shape[1]
    basis, goal_basis = (
        np.hstack([q, scipy.linalg.qr(q)[0][:, rank:] if rank else np.eye(len(q))])
        for q in (turned, goal)
    )
    if np.linalg.det(goal_basis @ basis.T) < 0.0:
        goal_basis[:, -1] *= -1.0  # beyond the frame, unless d = ρ
    rotated = rotations(goal_basis @ basis.T)
    return lambda t: rotated(t) @ (turned @ ((1.0 - t) * size + t * other_size))


def rotations(whole: Array) -> Curve:
    """Return the rotations from the identity to one, each plane by its share of the angle."""
    form, basis = scipy.linalg.schur(whole, output="real")
    starts = np.flatnonzero(np.diagonal(form, -1))
    alone = np.setdiff1d(np.arange(len(form)), [*starts, *(starts + 1)])
    half = alone[np.diagonal(form)[alone] < 0.0].reshape(-1, 2).T
    one, other = np.hstack([[starts, starts + 1], half])
    angles = np.arctan2(form[starts + 1, starts], form[starts, starts])
    angles = np.append(angles, np.full(half.shape[1], np.pi))

    def rotation(t: float) -> Array:
        turned = np.eye(len(form))
        turned[one, one] = turned[other, other] = np.cos(t * angles)
        turned[other, one] = np.sin(t * angles)
        turned[one, other] = -turned[other, one]
        result: Array = basis @ turned @ basis.T
        return result

    return rotation


def deciding(widths: Sequence[int], rank: int) -> Flags:
    """Tell of each level whether the sign of det E_i tells components apart: 0 < i < h, d_i = ρ."""
    decides: Flags = np.array(widths) == rank
    decides[[0, -1]] = False
    return decides
