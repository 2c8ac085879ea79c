"""Kernels against their definitions."""

import itertools
from collections import namedtuple

import naive
import numba
import numpy as np
import pytest
from hypothesis import given
from scipy.integrate import DOP853, solve_ivp

from dlnds._kernels import dense, jit, runge_kutta


@pytest.mark.parametrize("kept", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (7, 1, 6), (40, 30, 50)])
def test_products_of_matrices(shape, kept, monkeypatch):
    monkeypatch.setattr(dense, "LOOP_LIMIT", 20_000)  # felt only where nothing is compiled
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b, start = rng.normal(size=(m, k)), rng.normal(size=(k, n)), rng.normal(size=(m, n))
    expected = a @ b + kept * start
    bound = 2.0 * (k + 1) * np.finfo(float).eps * (np.abs(a) @ np.abs(b) + np.abs(kept * start))
    if kept == 0.0:  # what has no value yet is not looked at
        start[:] = np.nan
    for function, left, right in [
        (dense.multiply, a, b),
        (dense.multiply_left_transposed, a.T.copy(), b),
        (dense.multiply_right_transposed, a, b.T.copy()),
    ]:
        out = start.copy()
        called = numba.njit(lambda a, b, out, kept, product=function: product(a, b, out, kept))
        called(left, right, out, kept)
        assert (np.abs(out - expected) <= bound).all()


@given(naive.networks, naive.seeds)
def test_field_is_its_definition(net, seed):
    x = naive.state_of(net, seed)
    expected = naive.field(net, x)
    np.testing.assert_allclose(
        -net.gradient(x), expected, rtol=0, atol=1e-12 * (1 + np.abs(expected).max())
    )


@given(naive.whitened_networks, naive.seeds)
def test_adjacency_flow_equals_layer_flow(net, seed):
    x = naive.state_of(net, seed)
    expected = naive.adjacency_field(net, x)
    size = 1.0 + np.abs(expected).max()
    np.testing.assert_allclose(net.adjacency(-net.gradient(x)), expected, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("widths", [(40, 30, 50), (50, 60, 30, 20), (64, 64, 64)])
@pytest.mark.parametrize("kind", naive.KINDS)
def test_wide_fields_go_through_blas_and_agree(widths, kind):
    net = naive.random_network(widths, 0, kind)
    x = naive.state_of(net, 1, 0.1)
    v = naive.state_of(net, 2, 0.1)
    expected = naive.field(net, x)
    np.testing.assert_allclose(
        -net.gradient(x), expected, rtol=0, atol=1e-11 * np.abs(expected).max()
    )
    along = naive.differences(lambda alpha: -naive.field(net, x + alpha[0] * v), np.zeros(1), 1e-3)
    product = net.hessian_product(x, v)
    np.testing.assert_allclose(product, along[:, 0], rtol=0, atol=1e-8 * np.abs(product).max())


def test_nodes_are_the_row_sums_of_the_tableau():
    sums = runge_kutta.STAGES.sum(axis=1)
    np.testing.assert_allclose(sums, runge_kutta.NODES, rtol=0, atol=5e-14)


def trees_conditions(A, b, c):
    """Order conditions of all trees up to order 5, and of the bushy trees up to order 8."""
    bushy = [(b @ c**k, 1 / (k + 1)) for k in range(8)]
    order_three = [(b @ A @ c, 1 / 6)]
    order_four = [((b * c) @ A @ c, 1 / 8), (b @ A @ c**2, 1 / 12), (b @ A @ A @ c, 1 / 24)]
    order_five = [
        ((b * c**2) @ A @ c, 1 / 10),
        ((b * c) @ A @ c**2, 1 / 15),
        ((b * c) @ A @ A @ c, 1 / 30),
        (b @ (A @ c) ** 2, 1 / 20),
        (b @ A @ c**3, 1 / 20),
        (b @ A @ (c * (A @ c)), 1 / 40),
        (b @ A @ A @ c**2, 1 / 60),
        (b @ A @ A @ A @ c, 1 / 120),
    ]
    tall = [
        (b @ np.linalg.matrix_power(A, k) @ c, 1 / np.prod(range(1, k + 3), dtype=float))
        for k in range(4, 7)
    ]
    return [*bushy, *order_three, *order_four, *order_five, *tall]


def test_tableau_meets_the_order_conditions():
    A, b, c = runge_kutta.STAGES[:12, :12], runge_kutta.STAGES[12, :12], runge_kutta.NODES[:12]
    for left, right in trees_conditions(A, b, c):
        assert abs(left - right) < 1e-13


def test_tableau_is_that_of_the_reference_implementation():
    np.testing.assert_array_equal(runge_kutta.STAGES[:12, :12], DOP853.A[:12, :12])
    np.testing.assert_array_equal(runge_kutta.STAGES[13:], DOP853.A_EXTRA)
    np.testing.assert_array_equal(runge_kutta.ERRORS[:2], np.array([DOP853.E5, DOP853.E3]))
    np.testing.assert_array_equal(runge_kutta.DENSE, DOP853.D)


def test_error_of_decaying_modes_has_weights_of_order_five():
    A, (fifth, _, decaying) = runge_kutta.STAGES[:13, :13], runge_kutta.ERRORS
    for weights in (fifth, decaying):
        for left, _ in trees_conditions(A, weights, runge_kutta.NODES[:13])[:5]:
            assert abs(left) < 1e-14
        for left, _ in trees_conditions(A, weights, runge_kutta.NODES[:13])[8:-3]:
            assert abs(left) < 1e-14


@numba.njit
def error_estimate(h, stages, tolerance):
    """Call what nothing but compiled code can."""
    return runge_kutta.error_norm(h, stages, tolerance)


#: What a step asks of a method.
Method = namedtuple("Method", "field params")


def decay(t, x, params, out):
    """x' = −λx."""
    out[:] = -params[1] * x


def error_and_estimate(rates, start):
    """Return the error of a step of length one, and what is told of it in units of one."""
    step = getattr(runge_kutta.step, "py_func", runge_kutta.step)
    new, stages, params = np.empty_like(start), np.zeros((16, len(start))), (PARAMS[0], rates)
    decay(0.0, start, params, stages[0])
    step(Method(decay, params), 0.0, start, 1.0, stages, new, np.empty_like(start))
    error = np.linalg.norm(new - np.exp(-rates) * start) / np.sqrt(len(start))
    return error, error_estimate(1.0, stages, np.ones(len(start)))


def test_no_decaying_mode_errs_by_more_than_is_told():
    """Up to where steps damp: slow ones err by less, those of rates from 5.2 on by what is told.

    But for what the estimate of third order, at most 2.2 times as large there, takes off: f²/√(f² +
    (0.22 f)²) = f / 1.024.
    """
    for z in np.linspace(0.5, 6.4, 119):
        error, told = error_and_estimate(np.array([z]), np.ones(1))
        assert error <= 1.024 * told
        if z >= 5.2:
            assert told <= 1.002 * error
    for slow in (0.3, 0.6):  # beside what rests the estimate is that of order five
        both = np.array([slow, 5.63])
        _, alone = error_and_estimate(both[:1], np.ones(1))
        _, together = error_and_estimate(both, np.array([1.0, 1e-14]))
        np.testing.assert_allclose(together, alone / np.sqrt(2.0), rtol=1e-2)


def pendulum(t, x, params, out):
    out[0] = x[1]
    out[1] = -np.sin(x[0]) + 0.1 * np.cos(t)


PARAMS = (np.zeros(0, np.int64), np.zeros(0))
START = np.array([1.0, 0.5])


def exact(t):
    def fun(t, x):
        return [x[1], -np.sin(x[0]) + 0.1 * np.cos(t)]

    return solve_ivp(fun, (0, t), START, "DOP853", rtol=2.5e-14, atol=1e-15).y[:, -1]


def oscillator(t, x, params, out):
    out[0] = x[1]
    out[1] = -x[0]


def logistic(t, x, params, out):
    out[0] = x[0] * (1.0 - x[0])


def fixed_steps(field, start, n, t_end):
    """Return the state after n equal steps."""
    step = getattr(runge_kutta.step, "py_func", runge_kutta.step)
    x, h = np.array(start, dtype=float), t_end / n
    new, last, stages = np.empty_like(x), np.empty_like(x), np.zeros((16, len(x)))
    for i in range(n):
        field(i * h, x, PARAMS, stages[0])
        step(Method(field, PARAMS), i * h, x, h, stages, new, last)
        x = new.copy()
    return x


@pytest.mark.parametrize(
    ("field", "start", "t_end", "counts", "truth"),
    [
        (oscillator, [1.0, 0.0], 20.0, (20, 28, 40, 56, 80), [np.cos(20.0), -np.sin(20.0)]),
        (logistic, [0.1], 6.0, (6, 8, 11, 16), [0.1 * np.exp(6.0) / (0.9 + 0.1 * np.exp(6.0))]),
    ],
)
def test_order_of_convergence_is_eight(field, start, t_end, counts, truth):
    errors = [np.linalg.norm(fixed_steps(field, start, n, t_end) - truth) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - 8.0) < 0.2, (slope, errors)


def test_order_of_the_dense_output_is_seven():
    """The interpolant's error within one step is of order h^8."""
    step = getattr(runge_kutta.step, "py_func", runge_kutta.step)
    dense_coefficients = getattr(
        runge_kutta.dense_coefficients, "py_func", runge_kutta.dense_coefficients
    )
    interpolate = getattr(runge_kutta.interpolate, "py_func", runge_kutta.interpolate)
    sizes, errors = np.array([0.8, 0.6, 0.45, 0.34]), []
    for h in sizes:
        new, last, out = np.empty((3, 2))
        stages, coefficients = np.zeros((16, 2)), np.empty((7, 2))
        pendulum(0.0, START, PARAMS, stages[0])
        step(Method(pendulum, PARAMS), 0.0, START, h, stages, new, last)
        dense_coefficients(pendulum, 0.0, START, h, PARAMS, stages, new, coefficients, last)
        worst = 0.0
        for theta in (0.15, 0.35, 0.5, 0.65, 0.85):
            interpolate(START, coefficients, theta, out)
            worst = max(worst, np.linalg.norm(out - exact(theta * h)))
        errors.append(worst)
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(slope - 8.0) < 0.4, (slope, errors)


@numba.njit
def error_told(x, coefficients, last, tolerance):
    """Call what nothing but compiled code can."""
    return runge_kutta.dense_error(x, coefficients, last, tolerance)


def rotating(t, x, params, out):
    """z' = λz of a complex number."""
    a, b = params[1]
    out[0], out[1] = a * x[0] - b * x[1], b * x[0] + a * x[1]


@pytest.mark.parametrize(
    ("rates", "low", "high"),
    [
        (np.linspace(-6.0, -0.5, 12), 0.4, 1.2),
        (np.linspace(0.25, 2.0, 8), 0.4, 1.2),
        (1j * np.linspace(0.25, 4.0, 16), 0.15, 0.8),
    ],
)
def test_the_error_of_the_dense_output_is_told(rates, low, high):
    """Over one step of z' = λz, whose solution is known, whether its end is exact or not."""
    parts = runge_kutta.step, runge_kutta.dense_coefficients, runge_kutta.interpolate
    step, make, interpolate = (getattr(part, "py_func", part) for part in parts)
    start, part = np.array([1.0, 0.0]), np.linspace(0.0, 1.0, 201)
    for rate in rates:
        params = (np.zeros(0, np.int64), np.array([rate.real, rate.imag]))
        new, last, out = np.empty((3, 2))
        stages, coefficients = np.zeros((16, 2)), np.empty((7, 2))
        rotating(0.0, start, params, stages[0])
        step(Method(rotating, params), 0.0, start, 1.0, stages, new, last)
        make(rotating, 0.0, start, 1.0, params, stages, new, coefficients, last)
        states = []
        for theta in part:
            interpolate(start, coefficients, theta, out)
            states.append(out[0] + 1j * out[1])
        largest = np.abs(states - np.exp(rate * part)).max()
        told = np.sqrt(2.0) * error_told(start, coefficients, last, np.ones(2))  # that is a mean
        assert low < told / largest < high


@pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled")
def test_a_kernel_of_another_signature_is_refused():
    @jit.jit
    def other(x):
        return x

    other(1.0)
    other.disable_compile()
    with pytest.raises(TypeError, match="another signature"):
        jit.ready(other, jit.FIELD)


@given(naive.networks, naive.seeds)
def test_hessian_is_assembled_as_it_multiplies(net, seed):
    x, v = naive.state_of(net, seed), naive.state_of(net, seed + 1)
    H = net.hessian(x)
    bound = 1e-12 * (1.0 + np.abs(H).max()) * (1.0 + np.abs(v).max()) * net.dim
    np.testing.assert_allclose(H, H.T, rtol=0, atol=bound)
    np.testing.assert_allclose(H @ v, net.hessian_product(x, v), rtol=0, atol=bound)


@given(naive.networks, naive.seeds)
def test_loss_along_a_line_is_a_polynomial_with_these_derivatives(net, seed):
    """L(x + αv) has degree 2h: 2h + 1 values determine it, and so its derivatives at 0, exactly."""
    x, v = naive.state_of(net, seed, 0.7), naive.state_of(net, seed + 1, 0.3)
    nodes = np.cos(np.pi * (np.arange(2 * net.depth + 1) + 0.5) / (2 * net.depth + 1))
    values = np.array([naive.loss(net, x + alpha * v) for alpha in nodes])
    series = np.polynomial.Chebyshev.fit(nodes, values, 2 * net.depth, domain=[-1, 1])
    bound = 1e-11 * (1.0 + np.abs(values).max()) * (2 * net.depth) ** 4
    assert abs(series.deriv(1)(0.0) - net.gradient(x) @ v) < bound
    assert abs(series.deriv(2)(0.0) - v @ net.hessian_product(x, v)) < bound


def test_no_two_sides_of_the_field_disagree():
    """The field computed from the inputs equals the field computed from the outputs."""
    from dlnds._kernels import linear

    for widths, kind in itertools.product(
        [(2, 3, 4), (4, 3, 2), (3, 3), (5, 2, 6, 1)], naive.KINDS
    ):
        net = naive.random_network(widths, 3, kind)
        x, v = naive.state_of(net, 4), naive.state_of(net, 5)
        fields, products = np.empty((2, net.dim)), np.empty((2, net.dim))
        jit.ready(linear.field_from_inputs, jit.FIELD)(0.0, x, net.params, fields[0])
        jit.ready(linear.field_from_outputs, jit.FIELD)(0.0, x, net.params, fields[1])
        jit.ready(linear.jvp_from_inputs, jit.JVP)(0.0, x, v, net.params, products[0])
        jit.ready(linear.jvp_from_outputs, jit.JVP)(0.0, x, v, net.params, products[1])
        for pair in (fields, products):
            np.testing.assert_allclose(*pair, rtol=0, atol=1e-12 * (1 + np.abs(pair).max()))


FACTOR, TABLE = 2.0, np.array([1.0, 2.0])


def scaled(t, x, params, out):
    out[0] = FACTOR * TABLE[1] * x[0]


def made_with(number):
    def field(t, x, params, out):
        out[0] = number * np.sin(x[0])

    return field


def doubled(x):
    return 2.0 * x


def calling(t, x, params, out):
    out[0] = doubled(x[0])


def value_of(kernel):
    out = np.empty(1)
    kernel(0.0, np.array([3.0]), (np.zeros(0, np.int64), np.zeros(0)), out)
    return float(out[0])


def test_functions_of_the_same_text_are_compiled_once_and_others_are_not(monkeypatch):
    """What names outside stand for counts: a number, what is in an array, what a closure has."""
    first = jit.of_text(scaled, jit.FIELD)
    assert jit.of_text(scaled, jit.FIELD) is first
    assert value_of(first) == 12.0
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert value_of(jit.of_text(scaled, jit.FIELD)) == 18.0
    TABLE[1] = 5.0
    assert value_of(jit.of_text(scaled, jit.FIELD)) == 45.0
    TABLE[1] = 2.0
    one, same, other = (jit.of_text(made_with(k), jit.FIELD) for k in (1.0, 1.0, 2.0))
    assert one is same
    assert one is not other
    assert value_of(other) == 2.0 * value_of(one) == 2.0 * np.sin(3.0)


def test_functions_that_call_what_may_change_are_compiled_each_time(monkeypatch):
    for factor in (2.0, 3.0):
        monkeypatch.setitem(globals(), "doubled", numba.njit(lambda x, factor=factor: factor * x))
        assert value_of(jit.of_text(calling, jit.FIELD)) == 3.0 * factor
    box = type("Box", (), {"factor": 2.0})  # no name that is known not to change
    monkeypatch.setitem(globals(), "doubled", box)
    with pytest.raises(numba.core.errors.NumbaError):
        jit.of_text(calling, jit.FIELD)
