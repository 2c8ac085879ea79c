"""Leading forms of the loss where the Hessian vanishes, and the directions that follow them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

from dlnds.systems import taylor
from dlnds.systems.protocol import Array

NEWTON_STEPS = 25
#: Components up to which all KKT points are looked for, and up to which second derivatives are
#: taken; in spaces above that only two ascents are made.
FEW_COMPONENTS, SOME_COMPONENTS = 24, 150


class LeadingForm(NamedTuple):
    """The first homogeneous part of −L on the kernel of the Hessian, across the symmetry orbit.

    ``gradient`` is that of the form N, of degree ``order``, at points (…, component) in the
    coordinates of the orthonormal ``basis`` (parameter × component).
    """

    basis: Array
    order: int
    gradient: Callable[[Array], Array]


class EscapePoint(NamedTuple):
    """A KKT point of a form on the unit sphere: ∇N(u) = k N(u) u, with its value N(u) > 0.

    ``dimension`` is that of the cone over the points from which ascent starts there: one, and the
    directions on the sphere in which N does not decrease.
    """

    direction: Array
    value: float
    dimension: int


def leading_form(
    net: Any, x: Array, values: Array, vectors: Array, zero: NDArray[np.bool_]
) -> LeadingForm | None:
    """Return the leading form at a critical point, or None where the loss is constant.

    ``values`` and ``vectors`` are those of the Hessian, ``zero`` tells which are in its kernel. The
    curve x + α v + w(α) has w in the range of the Hessian with no force there; the coefficients of
    w follow one from the other, and N is what is left of the loss (Lyapunov–Schmidt).
    """
    basis = _without_orbit(vectors[:, zero], net.generators(x))
    span, stiffness = vectors[:, ~zero], values[~zero]

    def forces(c: Array, order: int) -> Array:
        """Return the field's coefficients (power, …, component) in the basis, up to α^{order−1}."""
        terms = np.zeros((order, *c.shape[:-1], net.dim))
        terms[0], terms[1] = x, c @ basis.T
        for m in range(2, order):
            force = taylor.field_terms(net, terms[:m], m)[m]
            terms[m] = ((force @ span) / stiffness) @ span.T
        return taylor.field_terms(net, terms, order - 1) @ basis

    if not basis.shape[1]:
        return None
    tries = np.random.default_rng(0).normal(size=(3, basis.shape[1]))
    tries /= np.linalg.norm(tries, axis=1)[:, None]
    found = np.linalg.norm(forces(tries, 2 * net.depth), axis=-1).max(axis=1)
    found[:2] = 0.0
    if not found.any():
        return None
    order = int(np.argmax(found > 1e-9 * found.max())) + 1
    return LeadingForm(basis, order, lambda c: forces(c, order)[order - 1])


def _without_orbit(kernel: Array, generators: Array) -> Array:
    """Return an orthonormal basis of what is in the kernel and orthogonal to the orbit."""
    if not generators.any():
        return kernel
    orbit = scipy.linalg.orth(generators.T)
    left, sizes, _ = np.linalg.svd(kernel - orbit @ (orbit.T @ kernel), full_matrices=False)
    basis: Array = left[:, : int(np.count_nonzero(sizes > 0.5))]
    return basis


def escape_points(form: LeadingForm, sign: float, n_starts: int = 8) -> list[EscapePoint]:
    """Return KKT points of sign · N with positive values, the steepest first, one for each value.

    From random starts, by ascent and Newton's method and, in few components, by that alone,
    which also comes to points that are not maxima. Those of one value are orbits of the symmetries.
    """
    size = form.basis.shape[1]
    starts = np.random.default_rng(0).normal(
        size=(n_starts if size <= SOME_COMPONENTS else 2, size)
    )
    found: list[EscapePoint] = []
    for start in starts / np.linalg.norm(starts, axis=1)[:, None]:
        ends = [_ascent(form, sign, start)]
        if size <= FEW_COMPONENTS:
            ends.append(start)
        for c in ends:
            point = _polished(form, sign, c)
            if point is not None and not any(np.isclose(point[1], p.value, 1e-6) for p in found):
                number = _dimension(form, sign, *point)
                found.append(EscapePoint(form.basis @ point[0], point[1], number))
    return sorted(found, key=lambda p: -p.value)


def _ascent(form: LeadingForm, sign: float, start: Array) -> Array:
    """Return where N is largest on the sphere, as seen from a start."""

    def minus(c: Array) -> tuple[float, Array]:
        """−N(c/‖c‖) and its gradient."""
        size = float(np.linalg.norm(c))
        u = c / size
        gradient = sign * form.gradient(u)
        value = float(gradient @ u) / form.order
        return -value, (form.order * value * u - gradient) / size

    best = scipy.optimize.minimize(minus, start, jac=True, method="CG", options={"gtol": 1e-8})
    end: Array = best.x / np.linalg.norm(best.x)
    return end


def _polished(form: LeadingForm, sign: float, start: Array) -> tuple[Array, float] | None:
    """Return the KKT point near by and its value, if that is positive."""

    def lack(c: Array) -> Array:
        gradient = sign * form.gradient(c)
        return np.append(gradient - (gradient @ c) * c, c @ c - 1.0)

    def slope(c: Array) -> Array:
        gradient, unit = sign * form.gradient(c), np.eye(len(c))
        hessian = sign * _hessian(form, c)
        along = gradient + hessian @ c
        return np.vstack([hessian - np.outer(c, along) - (gradient @ c) * unit, 2.0 * c])

    second = len(start) <= SOME_COMPONENTS
    for _ in range(NEWTON_STEPS if second else 0):  # least norm: KKT points come in orbits
        step = np.linalg.lstsq(slope(start), -lack(start), rcond=1e-9)[0]
        size = float(np.linalg.norm(step))
        start = start + step * min(1.0, 0.5 / max(size, 1e-300))
        if size < 1e-12:
            break
    gradient, allowed = sign * form.gradient(start), 1e-9 if second else 1e-4
    value = float(gradient @ start) / form.order
    if not (value > 0.0 and np.linalg.norm(lack(start)) <= allowed * np.linalg.norm(gradient)):
        return None
    return start, value


def _dimension(form: LeadingForm, sign: float, c: Array, value: float) -> int:
    """Return one plus the number of directions in which N does not decrease on the sphere."""
    if len(c) > SOME_COMPONENTS:
        return 1
    unit, hessian = np.eye(len(c)), sign * _hessian(form, c)
    across = unit - np.outer(c, c)
    curvature = across @ (hessian - form.order * value * unit) @ across
    rising = np.linalg.eigvalsh(curvature) > -1e-5 * form.order * value
    return int(np.count_nonzero(rising))  # the zero of c itself stands for the radius


def _hessian(form: LeadingForm, c: Array) -> Array:
    """Return the second derivatives of N, by differences that are exact up to degree 3."""
    step, unit = 1e-3, np.eye(len(c))
    columns: Array = (form.gradient(c + step * unit) - form.gradient(c - step * unit)) / (2 * step)
    return 0.5 * (columns + columns.T)
