"""Spectra that are known, dense and iterative; rates, inertia, fibers."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
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


def index_sets(net):
    return [dl.schema.index_set_modes(s) for s in dl.critical_points(net).critical_point.values]


def change_bases(net, x, seed, strength=None):
    """Move a state by random changes of the hidden bases, orthogonal ones without a strength."""
    rng, layers = np.random.default_rng(seed), naive.split(net, x)
    for i, width in enumerate(net.widths[1:-1]):
        P = rng.normal(size=(width, width))
        P = np.linalg.qr(P)[0] if strength is None else np.eye(width) + strength * P
        layers[i], layers[i + 1] = P @ layers[i], layers[i + 1] @ np.linalg.inv(P)
    return net.pack(layers)


def dense(net, x):
    return dl.linearize(net, x, method="dense").eigenvalue.values


def assert_equal_spectra(found, expected, size=None):
    """Known spectra promise 1e-12; dense and iterative ones are rounded by n ε."""
    size = np.abs(expected).max(initial=1e-300) if size is None else size
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=2e-12 * size)


# Spectra that are known.


@given(whitened, naive.seeds)
def test_spectra_at_all_balanced_critical_points_are_closed(net, seed):
    for modes in index_sets(net):
        x = change_bases(net, net.critical_state(modes), seed)
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
    x = change_bases(plain, plain.pack(layers), 0)
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
    for modes in index_sets(net):
        x = change_bases(net, net.critical_state(modes), 1)
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
    x = change_bases(net, net.critical_state(modes), seed, 0.3)
    found = dl.linearize(net, x)
    fits = net.max_rank == np.count_nonzero(net.singular_values)
    smaller = net.target.size < net.dim
    assert found.attrs["method"] == ("gram" if fits and smaller else "dense")
    assert_equal_spectra(found.eigenvalue.values, dense(net, x))
    assert int(found["index"]) == 0


def test_gram_spectra_would_be_wrong_at_a_bottleneck():
    net = dl.LinearNetwork(widths=(4, 2, 3, 4), target=np.diag([4.0, 3.0, 2.0, 1.0]))
    x = change_bases(net, net.critical_state((0, 1)), 3, 0.3)
    J = naive.differences(lambda y: net.product(y).ravel(), x, 1e-3)
    gram, true = np.linalg.eigvalsh(J.T @ J), dense(net, x)
    assert np.abs(gram - true).max() > 0.01 * true[-1]
    assert dl.linearize(net, x).attrs["method"] == "dense"
    assert_equal_spectra(dl.linearize(net, x).eigenvalue.values, true)


@pytest.mark.parametrize(("miss", "method"), [(1e-9, "dense"), (1e-15, "gram")])
def test_a_residual_counts_if_it_changes_the_spectrum(miss, method):
    net = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
    x = change_bases(net, net.critical_state((0, 1, 2)), 5, 0.3)
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


# Iterative spectra.


def states(net, seed):
    """A random state, and a random representative of each critical value."""
    yield naive.state_of(net, seed)
    for modes in index_sets(net)[::3]:
        yield change_bases(net, net.critical_state(modes), seed, 0.3)


@settings(max_examples=20)
@given(naive.small_networks, naive.seeds)
def test_iterative_spectra_are_the_ends_of_dense_ones(net, seed):
    for x in states(net, seed):
        full = dense(net, x)
        top = np.abs(full).max()
        found = dl.linearize(net, x, method="iterative", zero_tolerance=1e-9 * top)
        dl.schema.validate(found)
        clear = full[full < -2e-9 * top]
        values = found.eigenvalue.values
        assert len(clear) <= len(values) == int(found["index"])
        assert_equal_spectra(values, full[: len(values)], max(top, 1e-300))
        for which, part in (("smallest", full[:3]), ("largest", full[-3:])):
            count = min(3, net.dim)
            ends = dl.linearize(net, x, method="iterative", which=which, n_eigenvalues=count)
            assert_equal_spectra(ends.eigenvalue.values, part, max(top, 1e-300))
            assert ("nullity" in ends) == (net.dim <= 3)


@pytest.mark.parametrize("widths", [(9, 8, 9), (6, 5, 7, 6), (5, 5, 5, 5, 5)])
def test_all_negative_eigenvalues_are_found_whatever_their_multiplicity(widths):
    """The index is constant along the orbit; h = 2 repeats each −σ_k d_1 − r times."""
    net = naive.random_network(widths, 0)
    for modes in [(), (0, 3), (1, 2, 4), (2, 4)]:
        closed = dl.canonical_spectrum(net, modes)
        x = net.critical_state(modes)
        found = dl.linearize(net, x, method="iterative")
        negative = closed.eigenvalue.values[closed.eigenvalue.values < 0.0]
        top = np.abs(closed.eigenvalue.values).max()
        assert_equal_spectra(found.eigenvalue.values, negative, max(top, 1e-300))
        moved = change_bases(net, x, 1, 0.2)
        assert dl.linearize(net, moved, method="iterative")["index"] == closed["index"]


@pytest.mark.parametrize("gap", [1e-6, 1e-9, 1e-11])
def test_a_negative_eigenvalue_next_to_hundreds_of_zeros_is_found(gap):
    """−s_1 (σ_0 − σ_1) beside the kernel: the residuals of a start resolve it down to ≈ n ε ‖H‖."""
    sigma = np.r_[1.0 + gap, 1.0, np.linspace(0.9, 0.5, 8)]
    net = dl.LinearNetwork(widths=(10,) * 4, target=np.diag(sigma))
    x = change_bases(net, net.critical_state((1, 2, 3, 4)), 0, 0.1)
    found = dl.linearize(net, x, method="iterative")
    assert int(found["index"]) == 4
    assert found.eigenvalue[-1] == pytest.approx(-gap, rel=0.2)


def test_what_is_not_known_is_left_out():
    net = naive.random_network((4, 4, 4), 0)
    x = naive.state_of(net, 0)

    def names(**options):
        return set(dl.linearize(net, x, method="iterative", **options).data_vars)

    assert names() == {"eigenvalue", "index", "departure_rate"}
    assert names(which="smallest", n_eigenvalues=1) == {"eigenvalue"}
    assert names(which="largest", n_eigenvalues=2) == {"eigenvalue"}
    assert "index" in names(which="smallest", n_eigenvalues=20)
    assert "nullity" in names(which="largest", n_eigenvalues=net.dim)


def test_a_hessian_that_is_zero_has_no_negative_eigenvalues():
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag([3.0, 2.0, 1.0]))
    found = dl.linearize(net, np.zeros(net.dim), method="iterative")
    assert (found.sizes["eigen"], int(found["index"])) == (0, 0)
    zeros = dl.linearize(
        net, np.zeros(net.dim), method="iterative", which="smallest", n_eigenvalues=9
    )
    assert zeros.eigenvalue.values.tolist() == [0.0] * 9


def test_searches_that_do_not_settle_are_refused(monkeypatch):
    net = naive.random_network((12, 12, 12), 0)
    monkeypatch.setattr(spectra, "MOST_RESTARTS", 1)
    with pytest.raises(dl.ConvergenceError, match=r"1 restarts with \d+ vectors"):
        dl.linearize(net, naive.state_of(net, 0), method="iterative")


def test_a_hessian_that_overflows_is_refused():
    net = naive.random_network((2, 2, 2, 2), 0)
    with pytest.raises(ValueError, match="^x: overflows"):
        dl.linearize(net, np.full(net.dim, 1e200), method="iterative")


def test_equal_calls_give_identical_spectra():
    net = naive.random_network((4, 5, 4), 0)
    x = change_bases(net, net.critical_state((1, 2)), 0, 0.3)
    for method in ("dense", "iterative"):
        first, second = (dl.linearize(net, x, method=method) for _ in range(2))
        assert first.identical(second)


def test_other_losses_have_iterative_spectra():
    rng = np.random.default_rng(0)
    loss = dl.losses.cross_entropy(rng.normal(size=(3, 20)), rng.integers(0, 3, 20))
    net = dl.LossNetwork((3, 4, 3), loss)
    x = naive.state_of(net, 1)
    found, full = dl.linearize(net, x, method="iterative"), dl.linearize(net, x)
    assert full.attrs["method"] == "dense"
    assert found["index"] == full["index"]
    assert_equal_spectra(
        found.eigenvalue.values,
        full.eigenvalue.values[: found.sizes["eigen"]],
        np.abs(full.eigenvalue.values).max(),
    )


# Inertia.


@given(naive.small_networks, naive.seeds)
def test_inertia_by_factorization_is_that_of_the_spectrum(net, seed):
    for x in states(net, seed):
        full = dense(net, x)
        tolerance = 1e-9 * np.abs(full).max()
        if np.any((np.abs(full) > 0.5 * tolerance) & (np.abs(full) < 2.0 * tolerance)):
            continue  # too close to the tolerance to be decided in floating point
        counts = dl.inertia(net, x, zero_tolerance=tolerance)
        dl.schema.validate(counts)
        assert int(counts["index"]) == np.count_nonzero(full < -tolerance)
        assert int(counts.nullity) == np.count_nonzero(np.abs(full) <= tolerance)
        assert int(counts.coindex) == np.count_nonzero(full > tolerance)


@pytest.mark.parametrize("widths", [(4, 5, 4), (5, 3, 4, 4)])
def test_inertia_at_its_own_tolerance_is_the_closed_one(widths):
    net = naive.random_network(widths, 2)
    for modes in index_sets(net):
        counts = dl.inertia(net, change_bases(net, net.critical_state(modes), 3, 0.3))
        closed = dl.canonical_spectrum(net, modes)
        assert int(counts["index"]) == closed["index"]
        assert int(counts.nullity) == closed.nullity


# Fibers and rates.


def minima_dimension(net):
    """Dimension of the set of global minima of full rank r = min d_i, with ties of σ_r."""
    sigma, r = net.singular_values, min(*net.widths, net.target.shape[1])
    inside, outside = (np.isclose(part, sigma[r - 1]).sum() for part in (sigma[:r], sigma[r:]))
    rank = r * (net.target.shape[1] + net.widths[-1] - r)
    return net.dim - rank + inside * outside


@pytest.mark.parametrize("kind", naive.KINDS)
@pytest.mark.parametrize("widths", [(3, 3, 3), (3, 5, 4, 2), (4, 2, 3, 4)])
def test_the_fiber_is_taken_out_of_the_transverse_spectrum(widths, kind):
    net = naive.random_network(widths, 0, kind)
    x = change_bases(net, net.critical_state(tuple(range(net.max_rank))), 1, 0.3)
    found = dl.linearize(net, x)
    dl.schema.validate(found)
    assert int(found.fiber_dimension) == minima_dimension(net)
    assert found.sizes["transverse"] == net.dim - int(found.fiber_dimension)
    assert int(found.degenerate_dimension) == 0
    assert int(found.fiber_dimension) == int(found.nullity) >= int(found.orbit_dimension)
    assert found.attrs["unresolved_fiber"] == 0
    assert float(found.transverse_eigenvalue[0]) == float(found.convergence_rate) > 1e-6
    assert "departure_rate" not in found


def test_degenerate_directions_are_what_is_left_of_the_kernel():
    """At A_S, h ≥ 3, the kernel is the tangent of the orbit and all weights between other units.

    The fiber holds some of the latter: 2 × 2 blocks Z_1, Z_2, Z_3 around the open modes of which no
    neighbours may meet; if all have rank 1 that leaves 3 + 2 + 1 dimensions, one alone has 4.
    """
    net = dl.LinearNetwork(widths=(4,) * 4, target=np.diag([4.0, 3.0, 2.0, 1.0]))
    found = dl.linearize(net, net.critical_state((0, 1)))
    assert int(found.nullity) - int(found.orbit_dimension) == 3 * 2**2
    assert int(found.fiber_dimension) - int(found.orbit_dimension) == 6
    assert int(found.degenerate_dimension) == 3 * 2**2 - 6
    assert found.transverse_eigenvalue.values[0] == 0.0
    assert float(found.convergence_rate) == 0.0
    saddle = dl.linearize(net, net.critical_state((0, 2)))
    assert "convergence_rate" not in saddle
    assert float(saddle.departure_rate) == pytest.approx(2.0 ** (1 / 3) * 1.0, rel=1e-12)


def test_states_that_are_not_critical_have_no_fiber():
    net = naive.random_network((3, 3, 3), 0)
    found = dl.linearize(net, naive.state_of(net, 0))
    assert not {"fiber_dimension", "transverse_eigenvalue", "convergence_rate"} & set(found)


def test_a_fiber_whose_zeros_the_tolerance_misses_is_said_to_be_unresolved():
    net = naive.random_network((3, 3, 3), 0)
    x = change_bases(net, net.critical_state((0, 1, 2)), 1, 0.3)
    found = dl.linearize(net, x, method="dense", zero_tolerance=1e-300)
    assert 0 < found.attrs["unresolved_fiber"] <= int(found.fiber_dimension) == 9
    assert not {"degenerate_dimension", "transverse_eigenvalue", "convergence_rate"} & set(found)


TARGETS = ([3.0, 2.0, 1.0], [3.0, 3.0, 1.0], [2.0, 1.0, 1.0], [2.0, 1.0, 0.0], [3.0, 0.7, 0.5])


@pytest.mark.parametrize("sigma", TARGETS)
@pytest.mark.parametrize(
    "widths",
    [(3, 3), (3, 3, 3), (3, 4, 5), (3, 2, 4), (4, 3, 3, 3), (3, 2, 4, 3), (3, 1, 1, 1, 3)],
)
def test_rates_at_canonical_points_are_ends_of_the_spectrum(widths, sigma):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    net = dl.LinearNetwork(widths=widths, target=target)
    points = dl.build_atlas(net)["points"].to_dataset()
    departure, convergence = points.departure_rate.values, points.convergence_rate.values
    kinds = dl.schema.decode(points.kind).values
    for k, modes in enumerate(index_sets(net)):
        least = kinds[k] == "global_minimum" and (len(modes) == min(widths) or net.depth == 1)
        found = dl.linearize(net, net.critical_state(modes), method="dense")
        expected = float(found.get("departure_rate", 0.0))
        assert departure[k] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        expected = float(found.get("convergence_rate", 0.0))
        assert convergence[k] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert (convergence[k] > 0.0) == least


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


@pytest.mark.compiled
def test_runs_converge_at_the_stated_rate():
    """The loss above the minimum falls by exp(−2 λ t) along the slowest direction."""
    net = naive.random_network((3, 4, 3), 4)
    x = net.critical_state((0, 1, 2))
    rate = float(dl.linearize(net, x).convergence_rate)
    values, vectors = np.linalg.eigh(net.hessian(x))
    slowest = vectors[:, np.argmin(np.abs(values - rate))]
    ends = [0.0, 2.0 / rate]
    run = dl.flow(net, x + 1e-4 * slowest, t_span=ends, t_eval=ends, rtol=1e-11)
    assert np.log(run.loss[0] / run.loss[1]) / 2.0 == pytest.approx(2.0, rel=1e-3)


def test_rates_of_any_system_are_those_of_its_jacobian():
    def field(t, x, params, out):
        out[0] = -2.0 * x[0] + x[1]
        out[1] = params[1][0] * x[1] - x[1] ** 3

    stable = dl.linearize(dl.System(field, dim=2, parameters=[-0.5]), [0.0, 0.0])
    assert float(stable.convergence_rate) == pytest.approx(0.5, rel=1e-9)
    unstable = dl.linearize(dl.System(field, dim=2, parameters=[0.5]), [0.0, 0.0])
    assert float(unstable.departure_rate) == pytest.approx(0.5, rel=1e-9)
    assert "convergence_rate" not in unstable
