"""Saddles that a run passes: where it rests, for how long, and how long it should."""

import itertools
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dlnds import schema
from dlnds.errors import check_number, known_options
from dlnds.exact import growth_time
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.protocol import Array


@known_options
def saddle_visits(net: LinearNetwork, run: xr.Dataset, *, radius: float = 0.05) -> xr.Dataset:
    """Return the sequence of critical values that a run rests at.

    A visit is an interval of saved rows in which the end-to-end map stays within ``radius`` of the
    same P_S Σ: ‖W K − P_S Σ‖_F ≤ radius ‖Σ‖_F, where S holds the modes with u_jᵀ W K v_j > σ_j/2.

    Parameters
    ----------
    net
        The network that the run is of.
    run
        A run with ``state`` or ``product`` (`flow`, `exact_flow`, `as_run`). With
        ``mode_strength`` too, modes far below the rounding of those already learnt are seen.
    radius
        Size of the neighbourhoods, relative to ‖Σ‖_F.

    Returns
    -------
    xarray.Dataset
        Schema ``visits``, dim ``visit``: ``critical_point`` (the index set), ``entry`` and ``exit``
        (times of the first and last row inside), ``duration`` (from the compensated clock),
        ``closest`` (smallest relative distance), ``next_mode`` (the mode learnt next, −1 if none),
        ``escape_time`` (from the entry until that mode reaches σ_j/2, NaN if it does not) and
        ``predicted_escape_time``.

    Raises
    ------
    ValueError, TypeError
        If the run is of another network, or has neither states nor end-to-end maps.

    Notes
    -----
    The prediction is the exact law of a balanced, aligned mode from its strength at the entry,
    t = [F(1/2) − F(p/σ)] / (h σ^{2−2/h}). It does not hold for starts that are not aligned, whose
    modes are not yet on their balanced trajectory.

    References
    ----------
    WA25, section 6; SMG14

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial("aligned", scale=1e-3))
    >>> visits = dl.saddle_visits(net, run)
    >>> visits.critical_point.values.tolist(), visits.escape_time.round(2).values.tolist()
    (['{}', '{0}', '{0,1}'], [2.49, 3.86, nan])
    """
    check_network(net)
    radius = check_number("radius", radius, minimum=0.0, maximum=1.0)
    image = _images(net, run)
    left, sigma, right = net.singular_modes
    strength = net.image_strength(image)
    if "mode_strength" in run:  # with the digits that the map itself has rounded off
        strength = run["mode_strength"].values
    learnt = net.is_learnt(strength)
    nearest = (left * np.where(learnt, sigma, 0.0)[:, None, :]) @ right.T
    size = float(np.linalg.norm(net.target)) or 1.0
    distance = np.linalg.norm(image - nearest, axis=(-2, -1)) / size
    rows = [
        _visit(net, run, strength, learnt, distance, first, last)
        for first, last in _intervals(learnt, distance <= radius)
    ]
    names = ("entry", "exit", "duration", "closest", "escape_time", "predicted_escape_time")
    variables = {name: ("visit", np.array([row[name] for row in rows], float)) for name in names}
    modes = np.array([row["next_mode"] for row in rows], np.int64)
    labels = [schema.index_set_label(row["modes"]) for row in rows]
    dataset = xr.Dataset(
        {**variables, "next_mode": ("visit", modes)},
        coords={"critical_point": ("visit", np.array(labels, dtype=np.str_))},
    )
    return schema.finish(dataset, "visits", {**net.attributes(), "radius": radius})


def _images(net: LinearNetwork, run: xr.Dataset) -> Array:
    """Return W K at every saved row."""
    if (
        not isinstance(run, xr.Dataset)
        or run.attrs.get("schema") != "run"
        or "time" not in run.dims
    ):
        raise TypeError("run: needs one run over time, such as flow returns")
    if run.attrs.get("problem_digest") != net.digest:
        raise ValueError("run: belongs to another network")
    if "product" in run:
        product = run["product"].values
    elif "state" in run:
        product = net.product(run["state"].values)
    else:
        raise ValueError("run: needs states or end-to-end maps; use flow(..., save=['product'])")
    return net.image_of(product)


def _intervals(learnt: NDArray[np.bool_], inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last row of the stretches inside one neighbourhood."""
    changed = np.any(learnt[1:] != learnt[:-1], axis=1) | (inside[1:] != inside[:-1])
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), len(inside)]
    return [(a, b - 1) for a, b in itertools.pairwise(edges) if inside[a]]


def _visit(
    net: LinearNetwork,
    run: xr.Dataset,
    strength: Array,
    learnt: NDArray[np.bool_],
    distance: Array,
    first: int,
    last: int,
) -> dict[str, Any]:
    time, low = run["time"].values, run["time_low"].values
    later = np.flatnonzero(np.any(learnt[last:] & ~learnt[last], axis=1))
    escape, predicted, mode = np.nan, np.nan, -1
    if later.size:
        row = last + int(later[0])
        mode = int(np.argmax(learnt[row] & ~learnt[last]))
        half = 0.5 * net.singular_modes[1][mode]
        p, q = strength[row - 1, mode], strength[row, mode]
        whole = growth_time(p, q, 2.0 * half, net.depth)
        part = growth_time(p, half, 2.0 * half, net.depth) / whole if p < half < q else 0.0
        if not 0.0 < part < 1.0:
            part = (half - p) / (q - p)
        step = (time[row] - time[row - 1]) + (low[row] - low[row - 1])
        waited = (time[row - 1] - time[first]) + (low[row - 1] - low[first])
        escape = waited + part * step
        predicted = growth_time(strength[first, mode], half, 2.0 * half, net.depth)
    return {
        "modes": np.flatnonzero(learnt[first]),
        "entry": time[first],
        "exit": time[last],
        "duration": (time[last] - time[first]) + (low[last] - low[first]),
        "closest": distance[first : last + 1].min(),
        "next_mode": mode,
        "escape_time": escape,
        "predicted_escape_time": predicted,
    }
