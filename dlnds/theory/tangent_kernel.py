"""The neural tangent kernel of a deep linear network, never formed.

On data X (d_0 × m), with outputs W X taken row by row, K = Σ_i (L_i L_iᵀ) ⊗ (P_{i−1}ᵀ P_{i−1}),
L_i = W_{i+1:h} and P_i = W_{1:i} X (JGH18). What is computed here depends on the data through
C = X Xᵀ and M = Y Xᵀ only, so that a root of C with few columns takes the place of X.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array, Integers
from dlnds.theory import observables
from dlnds.theory.coordinates import transposed
from dlnds.theory.moments import Problem
from dlnds.theory.observables import inner

#: Outputs times inputs up to which all eigenvalues are found, and how many of more.
MOST_EIGENVALUES, FEW_EIGENVALUES = 512, 16


class Term(NamedTuple):
    """(first secondᵀ) ⊗ (before_firstᵀ before_second), of stacks of matrices."""

    first: Array
    second: Array
    before_first: Array
    before_second: Array


class Factors(NamedTuple):
    """L_1, …, L_h and P_0, …, P_{h−1} of a state, or stacks of them, in proportion.

    Those of layers 2^{−e_i} W_i, with L_i times 2^{−e_i} and a power that is the same for all, so
    that no product of them under- or overflows: K is 4^{exponent} times theirs.
    """

    readings: list[Array]
    images: list[Array]
    sizes: Integers
    exponent: Integers

    def terms(self) -> list[Term]:
        """Return K as a sum."""
        return [Term(L, L, P, P) for L, P in zip(self.readings, self.images, strict=True)]


def factors(problem: Problem, layers: Sequence[Array], sizes: Integers | None = None) -> Factors:
    """Return what the kernel of layers, or of stacks of them, is made of.

    ``sizes`` (…, layer) are the e_i, if not those of the layers.
    """
    if sizes is None:
        sizes = _sizes(layers)
    least, each = sizes.min(axis=-1), np.moveaxis(sizes, -1, 0)
    layers = [observables.shifted(w, -e) for w, e in zip(layers, each, strict=True)]
    root = np.eye(problem.widths[0]) if problem.root is None else problem.root
    last = np.eye(problem.widths[-1])
    readings = itertools.accumulate(layers[:0:-1], np.matmul, initial=last)
    images = itertools.accumulate(layers[:-1], lambda done, w: w @ done, initial=root)
    pairs = zip([*readings][::-1], each, strict=True)
    weighted = [observables.shifted(L, least - e) for L, e in pairs]
    return Factors(weighted, [*images], sizes, sizes.sum(axis=-1) - least)


def _sizes(layers: Sequence[Array]) -> Integers:
    """Return the exponents (…, layer) of layers; of one that is zero the least of the others."""
    found = np.stack([observables.exponents(w) for w in layers], axis=-1)
    zero = found == observables.ZERO
    least = np.where(zero, -observables.ZERO, found).min(axis=-1, keepdims=True)
    return np.where(zero, np.where(zero.all(axis=-1, keepdims=True), 0, least), found)


def product(some: Sequence[Term], others: Sequence[Term]) -> Array:
    """Return ⟨K, K'⟩ = Σ ⟨AᵀA', BᵀB'⟩ ⟨P P'ᵀ, Q Q'ᵀ⟩ over pairs of terms A Bᵀ ⊗ PᵀQ."""
    total = np.zeros(())
    for one, other in itertools.product(some, others):
        outer = inner(transposed(one.first) @ other.first, transposed(one.second) @ other.second)
        total = total + outer * inner(
            one.before_first @ transposed(other.before_first),
            one.before_second @ transposed(other.before_second),
        )
    return total


def change(now: Factors, before: Factors) -> list[Term]:
    """Return K − K_0 as a sum of terms that are as small as the change of the layers."""
    terms = []
    for L, L0, P, P0 in zip(now.readings, before.readings, now.images, before.images, strict=True):
        terms += [Term(L - L0, L, P, P), Term(L0, L - L0, P, P)]
        terms += [Term(L0, L0, P - P0, P), Term(L0, L0, P0, P - P0)]
    return terms


def distances(
    problem: Problem, layers: Sequence[Array], first_layers: Sequence[Array]
) -> tuple[Array, Array]:
    """Return 1 − ⟨K, K_0⟩/(‖K‖ ‖K_0‖) and ‖K − K_0‖/‖K_0‖, from the change itself.

    Where the kernel hardly moves both are accurate to rounding of the change, not of the kernel.
    Where it grows by orders of magnitude the change has its size and hides the angle, which is
    that of the two kernels then. NaN where a kernel is zero.
    """
    now, before = factors(problem, layers), factors(problem, first_layers)
    norms = [np.sqrt(product(some.terms(), some.terms())) for some in (now, before)]
    overlap = product(now.terms(), before.terms())
    # The change is that of factors in the same units, those of the larger layers.
    sizes = np.maximum(now.sizes, before.sizes)
    here, there = (factors(problem, some, sizes) for some in (layers, first_layers))
    moved, start = change(here, there), there.terms()
    squared, along = np.maximum(product(moved, moved), 0.0), product(moved, start)
    units = [2 * (some.exponent - here.exponent) for some in (now, before)]
    size, first = (np.ldexp(*pair) for pair in zip(norms, units, strict=True))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        longer = (squared + 2.0 * along) / (size + first)
        angle = np.maximum(squared - longer**2, 0.0) / (2.0 * size * first)
        far = np.maximum(1.0 - overlap / norms[0] / norms[1], 0.0)
        near = np.abs(longer) <= np.minimum(size, first)
        ratio = np.ldexp(np.sqrt(squared) / norms[1], -units[1])
        return np.where(near, angle, far), ratio


def alignment(problem: Problem, now: Factors, targets: float) -> Array:
    """Return ⟨K, y yᵀ⟩/(‖K‖ ‖y‖²), for targets with ‖Y‖² = ``targets``; NaN where K is zero."""
    seen = np.zeros(())
    for L, P in zip(now.readings, now.images, strict=True):
        sent = transposed(L) @ problem.target @ transposed(P)
        seen = seen + inner(sent, sent)
    terms = now.terms()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(seen / (np.sqrt(product(terms, terms)) * targets))


def eigenvalues(now: Factors) -> Array:
    """Return eigenvalues of K, descending: all on outputs and a root of C, or the largest of many.

    With h = 2 and a root that is the identity they are the sums of those of W_2 W_2ᵀ and W_1ᵀ W_1.
    """
    outer = [L @ transposed(L) for L in now.readings]
    before = [transposed(P) @ P for P in now.images]
    rows = np.broadcast_shapes(*(part.shape[:-2] for part in (*outer, *before)))
    n, k = outer[0].shape[-1], before[0].shape[-1]
    outer = [np.broadcast_to(part, (*rows, n, n)) for part in outer]
    before = [np.broadcast_to(part, (*rows, k, k)) for part in before]
    if n * k > MOST_EIGENVALUES:
        places = np.ndindex(rows)
        found = [_largest([A[r] for A in outer], [B[r] for B in before]) for r in places]
        values = np.reshape(found, (*rows, FEW_EIGENVALUES))
        return np.ldexp(values, 2 * now.exponent[..., None])
    matrix = np.zeros((*rows, n * k, n * k))
    for A, B in zip(outer, before, strict=True):
        matrix += np.einsum("...ab,...cd->...acbd", A, B).reshape(matrix.shape)
    return np.ldexp(observables.eigenvalues(matrix), 2 * now.exponent[..., None])


def _largest(outer: list[Array], before: list[Array]) -> Array:
    """Return the largest eigenvalues of Σ A_i ⊗ B_i, descending, from products with it."""
    n, k = len(outer[0]), len(before[0])

    def times(v: Array) -> Array:
        V = v.reshape(n, k)
        total: Array = np.sum([A @ V @ B for A, B in zip(outer, before, strict=True)], axis=0)
        return total.ravel()

    operator = scipy.sparse.linalg.LinearOperator((n * k, n * k), matvec=times, dtype=float)
    start = np.random.default_rng(0).normal(size=n * k)
    found = scipy.sparse.linalg.eigsh(
        operator, FEW_EIGENVALUES, which="LA", v0=start, return_eigenvectors=False
    )
    return np.sort(found)[::-1]
