"""Runs without end of networks whose minima are not known: over at one, never at a plateau."""

import functools

import numpy as np
import pytest
import scipy.optimize

import dlnds as dl
from dlnds.runs.rest import limit_at


@functools.cache
def data(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3, 20))
    return X, rng.normal(size=20), np.sign(rng.normal(size=20))


def words(run):
    names = (run.stop_reason, run.limit_kind, run.limit_decision)
    return tuple(dl.schema.decode(name).item() for name in names)


MINIMUM = ("limit_reached", "minimum", "definite_hessian")


@functools.cache
def best(kind):
    """Return the least loss over all linear maps, by what is convex in them."""
    X, y, labels = data()
    if kind == "square":
        residual = y - np.linalg.lstsq(X.T, y, rcond=None)[0] @ X
        return 0.5 * residual @ residual / 20

    def logistic(w):
        return np.logaddexp(0.0, -labels * (w @ X)).mean()

    return scipy.optimize.minimize(logistic, np.zeros(3), method="BFGS", tol=1e-12).fun


def network(kind, widths):
    X, y, labels = data()
    if kind == "square":
        return dl.HomogeneousNetwork(widths, X, y, power=1, slope=1.0)
    return dl.LossNetwork(widths, dl.losses.logistic(X, labels))


@pytest.mark.parametrize("kind", ["square", "logistic"])
@pytest.mark.parametrize("widths", [(3, 4, 1), (3, 3, 2, 1), (3, 3, 3, 3, 1)])
def test_a_run_ends_at_a_minimum_with_a_residual(kind, widths):
    net = network(kind, widths)
    for seed in range(3):
        run = dl.flow(net, net.initial(scale=0.3, rng=seed), max_steps=2000)
        assert words(run) == MINIMUM
        assert float(run.loss[-1]) == pytest.approx(best(kind), rel=1e-12)


@pytest.mark.parametrize("kind", ["square", "logistic"])
@pytest.mark.parametrize(("widths", "scale"), [((3, 3, 2, 1), 1e-6), ((3, 3, 3, 3, 1), 1e-9)])
def test_no_plateau_ends_a_run(kind, widths, scale):
    """At depth 4 and scale 1e-9 the gradient of the start is 1e-27."""
    net = network(kind, widths)
    start = net.initial(scale=scale, rng=0)
    run = dl.flow(net, start, max_steps=20_000, save=[])
    assert words(run) == MINIMUM
    assert float(run.loss[-1]) == pytest.approx(best(kind), rel=1e-10)


@pytest.mark.parametrize("push", [0.0, 1e-12, 1e-7])
def test_no_saddle_ends_a_run_that_leaves_it(push):
    """Two channels of a linear network; the second begins at zero, or a little off."""
    X, Y = np.eye(2), np.diag([2.0, 1.0])
    net = dl.HomogeneousNetwork((2, 2, 2), X, Y, power=1, slope=1.0, normalize=False)
    start = net.pack([np.diag([0.5, push]), np.diag([0.5, push])])
    run = dl.flow(net, start, max_steps=600)
    if push:
        assert words(run) == ("limit_reached", "global_minimum", "small_residual")
    else:
        assert words(run)[1] != "minimum"
        assert float(run.loss[-1]) == pytest.approx(0.5, rel=1e-9)


def test_the_limit_is_a_critical_point_without_negative_curvature():
    """Networks with max(x, 0)²: what ends as a minimum is one, by differences of the gradient."""
    X, y, _ = data()
    net = dl.HomogeneousNetwork((3, 4, 1), X, y, power=2, slope=0.0)
    run = dl.flow(net, net.initial(scale=0.3, rng=3), max_steps=2000)
    assert words(run) == MINIMUM
    x = run.state.values[-1]
    rng = np.random.default_rng(0)
    for _ in range(20):
        v = rng.normal(size=net.dim)
        v /= np.linalg.norm(v)
        above = net.loss(x + 1e-3 * v) - net.loss(x)
        assert above > 0.0
        assert abs(net.gradient(x) @ v) <= 1e-9


INFINITY = ("end_reached", "none", "no_force")


def separable(kind, seed=0):
    """Return a network, and a start, of labels that it can fit: the infimum is at infinity."""
    rng = np.random.default_rng(seed)
    X, labels = rng.normal(size=(2, 4)), rng.choice([-1.0, 1.0], size=4)
    X[0] = labels * np.abs(X[0])
    if kind == "classes":
        inputs = [[1.0, 2.0, 0.1, -0.2, -1.0], [0.2, -0.1, 2.0, 1.0, -2.0]]
        net = dl.LossNetwork((2, 3, 3), dl.losses.cross_entropy(inputs, [0, 0, 1, 1, 2]))
    elif kind == "rectified":
        net = dl.HomogeneousNetwork((1, 1, 1), [[1.0]], [1], loss="logistic")
    elif kind == "tall":
        net = dl.LossNetwork((1,) * 6, dl.losses.logistic([[1.0]], [1]))
    else:
        scale = 1e10 if kind == "large" else 1.0
        net = dl.LossNetwork((2, 3, 1), dl.losses.logistic(scale * X, labels))
    size = 1e-6 if kind == "large" else 0.4
    return net, size * np.abs(np.random.default_rng(seed).normal(size=net.dim)) + size


@pytest.mark.parametrize("rtol", [1e-8, 0.1])
@pytest.mark.parametrize("kind", ["small", "large", "classes", "rectified", "tall"])
def test_no_limit_is_found_on_the_way_to_infinity(kind, rtol):
    """By Euler ⟨x, ẋ⟩ > 0 where all labels are right: there is no critical point, and x grows."""
    net, start = separable(kind)
    run = dl.flow(net, start, rtol=rtol)
    assert words(run) == INFINITY
    late = run.isel(time=slice(run.sizes["time"] // 2, None))
    assert float(late.loss[0]) < 0.1 * float(run.loss[0])
    assert (np.diff(np.linalg.norm(late.state, axis=1)) >= 0.0).all()


def test_the_way_to_infinity_is_logarithmic():
    """Of one weight and one label ẇ = 1/(1 + eʷ), so that w + eʷ − t is constant."""
    net = dl.LossNetwork((1, 1), dl.losses.logistic([[1.0]], [1]))
    run = dl.flow(net, [0.5])
    assert words(run) == INFINITY
    # eʷ is t to rounding, and no more was allowed than 1e-8 of w in each of the steps
    off = run.state.values[-1, 0] / np.log(float(run.time[-1])) - 1.0
    assert abs(off) <= 1e-8 * run.n_steps


@pytest.mark.parametrize("w", [600.0, 800.0])
def test_a_start_far_out_is_no_limit(w):
    """The force is exp(−w), 3e-261 and less than any number, and no critical point is anywhere."""
    net = dl.LossNetwork((1, 1), dl.losses.logistic([[1.0]], [1]))
    assert words(dl.flow(net, [w])) == INFINITY
    assert words(dl.flow(net, [-w], max_steps=10_000)) == INFINITY


def test_labels_that_are_not_certain_have_a_minimum():
    """Of probabilities p the cross entropy is least where softmax(w) = p, and there it is small."""
    p = np.array([[0.99], [0.01]])
    run = dl.flow(dl.LossNetwork((1, 2), dl.losses.cross_entropy([[1.0]], p)), [0.3, 0.2])
    assert words(run) == MINIMUM
    assert run.state.values[-1] @ [1.0, -1.0] == pytest.approx(np.log(99.0), rel=1e-7)


def test_a_loss_that_falls_in_some_directions_for_ever_has_no_minimum():
    """Three samples on one axis have the best w = log 2; the one on the other goes to infinity."""
    loss = dl.losses.logistic([[1, 1, 1, 0], [0, 0, 0, 1]], [1, 1, -1, 1])
    for widths in [(2, 1), (2, 2, 1)]:
        net = dl.LossNetwork(widths, loss)
        run = dl.flow(net, np.resize([0.3, 0.2], net.dim))
        assert words(run) == INFINITY
        assert float(run.loss[-1]) == pytest.approx((2 * np.log(1.5) + np.log(3)) / 4, rel=1e-12)
        assert np.log(float(run.time[-1])) > 20.0


def test_rectified_units_at_the_edge_of_a_sample_run_to_infinity():
    """All units grow along the labels +1; on the others they are zero, and cannot get below."""
    X = np.random.default_rng(0).normal(size=(2, 20))
    labels = np.sign(X[0] + 0.3 * X[1])
    net = dl.HomogeneousNetwork((2, 4, 1), X, labels, power=2, loss="logistic")
    run = dl.flow(net, net.initial(scale=0.3, rng=1), save=[])
    assert words(run) == INFINITY
    assert float(run.loss[-1]) == pytest.approx((labels < 0).mean() * np.log(2), rel=1e-9)


@pytest.mark.parametrize("seed", [4, 5, 12])
def test_a_unit_that_comes_to_the_edge_of_a_sample_on_the_way_to_infinity_is_at_no_minimum(seed):
    """What it reaches has the right label with margins that grow; on the others it is zero."""
    X = np.random.default_rng(4).normal(size=(2, 10))
    labels = np.sign(X[0] * X[1])
    net = dl.HomogeneousNetwork((2, 2, 1), X, labels, power=3, loss="logistic")
    run = dl.flow(net, net.initial(scale=0.5, rng=seed), save=["state"])
    margins = labels * net.outputs(run.state.values[-1])[0]
    reached = np.abs(margins) > 1e-9
    assert (margins[reached] > 10.0).all()
    assert float(run.loss[-1]) == pytest.approx((~reached).mean() * np.log(2), rel=1e-12)
    assert words(run) == INFINITY


@pytest.mark.parametrize("power", [None, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("size", [1e-6, 1.0])
def test_a_minimum_at_the_origin_ends_a_run(power, size):
    """Exclusive or: each term is even in the outputs at w = 0, so that no w is better (convexity).

    There the loss is log 2, or |±1|^p/p, and the Hessian a multiple of one.
    """
    X, y = [[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]], [1.0, -1.0, -1.0, 1.0]
    loss = dl.losses.power(X, y, power=power) if power else dl.losses.logistic(X, y)
    run = dl.flow(dl.LossNetwork((2, 1), loss), [size, 0.5 * size], max_steps=2000)
    assert words(run) == MINIMUM
    assert float(run.loss[-1]) == pytest.approx(1.0 / power if power else np.log(2), rel=1e-14)
    assert np.abs(run.state.values[-1]).max() <= 1e-10


def test_a_soft_minimum_ends_a_run():
    """Across the rescalings of units one direction is 3e-13 times as stiff as another.

    There the way along the rescalings cannot be followed far, and the run to it is long.
    """
    rng = np.random.default_rng(0)
    for shape in ((2, 30), 30):
        rng.normal(size=shape)
    rng.integers(0, 3, size=30)
    X = rng.normal(size=(2, 20))
    net = dl.HomogeneousNetwork((2, 3, 2, 1), X, X[0] * X[1], power=2, slope=0.5)
    layers = [[7.374296, -1.014982], [1.515591, -1.361987], [7.393536, -1.132247]]
    layers = layers, [[-4.433389, -1.121988, 4.453787], [2.836519, 0.875717, -2.850872]]
    start = net.pack([np.array(w) for w in (*layers, [[-4.515518, 2.907894]])])
    run = dl.flow(net, start, max_steps=2000)
    assert words(run) == MINIMUM
    x = run.state.values[-1]
    values = np.linalg.eigvalsh(net.hessian(x))  # five are those of the rescalings
    assert np.abs(values[:5]).max() <= 1e-14 * values[-1] < 1e-13 * values[-1] < values[5]
    assert values[5] < 1e-12 * values[-1]
    later = dl.flow(net, x, (0.0, 1e9), [1e9])  # a thousand times as long as the softest one takes
    assert float(later.loss[-1]) == pytest.approx(float(run.loss[-1]), rel=1e-11)
    np.testing.assert_allclose(later.state[-1], x, rtol=0, atol=1e-6 * np.abs(x).max())


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_no_way_up_to_a_plateau_ends_at_a_minimum(depth):
    """A product of a wrong sign decays like a power of time, and beyond zero the loss falls.

    Up to it the Hessian is positive across the rescalings, and the force a power of the distance.
    In the end rounding leads aside.
    """
    net = dl.HomogeneousNetwork((1,) * (depth + 1), [[1.0]], [3.0], power=1, slope=1.0)
    start = np.append(np.full(depth - 1, 0.5), -0.5)
    run = dl.flow(net, start, max_steps=1000)
    above = run.loss.values > 4.5 - 1e-6
    assert float(run.time[above][-1]) > 1e7
    assert words(run)[1] != "minimum"
    for x in run.state.values[above]:
        assert limit_at(net, x, -net.gradient(x), 1e-8).kind != "minimum"


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("kind", ["homogeneous", "loss"])
def test_no_place_near_a_plateau_beside_a_learnt_mode_is_a_minimum(kind, depth):
    """σ = 2, 1; of the second mode all weights are d, of one sign or another, and the loss falls.

    Where it rises first, the Hessian is positive across the orbit, and below d = 1e-7 or so the
    force is rounding, beside the curvature of what is learnt.
    """
    X, Y, widths = np.eye(2), np.diag([2.0, 1.0]), (2,) * (depth + 1)
    net = dl.LossNetwork(widths, dl.losses.power(X, Y, power=2.0))
    if kind == "homogeneous":
        net = dl.HomogeneousNetwork(widths, X, Y, power=1, slope=1.0, normalize=False)
    for size in (0.0, *10.0 ** np.arange(-9.0, -2.0, 0.5)):
        for sign in (1.0, -1.0):
            layers = [np.diag([2.0 ** (1.0 / depth), size]) for _ in range(depth)]
            layers[-1][1, 1] *= sign
            x = net.pack(layers)
            assert limit_at(net, x, -net.gradient(x), 1e-8).kind != "minimum"


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("kind", ["linear", "loss", "homogeneous"])
def test_no_saddle_of_the_square_loss_is_called_a_minimum(depth, kind):
    widths, target = (2,) * (depth + 1), np.diag([2.0, 1.0])
    linear = dl.LinearNetwork(widths, target)
    net = {
        "linear": linear,
        "loss": dl.LossNetwork(
            widths, dl.losses.power(np.eye(2), target, power=2.0, normalize=False)
        ),
        "homogeneous": dl.HomogeneousNetwork(
            widths, np.eye(2), target, power=1, slope=1, normalize=False
        ),
    }[kind]
    saddle = linear.critical_state((1,))
    layers = list(linear.unpack(saddle))
    layers[0], layers[-1] = 1024.0 * layers[0], layers[-1] / 1024.0
    for start in (saddle, linear.pack(layers)):
        for seed, size in enumerate((1e-12, 1e-10, 1e-6)):
            noise = size * np.random.default_rng(seed).normal(size=net.dim)
            run = dl.flow(net, start + noise, max_steps=1500)
            word = dl.schema.decode(run.limit_kind).item()
            if word in ("minimum", "global_minimum"):
                assert float(run.loss[-1]) < 1e-10, (seed, size)


# Weight decay of some layers, or hardly any.


@pytest.mark.compiled
@pytest.mark.parametrize("decays", [(0.0, 0.3), (0.3, 0.0)])
def test_decay_of_one_layer_alone_has_no_minimum_to_end_at(decays):
    """W_1 → c W_1, W_2 → W_2/c keeps the map and lowers the penalty for ever."""
    net = dl.LinearNetwork((1, 1, 1), [[2.0]], weight_decay=decays)
    run = dl.flow(net, [0.5, 0.5], save=["state"])
    assert dl.schema.decode(run.limit_kind).item() == "none"
    assert dl.schema.decode(run.stop_reason).item() != "limit_reached"
    end = dl.classify(net, run.isel(time=-1))
    assert dl.schema.decode(end.kind).item() == "not_critical"


@pytest.mark.compiled
def test_layers_without_decay_stay_where_those_with_it_die():
    """W_1 is as it was, W_2 = W_3 = 0: near it the penalty is more than the map is worth."""
    net = dl.LinearNetwork((1, 1, 1, 1), [[2.0]], weight_decay=(0.0, 1.0, 1.0))
    run = dl.flow(net, [0.1, 0.2, 0.3], save=["state"])
    assert dl.schema.decode(run.limit_kind).item() == "minimum"
    assert float(run.loss[-1]) == pytest.approx(2.0, rel=1e-9)


@pytest.mark.compiled
@pytest.mark.parametrize("a", [1e-12, 1e-10, 1e-6, 0.3])
def test_runs_with_hardly_any_decay_end_at_the_minimum(a):
    """Balanced: a W_1² = b W_2², and the least of ½(p − σ)² + √(ab) p at p = σ − √(ab)."""
    b, sigma = 0.3, 2.0
    net = dl.LinearNetwork((1, 1, 1), [[sigma]], weight_decay=(a, b))
    run = dl.flow(net, [0.5, 0.5], save=["state"])
    root = np.sqrt(a * b)
    assert float(run.loss[-1]) == pytest.approx(root * (sigma - 0.5 * root), rel=1e-6)
    assert dl.schema.decode(run.stop_reason).item() == "limit_reached"


@pytest.mark.parametrize("seed", [*range(6), 57])  # of 57 tiny weights are neither damped nor grow
def test_a_run_that_fades_at_a_pitchfork_comes_to_its_limit(seed):
    """λ = σ ‖K v‖: the map goes to zero like 1/√t, and eigenvalues of the Hessian come together."""
    root = np.diag([0.5, 1.0, 1.0, 1.0])
    net = dl.LinearNetwork((4, 3, 1), [[0.1, 0, 0, 0]], input_root=root, weight_decay=0.05)
    run = dl.flow(net, net.initial(scale=1.0, rng=seed), rtol=1e-10)
    assert words(run)[0] == "limit_reached"
    assert abs(net.product(run.state.values[-1])).max() < 1e-3
