"""dlnds: dynamical-systems analysis of gradient flow in deep linear networks.

The architecture, from the bottom; a module imports only from lines below its own::

    plot, accessor, cli      pictures, Dataset accessor, command line
    graph_plot, page         the saddle-connection graph as a picture and as an HTML page
    branch_plot              branches and diagrams as pictures
    layout, canvas           where points and labels of an atlas go; what pictures share
    atlas                    critical points, arcs and spectra of one problem in one tree
    visits                   what ensembles of runs do, over the graph of connections
    escape                   saddles that a run visits, escape times
    arcs, graph              arcs from critical points, with exact loss; connecting orbits
    growth                   runs along stable and unstable manifolds
    manifolds, directions    how runs leave and reach a critical point; leading forms
    linearization            Hessian spectrum, index, nullity, rates; closed forms
    exact                    closed forms of the flow, as runs
    classification, fibers   kind of any critical point; random points and dimension of fibers
    critical                 critical points by index set, canonical forms
    newton                   a critical point near any start, of any system
    lyapunov                 Lyapunov exponents, covariant vectors, the Lyapunov function of runs
    bifurcation, restart     branches that cross; stored branches extended and merged
    curves                   folds and branch points in two parameters, cusps
    integrate                flow, iterate: integration and iteration of any system
    continuation             branches of solutions of an equation, modulo symmetry
    families                 equilibria as equations with a parameter: decay, data, any number
    paths                    critical points as the data or the conserved quantities follow a path
    equations                fields and generators as functions of x and p
    stepping, events         one run under way: methods, coordinates, limits; events of networks
    tracing                  one branch under way: steps, and why it ends
    detection                events between two of its points, and where they are
    corrections              one solution near a prediction, with tangent and spectrum
    bordered                 linear algebra of branches: bordered systems, spectra across orbits
    strides                  several of their steps at once, compiled
    residuals                equations F(x, p) = 0, for continuation
    distances                distances between orbits, runs projected to the quotient
    quotient                 group action, orbit bases, isotropy, horizontal parts
    problems                 the data sets of data/ and CSV files as networks
    systems                  linear, product, homogeneous and other systems: one protocol
    losses                   losses of the end-to-end map, other than the square one
    lanczos                  eigenvalues at one end from matrix-vector products
    moments                  second moments, whitening, singular modes, assumptions
    store, schema, errors    files, labels, checks
    _kernels                 compiled formulas

Data flow one way: data (X, Y) or target Σ → system → compiled field → engine → labelled Dataset.
Names are loaded when they are first used.
"""

import lazy_loader

from dlnds._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
from dlnds import accessor as _accessor  # noqa: E402, F401 - registers .dlnds
