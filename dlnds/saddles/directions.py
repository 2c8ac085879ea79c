"""Directions in which runs leave a critical point: KKT points of the leading form of the loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike
from tqdm import tqdm

from dlnds import schema
from dlnds._kernels import homogeneous, jit
from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import (
    check_array,
    check_flag,
    check_generator,
    check_integer,
    check_memory,
    finite,
    known_options,
)
from dlnds.systems.network import WeightSystem, check_weights
from dlnds.systems.protocol import (
    SystemProtocol,
    check_state,
    dense_jacobian,
    field_of,
    products_at,
)
from dlnds.theory import tolerances
from dlnds.theory.coordinates import layers_of
from dlnds.theory.forms import Expansion, LeadingPart, difference, expansion, without_orbit
from dlnds.theory.laws import time_on_ray
from dlnds.theory.rays import Rays
from dlnds.theory.saddles import Directions, Strict
from dlnds.theory.spectra import counted, decided
from dlnds.threads import threads_for

NEWTON_STEPS = 25
#: Components up to which all KKT points of expanded forms are looked for, and up to which second
#: derivatives are taken; in spaces above that only two ascents are made.
FEW_COMPONENTS, SOME_COMPONENTS = 24, 150
#: Steps of one ascent, and the part of ∇N across u at which it ends.
MOST_STEPS, CLIMBED = 3000, 1e-8
#: The same of forms that are expanded, whose gradients are a hundred times as slow.
CLIMBED_ROUGHLY = 1e-5

#: Steps next to a KKT point that is followed, their largest length, and the least curvature, in
#: terms of λ, that shortens them; the shortest step in which a form is stretched, and the first
#: tilt of a ray.
FOLLOWING_STEPS, LONGEST, SLOWEST, SHORTEST, TILT = 200, 0.2, 1e-6, 1e-2, 1e-3


class Hessian(NamedTuple):
    """Eigenvalues and eigenvectors of the Hessian at a state, and which are in its kernel.

    ``clear`` is false where others may be, or where rounding makes the signs of the rest.
    ``negative`` is the number of negative ones, which rounding may hide, and ``noise`` how large
    that is, if not in terms of each of them; ``gained`` the mode that one learns or forgets, −1
    where there is none or they are not known.
    """

    values: Array
    vectors: Array
    zero: Flags
    clear: bool
    negative: int
    noise: float
    gained: Integers


class Form(NamedTuple):
    """A homogeneous form N(z) of so many weights, compiled or not, that −L is to leading order.

    ``climb`` moves a unit vector to a maximum on the sphere and returns the value there, ``lift``
    puts stacks of z into states. The second derivative may not be known. For what ``invariants``,
    ``imbalance``, ``rays`` and ``names`` are see `LeadingPart`. ``stretched`` gives a part t of the
    way from a form of which ``rays`` are the KKT points, at t = 0, to this one; its modes are the
    inputs and outputs of a network of these ``widths``.
    """

    degree: int
    size: int
    lift: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    hessian: Callable[[Array], Array] | None
    climb: Callable[[Array], float]
    invariants: Callable[[Array], Array] = lambda states: states[..., :0]
    imbalance: Callable[[Array], Array] = lambda states: np.zeros(len(states))
    rays: Callable[..., Rays] | None = None
    names: tuple[Integers, Integers] | None = None
    stretched: Callable[[float], Form] | None = None
    widths: tuple[int, ...] = ()


class EscapePoint(NamedTuple):
    """A KKT point of a form on the unit sphere, as a state: ∇N(u) = k N(u) u, with N(u) > 0.

    ``dimension`` is that of the cone over the points from which ascent starts there: one, and the
    directions on the sphere in which N does not decrease.
    """

    direction: Array
    value: float
    dimension: int


class Found(NamedTuple):
    """Directions (direction, parameter) of one order, with what is known of them.

    ``modes``, ``lost`` and ``end`` are labels of index sets, empty where they are not known.
    ``n_left_out`` are known but not listed; ``complete``: no others leave in this order.
    """

    states: Array
    value: Array
    order: Integers
    residual: Array
    positivity: Array
    ascents: Integers
    imbalance: Array
    rising: Integers
    family: Integers
    modes: Any
    lost: Any
    end: Any
    n_left_out: int = 0
    complete: bool = False


def _found(states: Array, value: Array, order: int, **columns: Any) -> Found:
    """Return directions of one order; what is not said of them is zero, or not known."""
    count, words = len(value), np.full(len(value), "", "<U1")
    none, whole = np.zeros(count), np.zeros(count, np.int64)
    blank = {
        **dict.fromkeys(("residual", "positivity", "imbalance"), none),
        **dict.fromkeys(("ascents", "rising", "family"), whole),
        **dict.fromkeys(("modes", "lost", "end"), words),
    }
    return Found(states, value, whole + order, **{**blank, **columns})


@known_options
def escape_directions(
    system: WeightSystem,
    at: ArrayLike | None = None,
    *,
    rng: Any = 0,
    n_starts: int = 200,
    starts: ArrayLike | None = None,
    saddles: bool = False,
    max_directions: int = 100,
    workers: int = 1,
    progress: bool = False,
) -> xr.Dataset:
    """Return the directions in which runs from next to a critical point leave it.

    Parameters
    ----------
    system
        A network.
    at
        Critical state (parameter), the origin if ``None``.
    rng
        Seed or `numpy.random.Generator` of the starts on the sphere (SPEC 7); equal calls are
        equal.
    n_starts
        Ascents for each leading form whose KKT points are not known.
    starts
        States (start, parameter) to ascend from, at the origin: the directions that runs from them
        turn to, and no others.
    saddles
        Look for KKT points that are not maxima, too, by Newton's method from each start.
    max_directions
        How many of those that are known in closed form are listed, the best ones.
    workers
        Threads over which they are spread. The result does not depend on it.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``escape_directions``: unit vectors ``state(direction, parameter)``, those of the
        lowest ``order(direction)`` first, then by falling ``value(direction)``, N(u), one for all
        that symmetries map to each other, of which ``family_dimension(direction)`` is the
        dimension; ``multiplier``, λ = order · N, the rate in ṙ = λ r^{order−1} along the ray;
        ``index``, in how many directions of the sphere N rises from there: none at maxima;
        ``residual``, ‖∇N − λu‖/λ, at most 1e-10; ``positivity``, the largest Δ with
        bᵀ∇²N b ≤ (λ − Δ)‖b‖² for all b ⊥ u: if it is positive, ascents from all around come there,
        it is zero where KKT points are not isolated, and negative at saddles of N; ``count``, the
        number of ascents that came there; ``active(direction, unit)``, 1 for hidden units with
        weights once this direction is taken, with the coordinates ``unit_layer`` and
        ``unit_number``; ``imbalance``, the largest |‖in‖² − p‖out‖²| of a hidden unit, zero by
        theory. ``at(parameter)`` is the critical point.

        Of linear networks ``modes(direction)`` is the set T of singular modes that are learnt, of
        equal ones the first, and ``modes_lost`` what they replace; ``end``, the index set of the
        critical point that the ray leads to. Modes are those of the target if the inputs are white;
        otherwise they are those of −∇ℓ(W), by falling values, and the end is not known. What is not
        known is empty.

        ``completeness`` says what the list is worth: ``closed_form``, all directions are known, but
        for ``n_left_out`` with lower values; ``searched``, there may be others than those found;
        ``nothing_found``, which does not mean that no run leaves; ``minimum``, no run does.
        Attributes: ``n_starts``, and ``n_lost``, the number of ascents that came to no positive
        value.

    Raises
    ------
    ValueError, TypeError
        If the state is not critical, or states have the wrong shape, or the system is no network.

    Notes
    -----
    Near the origin −L + L(0) is the neural correlation function N(u) = ⟨G, H(X; u)⟩ to leading
    order, with G = −∂ℓ/∂S at the outputs S = 0: Y/m for the square loss. Runs from small starts
    turn to its KKT points on the unit sphere, ∇N(u) = λ u, those with N(u) > 0.
    At a saddle some hidden units are zero; then N is the part of lowest order in their weights, of
    degree p + 1, with the residual in place of the outputs: each layer with such units is taken by
    itself. Negative eigenvalues of the Hessian give directions of order 2, one for each eigenvalue.

    A linear network has N = ⟨G, Z_h…Z_1⟩ at the origin and over the GL orbits of A_S, with the
    signal G = −∇ℓ(W) and as many units as are left, d_i − r. With h ≥ 3 layers each set T of at
    most min(d_i − r) singular modes of G is a KKT point, with the values z_j ∝ σ_j^{−1/(h−2)}, and
    N_T = h^{−h/2} (Σ_T σ_j^{−2/(h−2)})^{−(h−2)/2}. It has (t − 1)(t + 2)/2 rising directions,
    t = |T|, and one for each pair of j ∈ T and q ∉ T with σ_q > σ_j: only the best mode alone is a
    maximum. Along the ray all modes of T are learnt at once. For h = 2 modes with different σ_j do
    not mix. This is all if the layers are balanced between what has been learnt and what has not.
    Otherwise N is the same function of Z, but the states across the orbit in the kernel of the
    Hessian have another length than their Z: families break up, and one KKT point of each T is
    followed to there, the one with the fewest rising directions; others are possible. Where
    residual weights are not zero N is expanded on that kernel.

    For others ascents by steps of Barzilai and Borwein, then Newton's method for one of each kind
    of end: the maxima that the starts lead to. Other KKT points are saddles of N, such as mixtures
    of units; Newton's method is begun at each start as well if ``saddles`` is true. No search is
    sure to find all.

    References
    ----------
    KH25 (Kumar & Haupt, arXiv:2502.15952), sections 4 and 5.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    >>> kkt = dl.escape_directions(net, n_starts=20)
    >>> (kkt.value.values * 3**1.5).round(6).tolist(), kkt.order.values.tolist()
    ([2.0, 1.0, 0.894427], [3, 3, 3])
    >>> kkt.modes.values.tolist(), kkt["index"].values.tolist()
    (['{0}', '{1}', '{0,1}'], [0, 1, 2])
    """
    check_weights(system)
    generator = check_generator("rng", rng)
    n_starts = check_integer("n_starts", n_starts, minimum=1)
    workers = check_integer("workers", workers, minimum=1)
    check_memory("n_starts", 2 * n_starts * system.dim)
    x = np.zeros(system.dim)
    if at is not None:
        x = check_state("at", system, at)
    most = check_integer("max_directions", max_directions, minimum=1)
    given = None if starts is None else _given(system, x, starts)
    n_starts = n_starts if given is None else len(given)
    quiet, saddles = not check_flag("progress", progress), check_flag("saddles", saddles)
    hessian = functools.cache(lambda: hessian_at(system, x, name="at"))
    with threads_for(float(system.dim) ** 3):
        found, (forms, whole) = [_strict(system, x, hessian)], _leading(system, x, hessian)
    searched = [form for form in forms if given is not None or not form.rays]
    bar = tqdm(total=n_starts * len(searched), unit="start", disable=quiet)
    with bar, threads_for(float(system.dim) ** 3):
        for form in forms:
            if given is None and form.rays:
                found.append(_known(form, most))
                continue
            units = _units(generator, n_starts, form.size) if given is None else given
            found.append(_searched(form, units, saddles, workers, bar.update))
    whole = whole and all(part.complete for part in found)
    listed = any(len(part.value) for part in found)
    worth = _completeness(system, x, hessian, listed=listed, whole=whole)
    return _dataset(system, x, found, worth, n_starts * len(searched))


def _given(system: WeightSystem, x: Array, starts: ArrayLike) -> Array:
    """Return starts that are given, as unit vectors."""
    given = check_array("starts", starts, ndim=2, shape=(system.dim,))
    if x.any() or not given.any(axis=1).all():
        raise ValueError("starts: needs states other than zero, and no other critical point")
    given /= np.abs(given).max(axis=1, keepdims=True)  # squares of huge numbers overflow
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    return given


def _units(generator: np.random.Generator, count: int, size: int) -> Array:
    """Return random unit vectors."""
    starts = generator.normal(size=(count, size))
    starts /= np.linalg.norm(starts, axis=1)[:, None]
    return starts


def hessian_at(
    system: SystemProtocol, x: Array, rtol: float = tolerances.HESSIAN, name: str = "x"
) -> Hessian:
    """Return the Hessian at a critical point, if it fits into the memory.

    As many eigenvalues are zero as are known to be; or those that are small beside the largest, and
    beside what second derivatives can be at such a state.
    """
    check_memory(name, 3 * system.dim**2)
    modes = system.theory(x).hessian_modes()
    if modes is not None:
        negative = int(np.count_nonzero(modes.values[~modes.zero] < 0.0))
        return Hessian(*modes[:3], modes.clear, negative, 0.0, modes.gained)
    values, vectors = scipy.linalg.eigh(-dense_jacobian(system, 0.0, x)[0], check_finite=False)
    noise = tolerances.rounding(system.dim) * float(np.abs(values).max())
    known, nameless = system.theory(x).inertia(), np.full(values.size, -1)
    if known is None or not known[2]:
        zero = decided(values, _smallest(system, x, values, rtol)).zero
        negative = int(np.count_nonzero(values[~zero] < 0.0))
        return Hessian(values, vectors, zero, known is None, negative, noise, nameless)
    negative, nullity, _ = known
    clear = (values[:negative] < -noise).all() and (values[negative + nullity :] > noise).all()
    zero = counted(values, negative, nullity).zero | (np.abs(values) <= (0.0 if clear else noise))
    return Hessian(values, vectors, zero, bool(clear), negative, noise, nameless)


def _smallest(
    system: SystemProtocol, x: Array, values: Array, rtol: float = tolerances.HESSIAN
) -> float:
    """Return up to which size eigenvalues of the Hessian at a critical point are zero."""
    size = system.theory(x).hessian_size() or 0.0
    return rtol * max(float(np.abs(values).max()), size)


def _strict(system: SystemProtocol, x: Array, hessian: Callable[[], Hessian]) -> Found:
    """Return the directions of negative eigenvalues at a critical point; refuse other states.

    One for each eigenvalue, or for each pair of values of modes where these are known.
    """
    force = float(np.linalg.norm(field_of(system, 0.0)(x)))
    if not (x.any() or force):
        return _found(np.zeros((0, x.size)), np.zeros(0), 2, complete=True)
    if not x.any():
        raise ValueError(
            "system: needs two layers or more, from whose origin no weight moves; the gradient "
            f"there has the norm {force:.3g}"
        )
    values, vectors, zero, clear, _, same, _ = hessian()
    limit, growth = _smallest(system, x, values), -values
    if not force <= limit * np.linalg.norm(x):
        raise ValueError(
            f"at: needs a critical state, got one with a gradient of norm {force:.3g}; "
            "find_critical_point finds one nearby"
        )
    chosen = (growth > 0.0) & ~zero
    known = system.theory(x).strict()
    (states, rate, _, gained, lost), kind, learnt = known or _unnamed(
        vectors[:, chosen].T, growth[chosen], same
    )
    times = products_at(system, 0.0, x)
    families = [np.flatnonzero(kind == k) for k in np.unique(kind)]
    first = np.array([family[0] for family in families], np.int64)
    lacks = [np.linalg.norm(times(u) - r * u) / r for u, r in zip(states, rate, strict=True)]
    names = np.stack([gained, lost], axis=1)[first].tolist()
    return _found(
        states[first],
        0.5 * rate[first],
        2,
        residual=np.array(lacks)[first],
        positivity=np.array([rate[k] - np.delete(rate, k).max(initial=0.0) for k in first]),
        rising=np.array([np.count_nonzero(_larger(rate, r, same)) for r in rate[first]], np.int64),
        family=np.array([len(family) - 1 for family in families], np.int64),
        **_labels([({j}, {i} - {-1}) for j, i in names], learnt),
        complete=clear or known is not None,
    )


def _larger(rates: Array, others: Any, same: float) -> Flags:
    """Tell which eigenvalues are larger than others, by more than what rounding does to equal ones.

    Those of a state that was computed differ in as many digits as its Hessian is known to.
    """
    return np.asarray(rates - others > tolerances.HESSIAN * others + same)


def _unnamed(states: Array, rate: Array, same: float) -> Strict:
    """Return directions that belong to no modes; those of an eigenvalue are of one kind."""
    none = np.full(len(rate), -1)
    kind = np.cumsum(np.append(0, _larger(rate[:-1], rate[1:], same)))[: len(rate)]
    return Strict(Directions(states, rate, np.full(len(rate), 2), none, none), kind, None)


def _labels(
    changes: Sequence[tuple[set[int], set[int]]], learnt: Iterable[int] | None
) -> dict[str, Any]:
    """Return the labels of modes that are gained and lost, and of the sets that runs end at."""
    if learnt is None or not changes:
        return {}
    before = set(learnt)
    sets = zip(*((new, old, (before | new) - old) for new, old in changes), strict=True)
    words = [schema.index_set_labels(column) for column in sets]
    return dict(zip(("modes", "lost", "end"), words, strict=False))


def _leading(
    system: WeightSystem, x: Array, hessian: Callable[[], Hessian]
) -> tuple[list[Form], bool]:
    """Return the leading forms at a critical point, and whether no runs leave by other orders.

    Those of linear networks with residual weights are expanded.
    """
    known = system.theory(x)
    parts = known.leading_parts()
    if all(part.exact for part in parts) and (parts or known.field_terms is None):
        return [compiled(part, system.dim) for part in parts], bool(parts)
    lowest = system.limit(x, rtol=tolerances.CRITICAL).kind == "global_minimum"
    if lowest or system.depth == 2:  # where the Hessian decides
        return [], True
    if parts:
        return [_in_kernel(parts[0], hessian())], True
    found = leading_form(system, x, hessian(), "at")
    least, most = known.descent() or (2, np.inf)
    if found is None:
        return [], hessian().clear and least <= 2
    if least != 2 and not least <= found.degree <= most:  # of rounding alone
        return [], False
    return [expanded(found, 1.0)], True


def _in_kernel(part: LeadingPart, hessian: Hessian) -> Form:
    """Return the form of a part that is not exact on the kernel of the Hessian, across the orbit.

    The kernel is spanned by the orbit, where z = Eᵀ x is zero, and by the states c across it with
    z = A c. Components are such that A is symmetric and positive: that is the identity where
    layers are balanced, and A^t are the way from there.
    """
    kernel = hessian.vectors[:, hessian.zero]
    left, sizes, right = np.linalg.svd(part.embed.T @ kernel, full_matrices=False)
    basis, plain = (kernel @ right.T) @ left.T, compiled(part, len(kernel))
    assert plain.hessian is not None
    second = plain.hessian

    def stretched(t: float) -> Form:
        stretch = (left * sizes**t) @ left.T

        def slope(c: Array) -> Array:
            gradient: Array = stretch @ plain.gradient(stretch @ c)
            return gradient

        return plain._replace(
            lift=lambda c: c @ basis.T,
            gradient=slope,
            hessian=lambda c: stretch @ second(stretch @ c) @ stretch,
            climb=_plain_ascent(slope, part.degree, CLIMBED),
            invariants=lambda c: plain.invariants(c @ stretch),
            imbalance=lambda c: np.zeros(len(c)),
        )

    return stretched(1.0)._replace(stretched=stretched)


def leading_form(
    system: WeightSystem, x: Array, hessian: Hessian, name: str = "x"
) -> Expansion | None:
    """Return the leading form on the kernel of the Hessian, across the symmetry orbit.

    None where the loss is constant there; an error says ``name`` of a point so small that the form
    overflows.
    """
    known, (values, vectors, zero, *_) = system.theory(x), hessian
    if known.field_terms is None:
        return None
    basis = without_orbit(vectors[:, zero], known.generators())
    rest = (vectors[:, ~zero], values[~zero])
    return expansion(known.field_terms, x, basis, *rest, 2 * system.depth, name)


def compiled(part: LeadingPart, dim: int) -> Form:
    """Return a form that is given by kernels, in the weights of states of this size."""
    gradient, second = jit.ready(part.gradient, jit.FIELD), jit.ready(part.hessian, jit.JACOBIAN)
    size = part.embed.size if part.embed.ndim == 1 else part.embed.shape[1]

    def lift(u: Array) -> Array:
        if part.embed.ndim == 2:
            return u @ part.embed.T
        states = np.zeros((*u.shape[:-1], dim))
        states[..., part.embed] = u
        return states

    def slope(u: Array) -> Array:
        out = np.empty_like(u)
        gradient(0.0, u, part.params, out)
        return out

    def hessian(u: Array) -> Array:
        out = np.empty((u.size, u.size))
        second(0.0, u, part.params, out)
        return out

    climb: Any = jit.ready(homogeneous.climb, homogeneous.CLIMB)
    climbed = _ascent(climb, gradient, part.params, part.degree, CLIMBED)
    known = (part.invariants, part.imbalance, part.rays, part.names, None, part.widths)
    return Form(part.degree, size, lift, slope, hessian, climbed, *known)


def expanded(form: Expansion, sign: float) -> Form:
    """Return an expanded form, times a sign."""
    size = form.basis.shape[1]

    def slope(u: Array) -> Array:
        return sign * form.gradient(u)

    def hessian(u: Array) -> Array:
        """Return differences that are exact up to degree 3."""
        columns = difference(lambda s: slope(u + s * np.eye(size)), 1.0, step=1e-3)
        return 0.5 * (columns + columns.T)

    climbed = _plain_ascent(slope, form.degree, CLIMBED_ROUGHLY)
    known = hessian if size <= SOME_COMPONENTS else None
    return Form(form.degree, size, lambda u: u @ form.basis.T, slope, known, climbed)


def _plain_ascent(
    slope: Callable[[Array], Array], degree: int, until: float
) -> Callable[[Array], float]:
    """Return the ascent of a form whose gradient is not compiled."""

    def kernel(t: float, u: Array, params: Any, out: Array) -> None:
        out[:] = slope(u)

    plain: Any = getattr(homogeneous.climb, "py_func", homogeneous.climb)
    return _ascent(plain, kernel, None, degree, until)


def _ascent(
    climb: Any, gradient: Any, params: Any, degree: int, until: float
) -> Callable[[Array], float]:
    """Return the ascent of a form from a unit vector, with or without the compiler."""

    def climbed(u: Array) -> float:
        ended = climb(gradient, params, float(degree), MOST_STEPS, until, u, np.empty_like(u))
        return float(ended[0])

    return climbed


def _known(form: Form, most: int) -> Found:
    """Return the KKT points of a linear network's form, at most so many, without a search.

    In closed form, or each followed from near by.
    """
    assert form.rays is not None
    rays = form.rays(most)
    if form.stretched is not None:
        points, kept = _followed(form.stretched, rays, form.widths)
        u = np.reshape([u for u, _ in points], (-1, form.size))
        labels = _mixed(form, rays.taken[kept])
        left_out = rays.n_left_out + len(rays.value) - len(kept)
        return _described(form, u, np.array([n for _, n in points]), n_left_out=left_out, **labels)
    lacks = [
        np.linalg.norm(form.gradient(u) - form.degree * value * u)
        for u, value in zip(rays.points, rays.value, strict=True)
    ]
    multiplier = form.degree * rays.value
    return _found(
        form.lift(rays.points),
        rays.value,
        form.degree,
        residual=np.array(lacks) / multiplier,
        positivity=0.0 - multiplier * rays.highest,
        imbalance=form.imbalance(rays.points),
        rising=rays.rising,
        family=rays.family,
        **_mixed(form, rays.taken),
        n_left_out=rays.n_left_out,
        complete=True,
    )


def _mixed(form: Form, taken: Flags) -> dict[str, Any]:
    """Return the labels of sets of modes (ray, mode of the form) that are learnt together."""
    if form.names is None:
        return {"modes": schema.index_set_labels(np.flatnonzero(row) for row in taken)}
    learnt, others = form.names
    sets: Any = [(set(others[np.flatnonzero(row)].tolist()), set()) for row in taken]
    found = _labels(sets, learnt)
    if form.stretched:  # other weights move as well: the end is not known
        found.pop("end", None)
    return found


def _followed(
    stretched: Callable[[float], Form], rays: Rays, widths: Sequence[int]
) -> tuple[list[tuple[Array, float]], list[int]]:
    """Return the KKT points that rays become as the form is stretched, with their values.

    And the numbers of the rays that came to one of their own. A reflection of a mode keeps the
    form: so each is looked for among the weights of its modes, where t of them leave
    (t − 1)(t + 2)/2 directions that rise. In spaces too large for derivatives maxima are followed.
    """
    points: list[tuple[Array, float]] = []
    kept: list[int] = []
    for k, (ray, taken) in enumerate(zip(rays.points, rays.taken, strict=True)):
        own = np.ones(ray.size)
        layers, count = layers_of(widths, own), int(np.count_nonzero(taken))
        others = np.flatnonzero(~taken)
        layers[0][:, others], layers[-1][others] = 0.0, 0.0
        follow = functools.partial(_stretched_to, stretched, own=own > 0.0)
        rising = (count - 1) * (count + 2) // 2
        # It may be the worst of its family, from which the form leads no way: then it is tilted.
        aside = ray + TILT * _units(np.random.default_rng(0), 1, ray.size)[0]
        point = follow(ray, rising=rising) or follow(aside, rising=rising)
        if point is None or np.isclose(point[1], [n for _, n in points], tolerances.SAME_RAY).any():
            continue
        points.append(point)
        kept.append(k)
    return points, kept


def _stretched_to(
    stretched: Callable[[float], Form], ray: Array, own: Flags, rising: int
) -> tuple[Array, float] | None:
    """Return the KKT point that a ray becomes among its own weights, or None.

    The form is stretched in steps after which the point has as many rising directions as before.
    """
    done, step, value = 0.0, 1.0, 0.0
    u = ray[own] / np.linalg.norm(ray[own])
    while done < 1.0 and step >= SHORTEST:
        step = min(step, 1.0 - done)
        form = _among(stretched(done + step), own)
        point = _polished(form, _to_saddle(form, u, rising))
        if point is None or _surroundings(form, *point)[2] not in (rising, -1):
            step *= 0.5
            continue
        (u, value), done, step = point, done + step, 2.0 * step
    whole = np.zeros(ray.size)
    whole[own] = u
    return (whole, value) if done == 1.0 else None


def _among(form: Form, own: Flags) -> Form:
    """Return a form of some of its weights; the others are zero."""

    def whole(u: Array) -> Array:
        states = np.zeros(own.size)
        states[own] = u
        return states

    def gradient(u: Array) -> Array:
        return form.gradient(whole(u))[own]

    size, second = int(np.count_nonzero(own)), form.hessian
    assert second is not None

    def hessian(u: Array) -> Array:
        return second(whole(u))[np.ix_(own, own)]

    return form._replace(
        size=size,
        gradient=gradient,
        hessian=hessian if size <= SOME_COMPONENTS else None,
        climb=_plain_ascent(gradient, form.degree, CLIMBED),
    )


def _to_saddle(form: Form, u: Array, rising: int) -> Array:
    """Return a point near a KKT point with so many rising directions: down these, up all others."""
    if form.hessian is None:
        u = u.copy()
        if not rising:
            form.climb(u)
        return u
    for _ in range(FOLLOWING_STEPS):
        gradient, across = form.gradient(u), scipy.linalg.null_space(u[None])
        multiplier = float(gradient @ u)
        matrix = across.T @ form.hessian(u) @ across
        curvature, axes = scipy.linalg.eigh(matrix)
        slope = axes.T @ (across.T @ gradient)
        step = slope / np.maximum(np.abs(curvature - multiplier), SLOWEST * multiplier)
        step[len(step) - rising :] *= -1.0
        u = u + across @ (axes @ step) * min(1.0, LONGEST / (np.linalg.norm(step) + 1e-300))
        u = u / np.linalg.norm(u)
        if np.linalg.norm(slope) <= CLIMBED * abs(multiplier):
            break
    return u


def channels(system: WeightSystem, x: Array, hessian: Hessian, sign: float) -> Directions | None:
    """Return the KKT points of one mode of sign · N at a point without residual weights, or None.

    Of order 3 or more; others are in the Hessian. Those of −N are mirror images: Z_1 has the other
    sign.
    """
    parts = system.theory(x).leading_parts()
    if not parts or parts[0].rays is None or parts[0].degree < 3:
        return None
    part = parts[0]
    form = compiled(part, x.size) if part.exact else _in_kernel(part, hessian)
    rays: Rays = parts[0].rays(x.size, 1)
    points, value, taken = rays.points, rays.value, rays.taken
    if form.stretched is not None:
        found, kept = _followed(form.stretched, rays, form.widths)
        points = np.reshape([u for u, _ in found], (-1, form.size))
        value, taken = np.array([n for _, n in found]), taken[kept]
    first = system.widths[0] * system.widths[1]
    into = part.embed < first if part.embed.ndim == 1 else part.embed[:first].any(axis=0)
    mirror = np.where(into, sign, 1.0)
    mode = np.full(len(value), -1)
    if part.names is not None and len(value):
        mode = part.names[1][np.argmax(taken, axis=1)]
    order = np.full(len(value), part.degree)
    states = form.lift(points * mirror)
    return Directions(states, part.degree * value, order, mode, np.full(len(value), -1))


def _searched(
    form: Form, starts: Array, saddles: bool, workers: int, track: Callable[[int], Any]
) -> Found:
    """Return the KKT points that ascents from the starts come to, one for each orbit.

    Newton's method is begun next to these; for ``saddles`` at the starts as well.
    """
    ends = starts.copy()

    def climb(u: Array) -> float:
        value = form.climb(u)
        track(1)
        return value

    with ThreadPoolExecutor(workers) as pool:
        values = np.array(list(pool.map(climb, ends)))
    ends, values = ends[values > 0.0], values[values > 0.0]
    groups = _alike(values, form.invariants(ends), tolerances.NEAR_RAY)
    tried = [(ends[group[0]], len(group)) for group in groups]
    tried += [(u, 0) for u in (starts if saddles else ())]
    points = [(_polished(form, u), number) for u, number in tried]
    return _merged(form, [(*point, number) for point, number in points if point is not None])


def _merged(form: Form, points: Sequence[tuple[Array, float, int]]) -> Found:
    """Return KKT points, each with how many ascents came there, one for each orbit."""
    u = np.reshape([point for point, _, _ in points], (-1, form.size))
    value = np.array([value for _, value, _ in points])
    ascents = np.array([number for _, _, number in points], np.int64)
    same = _alike(value, form.invariants(u), tolerances.SAME_RAY)
    u, value = (column[[group[0] for group in same]] for column in (u, value))
    counts = np.array([ascents[group].sum() for group in same], np.int64)
    return _described(form, u, value, ascents=counts)


def _described(form: Form, u: Array, value: Array, **columns: Any) -> Found:
    """Return KKT points with what their surroundings tell."""
    around = [_surroundings(form, *pair) for pair in zip(u, value, strict=True)]
    lacks, rises, index, family = np.reshape(around, (-1, 4)).T
    return _found(
        form.lift(u),
        value,
        form.degree,
        residual=lacks,
        positivity=0.0 - rises,
        imbalance=form.imbalance(u),
        rising=index.astype(np.int64),
        family=family.astype(np.int64),
        **columns,
    )


def _surroundings(form: Form, u: Array, value: float) -> tuple[float, float, int, int]:
    """Return ‖∇N − λu‖/λ, the largest bᵀ∇²N b − λ, and how many of these are positive, and zero.

    The last two are −1 where the second derivative is not known.
    """
    multiplier = form.degree * value
    lack, curvatures = _lack_and_curvatures(form, u, value)
    if form.hessian is None:
        return lack / multiplier, -multiplier, -1, -1
    rises = curvatures - multiplier
    limit = tolerances.NEAR_RAY * multiplier
    index, flat = np.count_nonzero(rises > limit), np.count_nonzero(np.abs(rises) <= limit)
    return lack / multiplier, rises.max(initial=-multiplier), int(index), int(flat)


def _alike(values: Array, invariants: Array, rtol: float) -> list[Integers]:
    """Return groups of equal values and invariants, by falling value, the best known first."""
    sizes = np.abs(invariants).max(initial=1e-300)
    groups: list[list[int]] = []
    for k in np.argsort(-values, kind="stable").tolist():
        for group in reversed(groups):
            other = group[0]
            if values[other] - values[k] > rtol * values[other]:
                continue
            if np.abs(invariants[other] - invariants[k]).max(initial=0.0) <= 1e2 * rtol * sizes:
                group.append(k)
                break
        else:
            groups.append([k])
    return [np.array(group) for group in groups]


def _polished(form: Form, start: Array) -> tuple[Array, float] | None:
    """Return the KKT point near by and its value, if that is positive."""

    def lack(c: Array) -> Array:
        gradient = form.gradient(c)
        return np.append(gradient - (gradient @ c) * c, c @ c - 1.0)

    allowed = tolerances.KKT_ROUGHLY
    if form.hessian is not None:
        allowed, unit = tolerances.KKT, np.eye(form.size)
        for _ in range(NEWTON_STEPS):  # least norm: KKT points come in orbits
            gradient, hessian = form.gradient(start), form.hessian(start)
            along = gradient + hessian @ start
            across = hessian - np.outer(start, along) - (gradient @ start) * unit
            matrix = np.vstack([across, 2.0 * start])
            step = scipy.linalg.lstsq(matrix, -lack(start), cond=1e-9, lapack_driver="gelsy")[0]
            size = float(np.linalg.norm(step))
            start = start + step * min(1.0, 0.5 / max(size, 1e-300))
            if size < 1e-12:
                break
    gradient = form.gradient(start)
    value = float(gradient @ start) / form.degree
    if not (value > 0.0 and np.linalg.norm(lack(start)) <= allowed * np.linalg.norm(gradient)):
        return None
    return np.where(np.abs(start) < tolerances.NO_WEIGHT, 0.0, start), value


def _lack_and_curvatures(form: Form, u: Array, value: float) -> tuple[float, Array]:
    """Return ‖∇N − λu‖, and the eigenvalues of ∇²N across u; none if they are not known."""
    lack = float(np.linalg.norm(form.gradient(u) - form.degree * value * u))
    if form.hessian is None or u.size < 2:
        return lack, np.zeros(0)
    across = scipy.linalg.null_space(u[None])
    return lack, scipy.linalg.eigvalsh(across.T @ form.hessian(u) @ across)


def escape_points(form: Form) -> list[EscapePoint]:
    """Return KKT points with positive values, the steepest first, one for each value.

    From random starts, by ascent and Newton's method and, in few components, by that alone,
    which also comes to points that are not maxima. Those of one value are orbits of the symmetries.
    """
    count = 8 if form.size <= SOME_COMPONENTS else 2
    found: list[EscapePoint] = []
    for start in _units(np.random.default_rng(0), count, form.size):
        climbed = start.copy()
        form.climb(climbed)
        for c in [climbed, start] if form.size <= FEW_COMPONENTS else [climbed]:
            point = _polished(form, c)
            known = [p.value for p in found]
            if point is not None and not np.isclose(point[1], known, tolerances.SAME_ORBIT).any():
                found.append(EscapePoint(form.lift(point[0]), point[1], dimension(form, *point)))
    return sorted(found, key=lambda p: -p.value)


def dimension(form: Form, u: Array, value: float) -> int:
    """Return one plus the number of directions in which N does not decrease on the sphere."""
    multiplier = form.degree * value
    _, curvatures = _lack_and_curvatures(form, u, value)
    return 1 + int(np.count_nonzero(curvatures - multiplier > -tolerances.NEAR_RAY * multiplier))


def _dataset(
    system: WeightSystem, x: Array, found: Sequence[Found], worth: str, n_ascents: int
) -> xr.Dataset:
    """Return directions of all forms in one Dataset, lowest orders first, then best values."""
    columns: list[Any] = [np.concatenate(column) for column in list(zip(*found, strict=True))[:12]]
    place = np.lexsort((-columns[1], columns[2]))
    joint = Found(*(column[place] for column in columns))
    units = system.unit_sizes(np.vstack([x, joint.states]))
    sizes = np.maximum(units[1:], units[0] / (np.linalg.norm(x) or 1.0))
    numbers = ("residual", "positivity", "imbalance", "modes", "end")
    variables: dict[str, Any] = {
        "state": (("direction", "parameter"), joint.states),
        "order": ("direction", joint.order),
        "value": ("direction", joint.value),
        "multiplier": ("direction", joint.order * joint.value),
        **{n: ("direction", getattr(joint, n)) for n in numbers},
        "index": ("direction", joint.rising),
        "family_dimension": ("direction", joint.family),
        "modes_lost": ("direction", joint.lost),
        "count": ("direction", joint.ascents),
        "active": (("direction", "unit"), (sizes > tolerances.ZERO_UNIT).astype(np.int8)),
        "at": ("parameter", x),
        "completeness": schema.flag(schema.COMPLETENESS, worth),
    }
    coords = {**system.coordinates(), **system.unit_coordinates()}
    counts = {
        "n_starts": n_ascents,
        "n_lost": n_ascents - int(joint.ascents.sum()),
        "n_left_out": sum(part.n_left_out for part in found),
    }
    dataset = xr.Dataset(variables, coords=coords)
    return schema.finish(dataset, "escape_directions", {**system.attributes(), **counts})


def _completeness(
    system: WeightSystem, x: Array, hessian: Callable[[], Hessian], *, listed: bool, whole: bool
) -> str:
    """Return what a list is worth; that nothing leaves is said of minima only."""
    if listed:
        return "closed_form" if whole else "searched"
    known = system.theory(x)
    if (known.descent() or (0, 0))[1]:  # a saddle, whatever its derivatives say
        return "nothing_found"
    if whole or system.limit(x, rtol=tolerances.CRITICAL).kind == "global_minimum":
        return "minimum"
    _, vectors, zero, clear, *_ = hessian()
    known = system.theory(x)
    orbit, (_, most) = (
        without_orbit(vectors[:, zero], known.generators()),
        known.descent() or (0, 0),
    )
    return "minimum" if clear and not most and not orbit.shape[1] else "nothing_found"


@known_options
@finite("delta")
def escape_time(system: WeightSystem, direction: xr.Dataset | ArrayLike, delta: ArrayLike) -> Any:
    """Return T_δ, the time that the leading form takes from the size δ along a direction to others.

    Parameters
    ----------
    system
        A network.
    direction
        One row of what `escape_directions` returns, or a state (parameter): that direction from the
        origin.
    delta
        Distances δ > 0 of the start from the critical point.

    Returns
    -------
    float or numpy.ndarray
        T_δ for each δ: negative for δ > 1 if the order is 2.

    Raises
    ------
    ValueError, TypeError
        If the direction is no row of that schema or no state, the form is not positive along it,
        or δ is not positive.

    Notes
    -----
    On the ray ṙ = k N(u) r^{k−1} for a form of degree k: T_δ = ln(1/δ)/(2N) for k = 2 and
    δ^{−(k−2)}/(k(k−2)N) for k > 2. The flow from δu is near the limiting path at the time t + T_δ;
    see `escape_path`.

    References
    ----------
    KH25 (Kumar & Haupt, arXiv:2502.15952), theorem 4.2.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 1, 1, 1), target=[[2.0]])
    >>> u = np.full(3, 3**-0.5)  # N = 2/3^{3/2}
    >>> float(dl.escape_time(net, u, 0.01).round(6))
    86.60254
    """
    check_weights(system)
    order, value = _leading_value(system, direction)
    size = check_array("delta", delta, ndim=(0, 1))
    if not (size > 0.0).all():
        raise ValueError(f"delta: needs positive numbers, got {delta!r}")
    return time_on_ray(order, value, size)[()]


def _leading_value(system: WeightSystem, direction: Any) -> tuple[int, float]:
    """Return the degree of the form that leads along a direction, and its value there."""
    if isinstance(direction, xr.Dataset):
        row = read_row(system, direction)
        return int(row.order), float(row.value)
    u = check_array("direction", direction, ndim=1, shape=(system.dim,))
    if not u.any():
        raise ValueError("direction: is zero")
    u /= np.linalg.norm(u)
    if system.depth < 2:
        raise ValueError("system: needs two layers or more, from whose origin no weight moves")
    parts = system.theory(np.zeros(system.dim)).leading_parts()
    if not parts:
        raise ValueError("system: needs outputs that depend on the inputs, the loss is constant")
    form = compiled(parts[0], system.dim)
    value = float(form.gradient(u) @ u) / form.degree
    if not value > 0.0:
        raise ValueError(f"direction: needs a positive value of the leading form, got {value:.3g}")
    return form.degree, value


def read_row(system: WeightSystem, direction: object) -> xr.Dataset:
    """Return one direction of a network."""
    row: dict[str, tuple[str, ...]] = dict.fromkeys(("order", "value", "multiplier"), ())
    row |= dict.fromkeys(("state", "at"), ("parameter",))
    found = schema.read("direction", direction, "escape_directions", row, digest=system.digest)
    if found.sizes["parameter"] != system.dim:
        raise ValueError(f"direction: needs {system.dim} weights, got {found.sizes['parameter']}")
    return found
