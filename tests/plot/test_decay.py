"""The picture of critical points over weight decay."""

import numpy as np
import pytest

import dlnds as dl

NET = dl.LinearNetwork((3, 4, 4, 2), np.diag([2.0, 1.2]) @ np.eye(2, 3))
DIAGRAM = dl.decay_diagram(NET, (0.0, 1.4), n_points=141)


def widest(ax):
    """The lines of the global minimum, and of all minima."""
    widths = sorted({line.get_linewidth() for line in ax.lines})
    return [[line for line in ax.lines if line.get_linewidth() == w] for w in widths[::-1]]


def test_losses_are_drawn_where_there_are_points_and_wide_at_the_least():
    ax = dl.plot.decay_diagram(DIAGRAM)
    wide, solid, thin = widest(ax)
    drawn = np.array([line.get_ydata() for line in thin])
    np.testing.assert_array_equal(drawn, DIAGRAM.loss)
    least = np.nanmin([line.get_ydata() for line in wide], axis=0)
    np.testing.assert_array_equal(least, DIAGRAM.loss.min("branch"))
    minima = dl.schema.decode(DIAGRAM.kind).isin(["minimum", "global_minimum"])
    for line, row, loss in zip(solid, minima.values, DIAGRAM.loss.values, strict=True):
        np.testing.assert_array_equal(line.get_ydata()[row], loss[row])
        assert np.isfinite(line.get_ydata()).sum() <= row.sum() + 1  # where a line goes on
    assert [text.get_text() for text in ax.texts] == DIAGRAM.branch.values.tolist()
    assert ax.get_xlim() == (0.0, 1.4)
    assert len({line.get_color() for line in thin}) == 3  # of the ranks


def test_sizes_are_the_roots_of_each_mode_up_to_their_ends():
    ax = dl.plot.decay_diagram(DIAGRAM, show="size")
    curves = [line for line in ax.lines if len(line.get_xdata()) == 141]
    decays = DIAGRAM.weight_decay.values
    for mode, (larger, smaller) in enumerate(zip(curves[::2], curves[1::2], strict=True)):
        sigma = float(DIAGRAM.singular_value[mode])
        for line in (larger, smaller):
            s = line.get_ydata()
            there = np.isfinite(s)
            law = s[there] * (sigma - s[there] ** 3)
            np.testing.assert_allclose(law, decays[there], atol=1e-12)
            assert decays[there].max() < float(DIAGRAM.most_decay[mode])
        both = np.isfinite(smaller.get_ydata())
        assert (smaller.get_ydata()[both] < larger.get_ydata()[both]).all()
        assert both.sum() == np.isfinite(larger.get_ydata()).sum() - 1  # without decay there is one
    ends = sorted(line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":")
    np.testing.assert_array_equal(ends, np.sort(DIAGRAM.most_decay))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_diagrams_of_all_depths_are_drawn(depth):
    net = dl.LinearNetwork((2,) * (depth + 1), np.diag([2.0, 2.0]))
    for bounds in ((0.0, 1.0), (3.0, 4.0)):
        data = dl.decay_diagram(net, bounds, n_points=5)
        assert data.dlnds.plot().get_ylabel() == "loss $L$"
        dl.plot.decay_diagram(data, show="size")


def test_too_many_branches_are_not_named_and_others_are_refused():
    wide = dl.LinearNetwork((4,) * 4, np.diag([4.0, 3.0, 2.5, 2.0]))
    assert not dl.plot.decay_diagram(dl.decay_diagram(wide, n_points=3)).texts
    with pytest.raises(ValueError, match="^show: "):
        dl.plot.decay_diagram(DIAGRAM, show="index")
    with pytest.raises(TypeError, match="^diagram: "):
        dl.plot.decay_diagram(dl.critical_points(NET))


def test_minima_under_decay_are_levels_of_losses():
    net = dl.LinearNetwork((3, 4, 4, 2), NET.target, weight_decay=0.4)
    points = dl.critical_points(net)
    run = dl.flow(net, net.initial(scale=0.8, rng=0), (0.0, 30.0))
    ax = dl.plot.loss(run, points=points)
    dashed = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    minima = dl.schema.decode(points.kind).isin(["minimum", "global_minimum"]).values
    np.testing.assert_array_equal(np.sort(dashed), np.sort(points.loss.values[minima]))
    labels = {text.get_text() for text in ax.texts}
    assert labels == set(points.critical_point.values[minima].tolist())
    assert abs(np.array(dashed) - float(run.loss[-1])).min() < 1e-9
