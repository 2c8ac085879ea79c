"""Closed forms against integration, and against what is known of their limits."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnds as dl
from dlnds.runs.exact import mode_strength

GRID = np.linspace(0.0, 6.0, 7)


def check_against_flow(net, x, times=GRID, tolerance=1e-8):
    exact = dl.exact_flow(net, x, times, save=("product", "conserved"))
    run = dl.flow(net, x, (times[0], times[-1]), times, rtol=1e-12, save=("product",))
    dl.schema.validate(exact)
    size = 1.0 + np.abs(run["product"]).max()
    np.testing.assert_allclose(exact["product"], run["product"], rtol=0, atol=tolerance * size)
    np.testing.assert_allclose(exact.loss, run.loss, rtol=0, atol=tolerance * size**2)
    drift = np.abs(exact.conserved - net.conserved(x)).max() if net.depth > 1 else 0.0
    assert drift < 1e-9 * (1.0 + np.sum(x**2))
    return exact, run


@settings(max_examples=25)
@given(naive.widths, naive.seeds)
def test_aligned_balanced_starts_of_any_depth(widths, seed):
    """With hidden bases at random, and modes from zero to above their σ."""
    net, rng = naive.random_network(widths, seed), np.random.default_rng(seed)
    sizes = rng.uniform(0.0, 1.5, size=min(widths)) * rng.integers(0, 2, size=min(widths))
    layers = list(net.unpack(net.initial("aligned", scale=sizes)))
    for i, width in enumerate(net.widths[1:-1]):
        Q = np.linalg.qr(rng.normal(size=(width, width)))[0]
        layers[i], layers[i + 1] = Q @ layers[i], layers[i + 1] @ Q.T
    exact, run = check_against_flow(net, net.pack(layers), GRID[:3])
    assert "defined_modulo" not in exact.attrs
    if sizes.all():
        np.testing.assert_allclose(
            exact["loss"], run["loss"], rtol=0, atol=1e-8 * (1 + run.loss[0])
        )


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_modes_with_negative_product_decay_to_the_origin(depth):
    net = dl.LinearNetwork(widths=(2,) * (depth + 1), target=np.diag([2.0, 1.0]))
    layers = list(net.unpack(net.initial("aligned", scale=[0.7, 0.4])))
    layers[0] = -layers[0]
    exact, _ = check_against_flow(net, net.pack(layers), GRID[:3])
    late = dl.exact_flow(net, net.pack(layers), [1e4], save=("mode_strength",))
    a = (-late.mode_strength.values[0]) ** (1 / depth)
    if depth >= 3:
        np.testing.assert_allclose(
            a, ((depth - 2) * np.array([2.0, 1.0]) * 1e4) ** (-1 / (depth - 2)), rtol=1e-3
        )
    assert (np.diff(exact.loss) < 0).all()


def test_two_layers_out_of_balance_learn_a_mode_of_the_wrong_sign():
    """Of a_1² − a_2² = c ≠ 0 the product passes zero with the speed σ |c|."""
    net = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
    for x in ([0.5, -0.2], [-0.2, 0.5]):
        run = dl.flow(net, x)
        assert (run.limit, np.prod(x) < 0.0) == ("{0}", True)
        a, b = run.state.values.T
        np.testing.assert_allclose(a**2 - b**2, x[0] ** 2 - x[1] ** 2, rtol=1e-4)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_modes_that_the_target_lacks_decay_like_their_weights(depth):
    """For ½ w^{2h} each weight has ẇ = −w^{2h−1}: w^{2−2h} grows at the rate 2h − 2."""
    net = dl.LinearNetwork((2,) * (depth + 1), target=np.diag([2.0, 0.0]))
    w, times = 0.9, np.array([0.0, 0.5, 10.0, 1e4])
    x = net.initial("aligned", scale=[0.5, w])
    exact = dl.exact_flow(net, x, times, save=("product",))
    expected = (w ** (2.0 - 2.0 * depth) + (2.0 * depth - 2.0) * times) ** (-1.0 / (2 * depth - 2))
    np.testing.assert_allclose(exact["product"][:, 1, 1], expected**depth, rtol=1e-9)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("fraction", [1e-6, 0.1, 0.5, 0.9, 1 - 1e-9, 1 + 1e-9, 1.5, 20.0])
def test_time_law_and_its_inverse(depth, fraction):
    """p(t) from p_0 meets the differential equation: checked by its own small differences."""
    sigma, p0 = 1.7, 1.7 * fraction
    h = 1e-4 / depth
    for t in (0.05, 0.7, 3.0):
        t = t / p0 ** (1 - 2 / depth) if fraction < 1e-3 and depth > 2 else t
        p = mode_strength(p0, sigma, depth, np.array([t * (1 - h), t, t * (1 + h)]))
        slope = (p[2] - p[0]) / (2 * h * t)
        expected = depth * p[1] ** (2 - 2 / depth) * (sigma - p[1])
        assert slope == pytest.approx(expected, rel=2e-5, abs=1e-10 / (h * t))


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_escape_times_are_those_of_the_law(depth):
    sigma, p0 = 2.0, 1e-4**depth
    t = naive.time_between(p0, 0.5 * sigma, sigma, depth)
    net = dl.LinearNetwork(widths=(1,) * (depth + 1), target=[[sigma]])
    run = dl.exact_flow(net, net.initial("aligned", scale=1e-4), [t], save=("mode_strength",))
    accuracy = 1e-9 + 2e-14 * t  # what rounding of the time itself does
    assert run.mode_strength.item() == pytest.approx(0.5 * sigma, rel=accuracy)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 5), naive.seeds)
@settings(max_examples=25)
def test_two_layers_balanced_of_any_widths(inputs, width, outputs, seed):
    net = naive.random_network((inputs, width, outputs), seed)
    x = net.initial("balanced", scale=0.3, rng=seed)
    exact, _ = check_against_flow(net, x, GRID[:4])
    assert exact.attrs.get("defined_modulo", "O(d_1)") == "O(d_1)"


@pytest.mark.parametrize(
    ("widths", "level"), [((4, 3, 5), 0.7), ((4, 3, 5), -0.7), ((2, 2, 6), 2.0)]
)
def test_two_layers_with_a_constant_imbalance(widths, level):
    net, rng = naive.random_network(widths, 1), np.random.default_rng(2)
    narrow = 0.3 * rng.normal(size=(widths[1], widths[0] if level > 0 else widths[2]))
    wide = np.linalg.cholesky(narrow @ narrow.T + abs(level) * np.eye(widths[1]))
    frame = np.linalg.qr(rng.normal(size=(widths[2] if level > 0 else widths[0], widths[1])))[0]
    layers = (narrow, frame @ wide.T) if level > 0 else (wide @ frame.T, narrow.T)
    exact, _ = check_against_flow(net, net.pack(layers))
    assert exact.attrs["defined_modulo"] == "O(d_1)"


def test_two_layers_aligned_but_not_balanced():
    net = naive.random_network((4, 5, 3), 0)
    U, _, V = net.singular_modes
    x = net.pack([np.eye(5, 3) * [0.1, 0.2, -0.3] @ V.T, U * [0.5, -0.1, 0.3] @ np.eye(3, 5)])
    exact, _ = check_against_flow(net, x)
    assert "defined_modulo" not in exact.attrs
    states = dl.exact_flow(net, x, GRID).state
    truth = dl.flow(net, x, (0, 6), GRID, rtol=1e-12).state
    np.testing.assert_allclose(states, truth, rtol=0, atol=1e-8)


def test_long_times_and_singular_targets_are_fine():
    net = dl.LinearNetwork(widths=(3, 4, 2), target=[[3.0, 0, 0], [0, 0.01, 0]])
    x = net.initial("balanced", scale=1e-3, rng=0)
    run = dl.exact_flow(net, x, [0.0, 10.0, 1e3, 1e4, 1e6], save=("product",))
    np.testing.assert_allclose(run["product"][-1], net.target, rtol=0, atol=1e-10)
    assert (np.diff(run.loss) <= 1e-12).all()
    zero = dl.LinearNetwork(widths=(2, 2, 2), target=np.zeros((2, 2)))
    start = zero.initial("balanced", scale=1.0, rng=0)
    check_against_flow(zero, start)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("start", lambda net: dl.exact_flow(net, net.initial(scale=0.1, rng=0), [1.0])),
        ("start", lambda net: dl.exact_flow(net, np.ones(3), [1.0])),
        ("t_eval", lambda net: dl.exact_flow(net, np.zeros(net.dim), [-1.0])),
        ("t_eval", lambda net: dl.exact_flow(net, np.zeros(net.dim), [1.0, 1.0])),
        ("save", lambda net: dl.exact_flow(net, np.zeros(net.dim), [1.0], save=("nothing",))),
        ("net", lambda net: dl.exact_flow(3, np.zeros(net.dim), [1.0])),
        ("rtol", lambda net: dl.exact_flow(net, np.zeros(net.dim), [1.0], rtol=1e-8)),
    ],
)
@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 3, 3, 2)])
def test_what_has_no_closed_form_is_refused(name, call, widths):
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        call(naive.random_network(widths, 0))


def test_raw_inputs_have_no_closed_form():
    net = naive.random_network((2, 3, 2), 0, "full")
    with pytest.raises(ValueError, match="^net: needs a whitened network"):
        dl.exact_flow(net, np.zeros(net.dim), [1.0])


@pytest.mark.parametrize("decay", [0.3, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("widths", [(2, 3), (2, 2, 2), (3, 2, 2), (2, 1, 3), (2, 5, 4)])
def test_balanced_layers_that_decay_alike(widths, decay):
    """κ = σ − λ of either sign, or zero: modes are learnt, or die, or fall like 1/(2t)."""
    target = np.diag([2.0, 1.0, 0.5, 0.0])[: widths[-1], : widths[0]]
    net = dl.LinearNetwork(widths, target, weight_decay=decay)
    for x in (net.initial("balanced", scale=0.6, rng=0), net.initial("aligned", scale=0.7)):
        exact = dl.exact_flow(net, x, GRID, save=("product", "state", "data_loss"))
        run = dl.flow(net, x, (0.0, GRID[-1]), GRID, rtol=1e-12, save=("product", "state"))
        for name in ("product", "loss", "data_loss"):
            np.testing.assert_allclose(exact[name], run[name], rtol=0, atol=1e-9)
        if "defined_modulo" not in exact.attrs:
            np.testing.assert_allclose(exact.state, run.state, rtol=0, atol=1e-9)
    assert "defined_modulo" not in exact.attrs
    late = dl.exact_flow(net, x, [1e3, 1e6])
    assert abs(float(late.loss[-1]) - net.lowest_loss) < 1e-6
    assert (late.loss.diff("time") <= 0.0).all()


def test_a_mode_at_the_pitchfork_falls_by_its_law():
    net = dl.LinearNetwork((1, 1, 1), [[2.0]], weight_decay=2.0)
    t = np.array([0.0, 1.0, 1e3, 1e8])
    exact = dl.exact_flow(net, [0.6, 0.6], t, save=("product",))
    law = 0.36 / (1.0 + 0.72 * t)
    near = 1e-12 + 16.0 * np.finfo(float).eps * 4.0 * t  # of an eigenvalue that is zero
    assert (abs(exact["product"].values.ravel() / law - 1.0) < near).all()


def test_without_closed_form_decays_are_refused():
    net = dl.LinearNetwork((2, 2, 2), np.eye(2), weight_decay=0.1)
    other = dl.LinearNetwork((2, 2, 2), np.eye(2), weight_decay=(0.1, 0.2))
    deep = dl.LinearNetwork((2, 2, 2, 2), np.eye(2), weight_decay=0.1)
    for system, x in [
        (net, net.initial(scale=1.0, rng=0)),
        (other, other.initial("aligned", scale=0.5)),
        (deep, deep.initial("aligned", scale=0.5)),
    ]:
        with pytest.raises(ValueError, match="^start: no closed form is known; with weight decay"):
            dl.exact_flow(system, x, GRID)
