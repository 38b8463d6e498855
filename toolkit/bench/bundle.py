"""Every file of a bundle, timed side by side, and what each takes when it runs alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, NotAvailable
from backends.registry import BACKENDS, open_session
from toolkit.bench.feeds import timing_feeds
from toolkit.bench.machine import describe
from toolkit.bench.rounds import Timing, measure
from toolkit.bench.runtime import in_use
from toolkit.bench.streams import runs_a_second
from toolkit.parity.compare import reference_of
from toolkit.processes import how_it_ended

Progress = Callable[[str], None]

ALONE_S = 1.0
# Open files may take this share of the memory that is free; a runtime keeps a packed copy of weights beside the file.
_MEMORY_SHARE = 0.4


@dataclass(frozen=True)
class FileResult:
    """One file. of_reference: its median over that of the reference, from the same rounds, which is what compares
    across runs and machines. alone: of a fresh process, see toolkit.bench.cold. streams: sessions of one thread each.
    """

    file: str
    role: str
    precision: str
    route: str | None
    sha256: str
    bytes: int
    timing: Timing
    of_reference: float
    in_use: dict[str, Any]
    alone: dict[str, float | None]
    streams: int
    runs_a_second: float


@dataclass(frozen=True)
class BenchResult:
    """What was measured, where, and with what. reference: the file of each role that ratios are of."""

    machine: dict[str, Any]
    model: str
    weights: dict[str, Any]
    threads: int
    reference: dict[str, str]
    files: tuple[FileResult, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bench_bundle(
    bundle: Bundle, threads: int, time_limit_s: float, progress: Progress = lambda step: None
) -> BenchResult:
    """Time every file of a bundle, role by role, interleaved; then each alone in a fresh process.

    The reference is torch where the bundle has it, else float32 ONNX. time_limit_s is for the rounds of one role.
    Raises NotAvailable for a runtime that is not installed, or too little memory to hold a role's files at once.
    """
    results: list[FileResult] = []
    references = {}
    for role in dict.fromkeys(artifact.role for artifact in bundle.artifacts):
        artifacts = [artifact for artifact in bundle.artifacts if artifact.role == role]
        _check_memory(role, artifacts)
        reference = references[role] = reference_of(artifacts).file
        with ExitStack() as stack:
            sessions = {}
            for artifact in artifacts:
                progress(f"opening {artifact.file}")
                opened = open_session(bundle, artifact, BACKENDS[artifact.format], threads)
                sessions[artifact.file] = stack.enter_context(opened)
            feeds = timing_feeds(artifacts[0])
            runs = {file: partial(session.run, feeds) for file, session in sessions.items()}
            timings = measure(runs, time_limit_s, progress)
            described = {file: in_use(session) for file, session in sessions.items()}
        for artifact in artifacts:
            progress(f"{artifact.file} alone")
            figures = alone(bundle, artifact, threads, ALONE_S)
            results.append(
                FileResult(
                    file=artifact.file,
                    role=role,
                    precision=artifact.precision,
                    route=artifact.route,
                    sha256=artifact.sha256,
                    bytes=artifact.bytes,
                    timing=timings[artifact.file],
                    of_reference=timings[artifact.file].median_ms / timings[reference].median_ms,
                    in_use=described[artifact.file],
                    alone=figures,
                    streams=threads,
                    runs_a_second=_throughput(bundle, artifact, threads),
                )
            )
    return BenchResult(describe(), bundle.model["name"], bundle.weights, threads, references, tuple(results))


def _throughput(bundle: Bundle, artifact: Artifact, streams: int) -> float:
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(open_session(bundle, artifact, BACKENDS[artifact.format], threads=1))
            for _ in range(streams)
        ]
        return runs_a_second(sessions, timing_feeds(artifact), ALONE_S)


def alone(bundle: Bundle, artifact: Artifact, threads: int, seconds: float) -> dict[str, float | None]:
    """What toolkit.bench.cold measures in a fresh process, which runs the file for `seconds` after its first run.

    Raises InvalidArtifact if that process fails.
    """
    command = [sys.executable, "-m", "toolkit.bench.cold", str(bundle.folder), artifact.role, artifact.file]
    command += [BACKENDS[artifact.format], str(threads), str(seconds)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise InvalidArtifact(f"{artifact.file}: its own process {how_it_ended(done.returncode)}: {last}")
    result: dict[str, float | None] = json.loads(done.stdout)
    return result


def _check_memory(role: str, artifacts: list[Artifact]) -> None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return
    available = 1024 * int(meminfo.read_text().split("MemAvailable:")[1].split()[0])
    need = sum(artifact.bytes for artifact in artifacts)
    if need > available * _MEMORY_SHARE:
        raise NotAvailable(
            f"{role}: its files have {need / 1e9:.1f} GB, of which all are open at once; expected at most "
            f"{_MEMORY_SHARE:.0%} of the {available / 1e9:.1f} GB of memory that is free"
        )
