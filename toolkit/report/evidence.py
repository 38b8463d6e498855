"""The data for the page: results given as files, and measurements of those that were not given."""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.bundle import Bundle, Progress
from backends.errors import InvalidInput, NotAvailable, ToolkitError
from toolkit.bench.bundle import bench_bundle
from toolkit.bench.profile import profile_files
from toolkit.bench.result import BenchOptions, BenchResult, FileProfile, Machine
from toolkit.environments import need

# Seconds for the rounds of one role. The result of `toolkit bench`, which takes longer, can be given instead.
TIME_LIMIT_S = 10.0


@dataclass(frozen=True)
class Evidence:
    """All data for the page.

    parity: ParityReport.to_json(). bench: None if nothing was timed. bisections: results of `toolkit bisect --json`.
    missing: by section ("bench", "bisect"), a sentence why data is missing.
    images: the user's own, which were compared after the shipped photographs.
    """

    bundle: Bundle
    parity: dict[str, Any]
    bench: BenchResult | None
    profiles: Sequence[FileProfile]
    bisections: Sequence[dict[str, Any]]
    machine: Machine
    missing: dict[str, str]
    images: Sequence[Path] = ()

    @property
    def comparisons(self) -> list[dict[str, Any]]:
        """The roles of the parity report, then its end-to-end cases in the same form.

        An end-to-end case has "graphs" with its roles, and an entry of "files" for each format and precision.
        """
        wholes = [
            {
                "role": whole["name"],
                "graphs": whole["graphs"],
                "reference": {"file": f"{whole['reference']} fp32"},
                "samples": whole["samples"],
                "files": [_as_file(run) for run in whole["runs"]],
            }
            for whole in self.parity.get("wholes", ())
        ]
        # The page names a file with its backend, if that is not the default.
        roles = [
            {**role, "files": [{**file, "file": file["name"]} for file in role["files"]]}
            for role in self.parity["roles"]
        ]
        return [*roles, *wholes]


def gather(
    bundle: Bundle,
    parity: dict[str, Any],
    images: Sequence[Path],
    threads: int,
    bench: BenchResult | None,
    bisections: Sequence[dict[str, Any]],
    progress: Progress,
) -> Evidence:
    """Return the data for the page. Times, profiles and bisections are measured if they are not given.

    images: those of the parity report. If a runtime or memory for the timing is missing, or bisections fail,
    Evidence.missing says so.
    """
    missing: dict[str, str] = {}
    if bench is None:
        try:
            bench = bench_bundle(bundle, BenchOptions(threads, TIME_LIMIT_S, profile=True), progress)
        except NotAvailable as error:
            missing["bench"] = f"Nothing was timed: {error}."
    profiles = bench.profile if bench is not None else ()
    if not profiles:
        medians_ms = {file.name: file.timing.median_ms for file in (bench.files if bench is not None else ())}
        timed = {artifact.file: medians_ms.get(artifact.file, math.inf) for artifact in bundle.artifacts}
        profiles = profile_files(bundle, bundle.artifacts, timed, threads, progress)
    if not bisections:
        bisections = _bisections(bundle, parity, threads, missing, progress)
    return Evidence(bundle, parity, bench, profiles, bisections, Machine.here(), missing, images)


def _bisections(
    bundle: Bundle, parity: dict[str, Any], threads: int, missing: dict[str, str], progress: Progress
) -> list[dict[str, Any]]:
    """Bisect every file that is not float32, and float32 TFLite files that fail; others differ only by rounding."""
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

    # The folder with the worst layer is temporary: a report makes one file only.
    with tempfile.TemporaryDirectory() as folder:
        found = bisect_bundle(
            bundle,
            file,
            repro=Path(folder) / "repro",
            threads=threads,
            progress=lambda step: progress(f"bisecting {file}: {step}"),
        )
    return found.to_json() | {"repro": None}


def _as_file(run: dict[str, Any]) -> dict[str, Any]:
    judged = [check["passed"] for check in run["checks"]]
    passed = True in judged and False not in judged
    return {**run, "file": f"{run['format']} {run['precision']}", "step": None, "passed": passed}


def read_bench(path: Path, bundle: Bundle) -> BenchResult:
    """Return the result that `toolkit bench --json` wrote for this bundle.

    Raises InvalidInput for any other file, and if a file's hash is not that of the manifest.
    """
    try:
        result = BenchResult.read(path)
    except OSError as error:
        raise InvalidInput(f"--bench {path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"--bench {path}: not a result that `toolkit bench --json` wrote: {error}") from error
    known = {(artifact.role, artifact.file): artifact.sha256 for artifact in bundle.artifacts}
    for file in result.files:
        sha256 = known.get((file.role, file.file), "of no such file")
        if file.sha256 != sha256:
            raise InvalidInput(
                f"--bench {path}: measured another {file.file} than the one in {bundle.folder}: expected sha256 "
                f"{sha256}, got {file.sha256}; run `toolkit bench` again"
            )
    return result


def read_bisection(path: Path, bundle: Bundle) -> dict[str, Any]:
    """Return the result that `toolkit bisect --json` wrote for this bundle. Raises InvalidInput for any other file."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"--bisect {path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"--bisect {path}: not a result that `toolkit bisect --json` wrote: {error}") from error
    try:
        model, candidate = result["model"], result["candidate"]
        for layer in result["layers"]:
            layer["tensor"], layer["onnx_op"], layer["inherited"], layer["introduced"]
        for one in result.get("unmatched", ()):
            one["tensor"], one["why"]
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"--bisect {path}: not a result that `toolkit bisect --json` wrote: {error!r}") from error
    # A bisection of a graph pass names the file and the pass: "detector.onnx after fold_affine".
    file = str(candidate).partition(" after ")[0]
    if model != bundle.model["name"] or file not in [artifact.file for artifact in bundle.artifacts]:
        raise InvalidInput(
            f"--bisect {path}: expected a candidate of {bundle.model['name']} that is in {bundle.folder}, got "
            f"{candidate} of {model}"
        )
    found: dict[str, Any] = result
    return found
