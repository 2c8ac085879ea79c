"""Figures of the spine: assembled Hessian, import, first trajectory, main job.

Run by ``nox -s bench``. Every figure is the median of several runs beside its goal; a miss is
printed as a miss.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from common import available, cpu_of, median_time, note, opening, report

import dlnds as dl
from dlnds._kernels import jit


def hessian_against_differences():
    """Assembled Hessian against central differences of the compiled gradient, both at n = 1024."""
    net = dl.LinearNetwork(widths=(16,) * 5, target=np.random.default_rng(0).normal(size=(16, 16)))
    x = net.initial(scale=0.25, rng=0)
    gradient, params, step = jit.ready(net.field, jit.FIELD), net.params, 1e-5
    jacobian = jit.ready(net.jacobian, jit.JACOBIAN)
    exact, differenced = np.empty((net.dim, net.dim)), np.empty((net.dim, net.dim))
    ends, shifted = np.empty((2, net.dim)), x.copy()

    def assemble():
        jacobian(0.0, x, params, exact)

    def difference():
        for j in range(net.dim):
            shifted[j] = x[j] + step
            gradient(0.0, shifted, params, ends[0])
            shifted[j] = x[j] - step
            gradient(0.0, shifted, params, ends[1])
            shifted[j] = x[j]
            differenced[:, j] = (ends[0] - ends[1]) / (2.0 * step)

    slow, fast = median_time(difference, 5), median_time(assemble, 25)
    error = np.abs(exact - differenced).max() / np.abs(exact).max()
    note(f"differences {1e3 * slow:.1f} ms, assembled {1e3 * fast:.2f} ms, equal to {error:.0e}")
    bound = exact.nbytes / _fill_rate()
    note(f"writing the matrix alone takes {1e3 * bound:.2f} ms: {fast / bound:.1f} x the limit")
    report(
        "assembled Hessian at n = 1024 against central differences",
        slow / fast,
        10,
        "x",
        at_most=False,
    )


def _fill_rate():
    """Return the bytes a second at which a matrix of that size is written."""
    matrix = np.empty((1024, 1024))
    return matrix.nbytes / median_time(lambda: matrix.fill(1.0), 25)


FIRST_RUN = """
import dlnds as dl
net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
dl.flow(net, net.initial(scale=1e-2, rng=0))
"""

#: What a first trajectory cannot do without: a variable of xarray, and a compiled function.
FIRST_VARIABLE = """
import numba, xarray
xarray.Variable("t", [0.0])
import numba.core.registry as registry
registry.cpu_target.target_context.refresh()
"""


#: The same flow by diffrax, in a process that loads nothing of ours (`peers` would).
FIRST_SOLVE = """
import jax
jax.config.update("jax_enable_x64", True)
import diffrax
import jax.numpy as jnp
import numpy as np

target, start = jnp.diag(jnp.array([2.0, 1.0])), 1e-2 * np.random.default_rng(0).normal(size=12)

def field(t, x, _):
    first, second = x[:6].reshape(3, 2), x[6:].reshape(2, 3)
    signal = target - second @ first
    return jnp.concatenate([(second.T @ signal).ravel(), (signal @ first.T).ravel()])

@jax.jit
def solve(start):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Dopri8(), 0.0, 20.0, None, start,
        saveat=diffrax.SaveAt(ts=jnp.linspace(0.0, 20.0, 11)),
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-10),
        adjoint=diffrax.ForwardMode(), max_steps=None,
    ).ys

np.asarray(solve(start))
"""

#: A first run, after which the seconds of CPU in the compiler are printed, by function.
COUNTED = f"""
import collections, time
import numba.core.event as event
spent, open_ = collections.Counter(), []
class Listener(event.Listener):
    def on_start(self, e):
        open_.append([time.process_time(), 0.0])
    def on_end(self, e):
        begun, inner = open_.pop()
        whole = time.process_time() - begun
        function = e.data["dispatcher"].py_func
        spent[function.__module__.rpartition(".")[2] + "." + function.__qualname__] += whole - inner
        if open_:
            open_[-1][1] += whole
event.register("numba:compile", Listener())
{FIRST_RUN}
print(f"{{sum(spent.values()):.2f}} s in all, {{len(spent)}} functions")
for name, own in spent.most_common(15):
    print(f"{{own:5.2f}} s {{name}}")
"""


def compiled_functions():
    """Print what a first run compiles, each function without those that it calls."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        code = [sys.executable, "-c", COUNTED]
        run = subprocess.run(code, env=environment, check=True, capture_output=True, text=True)
    for line in run.stdout.splitlines():
        note(f"compiled for a first run: {line}")


def cold_cpu(code, repeats):
    """Return the median CPU seconds of fresh processes, each with an empty cache."""
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            times.append(cpu_of(["-c", code], cache, 1))
    return statistics.median(times)


def cold_and_warm():
    """Import, first trajectory, and main job, in fresh processes."""
    compiled_functions()
    cold = cold_cpu(FIRST_RUN, 3)
    note(f"first trajectory, empty cache: {cold:.1f} s of CPU")
    if available("diffrax", "diffrax", "jax"):
        ratio = cold / cold_cpu(FIRST_SOLVE, 3)
        report("first trajectory, empty cache, against diffrax", ratio, 2, "x", at_most=True)
    with tempfile.TemporaryDirectory() as cache:
        cpu_of(["-c", FIRST_RUN], cache, 1)
        imports, runs, variables = [], [], []
        for _ in range(9):
            whole = cpu_of(["-c", "import xarray"], cache, 1)
            imports.append(cpu_of(["-c", "import dlnds"], cache, 1) / whole)
            runs.append(cpu_of(["-c", FIRST_RUN], cache, 1) / whole)
            variables.append(cpu_of(["-c", FIRST_VARIABLE], cache, 1) / whole)
        ratio = statistics.median(imports)
        report("import dlnds against import xarray, CPU", ratio, 1.3, "x", at_most=True)
        ratio = statistics.median(runs)
        what = "first trajectory, filled cache, against import xarray, CPU"
        report(what, ratio, 2, "x", at_most=True)
        ratio = statistics.median(variables)
        note(f"a first variable of xarray, and Numba, alone: {ratio:.1f} x")
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm"):
            begin = time.perf_counter()
            cpu = cpu_of(["-m", "dlnds", "atlas", "--quiet"], cache, 1)
            wall = time.perf_counter() - begin
            note(f"main job, {name}: {cpu:.1f} s of CPU")
            if name == "cold":
                report("main job, cold cache, wall", wall, 15, "s", at_most=True)


if __name__ == "__main__":
    opening(__doc__)
    hessian_against_differences()
    cold_and_warm()
