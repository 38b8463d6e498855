"""The graphs that the onnx package tests its backends with: imported, converted to TFLite, and compared, each of them.

    python -m benchmarks.onnx_corpus [--every N] [--json FILE]

Every graph goes the way of a user's: `toolkit import`, `convert` and `compare`, in a process of its own, so that a
runtime that crashes ends one graph's turn. One process of the converter's environment serves all of them: it forks for
each request. `--every N` takes every Nth graph of a group, evenly spread; the result says so.
"""

import json
import multiprocessing
import os
import re
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import onnx
from onnx.backend.test.loader import load_model_tests
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.errors import ToolkitError
from toolkit.bench.machine import describe
from toolkit.convert import job, support
from toolkit.convert.converter import ConversionFailed, WorkerResult
from toolkit.convert.pipeline import convert_bundle
from toolkit.environments import converter_python
from toolkit.import_model import import_model
from toolkit.parity.compare import compare_bundle
from toolkit.parity.report import FileReport

PRECISIONS = ("fp32", "fp16", "int8")
TIMEOUT_S = 120.0
_FORK = multiprocessing.get_context("fork")
_WORKER_PARENT = Path(job.__file__).parent

# Runs in the converter's environment. A request's child gets a pipe for its stdin, whose other end closes with us.
_SERVER = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
import worker.__main__, worker.lowering, worker.quantizing, worker.operators
for line in sys.stdin:
    request = json.loads(line)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(writing)
        os.dup2(reading, 0)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = 1
        try:
            worker.__main__.main(request["request"], request["result"])
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    os.close(reading)
    end = time.monotonic() + request["timeout_s"]
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.killpg(child, 9)
        time.sleep(0.01)
    os.close(writing)
    print(json.dumps({"status": status}), flush=True)
"""


class Server:
    """One process of the converter's environment, in the place of one a request."""

    def __init__(self) -> None:
        python = converter_python()
        self._process = subprocess.Popen(
            [str(python), "-c", _SERVER, str(_WORKER_PARENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "-1"},
        )

    def run_worker(
        self, request: dict[str, Any], folder: Path, log: Path, timeout_s: float, progress: Callable[[str], None]
    ) -> WorkerResult:
        """As toolkit.convert.converter.run_worker."""
        request_path, result_path = folder / "request.json", folder / "result.json"
        result_path.unlink(missing_ok=True)
        request_path.write_text(json.dumps(request | {"folder": str(folder)}))
        asked = {"request": str(request_path), "result": str(result_path), "log": str(log), "timeout_s": TIMEOUT_S / 2}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        status = json.loads(self._process.stdout.readline())["status"]
        if status or not result_path.is_file():
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            what = f"killed by signal {status & 127}" if status & 127 else (lines or ["no output"])[-1]
            raise ConversionFailed(f"{request['task']}: {what}")
        result = json.loads(result_path.read_text())
        return WorkerResult({key: Path(path) for key, path in result["files"].items()}, result["tools"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    load: Callable[[], onnx.ModelProto]


def cases() -> Iterator[Case]:
    """Every graph of the installed onnx package, by group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the tests' own arithmetic
        for group in ("node", "simple", "pytorch-converted", "pytorch-operator"):
            for test in load_model_tests(kind=group):
                if test.model is not None:
                    yield Case(group, test.name, lambda test=test: test.model)
                else:
                    path = Path(test.model_dir) / "model.onnx"
                    yield Case(group, test.name, lambda path=path: onnx.load(path))
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for path in sorted(light.glob("*.onnx")):
        yield Case("light", path.stem, lambda path=path: onnx.load(path))


def run_case(case: Case, folder: Path, server: Server) -> dict[str, Any]:
    """Import, convert and compare one graph. What failed is a stage and the tool's own line."""
    job.run_worker = server.run_worker
    row: dict[str, Any] = {"group": case.group, "name": case.name}
    stage = "import"
    try:
        model = case.load()
        row["opset"] = max(
            (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=None
        )
        row["operators"] = sorted({node.op_type for node in model.graph.node})
        source = folder / "source.onnx"
        onnx.save(model, source)
        bundle = import_model(source, folder / "bundle", {})
        stage = "convert"
        bundle = convert_bundle(bundle.folder, ("fp32",))
        row["quantized"] = _convert_more(bundle.folder)
        stage = "compare"
        report = compare_bundle(type(bundle).open(bundle.folder))
        (role,) = report.roles
        row["samples"] = sum(role.samples.values())
        row["files"] = {file.artifact.file.removeprefix("model."): _figures(file) for file in role.files}
        row["stage"] = "done"
        row["passed"] = report.passed
    except ToolkitError as error:
        row |= {"stage": stage, "passed": False, "reason": _shortened(str(error), folder)}
    except Exception as error:  # noqa: BLE001  a fault of ours: it must stand in the table
        row |= {"stage": stage, "passed": False, "reason": f"UNEXPECTED {type(error).__name__}: {error}"[:300]}
    return row


def _convert_more(folder: Path) -> str:
    """The other precisions, where the float32 file could be made; what went wrong with them is no failure of it."""
    try:
        convert_bundle(folder, PRECISIONS[1:])
    except ToolkitError as error:
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


def _in_a_process(case: Case, server: Server) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reading, writing = _FORK.Pipe(duplex=False)

        def child() -> None:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1), os.dup2(quiet, 2)
            writing.send(run_case(case, folder, server))

        process = _FORK.Process(target=child)
        process.start()
        writing.close()
        try:
            row = reading.recv() if reading.poll(TIMEOUT_S) else None
        except EOFError:  # it ended without a word
            row = None
        if row is None:
            process.kill()
        process.join()
        if row is not None:
            return row  # type: ignore[no-any-return]
        reason = f"the process ended with {process.exitcode}: a crash, or more than {TIMEOUT_S:g} s"
        return {"group": case.group, "name": case.name, "stage": "process", "passed": False, "reason": reason}


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by group and stage, and by why."""
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        groups.setdefault(row["group"], Counter())[_outcome(row)] += 1
    reasons = Counter(f"{row['stage']}: {_kind_of_reason(row['reason'])}" for row in rows if row.get("reason"))
    return {"groups": {group: dict(counts) for group, counts in groups.items()}, "reasons": dict(reasons.most_common())}


def _outcome(row: dict[str, Any]) -> str:
    if row["stage"] != "done":
        return f"stopped at {row['stage']}"
    if row["passed"]:
        return "every file passes"
    return "float32 passes, another does not" if row["files"]["fp32.tflite"]["passed"] else "float32 fails"


def _kind_of_reason(reason: str) -> str:
    """Without names and numbers, so that like ones count together."""
    reason = re.sub(r"'[^']*'", "X", reason)
    reason = re.sub(r"\S*project/onnx\S+ \w+: Assertion .* failed: ", "", reason)
    reason = re.sub(r"\b\d[\d.e+-]*\b", "N", reason)
    return reason[:140]


def table(document: dict[str, Any]) -> str:
    """The result as Markdown: outcomes by group, why graphs stopped, and every graph."""
    groups = document["summary"]["groups"]
    outcomes = sorted({outcome for counts in groups.values() for outcome in counts})
    share = "All of them." if document["every"] == 1 else f"Every {document['every']}th of a group, evenly spread."
    lines = [
        "# onnx's own test graphs",
        "",
        f"`python -m benchmarks.onnx_corpus`, onnx {document['onnx']}: {document['graphs']} of {document['of']} "
        f"graphs. {share} Each is imported, converted and compared as a user would. Errors are relative, over noise, "
        "constant and extreme inputs; the worst output's. Bold: over the tolerance.",
        "",
        f"| group | graphs | {' | '.join(outcomes)} |",
        f"|---|--:|{'--:|' * len(outcomes)}",
    ]
    for group, counts in groups.items():
        cells = " | ".join(str(counts.get(outcome, 0)) for outcome in outcomes)
        lines.append(f"| {group} | {sum(counts.values())} | {cells} |")
    lines += ["", "## Why graphs stop", "", "| graphs | stage and reason |", "|--:|---|"]
    lines += [f"| {count} | {_cell(reason)} |" for reason, count in document["summary"]["reasons"].items()]
    files = ("fp32.tflite", "fp16.tflite", "int8.tflite", "int8.onnx")
    lines += ["", "## Every graph", "", f"| graph | opset | outcome | {' | '.join(files)} | why |"]
    lines += [f"|---|--:|---|{'--:|' * len(files)}---|"]
    for row in document["rows"]:
        errors = " | ".join(_shown(row.get("files", {}).get(file)) for file in files)
        quantized = row.get("quantized", "done")
        failed = [text for figures in row.get("files", {}).values() for text in figures["failed"]]
        why = row.get("reason") or (failed or [""])[0] or ("" if quantized == "done" else quantized)
        lines.append(f"| {row['name']} | {row.get('opset') or ''} | {_outcome(row)} | {errors} | {_cell(why)} |")
    return "\n".join(lines) + "\n"


def _shown(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    error = figures["relative_l2"]
    shown = "same" if error == 0 else "integers" if error is None else f"{error:.1e}"
    return shown if figures["passed"] else f"**{shown}**"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")[:160]


@click.command(help=__doc__)
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--only", help="Only names that contain this.")
@click.option(
    "--json", "out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "onnx-corpus.json"
)
def main(every: int, only: str | None, out: Path) -> None:
    found: dict[str, list[Case]] = {}
    for case in cases():
        if only is None or only in case.name:
            found.setdefault(case.group, []).append(case)
    chosen = [case for group in found.values() for case in group[::every]]
    server = Server()
    support._ASKED[converter_python()] = support.supported_operators(Path(os.devnull))
    rows = []
    start = time.perf_counter()
    with Progress() as progress:
        rows += [_in_a_process(case, server) for case in progress.track(chosen, description="graphs")]
    server.close()
    write(rows, every, sum(map(len, found.values())), round(time.perf_counter() - start), out)


def write(rows: list[dict[str, Any]], every: int, of: int, seconds: int, out: Path) -> None:
    """The JSON, the Markdown beside it, and the outcomes on the terminal."""
    summary = summarize(rows)
    document = {
        "machine": describe(),
        "onnx": onnx.__version__,
        "every": every,
        "graphs": len(rows),
        "of": of,
        "seconds": seconds,
        "summary": summary,
    }
    lines = ",\n".join(json.dumps(row) for row in rows)
    out.write_text(json.dumps(document, indent=1)[:-2] + f',\n "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    out.with_suffix(".md").write_text(table(document | {"rows": rows}), encoding="utf-8")
    shown = Table("group", "outcome", "graphs")
    for group, counts in summary["groups"].items():
        for outcome, count in sorted(counts.items()):
            shown.add_row(group, outcome, str(count))
    Console().print(shown)


if __name__ == "__main__":
    main()
