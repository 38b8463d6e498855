"""How many threads to use when nobody says."""

import os
import sys
from pathlib import Path


def default_threads() -> int:
    """Cores that this process may use: its affinity, and whole cores of its cgroup quota. At least 1."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
        quota = cgroup_cores()
        return max(1, cores if quota is None else min(cores, int(quota)))
    return os.cpu_count() or 1


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """The tightest CPU quota of this process's cgroups, version 1 or 2, in cores; None where there is none."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2: one hierarchy for everything
            top, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            top, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # A limit of any ancestor holds. In a container the host's path may not exist: then the top is its own.
        folder = top / group.lstrip("/")
        while True:
            quotas.append(read(folder))
            if folder == top or top not in folder.parents:
                break
            folder = folder.parent
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # this hierarchy is not mounted, or sets no limit
