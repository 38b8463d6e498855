"""A tiny model of every kind that is not a watermark's, with the bundle that an export makes of it."""

import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import onnx

from backends.bundle import Bundle
from graphs.checkpoint import random_weights
from graphs.networks.captioner.config import CaptionerConfig, captioner_spec
from graphs.networks.deepencoder.config import deepencoder_spec
from graphs.networks.foveated.config import foveated_spec
from graphs.networks.spec import ModelSpec
from tests import deepencoder_tiny, foveated_tiny
from tests.shared import made_once
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.export import export_bundle
from toolkit.parity.agreement import conversion_rules

CAPTIONER = CaptionerConfig(
    32, (4, 6, 8, 10), latent=12, embedding=16, vocabulary=40, depth=3, num_heads=4, max_tokens=20
)
# 128 px is where the golden's positions were learned; at 192 they are resized. 8 and 12 patches an axis, windows of 3.
_MODES = {"small": deepencoder_tiny.config(128), "base": deepencoder_tiny.config(192)}
SPECS = {
    "deepencoder": deepencoder_spec("deepencoder-tiny", "tiny", _MODES),
    "foveated": foveated_spec("foveated-tiny", "tiny", foveated_tiny.config()),
    "captioner": captioner_spec("captioner-tiny", "tiny", CAPTIONER),
}


@cache
def exported(kind: str) -> Bundle:
    """The bundle of a kind's tiny model, random weights inside, made once a test run. Not to be changed."""
    spec = SPECS[kind]

    def make(folder: Path) -> None:
        export_bundle(spec, random_weights(0, spec), folder / spec.name)

    return Bundle.open(made_once(f"exported-{kind}", make) / spec.name)


# One of each shape of graph: windows, stacked caches, causal attention, transposed convolutions, a whole text decoder.
LOWERED = {
    "deepencoder": ("base",),
    "foveated": ("encode_frames", "query_deep", "language"),
    "captioner": ("encode_image", "decode_image", "decode_text_prefill", "decode_text_step"),
}
PRECISIONS = ("fp32", "int8", "int8-static")


@cache
def converted(kind: str) -> Bundle:
    """That bundle with the files that some of its graphs are lowered to, made once a test run. Not to be changed."""

    def make(folder: Path) -> None:
        shutil.copytree(exported(kind).folder, folder / kind)
        convert_bundle(
            folder / kind, conversion_rules, PRECISIONS, roles=LOWERED[kind], calibration=Calibration(None), strict=True
        )

    return Bundle.open(made_once(f"converted-{kind}", make) / kind)


def spec_of(kind: str) -> ModelSpec:
    return SPECS[kind]


def operators(bundle: Bundle, role: str) -> Counter[str]:
    """How often each operator stands in an ONNX graph."""
    path = bundle.folder / bundle.find(role, "onnx", "fp32").file
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
