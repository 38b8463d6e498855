"""Advice on the files of a shipped model: a row for each file, and the one to take on each runtime."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import default_backend
from backends.timing import STEADY
from toolkit.bench.result import BenchResult, FileResult
from toolkit.convert.outcome import Conversion, FileOutcome
from toolkit.parity.report import FileReport, ParityReport

# The reference is the file that the others are compared with. A file that was not made has no other figures;
# it is impossible where its precision, which the user did not name, changes no weight.
Verdict = Literal["reference", "pass", "fail", "not judged", "not made", "impossible"]
_TAKEN: tuple[Verdict, ...] = ("pass", "reference")


@dataclass(frozen=True)
class ShippedFile:
    """A file of a shipped model with its verdict and figures.

    runtime: the title of its runtime. bytes: its size, external data included; None if it was not made. median_ms: of a
    run, in rounds with all files; None if it was not timed. speed: the time of the float32 file of its runtime over its
    own, 2.0 for half the time. noise: of its time, as a share. why: sentences on a file that is not made or fails.
    mostly_float: whether most of its weights stay in float32 although its precision is another.
    """

    file: str
    role: str
    runtime: str
    precision: str
    verdict: Verdict
    bytes: int | None = None
    median_ms: float | None = None
    speed: float | None = None
    noise: float | None = None
    why: tuple[str, ...] = ()
    mostly_float: bool = False


@dataclass(frozen=True)
class Choice:
    """The files to take for one graph on one runtime, out of those that pass.

    smallest, fastest: None if no file passes; fastest is None too if nothing was timed. A file counts as the fastest if
    no other is faster by more than the noise of both, and then the smallest such file. reason: the advice as text.
    """

    role: str
    runtime: str
    smallest: ShippedFile | None
    fastest: ShippedFile | None
    reason: str


def shipped_files(
    bundle: Bundle, conversion: Conversion | None, parity: ParityReport | None, bench: BenchResult | None
) -> tuple[ShippedFile, ...]:
    """Return every file of a bundle that a runtime without torch runs, then the files that could not be made.

    Any of the three results may be missing. Without a comparison, the verdict of a file is that of its conversion.
    """
    outcomes = {one.file: one for one in (conversion.outcomes if conversion else ())}
    reports = {file.name: file for role in (parity.roles if parity else ()) for file in role.files}
    references = {role.reference.file for role in (parity.roles if parity else ())}
    timed = {(one.role, one.name): one for one in (bench.files if bench else ())}
    found = []
    for artifact in (one for one in bundle.artifacts if one.format != "torch"):
        outcome, report = outcomes.get(artifact.file), reports.get(artifact.file)
        verdict, why = _verdict(artifact, outcome, report, references)
        time = timed.get((artifact.role, artifact.file))
        found.append(
            ShippedFile(
                file=artifact.file,
                role=artifact.role,
                runtime=default_backend(artifact.format).title,
                precision=artifact.precision,
                verdict=verdict,
                bytes=artifact.bytes,
                median_ms=None if time is None else time.timing.median_ms,
                speed=None if time is None else _speed(time, artifact, bundle, timed.values()),
                noise=None if time is None else time.timing.noise,
                why=why,
                mostly_float=outcome is not None and bool(outcome.mostly_float),
            )
        )
    there = {artifact.file for artifact in bundle.artifacts}
    missing = [one for one in outcomes.values() if not one.made and one.file not in there]
    return (
        *found,
        *(
            ShippedFile(
                one.file,
                one.role,
                default_backend(one.format).title,
                one.precision,
                "impossible" if one.impossible else "not made",
                why=(str(one.why),),
            )
            for one in missing
        ),
    )


def _verdict(
    artifact: Artifact, outcome: FileOutcome | None, report: FileReport | None, references: set[str]
) -> tuple[Verdict, tuple[str, ...]]:
    if report is not None:
        return ("pass" if report.passed else "fail"), tuple(str(check) for check in report.failures)
    if artifact.file in references or artifact.parent is None:
        return "reference", ()
    if outcome is None:
        return "not judged", ()
    return ("fail" if outcome.over else "pass"), outcome.over


def _speed(time: FileResult, artifact: Artifact, bundle: Bundle, timed: Iterable[FileResult]) -> float | None:
    """Return the time of the float32 file of the same graph, format and route over that of a file."""
    wanted = (artifact.role, artifact.format, "fp32", artifact.route)
    names = {a.file for a in bundle.artifacts if (a.role, a.format, a.precision, a.route) == wanted}
    base = [one for one in timed if one.role == artifact.role and one.name in names]
    return base[0].of_reference / time.of_reference if base else None


def choices(files: Sequence[ShippedFile]) -> tuple[Choice, ...]:
    """Return the advice for each graph on each runtime, in the order of the files."""
    pairs = dict.fromkeys((file.role, file.runtime) for file in files)
    return tuple(
        _choice(role, runtime, [file for file in files if (file.role, file.runtime) == (role, runtime)])
        for role, runtime in pairs
    )


def _choice(role: str, runtime: str, files: Sequence[ShippedFile]) -> Choice:
    passing = [file for file in files if file.verdict in _TAKEN]
    if not passing:
        return Choice(role, runtime, None, None, f"{runtime}: no file passes")
    honest = [file for file in passing if not file.mostly_float] or passing
    smallest = min(honest, key=_size)
    timed = [file for file in passing if file.median_ms is not None]
    fastest = min((file for file in timed if not any(_faster(other, file) for other in timed)), key=_size, default=None)
    base = next((file for file in files if file.precision == "fp32" and file.bytes), None)
    alone = all(file is fastest or (fastest is not None and _faster(fastest, file)) for file in timed)
    return Choice(role, runtime, smallest, fastest, _reason(smallest, fastest, alone, base))


def _size(file: ShippedFile) -> int:
    return file.bytes or 0


def _faster(one: ShippedFile, other: ShippedFile) -> bool:
    """Return whether a file is faster than another by more than the noise of both, at least STEADY."""
    noise = max(one.noise or 0.0, other.noise or 0.0, STEADY)
    return (one.median_ms or 0.0) * (1 + noise) < (other.median_ms or 0.0)


def _reason(smallest: ShippedFile, fastest: ShippedFile | None, alone: bool, base: ShippedFile | None) -> str:
    """Return the advice as text. alone: whether the fastest is faster than every other file. base: the float32 file."""
    quick = "the fastest that passes" if alone else "as fast as any that passes"
    text = f"{smallest.runtime}: take {smallest.file}: the smallest that passes"
    if smallest == fastest:
        return f"{text}, and {quick}{_figures(smallest, base)}"
    text += _figures(smallest, base)
    return text if fastest is None else f"{text}; or {fastest.file}: {quick}{_figures(fastest, base)}"


def _figures(file: ShippedFile, base: ShippedFile | None) -> str:
    """Return the size and the speed of a file beside the float32 file of its runtime."""
    size = _size(file) / 1e6
    if base is None or base is file:
        return f" ({size:.2f} MB{', the float32 file' if base is file else ''})"
    speed = "" if file.speed is None else f", {file.speed:.2f}x the speed"
    return f" ({size:.2f} of {_size(base) / 1e6:.2f} MB{speed} of float32)"
