"""Runs of any system: accuracy, bookkeeping, reasons to stop."""

import contracts
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import dlnds as dl


def lorenz(t, x, params, out):
    out[0] = params[1][0] * (x[1] - x[0])
    out[1] = x[0] * (params[1][1] - x[2]) - x[1]
    out[2] = x[0] * x[1] - params[1][2] * x[2]


def lorenz_jacobian(t, x, params, out):
    out[:] = 0.0
    out[0, 0], out[0, 1] = -params[1][0], params[1][0]
    out[1, 0], out[1, 1], out[1, 2] = params[1][1] - x[2], -1.0, -x[0]
    out[2, 0], out[2, 1], out[2, 2] = x[1], x[0], -params[1][2]


def lorenz_jvp(t, x, v, params, out):
    out[0] = params[1][0] * (v[1] - v[0])
    out[1] = v[0] * (params[1][1] - x[2]) - x[0] * v[2] - v[1]
    out[2] = v[0] * x[1] + x[0] * v[1] - params[1][2] * v[2]


LORENZ = dl.System(
    lorenz,
    lorenz_jvp,
    lorenz_jacobian,
    dim=3,
    parameters=(10.0, 28.0, 8.0 / 3.0),
    names=("x", "y", "z"),
    energy=lambda x: float(x @ x),
)


def python_lorenz(t, x):
    return [10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]]


def test_lorenz_keeps_the_contract_of_systems():
    contracts.check_system(LORENZ, [1.0, -2.0, 20.0])
    contracts.check_system(dl.System(lorenz, dim=3, parameters=(10.0, 28.0, 2.0)), [1.0, 2.0, 3.0])


def test_lorenz_follows_the_reference_solution():
    grid = np.linspace(0.0, 5.0, 21)
    run = dl.flow(LORENZ, [1.0, 1.0, 1.0], (0, 5), grid, rtol=1e-12)
    truth = solve_ivp(
        python_lorenz, (0, 5), [1.0, 1.0, 1.0], "DOP853", grid, rtol=2.5e-14, atol=1e-14
    )
    np.testing.assert_allclose(run.state, truth.y.T, rtol=0, atol=1e-8)
    np.testing.assert_allclose(run.loss, np.sum(truth.y**2, axis=0), rtol=1e-9)
    assert run.parameter.values.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_one_balanced_mode_grows_by_its_closed_time_law(depth):
    """t = [F(p_1/σ) − F(p_0/σ)] / (h σ^{2−2/h}), in a network with spare units and other modes."""
    sigma, size = 3.0, 0.5
    net = dl.LinearNetwork(widths=(3, *[4] * (depth - 1), 2), target=[[0, 0, sigma], [1.0, 0, 0]])
    x = net.initial("aligned", scale=[size, 0.0])
    for fraction in (0.1, 0.5, 0.9, 0.999):
        if fraction * sigma <= size**depth:
            continue
        t = naive.time_between(size**depth, fraction * sigma, sigma, depth)
        run = dl.flow(net, x, (0, t), [t], rtol=1e-11, save=("mode_strength",))
        strength = run.mode_strength.values[-1]
        assert strength[0] == pytest.approx(fraction * sigma, rel=1e-8)
        assert strength[1] == 0.0


@settings(max_examples=15)
@given(naive.networks, naive.seeds)
def test_flow_conserves_the_imbalance_and_lowers_the_loss(net, seed):
    x = naive.state_of(net, seed, 0.5)
    run = dl.flow(net, x, (0, 2), rtol=1e-10, save=("state", "conserved", "imbalance"))
    size = 1.0 + float(np.abs(run.state).max()) ** 2
    drift = np.abs(run.conserved - run.conserved[0]).max() if net.depth > 1 else 0.0
    assert drift < 1e-8 * size * net.dim
    assert (np.diff(run.loss) <= 1e-14 * run.loss.values[0]).all()
    np.testing.assert_allclose(
        run.loss, [naive.loss(net, y) for y in run.state.values], rtol=1e-10, atol=1e-14
    )


@pytest.mark.parametrize("rtol", [1e-6, 1e-8, 1e-10])
def test_error_follows_the_tolerance(rtol):
    net = naive.random_network((3, 4, 4, 3), 1)
    x = naive.state_of(net, 2, 0.5)
    run = dl.flow(net, x, (0, 3), [3.0], rtol=rtol)
    truth = dl.flow(net, x, (0, 3), [3.0], rtol=1e-13)
    error = np.abs(run.state[-1] - truth.state[-1]).max().item()
    assert 1e-6 * rtol < error < 30 * rtol


@pytest.mark.parametrize("scale", [1e-3, 1e-6, 1e-9, 1e-12])
def test_tolerance_follows_the_weights_so_that_no_run_rests_at_the_saddle(scale):
    """The escape time of an aligned two-layer mode is right to 1e-6 however small the start."""
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    t = naive.time_between(scale**2, 1.0, 2.0, 2)
    run = dl.flow(net, net.initial("aligned", scale=scale), (0, t), [t], save=("mode_strength",))
    assert run.mode_strength.values[-1, 0] == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("h", [1, 2, 3])
def test_scaling_weights_and_target_scales_the_run(h):
    """W → cW, Σ → c^h Σ, t → c^{2−2h} t. Steps do not depend on the units of anything."""
    target, c = np.array([[2.0, 0.3], [0.1, 1.0]]), 2.0**-20
    widths, longer = (2, *(3,) * (h - 1), 2), c ** (2 - 2 * h)
    small = dl.LinearNetwork(widths, c**h * target)
    large = dl.LinearNetwork(widths, target)
    x = naive.state_of(large, 0, 0.1)
    slow, fast = dl.flow(small, c * x, (0, 8 * longer)), dl.flow(large, x, (0, 8))
    assert slow.attrs["n_steps"] == fast.attrs["n_steps"]
    np.testing.assert_array_equal(slow.state, c * fast.state)
    np.testing.assert_array_equal(slow.time, fast.time * longer)


def test_rows_are_steps_or_the_wanted_times_and_the_end():
    net = naive.random_network((2, 3, 2), 0)
    x = naive.state_of(net, 1)
    steps = dl.flow(net, x, (0, 2))
    assert steps.sizes["time"] == steps.attrs["n_steps"] + 1
    assert steps.time.values[[0, -1]].tolist() == [0.0, 2.0]
    np.testing.assert_array_equal(steps.state[0], x)
    grid = dl.flow(net, x, (0, 2), [0.0, 0.5, 1.5])
    assert grid.time.values.tolist() == [0.0, 0.5, 1.5, 2.0]
    np.testing.assert_array_equal(grid.state[[0, -1]], steps.state[[0, -1]])
    assert grid.attrs["n_steps"] == steps.attrs["n_steps"]
    fine = dl.flow(net, x, (0, 2), [0.5, 1.5], rtol=1e-12)
    np.testing.assert_allclose(grid.state[1:3], fine.state[:2], rtol=0, atol=1e-6)
    middle = dl.flow(net, x, (0, 2), np.linspace(0, 2, 5001))
    assert middle.sizes["time"] == 5001


def test_more_rows_than_one_buffer_holds_are_all_saved():
    run = dl.flow(LORENZ, [1.0, 1, 1], (0, 2), np.linspace(0, 2, 9001))
    assert run.sizes["time"] == 9001
    some = dl.flow(LORENZ, [1.0, 1, 1], (0, 2), np.linspace(0, 2, 9))
    np.testing.assert_array_equal(run.state[::1125], some.state)


def test_run_without_end_stops_at_the_global_minimum():
    net = naive.random_network((3, 4, 3), 0)
    run = dl.flow(net, net.initial(scale=1e-2, rng=1))
    assert run.dlnds.decode("stop_reason").item() == "limit_reached"
    assert run.limit == "{0,1,2}"
    assert np.sqrt(2 * run.loss[-1]) < 1e-7 * np.linalg.norm(net.target)


def test_run_without_end_stops_at_a_minimum_behind_a_bottleneck_with_equal_values():
    net = dl.LinearNetwork(widths=(3, 1, 3), target=np.diag([2.0, 2.0, 1.0]))
    run = dl.flow(net, net.initial(scale=1e-2, rng=1))
    assert run.dlnds.decode("stop_reason").item() == "limit_reached"
    assert run.loss[-1] == pytest.approx(net.lowest_loss, rel=1e-12)


@pytest.mark.parametrize("rtol", [1e-8, 1e-5])
@pytest.mark.parametrize("widths", [(3, 3, 3), (3, 2, 4, 3)])
def test_a_run_ends_where_the_loss_is_as_low_as_promised_and_not_before(widths, rtol):
    """At W = (1 + η) P Σ the excess is ½ η² ‖P Σ‖²: √ of it twice is to be ≤ 10 rtol ‖Σ‖."""
    sigma = np.array([3.0, 2.0, 1.0])
    net = dl.LinearNetwork(widths=widths, target=np.diag(sigma))
    part = np.linalg.norm(sigma[: min(widths)]) / np.linalg.norm(sigma)
    for ratio in (0.9, 1.1, 100.0):
        layers = naive.split(net, net.critical_state(range(min(widths))))
        layers[-1] = layers[-1] * (1.0 + ratio * 10.0 * rtol / part)
        run = dl.flow(net, net.pack(layers), rtol=rtol)
        assert run.dlnds.decode("stop_reason").item() == "limit_reached"
        assert (run.attrs["n_steps"] > 0) == (ratio > 1.0)
        lost = 2.0 * (float(run.loss[-1]) - 0.5 * np.sum(sigma[min(widths) :] ** 2))
        assert lost <= (10.0 * rtol * np.linalg.norm(sigma)) ** 2 * (1.0 + 1e-3) + 2e-14


def test_run_from_an_exact_saddle_ends_there_at_once():
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    run = dl.flow(net, np.zeros(8))
    assert (run.dlnds.decode("stop_reason").item(), run.limit) == ("at_rest", "{}")
    assert run.attrs["n_steps"] == 0


def test_modes_without_strength_do_not_keep_a_run_from_its_limit():
    """What W does between directions with σ = 0 decays algebraically, and is not waited for."""
    net = dl.LinearNetwork(widths=(3, 8, 8, 3), target=np.diag([1.2, 0.4, 0.0]))
    run = dl.flow(net, net.initial(scale=1e-2, rng=0), max_steps=2000)
    assert run.dlnds.decode("stop_reason").item() == "limit_reached"
    learnt = np.abs(net.product(run.state[-1])[:, :2] - net.target[:, :2]).max()
    assert learnt < 1e-6


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("values", "rtol"), [((1.0, 5e-8), 1e-8), ((1.0, 1e-3), 1e-4), ((1.0, 0.5), 0.1)]
)
def test_no_run_is_at_its_limit_before_the_last_mode_is_learnt(values, rtol):
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag(values))
    run = dl.flow(net, net.initial("aligned", scale=np.sqrt(0.1 * np.array(values))), rtol=rtol)
    reason = run.dlnds.decode("stop_reason").item()
    assert (reason, run.limit) in {
        ("limit_reached", "{0,1}"),
        ("out_of_steps", "{0}"),
        ("out_of_steps", "{0,1}"),
    }
    assert run.attrs["n_steps"] > 5


def test_wanted_times_behind_the_limit_are_reached():
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    run = dl.flow(net, net.initial("aligned", scale=0.1), t_eval=[0.0, 300.0, 500.0])
    assert run.time.values[:3].tolist() == [0.0, 300.0, 500.0]


def test_field_that_vanishes_for_ever_does_not_hang():
    run = dl.flow(dl.System(lorenz, dim=3, parameters=(10.0, 28.0, 2.0)), [0.0, 0.0, 0.0])
    assert run.dlnds.decode("stop_reason").item() == "end_reached"
    assert not run.state.values.any()


def test_small_steps_add_up_at_a_large_time():
    """At t = 1e17 the spacing of doubles is 16; the clock is a compensated pair."""
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    x = net.initial("aligned", scale=0.1)
    late = dl.flow(net, x, (1e17, 1e17 + 32))
    early = dl.flow(net, x, (0, 32))
    assert late.dlnds.decode("stop_reason").item() == "end_reached"
    passed = (late.time - 1e17) + late.time_low
    np.testing.assert_allclose(passed, early.time, rtol=1e-12)
    np.testing.assert_allclose(late.state, early.state, rtol=1e-10)


def test_run_out_of_steps_says_so():
    net = naive.random_network((2, 3, 2), 0)
    run = dl.flow(net, net.initial(scale=1e-3, rng=0), max_steps=5)
    assert run.dlnds.decode("stop_reason").item() == "out_of_steps"
    assert run.attrs["n_steps"] == 5
    assert run.sizes["time"] == 6


def test_blow_up_in_finite_time_is_located():
    def square(t, x, params, out):
        out[0] = x[0] ** 2

    run = dl.flow(dl.System(square, dim=1), [2.0], (0, 5))
    assert run.dlnds.decode("stop_reason").item() == "step_too_small"
    assert run.time.values[-1] == pytest.approx(0.5, rel=1e-7)
    assert np.isfinite(run.state).all()


@pytest.mark.parametrize("begin", [0.0, 2.0])
def test_field_that_is_not_finite_is_reported_with_the_time(begin):
    def bad(t, x, params, out):
        out[0] = np.nan if t > 1.0 else 1.0

    run = dl.flow(dl.System(bad, dim=1), [0.0], (begin, 5))
    assert run.dlnds.decode("stop_reason").item() == "not_finite"
    assert run.time.values[-1] == pytest.approx(max(1.0, begin), abs=1e-12)
    assert np.isfinite(run.state).all()


def test_start_at_zero_leaves_it_where_the_field_does_not_vanish():
    def push(t, x, params, out):
        out[0] = 1e-8

    run = dl.flow(dl.System(push, dim=1), [0.0], (0, 1))
    assert run.state.values[-1, 0] == pytest.approx(1e-8, rel=1e-12)


def test_stack_of_runs_equals_the_runs_one_by_one():
    net = naive.random_network((2, 3, 2), 0)
    starts = np.stack([net.initial(scale=s, rng=i) for i, s in enumerate([0.1, 0.5, 1.0])])
    save = ("state", "singular_value")
    shared = dl.flow(net, starts, (0, 3), [1.0, 2.0], save=save)
    ragged = dl.flow(net, starts, (0, 3), save=save)
    assert shared.state.dims == ("sample", "time", "parameter")
    assert ragged.singular_value.dims == ("sample", "step", "mode")
    for i, x in enumerate(starts):
        one = dl.flow(net, x, (0, 3), [1.0, 2.0], save=save)
        np.testing.assert_array_equal(shared.state[i], one.state)
        one = dl.flow(net, x, (0, 3), save=save)
        rows = one.sizes["time"]
        np.testing.assert_array_equal(ragged.state[i, :rows], one.state)
        assert np.isnan(ragged.state[i, rows:]).all()
        assert ragged.n_rhs[i] == one.attrs["n_rhs"]
    dl.schema.validate(shared)
    dl.schema.validate(ragged)


def test_one_failed_member_of_a_stack_does_not_end_the_others():
    def square(t, x, params, out):
        out[0] = x[0] ** 2

    system = dl.System(square, dim=1)
    runs = dl.flow(system, [[1.0], [-1.0]], (0, 2), [0.5, 1.5, 2.0])
    assert runs.dlnds.decode("stop_reason").values.tolist() == ["step_too_small", "end_reached"]
    assert np.isnan(runs.state[0, :, 0]).values.tolist() == [False, True, True]
    np.testing.assert_allclose(runs.state[1, :, 0], -1 / (1 + runs.time), rtol=1e-7)


def test_equal_calls_give_identical_datasets():
    net = naive.random_network((3, 4, 2), 0)
    calls = [
        dl.flow(net, net.initial(rng=3, scale=0.1), (0, 4), save=("state", "product")) for _ in "ab"
    ]
    assert calls[0].identical(calls[1])


@given(st.integers(1, 4), naive.seeds)
def test_weights_of_a_run_are_its_layers(layer, seed):
    net = naive.random_network((2, 4, 3, 1, 2), seed)
    x = naive.state_of(net, seed)
    run = dl.flow(net, x, (0, 0.1), [0.0])
    np.testing.assert_array_equal(dl.weights(run, layer)[0], naive.split(net, x)[layer - 1])


def test_progress_bar_appears_only_when_wanted(capsys):
    dl.flow(LORENZ, [1.0, 1, 1], (0, 1))
    assert capsys.readouterr().err == ""
    dl.flow(LORENZ, [[1.0, 1, 1], [2.0, 1, 1]], (0, 1), progress=True)
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [2, 3])
def test_the_result_does_not_depend_on_the_number_of_threads(workers):
    net = naive.random_network((3, 4, 4, 3), 0)
    starts = np.stack([net.initial(scale=0.3, rng=i) for i in range(7)])
    for options in ({"t_eval": [1.0, 2.0]}, {}):
        serial = dl.flow(net, starts, (0, 3), **options, save=("state", "product"))
        threads = dl.flow(
            net, starts, (0, 3), **options, save=("state", "product"), workers=workers
        )
        assert threads.identical(serial)


@settings(max_examples=15)
@given(naive.networks, naive.seeds)
def test_runs_at_reduced_widths_are_lifted_to_the_same_weights(net, seed):
    """A start of low rank inside wide layers: the unused directions stay unused (exact)."""
    rng = np.random.default_rng(seed)
    wide = [net.widths[0], *(d + 6 for d in net.widths[1:-1]), net.widths[-1]]
    padded = dl.LinearNetwork(widths=wide, target=net.target, input_root=net.input_root)
    frames = [
        np.eye(wide[0]),
        *(np.linalg.qr(rng.normal(size=(w, w)))[0][:, : w - 6] for w in wide[1:-1]),
        np.eye(wide[-1]),
    ]
    layers = net.unpack(naive.state_of(net, seed, 0.5))
    x = padded.pack([b @ w @ a.T for w, a, b in zip(layers, frames, frames[1:], strict=False)])
    small = padded.numerics.reduce(x)
    assert all(a <= b for a, b in zip(small.system.widths, net.widths, strict=True))
    np.testing.assert_allclose(small.lift(small.state[None])[0], x, rtol=0, atol=1e-13)
    save = ("state", "conserved")
    plain = dl.flow(padded, x, (0, 1), [1.0], rtol=1e-11, save=save)
    reduced = dl.flow(padded, x, (0, 1), [1.0], rtol=1e-11, save=save, reduce_width=True)
    size = 1.0 + np.abs(plain.state).max()
    np.testing.assert_allclose(reduced.state, plain.state, rtol=0, atol=1e-8 * size)
    assert reduced.attrs["problem_digest"] == plain.attrs["problem_digest"]


def test_reduced_widths_are_bounded_by_their_neighbours():
    net = naive.random_network((3, 40, 50, 2), 0)
    small = net.numerics.reduce(net.initial(scale=0.1, rng=0)).system
    assert small.widths == (3, 40, 42, 2)
    low = net.numerics.reduce(net.critical_state((0,))).system
    assert low.widths == (3, 1, 1, 2)
    assert LORENZ.numerics.reduce(np.ones(3)) is None


@pytest.mark.parametrize(
    ("widths", "sigma"), [((3, 1, 3), (1, 1, 1)), ((3, 2, 3), (2, 1, 1)), ((4, 2, 4), (1, 1, 1, 1))]
)
@pytest.mark.parametrize("raw", [False, True])
def test_a_limit_has_the_name_that_its_state_has_where_singular_values_are_equal(
    widths, sigma, raw
):
    """Of equal modes any directions are learnt: they are counted, and named from the first on."""
    root = np.diag(np.arange(1.0, widths[0] + 1.0)) if raw else None
    net = dl.LinearNetwork(widths, np.diag(np.array(sigma, float)), input_root=root)
    for seed in range(3):
        run = dl.flow(net, net.initial(scale=0.1, rng=seed))
        assert run.limit == dl.classify(net, run.isel(time=-1)).critical_point.item()
        assert run.limit == "{" + ",".join(map(str, range(widths[1]))) + "}"


def test_rounding_of_large_weights_does_not_shorten_the_steps_of_small_ones():
    """Through one unit nothing but the first mode is learnt; what reads the second input decays.

    It decays below the rounding of the sum that moves it, which no step is short enough to resolve.
    With the largest eigenvalue 3 · 2.6^{4/3} stability asks for 1,950 steps, and so it does of runs
    on the whole: how long one follows what is rounding, is chance. It was a million and more.
    """
    net, steps = dl.LinearNetwork(widths=(2, 1, 2, 2), target=np.diag([2.6, 1.4])), []
    for seed in range(12):
        run = dl.flow(net, net.initial(scale=0.3, rng=seed), (0, 1000), [1000.0], rtol=1e-12)
        assert dl.schema.decode(run.stop_reason).item() == "end_reached"
        assert float(run.loss[-1]) == pytest.approx(0.5 * 1.4**2, rel=1e-15)
        steps.append(run.n_steps)
    assert np.mean(steps) < 3 * 1950
