"""The graphs that the onnx package tests its backends with: each of them imported, converted to TFLite, and compared.

    python -m benchmarks.onnx_corpus [--only TEXT] [--json FILE]

Every graph goes the way of a user's: `toolkit import`, `convert` and `compare`, in a process of its own. Sizes that a
file leaves open are those of the test's own data (`--input-shape`). A graph that does not come through, and has further
inputs, gets a second turn with these as constants of the test's data (`--input-value`), as networks hold them: kernels,
shapes, axes. Interrupted, the same command goes on where it stopped.
"""

import json
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from backends.errors import ToolkitError
from backends.machine import describe
from backends.sandbox import SandboxDied, SandboxProcess
from toolkit.bench.rounds import ResumeLog
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle

PRECISIONS = ("fp32", "fp16", "int8")
TIMEOUT_S = 600.0
OUT = Path(__file__).parent / "results" / "onnx-corpus.json"
Arrays = dict[str, np.ndarray]


def cases() -> Iterator[tuple[str, str, onnx.ModelProto, Arrays]]:
    """Yield the group, the name, the model and the first data set of every graph of the installed onnx package."""
    for group in ("node", "simple", "pytorch-converted", "pytorch-operator"):
        for test in load_model_tests(kind=group):
            folder = test.model_dir and Path(test.model_dir)
            model = onnx.load(folder / "model.onnx") if folder else test.model
            assert model is not None
            held = {tensor.name for tensor in model.graph.initializer}
            names = [value.name for value in model.graph.input if value.name not in held]
            files = folder.glob("test_data_set_0/input_*.pb") if folder else ()
            read = [_array(path) for path in sorted(files, key=lambda path: int(path.stem.split("_")[1]))]
            given = list(test.data_sets[0][0]) if test.data_sets else read
            pairs = zip(names, given, strict=False)
            yield group, test.name, model, {name: one for name, one in pairs if isinstance(one, np.ndarray)}
    for path in sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx")):
        yield "light", path.stem, onnx.load(path), {}


def _array(path: Path) -> np.ndarray | None:
    try:
        return numpy_helper.to_array(onnx.load_tensor(path))
    except Exception:  # noqa: BLE001  a sequence or an optional value is not a tensor
        return None


def run_turn(source: Path, folder: Path, shapes: dict[str, tuple[int, ...]], constants: Arrays) -> dict[str, Any]:
    """Import, convert and compare a graph, and return the stage it reached with its files' failures, or the reason."""
    stage, row = "import", dict[str, Any]()
    try:
        bundle = import_model(source, folder, shapes, values=constants)
        stage = "convert"
        try:
            bundle = convert_bundle(folder, conversion_rules, PRECISIONS)
        except ToolkitError as error:  # other precisions may fail: try float32 alone
            bundle, row["quantized"] = convert_bundle(folder, conversion_rules, PRECISIONS[:1]), _short(error, folder)
        stage = "compare"
        report = compare_bundle(bundle)
        row["files"] = {file.artifact.file: [str(check) for check in file.failures] for file in report.roles[0].files}
        return row | {"stage": "done", "passed": report.passed}
    except ToolkitError as error:
        return row | {"stage": stage, "passed": False, "reason": _short(error, folder)}


def _short(error: Exception, folder: Path) -> str:
    return " ".join(re.sub(rf"{re.escape(str(folder.parent))}[\w/.-]*", "FILE", str(error)).split())[:300]


def run_case(model: onnx.ModelProto, data: Arrays, process: SandboxProcess) -> dict[str, Any]:
    """Run a graph in the child process; if it fails, run it again with its further inputs as constants."""
    from benchmarks.onnx_corpus import run_turn  # not from __main__, which the child cannot import

    dims = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    shapes = {n: v.shape for n, v in data.items() if any(not size.HasField("dim_value") for size in dims[n])}
    further = {n: v for n, v in list(data.items())[1:] if v.size and v.dtype.kind in "fiub"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(model, folder / "source.onnx")
        try:
            first = process.call(run_turn, folder / "source.onnx", folder / "1", shapes, {})
            if first["passed"] or not further:
                return first
            rest = {n: shape for n, shape in shapes.items() if n not in further}
            second = process.call(run_turn, folder / "source.onnx", folder / "2", rest, further)
        except SandboxDied as died:
            return {"stage": "a process of its own", "passed": False, "reason": str(died)}
        reached = second["passed"] or second["stage"] != "import"
        return second | {"constants": sorted(further)} if reached else first


@click.command(help=__doc__)
@click.option("--only", default="", help="Only names that contain this.")
@click.option("--json", "out", type=click.Path(path_type=Path), default=OUT)
def main(only: str, out: Path) -> None:
    warnings.simplefilter("ignore")  # from the tests' own arithmetic
    chosen = [case for case in cases() if only in case[1]]
    log, rows = ResumeLog(out.with_name(f"{out.name}.unfinished"), describe()), []
    with tempfile.TemporaryDirectory() as folder, SandboxProcess(Path(folder) / "log", TIMEOUT_S) as process:
        for group, name, model, data in chosen:
            row = log.once(f"{group}/{name}", partial(run_case, model, data, process))
            rows.append({"group": group, "name": name, **row})
            print(f"{len(rows)} of {len(chosen)}, {name}: {row['stage']}, {row.get('reason', '')}", flush=True)
    outcomes = Counter(
        f"{row['group']}: {'every file passes' if row['passed'] else 'stops at ' + row['stage']}" for row in rows
    )
    document = {"machine": describe(), "onnx": onnx.__version__, "graphs": len(rows), "outcomes": outcomes}
    out.write_text(json.dumps(document | {"rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(*(f"{count:5} {outcome}" for outcome, count in sorted(outcomes.items())), sep="\n")
    log.close()


if __name__ == "__main__":
    main()
