"""A stitched file computes what the file made in one piece does, bit for bit, in every precision."""

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.litert import TfliteSession
from backends.registry import open_session
from backends.tensor import Array
from graphs.onnx.part import run_part
from graphs.tflite import stitch
from graphs.tflite.graph import Graph, Node, Payload, Tensor, read_graph
from graphs.tflite.part import TflitePartSession, cut
from graphs.tflite.stitch import Lowered, layer_names, mix
from graphs.tflite.transposes import cancel_transposes
from graphs.tflite.writer import write_graph
from tests import seal_tiny
from tests.seal_tiny import IMAGES, PRECISIONS
from tests.shared import made_once
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.parity.agreement import conversion_rules

# A limit for each, small enough for several slices: a ConvNeXt is cut between maps, one with an odd one among them;
# a ViT between tokens too, which the lowering takes for maps and transposes.
LIMITS = {"chunkyseal-tiny": 40_000, "videoseal-0.0-tiny": 24_000}

Pair = tuple[Bundle, Bundle]


@pytest.fixture(params=LIMITS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """The same model, converted whole and in slices."""
    name = request.param

    def make(folder: Path) -> None:
        shutil.copytree(seal_tiny.exported(name).folder, folder / "sliced")
        convert_bundle(
            folder / "sliced",
            conversion_rules,
            PRECISIONS,
            calibration=Calibration(IMAGES),
            slice_limit_bytes=LIMITS[name],
            strict=True,
        )

    return seal_tiny.converted(name), Bundle.open(made_once(f"sliced-{name}", make) / "sliced")


def _logits(bundle: Bundle, precision: str) -> Array:
    artifact = bundle.find("detector", "tflite", precision)
    random = np.random.default_rng(0)
    with open_session(bundle, artifact, "tflite", threads=1) as session:
        images = [random.random((1, 3, 64, 64), dtype=np.float32) for _ in range(4)]
        return np.concatenate([session.run({"image": image})["logits"] for image in images])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_outputs_are_the_same_bit_for_bit(pair: Pair, precision: str) -> None:
    whole, sliced = (_logits(bundle, precision) for bundle in pair)
    assert np.abs(whole).max() > 0.1
    np.testing.assert_array_equal(sliced, whole)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_stitched_file_is_like_any_other(pair: Pair, precision: str) -> None:
    whole, sliced = (bundle.find("detector", "tflite", precision) for bundle in pair)
    assert (sliced.file, sliced.parent, sliced.tools) == (whole.file, whole.parent, whole.tools)
    assert [b.spec for b in (*sliced.inputs, *sliced.outputs)] == [b.spec for b in (*whole.inputs, *whole.outputs)]
    graph = read_graph(pair[1].folder / sliced.file)
    names = [tensor.table.name for tensor in graph.tensors()]
    assert len(set(names)) == len(names)
    assert graph.metadata.keys() == read_graph(pair[0].folder / whole.file).metadata.keys()
    assert sliced.bytes < 1.05 * whole.bytes


def test_every_file_says_which_tensor_of_the_graph_each_of_its_own_is(pair: Pair) -> None:
    model = ir.load(pair[0].folder / "detector.onnx")
    names = {str(value.name) for node in model.graph for value in node.outputs}
    for bundle in pair:
        graphs = {p: read_graph(bundle.folder / bundle.find("detector", "tflite", p).file) for p in PRECISIONS}
        for precision, graph in graphs.items():
            held = {one.name: one.order for one in graph.origins}
            assert held == {one.name: one.order for one in graphs["fp32"].origins}, precision
            assert {"image", "logits"} <= held.keys()
            # What is left are tensors that the file does not compute: transposes that met, constants.
            assert len(names & held.keys()) > 0.9 * len(names)


def test_a_tensor_holds_what_the_graph_computes(pair: Pair, tmp_path: Path) -> None:
    folder = pair[0].folder
    model = ir.load(folder / "detector.onnx")
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    feeds = {"image": np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)}
    for bundle in pair:
        graph = read_graph(bundle.folder / "detector.fp32.tflite")
        held = [one for one in graph.origins if one.name in values]
        expected = run_part(model, [values[one.name] for one in held], feeds, folder)
        part = cut(graph, [one.tensor for one in held], list(graph.inputs.values()))
        write_graph(part, tmp_path / "part.tflite")
        got = TflitePartSession(tmp_path / "part.tflite").run({"image": feeds["image"].transpose(0, 2, 3, 1)})
        for one in held:
            wanted = expected[one.name] if one.order is None else expected[one.name].transpose(one.order)
            np.testing.assert_allclose(
                got[one.tensor.name], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=one.name
            )


def test_a_mixture_is_the_same_whatever_it_was_cut_into(pair: Pair, tmp_path: Path) -> None:
    names = [layer_names(bundle.folder / "detector.int8.tflite") for bundle in pair]
    assert names[0] == names[1]
    results = []
    for i, bundle in enumerate(pair):
        fp16, int8 = (bundle.find("detector", "tflite", precision) for precision in ("fp16", "int8"))
        path = tmp_path / f"{i}.tflite"
        write_graph(mix(bundle.folder / fp16.file, bundle.folder / int8.file, names[0][::2]), path)
        held, whole = ([one.name for one in read_graph(p).origins] for p in (path, bundle.folder / fp16.file))
        assert held == whole
        random = np.random.default_rng(0)
        with TfliteSession(path, fp16, threads=1) as session:
            images = [random.random((1, 3, 64, 64), dtype=np.float32) for _ in range(4)]
            results.append(np.concatenate([session.run({"image": image})["logits"] for image in images]))
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], _logits(pair[0], "int8"))


def test_no_transpose_meets_its_inverse(pair: Pair) -> None:
    whole, sliced = (read_graph(b.folder / b.find("detector", "tflite", "fp32").file) for b in pair)
    assert cancel_transposes(sliced) == 0
    # Only where the decoder pads is there an operator between the transposes of a seam.
    assert len(sliced.nodes) - len(whole.nodes) <= 2


def test_slices_in_the_wrong_order_are_refused(pair: Pair) -> None:
    path = pair[0].folder / "detector.fp32.tflite"
    piece = Lowered(path, {"image": "NHWC", "logits": None})
    with pytest.raises(InvalidArtifact, match=r"the slices need \['image'\], expected inputs \['picture'\]"):
        stitch.stitch([piece], ["picture"], ["logits"])


def test_slices_that_do_not_fit_are_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pair[0].folder / "detector.fp32.tflite"
    first, second = read_graph(path), read_graph(path)
    second.inputs = {"logits": second.inputs["image"]}
    graphs = iter([first, second])
    monkeypatch.setattr(stitch, "read_graph", lambda path: next(graphs))
    piece = Lowered(path, {"image": None, "logits": None})
    with pytest.raises(InvalidArtifact, match=r"the slices do not fit at 'logits': one makes type 0 \(1, "):
        stitch.stitch([piece, piece], ["image"], ["logits"])


def _tensor(name: bytes) -> Tensor:
    table = schema.TensorT()
    table.name, table.shape, table.type = name, [1, 2, 3, 4], 0
    return Tensor(table, None)


def test_small_constants_of_the_same_bytes_are_stored_once() -> None:
    def constant(name: bytes, data: bytes) -> Tensor:
        tensor = _tensor(name)
        tensor.payload = Payload(None, 0, len(data), data)
        return tensor

    x, y = _tensor(b"x"), _tensor(b"y")
    large = b"\1" * (2 << 20)
    inputs = [x, constant(b"a", b"same"), constant(b"b", b"same"), constant(b"c", b"else")]
    weights = [constant(b"d", large), constant(b"e", large)]
    graph = Graph(b"", {"x": x}, {"y": y}, [Node(None, (0, None, 1), [*inputs, *weights], [y], [])])
    stitch.share_constants(graph)
    first, second, third = (tensor.payload for tensor in inputs[1:])
    assert first is second
    assert third is not None
    assert third.data == b"else"
    assert weights[0].payload is not weights[1].payload, "large ones are not read for it"
