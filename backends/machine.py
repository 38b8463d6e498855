"""Facts about the machine: usable cores, free memory and disk, processor, and versions of packages."""

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from backends.errors import NotAvailable


def default_threads() -> int:
    """Return the number of cores that this process may use, at least 1.

    On Linux the affinity and the cgroup's CPU quota, rounded down, limit it.
    """
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
        quota = cgroup_cores()
        return max(1, cores if quota is None else min(cores, int(quota)))
    return os.cpu_count() or 1


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """Return the smallest CPU quota of this process's cgroups (version 1 or 2), in cores; None without a quota."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2: one hierarchy for everything
            top, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            top, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # Limits of all ancestors apply. In a container the host's path may be missing; the top folder is then its own.
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
        return ""  # the hierarchy is not mounted, or sets no limit


def free_disk_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free


def check_disk_space(folder: Path, need_bytes: int, freed_bytes: int = 0) -> None:
    """Raise NotAvailable if the disk of `folder` has less than `need_bytes` free. The folder need not exist yet.

    freed_bytes: bytes on that disk that count as free, because they will be removed or are already a part of the need.
    """
    free = free_disk_bytes(folder) + freed_bytes
    if free < need_bytes:
        raise NotAvailable(
            f"{folder}: {free / 1e9:.1f} GB of disk are free, and this needs about {need_bytes / 1e9:.1f} GB"
        )


# Distributions whose versions stand in a result.
PACKAGES = ("numpy", "onnxruntime", "ai-edge-litert", "torch", "onnx", "onnxsim", "openvino", "seal-toolkit")
# Processor features that decide which kernels the runtimes choose.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_int8", "amx_bf16")
# What of these a reader looks for, each with the features of which one is enough.
_EXTENSIONS = {
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16", "amx_bf16"),
    "FP16": ("avx512_fp16",),
    "AMX": ("amx_int8", "amx_bf16"),
}


@dataclass(frozen=True)
class Machine:
    """The machine, the date, and the versions of the installed packages; None for a fact that is not known.

    cores: the cores that the process may use. flags: the processor's features that decide which kernels a runtime uses.
    load: the mean over the last minute of the number of processes that ran or waited for a core, at the moment when
    the facts were taken. Two machines are equal whatever their loads are.
    """

    date: str
    system: str
    python: str
    cores: int
    versions: dict[str, str]
    processor: str | None = None
    flags: list[str] | None = None
    memory_gb: float | None = None
    load: float | None = field(default=None, compare=False)

    @classmethod
    def here(cls) -> "Machine":
        """Return the machine on which this process runs. Call it before a measurement, which adds to the load."""
        import psutil

        load = round(psutil.getloadavg()[0], 2)
        processor, flags = _processor()
        return cls(
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            cores=default_threads(),
            versions=_versions(),
            processor=processor,
            flags=list(flags),
            memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
            load=load,
        )

    @property
    def is_busy(self) -> bool:
        """Whether more processes ran or waited than the machine has cores for: times are then too long, and uneven."""
        return self.load is not None and self.load > self.cores

    @property
    def instruction_sets(self) -> str:
        """The instruction sets that decide the speed, such as "AVX-512, VNNI, BF16" or "AVX2 only"; "" if unknown."""
        flags = self.flags or []
        base = ["AVX-512"] if "avx512f" in flags else ["AVX2"] if "avx2" in flags else []
        more = [name for name, needs in _EXTENSIONS.items() if any(flag in flags for flag in needs)]
        return ", ".join([*base, *more]) + (" only" if base and not more else "")

    def __str__(self) -> str:
        """Return a line for results, such as "A processor (AVX2 only), 8 cores, load 0.3 at the start"."""
        sets = f" ({self.instruction_sets})" if self.instruction_sets else ""
        load = "" if self.load is None else f", load {self.load:.1f} at the start"
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{self.processor or self.system}{sets}, {cores}{load}"

    def to_json(self) -> dict[str, Any]:
        """Return the facts that are known as JSON values."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@cache
def _processor() -> tuple[str, tuple[str, ...]]:
    """Return the processor's name and features. It takes a second: the library runs a process to ask the processor."""
    import cpuinfo

    found = cpuinfo.get_cpu_info()
    flags = found.get("flags", ())
    return found.get("brand_raw", platform.processor()), tuple(flag for flag in FLAGS if flag in flags)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional package that is not installed
    return found


def free_bytes() -> int:
    """Return the bytes of memory that are available without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def peak_rss_bytes(process: Path = Path("/proc/self")) -> int:
    """Return the peak resident memory of a process in bytes, mapped files included; 0 on systems other than Linux.

    process: its folder in /proc. The peak is since the process began or its peak was reset. Raises OSError or
    IndexError for a process that has ended.
    """
    # Not getrusage: its maximum survives exec, so that it may be the parent's. psutil has no peak on Linux.
    status = process / "status"
    return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0]) if sys.platform == "linux" else 0
