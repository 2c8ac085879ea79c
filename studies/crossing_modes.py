"""What happens to the saddles of a deep linear network when its data change?
==========================================================================

**Question.** At a critical point A_S the modes j in S of the data are learnt. Along a path of data
Σ(θ) its Hessian has the eigenvalues s_j^{h−2} (σ_j − σ_k), j in S, k not in S, which change sign
where two singular values cross. Does the Morse index jump there, and only there? What if a singular
value vanishes, and what along paths between real data?

**Theory.** At A_S the loss is ½ Σ_{k∉S} σ_k². Its Hessian has, across the orbit, the eigenvalues
s_j^{h−2}(σ_j ± σ_k) for j in S and k not in S (WA25). The index changes where σ_j = σ_k. Matrices
with two equal singular values have codimension 2: a path meets them only by symmetry.

**Method.** Critical points are followed in θ from A_S, over all S of one and two of three modes,
for two and three layers (`equilibria` with ``vary="target"``, `branch`). Without weight decay they
are continua: GL acts on each hidden layer, and units that learn nothing add further directions.
Hidden layers therefore have as many units as S has modes: then the orbit of GL is the whole
continuum, of dimension (h − 1)|S|², and the declared generators make the start regular.

- *Crossing*: Σ = diag(3, 1 + θ, 2 − θ): equal singular values at θ = 1/2.
- *Vanishing*: Σ = diag(3, 2, 1 − 2θ), zero at θ = 1/2.
- *Generic*: the crossing path plus a small fixed matrix.
- *Digits*: from the even to the odd images, on five principal components of inputs and of outputs;
  the second and third singular value come near to each other on the way.

**What the figure shows.** Above the loss, full lines where the index is zero, dashed ones
elsewhere; below the eigenvalue nearest to zero of two of the branches, computed (dots) and in
closed form (lines). Crossing: the critical values of {0,1} and {0,2} cross, their eigenvalue passes
zero, and they exchange stability in a branch point; the index of {1} and {2} changes in the same
way, {0} and {1,2} have nothing to exchange. Vanishing: the index never changes, the rank drops at
one point. Two layers turn round there, as s² = σ, and come back as a mirror image of themselves,
three go on with a negative s. Generic and digits: the lines avoid each other, and no index changes.
All events, indices and maps W = P_S Σ are as the theory says. The dots for generic paths and
h = 3 are a little off their lines, which are for balanced critical points: those found
drift along their continuum, in proportion to the step; index and W do not depend on that.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

NOISE = 0.1
COMPONENTS = 5
#: Index sets whose eigenvalues are drawn.
SHOWN = ((0, 1), (0, 2))


class DataPath(NamedTuple):
    """A path of data, and whether its singular vectors stay, so that modes keep their number."""

    name: str
    target: Callable[[float], np.ndarray]
    aligned: bool


def straight(name: str, first: np.ndarray, last: np.ndarray, aligned: bool) -> DataPath:
    """Return the straight path between two targets."""
    return DataPath(name, lambda p: (1.0 - p) * first + p * last, aligned)


def halves_of_digits() -> list[np.ndarray]:
    """Return the whitened targets of the even and of the odd images."""
    data = dl.read_csv("digits")
    reduced = []
    for samples in (data.X.values, data.Y.values):
        left = np.linalg.svd(samples, full_matrices=False)[0][:, :COMPONENTS]
        left = left * np.sign(left.sum(axis=0))  # a sign that rounding does not choose
        reduced.append(left.T @ samples)
    targets = []
    for part in (slice(0, None, 2), slice(1, None, 2)):
        x, y = (samples[:, part] for samples in reduced)
        sizes, axes = np.linalg.eigh(x @ x.T / x.shape[1])
        targets.append(y @ x.T / x.shape[1] @ (axes / np.sqrt(sizes)) @ axes.T)
    return targets


def paths() -> list[DataPath]:
    """Return the four paths."""
    start, end = np.diag([3.0, 1.0, 2.0]), np.diag([3.0, 2.0, 1.0])
    noise = NOISE * np.random.default_rng(0).normal(size=(3, 3))
    return [
        straight("crossing", start, end, True),
        straight("vanishing", np.diag([3.0, 2.0, 1.0]), np.diag([3.0, 2.0, -1.0]), True),
        straight("generic", start + noise, end + noise, False),
        straight("digits", *halves_of_digits(), False),
    ]


def modes(path: DataPath, p: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return left vectors, values and right vectors (rows) of the modes at a point of the path."""
    target = path.target(p)
    if path.aligned:
        return np.eye(len(target)), np.diag(target), np.eye(len(target))
    return np.linalg.svd(target)


def follow(path: DataPath, learnt: tuple[int, ...], depth: int) -> xr.Dataset:
    """Return the branch of A_S along the path."""
    left, sigma, right = modes(path, 0.0)
    rank, chosen = len(learnt), list(learnt)
    size = np.diag(sigma[chosen] ** (1.0 / depth))
    layers = [size @ right[chosen], *[size] * (depth - 2), left[:, chosen] @ size]
    first, last = path.target(0.0), path.target(1.0)
    net = dl.LinearNetwork(widths=(len(right), *(rank,) * (depth - 1), len(left)), target=first)
    equation = dl.equilibria(net, vary="target", path=[first, last])
    return dl.branch(
        equation, net.pack(layers), 0.0, bounds=(0.0, 1.0), direction="up", step_max=0.2
    )


def end_to_end(branch: xr.Dataset) -> np.ndarray:
    """Return the maps W of all rows."""
    product = dl.weights(branch, layer=1).values
    for layer in range(2, int(branch.layer.max()) + 1):
        product = dl.weights(branch, layer=layer).values @ product
    return product


def known_index(path: DataPath, learnt: tuple[int, ...], p: float) -> int:
    """Return the number of pairs of a learnt mode and an unlearnt one that is larger."""
    sigma = np.abs(modes(path, p)[1])
    others = [k for k in range(len(sigma)) if k not in learnt]
    return sum(int(sigma[k] > sigma[j]) for j, k in itertools.product(learnt, others))


def known_event(path: DataPath, learnt: tuple[int, ...]) -> str:
    """Return what is special at θ = 1/2, by theory."""
    if path.name == "crossing" and (1 in learnt) != (2 in learnt):
        return "branch_point"
    return "symmetry_change" if path.name == "vanishing" and 2 in learnt else "none"


def report(path: DataPath, learnt: tuple[int, ...], branch: xr.Dataset) -> None:
    """Print what was found, beside what is known."""
    special = dl.special_points(branch)
    found = [
        f"{dl.schema.spoken(kind)} {p:.12f}"
        for kind, p in zip(dl.schema.decode(special.event).values, special.p.values, strict=True)
    ]
    known = dl.schema.spoken(known_event(path, learnt))
    off = 0.0
    for p, product in zip(branch.p.values, end_to_end(branch), strict=True):
        left = modes(path, p)[0][:, list(learnt)]
        off = max(off, float(np.abs(product - left @ left.T @ path.target(p)).max()))
    index = branch["index"].values[[0, -1]].tolist()
    expected = [known_index(path, learnt, float(p)) for p in branch.p.values[[0, -1]]]
    regular = branch.isel(step=branch.event.values == 0)
    orbit = int(branch.layer.max() - 1) * len(learnt) ** 2
    print(
        f"  h = {int(branch.layer.max())} S = {dl.schema.index_set_label(learnt):6}"
        f" index {index[0]} → {index[1]} (known {expected[0]} → {expected[1]}),"
        f" {', '.join(found) or 'none'} (known {known}), W off by {off:.0e},"
        f" kernel = orbit: {bool((regular.nullity == orbit).all())},"
        f" imbalance {float(branch.imbalance.max()):.0e}"
    )


def nearest_eigenvalue(branch: xr.Dataset) -> np.ndarray:
    """Return the Hessian's eigenvalue nearest to zero across the orbit."""
    values = -branch.transverse_eigenvalue.values
    nearest = values[np.arange(len(values)), np.nanargmin(np.abs(values), axis=1)]
    for end, beside in ((0, 1), (-1, -2)):  # where two are equally near, that of the curve
        near = values[end][np.abs(np.abs(values[end]) - abs(nearest[end])) < 1e-6]
        nearest[end] = near[np.argmin(np.abs(near - nearest[beside]))]
    return nearest


def known_eigenvalue(path: DataPath, learnt: tuple[int, ...], depth: int, p: float) -> float:
    """Return the eigenvalue nearest to zero in closed form."""
    sigma = modes(path, p)[1]
    size = np.sign(sigma) * np.abs(sigma) ** (1.0 / depth)
    kept = [
        sum(size[j] ** (2 * (depth - i)) * size[k] ** (2 * (i - 1)) for i in range(1, depth + 1))
        for j, k in itertools.product(learnt, learnt)
    ]
    other = [
        size[j] ** (depth - 2) * (sigma[j] + sign * sigma[k])
        for j, k, sign in itertools.product(learnt, range(len(sigma)), (1.0, -1.0))
        if k not in learnt
    ]
    return float(min(kept + other, key=abs))


def draw(axes: np.ndarray, path: DataPath, branches: dict[tuple[int, ...], xr.Dataset]) -> None:
    """Draw the losses of the branches, and for some the eigenvalue nearest to zero."""
    upper, lower = axes
    labels = {dl.schema.index_set_label(learnt): branch for learnt, branch in branches.items()}
    dl.plot.branches(xr.DataTree.from_dict(labels), y="loss", ax=upper)
    upper.set(title=path.name, xlabel="")
    if any(float(branch.p[-1]) == 0.0 for branch in branches.values()):
        upper.text(0.98, 0.5, "three turn round here,\nthe way back is a mirror image",
                   transform=upper.transAxes, ha="right", va="center", fontsize=8)  # fmt: skip
    for number, (learnt, branch) in enumerate(branches.items()):
        colour, label = f"C{number}", dl.schema.index_set_label(learnt)
        if learnt not in SHOWN:
            continue
        lower.plot(branch.p, nearest_eigenvalue(branch), "o", color=colour, ms=4, label=label)
        places = np.linspace(1e-6, 1.0 - 1e-6, 401)  # at the ends two are equally near
        depth = int(branch.layer.max())
        known = np.array([known_eigenvalue(path, learnt, depth, float(p)) for p in places])
        apart = 2.0 * np.ptp(known) / len(known) ** 0.5  # where another eigenvalue is nearest
        jumps = np.flatnonzero(np.abs(np.diff(known)) > apart) + 1
        lower.plot(
            np.insert(places, jumps, np.nan), np.insert(known, jumps, np.nan),
            color=colour, linewidth=0.8,
        )  # fmt: skip
    lower.axhline(0.0, color="0.7", zorder=0)
    lower.set(xlabel=r"place on the path $\theta$", ylabel="eigenvalue nearest to zero")
    lower.legend(title="learnt", fontsize=8)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two layers only")
    parser.add_argument("--out", type=Path, default=Path("crossing_modes.png"))
    options = parser.parse_args()
    depths = (2,) if options.quick else (2, 3)
    sets = [s for rank in (1, 2) for s in itertools.combinations(range(3), rank)]
    figure, axes = plt.subplots(2, 4, figsize=(20, 9), layout="constrained")
    for column, path in zip(axes.T, paths(), strict=True):
        begin = time.perf_counter()
        print(path.name)
        for depth in depths:
            branches = {learnt: follow(path, learnt, depth) for learnt in sets}
            for learnt, branch in branches.items():
                report(path, learnt, branch)
        print(f"  {time.perf_counter() - begin:.1f} s")
        draw(column, path, branches)
    figure.suptitle(f"{depths[-1]} layers")
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
