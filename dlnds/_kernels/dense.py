"""Vectors, dense matrices and stacks of them: what kernels compute with.

Products are plain loops below the size where BLAS wins, BLAS above it; loops stand where an array
expression would do because they compile several times faster. To each product is added what was in
``out``, ``kept`` times: not at all if that is zero. (A float, for Numba compiles functions anew for
each integer or truth value that it finds written in a call.)

Where Numba finds no vector instructions they are written for LLVM by hand: it does not join
operations on numbers into operations on vectors, and it vectorizes no loop over many rows of a
matrix that might overlap with the output. What is written here is vectorized always, and compiles
in a fraction of the time, for nothing of it has to be typed. Products and sums may then be
contracted to one rounding where the processor can; infinities and NaN are kept.
"""

import contextlib

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, imputils
from numba.extending import lower_builtin, type_callable
from numba.np import arrayobj

from dlnds._kernels.jit import LOOP_LIMIT, inlined, part, sums

LETTER, INT32, INT64, DOUBLE = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.DoubleType()
#: Numbers that a loop handles at once.
LANES = 8
#: Numbers for which there is room that need not be asked for.
LITTLE = 64


@part
def copy(a, out):
    """Copy a vector."""
    for i in range(out.size):
        out[i] = a[i]


@part
def clear(out):
    """Set all entries of a vector to zero."""
    for i in range(out.size):
        out[i] = 0.0


@part
def add_multiple(factor, a, out):
    """Add a multiple of a vector."""
    for i in range(out.size):
        out[i] += factor * a[i]


@sums
def dot(a, b):
    """Return the product of two vectors."""
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@sums
def length(a):
    """Return the Euclidean norm of a vector."""
    total = 0.0
    for i in range(a.size):
        total += a[i] * a[i]
    return np.sqrt(total)


@part
def multiply(a, b, out, kept):
    """Compute ``a b``."""
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[1]
    if rows * inner * columns > LOOP_LIMIT:
        blas_product(a, False, b, False, out, kept)
        return
    scale(kept, out)
    for i in range(rows):
        for k in range(inner):
            factor = a[i, k]
            for j in range(columns):
                out[i, j] += factor * b[k, j]


@part
def multiply_left_transposed(a, b, out, kept):
    """Compute ``aᵀ b``."""
    inner, rows, columns = a.shape[0], a.shape[1], b.shape[1]
    if rows * inner * columns > LOOP_LIMIT:
        blas_product(a, True, b, False, out, kept)
        return
    scale(kept, out)
    for k in range(inner):
        for i in range(rows):
            factor = a[k, i]
            for j in range(columns):
                out[i, j] += factor * b[k, j]


@part
def multiply_right_transposed(a, b, out, kept):
    """Compute ``a bᵀ``."""
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[0]
    if rows * inner * columns > LOOP_LIMIT:
        blas_product(a, False, b, True, out, kept)
        return
    scale(kept, out)
    for i in range(rows):
        for j in range(columns):
            total = out[i, j]
            for k in range(inner):
                total += a[i, k] * b[j, k]
            out[i, j] = total


@part
def scale(factor, out):
    """Multiply by a factor; by zero also what is not finite."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = factor * out[i, j] if factor != 0.0 else 0.0


@part
def fill(value, out):
    """Set all entries to ``value``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = value


@part
def scaled_sum(alpha, a, beta, b, out):
    """Compute ``alpha a + beta b``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = alpha * a[i, j] + beta * b[i, j]


@part
def assign(a, out):
    """Copy ``a``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j]


@part
def assign_transposed(a, out):
    """Copy ``aᵀ``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[j, i]


@part
def assign_identity(out):
    """Set ``out`` to the identity."""
    fill(0.0, out)
    for i in range(out.shape[0]):
        out[i, i] = 1.0


@inlined
def magnitude(z):
    """Return the size of a number, real or complex, without a root."""
    return abs(z.real) + abs(z.imag)


@inlined
def pivot(M, pivots, k):
    """Exchange rows so that the largest entry of column k, from the diagonal on, comes onto it."""
    best = k
    for i in range(k + 1, M.shape[0]):
        if magnitude(M[i, k]) > magnitude(M[best, k]):
            best = i
    pivots[k] = best
    if best != k:
        for j in range(M.shape[1]):
            M[k, j], M[best, j] = M[best, j], M[k, j]
    return best


@inlined
def eliminate(M, k):
    """Clear column k below the diagonal, and leave the factors in its place."""
    inverse = 1.0 / M[k, k]
    for i in range(k + 1, M.shape[0]):
        if M[i, k] != 0.0:
            factor = M[i, k] * inverse
            M[i, k] = factor
            for j in range(k + 1, M.shape[1]):
                M[i, j] -= factor * M[k, j]


@part
def substitute(M, pivots, right):
    """Overwrite ``right`` by the solution of the system with these triangular factors."""
    n = M.shape[0]
    for k in range(n):
        best = pivots[k]
        right[k], right[best] = right[best], right[k]
    for i in range(n):
        total = right[i]
        for j in range(i):
            total -= M[i, j] * right[j]
        right[i] = total
    for i in range(n - 1, -1, -1):
        total = right[i]
        for j in range(i + 1, n):
            total -= M[i, j] * right[j]
        right[i] = total / M[i, i]


# What is written for LLVM.


def matrix_at(numbers, start, rows, columns):
    """Return the matrix that lies in a vector from ``start`` on, row by row, as a view.

    Where it is compiled nothing is checked. A slice that is reshaped takes several times as long,
    which for matrices of a few entries is more than what is done with them.
    """
    return numbers[start : start + rows * columns].reshape(rows, columns)


@type_callable(matrix_at)
def _type_of_matrix(context):
    def returned(numbers, start, rows, columns):
        known = isinstance(numbers, types.Array) and numbers.ndim == 1 and numbers.layout == "C"
        return types.Array(numbers.dtype, 2, "C") if known else None

    return returned


@lower_builtin(matrix_at, types.Array, types.Integer, types.Integer, types.Integer)
def _write_matrix(context, builder, signature, arguments):
    (numbers,) = arrays(context, builder, signature, arguments, (0,))
    start, rows, columns = (
        context.cast(builder, arguments[i], signature.args[i], types.intp) for i in (1, 2, 3)
    )
    matrix = context.make_array(signature.return_type)(context, builder)
    size = context.get_constant(types.intp, signature.return_type.dtype.bitwidth // 8)
    arrayobj.populate_array(
        matrix,
        data=builder.gep(numbers.data, [start]),
        shape=cgutils.pack_array(builder, [rows, columns]),
        strides=cgutils.pack_array(builder, [builder.mul(columns, size), size]),
        itemsize=size,
        meminfo=numbers.meminfo,
    )
    view = matrix._getvalue()  # noqa: SLF001 - Numba has no public name for it
    return imputils.impl_ret_borrowed(context, builder, signature.return_type, view)


def room(size):
    """Return a vector whose entries have no value yet; where nothing is compiled they are NaN.

    It lasts as long as the call that asks for it, and the next time that this line is reached.
    """
    return np.full(size, np.nan)


@type_callable(room)
def _type_of_room(context):
    return lambda size: types.float64[::1] if isinstance(size, types.Integer) else None


@lower_builtin(room, types.Integer)
def _write_room(context, builder, signature, arguments):
    size = context.cast(builder, arguments[0], signature.args[0], types.intp)
    kind, little = signature.return_type, cgutils.alloca_once(builder, DOUBLE, LITTLE)
    made = context.make_array(kind)(context, builder)
    arrayobj.populate_array(made, little, [size], [INT64(8)], itemsize=8, meminfo=None)
    place = made._getpointer()  # noqa: SLF001 - Numba has no public names for these
    with builder.if_then(builder.icmp_signed(">", size, INT64(LITTLE)), likely=False):
        much = arrayobj._empty_nd_impl(context, builder, kind, [size])  # noqa: SLF001
        builder.store(much._getvalue(), place)  # noqa: SLF001
    return imputils.impl_ret_new_ref(context, builder, kind, builder.load(place))


def blas_product(a, turn_a, b, turn_b, out, kept):
    """Compute the product of two matrices in C order, or of their transposes, by BLAS."""
    product = (a.T if turn_a else a) @ (b.T if turn_b else b)
    out[:] = product if kept == 0.0 else product + kept * out


@type_callable(blas_product)
def _type_of_product(context):
    def returned(a, turn_a, b, turn_b, out, kept):
        dense = all(m == types.float64[:, ::1] for m in (a, b, out))
        return types.none if dense and kept == types.float64 else None

    return returned


@lower_builtin(
    *(blas_product, types.Array, types.Boolean, types.Array, types.Boolean),
    *(types.Array, types.Float),
)
def _write_product(context, builder, signature, arguments):
    a, b, out = arrays(context, builder, signature, arguments, (0, 2, 4))
    turns = [context.cast(builder, arguments[i], signature.args[i], types.boolean) for i in (1, 3)]
    (_, a_columns), (b_rows, b_columns), (rows, columns) = (
        [builder.extract_value(m.shape, i) for i in (0, 1)] for m in (a, b, out)
    )
    inner = builder.select(turns[1], b_columns, b_rows)
    letters = [builder.select(turn, LETTER(ord("t")), LETTER(ord("n"))) for turn in turns]
    # BLAS takes each matrix, whose rows follow one another here, for its transpose.
    sizes = (letters[1], letters[0], columns, rows, inner)
    data = (b.data, b_columns, a.data, a_columns, arguments[5], out.data)
    builder.call(_gemm(builder.module), (*sizes, *data))
    return context.get_dummy_value()


def _gemm(module):
    """Return the function that calls BLAS for matrices in Fortran order."""
    number = DOUBLE.as_pointer()
    types_of = (LETTER, LETTER, INT64, INT64, INT64, number, INT64, number, INT64, DOUBLE, number)
    function, new = apart(module, "dlnds.gemm", types_of)
    if new:
        turn_a, turn_b, rows, columns, inner, a, a_rows, b, b_rows, kept, out = function.args
        builder = ir.IRBuilder(function.append_basic_block())
        factors = [cgutils.alloca_once_value(builder, f) for f in (DOUBLE(1.0), kept)]
        given = (
            *(LETTER(ord("d")), turn_a, turn_b, rows, columns, inner, factors[0]),
            *(a, a_rows, b, b_rows, factors[1], out, rows),
        )
        kind = ir.FunctionType(INT32, [value.type for value in given])
        builder.call(cgutils.get_or_insert_function(module, kind, "numba_xxgemm"), given)
        builder.ret_void()
    return function


def apart(module, name, types_of):
    """Return a function that is not compiled into its callers, and whether it is still empty."""
    if name in module.globals:
        return module.globals[name], False
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), types_of), name)
    function.linkage = "linkonce_odr"  # that of one part serves all
    function.attributes.add("noinline")
    return function, True


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
    """Return the function that does it."""
    numbers = DOUBLE.as_pointer()
    types_of = (numbers, INT64, numbers, INT64, INT64, numbers, INT64)
    function, new = apart(module, "dlnds.add_combination", types_of)
    if not new:
        return function
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


# Products of a matrix with each matrix of a stack ``v``, added to the stack ``out``. Stacks are
# given as matrices of all their vectors, whose rows are those of the matrices one after the other.


@part
def add_products(a, a_row, a_column, a_inner, v, v_row, v_column, v_inner, sizes, out):
    """Add the sums of ``a`` times rows of ``v`` over an inner index to each row of ``out``.

    The strides say how far the place in an array moves with the row and the column of a matrix of
    ``out``, and with the inner index; ``sizes`` are the numbers of these three.
    """
    rows, columns, inner = sizes
    for i in range(rows):
        for j in range(columns):
            first, start = i * a_row + j * a_column, i * v_row + j * v_column
            add_combination(a, first, a_inner, v, start, v_inner, inner, out, i * columns + j)


@part
def add_left(a, v, out):
    """Add ``a v``."""
    rows, inner = a.shape
    columns = v.shape[0] // inner
    add_products(a, inner, 0, 1, v, 0, 1, columns, (rows, columns, inner), out)


@part
def add_left_transposed(a, v, out):
    """Add ``aᵀ v``."""
    inner, rows = a.shape
    columns = v.shape[0] // inner
    add_products(a, 1, 0, rows, v, 0, 1, columns, (rows, columns, inner), out)


@part
def add_right(v, a, out):
    """Add ``v a``."""
    inner, columns = a.shape
    sizes = (v.shape[0] // inner, columns, inner)
    add_products(a, 0, 1, columns, v, inner, 0, 1, sizes, out)


@part
def add_right_transposed(v, a, out):
    """Add ``v aᵀ``."""
    columns, inner = a.shape
    sizes = (v.shape[0] // inner, columns, inner)
    add_products(a, 0, inner, 1, v, inner, 0, 1, sizes, out)


@part
def add_transposed_right(v, a, out):
    """Add ``vᵀ a``."""
    inner, columns = a.shape
    rows = v.shape[0] // inner
    add_products(a, 0, 1, columns, v, 1, 0, rows, (rows, columns, inner), out)


@part
def add_left_of_transposed(a, v, out):
    """Add ``a vᵀ``."""
    rows, inner = a.shape
    columns = v.shape[0] // inner
    add_products(a, inner, 0, 1, v, 0, inner, 1, (rows, columns, inner), out)
