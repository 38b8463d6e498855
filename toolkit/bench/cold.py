"""One file in a fresh process: load, first run, then CPU time and energy of more runs, and peak memory. Prints JSON.

`python -m toolkit.bench.cold BUNDLE ROLE FILE BACKEND THREADS SECONDS`, started by `measure_cold_start`.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.bundle import Bundle
from backends.crash_check import check_crash, is_known_safe
from backends.errors import InvalidArtifact
from backends.sandbox import environment, how_it_ended, python_module
from toolkit.bench.together import BenchTarget, session_class, timing_feeds

if TYPE_CHECKING:
    from toolkit.bench.result import ColdStart

_RAPL = Path("/sys/class/powercap")
# "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_DELEGATE = re.compile(r"Created TensorFlow Lite (\S+) delegate")


def measure_cold_start(target: BenchTarget, threads: int, seconds: float) -> "ColdStart":
    """Open a file in a fresh process, and run it for `seconds` after its first run.

    The files that torch.compile makes are not kept, so that its first run compiles. Raises InvalidArtifact if the
    process fails.
    """
    # The process imports this module, and measures its own memory: what it does not need is imported here.
    import msgspec

    from toolkit.bench.result import ColdStart

    artifact = target.artifact
    command = [*python_module("toolkit.bench.cold"), str(target.bundle.folder), artifact.role, artifact.file]
    command += [target.backend, str(threads), str(seconds)]
    with tempfile.TemporaryDirectory() as cache:
        own = environment(TORCHINDUCTOR_CACHE_DIR=cache)
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=own)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise InvalidArtifact(f"{target.name}: its own process {how_it_ended(done.returncode)}: {last}")
    said = _DELEGATE.search(done.stderr) if target.artifact.format == "tflite" else None
    figures = msgspec.json.decode(done.stdout.splitlines()[-1], type=ColdStart)
    return replace(figures, delegate=said[1] if said else None)


def main(folder: str, role: str, file: str, backend: str, threads: str, seconds: str) -> None:
    """Print the fields of a ColdStart as one line of JSON."""
    import graphs.networks.models  # noqa: F401  registers the architectures that torch files are made of

    bundle = Bundle.open(Path(folder))
    (artifact,) = (a for a in bundle.artifacts if (a.role, a.file) == (role, file))
    target = BenchTarget(file, bundle, artifact, backend)
    feeds = timing_feeds(artifact)
    # The runtime's own import is the same for every file, and a file is checked for crashes once: neither is a part of
    # the load.
    session_class(backend)
    if artifact.format == "tflite" and not is_known_safe(artifact.sha256):
        check_crash(bundle.verify(artifact), artifact, int(threads))
    imported_bytes = _peak_rss_bytes()
    start = time.perf_counter()
    session = target.open(int(threads))
    loaded = time.perf_counter()
    session.run(feeds)
    done = time.perf_counter()
    energy, cpu, end, runs = energy_joules(), time.process_time(), done + float(seconds), 0
    while time.perf_counter() < end or not runs:
        session.run(feeds)
        runs += 1
    cpu = time.process_time() - cpu
    used = None if energy is None else (energy_joules() or 0) - energy
    figures = {
        "load_ms": 1e3 * (loaded - start),
        "first_run_ms": 1e3 * (done - loaded),
        "cpu_ms_a_run": 1e3 * cpu / runs,
        # None too where the counter went round meanwhile.
        "energy_mj_a_run": 1e3 * used / runs if used is not None and used > 0 else None,
        "peak_rss_bytes": _peak_rss_bytes(),
        "peak_rss_before_load_bytes": imported_bytes,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def energy_joules(root: Path = _RAPL) -> float | None:
    """Return the joules that the processor packages have used, by the machine's counters; None where there are none."""
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
