"""Normal forms and other equations of one component."""

import numpy as np

from .curves import Curve, Problem, Special, bisect, graph, line

BP, FOLD, CUSP = "branch_point", "fold", "cusp"


def scalar(name, f, slope, bounds, *curves, **others):
    """Return the problem of a function of two numbers and its derivative by the first."""
    return Problem(
        name,
        lambda x, p: np.array([f(x[0], p)]),
        lambda x, p: np.array([[slope(x[0], p)]]),
        1,
        bounds,
        curves,
        symmetric=True,
        **others,
    )


def unfolded(a):
    """p + a x − x³: folds at x² = a/3."""
    x = np.sqrt(a / 3.0)
    curve = graph(
        "graph", lambda s: s**3 - a * s, (-3.0, 3.0), (Special(FOLD, -x), Special(FOLD, x)),
        (([2.0], 8.0 - 2.0 * a), ([-1.0], a - 1.0), ([0.0], 0.0)),
    )  # fmt: skip
    return scalar(f"hysteresis_{a}", lambda x, p: p + a * x - x**3, lambda x, p: a - 3 * x**2,
                  (-10.0, 10.0), curve)  # fmt: skip


def imperfect(e):
    """p x − x³ + e, p = x² − e/x: one component has a fold at x³ = −e/2."""
    x = -np.cbrt(0.5 * e)
    curves = (
        graph("upper", lambda s: s**2 - e / s, (1e-3 * e, 3.0), (), (([1.0], 1.0 - e),)),
        graph("lower", lambda s: s**2 - e / s, (-3.0, -1e-3 * e), (Special(FOLD, x),),
              (([-1.0], 1.0 + e),)),
    )  # fmt: skip
    return scalar(f"imperfect_{e}", lambda x, p: p * x - x**3 + e, lambda x, p: p - 3 * x**2,
                  (-1.5, 2.0), *curves)  # fmt: skip


def circle(a, centre=0.0, name="isola", special=None, starts=None):
    """Return the curve p² + x² = a² around a centre."""
    return Curve(
        name,
        lambda s: (np.array([a * np.sin(s)]), centre + a * np.cos(s)),
        lambda x, p: float(np.arctan2(x[0], p - centre)) % (2.0 * np.pi),
        (0.0, 2.0 * np.pi),
        special or (Special(FOLD, 0.0), Special(FOLD, np.pi)),
        starts or (([a], centre), ([-a], centre), ([0.6 * a], centre + 0.8 * a)),
        2.0 * np.pi,
    )


def crossed_isola():
    """(p² + x² − 1)(x − ½): a line crosses the isola at p² = ¾."""
    s = np.pi / 6.0
    q = np.sqrt(0.75)
    ring = circle(1.0, special=(Special(FOLD, 0.0), Special(FOLD, np.pi), Special(BP, s),
                                Special(BP, np.pi - s)),
                  starts=(([1.0], 0.0), ([-1.0], 0.0), ([-0.6], 0.8)))  # fmt: skip
    across = line("line", [0.5], (-3.0, 3.0), (Special(BP, -q), Special(BP, q)),
                  (([0.5], -2.0), ([0.5], 0.0), ([0.5], 1.5)))  # fmt: skip
    return scalar(
        "isola_crossed",
        lambda x, p: (p * p + x * x - 1.0) * (x - 0.5),
        lambda x, p: 2.0 * x * (x - 0.5) + p * p + x * x - 1.0,
        (-2.0, 2.0),
        ring,
        across,
        diagram={"isola": 1, "line": 2},
    )


def mushroom(c):
    """p² = m(1 − x), m(u) = u ((u − 1)² + c): folds at m′ = 0, twice two."""
    roots = [(2.0 + sign * np.sqrt(1.0 - 3.0 * c)) / 3.0 for sign in (-1.0, 1.0)]
    places = sorted([*np.sqrt(roots), *-np.sqrt(roots)])
    curve = Curve(
        "mushroom",
        lambda s: (np.array([1.0 - s * s]), s * np.sqrt((s * s - 1.0) ** 2 + c)),
        lambda x, p: float(np.sign(p) * np.sqrt(max(1.0 - x[0], 0.0))),
        (-2.5, 2.5),
        tuple(Special(FOLD, s) for s in places),
        (([1.0], 0.0), ([0.0], np.sqrt(c)), ([-1.0], np.sqrt(2.0 * (1.0 + c)))),
    )
    return scalar(
        f"mushroom_{c}",
        lambda x, p: (1.0 - x) * (x * x + c) - p * p,
        lambda x, p: -x * x - c + (1.0 - x) * 2.0 * x,
        (-2.0, 2.0),
        curve,
    )


def lemniscate():
    """x² = p² (1 − p²): closed, crosses itself at 0."""
    turn = 0.5 * np.pi

    def along(x, p):
        # cos s = x/p where p is not zero, and ±1 at the crossing, which tells the passes apart.
        cosine = x[0] / p if abs(p) > 1e-3 else np.sign(x[0] * p) * np.sqrt(1.0 - p * p)
        return float(np.arctan2(p, cosine)) % (2.0 * np.pi)

    curve = Curve(
        "eight", lambda s: (np.array([np.sin(s) * np.cos(s)]), np.sin(s)), along,
        (0.0, 2.0 * np.pi),
        (Special(BP, 0.0), Special(FOLD, turn), Special(BP, 2 * turn), Special(FOLD, 3 * turn)),
        (([0.48], 0.8), ([-0.48], -0.8), ([0.48], 0.6)), 2.0 * np.pi,
    )  # fmt: skip
    return scalar("lemniscate", lambda x, p: x * x - p * p * (1.0 - p * p), lambda x, p: 2.0 * x,
                  (-2.0, 2.0), curve, diagram={"eight": 1})  # fmt: skip


def chain_of_lobes():
    """x² = (1 − p²)(p² − ¼)²: closed, crosses itself at p = ±½."""

    def along(x, p):
        gap = p * p - 0.25
        sine = np.sqrt(max(1.0 - p * p, 0.0))
        sign = np.sign(x[0] * gap) if x[0] * gap else 1.0
        return float(np.arctan2(sign * sine, p)) % (2.0 * np.pi)

    third = np.pi / 3.0
    curve = Curve(
        "lobes", lambda s: (np.array([np.sin(s) * (np.cos(s) ** 2 - 0.25)]), np.cos(s)), along,
        (0.0, 2.0 * np.pi),
        (Special(FOLD, 0.0), Special(FOLD, np.pi), *(Special(BP, k * third) for k in (1, 2, 4, 5))),
        (([-0.25], 0.0), ([0.25], 0.0), ([0.6 * 0.39], 0.8)), 2.0 * np.pi,
    )  # fmt: skip
    return scalar(
        "lissajous", lambda x, p: x * x - (1.0 - p * p) * (p * p - 0.25) ** 2,
        lambda x, p: 2.0 * x, (-2.0, 2.0), curve,
    )  # fmt: skip


def rod(e):
    """p sin x − x + e: a rigid rod on a spring, loaded a little beside its axis."""
    if not e:
        bent = graph(
            "bent",
            lambda s: s / np.sin(s) if s else 1.0,
            (-3.0, 3.0),
            (Special(BP, 0.0),),
            (([1.5], 1.5 / np.sin(1.5)), ([-2.0], 2.0 / np.sin(2.0))),
        )
        straight = line("straight", [0.0], (-1.0, 7.0), (Special(BP, 1.0, 1, "supercritical"),),
                        (([0.0], 0.5), ([0.0], 2.0)))  # fmt: skip
        curves, answer = (straight, bent), {"straight": 1, "bent": 2}
    else:
        place = bisect(lambda s: np.sin(s) - (s - e) * np.cos(s), -2.0, -1e-3)
        answer = None
        curves = (
            graph("natural", lambda s: (s - e) / np.sin(s), (1e-4 * e, 3.0), (),
                  (([1.0], (1.0 - e) / np.sin(1.0)),)),
            graph("other", lambda s: (s - e) / np.sin(s), (-3.0, -1e-4 * e),
                  (Special(FOLD, place),), (([-2.0], (2.0 + e) / np.sin(2.0)),)),
        )  # fmt: skip
    return scalar(f"rod_{e}", lambda x, p: p * np.sin(x) - x + e, lambda x, p: p * np.cos(x) - 1.0,
                  (0.25, 5.0), *curves, diagram=answer)  # fmt: skip


def waves():
    """p = x/10 + sin x: twenty folds or so one after the other."""
    first = np.arccos(-0.1)
    places = sorted(sign * first + 2.0 * np.pi * k for k in range(-5, 6) for sign in (-1, 1))
    places = [s for s in places if -32.0 < s < 32.0]
    curve = graph("waves", lambda s: 0.1 * s + np.sin(s), (-32.0, 32.0),
                  tuple(Special(FOLD, s) for s in places), (([0.0], 0.0),))  # fmt: skip
    return scalar("waves", lambda x, p: p - 0.1 * x - np.sin(x), lambda x, p: -0.1 - np.cos(x),
                  (-2.0, 2.0), curve)  # fmt: skip


def three_folds(c):
    """p = (x² − c)²: two minima and a maximum of p, which differ by c²."""
    root = np.sqrt(c)
    curve = graph(
        "well", lambda s: (s * s - c) ** 2, (-3.0, 3.0),
        (Special(FOLD, -root), Special(FOLD, 0.0), Special(FOLD, root)),
        (([0.5], (0.25 - c) ** 2), ([-1.0], (1.0 - c) ** 2)),
    )  # fmt: skip
    return scalar(f"three_folds_{c}", lambda x, p: p - (x * x - c) ** 2,
                  lambda x, p: -4.0 * x * (x * x - c), (-1.0, 2.0), curve)  # fmt: skip


def flat_pitchfork(n):
    """p x − xⁿ⁺¹: a pitchfork whose wings are p = xⁿ."""
    straight = line("zero", [0.0], (-3.0, 3.0), (Special(BP, 0.0, 1, "none"),),
                    (([0.0], -0.5), ([0.0], 0.35)))  # fmt: skip
    wings = graph("wings", lambda s: s**n, (-2.0, 2.0), (Special(BP, 0.0, 1, "none"),),
                  (([1.0], 1.0), ([-1.0], 1.0)))  # fmt: skip
    return scalar(f"flat_pitchfork_{n}", lambda x, p: p * x - x ** (n + 1),
                  lambda x, p: p - (n + 1) * x**n, (-1.0, 2.0), straight, wings,
                  diagram={"zero": 1, "wings": 2})  # fmt: skip


root = np.sqrt(0.5)
PROBLEMS = (
    scalar(
        "fold", lambda x, p: p + x**2, lambda x, p: 2.0 * x, (-1.5, 1.0),
        graph("parabola", lambda s: -s * s, (-3.0, 3.0), (Special(FOLD, 0.0),),
              (([1.0], -1.0), ([-1.0], -1.0), ([0.5], -0.25))),
        diagram={"parabola": 1},
    ),
    scalar(
        "flat_fold", lambda x, p: p - x**4, lambda x, p: -4.0 * x**3, (-1.0, 2.0),
        graph("quartic", lambda s: s**4, (-3.0, 3.0), (Special(FOLD, 0.0),),
              (([1.0], 1.0), ([-1.0], 1.0))),
    ),
    scalar(
        "transcritical", lambda x, p: p * x - x**2, lambda x, p: p - 2.0 * x, (-1.0, 1.0),
        line("zero", [0.0], (-3.0, 3.0), (Special(BP, 0.0),),
             (([0.0], -0.5), ([0.0], -0.75), ([0.0], 0.35))),
        graph("other", lambda s: s, (-3.0, 3.0), (Special(BP, 0.0),), (([-0.5], -0.5),)),
        diagram={"zero": 1, "other": 2},
    ),
    scalar(
        "pitchfork", lambda x, p: p * x - x**3, lambda x, p: p - 3.0 * x**2, (-1.0, 1.0),
        line("zero", [0.0], (-3.0, 3.0), (Special(BP, 0.0, 1, "supercritical"),),
             (([0.0], -0.5), ([0.0], -0.75), ([0.0], -0.35), ([0.0], -0.15), ([0.0], -0.05))),
        graph("wings", lambda s: s * s, (-2.0, 2.0), (Special(BP, 0.0),), (([0.5], 0.25),)),
        diagram={"zero": 1, "wings": 2},
    ),
    scalar(
        "pitchfork_sub", lambda x, p: p * x + x**3, lambda x, p: p + 3.0 * x**2, (-1.0, 1.0),
        line("zero", [0.0], (-3.0, 3.0), (Special(BP, 0.0, 1, "subcritical"),),
             (([0.0], -0.5), ([0.0], 0.7))),
        graph("wings", lambda s: -s * s, (-2.0, 2.0), (Special(BP, 0.0),), (([0.5], -0.25),)),
        diagram={"zero": 1, "wings": 2},
    ),
    scalar(
        "pitchfork_quintic", lambda x, p: p * x + x**3 - x**5,
        lambda x, p: p + 3.0 * x**2 - 5.0 * x**4, (-1.0, 1.0),
        line("zero", [0.0], (-3.0, 3.0), (Special(BP, 0.0, 1, "subcritical"),), (([0.0], -0.5),)),
        graph("wings", lambda s: s**4 - s * s, (-2.0, 2.0),
              (Special(FOLD, -root), Special(BP, 0.0), Special(FOLD, root)), (([1.0], 0.0),)),
        diagram={"zero": 1, "wings": 2},
    ),
    scalar(
        "cubic", lambda x, p: p - x**3, lambda x, p: -3.0 * x**2, (-2.0, 2.0),
        graph("graph", lambda s: s**3, (-3.0, 3.0), (Special(CUSP, 0.0, optional=True),),
              (([-1.0], -1.0), ([0.5], 0.125))),
    ),
    *(unfolded(a) for a in (1.0, 0.1, 0.01, 0.001)),
    *(imperfect(e) for e in (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-7)),
    *(
        scalar(f"isola_{a}", lambda x, p, a=a: p * p + x * x - a * a, lambda x, p: 2.0 * x,
               (-2.0, 2.0), circle(a), diagram={"isola": 1})
        for a in (1.0, 0.5, 0.1)
    ),
    scalar(
        "isola_and_line", lambda x, p: (p * p + x * x - 1.0) * (x - 2.0),
        lambda x, p: 2.0 * x * (x - 2.0) + p * p + x * x - 1.0, (-3.0, 3.0),
        circle(1.0), line("line", [2.0], (-5.0, 5.0), (), (([2.0], 0.0),)),
        diagram={"isola": 1},
    ),
    scalar(
        "two_isolas",
        lambda x, p: ((p - 1.5) ** 2 + x * x - 1.0) * ((p + 1.5) ** 2 + x * x - 1.0),
        lambda x, p: 2.0 * x * ((p - 1.5) ** 2 + (p + 1.5) ** 2 + 2.0 * x * x - 2.0),
        (-3.0, 3.0), circle(1.0, 1.5, "right"), circle(1.0, -1.5, "left"),
    ),
    crossed_isola(),
    mushroom(0.05),
    mushroom(0.001),
    lemniscate(),
    chain_of_lobes(),
    scalar(
        "touching", lambda x, p: p * p * x - x**3, lambda x, p: p * p - 3.0 * x * x, (-1.0, 1.0),
        line("zero", [0.0], (-3.0, 3.0), (Special(BP, 0.0),), (([0.0], -0.5), ([0.0], 0.75))),
        graph("up", lambda s: s, (-3.0, 3.0), (Special(BP, 0.0),), (([0.5], 0.5),)),
        graph("down", lambda s: -s, (-3.0, 3.0), (Special(BP, 0.0),), (([0.5], -0.5),)),
        diagram={"zero": 1, "up": 2, "down": 2},
    ),
    scalar(
        "three_lines", lambda x, p: x * (x - p) * (x + p - 1.0),
        lambda x, p: (x - p) * (x + p - 1.0) + x * (x + p - 1.0) + x * (x - p), (-1.0, 2.0),
        line("zero", [0.0], (-5.0, 5.0), (Special(BP, 0.0), Special(BP, 1.0)),
             (([0.0], -0.5), ([0.0], 0.5))),
        graph("rising", lambda s: s, (-5.0, 5.0), (Special(BP, 0.0), Special(BP, 0.5)),
              (([-0.5], -0.5), ([0.25], 0.25))),
        graph("falling", lambda s: 1.0 - s, (-5.0, 5.0), (Special(BP, 0.0), Special(BP, 0.5)),
              (([-0.5], 1.5),)),
        diagram={"zero": 1, "rising": 2, "falling": 2},
    ),
    scalar(
        "schloegl", lambda x, p: p - 11.0 * x + 6.0 * x**2 - x**3,
        lambda x, p: -11.0 + 12.0 * x - 3.0 * x**2, (0.0, 12.0),
        graph("graph", lambda s: s**3 - 6.0 * s**2 + 11.0 * s, (-1.0, 5.0),
              (Special(FOLD, 2.0 - 1.0 / np.sqrt(3.0)), Special(FOLD, 2.0 + 1.0 / np.sqrt(3.0))),
              (([1.0], 6.0), ([3.0], 6.0), ([0.0], 0.0))),
    ),
    three_folds(1e-4),
    three_folds(1e-6),
    flat_pitchfork(4),
    flat_pitchfork(6),
    rod(0.0),
    rod(0.1),
    rod(0.001),
    waves(),
)  # fmt: skip
