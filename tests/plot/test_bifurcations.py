"""Pictures of branches: curves through tangents, styles, components, names."""

import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.legend import Legend

import dlnds as dl

FOLD = dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.5, 1.0), step=0.4)
PITCHFORK = dl.diagram(lambda x, p: p * x - x**3, [0.0], -0.5, bounds=(-1.0, 1.0), step=0.02)
NET = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag([3.0, 2.0, 1.0]))


def curves(ax):
    """The lines that are branches: neither marks nor what the legend shows."""
    lines = [line for line in ax.lines if len(line.get_xdata()) > 1]
    return [line for line in lines if line.get_linestyle() in ("-", "--")]


def points(line):
    return np.stack([line.get_xdata(), line.get_ydata()], axis=1)


def named(branch, labels):
    """A branch with a label for each row."""
    labelled = branch.assign(label=("step", np.array(labels)))
    return dl.schema.finish(labelled, "branch", {})


def decay(modes, **options):
    """A branch of weight decay with the names of its solutions."""
    equation = dl.equilibria(NET, vary="weight_decay")
    branch = dl.branch(equation, NET.critical_state(modes), 0.05, bounds=(0.01, 2.5), **options)
    if "label" in branch:
        return branch
    return named(branch, equation.label(branch.state.values, branch.p.values))


def test_branches_are_full_where_they_are_stable():
    """The pitchfork: a line that turns dashed at its branch point, and stable halves of a pair."""
    ax = dl.plot.branches(PITCHFORK)
    line, rest, *halves = curves(ax)
    assert [curve.get_linestyle() for curve in (line, rest)] == ["-", "--"]
    assert (line.get_xdata()[0], rest.get_xdata()[-1]) == (-1.0, 1.0)
    crossing = dl.special_points(PITCHFORK["branch_0"].to_dataset()).p.item()
    assert line.get_xdata()[-1] == rest.get_xdata()[0] == crossing
    assert halves
    for half in halves:
        assert half.get_linestyle() == "-"
        np.testing.assert_allclose(half.get_ydata() ** 2, half.get_xdata(), atol=1e-3)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["stable", "unstable", "branch point"]
    assert PITCHFORK.dlnds.plot().get_ylabel().startswith("norm")


def test_few_rows_draw_the_true_curve_and_nothing_beyond_its_fold():
    """p = −x²: the tangents of some twenty rows are enough for a thousandth."""
    assert FOLD.sizes["step"] <= 25
    ax = dl.plot.branches(FOLD, y="x0")
    drawn = np.concatenate([points(line) for line in curves(ax)])
    assert abs(drawn[:, 0] + drawn[:, 1] ** 2).max() < 1e-3
    assert drawn[:, 0].max() <= 1e-15
    steps = np.diff(drawn, axis=0)[abs(np.diff(drawn, axis=0)).max(axis=1) > 0.0]
    angles = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    assert abs(np.diff(angles)).max() < 0.1  # round, no polygon


@pytest.mark.parametrize(("size", "range_"), [(1e-6, 1.0), (1.0, 1e6), (1e-6, 1e6)])
def test_curves_do_not_depend_on_the_units(size, range_):
    """The same branch in other units of x and p is the same picture."""
    moved = FOLD.assign_coords(p=FOLD.p * range_)
    tangent, tangent_p = FOLD.tangent.values * size, FOLD.tangent_p.values * range_
    norm = np.sqrt(np.sum(tangent**2, axis=1) + tangent_p**2)
    moved = moved.assign(
        state=FOLD.state * size,
        tangent=(("step", "parameter"), tangent / norm[:, None]),
        tangent_p=("step", tangent_p / norm),
    )
    pictures = [curves(dl.plot.branches(branch, y="x0")) for branch in (FOLD, moved)]
    for line, other in zip(*pictures, strict=True):
        scaled = points(other) / [range_, size]
        np.testing.assert_allclose(scaled, points(line), rtol=0, atol=1e-9)


@pytest.mark.parametrize("stops", [slice(None), slice(None, None, -1)])
def test_the_style_changes_at_the_special_point_itself(stops):
    branch = FOLD.isel(step=stops)
    branch = branch.assign(tangent=branch.tangent * (stops.step or 1), tangent_p=branch.tangent_p *
                           (stops.step or 1))  # fmt: skip
    fold = dl.special_points(FOLD)
    one, other = curves(dl.plot.branches(branch, y="x0"))
    assert {one.get_linestyle(), other.get_linestyle()} == {"-", "--"}
    place = [fold.p.item(), fold.state.item()]
    assert points(one)[-1].tolist() == points(other)[0].tolist() == place
    unstable = one if one.get_linestyle() == "--" else other
    assert (unstable.get_ydata() >= fold.state.item()).all()


def test_special_points_at_the_ends_belong_to_what_is_beside_them():
    row = int(np.flatnonzero(FOLD.event.values)[0])
    for rows, style in ((slice(row, None), None), (slice(None, row + 1), None)):
        part = FOLD.isel(step=rows)
        inner = part["index"].values[part.event.values == 0]
        style = "-" if inner[0] == 0 else "--"
        (line,) = curves(dl.plot.branches(part, y="x0"))
        assert line.get_linestyle() == style


def test_users_events_change_no_style():
    branch = dl.branch(
        lambda x, p: p - x, [0.0], 0.0, bounds=(-1.0, 1.0), events=[lambda x, p: p - 0.3]
    )
    assert "user" in dl.schema.decode(branch.event).values
    (line,) = curves(dl.plot.branches(branch))
    assert line.get_linestyle() == "-"


def test_components_are_those_of_the_state():
    branch = decay((0, 2))
    for place in (0, 4, 26):
        rows = branch.state.values[:, place]
        for y in (f"x{place}", ("state", place), lambda x, p, place=place: x[place]):
            drawn = np.concatenate([points(line) for line in curves(dl.plot.branches(branch, y=y))])
            there = {tuple(point) for point in drawn.tolist()}
            assert {(p, x) for p, x in zip(branch.p.values, rows, strict=True)} <= there
    assert dl.plot.branches(branch, y="x4").get_ylabel() == "component $x_{4}$"
    values = ("transverse_eigenvalue", 1)
    drawn = np.concatenate(
        [line.get_ydata() for line in curves(dl.plot.branches(branch, y=values))]
    )
    assert np.isin(branch.transverse_eigenvalue.values[:, 1], drawn).all()


def test_components_have_the_names_that_coordinates_give():
    spring = dl.Residual(
        lambda x, p: np.array([x[1] - p, p - x[0]]),
        coordinates={"parameter": ("parameter", ["place", "x0"])},
    )
    branch = dl.branch(spring, [0.0, 0.0], 0.0, bounds=(0.0, 1.0))
    assert dl.plot.branches(branch, y="place").get_ylabel() == "place"
    assert dl.plot.branches(branch, x="x0", y="place").get_xlabel() == "x0"
    (line,) = curves(dl.plot.branches(branch, x="x0", y=("state", 1)))  # x0 is its own name
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    with pytest.raises(ValueError, match=r"^y: there is no 'x2'; there are norm, .*place"):
        dl.plot.branches(branch, y="x2")


def test_functions_are_drawn_with_their_names():
    def excess(x, p):
        return x[0] ** 2 - p

    ax = dl.plot.branches(PITCHFORK, y=excess)
    assert ax.get_ylabel() == "excess"
    half = curves(ax)[-1]
    np.testing.assert_allclose(half.get_ydata(), 0.0, atol=1e-9)


def test_the_norm_has_the_corner_that_it_has():
    """x = p: its norm is |p|, also between rows on both sides of zero."""
    line = dl.branch(lambda x, p: p - x, [0.05], 0.05, bounds=(-1.0, 1.0), step=0.3)
    assert (abs(line.p.values) > 1e-3).all()
    (drawn,) = curves(dl.plot.branches(line, y="norm"))
    np.testing.assert_allclose(drawn.get_ydata(), abs(drawn.get_xdata()), atol=1e-12)


def test_other_numbers_are_drawn_smoothly_and_whole_ones_as_steps():
    """The loss is a function of the sizes, which are drawn through their tangents."""
    branch = decay((0, 1, 2), step_max=0.1)
    drawn, *sizes = (
        np.concatenate([line.get_ydata() for line in curves(dl.plot.branches(branch, y=y))])
        for y in ("loss", "x0", "x4", "x8")
    )
    loss = 0.5 * sum((s - x**3) ** 2 for s, x in zip((3.0, 2.0, 1.0), sizes, strict=True))
    assert abs(drawn - loss).max() < 1e-3 * np.ptp(loss)
    index = branch["index"].values
    ax = dl.plot.branches(branch, x="arclength", y="index")
    drawn = np.concatenate([points(line) for line in curves(ax)])
    expected = np.interp(drawn[:, 0], branch.arclength.values, index)
    np.testing.assert_allclose(drawn[:, 1], expected, atol=0.05)
    assert ax.get_xlabel().startswith("arclength")


def test_numbers_that_jump_are_not_drawn_beyond_their_values():
    line = dl.branch(lambda x, p: p - x, [0.0], 0.0, bounds=(-1.0, 1.0), step_max=0.1)

    def jump(x, p):
        return float(p > 0.1) + 0.5 * (p > 0.5)

    (drawn,) = curves(dl.plot.branches(line, y=jump))
    assert (drawn.get_ydata().min(), drawn.get_ydata().max()) == (0.0, 1.5)
    assert (np.diff(drawn.get_ydata()) >= 0.0).all()


def test_closed_branches_have_no_gap():
    circle = dl.branch(
        lambda x, p: p**2 + x**2 - 1.0, [1.0], 0.0, bounds=(-2.0, 2.0), direction="up", step=0.2
    )
    assert circle.last_stop == "closed"
    drawn = np.concatenate([points(line) for line in curves(dl.plot.branches(circle, y="x0"))])
    assert abs(np.linalg.norm(drawn, axis=1) - 1.0).max() < 1e-3
    angles = np.sort(np.arctan2(drawn[:, 1], drawn[:, 0]))
    assert np.diff(np.append(angles, angles[0] + 2.0 * np.pi)).max() < 0.1


def test_logarithmic_axes_draw_what_is_positive():
    ax = dl.plot.branches(FOLD, x=lambda x, p: -p, y="x0", xscale="log", yscale="log")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert dl.plot.branches(FOLD, y="x0").get_yscale() == "linear"
    square = dl.branch(lambda x, p: p**2 - x, [1e-8], 1e-4, bounds=(1e-4, 1.0))
    (line,) = curves(dl.plot.branches(square, y="x0", xscale="log", yscale="log"))
    p, x = points(line).T
    np.testing.assert_allclose(np.log10(x), 2.0 * np.log10(p), atol=0.05)
    assert np.diff(np.log10(p)).max() < 0.3
    with pytest.raises(ValueError, match="^yscale: a logarithmic axis needs positive"):
        dl.plot.branches(FOLD, y=lambda x, p: -(x[0] ** 2), yscale="log")
    with pytest.raises(ValueError, match="^xscale: there is no 'logit'"):
        dl.plot.branches(FOLD, xscale="logit")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_branches_of_a_few_rows_can_be_drawn(count):
    ax = dl.plot.branches(FOLD.isel(step=slice(count)), y="x0")
    assert len([line for line in ax.lines if len(line.get_xdata())]) == (count > 0)
    ax.figure.canvas.draw()


def test_rows_far_apart_are_joined_straight():
    """Tangents that do not point along the way from row to row say nothing of it."""
    ends = FOLD.isel(step=[0, -1])
    drawn = points(*curves(dl.plot.branches(ends, y="x0")))
    np.testing.assert_allclose(drawn[:, 0], -1.5, atol=1e-12)
    assert dl.plot.branches(dl.special_points(FOLD)).lines


def test_curves_of_folds_are_drawn_in_their_two_parameters():
    def family(q):
        return dl.Residual(lambda x, p: p + q * x - x**3)

    branch = dl.branch(family(1.0), [-1.5], -1.875, bounds=(-2.0, 2.0))
    start = dl.special_points(branch).isel(step=0)
    curve = dl.fold_curve(family, start, 1.0, bounds=(-1.0, 1.5))
    ax = dl.plot.branches(curve)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("p", "q")
    drawn = np.concatenate([points(line) for line in curves(ax)])
    np.testing.assert_allclose(27.0 * drawn[:, 0] ** 2, 4.0 * drawn[:, 1] ** 3, atol=2e-3)
    assert "cusp" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_kind_of_special_point_has_a_mark_of_its_own():
    kinds = dl.schema.BRANCH_EVENTS[1:]
    line = dl.branch(lambda x, p: p - x, [0.0], 0.0, bounds=(-1.0, 1.0), step_max=0.1)
    events = np.zeros(line.sizes["step"], np.int8)
    events[1 : 1 + len(kinds)] = 1 + np.arange(len(kinds))
    marked = line.assign(event=("step", events, line.event.attrs))
    ax = dl.plot.branches(marked)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(texts[1:]) == sorted(kind.replace("_", " ") for kind in kinds)
    marks = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    drawn = [(m.get_marker(), m.get_xdata()[0]) for m in marks if len(m.get_xdata())]
    assert len({marker for marker, _ in drawn}) == len(kinds)
    assert {place for _, place in drawn} == set(line.p.values[1 : 1 + len(kinds)])


def test_branches_have_their_names():
    ax = dl.plot.branches(decay((0, 1, 2)))
    texts = [text.get_text() for text in ax.texts]
    assert sorted(texts) == ["{0⁺,1⁺,2⁺}", "{0⁺,1⁺,2⁻}"]
    tree = xr.DataTree.from_dict({"one": decay((0,)), "two": FOLD})
    ax = dl.plot.branches(tree, y="norm")
    names, counts = np.unique(tree["one"].label.values, return_counts=True)
    assert [text.get_text() for text in ax.texts][:2] == [names[counts.argmax()], "two"]
    assert not dl.plot.branches(FOLD).texts  # one branch needs none


def test_the_most_frequent_name_comes_first_and_those_of_single_rows_are_left_out():
    count = FOLD.sizes["step"]
    labels = ["b"] * 3 + ["c"] + ["a"] * (count - 5) + [""]
    assert [t.get_text() for t in dl.plot.branches(named(FOLD, labels)).texts] == ["a", "b"]
    assert not dl.plot.branches(named(FOLD, [""] * count)).texts


def check_names(ax):
    """Those that are shown touch neither each other, nor lines, nor the legend."""
    ax.figure.canvas.draw()
    shown = [text for text in ax.texts if text.get_visible()]
    boxes = [text.get_window_extent() for text in shown]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    drawn = np.concatenate([ax.transData.transform(points(line)) for line in curves(ax)])
    legend = ax.get_legend().get_window_extent()
    for box in boxes:
        inside = (drawn > box.min + 0.5) & (drawn < box.max - 0.5)
        assert not inside.all(axis=1).any()
        assert not box.overlaps(legend)
        assert ax.bbox.fully_containsx(box.x0)
        assert ax.bbox.fully_containsy(box.y1)
    return shown


def test_names_cover_nothing_and_have_the_colour_of_their_branch():
    tree = {
        f"b{k}": decay(modes) for k, modes in enumerate([(0,), (1,), (0, 1), (0, 2), (0, 1, 2)])
    }
    ax = dl.plot.branches(xr.DataTree.from_dict(tree))
    shown = check_names(ax)
    assert len(shown) == len(ax.texts) == 10
    colours = {text.get_text(): text.get_color() for text in shown}
    assert colours["{0⁺,1⁺,2⁺}"] == colours["{0⁺,1⁺,2⁻}"] == "C4"
    assert ax.get_legend().get_window_extent().x0 > ax.bbox.x1  # beside the picture


def test_legends_stand_beside_pictures_where_the_layout_makes_room():
    for layout in ("constrained", None):
        figure, both = plt.subplots(1, 2, layout=layout)
        ax = dl.plot.branches(FOLD, ax=both[0])
        figure.canvas.draw()
        legend = ax.get_legend().get_window_extent()
        assert (legend.x0 > ax.bbox.x1) == (layout is not None)
        assert legend.x1 <= both[1].bbox.x0


def test_twenty_branches_have_different_colours_and_those_names_that_fit():
    def moved(k):
        return FOLD.assign_coords(p=FOLD.p + 0.3 * k).assign(state=FOLD.state + 0.2 * k)

    ax = dl.plot.branches(xr.DataTree.from_dict({f"b{k}": moved(k) for k in range(20)}), y="x0")
    assert len(check_names(ax)) >= 3
    assert len({matplotlib.colors.to_hex(line.get_color()) for line in curves(ax)}) == 20


@pytest.mark.parametrize("layout", ["constrained", None])
def test_branches_without_room_for_a_name_are_told(layout):
    """Below the legend, in their colours, or in a note where there is no room for that."""

    def moved(k):
        return FOLD.assign_coords(p=FOLD.p + 0.01 * k)

    figure, ax = plt.subplots(figsize=(6.0, 4.0), layout=layout)
    dl.plot.branches(xr.DataTree.from_dict({f"b{k}": moved(k) for k in range(40)}), y="x0", ax=ax)
    for size in ((6.0, 4.0), (6.0, 4.0), (9.0, 8.0)):  # drawn again, and larger
        figure.set_size_inches(size)
        figure.canvas.draw()
        names = {text.get_text() for text in ax.texts if text.get_visible()}
        shown = {name for name in names if name.startswith("b")}
        lists = [found for found in ax.findobj(Legend) if found is not ax.get_legend()]
        if layout is None:
            assert not lists
            assert f"no room for the names of {40 - len(shown)} branches" in names
            continue
        (listed,) = lists
        words = [text.get_text() for text in listed.get_texts()]
        more = int(words.pop().split()[1]) if words[-1].startswith("and") else 0
        assert shown.isdisjoint(words)
        assert len(shown) + len(words) + more == 40
        box, legend = (found.get_window_extent() for found in (listed, ax.get_legend()))
        assert box.y1 <= legend.y0 + 1.0
        assert box.y0 >= ax.bbox.y0 - 1.0
        colours = [matplotlib.colors.to_hex(line.get_color()) for line in listed.get_lines()]
        drawn = {matplotlib.colors.to_hex(line.get_color()) for line in curves(ax)}
        assert {*colours[: len(words)]} <= drawn


def test_what_a_branch_does_not_have_is_refused_by_name():
    for y in ("indx", "x1", "event_", ("stat", 0), ("state", 0, 1), (0, 1), 3, np.zeros(0)):
        with pytest.raises(ValueError, match=r"^y: there is no .*; there are norm, .*index.*x0"):
            dl.plot.branches(FOLD, y=y)
    with pytest.raises(ValueError, match=r"^x: 'state' has numbers from 0 to 0, got 1"):
        dl.plot.branches(FOLD, x=("state", 1))
    with pytest.raises(TypeError, match=r"^y: needs a function of \(x, p\)"):
        dl.plot.branches(FOLD, y=lambda x: x[0])
    with pytest.raises(ValueError, match=r"^y: needs to return one real number"):
        dl.plot.branches(decay((0,)), y=lambda x, p: x)
    for data in (xr.Dataset(), xr.DataTree(), dl.critical_points(NET), 3):
        with pytest.raises(ValueError, match="^data: needs what branch"):
            dl.plot.branches(data)


def test_what_is_varied_may_be_drawn_by_its_own_name():
    load = dl.Residual(lambda x, p: p + x**2, parameter="load")
    branch = dl.branch(load, [1.0], -1.0, bounds=(-1.5, 1.0))
    (one, *_), (other, *_) = (
        curves(dl.plot.branches(branch, x=word, y="x0")) for word in ("p", "load")
    )
    np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    assert dl.plot.branches(branch, x="load").get_xlabel() == "load"
    index = dl.Residual(
        lambda x, p: p + x**2, parameter="index"
    )  # what a variable says comes first
    drawn = dl.plot.branches(dl.branch(index, [1.0], -1.0, bounds=(-1.5, 1.0)), x="index")
    assert drawn.get_xlabel() == "number of unstable eigenvalues"


def test_nodes_rows_and_special_points_are_drawn_as_what_they_are():
    """Between special points there is no branch."""
    tree = dl.diagram(lambda x, p: p * x - x**3, [0.0], -0.5, bounds=(-1.0, 1.0))
    assert len(curves(dl.plot.branches(tree["branch_1"]))) > 0
    ax = dl.plot.branches(FOLD.isel(step=0), y="x0")
    (dot,) = [line for line in ax.lines if len(line.get_xdata())]
    assert dot.get_xydata().tolist() == [[float(FOLD.p[0]), float(FOLD.state[0, 0])]]
    branch = dl.branch(lambda x, p: p + 3 * x - x**3, [-2.0], -2.0, bounds=(-3.0, 3.0))
    ax = dl.plot.branches(dl.special_points(branch), y="x0")
    (marks,) = [line for line in ax.lines if len(line.get_xdata())]
    assert marks.get_linestyle() == "None"
    np.testing.assert_allclose(marks.get_xydata(), [[2.0, -1.0], [-2.0, 1.0]], atol=1e-6)


def test_numbers_of_which_none_is_finite_are_refused():
    with pytest.raises(ValueError, match=r"^y: has no finite number"):
        dl.plot.branches(FOLD, y=lambda x, p: np.nan)


def test_legends_say_what_is_seen_only():
    """The fold of p = x² − 1 is at p < 0; a curve of folds of stable solutions has no dashes."""
    branch = dl.branch(lambda x, p: p + 1.0 - x**2, [1.0], 0.0, bounds=(-2.0, 1.0))
    for scale, words in (
        ("linear", {"stable", "unstable", "fold"}),
        ("log", {"stable", "unstable"}),
    ):
        legend = dl.plot.branches(branch, y="norm", xscale=scale).get_legend()
        assert {text.get_text() for text in legend.get_texts()} == words
    upper = branch.isel(step=branch.state.values[:, 0] > 0.1)
    legend = dl.plot.branches(upper).get_legend()
    assert {text.get_text() for text in legend.get_texts()} == {"stable"}
