"""Pictures: what is in them, and that they say what it is."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import dlnds as dl

NET = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
ATLAS = dl.build_atlas(NET)
RUN = dl.flow(NET, NET.initial(scale=0.1, rng=0), (0, 30), save=("singular_value",))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


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


def test_long_paths_have_short_labels_where_there_is_room():
    net = dl.LinearNetwork(widths=(7, 7, 7), target=np.diag([4.0, 3.5, 3.0, 2.5, 2.0, 0.2, 0.1]))
    run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 5))
    labels = [t.get_text() for t in dl.plot.loss(run, points=dl.critical_points(net)).texts]
    assert labels == ["{0…6}", "{0,1,2,3}", "{0,1,2}", "{0,1}", "{0}", "{}"]


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
        ("run", lambda: dl.plot.loss(np.zeros(3))),
        ("run", lambda: dl.plot.singular_values(ATLAS)),
        ("points", lambda: dl.plot.loss(RUN, points=RUN)),
        ("modes", lambda: dl.plot.singular_values(RUN, modes=3)),
        ("linearization", lambda: dl.plot.spectrum(RUN)),
        ("ax", lambda: dl.plot.loss(RUN, ax=3)),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            call()
    with pytest.raises(ValueError, match="^data: there is no picture for schema 'modes'"):
        NET.modes.dlnds.plot()


def test_problems_with_one_critical_point_can_be_drawn():
    dl.plot.levels(dl.build_atlas(dl.LinearNetwork(widths=(2, 2), target=np.eye(2))))
    dl.plot.levels(dl.build_atlas(dl.LinearNetwork(widths=(2, 2, 2), target=np.zeros((2, 2)))))
