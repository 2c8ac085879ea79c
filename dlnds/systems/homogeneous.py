"""Homogeneous networks: layers with a power of a rectifier between them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds._kernels import homogeneous as kernels
from dlnds.arrays import Array, Params
from dlnds.errors import (
    check_array,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    finite,
    known_options,
)
from dlnds.systems.losses import FORMS, NORMALIZED, Loss, logistic
from dlnds.systems.network import (
    WeightSystem,
    check_decay,
    check_undecayed,
    check_widths,
    departing,
    labelled_data,
)
from dlnds.systems.protocol import Limit, Numerics, Theory, ended, evaluations, varying
from dlnds.systems.varied import with_decay
from dlnds.theory import forms, tolerances
from dlnds.theory.coordinates import block_places, layers_of
from dlnds.theory.forms import LeadingPart, correlation
from dlnds.theory.moments import Problem

#: Largest power of the activation.
MOST_POWER = 64


@dataclass(frozen=True, eq=False, repr=False, init=False)
class HomogeneousNetwork(WeightSystem):
    """Gradient flow of the network H(X; W) = W_h σ(W_{h−1} … σ(W_1 X)), σ(z) = max(z, αz)^p.

    Parameters
    ----------
    widths
        d_0, …, d_h: inputs, hidden layers, outputs.
    X
        Inputs (d_0 × samples); DataArrays with a dim ``sample`` are transposed as needed.
    y
        Outputs (samples), or (d_h × samples); labels ±1 for the logistic loss.
    power
        p, an integer of at least 2, or 1 with ``slope=1``: a linear network.
    slope
        α ≤ 1, the slope of the rectifier at negative numbers.
    normalize
        Whether the loss is divided by the number of samples.
    loss
        ``"square"``, ½‖Y − H‖_F², or ``"logistic"``, Σ log(1 + exp(−Y ∘ H)).
    weight_decay
        λ ≥ 0 of what is added to the loss, ½ Σ_i λ_i ‖W_i‖²: a number, or one for each layer.

    Raises
    ------
    ValueError, TypeError
        If widths and data do not agree, p is no positive integer, p = 1 with α ≠ 1, α > 1, or
        decays are negative.

    Notes
    -----
    The state holds W_1, …, W_h, each row by row. H is homogeneous of ``degree``
    L = 1 + p + … + p^{h−1}: H(X; cW) = c^L H(X; W) for c ≥ 0, so that ⟨W, ∇H⟩ = L H (Euler). The
    flow conserves ‖W_l[j, :]‖² − p ‖W_{l+1}[:, j]‖² for each hidden unit j of each layer l. The
    loss is kept by permutations of hidden units, which the flow keeps as well, and by scaling what
    goes into a unit with c > 0 and what comes out of it with c^{−p}, which it does not.

    The gradient is continuously differentiable for p ≥ 3 or α = 1 with even p; for p = 2 the second
    derivative jumps where a unit's input changes sign, and is taken from one side there.

    References
    ----------
    KH25 (Kumar & Haupt, arXiv:2502.15952)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> X = np.random.default_rng(0).normal(size=(2, 20))
    >>> net = dl.HomogeneousNetwork((2, 6, 1), X, X[0] * X[1], power=2)
    >>> run = dl.flow(net, net.initial(scale=0.3, rng=0), t_span=(0, 100), save=["conserved"])
    >>> net.degree, bool(run.loss[-1] < 0.01 * run.loss[0])
    (3, True)
    >>> bool(abs(run.conserved - run.conserved[0]).max() < 1e-6)
    True
    """

    _field = staticmethod(kernels.field)
    _jvp = staticmethod(kernels.jvp)
    _jacobian = staticmethod(kernels.jacobian)

    widths: tuple[int, ...]
    criterion: Loss
    power: int
    slope: float
    weight_decay: float | tuple[float, ...]

    @known_options
    def __init__(
        self,
        widths: tuple[int, ...],
        X: ArrayLike | xr.DataArray,
        y: ArrayLike | xr.DataArray,
        *,
        power: int = 2,
        slope: float = 0.0,
        normalize: bool = True,
        loss: str = "square",
        weight_decay: float | Sequence[float] = 0.0,
    ) -> None:
        widths = check_widths(widths)
        put = object.__setattr__
        put(self, "widths", widths)
        put(self, "power", check_integer("power", power, minimum=1, maximum=MOST_POWER))
        put(self, "slope", check_number("slope", slope, maximum=1.0))
        if self.power == 1 and self.slope != 1.0:
            raise ValueError(
                f"power: needs at least 2 with slope {self.slope:g}, got 1: the gradient is not "
                "Lipschitz; a linear network has power=1, slope=1"
            )
        put(self, "criterion", _criterion(widths, X, y, normalize, loss))
        put(self, "weight_decay", check_decay(weight_decay, self.depth))

    @classmethod
    def of_fields(
        cls,
        widths: tuple[int, ...],
        criterion: Loss,
        power: int,
        slope: float,
        weight_decay: float | tuple[float, ...] = 0.0,
    ) -> HomogeneousNetwork:
        """Return a network of its fields, which are not what it is made of."""
        return cls(
            widths,
            criterion.inputs,
            criterion.targets,
            power=power,
            slope=slope,
            normalize=criterion.normalize,
            loss="logistic" if criterion.kind == "logistic" else "square",
            weight_decay=weight_decay,
        )

    def undecayed(self) -> HomogeneousNetwork:
        """Return the same network without weight decay."""
        return self.of_fields(self.widths, self.criterion, self.power, self.slope)

    def __repr__(self) -> str:
        """Give the widths, the activation and the loss."""
        activation = f"max(z, {self.slope:g}z)^{self.power}"
        words = [" -> ".join(map(str, self.widths)), activation, self._loss_name]
        return f"HomogeneousNetwork({', '.join(words + self._decay_words)})"

    @property
    def _loss_name(self) -> str:
        return "logistic" if self.criterion.kind == "logistic" else "square"

    @property
    def degree(self) -> int:
        """L, the degree of homogeneity of H in the weights."""
        return sum(self.power**k for k in range(self.depth))

    @property
    def activation(self) -> tuple[int, float]:
        """Power p and slope α of max(z, αz)^p between the layers."""
        return self.power, self.slope

    @property
    def is_linear(self) -> bool:
        """Whether the activation is the identity."""
        return self.power == 1

    # What the engines ask.

    @property
    def params(self) -> Params:  # type: ignore[override]
        """Sizes and numbers for the kernels, a copy of its own for each caller."""
        loss = self.criterion
        activation = np.array([float(self.power), self.slope])
        data = (loss.targets, loss.inputs, activation, loss.constants)
        return self._with_decays(FORMS[loss.kind], *data)

    @property
    def numerics(self) -> Numerics:
        """How to integrate the flow; the cost is of what is called, and what is multiplied."""
        samples = float(self.criterion.inputs.shape[1])
        return super().numerics._replace(field_cost=500.0 * self.depth + 0.4 * self.dim * samples)

    def _is_too_large(self, x: Array) -> bool:
        """Tell whether outputs, or the squares of gradients, may overflow at ``x``."""
        with np.errstate(over="ignore"):
            size = max(1.0, float(np.linalg.norm(x)))
            return not np.isfinite(size ** np.float64(4 * self.degree))

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the network."""
        return {
            **super().attributes(),
            "power": self.power,
            "slope": self.slope,
            "criterion": self._loss_name,
            "normalization": NORMALIZED[bool(self.criterion.normalize)],
        }

    def limit(self, x: Array, force: float = math.inf, rtol: float = 0.0) -> Limit:
        """Return whether a run fits the outputs to its accuracy, with the square loss.

        √(2L) is at most 10 ``rtol`` of what it is without a network. With the logistic loss a run
        that feels no force may be on its way to infinity.
        """
        loss, settled = float(self._loss(x)), False
        if self.is_decayed:
            return ended(False, force, "critical_point")
        if self._loss_name == "square":
            settled = loss <= (10.0 * rtol) ** 2 * float(self._loss(np.zeros(self.dim)))
        return ended(settled, force, "none" if self.criterion.fades(loss) else "critical_point")

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state; critical points lie along the symmetry orbit.

        Of linear networks with the square loss how runs leave it as of a `LinearNetwork`.
        """
        known = Theory(
            generators=lambda: self.generators(x),
            dimensions=lambda: self._orbit_dimensions(x),
            leading_parts=lambda: self._leading_parts(x),
            alike=lambda: self._alike(x),
            recedes=lambda: self._recedes(x),
        )
        if self.is_decayed:  # the penalty has minima, and leaves no weights to themselves
            size = self.criterion.fitting_size
            return known._replace(leading_parts=list, recedes=lambda: self.escapes(x, size))
        if self._square is None:
            return known
        return departing(known, self._square, layers_of(self.widths, x))

    @functools.cached_property
    def _square(self) -> Problem | None:
        return self.criterion.problem(self.widths) if self.is_linear else None

    def generators(self, x: ArrayLike, *, orthogonal: bool = False) -> Array:
        """Return the tangent vectors (generator, parameter) of the symmetry orbit at a state.

        Of each hidden unit the scaling, W_l[j, :] and −p W_{l+1}[:, j]; of a linear network those
        of GL. ``orthogonal`` takes those alone whose orbits the flow keeps: none but for a linear
        network. With weight decay these are all that keep the loss.
        """
        state = check_array("x", x, ndim=1, shape=(self.dim,))
        return self._tangents(check_flag("orthogonal", orthogonal) or self.is_decayed)(state)

    def _tangents(self, orthogonal: bool) -> Callable[[Array], Array]:
        if self.is_linear:
            return super()._tangents(orthogonal)
        if orthogonal:
            return lambda x: np.zeros((0, self.dim))
        into, out_of = self.unit_weights
        factors = np.where(into, 1.0, np.where(out_of, -float(self.power), 0.0))
        return lambda x: factors * x

    def _orbit_dimensions(self, x: Array) -> tuple[int, int, bool] | None:
        """Return the dimension of the symmetry orbit, twice: critical points along it."""
        rows = self.generators(x)
        rank = int(np.linalg.matrix_rank(rows, rtol=tolerances.RANK)) if rows.any() else 0
        return rank, rank, False

    def _leading_parts(self, x: Array) -> list[LeadingPart]:
        """Return the leading parts of −L at a critical point, in the weights of its zero units.

        At the origin the neural correlation function, of degree L. Elsewhere a unit of layer l
        that has no weights adds ⟨B_{l+1}, W_{l+1}[:, j] σ(W_l[j, :] A_{l−1})⟩ to leading order, of
        degree p + 1: one two-layer network for each layer with such units.
        """
        form = functools.partial(correlation, power=self.power, slope=self.slope)
        if not x.any():
            signal = self.criterion.signal(self._outputs(x, self.slope))
            return [form(self.widths, self.criterion.inputs, signal)]
        values, signals = self._both_ways(x)
        zero = self.unit_sizes(x) <= tolerances.ZERO_UNIT * np.linalg.norm(x)
        of, parts = self.units[:, 0], []
        hidden = [np.flatnonzero(~zero[of == i]) for i in range(1, self.depth)]
        active = [np.arange(self.widths[0]), *hidden, np.arange(self.widths[-1])]
        for i in range(1, self.depth):
            spare = np.setdiff1d(np.arange(self.widths[i]), active[i])
            before, after = active[i - 1], active[i + 1]
            if not (spare.size and before.size and after.size):
                continue
            none = np.zeros(0, np.int64)
            kept = [none] * (i - 1) + [before, spare, after] + [none] * (self.depth - i - 1)
            widths = (before.size, spare.size, after.size)
            places = block_places(self.widths, kept)
            inputs, signal = values[i - 1][before], signals[i][after]
            parts.append(form(widths, inputs, signal, embed=places))
        return parts

    def _recedes(self, x: Array) -> bool:
        """Tell whether the loss falls along a ray of the last layer, or of the map if linear.

        Units come to the edge of a sample like a power of time, while others grow for ever: what
        is left of it when the run ends is no more than nothing.
        """
        A = self.criterion.inputs
        for W in [] if self.is_linear else self.unpack(x)[:-1]:
            z = W @ A
            sizes = np.linalg.norm(W, axis=1)[:, None] * np.linalg.norm(A, axis=0)
            z[np.abs(z) <= tolerances.UNREACHED * sizes] = 0.0
            A = np.where(z > 0.0, z, self.slope * z) ** self.power
        return self.criterion.recedes(A)

    def _both_ways(self, x: Array) -> tuple[list[Array], list[Array]]:
        """Return A_0, …, A_{h−1} and B_1, …, B_h of a state."""
        layers = self.unpack(x)
        values = forms.activations(layers, self.criterion.inputs, self.power, self.slope)
        signals = [self.criterion.signal(layers[-1] @ values[-1])]
        for i in range(self.depth - 1, 0, -1):
            z = layers[i - 1] @ values[i - 1]
            edge = np.where(z > 0.0, 1.0, self.slope)
            change = self.power * edge * (edge * z) ** (self.power - 1)
            signals.append(change * (layers[i].T @ signals[-1]))
        return values, signals[::-1]

    # States and what they mean.

    def _conserved(self, states: Array) -> Array:
        into, out_of = self.unit_weights
        signs = into.astype(float) - self.power * out_of
        balance: Array = states**2 @ signs.T
        return balance

    @finite("x")
    def outputs(self, x: ArrayLike) -> Array:
        """Return H(X; W) (d_h × samples) on the inputs of the problem, of a state or a stack."""
        return self._outputs(self._states(x), self.slope)

    def _outputs(self, states: Array, slope: float) -> Array:
        layers = layers_of(self.widths, states)
        return forms.network_outputs(layers, self.criterion.inputs, self.power, slope)

    def _data_loss(self, states: Array) -> Any:
        return self._loss_under(self.criterion, states)

    def loss_on(self, states: Array, X: ArrayLike, Y: ArrayLike) -> Array:
        """Return the loss of states (…, parameter), not checked, on other inputs and targets."""
        return np.asarray(self._loss_under(self.criterion.on(X, Y), states))

    def _loss_under(self, criterion: Loss, states: Array) -> Any:
        layers = layers_of(self.widths, states)
        images = forms.network_outputs(layers, criterion.inputs, self.power, self.slope)
        values = [criterion.of_image(s) for s in images.reshape(-1, *images.shape[-2:])]
        return np.reshape(values, images.shape[:-2])[()]

    def varied(self, name: str | int, **options: Any) -> dict[str, Any]:
        """Return the critical points as weight decay, or the slope of the rectifier, varies."""
        if self.is_linear:
            return super().varied(name)
        if check_choice("vary", name, ("weight_decay", "slope")) == "weight_decay":
            if self.is_decayed:
                return self.undecayed().varied(name)
            return with_decay(self, functools.cache(self._tangents), self._observed)
        check_undecayed(self, "system")
        tangents = self._tangents(False)
        fun, jacobian = evaluations(self, varying(self.params, kernels.SLOPE))
        return {
            "fun": fun,
            "jacobian": jacobian,
            "generators": lambda x, p: tangents(x),
            "symmetric": True,
            "parameter": "slope",
            "observe": lambda x, p: {"loss": self.criterion.of_image(self._outputs(x, p))},
            "attributes": {**self.attributes(), "vary": "slope"},
        }


def _criterion(widths: tuple[int, ...], X: Any, y: Any, normalize: bool, name: str) -> Loss:
    """Return the loss of the outputs of a network, of data that fit to its ends."""
    if check_choice("loss", name, ("square", "logistic")) == "logistic":
        criterion = logistic(X, y, normalize=normalize)
    else:
        inputs, outputs = labelled_data(X, "y", y)
        criterion = Loss("power", inputs, np.atleast_2d(outputs), normalize=normalize)
    if criterion.shape[0] != widths[-1]:
        raise ValueError(
            f"y: needs {widths[-1]} outputs as the widths say, got {criterion.shape[0]}"
        )
    if criterion.shape[1] != widths[0]:
        raise ValueError(
            f"X: needs {widths[0]} features as the widths say, got {criterion.shape[1]}"
        )
    return criterion
