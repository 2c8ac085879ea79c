"""Statements of the theory against first principles: own fields, own spectra, own runs."""

import itertools

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnds as dl


def hessian(net, x):
    """Differences of the defining field, which is minus the gradient."""
    H = -naive.differences(lambda y: naive.field(net, y), x, 1e-3)
    return 0.5 * (H + H.T)


def inertia(H, tolerance=1e-7):
    values = np.linalg.eigvalsh(H)
    zero = tolerance * np.abs(values).max()
    return int(np.sum(values < -zero)), int(np.sum(np.abs(values) <= zero)), values


# Whitening.


def problem(seed, hidden=(3, 4)):
    rng = np.random.default_rng(seed)
    mixing = np.diag([3.0, 1.0, 0.4]) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    X, Y = mixing @ rng.normal(size=(3, 40)), rng.normal(size=(2, 40))
    nets = [dl.LinearNetwork.from_data(X, Y, hidden, whiten=w) for w in (False, True)]
    values, vectors = np.linalg.eigh(X @ X.T / 40)
    return *nets, (vectors * np.sqrt(values)) @ vectors.T


def whitened(raw, white, root, x):
    """W_1 → W_1 C^{1/2}."""
    first, *others = naive.split(raw, x)
    return white.pack([first @ root, *others])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_whitening_keeps_critical_points_and_their_kind(seed):
    """Both ways: critical exactly where the image is; the Hessians are congruent there."""
    raw, white, root = problem(seed)
    modes = naive.index_sets(raw)[seed % len(naive.index_sets(raw))]
    x = dl.random_fiber_state(raw, modes, rng=seed)
    y = whitened(raw, white, root, x)
    size = 1.0 + np.abs(y).max() ** 5
    assert naive.loss(white, y) == pytest.approx(naive.loss(raw, x), abs=1e-11 * size)
    for net, state in ((raw, x), (white, y)):
        assert np.linalg.norm(naive.field(net, state)) < 1e-11 * size
    aside = np.random.default_rng(seed).normal(size=x.size)
    ratio = [
        np.linalg.norm(naive.field(net, state))
        for net, state in ((raw, x + aside), (white, whitened(raw, white, root, x + aside)))
    ]
    assert min(ratio) > 1e-3
    kinds = [dl.schema.decode(dl.classify(*pair).kind) for pair in ((raw, x), (white, y))]
    assert kinds[0] == kinds[1]
    (*first, _), (*second, values) = inertia(hessian(raw, x)), inertia(hessian(white, y))
    clear = np.abs(values) / np.abs(values).max()
    if not ((clear > 1e-9) & (clear < 1e-5)).any():
        assert first == second


def test_whitening_changes_the_flow_the_balancedness_and_the_spectrum():
    raw, white, root = problem(3)
    rng = np.random.default_rng(1)
    x = raw.initial("balanced", scale=0.7, rng=rng)
    y = whitened(raw, white, root, x)
    first, second, third = naive.split(raw, x)
    # The image of Ẇ_1 lacks the factor C that the flow of the image has; other layers agree.
    moved = naive.split(raw, naive.field(raw, x))
    there = naive.split(white, naive.field(white, y))
    C = root @ root
    np.testing.assert_allclose(moved[0], there[0] @ root, atol=1e-12)
    np.testing.assert_allclose(moved[0] @ root, there[0] @ C, atol=1e-12)
    assert np.linalg.norm(moved[0] @ root - there[0]) > 0.1 * np.linalg.norm(there[0])
    for ours, theirs in zip(moved[1:], there[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    # C_1 = W_1 (C − 1) W_1ᵀ from a balanced start, the others stay 0.
    assert max(np.abs(part).max() for part in raw.imbalances(x)) < 1e-14
    gaps = white.imbalances(y)
    np.testing.assert_allclose(gaps[0], first @ (C - np.eye(3)) @ first.T, atol=1e-13)
    assert np.linalg.norm(gaps[0]) > 0.1 * np.linalg.norm(second) ** 2
    np.testing.assert_allclose(gaps[1], 0.0, atol=1e-14)
    assert third.shape == (2, 4)
    point = dl.random_fiber_state(raw, (1,), rng=0)
    spectra = [
        np.linalg.eigvalsh(hessian(net, state))
        for net, state in ((raw, point), (white, whitened(raw, white, root, point)))
    ]
    assert np.abs(spectra[0] - spectra[1]).max() > 0.05 * np.abs(spectra[0]).max()


# Conservation.


def test_the_ends_of_the_commutator_are_not_conserved_but_change_alike():
    """Of [A, Aᵀ] the hidden blocks stay; −W_1ᵀW_1 and W_hW_hᵀ change by ∓2∫tr(RᵀW) in trace."""
    for widths in ((3, 4, 2), (2, 3, 4, 3)):
        net = naive.random_network(widths, 2)
        x = naive.state_of(net, 3, 0.4)
        run = dl.flow(net, x, (0.0, 3.0), np.linspace(0.0, 3.0, 301), rtol=1e-11)
        edges = np.cumsum((0, *widths))
        blocks = []
        for state in run.state.values:
            A = net.adjacency(state)
            bracket = A @ A.T - A.T @ A
            blocks.append([bracket[a:b, a:b] for a, b in itertools.pairwise(edges)])
        change = [last - first for first, last in zip(blocks[0], blocks[-1], strict=True)]
        for inner in change[1:-1]:
            assert np.abs(inner).max() < 1e-9
        assert min(np.linalg.norm(change[0]), np.linalg.norm(change[-1])) > 0.3
        products = [naive.chain(naive.split(net, s), 1, net.depth, widths[0]) for s in run.state]
        power = [2.0 * np.sum((net.target - W) * W) for W in products]
        gained = np.trapezoid(power, run.time)
        assert np.trace(change[-1]) == pytest.approx(gained, rel=1e-3)
        assert np.trace(change[0]) == pytest.approx(-gained, rel=1e-3)


# Near a saddle.


@pytest.mark.parametrize(
    ("widths", "sigma", "modes"),
    [
        ((3, 3, 3), (3.0, 2.0, 0.7), (0,)),
        ((3, 4, 3, 3), (3.0, 2.0, 0.7), (0, 1)),
        ((3, 4, 3, 3), (3.0, 2.0, 0.7), (1,)),
        ((2, 3, 2, 3, 4), (1.5, 0.8), (0,)),
    ],
)
def test_near_a_saddle_the_loss_is_a_quadratic_form_and_the_loss_of_the_residual_network(
    widths, sigma, modes
):
    """Along W_i = blkdiag(diag s, Z_i) the loss is that of Z, and it is critical across.

    So with the Hessian across, which stays nondegenerate, a change of coordinates makes it
    quadratic (splitting lemma): ½ H(v, v) + L_res(Z) for all v across, Z, and orbit directions.
    """
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    net = dl.LinearNetwork(widths=widths, target=target)
    r, h, rng = len(modes), len(widths) - 1, np.random.default_rng(0)
    order = [*modes, *(j for j in range(min(target.shape)) if j not in modes)]
    rows, columns = ([*order, *range(len(sigma), d)] for d in target.shape)
    rest = dl.LinearNetwork([d - r for d in widths], target[np.ix_(rows, columns)][r:, r:])
    s = np.diag(np.array(sigma)[list(modes)] ** (1.0 / h))

    def with_blocks(z):
        layers = []
        for i, Z in enumerate(naive.split(rest, z)):
            W = np.block([[s, np.zeros((r, Z.shape[1]))], [np.zeros((Z.shape[0], r)), Z]])
            W = W if i else W[:, np.argsort(columns)]
            layers.append(W if i < h - 1 else W[np.argsort(rows)])
        return net.pack(layers)

    x = with_blocks(np.zeros(rest.dim))
    np.testing.assert_allclose(np.sort(x), np.sort(net.critical_state(modes)), atol=1e-13)
    H = hessian(net, x)
    values, vectors = np.linalg.eigh(H)
    across = vectors[:, np.abs(values) > 1e-6 * np.abs(values).max()]
    if h == 2:  # there the residual part is strict too
        inside = np.stack([with_blocks(e) - x for e in np.eye(rest.dim)])
        u, size, _ = np.linalg.svd(across - inside.T @ (inside @ across), full_matrices=False)
        across = u[:, size > 1e-6]
    assert across.shape[1] == r * (widths[0] + widths[-1] - r)
    falling = int(np.sum(np.linalg.eigvalsh(across.T @ H @ across) < 0.0))
    for size in (1e-3, 0.1, 0.3):
        z = size * rng.normal(size=rest.dim)
        y = with_blocks(z)
        assert naive.loss(net, y) == pytest.approx(naive.loss(rest, z), rel=1e-13)
        force = naive.field(net, y)
        assert np.abs(across.T @ force).max() < 1e-12
        assert np.linalg.norm(force) == pytest.approx(np.linalg.norm(naive.field(rest, z)))
        bent = np.linalg.eigvalsh(across.T @ hessian(net, y) @ across)
        assert np.abs(bent).min() > 0.1 * np.abs(values[np.abs(values) > 1e-6]).min()
        assert np.sum(bent < 0.0) == falling
        moved = naive.change_bases(net, y, 1, 0.3)
        assert naive.loss(net, moved) == pytest.approx(naive.loss(rest, z), rel=1e-11)


# Width reduction.


def bases(widths, layers):
    """Orthonormal bases of the spans of [W_i, W_{i+1}ᵀ], the identity at both ends."""
    found = [np.eye(widths[0])]
    for before, after in itertools.pairwise(layers):
        u, size, _ = np.linalg.svd(np.hstack([before, after.T]), full_matrices=False)
        found.append(u[:, size > 1e-9 * size[0]])
    return [*found, np.eye(widths[-1])]


def narrow(frames, layers):
    return [b.T @ w @ a for (a, b), w in zip(itertools.pairwise(frames), layers, strict=True)]


def wide(frames, layers):
    return [b @ w @ a.T for (a, b), w in zip(itertools.pairwise(frames), layers, strict=True)]


WIDE = (2, 7, 3, 9, 2)


def check_reduction(move, make):
    """``move(net, x)`` of the reduced network is that of the whole one, lifted back."""
    net = make(WIDE)
    layers = naive.split(net, naive.state_of(net, 5, 0.4))
    frames = bases(WIDE, layers)
    widths = [frame.shape[1] for frame in frames]
    assert widths == [2, 5, 3, 5, 2]
    small = make(tuple(widths))
    start = narrow(frames, layers)
    assert [frame.shape[1] for frame in bases(widths, start)] == widths  # nothing more to gain
    whole = naive.split(net, move(net, net.pack(layers)))
    lifted = wide(frames, naive.split(small, move(small, small.pack(start))))
    for before, ours, theirs in zip(layers, lifted, whole, strict=True):
        assert np.linalg.norm(theirs - before) > 0.02
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    after = bases(WIDE, whole)
    for first, second in zip(frames, after, strict=True):
        assert first.shape == second.shape
        np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-7)


def square(widths):
    return dl.LinearNetwork(widths=widths, target=np.array([[2.0, 0.3], [-0.4, 1.0]]))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_raw_inputs_with_the_covariance_of_a_ball_have_a_faster_flow_of_smaller_modes(depth):
    rng, gain, widths = np.random.default_rng(0), 2.5, (3,) * (depth + 1)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    raw = dl.LinearNetwork(widths, rng.normal(size=(3, 3)), input_root=gain**0.5 * turn)
    white = dl.LinearNetwork(widths, raw.target @ turn.T / gain**0.5)
    np.testing.assert_allclose(white.singular_values, raw.singular_values / gain**0.5, rtol=1e-13)
    x = raw.initial(scale=0.5, rng=1)
    np.testing.assert_allclose(naive.field(raw, x), gain * naive.field(white, x), atol=1e-13)
    late = dl.flow(raw, x, (0.0, 1.0), [1.0], rtol=1e-11).state[-1]
    expected = dl.flow(white, x, (0.0, gain), [gain], rtol=1e-11).state[-1]
    np.testing.assert_allclose(late, expected, rtol=0, atol=1e-8)


def test_unused_width_is_exact_along_the_flow():
    def move(net, x):
        return dl.flow(net, x, (0.0, 2.0), [2.0], rtol=1e-12).state.values[-1]

    check_reduction(move, square)


def test_unused_width_is_exact_under_gradient_descent():
    def move(net, x):
        return dl.iterate(dl.GradientDescent(net, 0.05), x, 40).state.values[-1]

    check_reduction(move, square)


def test_unused_width_is_exact_under_weight_decay():
    """Runge–Kutta steps of −∇L − λ W, as the equation of equilibria has it."""

    def move(net, x):
        decayed = dl.Residual(**net.varied("weight_decay"))
        full = decayed.value(x, 0.3)
        np.testing.assert_allclose(full, naive.field(net, x) - 0.3 * x, atol=1e-12)
        for _ in range(40):
            k1 = decayed.value(x, 0.3)
            k2 = decayed.value(x + 0.025 * k1, 0.3)
            x = x + 0.05 * k2
        return x

    check_reduction(move, square)


@pytest.mark.parametrize("kind", ["logistic", "cross_entropy", "power"])
def test_unused_width_is_exact_under_other_losses(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 12))
    losses = {
        "logistic": lambda: dl.losses.logistic(X, np.where(rng.random((2, 12)) < 0.5, 1, -1)),
        "cross_entropy": lambda: dl.losses.cross_entropy(X, rng.integers(0, 2, 12), classes=2),
        "power": lambda: dl.losses.power(X, rng.normal(size=(2, 12)), power=4.0),
    }
    loss = losses[kind]()

    def move(net, x):
        return dl.flow(net, x, (0.0, 4.0), [4.0], rtol=1e-12).state.values[-1]

    check_reduction(move, lambda widths: dl.LossNetwork(widths, loss))


# Symmetry of other losses.


@pytest.mark.parametrize("kind", ["logistic", "cross_entropy", "power"])
@pytest.mark.parametrize("condition", [1.0, 30.0, 1e3])
def test_other_losses_have_the_symmetry_of_the_square_one(kind, condition):
    """L(P·x) = L(x), and ∇_i L(P·x) = P_i^{−T} ∇_i L(x) P_{i−1}ᵀ: orthogonal P commute."""
    rng = np.random.default_rng(4)
    X, widths = rng.normal(size=(3, 15)), (3, 4, 3, 2)
    loss = {
        "logistic": dl.losses.logistic(X, np.where(rng.random((2, 15)) < 0.5, 1, -1)),
        "cross_entropy": dl.losses.cross_entropy(X, rng.integers(0, 2, 15), classes=2),
        "power": dl.losses.power(X, rng.normal(size=(2, 15)), power=4.0),
    }[kind]
    net = dl.LossNetwork(widths, loss)
    x = naive.state_of(net, 1, 0.6)
    group = [np.eye(3)]
    for d in widths[1:-1]:
        u, v = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
        group.append((u * np.geomspace(1.0, condition, d)) @ v)
    group.append(np.eye(2))
    pairs = list(itertools.pairwise(group))

    def act(layers):
        return [b @ w @ np.linalg.inv(a) for (a, b), w in zip(pairs, layers, strict=True)]

    layers = naive.split(net, x)
    moved = net.pack(act(layers))
    assert net.loss(moved) == pytest.approx(net.loss(x), rel=1e-11 * condition)
    before = naive.split(net, net.gradient(x))
    after = naive.split(net, net.gradient(moved))
    for (a, b), first, second in zip(pairs, before, after, strict=True):
        expected = np.linalg.inv(b).T @ first @ a.T
        scale = np.abs(expected).max()
        np.testing.assert_allclose(second, expected, atol=1e-11 * condition * scale)
    turned = act(before)
    gap = max(np.abs(p - q).max() for p, q in zip(turned, after, strict=True))
    size = max(np.abs(p).max() for p in before)
    assert (gap < 1e-12) if condition == 1.0 else (gap > 0.1 * size)


# Times.


@pytest.mark.parametrize(("degree", "make"), [
    (3, lambda: dl.LinearNetwork((2, 2, 2, 2), np.diag([2.0, 1.0]))),
    (4, lambda: dl.LinearNetwork((2, 2, 2, 2, 2), np.diag([2.0, 1.0]))),
    (3, lambda: dl.HomogeneousNetwork((1, 1, 1), [[1.0]], [[2.0]], power=2)),
])  # fmt: skip
def test_a_relative_error_of_the_start_shifts_time_by_its_law(degree, make):
    """By η δ^{−(L−2)}/(L N), from ψ = δ w_* and (1 + η) δ w_*, at one and the same norm."""
    net = make()
    best = dl.escape_directions(net, n_starts=10).isel(direction=0)
    direction, N = best.state.values, float(best["value"])
    g = -net.gradient(1e-4 * direction) / 1e-4 ** (degree - 1)  # ∇N = L N w_*
    np.testing.assert_allclose(g, degree * N * direction, atol=1e-3 * N)

    def crossing(start):
        def norm(t, x):
            return float(np.linalg.norm(x)) - 0.3

        norm.terminal = True
        run = dl.flow(net, start, (0.0, 1e8), rtol=1e-12, events=norm)
        return float(run.time[-1])

    for delta, eta in ((0.03, 1e-3), (0.01, -2e-3)):
        shift = crossing(delta * direction) - crossing(delta * (1.0 + eta) * direction)
        law = eta * delta ** (2.0 - degree) / (degree * N)
        assert shift == pytest.approx(law, rel=degree * abs(eta) + delta**2)


# Speed and alignment (WA25, Figs. 1a and 3).


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_a_mode_grows_fastest_where_the_theory_says(depth):
    """ds/dt at aligned, balanced states has its maximum at s^h = σ(h − 1)/(2h − 1)."""
    sigma = np.array([3.0, 1.2])
    net = dl.LinearNetwork((2,) * (depth + 1), np.diag(sigma))

    def speed(s, j):
        x = net.initial("aligned", scale=s)
        return float(naive.split(net, naive.field(net, x))[0][j, j])

    for j, value in enumerate(sigma):
        place = (value * (depth - 1) / (2 * depth - 1)) ** (1.0 / depth)
        slope, curve = (
            [speed(place + e, j) for e in (-1e-4, 0.0, 1e-4)][::step] for step in (2, 1)
        )
        assert abs(slope[1] - slope[0]) / 2e-4 < 1e-5  # to the square of the step
        assert curve[0] - 2.0 * curve[1] + curve[2] < -1e-9
        around = [speed(s, j) for s in np.linspace(0.05, value ** (1 / depth), 60)]
        assert max(around) <= speed(place, j) <= max(around) * 1.01
        s = 0.7 * place
        assert speed(s, j) == pytest.approx(s ** (depth - 1) * (value - s**depth), rel=1e-12)


def test_layers_align_where_modes_are_apart_and_need_not_where_they_are_close():
    """δ = 0.04 (WA25, Fig. 3): spacing 1.5 against pairs 0.1 apart, W at the target in both."""
    rng = np.random.default_rng(1)
    U, V = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
    worst = {}
    for name, sigma in (("apart", (6.0, 4.5, 3.0, 1.5)), ("close", (4.6, 4.5, 3.1, 3.0))):
        net = dl.LinearNetwork((4, 4, 4, 4), (U * sigma) @ V.T)
        found = []
        for seed in (3, 39, 57):
            start = net.initial("delta_balanced", scale=0.3, delta=0.04, rng=seed)
            gaps = [w2.T @ w2 - w1 @ w1.T for w1, w2 in itertools.pairwise(naive.split(net, start))]
            assert max(map(np.linalg.norm, gaps)) == pytest.approx(0.04, rel=1e-9)
            run = dl.flow(net, start)
            assert run.limit == "{0,1,2,3}"
            first, _, last = naive.split(net, run.state.values[-1])
            W = net.product(run.state.values[-1])
            overlap = np.abs(np.sum(np.linalg.svd(W)[0] * U, axis=0))
            assert overlap.min() > 1.0 - 1e-6
            inner = np.abs(np.sum(np.linalg.svd(first)[2].T * V, axis=0))
            outer = np.abs(np.sum(np.linalg.svd(last)[0] * U, axis=0))
            found.append(min(inner.min(), outer.min()))
        worst[name] = found
    assert min(worst["apart"]) > 0.999
    assert min(worst["close"]) < 0.4
