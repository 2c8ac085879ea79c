"""The Hessian over the GL orbits of A_S, against itself in extended precision."""

import itertools

import numpy as np
import points
import pytest

import dlnds as dl


def network(widths, sigma, turn, rng):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    if turn:
        left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0] for d in target.shape)
        target = left @ target @ right
    return dl.LinearNetwork(widths, target)


def moved(net, modes, condition, rng):
    group = []
    for d in net.widths[1:-1]:
        left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
        group.append((left * np.logspace(-0.5, 0.5, d) ** np.log10(condition)) @ right)
    return dl.act(net, group, net.critical_state(modes))


def hessian(layers, target):
    """Return ∇²L of ½‖Σ − W_h…W_1‖², by its definition, in the precision of the layers."""
    depth, sizes = len(layers), [w.size for w in layers]
    ends = np.cumsum([0, *sizes])

    def changed(*changes):
        parts = list(layers)
        for number, place in changes:
            parts[number] = np.zeros_like(layers[number])
            parts[number].ravel()[place] = 1.0
        done = parts[0]
        for w in parts[1:]:
            done = w @ done
        return done

    entries = [(i, a) for i in range(depth) for a in range(sizes[i])]
    first = np.stack([changed(entry).ravel() for entry in entries])
    residual = target - changed()
    found = first @ first.T
    for (i, a), (j, b) in itertools.combinations(entries, 2):
        if i != j:
            second = -np.sum(residual * changed((i, a), (j, b)))
            found[ends[i] + a, ends[j] + b] += second
            found[ends[j] + b, ends[i] + a] += second
    return found


def eigenvalues(matrix):
    """Return the eigenvalues of a symmetric matrix by Jacobi's method, in its precision."""
    A = matrix.copy()
    eps = np.finfo(A.dtype).eps
    for _ in range(30):
        for p, q in itertools.combinations(range(len(A)), 2):
            if abs(A[p, q]) <= eps**2 * np.abs(A).max():
                continue
            cot = (A[q, q] - A[p, p]) / (2 * A[p, q])
            t = (1 if cot >= 0 else -1) / (abs(cot) + np.sqrt(cot**2 + 1))
            c = 1 / np.sqrt(t**2 + 1)
            turn = np.array([[c, t * c], [-t * c, c]])
            A[[p, q]] = turn.T @ A[[p, q]]
            A[:, [p, q]] = A[:, [p, q]] @ turn
        if np.abs(A - np.diag(np.diagonal(A))).max() <= eps * np.abs(A).max():
            break
    return np.sort(np.diagonal(A))


def sheared(d, k):
    """Return integers of determinant 1 with the condition k⁴, and their inverse."""
    P, back = np.eye(d), np.eye(d)
    for i, j in itertools.permutations(range(d), 2):
        shear = np.eye(d)
        shear[i, j] = k
        P, back = shear @ P, back @ (2.0 * np.eye(d) - shear)
    return P, back


@pytest.mark.parametrize("k", [1.0, 4.0, 12.0])
@pytest.mark.parametrize(
    ("widths", "root", "modes"),
    [
        ((2, 2, 2), (2.0, 1.0), (1,)),
        ((3, 2, 2), (2.0, 1.0), (0,)),
        ((2, 2, 2, 2), (2.0, 1.0), (1,)),
        ((2, 1, 2, 3), (2.0, 2.0), (0,)),
        ((2, 2, 2, 2, 2), (3.0, 1.0), (1,)),
    ],
)
def test_small_eigenvalues_are_no_rounding_where_the_layers_are_far_from_balanced(
    widths, root, modes, k
):
    """States and Hessians of integers: extended precision knows 1e-19 of the largest."""
    net = network(widths, np.array(root) ** (len(widths) - 1), False, None)
    layers = [np.round(w) for w in net.unpack(net.critical_state(modes))]
    for i, d in enumerate(widths[1:-1]):
        P, back = sheared(d, k)
        np.testing.assert_array_equal(P @ back, np.eye(d))
        layers[i], layers[i + 1] = P @ layers[i], layers[i + 1] @ back
    target = np.round(net.target).astype(np.longdouble)
    dense = hessian([w.astype(np.longdouble) for w in layers], target)
    exact, found = eigenvalues(dense), net.theory(net.pack(layers)).hessian_modes()
    largest = np.abs(exact).max()
    true = exact[np.abs(exact) > 1e-17 * largest].astype(float)
    ours = np.sort(found.values[~found.zero])
    assert found.clear
    assert ours.size == true.size < net.dim
    allowed = 1e-12 * np.abs(true) + 1e-18 * float(largest)
    assert (np.abs(ours - true) <= allowed).all()
    assert (allowed < 1e-2 * np.abs(true)).all()


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize(
    ("widths", "sigma"),
    [
        ((3, 4, 3), (3.0, 2.0, 1.0)),
        ((3, 3, 4, 3), (3.0, 2.0, 1.0)),
        ((4, 3, 3, 2, 5), (3.0, 2.0, 1.0, 0.0)),
        ((3, 4, 5), (2.0, 2.0, 1.0)),
        ((3, 4, 3, 5), (2.0, 2.0, 1.0)),
        ((5, 4, 3), (2.0, 1.0, 0.0)),
    ],
)
def test_eigenvectors_are_those_of_the_hessian_and_as_many_as_theory_counts(widths, sigma, turn):
    """Index #{j ∈ S, q ∉ S : σ_q > σ_j}, and of two layers d_1 − r for each open mode as well."""
    rng = np.random.default_rng(1)
    net = network(widths, sigma, turn, rng)
    for r in range(net.max_rank + 1):
        for modes in itertools.combinations(range(net.max_rank), r):
            better = sum(
                sigma[q] > sigma[j] for j in modes for q in range(len(sigma)) if q not in modes
            )
            opened = np.count_nonzero(sigma) - r
            index = better + (opened * (widths[1] - r) if net.depth == 2 else 0)
            for condition in (1.0, 10.0, 1e3):
                x = moved(net, modes, condition, rng)
                found = net.theory(x).hessian_modes()
                dense = points.hessian(net.unpack(x), net.target)
                size = max(1.0, np.linalg.norm(dense, 2))
                np.testing.assert_allclose(
                    found.vectors.T @ found.vectors, np.eye(net.dim), atol=1e-10
                )
                lack = dense @ found.vectors - found.vectors * found.values
                assert np.abs(lack).max() < 1e-12 * size
                assert np.count_nonzero(found.values < 0.0) == index
                assert (np.abs(found.values[found.zero]) == 0.0).all()


def test_only_points_of_the_orbit_are_known():
    """Residual weights, and points that are not critical, take other ways."""
    net = network((2, 2, 2, 2), (2.0, 1.0), False, np.random.default_rng(0))
    x = net.critical_state((0,))
    layers = [w.copy() for w in net.unpack(x)]
    layers[1][1, 1] = 0.3
    assert net.theory(net.pack(layers)).hessian_modes() is None
    assert net.theory(x + 1e-3).hessian_modes() is None
    assert net.theory(x).hessian_modes() is not None
