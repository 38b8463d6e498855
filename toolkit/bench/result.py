"""The options and the result of a benchmark; the result is written as JSON and read back strictly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from backends.bundle import WeightsOrigin
from backends.machine import Machine
from backends.profiling import OpTypeTotal
from backends.session import RuntimeFacts
from backends.timing import Quartiles, Timing


@dataclass(frozen=True)
class BenchOptions:
    """Options of a benchmark. time_limit_s: seconds for the rounds of one role. peers: whether to time peers too.

    batches: batch sizes at which throughput is measured too. profile: whether to profile operators too. source: the
    file from which the bundle was imported; peers and batches of an imported bundle need it.
    """

    threads: int
    time_limit_s: float
    peers: bool = False
    batches: tuple[int, ...] = ()
    profile: bool = False
    source: Path | None = None

    @property
    def alone_s(self) -> float:
        """Seconds of runs of a file alone: a tenth of the time limit, at least 0.01 and at most 1."""
        return min(1.0, max(0.01, self.time_limit_s / 10))


@dataclass(frozen=True)
class Streams:
    """Throughput of `streams` sessions of one thread each at the same time: the total of their runs a second."""

    streams: int
    runs_a_second: float


@dataclass(frozen=True)
class Batch:
    """Throughput of one session on all threads that takes `batch` images in each run, in images a second.

    median_ms: milliseconds of such a run. noise: see Timing. note: the reason if there are no figures, else "".
    """

    batch: int
    images_a_second: float | None
    median_ms: float | None
    noise: float | None
    note: str


@dataclass(frozen=True)
class ColdStart:
    """Measurements of one file in a fresh process: load, first run, means over further runs, and peak resident memory.

    load_ms: the time to check the file's hash and to open it, without the runtime's import. energy_mj_a_run: energy of
    the processor packages in millijoules; None if the machine does not report it. delegate: the delegate that LiteRT
    names and that runs a part of the file; None without one, as for other runtimes.
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
    """The figures that a FileResult and a PeerResult have in common, under the name that a table shows."""

    name: str
    bytes: int
    timing: Timing
    of_reference: float
    in_use: RuntimeFacts
    alone: ColdStart


@dataclass(frozen=True)
class FileResult:
    """The result of one file on one backend.

    name: the file; for a backend that is not its format's default, "FILE on BACKEND" or "FILE on BACKEND in PRECISION";
    unique in its role. backend: "" in results of older versions, which only had default backends.
    group: the group of files that were timed together, from 1, each group beside the reference. of_reference: its
    median over the reference's in the same rounds; such ratios can be compared between runs and machines. ratio:
    quartiles over the rounds of its time over the reference's; None in results of older versions.
    alone: in a fresh process. runs_a_second: of the largest number of streams.
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
        if not self.name:  # a result of an older version
            object.__setattr__(self, "name", self.file)

    @property
    def figures(self) -> Figures:
        """The figures in the form that peers have too."""
        return Figures(self.name, self.bytes, self.timing, self.of_reference, self.in_use, self.alone)


@dataclass(frozen=True)
class PeerResult:
    """The result of a peer, timed in the same rounds as the files.

    note: how the peer was made; or, if all figures are None, why there are none. tools: the versions of the software
    that made its file.
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
        """The figures; None for a peer that could not be timed."""
        if self.bytes is None or self.timing is None or self.of_reference is None:
            return None
        if self.in_use is None or self.alone is None:
            return None
        return Figures(self.name, self.bytes, self.timing, self.of_reference, self.in_use, self.alone)


@dataclass(frozen=True)
class ModuleTotal:
    """All operators of one module: their count, the sum of their milliseconds, and its share of all time.

    module: the dotted path of the module, or "" for operators that belong to no single module.
    """

    module: str
    count: int
    total_ms: float
    share: float


@dataclass(frozen=True)
class FileProfile:
    """The operator profile of one file on one backend. file: the name of the target, as FileResult.name.

    by_module is empty if modules cannot be determined, and by_kind too if the profiler fails; note says why.
    """

    file: str
    role: str
    runtime: str
    by_kind: tuple[OpTypeTotal, ...]
    by_module: tuple[ModuleTotal, ...]
    note: str


@dataclass(frozen=True)
class BenchResult:
    """The result of a benchmark.

    reference: by role, the file to which ratios refer. notes: sentences that a reader of the numbers must know.
    """

    machine: Machine
    model: str
    kind: str
    weights: WeightsOrigin
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
        """Return the result as JSON values, without fields of the machine that are None."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found | {"machine": {key: value for key, value in found["machine"].items() if value is not None}}
