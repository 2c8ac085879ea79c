"""Lyapunov exponents of flows and maps, covariant vectors, and the loss as a Lyapunov function."""

from collections.abc import Callable, Sequence
from typing import Any

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
    check_finite,
    check_flag,
    check_generator,
    check_integer,
    check_memory,
    check_number,
    check_rows,
    known_options,
)
from dlnds.runs.flow import LAST, SMALLEST_RTOL, Tracker, check_span, progress_bar
from dlnds.systems.protocol import SystemProtocol, check_state, check_system

#: Rows of finite-time values, and parts of a run whose growth is compared.
_ROWS, _PARTS = 100, 20
#: Forces of at most this, in units of rounding, are those of a critical point.
_ROUNDING = 100.0 * float(np.finfo(float).eps)


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
    WA25, section 6 of the theory; Benettin, Galgani, Giorgilli and Strelcyn, Meccanica 15 (1980)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> start = net.critical_state((1,))
    >>> found = dl.lyapunov_spectrum(net, start, (0, 60), burn_in=30)
    >>> (found.exponent.values.round(6) + 0.0).tolist()
    [2.0, 1.0, 0.0, 0.0, 0.0, -2.0, -2.0, -3.0]
    """
    way = _Way(system, t_span, n_steps)
    x, k = _check_start(system, start, k)
    zero, step = way.begin + way.length("burn_in", burn_in, 0.0), way.interval(interval)
    grid = way.grid(t_eval, zero, way.end)
    motion = _Motion(way, x, k, rng, rtol, step, max_steps, collect=False)
    edges = np.append(zero, way.grid(None, zero, way.end)[_ROWS // _PARTS - 1 :: _ROWS // _PARTS])
    positions, logs, volumes = _follow(motion, [grid, edges], progress)
    place = {t: np.searchsorted(positions, t + way.close) - 1 for t in (zero, *grid, *edges)}
    begin, rows, parts = place[zero], [place[t] for t in grid], [place[t] for t in edges]
    total, length = _growth(logs[begin], logs[-1]), way.end - zero
    order = np.argsort(-total, kind="stable")
    finite = _growth(logs[begin], logs[rows])[:, order] / (grid - zero)[:, None]
    variables: dict[str, Any] = {
        "exponent": ("eigen", total[order] / length),
        "finite_time_exponent": ((way.dim, "eigen"), finite),
        "state": ("parameter", motion.state.copy()),
    }
    if len(parts) > 2:
        rates = _growth(logs[parts[:-1]], logs[parts[1:]])[:, order] / np.diff(edges)[:, None]
        variables["standard_error"] = ("eigen", _standard_error(rates))
    if k == system.dim:
        volume = _growth(volumes[begin], volumes[-1])
        singular = np.isneginf(volume) and np.isneginf(total).any()
        variables["volume_rate"] = ((), volume / length)
        variables["trace_rule"] = ((), 0.0 if singular else float(total.sum() - volume))
    coords = {**system.coordinates(), way.dim: way.labels(grid)}
    attrs = {**motion.attributes(), "burn_in": zero - way.begin}
    return schema.finish(xr.Dataset(variables, coords=coords), "lyapunov", attrs)


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
    Ginelli et al., Physical Review Letters 99, 130601 (2007)

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
    way = _Way(system, t_span, n_steps)
    x, k = _check_start(system, start, k)
    zero = way.begin + way.length("burn_in", burn_in, 0.0)
    out = zero - way.begin if burn_out is None else burn_out
    last, step = way.end - way.length("burn_out", out, 0.0), way.interval(interval)
    grid = way.grid(t_eval, zero, last, whole=True)
    check_memory("t_eval", len(grid) * k * (2 * system.dim + k))
    motion = _Motion(way, x, k, rng, rtol, step, max_steps, collect=True)
    rows: list[tuple[Array, Array]] = []
    factors: list[tuple[Array, Array]] = []

    def note(position: float) -> None:
        if len(rows) < len(grid) and position >= grid[len(rows)] - way.close:
            factors.append(motion.take())
            rows.append((motion.state.copy(), motion.frame.copy()))

    positions, logs, _ = _follow(motion, [zero, grid], progress, note)
    factors.append(motion.take())
    vectors = _backwards(motion, rows, factors[1:])
    growth = [motion.growth_rate(*row) for row in zip(grid, rows, vectors, strict=True)]
    begin = np.searchsorted(positions, zero + way.close) - 1
    variables = {
        "vector": ((way.dim, "direction", "parameter"), np.swapaxes(np.stack(vectors), 1, 2)),
        "growth_rate": ((way.dim, "direction"), np.stack(growth)),
        "state": ((way.dim, "parameter"), np.stack([state for state, _ in rows])),
        "exponent": ("direction", (logs[-1] - logs[begin]) / (way.end - zero)),
    }
    coords = {**system.coordinates(), way.dim: way.labels(grid)}
    attrs = {**motion.attributes(), "burn_in": zero - way.begin, "burn_out": way.end - last}
    return schema.finish(xr.Dataset(variables, coords=coords), "covariant_vectors", attrs)


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
    compensated clock. A loss of ½‖R‖² is rounded to a few ε ‖Σ‖ ‖R‖.

    References
    ----------
    WA25, section 6 of the theory

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=0.1, rng=0), (0, 10), np.linspace(0, 10, 501))
    >>> found = dl.lyapunov_function(run)
    >>> int(found.monotone), bool(abs(found.decrease - found.integrated_rate).max() < 1e-4)
    (1, True)
    """
    if not isinstance(run, xr.Dataset) or run.attrs.get("schema") != "run":
        raise TypeError("run: needs a run such as flow returns")
    if "time" not in run.dims or run["time"].ndim != 1 or "sample" in run.dims:
        raise ValueError("run: needs one run over time; select a sample, or use a flow")
    missing = [name for name in ("loss", "loss_rate") if name not in run]
    if missing:
        raise ValueError(f"run: needs recorded {' and '.join(missing)}, as of a gradient flow")
    clock = [word for word in ("time", "time_low") if word in run.variables]
    schema.check_content("run", run, dict.fromkeys((*clock, "loss", "loss_rate"), ("time",)))
    check_rows("run", run["time"].values)
    limit = check_number("limit", limit)
    loss, rate = (check_finite("run", run[name].values, "") for name in ("loss", "loss_rate"))
    low = run["time_low"].values if "time_low" in run else np.zeros(len(loss))
    spacing = np.diff(run["time"].values) + np.diff(low)
    rises = np.diff(loss)
    rounding = 64.0 * float(np.finfo(float).eps)
    top = float(np.abs(loss).max())
    allowed = rounding * np.sqrt(np.abs(loss[:-1]) * top) + rounding**2 * top
    variables = {
        "value": ("time", loss - limit),
        "rate": ("time", rate.copy()),
        "decrease": ("time", loss[0] - loss),
        "integrated_rate": ("time", _integral(spacing, -rate)),
        "rise": ((), float(max(rises.max(initial=0.0), 0.0))),
        "monotone": ((), np.int8(np.all(rises <= allowed))),
    }
    kept = {k: v for k, v in run.attrs.items() if k not in ("schema", "dlnds_version")}
    dataset = xr.Dataset(variables, coords={"time": run["time"].values})
    return schema.finish(dataset, "lyapunov_function", {**kept, "limit_loss": limit})


def _integral(spacing: Array, values: Array) -> Array:
    """Return the integral up to each row of a monotone piecewise cubic through the values."""
    if len(values) < 2:
        return np.zeros(len(values))
    used = np.maximum(spacing, np.finfo(float).tiny)
    secants = np.diff(values) / used
    slopes = np.zeros(len(values))
    slopes[0], slopes[-1] = secants[0], secants[-1]
    before, after = secants[:-1], secants[1:]
    weight = (spacing[:-1] + 2.0 * spacing[1:]) / (3.0 * (spacing[:-1] + spacing[1:]))
    same = before * after > 0.0
    safe = np.where(same, weight * after + (1.0 - weight) * before, 1.0)
    slopes[1:-1] = np.where(same, before * after / safe, 0.0)
    parts = spacing * (values[:-1] + values[1:]) / 2.0
    parts += spacing**2 * (slopes[:-1] - slopes[1:]) / 12.0
    return np.concatenate([[0.0], np.cumsum(parts)])


class _Way:
    """What is travelled: the times of a flow, or the iterations of a map."""

    def __init__(self, system: Any, t_span: Any, n_steps: Any) -> None:
        check_system(system)
        self.system = system
        if (t_span is None) == (n_steps is None):
            raise ValueError("t_span: give either t_span, for a flow, or n_steps, for a map")
        name = type(system).__name__
        self.is_map = t_span is None
        if self.is_map:
            if system.numerics.update is None:
                raise TypeError(f"n_steps: needs a map, got the flow {name}; use GradientDescent")
            self.begin, self.end = (
                0.0,
                float(check_integer("n_steps", n_steps, minimum=1, maximum=LAST)),
            )
        else:
            if system.kind == "map":
                raise TypeError(f"t_span: needs a flow, got the map {name}; give n_steps")
            self.begin, self.end = check_span(t_span)
            if np.isinf(self.end):
                raise ValueError("t_span: needs a finite last time, got inf")
        self.dim = "iteration" if self.is_map else "time"
        span = self.end - self.begin
        self.smallest = 1.0 if self.is_map else 1e-9 * span
        #: Times closer than this are one.
        self.close = 0.5 if self.is_map else 1e-12 * span

    def length(self, name: str, value: Any, minimum: float) -> float:
        """Return a part of the way."""
        span = self.end - self.begin
        if self.is_map and isinstance(value, float) and value.is_integer():
            value = int(value)
        if self.is_map:
            return float(check_integer(name, value, minimum=int(minimum), maximum=int(span)))
        return check_number(name, value, minimum=minimum, maximum=span)

    def interval(self, value: Any) -> float | None:
        """Return the way between two orthonormalizations, if it is given."""
        return None if value is None else self.length("interval", value, self.smallest)

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


class _Motion:
    """A state and its frame under way."""

    def __init__(
        self,
        way: _Way,
        x: Array,
        k: int,
        rng: Any,
        rtol: Any,
        interval: float | None,
        max_steps: Any,
        *,
        collect: bool,
    ) -> None:
        system, n = way.system, way.system.dim
        self.way, self.system, self.k = way, system, k
        self.rtol = check_number("rtol", rtol, minimum=SMALLEST_RTOL, maximum=0.1)
        self.max_steps = check_integer("max_steps", max_steps, minimum=1, maximum=LAST)
        self.interval = interval
        source, whole = _source(system, k)
        room = n if whole or (way.is_map and k == n) else 0
        check_memory("k", runge_kutta.WORK_ROWS * (n * (k + 1) + 1) + room**2 + 2 * k**2)
        self.form = np.zeros(kernels.FORM_SIZE, np.int64)
        self.form[:4] = n, k, source, whole
        self.form[kernels.PAUSE] = 1
        if interval is not None:
            self.form[kernels.PAUSE] = int(interval) if way.is_map else 0
        self.matrix, self.params = np.zeros((room, room)), system.params
        self.triangle = np.eye(k) if collect else np.zeros((0, 0))
        self.logs, self.taken, self.volume, self.number = np.zeros(k), np.zeros(k), 0.0, 0
        self.clock = np.zeros(runge_kutta.CLOCK_SIZE)
        self.clock[[runge_kutta.TIME, runge_kutta.BEFORE]] = way.begin
        self.counters = np.zeros(runge_kutta.COUNTERS_SIZE, np.int64)
        self.work = np.zeros((runge_kutta.WORK_ROWS, n * (k + 1) + 1))
        self.state = self.work[runge_kutta.STATE, :n]
        self.frame = self.work[runge_kutta.STATE, n + 1 :].reshape(n, k)
        self.functions = (
            jit.ready(system.field, jit.FIELD),
            jit.ready(system.numerics.tangent or kernels.no_tangent, jit.TANGENT),
            jit.ready(system.jvp or runge_kutta.no_jvp, jit.JVP),
            jit.ready(system.jacobian or runge_kutta.no_jacobian, jit.JACOBIAN),
        )
        self.generator = check_generator("rng", rng)
        self.entropy = str(getattr(self.generator.bit_generator.seed_seq, "entropy", ""))
        self.state[:] = x
        self.frame[:] = np.linalg.qr(self.generator.normal(size=(n, k)))[0]
        self.form[kernels.HELD] = self._at_rest()

    def _at_rest(self) -> bool:
        """Tell whether a gradient flow starts at a critical point, as far as rounding lets it.

        Without being held there, a run leaves a strict saddle by its rounding.
        """
        system, x = self.system, self.state
        if not system.numerics.symmetric:
            return False
        force = np.empty(system.dim)
        self.functions[0](self.way.begin, x, self.params, force)
        # Random unit vectors feel ‖J‖_F/√n on average.
        slope = np.linalg.norm(self.pushed(self.way.begin, x, self.frame))
        slope *= np.sqrt(system.dim / self.k)
        return bool(np.linalg.norm(force) <= _ROUNDING * slope * np.linalg.norm(x))

    def pushed(self, t: float, x: Array, vectors: Array) -> Array:
        """Return the derivative of the field along each column."""
        apply: Any = jit.ready(kernels.apply, kernels.APPLY)
        out = np.empty_like(vectors)
        apply(*self.functions, self.params, t, self.form, x, vectors, self.matrix, out)
        return out

    def growth_rate(self, t: float, row: tuple[Array, Array], vectors: Array) -> Array:
        """Return how fast unit vectors at a row grow."""
        pushed = self.pushed(float(t), row[0], vectors)
        if not self.way.is_map:
            return np.sum(vectors * pushed, axis=0)  # type: ignore[no-any-return]
        alpha, beta = self.system.numerics.update
        factors: Array = np.linalg.norm(alpha * vectors + beta * pushed, axis=0)
        return np.log(factors)

    def advance(self, end: float) -> None:
        """Go on to a time, or to a number of iterations."""
        if self.way.is_map:
            iterate: Any = jit.ready(kernels.iterate, kernels.ITERATE)
            code, self.number, volume = iterate(
                *self.functions, self.params, *self.system.numerics.update, self.number, int(end),
                self.form, self.state, self.frame, self.matrix, self.triangle, self.logs,
            )  # fmt: skip
            self.volume += volume
        else:
            advance: Any = jit.ready(kernels.advance, kernels.ADVANCE)
            move: Any = jit.ready(kernels.tangent_field, kernels.MOVE)
            judge: Any = jit.ready(kernels.tangent_scale, kernels.MOVE)
            scale = jit.ready(self.system.numerics.error_scale, jit.FIELD)
            code = advance(
                move, judge, *self.functions, scale, self.params, end, self.rtol, self.max_steps,
                self.form, self.clock, self.counters, self.work, self.matrix, self.triangle,
                self.logs,
            )  # fmt: skip
            self.volume = float(self.work[runge_kutta.STATE, self.system.dim])
        if code != runge_kutta.END_REACHED:
            raise ConvergenceError(f"{_FAILURES[code]}{self._place(end)}")

    def _place(self, end: float) -> str:
        if self.way.is_map:
            return f" at iteration {self.number} of {self.way.end:g}"
        time, steps = self.clock[runge_kutta.TIME], self.counters[runge_kutta.STEPS]
        return f" at t = {time:g} on the way to {self.way.end:g}, after {steps} steps"

    def take(self) -> tuple[Array, Array]:
        """Return how the frame was changed since the last call, D and T (see the kernels)."""
        taken = self.logs.copy(), self.triangle.copy()
        self.taken += self.logs
        self.logs[:], self.triangle[:] = 0.0, np.eye(self.k)
        return taken

    def attributes(self) -> dict[str, Any]:
        """Return what a Dataset tells of how it was made."""
        way, counters = self.way, self.counters
        span = {} if way.is_map else {"t_span": np.array([way.begin, way.end]), "rtol": self.rtol}
        steps = self.number if way.is_map else int(counters[runge_kutta.STEPS])
        return {
            **self.system.attributes(),
            **span,
            "method": "iteration" if way.is_map else "dop853",
            "interval": "auto" if self.interval is None else self.interval,
            "rng_entropy": self.entropy,
            "held": int(self.form[kernels.HELD]),
            "n_steps": steps,
            "n_rhs": steps if way.is_map else int(counters[runge_kutta.EVALUATIONS]),
        }


_FAILURES = {
    runge_kutta.STEP_TOO_SMALL: "the orbit grows beyond all bounds",
    runge_kutta.NOT_FINITE: "orbit or tangent vectors leave the finite numbers",
    runge_kutta.OUT_OF_STEPS: "max_steps is too small",
    kernels.DEPENDENT: "tangent vectors become dependent within one interval, give a shorter one,",
}


def _check_start(system: SystemProtocol, start: Any, k: Any) -> tuple[Array, int]:
    x = check_state("start", system, start)
    return x, system.dim if k is None else check_integer("k", k, minimum=1, maximum=system.dim)


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


def _follow(
    motion: _Motion,
    grids: Sequence[Any],
    progress: Any,
    note: Callable[[float], None] | None = None,
) -> tuple[Array, Array, Array]:
    """Go all the way, with stops at some times; return the stops, and logs and volumes there."""
    way, interval = motion.way, motion.interval
    every: Any = np.zeros(0)
    if interval is not None and not way.is_map:
        count = int((way.end - way.begin) / interval)
        check_memory("interval", count * (motion.k + 2))
        every = way.begin + interval * np.arange(1, count + 1)
    positions = np.sort(np.hstack([way.begin, way.end, every, *grids]))
    positions = positions[np.diff(positions, prepend=-np.inf) > way.close]
    logs, volumes = np.zeros((len(positions), motion.k)), np.zeros(len(positions))
    show, span = check_flag("progress", progress), (way.begin, way.end)
    with progress_bar(show, 1, span, "tangent vectors") as track:
        update: Tracker = track()
        for i, position in enumerate(positions):
            if i:
                motion.advance(float(position))
            logs[i], volumes[i] = motion.taken + motion.logs, motion.volume
            if note is not None:
                note(float(position))
            update(float(position))
    return positions, logs, volumes


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
