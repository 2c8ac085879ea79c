"""Laws of the Riemannian flow of the end-to-end map under losses other than the square one."""

import contracts
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl
from dlnds._kernels import graded as kernels
from dlnds._kernels import jit

EPS = np.finfo(float).eps
#: W_12 = W_21 = 1, W_22 = 0 of a 2 × 2 matrix: zero loss forces det W = −1 (RC20).
CROSSED = dl.losses.completion((2, 2), [0, 1, 1], [1, 0, 1], [1.0, 1.0, 0.0])
SIGNS = ["product", "singular_value", "log_singular_value", "determinant_sign"]
CASES = [((3, 3), 2), ((3, 4, 3), 3), ((4, 3, 3, 3), 2), ((3, 2, 2, 3, 4), 2)]


def losses_of(shape, seed):
    """One loss of each kind."""
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(shape[1], 7)), rng.normal(size=(shape[0], 7))
    places = np.divmod(rng.permutation(shape[0] * shape[1])[:6], shape[1])
    return {
        "completion": dl.losses.completion(shape, *places, rng.normal(size=6), np.arange(6) % 3),
        "measurements": dl.losses.measurements(rng.normal(size=(5, *shape)), rng.normal(size=5)),
        "logistic": dl.losses.logistic(X, np.sign(Y)),
        "power": dl.losses.power(X, Y),
    }


def flow_of(widths, rank, kind, seed=3):
    loss = losses_of((widths[-1], widths[0]), seed)[kind]
    return dl.ProductFlow(dl.LossNetwork(widths, loss), rank=rank)


def everything(Y):
    return dl.losses.completion(Y.shape, *np.divmod(np.arange(Y.size), Y.shape[1]), Y.ravel())


def crossed(h):
    return dl.ProductFlow(dl.LossNetwork((2,) * (h + 1), CROSSED), rank=2)


def kernel(prod, name, signature, shape, *arguments):
    return contracts.call(getattr(prod, name), signature, shape, 0.0, *arguments, prod.params)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["completion", "measurements", "logistic", "power"])
@pytest.mark.parametrize(("widths", "rank"), CASES)
def test_the_flow_keeps_the_contract_of_systems(widths, rank, kind):
    prod = flow_of(widths, rank, kind)
    contracts.check_system(prod, prod.initial(scale=1.1, rng=3))


@pytest.mark.parametrize("kind", ["completion", "measurements", "logistic", "power"])
@pytest.mark.parametrize(("widths", "rank"), CASES)
def test_the_field_moves_the_map_by_its_definition(widths, rank, kind):
    """Ẇ = −Σ_j (WWᵀ)^{(h−j)/h} ∇ℓ(W) (WᵀW)^{(j−1)/h}, projected for h = 1, and AᵀA = BᵀB stays."""
    prod = flow_of(widths, rank, kind)
    x = prod.initial(scale=1.0, rng=0)
    v = kernel(prod, "field", jit.FIELD, prod.dim, x)
    (A, B), (dA, dB) = prod.unpack(x), prod.unpack(v)
    G = prod.network.criterion.gradient(prod.product(x))
    u, s, vt = np.linalg.svd(prod.product(x))
    u, s, vt, h = u[:, :rank], s[:rank], vt[:rank], prod.depth
    left = [u * s ** (2.0 * (h - j) / h) @ u.T if j < h else np.eye(len(u)) for j in range(h + 1)]
    right = [vt.T * s ** (2.0 * j / h) @ vt if j else np.eye(vt.shape[1]) for j in range(h)]
    expected = -sum(left[j] @ G @ right[j - 1] for j in range(1, h + 1))
    if h == 1:
        P, Q = u @ u.T, vt.T @ vt
        expected = -(P @ G + G @ Q - P @ G @ Q)
    size = np.abs(expected).max() * max(1.0, s[0] / s[-1])
    np.testing.assert_allclose(dA @ B.T + A @ dB.T, expected, rtol=0, atol=1e-13 * size)
    drift = A.T @ dA + dA.T @ A - B.T @ dB - dB.T @ B
    np.testing.assert_allclose(drift, 0.0, atol=1e-13 * size)
    np.testing.assert_allclose(prod.velocity(x, -G), v, rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize(("widths", "rank"), CASES)
def test_all_entries_with_weight_one_are_the_square_loss(widths, rank):
    Y = np.random.default_rng(0).normal(size=(widths[-1], widths[0]))
    one = dl.ProductFlow(dl.LossNetwork(widths, everything(Y)), rank=rank)
    other = dl.ProductFlow(dl.LinearNetwork(widths, Y), rank=rank)
    x, n = other.initial(scale=0.8, rng=1), other.dim
    v = np.random.default_rng(2).normal(size=n)
    J = kernel(other, "jacobian", jit.JACOBIAN, (n, n), x)
    near = {"rtol": 0, "atol": 64 * EPS * np.abs(J).max()}
    for name, signature, shape, arguments in (
        ("field", jit.FIELD, n, (x,)),
        ("jvp", jit.JVP, n, (x, v)),
        ("jacobian", jit.JACOBIAN, (n, n), (x,)),
    ):
        found = [kernel(prod, name, signature, shape, *arguments) for prod in (one, other)]
        np.testing.assert_allclose(*found, **near)
    Z = np.random.default_rng(3).normal(size=Y.shape)
    for name in ("riemannian_hessian", "operator", "projection"):
        np.testing.assert_allclose(getattr(one, name)(x, Z), getattr(other, name)(x, Z), **near)
    np.testing.assert_allclose(one.riemannian_gradient(x), other.riemannian_gradient(x), **near)
    if len(widths) == 2:
        return  # which may come to a smaller rank
    times = [0.5, 2.0, 8.0]
    names = ["product", "loss_rate", "log_singular_value", "entropy"]
    runs = [dl.flow(p, x, (0, 8), t_eval=times, rtol=1e-11, save=names) for p in (one, other)]
    for name in ("loss", *names):
        np.testing.assert_allclose(runs[0][name], runs[1][name], rtol=1e-8, atol=1e-8)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["completion", "measurements", "logistic"])
@pytest.mark.parametrize(("widths", "rank"), CASES[1:])
def test_the_flow_is_the_image_of_that_of_balanced_networks(widths, rank, kind):
    prod = flow_of(widths, rank, kind)
    x, grid = prod.initial(scale=0.8, rng=3), np.linspace(0.0, 3.0, 7)
    options = {"save": ("product", "singular_value", "effective_rank"), "rtol": 1e-11}
    below = dl.flow(prod.network, prod.lift(x), (0, 3), grid, **options)
    above = dl.flow(prod, x, (0, 3), grid, **options)
    for name in ("loss", *options["save"]):
        size = max(1.0, float(np.abs(below[name]).max()))
        np.testing.assert_allclose(above[name], below[name], rtol=0, atol=2e-9 * size)
    assert (above.singular_value[:, rank - 1] > 0.0).all()
    beyond = np.linalg.svd(above["product"].values, compute_uv=False)
    assert (beyond[:, rank:] <= 1e-12 * beyond[:, :1]).all()


@pytest.mark.compiled
@pytest.mark.parametrize("h", [1, 2, 3, 5])
def test_singular_values_move_by_their_law(h):
    """d ln s_a/dt = h s_a^{1−2/h} u_aᵀ G v_a, G = −∇ℓ (ACHL19), beside differences of a run."""
    prod = flow_of((3,) * (h + 1), 3, "measurements")
    d = 2e-5  # the fifth derivatives are up to (a rate of 400)^5
    grid = np.arange(5) * d
    options = {"t_eval": grid, "rtol": 1e-13, "save": SIGNS}
    run = dl.flow(prod, prod.initial(scale=0.9, rng=1), (0, 4 * d), **options)
    logs, W = run.log_singular_value.values, run["product"].values[2]
    rates = (logs[0] - 8 * logs[1] + 8 * logs[3] - logs[4]) / (12 * d)
    u, s, v = np.linalg.svd(W)
    G = -prod.network.criterion.gradient(W)
    law = h * s ** (1.0 - 2.0 / h) * np.einsum("ia,ij,aj->a", u, G, v)
    np.testing.assert_allclose(rates, law, rtol=0, atol=1e-6 * np.abs(law).max())
    np.testing.assert_allclose(np.exp(logs[2]), s, rtol=1e-12)
    assert (run.determinant_sign == np.sign(np.linalg.det(W))).all()


@pytest.mark.compiled
@pytest.mark.parametrize(("h", "off"), [(2, 3e-3), (3, 2e-3), (4, 5e-4)])
@pytest.mark.parametrize("W", [[[0.3, 0.1], [0.05, 0.2]], [[-0.2, 0.3], [-0.4, 0.1]]])
def test_the_norm_diverges_where_no_matrix_of_the_sign_fits(h, off, W):
    """|W_11| > (1 − e)²/e, e = √(2ℓ) < 1, while det W > 0, which the flow keeps (RC20).

    W_11 grows like ((2h+2) t)^{h/(2h+2)}, from below, up to terms of the order e² = 1/W_11²: from
    the first start, as computed apart, up to ``off`` at t = 1e4.
    """
    prod = crossed(h)
    run = dl.flow(prod, prod.factor(W), (0, 1e4), save=SIGNS)
    maps, e = run["product"].values, np.sqrt(2.0 * run["loss"].values)
    assert run.attrs["stop_reason"] == 0
    assert (run.determinant_sign == 1.0).all()
    late = e < 1.0
    assert late.any()
    assert (np.abs(maps[late, 0, 0]) > (1.0 - e[late]) ** 2 / e[late]).all()
    growth = ((2 * h + 2) * 1e4) ** (h / (2 * h + 2))
    lack = 1.0 - abs(maps[-1, 0, 0]) / growth
    assert 0.0 < lack < 10.0 / growth**2
    if W[0][0] > 0.0:
        assert lack == pytest.approx(off, abs=0.25 * off)
    assert e[-1] * growth == pytest.approx(1.0, abs=10.0 / growth)


@pytest.mark.compiled
def test_the_sign_is_kept_where_singular_values_underflow():
    """h = 2: ln det W is −(6t)^{2/3}/2 up to terms of the order ln t.

    At t = 1e5 s_2 is e^{−3500}, far below the smallest number; s_1 is still that of W.
    """
    prod = crossed(2)
    times = np.geomspace(10.0, 1e5, 9)
    run = dl.flow(prod, prod.factor([[0.3, 0.1], [0.05, 0.2]]), (0, 1e5), times, save=SIGNS)
    assert (run.determinant_sign == 1.0).all()
    logs = run.log_singular_value.values
    assert logs[-1].sum() == pytest.approx(-0.5 * 6e5 ** (2 / 3), abs=2.0 * np.log(1e5))
    assert run.singular_value.values[-1, 1] == 0.0
    np.testing.assert_allclose(np.exp(logs[:, 0]), run.singular_value[:, 0], rtol=1e-12)
    first = np.exp(logs[:3])
    dets = np.linalg.det(run["product"].values[:3])
    assert (np.abs(first.prod(axis=1) - dets) <= 16 * EPS * first[:, 0] ** 2).all()


@pytest.mark.compiled
@pytest.mark.parametrize("h", [2, 3, 4])
def test_a_start_with_the_wrong_sign_ends_at_a_saddle(h):
    """Y = diag(2, 1) from det W < 0: s_2 fades, as d ln s_2/dt = −2 at h = 2, s^{−1+2/h} ~ t."""
    prod = dl.ProductFlow(dl.LossNetwork((2,) * (h + 1), everything(np.diag([2.0, 1.0]))), rank=2)
    x = prod.factor([[0.5, 0.2], [0.1, -0.3]])
    run = dl.flow(prod, x, (0, 1000), [500.0, 1000.0], save=SIGNS)
    assert (run.determinant_sign == -1.0).all()
    assert run.loss.values[-1] == pytest.approx(0.5, abs=1e-2 ** (h / (h - 2) if h > 2 else 9))
    first, last = run.log_singular_value.values[:, 1]
    if h == 2:
        assert last - first == pytest.approx(-1000.0, rel=1e-6)
    else:  # ṡ = −h s^{2−2/h} (1 + s): s^{2/h−1} = (h − 2) t + C
        assert first - last == pytest.approx(h / (h - 2) * np.log(2.0), rel=2e-2)
    right = dl.flow(prod, prod.factor([[0.5, 0.2], [0.1, 0.3]]))
    assert right.loss.values[-1] < 1e-14
    assert right.limit_kind.item() == dl.schema.LIMIT_KINDS.index("global_minimum")


@pytest.mark.compiled
def test_rank_one_completion_ends_at_the_only_matrix_of_rank_one():
    loss = dl.losses.completion((2, 2), [0, 0, 1], [0, 1, 0], [1.0, 2.0, 3.0])
    prod = dl.ProductFlow(dl.LossNetwork((2, 2, 2, 2), loss), rank=1)
    run = dl.flow(
        prod, prod.factor([[0.1, 0.2], [0.1, 0.2]]), rtol=1e-10, save=[*SIGNS, "residual"]
    )
    assert run.limit_kind.item() == dl.schema.LIMIT_KINDS.index("global_minimum")
    np.testing.assert_allclose(run["product"][-1], [[1.0, 2.0], [3.0, 6.0]], rtol=1e-6)
    assert (run.determinant_sign == 0.0).all()
    assert (run.log_singular_value[:, 1] == -np.inf).all()
    np.testing.assert_allclose(run["residual"][-1], 0.0, atol=1e-6)


@pytest.mark.compiled
def test_a_minimum_with_a_residual_is_found_as_that_of_the_two_factors():
    prod = flow_of((3, 3, 3, 3), 1, "measurements")
    run = dl.flow(prod, prod.initial(scale=0.8, rng=0), save=["state", "product"])
    assert run.limit_kind.item() == dl.schema.LIMIT_KINDS.index("minimum")
    x = run.state.values[-1]
    G, (u, _, v) = prod.network.criterion.gradient(prod.product(x)), np.linalg.svd(prod.product(x))
    assert run.loss[-1] > 1e-3
    np.testing.assert_allclose(G.T @ u[:, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(G @ v[0], 0.0, atol=1e-6)
    assert prod.hessian_modes(x)[0].min() > 0.0
    found = dl.find_critical_point(prod, x)
    spectrum = dl.linearize(prod, found.state)
    values = np.concatenate([-prod.hessian_modes(found.state)[0][::-1], [0.0]])
    size = abs(values).max()  # what is left of the gradient is 1e-10
    np.testing.assert_allclose(spectrum.eigenvalue, values, rtol=0, atol=1e-9 * size)


# The coordinates in which runs are integrated.


def graded(widths, logs, seed, lean=0.3):
    """The flow in graded coordinates, and a state with these l and columns that lean a little."""
    prod = flow_of(widths, len(logs), "completion")
    rng, k = np.random.default_rng(seed), len(logs)
    A, B = (np.linalg.qr(rng.normal(size=(d, k)))[0] for d in (widths[-1], widths[0]))
    A, B = (F @ (np.eye(k) + lean / k * rng.uniform(-1, 1, (k, k))) for F in (A, B))
    return prod, prod.graded, np.concatenate([B.T.ravel(), A.ravel(), logs])


@pytest.mark.parametrize("logs", [(0.0, 0.1), (0.3, -2.0), (0.2, -14.0)])
@pytest.mark.parametrize(("widths", "rank"), CASES[1:])
def test_graded_coordinates_have_their_field_and_its_derivatives(widths, rank, logs):
    prod, flow, x = graded(widths, [*logs, -1.0][:rank], 5, lean=0.02)
    contracts.check_kernels(flow, x, 0.0, None)
    out = kernel(flow, "field", jit.FIELD, flow.dim, x)
    plain = kernel(prod, "field", jit.FIELD, prod.dim, flow.factors(x))
    back = flow.factors(np.concatenate([out[: prod.dim], x[prod.dim :]]))
    np.testing.assert_allclose(back, plain, rtol=0, atol=1e-14 * np.abs(plain).max())
    assert not out[prod.dim :].any()


@given(
    st.lists(st.floats(-200.0, 3.0), min_size=1, max_size=3),
    st.sampled_from([(4, 3), (3, 3), (3, 5)]),
    naive.seeds,
)
def test_canonical_columns_are_singular_vectors_of_the_same_map(logs, ends, seed):
    """The product of all s is √det(AᵀA BᵀB) e^{2Σl}, and W is kept in terms of its largest part."""
    _, flow, x = graded((ends[0], 3, ends[1]), logs, seed)
    n, k = flow.flow.dim, len(logs)
    out = contracts.call(kernels.canonical, jit.FIELD, flow.dim, 0.0, x, flow.params)
    (A, B), (U, V) = flow.flow.unpack(x[:n]), flow.flow.unpack(out[:n])
    for frame in (U, V):
        np.testing.assert_allclose(frame.T @ frame, np.eye(k), rtol=0, atol=64 * EPS)
    s = 2.0 * out[n:]
    assert (np.diff(s) <= 1e-14).all()
    volume = 0.5 * (np.linalg.slogdet(A.T @ A)[1] + np.linalg.slogdet(B.T @ B)[1])
    assert s.sum() == pytest.approx(volume + 2.0 * sum(logs), rel=1e-13, abs=1e-12)
    top = max(logs)
    W = A * np.exp(2.0 * (np.array(logs) - top)) @ B.T
    np.testing.assert_allclose(U * np.exp(s - 2.0 * top) @ V.T, W, rtol=0, atol=256 * EPS)
    if ends == (3, 3) and k == 3:
        signs = [np.sign(np.linalg.det(A) * np.linalg.det(B)) for A, B in ((A, B), (U, V))]
        assert signs[0] == signs[1] == flow.determinant_signs(x)


@pytest.mark.compiled
def test_stacks_run_as_single_runs_do():
    prod = flow_of((4, 3, 3, 3), 2, "completion")
    starts = np.stack([prod.initial(scale=s, rng=0) for s in (0.3, 0.9)])
    options = {"t_eval": [1.0, 3.0], "save": ["state", *SIGNS]}
    stack = dl.flow(prod, starts, (0, 3), **options)
    for k, start in enumerate(starts):
        alone = dl.flow(prod, start, (0, 3), **options)
        for name in ("state", "loss", "log_singular_value"):
            np.testing.assert_array_equal(stack[name].isel(sample=k), alone[name])


@pytest.mark.compiled
def test_every_engine_takes_the_flow_or_refuses_it_by_name(tmp_path):
    prod = flow_of((3, 3, 3), 2, "completion")
    x = prod.initial(scale=0.8, rng=0)
    run = dl.flow(prod, x, (0, 5), save=["state"])
    seen = dl.observe(prod, run, ["log_singular_value", "residual"])
    last = prod.singular_values(run.state[-1])
    np.testing.assert_allclose(np.exp(seen.log_singular_value[-1, :2]), last, rtol=1e-12)
    dl.save(run, tmp_path / "run.nc")
    again = dl.load_system(dl.load(tmp_path / "run.nc"))
    assert again.digest == prod.digest
    assert repr(again) == "ProductFlow(LossNetwork(3 -> 3 -> 3, completion), rank=2)"
    other = dl.evaluate(prod, run, np.array([[0], [0]]), [0.5])
    W = prod.product(run.state[-1])
    assert float(other.loss[-1]) == pytest.approx(0.5 * (W[0, 0] - 0.5) ** 2, rel=1e-12)
    steps = dl.iterate(dl.GradientDescent(prod, step_size=0.02), x, 50, every=50)
    assert steps.loss[-1] < steps.loss[0]
    assert dl.lyapunov_spectrum(prod, x, (0.0, 5.0)).exponent.size == prod.dim
    assert dl.equilibria(prod, vary="weight_decay").value(x, 0.1).shape == x.shape
    decayed = dl.LossNetwork((3, 3, 3), prod.network.criterion, weight_decay=0.1)
    for name, call in (
        ("net", lambda: dl.critical_points(prod)),
        ("net", lambda: dl.classify(prod, x)),
        ("net", lambda: dl.generalization_error(prod, run, np.eye(3))),
        ("net", lambda: dl.build_atlas(prod)),
        ("network", lambda: prod.critical_state((0, 1))),
        ("network", lambda: prod.initial("aligned")),
        ("network", lambda: prod.lowest_loss),
        ("vary", lambda: dl.equilibria(prod, vary="target")),
        ("save", lambda: dl.flow(prod, x, (0, 1), save=["mode_strength"])),
        ("network", lambda: dl.ProductFlow(decayed, rank=2)),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
            call()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_a_run_is_over_also_where_what_fades_has_long_underflowed(weight):
    """W = diag(a, b) to diag(1, 0): a takes 1/w of the time of b, which fades like e^{−2t}."""
    values, weights = [1.0, 0.0, 0.0, -1.0], [weight, 1.0, 1.0, 1.0]
    loss = dl.losses.completion((2, 2), [0, 0, 1, 1], [0, 1, 0, 1], values, weights)
    prod = dl.ProductFlow(dl.LossNetwork((2, 2, 2), loss), 2)
    names = ["log_singular_value", "determinant_sign", "product"]
    run = dl.flow(prod, prod.factor([[0.3, 0.0], [0.0, 0.2]]), save=names)
    words = [dl.schema.decode(run[name]).item() for name in ("limit_kind", "limit_decision")]
    assert words == ["critical_point", "no_force"]
    np.testing.assert_allclose(run["product"][-1], [[1, 0], [0, 0]], atol=1e-9)
    assert run.determinant_sign.values[-1] == 1.0
    # ln b = ln b_0 − 2 ∫ (1 + b) dt, and ∫ b dt < b_0/2.
    fallen, time = float(run.log_singular_value[-1, 1]) - np.log(0.2), float(run.time[-1])
    assert -0.2 - 1e-6 * time <= fallen + 2.0 * time <= 1e-6 * time
    assert (fallen < -745.0) == (weight < 1.0)
