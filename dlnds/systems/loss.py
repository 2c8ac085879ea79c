"""Deep linear networks with other losses than the square one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dlnds._kernels import linear as kernels
from dlnds.arrays import Array, Kernel, Params
from dlnds.errors import finite, known_options
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.losses import FORMS, Loss
from dlnds.systems.network import LayeredSystem, check_widths
from dlnds.systems.protocol import Theory
from dlnds.theory.forms import LeadingPart, correlation

NORMALIZED = {True: "loss divided by the number of samples", False: "loss not divided"}


@dataclass(frozen=True, eq=False, repr=False)
class LossNetwork(LayeredSystem):
    """Gradient flow of a deep linear network W = W_h…W_1 under any loss of W.

    Parameters
    ----------
    widths
        d_0, …, d_h: inputs, hidden layers, outputs.
    criterion
        The loss ℓ(W), made by `losses.logistic`, `losses.cross_entropy` or `losses.power`.

    Raises
    ------
    ValueError, TypeError
        If widths are not positive integers, or do not begin and end as the loss wants it.

    Notes
    -----
    The state holds W_1, …, W_h, each row by row. The flow is
    Ẇ_i = −W_{i+1:h}ᵀ ∇ℓ(W) W_{1:i−1}ᵀ. Whatever ℓ is, it conserves
    C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}. No run ends by itself at a limit, since the minima of ℓ are
    not known beforehand, or lie at infinity: give `flow` a last time. What rests on the
    critical points of the square loss (`critical_points`, `saddle_visits`, …) takes a
    `LinearNetwork` only.

    References
    ----------
    BRTW22, section 2; WA25, section 2.

    Examples
    --------
    >>> import dlnds as dl
    >>> loss = dl.losses.logistic([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]], [1, 1, -1])
    >>> net = dl.LossNetwork((2, 3, 1), loss)
    >>> run = dl.flow(net, net.initial(scale=0.1, rng=0), t_span=(0, 100), save=["imbalance"])
    >>> bool(run.loss[-1] < 0.05), bool(abs(run.imbalance - run.imbalance[0]).max() < 1e-7)
    (True, True)
    """

    widths: tuple[int, ...]
    criterion: Loss

    def __post_init__(self) -> None:
        widths = check_widths(self.widths)
        if not isinstance(self.criterion, Loss):
            raise TypeError(
                f"criterion: needs a loss such as losses.logistic(X, y), got {self.criterion!r}"
            )
        outputs, inputs = self.criterion.shape
        if (widths[0], widths[-1]) != (inputs, outputs):
            raise ValueError(
                f"widths: needs {inputs} inputs and {outputs} outputs as the loss has, got {widths}"
            )
        object.__setattr__(self, "widths", widths)

    def __repr__(self) -> str:
        """Give the widths and the loss."""
        return f"LossNetwork({' -> '.join(map(str, self.widths))}, {self.criterion.kind})"

    @property
    def params(self) -> Params:  # type: ignore[override]
        """Sizes and numbers for the kernels, a copy of its own for each caller."""
        loss = self.criterion
        return self._pack_params(FORMS[loss.kind], loss.targets, loss.inputs, loss.constants)

    @property
    def _narrow_input(self) -> bool:
        return bool(self.criterion.inputs.shape[1] <= self.widths[-1])

    @property
    def field(self) -> Kernel:  # type: ignore[override]
        """Minus the gradient of the loss, computed from the narrower end of the network."""
        if self._narrow_input:
            return kernels.loss_field_from_inputs  # type: ignore[no-any-return]
        return kernels.loss_field_from_outputs  # type: ignore[no-any-return]

    @property
    def jvp(self) -> Kernel:  # type: ignore[override]
        """Minus the Hessian times a direction."""
        if self._narrow_input:
            return kernels.loss_jvp_from_inputs  # type: ignore[no-any-return]
        return kernels.loss_jvp_from_outputs  # type: ignore[no-any-return]

    @property
    def jacobian(self) -> Kernel:  # type: ignore[override]
        """Minus the Hessian."""
        return kernels.loss_jacobian  # type: ignore[no-any-return]

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the network."""
        loss = self.criterion
        power = {"power": loss.power} if loss.kind == "power" else {}
        normalization = NORMALIZED[bool(loss.normalize)]
        words = {"criterion": loss.kind, **power, "normalization": normalization}
        return {**super().attributes(), **words}

    @finite("x")
    def loss(self, x: ArrayLike) -> Any:
        """Return ℓ(W_h…W_1) of a state, or of each in a stack (…, parameter)."""
        return self._loss(self._states(x))

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state: the generators of GL, and what leads at the origin."""
        return super().theory(x)._replace(leading_parts=lambda: self._leading_parts(x))

    def _leading_parts(self, x: Array) -> list[LeadingPart]:
        """Return the leading part of −L at the origin, −⟨∇ℓ(0), W⟩ of degree h; none elsewhere."""
        if x.any():
            return []
        outputs, inputs = self.criterion.shape
        signal = -self.criterion.gradient(np.zeros((outputs, inputs)))
        return [correlation(self.widths, np.eye(inputs), signal)]

    def _loss(self, states: Array) -> Any:
        return self.criterion.values(self._product(states))


@dataclass(frozen=True, eq=False, repr=False)
class BackwardNetwork(LossNetwork):
    """The flow of a network against time, +∇ℓ in place of −∇ℓ; its ``loss`` is still ℓ."""

    @property
    def params(self) -> Params:  # type: ignore[override]
        """As of the network, with the other sign of the loss."""
        sizes, numbers = super().params
        numbers[-2] = -self.criterion.factor
        return sizes, numbers


def against_time(net: LinearNetwork) -> BackwardNetwork:
    """Return the flow of a network with the square loss against time."""
    root = np.eye(net.widths[0]) if net.input_root is None else net.input_root
    return BackwardNetwork(net.widths, Loss("power", root, net.target, normalize=False))


LossNetwork.__init__ = known_options(LossNetwork.__init__)  # type: ignore[method-assign]
