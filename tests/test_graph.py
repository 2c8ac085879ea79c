"""The saddle-connection graph: edges by formula against the flow itself."""

import math

import naive
import numpy as np
import pytest
from scipy.special import ellipe, hyp2f1

import dlnds as dl


def network(widths, sigma):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths=widths, target=target)


NETWORKS = [
    ((3, 3, 3), (3.0, 2.0, 0.7)),
    ((3, 4, 2, 3), (3.0, 2.0, 0.7)),
    ((4, 4, 4, 4, 3), (2.0, 1.9, 0.1)),
    ((2, 2, 2, 2, 2, 2), (1.5, 0.2)),
]


@pytest.mark.parametrize(("widths", "sigma"), NETWORKS)
def test_edges_are_orbits_of_the_flow(widths, sigma):
    """At each sampled state the field points along the path, forwards, and the loss is exact."""
    net = network(widths, sigma)
    graph = dl.connections(net, n_points=201)
    dl.schema.validate(graph)
    for edge in range(graph.sizes["edge"]):
        path = dl.edge_states(graph, edge)
        dl.schema.validate(path)
        x = path.state.values
        np.testing.assert_allclose(path.loss, net.loss(x), rtol=0, atol=1e-13 * net.loss(0 * x[0]))
        assert (np.diff(path.loss) < 0).all()
        # Fourth-order differences of the path, by its parameter: error about (1/200)^4.
        tangent = (8.0 * (x[3:-1] - x[1:-3]) - (x[4:] - x[:-4])) / 12.0
        tangent /= np.linalg.norm(tangent, axis=1)[:, None]
        force = np.stack([naive.field(net, state) for state in x[2:-2]])
        along = np.sum(force * tangent, axis=1)
        across = np.linalg.norm(force - along[:, None] * tangent, axis=1)
        assert (along > 0.0).all()
        assert (across < 2e-4 * along).all()


@pytest.mark.parametrize(("widths", "sigma"), NETWORKS)
def test_edges_join_canonical_points_of_their_index_sets(widths, sigma):
    net = network(widths, sigma)
    graph = dl.connections(net)
    losses = dl.critical_points(net).loss
    for edge in range(graph.sizes["edge"]):
        row, path = graph.isel(edge=edge), dl.edge_states(graph, edge)
        ends = (row.source.item(), row.target.item())
        for state, label in zip(path.state.values[[0, -1]], ends, strict=True):
            point = dl.classify(net, state)
            assert point.critical_point.item() == label
            assert dl.schema.decode(point.kind) != "not_critical"
            assert np.abs(naive.field(net, state)).max() < 1e-13
        fall = losses.sel(critical_point=ends[0]) - losses.sel(critical_point=ends[1])
        assert float(row["drop"]) == pytest.approx(float(fall), rel=1e-12)


@pytest.mark.parametrize(("widths", "sigma"), NETWORKS)
def test_runs_from_the_local_manifold_follow_the_edges(widths, sigma):
    """Started at a small distance along the edge, a run takes the stated time and path."""
    net = network(widths, sigma)
    graph = dl.connections(net, scales=[1e-2], n_points=2001)
    for edge in range(0, graph.sizes["edge"], max(1, graph.sizes["edge"] // 6)):
        row, path = graph.isel(edge=edge), dl.edge_states(graph, edge).state.values
        distances = np.linalg.norm(path - path[0], axis=1)
        k = int(np.argmin(np.abs(distances - 1e-2)))
        near = dl.connections(net, scales=[float(distances[k])]).escape_time[edge].item()
        half = float(row.loss[0] - 0.5 * row["drop"])
        event = dl.events.loss_below(net, half)
        run = dl.flow(net, path[k], (0, 10 * near), rtol=1e-10, events=event)
        time = float(run.time.values[run["event"].values == 0][0])
        assert time == pytest.approx(near, rel=2e-2)
        inside = run.state.values[run.time.values <= time]
        gaps = [np.linalg.norm(path - x, axis=1).min() for x in inside]
        assert max(gaps) < 2e-3 * float(row.length)


def test_lengths_of_added_modes_and_of_swaps_in_two_layers():
    for depth in (2, 3, 5):
        graph = dl.connections(network((2,) * (depth + 1), (2.0, 0.9)))
        first = graph.sel(edge=(graph.source == "{}") & (graph.target == "{0}"))
        assert float(first.length[0]) == pytest.approx(np.sqrt(depth) * 2.0 ** (1 / depth))
        assert int(first.order[0]) == depth
    graph = dl.connections(network((2, 2, 2), (2.0, 0.9)))
    swap = graph.isel(edge=dl.schema.decode(graph.kind) == "swap")
    expected = np.sqrt(4.0) * ellipe(1.0 - 0.9 / 2.0)
    assert float(swap.length[0]) == pytest.approx(expected, rel=1e-13)
    assert float(swap.length[0]) == pytest.approx(2.65004899591646, rel=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_sizes_along_swaps_follow_the_formula_in_the_tangent(depth):
    """1/N = h/(2Δβ) (1+y)^{−h/2} ₂F₁(−h/2, β; β+1; −y), y = tan²φ."""
    low, high = 0.9, 2.0
    graph = dl.connections(network((2,) * (depth + 1), (high, low)), n_points=41)
    swap = graph.isel(edge=int(np.flatnonzero(dl.schema.decode(graph.kind) == "swap")[0]))
    phi, gap = swap.angle.values[:-1], high - low
    y, beta = np.tan(phi) ** 2, depth * low / (2.0 * gap)
    series = hyp2f1(-depth / 2.0, beta, beta + 1.0, -y)
    inverse = depth / (2.0 * gap * beta) * (1.0 + y) ** (-depth / 2.0) * series
    np.testing.assert_allclose(swap["size"].values[:-1] ** depth, 1.0 / inverse, rtol=1e-11)
    assert float(swap["size"][-1]) ** depth == pytest.approx(high, rel=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_departures_are_those_of_the_linearization(depth):
    net = network((3,) * (depth + 1), (3.0, 2.0, 0.7))
    graph = dl.connections(net)
    for edge in range(graph.sizes["edge"]):
        row = graph.isel(edge=edge)
        if int(row.order) > 2:
            assert dl.schema.decode(graph.kind)[edge] == "add"
            continue
        modes = dl.schema.index_set_modes(row.source.item())
        values = dl.canonical_spectrum(net, modes).eigenvalue.values
        assert np.abs(values + float(row.rate)).min() < 1e-12


def test_the_semantic_graph_has_all_its_edges_and_one_generic_path():
    net = dl.load_problem("semantic", hidden=(16, 16))
    graph = dl.connections(net)
    n = len(net.singular_values)
    kinds = dl.schema.decode(graph.kind).values
    assert (kinds == "add").sum() == n * 2 ** (n - 1)
    assert (kinds == "swap").sum() == math.comb(n, 2) * 2 ** (n - 2)
    assert graph.sizes["edge"] == 2816
    generic = graph.isel(edge=graph.is_generic.values == 1)
    labels = [dl.schema.index_set_label(range(r)) for r in range(n + 1)]
    assert generic.source.values.tolist() == labels[:-1]
    assert generic.target.values.tolist() == labels[1:]
    assert graph.nbytes < 5e6
    assert graph.identical(dl.connections(net))


def test_escape_times_grow_like_the_laws():
    """By ln(1/ε)/λ for order 2, and like ε^{−(h−2)} for order h ≥ 3."""
    graph = dl.connections(network((2, 2, 2, 2), (2.0, 0.9)), scales=[1e-4, 1e-6])
    slow, slower = graph.escape_time.values.T
    for k, kind in enumerate(dl.schema.decode(graph.kind).values):
        if kind == "swap":
            rate = float(graph.rate[k])
            assert slower[k] - slow[k] == pytest.approx(np.log(100.0) / rate, rel=1e-7)
        else:
            assert slower[k] / slow[k] == pytest.approx(100.0, rel=1e-3)


def test_equal_singular_values_make_families_and_no_swaps():
    graph = dl.connections(network((3, 3, 3), (2.0, 2.0, 1.0)))
    first = graph.isel(edge=graph.source.values == "{}")
    assert first.family_dimension.values.tolist() == [1, 1, 0]
    ends = set(zip(graph.source.values.tolist(), graph.target.values.tolist(), strict=True))
    assert ("{1}", "{0}") not in ends
    assert ("{2}", "{0}") in ends


def test_a_single_layer_has_no_connections():
    graph = dl.connections(network((2, 2), (2.0, 1.0)))
    assert graph.sizes["edge"] == 0
    dl.schema.validate(graph)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: dl.connections(net, scales=[0.0]), "^scales: needs positive"),
        (lambda net: dl.connections(net, n_points=1), "^n_points: needs at least 2"),
        (lambda net: dl.edge_states(dl.connections(net), 10**6), "^edge: needs at least 0"),
        (lambda net: dl.edge_states(dl.connections(net), ("{}", "{9}")), "^edge: there is none"),
        (lambda net: dl.edge_states(net, 0), "^graph: needs the Dataset"),
        (lambda net: dl.connections("net"), "^net: needs a LinearNetwork"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(network((2, 2, 2), (2.0, 1.0)))


def test_raw_inputs_are_refused():
    net = naive.random_network((2, 2, 2), 0, "full")
    with pytest.raises(ValueError, match="^net: needs a whitened network"):
        dl.connections(net)
