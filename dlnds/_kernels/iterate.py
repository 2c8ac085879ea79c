"""Iteration of maps x → α x + β f(x)."""

from numba import types

from dlnds._kernels.jit import FIELD, PARAMS, jit
from dlnds._kernels.runge_kutta import all_finite


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
        for i in range(x.size):
            x[i] = image[i]
        if (number + 1) % stride == 0:
            for i in range(x.size):
                states[row, i] = x[i]
            row += 1
    return last, row


_VECTOR = types.float64[::1]
ITERATE = types.Tuple((types.int64, types.int64))(
    types.FunctionType(FIELD),
    PARAMS,
    types.float64,
    types.float64,
    types.int64,
    types.int64,
    types.int64,
    _VECTOR,
    _VECTOR,
    types.float64[:, ::1],
)
