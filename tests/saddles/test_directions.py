import naive
import numpy as np
import points
import pytest
from scipy.special import hyp2f1

import dlnds as dl
from dlnds.saddles import directions, limiting


def teacher(widths, power=2, slope=0.0, **options):
    """A network on 30 inputs, with outputs of three rectified squares."""
    X = np.random.default_rng(0).normal(size=(widths[0], 30))
    y = np.maximum(X[0], 0.0) ** 2 - np.maximum(X[1] + X[2], 0.0) ** 2 + 0.3 * X[3] ** 2
    return dl.HomogeneousNetwork(widths, X, y, power=power, slope=slope, **options)


def linear_network(depth, sigma=(3.0, 2.0, 1.0)):
    return dl.LinearNetwork(widths=(len(sigma),) * (depth + 1), target=np.diag(sigma))


def correlation(net, u):
    """N(u) = ⟨Y, H(X; u)⟩/m, from the definition of the outputs."""
    loss = net.criterion
    return np.sum(loss.targets * naive.homogeneous_outputs(net, u, loss.inputs)) * loss.factor


NETWORKS = (
    ((4, 5, 1), 2, 0.0),
    ((4, 5, 1), 3, 0.0),
    ((4, 3, 1), 2, -0.5),
    ((4, 4, 3, 1), 2, 0.0),
)


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def found(request):
    widths, power, slope = request.param
    net = teacher(widths, power, slope)
    return net, dl.escape_directions(net, rng=1, n_starts=60)


def test_escape_directions_are_kkt_points_of_the_correlation(found):
    """∇N = λu with λ = L N on the unit sphere; ∇N by differences of the definition."""
    net, kkt = found
    dl.schema.validate(kkt)
    assert kkt.sizes["direction"] >= 1
    assert (kkt.residual <= 1e-10).all()
    assert (kkt.order == net.degree).all()
    for row in range(kkt.sizes["direction"]):
        u, value = kkt.state[row].values, float(kkt.value[row])
        assert np.linalg.norm(u) == pytest.approx(1.0, abs=1e-14)
        assert correlation(net, u) == pytest.approx(value, rel=1e-12)
        assert float(kkt.multiplier[row]) == pytest.approx(net.degree * value, rel=1e-13)
        slope = naive.differences(lambda w: correlation(net, w), u, 1e-4)
        np.testing.assert_allclose(slope, net.degree * value * u, atol=1e-7 * net.degree)


def test_no_random_direction_rises_from_a_maximum(found):
    """N(u + εb) ≤ N(u) on the sphere, and the curvature across u leaves λ − Δ at most."""
    net, kkt = found
    rng = np.random.default_rng(0)
    best = kkt.isel(direction=0)
    u, value, multiplier = best.state.values, float(best.value), float(best.multiplier)
    assert float(best.positivity) > 0.0
    for _ in range(30):
        b = rng.normal(size=net.dim)
        b -= (b @ u) * u
        b *= 1e-3 / np.linalg.norm(b)
        near = (u + b) / np.linalg.norm(u + b)
        fall = value - correlation(net, near)
        expected = 0.5 * float(best.positivity) * 1e-6
        assert fall >= expected * (1.0 - 0.1) - 1e-8 * multiplier * 1e-1


def test_norms_at_kkt_points_are_balanced(found):
    """‖W_l[j, :]‖² = p ‖W_{l+1}[:, j]‖² for each hidden unit."""
    net, kkt = found
    np.testing.assert_allclose(net.conserved(kkt.state.values), 0.0, atol=1e-12)
    assert (kkt.imbalance < 1e-12).all()


def test_maxima_take_one_unit_in_each_layer_and_are_told_modulo_permutation(found):
    net, kkt = found
    values = kkt.value.values
    assert (np.diff(values) < -1e-7 * values[0]).all()
    assert int(kkt["count"].sum()) + kkt.attrs["n_lost"] == 60
    for row in range(kkt.sizes["direction"]):
        layers = kkt.unit_layer.values[kkt.active[row].values == 1]
        assert (np.bincount(layers, minlength=net.depth)[1:] >= 1).all()
        if net.depth == 2:  # N is a sum over units, of degree above 2: mixtures are saddles
            assert len(layers) == 1


def test_mixtures_of_units_are_saddles_of_the_correlation():
    """With parts r_1, r_2 of two units N = N_1 r_1³ + N_2 r_2³ is critical where N_1 r_1 = N_2 r_2.

    On r_1² + r_2² = 1 the value there is N_1 N_2/√(N_1² + N_2²); two units alike give N_1/√2.
    """
    net = teacher((4, 2, 1))
    maxima = dl.escape_directions(net, n_starts=60, rng=1)
    every = dl.escape_directions(net, n_starts=60, rng=1, saddles=True)
    assert set(maxima.value.values.round(9)) <= set(every.value.values.round(9))
    assert (every.residual <= 1e-10).all()
    singles = maxima.value.values
    mixtures = {
        round(float(a * b / np.hypot(a, b)), 9) for k, a in enumerate(singles) for b in singles[k:]
    }
    found = {
        round(float(value), 9)
        for value, active in zip(every.value.values, every.active.values, strict=True)
        if active.sum() == 2
    }
    assert len(found & mixtures) >= 1
    assert (every.positivity.values[every.active.values.sum(axis=1) == 2] < 0.0).all()


def test_the_best_of_one_square_unit_by_hand():
    """N = v ⟨y, (w·x)₊²⟩/m with one input: |w|² = 2/3, v² = 1/3."""
    X, y = np.array([[1.0, -2.0]]), np.array([1.0, 3.0])
    net = dl.HomogeneousNetwork((1, 1, 1), X, y)
    kkt = dl.escape_directions(net, n_starts=40)
    shape = (2.0 / 3.0) * np.sqrt(1.0 / 3.0)
    np.testing.assert_allclose(kkt.value, [shape * 3.0 * 4.0 / 2.0, shape * 1.0 / 2.0], rtol=1e-13)
    first, second = np.sqrt(2.0 / 3.0), np.sqrt(1.0 / 3.0)
    np.testing.assert_allclose(kkt.state, [[-first, second], [first, second]], atol=1e-13)
    assert kkt.attrs["n_lost"] > 0  # starts with v < 0 lead to no positive value


def test_equal_calls_are_equal_for_any_number_of_workers():
    net = teacher((4, 4, 1))
    kkt = dl.escape_directions(net, rng=3, n_starts=20)
    assert kkt.identical(dl.escape_directions(net, rng=3, n_starts=20, workers=2))


def test_given_starts_turn_to_their_own_direction():
    net = teacher((4, 4, 1))
    kkt = dl.escape_directions(net, rng=3, n_starts=20)
    last = kkt.state[-1].values
    again = dl.escape_directions(net, starts=0.01 * last[None])
    assert again.sizes["direction"] == 1
    np.testing.assert_allclose(again.state[0], last, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_directions_of_linear_networks_are_singular_modes_and_their_mixtures(depth):
    """Values σ_j h^{−h/2} of one mode, with Δ = 0 at the best: its KKT points are not isolated."""
    net = linear_network(depth)
    kkt = dl.escape_directions(net)
    single = np.array([len(dl.schema.index_set_modes(s)) == 1 for s in kkt.modes.values])
    expected = net.singular_values * depth ** (-depth / 2.0)
    np.testing.assert_allclose(kkt.value[single], expected, rtol=1e-12)
    assert kkt.sizes["direction"] == (3 if depth == 2 else 7)
    assert (kkt.positivity.values[1:] < 0.0).all()
    assert abs(float(kkt.positivity[0])) < 1e-12
    assert (kkt.residual <= 1e-10).all()
    manifold = dl.unstable_manifold(net, np.zeros(net.dim))
    rates = np.unique(manifold.rate.values.round(10))[::-1]
    np.testing.assert_allclose(kkt.multiplier[single], rates, rtol=1e-9)


@pytest.mark.parametrize("modes", [(0,), (1,), (2,), (0, 2)])
def test_directions_of_one_mode_at_saddles_are_those_of_the_manifold(modes):
    net = linear_network(3)
    x = net.critical_state(modes)
    kkt, manifold = dl.escape_directions(net, at=x), dl.unstable_manifold(net, x)
    kkt = kkt.isel(direction=[len(dl.schema.index_set_modes(s)) == 1 for s in kkt.modes.values])
    assert kkt.order.values.tolist() == manifold.order.values.tolist()
    np.testing.assert_allclose(kkt.multiplier, manifold.rate, rtol=1e-9)
    assert (kkt.residual <= 1e-10).all()


def test_nothing_leaves_a_minimum():
    net = linear_network(2)
    kkt = dl.escape_directions(net, at=net.critical_state((0, 1, 2)), n_starts=5)
    dl.schema.validate(kkt)
    assert (kkt.sizes["direction"], kkt.active.shape) == (0, (0, 3))


def test_raw_inputs_and_other_losses_have_the_modes_of_their_moments():
    raw = naive.random_network((3, 4, 2), 0, "full")
    kkt = dl.escape_directions(raw, n_starts=10)
    moment = raw.target @ raw.input_root.T
    sigma = np.linalg.svd(moment, compute_uv=False)
    np.testing.assert_allclose(kkt.value, sigma / 2.0, rtol=1e-12)
    X, y = np.random.default_rng(1).normal(size=(3, 9)), np.sign(np.linspace(-1, 1, 9) + 0.1)
    net = dl.LossNetwork((3, 4, 1), dl.losses.logistic(X, y))
    slope = np.linalg.norm(X @ y / 18.0)  # −ℓ'(0) = y/2
    np.testing.assert_allclose(dl.escape_directions(net, n_starts=5).value, [slope / 2.0])


def test_the_logistic_loss_halves_the_correlation():
    X = np.random.default_rng(0).normal(size=(4, 30))
    y = np.sign(X[0] * X[1])
    square = dl.HomogeneousNetwork((4, 3, 1), X, y)
    logistic = dl.HomogeneousNetwork((4, 3, 1), X, y, loss="logistic")
    values = [dl.escape_directions(net, n_starts=20).value for net in (square, logistic)]
    np.testing.assert_allclose(values[0], 2.0 * values[1], rtol=1e-12)


# Escape times and limiting paths.


def test_escape_times_are_those_on_the_ray():
    """ṙ = L N r^{L−1} from δ; for linear networks T_δ = δ^{−(h−2)} h^{h/2−1}/((h−2)σ_1)."""
    for depth in (3, 4, 5):
        net = linear_network(depth)
        first = dl.escape_directions(net, n_starts=3).isel(direction=0)
        expected = 0.01 ** (2 - depth) * depth ** (depth / 2 - 1) / ((depth - 2) * 3.0)
        assert dl.escape_time(net, first, 0.01) == pytest.approx(expected, rel=1e-12)
    two = linear_network(2)
    u = dl.escape_directions(two, n_starts=3).state[0].values
    times = dl.escape_time(two, 7.0 * u, [0.1, 0.01])
    np.testing.assert_allclose(times, np.log([10.0, 100.0]) / 3.0, rtol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_paths_of_linear_networks_are_the_closed_ones(depth):
    """h σ^{2−2/h} t = F(p/σ), h ≥ 3; σ/(1 + 2σ e^{−2σt}) for two layers."""
    net, sigma = linear_network(depth), 3.0
    first = dl.escape_directions(net, n_starts=3).isel(direction=0)
    t = np.array([-0.3, 0.0, 0.2, 0.5])
    path = dl.escape_path(net, first, t_eval=t, save=["product"])
    strength = np.linalg.svd(path["product"].values[:4], compute_uv=False)[:, 0]
    if depth == 2:
        expected = sigma / (1.0 + 2.0 * sigma * np.exp(-2.0 * sigma * t))
        np.testing.assert_allclose(strength, expected, rtol=1e-8)
        return
    a = 2.0 - 2.0 / depth
    u = strength / sigma
    time = u ** (1.0 - a) / (1.0 - a) * hyp2f1(1.0, 1.0 - a, 2.0 - a, u) / (depth * sigma**a)
    np.testing.assert_allclose(time, t, atol=1e-8)


@pytest.fixture(scope="module", params=[((4, 5, 1), 2), ((4, 5, 1), 3)], ids=str)
def escaping(request):
    net = teacher(*request.param)
    first = dl.escape_directions(net, n_starts=20).isel(direction=0)
    path = dl.escape_path(net, first)
    level = 0.5 * float(path.loss[0] + path.limit_loss)
    middle = float(path.time[np.argmin(np.abs(path.loss.values - level))])
    return net, first, path, middle + np.linspace(-1.0, 1.0, 5)


@pytest.mark.compiled
def test_paths_entered_at_two_distances_agree(escaping):
    net, first, _, t = escaping
    near, far = (
        dl.escape_path(net, first, delta=d, t_eval=t).state.values[: t.size] for d in (0.02, 0.04)
    )
    assert np.linalg.norm(near - far, axis=1).max() < 1e-8


@pytest.mark.compiled
def test_runs_on_the_ray_come_to_the_path_like_the_square_of_their_start(escaping):
    net, first, _, t = escaping
    path = dl.escape_path(net, first, t_eval=t).state.values[: t.size]
    distances = []
    for delta in (0.04, 0.02):
        late = dl.escape_time(net, first, delta)
        run = dl.flow(net, delta * first.state.values, (-late, t[-1]), t, rtol=1e-12)
        distances.append(np.linalg.norm(run.state.values[: t.size] - path, axis=1).max())
    assert np.log2(distances[0] / distances[1]) == pytest.approx(2.0, abs=0.02)


def test_the_limit_of_a_path_is_a_saddle_with_the_same_zero_units(escaping):
    net, first, path, _ = escaping
    dl.schema.validate(path)
    x = path.limit_state.values
    assert float(path.limit_residual) < 1e-10 * np.linalg.norm(x)
    assert dl.schema.decode(path.limit_kind) == "saddle"
    spare = first.active.values == 0
    assert spare.sum() == 4
    assert not path.unit_size.values[:, spare].any()
    assert not net.unit_sizes(x)[spare].any()
    np.testing.assert_array_equal(path.limit_active, first.active)
    assert (np.diff(path.loss) <= 1e-12 * float(path.loss[0])).all()


def test_directions_at_the_first_saddle_are_those_of_the_residual(escaping):
    """Zero units feel y − H(X; p*) as units at the origin feel y; degree p + 1."""
    net, _, path, _ = escaping
    x, loss = path.limit_state.values, net.criterion
    kkt = dl.escape_directions(net, at=x, rng=0, n_starts=40)
    assert (kkt.order == net.power + 1).all()
    rest = loss.targets - net.outputs(x)
    spare = int((path.limit_active.values == 0).sum())
    other = dl.HomogeneousNetwork((4, spare, 1), loss.inputs, rest, power=net.power)
    expected = dl.escape_directions(other, rng=0, n_starts=40)
    np.testing.assert_allclose(kkt.value, expected.value, rtol=1e-9)
    u, step = kkt.state[0].values, 1e-2
    drop = float(net.loss(x) - net.loss(x + step * u)) / step ** (net.power + 1)
    assert drop == pytest.approx(float(kkt.value[0]), rel=0.05)


@pytest.mark.compiled
def test_each_layer_with_zero_units_has_its_directions_at_later_saddles():
    """Two outputs, three layers: the loss falls by N r³ along what feeds and leaves a zero unit.

    No random weights of one zero unit, between active ones, gain more than what is listed for its
    layer, and something is listed for both.
    """
    X = np.random.default_rng(0).normal(size=(3, 40))
    Y = np.stack([np.maximum(X[0], 0.0) ** 4 - 0.4 * np.maximum(X[1], 0.0) ** 4, 0.3 * X[2] ** 2])
    net = dl.HomogeneousNetwork((3, 3, 3, 2), X, Y, power=2)
    x = dl.escape_chain(net, n_starts=20, max_paths=2).state.values[-1]
    active = net.unit_sizes(x) > 1e-9
    assert [active[:3].sum(), active[3:].sum()] == [2, 1]  # which ones is a symmetry
    kkt = dl.escape_directions(net, at=x, n_starts=40)
    new = (net.unit_sizes(kkt.state.values) > 1e-9) & ~active
    rng, size, layer_of = np.random.default_rng(1), 1e-2, net.units[:, 0]
    for layer in (1, 2):
        spare = np.flatnonzero(~active & (layer_of == layer))[0]
        neighbours = np.abs(layer_of - layer) == 1
        into, out_of = (flags[spare].copy() for flags in net.unit_weights)
        for other in np.flatnonzero(neighbours & ~active):  # weights between two zero units
            joined = net.unit_weights[0][other] | net.unit_weights[1][other]
            into &= ~joined
            out_of &= ~joined
        best = 0.0
        for _ in range(400):
            z = np.where(into | out_of, rng.normal(size=net.dim), 0.0)
            z /= np.linalg.norm(z)
            odd = net.loss(x - size * z) - net.loss(x + size * z)  # r² and r⁴ terms cancel
            best = max(best, float(odd) / (2.0 * size**3))
        here = new[:, layer_of == layer].any(axis=1) & (kkt.order.values == 3)
        listed = kkt.value.values[here]
        assert listed.size >= 1, layer
        assert 0.3 * listed.max() < best <= listed.max() * (1.0 + 1e-3), layer


@pytest.mark.compiled
def test_chains_go_down_to_a_fit():
    net = teacher((4, 4, 1))
    chain = dl.escape_chain(net, n_starts=20, max_paths=3)
    dl.schema.validate(chain)
    assert chain.n_active.values.tolist() == [0, 1, 2, 3]
    assert (np.diff(chain.loss) < 0.0).all()
    assert list(chain.children) == ["path_0", "path_1", "path_2"]
    assert chain["path_1"].attrs["order"] == 3


@pytest.mark.compiled
def test_what_is_found_can_be_stored(tmp_path):
    net = teacher((4, 2, 1))
    kkt = dl.escape_directions(net, n_starts=5)
    chain = dl.escape_chain(net, n_starts=5, max_paths=1)
    kept = dl.zero_preserving(net, chain.state[-1])
    for data in (kkt, chain, kept):
        dl.schema.validate(data)
        dl.save(data, tmp_path / "data.nc")
        assert dl.load(tmp_path / "data.nc").identical(data)


@pytest.mark.compiled
def test_runs_from_random_starts_come_to_the_path_of_their_direction(escaping):
    """Aligned at a norm, the distance falls like δ^{Δ/λ}: ḃ = r^{L−2}(μ − λ) b across the ray."""
    net, _, _, _ = escaping
    unit = net.initial(scale=1.0, rng=2)
    unit /= np.linalg.norm(unit)
    first = dl.escape_directions(net, starts=unit[None]).isel(direction=0)
    path = dl.escape_path(net, first)
    norm = 0.6 * float(np.linalg.norm(path.limit_state))
    t = np.linspace(0.0, 1.0, 11)
    far = [
        float(dl.compare_with_path(net, path, d * unit, norm=norm, t_eval=t).distance.max())
        for d in (1e-2, 1e-3)
    ]
    expected = float(first.positivity / first.multiplier)
    assert np.log10(far[0] / far[1]) == pytest.approx(expected, rel=0.1)


@pytest.mark.compiled
def test_escape_times_of_random_starts_have_the_exponent_of_the_degree():
    for power, expected in ((2, -1.0), (3, -2.0)):
        net = teacher((4, 3, 1), power)
        unit = net.initial(scale=1.0, rng=4)
        unit /= np.linalg.norm(unit)

        def reached(t, x):
            return np.linalg.norm(x) - 0.5

        reached.terminal = True
        sizes = np.array([4e-3, 2e-3, 1e-3])
        times = [float(dl.flow(net, d * unit, events=reached).time[-1]) for d in sizes]
        slopes = np.diff(np.log(times)) / np.diff(np.log(sizes))
        assert abs(slopes[1] - expected) < 0.02
        assert abs(slopes[1] - expected) < abs(slopes[0] - expected) + 1e-6


def test_zero_preserving_sets_stay_zero():
    net = teacher((4, 3, 1))
    layers = list(net.unpack(net.initial(scale=0.5, rng=0)))
    layers[0][0], layers[1][:, 0] = 0.0, 0.0  # a zero unit
    layers[0][1] = 0.0  # one with nothing coming in
    x = net.pack(layers)
    found = dl.zero_preserving(net, x)
    dl.schema.validate(found)
    assert found.unit_zero.values.tolist() == [1, 0, 0]
    assert int(found.kept.sum()) == 5 + 4
    assert float(found.residual) == 0.0
    run = dl.flow(net, x, (0.0, 5.0))
    assert not run.state.values[:, found.kept.values == 1].any()
    linear = dl.HomogeneousNetwork(
        net.widths, net.criterion.inputs, net.criterion.targets, power=1, slope=1.0
    )
    kept = dl.zero_preserving(linear, x)
    assert kept.unit_zero.values.tolist() == [1, 0, 0]
    assert int(kept.kept.sum()) == 5  # what goes in alone does not stay zero


def test_expanded_and_compiled_forms_are_the_same():
    """Lyapunov and Schmidt at the origin of a linear network give ⟨Σ, W_h…W_1⟩."""
    net = linear_network(3)
    x = np.zeros(net.dim)
    form = directions.leading_form(net, x, directions.hessian_at(net, x))
    compiled = directions.compiled(net.theory(x).leading_parts()[0], net.dim)
    u = naive.state_of(net, 0)
    assert form.degree == compiled.degree == 3
    np.testing.assert_allclose(form.basis @ form.gradient(form.basis.T @ u), compiled.gradient(u))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, row: dl.escape_directions(row), "^system: needs a network"),
        (lambda net, row: dl.escape_directions(net, at=np.ones(net.dim)), "^at: needs a critical"),
        (lambda net, row: dl.escape_directions(net, at=[0.0]), "^at: "),
        (lambda net, row: dl.escape_directions(net, n_starts=0), "^n_starts: "),
        (lambda net, row: dl.escape_directions(net, starts=np.zeros((1, net.dim))), "^starts: "),
        (lambda net, row: dl.escape_directions(net, workers=0), "^workers: "),
        (lambda net, row: dl.escape_directions(net, progress=1), "^progress: "),
        (lambda net, row: dl.escape_directions(net, start=1), "^start: .*did you mean 'starts'"),
        (lambda net, row: dl.escape_time(net, row, 0.0), "^delta: needs positive"),
        (
            lambda net, row: dl.escape_time(net, row.state.where(row.layer == 1, -row.state), 0.1),
            "^direction: needs a positive value",
        ),
        (lambda net, row: dl.escape_time(net, np.zeros(net.dim), 0.1), "^direction: is zero"),
        (lambda net, row: dl.escape_time(net, row.expand_dims("direction"), 1.0), "^direction: "),
        (lambda net, row: dl.escape_time(net, row.assign_attrs(schema="run"), 1.0), "^direction: "),
        (
            lambda net, row: dl.escape_time(teacher((4, 2, 1)), row, 1.0),
            "^direction: belongs",
        ),
        (lambda net, row: dl.escape_path(net, row.state.values), "^direction: needs a Dataset"),
        (lambda net, row: dl.escape_path(net, row, delta=0.0), "^delta: needs a positive"),
        (lambda net, row: dl.escape_chain(net, max_paths=0), "^max_paths: "),
        (lambda net, row: dl.zero_preserving(net, [1.0]), "^x: "),
        (
            lambda net, row: dl.compare_with_path(net, row, row.state, norm=1.0, t_eval=[0.0]),
            "^path: needs a Dataset",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    net = teacher((4, 3, 1))
    row = dl.escape_directions(net, n_starts=5).isel(direction=0)
    with pytest.raises((ValueError, TypeError), match=message):
        call(net, row)


def test_runs_that_do_not_cross_are_refused():
    net = teacher((4, 2, 1))
    first = dl.escape_directions(net, n_starts=5).isel(direction=0)
    path = dl.escape_path(net, first)
    start = 0.01 * first.state.values
    with pytest.raises(ValueError, match="^start: needs a first state of a norm below"):
        dl.compare_with_path(net, path, 100.0 * start, norm=0.5, t_eval=[0.0, 1.0])
    with pytest.raises(ValueError, match="^start: does not come to the norm 9"):
        dl.compare_with_path(net, path, start, norm=9.0, t_eval=[0.0, 1.0])


def test_entries_are_accurate_to_the_next_order():
    """Relative order r^{2k}: what the corrected start neglects falls by 2^{2k} as r is halved."""
    net = teacher((4, 3, 1))
    first = dl.escape_directions(net, n_starts=5).isel(direction=0)
    ray = limiting._ray(net, first)
    assert ray.gain == 3
    errors = [limiting._entry(net, ray, r) for r in (0.1, 0.05)]
    bends = [np.linalg.norm(e.state / r - ray.u) for e, r in zip(errors, (0.1, 0.05), strict=True)]
    assert bends[0] / bends[1] == pytest.approx(8.0, rel=0.02)


@pytest.mark.parametrize("seed", [33, 153, 4267, 5977, 6295, 7961])
def test_no_form_of_another_order_than_that_of_descent_is_listed(seed):
    """At non-strict saddles in bases of condition 1e5 the form may be nothing but rounding."""
    point = points.random_point(seed, condition=1e6, deepest=4, widest=3)
    assert point.kind == "nonstrict_saddle"
    found = dl.escape_directions(point.net, point.x, n_starts=2)
    assert (found.order.values == points.order(point)).all()
    word = dl.schema.decode(found.completeness).item()
    assert word == ("searched" if found.sizes["direction"] else "nothing_found")
