"""Stable and unstable submanifolds of critical points, also where the Hessian fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import known_options
from dlnds.landscape.points import check_critical
from dlnds.saddles import directions, hyperbolic
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.product import ProductFlow, has_maps
from dlnds.systems.protocol import SystemProtocol
from dlnds.theory import places, saddles, strings, symmetry, tolerances
from dlnds.theory.coordinates import Turning
from dlnds.theory.laws import Turn
from dlnds.theory.moments import exceeds
from dlnds.theory.saddles import Dimensions, Directions


@known_options
def unstable_manifold(
    net: SystemProtocol, x: ArrayLike, *, rtol: float = tolerances.CRITICAL
) -> xr.Dataset:
    """Return the directions in which runs leave a critical point, and how fast and many they are.

    Parameters
    ----------
    net
        The network, or the `ProductFlow` of one, whose critical points have strict directions only:
        for whitened problems with the rate σ_j^{1−2/h} (σ_q − σ_j) along u_q v_jᵀ + u_j v_qᵀ. Or
        any other flow that does not depend on time, such as a `System`.
    x
        Critical state (parameter), canonical or not; of another flow an equilibrium.
    rtol
        How accurately it is critical, as for `classify`.

    Returns
    -------
    xarray.Dataset
        Schema ``manifold``: ``frame(direction, parameter)``, unit vectors along which the distance
        r from the point grows like ṙ = rate · r^{order−1}, with their ``rate(direction)`` and
        ``order(direction)``: the eigenvectors of negative eigenvalues, orthonormal, of order 2;
        and of order k ≥ 3 the escape directions of the leading form that learn one mode, or where
        residual weights are not zero one for each of its values, which stand for their orbits under
        the isotropy group of the point. ``mode(direction)`` is the mode that is learnt along one
        and ``mode_lost(direction)`` the one that it replaces, −1 where there is none, or several
        may be, as at points moved along GL. ``state(parameter)``, the point, and
        ``critical_point``, its index set.

        Attributes: ``dimension`` of the set of points whose runs begin here, in the space of
        weights; ``quotient_dimension``, modulo the isotropy group (at A_S); ``strict_dimension``,
        the number of negative eigenvalues; ``is_cone``, 1 where the directions of order k ≥ 3 make
        the tangents a cone and not a space; ``is_complete``, 0 where the dimensions are lower
        bounds; and ``method``, ``closed_form`` or ``dense``. At a global minimum it is empty.

        Of other flows: eigenvectors of the Jacobian, the fastest first, all of order 2. The real
        part of a complex eigenvalue is the ``rate``, its imaginary part the
        ``frequency(direction)``, and the vectors of a pair are the half axes of its ellipse.
        ``curvature(direction, parameter)``: x + α v + α² c is on the manifold up to α³.
        ``central_dimension`` is the number of eigenvalues with the real part 0, that is at most
        ``zero_tolerance`` in modulus; where there are any the equilibrium is not hyperbolic, and
        ``is_complete`` is 0: runs may leave along them too, which is not looked at.
        ``eigenvector_condition`` above 1e7 says that eigenvalues are defective; the frame is then
        orthonormal, and its first few vectors span invariant spaces.

    Raises
    ------
    ValueError
        If the state is not critical, or the Hessian does not fit into the memory.
    TypeError
        If the system is a map.

    Notes
    -----
    By the local product, a saddle is (strict part, from the Hessian) × (the residual network, with
    widths d_i − r and the unlearnt part Σ_Q as its target, at a critical point). Its leading form
    at the origin is N = ⟨Σ_Q, Z_h…Z_1⟩; its escape directions of one mode have rank one and
    N = σ_j h^{−h/2}, and mixtures of modes are others (`escape_directions`). With
    k open modes and ρ = min(k, d_i − r) the unstable set of the origin holds the balanced Z with a
    symmetric, positive semidefinite Z_{1:h} between the open modes, for every h: its dimension is
    ρ k − ρ (ρ − 1)/2 modulo O(d_1 − r) × … . The stable set holds those with −Z_{1:h} of this kind.
    This is a space for h = 2 and a cone for h ≥ 3. At balanced points of whitened problems all is
    known in closed form. Elsewhere the Hessian is taken apart, and the leading form on its kernel
    is expanded by the method of Lyapunov and Schmidt; its KKT points are looked for from random
    starts. Dimensions are the same over the GL orbit of A_S. At points with Z ≠ 0 they are counted
    from these KKT points and may be too small.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362); KH25 (Kumar & Haupt, arXiv:2502.15952) for the
    leading form; theory of the local product in WA25, section 5.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    >>> mani = dl.unstable_manifold(net, net.critical_state((1,)))
    >>> mani.order.values.tolist(), mani["mode"].values.tolist(), mani.mode_lost.values.tolist()
    ([2, 3], [0, 0], [1, -1])
    >>> mani.attrs["dimension"], mani.attrs["quotient_dimension"]
    (4, 2)
    """
    return _manifold(net, x, rtol, stable=False)


@known_options
def stable_manifold(
    net: SystemProtocol, x: ArrayLike, *, rtol: float = tolerances.CRITICAL
) -> xr.Dataset:
    """Return the directions in which runs come to a critical point, and how fast and many they are.

    Parameters
    ----------
    net, x, rtol
        As for `unstable_manifold`.

    Returns
    -------
    xarray.Dataset
        As of `unstable_manifold`, with the distance decaying like ṙ = −rate · r^{order−1}. Order 2:
        eigenvectors of positive eigenvalues; order h: channels of an unlearnt mode with one sign
        changed; order 2h: channels between outputs and inputs of which the target has none.

    Raises
    ------
    ValueError
        As `unstable_manifold`.

    Notes
    -----
    Along a direction of order k ≥ 3 the decay is algebraic, r(t) ~ ((k − 2) rate · t)^{−1/(k−2)}.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    >>> W1, W2 = net.unpack(dl.stable_manifold(net, net.critical_state(())).frame.values)
    >>> bool(np.allclose(W2, -W1.transpose(0, 2, 1), atol=1e-15))
    True
    """
    return _manifold(net, x, rtol, stable=True)


class _Local(NamedTuple):
    """The directions at a point and the dimensions of what they are tangent to."""

    directions: Directions
    dimensions: Dimensions
    strict: int
    method: str


def _manifold(net: SystemProtocol, x: ArrayLike, rtol: float, stable: bool) -> xr.Dataset:
    if not has_maps(net):
        return hyperbolic.local_manifold(net, x, rtol, stable=stable)
    state, found, _ = check_critical(net.square_factors, x, rtol)
    local_of: Any = _local if net.square_factors is net else _of_maps
    local: _Local = local_of(net, state, found, rtol, stable)
    frame, rate, order, mode, lost = local.directions
    variables = {
        "frame": (("direction", "parameter"), frame),
        "rate": ("direction", rate),
        **schema.columns("direction", order=order, mode=mode, mode_lost=lost),
        "state": ("parameter", state),
        "critical_point": schema.index_set_label(found.modes),
    }
    attrs = {
        **net.attributes(),
        "rtol": rtol,
        "side": "stable" if stable else "unstable",
        "made_by": "stable_manifold" if stable else "unstable_manifold",
        "dimension": local.dimensions.whole,
        "quotient_dimension": local.dimensions.quotient,
        "strict_dimension": local.strict,
        "is_cone": int((order > 2).any()),
        "is_complete": int(local.dimensions.complete),
        "method": local.method,
    }
    return schema.finish(xr.Dataset(variables, net.coordinates()), "manifold", attrs)


def _local(
    net: LinearNetwork, x: Array, found: strings.Learnt, rtol: float, stable: bool
) -> _Local:
    rank = len(found.sizes)
    place = places.canonical_place(net.problem, net.unpack(x))
    if place is not None:
        kinds = (saddles.strict_directions, saddles.channels)
        parts = [directions_of(place.problem, place.modes, stable) for directions_of in kinds]
        joint = saddles.joined(parts, net.dim)
        joint = joint._replace(frame=Turning(net.widths, place.bases)(joint.frame))
        strict = len(parts[0].rate)
        return _Local(joint, _at_origin(net, rank, strict, stable), strict, "closed_form")
    hessian = directions.hessian_at(net, x, rtol)
    strict, whole, joint = _dense(net, x, hessian, stable)
    if net.depth > 1 and not _residual_weights(net, x, found, rtol):
        dimensions = _at_origin(net, rank, strict, stable)
        modes = int(np.count_nonzero(net.singular_modes[1]))
        flat = stable and min(net.widths) > rank and min(net.target.shape) > modes
        complete = hessian.clear and not flat
        return _Local(joint, dimensions._replace(complete=complete), strict, "dense")
    quotient = whole - _isotropy_orbit(net, x, joint.frame)
    complete = hessian.clear and (not hessian.zero.any() or net.depth == 1)
    return _Local(joint, Dimensions(whole, quotient, complete), strict, "dense")


def _of_maps(
    prod: ProductFlow, x: Array, found: strings.Learnt, rtol: float, stable: bool
) -> _Local:
    """Return the directions on the matrices of one rank: those of the Riemannian Hessian."""
    if prod.square.whitened and not found.freedom and not stable:
        joint, method = _swaps(prod, x, found), "closed_form"
    else:
        values, vectors = prod.hessian_modes(x)
        side = (values if stable else -values) > rtol * np.abs(values).max()
        frame = _unit([prod.horizontal_lift(x, Z) for Z in vectors[side]], prod.dim)
        joint, method = _unnamed(frame, np.abs(values[side]), 2), "dense"
    strict, joint = len(joint.rate), saddles.joined([joint], prod.dim)
    return _Local(joint, Dimensions(strict, strict, True), strict, method)


def _swaps(prod: ProductFlow, x: Array, found: strings.Learnt) -> Directions:
    """Return the unstable directions of a whitened problem: a mode turns towards a larger one."""
    left, sigma, right = prod.square.singular_modes
    rest = [q for q in range(len(sigma)) if q not in found.modes]
    pairs = [(q, j) for j in found.modes for q in rest if exceeds(sigma)[j, q]]
    changes = [
        np.outer(left[:, q], right[:, j]) + np.outer(left[:, j], right[:, q]) for q, j in pairs
    ]
    rates = np.array([Turn(sigma[j], sigma[q], prod.depth).rate for q, j in pairs])
    modes = np.array(pairs, np.int64).reshape(-1, 2)
    frame = _unit([prod.horizontal_lift(x, Z) for Z in changes], prod.dim)
    return Directions(frame, rates, np.full(len(pairs), 2), modes[:, 0], modes[:, 1])


def _unnamed(frame: Array, rate: Array, order: int) -> Directions:
    """Return directions of one order that belong to no mode."""
    none = np.full(len(rate), -1)
    return Directions(frame, rate, np.full(len(rate), order), none, none)


def _unit(rows: Sequence[Array], dim: int) -> Array:
    """Return vectors (direction, parameter) of length one."""
    frame = np.reshape(rows, (-1, dim))
    unit: Array = frame / np.linalg.norm(frame, axis=1, keepdims=True)
    return unit


def _residual_weights(net: LinearNetwork, x: Array, found: strings.Learnt, rtol: float) -> bool:
    """Tell whether a critical point is off the GL orbit of A_S."""
    blocks = strings.residual_blocks(net.problem, found, rtol)
    if any(block.any() for block in blocks[:-1]):
        return True
    if net.widths[0] == net.target.shape[1]:
        return False
    unseen = strings.unseen_block(net.problem, net.unpack(x)[0], found)
    return bool(np.linalg.norm(unseen) > rtol * np.linalg.norm(x))


def _at_origin(net: LinearNetwork, rank: int, strict: int, stable: bool) -> Dimensions:
    """Return the dimensions at a point of the GL orbit of A_S with so many strict directions."""
    modes = int(np.count_nonzero(net.singular_modes[1]))
    if net.depth == 2:  # those of the residual network are strict
        strict -= (modes - rank) * (net.widths[1] - rank)
    widths = (net.target.shape[1], *net.widths[1:])
    return saddles.dimensions(widths, rank, modes, strict, stable)


def _dense(
    net: LinearNetwork, x: Array, hessian: directions.Hessian, stable: bool
) -> tuple[int, int, Directions]:
    """Return the number of strict directions, the dimension as far as it is seen, and all of them.

    That is, up to the leading form on the kernel.
    """
    values, vectors, zero, _, negative, _, gained = hessian
    side = ~zero & ((values > 0.0) == stable)
    count = whole = int(side.sum()) if stable else negative
    strict = _unnamed(vectors[:, side].T, np.abs(values[side]), 2)
    parts = [strict._replace(mode=gained[side])]
    sign = -1.0 if stable else 1.0
    known = directions.channels(net, x, hessian, sign)
    found = None if known is not None else directions.leading_form(net, x, hessian)
    if known is not None:
        parts.append(known)
    elif found is not None:
        form = directions.expanded(found, sign)
        points = directions.escape_points(form)
        frame = np.reshape([p.direction for p in points], (-1, net.dim))
        rate = form.degree * np.array([p.value for p in points])
        parts.append(_unnamed(frame, rate, form.degree))
        whole += max((p.dimension for p in points), default=0)
    return count, whole, saddles.joined(parts, net.dim)


def _isotropy_orbit(net: LinearNetwork, x: Array, frame: Array) -> int:
    """Return the dimension of the orbits of the isotropy group of ``x`` across the directions."""
    at_point = net.generators(x, orthogonal=True)
    if not len(frame) or not len(at_point):
        return 0
    kernel = np.eye(len(at_point))
    if at_point.any():
        kernel = scipy.linalg.null_space(at_point.T, rcond=tolerances.RANK)
    mixture = np.random.default_rng(0).normal(size=len(frame)) @ frame
    moved = kernel.T @ symmetry.generators(net.unpack(mixture), orthogonal=True)
    size = max(1.0, float(np.linalg.norm(mixture)))
    return int(np.linalg.matrix_rank(moved, tol=tolerances.RANK * size))
