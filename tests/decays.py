"""Weight decay on linear networks in closed form, and what that says of a whole branch.

Aligned and balanced states, one size s_j for each mode j of an index set S, all layers alike:
λ = s_j^{h−2} (σ_j − s_j^h). The first mode that a growing λ ends, the smallest of S, parametrizes
the branch: it folds at λ_fold (h ≥ 3) or passes zero at λ = σ (h = 2), and λ goes back again.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

import dlnds as dl

#: Errors of s of a last Newton step of 1e-12, relative to the state, times |dλ/ds|.
ON_CURVE = 1e-9
#: Zeros of eigenvalues are where theory has them.
PLACE = 1e-9


class Case(NamedTuple):
    """A branch to be followed: ``roots`` has a letter for each mode of ``modes``, u or l."""

    sigma: tuple[float, ...]
    widths: tuple[int, ...]
    modes: tuple[int, ...]
    roots: str
    p0: float
    bounds: tuple[float, float]

    @property
    def depth(self):
        return len(self.widths) - 1


def decay_of(s, sigma, h):
    """λ of a mode of size s."""
    return s ** (h - 2) * (sigma - s**h)


def fold_of(sigma, h):
    """Size and λ at which the two roots of a mode meet; of two layers they meet at zero."""
    s = ((h - 2) * sigma / (2 * h - 2)) ** (1.0 / h)
    return s, decay_of(s, sigma, h)


def root(sigma, h, decay, which):
    """The size s ≥ 0 of a mode on its upper or lower root, negative ones not among them."""
    s_fold, _ = fold_of(sigma, h)
    high = (sigma + abs(decay) * max(1.0, sigma) + 1.0) ** (1.0 / h) + abs(decay)
    low, high = (s_fold, high) if which == "u" else (0.0, s_fold)
    return brentq(lambda s: decay_of(s, sigma, h) - decay, low, high, xtol=1e-15, rtol=1e-15)


def network(case):
    target = np.zeros((case.widths[-1], case.widths[0]))
    target[range(len(case.sigma)), range(len(case.sigma))] = case.sigma
    return dl.LinearNetwork(widths=case.widths, target=target)


def state(case, net):
    """The start in closed form, the modes of S on hidden units 1..r."""
    h = case.depth
    sizes = [
        root(case.sigma[j], h, case.p0, which)
        for j, which in zip(case.modes, case.roots, strict=True)
    ]
    units = range(len(sizes))
    places = [case.modes, *[units] * (h - 1), case.modes]
    layers = []
    for i, (before, after) in enumerate(itertools.pairwise(case.widths)):
        w = np.zeros((after, before))
        w[list(places[i + 1]), list(places[i])] = sizes
        layers.append(w)
    return net.pack(layers)


def spectrum(case, sizes, decay):
    """Eigenvalues of the Hessian across the orbit with how often each comes: theory2.md, G."""
    h, widths, modes = case.depth, case.widths, case.modes
    m, most, r = min(widths[0], widths[-1]), max(widths[0], widths[-1]), len(case.modes)
    sigma = [*case.sigma, *[0.0] * (m - len(case.sigma))][:m]
    others = [q for q in range(m) if q not in modes]
    found = []
    for j, s in zip(modes, sizes, strict=True):
        found += [(h * s ** (2 * h - 2) - (h - 2) * decay, 1), (2.0 * decay, h - 1)]
        found += [(s ** (h - 2) * (sigma[j] + sign * sigma[q]), 1)
                  for q in others for sign in (1, -1)]  # fmt: skip
        found += [(s ** (h - 2) * sigma[j], most - m)]
    for a, b in itertools.combinations(sizes, 2):
        kappa = sum(a ** (2 * (h - i)) * b ** (2 * (i - 1)) for i in range(1, h + 1))
        mu = sum((b / a) ** (h - 2 - 2 * i) for i in range(h - 1))
        found += [(kappa + decay * (1.0 - mu), 1), (kappa + decay * (1.0 + mu), 1)]
        found += [(2.0 * decay, h - 1)]
    found += [(2.0 * decay, r * (d - r)) for d in widths[1:-1]]
    if h >= 3:
        found += [(decay, sum((d - r) * (e - r) for d, e in itertools.pairwise(widths)))]
    else:
        free = widths[1] - r
        found += [(decay + sign * sigma[q], free) for q in others for sign in (1, -1)]
        found += [(decay, free * (most - m))]
    return [(value, count) for value, count in found if count]


def orbit_dimension(widths, rank):
    """Of the orthogonal groups of the hidden layers at a state of this rank."""
    return sum((d * (d - 1) - (d - rank) * (d - rank - 1)) // 2 for d in widths[1:-1])


class Special(NamedTuple):
    kinds: tuple[str, ...]
    p: float
    kernel: int


def expected(case):
    """The special points in the order of the branch, from one of its ends to the other.

    A branch that turns at the very bound may end there.
    """
    h, low, high, r = case.depth, *case.bounds, len(case.modes)
    end = end_of(case)
    sides = sorted((q for q in _crossings(case) if low <= q.p <= high and q.p < end), key=_place)
    if end > high:
        return sides
    tied = [case.sigma[j] for j in case.modes].count(min(case.sigma[j] for j in case.modes))
    free = case.widths[1] - r
    if h >= 3:  # symmetric matrices on the tied modes
        kinds = ("fold",) if tied == 1 else ("fold", "branch_point")
        turn = Special(kinds, end, tied * (tied + 1) // 2)
    else:
        kinds = ("branch_point", "symmetry_change") if free or tied > 1 else ("branch_point",)
        turn = Special(kinds, end, tied * (free + tied))
    return [*sides, turn, *sides[::-1]]


def end_of(case):
    """The λ at which the branch turns: the first mode of S folds, or dies (two layers)."""
    first = min((case.sigma[j] for j in case.modes), default=np.inf)
    return fold_of(first, case.depth)[1] if case.depth >= 3 and case.modes else first


def _place(special):
    return special.p


def _crossings(case):
    """Where other eigenvalues vanish: at λ = 0, and of two layers at λ = ±σ_q."""
    h, r, m = case.depth, len(case.modes), min(case.widths[0], case.widths[-1])
    free = case.widths[1] - r
    others = [*case.sigma, *[0.0] * (m - len(case.sigma))]
    others = [s for q, s in enumerate(others) if q not in case.modes]
    if h >= 3:
        kernel = sum((d - r) * (e - r) for d, e in itertools.pairwise(case.widths))
    else:
        kernel = free * (abs(case.widths[0] - case.widths[-1]) + 2 * others.count(0.0))
        for s in set(others) - {0.0}:
            count = free * others.count(s)
            yield from (Special(("branch_point",), p, count) for p in (s, -s) if free)
    if r:  # the orbit is that of GL
        kinds = ("symmetry_change", "branch_point") if kernel else ("symmetry_change",)
        yield Special(kinds, 0.0, kernel)
    elif kernel:
        yield Special(("branch_point",), 0.0, kernel)


def events(branch):
    """Kind, p, and dimension of the kernel of the special points."""
    found = branch.isel(step=np.flatnonzero(branch["event"].values > 0))
    kinds = dl.schema.decode(found.event).values.tolist()
    places, kernels = found.p.values.tolist(), found.kernel_dimension.values.tolist()
    return list(zip(kinds, places, kernels, strict=True))


def followed(case, **options):
    """The branch of a case as a user calls it, and its network."""
    net = network(case)
    equation = dl.equilibria(net, vary="weight_decay")
    return net, dl.branch(equation, state(case, net), case.p0, bounds=case.bounds, **options)


def complaints(case, net, branch):
    """What is wrong with a branch, all of it, the first thing first."""
    found = [*_places(case, branch), *_sizes(case, net, branch), *_indices(case, net, branch)]
    return [*found, *_specials(case, branch), *_ends(case, branch), *_start(case, branch)]


def _places(case, branch):
    p, (low, high) = branch.p.values, case.bounds
    outside = (p < low) | (p > high)
    if outside.any():
        yield f"{outside.sum()} of {len(p)} rows are out of bounds, the first at {p[outside][0]!r}"
    if not np.isfinite(branch.state.values).all():
        yield "a state is not finite"


def _start(case, branch):
    p = branch.p.values[int(branch.attrs["start_step"])]
    if p != case.p0:
        yield f"start_step is at p = {p!r}, not at {case.p0}"


def sizes_of(case, net, x):
    """Signed sizes of the modes of S, and how far the layers are from aligned and balanced."""
    layers, h = net.unpack(x), case.depth
    W = np.linalg.multi_dot(layers[::-1])
    p = W[list(case.modes), list(case.modes)]
    sizes = np.sign(p) * np.abs(p) ** (1.0 / h)
    rest = W.copy()
    rest[list(case.modes), list(case.modes)] = 0.0
    scale = max(1.0, np.linalg.norm(x))
    off = np.abs(rest).max(initial=0.0) / scale**h
    want = np.sort(np.abs(sizes))[::-1]
    for w in layers:
        values = np.linalg.svd(w, compute_uv=False)
        whole = np.zeros(len(values))
        whole[: len(want)] = want
        # p is known to 1e-12, so a small s to 1e-12/h: compare what both know.
        off = max(off, np.abs(values**h - whole**h).max() / scale**h)
    return sizes, off


def _sizes(case, net, branch):
    h, modes = case.depth, case.modes
    rows = [sizes_of(case, net, x) for x in branch.state.values]
    off = np.array([row[1] for row in rows])
    if off.max() > 1e-9:
        yield f"row {off.argmax()} is off the aligned balanced states by {off.max():.2e}"
    if not modes:
        return
    sizes, p = np.array([row[0] for row in rows]), branch.p.values
    first = int(np.argmin([case.sigma[j] for j in modes]))
    for k, (j, which) in enumerate(zip(modes, case.roots, strict=True)):
        sigma, s = case.sigma[j], np.abs(sizes[:, k])
        # F along the mode: s (λ(s) − λ), what a Newton step of 1e-12 leaves of it.
        gap = np.abs(s * (decay_of(s, sigma, h) - p))
        if gap.max() > ON_CURVE * max(1.0, sigma):
            row = gap.argmax()
            yield f"row {row}: λ(s_{j}) is {decay_of(s, sigma, h)[row]!r}, p is {p[row]!r}"
        other = s < fold_of(sigma, h)[0] if which == "u" else s > fold_of(sigma, h)[0]
        if sigma > case.sigma[modes[first]] and h >= 3 and other.any():
            yield f"row {other.argmax()}: mode {j} is not on its root {which} any more"
    way = np.diff(sizes[:, first])
    if h == 2 and end_of(case) <= case.bounds[1]:  # it passes zero, or ends there
        sign = np.where(np.arange(len(p)) > sizes[:, first].argmin(), -1.0, 1.0)
        way = np.diff(sign * sizes[:, first])
    if not ((way > 0.0).all() or (way < 0.0).all()):
        yield f"the size of mode {modes[first]} goes forth and back along the branch"


def _numbers(case, net, branch, k):
    """Signs of the eigenvalues by theory at a row: index and dimension of the orbit."""
    p = float(branch.p[k])
    sizes = np.abs(sizes_of(case, net, branch.state.values[k])[0])
    values = spectrum(case, sizes, p)
    index = sum(count for value, count in values if value < 0.0)
    return index, orbit_dimension(case.widths, len(case.modes))


def _indices(case, net, branch):
    event = branch.event.values > 0
    index, orbit = branch["index"].values, branch.orbit_dimension.values
    nullity = branch.nullity.values
    for k in np.flatnonzero(~event):
        known, group = _numbers(case, net, branch, k)
        place = f"row {k}, p = {float(branch.p[k])!r}: "
        if index[k] != known:
            yield place + f"index {index[k]}, theory says {known}"
        if orbit[k] != group:
            yield place + f"orbit_dimension {orbit[k]}, theory says {group}"
        if nullity[k] != group:
            yield place + f"nullity {nullity[k]} without an event, theory says {group}"
    rows = np.column_stack([index, orbit, nullity])
    for k in range(len(rows) - 1):
        if not event[k] and not event[k + 1] and (rows[k] != rows[k + 1]).any():
            yield f"rows {k}, {k + 1}: {rows[k]} becomes {rows[k + 1]} without an event"


def _specials(case, branch):
    known, got = expected(case), events(branch)
    orders = [known, known[::-1]]
    if end_of(case) == case.bounds[1]:
        half = known[: len(known) // 2 + 1]
        orders += [half, half[::-1]]
    if not any(_is_same(got, order) for order in orders):
        words = ", ".join(f"{'/'.join(q.kinds)} at {q.p:.12g} ({q.kernel})" for q in known)
        said = ", ".join(f"{kind} at {p:.12g} ({kernel})" for kind, p, kernel in got)
        yield f"special points [{said}], theory has [{words}]"


def _is_same(got, known):
    return len(got) == len(known) and all(
        kind in q.kinds and abs(p - q.p) <= PLACE * max(1.0, q.p) and kernel == q.kernel
        for (kind, p, kernel), q in zip(got, known, strict=True)
    )


def _ends(case, branch):
    low, high = case.bounds
    end = end_of(case)
    wanted = [[low, low]] * (end <= high) + [[low, high]] * (end >= high)
    stops = [branch.attrs["first_stop"], branch.attrs["last_stop"]]
    if stops != ["bound_reached"] * 2:
        yield f"stops {stops}, both ends are at bounds"
    if sorted(branch.p.values[[0, -1]].tolist()) not in wanted:
        yield f"ends at p = {branch.p.values[[0, -1]].tolist()}, not {wanted[0]}"


# Cases.


def starts(sigma, widths, p0, bounds):
    """Every index set with every choice of roots that has a solution at p0.

    Of equal singular values all are learnt, on the same root, or none: others lie on a continuum.
    """
    h, most = len(widths) - 1, min(*widths, np.count_nonzero(sigma))
    for r in range(most + 1):
        for modes in itertools.combinations(range(len(sigma)), r):
            if any(not 0.0 < p0 < fold_of(sigma[j], h)[1] for j in modes) or not all(
                sigma[j] for j in modes
            ):
                continue
            if {sigma[j] for j in modes} & {sigma[q] for q in range(len(sigma)) if q not in modes}:
                continue
            for roots in itertools.product("ul" if h >= 3 else "u", repeat=r):
                pairs = {(sigma[j], which) for j, which in zip(modes, roots, strict=True)}
                if len(pairs) > len({sigma[j] for j in modes}):
                    continue
                yield Case(tuple(sigma), tuple(widths), modes, "".join(roots), p0, bounds)


def passing(case, net, branch):
    """What is wrong with a branch on which modes pass zero with λ; it may say that it ends."""
    yield from (*_places(case, branch), *_start(case, branch))
    h, p = case.depth, branch.p.values
    rows = [sizes_of(case, net, x) for x in branch.state.values]
    sigma = np.array([case.sigma[j] for j in case.modes])
    gap = [np.abs(s * (decay_of(s, sigma, h) - q)).max() for (s, _), q in zip(rows, p, strict=True)]
    if max(gap) > ON_CURVE * sigma.max():
        yield f"row {int(np.argmax(gap))} is off the curve by {max(gap):.2e}"
    event, unit = branch.event.values > 0, np.eye(net.dim)
    for k in np.flatnonzero(~event):
        values = np.linalg.eigvalsh(-net.hessian(branch.state.values[k]) - p[k] * unit)
        size = 1e-9 * np.abs(values).max()
        known = (values > size).sum(), (np.abs(values) <= size).sum()
        found = int(branch["index"][k]), int(branch.nullity[k])
        if found != known and np.abs(p[k]) > 1e-3:
            yield f"row {k}, p = {p[k]!r}: index, nullity {found}, the Hessian has {known}"
    numbers = np.column_stack([branch["index"], branch.orbit_dimension, branch.nullity])
    for k in range(len(p) - 1):
        if not event[k] and not event[k + 1] and (numbers[k] != numbers[k + 1]).any():
            yield f"rows {k}, {k + 1}: {numbers[k]} becomes {numbers[k + 1]} without an event"
    told = {branch.attrs["first_stop"], branch.attrs["last_stop"]} - {"bound_reached"}
    if told - {"unresolved", "step_too_small"}:
        yield f"stops {told}"
    if not told and case.bounds[0] < 0.0 and not any(abs(q) < PLACE for _, q, _ in events(branch)):
        yield "passes λ = 0 without an event"
