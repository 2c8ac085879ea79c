"""The atlas: what it says of points, arcs, connections and runs, against each by itself."""

import naive
import numpy as np
import pytest
from hypothesis import given
from points import hessian

import dlnds as dl


def index_sets(net):
    return [dl.schema.index_set_modes(s) for s in dl.critical_points(net).critical_point.values]


@given(naive.small_networks)
def test_inertia_of_the_atlas_is_that_of_the_dense_hessian(net):
    """At canonical points the inertia is that of the whitened problem, for every C."""
    points = dl.build_atlas(net)["points"].to_dataset()
    for k, modes in enumerate(index_sets(net)):
        x = net.critical_state(modes)
        spectrum = dl.linearize(net, x, method="dense", zero_tolerance=1e-8)
        if spectrum.attrs["smallest_nonzero"] < 1e-6:
            continue  # too close to a tie to be decided in floating point
        assert int(spectrum["index"]) == points["index"][k]
        assert int(spectrum.nullity) == points["nullity"][k]


@given(naive.small_networks)
def test_the_atlas_says_of_canonical_points_what_is_found_at_them(net):
    """Orders, dimensions and rates without a state, against those of the state."""
    points = dl.build_atlas(net)["points"].to_dataset()
    for k, modes in enumerate(index_sets(net)):
        x, row = net.critical_state(modes), points.isel(critical_point=k)
        point, fiber = dl.classify(net, x), dl.fiber_dimension(net, x)
        assert int(row.order_of_descent) == int(point.order_of_descent)
        assert int(row.kind) == int(point.kind)
        for name in ("orbit_dimension", "fiber_dimension", "is_complete"):
            assert int(row[name]) == int(fiber[name]), name
        assert int(row.transverse_index) == int(row["index"])
        assert ("departure_rate" in points) == net.whitened


def test_equal_singular_values_add_zeros_instead_of_negative_directions():
    for depth in (2, 3):
        net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag([2.0, 2.0, 1.0]))
        points = dl.build_atlas(net)["points"].to_dataset()
        for k, modes in enumerate(index_sets(net)):
            spectrum = dl.linearize(net, net.critical_state(modes), method="dense")
            assert int(spectrum["index"]) == points["index"][k]
            assert int(spectrum.nullity) == points["nullity"][k]
        kinds = dl.schema.decode(points.kind).sel(critical_point=["{0}", "{1}", "{2}"]).values
        middle = "strict_saddle" if depth == 2 else "nonstrict_saddle"
        assert kinds.tolist() == [middle, middle, "strict_saddle"]


@pytest.mark.parametrize(
    ("widths", "sigma"),
    [((3, 2, 3), (2, 2, 1)), ((4, 4, 4), (3, 2, 2, 2)), ((3, 1, 3), (2, 2, 2))],
)
def test_fibers_of_two_layers_have_the_dimension_of_the_kernel(widths, sigma):
    """All zeros of these Hessians lie along critical points: bases, or W = P Σ turned."""
    net = dl.LinearNetwork(widths, target=np.diag(sigma))
    rows = dl.build_atlas(net)["points"].to_dataset()
    for k, modes in enumerate(index_sets(net)):
        layers = naive.split(net, net.critical_state(modes))
        values = np.linalg.eigvalsh(hessian(layers, net.target))
        assert int(rows.fiber_dimension[k]) == np.sum(np.abs(values) < 1e-9)


def test_small_singular_values_are_told_apart():
    net = dl.LinearNetwork(widths=(3, 2, 3), target=np.diag([1.0, 3e-10, 1e-10]))
    points = dl.build_atlas(net)["points"].to_dataset()
    kinds = dl.schema.decode(points.kind)
    assert kinds.sel(critical_point="{0,1}") == "global_minimum"
    assert kinds.sel(critical_point="{0,2}") == "strict_saddle"
    for k, modes in enumerate(index_sets(net)):
        closed = dl.canonical_spectrum(net, iter(modes))
        assert int(closed["index"]) == points["index"][k]
        assert int(closed.nullity) == points["nullity"][k]


def test_number_of_arcs_is_that_of_the_hypercube():
    """Edges of the cube by what they add; pairs of modes for swaps and channels across."""
    net = dl.LinearNetwork(widths=(5, 6, 6, 5), target=np.diag([5.0, 4.0, 3.0, 2.0, 1.0]))
    shapes = dl.schema.decode(dl.build_atlas(net)["arcs"]["shape"]).values.tolist()
    edges, pairs = 5 * 2**4, 5 * 4 * 2**3
    counts = [edges, 0, 2 * edges, 2 * edges, pairs, 2 * edges, pairs, pairs]
    assert [shapes.count(shape) for shape in dl.schema.ARC_SHAPES] == counts


def test_equal_calls_give_identical_atlases():
    net = dl.load_problem("linnerud", hidden=(4, 4))
    assert dl.build_atlas(net).identical(dl.build_atlas(net))


def test_a_loss_of_one_layer_has_one_critical_point():
    atlas = dl.build_atlas(naive.random_network((3, 2), 0, "singular"))
    assert atlas["points"].critical_point.values.tolist() == ["{0,1}"]
    assert atlas["points"]["nullity"].values.tolist() == [2]
    assert atlas["arcs"].sizes["arc"] == 0


def test_the_atlas_holds_connections_and_what_runs_did():
    net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    atlas = dl.build_atlas(net, n_runs=3, scale=1e-3, rng=5)
    dl.schema.validate(atlas)
    starts = [net.initial(scale=1e-3, rng=rng) for rng in [np.random.default_rng(5)] for _ in "abc"]
    runs = dl.flow(net, np.stack(starts), save=["mode_strength"])
    seen = dl.observed_connections(net, runs)
    visits, graph = (atlas[name].to_dataset() for name in ("visits", "connections"))
    assert visits.drop_attrs(deep=False).identical(seen.drop_attrs(deep=False))
    assert visits.attrs["start_scale"] == 1e-3
    assert graph.drop_attrs(deep=False).identical(
        dl.overlay(dl.connections(net), seen).drop_attrs(deep=False)
    )
    assert atlas.identical(dl.build_atlas(net, n_runs=3, scale=1e-3, rng=5, workers=2))
    plain = dl.build_atlas(net)
    assert "visits" not in plain.children
    assert plain["connections"].to_dataset().identical(dl.connections(net))
    raw = dl.build_atlas(naive.random_network((2, 3, 2), 0, "full"), n_runs=1, rng=0)
    assert "connections" not in raw.children
    assert raw["visits"].attrs["n_runs"] == 1
    alone = dl.build_atlas(net, max_rank=0, n_runs=2, rng=0)
    assert alone["connections"].sizes["edge"] == 0
    assert alone["connections"].attrs["n_runs"] == 2


def test_an_atlas_of_too_many_connections_tells_their_number(monkeypatch):
    net = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag([3.0, 2.0, 1.0]))
    monkeypatch.setattr("dlnds.saddles.atlas.MOST_CONNECTIONS", 17)
    atlas = dl.build_atlas(net)
    assert "connections" not in atlas.children
    assert atlas.attrs["n_connections"] == dl.connections(net).sizes["edge"] == 18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_runs": -1}, "^n_runs: needs at least 0"),
        ({"n_runs": 1.5}, "^n_runs: needs an integer"),
        ({"n_runs": 1, "scale": -1.0}, "^scale: "),
        ({"n_runs": 1, "rng": -1}, "^rng: "),
        ({"n_runs": 1, "workers": 0}, "^workers: "),
        ({"n_run": 1}, "^n_run: "),
    ],
)
def test_bad_ensembles_of_an_atlas_are_named(options, message):
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    with pytest.raises((ValueError, TypeError), match=message):
        dl.build_atlas(net, **options)
