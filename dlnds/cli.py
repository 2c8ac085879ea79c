"""The command ``dlnds``."""

import argparse
import itertools
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

import dlnds as dl
from dlnds import schema
from dlnds.sweeps import sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("dlnds: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, MemoryError, dl.ConvergenceError) as error:
        print(f"dlnds: {_in_options(str(error) or 'out of memory')}", file=sys.stderr)
        return 2
    return code


#: So many modes are named, cut to so many letters.
_MOST_MODES, _LETTERS = 12, 40
#: Arguments by which errors are named, and the options that they come from.
_OPTIONS = {
    **{
        "path": "--data",
        "X": "--data",
        "Y": "--data",
        "rng": "--seed",
        "n_runs": "--runs",
        "max_rank": "--max-rank",
    },
    **{"max_steps": "--max-steps", "time_limit": "--time-limit"},
    **{name: f"--{name}" for name in ("hidden", "modes", "out", "scale", "transform", "saddle")},
}


def _in_options(message: str) -> str:
    """Return an error message with the option in place of the argument's name."""
    name, colon, rest = message.partition(": ")
    return _OPTIONS.get(name, name) + colon + rest


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dlnds",
        description="Dynamical-systems analysis of gradient flow in deep linear networks.",
        epilog="'dlnds atlas' shows what there is, with data of this package; "
        "'dlnds COMMAND --help' tells more of each.",
    )
    parser.add_argument("--version", action="version", version=f"dlnds {dl.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_atlas(commands)
    _add_sweep(commands)
    warm = commands.add_parser("warm", help="compile all kernels ahead of their first use")
    warm.set_defaults(run=_warm)
    return parser


def _add_atlas(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    atlas = commands.add_parser(
        "atlas",
        help="compute the landscape atlas of a data set",
        description="Compute the landscape atlas of a data set: its critical points, the arcs "
        "between them, and training runs from small random starts. Prints a table, writes a netCDF "
        "file and pictures beside it.",
        epilog="CSV: the first line names the columns, inputs 'x:NAME', outputs 'y:NAME', "
        "optionally one column 'sample' with names; each further line is one sample, all values "
        "are numbers; lines that begin with '#' are comments. For example: dlnds atlas --data "
        "mine.csv --transform standardize --hidden 8 8 --out mine.nc --html",
        formatter_class=_HelpFormatter,
    )
    add = atlas.add_argument
    names = ", ".join(dl.problem_names())
    add(
        "--data",
        default="semantic",
        metavar="FILE.csv|NAME",
        help=f"a CSV file, or one of: {names}",
    )
    add("--hidden", nargs="*", type=int, default=[16, 16], metavar="WIDTH", help="hidden widths")
    add("--out", type=Path, default=Path("atlas.nc"), metavar="PATH", help="the .nc file to write")
    add("--max-rank", type=int, metavar="R", help="list only index sets of at most R modes")
    add("--modes", nargs="+", type=int, metavar="J", help="list only subsets of these modes")
    add(
        "--transform",
        choices=("none", "center", "standardize"),
        help="what to do with each column first; a data set has its own way, a file none",
    )
    add(
        "--sep",
        choices=("auto", ",", ";", "tab"),
        default="auto",
        metavar="SEP",
        help="what stands between columns: a comma, a semicolon, tab, or auto; numbers may have "
        "decimal commas, in quotes where commas stand between columns",
    )
    add("--drop-missing", action="store_true", help="leave out samples that lack a value")
    add("--raw-inputs", action="store_true", help="keep the input covariance: do not whiten")
    add("--runs", type=int, default=8, metavar="N", help="runs to count the visits of; 0 for none")
    add("--scale", type=float, default=1e-2, help="standard deviation of the random starts of runs")
    add("--seed", type=int, default=0, help="seed of the random starts")
    add("--max-steps", type=_positive, default=20_000, help="steps after which a run is cut off")
    add(
        "--saddle",
        nargs="*",
        type=int,
        metavar="J",
        help="modes of the saddle whose arcs to draw, else {}",
    )
    add("--rows", type=int, default=40, help="rows of the table to print; 0 or less prints all")
    add("--html", action="store_true", help="write the atlas as a page for the browser, too")
    add("--quiet", action="store_true", help="no progress bars")
    atlas.set_defaults(run=_atlas)


def _add_sweep(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sweep = commands.add_parser(
        "sweep",
        help="look after the folder of a sweep",
        description="Look after the folder that dlnds.sweep keeps its runs in.",
    )
    actions = sweep.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("status", _sweep_status, "count what is finished, without reading it"),
        ("verify", _sweep_verify, "read and check every file; exit code 1 if one is damaged"),
        ("resume", _sweep_resume, "compute what is missing; this runs the file of the task"),
        ("collect", _sweep_collect, "write what is finished to one netCDF file"),
    ):
        action = actions.add_parser(name, help=text, description=text.capitalize() + ".")
        action.add_argument("directory", type=Path, metavar="DIR", help="folder of the sweep")
        action.set_defaults(run=run)
        if name == "resume":
            action.add_argument("--workers", type=_positive, default=1, help="processes to use")
            action.add_argument("--time-limit", type=float, metavar="S", help="seconds for a point")
            action.add_argument("--retry", action="store_true", help="also compute what failed")
            action.add_argument("--quiet", action="store_true", help="no progress bar")
        if name == "collect":
            action.add_argument("--out", type=Path, metavar="PATH", help="file, else DIR.nc")


def _sweep_status(options: argparse.Namespace) -> int:
    told = sweep.progress_of(options.directory)
    grid = " x ".join(f"{size} {name}" for name, size in told["sizes"].items())
    print(f"{told['task']} on {_count(told['points'], 'point')} ({grid})")
    missing = told["points"] - told["finished"] - told["failed"]
    print(f"{told['finished']:,} finished, {told['failed']:,} failed, {missing:,} missing")
    print("at work" if told["at work"] else "nobody is at work")
    return 0


def _sweep_verify(options: argparse.Namespace) -> int:
    return 1 if _tell_states(dl.verify(options.directory))["damaged"] else 0


def _tell_states(found: xr.Dataset) -> Counter[str]:
    """Print how many points have which status, and return it."""
    counts = Counter(schema.decode(found["status"]).values.ravel().tolist())
    for state in schema.SWEEP_STATES:
        if counts[state]:
            print(f"{counts[state]:8,} {schema.spoken(state).replace('_', ' ')}")
    return counts


def _sweep_resume(options: argparse.Namespace) -> int:
    found = sweep.continue_sweep(
        options.directory,
        workers=options.workers,
        time_limit=options.time_limit,
        retry=options.retry,
        progress=not options.quiet,
    )
    counts = _tell_states(found)
    return 0 if counts["finished"] == counts.total() else 1


def _sweep_collect(options: argparse.Namespace) -> int:
    out = options.out or Path(f"{options.directory.resolve()}.nc")
    _check_out(out, options.directory, with_page=False)
    found = dl.collect(options.directory)
    dl.save(found, out)
    _tell_states(found)
    print(f"written: {out}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"needs at least 1, got {number}")
    return number


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def _atlas(options: argparse.Namespace) -> int:
    _check_out(options.out, options.data, options.html)
    data = dl.read_csv(
        options.data,
        transform=options.transform,
        separator=options.sep,
        drop_missing=options.drop_missing,
    )
    net = dl.LinearNetwork.from_data(data.X, data.Y, options.hidden, whiten=not options.raw_inputs)
    atlas, run = _computed(options, data, net)
    saddle = _saddle(atlas, options.saddle)
    if options.html:
        from dlnds.plot import page  # here, since other commands need no matplotlib

        page.check(atlas)
    dl.save(atlas, options.out)
    pictures = _draw(atlas, options.out, net, saddle)
    if options.html:
        pictures.append(options.out.with_suffix(".html"))
        dl.save_page(atlas, pictures[-1])
    print(_heading(data, net, atlas))
    print(_modes(atlas))
    print(_table(atlas["points"].to_dataset(), options.rows))
    print(_story(run))
    if "visits" in atlas.children:
        print(_visits(atlas["visits"].to_dataset()))
    print("\nwritten:", *[f"  {path}" for path in (options.out, *pictures)], sep="\n")
    return 0


def _computed(
    options: argparse.Namespace, data: xr.Dataset, net: dl.LinearNetwork
) -> tuple[xr.DataTree, xr.Dataset]:
    """Return the atlas, with a run in it that is thinned to 1,000 rows, and the whole run."""
    effort = {"max_steps": options.max_steps, "progress": not options.quiet}
    random = {"scale": options.scale, "rng": options.seed}
    start = net.initial("gaussian", **random)
    atlas = dl.build_atlas(
        net, options.max_rank, options.modes, n_runs=options.runs, **random, **effort
    )
    run = dl.flow(net, start, save=("state", "singular_value", "imbalance"), **effort)
    run = run.assign_attrs(start_scale=options.scale, rng_entropy=str(options.seed))
    keep = np.unique(np.linspace(0, run.sizes["time"] - 1, 1000).round().astype(int))
    atlas["run"] = run.isel(time=keep)
    atlas.attrs.update({key: str(value) for key, value in data.attrs.items()}, data=options.data)
    return atlas, run


def _saddle(atlas: xr.DataTree, modes: Sequence[int] | None) -> str:
    """Return the label of the critical point whose arcs are drawn, or '' if it has none."""
    label = schema.index_set_label(modes or ())
    sources = atlas["arcs"].to_dataset()["source"].values
    if label in sources:
        return label
    if modes is not None:
        raise ValueError(f"saddle: no arc starts at {label}; it needs modes of a critical point")
    return ""


def _check_out(out: Path, data: str | Path, with_page: bool) -> None:
    """Refuse, before anything is computed, a file that cannot or should not be written."""
    if out.suffix != ".nc":
        raise ValueError(f"out: needs a file name that ends in .nc, got {out}")
    if out.is_dir():
        raise ValueError(f"out: {out} is a folder, needs a file")
    if not out.parent.is_dir():
        raise ValueError(f"out: there is no folder {out.parent}")
    written = [out, out.with_suffix(".html")] if with_page else [out]
    if any(path.exists() and Path(data).exists() and path.samefile(data) for path in written):
        raise ValueError(f"out: would overwrite the data in {data}")


def _heading(data: xr.Dataset, net: dl.LinearNetwork, atlas: xr.DataTree) -> str:
    inputs = len(data.feature_in)
    shrunk = "" if net.widths[0] == inputs else f" on their range of dimension {net.widths[0]}"
    irreducible = net.irreducible_loss
    if irreducible < 1e-14 * float(np.sum(net.target**2)):
        irreducible = 0.0  # rounding
    dropped = data.attrs.get("dropped_samples", 0)
    lines = [
        f"{data.attrs['title']}: {_count(data.sizes['sample'], 'sample')}"
        f"{f' ({dropped} with missing values left out)' if dropped else ''}, "
        f"{_count(inputs, 'input')}, {_count(len(data.feature_out), 'output')}",
        f"network {' -> '.join(map(str, net.widths))} ({_count(net.dim, 'weight')}), "
        f"{'whitened' if net.whitened else 'raw'} inputs{shrunk}",
        "singular values " + " ".join(f"{s:.4g}" for s in net.singular_values),
        f"irreducible loss {irreducible:.6g} (not in the losses below)",
    ]
    if not net.singular_values.any():
        lines.append(
            "no linear map is better than none: there is no mode to learn (constant data?)"
        )
    if net.lowest_loss > 0.0:
        lines.append(
            f"lowest loss {net.lowest_loss:.6g}: the widths let W have rank {net.max_rank} only"
        )
    return "\n".join([*lines, *_summary(net, atlas), ""])


def _modes(atlas: xr.DataTree) -> str:
    """Return what the strongest modes read and write most, with a minus before what lowers it."""
    from dlnds.plot import landscape  # here, since other commands need no matplotlib

    names = landscape.mode_names(atlas, _MOST_MODES, _LETTERS)
    left = len(atlas["modes"]["mode"]) - len(names)
    lines = [f"{j}: {name}" for j, name in enumerate(names)]
    rest = [f"... and {left:,} more"] if left else []
    text = "\n".join(["modes: most read → most written", *lines, *rest, ""])
    text = text.replace("→", "->").replace("−", "-")
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)  # names may have any letters


def _summary(net: dl.LinearNetwork, atlas: xr.DataTree) -> list[str]:
    kinds = schema.decode(atlas["points"].to_dataset()["kind"]).values.tolist()
    numbers = [(kinds.count(kind), schema.spoken(kind)) for kind in schema.POINT_KINDS]
    counts = [_count(number, kind) for number, kind in numbers if number]
    modes = np.count_nonzero(net.singular_values)
    total = sum(math.comb(modes, r) for r in range(net.max_rank + 1)) if net.depth > 1 else 1
    listed = "" if len(kinds) == total else f" listed, of {total:,}"
    lines = [
        _assumptions(atlas["assumptions"].to_dataset()),
        f"{_count(len(kinds), 'critical point')} up to symmetry{listed}: " + ", ".join(counts),
    ]
    if "connections" in atlas.children:
        edges = schema.decode(atlas["connections"].to_dataset()["kind"]).values
        add, swap = (int(np.sum(edges == kind)) for kind in schema.EDGE_KINDS)
        lines.append(f"{_count(add + swap, 'connection')}: {add:,} add a mode, {swap:,} swap two")
    elif "n_connections" in atlas.attrs:
        lines.append(f"{_count(atlas.attrs['n_connections'], 'connection')}, too many for the file")
    return lines


def _count(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural."""
    plural = noun.removesuffix("um") + "a" if noun.endswith("um") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def _assumptions(check: xr.Dataset) -> str:
    words = {1: "hold", 0: "do NOT hold", -1: "not checked (too many modes)"}
    parts = []
    for holds, word in words.items():
        names = check.assumption.values[check.holds.values == holds]
        if len(names):
            parts.append(f"{', '.join(str(n).replace('_', ' ') for n in names)}: {word}")
    if check.sizes["conflict"]:
        parts.append(
            f"for example {check['first'].values[0]} and {check['second'].values[0]} agree"
        )
    return "assumptions: " + "; ".join(parts)


def _table(points: xr.Dataset, rows: int) -> str:
    """Return the critical points as text, the middle left out if there are more than ``rows``."""
    columns = _columns(points)
    cells = list(zip(*columns.values(), strict=True))
    total = len(cells)
    first = (2 * rows + 2) // 3 if 0 < rows < total else total
    shown = [tuple(columns), *cells[:first], *cells[max(first, total + first - rows) :]]
    sizes = [max(map(len, column)) for column in zip(*shown, strict=True)]
    places = [str.ljust if title in ("index set", "kind") else str.rjust for title in columns]
    lines = [
        "  ".join(place(c, n) for place, c, n in zip(places, row, sizes, strict=True))
        for row in shown
    ]
    lines.insert(1, "  ".join("-" * n for n in sizes))
    if first < total:
        rest = f"... {total - rows} more rows in the file; --rows 0 prints them ..."
        lines.insert(2 + first, rest)
    return "\n".join([*lines, *(text for title, text in _LEGEND.items() if title in columns)])


#: What the columns of the table mean, by their titles.
_LEGEND = {
    "order": "order: of descent, 0 at minima",
    "fiber": "fiber: local dimension of the critical points with this map, or at least that",
    "rate": "rate: + of departure, - of convergence",
}


def _columns(points: xr.Dataset) -> dict[str, list[str]]:
    """Return the columns of the table as text, by their titles."""
    plain = 1e-2 <= float(points["loss"].max()) < 1e7
    form = ("{:.6f}" if plain else "{:.6e}").format
    numbers = {"Morse index": "index", "nullity": "nullity", "order": "order_of_descent"}
    dims = zip(points["fiber_dimension"].values, points["is_complete"].values, strict=True)
    columns = {
        "index set": [str(label) for label in points["critical_point"].values],
        "rank": [str(rank) for rank in points["rank"].values],
        "loss": [form(loss) for loss in points["loss"].values],
        "kind": [schema.spoken(kind) for kind in schema.decode(points["kind"]).values],
        **{title: [str(n) for n in points[name].values] for title, name in numbers.items()},
        "fiber": [f"{n}" if complete else f">={n}" for n, complete in dims],
    }
    if "departure_rate" in points:
        pairs = zip(points["departure_rate"].values, points["convergence_rate"].values, strict=True)
        columns["rate"] = [f"{out:+.4g}" if out > 0 else f"{0.0 - back:.4g}" for out, back in pairs]
    return columns


def _story(run: xr.Dataset) -> str:
    reason = schema.decode(run["stop_reason"]).item()
    end = f"t = {float(run['time'][-1]):.6g} with loss {float(run['loss'][-1]):.3g}"
    counts = f"{run.attrs['n_steps']} steps, {run.attrs['n_rhs']} evaluations"
    where = f"at {end}, nearest to {run.attrs['limit']} ({counts})"
    story = f"\ntraining run: {schema.spoken(reason)} {where}"
    hint = "it needs a larger --scale, more --max-steps, or columns of like size (--transform)"
    return f"{story}\n{hint}" if reason == "out_of_steps" else story


def _visits(seen: xr.Dataset) -> str:
    """Return in a few lines what an ensemble of runs did."""
    runs, failed = seen.attrs["n_runs"], seen.attrs["n_failed"]
    kinds = schema.decode(seen["kind"]).values
    orbits = seen.isel(edge=kinds != "other")
    lines = [
        f"{_count(runs, 'run')} from such starts: "
        f"{_count(seen.sizes['critical_point'], 'critical point')} visited, "
        f"{_count(len(kinds), 'transition')}, {orbits.sizes['edge']:,} along a connection"
        + (f"; {failed:,} cut off" if failed else "")
    ]
    for sequence, times in Counter(seen["sequence"].values.tolist()).most_common(1):
        lines.append(f"most often ({times:,} of {runs:,}) they learn {_learning(sequence)}")
    ratios = (orbits["mean_growth_time"] / orbits["law_growth_time"]).dropna("edge").values
    if ratios.size:
        lines.append(
            f"on connections a mode grows in {ratios.min():#.3g} to {ratios.max():#.3g} times the "
            "time of the law"
        )
    return "\n".join(lines)


def _learning(sequence: str) -> str:
    """Return the modes that are learnt from saddle to saddle: ``0, 1, 2+3, 5 for 4``."""
    sets = [set(schema.index_set_modes(label)) for label in sequence.split()]
    parts = []
    for before, after in itertools.pairwise([set(), *sets] if sets and sets[0] else sets):
        gained, lost = ("+".join(map(str, sorted(s))) for s in (after - before, before - after))
        parts.append(f"{gained or 'nothing'} for {lost}" if lost else gained)
    words = "mode" if len(parts) == 1 and parts[0].isdecimal() else "modes"
    return f"{words} {', '.join(parts)}" if parts else "no mode"


def _draw(atlas: xr.DataTree, out: Path, net: dl.LinearNetwork, saddle: str) -> list[Path]:
    """Write the pictures beside the file and return their names."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from dlnds import plot

    run, points = atlas["run"].to_dataset(), atlas["points"].to_dataset()
    axes = {
        "graph": plot.graph(atlas),
        "loss": plot.loss(run, points=points),
        "singular-values": plot.singular_values(run, modes=net.modes if net.whitened else None),
    }
    if saddle:
        axes["arcs"] = plot.arcs(atlas["arcs"].to_dataset(), source=saddle)
    for name in ("loss", "singular-values"):
        axes[name].set_xlim(run["time"].values[0], _last_of_interest(run))
    paths = []
    for name, ax in axes.items():
        paths.append(out.with_name(f"{out.stem}-{name}.png"))
        title = str(atlas.attrs.get("title", ""))
        ax.set_title(f"{title}: arcs from {saddle}" if name == "arcs" else title)
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    return paths


def _last_of_interest(run: xr.Dataset) -> float:
    """Return a time shortly after the last thousandth of the loss was lost."""
    loss, time = run["loss"].values, run["time"].values
    moving = np.flatnonzero(loss - loss[-1] > 1e-3 * (loss[0] - loss[-1]))
    return float(min(time[-1], 1.3 * time[moving[-1]]) if moving.size else max(time[-1], 1.0))


def _warm(options: argparse.Namespace) -> int:
    from dlnds import _kernels

    _kernels.compile_all()
    print("all kernels are compiled")
    return 0
