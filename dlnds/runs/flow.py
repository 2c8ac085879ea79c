"""Integration of any system: adaptive steps, labelled runs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds._kernels import jit, runge_kutta
from dlnds.arrays import Array, Integers
from dlnds.errors import (
    check_array,
    check_ascending,
    check_choice,
    check_flag,
    check_function,
    check_integer,
    check_memory,
    check_number,
    known_options,
)
from dlnds.runs.recording import (
    BUFFER,
    Names,
    Run,
    joined,
    observed,
    one,
    recorded,
    side_by_side,
)
from dlnds.runs.stepping import DENSE_LIMIT, Task, Tracker, has_derivative, integrate
from dlnds.runs.together import parts_of, together
from dlnds.systems.protocol import SystemProtocol, check_flow, check_sizes, check_system
from dlnds.systems.stored import run_coordinates
from dlnds.threads import threads_for

#: A function of time and state (parameter) that an event is a zero of.
Event = Callable[[float, Array], float]

#: Runs in a stack from which on it pays to compile a field for the system alone.
MANY = 100
METHODS = ("auto", "dop853", "radau")
#: Rounding leaves nothing to control below this relative tolerance.
SMALLEST_RTOL = 1e-13

#: Largest number of iterations that floats count exactly.
LAST = 2**53

_PAUSE = 2000  # iterations between two visits to Python


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
    events: Sequence[Event] | Event | None = None,
    save: Names = ("state",),
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
        First and last time. With an infinite end a run goes on until its limit is reached, however
        small the gradient is on the way: a global minimum, where √(2 (L − L_min)) ≤ 10 ``rtol``
        ‖Σ‖; a saddle, where no weight is moved any more; or, where minima are not known, one to
        which a small Newton step leads, at which the Hessian is positive but for directions along
        which the minima go on. What decays like a power of time ends out of steps. Where the loss
        has no minimum a run to infinity ends without a limit: where its force is below 1e-250, or
        nothing but rounding beside that of data which hold some weights, or time overflows.
    t_eval
        Times to save, ascending; ``None`` saves every accepted step. The last row is the end of the
        run in any case, and no limit ends a run before the last of these times. Rows inside steps
        err by at most about ten times what the ends of explicit ones may (twenty times where the
        state goes round in circles), and as Notes say in implicit ones.
    method
        ``"dop853"``, the explicit pair of order 8; ``"radau"``, implicit collocation of order 9
        with the exact Jacobian (differences of the field, where a small `System` gives none);
        ``"auto"`` steps by the first and changes, and back, where stability would cost more steps
        than accuracy needs: to stabilized explicit steps of order 4 (ROCK4), which have many cheap
        stages, or to implicit ones where these take less.
    rtol
        Allowed local error, relative to the size of the weights: for networks each weight is judged
        by the sizes of the two units that it joins, so that what is not learnt yet is judged by its
        own size; for a `System` as its ``scales`` say; for others by the size of the state.
    atol
        Absolute part of the allowed local error. ``None`` means zero: a fixed number above tiny
        weights would let a run rest at a saddle.
    events
        Functions ``event(t, x)`` whose zeros are located on the dense output and saved as rows, in
        addition to all others. Each step is sampled as closely as the event varies in it, so that
        all zeros are found, each once: those on the ends of steps, too, and those that are only
        touched, to a few times ``rtol`` (inside implicit steps to what these err by). What tends to
        zero has none by rounding alone, and at most one where it is below the accuracy of the run.
        What an event does within a tenth of a step, and shows nowhere else by as much as 1e-11 of
        its size, cannot be seen: shorten the steps by stretches
        of ``t_span``, or by a smaller ``rtol``. As in scipy, an attribute ``direction`` (1 rising,
        −1 falling) selects zeros (that are not only touched), and a true attribute ``terminal``
        ends the run. `dlnds.events` has some for networks.
    save
        What to record: names of observables, ``"state"`` for every system, those of networks as
        `observe` lists them; and mappings from names to functions of the state (parameter) that
        return numbers. Loss and ``loss_rate`` = −‖∇L‖² are recorded always.
    max_steps
        Accepted steps after which a run is ended with the stop reason ``out_of_steps``.
    reduce_width
        Integrate without the hidden directions that a start leaves unused, and lift the states
        back: exact, and faster where hidden layers are wider than their neighbours together.
    workers
        Threads over which the members of a stack are spread. The result does not depend on it:
        each member is what it is alone. Stacks of 100 and more of a small `LinearNetwork` are
        integrated with the field of its `specialized`: members are what they are alone with that.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``run``. One run: ``time`` and ``time_low`` (what rounding leaves out of it),
        ``loss(time)``, ``state(time, parameter)`` and the rest of ``save``; with events also
        ``event(time)``, the number of the event that a row is the point of, or −1, and
        ``event_kind(time)``: ``rising``, ``falling`` or ``touching``. Attributes ``n_steps``,
        ``n_rhs``, ``n_jac``, with events ``n_unresolved`` (steps in which one varies too fast to be
        followed), ``stop_reason``, and ``limit``, the index set of the critical value nearest to
        the end. ``limit_kind`` (``global_minimum``, ``minimum`` by its Hessian, be it
        global or not, ``saddle``, ``critical_point`` where the landscape is not known, ``none``)
        and ``limit_decision`` (``small_residual``, ``definite_hessian``, ``no_force``) say whether
        a limit was reached and how that was decided; ``none`` with ``no_force`` is a state that
        still grows. A stack has the dim ``sample`` first, and these as variables; with ``t_eval``
        and a finite end all share ``time``, otherwise ``time(sample, step)``. Rows that a run did
        not reach are NaN, or −1 if ``index``. The coordinate ``problem`` is what `load_system`
        rebuilds the system from; runs of other problems are put beside these without it. Stop
        reasons are the flags ``end_reached``, ``limit_reached``, ``at_rest`` (an exactly critical
        start), ``event``, ``out_of_steps``, ``step_too_small`` (a blow-up in finite time) and
        ``not_finite``.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside what is described above; the message starts with its name.

    Notes
    -----
    Explicit: Dormand–Prince 8(5,3) with dense output of order 7 [HNW93, section II.5]. Its error
    estimate is zero for modes that decay at the rate 5.63/h; a second one, also of order five, has
    the error of these to two parts in a thousand, and the larger one counts. Steps are limited by
    the modes already learnt, so that a plateau at depth h costs ~ε^{−(h−2)} of them.
    Two things keep their number proportional to log 1/ε.

    *Structure.* Networks are integrated in the singular basis of the target with hidden units
    sorted by size, and once modes are learnt to the accuracy of the run and no weight above 1e-10
    joins them to the rest, they rest, and the others flow as a smaller network of their own. The
    clock is a compensated pair, and no step is refused because the time does not feel it.

    *Radau IIA.* Of the methods with bounded steps, Gauss collocation keeps the quadratic invariants
    C_i but does not damp (|R(∞)| = 1): the error with which a mode was learnt stays, and acts on
    the others for the length of the plateau. Radau IIA damps it at once, and the C_i are kept by
    moving each step along the orbit of GL, normal to their level set, which leaves the end-to-end
    map as it is. Its embedded error, of lower order, is held to 0.1 ``rtol`` to the power 0.6, and
    so is that of the dense output where a step has rows or events inside it: where a component is
    very stiff, only its ends are right otherwise. Widths 3, h = 3, 4, 5, Gaussian starts of size
    1e-2 and 1e-4, implicit steps alone: three stages (order 5) take 232–782 steps at ``rtol`` 1e-6
    and 709–2129 at 1e-9, five (order 9) 111–425 and 156–559, seven (order 13) 96–367 and 118–440 at
    one more complex factorization a step. Loss monotone and drift of the C_i below 1e-10 in all.

    Systems of more than 320 weights are solved in Krylov spaces of products with the Jacobian.

    References
    ----------
    HNW93 (Hairer, Nørsett & Wanner, Springer 1993) for explicit steps, Abd02 (Abdulle, SIAM Journal
    on Scientific Computing 23, 2002) for stabilized ones, HW96 (Hairer & Wanner, Springer 1996),
    section IV.8, for implicit ones

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
    stack = np.atleast_2d(starts)
    for row in stack:
        check_sizes("start", system, row)
    names = recorded(system, save, stack[:1])
    span = check_span(t_span)
    many = len(stack) >= MANY and np.isfinite(span[1])
    task = Task(
        system=(system.numerics.straight() if many else None) or system,
        span=span,
        t_eval=_check_grid(t_eval, span, len(stack) * (4 + system.dim * ("state" in names))),
        rtol=check_number("rtol", rtol, minimum=SMALLEST_RTOL, maximum=0.1),
        atol=0.0 if atol is None else check_number("atol", atol, minimum=0.0),
        method=_check_method(method, span, system),
        names=names,
        max_steps=check_integer("max_steps", max_steps, minimum=1, maximum=LAST),
        events=_check_events(events, span[0], stack[0]),
        reduce_width=check_flag("reduce_width", reduce_width),
    )
    workers = check_integer("workers", workers, minimum=1)
    bar = progress_bar(check_flag("progress", progress), len(stack), span)
    with threads_for(system.numerics.field_cost), bar as track:
        runs = [integrate(task, stack[0], track())]  # compiles what all need
        if len(stack) > 1:
            with ThreadPoolExecutor(workers) as pool:
                parts = pool.map(lambda x: together(task, x, track), parts_of(task, stack[1:]))
                runs += itertools.chain.from_iterable(parts)
    coords = run_coordinates(system, names)
    if starts.ndim == 1:
        dataset = one(runs[0], coords)
    else:
        shared = task.t_eval.size > 0 and not task.endless and not task.events
        grid = np.union1d(task.t_eval, span[1]) if shared else None
        dataset = side_by_side(runs, grid, coords)
    attrs = {"method": task.method, "rtol": task.rtol, "atol": task.atol}
    if task.events:
        attrs["events"] = " ".join(_event_name(event) for event in task.events)
    return finished(system, dataset, attrs)


@known_options
def iterate(
    system: SystemProtocol,
    start: ArrayLike | xr.DataArray,
    n_steps: int,
    *,
    every: int = 1,
    save: Names = ("state",),
    progress: bool = False,
) -> xr.Dataset:
    """Return the orbit of a map from a given state.

    Parameters
    ----------
    system
        A map: `GradientDescent` of a flow, or a `System` whose field is the map itself.
    start
        State (parameter), or a stack (sample, parameter) of them.
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
        Schema ``run`` with the dim ``iteration`` in place of ``time``. Gradient descent has the
        coordinate ``time(iteration)`` beside it, the step size times the number of iterations, by
        which it is compared with the flow. An orbit that leaves the finite numbers ends before,
        with the stop reason ``not_finite``. A stack has the dim ``sample`` first, one ``iteration``
        for all, and NaN in rows that an orbit did not reach; each member is what it is alone.

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
    if system.numerics.update is None:
        raise TypeError(
            f"system: needs a map, got the flow of {type(system).__name__}; use GradientDescent"
        )
    starts = check_array("start", start, ndim=(1, 2), shape=(system.dim,))
    stack = np.atleast_2d(starts)
    for row in stack:
        check_sizes("start", system, row)
    names = recorded(system, save, stack[:1])
    n_steps = check_integer("n_steps", n_steps, minimum=1, maximum=LAST)
    every = check_integer("every", every, minimum=1, maximum=LAST)
    size = 2 + system.dim * ("state" in names)
    check_memory("n_steps", len(stack) * (n_steps // every + 2) * size)
    bar = progress_bar(check_flag("progress", progress), len(stack), (0.0, float(n_steps)))
    with threads_for(system.numerics.field_cost), bar as track:
        runs = [_iterated(system, x, names, n_steps, every, track()) for x in stack]
    coords = run_coordinates(system, names)
    if starts.ndim == 1:
        dataset = one(runs[0], coords)
    else:
        rows = max((run.variables["time"].values for run in runs), key=lambda rows: rows[-1])
        dataset = side_by_side(runs, rows, coords)
    return finished(
        system, _over_iterations(system, dataset), {"method": "iteration", "made_by": "iterate"}
    )


def _iterated(
    system: SystemProtocol,
    start: Array,
    names: tuple[str, ...],
    n_steps: int,
    every: int,
    update: Tracker,
) -> Run:
    """Return one orbit, with the numbers of its iterations as times."""
    chunks = []
    for rows, states in _orbit(system, start, n_steps, every):
        chunks.append(observed(system, names, rows.astype(float), states, start[None]))
        update(float(rows[-1]))
    number = int(rows[-1])
    return Run(
        variables=joined(chunks),
        counts={"n_steps": number, "n_rhs": min(number + 1, n_steps), "n_jac": 0},
        stop_reason="end_reached" if number == n_steps else "not_finite",
        limit=system.limit(states[-1]).label,
    )


def _over_iterations(system: SystemProtocol, dataset: xr.Dataset) -> xr.Dataset:
    """Return orbits over iterations; those that step along a flow with the time of the flow."""
    dataset = dataset.rename(time="iteration").drop_vars("time_low")
    number = dataset["iteration"].values.astype(np.int64)
    coords: dict[str, Any] = {"iteration": number}
    keeps, step = system.numerics.update or (0.0, 0.0)
    if keeps == 1.0:
        coords["time"] = ("iteration", step * number)
    return dataset.assign_coords(coords)


def _orbit(
    system: SystemProtocol, start: Array, n_steps: int, every: int
) -> Iterator[tuple[Integers, Array]]:
    """Give numbers and states of the rows of an orbit, the start, some at a time, and the end."""
    kernel: Any = jit.ready(runge_kutta.iterate, runge_kutta.ITERATE)
    field, update = jit.ready(system.field, jit.FIELD), system.numerics.update or ()
    x, image, number, saved = start.copy(), np.empty_like(start), 0, 1
    states = np.empty((max(1, min(_PAUSE, BUFFER // x.size)), x.size))
    yield np.zeros(1, np.int64), start[None].copy()
    while number < n_steps:
        pause = min(n_steps, number + every * len(states))
        reached, saved = kernel(
            *(field, system.params, *update), *(number, pause, every), *(x, image, states)
        )
        if saved:
            yield (number // every + 1 + np.arange(saved)) * every, states[:saved].copy()
        number = int(reached)
        if number < pause:
            break
    if number % every:
        yield np.array([number]), x[None].copy()


def finished(system: SystemProtocol, dataset: xr.Dataset, attrs: dict[str, Any]) -> xr.Dataset:
    """Return a new Dataset of runs with all attributes of a public one."""
    return schema.described(dataset, "run", {**dataset.attrs, **system.attributes(), **attrs})


def _event_name(event: Event) -> str:
    return str(getattr(event, "name", None) or getattr(event, "__name__", "event"))


def _check_events(events: Sequence[Event] | Event | None, t: float, x: Array) -> tuple[Event, ...]:
    """Return the events, each of which has a value at the start."""
    if not (events is None or callable(events) or np.iterable(events)):
        raise TypeError(f"events: needs functions event(t, x), got {events!r}")
    functions = () if events is None else (events,) if callable(events) else tuple(events)
    for event in functions:
        check_function("events", event, "t", "x")
        check_number("events", event(t, x.copy()), infinite=True)
    return functions


def _check_method(method: Any, span: tuple[float, float], system: SystemProtocol) -> str:
    """Return a method that can follow the system over these times."""
    known = check_choice("method", method, METHODS)
    if known == "dop853" and np.isinf(span[1]):
        raise ValueError(
            "t_span: an explicit method cannot follow a run to its limit; give a last time, or "
            "method='auto'"
        )
    if known == "radau" and not has_derivative(system):
        raise ValueError(
            "method: 'radau' needs a system with a jacobian or a jvp, or of at most "
            f"{DENSE_LIMIT} components, got none and {system.dim}"
        )
    return known


def check_span(t_span: Any) -> tuple[float, float]:
    """Return a first and a last time, which may be infinite."""
    pair = tuple(t_span) if np.iterable(t_span) and not isinstance(t_span, str) else ()
    if len(pair) != 2:
        raise ValueError(f"t_span: needs a first and a last time, got {t_span!r}")
    begin, end = pair
    begin = check_number("t_span", begin)
    end = check_number("t_span", end, infinite=True)
    if not begin < end:
        raise ValueError(f"t_span: needs a last time after the first, got ({begin}, {end})")
    return begin, end


def _check_grid(t_eval: ArrayLike | None, span: tuple[float, float], row: int) -> Array:
    """Return the times to save, none if each step is, of which one takes ``row`` numbers."""
    if t_eval is None:
        return np.zeros(0)
    grid = check_ascending("t_eval", t_eval)
    if grid[0] < span[0] or grid[-1] > span[1]:
        raise ValueError(
            f"t_eval: needs times between {span[0]:g} and {span[1]:g}, "
            f"got {grid[0]:g} to {grid[-1]:g}"
        )
    check_memory("t_eval", grid.size * row)
    return grid


@contextlib.contextmanager
def progress_bar(
    show: bool, runs: int, span: tuple[float, float], what: str = "flow"
) -> Iterator[Callable[[], Tracker]]:
    """Show the time integrated so far, over all runs; give what makes a tracker for each run."""
    if not show:
        yield lambda: lambda t: None
        return
    from tqdm import tqdm  # here, since few look

    total = runs * (span[1] - span[0]) if np.isfinite(span[1]) else None

    def tracker() -> Tracker:
        reached = span[0]

        def update(t: float) -> None:
            nonlocal reached
            bar.set_description_str(what, refresh=False)
            bar.update(t - reached)
            reached = t

        return update

    form = "{desc}: t = {n:.5g} [{elapsed}]"
    if total is not None:
        form = "{desc}: {percentage:3.0f}%|{bar}| t = {n:.5g}/{total:.5g} [{elapsed}<{remaining}]"
    # Kernels are compiled, or loaded, before the first update.
    with tqdm(total=total, desc="compiling", bar_format=form) as bar:
        yield tracker
