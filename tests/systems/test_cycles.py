"""Fixed points and cycles of maps as equations: logistic, Hénon, descent beyond the edge."""

import functools
import itertools

import contracts
import naive
import numpy as np
import pytest
from equations import events

import dlnds as dl

EPSILON = np.finfo(float).eps


def logistic(t, x, params, out):
    out[0] = params[1][0] * x[0] * (1.0 - x[0])


def logistic_jacobian(t, x, params, out):
    out[0, 0] = params[1][0] * (1.0 - 2.0 * x[0])


def henon(t, x, params, out):
    a, b = params[1]
    out[0] = 1.0 - a * x[0] * x[0] + x[1]
    out[1] = b * x[0]


def henon_jvp(t, x, v, params, out):
    a, b = params[1]
    out[0] = -2.0 * a * x[0] * v[0] + v[1]
    out[1] = b * v[0]


def henon_jacobian(t, x, params, out):
    a, b = params[1]
    out[0, 0], out[0, 1], out[1, 0], out[1, 1] = -2.0 * a * x[0], 1.0, b, 0.0


LOGISTIC = dl.System(logistic, jacobian=logistic_jacobian, dim=1, parameters={"r": 3.2}, kind="map")
DERIVATIVES = {"jvp": {"jvp": henon_jvp}, "jacobian": {"jacobian": henon_jacobian}, "": {}}
B = 0.3


@functools.cache
def henon_map(known):
    return dl.System(henon, **DERIVATIVES[known], dim=2, parameters={"a": 1.4, "b": B}, kind="map")


def pair_of_logistic(r):
    """The points of the 2-cycle."""
    root = np.sqrt((r - 3.0) * (r + 1.0))
    return np.array([r + 1.0 + root, r + 1.0 - root]) / (2.0 * r)


def fixed_of_henon(a):
    root = np.sqrt((1.0 - B) ** 2 + 4.0 * a)
    x = (root - (1.0 - B)) / (2.0 * a)
    return np.array([x, B * x])


def pair_of_henon(a):
    """The points of the 2-cycle: x_1 + x_2 = (1 − b)/a and x_1 x_2 = ((1 − b)² − a)/a²."""
    first, second = np.roots([1.0, -(1.0 - B) / a, ((1.0 - B) ** 2 - a) / a**2])
    return np.array([first, B * second]), np.array([second, B * first])


def multipliers(residual, x, p):
    return np.sort_complex(1.0 + np.linalg.eigvals(residual.matrix(x, p)))


# Logistic map.


@pytest.mark.parametrize("r", [1.5, 2.9, 3.0, 3.7])
def test_the_fixed_point_of_the_logistic_map_has_the_multiplier_2_less_r(r):
    residual = dl.equilibria(LOGISTIC, "r")
    x = np.array([1.0 - 1.0 / r])
    assert residual.kind == "map"
    assert residual.attributes["period"] == 1
    assert abs(residual.value(x, r)[0]) < 4 * EPSILON
    assert multipliers(residual, x, r) == pytest.approx(2.0 - r, abs=8 * EPSILON * r)
    assert residual.slope(x, r) == pytest.approx(x * (1.0 - x), rel=1e-9)
    # It is a solution for every period.
    third = dl.equilibria(LOGISTIC, "r", period=3)
    assert multipliers(third, x, r) == pytest.approx((2.0 - r) ** 3, rel=1e-12)


@pytest.mark.parametrize("r", [3.1, 1.0 + 5.0**0.5, 1.0 + 6.0**0.5, 3.9])
def test_the_2_cycle_of_the_logistic_map_has_the_multiplier_4_plus_2r_less_r_squared(r):
    residual = dl.equilibria(LOGISTIC, "r", period=2)
    for x in pair_of_logistic(r):
        assert abs(residual.value([x], r)[0]) < 64 * EPSILON
        expected = 4.0 + 2.0 * r - r**2
        assert multipliers(residual, [x], r)[0] == pytest.approx(expected, abs=1e-13)
    once = dl.equilibria(LOGISTIC, "r")
    assert abs(once.value([x], r)[0]) > 0.1


# Hénon's map.


@pytest.mark.parametrize("known", DERIVATIVES)
@pytest.mark.parametrize("a", [0.2, 0.75 * (1.0 - B) ** 2, 1.4])
def test_the_fixed_point_of_henon_flips_where_a_is_known(known, a):
    """The multipliers have the sum −2ax and the product −b: one is −1 at a = ¾ (1 − b)²."""
    residual, x = dl.equilibria(henon_map(known), "a"), fixed_of_henon(a)
    assert np.abs(residual.value(x, a)).max() < 8 * EPSILON
    found, accuracy = multipliers(residual, x, a), 1e-13 if known else 1e-9
    np.testing.assert_allclose(found, np.sort(np.roots([1.0, 2.0 * a * x[0], -B])), atol=accuracy)
    flips = a == 0.75 * (1.0 - B) ** 2
    assert (abs(found[0] + 1.0) < accuracy) == flips
    np.testing.assert_allclose(residual.slope(x, a), [-(x[0] ** 2), 0.0], atol=1e-9)


@pytest.mark.parametrize("known", DERIVATIVES)
@pytest.mark.parametrize("a", [0.5, (1.0 - B) ** 2 + 0.25 * (1.0 + B) ** 2, 1.4])
def test_the_2_cycle_of_henon_flips_where_a_is_known(known, a):
    """The sum is 4(1 − b)² − 4a + 2b, the product b²: −1 at a = (1 − b)² + ¼ (1 + b)²."""
    residual = dl.equilibria(henon_map(known), "a", period=2)
    for x in pair_of_henon(a):
        assert np.abs(residual.value(x, a)).max() < 64 * EPSILON
        expected = np.roots([1.0, -(4.0 * (1.0 - B) ** 2 - 4.0 * a + 2.0 * B), B**2])
        accuracy = 1e-12 if known else 1e-8
        np.testing.assert_allclose(
            multipliers(residual, x, a), np.sort_complex(expected), atol=accuracy
        )


# Any map.


@pytest.mark.parametrize("period", [1, 2, 3, 5])
@pytest.mark.parametrize("known", DERIVATIVES)
@pytest.mark.parametrize("word", ["a", "b"])
def test_jacobians_and_derivatives_are_those_of_the_iterated_map(period, known, word):
    system = henon_map(known)
    residual = dl.equilibria(system, word, period=period)
    p, x = dict(system.parameters)[word], np.array([0.3, -0.2])

    def iterated(y, q):
        numbers = dict(system.parameters) | {word: q}
        start = y
        for _ in range(period):
            y = np.array([1.0 - numbers["a"] * y[0] ** 2 + y[1], numbers["b"] * y[0]])
        return y - start

    J = naive.differences(lambda y: iterated(y, p), x, 1e-4)
    slope = naive.differences(lambda q: iterated(x, q[0]), np.array([p]), 1e-4)[:, 0]
    size = 1.0 + np.abs(J).max() + np.abs(slope).max()
    np.testing.assert_allclose(
        residual.value(x, p), iterated(x, p), rtol=0, atol=16 * EPSILON * size
    )
    np.testing.assert_allclose(residual.matrix(x, p), J, rtol=0, atol=1e-8 * size)
    np.testing.assert_allclose(residual.slope(x, p), slope, rtol=0, atol=1e-8 * size)
    assert (residual.jacobian is None) == (not known)
    assert residual.attributes["period"] == period
    assert not residual.symmetric


@pytest.mark.parametrize(
    ("system", "word", "p", "start", "period"),
    [
        (LOGISTIC, "r", 3.5, [0.4], 4),
        (LOGISTIC, "r", 3.55, [0.4], 8),
        (LOGISTIC, "r", 3.83, [0.4], 3),
        (henon_map("jacobian"), "a", 1.0, [0.1, 0.1], 4),
    ],
)
def test_attracting_cycles_that_iteration_finds_solve_the_equation(system, word, p, start, period):
    """To the rounding of k steps, with multipliers inside the unit circle; and no shorter one."""
    there = dl.System(
        system.field, dim=system.dim, parameters=system.parameters | {word: p}, kind="map"
    )
    orbit = dl.iterate(there, start, 40_000).state.values[-period - 1 :]
    residual = dl.equilibria(system, word, period=period)
    for x, after in itertools.pairwise(orbit):
        assert np.abs(residual.value(x, p)).max() < 1e-13
        assert np.abs(multipliers(residual, x, p)).max() < 1.0
        np.testing.assert_allclose(
            np.poly(residual.matrix(after, p)), np.poly(residual.matrix(x, p)), atol=1e-10
        )  # the same all along the cycle
        for less in range(1, period):
            value = dl.equilibria(system, word, period=less).value(x, p)
            assert np.abs(value).max() > 1e-3


@pytest.mark.parametrize("known", DERIVATIVES)
def test_maps_keep_the_contract_of_systems(known):
    contracts.check_system(henon_map(known), [0.3, -0.2])
    contracts.check_system(LOGISTIC, [0.3])


def test_functions_of_flows_refuse_a_map_by_its_name():
    for call in (
        lambda: dl.flow(LOGISTIC, [0.4], (0, 1)),
        lambda: dl.linearize(LOGISTIC, [0.4]),
        lambda: dl.find_critical_point(LOGISTIC, [0.4]),
        lambda: dl.GradientDescent(LOGISTIC, step_size=0.1),
    ):
        with pytest.raises(TypeError, match=r"^system: needs a flow, got the map System; use iter"):
            call()
    with pytest.raises(TypeError, match=r"^t_span: needs a flow, got the map System"):
        dl.lyapunov_spectrum(LOGISTIC, [0.4], (0, 1))


def test_an_orbit_that_overflows_says_so_by_its_numbers():
    """Without warnings, which tests take for errors."""
    residual = dl.equilibria(LOGISTIC, "r", period=12)
    assert not np.isfinite(residual.value([1e3], 4.0)).any()
    assert not np.isfinite(residual.matrix([1e3], 4.0)).any()
    net = dl.LinearNetwork(widths=(1, 1, 1), target=[[1.0]])
    descent = dl.equilibria(dl.GradientDescent(net, 1.0), "step_size", period=12)
    assert not np.isfinite(descent.value([1e3, 2e3], 1.0)).all()


# Gradient descent.


def problem(depth, sigma):
    return dl.LinearNetwork(widths=(1,) * (depth + 1), target=[[sigma]])


def layer_cycle(eta, sigma):
    """The layer values of the 2-cycle of two layers: s_1 s_2 = 1/η and s_1² + s_2² = σ + 1/η."""
    one, other = np.sqrt(sigma + 3.0 / eta), np.sqrt(sigma - 1.0 / eta)
    return 0.5 * (one + other), 0.5 * (one - other)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_minima_of_scalar_networks_flip_at_the_edge(depth):
    """The multipliers at s = σ^{1/h} are 1 − ηhσ^{2−2/h}, and 1 along the fiber."""
    sigma, eta = 1.7, 0.4
    x = np.full(depth, sigma ** (1.0 / depth))
    residual = dl.equilibria(dl.GradientDescent(problem(depth, sigma), eta), "step_size")
    for p in (eta, 2.0 / (depth * sigma ** (2.0 - 2.0 / depth))):
        expected = [1.0 - p * depth * sigma ** (2.0 - 2.0 / depth), *(1.0,) * (depth - 1)]
        found = multipliers(residual, x, p)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert found[0] == pytest.approx(-1.0, abs=1e-13)
    assert residual.label(np.stack([x, 0.0 * x]), np.full(2, eta)).tolist() == ["{0}", "{}"]
    limit = dl.GradientDescent(problem(depth, sigma), eta).stability_limit(x)
    assert p == pytest.approx(limit, rel=1e-12)
    assert np.linalg.matrix_rank(residual.orbit(x, eta), tol=1e-9) == depth - 1


@pytest.mark.parametrize("product", [1.1, 3.0 / 2.0**0.5 - 1.0, 5.0**0.5 - 1.0, 1.8, 2.0])
def test_two_layers_beyond_the_edge_have_the_2_cycle_that_is_known(product):
    """ησ = product and A = 1 + ησ: multipliers 9 − 2A² along, and 5 − 2A of the balance."""
    sigma = 1.7
    eta, A = product / sigma, 1.0 + product
    residual = dl.equilibria(dl.GradientDescent(problem(2, sigma), 0.1), "step_size", period=2)
    for s in layer_cycle(eta, sigma):
        x = np.array([s, s])
        assert np.abs(residual.value(x, eta)).max() < 64 * EPSILON
        expected = np.sort([9.0 - 2.0 * A**2, 5.0 - 2.0 * A])
        found = multipliers(residual, x, eta)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        # The cycle as σ varies is the same one.
        other = dl.GradientDescent(problem(2, 1.0), eta)
        along = dl.equilibria(other, "target", path=([[0.0]], [[1.0]]), period=2)
        assert np.abs(along.value(x, sigma)).max() < 64 * EPSILON
        np.testing.assert_allclose(multipliers(along, x, sigma), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("depth", "eta"), [(2, 0.65), (3, 0.37), (4, 0.25)])
def test_deeper_cycles_have_the_multipliers_of_one_layer_and_of_the_balance(depth, eta):
    """s⁺ = s + ηs^{h−1}(σ − s^h); 1 − ηs^{h−2}(σ − s^h) for each step, h − 1 times across."""
    sigma, s = 1.7, 1.05 * 1.7 ** (1.0 / depth)
    for _ in range(20_000):
        s += eta * s ** (depth - 1) * (sigma - s**depth)
    other = s + eta * s ** (depth - 1) * (sigma - s**depth)
    assert abs(other - s) > 0.05
    residual = dl.equilibria(dl.GradientDescent(problem(depth, sigma), eta), "step_size", period=2)
    pair = np.array([s, other])
    along = 1.0 + eta * (
        (depth - 1) * sigma * pair ** (depth - 2) - (2 * depth - 1) * pair ** (2 * depth - 2)
    )
    across = 1.0 - eta * pair ** (depth - 2) * (sigma - pair**depth)
    expected = np.sort([along.prod(), *[across.prod()] * (depth - 1)])
    for layer in pair:
        x = np.full(depth, layer)
        assert np.abs(residual.value(x, eta)).max() < 1e-13
        np.testing.assert_allclose(multipliers(residual, x, eta), expected, rtol=0, atol=1e-12)


def descents():
    """Descent on networks of every kind, what varies, options, and a state."""
    rng = np.random.default_rng(0)
    net = naive.random_network((3, 4, 2), 0, "full")
    targets = {"path": tuple(rng.normal(size=(2, *net.target.shape)))}
    for vary, more in (("weight_decay", {}), ("target", targets), ("covariance", {})):
        yield net, vary, more, naive.state_of(net, 1, 0.5)
    X = rng.normal(size=(3, 6))
    loss = dl.losses.logistic(X, [1, -1, 1, 1, -1, -1])
    yield (net := dl.LossNetwork((3, 4, 1), loss)), "weight_decay", {}, naive.state_of(net, 1, 0.5)
    hom = dl.HomogeneousNetwork((3, 4, 1), X, rng.normal(size=6), power=2, slope=0.3)
    yield hom, "slope", {}, hom.initial(scale=0.5, rng=0)
    prod = dl.ProductFlow(dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0])), rank=2)
    yield prod, "weight_decay", {}, prod.initial(scale=0.5, rng=0)


@pytest.mark.parametrize("number", range(6))
def test_fixed_points_of_descent_are_the_equilibria_of_the_flow(number):
    net, vary, options, x = [*descents()][number]
    eta, p = 0.05, 0.3
    flow = dl.equilibria(net, vary, **options)
    steps = dl.equilibria(dl.GradientDescent(net, eta), vary, **options)
    assert (steps.kind, steps.parameter, steps.symmetric) == ("map", vary, flow.symmetric)
    np.testing.assert_array_equal(steps.value(x, p), eta * flow.value(x, p))
    np.testing.assert_array_equal(steps.matrix(x, p), eta * flow.matrix(x, p))
    slope = eta * flow.slope(x, p)
    np.testing.assert_allclose(steps.slope(x, p), slope, rtol=0, atol=1e-9 * np.abs(slope).max())
    np.testing.assert_array_equal(steps.orbit(x, p), flow.orbit(x, p))
    assert dict(steps.observe(x, p)) == dict(flow.observe(x, p))
    expected = {**flow.attributes, "step_size": eta, "period": 1}
    assert steps.attributes.keys() == expected.keys()
    assert all(np.array_equal(steps.attributes[word], expected[word]) for word in expected)
    assert (steps.label is None) == (flow.label is None)
    assert flow.label is None or steps.label(x, p) == flow.label(x, p)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("period", [1, 2, 3])
def test_equations_of_descent_are_those_of_its_steps(number, period):
    """By any parameter and by η: F against steps one by one, derivatives against differences."""
    net, vary, options, x = [*descents()][number]
    eta, p = 0.05, 0.3
    flow = dl.equilibria(net, vary, **options)
    descent = dl.GradientDescent(net, eta)
    varied = dl.equilibria(descent, vary, **options, period=period)
    stepped = dl.equilibria(descent, "step_size", period=period)
    orbit = [x]
    for _ in range(period):
        orbit.append(orbit[-1] + eta * flow.value(orbit[-1], p))
    np.testing.assert_allclose(varied.value(x, p), orbit[-1] - x, rtol=0, atol=1e-14)
    orbit = dl.iterate(descent, x, period).state.values
    np.testing.assert_allclose(stepped.value(x, eta), orbit[-1] - x, rtol=0, atol=1e-14)
    for residual, q in ((varied, p), (stepped, eta)):
        J = naive.differences(lambda y, r=residual, q=q: r.value(y, q), x, 1e-3)
        slope = naive.differences(lambda s, r=residual: r.value(x, s[0]), np.array([q]), 1e-4)
        near = {"rtol": 0.0, "atol": 1e-8 * (1.0 + np.abs(J).max() + np.abs(slope).max())}
        np.testing.assert_allclose(residual.matrix(x, q), J, **near)
        np.testing.assert_allclose(residual.slope(x, q), slope[:, 0], **near)
        assert residual.symmetric == (period == 1 and net.numerics.symmetric)
    assert stepped.parameter == "step_size"
    assert "step_size" not in stepped.attributes
    assert {"loss"} <= stepped.observe(x, eta).keys()


def test_modes_decouple_and_the_isometries_keep_a_cycle():
    """Mode 1 in its 2-cycle, mode 2 learnt: K says that aligned balanced modes do not meet."""
    sigma, eta = np.array([2.0, 0.8]), 0.6
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag(sigma))
    residual = dl.equilibria(dl.GradientDescent(net, eta), "step_size", period=2)
    A = 1.0 + eta * sigma[0]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
    for s in layer_cycle(eta, sigma[0]):
        x = dl.act(net, [turn], net.initial("aligned", scale=[s, sigma[1] ** 0.5]))
        assert np.abs(residual.value(x, eta)).max() < 64 * EPSILON
        found, rows = multipliers(residual, x, eta).real, residual.orbit(x, eta)
        for expected in (9.0 - 2.0 * A**2, 5.0 - 2.0 * A, (1.0 - 2.0 * eta * sigma[1]) ** 2):
            assert np.abs(found - expected).min() < 1e-13
        assert np.linalg.matrix_rank(rows, tol=1e-9) == 1
        assert np.abs(residual.matrix(x, eta) @ rows.T).max() < 1e-13
        # GL is no symmetry of the steps, but mode 2 is free to change its balance.
        whole = net.generators(x)
        assert np.abs(residual.matrix(x, eta) @ whole.T).max() > 0.1
        assert np.count_nonzero(np.abs(found - 1.0) < 1e-9) == 2
    with pytest.raises(ValueError, match=r"^period: needs a map, got the flow LinearNetwork"):
        dl.equilibria(net, "weight_decay", period=2)


def test_descent_on_any_system_varies_its_numbers_and_the_step():
    def decay(t, x, params, out):
        out[0] = -params[1][0] * x[0] ** 3

    system = dl.System(decay, dim=1, parameters={"k": 2.0}, energy=lambda x: 0.5 * x[0] ** 4)
    descent = dl.GradientDescent(system, 0.1)
    stepped, varied = (dl.equilibria(descent, w, period=2) for w in ("step_size", "k"))
    for residual, p in ((stepped, 0.1), (varied, 2.0)):
        once = 0.7 - 0.2 * 0.7**3
        assert residual.value([0.7], p)[0] == pytest.approx(once - 0.2 * once**3 - 0.7, rel=1e-14)
        assert residual.observe(np.array([0.7]), p) == {"loss": pytest.approx(0.5 * 0.7**4)}
        assert residual.generators is None
    assert stepped.attributes == {
        **{"system": "System", "parameter_k": 2.0}, "vary": "step_size", "period": 2
    }  # fmt: skip
    assert varied.attributes == {"system": "System", "vary": "k", "step_size": 0.1, "period": 2}


# Events.


def flips(branch):
    found = events(branch)
    assert {kind for kind, *_ in found} == {"flip"}
    return [p for _, p, _ in found]


def test_the_logistic_map_flips_at_3_and_its_cycle_at_1_plus_the_root_of_6():
    once = dl.branch(dl.equilibria(LOGISTIC, "r"), [0.6], 2.5, bounds=(1.5, 3.9))
    (p,) = flips(once)
    assert abs(p - 3.0) < 1e-9
    residual = dl.equilibria(LOGISTIC, "r", period=2)
    for x in pair_of_logistic(3.2):
        twice = dl.branch(residual, [x], 3.2, bounds=(3.05, 3.9))
        (p,) = flips(twice)
        assert abs(p - 1.0 - 6.0**0.5) < 1e-9


def test_henon_flips_where_it_is_known_to():
    system = henon_map("jacobian")
    once = dl.branch(dl.equilibria(system, "a"), fixed_of_henon(0.2), 0.2, bounds=(0.1, 1.4))
    (p,) = flips(once)
    assert abs(p - 0.75 * (1.0 - B) ** 2) < 1e-9
    folded = dl.branch(dl.equilibria(system, "a"), fixed_of_henon(0.2), 0.2, bounds=(-1.0, 0.3))
    ((kind, p, kernel),) = events(folded)
    assert (kind, kernel) == ("fold", 1)
    assert abs(p + 0.25 * (1.0 - B) ** 2) < 1e-9
    residual = dl.equilibria(system, "a", period=2)
    twice = dl.branch(residual, pair_of_henon(0.6)[0], 0.6, bounds=(0.4, 1.3))
    (p,) = flips(twice)
    assert abs(p - (1.0 - B) ** 2 - 0.25 * (1.0 + B) ** 2) < 1e-9


def test_points_of_half_the_period_are_solutions_and_the_cycle_crosses_them():
    """Of f² − x the fixed point has a pitchfork at r = 3, and crosses x = 0 at r = 1."""
    residual = dl.equilibria(LOGISTIC, "r", period=2)
    branch = dl.branch(residual, [0.6], 2.5, bounds=(0.4, 3.4))
    found = events(branch)
    assert [(kind, kernel) for kind, _, kernel in found] == [("branch_point", 1)] * 2
    assert np.abs(np.array([p for _, p, _ in found]) - [1.0, 3.0]).max() < 1e-9
    tree = dl.diagram(residual, [0.6], 2.5, bounds=(0.4, 3.4))
    ends = [pair_of_logistic(3.4), [1.0 - 1.0 / 3.4], [0.0]]
    last = [float(b.state[k, 0]) for b in map(tree.__getitem__, tree.children) for k in (0, -1)
            if float(b.p[k]) == 3.4]  # fmt: skip
    np.testing.assert_allclose(np.sort(last), np.sort(np.concatenate(ends)), atol=1e-9)


def test_a_3_cycle_is_born_in_a_fold_at_1_plus_the_root_of_8():
    residual = dl.equilibria(LOGISTIC, "r", period=3)
    orbit = dl.iterate(dl.System(logistic, dim=1, parameters={"r": 3.835}, kind="map"), [0.4], 5000)
    branch = dl.branch(residual, orbit.state[-1], 3.835, bounds=(3.6, 3.86))
    (fold,) = [p for kind, p, _ in events(branch) if kind == "fold"]
    (flip,) = [p for kind, p, _ in events(branch) if kind == "flip"]
    assert len(events(branch)) == 2
    assert abs(fold - 1.0 - 8.0**0.5) < 1e-9
    # Where the multiplier is −1 the product of r(1 − 2x) is; that it is there is all of the law.
    x = float(branch.state[int(np.argmin(np.abs(branch.p.values - flip))), 0])
    assert multipliers(residual, [x], flip)[0] == pytest.approx(-1.0, abs=1e-8)
    assert 3.8414 < flip < 3.8416


def delayed(t, x, params, out):
    out[0] = params[1][0] * x[0] * (1.0 - x[1])
    out[1] = x[0]


def test_the_delayed_logistic_map_begins_to_turn_at_2():
    """At 1 − 1/r the multipliers have the sum 1 and the product r − 1: e^{±iπ/3} at r = 2."""
    system = dl.System(delayed, dim=2, parameters={"r": 1.5}, kind="map")
    branch = dl.branch(dl.equilibria(system, "r"), [1.0 / 3.0] * 2, 1.5, bounds=(1.2, 2.6))
    ((kind, p, _),) = events(branch)
    assert kind == "neimark_sacker"
    assert abs(p - 2.0) < 1e-9
    assert branch["index"].values[[0, -1]].tolist() == [0, 2]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_descent_flips_at_the_edge(depth):
    sigma = 1.7
    net = problem(depth, sigma)
    x, edge = np.full(depth, sigma ** (1.0 / depth)), 2.0 / (depth * sigma ** (2.0 - 2.0 / depth))
    residual = dl.equilibria(dl.GradientDescent(net, 0.1), "step_size")
    branch = dl.branch(residual, x, 0.5 * edge, bounds=(0.2 * edge, 1.9 * edge))
    (p,) = flips(branch)
    assert abs(p - edge) < 1e-9
    index = branch["index"].values
    assert (index[branch.p.values < p - 1e-9] == 0).all()
    assert (index[branch.p.values > p + 1e-9] == 1).all()


def test_the_2_cycle_of_two_layers_flips_along_and_across():
    """Along at ησ = √5 − 1, across the balance at 2."""
    sigma = 1.7
    residual = dl.equilibria(dl.GradientDescent(problem(2, sigma), 0.1), "step_size", period=2)
    eta = 1.1 / sigma
    x = np.full(2, layer_cycle(eta, sigma)[0])
    branch = dl.branch(residual, x, eta, bounds=(1.05 / sigma, 2.3 / sigma))
    found = flips(branch)
    assert np.abs(np.array(found) * sigma - [5.0**0.5 - 1.0, 2.0]).max() < 1e-9
    assert branch["index"].values[[0, -1]].tolist() == [0, 2]
