"""What does the flow of a network with one hidden node look like around its saddle?
=================================================================================

**Question.** Two weights, w_1 and w_2, one data point: the smallest network with a saddle. Which
starts come to the saddle, which leave it and where to, and what does the plateau look like that
training has to cross? What changes with a third layer, where the Hessian of the saddle is zero?

**Theory.** L = ½ (σ − w_h⋯w_1)², and the flow keeps w_i² − w_{i+1}². At the origin with two layers
the Hessian has the eigenvalues ±σ: hyperbolic, with exponential rates. With three layers the
Hessian is zero there; the leading form of the loss is −σ w_1 w_2 w_3, and runs come and go along
rays where it is stationary on the sphere, with r ~ 1/(rate · t).

**Method.** Widths (1, 1, 1) and (1, 1, 1, 1) with σ = 1. The stable and unstable manifolds of the
origin are found and grown (`stable_manifold`, `unstable_manifold`, `grow_manifold`), and runs are
started beside the stable one. Three layers are drawn in the plane w_2 = w_3, which the flow keeps.

**What the figure shows.** Left, two layers: the stable manifold w_2 = −w_1 parts the starts that
learn w_1 w_2 = 1 with positive weights from those with negative ones; all runs are drawn to the
unstable manifold w_2 = w_1, whose ends are minima. Along every run w_1² − w_2² is constant. Middle:
the loss over the same plane. The plateau around the saddle is crossed in a time that grows like
ln(1/ε)/σ with the distance ε of the start from the stable manifold. Right, three layers: the
manifolds are rays of a cone now, not lines. Runs come to the saddle and leave it algebraically:
beside the stable ray, where a ~ 1/(σ t), the distance from it grows only like t, so that the
plateau is crossed in a time proportional to ε^{−1/2}; on its other side runs end on w_2 = w_3 = 0,
a line of saddles.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

import dlnds as dl

REACH = 1.7
COLOURS = {"unstable": "#d73027", "stable": "#4575b4"}


def network(depth: int) -> dl.LinearNetwork:
    """Return the network with one hidden node in each layer and σ = 1."""
    return dl.LinearNetwork(widths=(1,) * (depth + 1), target=[[1.0]])


def manifolds(net: dl.LinearNetwork) -> dict[str, list[np.ndarray]]:
    """Return the paths (time, parameter) of both manifolds in the plane w_2 = … = w_h."""
    origin, paths = np.zeros(net.dim), {}
    for side, make in (("unstable", dl.unstable_manifold), ("stable", dl.stable_manifold)):
        fibres = dl.grow_manifold(net, make(net, origin), reach=2.0 * REACH)
        states = [x for member in fibres.state.values for x in turned(net, member)]
        paths[side] = [x for x in states if np.allclose(x[:, 1:], x[:, 1:2])]
    return paths


def turned(net: dl.LinearNetwork, path: np.ndarray) -> list[np.ndarray]:
    """Return a path and those that it becomes when hidden nodes change their signs."""
    signs = np.array(np.meshgrid(*[[1.0, -1.0]] * (net.depth - 1))).reshape(net.depth - 1, -1).T
    return [
        np.stack([dl.act(net, [[[s]] for s in row], x) for x in path]) for row in signs.tolist()
    ]


def starts(net: dl.LinearNetwork, gaps: np.ndarray) -> np.ndarray:
    """Return states at given distances from the stable manifold, by each weight."""
    on = np.full(net.dim, 0.8)
    on[0] = -0.8
    return on + np.multiply.outer(gaps, np.ones(net.dim))


def beside(net: dl.LinearNetwork, gaps: np.ndarray) -> xr.Dataset:
    """Return runs that start beside the stable manifold."""
    return dl.flow(net, starts(net, gaps))


def crossing_times(net: dl.LinearNetwork, gaps: np.ndarray) -> list[float]:
    """Return when half of what is to be learnt is learnt, for each distance."""
    half = dl.events.loss_below(net, 0.125, terminal=True)
    return [float(dl.flow(net, x, events=half).time[-1]) for x in starts(net, gaps)]


def draw_plane(ax: Axes, net: dl.LinearNetwork, paths: dict[str, list[np.ndarray]]) -> None:
    """Draw the flow in the plane, the minima, and the manifolds of the saddle."""
    grid = np.linspace(-REACH, REACH, 41)
    first, others = np.meshgrid(grid, grid)
    planes = np.stack([first, *[others] * (net.depth - 1)], axis=-1)
    field = -net.gradient(planes.reshape(-1, net.dim)).reshape(planes.shape)
    speed = np.linalg.norm(field, axis=-1)
    ax.streamplot(
        grid, grid, field[..., 0], field[..., 1], color="0.78", linewidth=0.7, density=1.3,
        arrowsize=0.7,
    )  # fmt: skip
    ax.contourf(grid, grid, np.log10(speed + 1e-9), levels=np.linspace(-2, 1, 7), cmap="Greys",
                alpha=0.12, extend="both")  # fmt: skip
    curve = np.linspace(-REACH, REACH, 400)
    with np.errstate(divide="ignore"):
        minima = np.where(curve == 0.0, np.nan, 1.0 / curve ** (net.depth - 1))
    far = np.abs(minima) > 2.0 * REACH
    ax.plot(np.where(far, np.nan, minima), curve, color="#1b7837", linewidth=2.0, label="minima")
    for side, members in paths.items():
        for k, x in enumerate(members):
            label = f"{side} manifold" if k == 0 else None
            ax.plot(x[:, 0], x[:, 1], color=COLOURS[side], linewidth=2.0, label=label, zorder=3)
    ax.plot(0.0, 0.0, "D", color="black", markersize=6, zorder=4, label="saddle")
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xlabel="$w_1$", aspect="equal")


def draw_runs(ax: Axes, runs: xr.Dataset) -> None:
    """Draw runs in the plane."""
    for x in runs["state"].values:
        ax.plot(x[:, 0], x[:, 1], color="black", linewidth=0.9, zorder=3)
        ax.plot(x[0, 0], x[0, 1], "o", color="black", markersize=3, zorder=4)


def draw_surface(ax: Axes, net: dl.LinearNetwork, runs: xr.Dataset) -> None:
    """Draw the loss over the plane, and the runs on it."""
    grid = np.linspace(-REACH, REACH, 101)
    first, second = np.meshgrid(grid, grid)
    loss = net.loss(np.stack([first, second], axis=-1))
    top = 1.6
    ax.plot_surface(
        first, second, np.minimum(loss, top), cmap="viridis", alpha=0.75, rstride=2, cstride=2,
        linewidth=0.0,
    )  # fmt: skip
    for x, level in zip(runs["state"].values, runs["loss"].values, strict=True):
        ax.plot(x[:, 0], x[:, 1], level + 0.03, color="#d73027", linewidth=1.6, zorder=10)
    ax.set(xlabel="$w_1$", ylabel="$w_2$", zlabel="loss $L$", zlim=(0, top))
    ax.view_init(elev=38, azim=-62)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--out", type=Path, default=Path("one_hidden_node.png"))
    options = parser.parse_args()
    gaps = np.array([1e-1, 1e-2, 1e-3] if options.quick else [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
    nets = {depth: network(depth) for depth in (2, 3)}
    for depth, net in nets.items():
        times = crossing_times(net, gaps)
        for gap, time in zip(gaps, times, strict=True):
            print(f"{depth} layers, {gap:g} from the stable manifold: half is learnt at {time:.6g}")
        ratio = times[-1] / times[-2] if depth > 2 else times[-1] - times[-2]
        word = "ratio (√10 = 3.162)" if depth > 2 else "difference (ln 10 = 2.303)"
        print(f"{word} of the last two: {ratio:.4g}")

    figure = plt.figure(figsize=(16.5, 5.9), layout="constrained")
    axes = [
        figure.add_subplot(1, 3, 1),
        figure.add_subplot(1, 3, 2, projection="3d"),
        figure.add_subplot(1, 3, 3),
    ]
    shown = np.concatenate([gaps[:3], -gaps[:3]])
    for ax, depth in ((axes[0], 2), (axes[2], 3)):
        draw_plane(ax, nets[depth], manifolds(nets[depth]))
        draw_runs(ax, beside(nets[depth], shown))
        ax.set_title(f"{depth} layers" + (", plane $w_2 = w_3$" if depth == 3 else ""))
        ax.set_ylabel("$w_2$" if depth == 2 else "$w_2 = w_3$")
    axes[0].legend(loc="upper right", fontsize=8)
    draw_surface(axes[1], nets[2], beside(nets[2], shown))
    axes[1].set_title("2 layers, the loss and runs across its plateau")
    figure.savefig(options.out, dpi=130)


if __name__ == "__main__":
    main()
