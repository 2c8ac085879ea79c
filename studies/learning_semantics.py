"""In which order does a deep linear network learn a hierarchy of living things?
=============================================================================

**Question.** Saxe, McClelland and Ganguli (SMG14) explain the stage-like learning of
children by a network without any nonlinearity: trained on items and their attributes it learns
broad distinctions before fine ones, each in a sudden stage. Which distinctions come when, and why
then?

**Theory.** With aligned and balanced layers the modes of Σ = Σ_j σ_j u_j v_jᵀ do not see each
other, and each obeys ds/dt = s^{h−1}(σ_j − s^h). A mode of size s_0 waits for a time of about
s_0^{−(h−2)}/((h−2) σ_j) (h ≥ 3), then is learnt at once: the strong ones first (SMG14).

**Method.** The semantic data set of Rumelhart and of Rogers & McClelland: 8 items, one-hot, and
their 36 attributes; two hidden layers of 16; gradient flow from a small random start until the
global minimum. The singular value decomposition of the input-output moments gives the modes: each
right singular vector is a distinction between items, its singular value σ_j the strength with which
the attributes support it. A balanced mode grows to half of σ_j in a time of about 1/(s_0 σ_j) from
the size s_0 of the weights (h = 3), so strong modes come first. Two items are told apart when their
columns of the network's map W are as far from each other as half their distance in the data.

**What the figure shows.** Top left, the modes as distinctions between the items: what all have in
common, then plant or animal, then bird or fish and tree or flower, then single items. Top right,
the strength of each mode over time: stages, in the order of the singular values. Bottom left, the
loss against the levels of the saddles that the run passes: {}, {0}, {0,1}, … Bottom right, when
pairs of items that part at each level of the hierarchy are told apart: the broader the distinction,
the earlier.
"""

import argparse
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

TREES, FLOWERS = ("pine", "oak"), ("rose", "daisy")
BIRDS, FISH = ("robin", "canary"), ("sunfish", "salmon")
PAIRS = {
    "plant | animal": list(itertools.product(TREES + FLOWERS, BIRDS + FISH)),
    "tree | flower": list(itertools.product(TREES, FLOWERS)),
    "bird | fish": list(itertools.product(BIRDS, FISH)),
    **{f"{a} | {b}": [(a, b)] for a, b in (TREES, FLOWERS, BIRDS, FISH)},
}


def train(hidden: tuple[int, ...], scale: float) -> tuple[dl.LinearNetwork, xr.Dataset]:
    """Return the network and its run to the global minimum."""
    net = dl.load_problem("semantic", hidden=hidden)
    start = net.initial("gaussian", scale=scale, rng=0)
    return net, dl.flow(net, start, save=["product", "mode_strength"])


def told_apart(net: dl.LinearNetwork, run: xr.Dataset, items: list[str]) -> dict[str, float]:
    """Return for each level of the hierarchy the mean time at which its pairs are told apart."""
    maps, place = run["product"].values, {item: i for i, item in enumerate(items)}

    def first_time(a: str, b: str) -> float:
        i, j = place[a], place[b]
        distance = np.linalg.norm(maps[:, :, i] - maps[:, :, j], axis=1)
        apart = distance > 0.5 * np.linalg.norm(net.target[:, i] - net.target[:, j])
        return float(run.time[apart.argmax()])

    return {name: float(np.mean([first_time(*p) for p in pairs])) for name, pairs in PAIRS.items()}


def draw(
    net: dl.LinearNetwork, run: xr.Dataset, items: list[str], times: dict[str, float]
) -> plt.Figure:
    """Return the figure with its four panels."""
    figure, axes = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
    ax = axes[0, 0]
    image = ax.imshow(net.modes.right.T, cmap="RdBu_r", vmin=-0.75, vmax=0.75, aspect="auto")
    ax.set_xticks(range(len(items)), items, rotation=45)
    ax.set_yticks(range(8), [f"{j}: {s:.2f}" for j, s in enumerate(net.singular_values)])
    ax.set(ylabel=r"mode $j$: $\sigma_j$", title="what each mode distinguishes")
    figure.colorbar(image, ax=ax, label="right singular vector")
    ax = axes[0, 1]
    colours = plt.colormaps["viridis_r"].resampled(8)
    for j in range(8):
        ax.plot(run.time, run.mode_strength[:, j], color=colours(j), label=f"mode {j}")
        ax.axhline(net.singular_values[j], color=colours(j), linestyle="--", linewidth=0.7)
    ax.set(xlabel="time $t$", ylabel=r"strength $u_j^T W v_j$", title="stages, strongest first")
    ax.legend(fontsize=8, loc="upper right")
    dl.plot.loss(run, points=dl.critical_points(net), ax=axes[1, 0])
    axes[1, 0].set_title("from saddle to saddle")
    ax = axes[1, 1]
    names = sorted(times, key=times.__getitem__, reverse=True)
    ax.barh(names, [times[name] for name in names], color="#4575b4")
    ax.set(xlabel="time until told apart", title="broad distinctions first")
    return figure


def main() -> None:
    """Run the study and write its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller hidden layers, larger start")
    parser.add_argument("--out", type=Path, default=Path("learning_semantics.png"))
    options = parser.parse_args()
    hidden, scale = ((8, 8), 5e-2) if options.quick else ((16, 16), 1e-2)
    items = dl.read_csv("semantic").sample.values.tolist()
    net, run = train(hidden, scale)
    times = told_apart(net, run, items)
    for name, time in sorted(times.items(), key=lambda pair: pair[1]):
        print(f"{name:18s} told apart at t = {time:7.2f}")
    draw(net, run, items, times).savefig(options.out, dpi=120)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
