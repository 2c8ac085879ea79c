"""Explicit steps of wide linear networks with few outputs, whose derivatives have that rank.

The derivative of layer i < h is Ẇ_i = L_iᵀ T_{i−1} with L_i = W_{i+1:h}, T_{i−1} = R Kᵀ W_{1:i−1}ᵀ
(see `linear.field_from_outputs`), and both factors have d_h rows; that of layer h is T_{h−1}. The
state of a stage is W_i + Σ_j w_j L_i^jᵀ T_{i−1}^j, with the stages j before it and w_j = h a_j, so
its own factors are

    L_{i−1} = L_i W_i + Σ_j w_j (L_i L_i^jᵀ) T_{i−1}^j,
    T_i = T_{i−1} W_iᵀ + Σ_j w_j (T_{i−1} T_{i−1}^jᵀ) L_i^j:

neither it nor its derivative is written. At the end of a step the stages are expanded, some rows of
a layer at a time, and summed while they lie in the cache. `runge_kutta.step` reads and writes some
ninety vectors of the size of the state, which takes it most of the time where layers are wide.

Factors of all stages lie next to each other: block i of the L is a matrix (stage · d_h × d_i), and
so is that of the T.
"""

from collections import namedtuple

import numpy as np

from dlnds._kernels import linear, runge_kutta
from dlnds._kernels.balance import widest, width
from dlnds._kernels.dense import (
    assign,
    copy,
    matrix_at,
    multiply,
    multiply_right_transposed,
    room,
    row_sums,
    scaled_sum,
)
from dlnds._kernels.jit import inlined, jit, part, sums, variant
from dlnds._kernels.linear import (
    buffer_size,
    layer,
    times_root,
    times_root_transposed,
    write_signal,
)
from dlnds._kernels.runge_kutta import ERRORS, STAGES, joined_error

#: Where stages are kept: two that later ones do not need give their places to these.
PLACES = np.array([0, 1, 2, 1, 3, 2, 4, 5, 6, 7, 8, 9, 10])
COUNT = 11
#: How many places have been written before each stage.
WRITTEN = np.concatenate([[0], np.maximum.accumulate(PLACES)[:-1] + 1])


def _by_place(table):
    """Return rows of weights of stages as those of their places, at the time of each row."""
    weights = np.zeros((len(table), COUNT))
    for row, j in np.argwhere(table):
        weights[row, PLACES[j]] = table[row, j]
    return weights


WEIGHTS = _by_place(STAGES[:13])
#: Rows make the state of the last stage, the end of the step, and its three errors.
combine = row_sums(np.concatenate([WEIGHTS[11:], _by_place(ERRORS)]))
#: Numbers of each stage that are expanded at once, if layers have no longer rows.
PANEL = 8192
#: Rows of the stages where a step leaves its three errors.
FIFTH, THIRD, DECAYING = 1, 2, 3
#: What a step asks of a system, and the factors of its stages.
LowRank = namedtuple("LowRank", "params field error_scale factors")


@part
def block(factors, params, side, i, first, places):
    """Return block i of the L (side 0) or the T (side 1) at some places from the first on."""
    outputs, columns = width(params, params[0][0]), width(params, i)
    before = params[0][5 + 2 * params[0][0] + i]
    start = COUNT * (side * buffer_size(params, outputs) + before * outputs)
    return matrix_at(factors, start + first * outputs * columns, places * outputs, columns)


@part
def add_overlaps(a, firsts, seconds, h, weights, out):
    """Add ``h Σ_j w_j (a A_jᵀ) B_j`` for the blocks of two stacks.

    On plateaus factors are so small, and steps so long, that no product is a number without h.
    """
    outputs = a.shape[0]
    overlaps, scaled = np.empty((outputs, firsts.shape[0])), np.empty(a.shape)
    scaled_sum(h, a, 0.0, a, scaled)
    multiply_right_transposed(scaled, firsts, overlaps, 0.0)
    for o in range(outputs):
        for j in range(overlaps.shape[1]):
            overlaps[o, j] *= weights[j // outputs]
    multiply(overlaps, seconds, out, 1.0)


@part
def write_factors(place, written, x, h, weights, params, factors):
    """Write factors to a place, at ``x`` and h times what ``weights`` make of those written."""
    depth = params[0][0]
    left = block(factors, params, 0, depth - 1, place, 1)
    assign(layer(x, params, depth), left)
    for j in range(written):
        scaled_sum(1.0, left, h * weights[j], block(factors, params, 1, depth - 1, j, 1), left)
    for i in range(depth - 1, 0, -1):
        before = block(factors, params, 0, i - 1, place, 1)
        multiply(left, layer(x, params, i), before, 0.0)
        lefts = block(factors, params, 0, i, 0, written)
        rights = block(factors, params, 1, i - 1, 0, written)
        add_overlaps(left, lefts, rights, h, weights, before)
        left = before
    image = np.empty((left.shape[0], params[0][1]))
    times_root(left, params, image)
    write_signal(params, image, image)
    right = block(factors, params, 1, 0, place, 1)
    times_root_transposed(image, params, right)
    for i in range(1, depth):
        after = block(factors, params, 1, i, place, 1)
        multiply_right_transposed(right, layer(x, params, i), after, 0.0)
        lefts = block(factors, params, 0, i, 0, written)
        rights = block(factors, params, 1, i - 1, 0, written)
        add_overlaps(right, rights, lefts, h, weights, after)
        right = after


@part
def room_for_panels(params):
    """Return room for what `expand` writes at most."""
    return room(COUNT * max(PANEL, widest(params)))


@part
def expand(first, params, factors, panels):
    """Write the stages of all places from component ``first`` on; return the end.

    They are the rows of the matrix that ``panels`` begin with, and end with a row of a layer.
    """
    sizes, depth, i = params[0], params[0][0], 1
    while sizes[4 + depth + i] <= first:
        i += 1
    outputs, columns = width(params, depth), width(params, i - 1)
    row = (first - sizes[3 + depth + i]) // columns
    rows = min(max(1, PANEL // columns), width(params, i) - row)
    size = rows * columns
    panel = matrix_at(panels, 0, COUNT, size)
    turned = np.empty((rows, outputs))
    for j in range(COUNT):
        if i == depth:
            copy(block(factors, params, 1, depth - 1, j, 1).ravel()[row * columns :], panel[j])
            continue
        left = block(factors, params, 0, i, j, 1)
        for q in range(rows):
            for o in range(outputs):
                turned[q, o] = left[o, row + q]
        lines = matrix_at(panels, j * size, rows, columns)
        multiply(turned, block(factors, params, 1, i - 1, j, 1), lines, 0.0)
    return first + size


@part
def step(method, t, x, h, stages, x_new, last):
    """Take one step as `runge_kutta.step` does; its errors are left in some rows of ``stages``."""
    params, factors = method.params, method.factors
    for s in range(PLACES.size):
        write_factors(PLACES[s], WRITTEN[s], x, h, WEIGHTS[s], params, factors)
    panels, first = room_for_panels(params), 0
    nothing = np.zeros(panels.size // COUNT)
    while first < x.size:
        end = expand(first, params, factors, panels)
        panel = matrix_at(panels, 0, COUNT, end - first)
        here, zero = x[first:end], nothing[: end - first]
        combine(here, h, panel, 0, last[first:end])
        combine(here, h, panel, 1, x_new[first:end])
        combine(zero, h, panel, 2, stages[FIFTH, first:end])
        combine(zero, h, panel, 3, stages[THIRD, first:end])
        combine(zero, h, panel, 4, stages[DECAYING, first:end])
        copy(panel[PLACES[11]], stages[11, first:end])
        copy(panel[PLACES[12]], stages[12, first:end])
        first = end


@sums
def error_norm(h, stages, tolerance):
    """Return what `runge_kutta.error_norm` does, of the errors that a step has left."""
    fifth, third, decaying = 0.0, 0.0, 0.0
    high, low, fast = stages[FIFTH], stages[THIRD], stages[DECAYING]
    for i in range(tolerance.size):
        inverse = 1.0 / tolerance[i]
        fifth += (high[i] * inverse) ** 2
        third += (low[i] * inverse) ** 2
        decaying += (fast[i] * inverse) ** 2
    return joined_error(fifth, third, decaying) / np.sqrt(tolerance.size)


@inlined
def error_inside(method, now, h, unread, work, trial):
    """Return what `runge_kutta.error_inside` does; it needs all stages."""
    if not (h <= runge_kutta.BARELY * unread or h == unread):
        write_stages(method, work.stages)
    return runge_kutta.error_inside(method, now, h, unread, work, trial)


@part
def write_stages(method, stages):
    """Write the stages that a step has left as factors, but those that no dense output needs."""
    panels, first = room_for_panels(method.params), 0
    while first < stages.shape[1]:
        end = expand(first, method.params, method.factors, panels)
        panel = matrix_at(panels, 0, COUNT, end - first)
        for j in range(3, PLACES.size):
            copy(panel[PLACES[j]], stages[j, first:end])
        first = end


def _accepted_step(step):
    """Return `runge_kutta.accepted_step` with another step, and what belongs to it."""
    own = {"step": step, "error_norm": error_norm, "error_inside": error_inside}
    return variant(runge_kutta.accepted_step, "accepted_step", own, inlined)


accepted_step = _accepted_step(step)


@jit
def own_step(parts, tables, tasks, clock, remaining, unread, work, trial):
    """Make a step whose error is acceptable; return a code and the step."""
    params, field, error_scale = parts
    factors = room(2 * COUNT * buffer_size(params, width(params, params[0][0])))
    method = LowRank(params, field, error_scale, factors)
    return accepted_step(method, tasks[0], clock[0], remaining, unread, work, trial)


# Losses other than the square one.

_write = variant(
    write_factors, "write_loss_factors", {"write_signal": linear.write_loss_signal}, part
)
_step = variant(step, "loss_step", {"write_factors": _write}, part)
loss_own_step = variant(own_step, "loss_own_step", {"accepted_step": _accepted_step(_step)})
