"""Small wrongs, put into the package one at a time: the tests of the room must notice each.

Run by ``nox -s mutants``, or ``python tests/mutants.py [part of a name ...]``. Each wrong goes into
a copy of the installed package; what the tests do not notice is printed as a survivor.
"""

import concurrent.futures
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent
PACKAGE = Path(importlib.util.find_spec("dlnds").origin).parent
#: A run of tests that takes longer has noticed: a wrong that never ends is not overlooked.
MOST_SECONDS = 900.0


class Mutant(NamedTuple):
    """Text of a file of the package, which occurs there once, what it becomes, and who must see."""

    name: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "stabilized steps with fewer stages than their length needs",
        "_kernels/stabilized.py",
        "while k < most and tables.reach[k] < reach:",
        "while k < most and tables.reach[k] < 0.5 * reach:",
        ("kernels/test_stabilized.py", "runs/test_stabilized_runs.py"),
    ),
    Mutant(
        "derivative halfway of stabilized steps taken elsewhere",
        "_kernels/stabilized.py",
        "        if j == halfway:\n",
        "        if j == halfway - 1:\n",
        ("kernels/test_stabilized.py", "runs/test_stabilized_runs.py"),
    ),
    Mutant(
        "factors of a stage as if all before it had the weight of the first",
        "_kernels/low_rank.py",
        "overlaps[o, j] *= weights[j // outputs]",
        "overlaps[o, j] *= weights[0]",
        ("kernels/test_low_rank.py",),
    ),
    Mutant(
        "stages expanded from other rows of a layer",
        "_kernels/low_rank.py",
        "turned[q, o] = left[o, row + q]",
        "turned[q, o] = left[o, q]",
        ("kernels/test_low_rank.py",),
    ),
    Mutant(
        "dense output from stages that were not expanded",
        "_kernels/low_rank.py",
        "        write_stages(method, work.stages)\n",
        "        pass\n",
        ("kernels/test_low_rank.py",),
    ),
    Mutant(
        "equal singular values counted as distinct",
        "theory/spectra.py",
        "distinct=~equal(sigma),",
        "distinct=~np.eye(len(sigma), dtype=bool),",
        ("theory/test_spectra.py", "landscape"),
    ),
    Mutant(
        "curvature of empty outputs to the power h",
        "theory/spectra.py",
        "ends=s ** (2 * (depth - 1)),",
        "ends=s**depth,",
        ("theory/test_spectra.py", "landscape"),
    ),
    Mutant(
        "curvature between learnt modes with powers in the same order",
        "theory/spectra.py",
        "mixed=powers[:, ::-1] @ powers.T,",
        "mixed=powers @ powers.T,",
        ("theory/test_spectra.py", "landscape"),
    ),
    Mutant(
        "index of two layers counted in the narrowest of all layers",
        "theory/spectra.py",
        "spare = (widths[1] - ranks) * (~learnt",
        "spare = (min(widths) - ranks) * (~learnt",
        ("saddles/test_atlas.py",),
    ),
    Mutant(
        "departure although no hidden unit is free",
        "theory/spectra.py",
        "* (ranks < widths[1])",
        "* (ranks <= widths[1])",
        ("theory/test_spectra.py", "landscape"),
    ),
    Mutant(
        "a string that ends where another does has no map to it",
        "theory/strings.py",
        "if 0 <= reached <= n and inside:",
        "if 0 <= reached < n and inside:",
        ("landscape",),
    ),
    Mutant(
        "exchanges of strings that meet left out",
        "theory/strings.py",
        "if (meets or overlaps) and longer",
        "if overlaps and longer",
        ("landscape",),
    ),
    Mutant(
        "ranks decided without a clear gap",
        "theory/tolerances.py",
        "CLEAR_GAP = 10.0",
        "CLEAR_GAP = 1.0",
        ("landscape", "theory"),
    ),
    Mutant(
        "singular values tied too early",
        "theory/tolerances.py",
        "TIE = 1e-9",
        "TIE = 1e-6",
        ("landscape", "theory", "systems/test_linear.py"),
    ),
    Mutant(
        "modes learnt by a third",
        "theory/tolerances.py",
        "MODE = 1e-3",
        "MODE = 0.3",
        ("landscape", "theory"),
    ),
    Mutant(
        "modes of equal problems with other signs",
        "theory/moments.py",
        "return U * signs, sigma, Vt.T * signs",
        "return U, sigma, Vt.T",
        ("systems/test_linear.py",),
    ),
    Mutant(
        "sets that turn among equal values held fixed",
        "theory/moments.py",
        "return count_pairs(learnt, equal(sigma))",
        "return count_pairs(learnt, np.eye(len(sigma), dtype=bool))",
        ("saddles/test_atlas.py",),
    ),
    Mutant(
        "time on a ray without its order",
        "theory/laws.py",
        "/ (order * (order - 2.0) * value)",
        "/ ((order - 2.0) * value)",
        ("saddles/test_directions.py", "saddles/test_graph.py"),
    ),
    Mutant(
        "algebraic decay of a mode with another power",
        "theory/laws.py",
        "* (1.0 + depth * a * start**a * times) ** (-1.0 / a)",
        "* (1.0 + depth * a * start**a * times) ** (-1.0)",
        ("runs/test_exact.py",),
    ),
    Mutant(
        "strength of a swap with the whole depth",
        "theory/laws.py",
        "half = 0.5 * self.depth\n        beta",
        "half = 1.0 * self.depth\n        beta",
        ("saddles/test_graph.py",),
    ),
    Mutant(
        "group elements inverted by transposing",
        "theory/symmetry.py",
        "result[i + 1] = scipy.linalg.solve(p.T, result[i + 1].T).T",
        "result[i + 1] = result[i + 1] @ p.T",
        ("theory/test_symmetry.py", "landscape/test_quotient.py"),
    ),
    Mutant(
        "the imbalance without the later layer",
        "theory/symmetry.py",
        "w @ transposed(w) - transposed(after) @ after",
        "w @ transposed(w)",
        ("theory/test_symmetry.py", "runs/test_flow.py"),
    ),
    Mutant(
        "metric of the Riemannian flow with half of its terms",
        "theory/fixed_rank.py",
        "powers = s[:, None] ** (2.0 * np.arange(depth) / depth)",
        "powers = s[:, None] ** (1.0 * np.arange(depth) / depth)",
        ("systems/test_product.py",),
    ),
    Mutant(
        "Riemannian Hessian without the change of the metric",
        "theory/fixed_rank.py",
        "return operator(w, change + 0.5 * _transposed_change(w, Y, G)) + 0.5 * projection(w, own)",
        "return operator(w, change)",
        ("systems/test_product.py",),
    ),
    Mutant(
        "retraction of the first singular values in another order",
        "theory/fixed_rank.py",
        "root = np.sqrt(s[:k])\n    U, V",
        "root = np.sqrt(s[-k:])\n    U, V",
        ("systems/test_product.py",),
    ),
    Mutant(
        "r_max without the rank of the target",
        "systems/linear.py",
        "return min(*self.widths, int(np.count_nonzero(self.singular_modes[1])))",
        "return min(self.widths)",
        ("systems/test_linear.py", "landscape/test_landscape.py"),
    ),
    Mutant(
        "the loss above a bottleneck not lost",
        "systems/linear.py",
        "return 0.5 * float(np.sum(sigma[self._most_learnt :] ** 2))",
        "return 0.0",
        ("systems/test_linear.py", "runs/test_flow.py"),
    ),
    Mutant(
        "runs that end a thousand times too early",
        "systems/linear.py",
        "near = min(10.0 * rtol * math.sqrt(total), part * smallest)",
        "near = min(1e4 * rtol * math.sqrt(total), part * smallest)",
        ("runs/test_flow.py", "runs/test_plateaus.py"),
    ),
    Mutant(
        "deflation although learnt and open modes are joined",
        "theory/tolerances.py",
        "COUPLING = 1e-10",
        "COUPLING = 1e-3",
        ("runs/test_flow.py", "runs/test_plateaus.py", "runs/test_exact.py"),
    ),
    Mutant(
        "subset sums of the values, not of their squares",
        "systems/linear.py",
        "moments.subset_conflicts(positive**2, rtol)",
        "moments.subset_conflicts(positive, rtol)",
        ("systems/test_data.py",),
    ),
    Mutant(
        "maps in original inputs by the transposed root",
        "systems/linear.py",
        "maps @ scipy.linalg.pinv(self.whitening)",
        "maps @ self.whitening.T",
        ("systems/test_linear.py", "systems/test_data.py"),
    ),
    Mutant(
        "a rectifier with the sum of its balance",
        "systems/homogeneous.py",
        "signs = into.astype(float) - self.power * out_of",
        "signs = into.astype(float) - out_of",
        ("systems/test_homogeneous.py",),
    ),
    Mutant(
        "units scaled in without being scaled back by the power",
        "systems/homogeneous.py",
        "np.where(out_of, -float(self.power), 0.0)",
        "np.where(out_of, -1.0, 0.0)",
        ("systems/test_homogeneous.py",),
    ),
    Mutant(
        "degree of a homogeneous network as if each layer had the same",
        "systems/homogeneous.py",
        "return sum(self.power**k for k in range(self.depth))",
        "return self.power * (self.depth - 1) + 1",
        ("systems/test_homogeneous.py", "saddles/test_directions.py"),
    ),
    Mutant(
        "hidden units that vanish looked for in the first layer only",
        "systems/homogeneous.py",
        "for i in range(1, self.depth):\n            spare",
        "for i in range(1, 2):\n            spare",
        ("systems/test_homogeneous.py", "saddles"),
    ),
    Mutant(
        "steps that are stable up to 1/λ",
        "systems/descent.py",
        "return 2.0 / largest",
        "return 1.0 / largest",
        ("systems/test_descent.py",),
    ),
    Mutant(
        "cycles with all symmetries of the flow",
        "systems/descent.py",
        "return lambda x, p: generators(x, 1.0)",
        "return lambda x, p: generators(x, 0.0)",
        ("systems/test_descent.py", "systems/test_cycles.py", "continuation/test_equilibria.py"),
    ),
    Mutant(
        "weight decay of twice the strength",
        "systems/varied.py",
        "out -= p * share * x",
        "out -= 2.0 * p * share * x",
        ("continuation/test_equilibria.py", "continuation/test_decay.py"),
    ),
    Mutant(
        "files whose checksum is never compared",
        "store.py",
        "if _seal_is_broken(path):",
        "if False:",
        ("test_files.py",),
    ),
    Mutant(
        "digests without the attributes",
        "store.py",
        "if key != DIGEST}",
        "if key == DIGEST}",
        ("test_files.py",),
    ),
    Mutant(
        "points of a grown grid numbered anew",
        "sweeps/task.py",
        "numbers[places] = old.numbers",
        "numbers[places] = np.arange(len(places))[::-1]",
        ("sweeps",),
    ),
    Mutant(
        "products of the Hessian without the part of the signal",
        "_kernels/linear.py",
        "        multiply_right_transposed(signal, before, slot, 1.0)\n        weights, direction",
        "        weights, direction",
        ("kernels/test_kernels.py",),
    ),
    Mutant(
        "mixtures of modes with the power of their values",
        "theory/rays.py",
        "/ sigma[0]) ** (-1.0 / (depth - 2))",
        "/ sigma[0]) ** (-1.0 / depth)",
        ("theory", "saddles/test_directions.py"),
    ),
    Mutant(
        "index of mixtures without what joins their modes",
        "theory/rays.py",
        "rising = (count - 1) * (count + 2) // 2 + better",
        "rising = count - 1 + better",
        ("saddles/test_rays.py",),
    ),
    Mutant(
        "list of escape directions cut to its best",
        "theory/rays.py",
        "[len(t) for t in ties], room), most):",
        "[len(t) for t in ties], room), 1):",
        ("theory", "saddles/test_directions.py"),
    ),
    Mutant(
        "two layers that leave with all modes at once",
        "theory/rays.py",
        "room = min(widths if together is None else (*widths, together)) if depth > 2 else 1",
        "room = min(widths if together is None else (*widths, together))",
        ("theory", "saddles/test_directions.py"),
    ),
    Mutant(
        "runs between all sets of modes",
        "theory/connecting.py",
        "possible = (better >= np.cumsum(lost, axis=1)).all(axis=1) & change.any(axis=1)",
        "possible = change.any(axis=1)",
        ("theory", "saddles/test_graph.py"),
    ),
    Mutant(
        "connecting sets one dimension smaller for each pair of new modes",
        "theory/connecting.py",
        "- more * (more - 1) // 2",
        "- more * (more + 1) // 2",
        ("theory", "saddles/test_graph.py"),
    ),
    Mutant(
        "open questions answered with no",
        "theory/connecting.py",
        "leads[~possible & ~_ruled_out(sigma, ties, counts, source, target)] = OPEN",
        "leads[~possible] = NO",
        ("theory", "saddles/test_graph.py"),
    ),
    Mutant(
        "stable sets without the narrower spare end",
        "theory/saddles.py",
        "    quotient += _frames(spare[1], min(most, spare[0]))\n",
        "",
        ("saddles/test_manifolds.py", "theory"),
    ),
    Mutant(
        "flat stable channels that decay twice as fast",
        "theory/saddles.py",
        "[h ** (1.0 - h)] * len(spare)",
        "[2.0 * h ** (1.0 - h)] * len(spare)",
        ("saddles/test_manifolds.py", "theory"),
    ),
    Mutant(
        "stable directions without those that only decay",
        "theory/saddles.py",
        "spare = list(zip(*ends, strict=False)) if stable else []",
        "spare = []",
        ("saddles/test_manifolds.py", "theory"),
    ),
    Mutant(
        "eigenvalues judged by their size where their number is known",
        "saddles/directions.py",
        "if known is None or not known[2]:",
        "if True:",
        ("saddles/test_corners.py",),
    ),
    Mutant(
        "small eigenvalues from the rounding of large ones",
        "theory/orbits.py",
        "small = np.abs(reciprocal) < middle",
        "small = np.abs(reciprocal) < 0.0",
        ("theory/test_orbits.py", "saddles/test_corners.py"),
    ),
    Mutant(
        "rays of moved points as if they were balanced",
        "saddles/directions.py",
        "stretch = (left * sizes**t) @ left.T",
        "stretch = left @ left.T",
        ("saddles/test_rays.py",),
    ),
    Mutant(
        "runs from saddles in the whole network",
        "saddles/modes.py",
        "used = np.flatnonzero(parts.used(net.widths, start))",
        "used = np.unique(parts.inputs)",
        ("saddles/test_manifolds.py",),
    ),
    Mutant(
        "directions that see what they do not use",
        "saddles/modes.py",
        "return self.parts.without(self.net.widths, turned, tolerances.CRITICAL)",
        "return self.parts.without(self.net.widths, turned, 0.0)",
        ("saddles/test_manifolds.py",),
    ),
    Mutant(
        "rounding taken for a form",
        "theory/forms.py",
        "found[found <= tolerances.CLEAR_GAP * np.maximum.accumulate(noise)] = 0.0",
        "found[found <= 0.0] = 0.0",
        ("saddles/test_corners.py",),
    ),
    Mutant(
        "arcs on which no mode is lost",
        "saddles/arcs.py",
        "        lost._replace(mode_lost=lost.mode),\n",
        "",
        ("saddles/test_arcs.py",),
    ),
    Mutant(
        "orders of descent that are always exact",
        "landscape/points.py",
        "np.int8(clear and len(set(orders)) == 1 and all(exact))",
        "np.int8(1)",
        ("landscape",),
    ),
    Mutant(
        "tightened by the ranks between alone",
        "landscape/points.py",
        "pivots = (between == 0) | (complementary == 0)",
        "pivots = between == 0",
        ("landscape",),
    ),
    Mutant(
        # Zeros at ends of pieces, left among the signs, change nothing: pieces are cut once more.
        "zeros at the end of a run lost",
        "runs/zeros.py",
        "if not self._touched or self._counted:",
        "if True:",
        ("runs/test_events.py",),
    ),
    Mutant(
        "zeros that are touched inside of a piece lost",
        "runs/zeros.py",
        "elif piece.falls and piece.rises and values[0] and values[-1]:",
        "elif False:",
        ("runs/test_events.py",),
    ),
    Mutant(
        "rest at minima without a look along what is flat",
        "runs/rest.py",
        "if fades or not _goes_on(system, x, aside, allowed, clear):",
        "if False:",
        ("runs",),
    ),
    Mutant(
        "rest at what only symmetry moves, whatever a step there changes",
        "runs/rest.py",
        "return bool(np.abs(scipy.linalg.eigvalsh(frame.T @ change @ frame)).max() <= _STEADY)",
        "return True",
        ("runs/test_rest.py",),
    ),
    Mutant(
        "rates under decay without the change of curvatures",
        "theory/decayed_rates.py",
        "return 2.0 * (orbit.curvature - third * distance)",
        "return 2.0 * (orbit.curvature + 0.0 * third * distance)",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "rates at a bottleneck without the change of curvatures",
        "theory/rates.py",
        "return np.asarray(2.0 * (self.curvature - 3.0 * third * distance))",
        "return np.asarray(2.0 * (self.curvature + 0.0 * third * distance))",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "small results lost beside large ones",
        "systems/measurements.py",
        "near = excess <= (10.0 * rtol) ** 2 * total and bool(learnt.all())",
        "near = excess <= (10.0 * rtol) ** 2 * total",
        ("systems/test_measurements.py",),
    ),
    Mutant(
        "runs to results of zero that never end",
        "systems/measurements.py",
        "left, size = (_STILL if total else 10.0 * rtol), float(np.linalg.norm(W))",
        "left, size = 0.0, float(np.linalg.norm(W))",
        ("systems/test_measurements.py",),
    ),
    Mutant(
        "entries beside large ones taken for noise",
        "landscape/pure.py",
        "tolerances.rounding(first.size) * strength",
        "tolerances.RANK * strength",
        ("landscape/test_pure.py",),
    ),
    Mutant(
        "double roots of decayed modes left out",
        "theory/penalized.py",
        "found[folded(sigma, decay, depth)] = 1 if depth >= 3 else 0",
        "found[folded(sigma, decay, depth)] = 0",
        ("landscape/test_decay.py",),
    ),
    Mutant(
        "zeros at folds of decayed modes with the sign of rounding",
        "theory/penalized.py",
        "found = [np.where(at_fold[chosen], 0.0, growth)]",
        "found = [growth]",
        ("theory/test_penalized.py",),
    ),
    Mutant(
        "modes on smaller roots taken for unlearnt ones",
        "saddles/visits.py",
        "roots = np.where(on_upper, 1, -1 * on_lower)",
        "roots = np.where(on_upper, 1, 0 * on_lower)",
        ("saddles/test_visits.py",),
    ),
    Mutant(
        "rows inside steps that stability limits taken as they come",
        "_kernels/runge_kutta.py",
        "            if inside <= READ:",
        "            if True:",
        ("runs/test_between.py",),
    ),
    Mutant(
        "events that take all steps for as accurate as explicit ones",
        "runs/stepping.py",
        'rtol = max(self.task.rtol, float(self.clock["between"]))',
        "rtol = self.task.rtol",
        ("runs/test_events.py",),
    ),
    Mutant(
        "zeros by rounding told of what decays",
        "runs/zeros.py",
        "self._rests = not _is_rounded(first, step, self._largest)",
        "self._rests = True",
        ("runs/test_events.py",),
    ),
    Mutant(
        "visits of saddles in the named directions alone",
        "saddles/visits.py",
        "if mixed.max(initial=0.0) <= tolerances.MODE * sigma[group[0]]:",
        "if True:",
        ("saddles/test_visits.py",),
    ),
    Mutant(
        "pitchforks with the other criticality",
        "continuation/normal_forms.py",
        '"supercritical" if odd < 0.0',
        '"supercritical" if odd > 0.0',
        ("continuation/test_special.py",),
    ),
    Mutant(
        "Hopf points with the other criticality",
        "continuation/normal_forms.py",
        '"supercritical" if first < 0.0',
        '"supercritical" if first > 0.0',
        ("continuation/test_special.py",),
    ),
    Mutant(
        "solutions of equal p counted as one orbit",
        "continuation/orbits.py",
        "return problem.distance(one.z, other.z) <= near",
        "return True",
        ("continuation/test_switching.py", "continuation/test_diagram.py"),
    ),
    Mutant(
        "cycles without the identity in their Jacobian",
        "systems/cycles.py",
        "carried(x, p, unit, lambda y, p: np.zeros(1)) - unit",
        "carried(x, p, unit, lambda y, p: np.zeros(1))",
        ("systems/test_cycles.py",),
    ),
    Mutant(
        "maps of one layer that decay with depth",
        "runs/exact.py",
        "np.multiply.outer(np.exp(-rate * times), state - end)",
        "np.multiply.outer(np.exp(-2.0 * rate * times), state - end)",
        ("runs/test_exact.py",),
    ),
    Mutant(
        "decay left out of two layers that are not aligned",
        "runs/exact.py",
        "    generator -= net.mean_decay * np.eye(len(generator))\n",
        "",
        ("runs/test_exact.py",),
    ),
    Mutant(
        "orbits that come to one of many equilibria go on",
        "saddles/orbits.py",
        "return Arrival(rests=bool(np.linalg.norm(x - state) <= UNCLEAR * growth.accuracy))",
        "return Arrival(rests=True)",
        ("saddles/test_hyperbolic.py",),
    ),
    Mutant(
        "kernels of flax read as weights of torch",
        "runs/layouts.py",
        'w.T if self.orientation == "in_out" else w for w in layers',
        "w for w in layers",
        ("runs/test_imported.py",),
    ),
    Mutant(
        "numbers in names of layers sorted as text",
        "runs/layouts.py",
        "for number in sorted(group)]",
        "for number in sorted(group, key=str)]",
        ("runs/test_imported.py",),
    ),
    Mutant(
        "biases that are not zero left out in silence",
        "runs/layouts.py",
        '_array(entries, key, shape, "").any()',
        'not _array(entries, key, shape, "").size',
        ("runs/test_imported.py",),
    ),
    Mutant(
        "original inputs taken to whitened ones by the transposed root",
        "runs/imported.py",
        "first @ root if",
        "first @ root.T if",
        ("runs/test_imported.py",),
    ),
    Mutant(
        "given losses compared with those of other rows",
        "runs/imported.py",
        "losses[self._count : self._count + len(times)]",
        "losses[: len(times)]",
        ("runs/test_imported.py",),
    ),
    Mutant(
        "kernel distances of an imported run from the first row of each block",
        "runs/imported.py",
        "self.first if self.first.size else states[0], states[-1]",
        "states[0], states[-1]",
        ("runs/test_imported.py",),
    ),
    Mutant(
        "tensors read from the start of their storage",
        "runs/state_dicts.py",
        "numbers[tensor.offset :]",
        "numbers[:]",
        ("runs/test_imported.py",),
    ),
    Mutant(
        "Hessian of a system that is not known to be symmetric",
        "landscape/derivatives.py",
        "    if off > allowed:",
        "    if off > 1e9 * allowed:",
        ("landscape/test_derivatives.py",),
    ),
    Mutant(
        "smallest eigenvalues in place of the largest",
        "landscape/linearization.py",
        'part = slice(size - kept, size) if which == "largest" else slice(0, kept)',
        "part = slice(0, kept)",
        ("landscape/test_linearization.py",),
    ),
    Mutant(
        "eigenvectors of an iteration in the order in which they were found",
        "theory/spectra.py",
        "return found[order], vectors[:, order]",
        "return found[order], vectors[:, : len(order)]",
        ("landscape/test_linearization.py",),
    ),
    Mutant(
        "digest of a rebuilt system not compared",
        "systems/stored.py",
        'if missing or rebuilt != digest or digest != data.attrs.get("problem_digest", digest):',
        'if missing or digest != data.attrs.get("problem_digest", digest):',
        ("systems/test_stored.py",),
    ),
    Mutant(
        "loss of a rebuilt homogeneous network always divided by the samples",
        "systems/homogeneous.py",
        "normalize=criterion.normalize,",
        "normalize=True,",
        ("systems/test_stored.py",),
    ),
    Mutant(
        "problems left in the points of a sweep",
        "sweeps/workers.py",
        "result = without_problem(result)",
        "result = result.copy()",
        ("systems/test_stored.py",),
    ),
    Mutant(
        "time of gradient descent a step late",
        "runs/flow.py",
        'coords["time"] = ("iteration", step * number)',
        'coords["time"] = ("iteration", step * (number + 1))',
        ("systems/test_descent.py",),
    ),
    Mutant(
        "rows of a stack of orbits as long as the shortest",
        "runs/flow.py",
        "rows = max((run",
        "rows = min((run",
        ("systems/test_descent.py",),
    ),
    Mutant(
        "rates of the narrower end of partial products",
        "theory/rates.py",
        "np.stack([np.broadcast_to(smallest(part, count), stack) for part in parts])",
        "np.stack([np.broadcast_to(smallest(p, min(p.shape[-2:])), stack) for p in parts])",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "rates within a ball of half of the way",
        "theory/rates.py",
        "(factor**2 * rate >= now)",
        "(4.0 * factor**2 * rate >= now)",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "rates between rows by one of their ends",
        "theory/rates.py",
        "    return np.minimum(*sides)",
        "    return np.maximum(*sides)",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "what is certified by the first of both numbers of the clock",
        "runs/observe.py",
        "steps = steps + np.diff(rest, axis=-1)",
        "steps = steps + 0.0 * np.diff(rest, axis=-1)",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "errors of layers that fade relative to themselves",
        "theory/rates.py",
        "return np.stack([np.sqrt(a * b) for a, b in itertools.pairwise(sizes)])",
        "return np.stack([np.linalg.norm(w, axis=(-2, -1)) for w in layers])",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "errors of weights that all decay without those made anew",
        "theory/rates.py",
        "_ANEW = 0.1",
        "_ANEW = 0.0",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "rates of an imbalance that is nothing but rounding",
        "theory/rates.py",
        "up = np.sign(values) * np.maximum(np.abs(values) - error, 0.0)",
        "up = values",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "rates of the margin with all layers of unequal ends",
        "theory/rates.py",
        "if d_0 == d_h else powers[h - 1]",
        "if True else powers[h - 1]",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "rates of nearly balanced layers as if they were balanced",
        "theory/rates.py",
        "return delta * size ** max(q - 1, 0) * (0.5 * q * (q - 1))",
        "return 0.0 * delta",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "rates of the imbalance without what the other layer takes",
        "theory/rates.py",
        "N = np.maximum(other[..., 0], 0.0)",
        "N = 0.0 * other[..., 0]",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "margins of maps by the covariance of one end",
        "theory/rates.py",
        "of_map = of_image / gains[0]",
        "of_map = of_image / gains[-1]",
        ("runs/test_convergence.py",),
    ),
    Mutant(
        "decays of layers by their mean",
        "systems/network.py",
        "return most * float(np.prod((self.decays / most) ** (1.0 / self.depth))) if most else 0.0",
        "return float(np.mean(self.decays))",
        ("systems/test_weight_decay.py", "landscape/test_decay.py"),
    ),
    Mutant(
        "modes under decay named by half of what they fit",
        "theory/penalized.py",
        "least = {1: -np.inf, 2: 0.5 * upper}.get(depth, lower)",
        "least = 0.5 * sigma",
        ("systems/test_weight_decay.py",),
    ),
    Mutant(
        "all minima of two decayed layers global",
        "landscape/decay.py",
        "np.linalg.norm(signal, 2) <= least:",
        "True:",
        ("landscape/test_decay.py",),
    ),
)


def mutated(mutant: Mutant, folder: Path) -> Path:
    """Return a folder to import the package from, with one wrong, in place of the one before."""
    copy = folder / "dlnds"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / mutant.file
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.text) != 1:
        raise ValueError(f"{mutant.file}: needs the text of {mutant.name!r} once")
    path.write_text(source.replace(mutant.text, mutant.instead), encoding="utf-8")
    return copy.parent


def noticed(tests: tuple[str, ...], path: Path, most: float | None) -> tuple[int, str]:
    """Return the exit code of the tests on the package in a folder, and their last line.

    That of tests which fail if they take more than so many seconds.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    config = f"--config-file={TESTS.parent / 'pyproject.toml'}"
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, config, *(str(TESTS / name) for name in tests)],
            env={**os.environ, **threads, "PYTHONPATH": str(path)},
            cwd=path,
            capture_output=True,
            text=True,
            timeout=most,
        )
    except subprocess.TimeoutExpired:
        return 1, f"longer than {most:g} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (lines or done.stdout.splitlines() or [done.stderr[-200:]])[-1]


def examined(mutant: Mutant, folder: Path) -> bool:
    """Print whether the tests notice a wrong, and by which; return it."""
    begin = time.perf_counter()
    code, line = noticed(mutant.tests, mutated(mutant, folder), MOST_SECONDS)
    if code not in (0, 1):
        raise RuntimeError(f"the tests of {mutant.name!r} did not run: {line}")
    took = time.perf_counter() - begin
    word = "noticed " if code else "SURVIVES"
    print(f"{word} {mutant.name} ({took:.0f} s): {line}", flush=True)
    return code == 1


def examined_in_turn(mutants: list[Mutant], folder: Path) -> list[bool]:
    """Examine wrongs in one folder: what Numba compiled of a file is kept by the file's place."""
    return [examined(mutant, folder) for mutant in mutants]


def main(parts: list[str]) -> int:
    """Examine the wrongs whose names have one of these parts, all by default."""
    chosen = [m for m in MUTANTS if not parts or any(part in m.name for part in parts)]
    if not chosen:
        print(f"no wrong has a name with one of {parts}")
        return 2
    rooms = tuple(sorted({name for m in chosen for name in m.tests}))
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="dlnds-mutants-") as name:
        folders = [Path(name) / str(k) for k in range(workers)]
        shutil.copytree(PACKAGE, folders[0] / "dlnds")
        code, line = noticed(rooms, folders[0], None)
        if code:
            print(f"the tests fail without any wrong: {line}")
            return 2
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            shares = [chosen[k::workers] for k in range(workers)]
            seen = [*itertools.chain(*pool.map(examined_in_turn, shares, folders))]
    print(f"{sum(seen)} of {len(seen)} wrongs noticed")
    return int(not all(seen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
