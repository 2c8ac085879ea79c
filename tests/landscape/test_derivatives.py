"""The Hessian of any gradient flow, and its products with directions."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings

import dlnds as dl

EPS = np.finfo(float).eps
A = np.array([[2.0, 0.3, 0.0], [0.3, -1.0, 0.5], [0.0, 0.5, 0.7]])


def quartic(t, x, params, out):
    """Minus the gradient of ½ xᵀ A x + ¼ Σ x_i⁴."""
    for i in range(3):
        out[i] = -(x[i] ** 3)
        for j in range(3):
            out[i] -= params[1][3 * i + j] * x[j]


def quartic_jvp(t, x, v, params, out):
    for i in range(3):
        out[i] = -3.0 * x[i] ** 2 * v[i]
        for j in range(3):
            out[i] -= params[1][3 * i + j] * v[j]


def quartic_jacobian(t, x, params, out):
    for i in range(3):
        for j in range(3):
            out[i, j] = -params[1][3 * i + j]
        out[i, i] -= 3.0 * x[i] ** 2


def swirl(t, x, params, out):
    """A gradient and a turn of 1e-4 of it."""
    out[0] = -x[0] - 1e-4 * x[1]
    out[1] = -x[1] + 1e-4 * x[0]


def of_functions(*kernels, **options):
    return dl.System(*kernels, dim=3, parameters=A.ravel(), **options)


def networks():
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(3, 12)), rng.integers(0, 2, 12)
    yield dl.LossNetwork((3, 4, 2), dl.losses.cross_entropy(X, labels))
    yield dl.LossNetwork((3, 2, 2), dl.losses.power(X, X[:2] ** 2, power=4.0))
    yield dl.HomogeneousNetwork((3, 4, 1), X, X[0] * X[1], power=3, slope=0.2)


def differenced(net, x, step=1e-5):
    """Second differences of nothing but the loss, each entry by itself."""
    moves, n = step * np.eye(net.dim), net.dim
    H = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            a, b = moves[i], moves[j]
            corners = net.loss(np.stack([x + a + b, x + a - b, x - a + b, x - a - b]))
            H[i, j] = (corners @ [1.0, -1.0, -1.0, 1.0]) / (4.0 * step**2)
    return H


@settings(max_examples=15)
@given(naive.small_networks, naive.seeds)
def test_the_hessian_is_the_second_derivative_of_the_loss(net, seed):
    x = naive.state_of(net, seed)
    H = dl.hessian(net, x)
    assert H.dims == ("parameter", "other")
    step = 1e-4
    # Rounding of four losses, and fourth derivatives over the step: both by the size of the terms.
    sizes = [1.0 + np.linalg.norm(w) for w in (*naive.split(net, x), naive.root(net), net.target)]
    scale = np.prod(sizes) ** 2
    allowed = 4.0 * EPS * scale / step**2 + 100.0 * step**2 * scale
    np.testing.assert_allclose(H, differenced(net, x, step), rtol=0.0, atol=allowed)
    assert np.array_equal(H, H.values.T)


def test_both_dims_carry_the_labels_of_the_weights():
    net = naive.random_network((2, 3, 4), 0)
    H = dl.hessian(net, naive.state_of(net, 0))
    for name in ("layer", "row", "column"):
        assert H[name].dims == ("parameter",)
        assert H[f"other_{name}"].dims == ("other",)
        np.testing.assert_array_equal(H[name], H[f"other_{name}"])
    named = dl.hessian(of_functions(quartic, names=["a", "b", "c"]), np.ones(3))
    assert float(named.sel(parameter="a", other="b")) == pytest.approx(A[0, 1], abs=1e-9)


@pytest.mark.parametrize("net", [*networks()], ids=repr)
def test_products_are_those_of_the_matrix_for_all_networks(net):
    x, v = (naive.state_of(net, seed) for seed in (1, 2))
    H, product = dl.hessian(net, x), dl.hessian_product(net, x, v)
    assert product.dims == ("parameter",)
    bound = 8.0 * net.dim * EPS * np.linalg.norm(H) * np.linalg.norm(v)
    np.testing.assert_allclose(product, H.values @ v, rtol=0.0, atol=bound)
    assert np.linalg.norm(product) > 1e-3
    slope = naive.differences(net.gradient, x, 1e-5) @ v
    np.testing.assert_allclose(product, slope, rtol=0.0, atol=1e-8 * np.linalg.norm(H))


@pytest.mark.parametrize(
    ("system", "accuracy"),
    [
        (of_functions(quartic), 1e-10),
        (of_functions(quartic, quartic_jvp), 1e-10),
        (of_functions(quartic, None, quartic_jacobian), 4.0 * EPS),
        (of_functions(quartic, quartic_jvp, quartic_jacobian), 4.0 * EPS),
    ],
)
def test_what_a_system_does_not_give_is_differenced(system, accuracy):
    """A + 3 diag(x²), whatever of field, product and Jacobian is known; gradient descent's too."""
    x, v = np.array([0.5, -2.0, 1e-3]), np.array([1.0, 3.0, -2e4])
    true = A + 3.0 * np.diag(x**2)
    for own in (system, dl.GradientDescent(system, 0.01)):
        np.testing.assert_allclose(dl.hessian(own, x), true, rtol=0.0, atol=accuracy * 13.0)
        product = dl.hessian_product(own, x, v)
        known = 4.0 * EPS if system.jvp or system.jacobian else 1e-10
        np.testing.assert_allclose(product, true @ v, rtol=0.0, atol=known * 13.0 * 2e4)
        assert not dl.hessian_product(own, x, np.zeros(3)).any()


def test_of_gradient_descent_the_hessian_of_its_flow_is_taken():
    net = naive.random_network((3, 2, 3), 0, "full")
    x, v = naive.state_of(net, 0), naive.state_of(net, 1)
    steps = dl.GradientDescent(net, 0.1)
    assert dl.hessian(steps, x).identical(dl.hessian(net, x))
    assert dl.hessian_product(steps, x, v).identical(dl.hessian_product(net, x, v))


def test_what_is_no_gradient_flow_is_refused_by_name():
    net = naive.random_network((2, 2, 2), 0)
    prod = dl.ProductFlow(net, rank=1)
    plane = dl.System(swirl, dim=2)
    state, v = prod.initial(scale=1.0, rng=0), np.ones(2)
    for system, x, said in [
        (prod, state, "ProductFlow, which is one in another metric"),
        (plane, v, "System, whose Jacobian at x is not symmetric: it is off by"),
        (dl.GradientDescent(plane, 0.1), v, "GradientDescent, whose Jacobian at x is not"),
        (dl.System(swirl, dim=2, kind="map"), v, "the map System"),
    ]:
        calls = [lambda s=system, x=x: dl.hessian(s, x)]
        calls += [lambda s=system, x=x: dl.hessian_product(s, x, np.arange(1.0, 1.0 + s.dim))]
        for call in calls:
            with pytest.raises(TypeError, match=f"^system: needs a gradient flow, got {said}"):
                call()
    with pytest.raises(TypeError, match="^system: needs a system such as"):
        dl.hessian(3, v)


def test_a_field_that_does_not_change_has_the_hessian_zero():
    def still(t, x, params, out):
        out[0], out[1] = 1.0, -1e3

    H = dl.hessian(dl.System(still, dim=2), [1.0, 2.0])
    assert np.abs(H).max() < 1e-7
