"""Handles one request and ends. Prints one line of JSON on stdout for each step; all other output goes to stderr, the
log."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Say = Callable[[str], None]


def main(request_path: str, result_path: str) -> None:
    """Run the request's task and write the result, {"files": {key: path}, "tools": {name: version}}.

    The keys depend on the task: "operators" for "operators", NAME and NAME.names of each model for "lower",
    NAME.PRECISION for "quantize", PRECISION for "lower-tf".

    An error ends the worker with a traceback in the log and a non-zero exit code; the caller reports it.
    """
    threading.Thread(target=_end_with_caller, daemon=True).start()
    say = _reserve_stdout()
    request: dict[str, Any] = json.loads(Path(request_path).read_text(encoding="utf-8"))
    files, tools = _do(request, say)
    result = {"files": files, "tools": {tool: version(tool) for tool in tools}}
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")


def _do(request: dict[str, Any], say: Say) -> tuple[dict[str, str], tuple[str, ...]]:
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
        from .quantizing import observe, quantize

        for name, model in request["models"].items():
            seen = None
            if calibration := request["calibration"].get(name):
                say(f"calibrating {name}")
                seen = observe(Path(model), calibration)
            for precision, recipe in request["recipes"].items():
                say(f"quantizing {name} to {precision} (ai-edge-quantizer)")
                files[f"{name}.{precision}"] = str(quantize(Path(model), precision, recipe, folder, seen))
        return files, ("ai-edge-quantizer",)
    raise ValueError(f"unknown task {task!r}")


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
