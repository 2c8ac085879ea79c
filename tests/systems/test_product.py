"""Laws of the Riemannian gradient flow of the end-to-end map (BRTW22)."""

import itertools
from fractions import Fraction

import contracts
import naive
import numba
import numpy as np
import pytest
import scipy.integrate
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnds as dl
from dlnds._kernels import jit
from dlnds._kernels import product as kernels
from dlnds.runs.flow import MANY

EPS = np.finfo(float).eps

CASES = [
    ((3, 3), 2),
    ((3, 4, 3), 2),
    ((4, 3, 3, 3), 3),
    ((3, 3, 2, 3, 4), 2),
    ((3, 2, 3, 2, 3, 4), 1),
]


def flow_of(widths, rank, seed=7, kind="whitened"):
    return dl.ProductFlow(naive.random_network(widths, seed, kind), rank=rank)


def field_of(prod, x):
    return contracts.call(prod.field, jit.FIELD, prod.dim, 0.0, np.array(x), prod.params)


def moved(prod, x, v):
    """The change of W = A Bᵀ along v."""
    (A, B), (dA, dB) = prod.unpack(x), prod.unpack(v)
    return dA @ B.T + A @ dB.T


def gradient(prod, x):
    """∇ℓ(W) = W C − M."""
    K = naive.root(prod.network)
    return (prod.product(x) @ K - prod.network.target) @ K.T


@st.composite
def flows(draw):
    net = draw(naive.networks.filter(lambda net: net.depth > 1))
    return dl.ProductFlow(net, rank=draw(st.integers(1, min(net.widths))))


@pytest.mark.parametrize("kind", naive.KINDS)
@pytest.mark.parametrize(("widths", "rank"), CASES)
def test_the_flow_keeps_the_contract_of_systems(widths, rank, kind):
    prod = flow_of(widths, rank, kind=kind)
    contracts.check_system(prod, prod.initial(scale=1.1, rng=3))


@pytest.mark.parametrize("sizes", [(1.0, 1.0, 0.3), (1.0, 1.0 + 1e-9, 1.0), (1.5, 1.5, 1.5)])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7])
def test_derivatives_are_exact_at_equal_and_close_singular_values(sizes, depth):
    prod = flow_of((4,) * (depth + 1), 3)
    rng = np.random.default_rng(depth)
    U, V = (np.linalg.qr(rng.normal(size=(4, 3)))[0] for _ in range(2))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    root = np.sqrt(sizes)
    contracts.check_system(prod, prod.pack((U * root @ turn, V * root @ turn)))


@pytest.mark.parametrize("small", [1e-8, 1e-20, 1e-40])
def test_derivatives_are_those_of_two_layers_at_singular_values_far_apart(small):
    prod = flow_of((3, 3, 3), 3)
    rng, root = np.random.default_rng(0), np.sqrt([1.0, 0.5, small])
    U, V = (np.linalg.qr(rng.normal(size=(3, 3)))[0] * root for _ in range(2))
    x = np.concatenate([V.T.ravel(), U.ravel()])
    J = contracts.call(prod.jacobian, jit.JACOBIAN, (prod.dim,) * 2, 0.0, x, prod.params)
    np.testing.assert_allclose(J, -prod.factors.hessian(x), rtol=0, atol=1e-13)


@pytest.mark.compiled
@pytest.mark.parametrize("h", [2, 3, 4])
def test_a_start_with_the_wrong_sign_ends_at_a_saddle_and_keeps_it(h):
    """det W(0) < 0 < det Σ: W cannot reach Σ, and comes to Σ without its last mode."""
    target = np.array([[1.5, 0.4], [-0.3, 1.2]])
    prod = dl.ProductFlow(dl.LinearNetwork((2,) * (h + 1), target), rank=2)
    x = prod.factor([[0.5, 0.2], [0.1, -0.3]])
    run = dl.flow(prod, x, save=["log_singular_value"])
    assert run.limit_kind.item() == dl.schema.LIMIT_KINDS.index("saddle")
    loss = 0.5 * np.linalg.svd(target)[1][1] ** 2
    assert float(run.loss[-1]) == pytest.approx(loss, rel=1e-12)
    run = dl.flow(prod, x, (0, 100), save=["log_singular_value", "determinant_sign"])
    assert (run.determinant_sign == -1.0).all()
    assert (np.diff(run.log_singular_value[-9:, 1]) < 0.0).all()


@pytest.mark.compiled
@pytest.mark.parametrize("h", [2, 3, 4])
@pytest.mark.parametrize("loss", ["square", "completion"])
@pytest.mark.parametrize("target", [[[-3.0]], [[3.0, 0.5, 0.2], [0.1, 2.0, 0.4], [0.3, 0.0, 1.0]]])
def test_every_run_of_full_rank_keeps_the_sign_of_its_determinant(h, loss, target):
    """It ends at Σ if that has the sign, and at Σ without its last mode if not; so for all h."""
    target = np.array(target)
    d = len(target)
    if loss == "square":
        net = dl.LinearNetwork((d,) * (h + 1), target)
    else:
        rows, columns = np.indices((d, d)).reshape(2, -1)
        entries = dl.losses.completion((d, d), rows, columns, target.ravel())
        net = dl.LossNetwork((d,) * (h + 1), entries)
    prod, W = dl.ProductFlow(net, rank=d), 0.5 * np.eye(d)[::-1] + 0.05
    for sign in (1.0, -1.0):
        start = W * np.r_[sign, np.ones(d - 1)]
        right = np.linalg.slogdet(start)[0] == np.linalg.slogdet(target)[0]
        run = dl.flow(prod, prod.factor(start), save=["determinant_sign"])
        assert (run.determinant_sign == np.linalg.slogdet(start)[0]).all()
        assert dl.schema.decode(run.stop_reason).item() == "limit_reached"
        left = 0.0 if right else 0.5 * np.linalg.svd(target)[1][-1] ** 2
        assert float(run.loss[-1]) == pytest.approx(left, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("case", ["one", "two", "within", "thin"])
def test_one_layer_runs_straight_until_it_loses_its_rank_and_ends_there(case):
    """h = 1: W = Σ + e^{−t} (W(0) − Σ) within the matrices of rank k, while s_k > 0."""
    start, target, first = {
        "one": ([[0.5]], [[-3.0]], np.log(3.5 / 3.0)),
        # det W = 2 (1−u)² − u²/4 of u = e^{−t}
        "two": ([[0.0, 0.5], [0.5, 0.0]], np.diag([2.0, 1.0]), np.log(1.0 + np.sqrt(0.125))),
        "within": (
            [[0.0, 0.5, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]],
            np.diag([2.0, 1.0, 0.0]),
            np.log(1.0 + np.sqrt(0.125)),
        ),
        "thin": ([[0.5, 0, 0], [0, 0, 0]], [[-1.0, 0, 0], [0, 0, 0]], np.log(1.5)),
    }[case]
    start, target = np.array(start), np.array(target)
    k = np.linalg.matrix_rank(start)
    prod = dl.ProductFlow(dl.LinearNetwork(start.shape[::-1], target), rank=k)
    run = dl.flow(prod, prod.factor(start), save=["product", "determinant_sign"])
    assert dl.schema.decode(run.stop_reason).item() == "step_too_small"
    assert dl.schema.decode(run.limit_kind).item() == "none"
    assert float(run.time[-1]) == pytest.approx(first, rel=1e-9)
    assert (run.determinant_sign == run.determinant_sign[0]).all()
    straight = target + np.exp(-run.time.values)[:, None, None] * (start - target)
    np.testing.assert_allclose(run["product"], straight, rtol=0, atol=1e-8)


def test_stacks_of_any_size_are_of_the_flow_itself():
    """One that is compiled for two layers as a network of their own is another for h > 2."""
    prod = dl.ProductFlow(dl.LinearNetwork((2, 2, 2, 2), np.diag([2.0, 1.0])), rank=1)
    x = prod.initial(scale=0.5, rng=0)
    alone = dl.flow(prod, x, (0, 1), t_eval=[1.0])
    many = dl.flow(prod, np.tile(x, (MANY, 1)), (0, 1), t_eval=[1.0])
    np.testing.assert_array_equal(many.state[-1], alone.state)


@settings(max_examples=25)
@given(flows(), naive.seeds)
def test_the_field_moves_the_map_by_its_definition(prod, seed):
    """Ẇ = −𝒜_W(∇ℓ(W)), and AᵀA − BᵀB stays."""
    x = prod.initial(scale=1.0, rng=seed)
    v, G = field_of(prod, x), gradient(prod, x)
    size = np.abs(G).max() * max(1.0, np.abs(x).max()) ** 3
    expected = naive.riemannian_operator(prod.product(x), -G, prod.depth, prod.rank)
    s = prod.singular_values(x)
    near = 1e-12 * size * s[0] / s[-1]
    np.testing.assert_allclose(moved(prod, x, v), expected, rtol=0, atol=near)
    (A, B), (dA, dB) = prod.unpack(x), prod.unpack(v)
    drift = A.T @ dA + dA.T @ A - B.T @ dB - dB.T @ B
    assert np.abs(drift).max() <= near
    np.testing.assert_allclose(moved(prod, x, prod.velocity(x, -G)), expected, rtol=0, atol=near)


@pytest.mark.parametrize("kind", naive.KINDS)
def test_two_layers_are_their_own_product_flow(kind):
    prod = flow_of((4, 5, 3), 2, kind=kind)
    x = prod.initial(scale=1.0, rng=0)
    np.testing.assert_allclose(field_of(prod, x), -prod.factors.gradient(x), rtol=0, atol=1e-13)


def test_a_turn_of_the_columns_of_the_factors_turns_the_field():
    prod = flow_of((4, 3, 3, 3), 3)
    x = prod.initial(scale=1.0, rng=0)
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]

    def turn(state):
        A, B = prod.unpack(state)
        return np.concatenate([(Q.T @ B.T).ravel(), (A @ Q).ravel()])

    np.testing.assert_allclose(field_of(prod, turn(x)), turn(field_of(prod, x)), atol=1e-13)


@numba.njit
def diagonalized(N, Q):
    kernels.diagonalize(N, Q)


@given(naive.seeds)
def test_small_eigenvalues_of_a_graded_matrix_keep_their_digits(seed):
    """Elementary symmetric functions of the eigenvalues are sums of principal minors."""
    rng = np.random.default_rng(seed)
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [1.0, 1.5, 2.0]
    scale = np.array([1.0, 1e-5, 1e-11])
    N = np.abs(scale[:, None] * (R @ R.T) * scale)
    N = np.triu(N) + np.triu(N, 1).T
    values, Q = N.copy(), np.empty((3, 3))
    diagonalized(values, Q)
    exact = [[Fraction(float(a)) for a in row] for row in N]

    def minor(rows):
        if len(rows) == 1:
            return exact[rows[0]][rows[0]]
        total = Fraction(0)
        for order in itertools.permutations(range(len(rows))):
            sign = np.linalg.det(np.eye(len(rows))[list(order)])
            term = Fraction(round(sign))
            for i, j in enumerate(order):
                term *= exact[rows[i]][rows[j]]
            total += term
        return total

    found = [Fraction(float(v)) for v in np.diagonal(values)]
    for size in (1, 2, 3):
        expected = sum(minor(rows) for rows in itertools.combinations(range(3), size))
        got = Fraction(0)
        for rows in itertools.combinations(range(3), size):
            term = Fraction(1)
            for i in rows:
                term *= found[i]
            got += term
        assert abs(float(got / expected) - 1.0) < 1e-13
    np.testing.assert_allclose(Q.T @ Q, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(Q * np.diagonal(values) @ Q.T, N, atol=1e-14)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["whitened", "full"])
@pytest.mark.parametrize(("widths", "rank"), CASES[1:])
def test_the_flow_is_the_image_of_that_of_balanced_networks(widths, rank, kind):
    prod = flow_of(widths, rank, kind=kind)
    x, grid = prod.initial(scale=0.8, rng=3), np.linspace(0.0, 3.0, 7)
    start = prod.lift(x)
    assert prod.network.imbalances(start)[0] == pytest.approx(0.0, abs=1e-14)
    options = {"save": ("product", "singular_value"), "rtol": 1e-11}
    below = dl.flow(prod.network, start, (0, 3), grid, **options)
    above = dl.flow(prod, x, (0, 3), grid, **options)
    size = max(1.0, float(np.abs(below["product"]).max()))
    for name, allowed in (("product", 2e-9), ("loss", 2e-9), ("loss_rate", 2e-8)):
        bound = allowed * size * max(1.0, float(np.abs(below[name]).max()))
        np.testing.assert_allclose(above[name], below[name], rtol=0, atol=bound)
    beyond = np.linalg.svd(above["product"].values, compute_uv=False)
    assert (beyond[:, rank:] <= 1e-12 * beyond[:, :1]).all()
    assert (above.singular_value[:, rank - 1] > 0.0).all()
    np.testing.assert_allclose(above.singular_value, beyond, rtol=0, atol=1e-13 * size)


@given(flows(), naive.seeds)
def test_networks_over_a_map_are_balanced_and_lead_back_to_it(prod, seed):
    x = prod.initial(scale=0.7, rng=seed)
    W = prod.product(x)
    above = prod.lift(x)
    size = np.abs(above).max() ** 2
    for c in prod.network.imbalances(above):
        assert np.abs(c).max() <= 1e-13 * size
    s = prod.singular_values(x)
    bound = 1e-13 * s[0] * (s[0] / s[-1])
    np.testing.assert_allclose(prod.network.product(above), W, rtol=0, atol=1e-13 * s[0])
    for state in (prod.from_balanced(above), prod.factor(W), prod.pack(prod.unpack(x))):
        np.testing.assert_allclose(prod.product(state), W, rtol=0, atol=bound)
        A, B = prod.unpack(state)
        np.testing.assert_allclose(A.T @ A, B.T @ B, rtol=0, atol=bound)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["whitened", "full", "singular"])
@pytest.mark.parametrize(("widths", "rank"), CASES)
def test_a_run_ends_at_the_best_map_of_its_rank(widths, rank, kind):
    """Eckart–Young: W K = U_k Σ_k V_kᵀ, also for raw inputs."""
    prod = flow_of(widths, rank, kind=kind)
    run = dl.flow(prod, prod.initial(scale=0.8, rng=1), rtol=1e-11)
    assert run.dlnds.decode("limit_kind").item() == "global_minimum"
    assert run.limit == dl.schema.index_set_label(range(rank))
    U, s, V = prod.network.singular_modes
    best = (U[:, :rank] * s[:rank]) @ V[:, :rank].T
    image = prod.factors.image(run.state[-1].values)
    assert np.linalg.norm(image - best) <= 1e-10 * np.linalg.norm(s)
    assert run.loss[-1] - 0.5 * np.sum(s[rank:] ** 2) <= 1e-10
    assert (np.diff(run.loss) <= 1e-13).all()


@pytest.mark.compiled
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_modes_are_learnt_at_the_times_of_the_law(depth):
    """ṗ = h p^{2−2/h}(σ − p) for each mode, from 1e-3 in every layer, over all plateaus."""
    sigma, scale = np.array([3.0, 2.0, 1.0]), 1e-3
    prod = dl.ProductFlow(dl.LinearNetwork((3,) * (depth + 1), target=np.diag(sigma)), rank=3)
    events = [lambda t, x, j=j: prod.product(x)[j, j] - 0.5 * sigma[j] for j in range(3)]
    run = dl.flow(prod, prod.initial("aligned", scale=scale), rtol=1e-9, events=events)
    for j in range(3):
        expected = naive.time_between(scale**depth, 0.5 * sigma[j], sigma[j], depth)
        assert run.time.values[run.event == j] == pytest.approx(expected, rel=1e-6)
    assert run.attrs["n_steps"] < 600
    assert run.limit == "{0,1,2}"


def test_learnt_modes_rest_and_the_others_flow_at_a_smaller_rank():
    """W falls into two blocks; so does the flow, and the field of the rest is its own."""
    net = dl.LinearNetwork((4, 5, 5, 3), target=np.eye(3, 4) * [[3.0], [2.0], [1.0]])
    prod = dl.ProductFlow(net, rank=2)
    W = np.zeros((3, 4))
    W[0, 0], W[1:, 1:] = 3.0, np.multiply.outer([0.3, 0.2], [0.1, -0.4, 0.2])
    x = prod.factor(W)
    rest = prod.numerics.deflate(x, 1e-8)
    assert (rest.system.rank, rest.system.network.widths) == (1, (3, 4, 4, 2))
    np.testing.assert_allclose(prod.product(rest.lift(rest.state[None])[0]), W, rtol=0, atol=1e-15)
    ahead = field_of(rest.system, rest.state)
    step = 1e-3
    change = rest.lift((rest.state + step * ahead)[None])[0] - rest.lift(rest.state[None])[0]
    expected = moved(prod, x, field_of(prod, x))
    np.testing.assert_allclose(moved(prod, x, change / step), expected, rtol=0, atol=1e-12)
    assert prod.numerics.deflate(prod.initial(scale=0.5, rng=0), 1e-8) is None
    assert prod.limit(x, rtol=1e-8).kind == "none"
    assert prod.limit(prod.critical_state((0, 1)), rtol=1e-8).kind == "global_minimum"


def test_a_best_map_that_is_not_the_only_one_is_told_by_its_loss():
    prod = dl.ProductFlow(dl.LinearNetwork((3, 3, 3), target=np.diag([2.0, 1.0, 1.0])), rank=2)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]])
    x = prod.pack((turn.T * np.sqrt([2.0, 1.0]), turn.T * np.sqrt([2.0, 1.0])))
    assert prod.limit(x, rtol=1e-8).kind == "global_minimum"
    assert prod.limit(prod.factor(np.diag([2.0, 0.9, 0.0])), rtol=1e-8).kind == "none"


def test_entropies_of_stacks_and_parts_of_a_flow():
    prod = flow_of((3, 4, 3, 3), 2)
    x = prod.initial(scale=0.8, rng=0)
    np.testing.assert_allclose(prod.entropy(np.stack([x, x])), prod.entropy(x), rtol=1e-14)
    assert prod.entropy(x).shape == ()
    np.testing.assert_allclose(
        prod.singular_values(x), np.linalg.svd(prod.product(x), compute_uv=False)[:2], rtol=1e-12
    )
    assert "rank=2" in repr(prod)
    other = dl.ProductFlow(prod.network, rank=1)
    assert prod.attributes()["problem_digest"] != other.attributes()["problem_digest"]
    reached = prod.initial("aligned", scale=[0.9, 0.5])
    np.testing.assert_allclose(prod.singular_values(reached), [0.9**3, 0.5**3], rtol=1e-12)


def test_runs_can_be_stored_and_brought_along(tmp_path):
    prod = flow_of((3, 4, 3, 3), 2)
    x = prod.initial(scale=0.8, rng=0)
    run = dl.flow(prod, x, (0, 1), [0, 1], save=("state", "entropy", "rank_gap", "singular_value"))
    dl.save(run, tmp_path / "run.nc")
    assert dl.load(tmp_path / "run.nc").identical(run)
    assert run.attrs["rank"] == 2
    same = dl.as_run(prod, run.time.values, [prod.unpack(state) for state in run.state.values])
    np.testing.assert_allclose(same.loss, run.loss, rtol=1e-12)
    A = dl.weights(run, layer=2).values
    np.testing.assert_array_equal(A[-1], prod.unpack(run.state.values[-1])[0])


@pytest.mark.compiled
@pytest.mark.parametrize("depth", [2, 3])
def test_a_rank_above_that_of_the_target_is_kept_but_not_in_the_limit(depth):
    """The spare singular values obey ṡ = −h s^{3−2/h}, and decay like a power."""
    prod = dl.ProductFlow(dl.LinearNetwork((3,) * (depth + 1), target=np.diag([2.0, 0.0, 0.0])), 2)
    x = prod.factor(np.diag([1.0, 0.5, 0.0]))
    grid = np.array([0.0, 1.0, 1e3])
    found = dl.flow(prod, x, (0.0, 1e3), grid, rtol=1e-10).state.values
    power = 2.0 - 2.0 / depth
    expected = (0.5**-power + power * depth * grid) ** (-1.0 / power)
    np.testing.assert_allclose(prod.singular_values(found)[:, 1], expected, rtol=1e-7)
    run = dl.flow(prod, x)
    assert (run.limit, run.dlnds.decode("limit_kind").item()) == ("{0}", "global_minimum")
    with pytest.raises(ValueError, match="^modes: .* no critical points of rank 2"):
        dl.critical_points(prod)


def test_a_run_rests_at_a_saddle_of_its_rank():
    prod = dl.ProductFlow(dl.LinearNetwork((3, 3, 3, 3), target=np.diag([4.0, 1.0, 0.5])), rank=1)
    run = dl.flow(prod, prod.critical_state((1,)))
    assert run.dlnds.decode("stop_reason").item() == "at_rest"
    assert run.dlnds.decode("limit_kind").item() == "saddle"
    assert run.limit == "{1}"


@pytest.mark.compiled
def test_every_engine_takes_the_flow():
    prod = flow_of((3, 4, 3, 3), 2)
    x, best = prod.initial(scale=0.8, rng=0), prod.critical_state((0, 1))
    point = dl.find_critical_point(prod, best + 0.01 * x)
    assert point.attrs["limit"] == "{0,1}"
    assert point.nullity == 4
    spectrum = dl.linearize(prod, best)
    assert int(spectrum["index"]) == 0
    assert int(spectrum.nullity) == int(spectrum.orbit_dimension) == 4
    assert np.abs(spectrum.eigenvalue_imag).max() < 1e-12
    exponents = dl.lyapunov_spectrum(prod, best, (0.0, 400.0)).exponent.values
    np.testing.assert_allclose(np.sort(exponents), spectrum.eigenvalue, rtol=0, atol=0.02)
    steps = dl.iterate(dl.GradientDescent(prod, step_size=0.02), x, 4000, every=4000)
    assert steps.loss[-1] - prod.lowest_loss < 1e-10


@pytest.mark.compiled
def test_weight_decay_of_the_layers_has_its_fold():
    """λ = s^{h−2}(σ − s^h) with a fold at λ_fold = s^{h−2} hσ/(2h−2), s^h = (h−2)σ/(2h−2)."""
    prod = dl.ProductFlow(dl.LinearNetwork((2, 3, 3, 3, 2), target=np.diag([4.0, 1.0])), rank=1)
    decay, s = dl.equilibria(prod, vary="weight_decay"), 1.3
    p, x = s**2 * (4.0 - s**4), prod.factor(np.diag([s**4, 0.0]))
    assert np.abs(decay.value(x, p)).max() < 1e-13
    branch = dl.branch(decay, x, p, bounds=(0.1, 4.0))
    fold = branch.isel(step=branch.dlnds.decode("event").values == "fold")
    size = (2.0 * 4.0 / 6.0) ** 0.25
    np.testing.assert_allclose(fold.p, size**2 * 4.0 * 4.0 / 6.0, rtol=1e-8)


@pytest.mark.compiled
@pytest.mark.parametrize("fixed", ["target", "map"])
def test_best_maps_follow_the_covariance(fixed):
    prod = flow_of((3, 3, 3, 3), 2, seed=2, kind="full")
    family = dl.equilibria(prod, vary="covariance", fixed=fixed)
    branch = dl.branch(family, prod.critical_state((0, 1)), 1.0, bounds=(0.0, 1.0))
    assert (branch["index"] == 0).all()
    assert (branch.nullity == 4).all()
    x = prod.initial(scale=1.0, rng=0)
    step = 1e-5
    change = (family.value(x, 0.4 + step) - family.value(x, 0.4 - step)) / (2.0 * step)
    np.testing.assert_allclose(family.slope(x, 0.4), change, rtol=0, atol=1e-8)


def test_best_maps_follow_the_target():
    prod = flow_of((3, 3, 3), 2)
    path = (prod.network.target, prod.network.target + 0.1 * np.eye(3))
    family = dl.equilibria(prod, vary="target", path=path)
    branch = dl.branch(family, prod.critical_state((0, 1)), 0.0, bounds=(0.0, 1.0))
    s = np.linalg.svd(path[1], compute_uv=False)
    assert branch.loss.values[-1] == pytest.approx(0.5 * s[2] ** 2, rel=1e-8)


# The manifold and its metric.


def points():
    """A state of each depth on matrices 5 × 4 of rank 3, and two tangent vectors."""
    for depth in (1, 2, 3, 4, 7):
        net = naive.random_network((4, *(5,) * (depth - 1), 5), depth, "full")
        prod = dl.ProductFlow(net, rank=3)
        rng = np.random.default_rng(depth)
        W = np.linalg.multi_dot(
            [
                np.linalg.qr(rng.normal(size=(5, 3)))[0],
                np.diag([2.0, 1.3, 0.7]),
                np.linalg.qr(rng.normal(size=(4, 3)))[0].T,
            ]
        )
        x = prod.factor(W)
        yield prod, x, W, [prod.projection(x, rng.normal(size=(5, 4))) for _ in range(2)]


POINTS = pytest.mark.parametrize("case", list(points()), ids=lambda case: f"h={case[0].depth}")


@POINTS
def test_the_operator_is_its_definition_and_self_adjoint(case):
    prod, x, W, _ = case
    rng = np.random.default_rng(0)
    Z, Y = rng.normal(size=(2, 5, 4))
    image = prod.operator(x, Z)
    assert np.sum(image * Y) == pytest.approx(np.sum(Z * prod.operator(x, Y)), rel=1e-12)
    assert np.sum(image * Z) >= 0.0
    np.testing.assert_allclose(prod.projection(x, image), image, rtol=0, atol=1e-13)
    if prod.depth > 1:
        expected = naive.riemannian_operator(W, Z, prod.depth, prod.rank)
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-12)
    else:
        np.testing.assert_allclose(image, prod.projection(x, Z), rtol=0, atol=1e-14)


@POINTS
def test_eigenvalues_of_the_operator_are_quotients_of_singular_values(case):
    """(s_i² − s_k²)/(s_i^{2/h} − s_k^{2/h}), h s_i^{2−2/h}, s_i^{2−2/h}, and zero."""
    prod, x, W, _ = case
    U, s, Vt = np.linalg.svd(W)
    h, s = prod.depth, np.append(s[:3], [0.0, 0.0])
    for i, k in itertools.product(range(5), range(4)):
        if s[i] == s[k] == 0.0:
            expected = 0.0
        elif i == k:
            expected = h * s[i] ** (2 - 2 / h)
        else:
            expected = (
                1.0 if h == 1 else (s[i] ** 2 - s[k] ** 2) / (s[i] ** (2 / h) - s[k] ** (2 / h))
            )
        Z = np.outer(U[:, i], Vt[k])
        np.testing.assert_allclose(prod.operator(x, Z), expected * Z, rtol=0, atol=1e-12)


@POINTS
def test_the_image_of_the_operator_is_the_tangent_space(case):
    prod, x, W, tangents = case
    images = [prod.operator(x, Z).ravel() for Z in np.eye(20).reshape(20, 5, 4)]
    assert np.linalg.matrix_rank(images, tol=1e-10) == 3 * (5 + 4 - 3)
    for Z in tangents:
        Y = prod.inverse_operator(x, Z)
        np.testing.assert_allclose(prod.operator(x, Y), Z, rtol=0, atol=1e-12)
        np.testing.assert_allclose(prod.projection(x, Y), Y, rtol=0, atol=1e-12)
        curve = [np.linalg.svd(W + t * Z, compute_uv=False)[3] for t in (1e-2, 1e-3)]
        assert curve[1] <= 0.02 * curve[0]  # tangent: the fourth singular value is O(t²)


@POINTS
def test_the_metric_is_its_integral(case):
    """(sin(π/h)/π) ∫_0^∞ tr[(tI + WWᵀ)^{-1} Z_1 (tI + WᵀW)^{-1} Z_2ᵀ] t^{1/h} dt."""
    prod, x, W, (Z1, Z2) = case
    h, found = prod.depth, prod.inner_product(x, Z1, Z2)
    assert found == pytest.approx(prod.inner_product(x, Z2, Z1), rel=1e-12)
    if h == 1:
        assert found == pytest.approx(np.sum(Z1 * Z2), rel=1e-12)
        return

    U, s, Vt = np.linalg.svd(W)
    left, right = np.append(s[:3], [0.0, 0.0]) ** 2, np.append(s[:3], 0.0) ** 2
    weights = (U.T @ Z1 @ Vt.T) * (U.T @ Z2 @ Vt.T)
    weights[3:, 3:] = 0.0  # tangent vectors have nothing there

    def integrand(r):
        """With t = e^r, in singular vectors, where the inverses are diagonal."""
        t = np.exp(r)
        return np.sum(weights / np.multiply.outer(t + left, t + right)) * t ** (1 / h + 1)

    value, _ = scipy.integrate.quad(integrand, -40.0 * h, 80.0, epsabs=0, epsrel=1e-10, limit=400)
    assert found == pytest.approx(np.sin(np.pi / h) / np.pi * value, rel=1e-9)


@POINTS
def test_runs_have_the_speed_of_the_metric(case):
    """‖ẋ‖² = g_W(Ẇ, Ẇ) for the balanced network, = −dL/dt, the norm of the gradient squared."""
    prod, x, _, _ = case
    xi = prod.riemannian_gradient(x)
    np.testing.assert_allclose(moved(prod, x, -field_of(prod, x)), xi, rtol=0, atol=1e-11)
    square = prod.inner_product(x, xi, xi)
    assert square == pytest.approx(np.sum(xi * gradient(prod, x)), rel=1e-11)
    found = prod.observables(x[None], ["loss_rate", "gradient_norm"])
    assert -found["loss_rate"].item() == pytest.approx(square, rel=1e-11)
    assert found["gradient_norm"].item() ** 2 == pytest.approx(square, rel=1e-11)
    if prod.depth > 1:
        speed = np.linalg.norm(prod.network.gradient(prod.lift(x)))
        assert speed**2 == pytest.approx(square, rel=1e-11)


@POINTS
def test_retraction_is_the_nearest_map_and_agrees_to_second_order(case):
    prod, x, W, (Z, _) = case
    U, s, Vt = np.linalg.svd(W + 0.3 * Z, full_matrices=False)
    nearest = (U[:, :3] * s[:3]) @ Vt[:3]
    found = prod.product(prod.retraction(x, 0.3 * Z))
    np.testing.assert_allclose(found, nearest, rtol=0, atol=1e-13)
    errors = [
        np.linalg.norm(prod.product(prod.retraction(x, t * Z)) - W - t * Z) for t in (1e-2, 5e-3)
    ]
    assert 3.5 < errors[0] / errors[1] < 4.5


@POINTS
def test_lifts_move_the_map_across_the_turns(case):
    prod, x, _, (Z, _) = case
    v = prod.horizontal_lift(x, Z)
    np.testing.assert_allclose(moved(prod, x, v), Z, rtol=0, atol=1e-13)
    (A, B), (dA, dB) = prod.unpack(x), prod.unpack(v)
    drift = A.T @ dA + dA.T @ A - B.T @ dB - dB.T @ B
    assert np.abs(drift).max() < 1e-13
    assert np.abs(prod.generators(x, orthogonal=True) @ v).max() < 1e-13


@POINTS
def test_the_hessian_is_half_the_lie_derivative_of_the_metric(case):
    """2 g(Hess Z_1, Z_2) = ξ g(v_1, v_2) + g(v_1', v_2) + g(v_1, v_2'), in factors."""
    prod, x, _, tangents = case
    first, second = (prod.riemannian_hessian(x, Z) for Z in tangents)
    value = prod.inner_product(x, first, tangents[1])
    assert value == pytest.approx(prod.inner_product(x, tangents[0], second), rel=1e-10)
    one, other = (prod.horizontal_lift(x, Z) for Z in tangents)

    def metric(state, v, w):
        return prod.inner_product(state, moved(prod, state, v), moved(prod, state, w))

    def along(v):
        return -contracts.call(prod.jvp, jit.JVP, prod.dim, 0.0, x, v, prod.params)

    e, xi = 1e-4, -field_of(prod, x)
    slopes = [metric(x + t * xi, one, other) for t in (2 * e, e, -e, -2 * e)]
    change = (8.0 * (slopes[1] - slopes[2]) - slopes[0] + slopes[3]) / (12.0 * e)
    lie = change + metric(x, along(one), other) + metric(x, one, along(other))
    size = abs(change) + abs(metric(x, along(one), other))
    assert abs(value - 0.5 * lie) <= 1e-7 * size


def test_one_layer_has_the_fixed_rank_geometry_of_pymanopt():
    """h = 1: the metric of the space around; the same tangents, lengths, steps and gradients."""
    pymanopt = pytest.importorskip("pymanopt")
    prod, x, W, (Z, Y) = next(points())
    manifold = pymanopt.manifolds.FixedRankEmbedded(5, 4, 3)
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    place = type(manifold.random_point())(U[:, :3], s[:3], Vt[:3])

    def matrix(tangent):
        return (place.u @ tangent.M + tangent.Up) @ place.vt + place.u @ tangent.Vp.T

    first, second = (manifold.projection(place, T) for T in (Z + np.ones((5, 4)), Y))
    tangent = prod.projection(x, Z + np.ones((5, 4)))
    np.testing.assert_allclose(matrix(first), tangent, rtol=0, atol=1e-13)
    found = prod.inner_product(x, tangent, Y)
    assert found == pytest.approx(manifold.inner_product(place, first, second), rel=1e-12)
    there = manifold.retraction(place, first)
    np.testing.assert_allclose(
        prod.product(prod.retraction(x, tangent)), (there.u * there.s) @ there.vt, atol=1e-12
    )
    slopes = svd_gradient(gradient(prod, x), place.u, place.s, place.vt)
    found = manifold.euclidean_to_riemannian_gradient(place, slopes)
    np.testing.assert_allclose(matrix(found), prod.riemannian_gradient(x), rtol=0, atol=1e-11)


def svd_gradient(G, u, s, vt):
    """Derivatives by u, s and vt of a function of u diag(s) vt with the gradient G."""
    return G @ vt.T * s, np.diagonal(u.T @ G @ vt.T), s[:, None] * (u.T @ G)


@pytest.mark.compiled
def test_pymanopt_reaches_the_same_minimum():
    pymanopt = pytest.importorskip("pymanopt")
    net = naive.random_network((4, 5, 5), 3, "full")
    prod, manifold = dl.ProductFlow(net, rank=2), pymanopt.manifolds.FixedRankEmbedded(5, 4, 2)
    K = naive.root(net)

    @pymanopt.function.numpy(manifold)
    def cost(u, s, vt):
        return 0.5 * np.linalg.norm((u * s) @ vt @ K - net.target) ** 2

    @pymanopt.function.numpy(manifold)
    def slopes(u, s, vt):
        return svd_gradient(((u * s) @ vt @ K - net.target) @ K.T, u, s, vt)

    problem = pymanopt.Problem(manifold, cost, euclidean_gradient=slopes)
    optimizer = pymanopt.optimizers.ConjugateGradient(
        verbosity=0, max_iterations=4000, min_gradient_norm=1e-9
    )
    x = prod.initial(scale=0.8, rng=0)
    U, s, Vt = np.linalg.svd(prod.product(x), full_matrices=False)
    begin = type(manifold.random_point())(U[:, :2], s[:2], Vt[:2])
    u, s, vt = optimizer.run(problem, initial_point=begin).point
    run = dl.flow(prod, x, rtol=1e-10)
    np.testing.assert_allclose(prod.product(run.state[-1].values), (u * s) @ vt, atol=1e-6)


# Critical points.


@pytest.mark.parametrize("kind", ["whitened", "full"])
@pytest.mark.parametrize(("widths", "rank"), CASES)
def test_critical_points_are_the_index_sets_of_the_rank(widths, rank, kind):
    prod = flow_of(widths, rank, kind=kind)
    table = dl.critical_points(prod)
    dl.schema.validate(table)
    sigma = prod.network.singular_values
    expected = list(itertools.combinations(range(len(sigma)), rank))
    labels = [dl.schema.index_set_label(chosen) for chosen in expected]
    assert table.critical_point.values.tolist() == labels
    for chosen, word in zip(expected, dl.schema.decode(table.kind).values, strict=True):
        x = prod.critical_state(chosen)
        assert np.abs(field_of(prod, x)).max() < 1e-11 * np.abs(x).max()
        assert prod.limit(x).label == dl.schema.index_set_label(chosen)
        assert word == ("global_minimum" if chosen == tuple(range(rank)) else "strict_saddle")
        spectrum = dl.linearize(prod, x)
        swaps = sum(
            sigma[q] > sigma[j] for j in chosen for q in range(len(sigma)) if q not in chosen
        )
        assert int(spectrum["index"]) == swaps
        assert int(spectrum.nullity) == rank**2
        assert (word == "strict_saddle") == (swaps > 0)


@pytest.mark.parametrize("kind", ["whitened", "full", "singular"])
@pytest.mark.parametrize(
    ("widths", "chosen"), [((3, 3), (1,)), ((4, 3, 3), (0, 2)), ((3, 4, 3, 4), (1,))]
)
def test_known_spectra_are_those_of_the_jacobian(widths, chosen, kind):
    prod = flow_of(widths, len(chosen), kind=kind)
    if kind == "singular" and max(chosen) > len(prod.network.singular_values) - 1:
        return
    x = prod.critical_state(chosen)
    known, dense = dl.linearize(prod, x), dl.linearize(prod, x, method="dense")
    assert known.attrs["method"] == ("closed_form" if kind == "whitened" else "gram")
    scale = float(np.abs(known.eigenvalue).max())
    np.testing.assert_allclose(known.eigenvalue, dense.eigenvalue, rtol=0, atol=1e-10 * scale)
    assert np.abs(dense.eigenvalue_imag).max() <= 1e-10 * scale
    values, vectors = prod.hessian_modes(x)
    for value, Z in zip(values, vectors, strict=True):
        assert prod.inner_product(x, Z, Z) == pytest.approx(1.0, rel=1e-12)
        np.testing.assert_allclose(
            prod.riemannian_hessian(x, Z), value * Z, rtol=0, atol=1e-11 * scale * np.abs(Z).max()
        )


@pytest.mark.parametrize("kind", ["whitened", "full"])
def test_unstable_directions_are_those_of_the_jacobian(kind):
    """At rate σ_j^{1−2/h}(σ_q − σ_j)."""
    prod = flow_of((4, 4, 4, 4), 2, kind=kind)
    x = prod.critical_state((1, 3))
    mani = dl.unstable_manifold(prod, x)
    dl.schema.validate(mani)
    assert mani.attrs["dimension"] == mani.sizes["direction"] == 3
    spectrum = dl.linearize(prod, x)
    rates = np.sort(spectrum.eigenvalue.values)[::-1][:3]
    np.testing.assert_allclose(mani.rate, rates, rtol=1e-10)
    if kind == "whitened":
        sigma = prod.network.singular_values
        j, q = mani.mode_lost.values, mani["mode"].values
        np.testing.assert_allclose(mani.rate, sigma[j] ** (1 / 3) * (sigma[q] - sigma[j]))
    J = np.empty((prod.dim, prod.dim))
    jit.ready(prod.jacobian, jit.JACOBIAN)(0.0, x, prod.params, J)
    generators = prod.generators(x)
    for v, rate in zip(mani.frame.values, mani.rate.values, strict=True):
        excess = J @ v - rate * v  # along the orbit, if anywhere
        excess -= np.linalg.lstsq(generators.T, excess, rcond=None)[0] @ generators
        assert np.abs(excess).max() < 1e-10 * np.abs(J).max()
    stable = dl.stable_manifold(prod, x)
    assert stable.sizes["direction"] + 3 == 2 * (4 + 4 - 2)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["whitened", "full"])
def test_runs_leave_saddles_for_the_best_map(kind):
    prod = flow_of((4, 4, 4, 4), 2, kind=kind)
    x = prod.critical_state((1, 3))
    frame = dl.unstable_manifold(prod, x).frame.values
    assert dl.flow(prod, x + 1e-4 * frame.sum(axis=0)).limit == "{0,1}"


@pytest.mark.parametrize("extra", [(), (1,), (2, 0)])
def test_entropy_is_the_volume_of_the_orbit(extra):
    """√(van(s²)/van(s^{2/h})), times Π s_a^{(d_i−k)/h} for wider layers: a determinant.

    The tangent vectors K_i of O(d_i) span the orbit; its volume element is √det of their Gram
    matrix modulo what leaves the layers as they are.
    """
    k, h = 3, 3
    hidden = tuple(k + (extra[i] if i < len(extra) else 0) for i in range(h - 1))
    net = dl.LinearNetwork((4, *hidden, 5), target=np.eye(5, 4))
    prod, rng = dl.ProductFlow(net, rank=k), np.random.default_rng(0)
    offsets = []
    for _ in range(4):
        s = rng.uniform(0.3, 2.0, size=k)
        U, V = (np.linalg.qr(rng.normal(size=(d, k)))[0] for d in (5, 4))
        x = prod.factor((U * s) @ V.T)
        values = np.linalg.svd(net.generators(prod.lift(x), orthogonal=True), compute_uv=False)
        volume = np.log(values[values > 1e-9 * values[0]]).sum()
        offsets.append(volume - prod.entropy(x))
    np.testing.assert_allclose(offsets, offsets[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("network", lambda p: dl.ProductFlow(3, rank=1)),
        ("network", lambda p: dl.ProductFlow(p, rank=1)),
        ("rank", lambda p: dl.ProductFlow(p.network, rank=3)),
        ("rank", lambda p: dl.ProductFlow(p.network, rank=0)),
        ("ranks", lambda p: dl.ProductFlow(p.network, ranks=1)),
        ("W", lambda p: p.factor(np.eye(4, 3))),
        ("W", lambda p: p.factor(np.eye(4, 3, 2))),
        ("W", lambda p: p.factor(np.eye(3, 4))),
        ("W", lambda p: p.factor(np.zeros((4, 3)))),
        ("factors", lambda p: p.pack(np.zeros((2, 4, 2)))),
        ("factors", lambda p: p.pack([np.zeros((4, 2))])),
        ("factors", lambda p: p.pack([np.ones((4, 2)), np.ones((3, 2))])),
        ("factors", lambda p: p.pack([np.zeros((4, 2)), np.zeros((3, 2))])),
        ("factors", lambda p: p.pack([np.zeros((3, 2)), np.zeros((3, 2))])),
        ("x", lambda p: p.from_balanced(p.network.initial(scale=1.0, rng=0))),
        ("x", lambda p: p.from_balanced(np.zeros(p.network.dim))),
        ("x", lambda p: p.from_balanced(p.network.critical_state((0,)))),
        ("x", lambda p: p.lift(np.zeros(3))),
        ("x", lambda p: p.velocity(np.zeros(3), np.zeros((4, 3)))),
        ("signal", lambda p: p.velocity(p.initial(rng=0), np.zeros((3, 4)))),
        ("kind", lambda p: p.initial("balanced", rng=0)),
        ("scale", lambda p: p.initial(scale=0.0, rng=0)),
        ("scale", lambda p: p.initial("aligned", scale=[1.0, 0.0])),
        ("modes", lambda p: p.critical_state((0,))),
        ("modes", lambda p: p.critical_state((0, 7))),
        ("max_rank", lambda p: dl.critical_points(p, max_rank=1)),
        ("modes", lambda p: dl.critical_points(p, modes=(0,))),
        ("x", lambda p: dl.unstable_manifold(p, p.initial(scale=0.5, rng=0))),
        ("x", lambda p: p.projection(np.zeros(p.dim), np.zeros((4, 3)))),
        ("Z", lambda p: p.projection(p.initial(rng=0), np.zeros((3, 4)))),
        ("save", lambda p: dl.flow(p, p.initial(rng=0), (0, 1), save=("adjacency",))),
    ],
)
def test_bad_input_is_refused(name, call):
    prod = flow_of((3, 2, 3, 4), 2)
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        call(prod)
