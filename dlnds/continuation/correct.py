"""One solution on a branch of F(x, p) = 0 modulo symmetry: scales, correction, tangent, spectrum.

A point z = (x, p) is one vector (component, and p last). Lengths and angles are those of z divided
by its scale: a typical size of x, and half of the range of p.
"""

import bisect
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from dlnds._kernels import bordered as kernels
from dlnds._kernels import jit
from dlnds.arrays import Array, Integers
from dlnds.continuation.bordered import (
    CLEAR,
    SINGULAR,
    Factors,
    assembled,
    mean_size,
    orthonormal,
    transverse_values,
    values_by_rows,
)
from dlnds.continuation.parts import Matrix, decomposed, entries, parts_of, span, thinned, whole
from dlnds.continuation.residuals import (
    Residual,
    force_of,
    generators_of,
    jacobian_of,
    slope_of,
)
from dlnds.theory import forms, tolerances

#: Newton steps at most, and how many times smaller one has to be for its factors to serve again.
MOST_ITERATIONS, CONTRACTION = 14, 0.1
#: Rounding of a number, with room for that of what it was computed from.
EPSILON = 8.0 * float(np.finfo(float).eps)
#: Derivatives, in terms of their usual size, that are not small because all of them vanish.
LEAST_SIZE = 0.1
#: A function of x and p whose zeros are located.
Event = Callable[[Array, float], float]


class Point(NamedTuple):
    """A solution, with what is known of the branch there."""

    #: x and p.
    z: Array
    #: Unit tangent (component, and p last), orthogonal to the orbit.
    tangent: Array
    #: The same of unit length in scaled coordinates, and in these.
    heading: Array
    #: Orthonormal basis (component × generator) of the orbit's tangent space.
    basis: Matrix
    #: Eigenvalues of the Jacobian across the orbit, by ascending growth, in terms of their rates.
    #: Of a symmetric one that is large and one part, those not nearest to 0 are replaced by ∓ the
    #: largest of these.
    values: Array
    #: How fast each of them grows: unstable if positive.
    growth: Array
    #: Largest modulus of an eigenvalue, and growth that is zero to rounding.
    radius: float
    zone: float
    residual: float
    #: Number of eigenvalues that grow, the index, and of those that are zero, as are those on a
    #: continuum of solutions.
    n_growing: int = 0
    n_zeros: int = 0
    multiplier: float = 0.0
    iterations: int = 0
    #: How many times smaller the second Newton step was than the first.
    contraction: float = 0.0
    #: Distance to what was predicted, in scaled coordinates.
    moved: float = 0.0
    #: How large the rows of F are that each eigenvalue belongs to, ones where all are alike.
    rates: Array | float = 1.0
    #: Sign of the determinant of [∂F/∂x, ∂F/∂p; heading], 0 if that is singular to rounding, and
    #: the logarithm of its size.
    orientation: float = 0.0
    volume: float = 0.0

    @property
    def x(self) -> Array:
        """The solution."""
        return self.z[:-1]

    @property
    def p(self) -> float:
        """Its parameter."""
        return float(self.z[-1])


class Problem(NamedTuple):
    """What all steps of one branch share."""

    residual: Residual
    bounds: tuple[float, float]
    rtol: float
    #: Typical size of each component of x, and of p.
    scale: Array
    #: Usual size of the derivatives of F by x and p, each in their units, at the start.
    size: float = 0.0
    #: What each row of F is divided by, 1 for the smallest one; None where rows are alike.
    rows: Array | None = None
    #: How many eigenvalues are needed, those nearest to zero.
    n_eigenvalues: int = 6
    #: Functions of x and p whose zeros are located.
    events: tuple[Event, ...] = ()
    #: Dimension of the kernel that is taken out without generators, or −1 if they are declared.
    nullity: int = -1
    #: Of an equation that is made from another one: the eigenvalues of that one, from x, p and the
    #: basis of the orbit, and events by kind, in place of folds.
    spectrum: Callable[[Array, float, Array], Array] | None = None
    kinds: tuple[tuple[str, Event], ...] = ()
    #: Makes the problem of the step that starts at a point; all steps share one without it.
    renewed: Callable[[Point], "Problem"] | None = None
    #: Turns states (step × component) back to the coordinates of the caller, if these are others.
    lift: Callable[[Array], Array] | None = None

    @property
    def unit(self) -> float:
        """Typical size of x."""
        return float(self.scale[0])

    def value(self, z: Array) -> Array:
        """Return F, in terms of its rows."""
        return self.force(z[:-1], float(z[-1]))

    def force(self, x: Array, p: float) -> Array:
        """Return F at a state and a parameter, in terms of its rows."""
        return self._in_rows(force_of(self.residual, x, p))

    def matrix(self, z: Array) -> Array:
        """Return ∂F/∂x (component × component), in terms of the rows of F."""
        return whole(self.thin_matrix(z))

    def thin_matrix(self, z: Array) -> Matrix:
        """Return the same, only its entries if it is large and most of them are zero."""
        x, p = z[:-1], float(z[-1])
        if self.residual.jacobian is not None:
            found = thinned(jacobian_of(self.residual.jacobian, x, p))
            return found if self.rows is None else self._in_rows(whole(found))
        force = functools.partial(force_of, self.residual)
        return self._in_rows(forms.derivative(lambda y: force(y, p), x, self.unit))

    def slope(self, z: Array) -> Array:
        """Return ∂F/∂p (component), by differences within the bounds if it is not known."""
        x, p = z[:-1], float(z[-1])
        if self.residual.derivative is not None:
            return self._in_rows(slope_of(self.residual.derivative, x, p))
        unit = float(self.scale[-1])
        return self._in_rows(
            forms.difference_within(lambda s: force_of(self.residual, x, s), p, unit, self.bounds)
        )

    def _in_rows(self, values: Array) -> Array:
        return values if self.rows is None else (values.T / self.rows).T

    def given(self, values: Array) -> Array:
        """Return F, or derivatives of it, as the equation has them: eigenvalues are of these."""
        return values if self.rows is None else (values.T * self.rows).T

    def distance(self, one: Array, other: Array) -> float:
        """Return the distance of two points in scaled coordinates."""
        apart = (one - other) / self.scale
        return math.sqrt(apart @ apart)


def growth_of(residual: Residual, values: Array) -> Array:
    """Return how fast eigenvalues ν of ∂F/∂x grow, positive if they are unstable.

    Re ν of a flow, (|1 + ν|² − 1)/2 of a map.
    """
    growth = np.asarray(values.real, float)
    return growth + 0.5 * np.abs(values) ** 2 if residual.kind == "map" else growth


def declared_basis(residual: Residual, x: Array, p: float, unit: float) -> Matrix:
    """Return an orthonormal basis of the tangent space of the declared orbit.

    Generators that are small as compared with a unit of length count as zero.
    """
    rows = thinned(generators_of(residual, x, p))
    if not entries(rows).any():
        return np.zeros((x.size, 0))
    basis = orthonormal(rows, unit) if type(rows) is np.ndarray else None
    return span(rows, tolerances.RANK, unit) if basis is None else basis


def located_orbit(problem: Problem, point: Point) -> Matrix:
    """Return an orthonormal basis of the orbit's tangent space, without what is lost at a point.

    What is nearly zero counts so: a special point is located to that only.
    """
    if problem.nullity >= 0:
        return point.basis
    rows = generators_of(problem.residual, point.x, point.p)
    return span(rows, tolerances.KERNEL, problem.unit)


def orbit_basis(problem: Problem, z: Array, normal: Array) -> Matrix:
    """Return an orthonormal basis of the directions in which solutions are not isolated."""
    n = z.size - 1
    if not problem.nullity or (problem.nullity < 0 and problem.residual.generators is None):
        return np.empty((n, 0))
    if problem.nullity < 0:
        return declared_basis(problem.residual, z[:n], float(z[n]), problem.unit)
    wide = np.column_stack([problem.matrix(z), problem.slope(z)]) * problem.scale
    kernel = np.asarray(np.linalg.svd(wide)[2][-problem.nullity - 1 :], float)
    along = kernel.T @ (kernel @ normal)
    rest = kernel - np.outer(kernel @ along, along) / float(along @ along)
    return np.ascontiguousarray(np.linalg.svd(rest)[2][: problem.nullity, :-1].T)


class Bordered(NamedTuple):
    """[J − w B Bᵀ, ∂F/∂p; normal] at a point, in scaled coordinates, with factors."""

    factors: Factors
    #: What values of F are divided by.
    unit: float
    #: How stiff the orbit is held.
    weight: float
    jacobian: Matrix


def usual_size(problem: Problem, jacobian: Matrix, slope: Array) -> float:
    """Return the root mean square of what a unit of x, and one of p, changes; 1 if it is 0."""
    ratio = float(problem.scale[-1]) / problem.unit
    size = mean_size(jacobian, slope, ratio)
    return size if 0.0 < size < math.inf else 1.0


def bordered(problem: Problem, z: Array, basis: Matrix, normal: Array) -> Bordered | None:
    """Return the matrix of Newton's method across a normal and the orbit, None if not finite.

    In place of multipliers on the orbit the pin −w B Bᵀ is added, which has the same solutions: the
    values of F are across the orbit, so that both they and w Bᵀ(x − start) vanish.
    """
    jacobian, ratio = problem.thin_matrix(z), float(problem.scale[-1]) / problem.unit
    factors, weight = assembled(jacobian, problem.slope(z), normal, basis, ratio)
    return None if factors is None else Bordered(factors, weight * problem.unit, weight, jacobian)


class Solution(NamedTuple):
    """What Newton's method came to."""

    z: Array
    #: Multipliers on the orbit, zero where the symmetry is one.
    multiplier: float
    iterations: int
    contraction: float
    moved: float


def corrected(problem: Problem, start: Array, normal: Array) -> Solution | None:
    """Return the solution in the plane through a prediction, orthogonal to a normal and the orbit.

    Lengths are scaled, the normal is a unit vector. None if Newton's method does not contract, or
    leaves the bounds, and for a prediction that overflows.
    """
    z, last, contraction = start.copy(), math.inf, 0.0
    if not math.isfinite(start.sum()):
        return None
    held_within(z, problem.bounds)
    basis = orbit_basis(problem, z, normal)
    system, fresh = bordered(problem, z, basis, normal), True
    kernel: Any = jit.ready(kernels.advance, kernels.ADVANCE)
    plane = normal, start, problem.scale
    for iteration in range(1, MOST_ITERATIONS + 1):
        if system is None:
            return None
        factors, before, z = system.factors, z, np.empty_like(start)
        force, unit = problem.value(before), system.unit
        if factors.parts:
            length = _advance(factors, force, unit, basis, *plane, before, z)
        else:
            own = force, unit, whole(basis)
            length = kernel(factors.factors, factors.pivots, *own, *plane, before, z)
        if not math.isfinite(length):
            return None
        inside = held_within(z, problem.bounds)
        contraction = length / last if iteration == 2 else contraction
        rounding = fresh and length <= 1e3 * problem.rtol and length > 0.5 * last
        if inside and (length <= problem.rtol or rounding):
            drift = basis.T @ (z - start)[:-1]
            multiplier = system.weight * float(np.abs(drift).max(initial=0.0))
            moved = problem.distance(z, start)
            return Solution(z, multiplier, iteration, contraction, moved)
        if length > 0.9 * last and iteration > 2:
            return None
        fresh = iteration > 1 and length > CONTRACTION * last
        if fresh:
            system = bordered(problem, z, basis, normal)
        last = length
    return None


def _advance(
    factors: Factors,
    force: Array,
    unit: float,
    basis: Matrix,
    normal: Array,
    start: Array,
    scale: Array,
    z: Array,
    out: Array,
) -> float:
    """Make a step of Newton's method part by part, and return its length, as the kernel does."""
    lack = (z - start) / scale
    right = joined(force / unit, float(normal @ lack))
    right[:-1] -= basis @ (basis.T @ lack[:-1])
    step = factors.solve(right)
    out[:] = z - scale * step
    return float(np.linalg.norm(step) / (1.0 + np.linalg.norm(start / scale)))


def held_within(z: Array, bounds: tuple[float, float], beyond: float = 0.0) -> bool:
    """Put p within bounds, beyond which F need not be defined; tell if it was but for rounding.

    Or but for what it may be beyond them. What is at a bound but for rounding is put on it.
    """
    p, (low, high) = float(z[-1]), bounds
    nearest = min(max(p, low), high)
    inside = abs(p - nearest) <= max(beyond, EPSILON * max(abs(low), abs(high)))
    for bound in bounds:
        if abs(nearest - bound) <= 0.1 * EPSILON * (high - low):
            nearest = bound
    z[-1] = nearest
    return bool(inside)


def described(problem: Problem, z: Array, normal: Array) -> Point | None:
    """Return a solution with its tangent, on the side of a normal, and its spectrum."""
    basis = orbit_basis(problem, z, normal)
    system = bordered(problem, z, basis, normal)
    if system is None:
        return None
    tangent, heading, length, stretch = _leading(problem, system, basis)
    if not 0.0 < length < math.inf:
        return None
    if problem.nullity > 0:  # where it is not declared, the orbit is what is across the tangent
        basis = orbit_basis(problem, z, heading)
    point = placed(problem, z, tangent, basis, system.jacobian)
    return _oriented(problem, point, system, math.log(stretch))


def _oriented(
    problem: Problem, point: Point, system: Bordered | None, stretch: float = 0.0
) -> Point:
    """Return a point with the determinant of its system, whose last row may be shorter."""
    if system is None:
        return point
    sign, volume = system.factors.sign, system.factors.volume
    if not system.factors.is_regular(SINGULAR * problem.size / system.weight):
        sign = 0.0
    volume += stretch + len(point.x) * math.log(system.weight)
    return point._replace(orientation=sign, volume=volume)


def _leading(
    problem: Problem, system: Bordered, basis: Matrix
) -> tuple[Array, Array, float, float]:
    """Return the unit tangent, the same in scaled coordinates, and the lengths of both before."""
    heading = system.factors.solve(upwards_of(problem.scale))
    if basis.size:
        heading[:-1] -= basis @ (basis.T @ heading[:-1])
    tangent, stretch = heading * problem.scale, math.sqrt(heading @ heading)
    length = math.sqrt(tangent @ tangent)
    return tangent / length, heading / stretch, length, stretch


def placed(problem: Problem, z: Array, tangent: Array, basis: Matrix, jacobian: Matrix) -> Point:
    """Return a solution with a known tangent and Jacobian."""
    residual, ahead = problem.residual, tangent / problem.scale
    rates: Array | float = 1.0
    if problem.spectrum is not None:
        values = problem.spectrum(z[:-1], float(z[-1]), basis)
    elif problem.rows is not None:
        rows, dimension = problem.rows, basis.shape[1]
        values, rates = values_by_rows(problem.given(whole(jacobian)), rows, dimension)
    else:
        values = transverse_values(residual, jacobian, basis, problem.n_eigenvalues)
    growth = growth_of(residual, values)
    if problem.rows is not None:
        values, growth = values / rates, growth / rates
    if residual.kind == "map" or problem.rows is not None:
        order = np.argsort(growth, kind="stable")
        values, growth = values[order], growth[order]
        rates = rates[order] if isinstance(rates, np.ndarray) else rates
    force = problem.given(problem.value(z))
    radius = float(np.maximum.reduce(np.abs(values), initial=0.0))
    zone = tolerances.EIGENVALUE * radius + tolerances.ROUNDING * problem.size
    small, large = bisect.bisect_left(growth, -zone), bisect.bisect_right(growth, zone)
    return Point(
        *(z, tangent, ahead / math.sqrt(ahead @ ahead), basis, values, growth),
        radius=radius,
        zone=zone,
        residual=math.sqrt(force @ force),
        n_growing=len(growth) - large,
        n_zeros=large - small,
        rates=rates,
    )


def solved(
    problem: Problem, start: Array, normal: Array, heading: Array | None = None
) -> Point | None:
    """Return the solution near a prediction with its tangent and spectrum, or None.

    The tangent is on the side of the normal, or of a heading.
    """
    found = corrected(problem, start, normal)
    side = normal if heading is None else heading
    point = None if found is None else described(problem, found.z, side)
    if found is None or point is None:
        return None
    return point._replace(
        multiplier=found.multiplier,
        iterations=found.iterations,
        contraction=found.contraction,
        moved=found.moved,
    )


def stored(problem: Problem, x: Array, p: float, tangent: Array) -> Point:
    """Return a point that was found before, as it was, with its spectrum."""
    z = joined(x, p)
    basis = orbit_basis(problem, z, unit_length(tangent / problem.scale))
    point = placed(problem, z, tangent, basis, problem.thin_matrix(z))
    return _oriented(problem, point, bordered(problem, z, basis, point.heading))


def between(problem: Problem, here: Point, there: Point, part: float) -> Point | None:
    """Return the point at a part of the way between two, across the cubic curve through them."""
    start, normal = course(problem, here, there, part)
    return solved(problem, start, normal)


def course(problem: Problem, here: Point, there: Point, part: float) -> tuple[Array, Array]:
    """Return z and the unit tangent of the cubic curve through two points along their tangents."""
    z, tangent = np.empty_like(here.z), np.empty_like(here.z)
    ends = here.z, here.heading, there.z, there.heading
    curve: Any = jit.ready(kernels.course, kernels.COURSE)
    curve(*ends, problem.scale, part, z, tangent)
    return z, tangent


def null_directions(problem: Problem, z: Array, normal: Array, tolerance: float = 0.0) -> Array:
    """Return the null directions (direction, component and p) of the equation across the orbit.

    Orthonormal in scaled coordinates. Singular values up to ``tolerance``, in terms of the root
    mean square of all, are zero. Where the equation is clearly regular across a normal there is one
    direction, and no need to look for others.
    """
    basis, zero = orbit_basis(problem, z, normal), max(1e3 * tolerances.RANK, tolerance)
    system = bordered(problem, z, basis, normal)
    regular = system is not None and system.weight >= LEAST_SIZE * problem.size
    if system and regular and zero <= 1e-2 * CLEAR and system.factors.condition > CLEAR:
        return _leading(problem, system, basis)[1][None]
    matrix, slope, size = scaled_derivatives(problem, z)
    parts = parts_of(matrix, basis, slope != 0.0) if problem.residual.symmetric else None
    if parts is not None:
        return _null_vectors(decomposed(parts, matrix, basis, size, slope), zero * size)
    across = np.column_stack([size * whole(basis).T, np.zeros(basis.shape[1])])
    rows = np.column_stack([whole(matrix), slope])
    _, sizes, frame = np.linalg.svd(np.vstack([rows, across]))
    rank = int((sizes > zero * size).sum())
    return frame[min(rank, z.size - 1) :]


def _null_vectors(
    found: Iterable[tuple[Integers, tuple[Array, Array, Array]]], zero: float
) -> Array:
    """Return what singular value decompositions of parts leave, the last of which moves."""
    n, vectors = 0, []
    for places, (_, sizes, frames) in found:
        n = max(n, int(places.max()) + 1)
        lost = np.ones(frames.shape[:2], bool)
        lost[:, : sizes.shape[1]] = sizes <= zero
        vectors += [(places[k], frames[k, j]) for k, j in zip(*np.nonzero(lost), strict=True)]
    nulls = np.zeros((len(vectors), n))
    for row, (places, vector) in zip(nulls, vectors, strict=True):
        row[places] = vector
    return nulls


def scaled_derivatives(problem: Problem, z: Array) -> tuple[Matrix, Array, float]:
    """Return ∂F/∂x and ∂F/∂p in scaled coordinates, and their size that is not zero."""
    ratio = float(problem.scale[-1]) / problem.unit
    matrix, slope = problem.thin_matrix(z), ratio * problem.slope(z)
    size = mean_size(matrix, slope, 1.0)
    return matrix, slope, max(size, LEAST_SIZE * problem.size, 1e-300)


def upwards_of(z: Array) -> Array:
    """Return the direction of p."""
    ahead = np.zeros(z.size)
    ahead[-1] = 1.0
    return ahead


def unit_length(v: Array) -> Array:
    """Return v / ‖v‖, for short vectors several times as fast as numpy's norm."""
    return v / math.sqrt(v @ v)


def joined(x: Array, p: float) -> Array:
    """Return a state and a number as one vector."""
    z = np.empty(len(x) + 1)
    z[:-1], z[-1] = x, p
    return z


def turned(point: Point) -> Point:
    """Return a point of the same branch in the other direction."""
    ahead = -point.tangent, -point.heading, -point.orientation
    return point._replace(tangent=ahead[0], heading=ahead[1], orientation=ahead[2])
