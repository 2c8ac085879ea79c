"""What ensembles of runs really do: the saddles they visit, laid over the connecting orbits."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_finite, check_number, known_options
from dlnds.saddles.escape import Visit, check_runs, read_run, swapped, visits_of
from dlnds.systems.linear import LinearNetwork, check_network

IndexSet = tuple[int, ...]

#: Stop reasons of runs that were cut off.
FAILURES = ("out_of_steps", "step_too_small", "not_finite")
#: What `overlay` takes over from what was observed.
OVERLAID = ("visited", "probability", "mean_escape_time", "mean_growth_time")
_COUNTED = ("radius", "n_runs", "n_failed")
_ENDS = {"source": ("edge",), "target": ("edge",)}


@known_options
def observed_connections(
    net: LinearNetwork, runs: xr.Dataset, *, radius: float = 0.05
) -> xr.Dataset:
    """Return which saddles an ensemble of runs visits in which order, with counts and times.

    Parameters
    ----------
    net
        The network that the runs are of.
    runs
        A stack of runs, or one run, with what `saddle_visits` needs; ``save=["mode_strength"]`` is
        the least.
    radius
        Size of the neighbourhoods, as for `saddle_visits`.

    Returns
    -------
    xarray.Dataset
        Schema ``observed_connections``.

        Dim ``edge``, each transition that was made, with the coordinates ``source`` and ``target``:
        ``visited``, how many runs made it; ``probability``, their part of all departures from the
        source; ``kind``, ``add`` and ``swap`` as in `connections` or ``other`` (such as two modes
        at once), and ``is_connection``, 0 for these; ``drop`` of the loss. Of the first mode that
        is learnt: ``mean_escape_time`` from the entry until it reaches σ_j/2, and of that
        ``mean_growth_time``, from σ_j/20 on, each with its standard deviation ``std_…`` over the
        runs and with ``law_…``, what the law says (below); NaN where no run tells.

        Dim ``critical_point``, each index set that runs rest near: ``visitors``, how many runs do,
        ``ended``, how many end there, ``mean_entry`` and ``mean_duration`` (of visits that are
        left), ``rank`` and ``loss``.

        Dim ``sample``: ``sequence``, the index sets in their order as text, such as
        ``"{} {0} {0,1}"``, and ``stop_reason``. Runs that were cut off (out of steps, steps too
        small, not finite) count with what they did before; the attribute ``n_failed`` tells how
        many they are.

    Raises
    ------
    ValueError, TypeError
        If the runs are of another network, or have neither states, end-to-end maps, nor strengths.

    Notes
    -----
    The laws are those of `saddle_visits`. ``law_growth_time`` is the time from σ_j/20 to σ_j/2
    along the connecting orbit, which runs from small starts tend to, aligned or not.
    ``law_escape_time`` starts from the strength at the entry and is the right time for balanced,
    aligned starts only: others tend to no orbit before they grow, and how long that takes depends
    on the start; only the exponent of their escape time ~ ε^{−(h−2)} is known (KH25).

    References
    ----------
    WA25, section 6; KH25

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> starts = np.stack([net.initial(scale=1e-3, rng=seed) for seed in range(5)])
    >>> runs = dl.flow(net, starts, save=["mode_strength"])
    >>> seen = dl.observed_connections(net, runs)
    >>> sorted(set(seen.sequence.values.tolist())), seen.visited.values.tolist()
    (['{} {0} {0,1}'], [5, 5])
    """
    check_network(net)
    radius = check_number("radius", radius, minimum=0.0, maximum=1.0)
    runs = check_runs("runs", net, runs)
    if "sample" not in runs.dims:
        runs = runs.drop_vars("sample", errors="ignore").expand_dims("sample")
    members = [runs.isel(sample=k) for k in range(runs.sizes["sample"])]
    paths = [
        visits_of(net, read_run(net, member, "runs"), radius, merge=True) for member in members
    ]
    texts = [" ".join(schema.index_set_label(visit.modes) for visit in path) for path in paths]
    reasons = schema.decode(runs["stop_reason"]).values
    edges, points = _edges(net, paths), _points(net, paths)
    dataset = edges.assign(points.data_vars).assign(
        sequence=("sample", np.array(texts, dtype=np.str_)),
        stop_reason=("sample", runs["stop_reason"].values),
    )
    labels = runs["sample"].values if "sample" in runs.coords else np.arange(len(paths))
    dataset = dataset.assign_coords(sample=labels)
    counts = {"n_runs": len(paths), "n_failed": int(np.isin(reasons, FAILURES).sum())}
    attrs = {**net.attributes(), "radius": radius, **counts}
    return schema.finish(dataset, "observed_connections", attrs)


def _edges(net: LinearNetwork, paths: Sequence[Sequence[Visit]]) -> xr.Dataset:
    """Return the transitions that were made, by source and target; once for each run."""
    made: dict[tuple[IndexSet, IndexSet], list[Visit]] = defaultdict(list)
    for path in paths:
        first = {(a.modes, b.modes): a for a, b in reversed(list(itertools.pairwise(path)))}
        for pair, visit in first.items():
            made[pair].append(visit)
    pairs = sorted(made, key=lambda pair: (_order(pair[0]), _order(pair[1])))
    leavings = [made[pair] for pair in pairs]
    visited = np.array([len(visits) for visits in leavings], np.int64)
    departures: Counter[IndexSet] = Counter()
    for (source, _), count in zip(pairs, visited.tolist(), strict=True):
        departures[source] += count
    total = np.array([departures[source] for source, _ in pairs], float)
    kinds = [_kind(net, *pair) for pair in pairs]
    losses = [[_loss(net, modes) for modes in pair] for pair in pairs]
    drops = np.array(losses).reshape(-1, 2) @ [1.0, -1.0]
    variables = {
        "kind": schema.flag(schema.OBSERVED_KINDS, kinds),
        "is_connection": np.array([kind != "other" for kind in kinds], np.int8),
        "visited": visited,
        "probability": visited / total,
        "drop": drops,
        **_times(leavings),
    }
    coords = {
        "source": ("edge", schema.index_set_labels(source for source, _ in pairs)),
        "target": ("edge", schema.index_set_labels(target for _, target in pairs)),
    }
    return xr.Dataset({n: ("edge", values) for n, values in variables.items()}, coords=coords)


def _times(leavings: Sequence[Sequence[Visit]]) -> dict[str, Array]:
    """Return mean times, their spread over runs, and what the law says, of each transition."""
    columns = {}
    for name in ("escape_time", "growth_time"):
        moments = [_mean_and_spread(getattr(v, name) for v in visits) for visits in leavings]
        laws = [
            _mean_and_spread(getattr(v, f"predicted_{name}") for v in visits)[0]
            for visits in leavings
        ]
        columns[f"mean_{name}"] = np.array([mean for mean, _ in moments], float)
        columns[f"std_{name}"] = np.array([spread for _, spread in moments], float)
        columns[f"law_{name}"] = np.array(laws, float)
    return columns


def _points(net: LinearNetwork, paths: Sequence[Sequence[Visit]]) -> xr.Dataset:
    """Return the index sets that runs rest near, by rank."""
    visitors: Counter[IndexSet] = Counter()
    entries, stays = defaultdict(list), defaultdict(list)
    for path in paths:
        visitors.update({visit.modes for visit in path})
        for visit in path:
            entries[visit.modes].append(visit.entry)
        for visit in path[:-1]:
            stays[visit.modes].append(visit.duration)
    ended = Counter(path[-1].modes for path in paths if path)
    sets = sorted(entries, key=_order)
    variables = {
        "visitors": np.array([visitors[modes] for modes in sets], np.int64),
        "ended": np.array([ended[modes] for modes in sets], np.int64),
        "mean_entry": np.array([_mean_and_spread(entries[modes])[0] for modes in sets]),
        "mean_duration": np.array([_mean_and_spread(stays[modes])[0] for modes in sets]),
        "rank": np.array([len(modes) for modes in sets], np.int64),
        "loss": np.array([_loss(net, modes) for modes in sets]),
    }
    coords = {"critical_point": schema.index_set_labels(sets)}
    return xr.Dataset({n: ("critical_point", v) for n, v in variables.items()}, coords=coords)


def _order(modes: IndexSet) -> tuple[int, IndexSet]:
    """Return what index sets are sorted by: as `critical_points` lists them."""
    return len(modes), modes


def _loss(net: LinearNetwork, modes: IndexSet) -> float:
    return 0.5 * float(np.sum(np.delete(net.singular_values, modes) ** 2))


def _kind(net: LinearNetwork, source: IndexSet, target: IndexSet) -> str:
    """Return which connecting orbit leads from a set to another, or 'other'."""
    if net.depth > 1 and len(target) <= net.max_rank:
        if len(target) == len(source) + 1 and {*source} < {*target}:
            return "add"
        if swapped(net, source, target) >= 0:
            return "swap"
    return "other"


def _mean_and_spread(values: Iterable[float]) -> tuple[float, float]:
    """Return mean and standard deviation of the numbers among values, whatever their order."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return math.nan, math.nan
    mean = math.fsum(numbers) / len(numbers)
    square = math.fsum((value - mean) ** 2 for value in numbers) / len(numbers)
    return mean, math.sqrt(square)


@known_options
def overlay(graph: xr.Dataset, observed: xr.Dataset) -> xr.Dataset:
    """Return the graph of connecting orbits with what runs did on each of its edges.

    Parameters
    ----------
    graph
        What `connections` returns.
    observed
        What `observed_connections` returns for runs of the same network.

    Returns
    -------
    xarray.Dataset
        The graph, schema ``connections``, with ``visited`` and ``probability`` (0 where no run
        went), and ``mean_escape_time`` and ``mean_growth_time`` (NaN there). Transitions that are
        none of its edges stay in ``observed``; the attribute ``n_outside`` counts how often runs
        made such.

    Raises
    ------
    ValueError, TypeError
        If they are of two networks, or not what they should be.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> seen = dl.observed_connections(net, dl.flow(net, net.initial(scale=1e-3, rng=0)))
    >>> graph = dl.overlay(dl.connections(net), seen)
    >>> graph.visited.values.tolist(), graph.source.values.tolist()
    ([1, 0, 1, 0, 0], ['{}', '{}', '{0}', '{1}', '{1}'])
    """
    for name, data, wanted in (
        ("graph", graph, "connections"),
        ("observed", observed, "observed_connections"),
    ):
        if not isinstance(data, xr.Dataset) or data.attrs.get("schema") != wanted:
            raise TypeError(f"{name}: needs the Dataset that {wanted} returns")
    schema.check_whole("graph", graph)
    schema.check_content("graph", graph, _ENDS, ["problem_digest"], empty=["edge"])
    found = {**_ENDS, **dict.fromkeys(OVERLAID, ("edge",))}
    schema.check_content("observed", observed, found, ["problem_digest", *_COUNTED], empty=["edge"])
    if graph.attrs["problem_digest"] != observed.attrs["problem_digest"]:
        raise ValueError("observed: belongs to another network than the graph")
    check_finite("observed", observed["visited"].values, "")
    wanted_edges, pairs = _pairs("graph", graph), _pairs("observed", observed)
    place = {pair: row for row, pair in enumerate(pairs)}
    rows = np.array([place.get(pair, -1) for pair in wanted_edges], np.int64)
    seen, rows = rows >= 0, rows[rows >= 0]
    columns = {}
    for name in OVERLAID:
        values = observed[name].values
        missing = np.nan if name.startswith("mean") else 0
        column = np.full(len(seen), missing, values.dtype)
        column[seen] = values[rows]
        columns[name] = ("edge", column)
    outside = int(observed["visited"].sum()) - int(observed["visited"].values[rows].sum())
    counts = {key: observed.attrs[key] for key in _COUNTED}
    attrs = {**graph.attrs, **counts, "n_outside": outside}
    return schema.finish(graph.assign(columns), "connections", attrs)


def _pairs(name: str, data: xr.Dataset) -> list[tuple[str, str]]:
    """Return source and target of each edge; refuse edges that come twice."""
    pairs = list(zip(data["source"].values, data["target"].values, strict=True))
    if len(set(pairs)) < len(pairs):
        raise ValueError(f"{name}: has edges twice")
    return pairs
