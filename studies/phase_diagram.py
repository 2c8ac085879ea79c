"""How long does a deep linear network rest at its start, and what has it learnt when time is up?
==============================================================================================

**Question.** Weights that start small rest near the origin before anything is learnt, for a time
that grows with depth and shrinks with the initial scale. Given a budget of training time, which
initial scales let a network of given depth learn one, two, or all modes?

**Theory.** While a mode of size s is small, balanced aligned layers grow as ds/dt = σ s^{h−1}. So s
explodes at the time s_0^{−(h−2)}/((h−2) σ): a logarithm of the start at depth 2, a power of it at
greater depth. The flow at the origin is homogeneous of degree h − 1; Gaussian starts obey the same
power with a factor of their own (KH25).

**Method.** Networks of width 3 and depth 2 to 6 with the singular values 3, 2, 1 are trained by
gradient flow from Gaussian starts of standard deviation ε, 10 for each depth and scale: 2,050 runs,
by `dlnds.sweep`, which keeps each in a file and goes on where it was stopped. The plateau ends when
the first mode reaches half of its singular value; the final rank is the number of modes that have
done so by t = 1000. The law is that of one mode in aligned layers of size s, ds/dt = σ s^{h−1}
while s is small, from s = ε√3 (the size of a layer's column) to σ^{1/h}:
t = (s^{−(h−2)} − σ^{−(h−2)/h}) / ((h−2) σ), and ln(√σ/s)/σ for h = 2. Nothing is fitted.

**What the figure shows.** Left: the median plateau, over ten orders of magnitude, with the law's
contours. A start ten times smaller costs a summand at depth 2, a factor 10 at depth 3 and 10^{h−2}
at depth h. Random layers are not aligned: from scales below 0.1 runs take 1.1 to 1.9 times as long
as the law says, about the same at all scales of a depth, as the numbers printed tell. Right: the
mean rank at t = 1000, with the curves on which the law lets each mode be learnt just in time. The
first mode follows its curve, later ones come later than theirs, the more so the deeper the network
is: the small singular values of a product of random matrices are smaller than its largest.
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.patheffects import withStroke

import dlnds as dl

SIGMA = (3.0, 2.0, 1.0)
BUDGET = 1000.0


def learn(depth: int, scale: float, sample: int, rng: np.random.Generator) -> xr.Dataset:
    """Return plateau, final rank and number of steps of one run; ``sample`` only numbers it."""
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag(SIGMA))
    start = net.initial("gaussian", scale=scale, rng=rng)
    run = dl.flow(net, start, save=["mode_strength"])
    learnt = run["mode_strength"].values > 0.5 * np.array(SIGMA)
    if not learnt[:, 0].any():
        raise dl.ConvergenceError(f"ends {dl.schema.decode(run['stop_reason']).item()}")
    last = np.searchsorted(run["time"].values, BUDGET, side="right") - 1
    return xr.Dataset(
        {
            "plateau": run["time"].values[learnt[:, 0].argmax()],
            "rank": int(learnt[last].sum()),
            "n_steps": run.attrs["n_steps"],
        }
    )


def law(scale: np.ndarray, depth: np.ndarray, sigma: float) -> np.ndarray:
    """Return the time in which a mode of aligned layers grows to its full size."""
    power, size = depth - 2.0, scale * np.sqrt(3.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        deep = (size**-power - sigma ** (-power / depth)) / (power * sigma)
    return np.where(np.abs(power) < 1e-6, np.log(np.sqrt(sigma) / size) / sigma, deep)


def report(found: xr.Dataset) -> None:
    """Print plateaus beside the law, and ranks, at a few scales of each depth."""
    states = dl.schema.decode(found["status"]).values
    print(f"{states.size} runs, {np.sum(states != 'finished')} of them failed")
    print("depth  scale    plateau (quartiles)             law     ratio   mean rank at t = 1000")
    for depth in found["depth"].values:
        for scale in found["scale"].values[:: max(1, found.sizes["scale"] // 4)]:
            part = found.sel(depth=depth, scale=scale)
            low, middle, high = np.nanquantile(part["plateau"], [0.25, 0.5, 0.75])
            time = float(law(scale, float(depth), SIGMA[0]))
            print(
                f"{depth:5d}  {scale:.1e}  {middle:9.3g} ({low:9.3g} to {high:9.3g})"
                f"  {time:9.3g}  {middle / time:6.2f}   {float(part['rank'].mean()):.1f}"
            )


def draw(found: xr.Dataset) -> plt.Figure:
    """Draw plateaus and ranks over scale and depth, with the contours of the law."""
    figure, axes = plt.subplots(1, 2, figsize=(14, 5.2), layout="constrained")
    scale, depth = found["scale"].values, found["depth"].values
    words = {"long_name": "median plateau, time", "symbol": "$t$"}
    plateau = found["plateau"].median("sample").clip(min=0.1).assign_attrs(words)
    rank = found["rank"].mean("sample").assign_attrs(long_name="mean number of modes learnt")
    typical = found.assign(plateau=plateau, rank=rank.assign_attrs(symbol=""))
    for ax, value in zip(axes, ("plateau", "rank"), strict=True):
        dl.plot.heatmap(typical, value=value, x="scale", ax=ax)
        ax.set(xlabel=r"initial scale $\epsilon$", ylabel="depth $h$")
    fine = np.geomspace(scale[0], scale[-1], 200), np.linspace(depth[0] - 0.5, depth[-1] + 0.5, 200)
    X, H = np.meshgrid(*fine)
    levels = 10.0 ** np.arange(0, 10, 2)
    lines = axes[0].contour(X, H, law(X, H, SIGMA[0]), levels, colors="white", linewidths=1.5)
    at_six = np.interp(-np.log(levels), -np.log(law(fine[0], np.array(6.0), SIGMA[0])), fine[0])
    labels = axes[0].clabel(
        lines,
        fmt=lambda t: f"$10^{{{np.log10(t):.0f}}}$",
        fontsize=11,
        manual=[(scale, 6.0) for scale in at_six],
    )
    for label in labels:
        label.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
    axes[0].set_title("time until the first mode is learnt; white: law")
    for number, (sigma, colour) in enumerate(
        zip(SIGMA, ("#d73027", "#f46d43", "#542788"), strict=True)
    ):
        lines = axes[1].contour(X, H, law(X, H, sigma), [BUDGET], colors=colour, linewidths=2.0)
        label = rf"law: mode {number}, $\sigma = {sigma:g}$"
        axes[1].plot([], [], color=colour, linewidth=2.0, label=label)
    axes[1].set_title(f"modes learnt by $t = {BUDGET:g}$")
    axes[1].legend(fontsize=9, loc="upper left")
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="40 runs")
    parser.add_argument("--out", type=Path, default=Path("phase_diagram.png"))
    parser.add_argument("--runs", type=Path, help="folder of the sweep, to go on with it later")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    scales, samples = (4, 2) if options.quick else (41, 10)
    grid = {
        "depth": np.arange(2, 7),
        "scale": np.geomspace(1e-3, 0.5, scales),
        "sample": np.arange(samples),
    }
    with tempfile.TemporaryDirectory() as temporary:
        found = dl.sweep(
            learn,
            grid,
            options.runs or temporary,
            workers=1 if options.quick else options.workers,
            rng=0,
            progress=True,
        )
    report(found)
    draw(found).savefig(options.out, dpi=150)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
