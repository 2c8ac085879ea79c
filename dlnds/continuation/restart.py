"""Stored branches: followed on from an end, and joined with others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array
from dlnds.continuation.branches import (
    FOLLOWED,
    KEPT,
    NODES,
    Row,
    Steps,
    Stride,
    Trail,
    about,
    check_course,
    check_steps,
    closed,
    collected,
    reversed_rows,
    rows_at,
    tabulated,
)
from dlnds.continuation.correct import Event, Point, Problem, joined, stored, turned
from dlnds.continuation.locate import at_node
from dlnds.continuation.parts import frobenius
from dlnds.continuation.residuals import Residual, equation_of
from dlnds.continuation.start import check_room
from dlnds.errors import check_choice, known_options
from dlnds.theory import tolerances

SIDES = ("last", "first")


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

    References
    ----------
    Kuz04 (Kuznetsov, Springer 2004), chapter 10, for continuation, test functions and normal forms

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
    given = {"bounds": bounds, "step_min": step_min, "step_max": step_max}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        problem, steps = _course(equation, branch, given, max_points, events, progress)
        rows, reason = _further(problem, steps, branch, forward)
        attrs = {
            **branch.attrs,
            "bounds": np.array(problem.bounds),
            "step_min": steps.smallest,
            "step_max": steps.largest,
            stop: reason,
        }
        if not rows:
            return _joined([branch], attrs)
        kept, rows = _seam(problem, branch, rows, forward)
        new = tabulated(problem, rows if forward else reversed_rows(rows))
    return _joined([kept, new] if forward else [new, kept], attrs)


def _course(
    equation: Residual,
    branch: xr.Dataset,
    given: Mapping[str, Any],
    max_points: int,
    events: Sequence[Event],
    progress: bool,
) -> tuple[Problem, Steps]:
    """Return what the steps of a branch share, as it was made where that is not given."""
    made = branch.attrs | {name: value for name, value in given.items() if value is not None}
    low, high = made["step_min"], made["step_max"]
    steps = check_steps(high, low, high, max_points, made["predictor"], progress)
    course = check_course(made["bounds"], made["rtol"], branch.sizes["eigen"], events)
    n, orbit = branch.sizes["parameter"], int(branch.orbit_dimension[0])
    check_room(steps.max_points, n)
    problem = Problem(
        equation,
        scale=joined(np.full(n, made["state_scale"]), made["parameter_scale"]),
        size=made["derivative_scale"],
        rows=None if "row_scale" not in made else np.asarray(made["row_scale"], float),
        nullity=orbit if made["symmetry"] == "minimum_norm" else -1,
        **course,
    )
    return problem, steps


def _further(
    problem: Problem, steps: Steps, branch: xr.Dataset, forward: bool
) -> tuple[list[Row], str]:
    """Return the rows beyond an end of a branch, and why there are no more."""
    arcs, end = branch.arclength.values, -1 if forward else 0
    row, here = branch.isel(step=end), _point(problem, branch, end, forward)
    _check_solves(problem, row, here)
    _check_inside(problem.bounds, row, forward)
    origin = _point(problem, branch, int(np.argmin(np.abs(arcs))), forward)
    travelled, before = float(arcs[end] if forward else -arcs[end]), None
    nodes = np.flatnonzero((branch.event.values == 0) | (arcs == 0.0))  # rows that steps ended on
    if len(nodes) > 1 and not (_is_start(row) or _is_bound(branch, row) or int(row.event)):
        before = _point(problem, branch, int(nodes[-2 if forward else 1]), forward)
    if branch.attrs["last_stop" if forward else "first_stop"] == "closed" and before is not None:
        last = Stride(here, [], problem.distance(here.z, before.z), float(row.next_step))
        if closed(problem, before, last, origin) is not None:
            raise ValueError("branch: is closed, there is nothing beyond its end")
    first = float(np.clip(row.next_step, steps.smallest, steps.largest))
    trail = Trail(origin, travelled, before)
    return collected(problem, steps._replace(first=first), here, trail)


def _seam(
    problem: Problem, branch: xr.Dataset, rows: list[Row], forward: bool
) -> tuple[xr.Dataset, list[Row]]:
    """Return the rows of a branch that stay, and the new ones.

    What is special at a start, or at a bound, is seen from both sides only now.
    """
    end = -1 if forward else 0
    row = branch.isel(step=end)
    if not (_is_start(row) or _is_bound(branch, row)):
        return branch, rows
    here, before = _point(problem, branch, end, forward), None
    here_too = int((branch.arclength == row.arclength).sum())
    if branch.sizes["step"] > here_too:
        before = _point(problem, branch, -1 - here_too if forward else here_too, forward)
    special = at_node(problem, here, before, rows[0].point)
    distance = float(row.arclength if forward else -row.arclength)
    kept = branch.isel(step=slice(None, -here_too) if forward else slice(here_too, None))
    seam = rows_at(Row(here, distance, float(row.next_step)), special)
    return kept, [*(seam if forward else seam[::-1]), *rows]


def _is_start(row: xr.Dataset) -> bool:
    return float(row.arclength) == 0.0


def _is_bound(branch: xr.Dataset, row: xr.Dataset) -> bool:
    return float(row.p) in branch.attrs["bounds"]


#: What of each row of a branch it is followed from, beside what every branch has.
_ROWS = schema.by_dims(
    "test_value accuracy multiplier newton_iterations kernel_dimension decided fold_direction "
    "criticality (step)"
)
#: What only those have whose Jacobian is not symmetric.
_UNSYMMETRIC = schema.by_dims("transverse_eigenvalue_imag (step, eigen)")
#: What is not known of each of them.
_PARTIAL = ("test_value", "accuracy", "transverse_eigenvalue", "transverse_eigenvalue_imag")


def _read(name: str, branch: object) -> xr.Dataset:
    """Return a stored branch, if all is there that it is followed from."""
    needed = schema.REQUIRED["branch"] | _ROWS
    found = schema.read(
        *(name, branch, "branch", needed), optional=_UNSYMMETRIC, attributes=(*FOLLOWED, *KEPT),
        empty=["eigen"], partial=_PARTIAL,
    )  # fmt: skip
    if "q" in found:
        raise ValueError(f"{name}: needs a branch in one parameter, got a curve in p and q")
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
    told = about(residual)
    wanted = {word: branch.attrs.get(word) for word in told}
    wanted["varied parameter"] = branch.p.attrs.get("long_name")
    wanted["symmetry of the Jacobian"] = "transverse_eigenvalue_imag" not in branch
    got = {"varied parameter": residual.parameter, "symmetry of the Jacobian": residual.symmetric}
    _check_same("residual", "the branch", wanted, {**told, **got})


def _of_both(branch: xr.Dataset) -> dict[str, Any]:
    """Return what two branches of the same equation have in common."""
    skipped = (*FOLLOWED, "row_scale", *NODES)
    return {
        **{word: value for word, value in branch.attrs.items() if word not in skipped},
        "varied parameter": branch.p.attrs.get("long_name"),
        "number of components": branch.sizes["parameter"],
        "number of eigenvalues": branch.sizes["eigen"],
        "variables": sorted(map(str, branch.variables)),
    }


def _numbers(row: xr.Dataset) -> tuple[Array, float, Array]:
    """Return x, p and the tangent of a row."""
    return row.state.values, float(row.p), joined(row.tangent.values, float(row.tangent_p))


def _point(problem: Problem, branch: xr.Dataset, step: int, forward: bool) -> Point:
    """Return the point of a row, with its tangent towards the last row or the first."""
    row = branch.isel(step=step)
    point = stored(problem, *_numbers(row))
    multiplier, iterations = float(row.multiplier), int(row.newton_iterations)
    point = point._replace(multiplier=multiplier, iterations=iterations)
    return point if forward else turned(point)


def _check_solves(problem: Problem, row: xr.Dataset, here: Point) -> None:
    """Refuse an equation that the end of a branch does not solve."""
    matrix, slope = map(problem.given, (problem.thin_matrix(here.z), problem.slope(here.z)))
    reach = problem.scale + np.abs(here.z)
    size = math.hypot(frobenius(matrix * reach[:-1]), frobenius(slope) * float(reach[-1]))
    if not here.residual <= 10.0 * float(row.residual) + tolerances.SAME_END * size:
        raise ValueError(
            f"residual: needs that of the branch, but at its end ‖F‖ = {here.residual:.3g}, it was "
            f"{float(row.residual):.3g}"
        )


def _joined(parts: Sequence[xr.Dataset], attrs: dict[str, Any]) -> xr.Dataset:
    """Return rows one after the other."""
    same: Any = {"compat": "override", "join": "override", "combine_attrs": "override"}
    whole: xr.Dataset = xr.concat(parts, "step", data_vars="minimal", coords="minimal", **same)
    start = int(np.argmin(np.abs(whole.arclength.values)))
    return schema.finish(whole, "branch", {**attrs, "start_step": start})


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
        shared row once: as it is in ``one``, or in ``other`` if only that tells of an event. Where
        a branch of a diagram left its parent it is special, how exactly is not known (NaN).
        ``bounds`` are the widest of both, ``rtol`` the larger.

    Raises
    ------
    ValueError, TypeError
        If they say that they are of different equations, or have other eigenvalues at a shared row
        where nothing is special, or share no end, or leave it on the same side.

    Notes
    -----
    The equation itself is not asked: two that agree in the shared row cannot be told apart.

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
    _check_same("other", "one", _of_both(one), _of_both(other))
    after, other = _oriented(one, other)
    ends = (-1, 0) if after else (0, -1)
    shared = _shared(one, other, ends)
    other = _measured(other, one)
    shift = float(one.arclength[ends[0]]) - float(other.arclength[ends[1]])
    other = other.assign(arclength=other.arclength + shift)
    here, there = (one, other) if after else (other, one)
    before = here.isel(step=(here.arclength != here.arclength[-1]).values)
    rest = there.isel(step=(there.arclength != there.arclength[0]).values)
    parts = [part for part in (before, shared, rest) if part.sizes["step"]]
    low, high = zip(one.attrs["bounds"], other.attrs["bounds"], strict=True)
    attrs = {
        **one.attrs,
        "bounds": np.array([min(low), max(high)]),
        "rtol": max(one.attrs["rtol"], other.attrs["rtol"]),
        "first_stop": here.attrs["first_stop"],
        "last_stop": there.attrs["last_stop"],
    }
    return _joined(parts, attrs)


def _shared(one: xr.Dataset, other: xr.Dataset, ends: tuple[int, int]) -> xr.Dataset:
    """Return the row that two branches share at their ends, with what is known to be special.

    There is one for each special point that is there.
    """
    own, met = (
        part.isel(step=(part.arclength == part.arclength[end]).values)
        for part, end in zip((one, other), ends, strict=True)
    )
    if own.event.values.any():
        return own
    if met.event.values.any():
        return met.assign(
            arclength=met.arclength.copy(data=np.full(met.sizes["step"], own.arclength[0]))
        )
    if any(row.attrs.get("parent") and _is_start(row.isel(step=0)) for row in (own, met)):
        return _departed(own, one)
    sizes, others = (np.sort(_eigenvalue_sizes(row)) for row in (own, met))
    limit = tolerances.KERNEL * (float(own.spectral_radius[0]) + one.attrs["derivative_scale"])
    if not np.allclose(sizes, others, rtol=0.0, atol=limit, equal_nan=True):
        raise ValueError(
            "other: needs to be a branch of the equation of one, but its eigenvalues at the row "
            "that they share are others"
        )
    return own


def _departed(row: xr.Dataset, branch: xr.Dataset) -> xr.Dataset:
    """Return the row at which a branch of a diagram left its parent as the special one it is."""
    radius = float(branch.spectral_radius.max())
    kernel = int((_eigenvalue_sizes(row) <= tolerances.KERNEL * radius).sum())
    isotropy = branch.get("isotropy_dimension", xr.zeros_like(branch.event))
    lost = int(isotropy.max()) > int(isotropy.min())
    numbers = {
        "event": schema.BRANCH_EVENTS.index("symmetry_change" if lost else "branch_point"),
        "decided": schema.BRANCH_DECISIONS.index("at_node"),
        "kernel_dimension": kernel,
        "nullity": int(row.orbit_dimension[0]) + kernel,
    }
    return row.assign({name: row[name].copy(data=[value]) for name, value in numbers.items()})


def _eigenvalue_sizes(row: xr.Dataset) -> Array:
    """Return |ν| of the eigenvalues of a row that are known."""
    imaginary = row.get("transverse_eigenvalue_imag", xr.zeros_like(row.transverse_eigenvalue))
    return np.asarray(np.hypot(row.transverse_eigenvalue, imaginary), float).ravel()


def _measured(branch: xr.Dataset, unit: xr.Dataset) -> xr.Dataset:
    """Return a branch with its arclength in the scaled coordinates of another one."""
    scales = ("state_scale", "parameter_scale")
    if all(branch.attrs[name] == unit.attrs[name] for name in scales):
        return branch
    size, reach = (unit.attrs[name] for name in scales)
    places = np.column_stack([branch.state.values / size, branch.p.values / reach])
    chords = np.linalg.norm(np.diff(places, axis=0), axis=1)
    return branch.assign(arclength=branch.arclength.copy(data=np.append(0.0, np.cumsum(chords))))


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
