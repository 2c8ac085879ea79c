"""Derivatives of functions: by differences, and of the field along curves exactly."""

import itertools
from collections.abc import Callable

import numpy as np

from dlnds.arrays import Array
from dlnds.theory.coordinates import layers_of
from dlnds.theory.moments import Problem

#: Relative step of central differences, and their accuracy.
STEP, DIFFERENCED = (float(np.finfo(float).eps) ** power for power in (1.0 / 3.0, 2.0 / 3.0))


def slope(function: Callable[[float], Array], size: float) -> Array:
    """Return the derivative of a function of a number at 0, by a central difference.

    ``size`` is that of what the number is added to.
    """
    step = STEP * max(1.0, size)
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = function(step) - function(-step)
    found /= 2.0 * step
    return found


def matrix(function: Callable[[Array], Array], x: Array) -> Array:
    """Return the derivative (value × component) of a function of a vector, by differences."""
    size = float(np.abs(x).max(initial=0.0))

    def along(unit: Array) -> Array:
        return slope(lambda s: function(x + s * unit), size)

    return np.stack([along(unit) for unit in np.eye(x.size)], axis=1)


def field_terms(problem: Problem, terms: Array, order: int) -> Array:
    """Return the coefficients (0 to ``order``, …, parameter) of the field along Σ_m terms[m] α^m.

    The field is a polynomial of the weights, so they are finite sums of products of the curve's.
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
