"""Discretized equations, coupled cells, equations with symmetry, and isolas of more components."""

import numpy as np

from .curves import Curve, Problem, Special, bisect, graph, line, zeros
from .scalar import circle

BP, FOLD, HOPF = "branch_point", "fold", "hopf"
#: Where an orbit of the declared symmetry loses dimensions.
CENTRE = "branch_point|symmetry_change"


def laplacian(n, spacing, ends="dirichlet"):
    """Return the second difference; Neumann ends lie half a spacing outside."""
    A = np.diag(np.full(n - 1, 1.0), 1) + np.diag(np.full(n - 1, 1.0), -1) - 2.0 * np.eye(n)
    if ends == "neumann":
        A[0, 0] = A[-1, -1] = -1.0
    return A / spacing**2


def crossed(jacobian, curve):
    """Return a curve with the zeros of the largest eigenvalue, folds, and of others, where it is
    crossed; the curve's states have a symmetry that the other kernels have not.
    """
    size = len(curve.at(curve.span[0])[0])
    places = {}
    for k in range(1, size + 1):
        found = zeros(
            lambda s, k=k: np.linalg.eigvalsh(jacobian(*curve.at(s)))[-k], *curve.span, 300
        )
        if not found:
            break
        for s in found:
            same = next((other for other in places if abs(other - s) < 1e-6), s)
            places.setdefault(same, []).append(k)
    special = [Special(FOLD if 1 in at else BP, s, len(at)) for s, at in sorted(places.items())]
    return curve._replace(special=tuple(special))


def bratu(n, bounds=(0.5, 4.0)):
    """u + log(λh²) = w obeys w₊ = 2w − w₋ − e^w, symmetric about the middle: from its top to 0.

    The curve is that of the w nearest to the middle.
    """
    A = laplacian(n, 1.0 / (n + 1))

    def half(top):
        """Return w from the middle to the boundary, and its derivative by the first."""
        w = [(top, 1.0)]
        share = 0.5 if n % 2 else 1.0  # the middle is a point, or between two
        w.append((top - share * np.exp(top), 1.0 - share * np.exp(top)))
        while len(w) < (n + 1) // 2 + 1:
            (before, slope_before), (w_, slope) = w[-2:]
            e = np.exp(w_)
            w.append((2.0 * w_ - before - e, 2.0 * slope - slope_before - e * slope))
        return np.array(w).T

    def at(top):
        w, _ = half(top)
        u = w[:-1] - w[-1]
        return np.append(u[::-1], u[1:] if n % 2 else u), float(np.exp(w[-1]) * (n + 1) ** 2)

    def along(x, p):
        return float(x[n // 2] + np.log(p / (n + 1) ** 2))

    span = (np.log(1e-3) - 2.0 * np.log(n + 1.0), np.log(500.0) - 2.0 * np.log(n + 1.0))
    fold = bisect(lambda top: half(top)[1][-1], *span)
    start = bisect(lambda top: at(top)[1] - 1.0, span[0], fold)

    def jacobian(x, p):
        return A + p * np.diag(np.exp(x))

    curve = Curve("arch", at, along, span, (), ((at(start)[0], 1.0),))
    curve = crossed(jacobian, curve)
    first = curve.special[0]._replace(s=fold)
    return Problem(
        f"bratu_{n}", lambda x, p: A @ x + p * np.exp(x), jacobian, n, bounds,
        (curve._replace(special=(first, *curve.special[1:])),), symmetric=True, heavy=n > 30,
        diagram={"arch": 1, "elsewhere": 2} if n == 2 else None,
    )  # fmt: skip


def allen_cahn(n, bounds, starts, curves="zero"):
    """u″ + λ(u − u³) on (0, π), Neumann: μ_k = (2 sin(kπ/2n)/h)², near k²."""
    h = np.pi / n
    A = laplacian(n, h, "neumann")
    mu = (2.0 * np.sin(np.arange(n) * np.pi / (2 * n)) / h) ** 2
    zero = line(
        "zero",
        np.zeros(n),
        (bounds[0] - 10.0, bounds[1] + 10.0),
        tuple(Special(BP, m) for m in mu),
        tuple((np.zeros(n), p) for p in starts),
    )
    one = line(
        "one",
        np.ones(n),
        (bounds[0] - 10.0, bounds[1] + 10.0),
        tuple(Special(BP, -0.5 * m) for m in mu[::-1]),
        ((np.ones(n), 0.25),),
    )
    return Problem(
        f"allen_cahn_{n}_{bounds[1]:g}", lambda x, p: A @ x + p * (x - x**3),
        lambda x, p: A + p * np.diag(1.0 - 3.0 * x**2), n, bounds,
        (zero, one) if curves == "both" else (zero,), symmetric=True, heavy=n > 30,
    )  # fmt: skip


def columns(n):
    """A chain of n rigid links with springs, clamped and free: P sin θ + n² ∂²θ."""
    A = laplacian(n, 1.0 / n)
    A[-1, -1] = -(n**2)
    k = np.arange(1, n + 1)
    loads = (2.0 * n * np.sin((2 * k - 1) * np.pi / (2 * (2 * n + 1)))) ** 2
    bounds = (0.0, float(np.ceil(loads[-1] + 1.0)))
    straight = line("straight", np.zeros(n), (-5.0, bounds[1] + 5.0),
                    tuple(Special(BP, p, 1, "supercritical" if i == 0 else "")
                          for i, p in enumerate(loads)), ((np.zeros(n), 1.0),))  # fmt: skip
    return Problem(
        f"column_{n}", lambda x, p: A @ x + p * np.sin(x),
        lambda x, p: A + p * np.diag(np.cos(x)), n, bounds, (straight,), symmetric=True,
    )  # fmt: skip


def kernels(m=4):
    """F_i = −x_i + λ x_i/i − x_i³ with i repeated i times; along x_1, too."""
    i = np.repeat(np.arange(1.0, m + 1.0), np.arange(1, m + 1))
    n = len(i)
    zero = line("zero", np.zeros(n), (-1.0, m + 3.0),
                tuple(Special(BP, k, k) for k in range(1, m + 1)),
                ((np.zeros(n), 0.5), (np.zeros(n), m - 0.5)))  # fmt: skip
    unit = np.eye(n)[0]
    first = graph("first", lambda s: 1.0 + s * s, (-3.0, 3.0),
                  (Special(BP, 0.0), *(Special(BP, sign * np.sqrt(k - 1.0), k)
                                       for k in range(2, m + 1) for sign in (-1.0, 1.0))),
                  ((0.5 * unit, 1.25), (-0.5 * unit, 1.25)), lambda s: s * unit)  # fmt: skip
    first = first._replace(special=tuple(sorted(first.special, key=lambda q: q.s)))
    return Problem(
        f"kernels_{m}", lambda x, p: -x + p * x / i - x**3,
        lambda x, p: np.diag(p / i - 1.0 - 3.0 * x**2), n, (0.0, m + 1.0), (zero, first),
        symmetric=True, diagram={"zero": 1, "first": 2, "elsewhere": 8} if m == 2 else None,
    )  # fmt: skip


def coupled_pitchforks(d=0.2):
    """x′ = p x − x³ + d (y − x) and alike: in and out of phase, and a secondary branch from 3d."""

    def fun(x, p):
        return p * x - x**3 + d * (x[::-1] - x)

    def jacobian(x, p):
        return np.diag(p - 3.0 * x**2 - d) + d * np.array([[0.0, 1.0], [1.0, 0.0]])

    zero = line("zero", [0.0, 0.0], (-4.0, 4.0), (Special(BP, 0.0, 1, "supercritical"),
                Special(BP, 2 * d, 1)), (([0.0, 0.0], -0.5), ([0.0, 0.0], -0.75)))  # fmt: skip
    same = graph("same", lambda s: s * s, (-2.0, 2.0), (Special(BP, 0.0),),
                 (([0.5, 0.5], 0.25),), lambda s: np.array([s, s]))  # fmt: skip
    r = np.sqrt(d)
    against = graph("against", lambda s: 2 * d + s * s, (-2.0, 2.0),
                    (Special(BP, -r), Special(BP, 0.0), Special(BP, r)),
                    (([1.0, -1.0], 1.0 + 2 * d),), lambda s: np.array([s, -s]))  # fmt: skip

    def mixed(s, sign):
        v = sign * np.sqrt(4.0 * d + s * s)
        return np.array([0.5 * (s + v), 0.5 * (s - v)]), 3.0 * d + s * s

    others = tuple(
        Curve(name, lambda s, sign=sign: mixed(s, sign), lambda x, p: float(x.sum()), (-2.0, 2.0),
              (Special(BP, 0.0),), ((mixed(0.5, sign)[0], mixed(0.5, sign)[1]),))
        for name, sign in (("mixed", 1.0), ("mixed_too", -1.0))
    )  # fmt: skip
    return Problem("coupled_pitchforks", fun, jacobian, 2, (-1.0, 1.5),
                   (zero, same, against, *others), symmetric=True,
                   diagram={"zero": 1, "same": 2, "against": 2})  # fmt: skip


def close_pitchforks(d):
    """p x − x³ and (p − d) y − y³ beside each other."""
    off = np.array([0.0, d])
    zero = line("zero", [0.0, 0.0], (-3.0, 3.0), (Special(BP, 0.0), Special(BP, d)),
                (([0.0, 0.0], -0.5), ([0.0, 0.0], -0.75), ([0.0, 0.0], -0.35)))  # fmt: skip
    first = graph("first", lambda s: s * s, (-2.0, 2.0),
                  (Special(BP, -np.sqrt(d)), Special(BP, 0.0), Special(BP, np.sqrt(d))),
                  (([0.5, 0.0], 0.25),), lambda s: np.array([s, 0.0]))  # fmt: skip
    return Problem(
        f"close_pitchforks_{d}", lambda x, p: (p - off) * x - x**3,
        lambda x, p: np.diag(p - off - 3.0 * x**2), 2, (-1.0, 1.0), (zero, first), symmetric=True,
        diagram={"zero": 1, "first": 2, "elsewhere": 2},
    )  # fmt: skip


def ring(n, d=0.2):
    """n cells in a ring: at 4d sin²(πk/n) kernels of dimension 2, or 1 at the last of even n."""
    shift = np.roll(np.eye(n), 1, axis=0)
    A = d * (shift + shift.T - 2.0 * np.eye(n))
    modes = range(n // 2 + 1)
    special = tuple(Special(BP, 4 * d * np.sin(np.pi * k / n) ** 2, 1 if k in (0, n / 2) else 2)
                    for k in modes)  # fmt: skip
    zero = line(
        "zero", np.zeros(n), (-4.0, 4.0), special, ((np.zeros(n), -0.5), (np.zeros(n), 1.0))
    )
    same = graph("same", lambda s: s * s, (-2.0, 2.0), (Special(BP, 0.0),),
                 ((np.full(n, 0.5), 0.25),), lambda s: np.full(n, s))  # fmt: skip
    return Problem(
        f"ring_{n}", lambda x, p: A @ x + p * x - x**3,
        lambda x, p: A + np.diag(p - 3.0 * x**2), n, (-1.0, 1.5), (zero, same), symmetric=True,
    )  # fmt: skip


TURN = np.array([[0.0, -1.0], [1.0, 0.0]])


def rotor():
    """p x − |x|² x in the plane, rotations declared: a circle of solutions beyond p = 0."""
    zero = line("zero", [0.0, 0.0], (-3.0, 3.0), (Special(CENTRE, 0.0, 2),),
                (([0.0, 0.0], -0.5), ([0.0, 0.0], -0.75), ([0.0, 0.0], 0.35)))  # fmt: skip
    return Problem(
        "rotor", lambda x, p: (p - x @ x) * x,
        lambda x, p: (p - x @ x) * np.eye(2) - 2.0 * np.outer(x, x), 2, (-1.0, 1.0), (zero,),
        symmetric=True, diagram={"zero": 1, "elsewhere": 1},
        generators=lambda x, p: (TURN @ x)[None],
    )  # fmt: skip


def rotated_rotor(low=0.05):
    """The same from the circle, within bounds on which it is one."""
    circle_ = Curve("circle", lambda s: (np.array([s, 0.0]), s * s),
                    lambda x, p: float(np.linalg.norm(x)),
                    (0.1, 2.0), (), (([0.5, 0.0], 0.25), ([0.3, 0.4], 0.25)),
                    seen=lambda x: np.array([np.linalg.norm(x)]))  # fmt: skip
    return Problem(
        "rotor_circle", lambda x, p: (p - x @ x) * x,
        lambda x, p: (p - x @ x) * np.eye(2) - 2.0 * np.outer(x, x), 2, (low, 1.0), (circle_,),
        symmetric=True, generators=lambda x, p: (TURN @ x)[None],
    )  # fmt: skip


def sphere():
    """p x − |x|² x in space, so(3) declared: kernel of dimension 3."""
    cross = np.zeros((3, 3, 3))
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        cross[k, i, j], cross[k, j, i] = -1.0, 1.0
    zero = line("zero", np.zeros(3), (-3.0, 3.0), (Special(CENTRE, 0.0, 3),),
                ((np.zeros(3), -0.5), (np.zeros(3), -0.35)))  # fmt: skip
    return Problem(
        "sphere", lambda x, p: (p - x @ x) * x,
        lambda x, p: (p - x @ x) * np.eye(3) - 2.0 * np.outer(x, x), 3, (-1.0, 1.0), (zero,),
        symmetric=True, diagram={"zero": 1, "elsewhere": 1}, generators=lambda x, p: cross @ x,
    )  # fmt: skip


def two_rotors(c=0.3, b=2.0, d=0.4):
    """z₁(p − |z₁|² − b|z₂|²), z₂(p − c − |z₂|² − d|z₁|²), each turned by itself.

    Along |z₁|² = p the second appears at p = c/(1 − d), with a kernel of dimension 2.
    """

    def fun(x, p):
        r, s = x[:2] @ x[:2], x[2:] @ x[2:]
        return np.append((p - r - b * s) * x[:2], (p - c - s - d * r) * x[2:])

    def jacobian(x, p):
        u, v = x[:2], x[2:]
        r, s = u @ u, v @ v
        top = [(p - r - b * s) * np.eye(2) - 2 * np.outer(u, u), -2 * b * np.outer(u, v)]
        low = [-2 * d * np.outer(v, u), (p - c - s - d * r) * np.eye(2) - 2 * np.outer(v, v)]
        return np.block([top, low])

    def generators(x, p):
        return np.array([np.append(TURN @ x[:2], [0, 0]), np.append([0, 0], TURN @ x[2:])])

    def seen(x):
        return np.array([np.linalg.norm(x[:2]), np.linalg.norm(x[2:])])

    zero = line("zero", np.zeros(4), (-3.0, 3.0), (Special(CENTRE, 0.0, 2), Special(CENTRE, c, 2)),
                ((np.zeros(4), -0.5),))  # fmt: skip
    first = Curve("first", lambda s: (np.array([s, 0.0, 0.0, 0.0]), s * s),
                  lambda x, p: float(np.linalg.norm(x[:2])), (0.1, 2.0),
                  (Special(CENTRE, np.sqrt(c / (1 - d)), 2),),
                  (([0.5, 0.0, 0.0, 0.0], 0.25), ([0.6, 0.8, 0.0, 0.0], 1.0)),
                  seen=seen)  # fmt: skip
    return (
        Problem(
            "two_rotors",
            fun,
            jacobian,
            4,
            (-1.0, 1.5),
            (zero,),
            generators=generators,
            diagram={"zero": 1, "elsewhere": 2},
        ),
        Problem("two_rotors_first", fun, jacobian, 4, (0.05, 1.5), (first,), generators=generators),
    )


def swift_hohenberg(K=4, q=0.7):
    """Even and odd waves k q ≤ K q of a ring that may be shifted: r = (1 − k²q²)², kernel 2.

    The cube is taken on enough points, so that shifts are exact symmetries of the truncated sum.
    """
    points = 4 * K + 2
    theta = 2.0 * np.pi * np.arange(points) / points
    k = np.arange(1, K + 1)
    E = np.concatenate([np.ones((1, points)) / np.sqrt(2.0), np.cos(np.outer(k, theta)),
                        np.sin(np.outer(k, theta))]) * np.sqrt(2.0 / points)  # fmt: skip
    sizes = (1.0 - (q * np.concatenate([[0], k, k])) ** 2) ** 2
    G = np.zeros((2 * K + 1, 2 * K + 1))
    G[range(1, K + 1), range(K + 1, 2 * K + 1)] = k
    G -= G.T
    n = 2 * K + 1
    special = [Special(CENTRE, (1.0 - (q * j) ** 2) ** 2, 2 if j else 1) for j in range(K + 1)]
    special = [s._replace(kind=BP) if s.kernel == 1 else s for s in special]
    zero = line("zero", np.zeros(n), (-2.0, 60.0), tuple(sorted(special, key=lambda s: s.s)),
                ((np.zeros(n), -0.5), (np.zeros(n), 0.5)))  # fmt: skip
    return Problem(
        "swift_hohenberg", lambda x, p: (p - sizes) * x - E @ (E.T @ x) ** 3,
        lambda x, p: np.diag(p - sizes) - 3.0 * (E * (E.T @ x) ** 2) @ E.T, n, (-1.0, 50.0),
        (zero,), symmetric=True, generators=lambda x, p: (G @ x)[None],
        diagram={"zero": 1, "elsewhere": K + 2},
    )  # fmt: skip


def isola_beside():
    """An isola with a component of its own beside it, and with ones that follow it."""
    lifted = lambda s: np.array([np.sin(s), 0.0])  # noqa: E731
    follow = lambda s: np.array([np.sin(s), np.sin(s) + np.cos(s) * np.sin(s)])  # noqa: E731
    ring_ = circle(1.0)
    turn = lambda x, p: float(np.arctan2(x[0], p)) % (2.0 * np.pi)  # noqa: E731
    alone = Curve("isola", lambda s: (lifted(s), np.cos(s)), turn, ring_.span, ring_.special,
                  (([1.0, 0.0], 0.0), ([-0.6, 0.0], 0.8)), ring_.period)  # fmt: skip
    led = alone._replace(at=lambda s: (follow(s), np.cos(s)),
                         starts=(([1.0, 1.0], 0.0), ([0.6, 0.6 + 0.48], 0.8)))  # fmt: skip
    return (
        Problem("isola_decoupled", lambda x, p: np.array([p * p + x[0] ** 2 - 1.0, -x[1]]),
                lambda x, p: np.array([[2 * x[0], 0.0], [0.0, -1.0]]), 2, (-2.0, 2.0), (alone,),
                symmetric=True),
        Problem("isola_coupled",
                lambda x, p: np.array([p * p + x[0] ** 2 - 1.0, x[0] + p * x[0] - x[1]]),
                lambda x, p: np.array([[2 * x[0], 0.0], [1.0 + p, -1.0]]), 2, (-2.0, 2.0), (led,)),
    )  # fmt: skip


def plane_bratu(m, bounds):
    """Bratu on m × m points, m = 2 or 3, of states with the symmetry of the square.

    With w = u + log(λh²): two points, w = 2w − w₀ − e^w, in one unknown; three: from the centre's,
    that of the edge follows and the corner's is the only root of a convex function.
    """
    one = laplacian(m, 1.0 / (m + 1))
    A = np.kron(one, np.eye(m)) + np.kron(np.eye(m), one)
    scale = float((m + 1) ** 2)

    def two(s):
        return np.full(4, s), 2.0 * scale * s * np.exp(-s)

    def three(s):
        edge = s - 0.25 * np.exp(s)
        # 8k − 10e + 2s + 2 exp(e) = exp(k), on the side where k → −∞ leads to small states
        rest = 2.0 * s - 10.0 * edge + 2.0 * np.exp(edge)
        corner = bisect(lambda k: 8.0 * k + rest - np.exp(k), -60.0, np.log(8.0))
        w0 = 4.0 * edge - s - 2.0 * corner - np.exp(edge)
        u = np.array([corner, edge, corner, edge, s, edge, corner, edge, corner]) - w0
        return u, scale * np.exp(w0)

    if m == 2:
        at, along, span = two, lambda x, p: float(x.mean()), (0.01, 6.0)
    else:
        at, along = three, lambda x, p: float(x[4] + np.log(p / scale))
        span = (np.log(1e-3), 3.0)

    def jacobian(x, p):
        return A + p * np.diag(np.exp(x))

    curve = Curve("arch", at, along, span)

    curve = crossed(jacobian, curve)
    fold = curve.special[0].s
    start = bisect(lambda s: at(s)[1] - 1.0, span[0], fold)
    curve = curve._replace(starts=((at(start)[0], 1.0),))
    return Problem(
        f"plane_bratu_{m}", lambda x, p: A @ x + p * np.exp(x), jacobian, m * m, bounds, (curve,),
        symmetric=True,
    )  # fmt: skip


PROBLEMS = (
    *(bratu(n) for n in (1, 2, 4, 9, 49)),
    plane_bratu(2, (0.5, 8.0)),
    plane_bratu(3, (0.5, 8.0)),
    allen_cahn(20, (-10.0, 165.0), (-0.25, 0.5, 20.0), "both"),
    allen_cahn(50, (0.0, 100.0), (0.5,)),
    allen_cahn(200, (0.0, 40.0), (0.5,)),
    allen_cahn(200, (16000.0, 16220.0), (16100.0,)),
    columns(10),
    kernels(2),
    kernels(4),
    coupled_pitchforks(),
    *(close_pitchforks(d) for d in (0.01, 1e-3, 1e-5)),
    ring(5),
    ring(6),
    rotor(),
    rotated_rotor(),
    sphere(),
    *two_rotors(),
    swift_hohenberg(),
    *isola_beside(),
)
