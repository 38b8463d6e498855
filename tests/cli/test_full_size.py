"""The whole chain at a published size, as a person types it: export, convert, embed, run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.registry import open_session
from backends.tensor import Array
from graphs.checkpoint import random_weights
from graphs.export import probe
from graphs.spec import find_spec
from toolkit.cli import main

MODELS = ("videoseal-1.0", "videoseal-0.0", "pixelseal")
LIMIT_BYTES = 8e9
COFFEE = Path(__file__).parents[1] / "images" / "coffee.jpg"


def toolkit(*arguments: object) -> Result:
    shown = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert shown.exit_code == 0, shown.stderr
    return shown


@pytest.mark.large
def test_videoseal_runs_on_every_backend_and_reads_the_same_message(tmp_path: Path) -> None:
    bundle, marked = tmp_path / "videoseal-1.0", tmp_path / "marked.png"
    toolkit("export", "videoseal-1.0", "--random", 0, "-o", tmp_path)
    toolkit("convert", bundle, "-p", "fp32", "-p", "int8")
    toolkit("embed", COFFEE, "--message", "01234567" * 8, "--bundle", bundle, "-o", marked)

    messages = {}
    for choice in ("torch fp32", "ort fp32", "tflite fp32", "ort int8", "tflite int8"):
        backend, precision = choice.split()
        row = json.loads(toolkit("run", marked, "--bundle", bundle, "-b", backend, "-p", precision, "--json").stdout)
        assert (row["bits"], row["detected"], row["weights"]) == (256, None, "random")
        messages[backend, precision] = int(row["message"], 16)
    reference = messages["torch", "fp32"]
    for (backend, precision), message in messages.items():
        different = (message ^ reference).bit_count()
        # Logits of random weights lie near 0, where rounding alone decides a bit.
        assert different <= (0 if precision == "fp32" else 8), (backend, precision, different)


def in_a_process(code: str, *arguments: object) -> int:
    """Run Python in a process of its own. Returns its peak memory in bytes, mapped files included."""
    code = f"{code}\nimport resource; print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    return 1024 * int(shown.stdout.rpartition("peak")[2])


_EXPORT = """
import sys
from toolkit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    assert left.code == 0, left.code
"""
_QUANTIZE = """
import sys
from pathlib import Path
from toolkit.convert.onnx_quantize import quantize_onnx
from toolkit.convert.recipes import RECIPES
quantize_onnx(Path(sys.argv[1]), Path(sys.argv[2]), RECIPES["int8"])
"""


@pytest.mark.large
@pytest.mark.parametrize("name", MODELS)
def test_a_published_checkpoint_embeds_and_detects(name: str, tmp_path: Path) -> None:
    path, marked = tmp_path / "checkpoint.pth", tmp_path / "marked.png"
    write_checkpoint(path, name, "detector", "embedder")
    toolkit("export", name, "--checkpoint", path, "-o", tmp_path)
    bundle = Bundle.open(tmp_path / name)
    assert bundle.weights == {"origin": "checkpoint", "sha256": sha256_of(path), "source": path.name}
    digits = bundle.model["bits"] // 4
    toolkit("embed", COFFEE, "--message", "5a" * (digits // 2), "--bundle", bundle.folder, "-o", marked)
    row = json.loads(toolkit("run", marked, "--bundle", bundle.folder, "--json").stdout)
    assert (row["weights"], row["bits"]) == ("checkpoint", bundle.model["bits"])


def write_checkpoint(path: Path, name: str, *roles: str) -> None:
    """Random weights in the published layout, with the keys that such a file also has."""
    states = random_weights(0, find_spec(name).only(*roles)).states
    state = {f"{role}.{key}": value for role in roles for key, value in states[role].items()}
    extra = {"attenuation.conv_x.weight": torch.zeros(1), "blender.scaling": torch.zeros(1)}
    torch.save({"model": state | extra, "args": "nbits: 1024", "epoch": 600}, path)


@pytest.mark.large
def test_chunkyseal_stays_under_eight_gigabytes_and_quantizes_to_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    write_checkpoint(path, "chunkyseal", "detector")
    assert path.stat().st_size > 2 << 30
    export = ["export", "chunkyseal", "--checkpoint", path, "--role", "detector", "--no-torch", "-o", tmp_path]
    assert in_a_process(_EXPORT, *export) <= LIMIT_BYTES
    bundle = Bundle.open(tmp_path / "chunkyseal")
    assert bundle.weights == {"origin": "checkpoint", "sha256": sha256_of(path), "source": path.name}
    float32 = bundle.find("detector", "onnx", "fp32")
    assert float32.external_files == ("detector.onnx.data",)

    small = bundle.folder / "detector.int8.onnx"
    assert in_a_process(_QUANTIZE, bundle.folder / "detector.onnx", small) <= LIMIT_BYTES
    files = (small, small.with_name("detector.int8.onnx.data"))
    size = sum(file.stat().st_size for file in files)
    assert size <= 1_000_000_000
    values = float32.to_json() | {
        "file": files[0].name,
        "precision": "int8",
        "external_files": [files[1].name],
        "sha256": sha256_of(*files),
        "bytes": size,
    }
    int8 = Artifact.from_json(values, "int8")
    expected, got = (logits(bundle, artifact) for artifact in (float32, int8))
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.1
    cut = path.stat().st_size // 2
    with path.open("r+b") as file:
        file.truncate(cut)
    shown = CliRunner().invoke(main, ["export", "chunkyseal", "--checkpoint", str(path), "-o", str(tmp_path)])
    assert (shown.exit_code, shown.stderr.count("\n")) == (2, 1)


def logits(bundle: Bundle, artifact: Artifact) -> Array:
    with open_session(bundle.with_artifact(artifact), artifact, "ort", threads=2) as session:
        return session.run(probe(tuple(binding.spec for binding in artifact.inputs)))["logits"]
