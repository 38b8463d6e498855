"""Cold starts: load time, first run, CPU time and energy of further runs, and peak memory in a fresh process."""

import tempfile
import time
from importlib import import_module
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


def measure_cold_start(target: BenchTarget, threads: int, seconds: float) -> "ColdStart":
    """Open a file in a fresh process, run it once and then for `seconds` more, and return the measurements.

    torch.compile gets an empty cache, so that its first run compiles. Raises InvalidArtifact if the process dies.
    """
    # The child imports this module and measures its own memory, so that modules it does not need are imported here.
    from toolkit.bench.result import ColdStart

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        variables = {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor")}
        with SandboxProcess(log, TIMEOUT_S, variables=variables) as sandbox:
            try:
                figures = sandbox.call(_measure, target.bundle, target.artifact, target.backend, threads, seconds)
            except SandboxDied as died:
                said = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
                raise InvalidArtifact(f"{target.name}: its own process {died}: {said}") from died
    return ColdStart(**figures)


def _measure(bundle: Bundle, artifact: Artifact, backend: str, threads: int, seconds: float) -> dict[str, Any]:
    """Return the fields of a ColdStart that this process measures about itself."""
    target = BenchTarget(artifact.file, bundle, artifact, backend)
    feeds = timing_feeds(bundle, artifact)
    # Neither the runtime's import, equal for all files, nor the crash check, which runs once, counts as load time.
    spec = BACKENDS.load(backend)
    for module in spec.requires:
        import_module(module)
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
        # Also None if the counter wrapped around to zero meanwhile.
        "energy_mj_a_run": 1e3 * used / runs if used is not None and used > 0 else None,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_rss_before_load_bytes": imported_bytes,
        "delegate": session.describe().get("delegate"),
    }


def energy_joules(root: Path = _RAPL) -> float | None:
    """Return the joules on the energy counters of the processor packages; None without readable counters."""
    try:
        return sum(int(path.read_text()) for path in root.glob("intel-rapl:?/energy_uj")) / 1e6 or None
    except (OSError, ValueError):
        return None  # this user may not read the counters
