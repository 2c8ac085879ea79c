"""The picture of all critical points over weight decay."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_choice, known_options
from dlnds.plot import canvas

#: Of more branches none are named.
_MOST_NAMED = 60
#: Up to so many modes have their colours in the legend.
_MOST_LISTED = 12
#: Parts of the way along a curve at which its name is tried.
_NAMED_AT = (0.0, 0.3, 0.6, 0.15, 0.45, 0.8)
#: How far in points names keep away from their curves and from others.
_GAP, _CLEAR = 4.0, 1.5


@known_options
def decay_diagram(diagram: xr.Dataset, *, show: str = "loss", ax: Axes | None = None) -> Axes:
    """Draw all critical points over weight decay: their losses, or the sizes of their modes.

    Minima are solid, the global one wide, saddles dashed; branches have the colours of their ranks.
    Sizes have those of their modes, larger roots solid and smaller ones dashed; dotted lines are
    where they end.

    Parameters
    ----------
    diagram
        What `decay_diagram` returns.
    show
        ``"loss"`` or ``"size"``.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If it is no such diagram.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork((1, 1, 1, 1), [[2.0]])
    >>> ax = dl.plot.decay_diagram(dl.decay_diagram(net, (0.0, 1.5)))
    >>> [text.get_text() for text in ax.texts]
    ['{}', '{0⁺}', '{0⁻}']
    """
    name = check_choice("show", show, ("loss", "size"))
    needed = schema.REQUIRED["decay_diagram"] | {"weight_decay": ("weight_decay",)}
    partial = ("loss", "size", "most_decay")  # where there is no point, and none ends
    data = schema.read("diagram", diagram, "decay_diagram", needed, partial=partial)
    ax = canvas.axes(ax, (8.0, 5.0), data["weight_decay"], data[name])
    (_losses if name == "loss" else _sizes)(ax, data)
    ax.set_xlim(*data["weight_decay"].values[[0, -1]])
    return ax


def _losses(ax: Axes, data: xr.Dataset) -> None:
    """Draw the losses of all branches."""
    decays, losses = data["weight_decay"].values, data["loss"].values
    kinds = schema.decode(data["kind"]).values
    ranks = data["rank"].values
    colours = canvas.mode_colours(int(ranks.max()) + 1)
    for loss, kind, rank in zip(losses, kinds, ranks, strict=True):
        styles: list[tuple[Any, dict[str, Any]]] = [
            (True, {"linestyle": "--", "linewidth": 0.9}),
            (_and_next(np.isin(kind, ("minimum", "global_minimum"))), {"linewidth": 1.6}),
            (_and_next(kind == "global_minimum"), {"linewidth": 3.5}),
        ]
        for chosen, style in styles:
            ax.plot(decays, np.where(chosen, loss, np.nan), color=colours(rank), **style)
    if len(losses) <= _MOST_NAMED:
        _name(ax, data, [colours(rank) for rank in ranks])


def _and_next(chosen: Any) -> Any:
    """Return which rows, and those after them, so that lines join."""
    return chosen | np.append(False, chosen[:-1])


def _name(ax: Axes, data: xr.Dataset, colours: list[Any]) -> None:
    """Write the names of branches where there is room beside them."""
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white", alpha=0.85)]
    texts, anchors, curves = [], [], []
    rows = zip(data["branch"].values, data["loss"].values, colours, strict=True)
    for text, loss, colour in rows:
        there = np.flatnonzero(np.isfinite(loss))
        if not there.size:
            continue
        points = np.stack([data["weight_decay"].values[there], loss[there]], axis=1)
        curves.append(points)
        anchors.append(points[[int(part * (len(points) - 1)) for part in _NAMED_AT]])
        texts.append(
            ax.annotate(
                str(text), anchors[-1][0], (0, 0), textcoords="offset pixels", va="bottom",
                fontsize=8, color=colour, path_effects=halo, zorder=5, in_layout=False,
            )
        )  # fmt: skip
    if texts:
        ax.margins(y=0.1)
        places = np.concatenate(curves)
        ax.add_artist(canvas.FittingLabels(texts, anchors, _GAP, places, _CLEAR))


def _sizes(ax: Axes, data: xr.Dataset) -> None:
    """Draw the sizes that each mode has on any branch."""
    decays, sizes = data["weight_decay"].values, data["size"].values
    count = sizes.shape[-1]
    colours, handles = canvas.mode_colours(count), []
    for mode in range(count):
        smaller, larger = _roots(sizes[..., mode])
        style: dict[str, Any] = {"color": colours(mode), "linewidth": 1.6}
        ax.plot(decays, larger, **style)
        ax.plot(decays, smaller, **style, linestyle="--")
        end = float(data["most_decay"].values[mode])
        if decays[0] < end < decays[-1]:
            ax.axvline(end, color=colours(mode), linewidth=0.8, linestyle=":")
        handles.append(Line2D([], [], label=f"mode {mode}", **style))
    ax.set_ylim(bottom=0.0)
    if count <= _MOST_LISTED:
        ax.legend(handles=handles, fontsize=8)


def _roots(sizes: Array) -> tuple[Array, Array]:
    """Return the smaller and the larger of the positive sizes (branch, weight_decay), NaN if none.

    Nothing is smaller where there is one only.
    """
    positive = np.where(sizes > 0.0, sizes, np.nan)
    there = np.isfinite(positive).any(axis=0)
    larger = np.where(there, np.max(positive, axis=0, where=positive > 0.0, initial=0.0), np.nan)
    smaller = np.min(positive, axis=0, where=positive > 0.0, initial=np.inf)
    return np.where(there & (smaller < larger), smaller, np.nan), larger
