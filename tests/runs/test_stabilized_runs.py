"""Runs whose plateaus are crossed by stabilized explicit steps."""

import naive
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import dlnds as dl
from dlnds._kernels import jit

pytestmark = pytest.mark.compiled

SIGMA = (4.0, 3.0, 2.0, 1.0)
GRID = np.linspace(0.0, 400.0, 200)


def plateau(widths=(4, 4, 4, 4), **more):
    """A network that is too large for implicit steps to pay on plateaus of some hundreds."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
    return dl.LinearNetwork(widths, U @ np.diag(SIGMA) @ V, **more).specialized()


def reference(system, start, grid):
    field = jit.ready(system.field, jit.FIELD)

    def value(t, x):
        out = np.empty_like(x)
        field(t, x, system.params, out)
        return out

    options = {"t_eval": grid, "rtol": 1e-13, "atol": 1e-15}
    return solve_ivp(value, (grid[0], grid[-1]), start, "LSODA", **options).y.T


@pytest.mark.parametrize(("rtol", "gain"), [(1e-5, 2.0), (1e-7, 1.7), (1e-9, 1.25)])
def test_plateaus_take_far_fewer_evaluations_at_the_same_error(rtol, gain):
    """In all: when a run leaves stabilized steps depends on its rounding; order four gains less."""
    net, rhs, steps = plateau(), np.zeros(2), np.zeros(2)
    steepest = 3 * max(SIGMA) ** (4 / 3)  # the largest eigenvalue of the Hessian, at the minimum
    for seed in range(3):
        start = net.initial(scale=1e-2, rng=seed)
        truth = reference(net, start, GRID)
        size = np.linalg.norm(truth, axis=1)
        for k, method in enumerate(("auto", "dop853")):
            run = dl.flow(net, start, (0, 400), GRID, rtol=rtol, method=method)
            error = np.linalg.norm(run.state.values - truth, axis=1) / size
            # An error δ of a weight on the way to its escape, 100 to 300 before it, moves that.
            assert error.max() <= 300.0 * rtol
            # One that is off by δ where the gradient vanishes has a loss that is ½ λ_max δ² off.
            rise = 0.5 * steepest * (rtol * size.max()) ** 2 + 1e-15 * run.loss[0]
            assert np.diff(run.loss).max() <= rise
            assert run.n_jac == 0
            rhs[k] += run.n_rhs
            steps[k] += run.n_steps
    assert gain * rhs[0] < rhs[1]
    assert gain * steps[0] < steps[1]


def test_steps_keep_what_is_conserved():
    net = plateau()
    run = dl.flow(net, net.initial(scale=1e-2, rng=0), (0, 400), rtol=1e-5, save=("conserved",))
    assert run.n_steps < 400
    assert np.abs(run.conserved - run.conserved[0]).max() <= 1e-9 * max(SIGMA) ** (2 / 3)


def test_members_of_a_stack_are_what_they_are_alone():
    net = plateau()
    starts = np.stack([net.initial(scale=1e-2, rng=k) for k in range(40)])
    stack = dl.flow(net, starts, (0, 400), GRID, rtol=1e-6)
    for k in (0, 17, 39):
        alone = dl.flow(net, starts[k], (0, 400), GRID, rtol=1e-6)
        np.testing.assert_array_equal(stack.state[k], alone.state)
        assert int(stack.n_rhs[k]) == alone.n_rhs < 9500


def test_raw_inputs_and_unequal_widths_are_followed():
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(3, 30)) * np.array([[3.0], [1.0], [0.3]])
    net = dl.LinearNetwork.from_data(inputs, rng.normal(size=(4, 30)), hidden=(9, 7), whiten=False)
    start = net.initial(scale=1e-3, rng=1)
    grid = np.linspace(0.0, 3000.0, 7)
    runs = [dl.flow(net, start, (0, 3000), grid, rtol=1e-8, method=m) for m in ("auto", "dop853")]
    assert runs[0].n_jac == 0
    assert 1.7 * runs[0].n_rhs < runs[1].n_rhs
    np.testing.assert_allclose(runs[0].state, runs[1].state, rtol=0, atol=1e-5)


def test_rows_that_lie_close_are_left_to_the_dense_output():
    net = plateau()
    start = net.initial(scale=1e-2, rng=0)
    grid = np.linspace(0.0, 400.0, 4001)
    runs = [dl.flow(net, start, (0, 400), grid, rtol=1e-6, method=m) for m in ("auto", "dop853")]
    np.testing.assert_array_equal(runs[0].state, runs[1].state)


def test_events_on_plateaus_are_found_all_the_same():
    net = plateau()
    start = net.initial(scale=1e-2, rng=0)

    def half(t, x):
        return net.loss(x) - 3.0

    runs = [
        dl.flow(net, start, (0, 400), GRID, rtol=1e-8, method=m, events=(half,))
        for m in ("auto", "dop853")
    ]
    times = [run.time.values[run.event.values >= 0] for run in runs]
    np.testing.assert_array_equal(times[0], times[1])
    assert times[0].size == 1


def test_the_method_is_given_up_where_eigenvalues_are_complex():
    """Fast oscillations that have died out limit steps on the imaginary axis."""
    rates, turns = np.array([30.0, 50.0, 80.0]), np.array([400.0, 700.0, 900.0])

    def field(t, x, params, out):
        for k in range(3):
            rate, turn = params[1][2 * k], params[1][2 * k + 1]
            out[2 * k] = -rate * x[2 * k] - turn * x[2 * k + 1]
            out[2 * k + 1] = turn * x[2 * k] - rate * x[2 * k + 1]
        for k in range(6, x.size):
            out[k] = -0.1 * x[k]

    parameters = np.stack([rates, turns], axis=1).ravel()
    system = dl.System(field, dim=400, parameters=parameters)  # no Jacobian, too large for one
    start = np.ones(400)
    runs = [
        dl.flow(system, start, (0, 20), [20.0], rtol=1e-7, method=m) for m in ("auto", "dop853")
    ]
    exact = np.exp(-0.1 * 20.0)
    for run in runs:
        assert dl.schema.decode(run.stop_reason).item() == "end_reached"
        np.testing.assert_allclose(run.state[-1, 6:], exact, rtol=1e-6)
        assert np.abs(run.state[-1, :6]).max() < 1e-6
    assert runs[0].n_rhs < 1.25 * runs[1].n_rhs


@pytest.mark.parametrize("forced", [False, True])
def test_large_systems_without_jacobian_are_spared_most_steps(forced):
    """x' = −a (x − cos t), or without the cosine.

    Where the fast follow what moves no step is saved: stages in between lie off the slow solution,
    which the error estimate sees. But it takes no more than the pair 8(5,3).
    """
    rates = np.geomspace(1e-2, 1e4, 400)

    def field(t, x, params, out):
        for k in range(x.size):
            out[k] = params[1][k] * (params[1][-1] * np.cos(t) - x[k])

    parameters = [*rates, float(forced)]
    system = dl.System(field, dim=400, parameters=parameters)
    start, times = np.ones(400), [5.0, 10.0]
    run, other = (
        dl.flow(system, start, (0, 10), times, rtol=1e-7, method=m) for m in ("auto", "dop853")
    )
    assert run.n_jac == 0
    assert run.n_rhs < (1.1 if forced else 0.2) * other.n_rhs
    for row, t in zip(run.state.values, times, strict=True):
        exact = np.exp(-rates * t)
        if forced:
            exact *= 1.0 / (rates**2 + 1.0)
            exact += (rates**2 * np.cos(t) + rates * np.sin(t)) / (rates**2 + 1.0)
        np.testing.assert_allclose(row, exact, rtol=0, atol=1e-6)


def test_equal_calls_are_equal():
    net = naive.random_network((5, 6, 5), 0)
    start = net.initial(scale=1e-3, rng=0)
    runs = [dl.flow(net, start, (0, 500)) for _ in range(2)]
    assert runs[0].identical(runs[1])


@pytest.mark.parametrize("stiffness", [3e3, 1e4, 1e5])
def test_what_follows_a_moving_state_goes_on_to_implicit_steps(stiffness):
    """Stages then lie off the slow solution, so that steps are as short as without them."""

    def field(t, x, params, out):
        n = x.size
        for i in range(n):
            out[i] = -params[1][0] * (i + 1) / n * (x[i] - np.cos(t + i))

    system = dl.System(field, dim=20, parameters=[stiffness])
    run = dl.flow(system, np.cos(np.arange(20)), (0, 10), [10.0])
    assert dl.schema.decode(run.stop_reason).item() == "end_reached"
    assert run.n_jac > 0
    assert run.n_rhs < 2000
    rates = stiffness * np.arange(1, 21) / 20.0
    moving = (rates**2 * np.cos(10.0 + np.arange(20)) + rates * np.sin(10.0 + np.arange(20))) / (
        rates**2 + 1.0
    )
    np.testing.assert_allclose(run.state[-1], moving, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t_end", [6e4, np.inf])
def test_modes_that_are_learnt_are_set_to_rest_all_the_same(t_end):
    """They have to come to their targets closely, which stabilized steps do not bring about."""
    net = dl.LinearNetwork((10,) * 4, np.diag([8.0, 4.0, 2.0, 1.0] + [0.0] * 6))
    run = dl.flow(net, net.initial(scale=1e-6, rng=0), (0, t_end))
    assert run.n_rhs < 12_000
    assert run.n_steps < 700
