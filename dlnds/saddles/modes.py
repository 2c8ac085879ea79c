"""The network of the modes that a run from a critical point can see, which it never leaves."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlnds.arrays import Array, Integers
from dlnds.systems.linear import NAMELESS, LinearNetwork
from dlnds.theory import places, tolerances
from dlnds.theory.coordinates import Turning, block_places


class Modes(NamedTuple):
    """A critical point in coordinates of the modes, with the network and its parts there.

    ``exact``: the point is canonical there, on hidden units 1..r. ``lift`` is the way back.
    """

    net: LinearNetwork
    parts: places.Parts
    state: Array
    exact: bool
    lift: Turning

    def directions(self, vectors: Array) -> Array:
        """Return vectors (…, parameter) at the point in these coordinates, without rounding.

        They are known to `tolerances.CRITICAL`: they see no part of the problem by less than that.
        """
        turned = Turning(self.net.widths, [b.T for b in self.lift.bases])(vectors)
        turned = np.where(np.abs(turned) > tolerances.NO_PART, turned, 0.0)
        return self.parts.without(self.net.widths, turned, tolerances.CRITICAL)

    def seen(self, start: Array) -> tuple[LinearNetwork, Integers]:
        """Return the network of the parts that a run can see, and the places of its weights.

        In the whole network rounding would lead runs into the others.
        """
        net, parts = self.net, self.parts
        used = np.flatnonzero(parts.used(net.widths, start))
        inputs, columns, outputs = (np.flatnonzero(np.isin(labels, used)) for labels in parts)
        if not (inputs.size and columns.size and outputs.size):
            inputs, columns, outputs = (np.arange(labels.size) for labels in parts)
        kept = [inputs, *(np.arange(d) for d in net.widths[1:-1]), outputs]
        root = net.input_root
        small = dataclasses.replace(
            net,
            widths=tuple(len(units) for units in kept),
            target=net.target[np.ix_(outputs, columns)],
            input_root=None if root is None else root[np.ix_(inputs, columns)],
        )
        return small, block_places(net.widths, kept)


def modes_at(net: LinearNetwork, layers: Sequence[Array]) -> Modes:
    """Return where a critical point is simplest."""
    place = places.canonical_place(net.problem, layers)
    exact = place is not None
    place = place or places.mode_place(net.problem, layers)
    problem = place.problem
    whole = dataclasses.replace(net, target=problem.target, input_root=problem.root, **NAMELESS)
    lift = Turning(net.widths, place.bases)
    return Modes(whole, places.parts_of(problem), place.state, exact, lift)
