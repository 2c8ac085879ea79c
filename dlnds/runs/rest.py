"""Whether a gradient flow has come to a minimum of which nothing is known but its Hessian."""

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array
from dlnds.systems.protocol import Limit, SystemProtocol, dense_jacobian, field_of, terms_at
from dlnds.theory import tolerances

#: Components up to which the Hessian is looked at.
MOST = 640
#: How near the minimum must be, relative to the state or the reach of the loss: in terms of the
#: accuracy of the run, and of the smallest eigenvalue over the largest, so that the Hessian is
#: positive all the way.
_NEAR, _KEPT = 1e-2, 1e-2
#: What Newton's step may change in the Hessian, in terms of the smallest eigenvalue: Kantorovich
#: allows a half. Towards a minimum at infinity each step changes it by a factor e.
_STEADY = 0.25
#: Forces, in terms of the largest eigenvalue times the state, that are nothing but rounding: where
#: the run is, and where Newton's method has led.
_ROUNDING, _NO_FORCE = 64.0 * float(np.finfo(float).eps), 1e-11
#: How far the flat directions are followed, relative to the state, how often and in how many steps.
_FAR, _TRIALS, _ITERATIONS = 0.1, 8, 12


def limit_at(system: SystemProtocol, x: Array, force: Array, rtol: float) -> Limit:
    """Return whether a state is a minimum, to the accuracy of the run, that no run leaves.

    The Hessian has no negative eigenvalue, Newton's step to the minimum is small and leaves the
    Hessian as it is, and where that is flat the minima go on: by symmetry alone, if it is positive
    across the orbit, else as they are followed. Where all minima are known, it is one of them. A
    small force alone says nothing: it is small on a plateau, where the Hessian vanishes in
    directions in which the loss falls at higher order, and on the way to infinity, where the
    Hessian fades with it. What is a gradient in another metric is judged by its likeness in this
    one. If the loss has no minimum, as is known of it, the run goes on until all
    force is rounding, and has no limit.
    """
    if system.kind == "gradient" and not system.numerics.symmetric:
        if (likeness := system.theory(x).likeness()) is None:
            return Limit()
        system, x = likeness
        force = field_of(system, 0.0)(x)
    if system.kind != "gradient" or system.dim > MOST:
        return Limit()
    size, known = float(np.linalg.norm(x)), system.theory(x)
    if known.is_minimum() is False:
        return Limit()
    hessian = -dense_jacobian(system, 0.0, x)[0]
    values, frame = np.linalg.eigh(hessian)  # scipy's fails for some with close eigenvalues
    largest = float(np.abs(values).max())
    zero = tolerances.HESSIAN * largest
    flat = np.abs(values) <= zero
    if values[0] < -zero or flat.all():
        return Limit()
    if not known.recedes() and _is_strict(system, (x, force), hessian, largest, rtol):
        return Limit("minimum", "definite_hessian")
    kept, across = values[~flat], frame[:, ~flat]
    pull = frame.T @ (force / largest)  # squares of what fades underflow
    step = across @ (pull[~flat] / (kept / largest))
    near = min(_NEAR * rtol, _KEPT * float(kept[0]) / largest)
    still = float(np.linalg.norm(pull)) <= _ROUNDING * size
    reach = size if flat.any() else max(size, _reach(system, x, largest))
    if not still and (
        float(np.linalg.norm(step)) > near * reach or not _steady(system, x + step, kept, across)
    ):
        return Limit()
    allowed = _NO_FORCE * largest * size
    aside = _aside(system, x, frame[:, flat], across, allowed) if flat.any() else iter(())
    if known.recedes():
        over = still and not _falls(system, x, itertools.islice(aside, _TRIALS), allowed * size)
        return Limit("none", "no_force") if over else Limit()
    fades = float(np.linalg.norm(pull[flat])) > _ROUNDING * size  # what decays may go on for ever
    noise = np.abs(frame[:, flat]).T @ (_noise(system, x) / largest)
    fades |= _leads_far(values[flat] / largest, pull[flat], noise, _NEAR * rtol * size)
    clear = bool((np.abs(values[flat]) <= tolerances.FACTOR_RANK * largest).all())
    if fades or not _goes_on(system, x, aside, allowed, clear):
        return Limit()
    return Limit("minimum", "definite_hessian")


def _is_strict(
    system: SystemProtocol, at: tuple[Array, Array], hessian: Array, largest: float, rtol: float
) -> bool:
    """Tell whether a state, with the force there, is a minimum that nothing but symmetry moves.

    The Hessian across the orbit is positive, however small in terms of its ``largest`` eigenvalue,
    and Newton's step changes it by a part of its own. By a smaller part than it does where the
    force is a power of the distance, at a plateau of any order.
    """
    (x, force), size = at, float(np.linalg.norm(at[0]))
    across, least = _complement(system.theory(x).generators(), x.size)
    values, frame = np.linalg.eigh(across.T @ hessian @ across)
    if not values[0] > tolerances.rounding(x.size) * largest:
        return False
    frame = across @ frame
    pull = frame.T @ force
    steps, moves = pull / values, np.abs(pull) > np.abs(frame).T @ _noise(system, x)
    seen = float(np.linalg.norm(steps[moves]))
    if float(np.linalg.norm(steps)) > _NEAR * least or seen > _NEAR * rtol * size:
        return False
    step, frame = frame @ steps, frame / np.sqrt(values)
    change = hessian + dense_jacobian(system, 0.0, x + step)[0]
    return bool(np.abs(scipy.linalg.eigvalsh(frame.T @ change @ frame)).max() <= _STEADY)


def _leads_far(values: Array, pull: Array, noise: Array, far: float) -> bool:
    """Tell whether forces that are no rounding lead far in directions that are nearly flat."""
    floor = np.maximum(np.abs(values), tolerances.rounding(len(values)))
    return bool(((np.abs(pull) > noise) & (np.abs(pull) > far * floor)).any())


def _noise(system: SystemProtocol, x: Array) -> Array:
    """Return how large the rounding of each component of the force can be.

    Of layers of unlike size that of one is nothing beside that of the other: a small decay moves
    the first for long.
    """
    noise: Array = _ROUNDING * terms_at(system, 0.0, x) @ np.abs(x)
    return noise


def _complement(generators: Array, dim: int) -> tuple[Array, float]:
    """Return an orthonormal basis (parameter, direction) of what is normal to some vectors.

    And how far they reach in the direction in which they do least: what is normal to an orbit at a
    state is so no farther from that. Beside a saddle of a higher order, whose own orbit is smaller,
    the orbits of all that is left over pass for symmetry.
    """
    if not generators.any():
        return np.eye(dim), np.inf
    _, spans, rows = np.linalg.svd(generators)
    rank = np.count_nonzero(spans > tolerances.RANK * spans[0])
    basis: Array = rows[rank:].T
    return basis, float(spans[rank - 1])


def _reach(system: SystemProtocol, x: Array, largest: float) -> float:
    """Return how far all of the loss is worth, at its largest curvature.

    A minimum at the origin has no other size to be near to: at it the state is its own rounding.
    """
    loss = float(system.observables(x[None], ["loss"])["loss"][0])
    return math.sqrt(2.0 * abs(loss) / largest)


def _steady(system: SystemProtocol, there: Array, values: Array, across: Array) -> bool:
    """Tell whether the Hessian ``across`` what is flat is still diag(values) after a step."""
    hessian = -across.T @ dense_jacobian(system, 0.0, there)[0] @ across
    change = scipy.linalg.eigvalsh(hessian - np.diag(values))
    return bool(np.abs(change).max() <= _STEADY * values[0])


def _aside(
    system: SystemProtocol, x: Array, along: Array, across: Array, allowed: float
) -> Iterator[Array]:
    """Yield states to which Newton's method ``across`` leads from some way ``along`` a kernel.

    Each way there and back: where the order of a plateau is odd, the loss falls on one of them.
    """
    field, rng = field_of(system, 0.0), np.random.default_rng(0)
    ways = rng.normal(size=(_TRIALS, along.shape[1]))
    for way in [*ways, *-ways]:
        state = x + along @ (_FAR * np.linalg.norm(x) / np.linalg.norm(way) * way)
        for _ in range(_ITERATIONS):
            force = across.T @ field(state)
            if float(np.linalg.norm(force)) <= 0.1 * allowed:
                break
            jacobian = across.T @ dense_jacobian(system, 0.0, state)[0] @ across
            state = state - across @ np.linalg.lstsq(jacobian, force, rcond=None)[0]
        yield state


def _goes_on(
    system: SystemProtocol, x: Array, aside: Iterable[Array], allowed: float, clear: bool
) -> bool:
    """Tell whether minima go on to all of some states, or end where the loss rises on the way.

    Where they go on, nothing is left of the field. At a plateau of order m it is the (m − 1)th
    power of the way, in a direction in which all weights move that the order needs. The loss rises
    where a rectified unit that no input reached comes to be reached; but it also does where the
    kernel is not a ``clear`` one.
    """
    field = field_of(system, 0.0)
    for state in aside:
        if float(np.linalg.norm(field(state))) <= allowed:
            continue
        loss = system.observables(np.stack([x, state]), ["loss"])["loss"].values
        if not (clear and loss[1] > loss[0]):
            return False
    return True


def _falls(system: SystemProtocol, x: Array, aside: Iterable[Array], allowed: float) -> bool:
    """Tell whether the loss is less at one of some states, as it is for half of all at a plateau.

    Where units are rectified it may rise at once, and the field there does not vanish.
    """
    states = np.stack([x, *aside])
    loss = system.observables(states, ["loss"])["loss"].values
    return bool((loss < loss[0] - allowed).any())
