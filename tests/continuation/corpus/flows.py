"""Equilibria of differential equations that continuation packages use as demos."""

import numpy as np

from .curves import Curve, Problem, Special, bisect, graph, line, states, zeros

BP, FOLD, HOPF = "branch_point", "fold", "hopf"


def hopfs(jacobian, curve, low, high, samples=800):
    """Return the places where the real part of a pair of eigenvalues changes sign.

    Those of the trace in two dimensions, and where no pair is there nothing counts.
    """

    def pair(s):
        values = np.linalg.eigvals(jacobian(*curve.at(s)))
        values = values[np.abs(values.imag) > 1e-9 * np.abs(values).max()]
        return values.real[np.abs(values.real).argmin()] if len(values) else np.nan

    grid = np.linspace(low, high, samples + 1)
    values = np.array([pair(s) for s in grid])
    found = []
    for k in np.flatnonzero(values[1:] * values[:-1] < 0.0):
        place = bisect(pair, grid[k], grid[k + 1])
        if abs(pair(place)) < 1e-6 * max(abs(values[k]), abs(values[k + 1])):
            found.append(place)
    return found


def crossings(jacobian, curve, low, high, samples=800):
    """Return the places where the determinant changes its sign."""
    return zeros(lambda s: np.linalg.det(jacobian(*curve.at(s))), low, high, samples)


def searched(jacobian, curve, singular=FOLD):
    """Return a curve with the zeros of the determinant, folds say, and of real parts of pairs."""
    low, high = curve.span
    found = [Special(singular, s) for s in crossings(jacobian, curve, low, high)]
    found += [Special(HOPF, s) for s in hopfs(jacobian, curve, low, high)]
    return curve._replace(special=tuple(sorted(found, key=lambda point: point.s)))


def ab(b):
    """AUTO's ab: u₂ = b u₁/3, p = u₁ e^{−u₂}/(1 − u₁); folds u₁(1 − u₁) = 3/b, Hopf at trace 0."""

    def fun(x, p):
        rate = p * (1.0 - x[0]) * np.exp(x[1])
        return np.array([rate - x[0], b * rate - 3.0 * x[1]])

    def jacobian(x, p):
        e = p * np.exp(x[1])
        first, second = -e, (1.0 - x[0]) * e
        return np.array([[first - 1.0, second], [b * first, b * second - 3.0]])

    special, root = [], 1.0 - 12.0 / b
    if root > 0.0:
        special += [Special(FOLD, 0.5 * (1.0 + sign * np.sqrt(root))) for sign in (-1.0, 1.0)]
    under = (b + 3.0) ** 2 - 16.0 * b
    if under > 0.0:
        for u in [(b + 3.0 + sign * np.sqrt(under)) / (2.0 * b) for sign in (-1.0, 1.0)]:
            A = u / (1.0 - u)
            if 0.0 < u < 1.0 and (1.0 + A) * (3.0 - b * u) + b * A * u > 0.0:
                special.append(Special(HOPF, u))
    curve = graph(
        "graph", lambda s: s * np.exp(-b * s / 3.0) / (1.0 - s), (-0.1, 0.999),
        tuple(sorted(special, key=lambda point: point.s)), (([0.0, 0.0], 0.0),),
        lambda s: np.array([s, b * s / 3.0]),
    )  # fmt: skip
    return Problem(f"ab_{b}", fun, jacobian, 2, (0.0, 0.4), (curve,))


def brusselator(a):
    curve = states(
        "steady",
        lambda p: np.array([a, p / a]),
        (-1.0, 12.0),
        (Special(HOPF, 1.0 + a * a),),
        (([a, 1.0 / a], 1.0), ([a, 7.0 / a], 7.0)),
    )
    return Problem(
        f"brusselator_{a}",
        lambda x, p: np.array([a - (p + 1) * x[0] + x[0] ** 2 * x[1], p * x[0] - x[0] ** 2 * x[1]]),
        lambda x, p: np.array([[2 * x[0] * x[1] - p - 1, x[0] ** 2],
                               [p - 2 * x[0] * x[1], -x[0] ** 2]]),
        2, (0.5, 8.0), (curve,),
    )  # fmt: skip


def two_brusselators(a=2.0, d=0.1, e=1.0):
    """Two cells: the antisymmetric mode has det 0 at (1 + 2d)(a² + 2e)/2e, a saddle at trace 0."""

    def fun(x, p):
        u, v = x[::2], x[1::2]
        f = a - (p + 1) * u + u**2 * v + d * (u[::-1] - u)
        g = p * u - u**2 * v + e * (v[::-1] - v)
        return np.array([f[0], g[0], f[1], g[1]])

    def jacobian(x, p):
        J = np.zeros((4, 4))
        for k in (0, 2):
            u, v = x[k : k + 2]
            J[k : k + 2, k : k + 2] = [[2 * u * v - p - 1 - d, u * u], [p - 2 * u * v, -u * u - e]]
            J[k : k + 2, 2 - k : 4 - k] = [[d, 0.0], [0.0, e]]
        return J

    curve = states("same", lambda p: np.array([a, p / a, a, p / a]), (-1.0, 12.0),
                   (Special(BP, (1 + 2 * d) * (a * a + 2 * e) / (2 * e)), Special(HOPF, 1 + a * a)),
                   (([a, 0.5, a, 0.5], 1.0), ([a, 3.5, a, 3.5], 7.0)))  # fmt: skip
    return Problem("two_brusselators", fun, jacobian, 4, (0.5, 8.0), (curve,))


def lorenz(s=10.0, b=8.0 / 3.0):
    hopf = np.sqrt(b * (470.0 / 19.0 - 1.0))
    zero = line("zero", np.zeros(3), (-5.0, 40.0), (Special(BP, 1.0, 1, "supercritical"),),
                ((np.zeros(3), 0.5), (np.zeros(3), 2.0)))  # fmt: skip
    q = np.sqrt(b)
    pair = graph("pair", lambda x: 1.0 + x * x / b, (-12.0, 12.0),
                 (Special(HOPF, -hopf, 1, "subcritical"), Special(BP, 0.0),
                  Special(HOPF, hopf, 1, "subcritical")),
                 (([q, q, 1.0], 2.0), ([-3 * q, -3 * q, 9.0], 10.0)),
                 lambda x: np.array([x, x, x * x / b]))  # fmt: skip
    return Problem(
        "lorenz",
        lambda x, r: np.array(
            [s * (x[1] - x[0]), x[0] * (r - x[2]) - x[1], x[0] * x[1] - b * x[2]]
        ),
        lambda x, r: np.array([[-s, s, 0.0], [r - x[2], -1.0, -x[0]], [x[1], x[0], -b]]),
        3, (0.0, 30.0), (zero, pair), diagram={"zero": 1, "pair": 2},
    )  # fmt: skip


def reactor(heat=14.0, cooling=0.9, gamma=20.0):
    """Stirred tank: x₂ = B x₁/(1 + β), D = x₁/((1 − x₁) e^φ), φ = x₂/(1 + x₂/γ)."""

    def fun(x, p):
        rate = p * (1.0 - x[0]) * np.exp(x[1] / (1.0 + x[1] / gamma))
        return np.array([rate - x[0], heat * rate - (1.0 + cooling) * x[1]])

    def jacobian(x, p):
        e = p * np.exp(x[1] / (1.0 + x[1] / gamma))
        slope = (1.0 - x[0]) * e / (1.0 + x[1] / gamma) ** 2
        return np.array([[-e - 1.0, slope], [-heat * e, heat * slope - 1.0 - cooling]])

    ratio = heat / (1.0 + cooling)

    def p(s):
        return s / (1.0 - s) * np.exp(-ratio * s / (1.0 + ratio * s / gamma))

    curve = graph("graph", p, (-0.05, 0.999), (), (([0.0, 0.0], 0.0),),
                  lambda s: np.array([s, ratio * s]))  # fmt: skip
    return Problem("reactor", fun, jacobian, 2, (0.0, 0.5), (searched(jacobian, curve),))


def bogdanov_takens(b):
    """x′ = y, y′ = p + b x + x² − x y: fold at −b/2, Hopf at 0 if b < 0, else a neutral saddle."""

    special = [Special(FOLD, -0.5 * b)]
    if b < 0.0:
        special.append(Special(HOPF, 0.0))
    curve = graph("graph", lambda s: -b * s - s * s, (-3.0, 3.0), tuple(special),
                  (([1.0, 0.0], -b - 1.0), ([-0.5, 0.0], 0.5 * b - 0.25)),
                  lambda s: np.array([s, 0.0]))  # fmt: skip
    return Problem(
        f"bogdanov_takens_{b}",
        lambda x, p: np.array([x[1], p + b * x[0] + x[0] ** 2 - x[0] * x[1]]),
        lambda x, p: np.array([[0.0, 1.0], [b + 2 * x[0] - x[1], -x[0]]]),
        2, (-1.5, 1.0), (curve,),
    )  # fmt: skip


def fitzhugh_nagumo():
    """Trace 1 − v² − 0.064 = 0."""
    v = np.sqrt(1.0 - 0.064)
    curve = graph("graph", lambda s: (s + 0.7) / 0.8 - s + s**3 / 3.0, (-3.0, 3.0),
                  (Special(HOPF, -v), Special(HOPF, v)), (([0.0, 0.875], 0.875),),
                  lambda s: np.array([s, (s + 0.7) / 0.8]))  # fmt: skip
    return Problem(
        "fitzhugh_nagumo",
        lambda x, p: np.array([x[0] - x[0] ** 3 / 3 - x[1] + p, 0.08 * (x[0] + 0.7 - 0.8 * x[1])]),
        lambda x, p: np.array([[1.0 - x[0] ** 2, -1.0], [0.08, -0.064]]),
        2, (-1.0, 3.0), (curve,),
    )  # fmt: skip


def predator_prey():
    """AUTO's pp2: secondary branch points at ⅗ and where the prey is ⅓."""
    e = np.exp(-5.0 / 3.0)

    def fun(x, p):
        u, v = x
        return np.array([3 * u * (1 - u) - u * v - p * (1 - np.exp(-5 * u)), -v + 3 * u * v])

    def jacobian(x, p):
        u, v = x
        return np.array([[3 - 6 * u - v - 5 * p * np.exp(-5 * u), -u], [3 * v, 3 * u - 1]])

    def p(u):
        return 3.0 * u * (1.0 - u) / -np.expm1(-5.0 * u) if u else 0.6

    def slope(u):  # that of p times (1 − e^{−5u})²
        return (3 - 6 * u) * -np.expm1(-5 * u) - 3 * u * (1 - u) * 5 * np.exp(-5 * u)

    meet = (2.0 / 3.0) / (1.0 - e)
    zero = line("zero", [0.0, 0.0], (-1.0, 2.0), (Special(BP, 0.6),),
                (([0.0, 0.0], 0.35), ([0.0, 0.0], 0.9)))  # fmt: skip
    prey = graph("prey", p, (-0.4, 1.2),
                 (Special(BP, 0.0), Special(BP, 1.0 / 3.0), Special(FOLD, bisect(slope, 0.1, 0.9))),
                 (([0.5, 0.0], 0.75 / -np.expm1(-2.5)),), lambda u: np.array([u, 0.0]))  # fmt: skip
    hopf = 1.0 / (3.0 * (1.0 - e) - 5.0 * e)
    both = states("both", lambda q: np.array([1.0 / 3.0, 2.0 - 3.0 * q * (1.0 - e)]), (-1.0, 2.0),
                  (Special(HOPF, hopf), Special(BP, meet)),
                  (([1.0 / 3.0, 2.0 - 1.2 * (1.0 - e)], 0.4),))  # fmt: skip
    return Problem(
        "predator_prey",
        fun,
        jacobian,
        2,
        (0.3, 0.95),
        (zero, prey, both),
        diagram={"zero": 1, "prey": 2},
    )


def rosenzweig_macarthur(m=0.5):
    """Carrying capacity p: prey alone p = x, coexistence from p = x* = 1, Hopf at 1 + 2x*."""
    c = m / (1.0 - m)

    def fun(x, p):
        u, v = x
        eaten = u * v / (1.0 + u)
        return np.array([u - u * u / p - eaten, eaten - m * v])

    def jacobian(x, p):
        u, v = x
        slope = v / (1.0 + u) ** 2
        share = u / (1.0 + u)
        return np.array([[1.0 - 2.0 * u / p - slope, -share], [slope, share - m]])

    prey = graph("prey", lambda s: s, (0.05, 6.0), (Special(BP, c),), (([0.5, 0.0], 0.5),),
                 lambda s: np.array([s, 0.0]))  # fmt: skip
    both = states(
        "both",
        lambda p: np.array([c, (1.0 + c) * (1.0 - c / p)]),
        (0.05, 6.0),
        (Special(BP, c), Special(HOPF, 1.0 + 2.0 * c)),
        (([c, 0.5 * (1 + c)], 2.0 * c),),
    )
    zero = line("zero", [0.0, 0.0], (0.05, 6.0), (), (([0.0, 0.0], 1.0),))
    return Problem("rosenzweig_macarthur", fun, jacobian, 2, (0.25, 5.0), (prey, both, zero),
                   diagram={"prey": 1, "both": 2})  # fmt: skip


def chua(b=7.0):
    """Cubic Chua circuit: at ±1 with a = −α/3, (1 − a)(β − a − α) = −aβ."""
    hopf = (-2.0 / 3.0 + np.sqrt(4.0 / 9.0 + 8.0 * b / 9.0)) / (4.0 / 9.0)
    at = (Special(HOPF, hopf),)
    curves = (
        line("zero", np.zeros(3), (0.1, 12.0), (), ((np.zeros(3), 2.0),)),
        line("right", [1.0, 0.0, -1.0], (0.1, 12.0), at, (([1.0, 0.0, -1.0], 2.0),)),
        line("left", [-1.0, 0.0, 1.0], (0.1, 12.0), at, (([-1.0, 0.0, 1.0], 9.0),)),
    )
    return Problem(
        "chua",
        lambda x, p: np.array([p * (x[1] + (x[0] - x[0] ** 3) / 6), x[0] - x[1] + x[2], -b * x[1]]),
        lambda x, p: np.array([[p * (1 - 3 * x[0] ** 2) / 6, p, 0], [1, -1, 1], [0, -b, 0]], float),
        3, (0.5, 10.0), curves,
    )  # fmt: skip


def roessler(a=0.2, b=0.8):
    """c = a z + b/z: fold at z² = b/a; z = eˢ. At a = b it is a Hopf point, too."""

    def jacobian(x, p):
        return np.array([[0.0, -1.0, -1.0], [1.0, a, 0.0], [x[2], 0.0, x[0] - p]])

    curve = Curve(
        "graph",
        lambda s: (np.array([a, -1.0, 1.0]) * np.exp(s), a * np.exp(s) + b * np.exp(-s)),
        lambda x, p: float(np.log(x[2])),
        (-4.0, 4.0),
        (),
        (([0.2, -1.0, 1.0], 1.0), ([0.8, -4.0, 4.0], 1.0)),
    )
    return Problem(
        "roessler",
        lambda x, p: np.array([-x[1] - x[2], x[0] + a * x[1], b + x[2] * (x[0] - p)]),
        jacobian, 3, (0.2, 5.0), (searched(jacobian, curve),),
    )  # fmt: skip


def toggle():
    """u = p/(1 + v²), v = p/(1 + u²): alike u + u³ = p, else uv = 1, from p = 2."""

    def jacobian(x, p):
        u, v = x
        return np.array([[-1, -2 * p * v / (1 + v * v) ** 2], [-2 * p * u / (1 + u * u) ** 2, -1]])

    alike = graph(
        "alike",
        lambda s: s + s**3,
        (-0.5, 3.0),
        (Special(BP, 1.0, 1, "supercritical"),),
        (([0.5, 0.5], 0.625), ([2.0, 2.0], 10.0)),
        lambda s: np.array([s, s]),
    )
    other = Curve("other", lambda s: (np.array([np.exp(s), np.exp(-s)]), 2.0 * np.cosh(s)),
                  lambda x, p: float(np.log(x[0] / x[1]) / 2.0), (-4.0, 4.0), (Special(BP, 0.0),),
                  (([2.0, 0.5], 2.5),))  # fmt: skip
    return Problem(
        "toggle",
        lambda x, p: np.array([p / (1 + x[1] ** 2) - x[0], p / (1 + x[0] ** 2) - x[1]]),
        jacobian, 2, (0.5, 10.0), (alike, other), diagram={"alike": 1, "other": 2},
    )  # fmt: skip


def catalysis():
    """CO oxidation with a storage step (Bykov, Yablonskii, Kim), along x in closed form."""
    q1, q3, q4, q5, q6, K = 2.5, 10.0, 0.0675, 1.0, 0.1, 0.4

    def fun(x, p):
        z = 1.0 - x.sum()
        return np.array([
            2 * q1 * z**2 - 2 * q5 * x[0] ** 2 - q3 * x[0] * x[1],
            p * z - q6 * x[1] - q3 * x[0] * x[1],
            q4 * z - K * q4 * x[2],
        ])  # fmt: skip

    def jacobian(x, p):
        z = 1.0 - x.sum()
        return np.array([
            [-4 * q1 * z - 4 * q5 * x[0] - q3 * x[1], -4 * q1 * z - q3 * x[0], -4 * q1 * z],
            [-p - q3 * x[1], -p - q6 - q3 * x[0], -p],
            [-q4, -q4, -q4 - K * q4],
        ])  # fmt: skip

    def at(s):
        # y = 2 (q₁ z² − q₅ s²)/(q₃ s) in 1 = s + y + z + z/K
        a, b, c = 2 * q1 / (q3 * s), 1.0 + 1.0 / K, s * (1.0 - 2 * q5 / q3) - 1.0
        z = -2.0 * c / (b + np.sqrt(b * b - 4.0 * a * c))
        y = 2.0 * (q1 * z * z - q5 * s * s) / (q3 * s)
        return np.array([s, y, z / K]), y * (q6 + q3 * s) / z

    curve = Curve("graph", at, lambda x, p: float(x[0]), (0.002, 0.35))
    curve = searched(jacobian, curve)
    return Problem(
        "catalysis",
        fun,
        jacobian,
        3,
        (0.6, 1.4),
        (curve._replace(starts=(curve_start(curve, 0.1), curve_start(curve, 0.02))),),
    )


def curve_start(curve, s):
    x, p = curve.at(s)
    return tuple(x.tolist()), p


def hodgkin_huxley():
    """The squid's axon, rest at 0: V gives all gates, and the current in closed form."""

    def ratio(v):  # v/(e^v − 1) and its derivative
        if abs(v) < 1e-3:
            return 1.0 - v / 2.0 + v * v / 12.0, -0.5 + v / 6.0 - v**3 / 180.0
        e = np.expm1(v)
        return v / e, (e - v * (e + 1.0)) / e**2

    def rates(v):  # opening and closing, with their slopes
        (m, dm), (n, dn) = ratio((25.0 - v) / 10.0), ratio((10.0 - v) / 10.0)
        h = 1.0 / (np.exp((30.0 - v) / 10.0) + 1.0)
        open_ = np.array([m, 0.07 * np.exp(-v / 20.0), 0.1 * n])
        shut = np.array([4.0 * np.exp(-v / 18.0), h, 0.125 * np.exp(-v / 80.0)])
        d_open = np.array([-dm / 10.0, -0.07 / 20.0 * np.exp(-v / 20.0), -0.1 * dn / 10.0])
        d_shut = np.array([-4.0 / 18.0 * np.exp(-v / 18.0), h * (1.0 - h) / 10.0,
                           -0.125 / 80.0 * np.exp(-v / 80.0)])  # fmt: skip
        return open_, shut, d_open, d_shut

    def current(v, m, h, n):
        return 120.0 * m**3 * h * (v - 115.0) + 36.0 * n**4 * (v + 12.0) + 0.3 * (v - 10.599)

    def fun(x, p):
        a, b, _, _ = rates(x[0])
        return np.append(p - current(*x), a * (1.0 - x[1:]) - b * x[1:])

    def jacobian(x, p):
        v, m, h, n = x
        a, b, da, db = rates(v)
        J = np.zeros((4, 4))
        J[0] = [-120 * m**3 * h - 36 * n**4 - 0.3, -360 * m**2 * h * (v - 115),
                -120 * m**3 * (v - 115), -144 * n**3 * (v + 12)]  # fmt: skip
        J[1:, 0] = da * (1.0 - x[1:]) - db * x[1:]
        J[[1, 2, 3], [1, 2, 3]] = -a - b
        return J

    def at(v):
        a, b, _, _ = rates(v)
        x = np.append(v, a / (a + b))
        return x, float(current(*x))

    curve = searched(jacobian, Curve("rest", at, lambda x, p: float(x[0]), (-10.0, 40.0)))
    curve = curve._replace(starts=(curve_start(curve, 0.0), curve_start(curve, 10.0)))
    return Problem("hodgkin_huxley", fun, jacobian, 4, (-5.0, 200.0), (curve,))


def morris_lecar():
    """Folds and a Hopf point (type I): w and the current follow from V."""
    phi, v1, v2, v3, v4 = 0.067, -1.2, 18.0, 12.0, 17.4

    def parts(v):
        m, w = 0.5 * (1 + np.tanh((v - v1) / v2)), 0.5 * (1 + np.tanh((v - v3) / v4))
        dm, dw = 2 * m * (1 - m) / v2, 2 * w * (1 - w) / v4
        c, s = np.cosh((v - v3) / (2 * v4)), np.sinh((v - v3) / (2 * v4))
        return m, w, dm, dw, c, s / (2 * v4)

    def current(v, w):
        return 4.0 * parts(v)[0] * (v - 120) + 8.0 * w * (v + 84) + 2.0 * (v + 60)

    def fun(x, p):
        _, w, _, _, c, _ = parts(x[0])
        return np.array([(p - current(*x)) / 20.0, phi * c * (w - x[1])])

    def jacobian(x, p):
        v, y = x
        m, w, dm, dw, c, dc = parts(v)
        slope = 4.0 * (dm * (v - 120) + m) + 8.0 * y + 2.0
        return np.array([[-slope / 20, -0.4 * (v + 84)], [phi * (dc * (w - y) + c * dw), -phi * c]])

    curve = Curve("rest", lambda v: (np.array([v, parts(v)[1]]), float(current(v, parts(v)[1]))),
                  lambda x, p: float(x[0]), (-70.0, 60.0))  # fmt: skip
    curve = searched(jacobian, curve)
    curve = curve._replace(starts=(curve_start(curve, -60.0), curve_start(curve, 10.0)))
    return Problem("morris_lecar", fun, jacobian, 2, (-20.0, 200.0), (curve,))


def selkov(a=0.1):
    """x = p, y = p/(a + p²): Hopf at 2p² = 1 − 2a ± √(1 − 8a)."""
    places = [np.sqrt(0.5 * (1 - 2 * a + sign * np.sqrt(1 - 8 * a))) for sign in (-1, 1)]
    curve = states(
        "steady",
        lambda p: np.array([p, p / (a + p * p)]),
        (-2.0, 3.0),
        tuple(Special(HOPF, p) for p in places),
        (([0.0, 0.0], 0.0), ([1.0, 1 / 1.1], 1.0)),
    )
    return Problem(
        "selkov",
        lambda x, p: np.array([0.0, p]) + np.array([-1.0, 0.0]) * x[0]
        + np.array([1.0, -1.0]) * (a + x[0] ** 2) * x[1],
        lambda x, p: np.array(
            [[-1 + 2 * x[0] * x[1], a + x[0] ** 2], [-2 * x[0] * x[1], -a - x[0] ** 2]]
        ),
        2, (0.0, 1.5), (curve,),
    )  # fmt: skip


def adaptive():
    """MatCont's adaptive control: x = 0 has a Hopf point at β = 1, x = 1 a neutral saddle at −1."""
    return Problem(
        "adaptive",
        lambda x, p: np.array([x[1], x[2], -x[2] - p * x[1] - x[0] + x[0] ** 2]),
        lambda x, p: np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [2 * x[0] - 1, -p, -1.0]]),
        3, (-2.0, 3.0),
        (line("zero", np.zeros(3), (-5.0, 5.0), (Special(HOPF, 1.0),), ((np.zeros(3), 0.5),)),
         line("one", [1.0, 0.0, 0.0], (-5.0, 5.0), (), (([1.0, 0.0, 0.0], 0.5),))),
    )  # fmt: skip


def van_der_pol():
    return Problem(
        "van_der_pol",
        lambda x, p: np.array([x[1], p * x[1] - x[0] - x[0] ** 2 * x[1]]),
        lambda x, p: np.array([[0.0, 1.0], [-1.0 - 2 * x[0] * x[1], p - x[0] ** 2]]),
        2, (-1.0, 1.0),
        (line("zero", [0.0, 0.0], (-3.0, 3.0), (Special(HOPF, 0.0, 1, "supercritical"),),
              (([0.0, 0.0], -0.5), ([0.0, 0.0], -0.75), ([0.0, 0.0], 0.35))),),
    )  # fmt: skip


def two_hopfs(d):
    """Two oscillators at p = 0 and d, of frequencies 1 and √2."""
    W = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -np.sqrt(2)], [0, 0, np.sqrt(2), 0]])
    off = np.array([0.0, 0.0, d, d])

    def cubes(x):
        return np.repeat(x[::2] ** 2 + x[1::2] ** 2, 2)

    def jacobian(x, p):
        J = W + np.diag(p - off - cubes(x))
        for k in (0, 2):
            J[k : k + 2, k : k + 2] -= 2.0 * np.outer(x[k : k + 2], x[k : k + 2])
        return J

    return Problem(
        f"two_hopfs_{d}", lambda x, p: W @ x + (p - off - cubes(x)) * x, jacobian, 4, (-1.0, 1.0),
        (line("zero", np.zeros(4), (-3.0, 3.0), (Special(HOPF, 0.0), Special(HOPF, d)),
              ((np.zeros(4), -0.5), (np.zeros(4), 0.75))),),
    )  # fmt: skip


def coupled_stuart_landau(d=0.2):
    """z_j′ = (p + i) z_j − |z_j|² z_j + d (z_k − z_j): Hopf points at 0 and 2d."""
    swap = np.kron(np.array([[-d, d], [d, -d]]), np.eye(2))
    turn = np.kron(np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]]))

    def cubes(x):
        return np.repeat(x[::2] ** 2 + x[1::2] ** 2, 2)

    def jacobian(x, p):
        J = swap + turn + np.diag(p - cubes(x))
        for k in (0, 2):
            J[k : k + 2, k : k + 2] -= 2.0 * np.outer(x[k : k + 2], x[k : k + 2])
        return J

    return Problem(
        "stuart_landau", lambda x, p: (swap + turn) @ x + (p - cubes(x)) * x, jacobian, 4,
        (-1.0, 1.0),
        (line("zero", np.zeros(4), (-3.0, 3.0), (Special(HOPF, 0.0), Special(HOPF, 2 * d)),
              ((np.zeros(4), -0.5), (np.zeros(4), 0.8))),),
    )  # fmt: skip


def duffing(c=0.2, f=0.5):
    """z′ = −(c + i(p − |z|²)) z + f: p = (f/c)² sin²φ + c cot φ along the phase; folds, no Hopf."""

    def fun(x, p):
        d = p - x @ x
        return np.array([-c * x[0] + d * x[1] + f, -d * x[0] - c * x[1]])

    def jacobian(x, p):
        d, (u, v) = p - x @ x, x
        return np.array([[-c - 2 * u * v, d - 2 * v * v], [-d + 2 * u * u, -c + 2 * u * v]])

    def at(s):
        r = f / c * np.sin(s)
        return np.array([r * np.sin(s), -r * np.cos(s)]), r * r + c / np.tan(s)

    def slope(s):
        return (f / c) ** 2 * np.sin(2 * s) * np.sin(s) ** 2 - c

    folds = zeros(slope, 0.01, np.pi - 0.01)
    curve = Curve(
        "response",
        at,
        lambda x, p: float(np.arctan2(x[0], -x[1])),
        (0.01, np.pi - 0.01),
        tuple(Special(FOLD, s) for s in folds),
        (([f / c, 0.0], (f / c) ** 2),),
    )
    return Problem("duffing", fun, jacobian, 2, (-3.0, 10.0), (curve,))


def enzymes(rho=100.0):
    """AUTO's enz, two equal cells: folds at ρR′ = −1, branch points at ρR′ = −3."""

    def rate(s):
        return s / (1 + s + s * s), (1 - s * s) / (1 + s + s * s) ** 2

    def fun(x, p):
        return p - x + x[::-1] - x - rho * rate(x)[0]

    def jacobian(x, p):
        return np.diag(-2.0 - rho * rate(x)[1]) + np.array([[0.0, 1.0], [1.0, 0.0]])

    folds = zeros(lambda s: 1.0 + rho * rate(s)[1], 0.0, 60.0, 20000)
    points = zeros(lambda s: 3.0 + rho * rate(s)[1], 0.0, 60.0, 20000)
    special = [*(Special(FOLD, s) for s in folds), *(Special(BP, s) for s in points)]
    curve = graph("alike", lambda s: s + rho * rate(s)[0], (-0.2, 60.0),
                  tuple(sorted(special, key=lambda q: q.s)), (([0.0, 0.0], 0.0),),
                  lambda s: np.array([s, s]))  # fmt: skip
    return Problem("enzymes", fun, jacobian, 2, (0.0, 60.0), (curve,), symmetric=True)


def beside_a_pair(kind, speed=1.0):
    """A steady point of x₀ and a pair whose growth is zero at the same p: both are there."""
    force, slope = {
        "pitchfork": (lambda x, p: p * x - x**3, lambda x, p: p - 3.0 * x * x),
        "transcritical": (lambda x, p: p * x - x * x, lambda x, p: p - 2.0 * x),
        "falling": (lambda x, p: -p * x - x**3, lambda x, p: -p - 3.0 * x * x),
        "fold": (lambda x, p: p - x * x, lambda x, p: -2.0 * x),
    }[kind]

    def growth(x, p):
        return speed * (x if kind == "fold" else p)

    def fun(x, p):
        r = growth(x[0], p)
        return np.array([force(x[0], p), r * x[1] - x[2] - x[1] ** 3, x[1] + r * x[2] - x[2] ** 3])

    def jacobian(x, p):
        r, turn = growth(x[0], p), speed if kind == "fold" else 0.0
        return np.array(
            [
                [slope(x[0], p), 0.0, 0.0],
                [turn * x[1], r - 3.0 * x[1] ** 2, -1.0],
                [turn * x[2], 1.0, r - 3.0 * x[2] ** 2],
            ]
        )

    pair = Special(HOPF, 0.0, beside=1)
    if kind == "fold":
        curve = graph("parabola", lambda s: s * s, (-3.0, 3.0), (Special(FOLD, 0.0), pair),
                      (([0.5, 0.0, 0.0], 0.25), ([-1.0, 0.0, 0.0], 1.0)),
                      lambda s: np.array([s, 0.0, 0.0]))  # fmt: skip
    else:
        curve = line("zero", np.zeros(3), (-3.0, 3.0), (Special(BP, 0.0), pair),
                     ((np.zeros(3), -0.5), (np.zeros(3), 0.35)))  # fmt: skip
    return Problem(f"{kind}_beside_a_pair_{speed:g}", fun, jacobian, 3, (-1.0, 2.0), (curve,))


PROBLEMS = (
    *(ab(b) for b in (14.0, 16.0, 17.0, 17.5, 18.0)),
    brusselator(1.0),
    brusselator(2.0),
    two_brusselators(),
    lorenz(),
    reactor(),
    *(bogdanov_takens(b) for b in (-0.1, -0.01, 0.1)),
    fitzhugh_nagumo(),
    predator_prey(),
    rosenzweig_macarthur(),
    chua(),
    roessler(),
    toggle(),
    catalysis(),
    hodgkin_huxley(),
    morris_lecar(),
    selkov(),
    adaptive(),
    van_der_pol(),
    *(two_hopfs(d) for d in (0.1, 1e-3, 1e-5)),
    coupled_stuart_landau(),
    duffing(),
    enzymes(),
    *(beside_a_pair(kind) for kind in ("pitchfork", "transcritical", "falling", "fold")),
    beside_a_pair("pitchfork", 20.0),
)
