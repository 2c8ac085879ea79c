"""Starts at weight decay 0, where the symmetry is larger than around."""

import numpy as np
import pytest
from equations import events, size_at

import dlnds as dl


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("modes", [(0,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("low", [0.0, -0.3])
def test_branches_may_start_in_a_saddle_without_decay(depth, modes, low):
    """At λ = 0 the symmetry is GL and, if h ≥ 3, more is zero; λ = s^{h−2}(σ − s^h) goes on."""
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag([3.0, 2.0, 1.0]))
    x, equation = net.critical_state(modes), dl.equilibria(net, "weight_decay")
    branch = dl.branch(equation, x, 0.0, bounds=(low, 0.25))
    assert [(kind, p) for kind, p, _ in events(branch)] == [("symmetry_change", 0.0)]
    start = branch.isel(step=branch.attrs["start_step"])
    assert (float(start.p), np.abs(start.state - x).max() < 1e-14) == (0.0, True)
    null = np.linalg.eigvalsh(equation.matrix(x, 0.0))
    assert int(start.nullity) == np.count_nonzero(np.abs(null) < 1e-9)
    assert int(start.orbit_dimension) == np.linalg.matrix_rank(equation.orbit(x, 0.0), tol=1e-9)
    assert branch.p.values[[0, -1]].tolist() == [low, 0.25]
    for row in range(branch.sizes["step"]):
        p = float(branch.p[row])
        sizes = [size_at(net.singular_values[mode], p, depth) for mode in modes]
        norm = np.sqrt(depth * np.sum(np.square(sizes)))
        assert np.linalg.norm(branch.state[row]) == pytest.approx(norm, rel=1e-12)


def test_a_start_that_is_a_solution_without_decay_alone_is_refused():
    net = dl.LinearNetwork(widths=(3,) * 4, target=np.diag([3.0, 2.0, 1.0]))
    x = dl.random_fiber_state(net, (0,), rng=0)  # not balanced
    with pytest.raises(ValueError, match=r"^x0: is a solution at weight_decay = 0, where the symm"):
        dl.branch(dl.equilibria(net, "weight_decay"), x, 0.0, bounds=(0.0, 0.25))
