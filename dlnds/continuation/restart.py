"""Stored branches: followed on from an end, and joined with others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array
from dlnds.continuation.branches import (
    AWAY,
    Trail,
    check_course,
    check_room,
    collected,
    headed,
    reversed_rows,
    tabulated,
)
from dlnds.continuation.correct import (
    Course,
    Event,
    Point,
    Problem,
    corrected,
    distance_between,
    stored,
    turned,
)
from dlnds.continuation.residuals import Residual, equation_of
from dlnds.errors import ConvergenceError, check_choice, known_options
from dlnds.theory import tolerances

SIDES = ("last", "first")
#: Attributes that tell how a branch was followed, and not of which equation it is.
FOLLOWED = ("start_step", "first_stop", "last_stop", "bounds", "step_min", "step_max", "rtol")
#: And those that are the same for the whole of one.
KEPT = ("symmetry", "predictor")


@known_options
def extend_branch(
    residual: Residual,
    branch: xr.Dataset,
    *,
    side: str = "last",
    bounds: tuple[float, float] | None = None,
    step_min: float | None = None,
    step_max: float | None = None,
    events: Sequence[Event] = (),
    max_points: int = 1000,
    progress: bool = False,
) -> xr.Dataset:
    """Return a branch with further rows beyond one of its ends.

    Parameters
    ----------
    residual
        The equation that the branch solves.
    branch
        What `branch` returns, or a node of a `diagram`; also loaded from a file, or some successive
        rows of it, ``branch.isel(step=slice(0, 20))``.
    side
        The end to go on from: the ``"last"`` row or the ``"first"``.
    bounds, step_min, step_max
        As for `branch`; ``None`` takes those that the branch was made with.
    events
        Functions of x and p to locate zeros of; a Dataset does not carry them.
    max_points
        Further points at most.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``branch``: the rows that were there, and the new ones.

    Raises
    ------
    ValueError, TypeError
        If the branch is not one of this equation, or is closed, or its end is at a bound or beyond.
    ConvergenceError
        If the tangent at the end is not determined.

    Notes
    -----
    A row has all that the next one depends on: state, p, tangent, and the step to try next. With
    the same options the result is the branch that would have been computed in one go, number by
    number. Where it had reached a bound, or was cut at a special point, that is a row more of it.

    Examples
    --------
    >>> import dlnds as dl
    >>> def parabola(x, p):
    ...     return p - x**2
    >>> options = {"bounds": (0.0, 9.0), "direction": "up"}
    >>> short = dl.branch(parabola, [1.0], 1.0, max_points=5, **options)
    >>> longer = dl.extend_branch(parabola, short, max_points=7)
    >>> longer.identical(dl.branch(parabola, [1.0], 1.0, max_points=12, **options))
    True
    """
    equation, branch = equation_of(residual), _read("branch", branch)
    forward, stop = check_choice("side", side, SIDES) == "last", f"{side}_stop"
    _check_equation(equation, branch)
    end = branch.isel(step=-1 if forward else 0)
    given = {"bounds": bounds, "step_min": step_min, "step_max": step_max}
    course = _course(branch, end, given, max_points, events, progress)
    _check_inside(course.bounds, end, forward)
    nullity = int(end.orbit_dimension) if branch.attrs["symmetry"] == "minimum_norm" else -1
    problem = Problem(equation, course, nullity, course.bounds)
    trail, start = _trail(problem, branch, forward), _end_point(problem, end, forward)
    start = _aimed(start, branch, forward) if course.secant else start
    near = distance_between(start, trail.origin) <= course.unit
    if branch.attrs[stop] == "closed" and near:
        raise ValueError("branch: is closed, there is nothing beyond its end")
    rows, reason = collected(problem, start, trail)
    steps = dict(zip(("step_min", "step_max"), course.limits, strict=True))
    attrs = {**branch.attrs, **steps, "bounds": np.array(course.bounds), stop: reason}
    if not rows:
        return _joined([branch], attrs)
    new = tabulated(problem, rows if forward else reversed_rows(rows))
    return _joined([branch, new] if forward else [new, branch], attrs)


def _course(
    branch: xr.Dataset,
    end: xr.Dataset,
    given: dict[str, Any],
    max_points: int,
    events: Sequence[Event],
    progress: bool,
) -> Course:
    """Return the options of a branch from an end on, as it was made where they are not given."""
    made = branch.attrs | {name: value for name, value in given.items() if value is not None}
    low, high, count = made["step_min"], made["step_max"], branch.sizes["eigen"]
    course = check_course(
        made["bounds"], high, low, high, max_points, made["rtol"], count, events, progress
    )
    check_room(course, branch.sizes["parameter"])
    step = float(np.clip(end.next_step, *course.limits))
    return course._replace(step=step, secant=made["predictor"] == "secant")


def _aimed(start: Point, branch: xr.Dataset, forward: bool) -> Point:
    """Return the end of a branch with the direction in which it lies from the point before."""
    regular = np.flatnonzero(branch.event.values == 0)
    if len(regular) < 2:
        return start
    row = branch.isel(step=regular[-2 if forward else 1])
    return headed(start._replace(x=row.state.values, p=float(row.p)), start)


#: What of each row of a branch it is followed from, beside what every branch has.
_ROWS = schema.by_dims("test_value accuracy multiplier newton_iterations kernel_dimension (step)")
#: What only those have whose Jacobian is not symmetric.
_UNSYMMETRIC = schema.by_dims("transverse_eigenvalue_imag (step, eigen)")
#: What is not known of each of them.
_PARTIAL = ("test_value", "accuracy", "transverse_eigenvalue", "transverse_eigenvalue_imag")


def _read(name: str, branch: object) -> xr.Dataset:
    """Return a stored branch, if all is there that it is followed from."""
    needed, about = schema.REQUIRED["branch"] | _ROWS, (*FOLLOWED, *KEPT)
    found = schema.read(
        *(name, branch, "branch", needed), optional=_UNSYMMETRIC, attributes=about,
        empty=["eigen"], partial=_PARTIAL,
    )  # fmt: skip
    if np.any(np.diff(found["arclength"].values) < 0.0):
        raise ValueError(f"{name}: needs its rows in the order of arclength")
    return found


def _check_inside(bounds: tuple[float, float], end: xr.Dataset, forward: bool) -> None:
    """Refuse bounds that leave no room beyond the end of a branch."""
    p, ahead = float(end.p), float(end.tangent_p) if forward else -float(end.tangent_p)
    low, high = bounds
    if not low <= p <= high or (p == high and ahead > 0.0) or (p == low and ahead < 0.0):
        raise ValueError(
            f"bounds: needs room beyond the end of the branch, p = {p:g}, got ({low:g}, {high:g})"
        )


def _check_same(name: str, whose: str, wanted: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """Refuse what says of itself something else than another one."""
    for word in sorted({*wanted, *got}):
        pair = wanted.get(word), got.get(word)
        if not np.array_equal(*pair):  # type: ignore[arg-type]
            raise ValueError(f"{name}: needs the {word} of {whose}, {pair[0]!r}, got {pair[1]!r}")


def _check_equation(residual: Residual, branch: xr.Dataset) -> None:
    """Refuse an equation that says it is another one."""
    wanted = {word: branch.attrs.get(word) for word in residual.attributes}
    wanted["varied parameter"] = branch.p.attrs.get("long_name")
    wanted["symmetry of the Jacobian"] = "transverse_eigenvalue_imag" not in branch
    got = {"varied parameter": residual.parameter, "symmetry of the Jacobian": residual.symmetric}
    _check_same("residual", "the branch", wanted, {**residual.attributes, **got})


def _about(branch: xr.Dataset) -> dict[str, Any]:
    """Return what two branches of the same equation have in common."""
    skipped = (*FOLLOWED, "parent", "parent_step", "level")
    return {
        **{word: value for word, value in branch.attrs.items() if word not in skipped},
        "varied parameter": branch.p.attrs.get("long_name"),
        "number of components": branch.sizes["parameter"],
        "number of eigenvalues": branch.sizes["eigen"],
        "variables": sorted(map(str, branch.variables)),
    }


def _numbers(row: xr.Dataset) -> tuple[Array, float, Array]:
    """Return x, p and the tangent of a row."""
    tangent = np.append(row.tangent.values, float(row.tangent_p))
    return row.state.values, float(row.p), tangent


def _end_point(problem: Problem, end: xr.Dataset, forward: bool) -> Point:
    """Return the point of an end with its tangent away from the branch."""
    x, p, tangent = _numbers(end)
    found = corrected(problem, x, p, tangent)
    near = tolerances.SAME_END * (1.0 + np.linalg.norm(x))
    if found is None or np.linalg.norm(found.x - x) > near:
        force = float(np.linalg.norm(problem.residual.value(x, p)))
        raise ValueError(
            f"residual: needs that of the branch, but at its end ‖F‖ = {force:.3g}, it was "
            f"{float(end.residual):.3g}"
        )
    point = stored(problem, x, p, tangent if forward else -tangent)
    if point is None:
        raise ConvergenceError(f"branch: its tangent is not determined at the end, p = {p:g}")
    return point


def _trail(problem: Problem, branch: xr.Dataset, forward: bool) -> Trail:
    """Return where a branch came from to its end, and whether it was away from there."""
    arcs = branch.arclength.values
    start = int(np.argmin(np.abs(arcs)))
    x, p, tangent = _numbers(branch.isel(step=start))
    origin = stored(problem, x, p, tangent)
    if origin is None:
        raise ConvergenceError(f"branch: its tangent is not determined at its start, p = {p:g}")
    side = branch.isel(step=slice(start, None) if forward else slice(None, start + 1))
    side = side.isel(step=np.flatnonzero(side.event.values == 0))
    apart = np.column_stack([side.state.values - x, side.p.values - p])
    left = bool((np.linalg.norm(apart, axis=1) > AWAY * problem.course.unit).any())
    travelled = float(arcs[-1] if forward else -arcs[0])
    return Trail(origin if forward else turned(origin), travelled, left)


def _joined(parts: Sequence[xr.Dataset], attrs: dict[str, Any]) -> xr.Dataset:
    """Return rows one after the other."""
    radius = max(float(part.spectral_radius.max()) for part in parts)
    counted = [part.assign(index=_counted(part, radius)) for part in parts]
    same: Any = {"compat": "override", "join": "override", "combine_attrs": "override"}
    joined: xr.Dataset = xr.concat(counted, "step", data_vars="minimal", coords="minimal", **same)
    start = int(np.argmin(np.abs(joined.arclength.values)))
    return schema.finish(joined, "branch", {**attrs, "start_step": start})


def _counted(part: xr.Dataset, radius: float) -> xr.DataArray:
    """Return the index if eigenvalues are compared with the largest of more rows than its own."""
    values, own = part.transverse_eigenvalue, float(part.spectral_radius.max())
    small = (values > tolerances.RANK * own) & (values <= tolerances.RANK * radius)
    count: xr.DataArray = part["index"] - small.sum("eigen")
    return count


@known_options
def merge_branches(one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Return two branches of the same equation that share an end as one.

    Parameters
    ----------
    one, other
        What `branch` or `extend_branch` returns. One of them goes on where the other ends.

    Returns
    -------
    xarray.Dataset
        Schema ``branch``: the rows of both in the direction of ``one``, its arclength, and the
        shared row once, as it is in ``one``. ``bounds`` are the widest of both, ``rtol`` the
        larger.

    Raises
    ------
    ValueError, TypeError
        If they are branches of different equations, share no end, or leave it on the same side.

    Examples
    --------
    >>> import dlnds as dl
    >>> def parabola(x, p):
    ...     return p - x**2
    >>> sides = [
    ...     dl.branch(parabola, [1.0], 1.0, bounds=(-1.0, 4.0), direction=way)
    ...     for way in ("down", "up")
    ... ]
    >>> whole = dl.merge_branches(*sides)
    >>> whole.sizes["step"] == sides[0].sizes["step"] + sides[1].sizes["step"] - 1
    True
    """
    one, other = _read("one", one), _read("other", other)
    _check_same("other", "one", _about(one), _about(other))
    after, other = _oriented(one, other)
    here, there = (one, other) if after else (other, one)
    ends = (-1, 0) if after else (0, -1)
    shift = float(one.arclength[ends[0]]) - float(other.arclength[ends[1]])
    other = other.assign(arclength=other.arclength + shift)
    rest = other.isel(step=slice(1, None) if after else slice(None, -1))
    parts = [part for part in ((one, rest) if after else (rest, one)) if part.sizes["step"]]
    low, high = zip(one.attrs["bounds"], other.attrs["bounds"], strict=True)
    about = {
        "bounds": np.array([min(low), max(high)]),
        "rtol": max(one.attrs["rtol"], other.attrs["rtol"]),
        "first_stop": here.attrs["first_stop"],
        "last_stop": there.attrs["last_stop"],
    }
    return _joined(parts, {**one.attrs, **about})


def _oriented(one: xr.Dataset, other: xr.Dataset) -> tuple[bool, xr.Dataset]:
    """Return whether ``other`` comes after ``one``, and it in the direction of ``one``."""
    nearest, met = np.inf, False
    for after in (True, False):
        x, p, tangent = _numbers(one.isel(step=-1 if after else 0))
        for directed in (other, _reversed(other)):
            y, q, along = _numbers(directed.isel(step=0 if after else -1))
            gap = float(np.linalg.norm(np.append(y - x, q - p)))
            same = gap <= tolerances.SAME_END * (1.0 + float(np.linalg.norm(x)))
            if same and tangent @ along > 0.0:
                return after, directed
            nearest, met = min(nearest, gap), met or same
    if met:
        raise ValueError("other: leaves the end that it shares with one on the side of one")
    raise ValueError(
        f"other: shares no end with one, the nearest ends are {nearest:.3g} apart; states of one "
        "orbit are moved onto each other by act"
    )


def _reversed(branch: xr.Dataset) -> xr.Dataset:
    """Return a branch in the other direction."""
    turned_round = branch.isel(step=slice(None, None, -1)).copy()
    for name in ("tangent", "tangent_p", "arclength"):
        turned_round[name] = (-turned_round[name]).assign_attrs(branch[name].attrs)
    stops = {"first_stop": branch.attrs["last_stop"], "last_stop": branch.attrs["first_stop"]}
    return turned_round.assign_attrs(stops)
