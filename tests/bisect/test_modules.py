"""bisect and bench name the modules of a graph alike: by what its export wrote into the manifest."""

import json
import shutil
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp

import onnx
import pytest
from rich.console import Console

from backends.bundle import MANIFEST, Bundle, sha256_of
from backends.errors import InvalidArtifact, NotAvailable
from backends.precision import RECIPES
from graphs.networks.spec import ModelSpec
from graphs.onnx.modules import read_modules
from tests import kinds_tiny, seal_tiny
from tests.bisect.foreign import foreign
from tests.bisect.small import small
from toolkit.bench.profile import profile_files
from toolkit.bisect.bundle import bisect_bundle
from toolkit.bisect.result import BisectReport
from toolkit.cli.bisect_table import print_report
from toolkit.convert.quantize.onnx import quantize_onnx
from toolkit.export import SHIPPED

# Windowed attention with relative positions, GRN, a UNet, attention over a whole page.
GRAPHS = [
    ("videoseal-0.0-tiny", "detector"),
    ("videoseal-1.0-tiny", "detector"),
    ("videoseal-1.0-tiny", "embedder"),
    ("deepencoder", "small"),
]


def _spec(name: str) -> ModelSpec:
    return seal_tiny.spec(name) if name in seal_tiny.NAMES else kinds_tiny.SPECS[name]


@cache
def _exported(name: str, role: str) -> Bundle:
    """A bundle of one graph, with a file of it that computes in float16 weights, to be bisected. Not to be changed."""
    whole = seal_tiny.exported(name) if name in seal_tiny.NAMES else kinds_tiny.exported(name)
    folder = Path(mkdtemp(prefix="modules-")) / whole.folder.name
    shutil.copytree(whole.folder, folder)
    opened = Bundle.open(folder)
    bundle = replace(opened, artifacts=tuple(a for a in opened.artifacts if a.role == role))
    source = bundle.find(role, "onnx", "fp32")
    files = quantize_onnx(bundle.folder / source.file, bundle.folder / f"{role}.fp16.onnx", RECIPES["fp16"])
    half = replace(
        source,
        file=files[0].name,
        precision="fp16",
        parent=source.file,
        sha256=sha256_of(*files),
        bytes=sum(path.stat().st_size for path in files),
        external_files=tuple(path.name for path in files[1:]),
        modules=None,
    )
    bundle = bundle.with_artifact(half)
    bundle.write()
    return Bundle.open(bundle.folder)


def _modules_of_source(name: str, role: str) -> set[str]:
    return {path for path, _ in _spec(name).graph(role).build().named_modules()}


@pytest.mark.parametrize(("name", "role"), GRAPHS)
def test_every_node_of_an_export_is_in_a_module_of_the_source(name: str, role: str) -> None:
    bundle = _exported(name, role)
    artifact = bundle.find(role, "onnx", "fp32")
    nodes = onnx.load(bundle.folder / artifact.file, load_external_data=False).graph.node
    assert artifact.modules is not None
    assert list(artifact.modules) == [node.name for node in nodes]
    source = _modules_of_source(name, role)
    assert set(artifact.modules.values()) <= source
    inside = [module for module in artifact.modules.values() if module]
    assert len(set(inside)) > 5
    layers = {artifact.modules[node.name] for node in nodes if node.op_type in ("Gemm", "Conv")}
    leaves = {path for path in layers if not any(other.startswith(f"{path}.") for other in source)}
    assert leaves == layers != set(), "what has a weight is in the module that holds it"


@pytest.mark.parametrize(("name", "role"), GRAPHS)
def test_bisect_and_bench_agree_on_every_node(name: str, role: str) -> None:
    bundle = _exported(name, role)
    artifact = bundle.find(role, "onnx", "fp32")
    report = bisect_bundle(bundle, f"{role}.fp16.onnx")
    by_bench = read_modules(bundle, role)
    assert artifact.modules is not None
    nodes = list(artifact.modules)
    assert by_bench.of_operators(nodes) == list(artifact.modules.values())
    assert len(report.layers) > 0.8 * len(nodes)
    for layer in report.layers:
        assert layer.module == by_bench.by_name[layer.onnx_node] == by_bench.by_name[layer.tensor]


def test_a_profile_sums_up_modules_of_the_source() -> None:
    name, role = GRAPHS[0]
    bundle = _exported(name, role)
    artifacts = [artifact for artifact in bundle.artifacts if artifact.format == "onnx"]
    medians = {artifact.file: 5.0 for artifact in artifacts}
    for profile in profile_files(bundle, artifacts, medians, 1, lambda step: None):
        assert profile.note == ""
        named = {total.module for total in profile.by_module}
        assert named <= _modules_of_source(name, role)
        assert "image_encoder.blocks.0.attn.qkv" in named
        assert sum(total.count for total in profile.by_module) == sum(total.count for total in profile.by_kind)


def test_the_graph_before_a_pass_has_its_modules() -> None:
    name, role = GRAPHS[0]
    bundle = _exported(name, role)
    for step in ("split_qkv", "write_out_layer_norm"):
        report = bisect_bundle(bundle, f"{role}.onnx", around_pass=step)
        modules = {layer.module for layer in report.layers}
        assert modules <= _modules_of_source(name, role)
        assert "image_encoder.blocks.0.attn" in modules


def _shown(report: BisectReport) -> str:
    with StringIO() as file:
        print_report(report, Console(file=file, width=120))
        return file.getvalue()


def test_an_imported_graph_keeps_the_scopes_of_its_exporter(tmp_path: Path) -> None:
    bundle = small(tmp_path)
    modules = bundle.find("model", "onnx", "fp32").modules
    assert modules is not None
    assert {"stem.conv", "body.mix", "head.wide", "head.out"} <= set(modules.values())
    assert {layer.tensor: layer.module for layer in bisect_bundle(bundle, "model.int8.onnx").layers}[
        "wide"
    ] == "head.wide"


def test_a_graph_without_scopes_says_that_its_modules_are_not_known(tmp_path: Path) -> None:
    bundle = foreign(tmp_path)
    artifact = bundle.find("model", "onnx", "fp32")
    assert artifact.modules is None
    report = bisect_bundle(bundle, "model.fp32.tflite")
    assert {layer.module for layer in report.layers} == {""}
    assert "modules of the source: not known, the reference states no scopes" in _shown(report)
    with pytest.raises(NotAvailable, match=r"model.onnx: its modules are not known: neither the file nor the manifest"):
        read_modules(bundle, "model")
    (profile,) = profile_files(bundle, [artifact], {artifact.file: 5.0}, 1, lambda step: None)
    assert profile.by_module == ()
    assert "its modules are not known" in profile.note


def test_a_manifest_of_before_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    shutil.copytree(foreign(tmp_path).folder, tmp_path / "old")
    path = tmp_path / "old" / MANIFEST
    before = path.read_bytes()
    assert b'"modules"' not in before
    Bundle.open(tmp_path / "old").write()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("file", "modules", "message"),
    [
        ("model.onnx", {"node": 3}, r"artifacts\[0\].modules.node: expected the path of a module, got 3"),
        ("model.onnx", ["node"], r"artifacts\[0\].modules: expected an object"),
        ("model.fp32.tflite", {"node": "body"}, r"only ONNX files list modules of nodes, got a tflite file"),
    ],
)
def test_modules_that_are_none_are_refused(file: str, modules: object, message: str, tmp_path: Path) -> None:
    bundle = small(tmp_path)
    document = json.loads((bundle.folder / MANIFEST).read_text())
    next(one for one in document["artifacts"] if one["file"] == file)["modules"] = modules
    (bundle.folder / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(InvalidArtifact, match=message):
        Bundle.open(bundle.folder)


def test_the_shipped_graphs_name_their_modules() -> None:
    bundle = Bundle.open(SHIPPED / "pocketseal")
    for role in ("detector", "embedder"):
        artifact = bundle.find(role, "onnx", "fp32")
        nodes = onnx.load(bundle.verify(artifact)).graph.node
        assert artifact.modules is not None
        assert list(artifact.modules) == [node.name for node in nodes]
        assert len(set(artifact.modules.values())) > 10
