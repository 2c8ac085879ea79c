"""Random polynomial systems whose branches are known, in coordinates and units of any kind."""

import hypothesis.strategies as st
import numpy as np
import planted
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

#: Not everything that is chosen goes together; an example that fails is short enough as it is.
FOUND = {
    "suppress_health_check": [HealthCheck.filter_too_much, HealthCheck.too_slow],
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
}


@st.composite
def systems(draw):
    made = planted.system(lambda a, b: draw(st.integers(a, b)))
    assume(made is not None)
    return made


@st.composite
def views(draw):
    return planted.view(lambda a, b: draw(st.integers(a, b)))


def wrong(system, view, **options):
    branch, problem = planted.followed(system, view, **options)
    return planted.complaints(system, view, branch, problem)


@given(systems(), st.randoms(use_true_random=False))
@settings(**FOUND)
def test_the_derivatives_of_planted_systems_are_right(system, random):
    """Otherwise the laws below would be about something else."""
    rng = np.random.default_rng(random.randint(0, 1000))
    y, q, h = rng.normal(size=system.size), rng.normal(), 1e-6
    J, slope = planted.derivatives(system, y, q)
    for k, unit in enumerate(np.eye(system.size)):
        change = planted.field(system, y + h * unit, q) - planted.field(system, y - h * unit, q)
        np.testing.assert_allclose(change / (2.0 * h), J[:, k], atol=1e-7 * (1 + np.abs(J).max()))
    change = planted.field(system, y, q + h) - planted.field(system, y, q - h)
    np.testing.assert_allclose(change / (2.0 * h), slope, atol=1e-7 * (1 + np.abs(slope).max()))
    y = planted.on_branch(system, system.start[0])
    q = system.start[1]
    assert np.abs(planted.field(system, y, q)).max() < 1e-11
    values = np.linalg.eigvals(planted.derivatives(system, y, q)[0])
    assert (values.real > 1e-9).sum() == planted.index_at(system, y[0], q)


@given(systems(), st.sampled_from([0.05, 0.1, 0.25]))
@settings(max_examples=25, **FOUND)
def test_branches_from_round_numbers_are_whole(system, step):
    assert wrong(system, planted.View(step=step)) == []


@given(systems(), views())
@settings(max_examples=15, **FOUND)
def test_special_points_do_not_depend_on_coordinates_and_units(system, view):
    assert wrong(system, view) == []


@given(systems(), *[st.sampled_from([2.0**-20, 2.0**-7, 2.0**7, 2.0**20])] * 2, st.booleans())
@settings(max_examples=12, **FOUND)
def test_units_change_nothing_but_rounding(system, states, parameters, forces):
    """The same branch in other units: powers of two, which round nothing.

    A step is halved where a comparison says so, and rounding may decide it: what follows has other
    rows of the same curve. The first step is the same.
    """
    own = planted.View(shifted=True)  # no start at zero, where x has no size
    force = 2.0**20 if forces else 1.0
    other = own._replace(state_scale=states, parameter_scale=parameters, force_scale=force)
    (one, _), (two, _) = (planted.followed(system, view) for view in (own, other))
    start = int(one.attrs["start_step"])
    rows = slice(max(start - 1, 0), start + 2)
    if start == int(two.attrs["start_step"]):
        length = float(np.ptp(one.arclength.values))
        gap = two.arclength.values[rows] - one.arclength.values[rows]
        assert np.abs(gap).max() < 1e-5 * length
        np.testing.assert_allclose(two.p.values[rows] / parameters, one.p.values[rows], atol=1e-5)
    counts = one.sizes["step"], two.sizes["step"]
    assert abs(counts[0] - counts[1]) <= 2 + 0.1 * counts[0], counts
    lengths = [float(np.ptp(branch.arclength.values)) for branch in (one, two)]
    assert abs(lengths[0] - lengths[1]) < 0.01 * lengths[0], lengths
    found, known = (branch.isel(step=branch.event.values > 0) for branch in (two, one))
    for name in ("event", "index", "nullity", "kernel_dimension"):
        np.testing.assert_array_equal(found[name], known[name])
    np.testing.assert_allclose(found.p / parameters, known.p, rtol=0, atol=1e-7)


@st.composite
def views_in_rows(draw):
    """Systems whose eigenvalues keep their signs if rows of F are in units of their own."""
    system = draw(systems())
    assume(system.size > 1 and not any(side.frequency for side in system.sides))
    mix = draw(st.sampled_from(["same", "turned"]))
    assume(mix == "same" or (system.symmetric and not system.rings))
    sizes = st.sampled_from([1e-6, 1e-3, 30.0, 1e3, 1e6])
    known = draw(st.booleans())
    return system, planted.View(
        draw(st.integers(0, 9)), mix, row_scale=draw(sizes), derivatives=known
    )


@given(views_in_rows())
@settings(max_examples=12, **FOUND)
def test_units_of_rows_change_no_special_point_and_no_index(given):
    assert wrong(*given) == []


@pytest.mark.slow
@given(views_in_rows())
@settings(max_examples=1000, **FOUND)
def test_units_of_rows_change_nothing_in_thousands(given):
    assert wrong(*given) == []


@pytest.mark.slow
@given(systems(), views())
@settings(max_examples=3000, **FOUND)
def test_thousands_of_random_branches_are_whole(system, view):
    assert wrong(system, planted.View(step=view.step)) == []
    assert wrong(system, view) == []
