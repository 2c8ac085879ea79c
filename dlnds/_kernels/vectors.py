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
