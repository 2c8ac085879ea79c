"""Curves of folds and of branch points in two parameters, by minimally augmented equations."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array
from dlnds.continuation.bordered import factorized, transverse_values
from dlnds.continuation.branches import (
    DIRECTIONS,
    Row,
    as_dataset,
    check_course,
    check_room,
    followed,
    start_of,
)
from dlnds.continuation.correct import Course, Event, Point, Problem, declared_basis
from dlnds.continuation.residuals import Residual
from dlnds.errors import (
    ConvergenceError,
    check_choice,
    check_function,
    check_number,
    known_options,
)
from dlnds.theory import tolerances

#: A function of x, p and q whose zeros are located.
CurveEvent = Callable[[Array, float, float], float]
#: An equation in p for each value of q.
Family = Callable[[float], Residual | Callable[[Array, float], Array]]

#: Relative steps of differences of fourth order, whose error is that of rounding.
_STEP = float(np.finfo(float).eps) ** 0.2


@known_options
def fold_curve(
    family: Family,
    point: xr.Dataset,
    q0: float,
    *,
    bounds: tuple[float, float],
    step: float = 0.05,
    step_min: float = 1e-7,
    step_max: float = 0.5,
    direction: str = "both",
    events: Sequence[CurveEvent] = (),
    parameter: str = "q",
    max_points: int = 1000,
    rtol: float = 1e-12,
    n_eigenvalues: int = 6,
    progress: bool = False,
) -> xr.Dataset:
    """Return the curve of folds of F(x, p, q) = 0 through a given one, modulo symmetry.

    Parameters
    ----------
    family
        Function of q that returns the equation in p: a `Residual`, what `equilibria` makes, or a
        function ``fun(x, p)``, for example ``lambda q: dl.equilibria(network(q), "weight_decay")``.
        Differences are taken between the bounds only.
    point
        A fold at ``q0``: one row of ``special_points(branch)``, or of such a curve.
    q0
        The second parameter of the branch that the fold is on.
    bounds
        Smallest and largest q; a curve that leaves them ends there.
    step, step_min, step_max
        Distance between points, in (x, p, q): the first one, and its limits.
    direction
        ``"up"`` or ``"down"`` in q from the start, or ``"both"``.
    events
        Functions of x, p and q whose zeros are located too.
    parameter
        Name of q.
    max_points, rtol, n_eigenvalues, progress
        As for `branch`.

    Returns
    -------
    xarray.Dataset
        Schema ``branch``, as `branch` returns it, with two variables more: ``q(step)`` and
        ``tangent_q``. The unit tangent is in (x, p, q); ``residual`` is that of F and of the
        condition of a fold; eigenvalues, ``index`` and ``kernel_dimension`` are those of ∂F/∂x.
        Located points have ``event`` set: ``cusp``, where two curves of folds end in each other;
        ``branch_point``, where the curve turns in q: at that q two branches in p cross, or a closed
        one shrinks to a point; ``index_change`` and ``hopf``, where another eigenvalue or a pair of
        them crosses zero; and ``user``. The attributes are those of ``family(q0)``.

    Raises
    ------
    ConvergenceError
        If Newton's method finds no fold at ``q0`` from the point.
    ValueError, TypeError
        If the Jacobian at the point has no kernel, or one of more than one dimension, across the
        orbit; if the point is a branch point that symmetry keeps for all q, such as a pitchfork; or
        if an argument is outside what is described above.

    Notes
    -----
    The curve is a branch of F = 0, g = 0 for (x, p) with the parameter q. The number g(x, p, q) and
    null vectors v and w solve [J B b; Bᵀ 0 0; cᵀ 0 0] (v, μ, g) = (0, 0, 1), and the transposed
    system for w, with J = ∂F/∂x, B an orthonormal basis of the orbit, and borders b and c, the null
    vectors where a step starts. A solution has g = 0 exactly if J is singular across the orbit,
    whatever the borders are. Derivatives, ∂g = −wᵀ ∂J v, are differences of fourth order of J along
    v, p and q. Newton's method needs them, but solutions do not depend on them: folds are as exact
    as F and J are. At cusps wᵀ ∂²F/∂x² v v = 0, a difference as well, of an accuracy of 1e-12 if J
    is a formula and 1e-7 if it is differenced; p and q depend on it in second order only. At branch
    points wᵀ ∂F/∂p = 0.

    Examples
    --------
    >>> import dlnds as dl
    >>> family = lambda q: lambda x, p: p + q * x - x**3
    >>> folds = dl.special_points(dl.branch(family(3.0), [-2.0], -2.0, bounds=(-3.0, 3.0)))
    >>> curve = dl.fold_curve(family, folds.isel(step=0), 3.0, bounds=(-1.0, 4.0))
    >>> dl.schema.decode(dl.special_points(curve).event).values.tolist()
    ['cusp']
    >>> bool(abs(27 * curve.p**2 - 4 * curve.q**3).max() < 1e-9)
    True
    """
    course = check_course(
        bounds, step, step_min, step_max, max_points, rtol, n_eigenvalues, events, progress
    )
    return _followed(_Folds, family, point, q0, course, direction, parameter)


@known_options
def branch_point_curve(
    family: Family,
    point: xr.Dataset,
    q0: float,
    *,
    bounds: tuple[float, float],
    step: float = 0.05,
    step_min: float = 1e-7,
    step_max: float = 0.5,
    direction: str = "both",
    events: Sequence[CurveEvent] = (),
    parameter: str = "q",
    max_points: int = 1000,
    rtol: float = 1e-12,
    n_eigenvalues: int = 6,
    progress: bool = False,
) -> xr.Dataset:
    """Return the curve of branch points of F(x, p, q) = 0 through a given one, modulo symmetry.

    Parameters
    ----------
    family
        As for `fold_curve`; branches have to cross at each q, as they do at pitchforks of a
        symmetry or at transcritical points on a solution that is there for all p and q.
    point
        A branch point at ``q0`` with a kernel of dimension 1 across the orbit: one row of
        ``special_points(branch)``, or of such a curve.
    q0, bounds, step, step_min, step_max, direction, events, parameter
        As for `fold_curve`.
    max_points, rtol, n_eigenvalues, progress
        As for `branch`.

    Returns
    -------
    xarray.Dataset
        Schema ``branch``, as `fold_curve` returns it, with ``unfolding(step)``, the ε of the notes,
        zero up to rounding. The unit tangent is in (x, p, ε, q). Located are other eigenvalues that
        cross zero, as ``index_change`` and ``hopf``, and ``user``.

    Raises
    ------
    ConvergenceError
        If Newton's method finds no branch point at ``q0`` from the point.
    ValueError, TypeError
        If the family does not keep the branch point, the point is none or has a kernel of more than
        one dimension, or an argument is outside what is described above.

    Notes
    -----
    The curve is a branch of F + ε b = 0, g = 0, wᵀ ∂F/∂p = 0 for (x, p, ε) with the parameter q,
    with g, w and b of `fold_curve`. Branch points of one parameter are not stable: ε is what has to
    be added so that there is one, and a family in which it does not vanish is refused.

    Examples
    --------
    >>> import dlnds as dl
    >>> family = lambda q: lambda x, p: (p - q**2) * x - x**3
    >>> points = dl.special_points(dl.branch(family(1.0), [0.0], 0.0, bounds=(-1.0, 2.0)))
    >>> curve = dl.branch_point_curve(family, points, 1.0, bounds=(-1.0, 1.0))
    >>> bool(abs(curve.p - curve.q**2).max() < 1e-9)
    True
    """
    course = check_course(
        bounds, step, step_min, step_max, max_points, rtol, n_eigenvalues, events, progress
    )
    return _followed(_Crossings, family, point, q0, course, direction, parameter)


def _followed(
    kind: Callable[["_Borders"], "_Folds"],
    family: Any,
    point: Any,
    q0: float,
    course: Course,
    direction: str,
    parameter: str,
) -> xr.Dataset:
    """Return the curve of points of one kind."""
    at = _checked(family)
    x, p = _place(point)
    q = check_number("q0", q0, minimum=course.bounds[0], maximum=course.bounds[1])
    direction = check_choice("direction", direction, DIRECTIONS)
    check_room(course, x.size)
    borders = _borders_at(at, x, p, q, course)
    equations = kind(borders)
    problem = _problem(equations, at(q), course, parameter)
    problem, first = _started(equations, problem, equations.start(x, p), q)
    rows, stops = followed(problem, first, direction)
    fewer = course._replace(n_eigenvalues=min(course.n_eigenvalues, x.size))
    whole = [row._replace(point=borders.with_all_values(row.point)) for row in rows]
    return _labelled(as_dataset(problem._replace(course=fewer), whole, stops), at(q), rows, x.size)


def _started(equations: "_Folds", problem: Problem, y: Array, q: float) -> tuple[Problem, Point]:
    """Return the point at q0 with a tangent, or say what is wrong with it."""
    try:
        return start_of(problem, y, q, False)
    except ConvergenceError:
        raise ConvergenceError(
            f"point: Newton's method finds no {equations.kind} from it at "
            f"{problem.residual.parameter} = {q:g}; check q0, and that the family has the equation "
            "of the branch there"
        ) from None
    except ValueError as error:
        if not str(error).startswith("residual: at the start"):
            raise
        raise ValueError(
            f"point: needs a {equations.kind} that moves with q; its equations are singular here, "
            f"{equations.singular}"
        ) from None


def _checked(family: Any) -> Callable[[float], Residual]:
    """Return a family whose equations are looked at, and made once for each q in use."""
    check_function("family", family, "q")

    @functools.lru_cache(maxsize=8)
    def at(q: float) -> Residual:
        found = family(q)
        if not callable(found) and not isinstance(found, Residual):
            raise TypeError(f"family: needs to return a Residual, got {found!r} at {q}")
        return found if isinstance(found, Residual) else Residual(found)

    return at


def _place(point: Any) -> tuple[Array, float]:
    """Return x and p of one row of a branch."""
    if isinstance(point, xr.Dataset) and "step" in point.dims:
        if point.sizes["step"] != 1:
            count = point.sizes["step"]
            raise ValueError(f"point: needs one row, as of .isel(step=0), got {count}")
        point = point.isel(step=0)
    row = schema.read("point", point, "branch", {"state": ("parameter",), "p": ()})
    return np.array(row["state"].values, float), float(row["p"])


@dataclass(frozen=True, eq=False)
class _Borders:
    """The Jacobian J at y = (x, p, …) and q, bordered by fixed vectors."""

    at: Callable[[float], Residual]
    bounds: tuple[float, float]
    unit: float
    left: Array
    right: Array

    def split(self, y: Array) -> tuple[Array, float]:
        """Return x and p."""
        return y[: self.left.size], float(y[self.left.size])

    def whole(self, y: Array, q: float) -> Array:
        """Return [J B b; Bᵀ 0 0; cᵀ 0 0]."""
        residual, (x, p) = self.at(q), self.split(y)
        basis = declared_basis(residual, x, p, self.unit)
        n, g = basis.shape
        matrix = np.zeros((n + g + 1, n + g + 1))
        matrix[:n, :n] = residual.matrix(x, p)
        matrix[:n, n:-1], matrix[n:-1, :n] = basis, basis.T
        matrix[:n, -1], matrix[-1, :n] = self.left, self.right
        return matrix

    def null_vectors(self, y: Array, q: float) -> tuple[Array, Array, float]:
        """Return v, w and g, of which v and w are null vectors of J where g vanishes."""
        n, factors = self.left.size, factorized(self.whole(y, q))
        if factors is None:  # J is not finite: Newton's method gives up for this g
            return self.right, self.left, float("nan")
        last = np.eye(len(factors.matrix))[-1]
        ahead, back = factors.solve(last), factors.solve(last, transposed=True)
        return ahead[:n], back[:n], float(ahead[-1])

    def bend(self, y: Array, q: float, v: Array) -> Array:
        """Return the derivative of J along v."""
        residual, (x, p) = self.at(q), self.split(y)
        unit = max(1.0, float(np.abs(x).max())) / (float(np.linalg.norm(v)) or 1.0)
        return _slope(lambda s: residual.matrix(x + s * unit * v, p), 0.0) / unit

    def generators(self, y: Array, q: float) -> Array:
        """Return the tangent vectors of the orbit, which only x takes part in."""
        rows = self.at(q).orbit(*self.split(y))
        return np.pad(rows, ((0, 0), (0, y.size - rows.shape[1])))

    def eigenvalues(self, y: Array, q: float, basis: Array) -> Array:
        """Return the eigenvalues of J across the orbit."""
        residual = self.at(q)
        matrix = residual.matrix(*self.split(y))
        return transverse_values(residual, matrix, basis[: self.left.size])

    def with_all_values(self, point: Point) -> Point:
        """Return a point of a curve with the eigenvalues of J."""
        return point._replace(values=self.eigenvalues(point.x, point.p, point.basis))

    def spectrum(self, y: Array, q: float, basis: Array) -> Array:
        """Return the eigenvalues of J across the orbit but the one that vanishes at folds."""
        values = self.eigenvalues(y, q, basis)
        return np.delete(values, np.argmin(np.abs(values)))

    def renewed(self, point: Point) -> "_Borders":
        """Return the same with the null vectors at a point as borders, in their orientation."""
        v, w, _ = self.null_vectors(point.x, point.p)
        return replace(self, left=w / np.linalg.norm(w), right=v / np.linalg.norm(v))


@dataclass(frozen=True, eq=False)
class _Folds:
    """The equations F = 0, g = 0 for y = (x, p) in the parameter q."""

    borders: _Borders
    kind: ClassVar[str] = "fold"
    singular: ClassVar[str] = "as at branch points that stay for all q (branch_point_curve)"

    def start(self, x: Array, p: float) -> Array:
        """Return y at a point of a branch."""
        return np.append(x, p)

    def value(self, y: Array, q: float) -> Array:
        """Return (F, g)."""
        *_, g = self.borders.null_vectors(y, q)
        return np.append(self.borders.at(q).value(*self.borders.split(y)), g)

    def matrix(self, y: Array, q: float) -> Array:
        """Return the derivative of (F, g) by x and p."""
        residual, (x, p) = self.borders.at(q), self.borders.split(y)
        v, w, _ = self.borders.null_vectors(y, q)
        by_p = _slope(lambda s: w @ residual.matrix(x, s) @ v, p)
        top = np.column_stack([residual.matrix(x, p), residual.slope(x, p)])
        return np.vstack([top, np.append(-w @ self.borders.bend(y, q, v), -by_p)])

    def slope(self, y: Array, q: float) -> Array:
        """Return the derivative of (F, g) by q."""
        x, p = self.borders.split(y)
        v, w, _ = self.borders.null_vectors(y, q)

        def along(s: float) -> Array:
            residual = self.borders.at(s)
            return np.append(residual.value(x, p), -w @ residual.matrix(x, p) @ v)

        return _slope(along, q, self.borders.bounds)

    def kinds(self) -> tuple[tuple[str, Event], ...]:
        """Return what may be special on the curve."""
        return (("cusp", self.curvature), ("branch_point", self.crossing))

    def curvature(self, y: Array, q: float) -> float:
        """Return wᵀ F_xx v v for unit vectors, which vanishes at cusps."""
        v, w, _ = self.borders.null_vectors(y, q)
        v, w = v / np.linalg.norm(v), w / np.linalg.norm(w)
        return float(w @ self.borders.bend(y, q, v) @ v)

    def crossing(self, y: Array, q: float) -> float:
        """Return wᵀ F_p for a unit vector, which vanishes where branches in p cross."""
        _, w, _ = self.borders.null_vectors(y, q)
        slope = self.borders.at(q).slope(*self.borders.split(y))
        return float(w @ slope / np.linalg.norm(w))


class _Crossings(_Folds):
    """The equations F + ε b = 0, g = 0, wᵀ F_p = 0 for y = (x, p, ε) in the parameter q."""

    kind: ClassVar[str] = "branch point"
    singular: ClassVar[str] = "as at folds and where branches touch"

    def start(self, x: Array, p: float) -> Array:
        """Return y at a point of a branch."""
        return np.concatenate([x, [p, 0.0]])

    def value(self, y: Array, q: float) -> Array:
        """Return (F + ε b, g, wᵀ F_p)."""
        values = super().value(y, q)
        values[:-1] += y[-1] * self.borders.left
        return np.append(values, self.crossing(y, q))

    def matrix(self, y: Array, q: float) -> Array:
        """Return the derivative of (F + ε b, g, wᵀ F_p) by x, p and ε."""
        residual, (x, p), n = self.borders.at(q), self.borders.split(y), self.borders.left.size
        w, z = self._answer(y, q)
        change = _slope(lambda s: residual.matrix(x, s), p)
        bent = _slope(lambda s: residual.slope(x, s), p)
        matrix = np.zeros((n + 2, n + 2))
        matrix[: n + 1, : n + 1] = super().matrix(y, q)
        matrix[:n, -1] = self.borders.left
        matrix[-1, :n] = w @ (change - self.borders.bend(y, q, z))
        matrix[-1, n] = w @ (bent - change @ z)
        return matrix

    def slope(self, y: Array, q: float) -> Array:
        """Return the derivative of (F + ε b, g, wᵀ F_p) by q."""
        x, p = self.borders.split(y)
        w, z = self._answer(y, q)

        def along(s: float) -> float:
            residual = self.borders.at(s)
            return float(w @ (residual.slope(x, p) - residual.matrix(x, p) @ z))

        return np.append(super().slope(y, q), _slope(along, q, self.borders.bounds))

    def _answer(self, y: Array, q: float) -> tuple[Array, Array]:
        """Return w, of length 1, and the z with J z = F_p that changes of w come from."""
        n, (_, w, _) = self.borders.left.size, self.borders.null_vectors(y, q)
        factors = factorized(self.borders.whole(y, q))
        if factors is None:
            return w / np.linalg.norm(w), np.zeros(n)
        right = np.zeros(len(factors.matrix))
        right[:n] = self.borders.at(q).slope(*self.borders.split(y))
        return w / np.linalg.norm(w), factors.solve(right)[:n]

    def kinds(self) -> tuple[tuple[str, Event], ...]:
        """Return what may be special on the curve, beside the spectrum."""
        return ()


def _slope(
    function: Callable[[float], Any], s: float, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Array:
    """Return the derivative of a function of a number by a difference of fourth order.

    Next to a bound all five points lie on its inner side.
    """
    low, high = min(bounds[0], s), max(bounds[1], s)
    step = min(_STEP * max(1.0, abs(s)), 0.25 * (high - low))
    middle = min(max(s, low + 2.0 * step), high - 2.0 * step)
    places = np.clip(middle + step * np.arange(-2.0, 3.0), low, high)
    weights = zip(_weights(float((middle - s) / step)), places.tolist(), strict=True)
    return np.asarray(sum(c / step * function(t) for c, t in weights if abs(c) > 1e-9))


@functools.lru_cache(maxsize=64)
def _weights(offset: float) -> tuple[float, ...]:
    """Return what to weigh five equidistant values with for the derivative off their middle."""
    powers = np.vander(offset + np.arange(-2.0, 3.0), increasing=True).T
    return tuple(np.linalg.solve(powers, np.eye(5)[1]).tolist())


def _borders_at(
    at: Callable[[float], Residual], x: Array, p: float, q: float, course: Course
) -> _Borders:
    """Return J bordered by its null vectors at a point."""
    residual, unit = at(q), course.unit
    jacobian, basis = residual.matrix(x, p), declared_basis(residual, x, p, unit)
    if not np.isfinite(jacobian).all():
        raise ValueError(f"point: needs a finite ∂F/∂x, got NaN or infinity at q0 = {q}")
    with np.errstate(over="ignore", invalid="ignore"):
        change = unit * _slope(lambda s: residual.matrix(x, s), p)  # all there is in p x − x³
        size = float(np.linalg.norm(np.column_stack([jacobian, residual.slope(x, p), change])))
    if not np.isfinite(size):
        raise ValueError(f"step_max: what changes within steps of {unit:g} overflows")
    empty = np.zeros((basis.shape[1], basis.shape[1]))
    whole = np.block([[jacobian, size * basis], [size * basis.T, empty]])
    left, sizes, right = np.linalg.svd(whole)
    count = int((sizes <= tolerances.KERNEL * size).sum())
    if count != 1:
        raise ValueError(
            "point: needs ∂F/∂x to have a kernel of dimension 1 across the orbit, got dimension "
            f"{count} at q0 = {q}"
        )
    return _Borders(at, course.bounds, unit, left[: x.size, -1], right[-1, : x.size])


def _problem(equations: _Folds, given: Residual, course: Course, parameter: str) -> Problem:
    """Return what is traced; each step has borders of its own."""
    borders = equations.borders

    def observe(y: Array, q: float) -> Any:
        seen = borders.at(q).observe
        assert seen is not None
        return seen(*borders.split(y))

    def wrapped(event: Any) -> Event:
        return lambda y, q: float(event(*borders.split(y), q))

    def renewed(point: Point) -> Problem:
        moved = replace(equations, borders=borders.renewed(point))
        return _problem(moved, given, course, parameter)

    residual = Residual(
        equations.value,
        equations.matrix,
        derivative=equations.slope,
        generators=borders.generators,
        symmetric=given.symmetric,  # of the eigenvalues that are recorded, those of ∂F/∂x
        parameter=parameter,
        observe=None if given.observe is None else observe,
        attributes=given.attributes,
    )
    moving = course._replace(events=tuple(wrapped(event) for event in course.events))
    kinds = equations.kinds()
    return Problem(residual, moving, spectrum=borders.spectrum, kinds=kinds, renewed=renewed)


def _labelled(whole: xr.Dataset, given: Residual, rows: Sequence[Row], n: int) -> xr.Dataset:
    """Return a branch of y = (x, p, …) in q as one of x in p and q."""
    curve, last = whole.isel(parameter=slice(n)), whole.isel(parameter=n)
    p = ("step", last["state"].values, {"long_name": given.parameter})
    others = [row.point.values for row in rows]
    size = max(float(np.abs(values).max(initial=0.0)) for values in others)
    kernels = 1 + whole["kernel_dimension"].values
    along = {
        "tangent_p": last["tangent"].values,
        "tangent_q": whole["tangent_p"].values,
        "index": [(values.real > tolerances.RANK * size).sum() for values in others],
        "kernel_dimension": kernels,
        "nullity": whole["orbit_dimension"].values + kernels,
    }
    variables: dict[str, Any] = schema.columns("step", **along)
    variables["q"] = "step", whole["p"].values, {"long_name": whole["p"].attrs["long_name"]}
    if whole.sizes["parameter"] > n + 1:
        variables["unfolding"] = ("step", whole["state"].values[:, n + 1])
        _check_unfolding(variables["unfolding"][1], whole["p"].values, size)
    curve = curve.assign_coords({"p": p, **given.coordinates}).assign(variables)
    return schema.finish(curve, "branch", whole.attrs)


def _check_unfolding(unfolding: Array, q: Array, size: float) -> None:
    """Refuse a family in which branch points come apart."""
    worst = int(np.argmax(np.abs(unfolding)))
    if abs(unfolding[worst]) > tolerances.KERNEL * max(size, 1.0):
        raise ValueError(
            "family: needs to keep the branch point as q changes, as a symmetry does; at q = "
            f"{q[worst]:g} it takes {abs(unfolding[worst]):.3g} more in F to have one"
        )
