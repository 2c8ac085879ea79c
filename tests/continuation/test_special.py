"""Special points in words: what is said is what the numbers say."""

import numpy as np
import pytest
from equations import weight_decay

import dlnds as dl


def described(branch):
    return dl.special_points(branch).description.values.tolist()


def test_folds_say_what_p_has_there():
    """p = x³ − 3 x has a maximum, 2, at x = −1 and a minimum, −2, at 1."""
    branch = dl.branch(lambda x, p: p + 3 * x - x**3, [-2.0], -2.0, bounds=(-3.0, 3.0))
    points = dl.special_points(branch)
    dl.schema.validate(points)
    assert dl.schema.decode(points.fold_direction).values.tolist() == ["maximum", "minimum"]
    assert set(dl.schema.decode(branch.fold_direction).values) == {"maximum", "minimum", "none"}
    first, second = described(branch)
    assert first.startswith("fold at p = 2, a maximum of p, within ")
    assert second.startswith("fold at p = -2, a minimum of p, within ")
    assert "kernel" not in first  # that of a fold has one dimension


@pytest.mark.parametrize(("sign", "word"), [(-1.0, "supercritical"), (1.0, "subcritical")])
def test_branch_points_say_their_kernel_and_side(sign, word):
    residual = dl.Residual(lambda x, p: p * x + sign * x**3, parameter="load")
    (text,) = described(dl.branch(residual, [0.0], -0.5, bounds=(-1.0, 1.0)))
    assert text.startswith("branch point at load = ")
    assert f", {word}, kernel of dimension 1, within " in text


def test_orbits_that_leave_and_are_not_followed_are_said():
    """Hopf points of flows at r = 470/19, and Neimark–Sacker points and flips of maps."""

    def lorenz(x, r):
        return np.array([10 * (x[1] - x[0]), x[0] * (r - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])

    r = 14.0
    size = np.sqrt(8 / 3 * (r - 1.0))
    (hopf,) = described(dl.branch(lorenz, [size, size, r - 1.0], r, bounds=(10.0, 30.0)))
    assert hopf.startswith("Hopf point at p = 24.73684211, subcritical, within ")
    assert hopf.endswith("the periodic orbits that leave it are not followed")

    def logistic(x, p):
        return p * x * (1.0 - x) - x

    flips = described(dl.branch(dl.Residual(logistic, kind="map"), [0.6], 2.5, bounds=(2.0, 3.4)))
    assert flips[0].startswith("flip at p = 3, ")
    assert "period" in flips[0]


def test_points_of_curves_say_both_parameters():
    def family(q):
        return lambda x, p: p + q * x - x**3

    fold = dl.special_points(dl.branch(family(3.0), [-2.0], -2.0, bounds=(-3.0, 3.0)))
    curve = dl.fold_curve(family, fold.isel(step=0), 3.0, bounds=(-1.0, 4.0), parameter="mu")
    (cusp,) = described(curve)
    assert cusp.startswith("cusp at p = ")
    assert ", mu = " in cusp


def test_descriptions_are_stored_and_do_not_stand_in_the_way(tmp_path):
    net, equation = weight_decay((2, 2, 2), [2.0, 1.0])
    tree = dl.diagram(equation, net.critical_state((0, 1)), 0.3, bounds=(0.1, 2.5))
    points = dl.special_points(tree["branch_0"])
    assert points.sizes["step"] > 0
    assert points.description[0].item().startswith("branch point at weight decay = 1, ")
    dl.save(points, tmp_path / "points.nc")
    assert dl.load(tmp_path / "points.nc").identical(points)
    assert dl.special_points(points).identical(points)
    none = dl.special_points(dl.branch(lambda x, p: p - x, [0.0], 0.0, bounds=(-1.0, 1.0)))
    assert none.description.shape == (0,)
    with pytest.raises(ValueError, match=r'^branch: needs .*tree\["branch_0"\]'):
        dl.special_points(tree)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("tangent", "tangent"),
        ("arclength", "scaled"),
        ("accuracy", "scaled"),
        ("index", "unstable"),
        ("transverse_eigenvalue", "across the orbit"),
    ],
)
def test_long_names_say_what_a_branch_has(name, word):
    branch = dl.branch(lambda x, p: p - x, [0.0], 0.0, bounds=(-1.0, 1.0))
    assert word in branch[name].attrs["long_name"]
