"""Figures of the Lyapunov spectrum: all exponents of a network, against jax with the same scheme.

Both integrate state and tangent vectors by the explicit pair of order 8 and make the vectors
orthonormal every few steps; jax has `linearize` and `vmap`, double precision, one compiled loop of
equal steps. Each takes the loosest tolerance, or the fewest steps, at which no exponent is wrong by
more than a given amount.
"""

import numpy as np
from common import TOLERANCES, alternate, available, note, opening, report

import dlnds as dl
from dlnds._kernels import runge_kutta

LEVEL, TIME, STEPS_BETWEEN = 1e-6, 100.0, 8


def jax_spectrum(net, start, frame):
    """Return a function of the number of blocks of steps that computes the exponents."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    shapes = list(zip(net.widths[1:], net.widths[:-1], strict=True))
    cuts = np.cumsum([rows * columns for rows, columns in shapes])[:-1]
    target, weights = jnp.asarray(net.target), runge_kutta.STAGES[:13, :12]

    def field(x):
        layers = [part.reshape(s) for part, s in zip(jnp.split(x, cuts), shapes, strict=True)]
        products = [layers[0]]
        for layer in layers[1:]:
            products.append(layer @ products[-1])
        signal, parts = target - products[-1], []
        for i in range(len(layers) - 1, 0, -1):
            parts.append((signal @ products[i - 1].T).ravel())
            signal = layers[i].T @ signal
        return jnp.concatenate([signal.ravel(), *parts[::-1]])

    def moved(x, frame, h, row, stages):
        for weight, (dx, change) in zip(row, stages, strict=False):
            if weight != 0.0:
                x, frame = x + h * weight * dx, frame + h * weight * change
        return x, frame

    def step(x, frame, h):
        stages = []
        for row in weights[:12]:
            value, along = jax.linearize(field, moved(x, frame, h, row, stages)[0])
            stages.append((value, jax.vmap(along)(moved(x, frame, h, row, stages)[1])))
        return moved(x, frame, h, weights[12], stages)

    def block(_, carried):
        x, frame, logs, h = carried
        x, frame = jax.lax.fori_loop(0, STEPS_BETWEEN, lambda _, c: step(*c, h), (x, frame))
        Q, R = jnp.linalg.qr(frame.T)
        return x, Q.T, logs + jnp.log(jnp.abs(jnp.diag(R))), h

    @jax.jit
    def run(blocks):
        h = TIME / (blocks * STEPS_BETWEEN)
        carried = (jnp.asarray(start), jnp.asarray(frame), jnp.zeros(len(frame)), h)
        return jax.lax.fori_loop(0, blocks, block, carried)[2] / TIME

    return lambda blocks: np.sort(np.asarray(run(blocks)))[::-1]


def loosest(tool, settings, reference):
    """Return the first setting at which no exponent is wrong by more than the level."""
    for setting in settings:
        error = np.abs(tool(setting) - reference).max()
        if error <= LEVEL:
            return setting, error
    raise ValueError("settings: none is accurate enough")


def all_exponents_of_a_network():
    """All 48 exponents of widths (4, 4, 4, 4) from a random start, T = 100."""
    net = dl.LinearNetwork(widths=(4, 4, 4, 4), target=np.diag([4.0, 3.0, 2.0, 1.0]))
    start = net.initial(scale=0.3, rng=0)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(net.dim, net.dim)))[0].T

    def ours(rtol):
        found = dl.lyapunov_spectrum(net, start, (0.0, TIME), rtol=rtol, t_eval=[TIME], rng=0)
        return found.exponent.values

    reference = ours(1e-12)
    rtol, error = loosest(ours, TOLERANCES, reference)
    jobs = {"ours": lambda: ours(rtol)}
    note(f"ours: tolerance {rtol:.2g}, error {error:.1e}")
    if available("jax", "jax"):
        peer = jax_spectrum(net, start, frame)
        blocks, error = loosest(peer, range(100, 1000, 10), reference)
        note(f"jax: {blocks * STEPS_BETWEEN} equal steps, error {error:.1e}")
        jobs["jax"] = lambda: peer(blocks)
    times = alternate(jobs, 7)
    note(", ".join(f"{name} {1e3 * t:.0f} ms" for name, t in times.items()))
    if "jax" in times:
        report(
            "all 48 exponents against jax linearize + vmap",
            times["jax"] / times["ours"],
            2.0,
            "x",
            at_most=False,
        )


if __name__ == "__main__":
    opening(__doc__)
    all_exponents_of_a_network()
