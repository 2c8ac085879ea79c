"""Checkpoints of training runs, in files or nested dicts, read one at a time."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike

from dlnds.arrays import Array
from dlnds.errors import check_array, check_choice, check_number, known_options
from dlnds.runs.flow import LAST
from dlnds.runs.formats import FORMATS, TIME, Entries, nested, opened
from dlnds.runs.layouts import ORIENTATIONS, Layout, layout, named, text

#: What stands before the number of a step, the better words first.
_WORDS = ("steps?|iter|iters|iterations?", "epochs?|checkpoints?|ckpts?")
_ANY_WORD = "|".join(_WORDS)
#: A number in a name: its sign, which a dash between words is not, digits, exponent, and a word.
_NUMBER = re.compile(
    r"(?P<sign>(?:^|(?<=[_=:(\s]))-)?(?P<digits>\d+(?:\.\d+)*)(?P<power>e\+?\d+)?(?P<word>[a-z]*)",
    re.IGNORECASE,
)
_THOUSANDS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6}


class _Place(NamedTuple):
    """Where the weights of one time are: what opens it, and the first key, if it holds several."""

    words: str
    open: Callable[[], AbstractContextManager[Entries]]
    first: str | None = None

    def chosen(self, entries: Entries) -> Entries:
        """Return the arrays of this time."""
        if self.first is None:
            return entries
        return {key[1:]: entry for key, entry in entries.items() if key[0] == self.first}


class Checkpoints(Sequence[tuple[Array, ...]]):
    """W_1, …, W_h at each time, read when they are asked for."""

    def __init__(self, places: Sequence[_Place], form: Layout) -> None:
        self._places, self._form = places, form

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> tuple[Array, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> Checkpoints: ...
    def __getitem__(self, index: int | slice) -> tuple[Array, ...] | Checkpoints:
        if isinstance(index, slice):
            return Checkpoints(self._places[index], self._form)
        place = self._places[index]
        with named("layers", place.words), place.open() as entries:
            return self._form.read(place.chosen(entries))

    def __repr__(self) -> str:
        """Give their number and the shapes of the layers."""
        return f"Checkpoints({len(self)} of layers {', '.join(map(str, self._form.shapes))})"


@known_options
def read_checkpoints(
    source: Any,
    *,
    step_size: float | None = None,
    steps: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    orientation: str | None = None,
) -> tuple[Array, Checkpoints]:
    """Return the times and the weights of a training run, as `as_run` takes them.

    Parameters
    ----------
    source
        A folder, the path of a file, or a list of paths; or a nested dict of arrays (the
        parameters of jax and flax, a state dict), or a list of those, one for each time. Files are
        ``.npz``, ``.safetensors``, or what ``torch.save`` writes of a state dict (``.pt``,
        ``.pth``, ``.ckpt``), in the folder, or else in folders in it, such as ``checkpoint-500``;
        files of other kinds in a folder are left aside. A file or dict may
        hold the weights of several times under keys such as ``"step_100"``, or numbers.
    step_size
        Times are numbers of steps, times this.
    steps
        The number of the step of each file or dict, in their order, where names do not tell:
        files in a folder are in the order of the numbers in their names. These are read as 500,
        1e3, 10k, 1.5M or -2 are meant; others, such as 0.5 or 5m, are not. A list of dicts has the
        steps 0, 1, 2, ….
    names
        The names of W_1, …, W_h, with ``/`` between keys. Needed where the layers do not differ by
        numbers in their names, and shapes leave more than one order, or where there are other
        arrays.
    orientation
        ``"out_in"`` if rows of a matrix are its outputs, as in torch and here, or ``"in_out"``.
        Needed where all layers are square, or fit both ways, unless they are called ``weight``
        (as in torch) or ``kernel`` (as in flax and keras).

    Returns
    -------
    times : numpy.ndarray
        Times, ascending.
    layers : Checkpoints
        A sequence of the tuples W_1, …, W_h (each d_i × d_{i−1}). Each is read when it is asked
        for, and not kept.

    Raises
    ------
    ValueError, TypeError
        If a file cannot be read, steps repeat, or names and shapes leave open which arrays are the
        layers, or which way they lie; later, if numbers are not finite or biases not zero.

    Notes
    -----
    Nothing is unpickled: the instructions of torch's pickles are looked through for tensors, and
    any other than those that write dicts, lists, numbers and tensors are refused. Arrays under a
    first key that begins with ``optim`` or ``opt_state`` are left aside, and so are single
    numbers. Shapes of all files are compared when they are listed, from their headers.

    Examples
    --------
    >>> import numpy as np, dlnds as dl, tempfile
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in (0, 50, 100):
    ...         W1, W2 = net.unpack(net.initial(scale=0.1 + 0.001 * step, rng=0))
    ...         np.savez(f"{folder}/step_{step}.npz", W1=W1, W2=W2)
    ...     times, layers = dl.read_checkpoints(folder, step_size=0.01, orientation="out_in")
    ...     run = dl.as_run(net, times, layers, save=("singular_value",))
    >>> run.time.values.tolist(), run.singular_value.shape
    ([0.0, 0.5, 1.0], (3, 2))
    """
    size = 1.0 if step_size is None else step_size
    size = check_number("step_size", size, minimum=1e-100, maximum=1e100)  # times stay apart
    wanted = None if names is None else _check_names(names)
    if orientation is not None:
        check_choice("orientation", orientation, ORIENTATIONS)
    rows = list(_looked_through(_sources(source), wanted, orientation))
    numbers: list[Any] = [row.step for row in rows]
    if steps is not None:
        _check_order(source)
        numbers = check_array("steps", steps, ndim=1, shape=(len(rows),)).tolist()
    elif numbers == [None]:
        numbers = [0]
    places = [row.place for row in rows]
    times = size * _check_steps(numbers, places)
    order = np.argsort(times)
    return times[order], Checkpoints([places[row] for row in order], rows[0].form)


def _check_names(names: Any) -> tuple[str, ...]:
    """Return the names of layers, at least one, each once."""
    found = () if isinstance(names, str) or not np.iterable(names) else tuple(names)
    if not found or not all(isinstance(name, str) for name in found):
        raise TypeError(f"names: needs those of W_1, …, W_h, got {names!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"names: has a name twice: {', '.join(found)}")
    return found


def _check_steps(numbers: Sequence[Any], places: Sequence[_Place]) -> Array:
    """Return the steps, each of which is known and comes once."""
    seen: dict[float, str] = {}
    for number, place in zip(numbers, places, strict=True):
        if number is None:
            raise ValueError(f"source: {place.words} does not tell its step; give steps=")
        if not abs(number) <= LAST:
            raise ValueError(f"source: the step of {place.words} is no number that floats count")
        if number in seen:
            raise ValueError(
                f"source: step {number:g} repeats, in {seen[number]} and {place.words}"
            )
        seen[number] = place.words
    return np.array(numbers, float)


class _Source(NamedTuple):
    """A file or dict, and its number if its name or place tells."""

    words: str
    open: Callable[[], AbstractContextManager[Entries]]
    number: float | None


def _sources(source: Any) -> list[_Source]:
    """Return all files or dicts that a caller means."""
    if isinstance(source, str | os.PathLike):
        return _files(_paths(Path(os.fspath(source))))
    if isinstance(source, Mapping):
        return [_Source("the dict", _held(source), None)]
    items = source if isinstance(source, list | tuple) else ()
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        return _files([path for item in items for path in _paths(Path(os.fspath(item)), False)])
    if items and all(isinstance(item, Mapping | list | tuple) for item in items):
        pairs = enumerate(items)
        return [_Source(f"dict {number}", _held(item), number) for number, item in pairs]
    raise TypeError(
        "source: needs a folder, a file, a dict of arrays, or a list of files or of dicts, "
        f"got {type(source).__name__}"
    )


def _held(value: Any) -> Callable[[], AbstractContextManager[Entries]]:
    return lambda: contextlib.nullcontext(nested(value))


def _paths(path: Path, folders: bool = True) -> list[Path]:
    """Return a file, or the files of known kinds in a folder."""
    kinds = ", ".join(FORMATS)
    if folders and path.is_dir():
        inside = (path.glob(pattern) for pattern in ("*", "*/*"))
        kept = ([file for file in files if file.suffix.lower() in FORMATS] for files in inside)
        found = next(filter(None, kept), [])
        if not found:
            raise ValueError(f"source: the folder {path} has no file of the kinds {kinds}")
        return sorted(found, key=_rank)
    if not path.is_file():
        raise ValueError(f"source: there is no file {path}")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"source: {path} is none of the kinds {kinds}; save it as .npz")
    return [path]


def _rank(file: Path) -> tuple[list[float], Path]:
    """Return what files are sorted by: the numbers in their names, and the names."""
    parts = (file.parent.name, file.stem)
    return [number.value for part in parts for number in _numbers(part)], file


def _check_order(source: Any) -> None:
    """Refuse a folder whose files are in no clear order, as 500 and 1m, which steps follow."""
    path = Path(os.fspath(source)) if isinstance(source, str | os.PathLike) else None
    if path is None or not path.is_dir():
        return
    rows = [_numbers(file.stem) for file in _paths(path)]
    units = {number.doubt for row in rows for number in row if len(number.word) == 1}
    if units and len({tuple(number.word for number in row) for row in rows}) > 1:
        raise ValueError(
            f"source: the order of the files in {path} is not clear, with numbers such as "
            f"{min(units)}; give a list of files"
        )


def _files(paths: Sequence[Path]) -> list[_Source]:
    numbers = _steps_in([path.stem for path in paths])
    if None in numbers and len({path.name for path in paths}) == 1:  # each in a folder of its own
        numbers = _steps_in([path.parent.name for path in paths])
    openers = [functools.partial(opened, path) for path in paths]
    parts = zip(map(str, paths), openers, numbers, strict=True)
    return [_Source(*part) for part in parts]


class _Number(NamedTuple):
    """A number in a name: what stands before it and behind, its value, or its text if in doubt."""

    before: str
    value: float
    word: str
    doubt: str

    @property
    def step(self) -> float | None:
        """The number, unless it is in doubt."""
        return None if self.doubt else self.value


def _number(name: str, found: re.Match[str]) -> _Number:
    """Return a number such as 500, -2, 1e3, 1.5k or 2Msteps; in doubt are 0.5, 1.2.3 and 5m."""
    power, word = found["power"] or "", found["word"]
    unit = re.fullmatch(rf"([kKM])((?i:{_ANY_WORD})?)", word)
    letter, word = unit.groups() if unit else ("", word)
    whole, *decimals = found["digits"].split(".")
    value = float(".".join((whole, *decimals[:1])) + power) * _THOUSANDS[letter]
    scaled = bool(power) != bool(letter)
    clear = len(word) != 1 and (scaled or not (power or decimals))
    clear = clear and len(decimals) <= 1 and value.is_integer()
    sign = -1.0 if found["sign"] else 1.0
    return _Number(name[: found.start()], sign * value, word, "" if clear else found.group())


def _numbers(name: str) -> list[_Number]:
    return [_number(name, found) for found in _NUMBER.finditer(name)]


def _steps_in(names: Sequence[str]) -> list[float | None]:
    """Return the steps that names tell: behind a word for it, or their only number that varies."""
    rows = [_numbers(name) for name in names]
    if len({len(row) for row in rows}) > 1 or not rows[0]:  # some have none
        return [row[0].step if len(row) == 1 else None for row in rows]
    for word in _WORDS:
        behind = [[n for n in row if _is_behind(word, n)] for row in rows]
        if all(len(found) == 1 for found in behind):
            return _told([found[0] for found in behind])
    columns = list(zip(*rows, strict=True))
    varying = [c for c in columns if len({n[1:] for n in c}) > 1 or len(columns) == 1]
    return _told(varying[0] if len(varying) == 1 else ()) or [None] * len(names)


def _told(numbers: Sequence[_Number]) -> list[float | None]:
    """Return the steps that numbers are, if all count the same."""
    same = len({number.word.lower() for number in numbers}) == 1
    return [number.step if same else None for number in numbers]


def _is_behind(word: str, number: _Number) -> bool:
    """Tell whether a number stands behind a word, with no letters or digits between."""
    return re.search(rf"(?i)(?:{word})[^a-z0-9]*$", number.before) is not None


class _Row(NamedTuple):
    """The weights of one time: where they are, the step, and which arrays."""

    place: _Place
    step: float | None
    form: Layout


def _looked_through(
    sources: Sequence[_Source], names: Sequence[str] | None, orientation: str | None
) -> Iterator[_Row]:
    """Give the weights in all sources, which have the same names and shapes."""
    first: _Row | None = None
    for source in sources:
        with named("source", source.words), source.open() as entries:
            for key, number in _steps_of(entries, source.number):
                words = source.words if key is None else f"{key!r} in {source.words}"
                place = _Place(words, source.open, key)
                form = layout(place.chosen(entries), names, orientation)
                first = first or _Row(place, number, form)
                if form != first.form:
                    raise ValueError(_difference(form, first.form, first.place.words))
                yield _Row(place, number, first.form)


def _steps_of(entries: Entries, number: float | None) -> list[tuple[str | None, float | None]]:
    """Return the first keys of all times with their steps, or none, and the step of all."""
    firsts = dict.fromkeys(key[0] for key in entries if key)
    found = {first: _step_of(first) for first in firsts}
    if not firsts or None in found.values():
        return [(None, number)]
    return list(found.items())


def _step_of(first: str) -> float | None:
    """Return the step that a key is: a word for it and a number, NaN if that is in doubt."""
    if first.startswith(TIME):
        return float(first.removeprefix(TIME))
    found = re.match(rf"(?i)(?:{_ANY_WORD})[^a-z0-9]*(?=\d)", first)
    number = found and _NUMBER.search(first)
    if not number or number.end() < len(first):
        return None
    step = _number(first, number).step
    return math.nan if step is None else step


def _difference(form: Layout, first: Layout, words: str) -> str:
    """Return what is unlike the first weights."""
    for key in first.layers:
        if key not in form.layers:
            return f"has no layer {text(key)!r}, as {words} has"
    for key in form.layers:
        if key not in first.layers:
            return f"has a layer {text(key)!r}, which {words} has not"
    shapes = dict(zip(first.layers, first.shapes, strict=True))
    for key, shape in zip(form.layers, form.shapes, strict=True):
        if shape != shapes[key]:
            return f"has {text(key)!r} of shape {shape}, after {shapes[key]} in {words}"
    return f"has other biases, or layers in another order, than {words}"
