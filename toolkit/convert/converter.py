"""Calls the worker in the converter's environment, and explains its death when it dies."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.bundle import Progress
from backends.errors import ToolkitError
from backends.sandbox import deadline, how_it_ended, kill, start
from toolkit.convert.resume import NO_ROOM
from toolkit.environments import converter_python

# What a run of the converter may allocate. A slice of 490 MB was seen to take 2.4 GB.
MEMORY_LIMIT_BYTES = 8 << 30

_WORKER_PARENT = Path(__file__).parent
_LOG_LINES = 3
_CAUSE_LINES = 50
_LOG_CHARACTERS = 400
_NO_ROOM = tuple(os.strerror(number) for number in NO_ROOM)
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Unable to allocate", "Cannot allocate memory")


class ConversionFailed(ToolkitError):
    """The converter failed, died or took too long. The message says what it was doing and where its log is."""


@dataclass(frozen=True)
class WorkerResult:
    """Files by precision, and the tools that made them with their versions."""

    files: dict[str, Path]
    tools: dict[str, str]


def run_worker(request: dict[str, Any], folder: Path, log: Path, timeout_s: float, progress: Progress) -> WorkerResult:
    """Run one request of toolkit/convert/worker to its end.

    Every file it makes lies in `folder`. What it prints is added to `log`; `progress` gets a short line a step.
    Raises NotAvailable without a converter, ConversionFailed for everything that goes wrong inside it.
    """
    python = converter_python()
    request_path, result_path = folder / "request.json", folder / "result.json"
    result_path.unlink(missing_ok=True)
    request_path.write_text(json.dumps(request | {"folder": str(folder)}), encoding="utf-8")
    step = "starting"
    command = [str(python), "-m", "worker", str(request_path), str(result_path)]
    with log.open("a", encoding="utf-8") as log_file:
        try:
            process = start(command, log_file, _environment(python), folder, MEMORY_LIMIT_BYTES)
        except OSError as error:
            raise ConversionFailed(f"cannot start the converter {python}: {error.strerror}") from error
        with process, deadline(process, timeout_s) as late:
            try:
                assert process.stdout is not None  # a pipe
                for line in process.stdout:
                    step = json.loads(line)["step"]
                    progress(step)
                process.wait()
            finally:
                kill(process)  # with it whatever it started
    if late.is_set():
        raise _failure(f"took longer than {timeout_s:g} s and was stopped", step, log)
    if process.returncode:
        raise _failure(how_it_ended(process.returncode), step, log)
    if not result_path.is_file():
        raise _failure("ended without a result", step, log)
    result = json.loads(result_path.read_text(encoding="utf-8"))
    return WorkerResult({key: Path(path) for key, path in result["files"].items()}, result["tools"])


def _failure(what: str, step: str, log: Path) -> ConversionFailed:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    end = " | ".join(lines[-_LOG_LINES:])[-_LOG_CHARACTERS:]
    cause = " ".join(lines[-_CAUSE_LINES:])  # what fails in a library may be followed by what failed because of it
    if any(sign in cause for sign in _OUT_OF_MEMORY):
        what += f" (it may use {MEMORY_LIMIT_BYTES >> 30} GB: give it smaller slices)"
    if any(sign in cause for sign in _NO_ROOM):
        what += " (no room on the disk: make some, and run it again: it goes on after the last finished step)"
    return ConversionFailed(f"the converter {what} while {step}; its last lines: {end or 'none'}; log: {log}")


def _environment(python: Path) -> dict[str, str]:
    """The caller's environment, without what belongs to the caller's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {
        # onnx2tf starts programs of its environment by name.
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(_WORKER_PARENT),
        "PYTHONHASHSEED": "0",  # the order of sets decides names in some files
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing of another Python in our folders
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }
