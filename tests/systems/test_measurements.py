"""Losses of linear measurements: definitions, the square loss as a case, and what runs come to."""

import itertools

import contracts
import naive
import numpy as np
import pytest
import scipy.sparse
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl

EPS = np.finfo(float).eps
KINDS = ["completion", "measurements", "sparse_measurements"]
SAVE = ["state", "residual"]
#: W_12 = W_21 = 1, W_22 = 0 of a 2 × 2 matrix: zero loss forces det W = −1 (RC20).
CROSSED = dl.losses.completion((2, 2), [0, 1, 1], [1, 0, 1], [1.0, 1.0, 0.0])


def unit(shape, row, column):
    matrix = np.zeros(shape)
    matrix[row, column] = 1.0
    return matrix


def make_loss(kind, shape, seed):
    """A random loss, some weights zero, and its A, y and v."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, shape[0] * shape[1] + 1))
    y, v = rng.normal(size=count), rng.integers(0, 4, count) + np.arange(count) % 2 * 0.5
    v[0] = 1.0
    if kind == "completion":
        rows, columns = np.divmod(rng.permutation(shape[0] * shape[1])[:count], shape[1])
        A = np.array([unit(shape, *place) for place in zip(rows, columns, strict=True)])
        return dl.losses.completion(shape, rows, columns, y, v), A, y, v
    A = rng.normal(size=(count, *shape))
    if kind == "sparse_measurements":
        A *= rng.random(A.shape) < 0.5
        A[0] = 1.0
        sparse = scipy.sparse.csr_array(A.reshape(count, -1))
        return dl.losses.measurements(sparse, y, v, shape=shape), A, y, v
    return dl.losses.measurements(A, y, weights=v), A, y, v


def balanced_start(net, W):
    """The balanced state of a full-rank square W, with its own frames and no others inside."""
    u, s, v = np.linalg.svd(W)
    a = np.diag(s ** (1.0 / net.depth))
    return net.pack([a @ v, *[a] * (net.depth - 2), u @ a])


cases = st.tuples(
    st.sampled_from(KINDS),
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.integers(0, 2**32 - 2),
)


@given(cases)
def test_value_gradient_and_second_derivative_are_their_definitions(case):
    kind, widths, seed = case
    shape = (widths[-1], widths[0])
    loss, A, y, v = make_loss(kind, shape, seed)
    W, V = np.random.default_rng(seed + 1).normal(size=(2, *shape))
    rests = [np.sum(a * W) - b for a, b in zip(A, y, strict=True)]
    size = 1.0 + float(np.sum(v * (np.sum(np.abs(A * W), axis=(1, 2)) + np.abs(y)) ** 2))
    assert loss.value(W) == pytest.approx(0.5 * sum(v * np.square(rests)), abs=16 * EPS * size)
    slope = sum(c * r * a for c, r, a in zip(v, rests, A, strict=True))
    np.testing.assert_allclose(loss.gradient(W), slope, rtol=0, atol=32 * EPS * size)
    change = sum(c * np.sum(a * V) * a for c, a in zip(v, A, strict=True))
    bound = 32 * EPS * (1.0 + float(np.sum(v[:, None, None] * A**2))) * 10
    np.testing.assert_allclose(loss.second_derivative(W, V), change, rtol=0, atol=bound)
    assert loss.value(np.stack([V, W]))[1] == pytest.approx(loss.value(W), abs=16 * EPS * size)


@given(cases)
def test_second_derivative_along_a_line_is_the_formula_with_the_terms_of_w(case):
    """Σ_m v_m ⟨A_m, D_1⟩² + 2 ⟨∇ℓ, D_2⟩, W(x + t V) = W + t D_1 + t² D_2 + …."""
    kind, widths, seed = case
    loss, A, _, v = make_loss(kind, (widths[-1], widths[0]), seed)
    net = dl.LossNetwork(widths, loss)
    x, along = np.random.default_rng(seed + 1).normal(size=(2, net.dim))
    layers, moves, h = naive.split(net, x), naive.split(net, along), net.depth

    def of(places):
        chosen = [moves[i] if i in places else layers[i] for i in range(h)]
        return naive.chain(chosen, 1, h, widths[0])

    first = sum(of({i}) for i in range(h))
    second = sum((of(set(p)) for p in itertools.combinations(range(h), 2)), 0.0 * first)
    G = loss.gradient(of(set()))
    expected = sum(v * np.sum(A * first, axis=(1, 2)) ** 2) + 2.0 * np.sum(G * second)
    size = sum(v * np.sum(np.abs(A * first), axis=(1, 2)) ** 2) + 2.0 * np.sum(np.abs(G * second))
    product = net.hessian_product(x, along)
    noise = 64 * EPS * (size + np.abs(along) @ np.abs(product))
    assert along @ product == pytest.approx(expected, abs=256 * noise)
    slope = np.sum(G * first)
    assert net.gradient(x) @ along == pytest.approx(
        slope, abs=256 * EPS * (np.abs(net.gradient(x)) @ np.abs(along) + np.abs(slope) + 1e-300)
    )
    np.testing.assert_allclose(
        net.hessian(x) @ along,
        product,
        rtol=0,
        atol=256 * EPS * np.linalg.norm(net.hessian(x)) * np.linalg.norm(along),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [(3, 4), (4, 2, 3), (2, 3, 3, 4)])
def test_the_contract_of_systems(kind, widths):
    loss = make_loss(kind, (widths[-1], widths[0]), 3)[0]
    net = dl.LossNetwork(widths, loss)
    contracts.check_system(net, naive.state_of(net, 5, 0.7))


def test_entries_are_the_measurements_of_unit_matrices():
    loss, A, y, v = make_loss("completion", (3, 4), 0)
    same = dl.losses.measurements(A, y, v)
    W = np.random.default_rng(1).normal(size=(3, 4))
    assert same.value(W) == pytest.approx(loss.value(W), rel=1e-14)
    nets = [dl.LossNetwork((4, 2, 3), part) for part in (loss, same)]
    x = naive.state_of(nets[0], 2)
    H = [net.hessian(x) for net in nets]
    np.testing.assert_allclose(*H, rtol=0, atol=64 * EPS * np.abs(H[0]).max())


@pytest.mark.parametrize("widths", [(4, 3), (4, 2, 3), (4, 3, 3, 3)])
def test_sparse_operators_are_the_dense_ones_to_rounding(widths):
    sparse, A, y, v = make_loss("sparse_measurements", (3, 4), 5)
    dense = dl.losses.measurements(A, y, v)
    assert sparse.irreducible == pytest.approx(dense.irreducible, rel=1e-12)
    assert sparse.fitting_size == pytest.approx(dense.fitting_size, rel=1e-12)
    nets = [dl.LossNetwork(widths, loss) for loss in (sparse, dense)]
    x = naive.state_of(nets[0], 2)
    for name in ("gradient", "hessian"):
        found = [getattr(net, name)(x) for net in nets]
        np.testing.assert_allclose(*found, rtol=0, atol=64 * EPS * np.abs(found[0]).max())
    runs = [dl.flow(net, x, (0, 2), t_eval=[1, 2], save=["residual"]) for net in nets]
    np.testing.assert_allclose(runs[0]["residual"], runs[1]["residual"], rtol=0, atol=1e-6)
    bounds = [loss.quadratic(widths).root for loss in (sparse, dense)]
    np.testing.assert_allclose(*bounds, rtol=1e-12)


def test_what_is_stored_twice_in_a_sparse_matrix_is_its_sum():
    A = scipy.sparse.coo_array(([1.0, 2.0, 0.5], ([0, 0, 1], [1, 1, 3])), shape=(2, 4))
    loss = dl.losses.measurements(A, [1.0, 2.0], shape=(2, 2))
    W = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert loss.value(W) == pytest.approx(0.5 * (3.0 * 2.0 - 1.0) ** 2, rel=1e-15)
    assert loss.gradient(W).tolist() == [[0.0, 15.0], [0.0, 0.0]]


def test_thousands_of_sparse_measurements_are_met():
    """3000 differences of entries of a 60 × 60 matrix of rank 2: 86 MB as dense operators."""
    rng, n, m = np.random.default_rng(0), 60, 3000
    Y = rng.normal(size=(n, 2)) @ rng.normal(size=(2, n)) / np.sqrt(n)
    columns = np.stack([rng.permutation(n * n)[:2] for _ in range(m)])
    A = scipy.sparse.csr_array(
        (np.tile([1.0, -1.0], m), (np.repeat(np.arange(m), 2), columns.ravel())), shape=(m, n * n)
    )
    loss = dl.losses.measurements(A, A @ Y.ravel(), shape=(n, n))
    assert loss.operators.nbytes == 4 * 2 * m * 8
    assert loss.irreducible == 0.0
    net = dl.LossNetwork((n, 2, n), loss)
    run = dl.flow(net, net.initial("balanced", scale=0.3, rng=1), save=["product"])
    assert run.limit_decision.item() == dl.schema.LIMIT_DECISIONS.index("small_residual")
    rest = run["product"].values[-1] - Y
    np.testing.assert_allclose(rest - rest.mean(), 0.0, atol=1e-4)


def everything(Y):
    rows, columns = np.indices(Y.shape).reshape(2, -1)
    return dl.losses.completion(Y.shape, rows, columns, Y.ravel())


@pytest.mark.parametrize("widths", [(4, 3), (4, 5, 3), (4, 2, 3), (4, 3, 3, 3)])
def test_all_entries_with_weight_one_are_the_square_loss(widths):
    Y = np.random.default_rng(0).normal(size=(3, 4))
    net, square = dl.LossNetwork(widths, everything(Y)), dl.LinearNetwork(widths, Y)
    x = naive.state_of(square, 1)
    assert net.loss(x) == pytest.approx(square.loss(x), rel=1e-14)
    np.testing.assert_allclose(net.gradient(x), square.gradient(x), rtol=0, atol=1e-14 * 100)
    H = square.hessian(x)
    np.testing.assert_allclose(net.hessian(x), H, rtol=0, atol=64 * EPS * np.abs(H).max())
    start = square.initial("balanced", scale=0.3, rng=2)
    times = [0.5, 2.0, 8.0]
    runs = [dl.flow(system, start, (0, 8), t_eval=times, rtol=1e-11) for system in (net, square)]
    np.testing.assert_allclose(runs[0].state, runs[1].state, rtol=0, atol=1e-8)
    limits = [dl.flow(system, start) for system in (net, square)]
    assert [run.attrs["stop_reason"] for run in limits] == [limits[0].attrs["stop_reason"]] * 2
    maps = [net.product(run.state[-1]) for run in limits]
    np.testing.assert_allclose(*maps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("h", [1, 2, 3, 5])
def test_singular_values_of_balanced_layers_move_by_their_law(h):
    """ṡ_a = h s_a^{2−2/h} u_aᵀ G v_a, G = −∇ℓ (ACHL19), beside the differences of a run."""
    loss = make_loss("measurements", (3, 3), 4)[0]
    net = dl.LossNetwork((3,) * (h + 1), loss)
    start = net.initial("balanced", scale=0.7, rng=1)
    d = 1e-4  # the fifth derivatives are up to (a rate of 100)^5
    run = dl.flow(net, start, (0, 4 * d), t_eval=np.arange(5) * d, rtol=1e-13, save=["product"])
    s = np.array([np.linalg.svd(W)[1] for W in run["product"].values])
    rates = (s[0] - 8 * s[1] + 8 * s[3] - s[4]) / (12 * d)
    u, values, v = np.linalg.svd(run["product"].values[2])
    G = -loss.gradient(run["product"].values[2])
    law = h * values ** (2.0 - 2.0 / h) * np.einsum("ia,ij,aj->a", u, G, v)
    np.testing.assert_allclose(rates, law, rtol=0, atol=1e-6 * np.abs(law).max())


@pytest.mark.parametrize("h", [3, 4])
@pytest.mark.parametrize("W", [[[0.3, 0.1], [0.05, 0.2]], [[-0.2, 0.3], [-0.4, 0.1]]])
def test_the_norm_diverges_where_no_matrix_of_the_sign_fits(h, W):
    """|W_11| > (1 − e)²/e while det W > 0 and e = √(2ℓ) < 1 (RC20), and the growth in time."""
    net = dl.LossNetwork((2,) * (h + 1), CROSSED)
    start = balanced_start(net, np.array(W))
    run = dl.flow(net, start, (0, 1e4), save=["product"])
    maps, e = run["product"].values, np.sqrt(2.0 * run["loss"].values)
    assert (np.linalg.det(maps) > 0.0).all()
    late = e < 1.0
    assert (np.abs(maps[late, 0, 0]) > (1.0 - e[late]) ** 2 / e[late]).all()
    growth = ((2 * h + 2) * 1e4) ** (h / (2 * h + 2))
    assert abs(maps[-1, 0, 0]) == pytest.approx(growth, rel=0.02)
    assert run.attrs["stop_reason"] == "end_reached" or int(run.stop_reason) == 0


def test_two_layers_keep_the_bound_while_the_determinant_is_above_rounding():
    """ln det W falls like t there, so that plain weights lose its sign in the end."""
    net = dl.LossNetwork((2, 2, 2), CROSSED)
    start = balanced_start(net, np.array([[0.3, 0.1], [0.05, 0.2]]))
    run = dl.flow(net, start, (0, 30), save=["product"])
    maps, e = run["product"].values, np.sqrt(2.0 * run["loss"].values)
    late = e < 1.0
    assert late.any()
    assert (np.linalg.det(maps) > -1e-14).all()
    assert (np.abs(maps[late, 0, 0]) > (1.0 - e[late]) ** 2 / e[late]).all()


def test_rank_one_completion_ends_at_the_only_matrix_of_rank_one():
    """[[1, 2], [3, ?]] has 6 there; the nuclear norm would prefer 1."""
    loss = dl.losses.completion((2, 2), [0, 0, 1], [0, 1, 0], [1.0, 2.0, 3.0])
    net = dl.LossNetwork((2, 1, 2), loss)
    run = dl.flow(net, net.initial("balanced", scale=0.1, rng=0), rtol=1e-10, save=SAVE)
    assert run.limit_kind.item() == dl.schema.LIMIT_KINDS.index("global_minimum")
    assert float(net.product(run.state[-1])[1, 1]) == pytest.approx(6.0, rel=1e-7)
    assert run["residual"].dims == ("time", "measurement")
    rests = [1.0, 2.0, 3.0] - net.product(run.state[3]).ravel()[:3]
    np.testing.assert_allclose(run["residual"][3], rests, rtol=1e-12)
    wide = dl.LossNetwork((2, 2, 2), loss)
    ends = []
    for scale in (3.0, 1.0, 0.3):
        x = wide.pack([np.sqrt(scale) * np.eye(2)] * 2)
        ends.append(float(wide.product(dl.flow(wide, x).state[-1])[1, 1]))
    misses = np.abs(np.array(ends) - 6.0)
    assert misses[0] > misses[1] > misses[2]
    assert misses[2] < 0.05


def test_a_run_to_infinity_is_told_to_have_no_limit():
    """From the wrong signs W_11 W_22 < 0 a rank-one run leaves for infinity, at the loss ½."""
    loss = dl.losses.completion((2, 2), [0, 0, 1], [0, 1, 0], [1.0, 2.0, 3.0])
    net = dl.LossNetwork((2, 1, 2), loss)
    run = dl.flow(net, net.initial("balanced", scale=0.1, rng=1))
    assert run.limit_kind.item() == dl.schema.LIMIT_KINDS.index("none")
    assert float(run.loss[-1]) == pytest.approx(0.5, abs=1e-3)
    assert abs(net.product(run.state[-1])[1, 1]) > 1e4


def ending(net, x):
    run = dl.flow(net, x)
    return run, dl.schema.decode(run.limit_kind).item(), dl.schema.decode(run.limit_decision).item()


@pytest.mark.parametrize("widths", [(2, 1), (1, 1, 1), (2, 2, 2), (2, 3, 3, 2)])
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-12])
def test_a_run_to_zero_or_nearly_ends_where_its_rounding_is(widths, value):
    """What is not observed keeps the size of W, and a run from there is as good as at rest."""
    loss = dl.losses.completion((widths[-1], widths[0]), [0], [0], [value])
    net = dl.LossNetwork(widths, loss)
    run, kind, _ = ending(net, net.initial(scale=0.5, rng=0))
    assert kind in (("global_minimum",) if value == 0.0 else ("global_minimum", "minimum"))
    x, time = run.state.values[-1], float(run.time[-1])
    later = dl.flow(net, x, (0.0, 9.0 * time)).state.values[-1]
    assert np.linalg.norm(later - x) <= 1e-7 * np.linalg.norm(x)
    assert dl.schema.decode(dl.classify(net, x).kind).item() != "not_critical" or value > 0.0


@pytest.mark.parametrize("h", [2, 3, 4])
@pytest.mark.parametrize("second", [0.0, 2.0])
@pytest.mark.parametrize("power", [-40, -3, 5, 40])
def test_units_change_nothing_but_time(h, second, power):
    """W = c W' and weights c^{1/h} times as large are a run that is c^{2−2/h} times as fast."""
    c = 2.0 ** (h * power)
    runs, middles = [], []
    for scale in (1.0, c):
        values = np.array([0.0, second, second]) * scale
        net = dl.LossNetwork(
            (2,) * (h + 1), dl.losses.completion((2, 2), [0, 0, 1], [0, 1, 0], values)
        )
        x = net.initial(scale=0.5, rng=1) * scale ** (1.0 / h)
        runs.append(ending(net, x))
        middles.append(dl.flow(net, x, (0.0, 3.0 * scale ** (2.0 / h - 2.0))).state.values[-1])
    (run, *words), (other, *same) = runs
    middle = middles[0] * c ** (1.0 / h)
    np.testing.assert_allclose(middle, middles[1], rtol=0, atol=1e-6 * np.abs(middle).max())
    assert words == same
    assert words[0] == "global_minimum"
    assert run.attrs["n_steps"] == pytest.approx(other.attrs["n_steps"], rel=0.1)
    ends = run.state.values[-1] * c ** (1.0 / h), other.state.values[-1]
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-6 * np.abs(ends[0]).max())


@pytest.mark.parametrize("ratio", [1e3, 1e6, 1e9, 1e12])
def test_entries_of_unlike_size_are_each_met_before_a_run_is_over(ratio):
    net = dl.LossNetwork((2, 2, 2), dl.losses.completion((2, 2), [0, 1], [0, 1], [ratio, 1.0]))
    run, kind, decision = ending(net, net.initial(scale=1.0, rng=0))
    assert (kind, decision) == ("global_minimum", "small_residual")
    W = net.product(run.state[-1])
    noise = 1e-15 * ratio
    np.testing.assert_allclose(np.diag(W), [ratio, 1.0], rtol=1e-3 + noise)


@pytest.mark.parametrize("h", [2, 3, 4])
@pytest.mark.parametrize("w", [0.3, 0.7])
def test_a_second_minimum_appears_with_the_weight_of_the_zeros(h, w):
    """Y = diag(a, b), off-diagonal weight w, one hidden unit: W = diag(0, b) has the Hessian
    s^{h−2} (w b ± a), h s^{2h−2} and h − 1 zeros, s = b^{1/h}: a minimum iff w > a/b.
    """
    a, b = 1.0, 2.0
    loss = dl.losses.completion((2, 2), [0, 0, 1, 1], [0, 1, 0, 1], [a, 0, 0, b], [1, w, w, 1])
    net = dl.LossNetwork((2, *[1] * (h - 1), 2), loss)
    s = b ** (1.0 / h)
    x = net.pack([[[0.0, s]], *[[[s]]] * (h - 2), [[0.0], [s]]])
    assert net.loss(x) == pytest.approx(0.5 * a**2, rel=1e-14)
    np.testing.assert_allclose(net.gradient(x), 0.0, atol=1e-14)
    scale = s ** (h - 2)
    known = [scale * (w * b - a), scale * (w * b + a), h * s ** (2 * h - 2), *[0.0] * (h - 1)]
    spectrum = dl.linearize(net, x)
    np.testing.assert_allclose(spectrum.eigenvalue, np.sort(known), rtol=0, atol=1e-13 * max(known))
    assert int(spectrum["index"]) == (w < a / b)
    push = x + 1e-3 * np.random.default_rng(0).normal(size=net.dim)
    run = dl.flow(net, push)
    assert (float(run.loss[-1]) == pytest.approx(0.5 * a**2, rel=1e-6)) == (w > a / b)


@pytest.mark.parametrize("seed", range(4))
def test_found_critical_points_meet_the_necessary_conditions(seed):
    """∇ℓᵀ U_W = 0 and ∇ℓ V_W = 0 with the frames of W (TKB20)."""
    loss = make_loss("measurements", (3, 4), seed)[0]
    net = dl.LossNetwork((4, 2, 3), loss)
    found = dl.find_critical_point(net, naive.state_of(net, seed, 0.8))
    W = net.product(found.state)
    G, (u, s, v) = loss.gradient(W), np.linalg.svd(W, full_matrices=False)
    kept = s > 1e-6 * s[0]
    size = 1.0 + np.linalg.norm(G)
    np.testing.assert_allclose(G.T @ u[:, kept], 0.0, atol=1e-7 * size)
    np.testing.assert_allclose(G @ v[kept].T, 0.0, atol=1e-7 * size)


def test_measurements_that_no_matrix_meets_have_their_least_squares_value():
    rng = np.random.default_rng(0)
    A, y, v = rng.normal(size=(9, 2, 3)), rng.normal(size=9), rng.uniform(0.5, 2.0, 9)
    loss = dl.losses.measurements(A, y, v)
    flat = np.sqrt(v)[:, None] * A.reshape(9, 6)
    rest = np.sqrt(v) * y - flat @ np.linalg.solve(flat.T @ flat, flat.T @ (np.sqrt(v) * y))
    assert loss.irreducible == pytest.approx(0.5 * rest @ rest, rel=1e-12)
    net = dl.LossNetwork((3, 3, 2), loss)
    run = dl.flow(net, net.initial("balanced", scale=0.5, rng=1))
    assert run.attrs["irreducible_loss"] == loss.irreducible
    assert run.limit_decision.item() == dl.schema.LIMIT_DECISIONS.index("small_residual")
    assert float(run.loss[-1]) == pytest.approx(loss.irreducible, rel=1e-10)
    assert dl.losses.measurements(A[:5], y[:5]).irreducible == 0.0
    assert CROSSED.irreducible == 0.0


def test_an_entry_that_is_given_twice_has_the_sum_of_the_weights():
    twice = dl.losses.completion((1, 2), [0, 0], [1, 1], [3.0, 3.0], [1.0, 0.5])
    once = dl.losses.completion((1, 2), [0], [1], [3.0], [1.5])
    x = np.array([0.3, 0.4])
    for loss in (twice, once):
        assert loss.value(x[None]) == pytest.approx(0.75 * 2.6**2, rel=1e-15)
        net = dl.LossNetwork((2, 1), loss)
        np.testing.assert_allclose(net.gradient(x), [0.0, -1.5 * 2.6], rtol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_carry_their_problem_and_can_be_judged_on_other_measurements(kind, tmp_path):
    loss, A, y, _ = make_loss(kind, (2, 3), 1)
    net = dl.LossNetwork((3, 2, 2), loss)
    run = dl.flow(net, net.initial(scale=0.5, rng=0), (0, 1))
    dl.save(run, tmp_path / "run.nc")
    again = dl.load_system(dl.load(tmp_path / "run.nc"))
    assert again.digest == net.digest
    x = net.initial(rng=1)
    np.testing.assert_array_equal(again.gradient(x), net.gradient(x))
    other = np.array([[0, 1], [2, 2]]) if kind == "completion" else A[:2] + 1.0
    B = [unit((2, 3), *place) for place in other.T] if kind == "completion" else other
    judged = dl.evaluate(net, run, other, [1.0, -1.0])
    W = net.product(run.state[-1])
    expected = 0.5 * sum((np.sum(b * W) - z) ** 2 for b, z in zip(B, [1.0, -1.0], strict=True))
    assert float(judged.loss[-1]) == pytest.approx(expected, rel=1e-12)
    assert len(y) == run.attrs["n_measurements"]


def test_what_is_of_samples_is_no_observable():
    net = dl.LossNetwork((2, 2, 2), CROSSED)
    for name in ("ntk_change", "ntk_eigenvalue", "alignment"):
        with pytest.raises(ValueError, match=f"^save: there is no '{name}'"):
            dl.flow(net, net.initial(rng=0), (0, 1), save=[name])


def test_repr():
    net = dl.LossNetwork((2, 3, 2), CROSSED)
    assert repr(net) == "LossNetwork(2 -> 3 -> 2, completion)"
    assert repr(CROSSED) == "Measurements(completion, 3 of them, 2 -> 2)"


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("rows: needs at least one", lambda: dl.losses.completion((2, 2), [], [], [])),
        ("rows", lambda: dl.losses.completion((2, 2), [2], [0], [1.0])),
        ("rows", lambda: dl.losses.completion((2, 2), [0.5], [0], [1.0])),
        ("columns", lambda: dl.losses.completion((2, 2), [0], [-1], [1.0])),
        ("columns", lambda: dl.losses.completion((2, 2), [0], [0, 1], [1.0])),
        ("values", lambda: dl.losses.completion((2, 2), [0], [0], [1.0, 2.0])),
        (r"values: entry \(0, 1\)", lambda: dl.losses.completion((2, 2), [0, 0], [1, 1], [1, 2])),
        ("values", lambda: dl.losses.completion((2, 2), [0], [0], [np.nan])),
        ("weights", lambda: dl.losses.completion((2, 2), [0], [0], [1.0], [-1.0])),
        ("weights", lambda: dl.losses.completion((2, 2), [0], [0], [1.0], [0.0])),
        ("weights", lambda: dl.losses.completion((2, 2), [0], [0], [1.0], [1.0, 1.0])),
        ("shape", lambda: dl.losses.completion((2,), [0], [0], [1.0])),
        ("shape", lambda: dl.losses.completion((0, 2), [0], [0], [1.0])),
        ("A", lambda: dl.losses.measurements(np.zeros((0, 2, 2)), [])),
        ("A", lambda: dl.losses.measurements([[1.0]], [1.0])),
        ("y", lambda: dl.losses.measurements([[[1.0]]], [1.0, 2.0])),
        ("weights", lambda: dl.losses.measurements([[[1.0]]], [1.0], [-1.0])),
        ("weight", lambda: dl.losses.measurements([[[1.0]]], [1.0], weight=[1.0])),
        ("kind", lambda: dl.losses.Measurements("entries", (1, 1), [[[1.0]]], [1.0], [1.0])),
        ("W", lambda: CROSSED.value([[1.0]])),
        ("W", lambda: CROSSED.gradient(np.full((2, 2), np.inf))),
        ("V", lambda: CROSSED.second_derivative(np.eye(2), [1.0])),
        ("widths", lambda: dl.LossNetwork((2, 3), CROSSED)),
        ("X", lambda: CROSSED.on([[0], [2]], [1.0])),
        ("Y", lambda: CROSSED.on([[0], [1]], [1.0, 2.0])),
        (r"Y: entry \(1, 0\)", lambda: CROSSED.on([[1, 1], [0, 0]], [1.0, 2.0])),
        ("A: needs entries", lambda: dl.losses.measurements(np.zeros((2, 1, 1)), [1.0, 2.0])),
        ("shape", lambda: dl.losses.measurements([[[1.0]]], [1.0], shape=(1,))),
        ("shape", lambda: dl.losses.measurements(scipy.sparse.eye_array(1), [1], shape=(1,) * 3)),
        ("shape", lambda: dl.losses.measurements(scipy.sparse.eye_array(4), np.ones(4))),
        ("shape", lambda: dl.losses.measurements(scipy.sparse.eye_array(4), np.ones(4), shape=4)),
        ("A", lambda: dl.losses.measurements(scipy.sparse.eye_array(4), np.ones(4), shape=(2, 3))),
        ("A", lambda: dl.losses.measurements(scipy.sparse.csr_array((1, 4)), [1.0], shape=(2, 2))),
        (
            "A",
            lambda: dl.losses.measurements(np.nan * scipy.sparse.eye_array(1), [1], shape=(1, 1)),
        ),
        ("y", lambda: dl.losses.measurements(scipy.sparse.eye_array(4), np.ones(3), shape=(2, 2))),
        ("A", lambda: dl.losses.measurements([[[1.0]]], [1.0], shape=(1, 2))),
        (
            "operators: rows",
            lambda: dl.losses.Measurements(
                "sparse_measurements", (1, 1), [[0.0], [1.0], [0.0], [1.0]], [1.0], [1.0]
            ),
        ),
    ],
)
def test_what_is_wrong_is_named(name, call):
    with pytest.raises((ValueError, TypeError), match=f"^{name}"):
        call()


def test_messages_of_completion_name_what_was_given():
    with pytest.raises(ValueError, match=r"^shape: "):
        dl.losses.completion((10**6, 10**6), [0], [0], [1.0])
    with pytest.raises(ValueError, match=r"0\.3 and as 0\.30000000000000004"):
        dl.losses.completion((1, 1), [0, 0], [0, 0], [0.3, 0.1 + 0.2])


MASKS = [
    [True, False],
    [True, 0],  # of which numpy makes numbers
    [np.True_, np.False_],
    np.array([True, False]),
    np.array([True, 0], dtype=object),
    xr.DataArray([True, False], dims="entry"),
]


@pytest.mark.parametrize("mask", MASKS)
def test_masks_are_no_places(mask):
    with pytest.raises(TypeError, match=r"^rows: needs (whole|real) numbers, got"):
        dl.losses.completion((2, 2), mask, [0, 1], [1.0, 2.0])
    with pytest.raises(TypeError, match=r"^columns: needs (whole|real) numbers, got"):
        dl.losses.completion((2, 2), [0, 1], mask, [1.0, 2.0])


def test_masks_are_no_places_of_other_data():
    mask = [[True, False], [False, True]]
    with pytest.raises(TypeError, match=r"^operators: needs whole numbers, got"):
        dl.losses.Measurements("completion", (2, 2), mask, [1.0, 2.0], [1.0, 1.0])
