"""Lyapunov exponents, covariant vectors, the Lyapunov function."""

import copy

import naive
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnds as dl
from dlnds._kernels import dense, jit
from dlnds._kernels import linear as layers


def lorenz(t, x, params, out):
    out[0] = 10.0 * (x[1] - x[0])
    out[1] = x[0] * (28.0 - x[2]) - x[1]
    out[2] = x[0] * x[1] - 8.0 / 3.0 * x[2]


def lorenz_along(t, x, v, params, out):
    out[0] = 10.0 * (v[1] - v[0])
    out[1] = v[0] * (28.0 - x[2]) - x[0] * v[2] - v[1]
    out[2] = v[0] * x[1] + x[0] * v[1] - 8.0 / 3.0 * v[2]


def lorenz_matrix(t, x, params, out):
    for j in range(3):
        v, column = np.zeros(3), np.zeros(3)
        v[j] = 1.0
        column[0] = 10.0 * (v[1] - v[0])
        column[1] = v[0] * (28.0 - x[2]) - x[0] * v[2] - v[1]
        column[2] = v[0] * x[1] + x[0] * v[1] - 8.0 / 3.0 * v[2]
        for i in range(3):
            out[i, j] = column[i]


def roessler(t, x, params, out):
    out[0] = -x[1] - x[2]
    out[1] = x[0] + 0.2 * x[1]
    out[2] = 0.2 + x[2] * (x[0] - 5.7)


def henon(t, x, params, out):
    out[0] = 1.0 - params[1][0] * x[0] * x[0] + x[1]
    out[1] = params[1][1] * x[0]


def henon_matrix(t, x, params, out):
    out[0, 0], out[0, 1] = -2.0 * params[1][0] * x[0], 1.0
    out[1, 0], out[1, 1] = params[1][1], 0.0


def cat(t, x, params, out):
    out[0] = (2.0 * x[0] + x[1]) % 1.0
    out[1] = (x[0] + x[1]) % 1.0


def cat_matrix(t, x, params, out):
    out[0, 0], out[0, 1], out[1, 0], out[1, 1] = 2.0, 1.0, 1.0, 1.0


def linear(t, x, params, out):
    n = x.size
    for i in range(n):
        out[i] = 0.0
        for j in range(n):
            out[i] += params[1][i * n + j] * x[j]


def linear_matrix(t, x, params, out):
    for i in range(x.size):
        for j in range(x.size):
            out[i, j] = params[1][i * x.size + j]


def explosion(t, x, params, out):
    out[0] = x[0] * x[0]


def logistic(t, x, params, out):
    out[0] = 4.0 * x[0] * (1.0 - x[0])


def logistic_matrix(t, x, params, out):
    out[0, 0] = 4.0 - 8.0 * x[0]


HENON = dl.System(henon, jacobian=henon_matrix, dim=2, parameters=[1.4, 0.3])
CAT = dl.System(cat, jacobian=cat_matrix, dim=2)
GOLDEN = np.log((3.0 + np.sqrt(5.0)) / 2.0)


LINEAR = dl.System(linear, jacobian=linear_matrix, dim=1, parameters=[0.0])
LOGISTIC = dl.System(logistic, jacobian=logistic_matrix, dim=1)


def matrix_system(A):
    """A linear system; its kernels are compiled once for all of them."""
    system = copy.copy(LINEAR)
    object.__setattr__(system, "dim", len(A))
    object.__setattr__(system, "parameters", tuple(np.ravel(A)))
    return system


# Textbook systems.


@pytest.mark.compiled
def test_exponents_of_the_lorenz_system_from_any_derivative():
    """Published 0.9056, 0, −14.5723; the sum is −41/3, however derivatives are given."""
    for kernels, close, T in [
        ({"jacobian": lorenz_matrix}, 1e-7, 1000.0),
        ({"jvp": lorenz_along}, 1e-7, 300.0),
        ({}, 1e-6, 300.0),  # differenced, to 1e-10 of what are up to 50
    ]:
        found = dl.lyapunov_spectrum(
            dl.System(lorenz, **kernels, dim=3), [1.0, 1.0, 1.0], (0, T), burn_in=20
        )
        dl.schema.validate(found)
        error = 5.0 * found.standard_error.values  # of nearly independent parts
        chance = 1.0 + 3.0 / np.sqrt(2.0 * 20)  # the spread of twenty is known to one in √40
        assert (error < chance * np.array([3.0, 2.0, 3.0]) / np.sqrt(T)).all()
        assert (np.abs(found.exponent - [0.9056, 0.0, -14.5723]) < error).all()
        assert float(found.exponent.sum()) == pytest.approx(-41 / 3, abs=close)
        assert float(found.volume_rate) == pytest.approx(-41 / 3, abs=1e-9)
        assert abs(float(found.trace_rule)) < close * T


@pytest.mark.compiled
def test_exponents_of_the_roessler_system_obey_the_trace_rule():
    """Published 0.0714, 0, −5.3943 at (0.2, 0.2, 5.7)."""
    found = dl.lyapunov_spectrum(
        dl.System(roessler, dim=3), [1.0, 1.0, 1.0], (0, 3000), burn_in=200
    )
    error = 5.0 * found.standard_error.values
    assert (error < [0.02, 0.01, 0.05]).all()
    assert (np.abs(found.exponent - [0.0714, 0.0, -5.3943]) < error).all()
    assert float(found.exponent.sum()) == pytest.approx(float(found.volume_rate), abs=1e-6)


@pytest.mark.compiled
def test_exponents_of_the_henon_map():
    """Published 0.41922, −1.62319 at (1.4, 0.3); the sum is ln 0.3 at every time."""
    found = dl.lyapunov_spectrum(HENON, [0.1, 0.1], n_steps=150_000, burn_in=1000)
    dl.schema.validate(found)
    error = 5.0 * found.standard_error.values
    assert (error < 5e-3).all()
    assert (np.abs(found.exponent - [0.41922, -1.62319]) < error).all()
    np.testing.assert_allclose(found.finite_time_exponent.sum("eigen"), np.log(0.3), atol=1e-11)
    assert float(found.volume_rate) == pytest.approx(np.log(0.3), abs=1e-11)
    differenced = dl.System(henon, dim=2, parameters=[1.4, 0.3])
    near = dl.lyapunov_spectrum(differenced, [0.1, 0.1], n_steps=150_000, burn_in=1000)
    np.testing.assert_allclose(near.exponent, found.exponent, rtol=0, atol=1e-8)


def test_exponents_of_the_cat_map_are_the_golden_ones():
    found = dl.lyapunov_spectrum(CAT, [0.1, 0.2], n_steps=120, burn_in=20)
    np.testing.assert_allclose(found.exponent, [GOLDEN, -GOLDEN], rtol=0, atol=1e-14)
    assert abs(float(found.trace_rule)) < 1e-12
    assert found.finite_time_exponent.dims == ("iteration", "eigen")


def test_exponents_of_the_logistic_map_and_of_an_annihilated_direction():
    """ln 2 by the conjugate tent map, and −∞ for an orbit that starts at the critical point."""
    found = dl.lyapunov_spectrum(LOGISTIC, [0.3], n_steps=4000, burn_in=10)
    assert float(found.exponent[0]) == pytest.approx(np.log(2.0), abs=5e-3)
    killed = dl.lyapunov_spectrum(LOGISTIC, [0.5], n_steps=40)
    assert float(killed.exponent[0]) == -np.inf
    assert float(killed.trace_rule) == 0.0
    assert not any(np.isnan(v.values).any() for v in killed.data_vars.values())
    with pytest.raises(dl.ConvergenceError, match="shorter"):
        dl.lyapunov_spectrum(LOGISTIC, [0.5], n_steps=400, interval=4, t_eval=[400])


# Fixed points: the exponents are the spectrum.


@pytest.mark.parametrize("method", ["flow", "map"])
@pytest.mark.parametrize("seed", [0, 1])
def test_exponents_of_a_linear_system_are_its_eigenvalues(method, seed):
    """Real parts for flows, ln of the moduli for maps, also if the eigenvectors are oblique."""
    rng = np.random.default_rng(seed)
    A = np.diag([0.4, -0.1, -0.7]) + np.triu(3.0 * rng.normal(size=(3, 3)), 1)
    A = rng.normal(size=(3, 3)) @ A if method == "map" else A
    span = {"t_span": (0, 90)} if method == "flow" else {"n_steps": 400}
    found = dl.lyapunov_spectrum(
        matrix_system(A), np.zeros(3), burn_in=40 if method == "flow" else 200, **span
    )
    values = np.linalg.eigvals(A)
    expected = values.real if method == "flow" else np.log(np.abs(values))
    slack = 1e-7 if method == "flow" or np.isreal(values).all() else 0.05  # a rotation averages
    np.testing.assert_allclose(found.exponent, np.sort(expected)[::-1], rtol=0, atol=slack)


@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(6))
def test_exponents_at_critical_points_are_minus_the_hessian_spectrum(seed):
    """At every index set, zeros included."""
    widths = [(2, 3, 2), (3, 2, 3), (2, 2, 3, 2), (3, 3), (1, 2, 2), (4, 2, 2)][seed]
    net = naive.random_network(widths, seed, naive.KINDS[seed % 3])
    for label in dl.critical_points(net).critical_point.values:
        x = net.critical_state(dl.schema.index_set_modes(label))
        expected = -dl.linearize(net, x).eigenvalue.values
        top = np.abs(expected).max(initial=1.0)
        T, burn_in = 800.0 / top, 700.0 / top
        found = dl.lyapunov_spectrum(net, x, (0, T), burn_in=burn_in, rng=seed)
        assert found.attrs["held"] == 1
        # What two exponents of gap g still mix, at most g, goes down like exp(−2 g burn_in).
        gaps = np.abs(expected[:, None] - expected)
        mixed = (gaps * np.minimum(1.0, 1e4 * np.exp(-2.0 * gaps * burn_in))).max()
        np.testing.assert_allclose(found.exponent, expected, rtol=0, atol=2e-8 * top + mixed)


def test_exponents_at_a_saddle():
    net = dl.LinearNetwork(widths=(1, 2, 1), target=[[2.0]])
    found = dl.lyapunov_spectrum(net, net.critical_state(()), (0, 40), burn_in=20)
    np.testing.assert_allclose(found.exponent, [2.0, 2.0, -2.0, -2.0], rtol=0, atol=1e-7)
    vectors = dl.covariant_vectors(
        net, net.critical_state(()), (0, 30), burn_in=10, t_eval=[12, 15], k=2
    )
    H = net.hessian(net.critical_state(()))
    v = vectors.vector.values
    np.testing.assert_allclose(v @ H, -2.0 * v, rtol=0, atol=1e-6)


@pytest.mark.compiled
@pytest.mark.parametrize("widths", [(2, 2), (2, 3, 2), (3, 2, 2), (3, 1, 2), (2, 2, 2, 2)])
def test_exponents_of_a_run_after_it_has_come_to_its_limit_are_minus_the_spectrum_there(widths):
    """The run begins far from there; the Hessian is by differences."""
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, [2.0, 1.0])
    net = dl.LinearNetwork(widths=widths, target=target)
    x = net.initial(scale=0.7, rng=1)
    found = dl.lyapunov_spectrum(net, x, (0, 220.0), burn_in=200.0)
    limit = found.state.values
    assert np.linalg.norm(limit - x) > 0.3
    H = naive.differences(lambda y: -naive.field(net, y), limit, 1e-3)
    expected = -np.linalg.eigvalsh(0.5 * (H + H.T))
    gaps = np.abs(expected[:, None] - expected)
    mixed = (gaps * np.minimum(1.0, 1e4 * np.exp(-2.0 * gaps * 200.0))).max()
    np.testing.assert_allclose(found.exponent, expected, rtol=0, atol=1e-7 + mixed)


@pytest.mark.compiled
def test_a_run_that_converges_has_errors_like_one_over_time():
    """Half as large at twice the time, within what the approach has not yet decided."""
    net = naive.random_network((2, 3, 2), 3)
    x = net.initial(scale=0.5, rng=1)
    limit = dl.flow(net, x, (0, 400), [400], method="dop853").state.values[-1]
    expected = -dl.linearize(net, limit).eigenvalue.values
    errors = [
        dl.lyapunov_spectrum(net, x, (0, T)).exponent.values - expected for T in (200.0, 400.0)
    ]
    large = np.abs(errors[0]) > 1e-6
    assert np.count_nonzero(large) >= net.dim // 2
    np.testing.assert_allclose(errors[0][large] / errors[1][large], 2.0, rtol=0.02)
    assert np.abs(errors[1]).max() < 40.0 / 400.0
    settled = dl.lyapunov_spectrum(net, x, (0, 400.0), burn_in=200.0)
    assert np.abs(settled.exponent.values - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.compiled
def test_the_trace_rule_holds_along_a_transient():
    """Σ exponents · T = −∫ tr H dt, the integral taken from saved states by Simpson's rule."""
    net = naive.random_network((3, 4, 3), 0)
    x = net.initial(scale=0.5, rng=2)
    found = dl.lyapunov_spectrum(net, x, (0, 3), rtol=1e-10)
    times = np.linspace(0, 3, 601)
    states = dl.flow(net, x, (0, 3), times, rtol=1e-12).state.values
    traces = np.array([-np.trace(net.hessian(y)) for y in states])
    integral = scipy.integrate.simpson(traces, x=times)
    assert float(found.exponent.sum()) * 3 == pytest.approx(integral, abs=1e-6)
    assert float(found.volume_rate) * 3 == pytest.approx(integral, abs=1e-6)
    assert abs(float(found.trace_rule)) < 1e-7 * abs(integral)


# Maps of networks.


@pytest.mark.compiled
@pytest.mark.parametrize("size", [0.1, 0.35])
def test_descent_at_a_critical_point_has_the_logarithms_of_its_multipliers(size):
    """ln |1 − ηλ|: at a stable and at an unstable minimum, and at a saddle."""
    net = naive.random_network((2, 3, 2), 1)
    for modes in [(0, 1), (1,)]:
        x = net.critical_state(modes)
        eigenvalues = dl.linearize(net, x).eigenvalue.values
        descent = dl.GradientDescent(net, step_size=size / eigenvalues[-1] * 8)
        expected = np.log(np.abs(1.0 - descent.step_size * eigenvalues))
        found = dl.lyapunov_spectrum(descent, x, n_steps=3000, burn_in=2000)
        np.testing.assert_allclose(found.exponent, np.sort(expected)[::-1], rtol=0, atol=1e-8)
        assert found.attrs["held"] == 1
        assert abs(float(found.trace_rule)) < 1e-8


# The start, the number of vectors, the times.


@pytest.mark.compiled
def test_equal_calls_are_identical_and_other_starts_agree_in_the_end():
    net = naive.random_network((2, 3, 2), 0)
    x = net.critical_state((0,))
    calls = [dl.lyapunov_spectrum(net, x, (0, 20), rng=seed) for seed in (5, 5, 6)]
    assert calls[0].identical(calls[1])
    assert np.abs(calls[0].exponent - calls[2].exponent).max() > 1e-6
    settled = [dl.lyapunov_spectrum(net, x, (0, 900), burn_in=800, rng=s) for s in (5, 6)]
    np.testing.assert_allclose(settled[0].exponent, settled[1].exponent, rtol=0, atol=1e-6)


def test_fewer_vectors_see_the_first_exponents():
    A = np.diag([0.5, 0.2, -0.3, -1.0]) + np.triu(np.ones((4, 4)), 1)
    for k in (1, 2, 3):
        found = dl.lyapunov_spectrum(matrix_system(A), np.zeros(4), (0, 160), k=k, burn_in=120)
        assert found.sizes["eigen"] == k
        assert "trace_rule" not in found
        np.testing.assert_allclose(found.exponent, [0.5, 0.2, -0.3][:k], rtol=0, atol=1e-7)


def test_finite_time_values_are_the_growth_of_volumes_since_the_burn_in():
    """Their sums over the first j are ln of the volumes that exp(A t) makes of the frame."""
    A = np.array([[0.1, 2.0], [0.0, -0.4]])
    times = [1.5, 2.0, 4.0]
    found = dl.lyapunov_spectrum(
        matrix_system(A), np.zeros(2), (1, 5), t_eval=times, burn_in=0.25, rng=3, rtol=1e-11
    )
    assert found.time.values.tolist() == [*times, 5.0]
    frame = np.linalg.qr(np.random.default_rng(3).normal(size=(2, 2)))[0]
    frame = np.linalg.qr(scipy.linalg.expm(0.25 * A) @ frame)[0]
    for t, values in zip(found.time.values, found.finite_time_exponent.values, strict=True):
        moved = scipy.linalg.expm((t - 1.25) * A) @ frame
        expected = np.log(np.abs(np.diagonal(np.linalg.qr(moved)[1]))) / (t - 1.25)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.exponent, found.finite_time_exponent[-1])


def test_the_interval_does_not_matter_until_vectors_are_lost_in_each_other():
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])  # else the coordinates would keep them apart
    A = turn @ np.array([[0.1, 2.0], [0.0, -3.0]]) @ turn.T
    values = [
        dl.lyapunov_spectrum(
            matrix_system(A), np.zeros(2), (0, 20), interval=interval, rtol=1e-11
        ).exponent.values
        for interval in (None, 0.05, 0.7)
    ]
    np.testing.assert_allclose(values[1], values[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(values[2], values[0], rtol=0, atol=1e-8)
    with pytest.raises(dl.ConvergenceError, match="shorter one, at t = 15"):
        dl.lyapunov_spectrum(matrix_system(A), np.zeros(2), (0, 300), interval=200, t_eval=[300])
    one, five = (
        dl.lyapunov_spectrum(CAT, [0.1, 0.2], n_steps=103, interval=i).exponent.values
        for i in (1, 5)
    )
    np.testing.assert_allclose(one, five, rtol=0, atol=1e-9)


def burst(t, x, params, out):
    drain = 40.0 * np.exp(-(((t - 4.0) / 0.4) ** 2)) * (x[2] + x[3])
    out[0], out[1], out[2], out[3] = 30.0 * x[1], -30.0 * x[0], -drain, -drain


def burst_matrix(t, x, params, out):
    for i in range(4):
        for j in range(4):
            out[i, j] = 0.0
    out[0, 1], out[1, 0] = 30.0, -30.0
    for i in range(2, 4):
        for j in range(2, 4):
            out[i, j] = -40.0 * np.exp(-(((t - 4.0) / 0.4) ** 2))


def test_vectors_survive_a_sudden_contraction_after_a_long_calm():
    """Steps after which they are lost in each other are undone, and made with more care."""
    system = dl.System(burst, jacobian=burst_matrix, dim=4)
    found = dl.lyapunov_spectrum(system, [1.0, 0.0, 0.0, 0.0], (0, 6), t_eval=[6], rtol=1e-7)
    total = -80.0 * 0.4 * np.sqrt(np.pi)
    assert float(found.exponent.sum()) * 6 == pytest.approx(total, abs=1e-4)
    assert abs(float(found.trace_rule)) < 1e-4
    # The first three grow by what is left of them off the axis that dies.
    assert np.abs(found.exponent[:3]).max() * 6 < 5.0
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    axis = np.array([0.0, 0.0, 1.0, 1.0]) / np.sqrt(2.0)
    kept = frame - np.outer(axis, axis @ frame)
    expected = np.log(np.abs(np.diagonal(np.linalg.qr(kept)[1])))[:3]
    np.testing.assert_allclose(
        np.sort(found.exponent[:3].values * 6), np.sort(expected), rtol=0, atol=1e-4
    )


def test_the_standard_error_is_that_of_twenty_parts():
    found = dl.lyapunov_spectrum(HENON, [0.1, 0.1], n_steps=2100, burn_in=100)
    sums = found.finite_time_exponent.values * (found.iteration.values - 100)[:, None]
    parts = np.diff(np.vstack([[0.0, 0.0], sums[4::5]]), axis=0) / 100
    assert len(parts) == 20
    expected = parts.std(axis=0, ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-9)


@pytest.mark.parametrize("kernels", [{"jvp": lorenz_along}, {}])
def test_one_vector_is_pushed_or_differenced(kernels):
    system = dl.System(lorenz, **kernels, dim=3)
    x = np.array([1.0, 2.0, 20.0])
    found = dl.lyapunov_spectrum(system, x, (0, 0.1), k=1, t_eval=[0.1], rng=2)
    frame = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 1)))[0][:, 0]

    def both(t, z):
        out = np.empty(6)
        lorenz(t, z[:3], None, out[:3])
        lorenz_along(t, z[:3], z[3:], None, out[3:])
        return out

    z = scipy.integrate.solve_ivp(
        both, (0, 0.1), np.concatenate([x, frame]), method="DOP853", rtol=1e-12, atol=1e-12
    ).y[:, -1]
    growth = np.log(np.linalg.norm(z[3:])) / 0.1
    assert float(found.exponent[0]) == pytest.approx(growth, abs=1e-6)
    np.testing.assert_allclose(found.state, z[:3], rtol=1e-7)


def test_descent_at_a_minimum_contracts_by_its_multipliers():
    net = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
    descent = dl.GradientDescent(net, step_size=0.1)
    found = dl.lyapunov_spectrum(descent, net.critical_state((0,)), n_steps=300, burn_in=100)
    np.testing.assert_allclose(found.exponent, [0.0, np.log(0.6)], rtol=0, atol=1e-12)
    assert abs(float(found.trace_rule)) < 1e-10


# Covariant vectors.


def test_covariant_vectors_of_a_linear_flow_are_its_eigenvectors():
    rng = np.random.default_rng(1)
    V = rng.normal(size=(3, 3))
    A = V @ np.diag([0.5, -0.2, -1.0]) @ np.linalg.inv(V)
    found = dl.covariant_vectors(
        matrix_system(A), np.zeros(3), (0, 80), burn_in=35, t_eval=[36.0, 44.0]
    )
    dl.schema.validate(found)
    for row in found.vector.values:
        for j in range(3):
            v = V[:, j] / np.linalg.norm(V[:, j])
            assert abs(row[j] @ v) == pytest.approx(1.0, abs=1e-8)
    rates = np.broadcast_to([0.5, -0.2, -1.0], (2, 3))
    np.testing.assert_allclose(found.growth_rate, rates, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.exponent, rates[0], rtol=0, atol=1e-7)


@pytest.mark.compiled
def test_covariant_vectors_at_a_critical_point_span_the_eigenspaces():
    net = naive.random_network((2, 2, 3), 4)
    x = net.critical_state((0,))
    found = dl.covariant_vectors(net, x, (0, 900), burn_in=400, t_eval=[450.0])
    values, frames = np.linalg.eigh(net.hessian(x))
    vectors = found.vector.values[0]
    np.testing.assert_allclose(found.growth_rate.values[0], -values, rtol=0, atol=1e-6)
    for value in np.unique(values.round(6)):
        same = np.abs(values - value) < 1e-5
        q = np.linalg.qr(vectors[same].T)[0]
        np.testing.assert_allclose(q @ q.T, frames[:, same] @ frames[:, same].T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("interval", [None, 3])
def test_a_map_takes_covariant_vectors_to_multiples_of_the_next(interval):
    rows = np.arange(60, 121)
    found = dl.covariant_vectors(
        HENON, [0.1, 0.1], n_steps=180, burn_in=60, t_eval=rows, interval=interval
    )
    x, v = found.state.values, found.vector.values
    for n in range(len(x) - 1):
        J = np.array([[-2.8 * x[n, 0], 1.0], [0.3, 0.0]])
        np.testing.assert_allclose(x[n + 1], [1 - 1.4 * x[n, 0] ** 2 + x[n, 1], 0.3 * x[n, 0]])
        for j in range(2):
            image = J @ v[n, j]
            factor = np.linalg.norm(image)
            np.testing.assert_allclose(image / factor, v[n + 1, j] * np.sign(image @ v[n + 1, j]))
            assert found.growth_rate.values[n, j] == pytest.approx(np.log(factor), abs=1e-12)


@pytest.mark.compiled
def test_a_flow_takes_covariant_vectors_to_multiples_of_the_next():
    """Also where a row is many lifetimes from the next; the neutral one is along the flow."""
    system = dl.System(lorenz, jacobian=lorenz_matrix, dim=3)
    grid = [30.0, 30.25, 31.0, 36.0]
    found = dl.covariant_vectors(
        system, [1.0, 1.0, 1.0], (0, 66), burn_in=30, t_eval=grid, rtol=1e-11
    )
    x, v = found.state.values, found.vector.values
    for n, t in enumerate(grid):
        out = np.empty(3)
        lorenz(t, x[n], system.params, out)
        assert abs(v[n, 1] @ out) / np.linalg.norm(out) == pytest.approx(1.0, abs=1e-6)

    def moved(state, u, length):
        def both(t, z):
            out = np.empty(6)
            lorenz(t, z[:3], None, out[:3])
            lorenz_along(t, z[:3], z[3:], None, out[3:])
            return out

        z = scipy.integrate.solve_ivp(
            both, (0, length), np.concatenate([state, u]), method="DOP853", rtol=1e-12, atol=1e-13
        ).y[3:, -1]
        return z / np.linalg.norm(z)

    for j in range(3):
        image = moved(x[0], v[0, j], 0.25)
        np.testing.assert_allclose(image * np.sign(image @ v[1, j]), v[1, j], rtol=0, atol=1e-6)


# The kernel of networks.


@settings(max_examples=30)
@given(naive.networks, naive.seeds, st.integers(1, 19))
def test_many_vectors_at_once_are_the_hessian_times_each(net, seed, count):
    x = naive.state_of(net, seed)
    V = np.random.default_rng(seed).normal(size=(net.dim, count))
    out = np.full_like(V, np.nan)
    trace = jit.ready(layers.tangent, jit.TANGENT)(0.0, x, V, net.params, out)
    H = net.hessian(x)
    size = 1.0 + np.abs(H).max()
    np.testing.assert_allclose(out, -H @ V, rtol=0, atol=1e-12 * size * net.dim)
    assert trace == pytest.approx(-np.trace(H), rel=1e-12, abs=1e-13 * size)
    known = net.numerics.tangent
    assert known is (layers.tangent if net.target.shape[1] <= net.widths[-1] else None)


@pytest.mark.compiled
@pytest.mark.parametrize("columns", [1, 7, 8, 37])
def test_combinations_of_rows_are_their_definition(columns):
    @jit.jit
    def compiled(weights, rows, out):
        dense.add_combination(weights, 1, 2, rows, 2, 3, 3, out, 1)

    rng = np.random.default_rng(0)
    weights, rows = rng.normal(size=(2, 4)), rng.normal(size=(9, columns))
    out = rng.normal(size=(2, columns))
    expected, plain = out.copy(), out.copy()
    expected[1] += weights[0, 1] * rows[2] + weights[0, 3] * rows[5] + weights[1, 1] * rows[8]
    compiled(weights, rows, out)
    dense.add_combination(weights, 1, 2, rows, 2, 3, 3, plain, 1)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-14)


@pytest.mark.compiled
def test_every_source_of_derivatives_gives_the_same_exponents():
    """All vectors at once, by the matrix, one by one, by differences."""
    net = naive.random_network((2, 3, 2), 0)
    x = net.initial(scale=0.5, rng=0)

    def without(*names):
        class Less(type(net)):
            pass

        for name in names:
            setattr(Less, name, None)
        return Less(widths=net.widths, target=net.target)

    for k in (net.dim, 2):
        whole = dl.lyapunov_spectrum(net, x, (0, 5), k=k, rtol=1e-10).exponent.values
        for names in [("tangent",), ("tangent", "jacobian"), ("tangent", "jacobian", "jvp")]:
            other = dl.lyapunov_spectrum(without(*names), x, (0, 5), k=k, rtol=1e-10)
            np.testing.assert_allclose(other.exponent, whole, rtol=0, atol=1e-8)


# The Lyapunov function.


def test_the_loss_falls_at_the_recorded_rate():
    """Its decrease is the integral of ‖∇L‖², to third order in the spacing of rows."""
    net = naive.random_network((2, 2), 0)
    x = net.initial(scale=0.3, rng=0)
    errors = []
    for rows in (21, 41, 81):
        run = dl.flow(net, x, (0, 2), np.linspace(0, 2, rows), rtol=1e-11)
        found = dl.lyapunov_function(run, limit=float(run.loss[-1]))
        dl.schema.validate(found)
        assert int(found.monotone) == 1
        assert float(found.rise) == 0.0
        assert float(found.value[-1]) == 0.0
        np.testing.assert_array_equal(found.rate, run.loss_rate)
        np.testing.assert_allclose(found.decrease, run.loss[0] - run.loss)
        errors.append(float(np.abs(found.decrease - found.integrated_rate).max()))
    assert np.log2(errors[0] / errors[1]) > 2.5
    assert np.log2(errors[1] / errors[2]) > 2.5
    assert errors[2] < 1e-4 * float(found.decrease[-1])


def test_after_long_plateaus_the_decrease_is_the_integral_or_there_is_none():
    """Quadrature of the rows of a run is good to a few hundredths; of times nobody knows, nothing.

    At 3e14 only both numbers of the clock tell when something was, at 1e38 nothing does.
    """
    for depth, known in ((3, True), (4, True), (5, False)):
        net = dl.LinearNetwork((2,) * (depth + 1), np.diag([2.0, 1.0]))
        run = dl.flow(net, net.initial("balanced", scale=1e-7, rng=0))
        found = dl.lyapunov_function(run)
        there = found.integrated_rate.notnull().values
        assert there.all() == known
        assert there[: np.argmax(run.loss.values < 0.5 * run.loss.values[0])].all()
        lacks = abs(found.integrated_rate - found.decrease).values[there]
        assert lacks.max() < 0.03 * float(found.decrease[-1])
        plain = dl.lyapunov_function(run.drop_vars("time_low")).integrated_rate
        told = plain.notnull().values
        assert told.all() == (depth < 4)
        np.testing.assert_allclose(plain[told], found.integrated_rate[told], rtol=1e-5)


@pytest.mark.compiled
def test_the_loss_falls_along_whole_runs_and_a_rise_is_seen():
    net = naive.random_network((3, 4, 4, 3), 0)
    run = dl.flow(net, net.initial(scale=1e-1, rng=0), (0, 40), method="dop853")
    found = dl.lyapunov_function(run)
    assert int(found.monotone) == 1
    wrong = run.copy(deep=True)
    wrong["loss"].values[5] = wrong.loss.values[4] * (1.0 + 1e-10)
    assert int(dl.lyapunov_function(wrong).monotone) == 0
    assert float(dl.lyapunov_function(wrong).rise) == pytest.approx(
        1e-10 * float(run.loss[4]), rel=1e-4
    )


def test_results_can_be_saved(tmp_path):
    net = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
    x = net.critical_state((0,))
    for found in (
        dl.lyapunov_spectrum(net, x, (0, 4)),
        dl.covariant_vectors(net, x, (0, 4), burn_in=1, t_eval=[2.0]),
        dl.lyapunov_function(dl.flow(net, [0.5, 0.4], (0, 1), [0.0, 1.0])),
        dl.lyapunov_spectrum(CAT, [0.1, 0.2], n_steps=1),
    ):
        dl.save(found, tmp_path / "found.nc")
        assert dl.load(tmp_path / "found.nc").identical(found)


# Failures.


def test_orbits_that_escape_raise_with_numbers():
    system = dl.System(explosion, dim=1)
    with pytest.raises(dl.ConvergenceError, match=r"at t = 1 on the way to 3"):
        dl.lyapunov_spectrum(system, [1.0], (0, 3))
    with pytest.raises(dl.ConvergenceError, match="at iteration 1[0-9] of 100"):
        dl.lyapunov_spectrum(system, [1.5], n_steps=100)
    with pytest.raises(dl.ConvergenceError, match="max_steps"):
        dl.lyapunov_spectrum(CUBE, [1.0], (0, 100), max_steps=3)
    with pytest.raises(dl.ConvergenceError):
        dl.covariant_vectors(LOGISTIC, [0.5], n_steps=10)


CUBE = matrix_system(np.array([[-1.0]]))
NET = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("system", lambda f: f(3, [1.0], (0, 1))),
        ("t_span", lambda f: f(CUBE, [1.0])),
        ("t_span", lambda f: f(CUBE, [1.0], (0, 1), n_steps=3)),
        ("t_span", lambda f: f(CUBE, [1.0], (0, np.inf))),
        ("t_span", lambda f: f(CUBE, [1.0], (1, 0))),
        ("t_span", lambda f: f(dl.GradientDescent(NET, step_size=0.1), [1.0, 1.0], (0, 1))),
        ("n_steps", lambda f: f(NET, [1.0, 1.0], n_steps=3)),
        ("n_steps", lambda f: f(CUBE, [1.0], n_steps=0)),
        ("start", lambda f: f(CUBE, [np.nan], (0, 1))),
        ("start", lambda f: f(CUBE, [1.0, 2.0], (0, 1))),
        ("k", lambda f: f(CUBE, [1.0], (0, 1), k=2)),
        ("k", lambda f: f(CUBE, [1.0], (0, 1), k=0)),
        ("burn_in", lambda f: f(CUBE, [1.0], (0, 1), burn_in=1.5)),
        ("burn_in", lambda f: f(CUBE, [1.0], (0, 1), burn_in=1.0)),
        ("burn_in", lambda f: f(CUBE, [1.0], (0, 1), burn_in=-0.1)),
        ("burn_in", lambda f: f(CUBE, [1.0], n_steps=9, burn_in=1.5)),
        ("interval", lambda f: f(CUBE, [1.0], (0, 1), interval=0.0)),
        ("interval", lambda f: f(CUBE, [1.0], n_steps=9, interval=0)),
        ("t_eval", lambda f: f(CUBE, [1.0], (0, 1), t_eval=[2.0])),
        ("t_eval", lambda f: f(CUBE, [1.0], n_steps=9, t_eval=[2.5])),
        ("rtol", lambda f: f(CUBE, [1.0], (0, 1), rtol=0.0)),
        ("rng", lambda f: f(CUBE, [1.0], (0, 1), rng="seed")),
        ("max_steps", lambda f: f(CUBE, [1.0], (0, 1), max_steps=0)),
        ("progress", lambda f: f(CUBE, [1.0], (0, 1), progress=1)),
        ("burnin", lambda f: f(CUBE, [1.0], (0, 1), burnin=0.1)),
    ],
)
@pytest.mark.parametrize("function", [dl.lyapunov_spectrum, dl.covariant_vectors])
def test_bad_input_is_refused(name, call, function):
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        call(function)


def test_bad_input_of_single_functions_is_refused():
    with pytest.raises(ValueError, match="^burn_in: "):
        dl.covariant_vectors(CUBE, [1.0], (0, 1), burn_in=0.6)
    with pytest.raises(ValueError, match="^burn_out: "):
        dl.covariant_vectors(CUBE, [1.0], (0, 1), burn_out=2.0)
    with pytest.raises(TypeError, match="^run: "):
        dl.lyapunov_function(3)
    runs = dl.flow(NET, [[1.0, 1.0], [0.5, 1.0]], (0, 1), [0.0, 1.0])
    for run in (runs, dl.iterate(dl.GradientDescent(NET, step_size=0.1), [1.0, 1.0], 3)):
        with pytest.raises(ValueError, match="^run: "):
            dl.lyapunov_function(run)
    with pytest.raises(ValueError, match="^run: .*loss and loss_rate"):
        dl.lyapunov_function(dl.flow(CUBE, [1.0], (0, 1)))
    with pytest.raises(TypeError, match="^limit: "):
        dl.lyapunov_function(runs.isel(sample=0, drop=True), limit="0")
