"""Sampling of weights at a temperature: Langevin chains, and how far their means can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds._kernels import jit, langevin
from dlnds.arrays import Array
from dlnds.errors import (
    check_array,
    check_flag,
    check_generator,
    check_integer,
    check_memory,
    check_number,
    known_options,
)
from dlnds.runs.flow import LAST, progress_bar
from dlnds.runs.recording import BUFFER, Names, joined, names_of, observe_rows
from dlnds.runs.stepping import Tracker
from dlnds.systems.protocol import SystemProtocol, check_state, check_system
from dlnds.systems.stored import run_coordinates
from dlnds.threads import threads_for

#: Rows of a chain from which on its two halves can be compared.
FEWEST = 8
#: Steps between two visits to Python.
_PAUSE = 4096


@known_options
def sample(
    system: SystemProtocol,
    start: ArrayLike | xr.DataArray,
    *,
    temperature: float,
    step_size: float,
    n_steps: int,
    burn_in: int = 0,
    every: int = 1,
    localization: float = 0.0,
    center: ArrayLike | None = None,
    save: Names = (),
    rng: Any = None,
    workers: int = 1,
    progress: bool = False,
) -> xr.Dataset:
    """Return a Langevin chain, or chains, of a network's weights at a temperature.

    Parameters
    ----------
    system
        The gradient flow of a loss L: `LinearNetwork`, `LossNetwork`, `HomogeneousNetwork`.
    start
        State (parameter), or a stack (sample, parameter) of them, one for each chain.
    temperature, step_size
        T and η, positive.
    n_steps
        Steps that are recorded.
    burn_in
        Steps before these, which are not.
    every
        Record every so many steps.
    localization, center
        γ ≥ 0, the precision of a normal density around a state (parameter), by default the start of
        each chain.
    save
        What to record beside the loss, as for `flow`: ``("state",)`` records the weights.
    rng
        Seed or `numpy.random.Generator` (SPEC 7), of which each chain gets a generator of its own.
    workers
        Threads over chains, which changes no number.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``chain``: ``loss(iteration)`` and what else was saved; ``mean_loss`` over the chain,
        its ``standard_error``, and ``effective_size``, how many independent draws would have that
        error; ``stop_reason`` (``end_reached``, ``not_finite``). A stack has the dim ``sample``
        first, all but ``iteration`` with it. ``r_hat`` compares the halves of all chains, or of the
        one: well above 1, say 1.01, they have not seen the same. A chain that leaves the finite
        numbers has NaN from there on and for its mean, and ``r_hat`` is of the others.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside what is described above.

    Notes
    -----
    x ← x − η (∇L + T γ (x − x*)) + √(2 η T) ξ with the exact gradient and ξ standard normal. For
    η → 0 the chain has the density ∝ exp(−L/T − ½ γ |x − x*|²). At γ = 0 that has infinite mass for
    more than one layer, since level sets are unbounded, and the chain drifts along the minima
    for ever. With nβ = 1/T, λ̂ = (E[L] − L_min)/T estimates the learning coefficient at small T,
    see `learning_coefficient`; where L is quadratic along an eigenvector of its Hessian, with the
    eigenvalue κ, a step multiplies that part of λ̂ by 1/(1 − ηκ/2), and beyond η = 2/κ the
    chain leaves the finite numbers.

    The error of a mean is √(s² τ/N): s² the variance of N rows, τ the sum of their
    autocorrelations over all lags, cut off where sums of neighbouring pairs cease to be positive
    and made monotone (Geyer 1992). It knows nothing of what the chain never saw.

    References
    ----------
    LFW23 (Lau, Furman, Wang, Murfet & Wei, arXiv:2308.12108), FL24 (Furman & Lau, arXiv:2402.03698)
    for the estimate

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2), target=np.diag([2.0, 1.0]))
    >>> x = net.critical_state((0, 1))
    >>> heat = {"temperature": 1e-3, "step_size": 0.1, "n_steps": 20_000, "burn_in": 100}
    >>> chain = dl.sample(net, x, **heat, rng=0)
    >>> estimate, error = float(chain.mean_loss) / 1e-3, float(chain.standard_error) / 1e-3
    >>> bool(abs(estimate - 2.0 / (1.0 - 0.1 / 2.0)) < 3.0 * error)
    True
    """
    check_system(system)
    _check_loss(system)
    starts = check_array("start", start, ndim=(1, 2), shape=(system.dim,))
    stack = np.atleast_2d(starts)
    names = tuple(dict.fromkeys(("loss", *names_of("save", save))))
    for row in stack:
        check_state("start", system, row)
    observe_rows(system, names, stack[:1])
    chain = Chain(
        system=system,
        names=names,
        temperature=_positive("temperature", temperature),
        step_size=_positive("step_size", step_size),
        n_steps=check_integer("n_steps", n_steps, minimum=1, maximum=LAST),
        burn_in=check_integer("burn_in", burn_in, minimum=0, maximum=LAST),
        every=check_integer("every", every, minimum=1, maximum=LAST),
        localization=check_number("localization", localization, minimum=0.0),
    )
    if chain.rows < FEWEST:
        raise ValueError(f"n_steps: needs {FEWEST} rows of {every} steps or more, got {n_steps}")
    check_memory("n_steps", 2 * len(stack) * chain.rows * (1 + system.dim * ("state" in names)))
    centers = stack if center is None else _check_center(system, center, len(stack))
    generator = check_generator("rng", rng)
    workers = check_integer("workers", workers, minimum=1)
    span = (0.0, float(chain.burn_in + chain.n_steps))
    bar = progress_bar(check_flag("progress", progress), len(stack), span, "sample")
    with threads_for(system.numerics.field_cost), bar as track, ThreadPoolExecutor(workers) as pool:
        chain.kernels()  # compiled once, before all threads need them
        each = stack, centers, generator.spawn(len(stack))
        rows = list(pool.map(lambda x, c, own: chain.run(x, c, own, track()), *each))
    variables = _variables(chain, rows, single=starts.ndim == 1)
    first = chain.burn_in + chain.every
    labels = {"iteration": first + chain.every * np.arange(chain.rows, dtype=np.int64)}
    coords = {**labels, **run_coordinates(system, names)}
    if starts.ndim == 2:
        coords["sample"] = np.arange(len(stack))
    entropy = str(getattr(generator.bit_generator.seed_seq, "entropy", ""))
    attrs = {**system.attributes(), **chain.attributes(), "rng_entropy": entropy}
    return schema.finish(xr.Dataset(variables, coords), "chain", attrs)


@dataclass(frozen=True)
class Chain:
    """How chains step, and what they record."""

    system: SystemProtocol
    names: tuple[str, ...]
    temperature: float
    step_size: float
    n_steps: int
    burn_in: int
    every: int
    localization: float

    @property
    def rows(self) -> int:
        """How many rows are recorded."""
        return self.n_steps // self.every

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of it."""
        names = ("temperature", "step_size", "n_steps", "burn_in", "every", "localization")
        return {"method": "langevin", **{name: getattr(self, name) for name in names}}

    def kernels(self) -> tuple[Any, Any]:
        """Return the compiled loop and field."""
        return jit.ready(langevin.walk, langevin.WALK), jit.ready(self.system.field, jit.FIELD)

    def run(
        self, start: Array, center: Array, rng: np.random.Generator, update: Tracker
    ) -> dict[str, xr.Variable]:
        """Return what is recorded of one chain, as far as its states and losses are finite."""
        parts = []
        for states in self._states(start, center, rng, update):
            rows = observe_rows(self.system, self.names, states)
            finite = np.isfinite(rows["loss"].values)
            if finite.all():
                parts.append(rows)
                continue
            until = int(np.argmin(finite))
            parts.append({name: v.isel({v.dims[0]: slice(until)}) for name, v in rows.items()})
            break
        return joined(parts)

    def _states(
        self, start: Array, center: Array, rng: np.random.Generator, update: Tracker
    ) -> Iterator[Array]:
        """Give the states to record, some at a time; they end early if they are not finite."""
        walk, field = self.kernels()
        pull, spread = self.temperature * self.localization, self._spread
        x, image = start.copy(), np.empty_like(start)
        steps = max(1, min(_PAUSE, BUFFER // x.size))
        noise, states = np.empty((2, steps, x.size))
        number, last = -self.burn_in, self.rows * self.every
        yield states[:0]
        while number < last:
            drawn = noise[: min(steps, last - number)]
            rng.standard_normal(out=drawn)
            made, saved = walk(
                *(field, self.system.params, self.step_size, pull, spread, center, drawn),
                *(number, self.every, x, image, states),
            )
            if saved:
                yield states[:saved].copy()
            number += int(made)
            update(float(number + self.burn_in))
            if made < len(drawn):
                return

    @property
    def _spread(self) -> float:
        return float(np.sqrt(2.0 * self.step_size * self.temperature))


def _check_loss(system: SystemProtocol) -> None:
    """Refuse what does not flow down the gradient of a loss that it records."""
    if system.kind != "gradient" or not system.numerics.symmetric or "loss" not in system.always:
        raise TypeError(
            "system: needs the gradient flow of a loss, such as LinearNetwork, got "
            f"{type(system).__name__}"
        )


def _positive(name: str, value: float) -> float:
    number = check_number(name, value)
    if not number > 0.0:
        raise ValueError(f"{name}: needs a positive number, got {number:g}")
    return number


def _check_center(system: SystemProtocol, center: ArrayLike, count: int) -> Array:
    """Return the centre of each chain."""
    return np.tile(check_state("center", system, center), (count, 1))


def _variables(chain: Chain, rows: list[dict[str, xr.Variable]], *, single: bool) -> dict[str, Any]:
    """Return chains side by side, NaN where one is over, with their means and errors."""
    found: dict[str, tuple[tuple[Any, ...], Any]] = {}
    for name, first in rows[0].items():
        data = np.full((len(rows), chain.rows, *first.shape[1:]), np.nan)
        for whole, part in zip(data, rows, strict=True):
            whole[: len(part[name])] = part[name].values
        found[name] = (("sample", "iteration", *first.dims[1:]), data)
    loss = found["loss"][1]
    found |= {name: (("sample",), values) for name, values in _told(loss).items()}
    if single:
        found = {name: (dims[1:], values[0]) for name, (dims, values) in found.items()}
    return {**found, "r_hat": r_hat(loss[~np.isnan(loss[:, -1])])}


def _told(loss: Array) -> dict[str, Any]:
    """Return what losses (chain, row) tell of each chain; those that are over end in NaN."""
    over = np.isnan(loss[:, -1])
    sizes = np.zeros(len(loss))
    sizes[~over] = [effective_size(row) for row in loss[~over]]
    errors = np.full(len(loss), np.nan)
    errors[~over] = loss[~over].std(axis=1, ddof=1) / np.sqrt(sizes[~over])
    return {
        "mean_loss": loss.mean(axis=1),
        "standard_error": errors,
        "effective_size": sizes,
        "stop_reason": schema.flag(
            schema.STOP_REASONS, np.where(over, "not_finite", "end_reached")
        ),
    }


def effective_size(values: Array) -> float:
    """Return how many independent draws have a mean as exact as that of this chain.

    N/τ, τ = 1 + 2 Σ_k ρ_k, with Geyer's initial monotone sequence: sums ρ_2k + ρ_2k+1 of pairs are
    positive and fall for a reversible chain, and are cut off where estimates of them do not.
    """
    n = len(values)
    centred = values - values.mean()
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(centred, size)) ** 2
    covariance = np.fft.irfft(spectrum, size)[:n]
    if not covariance[0] > 0.0:
        return 1.0  # always the same: one draw
    pairs = (covariance[: n - n % 2] / covariance[0]).reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0.0)
    kept = pairs[: ends[0]] if len(ends) else pairs
    return float(n / max(2.0 * np.minimum.accumulate(kept).sum() - 1.0, 1.0))


def r_hat(chains: Array) -> float:
    """Return by how much halves (2 sample, iteration) of chains differ, NaN if there is no chain.

    √((n−1)/n + B/(n V)): V the mean variance within halves of n rows, B/n that of their means.
    """
    if not len(chains):
        return float("nan")
    n = chains.shape[1] // 2
    halves = np.concatenate([chains[:, :n], chains[:, -n:]])
    within = float(halves.var(axis=1, ddof=1).mean())
    between = float(halves.mean(axis=1).var(ddof=1))
    return float(np.sqrt((n - 1) / n + between / within)) if within > 0.0 else 1.0
