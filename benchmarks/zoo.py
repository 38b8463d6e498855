"""Public architectures and pretrained networks, each shipped beside the plain chain of a user.

    python -m benchmarks.zoo [timm/resnet10t ...]      # all of zoo_models.json without names
    python -m benchmarks.zoo --packages DIR            # with the networks that packages ship
    python -m benchmarks.zoo --untimed                 # beside other work, which would spoil times
    python -m benchmarks.zoo --table                   # print the results as benchmarks/ZOO.md shows them

An architecture has random weights, and is exported by both exporters of torch. DIR is a folder in which the packages of
zoo_models.json, in the versions named there, were unzipped; without it their networks are left out. Run it in an
environment of its own, with this project, torchvision, timm, transformers and ultralytics. Each model is a child
process with a time limit, and each result is written when it is there: interrupted, the same command goes on; without
--untimed it makes those again that have no times. Every file is judged against the model as it was exported or shipped,
on ONNX Runtime. The plain chain is onnx2tf with its defaults, and onnxruntime's quantize_dynamic.
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
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmarks.readme import RESULTS
from benchmarks.readme.zoo import PLAIN, row, zoo_page

MODELS = Path(__file__).parent / "zoo_models.json"
LIMIT_S, TIMED_S = 1800.0, 3.0
EXPORTED_BY, SHIPPED_BY = ("dynamo", "torchscript"), "as shipped"
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
        kinds = {"seg": tasks.SegmentationModel, "cls": tasks.ClassificationModel, "l": tasks.RTDETRDetectionModel}
        network = kinds.get(name.partition("-")[2], tasks.DetectionModel)(f"{name}.yaml", verbose=False)
    else:
        kind = getattr(library, name)
        network = kind(kind.config_class(return_dict=True, use_cache=False))
    inputs = {key: torch.rand(shape) for key, shape in shapes.items()}
    for key in inputs.keys() & {"input_ids", "decoder_input_ids"}:
        inputs[key] = torch.arange(1, 1 + inputs[key].numel()).reshape(shapes[key])
    if "attention_mask" in inputs:
        inputs["attention_mask"] = torch.ones(shapes["attention_mask"], dtype=torch.int64)
    return network.eval(), inputs


def one(name: str, exporter: str, folder: Path, packages: Path | None, time_limit_s: float | None) -> dict[str, Any]:
    """Ship a network, make the plain chain's files, and judge all of them. Returns the result as JSON values.

    time_limit_s: seconds for the rounds of timing, or None to time nothing.
    """
    import numpy as np

    from toolkit.shipping.module import EXPORTERS, export_module
    from toolkit.shipping.ship import ShipOptions, ship_model
    from toolkit.shipping.source import Source

    package, short = name.split("/", 1)
    given = json.loads(MODELS.read_text())[package][short]
    if exporter == SHIPPED_BY:
        # A number is the value of an input, a list of numbers its sizes.
        values = {key: np.array(value) for key, value in given.items() if not isinstance(value, list)}
        source = Source(
            str((packages or Path()) / short), shapes={k: v for k, v in given.items() if k not in values}, values=values
        )
    else:
        network, inputs = build(package, short, given)
        title = next(title for title, dynamo in EXPORTERS.items() if dynamo == (exporter == "dynamo"))
        source = Source(str(folder / "model.onnx"))
        try:
            export_module(network, inputs, Path(source.model), exporters=[title])
        except Exception as error:  # noqa: BLE001  a result of the zoo, like any other
            return {"exported": f"{type(error).__name__}: {error}"[:400]}
    start = time.monotonic()
    try:
        shipped = ship_model(source.make, folder / "bundle", ShipOptions(time_limit_s=time_limit_s))
    except Exception as error:  # noqa: BLE001  likewise
        return {"exported": True, "shipped": f"{type(error).__name__}: {error}"[:1000]}
    seconds = time.monotonic() - start
    plain, agrees = judged(shipped.bundle, Path(source.model), bool(source.values or source.shapes), time_limit_s)
    return {"exported": True, "shipped": shipped.to_json(), "seconds": seconds, "plain": plain, "agrees": agrees}


def judged(
    bundle: Any, source: Path, is_sized: bool, time_limit_s: float | None
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Make the plain chain's files, and compare them and the bundle's own files with the source, on the same samples.

    is_sized: whether the source gets its sizes from this zoo; the plain chain then gets the graph of these sizes.
    Returns each plain file with its size and how it is wrong, or why it is of no use; and, for each file of the bundle,
    whether it agrees with the source. If it does not although `ship` says that it passes, `ship` is wrong.
    """
    from backends.bundle import Bundle
    from toolkit.bench.bundle import bench_bundle
    from toolkit.bench.peers import EXPORTED, ONNX2TF, make_peers
    from toolkit.bench.result import BenchOptions

    with tempfile.TemporaryDirectory() as name:
        folder, threads = Path(name), os.cpu_count() or 1
        exported, lowered = make_peers(bundle, "model", folder, source, names=[EXPORTED, ONNX2TF])
        if exported.target is None:
            return {title: {"failed": exported.note} for title in PLAIN}, {}
        original = exported.target.artifact
        alone = Bundle(folder, exported.target.bundle.model, bundle.weights, (original,))
        found: dict[str, Any] = {}

        def add(title: str, make: Callable[[], Any]) -> None:
            try:
                artifact = make()
                together, (report,) = compared(alone, [artifact])
                timed = bench_bundle(together, BenchOptions(threads, time_limit_s)).files if time_limit_s else ()
            except Exception as error:  # noqa: BLE001  likewise
                found[title] = {"failed": f"{type(error).__name__}: {error}"[:400]}
                return
            found[title] = {"file": artifact.file, "bytes": artifact.bytes, "of_bytes": original.bytes}
            for file in timed:
                if file.name == artifact.file:
                    found[title]["median_ms"] = file.timing.median_ms
            if not report.passed:
                found[title]["wrong"] = "; ".join(map(str, report.failures))[:400]

        if (target := lowered.target) is not None:
            add("onnx2tf", lambda: target.artifact)
        else:
            found["onnx2tf"] = {_sort(lowered.note): lowered.note[:400]}
        add("quantize_dynamic", lambda: quantized(folder / original.file if is_sized else source, original, folder))
        own = [artifact for artifact in bundle.artifacts if artifact.parent is not None]
        for file in {file for artifact in own for file in artifact.files}:
            (folder / file).hardlink_to(bundle.folder / file)
        return found, {report.name: report.passed for report in compared(alone, own)[1]} if own else {}


def _sort(note: str) -> str:
    """Return the sort of a failure: "wrong" values, "other" outputs than the graph's, or "failed", without a file."""
    return "wrong" if "differs from" in note else "other" if re.search("cannot hold|has no tensor", note) else "failed"


def compared(bundle: Any, artifacts: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Return a bundle with further artifacts, and the report on each of them against the bundle's first one."""
    from toolkit.parity.compare import compare_bundle

    together = replace(bundle, artifacts=(*bundle.artifacts, *artifacts))
    together.write()
    (role,) = compare_bundle(together, threads=os.cpu_count() or 1).roles
    return together, [file for file in role.files if file.name == file.artifact.file]  # on its default backend


def quantized(source: Path, original: Any, folder: Path) -> Any:
    """Quantize the source as onnxruntime's documentation says, and return its artifact in `folder`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from backends.bundle import sha256_of

    target = folder / "dynamic.int8.onnx"
    quantize_dynamic(source, target, weight_type=QuantType.QInt8)
    return replace(
        original,
        file=target.name,
        precision="int8",
        sha256=sha256_of(target),
        bytes=target.stat().st_size,
        external_files=(),
        parent=original.file,
    )


# The files whose paths errors show, wherever they lie. Names of nodes look like paths, and stay.
_ENDINGS = "py|so|onnx|data|tflite|log|json|npz|bin"


def without_paths(text: str) -> str:
    """Return a text with the names of files alone in the place of their paths on this machine."""
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}(?:/[\w.+-]+)*/(?=[\w.+-])", "", text)
    return re.sub(rf"(?<![\w:/])(?:/[\w.+-]+)+/(?=[\w.+-]+\.(?:{_ENDINGS})\b)", "", text)


def run(name: str, exporter: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of one network and exporter, from a child process that ends at the time limit."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "benchmarks.zoo", "--one", name, exporter, folder]
        command += ["--packages", str(options.packages)] if options.packages else []
        command += ["--untimed"] if options.untimed else []
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


def listed(names: Sequence[str], packages: bool) -> list[tuple[str, str]]:
    """Return the networks to run, each with an exporter, or SHIPPED_BY for those that packages ship.

    names: of networks; none for all of the list: the first of each package, then the second of each, and so on.
    packages: whether to run those that packages ship.
    """
    by_package = [[f"{package}/{name}" for name in of] for package, of in json.loads(MODELS.read_text()).items()]
    chosen = names or [name for several in zip_longest(*by_package) for name in several if name]
    built = [name for name in chosen if not is_shipped(name)]
    first = [(name, SHIPPED_BY if is_shipped(name) else EXPORTED_BY[0]) for name in chosen if packages or name in built]
    return first + [(name, exporter) for exporter in EXPORTED_BY[1:] for name in built]


def is_shipped(name: str) -> bool:
    """Return whether a network is one that a package ships: its name starts with the package and its version."""
    return "==" in name.partition("/")[0]


def timed(result: dict[str, Any]) -> bool:
    """Return whether a result has times, or can have none because its network was not exported or not shipped."""
    shipped = result.get("shipped")
    return not isinstance(shipped, dict) or any(file["median_ms"] for file in shipped["files"])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--packages", type=Path, metavar="DIR")
    parser.add_argument("--results", type=Path, default=RESULTS / "zoo.json")
    parser.add_argument("--untimed", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.one:
        name, exporter, folder = options.one
        result = one(name, exporter, Path(folder), options.packages, None if options.untimed else TIMED_S)
        (Path(folder) / "result.json").write_text(json.dumps(result))
        return
    kept = json.loads(options.results.read_text()) if options.results.is_file() else {"versions": {}, "networks": {}}
    if options.table:
        print(zoo_page(kept))
        return
    kept["versions"] = {package: version(package) for package in PACKAGES}
    for name, exporter in listed(options.names, options.packages is not None):
        key = f"{name}, {exporter}"
        if key not in kept["networks"] or not (options.untimed or timed(kept["networks"][key])):
            kept["networks"][key] = run(name, exporter, options)
            options.results.write_text(json.dumps(kept, indent=1) + "\n")
            print(row(key, kept["networks"][key]), flush=True)


if __name__ == "__main__":
    main()
