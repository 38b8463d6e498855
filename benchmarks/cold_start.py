"""One artifact in a fresh process: load, first run, peak memory. Prints JSON.

`python -m benchmarks.cold_start BUNDLE FILE BACKEND THREADS`, called by benchmarks/latency.py.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

import graphs.spec  # noqa: F401  registers the architectures that torch files are made of
from backends.bundle import Bundle
from backends.registry import SESSIONS, open_session


def main(folder: str, file: str, backend: str, threads: str) -> None:
    bundle = Bundle.open(Path(folder))
    (artifact,) = (artifact for artifact in bundle.artifacts if artifact.file == file)
    feeds = {b.spec.name: np.zeros(b.spec.shape, b.spec.dtype) for b in artifact.inputs}
    SESSIONS.load(backend)  # the runtime's own import is the same for every file: it is not part of the load
    imported_bytes = _peak_rss_bytes()
    start = time.perf_counter()
    session = open_session(bundle, artifact, backend, int(threads))
    loaded = time.perf_counter()
    session.run(feeds)
    done = time.perf_counter()
    result = {
        "load_ms": 1e3 * (loaded - start),
        "first_run_ms": 1e3 * (done - loaded),
        "peak_rss_mb": _peak_rss_bytes() / 1e6,
        "peak_rss_before_load_mb": imported_bytes / 1e6,
    }
    print(json.dumps(result))


def _peak_rss_bytes() -> int:
    # Not getrusage: its maximum survives exec, and would be the parent's.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
