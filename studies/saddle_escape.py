"""How long does a run rest at the saddle at the origin, and how does that depend on the start?
============================================================================================

**Question.** A run from weights of size ε rests near the origin until the strongest mode is learnt.
The leading law says for how long: ln(σ/p)/(2σ) for two layers, p = ε², and ε^{−(h−2)}/((h−2) σ)
for h ≥ 3. From which ε on is it right, against the exact law? And what of it is left for Gaussian
starts, which are neither aligned nor balanced?

**Theory.** Aligned balanced layers of size ε have p = ε^h in each mode, with ṗ = h p^{2−2/h}(σ −
p). The time from p to σ/2 is a hypergeometric function of both (the exact law); for small ε it
tends to ln(σ/p)/(2σ) or ε^{−(h−2)}/((h−2) σ) (the leading law). SMG14 solve h = 2, WA25 all depths.

**Method.** Targets diag(3, 2, 1), widths 3, h = 2, 3, 4, 5 layers, ε from 1e-1 to 1e-12. Aligned
starts have ε as all singular values, Gaussian ones are ε times one random state for each of several
seeds, and all are run to their limit. The escape time is that of the event that mode 0 has half its
strength. The slope is that of log T between neighbouring ε.

**What the figure shows.** Aligned starts follow the exact law to 1e-6 at all ε, over 35 orders of
magnitude of time, in steps like log 1/ε. The leading law is off by O(1) in T for h ≥ 3, which at
h = 3 is 6 % of T at ε = 1e-1 and 0.06 % at 1e-3, and by a part p/σ only for h = 2. Gaussian starts
have the same slopes −(h − 2), with a factor of their own: at the origin the flow is homogeneous, so
that T(cε) = c^{−(h−2)} T(ε), and the factor tells how well the random layers happen to work
together. It spreads more the deeper the network is.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl
from dlnds.theory.laws import growth_time

SIGMA, DEPTHS = (3.0, 2.0, 1.0), (2, 3, 4, 5)


def network(depth: int) -> dl.LinearNetwork:
    """Return the network of that depth."""
    return dl.LinearNetwork(widths=(len(SIGMA),) * (depth + 1), target=np.diag(SIGMA))


def escape(net: dl.LinearNetwork, start: np.ndarray) -> tuple[float, int]:
    """Return when mode 0 is learnt by half, and the steps of the whole run to its limit."""
    learnt = dl.events.mode_learnt(net, 0)
    run = dl.flow(net, start, rtol=1e-6, events=learnt, save=[], max_steps=5000)
    times = run["time"].values[run["event"].values == 0]
    return (float(times[0]) if times.size else np.nan), int(run.attrs["n_steps"])


def leading(depth: int, scale: np.ndarray) -> np.ndarray:
    """Return the leading law of the escape time."""
    if depth == 2:
        return np.log(SIGMA[0] / scale**2) / (2.0 * SIGMA[0])
    return scale ** (2.0 - depth) / ((depth - 2) * SIGMA[0])


def measure(scales: np.ndarray, seeds: int) -> xr.Dataset:
    """Return escape times and steps, integrated and by both laws."""
    names = ("aligned", "exact", "leading")
    times = {name: np.empty((len(DEPTHS), len(scales))) for name in names}
    gaussian = np.empty((len(DEPTHS), seeds, len(scales)))
    steps = np.empty((len(DEPTHS), len(scales)))
    for i, depth in enumerate(DEPTHS):
        net = network(depth)
        times["leading"][i] = leading(depth, scales)
        for k, scale in enumerate(scales):
            start = net.initial("aligned", scale=scale)
            times["aligned"][i, k], steps[i, k] = escape(net, start)
            p = float(scale) ** depth
            times["exact"][i, k] = growth_time(p, 0.5 * SIGMA[0], SIGMA[0], depth)
            for seed in range(seeds):
                unit = net.initial(scale=1.0, rng=seed)
                gaussian[i, seed, k] = escape(net, scale * unit)[0]
    variables = {name: (("depth", "scale"), values) for name, values in times.items()}
    variables["gaussian"] = (("depth", "seed", "scale"), gaussian)
    variables["n_steps"] = (("depth", "scale"), steps)
    return xr.Dataset(variables, coords={"depth": list(DEPTHS), "scale": scales})


def slopes(times: xr.DataArray) -> xr.DataArray:
    """Return d log T / d log ε between neighbouring ε, at the smaller one."""
    change = np.log(times).diff("scale")
    return change / np.log(times["scale"]).diff("scale")


def report(data: xr.Dataset) -> None:
    """Print errors of both laws, slopes, and steps."""
    print("depth  eps      T aligned     exact law    leading law   slope   Gaussian slope  steps")
    aligned, gaussian = slopes(data["aligned"]), slopes(data["gaussian"])
    for depth in DEPTHS:
        for scale in data["scale"].values:
            row = data.sel(depth=depth, scale=scale)
            exact, first = (float(row[name] / row["aligned"] - 1) for name in ("exact", "leading"))
            slope = [np.nan, np.nan]
            if scale in aligned["scale"]:
                slope[0] = float(aligned.sel(depth=depth, scale=scale))
                slope[1] = float(gaussian.sel(depth=depth, scale=scale).median())
            print(
                f"{depth:5d}  {scale:7.0e}  {float(row['aligned']):11.4e}  {exact:+11.1e}  "
                f"{first:+11.1e}  {slope[0]:6.3f}  {slope[1]:14.3f}  {int(row['n_steps']):5d}"
            )
    times = data["gaussian"].isel(scale=-1)
    spread = times.max("seed") / times.min("seed")
    texts = [f"h = {depth}: {float(spread.sel(depth=depth)):.3g}" for depth in DEPTHS]
    print("longest over shortest escape of the Gaussian starts:", ", ".join(texts))


def draw(data: xr.Dataset) -> plt.Figure:
    """Draw escape times with both laws, and the errors of the leading one."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    for i, depth in enumerate(DEPTHS):
        part, color = data.sel(depth=depth), f"C{i}"
        axes[0].loglog(part["scale"], part["exact"], color=color, label=f"h = {depth}, exact law")
        axes[0].loglog(part["scale"], part["aligned"], "o", color=color, ms=4)
        for times in part["gaussian"]:
            axes[0].loglog(part["scale"], times, "x", color=color, ms=4, alpha=0.6)
        error = np.abs(part["leading"] / part["exact"] - 1)
        axes[1].loglog(part["scale"], np.maximum(error, 1e-16), color=color, label=f"h = {depth}")
        error = np.abs(part["aligned"] / part["exact"] - 1)
        axes[1].loglog(part["scale"], np.maximum(error, 1e-16), "o", color=color, ms=4)
    axes[0].plot([], [], "ko", ms=4, label="aligned starts")
    axes[0].plot([], [], "kx", ms=4, label="Gaussian starts")
    axes[0].set(xlabel="ε", ylabel="escape time T", title="time until the first mode is learnt")
    title = "leading law (lines) and runs (dots)\nagainst the exact law"
    axes[1].set(xlabel="ε", ylabel="relative difference", title=title)
    for ax in axes:
        ax.legend(fontsize=8)
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer ε and seeds")
    parser.add_argument("--out", type=Path, default=Path("saddle_escape.png"))
    options = parser.parse_args()
    scales = 10.0 ** -np.arange(1.0, 13.0, 4.0 if options.quick else 1.0)
    data = measure(scales, seeds=2 if options.quick else 8)
    report(data)
    draw(data).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
