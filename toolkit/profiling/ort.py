"""An ONNX file's operators and their times, from ONNX Runtime's own profiler."""

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime

from toolkit.profiling.operators import OperatorTime

_SUFFIX = "_kernel_time"
_DTYPES = {"float": "float32", "double": "float64"}  # the others are numpy's own names


def profile(path: Path, threads: int, runs: int) -> tuple[OperatorTime, ...]:
    """The operators of a file in running order, after ONNX Runtime's own fusions, over `runs` runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds = {given.name: _zeros(given) for given in session.get_inputs()}
        for _ in range(1 + runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kinds: dict[str, str] = {}
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            kinds[event["name"]] = event["args"]["op_name"]
            times[event["name"]].append(event["dur"] / 1e3)  # microseconds
    return tuple(
        OperatorTime(kind, median(times[name][1:]), name.removesuffix(_SUFFIX)) for name, kind in kinds.items()
    )


def _zeros(given: onnxruntime.NodeArg) -> np.ndarray:
    name = given.type.removeprefix("tensor(").removesuffix(")")
    return np.zeros(given.shape, _DTYPES.get(name, name))
