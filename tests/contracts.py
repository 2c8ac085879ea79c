"""What every system must keep to; each test of a system calls `check_system`."""

import naive
import numpy as np

import dlnds as dl
from dlnds._kernels import jit


def call(kernel, signature, shape, *arguments):
    out = np.full(shape, np.nan)
    jit.ready(kernel, signature)(*arguments, out)
    return out


def check_system(system, x, t=0.0, v=None):
    """Check kernels against differences of the field, and the answers to the engines' questions."""
    n = system.dim
    x = np.array(x, dtype=float)
    assert x.shape == (n,)

    def field(state):
        return call(system.field, jit.FIELD, n, t, state, system.params)

    value, before = field(x), x.copy()
    assert np.isfinite(value).all()
    np.testing.assert_array_equal(x, before, err_msg="the field changed its argument")
    step = 1e-3 * max(1.0, np.abs(x).max())
    expected = naive.differences(field, x, step)
    size = np.abs(expected).max() + np.abs(value).max() + 1.0
    near = {"rtol": 0.0, "atol": 1e-6 * size}
    if system.jacobian is not None:
        J = call(system.jacobian, jit.JACOBIAN, (n, n), t, x, system.params)
        np.testing.assert_allclose(J, expected, **near)
        if system.gradient_flow:
            np.testing.assert_allclose(J, J.T, rtol=0.0, atol=1e-13 * size)
    if system.jvp is not None:
        v = np.linspace(-1.0, 1.0, n) if v is None else v
        out = call(system.jvp, jit.JVP, n, t, x, v, system.params)
        np.testing.assert_allclose(out, expected @ v, rtol=0.0, atol=1e-6 * size * n)
    scale = call(system.error_scale, jit.FIELD, n, t, x, system.params)
    assert (scale >= 0.0).all()
    assert (scale > 0.0).any() == x.any()
    for name, variable in system.observables(x[None], [*system.always_saved, "state"]).items():
        assert variable.dims[0] == "time", name
        assert variable.shape[0] == 1, name
    labels = {
        name: np.size(c[1] if isinstance(c, tuple) else c)
        for name, c in system.coordinates().items()
    }
    assert set(labels.values()) == {n}
    assert system.attributes()["system"] == type(system).__name__
    run = dl.flow(system, x, t_span=(t, t + 1e-3), t_eval=[t, t + 1e-3])
    dl.schema.validate(run)
    growth = float(np.linalg.norm(run.state[1] - run.state[0] - 1e-3 * value))
    assert growth <= 1e-6 * size * (1.0 + np.linalg.norm(value)) * n
    assert run.identical(dl.flow(system, x, t_span=(t, t + 1e-3), t_eval=[t, t + 1e-3]))
