"""Critical points of networks with convex losses: pure or spurious, minima or saddles."""

import itertools

import numpy as np
import pytest
import scipy.sparse

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


@pytest.mark.parametrize("depth", [2, 3])
def test_what_is_not_observed_counts_for_the_rank_of_a_map(depth):
    """∇ℓᵀU and ∇ℓ V, U and V the ranges of W, are zero where it is critical on maps of its rank."""
    loss = dl.losses.completion((2, 2), [0, 1], [0, 0], [2.0, 0.0])
    ends = [np.array([[0.0, 1.0]]), np.array([[0.0], [1.0]])]
    for inner, pure in (((1,) * (depth - 1), 1), ((2,) * (depth - 1), 0)):
        net = dl.LossNetwork((2, *inner, 2), loss)
        layers = [np.zeros((b, a)) for a, b in itertools.pairwise(net.widths)]
        for layer in layers:
            layer[0, 0] = 1.0
        layers[0][0], layers[-1][:, 0] = ends[0][0], ends[1][:, 0]
        W = np.linalg.multi_dot([*layers[::-1], np.eye(2)])
        np.testing.assert_array_equal(W, [[0.0, 0.0], [0.0, 1.0]])
        gradient = net.criterion.gradient(W)
        assert not (gradient.T @ ends[1]).any()
        assert not (gradient @ ends[0].T).any()
        assert gradient.any()
        point = dl.classify(net, net.pack(layers))
        # A map of rank 2 that wider layers reach is better to first order.
        assert (int(point["rank"]), int(point.pure)) == (1, pure)
        assert kind(point) != "not_critical"


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


@pytest.mark.parametrize("size", [1e-20, 1e-12, 0.0])
def test_a_layer_that_vanishes_up_to_rounding_is_none(size):
    """The other one reads nothing that is learnt: both gradients vanish where it is zero."""
    Y = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    net, square = dl.LossNetwork((3, 1, 2), everything(Y)), dl.LinearNetwork((3, 1, 2), Y)
    x = np.array([0.0, 0.0, 1.0, size, 0.0])
    assert kind(dl.classify(square, x)) == kind(dl.classify(net, x)) == "strict_saddle"
    moving = dl.classify(net, np.add(x, [0, 0, 0, 1e-3, 0]))  # a thousandth is a layer
    assert kind(moving) == "not_critical"


@pytest.mark.parametrize("seed", range(30))
def test_what_newton_finds_at_a_bottleneck_is_what_it_is_for_the_square_loss(seed):
    rng = np.random.default_rng(seed)
    widths = (int(rng.integers(2, 5)), 1 + seed % 2, int(rng.integers(2, 5)))
    Y = rng.normal(size=(widths[-1], widths[0]))
    net, square = dl.LossNetwork(widths, everything(Y)), dl.LinearNetwork(widths, Y)
    x = dl.find_critical_point(square, square.initial(scale=1.0, rng=seed)).state.values
    known, found = dl.classify(square, x), dl.classify(net, x)
    words = [dl.schema.decode(point.kind).item() for point in (known, found)]
    same = words[0] == words[1] or (words == ["global_minimum", "minimum"])
    assert same or not (known.kind_is_clear and found.kind_is_clear), words
    assert words[1] != "not_critical"


@pytest.mark.parametrize("seen", [(0, 1), (0, 2), (2,)])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_weights_that_the_loss_does_not_see_are_free_at_a_minimum(seen, side):
    """diag(2, 1) in some columns, or rows, of W of rank one: of rank one it is diag(2, 0)."""
    Y = np.zeros((2, 3))
    Y[np.arange(len(seen)), seen] = [2.0, 1.0][: len(seen)]
    rows, columns = (a[:, list(seen)].ravel() for a in np.indices(Y.shape))
    values, shape, widths = Y[rows, columns], Y.shape, (3, 1, 2)
    if side == "outputs":
        rows, columns, shape, widths = columns, rows, shape[::-1], (2, 1, 3)
    net = dl.LossNetwork(widths, dl.losses.completion(shape, rows, columns, values))
    layers = [np.zeros((1, widths[0])), np.zeros((widths[2], 1))]
    place = (0, seen[0]) if side == "inputs" else (seen[0], 0)
    layers[0][0, place[1]] = layers[1][place[0], 0] = np.sqrt(2.0)
    free = layers[0][0] if side == "inputs" else layers[1][:, 0]
    free[[k for k in range(3) if k not in seen]] = 0.3  # any number
    found = dl.classify(net, net.pack(layers))
    assert kind(found) == ("minimum" if len(seen) == 2 else "global_minimum")
    other = layers[0] if side == "inputs" else layers[1].T
    other[:, seen[-1]] += 0.1 if len(seen) == 2 else 0.0
    if len(seen) == 2:
        assert kind(dl.classify(net, net.pack(layers))) == "not_critical"


def test_what_outputs_of_a_softmax_have_in_common_is_free_too():
    """Three classes of a rank one map: a constant added to all outputs changes no probability."""
    rng = np.random.default_rng(0)
    labels = np.abs(rng.normal(size=(3, 40))) + 0.1
    loss = dl.losses.cross_entropy(rng.normal(size=(4, 40)), labels / labels.sum(axis=0))
    net = dl.LossNetwork((4, 1, 3), loss)
    x = dl.flow(net, net.initial(scale=0.5, rng=1), (0.0, 2e3), save=["state"]).state.values[-1]
    point = dl.find_critical_point(net, x)
    assert kind(dl.classify(net, point)) == "minimum"


@pytest.mark.parametrize("ratio", [1e5, 1e6, 1e8])
def test_an_entry_that_is_not_met_is_not_lost_beside_a_large_one(ratio):
    loss = dl.losses.completion((2, 2), [0, 0, 1], [0, 1, 0], [ratio, 2.0, 3.0])
    net = dl.LossNetwork((2, 2), loss)
    far = dl.classify(net, [ratio, 0.0, 0.0, 0.0])
    assert not int(far.kind_is_clear) or dl.schema.decode(far.kind).item() == "not_critical"
    assert kind(dl.classify(net, [ratio, 2.0, 3.0, 7.0])) == "global_minimum"


def first_of_two(kind):
    """The loss of the first entry of W = (e, 1), which is to be zero."""
    if kind == "completion":
        return dl.losses.completion((1, 2), [0], [0], [0.0])
    A = np.array([[1.0, 0.0]])
    if kind == "sparse":
        return dl.losses.measurements(scipy.sparse.csr_array(A), [0.0], shape=(1, 2))
    return dl.losses.measurements(A[None], [0.0])


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("kind_of_loss", ["completion", "dense", "sparse"])
def test_zeros_are_met_in_terms_of_what_is_not_observed(size, kind_of_loss):
    """Nothing but W itself has a size."""
    net = dl.LossNetwork((2, 1), first_of_two(kind_of_loss))
    for rest, word in ((0.0, "global_minimum"), (1e-12, "global_minimum"), (0.1, "not_critical")):
        assert kind(dl.classify(net, [rest * size, size])) == word
    deep = dl.LossNetwork((2, 2, 1), first_of_two(kind_of_loss))
    for rest, word in ((1e-12, "global_minimum"), (0.1, "not_critical")):
        x = size**0.5 * np.array([rest, 1.0, 1.0, 0.5, 1.0, -0.5 * rest])
        assert kind(dl.classify(deep, x)) == word


@pytest.mark.parametrize("ratio", [1e9, 1e11, 1e13])
def test_an_entry_that_rounding_of_others_nearly_hides_is_met_or_it_is_not_clear(ratio):
    net = dl.LossNetwork((2, 2, 2), dl.losses.completion((2, 2), [0, 1], [0, 1], [ratio, 1.0]))
    big = np.sqrt(ratio)
    for second, clear in ((1.0, True), (0.5, False), (0.0, False)):
        point = dl.classify(net, [big, 0.0, 0.0, second, big, 0.0, 0.0, second > 0.0])
        assert bool(point.kind_is_clear) == clear
        assert not clear or kind(point) == "global_minimum"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_minimum_of_labels_without_a_direction_is_one(scale):
    """Of the same inputs with both labels the best map is zero, and so is its gradient there."""
    inputs = scale * np.array([[1.0, 1.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]])
    net = dl.LossNetwork((2, 2, 1), dl.losses.logistic(inputs, [1, -1, 1, -1]))
    x = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.5])
    assert kind(dl.classify(net, x)) == "global_minimum"
    moving = np.array([1.0, 0.3, -0.2, 0.4, 1.0, 0.5])
    assert kind(dl.classify(net, moving / scale**0.5)) == "not_critical"
