"""Curves of folds and of branch points in two parameters, by minimally augmented equations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array
from dlnds.continuation.bordered import Factors, factorized, transverse_values
from dlnds.continuation.branches import (
    DIRECTIONS,
    Steps,
    about,
    as_dataset,
    check_course,
    check_steps,
    followed,
)
from dlnds.continuation.correct import Event, Point, Problem, declared_basis, joined
from dlnds.continuation.residuals import Residual
from dlnds.continuation.start import check_room, start_of
from dlnds.errors import (
    ConvergenceError,
    check_choice,
    check_function,
    check_number,
    known_options,
)
from dlnds.theory import forms, tolerances

#: A function of x, p and q whose zeros are located.
CurveEvent = Callable[[Array, float, float], float]
#: An equation in p for each value of q.
Family = Callable[[float], Residual | Callable[[Array, float], Array]]


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
        Distance between points: the first one, and its limits. It is that of (x, p, q) in terms of
        typical sizes: ``state_scale`` and ``parameter_scale`` of the branch, half the range of q.
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
        them crosses zero; and ``user``. Attributes that the family has at all q are told.

    Raises
    ------
    ConvergenceError
        If Newton's method finds no fold at ``q0`` from the point.
    ValueError, TypeError
        If the Jacobian at the point has no kernel, or one of more than one dimension, across the
        orbit; if its Dataset does not say the typical sizes; if the point is a branch point that
        symmetry keeps for all q, such as a pitchfork; or if an argument is outside what is
        described above.

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

    References
    ----------
    Kuz04 (Kuznetsov, Springer 2004), chapter 10, for curves of folds by bordered systems

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
    steps = check_steps(step, step_min, step_max, max_points, progress=progress)
    course = check_course(bounds, rtol, n_eigenvalues, events, "q")
    return _followed(_Folds, family, point, q0, steps, course, direction, parameter)


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
        zero up to rounding. Located are other eigenvalues that
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

    References
    ----------
    Kuz04 (Kuznetsov, Springer 2004), chapter 10, for curves of branch points by bordered systems

    Examples
    --------
    >>> import dlnds as dl
    >>> family = lambda q: lambda x, p: (p - q**2) * x - x**3
    >>> points = dl.special_points(dl.branch(family(1.0), [0.0], 0.0, bounds=(-1.0, 2.0)))
    >>> curve = dl.branch_point_curve(family, points, 1.0, bounds=(-1.0, 1.0))
    >>> bool(abs(curve.p - curve.q**2).max() < 1e-9)
    True
    """
    steps = check_steps(step, step_min, step_max, max_points, progress=progress)
    course = check_course(bounds, rtol, n_eigenvalues, events, "q")
    return _followed(_Crossings, family, point, q0, steps, course, direction, parameter)


def _followed(
    kind: Callable[[_Borders], _Folds],
    family: Any,
    point: Any,
    q0: float,
    steps: Steps,
    course: dict[str, Any],
    direction: str,
    parameter: str,
) -> xr.Dataset:
    """Return the curve of points of one kind."""
    check_function("family", family, "q")
    z, scale = _place(point)
    q = check_number("q0", q0, minimum=course["bounds"][0], maximum=course["bounds"][1])
    direction = check_choice("direction", direction, DIRECTIONS)
    check_room(steps.max_points, z.size)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        at = _members(family, course, scale)
        borders = _borders_at(at, z, q, course["bounds"])
        equations = kind(borders)
        problem = _problem(equations, at(q).residual, course, parameter)
        problem, first = _started(equations, problem, equations.start(z), q)
        rows, stops = followed(problem, steps, first, direction)
        whole = [row._replace(point=borders.with_all_values(row.point)) for row in rows]
        fewer = problem._replace(n_eigenvalues=min(problem.n_eigenvalues, z.size - 1))
        curve = _labelled(as_dataset(fewer, steps, whole, stops), borders, at(q))
        others = [about(at(row.point.p).residual) for row in (rows[0], rows[-1])]
        return curve.drop_attrs(deep=False).assign_attrs(_steady(curve.attrs, others))


def _steady(attrs: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return attributes without what the family says otherwise at other values of q."""
    told = {word for other in others for word in other}
    changed = {
        word
        for word in told
        for other in others
        if word not in other or not np.array_equal(other[word], attrs.get(word, np.nan))
    }
    return {word: value for word, value in attrs.items() if word not in changed}


def _started(equations: _Folds, problem: Problem, y: Array, q: float) -> tuple[Problem, Point]:
    """Return the point at q0 with a tangent, or say what is wrong with it."""
    try:
        return start_of(problem, y, q)
    except ConvergenceError:
        raise ConvergenceError(
            f"point: Newton's method finds no {equations.kind} from it at "
            f"{problem.residual.parameter} = {q:g}; check q0, and that the family has the equation "
            "of the branch there"
        ) from None
    except ValueError as error:
        if str(error).startswith("derivative: "):  # by q, which is by differences in the bounds
            raise ValueError(
                "bounds: need to be such that differences between them tell how the family changes "
                f"with q, got {problem.bounds}"
            ) from None
        if not str(error).startswith("x0: "):
            raise
        raise ValueError(
            f"point: needs a {equations.kind} that moves with q; its equations are singular here, "
            f"{equations.singular}"
        ) from None


def _members(
    family: Callable[[float], Any], course: dict[str, Any], scale: Array
) -> Callable[[float], Problem]:
    """Return what makes the equation in p for a value of q, once for each in use."""

    @functools.lru_cache(maxsize=8)
    def at(q: float) -> Problem:
        found = family(q)
        if not callable(found) and not isinstance(found, Residual):
            raise TypeError(f"family: needs to return a Residual, got {found!r} at {q}")
        residual = found if isinstance(found, Residual) else Residual(found)
        return Problem(residual, (-np.inf, np.inf), course["rtol"], scale)

    return at


def _place(point: Any) -> tuple[Array, Array]:
    """Return x and p of one row of a branch, and their typical sizes."""
    if isinstance(point, xr.Dataset) and "step" in point.dims:
        if point.sizes["step"] != 1:
            count = point.sizes["step"]
            raise ValueError(f"point: needs one row, as of .isel(step=0), got {count}")
        point = point.isel(step=0)
    needed, sizes = {"state": ("parameter",), "p": ()}, ("state_scale", "parameter_scale")
    row = schema.read("point", point, "branch", needed, attributes=sizes)
    x = np.array(row["state"].values, float)
    unit, reach = (float(row.attrs[name]) for name in sizes)
    return joined(x, float(row["p"])), joined(np.full(x.size, unit), reach)


@dataclass(frozen=True, eq=False)
class _Borders:
    """The Jacobian J at y = (x, r p, …) and q, bordered by fixed vectors."""

    at: Callable[[float], Problem]
    bounds: tuple[float, float]
    #: Typical size of x.
    unit: float
    #: r, which makes r p of the size of x.
    ratio: float
    #: That of J, by which the borders are multiplied.
    size: float
    left: Array
    right: Array

    @property
    def n(self) -> int:
        """Number of components of x."""
        return int(self.left.size)

    def place(self, y: Array) -> Array:
        """Return (x, p)."""
        return joined(y[: self.n], y[self.n] / self.ratio)

    def bordered(self, y: Array, q: float) -> Factors | None:
        """Return [J B b; Bᵀ 0 0; cᵀ 0 0] with factors, None if it is not finite."""
        member, z, n = self.at(q), self.place(y), self.n
        basis = declared_basis(member.residual, z[:n], float(z[n]), member.unit)
        matrix = np.zeros((n + basis.shape[1] + 1,) * 2)
        matrix[:n, :n] = member.matrix(z)
        matrix[:n, n:] = self.size * np.column_stack([basis, self.left])
        matrix[n:, :n] = self.size * np.column_stack([basis, self.right]).T
        return factorized(matrix)

    def null_vectors(self, y: Array, q: float) -> tuple[Array, Array, float]:
        """Return v, w and g, of which v and w are null vectors of J where g vanishes."""
        n, factors = self.n, self.bordered(y, q)
        if factors is None:  # J is not finite: Newton's method gives up for this g
            return self.right, self.left, float("nan")
        last = np.zeros(len(factors.matrix))
        last[-1] = self.size
        ahead, back = factors.solve(last), factors.solve(last, transposed=True)
        return ahead[:n], back[:n], self.size * float(ahead[-1])

    def bend(self, y: Array, q: float, v: Array) -> Array:
        """Return the derivative of J along v."""
        member, z = self.at(q), self.place(y)
        length = float(np.linalg.norm(v)) or 1.0
        ahead = joined(v / length, 0.0)
        typical = member.unit**0.8 * max(member.unit, float(np.linalg.norm(z[:-1]))) ** 0.2
        return length * forms.difference_within(
            lambda s: member.matrix(z + s * ahead), 0.0, typical
        )

    def by_p(self, y: Array, q: float, function: Callable[[Problem, Array], Any]) -> Array:
        """Return the derivative of a function of (x, p) by r p."""
        member, z = self.at(q), self.place(y)
        reach = float(member.scale[-1])
        found = forms.difference_within(
            lambda p: function(member, joined(z[:-1], p)), float(z[-1]), reach
        )
        return found / self.ratio

    def by_q(self, y: Array, q: float, function: Callable[[Problem, Array], Any]) -> Array:
        """Return the derivative of a function of (x, p) by q."""
        z, reach = self.place(y), 0.5 * (self.bounds[1] - self.bounds[0])
        return forms.difference_within(lambda s: function(self.at(s), z), q, reach, self.bounds)

    def slope(self, y: Array, q: float) -> Array:
        """Return the derivative of F by r p."""
        return self.at(q).slope(self.place(y)) / self.ratio

    def eigenvalues(self, y: Array, q: float, basis: Array) -> Array:
        """Return the eigenvalues of J across the orbit."""
        member = self.at(q)
        return transverse_values(member.residual, member.matrix(self.place(y)), basis[: self.n])

    def with_all_values(self, point: Point) -> Point:
        """Return a point of a curve with the eigenvalues of J."""
        return point._replace(values=self.eigenvalues(point.x, point.p, point.basis))

    def spectrum(self, y: Array, q: float, basis: Array) -> Array:
        """Return the eigenvalues of J across the orbit but the one that vanishes at folds."""
        values = self.eigenvalues(y, q, basis)
        return np.delete(values, np.argmin(np.abs(values)))

    def renewed(self, point: Point) -> _Borders:
        """Return the same with the null vectors at a point as borders, in their orientation."""
        v, w, _ = self.null_vectors(point.x, point.p)
        return replace(self, left=w / np.linalg.norm(w), right=v / np.linalg.norm(v))


@dataclass(frozen=True, eq=False)
class _Folds:
    """The equations F = 0, g = 0 for y = (x, r p) in the parameter q, in units of F."""

    borders: _Borders
    kind: ClassVar[str] = "fold"
    singular: ClassVar[str] = "as at branch points that stay for all q (branch_point_curve)"

    def start(self, z: Array) -> Array:
        """Return y at a point of a branch."""
        return joined(z[:-1], z[-1] * self.borders.ratio)

    def value(self, y: Array, q: float) -> Array:
        """Return (F, g)."""
        at, unit = self.borders, self.borders.unit
        return joined(at.at(q).value(at.place(y)), unit * at.null_vectors(y, q)[2])

    def matrix(self, y: Array, q: float) -> Array:
        """Return the derivative of (F, g) by x and r p."""
        at = self.borders
        v, w, _ = at.null_vectors(y, q)
        change = at.by_p(y, q, lambda member, z: w @ member.matrix(z) @ v)
        top = np.column_stack([at.at(q).matrix(at.place(y)), at.slope(y, q)])
        return np.vstack([top, -at.unit * joined(w @ at.bend(y, q, v), float(change))])

    def slope(self, y: Array, q: float) -> Array:
        """Return the derivative of (F, g) by q."""
        v, w, _ = self.borders.null_vectors(y, q)

        def at(member: Problem, z: Array) -> Array:
            return joined(member.value(z), -self.borders.unit * float(w @ member.matrix(z) @ v))

        return self.borders.by_q(y, q, at)

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
        return float(w @ self.borders.slope(y, q) / np.linalg.norm(w))


class _Crossings(_Folds):
    """The equations F + ε b = 0, g = 0, wᵀ F_p = 0 for y = (x, r p, ε) in the parameter q.

    The last component of y is ε in terms of the size of J.
    """

    kind: ClassVar[str] = "branch point"
    singular: ClassVar[str] = "as at folds and where branches touch"

    def start(self, z: Array) -> Array:
        """Return y at a point of a branch."""
        return joined(super().start(z), 0.0)

    def value(self, y: Array, q: float) -> Array:
        """Return (F + ε b, g, wᵀ F_p)."""
        values, at = super().value(y, q), self.borders
        values[:-1] += at.size * y[-1] * at.left
        return joined(values, at.unit * self.crossing(y, q))

    def matrix(self, y: Array, q: float) -> Array:
        """Return the derivative of (F + ε b, g, wᵀ F_p) by x, r p and ε."""
        at, n = self.borders, self.borders.n
        w, z = self._answer(y, q)
        change = at.by_p(y, q, lambda member, place: member.matrix(place))
        bent = at.by_p(y, q, lambda member, place: member.slope(place) / at.ratio)
        matrix = np.zeros((n + 2, n + 2))
        matrix[: n + 1, : n + 1] = super().matrix(y, q)
        matrix[:n, -1] = at.size * at.left
        matrix[-1, :n] = at.unit * (w @ (change - at.bend(y, q, z)))
        matrix[-1, n] = at.unit * (w @ (bent - change @ z))
        return matrix

    def slope(self, y: Array, q: float) -> Array:
        """Return the derivative of (F + ε b, g, wᵀ F_p) by q."""
        at, (w, z) = self.borders, self._answer(y, q)
        last = at.by_q(
            *(y, q),
            lambda member, place: w @ (member.slope(place) / at.ratio - member.matrix(place) @ z),
        )
        return joined(super().slope(y, q), at.unit * float(last))

    def _answer(self, y: Array, q: float) -> tuple[Array, Array]:
        """Return w, of length 1, and the z with J z = F_p that changes of w come from."""
        at, factors = self.borders, self.borders.bordered(y, q)
        _, w, _ = at.null_vectors(y, q)
        if factors is None:
            return w / np.linalg.norm(w), np.zeros(at.n)
        right = np.zeros(len(factors.matrix))
        right[: at.n] = at.slope(y, q)
        return w / np.linalg.norm(w), factors.solve(right)[: at.n]

    def kinds(self) -> tuple[tuple[str, Event], ...]:
        """Return what may be special on the curve, beside the spectrum."""
        return ()


def _borders_at(
    at: Callable[[float], Problem], z: Array, q: float, bounds: tuple[float, float]
) -> _Borders:
    """Return J bordered by its null vectors at a point."""
    member, n = at(q), z.size - 1
    jacobian, reach = member.matrix(z), float(member.scale[-1])
    basis = declared_basis(member.residual, z[:n], float(z[n]), member.unit)
    if not np.isfinite(jacobian).all():
        raise ValueError(f"point: needs a finite ∂F/∂x, got NaN or infinity at q0 = {q}")
    ratio = member.unit / reach
    change = (
        reach
        * forms.difference_within(  # all there is in p x − x³
            lambda p: member.matrix(joined(z[:n], p)), float(z[n]), reach
        )
    )
    size = float(np.linalg.norm(np.column_stack([jacobian, member.slope(z) / ratio, change])))
    if not 0.0 < size < np.inf:
        raise ValueError(f"point: needs finite derivatives that are not all 0, at q0 = {q}")
    empty = np.zeros((basis.shape[1], basis.shape[1]))
    whole = np.block([[jacobian, size * basis], [size * basis.T, empty]])
    left, sizes, right = np.linalg.svd(whole)
    count = int((sizes <= tolerances.KERNEL * size).sum())
    if count != 1:
        raise ValueError(
            "point: needs ∂F/∂x to have a kernel of dimension 1 across the orbit, got dimension "
            f"{count} at q0 = {q}"
        )
    return _Borders(at, bounds, member.unit, ratio, size, left[:n, -1], right[-1, :n])


def _problem(equations: _Folds, given: Residual, course: dict[str, Any], parameter: str) -> Problem:
    """Return what is traced; each step has borders of its own."""
    at = equations.borders

    def observe(y: Array, q: float) -> Any:
        seen, z = at.at(q).residual.observe, at.place(y)
        assert seen is not None
        return seen(z[:-1], float(z[-1]))

    def label(y: Array, q: float) -> str:
        named, z = at.at(q).residual.label, at.place(y)
        assert named is not None
        return named(z[:-1], float(z[-1]))

    def generators(y: Array, q: float) -> Array:  # only x takes part in orbits
        z = at.place(y)
        rows = at.at(q).residual.orbit(z[:-1], float(z[-1]))
        return np.pad(rows, ((0, 0), (0, y.size - rows.shape[1])))

    def wrapped(event: Any) -> Event:
        return lambda y, q: float(event(at.place(y)[:-1], float(at.place(y)[-1]), q))

    def renewed(point: Point) -> Problem:
        return _problem(replace(equations, borders=at.renewed(point)), given, course, parameter)

    residual = Residual(
        equations.value,
        equations.matrix,
        derivative=equations.slope,
        generators=None if given.generators is None else generators,
        symmetric=given.symmetric,  # of the eigenvalues that are recorded, those of ∂F/∂x
        kind=given.kind,
        parameter=parameter,
        observe=None if given.observe is None else observe,
        label=None if given.label is None else label,
        attributes=given.attributes,
    )
    low, high = course["bounds"]
    size = len(equations.start(np.zeros(at.n + 1)))
    return Problem(
        residual,
        scale=joined(np.full(size, at.unit), 0.5 * (high - low)),
        spectrum=at.spectrum,
        kinds=equations.kinds(),
        renewed=renewed,
        **{**course, "events": tuple(wrapped(event) for event in course["events"])},
    )


def _labelled(whole: xr.Dataset, borders: _Borders, member: Problem) -> xr.Dataset:
    """Return a branch of y = (x, r p, …) in q as one of x in p and q."""
    n, ratio = borders.n, borders.ratio
    curve, last = whole.isel(parameter=slice(n)), whole.isel(parameter=n)
    p = ("step", last["state"].values / ratio, {"long_name": member.residual.parameter})
    tangent = np.column_stack(
        [curve["tangent"].values, last["tangent"].values / ratio, whole["tangent_p"].values]
    )
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    along = {
        "tangent_p": tangent[:, n],
        "tangent_q": tangent[:, n + 1],
        "kernel_dimension": 1 + whole["kernel_dimension"].values,
        "nullity": 1 + whole["nullity"].values,
    }
    variables: dict[str, Any] = schema.columns("step", **along)
    variables["tangent"] = ("step", "parameter"), tangent[:, :n]
    variables["q"] = "step", whole["p"].values, {"long_name": whole["p"].attrs["long_name"]}
    if whole.sizes["parameter"] > n + 1:
        unfolding = whole["state"].values[:, n + 1]
        _check_unfolding(unfolding, whole["p"].values, borders.size)
        variables["unfolding"] = "step", borders.size * unfolding
    curve = curve.assign_coords({"p": p, **member.residual.coordinates}).assign(variables)
    reach = {"parameter_scale": float(member.scale[-1])}  # that of p, as of a branch
    return schema.finish(curve, "branch", whole.attrs | reach)


def _check_unfolding(unfolding: Array, q: Array, size: float) -> None:
    """Refuse a family in which branch points come apart."""
    worst = int(np.argmax(np.abs(unfolding)))
    if abs(unfolding[worst]) > tolerances.KERNEL:
        raise ValueError(
            "family: needs to keep the branch point as q changes, as a symmetry does; at q = "
            f"{q[worst]:g} it takes {abs(unfolding[worst]) * size:.3g} more in F to have one"
        )
