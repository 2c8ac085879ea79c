"""Laws of the gradient flow of deep linear networks."""

import itertools

import contracts
import naive
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl

EPS = np.finfo(float).eps


@pytest.mark.parametrize("kind", naive.KINDS)
@pytest.mark.parametrize("widths", [(3, 2), (2, 3, 2), (4, 2, 3, 3), (1, 1, 1, 1), (2, 3, 1, 3, 2)])
def test_network_keeps_the_contract_of_systems(widths, kind):
    net = naive.random_network(widths, 7, kind)
    contracts.check_system(net, naive.state_of(net, 8, 0.7))


@given(naive.networks, naive.seeds)
def test_loss_and_product_are_their_definitions(net, seed):
    x = naive.state_of(net, seed)
    W = naive.chain(naive.split(net, x), 1, net.depth, net.widths[0])
    np.testing.assert_allclose(net.product(x), W, rtol=0, atol=1e-12 * (1 + np.abs(W).max()))
    assert net.loss(x) == pytest.approx(naive.loss(net, x), rel=1e-12)
    stack = np.stack([x, 0 * x, -x])
    np.testing.assert_allclose(net.loss(stack), [net.loss(y) for y in stack], rtol=1e-13)
    assert np.shares_memory(net.pack(net.unpack(x)), x) is False
    np.testing.assert_array_equal(net.pack(net.unpack(x)), x)


@given(naive.networks, naive.seeds)
def test_imbalance_is_conserved_to_first_order_and_exactly_along_the_field(net, seed):
    """dC_i/dt = Ẇ_i W_iᵀ + W_i Ẇ_iᵀ − (…)_{i+1} vanishes at every state."""
    x = naive.state_of(net, seed)
    layers, velocity = naive.split(net, x), naive.split(net, -net.gradient(x))
    for i in range(net.depth - 1):
        rate = velocity[i] @ layers[i].T + layers[i] @ velocity[i].T
        rate -= velocity[i + 1].T @ layers[i + 1] + layers[i + 1].T @ velocity[i + 1]
        assert np.abs(rate).max() <= 1e-12 * (1 + np.abs(velocity[i]).max() * np.abs(x).max())


@given(naive.whitened_networks, naive.seeds)
def test_conserved_is_the_hidden_diagonal_of_the_commutator(net, seed):
    """C_i are the hidden diagonal blocks of [A, Aᵀ] (WA25)."""
    x = naive.state_of(net, seed)
    A = net.adjacency(x)
    commutator, ends = A @ A.T - A.T @ A, np.cumsum((0, *net.widths))
    blocks = [commutator[a:b, a:b].ravel() for a, b in itertools.pairwise(ends[1:-1])]
    expected = np.concatenate([np.zeros(0), *blocks])
    np.testing.assert_allclose(
        net.conserved(x), expected, rtol=0, atol=1e-12 * (1 + np.abs(x).max() ** 2)
    )


@given(naive.networks, naive.seeds)
def test_the_adjacency_matrix_has_its_powers_and_its_flow(net, seed):
    x = naive.state_of(net, seed)
    A = net.adjacency(x)
    np.testing.assert_array_equal(net.from_adjacency(A), x)
    powers = net.adjacency_powers(x)
    for k in range(net.depth + 2):
        expected = np.linalg.matrix_power(A, k)
        np.testing.assert_allclose(
            powers[k], expected, rtol=0, atol=1e-11 * (1 + np.abs(expected).max())
        )
    rate = net.adjacency_field(x)
    expected = net.adjacency(naive.field(net, x))
    np.testing.assert_allclose(rate, expected, rtol=0, atol=1e-11 * (1 + np.abs(expected).max()))


def test_other_losses_have_the_flow_of_the_adjacency_matrix():
    X, labels = np.random.default_rng(0).normal(size=(3, 8)), np.arange(8) % 2
    net = dl.LossNetwork((3, 4, 3, 2), dl.losses.cross_entropy(X, labels))
    x = net.initial(scale=0.5, rng=0)
    np.testing.assert_allclose(net.adjacency_field(x), net.adjacency(-net.gradient(x)), atol=1e-14)


def test_matrices_with_other_blocks_are_no_adjacency_matrices():
    net = dl.LinearNetwork(widths=(2, 3, 2), target=np.eye(2))
    A = net.adjacency(np.ones(net.dim))
    for place in ((0, 0), (0, 4), (6, 0)):
        other = A.copy()
        other[place] = 1e-3
        with pytest.raises(ValueError, match="^A: needs zeros outside the 2 blocks"):
            net.from_adjacency(other)
    with pytest.raises(ValueError, match="^A: needs a shape"):
        net.from_adjacency(A[1:, 1:])


@given(naive.whitened_networks, naive.seeds)
def test_adjacency_matrix_is_nilpotent_with_the_product_in_its_corner(net, seed):
    x = naive.state_of(net, seed)
    power = np.linalg.matrix_power(net.adjacency(x), net.depth)
    np.testing.assert_allclose(
        power[-net.widths[-1] :, : net.widths[0]],
        net.product(x),
        rtol=0,
        atol=1e-11 * (1 + np.abs(power).max()),
    )
    assert not (power @ net.adjacency(x)).any()


@given(naive.networks, naive.seeds)
def test_flow_commutes_with_orthogonal_changes_of_the_hidden_units(net, seed):
    rng = np.random.default_rng(seed)
    x = naive.state_of(net, seed)
    inner = [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in net.widths[1:-1]]
    frames = [np.eye(net.widths[0]), *inner, np.eye(net.widths[-1])]

    def turn(state):
        layers = naive.split(net, state)
        return net.pack([frames[i + 1] @ w @ frames[i].T for i, w in enumerate(layers)])

    expected = turn(net.gradient(x))
    np.testing.assert_allclose(
        net.gradient(turn(x)), expected, rtol=0, atol=1e-11 * (1 + np.abs(expected).max())
    )


@given(naive.whitened_networks, naive.seeds)
def test_lower_bound_on_the_gradient(net, seed):
    """‖∇L‖² ≥ 2L Σ_i σ_min²(W_{i+1:h}) σ_min²(W_{1:i−1}) for whitened problems."""
    x, h = naive.state_of(net, seed), net.depth
    layers = naive.split(net, x)

    def least(matrix, count):
        values = np.linalg.svd(matrix, compute_uv=False)
        return values[count - 1] if len(values) >= count else 0.0

    bound = sum(
        least(naive.chain(layers, i + 1, h, net.widths[i]), net.widths[-1]) ** 2
        * least(naive.chain(layers, 1, i - 1, net.widths[0]), net.widths[0]) ** 2
        for i in range(1, h + 1)
    )
    norm = np.sum(net.gradient(x) ** 2)
    assert norm >= 2 * net.loss(x) * bound * (1 - 1e-10)


widths_and_kind = st.tuples(
    naive.widths, st.sampled_from(["balanced", "delta_balanced", "aligned"])
)


@given(widths_and_kind, naive.seeds)
def test_named_starts_have_the_imbalance_they_promise(case, seed):
    widths, kind = case
    net = naive.random_network(widths, seed)
    if net.depth == 1 and kind == "delta_balanced":
        return
    delta = 0.04 if kind == "delta_balanced" else None
    x = net.initial(kind, scale=0.3, delta=delta, rng=seed)
    imbalance = max([np.linalg.norm(c) for c in net.imbalances(x)], default=0.0)
    size = 1.0 + np.abs(x).max() ** 2
    assert abs(imbalance - (delta or 0.0)) < 1e-12 * size
    np.testing.assert_array_equal(x, net.initial(kind, scale=0.3, delta=delta, rng=seed))


@given(naive.widths, naive.seeds)
def test_aligned_start_has_its_modes_in_the_singular_basis(widths, seed):
    net = naive.random_network(widths, seed)
    sizes = 0.1 + np.arange(min(widths)) * 0.05
    x = net.initial("aligned", scale=sizes)
    U, _, V = net.singular_modes
    strength = U.T @ net.product(x) @ V
    expected = np.zeros_like(strength)
    np.fill_diagonal(expected[: len(sizes), : len(sizes)], sizes**net.depth)
    np.testing.assert_allclose(strength, expected, rtol=0, atol=1e-14)
    for w in net.unpack(x):
        np.testing.assert_allclose(
            np.linalg.svd(w, compute_uv=False)[: len(sizes)], sizes[::-1], rtol=1e-12
        )


@pytest.mark.parametrize("delta", [0.0, 1e-30, 1e-6, 1.0, 1e100])
def test_any_delta_above_rounding_is_met(delta):
    net = naive.random_network((3, 3, 4, 3), 0)
    x = net.initial("delta_balanced", scale=min(1e-3, 1e3 * np.sqrt(delta)), delta=delta, rng=1)
    imbalance = max(np.linalg.norm(c) for c in net.imbalances(x))
    assert imbalance == pytest.approx(delta, rel=1e-12, abs=64 * EPS * np.sum(x**2))


def test_large_aligned_starts_do_not_overflow():
    net = naive.random_network((2, 2, 2, 2), 0)
    assert np.isfinite(net.initial("aligned", scale=1e200)).all()


def test_gaussian_start_draws_the_layers_in_order():
    net = naive.random_network((3, 4, 2), 0)
    rng = np.random.default_rng(5)
    expected = [0.2 * rng.normal(size=(4, 3)), 0.2 * rng.normal(size=(2, 4))]
    np.testing.assert_array_equal(net.initial(scale=0.2, rng=5), net.pack(expected))
    np.testing.assert_array_equal(
        net.initial(scale=0.2, rng=np.random.default_rng(5)), net.pack(expected)
    )


@pytest.mark.parametrize("samples", [2, 5, 50])
@pytest.mark.parametrize("normalize", [True, False])
def test_data_give_the_loss_on_the_samples(samples, normalize):
    """L + irreducible loss = ½‖Y − W X‖², also with fewer samples than inputs."""
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(4, samples)) * [[1], [5], [0.1], [2]], rng.normal(size=(3, samples))
    for whiten in (True, False):
        net = dl.LinearNetwork.from_data(X, Y, (6,), whiten=whiten, normalize=normalize)
        x = naive.state_of(net, 2)
        W = net.unwhiten(net.product(x)) if whiten else net.product(x)
        expected = 0.5 * np.sum((Y - W @ X) ** 2) / (samples if normalize else 1)
        assert net.loss(x) + net.irreducible_loss == pytest.approx(expected, rel=1e-11)
        assert net.whitened == whiten
        assert net.widths[0] == (min(4, samples) if whiten else 4)


def test_whitening_with_a_full_covariance_is_symmetric():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3, 40)), rng.normal(size=(2, 40))
    net = dl.LinearNetwork.from_data(X, Y, (3,))
    C = X @ X.T / 40
    w, U = np.linalg.eigh(C)
    np.testing.assert_allclose(net.whitening, (U * np.sqrt(w)) @ U.T, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        net.target, Y @ X.T / 40 @ (U / np.sqrt(w)) @ U.T, rtol=0, atol=1e-13
    )


def test_moments_and_data_give_the_same_problem():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3, 40)), rng.normal(size=(2, 40))
    X = np.vstack([X, X[0] + X[1]])
    from_data = dl.LinearNetwork.from_data(X, Y, (3,), whiten=False)
    from_moments = dl.LinearNetwork.from_moments(Y @ X.T / 40, X @ X.T / 40, (3,))
    x = naive.state_of(from_data, 1)
    np.testing.assert_allclose(from_moments.gradient(x), from_data.gradient(x), rtol=0, atol=1e-11)
    np.testing.assert_allclose(from_moments.singular_values, from_data.singular_values, atol=1e-12)
    assert from_data.target.shape == (2, 3)
    assert np.isnan(from_moments.irreducible_loss)


def test_labelled_data_are_transposed():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3, 10)), rng.normal(size=(2, 10))
    plain = dl.LinearNetwork.from_data(X, Y, (3,))
    labelled = dl.LinearNetwork.from_data(
        xr.DataArray(X.T, dims=("sample", "feature")),
        xr.DataArray(Y, dims=("feature", "sample")),
        (3,),
    )
    assert plain.digest == labelled.digest


def test_networks_are_frozen_and_keep_their_own_numbers():
    target = np.eye(2)
    net = dl.LinearNetwork(widths=(2, 2), target=target)
    digest, target[0, 0] = net.digest, 5.0
    assert net.target[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        net.target[0, 0] = 2.0
    with pytest.raises(AttributeError):
        net.widths = (3, 3)
    with pytest.raises(ValueError, match="read-only"):
        net.singular_modes[1][0] = 7.0
    net.singular_values[0] = net.params[1][0] = 7.0
    assert net.singular_values[0] == 1.0
    assert net.params[1][0] == 1.0
    assert net.digest == digest != dl.LinearNetwork(widths=(2, 2), target=target).digest


@given(naive.networks, naive.seeds)
def test_modes_diagonalize_the_target(net, seed):
    modes = net.modes
    sigma = modes.singular_value.values
    rebuilt = (modes.left.values * sigma) @ modes.right.values.T
    np.testing.assert_allclose(rebuilt, net.target, rtol=0, atol=1e-13 * (1 + sigma[0]))
    assert (np.diff(sigma) <= 0).all()
    dl.schema.validate(modes)


def test_turned_inputs_turn_the_first_layer_of_critical_states_alone():
    """Left singular vectors of Σ and Σ Q are the same, signs included, for each orthogonal Q."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        target, Q = rng.normal(size=(4, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
        plain, turned = (dl.LinearNetwork((3, 3, 3, 4), s) for s in (target, target @ Q))
        for modes in ((0,), (1, 2), (0, 1, 2)):
            layers = naive.split(plain, plain.critical_state(modes))
            others = naive.split(turned, turned.critical_state(modes))
            layers[0] = layers[0] @ Q
            for w, other in zip(layers, others, strict=True):
                np.testing.assert_allclose(w, other, atol=1e-12)


def test_limits_name_the_learnt_modes():
    net = dl.LinearNetwork(widths=(4, 5, 4), target=np.diag([4.0, 3.0, 2.0, 0.0]))
    for modes in [(), (0,), (1, 2), (0, 1, 2)]:
        assert net.limit(net.critical_state(modes)).label == dl.schema.index_set_label(modes)
