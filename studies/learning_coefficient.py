"""How well do Langevin chains estimate learning coefficients?
===========================================================

**Question.** Estimators of the local learning coefficient are tried on deep linear networks, since
the truth is known there. How close do they come, and what of the difference is chance, temperature,
or step size?

**Theory.** The global minima {W = W*} of widths d_0, …, d_h have the learning coefficient λ of a
formula in Δ_i = d_i − rank W* (AW05, Ao24): half the codimension (LR24). With the density ∝
exp(−L/T − ½ γ |x − x*|²), (E[L] − L_min)/T tends to λ as T → 0, like λ − (m − 1)/ln(1/T) where the
order m of the singularity is above one, and fast where the minima are a manifold, m = 1. A Langevin
step of length η raises the part ½ of an eigenvalue κ of the Hessian to ½/(1 − ηκ/2).

**What the figure shows.** Left: λ over the rank of the map, for two to four layers of width three:
exact values as lines, and estimates by chains that stay near a smooth point of the largest sheet of
minima, with three standard errors. Middle: chains around the most singular minimum, all layers
zero, as the temperature falls, with λ dashed. Two units in a chain, m = 2, are at what a quadrature
gives (line) and reach λ = ½ at no temperature that one can sample; nor does m = 3, while two layers
of width two, m = 1, are there at T = 3e-4. Right: the estimate over λ for steps up to ηκ = 1.8 of
the largest eigenvalue, and what the steps of a quadratic loss do (lines): at ηκ = 0.5, where
descent is quick and safe, a quarter too much, at ηκ = 1 two thirds, and no error bar tells.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import dlnds as dl

WIDTH, DEPTHS = 3, (2, 3, 4)
COLORS = ("#2166ac", "#1b7837", "#b2182b")
#: Width, layers, temperatures of chains around the most singular minimum.
SINGULAR = ((1, 2), (2, 2), (2, 3))
TEMPERATURES = np.logspace(-1, -4, 7)
#: Local chains: temperature, and the precision with which they are held.
COLD, HELD = 1e-7, 1000.0
#: ηκ of those whose steps should not be seen: they raise estimates by a quarter of a per cent.
STEP = 0.005


def network(width: int, depth: int, rank: int) -> dl.LinearNetwork:
    """Return a network of equal widths that learns a map of a rank."""
    sigma = np.where(np.arange(width) < rank, 1.0 + 0.3 * np.arange(width)[::-1], 0.0)
    return dl.LinearNetwork((width,) * (depth + 1), np.diag(np.sort(sigma)[::-1]))


def smooth_point(net: dl.LinearNetwork) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth minimum of the largest sheet, and the nonzero eigenvalues of the Hessian.

    Diagonal layers: units beyond the rank are cut in one layer each, as evenly as possible.
    """
    rank, sizes = net.max_rank, np.ones((net.depth, WIDTH))
    sizes[:, :rank] = net.singular_values[:rank] ** (1.0 / net.depth)
    for unit in range(rank, WIDTH):
        sizes[(unit - rank) % net.depth, unit] = 0.0
    x = net.pack([np.diag(size) for size in sizes])
    local = dl.learning_coefficient(net, at=x)
    assert dl.schema.decode(local.decision).item() == "smooth_point"
    assert local.learning_coefficient == dl.learning_coefficient(net).learning_coefficient
    return x, dl.linearize(net, x).eigenvalue.values[-int(2 * local.learning_coefficient) :]


def estimate(
    net: dl.LinearNetwork, x: np.ndarray, kappa: np.ndarray, step: float, n_steps: int
) -> tuple[float, float]:
    """Return the estimate near a smooth minimum and its standard error; ``step`` is ηκ_max."""
    eta = step / kappa[-1]
    chain = dl.sample(
        net,
        x,
        temperature=COLD,
        step_size=eta,
        n_steps=n_steps,
        burn_in=int(10.0 / (eta * kappa[0])),
        localization=HELD,
        every=5,
        rng=0,
    )
    return float(chain.mean_loss) / COLD, float(chain.standard_error) / COLD


def over_ranks(n_steps: int) -> dict[int, np.ndarray]:
    """Return rows of rank, λ, its estimate and the error of that, for each depth."""
    found = {}
    for depth in DEPTHS:
        rows = []
        for rank in range(WIDTH + 1):
            net = network(WIDTH, depth, rank)
            exact = dl.learning_coefficient(net)
            value, error = estimate(net, *smooth_point(net), STEP, n_steps)
            true = float(exact.learning_coefficient)
            rows.append([rank, true, value, error])
            print(
                f"{depth} layers, rank {rank}: λ = {true:g} (order {int(exact.order)}), estimate "
                f"{value:.3f} ± {error:.3f}, off by {(value - true) / error:+.1f} errors"
            )
        found[depth] = np.array(rows)
    return found


def two_units(temperature: np.ndarray) -> np.ndarray:
    """Return E[L]/T of L = ½ (w_1 w_2)² with two normal weights of variance one, by quadrature."""
    w = np.linspace(-12.0, 12.0, 2_000_001)
    found = []
    for T in temperature:
        inner = 1.0 + w**2 / T
        weight = np.exp(-0.5 * w**2) / np.sqrt(inner)
        found.append(np.sum(weight * 0.5 * (1.0 - 1.0 / inner)) / np.sum(weight))
    return np.array(found)


def as_it_cools(n_steps: int) -> dict[tuple[int, int], np.ndarray]:
    """Return rows of estimate and error over the temperatures, from all layers zero."""
    found = {}
    for width, depth in SINGULAR:
        net, rows = network(width, depth, 0), []
        for T in TEMPERATURES:
            chains = dl.sample(
                net,
                np.zeros((4, net.dim)),
                temperature=T,
                step_size=0.02,
                n_steps=n_steps,
                burn_in=n_steps // 10,
                localization=1.0,
                every=10,
                rng=0,
                workers=2,
            )
            error = np.sqrt(float((chains.standard_error**2).mean()) / 4.0)
            rows.append([float(chains.mean_loss.mean()) / T, error / T])
        found[width, depth] = np.array(rows)
        info = dl.learning_coefficient(net)
        print(
            f"{depth} layers of width {width} at zero: λ = {float(info.learning_coefficient):g}, "
            f"order {int(info.order)}; estimates "
            + ", ".join(f"{value:.3f} ± {error:.3f}" for value, error in rows)
        )
    return found


def over_steps(steps: np.ndarray, n_steps: int) -> dict[int, np.ndarray]:
    """Return rows of the estimate and its error over λ, and of what a quadratic loss gives."""
    found = {}
    for depth in DEPTHS:
        net = network(WIDTH, depth, WIDTH)
        x, kappa = smooth_point(net)
        rows = []
        for step in steps:
            value, error = estimate(net, x, kappa, step, n_steps)
            law = np.sum(0.5 / (1.0 - 0.5 * step * kappa / kappa[-1]))
            rows.append(np.array([value, error, law]) / (0.5 * len(kappa)))
        found[depth] = np.array(rows)
        print(
            f"{depth} layers, estimates over λ by ηκ: "
            + ", ".join(f"{s:g}: {v:.3f}" for s, (v, _, _) in zip(steps, rows, strict=True))
        )
    return found


def draw(ranks: dict, cooling: dict, steps: np.ndarray, raised: dict) -> plt.Figure:
    """Draw all three pictures."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.5), constrained_layout=True)
    for aside, depth, color in zip((-0.08, 0.0, 0.08), DEPTHS, COLORS, strict=True):
        rank, true, value, error = ranks[depth].T
        left.plot(rank, true, color=color, lw=1, label=f"h = {depth}")
        left.errorbar(rank + aside, value, 3 * error, fmt="o", color=color, ms=4, capsize=3)
        value, error, law = raised[depth].T
        right.plot(steps, law, color=color, lw=1)
        right.errorbar(steps, value, 3 * error, fmt="o", color=color, ms=4, capsize=3)
    left.set(xlabel="rank of $W^*$", ylabel=r"learning coefficient $\lambda$")
    left.set_xticks(range(WIDTH + 1))
    left.legend(title=f"width {WIDTH}", fontsize=8)
    for (width, depth), color in zip(SINGULAR, COLORS, strict=True):
        value, error = cooling[width, depth].T
        info = dl.learning_coefficient(network(width, depth, 0))
        label = f"width {width}, h = {depth}: m = {int(info.order)}"
        middle.errorbar(TEMPERATURES, value, 3 * error, fmt="o", color=color, ms=4, label=label)
        middle.axhline(float(info.learning_coefficient), color=color, lw=0.8, ls="--")
    fine = np.logspace(-1, -4, 31)
    middle.plot(fine, two_units(fine), color=COLORS[0], lw=1)
    middle.set(xscale="log", xlabel="temperature $T$", ylabel=r"$(E[L] - L_{min})/T$")
    middle.invert_xaxis()
    middle.legend(fontsize=8, loc=(0.4, 0.35))
    right.axhline(1.0, color="0.6", lw=0.8, ls="--")
    right.set(
        xlabel=r"step size $\eta\kappa_{max}$", ylabel=r"estimate over $\lambda$", yscale="log"
    )
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter chains")
    parser.add_argument("--out", type=Path, default=Path("learning_coefficient.png"))
    options = parser.parse_args()
    n_steps = 50_000 if options.quick else 1_000_000
    steps = np.array([0.02, 0.1, 0.25, 0.5, 1.0, 1.5, 1.8])
    ranks = over_ranks(n_steps)
    cooling, raised = as_it_cools(n_steps), over_steps(steps, n_steps)
    draw(ranks, cooling, steps, raised).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
