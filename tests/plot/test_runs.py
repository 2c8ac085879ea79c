"""Pictures of what is observed along runs, and of runs laid on others."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import dlnds as dl

NET = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
START = NET.initial("aligned", scale=0.3)
KERNEL = ("ntk_distance", "ntk_change", "ntk_alignment")
SAVED = ("loss", "singular_value", "alignment", "sharpness", *KERNEL)
RUN = dl.flow(NET, START, (0, 5), save=SAVED)
TURNING = dl.flow(NET, NET.initial(scale=0.3, rng=0), (0, 2), save=("loss", "alignment"))
EXACT = dl.exact_flow(NET, START, np.linspace(0.0, 4.0, 9), save=("loss", "singular_value"))
STEPS = dl.iterate(dl.GradientDescent(NET, 0.1), START, n_steps=50, save=SAVED)


def curves(ax, rows):
    return [line for line in ax.lines if len(line.get_xdata()) == rows]


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def bars(ax):
    return [other for other in ax.figure.axes if other.get_label() == "<colorbar>"]


def check_nothing_is_cut_off(ax):
    """The legend is inside the picture and off the axes, and the axes fill most of it."""
    ax.figure.draw_without_rendering()
    legend, page = ax.get_legend().get_window_extent(), ax.figure.bbox
    assert page.x0 <= legend.x0 < legend.x1 <= page.x1
    assert ax.bbox.y1 <= legend.y0 < legend.y1 <= page.y1
    assert ax.bbox.width > 0.6 * page.width


def test_an_exact_run_lies_on_the_run_in_its_colours_with_one_bar():
    ax = dl.plot.singular_values(RUN, exact=EXACT, linestyle=":", modes=NET.modes)
    own, exact = curves(ax, RUN.sizes["time"]), curves(ax, 9)
    assert [line.get_color() for line in own] == [line.get_color() for line in exact]
    assert len({line.get_color() for line in own}) == 3
    for j, line in enumerate(exact):
        np.testing.assert_array_equal(line.get_xdata(), EXACT.time)
        np.testing.assert_array_equal(line.get_ydata(), EXACT.singular_value[:, j])
        assert line.get_linestyle() == ":"
        assert line.get_zorder() >= own[j].get_zorder()
        assert line.get_linewidth() < own[j].get_linewidth()  # both are seen where they agree
    assert len(bars(ax)) == 1
    assert texts(ax) == ["run", "exact"]
    check_nothing_is_cut_off(ax)


def test_a_run_with_fewer_modes_keeps_their_colours_beside_one_with_more():
    ax = dl.plot.singular_values(RUN.isel(mode=[0]), exact=EXACT)
    (own,), exact = curves(ax, RUN.sizes["time"]), curves(ax, 9)
    assert own.get_color() == exact[0].get_color()
    assert len({line.get_color() for line in exact}) == 3


def test_losses_of_two_runs_and_of_other_data_are_told_apart():
    test = (2.0 * RUN.loss).rename("mine").assign_attrs(long_name="loss on other data")
    ax = dl.plot.loss(RUN, exact=EXACT, test=test)
    run, tested = curves(ax, RUN.sizes["time"])
    (exact,) = curves(ax, 9)
    np.testing.assert_array_equal(run.get_ydata(), RUN.loss)
    np.testing.assert_array_equal(tested.get_ydata(), 2.0 * RUN.loss)
    np.testing.assert_array_equal(exact.get_ydata(), EXACT.loss)
    assert exact.get_linestyle() == "--"
    assert tested.get_color() != run.get_color()
    assert texts(ax) == ["run", "exact", "loss on other data $L$"]
    assert dl.plot.loss(RUN).get_legend() is None


def noisy():
    """Return a network, its run, the data that it is trained on, and others."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 60))
    Y = X[:2] + rng.normal(size=(2, 60))
    net = dl.LinearNetwork.from_data(X[:, :12], Y[:, :12], hidden=(4,))
    return net, (X[:, :12], Y[:, :12]), (X[:, 12:], Y[:, 12:])


def test_what_is_trained_and_what_is_tested_have_the_whole_loss():
    """That on the samples themselves, 1/(2m) ‖Y − W X‖²: tested on these, both are the same."""
    net, trained, others = noisy()
    run = dl.flow(net, net.initial(scale=0.1, rng=0))
    points = dl.critical_points(net)
    ax = dl.plot.loss(run, test=dl.evaluate(net, run, *trained), points=points)
    own, same = curves(ax, run.sizes["time"])
    np.testing.assert_allclose(own.get_ydata(), same.get_ydata(), rtol=1e-10)
    levels = sorted({line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"})
    assert own.get_ydata()[-1] == pytest.approx(levels[0], rel=1e-10)
    tested = dl.evaluate(net, run, *others)
    ax = dl.plot.loss(run, test=tested)
    np.testing.assert_array_equal(curves(ax, run.sizes["time"])[1].get_ydata(), tested.loss)
    assert texts(ax) == ["run", "test loss $L$"]
    error = dl.generalization_error(net, run, np.eye(2, 3))
    ax = dl.plot.loss(run, test=error)
    shown = [line.get_ydata() for line in curves(ax, run.sizes["time"])]
    np.testing.assert_array_equal(shown, [run.loss, error.generalization_error])


def test_evaluations_show_where_they_are_least():
    net, _, others = noisy()
    start = net.initial(scale=0.1, rng=0)
    starts = np.stack([start, 2.0 * start])
    descent = dl.iterate(dl.GradientDescent(net, 0.05), start, n_steps=400)
    for run in (dl.flow(net, start), dl.flow(net, starts), descent):
        data = dl.evaluate(net, run, *others)
        ax = data.dlnds.plot()
        drawn = curves(ax, data.loss.shape[-1])
        best = sorted(line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--")
        np.testing.assert_array_equal(best, np.sort(np.atleast_1d(data.best_time)))
        tested = [line for line in drawn if line.get_color() == "#4575b4"]
        least = [line.get_xdata()[np.nanargmin(line.get_ydata())] for line in tested]
        assert sorted(least) == best
        assert len(drawn) == 2 * len(tested) == 2 * len(best)
        assert texts(ax)[:2] == ["test loss $L$", "training loss $L$"]
    ax = dl.generalization_error(net, descent, np.eye(2, 3)).dlnds.plot()
    assert ax.get_ylabel() == "generalization error $E_g$"


def test_strengths_to_stop_at_are_stems_with_their_times():
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    stop = dl.early_stopping(net, np.diag([3.0, -0.5]), strength=1e-4)
    ax = stop.dlnds.plot()
    assert [text.get_text() for text in ax.texts] == ["t = inf", "t = 0"]
    low, high = ax.get_ylim()
    assert low < -0.5 < 3.0 < high


def test_descent_is_drawn_over_time_beside_a_flow_and_over_iterations_alone():
    ax = dl.plot.loss(STEPS, exact=EXACT)
    np.testing.assert_allclose(curves(ax, 51)[0].get_xdata(), 0.1 * STEPS.iteration, rtol=1e-14)
    assert ax.get_xlabel().startswith("time")
    counted = STEPS.drop_vars("time")
    for other in (STEPS, counted):
        ax = dl.plot.loss(STEPS, exact=other)
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), STEPS.iteration)
        assert ax.get_xlabel() == "iteration $n$"
    with pytest.raises(ValueError, match="^exact: needs the clock of the run"):
        dl.plot.loss(counted, exact=EXACT)


def test_alignment_has_a_colour_a_mode_a_style_a_level_and_the_loss_behind():
    ax = dl.plot.alignment(TURNING)
    loss, *overlaps = sorted(curves(ax, TURNING.sizes["time"]), key=lambda line: line.get_zorder())
    np.testing.assert_allclose(loss.get_ydata(), TURNING.loss / TURNING.loss[0], rtol=1e-15)
    drawn = {}
    for line in overlaps:
        place = (line.get_color(), repr(line._dash_pattern))
        drawn[place] = line.get_ydata()
    assert len(drawn) == len(overlaps) == 4 * 3
    assert len({colour for colour, _ in drawn}) == 3
    assert len({style for _, style in drawn}) == 4
    wanted = {tuple(TURNING.alignment.values[:, i, j]) for i in range(4) for j in range(3)}
    assert {tuple(values) for values in drawn.values()} == wanted
    assert texts(ax)[:4] == [
        *("target, $W_{1}$", "$W_{1}$, $W_{2}$", "$W_{2}$, $W_{3}$", "$W_{3}$, target")
    ]
    assert texts(ax)[4].startswith("loss $L$")
    assert ax.get_ylabel().startswith(TURNING.alignment.attrs["long_name"])
    check_nothing_is_cut_off(ax)


def test_one_level_of_alignment_is_drawn_in_the_colours_of_all():
    whole, part = dl.plot.alignment(TURNING), dl.plot.alignment(TURNING, level=2)
    drawn = [
        {(line.get_color(), tuple(line.get_ydata())) for line in ax.lines} for ax in (whole, part)
    ]
    assert len(drawn[1]) == 3 + 1
    assert drawn[1] < drawn[0]
    wanted = {tuple(TURNING.alignment.values[:, 2, j]) for j in range(3)}
    assert wanted < {values for _, values in drawn[1]}
    assert {line.get_linestyle() for line in part.lines} == {"-"}
    assert texts(part)[0] == "$W_{2}$, $W_{3}$"
    assert len(dl.plot.alignment(TURNING.drop_vars("loss"), level=0).lines) == 3


def test_every_mode_can_be_seen_on_white():
    """Relative luminance as in WCAG 2; 1.4 is about the contrast of a pale green."""
    for count in (1, 2, 3, 12):
        colours = [line.get_color() for line in drawn_modes(count)]
        assert len({*colours}) == count
        linear = (np.array(colours)[:, :3]) ** 2.2
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        assert (1.05 / (luminance + 0.05)).min() > 1.4


def drawn_modes(count):
    values = xr.DataArray(np.ones((2, count)), dims=("time", "mode"))
    data = xr.Dataset({"singular_value": values}, coords={"time": [0.0, 1.0]})
    return dl.plot.singular_values(dl.schema.finish(data, "run", {})).lines


def test_kernels_are_drawn_as_far_as_they_are_known():
    ax = dl.plot.ntk(RUN)
    (other,) = (axes for axes in ax.figure.axes if axes is not ax)
    left = {tuple(line.get_ydata()) for line in ax.lines}
    assert left == {tuple(RUN.ntk_distance.values), tuple(RUN.ntk_alignment.values)}
    np.testing.assert_array_equal(other.lines[0].get_ydata(), RUN.ntk_change)
    assert other.get_ylabel().startswith(RUN.ntk_change.attrs["long_name"])
    assert len(texts(ax)) == 3
    assert ax.get_zorder() > other.get_zorder()  # no line crosses the legend
    check_nothing_is_cut_off(ax)
    for name in KERNEL:
        ax = dl.plot.ntk(RUN.drop_vars({*KERNEL} - {name}))
        assert len(ax.figure.axes) == len(ax.lines) == 1
        assert ax.get_ylabel().startswith(RUN[name].attrs["long_name"])


def test_sharpness_of_descent_stands_against_two_over_its_step():
    """At this minimum, balanced, it is h σ_1^{2−2/h}, below 2/η, to which the run comes."""
    ax = dl.plot.sharpness(STEPS)
    (edge,) = (line for line in ax.lines if len(line.get_xdata()) == 2)
    np.testing.assert_allclose(edge.get_ydata(), 20.0, rtol=1e-15)
    assert texts(ax)[0].endswith("= 20")
    (drawn,) = curves(ax, 51)
    np.testing.assert_allclose(drawn.get_ydata()[-1], 3.0 * 3.0 ** (4.0 / 3.0), rtol=1e-3)
    assert ax.get_xlabel() == "iteration $n$"
    ax = dl.plot.sharpness(STEPS, step_size=0.05)
    assert any(list(line.get_ydata()) == [40.0, 40.0] for line in ax.lines)
    assert len(dl.plot.sharpness(RUN).lines) == 1  # a flow has no step


def test_stacks_of_runs_are_drawn_whole():
    starts = np.stack([NET.initial(scale=0.3, rng=seed) for seed in range(3)])
    runs = dl.flow(NET, starts, (0, 2), save=SAVED)
    assert len(dl.plot.sharpness(runs).lines) == 3
    assert len(dl.plot.ntk(runs.drop_vars("ntk_change")).lines) == 2 * 3
    assert len(dl.plot.alignment(runs, level=1).lines) == 3 * 3 + 3


def test_small_eigenvalues_are_told_from_zeros():
    net = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag([3.0, 1e-2, 1e-6]))
    spectrum = dl.canonical_spectrum(net, (0, 1))
    ax = dl.plot.spectrum(spectrum)
    ax.figure.draw_without_rendering()
    zeros = spectrum.eigenvalue.values == 0.0
    grey = ax.lines[2]
    np.testing.assert_array_equal(grey.get_xdata(), np.flatnonzero(zeros))
    assert zeros.sum() == int(spectrum.nullity)
    values = spectrum.eigenvalue.values
    height = ax.transData.transform(np.stack([np.arange(len(values)), values], axis=1))[:, 1]
    sizes = np.unique(values[~zeros].round(12))
    assert len(sizes) >= 5
    assert np.abs(height[~zeros] - height[zeros][0]).min() > 0.03 * ax.bbox.height
    plain = dl.plot.spectrum(dl.canonical_spectrum(NET, (1,)))
    assert plain.get_yscale() == "linear"


def test_what_a_run_lacks_or_does_not_fit_is_refused_by_name():
    for name, call in [
        ("run: has no alignment", lambda: dl.plot.alignment(EXACT)),
        ("run: has nothing of the tangent kernel", lambda: dl.plot.ntk(EXACT)),
        ("run: has no sharpness", lambda: dl.plot.sharpness(EXACT)),
        ("run: needs a Dataset", lambda: dl.plot.ntk(np.zeros(3))),
        ("level: ", lambda: dl.plot.alignment(RUN, level=4)),
        ("step_size: ", lambda: dl.plot.sharpness(RUN, step_size=0.0)),
        ("linestyle: ", lambda: dl.plot.loss(RUN, exact=EXACT, linestyle="wavy")),
        ("exact: needs a Dataset", lambda: dl.plot.loss(RUN, exact=3)),
        ("exact: has no singular", lambda: dl.plot.singular_values(RUN, exact=EXACT[["loss"]])),
        ("test: needs a Dataset of the schema", lambda: dl.plot.loss(RUN, test=RUN)),
        ("test: needs real numbers of dims", lambda: dl.plot.loss(RUN, test=EXACT.loss)),
        ("test: ", lambda: dl.plot.loss(RUN, test=xr.DataArray("a"))),
        ("test: .* or a DataArray of dims", lambda: dl.plot.loss(RUN, test=np.ones(3))),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}"):
            call()


def test_rates_are_drawn_above_their_bounds_and_losses_below():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    start = net.initial("aligned", scale=[1.2, 0.9])
    noise = 0.05 * np.random.default_rng(0).normal(size=net.dim)
    for run in (dl.flow(net, start + noise), dl.flow(net, np.stack([start + noise, start]))):
        data = dl.convergence_bounds(net, run)
        exact = (data.excess_loss > data.excess_error).values
        for show, least in (("rate", "rate_bound"), ("excess_loss", "excess_bound")):
            ax = dl.plot.convergence(data, show=show)
            drawn = {
                colour: np.array([c.get_ydata() for c in ax.lines if c.get_color() == colour])
                for colour in ("black", "#4575b4", "#e08214", "#1b7837", "#d73027")
            }
            shown = drawn.pop("black").reshape(exact.shape)
            np.testing.assert_array_equal(shown[exact], data[show].values[exact])
            assert np.isnan(shown[~exact]).all()
            for bound, values in zip(data.bound.values, drawn.values(), strict=True):
                wanted = data[least].sel(bound=bound).values
                if np.isfinite(wanted).any():
                    np.testing.assert_array_equal(values.reshape(exact.shape), wanted)
                else:
                    assert not values.size
    assert data.dlnds.plot().get_ylabel().startswith("rate at which the excess loss decays")
    descent = dl.iterate(dl.GradientDescent(net, 0.05), start, n_steps=20)
    ax = dl.plot.convergence(dl.convergence_bounds(net, descent))
    assert texts(ax)[:3] == ["measured", "partial products"]
    with pytest.raises(ValueError, match="^show: "):
        dl.plot.convergence(data, show="loss")


def test_convergence_of_a_loss_whose_least_is_unknown_says_what_can_be_drawn():
    one = dl.losses.completion((2, 2), [0], [0], [1.0])
    net = dl.LossNetwork((2, 2, 2), one, weight_decay=0.1)
    plain = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    unknown = dl.convergence_bounds(net, dl.flow(net, net.initial(scale=0.5, rng=0), (0, 0.1)))
    over = dl.convergence_bounds(plain, dl.flow(plain, plain.critical_state((0, 1)), (0, 0.1)))
    still = dl.convergence_bounds(plain, dl.flow(plain, np.zeros(plain.dim), (0, 0.1)))
    for show in ("rate", "excess_loss"):
        before = plt.get_fignums()
        with pytest.raises(ValueError, match=r"^bounds: the least loss is not known.*plot\.loss"):
            dl.plot.convergence(unknown, show=show)
        assert plt.get_fignums() == before
    with pytest.raises(ValueError, match=r"^bounds: no excess_loss is above zero"):
        dl.plot.convergence(over.assign(excess_bound=0.0 * over.excess_bound), show="excess_loss")
    with pytest.raises(ValueError, match=r"^bounds: no rate is above zero"):
        dl.plot.convergence(still)
    assert texts(dl.plot.convergence(still, show="excess_loss"))[0] == "measured"
    first = dl.flow(plain, plain.initial(scale=0.5, rng=0))
    assert len(dl.plot.convergence(dl.convergence_bounds(plain, first)).lines) > 1
