"""Leading forms of the loss where the Hessian vanishes, and the directions that follow them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from dlnds import schema
from dlnds._kernels import homogeneous, jit
from dlnds.arrays import Array
from dlnds.errors import (
    check_array,
    check_finite,
    check_flag,
    check_generator,
    check_integer,
    check_memory,
    check_numbers,
    finite,
    known_options,
)
from dlnds.systems.network import WeightSystem
from dlnds.systems.protocol import SystemProtocol, dense_jacobian, field_at
from dlnds.theory import tolerances
from dlnds.theory.forms import LeadingPart

NEWTON_STEPS = 25
#: Components up to which all KKT points of expanded forms are looked for, and up to which second
#: derivatives are taken; in spaces above that only two ascents are made.
FEW_COMPONENTS, SOME_COMPONENTS = 24, 150
#: Steps of one ascent, and the part of ∇N across u at which it ends.
MOST_STEPS, CLIMBED = 3000, 1e-8
#: The same of forms that are expanded, whose gradients are a hundred times as slow.
CLIMBED_ROUGHLY = 1e-5
#: Largest ‖∇N − λu‖/λ at a KKT point.
KKT = 1e-10
#: Components of a unit vector that are nothing but rounding.
ROUNDING = 1e-16
#: Relative differences of values and invariants up to which ends of ascents, and KKT points, are
#: the same modulo symmetry.
NEAR, SAME = 1e-5, 1e-7
#: ‖f‖, in terms of ‖J‖‖x‖, up to which a state is critical, and eigenvalues that are zero there.
CRITICAL, ZERO = 1e-7, 1e-7


_MULTIPLIER = {"long_name": "multiplier of the KKT point", "symbol": r"$\lambda$"}


class LeadingForm(NamedTuple):
    """The first homogeneous part of −L on the kernel of the Hessian, across the symmetry orbit.

    ``gradient`` is that of the form N, of degree ``order``, at points (…, component) in the
    coordinates of the orthonormal ``basis`` (parameter × component).
    """

    basis: Array
    order: int
    gradient: Callable[[Array], Array]


class EscapePoint(NamedTuple):
    """A KKT point of a form on the unit sphere: ∇N(u) = k N(u) u, with its value N(u) > 0.

    ``dimension`` is that of the cone over the points from which ascent starts there: one, and the
    directions on the sphere in which N does not decrease.
    """

    direction: Array
    value: float
    dimension: int


class Form(NamedTuple):
    """A homogeneous form N(z), compiled or not: its degree, ∇N, ∇²N (if known), and the ascent.

    ``climb`` moves a unit vector to a maximum on the sphere and returns the value there.
    """

    degree: int
    gradient: Callable[[Array], Array]
    hessian: Callable[[Array], Array] | None
    climb: Callable[[Array], float]


class Directions(NamedTuple):
    """KKT points (direction, parameter) of one form, with what is known of them."""

    states: Array
    value: Array
    order: int
    residual: Array
    positivity: Array
    ascents: NDArray[np.int64]
    imbalance: Array
    lost: int = 0


@known_options
def escape_directions(
    system: WeightSystem,
    at: ArrayLike | None = None,
    *,
    rng: Any = 0,
    n_starts: int = 200,
    starts: ArrayLike | None = None,
    saddles: bool = False,
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
        Ascents for each leading form.
    starts
        States (start, parameter) to ascend from in place of random ones, at the origin: the
        directions that runs from them turn to.
    saddles
        Look for KKT points that are not maxima, too, by Newton's method from each start.
    workers
        Threads over which they are spread. The result does not depend on it.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``escape_directions``: unit vectors ``state(direction, parameter)``, those of the
        lowest ``order(direction)`` first, then by falling ``value(direction)``, N(u);
        ``multiplier``, λ = order · N, the rate in ṙ = λ r^{order−1} along the ray; ``residual``,
        ‖∇N − λu‖/λ, at most 1e-10; ``positivity``, the largest Δ with bᵀ∇²N b ≤ (λ − Δ)‖b‖² for
        all b ⊥ u: if it is positive, ascents from all around come there, it is zero where KKT
        points are not isolated, and negative at saddles of N; ``count``, the number of ascents that
        came there; ``active(direction, unit)``, 1 for hidden units with weights once this
        direction is taken, with the coordinates ``unit_layer`` and ``unit_number``; ``imbalance``,
        the largest |‖in‖² − p‖out‖²| of a hidden unit, zero by theory. ``at(parameter)`` is the
        critical point. KKT points that symmetries map to each other are one row. Attributes:
        ``n_starts``, and ``n_lost``, the number of ascents that came to no positive value.

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
    itself. Negative eigenvalues of the Hessian give directions of order 2. A linear network has
    N = ⟨Σ, W_h…W_1⟩ at the origin, whose KKT points are the singular modes, of value σ_j h^{−h/2};
    elsewhere its leading form is expanded on the kernel of the Hessian as for `unstable_manifold`.

    Ascents by steps of Barzilai and Borwein, then Newton's method for one of each kind of end: the
    maxima that the starts lead to. Other KKT points are saddles of N, such as mixtures of units:
    those of linear networks are known, for others Newton's method is begun at each start as well if
    ``saddles`` is true. No method is sure to find all.

    References
    ----------
    KH25, sections 4 and 5.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    >>> kkt = dl.escape_directions(net, n_starts=20)
    >>> (kkt.value.values * 3**1.5).round(6).tolist(), kkt.order.values.tolist()
    ([2.0, 1.0], [3, 3])
    """
    check_network(system)
    generator = check_generator("rng", rng)
    n_starts = check_integer("n_starts", n_starts, minimum=1)
    workers = check_integer("workers", workers, minimum=1)
    check_memory("n_starts", 2 * n_starts * system.dim)
    x = np.zeros(system.dim)
    if at is not None:
        x = check_array("at", at, ndim=1, shape=(system.dim,))
    given = None
    if starts is not None:
        given = check_array("starts", starts, ndim=2, shape=(system.dim,))
        if x.any() or not given.any(axis=1).all():
            raise ValueError("starts: needs states other than zero, and no other critical point")
        given /= np.abs(given).max(axis=1, keepdims=True)  # squares of huge numbers overflow
        given /= np.linalg.norm(given, axis=1, keepdims=True)
        n_starts = len(given)
    found = _strict(system, x)
    forms = _leading(system, x)
    quiet, saddles = not check_flag("progress", progress), check_flag("saddles", saddles)
    with tqdm(total=n_starts * len(forms), unit="start", disable=quiet) as bar:
        for form, part, embed in forms:
            units = _starts(generator, n_starts, embed) if given is None else given
            also = list(units.copy()) if saddles else []
            found.append(_searched(form, part, embed, units, also, system.dim, workers, bar.update))
    return _dataset(system, x, found, n_starts)


def _starts(generator: np.random.Generator, count: int, embed: Array | NDArray[np.int64]) -> Array:
    """Return random unit vectors in the weights of a form."""
    size = embed.shape[1] if embed.ndim == 2 else embed.size
    starts = generator.normal(size=(count, size))
    starts /= np.linalg.norm(starts, axis=1)[:, None]
    return starts


def _strict(system: SystemProtocol, x: Array) -> list[Directions]:
    """Return the eigenvectors of negative eigenvalues at a critical point; refuse other states."""
    if not x.any():
        return []
    check_memory("at", 3 * system.dim**2)
    matrix, _ = dense_jacobian(system, 0.0, x)
    force = field_at(system, 0.0, x)
    growth, vectors = scipy.linalg.eigh(matrix)
    scale = float(np.abs(growth).max())
    lack = float(np.linalg.norm(force))
    if not lack <= CRITICAL * scale * np.linalg.norm(x):
        raise ValueError(
            f"at: needs a critical state, got one with a gradient of norm {lack:.3g}; "
            "find_critical_point finds one nearby"
        )
    chosen = np.flatnonzero(growth > ZERO * scale)[::-1]
    rate, states = growth[chosen], vectors[:, chosen].T
    residual = [np.linalg.norm(matrix @ u - r * u) / r for u, r in zip(states, rate, strict=True)]
    others = [np.delete(growth, k).max(initial=0.0) for k in chosen]
    none = np.zeros(len(chosen), np.int64)
    return [Directions(states, 0.5 * rate, 2, np.array(residual), rate - others, none, 0.0 * rate)]


def _leading(
    system: SystemProtocol, x: Array
) -> list[tuple[Form, LeadingPart | None, Array | NDArray[np.int64]]]:
    """Return the leading forms at a critical point, with what puts their weights into a state.

    That is either the places of the weights or an orthonormal basis (parameter × weight).
    """
    parts = system.theory(x).leading_parts()
    if parts:
        return [(_compiled(part), part, part.embed) for part in parts]
    if system.theory(x).field_terms is None:
        return []
    matrix, _ = dense_jacobian(system, 0.0, x)
    values, vectors = scipy.linalg.eigh(-matrix)
    zero = np.abs(values) <= ZERO * np.abs(values).max()
    form = leading_form(system, x, values, vectors, zero, "at")
    return [] if form is None else [(_expanded(form, 1.0), None, form.basis)]


def _compiled(part: LeadingPart) -> Form:
    """Return a form that is given by kernels."""
    gradient = jit.ready(part.gradient, jit.FIELD)
    second = jit.ready(part.hessian, jit.JACOBIAN)
    climb: Any = jit.ready(homogeneous.climb, homogeneous.CLIMB)

    def slope(u: Array) -> Array:
        out = np.empty_like(u)
        gradient(0.0, u, part.params, out)
        return out

    def hessian(u: Array) -> Array:
        out = np.empty((u.size, u.size))
        second(0.0, u, part.params, out)
        return out

    def climbed(u: Array) -> float:
        force = np.empty_like(u)
        return float(
            climb(gradient, part.params, float(part.degree), MOST_STEPS, CLIMBED, u, force)[0]
        )

    return Form(part.degree, slope, hessian, climbed)


def _expanded(form: LeadingForm, sign: float) -> Form:
    """Return an expanded form, times a sign."""

    def gradient(t: float, u: Array, params: Any, out: Array) -> None:
        out[:] = sign * form.gradient(u)

    plain: Any = getattr(homogeneous.climb, "py_func", homogeneous.climb)
    size = form.basis.shape[1]

    def climbed(u: Array) -> float:
        force = np.empty_like(u)
        return float(
            plain(gradient, None, float(form.order), MOST_STEPS, CLIMBED_ROUGHLY, u, force)[0]
        )

    def hessian(u: Array) -> Array:
        return sign * _differences(form, u)

    return Form(
        form.order,
        lambda u: sign * form.gradient(u),
        hessian if size <= SOME_COMPONENTS else None,
        climbed,
    )


def _searched(
    form: Form,
    part: LeadingPart | None,
    embed: Array | NDArray[np.int64],
    starts: Array,
    also: Sequence[Array],
    dim: int,
    workers: int,
    track: Callable[[int], Any],
) -> Directions:
    """Return the KKT points that ascents from the starts come to, one for each orbit.

    Newton's method is begun next to these and ``also`` at other places.
    """

    def climb(u: Array) -> float:
        value = form.climb(u)
        track(1)
        return value

    with ThreadPoolExecutor(workers) as pool:
        values = np.array(list(pool.map(climb, starts)))
    invariants = part.invariants if part else lambda states: states[..., :0]
    ends, values = starts[values > 0.0], values[values > 0.0]
    groups = _alike(values, invariants(ends), NEAR)
    tried = [(ends[group[0]], len(group)) for group in groups]
    tried += [(z, 0) for z in (*(part.known if part else ()), *also)]
    points = [(_polished(form, u), number) for u, number in tried]
    kept = [(point, number) for point, number in points if point is not None]
    u = np.reshape([p[0] for p, _ in kept], (-1, starts.shape[1]))
    value = np.array([p[1] for p, _ in kept])
    counts = np.array([number for _, number in kept], np.int64)
    same = _alike(value, invariants(u), SAME)
    first = [group[0] for group in same]
    count = np.array([counts[group].sum() for group in same], np.int64)
    u, value = u[first], value[first]
    known = [_lack_and_positivity(form, *pair) for pair in zip(u, value, strict=True)]
    lack, positivity = np.reshape(known, (-1, 2)).T
    if embed.ndim == 2:
        states = u @ embed.T
    else:
        states = np.zeros((len(u), dim))
        states[:, embed] = u
    imbalance = part.imbalance(u) if part else np.zeros(len(u))
    lost = len(starts) - int(count.sum())
    return Directions(states, value, form.degree, lack, positivity, count, imbalance, lost)


def _alike(values: Array, invariants: Array, rtol: float) -> list[NDArray[np.intp]]:
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


def _lack_and_positivity(form: Form, u: Array, value: float) -> tuple[float, float]:
    """Return ‖∇N − λu‖/λ, and the largest Δ with bᵀ∇²N b ≤ (λ − Δ)‖b‖² for all b ⊥ u."""
    multiplier = form.degree * value
    lack = float(np.linalg.norm(form.gradient(u) - multiplier * u)) / multiplier
    if form.hessian is None or u.size < 2:
        return lack, multiplier
    across = scipy.linalg.null_space(u[None])
    curvature = across.T @ form.hessian(u) @ across
    return lack, multiplier - float(scipy.linalg.eigvalsh(curvature)[-1])


def _dataset(
    system: WeightSystem, x: Array, found: Sequence[Directions], n_starts: int
) -> xr.Dataset:
    """Return directions of all forms in one Dataset, lowest orders first, then best values."""
    order = np.repeat([part.order for part in found], [len(part.value) for part in found])

    def joined(name: str) -> Array:
        rows = [np.zeros((0, system.dim)) if name == "states" else np.zeros(0)]
        return np.concatenate([*rows, *(getattr(part, name) for part in found)])

    value = joined("value")
    place = np.lexsort((-value, order))
    states = joined("states")[place]
    known = system._unit_sizes(x) / (np.linalg.norm(x) or 1.0)
    sizes = np.maximum(system._unit_sizes(states), known)
    variables: dict[str, Any] = {
        "state": (("direction", "parameter"), states),
        "order": ("direction", order[place].astype(np.int64), {"long_name": "order of the form"}),
        "value": ("direction", value[place], {"long_name": "value of the form", "symbol": "$N$"}),
        "multiplier": ("direction", (order * value)[place], _MULTIPLIER),
        "residual": ("direction", joined("residual")[place]),
        "positivity": ("direction", joined("positivity")[place]),
        "count": ("direction", joined("ascents")[place].astype(np.int64)),
        "imbalance": ("direction", joined("imbalance")[place]),
        "active": (("direction", "unit"), (sizes > tolerances.ZERO_UNIT).astype(np.int8)),
        "at": ("parameter", x),
    }
    coords = {**system.coordinates(), **system._unit_coordinates()}
    lost = sum(part.lost for part in found)
    attrs = {**system.attributes(), "n_starts": n_starts, "n_lost": lost}
    return schema.finish(xr.Dataset(variables, coords=coords), "escape_directions", attrs)


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
    KH25, theorem 4.2.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 1, 1, 1), target=[[2.0]])
    >>> u = np.full(3, 3**-0.5)  # N = 2/3^{3/2}
    >>> float(dl.escape_time(net, u, 0.01).round(6))
    86.60254
    """
    check_network(system)
    order, value = leading_value(system, direction)
    size = check_array("delta", delta, ndim=(0, 1))
    if not (size > 0.0).all():
        raise ValueError(f"delta: needs positive numbers, got {delta!r}")
    return time_on_ray(order, value, size)[()]


def time_on_ray(order: int, value: float, size: Array | float) -> Any:
    """Return T_δ at δ = ``size`` of a form of degree ``order`` with this value."""
    if order == 2:
        return -np.log(size) / (2.0 * value)
    return np.asarray(size) ** (2.0 - order) / (order * (order - 2.0) * value)


def check_network(system: object) -> None:
    """Refuse what has no layers of weights."""
    if not isinstance(system, WeightSystem):
        raise TypeError(f"system: needs a network, got {type(system).__name__}")


def leading_value(system: WeightSystem, direction: Any) -> tuple[int, float]:
    """Return the degree of the form that leads along a direction, and its value there."""
    if isinstance(direction, xr.Dataset):
        check_row(system, direction)
        return int(direction.order), float(direction.value)
    u = check_array("direction", direction, ndim=1, shape=(system.dim,))
    if not u.any():
        raise ValueError("direction: is zero")
    u /= np.linalg.norm(u)
    form = _compiled(system.theory(np.zeros(system.dim)).leading_parts()[0])
    value = float(form.gradient(u) @ u) / form.degree
    if not value > 0.0:
        raise ValueError(f"direction: needs a positive value of the leading form, got {value:.3g}")
    return form.degree, value


def check_row(system: WeightSystem, direction: xr.Dataset) -> None:
    """Refuse what is not one direction of a network of this size."""
    if direction.attrs.get("schema") != "escape_directions":
        raise ValueError("direction: needs a row of escape_directions, or a state")
    if "direction" in direction.dims:
        raise ValueError(
            "direction: needs one row of escape_directions; take it by isel(direction=0)"
        )
    row: dict[str, tuple[str, ...]] = dict.fromkeys(("order", "value", "multiplier"), ())
    row |= dict.fromkeys(("state", "at"), ("parameter",))
    schema.check_content("direction", direction, row)
    check_numbers("direction", direction, row)
    if direction.sizes["parameter"] != system.dim:
        raise ValueError(
            f"direction: needs {system.dim} weights, got {direction.sizes['parameter']}"
        )
    schema.check_digest("direction", direction, system.digest)


def leading_form(
    system: Any,
    x: Array,
    values: Array,
    vectors: Array,
    zero: NDArray[np.bool_],
    name: str = "x",
) -> LeadingForm | None:
    """Return the leading form at a critical point, or None where the loss is constant.

    ``values`` and ``vectors`` are those of the Hessian, ``zero`` tells which are in its kernel, and
    ``name`` what an error says of a point so small that the form overflows. The
    curve x + α v + w(α) has w in the range of the Hessian with no force there; the coefficients of
    w follow one from the other, and N is what is left of the loss (Lyapunov–Schmidt).
    """
    known = system.theory(x)
    basis, field_terms = _without_orbit(vectors[:, zero], known.generators()), known.field_terms
    span, stiffness = vectors[:, ~zero], values[~zero]

    def forces(c: Array, order: int) -> Array:
        """Return the field's coefficients (power, …, component) in the basis, up to α^{order−1}."""
        terms = np.zeros((order, *c.shape[:-1], system.dim))
        terms[0], terms[1] = x, c @ basis.T
        for m in range(2, order):
            force = field_terms(terms[:m], m)[m]
            terms[m] = ((force @ span) / stiffness) @ span.T
        return np.asarray(field_terms(terms, order - 1) @ basis)

    if not basis.shape[1]:
        return None
    tries = np.random.default_rng(0).normal(size=(3, basis.shape[1]))
    tries /= np.linalg.norm(tries, axis=1)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.linalg.norm(forces(tries, 2 * system.depth), axis=-1).max(axis=1)
    check_finite(name, found)
    found[:2] = 0.0
    if not found.any():
        return None
    order = int(np.argmax(found > 1e-9 * found.max())) + 1
    return LeadingForm(basis, order, lambda c: forces(c, order)[order - 1])


def _without_orbit(kernel: Array, generators: Array) -> Array:
    """Return an orthonormal basis of what is in the kernel and orthogonal to the orbit."""
    if not generators.any():
        return kernel
    orbit = scipy.linalg.orth(generators.T)
    left, sizes, _ = np.linalg.svd(kernel - orbit @ (orbit.T @ kernel), full_matrices=False)
    basis: Array = left[:, : int(np.count_nonzero(sizes > 0.5))]
    return basis


def escape_points(form: LeadingForm, sign: float, n_starts: int = 8) -> list[EscapePoint]:
    """Return KKT points of sign · N with positive values, the steepest first, one for each value.

    From random starts, by ascent and Newton's method and, in few components, by that alone,
    which also comes to points that are not maxima. Those of one value are orbits of the symmetries.
    """
    size, plain = form.basis.shape[1], _expanded(form, sign)
    starts = np.random.default_rng(0).normal(
        size=(n_starts if size <= SOME_COMPONENTS else 2, size)
    )
    found: list[EscapePoint] = []
    for start in starts / np.linalg.norm(starts, axis=1)[:, None]:
        climbed = start.copy()
        plain.climb(climbed)
        for c in [climbed, start] if size <= FEW_COMPONENTS else [climbed]:
            point = _polished(plain, c)
            if point is not None and not any(np.isclose(point[1], p.value, 1e-6) for p in found):
                number = _dimension(plain, *point)
                found.append(EscapePoint(form.basis @ point[0], point[1], number))
    return sorted(found, key=lambda p: -p.value)


def _polished(form: Form, start: Array) -> tuple[Array, float] | None:
    """Return the KKT point near by and its value, if that is positive."""

    def lack(c: Array) -> Array:
        gradient = form.gradient(c)
        return np.append(gradient - (gradient @ c) * c, c @ c - 1.0)

    def slope(c: Array, hessian: Array) -> Array:
        gradient, unit = form.gradient(c), np.eye(len(c))
        along = gradient + hessian @ c
        return np.vstack([hessian - np.outer(c, along) - (gradient @ c) * unit, 2.0 * c])

    allowed = KKT
    if form.hessian is None:
        allowed = 1e-4
    else:
        for _ in range(NEWTON_STEPS):  # least norm: KKT points come in orbits
            matrix = slope(start, form.hessian(start))
            step = scipy.linalg.lstsq(matrix, -lack(start), cond=1e-9, lapack_driver="gelsy")[0]
            size = float(np.linalg.norm(step))
            start = start + step * min(1.0, 0.5 / max(size, 1e-300))
            if size < 1e-12:
                break
    gradient = form.gradient(start)
    value = float(gradient @ start) / form.degree
    if not (value > 0.0 and np.linalg.norm(lack(start)) <= allowed * np.linalg.norm(gradient)):
        return None
    return np.where(np.abs(start) < ROUNDING, 0.0, start), value


def _dimension(form: Form, c: Array, value: float) -> int:
    """Return one plus the number of directions in which N does not decrease on the sphere."""
    if form.hessian is None:
        return 1
    unit, hessian = np.eye(len(c)), form.hessian(c)
    across = unit - np.outer(c, c)
    curvature = across @ (hessian - form.degree * value * unit) @ across
    rising = np.linalg.eigvalsh(curvature) > -1e-5 * form.degree * value
    return int(np.count_nonzero(rising))  # the zero of c itself stands for the radius


def _differences(form: LeadingForm, c: Array) -> Array:
    """Return the second derivatives of N, by differences that are exact up to degree 3."""
    step, unit = 1e-3, np.eye(len(c))
    columns: Array = (form.gradient(c + step * unit) - form.gradient(c - step * unit)) / (2 * step)
    return 0.5 * (columns + columns.T)
