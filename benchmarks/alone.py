"""The subjects of `benchmarks.apart`, files and whole runs of a model, and their measurement in a child process.

A query of the foveated model looks once more at frames that the session holds encoded.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backends.bundle import Bundle
from backends.machine import peak_rss_bytes
from backends.registry import BACKENDS
from backends.sandbox import SandboxProcess
from backends.timing import Rounds, time_rounds
from benchmarks.whole_runs import WHOLE_RUNS, WholeRun, open_whole
from toolkit.bench.together import BenchTarget, timing_feeds

RUNTIMES = {"ort": "ONNX Runtime {}", "tflite": "TFLite {}", "torch": "torch eager"}
TIMEOUT_S = 300.0
_HELD = ("query_shallow", "query_deep")
_ROUNDS = Rounds(1.5, warm_ups=0, least=1, most=32, until_steady=False)


def subjects(bundle: Bundle) -> dict[str, BenchTarget | WholeRun]:
    """Return every file, and every whole run on each backend and precision that has all graphs, by the row's name."""
    targets = [BenchTarget.of(bundle, artifact) for artifact in bundle.artifacts]
    found: dict[str, BenchTarget | WholeRun] = {}
    roles: dict[tuple[str, str], set[str]] = {}
    for target in targets:
        variant = target.backend, target.artifact.precision
        found[f"{target.artifact.role}, {RUNTIMES[variant[0]].format(variant[1])}"] = target
        roles.setdefault(variant, set()).add(target.artifact.role)
    for (backend, precision), has in roles.items():
        if has == {artifact.role for artifact in bundle.artifacts}:
            for name in WHOLE_RUNS.get(bundle.model["kind"], ()):
                whole = WholeRun(name, bundle.folder, backend, precision)
                found[f"{name}, {RUNTIMES[backend].format(precision)}"] = whole
    return found


def run_alone(subject: BenchTarget | WholeRun, threads: int) -> dict[str, Any]:
    """Measure a subject in a child process. Raises SandboxDied if the child dies."""
    with tempfile.TemporaryDirectory() as folder, SandboxProcess(Path(folder) / "log", TIMEOUT_S) as process:
        return process.call(measure, subject, threads)


def measure(subject: BenchTarget | WholeRun, threads: int) -> dict[str, Any]:
    """Load a subject, run it once and then 1 to 32 times more, and return its times and peaks of memory.

    load_ms is None for a whole run, which opens its graphs in its first run.
    """
    if isinstance(subject, BenchTarget):
        BACKENDS.load(subject.backend)  # the runtime's import does not count as load time
    before_mb, start = peak_rss_bytes() / 1e6, time.perf_counter()
    run = _open_file(subject, threads) if isinstance(subject, BenchTarget) else open_whole(subject, threads)
    opened = time.perf_counter()
    run()
    first_ms = 1e3 * (time.perf_counter() - opened)
    samples_ms = time_rounds({"run": run}, _ROUNDS)["run"]
    return {
        "load_ms": 1e3 * (opened - start) if isinstance(subject, BenchTarget) else None,
        "first_run_ms": first_ms,
        "run_ms": float(np.median(samples_ms)),
        "runs": len(samples_ms),
        "peak_mb": peak_rss_bytes() / 1e6,
        "peak_before_load_mb": before_mb,
    }


def _open_file(target: BenchTarget, threads: int) -> Callable[[], object]:
    session, feeds = target.open(threads), timing_feeds(target.bundle, target.artifact)
    if target.artifact.role in _HELD:
        session.hold({name: feeds.pop(name) for name in list(feeds) if name != "query"})
    return lambda: session.run(feeds)
