"""Vector instructions, written for LLVM by hand where Numba does not find them.

Numba does not join operations on numbers into operations on vectors, and it vectorizes no loop over
many rows of a matrix that might overlap with the output. What is written here is vectorized always,
and compiles in a fraction of the time, for nothing of it has to be typed. Products and sums may be
contracted to one rounding where the processor can; infinities and NaN are kept.
"""

import contextlib

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, type_callable

INT32, INT64, DOUBLE = ir.IntType(32), ir.IntType(64), ir.DoubleType()
#: Numbers that a loop handles at once.
LANES = 8


def vector(lanes):
    """Return the type of ``lanes`` numbers."""
    return ir.VectorType(DOUBLE, lanes)


def load(builder, pointer, offset, lanes):
    """Return ``lanes`` numbers from ``offset`` on."""
    place = builder.gep(pointer, [offset])
    return builder.load(builder.bitcast(place, vector(lanes).as_pointer()), align=8)


def store(builder, value, pointer, offset):
    """Write a vector to ``offset`` and on."""
    place = builder.gep(pointer, [offset])
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=8)


def spread(builder, value, place, lanes):
    """Return a vector that repeats the entry ``place`` of another."""
    mask = ir.Constant(ir.VectorType(INT32, lanes), [place] * lanes)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def repeat(builder, number, lanes):
    """Return a vector that repeats a number."""
    single = builder.insert_element(ir.Constant(vector(1), ir.Undefined), number, INT32(0))
    return spread(builder, single, 0, lanes)


def multiply_add(builder, a, b, total):
    """Return ``a b + total``; without a ``total`` the product."""
    product = builder.fmul(a, b, flags=("contract",))
    return product if total is None else builder.fadd(total, product, flags=("contract",))


@contextlib.contextmanager
def steps(builder, first, last, width):
    """Loop from ``first`` to ``last``, ``width`` at a time; LLVM leaves the loop as it is."""
    before, module = builder.block, builder.module
    body, end = builder.append_basic_block("body"), builder.append_basic_block("end")
    builder.cbranch(builder.icmp_signed("<", first, last), body, end)
    builder.position_at_end(body)
    i = builder.phi(INT64)
    i.add_incoming(first, before)
    yield i
    following = builder.add(i, INT64(width))
    i.add_incoming(following, builder.block)
    branch = builder.cbranch(builder.icmp_signed("<", following, last), body, end)
    branch.set_metadata("llvm.loop", left_alone(module))
    builder.position_at_end(end)


def left_alone(module):
    """Return the mark of a loop that LLVM shall neither unroll nor vectorize again."""
    wishes = [
        module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")]),
        module.add_metadata([ir.MetaDataString(module, "llvm.loop.vectorize.width"), INT32(1)]),
    ]
    mark = ir.MDValue(module, (), name=str(len(module.metadata)))
    mark.operands = (mark, *wishes)  # a mark names itself first, so that no two loops share one
    return mark


def arrays(context, builder, signature, arguments, places):
    """Return the arrays at some places of the arguments, with ``data`` and ``nitems``."""
    return [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in places]


def row_sums(weights):
    """Return a function (x, h, rows, s, out) that writes ``x + h Σ_j weights[s, j] rows[j]``.

    Compiled code has to give ``s`` as a number, 0, 1, …: then the weights are part of the machine
    code, those that are zero are left out, and there is no jump to predict, which would cost more
    than a sum of 50 numbers. All arrays lie in C order; ``out`` may be ``x``.
    """
    terms = [[(int(j), float(row[j])) for j in np.flatnonzero(row)] for row in weights]

    def add_rows(x, h, rows, s, out):
        total = np.zeros_like(x)
        for j, weight in terms[s]:
            total += h * weight * rows[j]
        out[:] = x + total

    @type_callable(add_rows)
    def with_types(context):
        def returned(x, h, rows, s, out):
            dense = all(a.layout == "C" and a.dtype == types.float64 for a in (x, rows, out))
            return types.none if dense and isinstance(s, types.IntegerLiteral) else None

        return returned

    @lower_builtin(
        add_rows, types.Array, types.Float, types.Array, types.IntegerLiteral, types.Array
    )
    def write(context, builder, signature, arguments):
        row, h = terms[signature.args[3].literal_value], arguments[1]
        x, rows, out = arrays(context, builder, signature, arguments, (0, 2, 4))
        write_row_sum(builder, row, x.nitems, h, x.data, rows.data, out.data)
        return context.get_dummy_value()

    return add_rows


def write_row_sum(builder, row, size, h, x, rows, out):
    """Write the loops of one sum: over vectors, then over the numbers that are left."""
    whole = builder.and_(size, INT64(-LANES))
    factors = [builder.fmul(h, DOUBLE(weight)) for _, weight in row]
    starts = [builder.mul(size, INT64(j)) for j, _ in row]
    for first, last, lanes in ((INT64(0), whole, LANES), (whole, size, 1)):
        wide = [repeat(builder, factor, lanes) for factor in factors]
        with steps(builder, first, last, lanes) as i:
            total = load(builder, x, i, lanes)
            for start, factor in zip(starts, wide, strict=True):
                stage = load(builder, rows, builder.add(start, i), lanes)
                total = multiply_add(builder, factor, stage, total)
            store(builder, total, out, i)


def add_combination(weights, first, stride, rows, start, spacing, count, out, place):
    """Add to row ``place`` of ``out`` a combination of ``count`` rows of another matrix.

    The weights are the entries ``first``, ``first + stride``, … of an array, the rows ``start``,
    ``start + spacing``, …; all arrays lie in C order.
    """
    chosen = weights.ravel()[first : first + (count - 1) * stride + 1 : stride]
    out[place] += chosen @ rows[start : start + (count - 1) * spacing + 1 : spacing]


@type_callable(add_combination)
def _with_types(context):
    def returned(weights, first, stride, rows, start, spacing, count, out, place):
        used = (weights, rows, out)
        dense = all(a.layout == "C" and a.dtype == types.float64 for a in used)
        return types.none if dense and rows.ndim == out.ndim == 2 else None

    return returned


@lower_builtin(
    add_combination,
    *(types.Array, types.Integer, types.Integer),
    *(types.Array, types.Integer, types.Integer, types.Integer),
    *(types.Array, types.Integer),
)
def _write_combination(context, builder, signature, arguments):
    weights, rows, out = arrays(context, builder, signature, arguments, (0, 3, 7))
    first, stride, start, spacing, count, place = (
        context.cast(builder, arguments[i], signature.args[i], types.int64)
        for i in (1, 2, 4, 5, 6, 8)
    )
    size = builder.extract_value(out.shape, 1)
    factors = builder.gep(weights.data, [first])
    source = builder.gep(rows.data, [builder.mul(start, size)])
    target = builder.gep(out.data, [builder.mul(place, size)])
    step = builder.mul(spacing, size)
    combination = _combination(builder.module)
    builder.call(combination, (factors, stride, source, step, count, target, size))
    return context.get_dummy_value()


def _combination(module):
    """Return the function that does it, not to be compiled into each of its callers."""
    name = "dlnds.add_combination"
    if name in module.globals:
        return module.globals[name]
    numbers = DOUBLE.as_pointer()
    types_of = (numbers, INT64, numbers, INT64, INT64, numbers, INT64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), types_of), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    factors, stride, source, step, count, target, size = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    begin = INT64(0)
    for lanes in (2 * LANES, LANES, 1):
        end = builder.and_(size, INT64(-lanes))
        with steps(builder, begin, end, lanes) as i:
            total = load(builder, target, i, lanes)
            total = _sum_of_rows(builder, factors, stride, source, step, count, i, total)
            store(builder, total, target, i)
        begin = end
    builder.ret_void()
    return function


def _sum_of_rows(builder, factors, stride, source, step, count, offset, total):
    """Return ``total`` and the lanes from ``offset`` on of all rows times their factors."""
    before, lanes = builder.block, total.type.count
    with steps(builder, INT64(0), count, 1) as j:
        carried = builder.phi(total.type)
        carried.add_incoming(total, before)
        factor = builder.load(builder.gep(factors, [builder.mul(j, stride)]))
        row = load(builder, source, builder.add(builder.mul(j, step), offset), lanes)
        added = multiply_add(builder, repeat(builder, factor, lanes), row, carried)
        carried.add_incoming(added, builder.block)
        last = builder.block
    result = builder.phi(total.type)
    result.add_incoming(total, before)
    result.add_incoming(added, last)
    return result
