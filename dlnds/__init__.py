"""dlnds: dynamical-systems analysis of gradient flow in deep linear networks.

The public names by subject; ``help(dl.NAME)`` tells more of each.

Systems: what flows
    LinearNetwork, LossNetwork, losses, HomogeneousNetwork, ProductFlow, GradientDescent, System,
    check_assumptions
Data and files: problems of this package and yours, and results on disk
    load_problem, problem_names, read_csv, save, load, load_system
Runs: trajectories, and what is recorded along them
    flow, iterate, exact_flow, sample, events, observe, weights
Convergence: at which rate runs surely converge
    convergence_bounds
Other data: what runs do on data that they were not trained on
    evaluate, generalization_error, early_stopping
Runs of others: training that was done elsewhere
    as_run, read_checkpoints, Recorder
Critical points: which there are, and of what kind
    critical_points, find_critical_point, classify, canonicalize, random_fiber_state,
    fiber_dimension, fiber_components, fiber_orientation, fiber_path, fiber_line, flattest_minimum,
    learning_coefficient, decay_diagram
Linearization: spectra, and what they count
    linearize, canonical_spectrum, inertia, hessian, hessian_product
Symmetry: states modulo changes of the hidden bases, and what is conserved
    act, orbit_basis, orbit_distance, split_tangent, quotient_run, conservation_laws
Between saddles: manifolds, arcs, and the graph of connections
    unstable_manifold, stable_manifold, grow_manifold, critical_arcs, arc_states, connections,
    edge_states, connecting_orbits, build_atlas
Escape: by which rays runs leave, along which path, and when
    escape_directions, escape_time, escape_path, escape_chain, compare_with_path, zero_preserving
Visits: which saddles runs rest at
    saddle_visits, observed_connections, overlay
Stability along runs: exponents and Lyapunov functions
    lyapunov_spectrum, covariant_vectors, lyapunov_function
Continuation: solutions as a parameter varies
    equilibria, Residual, branch, diagram, special_points, extend_branch, merge_branches,
    fold_curve, branch_point_curve
Sweeps: many runs over a grid
    sweep, collect, verify
Pictures and words: what shows and explains results
    plot, save_page, schema, cite, ConvergenceError

Data flow one way: data (X, Y) or target Σ → system → compiled field → engine → labelled Dataset
→ picture. Engines know no networks: they ask the protocol of `systems`. Names are loaded when they
are first used.
"""

# The folders, from the bottom; each imports only from lines above its own, in one direction:
#
#     _kernels                   compiled formulas, of numpy and numba alone
#     arrays, errors             types and checks of arguments
#     schema, store              what Datasets say and how they are read back; files
#     theory                     formulas of layers, singular values and ranks: plain arrays
#     systems                    one dynamical system a file, all of one protocol
#     sweeps                     many runs over a grid, in a folder that loses nothing
#     runs                       flow and iteration, events, exponents, what is recorded
#     landscape                  critical points: kind, spectrum, fiber, orbit
#     continuation               solutions as a parameter varies
#     saddles                    between critical points: directions, arcs, orbits, the atlas
#     plot                       one picture a function; the page of an atlas
#     papers                     what results rest on
#     accessor, cli              ``.dlnds`` of Datasets; the command line

from typing import Any as _Any

import lazy_loader

from dlnds._kernels.garbage import little_garbage as _little_garbage
from dlnds._version import __version__ as __version__

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> _Any:
    """Return a public name, from the file that it is loaded from."""
    with _little_garbage():
        return _load(name)


with _little_garbage():
    from dlnds import accessor as _accessor  # noqa: F401 - registers .dlnds
