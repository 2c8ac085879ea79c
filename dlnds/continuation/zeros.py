"""Where a test function vanishes on the way between two points of a branch."""

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # loads scipy.interpolate when it is used, which is rare and takes long
import scipy.optimize

from dlnds.arrays import Array
from dlnds.continuation.correct import (
    EPSILON,
    Point,
    Problem,
    bordered,
    stored,
    unit_length,
)
from dlnds.continuation.parts import frobenius
from dlnds.continuation.ways import (
    Place,
    Special,
    Test,
    Way,
    growth_near,
    size_of,
    slowest_growth,
)
from dlnds.theory import tolerances

#: Parts of a way beside a zero where a test function shows how steep it is there, in terms of its
#: change along the whole, and how near to a zero that is not steep others are looked for.
WIDE, NEXT, STEEP, GRADES = 1e-2, 1e-3, 0.05, tuple(0.5 * 0.7**k for k in range(40))
#: How steep a zero is that none is beside, and how many places are looked at next to others that
#: are steep as such.
STEADY, MOST_WIDE = 0.5, 8
#: Smallest values, in terms of the largest, of a test function that touches zero.
TOUCHING = 1e-9
#: Parts of a step within which a test function that touches zero may do so.
BLURRED = 1e-3
#: Values of test functions at interpolated zeros, in terms of those around.
ROUGHLY = 1e-4
#: Rounding of derivatives by differences of fourth order.
DIFFERENCES = float(np.finfo(float).eps) ** 0.8
#: Condition of the equation at a point, in terms of that at its neighbours, that is singular.
SINGULAR = 1e-2
#: Values of test functions, in terms of the largest, that are zero but for rounding; how near to
#: another one, in parts of the way, the last interpolated zero is, and how many there are at most.
EXACT, CONVERGED, MOST_GUESSES = 1e-14, 1e-8, 6
#: Residuals at a special point that is not solved for, in terms of what a wrong one would have.
SLIGHT = 1e-9


def other_zeros(way: Way, test: Test, known: Sequence[Special]) -> list[Place]:
    """Return where else a test function vanishes next to known zeros that are not simple.

    Its sign counts wherever it exceeds rounding, nearer and nearer to these; next to branch points
    solutions are the less certain, the nearer they are.
    """
    places = [
        q.part + side * gap
        for q, side in itertools.product(known, (-1.0, 1.0))
        for gap in _gaps(way, test, q.part)
    ]
    for place in places:
        if 0.0 < place < 1.0:
            with contextlib.suppress(ArithmeticError):
                way.at(place)
    found = [zero_of(way, test, low, high) for low, high in sign_changes(way, test, known)]
    return [place for place in found if place is not None]


def sign_changes(way: Way, test: Test, known: Sequence[Special]) -> list[tuple[float, float]]:
    """Return parts of the way between which a test function changes sign, but for known zeros.

    Of those parts at which it was looked at, and its sign is more than rounding.
    """
    values = {part: test.value(point) for part, point in way.known.items()}
    singular = [q.part for q in known if q.kind == "branch_point"]

    def is_definite(part: float) -> bool:
        near = min([abs(part - other) * way.length for other in singular], default=1.0)
        return abs(values[part]) * min(near, 1.0) > test.zone

    return [
        (low, high)
        for low, high in itertools.pairwise(sorted(filter(is_definite, values)))
        if values[low] * values[high] < 0.0 and not any(low < q.part < high for q in known)
    ]


def doubt(way: Way, test: Test, place: Place) -> float:
    """Return how far from a zero a test function may vanish as well, in scaled coordinates.

    A simple zero is as certain as its value and rounding are small, next to how steep it is there;
    one that is not is as wide as the test function is zero to rounding.
    """
    size, slope = size_of(way, test), _slope(way, test, place.part)
    if not size:
        return 0.0
    if slope < STEEP * size:
        return way.length * _width(way, test, place.part)
    equation = way.problem.residual
    exact = equation.jacobian is not None and equation.derivative is not None
    usual = {"fold": 1.0, "spectrum": place.point.radius}.get(test.kind, size)
    rounding = (EPSILON if exact else DIFFERENCES) * max(usual, size)
    return way.length * (abs(test.value(place.point)) + rounding) / slope


def _width(way: Way, test: Test, part: float) -> float:
    """Return the part of the way beside a zero within which a test function is zero to rounding."""
    width = 0.0
    for gap in reversed(GRADES):
        sides = [side for side in (part - gap, part + gap) if 0.0 < side < 1.0]
        with contextlib.suppress(ArithmeticError):
            if not any(abs(test.value(way.at(side))) <= test.zone for side in sides):
                break
        width = gap
    return width


def _gaps(way: Way, test: Test, part: float) -> tuple[float, ...]:
    """Return how near to a zero others are looked for, the nearer the less steep it is."""
    steep = _slope(way, test, part)
    if steep < STEEP * size_of(way, test):
        return GRADES
    return GRADES[:MOST_WIDE] if steep < STEADY * size_of(way, test) else ()


def _slope(way: Way, test: Test, part: float) -> float:
    """Return how fast a test function leaves a zero, per part of the way, on the slower side."""
    slopes = []
    for side in (part - NEXT, part + NEXT):
        with contextlib.suppress(ArithmeticError):
            if 0.0 < side < 1.0:
                slopes.append(abs(test.value(way.at(side))) / NEXT)
    return min(slopes, default=size_of(way, test))


def zero_of(way: Way, test: Test, low: float = 0.0, high: float = 1.0) -> Place | None:
    """Return where a test function vanishes between two parts of the way.

    Next to branch points Newton's method has nothing to hold on to: there the point is interpolated
    between its neighbours.
    """
    if test.kind in ("crossing", "symmetry_change"):
        return _turned(way, test, low, high)
    found, span = None, size_of(way, test)
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
        best = interpolated(way, other, low, high)
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
    place = interpolated(way, test, low, high)
    order = 1 if place is None or test.kind != "crossing" else _order(way, test, place.part)
    if order < 2:
        return place

    def root(q: Point) -> float:
        value = test.value(q)
        return math.copysign(abs(value) ** (1.0 / order), value)

    return interpolated(way, test._replace(value=root), low, high) or place


def _order(way: Way, test: Test, part: float) -> int:
    """Return to which order a test function vanishes, by its values around."""
    slopes = []
    for gap in (-WIDE, WIDE):
        if 0.0 < part + 2.0 * gap < 1.0:
            with contextlib.suppress(ArithmeticError):
                one, two = (abs(test.value(way.at(part + k * gap))) for k in (1.0, 2.0))
                if min(one, two) > 0.0:  # next to another zero there may be nothing to compare
                    slopes.append(math.log2(two) - math.log2(one))
    return max(round(float(np.mean(slopes))), 1) if slopes else 1


def _smoothed(way: Way, test: Test, near: float) -> Test:
    """Return a growth as the mean of all that vanish with it, which is smooth where they cross."""
    rough = min(way.known.values(), key=lambda q: abs(test.value(q)))
    lacks = np.abs(rough.growth)
    critical = rough.values[lacks <= max(near, 10.0 * abs(test.value(rough)))]
    own = min(critical, key=lambda value: abs(value.imag))
    alike = np.abs(np.abs(critical.imag) - abs(own.imag)) <= 0.5 * abs(own.imag) + near
    return test._replace(value=growth_near(own, int(np.count_nonzero(alike))))


def _is_singular(way: Way, point: Point) -> bool:
    """Tell whether solutions are much worse determined at a point than at the ends of the way."""
    conditions = []
    for q in (way.here, way.there, point):
        system = bordered(way.problem, q.z, q.basis, q.heading)
        conditions.append(0.0 if system is None else system.factors.condition)
    return conditions[2] < SINGULAR * min(conditions[:2])


def _solves(way: Way, point: Point) -> bool:
    """Tell whether the residual of a point that was not solved for is slight."""
    problem = way.problem
    size = frobenius(problem.thin_matrix(point.z))
    rounding = 1e-12 * size * float(np.linalg.norm(point.x))
    slow = max(slowest_growth(q) for q in (way.here, way.there))
    wrong = SLIGHT * slow * way.length * problem.unit
    return float(np.linalg.norm(problem.value(point.z))) <= rounding + wrong


def interpolated(way: Way, test: Test, low: float = 0.0, high: float = 1.0) -> Place | None:
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
        point = placed_near(way.problem, row[1 : n + 1], unit_length(row[n + 1 :]))
    except np.linalg.LinAlgError:
        return None
    return point, part


def placed_near(problem: Problem, z: Array, tangent: Array) -> Point:
    """Return a point that is interpolated, within the bounds."""
    z = z.copy()
    z[-1] = min(max(z[-1], problem.bounds[0]), problem.bounds[1])
    return stored(problem, z[:-1], float(z[-1]), tangent)


def _product(way: Way, test: Test) -> Test:
    """Return the product of the growths on both sides of zero, or that of the one side there is."""
    count = min(len(way.here.growth), len(way.there.growth))
    levels = [k for k in (way.here.n_growing - 1, way.here.n_growing) if 0 <= k < count]
    zone = test.zone * size_of(way, test) ** (len(levels) - 1)
    return Test("spectrum", lambda q: math.prod(float(q.growth[-1 - k]) for k in levels), zone)


def touching(way: Way, test: Test) -> Place | None:
    """Return where a test function of one sign touches zero on the way, None if it does not.

    Two eigenvalues that cross zero at one place in opposite directions leave a corner in both;
    their product is smooth.
    """
    if test.kind == "symmetry_change":
        return None
    if test.kind == "spectrum":
        test = _product(way, test)
    values = {part: test.value(point) for part, point in way.known.items()}
    if not min(values.values()) * max(values.values()) > -test.zone * size_of(way, test):
        return None  # it crosses zero
    known = sorted(values, key=lambda part: abs(values[part]))
    span = size_of(way, test)
    if abs(values[known[0]]) > 0.5 * span:
        return None
    found = _steady(way, test, known[0], (0.05, 0.1, 0.15, 0.2), _lowest)
    if found is None or abs(test.value(found[0])) > max(test.zone, TOUCHING * span):
        return None
    return Place(*found, "touching") if _solves(way, found[0]) else None
