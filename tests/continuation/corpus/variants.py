"""Ways to ask for one branch: coordinates, scales, steps, starts, bounds, directions."""

import zlib
from typing import Any, NamedTuple

import numpy as np

import dlnds as dl

from .curves import places_of, slope_at, spread

STEPS = (0.05, 0.03, 0.1, 0.02)
#: What the first variants change, one after the other; from then on all at random.
ASPECTS = (
    (),
    ("difference", "round"),
    ("rotate", "shift"),
    ("x_small",),
    ("p_large",),
    ("step_max", "round"),
    ("up",),
    ("down",),
    ("tight", "round"),
    ("affine",),
    ("force", "step"),
    ("round", "step"),
    ("step_max", "step"),
    ("x_large",),
    ("p_small",),
    ("shift", "difference"),
    ("rotate", "tight"),
    ("affine", "difference", "round"),
    ("step", "difference", "round"),
    ("x_small", "p_large", "round", "step"),
    ("x_large", "p_small", "tight"),
    ("affine", "up", "round"),
    ("rotate", "down", "step"),
    ("x_small", "p_small", "difference"),
    ("force", "affine", "tight", "step_max"),
)
CHOICES = ("rotate", "shift", "difference", "round", "step", "step_max", "tight", "affine", "force",
           "x_small", "x_large", "p_small", "p_large", "up", "down")  # fmt: skip


class Variant(NamedTuple):
    """One call: y = A x + b, q = c p, G = k A F, from a place of a curve."""

    number: int
    aspects: tuple
    curve: Any
    s: float
    A: Any
    b: Any
    c: float
    k: float
    #: In terms of q, exactly as they are given.
    y0: Any
    q0: float
    bounds: tuple
    direction: str
    options: dict
    with_jacobian: bool


def starts_of(problem):
    """Return the listed starts: curve, x0, p0."""
    return [(curve, x, p) for curve in problem.curves for x, p in curve.starts]


def variant_of(problem, number, without=()):
    """Return a variant of a problem by its number: the same ones each time."""
    rng = np.random.default_rng([zlib.crc32(problem.name.encode()), number])
    if number < len(ASPECTS):
        aspects = ASPECTS[number]
    else:
        aspects = tuple(a for a in CHOICES if rng.random() < 0.25)
    if problem.heavy:  # differences would take a second for each Jacobian
        without = (*without, "difference")
    aspects = tuple(a for a in aspects if a not in without)
    listed = starts_of(problem)
    curve, x0, p0 = listed[number % len(listed)]
    bounds, s0 = problem.bounds, float(curve.along(np.asarray(x0, float), float(p0)))
    x0 = np.asarray(x0, float)
    if "round" in aspects:
        curve, x0, p0, s0 = _round_start(problem, rng, (curve, x0, p0, s0))
    if "tight" in aspects:
        bounds = _tightened(rng, curve, bounds, p0)
    direction = "up" if "up" in aspects else "down" if "down" in aspects else "both"
    if direction != "both" and _has_no_side(curve, s0, p0, bounds, direction):
        direction = "both"
    A, b, c, k = _coordinates(problem, rng, aspects)
    if "x_small" in aspects and not np.any(A @ x0 + b):
        # Nothing tells how small x is when neither a Jacobian nor a start does.
        aspects = tuple(a for a in aspects if a != "difference")
    options = {}
    if "step" in aspects:
        options["step"] = STEPS[rng.integers(4)]
    if "step_max" in aspects:
        options.update(step_max=0.05, max_points=8000)
        options["step"] = min(options.get("step", 0.05), 0.05)
    return Variant(
        number, aspects, curve, s0, A, b, c, k, A @ x0 + b, c * p0,
        (c * bounds[0], c * bounds[1]), direction, options, "difference" not in aspects,
    )  # fmt: skip


def _round_start(problem, rng, default):
    """Return a start at a multiple of 0.05, on any of the curves that have such."""
    low, high = problem.bounds
    unit = 0.05 * 10.0 ** max(0.0, np.ceil(np.log10((high - low) / 40.0)))
    for _ in range(50):
        curve = problem.curves[rng.integers(len(problem.curves))]
        if not curve.starts:
            continue
        p = float(np.round(unit * rng.integers(np.ceil(low / unit), np.floor(high / unit) + 1), 10))
        found = places_of(curve, p) if low <= p <= high else []
        found = [s for s in found if _is_clear(problem, curve, s) and _is_inside(curve, s)]
        if found:
            s = found[rng.integers(len(found))]
            return curve, np.asarray(curve.at(s)[0], float), p, s
    return default


def _is_inside(curve, s):
    return bool(curve.period) or curve.span[0] < s < curve.span[1]


def _is_clear(problem, curve, s):
    """Tell whether a place is no special point, which may be an error to start from."""
    width = curve.span[1] - curve.span[0]
    return all(
        abs(s - point.s) > max(1e-4 * width, 10.0 * spread(problem, curve, point, 1e-7))
        for point in curve.special
        if point.kind != "hopf"
    )


def _tightened(rng, curve, bounds, p0):
    """Return bounds at multiples of 0.05 within others, around p0.

    Not where p turns: rounding decides whether the curve is within those.
    """
    width = curve.span[1] - curve.span[0]
    turns = [curve.at(q.s)[1] for q in curve.special if abs(slope_at(curve, q.s)) * width < 1e-3]
    unit = 0.05 * 10.0 ** max(0.0, np.ceil(np.log10((bounds[1] - bounds[0]) / 40.0)))
    below = np.arange(np.ceil(bounds[0] / unit), np.ceil(p0 / unit - 1e-9)) * unit
    above = np.arange(np.floor(p0 / unit + 1e-9) + 1, np.floor(bounds[1] / unit) + 1) * unit
    below, above = (
        [float(np.round(p, 10)) for p in side if not np.any(np.abs(p - np.array(turns)) < 1e-9)]
        for side in (below, above)
    )
    low = rng.choice(below) if len(below) else bounds[0]
    high = rng.choice(above) if len(above) else bounds[1]
    return float(low), float(high)


def _has_no_side(curve, s, p, bounds, direction):
    """Tell whether there is nothing in a direction, or none is upwards."""
    at_bound = p >= bounds[1] if direction == "up" else p <= bounds[0]
    width = curve.span[1] - curve.span[0]
    return at_bound or abs(slope_at(curve, s)) * width < 1e-3 * (bounds[1] - bounds[0])


def _coordinates(problem, rng, aspects):
    """Return A, b, c and k."""
    n = problem.size
    A, b, c, k = np.eye(n), np.zeros(n), 1.0, 1.0
    if "rotate" in aspects or "affine" in aspects:
        A = np.linalg.qr(rng.normal(size=(n, n)))[0]
    if "affine" in aspects:
        other = np.linalg.qr(rng.normal(size=(n, n)))[0]
        A = (A * np.exp(rng.uniform(-1.0, 1.0, n))) @ other
        b = np.round(rng.normal(size=n), 2)
    if "shift" in aspects:
        b = np.round(rng.normal(size=n), 1)
    for name, power in (("x_small", -6), ("x_large", 6)):
        A, b = (A * 10.0**power, b * 10.0**power) if name in aspects else (A, b)
    c = 1e-6 if "p_small" in aspects else 1e6 if "p_large" in aspects else 1.0
    if "force" in aspects and problem.kind == "flow":  # a multiple of fᵏ − x is of no map
        k = (1e6, 1e-6, 1e3)[rng.integers(3)]
    return A, b, c, k


def residual_of(problem, variant):
    """Return the equation in the coordinates of a variant."""
    A, k = variant.A, variant.k
    plain = problem.size == 1 or np.array_equal(A, A[0, 0] * np.eye(problem.size))
    inverse = np.eye(problem.size) / A[0, 0] if plain else np.linalg.inv(A)
    b, c, kind = variant.b, variant.c, {} if problem.kind == "flow" else {"kind": problem.kind}

    def fun(y, q):
        return k * (A @ problem.fun(inverse @ (y - b), q / c))

    def jacobian(y, q):
        J = problem.jacobian(inverse @ (y - b), q / c)
        return k * J if plain else k * (A @ J @ inverse)

    def generators(y, q):
        return problem.generators(inverse @ (y - b), q / c) @ A.T

    return dl.Residual(
        fun,
        jacobian if variant.with_jacobian else None,
        generators=None if problem.generators is None else generators,
        symmetric=problem.symmetric and "affine" not in variant.aspects,
        **kind,
    )


def run(problem, variant):
    """Return the branch that a variant asks for."""
    return dl.branch(
        residual_of(problem, variant), variant.y0, variant.q0,
        bounds=variant.bounds, direction=variant.direction, **variant.options,
    )  # fmt: skip


def diagram_variant_of(problem, number):
    """Return a variant that starts on the first curve and looks at all of it."""
    first, *others = problem.curves
    alone = problem._replace(curves=(first, *(curve._replace(starts=()) for curve in others)))
    return variant_of(alone, number, without=("tight", "up", "down"))


def run_diagram(problem, variant):
    """Return the diagram from the place of a variant."""
    return dl.diagram(
        residual_of(problem, variant), variant.y0, variant.q0, bounds=variant.bounds,
        **variant.options,
    )  # fmt: skip
