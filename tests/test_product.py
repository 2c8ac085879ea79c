"""Laws of the Riemannian gradient flow of the end-to-end map (BRTW22)."""

import itertools
from fractions import Fraction

import contracts
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnds as dl
from dlnds._kernels import jit
from dlnds._kernels import product as kernels

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


@given(naive.seeds)
def test_small_eigenvalues_of_a_graded_matrix_keep_their_digits(seed):
    """Elementary symmetric functions of the eigenvalues are sums of principal minors."""
    rng = np.random.default_rng(seed)
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [1.0, 1.5, 2.0]
    scale = np.array([1.0, 1e-5, 1e-11])
    N = np.abs(scale[:, None] * (R @ R.T) * scale)
    N = np.triu(N) + np.triu(N, 1).T
    values, Q = N.copy(), np.empty((3, 3))
    kernels.diagonalize(values, Q)
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
    np.testing.assert_allclose(above.singular_value[:, rank:], 0.0, atol=0.0)
    assert (above.singular_value[:, rank - 1] > 0.0).all()


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
        ("save", lambda p: dl.flow(p, p.initial(rng=0), (0, 1), save=("adjacency",))),
    ],
)
def test_bad_input_is_refused(name, call):
    prod = flow_of((3, 2, 3, 4), 2)
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        call(prod)
