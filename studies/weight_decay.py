"""How do the critical points of a deep linear network change with weight decay?
=============================================================================

**Question.** Weight decay λ/2 Σ‖W_i‖² replaces the continua of critical points by orbits of the
orthogonal group. Which are there, where do they end, and which are stable? The equations are
singular at every solution, by the symmetry; do continuation modulo symmetry and the closed forms
agree?

**Theory.** With λ ≠ 0 critical points are balanced: each mode has one size s in all layers, with s
= 0 or λ = s^{h−2}(σ − s^h). For h = 2 that is a pitchfork at λ = σ. For h ≥ 3 it has two solutions
s below the fold at s^h = (h−2)σ/(2h−2), and s = 0 is stable for all λ > 0.

**Method.** Σ = diag(3, 2, 1), widths 3. Critical points are balanced, with λ = s^{h−2} (σ − s^h)
for the size s of each mode. For h = 2 all branches are found from one by `diagram`. For h = 3 and 4
each mode is absent, or on the upper or lower of two solutions: 3³ = 27 orbits at λ = 0.01, of which
two and two meet in folds. Branches are followed from one of each pair (`equilibria`, `branch`).

**What the figure shows.** The sum of the sizes of all modes in a layer, which tells all solutions
apart. Full lines are minima of the regularized loss; a line is named by the modes that have learnt,
with ⁺ or ⁻ for the upper or lower solution. Two layers: modes die one
by one in pitchforks at λ = σ_j, and at each λ the minimum has learnt all modes with σ_j > λ. Three
and four layers: a mode lives up to the fold at s^h = (h − 2)σ/(2h − 2), where it vanishes at once;
the branch in which all modes are absent is stable for all λ > 0. All folds agree with the closed
form to 1e-12, the dimension of the kernel is that of the orbit at every regular point, and the
branches meet λ = 0.01 in 27 different orbits.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

DECAY = 0.01
SIGMA = (3.0, 2.0, 1.0)


def network(depth: int, sigma: tuple[float, ...]) -> dl.LinearNetwork:
    """Return the network with as many units in each layer as modes."""
    return dl.LinearNetwork(widths=(len(sigma),) * (depth + 1), target=np.diag(sigma))


def sizes_at(sigma: float, decay: float, depth: int) -> list[float]:
    """Return the positive roots s of λ = s^{h−2} (σ − s^h), ascending."""
    coefficients = np.zeros(2 * depth - 1)
    coefficients[[0, depth, -1]] = -1.0, sigma, -decay
    if depth == 2:
        coefficients = np.array([-1.0, 0.0, sigma - decay])
    roots = np.roots(coefficients)
    return np.sort(roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 1e-9)].real).tolist()


def state(net: dl.LinearNetwork, sizes: list[float]) -> np.ndarray:
    """Return the aligned balanced state with these sizes of the modes."""
    return net.pack([np.diag(sizes)] * net.depth)


def total_size(width: int) -> Callable[[np.ndarray, float], float]:
    """Return the function that sums the sizes of the modes, the singular values of a layer."""

    def total(x: np.ndarray, decay: float) -> float:
        layer = x[: width**2].reshape(width, width)
        return float(np.linalg.svd(layer, compute_uv=False).sum())

    return total


def two_layers(sigma: tuple[float, ...]) -> list[xr.Dataset]:
    """Return all branches of two layers, found from the one with all modes."""
    net = network(2, sigma)
    start = state(net, [sizes_at(s, 0.3, 2)[-1] for s in sigma])
    tree = dl.diagram(
        dl.equilibria(net, "weight_decay"), start, 0.3,
        bounds=(0.1, 1.15 * max(sigma)), depth=2 * len(sigma), step_max=0.3,
    )  # fmt: skip
    return [node.to_dataset() for node in tree.children.values()]


def deep(depth: int, sigma: tuple[float, ...]) -> list[xr.Dataset]:
    """Return one branch for each pair of orbits that meet in a fold, and that of the origin."""
    net = network(depth, sigma)
    equation = dl.equilibria(net, "weight_decay")
    branches = []
    for choice in itertools.product((None, 0, 1), repeat=len(sigma)):
        there = [j for j, c in enumerate(choice) if c is not None]
        if there and choice[there[-1]] == 0:
            continue  # the other end of the branch where the smallest mode is on its upper solution
        sizes = [
            0.0 if c is None else sizes_at(s, DECAY, depth)[c]
            for c, s in zip(choice, sigma, strict=True)
        ]
        branches.append(
            dl.branch(
                equation, state(net, sizes), DECAY, bounds=(DECAY, 1.05 * fold(max(sigma), depth)),
                direction="up", step_max=0.2,
            )
        )  # fmt: skip
    return branches


def fold(sigma: float, depth: int) -> float:
    """Return λ at the fold of a mode."""
    s = ((depth - 2) * sigma / (2 * depth - 2)) ** (1.0 / depth)
    return s ** (depth - 2) * depth * sigma / (2 * depth - 2)


def orbits(branches: list[xr.Dataset]) -> int:
    """Return how many different orbits the branches have at λ = DECAY, by their singular values."""
    ends = []
    for branch in branches:
        for row in (0, -1):
            if abs(float(branch.p[row]) - DECAY) < 1e-9:
                layer = dl.weights(branch.isel(step=row), layer=1).values
                ends.append(np.round(np.linalg.svd(layer, compute_uv=False), 6))
    return len(np.unique(ends, axis=0))


def report(
    depth: int, sigma: tuple[float, ...], branches: list[xr.Dataset], seconds: float
) -> None:
    """Print what was found, beside what is known."""
    points = [dl.special_points(branch) for branch in branches]
    rows = sum(branch.sizes["step"] for branch in branches)
    values = np.concatenate([p.p.values for p in points])
    print(f"{depth} layers: {len(branches)} branches, {rows} points, {seconds:.1f} s")
    known = np.array(sigma if depth == 2 else [fold(s, depth) for s in sigma])
    off = np.abs(values[:, None] - known).min(axis=1).max(initial=0.0)
    kinds = np.concatenate([dl.schema.decode(p.event).values for p in points])
    counts = ", ".join(f"{(kinds == k).sum()} {dl.schema.spoken(k)}" for k in np.unique(kinds))
    print(f"  {counts}; furthest from the closed form {off:.1e}")
    regular = [branch.isel(step=branch.event.values == 0) for branch in branches]
    same = all((b.nullity == b.orbit_dimension).all() for b in regular)
    print(f"  kernel as large as the orbit at all regular points: {bool(same)}")
    if depth > 2:
        print(f"  orbits at {DECAY:g}: {orbits(branches)}, expected {3 ** len(sigma)}")


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two modes only")
    parser.add_argument("--out", type=Path, default=Path("weight_decay.png"))
    options = parser.parse_args()
    sigma = SIGMA[-2:] if options.quick else SIGMA
    figure, axes = plt.subplots(1, 3, figsize=(18, 5.5), layout="constrained")
    for ax, depth in zip(axes, (2, 3, 4), strict=True):
        begin = time.perf_counter()
        branches = two_layers(sigma) if depth == 2 else deep(depth, sigma)
        report(depth, sigma, branches, time.perf_counter() - begin)
        tree = xr.DataTree.from_dict({str(k): branch for k, branch in enumerate(branches)})
        dl.plot.branches(tree, y=total_size(len(sigma)), ax=ax)
        ax.set(
            title=f"{depth} layers", xlabel=r"weight decay $\lambda$",
            ylabel=r"sizes of the modes in a layer, $\sum_j s_j$",
        )  # fmt: skip
    figure.savefig(options.out, dpi=130)


if __name__ == "__main__":
    main()
