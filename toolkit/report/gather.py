"""Measures what the page needs and nobody brought: times, operator profiles, errors along the layers."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.bundle import Bundle
from backends.errors import NotAvailable, ToolkitError
from toolkit.bench.bundle import bench_bundle
from toolkit.bench.machine import describe
from toolkit.bench.profile import profile_files
from toolkit.bench.request import Request
from toolkit.extras import need
from toolkit.report.evidence import Evidence

Progress = Callable[[str], None]

# For the rounds of one role. `toolkit bench` waits longer for figures that stand still; its file can be given instead.
TIME_LIMIT_S = 10.0


def gather(
    bundle: Bundle,
    parity: dict[str, Any],
    images: Sequence[Path],
    threads: int,
    bench: dict[str, Any] | None,
    bisections: Sequence[dict[str, Any]],
    progress: Progress,
) -> Evidence:
    """Everything about a bundle whose parity is known. `bench` and `bisections` are used as they are, where given.

    What this machine cannot measure is left out, and Evidence.missing says why.
    """
    missing: dict[str, str] = {}
    if bench is None:
        try:
            bench = bench_bundle(bundle, Request(threads, TIME_LIMIT_S, profile=True), progress).to_json()
        except NotAvailable as error:
            missing["bench"] = f"Nothing was timed: {error}."
    profiles = list((bench or {}).get("profile") or ())
    if not profiles:
        medians_ms = {file["file"]: file["timing"]["median_ms"] for file in (bench or {}).get("files", ())}
        timed = {artifact.file: medians_ms.get(artifact.file, math.inf) for artifact in bundle.artifacts}
        profiles = [asdict(one) for one in profile_files(bundle, bundle.artifacts, timed, threads, progress)]
    if not bisections:
        bisections = _bisections(bundle, parity, threads, missing, progress)
    return Evidence(bundle, parity, bench, profiles, bisections, describe(), missing, images)


def _bisections(
    bundle: Bundle, parity: dict[str, Any], threads: int, missing: dict[str, str], progress: Progress
) -> list[dict[str, Any]]:
    """Every file that is not in float32, and TFLite's float32 where it fails: else that differs by rounding alone."""
    files = [file for role in parity["roles"] for file in role["files"] if _worth_bisecting(file)]
    bisections, failed = [], []
    for file in files:
        try:
            bisections.append(_bisect(bundle, file["file"], threads, progress))
        except ToolkitError as error:
            failed.append(f"{file['file']}: {error}")
    if failed:
        missing["bisect"] = f"Not bisected: {'; '.join(failed)}."
    elif not files:
        missing["bisect"] = "There was nothing to bisect: float32 files that pass differ by rounding alone."
    return bisections


def _worth_bisecting(file: dict[str, Any]) -> bool:
    return file["format"] != "torch" and (
        file["precision"] != "fp32" or (file["format"] == "tflite" and not file["passed"])
    )


def _bisect(bundle: Bundle, file: str, threads: int, progress: Progress) -> dict[str, Any]:
    need("export")
    from toolkit.bisect.bundle import bisect_bundle

    # The folder that shows the worst layer is what `toolkit bisect` leaves; a report leaves one file.
    with tempfile.TemporaryDirectory() as folder:
        found = bisect_bundle(
            bundle,
            file,
            repro=Path(folder) / "repro",
            threads=threads,
            progress=lambda step: progress(f"bisecting {file}: {step}"),
        )
    return found.to_json() | {"repro": None}
