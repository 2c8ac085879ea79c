"""Where the pictures of an atlas put its nodes, which of its edges they draw, which labels fit."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
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

    def take(self, chosen: Flags | Integers) -> "Edges":
        """Return some of the edges."""
        columns: Any = (column[chosen] for column in self)
        return Edges(*columns)


def edges(atlas: xr.DataTree) -> Edges:
    """Return the connections of an atlas, or its decreasing arcs if it has none, and what runs did.

    Edges to points that are not listed are left out. An atlas may be no more than ``points``.
    """
    points = atlas["points"].to_dataset()
    rows = {str(label): row for row, label in enumerate(points["critical_point"].values)}
    source, target, place, time = _known(atlas, rows)
    seen = _observed(atlas, rows)
    known = set(zip(source.tolist(), target.tolist(), strict=True))
    extra = np.array([pair for pair in seen if pair not in known], np.int64).reshape(-1, 2)
    rank, path = points["rank"].values, generic_path(points)
    step = rank[target] - rank[source]
    kind = np.where(step == 1, "add", "swap")
    source, target = np.append(source, extra[:, 0]), np.append(target, extra[:, 1])
    pairs = zip(source.tolist(), target.tolist(), strict=True)
    runs = np.array([seen.get(pair, (0.0, np.nan, np.nan)) for pair in pairs]).reshape(-1, 3)
    return Edges(
        source,
        target,
        np.append(kind, np.full(len(extra), "observed")),
        np.append(place, np.full(len(extra), -1)),
        points["loss"].values[source] - points["loss"].values[target],
        np.append(time, np.full(len(extra), np.nan)),
        path[source] & path[target] & (rank[target] == rank[source] + 1),
        *runs.T,
    )


def _known(atlas: xr.DataTree, rows: dict[str, int]) -> tuple[Integers, Integers, Integers, Array]:
    """Return source, target, place and time of each connection, or of the arcs in its place."""
    name = next((name for name in ("connections", "arcs") if name in atlas.children), "")
    if not name:
        none = np.zeros(0, np.int64)
        return none, none, none, none.astype(np.float64)
    node = atlas[name].to_dataset()
    source, target = (_rows(node[end].values, rows) for end in ("source", "target"))
    use = (source >= 0) & (target >= 0) & (source != target)
    time = np.full(len(source), np.nan)
    if name == "connections":
        time = node["escape_time"].values[:, scale_of(node)]
    else:
        use &= schema.decode(node["kind"]).values == "decreasing"
    pairs = np.stack([source, target], axis=1)
    first = np.unique(pairs[use], axis=0, return_index=True)[1]  # arcs may come in families
    place = np.flatnonzero(use)[np.sort(first)]
    return source[place], target[place], place, time[place]


def _observed(atlas: xr.DataTree, rows: dict[str, int]) -> dict[tuple[int, int], tuple[float, ...]]:
    """Return count, probability and mean time of what runs did between two points."""
    if "visits" not in atlas.children or "edge" not in atlas["visits"].dims:
        return {}
    node = atlas["visits"].to_dataset()
    names = ("visited", "probability", "mean_escape_time")
    ends = np.stack([_rows(node[end].values, rows) for end in ("source", "target")], axis=1)
    numbers = np.stack([node[name].values for name in names], axis=1)
    use = (ends >= 0).all(axis=1) & (numbers[:, 0] > 0)
    pairs = zip(ends[use].tolist(), numbers[use].tolist(), strict=True)
    return {(a, b): tuple(row) for (a, b), row in pairs}


def _rows(labels: Iterable[object], rows: dict[str, int]) -> Integers:
    return np.array([rows.get(str(label), -1) for label in labels], np.int64)


def scale_of(connections: xr.Dataset) -> int:
    """Return the place of the scale whose escape times are drawn."""
    scales = connections["scale"].values
    return int(np.argmin(np.abs(np.log(scales / USUAL_SCALE))))


def kinds(points: xr.Dataset) -> NDArray[np.object_]:
    """Return the kinds of points as words, if they are known."""
    if "kind" not in points:
        return np.full(points.sizes["critical_point"], "critical_point", object)
    words: NDArray[np.object_] = schema.decode(points["kind"]).values
    return words


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
    control: Array = middle.T
    return control


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
    order: Integers = np.lexsort((points["loss"].values, points["rank"].values, groups))
    return order


def fit_labels(
    sizes: Sequence[tuple[float, float]],
    anchors: Array,
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
        The points (label, 2) that are labelled.
    gaps
        Distance of each label from its anchor.
    obstacles
        Boxes (box, 4) that no label may touch: left, bottom, right, top.
    frame
        The box that labels must stay in.
    """
    taken = np.empty((len(obstacles) + len(sizes), 4))
    taken[: len(obstacles)] = obstacles
    count, corners = len(obstacles), []
    for (width, height), (x, y), gap in zip(sizes, anchors.tolist(), gaps, strict=True):
        corner = None
        for left, bottom in _candidates(width, height, x, y, gap):
            box = (left, bottom, left + width, bottom + height)
            inside = box[0] >= frame[0] and box[1] >= frame[1]
            inside &= box[2] <= frame[2] and box[3] <= frame[3]
            if inside and not _touches(box, taken[:count]):
                corner = (left, bottom)
                taken[count] = box
                count += 1
                break
        corners.append(corner)
    return corners


def _candidates(
    width: float, height: float, x: float, y: float, gap: float
) -> list[tuple[float, float]]:
    """Return the corners of a label below left, right, left, above, below, and at the corners."""
    near = 0.7 * gap
    left, low = x - width, y - height
    return [
        (left - near, low - near),
        (x + gap, y - 0.5 * height),
        (left - gap, y - 0.5 * height),
        (x - 0.5 * width, y + gap),
        (x - 0.5 * width, low - gap),
        (x + near, y + near),
        (x + near, low - near),
        (left - near, y + near),
    ]


def _touches(box: tuple[float, float, float, float], boxes: Array) -> bool:
    left, bottom, right, top = box
    apart = (boxes[:, 0] >= right) | (boxes[:, 2] <= left)
    apart |= (boxes[:, 1] >= top) | (boxes[:, 3] <= bottom)
    return not bool(apart.all())
