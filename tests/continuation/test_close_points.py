"""Special points that are close as compared with a step: each of them is there, and no other."""

import numpy as np
import pytest

import dlnds as dl


def kinds_of(found):
    return dl.schema.decode(found.event).values.tolist()


def oscillator(rate):
    """ż = (R(p) + i − |z|²) z: Hopf points where R vanishes."""

    def field(x, p):
        growth = rate(p) - x @ x
        return np.array([growth * x[0] - x[1], x[0] + growth * x[1]])

    return field


def crossed_line(x, p):
    """p = 0.7 − a² − a/2 is crossed by b² = (a − 0.75)(a − 0.7501) at both zeros of that."""
    a, b = x
    return np.array([p + a**2 + 0.5 * a - 0.7, (a - 0.75) * (a - 0.7501) * b - b**3])


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e3, 1e6])
def test_close_points_do_not_depend_on_the_unit_of_the_equation(unit):
    """Each point is at a root of a polynomial with two of them."""
    pair = oscillator(lambda p: (p + 0.25) * (p + 0.249))
    hopf = dl.branch(lambda x, p: unit * pair(x, p), [0, 0], 0.5, bounds=(-1, 1), step=0.02)
    found = dl.special_points(hopf)
    assert kinds_of(found) == ["hopf", "hopf"]
    np.testing.assert_allclose(found.p, [-0.25, -0.249], rtol=0.0, atol=1e-9)
    line = dl.branch(lambda x, p: unit * crossed_line(x, p), [1, 0], -0.8, bounds=(-1.05, 0.2))
    found = dl.special_points(line)
    a = np.array([0.7501, 0.75])
    assert kinds_of(found) == ["branch_point", "branch_point"]
    assert (abs(found.p - (0.7 - a**2 - 0.5 * a)) <= found.accuracy + 1e-12).all()
    assert (found.accuracy < 1e-5).all()


def test_close_branch_points_on_a_parabola_are_told_apart():
    def field(x, p):
        a, b = x
        return np.array([p - a**2 - a, (a - 0.75) * (a - 0.7501) * b - b**3])

    found = dl.special_points(dl.branch(field, [0.25, 0], 0.3125, bounds=(-0.2, 3.0), step=0.01))
    a = np.array([0.75, 0.7501])
    assert kinds_of(found) == ["branch_point", "branch_point"]
    assert (abs(found.p - (a**2 + a)) <= found.accuracy).all()
    assert (found.accuracy < 1e-5).all()


@pytest.mark.parametrize(
    ("roots", "lead", "start", "bounds"),
    [
        ((-0.6, -0.1, 0.1, 0.3), -1.0, -1.5, (-3.5, 0.5)),
        ((-0.3, 0.1, 0.2), 2.0, -1.5, (-3.5, 0.5)),
        ((-0.9, -0.1, -0.05), 4.0, -1.0, (-3.0, 1.0)),
    ],
)
def test_zeros_that_come_back_within_a_step_are_all_there(roots, lead, start, bounds):
    """A growth with three zeros or more is that of a polynomial with these roots."""
    q = lead * np.poly(roots)
    line = dl.branch(lambda x, p: np.polyval(q, p) * x - x**3, [0.0], start, bounds=bounds)
    pair = dl.branch(oscillator(lambda p: np.polyval(q, p)), [0, 0], start, bounds=bounds)
    for branch, kind in ((line, "branch_point"), (pair, "hopf")):
        found = dl.special_points(branch)
        assert kinds_of(found) == [kind] * len(roots)
        np.testing.assert_allclose(found.p, roots, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize(
    ("roots", "lead", "start", "reach"),
    [((0.1, 0.2, 0.5), 2.0, 1.0, 4.0), ((-0.8, -0.7, -0.4, 0.0, 0.1), 0.5, 0.25, 2.0)],
)
def test_folds_that_come_back_within_a_step_are_all_there(roots, lead, start, reach):
    """p = c(x) turns at the roots of c'."""
    c = np.polyint(lead * np.poly(roots))
    p0 = np.polyval(c, start)
    bounds = (p0 - reach, p0 + reach)
    branch = dl.branch(lambda x, p: p - np.polyval(c, x), [start], p0, bounds=bounds)
    found = dl.special_points(branch)
    assert kinds_of(found) == ["fold"] * len(roots)
    np.testing.assert_allclose(np.sort(found.state[:, 0]), roots, rtol=0.0, atol=1e-7)
