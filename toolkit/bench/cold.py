"""A cold start: one file in a fresh process. Load, first run, CPU time and energy of more runs, and peak memory."""

import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.crash_check import check_crash
from backends.errors import InvalidArtifact
from backends.machine import peak_rss_bytes
from backends.registry import BACKENDS
from backends.sandbox import SandboxDied, SandboxProcess
from toolkit.bench.together import BenchTarget, timing_feeds

if TYPE_CHECKING:
    from toolkit.bench.result import ColdStart

TIMEOUT_S = 3600.0
_RAPL = Path("/sys/class/powercap")
# "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_DELEGATE = re.compile(r"Created TensorFlow Lite (\S+) delegate")


def measure_cold_start(target: BenchTarget, threads: int, seconds: float) -> "ColdStart":
    """Open a file in a fresh process, and run it for `seconds` after its first run.

    The files that torch.compile makes are not kept, so that its first run compiles. Raises InvalidArtifact if the
    process fails.
    """
    # The process imports this module and measures its own memory: modules that it does not need are imported here.
    from toolkit.bench.result import ColdStart

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        variables = {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor")}
        with SandboxProcess(log, TIMEOUT_S, variables=variables) as sandbox:
            try:
                figures = sandbox.call(
                    _measure, target.bundle.folder, target.artifact, target.backend, threads, seconds
                )
            except SandboxDied as died:
                said = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
                raise InvalidArtifact(f"{target.name}: its own process {died}: {said}") from died
        delegate = _DELEGATE.search(log.read_text(encoding="utf-8", errors="replace"))
    return ColdStart(**figures, delegate=delegate[1] if delegate else None)


def _measure(folder: Path, artifact: Artifact, backend: str, threads: int, seconds: float) -> dict[str, Any]:
    """Return the fields of a ColdStart that the process measures of itself."""
    bundle = Bundle.open(folder)
    target = BenchTarget(artifact.file, bundle, artifact, backend)
    feeds = timing_feeds(artifact)
    # The import of the runtime is the same for every file, and the crash check runs once: neither is part of the load.
    spec = BACKENDS.load(backend)
    if spec.can_crash:
        check_crash(bundle.verify(artifact), artifact, spec.session, spec.package, threads)
    imported_bytes = peak_rss_bytes()
    start = time.perf_counter()
    session = target.open(threads)
    loaded = time.perf_counter()
    session.run(feeds)
    done = time.perf_counter()
    energy, cpu, end, runs = energy_joules(), time.process_time(), done + seconds, 0
    while time.perf_counter() < end or not runs:
        session.run(feeds)
        runs += 1
    cpu = time.process_time() - cpu
    used = None if energy is None else (energy_joules() or 0) - energy
    return {
        "load_ms": 1e3 * (loaded - start),
        "first_run_ms": 1e3 * (done - loaded),
        "cpu_ms_a_run": 1e3 * cpu / runs,
        # None as well where the counter started again from zero meanwhile.
        "energy_mj_a_run": 1e3 * used / runs if used is not None and used > 0 else None,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_rss_before_load_bytes": imported_bytes,
    }


def energy_joules(root: Path = _RAPL) -> float | None:
    """Return the joules that the processor packages have used, by the machine's counters; None where there are none."""
    try:
        return sum(int(path.read_text()) for path in root.glob("intel-rapl:?/energy_uj")) / 1e6 or None
    except (OSError, ValueError):
        return None  # the counters are there, but not for everybody to read
