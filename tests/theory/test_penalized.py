"""Critical points under weight decay and their whole spectrum, against matrices."""

import itertools

import numpy as np
import pytest

import dlnds as dl
from dlnds.theory import penalized

CASES = [
    ((2, 2), [2.0, 1.0]),
    ((2, 3, 2), [2.0, 1.0]),
    ((4, 3, 3), [3.0, 1.5, 0.5]),
    ((2, 3, 4, 2), [2.0, 1.2]),
    ((3, 2, 3, 4), [2.0, 2.0, 1.2]),
    ((3, 4, 3, 4, 2), [2.0, 1.0]),
    ((2, 3, 3, 4, 3, 3), [2.5, 2.5]),
]


def target_of(widths, sigma):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return target


def points_of(net):
    """All index sets with all choices of roots."""
    ranks = [net.max_rank] if net.depth == 1 else range(net.max_rank + 1)
    words = ("upper",) if net.depth < 3 else ("upper", "lower")
    for rank in ranks:
        for modes in itertools.combinations(range(len(net.singular_values)), rank):
            for branch in itertools.product(words, repeat=rank):
                yield modes, branch


@pytest.mark.parametrize("decay", [0.05, 0.3])
@pytest.mark.parametrize(("widths", "sigma"), CASES)
def test_the_spectrum_is_that_of_the_matrix(widths, sigma, decay):
    net, count = dl.LinearNetwork(widths, target_of(widths, sigma), weight_decay=decay), 0
    for modes, branch in points_of(net):
        x = net.critical_state(modes, branch=branch)
        size = np.linalg.norm(net.hessian(x), 2)
        assert np.linalg.norm(net.gradient(x)) < 1e-14 * size * max(1.0, np.linalg.norm(x))
        known, dense = (dl.linearize(net, x, method=way) for way in ("known", "dense"))
        np.testing.assert_allclose(known.eigenvalue, dense.eigenvalue, rtol=0, atol=1e-13 * size)
        assert int(known["index"]) == int(dense["index"])
        assert int(known.nullity) == int(dense.nullity)
        if net.depth > 1:
            tangents = net.generators(x, orthogonal=True)
            rank = np.linalg.matrix_rank(tangents, tol=1e-10) if len(tangents) else 0
            assert int(known.orbit_dimension) == rank
            assert int(known.degenerate_dimension) == 0
        count += 1
    r = len(sigma)
    full = 3**r if net.depth > 2 else 2**r
    assert count == 1 if net.depth == 1 else count <= full


def test_turned_points_and_others_are_told_apart():
    rng = np.random.default_rng(0)
    net = dl.LinearNetwork((3, 4, 5, 2), rng.normal(size=(2, 3)), weight_decay=0.1)
    layers = net.unpack(net.critical_state((0, 1), branch=("lower", "upper")))
    turns = [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in (4, 5)]
    x = net.pack([turns[0] @ layers[0], turns[1] @ layers[1] @ turns[0].T, layers[2] @ turns[1].T])
    point = penalized.recognized(net.problem, net.unpack(x), 0.1)
    assert sorted(point.modes.tolist()) == [0, 1]
    assert dl.linearize(net, x).attrs["method"] == "closed_form"
    assert dl.linearize(net, x + 1e-6).attrs["method"] == "dense"
    assert penalized.recognized(net.problem, net.unpack(x), 0.11) is None


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_roots_meet_at_the_fold(depth):
    sigma = 1.7
    fold = ((depth - 2) * sigma / (2 * depth - 2)) ** (1 / depth)
    most = penalized.most_decay(sigma, depth)
    assert abs(most - fold ** (depth - 2) * (sigma - fold**depth)) < 1e-15
    for part in (1e-12, 0.3, 0.999):
        low, high = (penalized.root(sigma, part * most, depth, upper=up) for up in (False, True))
        assert low < fold < high
        for s in (low, high):
            rounding = 8 * np.finfo(float).eps * sigma * s ** (depth - 2) * depth
            assert abs(s ** (depth - 2) * (sigma - s**depth) - part * most) <= rounding
    assert np.isnan(penalized.root(sigma, 1.001 * most, depth, upper=True))


def most_of(sigma, depth):
    """The largest λ = s^{h−2} (σ − s^h): at 0 of two layers, of more where its slope is zero."""
    s = ((depth - 2) * sigma / (2 * depth - 2)) ** (1 / depth)
    return s ** (depth - 2) * (sigma - s**depth)


@pytest.mark.parametrize("part", [-1e-6, -1e-8, 0.0, 1e-8, 1e-6])
@pytest.mark.parametrize("widths", [(2, 3, 2), (3, 4, 3), (2, 2, 2, 2), (3, 3, 4, 3), (2,) * 6])
def test_zeros_of_a_fold_and_a_pitchfork_have_no_sign(widths, part):
    """Next to them there is one: of first order in λ at a pitchfork, of its root at a fold."""
    rng, h, m = np.random.default_rng([len(widths), widths[1]]), len(widths) - 1, widths[0]
    zeros = 0
    for sigma in ([2.0, 1.0, 0.5][:m], [3.0, 3.0, 1.7][:m], [1.1, 0.4, 0.4][:m]):
        turns = [np.linalg.qr(rng.normal(size=(m, m)))[0] for _ in range(2)]
        target = turns[0] * sigma @ turns[1]
        for j in range(m):
            net = dl.LinearNetwork(widths, target, weight_decay=most_of(sigma[j], h) * (1.0 + part))
            table = dl.critical_points(net)
            for row in (table.isel(critical_point=i) for i in range(table.sizes["critical_point"])):
                modes = np.flatnonzero(row.learnt)
                fold = ((h - 2) * sigma[j] / (2 * h - 2)) ** (1 / h)
                words = ["lower" if row["size"][k] < fold * (1 - 1e-7) else "upper" for k in modes]
                x = net.critical_state(modes, branch=words if h > 2 else "upper")
                values = np.linalg.eigvalsh(net.hessian(x))
                # Rounding of λ and of equal σ, the latter in terms of the distance of two roots, is
                # 1e-11 or less; next to a zero a pitchfork moves by 1e-9 or more, a fold by 1e-5.
                edge = 3e-10 * np.abs(values).max()
                counts = [
                    np.count_nonzero(values < -edge),
                    np.count_nonzero(np.abs(values) <= edge),
                ]
                found = dl.linearize(net, x, method="known")
                assert [int(found["index"]), int(found.nullity)] == counts
                assert int(row["index"]) == int(dl.classify(net, x)["index"]) == counts[0]
                assert found.attrs["is_clear"] == 1
                assert int(found.degenerate_dimension > 0) == int(row.degenerate)
                zeros += int(row.degenerate)
    assert (zeros > 0) == (part == 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_small_modes_are_known_to_rounding_of_large_ones(seed):
    rng, j = np.random.default_rng(seed), seed % 3
    sigma = np.geomspace(1.0, 1e-5, 3)
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2)]
    target = turns[0] * sigma @ turns[1]
    for part, zeros in ((0.0, 4), (1e-6, 0), (-1e-6, 0)):
        decay = sigma[j] * (1.0 + part)
        net = dl.LinearNetwork((3, 4, 3), target, weight_decay=decay)
        found = dl.linearize(net, np.zeros(net.dim))  # λ ± σ_q, each of four hidden units
        index = 4 * int(np.count_nonzero(sigma > decay)) if part else 4 * j
        assert (int(found["index"]), int(found.nullity)) == (index, zeros)
        assert int(dl.critical_points(net)["index"][0]) == index
        decay = most_of(sigma[j], 3) * (1.0 + part)
        deep = dl.critical_points(dl.LinearNetwork((3, 3, 3, 3), target, weight_decay=decay))
        labels = {name for name in deep.critical_point.values.tolist() if name.count(",") == 0}
        roots = {0.0: {f"{{{j}}}"}, -1e-6: {f"{{{j}⁺}}", f"{{{j}⁻}}"}, 1e-6: set()}[part]
        assert {name for name in labels if str(j) in name} == roots
        assert not np.isnan(deep["size"]).any()


@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_scalar_folds_have_one_zero_and_their_neighbours_none(depth):
    for sigma in range(1, 21):
        one = dl.LinearNetwork((1,) * (depth + 1), [[sigma]], weight_decay=1e-3)
        most = float(dl.critical_points(one).most_decay[0])
        assert most == pytest.approx(most_of(sigma, depth), rel=1e-14)
        for part, words in ((0.0, {"upper": (0, 1)}), (-1e-6, {"upper": (0, 0), "lower": (1, 0)})):
            decay = most * (1.0 + part)
            net = dl.LinearNetwork((1,) * (depth + 1), [[sigma]], weight_decay=decay)
            for word, counts in words.items():
                found = dl.linearize(net, net.critical_state((0,), branch=word))
                assert (int(found["index"]), int(found.nullity)) == counts
                assert found.attrs["is_clear"] == 1


def test_two_layers_and_one_have_one_root():
    two = dl.LinearNetwork((1, 1, 1), [[2.0]], weight_decay=0.5)
    np.testing.assert_allclose(two.critical_state((0,)), np.sqrt(1.5))
    one = dl.LinearNetwork((1, 1), [[2.0]], weight_decay=0.5)
    np.testing.assert_allclose(one.critical_state((0,)), 2.0 / 1.5)


@pytest.mark.parametrize(
    ("net", "modes", "branch", "words"),
    [
        (dl.LinearNetwork((1, 1, 1), [[2.0]], weight_decay=2.0), (0,), "upper", "modes: mode 0"),
        (dl.LinearNetwork((1, 1, 1), [[2.0]], weight_decay=0.5), (0,), "lower", "branch: "),
        (dl.LinearNetwork((1, 1, 1), [[2.0]]), (0,), "lower", "branch: "),
        (dl.LinearNetwork((1, 1, 1), [[2.0]]), (0,), "middle", "branch: "),
        (dl.LinearNetwork((1, 1, 1), [[2.0]]), (0,), ("upper",) * 2, "branch: needs one word"),
        (dl.LinearNetwork((1, 1, 1), [[2.0]], weight_decay=(0.1, 0.2)), (0,), "upper", "net: "),
    ],
)
def test_states_that_do_not_exist_are_refused(net, modes, branch, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        net.critical_state(modes, branch=branch)
