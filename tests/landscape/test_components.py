"""Fibers as spaces: paths in them, signs between them, lines to infinity, the flattest point."""

import itertools

import numpy as np
import pytest

import dlnds as dl

#: Widths, learnt modes, columns of K (None: whitened), number of components.
FIBERS = [
    ((3, 2, 4, 2, 3), (0, 1), None, 4),
    ((3, 2, 4, 2, 3), (0, 2), 3, 4),
    ((3, 3, 3), (0, 1, 2), None, 2),
    ((4, 3, 3), (0, 1, 2), 3, 2),  # an input without data
    ((3, 4, 3), (0, 2), None, 1),
    ((2, 2, 3, 2), (1,), 2, 1),
    ((1, 1, 1, 1), (0,), None, 4),
    ((3, 3, 4), (), None, 1),
    ((3, 2), (0, 1), None, 1),
]


def network(widths, columns, seed=0):
    rng = np.random.default_rng(seed)
    root = None if columns is None else rng.normal(size=(widths[0], columns))
    target = rng.normal(size=(widths[-1], widths[0] if columns is None else columns))
    return dl.LinearNetwork(widths=widths, target=target, input_root=root)


def image(net, x):
    W = np.eye(net.widths[0])
    for layer in net.unpack(x):
        W = layer @ W
    return W if net.input_root is None else W @ net.input_root


def signs_of(net, x, modes):
    """Signs of det W_{1:i} K V_S at hidden layers of |S| units, from the definition."""
    part = np.linalg.svd(net.target)[2][list(modes)].T
    part = part if net.input_root is None else net.input_root @ part
    signs = []
    for layer in net.unpack(x)[:-1]:
        part = layer @ part
        if len(layer) == len(modes):
            signs.append(np.sign(np.linalg.det(part)))
    return tuple(signs)


@pytest.mark.parametrize(("widths", "modes", "columns", "count"), FIBERS)
def test_points_are_joined_within_the_fiber_or_differ_in_a_sign(widths, modes, columns, count):
    net = network(widths, columns)
    points = [dl.random_fiber_state(net, modes, rng=seed) for seed in range(9)]
    size = max(np.abs(points).max(), np.linalg.norm(net.target), 1.0)
    joined = 0
    for x, y in itertools.combinations(points, 2):
        if signs_of(net, x, modes) != signs_of(net, y, modes):
            with pytest.raises(ValueError, match=r"^y: is in another component"):
                dl.fiber_path(net, x, y)
            continue
        joined += 1
        states = dl.fiber_path(net, x, y, n_points=30).state.values
        drift = max(np.abs(image(net, s) - image(net, x)).max() for s in states)
        assert drift < 1e-12 * size ** len(widths)
        assert np.abs(net.gradient(states)).max() < 1e-11 * size ** (2 * len(widths))
        assert np.abs(states[[0, -1]] - [x, y]).max() < 1e-11 * size
    assert joined > 0


@pytest.mark.parametrize(("widths", "modes", "columns", "count"), FIBERS)
def test_each_component_has_a_balanced_point_and_random_points(widths, modes, columns, count):
    net = network(widths, columns)
    parts = dl.fiber_components(net, rank=len(modes))
    leading = range(len(modes))
    signs = [signs_of(net, x, leading) for x in parts.state.values]
    assert int(parts["count"]) == len(set(signs)) == len(signs) == count
    assert signs[0] == (1.0,) * len(signs[0]) or signs[0] == (-1.0,) * len(signs[0])
    for x, row in zip(parts.state.values, parts.orientation.values, strict=True):
        assert np.abs(net.gradient(x)).max() < 1e-12 * np.linalg.norm(net.target) ** 3
        assert max([0.0, *(np.abs(c).max() for c in net.imbalances(x))]) < 1e-12
        assert dl.fiber_orientation(net, x).orientation.values.tolist() == row.tolist()
    seen = {signs_of(net, dl.random_fiber_state(net, modes, rng=k), modes) for k in range(60)}
    assert len(seen) == count  # one of four is missed by 60 points with probability 4 (3/4)^60


def test_paths_are_continuous():
    net = network((3, 3, 4, 3), None)
    x, y = (dl.random_fiber_state(net, (0, 1, 2), rng=seed) for seed in (0, 3))
    if signs_of(net, x, (0, 1, 2)) != signs_of(net, y, (0, 1, 2)):
        pytest.fail("these two seeds should be in one component")
    steps = []
    for n_points in (701, 1401):
        states = dl.fiber_path(net, x, y, n_points=n_points).state.values
        steps.append(np.linalg.norm(np.diff(states, axis=0), axis=1).max())
    assert steps[1] == pytest.approx(steps[0] / 2, rel=0.05)


def test_margins_say_how_near_a_component_ends():
    net = dl.LinearNetwork(widths=(1, 1, 1), target=[[1.0]])
    for w in (1.0, -1e-3):
        found = dl.fiber_orientation(net, [w, 1.0 / w])
        assert found.orientation.values.tolist() == [0, np.sign(w), 0]
        assert int(found.is_clear) == 1
    square = dl.LinearNetwork(widths=(2, 2, 2), target=np.eye(2))
    thin = np.diag([1.0, 1e-9])
    found = dl.fiber_orientation(square, square.pack([thin, np.linalg.inv(thin)]))
    assert float(found.margin[1]) == pytest.approx(1e-9, rel=1e-6)


def test_half_turns_and_reflections_are_crossed():
    """Frames opposite to each other, and with the orientation left to the free units."""
    net = dl.LinearNetwork(widths=(2, 2, 3, 2), target=np.diag([2.0, 1.0]))
    W = net.unpack(net.critical_state((0, 1)))
    turned = net.pack([-W[0], W[1] @ np.diag([-1.0, -1.0]), W[2]])
    flipped = net.pack([W[0], np.diag([-1.0, 1.0, 1.0]) @ W[1], W[2] @ np.diag([-1.0, 1.0, 1.0])])
    for other in (turned, flipped):
        path = dl.fiber_path(net, net.critical_state((0, 1)), other, n_points=60)
        assert float(path.map_distance.max()) < 1e-14
        assert float(path.loss.max()) < 1e-28


def test_other_maps_and_points_that_are_not_critical_are_refused():
    net = network((3, 3, 3), None)
    x = net.critical_state((0,))
    with pytest.raises(ValueError, match=r"^y: needs the map of x"):
        dl.fiber_path(net, x, net.critical_state((1,)))
    with pytest.raises(ValueError, match=r"^x: needs a critical point"):
        dl.fiber_path(net, x + 1.0, x)
    with pytest.raises(ValueError, match=r"^y: needs a critical point"):
        dl.fiber_path(net, x, x + 1.0)
    with pytest.raises(ValueError, match=r"^rank: "):
        dl.fiber_components(net, rank=4)
    chain = dl.LinearNetwork(widths=(1,) * 20, target=[[1.0]])
    with pytest.raises(ValueError, match=r"^rank: needs at most 100,000 components, got 262,144"):
        dl.fiber_components(chain)


LINES = [
    ((3, 4, 2), "gaussian", 1),
    ((2, 2, 2), "gaussian", 1),
    ((3, 1, 2, 3), "gaussian", 1),
    ((3, 2, 2), "last", 1),  # the first layer vanishes
    ((2, 2, 2), "zero", 0),
    ((1, 1, 1), "zero", 0),
    ((1, 1, 1, 1), "last", 0),
]


@pytest.mark.parametrize(("widths", "kind", "is_symmetry"), LINES)
def test_lines_keep_the_map_to_infinity(widths, kind, is_symmetry):
    net = network(widths, None)
    x = np.random.default_rng(1).normal(size=net.dim)
    if kind != "gaussian":
        x[: widths[1] * widths[0] if kind == "last" else None] = 0.0
    line = dl.fiber_line(net, x)
    v = line.tangent.values
    assert np.linalg.norm(v) == pytest.approx(1.0, rel=1e-14)
    assert int(line.is_symmetry) == is_symmetry
    for s in (-1e6, -1.0, 1.0, 1e6):
        change = np.abs(image(net, x + s * v) - image(net, x)).max()
        assert change < 1e-14 * (1.0 + abs(s)) ** 2  # both layers may be as large as s


def test_lines_of_symmetry_keep_what_is_critical():
    net = network((3, 4, 3, 3), 3)
    for seed in range(5):
        x = dl.random_fiber_state(net, (1,), rng=seed)
        line = dl.fiber_line(net, x)
        assert int(line.is_symmetry) == 1
        for s in (-10.0, 10.0):
            moved = x + s * line.tangent.values
            assert np.abs(net.gradient(moved)).max() < 1e-9 * np.linalg.norm(moved) ** 3


def test_products_of_numbers_have_no_line():
    net = dl.LinearNetwork(widths=(2, 1, 1, 2), target=np.eye(2))
    with pytest.raises(ValueError, match=r"^x: needs a hidden layer of at least 2 units"):
        dl.fiber_line(net, net.critical_state((0,)))
    single = dl.LinearNetwork(widths=(2, 2), target=np.eye(2))
    with pytest.raises(ValueError, match=r"^x: "):
        dl.fiber_line(single, np.zeros(4))


@pytest.mark.parametrize("widths", [(3, 3), (3, 4, 3), (4, 3, 5, 3), (2, 2, 2, 2, 2)])
def test_no_minimum_is_flatter_than_the_balanced_one(widths):
    net, h = network(widths, None), len(widths) - 1
    flat = dl.flattest_minimum(net)
    least = h * np.linalg.norm(net.target, 2) ** (2.0 - 2.0 / h)
    assert int(flat.is_smallest) == 1
    assert float(flat.lower_bound) == pytest.approx(least, rel=1e-13)
    assert float(flat.sharpness) == pytest.approx(least, rel=1e-10)
    top = np.linalg.eigvalsh(net.hessian(flat.state.values))[-1]
    assert top == pytest.approx(least, rel=1e-12)
    for seed in range(20):
        x = dl.random_fiber_state(net, range(net.max_rank), rng=seed)
        sharpness = np.linalg.eigvalsh(net.hessian(x))[-1]
        assert sharpness > least * (1.0 - 1e-12)
        assert h == 1 or sharpness > least * (1.0 + 1e-6)


@pytest.mark.parametrize("widths", [(3, 3), (3, 4, 3), (3, 3, 5, 3)])
def test_data_bound_the_sharpness_of_all_minima(widths):
    net = network(widths, 3)
    flat = dl.flattest_minimum(net)
    bound = float(flat.lower_bound)
    assert 0.0 < bound <= float(flat.sharpness) * (1.0 + 1e-10)
    assert int(flat.is_smallest) == (len(widths) == 2)  # one layer has the Hessian 1 ⊗ K Kᵀ
    for seed in range(20):
        x = dl.random_fiber_state(net, (0, 1, 2), rng=seed)
        assert np.linalg.eigvalsh(net.hessian(x))[-1] > bound * (1.0 - 1e-12)


def test_nothing_is_claimed_where_a_residual_is_left():
    net = network((3, 2, 3), None)
    flat = dl.flattest_minimum(net)
    assert int(flat.is_smallest) == 0
    assert float(flat.lower_bound) == 0.0
    assert float(net.loss(flat.state.values)) == pytest.approx(net.lowest_loss, rel=1e-12)
