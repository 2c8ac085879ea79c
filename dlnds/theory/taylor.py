"""Taylor coefficients of the field along curves through a state, exactly.

The field is a polynomial of the weights, so that the coefficients of its value along a polynomial
curve are finite sums of products of the curve's: no differences are taken.
"""

import itertools

import numpy as np

from dlnds.arrays import Array
from dlnds.theory.coordinates import layers_of
from dlnds.theory.moments import Problem


def field_terms(problem: Problem, terms: Array, order: int) -> Array:
    """Return the coefficients (0 to ``order``, …, parameter) of the field along Σ_m terms[m] α^m.

    ``terms`` (m, …, parameter) are those of one curve, or of a stack of them.
    """
    curve = np.zeros((order + 1, *terms.shape[1:]))
    curve[: len(terms)] = terms[: order + 1]
    layers = layers_of(problem.widths, curve)
    first = problem.image(layers[0])
    images = list(itertools.accumulate(layers[1:], lambda p, w: _product(w, p), initial=first))
    signal = -images[-1]
    signal[0] += problem.target
    parts = []
    for i in range(problem.depth - 1, 0, -1):
        parts.append(_product(signal, np.swapaxes(images[i - 1], -1, -2)))
        signal = _product(np.swapaxes(layers[i], -1, -2), signal)
    parts.append(signal if problem.root is None else signal @ problem.root.T)
    flats = [part.reshape(*part.shape[:-2], -1) for part in parts[::-1]]
    return np.concatenate(flats, axis=-1)


def _product(a: Array, b: Array) -> Array:
    """Return the coefficients of a product of two polynomials of matrices, up to the same order."""
    out = np.zeros((*a.shape[:-1], b.shape[-1]))
    for m in range(len(a)):
        out[m:] += a[m] @ b[: len(b) - m]
    return out
