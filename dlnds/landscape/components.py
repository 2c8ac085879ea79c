"""The fiber over a map as a space: its components, paths and lines in it, its flattest point."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array, Integers
from dlnds.errors import check_integer, check_memory, known_options
from dlnds.landscape.index_sets import MOST_POINTS
from dlnds.landscape.points import check_critical
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.network import LayeredSystem, check_layered, check_undecayed
from dlnds.systems.protocol import check_state
from dlnds.theory import components, moments, spectra, strings, tolerances
from dlnds.theory.coordinates import flat

#: Sharpnesses that differ by less, relative, are the same: ten times the accuracy of a search.
_SAME_SHARPNESS = 1e-10


@known_options
def fiber_components(net: LinearNetwork, rank: int | None = None) -> xr.Dataset:
    """Return the connected components of the fiber over a map, with a point of each.

    Parameters
    ----------
    net
        The network.
    rank
        Rank ρ of the map, that of the ``rank`` largest modes; ``None`` takes the global minima.

    Returns
    -------
    xarray.Dataset
        Schema ``fiber_components``: ``count``, the number 2^b of components;
        ``orientation(component, level)``, the signs of det E_i by which they differ, 0 at levels
        that do not decide (see `fiber_orientation`); ``state(component, parameter)``, a balanced
        critical point in each; ``rank``.

    Raises
    ------
    ValueError, TypeError
        If there is no critical point of this rank, or more than 100,000 components; the message
        names the count.

    Notes
    -----
    {W = W*} is homotopy equivalent to the product of the Stiefel manifolds V_ρ(R^{d_i}), 0 < i < h,
    so that b is the number of hidden widths that are ρ. The same holds for the critical points over
    one map, whatever modes it has learnt. Where W can turn among equal singular values of which
    some are learnt, those over all such maps may be joined.

    References
    ----------
    TKB20 (Trager, Kohn & Bruna, arXiv:1910.01671) for the number; AMG24 (Achour, Malgouyres &
    Gerchinovitz, arXiv:2107.13289) for what is critical

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(3, 2, 4, 2, 3), target=np.diag([3.0, 2.0, 1.0]))
    >>> parts = dl.fiber_components(net)
    >>> int(parts["count"]), parts.orientation.values.tolist()[1]
    (4, [0, 1, 0, -1, 0])
    >>> int(dl.fiber_components(net, rank=1)["count"])
    1
    """
    check_network(net)
    least, most = net.critical_ranks
    number = most if rank is None else check_integer("rank", rank, minimum=least, maximum=most)
    decides = components.deciding(net.widths, number)
    count = 2 ** int(np.count_nonzero(decides))
    if count > MOST_POINTS:
        raise ValueError(f"rank: needs at most {MOST_POINTS:,} components, got {count:,}")
    check_memory("net", 2 * count * net.dim)
    signs = np.array(list(itertools.product((1, -1), repeat=count.bit_length() - 1)))
    orientation = np.zeros((count, len(net.widths)), np.int64)
    orientation[:, decides] = signs.reshape(count, -1)
    layers = net.unpack(net.critical_state(range(number)))
    states = np.stack([flat(_reflected(layers, row, number)) for row in orientation])
    variables = {
        "count": np.int64(count),
        "rank": np.int64(number),
        "orientation": (("component", "level"), orientation),
        "state": (("component", "parameter"), states),
    }
    coords = {**net.coordinates(), **_levels(net), "component": np.arange(count)}
    return schema.finish(xr.Dataset(variables, coords), "fiber_components", net.attributes())


@known_options
def fiber_orientation(
    net: LinearNetwork, x: ArrayLike | xr.Dataset, *, rtol: float | None = None
) -> xr.Dataset:
    """Return the signs that tell in which component of its fiber a critical point is.

    Parameters
    ----------
    net
        The network.
    x
        Critical state (parameter), or what has one, as for `classify`.
    rtol
        How accurately it is critical, as for `classify`.

    Returns
    -------
    xarray.Dataset
        Schema ``fiber_orientation``: ``orientation(level)``, the sign of det E_i at the hidden
        levels with d_i = ρ, 0 at the others; ``margin(level)``, the smallest singular value of E_i
        in terms of the norms of what it is the product of; ``rank``, ρ. ``is_clear`` is 0 where a
        margin is within the rounding or the accuracy of the state.

    Raises
    ------
    ValueError
        If the state is not critical, with how far it is from that.

    Notes
    -----
    E_i = W_{1:i} K V with V the right singular vectors of W K, oriented so that all signs of the
    canonical point are positive. Two points over one map are in the same component of the fiber
    exactly if all signs agree.

    References
    ----------
    TKB20 (Trager, Kohn & Bruna, arXiv:1910.01671)

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 1, 1), target=[[4.0]])
    >>> dl.fiber_orientation(net, [-2.0, -2.0]).orientation.values.tolist()
    [0, -1, 0]
    """
    state, found, accuracy = check_critical(net, x, rtol)
    signs, margins = _orientation(net, state, found)
    limit = max(tolerances.rounding(max(net.widths)), accuracy, rtol or 0.0)
    variables = {
        "orientation": ("level", signs),
        "margin": ("level", margins),
        "rank": np.int64(len(found.modes)),
        "is_clear": np.int8(margins[signs != 0].min(initial=np.inf) > limit),
    }
    dataset = xr.Dataset(variables, _levels(net))
    attrs = {**net.attributes(), **({} if rtol is None else {"rtol": rtol})}
    return schema.finish(dataset, "fiber_orientation", attrs)


@known_options
def fiber_path(
    net: LinearNetwork,
    x: ArrayLike | xr.Dataset,
    y: ArrayLike | xr.Dataset,
    *,
    n_points: int = 101,
    rtol: float | None = None,
) -> xr.Dataset:
    """Return a path between two critical points with the same map, all of which have that map.

    Parameters
    ----------
    net
        The network.
    x, y
        Critical states (parameter), or what has one, as for `classify`.
    n_points
        How many states, both ends included.
    rtol
        How accurately they are critical, as for `classify`, and their maps agree.

    Returns
    -------
    xarray.Dataset
        Schema ``fiber_path``: ``state(point, parameter)``, ``loss(point)``, and
        ``map_distance(point)``, how far W K is from that of ``x``, relative to it (of W K = 0, to
        the target).

    Raises
    ------
    ValueError
        If a state is not critical, the maps differ, or the states are in different components;
        then the message names the layers in which the signs differ.

    Notes
    -----
    h straight lines contract one layer after the other to what W needs, E_i E_{i−1}^+; then the
    frames E_i are turned; and h lines lead to the other end. All states are critical. Each of the
    2 h + 1 pieces takes an equal share of the points.

    References
    ----------
    TKB20 (Trager, Kohn & Bruna, arXiv:1910.01671)

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> x, y = (dl.random_fiber_state(net, (0,), rng=rng) for rng in (0, 1))
    >>> path = dl.fiber_path(net, x, y, n_points=20)
    >>> bool(path.map_distance.max() < 1e-12), bool(abs(path.loss - 0.5).max() < 1e-12)
    (True, True)
    """
    first, found, _ = check_critical(net, x, rtol)
    last, other, _ = check_critical(net, y, rtol, "y")
    n_points = check_integer("n_points", n_points, minimum=2)
    check_memory("n_points", 2 * n_points * net.dim)
    _check_joined(net, (first, found), (last, other), rtol)
    root = net.input_root
    ends = [components.contracted(net.unpack(s), root, found.right) for s in (first, last)]
    path = components.joining(*ends)
    positions = np.linspace(0.0, 2.0 * net.depth + 1.0, n_points).tolist()
    states = np.stack([flat(path(position)) for position in positions])
    images = net.problem.image(net.product(states))
    size = np.linalg.norm(images[0] if found.modes else net.target) or 1.0
    distance = np.linalg.norm(images - images[0], axis=(1, 2)) / size
    variables = {
        "state": (("point", "parameter"), states),
        "loss": ("point", net.loss(states)),
        "map_distance": ("point", distance),
    }
    attrs = {**net.attributes(), **({} if rtol is None else {"rtol": rtol})}
    return schema.finish(xr.Dataset(variables, net.coordinates()), "fiber_path", attrs)


@known_options
def fiber_line(net: LayeredSystem, x: ArrayLike) -> xr.Dataset:
    """Return a straight line through a state, to infinity, along which the map does not change.

    Parameters
    ----------
    net
        A network of layers, with any loss.
    x
        Any state (parameter).

    Returns
    -------
    xarray.Dataset
        Schema ``fiber_line``: ``tangent(parameter)``, a unit vector v: all of x + s v have the map
        of ``x``; ``state(parameter)``, x. ``is_symmetry`` is 1 where the line is an orbit of
        changes of a hidden basis, so that it keeps what is critical.

    Raises
    ------
    ValueError
        If there is none: of a single layer, or where all hidden widths are 1 and W is not zero; or
        if the network has weight decay.

    Notes
    -----
    With K = a bᵀ and bᵀ a = 0, W_i → (I + s K) W_i and W_{i+1} → W_{i+1} (I − s K). Where all such
    K do nothing a layer vanishes, and another one is free. If all hidden widths are 1, W ≠ 0 has no
    line, but W_1 → c W_1, W_2 → W_2/c goes to infinity as well: the sets of equal loss of two
    layers and more are unbounded.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> x = net.critical_state((0, 1))
    >>> line = dl.fiber_line(net, x)
    >>> bool(abs(net.gradient(x + 100.0 * line.tangent.values)).max() < 1e-9)
    True
    """
    check_layered(net)
    check_undecayed(net)
    state = check_state("x", net, x)
    layers = net.unpack(state)
    change, is_symmetry = _sheared(layers), True
    if change is None:
        change, is_symmetry = _free(layers), False
    if change is None:
        raise ValueError(
            f"x: needs a hidden layer of at least 2 units, or a layer of zeros beside another, got "
            f"widths {net.widths}: no straight line keeps this map"
        )
    direction = flat(change)
    variables = {
        "state": ("parameter", state),
        "tangent": ("parameter", direction / np.linalg.norm(direction)),
        "is_symmetry": np.int8(is_symmetry),
    }
    dataset = xr.Dataset(variables, net.coordinates())
    return schema.finish(dataset, "fiber_line", net.attributes())


@known_options
def flattest_minimum(net: LinearNetwork) -> xr.Dataset:
    """Return a balanced global minimum, and whether none has a smaller sharpness.

    Parameters
    ----------
    net
        The network.

    Returns
    -------
    xarray.Dataset
        Schema ``flattest_minimum``: ``state(parameter)``, balanced; ``sharpness``, the largest
        eigenvalue of the Hessian there; ``lower_bound``, which no global minimum falls below, 0
        where none is known; ``is_smallest``, 1 where both are the same, so that this is the
        smallest sharpness of all global minima.

    Notes
    -----
    At a perfect fit, W K = Σ, the Hessian is JᵀJ. Of a unit vector w with W K w = c u, ‖u‖ = 1, the
    inequality of means on Σ_i ‖L_iᵀ u‖² ‖W_{1:i−1} K w‖² gives λ_max ≥ h (‖K w‖² c^{2h−2})^{1/h}.
    With whitened inputs the best is h σ_0^{2−2/h}, which balanced minima attain, of any widths.
    Otherwise the best of the singular vectors w of K and of Σ is taken: a bound that need not be
    attained. Where the narrowest layer leaves a residual nothing is proved, although no smaller
    value than the balanced one is known for whitened inputs.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[4.0, 0.0], [0.0, 1.0]])
    >>> flat = dl.flattest_minimum(net)
    >>> float(flat.sharpness.round(9)), float(flat.lower_bound), int(flat.is_smallest)
    (8.0, 8.0, 1)
    """
    check_network(net)
    W = net.product(net.critical_state(range(net.max_rank)))
    left, values, right = np.linalg.svd(W, full_matrices=False)
    kept = slice(net.max_rank)
    state = moments.canonical_state(net.widths, left[:, kept], values[kept], right[kept].T)
    sharpness = spectra.largest_eigenvalue(lambda v: net.hessian_product(state, v), net.dim)
    fits = net.max_rank == np.count_nonzero(net.singular_values)
    bound = _least_sharpness(net) if fits else 0.0
    near = sharpness <= bound * (1.0 + _SAME_SHARPNESS)
    variables = {
        "state": ("parameter", state),
        "sharpness": sharpness,
        "lower_bound": bound,
        "is_smallest": np.int8(fits and near),
        "rank": np.int64(net.max_rank),
    }
    dataset = xr.Dataset(variables, net.coordinates())
    return schema.finish(dataset, "flattest_minimum", net.attributes())


def _least_sharpness(net: LinearNetwork) -> float:
    """Return max_w h (‖K w‖² ‖Σ w‖^{2h−2})^{1/h} over singular vectors w of Σ and K."""
    h, (_, _, tried) = net.depth, net.singular_modes
    if net.input_root is None:
        return float(h * net.singular_values[0] ** (2.0 - 2.0 / h))
    tried = np.hstack([tried, np.linalg.svd(net.input_root)[2].T])
    inputs = np.linalg.norm(net.input_root @ tried, axis=0)
    outputs = np.linalg.norm(net.target @ tried, axis=0)
    return float(h * np.max(inputs**2 * outputs ** (2.0 * h - 2.0)) ** (1.0 / h))


def _levels(net: LinearNetwork) -> dict[str, Any]:
    return {"level": np.arange(len(net.widths)), "width": ("level", np.array(net.widths))}


def _reflected(layers: Sequence[Array], signs: Integers, rank: int) -> list[Array]:
    """Return the layers with the last of the units turned round at levels with a negative sign."""
    turned = [w.copy() for w in layers]
    for level in np.flatnonzero(signs < 0).tolist():
        turned[level - 1][rank - 1] *= -1.0
        turned[level][:, rank - 1] *= -1.0
    return turned


def _orientation(net: LinearNetwork, state: Array, found: strings.Learnt) -> tuple[Integers, Array]:
    """Return the signs of all levels, 0 where they do not decide, and the margins of E_i."""
    rank, root = len(found.modes), net.input_root
    decides = components.deciding(net.widths, rank)
    signs, margins = np.zeros(len(decides), np.int64), np.ones(len(decides))
    if not decides.any():
        return signs, margins
    own = net.problem.modes[2][:, list(found.modes)]
    right = found.right @ (found.right.T @ own)
    canonical = net.unpack(net.critical_state(found.modes))
    positive = components.contracted(canonical, root, own).frames[0][:rank]
    frames = components.contracted(net.unpack(state), root, right).frames
    sizes = np.cumprod([np.linalg.norm(w, 2) for w in found.layers])
    for level in np.flatnonzero(decides).tolist():
        frame = frames[level - 1]
        signs[level] = np.linalg.slogdet(frame)[0] * np.linalg.slogdet(positive)[0]
        margins[level] = np.linalg.norm(frame, -2) / sizes[level - 1]
    return signs, margins


def _check_joined(
    net: LinearNetwork,
    first: tuple[Array, strings.Learnt],
    last: tuple[Array, strings.Learnt],
    rtol: float | None,
) -> None:
    """Refuse two states whose maps differ, or that are in different components."""
    images = [net.problem.image(net.product(state)) for state, _ in (first, last)]
    miss = np.linalg.norm(images[1] - images[0]) / (np.linalg.norm(net.target) or 1.0)
    allowed = tolerances.NEARLY if rtol is None else rtol
    if len(first[1].modes) != len(last[1].modes) or miss > allowed:
        raise ValueError(
            f"y: needs the map of x, differs from it by {miss:.3g} of the target; rtol is "
            f"{allowed:g}"
        )
    signs = [_orientation(net, *point)[0] for point in (first, last)]
    apart = np.flatnonzero(signs[0] != signs[1]).tolist()
    if apart:
        raise ValueError(
            f"y: is in another component of the fiber than x, the orientations differ at levels "
            f"{apart}"
        )


def _sheared(layers: Sequence[Array]) -> list[Array] | None:
    """Return the change of layers by a nilpotent K at a hidden level, None if all do nothing."""
    for i, (w, after) in enumerate(itertools.pairwise(layers)):
        if len(w) < 2 or not (w.any() or after.any()):
            continue
        if w.any():
            b, a = np.linalg.svd(w)[0].T[[0, -1]]
        else:
            a, b = np.linalg.svd(after)[2][[0, -1]]
        change = [np.zeros_like(part) for part in layers]
        change[i], change[i + 1] = np.outer(a, b @ w), -np.outer(after @ a, b)
        return change
    return None


def _free(layers: Sequence[Array]) -> list[Array] | None:
    """Return a change of one layer beside another that vanishes, or None."""
    zero = [i for i, w in enumerate(layers) if not w.any()]
    if not zero or len(layers) < 2:
        return None
    change = [np.zeros_like(w) for w in layers]
    change[1 if zero[0] == 0 else 0][0, 0] = 1.0
    return change
