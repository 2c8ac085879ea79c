"""Switching: all that leaves a branch point is found, whatever the coordinates, and no other."""

import itertools

import numpy as np
import pytest

import dlnds as dl
from dlnds.continuation.branches import check_course, check_steps, followed
from dlnds.continuation.correct import Point
from dlnds.continuation.start import started
from dlnds.continuation.switching import departures, same_orbit


def leaving(equation, x0, p0, bounds):
    """Return the special point of a branch, and what leaves it."""
    course = check_course(bounds, 1e-12, 6, ())
    with np.errstate(over="ignore", invalid="ignore"):
        problem, first = started(equation, x0, p0, course, 1000)
        rows, _ = followed(problem, check_steps(0.05, 1e-7, 0.5, 1000), first, "both")
    special = next(row.special for row in rows if row.special is not None)
    return problem, special, departures(problem, special)


def away(problem, special, starts):
    """Return where points are, as seen from the special one, in terms of their distance."""
    gaps = [(q.z - special.point.z) / problem.scale for q in starts]
    return np.array([gap / np.linalg.norm(gap) for gap in gaps])


FORMS = {
    "supercritical": (lambda x, p: p * x - x**3, 4),
    "subcritical": (lambda x, p: p * x + x**3, 4),
    "transcritical": (lambda x, p: p * x - x**2, 4),
    "three lines": (lambda x, p: p**2 * x - x**3, 6),
    "tangent": (lambda x, p: x * (x - p**2), 4),
    "quintic": (lambda x, p: p * x - x**5, 4),
}


@pytest.mark.parametrize("name", FORMS)
def test_all_branches_of_a_normal_form_leave_its_point(name):
    """Each of them is a solution, looks away, and is there once; the trivial one is two of them."""
    form, count = FORMS[name]
    problem, special, found = leaving(form, [0.0], -0.5, (-1.0, 1.0))
    assert found.complete
    assert len(found.starts) == count
    for start, direction in zip(found.starts, away(problem, special, found.starts), strict=True):
        assert abs(form(start.x, start.p)[0]) <= 1e-15
        assert start.heading @ direction > 0.9
    gaps = [np.linalg.norm(a.z - b.z) for a, b in itertools.combinations(found.starts, 2)]
    assert min(gaps) > 1e-3
    assert sum(abs(q.x[0]) < 1e-12 for q in found.starts) == 2


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("reach", [1e-6, 1e6])
def test_neither_the_unit_of_the_state_nor_that_of_the_parameter_changes_what_is_found(size, reach):
    def form(x, p):
        return (p / reach) * x - x**3 / size**2

    _, _, found = leaving(form, [0.0], -0.5 * reach, (-reach, reach))
    assert found.complete
    grown = sorted(float(q.x[0]) for q in found.starts if abs(q.x[0]) > 1e-9 * size)
    assert len(found.starts) == 4
    assert len(grown) == 2
    assert grown[0] == pytest.approx(-grown[1], rel=1e-9)


@pytest.mark.parametrize("wrong", [1e-3, 1e3])
def test_a_typical_size_that_is_far_off_changes_nothing(wrong):
    course = check_course((-1.0, 1.0), 1e-12, 6, ())
    problem, first = started(lambda x, p: p * x - x**3, [0.0], -0.5, course, 100)
    rows, _ = followed(problem, check_steps(0.05, 1e-7, 0.5, 100), first, "both")
    special = next(row.special for row in rows if row.special is not None)
    scale = problem.scale * np.array([wrong, 1.0])
    found = departures(problem._replace(scale=scale), special)
    assert found.complete
    assert len(found.starts) == 4
    for start in found.starts:
        assert abs(start.x[0]) < 1e-12 or start.p == pytest.approx(start.x[0] ** 2, abs=1e-12)


def repeated(count, rotation=None, factor=1.0):
    """F_i = −x_i + λ x_i/i − x_i³ with the last i repeated i times, in rotated coordinates."""
    modes = np.array([float(i) for i in range(1, count + 1) for _ in range(i)])[-count:]
    turn = np.eye(count)
    if rotation is not None:
        turn = np.linalg.qr(np.random.default_rng(rotation).normal(size=(count, count)))[0]

    def field(y, p):
        x = turn.T @ y
        return factor * (turn @ ((p / modes - 1.0) * x - x**3))

    return dl.Residual(field, symmetric=True), turn


@pytest.mark.parametrize(
    ("count", "rotation"),
    [
        (1, None),
        *[(i, rotation) for i in (2, 3) for rotation in (None, 0, 1, 2)],
        (4, 0),
        *[pytest.param(4, rotation, marks=pytest.mark.slow) for rotation in (None, *range(1, 8))],
    ],
)
def test_a_kernel_of_any_dimension_has_all_its_sign_patterns(count, rotation):
    """x_i² = λ/i − 1 or 0 for each: 3^i − 1 of them, and the trivial one on both sides."""
    equation, turn = repeated(count, rotation)
    _, special, found = leaving(equation, np.zeros(count), count - 0.5, (count - 1.0, count + 1.0))
    assert special.kernel == count
    assert found.complete
    patterns = set()
    for start in found.starts:
        x = turn.T @ start.x
        size = np.sqrt(max(start.p / count - 1.0, 0.0))
        pattern = np.round(x / max(size, 1e-9)) if np.abs(x).max() > 1e-9 else np.zeros(count)
        np.testing.assert_allclose(x, pattern * size, atol=1e-9)
        patterns.add(tuple(pattern.astype(int).tolist()))
    assert patterns == set(itertools.product((-1, 0, 1), repeat=count))
    assert len(found.starts) == 3**count + 1


def test_pitchforks_of_very_different_curvature_are_found_at_one_point():
    """μ x_i = a_i x_i³ with a = (1, 1e3): the second leaves much steeper."""
    bend = np.array([1.0, 1e3])
    equation = dl.Residual(lambda x, p: p * x - bend * x**3, symmetric=True)
    _, _, found = leaving(equation, np.zeros(2), -0.5, (-1.0, 1.0))
    assert found.complete
    assert len(found.starts) == 3**2 + 1


def ring(dim, generators=True):
    """F = p x − ‖x‖² x with the rotations of all coordinates."""

    def turning(x, p):
        i, j = np.triu_indices(dim, 1)
        rows = np.zeros((len(i), dim))
        rows[range(len(i)), i], rows[range(len(i)), j] = -x[j], x[i]
        return rows

    def field(x, p):
        return p * x - (x @ x) * x

    return dl.Residual(field, symmetric=True, generators=turning if generators else None)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_one_solution_stands_for_a_sphere_of_them(dim):
    _, special, found = leaving(ring(dim), np.zeros(dim), -0.5, (-1.0, 1.0))
    assert special.kernel == dim
    assert found.complete
    assert len(found.starts) == 3
    assert sorted(np.linalg.norm(q.x) > 1e-3 for q in found.starts) == [False, False, True]


#: Traceless symmetric matrices, of unit length and orthogonal, and generators of rotations.
TENSORS = np.zeros((5, 3, 3))
TENSORS[0], TENSORS[1] = np.diag([1.0, -1.0, 0.0]) / 2**0.5, np.diag([1.0, 1.0, -2.0]) / 6**0.5
TURNS = np.zeros((3, 3, 3))
for number, (row, column) in enumerate(itertools.combinations(range(3), 2)):
    TENSORS[2 + number, [row, column], [column, row]] = 0.5**0.5
    TURNS[number, [row, column], [column, row]] = 1.0, -1.0


def tensors(square):
    """F(Q) = p Q + square (Q² − ⅓ tr Q² I) − tr Q² Q, with rotations, in five components."""

    def field(x, p):
        Q = np.tensordot(x, TENSORS, 1)
        change = p * Q + square * Q @ Q - np.sum(Q * Q) * Q
        return np.sum(TENSORS * change, axis=(1, 2))

    def turning(x, p):
        Q = np.tensordot(x, TENSORS, 1)
        return np.array([np.sum(TENSORS * (a @ Q - Q @ a), axis=(1, 2)) for a in TURNS])

    return dl.Residual(field, symmetric=True, generators=turning)


def test_rotations_of_tensors_leave_one_axis():
    """Eigenvalues of Q obey one quadratic equation: two are equal, and p = ⅔ s² − s/3 by Q = s(…).

    With Q = s diag(⅔, −⅓, −⅓) the quadratic term is s² diag(2/9, −1/9, −1/9), and tr Q² = ⅔ s².
    """
    _, special, found = leaving(tensors(1.0), np.zeros(5), -0.5, (-0.6, 0.5))
    assert special.kernel == 5
    assert found.complete
    assert len(found.starts) == 4
    grown = [q for q in found.starts if np.abs(q.x).max() > 1e-6]
    sides = set()
    for start in grown:
        low, middle, high = np.linalg.eigvalsh(np.tensordot(start.x, TENSORS, 1))
        s = 1.5 * (high if middle < 0.0 else low)
        np.testing.assert_allclose(middle, -s / 3.0, atol=1e-9)
        np.testing.assert_allclose(start.p, 2.0 * s**2 / 3.0 - s / 3.0, atol=1e-9)
        assert start.basis.shape[1] == 2
        sides.add(np.sign(s))
    assert len(grown) == len(sides) == 2


def test_tensors_that_rotations_do_not_join_are_told_to_be_incomplete():
    """Without the quadratic term all Q with tr Q² = p are solutions: no rotation joins them all."""
    _, special, found = leaving(tensors(0.0), np.zeros(5), -0.5, (-0.6, 0.5))
    assert special.kernel == 5
    assert not found.complete
    assert all(np.abs(q.x).max() < 1e-9 for q in found.starts)


def test_a_sphere_without_a_declared_symmetry_is_told_to_be_incomplete():
    _, special, found = leaving(ring(2, generators=False), np.zeros(2), -0.5, (-1.0, 1.0))
    assert special.kernel == 2
    assert not found.complete
    assert all(np.abs(q.x).max() < 1e-12 for q in found.starts)


def test_the_order_is_that_of_p_then_of_the_components():
    for rotation in (None, 0, 1):
        equation, _ = repeated(2, rotation)
        _, _, found = leaving(equation, np.zeros(2), 1.5, (1.0, 3.0))
        ahead = [q.p - 2.0 for q in found.starts]
        sides = np.sign(np.round(ahead, 9)).tolist()
        assert sides == sorted(sides, reverse=True)
        similar, _ = repeated(2, rotation, factor=1.0 + 1e-13)
        _, _, again = leaving(similar, np.zeros(2), 1.5, (1.0, 3.0))
        for one, other in zip(found.starts, again.starts, strict=True):
            np.testing.assert_allclose(one.z, other.z, atol=1e-6)


def test_what_lies_beyond_the_bounds_does_not_leave():
    for sign, count in ((1.0, 1), (-1.0, 3)):
        *_, found = leaving(lambda x, p, s=sign: p * x - s * x**3, [0.0], -0.5, (-1.0, 0.0))
        assert found.complete
        assert len(found.starts) == count
        assert max(q.p for q in found.starts) <= 0.0


def at(problem, x, p):
    """Return a point without the branch through it."""
    z, n = np.append(x, p), len(x)
    empty, ahead = np.zeros((n, 0)), np.eye(n + 1)[n]
    return Point(z, ahead, ahead, empty, np.zeros(n), np.zeros(n), 0.0, 1.0, 0.0)


def test_orbits_are_told_apart_by_what_is_declared_only():
    """Rotations take x to any vector of its length; without them −x is another solution."""
    course, rng = check_course((-1.0, 1.0), 1e-12, 6, ()), np.random.default_rng(3)
    x = rng.normal(size=3)
    y = rng.normal(size=3)
    y *= np.linalg.norm(x) / np.linalg.norm(y)
    for generators, same in ((True, True), (False, False)):
        problem, _ = started(ring(3, generators), np.zeros(3), -0.5, course, 10)
        assert same_orbit(problem, at(problem, x, 0.3), at(problem, x, 0.3))
        for other in (-x, y):
            assert same_orbit(problem, at(problem, x, 0.3), at(problem, other, 0.3)) is same
        for other, p in ((1.001 * x, 0.3), (x, 0.301)):
            assert not same_orbit(problem, at(problem, x, 0.3), at(problem, other, p))
