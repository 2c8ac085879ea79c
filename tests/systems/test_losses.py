"""Losses other than the square one: their derivatives, and the flow of layers under them."""

import contracts
import naive
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl
from dlnds._kernels import jit, linear

EPS = np.finfo(float).eps
CASES = ["logistic", "cross_entropy", "soft", "power 2", "power 3.5", "power 4"]


def make_loss(case, inputs, outputs, samples, seed, normalize=True):
    """A random loss; cross entropy has two classes at least."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(inputs, samples))
    if case == "logistic":
        return dl.losses.logistic(X, rng.choice([-1, 1], (outputs, samples)), normalize=normalize)
    if case == "cross_entropy":
        labels = rng.integers(outputs, size=samples)
        return dl.losses.cross_entropy(X, labels, classes=outputs, normalize=normalize)
    if case == "soft":
        columns = rng.dirichlet(np.ones(outputs), samples).T
        return dl.losses.cross_entropy(X, columns, normalize=normalize)
    Y = rng.normal(size=(outputs, samples))
    return dl.losses.power(X, Y, power=float(case.split()[1]), normalize=normalize)


def make_network(case, widths, samples, seed):
    outputs = max(2, widths[-1]) if case in ("cross_entropy", "soft") else widths[-1]
    loss = make_loss(case, widths[0], outputs, samples, seed)
    return dl.LossNetwork((*widths[:-1], outputs), loss)


def random_state(net, seed, scale=0.7):
    return scale * np.random.default_rng(seed).normal(size=net.dim)


def value(loss, W):
    """The definition, sample by sample and entry by entry."""
    total = 0.0
    for x, y in zip(loss.inputs.T, loss.targets.T, strict=True):
        s = W @ x
        if loss.kind == "logistic":
            total += sum(np.log(1.0 + np.exp(-a * b)) for a, b in zip(y, s, strict=True))
        elif loss.kind == "cross_entropy":
            total -= sum(a * np.log(b) for a, b in zip(y, np.exp(s) / np.exp(s).sum(), strict=True))
        else:
            total += sum(abs(a - b) ** loss.power for a, b in zip(y, s, strict=True)) / loss.power
    return total / (loss.inputs.shape[1] if loss.normalize else 1)


def gradient(loss, W):
    """Row sums over samples of ∂ℓ/∂S xᵀ, from the definition of each loss."""
    S, Y = W @ loss.inputs, loss.targets
    slope = {
        "logistic": lambda: -Y / (1.0 + np.exp(Y * S)),
        "cross_entropy": lambda: np.exp(S) / np.exp(S).sum(axis=0) - Y,
        "power": lambda: np.sign(S - Y) * np.abs(S - Y) ** (loss.power - 1.0),
    }[loss.kind]()
    return slope @ loss.inputs.T / (loss.inputs.shape[1] if loss.normalize else 1)


def field(net, x):
    """Ẇ_i = −W_{i+1:h}ᵀ ∇ℓ(W) W_{1:i−1}ᵀ."""
    layers, h = naive.split(net, x), net.depth
    G = gradient(net.criterion, naive.chain(layers, 1, h, net.widths[0]))
    parts = [
        -naive.chain(layers, i + 1, h, net.widths[i]).T
        @ G
        @ naive.chain(layers, 1, i - 1, net.widths[0]).T
        for i in range(1, h + 1)
    ]
    return np.concatenate([part.ravel() for part in parts])


# One network is computed from its inputs (few samples), the next from its outputs.
widths = st.lists(st.integers(1, 4), min_size=2, max_size=5)
networks = st.builds(
    make_network, st.sampled_from(CASES), widths, st.integers(1, 6), st.integers(0, 2**32 - 2)
)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_value_is_its_definition(case, normalize):
    loss = make_loss(case, 3, 4, 7, 0, normalize)
    maps = np.random.default_rng(1).normal(size=(5, 4, 3))
    expected = [value(loss, W) for W in maps]
    np.testing.assert_allclose(loss.value(maps), expected, rtol=1e-13)
    np.testing.assert_allclose([loss.value(W) for W in maps], expected, rtol=1e-13)
    assert loss.value(maps.reshape(1, 5, 4, 3)).shape == (1, 5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_gradient_is_the_difference_of_values(case, normalize):
    """The fourth-order differences at step 1e-3 are accurate to 1e-12 and rounding over the step.

    With |r|^3.5 the fifth derivative is unbounded near r = 0: there to the step to the power 2.5.
    """
    loss = make_loss(case, 3, 4, 7, 2, normalize)
    W = np.random.default_rng(3).normal(size=(4, 3))
    expected = naive.differences(lambda w: loss.value(w.reshape(4, 3)), W.ravel(), 1e-3)
    size = 1.0 + np.abs(expected).max()
    bound = 1e-7 if case == "power 3.5" else 1e-9
    np.testing.assert_allclose(loss.gradient(W).ravel(), expected, rtol=0, atol=bound * size)
    np.testing.assert_allclose(loss.gradient(W), gradient(loss, W), rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_second_derivative_is_the_difference_of_gradients_and_symmetric(case, normalize):
    loss = make_loss(case, 3, 4, 7, 4, normalize)
    W = np.random.default_rng(5).normal(size=(4, 3))
    expected = naive.differences(lambda w: loss.gradient(w.reshape(4, 3)).ravel(), W.ravel(), 1e-3)
    directions = np.eye(12).reshape(12, 4, 3)
    H = np.stack([loss.second_derivative(W, V).ravel() for V in directions], axis=1)
    size = 1.0 + np.abs(H).max()
    bound = 1e-4 if case == "power 3.5" else 1e-9
    np.testing.assert_allclose(H, expected, rtol=0, atol=bound * size)
    np.testing.assert_allclose(H, H.T, rtol=0, atol=8 * EPS * size)
    assert np.linalg.eigvalsh(H)[0] >= -64 * EPS * size  # all of these losses are convex
    V = np.random.default_rng(6).normal(size=(4, 3))
    np.testing.assert_allclose(
        loss.second_derivative(W, V).ravel(), H @ V.ravel(), rtol=0, atol=1e-14 * size * 12
    )


@pytest.mark.parametrize("margin", [1.0, 30.0, 300.0, 700.0, 1e5])
def test_losses_are_accurate_at_huge_margins(margin):
    """Small ones relative to their own size: log(1 + e^{−z}) = e^{−z} − …, large ones linear."""
    small = np.exp(-margin)
    exact = np.log1p(small), small / (1.0 + small), small / (1.0 + small) ** 2
    logistic = dl.losses.logistic([[1.0]], [1])
    two = dl.losses.cross_entropy([[1.0]], [0], classes=2)
    for loss, right, along in [
        (logistic, [[margin]], [[1.0]]),
        (two, [[margin], [0.0]], [[1.0], [0.0]]),
        (two, [[1e6 + margin], [1e6]], [[1.0], [0.0]]),
    ]:
        right, along = np.array(right), np.array(along)
        near = {"rel": 1e-14, "abs": 1e-320}
        assert loss.value(right) == pytest.approx(exact[0], **near)
        assert loss.gradient(right)[0, 0] == pytest.approx(-exact[1], **near)
        curvature = loss.second_derivative(right, along)
        assert curvature[0, 0] == pytest.approx(exact[2], **near)
        wrong = -right
        assert loss.value(wrong) == pytest.approx(margin + exact[0], rel=1e-14)
        assert loss.gradient(wrong)[0, 0] == pytest.approx(-1.0 / (1.0 + small), rel=1e-14)
    gradient = two.gradient([[margin], [0.0]])
    assert gradient[1, 0] == -gradient[0, 0]


@given(st.integers(0, 2**32 - 1))
def test_a_common_shift_of_all_outputs_leaves_cross_entropy_unchanged(seed):
    rng = np.random.default_rng(seed)
    loss = make_loss("soft", 2, 3, 4, seed)
    W, shift = rng.normal(size=(3, 2)), np.ones((3, 1)) * rng.normal(size=2)
    assert loss.value(W + shift) == pytest.approx(loss.value(W), rel=1e-13)
    assert np.abs(loss.gradient(W).sum(axis=0)).max() < 1e-14
    assert np.abs(loss.second_derivative(W, shift)).max() < 1e-14


def test_numbered_labels_are_columns_with_one_one():
    X = np.random.default_rng(0).normal(size=(2, 4))
    numbered = dl.losses.cross_entropy(X, [2, 0, 1, 2])
    columns = dl.losses.cross_entropy(X, np.eye(3)[[2, 0, 1, 2]].T)
    np.testing.assert_array_equal(numbered.targets, columns.targets)
    assert dl.losses.cross_entropy(X, [0, 0, 0, 0]).shape == (2, 2)
    assert dl.losses.cross_entropy(X, [0, 0, 1, 0], classes=5).shape == (5, 2)


def test_labelled_data_are_transposed():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3, 10)), rng.normal(size=(2, 10))
    plain = dl.losses.power(X, Y)
    labelled = dl.losses.power(
        xr.DataArray(X.T, dims=("sample", "feature")), xr.DataArray(Y.T, dims=("sample", "output"))
    )
    np.testing.assert_array_equal(plain.inputs, labelled.inputs)
    np.testing.assert_array_equal(plain.targets, labelled.targets)
    signs = xr.DataArray(np.sign(Y[0]), dims="sample")
    np.testing.assert_array_equal(
        dl.losses.logistic(X, signs).targets, dl.losses.logistic(X, np.sign(Y[0])).targets
    )


def test_losses_and_networks_are_frozen_and_keep_their_own_numbers():
    X, y = np.eye(2), np.array([1.0, -1.0])
    loss = dl.losses.logistic(X, y)
    net = dl.LossNetwork((2, 3, 1), loss)
    digest, X[0, 0], y[0] = net.digest, 5.0, -1.0
    assert loss.inputs[0, 0] == loss.targets[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        loss.inputs[0, 0] = 2.0
    with pytest.raises(AttributeError):
        loss.kind = "power"
    with pytest.raises(AttributeError):
        net.widths = (2, 1)
    net.params[1][0] = 7.0
    assert net.digest == digest
    others = [
        dl.losses.logistic(np.eye(2), [1, -1], normalize=False),
        dl.losses.power(np.eye(2), [1, -1], power=3.0),
        dl.losses.power(np.eye(2), [1, -1], power=4.0),
    ]
    digests = {dl.LossNetwork((2, 3, 1), other).digest for other in [loss, *others]}
    assert len(digests) == 4


@pytest.mark.parametrize("samples", [2, 9])
@pytest.mark.parametrize("widths", [(3, 2), (2, 3, 3), (3, 2, 4, 2)])
@pytest.mark.parametrize("case", CASES)
def test_network_keeps_the_contract_of_systems(case, widths, samples):
    net = make_network(case, widths, samples, 7)
    contracts.check_system(net, random_state(net, 8))


@given(networks, naive.seeds)
def test_field_is_its_definition(net, seed):
    x = random_state(net, seed)
    expected = field(net, x)
    size = 1.0 + np.abs(expected).max()
    np.testing.assert_allclose(-net.gradient(x), expected, rtol=0, atol=1e-12 * size)
    W = naive.chain(naive.split(net, x), 1, net.depth, net.widths[0])
    assert net.loss(x) == pytest.approx(value(net.criterion, W), rel=1e-12)
    stack = np.stack([x, 0 * x, -x])
    np.testing.assert_allclose(net.loss(stack), [net.loss(y) for y in stack], rtol=1e-13)


@given(networks, naive.seeds)
def test_hessian_is_assembled_as_it_multiplies(net, seed):
    x, v = random_state(net, seed), random_state(net, seed + 1)
    H = net.hessian(x)
    bound = 1e-12 * (1.0 + np.abs(H).max()) * (1.0 + np.abs(v).max()) * net.dim
    np.testing.assert_array_equal(H, H.T)
    np.testing.assert_allclose(H @ v, net.hessian_product(x, v), rtol=0, atol=bound)


@given(networks, naive.seeds)
def test_no_two_sides_of_the_field_disagree(net, seed):
    x, v = random_state(net, seed), random_state(net, seed + 1)
    fields, products = np.empty((2, net.dim)), np.empty((2, net.dim))
    jit.ready(linear.loss_field_from_inputs, jit.FIELD)(0.0, x, net.params, fields[0])
    jit.ready(linear.loss_field_from_outputs, jit.FIELD)(0.0, x, net.params, fields[1])
    jit.ready(linear.loss_jvp_from_inputs, jit.JVP)(0.0, x, v, net.params, products[0])
    jit.ready(linear.loss_jvp_from_outputs, jit.JVP)(0.0, x, v, net.params, products[1])
    for pair in (fields, products):
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-12 * (1 + np.abs(pair).max()))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("samples", [2, 20])
def test_the_second_power_is_the_square_loss(samples, normalize):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3, samples)), rng.normal(size=(2, samples))
    square = dl.LinearNetwork.from_data(X, Y, (4, 3), whiten=False, normalize=normalize)
    net = dl.LossNetwork((3, 4, 3, 2), dl.losses.power(X, Y, power=2.0, normalize=normalize))
    x, v = random_state(net, 1), random_state(net, 2)
    assert net.loss(x) == pytest.approx(square.loss(x) + square.irreducible_loss, rel=1e-12)
    for ours, theirs in [
        (net.gradient(x), square.gradient(x)),
        (net.hessian(x), square.hessian(x)),
        (net.hessian_product(x, v), square.hessian_product(x, v)),
    ]:
        size = np.abs(theirs).max()
        assert size > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13 * size)
    grid = np.linspace(0, 2, 5)
    runs = [dl.flow(system, x, (0, 2), grid, rtol=1e-11).state for system in (net, square)]
    np.testing.assert_allclose(*runs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_imbalance_is_conserved_and_the_loss_falls(case):
    """By theory C_i' = 0 and L' = −‖∇L‖², whatever the loss is."""
    net = make_network(case, (3, 4, 3, 2), 12, 3)
    x = random_state(net, 4)
    rtol = 1e-10
    run = dl.flow(net, x, (0, 5), rtol=rtol, save=("conserved", "gradient_norm", "state"))
    drift = float(np.abs(run.conserved - run.conserved[0]).max())
    assert drift <= rtol * np.sum(x**2)  # the local errors are allowed to add up to this
    assert (np.diff(run.loss) < 0).all()
    norm = float(run.gradient_norm[0])
    down = -net.gradient(x) / norm
    rate = naive.differences(lambda a: net.loss(x + a[0] * down), np.zeros(1), 1e-3)
    assert rate.item() == pytest.approx(-norm, rel=1e-7)
    assert float(np.sum(net.imbalances(x)[0] ** 2)) > 0.1
    dl.schema.validate(run)


@given(networks, naive.seeds)
def test_descent_changes_the_imbalance_by_exactly_the_quadratic_term(net, seed):
    """C_i⁺ − C_i = η² (F_i F_iᵀ − F_{i+1}ᵀ F_{i+1}), F = −∇L."""
    eta, x = 0.3, random_state(net, seed)
    steps = dl.iterate(dl.GradientDescent(net, step_size=eta), x, 1)
    F = field(net, x)
    size = 1.0 + max(np.abs(F).max(), np.abs(x).max())
    np.testing.assert_allclose(steps.state[1], x + eta * F, rtol=0, atol=1e-12 * size)
    parts = naive.split(net, F)
    changes = zip(net.imbalances(x), net.imbalances(steps.state.values[1]), strict=True)
    for i, (before, after) in enumerate(changes):
        drift = eta**2 * (parts[i] @ parts[i].T - parts[i + 1].T @ parts[i + 1])
        np.testing.assert_allclose(after - before, drift, rtol=0, atol=1e-11 * size**2)


@pytest.mark.parametrize("kind", ["logistic", "cross_entropy"])
def test_separable_data_are_learnt_by_growing_without_end(kind):
    """The loss tends to 0 and W grows; its direction turns to that of the largest margin.

    That is the first axis here: the points y x, (1, 2) and (1, −1/2), have (1, 0) as the shortest
    vector of their convex hull.
    """
    X = np.array([[1.0, 1.0, -1.0, -1.0], [2.0, -0.5, 0.5, -2.0]])
    y = np.array([1, 1, -1, -1])
    if kind == "logistic":
        net = dl.LossNetwork((2, 3, 3, 1), dl.losses.logistic(X, y))
    else:
        net = dl.LossNetwork((2, 3, 3, 2), dl.losses.cross_entropy(X, (1 - y) // 2))
    start = net.initial("balanced", scale=0.5, rng=1)
    times = np.array([0, 10, 100, 1e3, 1e4, 1e5])
    run = dl.flow(net, start, (0, 1e5), times, save=("product", "singular_value"))
    loss, W = run.loss.values, run["product"].values
    direction = W[:, 0] if kind == "logistic" else W[:, 0] - W[:, 1]
    assert (np.diff(loss) < 0).all()
    assert loss[0] > 0.1
    assert loss[-1] < 1e-4
    margin = (direction @ (y * X)).min(axis=-1)
    assert (np.diff(np.linalg.norm(direction, axis=-1)[1:]) > 1.0).all()
    cosine = direction[:, 0] / np.linalg.norm(direction, axis=-1)
    assert (margin[2:] > 0).all()
    assert (np.diff(cosine[2:]) > 0).all()
    assert 0.9 < cosine[-1] < 1.0
    assert run.singular_value[-1, 0] > 5.0


def test_a_fourth_power_is_fitted_algebraically():
    """One weight: r' = −r³, so r(t) = r_0/√(1 + 2 r_0² t)."""
    net = dl.LossNetwork((1, 1), dl.losses.power([[1.0]], [[2.0]], power=4.0))
    times = np.array([0.0, 1.0, 100.0, 1e6])
    run = dl.flow(net, [0.0], (0, 1e6), times, rtol=1e-11)
    np.testing.assert_allclose(2.0 - run.state[:, 0], 2.0 / np.sqrt(1 + 8.0 * times), rtol=1e-8)


def test_named_starts_have_the_imbalance_they_promise():
    net = make_network("logistic", (3, 4, 3, 2), 5, 0)
    assert net.initial(scale=0.1, rng=0).std() == pytest.approx(0.1, rel=0.3)
    for kind, delta in [("balanced", None), ("delta_balanced", 0.04)]:
        x = net.initial(kind, scale=0.3, delta=delta, rng=1)
        largest = max(np.linalg.norm(c) for c in net.imbalances(x))
        assert abs(largest - (delta or 0.0)) < 1e-14 * (1 + np.sum(x**2))


def test_runs_can_be_saved_with_what_they_record(tmp_path):
    net = make_network("power 3.5", (3, 4, 2), 5, 0)
    names = ("state", "product", "singular_value", "imbalance", "conserved", "gradient_norm")
    run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 1), save=names)
    assert {*names, "loss"} <= set(run.data_vars)
    attrs = {key: run.attrs[key] for key in ("system", "criterion", "power", "normalization")}
    assert attrs == {
        "system": "LossNetwork",
        "criterion": "power",
        "power": 3.5,
        "normalization": "loss divided by the number of samples",
    }
    assert run.widths.tolist() == [3, 4, 2]
    dl.save(run, tmp_path / "run.nc")
    assert dl.load(tmp_path / "run.nc").identical(run)
    assert repr(net) == "LossNetwork(3 -> 4 -> 2, power)"
    assert repr(net.criterion) == "Loss(power, 5 samples, 3 -> 2)"


def test_a_minimum_of_the_logistic_loss_has_no_falling_direction():
    """At a minimum with both labels at one input, W = 0 there, the index is zero."""
    net = dl.LossNetwork((1, 2, 1), dl.losses.logistic([[1.0, 1.0]], [1, -1]))
    x = net.pack([[[1.0], [0.0]], [[0.0, 1.0]]])
    assert np.abs(net.gradient(x)).max() == 0.0
    spectrum = dl.linearize(net, x)
    assert int(spectrum["index"]) == 0
    # W = a·b, D = (b, a): ℓ'' = 1/4 and ‖D‖² = 2.
    np.testing.assert_allclose(spectrum.eigenvalue, [0, 0, 0, 0.5], rtol=0, atol=1e-15)


X, SIGNS, EYE = np.array([[1.0, 2.0, 3.0]]), [1, -1, 1], np.eye(3)
NET = dl.LossNetwork((1, 2, 1), dl.losses.logistic(X, SIGNS))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("X", lambda: dl.losses.logistic(0 * X, SIGNS)),
        ("X", lambda: dl.losses.logistic(X * np.nan, SIGNS)),
        ("X", lambda: dl.losses.logistic(X[0], SIGNS)),
        ("y", lambda: dl.losses.logistic(X, [0, 1, 1])),
        ("y", lambda: dl.losses.logistic(X, [1, -1])),
        ("y", lambda: dl.losses.logistic(X, ["a", "b", "c"])),
        ("y", lambda: dl.losses.logistic(X, np.ones((1, 1, 3)))),
        ("normalise", lambda: dl.losses.logistic(X, SIGNS, normalise=True)),
        ("normalize", lambda: dl.losses.logistic(X, SIGNS, normalize=1)),
        ("labels", lambda: dl.losses.cross_entropy(X, [0, 1, -1])),
        ("labels", lambda: dl.losses.cross_entropy(X, [0, 1, 0.5])),
        ("labels", lambda: dl.losses.cross_entropy(X, [0, 1])),
        ("labels", lambda: dl.losses.cross_entropy(X, 2 * EYE)),
        ("labels", lambda: dl.losses.cross_entropy(X, [[1, 1, 2], [0, 0, -1]])),
        ("labels", lambda: dl.losses.cross_entropy(X, np.ones((1, 3)))),
        ("classes", lambda: dl.losses.cross_entropy(X, [0, 1, 2], classes=2)),
        ("classes", lambda: dl.losses.cross_entropy(X, [0, 0, 0], classes=1)),
        ("classes", lambda: dl.losses.cross_entropy(X, EYE, classes=3)),
        ("class_count", lambda: dl.losses.cross_entropy(X, EYE, class_count=3)),
        ("power", lambda: dl.losses.power(X, SIGNS, power=1.5)),
        ("power", lambda: dl.losses.power(X, SIGNS, power=np.inf)),
        ("Y", lambda: dl.losses.power(X, np.eye(2))),
        ("kind", lambda: dl.losses.Loss("hinge", X, [SIGNS])),
        ("kinds", lambda: dl.losses.Loss(kinds="power", inputs=X, targets=[SIGNS])),
        ("targets", lambda: dl.losses.Loss("power", X, [[1.0]])),
        ("W", lambda: NET.criterion.value([[1.0, 2.0]])),
        ("W", lambda: NET.criterion.gradient([[np.nan]])),
        ("W", lambda: NET.criterion.gradient([[[1.0]]])),
        ("V", lambda: NET.criterion.second_derivative([[1.0]], [1.0])),
        ("widths", lambda: dl.LossNetwork((2, 1), NET.criterion)),
        ("widths", lambda: dl.LossNetwork((1, 2), NET.criterion)),
        ("widths", lambda: dl.LossNetwork((1,), NET.criterion)),
        ("widths", lambda: dl.LossNetwork((1, 0, 1), NET.criterion)),
        ("criterion", lambda: dl.LossNetwork((1, 1), "logistic")),
        ("criterium", lambda: dl.LossNetwork((1, 1), criterium=NET.criterion)),
        ("kind", lambda: NET.initial("aligned")),
        ("x", lambda: NET.loss([1.0])),
        ("x", lambda: NET.gradient(np.full(NET.dim, np.nan))),
        ("save", lambda: dl.flow(NET, NET.initial(rng=0), (0, 1), save=("mode_strength",))),
        ("net", lambda: dl.critical_points(NET)),
        ("net", lambda: dl.canonical_spectrum(NET, (0,))),
        ("net", lambda: dl.exact_flow(NET, NET.initial(rng=0), [0.0, 1.0])),
        ("net", lambda: dl.saddle_visits(NET, dl.flow(NET, NET.initial(rng=0), (0, 1)))),
        ("net", lambda: dl.build_atlas(NET)),
    ],
)
def test_bad_input_is_refused(name, call):
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        call()


def undecided(kind, X):
    """Return the samples of a loss that has a minimum: each with all labels that there are."""
    count = 2 if kind == "logistic" else 3
    labels = np.repeat([1, -1] if count == 2 else [0, 1, 2], X.shape[1])
    return np.tile(X, count), labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["logistic", "cross_entropy"])
def test_a_loss_recedes_where_a_sample_has_a_direction_of_its_own(kind, seed):
    """Samples with all labels hold the map in their span: one more inside it changes nothing."""
    rng = np.random.default_rng(seed)
    make, X = getattr(dl.losses, kind), rng.normal(size=(4, 3)) * 10.0 ** rng.uniform(-9, 9, 3)
    samples, labels = undecided(kind, X)
    inside, outside = X @ rng.normal(size=3), rng.normal(size=4) * 10.0 ** rng.uniform(-9, 9)
    for extra, recedes in [(inside, False), (outside, True), (0.0 * inside, False)]:
        loss = make(np.c_[samples, extra], np.r_[labels, 1])
        assert loss.recedes(loss.inputs) is recedes
    loss = dl.losses.power(X, X[:2])
    assert not loss.recedes(loss.inputs)


@pytest.mark.parametrize("gap", [1e-3, -1e-3])
def test_a_loss_recedes_if_a_map_fits_all_labels(gap):
    """The convex hulls of two pairs of points on a line part by a gap, or overlap by one."""
    X = np.array([[gap, 1.0, -gap, -1.0], [1.0, 1.0, 1.0, 1.0]])
    loss = dl.losses.logistic(X, [1, 1, -1, -1])
    assert loss.recedes(loss.inputs) is (gap > 0.0)
    classes = dl.losses.cross_entropy(X, [0, 0, 1, 1])
    assert classes.recedes(classes.inputs) is (gap > 0.0)
