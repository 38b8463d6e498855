"""What a benchmark is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
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
