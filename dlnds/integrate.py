"""Integration of any system: adaptive steps, labelled runs."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from dlnds import schema
from dlnds._kernels import iterate as maps
from dlnds._kernels import jit
from dlnds._kernels import runge_kutta as kernels
from dlnds.errors import (
    check_array,
    check_ascending,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    known_options,
)
from dlnds.systems.protocol import Array, Reduction, SystemProtocol, check_flow, check_system

#: What a run tells the time it has reached.
Tracker = Callable[[float], None]

METHODS = ("auto", "dop853")
#: Rounding leaves nothing to control below this relative tolerance.
SMALLEST_RTOL = 1e-13

_REASONS = {
    kernels.END_REACHED: "end_reached",
    kernels.STEP_TOO_SMALL: "step_too_small",
    kernels.NOT_FINITE: "not_finite",
}
_BUFFER = 2**18  # numbers held between two visits to Python
_PAUSE = 2000  # steps between two visits to Python, where progress is shown and Ctrl-C is heard
_LIMIT_CHECK = 100  # the same while looking for the limit of a run without end


@known_options
def flow(
    system: SystemProtocol,
    start: ArrayLike | xr.DataArray,
    t_span: tuple[float, float] = (0.0, np.inf),
    t_eval: ArrayLike | None = None,
    *,
    method: str = "auto",
    rtol: float = 1e-8,
    atol: float | None = None,
    save: Iterable[str] = ("state",),
    max_steps: int = 100_000,
    reduce_width: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> xr.Dataset:
    """Return the run, or the runs, of a system from given states.

    Parameters
    ----------
    system
        Any system: `LinearNetwork`, `System`, …
    start
        State (parameter), or a stack (sample, parameter) of them.
    t_span
        First and last time. With an infinite end a network runs until it has reached a global
        minimum, that is until √(2 (L − L_min)) ≤ 10 ``rtol`` ‖Σ‖; exactly critical starts end at
        once, as ``at_rest``.
    t_eval
        Times to save, ascending; ``None`` saves every accepted step. The last row is the end of the
        run in any case, and no limit ends a run before the last of these times.
    method
        ``"dop853"``, the explicit pair of order 8; ``"auto"`` takes it too.
    rtol
        Allowed local error, relative to the size of the weights: for networks to the root mean
        square of each layer, for other systems to that of the state.
    atol
        Absolute part of the allowed local error. ``None`` means zero: a fixed number above tiny
        weights would let a run rest at a saddle.
    save
        What to record: for every system ``"state"``; for networks also ``"singular_value"`` (of W),
        ``"mode_strength"`` (u_jᵀ W K v_j), ``"imbalance"`` (max ‖C_i‖_F), ``"conserved"`` (all
        C_i), ``"product"``, ``"gradient_norm"``. The loss is recorded always.
    max_steps
        Accepted steps after which a run is ended with the stop reason ``out_of_steps``.
    reduce_width
        Integrate without the hidden directions that a start leaves unused, and lift the states
        back: exact, and faster where hidden layers are wider than their neighbours together.
    workers
        Threads over which the members of a stack are spread. The result does not depend on it.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``run``. One run: ``time`` and ``time_low`` (what rounding leaves out of it),
        ``loss(time)``, ``state(time, parameter)`` and the rest of
        ``save``; attributes ``n_steps``, ``n_rhs``, ``n_jac``, ``stop_reason``, and ``limit``, the
        index set of the critical value nearest to the end. A stack has the dim ``sample`` first,
        and these five as variables; with ``t_eval`` and a finite end all share ``time``, otherwise
        ``time(sample, step)``. Rows that a run did not reach are NaN. Stop reasons are the flags
        ``end_reached``, ``limit_reached``, ``at_rest``, ``out_of_steps``, ``step_too_small`` (a
        blow-up in finite time) and ``not_finite``.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside what is described above; the message starts with its name.

    Notes
    -----
    Dormand–Prince 8(5,3) with dense output of order 7 (Hairer, Nørsett, Wanner, section II.5).
    Steps of an explicit method are limited by the modes already learnt: long plateaus at depth h ≥
    4 cost a number of steps proportional to their time.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0))
    >>> dl.schema.decode(run.stop_reason).item(), run.limit, bool(run.loss[-1] < 1e-12)
    ('limit_reached', '{0,1}', True)
    """
    check_flow(system)
    starts = check_array("start", start, ndim=(1, 2), shape=(system.dim,))
    names = recorded(system, save)
    stack = np.atleast_2d(starts)
    system.observables(stack[:1], names)
    task = _Task(
        system=system,
        span=_check_span(t_span),
        t_eval=np.zeros(0),
        rtol=check_number("rtol", rtol, minimum=SMALLEST_RTOL, maximum=0.1),
        atol=0.0 if atol is None else check_number("atol", atol, minimum=0.0),
        names=names,
        max_steps=check_integer("max_steps", max_steps, minimum=1),
        reduce_width=check_flag("reduce_width", reduce_width),
    )
    workers = check_integer("workers", workers, minimum=1)
    if t_eval is not None:
        task.t_eval = _check_grid(t_eval, task.span)
    check_choice("method", method, METHODS)
    with _bar(check_flag("progress", progress), len(stack), task.span) as track:
        first = _integrate(task, stack[0], track())  # compiles what all need
        with ThreadPoolExecutor(workers) as pool:
            runs = [first, *pool.map(lambda x: _integrate(task, x, track()), stack[1:])]
    dataset = _one(runs[0]) if starts.ndim == 1 else _many(runs, task)
    attrs = {**system.attributes(), "method": "dop853", "rtol": task.rtol, "atol": task.atol}
    return schema.finish(dataset, "run", {**dataset.attrs, **attrs})


@known_options
def as_run(
    system: SystemProtocol,
    times: ArrayLike,
    layers: Sequence[Sequence[Any]],
    *,
    save: Iterable[str] = ("state",),
) -> xr.Dataset:
    """Return somebody else's training run as a Dataset of this package.

    Parameters
    ----------
    system
        The network that was trained.
    times
        Times at which weights were saved, ascending, any spacing: for gradient descent the step
        size times the number of steps.
    layers
        For each time the weights W_1, …, W_h (each d_i × d_{i−1}, in the coordinates of the
        network): arrays, or tensors that can be detached.
    save
        What to record, as for `flow`.

    Returns
    -------
    xarray.Dataset
        Schema ``run`` with ``method`` ``"imported"``.

    Raises
    ------
    ValueError, TypeError
        If times and weights are not as many, or have wrong shapes.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> snapshots = [[np.full((3, 2), 0.1), np.full((2, 3), w)] for w in (0.1, 0.2)]
    >>> dl.as_run(net, [0.0, 1.0], snapshots).loss.round(4).values.tolist()
    [2.4118, 2.3272]
    """
    check_system(system)
    if not hasattr(system, "pack"):
        raise TypeError("system: needs a network, whose states are layers of weights")
    grid = check_ascending("times", times)
    names = recorded(system, save)
    if not np.iterable(layers) or len(list(layers)) != len(grid):
        raise ValueError(f"layers: needs the weights at each of {len(grid)} times")
    states = np.stack([system.pack([_plain(w) for w in snapshot]) for snapshot in layers])
    run = _Run(
        variables=_observe(system, names, np.stack([grid, np.zeros_like(grid)], axis=1), states),
        counts={"n_steps": len(grid) - 1, "n_rhs": 0, "n_jac": 0},
        stop_reason="end_reached",
        limit=system.identify(states[-1]),
        coords=system.coordinates() if "state" in names else {},
    )
    dataset = _one(run)
    attrs = {**system.attributes(), "method": "imported"}
    return schema.finish(dataset, "run", {**dataset.attrs, **attrs})


def _plain(weights: Any) -> Any:
    """Return a tensor's numbers, whichever library it is of."""
    return weights.detach().cpu().numpy() if hasattr(weights, "detach") else weights


@known_options
def iterate(
    system: SystemProtocol,
    start: ArrayLike | xr.DataArray,
    n_steps: int,
    *,
    every: int = 1,
    save: Iterable[str] = ("state",),
    progress: bool = False,
) -> xr.Dataset:
    """Return the orbit of a map from a given state.

    Parameters
    ----------
    system
        A map: `GradientDescent` of a flow, or a `System` whose field is the map itself.
    start
        State (parameter).
    n_steps
        Iterations to make.
    every
        Save every so many iterations; the start and the last iteration are saved in any case.
    save
        What to record, as for `flow`.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``run`` with the dim ``iteration`` in place of ``time``. An orbit that leaves the
        finite numbers ends before, with the stop reason ``not_finite``.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside what is described above.

    Examples
    --------
    >>> import dlnds as dl
    >>> def henon(t, x, params, out):
    ...     out[0] = 1.0 - 1.4 * x[0] ** 2 + x[1]
    ...     out[1] = 0.3 * x[0]
    >>> orbit = dl.iterate(dl.System(henon, dim=2), [0.0, 0.0], n_steps=2)
    >>> orbit.state.round(3).values.tolist()
    [[0.0, 0.0], [1.0, 0.0], [-0.4, 0.3]]
    """
    check_system(system)
    if system.update is None:
        raise TypeError(
            f"system: needs a map, got the flow of {type(system).__name__}; use GradientDescent"
        )
    x = check_array("start", start, ndim=1, shape=(system.dim,))
    names = recorded(system, save)
    system.observables(x[None], names)
    n_steps = check_integer("n_steps", n_steps, minimum=1)
    every = check_integer("every", every, minimum=1)
    kernel = jit.ready(maps.iterate, maps.ITERATE)
    field, params = jit.ready(system.field, jit.FIELD), system.params
    image, states = np.empty_like(x), np.empty((max(1, min(_PAUSE, _BUFFER // x.size)), x.size))
    chunks, number, last = [_observe(system, names, np.zeros((1, 2)), x[None].copy())], 0, 0
    with _bar(check_flag("progress", progress), 1, (0.0, float(n_steps))) as track:
        update = track()
        while number < n_steps:
            pause = min(n_steps, number + every * len(states))
            reached, saved = kernel(  # type: ignore[no-untyped-call]
                field, params, *system.update, number, pause, every, x, image, states
            )
            rows = (number // every + 1 + np.arange(saved)) * every
            if saved:
                chunks.append(
                    _observe(
                        system, names, np.stack([rows, 0 * rows], axis=1), states[:saved].copy()
                    )
                )
                last = int(rows[-1])
            number = int(reached)
            update(float(number))
            if number < pause:
                break
    if last != number:
        chunks.append(_observe(system, names, np.array([[float(number), 0.0]]), x[None]))
    run = _Run(
        variables={name: _concatenate([c[name] for c in chunks]) for name in chunks[0]},
        counts={"n_steps": number, "n_rhs": min(number + 1, n_steps), "n_jac": 0},
        stop_reason="end_reached" if number == n_steps else "not_finite",
        limit=system.identify(x),
        coords=system.coordinates() if "state" in names else {},
    )
    dataset = _one(run).rename(time="iteration").drop_vars("time_low")
    dataset = dataset.assign_coords(iteration=dataset.iteration.astype(np.int64))
    attrs = {**system.attributes(), "method": "iteration"}
    return schema.finish(dataset, "run", {**dataset.attrs, **attrs})


@dataclass
class _Task:
    """What all members of one call share."""

    system: SystemProtocol
    span: tuple[float, float]
    t_eval: Array
    rtol: float
    atol: float
    names: tuple[str, ...]
    max_steps: int
    reduce_width: bool = False


@dataclass
class _Run:
    """One finished run."""

    variables: dict[str, xr.Variable]
    counts: dict[str, int]
    stop_reason: str
    limit: str
    coords: dict[str, Any] = field(default_factory=dict)


def _integrate(task: _Task, x: Array, update: Tracker) -> _Run:
    """Drive the kernel from one full buffer or pause to the next."""
    (t, t_end), whole = task.span, task.system
    system, x, lift = whole.reduce(x) if task.reduce_width else Reduction(whole, x, np.copy)
    clock = np.zeros(kernels.CLOCK_SIZE)
    clock[kernels.TIME] = clock[kernels.BEFORE] = t
    counters = np.array([0, 0, 0, 1], np.int64)
    work = np.zeros((kernels.WORK_ROWS, system.dim))
    work[kernels.STATE] = x
    rows = int(np.clip(_BUFFER // system.dim, 2, 4096))
    times, states = np.empty((rows, 2)), np.empty((rows, system.dim))
    chunks: list[dict[str, xr.Variable]] = []
    advance = jit.ready(kernels.advance, kernels.ADVANCE)
    params = system.params
    fields = (jit.ready(system.field, jit.FIELD), jit.ready(system.error_scale, jit.FIELD))
    pause = _PAUSE if np.isfinite(t_end) else _LIMIT_CHECK
    budget, last, stop = 0, np.nan, None
    while stop is None:
        code, saved = advance(  # type: ignore[no-untyped-call]
            *fields, params, t_end, task.t_eval, task.rtol, task.atol, budget,
            clock, counters, work, times, states,
        )  # fmt: skip
        if saved:
            chunks.append(_observe(whole, task.names, times[:saved], lift(states[:saved])))
            last = times[saved - 1, 0]
        stop = _stop_reason(task, system, code, counters, work)
        update(float(clock[kernels.TIME]))
        budget = min(task.max_steps, int(counters[kernels.STEPS]) + pause)
    if last != clock[kernels.TIME]:
        end = clock[[kernels.TIME, kernels.TIME_LOW]].reshape(1, 2)
        chunks.append(_observe(whole, task.names, end, lift(work[[kernels.STATE]])))
    names = chunks[0].keys()
    counts = {"n_steps": int(counters[kernels.STEPS]), "n_rhs": int(counters[kernels.EVALUATIONS])}
    return _Run(
        variables={name: _concatenate([chunk[name] for chunk in chunks]) for name in names},
        counts={**counts, "n_jac": 0},
        stop_reason=stop,
        limit=system.identify(work[kernels.STATE]),
        coords=whole.coordinates() if "state" in task.names else {},
    )


def _observe(
    system: SystemProtocol, names: tuple[str, ...], times: Array, states: Array
) -> dict[str, xr.Variable]:
    with np.errstate(over="ignore", invalid="ignore"):  # a run may end near overflow
        observed = system.observables(states, names)
    clock = {
        "time": xr.Variable("time", times[:, 0].copy()),
        "time_low": xr.Variable("time", times[:, 1].copy()),
    }
    return clock | observed


def _concatenate(parts: list[xr.Variable]) -> xr.Variable:
    return xr.Variable(parts[0].dims, np.concatenate([part.values for part in parts]))


def _stop_reason(
    task: _Task, system: SystemProtocol, code: int, counters: NDArray[np.int64], work: Array
) -> str | None:
    """Return why a run is over, or None if it is not."""
    if code in _REASONS:
        return _REASONS[code]
    if np.isinf(task.span[1]) and counters[kernels.SAVED] == task.t_eval.size:
        if system.gradient_flow and not work[kernels.FIRST_STAGE].any():
            return "at_rest"
        if system.settled(work[kernels.STATE], task.rtol):
            return "limit_reached"
    return "out_of_steps" if counters[kernels.STEPS] >= task.max_steps else None


def _one(run: _Run) -> xr.Dataset:
    dataset = xr.Dataset({**run.variables, **_stop_variable([run], ())}, coords=run.coords)
    reason = schema.STOP_REASONS.index(run.stop_reason)
    return dataset.assign_attrs({**run.counts, "stop_reason": reason, "limit": run.limit})


def _many(runs: Sequence[_Run], task: _Task) -> xr.Dataset:
    """Return runs of unequal length side by side, NaN where a run is over."""
    shared = task.t_eval.size > 0 and np.isfinite(task.span[1])
    dim = "time" if shared else "step"
    grid = np.union1d(task.t_eval, task.span[1])
    if shared:
        runs = [_on_grid(run, grid) for run in runs]
    longest = grid.size if shared else max(run.variables["time"].size for run in runs)
    variables: dict[str, Any] = {}
    for name in runs[0].variables:
        parts = [run.variables[name] for run in runs]
        padded = [p.pad(time=(0, longest - p.sizes["time"]), constant_values=np.nan) for p in parts]
        data = np.stack([p.values for p in padded])
        variables[name] = (("sample", dim, *padded[0].dims[1:]), data)
    if shared:
        variables["time"] = ("time", grid)
    for name in runs[0].counts:
        variables[name] = ("sample", np.array([run.counts[name] for run in runs]))
    variables["limit"] = ("sample", [run.limit for run in runs])
    variables.update(_stop_variable(runs, ("sample",)))
    coords = {"sample": np.arange(len(runs)), **runs[0].coords}
    dataset = xr.Dataset(variables, coords=coords)
    return dataset if shared else dataset.set_coords("time")


def _on_grid(run: _Run, grid: Array) -> _Run:
    """Return a run with its rows at the grid times; the end of a failed run is left out."""
    keep = np.isin(run.variables["time"].values, grid)
    variables = {name: v.isel(time=keep) for name, v in run.variables.items()}
    return _Run(variables, run.counts, run.stop_reason, run.limit, run.coords)


def _stop_variable(runs: Sequence[_Run], dims: tuple[str, ...]) -> dict[str, Any]:
    reasons: NDArray[np.int8] = schema.flag(schema.STOP_REASONS, [run.stop_reason for run in runs])
    return {"stop_reason": (dims, reasons if dims else reasons[0])}


def recorded(system: SystemProtocol, save: Any) -> tuple[str, ...]:
    """Return the names of what a run records: what the system always saves, and ``save``."""
    if isinstance(save, str) or not np.iterable(save):
        raise TypeError(f"save: needs a sequence of names such as ('state',), got {save!r}")
    names = tuple(save)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"save: needs names such as 'state', got {names!r}")
    return tuple(dict.fromkeys((*system.always_saved, *names)))


def _check_span(t_span: Any) -> tuple[float, float]:
    pair = tuple(t_span) if np.iterable(t_span) and not isinstance(t_span, str) else ()
    if len(pair) != 2:
        raise ValueError(f"t_span: needs a first and a last time, got {t_span!r}")
    begin, end = pair
    begin = check_number("t_span", begin)
    end = check_number("t_span", end, infinite=True)
    if not begin < end:
        raise ValueError(f"t_span: needs a last time after the first, got ({begin}, {end})")
    return begin, end


def _check_grid(t_eval: ArrayLike, span: tuple[float, float]) -> Array:
    grid = check_ascending("t_eval", t_eval)
    if grid[0] < span[0] or grid[-1] > span[1]:
        raise ValueError(
            f"t_eval: needs times between {span[0]:g} and {span[1]:g}, "
            f"got {grid[0]:g} to {grid[-1]:g}"
        )
    return grid


@contextlib.contextmanager
def _bar(show: bool, runs: int, span: tuple[float, float]) -> Iterator[Callable[[], Tracker]]:
    """Show the time integrated so far, over all runs; give what makes a tracker for each run."""
    total = runs * (span[1] - span[0]) if np.isfinite(span[1]) else None

    def tracker() -> Tracker:
        reached = span[0]

        def update(t: float) -> None:
            nonlocal reached
            bar.set_description_str("flow", refresh=False)
            bar.update(t - reached)
            reached = t

        return update

    form = "{desc}: t = {n:.5g} [{elapsed}]"
    if total is not None:
        form = "{desc}: {percentage:3.0f}%|{bar}| t = {n:.5g}/{total:.5g} [{elapsed}<{remaining}]"
    # Kernels are compiled, or loaded, before the first update.
    with tqdm(total=total, disable=not show, desc="compiling", bar_format=form) as bar:
        yield tracker
