"""Distances in the quotient by the orthogonal groups, and runs projected to it."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import (
    check_choice,
    check_generator,
    check_integer,
    check_rows,
    known_options,
)
from dlnds.landscape.quotient import check_layered
from dlnds.systems.network import LayeredSystem
from dlnds.systems.protocol import check_state
from dlnds.theory.coordinates import flat

#: Most sweeps of one alignment, and words that invariants are made of.
MOST_SWEEPS, MOST_WORDS = 500, 500
#: Most random starts of an alignment.
MOST_RESTARTS = 1000


@known_options
def orbit_distance(
    net: LayeredSystem,
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: str = "procrustes",
    restarts: int = 4,
    rng: Any = 0,
) -> float:
    """Return the distance of the orbits of two states under the orthogonal groups.

    Parameters
    ----------
    net
        The network.
    x, y
        States (parameter).
    method
        ``"procrustes"`` aligns ``x`` with ``y`` and gives ‖P·x − y‖, which is the distance if the
        best alignment is found, and never less. ``"invariants"`` gives a lower bound from what the
        groups do not change.
    restarts
        Random alignments to start from, besides three that are made layer by layer.
    rng
        Seed or `numpy.random.Generator` of the restarts (SPEC 7); equal calls are equal.

    Returns
    -------
    float
        min over P_i ∈ O(d_i) of ‖P·x − y‖, a metric on the quotient.

    Raises
    ------
    ValueError, TypeError
        If a state has the wrong shape or is not finite, or the method is unknown.

    Notes
    -----
    *Procrustes.* With all but one P_i fixed the best one is V Uᵀ for the singular value
    decomposition U S Vᵀ of W_i P_{i−1}ᵀ Y_iᵀ + W_{i+1}ᵀ P_{i+1}ᵀ Y_{i+1}; layers take turns until
    nothing changes. For two layers the first turn is the best.

    *Invariants.* The larger of two bounds: layer by layer, ends free to turn on their own (singular
    values; one-sided Procrustes for the first and last layer); and words, products of layers and
    their transposes from ends to ends, ‖w(x) − w(y)‖ over the largest rate at which w can change.
    It is zero only if all words of up to 2 h layers agree.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    >>> x = net.initial(scale=1.0, rng=0)
    >>> turn = [[0.0, -1.0], [1.0, 0.0]]
    >>> dl.orbit_distance(net, x, dl.act(net, [turn], x)) < 1e-14
    True
    """
    check_layered(net)
    states = [check_state(n, net, v) for n, v in (("x", x), ("y", y))]
    method = check_choice("method", method, ("procrustes", "invariants"))
    restarts = check_integer("restarts", restarts, minimum=0, maximum=MOST_RESTARTS)
    generator = check_generator("rng", rng)
    first, second = (net.unpack(state) for state in states)
    if method == "invariants":
        return max(_layer_bound(first, second), _word_bound(first, second))
    turned = _aligned(first, second, restarts, generator)
    return float(np.linalg.norm(flat(turned) - states[1]))


def _aligned(
    layers: Sequence[Array], others: Sequence[Array], restarts: int, rng: np.random.Generator
) -> list[Array]:
    """Return P·x nearest to y over the orthogonal groups, the best of several alignments."""
    sizes = [len(w) for w in layers[:-1]]
    starts = [[np.eye(d) for d in sizes], _swept(layers, others, 1), _swept(layers, others, -1)]
    for _ in range(restarts):
        starts.append([scipy.linalg.qr(rng.normal(size=(d, d)))[0] for d in sizes])
    results = [orthogonally_moved(layers, _turns(layers, others, start)) for start in starts]
    return min(results, key=lambda turned: float(np.linalg.norm(flat(turned) - flat(others))))


def orthogonally_moved(layers: Sequence[Array], group: Sequence[Array]) -> list[Array]:
    """Return P_i W_i P_{i−1}ᵀ for orthogonal P_1, …, P_{h−1}."""
    result = list(layers)
    for i, p in enumerate(group):
        result[i] = p @ result[i]
        result[i + 1] = result[i + 1] @ p.T
    return result


def _swept(layers: Sequence[Array], others: Sequence[Array], direction: int) -> list[Array]:
    """Return turns found one after the other from the inputs (1) or from the outputs (−1)."""
    count = len(layers) - 1
    group: list[Array] = [np.eye(len(w)) for w in layers[:-1]]
    for i in range(count)[::direction]:
        group[i] = _best_turn(layers, others, group, i, ahead=direction < 0, behind=direction > 0)
    return group


def _turns(layers: Sequence[Array], others: Sequence[Array], start: Sequence[Array]) -> list[Array]:
    """Return turns that no change of a single one improves."""
    group = list(start)
    for _ in range(MOST_SWEEPS):
        change = 0.0
        for i in range(len(group)):
            turn = _best_turn(layers, others, group, i, ahead=True, behind=True)
            change = max(change, float(np.abs(turn - group[i]).max()))
            group[i] = turn
        if change <= 1e-14:
            break
    return group


def _best_turn(
    layers: Sequence[Array],
    others: Sequence[Array],
    group: Sequence[Array],
    i: int,
    *,
    ahead: bool,
    behind: bool,
) -> Array:
    """Return the best turn of hidden layer i, counted from 0, by the layers on its sides."""
    match = np.zeros((len(group[i]), len(group[i])))
    if behind:
        before = layers[i] if i == 0 else layers[i] @ group[i - 1].T
        match += before @ others[i].T
    if ahead:
        after = layers[i + 1] if i + 1 == len(group) else group[i + 1] @ layers[i + 1]
        match += after.T @ others[i + 1]
    U, _, Vt = np.linalg.svd(match)
    turn: Array = Vt.T @ U.T
    return turn


def _layer_bound(layers: Sequence[Array], others: Sequence[Array]) -> float:
    """Return the distance if the two sides of every hidden layer could be turned on their own."""
    total, last = 0.0, len(layers) - 1
    for i, (w, v) in enumerate(zip(layers, others, strict=True)):
        if last == 0:
            total += float(np.sum((w - v) ** 2))
        elif i in (0, last):
            overlap = w @ v.T if i == 0 else w.T @ v
            U, _, Vt = np.linalg.svd(overlap)
            turned = Vt.T @ U.T @ w if i == 0 else w @ U @ Vt
            total += float(np.sum((turned - v) ** 2))
        else:
            values = (np.linalg.svd(a, compute_uv=False) for a in (w, v))
            total += float(np.sum(np.subtract(*values) ** 2))
    return float(np.sqrt(total))


def _word_bound(layers: Sequence[Array], others: Sequence[Array]) -> float:
    """Return the largest ‖w(x) − w(y)‖ of a word w over the rate at which w can change."""
    depth = len(layers)
    norms = [
        max(float(np.linalg.norm(w, 2)), float(np.linalg.norm(v, 2)))
        for w, v in zip(layers, others, strict=True)
    ]
    best, known = 0.0, 0
    inputs, outputs = layers[0].shape[1], len(layers[-1])
    eye = (np.eye(inputs), np.eye(outputs))
    words: list[tuple[int, Array, Array, tuple[int, ...]]] = [
        (0, eye[0], eye[0], ()),
        (depth, eye[1], eye[1], ()),
    ]
    while words and known < MOST_WORDS:
        node, first, second, used = words.pop(0)
        for step in (1, -1):
            arrow = node if step > 0 else node - 1
            if not 0 <= arrow < depth or len(used) >= 2 * depth:
                continue
            a, b = layers[arrow], others[arrow]
            word = ((a if step > 0 else a.T) @ first, (b if step > 0 else b.T) @ second)
            path = (*used, arrow)
            if node + step in (0, depth):
                known += 1
                rates = np.zeros(depth)
                for place, k in enumerate(path):
                    rates[k] += np.prod([norms[m] for n, m in enumerate(path) if n != place])
                rate = float(np.linalg.norm(rates))
                change = float(np.linalg.norm(word[0] - word[1]))
                best = max(best, change / rate if rate > 0.0 else 0.0)
            else:
                words.append((node + step, *word, path))
    return best


@known_options
def quotient_run(
    net: LayeredSystem, run: xr.Dataset, reference: ArrayLike | None = None
) -> xr.Dataset:
    """Return a run projected to the quotient: each state moved along its orbit to a reference.

    Parameters
    ----------
    net
        The network of the run.
    run
        A run with its states.
    reference
        State (parameter) that all are aligned with; the last of the run if there is none.

    Returns
    -------
    xarray.Dataset
        Schema ``quotient_run``: ``state(time, parameter)``, the nearest point to the reference on
        the orbit of each state; ``orbit_distance(time)`` from it; ``length(time)``, how far the run
        has come in the quotient, by the distances of neighbouring rows.

    Raises
    ------
    ValueError, TypeError
        If the Dataset is no single run of this network with states.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=0.1, rng=0), t_span=(0, 5), t_eval=[0, 2, 5])
    >>> bool(dl.quotient_run(net, run).orbit_distance[-1] < 1e-13)
    True
    """
    check_layered(net)
    if not isinstance(run, xr.Dataset) or "state" not in run:
        raise TypeError("run: needs a run with its states; save 'state' with it")
    schema.check_digest("run", run, net.digest)
    dim = next((d for d in ("time", "step", "iteration") if d in run["state"].dims), "time")
    run = schema.check_content("run", run, {"state": (dim, "parameter"), dim: (dim,)})
    if run["state"].ndim != 2 or run.sizes["parameter"] != net.dim:
        raise ValueError(f"run: needs one run with {net.dim} weights, got {dict(run.sizes)}")
    check_rows("run", run[dim].values)
    states = run["state"].values
    for state in states:
        check_state("run", net, state)
    target = states[-1] if reference is None else reference
    last = check_state("reference", net, target)
    rng = np.random.default_rng(0)
    others = net.unpack(last)
    aligned = np.stack([flat(_aligned(net.unpack(x), others, 2, rng)) for x in states])
    steps = [
        np.linalg.norm(flat(_aligned(net.unpack(x), net.unpack(y), 0, rng)) - y)
        for x, y in itertools.pairwise(states)
    ]
    dataset = xr.Dataset(
        {
            "state": ((dim, "parameter"), aligned),
            "orbit_distance": (dim, np.linalg.norm(aligned - last, axis=1)),
            "length": (dim, np.concatenate([[0.0], np.cumsum(steps)])),
        },
        coords={**net.coordinates(), dim: run[dim]},
    )
    return schema.finish(dataset, "quotient_run", net.attributes())
