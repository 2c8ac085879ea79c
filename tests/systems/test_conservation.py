"""Conservation laws: counts of Lie brackets, known quantities, exceptions, decay."""

import itertools

import numpy as np
import pytest

import dlnds as dl


def network(widths, **options):
    return dl.LinearNetwork(widths=widths, target=np.eye(widths[-1], widths[0]), **options)


def counts(system, **options):
    laws = dl.conservation_laws(system, **options)
    assert int(laws.is_clear) == 1
    return int(laws["count"]), int(laws.known)


def entries_of_imbalances(widths):
    """Independent entries of C_1, …, C_{h−1} near generic layers (theorem of MGP23 for h = 2)."""
    total = 0
    for before, d, after in zip(widths, widths[1:], widths[2:], strict=False):
        spare = max(0, d - before - after)
        total += d * (d + 1) // 2 - spare * (spare + 1) // 2
    return total


def smooth_brackets(widths, x):
    """What the gradients of the entries of W and their first brackets span, by differences."""

    def gradients(x):
        net = network(widths)
        rows = []
        for a, b in np.ndindex(widths[-1], widths[0]):
            before = [np.eye(widths[0])]
            layers = net.unpack(x)
            for w in layers[:-1]:
                before.append(w @ before[-1])
            after, parts = np.eye(widths[-1]), []
            for w, p in zip(layers[::-1], before[::-1], strict=True):
                parts.append(np.outer(after[a], p[:, b]).ravel())
                after = after @ w
            rows.append(np.concatenate(parts[::-1]))
        return np.array(rows)

    step = 1e-5
    fields = gradients(x)
    along = [(gradients(x + step * f) - gradients(x - step * f)) / (2 * step) for f in fields]
    pairs = itertools.combinations(range(len(fields)), 2)
    return fields, np.array([along[j][k] - along[k][j] for j, k in pairs])


@pytest.mark.parametrize("widths", [(2, 2, 2), (2, 3, 2), (3, 2, 2), (2, 2, 2, 2), (2, 1, 3)])
def test_spans_of_single_brackets_are_those_of_differences(widths):
    x = np.random.default_rng(0).normal(size=network(widths).dim)
    fields, brackets = smooth_brackets(widths, x)
    dims = dl.conservation_laws(network(widths)).dimension.values
    for rows, dim in ((fields, dims[0]), (np.vstack([fields, brackets]), dims[:2][-1])):
        sizes = np.linalg.svd(rows, compute_uv=False)
        assert np.count_nonzero(sizes > 1e-7 * sizes[0]) == dim  # differences have 1e-10


WIDTHS = [
    *itertools.product((2, 3), (1, 2, 3, 5), (1, 2, 3)),
    *itertools.product((2, 3), (1, 2, 4), (2, 3), (1, 2)),
    (2, 2, 2, 2, 2),
    (3, 1, 4, 2, 2),
    (2, 9, 3),
]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_the_imbalances_are_all_laws_of_more_than_one_output_or_input(widths):
    expected = entries_of_imbalances(widths)
    assert counts(network(widths)) == (expected, expected)


@pytest.mark.parametrize(
    ("widths", "known"), [((1, 2, 2, 1), 6), ((1, 3, 4, 1), 16), ((1, 1, 1), 1), ((1, 1, 1, 1), 2)]
)
def test_one_input_and_one_output_have_one_field(widths, known):
    net = network(widths)
    assert counts(net) == (net.dim - 1, known)
    assert known == entries_of_imbalances(widths)


@pytest.mark.parametrize("seed", range(30))
def test_known_laws_of_random_widths_have_the_rank_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    widths = tuple(rng.integers(1, 7, size=rng.integers(3, 6)).tolist())
    net = network(widths)
    x = rng.normal(size=net.dim)
    steps = 1e-6 * np.eye(net.dim)
    change = (net.conserved(x + steps) - net.conserved(x - steps)) / 2e-6  # (parameter, component)
    sizes = np.linalg.svd(change, compute_uv=False)
    rank = int(np.count_nonzero(sizes > 1e-6 * sizes[0]))
    assert rank == entries_of_imbalances(widths)


@pytest.mark.parametrize("widths", [(2, 2, 2), (3, 3, 2), (2, 1, 3), (2, 2, 2, 2)])
def test_equal_decay_takes_one_law(widths):
    plain, known = counts(network(widths))
    assert counts(network(widths, weight_decay=0.1)) == (plain - 1, known)


def test_unequal_decay_takes_all_functions_of_the_imbalance():
    """⟨f′(C), λ_1 A − λ_2 B⟩ = 0 of A = W_1 W_1ᵀ, B = W_2ᵀ W_2, for all A − B = C: f′ = 0."""
    assert counts(network((2, 2, 2), weight_decay=(0.1, 0.3))) == (0, 3)


@pytest.mark.parametrize(
    ("widths", "power", "slope"),
    [
        ((2, 3, 1), 2, 0.0),
        ((2, 2, 2), 3, 0.5),
        ((3, 2, 2), 2, -0.5),
        ((2, 2, 2, 1), 2, 0.0),
        ((3, 4, 4, 2), 2, 0.0),
    ],
)
def test_each_hidden_neuron_has_one_law(widths, power, slope):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(widths[0], 5)), rng.normal(size=(widths[-1], 5))
    net = dl.HomogeneousNetwork(widths, X, y, power=power, slope=slope)
    neurons = sum(widths[1:-1])
    assert counts(net) == (neurons, neurons)


def test_units_that_are_never_active_keep_all_their_weights():
    X = np.eye(2)
    net = dl.HomogeneousNetwork((2, 2, 3, 2), X, X, power=2)
    rng = np.random.default_rng(2)
    W = [rng.normal(size=(2, 2)), abs(rng.normal(size=(3, 2))), rng.normal(size=(2, 3))]
    assert counts(net, x=net.pack(W)) == (5, 5)
    W[1][0] *= -1.0  # 2 weights into this unit, 2 out of it
    assert counts(net, x=net.pack(W)) == (5 - 1 + 4, 5)


def test_losses_and_data_do_not_count():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(2, 7))
    logistic = dl.LossNetwork((2, 3, 2), dl.losses.logistic(X, np.sign(X)))
    linear = dl.HomogeneousNetwork((2, 3, 2), X, X, power=1, slope=1.0)
    data = dl.LinearNetwork.from_data(X, X, hidden=(3,), whiten=False)
    assert {counts(net) for net in (logistic, linear, data, network((2, 3, 2)))} == {(6, 6)}


def test_states_say_which_units_are_active():
    """A unit that no input reaches keeps its weights, all of which are conserved."""
    X = np.array([[1.0, 2.0, 3.0]])
    net = dl.HomogeneousNetwork((1, 2, 1), X, X[0], power=2, slope=0.0)
    x = net.pack([[[1.0], [1.0]], [[0.5, 0.3]]])
    assert counts(net, x=x) == (3, 2)  # both units see the same half line: one field less
    assert counts(net, x=net.pack([[[1.0], [-1.0]], [[0.5, 0.3]]])) == (2, 2)


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^system: needs at most 300 weights, got 512"):
        dl.conservation_laws(network((16, 16, 16)))
    with pytest.raises(TypeError, match=r"^system: needs a network"):
        dl.conservation_laws(dl.GradientDescent(network((2, 2)), step_size=0.1))
    with pytest.raises(ValueError, match=r"^x: "):
        dl.conservation_laws(network((2, 2)), np.zeros(3))


@pytest.mark.parametrize("widths", [(1, 2, 2, 1, 2), (1, 3, 3, 1, 3)])
def test_a_part_between_two_levels_of_width_one_has_one_field_of_its_own(widths):
    """All but one quantity of its n weights is conserved, and one at the level where it ends."""
    d = widths[1]
    net = dl.LinearNetwork(widths, np.ones((d, 1)))
    laws = dl.conservation_laws(net)
    assert int(laws["count"]) == (2 * d + d * d - 1) + 1
    assert int(laws.known) == 2 * (d * (d + 1) // 2) + 1
