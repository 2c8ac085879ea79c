"""Equilibria of a system as equations with a parameter: weight decay, the data, any number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dlnds.arrays import Array
from dlnds.continuation.residuals import Residual
from dlnds.errors import check_integer, known_options
from dlnds.systems.protocol import SystemProtocol, check_system
from dlnds.systems.stored import problem_coordinate
from dlnds.systems.varied import Path


@known_options
def equilibria(
    system: SystemProtocol,
    vary: str | int,
    *,
    path: Path | None = None,
    path_derivative: Callable[[float], ArrayLike] | None = None,
    fixed: str | None = None,
    period: int | None = None,
) -> Residual:
    """Return the equation F(x, p) = 0 of the equilibria of a system as one thing is varied.

    Those of a map f are its fixed points, or its points of a period k: F = f^k(x, p) − x.

    Parameters
    ----------
    system
        A `LinearNetwork` or a `ProductFlow`, for weight decay also a `LossNetwork` or a
        `HomogeneousNetwork`, or a `System`, taken at time 0. Maps are a `System` of that kind, and
        the `GradientDescent` of any of these.
    vary
        What p is:

        - ``"weight_decay"``: λ in L + (λ/2) Σ_i ‖W_i‖_F²; for a `ProductFlow` of the layers of the
          balanced networks over W, where it adds −hλW to Ẇ.
        - ``"target"``: θ along a ``path`` Σ(θ); a K of raw inputs stays.
        - ``"covariance"``: t in the input covariance C(t) = (1 − t) I + t C, from whitened inputs
          at t = 0 to the raw ones at t = 1.
        - ``"imbalance"``: θ along a ``path`` of the conserved C_i*(θ), through critical points with
          these C_i: an arc along the fiber over one critical value.
        - ``"slope"``: α of a `HomogeneousNetwork` with p ≥ 2.
        - the name of a number in the ``parameters`` of a `System`, or its place.
        - ``"step_size"``: η of `GradientDescent`, for which also p may be what it is for the flow,
          all but ``"imbalance"``.
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
    period
        For maps: k, by default 1. Points whose period divides k solve the equation, too. Periodic
        orbits of flows are not there.

    Returns
    -------
    Residual
        F is the field, so that eigenvalues of its Jacobian with a positive real part are unstable.
        Of a network it is minus a gradient: ``symmetric`` (of a `ProductFlow` it is not), with an
        exact Jacobian, with ``generators``, and it lets a branch record the ``loss`` (without the
        decay) and, of W if the network is linear, the ``rank`` and the Frobenius norm
        ``product_norm``, and the ``imbalance``, the largest ‖C_i‖_F. Then ``label`` names solutions
        by their index set, those of weight decay with h ≥ 3 also by the root of each mode, as
        ``"{0⁺,2⁻}"``. Equal σ_j that are not all learnt have no numbers: ``"{0,σ=1×2}"`` are mode 0
        and two directions of those with σ = 1. Where a decay turns modes of raw inputs solutions
        have no name.
        Of a map ``kind`` is ``"map"``: eigenvalues of the Jacobian are multipliers less one. That
        of descent records of x what the flow's equation records.

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

    The Jacobian of F = f^k − x is the product of those along the cycle, less one, exact if the
    system has a ``jacobian`` or ``jvp``. The fixed points of descent, x → x + ηf(x), are the flow's
    equilibria, with F = ηf and the flow's symmetry; a critical point loses stability at
    η = 2/λ_max. Of a longer cycle only isometries are declared, those of the orthogonal groups:
    modes that have learnt are free to change their balance, and then cycles are no orbits
    (``symmetry="minimum_norm"`` of `branch` and `diagram` takes them out). A cycle of twice the
    period leaves a flip: of a `System` `diagram` finds it from the fixed point, with ``period=2``,
    for which the flip is a branch point. Minima of descent are a continuum at each η, which no
    cycle can be found from: take a point of the cycle from `iterate`. Its branch passes the minima
    where it was born, and goes on along the other half, the cycle a step later.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 2; BRTW22 (Bah, Rauhut, Terstiege &
    Westdickenberg, arXiv:1910.05505) and AMG24 (Achour, Malgouyres & Gerchinovitz,
    arXiv:2107.13289) for general covariance.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=np.diag([4.0, 2.0]))
    >>> decay = dl.equilibria(net, vary="weight_decay")
    >>> s, x = 1.0, net.initial("aligned", scale=[1.0, 0.0])
    >>> float(abs(decay.value(x, s * (4.0 - s**3))).max())
    0.0
    >>> {name: float(value) for name, value in decay.observe(x, 3.0).items()}
    {'loss': 6.5, 'rank': 1.0, 'imbalance': 0.0, 'product_norm': 1.0}

    A cycle of two steps beyond the edge of stability, s_1 s_2 = 1/η:

    >>> steps = dl.GradientDescent(dl.LinearNetwork((1, 1, 1), [[1.0]]), step_size=1.2)
    >>> residual = dl.equilibria(steps, vary="step_size", period=2)
    >>> orbit = dl.iterate(steps, [0.9, 0.9], 200).state.values
    >>> bool(abs(residual.value(orbit[-1], 1.2)).max() < 1e-12)
    True
    >>> round(float(orbit[-1, 0] * orbit[-2, 0] * 1.2), 9)
    1.0
    """
    check_system(system)
    given: dict[str, Any] = {"path": path, "path_derivative": path_derivative, "fixed": fixed}
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        allowed = ("covariance",) if name == "fixed" else ("target", "imbalance")
        if isinstance(vary, str | int | np.integer) and vary not in allowed:
            words = " and ".join(f"vary={kind!r}" for kind in allowed)
            raise ValueError(f"{name}: belongs to {words}, got vary={vary!r}")
    if period is not None:
        options["period"] = _period_of(system, period)
    parts, labels = system.varied(vary, **options), system.coordinates()
    if parts["attributes"].get("problem_digest") == system.attributes().get("problem_digest"):
        labels |= problem_coordinate(system)
    if vary != "weight_decay" or period is not None:  # decay is the same in all these coordinates
        return Residual(**parts, coordinates=labels)

    def aligned(x: Array) -> tuple[Residual, Array, Callable[[Array], Array]] | None:
        found = system.numerics.aligned(x)
        if found is None:
            return None
        return equilibria(found.system, vary), found.state, found.lift

    return Residual(**parts, coordinates=labels, aligned=aligned)


def _period_of(system: SystemProtocol, period: int) -> int:
    """Return the period of the points of a map."""
    if system.kind != "map":
        raise ValueError(
            f"period: needs a map, got the flow {type(system).__name__}; periodic orbits of flows "
            "are not there"
        )
    return check_integer("period", period, minimum=1)
