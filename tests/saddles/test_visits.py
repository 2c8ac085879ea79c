"""Saddles along runs, and what ensembles of runs do."""

import itertools

import naive
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import xarray as xr
from hypothesis import given, settings

import dlnds as dl
from dlnds.theory.laws import growth_time


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_aligned_runs_visit_the_generic_path_for_the_times_of_the_law(depth):
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag([4.0, 2.0, 1.0]))
    x = net.initial("aligned", scale=1e-4 if depth == 2 else 10.0 ** (-4 / depth))
    grid = np.linspace(0.0, {2: 20.0, 3: 40.0, 4: 60.0}[depth], 8001)
    for run in (dl.flow(net, x, (0, grid[-1]), grid), dl.exact_flow(net, x, grid)):
        visits = dl.saddle_visits(net, run, radius=0.02)
        dl.schema.validate(visits)
        assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
        assert visits.next_mode.values.tolist() == [0, 1, 2, -1]
        assert np.isnan(visits.escape_time.values[-1])
        np.testing.assert_allclose(
            visits.escape_time[:3], visits.predicted_escape_time[:3], rtol=2e-3 / depth
        )
        assert (visits.closest <= 0.02).all()
        assert (visits.entry.values[1:] > visits.exit.values[:-1]).all()
        np.testing.assert_allclose(visits.duration, visits.exit - visits.entry, rtol=1e-12)


def test_gaussian_runs_of_real_data_pass_the_saddles_of_the_leading_modes():
    net = dl.load_problem("linnerud", hidden=(6, 6))
    run = dl.flow(net, net.initial(scale=1e-2, rng=0), save=("product",))
    visits = dl.saddle_visits(net, run)
    assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
    assert visits.exit.values[-1] == run.time.values[-1]
    assert (visits.duration > 0).all()


def test_the_origin_is_one_visit_without_end():
    net = naive.random_network((2, 2, 2, 2), 0)
    visits = dl.saddle_visits(net, dl.flow(net, np.zeros(12), (0, 1)))
    assert visits.critical_point.values.tolist() == ["{}"]
    assert visits["closest"].item() == 0.0


@settings(max_examples=15)
@given(naive.networks, naive.seeds)
def test_visits_lie_within_the_run_and_do_not_overlap(net, seed):
    run = dl.flow(net, naive.state_of(net, seed, 0.3), (0, 3))
    visits = dl.saddle_visits(net, run, radius=0.2)
    assert (visits.exit >= visits.entry).all()
    assert (visits.entry.values[1:] > visits.exit.values[:-1]).all()
    if visits.sizes["visit"]:
        assert visits.entry.values[0] >= 0.0
        assert visits.exit.values[-1] <= 3.0


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_growth_time_is_the_law(depth):
    if depth == 1:
        assert growth_time(0.5, 1.0, 2.0, 1) == pytest.approx(np.log(1.5))
    else:
        expected = naive.time_between(1e-3, 1.0, 2.0, depth)
        assert growth_time(1e-3, 1.0, 2.0, depth) == pytest.approx(expected, rel=1e-10)
    assert np.isnan(growth_time(-1e-3, 1.0, 2.0, depth))
    assert np.isnan(growth_time(0.0, 1.0, 2.0, depth))


def test_bad_input_is_refused():
    net, other = naive.random_network((2, 3, 2), 0), naive.random_network((2, 3, 2), 1)
    run = dl.flow(net, naive.state_of(net, 0), (0, 1))
    for name, call in [
        ("net", lambda: dl.saddle_visits(3, run)),
        ("run", lambda: dl.saddle_visits(net, xr.Dataset())),
        ("run", lambda: dl.saddle_visits(other, run)),
        ("run", lambda: dl.saddle_visits(net, run.drop_vars("state"))),
        ("run", lambda: dl.saddle_visits(net, run.drop_vars("time"))),
        ("radius", lambda: dl.saddle_visits(net, run, radius=-1.0)),
        ("radios", lambda: dl.saddle_visits(net, run, radios=0.1)),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            call()


def test_visits_can_be_saved(tmp_path):
    net = naive.random_network((2, 3, 2), 0)
    visits = dl.saddle_visits(net, dl.flow(net, net.initial(scale=0.01, rng=0)))
    dl.save(visits, tmp_path / "visits.nc")
    assert dl.load(tmp_path / "visits.nc").identical(visits)


def test_modes_below_the_rounding_of_the_map_are_followed_by_their_strength():
    """With a dense target W rounds off what is not learnt yet, 1e-24 at h = 3 and 1e-8."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=left @ np.diag([3.0, 2.0, 1.0]) @ right)
    start = net.initial("aligned", scale=1e-8)
    run = dl.flow(net, start, rtol=1e-6, save=["product", "mode_strength"])
    visits = dl.saddle_visits(net, run)
    assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
    law = visits.predicted_escape_time[:-1]
    np.testing.assert_allclose(visits.escape_time[:-1], law, rtol=1e-5)


LEAST = ("mode_strength",)


def diagonal(widths, sigma):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths=widths, target=target)


def ensemble(net, count, scale, **options):
    starts = np.stack([net.initial(scale=scale, rng=seed) for seed in range(count)])
    return dl.flow(net, starts, save=LEAST, **options)


def label(*modes):
    return dl.schema.index_set_label(modes)


@pytest.fixture(scope="module")
def mixed():
    """Runs that go many ways: from Gaussian and from planted strengths, and along swaps."""
    net = diagonal((4, 5, 4), (1.3, 1.2, 1.1, 1.0))
    rng, graph = np.random.default_rng(0), dl.connections(net, n_points=101)
    planted = [rng.permutation([1e-2, 1e-4, 1e-6, 1e-8]) for _ in range(6)]
    swaps = [(label(1), label(0)), (label(3), label(1)), (label(2, 3), label(1, 2))]
    starts = [
        *(net.initial(scale=3e-3, rng=rng) for _ in range(12)),
        *(net.initial("aligned", scale=scale) for scale in planted),
        *(dl.edge_states(graph, edge).state.values[2] for edge in swaps),
    ]
    return net, dl.flow(net, np.stack(starts), save=LEAST)


@pytest.mark.parametrize(
    "depth", [2, *(pytest.param(depth, marks=pytest.mark.compiled) for depth in (3, 4))]
)
def test_tiny_starts_take_the_generic_path_with_probability_one(depth):
    net = diagonal((3, *(5,) * (depth - 1), 3), (4.0, 2.0, 1.0))
    seen = dl.observed_connections(net, ensemble(net, 6, 1e-3))
    dl.schema.validate(seen)
    assert set(seen.sequence.values.tolist()) == {"{} {0} {0,1} {0,1,2}"}
    assert seen.source.values.tolist() == [label(), label(0), label(0, 1)]
    assert seen.target.values.tolist() == [label(0), label(0, 1), label(0, 1, 2)]
    assert dl.schema.decode(seen.kind).values.tolist() == ["add"] * 3
    assert (seen.visited == 6).all()
    assert (seen.probability == 1.0).all()
    assert seen["drop"].values.tolist() == [8.0, 2.0, 0.5]
    assert seen.ended.values.tolist() == [0, 0, 0, 6]
    assert (np.diff(seen.mean_entry) > 0).all()
    assert np.isnan(seen.mean_duration).values.tolist() == [False] * 3 + [True]
    # The start is off the orbit by its size relative to that of a mode which has grown to σ/20.
    np.testing.assert_allclose(seen.mean_growth_time, seen.law_growth_time, rtol=2e-3)


@pytest.mark.compiled
def test_growth_tends_to_the_law_as_the_start_gets_smaller():
    net = diagonal((3, 6, 6, 3), (4.0, 2.0, 1.0))
    errors = []
    for scale in (3e-2, 1e-2, 3e-3):
        seen = dl.observed_connections(net, ensemble(net, 4, scale))
        errors.append(float(np.abs(seen.mean_growth_time / seen.law_growth_time - 1.0).max()))
    assert errors[0] > 2.0 * errors[1] > 4.0 * errors[2] > 0.0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_planted_strengths_make_any_order_in_the_times_of_the_law(order):
    """Balanced aligned modes are learnt one by one; each starts later than those before it."""
    net = diagonal((3, 3, 3, 3), (3.0, 2.0, 1.2))
    scales = np.zeros(3)
    scales[list(order)] = (1e-2, 2e-3, 5e-4)
    runs = dl.flow(net, np.tile(net.initial("aligned", scale=scales), (3, 1)), save=LEAST)
    seen = dl.observed_connections(net, runs)
    sets = [label(*order[:k]) for k in range(4)]
    assert seen.sequence.values.tolist() == [" ".join(sets)] * 3
    assert list(zip(seen.source.values, seen.target.values, strict=True)) == list(
        itertools.pairwise(sets)
    )
    assert (seen.visited == 3).all()
    np.testing.assert_allclose(seen.std_escape_time / seen.mean_escape_time, 0.0, atol=1e-15)
    # Errors of 1e-8 relative to the weights, over some hundred steps.
    np.testing.assert_allclose(seen.mean_escape_time, seen.law_escape_time, rtol=1e-5)
    np.testing.assert_allclose(seen.mean_growth_time, seen.law_growth_time, rtol=1e-5)
    half = 0.5 * net.singular_values[order[0]]
    law = naive.time_between(1e-6, half, 2 * half, 3)
    assert float(seen.mean_escape_time[0]) == pytest.approx(law, rel=1e-5)


@pytest.mark.parametrize("depth", [2, 3])
def test_runs_that_start_on_a_swap_make_it_in_the_time_of_its_law(depth):
    net = diagonal((2,) * (depth + 1), (2.0, 0.9))
    path = dl.edge_states(dl.connections(net, n_points=2001), (label(1), label(0)))
    near = [5, 10, 20]
    runs = dl.flow(net, path.state.values[near], save=LEAST)
    seen = dl.observed_connections(net, runs).isel(edge=0)
    assert (seen.source.item(), seen.target.item()) == (label(1), label(0))
    assert dl.schema.decode(seen.kind) == "swap"
    assert int(seen.visited) == 3
    assert float(seen["drop"]) == pytest.approx(0.5 * (4.0 - 0.81))
    assert float(seen.mean_escape_time) == pytest.approx(float(seen.law_escape_time), rel=1e-5)
    assert float(seen.mean_growth_time) == pytest.approx(float(seen.law_growth_time), rel=1e-5)
    rate = 0.9 ** (1 - 2 / depth) * 1.1
    visits = [dl.saddle_visits(net, runs.isel(sample=k)) for k in range(3)]
    waits = [float(v.escape_time[0]) for v in visits]
    # φ doubles from one start to the next: tan φ by a little more.
    steps = np.diff(np.log(np.tan(0.5 * np.pi * np.array(near) / 2000)))
    np.testing.assert_allclose(-np.diff(waits), steps / rate, rtol=1e-3)
    assert float(seen.mean_escape_time) == pytest.approx(np.mean(waits), rel=1e-14)


def test_counts_and_probabilities_are_those_of_the_sequences(mixed):
    net, runs = mixed
    seen = dl.observed_connections(net, runs)
    dl.schema.validate(seen)
    paths = [text.split() for text in seen.sequence.values]
    assert len({tuple(path) for path in paths}) > 5, "too few ways to tell anything"
    steps = [pair for path in paths for pair in itertools.pairwise(path)]
    pairs = list(zip(seen.source.values, seen.target.values, strict=True))
    assert set(pairs) == set(steps)
    for pair, visited, part in zip(
        pairs, seen.visited.values, seen.probability.values, strict=True
    ):
        assert visited == steps.count(pair)
        assert part == pytest.approx(visited / sum(a == pair[0] for a, _ in steps), rel=1e-15)
    sums = seen.probability.groupby("source").sum()
    np.testing.assert_allclose(sums, 1.0, rtol=1e-14)
    assert int(seen.ended.sum()) == runs.sizes["sample"]
    for point in seen.critical_point.values:
        row = seen.sel(critical_point=point)
        assert int(row.visitors) == sum(point in path for path in paths)
        leaving = int(seen.visited.values[seen.source.values == point].sum())
        assert int(row.visitors) == leaving + int(row.ended)
        sigma = net.singular_values
        kept = list(dl.schema.index_set_modes(point))
        assert float(row.loss) == pytest.approx(0.5 * np.sum(np.delete(sigma, kept) ** 2))
    kinds = dl.schema.decode(seen.kind).values
    assert set(kinds) == {"add", "swap", "other"}
    np.testing.assert_array_equal(seen.is_connection, kinds != "other")
    graph = dl.connections(net)
    known = set(zip(graph.source.values, graph.target.values, strict=True))
    assert [pair in known for pair in pairs] == (kinds != "other").tolist()


def test_the_order_of_the_runs_does_not_matter(mixed):
    net, runs = mixed
    order = np.random.default_rng(0).permutation(runs.sizes["sample"])
    seen = dl.observed_connections(net, runs)
    shuffled = dl.observed_connections(net, runs.isel(sample=order))
    assert shuffled.drop_dims("sample").identical(seen.drop_dims("sample"))
    assert shuffled.sortby("sample").identical(seen)


def test_maps_states_and_strengths_tell_the_same():
    net = diagonal((3, 4, 3), (4.0, 2.0, 1.0))
    starts = np.stack([net.initial(scale=1e-2, rng=seed) for seed in range(3)])
    runs = dl.flow(net, starts, save=("state", "product", *LEAST))
    every = dl.observed_connections(net, runs)
    for dropped in (["product", *LEAST], ["state", *LEAST], ["state", "product"]):
        seen = dl.observed_connections(net, runs.drop_vars(dropped))
        xr.testing.assert_allclose(seen, every, rtol=1e-9)


def test_single_runs_and_common_grids_are_ensembles_too():
    net = diagonal((3, 4, 3), (4.0, 2.0, 1.0))
    start = net.initial(scale=1e-2, rng=0)
    one = dl.observed_connections(net, dl.flow(net, start, save=LEAST))
    assert one.sizes["sample"] == 1
    assert one.sequence.values.tolist() == ["{} {0} {0,1} {0,1,2}"]
    grid = np.linspace(0.0, 12.0, 400)
    runs = dl.flow(net, start[None], (0, 12.0), grid, save=LEAST)
    assert runs.loss.dims == ("sample", "time")
    on_grid = dl.observed_connections(net, runs)
    assert on_grid.sequence.equals(one.sequence)
    # Entries are known to a step of the grid.
    np.testing.assert_allclose(on_grid.mean_growth_time, one.mean_growth_time, atol=0.03)


def test_failed_members_are_counted_and_named_and_count_until_they_fail():
    net = diagonal((3, 4, 3), (4.0, 2.0, 1.0))
    runs = ensemble(net, 3, 1e-2)
    whole = dl.observed_connections(net, runs)
    assert whole.attrs["n_failed"] == 0
    broken = runs.copy(deep=True)
    learnt = int(np.argmax(broken.mode_strength.values[1, :, 0] > 3.99)) + 1
    for name in ("loss", *LEAST):
        broken[name].values[1, learnt:] = np.nan
    broken.stop_reason.values[1] = dl.schema.STOP_REASONS.index("not_finite")
    broken["mode_strength"].values[2] = np.nan
    broken.stop_reason.values[2] = dl.schema.STOP_REASONS.index("out_of_steps")
    seen = dl.observed_connections(net, broken)
    dl.schema.validate(seen)
    assert seen.sequence.values.tolist() == ["{} {0} {0,1} {0,1,2}", "{} {0}", ""]
    assert seen.visited.values.tolist() == [2, 1, 1]
    assert seen.ended.values.tolist() == [0, 1, 0, 1]
    assert seen.attrs["n_failed"] == 2
    assert dl.schema.decode(seen.stop_reason).values[1:].tolist() == ["not_finite", "out_of_steps"]
    cut = dl.observed_connections(net, ensemble(net, 2, 1e-2, max_steps=10))
    assert cut.attrs["n_failed"] == 2
    assert cut.sequence.values.tolist() == ["{}", "{}"]
    assert cut.sizes["edge"] == 0
    dl.schema.validate(cut)


def test_two_modes_at_once_are_no_edge_but_runs_lead_there():
    net = diagonal((3, 3, 3), (2.0, 2.0, 1.0))
    run = dl.flow(net, net.initial("aligned", scale=1e-3), save=LEAST)
    seen = dl.observed_connections(net, run)
    assert seen.sequence.values.tolist() == ["{} {0,1} {0,1,2}"]
    assert dl.schema.decode(seen.kind).values.tolist() == ["other", "add"]
    assert seen.is_connection.values.tolist() == [0, 1]
    assert dl.schema.decode(seen.leads).values.tolist() == ["set", "orbit"]
    graph = dl.overlay(dl.connections(net), seen)
    assert graph.attrs["n_outside"] == 1
    assert int(graph.visited.sum()) == 1


def test_what_runs_did_is_laid_over_the_graph(mixed):
    net, runs = mixed
    graph, seen = dl.connections(net), dl.observed_connections(net, runs)
    both = dl.overlay(graph, seen)
    dl.schema.validate(both)
    assert both.drop_vars(
        ["visited", "probability", "mean_escape_time", "mean_growth_time"]
    ).equals(graph)
    rows = {p: k for k, p in enumerate(zip(seen.source.values, seen.target.values, strict=True))}
    for edge, pair in enumerate(zip(both.source.values, both.target.values, strict=True)):
        row = both.isel(edge=edge)
        if pair not in rows:
            assert row.visited == row.probability == 0
            assert np.isnan(row.mean_escape_time)
            assert np.isnan(row.mean_growth_time)
            continue
        for name in ("visited", "probability", "mean_escape_time", "mean_growth_time"):
            np.testing.assert_array_equal(row[name], seen[name][rows[pair]])
    others = dl.schema.decode(seen.kind).values == "other"
    assert both.attrs["n_outside"] == int(seen.visited.values[others].sum()) > 0
    assert both.attrs["n_runs"] == 21
    again = dl.overlay(both, dl.observed_connections(net, runs.isel(sample=[12])))
    assert again.attrs["n_runs"] == 1
    assert int(again.visited.max()) == 1


def test_raw_inputs_are_followed_without_a_law():
    net = naive.random_network((3, 4, 3), 0, "full")
    runs = dl.flow(net, np.stack([net.initial(scale=1e-2, rng=k) for k in range(2)]),
                   save=("product",))  # fmt: skip
    seen = dl.observed_connections(net, runs)
    assert seen.sizes["edge"] > 0
    assert np.isnan(seen.law_growth_time).all()
    assert (seen.mean_escape_time > 0).all()
    strengths = runs.drop_vars("product").assign(
        mode_strength=(
            ("sample", "step", "mode"),
            net.problem.strength(net.problem.image(runs["product"].values)),
        )
    )
    xr.testing.assert_allclose(dl.observed_connections(net, strengths), seen, rtol=1e-12)


def test_observed_connections_can_be_saved(tmp_path, mixed):
    net, runs = mixed
    graph = dl.overlay(dl.connections(net), dl.observed_connections(net, runs))
    for number, data in enumerate((dl.observed_connections(net, runs), graph)):
        dl.save(data, tmp_path / f"{number}.nc")
        assert dl.load(tmp_path / f"{number}.nc").identical(data)


def test_bad_ensembles_and_overlays_are_named(mixed):
    net, runs = mixed
    other = diagonal((4, 5, 4), (1.3, 1.2, 1.1, 0.9))
    graph, seen = dl.connections(net), dl.observed_connections(net, runs)
    orbit = dl.iterate(dl.GradientDescent(net, 0.1), net.initial(rng=0), 3)
    for message, call in [
        ("net: needs a LinearNetwork", lambda: dl.observed_connections(3, runs)),
        ("runs: needs a Dataset", lambda: dl.observed_connections(net, graph)),
        ("runs: lacks the variable", lambda: dl.observed_connections(net, orbit.drop_vars("time"))),
        ("runs: belongs to another", lambda: dl.observed_connections(other, runs)),
        ("runs: needs states", lambda: dl.observed_connections(net, runs.drop_vars(LEAST[0]))),
        ("radius: needs 0", lambda: dl.observed_connections(net, runs, radius=2.0)),
        ("radios: ", lambda: dl.observed_connections(net, runs, radios=0.1)),
        ("run: needs one run, got a stack", lambda: dl.saddle_visits(net, runs)),
        ("graph: needs a Dataset of the schema conn", lambda: dl.overlay(seen, seen)),
        ("observed: needs a Dataset of the schema obs", lambda: dl.overlay(graph, graph)),
        ("observed: belongs to another", lambda: dl.overlay(dl.connections(other), seen)),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            call()


@pytest.mark.compiled
def test_saddles_that_are_passed_within_a_step_are_seen():
    """The steps of a run show what 4000 rows of it show, where it hardly comes near enough."""
    net, passed = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag([3.0, 2.4, 1.9])), 0
    saddle = net.image(net.critical_state((0,)))
    for seed in range(12):
        x = net.initial(scale=0.1, rng=seed)
        run = dl.flow(net, x)
        end = float(run.time[-1])
        fine = dl.flow(net, x, (0, end), np.linspace(0, end, 4000), rtol=1e-10)
        away = np.linalg.norm(net.image(fine.state.values) - saddle, axis=(-2, -1))
        nearest = float(away.min() / np.linalg.norm(net.target))
        if not 0.01 < nearest < 0.4:
            continue
        for radius in (1.001 * nearest, 1.01 * nearest):
            seen, all_of_it = (dl.saddle_visits(net, r, radius=radius) for r in (run, fine))
            assert seen.critical_point.values.tolist() == all_of_it.critical_point.values.tolist()
            visit, other = (v.isel(visit=1) for v in (seen, all_of_it))
            assert visit.critical_point == "{0}"
            # Entries of passages that just touch move like the root of the error of the cubic.
            assert float(visit.entry) == pytest.approx(float(other.entry), abs=0.02 * end)
            rows = run.time.values
            passed += not ((rows > float(visit.entry)) & (rows < float(visit.exit))).any()
            assert float(visit.closest) <= radius
    assert passed >= 5  # in steps without a row near the saddle


def test_passages_are_those_of_runs_with_rows_close_enough():
    """Rows far apart tell no more than themselves; neither do those of other dynamics."""
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([3.0, 1.0]))
    run = dl.flow(net, net.initial("aligned", scale=1e-3), (0, 20), [0.0, 20.0])
    assert dl.saddle_visits(net, run).critical_point.values.tolist() == ["{}", "{0,1}"]


# Gradient descent, and runs of others.


def layers_of_rows(net, run):
    return [net.unpack(x) for x in run.state.values]


@pytest.mark.compiled
@pytest.mark.parametrize(("depth", "scale"), [(2, 1e-3), (3, 0.05)])
def test_gradient_descent_grows_slower_than_the_flow_as_euler_steps_do(depth, scale):
    """Modified equation: ẇ = f − (η/2) f'f, so a growth takes (η/2) ln(f(w_1)/f(w_0)) longer.

    Of aligned layers f(w) = w^{h−1} (σ − w^h); the next order is η² times σ^{2−2/h} of the time.
    """
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag([4.0, 2.0, 1.0]))
    start = net.initial("aligned", scale=scale)
    for eta in (1e-3, 4e-3):
        run = dl.iterate(dl.GradientDescent(net, eta), start, int(60 / eta), save=["mode_strength"])
        visits = dl.saddle_visits(net, run)
        assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
        for k, sigma in enumerate(net.singular_values):
            w = np.array([sigma / 20, sigma / 2]) ** (1 / depth)
            f = w ** (depth - 1) * (sigma - w**depth)
            late = float(visits.growth_time[k] - visits.predicted_growth_time[k])
            slope = 4.0 * eta**2 * sigma ** (2 - 2 / depth)
            assert late == pytest.approx(0.5 * eta * np.log(f[1] / f[0]), abs=slope)


@pytest.mark.compiled
@pytest.mark.parametrize(("widths", "scale"), [((3, 5, 3), 1e-3), ((3, 4, 4, 3), 0.1)])
def test_gradient_descent_visits_the_saddles_of_the_flow(widths, scale):
    """Rates λ ≤ σ_1 (small weights) turn to ln(1 + ηλ)/η: times change by ησ_1/2 of them at most.

    At deeper ones λ ≤ h σ_1^{2 − 2/h}, the largest eigenvalue at the minimum.
    """
    net = dl.LinearNetwork(widths=widths, target=np.diag([3.0, 1.5, 0.7]))
    start, eta, depth = net.initial(scale=scale, rng=3), 1e-3, net.depth
    steps = dl.iterate(dl.GradientDescent(net, eta), start, 60_000, every=10)
    end = float(steps.time[-1])
    run = dl.flow(net, start, (0, end), steps.time.values[steps.time.values <= end], rtol=1e-10)
    one, other = (dl.saddle_visits(net, data) for data in (run, steps))
    assert one.critical_point.values.tolist() == other.critical_point.values.tolist()
    assert one.sizes["visit"] == 4
    size = eta * depth * 3.0 ** (2 - 2 / depth) / 2
    spacing = 2 * 10 * eta  # of the rows at both ends
    for name in ("entry", "exit", "duration"):
        bound = size * other.exit.values + spacing
        assert (abs(one[name] - other[name]).values <= bound).all()


@pytest.mark.compiled
@pytest.mark.parametrize("save", [("state",), ("state", "mode_strength")])
def test_imported_runs_make_the_visits_of_the_runs_that_they_are_copies_of(save):
    net = dl.LinearNetwork(widths=(3, 4, 3), target=np.diag([3.0, 1.5, 0.7]))
    start = net.initial(scale=0.05, rng=1)
    steps = dl.iterate(dl.GradientDescent(net, 0.01), start, 2000, every=7, save=save)
    flowed = dl.flow(net, start, (0, 15), np.linspace(0, 15, 400), save=("state",))
    for run, names in ((steps, save), (flowed, ("state",))):
        copied = dl.as_run(net, run.time.values, layers_of_rows(net, run), save=names)
        assert dl.saddle_visits(net, copied).identical(dl.saddle_visits(net, run))
        seen = [dl.observed_connections(net, data) for data in (run, copied)]
        assert seen[0].identical(seen[1])


@pytest.mark.compiled
def test_ensembles_of_gradient_descent_are_laid_over_the_graph():
    net = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([3.0, 1.0]))
    starts = np.stack([net.initial(scale=1e-2, rng=k) for k in range(4)])
    steps = dl.iterate(dl.GradientDescent(net, 0.01), starts, 2500, save=["mode_strength"])
    seen = dl.observed_connections(net, steps)
    assert seen.sequence.values.tolist() == ["{} {0} {0,1}"] * 4
    graph = dl.overlay(dl.connections(net), seen)
    assert graph.attrs["n_runs"] == 4
    assert int(graph.visited.sum()) == 8
    flowed = dl.observed_connections(net, dl.flow(net, starts, save=["mode_strength"]))
    late = abs(seen.mean_growth_time / flowed.mean_growth_time - 1.0)
    assert float(late.max()) < 0.01 * 3.0  # η σ_1


@pytest.mark.parametrize("save", [("state",), ("state", "mode_strength"), ("product",)])
@pytest.mark.parametrize("angle", [0.1, 0.7, 2.0])
def test_visits_do_not_depend_on_how_equal_modes_are_turned(angle, save):
    """σ = 2, 1, 1: one of the equal ones is ahead, in any direction among them."""
    net = dl.LinearNetwork((3, 3, 3, 3), np.diag([2.0, 1.0, 1.0]))
    start = net.initial("aligned", scale=[3e-2, 3e-2, 1e-2])
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    layers = net.unpack(start)
    turned = net.pack([layers[0] @ turn.T, layers[1], turn @ layers[2]])
    one, other = (dl.saddle_visits(net, dl.flow(net, x, save=save)) for x in (start, turned))
    assert one.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
    assert other.critical_point.equals(one.critical_point)
    assert other.next_mode.values.tolist() == one.next_mode.values.tolist() == [0, 1, 2, -1]
    for name in ("escape_time", "growth_time"):
        np.testing.assert_allclose(other[name], one[name], rtol=0.05)
    np.testing.assert_allclose(other.growth_time[:-1], other.predicted_growth_time[:-1], rtol=0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("sigma", [[1.0, 1.0, 1.0], [2.0, 1.0, 1.0]])
def test_equal_modes_are_learnt_one_after_the_other(sigma, seed):
    """Of depth 3: a Gaussian start chooses the directions, and what is ahead of others grows first.

    Each growth takes the time of the law, and each saddle has the name that `classify` gives it.
    """
    net = dl.LinearNetwork((3, 4, 3, 3), np.diag(sigma))
    run = dl.flow(net, net.initial(scale=1e-2, rng=seed))
    visits = dl.saddle_visits(net, run, radius=0.02)
    assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
    np.testing.assert_allclose(
        visits.growth_time[:-1], visits.predicted_growth_time[:-1], rtol=0.02
    )
    images = net.product(run.state.values)
    for visit, label in enumerate(visits.critical_point.values):
        rows = (run.time >= visits.entry[visit]) & (run.time <= visits.exit[visit])
        inside = np.flatnonzero(rows.values)
        ranks = np.linalg.svd(images[inside], compute_uv=False) > 0.5 * np.array(sigma)
        assert (ranks.sum(axis=1) == visit).all()
        forces = [np.linalg.norm(net.gradient(x)) for x in run.state.values[inside]]
        info = dl.classify(net, run.state.values[inside[int(np.argmin(forces))]])
        named = sum(1 for _ in label if _.isdigit())
        assert int(info["learnt"].sum()) == named == visit


def decayed(depth, decay, sigma=(4.0, 2.0, 1.0)):
    return dl.LinearNetwork((len(sigma),) * (depth + 1), np.diag(sigma), weight_decay=decay)


@pytest.mark.parametrize("save", [("state",), ("product",), ("mode_strength",)])
@pytest.mark.parametrize("decay", [0.1, 0.5, 0.9])
def test_decayed_modes_of_two_layers_are_learnt_in_order_each_at_its_logistic_time(decay, save):
    """p = κ/(1 + (κ/p_0 − 1) e^{−2κt}), κ = σ − λ: half of κ is reached at ln(κ/p_0 − 1)/2κ."""
    net, start = decayed(2, decay), 1e-6
    kappa = net.singular_values - decay
    half = np.log(kappa / start - 1.0) / (2.0 * kappa)
    run = dl.flow(net, net.initial("aligned", scale=np.sqrt(start)), rtol=1e-10, save=save)
    visits = dl.saddle_visits(net, run, radius=0.02)
    dl.schema.validate(visits)
    assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
    assert visits.next_mode.values.tolist() == [0, 1, 2, -1]
    reached = visits.entry.values[:3] + visits.escape_time.values[:3]
    np.testing.assert_allclose(reached, half, rtol=1e-6)
    np.testing.assert_allclose(visits.predicted_escape_time[0], half[0], rtol=1e-6)
    np.testing.assert_allclose(visits.growth_time[:3], np.log(19.0) / (2.0 * kappa), rtol=1e-6)
    growth = visits.predicted_growth_time[:3]
    np.testing.assert_allclose(growth, np.log(19.0) / (2.0 * kappa), rtol=1e-12)


def test_what_decays_faster_than_it_grows_is_never_learnt():
    net = decayed(2, 1.5)
    run = dl.flow(net, net.initial("aligned", scale=0.8))
    visits = dl.saddle_visits(net, run, radius=0.02)
    assert visits.critical_point.values.tolist()[-1] == "{0,1}"
    assert all("2" not in label for label in visits.critical_point.values)


@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize("decay", [0.05, 0.3])
def test_a_mode_below_the_unstable_root_dies_and_one_above_it_is_learnt(depth, decay):
    """The roots s of λ = s^{h−2} (σ − s^h) are known by bisection; ṡ = s^{h−1} (σ − s^h) − λ s."""
    sigma, off = 2.0, 1e-3
    net = decayed(depth, decay, (sigma,))
    fold = ((depth - 2) * sigma / (2 * depth - 2)) ** (1 / depth)
    low = scipy.optimize.brentq(
        lambda s: s ** (depth - 2) * (sigma - s**depth) - decay, 1e-9, fold, xtol=1e-15
    )
    for factor, path in ((1.0 - off, ["{0⁻}", "{}"]), (1.0 + off, ["{0⁻}", "{0⁺}"])):
        run = dl.flow(net, net.initial("aligned", scale=low * factor), rtol=1e-10)
        visits = dl.saddle_visits(net, run, radius=0.3 * low**depth / sigma)
        assert visits.critical_point.values.tolist() == path
        assert visits.next_mode.values.tolist() == [0 if factor > 1.0 else -1, -1]
    assert [text.get_text() for text in dl.plot.visits(visits).texts[::2]] == path
    assert dl.schema.index_set_modes(path[1]) == (0,)
    high = float(net.critical_state((0,))[0])
    ends = low * (1.0 + off), (0.5 * (low**depth + high**depth)) ** (1.0 / depth)
    time, _ = scipy.integrate.quad(
        lambda s: 1.0 / (s ** (depth - 1) * (sigma - s**depth) - decay * s), *ends, limit=500
    )
    assert float(visits.predicted_escape_time[0]) == pytest.approx(time, rel=1e-6)
    assert float(visits.escape_time[0]) == pytest.approx(time, rel=1e-4)


def test_events_are_where_decayed_neighbourhoods_begin_and_end():
    """p = κ/(1 + (κ/p_0 − 1) e^{−2κt}) of the first mode is r ‖Σ‖ from 0, and from κ."""
    net, start, radius = decayed(2, 0.5, (3.0, 1.0)), 1e-6, 0.02
    events = [dl.events.near_saddle(net, modes, radius=radius) for modes in ((), (0,))]
    x = net.initial("aligned", scale=np.sqrt(start))
    run = dl.flow(net, x, rtol=1e-10, events=events)
    kappa, size = 2.5, radius * np.sqrt(10.0)
    rise, near = np.log(kappa / start - 1.0), np.log(size / (kappa - size))
    leaves, enters = run.time[run.event == 0].values[0], run.time[run.event == 1].values[0]
    assert leaves == pytest.approx((rise + near) / (2.0 * kappa), rel=1e-6)
    assert enters == pytest.approx((rise - near) / (2.0 * kappa), rel=1e-6)
    deep = decayed(3, 0.3, (2.0, 1.0))
    both = dl.events.near_saddle(deep, (1, 0), branch=("lower", "upper"))
    assert both(0.0, deep.critical_state((0, 1), branch=("upper", "lower"))) < 0.0
    assert both.name == "near_{0⁺,1⁻}"
    assert dl.events.near_saddle(net, (1, 0)).name == "near_{0,1}"


@pytest.mark.parametrize("depth", [3, 4])
def test_modes_of_deep_decayed_networks_go_their_own_ways(depth):
    """Diagonal layers: each mode is a network of one unit, whose root it starts above or below."""
    net = decayed(depth, 0.2)
    lower, upper = net.critical_strengths
    np.testing.assert_allclose(
        lower ** (1 - 2 / depth) * (net.singular_values - lower), 0.2, rtol=1e-12
    )
    start = (lower * [1.5, 0.5, 3.0]) ** (1.0 / depth)
    run = dl.flow(net, net.initial("aligned", scale=start))
    visits = dl.saddle_visits(net, run, radius=0.02)
    assert visits.critical_point.values.tolist()[-1] == "{0⁺,2⁺}"
    end = net.product(run.state.values[-1])
    np.testing.assert_allclose(np.diag(end), upper * [1, 0, 1], atol=1e-6 * upper[0])


def test_a_run_that_comes_to_a_fold_visits_the_point_of_the_double_root():
    """ṡ ~ −c (s − s_f)² above it: the run comes to it like 1/t, and does not pass."""
    size = (2.0 / 4.0) ** (1.0 / 3.0)
    net = dl.LinearNetwork((1, 1, 1, 1), [[2.0]], weight_decay=size * (2.0 - size**3))
    run = dl.flow(net, [1.1 * size] * 3, (0.0, 300.0))
    visits = dl.saddle_visits(net, run)
    assert visits.critical_point.values.tolist() == ["{0}"]
    below = dl.flow(net, [0.999 * size] * 3, (0.0, 3000.0))
    assert dl.saddle_visits(net, below).critical_point.values.tolist() == ["{0}", "{}"]


def test_decays_that_differ_have_the_visits_of_their_mean_without_a_law():
    """W_i → c_i W_i with Π c_i = 1 makes each decay the geometric mean, and keeps the map."""
    net = dl.LinearNetwork((2, 2, 2), np.diag([3.0, 1.0]), weight_decay=(0.1, 0.4))
    run = dl.flow(net, net.initial("aligned", scale=1e-3))
    visits = dl.saddle_visits(net, run)
    assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}"]
    np.testing.assert_allclose(net.critical_strengths[1], [2.8, 0.8], rtol=1e-12)
    assert np.isfinite(visits.escape_time[:2]).all()
    assert np.isnan(visits.predicted_escape_time).all()
    half = dl.LinearNetwork((2, 2, 2), np.eye(2), weight_decay=(0.0, 0.4))
    raw = dl.LinearNetwork((2, 2, 2), np.eye(2), np.diag([1.0, 2.0]), weight_decay=0.1)
    for other in (half, raw):
        run = dl.flow(other, other.initial(scale=0.1, rng=0), (0, 1))
        with pytest.raises(ValueError, match="^net: needs whitened inputs and a weight decay"):
            dl.saddle_visits(other, run)


def test_ensembles_of_decayed_runs_have_their_points_and_laws():
    net, radius = decayed(2, 0.5), 0.03
    starts = [net.initial("aligned", scale=scale) for scale in (1e-3, 2e-3, 4e-3)]
    runs = dl.flow(net, np.stack(starts))
    seen = dl.observed_connections(net, runs, radius=radius)
    dl.schema.validate(seen)
    assert set(seen.sequence.values.tolist()) == {"{} {0} {0,1} {0,1,2}"}
    assert dl.schema.decode(seen.kind).values.tolist() == ["add"] * 3
    assert dl.schema.decode(seen.leads).values.tolist() == ["open"] * 3
    points = dl.critical_points(net)
    for label, loss in zip(seen.critical_point.values, seen.loss.values, strict=True):
        assert loss == pytest.approx(float(points.loss.sel(critical_point=label)), rel=1e-12)
    np.testing.assert_allclose(seen["drop"], -np.diff(seen.loss), rtol=1e-12)
    kappa = net.singular_values - 0.5
    np.testing.assert_allclose(seen.law_growth_time, np.log(19.0) / (2.0 * kappa), rtol=1e-12)
    np.testing.assert_allclose(seen.mean_growth_time, seen.law_growth_time, rtol=1e-5)


def test_an_unstable_root_is_left_for_either_side():
    net = decayed(3, 0.3, (2.0,))
    lower, _ = net.critical_strengths
    runs = dl.flow(net, np.cbrt(lower) * np.array([[0.999], [1.001], [1.002]]) * np.ones(3))
    seen = dl.observed_connections(net, runs, radius=0.3 * lower[0] / 2.0)
    assert seen.critical_point.values.tolist() == ["{}", "{0⁺}", "{0⁻}"]
    assert seen.ended.values.tolist() == [1, 2, 0]
    assert seen.visitors.values.tolist() == [1, 2, 3]
    edges = list(zip(seen.source.values, seen.target.values, seen.visited.values, strict=True))
    assert sorted(edges) == [("{0⁻}", "{0⁺}", 2), ("{0⁻}", "{}", 1)]
    assert not seen.is_connection.any()
    assert (seen["drop"] > 0.0).all()


def nearest_points(net, maps, points):
    """Names of the points whose maps U s^h Vᵀ are nearest to each map, of all that there are."""
    U, _, Vt = np.linalg.svd(net.target)
    k = points.sizes["mode"]
    sizes = (
        points["size"]
        if net.is_decayed
        else points.learnt * points.singular_value ** (1.0 / net.depth)
    )
    own = np.einsum("ik,pk,kj->pij", U[:, :k], sizes.values**net.depth, Vt[:k])
    away = np.linalg.norm(maps[:, None] - own, axis=(-2, -1))
    return points.critical_point.values[np.argmin(away, axis=1)], away.min(axis=1)


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("widths", [(2, 1, 2, 2), (2, 1, 2), (3, 2, 3, 3)])
def test_visits_of_bottlenecks_are_those_of_the_nearest_points_that_there_are(widths, decay):
    target = np.diag([3.0, 2.0, 1.2][: widths[0]])
    net = dl.LinearNetwork(widths, target, weight_decay=decay)
    points, radius = dl.critical_points(net), 0.6
    for seed in range(3):
        run = dl.flow(net, net.initial(scale=0.5, rng=seed), save=["product"])
        visits = dl.saddle_visits(net, run, radius=radius)
        maps = run["product"].values
        names, away = nearest_points(net, maps, points)
        near = away <= radius * np.linalg.norm(target)
        rows = [name for name, inside in zip(names, near, strict=True) if inside]
        assert visits.critical_point.values.tolist() == [n for n, _ in itertools.groupby(rows)]
        seen = dl.observed_connections(net, run, radius=radius)
        assert {*seen.source.values, *seen.target.values} <= {*points.critical_point.values}
        assert not (visits.escape_time < 0.0).any()
        assert not (visits.growth_time > visits.escape_time).any()


def test_visits_end_where_another_root_is_nearer_and_events_where_their_own_is_left():
    """A run from the smaller root to the larger one, whose neighbourhoods overlap."""
    net = dl.LinearNetwork((1, 1, 1, 1), [[2.0]], weight_decay=1.15)
    (low,), (high,) = net.critical_strengths
    radius = 0.4 * (high - low)  # in terms of σ = 2: 0.8 of the way
    event = dl.events.near_saddle(net, (0,), branch="lower", radius=radius, direction="rising")
    start = [(low + 1e-3) ** (1.0 / 3.0)] * 3
    watched = dl.flow(net, start, (0.0, 60.0), events=event, save=["product"])
    leaves = watched["product"].values[watched.event.values == 0, 0, 0]
    np.testing.assert_allclose(leaves, [low + 0.8 * (high - low)], rtol=1e-6)
    times = np.linspace(0.0, 60.0, 6001)
    run = dl.flow(net, start, (0.0, 60.0), t_eval=times, save=["product"])
    visits = dl.saddle_visits(net, run, radius=radius)
    assert visits.critical_point.values.tolist() == ["{0⁻}", "{0⁺}"]
    ends = run["product"].values[run.time.values == visits.exit.values[0], 0, 0]
    assert low + 0.49 * (high - low) < ends[-1] <= low + 0.5 * (high - low)
