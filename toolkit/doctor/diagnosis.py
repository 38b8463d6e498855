"""The diagnosis of `toolkit doctor`: runtimes, optional packages, the converter, and room for the models.

Everything that may fail in unknown ways is tried in a child process with a deadline. A part that fails, hangs or ends
its process becomes one line of advice, and the other parts are tried all the same.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from backends.bundle import Bundle, Progress
from backends.errors import NotAvailable, one_line
from backends.machine import Machine, free_bytes, free_disk_bytes
from backends.plugins import Registry
from backends.precision import INT8, RECIPES, USUAL
from backends.registry import BACKENDS
from backends.sandbox import SandboxProcess
from toolkit import environments
from toolkit.contract import find_shipped
from toolkit.convert.converter import ConversionFailed, run_worker
from toolkit.doctor.runtimes import BROKEN, MISSING, MODEL, WORKS, Check, Trial, attempt, check_backends

PART_TIMEOUT_S = 120.0
CONVERTER_TIMEOUT_S = 180.0
# Weights in memory over the weights of the largest graph: the graph once, and the runtime's packed copy. Measured on
# ChunkySeal, whose detector has 3.1 GB: at most 5.6 GB in any process.
_MEMORY_COPIES = 2


@dataclass(frozen=True)
class Needs:
    """The bytes that a model needs: of weights, of disk to export and convert it, and of memory to do so and to run."""

    model: str
    weight_bytes: int
    disk_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class Diagnosis:
    """The result of all checks. folder: the folder of bundles, on whose disk free_disk_bytes are free.

    trials: of the files of the model `shipped`.
    """

    machine: Machine
    folder: Path
    free_disk_bytes: int
    free_memory_bytes: int
    checks: tuple[Check, ...]
    trials: tuple[Trial, ...] = ()
    models: tuple[Needs, ...] = ()
    shipped: str = MODEL

    @property
    def exit_code(self) -> int:
        """1 if a part is broken, which includes that no runtime runs the shipped model; else 0."""
        return int(any(check.state == BROKEN for check in self.checks))

    @property
    def untried(self) -> tuple[str, ...]:
        """The precisions of which the shipped model has no file, in the order of RECIPES."""
        tried = {trial.precision for trial in self.trials}
        recipes = sorted(RECIPES.registry.installed(), key=lambda recipe: (recipe.rank, recipe.name))
        return tuple(recipe.name for recipe in recipes if recipe.name not in tried)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self) | {
            "machine": self.machine.to_json(),
            "folder": str(self.folder),
            "untried": list(self.untried),
            "exit_code": self.exit_code,
        }


def diagnose(folder: Path = Path("build"), progress: Progress = lambda step: None) -> Diagnosis:
    """Try every part, and return what works and what does not. Takes some seconds, most for torch and the converter."""
    machine = Machine.here()
    try:
        with tempfile.TemporaryDirectory() as name, SandboxProcess(Path(name) / "log", PART_TIMEOUT_S) as sandbox:
            checks, trials = check_backends(sandbox, progress)
            checks += [*_extras(sandbox, progress), *sandbox.call(check_plugins)]
            progress("asking the converter to convert a small graph")
            checks.append(check_converter(sandbox, Path(name)))
            progress("counting the weights of the models")
            models: tuple[Needs, ...] = ()
            try:
                models = sandbox.call(needs_of_models)
            except Exception as error:  # noqa: BLE001  a broken package raises anything, and its own check tells so
                checks.append(Check("sizes of models", MISSING, "not known without these packages", one_line(error)))
    except OSError as error:
        advice = "make room there, or set TMPDIR to a folder on a disk that has room"
        checks, trials, models = [Check("temporary folder", BROKEN, one_line(error), advice)], (), ()
    disk, memory = free_disk_bytes(folder), free_bytes()
    return Diagnosis(machine, folder, disk, memory, (*checks, *_room(folder, disk, memory, models)), trials, models)


def _extras(sandbox: SandboxProcess, progress: Progress) -> list[Check]:
    """Import the packages of every extra that is not a backend's own."""
    checks = []
    for extra in sorted(environments.PACKAGES.keys() - set(BACKENDS.names)):
        progress(f"importing the packages of {extra}")
        found = attempt(f"packages of {extra}", partial(sandbox.call, import_extra, extra))
        checks.append(found if isinstance(found, Check) else Check(f"packages of {extra}", WORKS, found))
    return checks


def import_extra(extra: str) -> str:
    """Import the packages of an extra, and return their versions. Called in a child process.

    Raises NotInstalled with the command that installs the missing ones, NotAvailable for one that fails.
    """
    environments.need(extra)
    versions = []
    for module in environments.PACKAGES[extra]:
        package = module.replace("_", "-")
        try:
            import_module(module)
        except Exception as error:
            again = f"install it again with `pip install --force-reinstall {package}`"
            raise NotAvailable(f"{package} fails: {type(error).__name__}: {one_line(error)}; {again}") from error
        versions.append(f"{package} {version(package)}")
    return ", ".join(versions)


def check_plugins() -> list[Check]:
    """Load every registered precision, kind of model and judge. Return a check for each that fails.

    Called in a child process.
    """
    from toolkit.metrics.task import JUDGES
    from toolkit.models.kind import KINDS

    registries: dict[str, Registry[Any]] = {"precision": RECIPES.registry, "kind": KINDS, "judge": JUDGES}
    found = []
    for kind, registry in registries.items():
        for name in registry.names:
            tried = attempt(f"{kind} {name}", partial(registry.load, name))
            if isinstance(tried, Check):
                found.append(tried)
    return found


def check_converter(sandbox: SandboxProcess, folder: Path, timeout_s: float = CONVERTER_TIMEOUT_S) -> Check:
    """Lower a graph of one matrix product to TFLite and quantize it in the converter's environment.

    sandbox: writes the graph. folder: an empty folder for temporary files. timeout_s: for each of the two steps.
    """
    part, named = "converter", os.environ.get(environments.CONVERTER_VARIABLE)
    place = environments.default_folder()
    try:
        python = environments.converter_python()
    except NotAvailable as error:
        state = BROKEN if named or place.exists() else MISSING
        return Check(part, state, "cannot be used" if state == BROKEN else "not installed", one_line(error))
    model, log = folder / "small.onnx", folder / "converter.log"
    try:
        sandbox.call(write_small_graph, model)
    except Exception as error:  # noqa: BLE001  a package that is broken raises anything, and its own check tells so
        return Check(part, MISSING, "not tried, because onnx cannot write a graph", one_line(error))
    repair = (
        f"install the packages of {Path(environments.__file__).with_name('convert.lock')} for {python}"
        if named
        else f"remove {place} and run `toolkit setup-converter`"
    )
    try:
        lowered = run_worker({"task": "lower", "models": {"small": str(model)}}, folder, log, timeout_s, _quiet)
        request = {
            "task": "quantize", "models": {"small": str(lowered.files["small"])}, "calibration": {}, "in_float": {},
            "recipes": {INT8.name: INT8.to_worker()}, "float_activations": {},
        }  # fmt: skip
        quantized = run_worker(request, folder, log, timeout_s, _quiet)
    except ConversionFailed as error:
        said = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        reason = str(error).partition("; its last lines")[0]
        return Check(part, BROKEN, f"{reason}{': ' + said[-1] if said else ''}", repair)
    if quantized.failed:
        return Check(part, BROKEN, f"cannot quantize: {next(iter(quantized.failed.values()))}", repair)
    tools = ", ".join(f"{name} {release}" for name, release in {**lowered.tools, **quantized.tools}.items())
    return Check(part, WORKS, f"{tools}; converted a small graph")


def _quiet(step: str) -> None:
    pass


def write_small_graph(path: Path) -> None:
    """Write an ONNX graph of one matrix product, from (1, 8) to (1, 8) float32. Called in a child process.

    Raises NotInstalled without onnx.
    """
    environments.need("export")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
    weights = numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "small", values[:1], values[1:], [weights]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def needs_of_models() -> tuple[Needs, ...]:
    """Return what each model of `toolkit models` needs, by the sizes of its weights. Called in a child process.

    Raises NotInstalled without the packages that count the weights.
    """
    environments.need("export", "tflite")
    from toolkit.convert.preflight import conversion_bytes
    from toolkit.convert.slices import DEFAULT_LIMIT_BYTES
    from toolkit.export import export_bytes
    from toolkit.models.kind import all_models, find_kind

    found = []
    for spec in all_models().values():
        sizes = {graph.role: sum(like.nbytes for like in graph.expected_state().values()) for graph in spec.graphs}
        lowered = [sizes[role] for role in find_kind(spec.description["kind"]).lowered_roles(spec.roles)]
        piece = min(max(lowered), DEFAULT_LIMIT_BYTES)
        disk = export_bytes(spec) + conversion_bytes(sum(lowered), piece, USUAL)
        weights = sum(like.nbytes for like in spec.expected_state().values())
        found.append(Needs(spec.name, weights, disk, _MEMORY_COPIES * max(sizes.values())))
    return tuple(found)


def _room(folder: Path, free_disk: int, free_memory: int, models: Sequence[Needs]) -> list[Check]:
    """Check the disk and the memory against the needs of the models; without any, the disk for the shipped bundle."""
    least = sum(artifact.bytes for artifact in Bundle.open(find_shipped()).artifacts)
    needs = {
        "disk": (free_disk, {model.model: model.disk_bytes for model in models} or {MODEL: least}),
        "memory": (free_memory, {model.model: model.memory_bytes for model in models} or {MODEL: least}),
    }
    checks = []
    for part, (free, wanted) in needs.items():
        large = {name: need for name, need in wanted.items() if need > free}
        detail = f"{free / 1e9:.1f} GB free" + (f" on the disk of {folder}" if part == "disk" else "")
        if not large:
            checks.append(Check(part, WORKS, detail))
            continue
        state = BROKEN if len(large) == len(wanted) else MISSING
        advice = f"free some {part} for {', '.join(large)}: up to {max(large.values()) / 1e9:.1f} GB are needed"
        checks.append(Check(part, state, detail, advice))
    return checks
