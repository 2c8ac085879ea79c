"""Do the layers of a deep linear network align before its loss moves?
===================================================================

**Question.** From a small random start the loss rests on a plateau, and then falls at once.
Atanasov, Bordelon and Pehlevan (ABP22) say that the plateau is not idle: the layers, and
with them the tangent kernel, turn to what is learnt next while nothing of it is seen in the loss,
and then only grow. How well are they aligned when the loss has fallen by 1 %, and how small has the
start to be for that?

**Method.** Target diag(3, 2, 1), widths 3, 5, …, 5, 3, h = 2, 3, 4 layers; Gaussian starts, ε times
one random state for each of several seeds. Events of the run find when the loss has fallen by 1 %
of what it is at the start, and by half of what the first mode is worth. Observed are
``alignment``, the overlaps of the singular vectors of mode 0 on both sides of each level of units,
with those of the target at the two ends, and how far the tangent kernel turned.

**Theory.** Near the origin the flow is homogeneous, and its direction tends to the
ray along which mode 0 is learnt. While the weights grow to the size r, what is off that ray falls
like r^{-(1 − σ_q/σ_0)} in mode q, and like r^{-2} in what neighbouring layers do not share, at any
depth. When the loss has fallen by 1 %, r is what it takes for that, whatever ε is. So the overlaps
at the two ends are off 1 by a part like ε^{2(1 − σ_1/σ_0)} = ε^{2/3}, those between layers by
one like ε^4.

**What the figure shows.** Upper row: overlaps at the input side, and the loss behind them, from
ε = 1e-3. Each mode is aligned when the loss falls by it. Lower left: the part by which the smallest
overlap of mode 0 misses 1 when the loss has fallen by 1 % (dots: medians, bands: quartiles of the
seeds), beside lines of slope 2/3: it is below 0.02 at ε = 1e-3 at all depths, and depth does not
change the exponent. From ε = 0.15 on nothing is silent: the loss moves first, as W(0) is unlearnt.
Lower middle: small starts turn the kernel before (full lines), and what is left of turning when
the loss falls (dashed), until half of the first step, goes like ε^{2/3}, too. Lower right: when all
overlaps of mode 0 are above 0.9, in terms of the time until 1 %. With two layers that tends to
zero, like 1/ln(1/ε), since alignment takes a fixed time; with more all times here are multiples of
ε^{-(h−2)}, and most of the plateau, nine tenths and more, is needed for it.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

SIGMA, DEPTHS, HIDDEN = (3.0, 2.0, 1.0), (2, 3, 4), 5
#: Parts of the loss at the start, and of what mode 0 is worth, by which the loss falls.
MOVED, HALF = 0.01, 0.5
ALIGNED = 0.9
#: The seed of the runs that are drawn.
SHOWN = 2
SLOPE = 2.0 * (1.0 - SIGMA[1] / SIGMA[0])
#: What is measured of a run, and its name.
MEASURED = ("miss", "inner_miss", "turned_before", "turned_after", "aligned_at")


def network(depth: int) -> dl.LinearNetwork:
    """Return the network of that depth."""
    d = len(SIGMA)
    return dl.LinearNetwork(widths=(d, *(HIDDEN,) * (depth - 1), d), target=np.diag(SIGMA))


def first_step(net: dl.LinearNetwork, start: np.ndarray) -> tuple[xr.Dataset, list[int]]:
    """Return a run until mode 0 is half learnt, and its rows: the start, 1 %, and the end."""
    loss = net.loss(start)
    moved = dl.events.loss_below(net, (1.0 - MOVED) * loss)
    half = dl.events.loss_below(net, loss - HALF * 0.5 * SIGMA[0] ** 2, terminal=True)
    run = dl.flow(net, start, events=[moved, half])
    happened = [int(np.flatnonzero(run.event.values == number)[0]) for number in (0, 1)]
    return run, [0, *happened]


def measure(net: dl.LinearNetwork, start: np.ndarray) -> tuple[float, ...]:
    """Return what is `MEASURED` of a run."""
    run, (begin, moved, end) = first_step(net, start)
    overlaps = dl.observe(net, run, ["alignment"]).alignment.values[:, :, 0]
    turned = [
        float(dl.observe(net, run.isel(time=rows), ["ntk_distance"]).ntk_distance[-1])
        for rows in ([begin, moved], [moved, end])
    ]
    reached = np.flatnonzero(overlaps.min(axis=1) > ALIGNED)
    times = run.time.values
    when = times[reached[0]] / times[moved] if reached.size else np.inf
    miss = 1.0 - overlaps[moved]
    return float(miss.max()), float(miss[1:-1].max()), *turned, float(when)


def table(scales: np.ndarray, seeds: int) -> xr.Dataset:
    """Return all that is measured, for each depth, size of the start, and seed."""
    values = np.empty((len(MEASURED), len(DEPTHS), len(scales), seeds))
    for i, depth in enumerate(DEPTHS):
        net = network(depth)
        for k, scale in enumerate(scales):
            for seed in range(seeds):
                unit = net.initial(scale=1.0, rng=seed)
                values[:, i, k, seed] = measure(net, float(scale) * unit)
    dims = ("depth", "scale", "seed")
    columns = {name: (dims, part) for name, part in zip(MEASURED, values, strict=True)}
    return xr.Dataset(columns, coords={"depth": list(DEPTHS), "scale": scales})


def report(data: xr.Dataset) -> None:
    """Print medians over the seeds, and slopes between neighbouring sizes of the start."""
    print("medians: 1 − overlap of mode 0 when the loss has fallen by 1 %, and what turns")
    columns = "slope  between layers  slope  kernel before  after    aligned at"
    print(f"depth  eps      1 − smallest  {columns}")
    middle = data.median("seed")
    steps = np.log(middle["scale"]).diff("scale")
    slopes = {name: np.log(middle[name]).diff("scale") / steps for name in MEASURED[:2]}
    for depth in DEPTHS:
        for scale in data["scale"].values:
            row = middle.sel(depth=depth, scale=scale)
            own = [
                float(slope.sel(depth=depth, scale=scale)) if scale in slope["scale"] else np.nan
                for slope in slopes.values()
            ]
            print(
                f"{depth:5d}  {scale:7.1e}  {float(row['miss']):12.3e}  {own[0]:5.2f}  "
                f"{float(row['inner_miss']):14.2e}  {own[1]:5.2f}  "
                f"{float(row['turned_before']):13.3f}  {float(row['turned_after']):.5f}  "
                f"{float(row['aligned_at']):10.3f}"
            )


def draw_run(ax: plt.Axes, depth: int, scale: float) -> None:
    """Draw overlaps with the target at the inputs until all is learnt."""
    net = network(depth)
    run = dl.observe(net, dl.flow(net, scale * net.initial(scale=1.0, rng=SHOWN)), ["alignment"])
    learnt = run.time.values[run.loss.values > 1e-3 * run.loss.values[0]]
    dl.plot.alignment(run, level=0, ax=ax)
    ax.set_xlim(-0.03 * learnt[-1], 1.1 * learnt[-1])
    ax.text(0.97, 0.5, f"h = {depth}, ε = {scale:g}", transform=ax.transAxes, ha="right")


def draw_medians(axes: np.ndarray, data: xr.Dataset) -> None:
    """Draw what is measured over the size of the start."""
    scales = data["scale"].values
    for number, depth in enumerate(DEPTHS):
        part, color = data.sel(depth=depth), f"C{number}"
        low, middle, high = (part["miss"].quantile(q, "seed") for q in (0.25, 0.5, 0.75))
        axes[0].fill_between(scales, low, high, color=color, alpha=0.2, linewidth=0)
        axes[0].loglog(scales, middle, "o", color=color, ms=4, label=f"h = {depth}")
        last = float(middle[np.argmin(scales)])
        axes[0].loglog(scales, last * (scales / scales.min()) ** SLOPE, color=color, linewidth=0.8)
        for name, style in (("turned_before", "o-"), ("turned_after", "o--")):
            label = f"h = {depth}" if style == "o-" else None
            axes[1].loglog(scales, part[name].median("seed"), style, color=color, ms=3, label=label)
        when = part["aligned_at"].median("seed")
        axes[2].semilogx(scales, when, "o-", color=color, ms=4, label=f"h = {depth}")
    axes[0].set(ylim=(None, 1.5), title=f"overlaps when the loss has fallen by {MOVED:.0%}")
    axes[0].set_ylabel("1 − smallest overlap of mode 0")
    axes[1].plot([], [], "k--", label="from there to half of the first step")
    axes[1].plot([], [], "k-", label=f"until the loss has fallen by {MOVED:.0%}")
    axes[1].set(title="the kernel turns, then grows", ylabel="distance $1-\\cos$ that it turns")
    axes[2].set(ylabel=f"time / time until the loss has fallen by {MOVED:.0%}", ylim=(0, 2))
    axes[2].set_title(f"when all overlaps of mode 0 are above {ALIGNED}")
    for ax in axes:
        ax.set_xlabel("size of the start ε")
        ax.legend(fontsize=8)


def main() -> None:
    """Run the study and write its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer ε and seeds")
    parser.add_argument("--out", type=Path, default=Path("silent_alignment.png"))
    options = parser.parse_args()
    scales = np.geomspace(0.3, 1e-4, 3 if options.quick else 13)
    data = table(scales, seeds=2 if options.quick else 24)
    report(data)
    figure, axes = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
    for ax, depth in zip(axes[0], DEPTHS, strict=True):
        draw_run(ax, depth, 1e-3)
    draw_medians(axes[1], data)
    figure.savefig(options.out, dpi=110)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
