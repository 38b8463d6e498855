"""Public architectures, each exported by both exporters of torch and shipped, beside the plain chain of a user.

    python -m benchmarks.zoo [timm/resnet10t ...]      # all of zoo_models.json without names
    python -m benchmarks.zoo --untimed                 # beside other work, which would spoil times
    python -m benchmarks.zoo --table

The weights are random. Run it in an environment of its own, with this project, torchvision, timm, transformers and
ultralytics. Each model is a child process with a time limit, and each result is written when it is there: interrupted,
the same command goes on; without --untimed it makes those again that have no times. The plain chain is onnx2tf with its
defaults, and onnxruntime's quantize_dynamic.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

from benchmarks.readme import RESULTS, table

MODELS = Path(__file__).parent / "zoo_models.json"
LIMIT_S, TIMED_S = 900.0, 3.0
EXPORTED_BY = ("dynamo", "torchscript")
PACKAGES = ("torch", "torchvision", "timm", "transformers", "ultralytics", "onnxruntime", "ai-edge-litert")


def build(package: str, name: str, shapes: dict[str, list[int]]) -> tuple[Any, dict[str, Any]]:
    """Return a network with random weights and its example inputs by name."""
    import torch

    from toolkit.shipping.networks import PACKAGES as NETWORKS
    from toolkit.shipping.networks import build_network, example_inputs

    torch.manual_seed(0)
    if package in NETWORKS:
        network = build_network(package, name)
        return network, example_inputs(package, name, network, {key: tuple(value) for key, value in shapes.items()})
    library: Any = import_module(package)
    if package == "torch":
        network = getattr(torch.nn, name)(32, 64, 2)
    elif package == "ultralytics":
        tasks: Any = import_module("ultralytics.nn.tasks")
        kinds = {"seg": tasks.SegmentationModel, "cls": tasks.ClassificationModel}
        network = kinds.get(name.partition("-")[2], tasks.DetectionModel)(f"{name}.yaml", verbose=False)
    else:
        kind = getattr(library, name)
        network = kind(kind.config_class(return_dict=True))
    inputs = {key: torch.rand(shape) for key, shape in shapes.items()}
    if "input_ids" in inputs:
        inputs["input_ids"] = torch.arange(1, 1 + inputs["input_ids"].numel()).reshape(shapes["input_ids"])
        inputs["attention_mask"] = torch.ones(shapes["attention_mask"], dtype=torch.int64)
    return network.eval(), inputs


def one(name: str, exporter: str, folder: Path, time_limit_s: float | None) -> dict[str, Any]:
    """Export a network, ship its file and make the plain chain's files. Returns the result as JSON values."""
    from toolkit.shipping.module import EXPORTERS, export_module
    from toolkit.shipping.ship import ShipOptions, ship_model
    from toolkit.shipping.source import Source

    package, short = name.split("/", 1)
    network, inputs = build(package, short, json.loads(MODELS.read_text())[package][short])
    title = next(title for title, dynamo in EXPORTERS.items() if dynamo == (exporter == "dynamo"))
    path = folder / "model.onnx"
    try:
        export_module(network, inputs, path, exporters=[title])
    except Exception as error:  # noqa: BLE001  a result of the zoo, like any other
        return {"exported": f"{type(error).__name__}: {error}"[:400]}
    start = time.monotonic()
    try:
        shipped = ship_model(Source(str(path)).make, folder / "bundle", ShipOptions(time_limit_s=time_limit_s))
    except Exception as error:  # noqa: BLE001  likewise
        return {"exported": True, "shipped": f"{type(error).__name__}: {error}"[:400]}
    seconds = time.monotonic() - start
    return {"exported": True, "shipped": shipped.to_json(), "seconds": seconds, "plain": plain(shipped.bundle, path)}


def plain(bundle: Any, source: Path) -> dict[str, Any]:
    """Return, for the files of the plain chain, size and error against the float32 graph, or why there are none."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from backends.registry import open_session
    from backends.sandbox import SandboxProcess
    from toolkit.bench.peers import ONNX2TF, make_peers
    from toolkit.convert.binding import relative_error
    from toolkit.inputs.kept import first_inputs

    artifact = bundle.find("model", "onnx", "fp32")
    feeds = first_inputs(bundle, [binding.spec for binding in artifact.inputs])
    with open_session(bundle, artifact, "ort", threads=1) as session:
        expected = session.run(feeds)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, SandboxProcess(Path(os.devnull), LIMIT_S) as child:
        try:
            target = Path(name) / "int8.onnx"
            quantize_dynamic(source, target, weight_type=QuantType.QInt8)
            error = child.call(relative_error, target, artifact, feeds, expected)
            found["quantize_dynamic"] = {"bytes": target.stat().st_size, "error": error}
        except Exception as error:  # noqa: BLE001  likewise
            found["quantize_dynamic"] = {"failed": f"{type(error).__name__}: {error}"}
        (Path(name) / "peers").mkdir()
        (peer,) = make_peers(bundle, "model", Path(name) / "peers", source, names=[ONNX2TF])
        found["onnx2tf"] = {"note": peer.note} | ({"bytes": peer.target.artifact.bytes} if peer.target else {})
    return found


def without_paths(text: str) -> str:
    """Return a text with the names of files alone in the place of their paths in temporary folders and in packages."""
    places = "|".join(re.escape(place) for place in (tempfile.gettempdir(), sys.prefix, sys.base_prefix))
    return re.sub(rf"(?:{places})(?:/[\w.+-]+)*/(?=[\w.+-])", "", text)


def run(name: str, exporter: str, timed: bool) -> dict[str, Any]:
    """Return the result of one network and exporter, from a child process that ends at the time limit."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "benchmarks.zoo", "--one", name, exporter, folder]
        command += [] if timed else ["--untimed"]
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            return {"exported": f"took longer than {LIMIT_S:g} s"}
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        result = Path(folder) / "result.json"
        if result.is_file():
            found: dict[str, Any] = json.loads(without_paths(result.read_text()))
            return found
        log.seek(0)
        return {"exported": f"ended with {child.returncode}: {without_paths(log.read())[-300:]}"}


def show(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table: a row for each network and exporter."""
    rows = []
    for key, result in sorted(results.items()):
        shipped = result.get("shipped")
        if not isinstance(shipped, dict):
            rows.append(
                [key, str(shipped or result["exported"]).split("\n")[0][:80].replace("|", "/"), "-", "-", "-", "-"]
            )
            continue
        verdicts = {file["file"]: file["verdict"] for file in shipped["files"]}
        marks = [_mark(verdicts, precision) for precision in ("fp32", "fp16", "int8")]
        chain = [_said(result["plain"][name]) for name in ("onnx2tf", "quantize_dynamic")]
        rows.append([key, *marks, *chain])
    return table(["network", "float32", "FP16", "INT8", "onnx2tf", "quantize_dynamic"], rows, left=6)


def _mark(verdicts: dict[str, str], precision: str) -> str:
    """Return the verdict on the TFLite file of a precision, and whether TensorFlow's converter made it."""
    other = verdicts.get(f"model.{precision}.tf.tflite")
    return f"{other} (TensorFlow's route)" if other else verdicts.get(f"model.{precision}.tflite", "not made")


def _said(made: dict[str, Any]) -> str:
    """Return what came of a file of the plain chain: its error, or how or why not it was made."""
    text = f"error {made['error']:.2g}" if "error" in made else str(made.get("failed") or made["note"])
    return text.split("\n")[0][:60].replace("|", "/")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=RESULTS / "zoo.json")
    parser.add_argument("--table", action="store_true", help="print the table of the results, and run nothing")
    parser.add_argument("--untimed", action="store_true", help="time nothing")
    options = parser.parse_args()
    if options.one:
        name, exporter, folder = options.one
        result = one(name, exporter, Path(folder), None if options.untimed else TIMED_S)
        (Path(folder) / "result.json").write_text(json.dumps(result))
        return
    kept = json.loads(options.results.read_text()) if options.results.is_file() else {"versions": {}, "networks": {}}
    if options.table:
        print(show(kept["networks"]))
        return
    kept["versions"] = {package: version(package) for package in PACKAGES}
    for exporter, name in product(EXPORTED_BY, options.names or listed()):
        key = f"{name}, {exporter}"
        if key not in kept["networks"] or not (options.untimed or timed(kept["networks"][key])):
            kept["networks"][key] = run(name, exporter, not options.untimed)
            options.results.write_text(json.dumps(kept, indent=1) + "\n")
            print(show({key: kept["networks"][key]}).splitlines()[-1], flush=True)


def listed() -> list[str]:
    """Return the names of all networks of the list: the first of each package, then the second of each, and so on."""
    by_package = [[f"{package}/{name}" for name in names] for package, names in json.loads(MODELS.read_text()).items()]
    return [name for names in zip_longest(*by_package) for name in names if name]


def timed(result: dict[str, Any]) -> bool:
    """Return whether a result has times, or can have none because its network was not exported or not shipped."""
    shipped = result.get("shipped")
    return not isinstance(shipped, dict) or any(file["median_ms"] for file in shipped["files"])


if __name__ == "__main__":
    main()
