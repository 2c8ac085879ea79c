"""Laws of one mode in time: how it grows, turns, and leaves a critical point, in closed form."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from scipy.special import digamma, expit, hyp2f1

from dlnds.arrays import Array

#: Logarithm of the distance from p = σ below which the primitives are expanded there.
_NEAR = 2.0
#: In units of the growth of a mode: all modes have long arrived.
_LATEST = 1e300
#: Beyond these values of ln tan φ the ends of a swap are what they tend to, up to rounding.
_REACH = 20.0
#: Gauss points and weights on [0, 1].
_POINTS, _WEIGHTS = (0.5 * a for a in np.polynomial.legendre.leggauss(14))
_POINTS = _POINTS + 0.5


def time_on_ray(order: int, value: float, size: Array | float) -> Any:
    """Return the time T_δ in which ṙ = k N r^{k−1} leaves δ = ``size``, for k = ``order``.

    T_δ = ln(1/δ)/(2N) for k = 2 and δ^{−(k−2)}/(k(k−2)N) for k > 2.
    """
    if order == 2:
        return -np.log(size) / (2.0 * value)
    return np.asarray(size) ** (2.0 - order) / (order * (order - 2.0) * value)


def mode_strength(start: float, sigma: float, depth: int, times: Array) -> Any:
    """Return p(t) ≥ 0 with ṗ = h p^{2−2/h} (σ − p), p(0) = ``start``, for σ of any sign.

    A negative σ is a mode whose layers multiply to −p: it decays.
    """
    a = 2.0 - 2.0 / depth
    if start == 0.0 or start == sigma:
        return np.full_like(times, start)
    if sigma == 0.0:
        with np.errstate(over="ignore"):
            return start * (1.0 + depth * a * start**a * times) ** (-1.0 / a)
    size, u = abs(sigma), start / abs(sigma)
    with np.errstate(over="ignore"):
        reached = np.minimum(depth * size**a * times, _LATEST)
    if sigma < 0.0:
        return size * np.exp(_invert(_falling, np.log(u), -reached, a))
    if u > 1.0:
        return size * (1.0 + np.exp(_invert(_settling, np.log(u - 1.0), -reached, a)))
    return size * expit(_invert(_growing, np.log(u / (1.0 - u)), reached, a))


def growth_time(start: float, end: float, sigma: float, depth: int) -> float:
    """Return the time in which a balanced mode grows from ``start`` to ``end``, 0 < both < σ.

    t = [F(p_1/σ) − F(p_0/σ)] / (h σ^a), a = 2 − 2/h; NaN where a mode cannot grow.
    """
    if not 0.0 < start < sigma or not 0.0 < end < sigma:
        return float("nan")
    a = 2.0 - 2.0 / depth
    if depth == 1:
        return float(np.log((sigma - start) / (sigma - end)))
    odds = np.log([start / (sigma - start), end / (sigma - end)])
    values = _growing(odds, a)
    return float((values[1] - values[0]) / (depth * sigma**a))


def decayed_growth_time(
    start: float, end: float, sigma: float, decay: float, depth: int, roots: tuple[float, float]
) -> float:
    """Return the time in which a balanced mode grows from ``start`` to ``end`` under weight decay.

    ṗ = h p^{2−2/h} (σ − p) − hλp, between its ``roots``, the smaller and the larger strength at
    rest; NaN beyond these. ṡ = s P(s) of a layer, P = s^{h−2} (σ − s^h) − λ = (s − s_−)(s − s_+) Q:
    dt = du/((s_+ − s_−) s |Q|) with u = ln (s − s_−)/(s_+ − s), which is smooth.
    """
    low, high = roots
    if not low < start < high or not low < end < high:
        return float("nan")
    if depth == 1:
        return float(np.log((high - start) / (high - end)) / (1.0 + decay))
    if depth == 2:
        return float(np.log(end / start * (high - start) / (high - end)) / (2.0 * high))
    below, above = (root ** (1.0 / depth) for root in roots)
    ends = np.array([start, end]) ** (1.0 / depth)
    whole = np.zeros(2 * depth - 1)
    whole[[0, depth, -1]] = -1.0, sigma, -decay
    rest = np.polydiv(whole, np.poly([below, above]))[0]
    begin, finish = np.log((ends - below) / (above - ends))
    u, weights = _gauss_points(min(begin, finish), max(begin, finish), 1.0)
    sizes = below + (above - below) * expit(u)
    time = weights @ (1.0 / ((above - below) * sizes * np.abs(np.polyval(rest, sizes))))
    return float(np.copysign(time, finish - begin))


def passage_time(start: float, end: float, sigma: float, depth: int) -> float:
    """Return the time in which a balanced mode goes from ``start`` to ``end`` on its way to σ ≥ 0.

    Upwards as `growth_time`; downwards by F' = 1/(u^a (u − 1)). Infinite from zero if h > 1.
    """
    a = 2.0 - 2.0 / depth
    if depth == 1:
        return float(np.log((sigma - start) / (sigma - end)))
    if start < end:
        return growth_time(start, end, sigma, depth) if start > 0.0 else float("inf")
    if sigma == 0.0:
        return float((end**-a - start**-a) / (depth * a))
    begin, finish = _settling(np.log([start / sigma - 1.0, end / sigma - 1.0]), a)
    return float((begin - finish) / (depth * sigma**a))


def _growing(odds: Array, a: float) -> Any:
    """Return F(u), F' = 1/(u^a (1 − u)), at u = 1/(1 + e^{−odds})."""
    if a == 1.0:
        return odds
    u, rest = expit(np.minimum(odds, _NEAR)), expit(-odds)
    inside = u ** (1.0 - a) / (1.0 - a) * hyp2f1(1.0, 1.0 - a, 2.0 - a, u)
    near_one = np.logaddexp(0.0, odds) + digamma(1.0) - digamma(1.0 - a) - _series(rest, a)
    return np.where(odds < _NEAR, inside, near_one)


def _settling(log_excess: Array, a: float) -> Any:
    """Return F(u), F' = 1/(u^a (u − 1)), at u = 1 + e^{log_excess}, by w = 1/u."""
    if a == 1.0:
        return log_excess - np.log1p(np.exp(log_excess))
    u, excess = 1.0 + np.exp(np.maximum(log_excess, -_NEAR)), np.exp(log_excess)
    inside = -(u**-a) / a * hyp2f1(1.0, a, 1.0 + a, 1.0 / u)
    near_one = log_excess + digamma(a) - digamma(1.0) + _series(-excess, a)
    return np.where(log_excess > -_NEAR, inside, near_one)


def _series(v: Array, a: float) -> Array:
    """Return Σ_{k≥1} (a)_k v^k / (k! k), where it is used: for |v| < e^{−2}."""
    v = np.clip(v, -0.2, 0.2)
    total, term = np.zeros_like(v), np.ones_like(v)
    for k in range(1, 25):
        term = term * v * (a + k - 1.0) / k
        total = total + term / k
    return total


def _falling(log_u: Array, a: float) -> Any:
    """Return F(u), F' = 1/(u^a (1 + u)), at u = e^{log_u}."""
    if a == 1.0:
        return -np.logaddexp(0.0, -log_u)
    u = np.exp(log_u)
    return u ** (1.0 - a) / (1.0 - a) * hyp2f1(1.0, 1.0 - a, 2.0 - a, -u)


def _invert(primitive: Callable[[Array, float], Any], start: float, change: Array, a: float) -> Any:
    """Solve primitive(y) = primitive(start) + change for y, by bracketing and bisection."""
    goal = primitive(np.array(start), a) + change
    near, step = np.full_like(change, start), np.where(change < 0.0, -1.0, 1.0)
    far = near + step
    while np.any(short := step * (primitive(far, a) - goal) < 0.0):
        near, far = np.where(short, far, near), np.where(short, far + 2.0 * (far - near), far)
    for _ in range(80):
        middle = 0.5 * (near + far)
        short = step * (primitive(middle, a) - goal) < 0.0
        near, far = np.where(short, middle, near), np.where(short, far, middle)
    return np.where(change == 0.0, start, 0.5 * (near + far))


class Turn(NamedTuple):
    """The orbit that turns from a lower mode to a higher one, in u = ln tan φ.

    Length and time are integrals over u of functions analytic up to ±iπ/2.
    """

    low: float
    high: float
    depth: int

    @property
    def gap(self) -> float:
        """Δ = σ_j − σ_i."""
        return self.high - self.low

    @property
    def rate(self) -> float:
        """s_i^{h−2} Δ, at which it departs."""
        return float(self.low ** (1.0 - 2.0 / self.depth) * self.gap)

    def strength(self, u: Array) -> Array:
        """Return N at u."""
        return self.strength_at(np.arctan(np.exp(u)))

    def strength_at(self, phi: Array) -> Array:
        """Return N at angles: σ_i/N = ₂F₁(−h/2, 1; β + 1; sin²φ), β = h σ_i/(2 (σ_j − σ_i)).

        As ∫_0^∞ β e^{−βw} (cos²φ + e^{−w} sin²φ)^{h/2} dw, by Gauss points on short pieces: the
        integrand is analytic up to ±iπ around the axis for every φ. (scipy's ₂F₁ is NaN for some
        β.)
        """
        half = 0.5 * self.depth
        beta, cos2, sin2 = half * self.low / self.gap, np.cos(phi) ** 2, np.sin(phi) ** 2
        bend = float(np.max(np.log(np.maximum(sin2, 1e-30) / np.maximum(cos2, 1e-30))))
        end = min(max(bend, 0.0) + 40.0, 40.0 / beta)  # the second term has vanished there
        w, weights = _gauss_points(0.0, end, min(2.0, 2.0 / beta))
        terms = (cos2[:, None] + sin2[:, None] * np.exp(-w)) ** half
        rest = np.exp(-beta * end) * cos2**half
        strength: Array = self.low / (terms @ (weights * beta * np.exp(-beta * w)) + rest)
        return strength

    def mean(self, u: Array) -> Array:
        """Return Σ along the direction of the mode."""
        weighted: Array = self.low + self.gap * expit(2.0 * u)
        return weighted

    def place(self, level: float) -> float:
        """Return u where mode j has a strength, N sin²φ = level."""
        if level < 1e-16 * self.low:
            return 0.5 * float(np.log(level / self.low))
        return _zero(lambda u: np.log(self.strength(u) * expit(2.0 * u)) - np.log(level))

    def halfway(self) -> float:
        """Return u where half of the drop is lost."""
        half = 0.25 * (self.low**2 + self.high**2)
        return _zero(lambda u: 0.5 * self.strength(u) ** 2 - self.strength(u) * self.mean(u) + half)

    def times(self, starts: Array, end: float) -> Array:
        """Return the times from the starts to the end: ∫ N^{2/h − 1} du / Δ."""
        power, near = 2.0 / self.depth - 1.0, min(-_REACH, end)
        straight = np.minimum(starts - near, 0.0)  # where N is σ_i
        starts = np.clip(starts, near, end)
        pieces = np.floor(end - starts)  # whole ones, which all starts share, next to the end
        count, parts = int(pieces.max(initial=0.0)), (end - pieces - starts)[:, None]
        u = end - np.arange(1.0, count + 1.0)[:, None] + _POINTS
        first = starts[:, None] + parts * _POINTS
        values = self.strength(np.concatenate([u, first]).ravel()) ** power
        whole, rest = np.split(values.reshape(-1, len(_POINTS)) @ _WEIGHTS, [count])
        sums = np.concatenate([[0.0], np.cumsum(whole)])[pieces.astype(int)]
        total: Array = sums + parts[:, 0] * rest - straight * self.low**power
        return total / self.gap

    def length(self) -> float:
        """Return the length in the space of weights."""
        end = _REACH + float(np.log(self.high / self.low)) / self.depth
        u, weights = _gauss_points(-_REACH, end, 1.0)
        N, turn = self.strength(u), np.sqrt(expit(2.0 * u) * expit(-2.0 * u))  # dφ/du
        growth = self.depth * (self.mean(u) - N) / self.gap
        speed = np.sqrt(growth**2 / self.depth + 2.0 * turn**2) * N ** (1.0 / self.depth)
        sizes = np.array([self.low, self.high]) ** (1.0 / self.depth)
        return float(weights @ speed + np.sqrt(2.0) * sizes @ np.exp([-_REACH, -end]))


def orbit_time(sigma: Array, lost: int, gained: int, depth: int, start: float, end: float) -> float:
    """Return the time in which mode j grows from a strength to another along an edge.

    NaN where it does not: for strengths that are not positive, or beyond σ_j.
    """
    high = float(sigma[gained])
    if lost < 0:
        return growth_time(start, end, high, depth)
    if not 0.0 < start < high or not 0.0 < end < high:
        return float("nan")
    turn = Turn(float(sigma[lost]), high, depth)
    begin, finish = turn.place(start), turn.place(end)
    time = turn.times(np.array([min(begin, finish)]), max(begin, finish))
    return float(np.copysign(time[0], finish - begin))


def _gauss_points(begin: float, end: float, width: float) -> tuple[Array, Array]:
    """Return points and weights of an integral over pieces of about the given width."""
    edges = np.linspace(begin, end, 1 + max(1, int(np.ceil((end - begin) / width))))
    points = edges[:-1, None] + np.diff(edges)[:, None] * _POINTS
    return points.ravel(), np.outer(np.diff(edges), _WEIGHTS).ravel()


def _zero(function: Callable[[Array], Array]) -> float:
    """Return where a function of u is zero."""
    ends = (-45.0, 45.0)
    return float(scipy.optimize.brentq(lambda u: function(np.array([u]))[0], *ends, xtol=1e-14))
