"""The LiteRT backend: TFLite files on its interpreter with the default XNNPACK delegate, and their operator profile."""

import ctypes
import os
import re
import tempfile
import threading
import zlib
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping, Sequence
from ctypes import Structure, byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from statistics import median
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from backends.errors import InvalidArtifact, NotAvailable, one_line
from backends.flatbuffer import check_tflite
from backends.profiling import OperatorTime
from backends.registry import BackendSpec
from backends.session import RuntimeFacts, Session
from backends.tensor import Array, Binding

_LARGEST_SCALE = 1e6

# When LiteRT makes its delegate, it writes a line to stderr, once in a process, and has no option against it.
_CREATED = re.compile(rb"INFO: Created TensorFlow Lite (\S+) delegate.*\n")
# A TFLite file of one operator, ABS on one float32, compressed: the smallest file for which the delegate is made.
_ONE_OPERATOR = (
    b"eNqTYGBgCHHzMWZg4GMQYRBg4GHgAIqwAHkMQB4DgwwQXwBiZiBmBGKILAhC+CA1PHCdLEASImYDxA5A7IKkjoGBCywPUscFNYsHKg/DDFj4"
    b"TEBsALaXgeHJ////kfVVIqnlgbqeAeoOZHUVaOYKQNVzI6lPhViXCgCwgwqe"
)
_delegate: str | None = None
_delegate_lock = threading.Lock()


def default_delegate() -> str:
    """Return the name of the delegate that LiteRT applies by default, such as "XNNPACK", as its own line tells it.

    The first call in a process makes the delegate for a file of one operator, and keeps LiteRT's line about it off
    stderr. That takes a millisecond, in which stderr goes to a temporary file; all other lines are written to stderr
    afterwards. No other file is opened meanwhile, so that the last words before a crash are never lost.
    """
    global _delegate
    with _delegate_lock:
        if _delegate is None:
            created = _CREATED.search(_make_delegate())
            # Without the line, another library has made the delegate before. There is only one that is a default.
            _delegate = created[1].decode() if created else "XNNPACK"
    return _delegate


def _make_delegate() -> bytes:
    """Make the delegate for a file of one operator, and return what LiteRT writes to stderr meanwhile."""
    try:
        stderr = os.dup(2)
    except OSError:
        return b""  # this process has no stderr
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            Interpreter(model_content=zlib.decompress(b64decode(_ONE_OPERATOR)), num_threads=1).allocate_tensors()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        log.seek(0)
        written = log.read()
    os.write(2, _CREATED.sub(b"", written))  # lines of other threads
    return written


def open_interpreter(path: Path, threads: int = 1, delegated: bool = True) -> Interpreter:
    """Return LiteRT's interpreter for a file, without memory for its tensors yet. delegated: with XNNPACK.

    Raises ValueError and RuntimeError, as the interpreter does.
    """
    if not delegated:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return Interpreter(model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver)
    default_delegate()
    # Given a path, the interpreter maps the file instead of reading it.
    return Interpreter(model_path=str(path), num_threads=threads)


class TfliteSession(Session):
    """A TFLite file on LiteRT's interpreter. Tensors are found by their recorded names, not by their order."""

    def _open(self) -> None:
        check_tflite(self.path)
        try:
            self._interpreter = open_interpreter(self.path, self.threads)
            self._check_scales()
            self._interpreter.allocate_tensors()
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"{self.path}: LiteRT cannot load it: {one_line(error)}") from error
        self._inputs = self._match("input", inputs, self.artifact.inputs)
        self._outputs = self._match("output", outputs, self.artifact.outputs)

    def _check_scales(self) -> None:
        for detail in self._interpreter.get_tensor_details():
            scales = detail["quantization_parameters"]["scales"]
            # The runtime does not check scales, and with absurd ones its kernels write outside their memory.
            if not ((scales >= 0) & (scales < _LARGEST_SCALE)).all():
                raise InvalidArtifact(
                    f"{self.path}: tensor {detail['name']!r}: expected scales below {_LARGEST_SCALE:g}"
                )

    def _match(self, kind: str, details: list[dict[str, Any]], bindings: tuple[Binding, ...]) -> dict[str, int]:
        """Return the tensors' indices in the file by stored name. Raises InvalidArtifact where they differ from the
        manifest."""
        names = sorted(detail["name"] for detail in details)
        if names != sorted(binding.stored.name for binding in bindings):
            expected = sorted(binding.stored.name for binding in bindings)
            raise InvalidArtifact(f"{self.path}: {kind}s: the manifest says {expected}, the file has {names}")
        by_name = {detail["name"]: detail for detail in details}
        for binding in bindings:
            detail = by_name[binding.stored.name]
            scale, zero_point = detail["quantization"]
            # The file keeps scales as float32; a scale of 0 means that the tensor is not quantized.
            wanted_scale = float(np.float32(binding.scale or 0))
            got = (np.dtype(detail["dtype"]).name, tuple(detail["shape"].tolist()), scale, zero_point)
            wanted = (binding.stored.dtype, binding.stored.shape, wanted_scale, binding.zero_point or 0)
            if got != wanted:
                raise InvalidArtifact(
                    f"{self.path}: {kind} {binding.stored.name!r}: the manifest says {wanted}, the file has {got}"
                )
        return {name: detail["index"] for name, detail in by_name.items()}

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            self._hold(feeds)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"{self.path}: LiteRT failed to run it: {one_line(error)}") from error
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def _hold(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        for name, array in feeds.items():
            # Write into the interpreter's own memory, which keeps inputs between runs: set_tensor makes a copy first.
            _fill(self._interpreter.tensor(self._inputs[name])(), array)
        return {}

    def describe(self) -> RuntimeFacts:
        """Return {"delegated_parts", "delegate", "operators"}: two counts and the delegate's name, None without
        parts."""
        operators = Counter(detail["op_name"] for detail in self._interpreter._get_ops_details())
        # After the operators of the file, the list has one DELEGATE entry for each part that the delegate runs.
        parts = operators.pop("DELEGATE", 0)
        return {
            "delegated_parts": parts,
            "delegate": default_delegate() if parts else None,
            "operators": operators.total(),
        }

    def _close(self) -> None:
        del self._interpreter


def _fill(memory: Array, array: Array) -> None:
    if array.ndim == 4 and array.shape[3] <= 4 and not array.flags.c_contiguous:
        # An NHWC view of an NCHW image: copying channel by channel is four times as fast as numpy's own order.
        for channel in range(array.shape[3]):
            memory[..., channel] = array[..., channel]
    else:
        memory[...] = array


_LIBRARY = Path(ai_edge_litert.__file__).parent / "libLiteRt.so"
_CPU = 1
# Types of profiler events: an operator of the interpreter, and an operator inside a delegate.
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


def profile(path: Path, threads: int, runs: int, precision: str) -> tuple[OperatorTime, ...]:
    """Return the operators of a file in running order, with their median time over `runs` runs.

    The file runs as LiteRT's compiled model, with XNNPACK. Handles are not freed, so call this in a process that ends
    afterwards. precision: the file has its own. Raises NotAvailable if this release of LiteRT lacks the profiler or it
    lists no operators.
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
    """LiteRT's C API: calling it with a function's name without "LiteRt" raises NotAvailable unless the status is 0."""

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
        """Add the options of one part of the library, as lines "NAME = VALUE", to `options`."""
        made = c_void_p()
        payload = c_void_p(self._system.strdup(text.encode()))  # the library frees it
        free = ctypes.cast(self._system.free, c_void_p)
        self("CreateOpaqueOptions", identifier.encode(), payload, free, byref(made))
        self("AddOpaqueOptions", options, made)

    def buffers(self, environment: c_void_p, compiled: c_void_p, signature: c_void_p, side: str) -> Any:
        """Return a C array of newly allocated buffers for the inputs or the outputs (`side`) of the first signature."""
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
        """Return the kind and the microseconds of every operator since the profiler was started."""
        count = c_int()
        self("GetNumProfilerEvents", profiler, byref(count))
        events = (_Event * count.value)()
        self("GetProfilerEvents", profiler, count, events)
        return [(e.tag.decode(), e.elapsed_us) for e in events if e.type in (_OPERATOR, _DELEGATED)]


BACKEND = BackendSpec(
    name="tflite",
    title="LiteRT",
    formats=("tflite",),
    package="ai-edge-litert",
    session=TfliteSession,
    rank=1,
    profile=profile,
    can_crash=True,
)
