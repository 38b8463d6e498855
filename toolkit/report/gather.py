"""Measures what the page needs and nobody brought: times, operator profiles, errors along the layers."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.bundle import Bundle
from backends.errors import NotAvailable
from toolkit.bench.bundle import Request, bench_bundle
from toolkit.bench.machine import describe
from toolkit.profiling.operators import by_kind, profile
from toolkit.report.evidence import Evidence

Progress = Callable[[str], None]

# For the rounds of one role. `toolkit bench` waits longer for figures that stand still; its file can be given instead.
TIME_LIMIT_S = 10.0
_PROFILED_RUNS = 10
_PROFILED = ("onnx", "tflite")


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
            bench = bench_bundle(bundle, Request(threads, TIME_LIMIT_S), progress).to_json()
        except NotAvailable as error:
            missing["bench"] = f"Nothing was timed: {error}."
    profiles = list((bench or {}).get("profile") or ())
    if not profiles:
        profiles = _profiles(bundle, threads, missing, progress)
    if not bisections:
        missing["bisect"] = "No file was bisected: bring the result of `toolkit bisect --json` with --bisect."
    return Evidence(bundle, parity, bench, profiles, bisections, describe(), missing, images)


def _profiles(bundle: Bundle, threads: int, missing: dict[str, str], progress: Progress) -> list[dict[str, Any]]:
    profiles, failed = [], []
    for artifact in bundle.artifacts:
        if artifact.format not in _PROFILED:
            continue
        progress(f"profiling {artifact.file}")
        try:
            times = profile(bundle.verify(artifact), threads, _PROFILED_RUNS)
        except NotAvailable as error:
            failed.append(str(error))
            continue
        profiles.append({"file": artifact.file, "by_kind": [asdict(kind) for kind in by_kind(times)]})
    if failed:
        missing["profile"] = f"Not profiled: {'; '.join(failed)}."
    return profiles
