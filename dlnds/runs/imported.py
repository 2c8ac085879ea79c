"""Training runs of others: weights at given times, observed as runs of this package are."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds.arrays import Array
from dlnds.errors import (
    check_array,
    check_ascending,
    check_choice,
    check_memory,
    check_number,
    known_options,
)
from dlnds.runs.flow import finished
from dlnds.runs.formats import nested, numbers
from dlnds.runs.layouts import ORIENTATIONS, REMEDY, layout, named
from dlnds.runs.recording import BUFFER, Names, Run, joined, observe_rows, observed, one, recorded
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.product import check_packed, has_maps
from dlnds.systems.protocol import SystemProtocol, check_state, check_system
from dlnds.systems.stored import run_coordinates
from dlnds.theory import tolerances

INPUTS = ("whitened", "original")
#: Losses of the same weights agree to this part of the largest, in single precision too.
_AGREE = 1e-5


@known_options
def as_run(
    system: SystemProtocol,
    times: ArrayLike,
    layers: Iterable[Any],
    *,
    save: Names = ("state",),
    inputs: str | None = None,
    loss: ArrayLike | None = None,
    orientation: str | None = None,
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
        For each time the weights W_1, …, W_h (each d_i × d_{i−1}): arrays, or tensors that can be
        detached, in a sequence; or a nested dict of them, as of `read_checkpoints`. Stacks W_i
        (time, d_i, d_{i−1}) are given as ``zip(W_1, …, W_h)``. Layers that fit
        the network only transposed, or only in reverse order, are taken so. They are read one time
        after the other, so that a lazy sequence, or a generator, takes no more memory than what
        ``save`` keeps.
    save
        What to record, as for `flow`.
    inputs
        The inputs that W_1 reads, for a network whose data were whitened: ``"whitened"`` ones, the
        coordinates of the network; or ``"original"`` ones, from which W_1 is taken into the
        network as W_1 K with K = ``whitening``. ``None`` goes by the shape of W_1, and means
        whitened inputs if both have as many features, unless ``loss`` tells.
    loss
        The loss at each time, as it was recorded in training. It is compared with that of the
        network, and decides how the layers lie where shapes leave that open. It may be ``loss``
        here or have ``irreducible_loss`` in it, and be ½, 1, or 1 / outputs (as torch's
        ``MSELoss``) times the squares of the residuals. Of a network with weight decay it may be
        either that with the penalty or ``data_loss``, which optimizers that decay weights report.
    orientation
        ``"out_in"`` if rows of a matrix are its outputs, or ``"in_out"``, where shapes leave that
        open; layers are then in their order, too, unless they fit only in reverse.

    Returns
    -------
    xarray.Dataset
        Schema ``run`` with ``method`` ``"imported"``. The attribute ``arrangement`` says how the
        layers were taken: ``as given``, ``transposed``, … . Where shapes fit in several ways, and
        neither ``loss`` nor ``orientation`` tells, they are taken as W_i of d_i × d_{i−1}, and it
        says ``as given, not checked``; with ``loss`` it says ``checked by the loss``, and
        ``recorded_loss`` of what these are the values. Of a whitened problem whose target is
        symmetric no loss tells a run from its mirror image, the transposed layers in reverse
        order: this is said, too.

    Raises
    ------
    ValueError, TypeError
        If times and weights are not as many, or have wrong shapes; if no way to take the layers
        has the given ``loss``, or more than one that are not the same.

    Notes
    -----
    Training on original inputs is no gradient flow of the whitened network: states and losses are
    right, but ``loss_rate`` is that of the flow at each state, not along the run.

    Losses agree if they differ by less than 1e-5 of the largest one, what single precision gives.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> snapshots = [[np.full((3, 2), 0.1), np.full((2, 3), w)] for w in (0.1, 0.2)]
    >>> dl.as_run(net, [0.0, 1.0], snapshots).loss.round(4).values.tolist()
    [2.4118, 2.3272]
    """
    check_system(system)
    check_packed(system)
    grid = check_ascending("times", times)
    names = recorded(system, save)
    losses = None if loss is None else check_array("loss", loss, ndim=1, shape=grid.shape)
    if "state" in names:
        check_memory("times", grid.size * system.dim)
    rows = _Rows(system, names, inputs, orientation)
    if losses is not None:
        rows.scale = float(np.abs(losses).max())
    given = itertools.repeat(None) if losses is None else losses.tolist()
    for (time, snapshot), value in zip(_paired(grid, layers), given, strict=False):
        rows.add(time, snapshot, value)
    return rows.dataset()


def _paired(grid: Array, layers: Any) -> Iterator[tuple[float, Any]]:
    """Give each time and its weights, of which there are as many."""
    wrong = ValueError(
        f"layers: needs the weights at each of {len(grid)} times; stacks W_i (time, row, column) "
        "are given as zip(W_1, …, W_h)"
    )
    if isinstance(layers, str | bytes | Mapping) or not np.iterable(layers):
        raise TypeError(f"layers: needs a sequence of weights, got {type(layers).__name__}")
    if isinstance(layers, Sized) and len(layers) != len(grid):
        raise wrong
    following = iter(layers)
    nothing = object()
    for time in grid.tolist():
        snapshot = next(following, nothing)
        if snapshot is nothing:
            raise wrong
        yield time, snapshot
    if next(following, nothing) is not nothing:
        raise wrong


class Recorder:
    """Records the weights of a network that is being trained elsewhere.

    Parameters
    ----------
    net
        The network: its data, depth and widths.
    save
        What to record, as for `flow`. Without ``"state"`` weights are not kept, only what is
        observed of them.
    inputs, orientation
        As for `as_run`.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside what is described above.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> W1, W2 = net.unpack(net.initial(scale=0.3, rng=0))
    >>> record = dl.Recorder(net, save=("singular_value",))
    >>> for step in range(101):
    ...     if step % 20 == 0:
    ...         record.record(0.1 * step, [W1, W2])
    ...     R = net.target - W2 @ W1
    ...     W1, W2 = W1 + 0.1 * W2.T @ R, W2 + 0.1 * R @ W1.T
    >>> record.run().singular_value[:, 0].round(2).values.tolist()[-1]
    2.0
    """

    @known_options
    def __init__(
        self,
        net: SystemProtocol,
        *,
        save: Names = ("state",),
        inputs: str | None = None,
        orientation: str | None = None,
    ) -> None:
        check_system(net, "net")
        check_packed(net, "net")
        self._net: Any = net
        self._names = recorded(net, save)
        self._rows = _Rows(net, self._names, inputs, orientation)
        self._last = -math.inf

    @known_options
    def record(self, time: float, layers: Any, *, loss: float | None = None) -> None:
        """Take the weights at a time, which may be changed afterwards; a call does the same.

        Parameters
        ----------
        time
            Later than any before; for gradient descent the step size times the number of steps.
        layers
            The weights as for `as_run`, for example ``model.parameters()``, or the dict of a
            ``model.state_dict()``.
        loss
            The loss at this time, as for `as_run`; given at all times or at none. What it tells of
            the layers is decided for many times together, at the latest by `run`.

        Raises
        ------
        ValueError, TypeError
            If the time is not later, or weights have wrong shapes or are not finite, or have
            other losses.
        """
        at = check_number("time", time)
        if at <= self._last:
            raise ValueError(f"time: needs more than the {self._last:g} before, got {at:g}")
        value = None if loss is None else check_number("loss", numbers(loss))
        self._rows.add(at, layers, value)
        self._last = at

    __call__ = record

    def run(self, *, save: Names | None = None) -> xr.Dataset:
        """Return what was recorded so far, as `as_run` does.

        Parameters
        ----------
        save
            What to take into the run. ``None`` is what the recorder was made with; other names
            need the states to be recorded.

        Raises
        ------
        ValueError, TypeError
            If nothing was recorded, or not what ``save`` asks for.
        """
        names = None if save is None else recorded(self._net, save)
        if self._last == -math.inf:
            raise ValueError("save: there is nothing yet, record() has not been called")
        dataset = self._rows.dataset()
        if names is None:
            return dataset
        if "state" not in self._names:
            raise ValueError(f"save: weights are not kept, only {', '.join(self._names)}")
        snapshots = (self._net.unpack(state) for state in dataset["state"].values)
        run = as_run(self._net, dataset["time"].values, snapshots, save=names)
        return run.assign_attrs(dataset.attrs)


class _Way(NamedTuple):
    """A way to take matrices for the layers of a network."""

    transposed: bool
    backwards: bool
    original: bool

    def words(self) -> str:
        """Return what a user calls it."""
        parts = ["transposed"] * self.transposed + ["in reverse order"] * self.backwards
        inputs = " from original inputs" * self.original
        return (" and ".join(parts) or "as given") + inputs

    def fits(
        self, shapes: Sequence[tuple[int, ...]], wanted: Mapping[bool, list[tuple[int, ...]]]
    ) -> bool:
        """Tell whether matrices of these shapes are layers of such, for either kind of inputs."""
        ordered = shapes[::-1] if self.backwards else shapes
        return [s[::-1] if self.transposed else s for s in ordered] == wanted[self.original]

    def layers(self, matrices: Sequence[Array], root: Array | None) -> list[Array]:
        """Return the layers of the network, with W_1 taken to whitened inputs by their root."""
        ordered = matrices[::-1] if self.backwards else matrices
        first, *others = [w.T if self.transposed else w for w in ordered]
        return [first @ root if self.original and root is not None else first, *others]


class _Reading:
    """What one way to take the layers gives, and how far its losses are off, in several units."""

    def __init__(self, way: _Way) -> None:
        self.way = way
        self.states: list[Array] = []
        self.chunks: list[Mapping[str, xr.Variable]] = []
        self.misfits: dict[str, float] = {}
        self.scale = 1.0
        self.digest = hashlib.sha256()
        self.first = self.last = np.zeros(0)

    @property
    def misfit(self) -> float:
        """How far the losses are off in the unit that suits them best, in terms of the largest."""
        return min(self.misfits.values(), default=0.0) / self.scale

    @property
    def unit(self) -> str:
        """What the given losses are, in the first unit that suits."""
        allowed = _AGREE * self.scale
        return next(words for words, misfit in self.misfits.items() if misfit <= allowed)

    def block(self, several: bool) -> Array:
        """Return the states that were not observed yet; with several ways, to compare these."""
        states, self.states = np.stack(self.states), []
        if several:
            self.digest.update(states.tobytes())
        self.first, self.last = self.first if self.first.size else states[0], states[-1]
        return states


class _Snapshot(NamedTuple):
    """The matrices of one time, how they lie if that is said, and whether they were turned."""

    matrices: list[Array]
    lie: str | None
    turned: bool


class _Rows:
    """Rows of weights, observed as soon as there are as many as are observed together."""

    def __init__(
        self,
        system: SystemProtocol,
        names: tuple[str, ...],
        inputs: str | None,
        orientation: str | None,
    ) -> None:
        anywhere = np.random.default_rng(0).normal(size=(1, system.dim))
        observe_rows(system, names, anywhere)  # refuses unknown ones before files are read
        self._system: Any = system
        self._names = names
        problem = system if isinstance(system, LinearNetwork) else None
        self._root = None if problem is None else problem.whitening
        self._inputs = _check_inputs(inputs, problem)
        if orientation is not None:
            check_choice("orientation", orientation, ORIENTATIONS)
        self._orientation = orientation
        #: The largest loss, of all times if they are known before, else of those so far.
        self.scale = 0.0
        self._losses: list[float] = []
        self._compared = self._mirrored = False
        #: Losses of the system that given ones may be.
        self._own = ("loss", *(["data_loss"] if "weight_decay" in system.attributes() else []))
        self._units = _units(system.square_factors if has_maps(system) else problem, self._own)
        self._symmetric = _is_its_mirror_image(problem)
        self._times: list[float] = []
        self._count = 0
        self._turned = False
        self._checked = ""
        self._shapes: list[tuple[int, ...]] = []
        self._readings: list[_Reading] = []
        self._tried: list[str] = []

    def add(self, time: float, snapshot: Any, loss: float | None) -> None:
        """Take the weights of one time, and their loss, at all times or at none."""
        found = _matrices(snapshot, time, self._orientation, loss is not None)
        shapes = [w.shape for w in found.matrices]
        readings = self._readings
        if not self._shapes:
            readings = [_Reading(way) for way in self._ways(shapes, found, loss is not None)]
        elif shapes != self._shapes:
            raise ValueError(
                f"layers: at time {time:g}: have the shapes {_listed(shapes)}, "
                f"after {_listed(self._shapes)}"
            )
        elif (loss is not None) != self._compared:
            raise ValueError("loss: is needed at all times or at none")
        states = [
            self._state(reading.way.layers(found.matrices, self._root)) for reading in readings
        ]
        if not self._shapes:
            self._shapes, self._readings, self._compared = shapes, readings, loss is not None
        for reading, state in zip(readings, states, strict=True):
            reading.states.append(state)
        self._times.append(time)
        if loss is not None:
            self._losses.append(loss)
            self.scale = max(self.scale, abs(loss))
        if len(self._times) * self._system.dim >= BUFFER:
            self._observe()

    def _state(self, layers: Sequence[Array]) -> Array:
        """Return the flat state of layers."""
        try:
            state = self._system.pack(layers)
        except ValueError as error:  # by the name that ``pack`` has for its argument
            raise ValueError(f"layers: {str(error).partition(': ')[2]}") from error
        return check_state("layers", self._system, state)

    def _ways(
        self, shapes: Sequence[tuple[int, ...]], found: _Snapshot, compared: bool
    ) -> list[_Way]:
        """Return the ways to take matrices of these shapes, one if no losses tell more."""
        own = [part.shape for part in self._system.unpack(np.zeros(self._system.dim))]
        wanted = {False: own}
        if self._root is not None:
            wanted[True] = [(own[0][0], len(self._root)), *own[1:]]
            if self._inputs is not None:
                del wanted[self._inputs == "whitened"]
        options = itertools.product((False, True), (False, True)[: len(own)], wanted)
        ways = [way for way in itertools.starmap(_Way, options) if way.fits(shapes, wanted)]
        ways = _as_said(ways, found.lie, {*shapes})
        if not ways:
            needed = " or ".join(_listed(form) for form in wanted.values())
            said = f", {self._orientation}" if self._orientation else ""
            raise ValueError(
                f"layers: needs W_1, …, W_{len(own)} of the shapes {needed}, "
                f"got {_listed(shapes)}{said}"
            )
        self._turned = found.turned
        if not compared:
            self._checked = ", not checked" if len(ways) > 1 else ""
            return [_documented(ways)]
        self._checked = ", checked by the loss"
        self._mirrored = self._symmetric and found.lie is None
        return [way for way in ways if not (self._mirrored and way.backwards and not way.original)]

    def _words(self, way: _Way) -> str:
        """Return how the layers lie that the caller has."""
        return way._replace(transposed=way.transposed != self._turned).words()

    def _observe(self) -> None:
        """Observe the rows so far, in each way whose losses are the given ones."""
        times, self._times = np.array(self._times), []
        blocks = [reading.block(several=len(self._readings) > 1) for reading in self._readings]
        pairs = list(zip(self._readings, blocks, strict=True))
        if self._compared:
            for reading, states in pairs:
                self._compare(reading, times, states)
            pairs = [(reading, states) for reading, states in pairs if reading.misfit <= _AGREE]
            refused = (reading for reading in self._readings if not reading.misfit <= _AGREE)
            self._tried += [f"{self._words(r.way)}: off by {r.misfit:.2g}" for r in refused]
        self._count += len(times)
        self._readings = [reading for reading, _ in pairs]
        if not pairs:
            raise ValueError(
                "loss: is not that of the weights, in any way to take them; in terms of the "
                f"largest they are, {'; '.join(self._tried)}"
            )
        for reading, states in pairs:
            found = observed(self._system, self._names, times, states, reading.first)
            reading.chunks.append(found)

    def _compare(self, reading: _Reading, times: Array, states: Array) -> None:
        """Note how far the given losses are from those of the network at some states."""
        own = observed(self._system, self._own, times, states)
        given = np.array(self._losses[self._count : self._count + len(times)])
        reading.scale = self.scale or 1.0
        for words, (name, factor, shift) in self._units.items():
            off = np.abs(factor * (own[name].values + shift) - given).max()
            reading.misfits[words] = float(np.maximum(reading.misfits.get(words, 0.0), off))

    def dataset(self) -> xr.Dataset:
        """Return the run of all rows so far."""
        if self._times or not self._readings:  # none if their losses are refused
            self._observe()
        backwards = self._readings[::-1]  # of the same states, the first way names them
        readings = [*{reading.digest.digest(): reading for reading in backwards}.values()][::-1]
        if len(readings) > 1:
            ways = ", ".join(self._words(reading.way) for reading in readings)
            raise ValueError(
                f"loss: does not tell how the layers lie, which may be {ways}; leave it out to "
                "take them as they are given"
            )
        reading = readings[0]
        run = Run(
            variables=joined(reading.chunks),
            counts={"n_steps": self._count - 1, "n_rhs": 0, "n_jac": 0},
            stop_reason="end_reached",
            limit=self._system.limit(reading.last).label,
        )
        mirrored = ", or the mirror image" if self._mirrored and not reading.way.original else ""
        words = self._words(reading.way) + mirrored + self._checked
        attrs = {"method": "imported", "made_by": "as_run", "arrangement": words}
        if self._compared:
            attrs["recorded_loss"] = reading.unit
        dataset = one(run, run_coordinates(self._system, self._names))
        return finished(self._system, dataset, attrs)


def _matrices(snapshot: Any, time: float, orientation: str | None, compared: bool) -> _Snapshot:
    """Return the matrices of one time; where nothing else tells, losses may."""
    with named("layers", f"at time {time:g}"):
        if isinstance(snapshot, Mapping):
            entries = nested(snapshot)
            form = layout(entries, None, orientation, otherwise="out_in" if compared else None)
            said = orientation or (None if compared else form.told)
            return _Snapshot([*form.read(entries)], said and "out_in", form.turned)
        if isinstance(snapshot, np.ndarray | str | bytes) or not np.iterable(snapshot):
            raise TypeError(
                f"needs a sequence of matrices, got {type(snapshot).__name__}; stacks W_i "
                "(time, row, column) are given as zip(W_1, …, W_h)"
            )
        pairs = enumerate(snapshot, 1)
        arrays = [check_array(f"array {i}", numbers(part), ndim=(1, 2)) for i, part in pairs]
        if any(array.ndim == 1 and array.any() for array in arrays):
            raise ValueError(f"has vectors that are not zero; {REMEDY}")
        return _Snapshot([array for array in arrays if array.ndim == 2], orientation, False)


def _as_said(
    ways: Sequence[_Way], lie: str | None, shapes: Container[tuple[int, ...]]
) -> list[_Way]:
    """Return the ways in which layers lie as is said, in their order if they can be."""
    if shapes == {(1, 1)}:  # numbers do not lie
        return [way for way in ways if not way.transposed]
    if lie is None:
        return [*ways]
    kept = [way for way in ways if way.transposed == (lie == "in_out")]
    return [way for way in kept if not way.backwards] or kept


def _check_inputs(inputs: Any, problem: LinearNetwork | None) -> str | None:
    """Return which inputs W_1 reads, if that is said."""
    if inputs is None:
        return None
    chosen = check_choice("inputs", inputs, INPUTS)
    if chosen == "whitened" and (problem is None or not problem.whitened):
        raise ValueError("inputs: the network has its inputs as they are, not whitened ones")
    if chosen == "original" and problem and problem.whitened and problem.whitening is None:
        raise ValueError("inputs: the network was not made of data, so has no original inputs")
    return chosen


def _is_its_mirror_image(problem: LinearNetwork | None) -> bool:
    """Tell whether the transposed layers in reverse order always have the same loss."""
    if problem is None or not problem.whitened or problem.widths != problem.widths[::-1]:
        return False
    size = float(np.linalg.norm(problem.target))
    return float(np.linalg.norm(problem.target - problem.target.T)) <= tolerances.EXACT * size


def _units(
    problem: LinearNetwork | None, names: Sequence[str]
) -> dict[str, tuple[str, float, float]]:
    """Return what losses recorded elsewhere may be: of which name, factors, and what is added."""
    if problem is None:
        return {name: (name, 1.0, 0.0) for name in names}
    found: dict[tuple[str, float, float], str] = {}
    rest = problem.irreducible_loss
    for name, factor in itertools.product(names, (1.0, 2.0, 2.0 / problem.widths[-1])):
        for shift, what in ((0.0, name), (rest, f"({name} + irreducible_loss)")):
            words = what.strip("()") if factor == 1.0 else f"{factor:.6g} {what}"
            found.setdefault((name, factor, shift), words)
    return {words: unit for unit, words in found.items()}


def _documented(ways: Sequence[_Way]) -> _Way:
    """Return the way that is meant where no losses tell."""
    whitened = {way[:2] for way in ways if not way.original}
    meant = [way for way in ways if not (way.original and way[:2] in whitened)]
    given = [way for way in meant if not (way.transposed or way.backwards)]
    if len(meant) > 1 and not given:
        words = ", ".join(way.words() for way in meant)
        raise ValueError(f"layers: fit the network only {words}; give loss= to tell which")
    return (given or meant)[0]


def _listed(shapes: Iterable[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))
