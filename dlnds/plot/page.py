"""An atlas as one HTML page, to look at in a browser without a network."""

import base64
import hashlib
import html
import json
import os
import re
from importlib import resources
from typing import Any

import numpy as np
import xarray as xr

from dlnds import schema, store
from dlnds.arrays import Array
from dlnds.errors import known_options
from dlnds.plot import canvas, layout

#: A page of more points would be too slow in a browser.
MOST_POINTS = 5000
#: Of more edges the picture shows at first only the most important ones.
MOST_EDGES = 5000
#: Of more arcs only the decreasing ones are on the page.
MOST_ARCS = 100_000
#: Significant digits of the numbers on the page.
DIGITS = 7
#: What a page tells of each point, if the atlas has it.
_COLUMNS = (
    *("rank", "loss", "kind", "index", "nullity", "order_of_descent", "fiber_dimension"),
    *("departure_rate", "convergence_rate"),
)
#: Left, top, right and bottom of the picture in its frame of 1000 × 640.
_FRAME = (62.0, 14.0, 988.0, 596.0)
#: Above the highest point and below the lowest one.
_MARGIN = 25.0
_SHAPES = (
    '<path id="k0" class="k0" d="M0-10L2.4-3.2 9.5-3.1 3.8 1.2 5.9 8.1 0 4-5.9 8.1-3.8 1.2'
    '-9.5-3.1-2.4-3.2Z"/>',
    '<circle id="k1" class="k1" r="{radius}"/>',
    '<path id="k2" class="k2" d="M0-6.5L6.5 0 0 6.5-6.5 0Z"/>',
    '<path id="k3" class="k3" d="M-4-4H4V4H-4Z"/>',
)
_SEEN = {False: "", True: ' class="seen"'}
#: Labels are tried on at most so many points.
_MOST_LABELS = 400
#: Sizes of letters and lines: up to so many edges.
_SIZES: dict[float, dict[str, float]] = {
    300: {
        **{"label_size": 11.5, "path_size": 14.0, "plain_width": 1.1, "plain_opacity": 0.6},
        **{"lead_width": 2.2, "lead_opacity": 1.0, "mark_edge": 0.8},
    },
    MOST_EDGES: {
        **{"label_size": 9.0, "path_size": 12.0, "plain_width": 0.6, "plain_opacity": 0.35},
        **{"lead_width": 1.2, "lead_opacity": 0.8, "mark_edge": 0.8},
    },
    np.inf: {
        **{"label_size": 9.0, "path_size": 12.0, "plain_width": 0.4, "plain_opacity": 0.2},
        **{"lead_width": 0.5, "lead_opacity": 0.25, "mark_edge": 0.3},
    },
}


@known_options
def save_page(atlas: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write an atlas as one self-contained HTML page, whole or not at all.

    The page shows the saddle-connection graph. It tells the numbers of the critical point under
    the pointer; of one that is clicked, it lists the connections and arcs with the loss along them.
    It loads nothing else. The keyboard reaches the same.

    Parameters
    ----------
    atlas
        What `build_atlas` returns, of at most 5,000 points; ``connections`` and ``visits`` are
        shown if it has them.
    path
        Name of the file; an existing file is replaced, its folder must exist.

    Raises
    ------
    ValueError, TypeError
        If it is no atlas or has more points, or the folder does not exist or ``path`` is a folder.

    Notes
    -----
    Numbers are rounded to 7 digits. Of more than 5,000 edges the picture shows the fastest way out
    of each saddle, the generic path and those that runs took; the lists show all. Of more than
    100,000 arcs those that do not decrease are left out. The page says what it leaves out.

    Examples
    --------
    >>> import pathlib, tempfile, dlnds as dl
    >>> atlas = dl.build_atlas(dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0], [0, 1.0]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dl.save_page(atlas, f"{folder}/atlas.html")
    ...     pathlib.Path(folder, "atlas.html").read_text(encoding="utf-8")[:15]
    '<!DOCTYPE html>'
    """
    text = _page(check(atlas)).encode("utf-8")
    with store.replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(text)


def check(atlas: xr.DataTree) -> xr.DataTree:
    """Return an atlas with its dims in order; refuse what is none, or too large for a page."""
    ordered: xr.DataTree = canvas.check("atlas", atlas, "atlas")
    points = atlas["points"].to_dataset()
    shown = [name for name in (*_COLUMNS, "is_complete") if name in points]
    schema.check_content("atlas", points, dict.fromkeys(shown, ("critical_point",)))
    count = points.sizes["critical_point"]
    if count > MOST_POINTS:
        raise ValueError(
            f"atlas: has {count:,} critical points, a page holds at most {MOST_POINTS:,}; "
            "build the atlas with max_rank or modes"
        )
    return ordered


def _page(atlas: xr.DataTree) -> str:
    """Return the text of the page."""
    folder = resources.files("dlnds.plot")
    template = folder.joinpath("page.html").read_text(encoding="utf-8")
    script = "\n" + folder.joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    edges, points = layout.edges(atlas), atlas["points"].to_dataset()
    orbit, orbits = _orbits(atlas, edges)
    sizes = next(sizes for most, sizes in _SIZES.items() if len(edges.kind) <= most)
    parts = {
        # Nothing is loaded, and no script runs but ours.
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'",
        "title": html.escape(str(atlas.attrs.get("title", "Atlas of a deep linear network"))),
        "summary": _summary(atlas, edges),
        "legend": _legend(points, edges),
        "graph": _graph(points, edges, orbit, sizes),
        "notes": _notes(atlas, edges),
        "data": _json({**_data(atlas, edges, orbit), "orbits": orbits, **_arcs(atlas, points)}),
        "script": script,
        **{name: str(size) for name, size in sizes.items()},
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _json(data: Any) -> str:
    """Return JSON that cannot end the element it stands in, nor start another."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def rounded(values: Any, digits: int = DIGITS) -> Array:
    """Return numbers with so many significant digits."""
    unique, which = np.unique(np.asarray(values, np.float64), return_inverse=True)
    short = np.array([float(f"{value:.{digits - 1}e}") for value in unique.tolist()])
    result: Array = short[which.ravel()].reshape(np.shape(values))
    return result


def _plain(values: Any) -> Any:
    """Return numbers as JSON has them: whole ones as integers, null for what is not finite."""
    array = np.asarray(values)
    if array.ndim > 1:
        return [_plain(row) for row in array]
    if array.dtype.kind in "iub":
        return array.astype(int).tolist()
    numbers = rounded(array).tolist()
    return [
        None if not np.isfinite(v) else int(v) if v.is_integer() and abs(v) < 1e15 else v
        for v in numbers
    ]


def _data(atlas: xr.DataTree, edges: layout.Edges, orbit: layout.Rows) -> dict[str, Any]:
    """Return what the script of the page needs to know of points and edges."""
    points = atlas["points"].to_dataset()
    columns = [name for name in _COLUMNS if name in points]
    kept = [name for name in (*columns, "is_complete") if name in points]
    visited = np.flatnonzero(edges.visited > 0)
    runs = np.stack([edges.visited, edges.probability, edges.mean_time], axis=1)[visited]
    across, down = _units(points)
    height = float(np.ptp(points["loss"].values)) or 1.0
    return {
        "labels": [str(label) for label in points["critical_point"].values],
        "columns": [{"name": name, "title": _title(points[name])} for name in columns],
        "points": {name: _plain(points[name].values) for name in kept},
        "kinds": [schema.spoken(kind) for kind in schema.POINT_KINDS],
        "bend": _plain([layout.BEND[0] * across, layout.BEND[1] * across / (down * height)]),
        "edges": {
            "source": edges.source.tolist(),
            "target": edges.target.tolist(),
            "orbit": orbit.tolist(),
            "visited": dict(zip(visited.tolist(), _plain(runs), strict=True)),
        },
        **_scales(atlas),
        "words": {"edges": _joined(atlas).capitalize(), "alpha": _title(atlas["arcs"]["alpha"])},
    }


def _title(variable: Any) -> str:
    return str(variable.attrs.get("long_name", variable.name))


def _joined(atlas: xr.DataTree) -> str:
    return "connections" if "connections" in atlas.children else "decreasing arcs"


def _scales(atlas: xr.DataTree) -> dict[str, Any]:
    if "connections" not in atlas.children:
        return {"scales": [], "scale": 0}
    node = atlas["connections"].to_dataset()
    return {"scales": _plain(node["scale"].values), "scale": layout.scale_of(node)}


def _orbits(atlas: xr.DataTree, edges: layout.Edges) -> tuple[layout.Rows, dict[str, Any]]:
    """Return the orbit that each edge shares with others, −1 if none, and the numbers of orbits."""
    learnt = atlas["points"].to_dataset()["learnt"].values
    known = edges.place >= 0
    place, before, after = (
        edges.place[known],
        learnt[edges.source[known]],
        learnt[edges.target[known]],
    )
    gained, lost = np.argmax(after & ~before, axis=1), np.argmax(before & ~after, axis=1)
    lost = np.where(edges.kind[known] == "swap", lost, -1)
    columns = [lost, gained]
    connected = "connections" in atlas.children
    if connected:
        node = atlas["connections"].to_dataset()
        columns += [node[name].values[place] for name in ("drop", "length", "rate")]
        columns += list(node["escape_time"].values[place].T)
    else:
        columns.append(edges.drop[known])
    table = rounded(np.stack(columns, axis=1))
    unique, which = np.unique(table, axis=0, return_inverse=True)
    orbit = np.full(len(known), -1)
    orbit[known] = which.ravel()
    pairs = unique[:, :2].astype(int).tolist()
    orbits = {
        "kind": ["add" if i < 0 else "swap" for i, _ in pairs],
        "word": [f"add {j}" if i < 0 else f"swap {i} for {j}" for i, j in pairs],
        "drop": _plain(unique[:, 2]),
        "time": _plain(unique[:, 5:]) if connected else [],
    }
    if connected:
        orbits |= {"length": _plain(unique[:, 3]), "rate": _plain(unique[:, 4])}
    return orbit, orbits


def _arcs(atlas: xr.DataTree, points: xr.Dataset) -> dict[str, Any]:
    """Return the arcs, and the curves of the change of the loss that they share."""
    node, chosen = atlas["arcs"].to_dataset(), _listed_arcs(atlas)
    row = {str(label): n for n, label in enumerate(points["critical_point"].values)}
    source = np.array([row[str(label)] for label in node["source"].values[chosen]], np.int64)
    loss = points["loss"].values
    change = node["exact_loss"].transpose("arc", "alpha").values[chosen] - loss[source, None]
    top = max(float(loss.max(initial=0.0)), 1e-300)
    curves, which = np.unique(np.round(change / top, DIGITS + 1) * top, axis=0, return_inverse=True)
    target = [str(label) for label in node["target"].values[chosen]]
    numbers = [name for name in ("order", "drop", "shape") if name in node]
    return {
        "arcs": {
            "source": source.tolist(),
            "target": [row.get(label, label) for label in target],
            "kind": _plain(node["kind"].values[chosen]),
            "curve": which.ravel().tolist(),
            **{name: _plain(node[name].values[chosen]) for name in numbers},
        },
        "curves": _plain(curves),
        "alpha": _plain(node["alpha"].values),
        "arcKinds": list(schema.ARC_KINDS),
        "shapes": [schema.spoken(word) for word in _meanings(node, "shape")],
    }


def _meanings(node: xr.Dataset, name: str) -> list[str]:
    return str(node[name].attrs["flag_meanings"]).split() if name in node else []


def _listed_arcs(atlas: xr.DataTree) -> layout.Rows:
    """Return which arcs are on the page: of too many the decreasing ones."""
    node = atlas["arcs"].to_dataset()
    labels = {str(label) for label in atlas["points"].to_dataset()["critical_point"].values}
    use = np.array([str(label) in labels for label in node["source"].values], bool)
    if use.sum() > MOST_ARCS:
        use &= schema.decode(node["kind"]).values == "decreasing"
    rows: layout.Rows = np.flatnonzero(use)
    return rows


def _units(points: xr.Dataset) -> tuple[float, float]:
    """Return how many units of the picture a rank is wide and a loss of 1 is high."""
    left, top, right, bottom = _FRAME
    span = float(np.ptp(points["rank"].values)) + 1.0
    height = float(np.ptp(points["loss"].values)) or 1.0
    return (right - left) / span, (bottom - top - 2.0 * _MARGIN) / height


def _placed(points: xr.Dataset, x: Any, loss: Any) -> Array:
    """Return where in the picture (x, loss) are: (…, 2), downwards."""
    across, down = _units(points)
    right = _FRAME[0] + across * (np.asarray(x) - float(points["rank"].min()) + 0.5)
    low = _FRAME[1] + _MARGIN + down * (float(points["loss"].max()) - np.asarray(loss))
    placed: Array = np.stack([right, low], axis=-1)
    return placed


def _graph(
    points: xr.Dataset, edges: layout.Edges, orbit: layout.Rows, sizes: dict[str, float]
) -> str:
    """Return the picture of the graph as SVG."""
    places = np.round(_placed(points, layout.columns(points), points["loss"].values), 2)
    taken = edges.take(edges.visited > 0)
    seen = np.isin(np.arange(len(places)), [taken.source, taken.target]).tolist()
    rows = zip(points["kind"].values, places.tolist(), seen, strict=True)
    marks = [
        f'<use href="#k{kind}" x="{x:g}" y="{y:g}"{_SEEN[visited]}/>'
        for kind, (x, y), visited in rows
    ]
    shapes = "".join(_SHAPES).format(radius=_radii(points)[1])
    return "\n".join(
        [
            '<svg id="graph" viewBox="0 0 1000 640" role="group" '
            'aria-label="loss of the critical points over their rank, and what joins them">',
            f'<defs id="shapes">{shapes}</defs>',
            *_axes(points),
            '<g id="edges">',
            *_edges(points, places, edges, orbit),
            '</g>\n<g id="chosen"></g>\n<g id="nodes">',
            *marks,
            '</g>\n<g id="labels">',
            *_labels(points, places, edges, sizes),
            "</g>\n</svg>",
        ]
    )


def _radii(points: xr.Dataset) -> tuple[float, ...]:
    """Return the radius of the mark of each kind."""
    few = points.sizes["critical_point"] <= 500
    return (10.0, 4.2 if few else 2.0, 6.5, 5.0)


def _axes(points: xr.Dataset) -> list[str]:
    from matplotlib.ticker import MaxNLocator

    left, top, right, bottom = _FRAME
    ranks, loss = points["rank"].values, points["loss"].values
    lines = [
        f'<rect class="frame" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>'
    ]
    for rank in range(int(ranks.min()), int(ranks.max()) + 1):
        lines.append(_text(_placed(points, rank, 0.0)[0], bottom + 18.0, "middle", str(rank)))
    for level in MaxNLocator(6).tick_values(loss.min(), loss.max()):
        y = float(_placed(points, 0.0, level)[1])
        if top < y < bottom:
            lines.append(f'<path class="frame" d="M{left - 5} {y:.1f}H{left}"/>')
            lines.append(_text(left - 8.0, y + 4.5, "end", f"{level:g}"))
    lines.append(_text(0.5 * (left + right), bottom + 38.0, "middle", "rank"))
    turned = f'transform="translate(14 {0.5 * (top + bottom)}) rotate(-90)"'
    return [*lines, _text(0.0, 0.0, "middle", "loss", turned)]


def _text(x: float, y: float, anchor: str, words: str, rest: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="tick" {place} {rest}>{html.escape(words)}</text>'


def _edges(points: xr.Dataset, places: Array, edges: layout.Edges, orbit: layout.Rows) -> list[str]:
    """Return the edges, those of one orbit and one weight as one path."""
    bends = layout.bends(layout.columns(points), points["loss"].values, edges)
    control = np.round(_placed(points, *bends.T), 1)
    numbers = np.hstack([places[edges.source], control, places[edges.target]])
    lead, visited = layout.leading(edges), edges.visited > 0
    plain = ~(lead | edges.generic | visited) & (len(lead) <= MOST_EDGES)
    paths = [_path("generic", numbers[edges.generic])]
    for name, chosen in (("plain", plain), ("lead", (lead | edges.generic) & ~visited)):
        for which in np.unique(orbit[chosen]).tolist():
            paths.append(_path(name, numbers[chosen & (orbit == which)], f'data-o="{which}"'))
    widths = 1.5 + 4.0 * edges.visited / max(edges.visited.max(initial=0.0), 1.0)
    for e in np.flatnonzero(visited).tolist():
        one, width = numbers[e : e + 1], f'stroke-width="{widths[e]:.3g}"'
        if edges.kind[e] == "observed":
            paths.append(_path("visited observed", one, width))
        else:
            paths.append(_path("visited", one, f'stroke-width="{widths[e] + 2.0:.3g}"'))
            paths.append(_path("taken", one, f'data-o="{orbit[e]}" {width}'))
    return paths


def _path(name: str, numbers: Array, rest: str = "") -> str:
    """Return one path of parabolas (edge, 6)."""
    curves = "".join("M{:g} {:g}Q{:g} {:g} {:g} {:g}".format(*row) for row in numbers.tolist())
    return f'<path class="{name}" d="{curves}" {rest}/>' if curves else ""


def _labels(
    points: xr.Dataset, places: Array, edges: layout.Edges, sizes: dict[str, float]
) -> list[str]:
    """Return the labels that fit, in a font whose letters are at most 0.62 of its size wide."""
    texts, path = layout.path_labels(points), layout.generic_path(points)
    order = layout.importance(points, edges)[:_MOST_LABELS].tolist()
    fonts = [sizes["path_size"] if path[n] else sizes["label_size"] for n in order]
    boxes = [(0.62 * f * len(texts[n]), 1.2 * f) for n, f in zip(order, fonts, strict=True)]
    radii = np.array(_radii(points))[points["kind"].values]
    upwards, half = places * np.array([1.0, -1.0]), 0.7 * radii[:, None]
    obstacles = np.concatenate([upwards - half, upwards + half], axis=1)
    left, top, right, bottom = _FRAME
    frame = (left, -bottom, right, -top)
    corners = layout.fit_labels(boxes, upwards[order], 1.0 + radii[order], obstacles, frame)
    lines = []
    for n, font, corner in zip(order, fonts, corners, strict=True):
        if corner is not None:
            place = f'x="{corner[0]:.1f}" y="{-corner[1] - 0.28 * font:.1f}"'
            kind = ' class="path"' if path[n] else ""
            lines.append(f'<text data-n="{n}" {place}{kind}>{html.escape(texts[n])}</text>')
    return lines


def _summary(atlas: xr.DataTree, edges: layout.Edges) -> str:
    points = atlas["points"].to_dataset()
    widths = " → ".join(str(int(width)) for width in atlas.attrs["widths"])
    sigma = ", ".join(f"{value:.4g}" for value in points["singular_value"].values)
    known = int(np.count_nonzero(edges.kind != "observed"))
    return html.escape(
        f"network {widths}; singular values {sigma}; "
        f"{points.sizes['critical_point']:,} critical points, {known:,} {_joined(atlas)}"
    )


def _legend(points: xr.Dataset, edges: layout.Edges) -> str:
    kinds = points["kind"].values
    entries = [
        (f'<use href="#k{n}"/>', schema.spoken(kind), int(np.count_nonzero(kinds == n)))
        for n, kind in enumerate(schema.POINT_KINDS)
    ]
    line = '<path fill="none" stroke="currentColor" stroke-width="1.3" d="{}"/>'
    for kind, words, curve in (
        ("add", "adds a mode", "M-8-5L8 5"),
        ("swap", "swaps two", "M-3-8Q9 0-3 8"),
        ("observed", "only runs did", "M3-8Q-9 0 3 8"),
    ):
        entries.append((line.format(curve), words, int(np.count_nonzero(edges.kind == kind))))
    return "\n".join(
        f'<span class="words"><svg viewBox="-8 -8 16 16" aria-hidden="true">{picture}</svg>'
        f"{words} ({count:,})</span>"
        for picture, words, count in entries
        if count
    )


def _notes(atlas: xr.DataTree, edges: layout.Edges) -> str:
    """Return what the page leaves out, and how to read it."""
    best = "fastest way out" if np.isfinite(edges.time).any() else "largest drop"
    notes = [
        f"Strong lines: the {best} of each saddle; broad line: the generic path. "
        f"Numbers have {DIGITS} digits; modes are numbered from 0."
    ]
    if "connections" in atlas.children:
        power = len(atlas.attrs["widths"]) - 2
        law = "exp(λ t)" if power == 1 else f"da/dt = λ a^{power}"
        notes.append(f"Rates λ: swaps depart like exp(λ t), added modes grow like {law}.")
    if (edges.visited > 0).any():
        notes.append("Cased lines: what runs did, the broader the more of them.")
    if len(edges.kind) > MOST_EDGES:
        drawn = layout.leading(edges) | edges.generic | (edges.visited > 0)
        others = int(np.count_nonzero(~drawn))
        notes.append(f"{others:,} other edges are drawn only when one of their points is chosen.")
    listed, total = len(_listed_arcs(atlas)), atlas["arcs"].sizes["arc"]
    if listed < total:
        notes.append(f"{total - listed:,} arcs that do not decrease are left out of this page.")
    return "<p>" + html.escape(" ".join(notes)) + "</p>"
