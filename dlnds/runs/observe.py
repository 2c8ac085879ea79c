"""Observables of runs that are there already, ours and those of others."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import known_options
from dlnds.runs.recording import Names, names_of, observe_rows
from dlnds.systems.protocol import SystemProtocol, check_system
from dlnds.threads import threads_for

#: What is called a row of a run, by its dim.
ROWS = ("time", "iteration", "step")
#: How a run ended, which is passed on.
ENDS = ("stop_reason", "limit_kind", "limit_decision")


@known_options
def observe(
    system: SystemProtocol,
    run: xr.Dataset,
    names: str | Names,
) -> xr.Dataset:
    """Return a run with more observables: what ``save=`` records, from the states of the run.

    Parameters
    ----------
    system
        The system that the run is of; for gradient descent the network, or the map.
    run
        A run, or a stack of runs, with ``state``: of `flow`, `iterate`, `exact_flow` or `as_run`.
    names
        Names of observables, as for ``save=`` of `flow`; or functions of the state (parameter) that
        return numbers, by their names: ``{"largest": lambda x: abs(x).max()}``. A sequence may hold
        both. Every system has ``state``; networks of layers W = W_h…W_1 have

        - ``loss``, ``loss_rate`` = −‖∇L‖², ``gradient_norm``, ``product`` (W);
        - ``singular_value(mode)`` of W, ``effective_rank`` exp(−Σ q ln q) with q = s/Σs, and
          ``stable_rank`` ‖W‖_F²/s_1²; ``mode_strength(mode)`` u_jᵀ W K v_j of a `LinearNetwork`;
        - ``layer_singular_value(layer, mode)``, of each layer the largest, as many as W has, NaN
          where a layer has no more;
        - ``alignment(level, mode)``, overlaps |⟨u_j(W_i), v_j(W_{i+1})⟩| on each hidden level i; on
          level 0 of v_j(W_1) and on level h of u_j(W_h) with the singular vectors of Σ K⁺, the map
          that fits the targets best (Σ itself for whitened inputs). Modes whose singular values are
          nearer than 1e-6 of them are compared as subspaces, ‖PᵀQ‖_F/√dim; NaN where a side has no
          such mode;
        - ``imbalance`` max ‖C_i‖_F, ``conserved`` (all C_i), and ``balance_gap``, the largest
          ‖C_i‖_F/(‖W_iW_iᵀ‖_F + ‖W_{i+1}ᵀW_{i+1}‖_F), between 0 and 1;
        - ``ntk_eigenvalue(eigen)`` of the tangent kernel K, descending; ``ntk_distance``
          1 − ⟨K, K_0⟩/(‖K‖ ‖K_0‖) and ``ntk_change`` ‖K − K_0‖/‖K_0‖ from the first state of the
          run; ``ntk_alignment`` ⟨K, y yᵀ⟩/(‖K‖ ‖y‖²) with the targets (neither these nor
          ``alignment`` of measurements or entries, which are no samples of inputs);
        - ``sharpness``, the largest eigenvalue of the Hessian, and ``index``, how many of its
          eigenvalues are negative beyond rounding;
        - ``hidden_similarity(layer, item, other_item)`` H_iᵀH_i of the activities H_i = W_{1:i} X
          of the inputs of the problem. Those of a `LinearNetwork`, of which moments are all that is
          known, are the columns of C^{1/2} (unit vectors if whitened), one for each feature; those
          of a `LossNetwork` are its samples, and of measurements unit vectors. For others give a
          function with `hidden_similarity` of the network.

        A `HomogeneousNetwork` has the first, layer, Hessian and ``conserved`` ones of these.

    Returns
    -------
    xarray.Dataset
        The run with one variable for each name. Rows that a run of a stack did not reach are NaN.

    Raises
    ------
    ValueError, TypeError
        If the run is of another system or has no states, or there is no observable of a name.

    Notes
    -----
    K is that of the outputs on the data, Σ_i (L_i L_iᵀ) ⊗ (P_{i−1}ᵀ P_{i−1}) with L_i = W_{i+1:h},
    P_i = W_{1:i} X, divided by the number of samples if the loss is. It is never formed: norms and
    products take h² products of layers, and only the covariance of the data. Its nonzero
    eigenvalues are those of a matrix of d_h d_0 rows; of more than 512 the 16 largest are found. If
    the moments of a problem are all that is known of it, y is the part of the targets that maps of
    the inputs can make.

    A row costs a few evaluations of the gradient (``sharpness`` about 60); but ``ntk_eigenvalue``
    (d_h d_0)³ operations, up to 512, and ``index`` n³/3 for n weights.

    References
    ----------
    JGH18 (Jacot, Gabriel & Hongler, arXiv:1806.07572) for the kernel, SMG19 (Saxe, McClelland &
    Ganguli, arXiv:1810.10531) for similarity; Ver18 (Vershynin, Cambridge University Press 2018),
    section 7.6, for the stable rank; RV07 (Roy & Vetterli, EUSIPCO 2007) for the effective rank;
    JT19 (Ji & Telgarsky, arXiv:1810.02032) for alignment

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0))
    >>> run = dl.observe(net, run, ["sharpness", "ntk_distance"])
    >>> round(float(run.sharpness[-1]), 4), bool(run.ntk_distance[0] == 0.0)
    (4.0, True)
    """
    check_system(system)
    known, dims, states = states_of(system, run)
    wanted = names_of("names", [names] if isinstance(names, str) else names)
    try:  # what a name lacks is said of another argument
        with threads_for(system.numerics.field_cost):
            found = _observed(system, wanted, states)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("save:", "names:", 1)) from error
    more = {
        name: ((*dims, *variable.dims[len(dims) :]), variable.values)
        for name, variable in found.items()
    }
    for name, variable in more.items():
        for dim, size in zip(variable[0], variable[1].shape, strict=True):
            if known.sizes.get(dim, size) != size:
                raise ValueError(
                    f"run: has {known.sizes[dim]} along {dim!r}, where {name!r} has {size}"
                )
            if dim in known.variables and not known[dim].ndim:
                raise ValueError(f"run: has {dim!r} as one number, which {name!r} has as a dim")
    return schema.finish(known.assign(more), "run", known.attrs)


def states_of(system: SystemProtocol, run: xr.Dataset) -> tuple[xr.Dataset, tuple[str, ...], Array]:
    """Return a run of a system, the dims of its rows, and its states (…, parameter)."""
    digest = system.attributes().get("problem_digest")
    known = schema.read("run", run, "run", {}, digest=digest)
    flags = {name: tuple(map(str, known[name].dims)) for name in ENDS if name in known}
    schema.read("run", known, "run", flags)
    if "time" not in known.variables and "iteration" not in known.variables:
        raise ValueError("run: needs 'time' or 'iteration', which say when its rows are")
    if "state" not in known:
        raise ValueError("run: has no states; run it with save=('state', …)")
    state = known["state"]
    rows = [dim for dim in ROWS if dim in state.dims]
    if not rows and state.sizes.get("parameter") == system.dim:
        one = "; a single row is selected as isel(time=[-1])"
        raise ValueError(f"run: needs states along one of {', '.join(ROWS)}, got one{one}")
    if not rows or state.sizes.get("parameter") != system.dim:
        raise ValueError(f"run: needs states of {system.dim} parameters, got {dict(state.sizes)}")
    dims = (*(("sample",) if "sample" in state.dims else ()), rows[0])
    numbers = {"state": (*dims, "parameter")}
    if "time" in known.variables:
        numbers["time"] = tuple(dim for dim in dims if dim in known["time"].dims)
    known = schema.read("run", known, "run", numbers, partial=numbers)  # rows may not be reached
    return known, dims, known["state"].values


def durations(run: xr.Dataset) -> tuple[Array, Array]:
    """Return the time from each row to the next (…, time − 1), and what rounding leaves open of it.

    After a plateau rows may be nearer to one another than times are to what they stand for:
    ``time_low`` is what was rounded off, and rounded itself.
    """
    times = rest = run["time"].values
    steps = np.diff(times, axis=-1)
    if "time_low" in run.variables:
        low = {"time_low": tuple(map(str, run["time"].dims))}
        rest = schema.read("run", run, "run", low, partial=low)["time_low"].values
        steps = steps + np.diff(rest, axis=-1)
    half = 0.5 * np.spacing(np.abs(rest))
    return steps, half[..., :-1] + half[..., 1:]


def _observed(system: SystemProtocol, names: list[str], states: Array) -> dict[str, xr.Variable]:
    """Return observables of states (time, parameter), or of stacks of them, NaN where these are."""
    if states.ndim == 3:
        members = [_observed(system, names, rows) for rows in states]
        return {
            name: xr.Variable(("sample", *first.dims), np.stack([m[name].values for m in members]))
            for name, first in members[0].items()
        }
    there = np.isfinite(states).all(axis=-1)
    found = observe_rows(system, names, states[there], states[:1])
    if there.all():
        return found
    out = {}
    for name, variable in found.items():
        values = np.full((len(states), *variable.shape[1:]), np.nan)
        values[there] = variable.values
        out[name] = xr.Variable(variable.dims, values)
    return out
