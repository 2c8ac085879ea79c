"""The words of our Datasets: what variables are called, what they carry, what must be there."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dlnds._version import __version__
from dlnds.errors import (
    check_array,
    check_finite,
    check_integer,
    check_integers,
    check_labels,
    check_memory,
    known_options,
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


POINT_KINDS = ("global_minimum", "strict_saddle", "nonstrict_saddle", "not_critical")
#: With what a network of which not all critical points are known may come to.
CLASSIFIED_KINDS = (*POINT_KINDS, "minimum", "undecided")
EDGE_KINDS = ("add", "swap")
#: Of transitions that runs made: ``other`` are those of several modes, or to where no run leads.
OBSERVED_KINDS = (*EDGE_KINDS, "other")
ARC_KINDS = ("decreasing", "increasing", "constant")
#: Rows of the table of arcs: what moves along them.
ARC_SHAPES = _words("orbit fiber plateau activation cross scaling rotation rotation_kept")
#: What is special at a point of a branch.
BRANCH_EVENTS = _words(
    "none fold branch_point hopf index_change symmetry_change user cusp flip neimark_sacker"
)
#: To which side of a pitchfork or a Hopf point the new solutions go.
CRITICALITIES = _words("none supercritical subcritical")
#: What p has at a fold, by the numbers −1, 0 and 1.
FOLD_DIRECTIONS = _words("maximum none minimum")
#: How a special point of a branch was found.
BRANCH_DECISIONS = _words("none sign_change touching at_node interpolated")
STOP_REASONS = _words(
    "end_reached limit_reached at_rest event out_of_steps step_too_small not_finite"
)
#: Whether runs lead from one critical point to another: a single orbit, a set of more dimensions.
LEADS = ("no", "orbit", "set", "open")
#: What a list of escape directions is worth.
COMPLETENESS = ("closed_form", "searched", "nothing_found", "minimum")
#: Why a chain of limiting paths goes no further.
CHAIN_ENDS = ("minimum", "nothing_found", "no_limit", "max_paths")
#: How a critical point was reached.
CONVERGENCES = ("at_start", "quadratic", "degenerate", "stagnated")
#: What the limit of a run is, and what decided that it is reached.
LIMIT_KINDS = ("none", "global_minimum", "saddle", "critical_point", "minimum")
LIMIT_DECISIONS = ("none", "small_residual", "no_force", "definite_hessian")
#: What an event does where it is zero.
EVENT_KINDS = _words("none rising falling touching")
#: What decided at which equilibrium an orbit ends.
END_DECISIONS = ("none", "trapped", "within_accuracy")
#: What became of an orbit that may lead from one equilibrium to another.
CONNECTION_DECISIONS = _words("attracted bracketed within_accuracy elsewhere away open")

#: Whether a bound on a rate is proven, or what it lacks.
RATE_DECISIONS = _words(
    "proven bottleneck no_ball no_margin too_unbalanced no_imbalance singular_inputs "
    "not_two_layers no_flow weight_decay no_minimum"
)

#: Where a learning coefficient comes from.
COEFFICIENT_DECISIONS = _words("formula smooth_point largest_component upper_bound")

#: What became of a point of a sweep; all after the second are failures or damage.
SWEEP_STATES = _words("finished missing raised timed_out died not_a_number wrong_form damaged")

#: The coordinate that holds all numbers of a problem, its dim, and the attribute that tells which.
PROBLEM, NUMBER, DESCRIPTION = "problem", "number", "description"

#: name: (long name, TeX symbol). All quantities of this package are pure numbers, units "1".
DESCRIPTIONS = {
    "product_norm": ("norm of the map", r"$\|W\|_F$"),
    "first": ("index set with the same sum of squares as the second", ""),
    "second": ("index set with the same sum of squares as the first", ""),
    "smallest_gap": ("smallest relative gap", ""),
    "width": ("units of the level", ""),
    "hidden": ("level of the matrix, 1 the first hidden one", r"$i$"),
    "unit_before": ("hidden unit before the change", ""),
    "accuracy": ("scaled distance within which the special point is", ""),
    "criticality": ("on which side of the special point new solutions are", ""),
    "description": ("what is known of the special point", ""),
    "fold_direction": ("what p has at the fold", ""),
    "kernel_dimension": ("dimension of the kernel across the orbit", ""),
    "multiplier": ("multiplier", ""),
    "newton_iterations": ("iterations of Newton's method", ""),
    "tangent_q": ("part of the unit tangent along the second parameter", ""),
    "test_value": ("what is left of the function that vanishes at the special point", ""),
    "transverse_eigenvalue_imag": ("imaginary part of the eigenvalue across the orbit", ""),
    "alignment": (
        "overlap of singular vectors",
        r"$|\langle u_j, v_j\rangle|$",
    ),
    "best_iteration": ("iteration with the smallest value", r"$n$"),
    "best_time": ("time with the smallest value", r"$t$"),
    "error_at_end": ("generalization error in the end", r"$E_g$"),
    "error_at_start": ("generalization error at the start", r"$E_g$"),
    "generalization_error": ("generalization error", r"$E_g$"),
    "lowest_error": ("smallest generalization error", r"$E_g$"),
    "lowest_loss": ("smallest loss", r"$L$"),
    "optimal_strength": ("strength with the smallest error", r"$p^*_j$"),
    "stopping_time": ("time at which the mode has its best strength", r"$t^*_j$"),
    "train_loss": ("training loss", r"$L$"),
    "balance_gap": ("relative imbalance of two layers", ""),
    "effective_rank": ("effective rank", ""),
    "hidden_similarity": ("similarity of hidden activities", r"$H_i^T H_i$"),
    "item": ("input", ""),
    "layer_singular_value": ("singular value of the layer", r"$s_j(W_i)$"),
    "level": ("level of units, 0 the inputs", r"$i$"),
    "ntk_alignment": ("alignment of the tangent kernel with the targets", ""),
    "ntk_change": ("relative change of the tangent kernel", r"$\|K-K_0\|/\|K_0\|$"),
    "ntk_distance": ("distance of the tangent kernel from the start", r"$1-\cos(K,K_0)$"),
    "ntk_eigenvalue": ("eigenvalue of the tangent kernel", r"$\kappa$"),
    "map_gradient": ("relative gradient of the loss by the map", ""),
    "measurement": ("measurement", ""),
    "pure": ("critical for the loss on maps of the widths' rank or less: 1 yes, 0 no", ""),
    "other_item": ("input", ""),
    "sharpness": ("largest eigenvalue of the Hessian", r"$\lambda_{\max}$"),
    "stable_rank": ("stable rank", r"$\|W\|_F^2/s_1^2$"),
    "active": ("hidden unit has weights: 1 yes, 0 no", ""),
    "alpha": ("place along the arc", r"$\alpha/\alpha_{\mathrm{end}}$"),
    "ambiguous": ("other index sets name the same point", ""),
    "angle": ("angle of the moving mode", r"$\varphi$"),
    "arc": ("arc", ""),
    "arc_parameter": ("size, change or angle of what moves along the arc", r"$\alpha,\ \theta$"),
    "arclength": ("length of the path from the equilibrium", r"$s$"),
    "at": ("critical point", r"$x_*$"),
    "between_rank": ("rank of the layers between the pair", r"$\mathrm{rank}\,W_{j+1:i-1}$"),
    "closest": ("smallest relative distance", ""),
    "decides": ("width decides the coefficient: 1 yes, 0 no", ""),
    "decision": ("what became of the orbit", ""),
    "coindex": ("number of positive eigenvalues", ""),
    "bracket": ("number of fields in a bracket", ""),
    "column": ("column of the weight in its layer", ""),
    "complementary_rank": (
        "rank of the block through the data",
        r"$\mathrm{rank}\,W_{1:j-1}\Sigma^TW_{i+1:h}$",
    ),
    "completeness": ("what the list is worth", ""),
    "component": ("component of a conserved quantity", ""),
    "components": ("irreducible components of the largest dimension", ""),
    "conserved": ("conserved quantity", r"$C_i$"),
    "contraction": ("ratio of the last two estimated distances", ""),
    "convergence": ("how the critical point was reached", ""),
    "convergence_rate": ("rate of convergence", r"$\lambda$"),
    "count": ("number of ascents that came there", ""),
    "critical_point": ("index set of the critical point", r"$S$"),
    "crossing_time": ("when the run has the norm", r"$t$"),
    "curvature": ("half the second derivative along the tangent", ""),
    "decided": ("how the special point was found", ""),
    "decrease": ("decrease of the loss", r"$L(t_0) - L$"),
    "degenerate": ("1 if the Hessian has a zero that no symmetry explains", ""),
    "degenerate_dimension": ("dimension of the kernel across the fiber", ""),
    "departure_rate": ("rate of departure", r"$-\lambda$"),
    "determinant_sign": ("sign of the determinant of the map", r"$\mathrm{sign} \det W$"),
    "dimension": ("dimension of the set of orbits from source to target", ""),
    "dimension_between": ("dimension of the set of orbits from one point to the other", ""),
    "direction": ("direction", ""),
    "distance": ("distance from the start", r"$\|x - x_0\|$"),
    "drop": ("loss drop", r"$-\Delta L$"),
    "duration": ("duration of the visit", ""),
    "earlier": ("earlier layer of the pair", ""),
    "edge": ("connection", ""),
    "effective_size": ("independent draws that are worth the chain", r"$N_{\mathrm{eff}}$"),
    "eigen": ("number of the eigenvalue", ""),
    "eigenvalue": ("eigenvalue", r"$\lambda$"),
    "eigenvalue_imag": ("imaginary part of the eigenvalue", r"$\mathrm{Im}\,\lambda$"),
    "eigenvector": ("eigenvector", r"$v$"),
    "eigenvector_imag": ("imaginary part of the eigenvector", r"$\mathrm{Im}\,v$"),
    "elapsed_time": ("time since the start", r"$t$"),
    "end": ("index set that the run ends at", ""),
    "end_decision": ("what decided the end", ""),
    "end_index": ("unstable directions of the equilibrium at the end, -1 if none", ""),
    "end_kind": ("what the run ends at", ""),
    "end_state": ("equilibrium that the orbit tends to", r"$x_*$"),
    "end_point": ("index set that runs come to", r"$S'$"),
    "ended_by": ("why the chain goes no further", ""),
    "ended": ("number of runs that end there", ""),
    "entropy": ("logarithm of the volume of the orbit of balanced networks", r"$S(W)$"),
    "entry": ("time of entry", r"$t$"),
    "error": ("estimated distance to the critical point", ""),
    "escape_time": ("escape time", r"$t$"),
    "estimated_distance": ("norm of the Newton step", ""),
    "event": ("number of the event, -1 if none", ""),
    "event_kind": ("what the event does there", ""),
    "exact_loss": ("loss by the closed form", r"$L$"),
    "deficiency_margin": ("what the singular value never falls below", r"$c$"),
    "excess_bound": ("what the excess loss is at most", r"$L-L_{\min}$"),
    "excess_error": ("error of the excess loss", ""),
    "excess_loss": ("loss above the global minimum", r"$L-L_{\min}$"),
    "imbalance_change": ("change of the imbalance", r"$\max_i\|C_i-C_i(0)\|_F$"),
    "rate_bound": ("lower bound on the rate", r"$2\mu$"),
    "rate_margin": ("rate above the bound", ""),
    "smallest_singular_value": ("smallest singular value of the map of the data", r"$s_n(WK)$"),
    "excess": ("loss above the global minimum", r"$L-L_{\min}$"),
    "exit": ("time of exit", r"$t$"),
    "exponent": ("Lyapunov exponent", r"$\lambda_j$"),
    "family_dimension": ("dimension of the family of connections", ""),
    "feature": ("original input", ""),
    "fiber_dimension": ("local dimension of the fiber", ""),
    "finite_time_exponent": ("finite-time Lyapunov exponent", r"$\lambda_j(t)$"),
    "frame": ("orthonormal tangent vectors", ""),
    "frequency": ("imaginary part of the eigenvalue", r"$\omega$"),
    "full_dimension": ("the same dimension in the space of weights", ""),
    "gradient_norm": ("norm of the gradient", r"$\|\nabla L\|$"),
    "group_element": ("matrices that move the state to its canonical form", r"$P_i$"),
    "growth_rate": ("growth rate of the vector", r"$v^T J v$"),
    "growth_time": ("time of growth from a twentieth to half", r"$t$"),
    "holds": ("assumption holds: 1 yes, 0 no, -1 not checked", ""),
    "horizontal": ("part across the orbit", ""),
    "imbalance": ("largest imbalance of two layers", r"$\max_i\|C_i\|_F$"),
    "imbalance_residual": ("largest deviation of the conserved quantities", r"$\|C_i - C_i(x)\|$"),
    "index": ("Morse index", ""),
    "input": ("input", ""),
    "integrated_rate": ("integral of the squared gradient", r"$\int\|\nabla L\|^2 dt$"),
    "is_clear": ("no other ranks are possible: 1 yes, 0 no", ""),
    "is_complete": ("all kinds of points were tried: 1 yes, 0 no", ""),
    "is_connection": ("transition is an edge of the graph: 1 yes, 0 no", ""),
    "is_critical": ("all states along the arc are critical: 1 yes, 0 no", ""),
    "is_generic": ("connection is on the generic path", ""),
    "is_smooth": ("fiber is smooth: 1 yes, 0 not known to be", ""),
    "is_within_rtol": ("error is as small as was asked for: 1 yes, 0 no", ""),
    "isotropy": ("group of turns that leave the state where it is", ""),
    "isotropy_dimension": ("dimension of the isotropy group", ""),
    "iteration": ("iteration", r"$n$"),
    "jacobian_rank": ("rank of the Jacobian of the gradient", ""),
    "kept": ("weight stays zero: 1 yes, 0 no", ""),
    "kind_is_clear": ("no other kind is possible: 1 yes, 0 no", ""),
    "kind": ("kind", ""),
    "label": ("name of the solution", ""),
    "is_smallest": ("proved to be the smallest: 1 yes, 0 no", ""),
    "is_symmetry": ("orbit of the symmetry: 1 yes, 0 no", ""),
    "known": ("conserved quantities that are known", ""),
    "largest_zero": ("largest singular value that counts as zero", ""),
    "later": ("later layer of the pair", ""),
    "law_escape_time": ("escape time by the law, of balanced aligned starts", r"$t$"),
    "law_growth_time": ("time of growth by the law", r"$t$"),
    "layer": ("layer of the weight", ""),
    "learnt": ("mode is learnt", ""),
    "learning_coefficient": ("learning coefficient", r"$\lambda$"),
    "left": ("left singular vector", r"$u_j$"),
    "length": ("length of the run in the quotient", ""),
    "limit": ("index set of the critical value nearest to the end", ""),
    "limit_active": ("hidden unit has weights at the limit: 1 yes, 0 no", ""),
    "limit_decision": ("what decided that the limit is reached", ""),
    "limit_kind": ("kind of the limit", ""),
    "limit_loss": ("loss of the limit", r"$L(p_*)$"),
    "limit_residual": ("norm of the gradient at the limit", r"$\|\nabla L(p_*)\|$"),
    "limit_state": ("limit", r"$p_*$"),
    "log_singular_value": ("logarithm of the singular value of the map", r"$\ln s_a$"),
    "loss": ("loss", r"$L$"),
    "most_decay": ("weight decay at which the roots of a mode end", ""),
    "asymptotic_rate": ("rate that runs tend to, or more", r"$2\mu$"),
    "data_loss": ("loss without weight decay", r"$\ell$"),
    "loss_rate": ("rate of change of the loss", r"$-\|\nabla L\|^2$"),
    "lower_bound": ("least learning coefficient that is possible", r"$\lambda$"),
    "map_distance": ("relative change of the map", r"$\|WK-W_*K\|/\|W_*K\|$"),
    "margin": ("smallest singular value of the frame, relative", ""),
    "mean_loss": ("mean loss", r"$\overline{L}$"),
    "mean_duration": ("mean duration of the visits", r"$t$"),
    "mean_entry": ("mean time of entry", r"$t$"),
    "mean_escape_time": ("mean escape time of the runs", r"$t$"),
    "mean_growth_time": ("mean time of growth of the runs", r"$t$"),
    "miss": ("distance from the manifold of the end, with the sign of its side", ""),
    "leads": ("whether runs lead from one point to the other", ""),
    "mode": ("mode", r"$j$"),
    "modes": ("modes that are learnt along the direction", r"$T$"),
    "modes_lost": ("modes that these replace", ""),
    "mode_lost": ("mode that is lost, -1 if none", r"$i$"),
    "mode_read": ("mode whose input a cross channel reads, -1 if none", r"$k$"),
    "mode_residual": ("deviation of mode strengths from 0 or 1", ""),
    "mode_strength": ("strength of the mode", r"$u_j^T W v_j$"),
    "monotone": ("the loss never rises: 1 yes, 0 no", ""),
    "moved_state": ("state moved by the group element", r"$P\cdot x$"),
    "multiplicity": ("order of the zero in its degenerate directions", r"$m$"),
    "n_active": ("hidden units with weights", ""),
    "n_iterations": ("iterations", ""),
    "n_jac": ("evaluations of the Jacobian", ""),
    "n_layers": ("layers that change along the arc", ""),
    "n_rhs": ("evaluations of the vector field", ""),
    "n_steps": ("accepted steps", ""),
    "n_unresolved": ("steps in which an event varies too fast to be followed", ""),
    "next_mode": ("mode that is learnt next", r"$j$"),
    "next_step": ("step length to try next", ""),
    "nullity": ("nullity of the Hessian", ""),
    "number": ("place of the number in the problem", ""),
    "orbit": ("orbit", ""),
    "orbit_dimension": ("dimension of the symmetry orbit", ""),
    "orbit_distance": ("distance of the orbits", r"$d$"),
    "order": ("order of the arc's loss at its start", ""),
    "order_is_exact": ("order of descent is exact, not a bound", ""),
    "order_of_descent": ("order of descent", r"$k$"),
    "output": ("output", ""),
    "pair": ("pair of layers", ""),
    "parameter": ("number of the weight in the state", ""),
    "path_crossing_time": ("when the path has the norm", r"$t$"),
    "path_norm": ("norm of the path", r"$\|p\|$"),
    "orientation": ("sign of the determinant of the frame", r"$\mathrm{sign}\,\det E_i$"),
    "point": ("sample of the orbit", ""),
    "positivity": ("second-order positivity", r"$\Delta$"),
    "predicted_escape_time": ("escape time by the exact law", r"$t$"),
    "predicted_growth_time": ("time of growth by the law", r"$t$"),
    "probability": ("part of the departures from the source", ""),
    "problem": ("numbers that the system is rebuilt from", ""),
    "product": ("end-to-end map", r"$W$"),
    "q": ("second parameter", r"$q$"),
    "r_hat": ("spread of halves of chains over that within", r"$\hat R$"),
    "rank": ("rank", r"$r$"),
    "rank_gap": ("smallest singular value that is not zero", r"$s_k$"),
    "decision_gap": ("ratio of the singular values on both sides of the ranks", ""),
    "ranks_are_clear": ("no other ranks of products are possible: 1 yes, 0 no", ""),
    "rate": ("rate of change of the loss", r"$-\|\nabla L\|^2$"),
    "reading": ("what the mode reads from the original inputs", r"$K^{+T} v_j$"),
    "relative_gradient": ("gradient relative to the sizes of the layers", ""),
    "relative_residual": ("residual relative to the Jacobian times the state", ""),
    "residual": ("norm of the field", ""),
    "right": ("right singular vector", r"$v_j$"),
    "rise": ("largest rise of the loss between rows", ""),
    "row": ("row of the weight in its layer", ""),
    "sample": ("run", ""),
    "scale": ("distance from the saddle at the start", r"$\varepsilon$"),
    "sequence": ("saddles visited, in their order", ""),
    "shape": ("what moves along the arc", ""),
    "sheet_dimension": ("dimension of the points of the same kind", ""),
    "singular_value": ("singular value", r"$\sigma_j$"),
    "size": ("singular value of the moving mode in every layer", r"$s$"),
    "smallest_nonzero": ("smallest singular value that counts as nonzero", ""),
    "source": ("index set where the arc starts", ""),
    "spacing": ("largest distance to the path of the next orbit", ""),
    "spectral_radius": ("largest modulus of an eigenvalue across the orbit", r"$\rho$"),
    "standard_error": ("standard error of the exponent", ""),
    "start_point": ("index set that runs leave", r"$S$"),
    "start_error": ("distance of the start from the manifold", ""),
    "start_size": ("distance of the start from the critical point", r"$\delta$"),
    "state": ("state", r"$x$"),
    "status": ("what became of the point", ""),
    "std_escape_time": ("standard deviation of the escape time", r"$t$"),
    "std_growth_time": ("standard deviation of the time of growth", r"$t$"),
    "step": ("saved step", ""),
    "step_norm": ("length of the step", ""),
    "stop_reason": ("why the run ended", ""),
    "tangent": ("direction of the start", ""),
    "target": ("index set where the arc ends, empty if at no critical point", ""),
    "tightened": ("all pairs of layers are tightened: 1 yes, 0 no, -1 not critical", ""),
    "tightened_pair": ("pair is tightened", ""),
    "time": ("time", r"$t$"),
    "time_low": ("what the time rounds off", ""),
    "trace_rule": ("sum of the exponents over time minus the growth of volume", ""),
    "transverse": ("number of the eigenvalue across the fiber", ""),
    "transverse_eigenvalue": ("eigenvalue across the fiber", r"$\lambda$"),
    "transverse_index": ("Morse index across the fiber", ""),
    "unit": ("hidden unit", ""),
    "unit_layer": ("layer of the hidden unit", ""),
    "unit_number": ("number of the hidden unit in its layer", ""),
    "unit_size": ("norm of the weights of the hidden unit", ""),
    "unit_zero": ("hidden unit stays zero: 1 yes, 0 no", ""),
    "unfolding": ("what F lacks of a branch point", r"$\varepsilon$"),
    "value": ("Lyapunov function", r"$V$"),
    "vector": ("covariant Lyapunov vector", r"$v_j$"),
    "vertical": ("part along the orbit", ""),
    "visited": ("number of runs that went there", ""),
    "visitors": ("number of runs that rest near it", ""),
    "volume_rate": ("mean growth rate of volume", r"$\overline{\mathrm{tr}\,J}$"),
}


def by_dims(text: str) -> dict[str, tuple[str, ...]]:
    """Return the dims of variables out of ``name name (dim, dim) name ()``."""
    groups = re.findall(r"([\w ]+)\(([\w, ]*)\)", text)
    return {
        name: tuple(re.findall(r"\w+", dims)) for names, dims in groups for name in names.split()
    }


#: schema: variables that must be there, before the dimensions that must be among theirs.
REQUIRED = {
    schema: by_dims(text)
    for schema, text in {
        "run": "stop_reason ()",
        "critical_points": "critical_point rank loss kind (critical_point) "
        "learnt (critical_point, mode)",
        "decayed_points": "critical_point rank loss kind index (critical_point) "
        "learnt size (critical_point, mode)",
        "decay_diagram": "loss kind index (branch, weight_decay) "
        "size (branch, weight_decay, mode) most_decay singular_value (mode) rank (branch)",
        "classification": "kind rank loss order_of_descent tightened ()",
        "canonical_form": "state (parameter) group_element (entry) residual ()",
        "fiber": "fiber_dimension orbit_dimension nullity ()",
        "chain": "loss (iteration) mean_loss standard_error effective_size stop_reason r_hat ()",
        "conservation_laws": "count known () dimension (bracket) is_clear ()",
        "fiber_components": "count rank () orientation (component, level) "
        "state (component, parameter)",
        "fiber_orientation": "orientation margin (level) rank is_clear ()",
        "fiber_path": "state (point, parameter) loss map_distance (point)",
        "fiber_line": "state tangent (parameter) is_symmetry ()",
        "flattest_minimum": "state (parameter) sharpness lower_bound is_smallest ()",
        "learning_coefficient": "learning_coefficient lower_bound order components rank () "
        "decision () decides (level)",
        "evaluation": "",
        "convergence_bounds": "excess_loss excess_error rate (time) "
        "rate_bound excess_bound (bound, time) decision (bound)",
        "early_stopping": "optimal_strength stopping_time (mode) best_time lowest_error ()",
        "orbit": "frame (direction, parameter) orbit_dimension ()",
        "tangent": "vertical horizontal (parameter)",
        "quotient_run": "state (parameter) orbit_distance length ()",
        "linearization": "eigenvalue (eigen)",
        "inertia": "index nullity coindex ()",
        "critical_point": "state (parameter) residual step_norm estimated_distance (iteration) "
        "distance error rank nullity multiplicity convergence ()",
        "arcs": "source target shape kind mode order drop (arc) "
        "arc_parameter loss exact_loss (arc, alpha)",
        "manifold": "frame (direction, parameter) rate order (direction) state (parameter)",
        "fibres": "state (fibre, time, parameter) elapsed_time loss (fibre, time) "
        "imbalance_residual end end_kind stop_reason start_size (fibre)",
        "orbits": "state (fibre, time, parameter) elapsed_time arclength (fibre, time) "
        "tangent end_state (fibre, parameter) "
        "start_size start_error length stop_reason end_index end_decision (fibre)",
        "connecting_orbits": "state (orbit, time, parameter) elapsed_time arclength (orbit, time) "
        "end_state (orbit, parameter) decision closest miss stop_reason end_index (orbit)",
        "arc_path": "state (alpha, parameter) loss (alpha)",
        "branch": "state tangent (step, parameter) transverse_eigenvalue (step, eigen) "
        "p arclength residual index nullity orbit_dimension event (step) "
        "tangent_p next_step spectral_radius (step)",
        "connections": "source target kind drop length rate order (edge) "
        "size angle loss (edge, point)",
        "edge_path": "state (point, parameter) loss (point)",
        "observed_connections": "source target kind is_connection visited (edge) "
        "probability drop mean_escape_time (edge) "
        "visitors mean_entry mean_duration (critical_point) sequence stop_reason (sample)",
        "lyapunov": "exponent finite_time_exponent (eigen) state (parameter)",
        "covariant_vectors": "vector (direction, parameter) growth_rate exponent (direction) "
        "state (parameter)",
        "lyapunov_function": "value rate decrease integrated_rate (time) rise monotone ()",
        "escape_directions": "state (direction, parameter) active (direction, unit) "
        "order value multiplier residual positivity count index family_dimension (direction) "
        "modes modes_lost end (direction) at (parameter) completeness ()",
        "modes": "singular_value (mode) left (output, mode) right (input, mode)",
        "assumptions": "holds (assumption)",
        "visits": "critical_point entry exit duration closest escape_time (visit)",
        "sweep": "status ()",
        "atlas": "",
        "diagram": "",
        "escape_chain": "state (saddle, parameter) loss n_active order value (saddle) ended_by ()",
        "path_comparison": "distance (time) crossing_time path_crossing_time ()",
        "zero_preserving": "kept (parameter) unit_zero (unit) residual ()",
    }.items()
}
#: schema: all dims of those of these that have more than must be there.
_WHOLE = {
    "lyapunov": "finite_time_exponent (time, eigen)",
    "covariant_vectors": "vector (time, direction, parameter) growth_rate (time, direction) "
    "state (time, parameter)",
    "quotient_run": "state (time, parameter) orbit_distance length (time)",
}
#: schema: what else may be there, by when it is, with the dims that it has in one run over time.
#: What labels a dim stands in `LABELS`.
OPTIONAL: dict[str, dict[str, str]] = {
    "run": {
        "over time, and of descent along a flow": "time (time)",
        "over time": "time_low (time)",
        "of systems with a loss": "loss loss_rate (time)",
        "under weight decay": "data_loss (time)",
        "named in `save=`, which it is unless told": "state (time, parameter)",
        "named in `save=`, or by `observe`": "gradient_norm sharpness index (time) "
        "product (time, row, column) singular_value mode_strength log_singular_value (time, mode) "
        "effective_rank stable_rank rank_gap determinant_sign entropy (time) "
        "layer_singular_value (time, layer, mode) alignment (time, level, mode) "
        "imbalance balance_gap (time) conserved (time, component) unit_size (time, unit) "
        "ntk_eigenvalue (time, eigen) ntk_distance ntk_change ntk_alignment (time) "
        "hidden_similarity (time, layer, item, other_item) residual (time, measurement)",
        "with `events=`": "event event_kind (time)",
        "of `flow`": "limit_kind limit_decision ()",
        "of stacks, where single runs have attributes": "limit n_steps n_rhs n_jac (sample)",
        "of stacks with `events=`, where single runs have attributes": "n_unresolved (sample)",
        "of `escape_path`": "limit_state (parameter) limit_active (unit) "
        "limit_loss limit_residual ()",
    },
    "critical_points": {
        "always": "singular_value (mode)",
        "in an atlas": "index transverse_index nullity order_of_descent orbit_dimension "
        "fiber_dimension is_complete (critical_point)",
        "in an atlas of whitened inputs": "departure_rate convergence_rate (critical_point)",
    },
    "decayed_points": {"always": "singular_value most_decay (mode) degenerate (critical_point)"},
    "classification": {
        "always": "relative_gradient kind_is_clear order_is_exact ()",
        "of the square loss, under weight decay if whitened": "critical_point ambiguous excess "
        "mode_residual decision_gap () learnt singular_value (mode)",
        "without weight decay": "ranks_are_clear ()",
        "at critical points of the square loss": "earlier later between_rank complementary_rank "
        "tightened_pair (pair)",
        "of other losses": "map_gradient pure ()",
        "of points whose roots are known": "size (mode)",
        "where these are counted": "index nullity ()",
    },
    "canonical_form": {
        "always": "moved_state (parameter) error critical_point ambiguous () learnt (mode) "
        "hidden unit unit_before (entry)",
    },
    "fiber": {"always": "sheet_dimension jacobian_rank is_smooth is_complete is_clear ()"},
    "chain": {"named in `save=`, with what `observe` has": "state (iteration, parameter)"},
    "fiber_components": {"always": "width (level)"},
    "fiber_orientation": {"always": "width (level)"},
    "flattest_minimum": {"always": "rank ()"},
    "learning_coefficient": {"always": "order_is_exact is_clear () width (level)"},
    "evaluation": {
        "over time, and of descent along a flow": "time (time)",
        "over time": "best_time ()",
        "over iterations": "best_iteration ()",
        "of `evaluate`": "loss (time) lowest_loss ()",
        "of `evaluate`, where the irreducible loss is known": "train_loss (time)",
        "of `generalization_error`": "generalization_error (time) lowest_error ()",
    },
    "convergence_bounds": {
        "over time, and of descent along a flow": "time (time)",
        "always": "rate_margin (bound, time) smallest_singular_value imbalance_change (time) "
        "deficiency_margin ()",
        "under weight decay": "asymptotic_rate ()",
    },
    "early_stopping": {"always": "error_at_start error_at_end ()"},
    "orbit": {"always": "isotropy_dimension isotropy ()"},
    "tangent": {"always": "orbit_dimension ()"},
    "linearization": {
        "if the eigenvalues that were found tell": "index nullity ()",
        "if the flow is no gradient": "eigenvalue_imag (eigen)",
        "with `eigenvectors=True`": "eigenvector (eigen, parameter)",
        "with `eigenvectors=True`, if the flow is no gradient": "eigenvector_imag "
        "(eigen, parameter)",
        "at critical points with a symmetry": "orbit_dimension fiber_dimension ()",
        "at such points, of the whole spectrum": "degenerate_dimension () "
        "transverse_eigenvalue (transverse)",
        "where there are unstable directions": "departure_rate ()",
        "at critical points without them, if it can be told": "convergence_rate ()",
    },
    "critical_point": {
        "always": "is_within_rtol relative_residual contraction smallest_nonzero largest_zero "
        "n_iterations ()",
        "of systems with a loss": "loss loss_rate ()",
        "under weight decay": "data_loss ()",
    },
    "arcs": {"always": "mode_lost mode_read n_layers is_critical (arc)"},
    "manifold": {
        "always": "mode mode_lost (direction)",
        "of networks": "critical_point ()",
        "of other systems": "curvature (direction, parameter) frequency (direction)",
    },
    "fibres": {"always": "tangent (fibre, parameter) length (fibre)"},
    "orbits": {"of manifolds of two dimensions": "spacing (fibre)"},
    "connecting_orbits": {"always": "start_error end_decision (orbit)"},
    "arc_path": {"always": "arc_parameter (alpha)"},
    "branch": {
        "always": "multiplier newton_iterations test_value accuracy kernel_dimension decided "
        "fold_direction criticality (step)",
        "if the Jacobian is not symmetric": "transverse_eigenvalue_imag (step, eigen)",
        "with declared generators": "isotropy_dimension (step)",
        "if the equation names its solutions": "label (step)",
        "if the equation observes them, as those of networks": "loss rank imbalance "
        "product_norm (step)",
        "of `special_points`": "description (step)",
        "of curves in two parameters": "q tangent_q (step)",
        "of `branch_point_curve`": "unfolding (step)",
    },
    "connections": {
        "always": "mode mode_lost is_generic family_dimension dimension (edge) "
        "escape_time (edge, scale) singular_value (mode) left (output, mode) right (input, mode)",
        "unless there are too many points for all pairs": "leads dimension_between full_dimension "
        "(start_point, end_point)",
        "of `overlay`, and in an atlas with runs": "visited probability mean_escape_time "
        "mean_growth_time (edge)",
    },
    "observed_connections": {
        "always": "leads std_escape_time law_escape_time mean_growth_time std_growth_time "
        "law_growth_time (edge) ended rank loss (critical_point)",
    },
    "lyapunov": {
        "always": "standard_error (eigen)",
        "of all exponents": "volume_rate trace_rule ()",
    },
    "escape_directions": {"always": "imbalance (direction)"},
    "modes": {"always": "reading (feature, mode)"},
    "assumptions": {"always": "smallest_gap (assumption) first second (conflict)"},
    "visits": {
        "always": "next_mode growth_time predicted_escape_time predicted_growth_time (visit)"
    },
    "path_comparison": {"always": "path_norm (time)"},
}
#: dim: what labels its entries, by when it does.
LABELS = {
    "parameter": {"of networks of layers": "layer row column (parameter)"},
    "unit": {"of networks of layers": "unit_layer unit_number (unit)"},
}
#: Kinds whose system `load_system` rebuilds, if it is made of numbers.
CARRIES_PROBLEM = ("run", "chain", "branch", "atlas")
#: nodes that a tree must have.
REQUIRED_NODES = {
    "atlas": {"points": "critical_points", "arcs": "arcs"},
    "diagram": {"branch_0": "branch"},
    "escape_chain": {},
}
#: nodes that it may have, by when it has them.
OPTIONAL_NODES = {
    "atlas": {
        "always": {"modes": "modes", "assumptions": "assumptions"},
        "of whitened networks": {"connections": "connections"},
        "with runs": {"visits": "observed_connections"},
    },
    "diagram": {"for what branches off": {"branch_1": "branch", "branch_2": "branch"}},
    "escape_chain": {"for each path": {"path_0": "run", "path_1": "run"}},
}
#: What attributes say, and of which schemas; those of systems and of all files say no schema.
_ATTRIBUTES = (
    ("schema", "kind of the file", ""),
    ("dlnds_version", "version of the package that made it", ""),
    ("system", "class of the system", ""),
    ("widths", "units of each level, inputs first", ""),
    ("problem_digest", "SHA-256 of all numbers of the problem", ""),
    ("whitened", "inputs are whitened: 1 yes, 0 no", ""),
    ("normalization", "how the loss is normalized", ""),
    ("weight_decay", "weight decay of each layer, if there is any", ""),
    ("power", "power of the activation, of homogeneous networks", ""),
    ("slope", "slope of the activation below zero, of homogeneous networks", ""),
    ("criterion", "loss of the outputs, of homogeneous networks", ""),
    ("rank", "rank of the maps, of flows of the product", ""),
    ("step_size", "length of a step, of gradient descent and of chains", ""),
    ("made_by", "function that made it, where other functions make such files", ""),
    ("title", "name of the data, and other words on their origin", "atlas"),
    ("data", "file or name of the data, from the command line", "atlas"),
    ("start_scale", "size of the random starts", "run observed_connections"),
    (
        "rng_entropy",
        "seed of the random numbers",
        "run observed_connections chain lyapunov covariant_vectors sweep",
    ),
    (
        "method",
        "how steps are made, or eigenvalues known",
        "run chain lyapunov covariant_vectors lyapunov_function linearization manifold",
    ),
    (
        "rtol",
        "relative tolerance",
        "run branch classification canonical_form fiber fiber_components "
        "fiber_orientation fiber_path fiber_line learning_coefficient critical_point assumptions "
        "orbit tangent manifold orbits connecting_orbits arcs arc_path lyapunov covariant_vectors "
        "lyapunov_function",
    ),
    ("atol", "absolute tolerance", "run lyapunov_function"),
    ("n_steps", "number of steps", "run chain lyapunov covariant_vectors lyapunov_function"),
    (
        "n_rhs",
        "number of evaluations of the field",
        "run lyapunov covariant_vectors lyapunov_function",
    ),
    ("n_jac", "number of Jacobians", "run lyapunov_function"),
    ("stop_reason", "why the run ended, the number of the flag", "run lyapunov_function"),
    (
        "limit",
        "index set of the critical value nearest to the end",
        "run critical_point lyapunov_function",
    ),
    ("limit_loss", "loss of the limit", "lyapunov_function"),
    ("events", "names of the events, by their numbers", "run"),
    ("n_unresolved", "steps in which an event varies too fast to be followed", "run"),
    ("defined_modulo", "group up to which states are known", "run"),
    ("arrangement", "how layers of a recorded run lie, and what told", "run"),
    ("recorded_loss", "of what the losses were that the run brought", "run"),
    ("delta", "distance of the start from the saddle", "run"),
    ("start_error", "estimate of what is neglected at the start", "run"),
    ("order", "order of the direction in which the run leaves", "run"),
    ("rate", "rate of the direction in which the run leaves", "run"),
    ("temperature", "temperature of the noise", "chain"),
    ("localization", "strength of the pull to the start", "chain"),
    ("every", "steps from one row to the next", "chain"),
    (
        "burn_in",
        "what comes before the averages, steps of chains and times of others",
        "chain lyapunov covariant_vectors",
    ),
    ("burn_out", "what comes after the last row", "covariant_vectors"),
    ("t_span", "first and last time", "lyapunov covariant_vectors"),
    ("interval", "time between two orthonormalizations", "lyapunov covariant_vectors"),
    (
        "held",
        "the state stays at the start, which is critical to rounding: 1 yes, 0 no",
        "lyapunov covariant_vectors",
    ),
    ("max_iterations", "most iterations of Newton's method", "critical_point"),
    (
        "smallest_kept",
        "smallest relative singular value that counts for a rank",
        "classification fiber orbit arcs",
    ),
    (
        "largest_dropped",
        "largest relative singular value that does not",
        "classification fiber orbit arcs",
    ),
    (
        "smallest_nonzero",
        "smallest modulus of an eigenvalue that counts as nonzero",
        "fiber linearization",
    ),
    ("largest_zero", "largest modulus of an eigenvalue that counts as zero", "fiber linearization"),
    (
        "zero_tolerance",
        "up to which modulus eigenvalues count as zero",
        "linearization inertia manifold",
    ),
    ("is_clear", "the gap around the tolerance is wide: 1 yes, 0 no", "linearization inertia"),
    (
        "complete",
        "all that there is was found: 1 yes, 0 no",
        "linearization diagram escape_directions",
    ),
    (
        "fiber_is_exact",
        "the dimension of the fiber is exact: 1 yes, 0 a lower bound",
        "linearization",
    ),
    ("unresolved_fiber", "dimensions of the fiber for which no zero was found", "linearization"),
    ("eigenvector_condition", "condition of the matrix of eigenvectors", "linearization manifold"),
    ("bounds", "lowest and highest value of the parameter", "branch"),
    ("step_min", "shortest step", "branch"),
    ("step_max", "longest step", "branch"),
    ("state_scale", "size of states that steps are measured by", "branch"),
    ("parameter_scale", "size of the parameter that steps are measured by", "branch"),
    ("derivative_scale", "size of the derivatives", "branch"),
    ("row_scale", "sizes of the rows of the equation, if they differ much", "branch"),
    ("symmetry", "how directions of a symmetry are told", "branch"),
    ("predictor", "how the next solution is guessed", "branch"),
    ("start_step", "row of the start", "branch"),
    ("first_stop", "why the branch ends before its first row", "branch"),
    ("last_stop", "why the branch ends after its last row", "branch"),
    ("parent", "node of the branch that this one leaves", "branch"),
    ("parent_step", "row there of the point that it leaves, −1 for the first", "branch"),
    ("level", "branch points between the start and this branch", "branch"),
    ("side", "manifold that it belongs to, stable or unstable", "manifold fibres orbits"),
    ("dimension", "dimension of the manifold", "manifold fibres orbits"),
    ("quotient_dimension", "the same modulo the turns that keep the point", "manifold fibres"),
    ("strict_dimension", "number of eigenvalues that lead away", "manifold"),
    ("central_dimension", "number of eigenvalues on the imaginary axis", "manifold orbits"),
    ("is_cone", "tangents make a cone and no space: 1 yes, 0 no", "manifold"),
    ("is_complete", "dimensions are exact: 1 yes, 0 lower bounds", "manifold"),
    ("critical_point", "index set of the saddle", "fibres"),
    ("reach", "how far orbits are grown", "orbits"),
    ("is_searched", "orbits were tried: 1 yes, 0 no", "connecting_orbits"),
    ("source_dimension", "dimension of the unstable manifold of the source", "connecting_orbits"),
    ("target_dimension", "dimension of the stable manifold of the target", "connecting_orbits"),
    ("expected_dimension", "dimension of a transversal intersection of both", "connecting_orbits"),
    ("codimension", "parameters that have to be right for an orbit", "connecting_orbits"),
    ("grown_from", "end from which orbits were grown", "connecting_orbits"),
    ("n_connections", "number of connections", "connecting_orbits atlas"),
    ("n_omitted", "number of canonical arcs for which Z blocks leave no room", "arcs"),
    ("selection", "which kinds of arcs are listed", "arcs"),
    ("source", "index set at the start", "arc_path edge_path"),
    ("target", "index set at the end", "arc_path edge_path"),
    (
        "radius",
        "relative distance within which a run visits a saddle",
        "connections observed_connections visits",
    ),
    ("n_runs", "number of runs", "connections observed_connections"),
    ("n_failed", "number of runs that did not end well", "connections observed_connections"),
    ("n_outside", "number of transitions of runs that are no edges", "connections"),
    ("n_starts", "number of random starts of the search", "escape_directions escape_chain"),
    ("n_lost", "number of ascents that came to no positive value", "escape_directions"),
    ("n_left_out", "number of known directions of lower values", "escape_directions"),
    ("norm", "norm of the states at which times are compared", "path_comparison"),
    ("learning_coefficient", "learning coefficient of the minima", "atlas"),
    ("learning_order", "its order", "atlas"),
    ("task", "name of the function that was run", "sweep"),
    ("sweep_digest", "SHA-256 of the task and the grid", "sweep"),
    ("n_finished", "number of points that are finished", "sweep"),
)
#: What names mean in one schema only.
_OWN_DESCRIPTIONS = {
    ("evaluation", "loss"): "test loss",
    ("canonical_form", "residual"): "distance of the moved state from the canonical one",
    ("canonical_form", "error"): "what is neither a learnt layer nor a Z block",
    ("canonical_form", "unit"): "row of the matrix",
    ("canonical_form", "unit_before"): "column of the matrix",
    ("connections", "source"): "index set that the orbit leaves",
    ("connections", "target"): "index set that the orbit comes to",
    ("connections", "length"): "length of the orbit",
    ("connections", "rate"): "rate of departure along the orbit",
    ("connections", "order"): "order in which the loss falls at the departure",
    ("observed_connections", "source"): "index set that runs leave",
    ("observed_connections", "target"): "index set that runs come to",
    ("manifold", "frame"): "unit tangent vectors",
    ("manifold", "rate"): "rate of growth",
    ("manifold", "order"): "order in which the loss changes",
    ("fibres", "length"): "length of the run",
    ("orbits", "length"): "length of the orbit",
    ("connecting_orbits", "closest"): "smallest distance from the equilibrium",
    ("escape_directions", "order"): "order of the form",
    ("escape_directions", "value"): "value of the form",
    ("escape_directions", "multiplier"): "multiplier of the KKT point",
    ("escape_directions", "residual"): "what the gradient of the form has beside the ray",
    ("escape_directions", "index"): "rising directions on the sphere",
    ("escape_directions", "family_dimension"): "dimension of what symmetries make of it",
    ("escape_directions", "end"): "index set that the path comes to",
    ("escape_directions", "imbalance"): "largest imbalance of a hidden unit",
    ("escape_chain", "order"): "order of the form",
    ("escape_chain", "value"): "value of the form",
    ("path_comparison", "distance"): "distance of the run from the path",
    ("zero_preserving", "residual"): "largest force on these weights, relative to that on others",
    ("lyapunov", "state"): "state at the end",
    ("chain", "sample"): "chain",
    ("chain", "standard_error"): "standard error of the mean loss",
    ("conservation_laws", "count"): "number of independent conserved quantities",
    ("conservation_laws", "dimension"): "dimension of what brackets of so many fields span",
    ("classification", "size"): "singular value of a mode in every layer",
    ("decayed_points", "size"): "singular value of a mode in every layer",
    ("decay_diagram", "size"): "singular value of a mode in every layer",
    ("decay_diagram", "branch"): "modes that are learnt, and on which roots",
    ("fiber_components", "component"): "component of the fiber",
    ("fiber_components", "count"): "number of connected components",
    ("fiber_components", "state"): "a point of the component",
    ("fiber_line", "tangent"): "direction of the line",
    ("fiber_path", "point"): "sample of the path",
    ("flattest_minimum", "lower_bound"): "no global minimum has a smaller sharpness",
    ("convergence_bounds", "bound"): "what the bound rests on",
    ("convergence_bounds", "decision"): "whether the bound is proven, or what it lacks",
    ("convergence_bounds", "rate"): "rate at which the excess loss decays",
    ("learning_coefficient", "decision"): "where the coefficient comes from",
    ("learning_coefficient", "order"): "order of the pole",
    ("learning_coefficient", "order_is_exact"): "order is exact, not a bound",
    ("run", "residual"): "what is left of the measurement",
    ("branch", "arclength"): "arclength from the start, scaled",
    ("branch", "event"): "what is special",
    ("branch", "index"): "number of unstable eigenvalues",
    ("branch", "isotropy_dimension"): "number of independent generators that vanish",
    ("branch", "multiplier"): "multiplier on the orbit, zero where the symmetry is one",
    ("branch", "next_step"): "scaled length of the step to try next",
    ("branch", "nullity"): "number of zero eigenvalues",
    ("branch", "residual"): "norm of F",
    ("branch", "tangent"): "part of the unit tangent along the state",
    ("branch", "tangent_p"): "part of the unit tangent along the parameter",
    ("branch", "transverse_eigenvalue"): "eigenvalue across the orbit",
}
_OWN_SYMBOLS = {
    ("connections", "length"): "",
    ("connections", "rate"): r"$\lambda$",
    ("convergence_bounds", "rate"): r"$-\mathrm{d}\ln(L-L_{\min})/\mathrm{d}t$",
    ("escape_chain", "value"): "$N$",
    ("escape_directions", "imbalance"): "",
    ("escape_directions", "multiplier"): r"$\lambda$",
    ("escape_directions", "value"): "$N$",
    ("manifold", "rate"): r"$\lambda$",
    ("path_comparison", "distance"): "",
}
_FLAGGED = {
    ("critical_points", "kind"): POINT_KINDS,
    ("decayed_points", "kind"): CLASSIFIED_KINDS,
    ("decay_diagram", "kind"): CLASSIFIED_KINDS,
    ("classification", "kind"): CLASSIFIED_KINDS,
    ("critical_point", "convergence"): CONVERGENCES,
    ("convergence_bounds", "decision"): RATE_DECISIONS,
    ("learning_coefficient", "decision"): COEFFICIENT_DECISIONS,
    ("arcs", "kind"): ARC_KINDS,
    ("arcs", "shape"): ARC_SHAPES,
    ("connections", "kind"): EDGE_KINDS,
    ("branch", "event"): BRANCH_EVENTS,
    ("branch", "criticality"): CRITICALITIES,
    ("branch", "decided"): BRANCH_DECISIONS,
    ("branch", "fold_direction"): FOLD_DIRECTIONS,
    ("connections", "leads"): LEADS,
    ("observed_connections", "leads"): LEADS,
    ("escape_directions", "completeness"): COMPLETENESS,
    ("escape_chain", "ended_by"): CHAIN_ENDS,
    ("fibres", "stop_reason"): STOP_REASONS,
    ("fibres", "end_kind"): LIMIT_KINDS,
    ("connecting_orbits", "decision"): CONNECTION_DECISIONS,
    ("connecting_orbits", "stop_reason"): STOP_REASONS,
    ("connecting_orbits", "end_decision"): END_DECISIONS,
    ("orbits", "stop_reason"): STOP_REASONS,
    ("orbits", "end_decision"): END_DECISIONS,
    ("observed_connections", "kind"): OBSERVED_KINDS,
    ("observed_connections", "stop_reason"): STOP_REASONS,
    ("sweep", "status"): SWEEP_STATES,
    ("chain", "stop_reason"): STOP_REASONS,
    ("run", "stop_reason"): STOP_REASONS,
    ("run", "limit_kind"): LIMIT_KINDS,
    ("run", "limit_decision"): LIMIT_DECISIONS,
    ("run", "event_kind"): EVENT_KINDS,
}


def optional(schema: str) -> dict[str, tuple[tuple[str, ...], str]]:
    """Return what Datasets of a schema may hold beside what is required: dims, and when it is."""
    found = _by_name(OPTIONAL.get(schema, {}))
    spread = [*REQUIRED[schema].values(), *(dims for dims, _ in found.values())]
    for dim in sorted({*LABELS}.intersection(itertools.chain.from_iterable(spread))):
        found |= _by_name(LABELS[dim])
    if schema in CARRIES_PROBLEM:
        found[PROBLEM] = (NUMBER,), "if `load_system` can rebuild the system"
    return found


def attributes(schema: str) -> dict[str, str]:
    """Return what attributes of a schema say, "" for those of any file or system."""
    return {n: words for n, words, kinds in _ATTRIBUTES if schema in (kinds.split() or [""])}


def whole(schema: str) -> dict[str, tuple[str, ...]]:
    """Return the dims that variables have which must be there, in one run over time."""
    return REQUIRED[schema] | by_dims(_WHOLE.get(schema, ""))


def _by_name(groups: Mapping[str, str]) -> dict[str, tuple[tuple[str, ...], str]]:
    return {
        name: (dims, when) for when, text in groups.items() for name, dims in by_dims(text).items()
    }


def index_set_label(modes: Iterable[int]) -> str:
    """Return the text that labels an index set: ``"{}"``, ``"{0,2}"``."""
    return _label("modes", modes)


def _label(name: str, modes: Iterable[int]) -> str:
    return "{" + ",".join(map(str, sorted(check_integers(name, modes, minimum=0)))) + "}"


def index_set_labels(sets: Iterable[Iterable[int]]) -> NDArray[np.str_]:
    """Return the labels of many index sets."""
    if isinstance(sets, str | bytes | Mapping) or not np.iterable(sets):
        raise TypeError(f"sets: needs a sequence of index sets, got {sets!r}")
    return np.array([_label("sets", modes) for modes in sets], dtype=np.str_)


def index_set_modes(label: str) -> tuple[int, ...]:
    """Return the modes of an index-set label, ascending.

    Parameters
    ----------
    label
        An index set as Datasets name it, such as ``"{0,2}"``; ``"{}"`` is the empty one. On which
        roots modes are under weight decay, as in ``"{0⁺,2⁻}"``, does not matter.

    Returns
    -------
    tuple of int
        The modes, counted from 0.

    Raises
    ------
    ValueError
        If the text is no index-set label.

    Examples
    --------
    >>> import dlnds as dl
    >>> points = dl.critical_points(dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0], [0, 1.0]]))
    >>> [dl.schema.index_set_modes(label) for label in points.critical_point.values]
    [(), (0,), (1,), (0, 1)]
    """
    if not isinstance(label, str) or not re.fullmatch(r"\{(\d+[⁺⁻]?(,\d+[⁺⁻]?)*)?\}", label):
        raise ValueError(f"label: needs an index set such as '{{0,2}}', got {label!r}")
    return tuple(sorted(int(m.rstrip("⁺⁻")) for m in label[1:-1].split(",") if m))


def finish(dataset: xr.Dataset, schema: str, attrs: Mapping[str, Any]) -> xr.Dataset:
    """Return ``dataset`` with the attributes of its schema and of its variables."""
    return described(dataset.copy(deep=False), schema, attrs)


def described(dataset: xr.Dataset, schema: str, attrs: Mapping[str, Any]) -> xr.Dataset:
    """Return a Dataset with these attributes, which may be written into it: nobody else has it."""
    if "mode" in dataset.dims and "mode" not in dataset.coords:
        dataset = dataset.assign_coords(mode=np.arange(dataset.sizes["mode"]))
    dataset.attrs.update({"schema": schema, "dlnds_version": __version__, **attrs})
    for name, variable in dataset.variables.items():
        words, own = _words_of(schema, str(name)), variable.attrs
        for key, word in words.items():
            own.setdefault(key, word)
        meanings = _FLAGGED.get((schema, str(name)))
        if meanings:
            own.update(flag_values=_flag_values(meanings), flag_meanings=" ".join(meanings))
    return dataset


@functools.lru_cache(maxsize=1024)
def _words_of(schema: str, name: str) -> Mapping[str, str]:
    """Return what a variable of this name means in a schema."""
    long_name, symbol = DESCRIPTIONS.get(name, (name.replace("_", " "), ""))
    long_name = _OWN_DESCRIPTIONS.get((schema, name), long_name)
    return {
        "long_name": long_name,
        "units": "1",
        "symbol": _OWN_SYMBOLS.get((schema, name), symbol),
    }


def carries_problem(dataset: xr.Dataset) -> bool:
    """Tell whether a Dataset carries what its system is rebuilt from, as `load_system` does it."""
    return PROBLEM in dataset.coords and DESCRIPTION in dataset[PROBLEM].attrs


def without_problem(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset without what its system is rebuilt from."""
    return dataset.drop_vars(PROBLEM) if carries_problem(dataset) else dataset


def _flag_values(meanings: Sequence[str]) -> NDArray[np.int8]:
    """Return the numbers that stand for words."""
    first = -1 if meanings is FOLD_DIRECTIONS else 0
    return np.arange(first, first + len(meanings), dtype=np.int8)


def columns(dim: str, **values: Any) -> dict[str, tuple[str, Any]]:
    """Return variables of one dim, by their names."""
    return {name: (dim, column) for name, column in values.items()}


def flag(meanings: Sequence[str], values: Any) -> Any:
    """Return words as the integers that stand for them in a flag variable."""
    number = {meaning: i for i, meaning in enumerate(meanings)}
    words = np.asarray(values)
    found = np.array([number[word] for word in words.ravel().tolist()], dtype=np.int8)
    return found.reshape(words.shape)


def decode(flags: xr.DataArray) -> xr.DataArray:
    """Return the words that an integer flag variable stands for.

    Parameters
    ----------
    flags
        A variable with the attributes ``flag_values`` and ``flag_meanings``.

    Raises
    ------
    ValueError
        If the variable carries no flags, or values that are none of them.

    Examples
    --------
    >>> import dlnds as dl
    >>> points = dl.critical_points(dl.LinearNetwork(widths=(1, 1), target=[[2.0]]))
    >>> dl.schema.decode(points.kind).values.tolist()
    ['global_minimum']
    """
    if "flag_meanings" not in getattr(flags, "attrs", {}):
        raise ValueError("flags: needs a variable with flag_meanings")
    meanings = flags.attrs["flag_meanings"].split()
    values, first = np.asarray(flags.values), int(np.min(flags.attrs.get("flag_values", 0)))
    last = first + len(meanings) - 1
    if not np.isin(values, np.arange(first, last + 1)).all():
        raise ValueError(f"flags: has values other than {first} to {last}")
    words = np.array(meanings, dtype=object)[values.astype(int) - first]
    return flags.copy(data=words).drop_attrs()


def samples(
    name: str, data: Any, ndim: int | tuple[int, ...] = 2, *, of: Any = None
) -> NDArray[np.float64]:
    """Return data as (features, samples); labelled data are transposed.

    Those that say that their samples are ``of`` other data in another order are refused.
    """
    own, others = _sample_labels(data), _sample_labels(of)
    if len(own) == len(others) and own != others and not {*own}.isdisjoint(others):
        raise ValueError(
            f"{name}: needs the samples of the inputs in the same order, got the column labels "
            f"{own[:3]}, … for {others[:3]}, …"
        )
    if isinstance(data, xr.DataArray) and "sample" in data.dims:
        data = data.transpose(..., "sample")
    return check_array(name, data, ndim=ndim)


def _sample_labels(data: Any) -> list[Any]:
    """Return what arrays and tables call their samples; nothing if they do not."""
    if isinstance(data, xr.DataArray):
        named = "sample" in data.coords and data.coords["sample"].dims == ("sample",)
        return list(data.coords["sample"].values.tolist()) if named else []
    return list(data.axes[-1]) if hasattr(data, "iloc") else []  # of pandas


def spoken(word: str) -> str:
    """Return a flag's word as people write it."""
    return word.replace("_", " ").replace("nonstrict", "non-strict")


def state_coordinates(widths: Sequence[int]) -> dict[str, tuple[str, Any]]:
    """Return the coordinates ``layer, row, column`` on ``parameter`` for layers of these widths."""
    sizes = check_integers("widths", widths, minimum=0, ordered=True)
    if len(sizes) < 2:
        raise ValueError(f"widths: needs at least inputs and outputs, got {sizes}")
    counts = [before * after for before, after in itertools.pairwise(sizes)]
    check_memory("widths", 3 * sum(counts))
    layers, rows, places = _places(sizes)
    return columns("parameter", layer=layers.copy(), row=rows.copy(), column=places.copy())


@functools.lru_cache(maxsize=8)  # of wide layers each is large
def _places(sizes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Return layer, row and column of each weight."""
    shapes = [*zip(sizes[1:], sizes[:-1], strict=True)]
    rows, places = np.hstack([np.indices(shape).reshape(2, -1) for shape in shapes])
    layers = np.repeat(np.arange(1, len(sizes)), [after * before for after, before in shapes])
    return layers, rows, places


@known_options
def weights(dataset: xr.Dataset | xr.DataTree, layer: int) -> xr.DataArray:
    """Return one layer's weight matrices W_i out of a Dataset with states.

    Parameters
    ----------
    dataset
        A Dataset, or node of a tree, with a variable ``state`` of dims (…, ``parameter``) and the
        coordinates ``layer``, ``row``, ``column``, such as a run.
    layer
        Number of the layer, 1 to h.

    Returns
    -------
    xarray.DataArray
        Dims (…, ``row``, ``column``).

    Raises
    ------
    ValueError
        If the Dataset has no states, or no such layer.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=0.1, rng=0), t_span=(0, 1), t_eval=[0, 1])
    >>> dl.weights(run, layer=1).sizes
    Frozen({'time': 2, 'row': 3, 'column': 2})
    """
    data = _as_dataset("dataset", dataset)
    _checked("dataset", data, dict.fromkeys(("layer", "row", "column"), ("parameter",)))
    if "state" not in data or "parameter" not in data["state"].dims:
        raise ValueError("dataset: needs a variable 'state' with the dim 'parameter'")
    number = check_integer("layer", layer, minimum=1, maximum=int(data.layer.max()))
    part = data.state.isel(parameter=data.layer.values == number).transpose(..., "parameter")
    shape = int(part.row.max()) + 1, int(part.column.max()) + 1
    if part.sizes["parameter"] != shape[0] * shape[1]:
        raise ValueError(f"dataset: needs all {shape[0]} x {shape[1]} weights of layer {number}")
    dims = part.dims[:-1]
    return xr.DataArray(
        part.values.reshape(*part.shape[:-1], *shape),
        dims=(*dims, "row", "column"),
        coords={d: part[d] for d in dims if d in part.coords},
        name="weights",
        attrs={"long_name": f"weights of layer {number}", "units": "1", "symbol": f"$W_{number}$"},
    )


def validate(dataset: xr.Dataset | xr.DataTree) -> None:
    """Check that a Dataset or DataTree carries what its schema promises.

    Raises
    ------
    TypeError
        If it is neither a Dataset nor a DataTree.
    ValueError
        If the schema is unknown, or a variable, a dimension, or an attribute is missing.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.schema.validate(dl.critical_points(net))
    """
    data = _as_dataset("dataset", dataset)
    schema = data.attrs.get("schema")
    if schema not in REQUIRED:
        known = ", ".join(REQUIRED)
        raise ValueError(f"dataset: has the unknown schema {schema!r}; known are {known}")
    if "dlnds_version" not in data.attrs:
        raise ValueError("dataset: lacks the attribute 'dlnds_version'")
    children = getattr(dataset, "children", {})
    for node, wanted in REQUIRED_NODES.get(schema, {}).items():
        if node not in children:
            raise ValueError(f"dataset: lacks the node {node!r} of schema {schema!r}")
        if children[node].attrs.get("schema") != wanted:
            raise ValueError(f"dataset: its node {node!r} needs the schema {wanted!r}")
    for child in children.values():
        validate(child)
    if schema == "run" and not {"time", "iteration"} & set(data.variables):
        raise ValueError("dataset: lacks the variable 'time' or 'iteration'")
    for name, dims in REQUIRED[schema].items():
        if not set(dims) <= set(_variable("dataset", data, name).dims):
            raise ValueError(f"dataset: {name!r} needs dims {dims}, has {data[name].dims}")
    for key in data.variables:
        if "long_name" not in _variable("dataset", data, str(key)).attrs:
            raise ValueError(f"dataset: {key!r} lacks the attribute 'long_name'")


def read(
    name: str,
    data: object,
    schema: str | Collection[str],
    variables: Mapping[str, Sequence[str]],
    *,
    optional: Mapping[str, Sequence[str]] | None = None,
    attributes: Iterable[str] = (),
    digest: str | None = None,
    empty: Collection[str] = (),
    partial: Collection[str] = (),
) -> xr.Dataset:
    """Return a Dataset that is handed back to us, with the dims of these variables in this order.

    The one place where functions look at what other functions of this package have made, and what
    users may have changed since: all that is computed from it afterwards can trust it.

    Parameters
    ----------
    name
        The argument, with which every message begins.
    data
        A Dataset, or the node of a tree.
    schema
        The schema, or those, that it may have.
    variables
        Names and dims of what is needed; all their numbers have to be finite.
    optional
        The same of what is looked at if it is there.
    attributes
        Names of the attributes that are needed.
    digest
        The `digest` of the problem that it has to belong to.
    empty
        Dims that may have no entries.
    partial
        Variables that may have NaN, such as rows that a run did not reach.

    Raises
    ------
    ValueError, TypeError
        If it is no Dataset, of another schema or another problem, or lacks something.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(rng=0))
    >>> turned = run.transpose("parameter", "time", ...)
    >>> dl.schema.read("run", turned, "run", {"state": ("time", "parameter")}).state.dims
    ('time', 'parameter')
    """
    known = [schema] if isinstance(schema, str) else sorted(schema)
    found = data.to_dataset() if isinstance(data, xr.DataTree) else data
    if not isinstance(found, xr.Dataset) or found.attrs.get("schema") not in known:
        got = getattr(found, "attrs", {}).get("schema", type(data).__name__)
        raise TypeError(f"{name}: needs a Dataset of the schema {' or '.join(known)}, got {got!r}")
    if digest is not None and found.attrs.get("problem_digest") != digest:
        raise ValueError(f"{name}: belongs to another network")
    for attribute in attributes:
        if attribute not in found.attrs:
            raise ValueError(f"{name}: lacks the attribute {attribute!r}")
    there = {key: dims for key, dims in (optional or {}).items() if key in found.variables}
    return _checked(name, found, {**variables, **there}, empty=empty, partial=partial)


#: Variables that hold texts, and those whose rows ascend.
_TEXTS = frozenset(
    {
        "bound",
        "critical_point",
        "end",
        "label",
        "limit",
        "modes",
        "modes_lost",
        "sequence",
        "source",
        "target",
    }
)
_ASCENDING = frozenset({"iteration", "time"})


def _as_dataset(name: str, data: object) -> xr.Dataset:
    if isinstance(data, xr.DataTree):
        return data.to_dataset()
    if not isinstance(data, xr.Dataset):
        raise TypeError(f"{name}: needs a Dataset or a DataTree, got {type(data).__name__}")
    return data


def _variable(name: str, data: xr.Dataset, key: str) -> xr.Variable:
    """Return a variable that is there, with the words of its flags if it has such."""
    if key not in data.variables:
        raise ValueError(f"{name}: lacks the variable {key!r}")
    variable = data.variables[key]
    meanings = _FLAGGED.get((str(data.attrs.get("schema")), key))
    if meanings is None:
        return variable
    words = " ".join(meanings)
    if variable.attrs.get("flag_meanings") != words:
        raise ValueError(f"{name}: {key!r} needs the attribute flag_meanings {words!r}")
    if not np.isin(variable.values, _flag_values(meanings)).all():
        raise ValueError(f"{name}: {key!r} has values outside its flags {meanings}")
    return variable


def _checked(
    name: str,
    data: xr.Dataset,
    variables: Mapping[str, Sequence[str]],
    empty: Collection[str] = (),
    partial: Collection[str] = (),
) -> xr.Dataset:
    """Return a Dataset with the dims of these variables in this order, if all can be used."""
    for key, dims in variables.items():
        variable = _variable(name, data, key)
        sizes = variable.sizes
        if {*sizes} != {*dims} or not all(sizes[dim] or dim in empty for dim in dims):
            raise ValueError(f"{name}: {key!r} needs the dims {tuple(dims)}, has {dict(sizes)}")
        kinds, wanted = ("UOT", "texts") if key in _TEXTS else ("biuf", "real numbers")
        if variable.dtype.kind not in kinds:
            raise ValueError(f"{name}: {key!r} needs {wanted}, got dtype {variable.dtype}")
        if variable.dtype.kind == "f" and key not in partial:
            check_finite(name, variable.values, "")
        along = variable.transpose(*dims).values
        if key in _ASCENDING and dims and (np.diff(along) < 0).any():
            raise ValueError(f"{name}: needs its rows in the order of {key}")
    used = set(itertools.chain.from_iterable(variables.values()))
    check_labels(name, data.drop_dims([dim for dim in data.dims if dim not in used]))
    turned = {k: d for k, d in variables.items() if data.variables[k].dims != tuple(d)}
    return data.assign({k: data[k].transpose(*d) for k, d in turned.items()})
