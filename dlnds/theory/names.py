"""Names of critical points: which modes are learnt and, under weight decay, on which root."""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlnds.arrays import Array, Flags, Integers
from dlnds.theory import tolerances
from dlnds.theory.moments import Problem, groups

#: Signs of the roots of λ = s^{h−2} (σ − s^h): the larger, one that has no sign, the smaller.
ROOTS = ("⁺", "", "⁻")


def of_maps(problem: Problem, images: Array) -> NDArray[np.str_]:
    """Return the names of maps W K = P_S Σ (…, d_h, k), such as ``"{0,2}"``, empty of others.

    Of equal singular values that are not all learnt none has a number: ``"{0,σ=1×2}"`` are mode 0
    and two directions of those with σ = 1.
    """
    left, sigma, right = problem.modes
    inner, together = left.T @ images @ right, groups(sigma)
    rest = np.sum(images**2, axis=(-2, -1))
    known, counts = np.ones(rest.shape, bool), np.zeros((*rest.shape, len(together), 3), int)
    for place, group in enumerate(together):
        block = inner[..., group[:, None], group]
        rest = rest - np.sum(block**2, axis=(-2, -1))
        block = block / sigma[group].mean()  # a projection, if it is learnt
        for lack in (block @ block - block, block - np.swapaxes(block, -2, -1)):
            known &= np.abs(lack).max(axis=(-2, -1)) <= tolerances.MODE
        counts[..., place, 1] = np.rint(np.trace(block, axis1=-2, axis2=-1))
    known &= np.abs(rest) <= (tolerances.MODE * sigma[0]) ** 2
    return _texts(sigma, together, counts, known)


def decayed(
    problem: Problem, layers: Sequence[Array], decay: ArrayLike, depth: int
) -> NDArray[np.str_]:
    """Return the names of critical layers under weight decay, such as ``"{0⁺,2⁻}"``.

    Those of states (…, d_i, d_{i−1}) with their λ (…), empty of others than balanced and aligned
    ones. Each mode has λ = s^{h−2} k (σ − k s^h) for h = ``depth`` and the size k of K on its
    input. There may be fewer layers than h, whose sizes are powers of s then. Two roots are told
    apart for h ≥ 3; at a fold they are one.
    """
    λ, (left, sigma, _) = np.asarray(decay, float), problem.modes
    together, (inputs, gains) = groups(sigma), _inputs(problem)
    ends = layers[0] @ inputs, np.swapaxes(layers[-1], -2, -1) @ left
    least = tolerances.KERNEL * (sigma[0] / gains[0]) ** (1.0 / len(layers))
    known = _is_aligned(layers[0], ends[0], together, least)
    known &= _is_aligned(layers[-1], ends[1], together, least)
    counts = np.zeros((*known.shape, len(together), 3), int)
    for place, group in enumerate(together):
        sizes, others = (_sizes(end[..., group]) for end in ends)
        gain, top, learnt = gains[group].mean(), sigma[group].mean(), sizes > least
        strength = gain * sizes ** len(layers)
        fits = _is_root(λ[..., None], gain, top, strength, depth)
        fits &= np.abs(sizes - others) <= tolerances.MODE * sizes
        known &= (fits | ~learnt).all(axis=-1)
        on_roots = np.stack(_roots(strength / top, depth), axis=-1) & learnt[..., None]
        counts[..., place, :] = on_roots.sum(axis=-2)
    return _texts(sigma, together, counts, known)


def of_roots(modes: Sequence[int], signs: Sequence[int], depth: int) -> str:
    """Return the name of modes on their larger (1), smaller (−1) or double roots (0)."""
    marks = dict(zip((1, 0, -1), ROOTS, strict=True)) if depth >= 3 else {1: ROOTS[1], 0: ROOTS[1]}
    return "{" + ",".join(f"{j}{marks[s]}" for j, s in zip(modes, signs, strict=True)) + "}"


def _inputs(problem: Problem) -> tuple[Array, Array]:
    """Return the unit vectors K v_j / ‖K v_j‖ (d_0 × m) that modes read, and these norms."""
    right = problem.modes[2]
    seen = right if problem.root is None else problem.root @ right
    gains = np.linalg.norm(seen, axis=0)
    return seen / gains, gains


def _sizes(ends: Array) -> Array:
    """Return the singular values of matrices, of which most have one column: one for each."""
    if ends.shape[-1] == 1:
        return np.asarray(np.linalg.norm(ends, axis=-2), float)
    sizes, lacking = np.linalg.svd(ends, compute_uv=False), ends.shape[-1] - ends.shape[-2]
    none = np.zeros((*sizes.shape[:-1], max(lacking, 0)))
    return np.concatenate([sizes, none], axis=-1)


def _is_aligned(weight: Array, end: Array, together: Sequence[Integers], least: float) -> Flags:
    """Tell which layers act on modes alone, and take different ones apart.

    ``end`` (…, d, m) are the images of the modes; those below ``least`` do not count.
    """
    norms = np.linalg.norm(end, axis=-2)
    units = end / np.where(norms > least, norms, np.inf)[..., None, :]
    angles = np.abs(np.swapaxes(units, -2, -1) @ units)
    for group in together:
        angles[..., group[:, None], group] = 0.0
    total = np.sum(weight**2, axis=(-2, -1))
    inside = sum((np.sum(norms[..., group] ** 2, axis=-1) for group in together), np.zeros(()))
    aligned: Flags = angles.max(axis=(-2, -1), initial=0.0) <= tolerances.MODE
    aligned &= np.abs(total - inside) <= tolerances.MODE**2 * np.maximum(total, least**2)
    return aligned


def _is_root(decay: Array, gain: float, top: float, strength: Array, depth: int) -> Flags:
    """Tell where strengths k s^h solve λ = s^{h−2} k (σ − k s^h)."""
    with np.errstate(divide="ignore", invalid="ignore"):  # of one layer that is zero
        scale = gain ** (2.0 / depth) * strength ** ((depth - 2.0) / depth)
        lack = np.abs(decay - scale * (top - strength))
        fits: Flags = lack <= tolerances.MODE * (np.abs(decay) + scale * (top + strength))
    return fits


def _roots(part: Array, depth: int) -> tuple[Flags, Flags, Flags]:
    """Return which strengths, in terms of σ, are larger roots, ones without sign, smaller ones."""
    if depth < 3:
        none = np.zeros(part.shape, bool)
        return none, ~none, none
    beyond = part - (depth - 2.0) / (2.0 * depth - 2.0)
    upper, lower = beyond > tolerances.KERNEL, beyond < -tolerances.KERNEL
    return upper, ~(upper | lower), lower


def _texts(
    sigma: Array, together: Sequence[Integers], counts: Integers, known: Flags
) -> NDArray[np.str_]:
    """Return the texts of how many modes of each group are on each root, empty if not known."""
    rows = counts.reshape(known.size, 3 * len(together)).tolist()
    text = functools.cache(lambda row: _text(sigma, together, np.reshape(row, (-1, 3))))
    texts = np.array([text(tuple(row)) for row in rows], np.str_)
    return np.where(known, texts.reshape(known.shape), "")


def _text(sigma: Array, together: Sequence[Integers], counts: Integers) -> str:
    words: list[str] = []
    for group, on_roots in zip(together, counts, strict=True):
        for root, count in zip(ROOTS, on_roots, strict=True):
            if count == len(group):
                words += [f"{mode}{root}" for mode in group]
            elif count:
                times = f"×{count}" if count > 1 else ""
                words.append(f"σ={sigma[group[0]]:.3g}{root}{times}")
    return "{" + ",".join(words) + "}"
