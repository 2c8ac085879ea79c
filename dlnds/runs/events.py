"""Events of runs: where they happen, and those of linear networks for ``flow(..., events=)``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    known_options,
)
from dlnds.systems.linear import LinearNetwork, check_network

_DIRECTIONS = {"falling": -1, "rising": 1, "either": 0}


class Watch:
    """Events that are watched over along a run, with their values where it is."""

    def __init__(
        self, events: Sequence[Callable[[float, Array], float]], t: float, x: Array
    ) -> None:
        self.events = events
        self._values = [float(event(t, x)) for event in events]

    def ends(self, number: int) -> bool:
        """Tell whether an event ends the run."""
        return bool(getattr(self.events[number], "terminal", False))

    def happened(
        self, t: float, x: Array, inside: Callable[[float], tuple[float, Array]]
    ) -> list[tuple[float, int]]:
        """Return after which parts of a step events happened, in order, and which these are.

        The step leads to ``x`` at ``t``; ``inside`` gives time and state at a part of it.
        """
        found = []
        for number, event in enumerate(self.events):
            before, now = self._values[number], float(event(t, x))
            self._values[number] = now
            direction = getattr(event, "direction", 0)
            up, down = before <= 0.0 < now, before >= 0.0 > now
            if (up and direction >= 0) or (down and direction <= 0):
                found.append((_zero(event, before, inside), number))
        return sorted(found)


def _zero(
    event: Callable[[float, Array], float],
    before: float,
    inside: Callable[[float], tuple[float, Array]],
) -> float:
    """Return the part of a step after which an event happens, on the dense output."""

    def value(part: float) -> float:
        return before if part == 0.0 else float(event(*inside(part)))

    if before == 0.0:
        return 0.0
    if value(0.0) * value(1.0) > 0.0:  # by the rounding of the polynomial at its end
        return 1.0
    from scipy.optimize import brentq  # here, since most runs locate nothing

    return float(brentq(value, 0.0, 1.0, xtol=1e-15, rtol=1e-15))


@dataclass(frozen=True)
class Event:
    """A zero of a function of time and state, in the conventions of scipy.

    ``direction`` 1 counts zeros where the function rises, −1 where it falls, 0 both; a ``terminal``
    event ends the run.
    """

    function: Callable[[Array], float]
    name: str
    direction: int = 0
    terminal: bool = False

    def __call__(self, t: float, x: Array) -> float:
        """Return the value of the function."""
        return self.function(x)


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
    check_network(net)
    value = check_number("level", level)
    if value <= 0.0:
        raise ValueError(f"level: needs a positive loss, got {value:g}")
    return Event(
        lambda x: float(net.loss(x)) - value,
        f"loss_below_{value:g}",
        -1,
        check_flag("terminal", terminal),
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
    See `loss_below`.
    """
    check_network(net)
    sigma = net.singular_values
    j = check_integer("mode", mode, minimum=0, maximum=len(sigma) - 1)
    part = check_number("fraction", fraction, minimum=0.0, maximum=1.0)
    if not sigma[j] > 0.0:
        raise ValueError(f"mode: needs a mode with σ_j > 0, got {j}")
    level = part * sigma[j]

    def excess(x: Array) -> float:
        return float(net.problem.strength(net.image(x))[j] - level)

    return Event(excess, f"mode_{j}_learnt", 1, check_flag("terminal", terminal))


@known_options
def near_saddle(
    net: LinearNetwork,
    modes: Sequence[int],
    *,
    radius: float = 0.05,
    direction: str = "either",
    terminal: bool = False,
) -> Event:
    """Return the event that the end-to-end map enters or leaves the neighbourhood of a saddle.

    The neighbourhood is that of `saddle_visits`: ‖W K − P_S Σ‖_F ≤ radius ‖Σ‖_F.

    Parameters
    ----------
    net
        The network whose runs are watched.
    modes
        The index set S.
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
    check_network(net)
    image = net.image(net.critical_state(modes))
    bound = check_number("radius", radius, minimum=0.0, maximum=1.0) * np.linalg.norm(net.target)

    def excess(x: Array) -> float:
        return float(np.linalg.norm(net.image(x) - image) - bound)

    return Event(
        excess,
        f"near_{schema.index_set_label(modes)}",
        _DIRECTIONS[check_choice("direction", direction, _DIRECTIONS)],
        check_flag("terminal", terminal),
    )
