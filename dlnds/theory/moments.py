"""Second moments of data, whitening, singular modes, and gaps and coincidences among these.

A problem is kept as the target Σ = M (Kᵀ)⁺ (d_h × k) and a root K of the input covariance,
C = K Kᵀ (d_0 × k, k = rank C), so that L = ½‖Σ − W K‖² holds without the cancellation in C.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_finite, check_squares
from dlnds.theory import tolerances
from dlnds.theory.coordinates import flat

#: Modes up to which all subset sums are compared (2^22 sums; the memory doubles with each mode).
MOST_MODES_FOR_SUBSETS = 22


class Moments(NamedTuple):
    """Target Σ (d_h × k), input root K (d_0 × k), and the loss that no linear map can remove."""

    target: Array
    root: Array
    irreducible_loss: float


class Problem(NamedTuple):
    """What the formulas need to know of a network: its widths, Σ, K, and the modes of Σ.

    ``root`` is None for a whitened problem, K = I; ``modes`` are U, σ, V of `singular_modes`.
    """

    widths: tuple[int, ...]
    target: Array
    root: Array | None
    modes: tuple[Array, Array, Array]

    @property
    def depth(self) -> int:
        """Number of layers h."""
        return len(self.widths) - 1

    def image(self, product: Array) -> Array:
        """Return W K (…, d_h, k) of end-to-end maps W (…, d_h, d_0)."""
        return product if self.root is None else product @ self.root

    def residual(self, product: Array) -> Array:
        """Return Σ − W K (…, d_h, k) of end-to-end maps W (…, d_h, d_0)."""
        return self.target - self.image(product)

    def loss(self, product: Array) -> Any:
        """Return ½‖Σ − W K‖_F² of end-to-end maps W (…, d_h, d_0)."""
        return 0.5 * np.sum(self.residual(product) ** 2, axis=(-2, -1))

    def strength(self, image: Array) -> Array:
        """Return u_jᵀ W K v_j (…, mode) of images W K (…, d_h, k)."""
        left, _, right = self.modes
        strength: Array = np.sum((left.T @ image) * right.T, axis=-1)
        return strength

    def whitened(self) -> "Problem | None":
        """Return the same problem without a root, where that is orthogonal: L is the same of W."""
        if self.root is None:
            return self
        if self.gain != 1.0:
            return None
        left, sigma, right = self.modes
        modes = (left, sigma, self.root @ right)
        return self._replace(target=self.target @ self.root.T, root=None, modes=modes)

    @property
    def gain(self) -> float | None:
        """C of inputs with the covariance K Kᵀ = c I, or None."""
        if self.root is None:
            return 1.0
        covariance = self.root @ self.root.T
        gain = float(np.mean(np.diagonal(covariance)))
        gain = 1.0 if abs(gain - 1.0) <= tolerances.EXACT else gain
        lack = np.abs(covariance - gain * np.eye(len(covariance))).max()
        return gain if lack <= tolerances.EXACT * gain else None

    def signal(self, product: Array) -> Array:
        """Return G = (Σ − W K) Kᵀ, minus the gradient of the loss by the end-to-end map."""
        residual = self.residual(product)
        return residual if self.root is None else residual @ self.root.T

    def name_learnt(self, image: Array) -> Integers:
        """Return the modes of the nearest critical W K; for equal ones see `named_modes`."""
        left, sigma, right = self.modes
        ties = groups(sigma)
        strength = (self.strength(image)[sigma > 0.0]) / sigma[sigma > 0.0]
        sizes, names = strength.copy(), []
        for tie in ties:
            if len(tie) > 1:
                block = left[:, tie].T @ image @ right[:, tie] / sigma[tie].mean()
                sizes[tie] = np.linalg.eigvalsh(0.5 * (block + block.T))[::-1]
        learnt = self.nearest(sizes)
        if all(len(tie) == 1 for tie in ties):
            return np.flatnonzero(learnt)
        for tie in ties:
            names += named_modes(strength, tie, int(np.count_nonzero(learnt[tie]))).tolist()
        return np.array(names, np.int64)

    def nearest(self, strength: Array) -> Flags:
        """Tell which modes the nearest critical map has, of strengths in terms of the σ_j > 0.

        Those that are nearer to 1 than to 0, but no more than a map of these widths can have: of
        others it is as near with those that gain most, σ² (2p − 1). A single layer has all.
        """
        if self.depth == 1:
            return np.ones(len(strength), bool)
        sigma = self.modes[1][: len(strength)]
        gain = (sigma / sigma.max(initial=0.0)) ** 2 * (2.0 * strength - 1.0)
        return limited(strength > 0.5, gain, min(self.widths))


def rank_tolerance(size: int) -> float:
    """Return the relative size below which a singular value of data counts as zero."""
    return 64.0 * size * float(np.finfo(float).eps)


def from_data(X: Array, Y: Array, normalize: bool) -> Moments:
    """Return Σ and K of samples in columns, from the singular values of X and not of X Xᵀ.

    The rank of X is decided on rows of unit norm, so that it does not depend on units. K is the
    symmetric root of C if X has full row rank, and spans the range of X otherwise. ``normalize``
    divides the moments by the number of samples.
    """
    scale = np.sqrt(X.shape[1]) if normalize else 1.0
    X, Y = X / scale, Y / scale
    with np.errstate(over="ignore"):
        check_finite("X", np.sum(X**2, axis=1))
        check_finite("Y", np.sum(Y**2, axis=1))
    check_squares("Y", Y)
    units = _units(np.linalg.norm(X, axis=1))
    U, s, Vt = np.linalg.svd(X / units[:, None], full_matrices=False)
    rank = int(np.count_nonzero(s > rank_tolerance(len(X)) * s[0]))
    U, s, Vt = U[:, :rank], s[:rank], Vt[:rank]
    noise = rank_tolerance(len(X) + len(Y)) * float(np.linalg.norm(Y))
    target = _without_noise(Y @ Vt.T, noise)
    misfit = Y - target @ Vt
    target, root = _symmetric(target, units[:, None] * U * s)
    return Moments(target, root, 0.5 * float(np.sum(misfit**2)))


def from_moments(M: Array, C: Array) -> Moments:
    """Return Σ and K for M = E[y xᵀ] and C = E[x xᵀ]; what no map can remove is not known (NaN).

    Raises
    ------
    ValueError
        If C is not symmetric positive semidefinite, or M does not vanish on the kernel of C.
    """
    diagonal = np.diag(C)
    units = _units(np.sqrt(np.maximum(diagonal, 0.0)))
    correlation = C / units[:, None] / units
    if not np.allclose(correlation, correlation.T, rtol=0.0, atol=tolerances.SYMMETRIC):
        raise ValueError("C: needs a symmetric matrix")
    eigenvalues, U = np.linalg.eigh(0.5 * (correlation + correlation.T))
    zero = rank_tolerance(len(C)) * eigenvalues[-1]
    if eigenvalues[0] < -zero or eigenvalues[-1] <= 0.0 or diagonal.min() < 0.0:
        raise ValueError(
            "C: needs a positive semidefinite matrix other than zero, got (scaled to a unit "
            f"diagonal) eigenvalues from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}"
        )
    keep, scaled = eigenvalues > zero, M / units
    outside = scaled @ U[:, ~keep]
    if outside.size and np.abs(outside).max() > tolerances.OUTSIDE * np.abs(scaled).max():
        raise ValueError(
            "M: has a part outside the range of C, so it is no E[y xᵀ] with E[x xᵀ] = C"
        )
    s = np.sqrt(eigenvalues[keep])
    target, root = _symmetric(scaled @ (U[:, keep] / s), units[:, None] * U[:, keep] * s)
    check_squares("M", target)
    return Moments(target, root, float("nan"))


def _units(sizes: Array) -> Array:
    """Return sizes to divide by: one where there is nothing."""
    return np.where(sizes > 0.0, sizes, 1.0)


def _without_noise(target: Array, noise: float) -> Array:
    """Return a matrix without its singular values up to ``noise``."""
    U, s, Vt = np.linalg.svd(target, full_matrices=False)
    if s.min() > noise:
        return target
    cleaned: Array = (U * np.where(s > noise, s, 0.0)) @ Vt
    return cleaned


def _symmetric(target: Array, root: Array) -> tuple[Array, Array]:
    """Return Σ and K with K symmetric if it is square: the same moments Σ Kᵀ and K Kᵀ."""
    if root.shape[0] != root.shape[1]:
        return target, root
    U, s, Vt = np.linalg.svd(root)
    return target @ (U @ Vt).T, (U * s) @ U.T


def singular_modes(target: Array) -> tuple[Array, Array, Array]:
    """Return U (d_h × m), σ (m, descending) and V (k × m) of Σ = U diag(σ) Vᵀ, m = min(d_h, k).

    Singular values at rounding level are set to zero. The largest entry of each left vector is
    positive, so that equal problems have equal modes.
    """
    U, sigma, Vt = np.linalg.svd(target, full_matrices=False)
    sigma[sigma <= rank_tolerance(max(target.shape)) * sigma[0]] = 0.0
    signs = np.sign(U[np.abs(U).argmax(axis=0), np.arange(len(sigma))])
    return U * signs, sigma, Vt.T * signs


def exceeds(sigma: Array) -> Flags:
    """Tell at (j, k) whether σ_k is larger than σ_j, and not equal up to rounding."""
    larger: Flags = sigma - sigma[:, None] > _tie(sigma, sigma[:, None], sigma[0])
    return larger


def equal(sigma: Array) -> Flags:
    """Tell at (j, k) whether σ_j and σ_k are equal up to rounding."""
    larger = exceeds(sigma)
    return ~(larger | larger.T)


def groups(sigma: Array) -> list[Integers]:
    """Return the modes with σ_j > 0, those with equal σ_j together."""
    positive = np.flatnonzero(sigma)
    return np.split(positive, np.flatnonzero(_apart(sigma)) + 1) if len(positive) else []


def _apart(sigma: Array) -> Flags:
    """Tell of each σ_j > 0 but the last whether it is not equal to the next."""
    upper, lower = sigma[:-1], sigma[1:]
    apart: Flags = upper - lower > _tie(upper, lower, sigma[:1])
    return apart[: max(np.count_nonzero(sigma) - 1, 0)]


def _tie(a: Array, b: Array, largest: Any) -> Array:
    """Return by how much equal σ may differ by rounding."""
    tie: Array = tolerances.TIE * np.maximum(a, b) + 8.0 * np.finfo(float).eps * largest
    return tie


def limited(chosen: Flags, gain: Array, most: int) -> Flags:
    """Return no more than so many of the chosen modes (…, mode): those that gain most."""
    order = np.argsort(np.where(chosen, -gain, np.inf), axis=-1, kind="stable")
    kept = chosen.copy()
    np.put_along_axis(kept, order[..., most:], False, axis=-1)
    return kept


def named_modes(strength: Array, tie: Integers, count: int) -> Integers:
    """Return which of equal modes are learnt if so many are, from strengths (mode) over σ_j.

    The first ones, unless each is learnt or not by itself.
    """
    own = strength[tie]
    learnt = own > 0.5
    apart = np.abs(own - learnt).max() <= tolerances.MODE
    return tie[learnt] if apart and np.count_nonzero(learnt) == count else tie[:count]


def count_pairs(learnt: Flags, relation: Flags) -> Integers:
    """Count for each set S (point, mode) the pairs j ∈ S, k ∉ S that stand in a relation (j, k)."""
    inside, outside = learnt.astype(np.int64), (~learnt).astype(np.int64)
    count: Integers = np.sum((inside @ relation.astype(np.int64)) * outside, axis=1)
    return count


def turns(sigma: Array, learnt: Flags) -> Integers:
    """Return in how many dimensions W = P_S Σ can turn among equal singular values (point).

    Learnt values are above rounding, so that none of them is equal to one that vanishes.
    """
    return count_pairs(learnt, equal(sigma))


def canonical_frames(widths: Sequence[int], left: Array, right: Array) -> list[Array]:
    """Return orthonormal frames (d_i × r) of all levels: the hidden ones on units 1..r."""
    return [right, *(np.eye(width, left.shape[1]) for width in widths[1:-1]), left]


def balanced_layers(frames: Sequence[Array], sizes: Array) -> tuple[Array, ...]:
    """Return 0-balanced layers W_i = U_i diag(sizes) U_{i−1}ᵀ from frames U_0, …, U_h (d_i × r)."""
    return tuple((after * sizes) @ before.T for before, after in itertools.pairwise(frames))


def canonical_state(widths: Sequence[int], left: Array, values: Array, right: Array) -> Array:
    """Return the 0-balanced state of the map left · diag(values) · rightᵀ, on units 1..r."""
    frames = canonical_frames(widths, left, right)
    return flat(balanced_layers(frames, values ** (1.0 / (len(widths) - 1))))


def smallest_gap(values: Array) -> float:
    """Return the smallest gap of descending values, relative to the first."""
    if len(values) < 2:
        return np.inf
    return float(np.min(-np.diff(values)) / values[0])


def subset_conflicts(
    squares: Array, rtol: float, most: int = 20
) -> tuple[float, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Return the smallest relative gap of subset sums, and disjoint sets whose sums agree."""
    sums = np.zeros(1)
    for square in squares:  # subset number b holds mode j if bit j of b is set
        sums = np.concatenate([sums, sums + square])
    if len(sums) < 2:
        return np.inf, []
    order = np.argsort(sums, kind="stable")
    gaps = np.diff(sums[order]) / sums.max()
    pairs = set()
    for place in np.flatnonzero(gaps <= rtol)[: 1000 * most]:
        a, b = int(order[place]), int(order[place + 1])
        common = a & b
        pairs.add(tuple(sorted([_bits(a ^ common), _bits(b ^ common)])))
    ordered = sorted(pairs, key=lambda pair: (len(pair[0]) + len(pair[1]), pair))
    return float(gaps.min()), list(itertools.islice(ordered, most))  # type: ignore[arg-type]


def _bits(number: int) -> tuple[int, ...]:
    return tuple(j for j in range(number.bit_length()) if number >> j & 1)
