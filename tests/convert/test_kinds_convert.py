"""The graphs of every kind are lowered and quantized like a detector's, and compute what torch does."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.bundle import Bundle
from backends.errors import InvalidInput, NotAvailable
from backends.registry import open_session
from backends.tensor import probe
from graphs.checkpoint import random_weights
from graphs.networks.captioner.config import captioner_spec
from tests.kinds_tiny import CAPTIONER, LOWERED, PRECISIONS, SPECS, converted, exported
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.quantize.mixed import MixedRequest
from toolkit.export import export_bundle
from toolkit.parity.agreement import conversion_rules


@pytest.mark.parametrize(("kind", "role"), [(kind, role) for kind, roles in LOWERED.items() for role in roles])
def test_tflite_agrees_with_torch(kind: str, role: str) -> None:
    bundle, graph = converted(kind), SPECS[kind].graph(role)
    feeds = probe(graph.inputs, seed=7)
    results = {}
    for backend, file_format in (("torch", "torch"), ("tflite", "tflite")):
        with open_session(bundle, bundle.find(role, file_format, "fp32"), backend, threads=1) as session:
            results[backend] = session.run(feeds)
    assert results["torch"].keys() == {tensor.name for tensor in graph.outputs}
    for name, expected in results["torch"].items():
        difference = np.abs(results["tflite"][name] - expected).max()
        assert difference <= 1e-4 * np.ptp(expected), (name, difference, np.ptp(expected))


@pytest.mark.parametrize("kind", LOWERED)
def test_every_precision_was_made_for_both_runtimes(kind: str) -> None:
    """int8-static as well: the kind brings latents, tokens and caches to calibrate on."""
    made = {(a.role, a.format, a.precision) for a in converted(kind).artifacts}
    for role in LOWERED[kind]:
        assert {(role, "tflite", precision) for precision in PRECISIONS} <= made
        assert {(role, "onnx", precision) for precision in PRECISIONS} <= made
    assert {a.role for a in converted(kind).artifacts if a.format == "tflite"} == set(LOWERED[kind])


def test_what_cannot_be_lowered_or_calibrated_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "foveated"
    shutil.copytree(exported("foveated").folder, folder)
    with pytest.raises(NotAvailable, match="no detector onnx fp32; there is encode_frames.onnx"):
        convert_bundle(folder, conversion_rules, ("fp32",), roles=("detector",), strict=True)
    with pytest.raises(InvalidInput, match="calibration photos: no such folder"):
        convert_bundle(
            folder,
            conversion_rules,
            ("int8-static",),
            calibration=Calibration(Path("photos")),
            roles=("query_deep",),
            strict=True,
        )
    with pytest.raises(InvalidInput, match="precision mixed needs a model that reads messages"):
        convert_bundle(
            folder,
            conversion_rules,
            ("mixed",),
            mixed=MixedRequest.of("flips<=1%", tmp_path, None),
            roles=("language",),
            strict=True,
        )
    bundle = Bundle.open(folder)
    replace(bundle, artifacts=tuple(a for a in bundle.artifacts if a.role != "encode_frames")).write()
    with pytest.raises(NotAvailable, match="no encode_frames onnx fp32"):  # without which a query sees nothing
        convert_bundle(
            folder,
            conversion_rules,
            ("int8-static",),
            calibration=Calibration(None),
            roles=("query_deep",),
            strict=True,
        )


def test_a_layer_that_no_slice_can_hold_is_split_and_computes_the_same_in_every_precision(tmp_path: Path) -> None:
    # The first Linear has 8320 bytes, as the large captioner's has 2.1 GB; no other layer has over 5248.
    spec = captioner_spec("wide", "tiny", replace(CAPTIONER, image_size_px=64)).only("decode_image")
    export_bundle(spec, random_weights(0, spec), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "split")
    precisions = ("fp32", "fp16", "int8", "int8-w")
    cut: list[str] = []
    whole = convert_bundle(tmp_path / "whole", conversion_rules, precisions, strict=True).bundle
    split = convert_bundle(
        tmp_path / "split", conversion_rules, precisions, slice_limit_bytes=5248, progress=cut.append, strict=True
    ).bundle
    assert sum(step.startswith("cutting slice") for step in cut) > 2
    feeds = probe(spec.graph("decode_image").inputs, seed=7)
    for precision in precisions:
        images = []
        for bundle in (whole, split):
            artifact = bundle.find("decode_image", "tflite", precision)
            with open_session(bundle, artifact, "tflite", threads=1) as session:
                images.append(session.run(feeds)["image"])
        np.testing.assert_allclose(images[1], images[0], rtol=0, atol=1e-6, err_msg=precision)
