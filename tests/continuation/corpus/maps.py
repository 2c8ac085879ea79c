"""Fixed points and cycles of maps: F = fᵏ − x, eigenvalues of its Jacobian are multipliers − 1."""

import numpy as np

from .curves import Curve, Problem, Special, graph, line, states

BP, FOLD, FLIP, TORUS = "branch_point", "fold", "flip", "neimark_sacker"


def mapped(name, f, slope, size, bounds, *curves, period=1, **others):
    """Return the problem of the points that a map brings back after some steps."""

    def fun(x, p):
        y = x
        for _ in range(period):
            y = f(y, p)
        return y - x

    def jacobian(x, p):
        y, J = x, np.eye(size)
        for _ in range(period):
            y, J = f(y, p), np.asarray(slope(y, p), float).reshape(size, size) @ J
        return J - np.eye(size)

    return Problem(name, fun, jacobian, size, bounds, curves, kind="map", **others)


def logistic(period):
    """Fixed points 0 and 1 − 1/r; the 2-cycle turns over at 1 + √6."""
    zero, other = [Special(BP, 1.0)], [Special(BP, 1.0)]
    if period == 1:
        zero.append(Special(FLIP, -1.0))
        other.append(Special(FLIP, 3.0))
    else:
        zero.append(Special(BP, -1.0))
        other.append(Special(BP, 3.0))
    curves = [
        line("zero", [0.0], (-6.0, 6.0), tuple(zero), (([0.0], 0.5), ([0.0], 2.0))),
        states("fixed", lambda r: np.array([1.0 - 1.0 / r]), (0.1, 6.0), tuple(other),
               (([0.5], 2.0), ([0.6], 2.5), ([-1.0], 0.5))),
    ]  # fmt: skip
    if period == 2:
        turn = np.sqrt((np.sqrt(6.0) - 2.0) * (np.sqrt(6.0) + 2.0))

        def cycle(s):
            r = 1.0 + np.sqrt(4.0 + s * s)
            return np.array([(r + 1.0 + s) / (2.0 * r)]), r

        curves.append(
            Curve("cycle", cycle, lambda x, p: float(2.0 * p * x[0] - p - 1.0), (-4.0, 4.0),
                  (Special(FLIP, -turn), Special(BP, 0.0), Special(FLIP, turn)),
                  ((cycle(1.0)[0], cycle(1.0)[1]),))
        )  # fmt: skip
    return mapped(
        f"logistic_{period}", lambda x, r: r * x * (1.0 - x), lambda x, r: r * (1.0 - 2.0 * x), 1,
        (0.35, 3.9), *curves, period=period,
    )  # fmt: skip


def henon(b=0.3):
    """x′ = p − x² + y, y′ = b x: p = x² + (1 − b) x, fold and flip at ∓ (1 − b)/2."""
    x = 0.5 * (1.0 - b)
    curve = graph("fixed", lambda s: s * s + (1.0 - b) * s, (-3.0, 3.0),
                  (Special(FOLD, -x), Special(FLIP, x)),
                  (([0.0, 0.0], 0.0), ([-1.0, -b], b)), lambda s: np.array([s, b * s]))  # fmt: skip
    return mapped(
        "henon", lambda x, p: np.array([p - x[0] ** 2 + x[1], b * x[0]]),
        lambda x, p: np.array([[-2.0 * x[0], 1.0], [b, 0.0]]), 2, (-1.0, 1.5), curve,
    )  # fmt: skip


def delayed_logistic():
    """x′ = r x (1 − y), y′ = x: multipliers λ² − λ + r − 1 = 0, on the unit circle at r = 2."""
    curve = states("fixed", lambda r: np.full(2, 1.0 - 1.0 / r), (0.1, 6.0),
                   (Special(BP, 1.0), Special(TORUS, 2.0)), (([1 / 3, 1 / 3], 1.5),))  # fmt: skip
    return mapped(
        "delayed_logistic", lambda x, r: np.array([r * x[0] * (1.0 - x[1]), x[0]]),
        lambda x, r: np.array([[r * (1.0 - x[1]), -r * x[0]], [1.0, 0.0]]), 2, (0.5, 3.0), curve,
    )  # fmt: skip


def coupled_logistic(d=0.1):
    """Two maps: the antisymmetric multiplier is (2 − r)(1 − 2d)."""
    M = np.array([[1.0 - d, d], [d, 1.0 - d]])
    c = 1.0 - 2.0 * d
    same = states("same", lambda r: np.full(2, 1.0 - 1.0 / r), (0.1, 6.0),
                  (Special(BP, 2.0 - 1.0 / c), Special(BP, 1.0), Special(FLIP, 3.0),
                   Special(FLIP, 2.0 + 1.0 / c)), (([0.5, 0.5], 2.0),))  # fmt: skip
    return mapped(
        "coupled_logistic", lambda x, r: M @ (r * x * (1.0 - x)),
        lambda x, r: M * (r * (1.0 - 2.0 * x)), 2, (0.5, 3.6), same, symmetric=False,
    )  # fmt: skip


def descent():
    """x − p (x³ − x): at ±1 the multiplier is 1 − 2p, at 0 it is 1 + p."""
    flip = (Special(FLIP, 1.0),)
    return mapped(
        "descent", lambda x, p: x - p * (x**3 - x), lambda x, p: 1.0 - p * (3.0 * x**2 - 1.0), 1,
        (0.1, 2.0),
        line("right", [1.0], (-1.0, 4.0), flip, (([1.0], 0.5), ([1.0], 1.5))),
        line("left", [-1.0], (-1.0, 4.0), flip, (([-1.0], 0.75),)),
        line("zero", [0.0], (-1.0, 4.0), (), (([0.0], 0.5),)),
    )  # fmt: skip


def ricker():
    """x exp(p (1 − x)): at 1 the multiplier is 1 − p."""
    return mapped(
        "ricker", lambda x, p: x * np.exp(p * (1.0 - x)),
        lambda x, p: (1.0 - p * x) * np.exp(p * (1.0 - x)), 1, (0.25, 3.0),
        line("one", [1.0], (0.1, 5.0), (Special(FLIP, 2.0),), (([1.0], 0.5), ([1.0], 1.25))),
    )  # fmt: skip


PROBLEMS = (logistic(1), logistic(2), henon(), delayed_logistic(), coupled_logistic(), descent(),
            ricker())  # fmt: skip
