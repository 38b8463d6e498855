"""Tests of a package outside this project that adds a backend, a precision, a judge, a pass and a kind of model.

The package is installed with pip into a temporary folder and found by its entry points; this project is not changed.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest
from PIL import Image

from backends.sandbox import start
from tests.shared import made_once

SOURCE = Path(__file__).parent
PRELOADED = ("torch.onnx", "pytest", *(f"toolkit.{name}.bundle" for name in ("bench", "bisect")), "toolkit.report.page")
ROOT = SOURCE.parents[1]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _install(folder: Path) -> None:
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "install", "--no-deps"]
    target = ["--no-build-isolation", "--target", str(folder / "site")]
    subprocess.run([*pip, *target, str(folder / "source")], check=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a Python module with arguments, with the package installed, in a temporary folder.

    Each run is a process of its own: a fork of a server that has imported what the commands import.
    """
    site, work = made_once("plugins", _install) / "site", tmp_path_factory.mktemp("work")
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]),
        "PYTHONDONTWRITEBYTECODE": "1",  # the installed package is shared
    }

    def run(module: str, *arguments: object, expect: int = 0) -> "subprocess.CompletedProcess[str]":
        with (work / "stderr").open("w+", encoding="utf-8") as log:
            process = start(sys.executable, module, [*map(str, arguments)], log, env, work, preload=PRELOADED)
            with process:
                assert process.stdout is not None  # a pipe
                shown = process.stdout.read().decode()
            log.seek(0)
            done = subprocess.CompletedProcess(module, process.wait(), shown, log.read())
        assert done.returncode == expect, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    return run


@pytest.fixture(scope="module")
def toolkit(run: Run) -> Run:
    """Return a function that runs a command of the toolkit as `run` does."""
    return partial(run, "toolkit")


@pytest.fixture(scope="module")
def bundle(run: Run, toolkit: Run) -> Path:
    """Return the folder of the classifier, exported with fixed weights and converted to fp32 and to int8-dense."""

    def make(folder: Path) -> None:
        run("sample_plugins.classifier.network", folder / "weights.safetensors")
        toolkit("export", "colours", "--checkpoint", folder / "weights.safetensors", "-o", folder)
        toolkit("convert", folder / "colours", "-p", "fp32", "-p", "int8-dense")

    return made_once("classifier", make) / "colours"


@pytest.fixture(scope="module")
def timed(toolkit: Run, bundle: Path) -> Path:
    """Return a folder with the result of the benchmark of the classifier, bench.json, and its table, shown.txt."""

    def make(folder: Path) -> None:
        shown = toolkit("bench", bundle, "--time-limit", 1, "--json", folder / "bench.json").stdout
        (folder / "shown.txt").write_text(shown, encoding="utf-8")

    return made_once("timed classifier", make)


def test_the_backend_is_one_short_file_and_keeps_the_contract(run: Run) -> None:
    lines = (SOURCE / "sample_plugins" / "reference_backend.py").read_text().splitlines()
    assert len(lines) <= 150
    done = run("pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "toolkit.contract", "--backend", "reference")
    assert "reference" not in done.stderr
    passed = int(done.stdout.split(" passed")[0].rsplit(maxsplit=1)[-1])
    assert passed >= 12
    assert "failed" not in done.stdout


def test_the_kind_s_models_are_listed(toolkit: Run) -> None:
    rows = [json.loads(line) for line in toolkit("models", "--json").stdout.splitlines()]
    (colours,) = [row for row in rows if row["kind"] == "classifier"]
    assert (colours["name"], colours["graphs"]) == ("colours", ["classifier"])
    assert "classifier" in toolkit("run", "--help").stdout


@pytest.mark.parametrize(
    ("backend", "precision"),
    [("reference", "fp32"), ("ort", "int8-dense"), ("tflite", "int8-dense"), ("torch", "fp32")],
)
def test_an_image_is_classified(toolkit: Run, bundle: Path, tmp_path: Path, backend: str, precision: str) -> None:
    for colour in ("red", "yellow", "blue"):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{colour}.png")
    images = sorted(tmp_path.glob("*.png"))
    done = toolkit("run", *images, "--bundle", bundle, "--backend", backend, "-p", precision, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["top1"] for row in found] == ["blue", "red", "yellow"]
    assert {(row["backend"], row["precision"]) for row in found} == {(backend, precision)}


def test_every_file_is_compared_on_every_backend_and_reported(
    toolkit: Run, bundle: Path, timed: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "parity.json", tmp_path / "report.html"
    toolkit("compare", bundle, "--json", out, "--html", page, "--bench", timed / "bench.json")
    parity = json.loads(out.read_text())
    files = {file["name"]: file for role in parity["roles"] for file in role["files"]}
    assert {"classifier.onnx", "classifier.onnx on reference", "classifier.int8-dense.tflite"} <= files.keys()
    assert all(file["passed"] for file in files.values())
    assert files["classifier.onnx on reference"]["total"]["numbers"]["top1_changed"] == 0
    html = page.read_text()
    assert "classifier.onnx on reference" in html
    assert "top" in html


def test_the_backend_is_timed_beside_ours(timed: Path) -> None:
    rows = {row["name"]: row for row in json.loads((timed / "bench.json").read_text())["files"]}
    assert rows["classifier.onnx on reference"]["in_use"]["evaluator"] == "onnx.reference"
    assert rows["classifier.onnx on reference"]["timing"]["median_ms"] > rows["classifier.onnx"]["timing"]["median_ms"]
    assert "reference" in (timed / "shown.txt").read_text()


def test_the_layers_of_a_file_are_bisected_on_the_backend(toolkit: Run, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bisect.json"
    arguments = ("--backend", "reference", "--repro", tmp_path / "repro", "--json", out)
    toolkit("bisect", bundle, "--candidate", "classifier.onnx", *arguments)
    report = json.loads(out.read_text())
    assert report["candidate"] == "classifier.onnx on reference"
    assert {layer["onnx_op"] for layer in report["layers"]} >= {"Conv", "Gemm"}
    assert all(layer["introduced"] < 1e-5 for layer in report["layers"])


def test_the_judge_is_chosen_by_name_for_an_imported_graph(toolkit: Run, bundle: Path, tmp_path: Path) -> None:
    toolkit("import", bundle / "classifier.onnx", "-o", tmp_path / "imported", "--judge", "signs:logits")
    toolkit("convert", tmp_path / "imported", "--runtime", "ort", "-p", "fp16")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    shown = toolkit("compare", tmp_path / "imported", "--images", tmp_path)
    assert "model.fp16.onnx: signs changed 0 of 6" in shown.stdout
    assert "signs" in toolkit("import", "--help").stdout


def test_the_pass_runs_in_the_pipeline_and_is_bisected(toolkit: Run, bundle: Path, tmp_path: Path) -> None:
    graph = onnx.load(bundle / "classifier.onnx").graph
    assert "Abs" not in [node.op_type for node in graph.node]
    arguments = ("--pass", "drop_abs_of_relu", "--repro", tmp_path / "repro")
    shown = toolkit("bisect", bundle, "--candidate", "classifier.onnx", *arguments).stdout
    assert "drop_abs_of_relu" in shown
    refused = toolkit("bisect", bundle, "--candidate", "classifier.onnx", "--pass", "no_such_pass", expect=2)
    assert "drop_abs_of_relu" in refused.stderr
