"""Polynomial systems whose branches are known, in any coordinates.

In coordinates y, q they are triangular: y_0 is on a curve by itself, all others follow it, with an
eigenvalue that is constant or passes zero at known q. Then x = S (A y + b), p = T (q + c), and F is
multiplied by A and a number, which keeps the signs of all eigenvalues.
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from scipy.optimize import brentq

import dlnds as dl

KINDS = ("graph", "cross", "folds", "closed")


class Side(NamedTuple):
    """A component: z = y_i − (a y_0 + b), z' = rate (q − level) z − sign z³; no level: rate z."""

    a: float
    b: float
    rate: float
    level: float | None
    sign: float
    #: Two components that turn with this frequency.
    frequency: float = 0.0
    #: Two components on a circle of this radius, z' = rate (radius² − |z|²) z: a symmetry.
    radius: float = 0.0

    @property
    def width(self):
        return 2 if self.frequency or self.radius else 1


class Planted(NamedTuple):
    kind: str
    #: Of the curve: a polynomial in q (graph, cross) or in y_0 (folds), half axes (closed).
    shape: Any
    sign: float
    #: Where ``cross`` is crossed, and the power in which.
    crossings: tuple[float, ...]
    power: int
    sides: tuple[Side, ...]
    start: tuple[float, float]
    bounds: tuple[float, float]

    @property
    def size(self):
        return 1 + sum(side.width for side in self.sides)

    @property
    def rings(self):
        """Places of the first components of those on circles."""
        places = np.cumsum([1, *(side.width for side in self.sides)])
        return [int(k) for k, side in zip(places, self.sides, strict=False) if side.radius]

    @property
    def symmetric(self):
        return not any(side.a or side.frequency for side in self.sides)


class View(NamedTuple):
    """How a system is written down, and followed."""

    seed: int = 0
    #: "same", "turned" or "sheared" coordinates.
    mix: str = "same"
    shifted: bool = False
    state_scale: float = 1.0
    parameter_scale: float = 1.0
    parameter_shift: float = 0.0
    force_scale: float = 1.0
    #: What rows of F are multiplied by, or divided, at random: not those that turn, nor mixed ones
    #: unless ∂F/∂x is symmetric, whose eigenvalues keep their signs.
    row_scale: float = 1.0
    derivatives: bool = True
    step: float = 0.05
    predictor: str = "tangent"
    n_eigenvalues: int = 6


# The system in its own coordinates.


def curve(s, y, q):
    """The equation of y_0, and its derivatives by y_0 and q."""
    if s.kind == "closed":
        a, b, c = s.shape
        value = (y / a) ** 2 + ((q - c) / b) ** 2 - 1.0
        return s.sign * np.array([value, 2.0 * y / a**2, 2.0 * (q - c) / b**2])
    if s.kind == "folds":
        return s.sign * np.array([q - s.shape(y), -s.shape.deriv()(y), 1.0])
    off, slope = y - s.shape(q), -s.shape.deriv()(q)
    if s.kind == "graph":
        return s.sign * np.array([off, 1.0, slope])
    cross = Polynomial.fromroots(s.crossings)
    m = s.power
    other = s.sign * cross(q) - off**m
    return np.array(
        [
            off * other,
            other - m * off**m,
            slope * other + off * (s.sign * cross.deriv()(q) - m * off ** (m - 1) * slope),
        ]
    )


def field(s, y, q):
    """G(y, q)."""
    out = np.zeros(s.size)
    out[0] = curve(s, y[0], q)[0]
    for side, k, z in _parts(s, y):
        mu, _, cubic = _growth(side, q)
        out[k : k + len(z)] = mu * z - cubic * (z @ z) * z
        if side.frequency:
            out[k : k + 2] += side.frequency * np.array([-z[1], z[0]])
    return out


def derivatives(s, y, q):
    """∂G/∂y and ∂G/∂q."""
    J, slope = np.zeros((s.size, s.size)), np.zeros(s.size)
    _, J[0, 0], slope[0] = curve(s, y[0], q)
    for side, k, z in _parts(s, y):
        mu, by_q, cubic = _growth(side, q)
        block = (mu - cubic * (z @ z)) * np.eye(len(z)) - 2.0 * cubic * np.outer(z, z)
        if side.frequency:
            block += side.frequency * np.array([[0.0, -1.0], [1.0, 0.0]])
        rows = slice(k, k + len(z))
        J[rows, rows], J[rows, 0] = block, -side.a * block.sum(axis=1)
        slope[rows] = by_q * z
    return J, slope


def _parts(s, y):
    """Each side with its place and with z."""
    k = 1
    for side in s.sides:
        yield side, k, y[k : k + side.width] - (side.a * y[0] + side.b)
        k += side.width


def _growth(side, q):
    """μ and its derivative by q, and the factor of |z|² z."""
    if side.radius:
        return side.rate * side.radius**2, 0.0, side.rate
    if side.level is None:
        return side.rate, 0.0, side.sign
    return side.rate * (q - side.level), side.rate, side.sign


def off_branch(s, y):
    """How far the sides are from where y_0 puts them."""
    gaps = [np.linalg.norm(z) - side.radius for side, _, z in _parts(s, y)]
    return max(map(abs, gaps), default=0.0)


def on_branch(s, y0):
    """The state on the branch that is followed, from y_0."""
    y = [y0]
    for side in s.sides:
        z = side.a * y0 + side.b
        y += [z + side.radius, z] if side.radius else [z] * side.width
    return np.array(y)


def index_at(s, y0, q):
    """The number of unstable eigenvalues on the branch."""
    count = int(curve(s, y0, q)[1] > 0.0)
    for side in s.sides:
        mu = -2.0 * side.rate if side.radius else _growth(side, q)[0]
        count += (1 if side.radius else side.width) * int(mu > 0.0)
    return count


def levels(s):
    """Where eigenvalues other than that of a fold vanish: q, whether a pair turns, how many."""
    found = Counter((q, False) for q in s.crossings)
    for side in s.sides:
        if side.level is not None:
            found[side.level, side.frequency > 0.0] += 1
    return [(q, turns, count) for (q, turns), count in sorted(found.items())]


def ends(s):
    """Values of y_0 (folds) or q at the ends of the branch."""
    low, high = s.bounds
    if s.kind in ("graph", "cross"):
        return low, high
    turns = sorted(s.shape.deriv().roots().real)
    away = 1.0 + 2.0 * max(map(abs, turns))
    while not all(s.shape(x) < low or s.shape(x) > high for x in (-away, away)):
        away *= 2.0
    outside = sorted([-away, *turns, away])
    found = []
    for way in (-1, 1):
        here = s.start[0]
        there = [x for x in outside if (x - here) * way > 0.0][::way]
        for stop in there:
            value = s.shape(stop)
            if not low <= value <= high:
                bound = low if value < low else high
                found.append(
                    brentq(lambda x, bound=bound: s.shape(x) - bound, here, stop, xtol=1e-15)
                )
                break
            here = stop
    return tuple(found)


def expected(s):
    """Kind, q and kernel of the special points, from one end to the other (closed: any order)."""
    points = levels(s)
    if s.kind in ("graph", "cross"):
        low, high = s.bounds
        return [_special(*level) for level in points if low < level[0] < high]
    if s.kind == "closed":
        _, b, c = s.shape
        turned = [("fold", c - b, 1), ("fold", c + b, 1)]
        return turned + [
            _special(*level) for level in points for _ in range(2) if abs(level[0] - c) < b
        ]
    first, last = ends(s)
    found = [(r, ("fold", float(s.shape(r)), 1)) for r in s.shape.deriv().roots().real]
    for q, turns, count in points:
        roots = (s.shape - q).roots()
        found += [(r.real, _special(q, turns, count)) for r in roots if abs(r.imag) < 1e-9]
    return [special for r, special in sorted(found) if first < r < last]


def _special(q, turns, count):
    return ("hopf", q, 0) if turns else ("branch_point", q, count)


# The same in other coordinates.


class Written(NamedTuple):
    """F(x, p), and the way back to y and q."""

    residual: Any
    x0: Any
    p0: float
    bounds: tuple[float, float]
    own: Any


def written(s, view):
    """A system as somebody has it before him."""
    n, rng = s.size, np.random.default_rng(view.seed)
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A = {"same": np.eye(n), "turned": turn}.get(view.mix)
    if A is None:
        A = turn @ np.diag(rng.uniform(0.5, 2.0, n)) @ np.linalg.qr(rng.normal(size=(n, n)))[0]
    b = rng.normal(size=n) if view.shifted else np.zeros(n)
    back, S, T, size = np.linalg.inv(A), view.state_scale, view.parameter_scale, view.force_scale

    rows = view.row_scale ** np.random.default_rng(view.seed).integers(-1, 2, n)
    for k in s.rings:
        rows[k + 1] = rows[k]

    def own(x, p):
        return back @ (x / S - b), p / T - view.parameter_shift

    def fun(x, p):
        return size * rows * (A @ field(s, *own(x, p)))

    def jacobian(x, p):
        return (size / S) * rows[:, None] * (A @ derivatives(s, *own(x, p))[0] @ back)

    def slope(x, p):
        return (size / T) * rows * (A @ derivatives(s, *own(x, p))[1])

    def generators(x, p):
        y, _ = own(x, p)
        found = np.zeros((len(s.rings), n))
        for row, (_, k, z) in zip(found, [q for q in _parts(s, y) if q[0].radius], strict=True):
            row[k : k + 2] = -z[1], z[0]
        return S * (found @ A.T)

    known = {"jacobian": jacobian, "derivative": slope} if view.derivatives else {}
    known["symmetric"] = s.symmetric and view.mix != "sheared" and view.row_scale == 1.0
    if s.rings:
        known["generators"] = generators
    y0, q0 = s.start
    x0 = S * (A @ on_branch(s, y0) + b)
    p0, low, high = (T * (q + view.parameter_shift) for q in (q0, *s.bounds))
    return Written(dl.Residual(fun, **known), x0, p0, (low, high), own)


def complaints(s, view, branch, problem):
    """What is wrong with a branch, all of it."""
    return [
        *_places(branch, problem),
        *_on_curve(s, view, branch, problem),
        *_indices(s, branch, problem),
        *_specials(s, view, branch),
        *_stops(s, view, branch),
    ]


def _places(branch, problem):
    p, start = branch.p.values, int(branch.attrs["start_step"])
    if p[start] != problem.p0:
        yield f"start_step is at p = {p[start]!r}, not at {problem.p0!r}"
    outside = (p < problem.bounds[0]) | (p > problem.bounds[1])
    if outside.any():
        yield f"row {outside.argmax()} is out of bounds, at {p[outside][0]!r}"


def _own(branch, problem):
    return [problem.own(x, p) for x, p in zip(branch.state.values, branch.p.values, strict=True)]


def _on_curve(s, view, branch, problem):
    rows = _own(branch, problem)
    for k, (y, q) in enumerate(rows):
        value, by_y, by_q = curve(s, y[0], q)
        if s.kind in ("graph", "cross"):
            value, by_y, by_q = y[0] - s.shape(q), 1.0, s.shape.deriv()(q)
        gap = abs(value) / max(1.0, np.hypot(by_y, by_q))
        gap = max(gap, off_branch(s, y))
        # 1e-12 of the shifted state and parameter, three digits for the shear and the curve.
        if gap > 1e-9 * (1.0 + abs(view.parameter_shift)):
            yield f"row {k}, q = {q!r}: is off the branch by {gap:.2e}"
            return
    along = np.array([(y[0] if s.kind == "folds" else q) for y, q in rows])
    if s.kind == "closed":
        a, b, c = s.shape
        along = np.unwrap([np.arctan2((q - c) / b, y[0] / a) for y, q in rows])
    way = np.diff(along)
    if not ((way > 0.0).all() or (way < 0.0).all()):
        yield "rows go forth and back"


def _indices(s, branch, problem):
    event, index = branch.event.values > 0, branch["index"].values
    rows = _own(branch, problem)
    for k in np.flatnonzero(~event):
        known = index_at(s, rows[k][0][0], rows[k][1])
        if index[k] != known:
            yield f"row {k}, q = {rows[k][1]!r}: index {index[k]}, it is {known}"
            break
    for name in ("nullity", "orbit_dimension"):
        other = (branch[name].values != len(s.rings)) & ~event
        if other.any():
            k = int(other.argmax())
            yield f"row {k}: {name} {int(branch[name][k])}, it is {len(s.rings)}"
    for name in ("index", "nullity", "orbit_dimension"):
        values = branch[name].values
        changed = (values[1:] != values[:-1]) & ~event[1:] & ~event[:-1]
        if changed.any():
            k = int(changed.argmax())
            yield f"rows {k}, {k + 1}: {name} {values[k]} becomes {values[k + 1]} without an event"


def _specials(s, view, branch):
    found = branch.isel(step=np.flatnonzero(branch.event.values > 0))
    kinds = dl.schema.decode(found.event).values.tolist()
    places = found.p.values / view.parameter_scale - view.parameter_shift
    got = list(zip(kinds, places.tolist(), found.kernel_dimension.values.tolist(), strict=True))
    known = expected(s)
    # An eigenvalue known to 1e-8 (differences: 1e-6 of it), by how fast it passes zero.
    near = (1e-8 if view.derivatives else 1e-5) * (1.0 + abs(view.parameter_shift))
    orders = [known, known[::-1]]
    if s.kind == "closed":
        got, orders = sorted(got, key=_order), [sorted(known, key=_order)]
    if not any(_same(got, order, near) for order in orders):
        words = [
            ", ".join(f"{kind} at {q:.10g} ({kernel})" for kind, q, kernel in points[:12])
            for points in (got, known)
        ]
        yield f"{len(got)} special points [{words[0]}], there are {len(known)} [{words[1]}]"


def _order(point):
    return (round(point[1], 4), point[0])


def _same(got, known, near):
    return len(got) == len(known) and all(
        one == other and abs(p - q) <= near and kernel == dimension
        for (one, p, kernel), (other, q, dimension) in zip(got, known, strict=True)
    )


def _stops(s, view, branch):
    stops = {branch.attrs["first_stop"], branch.attrs["last_stop"]}
    if s.kind == "closed":
        if "closed" not in stops or not stops <= {"closed", "start"}:
            yield f"stops {stops}, it is closed"
        return
    if stops != {"bound_reached"}:
        yield f"stops {stops}, both ends are at bounds"
        return
    wanted = [s.shape(y) for y in ends(s)] if s.kind == "folds" else s.bounds
    p = branch.p.values[[0, -1]] / view.parameter_scale - view.parameter_shift
    if np.abs(np.sort(p) - np.sort(wanted)).max() > 1e-9 * (1.0 + abs(view.parameter_shift)):
        yield f"ends at {p.tolist()}, not at {wanted}"


# Random ones. ``choose(a, b)`` returns an integer from a to b.


def grid(k):
    """Round numbers, multiples of 0.05."""
    return round(0.05 * k, 2)


def system(choose):
    """A random system, or None if what was chosen does not go together."""
    kind = KINDS[choose(0, 3)]
    sign = (1.0, -1.0)[choose(0, 1)]
    crossings, power, shape = (), 1, None
    if kind in ("graph", "cross"):
        shape = Polynomial([grid(choose(-20, 20)) for _ in range(1 + choose(0, 3))])
        if kind == "cross":
            crossings = tuple(sorted({grid(choose(-16, 16)) for _ in range(choose(1, 3))}))
            power = choose(1, 2)
    elif kind == "folds":
        turns = np.cumsum([grid(choose(6, 20)) for _ in range(choose(1, 3))]) - 1.0
        shape = (Polynomial.fromroots(turns) * grid(choose(10, 60))).integ() + grid(choose(-10, 10))
        shape *= sign
    else:
        shape = (grid(choose(4, 30)), grid(choose(4, 18)), grid(choose(-2, 2)))
    sides = tuple(_side(choose) for _ in range(choose(0, 4)))
    bounds = grid(choose(-40, -19)), grid(choose(19, 40))
    made = Planted(kind, shape, sign, crossings, power, sides, (0.0, 0.0), bounds)
    start = _start(made, choose)
    made = None if start is None else made._replace(start=start)
    return made if made is not None and _is_clear(made) else None


def _side(choose):
    a, b = grid(choose(-20, 20)) * choose(0, 1), grid(choose(-20, 20)) * choose(0, 1)
    rate, sign = (choose(1, 8) / 4.0) * (1, -1)[choose(0, 1)], (1.0, -1.0)[choose(0, 1)]
    what = choose(0, 7)
    level = grid(choose(-16, 16)) if what >= 2 else None
    if what == 7:  # close to another one, perhaps
        level += (0.01, 0.003, 0.001)[choose(0, 2)]
    frequency = choose(1, 4) / 2.0 if what == 6 else 0.0
    return Side(a, b, rate, level, sign, frequency, choose(2, 20) / 10.0 if what == 1 else 0.0)


def _start(s, choose):
    """y_0 and q of a start at a round q."""
    low, high = s.bounds
    if s.kind in ("graph", "cross"):
        q = grid(choose(round(20 * low) + 1, round(20 * high) - 1))
        return float(s.shape(q)), q
    if s.kind == "closed":
        a, b, c = s.shape
        reach = round(20 * b) - 1
        q = grid(round(20 * c) + choose(-reach, reach))
        return (1, -1)[choose(0, 1)] * a * float(np.sqrt(1.0 - ((q - c) / b) ** 2)), q
    turns = sorted(s.shape.deriv().roots().real)
    piece = choose(0, len(turns))
    edges = [turns[0] - 2.0, *turns, turns[-1] + 2.0][piece : piece + 2]
    values = sorted(s.shape(x) for x in edges)
    first, last = np.ceil(20 * max(values[0], low)) + 1, np.floor(20 * min(values[1], high)) - 1
    if first > last:
        return None
    q = grid(choose(int(first), int(last)))
    return brentq(lambda y: s.shape(y) - q, *edges, xtol=1e-15, rtol=1e-15), q


def _is_clear(s):
    """Whether special points are apart, and away from the start and from the bounds."""
    places = [q for q, _, _ in levels(s)]
    if s.kind == "folds":
        places += [float(s.shape(r)) for r in s.shape.deriv().roots().real]
    if s.kind == "closed":
        places += [s.shape[2] - s.shape[1], s.shape[2] + s.shape[1]]
        if not s.bounds[0] < places[-2] - 0.04 < places[-1] + 0.04 < s.bounds[1]:
            return False
    kinds = [q for q, turns, _ in levels(s)]
    if len(set(kinds)) < len(kinds):  # a pair that turns where others vanish
        return False
    ordered = np.sort(places)
    near = np.diff(ordered)
    if len(near) and near.min() < 0.9e-3:
        return False
    edge = [abs(q - bound) for q in places for bound in (*s.bounds, s.start[1])]
    return min(edge, default=1.0) > 0.02


def view(choose):
    """A random way to write a system down."""
    return View(
        seed=choose(0, 1000),
        mix=("same", "turned", "sheared")[choose(0, 2)],
        shifted=bool(choose(0, 1)),
        state_scale=(1.0, 1e-6, 1e6, 1e-3, 1e3)[choose(0, 4)],
        parameter_scale=(1.0, 1e-6, 1e6, 1e-3, 1e3)[choose(0, 4)],
        parameter_shift=(0.0, 0.0, 1.0, 10.0)[choose(0, 3)],
        force_scale=(1.0, 1e-6, 1e6)[choose(0, 2)],
        derivatives=bool(choose(0, 1)),
        step=(0.05, 0.05, 0.1, 0.25)[choose(0, 3)],
        predictor=("tangent", "tangent", "tangent", "secant")[choose(0, 3)],
        n_eigenvalues=(6, 6, 6, 0)[choose(0, 3)],
    )


def followed(s, view, **options):
    """The branch of a system in a view as a user calls it, and what it is compared with."""
    problem = written(s, view)
    options = {"predictor": view.predictor, "n_eigenvalues": view.n_eigenvalues, **options}
    branch = dl.branch(
        problem.residual, problem.x0, problem.p0, bounds=problem.bounds, step=view.step, **options
    )
    return branch, problem
