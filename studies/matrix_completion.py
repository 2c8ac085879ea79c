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

**Method.** A random 10 × 10 matrix of rank 2 with the largest singular value 4; layers of Gaussian
entries with standard deviation ε/√10; runs to their limit, loss 0 to the accuracy of the run. Error
is that of the unseen entries, relative to them. The 2 × 2 example starts from balanced layers.

**What the figure shows.** One layer leaves unseen entries where they were. From two layers on the
effective rank comes down to that of the matrix as ε does, and the unseen entries are right, if
enough are observed, at three layers for larger ε than at two. If too few are, the rank is low as
well, and deeper layers are further off. Runs that are not over after 3000 steps (four layers at ε =
1e-6) are left out. In the 2 × 2 example W_11 grows for ever by its law, above
the bound at all times. It is not shown beyond t = 30 for h = 2, where det W is less than the
rounding of its terms and plain weights lose its sign.

Run it with ``python studies/matrix_completion.py``; ``--quick`` uses fewer shares, scales and
depths.
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


def completed(depth: int, scale: float, share: float) -> tuple[float, float]:
    """Return effective rank and error of the unseen entries where a run ends."""
    Y = target()
    seen = np.random.default_rng(2).random(Y.shape) < share
    rows, columns = np.nonzero(seen)
    loss = dl.losses.completion(Y.shape, rows, columns, Y[seen])
    net = dl.LossNetwork((SIZE,) * (depth + 1), loss)
    start = net.initial(scale=scale / np.sqrt(SIZE), rng=3)
    names = ["product", "effective_rank"]
    run = dl.flow(net, start, rtol=1e-6, save=names, max_steps=3000)
    if not int(run["limit_decision"]):
        return np.nan, np.nan
    W = run["product"].values[-1]
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
    net = dl.LossNetwork((2,) * (depth + 1), loss)
    left, sizes, right = np.linalg.svd([[0.3, 0.1], [0.05, 0.2]])
    root = np.diag(sizes ** (1.0 / depth))
    start = net.pack([root @ right, *[root] * (depth - 2), left @ root])
    return dl.flow(net, start, (0.0, 30.0 if depth == 2 else 1e4), save=["product"])


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
        print(f"over the bound at least {above.min():.4f}")


def draw(data: xr.Dataset, runs: dict[int, xr.Dataset]) -> plt.Figure:
    """Draw ranks, errors, and the growth."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7.5), constrained_layout=True)
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
    axes[1, 1].set(xlim=(1.0, 1e4), ylim=(0.5, 200.0))
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
    draw(data, runs).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
