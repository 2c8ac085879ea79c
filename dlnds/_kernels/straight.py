"""The field of a deep linear network as straight-line code for given small widths.

The formulas are those of `linear.field_from_inputs` and `linear.field_from_outputs`. A matrix is a
list of rows, each a vector in registers; there are no loops, no addresses to compute, and nothing
to allocate. Numba's cache keeps one field for each plan (k, whether whitened, d_0, …, d_h).
"""

import itertools
from collections.abc import Callable
from functools import cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dlnds._kernels import dense, linear
from dlnds._kernels.jit import DISABLED, jit

#: Largest width, and most multiplications in an evaluation: what is compiled in two seconds.
WIDEST, MOST_MULTIPLICATIONS = 32, 40_000


def multiplications(widths: tuple[int, ...], k: int, whitened: bool) -> int:
    """Return the number of multiplications in one evaluation."""
    breadth = min(k, widths[-1])
    pairs = list(itertools.pairwise(widths))
    inner = pairs[1:] if k <= widths[-1] else pairs[:-1]
    roots = 0 if whitened else 2 * widths[0] * k * (widths[1] if k <= widths[-1] else breadth)
    return 3 * breadth * sum(a * b for a, b in inner) + roots


@cache
def field(widths: tuple[int, ...], k: int, whitened: bool) -> Callable[..., None]:
    """Return the field for ``widths``, Σ with ``k`` columns, and K only if not ``whitened``.

    Without the compiler, the general one.
    """
    if DISABLED:
        return linear.field_from_inputs if k <= widths[-1] else linear.field_from_outputs
    plan = " ".join(map(str, (k, int(whitened), *widths)))

    @jit
    def field(t, x, params, out):
        evaluate(x, params[1], out, plan)

    return field


@intrinsic(prefer_literal=True)
def evaluate(typing_context, x, floats, out, plan):
    """Write the field at ``x`` into ``out``; ``plan`` is text, which Numba takes as constant."""

    def write(context, builder, signature, arguments):
        k, whitened, *widths = map(int, signature.args[3].literal_value.split())
        places = dense.arrays(context, builder, signature, arguments, (0, 1, 2))
        write_field(builder, widths, k, whitened, *(place.data for place in places))
        return context.get_dummy_value()

    return types.void(x, floats, out, plan), write


def write_field(builder, widths, k, whitened, x, floats, out):
    """Write the field, from the narrower end, between three places in memory."""
    side = from_inputs if k <= widths[-1] else from_outputs
    side(builder, *blocks(builder, widths, k, whitened, x, floats, out))


def blocks(builder, widths, k, whitened, x, floats, out):
    """Return W_1, …, W_h, Σ, K (None if whitened) and what writes the derivative of a layer."""
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    starts = [0, *itertools.accumulate(rows * columns for rows, columns in shapes)]

    def matrix(pointer, start, rows, columns):
        return [
            dense.load(builder, pointer, dense.INT64(start + i * columns), columns)
            for i in range(rows)
        ]

    def assign(i, value):
        for row, start in zip(value, itertools.count(starts[i - 1], widths[i - 1])):
            dense.store(builder, row, out, dense.INT64(start))

    layers = [matrix(x, start, *shape) for start, shape in zip(starts, shapes, strict=False)]
    root = None if whitened else matrix(floats, widths[-1] * k, widths[0], k)
    return layers, matrix(floats, 0, widths[-1], k), root, assign


def from_inputs(builder, layers, target, root, assign):
    """Write Ẇ_i = B_i P_{i−1}ᵀ, B_{i−1} = W_iᵀ B_i, B_h = R."""
    products = [layers[0] if root is None else product(builder, layers[0], root)]
    for layer in layers[1:]:
        products.append(product(builder, layer, products[-1]))
    signal = difference(builder, target, products[-1])
    for i in range(len(layers), 1, -1):
        assign(i, product(builder, signal, transposed(builder, products[i - 2])))
        signal = product_left_transposed(builder, layers[i - 1], signal)
    if root is not None:
        signal = product(builder, signal, transposed(builder, root))
    assign(1, signal)


def from_outputs(builder, layers, target, root, assign):
    """Write Ẇ_i = L_iᵀ T_{i−1}, T_i = T_{i−1} W_iᵀ, T_0 = R Kᵀ."""
    products = [layers[-1]]  # L_{h−1}, …, L_0
    for layer in layers[-2::-1]:
        products.append(product(builder, products[-1], layer))
    if root is None:
        signal = difference(builder, target, products[-1])
    else:
        residual = difference(builder, target, product(builder, products[-1], root))
        signal = product(builder, residual, transposed(builder, root))
    for i in range(1, len(layers)):
        assign(i, product_left_transposed(builder, products[-1 - i], signal))
        signal = product(builder, signal, transposed(builder, layers[i - 1]))
    assign(len(layers), signal)


def product(builder, a, b):
    """Return a b."""
    return [combination(builder, [(row, j) for j in range(len(b))], b) for row in a]


def product_left_transposed(builder, a, b):
    """Return aᵀ b."""
    return [combination(builder, [(row, i) for row in a], b) for i in range(a[0].type.count)]


def combination(builder, factors, rows):
    """Return the sum of rows, each times one entry of a vector."""
    total, lanes = None, rows[0].type.count
    for (row, place), other in zip(factors, rows, strict=True):
        factor = dense.spread(builder, row, place, lanes)
        total = dense.multiply_add(builder, factor, other, total)
    return total


def difference(builder, a, b):
    """Return a − b."""
    return [builder.fsub(p, q) for p, q in zip(a, b, strict=True)]


def transposed(builder, a):
    """Return aᵀ."""
    columns = []
    for j in range(a[0].type.count):
        column = ir.Constant(dense.vector(len(a)), ir.Undefined)
        for i, row in enumerate(a):
            entry = builder.extract_element(row, dense.INT32(j))
            column = builder.insert_element(column, entry, dense.INT32(i))
        columns.append(column)
    return columns
