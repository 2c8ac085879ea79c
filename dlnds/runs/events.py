"""Events of runs: where they happen, and those of linear networks for ``flow(..., events=)``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dlnds.arrays import Array
from dlnds.errors import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    known_options,
)
from dlnds.runs.zeros import EPS, INNER, Step, Zero, Zeros
from dlnds.systems.linear import LinearNetwork, check_network

#: Times and states (time, parameter) at parts of a step.
Inside = Callable[[Array], tuple[Array, Array]]

#: How much longer than errors moves of the state are, so that the rounding of an event counts less.
_FELT = 16.0
#: Values beyond this, infinite ones too, are counted as this.
LARGEST = 1e300

_DIRECTIONS = {"falling": -1, "rising": 1, "either": 0}


class Happening(NamedTuple):
    """An event: after which part of a step, its number, and 1 rising, −1 falling, 0 touching."""

    part: float
    number: int
    direction: int


class Watch:
    """Events that are watched over along a run, with their values where it is.

    Components below the ``floor`` are as inexact as one that has this size.
    """

    def __init__(
        self,
        events: Sequence[Callable[[float, Array], float]],
        t: float,
        x: Array,
        floor: float = 0.0,
    ) -> None:
        self.events, self.floor = events, floor
        self._zeros = [Zeros(_value(event, t, x)) for event in events]

    def ends(self, number: int) -> bool:
        """Tell whether an event ends the run."""
        return bool(getattr(self.events[number], "terminal", False))

    @property
    def unresolved(self) -> int:
        """The number of steps in which an event varied too fast to be followed."""
        return sum(zeros.unresolved for zeros in self._zeros)

    def happened(self, t: float, x: Array, inside: Inside, rtol: float = 0.0) -> list[Happening]:
        """Return what happened in a step, in order.

        The step leads to ``x`` at ``t``; ``inside`` gives times and states at parts of it, which
        are as accurate as ``rtol`` says.
        """
        found = []
        times, states = inside(INNER)
        length, sizes = float(np.ptp(times)), np.maximum(np.abs(states).max(axis=0), self.floor)
        grain = EPS * max(1.0, abs(t) / length) if length > 0.0 else 1.0
        for number, (event, zeros) in enumerate(zip(self.events, self._zeros, strict=True)):
            now = _value(event, t, x)
            step = Step(
                value=functools.partial(_values_inside, event, inside),
                blur=functools.partial(_blur, event, inside, sizes),
                grain=grain,
                rtol=rtol,
            )
            for zero in zeros.along(step, _values(event, times, states), now):
                found += self._wanted(number, zero)
        return sorted(found)

    def at_end(self) -> list[Happening]:
        """Return the events that happen just where the run ends."""
        return [
            happening
            for number, zeros in enumerate(self._zeros)
            for zero in zeros.end()
            for happening in self._wanted(number, zero)
        ]

    def _wanted(self, number: int, zero: Zero) -> list[Happening]:
        """Return a zero as what happened, if the direction of its event is that."""
        wanted = getattr(self.events[number], "direction", 0)
        fits = wanted == 0 or wanted * zero.direction > 0
        return [Happening(zero.part, number, zero.direction)] if fits else []


def _value(event: Any, t: float, x: Array) -> float:
    """Return the value of an event at a state."""
    return min(max(float(event(t, x)), -LARGEST), LARGEST)


def _values(event: Any, times: Array, states: Array) -> Array:
    """Return the values of an event at states (time, parameter)."""
    if getattr(event, "stacks", False):
        values = np.asarray(event.function(states), float)
    else:
        values = np.array([float(event(float(t), x)) for t, x in zip(times, states, strict=True)])
    finite: Array = np.clip(values, -LARGEST, LARGEST)
    return finite


def _values_inside(event: Any, inside: Inside, parts: Array) -> Array:
    """Return the values of an event at parts of a step."""
    return _values(event, *inside(parts))


def _blur(event: Any, inside: Inside, sizes: Array, part: float, error: float) -> float:
    """Return how much of an event's value an error of states may change at a part.

    By two moves of the state, as large as the ``sizes`` of its components, there and back.
    """
    times, states = inside(np.array([part]))
    phases = 1.0 + np.arange(sizes.size)
    moves = _FELT * error * sizes * np.stack([np.sin(phases), np.cos(phases)])
    values = _values(event, np.repeat(times, 4), states + np.concatenate([moves, -moves]))
    return float(np.abs(values[:2] - values[2:]).max()) * 0.5 / _FELT


@dataclass(frozen=True)
class Event:
    """A zero of a function of the state, in the conventions of scipy.

    ``direction`` 1 counts zeros where the function rises, −1 where it falls, 0 both; a ``terminal``
    event ends the run. ``stacks`` is whether the function takes stacks (…, parameter) of states.
    """

    function: Callable[[Array], Any]
    name: str
    direction: int = 0
    terminal: bool = False
    stacks: bool = False

    def __call__(self, t: float, x: Array) -> float:
        """Return the value of the function."""
        return float(self.function(x))


@known_options
def loss_below(net: LinearNetwork, level: float, *, terminal: bool = False) -> Event:
    """Return the event that the loss falls through a level.

    Parameters
    ----------
    net
        The network whose runs are watched.
    level
        Positive loss, above `irreducible_loss`.
    terminal
        End the run there.

    Raises
    ------
    ValueError, TypeError
        If the level is not positive.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 1), target=[[1.0]])
    >>> run = dl.flow(net, [0.0], events=dl.events.loss_below(net, 0.125, terminal=True))
    >>> float(run.time[-1].round(6)), run.dlnds.decode("stop_reason").item()
    (0.693147, 'event')
    """
    check_network(net, with_decay=True)
    value = check_number("level", level)
    if value <= 0.0:
        raise ValueError(f"level: needs a positive loss, got {value:g}")
    return Event(
        lambda x: net.loss(x) - value,
        f"loss_below_{value:g}",
        -1,
        check_flag("terminal", terminal),
        stacks=True,
    )


@known_options
def mode_learnt(
    net: LinearNetwork, mode: int, *, fraction: float = 0.5, terminal: bool = False
) -> Event:
    """Return the event that the strength u_jᵀ W K v_j of a mode rises through a part of σ_j.

    Parameters
    ----------
    net
        The network whose runs are watched.
    mode
        j, from 0.
    fraction
        The part of σ_j, between 0 and 1.
    terminal
        End the run there.

    Raises
    ------
    ValueError, TypeError
        If the mode does not exist or has σ_j = 0, or the fraction is not between 0 and 1.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0], [0, 1.0]])
    >>> learnt = [dl.events.mode_learnt(net, j) for j in (0, 1)]
    >>> run = dl.flow(net, net.initial("aligned", scale=0.01), events=learnt)
    >>> [run.time[run.event == j].values.round(2).tolist() for j in (0, 1)]
    [[2.48], [4.61]]
    """
    check_network(net, with_decay=True)
    sigma = net.singular_values
    j = check_integer("mode", mode, minimum=0, maximum=len(sigma) - 1)
    part = check_number("fraction", fraction, minimum=0.0, maximum=1.0)
    if not sigma[j] > 0.0:
        raise ValueError(f"mode: needs a mode with σ_j > 0, got {j}")
    level = part * sigma[j]

    def excess(x: Array) -> Any:
        return net.problem.strength(net.image(x))[..., j] - level

    return Event(excess, f"mode_{j}_learnt", 1, check_flag("terminal", terminal), stacks=True)


@known_options
def near_saddle(
    net: LinearNetwork,
    modes: Sequence[int],
    *,
    branch: str | Sequence[str] = "upper",
    radius: float = 0.05,
    direction: str = "either",
    terminal: bool = False,
) -> Event:
    """Return the event that the end-to-end map enters or leaves the neighbourhood of a saddle.

    The neighbourhood is ‖W K − P_S Σ‖_F ≤ radius ‖Σ‖_F, that of this saddle alone. Under weight
    decay its map stands in place of P_S Σ. `saddle_visits` takes the nearest saddle instead: where
    neighbourhoods overlap, as those of two roots may, a visit ends before this one is left.

    Parameters
    ----------
    net
        The network whose runs are watched.
    modes
        The index set S.
    branch
        On which roots these are under weight decay, as for `LinearNetwork.critical_state`.
    radius
        Size of the neighbourhood, relative to ‖Σ‖_F.
    direction
        ``"falling"`` for entries only, ``"rising"`` for exits only, ``"either"``.
    terminal
        End the run there.

    Raises
    ------
    ValueError, TypeError
        If there is no such critical point, or the radius is not between 0 and 1.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> saddle = dl.events.near_saddle(net, (0,))
    >>> run = dl.flow(net, net.initial("aligned", scale=1e-3), events=saddle)
    >>> run.time[run.event == 0].values.round(2).tolist()
    [2.97, 6.07]
    """
    check_network(net, with_decay=True)
    image = net.image(net.critical_state(modes, branch=branch))
    words = [branch] * len(modes) if isinstance(branch, str) else branch
    signs = [1 if word == "upper" else -1 for word in words]
    order = np.argsort(modes).tolist()
    label = net.point_name([modes[k] for k in order], [signs[k] for k in order])
    bound = check_number("radius", radius, minimum=0.0, maximum=1.0) * np.linalg.norm(net.target)

    def excess(x: Array) -> Any:
        return np.linalg.norm(net.image(x) - image, axis=(-2, -1)) - bound

    return Event(
        excess,
        f"near_{label}",
        _DIRECTIONS[check_choice("direction", direction, _DIRECTIONS)],
        check_flag("terminal", terminal),
        stacks=True,
    )
