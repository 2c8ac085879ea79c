"""Tables of critical points under weight decay, against gradients and dense Hessians."""

import math

import numpy as np
import pytest

import dlnds as dl
from dlnds.theory import names

CASES = [
    ((2, 2), [2.0, 1.0]),
    ((2, 3, 2), [2.0, 1.0]),
    ((3, 2, 4), [2.0, 1.2, 0.7]),
    ((4, 3, 3), [3.0, 1.5, 0.5]),
    ((2, 3, 4, 2), [2.0, 1.2]),
    ((3, 2, 3, 4), [2.0, 2.0, 1.2]),
    ((3, 4, 3, 3), [2.0, 1.5, 1.0]),
    ((3, 4, 3, 4, 2), [2.0, 1.0]),
    ((2, 3, 3, 4, 3, 3), [2.5, 2.5]),
]


def network(widths, sigma, decay):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths, target, weight_decay=decay)


def state_of(net, row):
    modes = np.flatnonzero(row.learnt.values)
    branch = ["lower" if f"{j}⁻" in row.critical_point.item() else "upper" for j in modes]
    return net.critical_state(modes.tolist(), branch=branch)


def rows(points):
    return (points.isel(critical_point=i) for i in range(points.sizes["critical_point"]))


@pytest.mark.parametrize("decay", [0.05, 0.3, 0.8])
@pytest.mark.parametrize(("widths", "sigma"), CASES)
def test_rows_are_what_matrices_say(widths, sigma, decay):
    net = network(widths, sigma, decay)
    points = dl.critical_points(net)
    kinds = dl.schema.decode(points.kind).values
    least = points.loss.values.min()
    for row, kind in zip(rows(points), kinds, strict=True):
        x = state_of(net, row)
        values = np.linalg.eigvalsh(net.hessian(x))
        size = np.abs(values).max()
        assert np.linalg.norm(net.gradient(x)) < 1e-13 * size * max(1.0, np.linalg.norm(x))
        assert int(row["index"]) == np.sum(values < -1e-11 * size)
        assert abs(float(row.loss) - float(net.loss(x))) <= 1e-13 * sum(np.square(sigma))
        assert int(row["rank"]) == np.sum(row.learnt.values)
        for w in net.unpack(x):
            singular = np.linalg.svd(w, compute_uv=False)
            top = np.sort(row["size"].values)[::-1][: len(singular)]
            np.testing.assert_allclose(singular[: len(top)], top, rtol=0, atol=1e-14 * size)
        minimum = not np.any(values < -1e-11 * size)
        assert (kind in ("minimum", "global_minimum")) == minimum
        assert (kind == "global_minimum") == (minimum and float(row.loss) <= least + 1e-13)
        if net.depth > 2:  # the strongest modes, however many, all on their larger roots
            learnt, strengths = row.learnt.values.astype(bool), net.singular_values
            ranked = strengths[learnt].min(initial=np.inf) >= strengths[~learnt].max(initial=0.0)
            assert minimum == (ranked and "⁻" not in row.critical_point.item())
    assert "global_minimum" in kinds


def fold_of(sigma, depth):
    """The largest λ = s^{h−2} (σ − s^h), at s^h = (h − 2) σ/(2h − 2), and this s."""
    s = ((depth - 2) * sigma / (2 * depth - 2)) ** (1 / depth)
    return s ** (depth - 2) * (sigma - s**depth), s


@pytest.mark.parametrize("depth", [3, 4, 6])
@pytest.mark.parametrize("mode", [0, 1])
def test_a_double_root_is_one_point_where_the_loss_falls_to_third_order(depth, mode):
    sigma = [2.0, 1.5]
    decay, size = fold_of(sigma[mode], depth)
    net = network((2,) * (depth + 1), sigma, decay)
    points = dl.critical_points(net)
    others = ["{}"] if mode == 0 else ["{}", "{0⁺}", "{0⁻}"]
    both = [f"{{{mode}}}"] if mode == 0 else ["{1}", "{0⁺,1}", "{0⁻,1}"]
    assert sorted(points.critical_point.values.tolist()) == sorted(others + both)
    assert points.most_decay.values[mode] == pytest.approx(decay, rel=1e-14)
    kinds = dl.schema.decode(points.kind)
    for label in others + both:
        row = points.sel(critical_point=label)
        x = state_of(net, row)
        values = np.linalg.eigvalsh(net.hessian(x))
        zeros = np.abs(values) <= 1e-9 * np.abs(values).max()
        turns = np.linalg.matrix_rank(net.generators(x), tol=1e-9)
        assert int(row.degenerate) == (label in both) == (zeros.sum() > turns)
        if kinds.sel(critical_point=label).item() == "nonstrict_saddle":
            assert not (values < -1e-9 * np.abs(values).max()).any()
            away, losses = x / np.linalg.norm(x), []  # one layer as all, in the mode
            for step in (2e-3, 1e-3, -1e-3, -2e-3):
                losses.append(float(net.loss(x + step * away) - net.loss(x)))
            assert losses[0] > losses[1] > 0.0 > losses[2] > losses[3] or mode == 1
            if mode == 0:
                assert losses[3] / losses[2] == pytest.approx(8.0, rel=0.02)
    row = points.sel(critical_point=both[0])
    assert float(row["size"][mode]) == pytest.approx(size, rel=1e-14)


def test_near_a_fold_there_are_two_roots_or_none_and_no_more_than_it_keeps_apart():
    decay, _ = fold_of(2.0, 3)
    for part, labels in ((-1e-9, ["{}", "{0⁺}", "{0⁻}"]), (0.0, ["{}", "{0}"]), (1e-9, ["{}"])):
        points = dl.critical_points(network((1, 1, 1, 1), [2.0], decay * (1.0 + part)))
        assert points.critical_point.values.tolist() == labels
        assert bool(points.degenerate.any()) == (part == 0.0)
    diagram = dl.decay_diagram(network((1, 1, 1, 1), [2.0], 0.0), (0.5 * decay, decay), n_points=2)
    ends = diagram["size"].sel(mode=0).values[:, -1]
    assert ends[1] == ends[2] > 0.0
    beyond = dl.decay_diagram(network((1, 1, 1, 1), [2.0], 0.0), (decay, 2 * decay), n_points=2)
    assert beyond.branch.values.tolist() == diagram.branch.values.tolist()
    np.testing.assert_array_equal(beyond["size"].sel(mode=0).values[:, 0], ends)
    assert np.isnan(beyond["size"].sel(mode=0).values[1:, 1]).all()
    pitchfork = dl.critical_points(network((2, 2, 2), [2.0, 1.0], 1.0))
    assert pitchfork.critical_point.values.tolist() == ["{}", "{0}"]
    assert pitchfork.degenerate.values.tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decay", [0.05, 0.4, 0.7])
def test_no_descent_ends_below_the_global_minimum(seed, decay):
    net = network((2, 3, 3, 2), [2.0, 1.2], decay)
    points = dl.critical_points(net)
    # No rate at a minimum is below λ, so that loss above it falls at least like e^{−2λt}.
    run = dl.flow(net, net.initial(scale=1.0, rng=seed), (0.0, 20.0 / decay))
    end = float(run["loss"].values[-1])
    minima = np.isin(dl.schema.decode(points.kind), ("minimum", "global_minimum"))
    assert end >= points.loss.values.min() - 1e-12
    assert np.abs(points.loss.values[minima] - end).min() < 1e-9


@pytest.mark.parametrize("modes", [1, 2, 4])
def test_counts_are_those_of_the_roots(modes):
    sigma = np.linspace(3.0, 2.0, modes)
    for depth, base in ((2, 2), (3, 3), (4, 3)):
        net = network((modes,) * (depth + 1), sigma, 0.1)
        points = dl.critical_points(net)
        assert points.sizes["critical_point"] == base**modes
        assert len(set(points.critical_point.values.tolist())) == base**modes
        assert dl.critical_points(net, max_rank=1).sizes["critical_point"] == 1 + modes * (base - 1)
        assert dl.critical_points(net, modes=(0,)).sizes["critical_point"] == base
    above = network((2, 2, 2), [2.0, 1.0], 1.5)
    assert dl.critical_points(above).critical_point.values.tolist() == ["{}", "{0}"]


@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 3, 4, 2), (3, 4, 3, 4, 2)])
def test_points_have_the_names_of_branches(widths):
    net = network(widths, [2.0, 1.2], 0.2)
    for row in rows(dl.critical_points(net)):
        layers = net.unpack(state_of(net, row))
        name = names.decayed(net.problem, layers, 0.2, net.depth)
        assert str(name) == row.critical_point.item()


@pytest.mark.parametrize(("widths", "sigma"), CASES)
def test_diagrams_have_the_rows_of_tables(widths, sigma):
    net = network(widths, sigma, 0.0)
    found = dl.decay_diagram(net, (0.0, 2.4), n_points=9)
    seen = set()
    for decay in found.weight_decay.values[1:].tolist():
        points = dl.critical_points(network(widths, sigma, decay))
        at, labels = found.sel(weight_decay=decay), points.critical_point.values
        here = at.branch.values[~np.isnan(at.loss.values)]
        assert here.tolist() == labels.tolist()
        there = at.sel(branch=labels)
        for name in ("loss", "size", "index", "kind"):
            np.testing.assert_array_equal(there[name], points[name])
        gone = at["index"].values == -1
        assert np.array_equal(gone, np.isnan(at.loss.values))
        seen |= set(labels.tolist())
    assert seen <= set(found.branch.values.tolist())
    bare, plain = found.isel(weight_decay=0), dl.critical_points(net)
    here = ~np.isnan(bare.loss.values)
    np.testing.assert_allclose(bare.loss[here], plain.loss, rtol=0, atol=1e-14)
    kinds = dl.schema.decode(bare.kind).values[here]
    assert kinds.tolist() == dl.schema.decode(plain.kind).values.tolist()


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_branches_end_where_the_diagram_says(depth):
    net = network((2,) * (depth + 1), [2.0, 1.0], 0.0)
    for mode, most in enumerate(dl.decay_diagram(net, n_points=2).most_decay.values):
        found = dl.decay_diagram(net, (most * (1 - 1e-9), most * (1 + 1e-9)), n_points=2)
        for label in (f"{{{mode}⁺}}", f"{{{mode}⁻}}") if depth > 2 else (f"{{{mode}}}",):
            assert np.isnan(found.loss.sel(branch=label)).values.tolist() == [False, True]
            size = found["size"].sel(branch=label, mode=mode).values[0]
            sigma = float(net.singular_values[mode])
            fold = ((depth - 2) * sigma / (2 * depth - 2)) ** (1 / depth)
            assert abs(size - fold) < 1e-3 * sigma


def test_too_many_and_others_are_refused():
    wide = network((20,) * 4, np.linspace(3.0, 2.0, 20), 0.01)
    with pytest.raises(ValueError, match=f"^max_rank: there are {3**20:,}") as error:
        dl.critical_points(wide)
    fits = sum(math.comb(20, r) * 2**r for r in range(5))
    assert f"max_rank = 4 gives {fits:,}" in str(error.value)
    with pytest.raises(ValueError, match="^max_rank: there are"):
        dl.decay_diagram(wide)
    several = dl.LinearNetwork((2, 2, 2), np.eye(2), weight_decay=(0.1, 0.2))
    with pytest.raises(ValueError, match="^net: "):
        dl.critical_points(several)
    with pytest.raises(ValueError, match="^net: "):
        dl.build_atlas(network((2, 2, 2), [2.0, 1.0], 0.1))
    for bounds in ((-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.0, 1.0, 2.0)):
        with pytest.raises(ValueError, match="^bounds: ") as error:
            dl.decay_diagram(several, bounds)
        assert "np." not in str(error.value)
    with pytest.raises(ValueError, match="^branch: 'lower' needs three layers or more, got 2"):
        network((2, 2, 2), [2.0, 1.0], 0.1).critical_state((0,), branch="lower")
    with pytest.raises(ValueError, match="^modes: mode 1 has no lower root from a weight decay of"):
        network((2, 2, 2, 2), [2.0, 1.0], 0.5).critical_state((1,), branch="lower")
    data = dl.LinearNetwork((2, 2, 2), np.eye(2), np.diag([2.0, 1.0]))
    with pytest.raises(ValueError, match="^net: "):
        dl.decay_diagram(data)


def turned(net, x, rng):
    """The same point with other bases of hidden units."""
    group = [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in net.widths[1:-1]]
    return dl.act(net.undecayed(), group, x) if group else x


@pytest.mark.parametrize("decay", [0.05, 0.3, 0.8])
@pytest.mark.parametrize(("widths", "sigma"), CASES)
def test_states_are_classified_as_the_rows_of_the_table(widths, sigma, decay):
    net, rng = network(widths, sigma, decay), np.random.default_rng(0)
    points = dl.critical_points(net)
    least = float(points.loss.min())
    for row in rows(points.isel(critical_point=slice(None, None, 3))):
        exact = turned(net, state_of(net, row), rng)
        near = exact + 1e-7 * rng.normal(size=net.dim)
        alone = len(set(sigma)) == len(sigma)
        for x in (exact, near):
            found = dl.classify(net, x)
            assert dl.schema.decode(found.kind).item() == dl.schema.decode(row.kind).item()
            assert int(found["index"]) == int(row["index"])
            assert int(found["rank"]) == int(row["rank"])
            if alone:
                assert found.critical_point.item() == row.critical_point.item()
                np.testing.assert_array_equal(found.learnt, row.learnt)
                assert int(found.ambiguous) == 0
            assert sorted(found["size"].values) == pytest.approx(sorted(row["size"].values))
            assert abs(float(found.excess) - (float(row.loss) - least)) < 1e-12
            assert int(found.kind_is_clear) == 1
            index = int(found["index"])
            assert int(found.order_of_descent) == (2 if index else 0)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_ends_of_runs_under_decay_are_minima_of_the_table(depth):
    net = network((2, *[3] * (depth - 1), 2), [2.0, 1.2], 0.35)
    points = dl.critical_points(net)
    seen = set()
    for seed in range(6):
        run = dl.flow(net, net.initial(scale=0.4 + 0.2 * seed, rng=seed), (0.0, 120.0))
        found = dl.classify(net, run.isel(time=-1))
        row = points.sel(critical_point=found.critical_point.item())
        assert found.kind.item() == row.kind.item()
        assert dl.schema.decode(found.kind).item() in ("minimum", "global_minimum")
        assert found.critical_point.item() == run.limit
        seen.add(found.critical_point.item())
        away = dl.classify(net, run.isel(time=1))
        assert dl.schema.decode(away.kind).item() == "not_critical"
        assert not {"index", "size"} & {*away.variables}
    assert len(seen) > (depth > 2)  # for three layers and more some modes die


def test_points_with_other_decays_of_layers_are_those_of_the_mean():
    """The index is that of the Hessian, whose eigenvalues are others."""
    decays, rng = (0.1, 0.9, 0.3), np.random.default_rng(1)
    mean = float(np.prod(decays) ** (1.0 / 3.0))
    alike = network((2, 3, 3, 2), [2.0, 1.2], mean)
    net = dl.LinearNetwork((2, 3, 3, 2), alike.target, weight_decay=decays)
    for row in rows(dl.critical_points(alike)):
        layers = alike.unpack(turned(alike, state_of(alike, row), rng))
        x = net.pack([w * np.sqrt(mean / c) for c, w in zip(decays, layers, strict=True)])
        assert np.linalg.norm(net.gradient(x)) < 1e-13
        found = dl.classify(net, x)
        assert found.critical_point.item() == row.critical_point.item()
        assert found.kind.item() == row.kind.item()
        values = np.linalg.eigvalsh(net.hessian(x))
        assert int(found["index"]) == np.sum(values < -1e-10) == int(row["index"])
        np.testing.assert_allclose(found["size"], row["size"], rtol=1e-12)


def test_at_a_fold_nothing_is_decided_and_near_it_nothing_is_clear():
    sigma, top = 2.0, (2.0 / 4.0) ** (1.0 / 3.0)
    most = top * (sigma - top**3)
    net = dl.LinearNetwork((1, 1, 1, 1), [[sigma]], weight_decay=most)
    found = dl.classify(net, [top] * 3)
    assert (dl.schema.decode(found.kind).item(), int(found.kind_is_clear)) == ("undecided", 0)
    assert int(found.order_is_exact) == 0
    near = dl.LinearNetwork((1, 1, 1, 1), [[sigma]], weight_decay=most * (1 - 1e-7))
    run = dl.classify(near, [top] * 3)  # half way between two roots
    assert int(run.kind_is_clear) == 0
    beyond = dl.LinearNetwork((1, 1, 1, 1), [[sigma]], weight_decay=most * (1 + 1e-4))
    ghost = dl.classify(beyond, [top] * 3)  # a small gradient, and no point
    assert float(ghost.relative_gradient) < 1e-3
    assert dl.schema.decode(ghost.kind).item() == "not_critical"


DATA = np.random.default_rng(3)
X, Y = DATA.normal(size=(3, 12)), DATA.normal(size=(2, 12))
PLACES = ([0, 0, 1, 1], [0, 1, 1, 2])
OTHERS = {
    "raw": lambda h, c: dl.LinearNetwork.from_data(X, Y, (3,) * (h - 1), whiten=False, **c),
    "logistic": lambda h, c: dl.LossNetwork(
        (3, *(3,) * (h - 1), 2), dl.losses.logistic(X, np.sign(Y)), **c
    ),
    "completion": lambda h, c: dl.LossNetwork(
        (3, *(3,) * (h - 1), 2), dl.losses.completion((2, 3), *PLACES, [1.0, 2.0, 3.0, -1.0]), **c
    ),
}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", OTHERS)
def test_other_decayed_losses_are_classified_by_their_hessian(name, depth):
    net = OTHERS[name](depth, {"weight_decay": 0.02})
    starts = [net.initial(scale=0.7, rng=seed) for seed in range(4)]
    ends = [dl.flow(net, x, (0.0, 3000.0), rtol=1e-10).isel(time=-1) for x in starts]
    least = min(float(end.loss) for end in ends)
    for end in ends:
        found = dl.classify(net, end)
        kind = dl.schema.decode(found.kind).item()
        if depth < 3:
            assert kind == "global_minimum"
            assert float(end.loss) < least + 1e-9 * (1.0 + least)
        else:
            assert kind in ("minimum", "undecided")
        values = np.linalg.eigvalsh(net.hessian(end.state.values))
        assert int(found["index"]) == 0
        assert int(found["nullity"]) == np.sum(np.abs(values) < 1e-6 * values.max())
    if depth > 1:
        zero = dl.classify(net, np.zeros(net.dim))
        steep = np.linalg.norm(net.product(ends[0].state.values)) > 0.0
        kind = dl.schema.decode(zero.kind).item()
        assert kind == ("strict_saddle" if depth == 2 and steep else "minimum")
        assert int(zero["rank"]) == 0
    assert dl.schema.decode(dl.classify(net, starts[0]).kind).item() == "not_critical"


def test_a_second_minimum_is_not_called_global():
    """One hidden unit, diag(1, 2), the weight w of the zeros: W = diag(0, ·) is another minimum."""
    entries = dl.losses.completion((2, 2), [0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 2], [1, 5, 5, 1])
    net = dl.LossNetwork((2, 1, 2), entries, weight_decay=0.01)
    points = [dl.flow(net, x) for x in ([1.0, 0.1, 1.0, 0.1], [0.1, 1.0, 0.1, 1.0])]
    kinds = [dl.schema.decode(dl.classify(net, p.isel(time=-1)).kind).item() for p in points]
    assert float(points[0].loss[-1]) > float(points[1].loss[-1]) + 1.0
    assert kinds == ["minimum", "minimum"]  # of neither is it known: ‖∇ℓ‖ > λ


def test_classified_points_of_decay_are_named_where_they_are_refused():
    net = network((2, 3, 2), [2.0, 1.0], 0.1)
    with pytest.raises(ValueError, match="^x: "):
        dl.classify(net, np.ones(3))
    with pytest.raises(ValueError, match="^rtol: "):
        dl.classify(net, np.ones(net.dim), rtol=2.0)
    run = dl.flow(net.undecayed(), net.initial(rng=0), (0.0, 1.0))
    with pytest.raises(ValueError, match="^x: belongs to another network"):
        dl.classify(net, run.isel(time=-1))
    with pytest.raises(TypeError, match="^net: "):
        dl.classify(dl.HomogeneousNetwork((2, 3, 1), X[:2], Y[:1], weight_decay=0.1), np.ones(9))


@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 3, 2), (3, 2, 4)])
def test_a_pitchfork_counts_as_zero_whatever_rounding_makes_of_it(widths):
    # L = Σ_j [½ (σ_j − p_j)² + λ Σ_j |p_j|] at least, which is least at 0 where all σ_j ≤ λ.
    for decay in np.arange(3, 400, 3) / 100.0:
        net = network(widths, [decay] + [0.3 * decay] * (min(widths) - 1), decay)
        found = dl.classify(net, np.zeros(net.dim))
        assert dl.schema.decode(found.kind).item() == "global_minimum"
        assert int(found["index"]) == 0
        points = dl.critical_points(net)
        assert points.critical_point.values.tolist() == ["{}"] == [found.critical_point.item()]
        assert points["index"].values.tolist() == [0]
        # Visits are at points that there are: the mode has no root beside zero.
        assert not np.any(net.critical_strengths)


@pytest.mark.parametrize("depth", [2, 3])
def test_equal_decays_are_their_mean_to_the_last_digit(depth):
    for decay in np.arange(3, 400, 3) / 100.0:
        net = network((1,) * (depth + 1), [4.0], decay)
        points, found = dl.critical_points(net), dl.classify(net, np.zeros(net.dim))
        lowest = points.loss.values.min()
        assert net.mean_decay == decay
        assert net.lowest_loss == lowest
        assert found.loss.item() == points.loss.sel(critical_point="{}").item()


def zero_losses(depth, decay, size):
    """Networks whose observed values are all of this size: raw inputs, and entries of the map."""
    hidden, values = (2,) * (depth - 1), [size, size]
    data = np.random.default_rng(2).normal(size=(2, 6))
    yield dl.LinearNetwork.from_data(
        data, size * np.ones((2, 6)), hidden, whiten=False, weight_decay=decay
    )
    yield dl.LossNetwork(
        (2, *hidden, 2), dl.losses.completion((2, 2), [0, 1], [0, 1], values), weight_decay=decay
    )


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("decay", [0.1, 1e-6, (0.0, *[0.1] * 3)])
def test_where_all_that_is_observed_is_zero_the_origin_is_a_global_minimum(depth, decay):
    # L >= 0, and L = 0 there.
    for net in zero_losses(depth, decay if np.isscalar(decay) else decay[:depth], 0.0):
        found = dl.classify(net, np.zeros(net.dim))
        assert float(net.loss(np.zeros(net.dim))) == 0.0
        assert dl.schema.decode(found.kind).item() == "global_minimum"
        assert (int(found.kind_is_clear), int(found.order_of_descent)) == (1, 0)


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("name", [0, 1])
def test_an_origin_that_is_called_global_has_no_state_of_less_loss(depth, name):
    """Along −∇ℓ(0), with all layers of one size, the loss falls below ℓ(0) if λ is small."""
    said = []
    for decay in np.geomspace(0.01, 3.0, 12):
        net = list(zero_losses(depth, decay, 1.0))[name]
        origin = dl.classify(net, np.zeros(net.dim))
        kind = dl.schema.decode(origin.kind).item()
        frame = np.linalg.svd(net.criterion.gradient(np.zeros((2, 2))) if name else net.target)
        u, v = frame[0][:, 0], frame[2][0]
        sizes = np.linspace(0.0, 1.5, 301)
        rays = [np.outer(v, v)] * (depth - 1)
        sign = -1.0 if name else 1.0  # −∇ℓ is what the map grows along
        ray = net.pack([*rays, sign * np.outer(u, v)])
        losses = net.loss(sizes[:, None] * ray)
        lower = bool((losses < losses[0]).any())
        assert kind in ("minimum", "global_minimum")
        assert not (lower and kind == "global_minimum")
        said.append(kind)
    assert said[0] == "minimum"
    assert said[-1] == "global_minimum"


def test_what_is_refused_is_told_of_all_networks_that_are_allowed():
    net = dl.LinearNetwork((2, 2, 2), np.eye(2))
    for wrong in (dl.ProductFlow(net, 1), 3):
        with pytest.raises(TypeError, match="^net: needs a LinearNetwork or LossNetwork, got"):
            dl.classify(wrong, np.zeros(8))
