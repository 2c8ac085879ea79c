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
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl


def word(flag):
    return dl.schema.decode(flag).item()


def told(p):
    """What is found of a point, what it is, and whether it is called clear: by function."""
    kind, spectrum = dl.classify(p.net, p.x), dl.linearize(p.net, p.x)
    counts, fiber = dl.inertia(p.net, p.x), dl.fiber_dimension(p.net, p.x)
    both = p.index, p.nullity
    yield "kind", word(kind.kind), p.kind, kind.kind_is_clear
    yield "order", int(kind.order_of_descent) == 2, p.kind == "strict_saddle", kind.kind_is_clear
    found = int(spectrum["index"]), int(spectrum.nullity)
    yield "spectrum", found, both, spectrum.attrs["is_clear"]
    found = int(counts["index"]), int(counts.nullity)
    yield "inertia", found, both, counts.attrs["is_clear"]
    found = int(fiber.orbit_dimension), int(fiber.nullity)
    yield "fiber", found, (p.orbit, p.nullity), fiber.is_clear


def check(seeds, condition, unclear):
    """No answer is wrong; at most this part of them is not right and clear."""
    count, doubts = 0, Counter()
    for seed in seeds:
        p, count = points.random_point(seed, condition=condition), count + 1
        if dl.classify(p.net, p.x).mode_residual > 1e-3:  # lost in rounding
            assert not dl.classify(p.net, p.x).kind_is_clear, seed
            doubts.update(["kind"])
            continue
        for name, found, known, clear in told(p):
            assert found == known or not clear, (seed, name, found, known)
            doubts[name] += not (found == known and clear)
    assert max(doubts.values(), default=0) <= unclear * count, doubts


def test_no_answer_about_a_critical_point_is_wrong():
    check(range(30), 1e6, 0.2)
    check(range(1000, 1030), 1e3, 0.05)
    check(range(2000, 2030), 1.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 20_000, 500))
def test_no_answer_about_twenty_thousand_critical_points_is_wrong(first):
    check(range(first, first + 500), [1.0, 1e3, 1e6, 1e6][first // 500 % 4], 0.15)


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


# Rounding where terms cancel.


@pytest.mark.parametrize("depth", [3, 4])
def test_rounding_of_a_hessian_that_vanishes_is_no_index(depth):
    """Points over {} with so few nonzero Z blocks that no term of the Hessian is left."""
    net = naive.random_network((2,) * (depth + 1), 0)
    left, right = np.random.default_rng(0).normal(size=(2, depth, 2))
    saddles = 0
    for one, other in itertools.combinations(range(depth), 2):
        layers = [np.outer(a, b) for a, b in zip(left, right, strict=True)]
        layers[one], layers[other] = np.zeros((2, 2)), np.zeros((2, 2))
        if other == one + 1:
            layers[one - 1] = layers[one - 1] * (one == 0)
        x = naive.change_bases(net, net.pack(layers), 1, 0.3)
        if word(dl.classify(net, x).kind) == "nonstrict_saddle":
            saddles += 1
            for function in (dl.linearize, dl.inertia):
                assert int(function(net, x)["index"]) == 0
    assert saddles or depth == 3


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
