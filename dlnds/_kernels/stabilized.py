"""Stabilized explicit steps of order 4: what plateaus of systems that are not small ask for.

The linearization of a gradient flow has real eigenvalues, and between two escapes nothing moves but
what is not learnt yet, while the largest of them limit explicit steps. With s evaluations of the
field a step is stable here for eigenvalues down to −0.35 s² over its length, where the pair 8(5,3)
reaches −0.5 for each evaluation.

The construction is that of ROCK4 (Abdulle, *Fourth order Chebyshev methods with recurrence
relation*, SIAM J. Sci. Comput. 23 (2002) 2041–2054). The stability polynomial is R = w P: w has
degree 4 and no real zero, and P, of degree s − 4, is orthogonal for w²/√(1 − x²) on [−1, 1], so
that a recurrence of three terms makes its stages. Four more stages, with w for their stability
polynomial, raise the order to 4. R(0) = R′(0) = … = R⁗(0) = 1 and |R| ≤ 0.95 at all extrema decide
w and the place of z = 0 in terms of x; the conditions of order 4 decide the last stages but for two
numbers. The table has these for some s; the recurrence is computed from it.

Rounding of the last stage of P is multiplied by w(z), which is 0.01 z⁴ where z is large: 2e5 where
14 stages reach, with which what has decayed is noise of 1e-9. With 40 it would be 1e-6.
"""

import functools
from typing import Any

import numpy as np

from dlnds._kernels.dense import copy, length
from dlnds._kernels.jit import jit, part, sums
from dlnds._kernels.runge_kutta import (
    ACCEPTED,
    CALM_STEPS,
    DAMPED,
    END_REACHED,
    FASTEST,
    NOTHING,
    PRICE,
    REFUSED,
    SAFETY,
    SLOWEST,
    Tables,
    all_finite,
    growth,
    set_tolerance,
)

#: For each number of stages s, where x = a + z/d: s² (1 − Re x) and s² Im x at one pair of zeros of
#: w and at the other, s² (a − 1); then the weights of the last stages: a21, a31, a32, a41, a42,
#: a43, b1, …, b4.
# fmt: off
TABLE = {
    5: (2.86204760249885, 23.3083656775136, 17.4646963845324, 8.86953449326406, -1.05094905473462,
     0.3096868580039167, -0.2086944338401528, 0.5874166618373676, -0.1017661217646357,
     0.0134284804020482, 0.9557084965851723, -0.01303136513592389, 0.4001401816084842,
     0.3025154302270379, 0.1340794622754204),
    6: (2.71485181741414, 21.972494661969, 16.6386474181576, 8.38277420996606, -1.1378211056303,
     0.2688163849789292, -0.2176539756962327, 0.5578330985746306, -0.1157074836844079,
     -0.002589938887735092, 0.9253816626790822, -0.04120853671048223, 0.384518974063305,
     0.2928976910546472, 0.1267960023809026),
    7: (2.67193116098803, 21.392334559909, 16.2131442990707, 8.11968959536468, -1.14073352830219,
     0.2589330041118711, -0.2019156818282467, 0.5275537670386719, -0.1071046903192744,
     -0.00837615105895593, 0.8908526083078006, -0.03545882354851494, 0.3628567113494859,
     0.2834782668354365, 0.1228726738197186),
    8: (2.66982716573104, 21.0764108562106, 15.9602337687993, 7.95661018184345, -1.13408693651757,
     0.2578434145777536, -0.1841063180022869, 0.503508914742737, -0.09575346523997004,
     -0.01084528291510123, 0.8628701725501083, -0.02378326524910455, 0.3446058627297566,
     0.2759850473649884, 0.1203566359278574),
    9: (2.68130296715848, 20.8821553866332, 15.7963845827369, 7.84773908674039, -1.12725378245889,
     0.2593824683374448, -0.1688490549740623, 0.4853351075378713, -0.08593324163058239,
     -0.01201523664092515, 0.8416304094666187, -0.01281011250258595, 0.3306284230766319,
     0.2703097258921436, 0.1186391873892521),
    10: (2.69626944237854, 20.752984760005, 15.6836771272661, 7.77122154969855, -1.12156516308538,
     0.2615823121772252, -0.1565790562392254, 0.4716235121555992, -0.07813412647718106,
     -0.01261189249168954, 0.8256047756193164, -0.003742291167889276, 0.3200819768032624,
     0.2660226776744298, 0.1174193914374013),
    11: (2.71105642726492, 20.6622072800079, 15.6025892758594, 7.71530611148884, -1.11699729782972,
     0.2637841068934936, -0.1468387598985684, 0.4611508791322143, -0.07204610798092673,
     -0.01293300081647755, 0.8133765851352273, 0.003515686653651316, 0.3120573574908699,
     0.2627457433713456, 0.1165252816560806),
    12: (2.72452475063282, 20.595731479394, 15.5422693068045, 7.67317223648441, -1.11341391910062,
     0.2657784556910997, -0.1390821119951438, 0.4530229136740788, -0.06727704513590137,
     -0.01311276102591713, 0.8038964555145054, 0.009303535952203712, 0.3058585410876799,
     0.2602009318745047, 0.1158521342135967),
    14: (2.74648754407577, 20.5064281525283, 15.4598857335921, 7.61491687673421, -1.1081867165065,
     0.2690230140045891, -0.1277737441323167, 0.441451617991745, -0.06051401490846732,
     -0.01325236698766386, 0.7904606113881305, 0.01771306547335301, 0.2971049301586703,
     0.2565833914764671, 0.1149263920199064),
}
# fmt: on
ORDER = 4
#: What a step errs by for x' = λx in terms of (λh)⁵, if it has many stages (three times as much if
#: 5), and the part of the error allowed that it may make: over a plateau errors add up, and the
#: pair 8(5,3) makes far smaller ones there.
FIFTH, SHARE = 1.4e-3, 1e-3
#: By what the largest eigenvalue may exceed its estimate, and how much of it is still reckoned with
#: a step later; evaluations to estimate it anew; steps refused in a row before the method is given
#: up.
MARGIN, KEEP, LOOKS, REFUSALS = 1.1, 0.9, 20, 5
#: Which part of the price of the other method these must be worth for them to be tried again at
#: once, and how often they are not to be, if not.
CHEAPER, PAUSES = 0.7, 2
#: The length of the differences that it is estimated from, relative to the state.
SHIFT = 1e-7


def polynomials(count: int) -> tuple[Any, float]:
    """Return the recurrence of P, a row (μ, ν, κ) for each stage, and how far R is stable.

    A stage is μ h f(g) + ν g + κ g₋ with the stages g and g₋ before it.
    """
    first, first_height, second, second_height, shift = np.array(TABLE[count][:5]) / count**2
    pairs = ((1.0 - first, first_height**2), (1.0 - second, second_height**2))
    place, degree = 1.0 + shift, count - 4
    x = np.cos(np.pi * (np.arange(count + 4) + 0.5) / (count + 4))  # of Gauss and Chebyshev
    weight = np.prod([((x - real) ** 2 + square) ** 2 for real, square in pairs], axis=0)
    before, here, norm, ratio, slopes = np.zeros_like(x), np.ones_like(x), 1.0, 0.0, (0.0, 0.0)
    rows = np.zeros((degree, 3))
    for j in range(degree):
        size = float(weight @ here**2)
        centre, coupling = float(weight @ (x * here**2)) / size, size / norm if j else 0.0
        before, here, norm = here, (x - centre) * here - coupling * before, size
        gap, fed = place - centre, coupling * ratio
        ratio = 1.0 / (gap - fed)  # of the values at a of one polynomial and the next
        rows[j] = ratio, gap * ratio, -fed * ratio
        slopes = slopes[1], ratio * (1.0 + gap * slopes[1] - fed * slopes[0])
    slope = slopes[1]
    for real, square in pairs:
        slope += 2.0 * (place - real) / ((place - real) ** 2 + square)
    rows[:, 0] /= slope
    return rows, float((1.0 + place) * slope)


def image_weights(weights: Any) -> Any:
    """Return the elementary weights of h f(g), for those of g.

    In the order of trees τ, [τ], [τ, τ], [[τ]], [τ, τ, τ], [τ, [τ]], [[τ, τ]], [[[τ]]].
    """
    c, once, square, twice = weights[:4]
    return np.array([1.0, c, c * c, once, c**3, c * once, square, twice])


def embedded(count: int) -> Any:
    """Return the weights of the four last h f, and of that halfway to them, whose sum has order 3.

    For x' = λx it is (λh)⁴ to lowest order. The derivative at the end of the step would do in place
    of the fifth, but where λh is large it says nothing, and a lot of it.
    """
    rows, last = polynomials(count)[0], TABLE[count][5:]
    before, here, images = np.zeros(8), np.zeros(8), []
    for factor, one, two in rows:
        images.append(image_weights(here))
        before, here = here, factor * images[-1] + one * here + two * before
    halfway, images = images[len(rows) // 2], [image_weights(here)]
    for coefficients in (last[:1], last[1:3], last[3:6]):
        parts = zip(coefficients, images, strict=True)
        images.append(image_weights(here + sum(a * image for a, image in parts)))
    found = np.array([*images, halfway])
    null = np.linalg.svd(found[:, :4].T)[2][-1]
    return null / (null @ found[:, 7])


@functools.cache
def tables() -> Tables:
    """Return what `step` needs: it takes some tens of milliseconds, once in a process."""
    made = [polynomials(count) for count in TABLE]
    last = [[*TABLE[count][5:], *embedded(count)] for count in TABLE]
    sizes = [len(rows) for rows, _ in made]
    return Tables(
        np.array([reach for _, reach in made]),
        np.cumsum([0, *sizes]),
        np.concatenate([rows for rows, _ in made]),
        np.array(last),
    )


@sums
def recur(factor, slope, one, here, two, out):
    """Overwrite the stage before the last by the next."""
    for i in range(out.size):
        out[i] = factor * slope[i] + one * here[i] + two * out[i]


@sums
def add_one(x, a, first, out):
    """Write ``x + a first``."""
    for i in range(out.size):
        out[i] = x[i] + a * first[i]


@sums
def add_two(x, a, first, b, second, out):
    """Write ``x + a first + b second``."""
    for i in range(out.size):
        out[i] = x[i] + a * first[i] + b * second[i]


@sums
def add_three(x, a, first, b, second, c, third, out):
    """Write ``x + a first + b second + c third``."""
    for i in range(out.size):
        out[i] = x[i] + a * first[i] + b * second[i] + c * third[i]


@part
def chain(field, params, t, x, h, recurrence, stages):
    """Make the stages of P; return the row of ``stages`` that has the last, and its node.

    Row 8 has the derivative halfway.
    """
    here, other, node, before = 1, 2, h * recurrence[0, 0], 0.0
    halfway = recurrence.shape[0] // 2
    add_one(x, node, stages[0], stages[1])
    copy(x, stages[2])
    copy(stages[0], stages[8])
    for j in range(1, recurrence.shape[0]):
        factor, one, two = h * recurrence[j, 0], recurrence[j, 1], recurrence[j, 2]
        field(t + node, stages[here], params, stages[3])
        if j == halfway:
            copy(stages[3], stages[8])
        recur(factor, stages[3], one, stages[here], two, stages[other])
        node, before = factor + one * node + two * before, node
        here, other = other, here
    return here, node


@part
def try_step(field, params, t, x, h, recurrence, last, stages, end):
    """Take a step to ``end``; rows 4 to 8 of ``stages`` are what its error is made of."""
    row, node = chain(field, params, t, x, h, recurrence, stages)
    g, first, second, third = stages[row], stages[4], stages[5], stages[6]
    field(t + node, g, params, first)
    add_one(g, h * last[0], first, end)
    field(t + node + h * last[0], end, params, second)
    add_two(g, h * last[1], first, h * last[2], second, end)
    field(t + node + h * (last[1] + last[2]), end, params, third)
    add_three(g, h * last[3], first, h * last[4], second, h * last[5], third, end)
    field(t + node + h * (last[3] + last[4] + last[5]), end, params, stages[7])
    add_three(g, h * last[6], first, h * last[7], second, h * last[8], third, end)
    add_one(end, h * last[9], stages[7], end)
    field(t + h, end, params, stages[12])


@sums
def error_norm(h, last, stages, tolerance, error):
    """Write what the embedded formula differs by; return its root mean square by ``tolerance``."""
    total = 0.0
    for i in range(tolerance.size):
        value = last[10] * stages[4, i] + last[11] * stages[5, i] + last[12] * stages[6, i]
        error[i] = h * (value + last[13] * stages[7, i] + last[14] * stages[8, i])
        total += (error[i] / tolerance[i]) ** 2
    return np.sqrt(total / tolerance.size)


@part
def look(field, params, now, work, state, most):
    """Estimate the largest eigenvalue by some steps of the power method, along differences.

    The direction is kept in the last row of ``stages`` from one step to the next.
    """
    x, derivative, direction = work.state, work.stages[0], work.stages[15]
    rate, size = 0.0, length(direction)
    if not (size > 0.0 and np.isfinite(size)):
        for i in range(x.size):
            direction[i] = np.sin(1.0 + i)
        size = length(direction)
    shift = SHIFT * max(length(x), NOTHING)
    for _ in range(most):
        add_one(x, shift / size, direction, state)
        field(now.time, state, params, direction)
        now.evaluations += 1
        for i in range(x.size):
            direction[i] -= derivative[i]
        before, rate, size = rate, length(direction) / shift, length(direction)
        if not (size > 0.0 and np.isfinite(size)) or abs(rate - before) <= 0.02 * rate:
            break
    now.rate = max(rate, KEEP * now.rate) if np.isfinite(rate) else now.rate


@part
def chosen(tables, reach, most):
    """Return which row of the table reaches so far."""
    k = 0
    while k < most and tables.reach[k] < reach:
        k += 1
    return k


@part
def leave(now, h):
    """Go back to the other explicit method after a step, and note what these steps took.

    Its steps are as long by now, or there were so many here that what has decayed is to be damped
    well for once: so that it is seen which modes are learnt.
    """
    spent, advance = now.evaluations - now.entered, now.time + h - now.since
    now.stabilized = now.stiff = now.calm = 0
    now.spent += spent
    now.price = spent / advance if advance > 0.0 else np.inf
    now.futile = PAUSES if now.price * DAMPED > CHEAPER * PRICE * now.rate else 0
    if now.rate > 0.0:
        now.step = min(now.step, DAMPED / now.rate)


@jit
def step(parts, tables, tasks, clock, remaining, unread, work, trial):
    """Make a step whose error is acceptable; return a code and the step, as `accepted_step` does.

    It ends at what is read next. It is refused, and the method given up for the rest of the run, if
    it fails again and again: where eigenvalues are not real.
    """
    (params, field, error_scale), task, now = parts, tasks[0], clock[0]
    x, stages, tolerance = work.state, work.stages, trial.tolerance
    look(field, params, now, work, trial.state, 1 if now.rate > 0.0 else LOOKS)
    bearable = (SHARE * task.rtol / FIFTH) ** (ORDER / (ORDER + 1.0)) / task.rtol
    limit, most = FASTEST, task.stages
    for _ in range(REFUSALS):
        longest = tables.reach[most] / (MARGIN * now.rate) if now.rate > 0.0 else np.inf
        h = min(now.step, longest)
        if 1.01 * h >= remaining:
            h = remaining
        h = min(h, unread)
        if not np.isfinite(now.time + h):
            return END_REACHED, h
        k = chosen(tables, MARGIN * h * now.rate, most)
        recurrence = tables.recurrence[tables.firsts[k] : tables.firsts[k + 1]]
        try_step(field, params, now.time, x, h, recurrence, tables.last[k], stages, trial.state)
        now.evaluations += recurrence.shape[0] + ORDER
        error_scale(now.time + h, trial.state, params, trial.scale)
        set_tolerance(task, trial)
        error = error_norm(h, tables.last[k], stages, tolerance, stages[13]) / bearable
        finite = np.isfinite(error) and all_finite(trial.scale) and all_finite(trial.state)
        if finite and error <= 1.0:
            now.step = h * growth(error, SAFETY, 1.0, ORDER, limit)
            now.between = 0.0
            now.calm = now.calm + 1 if now.step * now.rate < DAMPED else 0
            if now.calm >= CALM_STEPS or now.evaluations - now.entered > task.stint:
                leave(now, h)
            return ACCEPTED, h
        now.step = h * (growth(error, SAFETY, 1.0, ORDER, 1.0) if finite else SLOWEST)
        limit = 1.0
        if finite:
            copy(stages[13], stages[15])
        look(field, params, now, work, trial.state, LOOKS)
    leave(now, 0.0)
    now.stabilized = -1
    return REFUSED, 0.0
