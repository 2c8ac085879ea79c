"""The branch between two points, test functions along it, and what is special there."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dlnds.arrays import Array
from dlnds.continuation.correct import (
    Point,
    Problem,
    course,
    solved,
)

#: Components of headings along p that are rounding: along branches at a constant p nothing folds.
VERTICAL = 1e-10
#: How far a point of a way may be from where it is looked for, in terms of the gap between known
#: points that it is in.
NEARBY = 0.05


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
    #: Imaginary part of the eigenvalue that is critical there, 0 of those that vanish.
    frequency: float = 0.0


class Way(NamedTuple):
    """The branch between two points: a curve that is corrected wherever it is asked for."""

    problem: Problem
    here: Point
    there: Point
    #: Points by their part of the way.
    known: dict[float, Point]
    #: Distance of both ends.
    length: float

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
    return Way(problem, here, there, {0.0: here, 1.0: there}, problem.distance(here.z, there.z))


def is_vertical(here: Point, there: Point) -> bool:
    """Tell whether a step is along a branch at a constant p."""
    return bool(max(abs(here.heading[-1]), abs(there.heading[-1])) <= VERTICAL)


def growth_near(center: complex, count: int) -> Callable[[Point], float]:
    """Return the mean growth of the eigenvalues that are nearest to a number."""
    return lambda q: float(np.mean(q.growth[np.argsort(np.abs(q.values - center))[:count]]))


def size_of(way: Way, test: Test) -> float:
    """Return how large a test function is at the ends of the way."""
    return max(abs(test.value(way.here)), abs(test.value(way.there)))


def slowest_growth(point: Point) -> float:
    """Return the modulus of the growth that is nearest to zero."""
    return float(np.abs(point.growth).min(initial=np.inf)) if len(point.growth) else 0.0
