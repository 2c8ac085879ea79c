"""Losses on other data and early stopping, against definitions and closed forms."""

import itertools

import naive
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import dlnds as dl


def data(seed, inputs=4, outputs=3, samples=30):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(inputs, samples)) * np.geomspace(1.0, 3.0, inputs)[:, None]
    return X, rng.normal(size=(outputs, inputs)) @ X + rng.normal(size=(outputs, samples))


def test_linear_networks_are_evaluated_in_the_original_inputs():
    X, Y = data(0)
    other = data(1, samples=7)
    for normalize in (True, False):
        factor = 1.0 / 7.0 if normalize else 1.0
        for whiten in (True, False):
            net = dl.LinearNetwork.from_data(X, Y, hidden=(5,), whiten=whiten, normalize=normalize)
            run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 2), [0.0, 1.0, 2.0])
            W = net.unwhiten(net.product(run.state.values))
            wanted = [0.5 * factor * np.sum((other[1] - w @ other[0]) ** 2) for w in W]
            found = dl.evaluate(net, run, *other)
            dl.schema.validate(found)
            np.testing.assert_allclose(found.loss, wanted, rtol=1e-12)
            own = dl.evaluate(net, run, X, Y)
            np.testing.assert_allclose(own.loss, own.train_loss, rtol=1e-12)
            np.testing.assert_allclose(own.train_loss, run.loss + net.irreducible_loss, rtol=0)


def test_a_whitened_run_and_a_raw_one_of_the_same_map_have_the_same_test_loss():
    X, Y = data(2)
    white, raw = (dl.LinearNetwork.from_data(X, Y, hidden=(5,), whiten=w) for w in (True, False))
    x = white.initial(scale=0.5, rng=0)
    first, second = white.unpack(x)
    moved = raw.pack([first @ np.linalg.inv(white.whitening), second])
    found = [
        dl.evaluate(net, dl.as_run(net, [0.0], [net.unpack(state)]), *data(3)).loss.values
        for net, state in ((white, x), (raw, moved))
    ]
    np.testing.assert_allclose(*found, rtol=1e-12)


def test_other_networks_are_evaluated_with_their_own_losses():
    X, Y = data(4)
    labels, classes = np.sign(Y), Y.argmax(axis=0)
    others, more = data(5, samples=8)
    cases = [
        (dl.LossNetwork((4, 5, 3), dl.losses.logistic(X, labels)), np.sign(more)),
        (dl.LossNetwork((4, 5, 3), dl.losses.cross_entropy(X, classes)), np.zeros(8, int)),
        (dl.LossNetwork((4, 5, 3), dl.losses.power(X, Y, power=4.0)), more),
    ]
    for net, targets in cases:
        x = net.initial(scale=0.5, rng=0)
        run = dl.flow(net, x, (0, 0.1), [0.1])
        S = net.product(run.state.values[-1]) @ others
        kind = net.criterion.kind
        if kind == "logistic":
            wanted = np.sum(np.log1p(np.exp(-targets * S))) / 8
        elif kind == "power":
            wanted = np.sum((targets - S) ** 4) / 4 / 8
        else:
            wanted = np.mean(np.log(np.sum(np.exp(S), axis=0)) - S[0])
        found = dl.evaluate(net, run, others, targets)
        assert float(found.loss[-1]) == pytest.approx(wanted, rel=1e-12)
    net = dl.HomogeneousNetwork((4, 5, 3), X, Y, power=2, slope=0.3)
    x = net.initial(scale=0.5, rng=0)
    run = dl.as_run(net, [0.0], [net.unpack(x)])
    wanted = naive.homogeneous_loss(net, x, others, more)
    assert float(dl.evaluate(net, run, others, more).loss[0]) == pytest.approx(wanted, rel=1e-12)
    linear = dl.LinearNetwork.from_data(X, Y, hidden=(5,), whiten=False)
    prod = dl.ProductFlow(linear, rank=2)
    run = dl.flow(prod, prod.initial(scale=1.0, rng=0), (0, 0.1), [0.1])
    wanted = 0.5 * np.sum((more - prod.product(run.state.values[-1]) @ others) ** 2) / 8
    assert float(dl.evaluate(prod, run, others, more).loss[-1]) == pytest.approx(wanted, rel=1e-12)
    own = dl.evaluate(prod, run, X, Y)
    np.testing.assert_allclose(own.loss, own.train_loss, rtol=1e-12)


def test_stacks_and_iterations_are_evaluated_row_by_row():
    X, Y = data(6)
    net = dl.LinearNetwork.from_data(X, Y, hidden=(5,))
    starts = np.stack([net.initial(scale=s, rng=0) for s in (0.01, 0.5)])
    runs = dl.flow(net, starts, (0, 3))
    found = dl.evaluate(net, runs, *data(7))
    assert found.loss.dims == ("sample", "step")
    for k, start in enumerate(starts):
        run = dl.flow(net, start, (0, 3))
        alone = dl.evaluate(net, run, *data(7))
        count = run.sizes["time"]
        np.testing.assert_allclose(found.loss[k, :count], alone.loss, rtol=1e-12)
        assert np.isnan(found.loss[k, count:]).all()
        row = int(np.argmin(alone.loss.values))
        assert float(found.best_time[k]) == float(run.time[row]) == float(alone.best_time)
        assert float(found.lowest_loss[k]) == pytest.approx(float(alone.loss[row]), rel=1e-12)
    steps = dl.iterate(dl.GradientDescent(net, 0.05), starts[0], n_steps=20)
    assert dl.evaluate(net, steps, *data(7)).loss.dims == ("iteration",)


def test_the_generalization_error_is_the_mean_over_fresh_samples():
    X, Y = data(8)
    rng = np.random.default_rng(9)
    net = dl.LinearNetwork.from_data(X, Y, hidden=(5,))
    run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 2), [0.0, 1.0, 2.0])
    root, teacher = rng.normal(size=(4, 4)), rng.normal(size=(3, 4))
    found = dl.generalization_error(net, run, teacher, covariance=root @ root.T, noise=0.7)
    # exact moments of the samples in place of their limit
    Z = np.linalg.qr(rng.normal(size=(50, 7)))[0].T * np.sqrt(50)
    inputs, noise = root @ Z[:4], 0.7 * Z[4:]
    fresh = dl.evaluate(net, run, inputs, teacher @ inputs + noise)
    np.testing.assert_allclose(found.generalization_error, fresh.loss, rtol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_one_mode_stops_at_the_overlap_with_its_teacher(depth):
    sigma, scale, c, level = 2.0, 1e-2, 0.8, 1.5
    net = dl.LinearNetwork((2, *[2] * (depth - 1), 2), np.diag([sigma, 0.0]))
    u = np.array([c, np.sqrt(1.0 - c**2)])
    teacher = level * np.outer(u, [1.0, 0.0])
    p0 = scale**depth
    found = dl.early_stopping(net, teacher, strength=[p0, 0.0])
    goal = level * c
    assert found.optimal_strength.values[0] == pytest.approx(goal, rel=1e-14)
    time = float(found.stopping_time[0])
    if depth == 2:
        law = np.log((sigma / p0 - 1.0) * goal / (sigma - goal)) / (2.0 * sigma)
        assert time == pytest.approx(law, rel=1e-12)
    truth = solve_ivp(
        lambda t, p: depth * p ** (2.0 - 2.0 / depth) * (sigma - p),
        (0.0, time), [p0], "DOP853", rtol=1e-13, atol=1e-30,
    )  # fmt: skip
    assert truth.y[0, -1] == pytest.approx(goal, rel=1e-8)
    assert float(found.lowest_error) == pytest.approx(0.5 * level**2 * (1.0 - c**2), rel=1e-9)
    assert float(found.best_time) == pytest.approx(time, rel=1e-5)
    end = 0.5 * (sigma**2 + level**2) - sigma * goal
    assert float(found.error_at_end) == pytest.approx(end, rel=1e-12)


def test_early_stopping_is_that_of_aligned_runs():
    rng = np.random.default_rng(10)
    teacher = rng.normal(size=(3, 4))
    X = rng.normal(size=(4, 12))
    net = dl.LinearNetwork.from_data(X, teacher @ X + 2.0 * rng.normal(size=(3, 12)), hidden=(4,))
    stop = dl.early_stopping(net, teacher, strength=1e-4)
    grid = np.linspace(0.0, 3.0 * float(stop.best_time), 3001)
    run = dl.flow(net, net.initial("aligned", scale=1e-2), (0.0, grid[-1]), grid)
    covariance = net.whitening @ net.whitening.T
    error = dl.generalization_error(net, run, teacher, covariance=covariance)
    assert float(error.best_time) == pytest.approx(float(stop.best_time), abs=grid[1])
    assert float(error.lowest_error) == pytest.approx(float(stop.lowest_error), rel=1e-5)
    assert float(error.generalization_error[0]) == pytest.approx(
        float(stop.error_at_start), rel=1e-7
    )
    assert float(stop.lowest_error) < float(stop.error_at_end)


def test_who_never_learns_too_much_never_stops():
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    stop = dl.early_stopping(net, np.diag([2.5, 1.0]))
    assert np.isinf(stop.stopping_time).all()
    assert np.isinf(stop.best_time)
    assert float(stop.lowest_error) == float(stop.error_at_end) == pytest.approx(0.125)
    wrong = dl.early_stopping(net, -np.eye(2), strength=0.1)
    assert float(wrong.best_time) == 0.0
    assert float(wrong.lowest_error) == float(wrong.error_at_start)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.5, 0.0])
def test_modes_that_fall_stop_where_they_pass_their_teacher(depth, sigma):
    net = dl.LinearNetwork((1, *[1] * (depth - 1), 1), [[sigma]])
    stop = dl.early_stopping(net, [[0.8]], strength=0.9)
    truth = solve_ivp(
        lambda t, p: depth * p ** (2.0 - 2.0 / depth) * (sigma - p),
        (0.0, float(stop.best_time)), [0.9], "DOP853", rtol=1e-12, atol=1e-14,
    )  # fmt: skip
    assert truth.y[0, -1] == pytest.approx(0.8, rel=1e-6)
    assert float(stop.stopping_time[0]) == pytest.approx(float(stop.best_time), rel=1e-5)
    assert float(stop.lowest_error) < 1e-12
    never = dl.early_stopping(net, [[0.2 * sigma - 0.1]], strength=0.9)
    assert np.isinf(never.best_time)
    assert np.isinf(never.stopping_time[0])


def test_modes_above_and_below_stop_at_the_least_of_the_sum():
    net = dl.LinearNetwork((2, 2), np.diag([1.0, 0.5]))
    stop = dl.early_stopping(net, np.diag([2.0, 1.0]), strength=5.0)
    times = np.linspace(0.0, 5.0, 50001)
    p = np.array([1.0, 0.5])[:, None] + np.array([4.0, 4.5])[:, None] * np.exp(-times)
    error = 0.5 * np.sum((p - np.array([2.0, 1.0])[:, None]) ** 2, axis=0)
    assert float(stop.best_time) == pytest.approx(times[error.argmin()], abs=2e-4)
    assert float(stop.lowest_error) == pytest.approx(error.min(), rel=1e-7)


def test_one_layer_with_random_teachers_stops_as_computed():
    # AS20: E(t) = (w̄² + w_0²) e^{−2lt} + (s²/l)(1 − e^{−lt})², best at ln(1 + l(w̄² + w_0²)/s²)/l
    value, s, w, w0 = 1.7, 0.4, 0.9, 0.3
    best = np.log(1.0 + value * (w**2 + w0**2) / s**2) / value
    times = np.linspace(0.0, 3.0 * best, 400)
    total = np.zeros_like(times)
    for a, b, c in itertools.product((-1.0, 1.0), repeat=3):
        teacher, start, noise = a * w, b * w0, c * s / np.sqrt(value)
        net = dl.LinearNetwork(
            (1, 1), [[np.sqrt(value) * (teacher + noise)]], input_root=[[np.sqrt(value)]]
        )
        run = dl.flow(net, [start], (0.0, times[-1]), times, rtol=1e-11)
        error = dl.generalization_error(net, run, [[teacher]], covariance=[[value]])
        total += error.generalization_error.values / 4.0 / value
    decay = np.exp(-value * times)
    np.testing.assert_allclose(
        total, (w**2 + w0**2) * decay**2 + s**2 / value * (1.0 - decay) ** 2, rtol=1e-8
    )
    assert abs(times[total.argmin()] - best) <= times[1]


def test_bad_input_is_named():
    X, Y = data(12)
    net = dl.LinearNetwork.from_data(X, Y, hidden=(5,))
    run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 1), [1.0])
    raw = dl.LinearNetwork.from_data(X, Y, hidden=(5,), whiten=False)
    for message, call in (
        ("X: needs 4 rows", lambda: dl.evaluate(net, run, X[:3], Y)),
        ("Y: needs 3 rows", lambda: dl.evaluate(net, run, X, Y[:2])),
        ("Y: needs as many samples", lambda: dl.evaluate(net, run, X, Y[:, :5])),
        ("run: belongs to another", lambda: dl.evaluate(raw, run, X, Y)),
        ("run: has no states", lambda: dl.evaluate(net, run.drop_vars("state"), X, Y)),
        ("teacher: needs the shape", lambda: dl.generalization_error(net, run, np.eye(3))),
        ("covariance: needs", lambda: dl.generalization_error(
            net, run, np.ones((3, 4)), covariance=-np.eye(4))),
        ("noise: ", lambda: dl.generalization_error(net, run, np.ones((3, 4)), noise=-1.0)),
        ("net: needs a whitened", lambda: dl.early_stopping(raw, np.ones((3, 4)))),
        ("strength: ", lambda: dl.early_stopping(net, np.ones((3, 4)), strength=[0.1, 0.1])),
        ("strength: ", lambda: dl.early_stopping(net, np.ones((3, 4)), strength=-0.1)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()
