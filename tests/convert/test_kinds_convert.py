"""The graphs of every kind are lowered and quantized like a detector's, and compute what torch does."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from backends.bundle import Bundle
from backends.errors import InvalidInput, NotAvailable
from backends.registry import open_session
from graphs.export import probe
from tests.kinds_tiny import SPECS, exported
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle

# One of each shape of graph: windows, stacked caches, causal attention, transposed convolutions, a step of a decoder.
LOWERED = {
    "deepencoder": ("base",),
    "foveated": ("encode_frames", "query_deep", "language"),
    "captioner": ("decode_image", "decode_text_step"),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    bundles = {}
    for kind, roles in LOWERED.items():
        folder = tmp_path_factory.mktemp("kinds") / kind
        shutil.copytree(exported(kind).folder, folder)
        bundles[kind] = convert_bundle(folder, ("fp32", "int8"), roles=roles)
    return bundles


@pytest.mark.parametrize(("kind", "role"), [(kind, role) for kind, roles in LOWERED.items() for role in roles])
def test_tflite_agrees_with_torch(converted: dict[str, Bundle], kind: str, role: str) -> None:
    bundle, graph = converted[kind], SPECS[kind].graph(role)
    feeds = probe(graph.inputs, seed=7)
    results = {}
    for backend, file_format in (("torch", "torch"), ("tflite", "tflite")):
        with open_session(bundle, bundle.find(role, file_format, "fp32"), backend, threads=1) as session:
            results[backend] = session.run(feeds)
    for name, expected in results["torch"].items():
        difference = np.abs(results["tflite"][name] - expected).max()
        assert difference <= 1e-4 * np.ptp(expected), (name, difference, np.ptp(expected))


def test_every_precision_was_made_for_both_runtimes(converted: dict[str, Bundle]) -> None:
    for kind, roles in LOWERED.items():
        made = {(a.role, a.format, a.precision) for a in converted[kind].artifacts}
        for role in roles:
            assert {(role, "tflite", "fp32"), (role, "tflite", "int8"), (role, "onnx", "int8")} <= made
        others = {a.role for a in converted[kind].artifacts if a.format == "tflite"}
        assert others == set(roles)


def test_what_cannot_be_lowered_or_calibrated_is_said(converted: dict[str, Bundle]) -> None:
    folder = converted["foveated"].folder
    with pytest.raises(NotAvailable, match="no detector onnx fp32; there is encode_frames.onnx"):
        convert_bundle(folder, ("fp32",), roles=("detector",))
    with pytest.raises(InvalidInput, match="a graph of kind 'foveated' cannot be calibrated on images"):
        convert_bundle(folder, ("int8-static",), calibration=Calibration(Path("photos")), roles=("encode_frames",))
