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
    assert "global_minimum" in kinds


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
        with pytest.raises(ValueError, match="^bounds: "):
            dl.decay_diagram(several, bounds)
    data = dl.LinearNetwork((2, 2, 2), np.eye(2), np.diag([2.0, 1.0]))
    with pytest.raises(ValueError, match="^net: "):
        dl.decay_diagram(data)
