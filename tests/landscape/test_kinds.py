"""Kind, index, nullity and orbit of random critical points of every kind, from first principles.

The points are those of `points`: known in integers, then moved by other bases of all levels. What
is not right has to be said to be unclear.
"""

import itertools
from collections import Counter

import naive
import numpy as np
import points
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl


def word(flag):
    return dl.schema.decode(flag).item()


def told(p, kind):
    """What is found of a point, what it is, and whether it is called clear: by function."""
    spectrum, counts = dl.linearize(p.net, p.x), dl.inertia(p.net, p.x)
    fiber, both = dl.fiber_dimension(p.net, p.x), (p.index, p.nullity)
    yield "kind", word(kind.kind), p.kind, kind.kind_is_clear
    yield "order", int(kind.order_of_descent) == 2, p.kind == "strict_saddle", kind.kind_is_clear
    found = int(spectrum["index"]), int(spectrum.nullity)
    yield "spectrum", found, both, spectrum.attrs["is_clear"]
    found = int(counts["index"]), int(counts.nullity)
    yield "inertia", found, both, counts.attrs["is_clear"]
    found = int(fiber.orbit_dimension), int(fiber.nullity)
    yield "fiber", found, (p.orbit, p.nullity), fiber.is_clear


def check_ranks(p, found):
    """Ranks that are clear are those of the integers, an order that is not exact is no higher."""
    order, known = int(found.order_of_descent), points.order(p)
    assert order == known if found.order_is_exact else order <= known
    if found.ranks_are_clear:
        ranks = [points.ranks(p, *pair) for pair in zip(found.earlier, found.later, strict=True)]
        np.testing.assert_array_equal(found.between_rank, [between for between, _ in ranks])
        np.testing.assert_array_equal(found.complementary_rank, [around for _, around in ranks])


def check(seeds, condition, unclear):
    """No answer is wrong; at most this part of them is not right and clear."""
    count, doubts = 0, Counter()
    for seed in seeds:
        p, count = points.random_point(seed, condition=condition), count + 1
        kind = dl.classify(p.net, p.x)
        if word(kind.kind) == "not_critical":  # lost in rounding
            assert not kind.kind_is_clear, seed
            doubts.update(["kind"])
            continue
        check_ranks(p, kind)
        for name, found, known, clear in told(p, kind):
            assert found == known or not clear, (seed, name, found, known)
            doubts[name] += not (found == known and clear)
    assert max(doubts.values(), default=0) <= unclear * count, doubts


@pytest.mark.parametrize(
    ("first", "condition", "unclear"),
    [(0, 1e6, 0.2), (40, 1e6, 0.2), (1000, 1e3, 0.05), (1040, 1e3, 0.05), (2000, 1.0, 0.0)],
)
def test_no_answer_about_a_critical_point_is_wrong(first, condition, unclear):
    """Hidden bases change by matrices of up to this condition, covariances have up to 1e6."""
    check(range(first, first + 40), condition, unclear)


@pytest.mark.parametrize("seed", [1319, 2886, 3508, 4549, 6046, 9503, 10345, 14224, 18179])
def test_points_that_were_wrong_once_are_right_or_said_to_be_unclear(seed):
    """Of 20,000: bases so ill-conditioned that singular values are spread down to rounding."""
    check([seed], 1e6, 1.0)


# Widths, singular values, the learnt mode, and the other weights of one, by layer, row and column.
SPREAD = {
    "a chain over six layers": (
        (3, 5, 4, 3, 4, 4, 3),
        (3, 2, 2),
        0,
        ((1, 2, 2), (2, 1, 1), (3, 2, 1), (4, 1, 2), (5, 1, 1)),
    ),
    "two chains over five": (
        (2, 3, 4, 3, 4, 2),
        (5, 4),
        1,
        ((2, 1, 1), (2, 2, 3), (3, 1, 1), (3, 3, 2), (4, 0, 1)),
    ),
}


def spread(widths, sigma, mode, weights, rng):
    """A point with hidden bases of condition 1e6, and the inertia of its Hessian of integers."""
    target, depth = np.eye(widths[-1], widths[0], dtype=int) * sigma, len(widths) - 1
    layers = [np.zeros((b, a), int) for a, b in itertools.pairwise(widths)]
    layers[0][0, mode] = sigma[mode]
    for w in layers[1:-1]:
        w[0, 0] = 1
    layers[-1][mode, 0] = 1
    for i, row, column in weights:
        layers[i][row, column] = 1
    known = points.inertia(points.hessian(layers, target))
    moved = [w.astype(np.longdouble) for w in layers]
    for i in range(1, depth):
        basis, inverse = points.stretched(widths[i], 1e6, rng)
        moved[i - 1], moved[i] = basis @ moved[i - 1], moved[i] @ inverse
    net = dl.LinearNetwork(widths=widths, target=target)
    return net, net.pack([w.astype(float) for w in moved]), known


@pytest.mark.parametrize("name", SPREAD)
def test_a_wide_gap_says_nothing_where_other_ranks_are_lost_in_rounding(name):
    """Bases of condition 1e6 leave singular values of products down to 1e-24 of their layers.

    Those that still can be seen have wide gaps, above which ranks fit other kinds.
    """
    rng, right = np.random.default_rng(0), 0
    for _ in range(20):
        net, x, known = spread(*SPREAD[name], rng)
        kind, found = dl.classify(net, x), dl.linearize(net, x)
        assert word(kind.kind) == "strict_saddle" or not kind.kind_is_clear
        counts = int(found["index"]), int(found.nullity)
        assert counts == known or not found.attrs["is_clear"]
        right += counts == known
    assert right < 20  # they are no easy points


def test_an_order_is_exact_only_if_all_ranks_that_are_possible_have_it():
    """Layers 2 and 4 of five have weights beside mode 0, so layers 1, 3 and 5 do: the order is 3.

    Bases of condition 1e6 make these weights 1e-12 of their layers: all alike but the order.
    """
    target, rng = np.diag([3, 2, 1]), np.random.default_rng(0)
    layers = [np.zeros(shape, int) for shape in ((2, 3), (2, 2), (2, 2), (3, 2), (3, 3))]
    for w, first in zip(layers, (3, 1, 1, 1, 1), strict=True):
        w[0, 0] = first
    layers[1][1, 1] = layers[3][2, 1] = 1
    doubts = 0
    for _ in range(20):
        p = points.moved_point(target, layers, (0,), [3, 2, 2, 2, 3, 3], rng, 1e6)
        assert (points.order(p), p.kind) == (3, "nonstrict_saddle")
        found = dl.classify(p.net, p.x)
        check_ranks(p, found)
        doubts += not found.order_is_exact
    assert 0 < doubts < 20


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 20_000, 500))
def test_no_answer_about_twenty_thousand_critical_points_is_wrong(first):
    check(range(first, first + 500), [1.0, 1e3, 1e6, 1e6][first // 500 % 4], 0.15)


# Order of descent.


def lowest_in_balls(net, x, radii, rng):
    """The least change of the loss at these distances, each search from the end of the last."""
    best, starts, base = [], [rng.normal(size=net.dim) for _ in range(8)], net.loss(x)
    for radius in radii:

        def change(w, radius=radius):
            unit = w / np.linalg.norm(w)
            slope = radius * net.gradient(x + radius * unit)
            slope = (slope - (slope @ unit) * unit) / np.linalg.norm(w)
            return (net.loss(x + radius * unit) - base) / radius**4, slope / radius**4

        ends = [scipy.optimize.minimize(change, w, jac=True, method="L-BFGS-B") for w in starts]
        end = min(ends, key=lambda found: found.fun)
        best.append(end.fun * radius**4)
        starts = [end.x, *starts[:3]]
    return np.array(best)


def check_order(seeds):
    """On balls of radius ε the loss falls by c ε^k; where it is not exact, by no lower power."""
    orders = set()
    for seed in seeds:
        p = points.random_point(seed, deepest=5, widest=3, condition=1.0)
        widths = [p.plain.shape[1], *(len(w) for w in p.layers)]
        net = dl.LinearNetwork(widths=widths, target=p.plain)
        x = net.pack(p.layers)
        point = dl.classify(net, x)
        order = int(point.order_of_descent)
        if order == 0:
            continue
        falls = lowest_in_balls(net, x, [0.1, 0.05, 0.025], np.random.default_rng(seed))
        assert (falls < 0.0).all(), seed
        slope = np.log2(falls[1] / falls[2])
        assert slope > order - 0.1, (seed, order, slope)
        if point.order_is_exact:
            assert slope < order + 0.1, (seed, order, slope)
        orders.add(order)
    return orders


def test_the_loss_falls_with_the_stated_power():
    """Of {} with 1, 2, …, a strict saddle, and others; more in the slow tests."""
    assert check_order([3, 5, 16, 63, 78, 96, 170, 218, 358]) == {2, 3, 4, 5}


def test_an_order_that_is_only_a_bound_is_said_to_be():
    """Three layers have nonzero cyclic blocks here, but what they do to W costs more than it gains.

    Σ = diag(3, 0, 0): outputs and inputs without a mode carry strings as well.
    """
    layers = [np.zeros(shape) for shape in ((3, 3), (2, 3), (3, 2), (2, 3), (3, 2))]
    layers[0][2, 2] = layers[1][1, 2] = layers[2][0, 0] = 1.0
    layers[3][0, 2] = layers[3][1, 1] = layers[4][1, 1] = layers[4][2, 0] = 1.0
    net = dl.LinearNetwork(widths=(3, 3, 2, 3, 2, 3), target=np.diag([3.0, 0.0, 0.0]))
    x = net.pack(layers)
    assert not net.gradient(x).any()
    point = dl.classify(net, x)
    assert (int(point.order_of_descent), int(point.order_is_exact)) == (3, 0)
    falls = lowest_in_balls(net, x, [0.1, 0.05, 0.025], np.random.default_rng(0))
    assert np.log2(falls[1] / falls[2]) == pytest.approx(4.0, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_the_loss_falls_with_the_stated_power_at_many_points(first):
    check_order(range(first, first + 100))


# Tolerances.


@pytest.mark.parametrize("gap", [1e-6, 1e-8])
def test_singular_values_that_differ_in_eight_digits_are_different(gap):
    """A_{1} is left along the rotation towards mode 0, at the rate s_1^{h−2} (σ_0 − σ_1)."""
    net = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag([1.0 + gap, 1.0, 0.5]))
    x = net.critical_state((1,))
    point = dl.classify(net, x)
    assert (word(point.kind), int(point.ambiguous)) == ("strict_saddle", 0)
    lowest = np.linalg.eigvalsh(net.hessian(x))
    assert np.isclose(lowest, -gap, rtol=1e-3).any()
    deep = dl.LinearNetwork(widths=(3, 3, 3, 3), target=net.target)
    kinds = dl.schema.decode(dl.critical_points(deep).kind)
    assert kinds.sel(critical_point="{0}").item() == "nonstrict_saddle"
    assert kinds.sel(critical_point="{1}").item() == "strict_saddle"
    assert int(dl.linearize(deep, deep.critical_state((1,)))["index"]) == 1


@pytest.mark.parametrize("part", [0.9, 0.99, 1.1])
def test_a_weak_mode_that_is_not_quite_learnt_is_not_critical(part):
    """Its gradient is small beside the others, but it is on the way from one map to another."""
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([1.0, 1e-5]))
    near = net.pack([np.diag([1.0, np.sqrt(part * 1e-5)])] * 2)
    point = dl.classify(net, near)
    assert word(point.kind) == "not_critical"
    assert point.mode_residual == pytest.approx(abs(1.0 - part), rel=1e-9)
    assert point.relative_gradient < 1e-3
    there = net.pack([np.diag([1.0, np.sqrt(1e-5)])] * 2)
    assert word(dl.classify(net, there).kind) == "global_minimum"


# Changes of bases.


@given(st.integers(-40, 40), st.integers(2, 5), naive.seeds)
def test_a_power_of_two_in_a_hidden_layer_changes_no_answer(power, depth, seed):
    """P_i = 2^k I changes no digit of any product of layers from end to end."""
    rng = np.random.default_rng(seed)
    net = naive.random_network((2,) * (depth + 1), seed)
    x = dl.random_fiber_state(net, range(int(rng.integers(2))), rng=rng)
    i, layers = int(rng.integers(depth - 1)), list(net.unpack(x))
    layers[i], layers[i + 1] = 2.0**power * layers[i], 2.0**-power * layers[i + 1]
    y = net.pack(layers)
    here, there = (dl.classify(net, state) for state in (x, y))
    assert word(here.kind) == word(there.kind) != "not_critical"
    assert here.order_of_descent.equals(there.order_of_descent)
    for function in (dl.linearize, dl.inertia):
        first, second = (function(net, state) for state in (x, y))
        assert int(first["index"]) == int(second["index"])
        assert int(first.nullity) == int(second.nullity)
    first, second = (dl.fiber_dimension(net, state) for state in (x, y))
    assert first.equals(second)
    assert dl.canonicalize(net, y).critical_point == here.critical_point


def test_canonical_forms_are_as_exact_as_their_error_says():
    """P·x has the learnt layers up to this; where bases are ill-conditioned that is not little."""
    for seed in range(25):
        p = points.random_point(seed, condition=1e4)
        if p.net.depth < 2 or not dl.classify(p.net, p.x).kind_is_clear:
            continue
        canon = dl.canonicalize(p.net, p.x)
        dl.schema.validate(canon)
        moved, rank = p.net.unpack(canon.moved_state), len(p.modes)
        misses = [np.linalg.norm(w[:rank, rank:]) for w in moved[1:-1]]
        misses += [np.linalg.norm(w[rank:, :rank]) for w in moved[1:-1]]
        misses += [
            np.linalg.norm((w - a)[:rank, :rank])
            for w, a in zip(moved[1:-1], p.net.unpack(canon.state)[1:-1], strict=True)
        ]
        assert max(misses, default=0.0) <= canon.error
        W = p.net.product(canon.moved_state) @ naive.root(p.net)
        known = p.net.image(p.net.critical_state(p.modes))
        if not canon.ambiguous:
            size = np.prod([1.0 + np.linalg.norm(w) for w in moved])
            assert np.linalg.norm(W - known) <= (4.0 * canon.error + 1e-11) * size


# Rounding where terms cancel.


def test_rounding_of_a_hessian_that_vanishes_is_no_index():
    """At most points over {} of four layers of two units no term of the Hessian is left."""
    net, saddles = naive.random_network((2,) * 5, 0), 0
    for seed in range(60):
        x = dl.random_fiber_state(net, (), rng=seed)
        strict = word(dl.classify(net, x).kind) == "strict_saddle"
        saddles += not strict
        for function in (dl.linearize, dl.inertia):
            assert (int(function(net, x)["index"]) > 0) == strict
    assert saddles > 10


@pytest.mark.parametrize("form", ["loss", "homogeneous"])
def test_rounding_is_no_index_in_other_clothes(form):
    """The same of networks whose Hessian nobody knows: the terms that it sums have a size."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 9))
    Y = rng.normal(size=(2, 2)) @ X
    linear = dl.LinearNetwork.from_data(X, Y, hidden=(2, 2, 2), whiten=False)
    if form == "loss":
        net = dl.LossNetwork((2,) * 5, dl.losses.power(X, Y, power=2.0))
    else:
        net = dl.HomogeneousNetwork((2,) * 5, X, Y, power=1, slope=1.0)
    saddles = 0
    for seed in range(60):
        x = dl.random_fiber_state(linear, (), rng=seed)
        strict = word(dl.classify(linear, x).kind) == "strict_saddle"
        saddles += not strict
        for function in (dl.linearize, dl.inertia):
            assert (int(function(net, x)["index"]) > 0) == strict
    assert saddles > 10


def test_raw_inputs_make_no_index_at_a_global_minimum():
    """K has the condition 1.4e4 here."""
    rng = np.random.default_rng(1)
    K = np.diag([1e4, 1.0, 0.7]) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    net = dl.LinearNetwork(widths=(3, 4, 3), target=rng.normal(size=(3, 3)), input_root=K)
    for seed in range(5):
        x = naive.change_bases(net, net.critical_state((0, 1, 2)), seed, 0.5)
        for found in (dl.linearize(net, x, method="dense"), dl.inertia(net, x)):
            assert int(found["index"]) == 0
            assert int(found.nullity) == net.dim - 9


# States that are only nearly critical.


def end_of_run(seed):
    """A random network, and its run from a random start until it says that it is over."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 6, size=rng.integers(2, 6)).tolist()
    rank = [None, None, 1, 2][rng.integers(4)]
    net = naive.random_network(widths, seed, naive.KINDS[seed % 3], rank)
    return net, dl.flow(net, net.initial(scale=[0.1, 0.5, 1.0][seed % 3], rng=seed))


def check_ends(seeds):
    for seed in seeds:
        net, run = end_of_run(seed)
        limit = word(run.limit_kind)
        for x in (run.isel(time=-1), run.state[-1]):
            found = dl.classify(net, x)
            assert limit == "global_minimum" == word(found.kind), seed
            assert found.kind_is_clear, seed


@pytest.mark.compiled
def test_the_end_of_a_run_is_what_the_run_says():
    check_ends(range(12))


@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_run_that_is_over_has_learnt_each_mode_in_terms_of_its_size(seed):
    """σ_2 = 1e-6 σ_1 is no rounding of σ_1: W is 1 in mode 1 and 1e-6 in mode 2, to 1e-3."""
    net = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([1.0, 1e-6]))
    run = dl.flow(net, net.initial(scale=1e-3, rng=seed))
    first, second = net.unpack(run.state.values[-1])
    assert word(run.limit_kind) == "global_minimum"
    np.testing.assert_allclose(np.diag(second @ first), [1.0, 1e-6], rtol=1e-3)
    assert word(dl.classify(net, run.isel(time=-1)).kind) == "global_minimum"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 1000, 50))
def test_the_ends_of_a_thousand_runs_are_what_the_runs_say(first):
    check_ends(range(first, first + 50))


@pytest.mark.compiled
def test_runs_at_a_bottleneck_end_at_minima():
    net = naive.random_network((10, 20, 5, 20, 10), 0)
    run = dl.flow(net, net.initial(scale=0.3, rng=1))
    assert word(run.limit_kind) == word(dl.classify(net, run.isel(time=-1)).kind)
    assert word(dl.classify(net, run.state[-1]).kind) == "global_minimum"


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_what_newton_finds_beside_a_saddle_is_classified(depth):
    """Where units are degenerate they are known to a root of rounding only, as ``error`` says."""
    for seed in range(3):
        net = naive.random_network((3,) * (depth + 1), seed)
        start = net.critical_state((0,)) + naive.state_of(net, seed, 1e-3)
        point = dl.find_critical_point(net, start)
        found, H = dl.classify(net, point), net.hessian(point.state)
        assert found.critical_point.item() == point.attrs["limit"] == "{0}"
        # The Hessian changes by this from the state to the critical point near by.
        change = 10.0 * np.linalg.norm(H, 2) * float(point.error / np.linalg.norm(point.state))
        lowest = np.linalg.eigvalsh(H)[0] / max(change, 1e-12)
        if found.kind_is_clear:
            assert lowest < -0.01 if word(found.kind) == "strict_saddle" else lowest > -1.0
        assert word(dl.classify(net, point.state).kind) != "not_critical"


def test_whole_runs_and_those_of_other_networks_are_refused():
    net = naive.random_network((2, 3, 2), 0)
    run = dl.flow(net, net.initial(scale=0.5, rng=0), t_span=(0, 1))
    with pytest.raises(ValueError, match=r"^x: needs one row of a run, such as x.isel\(time=-1\)"):
        dl.classify(net, run)
    with pytest.raises(ValueError, match="^x: belongs to another network"):
        dl.classify(naive.random_network((2, 3, 2), 1), run.isel(time=-1))
    with pytest.raises(TypeError, match="^x: needs a Dataset of the schema"):
        dl.classify(net, dl.critical_points(net))


@pytest.mark.parametrize("size", [1e-30, 1e-80, 1e-120, 1e-200, 1e-300])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_small_weights_are_as_far_from_critical_in_any_unit(depth, size):
    """W_i = c 11ᵀ = 2c vvᵀ: ∇_1 is −(2c)^{h−1} vvᵀΣ but for what W has, and ‖Σv‖ = √(5/2)."""
    net = dl.LinearNetwork((2,) * (depth + 1), np.diag([2.0, 1.0]))
    point = dl.classify(net, size * np.ones(net.dim))
    assert word(point.kind) == "not_critical"
    assert float(point.relative_gradient) == pytest.approx(np.sqrt(2.5) / 2.0, rel=1e-12)


def test_what_is_told_of_critical_points_is_there_for_other_states_too():
    net = dl.LinearNetwork((2, 2, 2, 2), np.diag([2.0, 1.0]))
    moving, still = (dl.classify(net, x) for x in (np.ones(net.dim), np.zeros(net.dim)))
    assert (word(moving.kind), word(still.kind)) == ("not_critical", "nonstrict_saddle")
    assert (int(moving.ranks_are_clear), int(still.ranks_are_clear)) == (0, 1)
    assert np.isnan(moving.decision_gap)
    pairs = {"earlier", "later", "between_rank", "complementary_rank", "tightened_pair"}
    assert set(still.variables) - set(moving.variables) == pairs


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("widths", "sigma"),
    [
        ((2, 1, 2, 2), [2.0, 1.0]),
        ((3, 2, 3), [2.0, 1.5, 1.5]),
        ((3, 2, 2, 3), [2.0, 2.0, 2.0]),
        ((3, 1, 3), [2.0, 1.9, 0.1]),
        ((2, 2), [2.0, 1.0]),
        ((3, 4, 3), [2.0, 1.5, 0.5]),
    ],
)
def test_any_state_has_the_name_of_a_critical_point_that_there_is(widths, sigma, decay):
    """Limits, classifications and visits: no more modes than the narrowest width, all of one layer.

    Without decay it is the point whose map is nearest, if singular values differ.
    """
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    net, rng = dl.LinearNetwork(widths, target, weight_decay=decay), np.random.default_rng(0)
    table = dl.critical_points(net)
    names = table.critical_point.values.tolist()
    maps = [np.diag(np.where(row, sigma, 0.0)) for row in table.learnt.values]
    for k in range(30):
        x = net.initial(scale=10.0 ** rng.uniform(-1.0, 0.5), rng=rng)
        if k % 2:
            x = net.pack([w + (0.5 if k % 3 else 0.8 * np.eye(*w.shape)) for w in net.unpack(x)])
        run = dl.flow(net, x, (0.0, 0.2))
        point = dl.classify(net, x).critical_point.item()
        assert {run.limit, point} <= {*names}
        assert {*dl.saddle_visits(net, run, radius=0.5).critical_point.values} <= {*names}
        if not decay and len({*sigma}) == len(sigma):
            lacks = [np.linalg.norm(net.product(x) - P) for P in maps]
            assert point == names[int(np.argmin(lacks))]
            ends = [np.linalg.norm(net.product(run.state.values[-1]) - P) for P in maps]
            assert run.limit == names[int(np.argmin(ends))]
