"""The saddle-connection graph: edges by formula against the flow itself."""

import math
from itertools import combinations, pairwise, permutations

import naive
import numpy as np
import pytest
from scipy.integrate import simpson, solve_ivp
from scipy.special import ellipe, hyp2f1

import dlnds as dl
from dlnds.theory.laws import orbit_time


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


def test_escape_times_do_not_depend_on_the_other_scales_asked_for():
    """All scales share the pieces of one integral; far out its integrand is constant."""
    net, scales = network((2, 2, 2, 2), (2.0, 0.9)), [0.3, 1e-3, 1e-12, 1e-40]
    together = dl.connections(net, scales=scales).escape_time.values
    alone = np.column_stack([dl.connections(net, scales=[s]).escape_time.values for s in scales])
    np.testing.assert_allclose(together, alone, rtol=1e-13)
    swap = dl.connections(net, scales=scales)
    swap = swap.isel(edge=int(np.flatnonzero(dl.schema.decode(swap.kind) == "swap")[0]))
    grown = np.diff(swap.escape_time.values) * float(swap.rate)
    np.testing.assert_allclose(grown[1:], np.log([1e9, 1e28]), rtol=1e-6)


def test_strengths_of_modes_tell_the_time_along_an_edge():
    """At two layers tan²φ σ_i/σ_j is a logistic curve with twice the rate; NaN off the edge."""
    sigma = np.array([2.0, 0.9])
    start, end = np.array([0.001, 0.7]) * sigma[0]
    odds = np.log(np.array([start, end]) / (sigma[0] - np.array([start, end])))
    time = orbit_time(sigma, 1, 0, 2, start, end)
    assert time == pytest.approx((odds[1] - odds[0]) / (2 * 1.1), rel=1e-12)
    assert orbit_time(sigma, 1, 0, 2, end, start) == pytest.approx(-time, rel=1e-12)
    far = orbit_time(sigma, 1, 0, 3, 1e-60, 1e-20)
    assert far == pytest.approx(np.log(1e40) / (2 * 0.9 ** (1 / 3) * 1.1), rel=1e-12)
    assert orbit_time(sigma, -1, 0, 3, 0.1, 1.0) == pytest.approx(
        naive.time_between(0.1, 1.0, 2.0, 3), rel=1e-9
    )
    assert np.isnan([orbit_time(sigma, 1, 0, 2, *p) for p in ((-1.0, 1.0), (1.0, 2.5))]).all()


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


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_restricted_graph_has_the_swaps_between_sets_of_that_size(depth, rank):
    net = network((4,) * (depth + 1), (3.0, 2.0, 0.9, 0.7))
    whole, graph = dl.connections(net), dl.connections(net, rank=rank)
    dl.schema.validate(graph)
    sizes = [len(dl.schema.index_set_modes(s)) for s in whole.source.values]
    swaps = (dl.schema.decode(whole.kind).values == "swap") & (np.array(sizes) == rank)
    kept = whole.isel(edge=swaps)
    assert graph.sizes["edge"] == rank * (4 - rank) * math.comb(4, rank) / 2
    for name in ("source", "target", "length", "rate", "drop", "escape_time", "size", "loss"):
        np.testing.assert_array_equal(graph[name], kept[name])
    best = dl.schema.index_set_label(range(rank))
    assert graph.attrs["minima"] == best
    assert best not in graph.source.values
    others = set(graph.source.values)  # strict saddles of the restricted problem: swaps leave them
    assert others | {best} == {dl.schema.index_set_label(s) for s in combinations(range(4), rank)}
    assert (graph.order == 2).all()


def test_restricted_minima_with_equal_values_are_all_named():
    graph = dl.connections(network((3, 3, 3), (2.0, 1.0, 1.0)), rank=2)
    assert graph.attrs["minima"] == "{0,1} {0,2}"


# Pairs of points.


def words(graph):
    """(S, S') -> what the graph says of the pair, and the dimension."""
    leads = dl.schema.decode(graph.leads).values
    starts, ends = graph.start_point.values.tolist(), graph.end_point.values.tolist()
    dimension = graph.dimension_between.values
    return {
        (a, b): (str(leads[i, j]), int(dimension[i, j]))
        for i, a in enumerate(starts)
        for j, b in enumerate(ends)
    }


def can_swap(sigma, source, target):
    """Whether each lost mode has a better one of its own among the gained, by trying all ways."""
    lost, gained = sorted(source - target), sorted(target - source)
    if not lost and not gained:
        return False
    return any(
        all(sigma[q] > sigma[j] for j, q in zip(lost, chosen, strict=True))
        for chosen in permutations(gained, len(lost))
    )


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize(("modes", "count"), [(2, 6), (3, 27), (4, 110), (5, 430)])
def test_pairs_are_joined_if_lost_modes_can_be_swapped_for_better_ones(depth, modes, count):
    """By brute force; in more than two layers with five modes four pairs are open."""
    sigma = 10.0 + np.arange(modes, 0.0, -1.0)
    graph = dl.connections(network((modes,) * (depth + 1), sigma))
    found = words(graph)
    joined = 0
    for (a, b), (word, dimension) in found.items():
        sets = [set(dl.schema.index_set_modes(s)) for s in (a, b)]
        if can_swap(sigma, *sets):
            joined += 1
            assert word == ("orbit" if dimension == 1 else "set")
            assert dimension >= 1
        else:
            assert word in (("no", "open") if depth > 2 and modes > 4 else ("no",))
            assert (dimension == -1) == (word == "no")
    assert joined == count
    unknown = {(a, b) for (a, b), (word, _) in found.items() if word == "open"}
    expected = {
        ("{0,2}", "{0,3,4}"), ("{1,2}", "{0,3,4}"), ("{1,2}", "{1,3,4}"), ("{1,2,4}", "{0,3,4}")
    }  # fmt: skip
    assert unknown == (expected if depth > 2 and modes > 4 else set())
    edges = zip(graph.source.values.tolist(), graph.target.values.tolist(), strict=True)
    for edge, dimension in zip(edges, graph.dimension.values, strict=True):
        assert found[edge] == ("orbit" if dimension == 1 else "set", dimension)


def direct_sum(net, source, target, size):
    """A state next to A_S on the sum of swaps and additions that leads to A_S'."""
    sigma, h = net.singular_values, net.depth
    kept, lost, gained = source & target, sorted(source - target), sorted(target - source)
    swapped = next(
        chosen
        for chosen in permutations(gained, len(lost))
        if all(sigma[q] > sigma[j] for j, q in zip(lost, chosen, strict=True))
    )
    eye = np.eye(len(sigma))
    frame = [eye[j] for j in sorted(kept)] + [
        np.cos(size) * eye[j] + np.sin(size) * eye[q] for j, q in zip(lost, swapped, strict=True)
    ]
    new = [q for q in gained if q not in swapped]
    frame += [eye[q] for q in new]
    strengths = [*sigma[sorted(kept)], *sigma[lost], *[size**h] * len(new)]
    sizes = np.array(strengths) ** (1.0 / h)
    frame = np.reshape(frame, (-1, len(sigma))).T
    hidden = np.eye(len(sigma), frame.shape[1])
    chain = [frame, *[hidden] * (h - 1), frame]
    return net.pack([(after * sizes) @ before.T for before, after in pairwise(chain)])


@pytest.mark.compiled
@pytest.mark.parametrize("depth", [2, 3])
def test_runs_lead_along_all_pairs_that_are_said_to_be_joined(depth):
    """Several modes are learnt and swapped at once: {} → {0,1}, {1,2} → {0,…}, …"""
    sigma = np.array([3.0, 2.0, 1.0])
    net = network((3,) * (depth + 1), sigma)
    several = 0
    for (a, b), (word, _) in words(dl.connections(net)).items():
        if word == "no":
            continue
        source, target = (set(dl.schema.index_set_modes(s)) for s in (a, b))
        x = direct_sum(net, source, target, 0.03)
        near = net.critical_state(sorted(source))
        assert np.linalg.norm(net.product(x) - net.product(near)) < 0.25
        end = dl.flow(net, x, (0.0, 400.0)).state.values[-1]
        expected = sigma * np.isin(range(3), sorted(target))
        np.testing.assert_allclose(net.product(end), np.diag(expected), atol=1e-6)
        several += len(source ^ target) > 2 or (len(source ^ target) == 2 and source < target)
    assert several >= 8


def test_dimensions_of_pairs_are_those_of_transversal_intersections():
    """Q̇ = (Σ − QQᵀ)Q, two layers with W_2 = W_1ᵀ = Q and |S'| columns: ranks along an orbit.

    The tangent of W^u(A_S) is carried along the orbit; at its end those directions are tangent to
    W^s that have no part in the ι(S') unstable ones. Turns of the columns beyond |S| are symmetry.
    """
    sigma = np.array([3.0, 2.2, 1.0])
    net = network((3, 3, 3), sigma)
    S = np.diag(sigma)
    for (a, b), (word, dimension) in words(dl.connections(net)).items():
        source, target = (set(dl.schema.index_set_modes(s)) for s in (a, b))
        if word == "no":
            continue
        p, columns = len(source), len(target)
        Q = net.unpack(direct_sum(net, source, target, 1e-2))[1][:, :columns]

        def jacobian(Q):
            def along(V):
                return (S - Q @ Q.T) @ V - (V @ Q.T + Q @ V.T) @ Q

            units = np.eye(Q.size).reshape(-1, *Q.shape)
            return np.stack([along(V).ravel() for V in units], axis=1)

        def unstable(modes, order, columns=columns, jacobian=jacobian):
            A = np.zeros((3, columns))
            A[order, range(len(order))] = np.sqrt(sigma[order])
            values, vectors = np.linalg.eigh(jacobian(A))
            return vectors[:, values > 1e-6]

        start = np.linalg.svd(Q, full_matrices=False)
        order = [int(np.argmax(np.abs(Q[:, c]))) for c in range(p)]
        basis = unstable(source, order)
        assert start[1].size == columns
        step = 0.02
        for k in range(2000):
            F = (S - Q @ Q.T) @ Q
            middle = Q + 0.5 * step * F
            J = jacobian(middle)
            Q = Q + step * (S - middle @ middle.T) @ middle
            basis = basis + step * J @ (basis + 0.5 * step * J @ basis)
            if k % 5 == 0:
                basis = np.linalg.qr(basis)[0]
        assert np.linalg.norm(Q @ Q.T - np.diag(sigma * np.isin(range(3), sorted(target)))) < 1e-6
        values, vectors = np.linalg.eigh(jacobian(Q))
        leaving = vectors[:, values > 1e-6]
        parts = np.linalg.svd(leaving.T @ basis, compute_uv=False) if leaving.size else np.zeros(0)
        rank = int(np.sum(parts > 1e-3))
        assert rank == leaving.shape[1]  # transversal
        t = columns - p
        assert basis.shape[1] - rank - t * (t - 1) // 2 == dimension


def test_pairs_of_equal_values_depend_on_how_many_of_them_are_learnt():
    graph = dl.connections(network((3, 3, 3, 3), (2.0, 2.0, 1.0)))
    found = words(graph)
    assert found["{0}", "{1}"] == found["{1}", "{0}"] == ("no", -1)
    assert found["{0}", "{1,2}"] == found["{0}", "{0,2}"]
    assert found["{0}", "{1,2}"][0] in ("orbit", "set")
    assert found["{2}", "{0}"] == found["{2}", "{1}"] == ("set", 2)  # towards any of a circle
    assert (graph.leads.values.diagonal() == 0).all()


def test_pairs_of_many_points_are_left_out():
    graph = dl.connections(network((10,) * 3, np.linspace(3.0, 1.0, 10)), n_points=2)
    assert "leads" not in graph
    dl.schema.validate(graph)
    assert (graph.dimension >= 1).all()


@pytest.mark.parametrize("depth", [3, 4])
def test_families_have_the_multiplicity_of_their_rate(depth):
    """Swaps to or from one of several equal modes: eigenvalues of the dense Hessian."""
    net = network((4,) * (depth + 1), (3.0, 3.0, 1.0, 1.0))
    graph = dl.connections(net)
    swaps = graph.isel(edge=dl.schema.decode(graph.kind).values == "swap")
    sizes = set()
    for edge in range(swaps.sizes["edge"]):
        row = swaps.isel(edge=edge)
        x = net.critical_state(dl.schema.index_set_modes(row.source.item()))
        values = np.linalg.eigvalsh(net.hessian(x))
        multiplicity = int(np.sum(np.abs(values + float(row.rate)) < 1e-8))
        dimension = int(row.family_dimension)
        lost = sum(j in (2, 3) for j in dl.schema.index_set_modes(row.source.item()))
        gained = sum(j not in dl.schema.index_set_modes(row.source.item()) for j in (0, 1))
        assert multiplicity == lost * gained
        assert dimension == lost + gained - 2
        sizes.add(dimension)
    assert sizes == {0, 1, 2}


def metric(W, Z, rank, depth):
    """g_W(Z, Z) by the eigenvalues of 𝒜_W on u_i v_kᵀ, at a known rank."""
    U, s, Vt = np.linalg.svd(W)
    total = 0.0
    for (i, k), z in np.ndenumerate(U.T @ Z @ Vt.T):
        a, b = (s[m] if m < rank else 0.0 for m in (i, k))
        if a == b == 0.0:
            continue
        value = depth * a ** (2 - 2 / depth)
        if abs(a - b) > 1e-9 * a:
            value = (a**2 - b**2) / (a ** (2 / depth) - b ** (2 / depth))
        total += z**2 / value
    return total


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_lengths_of_swaps_are_lengths_in_the_metric_of_the_restricted_problem(depth):
    """∫√g_W(W', W') along the map, by Simpson's rule: error about (π/400)⁴ of the length."""
    net = network((3,) * (depth + 1), (2.0, 0.9, 0.5))
    graph = dl.connections(net, rank=2, n_points=401)
    for edge in range(graph.sizes["edge"]):
        W = net.product(dl.edge_states(graph, edge).state.values)
        step = 1.0 / (len(W) - 1)
        Z = np.gradient(W, step, axis=0, edge_order=2)
        Z[2:-2] = (8.0 * (W[3:-1] - W[1:-3]) - (W[4:] - W[:-4])) / (12.0 * step)
        speed = np.sqrt([metric(w, z, 2, depth) for w, z in zip(W, Z, strict=True)])
        assert simpson(speed, dx=step) == pytest.approx(float(graph.length[edge]), rel=1e-5)


@pytest.mark.parametrize("depth", [2, 3])
def test_runs_of_the_restricted_problem_follow_the_swaps_in_their_time(depth):
    """Ẇ = 𝒜_W(Σ − W), from a point of the edge until half of the drop is lost."""
    sigma = np.array([2.0, 0.9, 0.5])
    graph = dl.connections(network((3,) * (depth + 1), sigma), rank=1, n_points=401)
    for edge in range(graph.sizes["edge"]):
        row, states = graph.isel(edge=edge), dl.edge_states(graph, edge).state.values
        W = network((3,) * (depth + 1), sigma).product(states)
        near = 8
        distance = float(np.linalg.norm(states[near] - states[0]))
        scales = [distance]
        law = float(dl.connections(network((3,) * (depth + 1), sigma), rank=1, scales=scales)
                    .escape_time[edge, 0])  # fmt: skip
        half = float(row.loss[0] - 0.5 * row["drop"])

        def force(_, w, depth=depth):
            # On rank one: 𝒜_W(Z) = s^{2−2/h}(u uᵀ Z + Z v vᵀ + (h − 2) u uᵀ Z v vᵀ).
            w = w.reshape(3, 3)
            U, s, Vt = np.linalg.svd(w)
            u, v, Z = np.outer(U[:, 0], U[:, 0]), np.outer(Vt[0], Vt[0]), np.diag(sigma) - w
            return (s[0] ** (2 - 2 / depth) * (u @ Z + Z @ v + (depth - 2) * u @ Z @ v)).ravel()

        def lost(_, w, half=half):
            return 0.5 * np.sum((np.diag(sigma) - w.reshape(3, 3)) ** 2) - half

        lost.terminal = True
        run = solve_ivp(force, (0, 3 * law), W[near].ravel(), rtol=1e-9, atol=1e-12, events=lost)
        # The distance from the saddle is measured straight there and along the tangent here: a
        # relative error distance² of the start, of a time that grows like its logarithm.
        assert run.t_events[0][0] == pytest.approx(law, rel=distance**2)
        gaps = [np.linalg.norm(W - w.reshape(3, 3), axis=(1, 2)).min() for w in run.y.T]
        assert max(gaps) < 0.01 * np.linalg.norm(W[0] - W[-1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: dl.connections(net, scales=[0.0]), "^scales: needs positive"),
        (lambda net: dl.connections(net, n_points=1), "^n_points: needs at least 2"),
        (lambda net: dl.edge_states(dl.connections(net), 10**6), "^edge: needs at least 0"),
        (lambda net: dl.edge_states(dl.connections(net), ("{}", "{9}")), "^edge: there is none"),
        (lambda net: dl.edge_states(net, 0), "^graph: needs a"),
        (lambda net: dl.connections(net, rank=0), "^rank: needs at least 1 and at most 2, got 0"),
        (lambda net: dl.connections(net, rank=3), "^rank: needs at least 1 and at most 2, got 3"),
        (lambda net: dl.connections(net, rank=1.5), "^rank: needs an integer"),
        (lambda net: dl.connections(net, 1, rank=1), "^rank: stands in place of max_rank"),
        (lambda net: dl.connections(net, modes=[1], rank=2), "^rank: needs at least 1 and at most"),
        (lambda net: dl.connections(network((2, 2), (2.0, 1.0)), rank=1), "^rank: needs a network"),
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


@pytest.mark.parametrize("depth", [2, 3])
def test_raw_inputs_with_the_covariance_of_a_ball_have_the_orbits_of_a_faster_flow(depth):
    """Orbits have the field of the raw network as tangent, its loss, and its times."""
    rng, gain = np.random.default_rng(depth), 2.5
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    net = dl.LinearNetwork((3,) * (depth + 1), rng.normal(size=(3, 3)), input_root=gain**0.5 * turn)
    graph = dl.connections(net, n_points=401, scales=[1e-2])
    places = dict(
        zip(*(dl.critical_points(net)[n].values for n in ("critical_point", "loss")), strict=True)
    )
    edges = list(zip(graph.source.values.tolist(), graph.target.values.tolist(), strict=True))
    for edge in (("{}", "{1}"), ("{2}", "{0}")):
        path = dl.edge_states(graph, edge)
        states, one = path.state.values, graph.isel(edge=edges.index(edge))
        np.testing.assert_allclose(path.loss, net.loss(states), rtol=0, atol=1e-12)
        assert float(one["drop"]) == pytest.approx(places[edge[0]] - places[edge[1]], rel=1e-12)
        assert np.abs(net.gradient(states[[0, -1]])).max() <= 1e-13
        tangent, force = states[201] - states[199], -net.gradient(states[200])
        cosine = tangent @ force / np.linalg.norm(tangent) / np.linalg.norm(force)
        assert cosine >= 1.0 - 1e-4
        distances = np.linalg.norm(states - states[0], axis=1)
        k = int(np.argmin(abs(distances - 0.01)))
        order = depth if edge[0] == "{}" else 2
        speed = np.linalg.norm(net.gradient(states[k]))
        law = float(one["rate"]) * distances[k] ** (order - 1) / depth ** (0.5 * order - 1.0)
        assert speed == pytest.approx(law, rel=0.05)
    ahead = dl.edge_states(graph, ("{}", "{0}")).state.values[1]
    start = 0.01 * ahead / np.linalg.norm(ahead)
    run = dl.flow(net, start, (0, float(graph.escape_time[edges.index(("{}", "{0}")), 0])))
    half = places["{}"] - 0.5 * (places["{}"] - places["{0}"])
    assert float(run.loss[-1]) == pytest.approx(half, rel=1e-6)


def test_a_graph_without_edges_has_no_states():
    graph = dl.connections(dl.LinearNetwork((2, 2), np.diag([2.0, 1.0])))
    with pytest.raises(ValueError, match="^graph: has no edges"):
        dl.edge_states(graph, 0)
