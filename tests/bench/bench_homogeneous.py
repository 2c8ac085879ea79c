"""Figures of homogeneous networks: gradient kernels beside jitted jax, escape directions.

Run by ``nox -s bench``. Both kinds of kernels evaluate the gradient of the same loss, in double
precision, on the CPU, one call at a time. Peers that are not installed are left out.
"""

import numpy as np
from common import alternate, available, median_time, note, opening, report

import dlnds as dl
from dlnds._kernels import jit

#: Widths, samples, power, slope: all networks have fewer than 500 weights.
CASES = (
    ((2, 8, 1), 20, 2, 0.0),
    ((5, 20, 1), 50, 2, 0.0),
    ((10, 40, 1), 50, 3, 0.0),
    ((8, 10, 8, 1), 50, 2, 0.0),
    ((10, 15, 15, 5), 100, 2, 0.1),
    ((10, 12, 12, 12, 3), 200, 2, 0.0),
)
#: Calls of one measurement: a single one is too short for the clock.
CALLS = 500


def problem(widths, samples, power, slope):
    """Return a network on random data and a state of it."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(widths[0], samples)), rng.normal(size=(widths[-1], samples))
    net = dl.HomogeneousNetwork(widths, X, Y, power=power, slope=slope)
    return net, net.initial(scale=0.4, rng=1)


def ours(net, x):
    """Return a job that evaluates our field."""
    field, params, out = jit.ready(net.field, jit.FIELD), net.params, np.empty(net.dim)

    def job():
        for _ in range(CALLS):
            field(0.0, x, params, out)
        return out

    return job


def theirs(net, x):
    """Return a job that evaluates minus the gradient by jax."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    X, Y = jnp.asarray(net.criterion.inputs), jnp.asarray(net.criterion.targets)
    ends = np.cumsum([0, *(b * a for a, b in zip(net.widths[:-1], net.widths[1:], strict=True))])

    def loss(state):
        value = X
        for i in range(net.depth):
            w = state[ends[i] : ends[i + 1]].reshape(net.widths[i + 1], net.widths[i])
            value = w @ value
            if i < net.depth - 1:
                value = jnp.maximum(value, net.slope * value) ** net.power
        return 0.5 * jnp.sum((Y - value) ** 2) / X.shape[1]

    gradient, state = jax.jit(jax.grad(loss)), jnp.asarray(x)

    def job():
        for _ in range(CALLS):
            last = gradient(state).block_until_ready()
        return -np.asarray(last)

    return job


def gradients():
    """Gradient kernels against jitted jax."""
    with_jax = available("gradients of jax", "jax")
    for case in CASES:
        net, x = problem(*case)
        jobs = {"dlnds": ours(net, x)}
        if with_jax:
            jobs["jax"] = theirs(net, x)
            difference = np.abs(jobs["jax"]() - jobs["dlnds"]()).max()
            assert difference < 1e-12 * max(1.0, np.abs(jobs["dlnds"]()).max()), difference
        times = alternate(jobs, 9)
        each = {name: 1e6 * spent / CALLS for name, spent in times.items()}
        words = ", ".join(f"{name} {spent:.2f} us" for name, spent in each.items())
        what = f"gradient, widths {case[0]}, {case[1]} samples, p = {case[2]}"
        note(f"{what}: {words}")
        if with_jax:
            report(f"{what} against jax", each["jax"] / each["dlnds"], 3, "x", at_most=False)


def escape_directions():
    """1,000 ascents to KKT points of 200 weights in three layers, on two cores."""
    net, _ = problem((8, 12, 8, 1), 50, 2, 0.0)
    spent = median_time(lambda: dl.escape_directions(net, n_starts=1000, workers=2), 3)
    report(f"1,000 starts on {net.dim} weights in three layers", spent, 10, "s", at_most=True)


if __name__ == "__main__":
    opening(__doc__)
    gradients()
    escape_directions()
