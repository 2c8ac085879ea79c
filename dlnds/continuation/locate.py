"""Test functions of branches: what may have happened between two points, what has, and where.

A test function is a number at every point that vanishes where something is special. Between two
points of a branch each of them is settled: it keeps its sign, or changes it once, by its values at
both and half way. Where it is not, the step between them was too long.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.interpolate when it is used, which is rare and takes long
import scipy.linalg
import scipy.optimize
from scipy.linalg import lapack

from dlnds.arrays import Array
from dlnds.continuation.correct import (
    LEAST_SIZE,
    Point,
    Problem,
    between,
    bordered,
    course,
    located_orbit,
    null_directions,
    scaled_derivatives,
    solved,
    stored,
    unit_length,
    usual_size,
)
from dlnds.theory import tolerances

#: Components of headings along p that are rounding: along branches at a constant p nothing folds.
VERTICAL = 1e-10
#: Cosine of two headings, and sideways part of the way between, of a step that needs no check.
QUIET_COSINE, QUIET_SIDE = 0.98, 0.02
#: How far the point half way may be from the cubic curve through both ends, in terms of the way.
DETOUR = 2e-3
#: The same for points that are looked at on the way to a zero, in terms of the gap they are in.
NEARBY = 0.05
#: Values of a test function half way between, in terms of its largest, that leave zero clearly.
LEAVING = 0.05
#: Parts of a way beside a zero where a test function shows how steep it is there, in terms of its
#: change along the whole, and how near to a zero that is not steep others are looked for.
WIDE, NEXT, STEEP, GRADES = 1e-2, 1e-3, 0.05, tuple(0.5 * 0.7**k for k in range(40))
#: Smallest values, in terms of the largest, of a test function that touches zero.
TOUCHING = 1e-9
#: Values of functions of x and p at a node, in terms of those next to it, that are zero.
AT_NODE = 1e-8
#: Parts of a step within which a test function that touches zero may do so.
BLURRED = 1e-3
#: Values of test functions at interpolated zeros, in terms of those around.
ROUGHLY = 1e-4
#: Values of test functions where the symmetry changes, in terms of those around, that are zero.
EXPLAINED = 1e-3
#: Parts of the way to a change of the symmetry at which its sides are looked at, and how small what
#: vanishes at the change is next to it, in terms of all else.
HALVES, CLEARLY = tuple(0.5**k for k in range(1, 24)), 0.1
#: Condition of the equation at a point, in terms of that at its neighbours, that is singular.
SINGULAR = 1e-2
#: Distances of special points, in terms of the step, up to which they are one; and scaled ones that
#: rounding leaves where p depends on them by their square, as at pitchforks.
SAME_PLACE, BLIND = 1e-6, 1e-7
#: Values of test functions, in terms of the largest, that are zero but for rounding; how near to
#: another one, in parts of the way, the last interpolated zero is, and how many there are at most.
EXACT, CONVERGED, MOST_GUESSES = 1e-14, 1e-8, 6
#: Distances of components in scaled coordinates that rounding of F may leave at a branch point, and
#: how slow what vanishes there is, in terms of the usual size of the derivatives.
INSEPARABLE, SLOW = 3e-7, 1e-3
#: Residuals at a special point that is not solved for, in terms of what a wrong one would have.
SLIGHT = 1e-9


class Test(NamedTuple):
    """A number at every point that vanishes where something is special."""

    kind: str
    value: Callable[[Point], float]
    #: Values that are zero to rounding.
    zone: float = 0.0


class Place(NamedTuple):
    """Where a test function vanishes on a way, and how that was found."""

    point: Point
    #: Its part of the way.
    part: float
    decided: str


class Special(NamedTuple):
    """A special point: what it is, and how well it is known."""

    point: Point
    kind: str = "none"
    test_value: float = np.nan
    #: Distance, in scaled coordinates, within which it is.
    accuracy: float = np.nan
    kernel: int = 0
    #: Growth that counts as zero there.
    tolerance: float = 0.0
    decided: str = "none"
    fold_direction: int = 0
    #: How many directions lead on from it beside the branch's.
    n_beside: int = 0
    #: Its part of the way that it was found on.
    part: float = 0.0


class Way(NamedTuple):
    """The branch between two points: a curve that is corrected wherever it is asked for."""

    problem: Problem
    here: Point
    there: Point
    #: Points by their part of the way.
    known: dict[float, Point]

    @property
    def length(self) -> float:
        """Distance of both ends."""
        return self.problem.distance(self.here.z, self.there.z)

    def at(self, part: float) -> Point:
        """Return the point at a part of the way; ArithmeticError if it is not found nearby."""
        if part not in self.known:
            start, normal = course(self.problem, self.here, self.there, part)
            near, lack, scale = self._apart(part), np.zeros(len(normal)), self.problem.scale
            for other in near:
                if 0.0 < other < 1.0:  # both ends are on the curve
                    weight = math.prod((part - b) / (other - b) for b in near if b != other)
                    lack += weight * (self.known[other].z - self._curve(other)) / scale
            lack -= normal * (normal @ lack)  # a part of the way is a plane across the curve
            point = solved(self.problem, start + scale * lack, normal)
            gap = abs(near[0] - part) * self.length
            if point is None or point.moved > NEARBY * gap + 1e3 * self.problem.rtol:
                raise ArithmeticError
            self.known[part] = point
        return self.known[part]

    def _apart(self, part: float) -> list[float]:
        """Return the nearest parts that are known, no two of them close as seen from a part."""
        near: list[float] = []
        for other in sorted(self.known, key=lambda known: abs(known - part)):
            if all(abs(other - q) >= 0.25 * abs(other - part) for q in near) and len(near) < 5:
                near.append(other)
        return near

    def _curve(self, part: float) -> Array:
        return course(self.problem, self.here, self.there, part)[0]


def way_between(problem: Problem, here: Point, there: Point) -> Way:
    """Return the branch between two points of it."""
    return Way(problem, here, there, {0.0: here, 1.0: there})


def is_vertical(here: Point, there: Point) -> bool:
    """Tell whether a step is along a branch at a constant p."""
    return bool(max(abs(here.heading[-1]), abs(there.heading[-1])) <= VERTICAL)


def passed(
    problem: Problem, here: Point, there: Point, before: Point | None = None
) -> list[Special] | None:
    """Return the special points between two points, in their order.

    None if the step between them has to be shorter: to be sure that they are on one branch, or that
    nothing happens twice. The point before, if there is one, spares a look half way.
    """
    tests, ratio = list(_tests(problem, here, there)), 0.0
    if before is not None:
        ratio = problem.distance(here.z, there.z) / problem.distance(before.z, here.z)
    if (
        before is not None
        and _is_straight(problem, here, there)
        and all(_is_quiet(test, before, here, there, ratio) for test in tests)
    ):
        return [] if _is_alike(problem, here, there, False) else None
    way = way_between(problem, here, there)
    middle = _middle(way)
    if middle is None:
        return None
    verdicts = [(test, _looked_at(way, test, middle, before, ratio)) for test in tests]
    found = _located(way, [pair for pair in verdicts if pair[1] != "away"])
    if found is None:
        return None
    found = _divided(way, _merged(way, found))
    if found is None:
        return None
    special = [_directed(way, q) for q in sorted(found, key=lambda q: q.part)]
    if special:
        return special if _is_consistent(problem, here, there, special) else None
    return [] if _is_alike(problem, here, there, before is None) else None


def _divided(way: Way, found: Sequence[Special]) -> list[Special] | None:
    """Return special points with those on both sides of a change of the symmetry.

    Across the change test functions are those of different orbits; each side is looked at by
    itself. None if a step has to be shorter for that.
    """
    changes = [q for q in found if q.kind == "symmetry_change"]
    if not changes:
        return list(found)
    if len(changes) > 1:
        return None
    sides = [_beside(way, changes[0], end) for end in (0.0, 1.0)]
    if any(side is None for side in sides):
        return None
    return _merged(way, [*found, *(q for side in sides for q in side or ())])


def _beside(way: Way, change: Special, end: float) -> list[Special] | None:
    """Return the special points between an end of a way and a change of the symmetry on it.

    Nearer and nearer to the change, until the eigenvalues that vanish there are small beside the
    others, which so have the signs that they have at the change itself. At two points in turn: at
    one of them another eigenvalue may just cross zero.
    """
    found: list[Special] = []
    here, place = way.known[end], end
    for gap in HALVES:
        part = change.part + gap * (end - change.part)
        try:
            there = way.at(part)
        except ArithmeticError:
            return None
        ends, parts = (
            ((here, there), (place, part)) if end == 0.0 else ((there, here), (part, place))
        )
        special = passed(way.problem, *ends)
        if special is None:
            return None
        found += [
            q._replace(part=parts[0] + q.part * (parts[1] - parts[0]))
            for q in special
            if q.kind != "user"  # it is looked for along the whole way
        ]
        if _is_next_to(change, there) and _is_next_to(change, here):
            return found
        here, place = there, part
    return None


def _is_next_to(change: Special, point: Point) -> bool:
    """Tell whether what vanishes at a change of the symmetry is small at a point beside it."""
    at = change.point
    zero = np.abs(at.growth) <= change.tolerance
    vanishing = int(zero.sum()) + at.basis.shape[1] - point.basis.shape[1]
    order = np.argsort(np.abs(point.growth), kind="stable")
    small, others = np.abs(point.growth)[order[:vanishing]], point.growth[order[vanishing:]]
    if small.max(initial=0.0) > CLEARLY * np.abs(others).min(initial=np.inf):
        return False
    return int((others > 0.0).sum()) == int((at.growth[~zero] > 0.0).sum())


def _directed(way: Way, special: Special) -> Special:
    """Return a fold with its direction, by where p goes just before it."""
    if special.kind != "fold":
        return special
    slopes = {t: float(q.heading[-1]) for t, q in way.known.items() if t < special.part}
    clear = [t for t, slope in slopes.items() if abs(slope) > VERTICAL]
    return special._replace(fold_direction=-1 if slopes[max(clear, default=0.0)] > 0.0 else 1)


def _looked_at(
    way: Way, test: Test, middle: tuple[float, Point], before: Point | None, ratio: float
) -> str:
    """Return the verdict on a test function, which corners next to the ends leave unsettled."""
    part, at = middle
    if test.kind == "crossing":
        return "crossed"
    word = _verdict(test, way.here, at, way.there, part)
    if word != "away":
        return word
    hidden = _corners(way, test, at, part)
    if before is not None:
        hidden = hidden or _turns(test, (before, way.here, at, way.there), ratio, part)
    return "unsettled" if hidden else word


def _is_consistent(problem: Problem, here: Point, there: Point, special: Sequence[Special]) -> bool:
    """Tell whether the special points between two points explain how they are oriented.

    The determinant of [∂F/∂x, ∂F/∂p; tangent], whose sign is that of det ∂F/∂x times that of the
    tangent's component along p, changes sign once for each dimension of the kernel of a branch
    point, and nowhere else.
    """
    turn = here.orientation * there.orientation
    if any(q.kind == "symmetry_change" for q in special) or problem.spectrum is not None:
        return True
    grown = abs(here.n_growing - there.n_growing)
    if any(q.kind == "branch_point" and q.kernel > max(grown, 1) for q in special):
        return True  # an eigenvalue of several that only touches zero counts twice
    odd = sum(q.n_beside for q in special if q.decided != "touching") % 2 == 1
    return not turn or (turn < 0.0) == odd


def _middle(way: Way) -> tuple[float, Point] | None:
    """Return the point about half way, if it is near the cubic curve through both ends."""
    for part in (0.5, 0.4):
        point = between(way.problem, way.here, way.there, part)
        if point is not None and point.moved <= DETOUR * way.length:
            way.known[part] = point
            return part, point
    return None


def _is_straight(problem: Problem, here: Point, there: Point) -> bool:
    """Tell whether a step is along both tangents, and so certainly on one branch."""
    if here.heading @ there.heading < QUIET_COSINE:
        return False
    chord = unit_length((there.z - here.z) / problem.scale)
    side = chord - unit_length(here.heading + there.heading)
    return bool(side @ side <= QUIET_SIDE**2)


def _is_alike(problem: Problem, here: Point, there: Point, first: bool) -> bool:
    """Tell whether nothing differs that does so only where something is special.

    The start of a branch, and its end at a bound, may be special themselves.
    """
    kinds = [(q.n_growing, q.n_zeros, q.basis.shape) for q in (here, there)]
    if kinds[0] == kinds[1]:
        return True
    special = (first, here, there), (there.p in problem.bounds, there, here)
    return any(
        may and (one.n_zeros > other.n_zeros or one.basis.shape != other.basis.shape)
        for may, one, other in special
    )


def _is_quiet(test: Test, before: Point, here: Point, there: Point, ratio: float) -> bool:
    """Tell whether a test function is too far from zero to reach it within a step.

    By its change, and by how far it is from where the step before, of 1/``ratio`` the length, led.
    """
    last, one, other = test.value(before), test.value(here), test.value(there)
    least = min(abs(one), abs(other))
    if not one * other > 0.0 or not least > test.zone:
        return False
    return least > abs(other - one) and least > abs(other - one - ratio * (one - last))


def _verdict(test: Test, here: Point, middle: Point, there: Point, part: float) -> str:
    """Return whether a test function is ``"away"`` from zero, ``"crossed"`` it, or ``"unsettled"``.

    By the parabola through three values, with some room.
    """
    one, half, other = test.value(here), test.value(middle), test.value(there)
    largest = max(abs(one), abs(half), abs(other))
    if largest <= test.zone:
        return "away"
    change = other - one
    bend = (half - one - part * change) / (4.0 * part * (1.0 - part))
    if min(abs(one), abs(other)) <= test.zone:
        leaves = half * (one + other) > 0.0 and abs(half) >= LEAVING * largest
        return "away" if leaves else "unsettled"
    if one * other < 0.0:
        return "crossed" if abs(bend) <= 0.4 * abs(change) else "unsettled"
    steady = abs(bend) <= 0.25 * abs(change)
    clear = one * half > 0.0 and min(abs(one), abs(half), abs(other)) > 1.5 * abs(bend)
    return "away" if clear or steady else "unsettled"


def _corners(way: Way, test: Test, middle: Point, part: float) -> bool:
    """Tell whether a test function may have reached zero next to an end of a way, in a corner.

    The other values lead beyond zero there, and those nearer to the end do not lead away from it.
    """
    one, half, other = (test.value(q) for q in (way.here, middle, way.there))
    if min(abs(one), abs(half), abs(other)) <= test.zone or one * other <= 0.0:
        return False
    ahead, back = one + (half - one) / part, other + (half - other) / (1.0 - part)
    return (ahead * other < 0.0 and not _approaches(way, test, 1.0)) or (
        back * one < 0.0 and not _approaches(way, test, 0.0)
    )


def _approaches(way: Way, test: Test, end: float) -> bool:
    """Tell whether a test function comes down to its value at an end without a corner before it."""
    last, sign = test.value(way.known[end]), 1.0 if end else -1.0
    before = None
    for k in range(1, 8):
        try:
            value = test.value(way.at(end - sign * 2.0**-k))
        except ArithmeticError:
            return False
        if value * last <= 0.0 or abs(value) <= abs(last):
            return False
        if before is not None and (2.0 * value - before) * last > 0.0:
            return True
        before = value
    return False


def _turns(test: Test, points: Sequence[Point], ratio: float, part: float) -> bool:
    """Tell whether a test function may have reached zero next to a step's beginning, in a corner.

    If it aimed at zero before, and its curvature there is not that within the step.
    """
    last, one, half, other = (test.value(q) for q in points)
    if abs(one) <= test.zone or last * one <= 0.0 or one * (one + ratio * (one - last)) >= 0.0:
        return False
    slopes = (one - last) * ratio, (half - one) / part, (other - half) / (1.0 - part)
    first = (slopes[1] - slopes[0]) / (part + 1.0 / ratio)
    second = slopes[2] - slopes[1]
    return abs(first - second) > 0.5 * max(abs(first), abs(second))


def _tests(problem: Problem, here: Point, there: Point) -> Iterator[Test]:
    """Yield what may vanish between two points, what explains others first."""
    flip = _flip(problem, here, there)
    if flip is not None:
        yield Test("symmetry_change", flip)
    turns = here.orientation * there.orientation < 0.0 and problem.spectrum is None
    folds = []
    if problem.spectrum is None and not is_vertical(here, there):
        folds = [Test("fold", lambda point: float(point.heading[-1]), VERTICAL)]
    if not turns:
        yield from folds
    count = min(len(here.growth), len(there.growth))
    levels = sorted((here.n_growing, there.n_growing))
    zone = max(here.zone, there.zone)
    for level in range(max(levels[0] - 1, 0), min(levels[1] + 1, count)):
        yield Test("spectrum", _growth(level), zone)
    if turns:
        largest = max(here.volume, there.volume)
        yield Test("crossing", lambda q: q.orientation * math.exp(q.volume - largest))
        yield from folds
    for kind, event in (*problem.kinds, *(("user", event) for event in problem.events)):
        largest = max(abs(event(q.x, q.p)) for q in (here, there))
        yield Test(kind, _asked(event), AT_NODE * largest)


def _growth(level: int) -> Callable[[Point], float]:
    """Return the growth that is the next one after as many as the level."""
    return lambda point: (
        float(point.growth[-1 - level]) if len(point.growth) > level else float("nan")
    )


def _asked(event: Callable[[Array, float], float]) -> Callable[[Point], float]:
    return lambda point: float(event(point.x, point.p))


def _located(way: Way, verdicts: Sequence[tuple[Test, str]]) -> list[Special] | None:
    """Return the special points of test functions that are not away from zero.

    None if one of them jumps and has no zero, as where the ends are on two branches, or touches
    zero in a way that is not clear.
    """
    found: list[Special] = []
    for test, word in sorted(verdicts, key=lambda pair: pair[1] == "unsettled"):
        known = [q for q in found if _explains(way, q, test, word)]
        if not known:
            place = _touching(way, test) if word == "unsettled" else _zero(way, test)
            special = [] if place is None else _identified(way, test, place)
            flips = test.kind == "symmetry_change" and word == "crossed"  # the orbit may just turn
            if not flips and (place is None or (word == "crossed" and not special)):
                return None
            if place is None:
                continue
            if word == "unsettled" and any(abs(place.part - q.part) <= BLURRED for q in found):
                continue
            found, known = [*found, *special], special
        if all(q.kind != "symmetry_change" for q in known):
            for more in _others(way, test, known):
                found += _identified(way, test, more)
    return found


def _explains(way: Way, special: Special, test: Test, word: str) -> bool:
    """Tell whether a test function vanishes at a special point that was found.

    There it may touch zero, as it does where p turns at a pitchfork.
    """
    steady = special.kind in ("symmetry_change", "branch_point", "fold")
    if special.kind == "user" or (test.kind == "user" and not (steady and word == "unsettled")):
        return False
    if test.kind != "spectrum" and not steady:
        return False
    if test.kind == "crossing" and special.kind == "symmetry_change":
        return True  # it is measured across another orbit there
    zero = EXPLAINED if special.kind == "symmetry_change" else tolerances.KERNEL
    limit = max(zero * _span(way, test), test.zone)
    if test.kind == "spectrum":
        limit = max(limit, special.tolerance)
    return abs(test.value(special.point)) <= limit


def _others(way: Way, test: Test, known: Sequence[Special]) -> list[Place]:
    """Return where else a test function vanishes next to known zeros that are not simple.

    Its sign counts wherever it exceeds rounding, nearer and nearer to these; next to branch points
    solutions are the less certain, the nearer they are.
    """
    degenerate = [q.part for q in known if not _is_simple(way, test, q.part)]
    for gap, part, side in itertools.product(GRADES, degenerate, (-1.0, 1.0)):
        if 0.0 < part + side * gap < 1.0:
            with contextlib.suppress(ArithmeticError):
                way.at(part + side * gap)
    values = {part: test.value(point) for part, point in way.known.items()}
    singular = [q.part for q in known if q.kind == "branch_point"]

    def is_definite(part: float) -> bool:
        near = min([abs(part - other) * way.length for other in singular], default=1.0)
        return abs(values[part]) * min(near, 1.0) > test.zone

    changes = [
        (low, high)
        for low, high in itertools.pairwise(sorted(filter(is_definite, values)))
        if values[low] * values[high] < 0.0 and not any(low < q.part < high for q in known)
    ]
    places = [_zero(way, test, low, high) for low, high in changes]
    return [place for place in places if place is not None]


def _is_simple(way: Way, test: Test, part: float) -> bool:
    """Tell whether a test function leaves a zero about as fast as it changes along the way."""
    for side in (part - NEXT, part + NEXT):
        try:
            if 0.0 < side < 1.0 and abs(test.value(way.at(side))) < STEEP * NEXT * _span(way, test):
                return False
        except ArithmeticError:
            pass
    return True


def _merged(way: Way, found: Sequence[Special]) -> list[Special]:
    """Return special points without those at the place of another one that says more."""
    rank = ("symmetry_change", "branch_point", "fold")
    order = {kind: k for k, kind in enumerate(rank)}
    kept: list[Special] = []
    for one in sorted(found, key=lambda q: (order.get(q.kind, len(rank)), -q.kernel)):
        near = (q for q in kept if q.kind == one.kind or (q.kind in rank and one.kind in rank))
        if one.kind == "user" or not any(_is_near(way, one, q) for q in near):
            kept.append(one)
    return kept


def _is_near(way: Way, one: Special, other: Special) -> bool:
    """Tell whether two special points that were found are at one place."""
    distance = way.problem.distance(one.point.z, other.point.z)
    return distance <= SAME_PLACE * way.length + one.accuracy + other.accuracy + BLIND


def _zero(way: Way, test: Test, low: float = 0.0, high: float = 1.0) -> Place | None:
    """Return where a test function vanishes between two parts of the way.

    Next to branch points Newton's method has nothing to hold on to: there the point is interpolated
    between its neighbours.
    """
    if test.kind in ("crossing", "symmetry_change"):
        return _turned(way, test, low, high)
    found, span = None, _span(way, test)
    try:
        part = _part_of_zero(way, test, low, high)
        point = way.at(part)
        if test.kind == "user" or abs(test.value(point)) <= max(test.zone, 1e-9 * span):
            found = Place(point, part, "sign_change")
    except (ArithmeticError, ValueError, RuntimeError):
        pass
    derived = test.kind == "user" or way.problem.spectrum is not None
    if found is not None and (derived or not _is_singular(way, found.point)):
        return found
    near = max(test.zone, (ROUGHLY if test.kind == "fold" else tolerances.KERNEL) * span)
    smooth = _smoothed(way, test, near) if test.kind == "spectrum" else test
    for other in (smooth, test):
        best = _interpolated(way, other, low, high)
        solves = best is not None and _solves(way, best.point)
        if best is not None and solves and abs(test.value(best.point)) <= near:
            return best
    return found


def _part_of_zero(way: Way, test: Test, low: float, high: float) -> float:
    """Return the part of the way at which a test function vanishes between two that are known.

    By interpolation, from few points; where that does not lead on, by Brent's method between both,
    whose points also tell whether there are more zeros.
    """
    inside = {part: point for part, point in way.known.items() if low <= part <= high}
    values = {part: test.value(point) for part, point in inside.items()}
    exact = EXACT * max(map(abs, values.values()))
    for _ in range(MOST_GUESSES):
        part, (before, after) = _inverse(values), _sign_change(values)
        if not before < part < after:
            break
        gap = min(part - before, after - part)
        values[part] = test.value(way.at(part))
        if abs(values[part]) <= exact or gap <= CONVERGED:
            return part
    return float(
        scipy.optimize.brentq(lambda t: test.value(way.at(t)), low, high, xtol=1e-15, rtol=1e-13)
    )


def _sign_change(values: dict[float, float]) -> tuple[float, float]:
    """Return the first two places next to each other of a function that changes sign."""
    for low, high in itertools.pairwise(sorted(values)):
        if values[low] * values[high] <= 0.0:
            return low, high
    raise ValueError("values: need a change of sign")


def _inverse(values: dict[float, float]) -> float:
    """Return where a function vanishes, by interpolation of its places by its smallest values."""
    near = {value: part for part, value in values.items()}
    chosen = sorted(near, key=abs)[:4]
    return sum(
        near[one] * math.prod(other / (other - one) for other in chosen if other != one)
        for one in chosen
    )


def _turned(way: Way, test: Test, low: float, high: float) -> Place | None:
    """Return where a test function vanishes next to which solutions are not well determined.

    The determinant of a branch point may vanish to a higher order, of which its root is smooth.
    """
    place = _interpolated(way, test, low, high)
    order = 1 if place is None or test.kind != "crossing" else _order(way, test, place.part)
    if order < 2:
        return place

    def root(q: Point) -> float:
        value = test.value(q)
        return math.copysign(abs(value) ** (1.0 / order), value)

    return _interpolated(way, test._replace(value=root), low, high) or place


def _order(way: Way, test: Test, part: float) -> int:
    """Return to which order a test function vanishes, by its values around."""
    slopes = []
    for gap in (-WIDE, WIDE):
        if 0.0 < part + 2.0 * gap < 1.0:
            with contextlib.suppress(ArithmeticError):
                one, two = (abs(test.value(way.at(part + k * gap))) for k in (1.0, 2.0))
                slopes.append(math.log2(two / one))
    return max(round(float(np.mean(slopes))), 1) if slopes else 1


def _smoothed(way: Way, test: Test, near: float) -> Test:
    """Return a growth as the mean of all that vanish with it, which is smooth where they cross."""
    rough = min(way.known.values(), key=lambda q: abs(test.value(q)))
    lacks = np.abs(rough.growth)
    critical = rough.values[lacks <= max(near, 10.0 * abs(test.value(rough)))]
    own = min(critical, key=lambda value: abs(value.imag))
    alike = np.abs(np.abs(critical.imag) - abs(own.imag)) <= 0.5 * abs(own.imag) + near
    return test._replace(value=_growth_near(own, int(np.count_nonzero(alike))))


def _growth_near(center: complex, count: int) -> Callable[[Point], float]:
    """Return the mean growth of the eigenvalues that are nearest to a number."""
    return lambda q: float(np.mean(q.growth[np.argsort(np.abs(q.values - center))[:count]]))


def _is_singular(way: Way, point: Point) -> bool:
    """Tell whether solutions are much worse determined at a point than at the ends of the way."""
    conditions = []
    for q in (way.here, way.there, point):
        system = bordered(way.problem, q.z, q.basis, q.heading)
        conditions.append(0.0 if system is None else system.factors.condition)
    return conditions[2] < SINGULAR * min(conditions[:2])


def _span(way: Way, test: Test) -> float:
    """Return how large a test function is at the ends of the way."""
    return max(abs(test.value(way.here)), abs(test.value(way.there)))


def _solves(way: Way, point: Point) -> bool:
    """Tell whether the residual of a point that was not solved for is slight."""
    problem = way.problem
    jacobian = problem.matrix(point.z)
    rounding = 1e-12 * float(np.linalg.norm(jacobian)) * float(np.linalg.norm(point.x))
    slow = max(_near_growth(q) for q in (way.here, way.there))
    wrong = SLIGHT * slow * way.length * problem.unit
    return float(np.linalg.norm(problem.value(point.z))) <= rounding + wrong


def _interpolated(way: Way, test: Test, low: float = 0.0, high: float = 1.0) -> Place | None:
    """Return the zero of a test function between points of the way, where it is not solved for.

    There may be solutions at every p there, which Newton's method takes for those of the branch:
    the points are such that the result depends least on them.
    """
    sides = [
        sorted(
            (abs(test.value(q)), t)
            for t, q in way.known.items()
            if low <= t <= high and test.value(q) * sign > 0.0
        )
        for sign in (1.0, -1.0)
    ]
    if not all(sides):
        return None
    (one, first), (other, second) = sides[0][0], sides[1][0]
    guess = (first * other + second * one) / (one + other)
    found = _steady(way, test, guess, [0.01 * 2.0**k for k in range(7)], _root)
    return None if found is None else Place(*found, "interpolated")


def _steady(
    way: Way, test: Test, guess: float, widths: Sequence[float], chosen: "Chosen"
) -> tuple[Point, float] | None:
    """Return what interpolations agree best about, of rising widths around a guess."""
    tried = [_through(way, guess, width, test, chosen) for width in widths]
    pairs = list(itertools.pairwise([pair for pair in tried if pair is not None]))
    if not pairs:
        return None
    gaps = [way.problem.distance(one[0].z, other[0].z) for one, other in pairs]
    return pairs[int(np.argmin(gaps))][1]


Chosen = Callable[[Callable[[float], float], float, float], float | None]


def _root(curve: Callable[[float], float], low: float, high: float) -> float | None:
    """Return where a function vanishes, None if it has the same sign at both ends."""
    if curve(low) * curve(high) > 0.0:
        return None
    return float(scipy.optimize.brentq(curve, low, high, xtol=1e-15))


def _lowest(curve: Callable[[float], float], low: float, high: float) -> float | None:
    """Return where a function of one sign is nearest to zero, None if that is at an end."""
    sign = np.sign(curve(low))
    if sign * curve(high) <= 0.0:
        return None
    found = scipy.optimize.minimize_scalar(
        lambda t: sign * curve(t), bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    inside = min(found.x - low, high - found.x) > BLURRED * (high - low)
    return float(found.x) if inside else None


def _through(
    way: Way, guess: float, width: float, test: Test, chosen: Chosen
) -> tuple[Point, float] | None:
    """Return the point that is chosen on the interpolation through eight points of the way."""
    low, high = max(guess - width, 0.0), min(guess + width, 1.0)
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(np.pi * (np.arange(8) + 0.5) / 8.0)
    try:
        points = [way.at(part) for part in nodes.tolist()]
    except (ArithmeticError, np.linalg.LinAlgError):
        return None
    rows = [np.concatenate([[test.value(q)], q.z, q.tangent]) for q in points]
    curve = scipy.interpolate.BarycentricInterpolator(nodes, np.array(rows), rng=0)
    part = chosen(lambda t: float(curve(t)[0]), low, high)
    if part is None:
        return None
    row, n = curve(part), way.here.z.size
    try:  # the equation need not be defined at the zero itself
        point = _placed(way.problem, row[1 : n + 1], unit_length(row[n + 1 :]))
    except np.linalg.LinAlgError:
        return None
    return point, part


def _placed(problem: Problem, z: Array, tangent: Array) -> Point:
    """Return a point that is interpolated, within the bounds."""
    z = z.copy()
    z[-1] = min(max(z[-1], problem.bounds[0]), problem.bounds[1])
    return stored(problem, z[:-1], float(z[-1]), tangent)


def _touching(way: Way, test: Test) -> Place | None:
    """Return where a test function of one sign touches zero on the way, None if it does not.

    Two eigenvalues that cross zero at one place in opposite directions leave a corner in both;
    their product is smooth.
    """
    if test.kind == "symmetry_change":
        return None
    if test.kind == "spectrum":
        index, zone = way.here.n_growing, test.zone * _span(way, test)
        test = Test("spectrum", lambda q: _least(q, index - 1) * _least(q, index), zone)
    values = {part: test.value(point) for part, point in way.known.items()}
    if not min(values.values()) * max(values.values()) > -test.zone * _span(way, test):
        return None  # it crosses zero
    known = sorted(values, key=lambda part: abs(values[part]))
    span = _span(way, test)
    if abs(values[known[0]]) > 0.5 * span:
        return None
    found = _steady(way, test, known[0], (0.05, 0.1, 0.15, 0.2), _lowest)
    if found is None or abs(test.value(found[0])) > max(test.zone, TOUCHING * span):
        return None
    return Place(*found, "touching") if _solves(way, found[0]) else None


def _least(point: Point, level: int) -> float:
    """Return a growth by its place from the largest, one if there is none."""
    return float(point.growth[-1 - level]) if 0 <= level < len(point.growth) else 1.0


def _identified(way: Way, test: Test, place: Place) -> list[Special]:
    """Return what is special where a test function vanishes, none if it is nothing."""
    problem, dimension, (point, part, decided) = way.problem, way.there.basis.shape[1], place
    value, span = test.value(point), _span(way, test)
    accuracy = abs(value) / span * way.length if span else 0.0
    special = Special(
        point, test.kind, value, accuracy, point.n_zeros, point.zone, decided, part=part
    )
    if test.kind == "user":
        return [special]
    change = float(np.abs(_near_growth(way.here) - _near_growth(way.there)))
    tolerance = 10.0 * point.zone + tolerances.KERNEL * max(change, _near_growth(way.there))
    rough = decided == "interpolated" and test.kind == "fold"
    near = max(tolerance, (ROUGHLY if rough else tolerances.KERNEL) * span)
    judged = decided != "touching" and test.kind in ("spectrum", "fold", "crossing")
    if judged and abs(value) > near:
        return []  # a jump, and no zero
    larger = _at_larger_orbit(problem, point, dimension)
    point = larger or point
    lost = located_orbit(problem, point).shape[1] < dimension
    if test.kind == "symmetry_change" and not lost:
        return []  # the orbit turned
    kernel = int(np.count_nonzero(np.abs(point.values) <= tolerance))
    special = special._replace(point=point, kernel=kernel, tolerance=tolerance)
    if larger is not None or lost:
        return [special._replace(kind="symmetry_change")]
    if test.kind not in ("fold", "spectrum", "crossing"):
        return [special]
    usual = 0 if way.there.orientation else min(way.here.n_zeros, way.there.n_zeros)
    kind, beside = _kind(problem, test, special, usual)
    if kind == "branch_point":
        gap = _gap(problem, point)
        if gap > INSEPARABLE:
            return []  # two components that do not meet
        special = special._replace(accuracy=max(accuracy, gap))
    found = special._replace(kind=kind, n_beside=beside)
    return [*([] if kind == "none" else [found]), *_around(way, test, special, kind)]


def _gap(problem: Problem, point: Point) -> float:
    """Return how far apart solutions near a branch point may be that do not meet there, scaled.

    Where the slow part of F has no slope but a value, they are two components, apart by its root.
    """
    rows, size = scaled_derivatives(problem, point.z)
    left, sizes, _ = np.linalg.svd(rows)
    slow = left[:, sizes <= SLOW * size]
    lack = float(np.linalg.norm(slow.T @ problem.value(point.z))) / problem.unit
    return math.sqrt(lack / size)


def _around(way: Way, test: Test, special: Special, kind: str) -> list[Special]:
    """Return what other eigenvalues make critical where something vanishes, one by one."""
    groups = _groups(way.problem, special.point, special.tolerance)
    found = []
    for name, center in groups:
        if len(groups) == 1 and test.kind == "spectrum" and kind == "none":
            return [special._replace(kind=name)]
        own = Test("spectrum", _growth_near(center, 1), test.zone)
        place = _interpolated(way, own)
        if place is not None:
            accuracy = abs(special.part - place.part) * way.length
            found.append(
                special._replace(
                    kind=name,
                    point=place.point,
                    part=place.part,
                    decided=place.decided,
                    test_value=own.value(place.point),
                    accuracy=accuracy,
                )
            )
    return found


def _groups(problem: Problem, point: Point, tolerance: float) -> list[tuple[str, complex]]:
    """Return what critical eigenvalues at a point make that are not zero, each with one of them."""
    is_map = problem.residual.kind == "map"
    found: list[tuple[str, complex]] = []
    near = 1e3 * tolerance
    for value in point.values[np.abs(point.growth) <= tolerance].astype(complex).tolist():
        if any(abs(value - other) <= near for _, other in found):
            continue
        if value.imag > near:
            found.append(("neimark_sacker" if is_map else "hopf", value))
        elif is_map and value.real < -1.0 and abs(value.imag) <= near:
            found.append(("flip", value))
    return found


def _near_growth(point: Point) -> float:
    """Return the modulus of the growth that is nearest to zero."""
    return float(np.abs(point.growth).min(initial=np.inf)) if len(point.growth) else 0.0


def _kind(problem: Problem, test: Test, special: Special, usual: int = 0) -> tuple[str, int]:
    """Return the kind of a zero of the spectrum, or of where p turns.

    And how many directions lead on from it beside the branch's, and those that do so around it,
    too, which are ``usual``.
    """
    point, tolerance = special.point, special.tolerance
    critical = np.abs(point.values)[np.abs(point.growth) <= tolerance]
    if test.kind == "spectrum" and len(critical) and not (critical <= 1e3 * tolerance).any():
        return "none", 0
    if problem.spectrum is not None:
        return ("index_change" if len(critical) else "none"), 0
    relative = _relative(problem, point, tolerance)
    nulls = null_directions(problem, point.z, point.heading, relative)
    beside = max(len(nulls) - 1 - usual, int(test.kind == "crossing"))
    if beside:
        return "branch_point", beside
    if special.decided == "touching":
        return "none", 0
    turns = test.kind == "fold" or abs(point.heading[-1]) <= BLURRED
    return ("fold" if turns else "branch_point"), 0


def _relative(problem: Problem, point: Point, tolerance: float) -> float:
    """Return a growth in terms of the size of the equation's derivatives."""
    size = usual_size(problem, problem.matrix(point.z), problem.slope(point.z))
    return tolerance / max(size, LEAST_SIZE * problem.size)


def is_on_zero(problem: Problem, point: Point, other: Point) -> bool:
    """Tell whether something vanishes at a point that does not at another one next to it."""
    if point.basis.shape != other.basis.shape or point.n_zeros > other.n_zeros:
        return True
    if problem.spectrum is None and abs(point.heading[-1]) <= VERTICAL < abs(other.heading[-1]):
        return True
    events = (*problem.events, *(event for _, event in problem.kinds))
    return any(_vanishes(event, point, other) for event in events)


def _vanishes(event: Callable[[Array, float], float], point: Point, other: Point) -> bool:
    usual = abs(event(other.x, other.p))
    return abs(event(point.x, point.p)) <= AT_NODE * usual and usual > 0.0


def at_node(
    problem: Problem, point: Point, before: Point | None, after: Point | None
) -> Special | None:
    """Return what is special at a point where something vanishes that was not looked for.

    That is a start, or the end at a bound; ``before`` and ``after`` are its neighbours.
    """
    known = [q for q in (before, after) if q is not None]
    if not known or not all(is_on_zero(problem, point, q) for q in known):
        return None
    tolerance = 10.0 * point.zone
    kernel = int(np.count_nonzero(np.abs(point.values) <= tolerance))
    special = Special(
        point, "none", 0.0, accuracy=0.0, kernel=kernel, tolerance=tolerance, decided="at_node"
    )
    larger = _at_larger_orbit(problem, point, known[0].basis.shape[1])
    if larger is not None:
        kernel = int(np.count_nonzero(np.abs(larger.values) <= tolerance))
        return special._replace(point=larger, kind="symmetry_change", kernel=kernel)
    if point.basis.shape[1] != known[0].basis.shape[1]:
        return special._replace(kind="symmetry_change")
    for kind, event in (*problem.kinds, *(("user", event) for event in problem.events)):
        if all(_vanishes(event, point, q) for q in known):
            return special._replace(kind=kind)
    turns = abs(point.heading[-1]) <= VERTICAL and problem.spectrum is None
    test = Test("fold" if turns else "spectrum", lambda q: 0.0)
    kind, beside = _kind(problem, test, special)
    if kind == "none":
        groups = _groups(problem, point, tolerance)
        return special._replace(kind=groups[0][0]) if groups else None
    if kind != "fold":
        return special._replace(kind=kind, n_beside=beside)
    if len(known) == 2 and known[0].heading[-1] * known[1].heading[-1] > 0.0:
        return None
    if any(is_vertical(point, q) for q in known):
        return None
    return special._replace(kind=kind, fold_direction=1 if known[0].p > point.p else -1)


def _flip(problem: Problem, here: Point, there: Point) -> Callable[[Point], float] | None:
    """Return what changes sign where the orbit loses dimensions between two points, if it may.

    Generators G(x) are compared with what they are at the first point, on an orthonormal basis B of
    what they span there: (G(x_0) B)⁺ G(x) B is the identity there, and has a negative eigenvalue
    after some of them vanished. All that do so together have the same ones.
    """
    basis, residual = here.basis, problem.residual
    if problem.nullity >= 0 or not basis.shape[1] or basis.shape != there.basis.shape:
        return None
    # At a value with a larger symmetry an end of the way has the generators of around.
    p = here.p if there.p in residual.symmetric_at else there.p
    rows = residual.orbit(here.x, p)
    seen, change = rows @ basis, residual.orbit(there.x, p) - rows
    gram = seen.T @ seen
    # By Weyl's inequality no singular value of G reaches zero; the cheaper norm is the larger one.
    for norm in ("fro", 2):
        shift = float(np.linalg.norm(change, norm)) ** 2
        if not lapack.dpotrf(gram - shift * np.eye(len(gram)))[1]:
            return None
    back = np.linalg.pinv(seen)

    def test(point: Point) -> float:
        matrix = back @ (residual.orbit(point.x, p) @ basis)
        return float(scipy.linalg.eigvals(matrix).real.min())

    return test if test(there) < 0.0 else None


def _at_larger_orbit(problem: Problem, point: Point, dimension: int) -> Point | None:
    """Return a located point at the value of p next to it at which its orbit is larger, or None.

    Rounding leaves it beside that value, where the generators do not span the larger orbit.
    """
    if problem.nullity >= 0:
        return None
    for value in problem.residual.symmetric_at:
        if abs(point.p - value) <= tolerances.RANK * float(problem.scale[-1]):
            z = point.z.copy()
            z[-1] = value
            there = _placed(problem, z, point.tangent)
            if there.basis.shape[1] > dimension:
                return there
    return None
