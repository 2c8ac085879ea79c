"""What does the loss do along every arc that leaves a saddle?
===========================================================

**Question.** WA25 (their Fig. 4) list the curves A(α) from a critical point along which the loss is
known: along the fiber, with some or all layers of an unlearnt channel, across two unlearnt modes,
with a learnt mode scaled, or turned to another. They start at the canonical point. Do the formulas
hold at any point of the fiber, which cases fall, rise or rest, to which order, and where do they
end?

**Theory.** At the canonical point A_S each layer is diagonal, with s_j = σ_j^{1/h} for the modes j
in S. Moving one entry, scaling one mode, or turning one singular vector changes the loss by a
polynomial of α. What needs a new channel through all h layers starts with α^h; what uses a channel
that is there starts with α². WA25 give each polynomial.

**Method.** σ = 1.5, 1.1, 0.6, 0 and the index set S = {1}: one learnt mode, a stronger and a weaker
one not learnt, for 2, 3 and 4 layers with hidden width 7. The point is a random one of the fiber,
with Z blocks beside the learnt mode and random bases of all hidden layers; `critical_arcs` lays
each arc there and samples the loss of the real weights.

**What the figure shows.** Top: the loss along all arcs. It falls in three cases only: along a
channel whose layers have a product of positive sign, and with the learnt mode turned to a stronger
one, either with all that Σ maps to it or with its strength kept, which ends at no critical point.
The same channel with one sign changed, or across two modes, a scaled mode, and a turn to a weaker
mode make it rise; without one of the layers, and along fiber and orbit, it rests. Below: the change
of the loss along one arc of each case, formulas as lines and weights as dots. Turning and scaling
are of order 2 at any depth, what needs a new channel of order h, across two modes 2 h: the deeper
the network, the flatter the saddle where something new must be learnt. Formulas and weights agree
to 4e-15 beside any Z blocks. But not every point has every arc: with 3 layers 73 of 199 random
points with Z blocks leave some hidden layer no free unit, with 4 layers 96 of 200, and at 41 and 40
the Z blocks carry on the mode that a falling arc adds, so that its end is not critical.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

SIGMA = (1.5, 1.1, 0.6, 0.0)
DEPTHS = (2, 3, 4)
LEARNT = (1,)
ORDERS = {2: "#2166ac", 3: "#1b7837", 4: "#762a83", 6: "#e08214", 8: "#b2182b"}


def network(depth: int) -> dl.LinearNetwork:
    """Return the network of a depth."""
    return dl.LinearNetwork(widths=(4, *[7] * (depth - 1), 4), target=np.diag(SIGMA))


def what_is_there(net: dl.LinearNetwork, x: np.ndarray) -> tuple[bool, bool, bool]:
    """Tell if a point has Z blocks, if a channel fits beside them, if falling arcs reach points."""
    found = dl.critical_arcs(net, x, n_alpha=2)
    shapes, reached = dl.schema.decode(found["shape"]).values, found["target"].values != ""
    ending = np.isin(shapes, ("activation", "rotation")) & (found["drop"].values > 0.0)
    return "fiber" in shapes, "activation" in shapes, bool(reached[ending].all())


def saddle(net: dl.LinearNetwork, samples: int) -> np.ndarray:
    """Return the first random point of the fiber that has every case, and print how many have."""
    points = [dl.random_fiber_state(net, LEARNT, rng=seed) for seed in range(samples)]
    table = np.array([what_is_there(net, x) for x in points])
    assert table.all(axis=1).any()
    blocks, channel, reached = table.T
    print(
        f"\n{net.depth} layers: of {samples} random points {blocks.sum()} have Z blocks; of these "
        f"{(blocks & ~channel).sum()} leave no room for a channel, and at "
        f"{(blocks & ~reached).sum()} a falling arc ends at no critical point"
    )
    return points[int(np.argmax(table.all(axis=1)))]


def cases(arcs: xr.Dataset) -> dict[str, int]:
    """Return one arc of each case: its name and number."""
    shapes, kinds = (dl.schema.decode(arcs[name]).values for name in ("shape", "kind"))
    lost, count = arcs["mode_lost"].values, arcs["n_layers"].values
    chosen: dict[str, int] = {}
    for number, (shape, kind) in enumerate(zip(shapes, kinds, strict=True)):
        name = f"{dl.schema.spoken(shape)}, {kind}"
        if shape == "plateau":
            name = f"plateau, {count[number]} layers"
        elif shape == "scaling":
            name = "scaling, up" if lost[number] < 0 else "scaling, down"
        chosen.setdefault(name, number)
    return chosen


def order(arcs: xr.Dataset, number: int) -> float:
    """Return the exponent of the sampled change of the loss, where it leaves the rounding."""
    change = np.abs(arcs["loss"].values[number] - arcs["loss"].values[number, 0])
    clear = np.flatnonzero(change > 1e-10)
    if not clear.size or 2 * clear[0] >= len(change):
        return 0.0
    return float(np.log2(change[2 * clear[0]] / change[clear[0]]))


def report(net: dl.LinearNetwork, x: np.ndarray, arcs: xr.Dataset) -> None:
    """Print each case of the table with what was measured along it."""
    canon = dl.canonicalize(net, x)
    print(f"the first with all cases, {float(canon['residual']):.2g} off the canonical point:")
    print("case                        order  measured  drop     target  |sampled - formula|")
    for name, number in cases(arcs).items():
        row = arcs.isel(arc=number)
        target = str(row["target"].item())
        if target:
            end = dl.arc_states(net, x, arcs, number)["state"].values[-1]
            assert dl.classify(net, end)["critical_point"].item() == target
        error = float(abs(row["loss"] - row["exact_loss"]).max())
        print(
            f"{name:27s} {int(row['order']):4d}  {order(arcs, number):8.3f}  "
            f"{float(row['drop']):+.4f}  {target or '-':6s}  {error:.1e}"
        )


def draw_changes(ax: plt.Axes, arcs: xr.Dataset) -> None:
    """Draw |ΔL| of one arc of each case that is not constant, with the power it starts with."""
    alpha = arcs["alpha"].values
    dots = np.unique(np.geomspace(1, len(alpha) - 1, 12).astype(int))
    for number in cases(arcs).values():
        exponent = int(arcs["order"][number])
        if exponent:
            formula, weights = (
                np.abs(arcs[name].values[number] - arcs[name].values[number, 0])
                for name in ("exact_loss", "loss")
            )
            falls = float(arcs["drop"][number]) > 0.0
            style = "-" if falls else ":"
            colour = ORDERS[exponent]
            ax.loglog(alpha[1:], formula[1:], style, color=colour, linewidth=1.4)
            ax.plot(alpha[dots], weights[dots], ".", color=colour, markersize=5)
    for exponent in sorted(set(arcs["order"].values.tolist()) - {0}):
        ax.plot([], [], color=ORDERS[exponent], label=f"order {exponent}")
    ax.plot([], [], "-", color="0.4", label="falls")
    ax.plot([], [], ":", color="0.4", label="rises")
    ax.set(xlabel=r"place along the arc $\alpha/\alpha_{\mathrm{end}}$", ylim=(1e-9, 10.0))
    ax.set_xlim(alpha[1], 1.0)
    ax.legend(fontsize=8, loc="upper left")


def draw(saddles: list[tuple[int, xr.Dataset]]) -> plt.Figure:
    """Draw the loss along all arcs, and its change in logarithms, for each depth."""
    figure, axes = plt.subplots(2, len(saddles), figsize=(15, 9), constrained_layout=True)
    for (depth, arcs), upper, lower in zip(saddles, *axes, strict=True):
        dl.plot.arcs(arcs, ax=upper)
        upper.set_title(f"{depth} layers, arcs from {arcs['source'].values[0]}")
        upper.set_ylim(0.0, 3.6)
        draw_changes(lower, arcs)
        if depth != saddles[-1][0]:
            upper.get_legend().remove()
    axes[1, 0].set_ylabel(r"$|\Delta L|$")
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--out", type=Path, default=Path("arcs.png"))
    options = parser.parse_args()
    saddles = []
    for depth in DEPTHS:
        net = network(depth)
        x = saddle(net, 20 if options.quick else 200)
        arcs = dl.critical_arcs(net, x, n_alpha=129 if options.quick else 1025)
        report(net, x, arcs)
        saddles.append((depth, arcs))
    draw(saddles).savefig(options.out, dpi=130)


if __name__ == "__main__":
    main()
