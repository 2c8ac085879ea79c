"""Fibers: random points of every kind, dimensions, classification."""

import itertools

import naive
import numpy as np
import points
import pytest
import scipy.linalg
from hypothesis import given

import dlnds as dl
from dlnds.theory import strings


def random_point(net, rng):
    """A random fiber state over a random index set, with the set."""
    positive = np.flatnonzero(net.singular_values)
    count = len(positive) if net.depth == 1 else rng.integers(net.max_rank, endpoint=True)
    modes = tuple(sorted(rng.choice(positive, count, replace=False).tolist()))
    return dl.random_fiber_state(net, modes, rng=rng), modes


def size_of(net, x):
    """What products of all layers, the root and the target can be as large as."""
    norms = [1.0 + np.linalg.norm(w) for w in (*net.unpack(x), naive.root(net))]
    return np.prod(norms) ** 2 * (1.0 + np.linalg.norm(net.target))


def rank_of(rows):
    """The rank of vectors that are of size one unless they are rounding."""
    values = np.linalg.svd(rows, compute_uv=False) if rows.size else np.zeros(1)
    return int(np.count_nonzero(values > 1e-8 * max(values[0], 1e-2)))


@given(naive.small_networks, naive.seeds)
def test_fiber_states_are_critical_over_their_index_set(net, seed):
    x, modes = random_point(net, np.random.default_rng(seed))
    assert np.abs(naive.field(net, x)).max() < 1e-13 * size_of(net, x)
    U, sigma, V = (part[..., list(modes)] for part in net.singular_modes)
    W = naive.chain(naive.split(net, x), 1, net.depth, net.widths[0])
    np.testing.assert_allclose(
        W @ naive.root(net), (U * sigma) @ V.T, rtol=0, atol=1e-13 * size_of(net, x)
    )


def interval_kinds(units, crossing):
    """All kinds of Z blocks: how many strings lie on each arc of at most h nodes of the cycle."""
    nodes = len(units)
    arcs = [(a, n) for a in range(nodes) for n in range(1, nodes)]
    cover = np.array([[(k - a) % nodes < n for k in range(nodes)] for a, n in arcs])
    across = np.array([(nodes - 1 - a) % nodes + 1 < n for a, n in arcs])

    def fill(place, left, count):
        if place == len(arcs):
            if not any(left) and count == 0:
                yield ()
            return
        for many in itertools.count():
            rest = left - many * cover[place]
            if (rest < 0).any() or many * across[place] > count:
                return
            for others in fill(place + 1, rest, count - many * across[place]):
                yield (many, *others)

    return set(fill(0, np.array(units), crossing)), arcs


@pytest.mark.parametrize(
    ("widths", "sigma", "modes"),
    [((2, 1, 2, 2), (2.0, 0.0), ()), ((3, 2, 3), (2.0, 0, 0), (0,)), ((1, 2, 2, 1), (1.0,), ())],
)
def test_every_kind_of_fiber_point_is_reached(widths, sigma, modes):
    """Z blocks of all ranks, also in the kernel of the target."""
    net = dl.LinearNetwork(widths=widths, target=np.diag(sigma))
    units = np.array(widths) - len(modes)
    expected, arcs = interval_kinds(units, np.count_nonzero(sigma) - len(modes))
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(30 * len(expected)):
        x = dl.random_fiber_state(net, modes, rng=rng)
        learnt = strings.learnt(net.problem, net.unpack(x), 1e-8)
        blocks = strings.residual_blocks(net.problem, learnt, 1e-8)
        counts = strings.count_strings(blocks, 1e-8, net.depth - 1).counts
        found.add(tuple(int(counts[a, n - 1]) for a, n in arcs))
    assert found == expected
    assert len(expected) > 2


@given(naive.small_networks, naive.seeds)
def test_all_layers_split_into_what_is_learnt_and_z_blocks(net, seed):
    """Up to GL every critical point is block-diagonal, also where W_1 reads learnt inputs."""
    x, modes = random_point(net, np.random.default_rng(seed))
    canon = dl.canonicalize(net, x)
    dl.schema.validate(canon)
    moved, canonical = net.unpack(canon.moved_state), net.unpack(canon.state)
    r, size = len(modes), size_of(net, x)
    for i, (w, a) in enumerate(zip(moved, canonical, strict=True)):
        seen = naive.root(net) if i == 0 else np.eye(w.shape[1])
        if i > 0:
            assert np.abs(w[:, :r] - a[:, :r]).max(initial=0) < 1e-12 * size
        if i < net.depth - 1:
            difference = (w[:r] - a[:r]) @ seen
            assert np.abs(difference).max(initial=0) < 1e-12 * size
    again = dl.act(net, canon.group_element, x) if net.depth > 1 else x
    np.testing.assert_allclose(again, canon.moved_state, rtol=0, atol=1e-12 * size)
    residual = np.linalg.norm(canon.moved_state - canon.state)
    np.testing.assert_allclose(canon.residual, residual, rtol=1e-12)
    assert canon.error < 1e-12 * size


def tangents_of_the_sheet(net, x, modes):
    """Tangent vectors of the points of one kind: changes of hidden bases, and of those of the ends

    that keep W and Σ, and what W_1 does with inputs without data.
    """
    layers, K = net.unpack(x), naive.root(net)
    U, sigma, V = (part[..., list(modes)] for part in net.singular_modes)
    learnt, (left, values, right) = (U * sigma) @ V.T, net.singular_modes
    open_part = ((left * values) @ right.T - learnt).T
    inputs, outputs = K.shape[1], net.widths[-1]
    keep_map = [-np.kron(learnt, np.eye(inputs)), np.kron(np.eye(outputs), learnt.T)]
    keep_open = [np.kron(np.eye(inputs), open_part.T), -np.kron(open_part, np.eye(outputs))]
    conditions = np.vstack([np.hstack(keep_map), np.hstack(keep_open)])
    _, s, Vt = np.linalg.svd(conditions)
    kernel = Vt[np.count_nonzero(s > 1e-10 * max(s[0], 1e-300)) :]
    rows = [net.generators(x)]
    pinv = np.linalg.pinv(K)
    for element in kernel:
        k_in = element[: inputs**2].reshape(inputs, inputs)
        k_out = element[inputs**2 :].reshape(outputs, outputs)
        change = [np.zeros_like(w) for w in layers]
        change[0] -= layers[0] @ K @ k_in @ pinv
        change[-1] += k_out @ layers[-1]
        rows.append(net.pack(change)[None])
    unseen = np.eye(net.widths[0]) - K @ pinv
    for a, b in np.ndindex(net.widths[1], net.widths[0]):
        change = [np.zeros_like(w) for w in layers]
        change[0][a] = unseen[b]
        rows.append(net.pack(change)[None])
    return np.concatenate(rows)


@given(naive.small_networks, naive.seeds)
def test_dimensions_are_those_of_the_tangent_spaces(net, seed):
    """The orbit by its generators; the sheet by those of the ends that keep W and Σ besides."""
    x, modes = random_point(net, np.random.default_rng(seed))
    fiber = dl.fiber_dimension(net, x)
    dl.schema.validate(fiber)
    assert int(fiber.orbit_dimension) == rank_of(net.generators(x))
    assert int(fiber.sheet_dimension) == rank_of(tangents_of_the_sheet(net, x, modes))


def linked(units, crossing, arcs, counts):
    """Z_1, …, Z_h of zeros and ones with so many strings on each arc of nodes."""
    nodes = len(units)
    links = [np.zeros((b, a)) for a, b in itertools.pairwise(units)]
    # Open modes are the first units of outputs and inputs; those that pass on are taken from them.
    free = [list(range(n)) for n in units]
    ends = {0: list(range(crossing, units[0])), nodes - 1: list(range(crossing, units[-1]))}
    through = list(range(crossing))
    for (start, length), many in zip(arcs, counts, strict=True):
        for _ in range(many):
            path = [(start + k) % nodes for k in range(length)]
            across = nodes - 1 in path and path[-1] != nodes - 1
            mode = through.pop() if across else -1
            places = []
            for node in path:
                if node in ends:
                    places.append(mode if across else ends[node].pop())
                else:
                    places.append(free[node].pop())
            for k, (one, other) in enumerate(itertools.pairwise(path)):
                if one != nodes - 1:
                    links[one][places[k + 1], places[k]] = 1.0
                assert (one + 1) % nodes == other
    return links


def ranks_of(nodes, arcs, counts):
    """How many strings pass all of each arc of nodes: the ranks of all products."""
    return np.array(
        [
            sum(c for (b, m), c in zip(arcs, counts, strict=True) if (a - b) % nodes + n <= m)
            for a, n in arcs
        ]
    )


@pytest.mark.parametrize(
    ("widths", "sigma", "modes"),
    [
        ((2, 2, 2), (2.0, 1.0), ()),
        ((2, 2, 2, 2), (2.0, 1.0), ()),
        ((3, 2, 3, 2), (2.0, 1.0), (0,)),
        ((2, 1, 2, 2), (2.0, 0.0), ()),
        ((1, 2, 2, 1, 1), (1.0,), ()),
        ((3, 3, 3), (3.0, 2.0, 1.0), (1,)),
    ],
)
def test_the_fiber_has_the_dimension_of_the_largest_sheet_nearby(widths, sigma, modes):
    """Kinds that come arbitrarily near have no smaller rank of any product, and all such do.

    All kinds are listed, each with a point of its own whose sheet has the dimension of its tangent
    space. No sheet is larger than the kernel of the Hessian.
    """
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    net = dl.LinearNetwork(widths=widths, target=target)
    units, crossing = np.array(widths) - len(modes), np.count_nonzero(sigma) - len(modes)
    kinds, arcs = interval_kinds(units, crossing)
    order = [*modes, *(j for j in range(max(widths)) if j not in modes)]
    found = []
    for counts in sorted(kinds):
        layers = linked(units, crossing, arcs, counts)
        parts = [scipy.linalg.block_diag(np.eye(len(modes)), z) for z in layers]
        parts[0] = parts[0][:, np.argsort([j for j in order if j < widths[0]])]
        parts[0][: len(modes)] *= np.append(sigma, np.zeros(widths[0]))[: widths[0]]
        parts[-1] = parts[-1][np.argsort([j for j in order if j < widths[-1]])]
        x = net.pack(parts)
        assert not net.gradient(x).any()
        sheet = rank_of(tangents_of_the_sheet(net, x, modes))
        found.append((x, ranks_of(len(units), arcs, counts), sheet))
    for x, ranks, sheet in found[:: max(1, len(found) // 40)]:
        largest = max(other for _, above, other in found if (above >= ranks).all())
        fiber = dl.fiber_dimension(net, x)
        assert int(fiber.sheet_dimension) == sheet
        assert int(fiber.fiber_dimension) == largest <= int(fiber.nullity)
        assert fiber.is_complete


@given(naive.small_networks, naive.seeds)
def test_sheets_lie_between_the_orbit_and_the_kernel(net, seed):
    x, _ = random_point(net, np.random.default_rng(seed))
    fiber = dl.fiber_dimension(net, x)
    numbers = [
        int(fiber[name])
        for name in ("orbit_dimension", "sheet_dimension", "fiber_dimension", "nullity")
    ]
    assert numbers == sorted(numbers)
    assert bool(fiber.is_smooth) == (numbers[2] == numbers[3])


@pytest.mark.parametrize(
    ("widths", "dimension"), [((4, 5, 4, 3), 40), ((3, 4, 5), 17), ((1, 2, 3), 5), ((2, 2), 0)]
)
def test_fibers_of_full_rank_are_smooth_with_the_known_dimension(widths, dimension):
    """Σ_i d_i d_{i−1} − r (d_0 + d_h − r), which is not Σ d_i²."""
    r = min(widths)
    target = np.eye(widths[-1], widths[0]) * np.arange(widths[0], 0.0, -1.0)
    net = dl.LinearNetwork(widths=widths, target=target)
    assert dimension == net.dim - r * (widths[0] + widths[-1] - r)
    for x in (net.critical_state(range(r)), dl.random_fiber_state(net, range(r), rng=0)):
        fiber = dl.fiber_dimension(net, x)
        assert (int(fiber.fiber_dimension), int(fiber.is_smooth)) == (dimension, 1)


@pytest.mark.parametrize(
    ("widths", "sigma"),
    [
        ((1, 1, 1, 1), (1.0,)),
        ((2, 2, 2, 2), (2.0, 1.0)),
        ((2, 2, 2, 2), (2.0, 0.0)),
        ((3, 2, 2, 3), (3.0, 2.0, 1.0)),
        ((2, 3, 4, 3, 2), (2.0, 1.0)),
        ((3, 3, 3, 2), (3.0, 2.0)),
    ],
)
def test_sheets_cross_at_canonical_points_below_the_least_width_and_there_only(widths, sigma):
    """The weights of one layer between units that have learnt nothing may be anything.

    With those of all other layers they may, too, exactly if some layer has no such units: else
    they change the map, or leave a force. So the fiber holds planes through A_S, but not their sum.
    """
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    net = dl.LinearNetwork(widths=widths, target=target)
    rng = np.random.default_rng(0)
    for modes in naive.index_sets(net):
        x = net.critical_state(modes)
        layers = net.unpack(x)
        free = [np.outer(~w.any(axis=1), ~w.any(axis=0)) for w in layers]
        moves = [rng.normal(size=w.shape) * at for w, at in zip(layers, free, strict=True)]
        singles = [net.pack([m * (j == i) for j, m in enumerate(moves)]) for i in range(net.depth)]
        ends = [x + step for step in (*singles, sum(singles))]
        changes = [np.abs(naive.field(net, y)).max() for y in ends]
        maps = [np.abs(net.product(y) - net.product(x)).max() for y in ends]
        crosses = len(modes) < min(widths)
        assert max(changes[:-1]) < 1e-13
        assert max(maps[:-1]) < 1e-13
        assert (max(changes[-1], maps[-1]) > 1e-3) == crosses
        assert bool(dl.fiber_dimension(net, x).is_smooth) == (not crosses)


def test_many_kinds_are_not_all_tried_and_that_is_said():
    net = dl.LinearNetwork(widths=(7,) * 5, target=np.diag(np.arange(7.0, 0.0, -1.0)))
    x = net.critical_state((0,))
    fiber, spectrum = dl.fiber_dimension(net, x), dl.linearize(net, x)
    assert (int(fiber.is_complete), int(fiber.is_smooth)) == (1, 0)
    assert int(spectrum.attrs["fiber_is_exact"]) == 0
    assert int(spectrum.fiber_dimension) <= int(fiber.fiber_dimension) < int(fiber.nullity)


def kind_by_hessian(net, x):
    """Strict if the Hessian has a negative eigenvalue, beyond the rounding of its terms."""
    lowest = np.linalg.eigvalsh(net.hessian(x))[0]
    return lowest < -1e-12 * max(strings.hessian_scale(net.problem, net.unpack(x)), 1e-300)


def random_problem(rng, deepest=5, widest=5):
    """Any kind of problem: covariances, rank-deficient targets, equal singular values."""
    widths = rng.integers(1, widest + 1, size=rng.integers(3, deepest + 2)).tolist()
    seed, kind = int(rng.integers(2**31)), naive.KINDS[rng.integers(3)]
    net = naive.random_network(widths, seed, kind, [None, 1, 2, 3][rng.integers(4)])
    if rng.random() < 0.2:
        U, s, Vt = np.linalg.svd(net.target, full_matrices=False)
        target = (U * np.ceil(s - 1e-9)) @ Vt
        net = dl.LinearNetwork(widths=widths, target=target, input_root=net.input_root)
    return net


def check_classification(count, seed):
    rng, kinds = np.random.default_rng(seed), set()
    for _ in range(count):
        net = random_problem(rng)
        x, modes = random_point(net, rng)
        point = dl.classify(net, x)
        kind = dl.schema.decode(point.kind).item()
        kinds.add((kind, int(point.order_of_descent)))
        assert kind_by_hessian(net, x) == (kind == "strict_saddle"), (net, modes, kind)
        assert kind != "not_critical"
        minimum = float(point.excess) < 1e-10 * max(net.loss(np.zeros(net.dim)), 1e-300)
        assert minimum == (kind == "global_minimum")
        assert int(point["rank"]) == len(modes)
        if not point.ambiguous:
            assert point.critical_point.item() == dl.schema.index_set_label(modes)
    return kinds


def test_kinds_agree_with_the_hessian_at_random_critical_points():
    """1,000 here, 20,000 in the slow tests."""
    kinds = check_classification(1000, seed=0)
    assert kinds >= {("global_minimum", 0), ("strict_saddle", 2), ("nonstrict_saddle", 3)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
def test_kinds_agree_with_the_hessian_at_many_random_critical_points(seed):
    check_classification(1000, seed)


@given(naive.small_networks, naive.seeds)
def test_order_of_descent_is_the_smallest_set_of_layers(net, seed):
    rng = np.random.default_rng(seed)
    for r in range(min(net.max_rank, 3)):
        if net.depth == 1:
            continue
        x = dl.random_fiber_state(net, range(r), rng=rng)
        point = dl.classify(net, x)
        order = int(point.order_of_descent)
        if point.ambiguous or dl.schema.decode(point.kind) == "global_minimum":
            continue
        layers = naive.split(net, x)
        layers[0] = layers[0] @ naive.root(net)
        assert order == points.order_by_subsets(layers, net.target, r)
        assert (order == 2) == (dl.schema.decode(point.kind) == "strict_saddle")
        assert int(point.tightened) == (order > 2)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_canonical_points_below_full_rank_have_the_depth_as_order(depth):
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag([3.0, 2.0, 1.0]))
    for modes in [(), (0,), (0, 1)]:
        point = dl.classify(net, net.critical_state(modes))
        assert (int(point.order_of_descent), int(point.order_is_exact)) == (depth, 1)
    assert int(dl.classify(net, net.critical_state((1,))).order_of_descent) == 2


@given(naive.small_networks, naive.seeds)
def test_the_kind_is_that_of_the_whole_orbit(net, seed):
    rng = np.random.default_rng(seed)
    x, _ = random_point(net, rng)
    element = [np.eye(d) + 0.3 * rng.normal(size=(d, d)) / d for d in net.widths[1:-1]]
    here, there = dl.classify(net, x), dl.classify(net, dl.act(net, element, x))
    for name in ("kind", "order_of_descent", "learnt", "between_rank", "complementary_rank"):
        if name in here:
            assert here[name].equals(there[name])


def test_canonical_kinds_are_those_of_the_table():
    net = dl.LinearNetwork(widths=(3, 4, 4, 2), target=[[3.0, 0, 0], [0, 1.0, 0]])
    found = dl.critical_points(net)
    for label, kind in zip(found.critical_point.values, found.kind.values, strict=True):
        modes = dl.schema.index_set_modes(str(label))
        assert dl.classify(net, net.critical_state(modes)).kind == kind


def test_a_small_gradient_is_not_critical():
    net = dl.LinearNetwork(widths=(3,) * 5, target=np.diag([3.0, 2.0, 1.0]))
    x = net.initial(scale=1e-9, rng=0)
    assert np.abs(net.gradient(x)).max() < 1e-25
    point = dl.classify(net, x)
    assert dl.schema.decode(point.kind) == "not_critical"
    assert float(point.relative_gradient) > 0.01
    for refuses in (dl.canonicalize, dl.fiber_dimension):
        with pytest.raises(ValueError, match=r"^x: needs a critical point, got a relative grad"):
            refuses(net, x)


@given(naive.small_networks, naive.seeds)
def test_critical_points_found_near_a_fiber_lie_over_its_index_set(net, seed):
    """The end-to-end maps of critical points are isolated, so a small step leads to no other."""
    rng = np.random.default_rng(seed)
    x, modes = random_point(net, rng)
    start = x + 1e-4 * rng.normal(size=net.dim) / np.sqrt(net.dim)
    found = dl.find_critical_point(net, start)
    assert float(found.distance) < 1e-2
    point = dl.classify(net, found.state, rtol=max(1e-8, 10 * float(found.error)))
    assert dl.schema.decode(point.kind) != "not_critical"
    assert int(point["rank"]) == len(modes)
    assert float(point.loss) == pytest.approx(float(net.loss(x)), abs=1e-6 * size_of(net, x))


def test_equal_singular_values_make_index_sets_ambiguous():
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag([2.0, 2.0, 1.0]))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
    Q = np.eye(3)
    Q[:2, :2] = turn
    W1, W2, W3 = net.unpack(net.critical_state((0,)))
    x = net.pack([W1 @ Q.T, W2, Q @ W3])  # P_S projects on a mixture of modes 0 and 1
    point = dl.classify(net, x)
    assert bool(point.ambiguous)
    assert (int(point["rank"]), point.critical_point.item()) == (1, "{0}")
    assert dl.schema.decode(point.kind) == "nonstrict_saddle"
    assert not kind_by_hessian(net, x)
    assert not dl.classify(net, net.critical_state((0, 1))).ambiguous
    canon = dl.canonicalize(net, x)
    assert float(canon.residual) < 1e-14
    np.testing.assert_allclose(net.product(canon.state), net.product(x), atol=1e-14)


def test_maps_that_turn_among_equal_singular_values_belong_to_one_fiber():
    """ρ of m equal modes are learnt: W turns in ρ (m − ρ) dimensions, and minima are smooth."""
    net = dl.LinearNetwork(widths=(3, 2, 3), target=np.diag([2.0, 1.0, 1.0]))
    fiber = dl.fiber_dimension(net, net.critical_state((0, 1)))
    assert int(fiber.fiber_dimension) == int(fiber.nullity) == 12 - 2 * (3 + 3 - 2) + 1
    assert int(dl.linearize(net, net.critical_state((0, 1))).degenerate_dimension) == 0


def weakly_joined(c):
    """A point over {} where layers 2 and 3 join one unit by a weight c: strict if that counts."""
    net = dl.LinearNetwork(widths=(2,) * 5, target=np.diag([2.0, 1.0]))
    layers = [np.zeros((2, 2)), np.diag([1.0, 0.0]), np.diag([c, 1.0]), np.zeros((2, 2))]
    return net, net.pack(layers)


def test_two_possible_kinds_are_refused_at_a_tolerance_and_told_without():
    net, x = weakly_joined(2e-8)
    with pytest.raises(
        ValueError, match="^rtol: at 1e-08 this may be a nonstrict_saddle or a strict_saddle"
    ):
        dl.classify(net, x, rtol=1e-8)
    for rtol, kind in ((1e-10, "strict_saddle"), (1e-5, "nonstrict_saddle")):
        point = dl.classify(net, x, rtol=rtol)
        assert dl.schema.decode(point.kind) == kind
        assert int(point.kind_is_clear) == 1
    assert int(dl.classify(net, x).kind_is_clear) == 0
    for c, kind in ((2e-3, "strict_saddle"), (2e-17, "nonstrict_saddle")):
        point = dl.classify(*weakly_joined(c))
        assert dl.schema.decode(point.kind) == kind
        assert int(point.kind_is_clear) == 1
        assert point.decision_gap > 1e6


def test_ranks_that_do_not_change_the_kind_need_not_be_clear():
    """With W_1 = W_3 = 0 and W_2 of any rank above zero the point is a strict saddle."""
    net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    middle = np.diag([1.0, 2e-6, 5e-7])
    x = net.pack([np.zeros((3, 2)), middle, np.zeros((2, 3))])
    for rtol in (1e-6, None):
        point = dl.classify(net, x, rtol=rtol)
        assert dl.schema.decode(point.kind) == "strict_saddle"
        assert int(point.kind_is_clear) == 1
    assert int(dl.fiber_dimension(net, x, rtol=1e-6).is_clear) == 0
