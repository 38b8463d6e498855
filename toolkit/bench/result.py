"""The options and the result of a benchmark; the result is written as JSON and read back strictly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from backends.machine import describe
from backends.profiling import OpTypeTotal
from backends.timing import Quartiles, Timing

# Facts about an open session, as its runtime states them: "runtime" and "version", "threads", and either "providers",
# or the "delegate" with the parts that it took, or the "cpu_capability".
RuntimeFacts = dict[str, str | int | list[str] | None]


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
class Machine:
    """The machine and the versions of the packages; None where the system does not tell.

    cores: those that the process may use. flags: the processor's, those that decide which kernels a runtime chooses.
    """

    date: str
    system: str
    python: str
    cores: int
    versions: dict[str, str]
    processor: str | None = None
    flags: list[str] | None = None
    memory_gb: float | None = None

    @classmethod
    def here(cls) -> "Machine":
        """Describe the machine that this process runs on."""
        return msgspec.convert(describe(), cls)


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
class ColdStart:
    """One file in a fresh process: load, first run, then the mean of more runs, and the peaks of resident memory.

    load_ms: the time to check the file's hash and to open it, the runtime's own import excepted. energy_mj_a_run: of
    the processor packages; None where the machine does not tell. delegate: the name of the delegate that LiteRT made
    there; None for other runtimes.
    """

    load_ms: float
    first_run_ms: float
    cpu_ms_a_run: float
    energy_mj_a_run: float | None
    peak_rss_bytes: int
    peak_rss_before_load_bytes: int
    delegate: str | None = None


@dataclass(frozen=True)
class Figures:
    """The figures that a file and a peer have in common, under the name that a table shows."""

    name: str
    bytes: int
    timing: Timing
    of_reference: float
    in_use: RuntimeFacts
    alone: ColdStart


@dataclass(frozen=True)
class FileResult:
    """One file. of_reference: its median over that of the reference, from the same rounds; such ratios compare across
    runs and machines. ratio: quartiles over the rounds of its time over the reference's; None in results of older
    versions.

    group: files of one role that do not fit memory together are timed in groups, each beside the reference. alone: in
    a fresh process. runs_a_second: of the most streams. name: the file, on another backend than the default one of its
    format "file on backend"; unique in its role. backend: "" in results of older versions, which had default ones only.
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
    in_use: RuntimeFacts
    alone: ColdStart
    streams: tuple[Streams, ...]
    runs_a_second: float
    batches: tuple[Batch, ...] = ()
    ratio: Quartiles | None = None
    name: str = ""
    backend: str = ""

    def __post_init__(self) -> None:
        if not self.name:  # of an older version
            object.__setattr__(self, "name", self.file)

    @property
    def figures(self) -> Figures:
        return Figures(self.name, self.bytes, self.timing, self.of_reference, self.in_use, self.alone)


@dataclass(frozen=True)
class PeerResult:
    """Software that somebody would run instead, timed in the same rounds as the files.

    note: how it was made; or why there are no figures, and then all of them are None. tools: the versions of the
    software that made its file.
    """

    name: str
    role: str
    note: str
    sha256: str | None = None
    bytes: int | None = None
    tools: dict[str, str] | None = None
    group: int | None = None
    timing: Timing | None = None
    of_reference: float | None = None
    in_use: RuntimeFacts | None = None
    alone: ColdStart | None = None
    ratio: Quartiles | None = None

    @property
    def figures(self) -> Figures | None:
        """The figures; None of a peer that could not be timed."""
        if self.bytes is None or self.timing is None or self.of_reference is None:
            return None
        if self.in_use is None or self.alone is None:
            return None
        return Figures(self.name, self.bytes, self.timing, self.of_reference, self.in_use, self.alone)


@dataclass(frozen=True)
class ModuleTotal:
    """All operators of one module: its path with dots, or "" for operators of no one module; their count, their
    milliseconds together, and their share of the whole.
    """

    module: str
    count: int
    total_ms: float
    share: float


@dataclass(frozen=True)
class FileProfile:
    """One file, operator by operator. by_module is empty where modules cannot be told, by_kind too where the runtime
    tells nothing; note says why.
    """

    file: str
    role: str
    runtime: str
    by_kind: tuple[OpTypeTotal, ...]
    by_module: tuple[ModuleTotal, ...]
    note: str


@dataclass(frozen=True)
class BenchResult:
    """What was measured, where, and with what.

    reference: the file of each role that ratios are of. notes: sentences that a reader of the numbers must know.
    """

    machine: Machine
    model: str
    kind: str
    weights: dict[str, Any]
    threads: int
    reference: dict[str, str]
    files: tuple[FileResult, ...]
    peers: tuple[PeerResult, ...] = ()
    profile: tuple[FileProfile, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "BenchResult":
        """Read a file that `toolkit bench --json` wrote. Raises OSError, and ValueError for any other content."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values, without facts about the machine that the system does not tell."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found | {"machine": {key: value for key, value in found["machine"].items() if value is not None}}
