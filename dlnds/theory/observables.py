"""What people measure of the layers of a network: of one state, or of stacks (…, row, column)."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlnds.arrays import Array, Flags, Integers
from dlnds.theory import tolerances
from dlnds.theory.coordinates import transposed

#: The exponent that zero is given, below those of all numbers.
ZERO = -(2**20)
#: Singular values that are rounding, in terms of the largest.
_NOISE = 64.0 * float(np.finfo(float).eps)


def inner(A: Array, B: Array) -> Array:
    """Return ⟨A, B⟩ = tr(AᵀB) of matrices, or of each in stacks."""
    return np.asarray(np.sum(A * B, axis=(-2, -1)))


def exponents(matrices: Array) -> Integers:
    """Return the powers of two just above the largest entry of matrices, or of each in stacks."""
    largest = np.abs(matrices).max(axis=(-2, -1))
    return np.where(largest > 0.0, np.frexp(largest)[1], ZERO)


def shifted(matrices: Array, by: Integers) -> Array:
    """Return matrices, or each in stacks, times powers of two: exactly, if in the range."""
    return np.asarray(np.ldexp(matrices, by[..., None, None]))


def scaled(layers: Sequence[Array]) -> list[Array]:
    """Return layers times powers of two, so that products of them neither under- nor overflow."""
    return [shifted(w, -exponents(w)) for w in layers]


def singular_values(matrices: Array) -> Array:
    """Return singular values (…, mode), descending; NaN of matrices that are not finite."""
    return _values(lambda A: np.linalg.svd(A, compute_uv=False), matrices)


def eigenvalues(matrices: Array) -> Array:
    """Return those of symmetric matrices (…, eigen), descending; NaN where they are not finite."""
    return _values(lambda A: np.linalg.eigvalsh(A)[..., ::-1], matrices)


def _values(function: Callable[[Array], Any], matrices: Array) -> Array:
    finite = np.isfinite(matrices).all(axis=(-2, -1))
    found = np.full((*finite.shape, min(matrices.shape[-2:])), np.nan)
    found[finite] = function(matrices[finite])
    return found


def layer_singular_values(layers: Sequence[Array]) -> Array:
    """Return the largest singular values (…, layer, mode) of all layers, as many as W has.

    NaN where a layer has no more.
    """
    modes = min(layers[0].shape[-1], layers[-1].shape[-2])
    return np.stack([_padded(singular_values(w), modes) for w in layers], axis=-2)


def _padded(values: Array, modes: int) -> Array:
    """Return so many values (…, mode), NaN beyond those that there are."""
    found = np.full((*values.shape[:-1], modes), np.nan)
    count = min(modes, values.shape[-1])
    found[..., :count] = values[..., :count]
    return found


def effective_rank(singular_values: Array) -> Array:
    """Return exp(−Σ q ln q) with q = s/Σs of singular values (…, mode); 0 where all are zero."""
    total = singular_values.sum(axis=-1, keepdims=True)
    part = singular_values / np.where(total > 0.0, total, 1.0)
    logs = np.log(np.where(part > 0.0, part, 1.0))
    return np.where(total[..., 0] > 0.0, np.exp(-np.sum(part * logs, axis=-1)), 0.0)


def stable_rank(singular_values: Array) -> Array:
    """Return ‖W‖_F²/s_1² of singular values (…, mode); 0 where all are zero."""
    largest = singular_values.max(axis=-1, keepdims=True)
    part = singular_values / np.where(largest > 0.0, largest, 1.0)
    return np.asarray(np.sum(part**2, axis=-1))


def balance_gap(layers: Sequence[Array]) -> Array:
    """Return the largest ‖C_i‖_F/(‖W_iW_iᵀ‖_F + ‖W_{i+1}ᵀW_{i+1}‖_F) of hidden layers i.

    Between 0 (balanced) and 1; 0 where both layers are zero, and for a single layer.
    """
    largest = np.zeros(layers[0].shape[:-2])
    for pair in itertools.pairwise(layers):
        size = np.maximum(*map(exponents, pair))
        w, after = (shifted(layer, -size) for layer in pair)
        own, other = w @ transposed(w), transposed(after) @ after
        sizes = np.sqrt(inner(own, own)) + np.sqrt(inner(other, other))
        gap = np.sqrt(inner(own - other, own - other)) / np.where(sizes > 0.0, sizes, 1.0)
        largest = np.maximum(largest, gap)
    return largest


def hidden_similarity(layers: Sequence[Array], inputs: Array) -> Array:
    """Return H_iᵀ H_i (…, layer, sample, sample), H_i = W_{1:i} X, of layers i = 1..h (SMG19)."""
    images = itertools.accumulate(layers, lambda done, w: w @ done, initial=inputs)
    return np.stack([transposed(H) @ H for H in itertools.islice(images, 1, None)], axis=-3)


class Side(NamedTuple):
    """Singular values (…, mode) of a matrix, descending, and vectors (…, unit, mode) on a level."""

    values: Array
    vectors: Array

    @property
    def close(self) -> Flags:
        """Whether each mode but the first is too close to the one before to have a vector."""
        s = self.values
        noise = _NOISE * s[..., :1]
        return np.asarray(
            s[..., :-1] - s[..., 1:] <= np.maximum(tolerances.CLOSE * s[..., :-1], noise)
        )

    @property
    def there(self) -> Flags:
        """Whether each mode is more than rounding."""
        return np.asarray(self.values > _NOISE * self.values[..., :1])


def alignment(target: Array, layers: Sequence[Array]) -> Array:
    """Return the overlaps (…, level, mode) of singular vectors on both sides of each level 0..h.

    On hidden level i those of u_j(W_i) with v_j(W_{i+1}); on level 0 those of v_j(W_1), and on
    level h those of u_j(W_h), with the singular vectors of the target, a map (d_h × d_0). Of modes
    whose singular values are close on one of the two sides the subspaces are compared:
    ‖PᵀQ‖_F/√dim. NaN where a side has no such mode.
    """
    left, sigma, right = np.linalg.svd(target, full_matrices=False)
    frames = [np.linalg.svd(w, full_matrices=False) for w in layers]
    before = [Side(sigma, right.T), *(Side(s, U) for U, s, _ in frames)]
    after = [Side(s, transposed(Vt)) for _, s, Vt in frames] + [Side(sigma, left)]
    found = [_padded(_overlaps(*sides), len(sigma)) for sides in zip(before, after, strict=True)]
    return np.stack(found, axis=-2)


def _overlaps(one: Side, other: Side) -> Array:
    """Return ‖PᵀQ‖_F/√dim of the spaces that each mode belongs to on two sides."""
    squares = (transposed(one.vectors) @ other.vectors) ** 2
    rows, m = squares.shape[:-2], min(squares.shape[-2:])
    joined = one.close[..., : m - 1] | other.close[..., : m - 1]
    own, their = (_spaces([joined, side.close[..., m - 1 :]], rows) for side in (one, other))
    mine, theirs = (own[..., :m, None] == numbers[..., None, :] for numbers in (own, their))
    total = np.sum((mine @ squares) * theirs, axis=-1)
    dims = np.minimum(mine.sum(axis=-1), theirs.sum(axis=-1))
    there = one.there[..., :m] & other.there[..., :m]
    return np.where(there, np.sqrt(total / dims), np.nan)


def _spaces(close: Sequence[Flags], rows: tuple[int, ...]) -> Integers:
    """Return the number of the space that each mode belongs to: a new one where none is close."""
    parts = [np.broadcast_to(part, (*rows, part.shape[-1])) for part in close]
    new = ~np.concatenate([np.ones((*rows, 1), bool), *parts], axis=-1)
    return np.cumsum(new, axis=-1)
