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
from dlnds.residuals import MOST_COMPILED, Compiled, Residual
from dlnds.systems import conserved, orbits, strings
from dlnds.systems.layers import LayeredSystem, flat
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.loss import LossNetwork
from dlnds.systems.product import ProductFlow
from dlnds.systems.protocol import Array, Params, SystemProtocol, check_flow, check_state
from dlnds.systems.system import System

Network = LinearNetwork | ProductFlow
Path = Callable[[float], ArrayLike] | Sequence[ArrayLike]
#: Σ and K (None for the identity) at a value of the parameter.
Data = Callable[[float], tuple[Array, Array | None]]

#: What `equilibria` varies of a network, and what stays as the input covariance changes.
KINDS = ("weight_decay", "target", "covariance", "imbalance")
FIXED = ("target", "map")
#: Singular values of W above this fraction of what fits the data, and of the largest, are counted.
RANK = 1e-9
#: How well the ends of an arc along a fiber are critical, and over the same map.
CRITICAL = 1e-8

Imbalances = Callable[[float], list[Array]]


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
        - ``"imbalance"``: θ along a ``path`` of the conserved C_i*(θ), through critical points with
          these C_i: an arc along the fiber over one critical value.
        - the place of a number in the ``parameters`` of a `System`.
    path
        For ``"target"``: a function of θ that returns Σ (d_h × k), or a pair of targets, at θ = 0
        and θ = 1, with a straight line between (and beyond) them. For ``"imbalance"``: a pair of
        critical states over the same map, whose C_i are joined by a straight line, or a function of
        θ that returns symmetric matrices C_1*, …, C_{h−1}* (each d_i × d_i).
    path_derivative
        Function of θ that returns Σ'(θ), or the C_i*'(θ), if the path is a function; otherwise F is
        differenced.
    fixed
        For ``"covariance"``, what stays as C changes: ``"target"``, Σ = M C^{-1/2}, as by default,
        or ``"map"``, the map M C^{-1} that fits best.

    Returns
    -------
    Residual
        F is the field, so that eigenvalues of its Jacobian with a positive real part are unstable.
        Of a network it is minus a gradient: ``symmetric``, with an exact Jacobian, with
        ``generators``, and it lets a branch record the ``loss`` (without the decay), the ``rank``
        and the Frobenius norm ``product_norm`` of W, and the ``imbalance``, the largest ‖C_i‖_F.

    Raises
    ------
    ValueError, TypeError
        If the system has nothing of that kind to vary, or a path is missing or of another shape.
        For a pair of states: if one is not critical, their maps differ or have a rank below the
        smallest width, or the C_i are not free to change at both. The functions of the result raise
        if a path leaves its shape, or C(t) is not positive definite, which it is for all t from 0
        to 1.

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

    Along a fiber F = −∇L − ¼ ∇ Σ_i ‖C_i − C_i*(θ)‖_F². The second part, E_i W_i − W_i E_{i−1} of
    E_i = C_i − C_i*, is tangent to the orbit of GL, ∇L is orthogonal to it: both vanish where F
    does, and C_i = C_i* wherever the C_i are free to change. There ∂F/∂x = −∇²L − ½ DCᵀDC, where
    each part vanishes on the range of the other, so that the index is that of L. Solutions at one θ
    are a manifold, in general no group orbit; ``generators`` span its tangent space, what changes
    neither W nor a C_i, of dimension Σ_i d_i d_{i−1} − r(d_0 + d_h − r) − Σ_{0<i<h} d_i(d_i + 1)/2,
    which is Σ d_i(d_i − 1)/2 if all hidden widths are the rank r. Then every arc goes on to any θ:
    the C_i are free at all points, and bounded only where the weights are. The state at θ = 1 has
    the C_i of the second one, and need not be it. In wider networks they are not free at balanced
    states, nor at others that leave hidden units unused; arcs turn back or end at such states.

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
    >>> net = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
    >>> along = dl.equilibria(net, "imbalance", path=([2**0.5, 2**0.5], [2.0, 1.0]))
    >>> arc = dl.branch(along, [2**0.5, 2**0.5], 0.0, bounds=(0.0, 1.0))
    >>> arc.state[-1].values.round(12).tolist()  # a² − b² = 3, ab = 2
    [2.0, 1.0]
    """
    check_flow(system)
    kinds = _kinds(system)
    if kinds:
        vary = check_choice("vary", vary, kinds)
    along = ("target", "imbalance")
    for name, value, allowed in (
        ("path", path, along),
        ("path_derivative", path_derivative, along),
        ("fixed", fixed, ("covariance",)),
    ):
        if value is not None and vary not in allowed:
            words = " and ".join(f"vary={kind!r}" for kind in allowed)
            raise ValueError(f"{name}: belongs to {words}, got vary={vary!r}")
    if isinstance(system, LinearNetwork | ProductFlow) and vary == "target":
        return _along_targets(system, path, path_derivative)
    if isinstance(system, LinearNetwork) and vary == "imbalance":
        return _along_imbalances(system, path, path_derivative)
    if isinstance(system, LinearNetwork | ProductFlow) and vary == "covariance":
        return _along_covariances(system, check_choice("fixed", fixed or "target", FIXED))
    if isinstance(system, LinearNetwork | LossNetwork | ProductFlow):
        return _with_decay(system)
    assert isinstance(system, System)
    return _with_number(system, vary)


def _kinds(system: SystemProtocol) -> tuple[str, ...]:
    """Return what may be varied of a system, by name; nothing if it has numbers to vary."""
    if isinstance(system, LinearNetwork):
        return KINDS
    if isinstance(system, ProductFlow):
        return KINDS[:3]
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
        symmetric_at=(0.0,),
        symmetric=net.gradient_flow,
        parameter="weight_decay",
        observe=lambda x, p: _observed(layered, x, layered._loss(x), size),
        vectorized=True,
        coordinates=net.coordinates(),
        attributes={**net.attributes(), "vary": "weight_decay"},
        compiled=_compiled_decay(net, share),
    )


def _compiled_decay(net: Network | LossNetwork, share: float) -> Compiled | None:
    """Return the equation with weight decay as compiled functions, of small networks."""
    if net.dim > MOST_COMPILED:
        return None
    action = orbits.action(_layered(net).widths, orthogonal=True)
    return Compiled(net.field, net.jacobian, net.params, share, *action)


def _tangents(net: Network | LossNetwork) -> Callable[[bool], Callable[[Array], Array]]:
    """Return what gives, for orthogonal groups or for GL, generators as a function of x."""
    widths = _layered(net).widths
    return functools.cache(lambda orthogonal: orbits.tangents(widths, orthogonal))


def _fitting_size(target: Array, root: Array | None) -> float:
    """Return how large maps W are for which W K is as large as the target."""
    inputs = 1.0 if root is None else float(np.linalg.norm(root, 2))
    return float(np.linalg.norm(target, 2)) / (inputs or 1.0)


def _observed(net: LayeredSystem, x: Array, loss: Any, size: float) -> dict[str, Any]:
    """Return the numbers that a branch records of a state, or of each of a stack."""
    values = np.linalg.svd(net._product(x), compute_uv=False)
    least = RANK * np.maximum(size, values[..., :1])
    return {
        "loss": 1.0 * loss,
        "rank": 1.0 * np.count_nonzero(values > least, axis=-1),
        "imbalance": net._imbalance(x),
        "product_norm": np.linalg.norm(values, axis=-1),
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
        invariants=lambda x, p: layered._product(x).ravel(),
        symmetric=net.gradient_flow,
        parameter=about["vary"],
        observe=observe,
        coordinates=net.coordinates(),
        attributes={**net.attributes(), **about},
    )


def _along_imbalances(
    net: LinearNetwork, path: Path | None, derivative: Callable[[float], ArrayLike] | None
) -> Residual:
    """Return the critical points over one critical value as the C_i move along a path."""
    wanted, change, about = _path_of_imbalances(net, path, derivative)
    given, tangents = net.params, _tangents(net)
    field, matrix = _evaluations(net, lambda _: given)
    assert matrix is not None
    size = _fitting_size(net.target, net.input_root)
    free = set(net.widths[1:-1]) == {min(net.widths)}
    entries = conserved.entries(net.widths)

    def lack(x: Array, p: float) -> list[Array]:
        return [c - goal for c, goal in zip(net._imbalances(x), wanted(p), strict=True)]

    def moved(x: Array) -> Array:
        return conserved.derivative(net.widths, tangents(False)(x))

    def fun(x: Array, p: float) -> Array:
        return field(x, p) - conserved.generated(net._layers(x), lack(x, p))

    def jacobian(x: Array, p: float) -> Array:
        rows = moved(x)
        bent = conserved.generating(net.widths, lack(x, p))
        return matrix(x, p) - 0.5 * (rows.T @ rows) - bent

    def generators(x: Array, p: float) -> Array:
        change = moved(x)[entries]
        if free:
            return conserved.turning(tangents(True)(x), change)
        return conserved.fixing(net, x, change)

    def slope(x: Array, p: float) -> Array:
        assert change is not None
        return conserved.generated(net._layers(x), change(p))

    return Residual(
        fun,
        jacobian,
        derivative=None if change is None else slope,
        generators=generators,
        invariants=lambda x, p: np.append(net._image(x), net.conserved(x)),
        symmetric=True,
        parameter="imbalance",
        observe=lambda x, p: _observed(net, x, net._loss(x), size),
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
    if gap > CRITICAL * max(float(np.linalg.norm(net.target)), float(np.linalg.norm(maps[0]))):
        raise ValueError(f"path: needs states over the same map, got maps that differ by {gap:.3g}")
    for x in ends:
        found = strings.learnt(net, x, CRITICAL)
        if not found.is_critical(CRITICAL):
            raise ValueError(
                "path: needs critical states, got one with a relative gradient of "
                f"{found.relative_gradient:.3g} (find_critical_point goes to one near by)"
            )
        _check_rank(net, x)
    tangents = _tangents(net)(False)
    if not all(conserved.is_free(net, conserved.derivative(net.widths, tangents(x))) for x in ends):
        raise ValueError(
            "path: needs states at which all C_i are free to change, but one has hidden units that "
            f"it does not use; in a network with hidden widths of {min(net.widths)}, the rank of "
            "the map, they always are"
        )
    return ends


def _check_rank(net: LinearNetwork, x: Array) -> None:
    """Refuse states over which the fiber is no manifold."""
    sizes, least = np.linalg.svd(net._image(x), compute_uv=False), min(net.widths)
    rank = int(np.count_nonzero(sizes > RANK * sizes[0]))
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
