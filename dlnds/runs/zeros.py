"""Zeros of a function along the steps of a run, each found once.

A piece of a step is sampled at nine Chebyshev points. The Bernstein coefficients of the polynomial
through the samples enclose it: where all have one sign there is no zero, where they rise or fall
throughout there is at most one. Where that does not decide, with what the last Chebyshev
coefficients leave open, the piece is cut in two; and where the polynomial fails at eight places
between the samples. So a function is sampled as closely as it varies, and zeros are told apart as
long as its rounding leaves a sign between them. What is nowhere but between two of these seventeen
places, at most a tenth of a step apart, cannot be seen.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from dlnds.arrays import Array

EPS = float(np.finfo(float).eps)
_DEGREE = 8
#: Places in a piece at which it is sampled, those between them at which the polynomial is looked
#: at, and all between the ends.
_PLACES = 0.5 - 0.5 * np.cos(np.pi * np.arange(_DEGREE + 1) / _DEGREE)
_BETWEEN = 0.5 - 0.5 * np.cos(np.pi * (np.arange(_DEGREE) + 0.5) / _DEGREE)
INNER = np.append(_PLACES[1:-1], _BETWEEN)
#: Where a piece is cut: at no round number, where zeros are wont to lie.
_CUT = 0.4873
#: A kink, a jump or noise is followed to pieces this small; what is smooth on to smaller ones.
_ROUGH, _SMALLEST = 2.0**-20, 2.0**-44
#: Samples in a step after which no piece is cut any more.
_MOST = 20_000
#: Rounding of samples and coefficients, in terms of the largest sample.
_ROUNDING = 1e-12
#: Rounding of a function that is a difference of terms, in terms of its largest value in the step.
_DUST = 1e-14
#: How many times its rounding a place may be off: the state's is about that of time.
_GRAINS = 32.0
#: The slope of an error, in terms of the error, as differences of coefficients are slopes.
_STEEP = 16.0
#: How many times the relative accuracy of a run its states may be off where a zero is touched, and
#: how many times for sure.
_OFF, _SURELY_OFF = 30.0, 3.0
#: What the search for a least value may leave of zero, in terms of the values around it.
_FOUND = 1e-8
#: Growth towards a change of sign, over the smallest pieces, of which that is a pole.
_POLE = 10.0
#: Range of samples that are nothing but noise at most, in terms of the largest in the step.
_NOISE = 1e-4


def _bernstein() -> Array:
    """Return the matrix from samples to Bernstein coefficients."""
    i, x = np.arange(_DEGREE + 1), _PLACES[:, None]
    binomials = np.array([math.comb(_DEGREE, k) for k in i], float)
    return np.array(np.linalg.inv(binomials * x**i * (1.0 - x) ** (_DEGREE - i)))


_CHEBYSHEV = np.linalg.inv(np.polynomial.chebyshev.chebvander(2.0 * _PLACES - 1.0, _DEGREE))
#: Chebyshev coefficients that say how far the polynomial may be off; of a corner, too.
_TAIL = 4
#: The matrix from samples to Bernstein coefficients and the last Chebyshev coefficients.
_FORMS = np.concatenate([_bernstein(), _CHEBYSHEV[-_TAIL:]])
#: The matrix from samples to the values of the polynomial between them.
_VALUES = np.polynomial.chebyshev.chebvander(2.0 * _BETWEEN - 1.0, _DEGREE) @ _CHEBYSHEV
#: How shortly before it rests at zero a function is as large as it was, up to a factor, that jumps.
_SHORTLY, _FLAT = 2.0**-30, 8.0
#: How far from zeros samples between them are taken, in terms of their distance.
_WITHIN = 0.02
#: The polynomial is wrong if it is off by so many times what its last coefficients say, or by this
#: part of the range of the samples. A corner is looked at down to pieces this small.
_WRONG, _COARSE, _CLOSE = 8.0, 1e-2, 2.0**-6


class Zero(NamedTuple):
    """A zero: after which part of a step, and where the function goes: 1 up, −1 down, 0 back."""

    part: float
    direction: int


class Step(NamedTuple):
    """A step: values of the function at parts of it, and the largest of them that is known.

    ``blur`` gives what an error, relative to the state, may change in the value at a part; ``rtol``
    is the accuracy of the run, ``grain`` is the rounding of time, in terms of the step.
    """

    value: Callable[[Array], Array]
    blur: Callable[[float, float], float]
    grain: float
    rtol: float = 0.0
    size: float = 0.0


class Piece(NamedTuple):
    """A piece of a step, its samples, and what these say.

    ``zeros`` is how many there are between its ends, −1 if that is not decided; ``first`` and
    ``last`` are the signs next to its ends. ``low`` is a bound of the least modulus; ``falls`` and
    ``rises`` tell whether the modulus falls from the first end on, and rises towards the last;
    ``rough`` is whether the samples are those of no smooth function, ``noisy`` whether that is not
    from the rounding of places; ``hidden`` is whether there is something between the samples.
    """

    parts: Array
    values: Array
    zeros: int = -1
    first: int = 0
    last: int = 0
    low: float = 0.0
    falls: bool = False
    rises: bool = False
    rough: bool = True
    noisy: bool = False
    hidden: bool = False


def _piece(parts: Array, values: Array, grain: float, between: Array | None = None) -> Piece:
    """Return a piece with what its samples say; places are rounded by the ``grain``.

    There may be values ``between`` them, at which the polynomial may be wrong.
    """
    samples = values.tolist()
    low, high = min(samples), max(samples)
    size = max(high, -low)
    form: list[float] = (_FORMS @ values).tolist()
    if size == 0.0 or not math.isfinite(form[_DEGREE // 2]):
        return Piece(parts, values)
    tail = sum(abs(form.pop()) for _ in range(_TAIL))
    form[0], form[-1] = samples[0], samples[-1]
    grain /= float(parts[-1] - parts[0])
    noise = 4.0 * tail + _ROUNDING * size + _GRAINS * grain * (high - low)
    if between is not None:
        known = noise - 4.0 * tail + min(_WRONG * tail, _COARSE * (high - low))
        if not np.abs(_VALUES @ values - between).max() <= known:
            return Piece(parts, values, hidden=True)
    signs = [_sign(b) if abs(b) > noise else 0 for b in form]
    signs[0], signs[-1] = first, last = _sign(form[0]), _sign(form[-1])
    return Piece(
        *(parts, values, *_decided(signs, form, noise)),
        low=min(map(abs, form)),
        falls=first * (form[1] - form[0]) < 0.0,
        rises=last * (form[-1] - form[-2]) > 0.0,
        rough=noise > 0.25 * (high - low),
        noisy=tail > 0.1 * (high - low) and grain < 1e-3,
    )


def _decided(signs: list[int], form: list[float], noise: float) -> tuple[int, int, int]:
    """Return the number of zeros between the ends, −1 if that is open, and the signs there.

    A zero at an end is left out with its coefficient: the others are those of the rest. A zero
    between such an end and the next sample would not be seen from the samples. Where a value is in
    the noise, it takes a slope that is not.
    """
    inner = signs[signs[0] == 0 : len(signs) - (signs[-1] == 0)]
    first, last = inner[0], inner[-1]
    steep = [abs(b - a) > _STEEP * noise for a, b in itertools.pairwise(form)]
    if first and inner.count(first) == len(inner):
        sure = [abs(form[k]) > noise or steep[k] for k in (0, -1)]
        return (0, first, first) if all(sure) else (-1, 0, 0)
    slopes = [_sign(b - a) for a, b in itertools.pairwise(form)]
    if all(steep) and abs(sum(slopes)) == len(slopes):
        first, last = signs[0] or slopes[0], signs[-1] or -slopes[0]
        return int(first != last), first, last
    unsure, turn = inner.count(0), inner.count(first) - 1
    once = inner in (sorted(inner), sorted(inner, reverse=True)) and unsure <= 1
    if once and signs[0] * signs[-1] == -1 and all(steep[turn : turn + 1 + unsure]):
        return 1, first, last
    return -1, 0, 0


def _pieces(step: Step, samples: Array, between: Array) -> Iterator[Piece]:
    """Give the pieces of a step from left to right, cut until each is decided or too small."""
    todo, count = [_piece(_PLACES, samples, step.grain, between)], 0
    while todo:
        piece = todo.pop()
        left, right = piece.parts[0], piece.parts[-1]
        least = _ROUGH if piece.rough else _SMALLEST
        plain = not piece.hidden and not piece.values.any()
        over = plain or not np.isfinite(piece.values).all()
        if piece.zeros >= 0 or over or right - left < least or count > _MOST:
            yield piece
            continue
        halves = _halves(step, piece)
        count += sum(values.size for _, values, _ in halves)
        todo += [_piece(parts, values, step.grain, more) for parts, values, more in halves[::-1]]


def _halves(step: Step, piece: Piece) -> list[tuple[Array, Array, Array | None]]:
    """Return places and samples of both parts of a piece, and values between if some were wrong."""
    left, right, n = piece.parts[0], piece.parts[-1], _DEGREE
    middle = left + _CUT * (right - left)
    ends = (left, middle), (middle, right)
    parts = np.stack([low + (high - low) * _PLACES for low, high in ends])
    parts[0, -1], parts[1, -1] = middle, right
    places = [parts[0, 1:], parts[1, 1:-1]]
    looked_at = piece.hidden and right - left > _CLOSE
    if looked_at:
        places += [low + (high - low) * _BETWEEN for low, high in ends]
    inside = step.value(np.concatenate(places))
    values = np.concatenate([piece.values[:1], inside[: 2 * n - 1], piece.values[-1:]])
    more = inside[2 * n - 1 :].reshape(2, n) if looked_at else (None, None)
    return [(parts[0], values[: n + 1], more[0]), (parts[1], values[n:], more[1])]


def _without_noise(pieces: list[Piece], step: Step) -> list[Piece]:
    """Return pieces of which those next to a noisy one are open if rounding may be all of them.

    A function that is a difference of large terms looks decided here and there where it is noise.
    """
    if not any(piece.noisy and piece.zeros < 0 for piece in pieces):
        return pieces
    small = [bool(np.abs(piece.values).max() <= _DUST * step.size) for piece in pieces]
    for order in (range(len(pieces)), range(len(pieces) - 1, -1, -1)):
        spreads = False
        for k in order:
            spreads = small[k] and (spreads or (pieces[k].noisy and pieces[k].zeros < 0))
            if spreads:
                pieces[k] = pieces[k]._replace(zeros=-1)
    return pieces


class Zeros:
    """The zeros of a function along steps that follow each other.

    Between definite signs lie stretches in which it is zero as far as can be told. Where it goes on
    with the other sign there is a zero, where it turns back it is touched; one in which it rests is
    a zero at its beginning. Zeros between which it is nothing but rounding, or what the error of
    the run makes of it, are one.
    """

    def __init__(self, value: float) -> None:
        self.value = value
        self._side = _sign(value)
        self._near: list[Piece] = []  # what there is of a stretch in this step
        # Whether the stretch that the last step ended in is zero, and whether it is counted.
        self._touched = self._counted = self._rests = False
        #: The sample before the end of the last piece, if the modulus falls towards that.
        self._coming: tuple[float, float] | None = None
        self._step: Step | None = None  # the last one
        self._clear = True  # whether the function has been away from zero since the last one
        self._largest = 0.0  # modulus in all steps
        #: Steps in which the function varies too fast to be followed.
        self.unresolved = 0

    def along(self, step: Step, inside: Array, now: float) -> list[Zero]:
        """Return the zeros in a step, from the values at `INNER` and that at its end."""
        inside, between = np.split(inside, [_DEGREE - 1])
        samples = np.concatenate([[self.value], inside, [now]])
        self._step = step = step._replace(size=float(np.abs(samples).max()))
        self._largest = max(self._largest, step.size)
        found: list[Zero] = []
        open_width = 0.0
        for piece in _without_noise(list(_pieces(step, samples, between)), step):
            if piece.zeros < 0:
                self._near.append(piece)
                open_width += float(np.ptp(piece.parts)) if piece.values.any() else 0.0
                continue
            found += self._arrive(step, piece.parts[0], piece.values[0], piece.first)
            found += self._pass(step, piece)
        self.unresolved += open_width > 0.1
        found += self._leave(step, now)
        self.value = now
        if self._coming is not None:
            self._coming = 0.0, now
        return self._apart(step, found)

    def _apart(self, step: Step, found: list[Zero]) -> list[Zero]:
        """Return the zeros of a step with those made one that only rounding or errors part."""
        kept: list[Zero] = []
        part = 0.0
        for zero in found:
            self._clear = self._clear or _parts(step, part, zero.part)
            if self._clear:
                kept.append(zero)
            elif kept:
                kept[-1] = _joined(kept[-1], zero)
            self._clear, part = False, zero.part
        self._clear = self._clear or _parts(step, part, 1.0)
        return kept

    def _arrive(self, step: Step, part: float, value: float, sign: int) -> list[Zero]:
        """Return the zero in the stretch before a definite sign."""
        near, side, self._near, self._side = self._near, self._side, [], sign
        self._coming = None if near else self._coming
        touched, counted, rests = self._touched, self._counted, self._rests
        self._touched = self._counted = self._rests = False
        if rests:
            return []
        if side == 0:
            return [Zero(_last_zero(near, part, step), sign)]
        if side != sign:
            return _crossing(near, part, value, side, step)
        if counted:
            return []
        if touched:
            return [Zero(0.0, 0)]
        return [Zero(float(part), 0)] if value == 0.0 else _touch(near, step)

    def _pass(self, step: Step, piece: Piece) -> list[Zero]:
        """Return what happens in a piece of which the zeros are counted."""
        parts, values, found = piece.parts, piece.values, []
        if self._coming is not None and not piece.falls and values[0]:
            part, value = self._coming
            around = np.array([part, *parts[:2]]), np.array([value, *values[:2]])
            found += _dip(*around, piece.first, step)
        self._coming = None if piece.rises else (float(parts[-2]), float(values[-2]))
        if piece.zeros == 1:
            found.append(Zero(_root(parts, values, piece.first, step), piece.last))
        elif piece.falls and piece.rises and values[0] and values[-1]:
            k = int(np.clip(np.argmin(np.abs(values)), 1, _DEGREE - 1))
            if piece.low <= max(
                _FOUND * np.ptp(values), step.blur(float(parts[k]), _OFF * step.rtol)
            ):
                found += _dip(parts[k - 1 : k + 2], values[k - 1 : k + 2], piece.first, step)
        self._side = piece.last
        return found

    def _leave(self, step: Step, now: float) -> list[Zero]:
        """Return what is known at the end of a step of the stretch that reaches up to it."""
        if not self._near and now != 0.0:
            return []
        near, side, sign = self._near, self._side, _sign(now)
        self._near, self._coming = [], None
        if self._rests:
            return []
        if side == 0:
            self._side = sign
            return [Zero(_last_zero(near, 1.0, step), sign)] if sign else []
        if sign == -side:
            self._side, self._counted = sign, True
            return _crossing(near, 1.0, now, side, step)
        if any(not piece.values.any() for piece in near):
            first = _first_zero(near, step)
            self._rests = not _is_rounded(first, step, self._largest)
            self._touched &= self._rests
            return [Zero(first, -side)] if self._rests and not self._counted else []
        self._touched = self._touched or now == 0.0 or bool(_touch(near, step))
        return []

    def end(self) -> list[Zero]:
        """Return the zero at the end of the last step, where no more will come.

        A run may end short of it by no more than the rounding of its states.
        """
        step, rounded = self._step, False
        if step is not None and self.value and self._side and self._clear:
            rounded = abs(self.value) <= step.blur(1.0, _GRAINS * EPS)
        if rounded:
            return [Zero(1.0, -self._side)]
        if not self._touched or self._counted:
            return []
        return [Zero(1.0, 0 if self.value else -self._side)]


def _parts(step: Step, left: float, right: float) -> bool:
    """Tell whether the function is anything but its own noise, or errors, between two places."""
    if not left < right:
        return False
    places = np.concatenate([_PLACES, _BETWEEN])
    parts = left + (right - left) * (_WITHIN + (1.0 - 2.0 * _WITHIN) * places)
    values = step.value(parts)
    peak = float(np.abs(values).max())
    samples, between = np.split(values, [_DEGREE + 1])
    wrong = float(np.abs(_VALUES @ samples - between).max())
    if peak <= _NOISE * step.size and wrong > 0.25 * np.ptp(values):
        return False
    around = left, float(parts[np.argmax(np.abs(values))]), right
    return peak > max(step.blur(part, _SURELY_OFF * step.rtol) for part in around)


def _joined(first: Zero, second: Zero) -> Zero:
    """Return two zeros as one: where it crosses for the first time, or back between both."""
    direction = _sign(first.direction + second.direction)
    return Zero(first.part if direction else 0.5 * (first.part + second.part), direction)


def _sign(value: float) -> int:
    """Return the sign of a number, 0 if it has none."""
    return int(value > 0.0) - int(value < 0.0)


def _samples(near: list[Piece]) -> tuple[Array, Array]:
    """Return the samples in some pieces that are numbers, in their order."""
    parts = np.concatenate([np.zeros(0), *(piece.parts for piece in near)])
    values = np.concatenate([np.zeros(0), *(piece.values for piece in near)])
    numbers = np.isfinite(values)
    return parts[numbers], values[numbers]


def _last_zero(near: list[Piece], part: float, step: Step) -> float:
    """Return where a stretch that begins with zero, and ends at a part, is zero at last.

    That is where it begins if it is still rounding twice as far: it leaves with slope zero.
    """
    parts, values = _samples(near)
    zero = np.flatnonzero(values == 0.0)
    if not zero.size:
        return float(part)
    k, first = int(zero[-1]), float(parts[0])
    edge = float(parts[k] if k + 1 == len(parts) else _edge(parts[k], parts[k + 1], step))
    beyond = float(step.value(np.array([min(1.0, 2.0 * edge - first)]))[0])
    left = beyond and abs(beyond) <= step.blur(first, _GRAINS * EPS)
    return first if left else edge


def _first_zero(near: list[Piece], step: Step) -> float:
    """Return where a stretch, in a part of which it rests at zero, is zero first."""
    parts, values = _samples(near)
    k = int(np.argmax(values == 0.0))
    return float(parts[k] if k == 0 else _edge(parts[k], parts[k - 1], step))


def _is_rounded(first: float, step: Step, largest: float) -> bool:
    """Tell whether a function comes to rest at zero by rounding alone.

    It jumps there from what is nothing but the rounding of its largest value, and has been that for
    a while.
    """
    just_before = max(_SHORTLY, _GRAINS * step.grain)
    near, far = np.abs(step.value(first - np.array([just_before, _CLOSE])))
    return bool(far <= min(_FLAT * near, _ROUNDING * largest))


def _edge(zero: float, other: float, step: Step) -> float:
    """Return the last place with the value zero on the way from one to another place."""
    for _ in range(50):
        middle = zero + 0.5 * (other - zero)
        if step.value(np.array([middle]))[0] == 0.0:
            zero = middle
        else:
            other = middle
    return zero


def _crossing(near: list[Piece], part: float, value: float, side: int, step: Step) -> list[Zero]:
    """Return the zero in a stretch that ends with the other sign than it began with.

    There is none where the modulus grows from both ends without bound: at a pole.
    """
    parts, values = _samples(near)
    parts, values = np.append(parts, part), np.append(values, value)
    root = _root(parts, values, side, step)
    if parts[0] < root < parts[-1]:
        peak = abs(float(step.value(np.array([root]))[0]))
        if peak > _POLE * max(abs(values[0]), abs(values[-1])):
            return []
    return [Zero(root, -side)]


def _root(parts: Array, values: Array, side: int, step: Step) -> float:
    """Return the first zero by samples that begin on a side and leave it."""
    k = int(np.argmax(np.sign(values) != side))
    if k == 0 or values[k] == 0.0:
        return float(parts[k])
    from scipy.optimize import brentq  # here, since most runs locate nothing

    known = {float(parts[j]): float(values[j]) for j in (k - 1, k)}

    def value(part: float) -> float:
        return known[part] if part in known else float(step.value(np.array([part]))[0])

    return float(brentq(value, *known, xtol=1e-15, rtol=1e-15))


def _touch(near: list[Piece], step: Step) -> list[Zero]:
    """Return the place in a stretch where the function is zero without a change of sign."""
    parts, values = _samples(near)
    if not values.size:
        return []
    noise = max(float(np.ptp(piece.values)) for piece in near)
    k = int(np.argmin(np.abs(values)))
    low, high = max(k - 1, 0), min(k + 1, len(parts) - 1)
    part, size = _lowest(abs, parts[low], parts[k], parts[high], step)
    limit = noise if noise <= _NOISE * step.size else 0.0
    return [Zero(part, 0)] if size <= limit or size <= step.blur(part, _OFF * step.rtol) else []


def _dip(parts: Array, values: Array, side: int, step: Step) -> list[Zero]:
    """Return the zeros near the middle one of three samples, from where the modulus rises.

    There is one that is touched, none, or, where a corner hides them, there are two.
    """
    low, middle, high = map(float, parts)
    part, size = _lowest(lambda value: side * value, low, middle, high, step)
    if size > 0.0:
        limit = _FOUND * float(np.abs(values).max())
        return [Zero(part, 0)] if size <= limit or size <= step.blur(part, _OFF * step.rtol) else []
    values = np.array([values[0], side * size, values[-1]])
    parts = np.array([parts[0], part, parts[-1]])
    if size == 0.0:
        return [Zero(part, 0)]
    first, second = (
        _root(parts[:2], values[:2], side, step),
        _root(parts[1:], values[1:], -side, step),
    )
    return [Zero(first, -side), Zero(second, side)]


def _lowest(
    size: Callable[[float], float], low: float, middle: float, high: float, step: Step
) -> tuple[float, float]:
    """Return the place between two, with another between them, of the least size, and this."""
    from scipy.optimize import minimize_scalar

    def at(way: float) -> float:  # from the middle, so that it is found to its own rounding
        return size(float(step.value(np.array([middle + way]))[0]))

    ways = [(at(0.0), 0.0)]
    if ways[0][0] and high > low:
        options = {"xatol": 1e-9 * (high - low)}
        ends = (low - middle, high - middle)
        found = minimize_scalar(at, bounds=ends, method="bounded", options=options)
        ways.append((float(found.fun), float(found.x)))
    least, way = min(ways)
    return float(middle + way), least
