"""An exported file is the same bytes every time, says nothing of its machine, and computes what torch does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from backends.bundle import sha256_of
from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import probe
from graphs.export import build_loaded, export, run_module, with_batch
from graphs.onnx.file import IR_VERSION, OPSET, load, save
from graphs.passes.pipeline import prepare, run_once
from tests.seal_tiny import spec, weights

NAME = "videoseal-1.0-tiny"

_SAVE = """
import sys
from pathlib import Path
from graphs.export import build_loaded, export
from backends.tensor import probe
from graphs.onnx.file import save
from graphs.passes.pipeline import prepare
from tests.seal_tiny import spec, weights
graph = spec("videoseal-1.0-tiny").graph("detector")
model = export(build_loaded(graph, weights("videoseal-1.0-tiny").states["detector"]), graph)
save(prepare(model, probe(graph.inputs))[0], Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "detector.onnx"
    graph = spec(NAME).graph("detector")
    model = export(build_loaded(graph, weights(NAME).states["detector"]), graph)
    save(prepare(model, probe(graph.inputs))[0], path)
    return path


def test_another_process_writes_the_same_bytes(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    subprocess.run([sys.executable, "-c", _SAVE, str(other)], check=True, capture_output=True, env=environment)
    assert sha256_of(other) == sha256_of(file)


def test_the_file_says_nothing_of_the_machine(file: Path) -> None:
    data = file.read_bytes()
    for word in (str(Path.cwd()), str(Path.home()), "site-packages", "stack_trace", ".py"):
        assert word.encode() not in data
    model = onnx.load(file)
    assert not model.metadata_props
    assert not model.doc_string
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_the_converter_can_read_it(file: Path) -> None:
    model = onnx.load(file)
    assert model.ir_version <= IR_VERSION
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]


@pytest.mark.parametrize(("role", "batch"), [("detector", 2), ("embedder", 3)])
def test_names_shapes_and_values_are_those_of_the_module(role: str, batch: int) -> None:
    graph = spec(NAME).graph(role)
    module = build_loaded(graph, weights(NAME).states[role])
    model = export(module, graph, batch=batch)
    feeds = probe(tuple(with_batch(tensor, batch) for tensor in graph.inputs), seed=3)
    assert [value.name for value in model.graph.inputs] == [tensor.name for tensor in graph.inputs]
    got, expected = run_once(model, feeds, "exported"), run_module(module, graph, feeds)
    assert got.keys() == expected.keys() == {graph.outputs[0].name}
    for name, value in expected.items():
        assert got[name].shape == value.shape == (batch, *graph.outputs[0].shape[1:])
        np.testing.assert_allclose(got[name], value, atol=2e-5)


def test_wrong_requests_are_refused() -> None:
    graph = spec(NAME).graph("detector")
    module = build_loaded(graph, weights(NAME).states["detector"])
    with pytest.raises(InvalidInput, match="batch: expected at least 1, got 0"):
        export(module, graph, batch=0)
    with pytest.raises(InvalidInput, match="expected a module in eval mode"):
        export(module.train(), graph)


def test_a_module_that_is_not_its_graph_is_refused() -> None:
    class Other(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean(dim=(2, 3))

    with pytest.raises(InvalidArtifact, match=r"detector: the exported graph has \[\('logits', \(1, 3\)"):
        export(Other().eval(), spec(NAME).graph("detector"))


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(file: Path, tmp_path: Path, kept: float) -> None:
    data = file.read_bytes()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    with pytest.raises(InvalidArtifact, match=r"broken\.onnx: not a valid ONNX model"):
        load(broken)
