"""Peaks of memory, as the kernel counts it for a process and its children, and of a folder's disk usage."""

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from backends.machine import peak_rss_bytes

_RESET_PEAK = "5"  # proc(5): clear_refs
_EVERY_S = 0.05


class Steps:
    """The seconds and peak megabytes of each step. Call it with the name of the step that begins; None at the end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._name: str | None = None
        self._start = 0.0

    def __call__(self, name: str | None) -> None:
        now = time.perf_counter()
        if self._name is not None:
            peak_mb = round(peak_rss_bytes() / 1e6)
            row = {"step": self._name, "seconds": round(now - self._start, 2), "peak_rss_mb": peak_mb}
            self.rows.append(row)
            print(row, file=sys.stderr, flush=True)
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="utf-8")
        self._name, self._start = name, time.perf_counter()


class Watch:
    """A context manager that checks every 50 ms a folder's disk usage and the peak memory of this process's children.

    It misses files without a name, and the memory that a process takes after the last check.
    """

    def __init__(self, folder: Path) -> None:
        self.disk_mb = 0.0
        self.started_mb: dict[int, float] = {}  # by process id
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.disk_mb = max(self.disk_mb, _disk_bytes(self._folder) / 1e6)
            for process in psutil.Process().children(recursive=True):
                with suppress(OSError, IndexError):  # the process has ended
                    self.started_mb[process.pid] = peak_rss_bytes(Path("/proc") / str(process.pid)) / 1e6


def _disk_bytes(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # the file has been removed
            size += path.lstat().st_blocks * 512
    return size
