"""Whether the answers of a problem are right: from F and its Jacobian alone."""

import itertools

import numpy as np

from .curves import extent, rank

#: Points of each stretch between special points that are looked at.
POINTS = 12
#: What rounding leaves of F, in terms of its Jacobian and the size of the point; of eigenvalues and
#: singular values at special points, which are roots to 1e-15 of s or so, in terms of the largest
#: around; and of the Jacobian by differences: their step squared.
RESIDUAL, SINGULAR, DERIVATIVE = 1e-12, 1e-9, 1e-5


def wrong_answers(problem, curve):
    """Yield what is wrong with what is known of a curve."""
    yield from _wrong_starts(problem, curve)
    for places in _stretches(problem, curve):
        yield from _wrong_stretch(problem, curve, places)
    for point in curve.special:
        if problem.bounds[0] < curve.at(point.s)[1] < problem.bounds[1]:
            yield from _wrong_special(problem, curve, point)


def _wrong_starts(problem, curve):
    sizes = extent(curve)
    for x, p in curve.starts:
        x = np.asarray(x, float)
        y, q = curve.at(curve.along(x, p))
        gap = np.linalg.norm(curve.seen(x) - curve.seen(y)) / sizes[0] + abs(p - q) / sizes[1]
        if not gap < 1e-9:
            yield f"start {x}, {p}: not on the curve by {gap:.2g}"
        if not problem.bounds[0] <= p <= problem.bounds[1]:
            yield f"start {x}, {p}: outside the bounds"


def _stretches(problem, curve):
    """Return places of each stretch between special points that lies within the bounds."""
    ends = np.unique([*curve.span, *(q.s for q in curve.special)])
    ends = ends[(ends >= curve.span[0]) & (ends <= curve.span[1])]
    count = 3 if problem.heavy else POINTS
    share = (np.arange(count) + 0.5 + 0.1 / np.e) / count
    for low, high in itertools.pairwise(ends):
        places = low + (high - low) * share
        p = np.array([curve.at(s)[1] for s in places])
        inside = (p >= problem.bounds[0]) & (p <= problem.bounds[1])
        if inside.any():
            yield places[inside]


def _wrong_stretch(problem, curve, places):
    sizes, width = extent(curve), curve.span[1] - curve.span[0]
    counts, turns = [], []
    for s in places:
        x, p = curve.at(s)
        J = problem.jacobian(x, p)
        size = np.linalg.norm(J, 2) * sizes[0] + np.linalg.norm(_slope(problem, x, p)) * sizes[1]
        force = np.linalg.norm(problem.fun(x, p))
        if not force <= RESIDUAL * size:
            yield f"F = {force:.2g} at s = {s}"
        if abs(curve.along(x, p) - s) > 1e-6 * width:
            yield f"along: {curve.along(x, p)} at s = {s}"
        counts.append(unstable(problem, J))
        h = 1e-7 * width
        turns.append(np.sign(curve.at(s + h)[1] - curve.at(s - h)[1]))
    if len(set(counts)) > 1:
        yield f"the index is {counts} between special points, from s = {places[0]} to {places[-1]}"
    if len(set(turns)) > 1:
        yield f"p turns between special points, from s = {places[0]} to {places[-1]}"
    x, p = curve.at(places[len(places) // 2])
    if problem.size < 30:
        gap = np.abs(_differences(problem, x, p) - problem.jacobian(x, p)).max()
        if gap > DERIVATIVE * (1.0 + np.abs(problem.jacobian(x, p)).max()):
            yield f"jacobian: differences of F are off by {gap:.2g} at s = {places[0]}"


def unstable(problem, J):
    """Return how many eigenvalues are unstable."""
    values = np.linalg.eigvalsh(J) if problem.symmetric else np.linalg.eigvals(J)
    if problem.kind == "map":
        return int((np.abs(values + 1.0) > 1.0 + 1e-9).sum())
    return int((values.real > 1e-9 * np.abs(values).max()).sum())


def _wrong_special(problem, curve, point):
    x, p = curve.at(point.s)
    width = curve.span[1] - curve.span[0]
    J, slope = problem.jacobian(x, p), _slope(problem, x, p)
    around = [problem.jacobian(*curve.at(point.s + d * width)) for d in (-0.02, 0.0, 0.02)]
    size = max(np.linalg.norm(A, 2) for A in around) + (problem.kind == "map")
    kind = f"{point.kind} at s = {point.s}"
    if point.kind in ("hopf", "neimark_sacker", "flip"):
        values = np.linalg.eigvals(J)
        if point.kind == "flip":
            gap = np.abs(values + 2.0).min()
        else:
            pairs = values[np.abs(values.imag) > 1e-6 * size]
            on = np.abs(pairs + 1.0) - 1.0 if problem.kind == "map" else pairs.real
            gap = np.abs(on).min(initial=np.inf)
        if not gap <= SINGULAR * size:
            yield f"{kind}: eigenvalues {values}"
        return
    U, values, _ = np.linalg.svd(J)
    orbit = 0 if problem.generators is None else rank(problem.generators(x, p))
    kernel = int((values <= 10.0 * SINGULAR * size).sum()) - orbit
    if kernel != point.kernel:
        yield f"{kind}: the kernel has dimension {kernel}, not {point.kernel}"
    across = np.linalg.norm(U[:, len(values) - kernel - orbit :].T @ slope)
    crossing = across <= 1e-6 * (np.linalg.norm(slope) + size / max(abs(p), 1.0))
    if crossing != ("branch_point" in point.kind):
        yield f"{kind}: dF/dp has a part of {across:.2g} outside the range"


def _slope(problem, x, p):
    h = 1e-6 * max(abs(p), problem.bounds[1] - problem.bounds[0])
    return (problem.fun(x, p + h) - problem.fun(x, p - h)) / (2.0 * h)


def _differences(problem, x, p):
    h = 1e-6 * (1.0 + np.linalg.norm(x))
    moved = [(problem.fun(x + h * e, p), problem.fun(x - h * e, p)) for e in np.eye(problem.size)]
    return np.array([(a - b) / (2.0 * h) for a, b in moved]).T
