"""One file in a fresh process: load, first run, then CPU time and energy of more runs, and peak memory. Prints JSON.

`python -m toolkit.bench.cold BUNDLE ROLE FILE BACKEND THREADS SECONDS`, started by toolkit.bench.bundle.
"""

import json
import sys
import time
from pathlib import Path

import graphs.spec  # noqa: F401  registers the architectures that torch files are made of
from backends.bundle import Bundle
from backends.registry import SESSIONS, open_session
from toolkit.bench.feeds import timing_feeds

_RAPL = Path("/sys/class/powercap")


def main(folder: str, role: str, file: str, backend: str, threads: str, seconds: str) -> None:
    """Print the figures as one line of JSON."""
    bundle = Bundle.open(Path(folder))
    (artifact,) = (a for a in bundle.artifacts if (a.role, a.file) == (role, file))
    feeds = timing_feeds(artifact)
    SESSIONS.load(backend)  # the runtime's own import is the same for every file: it is not part of the load
    imported_bytes = _peak_rss_bytes()
    start = time.perf_counter()
    session = open_session(bundle, artifact, backend, int(threads))
    loaded = time.perf_counter()
    session.run(feeds)
    done = time.perf_counter()
    energy, cpu, end, runs = energy_joules(), time.process_time(), done + float(seconds), 0
    while time.perf_counter() < end or not runs:
        session.run(feeds)
        runs += 1
    cpu = time.process_time() - cpu
    used = None if energy is None else (energy_joules() or 0) - energy
    result = {
        "load_ms": 1e3 * (loaded - start),
        "first_run_ms": 1e3 * (done - loaded),
        "cpu_ms_a_run": 1e3 * cpu / runs,
        # None too where the counter went round meanwhile.
        "energy_mj_a_run": 1e3 * used / runs if used is not None and used > 0 else None,
        "peak_rss_bytes": _peak_rss_bytes(),
        "peak_rss_before_load_bytes": imported_bytes,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def energy_joules(root: Path = _RAPL) -> float | None:
    """What the processor packages have used, by the machine's own counters; None where it does not tell."""
    try:
        return sum(int(path.read_text()) for path in root.glob("intel-rapl:?/energy_uj")) / 1e6 or None
    except (OSError, ValueError):
        return None  # there, but not for everybody to read


def _peak_rss_bytes() -> int:
    # Not getrusage: its maximum survives exec, and would be the parent's.
    status = Path("/proc/self/status")
    return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0]) if status.is_file() else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
