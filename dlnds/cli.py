"""The command ``dlnds``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

import dlnds as dl
from dlnds import schema


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (ValueError, TypeError, FileNotFoundError, dl.ConvergenceError) as error:
        print(f"dlnds: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dlnds: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dlnds",
        description="Dynamical-systems analysis of gradient flow in deep linear networks.",
    )
    parser.add_argument("--version", action="version", version=f"dlnds {dl.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_atlas(commands)
    warm = commands.add_parser("warm", help="compile all kernels ahead of their first use")
    warm.set_defaults(run=_warm)
    return parser


def _add_atlas(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    atlas = commands.add_parser(
        "atlas",
        help="compute the landscape atlas of a data set",
        description="Compute the landscape atlas of a data set: its critical points, the arcs "
        "between them, and one training run from a small random start. Prints a table, writes a "
        "netCDF file and pictures beside it.",
        epilog="CSV: the first line names the columns, inputs 'x:NAME', outputs 'y:NAME', "
        "optionally one column 'sample' with names; each further line is one sample, all values "
        "are numbers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = atlas.add_argument
    add(
        "--data",
        default="semantic",
        metavar="FILE.csv|NAME",
        help="a CSV file, or one of: " + ", ".join(dl.problem_names()),
    )
    add("--hidden", nargs="*", type=int, default=[16, 16], metavar="WIDTH", help="hidden widths")
    add("--out", type=Path, default=Path("atlas.nc"), metavar="PATH", help="the file to write")
    add("--max-rank", type=int, metavar="R", help="list only index sets of at most R modes")
    add("--modes", nargs="+", type=int, metavar="J", help="list only subsets of these modes")
    add(
        "--transform",
        choices=("none", "center", "standardize"),
        help="what to do with the columns first",
    )
    add("--raw-inputs", action="store_true", help="keep the input covariance: do not whiten")
    add("--scale", type=float, default=1e-2, help="standard deviation of the run's random start")
    add("--seed", type=int, default=0, help="seed of the random start")
    add("--max-steps", type=int, default=20_000, help="steps after which the run is cut off")
    add("--rows", type=int, default=40, help="rows of the table to print; 0 prints all")
    add("--quiet", action="store_true", help="no progress bars")
    atlas.set_defaults(run=_atlas)


def _atlas(options: argparse.Namespace) -> int:
    out: Path = options.out
    if not out.parent.is_dir():
        raise ValueError(f"out: the folder {out.parent} does not exist")
    data = dl.read_csv(options.data, transform=options.transform)
    net = dl.LinearNetwork.from_data(data.X, data.Y, options.hidden, whiten=not options.raw_inputs)
    atlas = dl.build_atlas(net, options.max_rank, options.modes, progress=not options.quiet)
    run = dl.flow(
        net,
        net.initial("gaussian", scale=options.scale, rng=options.seed),
        save=("state", "singular_value", "imbalance"),
        max_steps=options.max_steps,
        progress=not options.quiet,
    )
    atlas["run"] = run.assign_attrs(start_scale=options.scale, rng_entropy=options.seed)
    atlas.attrs.update(
        {key: str(value) for key, value in data.attrs.items()}, data=str(options.data)
    )
    print(_heading(data, net, atlas))
    print(_table(atlas["points"].to_dataset(), options.rows))
    print(_story(run))
    dl.save(atlas, out)
    pictures = _draw(atlas, out)
    print("\nwritten:", *[f"  {path}" for path in (out, *pictures)], sep="\n")
    return 0


def _heading(data: xr.Dataset, net: dl.LinearNetwork, atlas: xr.DataTree) -> str:
    points = atlas["points"].to_dataset()
    kinds = schema.decode(points["kind"]).values
    counts = [f"{np.sum(kinds == kind)} {schema.spoken(kind)}" for kind in schema.POINT_KINDS[:3]]
    words = ["whitened" if net.whitened else "raw", "inputs"]
    lines = [
        f"{data.attrs['title']}: {data.sizes['sample']} samples",
        f"network {' -> '.join(map(str, net.widths))} ({net.dim} weights), {' '.join(words)}, "
        f"largest rank {net.max_rank}",
        "singular values " + " ".join(f"{s:.4f}" for s in net.singular_values),
        f"irreducible loss {net.irreducible_loss:.6g} (not in the losses below)",
        _assumptions(atlas["assumptions"].to_dataset()),
        f"{len(kinds)} critical points up to symmetry: " + ", ".join(counts),
        "",
    ]
    return "\n".join(lines)


def _assumptions(check: xr.Dataset) -> str:
    broken = [
        str(a) for a, h in zip(check.assumption.values, check.holds.values, strict=True) if h == 0
    ]
    unknown = [
        str(a) for a, h in zip(check.assumption.values, check.holds.values, strict=True) if h < 0
    ]
    if not broken and not unknown:
        return "assumptions hold: distinct singular values, distinct subset sums, wide layers"
    parts = [f"{name.replace('_', ' ')}: NOT met" for name in broken]
    parts += [f"{name.replace('_', ' ')}: not checked (too many modes)" for name in unknown]
    if check.sizes["conflict"]:
        parts.append(
            f"for example {check['first'].values[0]} and {check['second'].values[0]} agree"
        )
    return "assumptions: " + "; ".join(parts)


def _table(points: xr.Dataset, rows: int) -> str:
    """Return the critical points as text, the middle left out if there are more than ``rows``."""
    kinds = schema.decode(points["kind"]).values
    cells = [
        (str(label), f"{rank}", f"{loss:.6f}", schema.spoken(kind), f"{index}", f"{nullity}")
        for label, rank, loss, kind, index, nullity in zip(
            points.critical_point.values,
            points["rank"].values,
            points["loss"].values,
            kinds,
            points["index"].values,
            points["nullity"].values,
            strict=True,
        )
    ]
    total = len(cells)
    if 0 < rows < total:
        head = (2 * rows + 2) // 3
        cells = cells[:head] + cells[total - (rows - head) :] if rows > head else cells[:head]
    else:
        head = total
    titles = ("index set", "rank", "loss", "kind", "Morse index", "nullity")
    sizes = [max(len(row[i]) for row in (titles, *cells)) for i in range(len(titles))]
    left = (True, False, False, True, False, False)
    lines = [
        "  ".join(
            c.ljust(n) if flush else c.rjust(n)
            for c, n, flush in zip(row, sizes, left, strict=True)
        )
        for row in (titles, *cells)
    ]
    lines.insert(1, "  ".join("-" * n for n in sizes))
    if head < total:
        lines.insert(
            2 + head, f"... {total - rows} more rows in the file; --rows 0 prints them ..."
        )
    return "\n".join(lines)


def _story(run: xr.Dataset) -> str:
    reason = schema.decode(run["stop_reason"]).item().replace("_", " ")
    end = f"t = {float(run['time'][-1]):.6g} with loss {float(run['loss'][-1]):.3g}"
    counts = f"{run.attrs['n_steps']} steps, {run.attrs['n_rhs']} evaluations"
    return f"\ntraining run: {reason} at {end}, nearest to {run.attrs['limit']} ({counts})"


def _draw(atlas: xr.DataTree, out: Path) -> list[Path]:
    """Write the pictures beside the file and return their names."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from dlnds import plot

    run, points = atlas["run"].to_dataset(), atlas["points"].to_dataset()
    axes = {
        "levels": plot.levels(atlas),
        "loss": plot.loss(run, points=points),
        "singular-values": plot.singular_values(run, modes=atlas["modes"].to_dataset()),
    }
    paths = []
    for name, ax in axes.items():
        paths.append(out.with_name(f"{out.stem}-{name}.png"))
        ax.set_title(str(atlas.attrs.get("title", "")))
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    return paths


def _warm(options: argparse.Namespace) -> int:
    from dlnds._kernels import warm

    warm.compile_all()
    print("all kernels are compiled")
    return 0
