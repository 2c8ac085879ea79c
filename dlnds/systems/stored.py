"""Systems in their Datasets: what a run carries of the problem that it is of, and the way back."""

from __future__ import annotations

import dataclasses
import json
import math
import weakref
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
import xarray as xr

from dlnds.arrays import Array
from dlnds.errors import known_options
from dlnds.schema import DESCRIPTION, NUMBER, PROBLEM, carries_problem
from dlnds.systems.descent import GradientDescent
from dlnds.systems.homogeneous import HomogeneousNetwork
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.losses import Loss, LossNetwork
from dlnds.systems.measurements import Measurements
from dlnds.systems.product import ProductFlow
from dlnds.systems.protocol import SystemProtocol

#: The form of the description, and the most numbers of a problem that are stored: 128 MB.
FORM, MOST = 1, 2**24

#: Schemas of what carries a problem.
CARRYING = ("run", "chain", "atlas", "branch")
#: What is stored, and nothing else is made of a file.
_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(LinearNetwork, LossNetwork, Loss, Measurements),
        *(HomogeneousNetwork, ProductFlow, GradientDescent),
    )
}
#: What runs carry of systems that are in use; it is computed once for all runs of one.
_CARRIED: weakref.WeakKeyDictionary[SystemProtocol, tuple[Array, str] | None]
_CARRIED = weakref.WeakKeyDictionary()


def run_coordinates(system: SystemProtocol, names: Container[str]) -> dict[str, Any]:
    """Return the coordinates of runs: labels of states, if these are recorded, and the problem."""
    labels = system.coordinates() if "state" in names else {}
    return labels | problem_coordinate(system)


def problem_coordinate(system: SystemProtocol) -> dict[str, Any]:
    """Return the numbers that a system is rebuilt from; nothing if it is made of functions."""
    if system not in _CARRIED:
        _CARRIED[system] = _carried(system)
    carried = _CARRIED[system]
    if carried is None:
        return {}
    numbers, text = carried
    return {PROBLEM: (NUMBER, numbers, {DESCRIPTION: text})}


def _carried(system: SystemProtocol) -> tuple[Array, str] | None:
    """Return all numbers of a system, and the text that describes them; None if it has others."""
    if not _is_stored(system):
        return None
    arrays: list[Array] = []
    words = {"form": FORM, "digest": _digest(system), "system": _described(system, arrays)}
    whole = sum(array.size for array in arrays) <= MOST
    numbers = np.concatenate([array.ravel() for array in arrays]) if whole else np.zeros(0)
    numbers.setflags(write=False)
    return numbers, json.dumps(words)


def _is_stored(value: Any) -> bool:
    """Tell whether a system, and what it is made of, are of our classes."""
    if not isinstance(value, SystemProtocol):
        return True
    own = _CLASSES.get(type(value).__name__) is type(value)
    return own and all(_is_stored(part) for part in _fields(value).values())


def _described(value: Any, arrays: list[Array]) -> Any:
    """Return a value as JSON takes it, and append the arrays that stand in it as shapes."""
    if dataclasses.is_dataclass(value):
        fields = {name: _described(part, arrays) for name, part in _fields(value).items()}
        return {"class": type(value).__name__, "fields": fields}
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"shape": value.shape}
    return value.item() if isinstance(value, np.generic) else value


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _digest(system: SystemProtocol) -> str:
    return str(system.attributes()["problem_digest"])


@known_options
def load_system(run: xr.Dataset | xr.DataTree) -> Any:
    """Return the system that a run, an atlas or a branch is of, rebuilt from what it carries.

    Parameters
    ----------
    run
        What `flow`, `iterate`, `exact_flow` or `as_run` returned, or `build_atlas`, or `branch` of
        `equilibria`; in memory, or from a file by `load`. What is selected or computed from it will
        do as long as the coordinate ``problem`` is there.

    Returns
    -------
    LinearNetwork, LossNetwork, HomogeneousNetwork, ProductFlow or GradientDescent
        With the same fields, bit for bit, and so the same digest. What a branch varies is as it was
        in the system that `equilibria` was given.

    Raises
    ------
    TypeError
        If it is no Dataset, or its system is made of functions: a `System` is code, and not stored.
    ValueError
        If it carries no problem, as runs of earlier versions, or one of more than 128 MB, of which
        the description alone is stored; or if that is damaged, of several systems, or of another
        one than the run.

    Notes
    -----
    The coordinate ``problem(number)`` holds the numbers of all arrays of the system one after the
    other; its attribute ``description`` tells class, fields, shapes and settings. No code is
    stored, and of names in a file nothing but the classes above is made.

    Examples
    --------
    >>> import tempfile, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=0.1, rng=0), t_span=(0, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dl.save(run, f"{folder}/run.nc")
    ...     again = dl.load_system(dl.load(f"{folder}/run.nc"))
    >>> again, again.digest == net.digest
    (LinearNetwork(2 -> 3 -> 2, whitened inputs), True)
    """
    data = run.to_dataset() if isinstance(run, xr.DataTree) else run
    if not isinstance(data, xr.Dataset):
        raise TypeError(
            f"run: needs a Dataset such as flow and load return, got {type(run).__name__}"
        )
    if not carries_problem(data):
        raise _lack(data.attrs)
    stored, text = data[PROBLEM], data[PROBLEM].attrs[DESCRIPTION]
    others = [str(dim) for dim in stored.dims if dim != NUMBER]
    if others:
        raise ValueError(f"run: is of several systems; select one along {', '.join(others)}")
    if not stored.dims:
        raise ValueError(f"run: needs all numbers of {PROBLEM!r}, got one")
    try:
        words = json.loads(text)
        form, digest, parts = words["form"], words["digest"], words["system"]
        missing = _count(parts) - stored.size
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"run: what it tells of its system is damaged ({error})") from error
    if form != FORM:
        raise ValueError(
            f"run: tells of its system in the form {form!r}, this version knows {FORM}"
        )
    if missing and not stored.size:
        raise ValueError(
            f"run: its problem of {8 * missing / 2**20:.0f} MB is not stored, as more than "
            f"{8 * MOST // 2**20} MB are not; build the system again, its digest has to be {digest}"
        )
    try:
        system = _built(parts, np.array(stored.values, dtype=np.float64), [0])
        rebuilt = _digest(system)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"run: its system cannot be rebuilt ({error})") from error
    if missing or rebuilt != digest or digest != data.attrs.get("problem_digest", digest):
        raise ValueError(
            f"run: what it carries makes a system with the digest {rebuilt}, not its own "
            f"{data.attrs.get('problem_digest', digest)}"
        )
    return system


def _lack(attrs: Mapping[Any, Any]) -> Exception:
    """Return why a Dataset carries no problem."""
    kind, version = attrs.get("system"), attrs.get("dlnds_version")
    if kind is None or version is None:
        return ValueError("run: does not say of which system it is, so is none of this package")
    if kind not in _CLASSES:
        functions = ", made of functions, which are code;" if kind == "System" else ","
        return TypeError(f"run: is of a {kind}{functions} that is not stored; make it again")
    schema = attrs.get("schema")
    if schema is not None and schema not in CARRYING:
        return ValueError(
            f"run: is a Dataset of the schema {schema!r}, which carries no problem; take the run, "
            f"atlas or branch of the {kind} that it was made of"
        )
    return ValueError(
        f"run: carries no problem: dlnds {version} wrote it before runs did, or its coordinate "
        f"{PROBLEM!r} was dropped; build the {kind} again, its digest has to be "
        f"{attrs.get('problem_digest')}"
    )


def _count(words: Any) -> int:
    """Return how many numbers a description tells of."""
    if not isinstance(words, dict):
        return 0
    if "shape" in words:
        return math.prod(words["shape"])
    return sum(_count(part) for part in words["fields"].values())


def _built(words: Any, numbers: Array, place: list[int]) -> Any:
    """Return what is described, of the numbers from a place on, which moves behind them."""
    if not isinstance(words, dict):
        return tuple(words) if isinstance(words, list) else words
    if "shape" in words:
        begin, place[0] = place[0], place[0] + _count(words)
        return numbers[begin : place[0]].reshape(words["shape"])
    fields = {name: _built(part, numbers, place) for name, part in words["fields"].items()}
    make: Callable[..., Any] = _CLASSES[words["class"]]
    return (HomogeneousNetwork.of_fields if make is HomogeneousNetwork else make)(**fields)
