"""The subjects of `benchmarks.apart`, files and whole runs of a model, and their measurement in a child process.

A whole run uses all graphs of a model: both passes over a clip, or a caption with or without its cache. A query of the
foveated model looks once more at frames that the session holds encoded.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.bundle import Bundle
from backends.registry import BACKENDS
from backends.sandbox import SandboxProcess
from backends.timing import Rounds, time_rounds
from benchmarks.peaks import peak_mb
from toolkit.bench.together import BenchTarget, timing_feeds
from toolkit.images.samples import shipped_photographs

FRAMES, TOKENS = 8, 100
SHALLOW, DEEP = (f"both passes over {FRAMES} frames, {how}" for how in ("shallow", "deep"))
CACHED, UNCACHED = (f"{TOKENS} tokens {how} cache" for how in ("with", "without"))
WHOLE_RUNS = {"foveated": (SHALLOW, DEEP), "captioner": (CACHED, UNCACHED)}
RUNTIMES = {"ort": "ONNX Runtime {}", "tflite": "TFLite {}", "torch": "torch eager"}
TIMEOUT_S = 300.0
_HELD = ("query_shallow", "query_deep")
_ROUNDS = Rounds(1.5, warm_ups=0, least=1, most=32, until_steady=False)


@dataclass(frozen=True)
class WholeRun:
    """A run of a bundle's whole model on a backend in a precision. name: a value of WHOLE_RUNS."""

    name: str
    folder: Path
    backend: str
    precision: str


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
    before_mb, start = peak_mb(), time.perf_counter()
    run = _open_file(subject, threads) if isinstance(subject, BenchTarget) else _open_whole(subject, threads)
    opened = time.perf_counter()
    run()
    first_ms = 1e3 * (time.perf_counter() - opened)
    samples_ms = time_rounds({"run": run}, _ROUNDS)["run"]
    return {
        "load_ms": 1e3 * (opened - start) if isinstance(subject, BenchTarget) else None,
        "first_run_ms": first_ms,
        "run_ms": float(np.median(samples_ms)),
        "runs": len(samples_ms),
        "peak_mb": peak_mb(),
        "peak_before_load_mb": before_mb,
    }


def _open_file(target: BenchTarget, threads: int) -> Callable[[], object]:
    session, feeds = target.open(threads), timing_feeds(target.artifact)
    if target.artifact.role in _HELD:
        session.hold({name: feeds.pop(name) for name in list(feeds) if name != "query"})
    return lambda: session.run(feeds)


def _open_whole(whole: WholeRun, threads: int) -> Callable[[], object]:
    from toolkit.models.captioner.runner import Captioner
    from toolkit.models.foveated.compare import pan
    from toolkit.models.foveated.runner import TwoPass

    image, bundle = shipped_photographs()[0], Bundle.open(whole.folder)
    if whole.name in WHOLE_RUNS["foveated"]:
        model = TwoPass(bundle, whole.backend, whole.precision, threads)
        frames = pan(image, FRAMES)
        return lambda: model.run(frames, how="deep" if whole.name == DEEP else "shallow")
    captioner = Captioner(bundle, whole.backend, whole.precision, threads)
    latent = captioner.encode(captioner.read(image))
    write = captioner.caption if whole.name == CACHED else captioner.caption_without_cache

    def run() -> None:
        # A first token and 99 more. A text that ends early would be timed as a shorter text.
        found = len(write(latent, length=TOKENS - 1).tokens)
        if found != TOKENS - 1:
            raise ValueError(f"expected a text of {TOKENS - 1} tokens, got {found}: choose other weights")

    return run
