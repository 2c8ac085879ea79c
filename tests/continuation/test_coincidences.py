"""Special points that come together: at one p, on a bound, at a start, and nearly so."""

import numpy as np
import pytest
from equations import events
from scipy.stats import ortho_group

import dlnds as dl

HALF = np.sqrt(0.5)


def pairs(signs, extra=0):
    """Oscillators r' = p r + sign r³ of frequencies 1, 2, …, and pitchforks, all at p = 0."""

    def fun(x, p):
        found = []
        for k, sign in enumerate(signs):
            u, v = x[2 * k : 2 * k + 2]
            growth, rate = p + sign * (u**2 + v**2), 1.0 + k
            found += [growth * u - rate * v, rate * u + growth * v]
        rest = x[2 * len(signs) :]
        return np.array([*found, *(p * rest - rest**3)])

    n = 2 * len(signs) + extra
    turn = ortho_group(n, seed=3).rvs() if n > 1 else np.eye(1)
    return n, lambda y, p: turn @ fun(turn.T @ y, p)


def criticalities(branch):
    return sorted(dl.schema.decode(dl.special_points(branch).criticality).values.tolist())


@pytest.mark.parametrize("start", [-0.75, -0.35, 0.0])
@pytest.mark.parametrize("signs", [(-1.0, 1.0), (1.0, -1.0), (-1.0, 1.0, -1.0)])
def test_pairs_of_other_frequencies_at_one_parameter_are_told_apart(signs, start):
    """Which pair a row is of is told by the side on which its orbits are."""
    n, fun = pairs(signs)
    branch = dl.branch(fun, np.zeros(n), start, bounds=(-1.0, 1.0))
    found = events(branch)
    assert [(kind, kernel) for kind, _, kernel in found] == [("hopf", 0)] * len(signs)
    assert max(abs(p) for _, p, _ in found) < 1e-9
    words = ["supercritical" if sign < 0.0 else "subcritical" for sign in signs]
    assert criticalities(branch) == sorted(words)
    assert branch["index"].values[[0, -1]].tolist() == [0, n]


def test_equal_pairs_at_one_parameter_are_one():
    def fun(x, p):
        return np.concatenate([p * x[:2] + [-x[1], x[0]], p * x[2:] + [-x[3], x[2]]]) - x**3

    ((kind, p, kernel),) = events(dl.branch(fun, np.zeros(4), -0.5, bounds=(-1.0, 1.0)))
    assert (kind, kernel) == ("hopf", 0)
    assert abs(p) < 1e-9


@pytest.mark.parametrize("bounds", [(-1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize(("signs", "extra"), [((-1.0,), 1), ((-1.0, -1.0), 0), ((-1.0, 1.0), 1)])
def test_all_that_is_special_on_a_bound_has_its_row(signs, extra, bounds):
    n, fun = pairs(signs, extra)
    start = 0.5 * sum(bounds) or -0.5
    branch = dl.branch(fun, np.zeros(n), start, bounds=bounds, events=[lambda x, p: p])
    found = events(branch)
    wanted = ["hopf"] * len(signs) + ["branch_point"] * extra + ["user"]
    assert sorted(kind for kind, _, _ in found) == sorted(wanted)
    assert max(abs(p) for _, p, _ in found) < 1e-9
    assert (np.diff(branch.arclength) >= 0.0).all()
    assert sorted(branch.p.values[[0, -1]].tolist()) == sorted(bounds)


def test_branches_that_end_at_several_special_points_are_joined_there():
    n, fun = pairs((-1.0, 1.0))
    course = {"bounds": (-1.0, 1.0)}
    whole = dl.branch(fun, np.zeros(n), 0.0, **course)
    up, down = (dl.branch(fun, np.zeros(n), 0.0, direction=way, **course) for way in ("up", "down"))
    extended = dl.extend_branch(fun, up, side="first")
    assert extended.identical(whole)
    assert dl.extend_branch(fun, down, side="last").identical(whole)
    merged = dl.merge_branches(down, up)
    assert events(merged) == events(whole)
    np.testing.assert_array_equal(merged.p, whole.p)
    np.testing.assert_array_equal(dl.merge_branches(up, down).p, whole.p)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("power", "e"),
    [*((4, 10.0**-k) for k in (2, 3, 4, 6, 8, 12)), (4, 0.0), *((3, 10.0**-k) for k in (2, 4, 8))],
)
def test_folds_are_within_their_accuracy(power, e, exact):
    """p = x⁴ − 2 e x² folds at 0 and ±√e, p = x³ − e x at ±√(e/3): together as e → 0."""
    size = np.sqrt(e if power == 4 else e / 3.0)
    truth = [-size, 0.0, size] if power == 4 else [-size, size]

    def fun(x, p):
        return p - x**power + e * (power - 2.0) * x ** (power - 2)

    def jacobian(x, p):
        return -power * np.diag(x ** (power - 1)) + e * (power - 2.0) ** 2 * x ** (power - 3.0)

    equation = dl.Residual(fun, jacobian, derivative=lambda x, p: np.ones(1)) if exact else fun
    branch = dl.branch(equation, [-1.0], float(-fun(np.array([-1.0]), 0.0)[0]), bounds=(-2.0, 2.0))
    points = dl.special_points(branch)
    assert set(dl.schema.decode(points.event).values.tolist()) == {"fold"}
    places, accuracy = points.state.values[:, 0], points.accuracy.values
    gaps = np.abs(np.subtract.outer(truth, places)) / branch.attrs["state_scale"]
    assert (gaps <= accuracy + 1e-17).any(axis=1).all()  # each fold is told
    assert (gaps <= accuracy + 1e-17).any(axis=0).all()  # and nothing else
    apart = len(places) == len(truth) > 1
    assert apart or accuracy.max() >= size / branch.attrs["state_scale"]
    assert accuracy.max() <= (0.1 * size / branch.attrs["state_scale"] if apart else 1e-2)


@pytest.mark.parametrize("start", [-0.75, -0.5, -0.3, 0.3, 0.5])
@pytest.mark.parametrize("size", [1, 3])
def test_rows_of_branch_points_have_the_tangent_of_their_branch(start, size):
    """Of p x − x² with x = p, and x = 0: where all derivatives vanish, too."""
    turn = ortho_group(size, seed=1).rvs() if size > 1 else np.eye(1)

    def fun(y, p):
        x = turn.T @ y
        return turn @ np.append(p * x[0] - x[0] ** 2, -x[1:])

    for lead, ahead in ((0.0, (0.0, 1.0)), (1.0, (HALF, HALF))):
        y = turn @ np.append(lead * start, np.zeros(size - 1))
        branch = dl.branch(fun, y, start, bounds=(-1.0, 1.0))
        assert [(kind, kernel) for kind, _, kernel in events(branch)] == [("branch_point", 1)]
        point = dl.special_points(branch)
        along = np.append(turn.T @ point.tangent.values[0], point.tangent_p.values[0])
        wanted = np.array([ahead[0], *np.zeros(size - 1), ahead[1]])
        np.testing.assert_allclose(along * np.sign(along[-1]), wanted, atol=1e-6)
