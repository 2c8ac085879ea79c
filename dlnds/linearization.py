"""Linearization at a state: spectrum, index and nullity; closed forms at canonical points."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from dlnds import schema
from dlnds.critical import count_pairs, exceeds
from dlnds.errors import check_array, check_integers, check_number, known_options
from dlnds.systems.jacobians import dense_jacobian
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.protocol import Array, SystemProtocol, check_flow


@known_options
def linearize(
    system: SystemProtocol, x: ArrayLike, *, t: float = 0.0, zero_tolerance: float | None = None
) -> xr.Dataset:
    """Return the spectrum of a system's linearization at a state.

    Parameters
    ----------
    system
        Any system. Without a Jacobian of its own it is differenced.
    x
        State (parameter); it need not be an equilibrium.
    t
        Time, for a system that depends on it.
    zero_tolerance
        Eigenvalues of at most this modulus count as zero. ``None`` takes the accuracy of the
        computed eigenvalues: ``8 n ε ‖J‖`` in double precision, ``‖J‖ ε^{2/3}`` for a differenced
        Jacobian.

    Returns
    -------
    xarray.Dataset
        Schema ``linearization``: ``eigenvalue(eigen)``, ascending; for a gradient flow those of the
        Hessian, otherwise the real parts of those of the Jacobian with ``eigenvalue_imag`` beside
        them. ``index``, the number of unstable directions (negative Hessian eigenvalues, or
        Jacobian eigenvalues with a positive real part), and ``nullity``. The attributes
        ``zero_tolerance``, ``largest_zero`` and ``smallest_nonzero`` (moduli) show how clear the
        decision on zero was.

    Raises
    ------
    ValueError, TypeError
        If the state has the wrong shape or is not finite.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> saddle = dl.linearize(net, net.critical_state((1,)))
    >>> (saddle.eigenvalue.values.round(6) + 0.0).tolist()
    [-2.0, -1.0, 0.0, 0.0, 0.0, 2.0, 2.0, 3.0]
    >>> int(saddle["index"]), int(saddle.nullity)
    (2, 3)
    """
    check_flow(system)
    state = check_array("x", x, ndim=1, shape=(system.dim,))
    t = check_number("t", t)
    if zero_tolerance is not None:
        zero_tolerance = check_number("zero_tolerance", zero_tolerance, minimum=0.0)
    matrix, accuracy = dense_jacobian(system, t, state)
    if system.gradient_flow:
        eigenvalues = scipy.linalg.eigvalsh(-matrix, overwrite_a=True, check_finite=False)
        values: NDArray[np.complex128] | Array = eigenvalues
    else:
        values = scipy.linalg.eigvals(matrix, overwrite_a=True, check_finite=False)
        values = values[np.lexsort((values.imag, values.real))]
    size = np.abs(values)
    if zero_tolerance is None:
        zero_tolerance = accuracy * float(size.max(initial=0.0))
    zero = size <= zero_tolerance
    unstable = values.real < 0.0 if system.gradient_flow else values.real > zero_tolerance
    variables = {
        "eigenvalue": ("eigen", values.real.copy()),
        "index": ((), np.int64(np.count_nonzero(unstable & ~zero))),
        "nullity": ((), np.int64(np.count_nonzero(zero))),
    }
    if not system.gradient_flow:
        variables["eigenvalue_imag"] = ("eigen", values.imag.copy())
    attrs = {
        **system.attributes(),
        "zero_tolerance": zero_tolerance,
        "largest_zero": float(size[zero].max(initial=0.0)),
        "smallest_nonzero": float(size[~zero].min(initial=np.inf)),
    }
    return schema.finish(xr.Dataset(variables), "linearization", attrs)


@known_options
def canonical_spectrum(net: LinearNetwork, modes: Sequence[int]) -> xr.Dataset:
    """Return the Hessian spectrum at the canonical critical point A_S in closed form.

    Parameters
    ----------
    net
        A whitened network.
    modes
        The index set S.

    Returns
    -------
    xarray.Dataset
        Schema ``linearization``, as `linearize` at ``net.critical_state(modes)``, exact to
        rounding.

    Raises
    ------
    ValueError, TypeError
        If the network is not whitened, or there is no such critical point.

    Notes
    -----
    With s_j = σ_j^{1/h}, m = min(d_0, d_h) and σ_k = 0 for k > m, all eigenvalues that are not
    zero: Σ_i s_j^{2(h−i)} s_l^{2(i−1)} for each ordered pair j, l ∈ S; s_j^{h−2}(σ_j ± σ_k) for j ∈
    S, k ∉ S, k ≤ m; s_j^{2(h−1)} for j ∈ S, m < k ≤ max(d_0, d_h); and for h = 2 in addition ±σ_k,
    each d_1 − r times, for k ∉ S.

    References
    ----------
    WA25

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.canonical_spectrum(net, (1,)).eigenvalue.values.tolist()
    [-2.0, -1.0, 0.0, 0.0, 0.0, 2.0, 2.0, 3.0]
    """
    check_network(net)
    if not net.whitened:
        raise ValueError(
            "net: needs a whitened network; use linearize for general input covariance"
        )
    chosen = list(check_integers("modes", modes, minimum=0))
    net.critical_state(chosen)  # which refuses what is no index set
    found = _nonzero_eigenvalues(net, chosen)
    eigenvalues = np.sort(np.concatenate([found, np.zeros(net.dim - len(found))]))
    variables = {
        "eigenvalue": ("eigen", eigenvalues),
        "index": ((), np.int64(np.count_nonzero(found < 0.0))),
        "nullity": ((), np.int64(net.dim - len(found))),
    }
    return schema.finish(xr.Dataset(variables), "linearization", net.attributes())


def _nonzero_eigenvalues(net: LinearNetwork, chosen: list[int]) -> Array:
    depth, sigma = net.depth, net.singular_values
    if depth == 1:
        return np.ones(net.dim)
    learnt, others = sigma[chosen], np.delete(sigma, chosen)
    s = learnt ** (1.0 / depth)
    powers = [np.outer(s ** (2 * (depth - i)), s ** (2 * (i - 1))) for i in range(1, depth + 1)]
    strength = (s ** (depth - 2))[:, None]
    larger = exceeds(sigma)
    differ = np.delete((larger | larger.T)[chosen], chosen, axis=1)
    parts = [
        np.sum(powers, axis=0),
        strength * (learnt[:, None] + others),
        (strength * (learnt[:, None] - others))[differ],
        np.repeat(s ** (2 * (depth - 1)), abs(net.widths[0] - net.widths[-1])),
    ]
    if depth == 2:
        spare = np.repeat(others[others > 0.0], net.widths[1] - len(chosen))
        parts += [spare, -spare]
    return np.concatenate([np.ravel(part) for part in parts])


def canonical_inertia(
    net: LinearNetwork, learnt: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return Morse index and nullity at the canonical points of many index sets (point, mode).

    Counted from the closed spectrum. Points with the same S and no residual network's weights are
    joined by invertible changes of coordinates for every input covariance, so the inertia is that
    of the whitened problem; input directions without data add d_1 zeros each.
    """
    sigma, rank = net.singular_values, learnt.sum(axis=1)
    inputs, outputs = net.target.shape[1], net.widths[-1]
    if net.depth == 1:
        return np.zeros_like(rank), np.full_like(rank, (net.widths[0] - inputs) * outputs)
    larger = exceeds(sigma)
    index = count_pairs(learnt, larger)
    nonzero = rank * (inputs + outputs - rank) - count_pairs(learnt, ~(larger | larger.T))
    if net.depth == 2:
        spare = (net.widths[1] - rank) * ((~learnt) & (sigma > 0.0)).sum(axis=1)
        index, nonzero = index + spare, nonzero + 2 * spare
    return index, net.dim - nonzero
