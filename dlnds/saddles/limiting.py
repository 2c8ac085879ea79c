"""Limiting paths: how runs from smaller and smaller starts leave a critical point."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.ndimage
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array, Flags
from dlnds.errors import (
    ConvergenceError,
    check_array,
    check_ascending,
    check_generator,
    check_integer,
    check_memory,
    check_number,
    finite,
    known_options,
)
from dlnds.landscape.newton import find_critical_point
from dlnds.runs.events import Event
from dlnds.runs.flow import finished, flow
from dlnds.runs.recording import observed, recorded
from dlnds.saddles.directions import escape_directions, read_row
from dlnds.saddles.modes import modes_at
from dlnds.systems.network import WeightSystem, check_weights
from dlnds.systems.product import has_maps
from dlnds.systems.protocol import check_state, dense_jacobian, field_of, unchanged
from dlnds.systems.stored import run_coordinates
from dlnds.theory import tolerances
from dlnds.theory.laws import time_on_ray

#: Error of an entry that cannot be computed.
HOPELESS = float(np.finfo(float).max)
#: Fall of ‖∇L‖, in terms of the largest on the way, at which a path has come to its limit.
REST = 1e-9
#: Sizes of starts that are tried, from the largest on, and the relative error of a flow's clock.
SIZES, CLOCK = 0.5 * 2.0 ** -np.arange(0.0, 30.0, 0.5), 1e-12
#: Errors that are this many times the least are no reason to start nearer, which takes longer.
ALIKE = 10.0
#: Iterations of Newton's method from the end of a path, which is near its limit if it has one.
FEW_ITERATIONS = 100
#: Largest relative move from the end of a path to the critical point that it comes to.
NEAR_LIMIT = 1e-2
#: Ascents from a limit, which tell whether it is a saddle where the Hessian does not.
FEW_STARTS = 20


class Ray(NamedTuple):
    """A KKT point u of the form of degree ``order`` at a critical point, with the rate λ = kN.

    ``gain`` is the power of r with which the flow on r u differs from that of the form, relatively.
    """

    point: Array
    u: Array
    order: int
    rate: float
    gain: int


class Entry(NamedTuple):
    """A state near the limiting path, its time, and what the next order may change."""

    state: Array
    time: float
    error: float


@known_options
def escape_path(
    system: WeightSystem,
    direction: xr.Dataset,
    *,
    delta: float | None = None,
    t_eval: ArrayLike | None = None,
    rtol: float = 1e-12,
    save: Iterable[str] = ("state", "unit_size"),
    max_steps: int = 5_000,
) -> xr.Dataset:
    """Return the limiting path p(t) from a critical point along an escape direction, as a run.

    Parameters
    ----------
    system
        A network.
    direction
        One row of what `escape_directions` returns.
    delta
        Distance from the critical point at which the path is entered; ``None`` takes the largest
        at which the neglected orders and the rounding of the clock together are about the least.
    t_eval, rtol, save, max_steps
        As for `flow`; times are measured from T_δ.

    Returns
    -------
    xarray.Dataset
        Schema ``run``, of the path from δ on, with ``unit_size(time, unit)``, the norms of the
        weights of each hidden unit. Its limit p*: ``limit_state(parameter)``, ``limit_loss``,
        ``limit_residual``, ‖∇L‖ there, ``limit_active(unit)``, 1 for units with weights, and
        ``limit_kind``: ``saddle``, if the Hessian has a negative eigenvalue or the leading form in
        the weights of its zero units has an escape direction, ``global_minimum``, if nothing is
        left of the loss, ``critical_point`` otherwise, or ``none``, if the run did not come to one,
        as where it is ``out_of_steps``: then ``limit_state`` is where it was last.
        Attributes: ``delta``, ``start_error``, an estimate of what is neglected at the start, in
        terms of δ and in time, and the ``order`` and the ``rate`` of the direction.

    Raises
    ------
    ValueError, TypeError
        If the direction is no row of `escape_directions`, or δ is not positive.

    Notes
    -----
    p(t) = lim_{δ→0} ψ(t + T_δ, δu), a run from the critical point to the next one. It is not
    entered on the ray, where the error is of order δ², but at
    p = x* + r(u + c), ṙ = λ r^{k−1}(1 + κ): with c, κ ~ r^q, q = k for leading forms of
    networks, the flow asks for λ r^{k−2}(q + 1) c − J c + λ r^{k−2} κ u = f/r − λ r^{k−2} u at
    x* + r u, c ⊥ u, and the time is −T_r − κ r^{2−k}/((q + 2 − k) λ). What is left is of relative
    order r^{2q}, in time of r^{2q+2−k}. At later saddles of three and more layers the weights that
    are not small drift by r² along the symmetry: there time is known up to a constant only. From
    points moved along GL the path is followed in the whole network, where rounding may lead it into
    modes that the ray does not see; `grow_manifold` keeps runs along single modes out of them.

    References
    ----------
    KH25 (Kumar & Haupt, arXiv:2502.15952), theorems 4.2 and 5.2.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=np.diag([2.0, 1.0]))
    >>> first = dl.escape_directions(net, n_starts=5).isel(direction=0)
    >>> path = dl.escape_path(net, first)
    >>> dl.schema.decode(path.limit_kind).item(), round(float(path.limit_loss), 9)
    ('saddle', 0.5)
    """
    check_weights(system)
    save = tuple(dict.fromkeys(("state", *recorded(system, save))))
    ray = _ray(system, read_row(system, direction))
    check_memory("system", 4 * system.dim**2)
    place = _small(system, ray)
    size, (start, time, error) = _entered(place.system, place.ray, delta)
    grid = None if t_eval is None else check_ascending("t_eval", t_eval)
    if grid is not None and not grid[-1] > time:
        raise ValueError(f"t_eval: needs times after {time:.6g}, when the path is at this distance")
    rounding = float(np.finfo(float).eps) * size  # in modes that do not move: not followed
    options: dict[str, Any] = {"rtol": rtol, "atol": rounding, "max_steps": max_steps}
    run = flow(place.system, start, (time, np.inf), events=_at_rest(place.system), **options)
    end = _limit(system, place, run)
    if grid is not None:
        run = flow(place.system, start, (time, float(grid[-1])), grid, **options)
    run = _lifted(system, place, run, save)
    path = run.assign(end)
    for word in ("events", "n_unresolved"):  # of what ended the search for the limit
        path.attrs.pop(word, None)
    found = {"delta": size, "start_error": error, "order": ray.order, "rate": ray.rate}
    attrs = {**found, "made_by": "escape_path"}
    return schema.finish(path.assign_coords(system.unit_coordinates()), "run", attrs)


class Small(NamedTuple):
    """The network in which a path is followed, the ray there, and the way back of its states."""

    system: WeightSystem
    ray: Ray
    lift: Callable[[Array], Array]


def _small(system: WeightSystem, ray: Ray) -> Small:
    """Return the network of the modes that a ray sees; of other networks all of it."""
    if not has_maps(system):
        return Small(system, ray, unchanged)
    net: Any = system
    modes = modes_at(net, net.unpack(ray.point))
    u = modes.directions(ray.u[None])[0]
    small, weights = modes.seen(modes.state + u)

    def lift(states: Array) -> Array:
        whole = np.zeros((*states.shape[:-1], net.dim))
        whole[..., weights] = states
        return modes.lift(whole)

    u = u[weights] / np.linalg.norm(u[weights])
    return Small(small, ray._replace(point=modes.state[weights], u=u), lift)


def _lifted(
    system: WeightSystem, place: Small, run: xr.Dataset, names: tuple[str, ...]
) -> xr.Dataset:
    """Return a run in the whole network."""
    states, clock = place.lift(run.state.values), np.stack([run.time, run.time_low], axis=1)
    known = observed(system, names, clock, states)
    ends = run[["stop_reason", "limit_kind", "limit_decision"]].variables
    attrs = {**run.attrs, "limit": system.limit(states[-1]).label}
    dataset = xr.Dataset({**known, **ends}, run_coordinates(system, names), attrs)
    return finished(system, dataset, {})


def _ray(system: WeightSystem, direction: xr.Dataset) -> Ray:
    """Return what a row of escape_directions says."""
    point, u = np.array(direction["at"].values), np.array(direction.state.values)
    order = int(direction.order)
    parts = system.theory(point).leading_parts()
    degrees = [part.degree for part in parts if part.exact and part.by_itself]
    gain = order if order in degrees else 1
    return Ray(point, u, order, float(direction.multiplier), gain)


def _entered(system: WeightSystem, ray: Ray, delta: float | None) -> tuple[float, Entry]:
    """Return the distance at which the path is entered, and where; without δ the best of some."""
    if delta is None:
        entries = [(r, _entry(system, ray, r)) for r in SIZES.tolist()]
        # The clock of a flow, too, may lose some of the time that is left from there on.
        lost = CLOCK * np.abs(time_on_ray(ray.order, ray.rate / ray.order, SIZES))
        errors = np.array([entry.error for _, entry in entries]) + lost
        around = scipy.ndimage.maximum_filter1d(errors, 3)  # one alone is small by chance
        return entries[int(np.argmax(around / ALIKE <= around.min()))]
    size = np.float64(check_number("delta", delta, minimum=0.0))  # whose powers may be infinite
    if not size:
        raise ValueError("delta: needs a positive number")
    with np.errstate(over="ignore"):
        check_state("delta", system, ray.point + size * ray.u)
    return float(size), _entry(system, ray, size)


@finite("delta")
def _entry(system: WeightSystem, ray: Ray, size: float) -> Entry:
    """Return the state of the limiting path at a distance, to the next order, and its time."""
    point, u, k, rate, q = ray
    state = point + size * u
    force = field_of(system, 0.0)(state)
    matrix, _ = dense_jacobian(system, 0.0, state)
    slow = rate * size ** (k - 2)
    bordered = np.zeros((system.dim + 1, system.dim + 1))
    bordered[:-1, :-1] = (q + 1.0) * np.eye(system.dim) - matrix / slow
    bordered[:-1, -1], bordered[-1, :-1] = u, u
    wanted = np.append(force / (slow * size) - u, 0.0)
    try:
        solved = np.linalg.solve(bordered, wanted)
    except np.linalg.LinAlgError:  # so near that the rounding of J is as large as λ r^{k−2}
        return Entry(state, -float(time_on_ray(k, rate / k, size)), HOPELESS)
    c, kappa = np.where(np.abs(solved[:-1]) > tolerances.NO_PART, solved[:-1], 0.0), solved[-1]
    late = kappa * size ** (2 - k) / ((q + 2 - k) * rate) if q + 2 != k else 0.0
    time = -float(time_on_ray(k, rate / k, size)) - late
    error = (float(np.linalg.norm(c)) + abs(kappa)) ** 2 * (1.0 + size ** (2 - k) / rate)
    return Entry(state + size * c, time, error)


def _at_rest(system: WeightSystem) -> Event:
    """Return the event that the force has fallen far below the largest on the way."""
    largest = 0.0

    def excess(x: Array) -> float:
        nonlocal largest
        size = float(np.linalg.norm(field_of(system, 0.0)(x)))
        largest = max(largest, size)
        return size - REST * largest

    return Event(excess, "at_rest", -1, terminal=True)


def _limit(system: WeightSystem, place: Small, run: xr.Dataset) -> dict[str, Any]:
    """Return what a path comes to."""
    state, kind = np.array(run.state.values[-1]), "none"
    end = place.lift(state[None])[0]
    if schema.decode(run.stop_reason).item() != "out_of_steps":
        with contextlib.suppress(ConvergenceError):
            found = find_critical_point(place.system, state, max_iterations=FEW_ITERATIONS)
            x = found.state.values
            if np.linalg.norm(x - state) <= NEAR_LIMIT * np.linalg.norm(state):
                end = place.lift(x[None])[0]
                kind = _kind(system, end)
    active = system.unit_sizes(end) > tolerances.ZERO_UNIT * np.linalg.norm(end)
    return {
        "limit_state": ("parameter", end),
        "limit_loss": float(system.loss(end)),
        "limit_residual": float(np.linalg.norm(field_of(system, 0.0)(end))),
        "limit_active": ("unit", active.astype(np.int8)),
        "limit_kind": schema.flag(schema.LIMIT_KINDS, kind),
    }


def _kind(system: WeightSystem, x: Array) -> str:
    """Return whether a critical point is a saddle or a minimum, as far as that can be told."""
    values = scipy.linalg.eigvalsh(-dense_jacobian(system, 0.0, x)[0])
    if values[0] < -tolerances.HESSIAN * np.abs(values).max():
        return "saddle"
    known = system.limit(x, 0.0, tolerances.CRITICAL).kind
    if known in ("global_minimum", "saddle"):  # of networks whose landscape is known
        return known
    further = escape_directions(system, at=x, n_starts=FEW_STARTS)
    return "saddle" if further.sizes["direction"] else "critical_point"


@known_options
def escape_chain(
    system: WeightSystem,
    *,
    rng: Any = 0,
    n_starts: int = 100,
    max_paths: int = 10,
    max_steps: int = 5_000,
) -> xr.DataTree:
    """Return limiting paths from the origin to the first saddle, and so on to a minimum.

    Parameters
    ----------
    system
        A network.
    rng, n_starts
        As for `escape_directions`, at each of the critical points.
    max_paths
        Paths at most.
    max_steps
        As for `flow`.

    Returns
    -------
    xarray.DataTree
        Schema ``escape_chain``: at the root the critical points on the way, the origin first:
        ``state(saddle, parameter)``, ``loss(saddle)``, ``n_active(saddle)``, the number of hidden
        units with weights, and the ``order`` and ``value(saddle)`` of the direction in which it is
        left, 0 at the last; ``ended_by``, why it goes no further: a ``minimum``, ``nothing_found``
        by the search of directions, ``no_limit`` of a path, which was at the last of the
        states when it ended, or ``max_paths``; nodes ``path_0``,
        ``path_1``, …, what `escape_path` returns.

    Raises
    ------
    ValueError, TypeError
        As `escape_directions`.

    Notes
    -----
    Each point is left along the direction of lowest order and, of these, of the largest value: the
    fastest one. Runs from random small starts may take others.

    References
    ----------
    KH25 (Kumar & Haupt, arXiv:2502.15952), section 5.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=np.diag([2.0, 1.0]))
    >>> chain = dl.escape_chain(net, n_starts=5)
    >>> (chain.loss.values.round(9) + 0.0).tolist(), list(chain.children)
    ([2.5, 0.5, 0.0], ['path_0', 'path_1'])
    """
    check_weights(system)
    generator = check_generator("rng", rng)
    max_paths = check_integer("max_paths", max_paths, minimum=1)
    states, left = [np.zeros(system.dim)], []
    nodes: dict[str, xr.Dataset] = {}
    ended = "max_paths"
    while True:
        directions = escape_directions(system, at=states[-1], rng=generator, n_starts=n_starts)
        if not directions.sizes["direction"]:
            ended = schema.decode(directions.completeness).item()
            break
        if len(nodes) == max_paths:
            break
        first = directions.isel(direction=0)
        left.append((int(first.order), float(first.value)))
        path = nodes[f"path_{len(nodes)}"] = escape_path(system, first, max_steps=max_steps)
        states.append(np.array(path.limit_state.values))
        kind = schema.decode(path.limit_kind).item()
        if kind in ("none", "global_minimum"):
            ended = "no_limit" if kind == "none" else "minimum"
            break
    attrs = {**system.attributes(), "n_starts": n_starts}
    way = _way(system, np.stack(states), left)
    way = way.assign(ended_by=schema.flag(schema.CHAIN_ENDS, ended))
    return xr.DataTree.from_dict({"/": schema.finish(way, "escape_chain", attrs), **nodes})


def _way(system: WeightSystem, states: Array, left: Sequence[tuple[int, float]]) -> xr.Dataset:
    """Return the critical points on the way, with the order and value by which each was left."""
    orders, values = zip(*left, (0, 0.0), strict=True)
    limits = tolerances.ZERO_UNIT * np.linalg.norm(states, axis=1)[:, None]
    variables = {
        "state": (("saddle", "parameter"), states),
        "loss": ("saddle", system.loss(states)),
        "n_active": ("saddle", np.sum(system.unit_sizes(states) > limits, axis=1)),
        "order": ("saddle", np.array(orders, np.int64)),
        "value": ("saddle", np.array(values)),
    }
    return xr.Dataset(variables, coords=system.coordinates())


@known_options
def compare_with_path(
    system: WeightSystem,
    path: xr.Dataset,
    start: ArrayLike,
    *,
    norm: float,
    t_eval: ArrayLike,
    rtol: float = 1e-10,
    max_steps: int = 5_000,
) -> xr.Dataset:
    """Return the distance of a run from a limiting path from where both have a given norm.

    Parameters
    ----------
    system
        The network.
    path
        What `escape_path` returns, from the origin.
    start
        State (parameter) of the run, smaller than ``norm``.
    norm
        ‖x‖ at which both are aligned, larger than the first state of the path.
    t_eval
        Times after the crossing, ascending from 0.
    rtol, max_steps
        As for `flow`.

    Returns
    -------
    xarray.Dataset
        Schema ``path_comparison``: ``distance(time)``, that of the run from the path, and
        ``path_norm(time)``; ``crossing_time``, when the run had that norm, and
        ``path_crossing_time``.

    Raises
    ------
    ValueError, TypeError
        If the run or the path does not cross the norm from below, or a time is not reached.

    Notes
    -----
    Absolute times are no use: a relative error η of the start's norm shifts them by about
    η δ^{−(L−2)}/(L N).

    References
    ----------
    KH25 (Kumar & Haupt, arXiv:2502.15952)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 1, 1, 1), target=[[2.0]])
    >>> path = dl.escape_path(net, dl.escape_directions(net, n_starts=5).isel(direction=0))
    >>> run = dl.compare_with_path(net, path, path.state[0] * 1.01, norm=0.5, t_eval=[0.0, 1.0])
    >>> bool((run.distance < 1e-6).all())
    True
    """
    check_weights(system)
    rows = {"state": ("time", "parameter"), "time": ("time",), "limit_state": ("parameter",)}
    path = schema.read("path", path, "run", rows, digest=system.digest)
    x = check_array("start", start, ndim=1, shape=(system.dim,))
    norm, grid = check_number("norm", norm, minimum=0.0), check_ascending("t_eval", t_eval)
    if not (grid[0] >= 0.0 and grid[-1] > 0.0):
        raise ValueError(f"t_eval: needs times from 0 on, got {grid[0]:g} to {grid[-1]:g}")
    options: dict[str, Any] = {"rtol": rtol, "max_steps": max_steps}
    crossed, run = _crossing(system, "start", x, norm, options)
    path_crossed, along = _crossing(system, "path", path.state.values[0], norm, options)
    run, along = (_reached(system, state, grid, options) for state in (run, along))
    variables = {
        "distance": ("time", np.linalg.norm(run - along, axis=1)),
        "path_norm": ("time", np.linalg.norm(along, axis=1)),
        "crossing_time": crossed,
        "path_crossing_time": float(path.time.values[0]) + path_crossed,
    }
    dataset = xr.Dataset(variables, coords={"time": grid})
    return schema.finish(dataset, "path_comparison", {**system.attributes(), "norm": norm})


def _crossing(
    system: WeightSystem, name: str, start: Array, norm: float, options: Mapping[str, Any]
) -> tuple[float, Array]:
    """Return when a run first has a norm, and its state then."""
    with np.errstate(over="ignore"):
        size = float(np.linalg.norm(start))
    if not 0.0 < size < norm:
        raise ValueError(f"{name}: needs a first state of a norm below {norm:g}, got {size:.3g}")
    crossing = Event(lambda x: float(np.linalg.norm(x)) - norm, "crossing", terminal=True)
    run = flow(system, start, events=[crossing, _at_rest(system)], **options)
    if int(run.event[-1]) != 0:
        raise ValueError(f"{name}: does not come to the norm {norm:g}")
    return float(run.time[-1] - run.time[0]), np.array(run.state.values[-1])


def _reached(system: WeightSystem, start: Array, grid: Array, options: Mapping[str, Any]) -> Array:
    """Return the states of a run at times of which it has to reach the last."""
    run = flow(system, start, (0.0, float(grid[-1])), grid, **options)
    end = schema.decode(run.stop_reason).item()
    if end != "end_reached":
        steps = options["max_steps"]
        raise ValueError(f"t_eval: is not reached in max_steps={steps}, a run ends with {end}")
    return np.array(run.state.values)


@known_options
def zero_preserving(
    system: WeightSystem, x: ArrayLike, *, n_trials: int = 5, rng: Any = 0
) -> xr.Dataset:
    """Return the weights of zero hidden units at a state that the flow keeps at zero.

    Parameters
    ----------
    system
        A network.
    x
        State (parameter).
    n_trials
        Random states with these weights zero at which it is checked that they are not moved.
    rng
        Seed or `numpy.random.Generator` of them (SPEC 7).

    Returns
    -------
    xarray.Dataset
        Schema ``zero_preserving``: ``kept(parameter)``, 1 for the weights of the set;
        ``unit_zero(unit)``, 1 for hidden units whose weights all belong to it; ``residual``, the
        largest force on these weights at the random states, in terms of the largest on others.

    Raises
    ------
    ValueError, TypeError
        If the state has the wrong shape or is not finite.

    Notes
    -----
    A set z of weights is zero-preserving if w_z = 0 makes ẇ_z = 0, whatever the others are. What
    goes into a hidden unit and comes out of it is; where the activation has σ'(0) = 0 what goes in
    alone. Unions are zero-preserving too.

    References
    ----------
    KH25 (Kumar & Haupt, arXiv:2502.15952), section 5.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    >>> kept = dl.zero_preserving(net, net.critical_state((0,)))
    >>> kept.unit_zero.values.tolist(), kept.kept.values.tolist()
    ([0, 1], [0, 0, 1, 1, 0, 1, 0, 1])
    """
    check_weights(system)
    state = check_array("x", x, ndim=1, shape=(system.dim,))
    n_trials = check_integer("n_trials", n_trials, minimum=1)
    check_memory("n_trials", 2 * n_trials * system.dim)
    generator = check_generator("rng", rng)
    trials = generator.normal(size=(n_trials, system.dim))
    kept, (into, out_of) = _kept(system, state, trials), system.unit_weights
    whole = (kept | ~(into | out_of)).all(axis=1)
    variables = {
        "kept": ("parameter", kept.astype(np.int8)),
        "unit_zero": ("unit", whole.astype(np.int8)),
        "residual": ((), _force_on(system, kept, trials)),
    }
    dataset = xr.Dataset(variables, coords={**system.coordinates(), **system.unit_coordinates()})
    return schema.finish(dataset, "zero_preserving", system.attributes())


def _kept(system: WeightSystem, state: Array, trials: Array) -> Flags:
    """Return the weights of units that are zero at a state and are not moved at the trials."""
    small = np.abs(state) <= tolerances.ZERO_UNIT * max(float(np.abs(state).max()), 1e-300)
    kept = np.zeros(system.dim, bool)
    for before, after in zip(*system.unit_weights, strict=True):
        for chosen in (before | after, before):
            if small[chosen].all() and _force_on(system, chosen, trials) == 0.0:
                kept |= chosen
                break
    return kept


def _force_on(system: WeightSystem, chosen: Flags, trials: Array) -> float:
    """Return the largest force on weights where they are zero, in terms of the largest of all."""
    force = np.abs(system.gradient(np.where(chosen, 0.0, trials)))
    return float(np.max(force[:, chosen], initial=0.0) / max(float(force.max()), 1e-300))
