"""How many independent quantities a flow conserves, whatever its data, counted by Lie brackets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_generator, known_options
from dlnds.systems.network import WeightSystem, check_weights
from dlnds.systems.protocol import check_state
from dlnds.theory import lie, symmetry
from dlnds.theory.coordinates import layers_of

#: Primes below 2^31: products of two numbers fit into 64 bits.
_PRIMES = (2**31 - 1, 2**31 - 19)
#: Most weights of a network whose brackets are counted.
MOST_WEIGHTS = 300


@known_options
def conservation_laws(
    system: WeightSystem, x: ArrayLike | None = None, *, rng: Any = 0
) -> xr.Dataset:
    """Return how many independent quantities the flow of a network conserves, whatever its data.

    Parameters
    ----------
    system
        A network; its data, targets and loss do not count.
    x
        State (parameter) near which the laws are counted: it says which units of a rectifier are
        active on what inputs, and those that never are keep all their weights. ``None`` takes a
        random one whose units are all active on half of the inputs or more; laws of linear networks
        are the same near almost all states.
    rng
        Seed or `numpy.random.Generator` (SPEC 7) of the points at which ranks are taken, and of the
        inputs of a network that is not linear.

    Returns
    -------
    xarray.Dataset
        Schema ``conservation_laws``: ``count``, of independent local laws; ``known``, how many of
        these the package knows, which are the entries of the C_i, or a balance for each hidden unit
        (`conserved`); ``dimension(bracket)`` of what brackets of so many fields span, the last one
        that of the Lie algebra. ``is_clear`` is 0 where two primes give different ranks.

    Raises
    ------
    ValueError, TypeError
        If the system is no network, or has more than 300 weights.

    Notes
    -----
    Whatever the data and the loss, the field is a combination of the gradients of outputs φ_j: the
    entries of W, or the outputs on generic inputs. A quantity is conserved by all of them if its
    gradient is orthogonal to their Lie algebra, so that near generic states there are
    n − dim Lie(∇φ_1, ∇φ_2, …)(x). Ranks are taken of integers modulo a prime, at a random point:
    exact but for an accident of probability 1e-7 or so.

    The C_i give Σ_{0<i<h} [d_i (d_i + 1)/2 − e_i (e_i + 1)/2] with e_i = max(0, d_i − d_{i−1} −
    d_{i+1}), a theorem of MGP23 for two layers and counted for more. In all cases tried these are
    all laws unless a part of the network lies between two levels of width 1, as all of it does with
    one input and one output: then there is one field, and n − 1 laws of the n weights of that part.
    Networks with a rectifier have more than one for each hidden unit where outputs on all inputs
    are combinations of a few. Weight decay adds the field Λ x; with equal decay of all layers the
    number falls by one, and ratios of entries of the C_i are conserved; ``known`` counts what is
    conserved without it.

    References
    ----------
    MGP23 (Marcotte, Gribonval & Peyré, arXiv:2307.00144)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.eye(3))
    >>> laws = dl.conservation_laws(net)
    >>> int(laws["count"]), int(laws.known), laws.dimension.values.tolist()
    (20, 20, [9, 19, 20])
    >>> chain = dl.LinearNetwork(widths=(1, 2, 2, 1), target=[[1.0]])
    >>> laws = dl.conservation_laws(chain)
    >>> int(laws["count"]), int(laws.known)
    (7, 6)
    """
    check_weights(system, with_decay=True)
    if system.dim > MOST_WEIGHTS:
        raise ValueError(f"system: needs at most {MOST_WEIGHTS} weights, got {system.dim}")
    generator = check_generator("rng", rng)
    state = generator.normal(size=system.dim) if x is None else check_state("x", system, x)
    inputs = _generic_inputs(system, generator)
    active = _active(system, state, inputs, x is None)
    found, known = [], []
    for prime in _PRIMES:
        fields = _fields(system, inputs, active, prime)
        point = generator.integers(1, prime, system.dim)
        known.append(_known(system, point, prime))
        most = system.dim - (0 if system.is_decayed else known[-1])
        found.append(lie.dimensions(fields, point, most))
    best = max(found, key=lambda dims: dims[-1])
    variables = {
        "count": np.int64(system.dim - best[-1]),
        "known": np.int64(max(known)),
        "dimension": ("bracket", np.array(best, np.int64)),
        "is_clear": np.int8(found[0] == found[1] and known[0] == known[1]),
    }
    coords = {"bracket": np.arange(1, len(best) + 1)}
    return schema.finish(xr.Dataset(variables, coords), "conservation_laws", system.attributes())


def _generic_inputs(system: WeightSystem, rng: np.random.Generator) -> Array:
    """Return inputs (input × sample) whose outputs are all that there are: units, if linear."""
    if system.activation[0] == 1:
        return np.eye(system.widths[0])
    return rng.normal(size=(system.widths[0], 4 * system.dim))


def _active(system: WeightSystem, state: Array, inputs: Array, turned: bool) -> list[Flags]:
    """Return which units of hidden layers are active on which inputs (unit, sample).

    ``turned`` reverses what goes into units that are active on less than half of the inputs.
    """
    power, slope = system.activation
    values, found = inputs, []
    for w in layers_of(system.widths, state)[:-1]:
        z = w @ values
        if turned:
            z[np.count_nonzero(z > 0.0, axis=1) < 0.5 * z.shape[1]] *= -1.0
        found.append(z > 0.0)
        values = np.where(z > 0.0, z, slope * z) ** power
        values /= np.abs(values).max() or 1.0  # which changes no sign
    return found


def _fields(system: WeightSystem, inputs: Array, active: Sequence[Flags], prime: int) -> lie.Fields:
    """Return the gradients of all outputs, with the field of the weight decay if there is one."""
    (power, slope), widths = system.activation, system.widths
    outputs, samples = np.indices((widths[-1], inputs.shape[1])).reshape(2, -1)
    step = pow(lie.residue(slope, prime), power, prime)
    slopes = [np.where(units, 1, step).T[samples] for units in active]
    columns = np.array([[lie.residue(v, prime) for v in row] for row in inputs.T.tolist()])
    drift = None
    if system.is_decayed:
        rates = [lie.residue(rate, prime) for rate in system.decays.tolist()]
        drift = np.repeat(rates, [b * a for a, b in itertools.pairwise(widths)])
    return lie.Fields(prime, widths, power, columns[samples], outputs, slopes, drift)


def _known(system: WeightSystem, point: Integers, prime: int) -> int:
    """Return the rank of the derivative of what `conserved` gives, or of half of it."""
    power = system.activation[0]
    if power == 1:
        whole = layers_of(system.widths, point.astype(float))  # exact, and so are sums of two
        rows = symmetry.derivative(system.widths, symmetry.generators(whole, False))
        return lie.rank(rows.astype(np.int64), prime)
    into, out_of = system.unit_weights
    return lie.rank((into.astype(np.int64) - power * out_of) * point, prime)
