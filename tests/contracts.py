"""What every system must keep to; each test of a system calls `check_system`."""

import naive
import numpy as np

import dlnds as dl
from dlnds._kernels import jit
from dlnds.systems.graded import GradedFlow


def call(kernel, signature, shape, *arguments):
    out = np.full(shape, np.nan)
    jit.ready(kernel, signature)(*arguments, out)
    return out


def check_system(system, x, t=0.0, v=None):
    """Check kernels against differences of the field, and the answers to the engines' questions."""
    n = system.dim
    x = np.array(x, dtype=float)
    assert x.shape == (n,)
    value, size = check_kernels(system, x, t, v)
    check_labels(system, x)
    check_numerics(system, x, t, size)
    check_limit(system, x)
    check_theory(system, x, size)
    check_varied(system, x, value, size)
    if system.kind != "map":
        run = dl.flow(system, x, t_span=(t, t + 1e-3), t_eval=[t, t + 1e-3])
        dl.schema.validate(run)
        (first, last), change = run.state.values, value
        if isinstance(system, dl.ProductFlow):  # runs may turn the columns
            first, change = map_and_change(system, x, value)
            last = system.product(last)
        growth = float(np.linalg.norm(last - first - 1e-3 * change))
        assert growth <= 1e-6 * size * (1.0 + np.linalg.norm(value)) * n
        assert run.identical(dl.flow(system, x, t_span=(t, t + 1e-3), t_eval=[t, t + 1e-3]))


def check_kernels(system, x, t, v):
    """Check ``params``, ``field``, ``jvp`` and ``jacobian``; return the field and a size of it."""
    n = system.dim
    assert [part.dtype for part in system.params] == [np.int64, np.float64]

    def field(state):
        return call(system.field, jit.FIELD, n, t, state, system.params)

    value, before = field(x), x.copy()
    assert np.isfinite(value).all()
    np.testing.assert_array_equal(x, before, err_msg="the field changed its argument")
    step = 1e-3 * max(1.0, np.abs(x).max())
    expected = naive.differences(field, x, step)
    size = np.abs(expected).max() + np.abs(value).max() + 1.0
    if system.jacobian is not None:
        J = call(system.jacobian, jit.JACOBIAN, (n, n), t, x, system.params)
        np.testing.assert_allclose(J, expected, rtol=0.0, atol=1e-6 * size)
        if system.numerics.symmetric:
            np.testing.assert_allclose(J, J.T, rtol=0.0, atol=1e-13 * size)
    if system.jvp is not None:
        v = np.linspace(-1.0, 1.0, n) if v is None else v
        out = call(system.jvp, jit.JVP, n, t, x, v, system.params)
        np.testing.assert_allclose(out, expected @ v, rtol=0.0, atol=1e-6 * size * n)
    return value, size


def check_labels(system, x):
    """Check ``kind``, ``coordinates``, ``observables`` and ``attributes``."""
    assert system.kind in ("flow", "gradient", "map")
    labels = {
        name: np.size(c[1] if isinstance(c, tuple) else c)
        for name, c in system.coordinates().items()
    }
    assert set(labels.values()) == {system.dim}
    always = system.observables(x[None])
    for name, variable in (always | system.observables(x[None], ["state"])).items():
        assert variable.dims[0] == "time", name
        assert variable.shape[0] == 1, name
    assert always.keys() == system.observables(np.zeros((0, system.dim))).keys()
    assert system.attributes()["system"]


def check_numerics(system, x, t, size):
    """Check ``numerics``: nothing that it offers changes the flow."""
    n, numerics = system.dim, system.numerics
    scale = call(numerics.error_scale, jit.FIELD, n, t, x, system.params)
    assert (scale >= 0.0).all()
    assert (scale > 0.0).any() == x.any()
    kept, reference = x.copy(), numerics.invariants(x)
    jit.ready(numerics.restore, jit.RESTORE)(kept, system.params, reference, 0.0, False)
    np.testing.assert_allclose(kept, x, rtol=0.0, atol=1e-12 * (1.0 + np.abs(x).max()))
    assert numerics.field_cost > 0.0
    assert not numerics.too_large(x)
    if numerics.tangent is not None:
        vectors = np.eye(n)
        J = call(system.jacobian, jit.JACOBIAN, (n, n), t, x, system.params)
        out = np.empty_like(vectors)
        jit.ready(numerics.tangent, jit.TANGENT)(t, x, vectors, system.params, out)
        np.testing.assert_allclose(out, J, rtol=0.0, atol=1e-12 * size * n)
    assert (numerics.update is not None) or system.kind != "map"
    turned = numerics.working_basis and numerics.working_basis(x)
    for other in (numerics.reduce(x), turned, numerics.deflate(x, 1e-8)):
        if other is None or system.kind == "map":
            continue
        inner = other.system
        ahead = call(inner.field, jit.FIELD, inner.dim, t, other.state, inner.params)
        back = other.lift(np.stack([other.state, other.state + ahead]))
        value = call(system.field, jit.FIELD, n, t, x, system.params)
        found, wanted = (back[0], back[1] - back[0]), (x, value)
        if isinstance(inner, GradedFlow):  # turns the columns of factors, so only maps are the same
            found, wanted = map_and_change(system, *found), map_and_change(system, *wanted)
        places, rates = zip(found, wanted, strict=True)
        np.testing.assert_allclose(*places, rtol=0.0, atol=1e-9 * (1.0 + np.abs(x).max()))
        np.testing.assert_allclose(*rates, rtol=0.0, atol=1e-9 * size * n)
    known = system.observables(x[None], numerics.unaffected)
    assert known.keys() == numerics.unaffected


def map_and_change(system, x, v):
    """Return W = A Bᵀ and its change as the factors change by ``v``."""
    (A, B), (dA, dB) = system.unpack(x), system.unpack(v)
    return A @ B.T, dA @ B.T + A @ dB.T


def check_limit(system, x):
    """Check ``limit``: a run is over where there is no force, if the flow descends."""
    far, still = system.limit(x), system.limit(x, 0.0, 1e-8)
    assert far.label == still.label
    assert (far.kind, far.decision) == ("none", "none") or far.kind == "global_minimum"
    assert still.kind in dl.schema.LIMIT_KINDS
    assert still.decision in dl.schema.LIMIT_DECISIONS
    assert (still.kind == "none") == (system.kind != "gradient")


def check_theory(system, x, size):
    """Check ``theory``: symmetries keep the loss, and known eigenvalues are the Jacobian's."""
    n, theory = system.dim, system.theory(x)
    rows = theory.generators()
    assert rows.shape[1:] == (n,)
    if "loss" in system.observables(x[None]) and len(rows):
        step = 1e-6
        for row in rows[:: max(1, len(rows) // 5)]:
            ends = np.stack([x + step * row, x - step * row])
            loss = system.observables(ends)["loss"].values
            assert abs(loss[0] - loss[1]) <= 1e-6 * step * size * (1.0 + np.abs(x).max()) ** 2 * n
    spectrum, dimensions = theory.spectrum(), theory.dimensions()
    if spectrum is not None:
        assert len(spectrum.eigenvalues) <= n
    if dimensions is not None:
        assert 0 <= dimensions[0] <= dimensions[1] <= n
    for part in theory.leading_parts():
        assert part.degree >= 2


def check_varied(system, x, value, size):
    """Check ``varied``: at the given value of what is varied, the equation is the field's.

    That of a map is where it comes back to x after one step, or after two.
    """
    p, name = float(system.attributes().get("weight_decay", [0.0])[0]), "weight_decay"
    if "step_size" in system.attributes():
        p, name = system.step_size, "step_size"
    elif system.kind != "gradient":
        name, p = 0, float(np.append(system.params[1], 0.0)[0])
    try:
        residual = dl.Residual(**system.varied(name))
    except (TypeError, ValueError) as error:
        assert str(error).startswith(("system: ", "vary: ")), error  # noqa: PT017
        assert not system.params[1].size
        return
    assert residual.kind == ("map" if system.kind == "map" else "flow")
    if system.kind == "map":
        value = moved(system, x, value) - x
        twice = dl.Residual(**system.varied(name, period=2))
        there = x + value
        expected = moved(
            system, there, call(system.field, jit.FIELD, x.size, 0.0, there, system.params)
        )
        np.testing.assert_allclose(twice.value(x, p), expected - x, rtol=0.0, atol=1e-12 * size)
        check_matrix(twice, x, p, size**2)
    np.testing.assert_allclose(residual.value(x, p), value, rtol=0.0, atol=1e-12 * size)
    check_matrix(residual, x, p, size)


def moved(system, x, value):
    """Return the image of a state under a map whose field there is known."""
    alpha, beta = system.numerics.update
    return alpha * x + beta * value


def check_matrix(residual, x, p, size):
    """Check the Jacobian of an equation and the shape of its generators."""
    step = 1e-3 * max(1.0, np.abs(x).max())
    expected = naive.differences(lambda y: residual.value(y, p), x, step)
    np.testing.assert_allclose(residual.matrix(x, p), expected, rtol=0.0, atol=1e-6 * size)
    rows = residual.orbit(x, p)
    assert rows.shape[1:] == x.shape
