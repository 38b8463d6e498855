"""Throughput: runs a second of several sessions at once, and images a second of one session with a larger batch."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import NotAvailable, ToolkitError, one_line
from backends.precision import RECIPES
from backends.session import Session
from backends.tensor import Array
from backends.timing import Rounds
from toolkit.bench.result import Batch, Streams
from toolkit.bench.rounds import fits_memory, measure_rows
from toolkit.bench.together import BenchTarget, target_row, timing_feeds
from toolkit.models.kind import find_kind, find_model
from toolkit.parity.agreement import conversion_rules


def throughput(target: BenchTarget, threads: int, seconds: float) -> tuple[Streams, ...]:
    """Measure a file in 1, 2, 4, ... and `threads` streams for `seconds` each, as long as the sessions fit memory."""
    found = []
    for count in stream_counts(threads):
        if count > 1 and not fits_memory(count * target.artifact.bytes):
            break
        with ExitStack() as stack:
            sessions = [stack.enter_context(target.open(threads=1)) for _ in range(count)]
            found.append(Streams(count, runs_a_second(sessions, timing_feeds(target.bundle, target.artifact), seconds)))
    return tuple(found)


def stream_counts(threads: int) -> Iterator[int]:
    """Yield 1, 2, 4, ... and `threads` itself."""
    count = 1
    while count < threads:
        yield count
        count *= 2
    yield threads


def runs_a_second(sessions: Sequence[Session], feeds: dict[str, Array], seconds: float) -> float:
    """Return the total runs a second of sessions that run in parallel, each in its own thread, after a warm-up run."""
    counts = [0] * len(sessions)
    together = threading.Barrier(len(sessions) + 1)
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            sessions[index].run(feeds)
            together.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                sessions[index].run(feeds)
                counts[index] += 1
        except BaseException as error:  # noqa: BLE001  raised again below, in the calling thread
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(sessions))]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        together.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) / (time.perf_counter() - start)


# By role and file.
Batches = Mapping[tuple[str, str], Batch]


def at_batch(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    references: Mapping[str, Artifact],
    batch: int,
    folder: Path,
    source: Path | None,
    threads: int,
    time_limit_s: float,
    progress: Progress,
) -> Batches:
    """Make files with a batch of `batch` images in the same way as `artifacts`, and measure their images a second.

    The files are made in the empty `folder`: graphs are exported again from the torch weights, or `source` is imported
    again if the bundle was imported. A file that cannot be made has a note in place of figures.
    """
    try:
        made = _graphs(bundle, batch, folder, source, {a.role for a in artifacts}, progress)
    except ToolkitError as error:
        return {(a.role, a.file): Batch(batch, None, None, None, one_line(error)) for a in artifacts}
    made, missing = _converted(made, artifacts, progress)
    found: dict[tuple[str, str], Batch] = {}
    for role, reference in references.items():
        likes = {a.file: like for a in artifacts if a.role == role and (like := _like(made, a)) is not None}
        rows = [target_row(replace(BenchTarget.of(made, like), name=file), threads) for file, like in likes.items()]
        if reference.file in likes:
            others = set(likes) - {reference.file}
            done = measure_rows(rows, Rounds(time_limit_s), reference.file, progress, others)
            for file, one in done.measured.items():
                median = one.timing.median_ms
                found[role, file] = Batch(batch, 1e3 * batch / median, median, one.timing.noise, "")
            missing |= {(role, file): why for file, why in done.failed.items()}
    for artifact in artifacts:
        key = (artifact.role, artifact.file)
        if key not in found:
            found[key] = Batch(batch, None, None, None, missing.get(key, "no file of this batch was made"))
    return found


def _like(made: Bundle, artifact: Artifact) -> Artifact | None:
    """Return the file of another bundle with an artifact's role, format, precision and route; None without one."""
    key = (artifact.role, artifact.format, artifact.precision, artifact.route)
    return next((a for a in made.artifacts if (a.role, a.format, a.precision, a.route) == key), None)


def _graphs(
    bundle: Bundle, batch: int, folder: Path, source: Path | None, roles: set[str], progress: Progress
) -> Bundle:
    """Return a bundle in `folder`/batch with the graphs of a batch size, exported or imported again.

    Raises NotAvailable without torch weights and, for an imported bundle, without `source`.
    """
    target = folder / "batch"
    if find_kind(bundle.model["kind"]).is_imported:
        return _imported(bundle, batch, target, source, progress)
    weights = {a.role: a for a in bundle.artifacts if a.format == "torch" and a.role in roles}
    if not weights:
        raise NotAvailable("needs the torch weights, which this bundle does not have")
    from safetensors.torch import load_file

    from graphs.checkpoint import Weights
    from toolkit.export import export_bundle

    spec = find_model(bundle.model["name"]).only(*weights)
    states = {role: load_file(bundle.verify(artifact)) for role, artifact in weights.items()}
    kept = Weights(bundle.weights.origin, bundle.weights.source, bundle.weights.sha256, states)
    return export_bundle(replace(spec, learned=()), kept, target, batch, progress)


def _imported(bundle: Bundle, batch: int, target: Path, source: Path | None, progress: Progress) -> Bundle:
    from graphs.onnx.source import cut_of, given_values
    from toolkit.import_model import ROLE, import_model

    if source is None:
        raise NotAvailable(f"needs the file that was imported, {bundle.weights.source}: give it with --source")
    graph = bundle.find(ROLE, "onnx", "fp32")
    shapes = {b.spec.name: (batch * b.spec.shape[0], *b.spec.shape[1:]) for b in graph.inputs}
    return import_model(source, target, shapes, progress, given_values(bundle), cut_at=cut_of(bundle))


def _converted(
    made: Bundle, artifacts: Sequence[Artifact], progress: Progress
) -> tuple[Bundle, dict[tuple[str, str], str]]:
    """Convert the bundle to the precisions of `artifacts`. Returns it, and by role and file why some are missing."""
    from toolkit.convert.calibration import Calibration
    from toolkit.convert.pipeline import convert_bundle

    missing: dict[tuple[str, str], str] = {}
    wanted = [artifact for artifact in artifacts if _like(made, artifact) is None]
    for key in dict.fromkeys(map(_conversion, wanted)):
        alike = [artifact for artifact in wanted if _conversion(artifact) == key]
        role, route, alone = key
        if alone and RECIPES[alone].keeps_layers:
            missing |= {(role, a.file): "its recipe names layers of the graph at batch 1" for a in alike}
            continue
        # Ranges of activations do not change the speed: calibrate on generated images.
        calibration = Calibration(None) if alone else None
        precisions = tuple(dict.fromkeys(artifact.precision for artifact in alike))
        try:
            made = convert_bundle(
                made.folder, conversion_rules, precisions, route, calibration, progress, roles=(role,), strict=True
            ).bundle
        except ToolkitError as error:
            missing |= {(artifact.role, artifact.file): one_line(error) for artifact in alike}
    return made, missing


def _conversion(artifact: Artifact) -> tuple[str, str, str]:
    """Return the key (role, route, precision or "") of the conversion that makes an artifact.

    Calibrated and mixed precisions are converted one at a time, because they may fail where others do not.
    """
    recipe = RECIPES[artifact.precision]
    alone = artifact.precision if recipe.calibrated or recipe.keeps_layers else ""
    return artifact.role, artifact.route or "direct", alone
