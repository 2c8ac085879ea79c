"""Runs that leave a critical point along its unstable manifold, or come to it along the stable."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from tqdm import tqdm

from dlnds import schema
from dlnds._kernels import jit
from dlnds.arrays import Array, Flags
from dlnds.errors import (
    check_flag,
    check_generator,
    check_integer,
    check_memory,
    check_number,
    known_options,
)
from dlnds.runs.events import Event
from dlnds.runs.flow import LAST, SMALLEST_RTOL, flow
from dlnds.saddles import hyperbolic, orbits
from dlnds.saddles.modes import Modes, modes_at
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.losses import against_time
from dlnds.systems.product import has_maps
from dlnds.systems.protocol import SystemProtocol
from dlnds.theory import forms, tolerances
from dlnds.theory.coordinates import flat
from dlnds.theory.moments import balanced_layers
from dlnds.theory.saddles import Directions

#: Largest start, in units of the weights; also that of starts that lie on the manifold exactly.
LARGEST_START = 0.02
#: Attributes of a manifold that its fibres keep.
_KEPT = ("side", "dimension", "quotient_dimension")


@known_options
def grow_manifold(
    net: SystemProtocol,
    manifold: xr.Dataset,
    n_fibres: int | None = None,
    *,
    n_points: int = 65,
    reach: float | None = None,
    length: float | None = None,
    spacing: float | None = None,
    rtol: float = 1e-8,
    max_steps: int = 10_000,
    rng: Any = None,
    workers: int = 1,
    progress: bool = False,
) -> xr.Dataset:
    """Return runs that start on a local manifold: forward from an unstable one, else backward.

    Parameters
    ----------
    net
        The network, or any other flow that does not depend on time.
    manifold
        What `unstable_manifold` or `stable_manifold` returns, or some of its directions.
    n_fibres
        Runs in random directions of the manifold; ``None`` grows one along each of its directions,
        and another to the opposite side along those of order 2.
    n_points
        Samples of each run, at about equal distances along its path.
    reach
        Distance from the critical point at which backward runs end; ``None`` takes √h σ_0^{1/h},
        which is what it takes to learn the first mode. Forward ones go on to their limit. Of other
        systems all runs end there; ``None`` takes 100 times the norm of the equilibrium, at least
        100. A hundredth of it is the unit of lengths, if it is given and smaller than the larger of
        1 and that norm: give it where what is looked for is small.
    length
        Length of the path at which runs of other systems end; ``None`` for no such length.
    spacing
        Largest distance of a run in a fan from the path of the next: ``n_fibres`` of them are the
        first, and others start between where it is larger, up to 512 in all.
    rtol
        Relative local error of the runs, and of the start: how far it may be from the manifold, in
        units of the weights.
    max_steps
        Steps after which a run is ended.
    rng
        For random directions: seed or `numpy.random.Generator` (SPEC 7).
    workers
        Threads over which the runs are spread.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``fibres``: ``state(fibre, time, parameter)`` and ``loss(fibre, time)`` on a grid of
        each run's own length, ``elapsed_time(fibre, time)`` from its start, negative for backward
        runs. ``tangent(fibre, parameter)`` is the direction that each starts in, and ``start_size``
        how far from the point. ``length`` of the path. ``end``, the index set of the critical value
        that it ends at, or near where ``end_kind`` is ``none``, and ``stop_reason``; a backward run
        that has gone as far as ``reach`` ends at none, and so does a forward one that did not leave
        the value of the point itself: it is ``at_rest`` to the accuracy of the steps.
        ``imbalance_residual(fibre)`` is the largest ‖C_i − C_i(x)‖_F along it, which would be zero
        on the manifold.

        Of other systems schema ``orbits``: ``arclength(fibre, time)``, exactly, from the
        equilibrium in place of the loss; ``start_error``, how far the start is from the manifold by
        what the local expansion lacks of invariance; ``end_state(fibre, parameter)``, the
        equilibrium that the orbit tends to, NaN if none is known, with ``end_index``, the number of
        its unstable directions, −1 then, and ``end_decision``: ``trapped``, if it attracts (in the
        direction of time that the orbit was grown in) and a Lyapunov function falls around it from
        where the orbit is; ``within_accuracy``, if it is a saddle and the orbit is too near to its
        other manifold to tell to which side it will leave; ``none``. ``stop_reason`` says why the
        last piece of it ended: ``event`` at an equilibrium, at ``reach`` or at ``length``;
        ``at_rest`` at one of those that a symmetry makes of one, as with weight decay.
        ``spacing(fibre)``, of fans: the largest distance to the path of the next orbit, which stays
        above what was asked for where neighbours part, as on both sides of another manifold.

    Raises
    ------
    ValueError, TypeError
        If the Dataset is no manifold of this network, or an argument is outside what is described.

    Notes
    -----
    A start x + δ v is off the manifold by about ‖½ D²f(v, v)‖ δ²/(2λ), with the smallest rate λ
    along v: δ makes that ``rtol`` σ_0^{1/h}, at most 0.02 σ_0^{1/h}; x is moved along its orbit so
    that the start has the C_i of x. At balanced points of whitened problems channels of the
    residual network are on the manifold at any size, and random directions of order h ≥ 3 are drawn
    from all of its cone: balanced layers with a random positive semidefinite Z_{1:h}.

    Each run is one of the network of the modes that its start uses, which it never leaves: where
    W_1 v = 0 = uᵀ W_h for the vectors of a mode that the data do not mix with others, that stays.
    In the whole network rounding would grow into it. Points moved along GL are not balanced, and
    the rank of W need not stay what it is: there a mode that helps itself to the units of another
    may leave that in its place.

    Other systems start from the manifold to second order, x + U y + V h(y), with |y| at most 0.02
    in units of lengths (see ``reach``), so small that the error is ``rtol`` in these units, and the
    speed within a tenth of that of the linearization. The orbits of a fan start on an ellipse
    across which all of the manifold flows out.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    >>> mani = dl.unstable_manifold(net, net.critical_state(()))
    >>> dl.grow_manifold(net, mani).end.values.tolist()
    ['{0}', '{1}']
    """
    rtol = check_number("rtol", rtol, minimum=SMALLEST_RTOL, maximum=1e-2)
    count = check_integer("n_points", n_points, minimum=2)
    steps = check_integer("max_steps", max_steps, minimum=1, maximum=LAST)
    threads = check_integer("workers", workers, minimum=1)
    quiet = not check_flag("progress", progress)
    if not has_maps(net):
        growth, manifold = _any_growth(net, manifold, reach, length, rtol, steps)
        if spacing is not None:
            check_number("spacing", spacing, minimum=rtol * growth.local.at.size)
        return orbits.grow(growth, manifold, n_fibres, count, spacing, rng, threads, quiet=quiet)
    check_network(net)
    for name, value in (("length", length), ("spacing", spacing)):
        if value is not None:
            raise ValueError(f"{name}: belongs to other systems than networks, got {value}")
    network: Any = net
    manifold = _read(network, manifold)
    base = _base(network, manifold)
    limit = np.sqrt(base.net.depth) * base.scale
    limit = limit if reach is None else check_number("reach", reach, minimum=1e-3 * base.scale)
    tangents = _tangents(base, n_fibres, count, rng)

    grown = functools.partial(_grow, base, count, float(limit), rtol, steps)
    with ThreadPoolExecutor(threads) as pool:
        first = [grown(tangent) for tangent in tangents[:1]]  # compiles what all need
        runs = itertools.chain(first, pool.map(grown, tangents[1:]))
        fibres = list(tqdm(runs, "fibres", total=len(tangents), disable=quiet))
    return _dataset(network, base, manifold, fibres)


def _any_growth(
    system: SystemProtocol,
    manifold: object,
    reach: float | None,
    length: float | None,
    rtol: float,
    steps: int,
) -> tuple[orbits.Growth, xr.Dataset]:
    """Return how to grow a manifold of a system that is no network, and that manifold."""
    hyperbolic.check_steady("net", system)
    wanted = {"state": ("parameter",), "frame": ("direction", "parameter")}
    words: dict[str, Any] = {"attributes": ["side"], "empty": ["direction"]}
    found = schema.read("manifold", manifold, "manifold", wanted, **words)
    backward = found.attrs["side"] == "stable"
    if found.sizes["parameter"] != system.dim:
        raise ValueError(f"manifold: needs states of {system.dim} numbers, got {found.sizes}")
    at = hyperbolic.equilibrium(
        "manifold", system, found["state"].values, tolerances.CRITICAL, backward=backward
    )
    return orbits.growth_of(at, reach, length, rtol, steps), found


class _Base(NamedTuple):
    """A critical point in coordinates that suit it, with its directions there."""

    modes: Modes
    directions: Directions
    stable: bool
    scale: float

    @property
    def net(self) -> LinearNetwork:
        """The network in these coordinates."""
        return self.modes.net

    @property
    def state(self) -> Array:
        """The critical point in them."""
        return self.modes.state


class _Tangent(NamedTuple):
    """A direction to start in: a combination of order 2, and a part of higher order."""

    strict: Array
    residual: Array

    @property
    def whole(self) -> Array:
        """Both together, a unit vector."""
        return self.strict + self.residual


class _Fibre(NamedTuple):
    """One run: how it starts, its rows, and how it ended."""

    tangent: Array
    start_size: float
    time: Array
    states: Array
    length: float
    stop_reason: int
    end_kind: int


def _base(net: LinearNetwork, manifold: xr.Dataset) -> _Base:
    """Return where the point of a manifold is simplest, with its directions there."""
    modes = modes_at(net, net.unpack(manifold["state"].values))
    frame = modes.directions(manifold["frame"].values)
    root = 1.0 if net.input_root is None else float(np.linalg.norm(net.input_root, 2))
    size = max(float(net.singular_modes[1][0]) / root, np.finfo(float).tiny)
    numbers = [manifold[name].values.astype(np.int64) for name in ("order", "mode", "mode_lost")]
    along = Directions(frame, manifold["rate"].values, *numbers)
    return _Base(modes, along, manifold.attrs["side"] == "stable", size ** (1.0 / net.depth))


def _read(net: LinearNetwork, manifold: object) -> xr.Dataset:
    """Return a manifold of the network."""
    wanted: dict[str, tuple[str, ...]] = {"state": ("parameter",), "critical_point": ()}
    wanted |= {"frame": ("direction", "parameter")}
    wanted |= dict.fromkeys(("rate", "order", "mode", "mode_lost"), ("direction",))
    words: dict[str, Any] = {"attributes": _KEPT, "digest": net.digest, "empty": ["direction"]}
    found = schema.read("manifold", manifold, "manifold", wanted, **words)
    if found.sizes["parameter"] != net.dim:
        raise ValueError(f"manifold: needs states of {net.dim} weights, got {found.sizes}")
    return found


def _tangents(base: _Base, n_fibres: int | None, count: int, rng: Any) -> list[_Tangent]:
    """Return the directions to start in, at random if their number is given.

    Otherwise each of them, and the opposite of those of order 2.
    """
    dim = base.net.dim
    if n_fibres is not None:
        number = check_integer("n_fibres", n_fibres, minimum=1)
        check_memory("n_fibres", number * count * dim)
        return _at_random(base, number, check_generator("rng", rng))
    tangents, none = [], np.zeros(dim)
    for v, k in zip(base.directions.frame, base.directions.order, strict=True):
        tangents += [_Tangent(v, none), _Tangent(-v, none)] if k == 2 else [_Tangent(none, v)]
    check_memory("n_points", len(tangents) * count * dim)
    return tangents


def _at_random(base: _Base, count: int, rng: np.random.Generator) -> list[_Tangent]:
    """Return random unit directions of the tangent cone."""
    frame, _, order, mode, lost = base.directions
    residual = order > 2
    if base.modes.exact:  # there the residual part is known for h = 2 too
        residual |= (mode >= 0) & (lost < 0)
    spanned, chosen = ~residual, []
    for _ in range(count if len(order) else 0):
        strict = rng.normal(size=int(spanned.sum())) @ frame[spanned]
        rest = np.zeros(base.net.dim)
        if residual.any():
            size = 1.0 if not spanned.any() else abs(rng.normal())
            if base.modes.exact:
                rest = size * _cone_element(base, residual, rng)
            else:
                rest = size * frame[rng.choice(np.flatnonzero(residual))]
        norm = float(np.sqrt(strict @ strict + rest @ rest))
        chosen.append(_Tangent(strict / norm, rest / norm))
    return chosen


def _cone_element(base: _Base, residual: Flags, rng: np.random.Generator) -> Array:
    """Return random balanced layers of the residual network with Z_{1:h} = ± Q P, of norm 1.

    P is positive semidefinite on the open modes and, on the stable side, as many of the directions
    without target as both ends have, joined by a random isometry Q.
    """
    net, h, mode = base.net, base.net.depth, base.directions.mode
    open_modes = np.unique(mode[residual & (mode >= 0)])
    learnt = int(np.count_nonzero(base.state)) // h
    flats = int(np.count_nonzero(residual & (mode < 0)))
    ends = []
    for width in (net.widths[0], net.widths[-1]):
        spare = np.setdiff1d(np.arange(width), np.flatnonzero(net.singular_modes[1]))
        frame = np.zeros((width, len(open_modes) + flats))
        frame[open_modes, np.arange(len(open_modes))] = 1.0
        turn, _ = np.linalg.qr(rng.normal(size=(len(spare), flats)))
        frame[spare, len(open_modes) :] = turn
        ends.append(frame)
    rank = min(frame.shape[1], *(d - learnt for d in net.widths[1:-1]))
    left, sizes, _ = np.linalg.svd(rng.normal(size=(frame.shape[1], rank)), full_matrices=False)
    sizes = (sizes**2) ** (1.0 / h)
    entry = -ends[0] if base.stable else ends[0]
    frames = [entry @ left, *(np.eye(d)[:, learnt : learnt + rank] for d in net.widths[1:-1])]
    vector = flat(balanced_layers([*frames, ends[1] @ left], sizes))
    return vector / float(np.linalg.norm(vector))


def _start(base: _Base, tangent: _Tangent, rtol: float) -> tuple[Array, float]:
    """Return a state on the manifold, as nearly as ``rtol`` asks, and how far from the point."""
    net, x, v = base.net, base.state, tangent.whole
    size = LARGEST_START * base.scale
    if tangent.strict.any():
        curves = [np.stack([x, u]) for u in (v, tangent.residual)]
        terms = [forms.field_terms(net.problem, curve, 2)[2] for curve in curves]
        bend = float(np.linalg.norm(terms[0] - terms[1]))
        used = np.abs(base.directions.frame @ tangent.strict) > tolerances.NO_PART
        rates = base.directions.rate[used & (base.directions.order == 2)]
        if bend > 0.0:
            size = min(size, float(np.sqrt(2.0 * rates.min() * rtol * base.scale / bend)))
    elif not base.modes.exact:
        size = min(size, float(np.sqrt(rtol)) * base.scale)
    away, point = size * v, x.copy()
    if tangent.strict.any() or not base.modes.exact:
        reference = net.numerics.invariants(x) - net.numerics.invariants(away)
        jit.ready(net.numerics.restore, jit.RESTORE)(point, net.params, reference, 0.0, True)
    return point + away, size


def _grow(
    base: _Base, count: int, reach: float, rtol: float, max_steps: int, tangent: _Tangent
) -> _Fibre:
    """Return one run, first to find its path, then sampled along it."""
    start, size = _start(base, tangent, rtol)
    small, weights = base.modes.seen(start)
    system: SystemProtocol = against_time(small) if base.stable else small
    start, at = start[weights], base.state[weights]
    beyond = Event(lambda x: float(np.linalg.norm(x - at)) - reach, "reach", 1, terminal=True)
    options: dict[str, Any] = {"rtol": rtol, "reduce_width": True}
    events = [beyond] if base.stable else []
    run = flow(system, start, max_steps=max_steps, events=events, **options)
    steps = run["state"].values
    way = np.cumsum([0.0, *np.linalg.norm(np.diff(steps, axis=0), axis=1)])
    time = np.interp(np.linspace(0.0, way[-1], count), way, run["time"].values)
    time[[0, -1]] = run["time"].values[[0, -1]]
    grid, rows = np.unique(time, return_inverse=True)
    states = steps[np.searchsorted(run["time"].values, grid, side="right") - 1]
    if len(grid) > 1:
        sampled = flow(system, start, (0.0, grid[-1]), grid, max_steps=2 * max_steps, **options)
        # Where weights diverge it may end before the first, and where rounding decides when it
        # leaves a saddle it may be elsewhere: it is another run then, and steps do.
        same = np.array_equal(sampled["time"].values, grid)
        apart = np.linalg.norm(sampled["state"].values[-1] - steps[-1])
        if same and apart <= tolerances.MODE * base.scale:
            states = sampled["state"].values
    whole = np.zeros((len(rows), base.net.dim))
    whole[:, weights] = states[rows]
    kind, reason = int(run["limit_kind"]), int(run["stop_reason"])
    if kind and not base.stable:  # a minimum of a part may be a saddle of the whole
        limit = base.net.limit(whole[-1], 0.0, rtol)
        kind = schema.LIMIT_KINDS.index(limit.kind)
        if limit.label == base.net.limit(base.state).label:  # the loss falls: none comes back
            kind, reason = 0, schema.STOP_REASONS.index("at_rest")
    return _Fibre(tangent.whole, size, time, whole, float(way[-1]), reason, kind)


def _dataset(
    net: LinearNetwork, base: _Base, manifold: xr.Dataset, fibres: Sequence[_Fibre]
) -> xr.Dataset:
    """Return all runs in the coordinates of the network."""
    sizes = (len(fibres), fibres[0].time.size if fibres else 0, net.dim)
    states = np.reshape([fibre.states for fibre in fibres], sizes)
    times = np.reshape([fibre.time for fibre in fibres], sizes[:2])
    tangents = np.reshape([fibre.tangent for fibre in fibres], (len(fibres), net.dim))
    lifted = base.modes.lift(states.reshape(-1, net.dim)).reshape(sizes)
    nowhere = [base.stable and not fibre.end_kind for fibre in fibres]
    ends = ["" if gone else net.limit(x[-1]).label for gone, x in zip(nowhere, lifted, strict=True)]
    kinds = {"start_size": float, "length": float, "end_kind": np.int8, "stop_reason": np.int8}
    numbers = {n: np.array([getattr(f, n) for f in fibres], kind) for n, kind in kinds.items()}
    variables = {
        "state": (("fibre", "time", "parameter"), lifted),
        "elapsed_time": (("fibre", "time"), -times if base.stable else times),
        "loss": (("fibre", "time"), base.net.loss(states) if fibres else times),
        "tangent": (("fibre", "parameter"), base.modes.lift(tangents)),
        "imbalance_residual": ("fibre", _drift(base, states)),
        "end": ("fibre", np.array(ends, dtype=np.str_)),
        **schema.columns("fibre", **numbers),
    }
    attrs = {**net.attributes(), **{name: manifold.attrs[name] for name in _KEPT}}
    attrs["critical_point"] = str(manifold["critical_point"].item())
    return schema.finish(xr.Dataset(variables, net.coordinates()), "fibres", attrs)


def _drift(base: _Base, states: Array) -> Array:
    """Return the largest ‖C_i − C_i(x)‖_F along each run."""
    if not len(states):
        return np.zeros(0)
    pairs = zip(base.net.imbalances(states), base.net.imbalances(base.state), strict=True)
    norms = [np.linalg.norm(c - at, axis=(-2, -1)).max(axis=1) for c, at in pairs]
    return np.max([np.zeros(len(states)), *norms], axis=0)  # type: ignore[no-any-return]
