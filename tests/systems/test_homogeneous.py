import itertools

import contracts
import naive
import numpy as np
import pytest
import scipy.optimize
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl


def data(widths, seed, samples=7, loss="square"):
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(widths[0], samples)), rng.normal(size=(widths[-1], samples))
    return X, np.sign(Y) if loss == "logistic" else Y


def random_network(widths, seed=0, activation=(2, 0.0), loss="square", normalize=True):
    power, slope = activation
    return dl.HomogeneousNetwork(
        widths,
        *data(widths, seed, loss=loss),
        power=power,
        slope=slope,
        loss=loss,
        normalize=normalize,
    )


def smooth_state(net, seed, scale=0.6, step=2e-4):
    """A random state where no unit meets its kink as weights change by ``step`` each."""
    for number in range(1000):
        x = scale * np.random.default_rng((seed, number)).normal(size=net.dim)
        values = net.criterion.inputs
        change, clear = np.zeros_like(values), True
        for w in naive.split(net, x)[:-1]:
            z = w @ values
            moved = np.abs(w) @ change + step * np.sum(np.abs(values) + change, axis=0)
            clear = clear and not ((np.abs(z) <= moved) & (moved > 0.0)).any()
            values = naive.rectified(z, net.power, net.slope)
            ends = [naive.rectified(z + d, net.power, net.slope) for d in (-moved, moved)]
            change = np.max(np.abs(np.array(ends) - values), axis=0)
        if clear:
            return x
    raise AssertionError("no such state")


ACTIVATIONS = ((2, 0.0), (2, 0.3), (3, 0.0), (3, -0.5), (4, 1.0), (1, 1.0))
networks = st.builds(
    random_network,
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.integers(0, 2**32 - 1),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(["square", "logistic"]),
    st.booleans(),
)


@given(networks)
def test_outputs_and_loss_are_those_of_the_definition(net):
    x, loss = naive.state_of(net, 1, 0.7), net.criterion
    expected = naive.homogeneous_outputs(net, x, loss.inputs)
    np.testing.assert_allclose(net.outputs(x), expected, rtol=1e-12, atol=1e-12)
    kind = "logistic" if loss.kind == "logistic" else "square"
    value = naive.homogeneous_loss(net, x, loss.inputs, loss.targets, kind, loss.normalize)
    assert net.loss(x) == pytest.approx(value, rel=1e-12)


@given(networks)
def test_the_field_is_minus_the_gradient_of_the_loss(net):
    x = smooth_state(net, 2)
    expected = naive.differences(lambda y: float(net.loss(y)), x, 1e-4)
    size = np.abs(expected).max() + float(net.loss(x)) + 1.0
    np.testing.assert_allclose(net.gradient(x), expected, rtol=0, atol=1e-9 * size)


@given(networks)
def test_the_hessian_is_the_derivative_of_the_gradient(net):
    x, step = smooth_state(net, 3), 1e-5
    H = net.hessian(x)
    for seed in range(3):
        v = np.random.default_rng(seed).normal(size=net.dim)
        v /= np.linalg.norm(v)
        change = (net.gradient(x + step * v) - net.gradient(x - step * v)) / (2.0 * step)
        size = np.abs(H).max() + np.abs(net.gradient(x)).max() + 1.0
        np.testing.assert_allclose(H @ v, change, rtol=0, atol=1e-7 * size)
        np.testing.assert_allclose(net.hessian_product(x, v), H @ v, rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize(
    ("widths", "activation", "loss"),
    [
        ((3, 2), (2, 0.0), "square"),
        ((3, 4, 2), (2, 0.0), "square"),
        ((3, 4, 5, 2), (3, -0.5), "logistic"),
        ((2, 3, 3, 3, 1), (2, 0.3), "square"),
        ((3, 4, 4, 2), (1, 1.0), "square"),
    ],
)
def test_homogeneous_networks_meet_the_contract(widths, activation, loss):
    net = random_network(widths, 5, activation, loss)
    contracts.check_system(net, smooth_state(net, 9, scale=0.5, step=3e-3))


@given(networks, st.floats(0.1, 3.0))
def test_outputs_are_homogeneous_and_obey_euler(net, c):
    """H(cW) = c^L H(W), and ⟨W, ∂H/∂W⟩ = L H."""
    x = naive.state_of(net, 4, 0.7)
    H, L = net.outputs(x), net.degree
    size = c**L * np.abs(H).max() + 1e-12
    np.testing.assert_allclose(net.outputs(c * x), c**L * H, rtol=0, atol=1e-12 * L * size)
    step = 1e-5
    along = (net.outputs((1.0 + step) * x) - net.outputs((1.0 - step) * x)) / (2.0 * step)
    np.testing.assert_allclose(along, L * H, rtol=0, atol=1e-7 * L**3 * (np.abs(H).max() + 1e-6))


@given(networks)
def test_the_force_along_the_state_is_the_degree_times_the_correlation_of_signal_and_outputs(net):
    """⟨W, −∇L⟩ = L ⟨−∂ℓ/∂S, H⟩, exactly: Euler's identity for the gradient kernel."""
    x, loss = naive.state_of(net, 5, 0.7), net.criterion
    H, Y = net.outputs(x), loss.targets
    signal = Y / (1.0 + np.exp(Y * H)) if loss.kind == "logistic" else Y - H
    if loss.normalize:
        signal = signal / Y.shape[1]
    expected = net.degree * np.sum(signal * H)
    size = net.degree * np.sum(np.abs(signal * H)) + 1e-300
    assert -net.gradient(x) @ x == pytest.approx(expected, rel=0, abs=1e-11 * size)


@given(networks)
def test_every_hidden_unit_conserves_its_balance(net):
    """d/dt (‖W_l[j,:]‖² − p‖W_{l+1}[:,j]‖²) = 2 (⟨W_l, Ẇ_l⟩_j − p⟨W_{l+1}, Ẇ_{l+1}⟩_j) = 0."""
    x = naive.state_of(net, 6, 0.7)
    force = -net.gradient(x)
    change = net.conserved(x + force) - net.conserved(x) - net.conserved(force)
    size = np.abs(x) @ np.abs(force) * (net.power + 1.0) + np.sum(x**2 + force**2) * net.power
    np.testing.assert_allclose(change, 0.0, rtol=0, atol=1e-13 * size)
    layers = naive.split(net, x)
    expected = [
        np.sum(before[j] ** 2) - net.power * np.sum(after[:, j] ** 2)
        for before, after in itertools.pairwise(layers)
        for j in range(len(before))
    ]
    np.testing.assert_allclose(net.conserved(x), expected, rtol=1e-12, atol=1e-12)


@given(networks, st.floats(0.3, 3.0))
def test_the_loss_keeps_its_value_as_units_are_scaled_and_permuted(net, c):
    x = naive.state_of(net, 7, 0.7)
    layers = naive.split(net, x)
    for i in range(net.depth - 1):
        order = np.random.default_rng(i).permutation(net.widths[i + 1])
        layers[i], layers[i + 1] = layers[i][order], layers[i + 1][:, order]
        layers[i][0] *= c
        layers[i + 1][:, 0] *= c**-net.power
    moved = np.concatenate([w.ravel() for w in layers])
    assert net.loss(moved) == pytest.approx(float(net.loss(x)), rel=1e-10)
    rows = net.generators(x)
    force = net.gradient(x)
    bound = 1e-13 * (np.abs(rows) @ np.abs(force)) * net.dim + 1e-300
    assert (np.abs(rows @ force) <= bound).all()


def test_generators_are_those_of_the_flow_where_that_is_asked_for():
    """Scalings do not commute with the flow; orthogonal turns of a linear network do."""
    net = random_network((3, 4, 2), 0, (2, 0.0))
    x = naive.state_of(net, 0)
    assert net.generators(x).shape == (4, net.dim)
    assert net.generators(x, orthogonal=True).shape == (0, net.dim)
    linear = random_network((3, 4, 2), 0, (1, 1.0))
    same = dl.LinearNetwork.from_data(*data((3, 4, 2), 0), hidden=(4,), whiten=False)
    for orthogonal in (False, True):
        np.testing.assert_array_equal(
            linear.generators(x, orthogonal=orthogonal), same.generators(x, orthogonal=orthogonal)
        )


@pytest.mark.parametrize("widths", [(3, 2), (3, 4, 2), (2, 3, 4, 3)])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_linear_activation_makes_the_linear_network(widths, normalize):
    X, Y = data(widths, 3)
    net = dl.HomogeneousNetwork(widths, X, Y, power=1, slope=1.0, normalize=normalize)
    linear = dl.LinearNetwork.from_data(
        X, Y, hidden=widths[1:-1], whiten=False, normalize=normalize
    )
    x = naive.state_of(net, 1, 0.8)
    size = np.abs(linear.hessian(x)).max() + np.abs(linear.gradient(x)).max()
    near = {"rtol": 0.0, "atol": 1e-13 * size * net.dim}
    np.testing.assert_allclose(net.gradient(x), linear.gradient(x), **near)
    np.testing.assert_allclose(net.hessian(x), linear.hessian(x), **near)
    assert net.loss(x) == pytest.approx(linear.loss(x) + linear.irreducible_loss, rel=1e-12)
    assert net.degree == linear.depth


def test_a_single_unit_by_hand():
    """H = v (w·x)² for w·x > 0: the field and the second derivative on paper."""
    net = dl.HomogeneousNetwork((1, 1, 1), [[2.0]], [3.0], normalize=False)
    w, v = 0.5, 0.7
    rest = 3.0 - v * (2.0 * w) ** 2
    np.testing.assert_allclose(
        -net.gradient([w, v]), [rest * v * 2.0 * (2.0 * w) * 2.0, rest * (2.0 * w) ** 2], rtol=1e-14
    )
    slope = np.array([8.0 * v * w, 4.0 * w**2])
    bend = np.array([[8.0 * v, 8.0 * w], [8.0 * w, 0.0]])
    np.testing.assert_allclose(
        net.hessian([w, v]), np.outer(slope, slope) - rest * bend, rtol=1e-14
    )
    assert not net.gradient([-w, v]).any()
    assert not net.hessian([-w, v]).any()


def smooth_target(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3, 20))
    return X, np.maximum(X[0], 0.0) ** 2 - 0.5 * np.maximum(X[1] - X[2], 0.0) ** 2


@pytest.fixture(scope="module")
def minimum():
    """A network of two cubic units, and the minimum that it learns."""
    X, y = smooth_target()
    net = dl.HomogeneousNetwork((3, 2, 1), X, y, power=3, slope=1.0)
    run = dl.flow(net, net.initial(scale=0.5, rng=1), t_span=(0, 200), save=["state", "conserved"])
    return net, run, dl.find_critical_point(net, run.state[-1]).state.values


def test_runs_lose_loss_and_keep_what_is_conserved(minimum):
    _, run, _ = minimum
    assert (np.diff(run.loss) <= 1e-12 * run.loss[0].item()).all()
    drift = np.abs(run.conserved - run.conserved[0]).max()
    assert drift < 1e-6 * float((run.state**2).sum("parameter").max())


def test_perfect_fits_end_runs_without_end():
    X, _ = smooth_target()
    net = dl.HomogeneousNetwork((3, 4, 1), X, np.maximum(X[0], 0.0) ** 2)
    x = net.pack([[[1, 0, 0], *[[0, 0, 0]] * 3], [[1, 0, 0, 0]]])
    assert net.limit(x, rtol=1e-8).kind == "global_minimum"
    assert net.limit(net.initial(rng=0), rtol=1e-8).kind == "none"
    run = dl.flow(net, net.initial(scale=0.5, rng=2))
    assert dl.schema.decode(run.stop_reason) == "limit_reached"
    assert dl.schema.decode(run.limit_kind) == "global_minimum"


def test_the_kernel_at_a_critical_point_holds_the_scalings(minimum):
    net, _, x = minimum
    H, rows = net.hessian(x), net.generators(x)
    assert np.abs(H @ rows.T).max() < 1e-9 * np.abs(H).max() * np.abs(rows).max()
    spectrum = dl.linearize(net, x)
    assert int(spectrum.orbit_dimension) == 2
    assert int(spectrum["index"]) == 0
    np.testing.assert_allclose(
        spectrum.eigenvalue, np.linalg.eigvalsh(H), rtol=0, atol=1e-12 * np.abs(H).max()
    )


@pytest.mark.compiled
def test_lyapunov_exponents_at_a_critical_point_are_minus_the_spectrum(minimum):
    net, _, x = minimum
    lyapunov = dl.lyapunov_spectrum(net, x, t_span=(0, 300))
    values = dl.linearize(net, x).eigenvalue.values
    error = np.log(net.dim * 1e3) / 300.0  # of the start, which is turned to the eigenvectors
    np.testing.assert_allclose(np.sort(lyapunov.exponent)[::-1], -values, rtol=0, atol=error)


def test_minima_are_followed_as_the_slope_falls(minimum):
    net, _, x = minimum
    equation = dl.equilibria(net, vary="slope")
    branch = dl.branch(equation, x, 1.0, bounds=(0.5, 1.0), direction="down")
    assert branch.p.values.min() == pytest.approx(0.5, abs=1e-9)
    dl.schema.validate(branch)
    for row in (0, -1):
        slope, state = min(float(branch.p[row]), 1.0), branch.state[row].values
        other = dl.HomogeneousNetwork(
            net.widths, net.criterion.inputs, net.criterion.targets, power=3, slope=slope
        )
        assert np.abs(other.gradient(state)).max() < 1e-9
        assert float(branch.loss[row]) == pytest.approx(float(other.loss(state)), rel=1e-12)


def test_minima_are_followed_as_weights_decay(minimum):
    """With decay each hidden unit is balanced: ‖in‖² = p‖out‖². More of it leaves no minimum."""
    net, _, x = minimum
    equation, decay = dl.equilibria(net, vary="weight_decay"), 1e-4
    start = scipy.optimize.root(
        lambda z: equation.value(z, decay),
        x,
        jac=lambda z: equation.matrix(z, decay),
        method="lm",
        options={"xtol": 1e-15, "ftol": 1e-15},
    ).x
    branch = dl.branch(equation, start, decay, bounds=(5e-5, 5e-3), max_points=100)
    assert branch.p.values[[0, -1]].tolist() == [5e-5, 5e-5]
    (fold,) = np.flatnonzero(branch.event.values)
    assert dl.schema.decode(branch.event).values[fold] == "fold"
    with pytest.raises(dl.ConvergenceError, match="^x0: "):
        dl.branch(equation, start, 2.0 * float(branch.p[fold]), bounds=(1e-4, 5e-3))
    balance = np.abs(net.conserved(branch.state.values)).max()
    assert balance < 1e-8 * float((branch.state**2).sum("parameter").max())
    np.testing.assert_allclose(equation.slope(start, decay), -start)


def test_linear_ones_decay_like_linear_networks():
    X, Y = data((3, 2, 2), 3)
    net = dl.HomogeneousNetwork((3, 2, 2), X, Y, power=1, slope=1.0)
    linear = dl.LinearNetwork.from_data(X, Y, hidden=(2,), whiten=False)
    x = naive.state_of(net, 1)
    ours, theirs = (dl.equilibria(n, vary="weight_decay") for n in (net, linear))
    np.testing.assert_allclose(ours.value(x, 0.3), theirs.value(x, 0.3), atol=1e-12)
    for decay in (0.0, 0.3):
        np.testing.assert_array_equal(ours.orbit(x, decay), theirs.orbit(x, decay))
    with pytest.raises(ValueError, match="^vary: there is no 'slope'"):
        dl.equilibria(net, vary="slope")


def test_labelled_data_are_transposed():
    X, Y = data((3, 2, 2), 0)
    net = dl.HomogeneousNetwork((3, 2, 2), X, Y)
    labelled = dl.HomogeneousNetwork(
        (3, 2, 2),
        xr.DataArray(X.T, dims=("sample", "feature")),
        xr.DataArray(Y.T, dims=("sample", "output")),
    )
    assert labelled.digest == net.digest
    other = dl.HomogeneousNetwork((3, 2, 2), X, Y, slope=0.1)
    assert other.digest != net.digest


def test_attributes_say_which_network_it_is():
    net = random_network((3, 2, 2), 0, (3, -0.5), "logistic", False)
    words = net.attributes()
    assert (words["power"], words["slope"], words["criterion"]) == (3, -0.5, "logistic")
    assert words["normalization"] == "loss not divided"
    assert repr(net) == "HomogeneousNetwork(3 -> 2 -> 2, max(z, -0.5z)^3, logistic)"
    assert net.limit(np.zeros(net.dim), rtol=1e-8).kind == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 1}, "^power: .*gradient is not Lipschitz"),
        ({"power": 1, "slope": 0.5}, "^power: .*gradient is not Lipschitz"),
        ({"power": 0}, "^power: needs at least 1"),
        ({"power": 2.5}, "^power: needs an integer"),
        ({"slope": 1.5}, "^slope: "),
        ({"slope": np.nan}, "^slope: needs a finite number"),
        ({"slope": -np.inf}, "^slope: needs a finite number"),
        ({"y": np.zeros(6)}, "^y: needs as many samples"),
        ({"y": np.zeros((2, 7))}, "^y: needs 1 outputs"),
        ({"X": np.ones((2, 7))}, "^X: needs 3 features"),
        ({"X": np.zeros((3, 7))}, "^X: all inputs are zero"),
        ({"loss": "hinge"}, "^loss: there is no 'hinge'"),
        ({"loss": "logistic"}, "^y: needs labels -1 and 1"),
        ({"normalize": 1}, "^normalize: needs True or False"),
        ({"widths": (3,)}, "^widths: "),
        ({"powr": 2}, "^powr: .*did you mean 'power'"),
    ],
)
def test_bad_problems_are_refused(options, message):
    X, _ = data((3, 2, 1), 0)
    arguments = {"widths": (3, 2, 1), "X": X, "y": np.linspace(0.0, 1.0, 7)}
    with pytest.raises((ValueError, TypeError), match=message):
        dl.HomogeneousNetwork(**{**arguments, **options})
    net = dl.HomogeneousNetwork(**arguments)
    with pytest.raises(ValueError, match="^kind: there is no 'balanced'"):
        net.initial("balanced")
