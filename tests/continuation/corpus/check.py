"""What is wrong with a branch whose curve is known."""

from typing import Any, NamedTuple

import numpy as np

import dlnds as dl

from .curves import exit_from, extent, slope_at, spread
from .variants import residual_of

#: Last Newton step that a branch promises, relative to the size of the point.
RTOL = 1e-12
#: Noise of a Jacobian in terms of its size: exact ones at a point known to 10 RTOL, and central
#: differences, whose error is that of the function over the step, 1e-16^(2/3), with room for both.
EXACT, DIFFERENCED = 1e-11, 1e-8
#: Errors of located points in terms of the extent of the curve. At a fold and a Hopf point the
#: equations are regular; where branches cross, the error of a point is the root of the rounding.
REGULAR, CROSSING = 1e-9, 1e-7
#: Distance from the curve, in terms of its extent, that no point on it has: next to a crossing the
#: root of RTOL, elsewhere much less, and other components are farther away.
ON_CURVE = 1e-5


class Expected(NamedTuple):
    """A special point in the coordinates of the problem, and how well it can be located."""

    point: Any
    x: Any
    p: float
    x_error: float
    p_error: float
    required: bool
    fold_direction: int


class Stretch(NamedTuple):
    """The part of a curve that a variant asks for: its ends, the bounds there, or closed."""

    low: float
    high: float
    at_low: float | None
    at_high: float | None
    closed: bool


def stretch_of(variant):
    """Return the part of the curve that a variant asks for."""
    curve, s = variant.curve, variant.s
    bounds = (variant.bounds[0] / variant.c, variant.bounds[1] / variant.c)
    sides = [exit_from(curve, s, bounds, sign) for sign in (-1, 1)]
    if sides[0] is None:
        width = curve.period
        return Stretch(s - 0.5 * width, s + 0.5 * width, None, None, True)
    (low, at_low), (high, at_high) = sides
    if variant.direction != "both":
        onwards = (slope_at(curve, s) > 0.0) == (variant.direction == "up")
        low, at_low = (s, None) if onwards else (low, at_low)
        high, at_high = (high, at_high) if onwards else (s, None)
    return Stretch(low, high, at_low, at_high, False)


def expected_of(problem, variant, stretch):
    """Return the special points that a branch must have, and those that it may have."""
    curve = variant.curve
    sizes, found = extent(curve), []
    noise = (EXACT if variant.with_jacobian else DIFFERENCED) * np.linalg.cond(variant.A)
    width = curve.span[1] - curve.span[0]
    for point in curve.special:
        places = (
            [point.s + turn * curve.period for turn in (-1, 0, 1)] if curve.period else [point.s]
        )
        if not stretch.closed and not any(
            stretch.low - 0.1 * width <= s <= stretch.high + 0.1 * width for s in places
        ):
            continue
        near = spread(problem, curve, point, noise)
        x, p = curve.at(point.s)
        sides = [curve.at(point.s + d) for d in (-near, near)]
        least = CROSSING if "branch_point" in point.kind else REGULAR
        x_error = 4.0 * max(np.linalg.norm(y - x) for y, _ in sides) + least * sizes[0]
        p_error = 4.0 * max(abs(q - p) for _, q in sides) + least * sizes[1]
        margin = max(4.0 * near, least * width)
        if not stretch.closed and not any(
            stretch.low - margin <= s <= stretch.high + margin for s in places
        ):
            continue
        clear = stretch.closed or any(
            stretch.low + margin < s < stretch.high - margin for s in places
        )
        ahead = 1e-4 * width
        turn = curve.at(point.s + ahead)[1] + curve.at(point.s - ahead)[1] - 2.0 * p
        found.append(
            Expected(
                point, x, p, x_error, p_error, clear and not point.optional,
                int(np.sign(turn)) if point.kind == "fold" else 0,
            )
        )  # fmt: skip
    return found


def check(problem, variant, branch):
    """Return what is wrong with a branch, in words; nothing if it is right."""
    stretch = stretch_of(variant)
    whole, branch = branch, _once(branch, stretch)
    rows = Rows(problem, variant, branch)
    return [
        *_wrong_start(variant, whole),
        *_wrong_bounds(variant, whole),
        *_wrong_ends(variant, whole, stretch),
        *_wrong_residual(problem, variant, branch),
        *_wrong_curve(problem, variant, rows, stretch),
        *_wrong_events(problem, variant, rows, stretch),
        *_wrong_invariant(branch),
        *_wrong_index(problem, rows),
    ]


def _once(branch, stretch):
    """Return a branch without the last row of a closed one that comes back to a special point."""
    first, last = branch["state"].values[[0, -1]]
    near = np.abs(first - last).max() <= 1e-6 * np.ptp(branch["state"].values, axis=0).max()
    if stretch.closed and near and branch["event"].values[0] and branch.sizes["step"] > 2:
        return branch.isel(step=slice(None, -1))
    return branch


class Rows:
    """The rows of a branch in the coordinates of the problem."""

    def __init__(self, problem, variant, branch):
        A = np.linalg.inv(variant.A)
        self.x = (branch["state"].values - variant.b) @ A.T
        self.p = branch["p"].values / variant.c
        self.kinds = dl.schema.decode(branch["event"]).values.tolist()
        self.branch = branch


def _wrong_start(variant, branch):
    start = int(branch.attrs["start_step"])
    q, y = float(branch["p"][start]), branch["state"][start].values
    if q != variant.q0:
        yield f"start: at p = {q!r}, not {variant.q0!r}"
    size = max(float(np.abs(variant.y0).max()), float(np.abs(branch["state"].values).max()))
    if np.abs(y - variant.y0).max() > 1e-6 * size:
        yield f"start: |x - x0| = {np.abs(y - variant.y0).max():.2g}, of {size:.2g}"


def _wrong_bounds(variant, branch):
    q, (low, high) = branch["p"].values, variant.bounds
    outside = (q < low) | (q > high)
    if outside.any():
        yield f"bounds: {outside.sum()} rows outside ({low}, {high}), p = {q[outside][0]!r}"


def _wrong_ends(variant, branch, stretch):
    stops = [branch.attrs["first_stop"], branch.attrs["last_stop"]]
    if stretch.closed:
        if "closed" not in stops:
            yield f"closed: not noticed, the stops are {stops}"
        return
    if "closed" in stops:
        yield f"closed: {stops}, but it is not"
        return
    wanted = ["bound_reached", "bound_reached"]
    if variant.direction == "up":
        wanted[0] = "start"
    if variant.direction == "down":
        wanted[1] = "start"
    for side, end, stop, right in zip(("first", "last"), (0, -1), stops, wanted, strict=True):
        q, start = float(branch["p"][end]), int(branch.attrs["start_step"])
        at_start = end % branch.sizes["step"] == start and variant.q0 in variant.bounds
        if stop != right and not (at_start and stop in ("start", "bound_reached")):
            yield f"stop: the {side} is {stop}, not {right}, at p = {q!r}"
        elif right == "bound_reached" and q not in variant.bounds:
            yield f"stop: {side} end at p = {q!r}, not on a bound of {variant.bounds}"


def _wrong_residual(problem, variant, branch):
    equation = residual_of(problem, variant._replace(with_jacobian=True))
    y, q = branch["state"].values, branch["p"].values
    size = np.abs(y - variant.b).max() + np.abs(variant.b).max()
    width = max(abs(variant.bounds[0]), abs(variant.bounds[1]))
    places = range(0, len(y), max(1, len(y) // 100))
    matrices = [np.asarray(equation.jacobian(y[k], q[k])) for k in places]
    stiffness = np.array([np.linalg.norm(J, 2) for J in matrices])
    stiffness += 1e-3 * stiffness.max()  # at crossings it may vanish, and its change counts
    for k, stiff in zip(places, stiffness, strict=True):
        h = 1e-6 * width
        slope = (equation.fun(y[k], q[k] + h) - equation.fun(y[k], q[k] - h)) / (2.0 * h)
        bound = 10.0 * RTOL * (stiff * size + np.linalg.norm(slope) * width)
        value = np.linalg.norm(equation.fun(y[k], q[k]))
        if not value <= bound:
            yield f"residual: {value:.2g} above {bound:.2g} in row {k}, p = {q[k]!r}"
            return


def _place(curve, x, p, sizes):
    """Return the place of a curve that is nearest to a point, and the distance from it."""
    s = curve.along(x, p)
    if not np.isfinite(s):
        return s, np.inf
    for _ in range(3):
        y, q = curve.at(s)
        gap = np.append((curve.seen(x) - curve.seen(y)) / sizes[0], (p - q) / sizes[1])
        if np.linalg.norm(gap) < 1e-9:
            break
        h = 1e-7 * (abs(s) + 1e-3 * (curve.span[1] - curve.span[0]))
        (y1, q1), (y0, q0) = curve.at(s + h), curve.at(s - h)
        ahead = np.append((curve.seen(y1) - curve.seen(y0)) / sizes[0], (q1 - q0) / sizes[1])
        ahead = ahead / (2.0 * h)
        change = float(gap @ ahead / max(ahead @ ahead, 1e-300))
        if not abs(change) < 0.01 * (curve.span[1] - curve.span[0]):
            break
        s += change
    return s, float(np.linalg.norm(gap))


def _wrong_curve(problem, variant, rows, stretch):
    curve = variant.curve
    sizes = extent(curve)
    # At special points, which are compared with the known ones, two places may be the same.
    own = [k for k, kind in enumerate(rows.kinds) if kind == "none" or k in (0, len(rows.p) - 1)]
    xs, ps = rows.x[own], rows.p[own]
    s, gaps = np.array([_place(curve, x, p, sizes) for x, p in zip(xs, ps, strict=True)]).T
    far = np.flatnonzero(~(gaps <= ON_CURVE))
    if len(far):
        x, p = xs[far[0]], ps[far[0]]
        yield f"curve: {len(far)} of {len(s)} rows not on {curve.name}, x = {x[:4]}, p = {p!r}"
        return
    width = curve.span[1] - curve.span[0]
    change = np.diff(s)
    if curve.period:
        change -= curve.period * np.round(change / curve.period)
    onwards = np.sign(change.sum())
    turned = np.flatnonzero(onwards * change < -1e-5 * width)
    if len(turned):
        k = turned[0]
        yield f"curve: turns back {len(turned)} times, at s = {s[k]:.6g}, p = {ps[k]!r}"
    if stretch.closed:
        length = abs(change.sum())
        if not 0.75 * curve.period < length < 1.25 * curve.period:
            yield f"closed: {length / curve.period:.2f} times round"
        return
    reached = sorted([s[0], s[0] + change.sum()])
    for name, got, right in zip(("low", "high"), reached, (stretch.low, stretch.high), strict=True):
        if curve.period:
            got -= curve.period * np.round((got - right) / curve.period)
        ends = [curve.at(v) for v in (got, right)]
        gap = np.linalg.norm(curve.seen(ends[0][0]) - curve.seen(ends[1][0])) / sizes[0]
        if not (abs(got - right) < 1e-4 * width or (gap < 1e-4 and not curve.period)):
            yield f"curve: the {name} end is at s = {got:.6g}, not {right:.6g}"


def _wrong_events(problem, variant, rows, stretch):
    expected = expected_of(problem, variant, stretch)
    left = list(range(len(expected)))
    curve, sizes = variant.curve, extent(variant.curve)
    for k in np.flatnonzero([kind != "none" for kind in rows.kinds]):
        kind, x, p = rows.kinds[k], rows.x[k], float(rows.p[k])

        match = next((j for j in left if _fits(expected[j], curve, kind, x, p)), None)
        if match is None:
            near = [
                f"{e.point.kind} at {e.p:.10g} off by {abs(p - e.p):.2g} ({e.p_error:.1g}), "
                f"{np.linalg.norm(curve.seen(x) - curve.seen(e.x)):.2g} ({e.x_error:.1g})"
                for e in expected
                if abs(p - e.p) < 1e-3 * sizes[1]
            ]
            yield f"false {kind} at p = {p!r}, x = {x[:4]}; near: {near[:2]}"
            continue
        left.remove(match)
        yield from _wrong_row(rows.branch, k, expected[match])
    for j in left:
        if expected[j].required:
            e = expected[j]
            yield f"missed {e.point.kind} at p = {e.p!r}, x = {e.x[:4]}"


def _fits(e, curve, kind, x, p):
    """Tell whether a row with an event is an expected special point."""
    near = np.linalg.norm(curve.seen(x) - curve.seen(e.x)) <= e.x_error
    return near and abs(p - e.p) <= e.p_error and kind in e.point.kind.split("|")


def _wrong_row(branch, k, e):
    kernel = int(branch["kernel_dimension"][k])
    wanted = e.point.kernel
    if e.point.kind in ("hopf", "flip", "neimark_sacker"):
        wanted = e.point.beside
    if kernel != wanted:
        yield f"kernel: dimension {kernel}, not {wanted}, at {e.point.kind} p = {e.p!r}"
    if "fold_direction" in branch:
        turn = int(branch["fold_direction"][k])
        if turn != e.fold_direction:
            yield f"fold_direction: {turn}, not {e.fold_direction}, at p = {e.p!r}"
    if "criticality" in branch and e.point.criticality:
        found = str(dl.schema.decode(branch["criticality"]).values[k])
        unknown = found == "none" and e.point.kind == "hopf"  # that of pitchforks is always told
        if found != e.point.criticality and not unknown:
            yield f"criticality: {found}, not {e.point.criticality}, at p = {e.p!r}"


def _wrong_invariant(branch):
    regular = branch["event"].values == 0
    names = ("index", "nullity", "orbit_dimension")
    values = np.stack([branch[name].values for name in names], axis=1)
    for k in np.flatnonzero(regular[1:] & regular[:-1] & (values[1:] != values[:-1]).any(axis=1)):
        before, after = values[k].tolist(), values[k + 1].tolist()
        q = branch["p"].values
        yield f"invariant: {names} {before} to {after} without event, p {q[k]!r} to {q[k + 1]!r}"
        return


def _wrong_index(problem, rows):
    index = rows.branch["index"].values
    count = len(index)
    for k in range(0, count, 1 if problem.size < 30 else max(1, count // 20)):
        if rows.kinds[k] != "none":
            continue
        J = problem.jacobian(rows.x[k], rows.p[k])
        values = np.linalg.eigvalsh(J) if problem.symmetric else np.linalg.eigvals(J).real
        if problem.kind == "map":
            values = np.abs(np.linalg.eigvals(J) + 1.0) - 1.0
        margin = 1e-6 * max(np.abs(values).max(), 1e-300)
        least, most = (values > margin).sum(), (values > -margin).sum()
        if not least <= index[k] <= most:
            yield f"index: {index[k]}, not {least} to {most}, in row {k}, p = {rows.p[k]!r}"
            return


def check_diagram(problem, variant, tree):
    """Return what is wrong with a diagram: how many branches lie on which curve."""
    found = {}
    if tree.attrs["complete"] != 1:
        yield "diagram: not complete"
    for node in tree.children.values():
        rows = Rows(problem, variant, node.to_dataset())
        own = [k for k, kind in enumerate(rows.kinds) if kind == "none"]
        name = next((c.name for c in problem.curves if _all_on(c, rows, own)), "elsewhere")
        found[name] = found.get(name, 0) + 1
    if found != problem.diagram:
        yield f"diagram: branches {found}, not {problem.diagram}"


def _all_on(curve, rows, own):
    sizes = extent(curve)
    with np.errstate(all="ignore"):
        return all(_place(curve, rows.x[k], rows.p[k], sizes)[1] <= ON_CURVE for k in own)
