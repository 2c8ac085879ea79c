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
#: Pictures of more points draw strongly what matters most, and the rest faintly.
MOST_STRONG = 64
#: So many edges out of each strong point are strong then.
BEST = 3
#: Multiples of the golden section are nowhere close to each other modulo 1.
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
#: How far edges bend, in columns: always, and for a drop of the whole height.
BEND = (0.05, 0.3)
#: Which part of the distance between two columns a column fills.
_WIDTH = 0.76
#: Labels at the end of a line are tried so far away, in gaps and in heights of the label.
_FARTHEST, _AWAY, _NEAR = 3.0, np.arange(0.0, 40.0, 0.5), 16
#: Where they are tried at each distance, in distances and in sizes of the label: above or below, on
#: lines as steep as can be, and so that these stand at their ends, like flags, or in their middle.
_FLAGS = np.array(
    [
        [(lean, side), (-part, 0.5 * side - 0.5)]
        for part in (1.0, 0.0, 0.5)
        for lean in (0.0, -0.35, 0.35, -1.0, 1.0)
        for side in (1.0, -1.0)
    ]
)
_STEEP = 2  # of these
#: The number of boxes that cover such a line, and how long those are that cover an edge.
_PIECES, _SHORT = 24, 4.0
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
    """Return control points (edge, 2) of parabolas: all but additions bend, to hide none.

    On a scaled axis ``loss`` is the height on it, and so is that of the control points.
    """
    middle = 0.5 * np.stack(
        [x[some.source] + x[some.target], loss[some.source] + loss[some.target]]
    )
    height = float(np.ptp(loss)) or 1.0
    bend = BEND[0] + BEND[1] * np.abs(loss[some.source] - loss[some.target]) / height
    middle[0] += np.select([some.kind == "swap", some.kind == "observed"], [bend, -bend], 0.0)
    return middle.T


def is_crowded(points: xr.Dataset) -> bool:
    """Tell whether there are too many points to draw them all strongly."""
    return points.sizes["critical_point"] > MOST_STRONG


def visited(points: xr.Dataset, some: Edges) -> Flags:
    """Return which points runs came from or went to."""
    rows = np.arange(points.sizes["critical_point"])
    taken = some.take(some.visited > 0)
    return np.isin(rows, np.concatenate([taken.source, taken.target]))


def strong_points(points: xr.Dataset, some: Edges) -> Flags:
    """Return which points are drawn strongly: of many those of the generic path and visited ones.

    Minima are strong in all pictures.
    """
    if not is_crowded(points):
        return np.ones(points.sizes["critical_point"], bool)
    strong: Flags = generic_path(points) | visited(points, some)
    strong |= kinds(points) == "global_minimum"
    return strong


def best(points: xr.Dataset, some: Edges) -> Flags:
    """Return which edges stand out as ways: the best of each point, or few of each strong one."""
    if not is_crowded(points):
        return leading(some)
    return leading(some, BEST) & strong_points(points, some)[some.source]


def leading(some: Edges, count: int = 1) -> Flags:
    """Return which edges are the fastest out of their source; of the largest drop if none is known.

    These are so many of each source. Where times are equal the one that comes first is faster.
    """
    cost = some.time if np.isfinite(some.time).any() else -some.drop
    cost = np.where(np.isnan(cost), np.inf, cost)
    order = np.lexsort((cost, some.source))
    _, first, size = np.unique(some.source[order], return_index=True, return_counts=True)
    chosen: Flags = np.zeros(len(cost), bool)
    chosen[order] = np.arange(len(cost)) - np.repeat(first, size) < count
    chosen &= some.kind != "observed"
    return chosen


def importance(points: xr.Dataset, some: Edges) -> Integers:
    """Return the rows of the points, the most important first.

    These are what runs visited, the generic path, minima, and the others, each from the left.
    """
    minimum = kinds(points) == "global_minimum"
    groups = np.select([visited(points, some), generic_path(points), minimum], [0, 1, 2], 3)
    return np.lexsort((columns(points), groups))


def fit_labels(
    sizes: Sequence[tuple[float, float]],
    anchors: Sequence[Array],
    gaps: Sequence[float],
    obstacles: Array,
    frame: tuple[float, float, float, float],
    reserved: Array | None = None,
    led: Flags | None = None,
    spared: Array | None = None,
) -> list[tuple[float, float] | None]:
    """Return the lower left corners of labels beside their anchors, None for those that do not fit.

    Some may also stand further away, where a line to their first anchor meets no other label, and
    not the inner half of what is reserved; over obstacles, if there is no other place.

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
    reserved
        For each label the box (label, 4) that no other label may touch, NaN for none, whether it
        fits itself or not: no other one is read as its own. Further rows are for all labels.
    led
        Which labels may stand further away.
    spared
        Boxes (box, 4) that labels touch only where they have no other place.
    """
    if reserved is None:
        reserved = np.full((len(sizes), 4), np.nan)
    led = np.zeros(len(sizes), bool) if led is None else led
    spared = np.zeros((0, 4)) if spared is None else spared
    own, fixed, labels, corners = reserved.copy(), len(sizes), np.zeros((0, 4)), []
    for row, (size, anchor, gap) in enumerate(zip(np.array(sizes), anchors, gaps, strict=True)):
        own[row] = np.nan  # what is reserved for this one
        # Where no other label may be, this one is read as its own from a little further away.
        away = (1.0,) if np.isnan(reserved[row]).any() else (1.0, 2.0)
        label = _Label(size, np.atleast_2d(anchor), gap, away, bool(led[row]))
        corner = _corner(label, np.vstack([own, labels]), fixed, obstacles, spared, frame)
        own[row] = reserved[row]
        if corner is not None:
            line = pieces(label.at[0], end_of_line(label.at[0], corner, size))
            leads = line_to(label.at, corner, size, gap) is not None
            labels = np.vstack([labels, *[line] * leads, [*corner, *(corner + size)]])
        corners.append(None if corner is None else (float(corner[0]), float(corner[1])))
    return corners


class _Label(NamedTuple):
    """A label: its size, its anchors, how far from these it stands, and if it may be led away."""

    size: Array
    at: Array
    gap: float
    away: tuple[float, ...]
    led: bool


def _corner(
    label: _Label,
    labels: Array,
    marks: int,
    obstacles: Array,
    spared: Array,
    frame: tuple[float, ...],
) -> Array | None:
    """Return where a label stands: beside its anchor, else at the end of a line, if it may.

    What is not another label is covered rather than gone around far.
    """
    every = np.vstack([labels, obstacles])
    for boxes in (np.vstack([every, spared]), every) if len(spared) else (every,):
        corner = _beside(label, boxes, frame)
        if corner is None and label.led:
            corner = _led(label, boxes, _STEEP, _NEAR, _seen(label.at[0], labels, marks), frame)
        if corner is not None:
            return corner
    if not label.led:
        return None
    seen = _seen(label.at[0], labels, marks)
    corner = _led(label, labels, _STEEP, None, seen, frame)
    return _led(label, labels, None, None, seen, frame) if corner is None else corner


def _beside(label: _Label, boxes: Array, frame: tuple[float, ...]) -> Array | None:
    """Return the first free corner beside an anchor."""
    beside = [_PLACES[:, 0] * label.size + far * label.gap * _PLACES[:, 1] for far in label.away]
    tries = (_free(at + np.vstack(beside), label.size, boxes, frame) for at in label.at)
    return next((low for low in tries if low is not None), None)


def _seen(at: Array, labels: Array, marks: int) -> Array:
    """Return the boxes of labels that a line from there may not cross.

    It may pass by the marks of so many labels, around which the first boxes are reserved.
    """
    others = np.vstack([_halved(labels[:marks]), labels[marks:]])
    return others[~((others[:, :2] <= at) & (at <= others[:, 2:])).all(axis=1)]


def _led(
    label: _Label,
    boxes: Array,
    flags: int | None,
    last: int | None,
    others: Array,
    frame: tuple[float, ...],
) -> Array | None:
    """Return the nearest corner further away from which a line comes home freely.

    So many flags are tried at each of so many distances.
    """
    at, size = label.at[0], label.size
    for far in _FARTHEST * label.gap + _AWAY[:last] * size[1]:
        low = at + far * _FLAGS[:flags, 0] + size * _FLAGS[:flags, 1]
        for corner in low[_apart(np.hstack([low, low + size]), boxes, frame)]:
            if _apart(pieces(at, end_of_line(at, corner, size)), others, frame).all():
                return np.asarray(corner)
    return None


def _halved(boxes: Array) -> Array:
    """Return boxes of half the size in the middle of these."""
    return 0.5 * boxes + 0.25 * np.tile(boxes[:, :2] + boxes[:, 2:], 2)


def end_of_line(at: Array, corner: Array, size: Array) -> Array:
    """Return the point of a label that is nearest to its anchor."""
    return np.clip(at, corner, corner + size)


def line_to(anchors: Array, corner: Array, size: Any, gap: float) -> tuple[Array, Array] | None:
    """Return the ends of the line from a point's mark to its label, None if that stands beside."""
    ends = [end_of_line(at, corner, np.array(size)) for at in np.atleast_2d(anchors)]
    ways = np.array(ends) - np.atleast_2d(anchors)
    lengths = np.linalg.norm(ways, axis=1)
    if lengths.min() <= 0.9 * _FARTHEST * gap:
        return None
    return anchors[0] + gap / lengths[0] * ways[0], ends[0]


def pieces(begin: Array, end: Array) -> Array:
    """Return boxes that cover a line."""
    places = begin + np.linspace(0.0, 1.0, _PIECES + 1)[:, None] * (end - begin)
    both = np.minimum(places[:-1], places[1:]), np.maximum(places[:-1], places[1:])
    return np.hstack(both)


class Ways(NamedTuple):
    """Edges that labels keep clear of: control points (edge, 3, 2), half the thickness of each.

    No label covers those that are ``firm``; one covers others where it has no place beside them.
    """

    control: Array
    halves: Array
    firm: Flags

    def boxes(self) -> tuple[Array, Array]:
        """Return boxes (box, 4) that cover the firm ones, and those that cover the others."""
        found: list[list[Array]] = [[np.zeros((0, 4))], [np.zeros((0, 4))]]
        for (begin, middle, end), half, firm in zip(*self, strict=True):
            length = np.linalg.norm(middle - begin) + np.linalg.norm(end - middle)
            t = np.linspace(0.0, 1.0, 2 + int(length / _SHORT))[:, None]
            line = (1.0 - t) ** 2 * begin + 2.0 * t * (1.0 - t) * middle + t**2 * end
            low, high = np.minimum(line[:-1], line[1:]), np.maximum(line[:-1], line[1:])
            found[not firm].append(np.hstack([low - half, high + half]))
        return np.vstack(found[0]), np.vstack(found[1])


def covered(places: Array, boxes: Array) -> Flags:
    """Return which points lie in one of the boxes."""
    inside = (boxes[:, :2] <= places[:, None]) & (places[:, None] <= boxes[:, 2:])
    count: Integers = np.sum(inside[..., 0] & inside[..., 1], axis=1)
    return count > 0


def _free(low: Array, size: Array, taken: Array, frame: tuple[float, ...]) -> Array | None:
    """Return the first of some corners at which a box touches no other one, if there is such."""
    free = _apart(np.hstack([low, low + size]), taken, frame)
    return low[np.argmax(free)] if free.any() else None


def _apart(boxes: Array, taken: Array, frame: tuple[float, ...]) -> Flags:
    """Return which boxes touch no other one, and lie in the frame."""
    near = (taken[:, 2:] > boxes[:, :2].min(axis=0)) & (taken[:, :2] < boxes[:, 2:].max(axis=0))
    others = taken[near.all(axis=1)]
    apart = (boxes[:, None, :2] >= others[:, 2:]) | (boxes[:, None, 2:] <= others[:, :2])
    free: Flags = np.all(np.any(apart, axis=2), axis=1)
    free &= (boxes[:, :2] >= frame[:2]).all(axis=1) & (boxes[:, 2:] <= frame[2:]).all(axis=1)
    return free
