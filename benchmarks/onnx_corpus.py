"""The graphs that the onnx package tests its backends with: imported, converted to TFLite, and compared, each of them.

    python -m benchmarks.onnx_corpus [--only TEXT] [--json FILE]

Every graph goes the way of a user's: `toolkit import`, `convert` and `compare`, in a process of its own, so that one
that crashes or hangs ends that graph's turn. Sizes that a file leaves open are those of the test's own data
(`--input-shape`). Where a graph does not come through, and has further inputs, it gets a second turn with these as
constants of the test's data (`--input-value`), which is what they are in a network: kernels, shapes, axes.
Interrupted, and started again with the same code, it goes on where it stopped.
"""

import hashlib
import json
import multiprocessing
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import backends
import graphs
import toolkit
from backends.errors import ToolkitError
from backends.machine import describe
from backends.sandbox import how_it_ended
from benchmarks.converter_server import Server
from benchmarks.onnx_corpus_table import summarize, table
from toolkit.bench.rounds import ResumeLog
from toolkit.convert import job
from toolkit.convert import preflight as support
from toolkit.convert.pipeline import convert_bundle
from toolkit.environments import converter_python, lock_text
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle
from toolkit.parity.report import FileReport

PRECISIONS = ("fp32", "fp16", "int8")
TIMEOUT_S = 600.0
OUT = Path(__file__).parent / "results" / "onnx-corpus.json"
_UNFINISHED = Path("build") / "onnx-corpus.jsonl"
_FORK = multiprocessing.get_context("fork")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One graph. load: the model, and what its first data set feeds it, by input."""

    group: str
    name: str
    load: Callable[[], tuple[onnx.ModelProto, Arrays]]


def cases() -> Iterator[Case]:
    """Every graph of the installed onnx package, by group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the tests' own arithmetic
        for group in ("node", "simple", "pytorch-converted", "pytorch-operator"):
            for test in load_model_tests(kind=group):
                yield Case(group, test.name, lambda test=test: _loaded(test))
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for path in sorted(light.glob("*.onnx")):
        yield Case("light", path.stem, lambda path=path: (onnx.load(path), {}))


def _loaded(test: Any) -> tuple[onnx.ModelProto, Arrays]:
    folder = Path(test.model_dir) if test.model_dir else None
    model = test.model if folder is None else onnx.load(folder / "model.onnx")
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in constants]
    if test.data_sets:
        given = list(test.data_sets[0][0])
    elif folder is not None:
        files = sorted(folder.glob("test_data_set_0/input_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
        given = [_tensor(path) for path in files]
    else:
        given = []
    return model, {name: value for name, value in zip(names, given, strict=False) if isinstance(value, np.ndarray)}


def _tensor(path: Path) -> np.ndarray | None:
    try:
        return numpy_helper.to_array(onnx.load_tensor(path))
    except Exception:  # noqa: BLE001  a sequence, or an optional value: no tensor
        return None


def run_case(case: Case, folder: Path, server: Server, say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Import, convert and compare one graph, a second time with constants where the first does not come through."""
    job.run_worker = server.run_worker
    model, data = case.load()
    versions = {entry.domain: entry.version for entry in model.opset_import}
    row: dict[str, Any] = {
        "group": case.group,
        "name": case.name,
        "opset": versions.get("", versions.get("ai.onnx")),
        "operators": sorted({node.op_type for node in model.graph.node}),
    }
    first = _turn(model, folder / "1", _open_sizes(model, data), {}, lambda stage: say(row | {"stage": stage}))
    further = {n: v for n, v in list(data.items())[1:] if v.size and v.dtype.kind in "fiub"}
    if first["passed"] or not further:
        return row | first
    row["constants"] = sorted(further)
    shapes = {name: sizes for name, sizes in _open_sizes(model, data).items() if name not in further}
    second = _turn(model, folder / "2", shapes, further, lambda stage: say(row | {"stage": stage}))
    if second["passed"] or second["stage"] != "import":
        return row | second
    del row["constants"]
    return row | first


def _open_sizes(model: onnx.ModelProto, data: Arrays) -> dict[str, tuple[int, ...]]:
    open_ = {}
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if value.name in data and any(not size.HasField("dim_value") for size in sizes):
            open_[value.name] = data[value.name].shape
    return open_


def _turn(
    model: onnx.ModelProto,
    folder: Path,
    shapes: dict[str, tuple[int, ...]],
    constants: Arrays,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What came of it. What failed is a stage and the tool's own line."""
    stage, notes = "import", []
    row: dict[str, Any] = {}
    folder.mkdir()
    try:
        say(stage)
        onnx.save(model, folder / "source.onnx")
        bundle = import_model(folder / "source.onnx", folder / "bundle", shapes, values=constants, note=notes.append)
        if notes:
            row["notes"] = [_shortened(note, folder) for note in notes]
        stage = "convert"
        say(stage)
        row["quantized"] = _convert(bundle.folder)
        stage = "compare"
        say(stage)
        report = compare_bundle(type(bundle).open(bundle.folder))
        (role,) = report.roles
        row["samples"] = sum(role.samples.values())
        row["outside_domain"] = role.outside_domain
        row["files"] = {file.artifact.file.removeprefix("model."): _figures(file) for file in role.files}
        return row | {"stage": "done", "passed": report.passed}
    except ToolkitError as error:
        return row | {"stage": stage, "passed": False, "reason": _shortened(str(error), folder)}
    except Exception as error:  # noqa: BLE001  a fault of ours: it must stand in the table
        text = " ".join(str(error).split())
        return row | {"stage": stage, "passed": False, "reason": f"UNEXPECTED {type(error).__name__}: {text}"[:300]}


def _convert(folder: Path) -> str:
    """Every precision, or float32 alone where the others cannot be made: that is no failure of it."""
    try:
        convert_bundle(folder, conversion_rules, PRECISIONS)
    except ToolkitError as error:
        convert_bundle(folder, conversion_rules, PRECISIONS[:1])
        return _shortened(str(error), folder)
    return "done"


def _figures(file: FileReport) -> dict[str, Any]:
    outputs = {} if file.total is None else file.total.outputs
    errors = [error.relative_l2 for error in outputs.values() if not error.is_exact]
    return {
        "passed": file.passed,
        "relative_l2": None if not errors or None in errors else max(error for error in errors if error is not None),
        "max_abs": max((error.max_abs for error in outputs.values()), default=None),
        "failed": [str(check) for check in file.failures],
    }


def _shortened(text: str, folder: Path) -> str:
    text = re.sub(rf"{re.escape(str(folder.resolve()))}[\w/.-]*", "FILE", text)
    return " ".join(text.split())[:300]


def in_a_process(case: Case, server: Server) -> dict[str, Any]:
    """run_case, where what it says last stands if it dies or takes too long."""
    with tempfile.TemporaryDirectory() as name:
        reading, writing = _FORK.Pipe(duplex=False)
        process = _FORK.Process(target=_child, args=(case, Path(name), server, writing))
        process.start()
        writing.close()
        said: dict[str, Any] = {"group": case.group, "name": case.name, "stage": "loading"}
        end = time.monotonic() + TIMEOUT_S
        try:
            while "passed" not in said and reading.poll(max(0.0, end - time.monotonic())):
                said = reading.recv()
        except EOFError:  # it ended without its result
            process.join()
            return said | {"passed": False, "reason": f"the process {how_it_ended(process.exitcode or 0)}"}
        if "passed" not in said:
            said |= {"passed": False, "reason": f"took longer than {TIMEOUT_S:g} s"}
            process.kill()
        process.join()
        return said


def _child(case: Case, folder: Path, server: Server, writing: Connection) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    writing.send(run_case(case, folder, server, writing.send))


def _code() -> str:
    """Another one for other sources and other versions: what they gave is not to be mixed."""
    digest = hashlib.sha256(lock_text().encode())
    sources = [path for package in (backends, graphs, toolkit) for path in Path(package.__path__[0]).rglob("*.py")]
    for source in (Path(__file__), *sorted(sources)):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@click.command(help=__doc__)
@click.option("--only", help="Only names that contain this.")
@click.option("--json", "out", type=click.Path(path_type=Path), default=OUT)
def main(only: str | None, out: Path) -> None:
    every = list(cases())
    chosen = [case for case in every if only is None or only in case.name]
    _UNFINISHED.parent.mkdir(exist_ok=True)
    kept, rows = ResumeLog(_UNFINISHED, _code()), []
    server = Server(TIMEOUT_S / 2)
    support._ASKED[converter_python()] = support.supported_operators(Path(os.devnull))
    start = time.perf_counter()
    with Progress(console=Console(stderr=True)) as progress:
        for case in progress.track(chosen, description="graphs"):
            rows.append(row := kept.once(case.name, partial(in_a_process, case, server)))
            if row["stage"] != "done" and row["reason"].startswith(("the process", "took longer")):
                server.close()  # it may still be at work for that graph
                server = Server(TIMEOUT_S / 2)
    server.close()
    write(rows, len(every), round(time.perf_counter() - start), out)
    kept.close()


def write(rows: list[dict[str, Any]], of: int, seconds: int, out: Path) -> None:
    """The JSON, the Markdown beside it, and the outcomes on the terminal."""
    document = {"machine": describe(), "onnx": onnx.__version__, "graphs": len(rows), "of": of, "seconds": seconds}
    document["summary"] = summarize(rows)
    lines = ",\n".join(json.dumps(row) for row in rows)
    out.write_text(json.dumps(document, indent=1)[:-2] + f',\n "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    out.with_suffix(".md").write_text(table(document | {"rows": rows}), encoding="utf-8")
    shown = Table("group", "outcome", "graphs")
    for group, counts in document["summary"]["groups"].items():
        for outcome, count in sorted(counts.items()):
            shown.add_row(group, outcome, str(count))
    Console().print(shown)


if __name__ == "__main__":
    main()
