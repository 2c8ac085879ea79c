"""Figures of the product flow: its cost beside that of the layers, and of Pymanopt's steps.

Run by ``nox -s bench``; ``--quick`` takes a smaller map. A 256 × 256 target with a spectrum that
decays, W of rank 8, networks of three layers of width 256.
"""

import argparse
import tempfile

import numpy as np
from common import alternate, available, cpu_of, note, opening, report
from threadpoolctl import threadpool_limits

import dlnds as dl
from dlnds._kernels import jit

RANK, DEPTH, HORIZON = 8, 3, 2.0


def problem(width):
    """Return the flow of maps of that size, and a start."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(width, width)))[0] for _ in range(2))
    sigma = 4.0 * 0.9 ** np.arange(width)
    net = dl.LinearNetwork(widths=(width,) * (DEPTH + 1), target=(U * sigma) @ V.T)
    prod = dl.ProductFlow(net, rank=RANK)
    first, last = (np.linalg.qr(rng.normal(size=(width, RANK)))[0] for _ in range(2))
    return prod, prod.pack((first, last))


def evaluation(system, x, count):
    """Return a job of so many evaluations of a field."""
    field, params, out = jit.ready(system.field, jit.FIELD), system.params, np.empty(system.dim)

    def job():
        for _ in range(count):
            field(0.0, x, params, out)

    return job


@threadpool_limits.wrap(limits=1, user_api="blas")
def per_evaluation(prod, x):
    """Time of the field, in factors and in layers."""
    above, below = evaluation(prod, x, 40), evaluation(prod.network, prod.lift(x), 4)
    times = alternate({"factors": above, "layers": below}, 9)
    fast, slow = times["factors"] / 40.0, times["layers"] / 4.0
    note(f"field: {1e3 * fast:.3f} ms in factors, {1e3 * slow:.2f} ms in layers")
    report("field in factors against layers", slow / fast, 5, "x", at_most=False)


@threadpool_limits.wrap(limits=1, user_api="blas")
def per_step(prod, x):
    """Time of an accepted step of a run, in factors and in layers, to the same end."""
    grid, steps, ends = [HORIZON], {}, {}

    def job(name, system, start):
        def run():
            done = dl.flow(system, start, (0.0, HORIZON), grid, rtol=1e-6, save=("product",))
            steps[name], ends[name] = done.attrs["n_steps"], done["product"].values[-1]

        return run

    jobs = {"factors": job("factors", prod, x), "layers": job("layers", prod.network, prod.lift(x))}
    for run in jobs.values():
        run()
    times = alternate(jobs, 3)
    costs = {name: times[name] / steps[name] for name in jobs}
    error = np.linalg.norm(ends["factors"] - ends["layers"]) / np.linalg.norm(ends["layers"])
    for name in jobs:
        note(
            f"run in {name}: {steps[name]} steps, {times[name]:.2f} s, "
            f"{1e3 * costs[name]:.1f} ms a step"
        )
    note(f"the maps at the end agree to {error:.0e}")
    ratio = costs["layers"] / costs["factors"]
    report("accepted step in factors against layers", ratio, 5, "x", at_most=False)


@threadpool_limits.wrap(limits=1, user_api="blas")
def beside_pymanopt(prod, x):
    """Time to the best map of the rank, for our run and for Pymanopt's conjugate gradients."""
    if not available("Pymanopt", "pymanopt"):
        return
    import pymanopt

    outputs, inputs = prod.network.target.shape
    manifold = pymanopt.manifolds.FixedRankEmbedded(outputs, inputs, RANK)
    target, point_type = prod.network.target, type(manifold.random_point())

    @pymanopt.function.numpy(manifold)
    def cost(u, s, vt):
        return 0.5 * np.sum(((u * s) @ vt - target) ** 2)

    @pymanopt.function.numpy(manifold)
    def slopes(u, s, vt):
        G = (u * s) @ vt - target
        back = G @ vt.T
        return back * s, np.diagonal(u.T @ back), s[:, None] * (u.T @ G)

    A, B = prod.unpack(x)
    U, s, Vt = np.linalg.svd(A @ B.T, full_matrices=False)
    begin = point_type(U[:, :RANK], s[:RANK] * (1.0 + 1e-3 * np.arange(RANK)[::-1]), Vt[:RANK])
    task = pymanopt.Problem(manifold, cost, euclidean_gradient=slopes)
    found = {}

    def theirs():
        optimizer = pymanopt.optimizers.ConjugateGradient(
            verbosity=0, min_gradient_norm=1e-6, max_iterations=2000
        )
        result = optimizer.run(task, initial_point=begin)
        found["Pymanopt"] = result.cost, result.iterations

    def ours():
        run = dl.flow(prod, x, rtol=1e-6, save=())
        found["flow"] = float(run.loss[-1]), run.attrs["n_steps"]

    ours()
    theirs()
    times = alternate({"flow": ours, "Pymanopt": theirs}, 3)
    best = prod.lowest_loss
    for name, (loss, steps) in found.items():
        note(
            f"{name}, to the best map: {times[name]:.2f} s, {steps} steps, "
            f"{1e3 * times[name] / steps:.2f} ms a step, excess {(loss - best) / best:.0e}"
        )


NETWORK_RUN = """
import numpy as np, dlnds as dl
net = dl.LinearNetwork((8, 8, 8, 8), target=np.diag(np.arange(8.0, 0.0, -1.0)))
dl.flow(net, net.initial(scale=0.5, rng=0), t_span=(0, 1))
"""
FIRST_RUN = """
import numpy as np, dlnds as dl
net = dl.LinearNetwork((8, 8, 8, 8), target=np.diag(np.arange(8.0, 0.0, -1.0)))
prod = dl.ProductFlow(net, rank=3)
dl.flow(prod, prod.initial(scale=0.5, rng=0), t_span=(0, 1))
"""


def cold_and_warm():
    """CPU time of a first run in a fresh process: kernels are compiled when they are first used."""
    times = {}
    for name, code in (("network", NETWORK_RUN), ("factors", FIRST_RUN)):
        with tempfile.TemporaryDirectory() as cache:
            times[name] = cpu_of(["-c", code], cache, 1), cpu_of(["-c", code], cache, 5)
    for name, (cold, warm) in times.items():
        note(f"first run, {name}: {cold:.1f} s of CPU cold, {warm:.2f} s warm")
    for number, word in enumerate(("cold", "warm")):
        ratio = times["factors"][number] / times["network"][number]
        report(f"first run in factors against a network's, {word}", ratio, 1.3, "x", at_most=True)
    with tempfile.TemporaryDirectory() as cache:
        plain = cpu_of(["-c", "import dlnds as dl; dl.ProductFlow"], cache, 3)
        note(f"the class alone, nothing compiled: {plain:.2f} s of CPU")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="maps of 64 x 64")
    options = parser.parse_args()
    opening(__doc__)
    prod, x = problem(64 if options.quick else 256)
    per_evaluation(prod, x)
    per_step(prod, x)
    beside_pymanopt(prod, x)
    cold_and_warm()
