"""An atlas as one HTML page, to look at in a browser without a network."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
import re
from importlib import resources
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dlnds import schema, store
from dlnds.arrays import Array, Integers
from dlnds.errors import known_options
from dlnds.plot import canvas, landscape, layout

#: A page of more points would be too slow in a browser.
MOST_POINTS = 5000
#: Of more arcs only the decreasing ones are on the page.
MOST_ARCS = 100_000
#: Significant digits of the numbers on the page.
DIGITS = 7
#: Names of inputs and outputs are cut to so many letters.
_LETTERS = 40
#: What a page tells of each point, if the atlas has it.
_COLUMNS = (
    *("rank", "loss", "kind", "index", "nullity", "order_of_descent", "fiber_dimension"),
    *("departure_rate", "convergence_rate"),
)
#: Of the picture, in inches: as letters keep their size, a phone's screen has one of its own.
_SIZES = {"wide": (10.0, 7.25), "narrow": (4.4, 7.0)}
#: The picture's texts stay texts, in letters of a known width, and two pictures are the same.
_SVG: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dlnds",
    "font.family": "monospace",
    "font.monospace": ["DejaVu Sans Mono"],
}
#: What of matplotlib's SVG a page of HTML has no use for, and what it needs in its place.
_TIDY: tuple[tuple[str, Any], ...] = (
    (r"\s+", " "),
    (r"^.*?<svg [^>]*>|<metadata>.*?</metadata>|<defs> <style.*?</defs>", ""),
    (r"<defs> <clipPath.*?</defs>| clip-path=\"[^\"]*\"|fill: none; ", ""),
    (r'(<path id="\w+" d="[^"]*") style="[^"]*"', r"\1"),  # those who use it have a style
    ("xlink:href", "href"),
    (r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip(".")),
    (r"(?<=[MLQCz]) |(?<=\d) (?=[MLQCz\"])", ""),
)


@known_options
def save_page(atlas: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write an atlas as one self-contained HTML page, whole or not at all.

    The page shows the saddle-connection graph. It tells the numbers of the critical point under
    the pointer; of one that is clicked, it lists the connections and arcs with the loss along them.
    It loads nothing else. The keyboard reaches the same. On a phone it is a narrow picture.

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
    ordered = canvas.atlas(atlas)
    points = ordered["points"].to_dataset()
    shown = [name for name in (*_COLUMNS, "is_complete") if name in points]
    schema.read("atlas", points, "critical_points", dict.fromkeys(shown, ("critical_point",)))
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
    pictures = {name: _picture(atlas, edges, size) for name, size in _SIZES.items()}
    parts = {
        # Nothing is loaded, and no script runs but ours.
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'",
        "title": html.escape(str(atlas.attrs.get("title", "Atlas of a deep linear network"))),
        "summary": _summary(atlas, edges),
        **{name: picture for name, (picture, _) in pictures.items()},
        "notes": _notes(atlas, edges),
        "data": _json(
            _data(atlas, edges, orbit) | _arcs(atlas, points) | orbits | pictures["wide"][1]
        ),
        "script": script,
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
    return short[which.ravel()].reshape(np.shape(values))


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


def _data(atlas: xr.DataTree, edges: layout.Edges, orbit: Integers) -> dict[str, Any]:
    """Return what the script of the page needs to know of points and edges."""
    points = atlas["points"].to_dataset()
    columns = [name for name in _COLUMNS if name in points]
    kept = [name for name in (*columns, "is_complete") if name in points]
    joined = atlas["connections" if "connections" in atlas.children else "arcs"].to_dataset()
    visited = np.flatnonzero(edges.visited > 0)
    runs = np.stack([edges.visited, edges.probability, edges.mean_time], axis=1)[visited]
    return {
        "labels": [str(label) for label in points["critical_point"].values],
        "columns": [{"name": name, "title": _title(points[name])} for name in columns],
        "points": {name: _plain(points[name].values) for name in kept},
        "kinds": [schema.spoken(kind) for kind in schema.POINT_KINDS],
        "modes": landscape.mode_names(atlas, points.sizes["mode"], _LETTERS),
        "edges": {
            "source": edges.source.tolist(),
            "target": edges.target.tolist(),
            "orbit": orbit.tolist(),
            "visited": dict(zip(visited.tolist(), _plain(runs), strict=True)),
        },
        "scales": _plain(joined["scale"].values) if "scale" in joined else [],
        "scale": layout.scale_of(joined) if "scale" in joined else 0,
        "words": {"edges": _joined(atlas).capitalize(), "alpha": _title(atlas["arcs"]["alpha"])},
    }


def _title(variable: Any) -> str:
    return str(variable.attrs.get("long_name", variable.name))


def _joined(atlas: xr.DataTree) -> str:
    return "connections" if "connections" in atlas.children else "decreasing arcs"


def _orbits(atlas: xr.DataTree, edges: layout.Edges) -> tuple[Integers, dict[str, Any]]:
    """Return the orbit that each edge shares with others, −1 if none, and the numbers of orbits."""
    learnt = atlas["points"].to_dataset()["learnt"].values
    known = edges.place >= 0
    place = edges.place[known]
    before, after = (learnt[ends[known]] for ends in (edges.source, edges.target))
    gained, lost = np.argmax(after & ~before, axis=1), np.argmax(before & ~after, axis=1)
    columns = [np.where(edges.kind[known] == "swap", lost, -1), gained]
    if "connections" in atlas.children:
        node = atlas["connections"].to_dataset()
        columns += [node[name].values[place] for name in ("length", "rate")]
        columns += list(node["escape_time"].values[place].T)
    table = rounded(np.stack(columns, axis=1))
    unique, which = np.unique(table, axis=0, return_inverse=True)
    orbit = np.full(len(known), -1)
    orbit[known] = which.ravel()
    pairs = unique[:, :2].astype(int).tolist()
    words = [f"add {j}" if i < 0 else f"swap {i} for {j}" for i, j in pairs]
    numbers = dict(zip(("length", "rate"), _plain(unique[:, 2:4].T), strict=False))
    times = _plain(unique[:, 4:]) if numbers else []
    return orbit, {"orbits": {"word": words, "time": times, **numbers}}


def _arcs(atlas: xr.DataTree, points: xr.Dataset) -> dict[str, Any]:
    """Return the arcs, and the curves of the change of the loss that they share."""
    node, chosen = atlas["arcs"].to_dataset(), _listed_arcs(atlas)
    row = {str(label): n for n, label in enumerate(points["critical_point"].values)}
    source = np.array([row[str(label)] for label in node["source"].values[chosen]], np.int64)
    loss = points["loss"].values
    change = node["exact_loss"].values[chosen] - loss[source, None]
    top = max(float(loss.max(initial=0.0)), 1e-300)
    curves, which = np.unique(np.round(change / top, DIGITS + 1) * top, axis=0, return_inverse=True)
    target = [str(label) for label in node["target"].values[chosen]]
    numbers = ("kind", "order", "drop", "shape")
    return {
        "arcs": {
            "source": source.tolist(),
            "target": [row.get(label, label) for label in target],
            "curve": which.ravel().tolist(),
            **{name: _plain(node[name].values[chosen]) for name in numbers},
        },
        "curves": _plain(curves),
        "alpha": _plain(node["alpha"].values),
        "arcKinds": list(schema.ARC_KINDS),
        "shapes": [schema.spoken(word) for word in schema.ARC_SHAPES],
    }


def _listed_arcs(atlas: xr.DataTree) -> Integers:
    """Return which arcs are on the page: of too many the decreasing ones."""
    node, points = atlas["arcs"].to_dataset(), atlas["points"].to_dataset()
    use = np.isin(node["source"].values, points["critical_point"].values)
    if use.sum() > MOST_ARCS:
        use &= schema.decode(node["kind"]).values == "decreasing"
    return np.flatnonzero(use)


def _picture(
    atlas: xr.DataTree, edges: layout.Edges, size: tuple[float, float]
) -> tuple[str, dict[str, Any]]:
    """Return the picture of the graph as SVG, and what the script needs to know of any."""
    points = atlas["points"].to_dataset()
    with matplotlib.rc_context(_SVG):
        figure = Figure(figsize=size, layout="constrained")
        ax = landscape.frame(figure.add_subplot(), size, points)
        shown = landscape.draw(ax, atlas, edges)
        for label in ax.texts:
            label.set_path_effects([])  # would make curves of letters
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    for pattern, new in _TIDY:
        text = re.sub(pattern, new, text)
    styles: dict[str, int] = {}  # of thousands of paths there are few
    for style in re.findall('style="([^"]*)"', text):
        styles.setdefault(style, len(styles))
    text = re.sub('style="([^"]*)"', lambda found: f'class="s{styles[found[1]]}"', text)
    rules = "".join(f".s{number}{{{style}}}" for style, number in styles.items())
    box = " ".join(f"{72.0 * size:g}" for size in (0.0, 0.0, *figure.get_size_inches()))
    words = "loss of the critical points over their rank, and what joins them"
    column = ax.bbox.width / np.ptp(ax.get_xlim()) * 72.0 / figure.dpi
    root = (
        f'<svg id="graph" viewBox="{box}" data-column="{column:.2f}" role="group" '
        f'aria-label="{words}">'
    )
    x = layout.columns(points)
    control = landscape.bends(ax, x, points["loss"].values, edges)[:, 0]
    bend = control - 0.5 * (x[edges.source] + x[edges.target])
    return f"{root}<style>{rules}</style>{text}", {
        "shown": {name: rows.tolist() for name, rows in shown.items() if len(rows)},
        "faint": (~layout.strong_points(points, edges)).astype(int).tolist(),
        "bend": np.round(bend, 4).tolist(),
        "ramp": [to_hex(colour) for colour in landscape.TIMES(np.linspace(0.0, 1.0, 65))],
    }


def _summary(atlas: xr.DataTree, edges: layout.Edges) -> str:
    points = atlas["points"].to_dataset()
    widths = " → ".join(str(int(width)) for width in atlas.attrs["widths"])
    sigma = ", ".join(f"{value:.4g}" for value in points["singular_value"].values)
    known = int(np.count_nonzero(edges.kind != "observed"))
    return html.escape(
        f"network {widths}; singular values {sigma}; "
        f"{points.sizes['critical_point']:,} critical points, {known:,} {_joined(atlas)}"
    )


def _notes(atlas: xr.DataTree, edges: layout.Edges) -> str:
    """Return what the page leaves out, and how to read it."""
    notes = [f"Numbers have {DIGITS} digits; modes are numbered from 0."]
    if "connections" in atlas.children:
        power = len(atlas.attrs["widths"]) - 2
        law = "exp(λ t)" if power == 1 else f"da/dt = λ a^{power}"
        notes.append(f"Rates λ: swaps depart like exp(λ t), added modes grow like {law}.")
    if len(edges.kind) > landscape.MOST_EDGES:
        best = layout.best(atlas["points"].to_dataset(), edges)
        drawn = best | edges.generic | (edges.visited > 0)
        others = int(np.count_nonzero(~drawn))
        notes.append(f"{others:,} other edges are drawn only when one of their points is chosen.")
    listed, total = len(_listed_arcs(atlas)), atlas["arcs"].sizes["arc"]
    if listed < total:
        notes.append(f"{total - listed:,} arcs that do not decrease are left out of this page.")
    return "<p>" + html.escape(" ".join(notes)) + "</p>"
