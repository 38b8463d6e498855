"""One row of benchmarks.kinds_speed in a process of its own: load, first run, more runs, and peak memory, as JSON.

A row is a file of a bundle on its runtime, or a whole run of a model by its graphs: both passes over a clip, or a
caption with its cache and without. A query's run is one more look at the same frames: what the encoder made of them is
held.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peaks import peak_mb

PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "toolkit" / "photographs").glob("*.jpg"))
SHALLOW, DEEP = "both passes over 8 frames, shallow", "both passes over 8 frames, deep"
CACHED, UNCACHED = "100 tokens with cache", "100 tokens without cache"
ONE_MORE = ("query_shallow", "query_deep")
WHOLES = {"foveated": (SHALLOW, DEEP), "captioner": (CACHED, UNCACHED)}
FRAMES, TOKENS = 8, 100
LEAST_RUNS, MOST_RUNS, ENOUGH_S = 1, 32, 1.5


@dataclass(frozen=True)
class Row:
    """what: a role of the bundle in `folder`, whose `file` is run; or one of WHOLES, and no file."""

    name: str
    what: str
    folder: str
    file: str | None
    backend: str
    precision: str

    @property
    def key(self) -> str:
        return f"{self.what}, {self.name}"


def measure(row: Row, threads: int) -> dict[str, object]:
    """Load what a row names, run it once and then some more. A whole run opens its graphs in its first run."""
    run, opened_ms, before_mb = _open(row, threads)
    start = time.perf_counter()
    run()
    first_ms = 1e3 * (time.perf_counter() - start)
    times_ms: list[float] = []
    while len(times_ms) < LEAST_RUNS or (len(times_ms) < MOST_RUNS and sum(times_ms) < 1e3 * ENOUGH_S):
        start = time.perf_counter()
        run()
        times_ms.append(1e3 * (time.perf_counter() - start))
    return {
        "load_ms": opened_ms,
        "first_run_ms": first_ms,
        "run_ms": float(np.median(times_ms)),
        "runs": len(times_ms),
        "peak_mb": peak_mb(),
        "peak_before_load_mb": before_mb,
    }


def _open(row: Row, threads: int) -> tuple[Callable[[], object], float | None, float]:
    """How to run a row, the milliseconds that its file took to check and load, and the memory before."""
    from backends.bundle import Bundle
    from toolkit.bench.together import BenchTarget, session_class, timing_feeds

    bundle = Bundle.open(Path(row.folder))
    session_class(row.backend)  # the runtime's own import is no part of the load
    if row.file is None:
        return _whole(row, threads), None, peak_mb()
    (artifact,) = (a for a in bundle.artifacts if (a.role, a.file) == (row.what, row.file))
    feeds = timing_feeds(artifact)
    before_mb = peak_mb()
    start = time.perf_counter()
    session = BenchTarget(row.name, bundle, artifact, row.backend).open(threads)
    loaded_ms = 1e3 * (time.perf_counter() - start)
    if row.what in ONE_MORE:  # what the frames are is there from the look before
        session.hold({name: feeds.pop(name) for name in list(feeds) if name != "query"})
    return lambda: session.run(feeds), loaded_ms, before_mb


def _whole(row: Row, threads: int) -> Callable[[], object]:
    from toolkit.models.captioner.runner import Captioner
    from toolkit.models.foveated.compare import pan
    from toolkit.models.foveated.runner import TwoPass

    if row.what in WHOLES["foveated"]:
        model = TwoPass(Path(row.folder), row.backend, row.precision, threads)
        frames = pan(PHOTOGRAPHS[0], FRAMES)
        return lambda: model.run(frames, how="deep" if row.what == DEEP else "shallow")
    captioner = Captioner(Path(row.folder), row.backend, row.precision, threads)
    latent = captioner.encode(captioner.read(PHOTOGRAPHS[0]))
    write = captioner.caption if row.what == CACHED else captioner.caption_without_cache

    def run() -> None:
        # Begin and 99 more. Weights that end a text early would make the figure one of a shorter text.
        found = len(write(latent, length=TOKENS - 1).tokens)
        if found != TOKENS - 1:
            raise ValueError(f"expected a text of {TOKENS - 1} tokens, got {found}: choose other weights")

    return run


if __name__ == "__main__":
    print(json.dumps(measure(Row(**json.loads(sys.argv[1])), int(sys.argv[2]))))
