"""The other ways to lower an imported graph, for a graph whose usual way fails: less preparation, then the other route.

The usual way is the graph of the bundle, rewritten by every pass of the stage "lowering", through onnx2tf alone.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from backends.errors import InvalidInput, NotAvailable
from backends.sandbox import SandboxProcess
from graphs.onnx.sizes import infer_shapes
from graphs.onnx.source import is_there, read_again
from graphs.passes.pipeline import prepare
from graphs.passes.registry import GraphPass, passes
from graphs.passes.simplify import steps_with
from toolkit.convert.calibration import Calibrated
from toolkit.convert.converter import ConverterStopped
from toolkit.convert.direct import convert_direct
from toolkit.convert.job import Job
from toolkit.convert.outcome import Attempts, Key
from toolkit.convert.parts import SCRIPT, Fault, Parts
from toolkit.convert.preflight import UnsupportedOperators
from toolkit.convert.refused import ADVICE
from toolkit.convert.resume import Steps
from toolkit.convert.slices import CutGraph, cut_graph, fixed_graph, rewrite_graph

_FP32: Key = ("tflite", "fp32")
_SHOWN = 3
# Errors with which every way would end.
_HOPELESS = (ConverterStopped, NotAvailable, InvalidInput, OSError, MemoryError)


@dataclass(frozen=True)
class Way:
    """A way to lower a graph. said: what is left out or done otherwise, such as "without the pass scale_elu".

    read: reads the graph. steps: the passes that rewrite it. route: one of backends.recipe.ROUTES. nearer: ways with
    more preparation, which are tried only if this way is right.
    """

    said: str
    read: Callable[[], ir.Model]
    steps: tuple[GraphPass, ...] = ()
    route: str = "direct"
    nearer: tuple["Way", ...] = ()


@dataclass(frozen=True)
class Lowering:
    """The arguments of one conversion that every way shares. cut: cuts a graph, for a route, into slices."""

    job: Job
    cut: Callable[[ir.Model, str], CutGraph]
    limit_bytes: int
    precisions: Sequence[str]
    calibrated: Calibrated | None

    def by(self, way: Way, number: int, before: Attempts) -> Attempts:
        """Lower the graph in one way, in a folder of its own. Returns `before` with the results."""
        self.job.progress(f"trying again {way.said}")
        job = replace(self.job, folder=self.job.folder / f"way-{number}")
        shutil.rmtree(job.folder, ignore_errors=True)  # of an interrupted conversion
        job.folder.mkdir()
        attempts = before.copy()
        attempts.way = way.said
        with attempts.guard([("tflite", precision) for precision in self.precisions]):
            model, _ = rewrite_graph(way.read(), self.limit_bytes, way.steps)
            pieces = self.cut(model, way.route)
            convert_direct(job, Steps(job.folder), pieces, self.precisions, self.calibrated, attempts)
        if attempts.error(_FP32) is not None:
            shutil.rmtree(job.folder)
        return attempts

    def in_parts(self, failed: Attempts, before: Attempts) -> Attempts | None:
        """Lower the graph in parts, with the operators that are to blame by the other route. Returns `before` with the
        results, or None: then the reason of `failed` has the operators that neither route lowers."""
        job = replace(self.job, folder=self.job.folder / "way-parts")
        shutil.rmtree(job.folder, ignore_errors=True)  # of an interrupted conversion
        job.folder.mkdir()
        attempts = before.copy()
        try:
            model, _ = rewrite_graph(fixed_graph(job.reference.path), self.limit_bytes)
            cut = cut_graph(model, self.limit_bytes)
            if len(cut.slices) > 1:
                return None  # a graph of gigabytes, whose values are not held at once
            parts = Parts(job, cut)
            found = parts.narrow()
            if found.faults:
                failed.explain(_FP32, _advice(job, parts, found.faults))
                return None
            other = " and ".join(found.other_route)
            attempts.way = f"with {other} by TensorFlow's converter" if other else f"in {len(found.cut.slices)} parts"
        except Exception as error:  # noqa: BLE001  the search serves a file that has failed already
            failed.note("the operators to blame were not found", error)
            return None
        finally:
            if attempts.way is None:
                shutil.rmtree(job.folder)
        with attempts.guard([("tflite", precision) for precision in self.precisions]):
            convert_direct(job, Steps(job.folder), found.cut, self.precisions, self.calibrated, attempts)
        return attempts if attempts.error(_FP32) is None else None


def _advice(job: Job, parts: Parts, faults: Sequence[Fault]) -> str:
    """Return the operators that neither route lowers, where the smallest graph that fails is, and the way on."""
    named = "; ".join(f"{fault.node}: {fault.why}" for fault in faults[:_SHOWN])
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    folder = parts.write_repro(faults[0])
    shown = "" if folder is None else f"; `python {folder / SCRIPT}` runs {faults[0].node} alone"
    return (
        f"neither route lowers {named}{more}{shown}; `toolkit convert {job.bundle.folder} --runtime ort` makes the "
        "files for ONNX Runtime"
    )


def lower_otherwise(lowering: Lowering, failed: Attempts, before: Attempts) -> Attempts:
    """Lower a graph in other ways until the float32 file of one is right; the other precisions are made of that file.

    failed: the attempts of the usual way. before: the attempts before it. Returns the attempts of the first way whose
    float32 file is right, with a note that says why it was taken, or else `failed`, whose reasons then say which ways
    were tried. An error that every way would end with, such as a missing converter, is left as it is.
    """
    first, job = failed.error(_FP32), lowering.job
    if first is None or (isinstance(first, _HOPELESS) and not isinstance(first, UnsupportedOperators)):
        return failed
    tried: list[str] = []
    found: Attempts | None = None
    error: Exception | None = first
    waiting = list(other_ways(job))
    if isinstance(first, UnsupportedOperators):  # less preparation brings no operator
        waiting = [way for way in waiting if way.route != "direct"][:1]
    while waiting:
        way = waiting.pop(0)
        attempts = lowering.by(way, len(tried), before)
        tried.append(way.said)
        error = attempts.error(_FP32)
        if error is None:
            found = attempts
            waiting = list(way.nearer)
            if not waiting:
                break
        if isinstance(error, ConverterStopped):
            break
    if found is None and not isinstance(error, ConverterStopped):
        found = lowering.in_parts(failed, before)
    if found is None:
        if tried:
            failed.explain(_FP32, f"it fails as well {', '.join(tried)}")
        return failed
    why = str(failed.why(_FP32)).removeprefix(f"{job.reference.path}: ").removesuffix(f"; {ADVICE}")
    found.notes.append(f"{job.reference.artifact.file}: lowered {found.way}, because otherwise {why}")
    return found


def other_ways(job: Job) -> Iterator[Way]:
    """Yield the ways to lower the graph of a job after the usual one, those with the most preparation first.

    Some ways begin with the graph as it was imported: they are for a bundle whose source is still in its place.
    """
    usual = passes("lowering")

    def prepared() -> ir.Model:
        return fixed_graph(job.reference.path)

    changed = _changing(prepared, usual)
    for name in changed:
        yield Way(f"without the pass {name}", prepared, tuple(step for step in usual if step.name != name))
    if len(changed) > 1:
        yield Way("without the passes of the lowering", prepared)
    imported = partial(read_again, job.bundle) if is_there(job.bundle) else None
    if imported is not None:
        nearer = tuple(_nearer(imported, usual, job.trial))
        yield Way("without the passes of the import", imported, usual, nearer=nearer)
        yield Way("as imported", imported)
    yield Way("by TensorFlow's converter (--route tf)", prepared, route="tf")
    if imported is not None:
        yield Way("as imported, by TensorFlow's converter", imported, route="tf")


def _nearer(imported: Callable[[], ir.Model], usual: tuple[GraphPass, ...], child: SandboxProcess) -> Iterator[Way]:
    """Yield a way for each pass of the import that changes the graph: that pass alone is left out.

    child: the process in which onnxsim runs.
    """
    steps = tuple(steps_with(child))
    for name in _changing(imported, steps):
        kept = tuple(step for step in steps if step.name != name)

        def prepared(kept: tuple[GraphPass, ...] = kept) -> ir.Model:
            return infer_shapes(prepare(imported(), {}, kept, stepwise=False)[0])

        yield Way(f"without the pass {name}", prepared, usual)


def _changing(graph: Callable[[], ir.Model], steps: tuple[GraphPass, ...]) -> tuple[str, ...]:
    """Return the names of the passes that change a graph; all of them if a pass cannot rewrite it."""
    try:
        _, changed = prepare(graph(), {}, steps, stepwise=False)
    except Exception:  # noqa: BLE001  a graph of any origin may make a pass raise anything
        return tuple(step.name for step in steps)
    return tuple(step.name for step in steps if step.name in changed)
