"""What a result was measured on: processor, memory, versions, date."""

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from toolkit.threads import default_threads

PACKAGES = ("numpy", "onnxruntime", "ai-edge-litert", "torch", "onnx", "onnxsim", "openvino", "seal-toolkit")
# What decides which kernels the runtimes choose.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_int8", "amx_bf16")


def describe() -> dict[str, Any]:
    """The machine and the versions as JSON values; fields that the system does not tell are left out."""
    described: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": default_threads(),
        "versions": _versions(),
    }
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        described["processor"] = fields.get("model name", platform.processor())
        described["flags"] = [flag for flag in FLAGS if flag in fields.get("flags", "").split()]
    if meminfo.exists():
        kilobytes = int(meminfo.read_text().split("MemTotal:")[1].split()[0])
        described["memory_gb"] = round(kilobytes / 1e6, 1)
    return described


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an extra that is not installed took no part
    return found
