"""Peers of `flow` on the same problems: numbalsoda, heyoka, diffrax and scipy.

Each tool is a function ``tool(tolerance)`` that makes a job; a job returns the states at the grid
times. Absolute tolerances of peers are tied to the size of the start, since none of them knows the
size of the layers: ``atol = rtol · rms(start)``. At equal error that makes LSODA faster than
``atol = rtol`` does, and dop853 as fast.
"""

import multiprocessing
import os

import numba
import numpy as np
import scipy.integrate
from common import silent

from dlnds._kernels import jit

CORES = 2

# Else Fortran's notes on stiffness would be held back and printed at the end of the process. It is
# read when the library is loaded.
os.environ["GFORTRAN_UNBUFFERED_ALL"] = "1"


def size_of(starts):
    """Return the root mean square of all weights at the start."""
    return float(np.sqrt(np.mean(np.square(starts))))


def compiled_field(net):
    """Return f(t, x) and its Jacobian as Python calls of the compiled kernels of a network."""
    field, jacobian = jit.ready(net.field, jit.FIELD), jit.ready(net.jacobian, jit.JACOBIAN)
    params = net.params

    def value(t, x):
        out = np.empty(net.dim)
        field(t, x, params, out)
        return out

    def derivative(t, x):
        out = np.empty((net.dim, net.dim))
        jacobian(t, x, params, out)
        return out

    return value, derivative


def numpy_field(net):
    """Return f(t, x) as it would be written with numpy alone."""
    shapes = list(zip(net.widths[1:], net.widths[:-1], strict=True))
    cuts = np.cumsum([rows * columns for rows, columns in shapes])[:-1]

    def value(t, x):
        layers = [part.reshape(s) for part, s in zip(np.split(x, cuts), shapes, strict=True)]
        products = [layers[0]]
        for layer in layers[1:]:
            products.append(layer @ products[-1])
        signal, parts = net.target - products[-1], []
        for i in range(len(layers) - 1, 0, -1):
            parts.append((signal @ products[i - 1].T).ravel())
            signal = layers[i].T @ signal
        return np.concatenate([signal.ravel(), *parts[::-1]])

    return value


# scipy


def scipy_tool(net, start, grid, method, field=None):
    """`solve_ivp` with the compiled right-hand side, for LSODA the compiled Jacobian too."""
    value, jacobian = compiled_field(net)
    options = {"jac": jacobian} if method in ("LSODA", "Radau", "BDF") and field is None else {}
    size, ends = size_of(start), (grid[0], grid[-1])

    def tool(tolerance):
        limits = {"rtol": tolerance, "atol": tolerance * size, **options}

        def job():
            found = scipy.integrate.solve_ivp(
                field or value, ends, start, method, t_eval=grid, **limits
            )
            return found.y.T if found.success else np.full((grid.size, start.size), np.nan)

        return job

    return tool


def odeint_tool(net, start, grid):
    """The older interface to the same Fortran LSODA, with fewer Python calls for each step."""
    value, jacobian = compiled_field(net)
    options = {"tfirst": True, "Dfun": jacobian, "mxstep": 10**6}

    def tool(tolerance):
        limits = {"rtol": tolerance, "atol": tolerance * size_of(start), **options}
        return lambda: scipy.integrate.odeint(value, start, grid, **limits)

    return tool


_worker = {}


def _prepare(net, grid):
    _worker.update(net=net, grid=grid)


def _solve(arguments):
    start, tolerance = arguments
    return scipy_tool(_worker["net"], start, _worker["grid"], "LSODA")(tolerance)()


class ScipyPool:
    """A pool of processes that each run `solve_ivp` with LSODA and the compiled kernels."""

    def __init__(self, net, grid):
        spawn = multiprocessing.get_context("spawn")
        self.pool = spawn.Pool(CORES, _prepare, (net, grid))

    def tool(self, starts):
        """Return the tool that runs a stack of starts."""

        def make(tolerance):
            tasks = [(start, tolerance) for start in starts]
            return lambda: np.stack(self.pool.map(_solve, tasks, chunksize=4))

        return make


# numbalsoda


def numbalsoda_tool(net, start, grid):
    """The Fortran dop853, which calls our field through a C callback without Python.

    Sizes and floats of the network travel as one block through its pointer for user data.
    """
    from numbalsoda import dop853

    field, (sizes, floats) = jit.ready(net.field, jit.FIELD), net.params
    block = np.concatenate([sizes.view(np.float64), floats])
    count, total, dim = sizes.size, block.size, net.dim
    pointer = numba.types.CPointer(numba.types.float64)
    signature = numba.types.void(numba.types.float64, pointer, pointer, numba.types.voidptr)

    @numba.cfunc(signature)
    def right_hand_side(t, x, out, data):
        integers = numba.carray(data, (count,), np.int64)
        numbers = numba.carray(data, (total,), np.float64)[count:]
        field(t, numba.carray(x, (dim,)), (integers, numbers), numba.carray(out, (dim,)))

    def tool(tolerance):
        limits = {"rtol": tolerance, "atol": tolerance * size_of(start), "mxstep": 10**7}

        def job():
            with silent():
                states, success = dop853(right_hand_side.address, start, grid, block, **limits)
            return states if success else np.full_like(states, np.nan)

        return job

    return tool


# heyoka


def _equations(net):
    import heyoka

    heyoka.llvm_state.set_diskcache_enabled(False)  # so that the time to compile is seen

    def product(a, b):
        return [
            [heyoka.sum([p * q for p, q in zip(row, column, strict=True)]) for column in zip(*b)]  # noqa: B905
            for row in a
        ]

    def transposed(a):
        return [list(column) for column in zip(*a, strict=True)]

    layers = [
        [[heyoka.make_vars(f"w{i}_{p}_{q}") for q in range(columns)] for p in range(rows)]
        for i, (columns, rows) in enumerate(zip(net.widths[:-1], net.widths[1:], strict=True))
    ]
    products = [layers[0]]
    for layer in layers[1:]:
        products.append(product(layer, products[-1]))
    signal = [
        [number - entry for number, entry in zip(*rows, strict=True)]
        for rows in zip(net.target.tolist(), products[-1], strict=True)
    ]
    derivatives = []
    for i in range(net.depth - 1, 0, -1):
        derivatives.append(product(signal, transposed(products[i - 1])))
        signal = product(transposed(layers[i]), signal)
    derivatives = [signal, *derivatives[::-1]]
    return [
        pair
        for layer, derivative in zip(layers, derivatives, strict=True)
        for rows in zip(layer, derivative, strict=True)
        for pair in zip(*rows, strict=True)
    ]


def heyoka_tool(net, start, grid, *, compact):
    """Taylor's method of the order that heyoka takes for the tolerance.

    The unrolled form runs about twice as fast as the compact one, which compiles in a fraction of a
    second and is as accurate.
    """
    import heyoka

    equations = _equations(net)

    def tool(tolerance):
        solver = heyoka.taylor_adaptive(
            equations, start.copy(), tol=tolerance, compact_mode=compact
        )

        def job():
            solver.time = 0.0
            solver.state[:] = start
            return solver.propagate_grid(grid)[-1]

        return job

    return tool


def heyoka_ensemble_tool(net, starts, grid, *, compact):
    """Batches as wide as the vector registers, spread over threads."""
    import heyoka

    equations, width = _equations(net), heyoka.recommended_simd_size()
    batches = -(-len(starts) // width)
    padded = np.resize(starts, (batches * width, net.dim)).reshape(batches, width, net.dim)

    def set_start(solver, i):
        solver.set_time(0.0)
        solver.state[:] = padded[i].T
        return solver

    def tool(tolerance):
        solver = heyoka.taylor_adaptive_batch(
            equations, padded[0].T.copy(), tol=tolerance, compact_mode=compact
        )

        def job():
            found = heyoka.ensemble_propagate_grid_batch(
                solver, grid, batches, set_start, algorithm="thread", max_workers=CORES
            )
            states = np.concatenate([batch[-1].transpose(2, 0, 1) for batch in found])
            return states[: len(starts)]

        return job

    return tool


# diffrax


def diffrax_tool(net, starts, grid, target=None, weights=1.0):
    """Dopri8 in double precision, compiled; a stack of starts is mapped by `vmap`.

    Of the square loss, or of one that weights the entries of another ``target``. Forward mode,
    since no gradient is wanted: reverse mode was never faster.
    """
    import diffrax
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    shapes = list(zip(net.widths[1:], net.widths[:-1], strict=True))
    cuts = np.cumsum([rows * columns for rows, columns in shapes])[:-1]
    target = jnp.asarray(net.target if target is None else target)
    times, weights = jnp.asarray(grid), jnp.asarray(weights)

    def value(t, x, _):
        layers = [part.reshape(s) for part, s in zip(jnp.split(x, cuts), shapes, strict=True)]
        products = [layers[0]]
        for layer in layers[1:]:
            products.append(layer @ products[-1])
        signal, parts = weights * (target - products[-1]), []
        for i in range(len(layers) - 1, 0, -1):
            parts.append((signal @ products[i - 1].T).ravel())
            signal = layers[i].T @ signal
        return jnp.concatenate([signal.ravel(), *parts[::-1]])

    def solve(start, rtol, atol):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(value),
            diffrax.Dopri8(),
            times[0],
            times[-1],
            None,
            start,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            adjoint=diffrax.ForwardMode(),
            max_steps=None,
        ).ys

    mapped = jax.vmap(solve, (0, None, None)) if starts.ndim == 2 else solve
    compiled, size = jax.jit(mapped), size_of(starts)
    return lambda rtol: lambda: np.asarray(compiled(starts, rtol, rtol * size))
