"""Gradient descent and other maps."""

import contracts
import naive
import numpy as np
import pytest
from hypothesis import given, settings

import dlnds as dl


@settings(max_examples=25)
@given(naive.networks, naive.seeds)
def test_descent_is_its_definition_and_drifts_exactly(net, seed):
    """x⁺ = x + ηF and C_i⁺ − C_i = η² (F_i F_iᵀ − F_{i+1}ᵀ F_{i+1}), step by step."""
    eta, x = 0.03, naive.state_of(net, seed, 0.4)
    steps = dl.iterate(dl.GradientDescent(net, step_size=eta), x, 3)
    dl.schema.validate(steps)
    for now, after in zip(steps.state.values, steps.state.values[1:], strict=False):
        F = naive.field(net, now)
        size = 1.0 + np.abs(F).max()
        np.testing.assert_allclose(after, now + eta * F, rtol=0, atol=1e-13 * size)
        parts = naive.split(net, F)
        for before, then, f, g in zip(
            net.imbalances(now), net.imbalances(after), parts, parts[1:], strict=False
        ):
            drift = eta**2 * (f @ f.T - g.T @ g)
            np.testing.assert_allclose(then - before, drift, rtol=0, atol=1e-11 * size**2)


def test_descent_keeps_the_contract_of_systems():
    net = naive.random_network((3, 4, 2), 0)
    contracts.check_system(dl.GradientDescent(net, step_size=0.1), naive.state_of(net, 1, 0.7))


def test_small_steps_follow_the_flow_to_first_order():
    net = naive.random_network((3, 4, 3), 0)
    x = naive.state_of(net, 1, 0.4)
    end = dl.flow(net, x, (0, 1), [1.0], rtol=1e-12).state[-1]
    errors = []
    for n in (50, 100, 200, 400):
        steps = dl.iterate(dl.GradientDescent(net, step_size=1 / n), x, n, every=n)
        errors.append(float(np.linalg.norm(steps.state[-1] - end)))
    slope = -np.polyfit(np.log([50, 100, 200, 400]), np.log(errors), 1)[0]
    assert abs(slope - 1.0) < 0.1


@pytest.mark.parametrize("widths", [(1, 1, 1), (3, 4, 3), (2, 3, 3, 2)])
def test_a_minimum_is_stable_up_to_the_limit(widths):
    net = naive.random_network(widths, 0)
    x = net.critical_state(range(net.max_rank))
    limit = dl.GradientDescent(net, step_size=1.0).stability_limit(x)
    assert limit == pytest.approx(2 / dl.linearize(net, x).eigenvalue.values[-1], rel=1e-9)
    top = np.linalg.eigh(net.hessian(x))[1][:, -1]
    for factor, grows in [(0.95, False), (1.05, True)]:
        descent = dl.GradientDescent(net, step_size=factor * limit)
        steps = dl.iterate(descent, x + 1e-7 * top, 30, every=30)
        assert (np.linalg.norm(steps.state[-1] - x) > 1e-7) == grows


def test_descent_that_diverges_is_reported():
    net = naive.random_network((2, 3, 2), 0)
    steps = dl.iterate(dl.GradientDescent(net, step_size=100.0), naive.state_of(net, 1), 1000)
    assert steps.dlnds.decode("stop_reason").item() == "not_finite"
    assert steps.attrs["n_steps"] < 1000
    assert steps.iteration.values[-1] == steps.attrs["n_steps"]
    assert np.isfinite(steps.state).all()


def henon(t, x, params, out):  # with a stable fixed point
    out[0] = 1.0 - 0.3 * x[0] * x[0] + x[1]
    out[1] = 0.3 * x[0]


@pytest.mark.parametrize("every", [1, 7, 5000])
def test_henon_orbit_and_its_saved_rows(every):
    n = 9001
    orbit = dl.iterate(dl.System(henon, dim=2), [0.1, 0.2], n, every=every)
    expected = [np.array([0.1, 0.2])]
    for _ in range(n):
        a, b = expected[-1]
        expected.append(np.array([1.0 - 0.3 * a * a + b, 0.3 * a]))
    rows = sorted({0, *range(0, n + 1, every), n})
    assert orbit.iteration.values.tolist() == rows
    np.testing.assert_allclose(orbit.state, np.array(expected)[rows], rtol=0, atol=1e-14)
    assert orbit.identical(dl.iterate(dl.System(henon, dim=2), [0.1, 0.2], n, every=every))


def test_orbits_can_be_saved_and_drawn(tmp_path):
    net = naive.random_network((2, 3, 2), 0)
    descent = dl.GradientDescent(net, step_size=0.05)
    steps = dl.iterate(descent, net.initial(rng=0, scale=0.1), 100, save=("singular_value",))
    dl.save(steps, tmp_path / "steps.nc")
    assert dl.load(tmp_path / "steps.nc").identical(steps)
    assert steps.dlnds.plot().get_xlabel() == "iteration $n$"
    assert steps.attrs["step_size"] == 0.05


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("step_size", lambda net, x: dl.GradientDescent(net, step_size=0.0)),
        ("step_size", lambda net, x: dl.GradientDescent(net, step_size=np.nan)),
        ("system", lambda net, x: dl.GradientDescent(3, step_size=0.1)),
        ("stepsize", lambda net, x: dl.GradientDescent(net, stepsize=0.1)),
        ("system", lambda net, x: dl.iterate(3, x, 5)),
        ("system", lambda net, x: dl.iterate(net, x, 5)),
        ("system", lambda net, x: dl.flow(dl.GradientDescent(net, 0.1), x)),
        ("system", lambda net, x: dl.linearize(dl.GradientDescent(net, 0.1), x)),
        ("system", lambda net, x: dl.GradientDescent(dl.GradientDescent(net, 0.1), 0.1)),
        ("start", lambda net, x: dl.iterate(dl.GradientDescent(net, 0.1), x[1:], 5)),
        ("n_steps", lambda net, x: dl.iterate(dl.GradientDescent(net, 0.1), x, 0)),
        ("every", lambda net, x: dl.iterate(dl.GradientDescent(net, 0.1), x, 5, every=0)),
        ("save", lambda net, x: dl.iterate(dl.GradientDescent(net, 0.1), x, 5, save=("no",))),
        ("x", lambda net, x: dl.GradientDescent(net, step_size=1).stability_limit(x[1:])),
    ],
)
def test_bad_input_is_refused(name, call):
    net = naive.random_network((2, 3, 2), 0)
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        call(net, naive.state_of(net, 0))


# Stacks, and the time of the flow.


@pytest.mark.parametrize("every", [1, 7])
def test_members_of_a_stack_are_what_they_are_alone(every):
    """Also those that leave the finite numbers before the others are over."""
    net = naive.random_network((2, 3, 2), 0)
    descent = dl.GradientDescent(net, 0.1)
    starts = np.stack([naive.state_of(net, seed, 0.3) for seed in range(3)])
    starts[1] *= 1e3
    save = ("state", "singular_value", "imbalance")
    runs = dl.iterate(descent, starts, 50, every=every, save=save)
    dl.schema.validate(runs)
    assert dict(runs.sizes)["sample"] == 3
    assert runs.iteration.dims == runs.time.dims == ("iteration",)
    words = dl.schema.decode(runs.stop_reason).values.tolist()
    assert words == ["end_reached", "not_finite", "end_reached"]
    for k, start in enumerate(starts):
        alone, member = dl.iterate(descent, start, 50, every=every, save=save), runs.isel(sample=k)
        assert int(member.n_steps) == alone.attrs["n_steps"]
        assert str(member.limit.values) == alone.attrs["limit"]
        rows = alone.isel(iteration=alone.iteration.values % every == 0) if k == 1 else alone
        reached = member.sel(iteration=rows.iteration)
        for name in ("loss", "loss_rate", *save):
            np.testing.assert_array_equal(reached[name], rows[name])
        beyond = member.drop_sel(iteration=rows.iteration)
        assert np.isnan(beyond.state).all()
    assert runs.identical(dl.iterate(descent, starts, 50, every=every, save=save))


def test_a_stack_of_one_has_its_dim_and_one_that_fails_has_its_rows_alone():
    net = naive.random_network((2, 3, 2), 0)
    start = naive.state_of(net, 0, 300.0)
    alone, stack = (dl.iterate(dl.GradientDescent(net, 0.1), x, 10_000) for x in (start, [start]))
    assert stack.sizes["sample"] == 1
    assert stack.sizes["iteration"] == alone.sizes["iteration"] < 20
    np.testing.assert_array_equal(stack.state[0], alone.state)


def test_time_is_the_step_size_times_the_number_of_steps():
    net = naive.random_network((2, 3, 2), 0)
    steps = dl.iterate(dl.GradientDescent(net, 0.03), naive.state_of(net, 0, 0.3), 100, every=9)
    assert steps.time.dims == ("iteration",)
    np.testing.assert_allclose(steps.time, 0.03 * steps.iteration, rtol=2.3e-16)
    assert steps.attrs["step_size"] == 0.03
    assert steps.time.attrs["long_name"] == "time"
    by_time = steps.swap_dims(iteration="time").sel(time=1.0, method="nearest")
    assert int(by_time.iteration) == 36
    orbit = dl.iterate(dl.System(henon, dim=2), [0.1, 0.2], 5)  # of a map there is no time
    assert "time" not in orbit.variables
