"""What a benchmark is asked for."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.bench.rounds import Timing


@dataclass(frozen=True)
class BenchOptions:
    """What to measure. time_limit_s: for the rounds of one role. peers: beside what somebody would run instead.

    batches: also throughput at these batches. profile: also operator by operator. source: of an imported graph, the
    file that was imported, which its peers and its batches need.
    """

    threads: int
    time_limit_s: float
    peers: bool = False
    batches: tuple[int, ...] = ()
    profile: bool = False
    source: Path | None = None


@dataclass(frozen=True)
class Streams:
    """How many runs a second so many sessions of one thread each end together."""

    streams: int
    runs_a_second: float


@dataclass(frozen=True)
class Batch:
    """How many images a second one session ends that takes `batch` at once, on all threads.

    noise: as a Timing's. note: where there are no figures, why.
    """

    batch: int
    images_a_second: float | None
    median_ms: float | None
    noise: float | None
    note: str


@dataclass(frozen=True)
class FileResult:
    """One file. of_reference: its median over that of the reference, from the same rounds, which is what compares
    across runs and machines. group: files of one role that do not fit memory together are timed in groups, each beside
    the reference. alone: of a fresh process, see toolkit.bench.cold. runs_a_second: of the most streams.
    """

    file: str
    role: str
    precision: str
    route: str | None
    sha256: str
    bytes: int
    group: int
    timing: Timing
    of_reference: float
    in_use: dict[str, Any]
    alone: dict[str, Any]
    streams: tuple[Streams, ...]
    runs_a_second: float
    batches: tuple[Batch, ...]


@dataclass(frozen=True)
class PeerResult:
    """What somebody would run instead, timed in the same rounds as the files. note: how it was made; or why there are
    no figures, and then all of them are None. tools: what made its file, with versions.
    """

    name: str
    role: str
    note: str
    sha256: str | None
    bytes: int | None
    tools: dict[str, str] | None
    group: int | None
    timing: Timing | None
    of_reference: float | None
    in_use: dict[str, Any] | None
    alone: dict[str, Any] | None


@dataclass(frozen=True)
class BenchResult:
    """What was measured, where, and with what. reference: the file of each role that ratios are of.

    profile: see toolkit.bench.profile. notes: what a reader of the numbers must know.
    """

    machine: dict[str, Any]
    model: str
    kind: str
    weights: dict[str, Any]
    threads: int
    reference: dict[str, str]
    files: tuple[FileResult, ...]
    peers: tuple[PeerResult, ...]
    profile: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
