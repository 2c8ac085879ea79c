"""Which arrays of a network are its linear layers, in which order, and how they lie."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dlnds.arrays import Array
from dlnds.errors import check_array
from dlnds.runs.formats import Entries, Key

#: Rows of a layer are its outputs (torch), or its inputs (flax, keras).
ORIENTATIONS = ("out_in", "in_out")
_BY_NAME = {"weight": "out_in", "kernel": "in_out"}
_BIASES = ("b", "bias", "biases", "offset")
_OPTIMIZER = ("optim", "opt_state")
#: Orders of layers without numbers that are looked through, all those of six.
_MOST_ORDERS = 720
#: What to do about biases.
REMEDY = "networks here have no biases: train without, or add an input feature that is constant"


class Layout(NamedTuple):
    """Where W_1, …, W_h are, and the biases, which have to be zero."""

    layers: tuple[Key, ...]
    shapes: tuple[tuple[int, ...], ...]
    orientation: str
    biases: tuple[Key, ...]
    bias_shapes: tuple[tuple[int, ...], ...]

    @property
    def told(self) -> str | None:
        """The orientation that names tell."""
        return _told(self.layers)

    @property
    def turned(self) -> bool:
        """Whether rows are inputs although names do not tell so."""
        return self.orientation == "in_out" and self.told is None

    def read(self, entries: Entries) -> tuple[Array, ...]:
        """Return W_1, …, W_h, each d_i × d_{i−1}."""
        for key, shape in zip(self.biases, self.bias_shapes, strict=True):
            if _array(entries, key, shape, "").any():
                raise ValueError(f"{text(key)!r} is not zero; {REMEDY}")
        parts = zip(self.layers, self.shapes, itertools.count(1))
        layers = [_array(entries, key, shape, f"layer {i}, ") for key, shape, i in parts]
        return tuple(w.T if self.orientation == "in_out" else w for w in layers)


def _array(entries: Entries, key: Key, shape: tuple[int, ...], words: str) -> Array:
    """Return the numbers of an array that should still have its shape."""
    name = f"{words}{text(key)!r}"
    if key not in entries:
        raise ValueError(f"{name} is there no more")
    return check_array(name, entries[key].read(), ndim=len(shape), shape=shape)


@contextlib.contextmanager
def named(argument: str, where: str) -> Iterator[None]:
    """Put the name of an argument, and which part of it, before what is wrong with that."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"{argument}: {where}: {error}") from error


def text(key: Key) -> str:
    """Return keys as the name that a user knows."""
    return "/".join(key)


def layout(
    entries: Entries,
    names: Sequence[str] | None = None,
    orientation: str | None = None,
    *,
    otherwise: str | None = None,
) -> Layout:
    """Return where the linear layers are among arrays of one time.

    ``otherwise`` is the orientation of those whose names and shapes leave that open.

    Raises
    ------
    ValueError
        Where names and shapes do not tell.
    """
    kept = {key: entry.shape for key, entry in entries.items() if not _is_optimizers(key)}
    shapes = {key: shape for key, shape in kept.items() if shape}
    biases = [key for key, shape in shapes.items() if _is_bias(key, shape)]
    if names is None:
        layers = [key for key in shapes if key not in biases]
        _check_linear(shapes, layers)
        orders = list(itertools.islice(_orders(layers), _MOST_ORDERS + 1))
    else:
        orders = [_named(shapes, names)]
        owners = [_owner(key) for key in orders[0]]
        biases = [key for key in biases if _owner(key) in owners and key not in orders[0]]
    order, chosen = _decided(orders, shapes, orientation, otherwise)
    sizes = [tuple(shapes[key] for key in keys) for keys in (order, biases)]
    return Layout(tuple(order), sizes[0], chosen, tuple(biases), sizes[1])


def _parts(key: Key) -> list[str]:
    return [part.partition(":")[0] for name in key for part in name.split(".")]


def _is_optimizers(key: Key) -> bool:
    return key[0].lower().startswith(_OPTIMIZER) if key else False


def _last(key: Key) -> str:
    """Return the last word of a name, without numbers."""
    return re.sub(r"[\d_\s]+", "", _parts(key)[-1]).lower() if key else ""


def _is_bias(key: Key, shape: tuple[int, ...]) -> bool:
    """Tell whether an array is called a bias, or is a vector that has a number only."""
    word = _last(key)
    return (word in _BIASES and 1 in (len(shape), *shape)) or (not word and len(shape) == 1)


def _owner(key: Key) -> list[str]:
    return _parts(key)[:-1]


def _check_linear(shapes: Mapping[Key, tuple[int, ...]], layers: Sequence[Key]) -> None:
    """Refuse arrays that belong to no linear layer."""
    if not layers:
        raise ValueError("holds no matrix of weights: arrays, not lists of numbers")
    for key in layers:
        if len(shapes[key]) != 2:
            raise ValueError(
                f"holds {text(key)!r} of shape {shapes[key]}, which is no linear layer; "
                "give names= of W_1, …, W_h to read these alone"
            )


def _named(shapes: Mapping[Key, tuple[int, ...]], names: Sequence[str]) -> list[Key]:
    """Return the keys of the layers that a caller names."""
    known = {text(key): key for key in shapes}
    for name in names:
        if name not in known:
            raise ValueError(f"has no layer {name!r}; it holds {', '.join(known)}")
    chosen = [known[name] for name in names]
    _check_linear(shapes, chosen)
    return chosen


def _orders(layers: Iterable[Key]) -> Iterator[list[Key]]:
    """Give all orders in which the names that differ by numbers alone ascend in these.

    ``dense``, ``dense_1``, ``dense_2`` count from the one without a number.
    """
    groups: dict[str, dict[tuple[int, ...], Key]] = {}
    for key in layers:
        counted = re.sub(r"_\d+(?=[/.]|$)", "", text(key))
        group = groups.setdefault(re.sub(r"\d+", "#", counted), {})
        if group.setdefault(_numbers(key), key) != key:
            groups[text(key)] = {(): key}  # with the numbers of another, elsewhere in the name
    chains = [[group[number] for number in sorted(group)] for group in groups.values()]

    def merged(rest: list[list[Key]]) -> Iterator[list[Key]]:
        if not any(rest):
            yield []
        for place, chain in enumerate(rest):
            if chain:
                shorter = [*rest[:place], chain[1:], *rest[place + 1 :]]
                yield from ([chain[0], *order] for order in merged(shorter))

    return merged(chains)


def _numbers(key: Key) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text(key)))


def _decided(
    orders: Sequence[Sequence[Key]],
    shapes: Mapping[Key, tuple[int, ...]],
    orientation: str | None,
    otherwise: str | None,
) -> tuple[Sequence[Key], str]:
    """Return the only order and orientation in which each layer fits the one before."""
    if len(orders) > _MOST_ORDERS:
        raise ValueError("has too many layers without numbers; give names= of W_1, …, W_h")
    fits: list[tuple[Sequence[Key], str]] = []
    for words in _orientations(orders[0], orientation):
        pairs = itertools.product(orders, words)
        fits = [(keys, w) for keys, w in pairs if _is_chain([shapes[key] for key in keys], w)]
        if fits:
            break
    if len(fits) == 1:
        return fits[0]
    found = ", ".join(f"{text(key)} {shapes[key]}" for key in orders[0])
    if not fits:
        raise ValueError(
            f"holds matrices that do not follow one another: {found}; give names= of W_1, …, W_h "
            "if others are among them"
        )
    if all(keys == fits[0][0] for keys, _ in fits):
        if {shapes[key] for key in orders[0]} == {(1, 1)}:
            otherwise = otherwise or ORIENTATIONS[0]  # numbers, which do not lie
        if otherwise is not None:
            return fits[0][0], otherwise
        raise ValueError(
            "does not tell by names or shapes whether rows are outputs or inputs "
            f"({found}); give orientation='out_in' or 'in_out', which loss= of as_run checks"
        )
    raise ValueError(
        f"does not tell the order of its layers ({found}); give names= of W_1, …, W_h, or "
        "orientation= where that is enough"
    )


def _orientations(keys: Sequence[Key], orientation: str | None) -> list[tuple[str, ...]]:
    """Return orientations to try together, those that names tell before others."""
    if orientation is not None:
        return [(orientation,)]
    word = _told(keys)
    if word is None:
        return [ORIENTATIONS]
    return [(word,), tuple(other for other in ORIENTATIONS if other != word)]


def _told(keys: Sequence[Key]) -> str | None:
    """Return the orientation that names tell."""
    told = {_BY_NAME.get(_parts(key)[-1]) for key in keys}
    return told.pop() if len(told) == 1 else None


def _is_chain(shapes: Sequence[tuple[int, ...]], orientation: str) -> bool:
    """Tell whether the outputs of each layer are as many as the inputs of the next."""
    out, into = (0, 1) if orientation == "out_in" else (1, 0)
    return all(before[out] == after[into] for before, after in itertools.pairwise(shapes))
