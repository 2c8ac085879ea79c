"""Errors, and the checks of arguments that every public function makes in its first lines."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

#: So many floats are always at hand; asking for the free memory would take longer than most calls.
_FEW = 2**20
#: Sizes of which the squares, and what is left of these, are numbers with all their digits.
_SMALLEST, _LARGEST = 1e-140, 1e150
#: Last dims of labelled states and matrices.
_ENDS: tuple[tuple[str, ...], ...] = (("parameter",), ("row", "column"))

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class ConvergenceError(RuntimeError):
    """A single solve that failed; the message carries the numbers.

    Examples
    --------
    >>> import dlnds as dl
    >>> def above_zero(t, x, params, out):
    ...     out[0] = 1.0 + x[0] ** 2
    >>> try:
    ...     dl.find_critical_point(dl.System(above_zero, dim=1), [0.3])
    ... except dl.ConvergenceError as error:
    ...     print(str(error).partition(";")[0])
    no critical point: the norm of the field has a minimum that is no zero
    """


def known_options(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make an unknown keyword raise a `TypeError` that names the nearest valid one."""
    names = [n for n in inspect.signature(function).parameters if n not in ("self", "cls", "_")]
    owner = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for name in kwargs:
            if name not in names:
                raise TypeError(f"{name}: {owner} has no such option{nearest(name, names)}")
        return function(*args, **kwargs)

    return checked


def nearest(word: object, known: Iterable[object]) -> str:
    """Return a hint for a message: the known word closest to ``word``, or all of them."""
    words = [str(k) for k in known]
    close = difflib.get_close_matches(str(word), words, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(words)}"


def check_choice(name: str, value: object, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of the known words."""
    known = list(known)
    if not isinstance(value, str):
        raise TypeError(f"{name}: needs one of {', '.join(known)}, got {value!r}")
    if value not in known:
        raise ValueError(f"{name}: there is no {value!r}{nearest(value, known)}")
    return value


def check_array(
    name: str, value: ArrayLike, *, ndim: int | tuple[int, ...], shape: Sequence[int | None] = ()
) -> NDArray[np.float64]:
    """Return ``value`` as a new C-ordered float array of the wanted dimensions.

    ``shape`` gives the last sizes, ``None`` where any size above zero is right. Labelled states
    and matrices may have their dims anywhere.
    """
    if isinstance(value, xr.DataArray):
        whole = [dims for dims in _ENDS if {*dims} <= {*value.dims}]
        value = value.transpose(..., *(whole[0] if whole else ()))
        check_labels(name, value)
    if np.ma.isMaskedArray(value):
        raise TypeError(f"{name}: is masked, needs plain numbers; fill or drop what is masked")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        words = f"{name}: needs a rectangular array of numbers{_hint(value)} ({error})"
        raise ValueError(words) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: needs real numbers, got dtype {array.dtype}")
    array = np.array(array, dtype=np.float64, order="C")
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if array.ndim not in allowed:
        wanted = " or ".join(map(str, allowed))
        got = f"got shape {array.shape}{_hint(value)}"
        word = "dimension" if wanted == "1" else "dimensions"
        raise ValueError(f"{name}: needs {wanted} {word}, {got}")
    ends = array.shape[array.ndim - len(shape) :]
    if any(want not in (None, got) for want, got in zip(shape, ends, strict=True)):
        wanted = ", ".join("any" if s is None else str(s) for s in shape)
        raise ValueError(f"{name}: needs a shape ending in ({wanted}), got {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name}: needs at least one number, is empty with shape {array.shape}")
    return check_finite(name, array, "")


def _hint(value: object) -> str:
    """Return what to do with matrices in a list, which may be meant for a state."""
    parts = value if isinstance(value, list | tuple) else ()
    matrices = bool(parts) and all(isinstance(w, np.ndarray) and w.ndim == 2 for w in parts)
    return "; if these are layers, net.pack makes one state of them" if matrices else ""


def check_labels(name: str, data: xr.DataArray | xr.Dataset) -> None:
    """Refuse weights or modes whose coordinates say that they are not in their order.

    All is computed by their places, which rows that were sorted or left out no longer tell.
    """
    labels = [data.coords[key] for key in ("layer", "row", "column") if key in data.coords]
    if len(labels) == 3 and all(label.dims == ("parameter",) for label in labels):
        layer, row, column = (np.diff(label.values) for label in labels)
        later = (layer > 0) | ((layer == 0) & ((row > 0) | ((row == 0) & (column > 0))))
        if not later.all():
            raise ValueError(f"{name}: needs its weights in the order of layer, row, and column")
    if "mode" in data.coords and data.coords["mode"].dims == ("mode",):
        modes = data.coords["mode"].values
        if not np.array_equal(modes, np.arange(len(modes))):
            raise ValueError(f"{name}: needs the first modes in their order, got {modes.tolist()}")


def check_ascending(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Return ``value`` as a vector of strictly ascending times."""
    times = check_array(name, value, ndim=1)
    if (times[1:] <= times[:-1]).any():
        raise ValueError(f"{name}: needs strictly ascending times")
    return times


def check_squares(name: str, value: NDArray[np.float64]) -> None:
    """Refuse numbers whose squares overflow, or all underflow: losses are made of them."""
    size = float(np.abs(value).max(initial=0.0))
    if size and not _SMALLEST <= size <= _LARGEST:
        raise ValueError(
            f"{name}: needs zeros, or a largest entry from {_SMALLEST:g} to {_LARGEST:g}, of which "
            f"squares are numbers, got {size:.3g}; rescale the data, and the time with them"
        )


def check_finite(
    name: str, array: NDArray[np.float64], what: str = "the result overflows at this "
) -> NDArray[np.float64]:
    """Return ``array`` if all of it is finite."""
    if not np.isfinite(array).all():
        problem = f"{what}{name}" if what else "needs finite numbers, got NaN or infinity"
        raise ValueError(f"{name}: {problem}")
    return array


def finite(name: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Make a function of finite numbers refuse, by an argument's name, what overflows in it."""

    def refusing(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                result = function(*args, **kwargs)
            for part in result if isinstance(result, tuple) else (result,):
                check_finite(name, np.asarray(part))
            return result

        return checked

    return refusing


def check_number(
    name: str,
    value: object,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    infinite: bool = False,
) -> float:
    """Return ``value`` as a float between the bounds."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        raise TypeError(f"{name}: needs a number, got {value!r}") from None
    if array.ndim != 0 or array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: needs a real number, got {value!r}")
    number = float(array)
    if math.isnan(number) or (math.isinf(number) and not infinite):
        raise ValueError(f"{name}: needs a finite number, got {number}")
    if not minimum <= number <= maximum:
        raise ValueError(f"{name}: needs {_range(minimum, maximum)}, got {number}")
    return number


def _range(minimum: float, maximum: float) -> str:
    """Return what numbers between bounds are called, of which one may be infinite."""
    if math.isinf(maximum):
        return f"at least {minimum:g}"
    return f"at most {maximum:g}" if math.isinf(minimum) else f"{minimum:g} to {maximum:g}"


def check_function(name: str, value: object, *arguments: str) -> None:
    """Refuse what cannot be called with these arguments."""
    form = f"{name}: needs a function of ({', '.join(arguments)}), got {value!r}"
    if not callable(value):
        raise TypeError(form)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # of some compiled functions it is not known
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{form}: {error}") from None


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` if it is true or false."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: needs True or False, got {value!r}")
    return bool(value)


def check_memory(name: str, numbers: int) -> None:
    """Refuse to allocate more than half of the free memory for so many floats."""
    if numbers < _FEW:
        return
    import psutil  # here, since few calls need it

    if 16 * numbers > (free := psutil.virtual_memory().available):
        size = f"{8 * numbers:,} bytes, more than half of the free {free:,}"
        raise ValueError(f"{name}: this takes {size}")


def check_integer(name: str, value: object, *, minimum: int, maximum: int | None = None) -> int:
    """Return ``value``, which may be a float without decimals, as an integer in the bounds."""
    if isinstance(value, bool):
        raise TypeError(f"{name}: needs an integer, got {value!r}")
    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: needs an integer, got {value!r}") from None
    if number < minimum or (maximum is not None and number > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise ValueError(f"{name}: needs at least {minimum}{upper}, got {number}")
    return number


def check_integers(
    name: str, value: Any, *, minimum: int, maximum: int | None = None, ordered: bool = False
) -> tuple[int, ...]:
    """Return a sequence, or a set unless it is ``ordered``, of integers, each in the bounds."""
    wrong = (str, bytes, Mapping, *((set, frozenset) if ordered else ()))
    if isinstance(value, wrong) or not np.iterable(value):
        raise TypeError(f"{name}: needs a sequence of integers, got {value!r}")
    return tuple(check_integer(name, v, minimum=minimum, maximum=maximum) for v in value)


def check_names(name: str, given: Any, count: int) -> tuple[str, ...]:
    """Return so many texts, or none; refuse others."""
    found = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if not all(isinstance(text, str) for text in found):
        raise TypeError(f"{name}: needs texts, got {given!r}")
    if len(found) not in (0, count):
        raise ValueError(f"{name}: needs {count} names or none, got {len(found)}")
    return found


def row_names(data: Any, axis: int = 0) -> tuple[str, ...]:
    """Return what arrays and tables call their rows, or columns, if that is text; else nothing.

    Rows of samples are the features.
    """
    labels: Any = ()
    if isinstance(data, xr.DataArray) and data.ndim == 2:
        dims = (data.transpose(..., "sample") if "sample" in data.dims else data).dims
        labels = data.coords[dims[axis]].values if dims[axis] in data.coords else ()
    elif hasattr(data, "iloc") and data.ndim == 2:  # of pandas
        labels = data.axes[axis]
    names = tuple(str(label) for label in labels)
    return names if all(isinstance(label, str) for label in labels) else ()


def check_generator(name: str, value: Any) -> np.random.Generator:
    """Return a generator for a seed, a seed sequence, or a generator (SPEC 7)."""
    if isinstance(value, np.random.RandomState):
        raise TypeError(f"{name}: needs a seed or a numpy Generator, got a legacy RandomState")
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: needs a seed or a numpy Generator, got {value!r}") from None
