"""What does the theory know of a training run that was made without it?
=====================================================================

**Question.** A deep linear network is trained elsewhere, and what is left of it are files of
weights and a list of losses. Which saddles did the run visit, and in which order, how near is it to
gradient flow, and did anybody turn or reverse the layers on the way?

**Theory.** Full-batch gradient descent with a small step follows gradient flow, with time t = n η
up to errors of order η, while η λ_max stays below 2. So its losses rest at the same critical values
L_S = ½ Σ_{k∉S} σ_k², one for each set S of learnt modes, and W_i W_iᵀ − W_{i+1}ᵀ W_{i+1} drifts by
terms of order η² a step only (WA25). A product W_h⋯W_1 does not tell how layers lie; the recorded
loss does.

**Method.** Three square layers, trained by numpy alone: rows of the data are samples, layers are
applied as x @ W, the loss is the mean of all squares, as in most libraries. Every ten steps a file
is written. `read_checkpoints` finds layers and steps in the files; `as_run` compares the losses
with those of the network, which tells that the matrices are transposed and in which unit the losses
are. The same files are offered with the layers in reverse order, and with two layers exchanged.
Then the run is compared with the gradient flow from its first file: one step moves the time of the
flow by 2η/outputs, since the loss of the training is 2/outputs times the loss here.

**What the figure shows.** Left: the loss falls from plateau to plateau, each on the loss of a
critical point (dashed, with the modes that are learnt there; visits are shaded). Middle: strengths
of the modes, of the run (dots) and of the flow (lines). Mode 4 begins before mode 3, which is only
a little stronger, and gives way to it: no visit is counted in between. Both visit the same saddles
at the same times, up to one file. Right: the first mode of neighbouring layers is aligned before it
is learnt; the sharpness jumps while that mode is learnt, to a little more than the h σ_0^{2−2/h} =
20 of whitened inputs, and stays at a quarter of 2/η, beyond which the training would leave the
flow.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

WIDTH, DEPTH, STEP_SIZE, EVERY = 5, 3, 0.05, 10
STRENGTHS = (4.0, 2.8, 2.0, 1.4, 1.0)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets, samples in rows: five modes, noise, unequal inputs."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] for _ in range(2))
    X = rng.normal(size=(500, WIDTH)) * np.linspace(0.8, 1.2, WIDTH)
    return X, X @ (V * STRENGTHS) @ U.T + 0.3 * rng.normal(size=(500, WIDTH))


def train(folder: Path, n_steps: int) -> list[float]:
    """Train as anybody would; write weights into files, return the losses at these."""
    rng = np.random.default_rng(1)
    layers = [0.05 * rng.normal(size=(WIDTH, WIDTH)) for _ in range(DEPTH)]
    X, Y = data()
    losses = []
    for step in range(n_steps + 1):
        activities = [X]
        for W in layers:
            activities.append(activities[-1] @ W)
        error = activities[-1] - Y
        if step % EVERY == 0:
            np.savez(folder / f"step_{step}.npz", **{f"W{i}": W for i, W in enumerate(layers, 1)})
            losses.append(float(np.mean(error**2)))
        back, gradients = 2.0 * error / error.size, []
        for W, activity in zip(layers[::-1], activities[-2::-1], strict=True):
            gradients.append(activity.T @ back)
            back = back @ W.T
        layers = [W - STEP_SIZE * g for W, g in zip(layers, gradients[::-1], strict=True)]
    return losses


def misread(net: dl.LinearNetwork, times: np.ndarray, files: Sequence, loss: list[float]) -> None:
    """Print what is said of files whose layers were reversed, or exchanged."""
    ways = {"layers reversed": (2, 1, 0), "two layers exchanged": (0, 2, 1)}
    for words, order in ways.items():
        layers = [[snapshot[i] for i in order] for snapshot in files]
        try:
            print(f"{words}: taken {dl.as_run(net, times, layers, loss=loss).arrangement}")
        except ValueError as error:
            print(f"{words}: refused. {error}")


def draw_loss(ax: plt.Axes, net: dl.LinearNetwork, run: xr.Dataset, visits: xr.Dataset) -> None:
    """Draw the loss, and the critical values that it rests at."""
    ax.semilogy(run.time, run.loss, color="black")
    points = dl.critical_points(net).set_index(critical_point="critical_point")
    for visit in range(visits.sizes["visit"]):
        here = visits.isel(visit=visit)
        level = float(points.loss.sel(critical_point=here.critical_point.item()))
        if level > 0.0:
            ax.axhline(level, color="C1", linestyle="--", linewidth=0.8)
            ax.text(run.time[-1], level, here.critical_point.item(), ha="right", va="bottom")
        ax.axvspan(float(here.entry), float(here.exit), color="C1", alpha=0.15)
    ax.set(title="the loss and the saddles", xlabel="time $t$", ylabel="loss $L$")
    ax.set_ylim(1e-4, 50.0)


def draw_strengths(ax: plt.Axes, run: xr.Dataset, flow: xr.Dataset) -> None:
    """Draw the strengths of all modes, of the run and of the flow."""
    for j in range(WIDTH):
        ax.plot(flow.time, flow.mode_strength[:, j], color=f"C{j}", label=f"mode {j}")
        ax.plot(run.time[::5], run.mode_strength[::5, j], ".", color=f"C{j}", markersize=4)
    ax.set(title="training (dots) and flow", xlabel="time $t$", ylabel="strength $u_j^T W K v_j$")
    ax.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 0.9))


def draw_geometry(ax: plt.Axes, run: xr.Dataset, limit: float) -> None:
    """Draw how the first mode aligns, and the sharpness against where steps are unstable."""
    for level in range(1, DEPTH):
        label = f"layers {level} and {level + 1}"
        ax.plot(run.time, run.alignment[:, level, 0], color=f"C{level}", label=label)
    ax.plot(run.time, run.sharpness / limit, color="black", label="sharpness / (2/η)")
    ax.set(title="alignment and sharpness", xlabel="time $t$", ylim=(0, 1.05))
    ax.set_xlim(0.0, 12.0)
    ax.legend(fontsize=8, loc="center right")


def main() -> None:
    """Run the study and write its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps of training")
    parser.add_argument("--out", type=Path, default=Path("your_training_run.png"))
    options = parser.parse_args()
    X, Y = data()
    hidden = (WIDTH,) * (DEPTH - 1)
    net = dl.LinearNetwork.from_data(X.T, Y.T, hidden=hidden, whiten=False)
    step = STEP_SIZE * 2.0 / WIDTH  # time of the flow in one step of the training
    save = ("state", "mode_strength", "alignment", "sharpness")
    with tempfile.TemporaryDirectory() as folder:
        loss = train(Path(folder), 400 if options.quick else 2500)
        times, files = dl.read_checkpoints(folder, step_size=step, orientation="out_in")
        run = dl.as_run(net, times, files, loss=loss, save=save)
        print(f"{len(files)} files: taken {run.arrangement}; the losses are {run.recorded_loss}")
        misread(net, times, files, loss)
    flow = dl.flow(net, run.state[0], (times[0], times[-1]), times, save=("state", "mode_strength"))
    visits = dl.saddle_visits(net, run)
    for words, found in {"training": visits, "flow": dl.saddle_visits(net, flow)}.items():
        rows = zip(found.critical_point.values, found.entry.values, found.exit.values, strict=True)
        print(f"{words}: " + "; ".join(f"{p} from {a:.1f} to {b:.1f}" for p, a, b in rows))
    print(f"largest sharpness {float(run.sharpness.max()):.1f}, 2/η = {2.0 / step:.0f}")
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.5), layout="constrained")
    draw_loss(axes[0], net, run, visits)
    draw_strengths(axes[1], run, flow)
    draw_geometry(axes[2], run, 2.0 / step)
    figure.savefig(options.out, dpi=100)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
