"""Losses of linear measurements of the end-to-end map: of some of its entries, or of any others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy  # loads its modules when they are used
from numpy.typing import ArrayLike

from dlnds._kernels import linear as kernels
from dlnds.arrays import Array, Integers
from dlnds.errors import (
    check_array,
    check_choice,
    check_integers,
    check_memory,
    check_number,
    check_squares,
    finite,
    known_options,
)
from dlnds.theory import tolerances
from dlnds.theory.coordinates import span
from dlnds.theory.moments import Problem, singular_modes
from dlnds.theory.rates import Quadratic, of_problem

KINDS = ("completion", "measurements", "sparse_measurements")
#: Entries of all operators together up to which sparse ones are taken as dense to solve with them.
_DENSE = 10**6
#: How exactly sparse equations are solved, by iteration.
_SOLVED: dict[str, Any] = {"atol": 1e-15, "btol": 1e-15, "iter_lim": 20_000}
#: How much larger than the smallest best ones maps are that may be on their way to infinity.
_FAR = 1e3
#: The accuracy to which such maps do not have the least loss.
_EXACT = 1e-9
#: What is left of the way of a run, in terms of the state, where its rounding may keep it: some
#: hundred times that.
_STILL = 1e-13


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Measurements:
    """A loss ½ Σ_m v_m (⟨A_m, W⟩ − y_m)² of the end-to-end map W (d_h × d_0).

    Made by `completion` and `measurements`, for `LossNetwork`.

    Parameters
    ----------
    kind
        ``"completion"``, ``"measurements"`` or ``"sparse_measurements"``.
    shape
        d_h and d_0, the shape of W.
    operators
        All A_m (m × d_h × d_0); of a completion the rows and columns (2 × m) of the entries; of
        sparse ones (4 × entries) the number of the measurement, row, column and value of entries.
    targets
        y (m).
    weights
        v (m), not negative.

    Raises
    ------
    ValueError, TypeError
        If shapes do not agree, an entry is none of W or is given with different values, nothing is
        measured, or weights are negative.

    Examples
    --------
    >>> import dlnds as dl
    >>> loss = dl.losses.completion((2, 2), rows=[0, 0, 1], columns=[0, 1, 0], values=[1, 2, 3])
    >>> float(loss.value([[1.0, 2.0], [3.0, 6.0]]))
    0.0
    >>> loss.gradient([[1.0, 0.0], [3.0, 9.0]]).tolist()
    [[0.0, -2.0], [0.0, 0.0]]
    """

    kind: str
    shape: tuple[int, int]
    operators: Array
    targets: Array
    weights: Array

    @known_options
    def __init__(
        self,
        kind: str,
        shape: tuple[int, int],
        operators: ArrayLike,
        targets: ArrayLike,
        weights: ArrayLike,
    ) -> None:
        kind = check_choice("kind", kind, KINDS)
        shape = _check_shape(shape)
        if kind == "completion":
            operators = _places("operators", operators, shape)
            count = operators.shape[1]
        elif kind == "sparse_measurements":
            count = len(check_array("targets", targets, ndim=1))
            operators = _entries("operators", operators, (count, *shape))
        else:
            operators = check_array("operators", operators, ndim=3, shape=(None, *shape))
            count = len(operators)
        targets = check_array("targets", targets, ndim=1, shape=(count,))
        weights = check_array("weights", weights, ndim=1, shape=(count,))
        check_number("weights", float(weights.min()), minimum=0.0)
        if not weights.any():
            raise ValueError("weights: needs one at least that is not zero, got zeros alone")
        check_squares("targets", targets)
        with np.errstate(over="ignore"):
            check_squares("weights", np.sqrt(weights) * targets)
        check_memory("operators", 2 * shape[0] * shape[1] + 4 * operators.size)
        if kind == "completion":
            _check_repeated("targets", operators, targets)
        fields = {"operators": operators, "targets": targets, "weights": weights}
        for name, array in fields.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "shape", shape)

    def __repr__(self) -> str:
        """Give the kind and the sizes."""
        outputs, inputs = self.shape
        return f"Measurements({self.kind}, {len(self.targets)} of them, {inputs} -> {outputs})"

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the loss."""
        least = self.irreducible
        count = len(self.targets)
        return {"criterion": self.kind, "n_measurements": count, "irreducible_loss": least}

    @property
    def numbers(self) -> tuple[int, Array, Array, Array]:
        """The form of the loss, and its numbers, as the kernels want them."""
        if self.kind == "completion":
            means, totals = self._mask
            return kernels.ENTRIES, means, totals, np.zeros(0)
        if self.kind == "measurements":
            rows = self.operators.reshape(-1, self.shape[1])
            return kernels.MEASUREMENTS, rows, self.targets, self.weights
        A, none = self._rows, np.zeros((0, self.shape[1]))
        parts = np.concatenate([[len(self.targets)], A.indptr, A.indices, A.data])
        return kernels.SPARSE, none, parts, np.concatenate([self.targets, self.weights])

    @cached_property
    def _rows(self) -> Any:
        """All A_m, one a row (m × d_h d_0), of a loss that is no completion; sparse or dense."""
        shape = len(self.targets), math.prod(self.shape)
        if self.kind == "measurements":
            return self.operators.reshape(shape)
        measurement, row, column = self.operators[:3].astype(np.int64)
        places = measurement, row * self.shape[1] + column
        return scipy.sparse.csr_array((self.operators[3], places), shape=shape)

    @property
    def _weighted_rows(self) -> Any:
        """√v_m A_m, dense if they are small enough."""
        rows = self._rows
        if scipy.sparse.issparse(rows):
            if math.prod(rows.shape) > _DENSE:
                return scipy.sparse.diags_array(np.sqrt(self.weights)) @ rows
            rows = rows.toarray()
        return np.sqrt(self.weights)[:, None] * rows

    @cached_property
    def _mask(self) -> tuple[Array, Array]:
        """Values and weights of all entries, zero where none is observed."""
        values, weights = np.zeros(self.shape), np.zeros(self.shape)
        rows, columns = self._entries
        values[rows, columns] = self.targets
        np.add.at(weights, (rows, columns), self.weights)
        return values, weights

    @property
    def _entries(self) -> Integers:
        return self.operators.astype(np.int64)

    def measured(self, maps: Array) -> Array:
        """Return ⟨A_m, W⟩ (…, m) of maps (…, d_h, d_0), not checked."""
        if self.kind == "completion":
            rows, columns = self._entries
            values: Array = maps[..., rows, columns]
            return values
        flats = maps.reshape(-1, math.prod(self.shape))
        results: Array = flats @ self._rows.T
        return results.reshape(*maps.shape[:-2], len(self.targets))

    def _combined(self, factors: Array) -> Array:
        """Return Σ_m c_m A_m of factors c (…, m)."""
        if self.kind == "completion":
            out = np.zeros((*factors.shape[:-1], *self.shape))
            np.add.at(out, (..., *self._entries), factors)
            return out
        combined: Array = factors.reshape(-1, len(self.targets)) @ self._rows
        return combined.reshape(*factors.shape[:-1], *self.shape)

    @cached_property
    def _best(self) -> Array:
        """The smallest of the matrices (d_h × d_0) that meet the measurements best."""
        if self.kind == "completion":
            return self._mask[0]
        rows, results = self._weighted_rows, np.sqrt(self.weights) * self.targets
        if scipy.sparse.issparse(rows):
            best: Array = scipy.sparse.linalg.lsqr(rows, results, **_SOLVED)[0]
        else:
            best = scipy.linalg.lstsq(rows, results)[0]
        return best.reshape(self.shape)

    @cached_property
    def _fitted(self) -> Array:
        """What these have as results."""
        return self.measured(self._best)

    @cached_property
    def _goals(self) -> Array:
        """How large these are, each times the root of its weight."""
        goals: Array = np.sqrt(self.weights) * np.abs(self._fitted)
        return goals

    @cached_property
    def irreducible(self) -> float:
        """The least value of the loss over all matrices: not zero if no matrix meets all."""
        rests = self.targets - self._fitted
        least = 0.5 * float(np.sum(self.weights * rests**2))
        noise = tolerances.rounding(self.operators.size) ** 2
        total = float(np.sum(self.weights * self.targets**2))
        return least if least > noise * total else 0.0

    @cached_property
    def fitting_size(self) -> float:
        """How large maps are that meet the measurements."""
        return float(np.linalg.norm(self._best, 2))

    def settled(self, W: Array, rtol: float, way: float) -> bool:
        """Tell whether W meets the measurements as well as any matrix, to the accuracy of a run.

        The root of what the loss is above its least value is at most 10 ``rtol`` times that of
        W = 0, and each result is met to 1e-3 of itself, if rounding of others lets it be. ``way``
        is ‖∇L‖ ‖x‖: what is left of the way of x, excess / ‖∇L‖ near a minimum that is approached
        exponentially, is at most √(10 ``rtol``) of x. A run to infinity has a part of its own size
        before it however small the loss is, one in h in the example of RC20. Where nothing is left
        but rounding, no result can be met better. Of results that are all zero there is no other
        measure than the way: then it is at most 10 ``rtol`` of x.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            misses = np.sqrt(self.weights) * np.abs(self.measured(W) - self._fitted)
            excess, goals = float(misses @ misses), self._goals
        total, rounding = float(goals @ goals), tolerances.rounding(W.size)
        left, size = (_STILL if total else 10.0 * rtol), float(np.linalg.norm(W))
        if excess <= max(left * way, rounding**2 * self.steepness(size) * size):
            return True
        noise = rounding * math.sqrt(total)
        learnt = (misses <= np.maximum(tolerances.MODE * goals, noise)) | (goals <= noise)
        near = excess <= (10.0 * rtol) ** 2 * total and bool(learnt.all())
        return near and excess <= math.sqrt(10.0 * rtol) * way

    def steepness(self, size: float) -> float:
        """Return how much the gradient can be at maps of a size, beside that at W = 0."""
        return self._steepest * size

    @cached_property
    def _steepest(self) -> float:
        """What no second derivative is above: the sum of v_m ‖A_m‖², if entries are shared."""
        if self.kind == "completion":
            return float(self._mask[1].max())
        return float(self.weights @ (self._rows**2).sum(axis=1))

    def fades(self, value: float) -> bool:
        """Tell whether no network with a loss as small as ``value`` is critical: never."""
        return False

    def recedes(self) -> bool:
        """Tell whether no map is a minimum: never, for the loss is a sum of squares."""
        return False

    def is_far(self, W: Array, way: float) -> bool:
        """Tell whether W may be on its way to infinity, where the rank or a sign keeps it.

        It is so much larger than what meets the measurements, its loss is not the least, and what
        is left of the ``way`` is no small part of it, see `settled`.
        """
        if not float(np.linalg.norm(W)) > _FAR * self.fitting_size:
            return False
        excess = 2.0 * float(self._excess(W))
        least = excess <= (10.0 * _EXACT) ** 2 * float(self._goals @ self._goals)
        return not least and excess > math.sqrt(10.0 * _EXACT) * way

    def problem(self, widths: tuple[int, ...]) -> Problem | None:
        """Return the problem of a `LinearNetwork` with the same loss, or None.

        That is if all entries are observed with the weight 1.
        """
        if self.kind != "completion" or not (self._mask[1] == 1.0).all():
            return None
        return Problem(widths, self._mask[0], None, singular_modes(self._mask[0]))

    def quadratic(self, widths: tuple[int, ...]) -> Quadratic:
        """Return what bounds of rates need of the loss."""
        known = self.problem(widths)
        if known is not None:
            return of_problem(known)
        root = math.sqrt(self._convexity) * np.eye(self.shape[1])
        stretch = math.sqrt(self._steepest / self._convexity)
        found = Quadratic(widths, root, None, 0.0, self._excess, self._descent, stretch)
        return found._replace(lowest=math.nan) if found.is_bottleneck else found

    @cached_property
    def _convexity(self) -> float:
        """The smallest second derivative that is not zero: ‖∇ℓ‖² is twice that times the excess."""
        if self.kind == "completion":
            weights = self._mask[1]
            return float(weights[weights > 0.0].min())
        rows = self._weighted_rows
        if scipy.sparse.issparse(rows):  # squares, which are known less well
            gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
            squares = scipy.linalg.eigvalsh(gram.toarray())[::-1]
        else:
            squares = np.linalg.svd(rows, compute_uv=False) ** 2
        noise = tolerances.rounding(max(rows.shape)) ** (1 if scipy.sparse.issparse(rows) else 2)
        return float(squares[squares > noise * squares[0]][-1])

    def _excess(self, maps: Array) -> Any:
        """Return ℓ above its least value, of maps (…, d_h, d_0)."""
        return 0.5 * np.sum(self.weights * (self.measured(maps) - self._fitted) ** 2, axis=-1)

    def _descent(self, maps: Array) -> Array:
        """Return −∇ℓ of maps (…, d_h, d_0)."""
        return self._combined(self.weights * (self._fitted - self.measured(maps)))

    def seen(self) -> tuple[Array, Array]:
        """Return orthonormal bases (columns) of the inputs and the outputs that are measured.

        As many random sums of operators as W is wide or high span what all of them do.
        """
        factors = np.random.default_rng(0).normal(size=(max(self.shape), len(self.targets)))
        sums = self._combined(np.where(self.weights > 0.0, factors, 0.0))
        return span(*np.swapaxes(sums, 1, 2)), span(*sums)

    @property
    def own_inputs(self) -> Array:
        """The identity, of which each column belongs to one of W."""
        return np.eye(self.shape[1])

    def on(self, X: ArrayLike, Y: ArrayLike) -> Measurements:
        """Return the loss of other measurements ``X`` with results ``Y``, all of weight 1.

        Rows and columns (2 × m) of other entries for a completion, such as those that were held
        out, as integers, else operators (m × d_h × d_0), or sparse (m × d_h d_0).
        """
        if self.kind != "completion":
            return self._on(X, Y)
        if np.asarray(X).dtype.kind not in "iu":  # inputs of a network are no places
            raise TypeError("X: needs rows and columns (2 × m integers) of entries, got others")
        places = _places("X", X, self.shape)
        y = check_array("Y", Y, ndim=1, shape=(places.shape[1],))
        _check_repeated("Y", places, y)
        return completion(self.shape, places[0], places[1], y)

    def _on(self, X: Any, Y: ArrayLike) -> Measurements:
        if scipy.sparse.issparse(X):
            return _of_sparse(("X", X), ("Y", Y), None, self.shape)
        A = check_array("X", X, ndim=3, shape=(None, *self.shape))
        return measurements(A, check_array("Y", Y, ndim=1, shape=(len(A),)))

    @finite("W")
    def value(self, W: ArrayLike) -> Any:
        """Return ℓ(W) of a map (d_h × d_0), or of each in a stack.

        Raises
        ------
        ValueError, TypeError
            If W has another shape or is not finite.
        """
        return self.values(check_array("W", W, ndim=(2, 3, 4), shape=self.shape))

    def values(self, maps: Array) -> Any:
        """Return ℓ of maps (…, d_h, d_0), not checked: those of a diverged run are not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            rests = self.measured(maps) - self.targets
            return 0.5 * np.sum(self.weights * rests**2, axis=-1)

    @finite("W")
    def gradient(self, W: ArrayLike) -> Array:
        """Return ∇ℓ(W) (d_h × d_0).

        Raises
        ------
        ValueError, TypeError
            If W has another shape or is not finite.
        """
        W = check_array("W", W, ndim=2, shape=self.shape)
        return self._combined(self.weights * (self.measured(W) - self.targets))

    @finite("V")
    def second_derivative(self, W: ArrayLike, V: ArrayLike) -> Array:
        """Return ∇²ℓ(W)[V] (d_h × d_0), Σ_m v_m ⟨A_m, V⟩ A_m, the same at all W.

        Raises
        ------
        ValueError, TypeError
            If W or V has another shape or is not finite.
        """
        check_array("W", W, ndim=2, shape=self.shape)
        change = check_array("V", V, ndim=2, shape=self.shape)
        return self._combined(self.weights * self.measured(change))


def _check_shape(shape: Any) -> tuple[int, int]:
    """Return numbers of rows and columns."""
    sizes = check_integers("shape", shape, minimum=1, ordered=True)
    if len(sizes) != 2:
        raise ValueError(f"shape: needs numbers of rows and columns, got {sizes}")
    return sizes[0], sizes[1]


def _places(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return rows and columns (2 × m) of entries, whole numbers within the shape."""
    places = _numbers(name, value, (2, None))
    for word, numbers, size in zip(("rows", "columns"), places, shape, strict=True):
        _check_range(f"{name}: {word}", numbers, size)
    return places


def _numbers(name: str, value: Any, shape: tuple[int | None, ...]) -> Array:
    """Return an array of numbers, and refuse True and False: a mask is no list of places."""
    numbers = check_array(name, value, ndim=len(shape), shape=shape)
    given = np.asarray(value, None if hasattr(value, "dtype") else object)
    kinds = {type(v) for v in given.flat} if given.dtype == object else {given.dtype.type}
    if kinds & {bool, np.bool_}:
        raise TypeError(f"{name}: needs whole numbers, got True or False; np.nonzero finds places")
    return numbers


def _check_range(name: str, numbers: Array, size: int) -> None:
    if (numbers != np.floor(numbers)).any() or (numbers < 0).any() or (numbers >= size).any():
        wrong = numbers[(numbers != np.floor(numbers)) | (numbers < 0) | (numbers >= size)][0]
        raise ValueError(f"{name}: needs whole numbers from 0 to {size - 1}, got {wrong:g}")


def _check_repeated(name: str, places: Array, values: Array) -> None:
    """Refuse an entry that is given with different values."""
    order = np.lexsort((values, *places[::-1]))
    at, y = places[:, order].astype(np.int64), values[order]
    wrong = (at[:, 1:] == at[:, :-1]).all(axis=0) & (y[1:] != y[:-1])
    if wrong.any():
        n = int(np.argmax(wrong))
        raise ValueError(
            f"{name}: entry ({at[0, n]}, {at[1, n]}) is given as {y[n]} and as {y[n + 1]}; "
            "give their mean once, with the sum of the weights"
        )


def _entries(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return measurements, rows, columns and values (4 × entries) of entries of operators."""
    entries = _numbers(name, value, (4, None))
    words = ("measurements", "rows", "columns")
    for word, numbers, size in zip(words, entries, shape, strict=False):
        _check_range(f"{name}: {word}", numbers, size)
    return entries


@known_options
def measurements(
    A: Any,
    y: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    shape: tuple[int, int] | None = None,
) -> Measurements:
    """Return the square loss of linear measurements ⟨A_m, W⟩ of the end-to-end map.

    Parameters
    ----------
    A
        The matrices A_m (m × d_h × d_0). Or a matrix or array of `scipy.sparse` (m × d_h d_0) with
        one A_m, row by row, in each row: what is stored and computed then goes with the entries
        that are not zero.
    y
        What the measurements gave (m).
    weights
        Weights v_m ≥ 0 of their squares (m); ``None`` weighs all by 1.
    shape
        d_h and d_0, which sparse A need; of others they are known.

    Returns
    -------
    Measurements
        With ``value``, ``gradient`` and ``second_derivative``, for `LossNetwork`. ``irreducible``
        is the least value over all matrices, which ``value`` contains: not zero if no matrix meets
        all measurements.

    Raises
    ------
    ValueError, TypeError
        If shapes do not agree, there are no measurements, or weights are negative.

    Notes
    -----
    ℓ(W) = ½ Σ_m v_m (⟨A_m, W⟩ − y_m)², ⟨A, W⟩ = tr(Aᵀ W). For single entries `completion` is
    faster, by the number of measurements.

    References
    ----------
    ACHL19 (Arora, Cohen, Hu & Luo, arXiv:1905.13655)

    Examples
    --------
    The trace of W, and its trace again with another result: 2 and 4 are met best by 3.

    >>> import dlnds as dl
    >>> loss = dl.losses.measurements([[[1.0, 0.0], [0.0, 1.0]]] * 2, [2.0, 4.0])
    >>> float(loss.value([[1.0, 5.0], [0.0, 2.0]])), round(loss.irreducible, 12)
    (1.0, 1.0)

    Differences of neighbours in a row, as a sparse matrix:

    >>> import scipy.sparse
    >>> A = scipy.sparse.diags_array([1.0, -1.0], offsets=[0, 1], shape=(3, 4))
    >>> dl.losses.measurements(A, [1.0, 0.0, 2.0], shape=(1, 4))
    Measurements(sparse_measurements, 3 of them, 4 -> 1)
    """
    if scipy.sparse.issparse(A):
        return _of_sparse(("A", A), ("y", y), weights, shape)
    operators = check_array("A", A, ndim=3)
    y = check_array("y", y, ndim=1, shape=(len(operators),))
    check_squares("y", y)
    known = operators.shape[1], operators.shape[2]
    if shape is not None and _check_shape(shape) != known:
        raise ValueError(f"A: needs matrices of the shape {tuple(shape)}, got {known}")
    if not operators.any():
        raise ValueError("A: needs entries that are not zero")
    return Measurements("measurements", known, operators, y, _weights(weights, y))


def _of_sparse(
    operators: tuple[str, Any],
    results: tuple[str, ArrayLike],
    weights: ArrayLike | None,
    shape: tuple[int, int] | None,
) -> Measurements:
    """Return the loss of sparse operators, one a row, given by arguments of these names."""
    (name, A), (word, given) = operators, results
    if shape is None:
        raise ValueError("shape: needs the numbers of rows and columns of W, with sparse A")
    sizes = _check_shape(shape)
    if A.ndim != 2 or A.shape[1] != math.prod(sizes):
        raise ValueError(f"{name}: needs rows of entries of W, {sizes}, got the shape {A.shape}")
    y = check_array(word, given, ndim=1, shape=(A.shape[0],))
    check_squares(word, y)
    entries = A.tocsr(copy=True)
    entries.sum_duplicates()
    entries = entries.tocoo()
    if not entries.nnz:
        raise ValueError(f"{name}: needs entries that are not zero")
    values = check_array(name, entries.data, ndim=1)
    parts = np.array([entries.row, *divmod(entries.col, sizes[1]), values], dtype=float)
    return Measurements("sparse_measurements", sizes, parts, y, _weights(weights, y))


@known_options
def completion(
    shape: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    values: ArrayLike,
    weights: ArrayLike | None = None,
) -> Measurements:
    """Return the square loss of some entries of the end-to-end map: matrix completion.

    Parameters
    ----------
    shape
        d_h and d_0, the shape of W.
    rows, columns
        Places of the observed entries (m), from 0.
    values
        Their values (m).
    weights
        Weights v_m ≥ 0 of their squares (m); ``None`` weighs all by 1.

    Returns
    -------
    Measurements
        With ``value``, ``gradient`` and ``second_derivative``, for `LossNetwork`.

    Raises
    ------
    ValueError, TypeError
        If no entry is observed, a place is none of the matrix, an entry is given with different
        values, or weights are negative.

    Notes
    -----
    ℓ(W) = ½ Σ v_ij (W_ij − Y_ij)² over the observed entries. An entry that is given several times
    with one value has the sum of the weights. If all entries are observed with the weight 1 this is
    the loss of a `LinearNetwork` with whitened inputs.

    References
    ----------
    ACHL19 (Arora, Cohen, Hu & Luo, arXiv:1905.13655); RC20 (Razin & Cohen, arXiv:2005.06398)

    Examples
    --------
    The only matrix of rank one with these entries has 6 in the last place:

    >>> import dlnds as dl
    >>> loss = dl.losses.completion((2, 2), [0, 0, 1], [0, 1, 0], [1.0, 2.0, 3.0])
    >>> net = dl.LossNetwork((2, 1, 2), loss)
    >>> run = dl.flow(net, net.initial("balanced", scale=0.1, rng=0), save=["product"])
    >>> round(float(run["product"][-1, 1, 1]), 4)
    6.0
    """
    sizes = _check_shape(shape)
    check_memory("shape", 2 * sizes[0] * sizes[1])
    across = _numbers("rows", rows, (None,))
    down = _numbers("columns", columns, (len(across),))
    _check_range("rows", across, sizes[0])
    _check_range("columns", down, sizes[1])
    y = check_array("values", values, ndim=1, shape=(len(across),))
    check_squares("values", y)
    places = np.stack([across, down])
    _check_repeated("values", places, y)
    return Measurements("completion", sizes, places, y, _weights(weights, y))


def _weights(weights: ArrayLike | None, y: Array) -> Array:
    """Return weights of as many measurements."""
    if weights is None:
        return np.ones(len(y))
    return check_array("weights", weights, ndim=1, shape=y.shape)
