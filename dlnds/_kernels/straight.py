"""What the steps of a small deep linear network ask for, as straight-line code for its widths.

The formulas are those of `linear.field_from_inputs`, `linear.field_from_outputs` and
`balance.error_scale`; a third function looks at what `balance.restore` keeps. A matrix is a list of
vectors in registers, each of one row, or of two where these are short; there are no loops, no
addresses to compute, and nothing to allocate. Numba's cache keeps a file of each for the widths, of
fields one for each plan (k, whether whitened, d_0, …, d_h).
"""

import functools
import hashlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dlnds._kernels import balance, decayed, dense, linear, runge_kutta
from dlnds._kernels.jit import DISABLED, jit

#: Largest width, and most multiplications in an evaluation: what is compiled in two seconds.
WIDEST, MOST_MULTIPLICATIONS = 32, 40_000
#: Squares below which others may have become zero.
CLEAR = 1e-290


def multiplications(widths: tuple[int, ...], k: int, whitened: bool) -> int:
    """Return the number of multiplications in one evaluation."""
    breadth = min(k, widths[-1])
    pairs = list(itertools.pairwise(widths))
    inner = pairs[1:] if k <= widths[-1] else pairs[:-1]
    roots = 0 if whitened else 2 * widths[0] * k * (widths[1] if k <= widths[-1] else breadth)
    return 3 * breadth * sum(a * b for a, b in inner) + roots


@functools.cache
def field(
    widths: tuple[int, ...], k: int, whitened: bool, decays: bool = False
) -> Callable[..., None]:
    """Return the field for ``widths``, Σ with ``k`` columns, and K only if not ``whitened``.

    ``decays`` is whether there is weight decay. Without the compiler, the general one.
    """
    if DISABLED:
        general = linear.field_from_inputs if k <= widths[-1] else linear.field_from_outputs
        return decayed.field(general) if decays else general
    plan = " ".join(map(str, (k, int(whitened), *widths)))

    @_compiled(plan)
    def field(t, x, params, out):
        evaluate(x, params[1], out, plan)

    @_compiled(plan)
    def field_with_decay(t, x, params, out):
        evaluate(x, params[1], out, plan)
        decayed.subtract(params, x, out)

    return field_with_decay if decays else field


@functools.cache
def error_scale(widths: tuple[int, ...]) -> Callable[..., None]:
    """Return the error scale for ``widths``. Without the compiler, the general one."""
    if DISABLED:
        return balance.error_scale
    plan = " ".join(map(str, widths))

    @_compiled(plan)
    def error_scale(t, x, params, out):
        measure(x, out, plan)

    return error_scale


@functools.cache
def holds(widths: tuple[int, ...]) -> Callable[..., Any]:
    """Return what tells, for ``widths``, that `balance.restore` would find nothing to do.

    Without the compiler, or where the C_i have so many entries that they are not all looked at
    after each step, what leaves that to it.
    """
    if DISABLED or sum(d * d for d in widths[1:-1]) > balance.FEW_ENTRIES:
        return runge_kutta.keep
    plan = " ".join(map(str, widths))

    @_compiled(plan)
    def holds(x, params, reference, rtol, thorough):
        return are_kept(x, reference, plan)

    return holds


def _compiled(plan: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return `jit` for functions of a plan, with a name that those of other plans do not have.

    Numba names files, and the code in them, by that. Of one file, two processes that write at once
    would leave the code of one plan under the key of the other.
    """
    digest = hashlib.sha256(plan.encode()).hexdigest()[:16]  # there may be thousands of widths

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ = f"{function.__name__}_{digest}"
        return jit(function)

    return compiled


@intrinsic
def are_kept(typing_context, x, reference, plan):
    """Tell whether the C_i are those of ``reference``, as far as `balance.restore` asks."""
    if not isinstance(plan, types.StringLiteral):
        return None

    def write(context, builder, signature, arguments):
        widths = list(map(int, signature.args[2].literal_value.split()))
        places = dense.arrays(context, builder, signature, arguments, (0, 1))
        return write_look(builder, widths, *(place.data for place in places))

    return types.boolean(x, reference, plan), write


@intrinsic
def measure(typing_context, x, out, plan):
    """Write the error scale at ``x`` into ``out``, as `evaluate` does the field."""
    if not isinstance(plan, types.StringLiteral):
        return None

    def write(context, builder, signature, arguments):
        widths = list(map(int, signature.args[2].literal_value.split()))
        places = dense.arrays(context, builder, signature, arguments, (0, 1))
        write_scale(builder, widths, *(place.data for place in places))
        return context.get_dummy_value()

    return types.void(x, out, plan), write


@intrinsic
def evaluate(typing_context, x, floats, out, plan):
    """Write the field at ``x`` into ``out``; ``plan`` is text, which Numba takes as constant.

    Numba asks first with the type of any text, then with that of this one: the other order, which
    `prefer_literal` gives, is lost where a field is sent to another process.
    """
    if not isinstance(plan, types.StringLiteral):
        return None

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


class Matrix(NamedTuple):
    """A matrix whose rows lie in vectors, as many in each as `height` says, but for the last."""

    vectors: list[Any]
    rows: int
    columns: int

    def at(self, i, j):
        """Return the vector that holds an entry, and its place in that."""
        high = height(self.columns)
        return self.vectors[i // high], i % high * self.columns + j


def height(columns):
    """Return the rows that lie in one vector: two where they fill one of a processor's."""
    return 2 if dense.LANES % (2 * columns) == 0 else 1


def groups(rows, columns):
    """Return the rows of each vector."""
    high = height(columns)
    return [range(i, min(i + high, rows)) for i in range(0, rows, high)]


def blocks(builder, widths, k, whitened, x, floats, out):
    """Return W_1, …, W_h, Σ, K (None if whitened) and what writes the derivative of a layer."""
    target = loaded(builder, floats, 0, widths[-1], k)
    root = None if whitened else loaded(builder, floats, widths[-1] * k, widths[0], k)

    def assign(i, value):
        write(builder, value, out, starts_of(widths)[i - 1])

    return layers_of(builder, widths, x), target, root, assign


def layers_of(builder, widths, x):
    """Return W_1, …, W_h."""
    shapes = zip(starts_of(widths), widths[1:], widths[:-1], strict=True)
    return [loaded(builder, x, *shape) for shape in shapes]


def starts_of(widths):
    """Return where layers start in a state."""
    sizes = [a * b for a, b in itertools.pairwise(widths)]
    return [0, *itertools.accumulate(sizes[:-1])]


def loaded(builder, pointer, start, rows, columns):
    """Return a matrix that lies in memory row by row."""
    vectors = [
        dense.load(builder, pointer, dense.INT64(start + i[0] * columns), len(i) * columns)
        for i in groups(rows, columns)
    ]
    return Matrix(vectors, rows, columns)


def write(builder, matrix, pointer, start):
    """Write a matrix row by row."""
    for vector in matrix.vectors:
        dense.store(builder, vector, pointer, dense.INT64(start))
        start += vector.type.count


def write_scale(builder, widths, x, out):
    """Write √(s_a s_b), with the sizes s of the units that a weight joins."""
    counts = [a + b for a, b in zip((0, *widths[:-1]), (*widths[1:], 0), strict=True)]
    sums = squared_sizes(builder, layers_of(builder, widths, x))
    roots = [root_of_mean(builder, *pair) for pair in zip(sums, counts, strict=True)]
    for start, (before, after) in zip(starts_of(widths), itertools.pairwise(roots), strict=True):
        write(builder, outer(builder, after, before), out, start)


def write_look(builder, widths, x, reference):
    """Return whether no C_i[k, m] has changed by more of √(s_k s_m) than is tolerated.

    With the squared sizes s of units. Where these are too small to tell the answer is no.
    """
    layers, start, kept = layers_of(builder, widths, x), 0, ir.Constant(ir.IntType(1), 1)
    sizes = squared_sizes(builder, layers)[1:-1]
    for d, size, (before, after) in zip(
        widths[1:-1], sizes, itertools.pairwise(layers), strict=True
    ):
        into = product(builder, before, transposed(builder, before))
        change = difference(builder, into, product_left_transposed(builder, after, after))
        change = difference(builder, change, loaded(builder, reference, start, d, d))
        bounds = outer(builder, size, size)
        for value, bound in zip(change.vectors, bounds.vectors, strict=True):
            kept = builder.and_(kept, all_within(builder, value, bound))
        start += d * d
    return kept


def all_within(builder, value, bound):
    """Tell whether all squares of a vector are within what is tolerated of a bound."""
    kind, tests = value.type, ir.IntType(value.type.count)
    most = builder.fmul(bound, ir.Constant(kind, [balance.TOLERATED**2] * kind.count))
    small = builder.fcmp_ordered("<=", builder.fmul(value, value), most)
    clear = builder.fcmp_ordered(">=", most, ir.Constant(kind, [CLEAR] * kind.count))
    found = builder.bitcast(builder.and_(small, clear), tests)
    return builder.icmp_unsigned("==", found, ir.Constant(tests, -1))


def squared_sizes(builder, layers):
    """Return for the units of each level the sums of squares of all weights that they have."""
    squares = [w._replace(vectors=[builder.fmul(v, v) for v in w.vectors]) for w in layers]
    into = [sum_of_rows(builder, transposed(builder, w)) for w in squares]
    out_of = [sum_of_rows(builder, w) for w in squares]
    inner = [builder.fadd(a, b) for a, b in zip(into[:-1], out_of[1:], strict=True)]
    return [out_of[0], *inner, into[-1]]


def outer(builder, column, row):
    """Return the products of the entries of two vectors."""
    a, b = (Matrix([vector], 1, vector.type.count) for vector in (column, row))
    return product_left_transposed(builder, a, b)


def sum_of_rows(builder, a):
    """Return the sum of all rows."""
    rows = (gathered(builder, [a.at(i, j) for j in range(a.columns)]) for i in range(a.rows))
    return functools.reduce(builder.fadd, rows)


def root_of_mean(builder, total, count):
    """Return the fourth root of a sum divided by a count."""
    mean = builder.fdiv(total, ir.Constant(total.type, [float(count)] * total.type.count))
    name, kind = f"llvm.sqrt.v{mean.type.count}f64", ir.FunctionType(mean.type, [mean.type])
    root = builder.module.declare_intrinsic(name, fnty=kind)
    return builder.call(root, [builder.call(root, [mean])])


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
    return combinations(builder, a.at, a.rows, b)


def product_left_transposed(builder, a, b):
    """Return aᵀ b."""
    return combinations(builder, lambda i, k: a.at(k, i), a.columns, b)


def combinations(builder, factor, rows, b):
    """Return the matrix with such rows Σ_k factor(i, k) b_k."""
    vectors = []
    for group in groups(rows, b.columns):
        total, places = None, list(itertools.product(group, range(b.columns)))
        for k in range(b.rows):
            factors = gathered(builder, [factor(i, k) for i, _ in places])
            row = gathered(builder, [b.at(k, j) for _, j in places])
            total = dense.multiply_add(builder, factors, row, total)
        vectors.append(total)
    return Matrix(vectors, rows, b.columns)


def difference(builder, a, b):
    """Return a − b."""
    pairs = zip(a.vectors, b.vectors, strict=True)
    return a._replace(vectors=[builder.fsub(p, q) for p, q in pairs])


def transposed(builder, a):
    """Return aᵀ."""
    vectors = [
        gathered(builder, [a.at(j, i) for i in group for j in range(a.rows)])
        for group in groups(a.columns, a.rows)
    ]
    return Matrix(vectors, a.columns, a.rows)


def gathered(builder, entries):
    """Return a vector of entries, each given by a vector and its place in that."""
    sources = list({id(vector): vector for vector, _ in entries}.values())
    kinds = {vector.type for vector in sources}
    if len(sources) > 2 or len(kinds) > 1:
        return inserted(builder, entries)
    count = sources[0].type.count
    places = [place + (0 if vector is sources[0] else count) for vector, place in entries]
    if places == list(range(count)):
        return sources[0]
    other = sources[1] if len(sources) > 1 else ir.Constant(sources[0].type, ir.Undefined)
    return builder.shuffle_vector(sources[0], other, ir.Constant(mask(len(places)), places))


def mask(lanes):
    """Return the type of the places that the entries of a vector come from."""
    return ir.VectorType(dense.INT32, lanes)


def inserted(builder, entries):
    """Return a vector of entries of many others."""
    result = ir.Constant(dense.vector(len(entries)), ir.Undefined)
    for i, (vector, place) in enumerate(entries):
        entry = builder.extract_element(vector, dense.INT32(place))
        result = builder.insert_element(result, entry, dense.INT32(i))
    return result
