"""What do the landscapes of real data look like, and where do runs go in them?
============================================================================

**Question.** Critical points, the orbits that connect them, and what training does among them: how
do these differ between data sets with well separated and with close singular values?

**Theory.** Each critical value belongs to one index set S of learnt modes, L = ½ Σ_{k∉S} σ_k².
Generic orbits from S add the strongest mode that is missing, or swap a learnt mode for a stronger
one; the loss falls by ½ σ_k², or by ½ (σ_k² − σ_j²). Small starts leave the origin along the
strongest mode first (WA25, SMG14).

**Method.** The atlas of each of the four data sets (`build_atlas`): all index sets of the leading
eight modes, their connecting orbits, and an ensemble of runs from small Gaussian starts. Hidden
widths 16, 16, whitened inputs.

**What the figure shows.** Height is the loss, columns are ranks; lines that add a mode are
straight, lines that swap two are bent, coloured by their escape time from ε = 10⁻³. The broad band
is the path ∅ → {0} → {0,1} → …. Runs keep to it where singular values are apart; where they are
close, as modes 2 and 3 of the living things are (1.076 and 1.062), two modes are learnt at once and
the saddle between them is passed by.
"""

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import dlnds as dl

HIDDEN = (16, 16)


def atlas_of(name: str, modes: int, runs: int) -> xr.DataTree:
    """Return the atlas of a data set, of its leading modes."""
    net = dl.load_problem(name, hidden=HIDDEN)
    leading = range(min(modes, net.max_rank))
    return dl.build_atlas(net, modes=tuple(leading), n_runs=runs, scale=1e-2, rng=0)


def story(name: str, atlas: xr.DataTree, seconds: float) -> str:
    """Return what an atlas says, in two lines."""
    points, graph = atlas["points"].to_dataset(), atlas["connections"].to_dataset()
    visits = atlas["visits"].to_dataset()
    kinds = dl.schema.decode(points.kind).values
    sigma = atlas["modes"].singular_value.values
    counts = ", ".join(
        f"{(kinds == kind).sum()} {dl.schema.spoken(kind)}" for kind in np.unique(kinds)
    )
    orders, number = np.unique(visits.sequence.values, return_counts=True)
    usual = str(orders[number.argmax()])
    leads = dl.schema.decode(graph.leads).values
    joined = int(np.isin(leads, ("orbit", "set")).sum())
    slowest = float(graph.escape_time.sel(scale=1e-3, method="nearest").max())
    return (
        f"{name}: sigma {' '.join(f'{s:.3g}' for s in sigma[:8])}\n"
        f"  {points.sizes['critical_point']} points ({counts}), {graph.sizes['edge']} connections, "
        f"slowest escape from 1e-3 {slowest:.3g}; {seconds:.1f} s\n"
        f"  runs lead from one to the other of {joined} pairs of points, "
        f"{(leads == 'open').sum()} are open\n"
        f"  {visits.attrs['n_runs']} runs, most often ({number.max()}): {usual}"
    )


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer modes and runs")
    parser.add_argument("--out", type=Path, default=Path("landscape_atlas.png"))
    options = parser.parse_args()
    modes, runs = (3, 2) if options.quick else (8, 8)
    figure, axes = plt.subplots(2, 2, figsize=(18, 15), layout="constrained")
    for ax, name in zip(axes.ravel(), dl.problem_names(), strict=True):
        start = time.perf_counter()
        atlas = atlas_of(name, modes, runs)
        print(story(name, atlas, time.perf_counter() - start))
        dl.plot.graph(atlas, ax=ax)
        ax.set_title(name)
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
