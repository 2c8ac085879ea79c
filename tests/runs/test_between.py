"""Rows and events inside steps are as accurate as the ends of these may be."""

import naive
import numpy as np
import pytest

import dlnds as dl

RATES = [1e2, 1e4, 1e6, 1e8]


def forced(t, x, params, out):
    """x' = −λ (x − g) + g′ of Prothero and Robinson, g = 2 + cos t: x = g, however stiff it is."""
    out[0] = -params[1][0] * (x[0] - 2.0 - np.cos(t)) - np.sin(t)


def slope(t, x, params, out):
    out[0, 0] = -params[1][0]


def product(t, x, v, params, out):
    out[0] = -params[1][0] * v[0]


def turning(t, x, params, out):
    """As `forced`, with a rate that changes from 2 λ to 10 λ and back along the run."""
    gap = x[0] - 2.0 - np.cos(t)
    out[0] = -params[1][0] * gap * (1.0 + x[0] ** 2) - np.sin(t)


def lagging(t, x, params, out):
    """x' = −λ (x − cos t): λ (λ cos t + sin t)/(λ² + 1), from its value at 0 on."""
    out[0] = -params[1][0] * (x[0] - np.cos(t))


def robertson(t, x, params, out):
    out[0] = -0.04 * x[0] + 1e4 * x[1] * x[2]
    out[2] = 3e7 * x[1] ** 2
    out[1] = -out[0] - out[2]


def allowed(rtol):
    """Return the part of its scale that a component may err by in an implicit step."""
    return 0.1 * rtol**0.6


def steps_that_suffice(rtol):
    """Return 10/h of a polynomial of degree 5 through six points that errs by what is allowed.

    Its error is max|ω| h⁶/720 for cos t, where ω is the product of the distances.
    """
    legendre = np.polynomial.legendre
    nodes = 0.5 + 0.5 * legendre.legroots([0, 0, 0, 0, -1, 1])
    part = np.linspace(0.0, 1.0, 2001)
    largest = np.abs(part * np.prod(part[:, None] - nodes, axis=1)).max()
    return 10.0 / (720.0 * allowed(rtol) / largest) ** (1.0 / 6.0)


@pytest.mark.parametrize("derivative", [{}, {"jacobian": slope}, {"jvp": product}])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("rtol", [1e-5, 1e-8, 1e-11])
def test_rows_inside_steps_of_a_forced_stiff_component_are_right(rtol, rate, derivative):
    """Scales are 1 to 3; steps are as long as the error allows, up to the sixth root of these."""
    system = dl.System(forced, dim=1, parameters=[rate], **derivative)
    run = dl.flow(system, [3.0], (0, 10), np.linspace(0, 10, 173), method="radau", rtol=rtol)
    error = np.abs(run.state.values[:, 0] - 2.0 - np.cos(run.time.values)).max()
    assert 0.1 * allowed(rtol) < error < 3.0 * allowed(rtol)
    assert 0.75 < run.attrs["n_steps"] / steps_that_suffice(rtol) < 1.5


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("rtol", [1e-5, 1e-8, 1e-11])
def test_a_rate_that_changes_in_a_step_spoils_its_rows_by_that_change_at_most(rtol, rate):
    """The error is told by the Jacobian at the start, which is up to five times that inside."""
    system = dl.System(turning, dim=1, parameters=[rate])
    run = dl.flow(system, [3.0], (0, 10), np.linspace(0, 10, 173), method="radau", rtol=rtol)
    error = np.abs(run.state.values[:, 0] - 2.0 - np.cos(run.time.values)).max()
    assert 0.1 * allowed(rtol) < error < 5.0 * 3.0 * allowed(rtol)
    assert 0.75 < run.attrs["n_steps"] / steps_that_suffice(rtol) < 2.0


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("wanted", [[5.0], [0.3, 9.95, 10.0], np.linspace(0, 10, 11).tolist()])
def test_few_rows_cost_a_step_each_at_most(rate, wanted):
    """Where the polynomial is bad, the step ends at the row."""
    system = dl.System(lagging, dim=1, parameters=[rate])
    start = rate**2 / (rate**2 + 1.0)
    bare = dl.flow(system, [start], (0, 10), [10.0], method="radau")
    run = dl.flow(system, [start], (0, 10), wanted, method="radau")
    t = run.time.values
    np.testing.assert_array_equal(t[: len(wanted)], wanted)
    exact = start * (np.cos(t) + np.sin(t) / rate)
    np.testing.assert_allclose(run.state[:, 0], exact, rtol=0, atol=allowed(1e-8))
    assert dl.schema.decode(run.stop_reason).item() == "end_reached"
    assert run.attrs["n_steps"] <= bare.attrs["n_steps"] + len(wanted)


@pytest.mark.parametrize("rate", RATES)
def test_events_inside_steps_are_where_they_are(rate):
    """cos t = 1/2 three times, with slopes of √3/2; states err by 3 times what is allowed."""
    system = dl.System(forced, dim=1, parameters=[rate])
    run = dl.flow(
        system, [3.0], (0, 10), [10.0], method="radau", events=lambda t, x: float(x[0] - 2.5)
    )
    found = run.time.values[run.event.values >= 0]
    off = np.abs(found - np.array([1.0, 5.0, 7.0]) * np.pi / 3.0)
    assert 1e-12 < off.max() < 3.0 * allowed(1e-8) / np.sqrt(0.75)


@pytest.mark.parametrize("method", ["radau", "auto"])
@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
def test_rows_of_the_reaction_of_robertson_agree_with_steps_of_a_tight_run(method, rtol):
    system, start = dl.System(robertson, dim=3, scales=[0, 1, 2]), [1.0, 0.0, 0.0]
    tight = dl.flow(system, start, (0, 1e6), method="radau", rtol=1e-12)
    run = dl.flow(system, start, (0, 1e6), tight.time.values, method=method, rtol=rtol)
    bare = dl.flow(system, start, (0, 1e6), method=method, rtol=rtol)
    error = np.abs(run.state.values[1:] / tight.state.values[1:] - 1.0).max()
    assert allowed(1e-12) < error < allowed(rtol)
    assert run.attrs["n_steps"] == bare.attrs["n_steps"]


@pytest.mark.parametrize("widths", [(4, 3, 5), (3, 3, 3, 3)])
@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
def test_rows_of_a_network_agree_with_steps_of_a_tight_run(widths, rtol):
    """Where errors at the ends of steps say all, rows cost none."""
    net = naive.random_network(widths, 0, "whitened")
    start = net.initial(scale=0.05, rng=0)
    tight = dl.flow(net, start, (0, 300), method="radau", rtol=1e-12)
    run = dl.flow(net, start, (0, 300), tight.time.values, method="radau", rtol=rtol)
    bare = dl.flow(net, start, (0, 300), method="radau", rtol=rtol)
    size = np.abs(tight.state.values).max(axis=1)
    error = (np.abs(run.state.values - tight.state.values).max(axis=1) / size).max()
    assert allowed(1e-12) < error < allowed(rtol)
    assert run.attrs["n_steps"] == bare.attrs["n_steps"]


@pytest.mark.parametrize("rate", [30.0, 100.0, 1000.0])
@pytest.mark.parametrize("rtol", [1e-5, 1e-8])
@pytest.mark.parametrize("rows", [41, 4001])
def test_rows_inside_steps_that_stability_limits_are_right(rate, rtol, rows):
    """A decaying mode errs by three times its size inside a step as long as stability allows."""
    system, fixed = dl.System(lagging, dim=1, parameters=[rate]), {"method": "dop853", "rtol": rtol}
    run = dl.flow(system, [3.0], (0, 10), np.linspace(0, 10, rows), **fixed)
    t, start = run.time.values, rate**2 / (rate**2 + 1.0)
    exact = start * (np.cos(t) + np.sin(t) / rate) + (3.0 - start) * np.exp(-rate * t)
    assert np.abs(run.state.values[:, 0] - exact).max() <= 2.0 * 10.0 * rtol
    bare = dl.flow(system, [3.0], (0, 10), **fixed)
    assert run.attrs["n_steps"] <= 1.5 * bare.attrs["n_steps"]


@pytest.mark.parametrize("depth", [2, 3])
def test_rows_of_a_network_inside_explicit_steps_are_right(depth):
    """At its end a run may bounce, as far as ends of steps err; rows err ten times that at most."""
    net, rtol = dl.LinearNetwork((3,) * (depth + 1), np.diag([3.0, 2.0, 1.0])), 1e-6
    start = net.initial(scale=1e-2, rng=1)
    ends = dl.flow(net, start, (0, 40), rtol=rtol, method="dop853").time.values
    inside = np.concatenate([ends[:-1] + part * np.diff(ends) for part in (0.5, 0.83)])
    grid = np.union1d(ends, inside)
    run = dl.flow(net, start, (0, 40), grid, rtol=rtol, method="dop853")
    tight = dl.flow(net, start, (0, 40), grid, rtol=1e-11, method="dop853")
    error = np.abs(run.state.values - tight.state.values).max(axis=1)
    error /= rtol * np.abs(tight.state.values).max(axis=1)
    assert error.max() <= 2.0 * 10.0 + error[np.isin(grid, ends)].max()
    assert run.attrs["n_steps"] <= 1.05 * len(ends)


@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
def test_rows_leave_steps_as_they_are_that_errors_limit(rtol):
    def circle(t, x, params, out):
        out[0], out[1] = -x[1], x[0]

    system = dl.System(circle, dim=2)
    bare = dl.flow(system, [1.0, 0.0], (0, 20), rtol=rtol)
    grid = np.union1d(np.linspace(0, 20, 999), bare.time.values)
    run = dl.flow(system, [1.0, 0.0], (0, 20), grid, rtol=rtol)
    assert run.attrs["n_steps"] == bare.attrs["n_steps"]
    kept = np.isin(grid, bare.time.values)
    np.testing.assert_allclose(run.state.values[kept], bare.state.values, rtol=0, atol=1e-13)
    error = np.abs(run.state.values - np.stack([np.cos(grid), np.sin(grid)], axis=1)).max()
    assert 0.1 * rtol < error < 10.0 * rtol
