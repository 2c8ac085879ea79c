"""Arcs between critical points, with their exact loss."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from dlnds import schema
from dlnds.errors import check_flag, check_integer, check_memory, known_options
from dlnds.moments import balanced_layers, canonical_frames
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.protocol import Array


@known_options
def activation_arcs(
    net: LinearNetwork, points: xr.Dataset, *, n_alpha: int = 33, progress: bool = False
) -> xr.Dataset:
    """Return the arcs that add one mode: from A_S straight to A_{S∪{j}}.

    Along the arc the unlearnt mode j grows to the size α in every layer. The arcs between the given
    points are sampled at α from 0 to σ_j^{1/h}.

    Parameters
    ----------
    net
        The network.
    points
        Its critical points, as `critical_points` lists them.
    n_alpha
        Samples of each arc.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``arcs``: ``source(arc)`` and ``target(arc)``, index sets; ``mode(arc)``, the mode
        added; ``loss(arc, alpha)`` at the sampled states and ``exact_loss`` by the closed form;
        ``kind``, always decreasing; ``order`` h of the loss at the start; ``drop``, the loss lost.
        The coordinate ``alpha`` is α in units of σ_j^{1/h}, from 0 to 1.

    Raises
    ------
    ValueError, TypeError
        If the points are not those of this network, or ``n_alpha`` is less than 2.

    Notes
    -----
    Whitened problems: L(α) − L_S = −σ_j α^h + ½ α^{2h}, decreasing on 0 < α < σ_j^{1/h}. Other
    problems are followed in whitened coordinates, where the loss is the same.

    References
    ----------
    WA25

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> arcs = dl.activation_arcs(net, dl.critical_points(net))
    >>> list(zip(arcs.source.values.tolist(), arcs.target.values.tolist()))
    [('{}', '{0}'), ('{}', '{1}'), ('{0}', '{0,1}'), ('{1}', '{0,1}')]
    """
    check_network(net)
    if not isinstance(points, xr.Dataset) or points.attrs.get("schema") != "critical_points":
        raise TypeError("points: needs the Dataset that critical_points returns")
    if points.attrs.get("problem_digest") != net.digest:
        raise ValueError("points: belong to another network")
    count = check_integer("n_alpha", n_alpha, minimum=2)
    white = LinearNetwork((net.target.shape[1], *net.widths[1:]), net.target)
    pairs = _additions(points)
    check_memory("n_alpha", count * (3 * len(pairs) + 4 * net.dim))
    fractions = np.linspace(0.0, 1.0, count)
    loss = np.empty((len(pairs), len(fractions)))
    for row, (source, mode) in zip(
        loss, tqdm(pairs, "arcs", disable=not check_flag("progress", progress)), strict=True
    ):
        row[:] = _loss_along(white, source, mode, fractions)
    sigma = net.singular_values[[mode for _, mode in pairs]]
    start = np.array([0.5 * np.sum(np.delete(net.singular_values, s) ** 2) for s, _ in pairs])
    powers = fractions**net.depth
    change = np.multiply.outer(sigma**2, 0.5 * powers**2 - powers)
    dataset = xr.Dataset(
        {
            "mode": ("arc", np.array([mode for _, mode in pairs], np.int64)),
            "kind": ("arc", schema.flag(schema.ARC_KINDS, ["decreasing"] * len(pairs))),
            "order": ("arc", np.full(len(pairs), net.depth)),
            "drop": ("arc", 0.5 * sigma**2),
            "loss": (("arc", "alpha"), loss),
            "exact_loss": (("arc", "alpha"), start.reshape(-1, 1) + change),
        },
        coords={
            "source": ("arc", schema.index_set_labels(source for source, _ in pairs)),
            "target": ("arc", schema.index_set_labels((*source, mode) for source, mode in pairs)),
            "alpha": fractions,
        },
    )
    return schema.finish(dataset, "arcs", net.attributes())


def _additions(points: xr.Dataset) -> list[tuple[tuple[int, ...], int]]:
    """Return (S, j) for all points S and S ∪ {j} of the table."""
    sets = [schema.index_set_modes(label) for label in points.critical_point.values]
    known = set(sets)
    modes = sorted({mode for chosen in sets for mode in chosen})
    return [
        (chosen, mode)
        for chosen in sets
        for mode in modes
        if mode not in chosen and tuple(sorted((*chosen, mode))) in known
    ]


def _loss_along(
    net: LinearNetwork, source: tuple[int, ...], mode: int, fractions: Array
) -> NDArray[np.float64]:
    """Return the loss at sampled states of one arc of a whitened network."""
    left, sigma, right = net.singular_modes
    chosen = [*source, mode]
    sizes = sigma[chosen] ** (1.0 / net.depth)
    before = sizes * (np.arange(len(chosen)) < len(source))
    frames = canonical_frames(net.widths, left[:, chosen], right[:, chosen])
    start, end = (net.pack(balanced_layers(frames, s)) for s in (before, sizes))
    states = start + np.multiply.outer(fractions, end - start)
    loss: NDArray[np.float64] = net.loss(states)
    return loss
