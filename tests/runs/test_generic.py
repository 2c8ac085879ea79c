"""Runs of systems that are no networks: what errors are judged by, stiffness without Jacobian."""

import numpy as np
import pytest
import scipy.linalg

import dlnds as dl


def apart(t, x, params, out):
    out[0], out[1] = 0.0, -x[1]


def together(t, x, params, out):
    out[0], out[1] = 0.0, -1e-5 * x[0] * x[1]


def lorenz(t, x, params, out):
    p = params[1]
    u, v, w = x[0] / p[0], x[1] / p[1], x[2] / p[2]
    out[0] = p[0] * (10.0 * (v - u))
    out[1] = p[1] * (u * (28.0 - w) - v)
    out[2] = p[2] * (u * v - 8.0 / 3.0 * w)


def beside(t, x, params, out):
    out[0] = 0.0
    out[1] = -1e6 * (x[1] - 1e-9 * np.cos(t))


def heat(t, x, params, out):
    for i in range(x.size):
        out[i] = -2.0 * x[i]
        if i > 0:
            out[i] += x[i - 1]
        if i < x.size - 1:
            out[i] += x[i + 1]


def robertson(t, x, params, out):
    out[0] = -0.04 * x[0] + 1e4 * x[1] * x[2]
    out[2] = 3e7 * x[1] ** 2
    out[1] = -out[0] - out[2]


@pytest.mark.parametrize("field", [apart, together])
@pytest.mark.parametrize("scales", ["components", [0, 1]])
def test_a_small_component_beside_a_large_one_has_its_own_accuracy(field, scales):
    """5 e^{−100} beside 1e5: the local errors of some 200 steps, each within ``rtol``."""
    run = dl.flow(dl.System(field, dim=2, scales=scales), [1e5, 5.0], (0, 100), [100.0])
    assert float(run.state[-1, 0]) == 1e5
    error = float(run.state[-1, 1]) / (5.0 * np.exp(-100.0)) - 1.0
    assert 0.0 < abs(error) < 1e-6
    whole = dl.flow(dl.System(field, dim=2, scales="state"), [1e5, 5.0], (0, 100), [100.0])
    assert float(whole.state[-1, 1]) > 1e-12


def test_units_do_not_matter_where_each_component_is_a_group():
    """Lorenz in units that are powers of two: each number of the run is the same number."""
    units = np.array([2.0**40, 2.0**-60, 8.0])
    runs = [
        dl.flow(dl.System(lorenz, dim=3, parameters=u.tolist(), scales=[0, 1, 2]), u * 1.0, (0, 5))
        for u in (np.ones(3), units)
    ]
    np.testing.assert_array_equal(runs[0].time, runs[1].time)
    np.testing.assert_array_equal(runs[0].state * units, runs[1].state)


def test_components_that_begin_at_zero_are_filled_by_others():
    """The k-th one of a chain begins like t^k; exp(t A) is the solution."""
    n = 40
    A = np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1) - 2.0 * np.eye(n)
    run = dl.flow(dl.System(heat, dim=n), np.eye(n)[0], (0, 5), [5.0])
    np.testing.assert_allclose(run.state[-1], scipy.linalg.expm(5.0 * A)[0], rtol=0, atol=1e-8)
    assert run.attrs["n_steps"] <= 30


def test_noise_of_a_component_that_should_be_zero_takes_no_steps():
    def circle(t, x, params, out):
        out[0], out[1] = -x[1], x[0]

    def noisy(t, x, params, out):
        out[0], out[1] = -x[1], x[0]
        out[2] = (0.1 * x[0]) * 3.0 - 0.3 * x[0]

    quiet = dl.flow(dl.System(circle, dim=2), [1.0, 0.0], (0, 50))
    run = dl.flow(dl.System(noisy, dim=3), [1.0, 0.0, 0.0], (0, 50))
    assert 0.0 < float(np.abs(run.state[:, 2]).max()) < 1e-13
    assert run.attrs["n_steps"] <= 1.2 * quiet.attrs["n_steps"]


@pytest.mark.parametrize("method", ["auto", "radau"])
def test_a_stiff_system_without_jacobian_is_followed(method):
    """x' = −λ (x − cos t): x = (λ² cos t + λ sin t)/(λ² + 1) after e^{−λt}."""
    rate = 1e6

    def field(t, x, params, out):
        out[0] = -params[1][0] * (x[0] - np.cos(t))

    system = dl.System(field, dim=1, parameters=[rate])
    run = dl.flow(system, [2.0], (0, 10), method=method, max_steps=3000)
    t = run.time.values
    exact = (rate**2 * np.cos(t) + rate * np.sin(t)) / (rate**2 + 1.0)
    exact += (2.0 - rate**2 / (rate**2 + 1.0)) * np.exp(-rate * t)
    np.testing.assert_allclose(run.state[:, 0], exact, atol=0.1 * 1e-8**0.6)
    assert dl.schema.decode(run.stop_reason).item() == "end_reached"
    assert run.attrs["n_jac"] > 0


def test_a_small_stiff_component_is_seen_beside_a_large_one():
    run = dl.flow(dl.System(beside, dim=2), [1e5, 2e-9], (0, 10), max_steps=3000)
    assert dl.schema.decode(run.stop_reason).item() == "end_reached"
    assert run.attrs["n_jac"] > 0
    np.testing.assert_allclose(run.state[-1, 1], 1e-9 * np.cos(10.0), rtol=1e-5)


def test_the_reaction_of_robertson_ends_without_jacobian():
    """Reference solution of the IVP test set at t = 1e11."""
    reference = [0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050]
    system = dl.System(robertson, dim=3, scales=[0, 1, 2])
    run = dl.flow(system, [1.0, 0.0, 0.0], (0, 1e11), [1e11], max_steps=3000)
    assert dl.schema.decode(run.stop_reason).item() == "end_reached"
    np.testing.assert_allclose(run.state[-1], reference, rtol=1e-4)


def test_a_large_system_without_jacobian_is_told_what_to_give():
    def decay(t, x, params, out):
        out[:] = -x

    with pytest.raises(ValueError, match=r"^method: 'radau' needs a system with a jacobian"):
        dl.flow(dl.System(decay, dim=400), np.ones(400), (0, 1), method="radau")


@pytest.mark.parametrize("scales", ["component", [0], [0, -1], [0.5, 1], 3, {0, 1}])
def test_bad_scales_are_named(scales):
    with pytest.raises((ValueError, TypeError), match="^scales"):
        dl.System(apart, dim=2, scales=scales)


def test_a_field_that_refuses_some_states_runs_where_it_does_not():
    """Which components drive which is tried at random states, also where a field raises."""

    def field(t, x, params, out):
        if x[0] <= 0.0:
            raise ValueError("needs a positive size")
        out[0], out[1] = -x[0], x[0] - x[1]

    system = dl.System(field, dim=2)
    run = dl.flow(system, [1.0, 0.0], (0, 2), [2.0])
    np.testing.assert_allclose(run.state[-1], np.exp(-2.0) * np.array([1.0, 2.0]), rtol=1e-7)


def test_no_step_leaps_to_where_the_size_of_the_state_overflows():
    """x' = 1 up to x = 1, and then far beyond all bounds: an infinite scale allows any error."""

    def wall(t, x, params, out):
        out[0] = 1.0 if x[0] <= 1.0 else 1e170

    run = dl.flow(dl.System(wall, dim=1, scales="state"), [0.0], (0, 4), method="dop853")
    assert dl.schema.decode(run.stop_reason).item() == "step_too_small"
    assert np.isfinite(run.state.values**2).all()
    assert (abs(run.state.values[:-1, 0] - run.time.values[:-1]) <= 1e-8).all()
