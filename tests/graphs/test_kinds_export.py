"""Every graph of every kind exports to what torch computes, to few operators, and shares what it can."""

import numpy as np
import pytest
import torch

from backends.bundle import read_learned
from backends.registry import open_session
from backends.tensor import Array, probe
from graphs.checkpoint import random_weights
from tests import kinds_tiny
from tests.kinds_tiny import SPECS, exported, operators

GRAPHS = [(kind, role) for kind, spec in SPECS.items() for role in spec.roles]
# What stays of shapes and indices that were not computed before: each of these walks over memory for nothing.
LEFT_OVERS = ("Shape", "ConstantOfShape", "Range", "Expand", "Where", "Einsum", "Resize", "ScatterND", "GatherND", "If")


def _run(kind: str, role: str, backend: str, feeds: dict[str, Array]) -> dict[str, Array]:
    bundle = exported(kind)
    artifact = bundle.find(role, {"ort": "onnx", "torch": "torch"}[backend], "fp32")
    with open_session(bundle, artifact, backend, threads=1) as session:
        return session.run(feeds)


def _feeds(kind: str, role: str) -> dict[str, Array]:
    """Seeded, other than at export: normal floats, tokens of the whole vocabulary, a position in the middle."""
    generator = np.random.default_rng(5)
    graph = SPECS[kind].graph(role)
    feeds = probe(graph.inputs, seed=5)
    for tensor in graph.inputs:
        if tensor.dtype == "float32":
            feeds[tensor.name] = generator.standard_normal(tensor.shape, dtype=np.float32)
        elif tensor.name.startswith("token"):
            feeds[tensor.name] = generator.integers(1, kinds_tiny.CAPTIONER.vocabulary, tensor.shape, dtype=np.int32)
        else:
            assert tensor.name == "position"
            feeds[tensor.name] = np.array([7], np.int32)
    return feeds


@pytest.mark.parametrize(("kind", "role"), GRAPHS)
def test_onnx_runtime_agrees_with_torch_on_other_inputs(kind: str, role: str) -> None:
    feeds = _feeds(kind, role)
    expected, got = _run(kind, role, "torch", feeds), _run(kind, role, "ort", feeds)
    assert expected.keys() == got.keys() == {tensor.name for tensor in SPECS[kind].graph(role).outputs}
    for name, value in expected.items():
        assert np.ptp(value) > 0
        assert np.abs(got[name] - value).max() <= 1e-4 * np.ptp(value), name


@pytest.mark.parametrize(("kind", "role"), GRAPHS)
def test_no_chains_of_shapes_are_left(kind: str, role: str) -> None:
    found = operators(exported(kind), role)
    assert not {name: count for name, count in found.items() if name in LEFT_OVERS}
    # Rows of a table of embeddings or of positions, by token or position.
    assert found["Gather"] <= {"encode_text": 1, "decode_text_prefill": 1, "decode_text_step": 2}.get(role, 0)


@pytest.mark.parametrize(
    ("kind", "role"), [("foveated", "encode_frames"), ("foveated", "language"), ("captioner", "decode_text_step")]
)
def test_attention_is_two_products_and_a_softmax(kind: str, role: str) -> None:
    found = operators(exported(kind), role)
    assert found["Softmax"] == 3  # a block each; the captioner's other attention is over one token, and has none
    assert found["MatMul"] == 2 * 3


@pytest.mark.parametrize("mode", ["small", "base"])
def test_windows_and_positions_cost_few_operators(mode: str) -> None:
    """4 SAM blocks, two of them windowed, with two more products for relative positions; 3 CLIP blocks."""
    found = operators(exported("deepencoder"), mode)
    assert found["Softmax"] == 4 + 3
    assert found["MatMul"] == 4 * 4 + 2 * 3
    assert found["Pad"] == (2 if mode == "small" else 0)  # 8 patches an axis fill windows of 3, 12 fill them
    assert found["Slice"] == found["Pad"] + 1  # and the class token
    assert not found["Split"]
    assert found["Gemm"] == 4 * 6 + 3 * 6 + 1


def test_graphs_of_a_network_share_its_weights() -> None:
    bundle = exported("deepencoder")
    torch_files = {a.file for a in bundle.artifacts if a.format == "torch"}
    data_files = {name for a in bundle.artifacts if a.format == "onnx" for name in a.external_files}
    assert torch_files == {"deepencoder-tiny.safetensors"}
    assert data_files == {"deepencoder-tiny.onnx.data"}
    stored = (bundle.folder / "deepencoder-tiny.onnx.data").stat().st_size
    weights = sum(v.numel() * 4 for v in SPECS["deepencoder"].expected_state().values() if v.is_floating_point())
    assert stored < 1.5 * weights  # two graphs, each page-aligned weight once


def test_what_no_graph_holds_is_in_the_manifest() -> None:

    spec = SPECS["foveated"]
    shapes = {tensor.name: tensor.shape for tensor in spec.learned}
    held = read_learned(exported("foveated"), shapes)
    assert held.keys() == shapes.keys() != set()
    for name, value in random_weights(0, spec).learned.items():
        assert torch.equal(torch.from_numpy(held[name]), value)
