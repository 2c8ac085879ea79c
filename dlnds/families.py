"""Equilibria of a system as equations with a parameter: weight decay, the data, any number."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dlnds._kernels import jit
from dlnds.errors import check_array, check_choice, check_integer, known_options
from dlnds.residuals import Residual
from dlnds.systems import orbits
from dlnds.systems.layers import LayeredSystem, flat
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.loss import LossNetwork
from dlnds.systems.product import ProductFlow
from dlnds.systems.protocol import Array, Params, SystemProtocol, check_flow
from dlnds.systems.system import System

Network = LinearNetwork | ProductFlow
Path = Callable[[float], ArrayLike] | Sequence[ArrayLike]
#: Σ and K (None for the identity) at a value of the parameter.
Data = Callable[[float], tuple[Array, Array | None]]

#: What `equilibria` varies of a network, and what stays as the input covariance changes.
KINDS = ("weight_decay", "target", "covariance")
FIXED = ("target", "map")
#: Singular values of W above this fraction of what fits the data, and of the largest, are counted.
RANK = 1e-9


@known_options
def equilibria(
    system: SystemProtocol,
    vary: str | int,
    *,
    path: Path | None = None,
    path_derivative: Callable[[float], ArrayLike] | None = None,
    fixed: str | None = None,
) -> Residual:
    """Return the equation F(x, p) = 0 of the equilibria of a system as one thing is varied.

    Parameters
    ----------
    system
        A `LinearNetwork` or a `ProductFlow`, for weight decay also a `LossNetwork`, or a `System`,
        taken at time 0.
    vary
        What p is:

        - ``"weight_decay"``: λ in L + (λ/2) Σ_i ‖W_i‖_F²; for a `ProductFlow` of the layers of the
          balanced networks over W, where it adds −hλW to Ẇ.
        - ``"target"``: θ along a ``path`` Σ(θ); a K of raw inputs stays.
        - ``"covariance"``: t in the input covariance C(t) = (1 − t) I + t C, from whitened inputs
          at t = 0 to the raw ones at t = 1.
        - the place of a number in the ``parameters`` of a `System`.
    path
        For ``"target"``: a function of θ that returns Σ (d_h × k), or a pair of targets, at θ = 0
        and θ = 1, with a straight line between (and beyond) them.
    path_derivative
        Function of θ that returns Σ'(θ), if the path is a function; otherwise F is differenced.
    fixed
        For ``"covariance"``, what stays as C changes: ``"target"``, Σ = M C^{-1/2}, as by default,
        or ``"map"``, the map M C^{-1} that fits best.

    Returns
    -------
    Residual
        F is the field, so that eigenvalues of its Jacobian with a positive real part are unstable.
        Of a network it is minus a gradient: ``symmetric`` (of a `ProductFlow` it is not), with an
        exact Jacobian, with ``generators``, and it lets a branch record the ``loss`` (without the
        decay), the ``rank`` and the Frobenius norm ``product_norm`` of W, and the ``imbalance``,
        the largest ‖C_i‖_F.

    Raises
    ------
    ValueError, TypeError
        If the system has nothing of that kind to vary, or a path is missing or of another shape.
        The functions of the result raise if a path leaves that shape or C(t) is not positive
        definite, which it is for all t from 0 to 1.

    Notes
    -----
    F = −∇L − λx for weight decay. Its orbits are those of the orthogonal groups, and only at λ = 0
    exactly those of GL: there the declared generators change. Equilibria with λ ≠ 0 are balanced;
    an aligned mode of them has λ = s^{h−2}(σ − s^h) in all layers, with a fold at
    s^h = (h−2)σ/(2h−2) if h ≥ 3 and a pitchfork from the origin at λ = σ if h = 2.

    With a fixed Σ the networks of all t are the same one in other coordinates, W_1 K(t) in place of
    W_1: critical values, index and U_S stay, the Hessian's eigenvalues and what is balanced do not,
    and t = 0 is the whitened network of the same data. With a fixed map the data of all t have the
    same teacher, but σ_j changes, so that modes may cross. K(t) is the root U k(t) Vᵀ of C(t) for
    K(1) = U s Vᵀ, k² = 1 − t + t s².

    References
    ----------
    WA25, section 2; BRTW22 and AMG24 for general covariance.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=np.diag([4.0, 2.0]))
    >>> decay = dl.equilibria(net, vary="weight_decay")
    >>> s, x = 1.0, net.initial("aligned", scale=[1.0, 0.0])
    >>> float(abs(decay.value(x, s * (4.0 - s**3))).max())
    0.0
    >>> decay.observe(x, 3.0)
    {'loss': 6.5, 'rank': 1.0, 'imbalance': 0.0, 'product_norm': 1.0}
    """
    check_flow(system)
    kinds = _kinds(system)
    if kinds:
        vary = check_choice("vary", vary, kinds)
    for name, value, kind in (
        ("path", path, "target"),
        ("path_derivative", path_derivative, "target"),
        ("fixed", fixed, "covariance"),
    ):
        if value is not None and vary != kind:
            raise ValueError(f"{name}: belongs to vary={kind!r}, got vary={vary!r}")
    if isinstance(system, LinearNetwork | ProductFlow) and vary == "target":
        return _along_targets(system, path, path_derivative)
    if isinstance(system, LinearNetwork | ProductFlow) and vary == "covariance":
        return _along_covariances(system, check_choice("fixed", fixed or "target", FIXED))
    if isinstance(system, LinearNetwork | LossNetwork | ProductFlow):
        return _with_decay(system)
    assert isinstance(system, System)
    return _with_number(system, vary)


def _kinds(system: SystemProtocol) -> tuple[str, ...]:
    """Return what may be varied of a system, by name; nothing if it has numbers to vary."""
    if isinstance(system, LinearNetwork | ProductFlow):
        return KINDS
    if isinstance(system, LossNetwork):
        return KINDS[:1]
    if not isinstance(system, System):
        raise TypeError(
            "system: needs a LinearNetwork, LossNetwork, ProductFlow or System, got "
            f"{type(system).__name__}"
        )
    return ()


def _with_number(system: System, vary: Any) -> Residual:
    """Return the equilibria of a system as one of its parameters is varied."""
    count = len(system.parameters)
    if not count:
        raise ValueError("vary: needs a system with parameters, got one without")
    place = check_integer("vary", vary, minimum=0, maximum=count - 1)
    sizes, given = system.params

    def params(p: float) -> Params:
        numbers = given.copy()
        numbers[place] = p
        return sizes, numbers

    fun, jacobian = _evaluations(system, params)
    energy = system.energy

    def observe(x: Array, p: float) -> dict[str, float]:
        assert energy is not None
        return {"loss": float(energy(x))}

    return Residual(
        fun,
        jacobian,
        parameter=f"parameter_{place}",
        observe=None if energy is None else observe,
        coordinates=system.coordinates(),
        attributes={**system.attributes(), "vary": place},
    )


def _evaluations(
    system: SystemProtocol, params: Callable[[float], Params]
) -> tuple[Callable[[Array, float], Array], Callable[[Array, float], Array] | None]:
    """Return the field of a system and its Jacobian, if it has one, as functions of x and p."""
    field = jit.ready(system.field, jit.FIELD)

    def fun(x: Array, p: float) -> Array:
        state = np.array(x, dtype=float)
        out = np.empty_like(state)
        field(0.0, state, params(p), out)
        return out

    if system.jacobian is not None:
        whole = jit.ready(system.jacobian, jit.JACOBIAN)

        def jacobian(x: Array, p: float) -> Array:
            state = np.array(x, dtype=float)
            out = np.zeros((state.size, state.size))
            whole(0.0, state, params(p), out)
            return out

        return fun, jacobian
    if system.jvp is None:
        return fun, None
    along = jit.ready(system.jvp, jit.JVP)

    def columns(x: Array, p: float) -> Array:
        state, numbers = np.array(x, dtype=float), params(p)
        out = np.zeros((state.size, state.size))
        for direction, row in zip(np.eye(state.size), out, strict=True):
            along(0.0, state, direction, numbers, row)
        return out.T.copy()

    return fun, columns


def _layered(system: Network | LossNetwork) -> LayeredSystem:
    """Return the network of the layers that a state holds."""
    return system.factors if isinstance(system, ProductFlow) else system


def _with_decay(net: Network | LossNetwork) -> Residual:
    """Return the critical points of L + (λ/2) Σ_i ‖W_i‖²."""
    given = net.params
    share = 0.5 * net.depth if isinstance(net, ProductFlow) else 1.0  # −hλW, by two factors
    field, matrix = _evaluations(net, lambda _: given)
    assert matrix is not None
    layered, tangents = _layered(net), _tangents(net)
    if isinstance(layered, LinearNetwork):
        size = _fitting_size(layered.target, layered.input_root)
    else:
        assert isinstance(layered, LossNetwork)
        size = _fitting_size(layered.criterion.targets, layered.criterion.inputs)

    def fun(x: Array, p: float) -> Array:
        out = field(x, p)
        out -= p * share * x
        return out

    def jacobian(x: Array, p: float) -> Array:
        out = matrix(x, p)
        out.flat[:: len(out) + 1] -= p * share
        return out

    return Residual(
        fun,
        jacobian,
        derivative=lambda x, p: -share * x,
        generators=lambda x, p: tangents(p != 0.0)(x),
        symmetric=net.gradient_flow,
        parameter="weight_decay",
        observe=lambda x, p: _observed(layered, x, layered._loss(x), size),
        coordinates=net.coordinates(),
        attributes={**net.attributes(), "vary": "weight_decay"},
    )


def _tangents(net: Network | LossNetwork) -> Callable[[bool], Callable[[Array], Array]]:
    """Return what gives, for orthogonal groups or for GL, generators as a function of x."""
    widths = _layered(net).widths
    return functools.cache(lambda orthogonal: orbits.tangents(widths, orthogonal))


def _fitting_size(target: Array, root: Array | None) -> float:
    """Return how large maps W are for which W K is as large as the target."""
    inputs = 1.0 if root is None else float(np.linalg.norm(root, 2))
    return float(np.linalg.norm(target, 2)) / (inputs or 1.0)


def _observed(net: LayeredSystem, x: Array, loss: Any, size: float) -> dict[str, float]:
    """Return the numbers that a branch records of a state."""
    values = np.linalg.svd(net._product(x), compute_uv=False)
    return {
        "loss": float(loss),
        "rank": float(np.count_nonzero(values > RANK * max(size, values[0]))),
        "imbalance": float(net._imbalance(x)),
        "product_norm": float(np.linalg.norm(values)),
    }


def _along_targets(
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
        first, last = _pair(path, shape)
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


def _pair(path: Any, shape: tuple[int, ...]) -> list[Array]:
    """Return the two ends of a straight path."""
    if isinstance(path, str | bytes | Mapping) or not np.iterable(path):
        raise TypeError(f"path: needs a function of θ or a pair of targets, got {path!r}")
    ends = list(path)
    if len(ends) != 2:
        raise ValueError(f"path: needs two targets, at θ = 0 and θ = 1, got {len(ends)}")
    return [check_array("path", end, ndim=2, shape=shape) for end in ends]


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


def _along_covariances(system: Network, fixed: str) -> Residual:
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
    layered, tangents = _layered(net), _tangents(net)

    def params(p: float) -> Params:
        return sizes, flat(part for part in data(p) if part is not None)

    def observe(x: Array, p: float) -> dict[str, float]:
        target, root = data(p)
        product = layered._product(x)
        misfit = target - (product if root is None else product @ root)
        return _observed(layered, x, 0.5 * np.sum(misfit**2), _fitting_size(target, root))

    fun, jacobian = _evaluations(net, params)
    return Residual(
        fun,
        jacobian,
        derivative=slope,
        generators=lambda x, p: tangents(False)(x),
        symmetric=net.gradient_flow,
        parameter=about["vary"],
        observe=observe,
        coordinates=net.coordinates(),
        attributes={**net.attributes(), **about},
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
