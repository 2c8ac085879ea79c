"""What is measured of runs: against definitions, formed kernels, and the laws of theory."""

import itertools

import naive
import numpy as np
import pytest
from scipy.linalg import sqrtm

import dlnds as dl

OF_LAYERS = (
    "layer_singular_value",
    "alignment",
    "ntk_eigenvalue",
    "ntk_distance",
    "ntk_change",
    "ntk_alignment",
    "sharpness",
    "index",
    "effective_rank",
    "stable_rank",
    "hidden_similarity",
    "balance_gap",
)
EPS = np.finfo(float).eps


def data(rng, inputs=4, outputs=3, samples=9):
    X = rng.normal(size=(inputs, samples)) * np.geomspace(1.0, 3.0, inputs)[:, None]
    return X, rng.normal(size=(outputs, samples))


def problems(rng):
    X, Y = data(rng)
    labels = np.sign(Y)
    return {
        "whitened": dl.LinearNetwork((4, 5, 3), rng.normal(size=(3, 4))),
        "deep": dl.LinearNetwork((4, 2, 6, 3), rng.normal(size=(3, 4))),
        "raw": dl.LinearNetwork.from_data(X, Y, hidden=(5, 4), whiten=False, normalize=False),
        "normalized": dl.LinearNetwork.from_data(X, Y, hidden=(5,), whiten=False),
        "logistic": dl.LossNetwork((4, 5, 3), dl.losses.logistic(X, labels)),
        "one layer": dl.LinearNetwork((4, 3), rng.normal(size=(3, 4))),
        "thin": dl.LinearNetwork((4, 1, 1, 3), rng.normal(size=(3, 4))),
    }


def formed_kernel(net, x, X):
    """J Jᵀ with the Jacobian of vec(W X), row by row, written down by products of layers."""
    layers, h = naive.split(net, x), net.depth
    blocks = []
    for i in range(1, h + 1):
        L = naive.chain(layers, i + 1, h, net.widths[i])
        P = naive.chain(layers, 1, i - 1, net.widths[0]) @ X
        blocks.append(np.kron(L, P.T))
    J = np.hstack(blocks)
    return J @ J.T


def snapshots(net, *states):
    return dl.as_run(net, np.arange(float(len(states))), [net.unpack(x) for x in states])


def measured(net, name, *states):
    return dl.observe(net, snapshots(net, *states), [name])[name].values


def test_the_gradient_is_what_the_tangent_kernel_makes_of_the_residual():
    rng = np.random.default_rng(0)
    X, Y = data(rng)
    net = dl.LinearNetwork.from_data(X, Y, hidden=(5, 4), whiten=False, normalize=False)
    x = rng.normal(size=net.dim)
    K, r = formed_kernel(net, x, X), (Y - net.product(x) @ X).ravel()
    assert np.sum(net.gradient(x) ** 2) == pytest.approx(r @ K @ r, rel=1e-12)
    # d vec R/dt = −K vec R along the flow
    step = 1e-6 / np.linalg.norm(K)
    ends = [net.product(x + s * step * -net.gradient(x)) @ X for s in (-1.0, 1.0)]
    rate = -(ends[1] - ends[0]).ravel() / (2.0 * step)
    np.testing.assert_allclose(rate, -K @ r, rtol=0, atol=1e-8 * np.linalg.norm(K @ r))


@pytest.mark.parametrize("name", problems(np.random.default_rng(1)))
def test_kernels_agree_with_those_that_are_formed(name):
    rng = np.random.default_rng(1)
    X, Y = data(rng)
    net = problems(np.random.default_rng(1))[name]
    divisor, target = 1.0, None
    if name in ("raw", "normalized", "logistic"):
        X, Y = data(np.random.default_rng(1))
        Y = np.sign(Y) if name == "logistic" else Y
        divisor, target = (1.0 if name == "raw" else X.shape[1]), Y.ravel()
    else:
        X, target = np.eye(4), net.target.ravel()
    x, y = rng.normal(size=(2, net.dim))
    K, K0 = formed_kernel(net, y, X), formed_kernel(net, x, X)
    size, first = np.linalg.norm(K), np.linalg.norm(K0)
    run = dl.observe(net, snapshots(net, x, y), [n for n in OF_LAYERS if n.startswith("ntk")])
    distance = 1.0 - np.sum(K * K0) / (size * first)
    np.testing.assert_allclose(run.ntk_distance, [0.0, distance], rtol=1e-12, atol=1e-15)
    change = np.linalg.norm(K - K0) / first
    np.testing.assert_allclose(run.ntk_change, [0.0, change], rtol=1e-12, atol=1e-15)
    seen = target @ K @ target / (size * (target @ target))
    assert float(run.ntk_alignment[1]) == pytest.approx(seen, rel=1e-12)
    wanted = np.sort(np.linalg.eigvalsh(K))[::-1] / divisor
    found = run.ntk_eigenvalue.values[1]
    count = min(len(found), len(wanted))
    np.testing.assert_allclose(found[:count], wanted[:count], rtol=0, atol=1e-12 * wanted[0])
    assert np.abs(found[count:]).max(initial=0.0) <= 1e-12 * wanted[0]


def test_of_many_eigenvalues_the_largest_are_found():
    rng = np.random.default_rng(2)
    net = dl.LinearNetwork((30, 25, 20), rng.normal(size=(20, 30)))
    x = rng.normal(size=net.dim)
    W1, W2 = net.unpack(x)
    # for two layers of a whitened problem K = W_2W_2ᵀ ⊗ I + I ⊗ W_1ᵀW_1
    outer, inner = np.linalg.eigvalsh(W2 @ W2.T), np.linalg.eigvalsh(W1.T @ W1)
    sums = np.sort(np.add.outer(outer, inner).ravel())[::-1]
    found = measured(net, "ntk_eigenvalue", x)[0]
    assert len(found) == 16
    np.testing.assert_allclose(found, sums[:16], rtol=1e-12)


def test_small_changes_of_the_kernel_keep_their_digits():
    rng = np.random.default_rng(3)
    net = dl.LinearNetwork((3, 4, 2), rng.normal(size=(2, 3)))
    x, v = rng.normal(size=(2, net.dim))
    K = formed_kernel(net, x, np.eye(3))
    slope = (formed_kernel(net, x + v, np.eye(3)) - formed_kernel(net, x - v, np.eye(3))) / 2.0
    along = np.sum(slope * K) / np.sum(K**2)
    across = np.linalg.norm(slope - along * K) / np.linalg.norm(K)
    for step in (1e-5, 1e-7, 1e-9):
        moved = x + step * v
        exact = (moved - x) @ v / (v @ v)  # what rounding leaves of the step
        noise = 30.0 * step + 30.0 * EPS / step
        change, distance = (
            measured(net, name, x, moved)[1] for name in ("ntk_change", "ntk_distance")
        )
        assert change == pytest.approx(exact * np.linalg.norm(slope) / np.linalg.norm(K), rel=noise)
        assert distance == pytest.approx(0.5 * (exact * across) ** 2, rel=2.0 * noise)


def test_the_angle_of_kernels_does_not_depend_on_their_sizes():
    """K is homogeneous in the weights, so that K(s x) has the direction of K(x)."""
    rng = np.random.default_rng(5)
    net = dl.LinearNetwork((3, 4, 4, 4, 2), rng.normal(size=(2, 3)))
    x, y = rng.normal(size=(2, net.dim))
    K, K0 = formed_kernel(net, y, np.eye(3)), formed_kernel(net, x, np.eye(3))
    angle = 1.0 - np.sum(K * K0) / (np.linalg.norm(K) * np.linalg.norm(K0))
    sizes = [1e-8, 1e-4, 0.1, 0.9, 1.0, 1.1, 1.5, 10.0, 1e4, 1e8]
    found = measured(net, "ntk_distance", x, *(s * y for s in sizes))[1:]
    np.testing.assert_allclose(found, angle, rtol=1e-13)
    itself = measured(net, "ntk_distance", x, *(s * x for s in sizes))
    np.testing.assert_allclose(itself, 0.0, rtol=0, atol=20.0 * EPS)


def test_balanced_kernels_have_the_spectrum_of_the_riemannian_operator():
    for h in (2, 3, 4):
        net = dl.LinearNetwork((3, *[4] * (h - 1), 3), np.diag([3.0, 2.0, 1.0]))
        sizes = np.array([1.1, 0.7, 0.2])
        s = sizes**h
        pairs = [
            sum((a ** ((h - i) / h) * b ** ((i - 1) / h)) ** 2 for i in range(1, h + 1))
            for a, b in itertools.product(s, s)
        ]
        found = measured(net, "ntk_eigenvalue", net.initial("aligned", scale=sizes))[0]
        np.testing.assert_allclose(found, np.sort(pairs)[::-1], rtol=1e-13)


def test_two_aligned_layers_with_an_imbalance():
    p, c = np.array([2.0, 0.5]), 1.7
    b = np.sqrt(0.5 * (np.sqrt(c**2 + 4.0 * p**2) + c))  # W_2; b² − a² = c, ab = p
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 0.5]))
    x = net.pack([np.diag(p / b), np.diag(b)])
    root = np.sqrt(c**2 + 4.0 * p**2)
    wanted = 0.5 * (np.add.outer(root + c, root - c)).ravel()
    found = measured(net, "ntk_eigenvalue", x)[0]
    np.testing.assert_allclose(found, np.sort(wanted)[::-1], rtol=1e-13)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_kernels_of_large_imbalance_do_not_change(sign):
    net = dl.LinearNetwork((1, 1, 1), [[2.0]])
    changes = []
    for c in (1.0, 10.0, 1e4):
        small, large = net.pack([[[0.0]], [[np.sqrt(c)]]]), None
        if sign < 0:
            small = net.pack([[[np.sqrt(c)]], [[0.0]]])
        run = dl.observe(net, dl.flow(net, small, rtol=1e-12), ["ntk_change"])
        large = float(run.ntk_change[-1])
        assert large == pytest.approx(np.sqrt(1.0 + 16.0 / c**2) - 1.0, rel=1e-8)
        changes.append(large)
    assert changes[-1] < 1e-7


def imbalanced(net, W, c):
    """Return layers with the product W and W_2ᵀW_2 − W_1W_1ᵀ = c I, c not zero."""
    U, p, Vt = np.linalg.svd(W, full_matrices=False)
    U, p, Vt = U[:, : net.widths[1]], p[: net.widths[1]], Vt[: net.widths[1]]
    larger = np.sqrt(0.5 * (np.hypot(c, 2.0 * p) + abs(c)))
    first, second = (p / larger, larger) if c > 0.0 else (larger, p / larger)
    return net.pack([first[:, None] * Vt, U * second])


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("widths", [(3, 3, 3), (5, 3, 3), (3, 3, 5)])
def test_large_imbalance_keeps_the_kernel_if_the_large_layer_sees_all_of_its_end(widths, sign):
    """The imbalance is conserved, so that both ends of a run are known; changes fall like c^{-2}.

    A large layer at an end that is wider than the hidden layer has to turn to the target.
    """
    target = np.zeros((widths[2], widths[0]))
    np.fill_diagonal(target, [3.0, 2.0, 1.0])
    net = dl.LinearNetwork(widths, target)
    W = 0.1 * np.random.default_rng(0).normal(size=target.shape)
    changes = []
    for c in (20.0 * sign, 40.0 * sign):
        start = imbalanced(net, W, c)
        before, after = (
            formed_kernel(net, x, np.eye(widths[0])) for x in (start, imbalanced(net, target, c))
        )
        run = dl.observe(net, dl.flow(net, start, rtol=1e-10).isel(time=[0, -1]), "ntk_change")
        changes.append(float(run.ntk_change[-1]))
        exact = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert changes[-1] == pytest.approx(exact, rel=1e-6)
    end = widths[2] if sign > 0.0 else widths[0]
    if end == widths[1]:
        assert changes[0] / changes[1] == pytest.approx(4.0, rel=0.1)
    else:
        assert changes[0] / changes[1] == pytest.approx(1.0, rel=0.1)


def test_balanced_kernels_of_small_starts_turn_by_a_known_angle():
    net = dl.LinearNetwork((2, 2, 2), np.diag([3.0, 1.0]))
    run = dl.flow(net, net.initial("aligned", scale=1e-4), save=("state", "ntk_distance"))
    assert float(run.ntk_distance[-1]) == pytest.approx(1.0 - 4.0 / np.sqrt(18.0), abs=1e-7)


@pytest.mark.parametrize("name", problems(np.random.default_rng(4)))
def test_sharpness_and_index_are_those_of_the_hessian(name):
    rng = np.random.default_rng(4)
    net = problems(np.random.default_rng(4))[name]
    for scale in (0.0, 1e-4, 0.3, 1.0, 3.0):
        x = scale * rng.normal(size=net.dim)
        values = np.linalg.eigvalsh(net.hessian(x))
        size = np.abs(values).max()
        assert abs(measured(net, "sharpness", x)[0] - values[-1]) <= 2e-11 * size
        noise = 8.0 * net.dim * EPS * np.linalg.norm(net.hessian(x))
        clear = np.abs(np.abs(values) - noise) > 0.5 * noise
        index = int(measured(net, "index", x)[0])
        assert abs(index - np.count_nonzero(values < -noise)) <= np.count_nonzero(~clear)


def test_sharpness_of_large_hessians_and_of_homogeneous_networks():
    rng = np.random.default_rng(5)
    X, Y = data(rng)
    wide = dl.LinearNetwork((9, 8, 7, 6), rng.normal(size=(6, 9)))
    rectified = dl.HomogeneousNetwork((4, 15, 3), X, Y, power=2, slope=0.3)
    for net in (wide, rectified):
        x = rng.normal(size=net.dim)
        values = np.linalg.eigvalsh(net.hessian(x))
        assert measured(net, "sharpness", x)[0] == pytest.approx(values[-1], rel=1e-13)
        assert measured(net, "index", x)[0] == np.count_nonzero(values < -1e-9 * values[-1])


def test_no_perfect_fit_is_flatter_than_the_balanced_one():
    rng = np.random.default_rng(6)
    for widths in ((3, 4, 3), (4, 3, 5, 3), (2, 5, 3, 4, 3)):
        h = len(widths) - 1
        net = dl.LinearNetwork(widths, rng.normal(size=(widths[-1], widths[0])))
        modes = tuple(range(net.max_rank))
        least = h * net.singular_values[0] ** (2.0 - 2.0 / h)
        at_balance = measured(net, "sharpness", net.critical_state(modes))[0]
        assert at_balance == pytest.approx(least, rel=1e-12)
        others = [dl.random_fiber_state(net, modes, rng=k) for k in range(5)]
        assert measured(net, "sharpness", *others).min() > least


def test_balanced_layers_are_aligned_with_each_other_and_with_the_target():
    rng = np.random.default_rng(7)
    net = dl.LinearNetwork((4, 6, 5, 3), rng.normal(size=(3, 4)))
    x = net.critical_state((0, 1, 2))
    np.testing.assert_allclose(measured(net, "alignment", x)[0], 1.0, atol=1e-12)
    raw = dl.LinearNetwork((4, 6, 3), net.target, input_root=rng.normal(size=(4, 4)))
    np.testing.assert_allclose(
        measured(raw, "alignment", raw.critical_state((0, 1, 2)))[0], 1.0, atol=1e-12
    )


def test_alignment_is_the_overlap_of_singular_vectors():
    rng = np.random.default_rng(8)
    net = dl.LinearNetwork((4, 6, 5, 3), rng.normal(size=(3, 4)))
    x = rng.normal(size=net.dim)
    W1, W2, W3 = (np.linalg.svd(w, full_matrices=False) for w in net.unpack(x))
    U, _, Vt = np.linalg.svd(net.target, full_matrices=False)
    found = measured(net, "alignment", x)[0]
    for j in range(3):
        wanted = [Vt[j] @ W1[2][j], W1[0][:, j] @ W2[2][j], W2[0][:, j] @ W3[2][j]]
        wanted.append(W3[0][:, j] @ U[:, j])
        np.testing.assert_allclose(found[:, j], np.abs(wanted), rtol=1e-10)


def misses_when_the_loss_moves(depth, scale):
    """Return 1 − the overlaps (level) of mode 0 when the loss has fallen by 1 %, of a few runs."""
    net = dl.LinearNetwork((3, *(5,) * (depth - 1), 3), np.diag([3.0, 2.0, 1.0]))
    total = np.zeros(depth + 1)
    for seed in range(1, 4):
        start = scale * net.initial(scale=1.0, rng=seed)
        moved = dl.events.loss_below(net, 0.99 * net.loss(start), terminal=True)
        run = dl.flow(net, start, events=moved).isel(time=[-1])
        total += 1.0 - dl.observe(net, run, "alignment").alignment.values[0, :, 0]
    return total


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_small_starts_align_before_the_loss_moves(depth):
    """By a part that vanishes with the start, at the rates of the ray along which mode 0 is learnt.

    Mode 1 falls behind like r^{-(1 − σ_1/σ_0)} and what neighbouring layers do not share like
    r^{-2}, while weights grow to a fixed size r from ε; overlaps miss 1 by squares of these.
    """
    far, near = (misses_when_the_loss_moves(depth, scale) for scale in (1e-5, 1e-6))
    slopes = np.log10(far[[0, -1]] / near[[0, -1]])
    np.testing.assert_allclose(slopes, 2.0 * (1.0 - 2.0 / 3.0), rtol=0, atol=5e-3)
    far, near = (misses_when_the_loss_moves(depth, scale) for scale in (3e-3, 1e-3))
    inner = np.log(far[1:-1].sum() / near[1:-1].sum()) / np.log(3.0)
    assert inner == pytest.approx(4.0, abs=0.2)


def test_close_singular_values_are_compared_as_subspaces():
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3)))[0]
    inner = np.eye(3)
    inner[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    net = dl.LinearNetwork((3, 3, 3), np.diag([3.0, 2.0, 1.0]))
    for gap in (0.0, 1e-9):
        first = turn @ np.diag([2.0, 2.0 - gap, 1.0]) @ np.eye(3)
        x = net.pack([first, np.diag([2.0, 2.0 - gap, 1.0]) @ inner.T @ turn.T])
        np.testing.assert_allclose(measured(net, "alignment", x)[0, 1], 1.0, atol=1e-12)
    first = turn @ np.diag([2.0, 1.9, 1.0])
    x = net.pack([first, np.diag([2.0, 1.9, 1.0]) @ inner.T @ turn.T])
    np.testing.assert_allclose(measured(net, "alignment", x)[0, 1], [0.6, 0.6, 1.0], atol=1e-12)
    # of two close modes on one side and two directions of which one is left out
    x = net.pack([np.diag([2.0, 1.0, 1.0]), np.diag([3.0, 2.0, 1.0])[:, [0, 2, 1]]])
    np.testing.assert_allclose(measured(net, "alignment", x)[0, 1], [1.0, 1.0, 1.0], atol=1e-12)
    x = net.pack([np.diag([2.0, 2.0, 1.0]), np.diag([3.0, 2.0, 1.0])[:, [0, 2, 1]]])
    found = measured(net, "alignment", x)[0, 1]
    np.testing.assert_allclose(found, [np.sqrt(0.5), np.sqrt(0.5), 0.0], atol=1e-12)


def test_modes_that_are_not_there_have_no_alignment():
    net = dl.LinearNetwork((4, 2, 3), np.diag([3.0, 2.0, 0.0]) @ np.eye(3, 4))
    found = measured(net, "alignment", np.ones(net.dim), np.zeros(net.dim))
    assert found.shape == (2, 3, 3)
    assert np.isfinite(found[0, :, 0]).all()
    assert np.isnan(found[0, :, 1:]).all()
    assert np.isnan(found[1]).all()


def test_ranks_of_maps_with_known_singular_values():
    net = dl.LinearNetwork((3, 3), np.eye(3))
    states = [
        np.diag(s).ravel() for s in ([5.0, 5.0, 5.0], [2.0, 1.0, 1.0], [3.0, 0, 0], [0, 0, 0])
    ]
    q = np.array([0.5, 0.25, 0.25])
    wanted = [3.0, np.exp(-np.sum(q * np.log(q))), 1.0, 0.0]
    np.testing.assert_allclose(measured(net, "effective_rank", *states), wanted, rtol=1e-14)
    np.testing.assert_allclose(measured(net, "stable_rank", *states), [3.0, 1.5, 1.0, 0.0])


def test_balanced_networks_find_similar_what_powers_of_the_map_do():
    rng = np.random.default_rng(10)
    net = dl.LinearNetwork((4, 5, 6, 3), rng.normal(size=(3, 4)))
    x = net.initial("balanced", scale=1.3, rng=1)
    W = net.product(x)
    powers = np.linalg.svd(W)[2].T
    s = np.append(np.linalg.svd(W)[1], 0.0)
    found = measured(net, "hidden_similarity", x)[0]
    for i in (1, 2, 3):
        np.testing.assert_allclose(
            found[i - 1], (powers * s ** (2.0 * i / 3.0)) @ powers.T, atol=1e-12 * s[0] ** 2
        )
    X = rng.normal(size=(4, 7))
    W1, W2, _ = net.unpack(x)
    similar = net.hidden_similarity(np.stack([x, 2 * x]), X)
    assert similar.shape == (2, 3, 7, 7)
    np.testing.assert_allclose(similar[0, 1], (W2 @ W1 @ X).T @ (W2 @ W1 @ X), rtol=1e-12)


def test_the_balance_gap_lies_between_none_and_one():
    net = dl.LinearNetwork((2, 2, 2), np.eye(2))
    turn = sqrtm(np.array([[2.0, 1.0], [1.0, 3.0]])).real
    states = [
        net.pack([turn, turn]),
        net.pack([np.zeros((2, 2)), turn]),
        net.pack([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])]),
        net.pack([2.0 * turn, turn]),
        np.zeros(net.dim),
    ]
    found = measured(net, "balance_gap", *states)
    np.testing.assert_allclose(found, [0.0, 1.0, np.sqrt(0.5), 0.6, 0.0], atol=1e-15)


@pytest.mark.parametrize(
    ("widths", "scale"), [((2,) * 11, 2.0**-30), ((3, 4, 4, 2), 2.0**-400), ((3, 4, 2), 2.0**100)]
)
def test_what_is_measured_as_a_ratio_has_no_scale(widths, scale):
    """K and W Wᵀ are homogeneous in the weights; powers of two round nothing."""
    rng = np.random.default_rng(17)
    net = dl.LinearNetwork(widths, rng.normal(size=(widths[-1], widths[0])))
    x = rng.normal(size=(3, net.dim))
    names = ["ntk_distance", "ntk_change", "ntk_alignment", "balance_gap", "effective_rank"]
    names += ["stable_rank", "alignment"]
    for name in names:
        plain, small = (measured(net, name, *states) for states in (x, scale * x))
        np.testing.assert_allclose(small, plain, rtol=1e-13, atol=1e-15, err_msg=name)
    # a layer of another size: the map has the same ranks, K other weights of its terms
    first, *rest = net.unpack(x[0])
    far = net.pack([first * scale, *rest])
    assert np.isfinite(measured(net, "ntk_alignment", far)).all()
    assert measured(net, "stable_rank", far) == pytest.approx(measured(net, "stable_rank", x[0]))


def test_a_kernel_of_one_large_layer_is_its_own():
    """K = W_2W_2ᵀ ⊗ I + I ⊗ W_1ᵀW_1, of which a tiny W_1 leaves the first, and zero, too."""
    rng = np.random.default_rng(18)
    net = dl.LinearNetwork((3, 4, 2), rng.normal(size=(2, 3)))
    W1, W2 = net.unpack(rng.normal(size=net.dim))
    K, y = np.kron(W2 @ W2.T, np.eye(3)), net.target.ravel()
    for small, large in itertools.product((0.0, 2.0**-500), (1.0, 2.0**-400, 2.0**100)):
        x = net.pack([large * small * W1, large * W2])
        wanted = y @ K @ y / np.linalg.norm(K) / (y @ y)
        assert float(measured(net, "ntk_alignment", x)[0]) == pytest.approx(wanted, rel=1e-13)
        values = measured(net, "ntk_eigenvalue", x)[0] / large / large
        np.testing.assert_allclose(values, np.linalg.eigvalsh(K)[::-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", problems(np.random.default_rng(11)))
def test_hidden_rotations_change_nothing(name):
    rng = np.random.default_rng(11)
    net = problems(np.random.default_rng(11))[name]
    start, end = rng.normal(size=(2, net.dim))
    layers = [list(net.unpack(x)) for x in (start, end)]
    for i, d in enumerate(net.widths[1:-1]):
        Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
        for one in layers:
            one[i], one[i + 1] = Q @ one[i], one[i + 1] @ Q.T
    turned = [net.pack(one) for one in layers]
    before = dl.observe(net, snapshots(net, start, end), OF_LAYERS)
    after = dl.observe(net, snapshots(net, *turned), OF_LAYERS)
    for observable in OF_LAYERS:
        size = 1.0 + np.nanmax(np.abs(before[observable].values))
        np.testing.assert_allclose(
            after[observable], before[observable], rtol=0, atol=1e-11 * size, err_msg=observable
        )


@pytest.mark.parametrize("name", ["whitened", "raw", "logistic", "thin"])
def test_a_run_records_what_is_observed_of_it(name):
    net = problems(np.random.default_rng(12))[name]
    start = net.initial(scale=0.3, rng=0)
    names = ("state", *OF_LAYERS, "singular_value", "imbalance")
    grid = np.linspace(0.0, 5.0, 7)
    plain = dl.flow(net, start, (0, 5), grid)
    recorded = dl.flow(net, start, (0, 5), grid, save=names)
    observed = dl.observe(net, plain, [n for n in names if n != "state"])
    for observable in names[1:]:
        size = 1.0 + np.nanmax(np.abs(observed[observable].values))
        np.testing.assert_allclose(
            observed[observable], recorded[observable], rtol=0, atol=1e-12 * size
        )
        assert observed[observable].attrs == recorded[observable].attrs
    dl.schema.validate(observed)
    assert observed.drop_vars(observed.variables.keys() - plain.variables.keys()).identical(plain)


def test_members_of_a_stack_are_observed_from_their_own_starts():
    net = dl.LinearNetwork((3, 4, 3), np.diag([3.0, 2.0, 1.0]))
    starts = np.stack([net.initial(scale=s, rng=k) for k, s in enumerate((0.3, 0.01, 1.0))])
    names = ["ntk_distance", "sharpness", "alignment"]
    for grid in (None, np.linspace(0.0, 3.0, 4)):
        saved = dl.flow(net, starts, (0, 3), grid, save=("state", *names))
        observed = dl.observe(
            net, saved[["state", "time", "stop_reason"]].assign_attrs(saved.attrs), names
        )
        for k, start in enumerate(starts):
            alone = dl.observe(net, dl.flow(net, start, (0, 3), grid), names)
            for observable in names:
                for found in (saved, observed):
                    rows = found[observable].values[k]
                    there = rows[: alone.sizes["time"]]
                    np.testing.assert_allclose(there, alone[observable], rtol=1e-9, atol=1e-12)
                    assert np.isnan(rows[alone.sizes["time"] :]).all()


def test_descent_and_exact_runs_are_observed_from_their_start():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    start = net.initial("aligned", scale=0.3)
    descent = dl.GradientDescent(net, 0.1)
    steps = dl.iterate(descent, start, n_steps=50, every=5, save=("state", "ntk_distance"))
    for system in (net, descent):
        again = dl.observe(system, steps, ["sharpness", "ntk_distance"])
        assert again.ntk_distance.dims == ("iteration",)
        np.testing.assert_array_equal(again.ntk_distance, steps.ntk_distance)
    late = dl.exact_flow(net, start, [1.0, 2.0], save=("state", "ntk_distance"))
    whole = dl.exact_flow(net, start, [0.0, 1.0, 2.0], save=("state", "ntk_distance"))
    np.testing.assert_allclose(late.ntk_distance, whole.ntk_distance[1:], rtol=1e-12)
    assert float(late.ntk_distance[0]) > 1e-3


def test_functions_of_ones_own_are_recorded_and_observed():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    start = net.initial(scale=0.3, rng=0)
    own = {"largest_weight": lambda x: np.abs(x).max(), "first_layer": lambda x: net.unpack(x)[0]}
    run = dl.flow(net, start, (0, 1), [0.0, 1.0], save=["state", own])
    assert run.first_layer.dims == ("time", "first_layer_0", "first_layer_1")
    np.testing.assert_array_equal(run.largest_weight, np.abs(run.state).max("parameter"))
    dl.schema.validate(run)
    only = dl.flow(net, start, (0, 1), [0.0, 1.0], save=own)
    assert "state" not in only
    np.testing.assert_array_equal(only.largest_weight, run.largest_weight)
    later = dl.observe(net, dl.flow(net, start, (0, 1), [0.0, 1.0]), own)
    np.testing.assert_array_equal(later.first_layer, run.first_layer)
    stack = dl.flow(net, [start, 2 * start], (0, 1), [0.0, 1.0], save=("state", own))
    np.testing.assert_array_equal(stack.largest_weight[0], run.largest_weight)
    lorenz = dl.System(naive_decay, dim=1)
    found = dl.flow(lorenz, [1.0], (0, 1), [1.0], save={"square": lambda x: x[0] ** 2})
    assert float(found.square[-1]) == pytest.approx(np.exp(-2.0), rel=1e-7)


def naive_decay(t, x, params, out):
    out[0] = -x[0]


def test_rows_near_overflow_are_not_a_number():
    net = dl.LinearNetwork((2, 2, 2), np.eye(2))
    run = dl.iterate(
        dl.GradientDescent(net, 5.0),
        3.0 * np.ones(net.dim),
        n_steps=30,
        save=("state", *OF_LAYERS),
    )
    assert dl.schema.decode(run.stop_reason).item() == "not_finite"
    assert run.sizes["iteration"] > 2


def failing(x):
    return 1 / 0


def test_the_step_size_of_a_map_is_nothing_that_is_observed():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    run = dl.iterate(dl.GradientDescent(net, 0.05), net.initial(rng=0), 10)
    of_net = dl.observe(net, run, "sharpness").sharpness
    assert dl.observe(dl.GradientDescent(net, 0.1), run, "sharpness").sharpness.identical(of_net)


def test_functions_that_want_the_flow_say_where_a_map_has_it():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    descent = dl.GradientDescent(net, 0.1)
    run = dl.iterate(descent, net.initial(rng=0), 10)
    words = "got GradientDescent, whose flow is its .system, a LinearNetwork"
    for call in (
        lambda: dl.saddle_visits(descent, run),
        lambda: dl.observed_connections(descent, run),
        lambda: dl.evaluate(descent, run, np.eye(2), np.eye(2)),
        lambda: dl.generalization_error(descent, run, np.eye(2)),
        lambda: dl.early_stopping(descent, np.eye(2)),
    ):
        with pytest.raises(TypeError, match=f"^net: .*{words}"):
            call()
    assert dl.saddle_visits(dl.load_system(run).system, run).sizes["visit"]


def test_layers_in_place_of_a_state_are_told_of_pack():
    for widths in ((2, 3, 2), (2, 2, 2)):
        net = dl.LinearNetwork(widths, np.diag([2.0, 1.0]))
        layers = net.unpack(net.initial(rng=0))
        for call in (dl.hessian, lambda net, x: dl.flow(net, x, (0, 1))):
            with pytest.raises((ValueError, TypeError), match="pack"):
                call(net, layers)


def test_data_with_samples_in_rows_are_told_to_be_transposed():
    X, Y = data(np.random.default_rng(0))
    linear = dl.LinearNetwork.from_data(X, Y, hidden=(5,))
    power = dl.LossNetwork((4, 5, 3), dl.losses.power(X, Y))
    for net in (linear, power):
        run = snapshots(net, net.initial(rng=0))
        with pytest.raises(ValueError, match="^[XY]: needs .* rows .*transpose"):
            dl.evaluate(net, run, X.T[:, :3], Y.T[:, :3])


def test_held_out_entries_are_given_by_their_places():
    criterion = dl.losses.completion((2, 2), [0, 1], [0, 1], [1.0, 2.0])
    net = dl.LossNetwork((2, 2, 2), criterion)
    W1, W2 = np.diag([2.0, 1.0]), np.array([[1.0, 0.5], [0.0, 1.0]])
    run = snapshots(net, net.pack([W1, W2]))
    W = W2 @ W1
    found = dl.evaluate(net, run, [[0, 1], [1, 0]], [3.0, 4.0])
    wanted = 0.5 * ((W[0, 1] - 3.0) ** 2 + (W[1, 0] - 4.0) ** 2)
    assert float(found.loss[0]) == pytest.approx(wanted, rel=1e-14)
    with pytest.raises(TypeError, match=r"^X: needs rows and columns \(2 × m integers\)"):
        dl.evaluate(net, run, np.eye(2), [3.0, 4.0])


def test_bad_input_is_named():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    other = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 0.5]))
    start = net.initial(rng=0)
    run = dl.flow(net, start, (0, 1), [1.0])
    for message, call in (
        ("names: there is no 'sharpnes'; did you mean 'sharpness'", lambda: ["sharpnes"]),
        ("names: needs names", lambda: [3]),
        ("names: 'loss' has a meaning already", lambda: {"loss": lambda x: 1.0}),
        ("names: needs a function", lambda: {"mine": 3.0}),
        ("names: 'mine' needs to return numbers", lambda: {"mine": lambda x: "a"}),
        ("names: 'mine' needs to return numbers, got None", lambda: {"mine": lambda x: None}),
        ("names: 'mine' fails at a state with ZeroDivisionError: ", lambda: {"mine": failing}),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            dl.observe(net, run, call())
    with pytest.raises(ValueError, match="run: belongs to another network"):
        dl.observe(other, run, "sharpness")
    with pytest.raises(ValueError, match=r"run: .*isel\(time=\[-1\]\)"):
        dl.observe(net, run.isel(time=-1), "sharpness")
    assert dl.observe(net, run.isel(time=[-1]), "sharpness").sizes["time"] == 1
    modes = dl.observe(net, run, "singular_value").isel(mode=[0])
    with pytest.raises(ValueError, match="run: has 1 along 'mode', where 'alignment' has 2"):
        dl.observe(net, modes, "alignment")
    with pytest.raises(ValueError, match="run: needs 'time' or 'iteration'"):
        dl.evaluate(net, run.drop_vars("time"), np.eye(2), np.eye(2))
    for save in ({"mine": lambda x: None}, {"mine": failing}):
        with pytest.raises((ValueError, TypeError), match="^save: 'mine' "):
            dl.flow(net, start, (0, 1), [1.0], save=save)
    lean = dl.flow(net, start, (0, 1), [1.0], save=())
    with pytest.raises(ValueError, match="run: has no states"):
        dl.observe(net, lean, "sharpness")
    with pytest.raises(ValueError, match="save: there is no 'algnment'; did you mean 'alignment'"):
        dl.flow(net, start, (0, 1), save=("algnment",))
    assert "sharpness" in dl.observe(net, run, "sharpness")
