"""Fields compiled for given widths, and sums of rows, against their definitions."""

import ctypes
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import naive
import numpy as np
import pytest
from llvmlite import binding, ir

import dlnds as dl
from dlnds._kernels import dense, jit, linear, runge_kutta, straight

WIDTHS = [
    (1, 1),
    (5, 3),
    (2, 3, 4),
    (4, 3, 2),
    (7, 1, 6),
    (1, 9, 1),
    (4, 4, 4, 4),
    (3, 17, 2, 8),
    (5, 2, 6, 1, 3),
    (2, 3, 1, 3, 2, 4),
    (3, 2, 2, 2, 2, 2, 3),
    (16, 16, 16, 16),
    (32, 2, 32),
]


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("kind", naive.KINDS)
def test_specialized_field_is_its_definition(widths, kind):
    net = naive.random_network(widths, 1, kind)
    x = naive.state_of(net, 2)
    expected = naive.field(net, x)
    bound = 1e-12 * (1.0 + np.abs(expected).max())
    np.testing.assert_allclose(-net.specialized().gradient(x), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("widths", WIDTHS)
def test_specialized_error_scale_is_the_general_one(widths):
    """Sums of up to 2n positive terms, whose fourth roots are taken, and products of two."""
    net = naive.random_network(widths, 1)
    x, out, expected = naive.state_of(net, 2), np.empty(net.dim), np.empty(net.dim)
    for system, place in ((net, expected), (net.specialized(), out)):
        jit.ready(system.numerics.error_scale, jit.FIELD)(0.0, x, system.params, place)
    bound = (max(widths) + 4) * np.finfo(float).eps
    np.testing.assert_allclose(out, expected, rtol=bound, atol=0)
    assert jit.DISABLED or system.numerics.error_scale is not net.numerics.error_scale


@pytest.mark.parametrize("widths", [w for w in WIDTHS if len(w) > 2])
def test_specialized_look_at_the_invariants_is_the_general_one(widths):
    """Both are equally strict, but for rounding; only the general one judges units of no size."""
    net = naive.random_network(widths, 1).specialized()
    x, numerics, found = naive.state_of(net, 2), net.numerics, []
    reference, direction = numerics.invariants(x[None])[0], naive.state_of(net, 3)
    kernels = [jit.ready(k, jit.RESTORE) for k in (numerics.holds, numerics.restore)]
    holds, restore = (lambda y, k=k: k(y, net.params, reference, 0.0, True) for k in kernels)
    for size in np.geomspace(1e-13, 1e-7, 61):
        y = x + size * direction
        found.append((bool(holds(y)), bool(restore(y.copy()))))
    told = [kept for kept, _ in found]
    if numerics.holds is runge_kutta.keep:
        assert not any(told)
    else:
        assert told[0] != told[-1]
        assert sum(kept == moved for kept, moved in found) <= 1
        assert not holds(np.where(net.unit_weights[0][0] | net.unit_weights[1][0], 0.0, x))


def machine_code(write, *arrays):
    """Run what ``write`` writes for LLVM on arrays, without Numba."""
    module, pointer = ir.Module(), dense.DOUBLE.as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [pointer] * len(arrays))
    function = ir.Function(module, signature, "written")
    builder = ir.IRBuilder(function.append_basic_block())
    write(builder, *function.args)
    builder.ret_void()
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    with binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine) as engine:
        engine.finalize_object()
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays))
        call = prototype(engine.get_function_address("written"))
        call(*(array.ctypes.data for array in arrays))


@pytest.mark.parametrize("widths", [(3, 2), (2, 3, 4), (4, 3, 2, 2)])
@pytest.mark.parametrize("kind", naive.KINDS)
def test_machine_code_of_the_field_is_its_definition(widths, kind):
    net = naive.random_network(widths, 3, kind)
    x, out = naive.state_of(net, 4), np.empty(net.dim)
    plan = (widths, net.target.shape[1], net.whitened)
    machine_code(lambda b, *places: straight.write_field(b, *plan, *places), x, net.params[1], out)
    expected = naive.field(net, x)
    bound = 1e-12 * (1.0 + np.abs(expected).max())
    np.testing.assert_allclose(out, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("size", [1, 8, 19])
def test_machine_code_of_a_sum_of_rows_is_its_definition(size):
    rng = np.random.default_rng(size)
    x, rows, out = rng.normal(size=size), rng.normal(size=(3, size)), np.empty(size)
    row, h, n = [(0, 2.0), (2, -0.5)], dense.DOUBLE(0.1), dense.INT64(size)
    machine_code(lambda b, *places: dense.write_row_sum(b, row, n, h, *places), x, rows, out)
    np.testing.assert_allclose(out, x + 0.1 * (2.0 * rows[0] - 0.5 * rows[2]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_specialized_field_keeps_what_is_not_finite(bad):
    net = naive.random_network((4, 4, 4), 0).specialized()
    x, out = naive.state_of(net, 1), np.empty(net.dim)
    x[3] = bad
    with np.errstate(invalid="ignore"):
        jit.ready(net.field, jit.FIELD)(0.0, x, net.params, out)
    assert not np.isfinite(out).all()


def test_specialized_network_is_the_same_network():
    net = naive.random_network((3, 4, 2), 0)
    small = net.specialized()
    assert small.digest == net.digest
    assert small.widths == net.widths
    assert small.attributes().keys() == net.attributes().keys()
    assert pickle.loads(pickle.dumps(small)).field is small.field  # noqa: S301
    start = net.initial(scale=1e-2, rng=0)
    runs = [dl.flow(n, start, (0.0, 8.0), np.linspace(1.0, 8.0, 8)) for n in (net, small)]
    np.testing.assert_allclose(runs[1].state, runs[0].state, rtol=0, atol=1e-7)
    reduced = dl.flow(small, start, (0.0, 8.0), reduce_width=True)
    np.testing.assert_allclose(reduced.state[-1], runs[0].state[-1], rtol=0, atol=1e-6)


def test_the_count_is_that_of_the_formulas():
    assert straight.multiplications((4, 4, 4, 4), 4, True) == 6 * 4**3
    assert straight.multiplications((5, 3), 5, True) == 0
    assert straight.multiplications((5, 4, 3), 5, True) == 3 * 3 * 5 * 4
    assert straight.multiplications((3, 4, 5), 2, False) == 3 * 2 * 4 * 5 + 2 * 2 * 3 * 4


@pytest.mark.parametrize(
    ("widths", "message"), [((33, 2, 2), "at most 32, got 33"), ((20,) * 4, "got 48000")]
)
def test_large_networks_are_not_specialized(widths, message):
    net = dl.LinearNetwork(widths=widths, target=np.zeros((widths[-1], widths[0])))
    with pytest.raises(ValueError, match=f"^widths: .*{message}"):
        net.specialized()
    with pytest.raises(TypeError, match="^specialize: needs True or False"):
        dl.LinearNetwork(widths=(1, 1), target=[[1.0]], specialize="yes")


def test_threads_may_specialize_the_same_widths():
    target = np.ones((2, 3))

    def gradient(seed):
        net = dl.LinearNetwork(widths=(3, 5, 1, 2), target=target).specialized()
        return net.gradient(naive.state_of(net, 0))

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(gradient, range(8))
    assert all((first == other).all() for other in others)


@pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled")
def test_another_process_finds_the_specialized_field_in_the_cache(tmp_path):
    code = (
        "import dlnds as dl; from dlnds._kernels import jit\n"
        "for widths in ((2, 3), (3, 2)):\n"
        "    net = dl.LinearNetwork(widths=widths, target=[[1.0] * widths[0]] * widths[1])\n"
        "    field = jit.ready(net.specialized().field, jit.FIELD)\n"
        "    print(sum(field.stats.cache_hits.values()))\n"
    )
    hits = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert hits == [["0", "0"], ["1", "1"]]
    made = [path.name for path in tmp_path.glob("**/straight.*.nbc")]
    assert len({name.partition("-")[0] for name in made}) == len(made) == 2  # each by itself


@pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled")
def test_compiled_fields_can_be_sent_to_another_process(tmp_path):
    net = naive.random_network((4, 3, 2), 0).specialized()
    x = naive.state_of(net, 0)
    expected = net.gradient(x)
    dl.flow(net, x, (0.0, 1.0))  # what is compiled is sent with its signature
    (tmp_path / "sent").write_bytes(pickle.dumps((net, x)))
    code = (
        "import pickle, sys; from pathlib import Path\n"
        "net, x = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "print(net.gradient(x).tolist())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "sent")],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    np.testing.assert_array_equal(json.loads(found), expected)


@pytest.mark.skipif(not jit.DISABLED, reason="the compiler is on")
def test_without_the_compiler_the_general_field_serves():
    net = naive.random_network((4, 3, 2), 0).specialized()
    assert net.field is linear.field_from_outputs


@jit.jit
def rows_of_the_tableau(x, h, rows, out):
    runge_kutta.combine(x, h, rows, 1, out[0])
    runge_kutta.combine(x, h, rows, 11, out[1])
    runge_kutta.combine(x, h, rows, 16, out[2])


@pytest.mark.parametrize("size", [1, 7, 8, 9, 27, 64])
def test_combinations_of_stages_are_their_definition(size):
    rng = np.random.default_rng(size)
    x, rows, out = rng.normal(size=size), rng.normal(size=(16, size)), np.empty((3, size))
    rows_of_the_tableau(x, 0.3, rows, out)
    for weights, found in zip(
        [runge_kutta.STAGES[1], runge_kutta.STAGES[11], runge_kutta.DENSE[0]], out, strict=True
    ):
        bound = 1e-14 * (np.abs(weights) @ np.abs(rows) + np.abs(x))
        assert (np.abs(found - (x + 0.3 * weights @ rows)) <= bound).all()


def test_stages_of_weight_zero_are_not_read():
    x, rows, out = np.ones(9), np.ones((16, 9)), np.empty((3, 9))
    rows[1] = np.nan
    rows_of_the_tableau(x, 0.3, rows, out)
    assert np.isfinite(out).all()
