"""Ships a model: makes its bundle, converts, compares, times and reports it; no failure costs the other results."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from backends.bundle import Bundle, Progress
from backends.errors import NotAvailable, ToolkitError, one_line
from backends.machine import default_threads
from backends.precision import USUAL, chosen
from toolkit.bench.bundle import bench_bundle
from toolkit.bench.result import BenchOptions, BenchResult
from toolkit.convert.calibration import GENERATED, Calibration
from toolkit.convert.options import check_needed, files_to_make
from toolkit.convert.outcome import SUFFIXES, Conversion, Runtime
from toolkit.convert.pipeline import convert_bundle
from toolkit.environments import converter_python
from toolkit.inputs.kept import KeptInputs
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle
from toolkit.parity.report import ParityReport
from toolkit.report.evidence import gather
from toolkit.report.page import write_page
from toolkit.shipping.choice import Choice, ShippedFile, choices, shipped_files

Result = TypeVar("Result")
# Takes the folder, a progress function and a function for notes; makes the bundle.
MakeBundle = Callable[[Path, Progress, Callable[[str], None]], Bundle]

ALL, OVER, NOT_MADE = 0, 1, 2
REPORT = "report.html"
STEPS = ("import", "convert", "compare", "bench", "report")


@dataclass(frozen=True)
class ShipOptions:
    """The options of a shipment. precisions: as `convert_bundle` takes them. runtimes: to make files for.

    threads: for comparing and timing; None for the cores that this process may use. time_limit_s: seconds for the
    rounds of timing of each graph.
    """

    precisions: tuple[str, ...] | None = None
    runtimes: tuple[Runtime, ...] = tuple(SUFFIXES)
    threads: int | None = None
    time_limit_s: float = 20.0


@dataclass(frozen=True)
class Shipped:
    """The result of a shipment. `print` shows its advice and its failures.

    conversion, parity, bench, report: None for a step that failed; failed: the reason by the name of the step. notes:
    lines for the user.
    """

    bundle: Bundle
    conversion: Conversion | None
    parity: ParityReport | None
    bench: BenchResult | None
    report: Path | None
    notes: tuple[str, ...]
    failed: dict[str, str]

    @cached_property
    def files(self) -> tuple[ShippedFile, ...]:
        """Every file with its verdict, size and speed, those that could not be made last."""
        return shipped_files(self.bundle, self.conversion, self.parity, self.bench)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The files to take, for each graph on each runtime."""
        return choices(self.files)

    @property
    def exit_code(self) -> int:
        """2 if a file or a step could not be made, 1 if a file is over its tolerance, else 0."""
        if self.failed or any(file.verdict == "not made" for file in self.files):
            return NOT_MADE
        ends = self.parity is not None and not self.parity.passed and any(role.files for role in self.parity.roles)
        return OVER if ends or any(file.verdict == "fail" for file in self.files) else ALL

    def __str__(self) -> str:
        several = len({choice.role for choice in self.choices}) > 1
        lines = [f"{choice.role}, {choice.reason}" if several else choice.reason for choice in self.choices]
        lines += [f"{file.file}: {file.verdict}: {'; '.join(file.why)}" for file in self.files if file.why]
        lines += [f"{step} failed: {why}" for step, why in self.failed.items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values: the files, the choices, the notes, the failures, and the machine."""
        return {
            "model": self.bundle.model["name"],
            "weights": asdict(self.bundle.weights),
            "machine": self.bench and self.bench.to_json()["machine"],
            "threads": self.bench and self.bench.threads,
            "exit_code": self.exit_code,
            "files": [asdict(file) for file in self.files],
            "choices": [
                {
                    "role": choice.role,
                    "runtime": choice.runtime,
                    "smallest": choice.smallest and choice.smallest.file,
                    "fastest": choice.fastest and choice.fastest.file,
                    "reason": choice.reason,
                }
                for choice in self.choices
            ],
            "notes": list(self.notes),
            "failed": self.failed,
        }


class _Steps:
    """The steps of a shipment: their progress, and the reasons of those that failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.failed: dict[str, str] = {}

    def progress(self, name: str) -> Progress:
        """Return a progress function for a step, which puts the number and the name of the step before each line."""
        return lambda step: self._progress(f"{STEPS.index(name) + 1} of {len(STEPS)}, {name}: {step}")

    def attempt(self, name: str, work: Callable[[Progress], Result]) -> Result | None:
        """Do a step and return its result; if it fails, record the reason and return None."""
        try:
            return work(self.progress(name))
        except Exception as error:  # noqa: BLE001  whatever ends one step must not cost the results of the others
            fault = "" if isinstance(error, ToolkitError | OSError) else f"{type(error).__name__}: "
            self.failed[name] = f"{fault}{one_line(error)}"
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                self.failed[name] += "; make room on the disk"
            return None


def ship_model(
    make: MakeBundle, folder: Path, options: ShipOptions = ShipOptions(), progress: Progress = lambda step: None
) -> Shipped:
    """Make a bundle in `folder`, convert, compare and time it, and write DIR/report.html.

    make: makes the bundle, such as Source.make. A step that fails is recorded, and the others are done all the same.
    Without the converter's environment the files for ONNX Runtime are made. Nothing is left of an older bundle in
    `folder`.
    Raises InvalidInput and NotAvailable for precisions and runtimes that do not go together, and the errors of `make`:
    without a bundle there is nothing to ship.
    """
    recipes = chosen(options.precisions or USUAL, "direct")
    check_needed([recipe for recipe in recipes if not recipe.calibrated], None, None)
    files_to_make(recipes, "direct", options.runtimes)
    steps, notes = _Steps(progress), list[str]()
    bundle = make(folder, steps.progress("import"), notes.append)
    conversion = steps.attempt("convert", lambda said: _converted(bundle, options, steps, notes.append, said))
    if conversion is not None:
        bundle = conversion.bundle
        notes += conversion.notes
    threads = options.threads or default_threads()
    parity = steps.attempt("compare", lambda said: compare_bundle(bundle, (), threads, said))
    bench = steps.attempt(
        "bench",
        lambda said: bench_bundle(bundle, BenchOptions(threads, options.time_limit_s, profile=True), said),
    )
    report = None
    if parity is not None:
        notes += parity.notes
        report = steps.attempt("report", lambda said: _report(bundle, parity, bench, steps, threads, said))
    return Shipped(bundle, conversion, parity, bench, report, tuple(dict.fromkeys(notes)), steps.failed)


def _converted(
    bundle: Bundle, options: ShipOptions, steps: _Steps, note: Callable[[str], None], progress: Progress
) -> Conversion:
    runtimes: Sequence[Runtime] = options.runtimes
    if "tflite" in runtimes and len(runtimes) > 1:
        try:
            converter_python()
        except NotAvailable as error:
            steps.failed["convert"] = f"no files for TFLite: {one_line(error)}"
            runtimes = [runtime for runtime in runtimes if runtime != "tflite"]
    calibration = None
    if KeptInputs.of(bundle).path is None:
        names = [recipe.name for recipe in chosen(options.precisions or USUAL, "direct") if recipe.calibrated]
        if names:
            calibration = Calibration.of(GENERATED, "min-max")
            note(f"{' and '.join(names)}: calibrated on generated images; --inputs gives those that the model is for")
    return convert_bundle(
        bundle.folder, conversion_rules, options.precisions, "direct", calibration, progress, runtimes=runtimes
    )


def _report(
    bundle: Bundle,
    parity: ParityReport,
    bench: BenchResult | None,
    steps: _Steps,
    threads: int,
    progress: Progress,
) -> Path:
    evidence = gather(bundle, parity, (), threads, bench, (), progress, steps.failed.get("bench"))
    progress("writing the report")
    path = bundle.folder / REPORT
    write_page(evidence, path)
    return path
