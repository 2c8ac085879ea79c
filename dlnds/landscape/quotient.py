"""The symmetry of networks: group action, orbits, distances between them, and runs modulo it.

O(d_1) × … × O(d_{h−1}) acts on states by W_i → P_i W_i P_{i−1}^{-1}, keeps the loss and its
gradient flow; all of GL(d_1) × … × GL(d_{h−1}) keeps the loss and what is critical.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import (
    check_array,
    check_choice,
    check_finite,
    check_flag,
    check_generator,
    check_integer,
    check_number,
    known_options,
)
from dlnds.systems.network import LayeredSystem, check_layered, check_matrices
from dlnds.systems.protocol import check_state
from dlnds.theory import symmetry, tolerances
from dlnds.theory.coordinates import flat
from dlnds.theory.spectra import Decision, decided

#: Most sweeps of one alignment, words that invariants are made of, and random starts.
MOST_SWEEPS, MOST_WORDS, MOST_RESTARTS = 500, 500, 1000


@known_options
def act(net: LayeredSystem, element: Sequence[ArrayLike] | xr.DataArray, x: ArrayLike) -> Array:
    """Return the state that a group element moves another one to: W_i → P_i W_i P_{i−1}^{-1}.

    Parameters
    ----------
    net
        The network.
    element
        Invertible matrices P_1, …, P_{h−1} (each d_i × d_i), or the ``group_element`` that
        `canonicalize` returns.
    x
        State (parameter).

    Returns
    -------
    numpy.ndarray
        State (parameter), with the same loss.

    Raises
    ------
    ValueError, TypeError
        If matrices are not as many, of other shapes, or singular.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 2

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
    >>> dl.act(net, [[[4.0]]], [1.0, 2.0]).tolist()
    [4.0, 0.5]
    """
    check_layered(net)
    state = check_state("x", net, x)
    matrices = _group_element(net, element)
    for i, p in enumerate(matrices, 1):
        if np.linalg.matrix_rank(p) < len(p):
            raise ValueError(f"element: needs invertible matrices, P_{i} is singular")
    with np.errstate(over="ignore", invalid="ignore"):
        return check_finite("element", flat(symmetry.moved(net.unpack(state), matrices)))


def _group_element(net: LayeredSystem, element: Sequence[ArrayLike] | xr.DataArray) -> list[Array]:
    """Return P_1, …, P_{h−1} given one by one, or as the vector that a Dataset holds."""
    sizes = net.widths[1:-1]
    if isinstance(element, xr.DataArray):
        ends = np.cumsum([0, *(d * d for d in sizes)])
        vector = check_array("element", element, ndim=1, shape=(int(ends[-1]),))
        return [p.reshape(d, d) for p, d in zip(np.split(vector, ends[1:-1]), sizes, strict=True)]
    return check_matrices("element", element, [(d, d) for d in sizes])


@known_options
def orbit_basis(
    net: LayeredSystem, x: ArrayLike, *, orthogonal: bool = True, rtol: float = tolerances.RANK
) -> xr.Dataset:
    """Return an orthonormal basis of the tangent space of the symmetry orbit at a state.

    Parameters
    ----------
    net
        The network.
    x
        State (parameter).
    orthogonal
        Of the orbit of the orthogonal groups, which the flow keeps; otherwise of all of GL, which
        the loss keeps.
    rtol
        Singular values of the generators below this fraction of the largest count as zero.

    Returns
    -------
    xarray.Dataset
        Schema ``orbit``: ``frame(direction, parameter)``; ``orbit_dimension``;
        ``isotropy_dimension``, what the orbit lacks of the dimension of the group since part of it
        leaves the state where it is. ``isotropy``, for the orthogonal groups, names that part:
        ``"O(2) x O(1)"``, ``"trivial"``, or ``""`` where it is not of this form. The attributes
        ``smallest_kept`` and ``largest_dropped`` show how clear the rank is, relative to the
        largest singular value.

    Raises
    ------
    ValueError
        If the state has the wrong shape or is not finite.

    Notes
    -----
    Tangent vectors are K_i W_i − W_i K_{i−1} (K_i skew for the orthogonal groups), taken apart by a
    singular value decomposition. At rank-deficient states the orbit loses dimension: at A_S with r
    modes the isotropy group is O(d_1 − r) × … × O(d_{h−1} − r).

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
    >>> orbit = dl.orbit_basis(net, net.critical_state((0,)))
    >>> int(orbit.orbit_dimension), orbit.isotropy.item()
    (6, 'O(3) x O(3)')
    """
    state, frame, decision = _orbit_frame(net, x, orthogonal, rtol)
    sizes = [d * (d - 1) // 2 if orthogonal else d * d for d in net.widths[1:-1]]
    variables = {
        "frame": (("direction", "parameter"), frame),
        "orbit_dimension": np.int64(len(frame)),
        "isotropy_dimension": np.int64(sum(sizes) - len(frame)),
        "isotropy": symmetry.orthogonal_isotropy(net.unpack(state), rtol) if orthogonal else "",
    }
    attrs = {
        **net.attributes(),
        "rtol": float(rtol),
        "smallest_kept": decision.smallest_nonzero,
        "largest_dropped": decision.largest_zero,
    }
    return schema.finish(xr.Dataset(variables, net.coordinates()), "orbit", attrs)


def _orbit_frame(
    net: LayeredSystem, x: ArrayLike, orthogonal: bool, rtol: float
) -> tuple[Array, Array, Decision]:
    """Return a state, a frame of its orbit, and which singular values of generators are zero.

    The frame is orthonormal; the singular values are relative to the largest.
    """
    check_layered(net)
    state = check_state("x", net, x)
    rtol = check_number("rtol", rtol, minimum=1e-15, maximum=0.1)
    rows = net.generators(state, orthogonal=check_flag("orthogonal", orthogonal))
    if not rows.size:
        return state, np.zeros((0, net.dim)), decided(np.zeros(0), rtol)
    _, values, frame = scipy.linalg.svd(rows, full_matrices=False)
    decision = decided(values / max(float(values[0]), np.finfo(float).tiny), rtol)
    return state, frame[: decision.rank], decision


@known_options
def split_tangent(
    net: LayeredSystem,
    x: ArrayLike,
    v: ArrayLike,
    *,
    orthogonal: bool = True,
    rtol: float = tolerances.RANK,
) -> xr.Dataset:
    """Return the parts of a tangent vector along the symmetry orbit and across it.

    Parameters
    ----------
    net
        The network.
    x
        State (parameter).
    v
        Tangent vector (parameter), such as the gradient, which is horizontal for the orthogonal
        groups.
    orthogonal, rtol
        As for `orbit_basis`.

    Returns
    -------
    xarray.Dataset
        Schema ``tangent``: ``vertical(parameter)``, along the orbit, and ``horizontal(parameter)``,
        orthogonal to it, which is what moves in the quotient; ``orbit_dimension``.

    Raises
    ------
    ValueError
        If a vector has the wrong shape or is not finite.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> x = net.initial(scale=1.0, rng=0)
    >>> parts = dl.split_tangent(net, x, net.gradient(x))
    >>> bool(abs(parts.vertical).max() < 1e-14), int(parts.orbit_dimension)
    (True, 3)
    """
    _, frame, _ = _orbit_frame(net, x, orthogonal, rtol)
    vector = check_state("v", net, v)
    along = frame.T @ (frame @ vector)
    across = vector - along
    across -= frame.T @ (frame @ across)
    parts = schema.columns("parameter", vertical=along, horizontal=across)
    variables = {**parts, "orbit_dimension": np.int64(len(frame))}
    dataset = xr.Dataset(variables, net.coordinates())
    return schema.finish(dataset, "tangent", {**net.attributes(), "rtol": float(rtol)})


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
    results = [symmetry.turned(layers, _turns(layers, others, start)) for start in starts]
    return min(results, key=lambda turned: float(np.linalg.norm(flat(turned) - flat(others))))


def _swept(layers: Sequence[Array], others: Sequence[Array], direction: int) -> list[Array]:
    """Return turns found one after the other from the inputs (1) or from the outputs (−1)."""
    group: list[Array] = [np.eye(len(w)) for w in layers[:-1]]
    for i in range(len(group))[::direction]:
        group[i] = _best_turn(layers, others, group, i, sides=[-direction])
    return group


def _turns(layers: Sequence[Array], others: Sequence[Array], start: Sequence[Array]) -> list[Array]:
    """Return turns that no change of a single one improves."""
    group = list(start)
    for _ in range(MOST_SWEEPS):
        change = 0.0
        for i in range(len(group)):
            turn = _best_turn(layers, others, group, i)
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
    sides: Collection[int] = (-1, 1),
) -> Array:
    """Return the best turn of hidden layer i, from 0 on, by the layer before (−1) and after it."""
    match = np.zeros((len(group[i]), len(group[i])))
    if -1 in sides:
        before = layers[i] if i == 0 else layers[i] @ group[i - 1].T
        match += before @ others[i].T
    if 1 in sides:
        after = layers[i + 1] if i + 1 == len(group) else group[i + 1] @ layers[i + 1]
        match += after.T @ others[i + 1]
    return _nearest_turn(match)


def _nearest_turn(match: Array) -> Array:
    """Return the orthogonal P with the largest ⟨Pᵀ, match⟩."""
    U, _, Vt = np.linalg.svd(match)
    turn: Array = Vt.T @ U.T
    return turn


def _layer_bound(layers: Sequence[Array], others: Sequence[Array]) -> float:
    """Return the distance if the two sides of every hidden layer could be turned on their own."""
    total, last = 0.0, len(layers) - 1
    for i, (w, v) in enumerate(zip(layers, others, strict=True)):
        if last == 0:
            rest = w - v
        elif i in (0, last):
            a, b = (w, v) if i == 0 else (w.T, v.T)
            rest = _nearest_turn(a @ b.T) @ a - b
        else:
            rest = np.subtract(*(np.linalg.svd(a, compute_uv=False) for a in (w, v)))
        total += float(np.sum(rest**2))
    return float(np.sqrt(total))


def _word_bound(layers: Sequence[Array], others: Sequence[Array]) -> float:
    """Return the largest ‖w(x) − w(y)‖ of a word w over the rate at which w can change."""
    depth = len(layers)
    both = list(zip(layers, others, strict=True))
    norms = [max(float(np.linalg.norm(w, 2)) for w in pair) for pair in both]
    best, known = 0.0, 0
    ends = ((0, np.eye(layers[0].shape[1])), (depth, np.eye(len(layers[-1]))))
    words: list[tuple[int, list[Array], tuple[int, ...]]] = [(k, [e, e], ()) for k, e in ends]
    while words and known < MOST_WORDS:
        node, before, used = words.pop(0)
        for step in (1, -1):
            arrow = node if step > 0 else node - 1
            if not 0 <= arrow < depth or len(used) >= 2 * depth:
                continue
            pair = zip(both[arrow], before, strict=True)
            word = [(w if step > 0 else w.T) @ done for w, done in pair]
            path = (*used, arrow)
            if node + step in (0, depth):
                known += 1
                rates = np.zeros(depth)
                for place, k in enumerate(path):
                    rates[k] += np.prod([norms[m] for n, m in enumerate(path) if n != place])
                rate = float(np.linalg.norm(rates)) or np.inf
                best = max(best, float(np.linalg.norm(word[0] - word[1])) / rate)
            else:
                words.append((node + step, word, path))
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
    dim = "iteration" if "iteration" in getattr(run, "dims", ()) else "time"
    rows = {"state": (dim, "parameter"), dim: (dim,)}
    run = schema.read("run", run, "run", rows, digest=net.digest)
    states = np.stack([check_state("run", net, state) for state in run["state"].values])
    last = check_state("reference", net, states[-1] if reference is None else reference)
    rng = np.random.default_rng(0)
    others = net.unpack(last)
    aligned = np.stack([flat(_aligned(net.unpack(x), others, 2, rng)) for x in states])
    steps = [
        np.linalg.norm(flat(_aligned(net.unpack(x), net.unpack(y), 0, rng)) - y)
        for x, y in itertools.pairwise(states)
    ]
    variables = {
        "state": ((dim, "parameter"), aligned),
        "orbit_distance": (dim, np.linalg.norm(aligned - last, axis=1)),
        "length": (dim, np.concatenate([[0.0], np.cumsum(steps)])),
    }
    dataset = xr.Dataset(variables, coords={**net.coordinates(), dim: run[dim]})
    return schema.finish(dataset, "quotient_run", net.attributes())
