"""The Numba options and the signatures that all kernels share.

A compiled function that is handed to a driver must have exactly one, fixed signature: then the
driver is compiled once for all systems, and Numba's cache serves it across processes.
"""

import contextlib
import functools
import hashlib
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

from dlnds._kernels.garbage import little_garbage

Function = TypeVar("Function", bound=Callable[..., Any])

_compiling = threading.RLock()

#: Seconds of compiling after which an interactive session is told of it; once is enough.
PATIENCE = 2.0

_vector = types.float64[::1]
_matrix = types.float64[:, ::1]

PARAMS = types.Tuple((types.int64[::1], _vector))
#: ``field(t, x, params, out)`` and ``error_scale(t, x, params, out)``
FIELD = types.void(types.float64, _vector, PARAMS, _vector)
#: ``jvp(t, x, v, params, out)``
JVP = types.void(types.float64, _vector, _vector, PARAMS, _vector)
#: ``jacobian(t, x, params, out)``
JACOBIAN = types.void(types.float64, _vector, PARAMS, _matrix)
#: ``tangent(t, x, vectors, params, out)`` returns the trace of the Jacobian
TANGENT = types.float64(types.float64, _vector, _matrix, PARAMS, _matrix)
#: ``restore(x, params, reference, rtol, thorough)`` moves the state, and returns whether it did
RESTORE = types.boolean(_vector, PARAMS, _vector, types.float64, types.boolean)

#: Whether Numba's compiler is switched off, as it is to measure test coverage.
DISABLED = bool(getattr(numba.config, "DISABLE_JIT", False))

#: Modules whose functions and numbers nobody changes.
_STEADY = ("math", "cmath", "numpy", "numba")

#: Multiplications above which a matrix product goes to BLAS; without the compiler it always does.
LOOP_LIMIT = 0 if DISABLED else 20_000


def jit(function: Function) -> Function:
    """Compile ``function`` when it is first called, with the options of this package."""
    compiled: Any = numba.njit(**_ENTRY)(function)
    if not DISABLED:
        compiled._cache = _Cache(function)  # noqa: SLF001 - as `cache=True` does with Numba's
    return compiled  # type: ignore[no-any-return]


class _Cache(FunctionCache):
    """Numba's cache, but out of date also when other files of the kernels have changed.

    Code of parts lies in the files of what calls them, and what was written for one state of the
    sources would take parts of another for its own, by their names.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        file: Any = self._cache_file
        file._source_stamp = file._source_stamp, _state()  # noqa: SLF001 - compared when loading


@functools.cache
def _state() -> str:
    """Return a digest of the sources of all kernels, as they are when the first is imported."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    digests = (hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(digests)).hexdigest()


class _Linked(JITCodeLibrary):
    """Code that is nothing but linked into that of its callers, with which it is optimized.

    Numba would optimize each part by itself too, and translate it to machine code: half of all the
    work of LLVM.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(NativeLowering):
    """Writes the code of a part, which others can call though it has no address."""

    def run_pass(self, state: Any) -> bool:
        state.library = _Linked(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        key: Any = [].copy  # callers know it by a built-in function that is no other part's
        state["cr"] = state["cr"]._replace(cfunc=key)
        state.targetctx.insert_user_function(key, state["cr"].fndesc, [state.library])
        return True


class _Borrowing(Lower):
    """Writes code that does not count itself among the holders of the arrays it is given.

    Its caller holds them. To count is an atomic operation, as slow as some tens of others, and is
    asked for wherever an array gets a name or is taken out of a tuple.
    """

    def extract_function_arguments(self) -> Any:
        given = zip(self.fndesc.argtypes, super().extract_function_arguments(), strict=True)
        self.fnargs = [self._borrowed(kind, value) for kind, value in given]
        return self.fnargs

    def _borrowed(self, kind: Any, value: Any) -> Any:
        if isinstance(kind, types.Array):
            array = self.context.make_array(kind)(self.context, self.builder, value)
            array.meminfo = array.meminfo.type(None)
            return array._getvalue()  # noqa: SLF001 - Numba has no public name for it
        kinds: Any = kind if isinstance(kind, types.BaseTuple) else ()
        for i, inner in enumerate(kinds):
            item = self._borrowed(inner, self.builder.extract_value(value, i))
            value = self.builder.insert_value(value, item, i)
        return value


@register_pass(mutates_CFG=True, analysis_only=False)
class _EntryLowering(NativeLowering):
    """Writes the code of a function that has an address."""

    @property
    def lowering_class(self) -> Any:
        return _Borrowing


class _Entries(Compiler):
    """Numba's compiler, but for what it makes of the code."""

    lowering: Any = _EntryLowering

    def define_pipelines(self) -> list[Any]:
        (plain,) = super().define_pipelines()
        plain.passes = [(self.lowering if p is NativeLowering else p, w) for p, w in plain.passes]
        return [plain]


class _Parts(_Entries):
    """The same for parts."""

    lowering: Any = _PartLowering


_ENTRY: Any = {
    "nogil": True,
    "error_model": "numpy",
    "pipeline_class": _Entries,
}
_PART: Any = {
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": _Parts,
}


def part(function: Function) -> Function:
    """Compile ``function`` as a part of those that call it, with the options of `jit`.

    It has no entry from Python and no file in the cache.
    """
    if DISABLED:
        return jit(function)
    compiled: Any = numba.njit(**_PART)(function)
    return compiled  # type: ignore[no-any-return]


def inlined(function: Function) -> Function:
    """Compile ``function`` into each of its callers: for a line of theirs that has a name."""
    compiled: Any = numba.njit(inline="always", nogil=True, error_model="numpy")(function)
    return compiled  # type: ignore[no-any-return]


def variant(function: Any, name: str, meanings: Mapping[str, Any], compiled: Any = jit) -> Any:
    """Compile ``function`` once more, with other meanings of some global names it uses.

    So one text serves several formulas at no cost in speed. Functions that get a formula as an
    argument or in a closure are never cached across processes; a flag among the parameters makes
    the kernels of all formulas as long to compile as the longest.
    """
    plain = getattr(function, "py_func", function)
    copy = FunctionType(plain.__code__, {**plain.__globals__, **meanings}, name)
    copy.__qualname__ = name  # that of the file in the cache
    copy.__doc__ = plain.__doc__
    return compiled(copy)


def sums(function: Function) -> Function:
    """Compile as `part` does, but let sums be reordered, which loops over vectors need.

    Infinities and NaN are kept, unlike under all of ``fastmath``.
    """
    if DISABLED:
        return jit(function)
    compiled: Any = numba.njit(**_PART, fastmath={"reassoc", "contract"})(function)
    return compiled  # type: ignore[no-any-return]


class _Patience:
    """The seconds that a session has waited for the compiler, and whether it was told why."""

    waited, told = 0.0, False


@contextlib.contextmanager
def _explained(dispatcher: Any) -> Iterator[None]:
    """Tell an interactive session, once, what it waits for, if it has to wait for long."""
    interactive = hasattr(sys, "ps1") or sys.flags.interactive
    if _Patience.told or not interactive or dispatcher.stats.cache_path is None:
        yield
        return
    begun = time.monotonic()
    timer = threading.Timer(PATIENCE - _Patience.waited, _tell, (dispatcher.__name__,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _Patience.waited += time.monotonic() - begun


def _tell(name: str) -> None:
    _Patience.told = True
    text = f"dlnds: compiling {name!r} and others, which happens once per machine (`dlnds warm`)"
    print(text, file=sys.stderr)


def ready(function: Function, signature: Any) -> Function:
    """Compile ``function`` for ``signature`` alone, once, so that it can be passed to a driver.

    Raises
    ------
    TypeError
        If the function is compiled already for other types, so that the driver could not take it.
    """
    dispatcher: Any = function
    if DISABLED or getattr(dispatcher, "made_for", None) is signature:  # types are slow to compare
        return function
    with _compiling, little_garbage(), _explained(dispatcher):
        if signature.args not in dispatcher.overloads:
            if not dispatcher._can_compile:  # noqa: SLF001 - Numba has no public name for it
                name = dispatcher.__name__
                raise TypeError(f"{name} is compiled for another signature than {signature}")
            dispatcher.compile(signature)
            dispatcher.disable_compile()
        dispatcher.made_for = signature
        result = dispatcher.overloads[signature.args]
        dispatcher.made = result.entry_point
        dispatcher.get_compile_result = _Addresses(result)
    return function


class _Addresses:
    """The addresses of a compiled function, in place of its compile result.

    Numba looks for both whenever the function is passed, by comparing and hashing types, which
    takes as long as some tens of steps.
    """

    def __init__(self, result: Any) -> None:
        self.fndesc, self.library = result.fndesc, self
        names = self.fndesc.llvm_func_name, self.fndesc.llvm_cfunc_wrapper_name
        self._known = {name: result.library.get_pointer_to_function(name) for name in names}

    def __call__(self, signature: Any) -> "_Addresses":
        """Return what Numba looks for, for the one signature that there is."""
        return self

    def get_pointer_to_function(self, name: str) -> int:
        """Return the address of the function, or of its wrapper."""
        return int(self._known[name])


def of_text(function: FunctionType, signature: Any) -> Any:
    """Return a plain function compiled for a signature: once for all of the same text and values.

    Families of systems make theirs again and again. Compiled functions keep the values that names
    outside had when they were made; functions whose names may stand for more than numbers, arrays
    and numpy are compiled each time.
    """
    known = _Text(function)
    return _made(function, signature) if known.values is None else _made_once(known, signature)


def _made(function: FunctionType, signature: Any) -> Any:
    own = numba.njit(function)  # leaves the user's function as it is
    return ready(own, signature)


@functools.lru_cache(maxsize=256)
def _made_once(known: "_Text", signature: Any) -> Any:
    return _made(known.function, signature)


class _Text:
    """A function that equals others of the same code, if what its names stand for is the same."""

    def __init__(self, function: FunctionType) -> None:
        self.function, self.values = function, _values(function)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Text) or self.values != other.values:
            return False
        return self.function.__code__ == other.function.__code__

    def __hash__(self) -> int:
        return hash((self.function.__code__, self.values))


def _values(function: FunctionType) -> tuple[Any, ...] | None:
    """Return what the names outside of a function stand for, None if that may change unseen."""
    nested = any(isinstance(constant, CodeType) for constant in function.__code__.co_consts)
    if nested or function.__defaults__ or function.__kwdefaults__:
        return None
    try:
        names = inspect.getclosurevars(function)
    except ValueError:  # a name of the closure has no value yet
        return None
    found = {**names.globals, **names.nonlocals}
    values = tuple((name, _value(found[name])) for name in sorted(found))
    return None if any(value is None for _, value in values) else values


def _value(value: Any) -> tuple[Any, ...] | None:
    """Return what two equal values share, and others do not."""
    if isinstance(value, int | float | complex | str):
        return type(value), repr(value)
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return type(value), value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, ModuleType) and value.__name__.partition(".")[0] in _STEADY:
        return (value,)
    known = isinstance(value, types.abstract.Type | np.ufunc | BuiltinFunctionType)
    return (value,) if known or isinstance(value, Dispatcher) else None


def entry(function: Function, signature: Any) -> Function:
    """Return ``function`` compiled for ``signature``, to be called with just these types.

    Numba then does not look at what it is given, which takes as long as some steps where tuples and
    functions are among it.
    """
    dispatcher: Any = ready(function, signature)
    return function if DISABLED else dispatcher.made
