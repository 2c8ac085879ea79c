"""Critical points of networks with convex losses: pure or spurious, minima or saddles."""

import itertools

import numpy as np
import pytest

import dlnds as dl

A, B = 1.0, 2.0


def kind(point):
    assert int(point.kind_is_clear) == (dl.schema.decode(point.kind).item() != "undecided")
    return dl.schema.decode(point.kind).item()


def everything(Y):
    rows, columns = np.indices(Y.shape).reshape(2, -1)
    return dl.losses.completion(Y.shape, rows, columns, Y.ravel())


def weighted(w, widths):
    """Y = diag(a, b) with the weight w of the zeros, at W = diag(0, b), balanced."""
    loss = dl.losses.completion((2, 2), [0, 0, 1, 1], [0, 1, 0, 1], [A, 0, 0, B], [1, w, w, 1])
    net, s = dl.LossNetwork(widths, loss), B ** (1.0 / (len(widths) - 1))
    layers = [np.zeros((b, a)) for a, b in itertools.pairwise(widths)]
    places = [1, *[0] * (len(widths) - 2), 1]
    for layer, column, row in zip(layers, places[:-1], places[1:], strict=True):
        layer[row, column] = s
    return net, net.pack(layers)


@pytest.mark.parametrize("widths", [(3, 4, 3), (3, 3, 3, 3), (4, 2, 3), (4, 3, 3, 3)])
def test_with_all_entries_points_are_what_they_are_for_the_square_loss(widths):
    Y = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(Y, [3.0, 2.0, 1.0])
    net, square = dl.LossNetwork(widths, everything(Y)), dl.LinearNetwork(widths, Y)
    for label in dl.critical_points(square).critical_point.values:
        if len(label) > 3 + 2 * square.max_rank:
            continue
        x = square.critical_state(dl.schema.index_set_modes(label))
        known, found = dl.classify(square, x), dl.classify(net, x)
        expected = kind(known)
        if expected == "global_minimum" and min(widths) < 3:
            expected = "minimum"  # of which it is not known that it is global
        assert kind(found) == expected, label
        assert int(found["rank"]) == int(known["rank"])
        if int(found.order_is_exact):
            assert int(found.order_of_descent) == int(known.order_of_descent)
        full = int(found["rank"]) == min(widths)
        assert int(found.pure) == (full or expected == "global_minimum")


@pytest.mark.parametrize("h", [2, 3])
@pytest.mark.parametrize("w", [0.3, 0.7])
def test_a_second_minimum_is_one_iff_the_weight_is_above_a_over_b(h, w):
    net, x = weighted(w, (2, *[1] * (h - 1), 2))
    point = dl.classify(net, x)
    assert kind(point) == ("minimum" if w > A / B else "strict_saddle")
    assert (int(point.pure), int(point["rank"])) == (1, 1)
    assert (int(point["index"]), int(point.nullity)) == (int(w < A / B), h - 1)


@pytest.mark.parametrize("w", [0.3, 0.7])
def test_the_same_map_is_a_spurious_saddle_of_wider_layers(w):
    """With two hidden units the Hessian has the eigenvalue −a, for h = 2; for h = 3 it has none."""
    net, x = weighted(w, (2, 2, 2))
    point = dl.classify(net, x)
    assert (kind(point), int(point.pure), int(point["rank"])) == ("strict_saddle", 0, 1)
    deep, x = weighted(w, (2, 2, 2, 2))
    values = np.linalg.eigvalsh(deep.hessian(x))
    point = dl.classify(deep, x)
    shows = values[0] < -1e-6
    assert kind(point) == ("strict_saddle" if shows else "nonstrict_saddle")
    assert int(point.pure) == 0
    assert shows == (w < A / B)
    if not shows:
        assert (int(point.order_of_descent), int(point.order_is_exact)) == (3, 1)


def test_what_is_met_is_a_global_minimum_and_what_moves_is_not_critical():
    loss = dl.losses.completion((2, 2), [0, 0, 1], [0, 1, 0], [1.0, 2.0, 3.0])
    net = dl.LossNetwork((2, 1, 2), loss)
    end = dl.flow(net, net.initial("balanced", scale=0.1, rng=0), save=["state"])
    point = dl.classify(net, end.isel(time=-1))
    assert (kind(point), int(point.pure), int(point.order_of_descent)) == ("global_minimum", 1, 0)
    moving = dl.classify(net, end.isel(time=20))
    assert (kind(moving), int(moving.pure)) == ("not_critical", -1)
    origin = dl.classify(net, np.zeros(net.dim))
    assert (kind(origin), int(origin.pure)) == ("strict_saddle", 0)
    found = dl.find_critical_point(net, end.isel(time=-1)["state"].values)
    assert kind(dl.classify(net, found)) == "global_minimum"


def test_the_way_to_infinity_is_no_minimum():
    net = dl.LossNetwork((1, 1, 1), dl.losses.logistic([[1.0, 2.0]], [1, 1]))
    point = dl.classify(net, np.array([6.0, 6.0]))
    assert (kind(point), int(point.pure)) == ("not_critical", -1)


def test_what_is_wrong_is_named():
    net, x = weighted(0.3, (2, 1, 2))
    for name, call in (
        ("x", lambda: dl.classify(net, x[:-1])),
        ("rtol", lambda: dl.classify(net, x, rtol=-1.0)),
        ("x", lambda: dl.classify(net, dl.flow(net, x, (0, 1), save=["state"]))),
    ):
        with pytest.raises(ValueError, match=f"^{name}"):
            call()
