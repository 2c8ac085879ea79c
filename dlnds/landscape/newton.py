"""Critical points near any start: a Newton method for zeros that are not isolated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import ConvergenceError, check_integer, check_memory, check_number, known_options
from dlnds.systems.protocol import SystemProtocol, check_flow, check_state, dense_jacobian, field_of
from dlnds.theory.spectra import decided
from dlnds.threads import threads_for

Evaluate = Callable[[Array], Array]

#: Systems above this size are refused: a step takes about 10 s of one core at n = 1840.
LARGEST = 2000
#: Evaluations of the field along one trial: the step itself, and corrections of it.
CHAIN = 5
#: Orders of a degenerate zero that are tried where plain steps gain less than `SLOW`.
MULTIPLICITIES = range(2, 9)
SLOW = 0.03
#: What a trial of higher order must gain over a plain one, so that chance does not choose it.
GAIN = 0.25
#: Largest ‖f‖ after a step, in terms of the smallest one before it.
DECREASE = 0.9
#: Growth of the force along a step down the gradient flow, against it, at which it is too long.
OVERSHOOT = 0.1
#: Largest ‖f‖, in terms of its bound of rounding, and largest estimated distance, in terms of ‖x‖,
#: at which a search that finds no better state is over. Accidents of rounding are far below.
RESOLVED, CLOSE = 1e4, 1e-5
#: Singular values, in terms of their rounding, from which on what rounding hides is an error. Below
#: they may be those of directions along the zeros, which J takes on with the rounding of the state.
CLEAR = 30.0
#: Growth of J with the state, in terms of ‖J‖/‖x‖: its degree, and that layers are less than all.
CURVATURE = 10.0

_EPSILON = float(np.finfo(float).eps)


@known_options
def find_critical_point(
    system: SystemProtocol,
    x0: ArrayLike,
    *,
    t: float = 0.0,
    rtol: float = 1e-10,
    max_iterations: int = 300,
) -> xr.Dataset:
    """Return a critical point of a system, an equilibrium, near a given state.

    Parameters
    ----------
    system
        Any flow. Without a Jacobian of its own it is differenced.
    x0
        State (parameter) to start from.
    t
        Time, for a system that depends on it.
    rtol
        Largest estimated distance to the critical point, in terms of the size ‖x‖ of the state.
    max_iterations
        Steps to make at most; each factorizes the Jacobian once.

    Returns
    -------
    xarray.Dataset
        Schema ``critical_point``: ``state(parameter)``; along the iterations (0 is the start)
        ``residual(iteration)``, the norm of the field, ``step_norm(iteration)`` and
        ``estimated_distance(iteration)``; ``distance`` from ``x0``; ``error``, the estimated
        distance at the end, with what rounding may hide where singular values are clear of it, and
        ``is_within_rtol``, 0 if that is more than was asked for;
        ``relative_residual``, ‖f‖ / (‖J‖‖x‖), which rounding alone makes about 1e-16;
        ``contraction``, the ratio of the last two estimated distances; ``rank`` and ``nullity`` of
        the Jacobian, with the singular values ``smallest_nonzero`` and ``largest_zero`` that show
        how clear they are; ``multiplicity``, the order of the zero in its degenerate directions;
        ``n_iterations``; ``convergence``: ``at_start``; ``quadratic``; ``degenerate``, if the
        multiplicity is above one; ``stagnated``, if rounding forbids to reach ``rtol``, or, with an
        infinite ``error``, hides a force that no slope ends, as near points at infinity. What runs
        of the system always record (``loss``) comes with it, and the attribute ``limit`` names the
        critical value.

    Raises
    ------
    ConvergenceError
        If no critical point was reached: ‖f‖ has a minimum above zero, or the iterations ended.
    ValueError, TypeError
        If the start has the wrong shape, or there the field is not finite, or there are more than
        2000 components.

    Notes
    -----
    With J = U diag(s) Vᵀ and g = Uᵀf, a trial step is −V s/(s² + τ²) g with τ on a grid of powers
    of ten from ‖J‖ down to rounding, so from the gradient of ½‖f‖² to the step of minimum norm of
    any numerical rank. Each is followed by steps in those singular directions alone that it cannot
    have changed much (s above ‖J‖ times its length over ‖x‖), which keep to the bottom of curved
    valleys. Of the trials whose ‖f‖ is within twice the smallest one, or a tenth of its geometric
    mean with the present one, the shortest is taken. Near a semiregular zero (rank J = n −
    dimension of the set of zeros) the error is at least squared.

    Where f has order m, Newton steps gain (m − 1)/m only: if trials gain little, the other
    directions go m times as far, which lands at the zero up to rounding. There f ~ z^m, so that z
    is known to about 1e-16^{1/m} only: m = h − 1 for h layers at A_S and S = {0..r−1}, r < r_max.

    Where ‖f‖ has a minimum that is no zero, a gradient flow is followed downwards, by steps
    (|J| + μ)^{-1}f, until a trial has a smaller ‖f‖ than all states before; other systems take
    the part of the Newton step that leaves the shortest next one.

    Convergence is judged by the estimated distance |g|/s, never by ‖f‖: near the origin of a deep
    network ‖f‖ is tiny. Directions in which J is zero to rounding cannot be judged at all.

    References
    ----------
    Zen21 (Zeng, arXiv:2101.09180), YF01 (Yamashita & Fukushima, Computing Supplementa 15, 2001) and
    Deu04 (Deuflhard, Springer 2004) for the steps; WA25 (Wendin & Altafini, arXiv:2511.10362) and
    AMG24 (Achour, Malgouyres & Gerchinovitz, arXiv:2107.13289) for the critical points

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> start = net.critical_state((0,)) + 0.01 * net.initial(scale=1.0, rng=0)
    >>> point = dl.find_critical_point(net, start)
    >>> point.attrs["limit"], int(point["rank"]), int(point.nullity), round(float(point.loss), 12)
    ('{0}', 7, 5, 0.5)
    """
    check_flow(system)
    x = check_state("x0", system, x0)
    t = check_number("t", t)
    rtol = check_number("rtol", rtol, minimum=4.0 * _EPSILON, maximum=0.1)
    max_iterations = check_integer("max_iterations", max_iterations, minimum=0)
    if system.dim > LARGEST:
        raise ValueError(f"system: needs at most {LARGEST} components, got {system.dim}")
    check_memory("system", 4 * system.dim**2)
    far = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # trials too far away
    with far, threads_for(float(system.dim) ** 3):
        search = Search(system, t, x, rtol)
        search.run(max_iterations)
    attrs = {**system.attributes(), "rtol": rtol, "max_iterations": max_iterations}
    if label := system.limit(search.model.x).label:
        attrs["limit"] = label
    return schema.finish(search.report(), "critical_point", attrs)


class Model(NamedTuple):
    """The field at a state, and its linearization there by singular directions.

    ``left`` are the rows of Uᵀ, ``right`` the columns of V; ``falling`` are the directions in which
    a gradient flow is stable. Singular values up to ``noise``, and ‖f‖ up to ``rounding``, are not
    told from zero. ``terms`` are the sizes of what each component of f is a sum of.
    """

    x: Array
    f: Array
    left: Array
    s: Array
    right: Array
    falling: Any
    noise: float
    rounding: float
    terms: Array

    @property
    def residual(self) -> float:
        """The norm of the field."""
        return float(np.linalg.norm(self.f))

    @property
    def top(self) -> float:
        """The norm of the Jacobian."""
        return float(self.s.max())

    @property
    def size(self) -> float:
        """The norm of the state."""
        return float(np.linalg.norm(self.x))

    def distance(self) -> float:
        """Return the norm of the Newton step; infinite where none leads to a zero."""
        g = np.abs(self.left @ self.f)
        seen = g > self.rounding
        if np.any(self.s[seen] <= self.noise):
            return np.inf
        return float(np.linalg.norm(g[seen] / self.s[seen]))

    def is_flat(self, first: float) -> bool:
        """Tell whether a force that is no rounding of its own terms has no slope to end it.

        Nor rounding of the ``first`` ‖f‖, as forces on what has come to zero are. Where few weights
        are large, as on the way to a zero at infinity, ‖f‖ is nothing beside ‖J‖ ‖x‖ in all
        directions, and in some there is a force nevertheless.
        """
        g, own = np.abs(self.left @ self.f), np.abs(self.left) @ self.terms
        resolved = g > _EPSILON * np.maximum(first, 4.0 * RESOLVED * own)
        return bool(np.any(self.s[resolved] <= self.noise))


class Trial(NamedTuple):
    """A state that a step may lead to."""

    state: Array
    f: Array
    residual: float
    length: float
    multiplicity: int


@dataclass
class Search:
    """One search under way: the model at the present state, and what has been reached."""

    system: SystemProtocol
    t: float
    start: Array
    rtol: float
    residuals: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=lambda: [0.0])
    distances: list[float] = field(default_factory=list)
    multiplicities: list[int] = field(default_factory=lambda: [1])
    hidden: float = 0.0
    stagnated: bool = False

    def __post_init__(self) -> None:
        self.evaluate = field_of(self.system, self.t)
        f = self.evaluate(self.start)
        if not np.isfinite(f).all():
            raise ValueError("x0: the field at this state is not finite")
        self._move(self.start, f)

    def run(self, max_iterations: int) -> None:
        """Take steps until the critical point is reached, and one more if that gains."""
        polished = self.model.residual <= self.model.rounding
        while self.residuals[-1] > 0.0:
            distance, steps = self.distances[-1], len(self.residuals) - 1
            reached = distance <= self.rtol * self.model.size
            if reached and (polished or distance == 0.0 or steps == max_iterations):
                return
            if steps == max_iterations:
                self._fail(f"not reached within max_iterations = {max_iterations}")
            trial = self._next(reached)
            if trial is None:
                self.stagnated = not reached
                return
            self._step(trial)
            polished = reached

    def _next(self, reached: bool) -> Trial | None:
        """Return the next step, or None where rounding leaves none, or none is needed."""
        model = self.model
        if model.top == 0.0:
            self._fail("the Jacobian is zero, the field is not")
        trial = _newton(model, self.evaluate)
        if trial is not None and trial.residual <= DECREASE * min(self.residuals):
            return trial
        if reached:
            return None
        near = self.distances[-1] <= CLOSE * model.size
        if model.residual <= (RESOLVED if near else 1.0) * model.rounding:
            return None
        fallback = _downhill if self.system.numerics.symmetric else _natural
        trial = fallback(model, self.evaluate)
        if trial is None:
            self._fail("the norm of the field has a minimum that is no zero")
        return trial

    def _step(self, trial: Trial) -> None:
        """Move to a trial; to the origin itself if nothing but rounding is left of the state."""
        before, (x, f, residual, length, m) = self.model, trial
        left = max(residual, before.rounding) / before.residual
        self.hidden = length * left ** (1.0 / m) if m > 1 else 0.0
        if np.linalg.norm(x) <= _EPSILON * np.linalg.norm(self.start):
            origin = np.zeros_like(x)
            if not self.evaluate(origin).any():
                x, f, self.hidden = origin, origin, 0.0
        self.lengths.append(float(np.linalg.norm(x - before.x)))
        self.multiplicities.append(m)
        self._move(np.ascontiguousarray(x), f)

    def _move(self, x: Array, f: Array) -> None:
        try:
            self.model = _expand(self.system, self.t, x, f)
        except ValueError as error:
            if not self.residuals:
                raise ValueError("x0: the Jacobian at this state is not finite") from error
            self._fail("the Jacobian is not finite")
        self.residuals.append(self.model.residual)
        self.distances.append(self.model.distance())

    def _fail(self, reason: str) -> None:
        raise ConvergenceError(
            f"no critical point: {reason}; after {len(self.residuals) - 1} iterations the field "
            f"has the norm {self.residuals[-1]:.3g} (at the start {self.residuals[0]:.3g}), the "
            f"estimated distance is {self.distances[-1]:.3g} at a state of size "
            f"{self.model.size:.3g}"
        )

    def report(self) -> xr.Dataset:
        """Return what has been reached."""
        model, count = self.model, len(self.residuals) - 1
        error = max(self.distances[-1], self.hidden)
        # No singular value can change more between here and the critical point (Weyl).
        change = CURVATURE * model.top * error / model.size if model.size else 0.0
        decision = decided(model.s, max(model.noise, change))
        clear = model.s[model.s > max(CLEAR * model.noise, change)].min(initial=np.inf)
        flat = model.is_flat(self.residuals[0])
        error = np.inf if flat else max(error, model.rounding / float(clear))
        multiplicity = max(self.multiplicities[-2:])
        word = "degenerate" if multiplicity > 1 else "quadratic"
        if flat or self.stagnated or not count:
            word = "stagnated" if flat or self.stagnated else "at_start"
        scale = model.top * model.size
        variables: dict[str, Any] = {
            "state": ("parameter", model.x),
            "residual": ("iteration", self.residuals),
            "step_norm": ("iteration", self.lengths),
            "estimated_distance": ("iteration", self.distances),
            "distance": np.linalg.norm(model.x - self.start),
            "error": error,
            "is_within_rtol": np.int8(error <= self.rtol * model.size),
            "relative_residual": model.residual / scale if scale else 0.0,
            "contraction": self.distances[-1] / self.distances[-2] if count else 0.0,
            "convergence": schema.flag(schema.CONVERGENCES, word),
            "rank": np.int64(decision.rank),
            "nullity": np.int64(decision.nullity),
            "smallest_nonzero": decision.smallest_nonzero,
            "largest_zero": decision.largest_zero,
            "multiplicity": np.int64(multiplicity),
            "n_iterations": np.int64(count),
        }
        seen = self.system.observables(model.x[None])
        variables |= {name: variable.isel(time=0) for name, variable in seen.items()}
        coords = {**self.system.coordinates(), "iteration": np.arange(count + 1)}
        return xr.Dataset(variables, coords=coords)


def _expand(system: SystemProtocol, t: float, x: Array, f: Array) -> Model:
    """Return the model at a state; that of a gradient flow from its eigenvectors."""
    matrix, accuracy = dense_jacobian(system, t, x)
    terms = np.abs(matrix) @ np.abs(x)
    if system.numerics.symmetric:
        values, right = scipy.linalg.eigh(matrix, overwrite_a=True, check_finite=False)
        falling, s = values < 0.0, np.abs(values)
        left = (right * np.where(falling, -1.0, 1.0)).T
    else:
        left, s, right = scipy.linalg.svd(matrix, overwrite_a=True, check_finite=False)
        left, right, falling = left.T, right.T, None
    noise = accuracy * float(s.max())
    rounding = 4.0 * _EPSILON * float(s.max()) * float(np.linalg.norm(x))
    return Model(x, f, left, s, right, falling, noise, rounding, terms)


def _newton(model: Model, evaluate: Evaluate) -> Trial | None:
    """Return the best step towards a zero, or None if no trial is finite."""
    decades = int(np.log10(model.top / model.noise))
    damping = np.append(model.top * 10.0 ** -np.arange(decades + 1.0), model.noise)
    best = _shortest(model, _damped(model, evaluate, damping, 1))
    if best is not None and best.residual > SLOW * model.residual:
        best = _overrelaxed(model, evaluate, damping, best)
    if best is None or best.residual > DECREASE * model.residual:
        strong = model.top * 10.0 ** np.arange(1.0, 13.0)
        other = _shortest(model, _damped(model, evaluate, strong, 1))
        if other is not None and (best is None or other.residual < best.residual):
            best = other
    return best


def _overrelaxed(model: Model, evaluate: Evaluate, damping: Array, plain: Trial) -> Trial:
    """Return the best step to a degenerate zero if it gains much more than the plain one."""
    found = []
    for m in MULTIPLICITIES:
        # A zero of order m is m steps away, if not damped; what goes far moves along the zeros.
        trials = _damped(model, evaluate, damping, m)
        near = [trial for trial in trials if trial.length <= 8.0 * m * plain.length]
        found.append(_shortest(model, near))
    best = min(filter(None, found), key=lambda trial: trial.residual, default=plain)
    return best if best.residual < GAIN * plain.residual else plain


def _shortest(model: Model, trials: list[Trial]) -> Trial | None:
    """Return the shortest trial that gains about as much as the best one, or very much."""
    if not trials:
        return None
    best = min(trial.residual for trial in trials)
    much = 0.1 * np.sqrt(best * model.residual)
    # The smallest ‖f‖ is chance below the usual rounding, which is far below its bound.
    bound = max(2.0 * best, much, model.rounding / 64.0)
    return min((t for t in trials if t.residual <= bound), key=lambda trial: trial.length)


def _damped(model: Model, evaluate: Evaluate, damping: Array, m: int) -> list[Trial]:
    """Return trials at Levenberg–Marquardt steps, those of weak directions m times as long."""
    s = model.s[:, None]
    inverse = np.where(s > model.noise, s / (s**2 + damping**2), 0.0)
    steps = -inverse * (model.left @ model.f)[:, None]
    strong = _unchanged(model, steps)
    steps = np.where(strong, steps, m * steps)
    return _followed(model, evaluate, steps, np.where(strong, inverse, 0.0), m)


def _downhill(model: Model, evaluate: Evaluate) -> Trial | None:
    """Return the longest step down a gradient flow, or None if all go too far.

    The force along it may turn at the end, but little, and the step is at most half of the state.
    """
    s, damping = model.s[:, None], model.top * 10.0 ** np.arange(-12.0, 4.0)
    steps = (model.right.T @ model.f)[:, None] / (s + damping)
    kept = _unchanged(model, steps) & model.falling[:, None]
    trials = _followed(model, evaluate, steps, np.where(kept, 1.0 / (s + damping), 0.0), 1)
    good = []
    for trial in trials:
        step = trial.state - model.x
        force = float(model.f @ step)
        falls = force > 0.0 and trial.f @ step >= -OVERSHOOT * force
        if falls and trial.length <= 0.5 * model.size:
            good.append(trial)
    return max(good, key=lambda trial: trial.length, default=None)


def _natural(model: Model, evaluate: Evaluate) -> Trial | None:
    """Return the part of the Newton step after which the next one would be shortest.

    This test does not change if the equations are scaled or combined (Deuflhard), so that it gets
    through curved valleys of ‖f‖. None if no part leaves less than the whole.
    """
    inverse = np.where(model.s > model.noise, 1.0 / model.s, 0.0)
    step = -inverse * (model.left @ model.f)
    steps = step[:, None] * 0.5 ** np.arange(20.0)
    kept = np.where(_unchanged(model, steps), inverse[:, None], 0.0)

    def left(trial: Trial) -> float:
        return float(np.linalg.norm(inverse * (model.left @ trial.f)))

    best = min(_followed(model, evaluate, steps, kept, 1), key=left, default=None)
    return best if best is not None and left(best) < float(np.linalg.norm(step)) else None


def _unchanged(model: Model, steps: Array) -> Any:
    """Tell which singular directions a step (direction, trial) leaves about as they are.

    J changes by about ‖J‖ when the state changes by its size; larger singular values stay.
    """
    return model.s[:, None] * model.size > model.top * np.linalg.norm(steps, axis=0)


def _followed(
    model: Model, evaluate: Evaluate, steps: Array, inverse: Array, m: int
) -> list[Trial]:
    """Return the states after the steps (direction, trial), and after corrections of these."""
    trials: list[Trial] = []
    states = model.x[:, None] + model.right @ steps
    for _ in range(CHAIN):
        columns = np.ascontiguousarray(states.T)
        fields = np.array([evaluate(x) for x in columns])
        finite = np.isfinite(fields).all(axis=1)
        for x, f in zip(columns[finite], fields[finite], strict=True):
            lengths = float(np.linalg.norm(f)), float(np.linalg.norm(x - model.x))
            trials.append(Trial(x, f, *lengths, m))
        fields[~finite] = 0.0
        states = states - model.right @ (inverse * (model.left @ fields.T))
    return trials
