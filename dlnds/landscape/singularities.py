"""Learning coefficients: how singular the global minima are, for all weights and at a state."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.errors import check_integer, known_options
from dlnds.landscape.fibers import fiber_dimension
from dlnds.landscape.points import check_point, classify
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.theory.moments import turns
from dlnds.theory.singularities import Coefficient, coefficient, deciding_levels


@known_options
def learning_coefficient(
    net: LinearNetwork,
    rank: int | None = None,
    at: ArrayLike | xr.Dataset | None = None,
    *,
    rtol: float | None = None,
) -> xr.Dataset:
    """Return the learning coefficient of the global minima, or the local one at one of them.

    Parameters
    ----------
    net
        The network.
    rank
        Rank of the map W* that is learnt; ``None`` takes that of the global minima. Only the widths
        count then (with singular data, that of the inputs is the rank of their covariance).
    at
        State (parameter) of a global minimum, or what has one, as for `classify`, for the local
        coefficient there.
    rtol
        How accurately the state is critical, as for `classify`.

    Returns
    -------
    xarray.Dataset
        Schema ``learning_coefficient``: ``learning_coefficient`` λ and ``order`` m; ``components``,
        the number of irreducible components of the largest dimension n − 2λ of the minima (from
        2⁶³ on a float, so with 16 digits);
        ``decides(level)``, 1 for the levels whose widths decide; ``rank``. ``decision`` says where
        λ comes from: ``formula`` (of all minima), and for the local one ``smooth_point`` (half the
        codimension), ``largest_component`` (that of all minima) or ``upper_bound``. Then it is
        at most λ and at least ``lower_bound``, which is λ itself otherwise. ``order_is_exact`` is 0
        where the order at this point may be any from 1 to ``order``, or above where λ is a bound.
        ``is_clear`` is 0 where other ranks of products of layers are possible, so that the point
        may be of another kind, as of `fiber_dimension`.

    Raises
    ------
    ValueError
        If the state is no global minimum, or the rank is above the smallest width, or both a rank
        and a state are given.

    Notes
    -----
    For a smooth positive density φ of compact support around the minima that count,
    ∫ φ(x) exp(−β (L − L_min)) dx ~ c β^{−λ} (ln β)^{m−1} as β → ∞. With Δ_i = d_i − r, the ℓ+1
    smallest of them (as many as satisfy Σ Δ ≥ ℓ max Δ), s = Σ Δ, a = s − (⌈s/ℓ⌉ − 1) ℓ:

    λ = ½ [r (d_0 + d_h) − r²] + a (ℓ − a)/(4ℓ) − (ℓ − 1) s²/(4ℓ) + ½ Σ_{i<j} Δ_i Δ_j,

    m = a (ℓ − a) + 1, and ℓ over a components. At a bottleneck, rank Σ > r = min d_i, the minima
    are a manifold and the Hessian does not vanish across it: 2λ = r (d_0 + d_h − r), m = 1, less
    the dimensions t (μ − t) in which W can turn where only t of μ equal singular values are learnt.

    Locally, ½ rank ∇²L ≤ λ(x) and λ ≤ λ(x) ≤ ½ (n − dim), with the dimension of the minima at x:
    where these meet λ(x) is known. The order is 1 at smooth points, and that of all minima where
    the layers hold nothing but W (all Z blocks vanish, see `random_fiber_state`), since any other
    point of the fiber is moved as near to it as one likes by linear maps that keep the fiber.
    Whether λ(x) = ½ (n − dim) at all other points is not known.

    References
    ----------
    Ao24 (Aoyagi, Neural Networks 172, 2024) for λ and m; AW05 (Aoyagi & Watanabe, Neural Networks
    18, 2005) for two layers; LR24 (Pepin Lehalleur & Rimányi, arXiv:2411.19920) for dimensions and
    components

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(4, 4, 4), target=np.diag([2.0, 1.0, 0.0, 0.0]))
    >>> info = dl.learning_coefficient(net)
    >>> float(info.learning_coefficient), int(info.order), info.decides.values.tolist()
    (7.5, 1, [1, 1, 1])
    >>> local = dl.learning_coefficient(net, at=dl.random_fiber_state(net, (0, 1), rng=0))
    >>> float(local.learning_coefficient), dl.schema.decode(local.decision).item()
    (8.0, 'smooth_point')
    """
    check_network(net)
    widths = (net.target.shape[1], *net.widths[1:])
    if at is not None:
        if rank is not None:
            raise ValueError("rank: is that of the state if one is given, leave it out")
        found = _local(net, widths, at, rtol)
    elif rank is not None:
        number = check_integer("rank", rank, minimum=0, maximum=min(widths))
        found = _variables(coefficient(widths, number), number)
    else:
        found = _variables(_of_minima(net, widths), net.max_rank)
    decides = np.zeros(len(widths), np.int8)
    decides[list(deciding_levels(widths, found["rank"]))] = 1
    variables = {**found, "decides": ("level", decides)}
    coords = {"level": np.arange(len(widths)), "width": ("level", np.array(net.widths))}
    attrs = {**net.attributes(), **({} if rtol is None else {"rtol": rtol})}
    return schema.finish(xr.Dataset(variables, coords), "learning_coefficient", attrs)


def _of_minima(net: LinearNetwork, widths: tuple[int, ...]) -> Coefficient:
    """Return the coefficient of all global minima, whose maps may be a manifold of their own."""
    found, sigma = coefficient(widths, net.max_rank), net.singular_values
    turning = int(turns(sigma, np.arange(len(sigma))[None] < net.max_rank)[0])
    return found._replace(doubled=found.doubled - turning)


def _variables(found: Coefficient, rank: int) -> dict[str, Any]:
    """Return the variables of a coefficient that the formula gives."""
    value, count = 0.5 * found.doubled, found.components
    return {
        "learning_coefficient": value,
        "lower_bound": value,
        "order": np.int64(found.order),
        "order_is_exact": np.int8(1),
        "components": np.int64(count) if count < 2**63 else np.float64(count),
        "rank": np.int64(rank),
        "is_clear": np.int8(1),
        "decision": schema.flag(schema.COEFFICIENT_DECISIONS, "formula"),
    }


def _local(
    net: LinearNetwork, widths: tuple[int, ...], at: ArrayLike | xr.Dataset, rtol: float | None
) -> dict[str, Any]:
    """Return the variables of the coefficient at a global minimum."""
    check_point(net, at, rtol, "at")
    kind = schema.decode(classify(net, at, rtol=rtol).kind).item()
    if kind != "global_minimum":
        raise ValueError(
            f"at: needs a global minimum, got the kind {kind!r}; elsewhere there is no "
            "learning coefficient"
        )
    overall, fiber = _of_minima(net, widths), fiber_dimension(net, at, rtol=rtol)
    upper = net.dim - int(fiber.fiber_dimension)
    lower = max(overall.doubled, int(fiber.jacobian_rank))
    smooth = bool(fiber.is_smooth)
    bare = sum(d * d - (d - net.max_rank) ** 2 for d in widths[1:-1])
    decision = "smooth_point" if smooth else "upper_bound"
    if upper == overall.doubled and not smooth:
        decision = "largest_component"
    known = smooth or overall.order == 1 or int(fiber.orbit_dimension) == bare
    return {
        **_variables(overall, net.max_rank),
        "learning_coefficient": 0.5 * upper,
        "lower_bound": 0.5 * lower,
        "order": np.int64(1 if smooth else overall.order),
        "order_is_exact": np.int8(decision != "upper_bound" and known),
        "is_clear": fiber["is_clear"].astype(np.int8),
        "decision": schema.flag(schema.COEFFICIENT_DECISIONS, decision),
    }
