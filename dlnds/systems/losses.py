"""Losses of the end-to-end map, other than the square one, and deep linear networks with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import scipy  # loads its modules when they are used
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds._kernels import linear as kernels
from dlnds._kernels import low_rank
from dlnds.arrays import Array, Params
from dlnds.errors import (
    check_array,
    check_choice,
    check_finite,
    check_flag,
    check_integer,
    check_memory,
    check_number,
    finite,
    known_options,
)
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.measurements import Measurements, completion, measurements
from dlnds.systems.network import (
    LayeredSystem,
    check_decay,
    check_rows,
    check_widths,
    departing,
    labelled_data,
)
from dlnds.systems.protocol import Limit, Theory, ended
from dlnds.systems.varied import fitting_size
from dlnds.theory import decayed_rates, saddles, tolerances
from dlnds.theory.coordinates import is_identity, kernel, layers_of, product, span
from dlnds.theory.forms import LeadingPart
from dlnds.theory.moments import Moments, Problem, from_data, singular_modes
from dlnds.theory.rates import Quadratic, of_problem

__all__ = [
    "BackwardNetwork",
    "Loss",
    "LossNetwork",
    "Measurements",
    "completion",
    "cross_entropy",
    "logistic",
    "measurements",
    "power",
]
FORMS = {
    "logistic": kernels.LOGISTIC,
    "cross_entropy": kernels.CROSS_ENTROPY,
    "power": kernels.POWER,
}
#: How many margins grow, of which it is one or none: what linear programs leave open is less.
_SEPARATED = 0.5
#: Observables of the tangent kernel of samples, and of the map that fits them.
_OF_SAMPLES = {"ntk_eigenvalue", "ntk_alignment", "ntk_distance", "ntk_change", "alignment"}
NORMALIZED = {True: "loss divided by the number of samples", False: "loss not divided"}


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Loss:
    """A loss ℓ(W) of the end-to-end map W (d_h × d_0) on data, made by `logistic` and the others.

    Parameters
    ----------
    kind
        ``"logistic"``, ``"cross_entropy"`` or ``"power"``; see the functions of these names.
    inputs
        X (d_0 × samples).
    targets
        Y (d_h × samples): labels ±1, columns of probabilities, or outputs.
    power
        p ≥ 2, of the power loss.
    normalize
        Whether the sum over samples is divided by their number.

    Raises
    ------
    ValueError, TypeError
        If the kind is unknown, shapes do not agree, or numbers are not finite.

    Examples
    --------
    >>> import dlnds as dl
    >>> loss = dl.losses.power([[1.0, 2.0]], [[2.0, 2.0]], power=2.0, normalize=False)
    >>> float(loss.value([[1.0]])), loss.gradient([[1.0]]).tolist()
    (0.5, [[-1.0]])
    >>> loss.second_derivative([[1.0]], [[1.0]]).tolist()
    [[5.0]]
    """

    kind: str
    inputs: Array
    targets: Array
    power: float
    normalize: bool

    @known_options
    def __init__(
        self,
        kind: str,
        inputs: ArrayLike | xr.DataArray,
        targets: ArrayLike | xr.DataArray,
        *,
        power: float = 2.0,
        normalize: bool = True,
    ) -> None:
        columns = schema.samples("inputs", inputs)
        rows = schema.samples("targets", targets, of=inputs)
        rows = check_array("targets", rows, ndim=2, shape=(None, columns.shape[1]))
        for array in (columns, rows):
            array.setflags(write=False)
        fields = {
            "kind": check_choice("kind", kind, FORMS),
            "inputs": columns,
            "targets": rows,
            "power": check_number("power", power, minimum=2.0),
            "normalize": check_flag("normalize", normalize),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """d_h and d_0, the shape of W."""
        return len(self.targets), len(self.inputs)

    @property
    def factor(self) -> float:
        """What the sum over samples is multiplied by."""
        return 1.0 / self.inputs.shape[1] if self.normalize else 1.0

    @property
    def constants(self) -> Array:
        """The factor and the power, as the kernels want them."""
        return np.array([self.factor, self.power])

    @property
    def numbers(self) -> tuple[int, Array, Array, Array]:
        """The form of the loss, and its numbers, as the kernels want them."""
        return FORMS[self.kind], self.targets, self.inputs, self.constants

    def seen(self) -> tuple[Array, Array]:
        """Return orthonormal bases (columns) of the inputs that data have, and of seen outputs.

        Softmax does not see what all outputs have in common.
        """
        outputs = np.eye(len(self.targets))
        if self.kind == "cross_entropy" and len(outputs) > 1:
            outputs = kernel(np.ones((1, len(outputs))), 1)
        return span(self.inputs), outputs

    @property
    def own_inputs(self) -> Array:
        """X."""
        return self.inputs

    @property
    def fitting_size(self) -> float:
        """How large maps are whose outputs are as large as the targets."""
        return fitting_size(self.targets, self.inputs)

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the loss."""
        power = {"power": self.power} if self.kind == "power" else {}
        normalization = NORMALIZED[bool(self.normalize)]
        return {"criterion": self.kind, **power, "normalization": normalization}

    def settled(self, W: Array, rtol: float, way: float) -> bool:
        """Tell whether W is known to be a minimum: never, minima are not known beforehand."""
        return False

    def is_far(self, W: Array, way: float) -> bool:
        """Tell whether W may be on its way to infinity, which `recedes` tells for all."""
        return False

    def steepness(self, size: float) -> float:
        """Return how much the gradient can be at maps of a size, beside powers of targets."""
        norms = np.linalg.norm(self.inputs, axis=0)
        slopes = (size * norms) ** (self.power - 1.0) if self.kind == "power" else 1.0
        return self.factor * float(np.sum(slopes * norms))

    def fades(self, value: float) -> bool:
        """Tell whether no homogeneous network with a loss as small as this is critical.

        Where all samples have the right label more of the same map lowers the loss (Euler). They
        have if the terms, which are positive, together are less than log 2.
        """
        certain = self.kind == "cross_entropy" and bool((self.targets.max(axis=0) == 1.0).all())
        return (self.kind == "logistic" or certain) and value < math.log(2.0) * self.factor

    def recedes(self, features: Array | None = None) -> bool:
        """Tell whether no map W of the inputs, or of as many features of them, is a minimum.

        A convex loss has one unless it falls along a ray W + tV for ever, and then it does from
        every W. Terms of the logistic loss and of the cross entropy fall where a margin grows, and
        rise in the end where one shrinks: y V x, and (V x)_o − (V x)_j of a class o that is
        possible. Powers have minima. What cannot be decided counts as if it had none.
        """
        if self.kind == "power":
            return False
        classes = np.eye(len(self.targets))
        inputs = self.inputs if features is None else features
        if self.kind == "logistic":
            samples, own = np.nonzero(self.targets.T)
            margins = classes[own] * self.targets[own, samples, None]
        else:
            samples, own, other = np.nonzero((self.targets.T > 0.0)[:, :, None] & (classes == 0.0))
            margins = classes[own] - classes[other]
        return _some_grow(margins, inputs.T[samples])

    def problem(self, widths: tuple[int, ...]) -> Problem | None:
        """Return the problem of a `LinearNetwork` with the same loss but a constant, or None.

        That is of the square loss; not checked.
        """
        return self.moments(widths)[0] if (self.kind, self.power) == ("power", 2.0) else None

    def quadratic(self, widths: tuple[int, ...]) -> Quadratic | None:
        """Return what bounds of rates need of the square loss; of others nothing is known."""
        known = self.problem(widths)
        return None if known is None else of_problem(known)

    def on(self, X: ArrayLike, Y: ArrayLike) -> Loss:
        """Return the same loss on other data, whose numbers of features and outputs are checked."""
        normalize = bool(self.normalize)
        if self.kind == "cross_entropy":
            classes = self.shape[0] if np.ndim(Y) == 1 else None
            loss = cross_entropy(X, Y, classes=classes, normalize=normalize)
        elif self.kind == "logistic":
            loss = logistic(X, Y, normalize=normalize)
        else:
            loss = power(X, Y, power=self.power, normalize=normalize)
        for name, got, needed in zip("YX", loss.shape, self.shape, strict=True):
            check_rows(name, got, needed)
        return loss

    @cached_property
    def _moments(self) -> Moments:
        """Those of the data, of which the square loss is one but for a constant."""
        return from_data(self.inputs, self.targets, bool(self.normalize))

    @property
    def irreducible(self) -> float:
        """What no map can remove of the square loss."""
        return self._moments.irreducible_loss

    def moments(self, widths: tuple[int, ...]) -> tuple[Problem, float]:
        """Return the problem of the square loss on the same data, and ‖Y‖², as normalized."""
        target, root, rest = self._moments
        root_or_none = None if is_identity(root) else root
        problem = Problem(widths, target, root_or_none, singular_modes(target))
        return problem, float(np.sum(target**2)) + 2.0 * rest

    def __repr__(self) -> str:
        """Give the kind and the sizes."""
        outputs, inputs = self.shape
        return f"Loss({self.kind}, {self.inputs.shape[1]} samples, {inputs} -> {outputs})"

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
        values = [self.of_image(W @ self.inputs) for W in maps.reshape(-1, *self.shape)]
        return np.reshape(values, maps.shape[:-2])[()]

    def of_image(self, image: Array) -> float:
        """Return the loss of outputs (d_h × samples), of whatever map they are."""
        if self.kind == "logistic":
            terms = np.logaddexp(0.0, -self.targets * image)
        elif self.kind == "power":
            terms = np.abs(self.targets - image) ** self.power / self.power
        else:  # log Σ exp S − S_o without the difference of nearly equal numbers
            top = image.argmax(axis=0), np.arange(image.shape[1])
            below = image - image[top]
            others = np.exp(below)
            others[top] = 0.0
            terms = self.targets * (np.log1p(others.sum(axis=0)) - below)
        return self.factor * float(np.sum(terms))

    def signal(self, image: Array) -> Array:
        """Return minus the derivative of the loss by outputs (d_h × samples), not checked."""
        signal = np.empty_like(image)
        kernels.loss_signal(  # type: ignore[no-untyped-call]
            FORMS[self.kind], self.targets.copy(), self.constants, image, signal
        )
        return signal

    @finite("W")
    def gradient(self, W: ArrayLike) -> Array:
        """Return ∇ℓ(W) (d_h × d_0).

        Raises
        ------
        ValueError, TypeError
            If W has another shape or is not finite.
        """
        image = check_array("W", W, ndim=2, shape=self.shape) @ self.inputs
        return -self.signal(image) @ self.inputs.T

    @finite("V")
    def second_derivative(self, W: ArrayLike, V: ArrayLike) -> Array:
        """Return ∇²ℓ(W)[V] (d_h × d_0), the derivative of the gradient at W along V.

        Raises
        ------
        ValueError, TypeError
            If W or V has another shape or is not finite.
        """
        image = check_finite("W", check_array("W", W, ndim=2, shape=self.shape) @ self.inputs)
        change = check_array("V", V, ndim=2, shape=self.shape) @ self.inputs
        targets = self.targets.copy()
        kernels.loss_signal_change(  # type: ignore[no-untyped-call]
            FORMS[self.kind], targets, self.constants, image, change, change
        )
        return -change @ self.inputs.T


def _some_grow(margins: Array, inputs: Array) -> bool:
    """Tell whether a map V has ⟨m, V x⟩ ≥ 0 for all rows m and x, and > 0 for some.

    The number of those that are at least one is maximized: V may be as large as it takes.
    """
    from scipy.optimize import linprog  # here, since hardly any run comes to this

    sizes = np.linalg.norm(inputs, axis=1)
    seen = sizes > 0.0
    margins, inputs = margins[seen], inputs[seen] / sizes[seen, None]
    if not seen.any():
        return False
    rows, outputs = np.nonzero(margins)
    values = margins[rows, outputs, None] * inputs[rows]
    columns = outputs[:, None] * inputs.shape[1] + np.arange(inputs.shape[1])
    places = np.repeat(rows, inputs.shape[1]), columns.ravel()
    n, m = margins.shape[1] * inputs.shape[1], len(margins)
    gains = scipy.sparse.coo_array((values.ravel(), places), shape=(m, n))
    found = linprog(
        np.repeat([0.0, -1.0], [n, m]),
        A_ub=scipy.sparse.hstack([-gains, scipy.sparse.eye_array(m)], format="csr"),
        b_ub=np.zeros(m),
        bounds=[(None, None)] * n + [(0.0, 1.0)] * m,
    )
    return found.status != 0 or float(-found.fun) > _SEPARATED


@known_options
def logistic(
    X: ArrayLike | xr.DataArray, y: ArrayLike | xr.DataArray, *, normalize: bool = True
) -> Loss:
    """Return the logistic loss of labels ±1, each output a question of its own.

    Parameters
    ----------
    X
        Inputs (d_0 × samples); DataArrays with a dim ``sample`` are transposed as needed.
    y
        Labels −1 and 1 (samples), or (d_h × samples).
    normalize
        Divide by the number of samples.

    Returns
    -------
    Loss
        With ``value``, ``gradient`` and ``second_derivative``, for `LossNetwork`.

    Raises
    ------
    ValueError, TypeError
        If labels are others than −1 and 1, not as many as inputs, or inputs are all zero.

    Notes
    -----
    ℓ(W) = Σ log(1 + exp(−Y ∘ W X)), divided by m if normalized. Accurate to rounding, relative to
    each term, for margins of any size. On separable data the infimum 0 is not reached: W grows
    without end, in general towards the direction of the largest margin.

    References
    ----------
    JT19 (Ji & Telgarsky, arXiv:1810.02032)

    Examples
    --------
    >>> import dlnds as dl
    >>> loss = dl.losses.logistic([[1.0, 2.0, -1.0]], [1, 1, -1])
    >>> loss.value([[[0.0]], [[800.0]], [[-800.0]]]).round(6).tolist()
    [0.693147, 0.0, 1066.666667]
    """
    inputs, labels = labelled_data(X, "y", y)
    if not np.isin(labels, (-1.0, 1.0)).all():
        raise ValueError("y: needs labels -1 and 1; of labels 0 and 1 make 2 y - 1")
    return Loss("logistic", inputs, np.atleast_2d(labels), normalize=normalize)


@known_options
def cross_entropy(
    X: ArrayLike | xr.DataArray,
    labels: ArrayLike | xr.DataArray,
    *,
    classes: int | None = None,
    normalize: bool = True,
) -> Loss:
    """Return the cross entropy of softmax(W X) with labels: one output for each class.

    Parameters
    ----------
    X
        Inputs (d_0 × samples); DataArrays with a dim ``sample`` are transposed as needed.
    labels
        Number of the class of each sample, from 0; or probabilities (d_h × samples), such as
        columns with a single 1.
    classes
        Number of classes d_h of numbered labels; ``None`` takes those up to the largest label.
    normalize
        Divide by the number of samples.

    Returns
    -------
    Loss
        With ``value``, ``gradient`` and ``second_derivative``, for `LossNetwork`.

    Raises
    ------
    ValueError, TypeError
        If labels are no whole numbers from 0 below ``classes``, or columns are no probabilities,
        there are fewer than two classes, or labels are not as many as inputs.

    Notes
    -----
    ℓ(W) = Σ_n Σ_o Y_on (log Σ_j exp S_jn − S_on), S = W X, divided by m if normalized. Sums are
    taken relative to the largest S_jn, and no nearly equal numbers are subtracted, so that terms
    are accurate to rounding for margins of any size. The same shift of all outputs changes
    nothing: ∇ℓ has columns with the sum zero, and ∇²ℓ a kernel.

    References
    ----------
    HTF09 (Hastie, Tibshirani & Friedman, Springer 2009), section 4.4

    Examples
    --------
    >>> import dlnds as dl
    >>> loss = dl.losses.cross_entropy([[1.0, -1.0, 0.5]], [0, 1, 2])
    >>> loss.shape, round(float(loss.value([[0.0], [0.0], [0.0]])), 6)
    ((3, 1), 1.098612)
    """
    inputs, numbers = labelled_data(X, "labels", labels)
    if numbers.ndim == 1:
        if (numbers < 0.0).any() or (numbers != np.floor(numbers)).any():
            raise ValueError("labels: needs whole numbers from 0, or columns of probabilities")
        least = max(2, int(numbers.max()) + 1)
        count = least if classes is None else check_integer("classes", classes, minimum=least)
        check_memory("classes", count * len(numbers))
        targets = (np.arange(count)[:, None] == numbers).astype(float)
    else:
        if classes is not None:
            raise ValueError("classes: belongs to numbered labels, got it with probabilities")
        sums = numbers.sum(axis=0)
        if len(numbers) < 2 or (numbers < 0.0).any() or np.abs(sums - 1.0).max() > tolerances.SUMS:
            raise ValueError("labels: needs two classes or more, columns of probabilities")
        targets = numbers / sums
    return Loss("cross_entropy", inputs, targets, normalize=normalize)


@known_options
def power(
    X: ArrayLike | xr.DataArray,
    Y: ArrayLike | xr.DataArray,
    *,
    power: float = 4.0,
    normalize: bool = True,
) -> Loss:
    """Return the p-th power loss of outputs, p ≥ 2; p = 2 is the square loss.

    Parameters
    ----------
    X, Y
        Inputs (d_0 × samples) and outputs (d_h × samples, or one row); DataArrays with a dim
        ``sample`` are transposed as needed.
    power
        p, a real number of at least 2.
    normalize
        Divide by the number of samples.

    Returns
    -------
    Loss
        With ``value``, ``gradient`` and ``second_derivative``, for `LossNetwork`.

    Raises
    ------
    ValueError, TypeError
        If p < 2, or outputs are not as many as inputs.

    Notes
    -----
    ℓ(W) = (1/p) Σ |Y − W X|^p, divided by m if normalized. For p = 2 this is the loss of
    `LinearNetwork` with its irreducible part. For p > 2 the second derivative vanishes with the
    residual: a perfect fit is approached like t^{−1/(p−2)}, and its Hessian is zero.

    References
    ----------
    BRTW22 (Bah, Rauhut, Terstiege & Westdickenberg, arXiv:1910.05505), section 1, for losses of the
    end-to-end map in general.

    Examples
    --------
    >>> import dlnds as dl
    >>> float(dl.losses.power([[1.0]], [[3.0]], power=4.0).value([[1.0]]))
    4.0
    """
    inputs, outputs = labelled_data(X, "Y", Y)
    return Loss("power", inputs, np.atleast_2d(outputs), power=power, normalize=normalize)


@dataclass(frozen=True, eq=False, repr=False)
class LossNetwork(LayeredSystem):
    """Gradient flow of a deep linear network W = W_h…W_1 under any loss of W.

    Parameters
    ----------
    widths
        d_0, …, d_h: inputs, hidden layers, outputs.
    criterion
        The loss ℓ(W), made by `losses.logistic`, `losses.cross_entropy` or `losses.power`, or by
        `losses.completion` or `losses.measurements`.
    weight_decay
        λ ≥ 0 of the loss ℓ(W) + ½ Σ_i λ_i ‖W_i‖²: a number, or one for each layer.

    Raises
    ------
    ValueError, TypeError
        If widths are not positive integers, or do not begin and end as the loss wants it, or decays
        are negative.

    Notes
    -----
    The state holds W_1, …, W_h, each row by row. The flow is
    Ẇ_i = −W_{i+1:h}ᵀ ∇ℓ(W) W_{1:i−1}ᵀ. Whatever ℓ is, it conserves
    C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}. The minima of ℓ are not known beforehand: a run without end
    is over where its Hessian shows one. There is none if some direction of W lowers the loss for
    ever, as for labels that a network can fit; a linear program tells, and a run to infinity has no
    limit: give `flow` a last time then. Where hidden layers are narrower than both ends, W may not
    be able to go there, which is not decided: no minimum is told. Weights hold what is 1e-16 of the
    largest singular value of W, or less, as rounding, and may lose the sign of det W, which
    balanced layers keep: the `ProductFlow` of the network does not. What rests on the critical
    points of the square loss (`critical_points`, `saddle_visits`, …) takes a `LinearNetwork` only.

    References
    ----------
    BRTW22 (Bah, Rauhut, Terstiege & Westdickenberg, arXiv:1910.05505), section 2; WA25 (Wendin &
    Altafini, arXiv:2511.10362), section 2.

    Examples
    --------
    >>> import dlnds as dl
    >>> loss = dl.losses.logistic([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]], [1, 1, -1])
    >>> net = dl.LossNetwork((2, 3, 1), loss)
    >>> run = dl.flow(net, net.initial(scale=0.1, rng=0), t_span=(0, 100), save=["imbalance"])
    >>> bool(run.loss[-1] < 0.05), bool(abs(run.imbalance - run.imbalance[0]).max() < 1e-7)
    (True, True)
    """

    _fields = (kernels.loss_field_from_inputs, kernels.loss_field_from_outputs)
    _low_rank_step = staticmethod(low_rank.loss_own_step)
    _jvps = (kernels.loss_jvp_from_inputs, kernels.loss_jvp_from_outputs)
    _jacobian = staticmethod(kernels.loss_jacobian)

    widths: tuple[int, ...]
    criterion: Loss | Measurements
    weight_decay: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        widths = check_widths(self.widths)
        if not isinstance(self.criterion, Loss | Measurements):
            raise TypeError(
                f"criterion: needs a loss such as losses.logistic(X, y), got {self.criterion!r}"
            )
        outputs, inputs = self.criterion.shape
        if (widths[0], widths[-1]) != (inputs, outputs):
            raise ValueError(
                f"widths: needs {inputs} inputs and {outputs} outputs as the loss has, got {widths}"
            )
        object.__setattr__(self, "widths", widths)
        decay = check_decay(self.weight_decay, self.depth)
        object.__setattr__(self, "weight_decay", decay)

    def __repr__(self) -> str:
        """Give the widths and the loss."""
        words = [" -> ".join(map(str, self.widths)), self.criterion.kind, *self._decay_words]
        return f"LossNetwork({', '.join(words)})"

    @property
    def params(self) -> Params:  # type: ignore[override]
        """Sizes and numbers for the kernels, a copy of its own for each caller."""
        return self._with_decays(*self.criterion.numbers)

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the network."""
        return {**super().attributes(), **self.criterion.attributes()}

    def _loss_of(self, maps: Array) -> Any:
        return self.criterion.values(maps)

    def _signal_of(self, W: Array) -> Array:
        return -self.criterion.gradient(W)

    def limit(self, x: Array, force: float = math.inf, rtol: float = 0.0) -> Limit:
        """Return whether a run feels no force, at a critical point or on its way to infinity.

        Or whether it meets linear measurements as well as any matrix does.
        """
        settled = rtol > 0.0 and not self.is_decayed and self._settled(x, rtol)
        if not settled and not force < tolerances.NO_FORCE:
            return Limit()
        far = not (settled or self.is_decayed) and self.criterion.fades(float(self._loss(x)))
        return ended(settled, force, "none" if far else "critical_point")

    def _settled(self, x: Array, rtol: float) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged state is near to nothing
            return self.criterion.settled(self._product_of(x), rtol, self._way(x))

    def _way(self, x: Array) -> float:
        """Return ‖∇L‖ ‖x‖, in terms of which the loss tells how far x still goes."""
        force, size = (np.asarray(scipy.linalg.norm(v)) for v in (self._forces(x), x))
        return float(force * size)  # without squares, which overflow first

    def _may_recede(self, x: Array) -> bool:
        return self._recedes or self.criterion.is_far(self._product_of(x), self._way(x))

    @property
    def fitting_size(self) -> float:  # type: ignore[override]
        """How large maps are that fit."""
        return self.criterion.fitting_size

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state: the generators of GL, and how runs leave it.

        With the square loss as of a `LinearNetwork`; with others the leading part of −L at the
        origin and at points whose layers hold what has been learnt and nothing else.
        """
        if self.is_decayed:  # the penalty has minima, and leaves no weights to themselves
            return super().theory(x)
        known = super().theory(x)._replace(recedes=lambda: self._may_recede(x))
        if self._square is not None:
            return departing(known, self._square, layers_of(self.widths, x))
        return known._replace(leading_parts=lambda: self._leading_parts(x))

    def _product_of(self, x: Array) -> Array:
        return product(layers_of(self.widths, x))

    @cached_property
    def _recedes(self) -> bool:
        """Whether the loss has no minimum over all maps.

        Without bottleneck all local minima of a network are of the map (T. Laurent, J. von Brecht,
        ICML 2018). With one the ray may leave the maps of its rank: that is not decided.
        """
        return self.criterion.recedes()

    def loss_on(self, states: Array, X: ArrayLike, Y: ArrayLike) -> Array:
        """Return the loss of states (…, parameter), not checked, on other inputs and targets."""
        loss = self.criterion.on(X, Y)
        return np.asarray(loss.values(product(layers_of(self.widths, states))))

    @cached_property
    def _square(self) -> Problem | None:
        return self.criterion.problem(self.widths)

    @cached_property
    def _linear(self) -> LinearNetwork | None:
        """The network with the same loss, but for a constant; None if it is no square one."""
        if self._square is None:
            return None
        _, target, root, _ = self._square.whitened() or self._square
        return LinearNetwork(self.widths, target, root, weight_decay=self.weight_decay)

    @property
    def lowest_loss(self) -> float:  # type: ignore[override]
        """The loss at the global minima of a square loss with weight decay; of others NaN."""
        if self._linear is None or not self.is_decayed:
            return math.nan
        return self._linear.lowest_loss + self.criterion.irreducible

    @property
    def decayed_minimum(self) -> decayed_rates.Orbit | None:
        """The global minima of a square loss under the same weight decay of all layers."""
        return None if self._linear is None else self._linear.decayed_minimum

    @cached_property
    def quadratic(self) -> Quadratic | None:
        """What bounds of rates need of the loss, None if it is no square one."""
        return self.criterion.quadratic(self.widths)

    @cached_property
    def _data(self) -> tuple[Problem, float]:
        assert isinstance(self.criterion, Loss)
        return self.criterion.moments(self.widths)

    def _observables(self, start: Array) -> Mapping[str, Callable[[Array], xr.Variable]]:
        """Return what a run can record: of measurements residuals, and nothing of samples."""
        known, criterion = super()._observables(start), self.criterion
        if isinstance(criterion, Loss):
            return known
        rests = self._of_layers(
            lambda layers: criterion.targets - criterion.measured(product(layers)), "measurement"
        )
        return {name: known[name] for name in known if name not in _OF_SAMPLES} | {
            "residual": rests
        }

    @property
    def _own_inputs(self) -> Array:
        return self.criterion.own_inputs

    def _leading_parts(self, x: Array) -> list[LeadingPart]:
        layers = layers_of(self.widths, x)
        W = product(layers)
        signal, first = (-self.criterion.gradient(w) for w in (W, 0.0 * W))
        noise = tolerances.CRITICAL * float(np.linalg.norm(first))
        return saddles.residual_parts(self.widths, layers, signal, noise)


def has_criterion(net: object) -> TypeGuard[LossNetwork]:
    """Tell whether a network has a loss of its own."""
    return isinstance(net, LossNetwork)


@dataclass(frozen=True, eq=False, repr=False)
class BackwardNetwork(LossNetwork):
    """The flow of a network against time, +∇ℓ in place of −∇ℓ; its ``loss`` is still ℓ."""

    @property
    def params(self) -> Params:  # type: ignore[override]
        """As of the network, with the other sign of the loss."""
        sizes, numbers = super().params
        numbers[-2] = -numbers[-2]
        return sizes, numbers


def against_time(net: LinearNetwork) -> BackwardNetwork:
    """Return the flow of a network with the square loss against time."""
    root = np.eye(net.widths[0]) if net.input_root is None else net.input_root
    return BackwardNetwork(net.widths, Loss("power", root, net.target, normalize=False))


LossNetwork.__init__ = known_options(LossNetwork.__init__)  # type: ignore[method-assign]
