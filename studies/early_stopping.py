"""When should training stop if a teacher's data are noisy?
========================================================

**Question.** A linear teacher makes the data, and noise is added. The network learns the teacher
first and the noise later, so that the test error falls and rises again. When is it least, by how
much does stopping then help, and does depth change that?

**Theory.** In the whitened inputs an aligned run keeps the singular vectors u_j, v_j of what it
is trained on, and its test error is a sum over modes: E = ½‖T‖² + ½ Σ p_j² − Σ p_j u_jᵀ T v_j,
with the map T of the teacher. Mode j is best at p*_j = u_jᵀ T v_j, and the time law of one mode
says when it gets there (AS20, LG19, SMG14). For a teacher of rank one and strength θ, and an n ×
m matrix of noise with variance 1/m, A = n/m, the overlaps of the first mode with the teacher are
known for large matrices: c² = (1 − A(1 + θ²)/(θ²(θ² + A))) (1 − (A + θ²)/(θ²(θ² + 1))), and none
is left for θ⁴ < A.

**What the figure shows.** Left: the test error over time, in units of the time at which it is least
for aligned starts, for one to four layers: the closed form as lines, aligned runs as dots, runs
from Gaussian starts of about the same size dashed. A single layer learns teacher and noise at the
same time, and the best of it is poor; with more layers the strong mode of the teacher comes first,
and the error falls to half of that. It rises again in steps, one for each mode of noise. Right: the
least error against the strength of the teacher, that in the end, and what the overlaps of the first
mode alone say, for two layers: below θ⁴ = A the best is not to train at all.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import dlnds as dl

DEPTHS = (1, 2, 3, 4)
START = 1e-3
THETA, NOISE = 2.0, 0.5
COLORS = ("#762a83", "#2166ac", "#1b7837", "#b2182b")


def spiked(theta: float, n: int, m: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a teacher of rank one, and it with noise of variance 1/m."""
    u, v = rng.normal(size=n), rng.normal(size=m)
    teacher = theta * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    return teacher, teacher + rng.normal(size=(n, m)) / np.sqrt(m)


def network(target: np.ndarray, depth: int) -> dl.LinearNetwork:
    """Return the network that is trained on a target, all hidden layers as wide as the ends."""
    n, m = target.shape
    return dl.LinearNetwork((m, *[max(n, m)] * (depth - 1), n), target)


def curves(n: int, m: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Return times and errors of closed form, aligned and Gaussian runs for each depth."""
    teacher, target = spiked(THETA, n, m, np.random.default_rng(seed))
    found = []
    for depth in DEPTHS:
        net = network(target, depth)
        stop = dl.early_stopping(net, teacher, strength=START)
        best = float(stop.best_time)
        grid = np.concatenate([[0.0], best * np.logspace(-1.5, 2.0, 281)])
        aligned = net.initial("aligned", scale=START ** (1.0 / depth))
        exact = dl.exact_flow(net, aligned, grid)
        run = dl.flow(net, aligned, (0.0, grid[-1]), grid)
        gaussian = net.initial(scale=START ** (1.0 / depth) / np.sqrt(m), rng=seed)
        other = dl.flow(net, gaussian, (0.0, grid[-1]), grid)
        curve = {
            name: dl.generalization_error(net, rows, teacher)
            for name, rows in (("exact", exact), ("aligned", run), ("gaussian", other))
        }
        off = abs(float(curve["exact"].lowest_error) / float(stop.lowest_error) - 1.0)
        runs = np.abs(curve["aligned"].generalization_error / curve["exact"].generalization_error)
        late = curve["gaussian"]
        print(
            f"{depth} layers: best at t = {best:.4g}, error {float(stop.lowest_error):.5f} (on the "
            f"grid {off:.1e} more), in the end {float(stop.error_at_end):.5f}; runs off by "
            f"{float(np.abs(runs - 1.0).max()):.1e}; Gaussian start: best "
            f"{float(late.lowest_error):.5f} at {float(late.best_time):.4g}"
        )
        found.append({"best": np.array(best), **curve})
    return found


def overlap(theta: np.ndarray, ratio: float) -> np.ndarray:
    """Return c² of the first mode with the teacher, for large matrices of n/m = ``ratio``."""
    left = 1.0 - ratio * (1.0 + theta**2) / (theta**2 * (theta**2 + ratio))
    right = 1.0 - (ratio + theta**2) / (theta**2 * (theta**2 + 1.0))
    return np.where(theta**4 > ratio, left * right, 0.0)


def strengths(thetas: np.ndarray, n: int, m: int, seed: int) -> np.ndarray:
    """Return least and last errors, and that of the first mode alone, in units of ½ θ²."""
    rows = []
    for theta in thetas:
        teacher, target = spiked(theta, n, m, np.random.default_rng(seed))
        stop = dl.early_stopping(network(target, 2), teacher, strength=1e-6)
        first = 1.0 - (float(stop.optimal_strength[0]) / theta) ** 2
        rows.append([float(stop.lowest_error), float(stop.error_at_end), 0.5 * theta**2 * first])
    return np.array(rows) / (0.5 * thetas[:, None] ** 2)


def draw(found: list[dict], thetas: np.ndarray, errors: np.ndarray, ratio: float) -> plt.Figure:
    """Draw both pictures."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    for depth, color, curve in zip(DEPTHS, COLORS, found, strict=True):
        for name, style in (("exact", "-"), ("aligned", "."), ("gaussian", "--")):
            error = curve[name].generalization_error
            every = slice(1, None, 8) if name == "aligned" else slice(1, None)
            label = f"h = {depth}" if name == "exact" else None
            left.plot(
                error.time[every] / curve["best"], error[every], style, color=color, label=label
            )
    left.plot([], [], "k.", label="aligned runs")
    left.plot([], [], "k--", label="Gaussian starts")
    left.set(xscale="log", xlim=(0.1, 30.0), xlabel="$t / t_{best}$", ylabel="test error $E_g$")
    left.legend(fontsize=8)
    fine = np.linspace(thetas[0], thetas[-1], 300)
    right.plot(fine, 1.0 - overlap(fine, ratio), "k-", lw=1, label="first mode, large matrices")
    right.plot(thetas, errors[:, 2], "k.", label="first mode at its best")
    right.plot(thetas, errors[:, 0], "o", color=COLORS[1], ms=4, label="all modes at the best time")
    right.plot(thetas, errors[:, 1], "x", color=COLORS[3], ms=5, label="in the end")
    right.axvline(ratio**0.25, color="0.6", lw=0.8, ls=":")
    right.annotate(r"$\theta^4 = A$", (ratio**0.25, 0.2), (3, 0), textcoords="offset points")
    right.set(xlabel=r"strength of the teacher $\theta$", yscale="log")
    right.set_ylabel(r"$E_g / (\theta^2/2)$")
    right.legend(fontsize=8)
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller matrices")
    parser.add_argument("--out", type=Path, default=Path("early_stopping.png"))
    options = parser.parse_args()
    small, large = ((6, 12), (20, 40)) if options.quick else ((10, 20), (100, 200))
    found = curves(*small, seed=0)
    thetas = np.linspace(0.6, 3.0, 7 if options.quick else 13)
    errors = strengths(thetas, *large, seed=1)
    draw(found, thetas, errors, large[0] / large[1]).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
