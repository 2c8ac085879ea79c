"""Which starts make a deep linear network lazy, and which rich?
=============================================================

**Question.** A network that keeps its tangent kernel K learns as a linear model does (lazy); one
that turns it learns features (rich). Large weights are said to make networks lazy (COB19),
and so is an imbalance λ between two layers, W_2ᵀW_2 − W_1W_1ᵀ = λI,
depending on its sign and on the widths (DAPB25). From the start to the end
of training, how far does K go, ‖K − K_0‖/‖K_0‖, and how far does it turn, 1 − cos(K, K_0)?

**Theory.** The tangent kernel of a linear network is K = Σ_i L_i L_iᵀ ⊗ R_iᵀ R_i, with the products
L_i and R_i of the layers after and before i, and dW/dt = K (Σ − W). It stays where it is if the
layers change little in proportion to their size: if they are large, or if one of them is. From W(0)
of its own size a run has first to unlearn W(0).

**Method.** Target of singular values 3, 2, 1. Balanced up to λ: for W(0) = U diag(p) Vᵀ the layers
W_1 = diag(a_1) Vᵀ, W_2 = U diag(a_2) with a_1a_2 = p and a_2² − a_1² = λ. Since λ is conserved,
W_2W_2ᵀ = U(√(p² + λ²/4) + λ/2)Uᵀ and W_1ᵀW_1 = V(√(p² + λ²/4) − λ/2)Vᵀ all along the run, so that
K = W_2W_2ᵀ ⊗ I + I ⊗ W_1ᵀW_1 at both ends is known without the run: these are the lines, and the
dots are runs. From W(0) = 0 a scalar network has the change √(1 + 4σ²/λ²) − 1. Gaussian starts of
two and three layers are scaled by s; mirrored ones have two copies of a Gaussian network that write
with opposite signs, so that W(0) = 0 whatever s is.

**What the figure shows.** Runs and formula agree to 1e-7. Upper left: the change of the kernel of
a square network falls like λ^{-2}, for both signs alike; where |λ| is below the size of W(0) the
start is balanced in effect, and the change is large because W(0) is small. Upper middle: this is
growth more than turning. The kernel turns by 0.16 if balanced, by less otherwise, and where it is
lazy like λ^{-4}. Lower left and middle: if one end is wider than the hidden layer, one sign of λ is
lazy as before. With the other sign the large layer is the one at the wide end; it sees three of
five directions, and has to turn to those of the target however large it is: change and turn tend to
numbers that depend on W(0) only. Upper right: at λ = 10 the loss falls at once, and the kernel
hardly moves; at λ = −10 it falls as far as the kernel sees, and further once that turns, which is
rich, but late. Lower right: size alone makes no Gaussian start lazy, since W(0) has to be unlearnt,
and the change settles at what this takes. Mirrored starts become lazy, like s^{-2h}.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

SIGMA = np.array([3.0, 2.0, 1.0])
KERNEL = ("ntk_change", "ntk_distance")
NAMES = {"ntk_change": "change", "ntk_distance": "turn"}
WORDS = {
    "ntk_change": r"relative change of the kernel $\|K-K_0\|/\|K_0\|$",
    "ntk_distance": r"turn of the kernel $1-\cos(K,K_0)$",
}
#: Widths of the two-layer networks, and sizes of W(0).
SQUARE, FUNNEL, FAN = (3, 3, 3), (5, 3, 3), (3, 3, 5)
SMALL, LARGER = 1e-3, 1e-1
#: Hidden units of those that are scaled, and by how much the course is imbalanced.
HIDDEN, COURSE = 8, 10.0


def network(widths: tuple[int, ...]) -> dl.LinearNetwork:
    """Return the network of these widths whose target has the singular values, on its diagonal."""
    target = np.zeros((widths[-1], widths[0]))
    count = min(target.shape)
    np.fill_diagonal(target, SIGMA[:count])
    return dl.LinearNetwork(widths=widths, target=target)


def first_map(net: dl.LinearNetwork, size: float) -> np.ndarray:
    """Return a random W(0); of square ones the sign of the determinant is that of the target.

    Balanced square layers keep that sign, and could not come to the target otherwise.
    """
    W = size * np.random.default_rng(0).normal(size=net.target.shape)
    if W.shape[0] == W.shape[1] and np.linalg.det(W) < 0.0:
        W[0] *= -1.0
    return W


def factors(W: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the singular value decomposition of W with so many modes."""
    U, p, Vt = np.linalg.svd(W, full_matrices=False)
    return U[:, :width], p[:width], Vt[:width]


def balanced_up_to(net: dl.LinearNetwork, W: np.ndarray, imbalance: float) -> np.ndarray:
    """Return layers with the product W and W_2ᵀW_2 − W_1W_1ᵀ = λI."""
    U, p, Vt = factors(W, net.widths[1])
    larger = np.sqrt(0.5 * (np.hypot(imbalance, 2.0 * p) + abs(imbalance)))
    smaller = np.divide(p, larger, out=np.zeros_like(p), where=larger > 0.0)
    first, second = (smaller, larger) if imbalance > 0.0 else (larger, smaller)
    return np.concatenate([(first[:, None] * Vt).ravel(), (U * second).ravel()])


def kernel(net: dl.LinearNetwork, W: np.ndarray, imbalance: float) -> np.ndarray:
    """Return K of layers that are balanced up to λ, from their product."""
    U, p, Vt = factors(W, net.widths[1])
    root = np.hypot(p, 0.5 * imbalance)
    outer = (U * (root + 0.5 * imbalance)) @ U.T
    inner = (Vt.T * (root - 0.5 * imbalance)) @ Vt
    return np.kron(outer, np.eye(len(inner))) + np.kron(np.eye(len(outer)), inner)


def predicted(net: dl.LinearNetwork, W: np.ndarray, imbalance: float) -> tuple[float, float]:
    """Return change and turn of the kernel from W to the target."""
    before, after = kernel(net, W, imbalance), kernel(net, net.target, imbalance)
    sizes = np.linalg.norm(before), np.linalg.norm(after)
    turn = 0.5 * np.linalg.norm(after / sizes[1] - before / sizes[0]) ** 2
    return float(np.linalg.norm(after - before) / sizes[0]), float(turn)


def trained(net: dl.LinearNetwork, start: np.ndarray) -> tuple[float, float]:
    """Return change and turn of the kernel along a run to its limit."""
    run = dl.flow(net, start)
    ends = dl.observe(net, run.isel(time=[0, -1]), KERNEL).isel(time=-1)
    if float(ends.loss) > 1e-8:
        raise RuntimeError(f"a run ended with the loss {float(ends.loss):.1e}")
    return tuple(float(ends[name]) for name in KERNEL)


def over_imbalances(widths: tuple[int, ...], size: float, imbalances: np.ndarray) -> xr.Dataset:
    """Return what runs and formulas say for each λ."""
    net = network(widths)
    W = first_map(net, size)
    runs = np.array([trained(net, balanced_up_to(net, W, c)) for c in imbalances])
    laws = np.array([predicted(net, W, c) for c in imbalances])
    fine = np.interp(np.linspace(0, len(imbalances) - 1, 400), range(len(imbalances)), imbalances)
    lines = np.array([predicted(net, W, c) for c in fine])
    columns = {}
    for k, name in enumerate(KERNEL):
        columns[name] = ("imbalance", runs[:, k])
        columns[name + "_law"] = ("imbalance", laws[:, k])
        columns[name + "_line"] = ("along", lines[:, k])
    return xr.Dataset(columns, {"imbalance": imbalances, "along": fine})


def mirrored(net: dl.LinearNetwork, scale: float, rng: int) -> np.ndarray:
    """Return two copies of a Gaussian network that write with opposite signs."""
    half = [net.widths[0], *(width // 2 for width in net.widths[1:-1]), net.widths[-1]]
    single = dl.LinearNetwork(widths=half, target=net.target)
    first, *middle, last = single.unpack(single.initial(scale=scale, rng=rng))
    inner = [np.kron(np.eye(2), W) for W in middle]
    layers = [np.vstack([first, first]), *inner, np.hstack([last, -last])]
    return np.concatenate([W.ravel() for W in layers])


def over_scales(scales: np.ndarray, seeds: int) -> xr.Dataset:
    """Return change and turn for Gaussian and mirrored starts of each depth, size and seed."""
    starts = {"Gaussian": lambda net, s, rng: net.initial(scale=s, rng=rng), "mirrored": mirrored}
    values = np.empty((2, 2, len(scales), seeds, 2))
    for i, start in enumerate(starts.values()):
        for depth in (2, 3):
            net = network((3, *(HIDDEN,) * (depth - 1), 3))
            for k, scale in enumerate(scales):
                for seed in range(seeds):
                    values[i, depth - 2, k, seed] = trained(net, start(net, float(scale), seed))
    dims = ("start", "depth", "scale", "seed")
    columns = {name: (dims, values[..., k]) for k, name in enumerate(KERNEL)}
    return xr.Dataset(columns, {"start": list(starts), "depth": [2, 3], "scale": scales})


def draw_imbalances(axes: np.ndarray, tables: dict[str, xr.Dataset], title: str) -> None:
    """Draw change and turn over λ: dots of runs, lines of the formula."""
    for number, (label, data) in enumerate(tables.items()):
        for ax, name in zip(axes, KERNEL, strict=True):
            color = f"C{number}"
            ax.plot(data.along, data[name + "_line"], color=color, linewidth=1.0)
            ax.plot(data.imbalance, data[name], "o", color=color, ms=4, label=label)
    for ax, name in zip(axes, KERNEL, strict=True):
        ax.set_xscale("symlog", linthresh=1e-3)
        ax.set_xticks([-100.0, -1.0, -0.01, 0.0, 0.01, 1.0, 100.0])
        ax.set(yscale="log", xlabel="imbalance λ", ylabel=WORDS[name], title=title)
        ax.legend(fontsize=8)


def draw_scalar(ax: plt.Axes, imbalances: np.ndarray) -> float:
    """Draw the change of scalar networks from W = 0; return how far the formula is off."""
    net, sigma = network((1, 1, 1)), SIGMA[0]
    chosen = imbalances[imbalances != 0.0]
    runs = np.array([trained(net, balanced_up_to(net, np.zeros((1, 1)), c))[0] for c in chosen])
    law = np.sqrt(1.0 + 4.0 * sigma**2 / chosen**2) - 1.0
    ax.plot(chosen, runs, "kx", ms=4, label="one mode, from W = 0")
    for side in (chosen < 0.0, chosen > 0.0):
        ax.plot(chosen[side], law[side], "k", linewidth=0.8)
    ax.legend(fontsize=8)
    return float(np.abs(runs / law - 1.0).max())


def draw_course(ax: plt.Axes) -> None:
    """Draw loss and kernel over time with both signs of λ."""
    net, times = network(FUNNEL), np.append(0.0, np.geomspace(1e-3, 300.0, 300))
    for color, imbalance in (("C0", COURSE), ("C3", -COURSE)):
        start = balanced_up_to(net, first_map(net, LARGER), imbalance)
        run = dl.observe(net, dl.flow(net, start, (0, times[-1]), times), "ntk_distance")
        part, turn = run.loss / run.loss[0], run.ntk_distance
        ax.semilogx(run.time, part, color=color, label=f"loss, λ = {imbalance:g}")
        label = f"turn of the kernel, λ = {imbalance:g}"
        ax.semilogx(run.time, turn, "--", color=color, label=label)
    ax.set(
        title="widths 5, 3, 3", xlabel="time $t$", ylabel="loss, part of that at the start; turn"
    )
    ax.set_xlim(1e-3, None)
    ax.legend(fontsize=8)


def draw_scales(ax: plt.Axes, data: xr.Dataset) -> None:
    """Draw the change over the size of the start, and the slopes of mirrored ones."""
    scales = data.scale.values
    for number, depth in enumerate((2, 3)):
        for start, style in (("Gaussian", "o-"), ("mirrored", "s--")):
            part = data["ntk_change"].sel(start=start, depth=depth)
            label = f"{start}, h = {depth}"
            ax.loglog(scales, part.median("seed"), style, color=f"C{number}", ms=4, label=label)
            ax.loglog(scales, part, style[0], color=f"C{number}", ms=2, alpha=0.4)
    ax.set(xlabel="size of the start s", ylabel=WORDS["ntk_change"], title=f"{HIDDEN} hidden units")
    ax.legend(fontsize=8)


def report(tables: dict[str, xr.Dataset], scaled: xr.Dataset) -> None:
    """Print runs against formulas, and slopes over the size of the start."""
    for label, data in tables.items():
        for name in KERNEL:
            off = float(np.abs(data[name] / data[name + "_law"] - 1.0).max())
            ends = [f"{float(data[name][k]):.2e}" for k in (0, data.sizes["imbalance"] // 2, -1)]
            far = f"{data.imbalance.values[-1]:g}"
            print(
                f"{label:28s} {NAMES[name]:6s} at λ = −{far}, 0, {far}: {', '.join(ends)}; "
                f"formula off by at most {off:.0e}"
            )
    steps = np.log(scaled.scale).diff("scale")
    slopes = np.log(scaled.ntk_change.median("seed")).diff("scale") / steps
    for start in scaled.start.values:
        for depth in scaled.depth.values:
            first, last = (float(slopes.sel(start=start, depth=depth)[k]) for k in (0, -1))
            label = f"{start}, h = {depth}"
            print(f"{label}: change like s^{first:.2f} where s is small, s^{last:.2f} where large")


def main() -> None:
    """Run the study and write its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer λ, s and seeds")
    parser.add_argument("--out", type=Path, default=Path("lazy_and_rich.png"))
    options = parser.parse_args()
    sizes = np.geomspace(1e-3, 100.0, 3 if options.quick else 21)
    imbalances = np.concatenate([-sizes[::-1], [0.0], sizes])
    square = {
        f"W(0) of size {size:g}": over_imbalances(SQUARE, size, imbalances)
        for size in (SMALL, LARGER)
    }
    others = {
        f"widths {', '.join(map(str, widths))}": over_imbalances(widths, LARGER, imbalances)
        for widths in (FUNNEL, FAN)
    }
    scales = np.geomspace(1e-2, 10.0, 3 if options.quick else 13)
    scaled = over_scales(scales, seeds=2 if options.quick else 8)
    report(square | others, scaled)
    figure, axes = plt.subplots(2, 3, figsize=(17, 9), layout="constrained")
    draw_imbalances(axes[0, :2], square, "widths 3, 3, 3")
    print(f"one mode from W = 0: formula off by at most {draw_scalar(axes[0, 0], imbalances):.0e}")
    draw_imbalances(axes[1, :2], others, f"W(0) of size {LARGER:g}")
    draw_course(axes[0, 2])
    draw_scales(axes[1, 2], scaled)
    figure.savefig(options.out, dpi=110)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
