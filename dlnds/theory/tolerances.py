"""Every tolerance by which something is decided to be zero, equal, or critical: each once.

Relative to what, and why so large, stands beside it. What a method needs for itself (when to take a
shorter step, when to stop) is a constant of its own file.
"""

#: Singular values of Jacobians, generators and derivatives, in terms of the largest, that are zero:
#: far above rounding, which is 1e-16 times the size of the matrix, and below what a fifth-digit
#: difference of data leaves.
RANK = 1e-9
#: The same of maps that are kept at their rank exactly, where nothing but rounding is below.
FACTOR_RANK = 1e-12
#: How many times larger the smallest singular value that counts must be than the next one.
CLEAR_GAP = 10.0
#: Singular values of the target that differ by less, relative to the larger one, are equal: data
#: agree to nine digits only if they are meant to.
TIE = 1e-9
#: Learnt modes have strength 1, others 0, up to this; a state may be far from exact, but its kind
#: must not depend on that.
MODE = 1e-3
#: Relative gradient up to which a state counts as critical, and maps of two states as the same.
CRITICAL = 1e-8
#: Relative gradient and imbalance up to which a closed form holds, and what it may leave out.
EXACT = 1e-12
#: Largest imbalance, relative to the largest layer squared, that counts as balanced.
BALANCED = 1e-8
#: Norm of a hidden unit's weights, in terms of all weights, up to which it has none.
ZERO_UNIT = 1e-9
#: Eigenvalues of the Hessian at a critical point that was computed, in terms of the largest, that
#: are zero, and ‖f‖, in terms of that times ‖x‖, up to which it is one: it is known to 1e-8 or so.
HESSIAN = 1e-7
#: Eigenvalues at a located special point, in terms of the largest, that are zero: a fold is located
#: to the square of this.
KERNEL = 1e-6
#: Relative distance of invariants up to which two solutions are of one orbit.
SAME_ORBIT = 1e-6
#: Relative distance up to which two ends of branches are one.
SAME_END = 1e-8
