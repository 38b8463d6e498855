"""Handles one request and ends. Prints one line of JSON on stdout for each step; all other output goes to stderr, the
log."""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Say = Callable[[str], None]
_REASON_CHARACTERS = 300


def main(request_path: str, result_path: str) -> None:
    """Run the request's task and write the result: {"files": {key: path}, "tools": {name: version}, "failed": {key:
    reason}}.

    The keys depend on the task: "operators" for "operators", NAME and NAME.names of each model for "lower",
    NAME.PRECISION for "quantize", PRECISION for "lower-tf".

    An error ends the worker with a traceback in the log and a non-zero exit code; the caller reports it. Only
    "quantize" goes on after an error, with the other precisions: the failed ones are in "failed".
    """
    threading.Thread(target=_end_with_caller, daemon=True).start()
    say = _reserve_stdout()
    request: dict[str, Any] = json.loads(Path(request_path).read_text(encoding="utf-8"))
    failed: dict[str, str] = {}
    files, tools = _do(request, say, failed)
    result = {"files": files, "tools": {tool: version(tool) for tool in tools}, "failed": failed}
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")


def _do(request: dict[str, Any], say: Say, failed: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    task, folder = request["task"], Path(request["folder"])
    files = {}
    if task == "operators":
        from .lowering import lowered_operators

        listed = folder / "operators.json"
        listed.write_text(json.dumps(lowered_operators()), encoding="utf-8")
        return {"operators": str(listed)}, ("onnx2tf",)
    if task == "lower":
        from .lowering import lower

        for name, model in request["models"].items():
            say(f"lowering {name} to TFLite (onnx2tf)")
            lowered, names = lower(Path(model), folder)
            files[name], files[f"{name}.names"] = str(lowered), str(names)
        return files, ("onnx2tf",)
    if task == "lower-tf":
        from .tensorflow_route import convert, write_saved_model

        say("lowering to a SavedModel (onnx2tf, TensorFlow)")
        saved_model = write_saved_model(Path(request["model"]), folder, request["outputs"])
        for precision in request["precisions"]:
            say(f"converting the SavedModel to {precision} (TensorFlow)")
            files[precision] = str(convert(saved_model, precision, folder))
        return files, ("onnx2tf", "tensorflow")
    if task == "quantize":
        return _quantize(request, folder, say, failed), ("ai-edge-quantizer",)
    raise ValueError(f"unknown task {task!r}")


def _quantize(request: dict[str, Any], folder: Path, say: Say, failed: dict[str, str]) -> dict[str, str]:
    """Quantize every model to every precision. Return the files by key; reasons of failures are added to `failed`.

    request["in_float"], request["float_activations"]: by key, names of output tensors, as for `quantize`.
    """
    from .quantizing import ObservedRanges, observe, quantize

    files: dict[str, str] = {}
    for name, model in request["models"].items():
        seen: ObservedRanges | None = None
        unseen = None  # why there are no ranges
        if calibration := request["calibration"].get(name):
            say(f"calibrating {name}")
            try:
                every = any("other" in recipe["computes"] for recipe in request["recipes"].values())
                seen = observe(Path(model), calibration, every)
            except Exception as error:  # noqa: BLE001  other precisions need no ranges
                unseen = _reason(error)
        for precision, recipe in request["recipes"].items():
            key = f"{name}.{precision}"
            if unseen is not None and recipe["calibrated"]:
                failed[key] = unseen
                continue
            say(f"quantizing {name} to {precision} (ai-edge-quantizer)")
            try:
                kept = (request["in_float"].get(key, ()), request["float_activations"].get(key, ()))
                files[key] = str(quantize(Path(model), precision, recipe, folder, seen, *kept))
            except Exception as error:  # noqa: BLE001  other precisions may succeed
                failed[key] = _reason(error)
    return files


def _reason(error: Exception) -> str:
    """Write the traceback of an error to the log, and return the error in one line."""
    traceback.print_exception(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_CHARACTERS]


def _end_with_caller() -> None:
    """Wait until the caller ends, even if it is killed; then kill the worker and the programs that it started, so that
    none of them goes on writing into the caller's folder."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def _reserve_stdout() -> Say:
    """Reserve stdout for the lines of steps: redirect the converters' output, from Python or C++, to stderr.

    Returns the function that reports a step, on both.
    """
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(step: str) -> None:
        for stream, line in ((lines, json.dumps({"step": step})), (sys.stderr, f"== {step}")):
            stream.write(line + "\n")
            stream.flush()

    return say


if __name__ == "__main__":
    main(*sys.argv[1:])
