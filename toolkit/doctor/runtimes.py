"""The runtimes on this machine: every file of the shipped model on every backend, compared with float32 and timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from backends.bundle import Bundle, Progress
from backends.errors import NotAvailable, NotInstalled, ToolkitError, one_line
from backends.machine import default_threads
from backends.precision import RECIPES
from backends.registry import BACKENDS, target_name
from backends.sandbox import SandboxDied, SandboxLate, SandboxProcess
from backends.tensor import Array
from backends.timing import Rounds
from toolkit.bench.rounds import measure_rows
from toolkit.bench.together import BenchTarget, target_row
from toolkit.contract import find_shipped
from toolkit.metrics.error import noise_to_signal

Result = TypeVar("Result")

# missing: never installed, or too little room; it costs only the commands that need it. broken: it is there and fails.
WORKS, MISSING, BROKEN = "works", "missing", "broken"

MODEL, ROLE = "pocketseal", "detector"
# A second in all, for the files of the shipped model; one round on a machine that is very busy.
ROUNDS = Rounds(1.0, warm_ups=1, least=1, until_steady=False)


@dataclass(frozen=True)
class Check:
    """The state of one part: WORKS, MISSING or BROKEN. detail: versions, or the reason. advice: what to do, or ""."""

    part: str
    state: str
    detail: str
    advice: str = ""


@dataclass(frozen=True)
class Trial:
    """A file of the shipped model on a backend.

    state: WORKS; MISSING if the backend refuses it on this machine; BROKEN if it fails or gives other outputs than
    float32. why: the reason, or "". median_ms: the milliseconds of a run; None if it does not run.
    """

    backend: str
    precision: str
    file: str
    state: str
    why: str = ""
    median_ms: float | None = None


@dataclass(frozen=True)
class TriedBackend:
    """The result of a child process for one backend. rank: of its spec. detail: the runtime's version.

    targets, trials, outputs: by the name of the target; outputs only of those that work.
    """

    rank: int
    detail: str
    targets: dict[str, BenchTarget]
    trials: dict[str, Trial]
    outputs: dict[str, dict[str, Array]]


def check_backends(sandbox: SandboxProcess, progress: Progress) -> tuple[list[Check], tuple[Trial, ...]]:
    """Try every registered backend on the files of the shipped model, then time the files that work side by side."""
    bundle, threads = Bundle.open(find_shipped()), default_threads()
    checks: list[Check] = []
    tried: dict[str, TriedBackend] = {}
    for name in BACKENDS.names:
        progress(f"trying {name}")
        found = attempt(f"runtime {name}", partial(sandbox.call, try_backend, bundle, name, threads))
        if isinstance(found, Check):
            checks.append(found)
        else:
            tried[name] = found
    trials = _judged(tried)
    targets = {name: target for one in tried.values() for name, target in one.targets.items()}
    working = [target for name, target in targets.items() if trials[name].state == WORKS]
    progress("timing the runtimes side by side")
    try:
        for name, median_ms in sandbox.call(time_targets, working, threads).items():
            trials[name] = replace(trials[name], median_ms=median_ms)
    except SandboxLate as late:
        checks.append(Check("timing", MISSING, f"it {late}", "try it again when the machine has less other work"))
    except (ToolkitError, SandboxDied) as error:
        checks.append(Check("timing", BROKEN, one_line(error), "run `toolkit bench` to see which runtime fails"))
    for name, one in tried.items():
        failed = [trial for trial in trials.values() if trial.backend == name and trial.state == BROKEN]
        advice = f"install it again: {failed[0].file}: {failed[0].why}" if failed else ""
        checks.append(Check(f"runtime {name}", BROKEN if failed else WORKS, one.detail, advice))
    if not working:
        detail = f"no runtime that is installed runs {MODEL}"
        checks.append(Check("toolkit run", BROKEN, detail, "install one of the runtimes"))
    return sorted(checks, key=lambda check: check.part), tuple(trials.values())


def attempt(part: str, work: Callable[[], Result]) -> Result | Check:
    """Do the work of a part in a child. Return its result, or what to say if the part is missing or broken."""
    try:
        return work()
    except NotInstalled as error:
        return Check(part, MISSING, "not installed", one_line(error))
    except NotAvailable as error:
        return Check(part, BROKEN, "fails while it is loaded", one_line(error))
    except SandboxDied as died:
        return Check(part, BROKEN, f"its process {died}", "install it again, or uninstall it")


def try_backend(bundle: Bundle, name: str, threads: int) -> TriedBackend:
    """Load one backend and no other, and run every file of the shipped model that `compare` runs on it, once.

    Called in a child process. Raises the errors of BACKENDS.load.
    """
    spec = BACKENDS.load(name)
    files = [one for one in bundle.artifacts if spec.compared and one.role == ROLE]
    # Precisions that this machine's processor cannot run are among them, so that the reason is told.
    named = {target_name(one, name): one for file in files for one in spec.in_every_precision(file)}
    targets = {key: BenchTarget(key, bundle, one, name) for key, one in named.items()}
    trials: dict[str, Trial] = {}
    outputs: dict[str, dict[str, Array]] = {}
    for key, target in targets.items():
        trial = Trial(name, target.artifact.precision, target.artifact.file, WORKS)
        try:
            with target.open(threads) as session:
                outputs[key] = session.run(_feeds(bundle))
        except NotAvailable as error:
            trial = replace(trial, state=MISSING, why=one_line(error))  # such as a processor without bf16
        except Exception as error:  # noqa: BLE001  a runtime fails with errors of any class
            trial = replace(trial, state=BROKEN, why=one_line(error))
        trials[key] = trial
    try:
        detail = f"{spec.package} {version(spec.package)}"
    except PackageNotFoundError:
        detail = spec.title
    if not targets:
        detail += "; loaded, and not tried: it is only timed by `toolkit bench --peers`"
    return TriedBackend(spec.rank, detail, targets, trials, outputs)


def _feeds(bundle: Bundle) -> dict[str, Array]:
    """Return inputs made of a photograph that ships with the package."""
    from toolkit.images.samples import shipped_photographs
    from toolkit.models.kind import kind_of

    _, feeds = next(iter(kind_of(bundle).feeds(bundle, ROLE, shipped_photographs())))
    return feeds


def _judged(tried: dict[str, TriedBackend]) -> dict[str, Trial]:
    """Return the trials by target. Those with other outputs than float32 on the runtime of the lowest rank are broken.

    The limit is the one that tells a fault from rounding, Recipe.limits["binding_error"].
    """
    trials = {name: trial for one in tried.values() for name, trial in one.trials.items()}
    ranked = [outputs for one in sorted(tried.values(), key=lambda one: one.rank) for outputs in one.outputs.items()]
    expected = next((outputs for name, outputs in ranked if trials[name].precision == "fp32"), None)
    for name, outputs in ranked:
        if expected is not None:
            limit = RECIPES[trials[name].precision].limit("binding_error")
            error = max(noise_to_signal([outputs[key]], [value], 0.0) for key, value in expected.items())
            if not error <= limit:
                why = f"its outputs differ from float32 by {error:.2g} of their size, expected at most {limit:g}"
                trials[name] = replace(trials[name], state=BROKEN, why=why)
    return trials


def time_targets(targets: Sequence[BenchTarget], threads: int) -> dict[str, float]:
    """Return the median milliseconds of targets by name, timed in the same rounds. Called in a child process."""
    rows = [target_row(target, threads) for target in targets]
    measured = measure_rows(rows, ROUNDS).measured if rows else {}
    return {name: row.timing.median_ms for name, row in measured.items()}
