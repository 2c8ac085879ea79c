"""Every tolerance by which something is decided to be zero, equal, or critical: each once.

Relative to what, and why so large, stands beside it. What a method needs for itself (when to take a
shorter step, when to stop) is a constant of its own file.
"""

import numpy as np

#: How many times the rounding of a sum of products its bound is, see `rounding`.
_ROUNDING = 8.0


def rounding(size: int) -> float:
    """Return the accuracy of sums of so many products, and of eigenvalues of matrices of that size.

    Relative to the terms of the sum, not to what is left of them.
    """
    return _ROUNDING * size * float(np.finfo(float).eps)


#: Singular values of Jacobians, generators and derivatives, in terms of the largest, that are zero:
#: far above rounding, which is 1e-16 times the size of the matrix, and below what a fifth-digit
#: difference of data leaves.
RANK = 1e-9
#: The same of maps that are kept at their rank exactly, where nothing but rounding is below.
FACTOR_RANK = 1e-12
#: How many times larger the smallest singular value that counts must be than the next one.
CLEAR_GAP = 10.0
#: The same where the place of the gap is not known before.
WIDE_GAP = 1e4
#: How many times the rounding and the error of a state the largest singular value below such a gap
#: may be: both are known to a digit or two.
EXPLAINED = 100.0
#: Singular values of the target that differ by less, relative to the larger one, are equal: data
#: agree to nine digits only if they are meant to.
TIE = 1e-9
#: Singular values of a layer along a run that differ by less, relative to the larger one, have no
#: singular vectors of their own: those that should be equal agree to the accuracy of the run.
CLOSE = 1e-6
#: Learnt modes have strength 1, others 0, up to this; a state may be far from exact, but its kind
#: must not depend on that.
MODE = 1e-3
#: Relative gradient up to which a state counts as critical, and maps of two states as the same.
CRITICAL = 1e-8
#: Relative gradient up to which a state of unknown accuracy counts as critical: what runs leave.
NEARLY = 1e-3
#: Part of a layer, in terms of all of it, that may be nothing but the error of such a state.
ERROR = 1e-2
#: Deviation of a start from balanced and aligned layers, relative to the square of its size, up to
#: which the closed form of its run holds: the run is then as exact as this.
ALIGNED = 1e-10
#: Relative gradient and imbalance up to which a closed form holds, and what it may leave out.
EXACT = 1e-12
#: Largest imbalance, relative to the largest layer squared, that counts as balanced.
BALANCED = 1e-8
#: Norm of a hidden unit's weights, in terms of all weights, up to which it has none.
ZERO_UNIT = 1e-9
#: What a sample gives to a hidden unit, in terms of the norms of both, up to which it is nothing.
UNREACHED = 1e-9
#: Eigenvalues of the Hessian at a critical point that was computed, in terms of the largest, that
#: are zero, and ‖f‖, in terms of that times ‖x‖, up to which it is one: it is known to 1e-8 or so.
HESSIAN = 1e-7
#: Eigenvalues at a located special point, in terms of the largest, that are zero: a fold is located
#: to the square of this.
KERNEL = 1e-6
#: Eigenvalues at solutions of an equation, in terms of the largest, that are zero: rounding, and
#: the error of a differenced Jacobian.
EIGENVALUE = 1e-9
#: The same in terms of the usual size of the derivatives, where all eigenvalues vanish.
ROUNDING = 1e-11
#: Relative distance of invariants up to which two solutions are of one orbit.
SAME_ORBIT = 1e-6
#: Relative distance up to which two ends of branches are one.
SAME_END = 1e-8
#: Largest weight between learnt and other units, in terms of the learnt ones, at which they part:
#: what they do to each other is of second order in it.
COUPLING = 1e-10
#: What W does between directions without data, in terms of the target, at the end of a run: it
#: decays like a power of time, and would keep the run for ever.
UNSEEN = 1e-4
#: Forces below this move no weight by its rounding within any time that a number can hold.
NO_FORCE = 1e-250
#: Singular values that underflow when they are squared.
SMALLEST = 1e-150
#: Largest ‖∇N − λu‖/λ at a KKT point, and where second derivatives are not taken.
KKT, KKT_ROUGHLY = 1e-10, 1e-4
#: Relative differences of values and invariants up to which ends of ascents, and KKT points, are
#: the same; curvatures along a KKT point are zero up to the first.
NEAR_RAY, SAME_RAY = 1e-5, 1e-7
#: Components of a unit vector that are nothing but rounding of a search, and of its frames.
NO_WEIGHT, NO_PART = 1e-16, 1e-13
#: Eigenvalues of a random element, in terms of the largest, that are those of one block of the
#: isotropy group.
SAME_BLOCK = 1e-7
#: Asymmetry of a matrix of the user's, relative to its largest entry, that rounding explains.
SYMMETRIC = 1e-10
#: The same of a matrix that is differenced.
NEARLY_SYMMETRIC = 1e-7
#: Part of M outside the range of C, relative to M, that the rounding of data explains.
OUTSIDE = 1e-6
#: Deviation of the sum of a user's probabilities from one.
SUMS = 1e-6
