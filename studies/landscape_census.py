"""Of all critical points over one index set, how many are strict saddles?
=======================================================================

**Question.** The end-to-end map of a critical point does not tell its kind: for three or more
layers the fiber over the leading modes holds strict and non-strict saddles. How often is each met,
how many pairs of layers are tightened, how do the Hessian spectra differ, and how large are the
fibers?

**Theory.** A critical point over S is W = P_S Σ with layers that may carry anything in blocks Z_i
whose products vanish. It is a strict saddle, with a negative Hessian eigenvalue, unless S holds the
leading modes and every pair of layers is tightened: one of two products of layers around the pair
has the rank of W (AMG24). The fiber over W = Σ with rank r has dimension Σ_i d_i d_{i−1} − r (d_0 +
d_h − r) where it is smooth.

**Method.** For several widths and the target with σ = n, n − 1, …, 1, random points of the fiber
over every index set: strings of residual units linked at random, bases at random
(`random_fiber_state`; "how often" means by this measure, which gives each kind of point a positive
weight). Every point is classified by ranks of products, and the sign of its lowest Hessian
eigenvalue is compared. Dimensions of the fibers over W = Σ are those of the points, next to the
count Σ_{0<i<h} d_i² that is sometimes given for level sets.

**What the figure shows.** Left: with the leading modes learnt, but not all, most points are strict
saddles. Non-strict ones need a vanishing product for every pair of layers: with two layers there
are none, with three up to a tenth, and the more the deeper the network is and the fewer units are
left beside the learnt ones: a third at widths 3,3,3,3,3 and r = 2, half at 2,2,2,2,2,2 and r = 1.
Over other index sets all points are strict. Of 5,500 points none disagrees with the Hessian.
Middle: eigenvalues relative to the largest, sorted. Non-strict saddles have no negative one, like
minima; what tells them apart are more zeros than the fiber has dimensions. Right: the dimension of
{W = Σ} is Σ_i d_i d_{i−1} − r (d_0 + d_h − r); for widths 4,5,4,3 it is 40 and not 41, for 3,4,5 it
is 17 and not 16.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

WIDTHS = [
    (3, 3, 3),
    (3, 4, 5),
    (3, 3, 3, 3),
    (4, 5, 4, 3),
    (3, 6, 6, 3),
    (4, 2, 4, 4),
    (3, 3, 3, 3, 3),
    (2, 2, 2, 2, 2, 2),
]
PICTURED = (3, 3, 3, 3, 3)
KINDS = ("global_minimum", "strict_saddle", "nonstrict_saddle")
COLOURS = ("#1b7837", "#4575b4", "#d73027")


def network(widths: tuple[int, ...]) -> dl.LinearNetwork:
    """Return a network with the singular values n, …, 1."""
    n = min(widths[0], widths[-1])
    target = np.eye(widths[-1], widths[0]) * np.r_[np.arange(n, 0, -1), np.zeros(widths[0] - n)]
    return dl.LinearNetwork(widths=widths, target=target)


def census(widths: tuple[int, ...], samples: int) -> xr.Dataset:
    """Return kind, order, tightened pairs and spectra of random points over all index sets."""
    net, rng = network(widths), np.random.default_rng(0)
    points = dl.critical_points(net)
    labels = [str(label) for label in points["critical_point"].values]
    names = ("kind", "order_of_descent", "tightened_pairs")
    table = {name: np.zeros((len(labels), samples), int) for name in names}
    spectra = np.zeros((len(labels), samples, net.dim))
    for i, label in enumerate(labels):
        for k in range(samples):
            x = dl.random_fiber_state(net, dl.schema.index_set_modes(label), rng=rng)
            point = dl.classify(net, x)
            table["kind"][i, k] = int(point["kind"])
            table["order_of_descent"][i, k] = int(point["order_of_descent"])
            table["tightened_pairs"][i, k] = int(point["tightened_pair"].sum())
            spectra[i, k] = np.linalg.eigvalsh(net.hessian(x))
    variables = {name: (("critical_point", "sample"), values) for name, values in table.items()}
    variables["eigenvalue"] = (("critical_point", "sample", "eigen"), spectra)
    coords = {"critical_point": labels, "rank": ("critical_point", points["rank"].values)}
    leading = points["loss"].groupby(points["rank"]).min()
    is_leading = points["loss"].values <= leading.sel(rank=points["rank"]).values
    coords["leading"] = ("critical_point", is_leading)
    return xr.Dataset(
        variables,
        coords=coords,
        attrs={"widths": widths, "pairs": net.depth * (net.depth - 1) // 2},
    )


def disagreements(data: xr.Dataset) -> int:
    """Return how many points have a negative eigenvalue and are not strict, or the reverse."""
    values = data["eigenvalue"]
    size = np.abs(values).max("eigen")
    negative = values.isel(eigen=0) < -1e-11 * np.maximum(size, 1.0)
    strict = data["kind"] == KINDS.index("strict_saddle")
    return int((negative != strict).sum())


def shares(data: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the share of each kind among the points over the leading modes, by rank."""
    part = data.isel(critical_point=np.flatnonzero(data["leading"].values))
    return {
        kind: (part["kind"] == number).mean("sample").values for number, kind in enumerate(KINDS)
    }


def dimensions() -> xr.Dataset:
    """Return the dimension of {W = Σ} and the count Σ d_i², for all widths of full rank."""
    full = [w for w in WIDTHS if min(w) == min(w[0], w[-1])]
    fiber, count = [], []
    for widths in full:
        net = network(widths)
        x = dl.random_fiber_state(net, range(net.max_rank), rng=0)
        found = dl.fiber_dimension(net, x)
        assert bool(found["is_smooth"])
        fiber.append(int(found["fiber_dimension"]))
        count.append(sum(d * d for d in widths[1:-1]))
    names = [",".join(map(str, w)) for w in full]
    return xr.Dataset({"fiber": ("widths", fiber), "count": ("widths", count)}, {"widths": names})


def report(tables: list[xr.Dataset], sizes: xr.Dataset) -> None:
    """Print the census and the dimensions."""
    print("widths       points  strict  non-strict  minima  disagreeing with the Hessian")
    for data in tables:
        counts = [int((data["kind"] == number).sum()) for number in range(3)]
        name = ",".join(map(str, data.attrs["widths"]))
        print(
            f"{name:12s} {data['kind'].size:6d}  {counts[1]:6d}  {counts[2]:10d}  {counts[0]:6d}"
            f"  {disagreements(data):6d}"
        )
    print("\nover the leading modes: share of non-strict saddles, mean share of tightened pairs")
    for data in tables:
        name = ",".join(map(str, data.attrs["widths"]))
        part = data.isel(critical_point=np.flatnonzero(data["leading"].values))
        tightened = part["tightened_pairs"].mean("sample").values / data.attrs["pairs"]
        rows = zip(part["rank"].values, shares(data)["nonstrict_saddle"], tightened, strict=True)
        cells = [f"r={rank}: {share:.2f} {pairs:.2f}" for rank, share, pairs in rows]
        print(f"{name:12s} " + "   ".join(cells))
    print("\ndimension of {W = target} and the count of squares of hidden widths")
    for name in sizes["widths"].values:
        row = sizes.sel(widths=name)
        print(f"{name:12s} {int(row['fiber']):4d} {int(row['count']):4d}")


def draw(tables: list[xr.Dataset], sizes: xr.Dataset) -> plt.Figure:
    """Draw shares of kinds, spectra by kind, and dimensions."""
    figure, axes = plt.subplots(1, 3, figsize=(16, 5), constrained_layout=True)
    labels, bottoms = [], []
    for data in tables:
        for rank, parts in enumerate(np.transpose(list(shares(data).values()))):
            labels.append(f"{','.join(map(str, data.attrs['widths']))}  r = {rank}")
            bottoms.append(parts)
    place, bottom = np.arange(len(labels))[::-1], np.zeros(len(labels))
    for kind, colour, share in zip(KINDS, COLOURS, np.transpose(bottoms), strict=True):
        axes[0].barh(place, share, left=bottom, color=colour, label=dl.schema.spoken(kind))
        bottom += share
    axes[0].set_yticks(place, labels, fontsize=6)
    axes[0].set(xlabel="share", title="random points of fibers over the leading modes")
    axes[0].set_ylim(-0.7, len(labels) + 3.5)
    axes[0].legend(fontsize=8, loc="upper center", ncols=3)
    pictured = next(data for data in tables if tuple(data.attrs["widths"]) == PICTURED)
    values = pictured["eigenvalue"].values.reshape(-1, pictured.sizes["eigen"])
    kinds = pictured["kind"].values.ravel()
    for number, (kind, colour) in enumerate(zip(KINDS, COLOURS, strict=True)):
        chosen = values[kinds == number][:60]
        chosen = chosen / np.maximum(np.abs(chosen).max(axis=1, keepdims=True), 1e-6)
        axes[1].plot(chosen.T, color=colour, alpha=0.25, linewidth=0.8)
        axes[1].plot([], [], color=colour, label=dl.schema.spoken(kind))
    axes[1].set_yscale("symlog", linthresh=1e-4)
    name = ",".join(map(str, PICTURED))
    axes[1].set(xlabel="number of the eigenvalue", ylabel="eigenvalue / largest modulus")
    axes[1].set_title(f"Hessian spectra, widths {name}")
    axes[1].legend(fontsize=8)
    place = np.arange(sizes.sizes["widths"])
    axes[2].bar(place - 0.2, sizes["fiber"], 0.4, color="#1b7837", label="dimension of {W = Σ}")
    axes[2].bar(place + 0.2, sizes["count"], 0.4, color="0.7", label="count Σ d_i²")
    for name, shift in (("fiber", -0.2), ("count", 0.2)):
        for k, value in enumerate(sizes[name].values):
            where = (k + shift, value)
            axes[2].annotate(f"{value}", where, ha="center", va="bottom", fontsize=8)
    axes[2].set_xticks(place, sizes["widths"].values, rotation=30)
    axes[2].set(xlabel="widths", title="how large a fiber is")
    axes[2].legend(fontsize=8)
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer points")
    parser.add_argument("--out", type=Path, default=Path("landscape_census.png"))
    options = parser.parse_args()
    tables = [census(widths, 4 if options.quick else 100) for widths in WIDTHS]
    sizes = dimensions()
    report(tables, sizes)
    draw(tables, sizes).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
