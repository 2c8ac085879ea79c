"""Where the pictures of an atlas put its nodes, which of its edges they draw, which labels fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from dlnds import schema
from dlnds.arrays import Array, Flags, Integers

#: Distance from the saddle whose escape times are drawn: the nearest one of those in the atlas.
USUAL_SCALE = 1e-3
#: Multiples of the golden section are nowhere close to each other modulo 1.
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
#: How far edges bend, in columns: always, and for a drop of the whole height.
BEND = (0.05, 0.3)
#: Which part of the distance between two columns a column fills.
_WIDTH = 0.76
#: Where labels are tried: left bottom corners beside the anchor, in sizes of the label and in gaps.
_PLACES = np.array(
    [
        [(-1.0, -1.0), (-0.7, -0.7)],  # below left
        [(0.0, -0.5), (1.0, 0.0)],  # right
        [(-1.0, -0.5), (-1.0, 0.0)],  # left
        [(-0.5, 0.0), (0.0, 1.0)],  # above
        [(-0.5, -1.0), (0.0, -1.0)],  # below
        [(0.0, 0.0), (0.7, 0.7)],
        [(0.0, -1.0), (0.7, -0.7)],
        [(-1.0, 0.0), (-0.7, 0.7)],
    ]
)


class Edges(NamedTuple):
    """What joins the points of an atlas, by their rows in its table of points.

    ``kind`` is ``add``, ``swap``, or ``observed`` for what only runs did. ``place`` is the row in
    the node the edge comes from, or −1; ``time`` is NaN where no escape time is known. ``visited``
    counts the runs that took it; of these are ``probability`` and ``mean_time``, else NaN.
    """

    source: Integers
    target: Integers
    kind: NDArray[np.str_]
    place: Integers
    drop: Array
    time: Array
    generic: Flags
    visited: Array
    probability: Array
    mean_time: Array

    def take(self, chosen: Flags | Integers) -> Edges:
        """Return some of the edges."""
        columns: Any = (column[chosen] for column in self)
        return Edges(*columns)


def edges(atlas: xr.DataTree) -> Edges:
    """Return the connections of an atlas, or its decreasing arcs if it has none, and what runs did.

    Edges to points that are not listed are left out. An atlas may be no more than ``points``.
    """
    points = atlas["points"].to_dataset()
    known, seen = (table.astype({"source": str, "target": str}) for table in _joined(atlas))
    found = known.merge(seen, "outer", ["source", "target"])
    found = found.sort_values("place", kind="stable")  # what only runs did comes last
    rows = pd.Index(points["critical_point"].values)
    source, target = (rows.get_indexer(found[end]) for end in ("source", "target"))
    use = (source >= 0) & (target >= 0) & (source != target)
    found, source, target = found[use], source[use], target[use]
    rank, loss, path = points["rank"].values, points["loss"].values, generic_path(points)
    kind = np.where(rank[target] == rank[source] + 1, "add", "swap")
    return Edges(
        source=source,
        target=target,
        kind=np.where(found["place"].isna(), "observed", kind),
        place=found["place"].fillna(-1).to_numpy(np.int64),
        drop=loss[source] - loss[target],
        time=found["time"].to_numpy(np.float64),
        generic=path[source] & path[target] & (rank[target] == rank[source] + 1),
        visited=found["visited"].fillna(0.0).to_numpy(np.float64),
        probability=found["probability"].to_numpy(np.float64),
        mean_time=found["mean_escape_time"].to_numpy(np.float64),
    )


def _joined(atlas: xr.DataTree) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the ends, the place and the time of what is known to join points, and what runs did.

    This is each connection, or the decreasing arcs in its place.
    """
    ends, runs = ["source", "target"], ["visited", "probability", "mean_escape_time"]
    known = pd.DataFrame({name: [] for name in (*ends, "place", "time")})
    seen = pd.DataFrame({name: [] for name in (*ends, *runs)})
    if "connections" in atlas.children:
        node = atlas["connections"].to_dataset()
        times = node["escape_time"].values[:, scale_of(node)]
        known = node[ends].to_dataframe().assign(place=range(len(times)), time=times)
    elif "arcs" in atlas.children:
        node = atlas["arcs"].to_dataset()
        down = schema.decode(node["kind"]).values == "decreasing"
        known = node[ends].to_dataframe().assign(place=range(len(down)), time=np.nan)[down]
        known = known.drop_duplicates(ends)  # arcs may come in families
    if "visits" in atlas.children:
        seen = atlas["visits"].to_dataset()[[*ends, *runs]].to_dataframe()
    return known, seen[seen["visited"] > 0]


def scale_of(connections: xr.Dataset) -> int:
    """Return the place of the scale whose escape times are drawn."""
    scales = connections["scale"].values
    return int(np.argmin(np.abs(np.log(scales / USUAL_SCALE))))


def kinds(points: xr.Dataset) -> NDArray[np.object_]:
    """Return the kinds of points as words, if they are known."""
    if "kind" not in points:
        return np.full(points.sizes["critical_point"], "critical_point", object)
    return schema.decode(points["kind"]).values


def generic_path(points: xr.Dataset) -> Flags:
    """Return which points are {}, {0}, {0,1}, …, those that runs from small starts pass."""
    learnt, ranks = points["learnt"].values, points["rank"].values
    leading = np.arange(learnt.shape[1]) < ranks[:, None]
    path: Flags = (learnt == leading).all(axis=1)
    return path


def short_label(label: str, rank: int) -> str:
    """Return the label of the first modes, so many, in short."""
    return label if rank < 5 else f"{{0…{rank - 1}}}"


def path_labels(points: xr.Dataset) -> list[str]:
    """Return the labels of all points, those of the generic path in short."""
    rows = zip(
        points["critical_point"].values, generic_path(points), points["rank"].values, strict=True
    )
    return [short_label(str(label), rank) if path else str(label) for label, path, rank in rows]


def columns(points: xr.Dataset) -> Array:
    """Return where to draw each point beside its rank: x, so that (x, loss) keep apart.

    From the lowest loss of a rank upwards the places in its column are multiples of the golden
    section modulo 1: those of neighbours in height are far from each other. The lowest point, which
    is on the generic path, stands in the middle.
    """
    ranks, loss = points["rank"].values, points["loss"].values
    x = ranks.astype(np.float64)
    for rank in np.unique(ranks):
        rows = np.flatnonzero(ranks == rank)
        rows = rows[np.argsort(loss[rows], kind="stable")]
        place = (np.arange(len(rows)) * _GOLDEN + 0.5) % 1.0 - 0.5
        x[rows] += _WIDTH * min(1.0, (len(rows) - 1) / 3.0) * place
    return x


def bends(x: Array, loss: Array, some: Edges) -> Array:
    """Return control points (edge, 2) of parabolas: all but additions bend, to hide none."""
    middle = 0.5 * np.stack(
        [x[some.source] + x[some.target], loss[some.source] + loss[some.target]]
    )
    height = float(np.ptp(loss)) or 1.0
    bend = BEND[0] + BEND[1] * np.abs(loss[some.source] - loss[some.target]) / height
    middle[0] += np.select([some.kind == "swap", some.kind == "observed"], [bend, -bend], 0.0)
    return middle.T


def leading(some: Edges) -> Flags:
    """Return which edge is the fastest way out of its source; of the largest drop if none is known.

    Where times are equal it is the one that comes first.
    """
    cost = some.time if np.isfinite(some.time).any() else -some.drop
    cost = np.where(np.isnan(cost), np.inf, cost)
    order = np.lexsort((cost, some.source))
    first = np.unique(some.source[order], return_index=True)[1]
    chosen: Flags = np.zeros(len(cost), bool)
    chosen[order[first]] = True
    chosen &= some.kind != "observed"
    return chosen


def importance(points: xr.Dataset, some: Edges) -> Integers:
    """Return the rows of the points, the most important first.

    These are the generic path, minima, what runs visited, and the others by their rank and loss.
    """
    minimum = kinds(points) == "global_minimum"
    visited = np.zeros(len(minimum), bool)
    visited[some.source[some.visited > 0]] = visited[some.target[some.visited > 0]] = True
    groups = np.select([generic_path(points), minimum, visited], [0, 1, 2], 3)
    return np.lexsort((points["loss"].values, points["rank"].values, groups))


def fit_labels(
    sizes: Sequence[tuple[float, float]],
    anchors: Sequence[Array],
    gaps: Sequence[float],
    obstacles: Array,
    frame: tuple[float, float, float, float],
) -> list[tuple[float, float] | None]:
    """Return the lower left corners of labels beside their anchors, None for those that do not fit.

    Parameters
    ----------
    sizes
        Width and height of each label, the most important first.
    anchors
        The points (label, 2) that are labelled, or for each some (point, 2) to be tried in turn.
    gaps
        Distance of each label from its anchor.
    obstacles
        Boxes (box, 4) that no label may touch: left, bottom, right, top.
    frame
        The box that labels must stay in.
    """
    taken, corners = np.empty((len(obstacles) + len(sizes), 4)), []
    taken[: len(obstacles)], count = obstacles, len(obstacles)
    for size, anchor, gap in zip(np.array(sizes), anchors, gaps, strict=True):
        beside = _PLACES[:, 0] * size + _PLACES[:, 1] * gap
        tries = (_free(at + beside, size, taken[:count], frame) for at in np.atleast_2d(anchor))
        corner = next((low for low in tries if low is not None), None)
        if corner is not None:
            taken[count] = *corner, *(corner + size)
            count += 1
        corners.append(None if corner is None else (float(corner[0]), float(corner[1])))
    return corners


def _free(low: Array, size: Array, taken: Array, frame: tuple[float, ...]) -> Array | None:
    """Return the first of some corners at which a box touches no other one, if there is such."""
    boxes = np.hstack([low, low + size])
    near = (taken[:, 2:] > low.min(axis=0)) & (taken[:, :2] < boxes[:, 2:].max(axis=0))
    others = taken[near.all(axis=1)]
    apart = (boxes[:, None, :2] >= others[:, 2:]) | (boxes[:, None, 2:] <= others[:, :2])
    free: Flags = np.all(np.any(apart, axis=2), axis=1)
    free &= (boxes[:, :2] >= frame[:2]).all(axis=1) & (boxes[:, 2:] <= frame[2:]).all(axis=1)
    return low[np.argmax(free)] if free.any() else None
