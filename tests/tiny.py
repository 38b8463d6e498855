"""Two networks small enough to commit, in every format: they stand in for a model where only the plumbing is tested.

`python -m tests.tiny CONVERTER_PYTHON` makes tests/golden/tiny again, with the environment of `[export]`;
CONVERTER_PYTHON is the interpreter of the converter's environment.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backends.artifact import Artifact
from backends.bundle import Bundle, WeightsOrigin, sha256_of
from backends.registry import ARCHITECTURES
from backends.tensor import Binding, TensorSpec

FOLDER = Path(__file__).parent / "golden" / "tiny"
BITS, DETECTOR_PX, EMBEDDER_PX = 8, 32, 16
ARCHITECTURE = {"name": "tiny-detector", "config": {"bits": BITS}}


class TinyDetector(nn.Module):
    """image (1, 3, S, S) in [0, 1] -> logits (1, 1 + bits)."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(16, 1 + bits)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(image * 2 - 1).mean(dim=(2, 3)))
        return logits


class TinyEmbedder(nn.Module):
    """image (1, 3, E, E) in [0, 1], message (1, bits) of 0 and 1 -> watermark (1, 1, E, E) in [-1, 1]."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.patterns = nn.Linear(bits, EMBEDDER_PX * EMBEDDER_PX)
        self.mix = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, image: Tensor, message: Tensor) -> Tensor:
        drawn = self.patterns(message * 2 - 1).reshape(1, 1, EMBEDDER_PX, EMBEDDER_PX)
        return torch.tanh(self.mix(torch.cat([image * 2 - 1, drawn], dim=1)))


def build_detector(config: dict[str, Any]) -> TinyDetector:
    return TinyDetector(config["bits"])


if ARCHITECTURE["name"] not in ARCHITECTURES.names:
    ARCHITECTURES.add("tiny-detector", build_detector)


_CONVERT = """
import shutil, subprocess, sys
from pathlib import Path
import numpy as np
from ai_edge_quantizer import quantizer, recipe
folder = Path(sys.argv[1])
subprocess.run(["onnx2tf", "-i", str(folder / "detector.onnx"), "-o", str(folder / "out")], check=True)
fp32 = folder / "detector.fp32.tflite"
shutil.copy(folder / "out" / "detector_float32.tflite", fp32)
(folder / "detector.int8.tflite").write_bytes(
    quantizer.Quantizer(str(fp32), recipe.dynamic_wi8_afp32()).quantize().quantized_model)
static = quantizer.Quantizer(str(fp32), recipe.static_wi8_ai8())
random = np.random.default_rng(0)
from ai_edge_litert.interpreter import Interpreter
name = list(Interpreter(str(fp32)).get_signature_runner().get_input_details())[0]
shape = Interpreter(str(fp32)).get_input_details()[0]["shape"]
data = {"serving_default": [{name: random.random(shape, dtype=np.float32)} for _ in range(8)]}
(folder / "detector.int8-static.tflite").write_bytes(static.quantize(static.calibrate(data)).quantized_model)
"""


def _stored(details: dict[str, Any], spec: TensorSpec) -> Binding:
    shape = tuple(int(size) for size in details["shape"])
    layout = "NHWC" if spec.layout == "NCHW" else None
    dtype = details["dtype"].__name__
    stored = TensorSpec(details["name"], shape, dtype, layout)
    if dtype == "float32":
        return Binding(spec, stored)
    scale, zero_point = details["quantization"]
    return Binding(spec, stored, scale, zero_point)


def _artifact(file: str, bindings: tuple[list[Binding], list[Binding]], precision: str = "fp32") -> Artifact:
    kind = {".onnx": "onnx", ".tflite": "tflite", ".safetensors": "torch"}[Path(file).suffix]
    path = FOLDER / file
    return Artifact(
        file=file,
        role=file.partition(".")[0],
        format=kind,
        precision=precision,
        route="direct" if kind == "tflite" else None,
        inputs=tuple(bindings[0]),
        outputs=tuple(bindings[1]),
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        external_files=(),
        parent=None,
        tools={"torch": torch.__version__.partition("+")[0]},
        architecture=ARCHITECTURE if kind == "torch" else None,
    )


def main(converter_python: str) -> None:
    import onnx
    from ai_edge_litert.interpreter import Interpreter
    from safetensors.torch import save_file

    torch.manual_seed(0)
    detector, embedder = TinyDetector(BITS).eval(), TinyEmbedder(BITS).eval()
    image = TensorSpec("image", (1, 3, DETECTOR_PX, DETECTOR_PX), "float32", "NCHW")
    logits = TensorSpec("logits", (1, 1 + BITS), "float32", None)
    small = TensorSpec("image", (1, 3, EMBEDDER_PX, EMBEDDER_PX), "float32", "NCHW")
    message = TensorSpec("message", (1, BITS), "float32", None)
    watermark = TensorSpec("watermark", (1, 1, EMBEDDER_PX, EMBEDDER_PX), "float32", "NCHW")
    for module, name, inputs, output in (
        (detector, "detector", [image], logits),
        (embedder, "embedder", [small, message], watermark),
    ):
        path = FOLDER / f"{name}.onnx"
        program = torch.onnx.export(
            module, tuple(torch.zeros(spec.shape) for spec in inputs), dynamo=True, opset_version=18,
            input_names=[spec.name for spec in inputs], output_names=[output.name],
        )  # fmt: skip
        assert program is not None
        graph = program.model_proto
        for node in graph.graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
        graph.ir_version = 10
        onnx.save(graph, path)
    save_file(detector.state_dict(), FOLDER / "detector.safetensors")
    (FOLDER / "detector.safetensors").chmod(0o644)

    converter = Path(converter_python)
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "detector.onnx").write_bytes((FOLDER / "detector.onnx").read_bytes())
        environment = {**os.environ, "PATH": f"{converter.parent}:{os.environ['PATH']}"}
        subprocess.run([converter, "-c", _CONVERT, work], check=True, env=environment)
        for path in Path(work).glob("*.tflite"):
            (FOLDER / path.name).write_bytes(path.read_bytes())

    same = ([Binding.same(image)], [Binding.same(logits)])
    artifacts = [
        _artifact("detector.onnx", same),
        _artifact("detector.safetensors", same),
        _artifact("embedder.onnx", ([Binding.same(small), Binding.same(message)], [Binding.same(watermark)])),
    ]
    for path in sorted(FOLDER.glob("*.tflite")):
        interpreter = Interpreter(str(path))
        stored = (
            [_stored(interpreter.get_input_details()[0], image)],
            [_stored(interpreter.get_output_details()[0], logits)],
        )
        artifacts.append(_artifact(path.name, stored, path.name.split(".")[1]))
    embedder_model = {"image_size_px": EMBEDDER_PX, "channels": 1, "scaling_w": 0.2, "scaling_i": 1.0}
    model = {
        "name": "tiny",
        "kind": "watermark",
        "bits": BITS,
        "image_size_px": DETECTOR_PX,
        "embedder": {**embedder_model, "attenuation": "jnd_1_1"},
        "detection_threshold": 0.0,
    }
    weights = WeightsOrigin("random", sha256_of(FOLDER / "detector.safetensors"), "seed 0")
    Bundle(FOLDER, model, weights, tuple(artifacts)).write()


if __name__ == "__main__":
    main(sys.argv[1])
