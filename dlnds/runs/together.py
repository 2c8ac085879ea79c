"""Many plain runs at once: the members of a stack step in one compiled call.

What a run on its own does in Python (new coordinates, the way back, observables) is done here for
all members in a few operations on stacks, with the same numbers: each member comes out as if it had
been alone. Members that need another method, or a smaller system, start again on their own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dlnds._kernels import jit
from dlnds._kernels import runge_kutta as kernels
from dlnds.arrays import Array, Integers
from dlnds.runs.recording import Back, Run, clock_variables, joined, observed_in
from dlnds.runs.stepping import (
    GROWTH,
    PAUSE,
    REASONS,
    Choice,
    Task,
    Tracker,
    explicit_parts,
    integrate,
    set_out,
    stint,
)
from dlnds.systems.protocol import Reduction, unchanged
from dlnds.theory.coordinates import Turning, are_identities


class Rows(NamedTuple):
    """Rows of a member, in parts: times, states as they were stepped, and as they are saved."""

    times: list[Array]
    states: list[Array]
    lifted: list[Array]


#: Numbers in the arrays of the members that step together, and the most members that do.
_SPACE, _MOST = 2**21, 64
#: Rows to save before all are taken out, where every step is saved.
_ROWS = 128


def parts_of(task: Task, starts: Array) -> list[Array]:
    """Return a stack of starts in parts whose runs fit into the memory together."""
    size = min(_MOST, max(1, _SPACE // (starts.shape[1] * (25 + _rows(task)))))
    return [starts[k : k + size] for k in range(0, len(starts), size)]


def together(task: Task, starts: Array, track: Callable[[], Tracker]) -> list[Run]:
    """Return the runs from a stack of starts."""
    updates = [track() for _ in starts]
    runs: list[Run | None] = [None] * len(starts)
    if not (task.endless or task.events or task.reduce_width or task.method == "radau"):
        stack = _Stack(task, starts)
        while stack.active.size:
            stack.advance()
        runs = stack.finish()
        for update, clock in zip(updates, stack.clocks, strict=True):
            update(float(clock["time"]))
    return [
        run or integrate(task, start, update)
        for run, start, update in zip(runs, starts, updates, strict=True)
    ]


def _turning(place: Reduction) -> Turning:
    """Return the way back from a working basis, which is orthogonal."""
    lift: Any = place.lift
    turned: Turning = lift
    return turned


def _rows(task: Task) -> int:
    return int(task.t_eval.size) or _ROWS


class _Stack:
    """Runs under way, whose arrays have a first dim for the members.

    ``active`` are the members that go on; ``reasons`` says why the others are over, '' if they have
    to start again on their own.
    """

    def __init__(self, task: Task, starts: Array) -> None:
        self.task, self.starts = task, starts
        self.active, self.reasons = np.arange(len(starts)), [""] * len(starts)
        self.frame, states = task.system, starts
        self.lift: Turning | None = None
        self.back: Back = unchanged  # the way back that is the same for all members
        turn = task.system.numerics.working_basis
        if turn and (place := turn(starts)):
            self.frame, states = place.system, place.state
            if isinstance(place.lift, Turning):
                bases = [np.array(basis) for basis in place.lift.bases]
                self.lift = Turning(place.lift.widths, bases)
            else:
                self.back = place.lift
        self.parts: Any = explicit_parts(self.frame)
        self.stabilize = False
        self.references = self.frame.numerics.invariants(states)
        self._make_room(np.array(states))
        self._set_bounds(self.active)

    def _make_room(self, states: Array) -> None:
        """Make the arrays of all members, as `Stepper` makes those of one."""
        (count, n), rows = states.shape, _rows(self.task)
        self.clocks = np.tile(kernels.clock_at(self.task.span[0]), count)
        self.clocks["weighted"] = self.frame.numerics.weighted
        self.clocks["own_step"] = self.frame.numerics.own_step is not None
        self.orders = np.zeros(count, kernels.TASK)
        self.works = states, states.copy(), np.zeros((count, 7, n)), np.zeros((count, 16, n))
        self.growth = np.full(count, GROWTH)
        self.grown = np.empty((count, n if self.frame.numerics.working_basis else 0))
        self.buffer = np.zeros((count, rows, 2)), np.zeros((count, rows, n))
        self.codes, self.saved = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.rows = [Rows([], [], []) for _ in range(count)]
        self.chunks: list[list[dict[str, xr.Variable]]] = [[] for _ in range(count)]

    def _set_bounds(self, members: Integers) -> None:
        """Set up to where error scales may grow before other coordinates may be better."""
        if self.grown.size:
            for k in members:
                self.parts[2](0.0, self.works[0][k], self.parts[0], self.grown[k])
            self.grown[members] *= self.growth[members, None]

    def advance(self) -> None:
        """Step all active members until each has to pause, and see to what it pauses for."""
        task, members = self.task, self.active
        choice = Choice(task.method, endless=False)
        patience = choice.patience(self.frame)
        stages, turn = choice.stages(self.frame), stint(self.frame)
        for k, steps in zip(members, self.clocks["steps"][members], strict=True):
            most = min(task.max_steps, int(steps) + PAUSE)
            self.orders[k] = (task.span[1], task.rtol, task.atol, patience, most, stages, turn)
        loop: Any = jit.entry(kernels.advance_each, kernels.ADVANCE_EACH)
        loop(
            *(self.parts, self.orders, self.clocks, self.references, self.grown, self.works),
            *(task.t_eval, self.buffer, members, self.codes, self.saved),
        )
        self._keep_rows()
        self._react()

    def _keep_rows(self) -> None:
        """Take the rows out of the buffers, to the coordinates of the system."""
        members, most = self.active, int(self.saved[self.active].max())
        times, states = (part[members, :most] for part in self.buffer)
        lifted = self.lift.of(members)(states) if self.lift else self.back(states)
        for k, *parts in zip(members, times, states, lifted, strict=True):
            for kept, part in zip(self.rows[k], parts, strict=True):
                kept.append(part[: self.saved[k]])
        if sum(len(part) for rows in self.rows for part in rows.times) * states.shape[2] > _SPACE:
            self._observe()

    def _react(self) -> None:
        """Let members go that are over or have to start again; turn those that have grown."""
        task, states, going, grown = self.task, self.works[0], [], []
        for k in self.active.tolist():
            code = int(self.codes[k])
            reason = REASONS.get(code, "")
            if not reason and self.clocks["steps"][k] >= task.max_steps:
                reason = "out_of_steps"
            self.reasons[k] = reason
            if reason:
                continue
            if code != kernels.BUFFER_FULL:
                smaller = task.method != "dop853" and self.frame.numerics.deflate(
                    states[k], task.rtol
                )
                if smaller or code == kernels.SWITCH:
                    continue
            going.append(k)
            if code == kernels.OUTGROWN:
                grown.append(k)
            if code == kernels.STABILIZE:
                if not self.stabilize:
                    self.stabilize, self.parts = True, explicit_parts(self.frame, stabilize=True)
                set_out(self.clocks, k)
        self.active = np.array(going, np.int64)
        if grown:
            self._turn(np.array(grown))

    def _turn(self, members: Integers) -> None:
        """Go on in coordinates that suit what members have grown to."""
        turn: Any = self.frame.numerics.working_basis
        states, before, coefficients, stages = self.works
        place = turn(states[members])
        moved = np.zeros(len(members), bool)
        if place:
            moved = ~np.all([are_identities(basis) for basis in _turning(place).bases], axis=0)
        self.growth[members] = np.where(moved, GROWTH, self.growth[members] ** 2)
        if place:
            turned = members[moved]
            self._lift_by(turned, _turning(place).of(moved))
            states[turned] = before[turned] = place.state[moved]
            coefficients[turned] = stages[turned] = 0.0
            self.references[turned] = self.frame.numerics.invariants(states[turned])
            for k in turned:
                self.parts[1](float(self.clocks[k]["time"]), states[k], self.parts[0], stages[k, 0])
            self.clocks["evaluations"][turned] += 1
            self.clocks["rate"][turned] = 0.0
        self._set_bounds(members)

    def _lift_by(self, members: Integers, further: Turning) -> None:
        """Take a further turn of members into their way back."""
        if self.lift is None:
            eyes = [np.tile(np.eye(d), (len(self.starts), 1, 1)) for d in further.widths]
            self.lift = Turning(further.widths, eyes)
        both = self.lift.of(members).after(further)
        for basis, turned in zip(self.lift.bases, both.bases, strict=True):
            basis[members] = turned

    def _observe(self) -> None:
        """Observe the rows that were kept, of all members at once."""
        system, task = self.task.system, self.task
        held = [k for k, rows in enumerate(self.rows) if rows.times]
        if not held:
            return
        times, states, lifted = (
            np.concatenate([rows for k in held for rows in self.rows[k][part]]) for part in range(3)
        )
        counts = [sum(map(len, self.rows[k].times)) for k in held]
        ends = np.cumsum([0, *counts])
        for k, first, count in zip(held, ends, counts, strict=False):
            if count and not self.chunks[k] and times[first, 0] == task.span[0]:
                lifted[first] = self.starts[k]
        starts = np.repeat(self.starts[held], counts, axis=0)
        found = clock_variables(times)
        found |= observed_in(system, self.frame, task.names, states, lifted, starts)
        columns = [(name, variable.dims, variable.values) for name, variable in found.items()]
        for k, first, last in zip(held, ends, ends[1:], strict=False):
            own = {name: xr.Variable(dims, values[first:last]) for name, dims, values in columns}
            self.chunks[k].append(own)
            self.rows[k] = Rows([], [], [])

    def finish(self) -> list[Run | None]:
        """Return the runs; None where one has to start again on its own."""
        states = self.works[0]
        lifted = self.lift(states[:, None])[:, 0] if self.lift else self.back(states)
        for k, reason in enumerate(self.reasons):
            clock, rows = self.clocks[k], self.rows[k]
            last = [part[-1, 0] for part in rows.times if len(part)][-1:]
            last = last or [chunk["time"].values[-1] for chunk in self.chunks[k][-1:]]
            if reason and last != [clock["time"]]:
                end = np.array([[clock["time"], clock["time_low"]]])
                for kept, part in zip(
                    rows, (end, states[k : k + 1], lifted[k : k + 1]), strict=True
                ):
                    kept.append(part)
        self._observe()
        return [self._run(k) if reason else None for k, reason in enumerate(self.reasons)]

    def _run(self, k: int) -> Run:
        clock = self.clocks[k]
        counts = {"n_steps": "steps", "n_rhs": "evaluations", "n_jac": "jacobians"}
        return Run(
            variables=joined(self.chunks[k]),
            counts={name: int(clock[count]) for name, count in counts.items()},
            stop_reason=self.reasons[k],
            limit=self.frame.limit(self.works[0][k]).label,
        )
