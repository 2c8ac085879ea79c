"""One run under way: which method steps it, in which coordinates, and when it is over.

The steps themselves are compiled (`_kernels.runge_kutta`, `_kernels.implicit`). Between them this
module asks the system for better coordinates, changes the method, locates events, and collects what
is saved.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.optimize
import xarray as xr

from dlnds._kernels import jit
from dlnds._kernels import runge_kutta as kernels
from dlnds.arrays import Array
from dlnds.systems.protocol import NO_FORCE, Reduction, SystemProtocol, unchanged

#: The way back of a stack (time, parameter) of states.
Back = Callable[[Array], Array]

_REASONS = {
    kernels.END_REACHED: "end_reached",
    kernels.STEP_TOO_SMALL: "step_too_small",
    kernels.NOT_FINITE: "not_finite",
}
_BUFFER = 2**18  # numbers held between two visits to Python
_PAUSE = 2000  # steps between two visits to Python, where progress is shown and Ctrl-C is heard
_LIMIT_CHECK = 50  # the same while looking for the limit of a run without end
#: Growth of an error scale after which a system is asked for new coordinates.
_GROWTH = 64.0
#: How often a run without end must be found stiff: most that are will have come to their limit.
_RELUCTANCE = 8
#: Components above which Newton's equations are solved without a matrix.
DENSE_LIMIT = 320


@dataclass
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


@dataclass
class Run:
    """One finished run."""

    variables: dict[str, xr.Variable]
    counts: dict[str, int]
    stop_reason: str
    limit: str
    limit_kind: str = "none"
    limit_decision: str = "none"
    coords: dict[str, Any] = field(default_factory=dict)


class Stepper:
    """A run from one start; `finish` returns it once `advance` has said why it is over."""

    def __init__(self, task: Task, start: Array) -> None:
        self.task, self.start, whole = task, start, task.system
        narrow = Reduction(whole, start, unchanged, unchanged)
        if task.reduce_width:
            narrow = whole.numerics.reduce(start) or narrow
        turn = narrow.system.numerics.working_basis
        basis = (turn and turn(narrow.state)) or narrow._replace(lift=unchanged)
        self.frame = basis.system
        self.lift: Back = _after(narrow.lift, basis.lift)
        self.embed: Back = unchanged
        self.clock = np.zeros(kernels.CLOCK_SIZE)
        self.clock[[kernels.TIME, kernels.BEFORE]] = task.span[0]
        self.counters = np.zeros(kernels.COUNTERS_SIZE, np.int64)
        self.counters[kernels.UNSAVED] = 1
        self.counters[kernels.ALWAYS_DENSE] = int(bool(task.events))
        self.implicit = task.method == "radau"
        self.parts: list[tuple[Array, Array, Array]] = []
        self.rows: list[tuple[Array, Array, Array | None, Array | None]] = []
        unaffected = whole.numerics.unaffected
        self.inner = [name for name in task.names if name in unaffected]
        self.outer = [name for name in task.names if name not in unaffected]
        self.chunks: list[dict[str, xr.Variable]] = []
        self.decision = ("none", "none")
        self.stopped, self.seen, self.last, self.asked = "", 0, np.nan, 0
        self._settle_in(basis)
        self.values = [float(event(task.span[0], start)) for event in task.events]

    def _settle_in(self, place: Reduction) -> None:
        """Go on in other coordinates, from the state that is given in them."""
        task, system, x = self.task, place.system, place.state
        self.system, self.params, dim = system, system.params, system.dim
        self.numerics = system.numerics
        self.work = np.zeros((kernels.WORK_ROWS, dim))
        self.work[kernels.STATE] = self.work[kernels.PREVIOUS] = x
        self.reference = self.numerics.invariants(x)
        rows = 4 if task.events else int(np.clip(_BUFFER // dim, 2, 4096))
        self.times, self.states = np.empty((rows, 2)), np.empty((rows, dim))
        self.field = jit.ready(system.field, jit.FIELD)
        self.scale = jit.ready(self.numerics.error_scale, jit.FIELD)
        self.restore = jit.ready(self.numerics.restore, jit.RESTORE)
        self.growth = _GROWTH
        self.grown = np.empty(0 if self.numerics.working_basis is None else dim)
        self._let_grow(x)
        if self.counters[kernels.EVALUATIONS]:
            self.field(self.clock[kernels.TIME], x, self.params, self.work[kernels.FIRST_STAGE])
            self.counters[kernels.EVALUATIONS] += 1
        self.clock[kernels.RATE] = 0.0

    def _let_grow(self, x: Array) -> None:
        """Set how far the error scale may grow before the system is asked for a better basis."""
        if self.grown.size:
            self.scale(0.0, x, self.params, self.grown)
            self.grown *= self.growth

    def advance(self) -> str:
        """Make some steps; return why the run is over, or '' if it is not."""
        task, counters = self.task, self.counters
        pause = _PAUSE
        if task.events:
            pause = min(1, int(counters[kernels.EVALUATIONS]))
        elif np.isinf(task.span[1]):  # where a start may be critical, and a limit near
            pause = _LIMIT_CHECK // 5 if self.implicit else _LIMIT_CHECK
            pause *= min(1, int(counters[kernels.EVALUATIONS]))
        budget = min(task.max_steps, int(counters[kernels.STEPS]) + pause)
        code, saved = self._implicit(budget) if self.implicit else self._explicit(budget)
        times, states = self.times[:saved].copy(), self.states[:saved].copy()
        none = np.full(len(times), -1)
        self.stopped = _REASONS.get(code, "")
        if counters[kernels.STEPS] > self.seen and task.events:
            times, states, none = self._with_events(times, states, none)
        self.seen = int(counters[kernels.STEPS])
        self.parts.append((times, states, none))
        if len(times):
            self.last = float(times[-1, 0])
        if self.stopped != "event" and code != kernels.OUTGROWN:
            self.stopped = self._limit() or self.stopped
        if not self.stopped and counters[kernels.STEPS] >= task.max_steps:
            self.stopped = "out_of_steps"
        if not self.stopped and code != kernels.BUFFER_FULL:
            self._react(code)
        return self.stopped

    def _react(self, code: int) -> None:
        """Change coordinates or method, as a pause of the kernels asks for."""
        x = self.work[kernels.STATE]
        if self.task.method != "dop853":
            smaller = self.numerics.deflate(x, self.task.rtol)
            if smaller is not None:
                self._move(smaller)
                if self.implicit and self.task.method == "auto":
                    self.implicit = False
                    self.counters[[kernels.STIFF, kernels.CALM]] = 0
                return
        if code == kernels.OUTGROWN:
            turn = self.numerics.working_basis
            place = turn and turn(x)
            if place is None:  # already in it, and so it stays
                self.growth **= 2
                self._let_grow(x)
            else:
                self._move(place)
        elif code == kernels.SWITCH:
            self.asked += 1
            if self.implicit or self.asked >= self._reluctance:
                self.implicit, self.asked = not self.implicit, 0

    def _move(self, place: Reduction) -> None:
        self._gather()
        self._settle_in(place)
        self.lift = _after(self.lift, place.lift)
        self.embed = _after(self.embed, place.embed)

    def _explicit(self, budget: int) -> tuple[int, int]:
        task = self.task
        kernel = jit.ready(kernels.advance, kernels.ADVANCE)
        patience = np.inf if task.method == "dop853" else self._patience
        return kernel(  # type: ignore[no-any-return, no-untyped-call]
            self.field, self.scale, self.restore, self.params, self.reference, patience,
            task.span[1], task.t_eval, task.rtol, task.atol, budget,
            self.clock, self.counters, self.work, self.grown, self.times, self.states,
        )  # fmt: skip

    def _implicit(self, budget: int) -> tuple[int, int]:
        from dlnds._kernels import implicit

        task, system = self.task, self.system
        kernel = jit.ready(implicit.advance, implicit.ADVANCE)
        dense = system.jacobian is not None and system.dim <= DENSE_LIMIT
        jacobian = jit.ready(system.jacobian or kernels.no_jacobian, jit.JACOBIAN)
        dense = dense or system.jvp is None
        jvp: Any = kernels.no_jvp if dense else system.jvp
        jvp = jit.ready(jvp, jit.JVP)
        factorize = jit.ready(implicit.factorize_all, implicit.FACTORIZE)
        solve = jit.ready(implicit.solve_dense if dense else implicit.solve_free, implicit.SOLVE)
        return kernel(  # type: ignore[no-any-return, no-untyped-call]
            self.field, self.scale, jacobian, jvp, factorize, solve, self.restore, self.params,
            self.reference, dense, task.method == "auto",
            task.span[1], task.t_eval, task.rtol, task.atol, budget,
            self.clock, self.counters, self.work, self.grown, self.times, self.states,
        )  # fmt: skip

    @property
    def _reluctance(self) -> int:
        """How often a kernel must ask for implicit steps, after a dozen stiff steps each time.

        A run without end may come to its limit soon; so it goes on with explicit steps until these
        have cost as much as some implicit ones.
        """
        if np.isfinite(self.task.span[1]):
            return 1
        return max(_RELUCTANCE, int(self._cost_ratio / 3.0))

    @property
    def _patience(self) -> float:
        """How many steps must be left for implicit ones, of which it takes some tens, to pay."""
        system = self.system
        if system.jvp is None and system.jacobian is None:
            return np.inf
        return 40.0 * self._cost_ratio if np.isfinite(self.task.span[1]) else 0.0

    @property
    def _cost_ratio(self) -> float:
        """The cost of an implicit step in explicit ones; it solves for its stages four times."""
        system, n, cost = self.system, self.system.dim, self.numerics.field_cost
        dense = system.jacobian is not None and n <= DENSE_LIMIT
        algebra = 1.2 * n**3 + 30.0 * n**2 if dense else 2500.0 * cost
        return (algebra + 25.0 * cost) / (12.0 * (cost + n))

    def _limit(self) -> str:
        """Return how a run without end has come to its limit, or ''."""
        task, counters, work = self.task, self.counters, self.work
        if np.isfinite(task.span[1]) or counters[kernels.SAVED] < task.t_eval.size:
            return ""
        force = float(np.abs(work[kernels.FIRST_STAGE]).max())
        x = self.embed(work[[kernels.STATE]])[0]
        kind, decision, _ = self.frame.limit(x, force, task.rtol)
        if kind == "none":
            return ""
        self.decision = (kind, decision)
        return "at_rest" if force < NO_FORCE and not counters[kernels.STEPS] else "limit_reached"

    # What is saved.

    def _with_events(self, times: Array, states: Array, which: Array) -> tuple[Array, Array, Array]:
        """Locate what happened in the last step, and add its points to the rows saved."""
        clock, work = self.clock, self.work
        found = []
        now = float(clock[kernels.TIME])
        x_now = self.lift(work[[kernels.STATE]])[0]
        for number, event in enumerate(self.task.events):
            before, after = self.values[number], float(event(now, x_now))
            self.values[number] = after
            direction = getattr(event, "direction", 0)
            up, down = before <= 0.0 < after, before >= 0.0 > after
            if (up and direction >= 0) or (down and direction <= 0):
                found.append((self._locate(event, before), number))
        found.sort()
        for theta, number in found:
            point, time = self._inside(theta), self._time_inside(theta)
            row = np.searchsorted(times[:, 0], time, side="right")
            times = np.insert(times, row, [time, 0.0], axis=0)
            states = np.insert(states, row, point, axis=0)
            which = np.insert(which, row, number)
            if getattr(self.task.events[number], "terminal", False):
                self.stopped = "event"
                clock[[kernels.TIME, kernels.TIME_LOW]] = time, 0.0
                work[kernels.STATE] = point
                return times[: row + 1], states[: row + 1], which[: row + 1]
        return times, states, which

    def _locate(self, event: Callable[[float, Array], float], before: float) -> float:
        """Return the part of the last step after which an event happens, on the dense output."""

        def value(theta: float) -> float:
            if theta == 0.0:
                return before
            state = self.lift(self._inside(theta)[None])[0]
            return float(event(self._time_inside(theta), state))

        if before == 0.0:
            return 0.0
        if value(0.0) * value(1.0) > 0.0:  # by the rounding of the polynomial at its end
            return 1.0
        return float(scipy.optimize.brentq(value, 0.0, 1.0, xtol=1e-15, rtol=1e-15))

    def _time_inside(self, theta: float) -> float:
        """Return the time at a part of the last step."""
        clock = self.clock
        passed = clock[kernels.BEFORE_LOW] + theta * clock[kernels.LAST_STEP]
        return float(clock[kernels.BEFORE] + passed)

    def _inside(self, theta: float) -> Array:
        """Return the state at a part of the last step."""
        if theta == 1.0:
            return np.array(self.work[kernels.STATE])
        out: Array = np.empty(self.system.dim)
        rows = self.work[kernels.COEFFICIENTS : kernels.FIRST_STAGE]
        interpolate: Any = kernels.interpolate
        interpolate(self.work[kernels.PREVIOUS], rows, theta, out)
        return out

    def _gather(self) -> None:
        """Take the rows that were saved in the present coordinates back to those that last."""
        parts, self.parts = self.parts, []
        if not sum(len(times) for times, _, _ in parts):
            return
        times, states, which = (np.concatenate(part) for part in zip(*parts, strict=True))
        embedded = self.embed(states) if self.inner else None
        lifted = self.lift(states) if self.outer else None
        self.rows.append((times, which, embedded, lifted))
        if sum(len(row[0]) for row in self.rows) * self.task.system.dim > _BUFFER:
            self._observe()

    def _observe(self) -> None:
        """Observe the rows that have been gathered."""
        rows, self.rows = self.rows, []
        if not rows:
            return
        parts: list[Any] = list(zip(*rows, strict=True))
        times, which = np.concatenate(parts[0]), np.concatenate(parts[1])
        observed: dict[str, xr.Variable] = {}
        with np.errstate(over="ignore", invalid="ignore"):  # a run may end near overflow
            if self.inner:
                states = np.concatenate(parts[2])
                observed.update(self.frame.observables(states, self.inner))
            if self.outer:
                states = np.concatenate(parts[3])
                if not self.chunks and times[0, 0] == self.task.span[0]:
                    states[0] = self.start  # as given, not as turned there and back
                observed.update(self.task.system.observables(states, self.outer))
        variables = clock_variables(times) | {name: observed[name] for name in self.task.names}
        if self.task.events:
            variables["event"] = xr.Variable("time", which.astype(np.int64))
        self.chunks.append(variables)

    def finish(self) -> Run:
        """Return the finished run."""
        self._gather()
        clock, work, counters = self.clock, self.work, self.counters
        if self.last != clock[kernels.TIME]:
            end = clock[[kernels.TIME, kernels.TIME_LOW]].reshape(1, 2)
            self.parts.append((end, work[[kernels.STATE]], np.array([-1])))
            self._gather()
        self._observe()
        counts = {
            "n_steps": int(counters[kernels.STEPS]),
            "n_rhs": int(counters[kernels.EVALUATIONS]),
            "n_jac": int(counters[kernels.JACOBIANS]),
        }
        names = self.chunks[0].keys()
        whole = self.task.system
        return Run(
            variables={name: concatenate([chunk[name] for chunk in self.chunks]) for name in names},
            counts=counts,
            stop_reason=self.stopped,
            limit=self.frame.limit(self.embed(work[[kernels.STATE]])[0]).label,
            limit_kind=self.decision[0],
            limit_decision=self.decision[1],
            coords=whole.coordinates() if "state" in self.task.names else {},
        )

    @property
    def time(self) -> float:
        """The time that is reached."""
        return float(self.clock[kernels.TIME])


def clock_variables(times: Array) -> dict[str, xr.Variable]:
    """Return the two parts (time, part) of the compensated clock as variables."""
    return {
        "time": xr.Variable("time", times[:, 0].copy()),
        "time_low": xr.Variable("time", times[:, 1].copy()),
    }


def concatenate(parts: Sequence[xr.Variable]) -> xr.Variable:
    """Return variables one after the other along their first dim."""
    return xr.Variable(parts[0].dims, np.concatenate([part.values for part in parts]))


def _after(outer: Back, inner: Back) -> Back:
    """Return the composition of two ways back."""
    if outer is unchanged or inner is unchanged:
        return inner if outer is unchanged else outer
    return lambda states: outer(inner(states))
