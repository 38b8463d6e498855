"""A TFLite file's operators and their times, from LiteRT's profiler.

LiteRT's Python package has no call for it, so this goes through its C API (litert/c/litert_profiler.h and its
neighbours, LiteRT 2.3). What XNNPACK runs is listed by XNNPACK's own operators, after its own fusions.
"""

import ctypes
from collections.abc import Sequence
from ctypes import Structure, byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from statistics import median
from typing import Any

import ai_edge_litert

from backends.errors import NotAvailable
from toolkit.profiling.operators import OperatorTime

_LIBRARY = Path(ai_edge_litert.__file__).parent / "libLiteRt.so"
_CPU = 1
# Types of events: an operator of the interpreter's own, and one inside a delegate.
_OPERATOR, _DELEGATED = 2, 8


class _Layout(Structure):
    _fields_ = (("rank", c_uint32), ("dimensions", c_int32 * 8), ("strides", c_uint32 * 8))


class _TensorType(Structure):
    _fields_ = (("element", c_int), ("layout", _Layout))


class _Event(Structure):
    _fields_ = (
        ("tag", c_char_p),
        ("type", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory", c_size_t * 6),
        ("metadata", c_uint64 * 2),
        ("source", c_int),
    )


def profile(path: Path, threads: int, runs: int) -> tuple[OperatorTime, ...]:
    """The operators of a file in running order, as LiteRT's compiled model with XNNPACK runs it `runs` times.

    Raises NotAvailable where this LiteRT has no such profiler. Handles are not given back: for a process that ends.
    """
    library = _Library()
    environment, model, options, compiled, signature, profiler = (c_void_p() for _ in range(6))
    library("CreateEnvironment", c_int(0), None, byref(environment))
    library("CreateModelFromFile", environment, str(path).encode(), byref(model))
    library("CreateOptions", byref(options))
    library("SetOptionsHardwareAccelerators", options, c_int(_CPU))
    library.add_options(options, "runtime_options_string", "enable_profiling = true\n")
    library.add_options(options, "xnnpack", f"num_threads = {threads}\n")
    library("CreateCompiledModel", environment, model, options, byref(compiled))
    library("GetModelSignature", model, c_size_t(0), byref(signature))
    inputs = library.buffers(environment, compiled, signature, "Input")
    outputs = library.buffers(environment, compiled, signature, "Output")
    given = (c_size_t(0), c_size_t(len(inputs)), inputs, c_size_t(len(outputs)), outputs)
    library("RunCompiledModel", compiled, *given)
    library("CompiledModelGetProfiler", compiled, byref(profiler))
    times: list[list[tuple[str, int]]] = []
    for _ in range(runs):
        library("ResetProfiler", profiler)
        library("StartProfiler", profiler)
        library("RunCompiledModel", compiled, *given)
        library("StopProfiler", profiler)
        times.append(library.operators(profiler))
    return _medians(path, times)


def _medians(path: Path, runs: Sequence[Sequence[tuple[str, int]]]) -> tuple[OperatorTime, ...]:
    kinds = [kind for kind, _ in runs[0]]
    if not kinds or any([kind for kind, _ in run] != kinds for run in runs):
        raise NotAvailable(f"{path.name}: LiteRT's profiler lists no operators, or others in each run")
    return tuple(
        OperatorTime(kind, median(run[i][1] for run in runs) / 1e3)  # microseconds
        for i, kind in enumerate(kinds)
    )


class _Library:
    """Calls of the C API by their names without LiteRt; each returns a status, and another than 0 is an error."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(str(_LIBRARY))
        except OSError as error:
            raise NotAvailable(f"this LiteRT has no C library at {_LIBRARY.name}: {error}") from error
        self._system = ctypes.CDLL(None)
        self._system.strdup.restype = c_void_p

    def __call__(self, name: str, *arguments: Any) -> None:
        try:
            call = getattr(self._library, f"LiteRt{name}")
        except AttributeError as error:
            raise NotAvailable(f"this LiteRT has no LiteRt{name}: expected that of release 2.3") from error
        call.restype = c_int
        if status := call(*arguments):
            raise NotAvailable(f"LiteRt{name} failed with status {status}")

    def add_options(self, options: c_void_p, identifier: str, text: str) -> None:
        made = c_void_p()
        payload = c_void_p(self._system.strdup(text.encode()))  # the library frees it
        free = ctypes.cast(self._system.free, c_void_p)
        self("CreateOpaqueOptions", identifier.encode(), payload, free, byref(made))
        self("AddOpaqueOptions", options, made)

    def buffers(self, environment: c_void_p, compiled: c_void_p, signature: c_void_p, side: str) -> Any:
        """Memory for every input or output of the first signature."""
        count = c_size_t()
        self(f"GetNumSignature{side}s", signature, byref(count))
        made = (c_void_p * count.value)()
        for i in range(count.value):
            tensor, needs, buffer, kind = c_void_p(), c_void_p(), c_void_p(), _TensorType()
            self(f"GetSignature{side}TensorByIndex", signature, c_size_t(i), byref(tensor))
            self("GetRankedTensorType", tensor, byref(kind))
            which = (compiled, c_size_t(0), c_size_t(i))
            self(f"GetCompiledModel{side}BufferRequirements", *which, byref(needs))
            self("CreateManagedTensorBufferFromRequirements", environment, byref(kind), needs, byref(buffer))
            made[i] = buffer.value
        return made

    def operators(self, profiler: c_void_p) -> list[tuple[str, int]]:
        """Kind and microseconds of every operator since the profiler was started."""
        count = c_int()
        self("GetNumProfilerEvents", profiler, byref(count))
        events = (_Event * count.value)()
        self("GetProfilerEvents", profiler, count, events)
        return [(e.tag.decode(), e.elapsed_us) for e in events if e.type in (_OPERATOR, _DELEGATED)]
