"""Critical points, linearization, arcs, atlas."""

import itertools

import naive
import numpy as np
import pytest
from hypothesis import given

import dlnds as dl


def index_sets(net):
    return [dl.schema.index_set_modes(s) for s in dl.critical_points(net).critical_point.values]


@given(naive.small_networks)
def test_critical_points_are_critical_and_have_the_stated_loss(net):
    points = dl.critical_points(net)
    dl.schema.validate(points)
    size = 1.0 + np.abs(net.target).max()
    for modes, loss in zip(index_sets(net), points.loss.values, strict=True):
        x = net.critical_state(modes)
        norms = [1.0 + np.linalg.norm(w) for w in (*net.unpack(x), naive.root(net))]
        assert np.abs(naive.field(net, x)).max() < 1e-12 * size * np.prod(norms) ** 2
        assert naive.loss(net, x) == pytest.approx(loss, rel=1e-10, abs=1e-12 * size**2)
        assert net.limit(x).label == dl.schema.index_set_label(modes)


@given(naive.small_networks)
def test_all_index_sets_are_listed_once(net):
    positive = np.flatnonzero(net.singular_values)
    if net.depth == 1:
        expected = [tuple(positive)]
    else:
        ranks = range(net.max_rank + 1)
        expected = [s for r in ranks for s in itertools.combinations(positive, r)]
    assert index_sets(net) == [tuple(int(m) for m in s) for s in expected]


@given(naive.small_networks)
def test_kinds_of_canonical_points_follow_the_rule(net):
    kinds = dl.schema.decode(dl.critical_points(net).kind).values
    for modes, kind in zip(index_sets(net), kinds, strict=True):
        assert kind == naive.kinds_by_rule(net, modes)


@given(naive.small_networks)
def test_kinds_agree_with_the_hessian(net):
    """A strict saddle has a negative eigenvalue, the others have none."""
    kinds = dl.schema.decode(dl.critical_points(net).kind).values
    for modes, kind in zip(index_sets(net), kinds, strict=True):
        x = net.critical_state(modes)
        H = naive.differences(lambda y: -naive.field(net, y), x, 1e-3)
        lowest = np.linalg.eigvalsh(0.5 * (H + H.T))[0]
        noise = 1e-8 * np.abs(H).max(initial=1.0)
        assert (lowest < -noise) == (kind == "strict_saddle") or abs(lowest) < 1e-5


def test_only_wanted_modes_are_listed():
    net = dl.LinearNetwork(widths=(4, 5, 5, 4), target=np.diag([4.0, 3.0, 2.0, 1.0]))
    labels = dl.critical_points(net, max_rank=1, modes=[3, 1]).critical_point.values.tolist()
    assert labels == ["{}", "{1}", "{3}"]


def test_long_lists_are_refused_with_their_count():
    net = dl.LinearNetwork(widths=(30, 30, 30), target=np.diag(np.arange(30.0, 0.0, -1.0)))
    with pytest.raises(ValueError, match=r"max_rank: there are 1,073,741,824 critical points"):
        dl.critical_points(net)
    assert dl.critical_points(net, max_rank=2).sizes["critical_point"] == 1 + 30 + 435


@pytest.mark.parametrize(
    "widths",
    [
        (2, 2),
        (3, 4, 2),
        (2, 5, 4),
        (3, 2, 3),
        (3, 4, 5, 3),
        (4, 3, 3, 2, 4),
        (2, 3, 3, 3, 3, 2),
        (1, 2, 1),
    ],
)
def test_closed_spectra_at_every_index_set(widths):
    for seed, rank in [(0, None), (1, 1), (2, 2)]:
        net = naive.random_network(widths, seed, rank=rank)
        for modes in index_sets(net):
            x = net.critical_state(modes)
            H = naive.differences(lambda y, net=net: -naive.field(net, y), x, 1e-3)
            closed, dense = dl.canonical_spectrum(net, modes), dl.linearize(net, x, method="dense")
            top = np.abs(closed.eigenvalue.values).max(initial=1.0)
            truth = np.linalg.eigvalsh(0.5 * (H + H.T))
            np.testing.assert_allclose(closed.eigenvalue, truth, rtol=0, atol=1e-8 * top)
            np.testing.assert_allclose(
                dense.eigenvalue, closed.eigenvalue, rtol=0, atol=1e-12 * top
            )
            assert dense["index"] == closed["index"]
            assert dense.nullity == closed.nullity
            dl.schema.validate(closed)
            dl.schema.validate(dense)


def test_of_two_layers_the_index_falls_where_a_mode_vanishes():
    """Each spare unit has one direction down for each mode above zero that is not learnt."""
    for depth in (2, 3):
        for weak, modes in ((0.1, 1), (0.0, 0), (-0.1, 1)):
            net = dl.LinearNetwork((2, *(3,) * (depth - 1), 2), np.diag([2.0, weak]))
            spare = 2 * modes if depth == 2 else 0
            assert int(dl.linearize(net, net.critical_state((0,)))["index"]) == spare


def test_morse_index_at_the_origin_of_two_layers():
    """Every unlearnt mode gives d_1 negative eigenvalues −σ_k."""
    net = dl.LinearNetwork(widths=(3, 5, 2), target=[[3.0, 0, 0], [0, 1.0, 0]])
    values = dl.linearize(net, np.zeros(25), method="dense").eigenvalue.values
    np.testing.assert_allclose(
        values, [-3.0] * 5 + [-1.0] * 5 + [0.0] * 5 + [1.0] * 5 + [3.0] * 5, atol=1e-14
    )


def brusselator(t, x, params, out):
    a, b = params[1][0], params[1][1]
    out[0] = a + x[0] ** 2 * x[1] - (b + 1.0) * x[0]
    out[1] = b * x[0] - x[0] ** 2 * x[1]


@pytest.mark.parametrize(("b", "index"), [(4.9, 0), (5.1, 2)])
def test_linearization_of_any_system_by_differences(b, index):
    """The Brusselator with A = 2 loses stability at B = 1 + A² = 5."""
    system = dl.System(brusselator, dim=2, parameters=(2.0, b))
    spectrum = dl.linearize(system, [2.0, b / 2.0])
    trace, determinant = b - 5.0, 4.0
    assert int(spectrum["index"]) == index
    np.testing.assert_allclose(spectrum.eigenvalue, trace / 2, atol=1e-8)
    np.testing.assert_allclose(
        np.abs(spectrum.eigenvalue_imag), np.sqrt(determinant - trace**2 / 4), atol=1e-8
    )
