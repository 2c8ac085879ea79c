"""Steps of Langevin's equation: the field, a pull to a centre, and noise."""

from numba import types

from dlnds._kernels.dense import copy
from dlnds._kernels.jit import FIELD, PARAMS, jit
from dlnds._kernels.runge_kutta import all_finite


@jit
def walk(field, params, step, pull, spread, center, noise, first, stride, x, image, states):
    """Step x ← x + η (f(x) − κ (x − c)) + s ξ, once for each row ξ of the noise.

    Steps count from ``first`` on; each number above zero that ``stride`` divides is saved. ``x`` is
    left at the last state that is finite. Return how many steps were made, and the rows saved.
    """
    row = 0
    for k in range(len(noise)):
        field(0.0, x, params, image)
        for i in range(x.size):
            force = image[i] - pull * (x[i] - center[i])
            image[i] = x[i] + step * force + spread * noise[k, i]
        if not all_finite(image):
            return k, row
        copy(image, x)
        number = first + k + 1
        if number > 0 and number % stride == 0:
            copy(x, states[row])
            row += 1
    return len(noise), row


_VECTOR, _MATRIX = types.float64[::1], types.float64[:, ::1]
WALK = types.Tuple((types.int64, types.int64))(
    *(types.FunctionType(FIELD), PARAMS, types.float64, types.float64, types.float64),
    *(_VECTOR, _MATRIX, types.int64, types.int64, _VECTOR, _VECTOR, _MATRIX),
)
