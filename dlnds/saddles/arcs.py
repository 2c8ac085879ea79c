"""Arcs that leave critical points, with their exact loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from dlnds import schema
from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_flag, check_integer, check_memory, known_options
from dlnds.landscape.points import check_critical
from dlnds.saddles.graph import ends_in
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.theory import departures, strings, tolerances
from dlnds.theory.coordinates import layers_of, product
from dlnds.theory.departures import Arc
from dlnds.theory.moments import count_pairs, exceeds

#: Most arcs that the table of all canonical points holds if it can do with fewer kinds.
MOST_ARCS = 100_000
#: What that table holds: all arcs; those that descend to another point; those that add a mode.
SELECTIONS = ("all", "descending", "activations")

_SHAPE = {word: number for number, word in enumerate(schema.ARC_SHAPES)}
_KIND = {word: number for number, word in enumerate(schema.ARC_KINDS)}
#: What of arcs their states are computed from.
_NUMBERS = ("mode", "mode_lost", "mode_read", "n_layers")
_MOVING = {
    "alpha": ("alpha",),
    "arc_parameter": ("arc", "alpha"),
    **dict.fromkeys(("source", "target", "shape", "kind", *_NUMBERS), ("arc",)),
}


class _Rows(NamedTuple):
    """Arcs from several points: from which, and what moves."""

    point: Integers
    shape: Integers
    kind: Integers
    mode: Integers
    mode_lost: Integers
    mode_read: Integers
    n_layers: Integers

    def pick(self, chosen: Any) -> _Rows:
        """Return some of the rows."""
        return _Rows(*(column[chosen] for column in self))

    def ordered(self) -> _Rows:
        """Return the rows by point, shape, kind and modes."""
        keys = (self.mode_read, self.mode, self.mode_lost, -self.n_layers, self.kind, self.shape)
        return self.pick(np.lexsort((*keys, self.point)))

    def are(self, shape: str, kind: str | None = None) -> Flags:
        """Tell which rows have a shape, and a kind."""
        mask: Flags = self.shape == _SHAPE[shape]
        return mask if kind is None else mask & (self.kind == _KIND[kind])

    def arcs(self, parameter: Array) -> Iterator[Arc]:
        """Return the rows one by one, with their parameters (arc, sample)."""
        for row, values in zip(zip(*self, strict=True), parameter, strict=True):
            _, shape, kind, *numbers = (int(number) for number in row)
            yield Arc(values, schema.ARC_SHAPES[shape], schema.ARC_KINDS[kind], *numbers)

    def parameter(self, sigma: Array, depth: int, fractions: Array) -> Array:
        """Return α or θ (arc, sample) at fractions of the whole arc."""
        size = sigma ** (1.0 / depth)
        ends = {
            **dict.fromkeys(("plateau", "activation"), size[self.mode]),
            "cross": np.sqrt(size[self.mode] * size[self.mode_read]),
            "scaling": np.where(self.mode_lost < 0, 2.0 ** (1.0 / depth) - 1.0, -1.0),
            **dict.fromkeys(("rotation", "rotation_kept"), np.array(0.5 * np.pi)),
        }
        end = np.select([self.are(shape) for shape in ends], list(ends.values()), 1.0)
        parameter: Array = np.multiply.outer(end, fractions)
        return parameter

    def change(self, sigma: Array, depth: int, parameter: Array) -> Array:
        """Return L − L_S (arc, sample) by the closed formulas."""
        result = np.zeros_like(parameter)
        for shape, formula in departures.CHANGES.items():
            here = self.are(shape)
            part = self.pick(here)
            sign = np.where(part.kind == _KIND["increasing"], -1.0, 1.0)[:, None]
            high, low = sigma[part.mode][:, None], sigma[part.mode_lost][:, None]
            result[here] = formula(parameter[here], high, low, sign, depth)
        return result

    def gained(self) -> Integers:
        """Return the mode that is learnt at the end of each and not at its start, −1 if none."""
        gains = self.are("activation", "decreasing") | self.are("rotation")
        return np.where(gains, self.mode, -1)

    def order(self, depth: int) -> Integers:
        """Return the order of the first term of the loss, 0 where there is none."""
        masks = [self.kind == _KIND["constant"], self.are("activation"), self.are("cross")]
        return np.select(masks, [0, depth, 2 * depth], 2)


@known_options
def critical_arcs(
    net: LinearNetwork, x: ArrayLike, *, n_alpha: int = 33, rtol: float = tolerances.CRITICAL
) -> xr.Dataset:
    """Return the arcs that leave a critical point, with the loss along them.

    Parameters
    ----------
    net
        The network, with any input covariance.
    x
        Critical state (parameter).
    n_alpha
        Samples of each arc.
    rtol
        How accurately it is critical, as for `classify`.

    Returns
    -------
    xarray.Dataset
        Schema ``arcs``. What moves along an ``arc``: ``shape`` (Notes), the modes ``mode`` j,
        ``mode_lost`` i and ``mode_read`` k (−1 where there is none), and ``n_layers``, the layers
        that change. ``kind``: the loss is ``decreasing``, ``increasing`` or ``constant``;
        ``order`` of its first term, 0 if constant; ``drop``, what is lost of it until the end.
        ``source`` is the index set of ``x`` and ``target`` that of the critical point at the end,
        empty if the end is none; ``is_critical`` is 1 if all states are critical.
        ``arc_parameter(arc, alpha)`` is α or θ; the coordinate ``alpha`` is that in units of its
        end, from 0 at ``x`` to 1. ``loss(arc, alpha)`` is that of the states, which `arc_states`
        returns, ``exact_loss`` that of the formula.

        The attribute ``n_omitted`` counts the arcs of A_S for which the Z blocks of ``x`` leave no
        unit; ``smallest_kept`` and ``largest_dropped`` are as for `classify`.

    Raises
    ------
    ValueError, TypeError
        If the state is not critical, with how far it is from that, a rank is not clear at
        ``rtol``, or the memory would not do.

    Notes
    -----
    ΔL = L − L_S by ``shape``; i is learnt, j and k are not, and all σ are positive:

    - ``orbit``: mode j, learnt, 1 + α times in W_1 and 1/(1 + α) times in W_2: ΔL = 0.
    - ``fiber``: all Z blocks 1 − α times, down to the orbit of A_S: ΔL = 0.
    - ``plateau``: a channel of mode j of size α in the first h − 1 or h − 2 layers: ΔL = 0.
    - ``activation``: the same in all layers, up to σ_j^{1/h}: ΔL = −σ_j α^h + ½ α^{2h}; with the
      sign + instead of − (increasing) if the signs of the layers have the product −1.
    - ``cross``: a channel that reads v_k and writes u_j, up to (σ_j σ_k)^{1/(2h)}: ΔL = ½ α^{2h}.
    - ``scaling``: mode j, learnt, 1 + α times in all layers, down to 0, where it is lost, or up to
      twice its strength: ΔL = ½ σ_j² ((1 + α)^h − 1)².
    - ``rotation``: mode i turned to j, u(θ) = cos θ u_i + sin θ u_j in W_h and u(θ)ᵀ Σ in W_1:
      ΔL = −½ sin²θ (σ_j² − σ_i²).
    - ``rotation_kept``: u and v turned with the strength σ_i kept: ΔL = −σ_i sin²θ (σ_j − σ_i).
      If σ_i = σ_j it is the rotation, and listed as that.

    They are exact at all points of the fiber. Whatever the Z blocks are, they do not see learnt
    modes; a channel is laid beside them: units e_i with Z_{i+1} e_i = 0 and f_i with f_iᵀ Z_i = 0,
    f_iᵀ e_i = 1, so that the product of the layers Z_i + α e_i f_{i−1}ᵀ is Z_h…Z_1 + α^h u_j v_kᵀ.
    The ends of activations and rotations are critical, and h − 2 layers of a channel are, unless
    the Z blocks carry the mode on. Raw inputs: what is said of W_1 holds for W_1 K; where K leaves
    weights free, ``fiber`` takes them to zero too. A single layer has no arcs.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362); AMG24 (Achour, Malgouyres & Gerchinovitz,
    arXiv:2107.13289)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    >>> arcs = dl.critical_arcs(net, net.critical_state((1,)))
    >>> down = arcs.isel(arc=dl.schema.decode(arcs.kind) == "decreasing")
    >>> list(zip(dl.schema.decode(down["shape"]).values.tolist(), down.target.values.tolist()))
    [('activation', '{0,1}'), ('rotation', '{0}'), ('rotation_kept', '')]
    >>> bool(abs(arcs.loss - arcs.exact_loss).max() < 1e-14)
    True
    """
    state, found, _ = check_critical(net, x, rtol)
    count = check_integer("n_alpha", n_alpha, minimum=2)
    place = departures.take_apart(net.problem, net.unpack(state), found, rtol)
    sigma = net.singular_values
    listed = _rows(net, np.isin(np.arange(len(sigma)), found.modes)[None], sigma > 0.0)
    rows = _at_place(place, listed)
    check_memory("n_alpha", count * (4 * len(rows.point) + 3 * net.dim))
    fractions = np.linspace(0.0, 1.0, count)
    arcs = rows.arcs(rows.parameter(sigma, net.depth, fractions))
    stacks = (layers_of(net.widths, departures.states(place, arc)) for arc in arcs)
    loss = [net.problem.loss(product(layers)) for layers in stacks]
    columns = {
        "source": np.full(len(loss), schema.index_set_label(found.modes)),
        "target": _targets(rows, found.modes, _end_at_points(rows, net.depth, place)),
        "is_critical": _are_critical(rows, net.depth, place),
        "loss": np.reshape(loss, (-1, count)),
        "start": np.full(len(loss), 0.5 * np.sum(np.delete(sigma, found.modes) ** 2)),
    }
    attrs = {
        "rtol": rtol,
        "n_omitted": len(listed.point) - int(np.count_nonzero(~rows.are("fiber"))),
        "smallest_kept": place.counted.smallest_kept,
        "largest_dropped": place.counted.largest_dropped,
    }
    return _dataset(net, rows, columns, fractions, attrs)


def _rows(net: LinearNetwork, learnt: Flags, allowed: Flags, selection: str = "all") -> _Rows:
    """Return the arcs from canonical points of the sets ``learnt`` (point, mode)."""
    depth, larger = net.depth, exceeds(net.singular_values)
    unlearnt, learnt = allowed & ~learnt, learnt & (depth > 1)
    room = learnt.sum(axis=1) < min(net.widths[1:-1], default=0)
    channel = unlearnt & room[:, None]
    pairs = learnt[:, :, None] & unlearnt[:, None, :]
    parts = [_part("activation", "decreasing", channel, ("mode",), depth)]
    if selection != "activations":
        parts.append(_part("rotation", "decreasing", pairs & larger, ("mode_lost", "mode"), 2))
    if selection == "all":
        parts += _not_descending(learnt, channel, pairs, larger, depth)
    return _joined(parts).ordered()


def _not_descending(
    learnt: Flags, channel: Flags, pairs: Flags, larger: Flags, depth: int
) -> list[_Rows]:
    """Return the arcs that do not descend to another point."""
    lost = _part("scaling", "increasing", learnt, ("mode",), depth)
    others = channel[:, :, None] & channel[:, None, :] & ~np.eye(len(larger), dtype=bool)
    turns = [
        ("rotation", "increasing", larger.T),
        ("rotation", "constant", ~(larger | larger.T)),
        ("rotation_kept", "decreasing", larger),
        ("rotation_kept", "increasing", larger.T),
    ]
    return [
        _part("orbit", "constant", learnt, ("mode",), 2),
        *(_part("plateau", "constant", channel, ("mode",), n) for n in (depth - 1, depth - 2)),
        _part("activation", "increasing", channel, ("mode",), depth),
        _part("cross", "increasing", others, ("mode", "mode_read"), depth),
        lost,
        lost._replace(mode_lost=lost.mode),
        *(_part(turn, kind, pairs & ok, ("mode_lost", "mode"), 2) for turn, kind, ok in turns),
    ]


def _joined(parts: Sequence[_Rows]) -> _Rows:
    """Return all rows whose layers move."""
    rows = _Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return rows.pick(rows.n_layers > 0)


def _part(shape: str, kind: str, mask: Flags, modes: Sequence[str], n_layers: int) -> _Rows:
    """Return the arcs of one shape and kind, at the places of ``mask`` (point, mode, …)."""
    point, *places = np.nonzero(mask)
    numbers = (_SHAPE[shape], _KIND[kind], -1, -1, -1, n_layers)
    rows = _Rows(point, *(np.full(len(point), number) for number in numbers))
    return rows._replace(**dict(zip(modes, places, strict=True)))


def _at_place(place: departures.Place, rows: _Rows) -> _Rows:
    """Return the arcs that there are at one point: with Z blocks one more, and others not."""
    n_layers = len(place.fiber)
    fiber = _part("fiber", "constant", np.full(1, n_layers > 0), (), n_layers)
    if place.channel is None:
        rows = rows.pick(~(rows.are("plateau") | rows.are("activation") | rows.are("cross")))
    return _joined([rows, fiber]).ordered()


def _end_at_points(rows: _Rows, depth: int, place: departures.Place | None = None) -> Flags:
    """Tell which arcs end at critical points."""
    gained = rows.gained()
    swapped = gained >= 0 if place is None else (gained >= 0) & ~place.blocked[gained]
    losing = rows.are("scaling") & (rows.mode_lost >= 0)
    constant = rows.kind == _KIND["constant"]
    return np.where(constant, _are_critical(rows, depth, place), swapped | losing)


def _are_critical(rows: _Rows, depth: int, place: departures.Place | None = None) -> Flags:
    """Tell along which arcs all states are critical; without a place there are no Z blocks."""
    moving = rows.are("plateau") & (rows.n_layers == depth - 1)
    critical: Flags = (rows.kind == _KIND["constant"]) & ~moving
    if place is not None:
        critical &= ~(rows.are("rotation") & place.blocked[rows.mode])
        critical &= ~(rows.are("plateau") & place.held[rows.mode])
    return critical


def _targets(rows: _Rows, modes: Sequence[int], reached: Flags) -> NDArray[np.str_]:
    """Return the labels of the ends of arcs from one point, empty where none is reached."""
    changes = zip(rows.gained().tolist(), rows.mode_lost.tolist(), reached, strict=True)
    labels = [
        schema.index_set_label({*modes, gain} - {lost, -1}) if there else ""
        for gain, lost, there in changes
    ]
    return np.array(labels, dtype=np.str_)


def _dataset(
    net: LinearNetwork, rows: _Rows, columns: dict[str, Array], alpha: Array, attrs: dict[str, Any]
) -> xr.Dataset:
    """Return arcs as a Dataset; ``columns`` holds what depends on where they start."""
    sigma, depth = net.singular_values, net.depth
    parameter = rows.parameter(sigma, depth, alpha)
    change = rows.change(sigma, depth, parameter)
    variables: dict[str, Any] = schema.columns(
        "arc",
        shape=rows.shape.astype(np.int8),
        kind=rows.kind.astype(np.int8),
        **{name: getattr(rows, name) for name in _NUMBERS},
        order=rows.order(depth),
        drop=0.0 - change[:, -1],
        is_critical=columns["is_critical"].astype(np.int8),
        source=columns["source"],
        target=columns["target"],
    )
    samples = ("arc", "alpha")
    variables |= {
        "arc_parameter": (samples, parameter),
        "loss": (samples, columns["loss"]),
        "exact_loss": (samples, columns["start"][:, None] + change),
    }
    dataset = xr.Dataset(variables, {"alpha": alpha}).set_coords(("source", "target"))
    return schema.finish(dataset, "arcs", {**net.attributes(), **attrs})


@known_options
def arc_states(
    net: LinearNetwork,
    x: ArrayLike,
    arcs: xr.Dataset | xr.DataTree,
    arc: int,
    *,
    rtol: float = tolerances.CRITICAL,
) -> xr.Dataset:
    """Return the states along one arc.

    Parameters
    ----------
    net
        The network.
    x
        Critical state (parameter) where the arc starts.
    arcs
        What `critical_arcs` returns, or the node ``arcs`` of an atlas, whose arcs start at
        canonical points.
    arc
        Number of the arc.
    rtol
        How accurately ``x`` is critical, as for `classify`.

    Returns
    -------
    xarray.Dataset
        Schema ``arc_path``: ``state(alpha, parameter)`` and ``loss(alpha)``, with the coordinates
        ``alpha`` and ``arc_parameter``; source and target in the attributes.

    Raises
    ------
    ValueError, TypeError
        If the arcs are of another network, there is no such arc, or it does not start at ``x``.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    >>> x = net.critical_state((1,))
    >>> arcs = dl.critical_arcs(net, x)
    >>> path = dl.arc_states(net, x, arcs, arcs.target.values.tolist().index("{0,1}"))
    >>> dl.classify(net, path.state[-1]).critical_point.item()
    '{0,1}'
    """
    check_network(net)
    arcs = schema.read("arcs", arcs, "arcs", _MOVING, digest=net.digest)
    row = arcs.isel(arc=check_integer("arc", arc, minimum=0, maximum=arcs.sizes["arc"] - 1))
    state, found, _ = check_critical(net, x, rtol)
    ends = {name: str(row[name].item()) for name in ("source", "target")}
    label = schema.index_set_label(found.modes)
    if label != ends["source"]:
        raise ValueError(f"x: is a point over {label}, the arc starts over {ends['source']}")
    check_memory("arcs", 3 * arcs.sizes["alpha"] * net.dim)
    place = departures.take_apart(net.problem, net.unpack(state), found, rtol)
    moving = Arc(
        row["arc_parameter"].values,
        schema.ARC_SHAPES[int(row["shape"])],
        schema.ARC_KINDS[int(row["kind"])],
        *(int(row[name]) for name in _NUMBERS),
    )
    if not departures.is_possible(place, moving.shape):
        raise ValueError(f"x: has no arcs of the shape {moving.shape!r}, it starts elsewhere")
    states = departures.states(place, moving)
    along = {name: ("alpha", row[name].values) for name in ("alpha", "arc_parameter")}
    variables = {"state": (("alpha", "parameter"), states), "loss": ("alpha", net.loss(states))}
    dataset = xr.Dataset(variables, {**net.coordinates(), **along})
    return schema.finish(dataset, "arc_path", {**net.attributes(), "rtol": rtol, **ends})


def canonical_arcs(
    net: LinearNetwork, points: xr.Dataset, n_alpha: int, progress: bool = False
) -> xr.Dataset:
    """Return the arcs from all canonical points of a table, as of `critical_arcs`.

    Activations end at points of the table. The layers of modes that neither move nor are moved to
    do not change, and the others are those of a network of these modes alone: arcs that differ in
    resting modes only share its samples, up to a constant.
    """
    count, learnt = check_integer("n_alpha", n_alpha, minimum=2), points["learnt"].values
    allowed: Flags = np.any(learnt, axis=0)
    selection = _selection(net, learnt, allowed)
    rows = _rows(net, learnt, allowed, selection)
    ends = ends_in(learnt, rows.point, rows.mode_lost, rows.gained())
    target = np.where(_end_at_points(rows, net.depth), ends, -1)
    known = ~rows.are("activation", "decreasing") | (target >= 0)
    rows, target = rows.pick(known), target[known]
    check_memory("n_alpha", 6 * count * len(target))
    start, labels = points["loss"].values[rows.point], points["critical_point"].values
    fractions = np.linspace(0.0, 1.0, count)
    change = _sampled_change(net, rows, fractions, check_flag("progress", progress))
    columns = {
        "source": labels[rows.point],
        "target": np.append(labels, "")[target],
        "is_critical": _are_critical(rows, net.depth),
        "loss": start[:, None] + change,
        "start": start,
    }
    return _dataset(net, rows, columns, fractions, {"selection": selection})


def _selection(net: LinearNetwork, learnt: Flags, allowed: Flags) -> str:
    """Return which of the `SELECTIONS` of arcs is not too many, or else the last."""
    inside, outside = learnt.sum(axis=1), (allowed & ~learnt).sum(axis=1)
    everything = np.sum(inside * (3 + 2 * outside) + outside * (3 + outside))
    swaps = count_pairs(learnt, exceeds(net.singular_values) & allowed)
    counts = (int(everything), int(np.sum(swaps + outside)), 0)
    return next(word for word, n in zip(SELECTIONS, counts, strict=True) if n <= MOST_ARCS)


def _sampled_change(net: LinearNetwork, rows: _Rows, fractions: Array, progress: bool) -> Array:
    """Return L − L_S (arc, sample) of states of networks of the moving modes alone."""
    table, which = np.unique(np.stack(rows[1:], axis=1), axis=0, return_inverse=True)
    kinds = _Rows(np.zeros(len(table), np.int64), *table.T)
    sigma, changes = net.singular_values, np.zeros((len(table), len(fractions)))
    parameter = kinds.parameter(sigma, net.depth, fractions)
    arcs = tqdm(kinds.arcs(parameter), "arcs", total=len(table), disable=not progress)
    for change, arc in zip(changes, arcs, strict=True):
        change[:] = _change_alone(sigma, net.depth, arc)
    return changes[which.ravel()]


def _change_alone(sigma: Array, depth: int, arc: Arc) -> Array:
    """Return L − L_S along an arc of a whitened network of the modes that move."""
    modes = sorted({arc.mode, arc.mode_lost, arc.mode_read} - {-1})
    local = {mode: number for number, mode in enumerate(modes)} | {-1: -1}
    net = LinearNetwork((len(modes),) * (depth + 1), np.diag(sigma[modes]))
    before = local[arc.mode if arc.shape in ("orbit", "scaling") else arc.mode_lost]
    x = net.critical_state([before] if before >= 0 else [])
    layers = net.unpack(x)
    found = strings.learnt(net.problem, layers, tolerances.CRITICAL)
    mode, mode_lost, mode_read = (local[mode] for mode in (arc.mode, arc.mode_lost, arc.mode_read))
    place = departures.take_apart(net.problem, layers, found, tolerances.CRITICAL)
    small = arc._replace(mode=mode, mode_lost=mode_lost, mode_read=mode_read)
    change: Array = net.loss(departures.states(place, small)) - net.loss(x)
    return change
