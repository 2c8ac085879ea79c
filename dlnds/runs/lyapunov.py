"""Lyapunov exponents of flows and maps, covariant vectors, and the loss as a Lyapunov function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds._kernels import jit, runge_kutta
from dlnds._kernels import tangent as kernels
from dlnds.arrays import Array
from dlnds.errors import (
    ConvergenceError,
    check_ascending,
    check_flag,
    check_generator,
    check_integer,
    check_memory,
    check_number,
    known_options,
)
from dlnds.runs.flow import LAST, SMALLEST_RTOL, check_span, progress_bar
from dlnds.runs.observe import durations
from dlnds.runs.stepping import Tracker
from dlnds.systems.protocol import SystemProtocol, check_state, check_system, field_of
from dlnds.threads import threads_for

#: Rows of finite-time values, and parts of a run whose growth is compared.
_ROWS, _PARTS = 100, 20
#: Forces of at most this, in units of rounding, are those of a critical point.
_ROUNDING = 100.0 * float(np.finfo(float).eps)
#: Part of an integral over time that may be unsure.
_SEEN = 1e-6


@known_options
def lyapunov_spectrum(
    system: SystemProtocol,
    start: ArrayLike | xr.DataArray,
    t_span: tuple[float, float] | None = None,
    *,
    n_steps: int | None = None,
    k: int | None = None,
    burn_in: float = 0.0,
    interval: float | None = None,
    t_eval: ArrayLike | None = None,
    rtol: float = 1e-8,
    rng: Any = 0,
    max_steps: int = 1_000_000,
    progress: bool = False,
) -> xr.Dataset:
    """Return the largest Lyapunov exponents of a flow or a map, and how they came about.

    Parameters
    ----------
    system
        A flow, or a map as `iterate` takes it. Derivatives that it does not give are differenced,
        to about 1e-10.
    start
        State (parameter).
    t_span
        First and last time, of a flow.
    n_steps
        Iterations, of a map.
    k
        Number of exponents; ``None`` for all.
    burn_in
        Time, or iterations, at the beginning that does not count.
    interval
        Longest time, or most iterations, between two orthonormalizations, which are made at all
        rows too. ``None`` chooses: flows make them as often as the vectors differ in growth, maps
        after each iteration.
    t_eval
        Times, or numbers of iterations, after the burn-in at which to save finite-time values;
        ``None`` for a hundred of them. The last is the end in any case.
    rtol
        Allowed local error of a step of a flow, for the state as in `flow`, and for the tangent
        vectors, each relative to its size. Exponents are then accurate to about ``rtol`` times the
        number of steps a unit of time.
    rng
        Seed or `numpy.random.Generator` for the random orthonormal start (SPEC 7).
    max_steps
        Steps after which the integration of a flow is given up.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``lyapunov``. ``exponent(eigen)``, descending; ``finite_time_exponent(time, eigen)``,
        the mean growth since the burn-in, for maps over ``iteration``; ``standard_error(eigen)`` of
        the exponents from their spread over twenty parts of the run, as if these were independent:
        it knows nothing of what changes more slowly, such as the approach to a limit; ``state``,
        the end. If all exponents are computed also ``volume_rate``, the mean of tr J, for maps of
        ln |det|, and ``trace_rule``, how much T Σ exponents differs from its integral. Attributes
        ``n_steps``, ``n_rhs``, and ``held``: 1 if the start is a critical point to rounding of a
        gradient flow, where the state then stays.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside what is described above.
    ConvergenceError
        If the orbit leaves the finite numbers, takes more than ``max_steps`` steps, or tangent
        vectors become dependent within an ``interval``.

    Notes
    -----
    State and tangent vectors, u̇ = J(x) u, are integrated together by the explicit pair of order 8,
    and the vectors made orthonormal, U = Q R, again and again; exponents are the sums of the ln
    R_jj over time. The start is random because one along the coordinates may never leave an
    invariant subspace. For a run that converges to A_∞ they tend to minus the Hessian spectrum
    there, with an error of O(1/T), zeros included. At a fixed point too the random start takes its
    time to align: its part of the error is O(1/T), and vanishes exponentially in ``burn_in``, at
    the rate of the gap to the next exponent. A map x → α x + β f(x) has u → α u + β J u. Where
    its Jacobian is singular, exponents are −∞.

    Steps are short enough for the fastest decay, so that stiff limits cost time in proportion to
    it.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 6; BGGS80 (Benettin, Galgani, Giorgilli &
    Strelcyn, Meccanica 15, 1980)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> start = net.critical_state((1,))
    >>> found = dl.lyapunov_spectrum(net, start, (0, 60), burn_in=30)
    >>> (found.exponent.values.round(6) + 0.0).tolist()
    [2.0, 1.0, 0.0, 0.0, 0.0, -2.0, -2.0, -3.0]
    """
    way = _way(system, t_span, n_steps, interval)
    motion = _Motion(way, start, k, rng, rtol, max_steps)
    zero = way.begin + way.length("burn_in", burn_in)
    grid = way.grid(t_eval, zero, way.end)
    edges = np.append(zero, way.grid(None, zero, way.end)[_ROWS // _PARTS - 1 :: _ROWS // _PARTS])
    at = motion.follow([zero, grid, edges], progress)
    first, last = at(zero), at(way.end)
    total, length = _growth(first.logs, last.logs), way.end - zero
    order = np.argsort(-total, kind="stable")
    rows, parts = (np.stack([at(t).logs for t in times]) for times in (grid, edges))
    variables: dict[str, Any] = {
        "exponent": ("eigen", total[order] / length),
        "finite_time_exponent": (
            (way.dim, "eigen"),
            _growth(first.logs, rows)[:, order] / (grid - zero)[:, None],
        ),
        "state": ("parameter", motion.state.copy()),
    }
    if len(parts) > 2:
        rates = _growth(parts[:-1], parts[1:])[:, order] / np.diff(edges)[:, None]
        variables["standard_error"] = ("eigen", _standard_error(rates))
    if motion.k == system.dim:
        volume = float(_growth(np.array(first.volume), np.array(last.volume)))
        singular = np.isneginf(volume) and np.isneginf(total).any()
        variables["volume_rate"] = ((), volume / length)
        variables["trace_rule"] = ((), 0.0 if singular else float(total.sum() - volume))
    return motion.dataset("lyapunov", variables, grid, {"burn_in": zero - way.begin})


@known_options
def covariant_vectors(
    system: SystemProtocol,
    start: ArrayLike | xr.DataArray,
    t_span: tuple[float, float] | None = None,
    *,
    n_steps: int | None = None,
    k: int | None = None,
    burn_in: float = 0.0,
    burn_out: float | None = None,
    interval: float | None = None,
    t_eval: ArrayLike | None = None,
    rtol: float = 1e-8,
    rng: Any = 0,
    max_steps: int = 1_000_000,
    progress: bool = False,
) -> xr.Dataset:
    """Return the covariant Lyapunov vectors along an orbit, by Ginelli's method.

    Parameters
    ----------
    system, start, t_span, n_steps, interval, rtol, rng, max_steps, progress
        As for `lyapunov_spectrum`.
    k
        Number of vectors, those that grow most; ``None`` for all.
    burn_in, burn_out
        Time, or iterations, at the beginning and at the end for which no vectors are returned:
        what the frames take to align, forwards and backwards. ``burn_out=None`` is ``burn_in``.
    t_eval
        Times, or numbers of iterations, of the rows; ``None`` for a hundred and one of them.

    Returns
    -------
    xarray.Dataset
        Schema ``covariant_vectors``: unit vectors ``vector(time, direction, parameter)``; at each
        row the rate ``growth_rate(time, direction)`` at which the vector grows, vᵀJv, for maps ln
        of the factor; ``state(time, parameter)``; ``exponent(direction)``, the mean growth of
        volumes after the burn-in. For maps over ``iteration``.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside what is described above, or rows take too much memory.
    ConvergenceError
        As for `lyapunov_spectrum`; also if a map is singular on the orbit.

    Notes
    -----
    Forwards Φ Q_n = Q_{n+1} R_n; backwards C_n ∝ R_n^{-1} C_{n+1} from a random upper triangular
    start; the vectors are the columns of Q_n C_n, and Φ takes those at a row to multiples of those
    at the next. Vectors of equal exponents are some basis of their common space.

    References
    ----------
    GPTCLP07 (Ginelli et al., arXiv:0706.0510)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> def cat(t, x, params, out):
    ...     out[0] = (2.0 * x[0] + x[1]) % 1.0
    ...     out[1] = (x[0] + x[1]) % 1.0
    >>> def derivative(t, x, params, out):
    ...     out[0, 0], out[0, 1], out[1, 0], out[1, 1] = 2.0, 1.0, 1.0, 1.0
    >>> vectors = dl.covariant_vectors(
    ...     dl.System(cat, jacobian=derivative, dim=2), [0.1, 0.2], n_steps=100, burn_in=40
    ... )
    >>> unstable = vectors.vector[-1, 0].values
    >>> round(float(unstable[0] / unstable[1]), 6)
    1.618034
    """
    way = _way(system, t_span, n_steps, interval)
    motion = _Motion(way, start, k, rng, rtol, max_steps, collect=True)
    zero = way.begin + way.length("burn_in", burn_in)
    burn_out = zero - way.begin if burn_out is None else burn_out
    last = way.end - way.length("burn_out", burn_out)
    grid = way.grid(t_eval, zero, last, whole=True)
    check_memory("t_eval", len(grid) * motion.k * (2 * system.dim + motion.k))
    rows: list[tuple[Array, Array]] = []
    factors: list[tuple[Array, Array]] = []

    def note(position: float) -> None:
        if len(rows) < len(grid) and position >= grid[len(rows)] - way.close:
            factors.append(motion.take())
            rows.append((motion.state.copy(), motion.frame.copy()))

    at = motion.follow([zero, grid], progress, note)
    factors.append(motion.take())
    vectors = _backwards(motion, rows, factors[1:])
    growth = [motion.growth_rate(*row) for row in zip(grid, rows, vectors, strict=True)]
    variables = {
        "vector": ((way.dim, "direction", "parameter"), np.swapaxes(np.stack(vectors), 1, 2)),
        "growth_rate": ((way.dim, "direction"), np.stack(growth)),
        "state": ((way.dim, "parameter"), np.stack([state for state, _ in rows])),
        "exponent": ("direction", (at(way.end).logs - at(zero).logs) / (way.end - zero)),
    }
    burnt = {"burn_in": zero - way.begin, "burn_out": way.end - last}
    return motion.dataset("covariant_vectors", variables, grid, burnt)


@known_options
def lyapunov_function(run: xr.Dataset, *, limit: float = 0.0) -> xr.Dataset:
    """Return the loss as a Lyapunov function along a run of a gradient flow, with its decrease.

    Parameters
    ----------
    run
        One run over time that records ``loss`` and ``loss_rate``, as all runs of networks do.
    limit
        Critical value to count from, such as the loss of the saddle that a run approaches.

    Returns
    -------
    xarray.Dataset
        Schema ``lyapunov_function``: ``value(time)``, L minus ``limit``; ``rate``, dL/dt = −‖∇L‖²
        as it was recorded; ``decrease``, the loss at the first row minus that at each;
        ``integrated_rate``, the integral of ‖∇L‖² since the first row by quadrature, to be compared
        with it; ``rise``, the largest rise of the loss between two rows, and ``monotone``: 1 if
        no row rises by more than rounding, else 0.

    Raises
    ------
    ValueError, TypeError
        If the run is not one run over time, or does not record loss and rate.

    Notes
    -----
    L is positive semidefinite and dL/dt = −‖∇L‖². The quadrature integrates a piecewise cubic
    through the recorded rates, with the slopes of Fritsch and Butland that let it overshoot
    nowhere: its error tells of the spacing of rows, not of the run. Times are differences of the
    compensated clock. There is no integral (NaN) from where a millionth of it is unsure: on
    plateaus so long that the rates that rounding leaves at rest would add up, and that no step
    beyond them is seen in the clock. A loss of ½‖R‖² is rounded to a few ε ‖Σ‖ ‖R‖.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 6

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 10), np.linspace(0, 10, 501))
    >>> found = dl.lyapunov_function(run)
    >>> int(found.monotone), bool(abs(found.decrease - found.integrated_rate).max() < 1e-4)
    (1, True)
    """
    needed = ("time", "loss", "loss_rate")
    if isinstance(run, xr.Dataset) and not {*needed[1:]} <= {*run.variables}:
        raise ValueError("run: needs recorded loss and loss_rate, as of a gradient flow")
    run = schema.read("run", run, "run", dict.fromkeys(needed, ("time",)))
    limit = check_number("limit", limit)
    loss, rate = run["loss"].values, run["loss_rate"].values
    spacing, error = durations(run)
    rises = np.diff(loss)
    rounding = 64.0 * float(np.finfo(float).eps)
    top = float(np.abs(loss).max())
    allowed = rounding * np.sqrt(np.abs(loss[:-1]) * top) + rounding**2 * top
    parts, fastest = _integrals(spacing, -rate), np.maximum(-rate[:-1], -rate[1:])
    beyond = np.maximum(np.abs(parts) - allowed, 0.0)  # of rates at rest, which are errors of it
    unsure = error * fastest + np.where(np.abs(rises) <= allowed, beyond, 0.0)
    variables = {
        "value": ("time", loss - limit),
        "rate": ("time", rate.copy()),
        "decrease": ("time", loss[0] - loss),
        "integrated_rate": ("time", _sum(parts, unsure)),
        "rise": ((), float(max(rises.max(initial=0.0), 0.0))),
        "monotone": ((), np.int8(np.all(rises <= allowed))),
    }
    kept = {k: v for k, v in run.attrs.items() if k not in ("schema", "dlnds_version")}
    dataset = xr.Dataset(variables, coords={"time": run["time"].values})
    return schema.finish(dataset, "lyapunov_function", {**kept, "limit_loss": limit})


def _integrals(spacing: Array, values: Array) -> Array:
    """Return the integrals between rows of a monotone piecewise cubic through the values."""
    if len(values) < 2:
        return np.zeros(0)
    passed = spacing > 0.0  # rows at one time have nothing between them
    spacing = np.where(passed, spacing, 0.0)
    secants = np.where(passed, np.diff(values) / np.where(passed, spacing, 1.0), 0.0)
    slopes = np.zeros(len(values))
    slopes[0], slopes[-1] = secants[0], secants[-1]
    before, after = secants[:-1], secants[1:]
    both = spacing[:-1] + spacing[1:]
    weight = (both + spacing[1:]) / (3.0 * np.where(both > 0.0, both, 1.0))
    same = np.sign(before) * np.sign(after) > 0.0
    # the harmonic mean of both, of which neither a product nor an inverse has to be a number
    grows = np.abs(after) > np.abs(before)
    large, small = np.where(grows, (after, before), (before, after))
    of_large = np.where(grows, weight, 1.0 - weight)
    safe = np.where(same, of_large + (1.0 - of_large) * (small / np.where(same, large, 1.0)), 1.0)
    slopes[1:-1] = np.where(same, small / safe, 0.0)
    parts = spacing * (values[:-1] + values[1:]) / 2.0
    parts += spacing * (spacing * (slopes[:-1] - slopes[1:])) / 12.0
    return parts


def _sum(parts: Array, unsure: Array) -> Array:
    """Return the sums up to each row, NaN from where what is unsure of them is seen."""
    total, error = (np.concatenate([[0.0], np.cumsum(part)]) for part in (parts, unsure))
    return np.where(error > _SEEN * np.abs(total), np.nan, total)


@dataclass(frozen=True)
class _Way:
    """What is travelled: the times of a flow, or the iterations of a map."""

    system: SystemProtocol
    is_map: bool
    begin: float
    end: float
    #: The way between two orthonormalizations, if it is given.
    interval: float | None = None

    @property
    def dim(self) -> str:
        """The dim of its rows."""
        return "iteration" if self.is_map else "time"

    @property
    def close(self) -> float:
        """Times closer than this are one."""
        return 0.5 if self.is_map else 1e-12 * (self.end - self.begin)

    @property
    def update(self) -> tuple[float, float]:
        """α and β of a map."""
        return self.system.numerics.update or (0.0, 1.0)

    def length(self, name: str, value: Any, minimum: float = 0.0) -> float:
        """Return a part of the way."""
        span = self.end - self.begin
        if self.is_map:
            return float(check_integer(name, value, minimum=int(minimum), maximum=int(span)))
        return check_number(name, value, minimum=minimum, maximum=span)

    def grid(self, t_eval: Any, first: float, last: float, *, whole: bool = False) -> Array:
        """Return the rows between two times; without the first and with the last unless whole."""
        if not first < last:
            raise ValueError(f"burn_in: leaves nothing of the way from {self.begin:g}")
        if t_eval is None:
            grid = np.linspace(first, last, _ROWS + 1)[0 if whole else 1 :]
            return np.unique(np.ceil(grid - 1e-6)) if self.is_map else grid
        grid = check_ascending("t_eval", t_eval)
        if grid[0] < first or grid[-1] > last or (grid[0] == first and not whole):
            raise ValueError(
                f"t_eval: needs times after {first:g}, up to {last:g}, "
                f"got {grid[0]:g} to {grid[-1]:g}"
            )
        if self.is_map and (grid != np.round(grid)).any():
            raise ValueError("t_eval: needs numbers of iterations, whole numbers, for a map")
        return grid if whole or grid[-1] == last else np.append(grid, last)

    def labels(self, grid: Array) -> Array:
        """Return what the rows are labelled by."""
        return grid.astype(np.int64) if self.is_map else grid


def _way(system: Any, t_span: Any, n_steps: Any, interval: Any) -> _Way:
    """Return the way that is asked for."""
    check_system(system)
    if (t_span is None) == (n_steps is None):
        raise ValueError("t_span: give either t_span, for a flow, or n_steps, for a map")
    name, is_map = type(system).__name__, t_span is None
    if is_map and system.numerics.update is None:
        raise TypeError(f"n_steps: needs a map, got the flow {name}; use GradientDescent")
    if not is_map and system.kind == "map":
        raise TypeError(f"t_span: needs a flow, got the map {name}; give n_steps")
    if is_map:
        span = 0.0, float(check_integer("n_steps", n_steps, minimum=1, maximum=LAST))
    else:
        span = check_span(t_span)
        if np.isinf(span[1]):
            raise ValueError("t_span: needs a finite last time, got inf")
    way = _Way(system, is_map, *span)
    if interval is None:
        return way
    smallest = 1.0 if is_map else 1e-9 * (way.end - way.begin)
    return replace(way, interval=way.length("interval", interval, smallest))


class _Place(NamedTuple):
    """What has been summed up where the way is: logarithms of growth, and of volumes."""

    logs: Array
    volume: float


class _Motion:
    """A state and its frame under way.

    ``collect`` keeps how the frame was changed, for `take`.
    """

    def __init__(
        self,
        way: _Way,
        start: Any,
        k: Any,
        rng: Any,
        rtol: Any,
        max_steps: Any,
        *,
        collect: bool = False,
    ) -> None:
        system, n = way.system, way.system.dim
        x = check_state("start", system, start)
        self.way, self.system = way, system
        self.k = n if k is None else check_integer("k", k, minimum=1, maximum=n)
        self.rtol = check_number("rtol", rtol, minimum=SMALLEST_RTOL, maximum=0.1)
        self.max_steps = check_integer("max_steps", max_steps, minimum=1, maximum=LAST)
        self.generator = check_generator("rng", rng)
        self.entropy = str(getattr(self.generator.bit_generator.seed_seq, "entropy", ""))
        self.parts = _parts(way, self.k)
        self.form = self.parts[0][0]
        triangle = np.eye(self.k) if collect else np.zeros((0, 0))
        self.growth = kernels.Growth(np.zeros(self.k), triangle)
        self.taken, self.volume, self.number = np.zeros(self.k), 0.0, 0
        self.clock = runge_kutta.clock_at(way.begin)
        self.work = runge_kutta.work_of(np.zeros(n * (self.k + 1) + 1))
        self.state = self.work.state[:n]
        self.frame = self.work.state[n + 1 :].reshape(n, self.k)
        self.state[:] = x
        self.frame[:] = np.linalg.qr(self.generator.normal(size=(n, self.k)))[0]
        self.form.held = self._at_rest()

    def _at_rest(self) -> bool:
        """Tell whether a gradient flow starts at a critical point, as far as rounding lets it.

        Without being held there, a run leaves a strict saddle by its rounding.
        """
        system, x = self.system, self.state
        if not system.numerics.symmetric:
            return False
        force = field_of(system, self.way.begin)(x)
        # Random unit vectors feel ‖J‖_F/√n on average.
        slope = np.linalg.norm(self.pushed(self.way.begin, x, self.frame))
        slope *= np.sqrt(system.dim / self.k)
        return bool(np.linalg.norm(force) <= _ROUNDING * slope * np.linalg.norm(x))

    def pushed(self, t: float, x: Array, vectors: Array) -> Array:
        """Return the derivative of the field along each column."""
        apply: Any = jit.entry(kernels.apply, kernels.APPLY)
        out = np.empty_like(vectors)
        apply(self.parts, t, x, vectors, out)
        return out

    def growth_rate(self, t: float, row: tuple[Array, Array], vectors: Array) -> Array:
        """Return how fast unit vectors at a row grow."""
        pushed = self.pushed(float(t), row[0], vectors)
        if not self.way.is_map:
            return np.sum(vectors * pushed, axis=0)  # type: ignore[no-any-return]
        alpha, beta = self.way.update
        factors: Array = np.linalg.norm(alpha * vectors + beta * pushed, axis=0)
        return np.log(factors)

    def advance(self, end: float) -> None:
        """Go on to a time, or to a number of iterations."""
        code = self._iterate(int(end)) if self.way.is_map else self._integrate(end)
        if code != runge_kutta.END_REACHED:
            raise ConvergenceError(f"{_FAILURES[code]}{self._place()}")

    def _iterate(self, end: int) -> int:
        iterate: Any = jit.entry(kernels.iterate, kernels.ITERATE)
        code, self.number, volume = iterate(
            *(self.parts, self.way.update, (self.number, end)),
            *(self.state, self.frame, self.growth),
        )
        self.volume += volume
        return int(code)

    def _integrate(self, end: float) -> int:
        advance: Any = jit.entry(kernels.advance, kernels.ADVANCE)
        move: Any = jit.ready(kernels.tangent_field, kernels.MOVE)
        judge: Any = jit.ready(kernels.tangent_scale, kernels.MOVE)
        orders = np.zeros(1, runge_kutta.TASK)
        orders[0] = (end, self.rtol, 0.0, np.inf, self.max_steps, 0, 0)
        code = advance(self.parts, move, judge, orders, self.clock, self.work, self.growth)
        self.volume = float(self.work.state[self.system.dim])
        return int(code)

    def _place(self) -> str:
        if self.way.is_map:
            return f" at iteration {self.number} of {self.way.end:g}"
        now = self.clock[0]
        return f" at t = {now.time:g} on the way to {self.way.end:g}, after {now.steps} steps"

    def follow(
        self, grids: Sequence[Any], progress: Any, note: Callable[[float], None] | None = None
    ) -> Callable[[float], _Place]:
        """Go all the way, with stops at these times; return what tells of each of them."""
        way, every = self.way, np.zeros(0, float)
        if way.interval is not None and not way.is_map:
            count = int((way.end - way.begin) / way.interval)
            check_memory("interval", count * (self.k + 2))
            every = way.begin + way.interval * np.arange(1, count + 1)
        stops = np.sort(np.hstack([way.begin, way.end, every, *grids]))
        stops = stops[np.diff(stops, prepend=-np.inf) > way.close]
        places: list[_Place] = []
        show, span = check_flag("progress", progress), (way.begin, way.end)
        bar = progress_bar(show, 1, span, "tangent vectors")
        with threads_for(self.k * way.system.numerics.field_cost), bar as track:
            update: Tracker = track()
            for stop in stops.tolist():
                if places:
                    self.advance(stop)
                places.append(_Place(self.taken + self.growth.logs, self.volume))
                if note is not None:
                    note(stop)
                update(stop)
        return lambda t: places[int(np.searchsorted(stops, t + way.close)) - 1]

    def take(self) -> tuple[Array, Array]:
        """Return how the frame was changed since the last call, D and T (see the kernels)."""
        logs, triangle = self.growth
        taken = logs.copy(), triangle.copy()
        self.taken += logs
        logs[:], triangle[:] = 0.0, np.eye(self.k)
        return taken

    def dataset(
        self, name: str, variables: dict[str, Any], grid: Array, burnt: dict[str, float]
    ) -> xr.Dataset:
        """Return a Dataset with rows at a grid, and what tells how it was made."""
        way, now = self.way, self.clock[0]
        span = {} if way.is_map else {"t_span": np.array([way.begin, way.end]), "rtol": self.rtol}
        steps = self.number if way.is_map else int(now.steps)
        attrs = {
            **self.system.attributes(),
            **span,
            "method": "iteration" if way.is_map else "dop853",
            "interval": "auto" if way.interval is None else way.interval,
            "rng_entropy": self.entropy,
            "held": int(self.form.held),
            "n_steps": steps,
            "n_rhs": steps if way.is_map else int(now.evaluations),
            **burnt,
        }
        coords = {**self.system.coordinates(), way.dim: way.labels(grid)}
        return schema.finish(xr.Dataset(variables, coords=coords), name, attrs)


_FAILURES = {
    runge_kutta.STEP_TOO_SMALL: "the orbit grows beyond all bounds",
    runge_kutta.NOT_FINITE: "orbit or tangent vectors leave the finite numbers",
    runge_kutta.OUT_OF_STEPS: "max_steps is too small",
    kernels.DEPENDENT: "tangent vectors become dependent within one interval, give a shorter one,",
}


def _parts(way: _Way, k: int) -> tuple[Any, ...]:
    """Return what the kernels ask of a system, for a frame of ``k`` vectors."""
    system, n = way.system, way.system.dim
    source, whole = _source(system, k)
    room = n if whole or (way.is_map and k == n) else 0
    check_memory("k", 25 * (n * (k + 1) + 1) + room**2 + 2 * k**2)
    pause = 1 if way.interval is None else int(way.interval) if way.is_map else 0
    form = np.zeros(1, kernels.FORM)
    form[0] = (n, k, source, whole, 0, pause, 0)
    return (
        *(form, system.params, np.zeros((room, room))),
        jit.ready(system.field, jit.FIELD),
        jit.ready(system.numerics.tangent or kernels.no_tangent, jit.TANGENT),
        jit.ready(system.jvp or runge_kutta.no_jvp, jit.JVP),
        jit.ready(system.jacobian or runge_kutta.no_jacobian, jit.JACOBIAN),
        jit.ready(system.numerics.error_scale, jit.FIELD),
    )


def _source(system: SystemProtocol, k: int) -> tuple[int, int]:
    """Return where derivatives come from, and whether the matrix is formed.

    All exponents need the matrix, or what knows its trace. For a few, costs decide: a product with
    the matrix takes about a quarter of a nanosecond a number, its assembly two.
    """
    n, whole = system.dim, k == system.dim
    if system.numerics.tangent is not None:
        return kernels.STACKED, 0
    by_vectors = 3.0 * system.numerics.field_cost * k < (2.0 + 0.25 * k) * n**2
    if system.jacobian is not None and (whole or system.jvp is None or not by_vectors):
        return kernels.MATRIX, 1
    return (kernels.DIFFERENCES if system.jvp is None else kernels.PRODUCTS), int(whole)


def _growth(before: Array, after: Array) -> Array:
    """Return how much logarithms grew; what has become zero once stays so."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(after), -np.inf, after - before)


def _backwards(
    motion: _Motion, rows: list[tuple[Array, Array]], factors: list[tuple[Array, Array]]
) -> list[Array]:
    """Return the covariant vectors at each row as columns."""
    C = np.triu(motion.generator.normal(size=(motion.k, motion.k)))
    C[np.diag_indices(motion.k)] = 1.0 + np.abs(np.diagonal(C))
    vectors = []
    for (_, Q), (logs, T) in zip(rows[::-1], factors[::-1], strict=True):
        lower = np.minimum(logs - logs[:, None], 700.0)  # ln D_j/D_i, with D_j as the unit
        scaled = np.where(C != 0.0, C * np.exp(lower), 0.0)
        C = scipy.linalg.solve_triangular(T, scaled, unit_diagonal=True, check_finite=False)
        C /= np.linalg.norm(C, axis=0)
        vectors.append(Q @ C)
    return vectors[::-1]


def _standard_error(parts: Array) -> Array:
    """Return the standard error of the mean over parts, infinite where some are."""
    with np.errstate(invalid="ignore"):
        error = np.std(parts, axis=0, ddof=1) / np.sqrt(len(parts))
    return np.where(np.isfinite(parts).all(axis=0), error, np.inf)
