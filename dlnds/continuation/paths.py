"""Critical points of linear networks as data, or conserved quantities, follow a path."""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dlnds.arrays import Array, Params
from dlnds.continuation.equations import (
    Network,
    evaluations,
    fitting_size,
    layered_in,
    observed,
    tangents_of,
)
from dlnds.continuation.residuals import Residual
from dlnds.errors import check_array
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.product import ProductFlow
from dlnds.systems.protocol import check_state
from dlnds.theory import spectra, strings, symmetry, tolerances
from dlnds.theory.coordinates import flat

Path = Callable[[float], ArrayLike] | Sequence[ArrayLike]
#: Σ and K (None for the identity) at a value of the parameter.
Data = Callable[[float], tuple[Array, Array | None]]
Imbalances = Callable[[float], list[Array]]


def along_targets(
    net: Network, path: Path | None, derivative: Callable[[float], ArrayLike] | None
) -> Residual:
    """Return the critical points as the target moves along a path."""
    if path is None:
        raise ValueError("path: vary='target' needs a function of θ or a pair of targets")
    if derivative is not None and not callable(derivative):
        raise TypeError(f"path_derivative: needs a function of θ, got {derivative!r}")
    about: dict[str, Any] = {"vary": "target"}
    data = net.network if isinstance(net, ProductFlow) else net
    shape, root = data.target.shape, data.input_root
    if callable(path):
        target = _checked("path", path, shape)
        change = None if derivative is None else _checked("path_derivative", derivative, shape)
    elif derivative is not None:
        raise ValueError("path_derivative: that of a pair of targets is known, leave it out")
    else:
        first, last = _pair(path, shape, "targets")
        about["path_digest"] = hashlib.sha256(first.tobytes() + last.tobytes()).hexdigest()

        def target(p: float) -> Array:
            return (1.0 - p) * first + p * last

        def change(p: float) -> Array:
            return last - first

    def slope(x: Array, p: float) -> Array:
        assert change is not None
        signal = change(p)
        return _sent_back(net, x, signal if root is None else signal @ root.T)

    return _of_data(net, lambda p: (target(p), root), None if change is None else slope, about)


def _pair(path: Any, shape: tuple[int, ...], what: str) -> list[Array]:
    """Return the two ends of a straight path."""
    if isinstance(path, str | bytes | Mapping) or not np.iterable(path):
        raise TypeError(f"path: needs a function of θ or a pair of {what}, got {path!r}")
    ends = list(path)
    if len(ends) != 2:
        raise ValueError(f"path: needs two {what}, at θ = 0 and θ = 1, got {len(ends)}")
    return [check_array("path", end, ndim=len(shape), shape=shape) for end in ends]


def _checked(
    name: str, function: Callable[[float], ArrayLike], shape: tuple[int, ...]
) -> Callable[[float], Array]:
    """Return a function whose matrices are looked at before kernels read them."""

    def checked(p: float) -> Array:
        matrix = np.asarray(function(p), dtype=float)
        if matrix.shape != shape or not np.isfinite(matrix).all():
            raise ValueError(
                f"{name}: needs to return a finite matrix of shape {shape}, got shape "
                f"{matrix.shape} at {p}"
            )
        return matrix

    return checked


def along_covariances(system: Network, fixed: str) -> Residual:
    """Return the critical points from whitened to raw inputs."""
    net = system.network if isinstance(system, ProductFlow) else system
    root = net.whitening if net.input_root is None else net.input_root
    if root is None:
        raise ValueError(
            "system: vary='covariance' needs a network with an input covariance, as from_data makes"
        )
    if root.shape[0] != root.shape[1]:
        raise ValueError(
            "system: vary='covariance' needs an input covariance of full rank, got rank "
            f"{root.shape[1]} in {root.shape[0]} inputs"
        )
    raw = LinearNetwork(
        net.widths, net.target, root, normalization=net.normalization, specialize=net.specialize
    )
    flow = ProductFlow(raw, system.rank) if isinstance(system, ProductFlow) else raw
    U, s, Vt = np.linalg.svd(root)
    rate = (U * (s**2 - 1.0)) @ U.T
    best = raw.target @ (Vt.T / s) @ U.T

    def data(p: float) -> tuple[Array, Array]:
        sizes = _interpolated(s, p)
        target = raw.target if fixed == "target" else raw.target @ (Vt.T * (sizes / s)) @ Vt
        return target, (U * sizes) @ Vt

    def slope(x: Array, p: float) -> Array:
        signal = -flow.product(x) @ rate
        if fixed == "target":  # M' = Σ K'ᵀ
            signal += raw.target @ (Vt.T * ((s**2 - 1.0) / (2.0 * _interpolated(s, p)))) @ U.T
        else:  # M' = W C'
            signal += best @ rate
        return _sent_back(flow, x, signal)

    return _of_data(flow, data, slope, {"vary": "covariance", "fixed": fixed})


def _interpolated(s: Array, p: float) -> Array:
    """Return the singular values of K(t), which are s at t = 1 and ones at t = 0."""
    squares = (1.0 - p) + p * s**2
    if not squares.min() > 0.0:
        raise ValueError(f"p: the input covariance is not positive definite at t = {p}")
    return np.sqrt(squares)


def _of_data(
    net: Network,
    data: Data,
    slope: Callable[[Array, float], Array] | None,
    about: dict[str, Any],
) -> Residual:
    """Return the critical points of networks that differ in their numbers alone."""
    sizes, _ = net.params
    layered, tangents = layered_in(net), tangents_of(net)
    assert isinstance(layered, LinearNetwork)

    def params(p: float) -> Params:
        return sizes, flat(part for part in data(p) if part is not None)

    def observe(x: Array, p: float) -> dict[str, float]:
        target, root = data(p)
        product = layered._product(x)
        misfit = target - (product if root is None else product @ root)
        return observed(layered, x, 0.5 * np.sum(misfit**2), fitting_size(target, root))

    fun, jacobian = evaluations(net, params)
    return Residual(
        fun,
        jacobian,
        derivative=slope,
        generators=lambda x, p: tangents(False)(x),
        invariants=lambda x, p: layered._product(x).ravel(),
        symmetric=net.numerics.symmetric,
        parameter=about["vary"],
        observe=observe,
        coordinates=net.coordinates(),
        attributes={**net.attributes(), **about},
    )


def along_imbalances(
    net: LinearNetwork, path: Path | None, derivative: Callable[[float], ArrayLike] | None
) -> Residual:
    """Return the critical points over one critical value as the C_i move along a path."""
    wanted, change, about = _path_of_imbalances(net, path, derivative)
    given, tangents = net.params, tangents_of(net)
    field, matrix = evaluations(net, lambda _: given)
    assert matrix is not None
    size = fitting_size(net.target, net.input_root)
    free = set(net.widths[1:-1]) == {min(net.widths)}
    entries = symmetry.entries(net.widths)

    def lack(x: Array, p: float) -> list[Array]:
        return [c - goal for c, goal in zip(net._imbalances(x), wanted(p), strict=True)]

    def moved(x: Array) -> Array:
        return symmetry.derivative(net.widths, tangents(False)(x))

    def fun(x: Array, p: float) -> Array:
        return field(x, p) - symmetry.generated(net._layers(x), lack(x, p))

    def jacobian(x: Array, p: float) -> Array:
        rows = moved(x)
        bent = symmetry.generating(net.widths, lack(x, p))
        return matrix(x, p) - 0.5 * (rows.T @ rows) - bent

    def generators(x: Array, p: float) -> Array:
        change = moved(x)[entries]
        if free:
            return symmetry.turns_across(tangents(True)(x), change)
        return symmetry.fixing(net.problem, net.unpack(x), change)

    def slope(x: Array, p: float) -> Array:
        assert change is not None
        return symmetry.generated(net._layers(x), change(p))

    return Residual(
        fun,
        jacobian,
        derivative=None if change is None else slope,
        generators=generators,
        invariants=lambda x, p: np.append(net._image(x), net.conserved(x)),
        symmetric=True,
        parameter="imbalance",
        observe=lambda x, p: observed(net, x, net._loss(x), size),
        vectorized=True,
        coordinates=net.coordinates(),
        attributes={**net.attributes(), **about},
    )


def _path_of_imbalances(
    net: LinearNetwork, path: Path | None, derivative: Callable[[float], ArrayLike] | None
) -> tuple[Imbalances, Imbalances | None, dict[str, Any]]:
    """Return C_i*(θ), their derivatives if they are known, and what the attributes say of them."""
    if net.depth == 1:
        raise ValueError("system: vary='imbalance' needs a network with hidden layers")
    if path is None:
        raise ValueError("path: vary='imbalance' needs a pair of critical states or a function")
    if derivative is not None and not callable(derivative):
        raise TypeError(f"path_derivative: needs a function of θ, got {derivative!r}")
    about: dict[str, Any] = {"vary": "imbalance"}
    if callable(path):
        change = None if derivative is None else _symmetric("path_derivative", derivative, net)
        return _symmetric("path", path, net), change, about
    if derivative is not None:
        raise ValueError("path_derivative: that of a pair of states is known, leave it out")
    first, last = (net._imbalances(x) for x in _ends_in_a_fiber(net, path))
    about["path_digest"] = hashlib.sha256(flat([*first, *last]).tobytes()).hexdigest()

    def between(p: float) -> list[Array]:
        return [(1.0 - p) * a + p * b for a, b in zip(first, last, strict=True)]

    return between, lambda p: [b - a for a, b in zip(first, last, strict=True)], about


def _symmetric(name: str, function: Callable[[float], Any], net: LinearNetwork) -> Imbalances:
    """Return a function whose matrices are symmetric, one for each hidden layer."""
    shapes = [(d, d) for d in net.widths[1:-1]]

    def checked(p: float) -> list[Array]:
        found = [np.asarray(matrix, dtype=float) for matrix in function(p)]
        if [matrix.shape for matrix in found] != shapes or not all(
            np.isfinite(c).all() and np.allclose(c, c.T, rtol=0.0, atol=1e-12 * np.abs(c).max())
            for c in found
        ):
            raise ValueError(
                f"{name}: needs to return finite symmetric matrices of shapes {shapes}, got shapes "
                f"{[matrix.shape for matrix in found]} at {p}"
            )
        return [0.5 * (matrix + matrix.T) for matrix in found]

    return checked


def _ends_in_a_fiber(net: LinearNetwork, path: Any) -> list[Array]:
    """Return two critical states over the same map, if an arc can join their C_i."""
    ends = [check_state("path", net, x) for x in _pair(path, (net.dim,), "critical states")]
    maps = [net._image(x) for x in ends]
    gap = np.linalg.norm(maps[1] - maps[0])
    if gap > tolerances.CRITICAL * max(
        float(np.linalg.norm(net.target)), float(np.linalg.norm(maps[0]))
    ):
        raise ValueError(f"path: needs states over the same map, got maps that differ by {gap:.3g}")
    for x in ends:
        found = strings.learnt(net.problem, net.unpack(x), tolerances.CRITICAL)
        if not found.is_critical(tolerances.CRITICAL):
            raise ValueError(
                "path: needs critical states, got one with a relative gradient of "
                f"{found.relative_gradient:.3g} (find_critical_point goes to one near by)"
            )
        _check_rank(net, x)
    tangents = tangents_of(net)(False)
    if not all(
        symmetry.is_free(net.widths, symmetry.derivative(net.widths, tangents(x))) for x in ends
    ):
        raise ValueError(
            "path: needs states at which all C_i are free to change, but one has hidden units that "
            f"it does not use; in a network with hidden widths of {min(net.widths)}, the rank of "
            "the map, they always are"
        )
    return ends


def _check_rank(net: LinearNetwork, x: Array) -> None:
    """Refuse states over which the fiber is no manifold."""
    sizes, least = np.linalg.svd(net._image(x), compute_uv=False), min(net.widths)
    rank = spectra.rank(sizes, tolerances.RANK)
    if rank < least:
        raise ValueError(
            f"path: vary='imbalance' needs a map whose rank is the smallest width, {least}, got "
            f"rank {rank}; the same map has such a fiber in a network with hidden widths of {rank}"
        )


def _sent_back(net: Network, x: Array, signal: Array) -> Array:
    """Return the field where minus the gradient of the loss by W is G (d_h × d_0).

    W_{i+1:h}ᵀ G W_{1:i−1}ᵀ of all layers i.
    """
    if isinstance(net, ProductFlow):
        return net.velocity(x, signal)
    layers = net._layers(x)
    images = list(itertools.accumulate(layers[:-1], lambda product, w: w @ product))
    parts = []
    for w, image in zip(layers[:0:-1], images[::-1], strict=True):
        parts.append(signal @ image.T)
        signal = w.T @ signal
    return flat([*parts, signal][::-1])
