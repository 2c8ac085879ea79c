"""Spectra that are known in closed form, ends of spectra from products, and what counts as zero."""

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl
from dlnds.theory import spectra

whitened = st.builds(
    naive.random_network,
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    naive.seeds,
    st.just("whitened"),
    st.sampled_from([None, 1, 2]),
)


def dense(net, x):
    return dl.linearize(net, x, method="dense").eigenvalue.values


def assert_equal_spectra(found, expected, size=None):
    """Known spectra promise 1e-12; dense and iterative ones are rounded by n ε."""
    size = np.abs(expected).max(initial=1e-300) if size is None else size
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=2e-12 * size)


@given(whitened, naive.seeds)
def test_spectra_at_all_balanced_critical_points_are_closed(net, seed):
    for modes in naive.index_sets(net):
        x = naive.change_bases(net, net.critical_state(modes), seed)
        known = dl.linearize(net, x)
        assert known.attrs["method"] == "closed_form"
        assert_equal_spectra(known.eigenvalue.values, dense(net, x))
        closed = dl.canonical_spectrum(net, modes)
        assert known["index"] == closed["index"]
        assert known.nullity == closed.nullity
        dl.schema.validate(known)


@pytest.mark.parametrize("widths", [(3, 3, 3), (3, 4, 3, 3), (4, 2, 2, 3)])
def test_any_projector_of_equal_singular_values_is_recognized(widths):
    """With σ_1 = σ_2 the points W = P Σ, P a line in their plane, are all balanced and critical."""
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, [2.0, 2.0, 1.0])
    plain = dl.LinearNetwork(widths=widths, target=target)
    layers = naive.split(plain, plain.critical_state((0, 2) if min(widths) > 2 else (0,)))
    angle = np.array([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    layers[-1] = angle @ layers[-1]
    layers[0][:, :3] = layers[0][:, :3] @ angle.T
    x = naive.change_bases(plain, plain.pack(layers), 0)
    known = dl.linearize(plain, x)
    assert known.attrs["method"] == "closed_form"
    assert_equal_spectra(known.eigenvalue.values, dense(plain, x))


def test_singular_values_that_are_nearly_equal_are_not_taken_for_equal_ones():
    """σ_j − σ_k = 1e-10 is a tie for the index, but an eigenvalue that 1e-12 tells from zero."""
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag([1.0 + 1e-10, 1.0, 0.5]))
    x = net.critical_state((1,))
    found = dl.linearize(net, x)
    assert found.attrs["method"] == "dense"
    assert found.eigenvalue[0] == pytest.approx(-1e-10, abs=1e-14)


def test_graded_singular_values_are_recognized():
    net = dl.LinearNetwork(widths=(5,) * 6, target=np.diag([1.0, 1e-3, 1e-6, 1e-9, 1e-11]))
    for modes in naive.index_sets(net):
        x = naive.change_bases(net, net.critical_state(modes), 1)
        assert dl.linearize(net, x).attrs["method"] == "closed_form"


@pytest.mark.parametrize("size", [1e-5, 1e-9])
def test_states_beside_balanced_points_are_left_to_the_matrix(size):
    """Weights of 1e-9 between unlearnt units change no C_i and no W, but H by 1e-9."""
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag([3.0, 2.0, 1.0]))
    layers = naive.split(net, net.critical_state((0,)))
    for w in layers:
        w[1, 2] = size
    found = dl.linearize(net, net.pack(layers))
    assert found.attrs["method"] == "dense"
    assert found.eigenvalue[0] == pytest.approx(-3.0 * size, rel=0.5)
    assert int(found["index"]) > 0


def test_balanced_states_that_are_not_critical_are_left_to_the_matrix():
    net = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag([3.0, 2.0, 1.0]))
    swapped = np.eye(3)[[1, 0, 2]] * np.sqrt([3.0, 2.0, 1.0])
    x = net.pack([swapped.T, swapped @ np.eye(3)])  # the right σ_j on the wrong modes
    for state in (x, 1.1 * net.critical_state((0,)), net.initial("balanced", rng=0)):
        assert dl.linearize(net, state).attrs["method"] == "dense"


minima = st.builds(
    naive.random_network,
    st.lists(st.integers(2, 4), min_size=3, max_size=5),
    naive.seeds,
    st.sampled_from(naive.KINDS),
    st.sampled_from([None, 1, 2]),
)


@given(minima, naive.seeds)
def test_spectra_at_perfect_fits_are_those_of_the_small_gram_matrix(net, seed):
    modes = tuple(range(net.max_rank))
    x = naive.change_bases(net, net.critical_state(modes), seed, 0.3)
    found = dl.linearize(net, x)
    fits = net.max_rank == np.count_nonzero(net.singular_values)
    smaller = net.target.size < net.dim
    assert found.attrs["method"] == ("gram" if fits and smaller else "dense")
    assert_equal_spectra(found.eigenvalue.values, dense(net, x))
    assert int(found["index"]) == 0


def test_gram_spectra_would_be_wrong_at_a_bottleneck():
    net = dl.LinearNetwork(widths=(4, 2, 3, 4), target=np.diag([4.0, 3.0, 2.0, 1.0]))
    x = naive.change_bases(net, net.critical_state((0, 1)), 3, 0.3)
    J = naive.differences(lambda y: net.product(y).ravel(), x, 1e-3)
    gram, true = np.linalg.eigvalsh(J.T @ J), dense(net, x)
    assert np.abs(gram - true).max() > 0.01 * true[-1]
    assert dl.linearize(net, x).attrs["method"] == "dense"
    assert_equal_spectra(dl.linearize(net, x).eigenvalue.values, true)


@pytest.mark.parametrize(("miss", "method"), [(1e-9, "dense"), (1e-15, "gram")])
def test_a_residual_counts_if_it_changes_the_spectrum(miss, method):
    net = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
    x = naive.change_bases(net, net.critical_state((0, 1, 2)), 5, 0.3)
    layers = naive.split(net, x)
    layers[-1] = layers[-1] * (1.0 + miss)
    x = net.pack(layers)
    assert dl.linearize(net, x).attrs["method"] == method
    assert_equal_spectra(dl.linearize(net, x).eigenvalue.values, dense(net, x))


def test_a_single_layer_is_known_everywhere():
    for kind in naive.KINDS:
        net = naive.random_network((4, 3), 0, kind)
        found = dl.linearize(net, naive.state_of(net, 1))
        expected = np.kron(np.eye(3), naive.root(net) @ naive.root(net).T)
        assert_equal_spectra(found.eigenvalue.values, np.linalg.eigvalsh(expected))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_rates_at_balanced_minima_follow_their_formulas(depth):
    sigma = np.array([3.0, 2.0, 1.5])

    def rate(widths):
        target = np.zeros((widths[-1], widths[0]))
        np.fill_diagonal(target, sigma)
        net = dl.LinearNetwork(widths=widths, target=target)
        learnt = np.arange(3) < net.max_rank
        return spectra.canonical_rates(net.problem, learnt[None])[1][0]

    hidden = (4,) * (depth - 1)
    power = 1.5 ** (2 - 2 / depth)
    assert rate((3, *hidden, 3)) == pytest.approx(depth * power, rel=1e-14)
    assert rate((3, *hidden, 4)) == pytest.approx(power, rel=1e-14)
    narrow = (2,) * (depth - 1)
    assert rate((3, *narrow, 3)) == pytest.approx(2.0 ** (1 - 2 / depth) * 0.5, rel=1e-14)


# Ends of spectra.


@given(naive.seeds, st.integers(2, 150), st.integers(1, 6))
def test_all_eigenvalues_below_a_bound_are_found_with_their_multiplicity(seed, dim, distinct):
    """Of matrices with few distinct eigenvalues, whose Krylov spaces close at once."""
    rng = np.random.default_rng(seed)
    values = np.sort(rng.choice(rng.normal(size=distinct), size=dim))
    Q = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    matrix, size = (Q * values) @ Q.T, np.abs(values).max()
    below = float(rng.uniform(-1.0, 1.0)) * size
    found = spectra.lowest_eigenvalues(lambda v: matrix @ v, dim, size, below=below)
    np.testing.assert_allclose(found, values[values < below], rtol=0, atol=1e-12 * size)
    count = int(rng.integers(1, dim + 1))
    found = spectra.lowest_eigenvalues(lambda v: matrix @ v, dim, size, count=count)
    np.testing.assert_allclose(found, values[:count], rtol=0, atol=1e-12 * size)
    again = spectra.lowest_eigenvalues(lambda v: matrix @ v, dim, size, count=count)
    np.testing.assert_array_equal(found, again)


@given(naive.seeds, st.integers(1, 40))
def test_the_spectral_radius_is_the_norm_to_some_per_cent_from_below(seed, dim):
    matrix = np.random.default_rng(seed).normal(size=(dim, dim))
    matrix = matrix + matrix.T
    radius, norm = spectra.spectral_radius(lambda v: matrix @ v, dim), np.linalg.norm(matrix, 2)
    assert 0.9 * norm < radius < (1.0 + 1e-12) * norm


def test_what_is_zero_is_decided_by_a_modulus_and_how_clear_that_is_is_told():
    decision = spectra.decided([-3.0, 1e-9, 0.0, -2e-9, 1e-8j], 2e-9)
    assert decision.zero.tolist() == [False, True, True, True, False]
    assert (decision.rank, decision.nullity) == (2, 3)
    assert (decision.largest_zero, decision.smallest_nonzero) == (2e-9, 1e-8)
    assert spectra.decided(np.zeros(0), 1.0).smallest_nonzero == np.inf
    assert [spectra.rank(s, 1e-9) for s in ([2.0, 1e-9, 1e-10], [0.0, 0.0], [])] == [1, 0, 0]
