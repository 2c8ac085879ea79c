"""The loop of a run with adaptive steps, and its explicit method; the iteration of maps.

The explicit method is the pair 8(5,3) of Dormand and Prince in the form of Hairer, Nørsett and
Wanner, *Solving Ordinary Differential Equations I* (1993), section II.5 and II.6: twelve stages,
the thirteenth is the derivative at the end of the step, three more serve the dense output of order
7. The tableau is data; tests check it as algebra. Where stability limits it, steps may be made by
the stabilized method instead (`stabilized`), which is handed to the loop.

The loop, `advance`, is written once. Other methods compile it with their own meaning of `named`,
`prepare`, `pause`, `accepted_step` and `finish`. Nothing here knows which system it integrates.
"""

from collections import namedtuple
from typing import Any

import numba
import numpy as np
from numba import types

from dlnds._kernels.dense import clear, copy, room, row_sums
from dlnds._kernels.jit import FIELD, PARAMS, RESTORE, inlined, jit, part, sums

# fmt: off
NODES = np.array([
    0.0, 0.05260015195876773, 0.0789002279381516, 0.1183503419072274, 0.2816496580927726,
    0.3333333333333333, 0.25, 0.3076923076923077, 0.6512820512820513, 0.6, 0.8571428571428571, 1.0,
    1.0, 0.1, 0.2, 0.7777777777777778,
])
_STAGES = [
    {},
    {0: 0.05260015195876773},
    {0: 0.0197250569845379, 1: 0.0591751709536137},
    {0: 0.02958758547680685, 2: 0.08876275643042054},
    {0: 0.2413651341592667, 2: -0.8845494793282861, 3: 0.924834003261792},
    {0: 0.037037037037037035, 3: 0.17082860872947386, 4: 0.12546768756682242},
    {0: 0.037109375, 3: 0.17025221101954405, 4: 0.06021653898045596, 5: -0.017578125},
    {0: 0.03709200011850479, 3: 0.17038392571223998, 4: 0.10726203044637328,
     5: -0.015319437748624402, 6: 0.008273789163814023},
    {0: 0.6241109587160757, 3: -3.3608926294469414, 4: -0.868219346841726, 5: 27.59209969944671,
     6: 20.154067550477894, 7: -43.48988418106996},
    {0: 0.47766253643826434, 3: -2.4881146199716677, 4: -0.590290826836843, 5: 21.230051448181193,
     6: 15.279233632882423, 7: -33.28821096898486, 8: -0.020331201708508627},
    {0: -0.9371424300859873, 3: 5.186372428844064, 4: 1.0914373489967295, 5: -8.149787010746927,
     6: -18.52006565999696, 7: 22.739487099350505, 8: 2.4936055526796523, 9: -3.0467644718982196},
    {0: 2.273310147516538, 3: -10.53449546673725, 4: -2.0008720582248625, 5: -17.9589318631188,
     6: 27.94888452941996, 7: -2.8589982771350235, 8: -8.87285693353063, 9: 12.360567175794303,
     10: 0.6433927460157636},
    {0: 0.054293734116568765, 5: 4.450312892752409, 6: 1.8915178993145003, 7: -5.801203960010585,
     8: 0.3111643669578199, 9: -0.1521609496625161, 10: 0.20136540080403034,
     11: 0.04471061572777259},
    {0: 0.056167502283047954, 6: 0.25350021021662483, 7: -0.2462390374708025,
     8: -0.12419142326381637, 9: 0.15329179827876568, 10: 0.00820105229563469,
     11: 0.007567897660545699, 12: -0.008298},
    {0: 0.03183464816350214, 5: 0.028300909672366776, 6: 0.053541988307438566,
     7: -0.05492374857139099, 10: -0.00010834732869724932, 11: 0.0003825710908356584,
     12: -0.00034046500868740456, 13: 0.1413124436746325},
    {0: -0.42889630158379194, 5: -4.697621415361164, 6: 7.683421196062599, 7: 4.06898981839711,
     8: 0.3567271874552811, 12: -0.0013990241651590145, 13: 2.9475147891527724,
     14: -9.15095847217987},
]
# Of order five, of order three, and the weights of order five and least norm that x' = -x errs by
# in steps of 5.2 and 6.2: by that of all from 4.6 to 6.4, to a part in a thousand or two.
_ERRORS = [
    {0: 0.01312004499419488, 5: -1.2251564463762044, 6: -0.4957589496572502, 7: 1.6643771824549864,
     8: -0.35032884874997366, 9: 0.3341791187130175, 10: 0.08192320648511571,
     11: -0.022355307863886294},
    {0: -0.18980075407240762, 5: 4.450312892752409, 6: 1.8915178993145003, 7: -5.801203960010585,
     8: -0.4226823213237919, 9: -0.1521609496625161, 10: 0.20136540080403034,
     11: 0.02265179219836082},
    {0: 0.004815076671854533, 5: 0.05373607099053335, 6: -0.06153591246826643,
     7: 0.01915216621643247, 8: -0.05362804236206143, 9: 0.016461439971160167,
     10: 0.030590723058873205, 11: 0.02131408012947146, 12: -0.03090560220799732},
]
_DENSE = [
    {0: -8.428938276109013, 5: 0.5667149535193777, 6: -3.0689499459498917, 7: 2.38466765651207,
     8: 2.117034582445028, 9: -0.871391583777973, 10: 2.2404374302607883, 11: 0.6315787787694688,
     12: -0.08899033645133331, 13: 18.148505520854727, 14: -9.194632392478356,
     15: -4.436036387594894},
    {0: 10.427508642579134, 5: 242.28349177525817, 6: 165.20045171727028, 7: -374.5467547226902,
     8: -22.113666853125306, 9: 7.733432668472264, 10: -30.674084731089398, 11: -9.332130526430229,
     12: 15.697238121770845, 13: -31.139403219565178, 14: -9.35292435884448, 15: 35.81684148639408},
    {0: 19.985053242002433, 5: -387.0373087493518, 6: -189.17813819516758, 7: 527.8081592054236,
     8: -11.57390253995963, 9: 6.8812326946963, 10: -1.0006050966910838, 11: 0.7777137798053443,
     12: -2.778205752353508, 13: -60.19669523126412, 14: 84.32040550667716, 15: 11.99229113618279},
    {0: -25.69393346270375, 5: -154.18974869023643, 6: -231.5293791760455, 7: 357.6391179106141,
     8: 93.40532418362432, 9: -37.45832313645163, 10: 104.0996495089623, 11: 29.8402934266605,
     12: -43.53345659001114, 13: 96.32455395918828, 14: -39.17726167561544,
     15: -149.72683625798564},
]
# fmt: on


def _table(rows, columns):
    table = np.zeros((len(rows), columns))
    for i, row in enumerate(rows):
        for j, value in row.items():
            table[i, j] = value
    return table


STAGES, ERRORS, DENSE = _table(_STAGES, 16), _table(_ERRORS, 13), _table(_DENSE, 16)
# Row s < 16 makes the state of stage s, row 16 + k the coefficient 3 + k of the dense output.
combine = row_sums(np.concatenate([STAGES, DENSE]))
ERROR_STAGES = np.flatnonzero(ERRORS.any(axis=0))
ERROR_WEIGHTS = np.ascontiguousarray(ERRORS[:, ERROR_STAGES])
ORDER = 8
SAFETY, SLOWEST, FASTEST = 0.9, 0.2, 8.0
#: Steps tried in a row, each shorter. States as large as no plateau leaves behind, that grow in
#: steps as small, relative to the time, grow beyond all bounds.
TRIALS, LARGE, UNFELT = 60, 1e30, 1e-14
#: Down to which part of the largest component of its group a component is judged by itself.
GROUP_SHARE = 1e-3
#: By what states are rounded at most, to see what that makes of a step: ten times as coarsely as
#: they are, since rounding may cancel by chance, and an error adds some derivatives.
ROUNDED = 64.0 * float(np.finfo(np.float64).eps)
#: Errors so small that their squares, and those of the weights, are zero to the machine.
NOTHING = 1e-150

# What `advance` returns.
BUFFER_FULL, END_REACHED, OUT_OF_STEPS, STEP_TOO_SMALL, NOT_FINITE, ACCEPTED = 0, 1, 2, 3, 4, 5
OUTGROWN, SWITCH, STABILIZE, REFUSED = 6, 7, 8, 9

# Step times eigenvalue up to which a decaying mode is damped well (by 0.18; beyond 6.4 it grows).
# A run is called stiff after so many steps that this has shortened, with no more than so many
# others in a row between them. Smaller relative changes are rounding.
DAMPED, STIFF_STEPS, CALM_STEPS, ROUNDING = 5.5, 12, 6, 1e-12
#: After how many calm steps stabilized ones are given up that were so from the first on.
AT_ONCE = 2
#: How many steps as long as stability allows must be left for stabilized ones to be tried, how many
#: must lie between two times that are read.
WORTH_IT, SPARSE = 40.0, 2.0
#: Evaluations of the field in a step.
PRICE = 12.0
#: Invariants are all looked at after each step if they are few, else every so many steps.
FEW, LOOK_EVERY = 200, 8
#: How much of the largest eigenvalue seen is still reckoned with a step later.
FORGET = 0.8
#: What the dense output may err by, in terms of what the end of a step may: what errors limit stays
#: below that, so that rows leave its steps as they are. Up to which growth of the step that is
#: foreseen. Steps within rounding of what is read next may come to lie behind it.
READ, FORESEEN, BARELY = 10.0, 2.0, 1.0 - 1e-9


def record(floats, integers):
    """Return the type of a record of floats and integers with these names."""
    names = [*((n, np.float64) for n in floats.split()), *((n, np.int64) for n in integers.split())]
    return np.dtype((np.record, np.dtype(names, align=True)))


#: Where a run ends, its tolerances, how many steps must be left for another method to be asked for
#: (infinitely many if there is none), the steps at most, from the beginning, and the last row of
#: the table that stabilized steps may use, 0 if they are not to be made, with how many evaluations
#: until it is asked for them again.
TASK = record("end rtol atol patience", "max_steps stages stint")
#: Where a run is. Times are compensated pairs, so that small steps add up at a large time: now, and
#: before the last step. The last step, the next, the longest inside which something may be read,
#: what that errs by, in terms of the error scales, the largest eigenvalue seen, and the least in
#: a row of steps that stability limited (one may be far too large, where sizes differ). What was
#: counted: Jacobians, evaluations of the field, steps, times of ``wanted`` that are saved; steps in
#: a row (see above) that stability limited, twice where its eigenvalue was seen, and that it did
#: not; whether the state is still to be saved, whether the dense output of every step is made, not
#: only where it is saved, and whether components are compared in terms of their error scales where
#: stability is judged; whether steps are stabilized (−1: never more); the time and the evaluation
#: at which they began, what they took for a unit of time when they were last made, and in all since
#: another method was asked for; how often they are not to be asked for, since they were no cheaper;
#: whether the system has a step of its own.
CLOCK = record(
    "time time_low before before_low last_step step readable between rate lasting since price",
    "evaluations jacobians steps saved stiff calm unsaved always_dense weighted "
    "stabilized entered spent futile own_step",
)
#: State, that before the last step, dense output of that step (7 rows), and stages (16 rows), the
#: first of which is the derivative at the state.
Work = namedtuple("Work", "state previous coefficients stages")
#: Times to save, if not each step, and the rows to save in: compensated times, and states.
Rows = namedtuple("Rows", "wanted times states")
#: What an explicit method asks of a system; the tables of the stabilized method, and its step; the
#: step that the system has of its own.
Explicit = namedtuple(
    "Explicit", "params field error_scale restore holds tables stabilized_step own_step"
)
#: For each number of stages: how far it reaches (see `stabilized`), the first row of its recurrence
#: (and one more number), the weights of its last stages.
Tables = namedtuple("Tables", "reach firsts recurrence last")
#: A step that is tried: its end, the error scales at start and end, the error allowed.
Trial = namedtuple("Trial", "state last here scale tolerance")


def clock_at(t: float) -> Any:
    """Return the clock of a run that starts at a time."""
    clock = np.zeros(1, CLOCK)
    clock["time"] = clock["before"] = t
    clock["unsaved"], clock["readable"] = 1, np.inf
    return clock


def work_of(x: Any) -> Any:
    """Return the work arrays of a run that goes on from a state."""
    return Work(x.copy(), x.copy(), np.zeros((7, x.size)), np.zeros((16, x.size)))


@part
def step(method, t, x, h, stages, x_new, last):
    """Take one step to ``x_new``; ``stages[0]`` and ``[12]`` are derivatives at its ends.

    The state of the last stage before its end, ``stages[11]``, is left in ``last``.
    """
    field, params = method.field, method.params
    # No loop, for `combine` wants to know its row when it is compiled.
    combine(x, h, stages, 1, x_new)
    field(t + NODES[1] * h, x_new, params, stages[1])
    combine(x, h, stages, 2, x_new)
    field(t + NODES[2] * h, x_new, params, stages[2])
    combine(x, h, stages, 3, x_new)
    field(t + NODES[3] * h, x_new, params, stages[3])
    combine(x, h, stages, 4, x_new)
    field(t + NODES[4] * h, x_new, params, stages[4])
    combine(x, h, stages, 5, x_new)
    field(t + NODES[5] * h, x_new, params, stages[5])
    combine(x, h, stages, 6, x_new)
    field(t + NODES[6] * h, x_new, params, stages[6])
    combine(x, h, stages, 7, x_new)
    field(t + NODES[7] * h, x_new, params, stages[7])
    combine(x, h, stages, 8, x_new)
    field(t + NODES[8] * h, x_new, params, stages[8])
    combine(x, h, stages, 9, x_new)
    field(t + NODES[9] * h, x_new, params, stages[9])
    combine(x, h, stages, 10, x_new)
    field(t + NODES[10] * h, x_new, params, stages[10])
    combine(x, h, stages, 11, last)
    field(t + NODES[11] * h, last, params, stages[11])
    combine(x, h, stages, 12, x_new)
    field(t + NODES[12] * h, x_new, params, stages[12])


@sums
def error_norm(h, stages, tolerance):
    """Return the error estimate of a step in units of ``tolerance``; one is just acceptable.

    That of order five is zero for modes that decay at the rate 5.63/h, of which a step leaves a
    fifth: the error of these is told by weights of their own, which tell less of what is slower.
    """
    fifth, third, decaying = 0.0, 0.0, 0.0
    for i in range(tolerance.size):
        high, low, fast = 0.0, 0.0, 0.0
        for k in range(ERROR_STAGES.size):
            value = stages[ERROR_STAGES[k], i]
            high += ERROR_WEIGHTS[0, k] * value
            low += ERROR_WEIGHTS[1, k] * value
            fast += ERROR_WEIGHTS[2, k] * value
        if high != 0.0 or low != 0.0 or fast != 0.0:
            fifth += (high / tolerance[i]) ** 2
            third += (low / tolerance[i]) ** 2
            decaying += (fast / tolerance[i]) ** 2
    return abs(h) * joined_error(fifth, third, decaying) / np.sqrt(tolerance.size)


@part
def joined_error(fifth, third, decaying):
    """Return the size that the sums of squares of the three errors make."""
    largest = max(fifth, decaying)
    return largest / np.sqrt(largest + 0.01 * third) if largest > 0.0 else largest


@part
def dense_coefficients(field, t, x, h, params, stages, x_new, coefficients, last):
    """Write the seven coefficient vectors of the interpolant over the step from ``t`` on.

    The state of the ``last`` stage is left there.
    """
    combine(x, h, stages, 13, last)
    field(t + NODES[13] * h, last, params, stages[13])
    combine(x, h, stages, 14, last)
    field(t + NODES[14] * h, last, params, stages[14])
    combine(x, h, stages, 15, last)
    field(t + NODES[15] * h, last, params, stages[15])
    for i in range(x.size):
        change = x_new[i] - x[i]
        coefficients[0, i] = change
        coefficients[1, i] = h * stages[0, i] - change
        coefficients[2, i] = 2.0 * change - h * (stages[12, i] + stages[0, i])
        for k in range(3, 7):
            coefficients[k, i] = 0.0
    combine(coefficients[3], h, stages, 16, coefficients[3])
    combine(coefficients[4], h, stages, 17, coefficients[4])
    combine(coefficients[5], h, stages, 18, coefficients[5])
    combine(coefficients[6], h, stages, 19, coefficients[6])


@part
def interpolate(x, coefficients, theta, out):
    """Write the interpolant at the fraction ``theta`` of the step that started at ``x``."""
    for i in range(x.size):
        value = 0.0
        for k in range(6, -1, -1):
            value += coefficients[k, i]
            value *= theta if k % 2 == 0 else 1.0 - theta
        out[i] = x[i] + value


@part
def dense_error(x, coefficients, last, tolerance):
    """Return the weighted size of the error of the interpolant.

    From the state of the last stage it differs by O(h⁷), of which its last coefficients say what
    one order more leaves. Of x' = λx that is 0.4 to 1.2 of the largest error for λh in [−6, 2], and
    0.15 to 0.8 on the way to 4i.
    """
    there = room(x.size)
    interpolate(x, coefficients, NODES[15], there)
    for i in range(x.size):
        there[i] -= last[i]
    lower = weighted_norm(coefficients[4], tolerance)
    if lower == 0.0:
        return 0.0
    size = weighted_norm(there, tolerance) * weighted_norm(coefficients[5], tolerance) / lower
    return size if np.isfinite(size) else np.inf


@part
def allow(error_scale, t, x, params, rtol, atol, scale, tolerance):
    """Raise ``tolerance`` to ``atol + rtol · error_scale(x)`` where that is larger."""
    error_scale(t, x, params, scale)
    for i in range(x.size):
        tolerance[i] = max(tolerance[i], atol + rtol * scale[i])


@part
def weighted_norm(a, tolerance):
    """Return the root mean square of ``a / tolerance``."""
    total = 0.0
    for i in range(a.size):
        if a[i] != 0.0:
            total += (a[i] / tolerance[i]) ** 2
    return np.sqrt(total / a.size)


@part
def first_step(field, params, now, x, derivative, tolerance, longest):
    """Guess a first step from the sizes of the state, its derivative, and the change of that.

    As in Hairer et al., section II.4, but free of units: with the weighted norms d of the
    derivative and the rate λ at which it changes, the step makes the error of a motion (d/λ)
    e^{λt}, which is about (d/λ) (λh)^8, equal to 0.01.
    """
    slope = weighted_norm(derivative, tolerance)
    if slope == 0.0:
        return min(longest, 1.0)
    if not np.isfinite(slope):
        return min(longest, 1e-6)
    trial = min(longest, 0.01 * max(weighted_norm(x, tolerance), 1.0) / slope)
    shifted, change = room(x.size), room(x.size)
    for i in range(x.size):
        shifted[i] = x[i] + trial * derivative[i]
    field(now.time + trial, shifted, params, change)
    now.evaluations += 1
    for i in range(x.size):
        change[i] -= derivative[i]
    rate = weighted_norm(change, tolerance) / (trial * slope)
    if not (rate > 0.0 and np.isfinite(rate)):
        return min(longest, trial)
    return min(longest, 100.0 * trial, (0.01 * rate / slope) ** (1.0 / ORDER) / rate)


@part
def all_finite(a):
    """Tell whether no entry is infinite or NaN."""
    finite = True
    for i in range(a.size):
        finite &= np.isfinite(a[i])
    return finite


@part
def at_border(now, h, end, x):
    """Tell whether a step that was cut off, where nothing is finite beyond, leads nowhere.

    A state at which the field vanishes stays, too, but for as long as one likes.
    """
    equal = h <= UNFELT * abs(now.time)
    for i in range(x.size):
        equal &= end[i] == x[i]
    return equal


@part
def blows_up(x, now):
    """Tell whether a state grows beyond all bounds in steps that the clock does not feel.

    A small step alone is no reason to stop: after a long plateau the next mode is learnt in less
    than the spacing of numbers at that time.
    """
    if now.step > UNFELT * abs(now.time):
        return False
    largest = 0.0
    for i in range(x.size):
        largest = max(largest, abs(x[i]))
    return largest > LARGE


@part
def begin(field, error_scale, params, task, now, work):
    """Evaluate the first derivative and choose the first step; tell whether all is finite."""
    x, derivative, tolerance = work.state, work.stages[0], room(work.state.size)
    clear(tolerance)
    field(now.time, x, params, derivative)
    now.evaluations = 1
    allow(error_scale, now.time, x, params, task.rtol, task.atol, room(x.size), tolerance)
    now.step = first_step(field, params, now, x, derivative, tolerance, task.end - now.time)
    return all_finite(x) and all_finite(derivative)


@part
def ahead(t, now):
    """Return how far ``t`` lies ahead of the compensated time."""
    return (t - now.time) - now.time_low


@part
def ahead_to_read(now, rows):
    """Return how far ahead lies what is read next, inside a step or at its end."""
    if now.always_dense == 1:
        return 0.0
    return ahead(rows.wanted[now.saved], now) if now.saved < rows.wanted.size else np.inf


@part
def between_reads(now, rows):
    """Return how far apart lie the next times that are read."""
    if now.always_dense == 1:
        return 0.0
    following = now.saved + 1
    return (
        rows.wanted[following] - rows.wanted[now.saved] if following < rows.wanted.size else np.inf
    )


@part
def save(now, work, rows, row):
    """Save what is due, from ``row`` on; return the next row and whether all fitted."""
    if rows.wanted.size == 0 and now.unsaved == 1:
        if row == rows.times.shape[0]:
            return row, False
        rows.times[row, 0], rows.times[row, 1] = now.time, now.time_low
        copy(work.state, rows.states[row])
        now.unsaved = 0
        return row + 1, True
    while now.saved < rows.wanted.size:
        wanted = rows.wanted[now.saved]
        if ahead(wanted, now) > 0.0:
            break
        if row == rows.times.shape[0]:
            return row, False
        rows.times[row, 0], rows.times[row, 1] = wanted, 0.0
        if ahead(wanted, now) == 0.0:
            copy(work.state, rows.states[row])
        else:
            theta = ((wanted - now.before) - now.before_low) / now.last_step
            interpolate(work.previous, work.coefficients, theta, rows.states[row])
        row += 1
        now.saved += 1
    return row, True


@part
def move_clock(now, h, end, last):
    """Add a step to the compensated time; the last step ends at ``end`` exactly."""
    now.before, now.before_low, now.last_step = now.time, now.time_low, h
    if last:
        now.time, now.time_low = end, 0.0
        return
    small = now.time_low + h
    total = now.time + small
    rounded = total - now.time
    now.time_low = (now.time - (total - rounded)) + (small - rounded)
    now.time = total


@part
def outgrown(scale, grown):
    """Tell whether any scale exceeds what it may grow to."""
    found = False
    for i in range(grown.size):
        found |= scale[i] > grown[i]
    return found


@inlined
def named(parts):
    """Return what the method asks of a system under its names, which Python cannot pass."""
    params, field, error_scale, restore, holds, tables, stabilized_step, own_step = parts
    return Explicit(params, field, error_scale, restore, holds, tables, stabilized_step, own_step)


@inlined
def prepare(parts, method, now, work):
    """Return what the steps of a call share."""
    n = work.state.size
    trial = Trial(room(n), room(n), room(n), room(n), room(n))
    clear(trial.scale)
    method.error_scale(now.time, work.state, method.params, trial.here)
    return trial


@inlined
def pause(task, now, remaining, sparse, trial, grown):
    """Return why there is no step now, or `ACCEPTED`."""
    if now.steps >= task.max_steps:
        return OUT_OF_STEPS
    if now.stiff >= 2 * STIFF_STEPS:
        far, now.stiff = remaining * now.lasting, 0
        offered = task.stages > 0 and now.stabilized == 0 and sparse and far > WORTH_IT * DAMPED
        if offered and now.futile > 0:
            now.futile -= 1
        elif offered and not remaining * now.price > PRICE * task.patience:
            if now.price == 0.0 or now.spent > task.stint:
                return STABILIZE
            now.stabilized, now.entered, now.since = 1, now.evaluations, now.time
            now.calm = CALM_STEPS - AT_ONCE
            return ACCEPTED
        if far > task.patience * DAMPED:
            return SWITCH
    return OUTGROWN if outgrown(trial.scale, grown) else ACCEPTED


@part
def growth(error, safety, trend, order, limit):
    """Return the factor by which a step may change: the rule of all methods.

    From its error, in terms of what is allowed, and by what that may rise to the next (``trend``).
    """
    factor = FASTEST
    if error > 0.0:
        factor = safety * error ** (-1.0 / order)
        factor = min(factor, factor * trend)
    return min(limit, max(SLOWEST, factor))


@part
def set_tolerance(task, trial):
    """Write the error allowed in a step from the error scales at its ends."""
    for i in range(trial.tolerance.size):
        scale = max(trial.here[i], trial.scale[i])
        trial.tolerance[i] = max(NOTHING, task.atol + task.rtol * scale)


@part
def heed_rounding(field, t, x, h, params, derivative, tolerance):
    """Raise ``tolerance`` to what rounding of the state may make of a step.

    Sums of large terms that cancel leave the derivative of a small component with their rounding,
    below which no step is short enough to go.
    """
    rounded, image = room(x.size), room(x.size)
    for i in range(x.size):
        rounded[i] = x[i] * (1.0 + ROUNDED * np.sin(1.0 + i * i))
    field(t, rounded, params, image)
    for i in range(x.size):
        noise = abs(h * (image[i] - derivative[i]))
        if tolerance[i] < noise < np.inf:
            tolerance[i] = noise


@inlined
def accepted_step(method, task, now, remaining, unread, work, trial):
    """Shorten the step until its error is acceptable; return a code and the step.

    Where something is read inside it, so must the error there be, or it ends at what is read first:
    modes that stability damps err by far more inside than at the end.
    """
    t, x, stages, tolerance = now.time, work.state, work.stages, trial.tolerance
    h, limit, finite, beyond = now.step, FASTEST, True, False
    for _ in range(TRIALS):
        if 1.01 * h >= remaining and h != unread:
            h = remaining
        if h > unread:
            h = max(unread, min(h, now.readable))
        if not np.isfinite(t + h):
            return END_REACHED, h
        step(method, t, x, h, stages, trial.state, trial.last)
        now.evaluations += 12
        method.error_scale(t + h, trial.state, method.params, trial.scale)
        set_tolerance(task, trial)
        error = error_norm(h, stages, tolerance)
        if 1.0 < error < np.inf:
            heed_rounding(method.field, t, x, h, method.params, stages[0], tolerance)
            now.evaluations += 1
            error = error_norm(h, stages, tolerance)
        # whatever the error is, an infinite scale allows it
        finite = np.isfinite(error) and all_finite(trial.scale) and all_finite(trial.state)
        finite = finite and all_finite(stages[12])
        factor = growth(error, SAFETY, 1.0, ORDER, limit) if finite else SLOWEST
        beyond |= not finite
        if finite and error <= 1.0:
            if beyond and at_border(now, h, trial.state, x):
                return STEP_TOO_SMALL, h
            inside = error_inside(method, now, h, unread, work, trial)
            now.between = task.rtol * inside
            if inside > READ or now.readable < np.inf:
                change = growth(inside / READ, SAFETY, 1.0, ORDER, FASTEST)
                now.readable = h * change if change < FORESEEN else np.inf
            if inside <= READ:
                now.step = h * factor
                return ACCEPTED, h
            continue
        h *= factor
        limit = 1.0
    return STEP_TOO_SMALL if finite else NOT_FINITE, h


@inlined
def error_inside(method, now, h, unread, work, trial):
    """Return the error of the dense output in units of the error allowed, 0 if none is due."""
    if h <= BARELY * unread or h == unread:
        return 0.0
    last = room(work.state.size)
    dense_coefficients(
        method.field, now.time, work.state, h, method.params, work.stages, trial.state,
        work.coefficients, last,
    )  # fmt: skip
    now.evaluations += 3
    return dense_error(work.state, work.coefficients, last, trial.tolerance)


@inlined
def next_step(method, tasks, clock, remaining, unread, work, trial):
    """Make a step by the method that is in use; return a code and the step."""
    code, h, now = REFUSED, 0.0, clock[0]
    parts = method.params, method.field, method.error_scale
    if now.stabilized == 1:
        code, h = method.stabilized_step(
            parts, method.tables, tasks, clock, remaining, unread, work, trial
        )
    if code == REFUSED and now.own_step == 1:
        code, h = method.own_step(
            parts, method.tables, tasks, clock, remaining, unread, work, trial
        )
    if code == REFUSED:
        code, h = accepted_step(method, tasks[0], now, remaining, unread, work, trial)
    return code, h


@part
def rate_seen(weighted, trial, stages):
    """Return the largest eigenvalue that a step shows, 0 where that is lost in rounding.

    As Hairer et al., section IV.2, it is estimated from the two states at the end of the step and
    their derivatives; ``weighted``: components are compared in terms of their error scales.
    """
    last, state, scale = trial.last, trial.state, trial.scale
    change, distance, size = 0.0, 0.0, 0.0
    for i in range(last.size):
        weight = 1.0
        if weighted:
            weight = 1.0 / scale[i] if scale[i] > 0.0 else 0.0
        change = max(change, weight * abs(stages[12, i] - stages[11, i]))
        distance = max(distance, weight * abs(state[i] - last[i]))
        size = max(size, weight * abs(state[i]))
    return change / distance if distance > ROUNDING * size else 0.0


@part
def mind_stability(now, work, trial):
    """Keep the next step within the stability of the method, and count steps limited by that.

    Without this the error estimate, which is too small for decaying modes, lets a run bounce at a
    minimum. Where large weights rest, small ones may be neither damped nor grow, and hold the step
    there. They count, though nothing is shortened for them: of what they show much is rounding.
    """
    weighted = now.weighted == 1
    seen = rate_seen(weighted, trial, work.stages)
    now.rate = max(FORGET * now.rate, seen)  # what is at rest now may have to be damped again
    limiting = now.rate
    if seen == 0.0 and not weighted:
        limiting = max(limiting, rate_seen(True, trial, work.stages))
    if limiting * now.step > DAMPED:
        if now.rate > 0.0:
            now.step = min(now.step, DAMPED / now.rate)
        now.calm = 0
        now.lasting = limiting if now.stiff == 0 else min(now.lasting, limiting)
        now.stiff += 2 if seen > 0.0 else 1
    elif now.stiff > 0:
        now.calm += 1
        if now.calm >= CALM_STEPS:
            now.stiff = 0


@inlined
def move_on(now, work, trial):
    """Make the end of the step the state."""
    if now.stabilized != 1:
        mind_stability(now, work, trial)
    copy(work.state, work.previous)
    copy(trial.state, work.state)
    copy(work.stages[12], work.stages[0])
    copy(trial.scale, trial.here)


@inlined
def finish(method, task, now, reference, work, trial):
    """Do what is left of an accepted step: what is conserved."""
    x, params, stages = work.state, method.params, work.stages
    move_on(now, work, trial)
    thorough = reference.size <= FEW or now.steps % LOOK_EVERY == 0
    kept = method.holds(x, params, reference, task.rtol, thorough)
    if not kept and method.restore(x, params, reference, task.rtol, thorough):
        method.field(now.time, x, params, stages[0])
        now.evaluations += 1


@jit
def advance(parts, tasks, clock, reference, grown, work, rows):
    """Integrate until the run ends or has to pause; return a code and the number of rows saved.

    Rows are saved at the times wanted, or after each step if there are none. A call with the same
    clock and work goes on where the last one stopped: after ``BUFFER_FULL`` with emptied buffers,
    after ``OUT_OF_STEPS`` with more of them, after ``OUTGROWN`` (the error scale exceeds
    ``grown``) with larger ones, after ``SWITCH`` (stability limits steps, or does not any more)
    by another method, after ``STABILIZE`` with what stabilized steps need. ``parts`` are those of
    the method, ``reference`` what states are restored to.
    """
    method, task, now = named(parts), tasks[0], clock[0]
    row = np.int64(0)  # 0 is of another type, for which `save` would be compiled once more
    begun = now.evaluations > 0
    if not (begun or begin(method.field, method.error_scale, method.params, task, now, work)):
        return NOT_FINITE, row
    trial = prepare(parts, method, now, work)
    while True:
        row, fitted = save(now, work, rows, row)
        if not fitted:
            return BUFFER_FULL, row
        remaining = ahead(task.end, now)
        if not remaining > 0.0:
            return END_REACHED, row
        unread = ahead_to_read(now, rows)
        sparse = between_reads(now, rows) * now.rate > SPARSE * DAMPED
        code, h, planned = pause(task, now, remaining, sparse, trial, grown), 0.0, now.step
        if code == ACCEPTED and blows_up(work.state, now):
            code = STEP_TOO_SMALL
        if code == ACCEPTED:
            code, h = next_step(method, tasks, clock, remaining, unread, work, trial)
        if code != ACCEPTED:  # in particular: nothing changes any more before t overflows
            return code, row
        last = h in (remaining, unread)
        move_clock(now, h, task.end if h == remaining else rows.wanted[now.saved], last)
        if last:  # cut short: the next one need not be
            now.step = max(now.step, planned)
        finish(method, tasks[0], now, reference, work, trial)
        now.steps += 1
        now.unsaved = 1


@jit
def advance_each(
    parts, tasks, clocks, references, grown, works, wanted, rows, members, codes, saved
):
    """Integrate some members of a stack of runs, each as `advance` does, until it has to pause.

    The arrays of a run are those of `Work` and of `Rows`, one for each along a first dim; what
    `advance` returns of each is written to ``codes`` and ``saved``.
    """
    states, before, coefficients, stages = works
    times, images = rows
    for k in members:
        work = Work(states[k], before[k], coefficients[k], stages[k])
        codes[k], saved[k] = advance(
            parts, tasks[k : k + 1], clocks[k : k + 1], references[k], grown[k], work,
            Rows(wanted, times[k], images[k]),
        )  # fmt: skip


@jit
def evaluate_each(field, params, states, out):
    """Write the field of an autonomous system at each row of ``states``."""
    for i in range(states.shape[0]):
        field(0.0, states[i], params, out[i])


@jit
def iterate(field, params, alpha, beta, first, last, stride, x, image, states):
    """Iterate from number ``first`` to ``last``; save each number that ``stride`` divides.

    ``x`` is left at the last state that is finite. Return its number and the rows saved.
    """
    row = 0
    for number in range(first, last):
        field(float(number), x, params, image)
        for i in range(x.size):
            image[i] = alpha * x[i] + beta * image[i]
        if not all_finite(image):
            return number, row
        copy(image, x)
        if (number + 1) % stride == 0:
            copy(x, states[row])
            row += 1
    return last, row


_VECTOR, _MATRIX, _FIELD = types.float64[::1], types.float64[:, ::1], types.FunctionType(FIELD)
CLOCKS = numba.from_dtype(CLOCK)[::1]
WORK = types.NamedTuple((_VECTOR, _VECTOR, _MATRIX, _MATRIX), Work)


def driver(parts):
    """Return the signature of the loop for the types of what a method asks of a system."""
    rows = types.NamedTuple((_VECTOR, _MATRIX, _MATRIX), Rows)
    tasks = numba.from_dtype(TASK)[::1]
    returned = types.Tuple((types.int64, types.int64))
    return returned(types.Tuple(parts), tasks, CLOCKS, _VECTOR, _VECTOR, WORK, rows)


TABLES = types.NamedTuple((_VECTOR, types.int64[::1], _MATRIX, _MATRIX), Tables)
#: ``own_step(parts, tables, tasks, clock, remaining, unread, work, trial)``
OWN_STEP = types.Tuple((types.int64, types.float64))(
    *(types.Tuple((PARAMS, _FIELD, _FIELD)), TABLES, numba.from_dtype(TASK)[::1], CLOCKS),
    *(types.float64, types.float64, WORK, types.NamedUniTuple(_VECTOR, 5, Trial)),
)
_EXPLICIT = (
    *(PARAMS, _FIELD, _FIELD, types.FunctionType(RESTORE), types.FunctionType(RESTORE)),
    *(TABLES, types.FunctionType(OWN_STEP), types.FunctionType(OWN_STEP)),
)
ADVANCE = driver(_EXPLICIT)
_STACK, _NUMBERS = types.float64[:, :, ::1], types.int64[::1]
ADVANCE_EACH = types.void(
    *(types.Tuple(_EXPLICIT), numba.from_dtype(TASK)[::1], CLOCKS, _MATRIX, _MATRIX),
    types.Tuple((_MATRIX, _MATRIX, _STACK, _STACK)),
    *(_VECTOR, types.Tuple((_STACK, _STACK)), _NUMBERS, _NUMBERS, _NUMBERS),
)
EVALUATE_EACH = types.void(_FIELD, PARAMS, _MATRIX, _MATRIX)
ITERATE = types.Tuple((types.int64, types.int64))(
    *(_FIELD, PARAMS, types.float64, types.float64, types.int64, types.int64, types.int64),
    *(_VECTOR, _VECTOR, _MATRIX),
)


@jit
def error_scale(t, x, params, out):
    """Write the root mean square of the state: the scale of a system that names no better one."""
    total = 0.0
    for i in range(x.size):
        total += x[i] * x[i]
    out[:] = np.sqrt(total / x.size)


@jit
def grouped_scale(t, x, params, out):
    """Write the size of each component, and of the group that it belongs to, as the integers say.

    First whether a component is judged by the largest of its group; if not, by itself as long as it
    is more than a part of that. Then for each component the number of its group, −1 if it has none.
    """
    numbers, sizes = params[0], np.zeros(x.size)
    share = 1.0 if numbers[0] == 1 else GROUP_SHARE
    for i in range(x.size):
        group = numbers[1 + i]
        if group >= 0:
            sizes[group] = max(sizes[group], abs(x[i]))
    for i in range(x.size):
        group = numbers[1 + i]
        out[i] = abs(x[i]) if group < 0 else max(abs(x[i]), share * sizes[group])


@jit
def keep(x, params, reference, rtol, thorough):
    """Leave the state as it is: what restores the invariants of a system that names none.

    It also is what tells whether they hold where that takes as long as to restore them.
    """
    return False


#: What stands for the tables where they are not at hand.
NO_TABLES = Tables(np.empty(0), np.empty(0, np.int64), np.empty((0, 3)), np.empty((0, 15)))


@jit
def no_step(parts, tables, tasks, clock, remaining, unread, work, trial):
    """Stand for a step that is not at hand."""
    return REFUSED, 0.0


@jit
def no_jacobian(t, x, params, out):
    """Stand for the Jacobian of a system that has none."""
    out[:] = np.nan


@jit
def no_jvp(t, x, v, params, out):
    """Stand for the directional derivative of a system that has none."""
    out[:] = np.nan
