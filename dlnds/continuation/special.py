"""Special points of branches: which rows they are, and all that is known of them in words."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.errors import known_options

#: How a special point was found, as it is said.
_FOUND = {
    "sign_change": "found by a change of sign",
    "touching": "found where zero is only touched",
    "at_node": "found at a row of the branch",
    "interpolated": "interpolated from around it",
}
_SPOKEN = {"hopf": "Hopf point", "neimark_sacker": "Neimark–Sacker point", "user": "event"}
#: What a user has to know of some kinds.
_REMARKS = {
    "hopf": "the periodic orbits that leave it are not followed",
    "neimark_sacker": "the invariant circles that leave it are not followed",
    "flip": "the cycle of twice the period is a branch of equilibria(..., period=)",
}
_KNOWN = schema.by_dims(
    "accuracy kernel_dimension decided fold_direction criticality (step) q (step)"
)


@known_options
def special_points(branch: xr.Dataset) -> xr.Dataset:
    """Return the special points of a branch: the rows with an event, each also in words.

    Parameters
    ----------
    branch
        What `branch` or `fold_curve` returns, or a node of a `diagram`.

    Returns
    -------
    xarray.Dataset
        The rows whose ``event`` is not ``none``, in their order, with all that `branch` says of
        rows. Of each (step):

        - ``description``: what is said below, in words.
        - ``event``: its kind. A ``fold`` is where p turns back; at a ``branch_point`` others cross,
          and `diagram` follows them; at a ``hopf`` point a pair of eigenvalues crosses the
          imaginary axis, and periodic orbits leave, which are not there; of maps, a multiplier is
          −1 at a ``flip``, where a cycle of twice the period leaves, and a pair crosses the unit
          circle at a ``neimark_sacker`` point; at a ``symmetry_change`` the orbit has fewer
          dimensions than around it, or more; at a ``user`` point one of the ``events`` vanishes.
          Of curves in two parameters see `fold_curve`.
        - ``p`` and ``state``, its location; of curves also ``q``.
        - ``accuracy``: how far it may be from there, in scaled coordinates as ``arclength``: x by
          the attribute ``state_scale``, p by ``parameter_scale``. It is the value that is left of
          the function that vanishes, ``test_value``, by its change along the step, times the
          length of that.
        - ``kernel_dimension``: how many eigenvalues of ∂F/∂x are zero there beside those of the
          orbit. That is 0 at Hopf points and flips, and at least 1 at folds and branch points.
        - ``criticality``: of simple pitchforks and Hopf points, whether what leaves is stable
          across the branch, on the side where that is unstable, ``supercritical``, or unstable, on
          the other one, ``subcritical``; of all others, and where it is not decided, ``none``.
        - ``fold_direction``: whether p has a ``maximum`` (−1) or a ``minimum`` (1) at a fold; 0 of
          all others.
        - ``decided``: how it was found. A function that vanishes there changes sign
          (``sign_change``) or touches zero (``touching``); where the equation is singular it is
          ``interpolated`` between solutions around; and it may be a row of the branch itself
          (``at_node``), its start or its end at a bound.
        - ``transverse_eigenvalue``, those nearest to zero, ``index`` and ``nullity`` there.

        Words of ``event``, ``criticality``, ``fold_direction`` and ``decided`` are what
        `schema.decode` returns.

    Raises
    ------
    TypeError
        If it is no branch.
    ValueError
        If it is a whole `diagram`: each of its nodes has special points of its own.

    Examples
    --------
    >>> import dlnds as dl
    >>> branch = dl.branch(lambda x, p: p + 3 * x - x**3, [-2.0], -2.0, bounds=(-3.0, 3.0))
    >>> points = dl.special_points(branch)
    >>> dl.schema.decode(points.fold_direction).values.tolist()
    ['maximum', 'minimum']
    >>> print(points.description.values[0].split(", within")[0])
    fold at p = 2, a maximum of p
    >>> points.p.round(9).values.tolist(), bool((points.accuracy < 1e-9).all())
    ([2.0, -2.0], True)
    """
    if getattr(branch, "attrs", {}).get("schema") == "diagram":
        raise ValueError(
            'branch: needs one of the branches of the diagram, such as tree["branch_0"]'
        )
    needed, partial = schema.REQUIRED["branch"], ["transverse_eigenvalue", "accuracy"]
    branch = schema.read(
        *("branch", branch, "branch", needed),
        optional=_KNOWN, empty=["eigen"], partial=partial,
    )  # fmt: skip
    points = branch.isel(step=np.flatnonzero(branch["event"].values > 0))
    words = [_described(points.isel(step=k)) for k in range(points.sizes["step"])]
    described = points.assign(description=("step", np.array(words, dtype=str)))
    order = ["description", *(name for name in described.data_vars if name != "description")]
    ordered = described[order].assign_coords(described.coords)  # also those of no variable
    return schema.finish(ordered, "branch", branch.attrs)


def _described(point: xr.Dataset) -> str:
    """Return what is known of a special point in words."""
    words = {
        name: str(schema.decode(point[name]).item())
        for name in ("event", "criticality", "fold_direction", "decided")
        if name in point
    }
    kind, places = words["event"], [point[name] for name in ("p", "q") if name in point]
    where = ", ".join(f"{place.attrs['long_name']} = {float(place):.10g}" for place in places)
    said = [f"{_SPOKEN.get(kind, schema.spoken(kind))} at {where}"]
    if words.get("fold_direction", "none") != "none":
        said.append(f"a {words['fold_direction']} of {places[0].attrs['long_name']}")
    if words.get("criticality", "none") != "none":
        said.append(words["criticality"])
    if kind not in ("fold", "user") and int(point.get("kernel_dimension", 0)):
        said.append(f"kernel of dimension {int(point['kernel_dimension'])}")
    if "accuracy" in point:
        said.append(f"within {float(point['accuracy']):.0e} (scaled)")
    said += [part for part in (_FOUND.get(words.get("decided", "")), _REMARKS.get(kind)) if part]
    return ", ".join(said)
