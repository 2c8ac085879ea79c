"""The symmetry of networks: group action, orbits, and distances between them.

O(d_1) × … × O(d_{h−1}) acts on states by W_i → P_i W_i P_{i−1}^{-1}, keeps the loss and its
gradient flow; all of GL(d_1) × … × GL(d_{h−1}) keeps the loss and what is critical.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_array, check_finite, check_flag, check_number, known_options
from dlnds.systems.network import LayeredSystem
from dlnds.systems.protocol import check_state
from dlnds.theory import isotropy, symmetry
from dlnds.theory.coordinates import flat


@known_options
def act(net: LayeredSystem, element: Sequence[ArrayLike] | xr.DataArray, x: ArrayLike) -> Array:
    """Return the state that a group element moves another one to: W_i → P_i W_i P_{i−1}^{-1}.

    Parameters
    ----------
    net
        The network.
    element
        Invertible matrices P_1, …, P_{h−1} (each d_i × d_i), or the ``group_element`` that
        `canonicalize` returns.
    x
        State (parameter).

    Returns
    -------
    numpy.ndarray
        State (parameter), with the same loss.

    Raises
    ------
    ValueError, TypeError
        If matrices are not as many, of other shapes, or singular.

    References
    ----------
    WA25, section 2

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
    >>> dl.act(net, [[[4.0]]], [1.0, 2.0]).tolist()
    [4.0, 0.5]
    """
    check_layered(net)
    state = check_state("x", net, x)
    matrices = _group_element(net, element)
    for i, p in enumerate(matrices, 1):
        if np.linalg.matrix_rank(p) < len(p):
            raise ValueError(f"element: needs invertible matrices, P_{i} is singular")
    with np.errstate(over="ignore", invalid="ignore"):
        return check_finite("element", flat(symmetry.moved(net.unpack(state), matrices)))


def check_layered(net: object) -> None:
    """Refuse what is no network of layers."""
    if not isinstance(net, LayeredSystem):
        raise TypeError(f"net: needs a network of layers, got {type(net).__name__}")


def _group_element(net: LayeredSystem, element: Sequence[ArrayLike] | xr.DataArray) -> list[Array]:
    """Return P_1, …, P_{h−1} given one by one, or as the vector that a Dataset holds."""
    sizes = net.widths[1:-1]
    if isinstance(element, xr.DataArray):
        vector = check_array("element", element, ndim=1, shape=(sum(d * d for d in sizes),))
        cuts = np.cumsum([d * d for d in sizes])[:-1]
        return [p.reshape(d, d) for p, d in zip(np.split(vector, cuts), sizes, strict=True)]
    if isinstance(element, np.ndarray | str | Mapping) or not np.iterable(element):
        raise TypeError(f"element: needs a sequence of matrices of sizes {sizes}, got {element!r}")
    parts = list(element)
    if len(parts) != len(sizes):
        raise ValueError(f"element: needs a sequence of {len(sizes)} matrices of sizes {sizes}")
    return [
        check_array("element", p, ndim=2, shape=(d, d)) for p, d in zip(parts, sizes, strict=True)
    ]


@known_options
def orbit_basis(
    net: LayeredSystem, x: ArrayLike, *, orthogonal: bool = True, rtol: float = 1e-9
) -> xr.Dataset:
    """Return an orthonormal basis of the tangent space of the symmetry orbit at a state.

    Parameters
    ----------
    net
        The network.
    x
        State (parameter).
    orthogonal
        Of the orbit of the orthogonal groups, which the flow keeps; otherwise of all of GL, which
        the loss keeps.
    rtol
        Singular values of the generators below this fraction of the largest count as zero.

    Returns
    -------
    xarray.Dataset
        Schema ``orbit``: ``frame(direction, parameter)``; ``orbit_dimension``;
        ``isotropy_dimension``, what the orbit lacks of the dimension of the group since part of it
        leaves the state where it is. ``isotropy``, for the orthogonal groups, names that part:
        ``"O(2) x O(1)"``, ``"trivial"``, or ``""`` where it is not of this form. The attributes
        ``smallest_kept`` and ``largest_dropped`` show how clear the rank is, relative to the
        largest singular value.

    Raises
    ------
    ValueError
        If the state has the wrong shape or is not finite.

    Notes
    -----
    Tangent vectors are K_i W_i − W_i K_{i−1} (K_i skew for the orthogonal groups), taken apart by a
    singular value decomposition. At rank-deficient states the orbit loses dimension: at A_S with r
    modes the isotropy group is O(d_1 − r) × … × O(d_{h−1} − r).

    References
    ----------
    WA25

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
    >>> orbit = dl.orbit_basis(net, net.critical_state((0,)))
    >>> int(orbit.orbit_dimension), orbit.isotropy.item()
    (6, 'O(3) x O(3)')
    """
    check_layered(net)
    state = check_state("x", net, x)
    orthogonal = check_flag("orthogonal", orthogonal)
    rtol = check_number("rtol", rtol, minimum=1e-15, maximum=0.1)
    frame, values = _orbit_frame(net, state, orthogonal, rtol)
    relative, count = values / values.max(initial=np.finfo(float).tiny), len(frame)
    sizes = [d * (d - 1) // 2 if orthogonal else d * d for d in net.widths[1:-1]]
    kept = isotropy.orthogonal_isotropy(net.unpack(state), rtol) if orthogonal else ""
    dataset = xr.Dataset(
        {
            "frame": (("direction", "parameter"), frame),
            "orbit_dimension": np.int64(count),
            "isotropy_dimension": np.int64(sum(sizes) - count),
            "isotropy": kept,
        },
        coords=net.coordinates(),
    )
    attrs = {
        **net.attributes(),
        "rtol": rtol,
        "smallest_kept": float(relative[:count].min(initial=np.inf)),
        "largest_dropped": float(relative[count:].max(initial=0.0)),
    }
    return schema.finish(dataset, "orbit", attrs)


def _orbit_frame(
    net: LayeredSystem, state: Array, orthogonal: bool, rtol: float
) -> tuple[Array, Array]:
    """Return an orthonormal frame of the orbit and the singular values of the generators."""
    rows = net.generators(state, orthogonal=orthogonal)
    if not rows.size:
        return np.zeros((0, net.dim)), np.zeros(0)
    _, values, frame = scipy.linalg.svd(rows, full_matrices=False)
    rank = int(np.count_nonzero(values > rtol * values[0])) if values[0] > 0.0 else 0
    return frame[:rank], values


@known_options
def split_tangent(
    net: LayeredSystem,
    x: ArrayLike,
    v: ArrayLike,
    *,
    orthogonal: bool = True,
    rtol: float = 1e-9,
) -> xr.Dataset:
    """Return the parts of a tangent vector along the symmetry orbit and across it.

    Parameters
    ----------
    net
        The network.
    x
        State (parameter).
    v
        Tangent vector (parameter), such as the gradient, which is horizontal for the orthogonal
        groups.
    orthogonal, rtol
        As for `orbit_basis`.

    Returns
    -------
    xarray.Dataset
        Schema ``tangent``: ``vertical(parameter)``, along the orbit, and ``horizontal(parameter)``,
        orthogonal to it, which is what moves in the quotient; ``orbit_dimension``.

    Raises
    ------
    ValueError
        If a vector has the wrong shape or is not finite.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> x = net.initial(scale=1.0, rng=0)
    >>> parts = dl.split_tangent(net, x, net.gradient(x))
    >>> bool(abs(parts.vertical).max() < 1e-14), int(parts.orbit_dimension)
    (True, 3)
    """
    check_layered(net)
    state = check_state("x", net, x)
    vector = check_state("v", net, v)
    rtol = check_number("rtol", rtol, minimum=1e-15, maximum=0.1)
    frame, _ = _orbit_frame(net, state, check_flag("orthogonal", orthogonal), rtol)
    along = frame.T @ (frame @ vector)
    across = vector - along
    across -= frame.T @ (frame @ across)
    dataset = xr.Dataset(
        {
            "vertical": ("parameter", along),
            "horizontal": ("parameter", across),
            "orbit_dimension": np.int64(len(frame)),
        },
        coords=net.coordinates(),
    )
    return schema.finish(dataset, "tangent", {**net.attributes(), "rtol": rtol})
