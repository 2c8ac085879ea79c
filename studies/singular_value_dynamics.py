"""How do the singular values of a deep linear network grow, and do its layers align?
==================================================================================

**Question.** From a small start the modes of the target are learnt one after the other, the strong
ones first (WA25, Figs. 1 and 2). When does a mode grow fastest, and
what becomes of the order from a large start, or when the weak modes start ahead? Do the singular
vectors of the single layers align with those of the target if the start is balanced only up to δ,
‖C_i‖_F ≤ δ (Fig. 3)?

**Theory.** The flow keeps C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}. If all C_i are 0 and the layers share
the singular vectors of Σ, each mode obeys ds/dt = s^{h−1}(σ − s^h), with W having p = s^h. If ‖C_i‖
≤ δ the layers have nearly the same singular values; their singular vectors follow as far as those
values lie apart by more than δ.

**Method.** Three layers of width 4. Upper row: aligned, balanced states, whose modes obey
ds/dt = s^(h−1)(σ − s^h) each: the speed from the gradient, the runs from the closed form. Lower
row: δ-balanced starts, integrated; the singular values of W lie 1.5 apart, or in two pairs that
lie 0.1 apart (the spacing after the first and the third). The overlap of mode j in a layer is
⟨singular vector j of the layer, singular vector j of the target⟩ without its sign, at the two ends
of the network. The same for many starts: the smallest overlap at the end.

**What the figure shows.** Upper row: a mode grows fastest at s^h = σ(h−1)/(2h−1) (dots), two fifths
of σ at three layers. From equal small starts the modes are learnt in the order of their σ_j, with
plateaus; from large starts all at once; if weak modes start ahead they are learnt first. So the
order is one of times, σ_j against the size of the start, and not of strength alone. Lower row, δ =
0.04 exactly: with well separated modes the outer layers align while a mode is learnt and stay so.
With close pairs they need not, and from the start that is drawn they do not: its smallest overlap
ends at 0.33, a turn by 71 degrees. The values s_j² of a pair of layers in balance are 0.040 and
0.046 apart, no further than C_i of that size reach; W itself ends at the target in both cases. Such
starts are rare at this δ: of 100 two end below 0.9. At δ = 0.1 they are six of ten, at δ = 0.004
there is none, nor is there any at spacing 1.5.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

DEPTH, WIDTH, DELTA, TIMES = 3, 4, 0.04, (0.03, 100.0)
#: The size of δ-balanced starts, and the seed of one that leaves vectors of close pairs apart.
SCALE, APART = 0.3, 57
STARTS = {
    "equal, near the origin": (0.05, np.linspace(0.0, 25.0, 401)),
    "equal, far from the origin": (0.9, np.linspace(0.0, 1.5, 401)),
    "weak modes ahead": ((0.02, 0.05, 0.12, 0.3), np.linspace(0.0, 25.0, 401)),
}
SPECTRA = {"spacing 1.5": (6.0, 4.5, 3.0, 1.5), "pairs 0.1 apart": (4.6, 4.5, 3.1, 3.0)}
ENSEMBLES = [("spacing 1.5", 0.1), *(("pairs 0.1 apart", delta) for delta in (0.004, DELTA, 0.1))]


def network(sigma: tuple[float, ...], rng: int) -> dl.LinearNetwork:
    """Return a network whose target has these singular values, and random singular vectors."""
    generator = np.random.default_rng(rng)
    U, V = (np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))[0] for _ in range(2))
    return dl.LinearNetwork(widths=(WIDTH,) * (DEPTH + 1), target=(U * sigma) @ V.T)


def overlaps(net: dl.LinearNetwork, run: xr.Dataset) -> dict[str, np.ndarray]:
    """Return for the first and the last layer the overlap of each mode with the target's."""
    left, _, right = net.singular_modes
    inner = np.linalg.svd(dl.weights(run, 1).values)[2]
    outer = np.linalg.svd(dl.weights(run, DEPTH).values)[0]
    return {
        "first layer": np.abs(np.einsum("tji,ij->tj", inner, right)),
        "last layer": np.abs(np.einsum("tij,ij->tj", outer, left)),
    }


def draw_speeds(ax: plt.Axes) -> float:
    """Draw ds/dt over s for each mode; return how far its maximum is from where it should be."""
    net, sizes = network((4.0, 3.0, 2.0, 1.0), rng=0), np.linspace(0.0, 1.65, 1651)
    states = np.stack([net.initial("aligned", scale=s) for s in sizes])
    left, sigma, _ = net.singular_modes
    velocity = [net.unpack(-net.gradient(x))[-1] for x in states]  # of the last layer, U diag(s)
    speed, miss = np.einsum("ij,sij->sj", left, velocity), 0.0
    for j in range(WIDTH):
        place = (sigma[j] * (DEPTH - 1) / (2 * DEPTH - 1)) ** (1 / DEPTH)
        miss = max(miss, abs(float(sizes[speed[:, j].argmax()]) - place))
        ax.plot(sizes, speed[:, j], color=f"C{j}", label=rf"$\sigma$ = {sigma[j]:.0f}")
        ax.plot(place, np.interp(place, sizes, speed[:, j]), "o", color=f"C{j}")
    ax.axhline(0.0, color="black", linewidth=0.6)
    ax.set(title="speed of a mode", xlabel="size $s$ in each layer", ylabel="$ds/dt$", ylim=(-1, 4))
    ax.legend(fontsize=8)
    return miss


def draw_starts(axes: np.ndarray) -> None:
    """Draw the strength of each mode from the three aligned starts."""
    net = network((4.0, 3.0, 2.0, 1.0), rng=0)
    for ax, (name, (scale, times)) in zip(axes, STARTS.items(), strict=True):
        start = net.initial("aligned", scale=scale)
        run = dl.exact_flow(net, start, times, save=["mode_strength"])
        for j in range(WIDTH):
            ax.plot(run.time, run.mode_strength[:, j], color=f"C{j}", label=f"mode {j}")
            ax.axhline(net.singular_values[j], color=f"C{j}", linewidth=0.6, linestyle="--")
        ax.set(title=name, xlabel="time $t$", ylabel=r"strength $u_j^T W v_j$")
    axes[0].legend(fontsize=8)


def final_overlap(net: dl.LinearNetwork, delta: float, rng: int) -> float:
    """Return the smallest overlap at the end of the run from a δ-balanced start."""
    start = net.initial("delta_balanced", scale=SCALE, delta=delta, rng=rng)
    run = dl.flow(net, start).isel(time=[-1])
    return min(float(values[-1].min()) for values in overlaps(net, run).values())


def draw_ensembles(ax: plt.Axes, n_starts: int) -> dict[str, float]:
    """Draw the smallest overlaps from many starts; return which part of them is below 0.9."""
    parts = {}
    for name, delta in ENSEMBLES:
        net = network(SPECTRA[name], rng=1)
        ends = np.sort([final_overlap(net, delta, rng) for rng in range(n_starts)])
        label = f"{name}, δ = {delta:g}"
        ax.step(ends, (1.0 + np.arange(n_starts)) / n_starts, where="post", label=label)
        parts[label] = float(np.mean(ends < 0.9))
    ax.set(
        title=f"{n_starts} starts", xlabel="smallest overlap at the end", ylabel="part of starts"
    )
    ax.legend(fontsize=8, loc="upper left")
    return parts


def draw_alignment(axes: np.ndarray, n_times: int) -> dict[str, float]:
    """Draw overlaps of the outer layers and the loss of δ-balanced runs; return last overlaps."""
    ends = {}
    for ax, (name, sigma) in zip(axes, SPECTRA.items(), strict=False):
        net = network(sigma, rng=1)
        start = net.initial("delta_balanced", scale=SCALE, delta=DELTA, rng=APART)
        run = dl.flow(net, start, (0, TIMES[1]), np.geomspace(*TIMES, n_times), rtol=1e-9)
        largest = max(np.linalg.norm(c) for c in net.imbalances(start))
        print(f"{name}: the start has max ‖C_i‖_F = {largest:.4f}")
        for style, (layer, values) in zip(("-", ":"), overlaps(net, run).items(), strict=True):
            for j in range(WIDTH):
                label = f"mode {j}, {layer}" if style == "-" else None
                ax.plot(run.time, values[:, j], style, color=f"C{j}", label=label)
            ends[f"{name}, {layer}"] = float(values[-1].min())
        ax.set(title=f"δ = {DELTA}, {name}", xlabel="time $t$", ylabel="overlap", ylim=(0, 1.05))
        ax.set_xscale("log")
        axes[2].loglog(run.time, run.loss, label=name)
    axes[0].legend(fontsize=7, loc="lower right")
    axes[2].set(title="W itself ends at the target", xlabel="time $t$", ylabel="loss $L$")
    axes[2].set_ylim(1e-9, None)
    axes[2].legend()
    return ends


def main() -> None:
    """Run the study and write its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer times and starts")
    parser.add_argument("--out", type=Path, default=Path("singular_value_dynamics.png"))
    options = parser.parse_args()
    figure, axes = plt.subplots(2, 4, figsize=(19, 8), layout="constrained")
    print(f"fastest growth off s^h = σ(h−1)/(2h−1) by at most {draw_speeds(axes[0, 0]):.1e} in s")
    draw_starts(axes[0, 1:])
    for name, overlap in draw_alignment(axes[1], 61 if options.quick else 1001).items():
        print(f"{name:32s} smallest overlap at the end {overlap:.3f}")
    for name, part in draw_ensembles(axes[1, 3], 6 if options.quick else 100).items():
        print(f"{name:32s} below 0.9 in {part:.0%} of the starts")
    figure.savefig(options.out, dpi=100)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
