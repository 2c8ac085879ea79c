"""Stabilized explicit steps: their coefficients as algebra, their steps against a plain tableau."""

import itertools

import naive
import numpy as np
import pytest

import dlnds as dl
from dlnds._kernels import runge_kutta, stabilized

COUNTS = sorted(stabilized.TABLE)
#: 1/γ of all trees with up to four nodes, in the order of `tableau_weights`.
EXACT = [1.0, 1 / 2, 1 / 3, 1 / 6, 1 / 4, 1 / 8, 1 / 12, 1 / 24]


def rows(count):
    """What the tables have for a number of stages."""
    tables, row = stabilized.tables(), COUNTS.index(count)
    return tables.recurrence[tables.firsts[row] : tables.firsts[row + 1]], tables.last[row]


def tableau(count):
    """The method as a plain one: A (stage, stage), b, and the weights of the error."""
    recurrence, last = rows(count)
    stages = []
    before, here = np.zeros(count), np.zeros(count)
    for j, (factor, one, two) in enumerate(recurrence):
        stages.append(here)
        slope = factor * np.eye(count)[j]
        before, here = here, slope + one * here + two * before
    first = len(stages)
    for i in range(4):
        stage = here.copy()
        stage[first : first + i] += last[[0, 1, 3][i - 1] :][:i] if i else 0.0
        stages.append(stage)
    b = here.copy()
    b[first : first + 4] += last[6:10]
    error = np.zeros(count)
    error[first : first + 4], error[first // 2] = last[10:14], last[14]
    return np.array(stages), b, error


def tableau_weights(A, b):
    c = A.sum(axis=1)
    parts = (np.ones_like(c), c, c**2, A @ c, c**3, c * (A @ c), A @ c**2, A @ A @ c)
    return [b @ part for part in parts]


def growth(count, z):
    """R(z), by the recurrence of x' = λx: the tableau would lose it to rounding for large z."""
    recurrence, a = rows(count)
    before, here = 0.0 * z, 1.0 + 0.0 * z
    for factor, one, two in recurrence:
        before, here = here, factor * z * here + one * here + two * before
    first = z * here
    second = z * (here + a[0] * first)
    third = z * (here + a[1] * first + a[2] * second)
    fourth = z * (here + a[3] * first + a[4] * second + a[5] * third)
    return here + a[6] * first + a[7] * second + a[8] * third + a[9] * fourth


@pytest.mark.parametrize("count", COUNTS)
def test_all_conditions_of_order_four_hold(count):
    A, b, error = tableau(count)
    np.testing.assert_allclose(tableau_weights(A, b), EXACT, rtol=0, atol=2e-13)
    weights = tableau_weights(A, error)
    size = np.abs(error).sum()  # what rounding of a sum of these terms is relative to
    np.testing.assert_allclose(weights[:4], 0.0, rtol=0, atol=1e-14 * size)
    assert weights[7] == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("count", COUNTS)
def test_steps_are_stable_as_far_as_the_table_says_and_no_further(count):
    reach = stabilized.tables().reach[COUNTS.index(count)]
    assert 0.23 * count**2 < reach < 0.354 * count**2
    z = -np.linspace(0.0, reach, 40 * count)
    size = np.abs(growth(count, z))
    damped = size[np.flatnonzero(size < 0.5)[0] :]
    assert damped.max() == pytest.approx(0.95, abs=1e-6)
    assert abs(growth(count, -1.1 * reach)) > 1.0


@pytest.mark.parametrize("count", COUNTS)
def test_what_a_step_errs_by_is_what_the_control_takes_it_for(count):
    h = 1.0 / 64.0
    error = abs(growth(count, -h) - np.exp(-h)) / h**5
    assert 0.95 * stabilized.FIFTH < error < 3.1 * stabilized.FIFTH


def one_step(system, x, h, rate, expected=runge_kutta.ACCEPTED):
    """The end of a step, its length, and the clock after it."""
    tasks, clock = np.zeros(1, runge_kutta.TASK), runge_kutta.clock_at(0.0)
    tasks[0] = np.inf, 1e-3, 0.0, np.inf, 10, len(COUNTS) - 1, 10_000
    clock["step"], clock["rate"], clock["stabilized"] = h, rate, 1
    code, length, _, trial = naive.kernel_step(
        stabilized.step, stabilized.tables(), system, x, tasks, clock
    )
    assert code == expected
    return trial.state, length, clock[0]


@pytest.mark.parametrize("rate", [5.0, 100.0, 3e3, 1e5])
def test_a_step_is_that_of_the_tableau(rate):
    net = naive.random_network((3, 4, 2), 0)
    x = net.initial(scale=0.3, rng=1)
    end, h, clock = one_step(net, x, 0.05, rate)
    reach = stabilized.tables().reach
    row = np.searchsorted(reach, (1.0 - 1e-12) * stabilized.MARGIN * h * clock["rate"])
    A, b, _ = tableau(COUNTS[row])
    assert clock["evaluations"] == COUNTS[row] + 1  # one looks for the largest eigenvalue
    slopes = np.zeros((len(b), x.size))
    for i, weights in enumerate(A):
        slopes[i] = -net.gradient(x + h * weights @ slopes)
    bound = 1e-14 * (1.0 + h * np.abs(A).sum(axis=1).max() * np.abs(slopes).max())
    np.testing.assert_allclose(end, x + h * b @ slopes, rtol=0, atol=bound)


def test_steps_are_of_order_four():
    net = naive.random_network((3, 4, 2), 0)
    x = net.initial(scale=0.5, rng=1)
    errors = []
    for h in (0.04, 0.02, 0.01):
        end, length, _ = one_step(net, x, h, 60.0 / h)
        assert length == h
        exact = dl.flow(net, x, (0, h), rtol=1e-13, method="dop853").state[-1]
        errors.append(np.abs(end - exact.values).max())
    orders = np.log2([a / b for a, b in itertools.pairwise(errors)])
    np.testing.assert_allclose(orders, 5.0, atol=0.5)  # of the error of one step


def test_an_underestimated_eigenvalue_is_found_again():
    """The step is refused, its error leads to the eigenvalue, and it is made with more stages."""
    values = np.geomspace(1.0, 1e4, 12)

    def field(t, x, params, out):
        for i in range(x.size):
            out[i] = -params[1][i] * x[i]

    system = dl.System(field, dim=12, parameters=values)
    x = np.ones(12) * 1e-3
    x[0] = 1.0
    end, h, clock = one_step(system, x, 0.02, 10.0)
    assert clock["rate"] == pytest.approx(1e4, rel=0.05)
    assert np.abs(end[1:]).max() < 1e-3
    assert end[0] == pytest.approx(np.exp(-h), abs=1e-6)


def test_a_method_that_fails_again_and_again_is_given_up():
    def field(t, x, params, out):
        for i in range(x.size):
            out[i] = -x[i] if x[i] == 1.0 else np.nan

    _, h, clock = one_step(
        dl.System(field, dim=3), np.ones(3), 0.1, 100.0, expected=runge_kutta.REFUSED
    )
    assert h == 0.0
    assert clock["stabilized"] == -1
    assert 0.0 < clock["step"] <= runge_kutta.DAMPED / 100.0
