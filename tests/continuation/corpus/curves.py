"""Problems whose branches are known curves s ↦ (x, p), and what can be told of such curves."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

#: Samples of a curve between which it does nothing that is not listed among its special points.
SAMPLES = 400


class Special(NamedTuple):
    """A special point of a curve: its kinds (any one of them), place, kernel."""

    kind: str
    s: float
    kernel: int = 1
    criticality: str = ""
    #: Whether it may be left out: degenerate points at which nothing changes.
    optional: bool = False
    #: Dimension of the kernel that is there beside a pair or a multiplier −1 that is critical.
    beside: int = 0


class Curve(NamedTuple):
    """A smooth curve of solutions, with all its special points."""

    name: str
    #: s ↦ (x, p).
    at: Callable
    #: (x, p) ↦ s, of points on the curve or next to it.
    along: Callable
    #: Smallest and largest s.
    span: tuple
    special: tuple = ()
    #: Round states (x0, p0) on it.
    starts: tuple = ()
    #: That of s, if the curve is closed; ``span`` is one of them.
    period: float = 0.0
    #: What of x tells orbits apart.
    seen: Callable = lambda x: x


class Problem(NamedTuple):
    """An equation, within bounds of p, and those of its branches that runs start on."""

    name: str
    fun: Callable
    jacobian: Callable
    size: int
    bounds: tuple
    curves: tuple
    symmetric: bool = False
    generators: Callable | None = None
    #: "flow" or "map".
    kind: str = "flow"
    #: Branches of the diagram from the first curve: how many lie on which, or "elsewhere".
    diagram: dict | None = None
    #: Whether one variant is enough.
    heavy: bool = False


def bisect(function, low, high):
    """Return the zero of a function that changes its sign between two places."""
    at_low = function(low)
    if not at_low * function(high) <= 0.0:
        raise ValueError(f"no change of sign between {low} and {high}")
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return middle
        value = function(middle)
        if value == 0.0:
            return middle
        if value * at_low > 0.0:
            low = middle
        else:
            high = middle


def zeros(function, low, high, samples=2000):
    """Return all zeros of a function at which it changes its sign."""
    places = np.linspace(low, high, samples + 1) + 1e-9 * (high - low) / np.e
    values = np.array([function(s) for s in places])
    changes = np.flatnonzero(values[1:] * values[:-1] < 0.0)
    return [bisect(function, places[k], places[k + 1]) for k in changes]


def graph(name, p, span, special=(), starts=(), x=lambda s: np.array([s]), along=None):
    """Return the curve of solutions x(s) at p(s), where s is the first component of x."""
    return Curve(
        name,
        lambda s: (x(s), float(p(s))),
        along or (lambda x, p: float(x[0])),
        span,
        special,
        starts,
    )


def line(name, x, span, special=(), starts=()):
    """Return the curve of one state at all p."""
    state = np.asarray(x, float)
    return Curve(name, lambda s: (state, float(s)), lambda x, p: float(p), span, special, starts)


def states(name, x, span, special=(), starts=()):
    """Return the curve of solutions x(p)."""
    return Curve(name, lambda s: (x(s), float(s)), lambda x, p: float(p), span, special, starts)


def sampled(curve):
    """Return places of a curve, special points among them, and p there."""
    return _sampled(curve.at, curve.span, curve.special)


@lru_cache(maxsize=1024)
def _sampled(at, span, special):
    own = [point.s for point in special if span[0] < point.s < span[1]]
    places = np.unique(np.concatenate([np.linspace(*span, SAMPLES + 1), own]))
    return places, np.array([at(s)[1] for s in places])


def places_of(curve, p):
    """Return the places of a curve at a value of p."""
    s, values = sampled(curve)
    gaps = values - p
    found = [float(place) for place, gap in zip(s, gaps, strict=True) if gap == 0.0]
    for k in np.flatnonzero(gaps[1:] * gaps[:-1] < 0.0):
        found.append(bisect(lambda place: curve.at(place)[1] - p, float(s[k]), float(s[k + 1])))
    return found


def exit_from(curve, start, bounds, sign):
    """Return where a curve leaves bounds first, followed from a place, and the bound; or None.

    A closed curve that does not leave them comes back.
    """
    s, p = sampled(curve)
    if curve.period:
        s = np.concatenate([s[:-1] + k * curve.period for k in (-1, 0, 1)])
        p = np.tile(p[:-1], 3)
    ahead = np.flatnonzero(sign * (s - start) > 0.0)[::sign]
    last = start
    for k in ahead:
        if curve.period and abs(s[k] - start) > curve.period:
            return None
        if not bounds[0] <= p[k] <= bounds[1]:
            bound = bounds[int(p[k] > bounds[1])]
            outside = 1.0 if p[k] > bounds[1] else -1.0
            inner, outer = float(last), float(s[k])
            for _ in range(200):
                middle = 0.5 * (inner + outer)
                if outside * (curve.at(middle)[1] - bound) > 0.0:
                    outer = middle
                else:
                    inner = middle
            return inner, bound
        last = s[k]
    if curve.period:
        return None
    raise ValueError(f"{curve.name}: ends within the bounds {bounds} at {last}")


def slope_at(curve, s):
    """Return dp/ds."""
    h = 1e-6 * (curve.span[1] - curve.span[0])
    return (curve.at(s + h)[1] - curve.at(s - h)[1]) / (2.0 * h)


def extent(curve):
    """Return the largest |x| and |p| of a curve, among its samples."""
    places = sampled(curve)[0][::10]
    points = [curve.at(s) for s in places]
    size = max(float(np.linalg.norm(x)) for x, _ in points)
    return max(size, 1e-3), max(abs(p) for _, p in points)


def spread(problem, curve, point, noise):
    """Return how far from a special point it cannot be told from it, in s.

    That is where what vanishes there (an eigenvalue, or the real part of a pair) is above the noise
    of the Jacobian, which is given in terms of its size around there.
    """
    width = curve.span[1] - curve.span[0]
    around = [problem.jacobian(*curve.at(point.s + d * width)) for d in (-0.02, 0.0, 0.02)]
    size = max(np.linalg.norm(J, 2) for J in around) + (problem.kind == "map")

    def value(s):
        J = problem.jacobian(*curve.at(s))
        if point.kind in ("hopf", "neimark_sacker", "flip"):
            values = np.linalg.eigvals(J)
            if point.kind == "flip":
                return np.abs(values + 2.0).min() / size
            pairs = values[np.abs(values.imag) > 1e-7 * size]
            if not len(pairs):
                return 1.0
            if problem.kind == "map":
                return np.abs(np.abs(pairs + 1.0) - 1.0).min() / size
            return np.abs(pairs.real).min() / size
        rows = 0 if problem.generators is None else rank(problem.generators(*curve.at(s)))
        if problem.symmetric:
            sizes = np.sort(np.abs(np.linalg.eigvalsh(J)))
        else:
            sizes = np.linalg.svd(J, compute_uv=False)[::-1]
        return sizes[min(rows, len(sizes) - 1)] / size

    far = 0.0
    for sign in (1.0, -1.0):
        low, high = -48, -3  # powers of two of the width
        while high - low > 1:
            middle = (low + high) // 2
            if value(point.s + sign * 2.0**middle * width) > noise:
                high = middle
            else:
                low = middle
        far = max(far, 2.0**high * width)
    return far


def rank(rows):
    """Return how many generators are independent."""
    return int(np.linalg.matrix_rank(rows, tol=1e-9)) if len(rows) else 0
