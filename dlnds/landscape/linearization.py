"""Linearization at a state: spectrum, index, nullity, rates; closed forms at canonical points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import (
    check_choice,
    check_flag,
    check_integer,
    check_integers,
    check_memory,
    check_number,
    known_options,
)
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.systems.protocol import (
    SystemProtocol,
    check_flow,
    check_state,
    dense_jacobian,
    field_of,
    products_at,
    terms_at,
)
from dlnds.theory import spectra, tolerances
from dlnds.theory.spectra import Decision, KnownSpectrum
from dlnds.threads import threads_for

METHODS = ("auto", "known", "dense", "iterative")
#: Which eigenvalues the iterative method finds.
ENDS = ("negative", "smallest", "largest")
#: Components above which some eigenvalues of a gradient flow are found by iteration.
_DENSE = 1000
#: Turns of an equilibration, each of which halves what is left in decades.
_SWEEPS = 20
#: How far eigenvalues may be off what they are at the critical point, in terms of what Newton's
#: step changes in the Hessian: at a zero of any order it goes a part of the way that changes half.
_MOVED = 2.0
#: Dampings of this step where it is long, in terms of ‖J‖, and what it may leave of the force then.
_DAMPINGS, _LEFT = 10.0 ** np.arange(-14.0, 2.0), 0.1
#: What the step may leave of an eigenvalue that is zero: half, at a zero of any order.
_SHRUNK = 0.6
#: Eigenvalues, in terms of their rounding, from which on rounding of the force moves nothing far.
_RESOLVED = 30.0


class _Spectrum(NamedTuple):
    """Eigenvalues in ascending order, the modulus up to which they are zero, and the method.

    ``resolution`` is the rounding of dense eigenvalues, by which a state counts as an equilibrium.
    ``complete``: all of them are there; ``all_negative``: at least all that are negative.
    ``dimensions`` of orbit and fiber, if they are known with them; ``vectors`` (parameter, eigen).
    ``counted``: where index and nullity are known otherwise no eigenvalue is judged by a tolerance.
    """

    values: Any
    resolution: float
    zero_tolerance: float
    method: str
    complete: bool = True
    all_negative: bool = True
    dimensions: tuple[int, int, bool] | None = None
    vectors: Any = None
    counted: bool = False


@known_options
def linearize(
    system: SystemProtocol,
    x: ArrayLike,
    *,
    t: float = 0.0,
    zero_tolerance: float | None = None,
    method: str = "auto",
    which: str | None = None,
    n_eigenvalues: int | None = None,
    eigenvectors: bool = False,
) -> xr.Dataset:
    """Return the spectrum of a system's linearization at a state.

    Parameters
    ----------
    system
        Any system. Without a Jacobian of its own it is differenced.
    x
        State (parameter); it need not be an equilibrium.
    t
        Time, for a system that depends on it.
    zero_tolerance
        Eigenvalues of at most this modulus count as zero. ``None`` takes what is known of them: at
        critical points of a `LinearNetwork` index and nullity follow from the ranks of products of
        layers, and closed forms have exact zeros. Elsewhere it is the accuracy of the computed
        eigenvalues, ``8 n ε ‖N‖`` in double precision, ``‖N‖ ε^{2/3}`` for a differenced Jacobian,
        with N the sizes of the terms that J sums.
    method
        - ``"auto"``: what the system knows without its Jacobian, otherwise dense; or iterative, for
          some eigenvalues of a gradient flow of more than 1000 components.
        - ``"known"``: what the system knows, or an error. A `LinearNetwork` knows its spectrum at
          balanced critical points of whitened problems (``closed_form``), and at global minima
          without residual if W K has fewer entries than there are weights (``gram``); a
          `ProductFlow` at all its critical points.
        - ``"dense"``: all eigenvalues of the matrix.
        - ``"iterative"``: some of them, of a gradient flow, from Hessian-vector products in a
          memory of so many states as are found, for systems too large for a matrix.
    which, n_eigenvalues
        Which part of the spectrum to return, by whatever method: so many of the ``"smallest"``
        eigenvalues, or of the ``"largest"`` (the first or the last in their order), or all
        ``"negative"`` ones of a gradient flow. A number alone means the smallest; nothing means
        all, and of the iterative method the negative ones.
    eigenvectors
        Return the eigenvectors of these eigenvalues too. The known spectra have none: ``"auto"``
        then takes one of the other two methods.

    Returns
    -------
    xarray.Dataset
        Schema ``linearization``: ``eigenvalue(eigen)``, ascending; for a gradient flow those of the
        Hessian, otherwise the real parts of those of the Jacobian with ``eigenvalue_imag`` beside
        them. ``index``, the number of unstable directions (negative Hessian eigenvalues, or
        Jacobian eigenvalues with a positive real part), and ``nullity``, which are those of the
        whole spectrum whatever part of it is asked for. What is not known from the eigenvalues
        found iteratively is left out.

        ``eigenvector(eigen, parameter)``, if asked for: right eigenvectors of length one, for a
        gradient flow orthonormal; otherwise their real parts with ``eigenvector_imag`` beside them,
        turned so that the real part is the longer half axis of the ellipse on which a pair rotates,
        and the imaginary part the other. The largest entry of the real part is positive. The
        attribute ``eigenvector_condition`` is the condition of their matrix: infinite, or very
        large, where eigenvalues are defective and the vectors span less than all.

        At an equilibrium whose symmetries the system knows: ``orbit_dimension``;
        ``fiber_dimension``, that of the set of equilibria through x;
        ``degenerate_dimension``, nullity − fiber dimension; and
        ``transverse_eigenvalue(transverse)``, the spectrum without as many zeros as the fiber has
        dimensions, if all of it is asked for. The attribute ``fiber_is_exact`` is 0 where that is a
        lower bound, as the function `fiber_dimension`, which tries harder, explains. If the
        tolerance leaves less zeros than that, the last two are left out, and the attribute
        ``unresolved_fiber`` says how many are missing.

        ``departure_rate``: the largest rate of growth, where there is an unstable direction.
        ``convergence_rate``, at an equilibrium without one: the smallest rate of decay of what is
        not along the fiber; 0 if there are degenerate directions, which decay algebraically, if at
        all.

        The attribute ``is_clear`` is 0 where index or nullity could be others as well: ranks of
        products of layers are not clear, or an eigenvalue that counts is less than ten times one
        that does not. Within 1e-3 ‖x‖ of a critical point they are those of that: what Newton's
        step to it changes in the Hessian counts as zero too, and is clear if nothing else is within
        ten times that; nor within 1e4 times the largest zero, if symmetries leave others.

        The attributes ``zero_tolerance``, ``largest_zero`` and ``smallest_nonzero`` (moduli) show
        how clear the decision on zero was; ``method`` is how the eigenvalues are known, and
        ``complete`` is 0 if there are more of them.

    Raises
    ------
    ValueError, TypeError
        If the state has the wrong shape or is not finite, the spectrum is asked for as known and is
        not, a dense matrix does not fit into the memory, the iterative method or negative
        eigenvalues are asked for of what is no gradient flow, or known spectra for eigenvectors.
    ConvergenceError
        If the iterative method does not settle.

    Notes
    -----
    Eigenvalues are accurate to 1e-12 ‖J‖ where they are known, and to rounding, n ε ‖J‖, where they
    are computed by the other two methods. The iterative one starts again at random until it finds
    nothing more; by an argument on residuals, it misses eigenvalues closer to zero than about
    16 n ε ‖J‖ only.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362); AMG24 (Achour, Malgouyres & Gerchinovitz,
    arXiv:2107.13289) for the fiber.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> saddle = dl.linearize(net, net.critical_state((1,)))
    >>> (saddle.eigenvalue.values.round(6) + 0.0).tolist()
    [-2.0, -1.0, 0.0, 0.0, 0.0, 2.0, 2.0, 3.0]
    >>> int(saddle["index"]), int(saddle.nullity), float(saddle.departure_rate)
    (2, 3, 2.0)
    >>> lowest = dl.linearize(net, net.critical_state((1,)), n_eigenvalues=2, eigenvectors=True)
    >>> lowest.eigenvalue.values.round(6).tolist(), lowest.eigenvector.sizes
    ([-2.0, -1.0], Frozen({'eigen': 2, 'parameter': 8}))
    """
    check_flow(system)
    state = check_state("x", system, x)
    t = check_number("t", t)
    if zero_tolerance is not None:
        zero_tolerance = check_number("zero_tolerance", zero_tolerance, minimum=0.0)
    method = check_choice("method", method, METHODS)
    which, count = _check_end(system, method, which, n_eigenvalues)
    vectors = check_flag("eigenvectors", eigenvectors)
    if vectors and method == "known":
        raise ValueError("eigenvectors: belong to method 'dense' or 'iterative', got 'known'")
    known = None if vectors or method not in ("auto", "known") else _spectrum(system, state)
    if known is not None:
        found = _known(system, known, zero_tolerance)
    elif method == "known":
        raise ValueError("method: the spectrum at this state is not known; use 'dense'")
    elif which and (method == "iterative" or (method == "auto" and _is_large(system, count))):
        with threads_for(system.numerics.field_cost):
            found = _iterative(system, t, state, zero_tolerance, which, count, vectors=vectors)
    else:
        with threads_for(float(system.dim) ** 3):
            found = _dense(system, t, state, zero_tolerance, vectors=vectors)
    whole = _dataset(system, t, state, found._replace(counted=zero_tolerance is None))
    return _cut(whole, which, count) if which and found.method != "iterative" else whole


def _check_end(
    system: SystemProtocol, method: str, which: str | None, n_eigenvalues: int | None
) -> tuple[str | None, int | None]:
    """Return which eigenvalues to find, None for all, and how many; refuse what does not fit."""
    if which is not None:
        check_choice("which", which, ENDS)
    elif n_eigenvalues is not None:
        which = "smallest"
    elif method == "iterative":
        which = "negative"
    if method == "iterative" and (not system.numerics.symmetric or system.jvp is None):
        raise TypeError(
            "method: 'iterative' needs a gradient flow with Hessian-vector products, got "
            f"{type(system).__name__}"
        )
    if which == "negative" and not system.numerics.symmetric:
        raise TypeError(f"which: 'negative' needs a gradient flow, got {type(system).__name__}")
    if which in (None, "negative"):
        if n_eigenvalues is not None:
            raise ValueError(f"n_eigenvalues: belongs to 'smallest' or 'largest', got {which!r}")
        return which, None
    if n_eigenvalues is None:
        raise ValueError(f"n_eigenvalues: needs a number with which={which!r}")
    return which, check_integer("n_eigenvalues", n_eigenvalues, minimum=1, maximum=system.dim)


def _is_large(system: SystemProtocol, count: int | None) -> bool:
    """Tell whether some eigenvalues are found sooner than all of them."""
    few = (count or 0) < spectra.MANY * system.dim
    return system.dim > _DENSE and few and system.numerics.symmetric and system.jvp is not None


def _cut(whole: xr.Dataset, which: str, count: int | None) -> xr.Dataset:
    """Return a spectrum with a part of its eigenvalues."""
    size = whole.sizes["eigen"]
    kept = int(whole["index"]) if count is None else count
    if kept == size:
        return whole
    part = slice(size - kept, size) if which == "largest" else slice(0, kept)
    some = whole.drop_vars("transverse_eigenvalue", errors="ignore").isel(eigen=part)
    return some.assign_attrs(complete=0)


def _spectrum(system: SystemProtocol, x: Array) -> KnownSpectrum | None:
    with threads_for(system.numerics.field_cost):
        return system.theory(x).spectrum()


def _known(system: SystemProtocol, known: KnownSpectrum, tolerance: float | None) -> _Spectrum:
    found, word, dimensions = known
    values = np.sort(np.concatenate([found, np.zeros(system.dim - len(found))]))
    resolution = tolerances.rounding(system.dim) * float(np.abs(found).max(initial=0.0))
    if tolerance is None:
        tolerance = 0.0 if word == "closed_form" else resolution
    return _Spectrum(values, resolution, tolerance, word, dimensions=dimensions)


def _dense(
    system: SystemProtocol, t: float, x: Array, tolerance: float | None, *, vectors: bool
) -> _Spectrum:
    check_memory("x", (6 if vectors else 5) * system.dim**2)
    matrix, accuracy = dense_jacobian(system, t, x)
    if system.numerics.symmetric:
        np.negative(matrix, out=matrix)
        values, frame = spectra.symmetric_modes(matrix, vectors=vectors)
    else:
        values, frame = spectra.general_modes(matrix, vectors=vectors)
    resolution = accuracy * max(
        float(np.abs(values).max()), float(np.linalg.norm(terms_at(system, t, x)))
    )
    zero = resolution if tolerance is None else tolerance
    return _Spectrum(values, resolution, zero, "dense", vectors=frame)


def _iterative(
    system: SystemProtocol,
    t: float,
    x: Array,
    tolerance: float | None,
    which: str,
    count: int | None,
    *,
    vectors: bool,
) -> _Spectrum:
    times, sign = products_at(system, t, x), 1.0 if which == "largest" else -1.0

    def product(v: Array) -> Array:
        return sign * times(v)

    size = spectra.spectral_radius(product, system.dim)
    if not np.isfinite(size):
        raise ValueError("x: the Hessian at this state is not finite")
    others = (products_at(system, t, other) for other in system.theory(x).alike())
    sizes = [size, *(spectra.spectral_radius(other, system.dim) for other in others)]
    resolution = tolerances.rounding(system.dim) * max(sizes)
    zero = resolution if tolerance is None else tolerance
    below = -zero if count is None else np.inf
    values, frame = spectra.lowest_modes(product, system.dim, size, below=below, count=count)
    if which == "largest":
        values, frame = -values[::-1], frame[:, ::-1]
    complete = len(values) == system.dim
    enough = complete or which == "negative" or (which == "smallest" and values[-1] >= -zero)
    found = _Spectrum(values, resolution, zero, "iterative", complete, bool(enough))
    return found._replace(vectors=spectra.turned(frame)) if vectors else found


def _dataset(system: SystemProtocol, t: float, x: Array, found: _Spectrum) -> xr.Dataset:
    symmetric, values = system.numerics.symmetric, found.values
    decision, index, clear, edge = _judged(system, t, x, found)
    growth = -values if symmetric else values.real
    unstable = ~decision.zero & (growth > (0.0 if symmetric else edge))
    variables: dict[str, Any] = {"eigenvalue": ("eigen", values.real.copy())}
    attrs = {
        **system.attributes(),
        "method": found.method,
        "complete": int(found.complete),
        "zero_tolerance": found.zero_tolerance,
        "largest_zero": decision.largest_zero,
        "smallest_nonzero": decision.smallest_nonzero,
        "is_clear": int(clear),
    }
    if not symmetric:
        variables["eigenvalue_imag"] = ("eigen", values.imag.copy())
    coords = {}
    if found.vectors is not None:
        variables |= _vectors(found.vectors, symmetric)
        attrs["eigenvector_condition"] = float(np.linalg.cond(found.vectors))
        coords = system.coordinates()
    if found.all_negative:
        variables["index"] = np.int64(np.count_nonzero(unstable) if index is None else index)
        if unstable.any():
            variables["departure_rate"] = float(growth.max())
    if found.complete:
        variables["nullity"] = np.int64(decision.nullity)
    # Less force than what zero eigenvalues are blurred by.
    blur = max(found.resolution, found.zero_tolerance) * float(np.linalg.norm(x))
    if np.linalg.norm(field_of(system, t)(x)) <= blur:
        variables |= _at_equilibrium(system, x, found, decision, attrs)
        if found.complete and not unstable.any():
            variables |= _convergence(-growth[~decision.zero], variables)
    return schema.finish(xr.Dataset(variables, coords), "linearization", attrs)


def _judged(
    system: SystemProtocol, t: float, x: Array, found: _Spectrum
) -> tuple[Decision, int | None, bool, float]:
    """Return which eigenvalues are zero, the index if it is known otherwise, and if that is clear.

    Where ranks of products of layers are not known, or not clear, the tolerance decides, and near
    a critical point what the way there changes. The modulus that decided comes last.
    """
    edge = found.zero_tolerance
    decision = spectra.decided(found.values, edge)
    clear = decision.smallest_nonzero >= tolerances.CLEAR_GAP * decision.largest_zero
    if not found.counted or found.method == "closed_form":
        return decision, None, clear, edge
    known = system.theory(x).inertia()
    if known is None or not known[2]:
        blur, there = _blur(system, t, x, found)
        if blur > edge:
            edge, decision = blur, spectra.decided(found.values, blur)
            clear = _is_apart(system, x, found, decision, blur)
            if there is not None:
                clear &= _are_shrinking(there, decision, found.zero_tolerance)
        return decision, None, clear and known is None, edge
    index, nullity, _ = known
    if found.complete:
        decision = spectra.counted(found.values, index, nullity)
    return decision, index, True, edge


def _is_apart(
    system: SystemProtocol, x: Array, found: _Spectrum, decision: Decision, blur: float
) -> bool:
    """Tell whether what is no zero is clear of a blur, and whether it grows or decays."""
    orbit = found.complete and decision.nullity == _orbit_dimension(system, x)
    gap = tolerances.CLEAR_GAP if orbit else tolerances.WIDE_GAP
    edge = max(tolerances.CLEAR_GAP * blur, gap * decision.largest_zero)
    growth = np.abs(found.values[~decision.zero].real).min(initial=np.inf)
    return bool(decision.smallest_nonzero >= edge and growth >= tolerances.CLEAR_GAP * blur)


def _are_shrinking(there: Array, decision: Decision, tolerance: float) -> bool:
    """Tell whether the moduli of all zeros are less on the way to the critical point."""
    zeros = np.sort(np.abs(there))[: decision.nullity]
    return bool(zeros.max(initial=0.0) <= max(_SHRUNK * decision.largest_zero, tolerance))


def _blur(
    system: SystemProtocol, t: float, x: Array, found: _Spectrum
) -> tuple[float, Array | None]:
    """Return how far eigenvalues may be off those at a critical point near by; 0 if none is near.

    With the eigenvalues on the way there, of what is no gradient flow: they may move by more than J
    does. Of large systems what symmetry tells: the Hessian times what it moves is no more than the
    force.
    """
    if found.method == "iterative" and system.dim > _DENSE:
        pull, size = float(np.linalg.norm(field_of(system, t)(x))), float(np.linalg.norm(x))
        near = pull <= tolerances.HESSIAN * float(np.abs(found.values).max(initial=0.0)) * size
        return (_MOVED * pull / size if near and size else 0.0), None
    matrix, _ = dense_jacobian(system, t, x)
    there = _after_step(system, t, x, matrix, found.resolution)
    if there is None:
        return 0.0, None
    blur = _MOVED * float(np.linalg.norm(there - matrix))
    if system.numerics.symmetric:
        return blur, None
    return blur, np.asarray(scipy.linalg.eigvals(there, check_finite=False))


def _after_step(
    system: SystemProtocol, t: float, x: Array, matrix: Array, resolution: float
) -> Array | None:
    """Return J after Newton's step to a critical point, by J at ``x``, None if none is near.

    Forces within rounding lead far where the Hessian is flat; there they are left out. Where the
    rest leads far too, less of that is made, if it meets nearly all of the force.
    """
    field, size = field_of(system, t), float(np.linalg.norm(x))
    force = field(x)
    top = float(np.linalg.norm(matrix))
    if not 0.0 < float(np.linalg.norm(force)) <= tolerances.NEARLY * top * size:
        return None
    values, left, right = _singular(matrix, system.numerics.symmetric)
    pull, floor = left.T @ force, max(resolution, tolerances.rounding(1) * top)
    moved = (np.abs(pull) > tolerances.rounding(1) * top * size) | (
        np.abs(values) > _RESOLVED * floor
    )
    slopes = np.copysign(np.maximum(np.abs(values), floor), values)
    step = -right @ np.where(moved, pull / slopes, 0.0)
    if not float(np.linalg.norm(step)) <= tolerances.NEARLY * size:
        damped = (-right @ (pull * slopes / (slopes**2 + d**2)) for d in top * _DAMPINGS)
        short = (each for each in damped if np.linalg.norm(each) <= tolerances.NEARLY * size)
        most = _LEFT * np.linalg.norm(force)
        longest = next((each for each in short if np.linalg.norm(field(x + each)) <= most), None)
        if longest is None:
            return None
        step = longest
    changed, _ = dense_jacobian(system, t, x + step)
    return changed


def _singular(matrix: Array, symmetric: bool) -> tuple[Array, Array, Array]:
    """Return singular values, left and right vectors; eigenvalues of a symmetric matrix."""
    if symmetric:
        values, frame = scipy.linalg.eigh(matrix, check_finite=False)
        return values, frame, frame
    left, values, right = scipy.linalg.svd(matrix, check_finite=False)
    return values, left, right.T


def _orbit_dimension(system: SystemProtocol, x: Array) -> int:
    """Return the dimension of the orbit of the symmetries, along which the Hessian is zero."""
    moves = system.theory(x).generators()
    if not moves.any():
        return 0
    return spectra.rank(np.linalg.svd(moves, compute_uv=False), tolerances.RANK)


def _vectors(frame: Any, symmetric: bool) -> dict[str, Any]:
    """Return eigenvectors (parameter, eigen) as variables."""
    dims = ("eigen", "parameter")
    variables = {"eigenvector": (dims, frame.real.T.copy())}
    return variables if symmetric else variables | {"eigenvector_imag": (dims, frame.imag.T.copy())}


def _at_equilibrium(
    system: SystemProtocol, x: Array, found: _Spectrum, decision: Decision, attrs: dict[str, Any]
) -> dict[str, Any]:
    """Return what the symmetries say of the zeros; the tangents of the fiber are in the kernel."""
    dimensions = found.dimensions or system.theory(x).dimensions()
    if dimensions is None:
        return {}
    orbit, fiber, exact = dimensions
    attrs["fiber_is_exact"] = int(exact)
    variables: dict[str, Any] = {"orbit_dimension": np.int64(orbit)}
    variables["fiber_dimension"] = np.int64(fiber)
    if found.complete:
        attrs["unresolved_fiber"] = max(0, fiber - decision.nullity)
        if fiber <= decision.nullity:
            others = np.sort(np.argsort(np.abs(found.values), kind="stable")[fiber:])
            variables["degenerate_dimension"] = np.int64(decision.nullity - fiber)
            variables["transverse_eigenvalue"] = ("transverse", found.values.real[others])
    return variables


def _convergence(decay: Array, variables: dict[str, Any]) -> dict[str, Any]:
    """Return the rate of convergence where no direction is unstable, if it can be told."""
    degenerate = variables.get("degenerate_dimension")
    if degenerate or (decay.size and (degenerate == 0 or not variables["nullity"])):
        return {"convergence_rate": 0.0 if degenerate else max(0.0, float(decay.min()))}
    return {}


@known_options
def canonical_spectrum(net: LinearNetwork, modes: Sequence[int]) -> xr.Dataset:
    """Return the Hessian spectrum at the canonical critical point A_S in closed form.

    Parameters
    ----------
    net
        A whitened network.
    modes
        The index set S.

    Returns
    -------
    xarray.Dataset
        Schema ``linearization``, as `linearize` at ``net.critical_state(modes)``, exact to
        rounding.

    Raises
    ------
    ValueError, TypeError
        If the network is not whitened, or there is no such critical point.

    Notes
    -----
    With s_j = σ_j^{1/h}, m = min(d_0, d_h) and σ_k = 0 for k > m, all eigenvalues that are not
    zero: Σ_i s_j^{2(h−i)} s_l^{2(i−1)} for each ordered pair j, l ∈ S; s_j^{h−2}(σ_j ± σ_k) for j ∈
    S, k ∉ S, k ≤ m; s_j^{2(h−1)} for j ∈ S, m < k ≤ max(d_0, d_h); and for h = 2 in addition ±σ_k,
    each d_1 − r times, for k ∉ S.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362)

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.canonical_spectrum(net, (1,)).eigenvalue.values.tolist()
    [-2.0, -1.0, 0.0, 0.0, 0.0, 2.0, 2.0, 3.0]
    """
    check_network(net)
    if not net.whitened:
        raise ValueError("net: needs a whitened network; linearize takes others")
    chosen = list(check_integers("modes", modes, minimum=0))
    net.critical_state(chosen)  # which refuses what is no index set
    found, _ = spectra.canonical_eigenvalues(net.problem, chosen)
    eigenvalues = np.sort(np.concatenate([found, np.zeros(net.dim - len(found))]))
    variables = {
        "eigenvalue": ("eigen", eigenvalues),
        "index": np.int64(np.count_nonzero(found < 0.0)),
        "nullity": np.int64(net.dim - len(found)),
    }
    attrs = {**net.attributes(), "made_by": "canonical_spectrum"}
    return schema.finish(xr.Dataset(variables), "linearization", attrs)


@known_options
def inertia(
    system: SystemProtocol, x: ArrayLike, *, t: float = 0.0, zero_tolerance: float | None = None
) -> xr.Dataset:
    """Return the numbers of negative, zero and positive Hessian eigenvalues by factorization.

    Parameters
    ----------
    system
        A gradient flow.
    x
        State (parameter); it need not be critical.
    t
        Time, for a system that depends on it.
    zero_tolerance
        Eigenvalues of at most this modulus count as zero. ``None`` takes the rounding of the
        entries, ``8 n ε`` (``ε^{2/3}`` if H is differenced) times the sizes N_ij of the terms that
        they sum: H is scaled by a diagonal, which changes no sign, so that no N_ij is above one.

    Returns
    -------
    xarray.Dataset
        Schema ``inertia``: ``index``, ``nullity`` and ``coindex``, the numbers of negative, zero
        and positive eigenvalues; the attribute ``zero_tolerance``, and ``is_clear``, which is 0 if
        ten times that gives other counts, or ranks of products of layers tell others. Near
        critical points the counts are those of these, as `linearize` explains.

    Raises
    ------
    ValueError, TypeError
        If the state has the wrong shape or is not finite, or the system is no gradient flow.

    Notes
    -----
    Independent of eigenvalue solvers: with H ± τ I = L D Lᵀ (Bunch and Kaufman) the signs of the
    eigenvalues are those of D (Sylvester), so that H + τ I tells how many are below −τ and
    H − τ I how many are above τ.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> counts = dl.inertia(net, net.critical_state((1,)))
    >>> int(counts["index"]), int(counts.nullity), int(counts.coindex)
    (2, 3, 3)
    """
    check_flow(system)
    if not system.numerics.symmetric:
        raise TypeError(f"system: needs a gradient flow, got {type(system).__name__}")
    state = check_state("x", system, x)
    t = check_number("t", t)
    check_memory("x", 5 * system.dim**2)
    matrix, zero = dense_jacobian(system, t, state)
    known, moved = None, False
    if zero_tolerance is None:
        terms = terms_at(system, t, state)
        there = _after_step(system, t, state, matrix, zero * float(np.linalg.norm(terms)))
        change = None if there is None else there - matrix
        scale = _equilibrating(terms)
        matrix *= scale[:, None] * scale
        zero *= float(np.linalg.norm(terms * (scale[:, None] * scale)))
        known = system.theory(state).inertia()
        if change is not None and not (known and known[2]):
            blur = _MOVED * float(np.linalg.norm(change * (scale[:, None] * scale)))
            zero, moved = max(zero, blur), blur > zero
    else:
        zero = check_number("zero_tolerance", zero_tolerance, minimum=0.0)
    index, coindex = (_count_below(sign * matrix, zero) for sign in (-1.0, 1.0))
    nullity = system.dim - index - coindex
    counts = {"index": index, "nullity": nullity, "coindex": coindex}
    if known is not None:
        clear = known == (index, nullity, True)
    else:
        free = moved and nullity != _orbit_dimension(system, state)
        wider = (tolerances.WIDE_GAP if free else tolerances.CLEAR_GAP) * zero
        clear = [_count_below(sign * matrix, wider) for sign in (-1.0, 1.0)] == [index, coindex]
    attrs = {**system.attributes(), "zero_tolerance": zero, "is_clear": int(clear)}
    return schema.finish(xr.Dataset(counts), "inertia", attrs)


def _equilibrating(terms: Array) -> Array:
    """Return factors for rows and columns of a symmetric matrix after which no entry is above one.

    Each row has a largest entry near one then, if it has any (Ruiz).
    """
    scale = np.ones(len(terms))
    for _ in range(_SWEEPS):
        largest = (terms * (scale[:, None] * scale)).max(axis=1)
        scale /= np.sqrt(np.where(largest > 0.0, largest, 1.0))
    return scale


def _count_below(matrix: Array, zero: float) -> int:
    """Return the number of eigenvalues of a symmetric matrix below −``zero``."""
    return _count_negative(matrix + zero * np.eye(len(matrix)))


def _count_negative(matrix: Array) -> int:
    """Return the number of negative eigenvalues; a 2 × 2 block of D has one of either sign."""
    _, d, _ = scipy.linalg.ldl(matrix, overwrite_a=True, check_finite=False)
    coupled = np.diagonal(d, -1) != 0.0
    single = ~(np.append(coupled, False) | np.append(False, coupled))
    return int(np.count_nonzero(np.diagonal(d)[single] < 0.0) + np.count_nonzero(coupled))
