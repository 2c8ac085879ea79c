"""Where do networks of rectified powers go from the origin, and what stays zero on the way?
=========================================================================================

**Question.** From small weights a homogeneous network first turns to a KKT point of its neural
correlation function, then follows one limiting path p(t) to a first saddle. How exact is this: how
do runs from δu, and from random starts of size δ, converge to p(t)? Which hidden units stay zero,
and what comes after the first saddle?

**Theory.** Near the origin the network's output is homogeneous of degree L in the weights, so the
flow is that of the neural correlation function N(w): directions move by the gradient of N on the
sphere, and sizes as ṙ = λ r^{L−1}, with λ = L N(u) at a KKT point u. All starts near u follow one
path p(t), the limit of runs from δu as δ → 0 (KH25).

**Method.** Square and cubic rectified units, max(z, 0)^p: two layers on synthetic data (degrees
L = 3 and 4) and on the diabetes data (L = 3), three layers on synthetic data (L = 7). The best
direction out of many ascents, p(t) with its next-order entry, the chain of saddles that the fastest
directions make. Runs ψ started on the ray at δu are compared with p(t) at the time t + T_δ; random
starts are led to the KKT point that they turn to, and their runs compared with its path after both
are aligned at a norm. Escape exponents are slopes of log T between neighbouring δ.

**What the figure shows.** Each path learns with one unit in each hidden layer; all other units stay
exactly zero, along the path and at the first saddle, and the next saddles add one unit each. On the
ray the distance to p(t) falls like δ², for every degree L: it comes from the clock, since
ṙ = λr^{L−1}(1 + κr^L) makes an error of κδ²/(2λ) in time. Escape times from random starts have
exponents that tend to −(L−2). Aligned at a norm, runs from random starts come to the path like
δ^{Δ/λ}, Δ the second-order positivity, for L = 3 and 4. At L = 7, where Δ is small and only one
size is run, half of the path's length is left between them; the first step of the loss is met all
the same.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl


def synthetic(widths: tuple[int, ...], power: int) -> dl.HomogeneousNetwork:
    """Return a network on 30 random inputs, with outputs of three rectified squares."""
    X = np.random.default_rng(0).normal(size=(4, 30))
    y = np.maximum(X[0], 0) ** 2 - np.maximum(X[1] + X[2], 0) ** 2 + 0.3 * X[3] ** 2
    return dl.HomogeneousNetwork(widths, X, y, power=power)


def diabetes(samples: int) -> dl.HomogeneousNetwork:
    """Return a network from four to six columns of the diabetes data, all standardized."""
    data = dl.read_csv("diabetes", transform="standardize")
    X, Y = data.X.isel(sample=slice(samples)), data.Y.isel(sample=slice(samples))
    return dl.HomogeneousNetwork((len(X), 8, len(Y)), X, Y, power=2)


def cases(quick: bool) -> dict[str, dl.HomogeneousNetwork]:
    """Return the networks by name."""
    return {
        "two layers, squares": synthetic((4, 6, 1), 2),
        "two layers, cubes": synthetic((4, 6, 1), 3),
        "three layers, squares": synthetic((4, 5, 5, 1), 2),
        "diabetes, squares": diabetes(100 if quick else 442),
    }


def on_the_ray(net: dl.HomogeneousNetwork, first: xr.Dataset, sizes: np.ndarray) -> np.ndarray:
    """Return the distances of runs from δu from the path, at four times after T_δ."""
    path = dl.escape_path(net, first)
    level = 0.5 * float(path.loss[0] + path.limit_loss)
    middle = float(path.time[np.argmin(np.abs(path.loss.values - level))])
    grid = middle + np.linspace(-0.5, 1.0, 4)
    states = dl.escape_path(net, first, t_eval=grid).state.values[:4]
    distances = []
    for size in sizes:
        late = float(dl.escape_time(net, first, size))
        start = size * first.state.values
        run = dl.flow(net, start, (-late, grid[-1]), grid, rtol=1e-12)
        distances.append(np.linalg.norm(run.state.values[:4] - states, axis=1).max())
    return np.array(distances)


def crossing(net: dl.HomogeneousNetwork, start: np.ndarray, norm: float) -> xr.Dataset:
    """Return the run from a start until it has a norm."""

    def reached(t: float, x: np.ndarray) -> float:
        return float(np.linalg.norm(x)) - norm

    reached.terminal = True
    return dl.flow(net, start, events=reached, rtol=1e-10, save=["state", "unit_size"])


def escape_times(net: dl.HomogeneousNetwork, norm: float, sizes: np.ndarray) -> np.ndarray:
    """Return when runs from a random start of each size reach a norm."""
    unit = net.initial(scale=1.0, rng=4)
    unit /= np.linalg.norm(unit)
    return np.array([float(crossing(net, d * unit, norm).time[-1]) for d in sizes])


def around(net: dl.HomogeneousNetwork, start: np.ndarray, norm: float) -> xr.Dataset:
    """Return loss and sizes of units of a run, its time measured from when it has a norm."""
    before = crossing(net, start, norm)
    after = dl.flow(net, before.state.values[-1], (0.0, 6.0), save=["unit_size"])
    before = before.assign_coords(time=before.time - before.time[-1])
    names = ["loss", "unit_size"]
    return xr.concat([before[names].isel(time=slice(-1)), after[names]], "time")


def followed(net: dl.HomogeneousNetwork, size: float) -> tuple[xr.Dataset, ...]:
    """Return a run from a random start and the path of the KKT point that it turns to, aligned.

    And how far they are apart, and which units the path uses.
    """
    start = net.initial(scale=1.0, rng=4)
    start *= size / np.linalg.norm(start)
    first = dl.escape_directions(net, starts=start[None]).isel(direction=0)
    path = dl.escape_path(net, first)
    norm = 0.6 * float(np.linalg.norm(path.limit_state))
    t = np.linspace(0.0, 6.0, 61)
    compared = dl.compare_with_path(net, path, start, norm=norm, t_eval=t)
    limit = float(np.linalg.norm(path.limit_state))
    compared = compared.assign(
        apart=compared.distance.max() / limit, law=size ** (first.positivity / first.multiplier)
    )
    runs = (around(net, x, norm) for x in (start, path.state.values[0]))
    return (*runs, compared, path)


def measure(quick: bool) -> dict[str, dict[str, object]]:
    """Return all figures, by the name of the network."""
    found: dict[str, dict[str, object]] = {}
    for name, net in cases(quick).items():
        directions = dl.escape_directions(net, n_starts=50 if quick else 500)
        first = directions.isel(direction=0)
        path = dl.escape_path(net, first)
        high = {3: -1.0, 4: -0.8, 7: -0.4}[net.degree]
        low = {3: -3.0, 4: -2.0, 7: -0.9}[net.degree]
        sizes = np.logspace(high, low, 4 if quick else 9)
        times = np.logspace(high - 0.5, low - 0.5, 4 if quick else 9)
        norm = 0.3 * float(np.linalg.norm(path.limit_state))
        found[name] = {
            "net": net,
            "directions": directions,
            "path": path,
            "kept": dl.zero_preserving(net, path.limit_state),
            "chain": dl.escape_chain(net, n_starts=20, max_paths=2 if quick else 4),
            "sizes": sizes,
            "ray": on_the_ray(net, first, sizes),
            "random_sizes": times,
            "escape": escape_times(net, norm, times),
        }
    return found


def slopes(sizes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return d log value / d log δ between neighbours."""
    return np.diff(np.log(values)) / np.diff(np.log(sizes))


def report(found: dict[str, dict[str, object]]) -> None:
    """Print directions, first saddles, slopes and chains."""
    for name, part in found.items():
        net, path, chain, kkt = (part[k] for k in ("net", "path", "chain", "directions"))
        print(f"{name}: {net.dim} weights, degree {net.degree}")
        values = ", ".join(f"{v:.4g}" for v in kkt.value.values[:6])
        print(f"  {kkt.sizes['direction']} KKT points, N = {values}")
        print(
            f"  largest residual {float(kkt.residual.max()):.1e}, Δ of the first "
            f"{float(kkt.positivity[0]):.3g}, imbalance {float(kkt.imbalance.max()):.1e}"
        )
        kind = dl.schema.decode(path.limit_kind).item()
        active = int(path.limit_active.sum())
        print(f"  first {kind}: loss {float(path.loss[0]):.4g} -> {float(path.limit_loss):.4g}, "
              f"gradient {float(path.limit_residual):.1e}, {active} of "
              f"{path.sizes['unit']} units active")  # fmt: skip
        spare = path.unit_size.values[:, path.limit_active.values == 0]
        print(
            f"  largest weight of a zero unit along the path: {spare.max(initial=0.0):.1e}; "
            f"forces on them, checked at random states: {float(part['kept'].residual):.1e}"
        )
        print(f"  slope on the ray {slopes(part['sizes'], part['ray']).round(3).tolist()}")
        exponent = slopes(part["random_sizes"], part["escape"])
        print(f"  escape exponents {exponent.round(4).tolist()}, by theory {2 - net.degree}")
        print(f"  chain: losses {chain.loss.values.round(5).tolist()}, active units "
              f"{chain.n_active.values.tolist()}")  # fmt: skip


def draw(
    found: dict[str, dict[str, object]], runs: dict[str, tuple[xr.Dataset, ...]]
) -> plt.Figure:
    """Draw runs beside paths, the sizes of units, and both kinds of convergence."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), constrained_layout=True)
    losses, units, ray, escape = axes.ravel()
    for i, (name, (run, path, compared, _)) in enumerate(runs.items()):
        label = f"{name} (apart {float(compared.apart):.0e})"
        losses.plot(path.time, path.loss, color=f"C{i}", lw=4, alpha=0.35)
        losses.plot(run.time, run.loss, color=f"C{i}", lw=1, label=label)
    losses.set(xlim=(-6, 6), xlabel="time since the crossing of a norm", ylabel="loss",
               title="runs from random starts (thin) and limiting paths (wide)")  # fmt: skip
    run, path, _, limit = runs["two layers, squares"]
    for k, active in enumerate(limit.limit_active.values):
        color = "C3" if active else "0.5"
        units.semilogy(run.time, run.unit_size[:, k], color=color, lw=1)
        if active:
            units.semilogy(path.time, path.unit_size[:, k], color=color, lw=4, alpha=0.3)
    units.plot([], [], "C3", label="the unit that the path learns with")
    units.plot([], [], "0.5", label="units that are zero along the path")
    units.set(xlim=(-6, 6), ylim=(1e-4, 4), xlabel="time since the crossing of a norm")
    units.set(ylabel="norm of the unit's weights", title="two layers, squares: hidden units")
    for i, (name, part) in enumerate(found.items()):
        ray.loglog(part["sizes"], part["ray"], "o-", color=f"C{i}", ms=4, label=name)
        label = f"exponent {slopes(part['random_sizes'], part['escape'])[-1]:.3f}"
        escape.loglog(part["random_sizes"], part["escape"], "o-", color=f"C{i}", ms=4, label=label)
    guide = np.array([3e-3, 3e-1])
    ray.loglog(guide, 0.1 * guide**2, "k--", lw=1, label="slope 2")
    ray.set(xlabel="δ", ylabel="largest distance", title="ψ(t + T_δ, δu) from p(t), on the ray")
    escape.set(xlabel="δ", ylabel="time", title="escape times from a random start of size δ")
    for ax in axes.ravel():
        ax.legend(fontsize=8, loc="lower left" if ax is losses else "upper left")
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and starts")
    parser.add_argument("--out", type=Path, default=Path("beyond_the_origin.png"))
    options = parser.parse_args()
    found = measure(options.quick)
    report(found)
    sizes = {3: 1e-3, 4: 1e-3, 7: 0.02}
    runs = {name: followed(part["net"], sizes[part["net"].degree]) for name, part in found.items()}
    for name, (_, _, compared, _) in runs.items():
        print(
            f"{name}: the run from a random start is {float(compared.apart):.1e} of ‖p*‖ from its "
            f"path, where δ^(Δ/λ) = {float(compared.law):.1e}"
        )
    draw(found, runs).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
