"""Equations of equilibria with a parameter, of networks: weight decay, data, what is symmetry.

Each is a dict of the arguments of `continuation.residuals.Residual`.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dlnds.arrays import Array, Params
from dlnds.errors import check_array, check_choice
from dlnds.systems.protocol import SystemProtocol, check_state, evaluations
from dlnds.theory import coordinates, moments, names, spectra, strings, symmetry, thin, tolerances
from dlnds.theory.coordinates import flat, layers_of
from dlnds.theory.moments import Problem

#: What is varied of a linear network, and what stays as the input covariance changes.
KINDS = ("weight_decay", "target", "covariance", "imbalance")
FIXED = ("target", "map")

Parts = dict[str, Any]
Tangents = Callable[[bool], Callable[[Array], Array]]
Velocity = Callable[[Array, Array], Array]
Path = Callable[[float], Any] | Sequence[ArrayLike]
Matrices = Callable[[float], list[Array]]


def fitting_size(target: Array, root: Array | None) -> float:
    """Return how large maps W are for which W K is as large as the target."""
    inputs = 1.0 if root is None else float(np.linalg.norm(root, 2))
    return float(np.linalg.norm(target, 2)) / (inputs or 1.0)


def observed(layers: Sequence[Array], loss: Callable[[Array], Any], size: float) -> Parts:
    """Return the numbers that a branch records of a state, or of each of a stack.

    ``loss`` is a function of the end-to-end map; ``size`` is how large that is if it fits.
    """
    W = coordinates.product(layers)
    values = np.linalg.svd(W, compute_uv=False)
    least = tolerances.RANK * np.maximum(size, values[..., :1])
    return {
        "loss": 1.0 * loss(W),
        "rank": 1.0 * np.count_nonzero(values > least, axis=-1),
        "imbalance": symmetry.imbalance(layers),
        "product_norm": np.linalg.norm(values, axis=-1),
    }


def with_decay(
    system: SystemProtocol,
    tangents: Tangents,
    observe: Callable[[Array], Parts],
    widths: Sequence[int] | None = None,
    share: float = 1.0,
) -> Parts:
    """Return the critical points of L + share · (λ/2) ‖x‖².

    Those of layers of linear units, of such ``widths``, are balanced: their map tells the orbit.
    """
    given = system.params
    field, matrix = evaluations(system, lambda _: given)
    assert matrix is not None

    def fun(x: Array, p: float) -> Array:
        out = field(x, p)
        out -= p * share * x
        return out

    def jacobian(x: Array, p: float) -> Array:
        out = matrix(x, p)
        out.flat[:: len(out) + 1] -= p * share
        return out

    def invariants(x: Array, p: float) -> Array:
        assert widths is not None
        return np.ravel(coordinates.product(layers_of(widths, x)))

    return {
        "fun": fun,
        "jacobian": jacobian,
        "derivative": lambda x, p: -share * x,
        "generators": lambda x, p: tangents(p != 0.0)(x),
        "invariants": None if widths is None else invariants,
        "symmetric_at": (0.0,),
        "symmetric": system.numerics.symmetric,
        "parameter": "weight_decay",
        "observe": lambda x, p: observe(x),
        "vectorized": True,
        "attributes": {**system.attributes(), "vary": "weight_decay"},
    }


def thinned(parts: Parts, problem: Problem) -> Parts:
    """Return the same of linear layers, with sparse derivatives where most weights are zero."""

    def chosen(whole: Callable[..., Array], sparse: Callable[..., Any]) -> Callable[..., Any]:
        def derivative(x: Array, p: float) -> Any:
            if x.size <= thin.LARGE:
                return whole(x, p)
            layers = layers_of(problem.widths, x)
            return sparse(layers, p) if thin.is_thin(layers) else whole(x, p)

        return derivative

    def jacobian(layers: Sequence[Array], p: float) -> Any:
        return thin.jacobian(problem, layers, p)

    def generators(layers: Sequence[Array], p: float) -> Any:
        return thin.generators(layers, p != 0.0)

    return parts | {
        "jacobian": chosen(parts["jacobian"], jacobian),
        "generators": chosen(parts["generators"], generators),
    }


def decay_labels(problem: Problem, widths: Sequence[int], depth: int) -> Callable[..., Any]:
    """Return ``label(x, λ)``, which names critical layers of these widths, or each of a stack."""

    def label(x: Array, p: Any) -> Any:
        layers, decay = layers_of(widths, x), np.asarray(p, float)
        found = names.decayed(problem, layers, decay, depth)
        if not decay.all():  # where there is none layers need not be balanced
            free = names.of_maps(problem, problem.image(coordinates.product(layers)))
            found = np.where(decay == 0.0, free, found)
        return found[()]

    return label


# The data.


def along_data(
    net: SystemProtocol,
    problem: Problem,
    velocity: Velocity,
    data: Callable[[float], tuple[Array, Array | None]],
    signal: Callable[[Array, float], Array] | None,
    about: Parts,
) -> Parts:
    """Return the critical points of networks that differ in Σ and K alone.

    ``problem`` is that of the layers that a state holds, and ``velocity`` gives the field at a
    state where minus the gradient of the loss by W is any matrix. ``data`` gives Σ and K, and
    ``signal`` the change of that gradient with p at a state.
    """
    sizes, widths = net.params[0], problem.widths
    tangents = symmetry.tangents(widths, False)

    def params(p: float) -> Params:
        return sizes, flat(part for part in data(p) if part is not None)

    def slope(x: Array, p: float) -> Array:
        assert signal is not None
        return velocity(x, signal(x, p))

    def observe(x: Array, p: float) -> Parts:
        target, root = data(p)
        now = problem._replace(target=target, root=root)
        return observed(layers_of(widths, x), now.loss, fitting_size(target, root))

    def label(x: Array, p: float) -> Any:
        target, root = data(p)
        now = problem._replace(target=target, root=root, modes=moments.singular_modes(target))
        return names.of_maps(now, now.image(coordinates.product(layers_of(widths, x))))[()]

    fun, jacobian = evaluations(net, params)
    return {
        "fun": fun,
        "jacobian": jacobian,
        "derivative": None if signal is None else slope,
        "generators": lambda x, p: tangents(x),
        "invariants": lambda x, p: coordinates.product(layers_of(widths, x)).ravel(),
        "symmetric": net.numerics.symmetric,
        "parameter": about["vary"],
        "observe": observe,
        "label": label,
        "attributes": {**net.attributes(), **about},
    }


def along_targets(
    net: SystemProtocol,
    problem: Problem,
    velocity: Velocity,
    path: Any = None,
    path_derivative: Any = None,
) -> Parts:
    """Return the critical points as the target moves along a path."""
    shape, root = problem.target.shape, problem.root

    def ends(path: Any) -> list[list[Array]]:
        return [[end] for end in _pair(path, shape, "targets")]

    target, change, about = _way("target", _alone(path), _alone(path_derivative), [shape], ends)

    def signal(x: Array, p: float) -> Array:
        assert change is not None
        moved = change(p)[0]
        return moved if root is None else moved @ root.T

    known = None if change is None else signal
    return along_data(net, problem, velocity, lambda p: (target(p)[0], root), known, about)


def _alone(path: Any) -> Any:
    """Return a function that gives one matrix as one that gives a sequence of them."""
    return (lambda p: [path(p)]) if callable(path) else path


def along_covariances(
    net: SystemProtocol, problem: Problem, velocity: Velocity, fixed: str = "target"
) -> Parts:
    """Return the critical points from whitened inputs to those of a network with raw ones."""
    check_choice("fixed", fixed, FIXED)
    target, root = problem.target, problem.root
    assert root is not None
    U, s, Vt = np.linalg.svd(root)
    rate = (U * (s**2 - 1.0)) @ U.T
    best = target @ (Vt.T / s) @ U.T

    def data(p: float) -> tuple[Array, Array]:
        sizes = _interpolated(s, p)
        moved = target if fixed == "target" else target @ (Vt.T * (sizes / s)) @ Vt
        return moved, (U * sizes) @ Vt

    def signal(x: Array, p: float) -> Array:
        change = best @ rate  # M' = W C'
        if fixed == "target":  # M' = Σ K'ᵀ
            change = target @ (Vt.T * ((s**2 - 1.0) / (2.0 * _interpolated(s, p)))) @ U.T
        change -= coordinates.product(layers_of(problem.widths, x)) @ rate
        return np.asarray(change, float)

    return along_data(net, problem, velocity, data, signal, {"vary": "covariance", "fixed": fixed})


def _interpolated(s: Array, p: float) -> Array:
    """Return the singular values of K(t), which are s at t = 1 and ones at t = 0."""
    squares = (1.0 - p) + p * s**2
    if not squares.min() > 0.0:
        raise ValueError(f"p: the input covariance is not positive definite at t = {p}")
    return np.sqrt(squares)


# What is conserved.


def along_imbalances(
    net: SystemProtocol, problem: Problem, path: Any = None, path_derivative: Any = None
) -> Parts:
    """Return the critical points over one critical value as the C_i move along a path."""
    if problem.depth == 1:
        raise ValueError("system: vary='imbalance' needs a network with hidden layers")
    given, widths = net.params, problem.widths

    def ends(path: Any) -> list[tuple[Array, ...]]:
        states = _ends_in_a_fiber(net, problem, path)
        return [symmetry.imbalances(layers_of(widths, x)) for x in states]

    shapes = [(d, d) for d in widths[1:-1]]
    wanted, change, about = _way("imbalance", path, path_derivative, shapes, ends, symmetric=True)
    tangents = functools.cache(functools.partial(symmetry.tangents, widths))
    entries = symmetry.entries(widths)
    field, matrix = evaluations(net, lambda _: given)
    assert matrix is not None
    size = fitting_size(problem.target, problem.root)

    def lack(layers: Sequence[Array], p: float) -> list[Array]:
        return [c - goal for c, goal in zip(symmetry.imbalances(layers), wanted(p), strict=True)]

    def moved(x: Array) -> Array:
        return symmetry.derivative(widths, tangents(False)(x))

    def fun(x: Array, p: float) -> Array:
        layers = layers_of(widths, x)
        return field(x, p) - symmetry.generated(layers, lack(layers, p))

    def jacobian(x: Array, p: float) -> Array:
        rows = moved(x)
        bent = symmetry.generating(widths, lack(layers_of(widths, x), p))
        return matrix(x, p) - 0.5 * (rows.T @ rows) - bent

    def generators(x: Array, p: float) -> Array:
        rows = moved(x)[entries]
        if set(widths[1:-1]) == {min(widths)}:
            return symmetry.turns_across(tangents(True)(x), rows)
        return symmetry.fixing(problem, layers_of(widths, x), rows)

    def slope(x: Array, p: float) -> Array:
        assert change is not None
        return symmetry.generated(layers_of(widths, x), change(p))

    def maps(x: Array) -> Array:
        return problem.image(coordinates.product(layers_of(widths, x)))

    def invariants(x: Array, p: float) -> Array:
        return flat([maps(x), *symmetry.imbalances(layers_of(widths, x))])

    return {
        "fun": fun,
        "jacobian": jacobian,
        "derivative": None if change is None else slope,
        "generators": generators,
        "invariants": invariants,
        "symmetric": True,
        "parameter": "imbalance",
        "observe": lambda x, p: observed(layers_of(widths, x), problem.loss, size),
        "label": lambda x, p: names.of_maps(problem, maps(x))[()],
        "vectorized": True,
        "attributes": {**net.attributes(), **about},
    }


def _ends_in_a_fiber(net: SystemProtocol, problem: Problem, path: Any) -> list[Array]:
    """Return two critical states over the same map, if an arc can join their C_i."""
    ends = [check_state("path", net, x) for x in _pair(path, (net.dim,), "critical states")]
    stack, widths = layers_of(problem.widths, np.stack(ends)), problem.widths
    maps = problem.image(coordinates.product(stack))
    gap, *sizes = (float(np.linalg.norm(m)) for m in (maps[1] - maps[0], maps[0], problem.target))
    if gap > tolerances.CRITICAL * max(sizes):
        raise ValueError(f"path: needs states over the same map, got maps that differ by {gap:.3g}")
    for x, image in zip(ends, maps, strict=True):
        found = strings.learnt(problem, layers_of(widths, x), tolerances.CRITICAL)
        if not found.is_critical(tolerances.CRITICAL):
            raise ValueError(
                "path: needs critical states, got one with a relative gradient of "
                f"{found.relative_gradient:.3g} (find_critical_point goes to one near by)"
            )
        _check_rank(min(widths), image)
    changes = (symmetry.derivative(widths, symmetry.tangents(widths, False)(x)) for x in ends)
    if not all(symmetry.is_free(widths, change) for change in changes):
        raise ValueError(
            "path: needs states at which all C_i are free to change, but one has hidden units that "
            f"it does not use; in a network with hidden widths of {min(widths)}, the rank of "
            "the map, they always are"
        )
    return ends


def _check_rank(least: int, image: Array) -> None:
    """Refuse maps over which the fiber is no manifold."""
    sizes = np.linalg.svd(image, compute_uv=False)
    rank = spectra.rank(sizes, tolerances.RANK)
    if rank < least:
        raise ValueError(
            f"path: vary='imbalance' needs a map whose rank is the smallest width, {least}, got "
            f"rank {rank}; the same map has such a fiber in a network with hidden widths of {rank}"
        )


# Paths.


def _way(
    vary: str,
    path: Any,
    derivative: Any,
    shapes: Sequence[tuple[int, ...]],
    ends: Callable[[Any], Sequence[Sequence[Array]]],
    symmetric: bool = False,
) -> tuple[Matrices, Matrices | None, Parts]:
    """Return matrices along a path, their derivatives if known, and what the attributes say.

    ``ends`` makes those at p = 0 and 1 of what is given in place of a function.
    """
    about: Parts = {"vary": vary}
    if path is None:
        raise ValueError(
            f"path: vary={vary!r} needs a function of θ, or a pair for a straight line"
        )
    if derivative is not None and not callable(derivative):
        raise TypeError(f"path_derivative: needs a function of θ, got {derivative!r}")
    if callable(path):
        known = None
        if derivative is not None:
            known = _checked("path_derivative", derivative, shapes, symmetric)
        return _checked("path", path, shapes, symmetric), known, about
    if derivative is not None:
        raise ValueError("path_derivative: that of a pair is known, leave it out")
    first, last = ends(path)
    about["path_digest"] = hashlib.sha256(flat([*first, *last]).tobytes()).hexdigest()
    steps = [b - a for a, b in zip(first, last, strict=True)]

    def between(p: float) -> list[Array]:
        return [(1.0 - p) * a + p * b for a, b in zip(first, last, strict=True)]

    return between, lambda p: steps, about


def _pair(path: Any, shape: tuple[int, ...], what: str) -> list[Array]:
    """Return the two ends of a straight path."""
    if isinstance(path, str | bytes | Mapping) or not np.iterable(path):
        raise TypeError(f"path: needs a function of θ or a pair of {what}, got {path!r}")
    ends = list(path)
    if len(ends) != 2:
        raise ValueError(f"path: needs two {what}, at θ = 0 and θ = 1, got {len(ends)}")
    return [check_array("path", end, ndim=len(shape), shape=shape) for end in ends]


def _checked(
    name: str, function: Callable[[float], Any], shapes: Sequence[tuple[int, ...]], symmetric: bool
) -> Matrices:
    """Return a function whose matrices are looked at before kernels read them."""

    def checked(p: float) -> list[Array]:
        found = [np.asarray(matrix, dtype=float) for matrix in function(p)]
        got = [matrix.shape for matrix in found]
        right = got == [*shapes] and all(np.isfinite(matrix).all() for matrix in found)
        if right and symmetric:
            right = all(
                np.abs(c - c.T).max() <= tolerances.SYMMETRIC * np.abs(c).max() for c in found
            )
        if not right:
            raise ValueError(
                f"{name}: needs to return finite {'symmetric ' * symmetric}matrices of shapes "
                f"{shapes}, got shapes {got} at {p}"
            )
        return [0.5 * (c + c.T) for c in found] if symmetric else found

    return checked
