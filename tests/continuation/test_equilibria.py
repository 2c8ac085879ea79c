"""Equilibria as equations with a parameter: weight decay, paths of data, any number of a system."""

import itertools

import naive
import numpy as np
import pytest
import scipy.linalg
from equations import events
from scipy.optimize import brentq

import dlnds as dl

EPSILON = np.finfo(float).eps


def losses(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3, 6))
    return [
        dl.losses.logistic(X, [1, -1, 1, 1, -1, -1]),
        dl.losses.cross_entropy(X, [0, 1, 2, 1, 0, 2]),
        dl.losses.power(X, rng.normal(size=(2, 6)), power=4.0),
    ]


def turned(net, x, seed):
    """A state moved by random orthogonal matrices."""
    rng = np.random.default_rng(seed)
    return dl.act(net, [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in net.widths[1:-1]], x)


def path_of(net, seed):
    """A curved path of targets and its derivative."""
    a, b = np.random.default_rng(seed).normal(size=(2, *net.target.shape))
    return lambda p: np.cos(p) * a + p**3 * b, lambda p: -np.sin(p) * a + 3.0 * p**2 * b


def equations():
    """Residuals of every kind on random problems, with a state."""
    for seed, (shape, kind) in enumerate(
        itertools.product([(3, 4, 2), (2, 3, 2, 3), (3, 2, 2, 2, 4)], naive.KINDS)
    ):
        net = naive.random_network(shape, seed, kind)
        path, derivative = path_of(net, seed)
        yield net, dl.equilibria(net, "weight_decay")
        yield net, dl.equilibria(net, "target", path=path, path_derivative=derivative)
        yield net, dl.equilibria(net, "target", path=(path(0.0), path(1.0)))
        if kind == "full":
            yield net, dl.equilibria(net, "covariance")
            yield net, dl.equilibria(net, "covariance", fixed="map")
    for loss in losses(0):
        net = dl.LossNetwork((3, 4, loss.shape[0]), loss)
        yield net, dl.equilibria(net, vary="weight_decay")


def test_jacobians_and_derivatives_are_those_of_the_field():
    """Differences of order 4 of smooth functions: 1e-12 of their size, and rounding 1e-13."""
    for seed, (net, residual) in enumerate(equations()):
        x, p = naive.state_of(net, seed), 0.3
        J = naive.differences(lambda y, r=residual, p=p: r.value(y, p), x, 1e-3)
        near = {"rtol": 0.0, "atol": 1e-8 * (np.abs(J).max() + 1.0)}
        np.testing.assert_allclose(residual.jacobian(x, p), J, **near, err_msg=repr(residual))
        slope = naive.differences(lambda q, r=residual, x=x: r.value(x, q[0]), np.array([p]), 1e-3)
        near = {"rtol": 0.0, "atol": 1e-8 * (np.abs(slope).max() + np.abs(J).max() + 1.0)}
        np.testing.assert_allclose(residual.derivative(x, p), slope[:, 0], **near)
        assert residual.symmetric
        assert set(residual.observe(x, p)) == {"loss", "rank", "imbalance", "product_norm"}
        assert residual.attributes["widths"].tolist() == list(net.widths)
        assert set(residual.coordinates) - {"problem"} == {"layer", "row", "column"}


def test_the_field_is_minus_the_gradient_of_the_recorded_loss_and_the_decay():
    for seed, (net, residual) in enumerate(equations()):
        x, p = naive.state_of(net, seed), 0.3
        decay = p if residual.parameter == "weight_decay" else 0.0

        def loss(y, r=residual, p=p, decay=decay):
            return r.observe(y, p)["loss"] + 0.5 * decay * np.sum(y**2)

        gradient = naive.differences(loss, x, 1e-3)
        size = np.abs(gradient).max() + loss(x)
        np.testing.assert_allclose(residual.value(x, p), -gradient, rtol=0.0, atol=1e-8 * size)


def test_states_are_left_as_they_are_and_may_be_strided_or_read_only():
    net = naive.random_network((3, 2, 3), 0)
    residual = dl.equilibria(net, "weight_decay")
    x = naive.state_of(net, 0)
    before, value, J = x.copy(), residual.value(x, 0.1), residual.matrix(x, 0.1)
    strided = np.stack([x, x], axis=1)[:, 0]
    x.setflags(write=False)
    for state in (x, strided):
        np.testing.assert_array_equal(residual.value(state, 0.1), value)
        np.testing.assert_array_equal(residual.matrix(state, 0.1), J)
    np.testing.assert_array_equal(x, before)


# Weight decay.


def decayed(depth, sigma, weight_decay, branch):
    """The s with λ = s^{h−2}(σ − s^h) beyond the fold (branch 1), before it (−1), or 0."""
    if branch == 0 or (depth == 2 and weight_decay >= sigma):
        return 0.0
    if depth == 2:
        return np.sqrt(sigma - weight_decay)
    fold = ((depth - 2) * sigma / (2 * depth - 2)) ** (1.0 / depth)
    ends = (fold, sigma ** (1.0 / depth)) if branch > 0 else (0.0, fold)
    return brentq(lambda s: s ** (depth - 2) * (sigma - s**depth) - weight_decay, *ends, xtol=1e-15)


def equilibrium(net, weight_decay, branches):
    s = [
        decayed(net.depth, sigma, weight_decay, b)
        for sigma, b in zip(net.singular_values, branches, strict=True)
    ]
    return net.initial("aligned", scale=s)


@pytest.mark.parametrize(("depth", "branches"), [(2, (0, 1)), (3, (-1, 0, 1)), (4, (-1, 0, 1))])
def test_aligned_balanced_states_are_equilibria_of_weight_decay(depth, branches):
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag([4.0, 3.0, 2.0]))
    residual = dl.equilibria(net, "weight_decay")
    for number, chosen in enumerate(itertools.product(branches, repeat=3)):
        x = turned(net, equilibrium(net, 0.3, chosen), number)
        rounding = 1e3 * EPSILON * (1.0 + np.linalg.norm(x) ** (2 * depth))
        assert np.linalg.norm(residual.value(x, 0.3)) < rounding
        assert np.linalg.norm(residual.value(x, 0.31)) == pytest.approx(
            0.01 * np.linalg.norm(x), abs=rounding
        )
        observed = residual.observe(x, 0.3)
        assert observed["rank"] == np.count_nonzero(chosen)
        assert observed["imbalance"] < rounding
        # The kernel is the orbit's tangent space.
        generators = residual.orbit(x, 0.3)
        J = residual.matrix(x, 0.3)
        assert np.abs(J @ generators.T).max() < rounding
        nullity = np.count_nonzero(np.abs(np.linalg.eigvalsh(J)) < 1e-9)
        assert nullity == np.linalg.matrix_rank(generators, tol=1e-9)


@pytest.mark.parametrize("weight_decay", [0.01, 0.3])
@pytest.mark.parametrize("widths", [(4, 4, 4, 4), (3, 5, 2), (2, 3, 4, 2), (4, 3, 5, 3), (3, 3, 3)])
def test_nullity_under_weight_decay_counts_the_turns_that_move_what_is_learnt(widths, weight_decay):
    """A turn of hidden units moves nothing if it is among units that learn nothing."""
    target = np.zeros((widths[-1], widths[0]))
    sigma = np.array([4.0, 3.0, 2.0, 1.0])[: min(target.shape)]
    np.fill_diagonal(target, sigma)
    net = dl.LinearNetwork(widths=widths, target=target)
    residual = dl.equilibria(net, "weight_decay")
    roots = (0, 1) if net.depth == 2 else (-1, 0, 1)
    for branches in itertools.product(roots, repeat=len(sigma)):
        r = np.count_nonzero(branches)
        x = equilibrium(net, weight_decay, branches)
        eigenvalues = np.linalg.eigvalsh(residual.matrix(x, weight_decay))
        moving = sum(d * (d - 1) - (d - r) * (d - r - 1) for d in widths[1:-1]) // 2
        # The next smallest is of the order of the decay times what modes differ by.
        sizes = np.sort(np.abs(eigenvalues))
        assert sizes[:moving].max(initial=0.0) < 1e-12
        assert sizes[moving] > 1e-3 * weight_decay


@pytest.mark.parametrize("depth", [3, 4])
def test_the_fold_of_a_mode_is_where_the_kernel_grows_by_one(depth):
    net = dl.LinearNetwork(widths=(2,) * (depth + 1), target=np.diag([4.0, 1.0]))
    residual = dl.equilibria(net, "weight_decay")
    power = (depth - 2) * 4.0 / (2 * depth - 2)
    s = power ** (1.0 / depth)
    fold = s ** (depth - 2) * depth * 4.0 / (2 * depth - 2)
    for size, more in ((s, 1), (1.01 * s, 0), (0.99 * s, 0)):
        x = net.initial("aligned", scale=[size, 0.0])
        p = size ** (depth - 2) * (4.0 - size**depth)
        assert p <= fold * (1.0 + EPSILON)
        small = np.abs(np.linalg.eigvalsh(residual.matrix(x, p))) < 1e-9
        assert small.sum() == np.linalg.matrix_rank(residual.orbit(x, p)) + more


def test_gl_is_the_symmetry_without_decay_and_the_orthogonal_groups_with_it():
    net = naive.random_network((3, 4, 3, 3), 2, "full")
    residual = dl.equilibria(net, "weight_decay")
    x = dl.random_fiber_state(net, (0, 1), rng=0)
    assert len(residual.orbit(x, 0.0)) == 16 + 9
    J, rounding = residual.matrix(x, 0.0), 1e3 * EPSILON
    assert np.abs(J @ residual.orbit(x, 0.0).T).max() < rounding * np.abs(J).max()
    for p in (1e-300, -0.1):
        np.testing.assert_array_equal(residual.orbit(x, p), net.generators(x, orthogonal=True))
    # With decay the rest of GL is no symmetry: at a balanced equilibrium it leaves the kernel.
    net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=np.diag([4.0, 3.0]))
    x = equilibrium(net, 0.3, (1, 1))
    J = dl.equilibria(net, "weight_decay").matrix(x, 0.3)
    assert np.linalg.norm(J @ net.generators(x).T) > 0.1


@pytest.mark.parametrize("kind", naive.KINDS)
def test_without_decay_the_equation_is_that_of_the_flow(kind):
    net = naive.random_network((3, 4, 2), 3, kind)
    x = naive.state_of(net, 3)
    residual = dl.equilibria(net, "weight_decay")
    np.testing.assert_array_equal(residual.value(x, 0.0), -net.gradient(x))
    np.testing.assert_array_equal(residual.matrix(x, 0.0), -net.hessian(x))


# Paths of data.


@pytest.mark.parametrize("kind", naive.KINDS)
def test_a_path_of_targets_passes_the_networks_of_its_targets(kind):
    net = naive.random_network((3, 4, 2), 5, kind)
    path, _ = path_of(net, 5)
    straight = dl.equilibria(net, "target", path=[path(0.0), path(1.0)])
    curved = dl.equilibria(net, "target", path=path)
    for p in (0.0, 0.4, 1.0, 1.5):
        for residual, target in (
            (curved, path(p)),
            (straight, (1 - p) * path(0.0) + p * path(1.0)),
        ):
            there = dl.LinearNetwork(net.widths, target, input_root=net.input_root)
            x = naive.state_of(net, 6)
            size = np.abs(there.gradient(x)).max()
            np.testing.assert_allclose(
                residual.value(x, p), -there.gradient(x), atol=8 * EPSILON * size
            )
            np.testing.assert_allclose(
                residual.matrix(x, p), -there.hessian(x), atol=8 * EPSILON * size
            )
            assert residual.observe(x, p)["loss"] == pytest.approx(there.loss(x), rel=1e-14)
            x = dl.random_fiber_state(there, (0,), rng=1)
            J, generators = residual.matrix(x, p), residual.orbit(x, p)
            assert generators.shape == (16, net.dim)
            assert np.abs(J @ generators.T).max() < 1e3 * EPSILON * np.abs(J).max()


def test_differenced_and_given_derivatives_of_a_path_agree():
    net = naive.random_network((3, 4, 2), 5, "full")
    path, derivative = path_of(net, 5)
    x, given = naive.state_of(net, 6), {"path_derivative": derivative}
    exact = dl.equilibria(net, "target", path=path, **given).slope(x, 0.7)
    differenced = dl.equilibria(net, "target", path=path).slope(x, 0.7)
    np.testing.assert_allclose(differenced, exact, rtol=0.0, atol=1e-8 * np.abs(exact).max())
    assert not np.array_equal(differenced, exact)


def test_one_data_set_becomes_another_and_paths_are_told_apart():
    nets = [raw_and_whitened(seed)[1] for seed in range(3)]
    paths = [dl.equilibria(nets[0], "target", path=(nets[0].target, n.target)) for n in nets[1:]]
    for residual, net in zip(paths, nets[1:], strict=True):
        x = net.critical_state((0, 1))
        assert np.abs(residual.value(x, 1.0)).max() < 1e-13
        assert residual.observe(x, 1.0)["loss"] < 1e-26
    assert len({residual.attributes["path_digest"] for residual in paths}) == 2


def test_a_specialized_network_has_the_same_equations():
    net, _ = raw_and_whitened(0)
    x = naive.state_of(net, 0)
    ends = (net.target, 2.0 * net.target)
    for vary, more in (("weight_decay", {}), ("target", {"path": ends}), ("covariance", {})):
        plain, fast = (dl.equilibria(n, vary, **more) for n in (net, net.specialized()))
        value = plain.value(x, 0.4)
        close = {"rtol": 0.0, "atol": 1e-14 * np.abs(value).max()}
        np.testing.assert_allclose(fast.value(x, 0.4), value, **close)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_index_jumps_where_singular_values_cross(depth):
    net = dl.LinearNetwork(widths=(2,) * (depth + 1), target=np.eye(2))
    ends = (np.diag([3.0, 1.0]), np.diag([1.0, 3.0]))
    residual = dl.equilibria(net, "target", path=ends)
    for p in (0.2, 0.45, 0.55, 0.8):
        learnt, other = 3.0 - 2.0 * p, 1.0 + 2.0 * p
        s = learnt ** (1.0 / depth)
        x = net.initial("aligned", scale=[s, 0.0])
        assert np.abs(residual.value(x, p)).max() < 8 * EPSILON
        assert residual.observe(x, p)["loss"] == pytest.approx(0.5 * other**2)
        eigenvalues = np.linalg.eigvalsh(residual.matrix(x, p))
        crossing = -(s ** (depth - 2)) * (learnt - other)
        assert np.abs(eigenvalues - crossing).min() < 1e-14
        channel = 1 if depth == 2 else 0
        assert np.count_nonzero(eigenvalues > 1e-9) == channel + (other > learnt)


def raw_and_whitened(seed, **options):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3, 3)) @ rng.normal(size=(3, 40))
    Y = rng.normal(size=(2, 3)) @ X + rng.normal(size=(2, 40))
    return [dl.LinearNetwork.from_data(X, Y, (4, 3), whiten=w, **options) for w in (False, True)]


@pytest.mark.parametrize("seed", range(3))
def test_a_path_of_covariances_joins_the_whitened_network_to_the_raw_one(seed):
    raw, whitened = raw_and_whitened(seed)
    x = naive.state_of(raw, seed)
    for net in (raw, whitened):
        residual = dl.equilibria(net, "covariance")
        for p, end in ((0.0, whitened), (1.0, raw)):
            close = {"rtol": 0.0, "atol": 1e-13 * np.abs(end.hessian(x)).max()}
            np.testing.assert_allclose(residual.value(x, p), -end.gradient(x), **close)
            np.testing.assert_allclose(residual.matrix(x, p), -end.hessian(x), **close)
            assert residual.observe(x, p)["loss"] == pytest.approx(end.loss(x), rel=1e-12)
        assert residual.attributes["problem_digest"] == raw.digest


@pytest.mark.parametrize("fixed", ["target", "map"])
def test_covariances_in_between_are_mixtures(fixed):
    """Compared with the network of the moments (M(t), C(t)), whatever root it takes of C(t)."""
    raw = naive.random_network((3, 4, 2), 7, "full")  # its root is not symmetric
    root, turn = scipy.linalg.polar(raw.input_root, side="left")[::-1]
    residual = dl.equilibria(raw, "covariance", fixed=fixed)
    for p in (0.0, 0.3, 1.0):
        C = (1.0 - p) * np.eye(3) + p * root @ root
        if fixed == "target":
            M = raw.target @ turn.T @ scipy.linalg.sqrtm(C).real
        else:
            M = raw.target @ turn.T @ np.linalg.inv(root) @ C
        there = dl.LinearNetwork.from_moments(M, C, (4,))
        x = naive.state_of(raw, 8)
        size = np.abs(there.hessian(x)).max()
        np.testing.assert_allclose(
            residual.value(x, p), -there.gradient(x), rtol=0.0, atol=1e-12 * size
        )


def test_with_the_target_fixed_critical_values_and_indices_stay():
    """The state W_1 K(t)^{-1} is critical for all t: other coordinates of the same network."""
    raw, whitened = raw_and_whitened(1)
    residual = dl.equilibria(raw, "covariance")
    C, first = raw.input_root @ raw.input_root.T, whitened.critical_state((1,))
    W1, W2, W3 = whitened.unpack(first)
    index = np.count_nonzero(np.linalg.eigvalsh(residual.matrix(first, 0.0)) > 1e-9)
    assert index > 0
    for p in (0.0, 0.5, 1.0):
        K = scipy.linalg.sqrtm((1.0 - p) * np.eye(3) + p * C).real
        x = whitened.pack([W1 @ np.linalg.inv(K), W2, W3])
        J = residual.matrix(x, p)
        assert np.abs(residual.value(x, p)).max() < 1e-13 * np.abs(J).max()
        assert residual.observe(x, p)["loss"] == pytest.approx(raw.singular_values[0] ** 2 / 2)
        assert np.count_nonzero(np.linalg.eigvalsh(J) > 1e-9) == index
        assert np.abs(J @ residual.orbit(x, p).T).max() < 1e-12 * np.abs(J).max()


def test_with_the_map_fixed_the_best_fit_stays():
    raw, _ = raw_and_whitened(2)
    x = raw.critical_state((0, 1))
    moving, staying = (dl.equilibria(raw, "covariance", fixed=f) for f in ("target", "map"))
    for p in (0.0, 0.5, 1.0):
        assert np.abs(staying.value(x, p)).max() < 1e-13
        assert staying.observe(x, p)["loss"] < 1e-26
        assert staying.observe(x, p)["rank"] == 2.0
        assert (moving.observe(x, p)["loss"] > 1e-3) == (p < 1.0)


@pytest.mark.parametrize("fixed", ["target", "map"])
def test_a_covariance_that_is_not_positive_is_refused(fixed):
    raw, _ = raw_and_whitened(0)
    s = np.linalg.svd(raw.input_root, compute_uv=False)
    residual = dl.equilibria(raw, "covariance", fixed=fixed)
    outside = 1.0 / (1.0 - s**2)  # where 1 − t + t s² = 0
    for p in outside + 1e-6 * np.sign(outside):
        with pytest.raises(ValueError, match="^p: "):
            residual.value(raw.critical_state((0,)), p)


# Arcs along fibers.

FIBERS = [
    ((1, 1, 1), (0,)),
    ((2, 2, 2), (0, 1)),
    ((3, 2, 3), (1, 2)),
    ((3, 2, 2, 4), (0, 2)),
    ((3, 1, 1, 1, 2), (1,)),
]


def in_fiber(widths, modes, seed, kind="whitened"):
    """A network, its balanced state over some modes, and another one of the fiber."""
    net = naive.random_network(widths, seed, kind)
    return net, net.critical_state(modes), dl.random_fiber_state(net, modes, rng=seed)


def freedom(widths):
    """Dimension of what changes neither W, of the smallest width as its rank, nor a C_i."""
    r, weights = min(widths), sum(a * b for a, b in itertools.pairwise(widths))
    fiber = weights - r * (widths[0] + widths[-1] - r)
    return fiber - sum(d * (d + 1) // 2 for d in widths[1:-1])


def conserved_along(net, ends, p):
    return (1.0 - p) * net.conserved(ends[0]) + p * net.conserved(ends[1])


@pytest.mark.parametrize("kind", ["whitened", "full"])
@pytest.mark.parametrize("number", range(len(FIBERS)))
def test_an_arc_along_a_fiber_goes_from_balanced_to_unbalanced_states(number, kind):
    widths, modes = FIBERS[number]
    net, *ends = in_fiber(widths, modes, number, kind)
    assert freedom(widths) == sum(d * (d - 1) // 2 for d in widths[1:-1])
    residual = dl.equilibria(net, "imbalance", path=ends)
    arc = dl.branch(residual, ends[0], 0.0, bounds=(0.0, 1.0))
    dl.schema.validate(arc)
    assert (arc.attrs["first_stop"], arc.attrs["last_stop"]) == ("bound_reached", "bound_reached")
    np.testing.assert_allclose(arc.p.values[[0, -1]], [0.0, 1.0], atol=1e-15)
    assert not arc.event.any()
    np.testing.assert_array_equal(arc.nullity, freedom(widths))
    np.testing.assert_array_equal(arc.orbit_dimension, freedom(widths))
    index = np.count_nonzero(np.linalg.eigvalsh(net.hessian(ends[0])) < -1e-9)
    np.testing.assert_array_equal(arc["index"], index)
    known = conserved_along(net, ends, arc.p.values[:, None])
    for x, C in zip(arc.state.values, known, strict=True):
        assert np.abs(net.gradient(x)).max() < 1e-10
        np.testing.assert_allclose(net.conserved(x), C, atol=1e-10)
        np.testing.assert_allclose(net.product(x), net.product(ends[0]), atol=1e-10)
    assert np.ptp(arc.imbalance.values) > 0.1
    assert np.ptp(arc.loss.values) < 1e-10


def test_some_of_these_arcs_join_saddles():
    indices = [
        np.count_nonzero(np.linalg.eigvalsh(net.hessian(x)) < -1e-9)
        for net, x, _ in (in_fiber(*fiber, seed) for seed, fiber in enumerate(FIBERS))
    ]
    assert indices[0] == indices[1] == 0
    assert min(indices[2:]) > 0


def test_an_arc_of_one_hidden_unit_is_known_in_closed_form():
    """a b = σ and a² − b² = c: a² = (c + √(c² + 4σ²))/2."""
    net = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
    c = 5.0
    a = np.sqrt((c + np.hypot(c, 4.0)) / 2.0)
    residual = dl.equilibria(net, "imbalance", path=([np.sqrt(2.0)] * 2, [a, 2.0 / a]))
    arc = dl.branch(residual, [np.sqrt(2.0)] * 2, 0.0, bounds=(-1.0, 2.0))
    known = np.sqrt((c * arc.p + np.hypot(c * arc.p, 4.0)) / 2.0)
    np.testing.assert_allclose(arc.state, np.stack([known, 2.0 / known], axis=1), atol=1e-13)
    assert arc.p.values[[0, -1]].tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(("widths", "modes"), [((3, 2, 4, 3), (0, 2)), ((2, 3, 3, 2), (0, 1))])
def test_arcs_between_general_states_of_wider_layers(widths, modes):
    net, balanced, first = in_fiber(widths, modes, 0)
    last = dl.random_fiber_state(net, modes, rng=100)
    residual = dl.equilibria(net, "imbalance", path=(first, last))
    arc = dl.branch(residual, first, 0.0, bounds=(0.0, 1.0))
    assert set(arc.nullity.values.tolist()) == {freedom(widths)}
    known = conserved_along(net, (first, last), arc.p.values[:, None])
    for x, C in zip(arc.state.values, known, strict=True):
        np.testing.assert_allclose(net.conserved(x), C, atol=1e-10)
        assert np.abs(net.gradient(x)).max() < 1e-10
    # At the balanced state of such a network not all C_i are free: it is no end of an arc.
    with pytest.raises(ValueError, match="^path: needs states at which all C_i are free to change"):
        dl.equilibria(net, "imbalance", path=(balanced, last))
    goals = net.imbalances(last)
    residual = dl.equilibria(net, "imbalance", path=lambda p: [p * C for C in goals])
    with pytest.raises(ValueError, match="^x0: .* directions lead on"):
        dl.branch(residual, balanced, 0.0, bounds=(0.0, 1.0))


@pytest.mark.parametrize("kind", naive.KINDS)
@pytest.mark.parametrize("widths", [(2, 2, 2), (3, 2, 4, 3), (2, 3, 3, 2), (2, 1, 3)])
def test_the_equation_of_a_fiber_is_exact_at_any_state(widths, kind):
    """F is minus the gradient of L + ¼ Σ ‖C_i − C_i*‖²; differences as above."""
    net = naive.random_network(widths, 1, kind)
    x, other = naive.state_of(net, 1), naive.state_of(net, 2)
    rows = [net.imbalances(y) for y in (other, naive.state_of(net, 3))]

    def goals(p):
        return [np.cos(p) * a + p**2 * b for a, b in zip(*rows, strict=True)]

    def rates(p):
        return [-np.sin(p) * a + 2.0 * p * b for a, b in zip(*rows, strict=True)]

    residual = dl.equilibria(net, "imbalance", path=goals, path_derivative=rates)
    plain = dl.equilibria(net, "imbalance", path=goals)
    p = 0.4

    def potential(y):
        gaps = [c - goal for c, goal in zip(net.imbalances(y), goals(p), strict=True)]
        return net.loss(y) + 0.25 * sum(np.sum(gap**2) for gap in gaps)

    J = naive.differences(lambda y: residual.value(y, p), x, 1e-3)
    size = np.abs(J).max() + potential(x)
    near = {"rtol": 0.0, "atol": 1e-8 * size}
    gradient = naive.differences(potential, x, 1e-3)
    np.testing.assert_allclose(residual.value(x, p), -gradient, **near)
    np.testing.assert_allclose(residual.matrix(x, p), J, **near)
    np.testing.assert_allclose(residual.matrix(x, p), residual.matrix(x, p).T, atol=1e-13 * size)
    slope = naive.differences(lambda q: residual.value(x, q[0]), np.array([p]), 1e-3)[:, 0]
    np.testing.assert_allclose(residual.slope(x, p), slope, **near)
    np.testing.assert_allclose(plain.slope(x, p), slope, **near)
    # The generators keep the map and all C_i to first order, and nothing else does.
    P = residual.orbit(x, p)
    if kind != "singular":  # there W changes where no input is seen, too
        sizes = np.linalg.svd(P, compute_uv=False)
        assert (sizes > 1e-9 * np.abs(x).max()).sum() == freedom(widths)
    K = naive.root(net)
    for function in (net.conserved, lambda y: (net.product(y) @ K).ravel()):
        change = naive.differences(function, x, 1e-3)
        assert np.abs(change @ P.T).max(initial=0.0) < 1e-8 * np.abs(change).max()


@pytest.mark.parametrize("widths", [(2, 2, 2), (3, 2, 2, 3)])
def test_what_stays_along_a_fiber_is_the_kernel_and_no_orbit(widths):
    net, x, y = in_fiber(widths, (0, 1), 3)
    residual = dl.equilibria(net, "imbalance", path=(x, y))
    for state, p in ((x, 0.0), (y, 1.0)):
        J, P = residual.matrix(state, p), residual.orbit(state, p)
        size = np.abs(J).max()
        assert np.abs(residual.value(state, p)).max() < 1e-12 * size
        assert np.abs(J @ P.T).max() < 1e-12 * size
        small = np.abs(np.linalg.eigvalsh(J)) < 1e-9 * size
        assert small.sum() == np.linalg.matrix_rank(P, tol=1e-9) == freedom(widths)
    # It is the orthogonal group's tangent space where C = 0, which that keeps, and not elsewhere.
    for state, p, inside in ((x, 0.0, True), (y, 1.0, False)):
        turns = net.generators(state, orthogonal=True)
        basis = scipy.linalg.orth(residual.orbit(state, p).T, rcond=1e-9)
        outside = np.linalg.norm(turns - (turns @ basis) @ basis.T) / np.linalg.norm(turns)
        assert (outside < 1e-12) if inside else (outside > 1e-3)


# What is recorded.


@pytest.mark.parametrize("outputs", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("inputs", [1e-12, 1.0, 1e12])
def test_ranks_do_not_depend_on_units(outputs, inputs):
    target, root = outputs * np.diag([3.0, 2.0, 0.0]), inputs * np.eye(3)
    net = dl.LinearNetwork(widths=(3, 3, 3), target=target, input_root=root)
    noise = naive.state_of(net, 0, 1e-13 * np.sqrt(outputs / inputs))
    residual = dl.equilibria(net, "weight_decay")
    for modes in ((), (0,), (0, 1)):
        assert residual.observe(net.critical_state(modes) + noise, 0.0)["rank"] == len(modes)


def test_ranks_without_a_target_are_those_of_the_map():
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.zeros((2, 2)))
    residual = dl.equilibria(net, "weight_decay")
    assert residual.observe(np.zeros(8), 0.0) == dict.fromkeys(
        ("loss", "rank", "imbalance", "product_norm"), 0.0
    )
    assert residual.observe(np.ones(8), 0.0)["rank"] == 1.0


@pytest.mark.parametrize("number", range(3))
def test_what_is_recorded_is_what_runs_record(number):
    loss = losses(0)[number]
    net = dl.LossNetwork((3, 4, 3, loss.shape[0]), loss)
    x = naive.state_of(net, 0)
    run = dl.flow(net, x, (0.0, 1e-9), save=["imbalance", "product"])
    observed = dl.equilibria(net, "weight_decay").observe(x, 0.5)
    assert observed["loss"] == pytest.approx(float(run.loss[0]), rel=1e-14)
    assert observed["imbalance"] == pytest.approx(float(run.imbalance[0]), rel=1e-14)
    assert observed["product_norm"] == pytest.approx(np.linalg.norm(run["product"][0]))
    assert observed["rank"] == min(3, loss.shape[0])


# Any other system.


def lorenz(t, x, params, out):
    sigma, r, b = params[1]
    out[0] = sigma * (x[1] - x[0])
    out[1] = r * x[0] - x[1] - x[0] * x[2]
    out[2] = x[0] * x[1] - b * x[2]


def lorenz_jvp(t, x, v, params, out):
    sigma, r, b = params[1]
    out[0] = sigma * (v[1] - v[0])
    out[1] = r * v[0] - v[1] - v[0] * x[2] - x[0] * v[2]
    out[2] = v[0] * x[1] + x[0] * v[1] - b * v[2]


def lorenz_jacobian(t, x, params, out):
    sigma, r, b = params[1]
    out[0, 0], out[0, 1] = -sigma, sigma
    out[1, 0], out[1, 1], out[1, 2] = r - x[2], -1.0, -x[0]
    out[2, 0], out[2, 1], out[2, 2] = x[1], x[0], -b


NUMBERS = {"dim": 3, "parameters": (10.0, 28.0, 8.0 / 3.0), "names": ("x", "y", "z")}
DERIVATIVES = [{}, {"jvp": lorenz_jvp}, {"jacobian": lorenz_jacobian}]


@pytest.mark.parametrize("known", DERIVATIVES)
def test_the_lorenz_system_loses_stability_where_it_is_known_to(known):
    residual = dl.equilibria(dl.System(lorenz, **known, **NUMBERS), vary=1)
    accuracy = 1e-6 if not known else 1e-13
    for r, real, imaginary in ((1.0, [0.0], False), (470.0 / 19.0, [0.0, 0.0], True)):
        root = np.sqrt(8.0 / 3.0 * (r - 1.0))
        x = np.array([root, root, r - 1.0])
        np.testing.assert_allclose(residual.value(x, r), 0.0, atol=1e-13)
        eigenvalues = np.linalg.eigvals(residual.matrix(x, r))
        critical = eigenvalues[np.abs(eigenvalues.real) < 1.0]
        np.testing.assert_allclose(critical.real, real, atol=accuracy)
        assert (np.abs(critical.imag) > 1.0).all() == imaginary
        np.testing.assert_allclose(residual.slope(x, r), [0.0, root, 0.0], atol=1e-9)
    assert residual.orbit(x, r).shape == (0, 3)
    assert not residual.symmetric
    assert residual.observe is None
    assert residual.parameter == "parameter_1"
    assert residual.coordinates == {"parameter": ["x", "y", "z"]}


NAMED = {**NUMBERS, "parameters": {"sigma": 10.0, "rho": 28.0, "beta": 8.0 / 3.0}}


@pytest.mark.parametrize("known", DERIVATIVES)
def test_a_name_varies_what_its_place_varies(known):
    plain, named = dl.System(lorenz, **known, **NUMBERS), dl.System(lorenz, **known, **NAMED)
    x = np.array([1.0, -2.0, 3.0])
    for place, word in enumerate(NAMED["parameters"]):
        expected, found = dl.equilibria(plain, place), dl.equilibria(named, vary=word)
        assert found.parameter == word
        assert expected.parameter == f"parameter_{place}"
        np.testing.assert_array_equal(found.value(x, 0.7), expected.value(x, 0.7))
        np.testing.assert_array_equal(found.matrix(x, 0.7), expected.matrix(x, 0.7))
        same = dl.equilibria(named, place)
        assert (same.parameter, same.attributes) == (word, found.attributes)


def test_datasets_say_the_named_parameters_and_a_branch_those_that_stay(tmp_path):
    system = dl.System(lorenz, **NAMED)
    words = {f"parameter_{word}": value for word, value in NAMED["parameters"].items()}
    run = dl.flow(system, [1.0, 2.0, 3.0], t_span=(0, 0.1), t_eval=[0.1])
    assert words.items() <= run.attrs.items()
    residual = dl.equilibria(system, vary="rho")
    branch = dl.branch(residual, np.zeros(3), 0.3, bounds=(0.0, 2.0))
    varied = words.pop("parameter_rho")
    assert words.items() <= branch.attrs.items()
    assert "parameter_rho" not in branch.attrs
    assert (branch.attrs["vary"], branch.p.attrs["long_name"], varied) == ("rho", "rho", 28.0)
    dl.save(branch, tmp_path / "branch.nc")
    assert dl.load(tmp_path / "branch.nc").identical(branch)
    other = dl.System(lorenz, **(NAMED | {"parameters": NAMED["parameters"] | {"beta": 1.0}}))
    with pytest.raises(ValueError, match=r"^residual: .*parameter_beta"):
        dl.extend_branch(dl.equilibria(other, "rho"), branch, bounds=(0.0, 4.0))


def bent(t, x, params, out):
    out[0] = params[1][1] - params[1][0] * x[0] ** 2


@pytest.mark.parametrize(
    "word", ["scale", "p", "state", "step", "event", "a/b", "η x", "_FillValue"]
)
def test_parameters_may_have_any_name(word, tmp_path):
    """Also those of variables and attributes of branches, and those that files use."""
    system = dl.System(bent, dim=1, parameters={word: 2.0, "b": 3.0})
    for vary, p0, kept in (("b", 3.0, {word: 2.0}), (word, 2.0, {"b": 3.0})):
        residual = dl.equilibria(system, vary)
        branch = dl.branch(residual, [np.sqrt(1.5)], p0, bounds=(1.0, 5.0), max_points=4)
        told = {k: v for k, v in branch.attrs.items() if "parameter_" in k}
        assert told.pop("parameter_scale") == 2.0  # half of the range of p
        assert [*told.values()] == [*kept.values()]
        assert all(name.endswith(f"parameter_{k}") for name, k in zip(told, kept, strict=True))
        path = tmp_path / f"{vary == word}.nc"
        dl.save(branch, path)
        loaded = dl.load(path)
        assert loaded.identical(branch)
        longer = dl.extend_branch(residual, loaded, max_points=2)
        assert longer.sizes["step"] > branch.sizes["step"]
        other = dl.equilibria(dl.System(bent, dim=1, parameters={word: 2.5, "b": 3.5}), vary)
        with pytest.raises(ValueError, match=r"^residual: needs the (equation_)?parameter_"):
            dl.extend_branch(other, loaded)


def test_what_an_equation_says_of_itself_is_not_taken_for_what_a_branch_says(tmp_path):
    words = {"bounds": "none", "symmetry": "O(2)", "schema": "mine", "complete": 7, "author": "A"}
    residual = dl.Residual(lambda x, p: p * x - x**3, attributes=words)
    tree = dl.diagram(residual, [0.0], -0.5, bounds=(-1.0, 1.0))
    for told in (tree.attrs, tree["branch_1"].attrs):
        assert told["equation_symmetry"] == "O(2)"
        assert (told["equation_complete"], told["author"]) == (7, "A")
    dl.schema.validate(tree)
    branch = tree["branch_1"].to_dataset()
    np.testing.assert_array_equal(branch.attrs["bounds"], [-1.0, 1.0])
    assert dl.extend_branch(residual, branch, bounds=(-1.0, 2.0)).p[-1] == 2.0


def brusselator(t, x, params, out):
    A, B = params[1]
    out[0] = A - (B + 1.0) * x[0] + x[0] ** 2 * x[1]
    out[1] = B * x[0] - x[0] ** 2 * x[1]


@pytest.mark.parametrize("A", [0.7, 1.0, 2.0])
def test_the_brusselator_by_name_has_its_hopf_point(A):
    """At (A, B/A) with trace B − 1 − A² and determinant A²."""
    system = dl.System(brusselator, dim=2, parameters={"A": A, "B": 3.0}, names=("u", "v"))
    hopf = 1.0 + A**2
    branch = dl.branch(dl.equilibria(system, "B"), [A, 0.5 / A], 0.5, bounds=(0.1, 8.0))
    ((kind, p, kernel),) = events(branch)
    assert (kind, kernel) == ("hopf", 0)
    assert p == pytest.approx(hopf, abs=1e-9)
    assert branch.attrs["parameter_A"] == A
    assert branch.parameter.values.tolist() == ["u", "v"]


def test_parameters_are_kept_in_their_order_and_by_name():
    given = {"sigma": 10, "rho": 28, "beta": 2.5}
    system = dl.System(lorenz, dim=3, parameters=given)
    given["rho"] = -1
    assert system.params[1].tolist() == [10.0, 28.0, 2.5]
    assert dict(system.parameters) == {"sigma": 10.0, "rho": 28.0, "beta": 2.5}
    assert dl.System(lorenz, dim=3, parameters=np.array([10, 28, 2.5])).attributes() == {
        "system": "System"
    }


def test_the_energy_of_a_system_is_recorded_as_its_loss():
    system = dl.System(lorenz, energy=lambda x: np.sum(x**2), **NUMBERS)
    residual = dl.equilibria(system, 0)
    assert residual.observe(np.array([1.0, 2.0, 3.0]), 10.0) == {"loss": 14.0}
    varied = residual.value([1.0, 2.0, 3.0], 5.0)
    assert varied.tolist() == [5.0, 23.0, 2.0 - 8.0]
    assert system.parameters == NUMBERS["parameters"]


# Bad input.

EYE = np.eye(2)
NET = dl.LinearNetwork(widths=(2, 3, 2), target=EYE)
RAW = dl.LinearNetwork(widths=(2, 3, 2), target=EYE, input_root=[[1.0, 0.0], [1.0, 2.0]])
FLAT = dl.LinearNetwork(widths=(2, 3, 1), target=[[1.0]], input_root=[[1.0], [2.0]])
DEEP = dl.LinearNetwork(widths=(2, 2, 2, 2), target=np.diag([2.0, 1.0]))
BOTH, ONE = DEEP.critical_state((0, 1)), DEEP.critical_state((0,))
SINGLE = dl.LinearNetwork(widths=(2, 2), target=EYE)
OTHER = dl.LossNetwork((3, 2, 1), losses(0)[0])
PLAIN = dl.System(lorenz, **NUMBERS)
WORDS = dl.System(lorenz, **NAMED)
BARE = dl.System(lambda t, x, params, out: None, dim=1)
DESCENT = dl.GradientDescent(NET, step_size=0.1)
X = np.ones(NET.dim)


class Strange(dl.systems.protocol.SystemProtocol):
    dim = 1


def fiber_of(*ends):
    return dl.equilibria(DEEP, "imbalance", path=ends)


def along_matrices(*matrices):
    return dl.equilibria(DEEP, "imbalance", path=lambda p: matrices).value(BOTH, 0.0)


CASES = [
    (TypeError, "system", lambda: dl.equilibria("net", "target")),
    (ValueError, "vary: .*'imbalance'", lambda: dl.equilibria(DESCENT, "imbalance")),
    (ValueError, "vary: .*'decay'.*'step_size'", lambda: dl.equilibria(DESCENT, "decay")),
    (TypeError, "vary: .*'step_size'", lambda: dl.equilibria(DESCENT, 0)),
    (ValueError, "path", lambda: dl.equilibria(DESCENT, "target")),
    (ValueError, "path", lambda: dl.equilibria(DESCENT, "step_size", path=(EYE, EYE))),
    (
        ValueError,
        "period: needs a map, got the flow LinearNetwork; periodic orbits of flows are not there",
        lambda: dl.equilibria(NET, "weight_decay", period=2),
    ),
    (ValueError, "period", lambda: dl.equilibria(PLAIN, 0, period=1)),
    (ValueError, "period", lambda: dl.equilibria(DESCENT, "step_size", period=0)),
    (TypeError, "period", lambda: dl.equilibria(DESCENT, "step_size", period=2.5)),
    (TypeError, "period", lambda: dl.equilibria(DESCENT, "step_size", period=True)),
    (TypeError, "system", lambda: dl.equilibria(Strange(), 0)),
    (TypeError, "vary", lambda: dl.equilibria(NET, 0)),
    (TypeError, "vary", lambda: dl.equilibria(NET, None)),
    (ValueError, "vary", lambda: dl.equilibria(NET, "decay")),
    (ValueError, "vary", lambda: dl.equilibria(OTHER, "target", path=(EYE, EYE))),
    (TypeError, "vary: .* have no names", lambda: dl.equilibria(PLAIN, "rho")),
    (
        ValueError,
        "vary: .*did you mean 'rho'",
        lambda: dl.equilibria(WORDS, "roh"),
    ),
    (ValueError, "vary: .* at most 2", lambda: dl.equilibria(WORDS, 3)),
    (TypeError, "parameters", lambda: dl.System(lorenz, dim=3, parameters={1: 10.0})),
    (TypeError, "parameters", lambda: dl.System(lorenz, dim=3, parameters={"": 10.0})),
    (TypeError, "parameters", lambda: dl.System(lorenz, dim=3, parameters={"rho": "28"})),
    (ValueError, "parameters", lambda: dl.System(lorenz, dim=3, parameters={"rho": np.nan})),
    (TypeError, "field: .* 2 parameters", lambda: dl.System(lorenz, dim=3, parameters=[1.0, 2.0])),
    (ValueError, "kind", lambda: dl.System(lorenz, kind="gradient", **NUMBERS)),
    (TypeError, "vary", lambda: dl.equilibria(PLAIN, True)),
    (TypeError, "vary", lambda: dl.equilibria(PLAIN, 0.5)),
    (ValueError, "vary", lambda: dl.equilibria(PLAIN, 3)),
    (ValueError, "vary", lambda: dl.equilibria(PLAIN, -1)),
    (ValueError, "vary", lambda: dl.equilibria(BARE, 0)),
    (TypeError, "vari", lambda: dl.equilibria(NET, vari="target")),
    (ValueError, "path", lambda: dl.equilibria(NET, "target")),
    (ValueError, "path", lambda: dl.equilibria(NET, "weight_decay", path=(EYE, EYE))),
    (ValueError, "path", lambda: dl.equilibria(PLAIN, 0, path=(EYE, EYE))),
    (TypeError, "path", lambda: dl.equilibria(NET, "target", path="straight")),
    (TypeError, "path", lambda: dl.equilibria(NET, "target", path=1.0)),
    (ValueError, "path", lambda: dl.equilibria(NET, "target", path=(EYE, EYE, EYE))),
    (ValueError, "path", lambda: dl.equilibria(NET, "target", path=(EYE, np.eye(3)))),
    (ValueError, "path", lambda: dl.equilibria(NET, "target", path=(EYE, np.nan * EYE))),
    (
        ValueError,
        "path_derivative",
        lambda: dl.equilibria(NET, "target", path=(EYE, EYE), path_derivative=lambda p: EYE),
    ),
    (
        TypeError,
        "path_derivative",
        lambda: dl.equilibria(NET, "target", path=lambda p: EYE, path_derivative=EYE),
    ),
    (
        ValueError,
        "path_derivative",
        lambda: dl.equilibria(NET, "covariance", path_derivative=lambda p: EYE),
    ),
    (
        ValueError,
        "path",
        lambda: dl.equilibria(NET, "target", path=lambda p: np.eye(3)).value(X, 0.0),
    ),
    (
        ValueError,
        "path",
        lambda: dl.equilibria(NET, "target", path=lambda p: np.nan * EYE).value(X, 0.0),
    ),
    (ValueError, "path", lambda: dl.equilibria(DEEP, "imbalance")),
    (ValueError, "system", lambda: dl.equilibria(SINGLE, "imbalance", path=(EYE, EYE))),
    (TypeError, "path", lambda: dl.equilibria(DEEP, "imbalance", path=1.0)),
    (ValueError, "path", lambda: dl.equilibria(DEEP, "imbalance", path=(BOTH,))),
    (ValueError, "path", lambda: dl.equilibria(DEEP, "imbalance", path=(BOTH, BOTH[:-1]))),
    (ValueError, "path: needs states over the same map", lambda: fiber_of(BOTH, ONE)),
    (ValueError, "path: needs critical states", lambda: fiber_of(np.ones(12), np.ones(12))),
    (ValueError, "path: .* rank is the smallest width, 2, got rank 1", lambda: fiber_of(ONE, ONE)),
    (
        ValueError,
        "path_derivative",
        lambda: dl.equilibria(
            DEEP, "imbalance", path=(BOTH, BOTH), path_derivative=lambda p: [EYE, EYE]
        ),
    ),
    (
        TypeError,
        "path_derivative",
        lambda: dl.equilibria(DEEP, "imbalance", path=lambda p: [EYE, EYE], path_derivative=2.0),
    ),
    (ValueError, "path", lambda: along_matrices(EYE)),
    (ValueError, "path", lambda: along_matrices(EYE, np.eye(3))),
    (ValueError, "path", lambda: along_matrices(EYE, np.nan * EYE)),
    (ValueError, "path", lambda: along_matrices(EYE, np.triu(np.ones((2, 2))))),
    (ValueError, "fixed", lambda: dl.equilibria(NET, "weight_decay", fixed="map")),
    (ValueError, "fixed", lambda: dl.equilibria(RAW, "covariance", fixed="moments")),
    (TypeError, "fixed", lambda: dl.equilibria(RAW, "covariance", fixed=1)),
    (ValueError, "system", lambda: dl.equilibria(NET, "covariance")),
    (ValueError, "system", lambda: dl.equilibria(FLAT, "covariance")),
]


@pytest.mark.parametrize(("kind", "name", "call"), CASES)
def test_bad_input_is_named(kind, name, call):
    with pytest.raises(kind, match=rf"^{name}" if ": " in name else rf"^{name}: "):
        call()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"symmetric_at": 0.0}, TypeError),
        ({"symmetric_at": (np.nan,)}, ValueError),
        ({"invariants": 1.0}, TypeError),
        ({"kind": "cycle"}, ValueError),
        ({"kind": None}, TypeError),
    ],
)
def test_what_a_residual_declares_is_checked(change, kind):
    (name,) = change
    with pytest.raises(kind, match=rf"^{name}: "):
        dl.Residual(lambda x, p: x, **change)
