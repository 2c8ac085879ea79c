"""Spectra, dense and iterative; rates, inertia, fibers."""

import itertools

import naive
import numpy as np
import pytest
from hypothesis import given, settings

import dlnds as dl
from dlnds.theory import spectra


def dense(net, x):
    return dl.linearize(net, x, method="dense").eigenvalue.values


def assert_equal_spectra(found, expected, size=None):
    """Known spectra promise 1e-12; dense and iterative ones are rounded by n ε."""
    size = np.abs(expected).max(initial=1e-300) if size is None else size
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=2e-12 * size)


# Iterative spectra.


def states(net, seed):
    """A random state, and a random representative of each critical value."""
    yield naive.state_of(net, seed)
    for modes in naive.index_sets(net)[::3]:
        yield naive.change_bases(net, net.critical_state(modes), seed, 0.3)


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
        moved = naive.change_bases(net, x, 1, 0.2)
        assert dl.linearize(net, moved, method="iterative")["index"] == closed["index"]


@pytest.mark.parametrize("gap", [1e-6, 1e-9, 1e-11])
def test_a_negative_eigenvalue_next_to_hundreds_of_zeros_is_found(gap):
    """−s_1 (σ_0 − σ_1) beside the kernel: the residuals of a start resolve it down to ≈ n ε ‖H‖."""
    sigma = np.r_[1.0 + gap, 1.0, np.linspace(0.9, 0.5, 8)]
    net = dl.LinearNetwork(widths=(10,) * 4, target=np.diag(sigma))
    x = naive.change_bases(net, net.critical_state((1, 2, 3, 4)), 0, 0.1)
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
    x = naive.change_bases(net, net.critical_state((1, 2)), 0, 0.3)
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
    for modes in naive.index_sets(net):
        counts = dl.inertia(net, naive.change_bases(net, net.critical_state(modes), 3, 0.3))
        closed = dl.canonical_spectrum(net, modes)
        assert int(counts["index"]) == closed["index"]
        assert int(counts.nullity) == closed.nullity


# Fibers and rates.


def minima_dimension(net, x):
    """Dimension of the set of states with the same W K, near one at which its rank is full."""
    slopes = naive.differences(lambda y: (net.product(y) @ naive.root(net)).ravel(), x, 1e-3)
    values = np.linalg.svd(slopes, compute_uv=False)
    return net.dim - int(np.count_nonzero(values > 1e-7 * values[0]))


@pytest.mark.parametrize("kind", naive.KINDS)
@pytest.mark.parametrize("widths", [(3, 3, 3), (3, 5, 4, 2), (4, 2, 3, 4)])
def test_the_fiber_is_taken_out_of_the_transverse_spectrum(widths, kind):
    net = naive.random_network(widths, 0, kind)
    x = naive.change_bases(net, net.critical_state(tuple(range(net.max_rank))), 1, 0.3)
    found = dl.linearize(net, x)
    dl.schema.validate(found)
    assert int(found.fiber_dimension) == minima_dimension(net, x)
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
    x = naive.change_bases(net, net.critical_state((0, 1, 2)), 1, 0.3)
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
    for k, modes in enumerate(naive.index_sets(net)):
        least = kinds[k] == "global_minimum" and (len(modes) == min(widths) or net.depth == 1)
        found = dl.linearize(net, net.critical_state(modes), method="dense")
        expected = float(found.get("departure_rate", 0.0))
        assert departure[k] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        expected = float(found.get("convergence_rate", 0.0))
        assert convergence[k] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert (convergence[k] > 0.0) == least


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


def balanced_start(net):
    """Layers that share their singular values and the frames between them, else random."""
    rng, least = np.random.default_rng(0), min(net.widths)
    frames = [np.linalg.qr(rng.normal(size=(d, d)))[0][:, :least] for d in net.widths]
    values = np.linspace(1.0, 0.8, least)
    return net.pack([(b * values) @ a.T for a, b in itertools.pairwise(frames)])


@pytest.mark.compiled
@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize(
    ("ends", "width", "sigma"),
    [
        ((3, 3), 4, (3.0, 2.0, 1.5)),
        ((3, 4), 3, (3.0, 2.0, 1.5)),
        ((3, 3), 2, (3.0, 2.0, 0.0)),
        ((3, 3), 2, (3.0, 2.0, 1.5)),
        ((4, 3), 1, (3.0, 2.0, 1.5)),
    ],
)
def test_balanced_runs_converge_at_the_rate_of_the_weakest_mode_learnt(depth, ends, width, sigma):
    """By length: the loss above its minimum falls at twice the rate, once the rest is gone.

    Between 10 and 14 of its times the slowest part is between e^−10 and e^−14, of which others
    leave less than a hundredth.
    """
    widths = (ends[0], *(width,) * (depth - 1), ends[1])
    target = np.zeros((ends[1], ends[0]))
    np.fill_diagonal(target, sigma)
    r = min(widths)
    weakest, below = (*sigma, 0.0)[r - 1 : r + 1]
    if below > 0.0:
        rate = weakest ** (1.0 - 2.0 / depth) * (weakest - below)
    else:
        rate = (depth if ends == (r, r) else 1.0) * weakest ** (2.0 - 2.0 / depth)
    net = dl.LinearNetwork(widths=widths, target=target)
    times = [0.0, 10.0 / rate, 14.0 / rate]
    run = dl.flow(net, balanced_start(net), t_span=times[::2], t_eval=times, rtol=1e-12)
    excess = run.loss.values - 0.5 * np.sum(np.array(sigma[r:]) ** 2)
    assert np.log(excess[1] / excess[2]) / (2.0 * 4.0) == pytest.approx(1.0, rel=0.01)
    found = dl.linearize(net, net.critical_state(range(r)), method="dense")
    assert float(found.convergence_rate) == pytest.approx(rate, rel=1e-12)


@pytest.mark.compiled
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_balanced_runs_lose_algebraically_what_the_target_lacks(depth):
    """For ½ w^{2h} each weight has ẇ = −w^{2h−1}: the loss falls like t^{−h/(h−1)}."""
    net = dl.LinearNetwork((3,) * (depth + 1), target=np.diag([3.0, 2.0, 0.0]))
    times = [0.0, 1e4, 4e4]
    run = dl.flow(net, balanced_start(net), t_span=times[::2], t_eval=times, rtol=1e-12)
    found = np.log(run.loss[1] / run.loss[2]) / np.log(4.0)
    assert found == pytest.approx(depth / (depth - 1), rel=1e-3)
    limit = dl.linearize(net, net.critical_state((0, 1)), method="dense")
    assert float(limit.convergence_rate) == 0.0


def test_rates_of_any_system_are_those_of_its_jacobian():
    def field(t, x, params, out):
        out[0] = -2.0 * x[0] + x[1]
        out[1] = params[1][0] * x[1] - x[1] ** 3

    stable = dl.linearize(dl.System(field, dim=2, parameters=[-0.5]), [0.0, 0.0])
    assert float(stable.convergence_rate) == pytest.approx(0.5, rel=1e-9)
    unstable = dl.linearize(dl.System(field, dim=2, parameters=[0.5]), [0.0, 0.0])
    assert float(unstable.departure_rate) == pytest.approx(0.5, rel=1e-9)
    assert "convergence_rate" not in unstable


# Eigenvectors.


def linear_system(matrix):
    n = len(matrix)

    def field(t, x, params, out):
        for i in range(n):
            out[i] = 0.0
            for j in range(n):
                out[i] += params[1][i * n + j] * x[j]

    return dl.System(field, dim=n, parameters=np.ravel(matrix))


def test_eigenvectors_of_any_system_are_those_of_its_matrix():
    """J v = λ v for real and complex pairs; a pair's parts are the half axes of its ellipse."""
    J = np.array([[1.0, -4.0, 0.0], [1.0, 1.0, 0.0], [0.5, 0.0, -3.0]])  # 1 ± 2i and −3
    found = dl.linearize(linear_system(J), np.zeros(3), eigenvectors=True)
    dl.schema.validate(found)
    assert found.eigenvector.dims == ("eigen", "parameter")
    values = found.eigenvalue.values + 1j * found.eigenvalue_imag.values
    np.testing.assert_allclose(values, [-3.0, 1.0 - 2.0j, 1.0 + 2.0j], atol=1e-9)
    vectors = found.eigenvector.values + 1j * found.eigenvector_imag.values
    np.testing.assert_allclose(vectors @ J.T, values[:, None] * vectors, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(vectors[0], [0.0, 0.0, 1.0], atol=1e-9)
    real, imag = vectors[2].real, vectors[2].imag
    assert abs(real @ imag) < 1e-12
    assert np.linalg.norm(real) > np.linalg.norm(imag) > 0.1
    np.testing.assert_allclose(vectors[1], vectors[2].conj(), atol=1e-12)
    assert 1.0 < found.attrs["eigenvector_condition"] < 10.0


def test_eigenvectors_of_gradient_flows_diagonalize_the_hessian():
    net = dl.LinearNetwork((3, 4, 2), np.arange(6.0).reshape(2, 3))
    x = net.critical_state((1,))
    found = dl.linearize(net, x, eigenvectors=True)
    frame, values = found.eigenvector.values, found.eigenvalue.values
    assert found.attrs["method"] == "dense"
    assert {"layer", "row", "column"} <= set(found.coords)
    np.testing.assert_allclose(frame @ frame.T, np.eye(net.dim), atol=1e-13)
    np.testing.assert_allclose(frame.T * values @ frame, net.hessian(x), atol=1e-12 * values[-1])
    with pytest.raises(ValueError, match="eigenvectors: belong to method 'dense'"):
        dl.linearize(net, x, method="known", eigenvectors=True)


def test_defective_eigenvalues_are_told_by_the_condition_of_their_vectors():
    jordan = dl.linearize(linear_system([[2.0, 1.0], [0.0, 2.0]]), [0.0, 0.0], eigenvectors=True)
    assert jordan.attrs["eigenvector_condition"] > 1e6
    assert int(jordan["index"]) == 2


# Parts of a spectrum.


@pytest.mark.parametrize("method", ["auto", "known", "dense", "iterative"])
@pytest.mark.parametrize("vectors", [False, True])
def test_a_number_alone_means_the_smallest_by_whatever_method(method, vectors):
    net = naive.random_network((4, 5, 4), 0)
    x = net.critical_state((1, 2))
    if vectors and method == "known":
        return
    whole = dl.linearize(net, x, method="known")
    top, n = float(whole.eigenvalue[-1]), net.dim
    for options, part in [
        ({"n_eigenvalues": 5}, slice(0, 5)),
        ({"n_eigenvalues": 5, "which": "largest"}, slice(n - 5, n)),
        ({"which": "negative"}, slice(0, int(whole["index"]))),
        ({"n_eigenvalues": n}, slice(0, n)),
    ]:
        found = dl.linearize(net, x, method=method, eigenvectors=vectors, **options)
        dl.schema.validate(found)
        assert_equal_spectra(found.eigenvalue.values, whole.eigenvalue.values[part], top)
        assert found.attrs["complete"] == (part == slice(0, n))
        assert ("eigenvector" in found) == vectors
        if method != "iterative":  # all eigenvalues were known, whatever is shown of them
            assert int(found["index"]) == int(whole["index"])
            assert int(found.nullity) == int(whole.nullity)
            assert ("transverse_eigenvalue" in found) == (part == slice(0, n))
        if vectors:
            V, values = found.eigenvector.values, found.eigenvalue.values
            k = len(values)
            np.testing.assert_allclose(V @ V.T, np.eye(k), rtol=0.0, atol=1e-12)
            residuals = V @ net.hessian(x) - values[:, None] * V
            np.testing.assert_allclose(residuals, 0.0, atol=1e-12 * top)


def test_some_eigenvalues_of_large_gradient_flows_are_found_by_iteration():
    net = naive.random_network((20, 30, 20), 0)
    assert net.dim == 1200
    x = naive.state_of(net, 0)
    found = dl.linearize(net, x, n_eigenvalues=3, eigenvectors=True)
    assert found.attrs["method"] == "iterative"
    H = net.hessian(x)
    values = np.linalg.eigvalsh(H)
    assert_equal_spectra(found.eigenvalue.values, values[:3], np.abs(values).max())
    V = found.eigenvector.values
    np.testing.assert_allclose(V @ H, found.eigenvalue.values[:, None] * V, atol=1e-11 * values[-1])
    assert dl.linearize(net, x, n_eigenvalues=600).attrs["method"] == "dense"
    assert dl.linearize(net, 0.0 * x, n_eigenvalues=3).attrs["method"] == "closed_form"


def test_parts_of_other_spectra_are_their_first_and_last_eigenvalues():
    system = linear_system([[1.0, -4.0, 0.0], [1.0, 1.0, 0.0], [0.5, 0.0, -3.0]])
    whole = dl.linearize(system, np.zeros(3), eigenvectors=True)
    for options, part in [
        ({"n_eigenvalues": 1}, slice(0, 1)),
        ({"n_eigenvalues": 2, "which": "largest"}, slice(1, 3)),
    ]:
        some = dl.linearize(system, np.zeros(3), eigenvectors=True, **options)
        for name in ("eigenvalue", "eigenvalue_imag", "eigenvector", "eigenvector_imag"):
            np.testing.assert_array_equal(some[name], whole[name].isel(eigen=part))
        assert int(some["index"]) == 2


# Near critical points: what the way there can change is no index.


def decayed_saddle(sigma, learnt, decay, units):
    """A critical point of two layers, s_j² = σ_j − λ for learnt modes, turned in hidden units."""
    s = np.where(learnt, np.sqrt(np.abs(sigma - decay)), 0.0)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(units, units)))[0][:, : len(sigma)]
    return np.concatenate([(turn * s).ravel(), (turn * s).T.ravel()])


@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(6))
def test_ends_of_decayed_runs_have_the_zeros_of_turns_and_no_index(seed):
    """r modes above the decay are learnt; turns of d_1 units move them r d_1 − r (r + 1)/2 ways."""
    rng = np.random.default_rng(seed)
    sigma, decay = np.array([3.0, 1.7, 0.6]), rng.uniform(0.1, 0.5)
    units = int(rng.integers(3, 5))
    net = dl.LinearNetwork((3, units, 3), np.diag(sigma), weight_decay=decay)
    x = dl.flow(net, net.initial(scale=0.5, rng=seed), save=["state"]).state.values[-1]
    found, counts = dl.linearize(net, x), dl.inertia(net, x)
    assert int(found["index"]) == int(counts["index"]) == 0
    assert int(found.nullity) == int(counts.nullity) == 3 * units - 6
    assert found.attrs["is_clear"] == counts.attrs["is_clear"] == 1
    assert "departure_rate" not in found


@pytest.mark.parametrize("learnt", [(1, 1, 1), (1, 0, 1), (0, 1, 0)])
def test_the_index_beside_a_critical_point_is_that_of_it_or_not_clear(learnt):
    """Whatever the distance; at small ones it is clear, and far off that of the state itself."""
    sigma, decay = np.array([3.0, 1.7, 0.6]), 0.2
    net = dl.LinearNetwork((3, 4, 3), np.diag(sigma), weight_decay=decay)
    x = decayed_saddle(sigma, np.array(learnt, bool), decay, 4)
    values = np.linalg.eigvalsh(net.hessian(x))
    index, nullity = np.count_nonzero(values < -1e-6), np.count_nonzero(np.abs(values) < 1e-6)
    way = np.random.default_rng(1).normal(size=net.dim)
    for distance in 10.0 ** -np.arange(2.0, 15.0):
        y = x + distance / np.linalg.norm(way) * way
        for found in (dl.linearize(net, y), dl.inertia(net, y)):
            if distance >= 1e-2:
                own = np.linalg.eigvalsh(net.hessian(y))
                assert int(found["index"]) == np.count_nonzero(own < 0.0)
                continue
            assert (int(found["index"]), int(found.nullity)) == (index, nullity) or not (
                found.attrs["is_clear"]
            )
            assert found.attrs["is_clear"] or distance > 1e-6


def completion(shape, rank, part, seed):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    rows, columns = np.nonzero(rng.uniform(size=shape) < part)
    return dl.losses.completion(shape, rows, columns, target[rows, columns])


@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(8))
def test_completions_that_fit_have_no_index(seed):
    """There the Hessian is that of squares, with as many zeros as the measurements leave."""
    net = dl.LossNetwork((4, 4, 3), completion((3, 4), 2, 0.7, seed))
    run = dl.flow(net, net.initial(scale=0.5, rng=seed), save=["state"])
    x = run.state.values[-1]
    assert float(run.loss[-1]) < 1e-12
    rests = naive.differences(lambda y: net.criterion.measured(net.product(y)), x, 1e-3)
    found = dl.linearize(net, x)
    assert int(found["index"]) == int(dl.inertia(net, x)["index"]) == 0
    assert int(found.nullity) == net.dim - np.linalg.matrix_rank(rests, tol=1e-6)
    assert found.attrs["is_clear"] == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_spectrum_far_from_critical_points_is_that_of_the_state(seed):
    target = np.random.default_rng(seed).normal(size=(2, 3))
    net = dl.LinearNetwork((3, 4, 2), target, weight_decay=0.1 * seed)
    x = naive.state_of(net, seed)
    values, found = np.linalg.eigvalsh(net.hessian(x)), dl.linearize(net, x)
    assert int(found["index"]) == np.count_nonzero(values < -1e-12 * values[-1])
    assert int(found.nullity) == np.count_nonzero(np.abs(values) < 1e-12 * values[-1])
    assert found.attrs["is_clear"] == 1


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8, 1e-10])
def test_runs_of_product_flows_end_with_the_index_of_the_fit_that_they_tend_to(rtol):
    """There H = JᵀJ, J of the n observed entries of a map of full rank: n eigenvalues are not 0."""
    clear = 0
    for seed in range(12):
        rng, d = np.random.default_rng(seed), 2 + seed % 2
        count = int(rng.integers(2, d * d))
        cells = rng.permutation(d * d)[:count]
        loss = dl.losses.completion((d, d), cells // d, cells % d, rng.normal(size=count) + 2.0)
        flow = dl.ProductFlow(dl.LossNetwork((d,) * (3 + seed % 3 // 2), loss), d)
        run = dl.flow(flow, flow.factor(np.eye(d) + 0.3 * rng.normal(size=(d, d))), rtol=rtol)
        if not float(run.loss[-1]) < 1e-6:
            continue  # a map of the other sign of det W would fit
        found = dl.linearize(flow, run.state.values[-1])
        if found.attrs["is_clear"]:
            assert (int(found["index"]), int(found.nullity)) == (0, flow.dim - count)
        clear += found.attrs["is_clear"]
    assert clear >= 6


@pytest.mark.parametrize("growth", [-1e-2, 1e-2])
def test_near_an_equilibrium_that_hardly_grows_its_rotation_is_no_index_to_be_sure_of(growth):
    def field(t, x, p, out):
        out[0] = p[1][0] * (x[0] - 1.0) - x[1] + 3.0 * (x[0] - 1.0) ** 2
        out[1] = p[1][0] * x[1] + (x[0] - 1.0)

    system = dl.System(field, dim=2, parameters=[growth])
    at = dl.linearize(system, [1.0, 0.0])
    assert int(at["index"]) == (2 if growth > 0.0 else 0)
    assert at.attrs["is_clear"] == 1
    for distance in np.geomspace(1e-8, 9e-4, 9):
        near = dl.linearize(system, [1.0 + distance, 0.0])
        if near.attrs["is_clear"]:
            assert int(near["index"]) == int(at["index"])
    assert dl.linearize(system, [1.0 + 1e-8, 0.0]).attrs["is_clear"] == 1
    assert dl.linearize(system, [1.0 + 9e-4, 0.0]).attrs["is_clear"] == 0
