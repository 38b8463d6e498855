"""Runs the worker in the converter's environment, and explains why it failed if it does."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.bundle import Progress
from backends.errors import ToolkitError
from backends.sandbox import deadline, how_it_ended, kill, start
from toolkit.convert.resume import NO_ROOM
from toolkit.environments import converter_python

# The most memory of one run of the converter. A slice of 490 MB was seen to take 2.4 GB.
MEMORY_LIMIT_BYTES = 8 << 30

# By task, the modules of the worker that its fork server imports. TensorFlow, which one task needs, takes seconds.
_SMALL = ("worker.lowering", "worker.quantizing")
PRELOADED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("operators", "lower", "quantize"), _SMALL),
    "lower-tf": ("worker.tensorflow_route",),
}

_WORKER_PARENT = Path(__file__).parent
_LOG_LINES = 3
_CAUSE_LINES = 50
_LOG_CHARACTERS = 400
_STRAY_CHARACTERS = 60
_NO_ROOM = tuple(os.strerror(number) for number in NO_ROOM)
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Unable to allocate", "Cannot allocate memory")


class ConversionFailed(ToolkitError):
    """Error: the converter failed, was killed or took too long. The message names its last step and its log."""


class ConverterStopped(ConversionFailed):
    """Error: the converter ran out of time, memory or disk, or could not start. Another graph would fail as well."""


@dataclass(frozen=True)
class WorkerResult:
    """The files that the worker made, by the keys that worker/__main__.py lists, and its tools' versions by name.

    failed: the reason, by key, for each file that it could not make while it went on with others.
    """

    files: dict[str, Path]
    tools: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)


def run_worker(request: dict[str, Any], folder: Path, log: Path, timeout_s: float, progress: Progress) -> WorkerResult:
    """Run one request of toolkit/convert/worker, and wait for its result.

    The worker writes its files into `folder`. Its output is added to `log`; `progress` is called with a short line for
    each step. Raises NotAvailable without a converter, ConversionFailed if the worker cannot start, fails, is killed or
    takes longer than `timeout_s`.
    """
    python = converter_python()
    request_path, result_path = folder / "request.json", folder / "result.json"
    result_path.unlink(missing_ok=True)
    request_path.write_text(json.dumps(request | {"folder": str(folder)}), encoding="utf-8")
    step, stray = "starting", ""
    paths = [str(request_path), str(result_path)]
    with log.open("a", encoding="utf-8") as log_file:
        try:
            env, preload = _environment(python), PRELOADED.get(request["task"], ())
            process = start(str(python), "worker", paths, log_file, env, folder, MEMORY_LIMIT_BYTES, preload)
        except OSError as error:
            raise ConverterStopped(f"cannot start the converter {python}: {error.strerror}") from error
        with process, deadline(process, timeout_s) as late:
            try:
                assert process.stdout is not None  # a pipe
                for line in process.stdout:
                    try:
                        step = json.loads(line)["step"]
                    except (ValueError, TypeError, KeyError):
                        stray = line.decode("utf-8", "replace").strip()[:_STRAY_CHARACTERS] or "nothing"
                        break
                    progress(step)
                returncode = 0 if stray else process.wait()
            finally:
                kill(process)  # also kills the programs that it started
    if stray:
        raise _failure(f"is no Python that runs the worker: it printed {stray!r}", step, log, stopped=True)
    if late.is_set():
        raise _failure(f"took longer than {timeout_s:g} s and was stopped", step, log, stopped=True)
    if returncode:
        raise _failure(how_it_ended(returncode), step, log, returncode == -signal.SIGKILL)
    if not result_path.is_file():
        raise _failure("ended without a result", step, log)
    result = json.loads(result_path.read_text(encoding="utf-8"))
    files = {key: Path(path) for key, path in result["files"].items()}
    return WorkerResult(files, result["tools"], result.get("failed", {}))


def _failure(what: str, step: str, log: Path, stopped: bool = False) -> ConversionFailed:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    end = " | ".join(lines[-_LOG_LINES:])[-_LOG_CHARACTERS:]
    cause = " ".join(lines[-_CAUSE_LINES:])  # the last error may only be a consequence of an earlier one
    if any(sign in cause for sign in _OUT_OF_MEMORY):
        stopped = True
        what += f" (it may use {MEMORY_LIMIT_BYTES >> 30} GB: give it smaller slices)"
    if any(sign in cause for sign in _NO_ROOM):
        stopped = True
        what += " (no room on the disk: make some, and run it again: it goes on after the last finished step)"
    kind = ConverterStopped if stopped else ConversionFailed
    return kind(f"the converter {what} while {step}; its last lines: {end or 'none'}; log: {log}")


def _environment(python: Path) -> dict[str, str]:
    """Return this process's environment variables without those of its Python, and with those of the worker."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {
        # onnx2tf starts programs of the converter's environment by name.
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(_WORKER_PARENT),
        "PYTHONHASHSEED": "0",  # the order of sets decides names in some files
        "PYTHONDONTWRITEBYTECODE": "1",  # do not write another Python's bytecode into this package
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }
