"""Peaks as the kernel counts them: memory of a process and of what it starts, and disk of a folder."""

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

_RESET_PEAK = "5"  # proc(5): clear_refs
_EVERY_S = 0.05


def peak_mb(process: Path = Path("/proc/self")) -> float:
    """The most memory that a process had since its start or the last reset, files that it maps included (VmHWM).

    Not the system's ru_maxrss: that of a new process starts with the memory of the one that it was forked from.
    """
    status = (process / "status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


class Steps:
    """Seconds and peak megabytes of each step: call it with the name of the one that begins."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._name: str | None = None
        self._start = 0.0

    def __call__(self, name: str | None) -> None:
        now = time.perf_counter()
        if self._name is not None:
            row = {"step": self._name, "seconds": round(now - self._start, 2), "peak_rss_mb": round(peak_mb())}
            self.rows.append(row)
            print(row, file=sys.stderr, flush=True)
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="utf-8")
        self._name, self._start = name, time.perf_counter()


class Watch:
    """While its block runs, looks every 50 ms at the disk that `folder` takes and at the memory of what we started.

    A file that has no name is not seen, nor what a process takes after the last look at it.
    """

    def __init__(self, folder: Path) -> None:
        self.disk_mb = 0.0
        self.started_mb: dict[str, float] = {}  # process id -> peak
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.disk_mb = max(self.disk_mb, _disk_bytes(self._folder) / 1e6)
            for process in _children(Path("/proc/self")):
                try:
                    self.started_mb[process.name] = peak_mb(process)
                except (OSError, IndexError):
                    continue  # it has ended


def _disk_bytes(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue  # it has gone since
    return size


def _children(process: Path) -> list[Path]:
    """What a process started, and what that started."""
    found = []
    for task in (process / "task").glob("*/children"):
        try:
            pids = task.read_text(encoding="utf-8").split()
        except OSError:
            continue  # a thread that has ended
        for pid in pids:
            found += [Path("/proc") / pid, *_children(Path("/proc") / pid)]
    return found
