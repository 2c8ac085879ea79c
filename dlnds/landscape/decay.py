"""Branches of critical points over weight decay, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.errors import check_array, check_integer, check_memory, known_options
from dlnds.landscape.points import decayed_branches
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.theory import penalized


@known_options
def decay_diagram(
    net: LinearNetwork,
    bounds: Sequence[float] = (0.0, 2.0),
    *,
    n_points: int = 201,
    max_rank: int | None = None,
    modes: Sequence[int] | None = None,
) -> xr.Dataset:
    """Return all critical points of a whitened network as weight decay varies, in closed form.

    Parameters
    ----------
    net
        The network. Its own weight decay does not matter.
    bounds
        The smallest and the largest weight decay λ, the same for all layers.
    n_points
        Number of equidistant values of λ.
    max_rank, modes
        Which branches to list, as for `critical_points`.

    Returns
    -------
    xarray.Dataset
        Schema ``decay_diagram``: of each ``branch``, named as the points of `critical_points`, at
        each ``weight_decay``: ``loss``, with the penalty, and ``size(branch, weight_decay, mode)``,
        the s_j of all layers, NaN where the branch does not exist; ``index`` of the Hessian, −1
        there, and ``kind``, ``not_critical`` there. ``most_decay(mode)`` is the λ at which the
        roots of a mode end: a fold where upper and lower one meet for three layers or more, σ_j for
        two layers, a pitchfork; infinite for a single layer.

    Raises
    ------
    ValueError
        If bounds are negative or do not ascend, the network is not whitened, there are more than
        100,000 branches, or they do not fit into memory.

    Notes
    -----
    Lower roots begin at s = 0 for λ = 0, where they are no points of their own: branches with any
    do not exist there.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork((1, 1, 1, 1), [[2.0]])
    >>> found = dl.decay_diagram(net, (0.0, 2.0), n_points=3)
    >>> found.branch.values.tolist(), found.most_decay.values.round(4).tolist()
    (['{}', '{0⁺}', '{0⁻}'], [1.1906])
    >>> found["size"].sel(branch="{0⁺}", mode=0).values.round(4).tolist()
    [1.2599, 1.0, nan]
    """
    check_network(net, with_decay=True)
    if not net.whitened:
        raise ValueError("net: needs whitened inputs, got raw ones")
    ends = check_array("bounds", bounds, ndim=1, shape=(2,))
    if not 0.0 <= ends[0] < ends[1]:
        raise ValueError(f"bounds: needs two ascending numbers of at least 0, got {tuple(ends)}")
    n_points = check_integer("n_points", n_points, minimum=2)
    decays = np.linspace(ends[0], ends[1], n_points)
    sigma, depth = net.problem.modes[1], net.depth
    # All roots that there are somewhere between the bounds.
    first = penalized.counts(sigma, max(float(ends[0]), np.finfo(float).tiny), depth)
    labels, signs = decayed_branches(net.undecayed(), first, max_rank, modes)
    check_memory("n_points", signs.size * len(decays))
    columns = [_at(net, signs, decay) for decay in decays.tolist()]
    variables: dict[str, Any] = {
        name: (("branch", "weight_decay", "mode")[: values[0].ndim + 1], np.stack(values, axis=1))
        for name, values in ((name, [c[name] for c in columns]) for name in columns[0])
    }
    variables["rank"] = ("branch", np.count_nonzero(signs, axis=1))
    variables["most_decay"] = (
        "mode",
        np.array([penalized.most_decay(s, depth) if s else 0.0 for s in sigma]),
    )
    coords = {
        "branch": labels,
        "weight_decay": decays,
        "mode": np.arange(len(sigma)),
        "singular_value": ("mode", sigma.copy()),
    }
    return schema.finish(xr.Dataset(variables, coords), "decay_diagram", net.attributes())


def _at(net: LinearNetwork, signs: Any, decay: float) -> dict[str, Any]:
    """Return what is known of all branches at one decay."""
    sigma = net.problem.modes[1]
    sizes = penalized.sizes(sigma, signs, decay, net.depth)
    loss = penalized.losses(sigma, sizes, decay, net.depth)
    index = penalized.indices(net.problem, signs, decay)
    kinds = penalized.kinds(net.problem, min(net.widths), index, loss, decay)
    none = np.isnan(loss)
    return {
        "loss": loss,
        "size": np.where(none[:, None], np.nan, sizes),
        "index": np.where(none, -1, index),
        "kind": schema.flag(schema.CLASSIFIED_KINDS, np.where(none, "not_critical", kinds)),
    }
