"""Is the end-to-end map of a deep linear network a gradient flow of its own?
==========================================================================

**Question.** From balanced layers, W_{i+1}ᵀW_{i+1} = W_iW_iᵀ, the map W = W_h…W_1 of a network
under gradient flow moves by a law of its own: the gradient flow of the loss on the matrices of one
rank, in a metric that depends on the depth. Do networks follow it, does it find the best map of
its rank, and what is left of it if the layers are balanced nearly, or the rank is kept nearly?

**Theory.** From balanced layers W obeys Ẇ = −Σ_i (W Wᵀ)^{(h−i)/h} ∇ℓ(W) (WᵀW)^{(i−1)/h}: minus the
gradient of ℓ on the matrices of one rank, in the metric whose inverse stands there (BRTW22). The
rank is kept for all times. The critical points of rank k are the maps that learn k modes; for
almost all starts the limit is the best of them.

**Method.** Ten measurements of 442 patients, raw inputs. Autoencoder: all ten from themselves,
where the best map of rank k is the projection to k principal components. Supervised: six values of
blood serum from age, sex, weight and blood pressure. Depths 2, 3 and 5, with a bottleneck of four
and of two units; ranks at the bottleneck and below. `ProductFlow` runs W in factors of its rank;
networks start from the balanced layers over the same W. For nearly balanced starts these are moved
by elements of GL near the identity, which keep W; for a rank that is kept nearly, small Gaussian
weights are added. Distances are ‖(W − W_k) K‖, those that the loss sees.

**What the figure shows.** Left: every run ends at the best map of its rank, to all digits, and the
networks (dots) lie on the curves of the product flow; what depends on the depth is how long a mode
that begins small is waited for. Middle: imbalance is conserved, so that a nearly balanced network
stays as near. Its map keeps a distance from the flow of the balanced one that is in proportion to
the imbalance while this is small, and loses it at the end, where both have the same limit. Right:
below the rank of the bottleneck the flow of rank k ends at a saddle of the network, the minimum
among the maps of that rank. With small weights outside the rank the network comes to rest there
too, and leaves for the best map of the next rank after a time like one over the size of these
weights (three layers), so that 1e-6 of them keep the supervised network there for longer than the
picture shows.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import dlnds as dl

DEPTHS, QUICK_DEPTHS = (2, 3, 5), (2, 3)
#: Distance from the identity of the elements of GL, and size of the weights that are added.
UNBALANCED, NOISE = (1e-1, 1e-2, 1e-3), (1e-2, 1e-4, 1e-6)


def network(case: str, depth: int) -> dl.LinearNetwork:
    """Return the network of one of the two problems, with a bottleneck."""
    data = dl.read_csv("diabetes")
    X, Y = data.X.values, data.Y.values
    if case == "autoencoder":
        X = Y = np.concatenate([X, Y])
    narrow = 4 if case == "autoencoder" else 2
    hidden = (len(X),) * (depth - 2) + (narrow,)
    return dl.LinearNetwork.from_data(X, Y, hidden, whiten=False)


def start(prod: dl.ProductFlow) -> np.ndarray:
    """Return the state of the same map for all depths: singular values 0.3, random vectors."""
    rng = np.random.default_rng(1)
    ends = prod.network.widths[-1], prod.network.widths[0]
    A, B = (np.linalg.qr(rng.normal(size=(d, prod.rank)))[0] for d in ends)
    return prod.factor(0.3 * A @ B.T)


def best(prod: dl.ProductFlow) -> np.ndarray:
    """Return what the best map of the rank gives, W_k K."""
    left, sigma, right = prod.network.singular_modes
    k = prod.rank
    return (left[:, :k] * sigma[:k]) @ right[:, :k].T


def distance(prod: dl.ProductFlow, maps: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return ‖W K − other‖ for maps (time, row, column)."""
    return np.linalg.norm(prod.network.problem.image(maps) - other, axis=(1, 2))


def both(prod: dl.ProductFlow, grid: np.ndarray, layers: np.ndarray | None = None):
    """Return the run of the map, and that of the network from given or from balanced layers."""
    # Outputs that are not learnt decay to nothing, of which no relative accuracy is to be had.
    x, options = start(prod), {"rtol": 1e-10, "atol": 1e-13, "save": ("product", "imbalance")}
    above = dl.flow(prod, x, (0.0, grid[-1]), grid, **options)
    layers = prod.lift(x) if layers is None else layers
    return above, dl.flow(prod.network, layers, (0.0, grid[-1]), grid, **options)


def unbalanced(prod: dl.ProductFlow, size: float) -> np.ndarray:
    """Return layers over the same map, moved from the balanced ones by GL."""
    rng = np.random.default_rng(2)
    group = [np.eye(d) + size * rng.normal(size=(d, d)) for d in prod.network.widths[1:-1]]
    return dl.act(prod.network, group, prod.lift(start(prod)))


def draw_limits(ax: plt.Axes, case: str, depths: tuple[int, ...], grid: np.ndarray) -> None:
    """Draw the distance to the best map of the rank."""
    for color, depth in zip(("C0", "C1", "C2"), depths, strict=False):
        net = network(case, depth)
        top = min(net.widths)
        for rank, style in ((top, "-"), (top // 2, "--")):
            prod = dl.ProductFlow(net, rank=rank)
            above, below = both(prod, grid)
            far, dots = (
                distance(prod, run["product"].values, best(prod)) for run in (above, below)
            )
            apart = distance(prod, above["product"].values - below["product"].values, 0.0).max()
            print(
                f"{case}, h = {depth}, rank {rank}: distance at the end {far[-1]:.1e}, to the "
                f"network {apart:.1e}, imbalance {float(below.imbalance.max()):.1e}, "
                f"{above.attrs['n_steps']} steps, the network {below.attrs['n_steps']}"
            )
            ax.loglog(grid, far, style, color=color, label=f"$h = {depth}$, rank {rank}")
            ax.loglog(grid[::6], dots[::6], ".", color=color, markersize=6)
    ax.set(
        xlabel="time $t$", ylabel=r"$\|(W - W_k)K\|$", ylim=(1e-11, 10.0),
        title=f"{case}: to the best map of the rank\n(dots: balanced networks)",
    )  # fmt: skip
    ax.legend(fontsize=8)


def draw_balance(ax: plt.Axes, case: str, grid: np.ndarray) -> None:
    """Draw imbalance, and the distance to the product flow, of nearly balanced networks."""
    net = network(case, 3)
    prod, found = dl.ProductFlow(net, rank=min(net.widths)), []
    for color, size in zip(("C3", "C4", "C5"), UNBALANCED, strict=True):
        above, below = both(prod, grid, unbalanced(prod, size))
        apart = distance(prod, above["product"].values - below["product"].values, 0.0)
        balance = below.imbalance.values
        found.append((balance[0], apart.max(), np.abs(balance - balance[0]).max()))
        ax.loglog(grid, balance, color=color, label=rf"$\delta = {balance[0]:.2g}$")
        ax.loglog(grid, np.maximum(apart, 1e-12), "--", color=color)
    balance, apart, drift = (np.array(part) for part in zip(*found, strict=True))
    slope = np.diff(np.log(apart)) / np.diff(np.log(balance))
    print(
        f"{case}, nearly balanced: distance to the flow of the map like δ^{slope.round(3)}, "
        f"δ changes by {drift.max():.1e}"
    )
    ax.set(
        xlabel="time $t$", ylim=(1e-11, 10.0),
        title="nearly balanced, $h = 3$: imbalance (full),\ndistance to the product flow (dashed)",
    )  # fmt: skip
    ax.legend(fontsize=8)


def draw_rank(ax: plt.Axes, case: str, grid: np.ndarray) -> None:
    """Draw the loss of networks that keep the rank nearly."""
    rng, net = np.random.default_rng(3), network(case, 3)
    prod = dl.ProductFlow(net, rank=min(net.widths) // 2)
    noise = rng.normal(size=net.dim)
    above, _ = both(prod, grid)
    ax.semilogx(grid, above.loss, "k", label=f"rank {prod.rank}, exactly")
    for color, size in zip(("C3", "C4", "C5"), NOISE, strict=True):
        layers = prod.lift(start(prod)) + size * noise
        run = dl.flow(net, layers, (0.0, grid[-1]), grid, rtol=1e-8, save=("imbalance",))
        ax.semilogx(grid, run.loss, color=color, label=f"+ weights of {size:g}")
        past = run.loss.values < 0.5 * (prod.lowest_loss + net.lowest_loss)
        when = f"leaves by t = {grid[past.argmax()]:.3g}" if past.any() else "does not leave"
        print(f"{case}, weights of {size:g} outside the rank: {when}")
    for rank in range(prod.rank, min(net.widths) + 1):
        ax.axhline(dl.ProductFlow(net, rank=rank).lowest_loss, color="0.7", lw=0.7, zorder=0)
    ax.set(
        xlabel="time $t$", ylabel="loss $L$",
        title="below the rank of the bottleneck, $h = 3$\n(grey: best maps of each rank)",
    )  # fmt: skip
    ax.legend(fontsize=8)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer depths, times and starts")
    parser.add_argument("--out", type=Path, default=Path("riemannian_flow.png"))
    options = parser.parse_args()
    depths = QUICK_DEPTHS if options.quick else DEPTHS
    end = 2.0 if options.quick else 4.0
    grid = np.logspace(-1.0, end, 61 if options.quick else 121)
    figure, axes = plt.subplots(2, 3, figsize=(17, 9.5), layout="constrained")
    for row, case in zip(axes, ("autoencoder", "supervised"), strict=True):
        draw_limits(row[0], case, depths, grid)
        draw_balance(row[1], case, grid)
        draw_rank(row[2], case, np.logspace(-1.0, end + 2.0, len(grid)))
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
