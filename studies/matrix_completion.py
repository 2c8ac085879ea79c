"""Which matrix does a deep factorization make of some of its entries?
===================================================================

**Question.** Some entries of a matrix of low rank are observed, and a product of h full matrices is
trained on them by gradient flow from small weights. What are the other entries in the end? And is
it a norm that is kept small, as the nuclear norm is by convex completion?

**Theory.** With balanced layers the singular values of W move by ṡ_a = h s_a^{2−2/h} u_aᵀGv_a, G
= −∇ℓ(W) (ACHL19): the deeper, the more slowly what is small grows, so that W is learnt one rank
after the other. No norm tells where that ends: of a 2 × 2 matrix with W_12 = W_21 = 1 and W_22 = 0
observed, zero loss needs det W = −1, balanced layers keep the sign of det W, and so from det W > 0
|W_11| > (1 − e)²/e as e = √(2ℓ) → 0: all norms diverge where W_11 = 0 would do (RC20). They do like
W_11 ~ ((2h + 2) t)^{h/(2h+2)}.

**Method.** A random 10 × 10 matrix of rank 2 with the largest singular value 4. From ε^h times one
Gaussian matrix of size 1, as balanced layers of size ε make it, the flow of W itself is run to its
limit, loss 0 to the accuracy of the run: it holds the small singular values as logarithms, where
plain weights of a network lose what is below 1e-16 of the largest to rounding, and learn the next
one too soon. One layer is plain gradient flow of W. Error is that of the unseen entries, relative
to them.

**What the figure shows.** One layer leaves unseen entries where they were. From two layers on the
effective rank comes down to that of the matrix as ε does, and the unseen entries are right, if
enough are observed, at three layers for larger ε than at two; errors below 1e-5 say no more than
where a run ended. Singular values are learnt one after the other, and those that are not needed
stay where they were. If too few entries are observed the rank is low as well, and the unseen ones
are far off. Runs that are not over after 800 steps are left out: with few entries W may grow at
rank one for as long as the next singular value takes to be learnt. In the 2 × 2 example W_11 grows
for ever by its law, above the bound at all times, and det W keeps its sign: for h = 2 it is
e^{−774} at t = 1e4.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

SIZE, RANK, TOP, SHARE = 10, 2, 4.0, 0.6


def target() -> np.ndarray:
    """Return the matrix."""
    rng = np.random.default_rng(1)
    whole = rng.normal(size=(SIZE, RANK)) @ rng.normal(size=(RANK, SIZE))
    return TOP * whole / np.linalg.norm(whole, 2)


def run_of(depth: int, scale: float, share: float) -> tuple[xr.Dataset, np.ndarray]:
    """Return the run of one completion, and which entries it has seen."""
    Y = target()
    seen = np.random.default_rng(2).random(Y.shape) < share
    loss = dl.losses.completion(Y.shape, *np.nonzero(seen), Y[seen])
    start = scale**depth * np.random.default_rng(3).normal(size=Y.shape) / (2.0 * np.sqrt(SIZE))
    net = dl.LossNetwork((SIZE,) * (depth + 1), loss)
    names = ["product", "effective_rank", "singular_value"]
    options = {"rtol": 1e-6, "save": names, "max_steps": 800}
    if depth == 1:
        return dl.flow(net, net.pack([start]), **options), seen
    prod = dl.ProductFlow(net, rank=SIZE)
    return dl.flow(prod, prod.factor(start), **options), seen


def completed(depth: int, scale: float, share: float) -> tuple[float, float]:
    """Return effective rank and error of the unseen entries where a run ends."""
    run, seen = run_of(depth, scale, share)
    if not int(run["limit_decision"]):
        return np.nan, np.nan
    Y, W = target(), run["product"].values[-1]
    error = np.linalg.norm((W - Y)[~seen]) / np.linalg.norm(Y[~seen])
    return float(run["effective_rank"][-1]), float(error)


def measure(depths: list[int], scales: np.ndarray, shares: np.ndarray) -> xr.Dataset:
    """Return ends over depths and scales at one share, and over shares at the smallest scale."""
    half = np.array([[completed(h, e, SHARE) for e in scales] for h in depths])
    small = np.array([[completed(h, scales[-1], s) for s in shares] for h in depths])
    variables = {
        "effective_rank": (("depth", "scale"), half[..., 0]),
        "error": (("depth", "scale"), half[..., 1]),
        "error_of_share": (("depth", "share"), small[..., 1]),
    }
    coords = {"depth": depths, "scale": scales, "share": shares}
    return xr.Dataset(variables, coords=coords)


def diverging(depth: int) -> xr.Dataset:
    """Return the run of the 2 × 2 example."""
    loss = dl.losses.completion((2, 2), [0, 1, 1], [1, 0, 1], [1.0, 1.0, 0.0])
    prod = dl.ProductFlow(dl.LossNetwork((2,) * (depth + 1), loss), rank=2)
    start = prod.factor([[0.3, 0.1], [0.05, 0.2]])
    names = ["product", "log_singular_value", "determinant_sign"]
    return dl.flow(prod, start, (0.0, 1e4), save=names)


def report(data: xr.Dataset, runs: dict[int, xr.Dataset]) -> None:
    """Print ranks and errors, and the growth against its law."""
    for name in ("effective_rank", "error", "error_of_share"):
        print(name)
        print(data[name].to_pandas().to_string(float_format="{:.3g}".format))
    for depth, run in runs.items():
        time, growth = float(run["time"][-1]), float(abs(run["product"][-1, 0, 0]))
        law = ((2 * depth + 2) * time) ** (depth / (2 * depth + 2))
        late = np.sqrt(2 * run["loss"].values) < 1.0
        e = np.sqrt(2 * run["loss"].values[late])
        above = np.abs(run["product"].values[late, 0, 0]) * e / (1 - e) ** 2
        print(f"h = {depth}: W_11 over its law at t = {time:g}: {growth / law:.4f}, ", end="")
        print(f"over the bound at least {above.min():.4f}, ", end="")
        sign, volume = float(run["determinant_sign"].min()), run["log_singular_value"][-1].sum()
        print(f"sign of det W {sign:+.0f}, ln |det W| = {float(volume):.1f}")


def draw(data: xr.Dataset, runs: dict[int, xr.Dataset], learnt: xr.Dataset) -> plt.Figure:
    """Draw ranks, errors, the singular values of one run over time, and the growth."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.5), constrained_layout=True)
    for i, depth in enumerate(data["depth"].values):
        part, style = data.sel(depth=depth), {"color": f"C{i}", "marker": "o", "ms": 4}
        label = f"h = {depth}"
        axes[0, 0].semilogx(data["scale"], part["effective_rank"], label=label, **style)
        axes[0, 1].loglog(data["scale"], part["error"], label=label, **style)
        axes[1, 0].semilogy(data["share"], part["error_of_share"], label=label, **style)
    axes[0, 0].axhline(RANK, color="0.6", ls="--")
    for depth, run in runs.items():
        time, growth = run["time"].values[1:], np.abs(run["product"].values[1:, 0, 0])
        color = f"C{depth - 1}"
        axes[1, 1].loglog(time, growth, color=color, label=f"h = {depth}")
        law = ((2 * depth + 2) * time) ** (depth / (2 * depth + 2))
        axes[1, 1].loglog(time, law, color=color, ls=":")
        fall = -run["log_singular_value"].values[1:].sum(axis=1)
        axes[1, 2].loglog(time, fall, color=color, label=f"h = {depth}")
    axes[1, 1].set(xlim=(1.0, 1e4), ylim=(0.5, 200.0))
    axes[1, 2].set(xlim=(1.0, 1e4), xlabel="t", ylabel="−ln det W", title="2 × 2: det W > 0")
    values = np.maximum(learnt["singular_value"].values, 1e-30)
    for mode in range(4):
        axes[0, 2].semilogy(
            learnt["time"] / 1e3, values[:, mode], color=f"C{mode}", label=f"s_{mode + 1}"
        )
    axes[0, 2].set(xlabel="t / 1000", ylabel="singular value", title="h = 3, ε = 1e-3")
    axes[0, 0].set(
        xlabel="ε", ylabel="effective rank", title=f"{SHARE:.0%} of the entries observed"
    )
    axes[0, 1].set(xlabel="ε", ylabel="error of unseen entries", title=f"{SHARE:.0%} observed")
    axes[1, 0].set(xlabel="share observed", ylabel="error of unseen entries")
    axes[1, 0].set_title(f"ε = {float(data['scale'][-1]):g}")
    axes[1, 1].set(xlabel="t", ylabel="|W_11|", title="2 × 2: W_11 and its law (dots)")
    for ax in axes.ravel():
        ax.legend(fontsize=8)
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer shares, scales and depths")
    parser.add_argument("--out", type=Path, default=Path("matrix_completion.png"))
    options = parser.parse_args()
    if options.quick:
        data = measure([1, 2, 3], np.array([1.0, 1e-3]), np.array([0.3, 0.6]))
    else:
        scales, shares = 10.0 ** -np.arange(0.0, 7.0, 2.0), np.linspace(0.3, 0.8, 4)
        data = measure([1, 2, 3, 4], scales, shares)
    runs = {depth: diverging(depth) for depth in (2, 3, 4)}
    report(data, runs)
    draw(data, runs, run_of(3, 1e-3, SHARE)[0]).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
