"""How do the singular values of a deep linear network grow, and do its layers align?

**Question.** From a small start the modes of the target are learnt one after the other, the strong
ones first (Wendin & Altafini, arXiv:2511.10362, Figs. 1 and 2). What becomes of this order from a
large start, or when the weak modes start ahead? And do the singular vectors of the single layers
align with those of the target if the start is balanced only up to δ (Fig. 3)?

**Method.** Three layers of width 4. Upper row: aligned, balanced starts, whose modes obey
ds/dt = s^(h−1)(σ − s^h) each, from the closed form. Lower row: δ-balanced starts with δ = 0.04,
integrated; the singular values of W lie 1.5 apart, or in two pairs that lie 0.1 apart. The overlap
of mode j in a layer is |⟨singular vector j of the layer, singular vector j of the target⟩|, at the
two ends of the network.

**What the figure shows.** Upper row: from equal small starts the modes are learnt in the order of
their σ_j, with plateaus; from large starts all at once; if weak modes start ahead they are learnt
first. So the order is one of times, σ_j against the size of the start, and not of strength alone.
Lower row: with well separated modes the outer layers nearly align while a mode is learnt and stay
so; with close pairs they need not, since close singular values make their singular vectors
arbitrary, while W itself ends at the target in both cases.

Run it with ``python studies/singular_value_dynamics.py``; ``--quick`` uses fewer times.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

DEPTH, WIDTH, DELTA = 3, 4, 0.04
STARTS = {
    "equal, near the origin": (0.05, np.linspace(0.0, 25.0, 401)),
    "equal, far from the origin": (0.9, np.linspace(0.0, 1.5, 401)),
    "weak modes ahead": ((0.02, 0.05, 0.12, 0.3), np.linspace(0.0, 25.0, 401)),
}
SPECTRA = {"spacing 1.5": (6.0, 4.5, 3.0, 1.5), "pairs 0.1 apart": (4.6, 4.5, 3.1, 3.0)}


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


def draw_alignment(axes: np.ndarray, n_times: int) -> dict[str, float]:
    """Draw overlaps of the outer layers and the loss of δ-balanced runs; return last overlaps."""
    ends = {}
    for ax, (name, sigma) in zip(axes, SPECTRA.items(), strict=False):
        net = network(sigma, rng=1)
        start = net.initial("delta_balanced", scale=0.1, delta=DELTA, rng=2)
        run = dl.flow(net, start, (0, 12), np.linspace(0, 12, n_times), rtol=1e-9)
        for style, (layer, values) in zip(("-", ":"), overlaps(net, run).items(), strict=True):
            for j in range(WIDTH):
                label = f"mode {j}, {layer}" if style == "-" else None
                ax.plot(run.time, values[:, j], style, color=f"C{j}", label=label)
            ends[f"{name}, {layer}"] = float(values[-1].min())
        ax.set(title=f"δ = {DELTA}, {name}", xlabel="time $t$", ylabel="overlap", ylim=(0, 1.05))
        axes[2].semilogy(run.time, run.loss, label=name)
    axes[0].legend(fontsize=7, loc="lower right")
    axes[2].set(title="W itself ends at the target", xlabel="time $t$", ylabel="loss $L$")
    axes[2].set_ylim(1e-9, None)
    axes[2].legend()
    return ends


def main() -> None:
    """Run the study and write its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer saved times")
    parser.add_argument("--out", type=Path, default=Path("singular_value_dynamics.png"))
    options = parser.parse_args()
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    draw_starts(axes[0])
    for name, overlap in draw_alignment(axes[1], 61 if options.quick else 601).items():
        print(f"{name:32s} smallest overlap at the end {overlap:.3f}")
    figure.savefig(options.out, dpi=110)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
