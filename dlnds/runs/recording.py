"""What runs record: rows of states, taken back to the coordinates of their system, as Datasets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array, Integers
from dlnds.errors import check_function
from dlnds.systems.protocol import SystemProtocol, unchanged
from dlnds.theory.coordinates import Turning

#: The way back of a stack (time, parameter) of states.
Back = Callable[[Array], Array]

#: What to record: names, and functions of the state by their names.
Names = Iterable[str | Mapping[str, Callable[[Array], Any]]]

#: What whole numbers are where a run of a stack is over.
_BEYOND = {"event": -1, "event_kind": 0, "index": -1}
#: Why runs ended, and what their limits are and how that was decided, as flags.
_ENDS = {
    "stop_reason": schema.STOP_REASONS,
    "limit_kind": schema.LIMIT_KINDS,
    "limit_decision": schema.LIMIT_DECISIONS,
}
#: Numbers held before they are observed, and between two visits to Python.
BUFFER = 2**18


@dataclass(frozen=True)
class Run:
    """One finished run."""

    variables: Mapping[str, xr.Variable]
    counts: Mapping[str, int]
    stop_reason: str
    limit: str
    limit_kind: str = "none"
    limit_decision: str = "none"


class Rows(NamedTuple):
    """Rows of a run: compensated times (row, 2), states, and of which event each is the point.

    ``events`` (row, 2) are the number of the event, −1 if none, and its kind.
    """

    times: Array
    states: Array
    events: Integers

    @classmethod
    def plain(cls, times: Array, states: Array) -> "Rows":
        """Return rows of no event."""
        events = np.zeros((len(times), 2), np.int64)
        events[:, 0] = -1
        return cls(times, states, events)

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """Return rows one after the other."""
        return parts[0] if len(parts) == 1 else cls(*map(_whole, zip(*parts, strict=True)))

    def with_event(self, time: float, state: Array, event: tuple[int, int]) -> "Rows":
        """Return the rows with that of an event among them, after others of its time."""
        row = np.searchsorted(self.times[:, 0], time, side="right")
        return Rows(
            np.insert(self.times, row, [time, 0.0], axis=0),
            np.insert(self.states, row, state, axis=0),
            np.insert(self.events, row, event, axis=0),
        )

    def until(self, time: float) -> "Rows":
        """Return the rows up to a time."""
        last = np.searchsorted(self.times[:, 0], time, side="right")
        return Rows(self.times[:last], self.states[:last], self.events[:last])


class Recorder:
    """Rows of a run, kept until there are enough to observe them.

    ``frame`` is the system in its first coordinates: observables that these leave as they are, are
    computed there, which spares small weights the rounding of large ones. ``start`` is the first
    row as it was given, not as turned there and back.
    """

    def __init__(
        self,
        system: SystemProtocol,
        frame: SystemProtocol,
        names: Sequence[str],
        start: tuple[float, Array],
        *,
        events: bool = False,
    ) -> None:
        self.system, self.frame, self.names, self.start = system, frame, names, start
        unaffected = system.numerics.unaffected
        self.inner, self.outer = not unaffected.isdisjoint(names), not unaffected.issuperset(names)
        self.events, self.last = events, np.nan
        self._parts: list[Rows] = []
        self._gathered: list[tuple[Array, Integers, Array | None, Array | None]] = []
        self._chunks: list[dict[str, xr.Variable]] = []

    def add(self, rows: Rows) -> None:
        """Take rows in the present coordinates."""
        if len(rows.times):
            self._parts.append(rows)
            self.last = float(rows.times[-1, 0])

    def gather(self, lift: Back, embed: Back) -> None:
        """Take the rows so far to the coordinates of the system and to those of the frame."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        times, states, events = Rows.joined(parts)
        embedded = embed(states) if self.inner else None
        lifted = lift(states) if self.outer else None
        self._gathered.append((times, events, embedded, lifted))
        if sum(len(row[0]) for row in self._gathered) * self.system.dim > BUFFER:
            self._observe()

    def _observe(self) -> None:
        """Observe the rows that have been gathered."""
        rows, self._gathered = self._gathered, []
        if not rows:
            return
        parts: list[Any] = list(zip(*rows, strict=True))
        times, events = _whole(parts[0]), _whole(parts[1])
        embedded = _whole(parts[2]) if self.inner else None
        lifted = _whole(parts[3]) if self.outer else None
        if lifted is not None and not self._chunks and times[0, 0] == self.start[0]:
            lifted[0] = self.start[1]
        found = observed_in(
            self.system, self.frame, self.names, embedded, lifted, self.start[1][None]
        )
        variables = clock_variables(times) | found
        if self.events:
            variables["event"] = xr.Variable("time", events[:, 0].copy())
            variables["event_kind"] = xr.Variable("time", events[:, 1].astype(np.int8))
        self._chunks.append(variables)

    def variables(self) -> dict[str, xr.Variable]:
        """Return all that was gathered, observed."""
        self._observe()
        return joined(self._chunks)


def _whole(parts: Sequence[Any]) -> Any:
    """Return rows one after the other."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Own(str):
    """The name of an observable that is a function of the state."""

    __slots__ = ("function",)
    function: Callable[[Array], Any]

    def _at(self, x: Array) -> Any:
        """Return its value at a state."""
        try:
            value = self.function(x.copy())
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            raise ValueError(f"save: {str(self)!r} fails at a state with {words}") from error
        if value is None:
            raise TypeError(f"save: {str(self)!r} needs to return numbers, got None")
        return value

    def of(self, states: Array) -> xr.Variable:
        """Return its values at states (time, parameter)."""
        found = [self._at(x) for x in states]
        try:
            values = np.array(found, float)
        except (TypeError, ValueError) as error:
            raise type(error)(f"save: {str(self)!r} needs to return numbers: {error}") from error
        return xr.Variable(("time", *(f"{self}_{k}" for k in range(values.ndim - 1))), values)


def recorded(system: SystemProtocol, save: Names, states: Array | None = None) -> tuple[str, ...]:
    """Return the names of what a run records: what the system always saves, and ``save``.

    Names that have no values at states (time, parameter) are refused, if some are given.
    """
    names = tuple(dict.fromkeys((*system.always, *names_of("save", save))))
    if states is not None and (others := {*names} - {*system.always, "state"}):
        observe_rows(system, [name for name in names if name in others], states)
    return names


def names_of(argument: str, save: Names) -> list[str]:
    """Return names of observables, and those of one's own functions with these."""
    if isinstance(save, Mapping):
        return [_own(argument, *pair) for pair in save.items()]
    if isinstance(save, str) or not np.iterable(save):
        raise TypeError(f"{argument}: needs a sequence of names such as ('state',), got {save!r}")
    names: list[str] = []
    for item in save:
        if not isinstance(item, str | Mapping):
            raise TypeError(
                f"{argument}: needs names such as 'state', or a mapping from names to functions, "
                f"got {item!r}"
            )
        names += names_of(argument, item) if isinstance(item, Mapping) else [item]
    return names


def _own(argument: str, name: Any, function: Any) -> Own:
    """Return a function of the state as an observable of this name."""
    if not isinstance(name, str) or not name.isidentifier():
        raise TypeError(f"{argument}: needs names that are words, got {name!r}")
    if name in schema.DESCRIPTIONS:
        raise ValueError(f"{argument}: {name!r} has a meaning already, give it another name")
    check_function(argument, function, "x")
    own = Own(name)
    own.function = function
    return own


def observe_rows(
    system: SystemProtocol, names: Iterable[str], states: Array, start: Array | None = None
) -> dict[str, xr.Variable]:
    """Return observables of states (time, parameter), by name: the system's, and functions.

    ``start`` is the first state of their run, if not the first of these, or those of their runs.
    """
    names = tuple(names)
    known = [name for name in names if not isinstance(name, Own) and name != "state"]
    found = {"state": xr.Variable(("time", "parameter"), states)}  # that of every system
    with np.errstate(over="ignore", invalid="ignore"):  # a run may end near overflow
        found |= system.observables(states, known, start) if known else {}
        found |= {name: name.of(states) for name in names if isinstance(name, Own)}
    return {str(name): found[name] for name in names}


def observed_in(
    system: SystemProtocol,
    frame: SystemProtocol,
    names: Sequence[str],
    embedded: Array | None,
    lifted: Array | None,
    start: Array,
) -> dict[str, xr.Variable]:
    """Return observables of rows in the coordinates of a frame, and of the system.

    Each in those of the frame if these leave it as it is.
    """
    unaffected = system.numerics.unaffected
    found: dict[str, xr.Variable] = {}
    if embedded is not None:
        inner = [name for name in names if name in unaffected]
        found.update(observe_rows(frame, inner, embedded))
    if lifted is not None:
        outer = [name for name in names if name not in unaffected]
        found.update(observe_rows(system, outer, lifted, start))
    return {str(name): found[name] for name in names}


def observed(
    system: SystemProtocol,
    names: Iterable[str],
    times: Array,
    states: Array,
    start: Array | None = None,
) -> dict[str, xr.Variable]:
    """Return the variables of rows in the coordinates of a system."""
    return clock_variables(times) | observe_rows(system, names, states, start)


def clock_variables(times: Array) -> dict[str, xr.Variable]:
    """Return times, exact or compensated pairs (time, 2), as variables."""
    pairs = times if times.ndim == 2 else np.stack([times, np.zeros_like(times)], axis=1)
    return {
        "time": xr.Variable("time", pairs[:, 0].copy()),
        "time_low": xr.Variable("time", pairs[:, 1].copy()),
    }


def joined(chunks: Sequence[Mapping[str, xr.Variable]]) -> dict[str, xr.Variable]:
    """Return variables one after the other along their first dim."""
    if len(chunks) == 1:
        return dict(chunks[0])
    return {
        name: xr.Variable(first.dims, np.concatenate([chunk[name].values for chunk in chunks]))
        for name, first in chunks[0].items()
    }


def after(outer: Back, inner: Back) -> Back:
    """Return the composition of two ways back."""
    if outer is unchanged or inner is unchanged:
        return inner if outer is unchanged else outer
    if isinstance(outer, Turning) and isinstance(inner, Turning):
        return outer.after(inner)
    return lambda states: outer(inner(states))


def one(run: Run, coords: Mapping[str, Any]) -> xr.Dataset:
    """Return one run as a Dataset."""
    ends = {name: schema.flag(words, getattr(run, name)) for name, words in _ENDS.items()}
    attrs = {**run.counts, "stop_reason": int(ends["stop_reason"]), "limit": run.limit}
    flags = {name: xr.Variable((), end) for name, end in ends.items()}
    return xr.Dataset({**run.variables, **flags}, coords, attrs)


def side_by_side(runs: Sequence[Run], grid: Array | None, coords: Mapping[str, Any]) -> xr.Dataset:
    """Return runs of unequal length along ``sample``, NaN, or what `_BEYOND` has, when one is over.

    All share the times of a ``grid`` if there is one; else each has its own.
    """
    dim = "step" if grid is None else "time"
    if grid is None:
        longest = max(run.variables["time"].size for run in runs)
    else:
        runs, longest = [_on_grid(run, grid) for run in runs], grid.size
    variables: dict[str, Any] = {}
    for name, first in runs[0].variables.items():
        beyond = _BEYOND.get(name, np.nan)
        kind = first.dtype if name in _BEYOND else np.result_type(first.dtype, float)
        data = np.empty((len(runs), longest, *first.shape[1:]), kind)
        for row, run in zip(data, runs, strict=True):
            values = run.variables[name].values
            row[: len(values)], row[len(values) :] = values, beyond
        variables[name] = (("sample", dim, *first.dims[1:]), data)
    if grid is not None:
        variables["time"] = ("time", grid)
    for name in runs[0].counts:
        variables[name] = ("sample", np.array([run.counts[name] for run in runs]))
    variables["limit"] = ("sample", [run.limit for run in runs])
    for name, words in _ENDS.items():
        variables[name] = ("sample", schema.flag(words, [getattr(run, name) for run in runs]))
    dataset = xr.Dataset(variables, {"sample": np.arange(len(runs)), **coords})
    return dataset.set_coords("time") if grid is None else dataset


def _on_grid(run: Run, grid: Array) -> Run:
    """Return a run with its rows at the grid times; the end of a failed run is left out."""
    times = run.variables["time"].values
    if np.array_equal(times, grid):
        return run
    keep = np.isin(times, grid)
    variables = {name: v.isel(time=keep) for name, v in run.variables.items()}
    return replace(run, variables=variables)
