"""Ranks of Lie brackets of ∇φ_j for outputs φ_j of a network: exactly, of integers modulo a prime.

Derivatives come from nilpotent numbers, ε_1² = … = ε_m² = 0: the last axis of an array holds the
2^m coefficients of their products, those with the last ε in its second half.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from dlnds.arrays import Integers
from dlnds.theory.coordinates import places_of

#: Words that are evaluated at once.
_BATCH = 256


class Fields(NamedTuple):
    """Vector fields on weights (parameter) modulo a prime: ∇φ_j, and x times factors if there are.

    φ_j is an output of W_h σ(W_{h−1} … σ(W_1 x_j)), σ(z) = (c z)^q with a factor for each unit.
    """

    prime: int
    widths: tuple[int, ...]
    power: int
    #: x_j (field, input).
    inputs: Integers
    #: Which output (field).
    outputs: Integers
    #: c^q of the units of each hidden layer (field, unit).
    slopes: Sequence[Integers]
    #: Factors (parameter) of a last field f ∘ x, or none.
    drift: Integers | None

    @property
    def size(self) -> int:
        """Number of fields."""
        return len(self.outputs) + (self.drift is not None)

    def at(self, chosen: Integers, x: Integers) -> Integers:
        """Return fields (row, parameter, coefficient), a chosen one at each point of a stack."""
        result = np.zeros_like(x)
        drifting = chosen == len(self.outputs)
        if self.drift is not None:
            result[drifting] = x[drifting] * self.drift[:, None] % self.prime
        if not drifting.all():
            result[~drifting] = self._gradients(chosen[~drifting], x[~drifting])
        return result

    def _gradients(self, chosen: Integers, x: Integers) -> Integers:
        weights = self._layers(x)
        signal = np.zeros((len(x), self.widths[-1], x.shape[-1]), np.int64)
        signal[np.arange(len(x)), self.outputs[chosen], 0] = 1
        values = np.zeros((len(x), self.widths[0], x.shape[-1]), np.int64)
        values[..., 0] = self.inputs[chosen]
        before, slopes = [values], []
        for w, factors in zip(weights[:-1], self.slopes, strict=True):
            z = self._times(w, before[-1][:, None]).sum(axis=2) % self.prime
            powers = [factors[chosen, :, None] * _one(z.shape[-1]) % self.prime]
            for _ in range(self.power):
                powers.append(self._times(powers[-1], z))
            slopes.append(self.power * powers[-2] % self.prime)
            before.append(powers[-1])
        parts = []
        for i, w in reversed([*enumerate(weights)]):
            parts.append(self._times(signal[:, :, None], before[i][:, None]))
            if i:
                back = self._times(w, signal[:, :, None]).sum(axis=1) % self.prime
                signal = self._times(slopes[i - 1], back)
        flats = [part.reshape(len(x), -1, x.shape[-1]) for part in reversed(parts)]
        return np.concatenate(flats, axis=1)

    def _layers(self, x: Integers) -> list[Integers]:
        """Return the layers (row, output, input, coefficient) of stacks of points."""
        pairs = zip(places_of(self.widths), itertools.pairwise(self.widths), strict=True)
        return [x[:, place].reshape(len(x), b, a, -1) for place, (a, b) in pairs]

    def _times(self, a: Integers, b: Integers) -> Integers:
        """Return the product of nilpotent numbers."""
        half = a.shape[-1] // 2
        if not half:
            return a * b % self.prime
        (a0, a1), (b0, b1) = ((v[..., :half], v[..., half:]) for v in (a, b))
        mixed = (self._times(a0, b1) + self._times(a1, b0)) % self.prime
        return np.concatenate([self._times(a0, b0), mixed], axis=-1)

    def brackets(self, words: Integers, x: Integers) -> Integers:
        """Return [X_j, [X_k, …]] for words j, k, … (row, letter), with [X, Y] = DY·X − DX·Y."""
        first, half = self.at(words[:, 0], x), x.shape[-1]
        if words.shape[1] == 1:
            return first
        rest = self.brackets(words[:, 1:], x)
        along = self.brackets(words[:, 1:], np.concatenate([x, first], axis=-1))[..., half:]
        back = self.at(words[:, 0], np.concatenate([x, rest], axis=-1))[..., half:]
        return (along - back) % self.prime


def _one(size: int) -> Integers:
    unit = np.zeros(size, np.int64)
    unit[0] = 1
    return unit


def dimensions(fields: Fields, x: Integers, most: int) -> list[int]:
    """Return the dimension of what brackets of up to 1, 2, … fields span at a generic point.

    Where ranks do not change near by, fields that depend on others at x add none by their brackets.
    The last number is the dimension of the Lie algebra there, of which it is known that it is at
    most so large.
    """
    rows, found = _Rows(fields.prime, len(x)), list[int]()
    words = np.arange(fields.size)[:, None]
    letters = words[:, 0]
    while len(words):
        kept = words[_raising(fields, words, x, rows, most)]
        if not len(kept):
            break
        letters = letters if found else kept[:, 0]
        found.append(rows.rank)
        longer = [(j, *word) for word in kept.tolist() for j in letters.tolist()]
        words = np.array(longer, np.int64) if rows.rank < most else words[:0]
    return found or [0]


def _raising(fields: Fields, words: Integers, x: Integers, rows: _Rows, most: int) -> list[int]:
    """Return the places of words whose brackets raise the rank, which they are added to."""
    raising: list[int] = []
    for start in range(0, len(words), _BATCH):
        batch = words[start : start + _BATCH]
        points = np.tile(x[None, :, None], (len(batch), 1, 1))
        added = rows.add(fields.brackets(batch, points)[..., 0])
        raising += [start + k for k in added]
        if rows.rank == most:
            break
    return raising


class _Rows:
    """Independent rows modulo a prime, in echelon form."""

    def __init__(self, prime: int, size: int) -> None:
        self.prime, self.basis = prime, np.zeros((0, size), np.int64)
        self.pivots: list[int] = []

    @property
    def rank(self) -> int:
        """How many they are."""
        return len(self.basis)

    def add(self, rows: Integers) -> list[int]:
        """Add rows, one after the other; return the places of those that raise the rank."""
        raising: list[int] = []
        rows = rows.copy()
        for row, pivot in zip(self.basis, self.pivots, strict=True):
            rows = (rows - rows[:, pivot, None] * row) % self.prime
        for k in range(len(rows)):
            places = np.flatnonzero(rows[k])
            if not places.size:
                continue
            pivot = int(places[0])
            row = rows[k] * pow(int(rows[k, pivot]), -1, self.prime) % self.prime
            self.basis = np.vstack([self.basis, row])
            raising.append(k)
            self.pivots.append(pivot)
            rows[k + 1 :] = (rows[k + 1 :] - rows[k + 1 :, pivot, None] * row) % self.prime
        return raising


def rank(rows: Integers, prime: int) -> int:
    """Return the rank of a matrix modulo a prime."""
    found = _Rows(prime, rows.shape[1])
    found.add(rows % prime)
    return found.rank


def residue(value: float, prime: int) -> int:
    """Return a number, which is a fraction with a power of two below, modulo an odd prime."""
    fraction = Fraction(value)
    return fraction.numerator * pow(fraction.denominator, -1, prime) % prime
