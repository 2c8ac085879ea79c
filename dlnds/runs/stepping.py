"""One run under way: in which coordinates, by which method, and when it is over.

The steps themselves are compiled (`_kernels.runge_kutta`, `_kernels.implicit`). Between them this
module asks the system for better coordinates, changes the method, and looks for events and limits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlnds import schema
from dlnds._kernels import implicit, jit, stabilized
from dlnds._kernels import runge_kutta as kernels
from dlnds.arrays import Array
from dlnds.runs.events import Watch
from dlnds.runs.recording import BUFFER, Back, Recorder, Rows, Run, after
from dlnds.runs.rest import limit_at
from dlnds.runs.zeros import INNER
from dlnds.systems.protocol import Limit, Reduction, SystemProtocol, unchanged
from dlnds.theory import tolerances

#: What is told how far a run has come.
Tracker = Callable[[float], None]

#: Why a run is over that the loop of steps left with these codes.
REASONS = {
    kernels.END_REACHED: "end_reached",
    kernels.STEP_TOO_SMALL: "step_too_small",
    kernels.NOT_FINITE: "not_finite",
}
PAUSE = 2000  # steps between two visits to Python, where progress is shown and Ctrl-C is heard
_LIMIT_CHECK = 50  # the same while looking for the limit of a run without end
#: When a run without end is asked whether it rests at a minimum: where the relative force is so
#: small in terms of ``rtol`` and the largest so far, and after so many checks, twice as many, …
_DECAYED, _LOOKS = 1e-2, 8
#: Growth of an error scale after which a system is asked for new coordinates. With 16 to 1024 the
#: modes of 80 random runs (h = 2, 3, starts of 1e-2 to 1e-7) have the same errors; with 4096 those
#: that are learnt last lose a digit.
GROWTH = 512.0
#: How often a run without end must be found stiff: most that are will have come to their limit.
_RELUCTANCE = 8
#: Explicit steps that an implicit one costs up to which no steps are stabilized.
SMALL = 5.0
#: Components above which Newton's equations are solved without a matrix.
DENSE_LIMIT = 320


@dataclass(frozen=True)
class Task:
    """What all runs of one call share."""

    system: SystemProtocol
    span: tuple[float, float]
    t_eval: Array
    method: str
    rtol: float
    atol: float
    names: tuple[str, ...]
    max_steps: int
    events: tuple[Callable[[float, Array], float], ...] = ()
    reduce_width: bool = False

    @property
    def endless(self) -> bool:
        """Whether runs go on until they come to a limit."""
        return bool(np.isinf(self.span[1]))


class Coordinates:
    """The coordinates in which a run is integrated, which may change under way.

    ``system`` is the system in them; ``frame`` that in the first of them. `lift` leads from them to
    the coordinates in which the run was started, `embed` to those of the frame, up to a symmetry.
    """

    def __init__(self, system: SystemProtocol, start: Array, *, reduce_width: bool = False) -> None:
        narrow = Reduction(system, start, unchanged, unchanged)
        if reduce_width:
            narrow = system.numerics.reduce(start) or narrow
        turn = narrow.system.numerics.working_basis
        basis = (turn and turn(narrow.state)) or narrow._replace(lift=unchanged)
        self.frame = self.system = basis.system
        self.state = basis.state
        self.lift: Back = after(narrow.lift, basis.lift)
        self.embed: Back = unchanged
        self._growth = GROWTH

    def move(self, place: Reduction) -> None:
        """Go on in others."""
        self.system, self.state, self._growth = place.system, place.state, GROWTH
        self.lift, self.embed = after(self.lift, place.lift), after(self.embed, place.embed)

    def bounds(self, x: Array) -> Array:
        """Return up to where the error scale may grow before others may be better, if ever."""
        numerics = self.system.numerics
        if numerics.working_basis is None:
            return np.empty(0)
        scale = np.empty(x.size)
        jit.ready(numerics.error_scale, jit.FIELD)(0.0, x, self.system.params, scale)
        return scale * self._growth

    def better(self, x: Array) -> Reduction | None:
        """Return coordinates that suit a state that has grown better, or None if these stay."""
        turn = self.system.numerics.working_basis
        place = turn(x) if turn else None
        if place is None:
            self._growth **= 2
        return place


class Choice:
    """Which method makes the steps: the explicit one, until stability costs too many of them."""

    def __init__(self, method: str, *, endless: bool) -> None:
        self.free, self.implicit, self.endless = method == "auto", method == "radau", endless
        self._asked = 0

    def patience(self, system: SystemProtocol) -> float:
        """Return how many steps must be left for the other method to pay.

        It takes some tens of implicit ones.
        """
        if not self.free or not has_derivative(system):
            return np.inf
        return 0.0 if self.implicit or self.endless else 40.0 * cost_ratio(system)

    def stages(self, system: SystemProtocol) -> int:
        """Return the last row of the table that stabilized steps may use, 0 for no such steps."""
        if not self.free or self.implicit:
            return 0
        small = has_derivative(system) and cost_ratio(system) < SMALL
        return 0 if small else len(stabilized.TABLE) - 1

    def ask(self, system: SystemProtocol, spent: int = 0) -> None:
        """Hear that the other method would pay, after a dozen steps that show it.

        A run without end may come to its limit soon; so it goes on with explicit steps until these,
        with the evaluations ``spent`` in stabilized ones, have cost as much as some implicit ones.
        """
        self._asked += 1 + spent // int(kernels.STIFF_STEPS * kernels.PRICE)
        needed = max(_RELUCTANCE, int(cost_ratio(system) / 3.0)) if self.endless else 1
        if self.implicit or self._asked >= needed:
            self.implicit, self._asked = not self.implicit, 0

    def start_over(self) -> bool:
        """Go back to explicit steps for a smaller system; tell whether they were implicit."""
        changed = self.implicit and self.free
        self.implicit = self.implicit and not changed
        return changed


def cost_ratio(system: SystemProtocol) -> float:
    """Return the cost of an implicit step in explicit ones; it solves for its stages four times."""
    n, cost = system.dim, system.numerics.field_cost
    form = jacobian_form(system)
    algebra = 2500.0 * cost if form == implicit.PRODUCTS else 1.2 * n**3 + 30.0 * n**2
    algebra += n * cost if form == implicit.DIFFERENCES else 0.0
    return (algebra + 25.0 * cost) / (12.0 * (cost + n))


def has_derivative(system: SystemProtocol) -> bool:
    """Tell whether the Jacobian of a system is known, or small enough to be differenced."""
    return not (system.jacobian is system.jvp is None) or system.dim <= DENSE_LIMIT


def jacobian_form(system: SystemProtocol) -> int:
    """Return how the implicit method knows the Jacobian: as a matrix if that can be factorized."""
    if system.jacobian is not None and (system.dim <= DENSE_LIMIT or system.jvp is None):
        return implicit.MATRIX
    return implicit.DIFFERENCES if system.jvp is None else implicit.PRODUCTS


def explicit_parts(system: SystemProtocol, *, stabilize: bool = False) -> tuple[Any, ...]:
    """Return what the loop of the explicit methods asks of a system.

    What stabilized steps need, which few runs make, is at hand only if asked for.
    """
    numerics, tables, step = system.numerics, kernels.NO_TABLES, kernels.no_step
    if stabilize:
        tables, step = stabilized.tables(), stabilized.step
    return (
        system.params,
        jit.ready(system.field, jit.FIELD),
        jit.ready(numerics.error_scale, jit.FIELD),
        jit.ready(numerics.restore, jit.RESTORE),
        jit.ready(numerics.holds, jit.RESTORE),
        tables,
        jit.ready(step, kernels.OWN_STEP),
        jit.ready(numerics.own_step or kernels.no_step, kernels.OWN_STEP),
    )


def stint(system: SystemProtocol) -> int:
    """Return how many evaluations stabilized steps may take before it is asked what is at rest.

    They take longer than to ask.
    """
    return int(min(max(2e6 / (system.numerics.field_cost + 10.0 * system.dim), 600.0), 4000.0))


def set_out(clocks: Any, k: int) -> None:
    """Let a run make stabilized steps from here on, unless they were given up."""
    clock = clocks[k]
    if clock["stabilized"] == 0:
        clock["stabilized"], clock["entered"] = 1, clock["evaluations"]
        clock["since"], clock["spent"] = clock["time"], 0
        clock["calm"] = kernels.CALM_STEPS - kernels.AT_ONCE


def implicit_parts(system: SystemProtocol) -> tuple[Any, ...]:
    """Return what the implicit method asks of a system, but for the space to work in."""
    form = jacobian_form(system)
    dense = form != implicit.PRODUCTS
    jvp: Any = kernels.no_jvp if dense else system.jvp
    return (
        *(*explicit_parts(system)[:4], form),
        jit.ready(system.jacobian or kernels.no_jacobian, jit.JACOBIAN),
        jit.ready(jvp, jit.JVP),
        jit.ready(implicit.factorize_all, implicit.FACTORIZE),
        jit.ready(implicit.solve_dense if dense else implicit.solve_free, implicit.SOLVE),
    )


def _dense_weights(parts: Array) -> Array:
    """Return the weights (part, 7) of the dense output's coefficients, those of `interpolate`."""
    if parts is INNER:
        return _INNER_WEIGHTS
    weights = np.empty((parts.size, 7))
    weights[:, ::2], weights[:, 1::2] = parts[:, None], 1.0 - parts[:, None]
    return np.cumprod(weights, axis=1, out=weights)


_INNER_WEIGHTS = _dense_weights(INNER.copy())


def _event_kind(direction: int) -> int:
    """Return the flag of an event that rises, falls, or only touches zero."""
    return schema.EVENT_KINDS.index({1: "rising", -1: "falling", 0: "touching"}[direction])


def integrate(task: Task, start: Array, update: Tracker) -> Run:
    """Return the run from a start."""
    stepper = Stepper(task, start)
    while not (reason := stepper.advance()):
        update(stepper.time)
    update(stepper.time)
    return stepper.finish(reason)


class Stepper:
    """A run from one start; `finish` returns it once `advance` has said why it is over."""

    def __init__(self, task: Task, start: Array) -> None:
        self.task = task
        self.place = Coordinates(task.system, start, reduce_width=task.reduce_width)
        self.choice = Choice(task.method, endless=task.endless)
        self.stabilize = False  # whether what stabilized steps need is at hand
        floor = (task.atol + kernels.NOTHING) / task.rtol
        self.watch = Watch(task.events, task.span[0], start, floor)
        self.recorder = Recorder(
            *(task.system, self.place.frame, task.names, (task.span[0], start)),
            events=bool(task.events),
        )
        self.limit = Limit()
        self._fastest, self._looks = 0.0, 0  # the largest rate so far, and how often it was asked
        self.clocks, self.orders = kernels.clock_at(task.span[0]), np.zeros(1, kernels.TASK)
        # The same numbers: of a record, they take Python ten times as long to read.
        self.clock = self.clocks.view((np.void, kernels.CLOCK))[0]
        self.clock["always_dense"] = bool(task.events)
        self.clock["weighted"] = task.system.numerics.weighted
        self._settle()

    def _settle(self) -> None:
        """Go on from the state that the coordinates were chosen for."""
        task, system, x = self.task, self.place.system, self.place.state
        rows = 4 if task.events else min(max(BUFFER // x.size, 2), 4096)
        self.buffer = kernels.Rows(task.t_eval, np.empty((rows, 2)), np.empty((rows, x.size)))
        self.work, self.reference = kernels.work_of(x), system.numerics.invariants(x)
        self.grown, self.parts = self.place.bounds(x), {}
        self.parts[False] = explicit_parts(system, stabilize=self.stabilize)
        if self.clock["evaluations"]:
            self.parts[False][1](self.time, x, system.params, self.work.stages[0])
            self.clock["evaluations"] += 1
        self.clock["rate"] = 0.0
        self.clock["own_step"] = system.numerics.own_step is not None

    @property
    def time(self) -> float:
        """The time that is reached."""
        return float(self.clock["time"])

    def advance(self) -> str:
        """Make some steps; return why the run is over, or '' if it is not."""
        task, before = self.task, int(self.clock["steps"])
        code, rows = self._steps(min(task.max_steps, before + self._pause()))
        parts = [rows]
        while task.events and code == kernels.BUFFER_FULL:  # events are among all rows of a step
            code, more = self._steps(int(self.clock["steps"]))
            parts.append(more)
        rows = Rows.joined(parts)
        reason = REASONS.get(code, "")
        if task.events and self.clock["steps"] > before:
            rows, ended = self._with_events(rows)
            reason = "event" if ended else reason
        self.recorder.add(rows)
        if reason != "event" and code != kernels.OUTGROWN:
            reason = self._at_limit() or reason
        if not reason and self.clock["steps"] >= task.max_steps:
            reason = "out_of_steps"
        if not reason and code != kernels.BUFFER_FULL:
            self._react(code)
        return reason

    def _pause(self) -> int:
        """Return the steps until the next visit here; the first may be before all steps."""
        begun = min(1, int(self.clock["evaluations"]))
        if self.task.events:
            return begun
        if not self.task.endless:
            return PAUSE
        if not begun and self._rests():
            return 0
        return _LIMIT_CHECK // 5 if self.choice.implicit else _LIMIT_CHECK

    def _rests(self) -> bool:
        """Tell whether a run without end is at its limit where it starts, or parts of it rest."""
        (params, field, *_), x = self.parts[False], self.work.state
        field(self.time, x, params, self.work.stages[0])
        smaller = self.place.system.numerics.deflate(x, self.task.rtol)
        return smaller is not None or bool(self._at_limit())

    def _steps(self, most: int) -> tuple[int, Rows]:
        """Step until the kernel pauses; return why it did, and the rows to save."""
        task, system = self.task, self.place.system
        limits = self.choice.patience(system), most, self.choice.stages(system), stint(system)
        self.orders[0] = (task.span[1], task.rtol, task.atol, *limits)
        loop: Any = jit.entry(kernels.advance, kernels.ADVANCE)
        parts = self.parts[False]
        if self.choice.implicit:
            loop = jit.entry(implicit.advance, implicit.ADVANCE)
            if True not in self.parts:
                self.parts[True] = implicit_parts(system)
            dense = self.parts[True][4] != implicit.PRODUCTS
            parts = (*self.parts[True], implicit.space_of(self.clocks, system.dim, dense))
        code, saved = loop(
            parts, self.orders, self.clocks, self.reference, self.grown, self.work, self.buffer
        )
        times, states = self.buffer.times[:saved].copy(), self.buffer.states[:saved].copy()
        return code, Rows.plain(times, states)

    def _react(self, code: int) -> None:
        """Change coordinates or method, as a pause of the kernels asks for."""
        system, x = self.place.system, self.work.state
        if self.task.method != "dop853":
            smaller = system.numerics.deflate(x, self.task.rtol)
            if smaller is not None:
                self._move(smaller)
                if self.choice.start_over():
                    self.clock["stiff"] = self.clock["calm"] = 0
                return
        if code == kernels.OUTGROWN:
            better = self.place.better(x)
            if better is None:
                self.grown = self.place.bounds(x)
            else:
                self._move(better)
        elif code == kernels.SWITCH:
            self.choice.ask(system, int(self.clock["spent"]))
            self.clock["spent"] = 0
        tried = code == kernels.SWITCH and self.clock["price"] > 0.0 and self.choice.stages(system)
        if code == kernels.STABILIZE or tried:
            self._stabilize()

    def _stabilize(self) -> None:
        """Make stabilized steps for a while, unless they were given up."""
        if not self.stabilize:
            self.stabilize = True
            self.parts[False] = explicit_parts(self.place.system, stabilize=True)
        set_out(self.clocks, 0)

    def _move(self, place: Reduction) -> None:
        self.recorder.gather(self.place.lift, self.place.embed)
        self.place.move(place)
        self._settle()

    def _at_limit(self) -> str:
        """Return how a run without end has come to its limit, or to its end without one, or ''."""
        task, clock = self.task, self.clock
        if not task.endless or clock["saved"] < task.t_eval.size:
            return ""
        force = float(np.abs(self.work.stages[0]).max())
        limit = self.place.frame.limit(self._embedded(), force, task.rtol)
        if limit.decision == "no_force" and self._grows():
            limit = limit._replace(kind="none")
        if limit.decision == "none" and self._looks_at(force):
            limit = limit_at(self.place.system, self.work.state, self.work.stages[0], task.rtol)
        if limit.decision == "none":
            return ""
        self.limit = limit
        if limit.kind == "none":
            return "end_reached"
        return "at_rest" if force < tolerances.NO_FORCE and not clock["steps"] else "limit_reached"

    def _grows(self) -> bool:
        """Tell whether the state grows by more than rounding in as much time as has passed.

        Towards a minimum at infinity it grows like log t: the force is like 1/t, however small.
        """
        x, time = self.work.state, float(self.clock["time"])
        growth = float(x @ (time * self.work.stages[0]))
        return growth > float(np.finfo(float).eps) * float(x @ x)

    def _looks_at(self, force: float) -> bool:
        """Tell whether it is time to ask for a minimum that the system does not know as one.

        That takes the Hessian, so it is asked where the force has become small, in terms of what it
        was, and more and more seldom otherwise.
        """
        x = self.work.state
        if self.place.system is not self.place.frame or force < tolerances.NO_FORCE:
            return False
        rate = force / max(float(np.abs(x).max()), tolerances.SMALLEST)
        self._fastest, self._looks = max(self._fastest, rate), self._looks + 1
        seldom = self._looks >= _LOOKS and self._looks & (self._looks - 1) == 0
        return seldom or rate <= _DECAYED * self.task.rtol * self._fastest

    def _embedded(self) -> Array:
        """Return the state in the coordinates of the frame."""
        state: Array = self.place.embed(self.work.state[None])[0]
        return state

    def _with_events(self, rows: Rows) -> tuple[Rows, bool]:
        """Return the rows with those of events in the last step, and whether one ends the run."""

        def inside(parts: Array) -> tuple[Array, Array]:
            times, states = self._inside(parts)
            return times, self.place.lift(states)

        now = self.place.lift(self.work.state[None])[0]
        with np.errstate(over="ignore", invalid="ignore"):  # a run may end near overflow
            rtol = max(self.task.rtol, float(self.clock["between"]))
            happened = self.watch.happened(self.time, now, inside, rtol)
        for part, number, direction in happened:
            times, states = self._inside(np.array([part]))
            time, state = float(times[0]), states[0]
            rows = rows.with_event(time, state, (number, _event_kind(direction)))
            if self.watch.ends(number):
                self.clock["time"], self.clock["time_low"] = time, 0.0
                self.work.state[:] = state
                return rows.until(time), True
        return rows, False

    def _inside(self, parts: Array) -> tuple[Array, Array]:
        """Return times and states at parts of the last step."""
        clock, work = self.clock, self.work
        if parts.size == 1 and parts[0] == 1.0:
            return np.array([clock["time"]]), work.state[None].copy()
        times: Array = clock["before"] + (clock["before_low"] + parts * clock["last_step"])
        states: Array = work.previous + _dense_weights(parts) @ work.coefficients
        return times, states

    def _end_events(self, reason: str) -> str:
        """Save the rows of events just where the run ends; return why it is over."""
        for _, number, direction in self.watch.at_end():
            end = Rows.plain(np.zeros((0, 2)), np.zeros((0, self.work.state.size)))
            kind = _event_kind(direction)
            self.recorder.add(end.with_event(self.time, self.work.state, (number, kind)))
            if self.watch.ends(number):
                return "event"
        return reason

    def finish(self, reason: str) -> Run:
        """Return the finished run."""
        task, clock, place = self.task, self.clock, self.place
        reason = reason if reason == "event" else self._end_events(reason)
        self.recorder.gather(place.lift, place.embed)
        if self.recorder.last != clock["time"]:
            end = np.array([[clock["time"], clock["time_low"]]])
            self.recorder.add(Rows.plain(end, self.work.state[None]))
            self.recorder.gather(place.lift, place.embed)
        return Run(
            variables=self.recorder.variables(),
            counts={
                "n_steps": int(clock["steps"]),
                "n_rhs": int(clock["evaluations"]),
                "n_jac": int(clock["jacobians"]),
                **({"n_unresolved": self.watch.unresolved} if task.events else {}),
            },
            stop_reason=reason,
            limit=place.frame.limit(self._embedded()).label,
            limit_kind=self.limit.kind,
            limit_decision=self.limit.decision,
        )
