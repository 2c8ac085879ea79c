"""Arcs from critical points: closed losses against real states, and what they reach."""

import itertools

import matplotlib.pyplot as plt
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnds as dl
from dlnds.saddles import arcs as module
from dlnds.theory import departures, strings

depths = st.lists(st.integers(1, 4), min_size=3, max_size=5)
networks = st.builds(
    naive.random_network,
    depths,
    naive.seeds,
    st.sampled_from(naive.KINDS),
    st.sampled_from([None, 1, 2]),
)


def diagonal(widths, sigma):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths=widths, target=target)


def basis(size, rng, orthogonal=False):
    q = [np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2)]
    return q[0] if orthogonal else q[0] * rng.uniform(0.5, 2.0, size) @ q[1]


def point(net, seed, with_blocks):
    """A critical point over random modes: A_S moved by GL, or any point of the fiber."""
    rng = np.random.default_rng(seed)
    positive = np.flatnonzero(net.singular_values)
    modes = sorted(rng.choice(positive, rng.integers(net.max_rank + 1), replace=False).tolist())
    if with_blocks:
        return dl.random_fiber_state(net, modes, rng=rng)
    return dl.act(net, [basis(d, rng) for d in net.widths[1:-1]], net.critical_state(modes))


def paths(net, x, **options):
    """All arcs from a point, each with its words and its states."""
    arcs = dl.critical_arcs(net, x, **options)
    layers = net.unpack(x)
    found = strings.learnt(net.problem, layers, 1e-8)
    place = departures.take_apart(net.problem, layers, found, 1e-8)
    words = [dl.schema.decode(arcs[name]).values for name in ("shape", "kind")]
    numbers = [arcs[name].values for name in ("mode", "mode_lost", "mode_read", "n_layers")]
    rows = zip(arcs.arc_parameter.values, *words, *numbers, strict=True)
    for k, row in enumerate(rows):
        yield arcs.isel(arc=k), row[1], row[2], departures.states(place, departures.Arc(*row))


def scale(net, states):
    """What the terms of the loss can be as large as."""
    sizes = [np.linalg.norm(w, axis=(1, 2)).max() for w in net.unpack(states)]
    return (np.linalg.norm(net.target) + np.prod(sizes) * np.linalg.norm(naive.root(net))) ** 2


def slope(net, states):
    """What terms of the gradient can be as large as."""
    sizes = [np.linalg.norm(w, axis=(1, 2)).max() + 1e-300 for w in net.unpack(states)]
    root = np.linalg.norm(naive.root(net))
    return max(scale(net, states) / min(sizes), np.linalg.norm(net.target) * root)


@given(networks, naive.seeds, st.booleans())
def test_losses_of_the_states_are_those_of_the_formulas(net, seed, with_blocks):
    x = point(net, seed, with_blocks)
    arcs = dl.critical_arcs(net, x, n_alpha=9)
    dl.schema.validate(arcs)
    assert arcs.identical(dl.critical_arcs(net, x, n_alpha=9))
    for row, shape, _, states in paths(net, x, n_alpha=9):
        near = {"rtol": 0, "atol": 1e-13 * scale(net, states), "err_msg": shape}
        np.testing.assert_array_equal(states[0], x)
        np.testing.assert_array_equal(row.loss, net.loss(states))
        np.testing.assert_allclose([naive.loss(net, y) for y in states], row.exact_loss, **near)
        np.testing.assert_allclose(row["drop"], row.exact_loss[0] - row.exact_loss[-1], **near)


@given(networks, naive.seeds, st.booleans())
def test_kinds_are_the_signs_of_the_changes(net, seed, with_blocks):
    for row, shape, kind, states in paths(net, point(net, seed, with_blocks), n_alpha=9):
        noise = 1e-13 * scale(net, states)
        change = np.diff(row.loss)
        rises, falls = (change > noise).any(), (change < -noise).any()
        found = {(0, 0): "constant", (1, 0): "increasing", (0, 1): "decreasing"}[rises, falls]
        assert found == kind or abs(row["drop"]) < 100 * noise, shape


@given(networks, naive.seeds, st.booleans())
def test_arcs_end_at_the_critical_points_they_name(net, seed, with_blocks):
    x = point(net, seed, with_blocks)
    for row, shape, _, states in paths(net, x, n_alpha=5):
        end = strings.learnt(net.problem, net.unpack(states[-1]), 1e-8)
        if row.target == "":
            assert not end.is_critical(1e-9), shape
        else:
            assert end.is_critical(1e-8), shape
            assert dl.schema.index_set_label(end.modes) == row.target, shape
            force = np.abs(naive.field(net, states[-1])).max()
            assert force < 1e-11 * slope(net, states)


@given(networks, naive.seeds, st.booleans())
def test_arcs_of_critical_points_are_told_from_others(net, seed, with_blocks):
    x = point(net, seed, with_blocks)
    for row, shape, _, states in paths(net, x, n_alpha=5):
        forces = [np.abs(naive.field(net, y)).max() for y in states[1:-1]]
        if row.is_critical:
            assert max(forces) < 1e-11 * slope(net, states), shape
        else:
            assert not any(
                strings.learnt(net.problem, net.unpack(y), 1e-9).is_critical(1e-9)
                for y in states[1:-1]
            )


def free_units(net, x):
    """Units of each hidden layer that no Z block touches, by the canonical form."""
    canon = dl.canonicalize(net, x)
    rank = int(canon.learnt.sum())
    blocks = [w[rank:, rank:] for w in naive.split(net, canon.moved_state.values)]
    right = net.singular_modes[2]
    S = canon.learnt.values
    blocks[0] = naive.split(net, canon.moved_state.values)[0][rank:] @ naive.root(net)
    blocks[0] = blocks[0] @ (np.eye(len(right)) - right[:, S] @ right[:, S].T)
    blocks[-1] = naive.split(net, canon.moved_state.values)[-1][:, rank:]

    def ranked(matrix):
        if not matrix.size:
            return 0
        return int(np.count_nonzero(np.linalg.svd(matrix, compute_uv=False) > 1e-9))

    pairs = itertools.pairwise(blocks)
    return [len(z) - ranked(z) - ranked(y) + ranked(y @ z) for z, y in pairs]


@settings(max_examples=25)
@given(networks, naive.seeds, st.booleans())
def test_every_row_of_the_table_is_there_where_it_can_be(net, seed, with_blocks):
    x = point(net, seed, with_blocks)
    arcs = dl.critical_arcs(net, x, n_alpha=2)
    r = len(dl.schema.index_set_modes(arcs.source.values[0])) if arcs.sizes["arc"] else 0
    n = np.count_nonzero(net.singular_values) - r
    open_now = n if min(free_units(net, x)) > 0 else 0
    open_at_canonical = n if min(net.widths[1:-1]) > r else 0
    plateaus = 2 if net.depth > 2 else 1
    shapes = dl.schema.decode(arcs["shape"]).values.tolist()
    expected = {
        "orbit": r,
        "plateau": plateaus * open_now,
        "activation": 2 * open_now,
        "cross": open_now * max(open_now - 1, 0),
        "scaling": 2 * r,
        "rotation": r * n,
        "rotation_kept": r * n,
    }
    assert {shape: shapes.count(shape) for shape in expected} == expected
    assert shapes.count("fiber") == int(dl.canonicalize(net, x).residual > 1e-6)
    missing = (plateaus + 2) * (open_at_canonical - open_now)
    missing += open_at_canonical * max(open_at_canonical - 1, 0) - expected["cross"]
    assert arcs.n_omitted == missing


@given(networks, naive.seeds)
def test_the_arc_along_the_fiber_leads_to_the_orbit_of_the_canonical_point(net, seed):
    for _, shape, _, states in paths(net, point(net, seed, True), n_alpha=3):
        if shape == "fiber":
            size = np.prod([1.0 + np.linalg.norm(w) for w in net.unpack(states[0])])
            assert dl.canonicalize(net, states[0]).residual > 1e-8
            assert dl.canonicalize(net, states[-1]).residual < 1e-12 * size**2


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_orders_are_the_exponents_of_the_first_change(depth):
    net = diagonal((3, *[4] * (depth - 1), 3), (1.5, 1.1, 0.6))
    seen = set()
    for row, shape, kind, states in paths(net, net.critical_state((1,)), n_alpha=257):
        change = np.abs([naive.loss(net, y) - naive.loss(net, states[0]) for y in states])
        if kind == "constant":
            assert int(row.order) == 0
            continue
        first = int(np.argmax(change > 1e-8))  # rounding is 1e-16
        exponent = np.log2(change[2 * first] / change[first])
        assert exponent == pytest.approx(int(row.order), abs=0.35), shape
        seen.add((shape, int(row.order)))
    rest = {("scaling", 2), ("rotation", 2), ("rotation_kept", 2)}
    assert seen == {("activation", depth), ("cross", 2 * depth)} | rest


@settings(max_examples=20)
@given(networks, naive.seeds, st.booleans(), st.booleans())
def test_arcs_are_the_same_all_over_the_orbit(net, seed, with_blocks, orthogonal):
    rng = np.random.default_rng(seed)
    x = point(net, seed, with_blocks)
    y = dl.act(net, [basis(d, rng, orthogonal) for d in net.widths[1:-1]], x)
    first, second = (dl.critical_arcs(net, state, n_alpha=5) for state in (x, y))
    sizes = [np.prod([1.0 + np.linalg.norm(w) for w in net.unpack(s)]) for s in (x, y)]
    size = (max(sizes) * (1.0 + np.linalg.norm(naive.root(net))) + net.singular_values[0]) ** 2
    np.testing.assert_allclose(first.loss, second.loss, rtol=0, atol=1e-11 * size)
    for name in set(first.variables) - {"loss"}:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_ends_are_where_the_table_has_them(depth):
    """The activation ends at its minimum; sizes and angles are those of the formulas."""
    net = diagonal((2,) * (depth + 1), (2.0, 0.7))
    for row, shape, kind, states in paths(net, net.critical_state((1,)), n_alpha=3):
        end, W = float(row.arc_parameter[-1]), net.product(states)
        np.testing.assert_allclose(row.arc_parameter, end * row.alpha, rtol=1e-15)
        if shape == "activation":
            assert end == pytest.approx(2.0 ** (1.0 / depth))
            sign = 1.0 if kind == "decreasing" else -1.0
            np.testing.assert_allclose(W[-1], np.diag([2.0 * sign, 0.7]), atol=1e-14)
        if shape == "scaling":
            lost = int(row.mode_lost) == 1
            np.testing.assert_allclose(W[-1], np.diag([0.0, 0.0 if lost else 1.4]), atol=1e-14)
        if shape == "rotation":
            np.testing.assert_allclose(W[-1], np.diag([2.0, 0.0]), atol=1e-14)
        if shape == "rotation_kept":
            np.testing.assert_allclose(W[1], np.full((2, 2), 0.35), atol=1e-14)
    (cross,) = (
        row for row in paths(net, net.critical_state(()), n_alpha=3)
        if row[1] == "cross" and row[0]["mode"] == 0
    )  # fmt: skip
    W = net.product(cross[3][-1])
    np.testing.assert_allclose(W, [[0.0, np.sqrt(1.4)], [0.0, 0.0]], atol=1e-14)


def test_z_blocks_that_carry_a_mode_keep_its_activation_from_ending_at_a_critical_point():
    """Z_3ᵀ Σ Z_1ᵀ = 0 by cancellation: with one mode learnt the other is left over."""
    net = diagonal((2, 2, 2, 2), (2.0, 1.0))
    Z1, Z3 = np.zeros((2, 2)), np.zeros((2, 2))
    Z1[0], Z3[:, 0] = (1.0, -2.0), (1.0, 1.0)
    x = net.pack([Z1, np.zeros((2, 2)), Z3])
    assert np.abs(naive.field(net, x)).max() == 0.0
    found = {(shape, kind): (row, states) for row, shape, kind, states in paths(net, x)}
    row, states = found["activation", "decreasing"]
    np.testing.assert_allclose(row.loss, row.exact_loss, atol=1e-14)
    assert row.target == ""
    assert np.abs(naive.field(net, states[-1])).max() > 0.5
    row, states = found["plateau", "constant"]
    assert (int(row.n_layers), int(row.is_critical)) == (1, 0)
    row, states = found["fiber", "constant"]
    assert (int(row.n_layers), int(row.is_critical), row.target) == (2, 1, "{}")
    np.testing.assert_array_equal(states[-1], 0.0)


@pytest.mark.parametrize("own", [0, 1])
def test_equal_modes_are_exchanged_at_a_constant_loss(own):
    """A_{1} is not A_{0}, although symmetries of the target turn one into the other."""
    net, other = diagonal((3, 4, 4, 3), (2.0, 2.0, 1.0)), 1 - own
    x = net.critical_state((own,))
    arcs = dl.critical_arcs(net, x)
    assert set(arcs.source.values) == {f"{{{own}}}"}
    assert dl.classify(net, x).critical_point.item() == f"{{{own}}}"
    assert dl.schema.decode(dl.classify(net, x).kind).item() == "nonstrict_saddle"
    shapes = dl.schema.decode(arcs["shape"]).values
    (row,) = np.flatnonzero((shapes == "rotation") & (arcs["mode"].values == other))
    exchange = arcs.isel(arc=[row])
    assert dl.schema.decode(exchange.kind).values.tolist() == ["constant"]
    assert (exchange.order.item(), exchange.is_critical.item()) == (0, 1)
    assert exchange.target.values.tolist() == [f"{{{other}}}"]
    np.testing.assert_allclose(exchange.loss, 2.5, rtol=1e-15)
    path = dl.arc_states(net, x, arcs, int(row))
    assert dl.classify(net, path.state.values[-1]).critical_point.item() == f"{{{other}}}"
    assert not ((shapes == "rotation_kept") & (arcs["mode"].values == other)).any()


def test_layers_without_room_have_no_channels_and_one_layer_has_no_arcs():
    bottleneck = diagonal((3, 2, 3), (3.0, 2.0, 1.0))
    arcs = dl.critical_arcs(bottleneck, bottleneck.critical_state((0, 2)))
    shapes = set(dl.schema.decode(arcs["shape"]).values)
    assert shapes == {"orbit", "scaling", "rotation", "rotation_kept"}
    assert arcs.n_omitted == 0
    single = diagonal((2, 2), (2.0, 1.0))
    arcs = dl.critical_arcs(single, single.critical_state((0, 1)))
    dl.schema.validate(arcs)
    assert arcs.sizes == {"arc": 0, "alpha": 33}


def test_zero_targets_have_only_what_lies_beside_the_origin():
    net = dl.LinearNetwork((2, 2, 2), np.zeros((2, 2)))
    assert dl.critical_arcs(net, np.zeros(8)).sizes["arc"] == 0
    arcs = dl.critical_arcs(net, net.pack([np.eye(2), np.zeros((2, 2))]))
    assert dl.schema.decode(arcs["shape"]).values.tolist() == ["fiber"]


# The table of all canonical points.

TABLES = [
    ((3, 4, 4, 3), "whitened", None),
    ((3, 2, 4), "full", None),
    ((3, 4, 2, 2, 3), "singular", None),
    ((4, 5, 4, 4), "whitened", 2),
]


@pytest.mark.parametrize(("widths", "kind", "rank"), TABLES)
def test_the_table_has_all_arcs_of_all_canonical_points(widths, kind, rank):
    net = naive.random_network(widths, 1, kind, rank)
    points = dl.critical_points(net)
    table = module.canonical_arcs(net, points, 9)
    dl.schema.validate(table)
    assert table.selection == "all"
    assert table.identical(module.canonical_arcs(net, points, 9))
    count = 0
    for label in points.critical_point.values:
        x = net.critical_state(dl.schema.index_set_modes(str(label)))
        arcs = dl.critical_arcs(net, x, n_alpha=9)
        part = table.isel(arc=table.source.values == label)
        count += arcs.sizes["arc"]
        words = [name for name in arcs.variables if arcs[name].dtype.kind != "f"]
        assert {"source", "target", "shape", "kind", "order", "is_critical"} <= set(words)
        for name in words:
            np.testing.assert_array_equal(part[name], arcs[name])
        for name in set(arcs.variables) - set(words):
            np.testing.assert_allclose(part[name], arcs[name], rtol=0, atol=1e-11, err_msg=name)
        np.testing.assert_allclose(part.loss, part.exact_loss, rtol=0, atol=1e-13)
    assert table.sizes["arc"] == count


def test_equal_modes_are_in_the_table_too():
    net = diagonal((3, 4, 4, 3), (2.0, 2.0, 1.0))
    table = module.canonical_arcs(net, dl.critical_points(net), 5)
    np.testing.assert_allclose(table.loss, table.exact_loss, rtol=0, atol=1e-14)
    constant = (dl.schema.decode(table["shape"]) == "rotation") & (table.order == 0)
    ends = (table[name].values[constant].tolist() for name in ("source", "target"))
    expected = {("{0}", "{1}"), ("{1}", "{0}"), ("{0,2}", "{1,2}"), ("{1,2}", "{0,2}")}
    assert set(zip(*ends, strict=True)) == expected


def test_tables_of_chosen_points_activate_within_them():
    net = diagonal((3, 4, 4, 3), (3.0, 2.0, 1.0))
    table = module.canonical_arcs(net, dl.critical_points(net, max_rank=1), 3)
    targets = set(table.target.values)
    assert targets == {"", "{}", "{0}", "{1}", "{2}"}
    adding = dl.schema.decode(table["shape"]) == "activation"
    adding &= dl.schema.decode(table.kind) == "decreasing"
    assert set(table.source.values[adding]) == {"{}"}
    table = module.canonical_arcs(net, dl.critical_points(net, modes=[0, 2]), 3)
    assert set(table["mode"].values) == {0, 2}


def test_large_tables_hold_fewer_kinds(monkeypatch):
    net = diagonal((4, 4, 4, 4), (4.0, 3.0, 2.0, 1.0))
    points = dl.critical_points(net)
    whole = module.canonical_arcs(net, points, 3)
    descending = whole.isel(
        arc=(dl.schema.decode(whole.kind).values == "decreasing") & (whole.target.values != "")
    )
    adding = descending.isel(arc=dl.schema.decode(descending["shape"]).values == "activation")
    for most, kept, word in [(100, descending, "descending"), (10, adding, "activations")]:
        monkeypatch.setattr(module, "MOST_ARCS", most)
        table = module.canonical_arcs(net, points, 3)
        assert table.identical(kept.assign_attrs(selection=word))


def test_thousands_of_points_have_a_table_in_proportion():
    net = diagonal((12, 12, 12, 12), np.arange(12.0, 0.0, -1.0))
    points = dl.critical_points(net)
    table = module.canonical_arcs(net, points, 33)
    assert points.sizes["critical_point"] == 4096
    assert table.selection == "descending"
    assert table.sizes["arc"] == 12 * 2**11 + 66 * 2**10
    assert table.nbytes < 1.2e8
    np.testing.assert_allclose(table.loss, table.exact_loss, rtol=0, atol=1e-12)


# States of one arc, and bad input.


def test_states_of_one_arc_are_those_that_were_sampled():
    net = naive.random_network((3, 4, 5, 3), 0, "full")
    x = point(net, 3, True)
    arcs = dl.critical_arcs(net, x, n_alpha=5)
    for number in range(0, arcs.sizes["arc"], 3):
        path = dl.arc_states(net, x, arcs, number)
        dl.schema.validate(path)
        np.testing.assert_array_equal(path.loss, arcs.loss[number])
        np.testing.assert_array_equal(path.state[0], x)
        np.testing.assert_array_equal(path.arc_parameter, arcs.arc_parameter[number])
        assert (path.source, path.target) == (arcs.source[number], arcs.target[number])


def test_arcs_of_the_atlas_can_be_walked():
    net = diagonal((3, 4, 4, 3), (3.0, 2.0, 1.0))
    atlas = dl.build_atlas(net, n_alpha=5)
    number = int(np.flatnonzero(atlas["arcs"].source.values == "{1,2}")[-1])
    path = dl.arc_states(net, net.critical_state((1, 2)), atlas["arcs"], number)
    np.testing.assert_allclose(path.loss, atlas["arcs"].loss[number], atol=1e-14)


NET = diagonal((2, 3, 3, 2), (2.0, 1.0))
X = NET.critical_state((1,))
ARCS = dl.critical_arcs(NET, X)
OTHER = diagonal((2, 3, 3, 2), (2.0, 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dl.critical_arcs("net", X), "^net: needs a LinearNetwork"),
        (lambda: dl.critical_arcs(NET, X + 0.1), "^x: needs a critical point"),
        (lambda: dl.critical_arcs(NET, X[:-1]), "^x: needs a shape"),
        (lambda: dl.critical_arcs(NET, X, n_alpha=1), "^n_alpha: needs at least 2"),
        (lambda: dl.critical_arcs(NET, X, n_alpha=10**11), "^n_alpha: this takes"),
        (lambda: dl.critical_arcs(NET, X, rtol=-1.0), "^rtol: needs"),
        (lambda: dl.critical_arcs(NET, X, n_alfa=3), "^n_alfa: .*did you mean 'n_alpha'"),
        (lambda: dl.arc_states(NET, X, X, 0), "^arcs: needs a Dataset"),
        (lambda: dl.arc_states(OTHER, X, ARCS, 0), "^arcs: belongs to another network"),
        (lambda: dl.arc_states(NET, X, ARCS, 1000), "^arc: needs at least 0 and at most"),
        (lambda: dl.arc_states(NET, 0 * X, ARCS, 0), "^x: is a point over {}, the arc starts over"),
        (lambda: dl.arc_states(NET, X + 0.1, ARCS, 0), "^x: needs a critical point"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_points_without_what_an_arc_is_made_of_are_refused():
    fiber = dl.critical_arcs(NET, dl.random_fiber_state(NET, (1,), rng=0))
    shapes = dl.schema.decode(fiber["shape"]).values.tolist()
    with pytest.raises(ValueError, match="^x: has no arcs of the shape 'fiber'"):
        dl.arc_states(NET, X, fiber, shapes.index("fiber"))


def test_unclear_ranks_are_said_to_be():
    net = dl.LinearNetwork((4, 4, 4), np.diag([1.0, 0.0, 0.0, 0.0]))
    x = net.pack([np.diag([0.0, 1.0, 1.5e-8, 5e-9]), np.zeros((4, 4))])
    with pytest.raises(ValueError, match="^rtol: ranks are not clear at 1e-08: .* from 1.5e-08"):
        dl.critical_arcs(net, x)


def test_arcs_can_be_saved(tmp_path):
    dl.save(ARCS, tmp_path / "arcs.nc")
    assert dl.load(tmp_path / "arcs.nc").identical(ARCS)


# The picture.


@pytest.fixture
def new_figures():
    yield
    plt.close("all")


def test_every_arc_is_drawn_and_listed(new_figures):
    net = diagonal((3, 4, 4, 3), (3.0, 2.0, 1.0))
    table = dl.build_atlas(net, n_alpha=5)["arcs"]
    ax = dl.plot.arcs(table, source="{1}")
    part = table.to_dataset().isel(arc=table.source.values == "{1}")
    drawn = sorted(tuple(line.get_ydata()) for line in ax.lines if len(line.get_ydata()))
    assert drawn == sorted(map(tuple, part.loss.values.tolist()))
    listed = [text.get_text() for text in ax.get_legend().get_texts()]
    assert listed == [
        "decreasing (4)", "activation: 0, 2", "rotation: 1→0", "rotation, strength kept: 1→0",
        "increasing (8)", "activation, sign −: 0, 2", "cross: 2→0, 0→2", "scaling: 1",
        "rotation: 1→2", "rotation, strength kept: 1→2",
        "constant (5)", "orbit: 1", "plateau: 0, 2",
    ]  # fmt: skip
    assert {text.get_text() for text in ax.texts} == {"{0,1}", "{1,2}", "{0}"}
    assert ax.get_title() == "arcs from {1}"


def test_labels_of_ends_do_not_overlap_where_arcs_end_close_together(new_figures):
    sigma = np.sqrt(1.0 + 0.001 * np.arange(8.0, 0.0, -1.0))
    net = diagonal((8, 8, 8), sigma)
    ax = dl.plot.arcs(dl.critical_arcs(net, np.zeros(net.dim), n_alpha=5))
    places = np.sort([text.xyann[1] for text in ax.texts])
    assert len(places) == 8
    low, high = ax.get_ylim()
    assert np.diff(places).min() > 0.034 * (high - low)
    assert np.mean(places) == pytest.approx(np.mean([text.xy[1] for text in ax.texts]))


def test_pictures_of_arcs_say_what_they_need(new_figures):
    table = dl.build_atlas(NET, n_alpha=3)["arcs"]
    assert dl.critical_arcs(NET, X, n_alpha=3).dlnds.plot().get_title() == "arcs from {1}"
    with pytest.raises(ValueError, match="^source: there are arcs from 4 points, needs one, as"):
        dl.plot.arcs(table)
    with pytest.raises(ValueError, match=r"^source: no arc starts at '\{2\}'"):
        dl.plot.arcs(table, source="{2}")
    with pytest.raises(TypeError, match="^arcs: needs a Dataset of the schema arcs"):
        dl.plot.arcs(dl.critical_points(NET))
    nothing = diagonal((2, 2), (2.0, 1.0))
    arcs = dl.critical_arcs(nothing, nothing.critical_state((0, 1)))
    assert dl.plot.arcs(arcs).get_title() == "no arcs"
