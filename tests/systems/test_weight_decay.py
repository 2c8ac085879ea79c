"""Weight decay in time: L + ½ Σ_i λ_i ‖W_i‖² of every network, and what becomes of the C_i."""

import contracts
import naive
import numpy as np
import pytest
import scipy.integrate

import dlnds as dl
from dlnds._kernels import jit

RNG = np.random.default_rng(7)
X, Y, SIGNS = RNG.normal(size=(3, 9)), RNG.normal(size=(2, 9)), RNG.choice([-1, 1], (2, 9))
M, WIDTHS, LAYERWISE = RNG.normal(size=(2, 3)), (3, 4, 2, 2), (0.1, 0.0, 0.5)
MAKE = {
    "linear": lambda **to: dl.LinearNetwork(WIDTHS, M, **to),
    "from outputs": lambda **to: dl.LinearNetwork(WIDTHS[::-1], M.T, **to),
    "specialized": lambda **to: dl.LinearNetwork(WIDTHS, M, **to).specialized(),
    "raw": lambda **to: dl.LinearNetwork.from_data(X, Y, (4, 2), whiten=False, **to),
    "moments": lambda **to: dl.LinearNetwork.from_moments(M, np.cov(X), (4, 2), **to),
    "logistic": lambda **to: dl.LossNetwork(WIDTHS, dl.losses.logistic(X, SIGNS), **to),
    "quartic": lambda **to: dl.LossNetwork(WIDTHS[::-1], dl.losses.power(Y, X), **to),
    "completion": lambda **to: dl.LossNetwork(
        WIDTHS, dl.losses.completion((2, 3), [0, 0, 1], [0, 2, 1], [1.0, -0.5, 2.0]), **to
    ),
    "rectified": lambda **to: dl.HomogeneousNetwork(WIDTHS, X, Y, **to),
    "cubic": lambda **to: dl.HomogeneousNetwork(WIDTHS, X, SIGNS, power=3, loss="logistic", **to),
}


def roots(sigma, decay):
    """The two positive roots of λ = s (σ − s³), the smaller one first."""
    found = np.roots([-1.0, 0.0, 0.0, sigma, -decay])
    return sorted(s.real for s in found if abs(s.imag) < 1e-9 and s.real > 0.0)


def penalty(net, x):
    decays = np.broadcast_to(net.weight_decay, net.depth)
    return 0.5 * sum(c * np.sum(w**2) for c, w in zip(decays, net.unpack(x), strict=True))


@pytest.mark.parametrize("decay", [0.3, LAYERWISE], ids=["equal", "layerwise"])
@pytest.mark.parametrize("name", MAKE)
def test_what_is_added_is_the_penalty_and_its_derivatives(name, decay):
    plain, net = MAKE[name](), MAKE[name](weight_decay=decay)
    x, v = net.initial(scale=0.7, rng=1), np.random.default_rng(2).normal(size=net.dim)
    own = np.concatenate(
        [np.full(w.size, c) for c, w in zip(np.broadcast_to(decay, 3), net.unpack(x), strict=True)]
    )
    near = {"rtol": 1e-14, "atol": 1e-14}
    np.testing.assert_allclose(net.loss(x), plain.loss(x) + penalty(net, x), **near)
    assert net.data_loss(x) == plain.loss(x)
    np.testing.assert_allclose(net.gradient(x), plain.gradient(x) + own * x, **near)
    np.testing.assert_allclose(net.hessian(x), plain.hessian(x) + np.diag(own), **near)
    np.testing.assert_allclose(
        net.hessian_product(x, v), plain.hessian_product(x, v) + own * v, **near
    )
    slope = (net.loss(x + 1e-6 * v) - net.loss(x - 1e-6 * v)) / 2e-6
    assert abs(slope - net.gradient(x) @ v) < 1e-7 * (1.0 + np.linalg.norm(net.hessian(x)))


def test_stacks_of_tangents_decay_too():
    net = MAKE["from outputs"](weight_decay=LAYERWISE)
    x, vectors = net.initial(scale=0.7, rng=1), np.random.default_rng(2).normal(size=(net.dim, 3))
    out, tangent = np.empty_like(vectors), jit.ready(net.numerics.tangent, jit.TANGENT)
    trace = tangent(0.0, x, vectors, net.params, out)
    np.testing.assert_allclose(out, -net.hessian(x) @ vectors, rtol=1e-13, atol=1e-13)
    assert abs(trace + np.trace(net.hessian(x))) < 1e-13


@pytest.mark.parametrize("name", MAKE)
def test_networks_with_weight_decay_are_systems(name):
    net = MAKE[name](weight_decay=0.3)
    contracts.check_system(net, net.initial(scale=0.7, rng=1))


@pytest.mark.parametrize("method", ["dop853", "radau"])
@pytest.mark.parametrize("name", MAKE)
def test_what_the_flow_conserved_decays_by_its_law(name, method):
    net, rate = MAKE[name](weight_decay=0.2), 0.4
    run = dl.flow(
        net, net.initial(scale=0.7, rng=3), (0, 5), save=["conserved"], method=method, rtol=1e-11
    )
    law = run.conserved.values[0] * np.exp(-rate * run.time.values)[:, None]
    assert np.abs(law[0]).max() > 0.1
    assert np.abs(run.conserved.values - law).max() < 1e-9


@pytest.mark.parametrize("decay", [0.5, 2.0, 3.0])
def test_two_balanced_layers_are_logistic_with_what_decay_leaves(decay):
    """ṗ = 2p(κ − p), κ = σ − λ, which may be zero or negative."""
    net, p0, κ = dl.LinearNetwork((1, 1, 1), [[2.0]], weight_decay=decay), 0.1, 2.0 - decay
    t = np.linspace(0.0, 6.0, 13)
    run = dl.flow(net, [p0**0.5] * 2, (0, 6), t_eval=t, save=["product"], rtol=1e-12)
    growth = 2.0 * t if κ == 0.0 else np.expm1(2.0 * κ * t) / κ
    wanted = p0 * np.exp(2.0 * κ * t) / (1.0 + p0 * growth)
    np.testing.assert_allclose(run.product.values.ravel(), wanted, rtol=1e-10)


def test_two_scalar_layers_out_of_balance_follow_their_law():
    """ṗ = (σ − p)√(c² e^{−4λt} + 4p²) − 2λp."""
    sigma, decay, layers = 2.0, 0.3, np.array([0.9, -0.2])
    c = layers[0] ** 2 - layers[1] ** 2
    net, t = dl.LinearNetwork((1, 1, 1), [[sigma]], weight_decay=decay), np.linspace(0, 5, 11)
    run = dl.flow(net, layers, (0, 5), t_eval=t, save=["product"], rtol=1e-12)

    def law(t, p):
        return (sigma - p) * np.sqrt(c**2 * np.exp(-4 * decay * t) + 4 * p**2) - 2 * decay * p

    exact = scipy.integrate.solve_ivp(law, (0, 5), [-0.18], "DOP853", t, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(run.product.values.ravel(), exact.y[0], rtol=1e-9, atol=1e-10)


def test_a_mode_below_the_unstable_root_dies_and_one_above_is_learnt():
    """Of λ = s (σ − s³): below s e^{λt} has a limit, as ∫ s^{h−2} is finite."""
    net, decay = dl.LinearNetwork((1, 1, 1, 1), [[2.0]], weight_decay=0.8), 0.8
    lower, upper = roots(2.0, decay)
    dying = dl.flow(net, [0.99 * lower] * 3, (0, 40), save=["state"], rtol=1e-11)
    s, t = dying.state.values[:, 0], dying.time.values
    scaled = s * np.exp(decay * t)
    late = t > 25.0
    # d ln(s e^{λt})/dt = s (σ − s³), whose integral from then on is less than s σ / λ to s σ / λ.
    left = 2.0 * s[late][0] / decay
    assert s[late][0] < 1e-4
    assert 0.0 < np.log(scaled[-1] / scaled[late][0]) < 1.01 * left
    learnt = dl.flow(net, [1.01 * lower] * 3)
    assert (
        abs(
            float(learnt.singular_value[-1, 0] if "singular_value" in learnt else upper**3)
            - upper**3
        )
        < 1e-9
    )
    assert dl.schema.decode(learnt.limit_kind).item() == "minimum"


def test_runs_end_at_minima_of_the_penalized_loss():
    """Of h = 3: each layer of a mode is at the larger root of λ = s (σ − s³), or zero."""
    sigma, decay = np.array([3.0, 1.0]), 0.4
    net = dl.LinearNetwork((3, 4, 4, 2), np.diag(sigma) @ np.eye(2, 3), weight_decay=decay)
    run = dl.flow(net, net.initial("aligned", scale=0.9), save=["singular_value"])
    top = np.array([roots(s, decay)[1] for s in sigma])
    assert run.dlnds.decode("stop_reason").item() == "limit_reached"
    np.testing.assert_allclose(run.singular_value[-1], top**3, rtol=1e-7)
    value = 0.5 * np.sum((sigma - top**3) ** 2) + 1.5 * decay * np.sum(top**2)
    assert abs(float(run.loss[-1]) - value) < 1e-12
    assert abs(float(run.data_loss[-1]) - 0.5 * np.sum((sigma - top**3) ** 2)) < 1e-7


@pytest.mark.parametrize("decay", [0.3, (0.1, 0.9, 0.2), (0.5, 0.0, 0.2)])
@pytest.mark.parametrize("widths", [(3, 4, 4, 2), (3, 1, 4, 2)])
def test_the_lowest_loss_has_the_penalty_and_no_state_is_below(widths, decay):
    """Runs come to it; with a layer that does not decay it is an infimum, far away."""
    sigma, rng = np.array([3.0, 1.0]), np.random.default_rng(0)
    net = dl.LinearNetwork(widths, np.diag(sigma) @ np.eye(2, 3), weight_decay=decay)
    mean = np.prod(np.broadcast_to(decay, 3)) ** (1.0 / 3.0)
    ends = [
        min(0.5 * s**2, 0.5 * (s - r[-1] ** 3) ** 2 + 1.5 * mean * r[-1] ** 2)
        for s, r in zip(sigma, (roots(s, mean) for s in sigma), strict=True)
    ]
    best = sum(ends) if min(widths) > 1 else ends[0] + 0.5 * sigma[1] ** 2
    assert abs(net.lowest_loss - best) < 1e-12
    assert net.loss(rng.normal(size=(1000, net.dim))).min() > best
    if mean:
        starts = [net.initial(scale=1.0, rng=seed) for seed in range(4)]
        found = [float(dl.flow(net, x, (0.0, 200.0)).loss[-1]) for x in starts]
        assert min(found) > best - 1e-12
        assert min(found) < best + 1e-9
    else:
        W = net.unpack(net.undecayed().critical_state(range(min(2, min(widths)))))
        far = [net.pack([W[0] / t, W[1] * t**2, W[2] / t]) for t in (1e2, 1e4)]
        excess = net.loss(np.stack(far)) - best
        assert 0.0 < excess[1] < 2e-4 * excess[0]


def test_decays_of_layers_are_alike_in_other_units():
    net = MAKE["linear"](weight_decay=(0.1, 0.9, 0.3))
    mean = 0.027 ** (1.0 / 3.0)
    alike, x = MAKE["linear"](weight_decay=mean), net.initial(scale=0.7, rng=1)
    scaled = [w * np.sqrt(c / mean) for c, w in zip((0.1, 0.9, 0.3), net.unpack(x), strict=True)]
    np.testing.assert_allclose(net.loss(x), alike.loss(alike.pack(scaled)), rtol=1e-14)
    assert net.lowest_loss == pytest.approx(alike.lowest_loss, rel=1e-14)
    assert np.isnan(MAKE["raw"](weight_decay=0.1).lowest_loss)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_largest_rank_is_that_of_the_critical_points(depth):
    sigma = np.array([3.0, 2.0, 0.5])
    for decay in (0.01, 0.4, 1.0, 1.5, 4.0):
        net = dl.LinearNetwork((3,) * (depth + 1), np.diag(sigma), weight_decay=decay)
        assert net.max_rank == int(dl.critical_points(net)["rank"].max())
        bounds = (0.1, 4.0)  # whatever the decay of the network
        plain = dl.decay_diagram(net.undecayed(), bounds, n_points=3)
        assert dl.decay_diagram(net, bounds, n_points=3).loss.equals(plain.loss)


def test_runs_under_decay_end_at_index_sets_with_roots():
    """Near the fold a mode is learnt by a quarter; below the smaller root it is not."""
    sigma, decay = 2.0, 1.18
    net = dl.LinearNetwork((1, 1, 1, 1), [[sigma]], weight_decay=decay)
    lower, upper = roots(sigma, decay)
    assert upper**3 < 0.35 * sigma
    assert dl.flow(net, [1.05 * lower] * 3, (0.0, 0.1)).limit == "{0⁺}"
    assert dl.flow(net, [0.95 * lower] * 3, (0.0, 0.1)).limit == "{}"
    assert dl.flow(net, [1.05 * lower] * 3).limit == "{0⁺}"
    assert dl.flow(net, [lower] * 3, (0.0, 1e-3)).limit == "{0⁻}"
    two = dl.LinearNetwork((1, 1, 1), [[sigma]], weight_decay=1.5)
    assert dl.flow(two, [0.3, 0.3]).limit == "{0}"
    both = dl.LinearNetwork((1, 1, 1), [[sigma]], weight_decay=(1.0, 2.25))
    assert dl.flow(both, [0.3, 0.3]).limit == "{0}"


@pytest.mark.parametrize("name", ["linear", "raw", "logistic", "cubic"])
def test_losses_of_training_may_lack_the_penalty(name):
    net = MAKE[name](weight_decay=0.3)
    run = dl.flow(net, net.initial(scale=0.5, rng=0), (0.0, 2.0))
    layers = [net.unpack(x) for x in run.state.values]
    rest = getattr(net, "irreducible_loss", 0.0)
    recorded = {"loss": run.loss, "data_loss": run.data_loss}
    if name == "raw":
        recorded["1 (data_loss + irreducible_loss)"] = run.data_loss + rest  # of two outputs, twice
        recorded = {k.replace("1 (", "").strip(")"): v for k, v in recorded.items()}
        recorded["2 data_loss"] = 2.0 * run.data_loss
    for words, values in recorded.items():
        found = dl.as_run(net, run.time, layers, loss=values)
        assert found.attrs["recorded_loss"] == words
        np.testing.assert_allclose(found.loss, run.loss, rtol=1e-12)
    with pytest.raises(ValueError, match="^loss: is not that of the weights"):
        dl.as_run(net, run.time, layers, loss=1.7 * run.data_loss)


@pytest.mark.parametrize("name", MAKE)
def test_no_decay_changes_no_bit(name):
    plain, net = MAKE[name](), MAKE[name](weight_decay=(0.0, 0.0, 0.0))
    x = plain.initial(scale=0.3, rng=0)
    assert net.weight_decay == 0.0
    assert net.digest == plain.digest
    assert net.field is plain.field
    first, second = (dl.flow(one, x, (0, 3), save=["state"]) for one in (plain, net))
    assert first.identical(second)
    assert "data_loss" not in first


def test_descent_takes_steps_of_the_penalized_gradient():
    net = MAKE["linear"](weight_decay=LAYERWISE)
    x, size = net.initial(scale=0.5, rng=0), 0.1
    steps = dl.iterate(dl.GradientDescent(net, size), x, n_steps=3, save=["state"])
    for k in range(3):
        layers, forces = net.unpack(x), net.unpack(naive.field(net, x))
        x = net.pack(
            [w + size * (f - c * w) for w, f, c in zip(layers, forces, LAYERWISE, strict=True)]
        )
        np.testing.assert_allclose(steps.state.values[k + 1], x, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", MAKE)
def test_stored_runs_know_their_decay(name):
    net = MAKE[name](weight_decay=LAYERWISE)
    again = dl.load_system(dl.flow(net, net.initial(scale=0.3, rng=0), (0, 1)))
    assert (again.weight_decay, again.digest) == (LAYERWISE, net.digest)
    assert net.digest != MAKE[name]().digest


def test_equilibria_vary_the_decay_from_nothing():
    net, plain = MAKE["linear"](weight_decay=0.7), MAKE["linear"]()
    x = net.initial(scale=0.5, rng=0)
    one, two = (dl.equilibria(system, vary="weight_decay") for system in (net, plain))
    np.testing.assert_array_equal(one.value(x, 0.3), two.value(x, 0.3))
    own = dl.equilibria(dl.GradientDescent(net, 0.1), vary="step_size")
    np.testing.assert_allclose(own.value(x, 0.1), -0.1 * net.gradient(x), rtol=1e-13)


REFUSING = {
    "escape_directions": lambda net, x: dl.escape_directions(net),
    "escape_time": lambda net, x: dl.escape_time(net, x, 0.1),
    "ProductFlow": lambda net, x: dl.ProductFlow(net, 1),
    "target": lambda net, x: dl.equilibria(net, vary="target", path=(M, 2.0 * M)),
    "build_atlas": lambda net, x: dl.build_atlas(net),
    "connections": lambda net, x: dl.connections(net),
    "canonicalize": lambda net, x: dl.canonicalize(net, x),
    "orbit_distance": lambda net, x: dl.orbit_distance(net, x, x),
    "canonical_spectrum": lambda net, x: dl.canonical_spectrum(net, (0,)),
    "learning_coefficient": lambda net, x: dl.learning_coefficient(net),
    "random_fiber_state": lambda net, x: dl.random_fiber_state(net, (0,)),
    "fiber_dimension": lambda net, x: dl.fiber_dimension(net, x),
    "critical_arcs": lambda net, x: dl.critical_arcs(net, x),
    "early_stopping": lambda net, x: dl.early_stopping(net, M, strength=0.1),
}


@pytest.mark.parametrize("name", REFUSING)
def test_what_rests_on_the_landscape_without_decay_refuses_it(name):
    net = MAKE["linear"](weight_decay=0.1)
    with pytest.raises(ValueError, match=r"^\w+: needs a network without weight decay"):
        REFUSING[name](net, net.initial(scale=0.5, rng=0))


@pytest.mark.parametrize(
    ("decay", "words"),
    [
        (-0.1, "weight_decay: needs at least 0, got -0.1"),
        ((0.1, -0.1, 0.2), "weight_decay: needs at least 0, got -0.1"),
        ((0.1, 0.2), "weight_decay: needs one number or one for each of 3 layers"),
        (np.nan, "weight_decay: "),
        ("much", "weight_decay: "),
    ],
)
@pytest.mark.parametrize("name", MAKE)
def test_other_decays_are_refused(name, decay, words):
    with pytest.raises((ValueError, TypeError), match=f"^{words}"):
        MAKE[name](weight_decay=decay)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_states_at_folds_of_small_modes_are_those_that_are_listed(depth):
    """Small σ_j of turned targets are known to rounding of the largest one."""
    rng = np.random.default_rng(depth)
    for large in 10.0 ** rng.uniform(4, 7, size=12):
        left, right = (np.linalg.qr(rng.normal(size=(2, 2)))[0] for _ in range(2))
        small = rng.uniform(0.5, 3.0)
        # The two roots of λ s = s^(h−1) (σ − s^h) are one where its largest λ is.
        size = ((depth - 2) * small / (2 * depth - 2)) ** (1 / depth)
        decay = size ** (depth - 2) * (small - size**depth)
        target = left @ np.diag([large, small]) @ right
        net = dl.LinearNetwork((2,) * (depth + 1), target, weight_decay=decay)
        listed = [
            dl.schema.index_set_modes(n) for n in dl.critical_points(net).critical_point.values
        ]
        assert {1} in map(set, listed)
        for modes in listed:
            x = net.critical_state(modes)
            assert np.linalg.norm(net.gradient(x)) <= 1e-7 * large


@pytest.mark.parametrize("widths", [(2, 2), (2, 3, 2), (2, 2, 2, 2)])
def test_of_a_zero_target_nothing_is_left(widths):
    net = dl.LinearNetwork(widths, np.zeros((2, 2)), weight_decay=0.1)
    run = dl.flow(net, net.initial(scale=0.5, rng=0), (0, 1000))
    assert run.limit == "{}"
    assert np.linalg.norm(run.state[-1]) <= 1e-30
