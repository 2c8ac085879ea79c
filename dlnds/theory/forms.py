"""Local forms of functions: the leading part of −L in small weights, Taylor terms, differences."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds._kernels import homogeneous as kernels
from dlnds.arrays import Array, Integers, Kernel, Params
from dlnds.errors import check_finite
from dlnds.theory import tolerances
from dlnds.theory.coordinates import flat, layers_of, n_weights, product
from dlnds.theory.moments import Problem, groups, singular_modes
from dlnds.theory.rays import Rays, mixtures

#: Relative step of central differences, and their accuracy.
STEP, DIFFERENCED = (float(np.finfo(float).eps) ** power for power in (1.0 / 3.0, 2.0 / 3.0))


#: Relative step of differences of fourth order, whose error is that of rounding.
FOURTH = float(np.finfo(float).eps) ** 0.2
#: The same of vectors, whose components may change over other lengths than their size, and the
#: smallest of these lengths in terms of it.
FOURTH_STEP, LEAST_LENGTH = 2e-4, 1e-2


class LeadingPart(NamedTuple):
    """−L at a critical point to leading order in weights that vanish there: a form N(z).

    ``gradient`` and ``hessian`` are kernels with the signatures of a field and a Jacobian.
    ``embed`` says where the weights z are in the state: the places of them, or a matrix E
    (parameter × weight) with z = Eᵀ x. ``invariants`` gives of a stack (…, weight) of z what
    symmetries leave as it is, ``imbalance`` how far they are from what holds at KKT points.
    ``rays`` gives all KKT points of a linear network, at most so many, of at most so many modes;
    see `rays.mixtures`.

    ``widths`` are those of the network that z belongs to. ``exact``: E is orthonormal, and x = E z.
    Otherwise states that the flow moves in are known by their z, which has another length: N is
    known, but not its KKT points.
    ``by_itself`` says that no other weights move along the rays, but those that the form moves.
    Then, if ``names`` is given, S ∪ T is learnt along the ray of T: S, and the numbers of the modes
    of the form among those of the target.
    """

    gradient: Kernel
    hessian: Kernel
    params: Params
    degree: int
    embed: Array | Integers
    invariants: Callable[[Array], Array]
    imbalance: Callable[[Array], Array]
    rays: Callable[..., Rays] | None
    widths: tuple[int, ...]
    exact: bool = True
    by_itself: bool = True
    names: tuple[Integers, Integers] | None = None


class Expansion(NamedTuple):
    """The first homogeneous part N of −L in a space, of this degree: ∇N at points (…, component).

    Components are those in the orthonormal ``basis`` (parameter × component).
    """

    basis: Array
    degree: int
    gradient: Callable[[Array], Array]


def without_orbit(kernel: Array, generators: Array) -> Array:
    """Return an orthonormal basis of what is in the kernel and orthogonal to the orbit."""
    if not generators.any():
        return kernel
    orbit = scipy.linalg.orth(generators.T)
    left, sizes, _ = np.linalg.svd(kernel - orbit @ (orbit.T @ kernel), full_matrices=False)
    return left[:, : int(np.count_nonzero(sizes > 0.5))]


def expansion(
    field_terms: Callable[[Array, int], Array],
    x: Array,
    basis: Array,
    span: Array,
    stiffness: Array,
    highest: int,
    name: str,
) -> Expansion | None:
    """Return the leading form at a critical point in a space, or None where the loss is constant.

    ``span`` holds the eigenvectors of the Hessian with the eigenvalues ``stiffness``, all but its
    kernel; no degree above ``highest`` is looked for. The curve x + α v + w(α) has w in their space
    with no force there; the coefficients of w follow one from the other, and N is what is left of
    the loss (Lyapunov–Schmidt). A form that is no larger than what rounding of x and of the Hessian
    makes of it is none. An error says ``name`` of a point so small that the form overflows.
    """

    def forces(c: Array, order: int, at: Array = x, along: Array = basis) -> Array:
        """Return the field's coefficients (power, …, component) in the basis, up to α^{order−1}."""
        terms = np.zeros((order, *c.shape[:-1], x.size))
        terms[0], terms[1] = at, c @ along.T
        for m in range(2, order):
            force = field_terms(terms[:m], m)[m]
            terms[m] = ((force @ span) / stiffness) @ span.T
        return np.asarray(field_terms(terms, order - 1) @ basis)

    if not basis.shape[1]:
        return None
    rng = np.random.default_rng(0)
    tries = rng.normal(size=(3, basis.shape[1]))
    tries /= np.linalg.norm(tries, axis=1)[:, None]
    blur, sizes = tolerances.rounding(1), np.abs(stiffness)
    beside = x + blur * np.abs(x).max() * rng.normal(size=x.shape)
    turns = (
        rng.normal(size=(len(sizes), basis.shape[1])) * (sizes.max(initial=0.0) / sizes)[:, None]
    )
    tilted = basis + blur * span @ turns
    with np.errstate(over="ignore", invalid="ignore"):
        terms = forces(tries, highest)
        changes = forces(tries, highest, beside, tilted) - terms
        found, noise = (np.linalg.norm(v, axis=-1).max(axis=1) for v in (terms, changes))
    check_finite(name, found)
    found[:2] = 0.0
    found[found <= tolerances.CLEAR_GAP * np.maximum.accumulate(noise)] = 0.0
    if not found.any():
        return None
    degree = int(np.argmax(found > tolerances.RANK * found.max())) + 1
    return Expansion(basis, degree, lambda c: forces(c, degree)[degree - 1])


def pack_params(widths: Sequence[int], form: int, target: Array, *numbers: Array) -> Params:
    """Return sizes and numbers of a network as the kernels want them."""
    counts = (b * a for a, b in itertools.pairwise(widths))
    begins, sums = (itertools.accumulate(part, initial=0) for part in (counts, widths))
    sizes = [len(widths) - 1, target.shape[1], form, *widths, *begins, *sums]
    return np.array(sizes, np.int64), flat([target, *numbers])


def activations(layers: Sequence[Array], inputs: Array, power: int, slope: float) -> list[Array]:
    """Return A_0, …, A_{h−1}, with A_i = σ(W_i A_{i−1}), of layers or of stacks of them."""
    values = [inputs]
    for w in layers[:-1]:
        z = w @ values[-1]
        values.append(np.where(z > 0.0, z, slope * z) ** power)
    return values


def network_outputs(layers: Sequence[Array], inputs: Array, power: int, slope: float) -> Array:
    """Return W_h σ(… σ(W_1 X)) of layers, or of stacks of them."""
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged run has such states
        return layers[-1] @ activations(layers, inputs, power, slope)[-1]


def correlation(
    widths: Sequence[int],
    inputs: Array,
    signal: Array,
    *,
    power: int = 1,
    slope: float = 1.0,
    embed: Array | Integers | None = None,
) -> LeadingPart:
    """Return the neural correlation function N = ⟨G, H(X; z)⟩ of a network with these widths.

    Of linear ones the strengths of the modes are compared, those of equal value together, of others
    the outputs and the sizes of hidden units.
    """
    activation = np.array([float(power), slope, 1.0, 2.0])
    params = pack_params(widths, kernels.FIXED, signal, inputs, activation)
    number = n_weights(widths)

    modes = None if power > 1 else _without_rounding(singular_modes(signal @ inputs.T))

    def invariants(states: Array) -> Array:
        layers = layers_of(widths, states)
        if modes is not None:
            left, sigma, right = modes
            strength = np.sum((left.T @ product(layers)) * right.T, axis=-1)
            sums = [strength[..., tie].sum(axis=-1, keepdims=True) for tie in groups(sigma)]
            return np.concatenate([strength[..., :0], *sums], axis=-1)
        image = network_outputs(layers, inputs, power, slope)
        parts = [image.reshape(*states.shape[:-1], signal.size)]
        for into, out_of in itertools.pairwise(layers):
            sizes = np.sum(into**2, axis=-1) + np.sum(out_of**2, axis=-2)
            parts.append(np.sqrt(np.sort(sizes, axis=-1)))
        return np.concatenate(parts, axis=-1)

    def imbalance(states: Array) -> Array:
        worst = np.zeros(states.shape[:-1])
        for into, out_of in itertools.pairwise(layers_of(widths, states)):
            lack = np.sum(into**2, axis=-1) - power * np.sum(out_of**2, axis=-2)
            worst = np.maximum(worst, np.abs(lack).max(axis=-1))
        return worst

    return LeadingPart(
        kernels.field,
        kernels.jacobian,
        params,
        sum(power**k for k in range(len(widths) - 1)),
        np.arange(number) if embed is None else embed,
        invariants,
        imbalance,
        None if modes is None else functools.partial(mixtures, widths, modes),
        tuple(widths),
    )


def _without_rounding(modes: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Return singular modes whose vectors are exactly zero where they are but for rounding.

    Weights of that size would be followed as if they were meant.
    """
    left, sigma, right = modes
    left, right = (np.where(np.abs(f) > tolerances.NO_PART, f, 0.0) for f in (left, right))
    return left, sigma, right


def difference(function: Callable[[float], Array], size: float, step: float = STEP) -> Array:
    """Return the derivative of a function of a number at 0, by a central difference.

    ``size`` is that of what the number is added to; the step is relative to it.
    """
    step *= max(1.0, size)
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = function(step) - function(-step)
    found /= 2.0 * step
    return found


def derivative(function: Callable[[Array], Array], x: Array, typical: float | None = None) -> Array:
    """Return the derivative (value × component) of a function of a vector, by differences.

    They are of fourth order. ``typical`` is the length over which the function changes, by default
    1 or the largest component; components that are smaller have a shorter one.
    """
    size = max(1.0, float(np.abs(x).max(initial=0.0))) if typical is None else typical
    lengths = np.clip(np.abs(x), LEAST_LENGTH * size, size)
    steps = FOURTH_STEP * lengths**0.8 * np.maximum(lengths, np.abs(x)) ** 0.2
    columns, moved = [], x.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for k, step in enumerate(steps.tolist()):
            values = []
            for offset in (-2.0, -1.0, 1.0, 2.0):
                moved[k] = x[k] + offset * step
                values.append(np.array(function(moved), float))
            moved[k] = x[k]
            change = values[0] - values[3] + 8.0 * (values[2] - values[1])
            columns.append(change / (12.0 * step))
    return np.stack(columns, axis=1)


def difference_within(
    function: Callable[[float], Any],
    s: float,
    typical: float = 1.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Array:
    """Return the derivative of a function of a number by a difference of fourth order.

    ``typical`` is the length over which it changes. Next to a bound all five points lie on its
    inner side.
    """
    low, high = min(bounds[0], s), max(bounds[1], s)
    step = FOURTH * typical**0.8 * max(typical, abs(s)) ** 0.2
    step = min(step, 0.25 * (high - low))
    middle = min(max(s, low + 2.0 * step), high - 2.0 * step)
    places = np.clip(middle + step * np.arange(-2.0, 3.0), low, high)
    weights = zip(_weights(float((middle - s) / step)), places.tolist(), strict=True)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(sum(c / step * function(t) for c, t in weights if abs(c) > 1e-9))


@functools.lru_cache(maxsize=64)
def _weights(offset: float) -> tuple[float, ...]:
    """Return what to weigh five equidistant values with for the derivative off their middle."""
    powers = np.vander(offset + np.arange(-2.0, 3.0), increasing=True).T
    return tuple(np.linalg.solve(powers, np.eye(5)[1]).tolist())


def field_terms(problem: Problem, terms: Array, order: int) -> Array:
    """Return the coefficients (0 to ``order``, …, parameter) of the field along Σ_m terms[m] α^m.

    The field is a polynomial of the weights, so they are finite sums of products of the curve's.
    ``terms`` (m, …, parameter) are those of one curve, or of a stack of them.
    """
    curve = np.zeros((order + 1, *terms.shape[1:]))
    curve[: len(terms)] = terms[: order + 1]
    layers = layers_of(problem.widths, curve)
    first = problem.image(layers[0])
    images = list(itertools.accumulate(layers[1:], lambda p, w: _product(w, p), initial=first))
    signal = -images[-1]
    signal[0] += problem.target
    parts = []
    for i in range(problem.depth - 1, 0, -1):
        parts.append(_product(signal, np.swapaxes(images[i - 1], -1, -2)))
        signal = _product(np.swapaxes(layers[i], -1, -2), signal)
    parts.append(signal if problem.root is None else signal @ problem.root.T)
    flats = [part.reshape(*part.shape[:-2], -1) for part in parts[::-1]]
    return np.concatenate(flats, axis=-1)


def _product(a: Array, b: Array) -> Array:
    """Return the coefficients of a product of two polynomials of matrices, up to the same order."""
    out = np.zeros((*a.shape[:-1], b.shape[-1]))
    for m in range(len(a)):
        out[m:] += a[m] @ b[: len(b) - m]
    return out
