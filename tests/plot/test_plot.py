"""Pictures: what is in them, and that they say what it is."""

import functools
import itertools

import calls
import hypothesis
import hypothesis.strategies as st
import matplotlib.pyplot as plt
import matplotlib.text
import numpy as np
import pytest
import xarray as xr
from matplotlib.legend import Legend

import dlnds as dl
from dlnds.plot import canvas, layout
from dlnds.plot import landscape as graphs

NET = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
ATLAS = dl.build_atlas(NET)
RUN = dl.flow(NET, NET.initial(scale=0.1, rng=0), (0, 30), save=("singular_value",))


def test_levels_show_every_point_and_every_arc():
    ax = dl.plot.levels(ATLAS)
    collections = ax.collections
    assert len(collections[0].get_paths()) == 12
    assert sum(len(c.get_offsets()) for c in collections[1:]) == 8
    assert ax.get_ylabel() == "loss $L$"
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["global minimum (1)", "strict saddle (4)", "non-strict saddle (3)"]
    offsets = np.vstack([c.get_offsets() for c in collections[1:]])
    expected = np.stack([ATLAS["points"]["rank"], ATLAS["points"]["loss"]], axis=1)
    assert sorted(map(tuple, offsets.tolist())) == sorted(map(tuple, expected.tolist()))


def test_loss_is_drawn_over_the_levels():
    ax = dl.plot.loss(RUN, points=ATLAS["points"].to_dataset())
    curves = [line for line in ax.lines if len(line.get_xdata()) == RUN.sizes["time"]]
    np.testing.assert_array_equal(curves[0].get_ydata(), RUN.loss)
    assert [t.get_text() for t in ax.texts] == ["{0,1,2}", "{0,1}", "{0}", "{}"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time $t$", "loss $L$")


def test_singular_values_are_drawn_one_line_a_mode():
    ax = dl.plot.singular_values(RUN, modes=NET.modes)
    curves = [line for line in ax.lines if len(line.get_xdata()) == RUN.sizes["time"]]
    assert len(curves) == 3
    with pytest.raises(ValueError, match="^run: has no singular values"):
        dl.plot.singular_values(RUN.drop_vars("singular_value"))


def test_runs_of_gradient_descent_and_of_others_are_drawn_as_those_of_the_flow():
    save, start = ("state", "singular_value", "mode_strength"), NET.initial(scale=0.1, rng=0)
    descent = dl.GradientDescent(NET, 0.02)
    steps = dl.iterate(descent, start, 1500, every=10, save=save)
    stack = dl.iterate(descent, np.stack([start, 2 * start]), 1500, every=10, save=save)
    layers = [NET.unpack(x) for x in steps.state.values]
    imported = dl.as_run(NET, steps.time.values, layers, save=save)
    points = dl.critical_points(NET)
    for run, lines, clock in (
        (steps, 1, "iteration $n$"),
        (stack, 2, "iteration $n$"),
        (imported, 1, "time $t$"),
    ):
        dim = "time" if run is imported else "iteration"
        for ax, count in (
            (dl.plot.loss(run, points=points), lines),
            (dl.plot.singular_values(run, modes=NET.modes), 3 * lines),
            (dl.plot.by_schema(run), lines),
            (dl.plot.by_schema(run.drop_vars("loss")), NET.dim * lines),
        ):
            curves = [line for line in ax.lines if len(line.get_xdata()) == run.sizes[dim]]
            assert len(curves) == count
            np.testing.assert_array_equal(curves[0].get_xdata(), run[dim])
            assert ax.get_xlabel() == clock
            assert ax.get_ylabel()
    visits = [dl.saddle_visits(NET, run) for run in (steps, imported)]
    texts = [[t.get_text() for t in dl.plot.visits(found).texts] for found in visits]
    assert texts[0] == texts[1]
    seen = dl.observed_connections(NET, stack)
    assert "of 2 runs" in dl.plot.by_schema(seen).get_title()
    graph = dl.overlay(dl.connections(NET), seen)
    assert dl.plot.by_schema(graph).has_data()


def test_levels_of_raw_inputs_are_those_of_the_map_that_fits():
    """W is drawn, and it tends to the least-squares map."""
    rng = np.random.default_rng(0)
    X = np.diag([3.0, 1.0, 0.3]) @ rng.normal(size=(3, 30))
    Y = rng.normal(size=(3, 30))
    net = dl.LinearNetwork.from_data(X, Y, hidden=(3,), whiten=False)
    run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 1), save=["singular_value"])
    ax = dl.plot.singular_values(run, modes=net.modes)
    levels = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    exact = np.linalg.svd(Y @ np.linalg.pinv(X), compute_uv=False)
    np.testing.assert_allclose(levels, exact, rtol=1e-10)


def test_chosen_modes_keep_their_colours_and_levels():
    whole = dl.plot.singular_values(RUN, modes=NET.modes)
    part = dl.plot.singular_values(RUN.isel(mode=[2, 1]), modes=NET.modes)
    drawn = [
        {(line.get_color(), tuple(np.asarray(line.get_ydata()))) for line in ax.lines}
        for ax in (whole, part)
    ]
    assert len(drawn[1]) == 4  # two levels, two curves
    assert drawn[1] < drawn[0]


def test_stacks_of_runs_draw_all_members():
    runs = dl.flow(NET, np.stack([NET.initial(scale=0.1, rng=i) for i in range(3)]), (0, 5))
    assert len(dl.plot.loss(runs).lines) == 3


def test_pictures_go_where_they_are_told():
    _, axes = plt.subplots(2, 2)
    spectrum = dl.canonical_spectrum(NET, (1,))
    assert dl.plot.levels(ATLAS, ax=axes[0, 0]) is axes[0, 0]
    assert dl.plot.loss(RUN, ax=axes[0, 1]) is axes[0, 1]
    assert dl.plot.singular_values(RUN, ax=axes[1, 0]) is axes[1, 0]
    assert spectrum.dlnds.plot(ax=axes[1, 1]) is axes[1, 1]
    assert len(plt.get_fignums()) == 1
    np.testing.assert_array_equal(axes[1, 1].lines[1].get_ydata(), spectrum.eigenvalue)


def test_long_paths_have_short_labels_that_keep_apart():
    net = dl.LinearNetwork(widths=(7, 7, 7), target=np.diag([4.0, 3.5, 3.0, 2.5, 2.0, 0.2, 0.1]))
    run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 5))
    ax = dl.plot.loss(run, points=dl.critical_points(net))
    labels = ["{0…6}", "{0…5}", "{0…4}", "{0,1,2,3}", "{0,1,2}", "{0,1}", "{0}", "{}"]
    assert [text.get_text() for text in ax.texts] == labels
    ax.figure.canvas.draw()
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in ax.texts]
    assert all(one.y1 <= other.y0 + 1.0 for one, other in itertools.pairwise(boxes))


def test_small_levels_have_a_logarithmic_axis_that_begins_below_them():
    net = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag([1.0, 0.1, 0.01]))
    run = dl.flow(net, net.initial(scale=0.1, rng=0))
    ax = dl.plot.loss(run, points=dl.critical_points(net))
    assert ax.get_yscale() == "symlog"
    assert -1e-5 < ax.get_ylim()[0] < 0.0
    assert ax.get_ylim()[1] > run.loss.max()


@pytest.mark.parametrize(
    ("sigma", "scale", "expected"),
    [
        ((1e-4, 1e-5), 0.1, "symlog"),  # the start is far above, levels span a hundred times
        ((2.0, 1.9), 6.0, "symlog"),  # far above the only levels
        ((1.0, 0.5), 1e-2, "linear"),  # from plateau to plateau
        ((1e-4, 0.5e-4), 1e-6, "linear"),  # the same in other units
        ((3.0, 1.0), 0.7, "linear"),  # a little above
    ],
)
def test_levels_that_runs_pass_are_seen(sigma, scale, expected):
    """Positive ones are apart from each other and from zero, however high the run begins."""
    net = dl.LinearNetwork((2, 2, 2), np.diag(sigma))
    run = dl.flow(net, net.initial(rng=1, scale=scale))
    ax = dl.plot.loss(run, points=dl.critical_points(net))
    assert ax.get_yscale() == expected
    levels = [0.0, *0.5 * np.cumsum(np.square(sigma[::-1]))]
    heights = ax.transAxes.inverted().transform(
        ax.transData.transform([(0.0, level) for level in levels])
    )[:, 1]
    assert heights[0] > 0.0
    assert (np.diff(heights) > 0.01).all()
    top = ax.transData.transform((0.0, float(run.loss.max())))
    assert ax.transAxes.inverted().transform(top)[1] < 1.0


def test_complex_spectra_are_drawn_in_the_plane():
    def turn(t, x, params, out):
        out[0], out[1] = x[1], -x[0]

    ax = dl.plot.spectrum(dl.linearize(dl.System(turn, dim=2), [0.0, 0.0]))
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [-1.0, 1.0], atol=1e-8)


def test_other_data_are_refused():
    spin = dl.System(lambda t, x, params, out: out.fill(1.0), dim=1)
    with pytest.raises(ValueError, match="^run: has no loss"):
        dl.plot.loss(dl.flow(spin, [0.0], (0, 1)))
    for name, call in [
        ("atlas", lambda: dl.plot.levels(RUN)),
        ("atlas", lambda: dl.plot.graph(RUN)),
        ("ax", lambda: dl.plot.graph(ATLAS, ax=3)),
        ("run", lambda: dl.plot.loss(np.zeros(3))),
        ("run", lambda: dl.plot.singular_values(ATLAS)),
        ("points", lambda: dl.plot.loss(RUN, points=RUN)),
        ("modes", lambda: dl.plot.singular_values(RUN, modes=3)),
        ("linearization", lambda: dl.plot.spectrum(RUN)),
        ("ax", lambda: dl.plot.loss(RUN, ax=3)),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            call()
    with pytest.raises(ValueError, match="^data: there is no picture of schema 'mode'"):
        NET.modes.assign_attrs(schema="mode").dlnds.plot()


def test_problems_with_one_critical_point_can_be_drawn():
    for net in (
        dl.LinearNetwork(widths=(2, 2), target=np.eye(2)),
        dl.LinearNetwork(widths=(2, 2, 2), target=np.zeros((2, 2))),
    ):
        atlas = dl.build_atlas(net)
        dl.plot.levels(atlas)
        dl.plot.graph(atlas).figure.canvas.draw()
        atlas["connections"] = dl.connections(net)
        dl.plot.graph(atlas).figure.canvas.draw()


GRAPH = ATLAS.copy()
GRAPH["connections"] = dl.connections(NET)
WIDE = dl.LinearNetwork(widths=(8, 8, 8, 8), target=np.diag(1.5 * 0.8 ** np.arange(8.0)))


@functools.cache
def of_256_points():
    atlas = dl.build_atlas(WIDE, n_alpha=2)
    atlas["connections"] = dl.connections(WIDE, n_points=2)
    return atlas


def with_visits(atlas, *rows):
    source, target, visited, probability, time = zip(*rows, strict=True)
    visits = xr.Dataset(
        {
            "visited": ("edge", list(visited)),
            "probability": ("edge", list(probability)),
            "mean_escape_time": ("edge", list(time)),
        },
        coords={"source": ("edge", list(source)), "target": ("edge", list(target))},
        attrs={"schema": "observed_connections", "dlnds_version": dl.__version__},
    )
    atlas = atlas.copy()
    atlas["visits"] = visits
    return atlas


def drawn(ax):
    """Return points, curves and widths, by layer, of what a picture of a graph shows."""
    layers = sorted(ax.collections, key=lambda c: c.get_zorder())
    points = [c for c in layers if len(c.get_offsets()) and c.get_zorder() == 3]
    curves = [c for c in layers if c.get_zorder() < 2]
    return np.vstack([c.get_offsets() for c in points]), curves


def ends(curve):
    vertices = curve.vertices
    return (*vertices[0].round(9).tolist(), *vertices[-1].round(9).tolist())


def test_the_graph_shows_every_point_at_its_loss_and_every_connection_once():
    ax = dl.plot.graph(GRAPH)
    points, layers = drawn(ax)
    table = GRAPH["points"].to_dataset()
    assert sorted(points[:, 1]) == sorted(table.loss.values)
    x = dict(zip(points[:, 1].tolist(), points[:, 0].tolist(), strict=True))  # losses are distinct
    places = np.array([x[level] for level in table.loss.values.tolist()])
    assert np.abs(places - table["rank"].values).max() < 0.5
    graph = GRAPH["connections"]
    band, edges = layers[0], [p for layer in layers[1:] for p in layer.get_paths()]
    assert len(band.get_paths()) == 3
    loss = table.loss.to_series()
    expected = [
        (round(x[loss[a]], 9), round(loss[a], 9), round(x[loss[b]], 9), round(loss[b], 9))
        for a, b in zip(graph.source.values, graph.target.values, strict=True)
    ]
    assert sorted(map(ends, edges)) == sorted(expected)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rank $r$", "loss $L$")
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == [
        *("global minimum (1)", "strict saddle (4)", "non-strict saddle (3)"),
        *("adds a mode (12)", "swaps two modes (6)"),
        *("fastest way out of each saddle (7)", "generic path (3)"),
    ]


def test_connections_are_coloured_by_time_and_bent_by_kind():
    ax = dl.plot.graph(GRAPH)
    graph = GRAPH["connections"].to_dataset()
    bar = next(a for a in ax.figure.axes if a is not ax)
    assert bar.get_ylabel() == r"escape time $t$ from $\varepsilon = 0.001$"
    times = np.sort(graph.escape_time.sel(scale=1e-3).values)
    np.testing.assert_allclose(bar.get_ylim(), times[[0, -1]])
    kinds = dl.schema.decode(graph.kind).values
    loss = GRAPH["points"].loss.to_series()
    by_ends = {
        (loss[a], loss[b]): (kind, float(time))
        for a, b, kind, time in zip(
            *(graph.source.values, graph.target.values, kinds),
            graph.escape_time.sel(scale=1e-3).values,
            strict=True,
        )
    }
    brightness = {}
    for layer in filter(lambda layer: layer.get_paths(), drawn(ax)[1][1:]):
        for path, colour in zip(layer.get_paths(), layer.get_edgecolors(), strict=True):
            begin, control, end = path.vertices
            kind, time = by_ends[begin[1], end[1]]
            bend = control[0] - 0.5 * (begin[0] + end[0])
            assert (bend > 0.04) == (kind == "swap")
            assert bend > -1e-12
            brightness[time] = colour[:3].sum()
    assert len(brightness) == 6  # three modes to add, three pairs to swap
    assert (np.diff([brightness[t] for t in sorted(brightness)]) > 0).all()


def test_the_fastest_way_out_of_each_saddle_stands_out():
    edges = layout.edges(GRAPH)
    lead = layout.leading(edges)
    for source in range(8):
        mine = edges.take(edges.source == source)
        chosen = edges.take((edges.source == source) & lead)
        assert len(chosen.time) == (1 if len(mine.time) else 0)
        assert chosen.time.tolist() == [min(mine.time)] if len(mine.time) else True
    weak, strong = drawn(dl.plot.graph(GRAPH))[1][1:3]
    assert len(strong.get_paths()) == lead.sum() == 7
    assert strong.get_linewidth()[0] > 2.0 * weak.get_linewidth()[0]


def shown(ax):
    """Return the boxes of the labels that are drawn, in pixels, and their texts."""
    renderer = ax.figure.canvas.get_renderer()
    texts = [t for t in ax.texts if t.get_visible()]
    return [t.get_window_extent(renderer) for t in texts], [t.get_text() for t in texts]


def lines_to_labels(ax):
    (fitting,) = (artist for artist in ax.artists if isinstance(artist, canvas.FittingLabels))
    return fitting.lines


def check_lines(ax):
    """Each line goes from its point to its label, and no line or other label is in its way."""
    renderer = ax.figure.canvas.get_renderer()
    labels = {text.get_gid(): text for text in ax.texts if text.get_visible()}
    boxes = {name: text.get_window_extent(renderer) for name, text in labels.items()}
    lines = {line.get_gid().replace("line", "label"): line for line in lines_to_labels(ax)}
    for name, line in lines.items():
        begin, end = line.get_xydata()
        path, own = line.get_path(), boxes[name]
        assert np.linalg.norm(begin - ax.transData.transform(labels[name].xy)) < 0.1 * ax.bbox.width
        assert np.linalg.norm(end - np.clip(end, own.min, own.max)) < 3.0
        others = [box for other, box in boxes.items() if other != name]
        assert not any(path.intersects_bbox(box, filled=False) for box in others)
        others = [other.get_path() for key, other in lines.items() if key != name]
        assert not any(path.intersects_path(other) for other in others)


def check_labels(ax):
    ax.figure.canvas.draw()
    boxes, texts = shown(ax)
    low, high = (np.array([getattr(box, end) for box in boxes]) for end in ("min", "max"))
    legends = [legend.get_window_extent() for legend in ax.findobj(Legend)]
    own = ax.get_legend().get_window_extent()
    assert own.y1 < ax.bbox.y0  # hides nothing
    inside = [box for box in legends if box.y1 > ax.bbox.y0]
    low = np.vstack([low, *(box.min for box in inside)])
    high = np.vstack([high, *(box.max for box in inside)])
    apart = (high[:, None] <= low).any(axis=-1)
    assert (apart | apart.T)[~np.eye(len(low), dtype=bool)].all()
    marks = ax.transData.transform(drawn(ax)[0])[:, None]
    marked = ((marks > low) & (marks < high)).all(axis=-1).any(axis=0)[: len(texts)]
    led = {line.get_gid() for line in lines_to_labels(ax)}
    own = [
        text.get_gid().replace("label", "line") in led for text in ax.texts if text.get_visible()
    ]
    assert not marked[~np.array(own)].any()
    assert (low >= ax.bbox.min).all()
    assert (high <= ax.bbox.max).all()
    return texts


def test_labels_never_overlap_whatever_the_size_of_the_picture():
    atlas = of_256_points()
    ax = dl.plot.graph(atlas)
    texts = check_labels(ax)
    path = ["{}", "{0}", "{0,1}", "{0,1,2}", "{0,1,2,3}", "{0…4}", "{0…5}", "{0…6}", "{0…7}"]
    assert texts[:9] == path
    assert len(texts) > 60
    ax.set_title("a title")
    ax.figure.set_size_inches(6.0, 4.0)
    assert 9 <= len(check_labels(ax)) < len(texts)
    ax.set_xlim(3.4, 4.6)
    inside = check_labels(ax)
    assert len(inside) > 20
    assert all(3 <= len(dl.schema.index_set_modes(text)) <= 5 for text in inside[1:])


@pytest.mark.parametrize("sigma", [[3.0, 2.2, 1.3, 0.6], [1.06, 0.378, 0.102, 0.0592]])
def test_all_labels_of_small_atlases_are_shown(sigma):
    """Those of points beneath the lowest path, as weak modes have them, at the end of a line."""
    net = dl.LinearNetwork(widths=(4, 5, 5, 4), target=np.diag(sigma))
    atlas = dl.build_atlas(net)
    atlas["connections"] = dl.connections(net)
    ax = dl.plot.graph(atlas)
    assert set(check_labels(ax)) == set(atlas["points"].critical_point.values)
    check_lines(ax)


def along(ax, *names):
    """Return points of edges of these layers, in pixels, less than a pixel apart."""
    layers = [layer for layer in ax.collections if layer.get_gid() in names]
    paths = [path for layer in layers for path in layer.get_paths()]
    t = np.linspace(0.0, 1.0, 1500)[:, None]
    ends = [ax.transData.transform(path.vertices) for path in paths]
    return np.vstack([(1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c for a, b, c in ends])


@pytest.mark.parametrize("count", [4, 16, 64, 256])
def test_labels_keep_clear_of_strong_edges(count):
    """Of the lowest path and of what runs took in any picture, of all of them in small ones."""
    modes = int(np.log2(count))
    net = dl.LinearNetwork((modes,) * 4, np.diag(np.linspace(4.0, 1.0, modes) ** 1.3))
    atlas = with_visits(
        dl.build_atlas(net), ("{}", "{0}", 10, 1.0, 5.0), ("{}", "{1}", 1, 0.1, 9.0)
    )
    ax = dl.plot.graph(atlas)
    check_labels(ax)
    low, high = (np.array([getattr(box, end) for box in shown(ax)[0]]) for end in ("min", "max"))
    names = ["edges-generic", "edges-case", "edges-observed", "edges-taken"]
    ways = along(ax, *names, *["edges-lead", "edges-path"] * (count <= 16))
    assert not ((ways[:, None] > low) & (ways[:, None] < high)).all(axis=-1).any()
    assert len(low) >= min(count, 40)


def test_points_keep_apart():
    """Disks of the saddles, 4 points wide, do not touch, though 70 of them share a column."""
    ax = dl.plot.graph(of_256_points())
    ax.autoscale_view()
    places = ax.transData.transform(drawn(ax)[0])
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    assert distances[~np.eye(256, dtype=bool)].min() > 4.0 * ax.figure.dpi / 72.0


@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_labels_that_fit_touch_nothing(seed, count):
    rng = np.random.default_rng(seed)
    anchors = rng.uniform(0.0, 100.0, (count, 2))
    sizes = rng.uniform(1.0, 20.0, (count, 2))
    obstacles = np.hstack([anchors - 0.5, anchors + 0.5])
    corners = layout.fit_labels(sizes.tolist(), anchors, [2.0] * count, obstacles, (0, 0, 100, 100))
    boxes = [
        (*corner, *(np.array(corner) + size))
        for corner, size in zip(corners, sizes, strict=True)
        if corner is not None
    ]
    for box in boxes:
        assert min(box) >= 0.0
        assert max(box) <= 100.0
    for a, b in itertools.combinations([*boxes, *map(tuple, obstacles)], 2):
        both_obstacles = a in map(tuple, obstacles)
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart or both_obstacles
    if count == 1 and (np.abs(anchors - 50.0) < 25.0).all():
        assert corners[0] is not None


def test_what_runs_did_is_laid_over_the_graph():
    atlas = with_visits(
        GRAPH,
        ("{}", "{0}", 10, 1.0, 5.0),
        ("{0}", "{0,2}", 2, 0.2, 7.0),
        ("{0}", "{0,1,2}", 1, 0.1, 9.0),  # no connection joins these
        ("{1}", "{0}", 0, 0.0, np.nan),  # no run went there
        ("{7}", "{0}", 3, 1.0, 1.0),  # not in the atlas
    )
    ax = dl.plot.graph(atlas)
    *_, casing, dotted, core = drawn(ax)[1]
    assert len(casing.get_paths()) == len(core.get_paths()) == 2
    assert min(casing.get_linewidth()) > min(core.get_linewidth())
    widths = core.get_linewidth()
    assert max(widths) > 2.0 * min(widths)
    assert len(dotted.get_paths()) == 1
    assert "taken by runs (3)" in [t.get_text() for t in ax.get_legend().get_texts()]
    edges = layout.edges(atlas)
    assert edges.kind.tolist().count("observed") == 1
    order = layout.importance(atlas["points"].to_dataset(), edges)
    labels = atlas["points"].critical_point.values[order].tolist()
    assert labels[:5] == ["{}", "{0}", "{0,2}", "{0,1,2}", "{0,1}"]


def test_without_connections_the_arcs_are_drawn_by_their_mode():
    net = dl.LinearNetwork.from_moments(
        np.diag([3.0, 2.0, 1.0]), np.diag([1.0, 2.0, 0.5]), hidden=(3, 3), whiten=False
    )
    atlas = dl.build_atlas(net)
    ax = dl.plot.graph(atlas)
    _, layers = drawn(ax)
    arcs = atlas["arcs"].to_dataset()
    down = np.flatnonzero(dl.schema.decode(arcs.kind) == "decreasing")
    ends = zip(arcs.source.values[down], arcs.target.values[down], strict=True)
    joined = {pair for pair in ends if pair[1]}
    assert sum(len(layer.get_paths()) for layer in layers[1:]) == len(joined) >= 12
    colours = np.vstack(
        [layer.get_edgecolors()[:, :3] for layer in layers[1:] if layer.get_paths()]
    )
    assert len(np.unique(colours, axis=0)) == 3
    bar = next(a for a in ax.figure.axes if a is not ax)
    assert bar.get_ylabel() == "mode added along the arc"
    assert "largest drop of each saddle (7)" in [t.get_text() for t in ax.get_legend().get_texts()]


def test_of_many_edges_the_fastest_are_drawn(monkeypatch):
    monkeypatch.setattr(graphs, "MOST_EDGES", 10)
    ax = dl.plot.graph(GRAPH)
    drawn_edges = sum(len(layer.get_paths()) for layer in drawn(ax)[1][1:])
    edges = layout.edges(GRAPH)
    assert drawn_edges == (layout.leading(edges) | edges.generic).sum() == 7
    assert ax.get_legend().get_texts()[-1].get_text() == "11 others are not drawn"


PATH_256 = ["{" + ",".join(map(str, range(rank))) + "}" for rank in range(9)]


@functools.cache
def visited_256():
    """A crowded atlas of which runs took a way off the generic path."""
    labels = ["{}", "{0}", "{1}", "{0,1}", "{0,1,2}", "{0,1,2,3,5}", "{0,1,2,3,4}"]
    pairs = itertools.pairwise(labels)
    return with_visits(of_256_points(), *((a, b, 2, 1.0, 5.0) for a, b in pairs))


def layers(ax):
    return {c.get_gid(): c for c in ax.collections if c.get_gid()}


def test_of_many_points_only_those_that_matter_are_strong():
    ax, atlas = dl.plot.graph(visited_256()), visited_256()
    found, loss = layers(ax), atlas["points"].loss.to_series()
    strong = {*PATH_256, "{1}", "{0,1,2,3,5}"}
    solid = [c for name, c in found.items() if name.startswith("points-") and "faint" not in name]
    levels = np.vstack([c.get_offsets() for c in solid])[:, 1]
    np.testing.assert_allclose(np.sort(levels), np.sort(loss[list(strong)]), rtol=1e-12)
    faint = [c for name, c in found.items() if name.startswith("points-") and "faint" in name]
    assert sum(len(c.get_offsets()) for c in faint) == 256 - len(strong)
    assert max(c.get_alpha() for c in faint) < 0.5
    assert found["edges-faint"].get_alpha() < 0.5
    starts = [path.vertices[0, 1] for path in found["edges-lead"].get_paths()]
    assert starts
    assert all(np.isclose(loss[list(strong)], level, rtol=1e-9).any() for level in starts)
    assert max(starts.count(level) for level in starts) <= 3
    edges = atlas["connections"].sizes["edge"]
    drawn_once = ("faint", "lead", "path", "taken")
    assert sum(len(found[f"edges-{name}"].get_paths()) for name in drawn_once) == edges


def test_visited_points_are_labelled_and_no_other_label_stands_beside_them():
    atlas = visited_256()
    ax = dl.plot.graph(atlas)
    texts = check_labels(ax)
    own = ["{}", "{0}", "{1}", "{0,1}", "{0,1,2}", "{0…4}", "{0,1,2,3,5}"]
    assert set(own) == set(texts[:7])
    ax.figure.set_size_inches(6.0, 6.0)
    assert set(own) == set(check_labels(ax)[:7])
    (disks,) = (c for c in ax.collections if c.get_zorder() == 2.9 and len(c.get_offsets()))
    radius = 0.5 * np.sqrt(disks.get_sizes()[0]) * ax.figure.dpi / 72.0
    boxes, texts = shown(ax)
    for place, level in zip(ax.transData.transform(disks.get_offsets()), disks.get_offsets()[:, 1],
                            strict=True):  # fmt: skip
        for box, text in zip(boxes, texts, strict=True):
            label = PATH_256[int(text[3]) + 1] if "…" in text else text
            if not np.isclose(atlas["points"].loss.to_series()[label], level, rtol=1e-12):
                gap = np.maximum(box.min - place, place - box.max).max()
                assert gap > 1.5 * radius


def test_lines_lead_to_labels_that_have_no_room():
    """In a small picture of 15 visited points, some of which lie side by side."""
    beside = ["{1}", "{0,2}", "{0,1,3}", "{0,1,2,4}", "{0,1,2,3,5}", "{0,1,2,3,4,6}"]
    pairs = itertools.pairwise(PATH_256)
    ways = [*pairs, *zip(PATH_256, beside, strict=False)]
    ax = plt.figure(figsize=(5.0, 7.0), layout="constrained").add_subplot()
    dl.plot.graph(with_visits(of_256_points(), *((a, b, 2, 1.0, 5.0) for a, b in ways)), ax=ax)
    texts = check_labels(ax)
    long = [label for label in PATH_256 if len(label) > 10]
    short = [f"{{0…{len(dl.schema.index_set_modes(label)) - 1}}}" for label in long]
    assert {*PATH_256, *beside, *short} - {*long} == {*texts[:15]}
    assert len(lines_to_labels(ax)) > 3
    check_lines(ax)


def test_everything_drawn_is_in_the_legend():
    texts = [t.get_text() for t in dl.plot.graph(visited_256()).get_legend().get_texts()]
    words = ("global minimum", "strict saddle", "non-strict saddle", "visited by runs (7)")
    words += ("other points, faint", "adds a mode", "swaps two modes", "fastest way out, 3 of each")
    words += (
        "generic path (8)",
        "taken by runs (6)",
        "of these, by runs only",
        "other edges, faint",
    )
    for word in words:
        assert sum(text.startswith(word) for text in texts) == 1, word
    assert len(texts) == len(words)


def test_losses_over_decades_have_a_logarithmic_axis():
    small = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag([1.0, 0.1, 0.001]))
    atlas = dl.build_atlas(small)
    atlas["connections"] = dl.connections(small)
    ax = dl.plot.graph(atlas)
    check_labels(ax)
    levels = np.sort(atlas["points"].loss.values)
    heights = ax.transData.transform(np.stack([np.zeros(8), levels], axis=1))[:, 1]
    # Decades are equally high: between the levels of {0,1} and {0} lie log10(1e4) = 4 of them.
    loss = atlas["points"].loss.to_series()
    a, b, c = (ax.transData.transform((0.0, loss[k]))[1] for k in ("{0,1}", "{0}", "{}"))
    ratio = np.log10(loss["{0}"] / loss["{0,1}"]) / np.log10(loss["{}"] / loss["{0}"])
    np.testing.assert_allclose((b - a) / (c - b), ratio, rtol=1e-9)
    assert (np.diff(heights) >= 0.0).all()
    assert dl.plot.graph(GRAPH).get_yscale() == "linear"


def test_arcs_of_small_drops_can_be_told_apart():
    """At the origin drops are ½σ²; beside mode 0 the ends are at the halves of what is left."""
    sigma = np.array([1.0, 0.1, 0.001])
    arcs = dl.build_atlas(dl.LinearNetwork((3, 3, 3, 3), np.diag(sigma)))["arcs"].to_dataset()
    ax = dl.plot.arcs(arcs, source="{}")
    height = ax.transData.transform([(0.0, -0.5 * s**2) for s in sigma])[:, 1]
    # A decade is equally high wherever it lies: σ² falls by 2 of them, then by 4.
    np.testing.assert_allclose((height[2] - height[1]) / (height[1] - height[0]), 2.0, rtol=1e-9)
    falling = [line for line in ax.lines if len(line.get_ydata()) and line.get_ydata()[-1] < 0]
    ends = sorted(line.get_ydata()[-1] for line in falling)
    np.testing.assert_allclose(ends, -0.5 * sigma**2, rtol=1e-6)
    assert ax.get_ylabel().startswith("change of the loss")
    assert dl.plot.arcs(arcs, source="{1,2}").get_yscale() == "symlog"
    assert dl.plot.arcs(ATLAS["arcs"].to_dataset(), source="{}").get_yscale() == "linear"


def test_modes_of_named_data_are_named():
    names = {"features": ("width", "height", "weight"), "outputs": ("cat", "dog", "bird")}
    atlas = dl.build_atlas(dl.LinearNetwork(NET.widths, NET.target, **names))
    ax = dl.plot.graph(atlas)
    (key,) = (c for c in ax.findobj(Legend) if c is not ax.get_legend())
    texts = [text.get_text() for text in key.get_texts()]
    assert texts == ["0: width → cat", "1: height → dog", "2: weight → bird"]
    check_labels(ax)
    atlas["modes"] = NET.modes
    assert len(dl.plot.graph(atlas).findobj(Legend)) == 1


def test_names_of_modes_say_what_rises_and_what_falls():
    """Of W = diag(2, −1) the second output falls with the second input, whatever the bases."""
    for sign in (1.0, -1.0):
        target = np.diag([2.0, -1.0]) * sign
        net = dl.LinearNetwork((2, 2, 2), target, features=("a", "b"), outputs=("c", "d"))
        names = graphs.mode_names(dl.build_atlas(net), 8, 18)
        assert names == (["a → c", "−b → d"] if sign > 0 else ["−a → c", "b → d"])
        assert graphs.mode_names(dl.build_atlas(net), 1, 18) == names[:1]


@pytest.mark.slow
def test_graphs_of_4096_points_can_be_drawn():
    net = dl.LinearNetwork(widths=(12, 12, 12, 12), target=np.diag(5.0 * 0.8 ** np.arange(12.0)))
    atlas = dl.build_atlas(net, n_alpha=2)
    atlas["connections"] = dl.connections(net, n_points=2)
    texts = check_labels(dl.plot.graph(atlas))
    assert texts[:3] == ["{}", "{0}", "{0,1}"]


VISITS = dl.saddle_visits(NET, dl.flow(NET, NET.initial(scale=1e-2, rng=0)))


def test_visits_are_plateaus_at_the_rank_of_their_saddles():
    """The main stream: data, flow, visits, picture."""
    ax = VISITS.dlnds.plot()
    plateaus = [line for line in ax.lines if line.get_linewidth() == 5.0]
    ranks = [len(dl.schema.index_set_modes(label)) for label in VISITS.critical_point.values]
    for row, (line, rank) in enumerate(zip(plateaus, ranks, strict=True)):
        begin, end = line.get_xdata()
        assert begin == VISITS.entry[row]
        # the last rest is long, and runs into the frame
        assert end == VISITS.exit[row] if row + 1 < len(ranks) else end <= VISITS.exit[row]
        np.testing.assert_array_equal(line.get_ydata(), [rank, rank])
    texts = [text.get_text() for text in ax.texts]
    assert texts[::2] == VISITS.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
    assert texts[1::2] == [f"{duration:.3g}" for duration in VISITS.duration.values]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time $t$", "rank $r$")
    assert ax.get_xscale() == "linear"
    assert dl.plot.visits(VISITS.isel(visit=slice(0))).get_title() == "no visits"


def test_visits_of_uneven_length_are_drawn_over_the_logarithm_of_time():
    leave = np.array([1e1, 1e3, 1e5, 1e6])
    entry = np.append(0.0, 1.1 * leave[:-1])
    times = {"entry": entry, "exit": leave, "duration": leave - entry}
    ax = dl.plot.visits(VISITS.assign({name: ("visit", time) for name, time in times.items()}))
    assert ax.get_xscale() == "log"
    first = next(line for line in ax.lines if line.get_linewidth() == 5.0)
    assert 0.0 < first.get_xdata()[0] < first.get_xdata()[1] == 10.0


def test_a_last_visit_that_lasts_hides_none_of_those_before():
    leave = np.array([10.0, 15.0, 40.0, 1e7])
    entry = np.append(0.0, leave[:-1])
    times = {"entry": entry, "exit": leave, "duration": leave - entry}
    ax = dl.plot.visits(VISITS.assign({name: ("visit", time) for name, time in times.items()}))
    last = ax.get_xlim()[1]
    plateaus = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 5.0]
    np.testing.assert_array_equal(plateaus[:-1], np.stack([entry, leave], axis=1)[:-1])
    assert plateaus[-1][0] == 40.0 < plateaus[-1][1] == last < 60.0  # it runs into the frame
    assert ax.texts[-1].get_text() == "1e+07"
    assert all(text.xy[0] < last for text in ax.texts)


def test_chains_show_the_loss_of_each_saddle_and_the_paths_between():
    chain = dl.escape_chain(dl.LinearNetwork((2, 2, 2, 2), np.diag([2.0, 1.0])), n_starts=5)
    ax = chain.dlnds.plot()
    *paths, saddles = ax.lines
    np.testing.assert_array_equal(saddles.get_ydata(), chain.loss)
    np.testing.assert_array_equal(saddles.get_xdata(), [0, 1, 2])
    for number, path in enumerate(paths):
        np.testing.assert_array_equal(path.get_ydata(), chain[f"path_{number}"].loss)
        assert (path.get_xdata()[0], path.get_xdata()[-1]) == (number, number + 1.0)
        assert (np.diff(path.get_xdata()) >= 0.0).all()
    counts = chain.n_active.values
    texts = [f"{counts[0]} units, order 3", f"{counts[1]} units, order 3", f"{counts[2]} units"]
    assert [text.get_text() for text in ax.texts] == texts
    ax.figure.draw_without_rendering()
    for text in ax.texts:
        box = text.get_window_extent()
        assert ax.bbox.contains(box.x0, box.y0)
        assert ax.bbox.contains(box.x1, box.y1)


def test_exponents_are_drawn_as_they_converge_with_their_errors():
    steps = dl.GradientDescent(NET, 0.1)
    found = dl.lyapunov_spectrum(steps, NET.initial(rng=0), n_steps=60, k=2)
    ax = found.dlnds.plot()
    curves = [line for line in ax.lines if len(line.get_xdata()) == 60]
    for j, curve in enumerate(curves):
        np.testing.assert_array_equal(curve.get_ydata(), found.finite_time_exponent[:, j])
    bands = [patch.get_extents().transformed(ax.transData.inverted()) for patch in ax.patches]
    for band, value, error in zip(bands, found.exponent, found.standard_error, strict=True):
        np.testing.assert_allclose([band.y0, band.y1], [value - error, value + error], atol=1e-12)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [text.split(" = ")[0] for text in texts] == ["$\\lambda_{0}$", "$\\lambda_{1}$"]
    assert all("±" in text for text in texts)
    assert ax.get_xlabel() == "iteration $n$"
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


GRID = calls.of_a_grid()


def test_sweeps_over_two_dims_are_maps_of_colours():
    ax = dl.plot.heatmap(GRID, sel={"rank": 2})
    (mesh,) = ax.collections
    values = np.ma.filled(mesh.get_array(), np.nan)
    np.testing.assert_array_equal(values, GRID.steps.sel(rank=2).transpose("depth", "scale"))
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], 10.0 ** np.array([-3.5, -2.5, -1.5, -0.5]))
    np.testing.assert_allclose(corners[:, 0, 1], [1.5, 2.5, 3.5])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    assert ax.get_title() == "1 of 12 points did not finish"
    bar = next(other for other in ax.figure.axes if other is not ax)
    assert bar.get_ylabel() == "steps"
    assert dl.plot.heatmap(GRID, sel={"rank": 1}, x="depth").get_yscale() == "log"


def test_sweeps_over_one_dim_are_curves_and_words_are_named():
    ax = dl.plot.heatmap(GRID, sel={"rank": 2, "depth": 2})
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), GRID.steps.sel(rank=2, depth=2))
    assert (ax.get_xscale(), ax.get_ylabel()) == ("log", "steps")
    ax = dl.plot.heatmap(GRID, value="status", sel={"rank": 2})
    bar = next(other for other in ax.figure.axes if other is not ax)
    words = [text.get_text() for text in bar.get_yticklabels()]
    assert words == [dl.schema.spoken(word) for word in dl.schema.SWEEP_STATES]
    names = GRID.isel(rank=0).assign_coords(depth=["deep", "deeper"])
    ax = names.isel(scale=0).dlnds.plot(value="steps")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["deep", "deeper"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.9, 0.95, 1.0, 1.05], "linear"),
        ([1.0, 2.0, 3.0], "linear"),
        ([100.0, 101.0, 102.0, 103.0], "linear"),
        (np.linspace(1e-6, 1.0, 5), "linear"),
        ([1.0, 2.0, 4.0], "log"),
        ([0.9, 0.99, 1.089], "log"),
        ([1e-100, 1.0, 1e100], "log"),
        ([1e-4, 1.0], "log"),
        ([1.0, 2.0, np.inf], "linear"),
    ],
)
def test_axes_of_sweeps_follow_the_spacing_of_the_grid(values, scale):
    steps = xr.DataArray(np.arange(2.0 * len(values)).reshape(len(values), 2), dims=("rate", "n"))
    attrs = GRID.attrs
    grid = xr.Dataset({"steps": steps, "status": steps.astype(np.int8) * 0}, attrs=attrs)
    grid["status"].attrs = GRID.status.attrs
    grid = grid.assign_coords(rate=np.asarray(values), n=[1, 2])
    assert dl.plot.heatmap(grid, value="steps", x="rate").get_xscale() == scale


def test_points_of_a_sweep_are_selected_up_to_rounding():
    grid = GRID.assign_coords(scale=[0.1, 0.1 + 0.2, 1.0])
    ax = dl.plot.heatmap(grid, sel={"rank": 2, "scale": 0.3})
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), grid.steps.isel(scale=1).sel(rank=2))


def test_what_a_sweep_does_not_have_is_refused_by_name():
    for name, options in [
        ("sel", {}),
        ("sel", {"sel": {"rank": 3}}),
        ("sel", {"sel": {"ranks": 2}}),
        ("sel", {"sel": {"rank": 1, "depth": 2, "scale": 1e-3}}),
        ("sel", {"sel": 3}),
        ("value", {"value": "step", "sel": {"rank": 2}}),
        ("x", {"x": "rank", "sel": {"rank": 2}}),
        ("sweep", {"sweep": RUN}),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            dl.plot.heatmap(**{"sweep": GRID, **options})


def test_points_and_connections_alone_have_the_picture_of_the_graph():
    points, table = ATLAS["points"].to_dataset(), dl.connections(NET)
    for ax, edges in ((points.dlnds.plot(), 0), (table.dlnds.plot(), 18)):
        places, layers = drawn(ax)
        assert sorted(places[:, 1].round(9)) == sorted(points.loss.values.round(9))
        assert sum(len(layer.get_paths()) for layer in layers[1:]) == edges
        assert set(check_labels(ax)) == set(points.critical_point.values)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("rank $r$", "loss $L$")
    with pytest.raises(ValueError, match="^connections: there are none"):
        table.isel(edge=slice(0)).dlnds.plot()


def test_transitions_are_bars_the_most_frequent_first():
    rows = [("{}", "{1}", 2, 0.25, 1), ("{}", "{0}", 6, 0.75, 1), ("{0}", "{0,1,2}", 1, 1.0, 0)]
    source, target, visited, probability, joined = zip(*rows, strict=True)
    variables = {"visited": visited, "probability": probability, "is_connection": joined}
    data = xr.Dataset(
        {name: ("edge", list(values)) for name, values in variables.items()},
        coords={"source": ("edge", list(source)), "target": ("edge", list(target))},
    )
    ax = dl.schema.finish(data, "observed_connections", {"n_runs": 8}).dlnds.plot()
    assert [bar.get_width() for bar in ax.patches] == [6, 2, 1]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["{} → {0}", "{} → {1}", "{0} → {0,1,2}"]
    assert [text.get_text() for text in ax.texts] == ["75%", "25%", "100%"]
    assert ax.get_title() == "of 8 runs; red: no edge of the graph"
    none = data.isel(edge=slice(0)).assign_attrs(schema="observed_connections", n_runs=8)
    assert not none.dlnds.plot().patches


def test_curves_show_one_variable_over_another():
    function, start = dl.lyapunov_function(RUN), NET.critical_state((1,))
    point = dl.find_critical_point(NET, start + 0.01 * NET.initial(scale=1.0, rng=0))
    path = dl.edge_states(dl.connections(NET), 0)
    spin = dl.System(lambda t, x, params, out: out.fill(1.0), dim=2)
    run = dl.flow(spin, [0.0, 1.0], (0, 1))
    for data, x, y, scale in [
        (function, function.time, function.value, "log"),
        (point, point.iteration, point.residual, "log"),
        (path, path.point, path.loss, "linear"),
        (run, run.time, run.state[:, 0], "linear"),
    ]:
        ax = data.dlnds.plot()
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), x)
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), y)
        assert ax.get_yscale() == scale
        assert ax.get_ylabel().startswith(y.attrs["long_name"])
    assert len(run.dlnds.plot().lines) == 2
    grown = dl.grow_manifold(NET, dl.unstable_manifold(NET, start), 3, n_points=4, rng=0)
    assert len(grown.dlnds.plot().lines) == 3


def test_lists_of_numbers_are_stems():
    mani = dl.unstable_manifold(NET, NET.critical_state((1,)))
    for data, values, texts in [
        (NET.modes, NET.singular_values, []),
        (mani, mani.rate, [f"order {order}" for order in mani.order.values]),
    ]:
        ax = data.dlnds.plot()
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), values)
        tips = [segment[1, 1] for segment in ax.collections[0].get_segments()]
        np.testing.assert_array_equal(tips, values)
        assert [text.get_text() for text in ax.texts] == texts


def test_escape_directions_are_drawn_with_their_modes_and_say_what_they_are_worth():
    deep = dl.LinearNetwork((3, 3, 3, 3), np.diag([3.0, 2.0, 1.0]))
    kkt = dl.escape_directions(deep, deep.critical_state((1,)), max_directions=2)
    ax = kkt.dlnds.plot()
    tips = [segment[1, 1] for segment in ax.collections[0].get_segments()]
    np.testing.assert_array_equal(tips, kkt.value)
    assert [text.get_text() for text in ax.texts] == ["{0} for {1}", "{0}", "{2}"]
    assert ax.get_title() == "all directions of order 2, 3; 1 more are smaller"
    X = np.random.default_rng(0).normal(size=(3, 20))
    found = dl.escape_directions(dl.HomogeneousNetwork((3, 2, 1), X, X[0] ** 2), n_starts=5)
    ax = found.dlnds.plot()
    assert [text.get_text() for text in ax.texts] == [f"×{n}" for n in found["count"].values]
    assert ax.get_title().startswith("directions that a search found")
    nothing = dl.escape_directions(deep, deep.critical_state((0, 1, 2)))
    assert nothing.dlnds.plot().get_title() == "no run leaves"


def test_pairs_are_a_table_of_dimensions():
    graph = dl.connections(dl.LinearNetwork((5,) * 4, np.diag(10.0 + np.arange(5.0, 0.0, -1.0))))
    ax = dl.plot.pairs(graph)
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("?") == 4
    leads = dl.schema.decode(graph.leads).values
    assert len(texts) == np.sum(leads != "no")
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    joined = (leads == "orbit") | (leads == "set")
    np.testing.assert_array_equal(np.isfinite(shown), joined)
    np.testing.assert_array_equal(shown[joined], graph.dimension_between.values[joined])
    with pytest.raises(ValueError, match="^graph: "):
        dl.plot.pairs(graph.drop_vars("leads"))


@pytest.mark.compiled
def test_every_schema_has_a_picture_or_one_line_that_says_where_to_look():
    told = {
        *("classification", "canonical_form", "fiber", "orbit", "tangent", "inertia"),
        *("assumptions", "zero_preserving", "conservation_laws", "learning_coefficient"),
        *("fiber_components", "fiber_orientation", "fiber_path", "fiber_line"),
        *("flattest_minimum", "decayed_points"),
    }
    found = {"modes": NET.modes}
    for one in itertools.chain.from_iterable(group() for group in calls.GROUPS.values()):
        if not one.name.startswith(("plot.", "accessor.")):
            data = one.function(**one.arguments)
            found.setdefault(getattr(data, "attrs", {}).get("schema"), data)
    for kind in dl.schema.REQUIRED:
        if kind in told:
            with pytest.raises(ValueError, match=f"^data: there is no picture of schema '{kind}'"):
                found[kind].dlnds.plot()
        else:
            ax = found[kind].dlnds.plot()
            ax.figure.canvas.draw()
            assert ax.get_xlabel(), kind
        plt.close("all")


def test_a_list_without_entries_says_so():
    minimum = NET.critical_state(range(NET.max_rank))
    found = dl.unstable_manifold(NET, minimum)
    assert found.sizes["direction"] == 0
    assert found.dlnds.plot().get_title() == "no directions"
