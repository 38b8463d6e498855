"""The machine: cores that this process may use, memory, disk, processor and versions."""

import os
import platform
import shutil
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from backends.errors import NotAvailable


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


def check_disk_space(folder: Path, need_bytes: int, freed_bytes: int = 0) -> None:
    """Raise NotAvailable if the disk of `folder`, which need not exist yet, has less room than is needed.

    freed_bytes lie on it now and will be removed, or are a part of what is needed.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free + freed_bytes
    if free < need_bytes:
        raise NotAvailable(
            f"{folder}: {free / 1e9:.1f} GB of disk are free, and this needs about {need_bytes / 1e9:.1f} GB"
        )


# Distributions whose versions a result states.
PACKAGES = ("numpy", "onnxruntime", "ai-edge-litert", "torch", "onnx", "onnxsim", "openvino", "seal-toolkit")
# Processor features that decide which kernels the runtimes choose.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_int8", "amx_bf16")


def describe() -> dict[str, Any]:
    """The machine, the versions and the date as JSON values; fields that the system does not tell are left out."""
    import psutil

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": default_threads(),
        "versions": _versions(),
        **_processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


@cache
def _processor() -> dict[str, Any]:
    """Name and features. It takes a second, because the library asks the processor in a process of its own."""
    import cpuinfo

    found = cpuinfo.get_cpu_info()
    flags = found.get("flags", ())
    return {
        "processor": found.get("brand_raw", platform.processor()),
        "flags": [flag for flag in FLAGS if flag in flags],
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an extra that is not installed took no part
    return found


def free_bytes() -> int:
    """Bytes of memory that can be had without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def peak_rss_bytes() -> int:
    """The most resident memory that this process has had, in bytes; 0 where the system does not tell (not Linux)."""
    # Not getrusage: its maximum survives exec, and would be the parent's. psutil has no peak on Linux.
    status = Path("/proc/self/status")
    return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0]) if status.is_file() else 0
