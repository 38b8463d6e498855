"""A damaged file of a correct hash (someone else's bundle) is refused or runs; it never ends the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.registry import BACKENDS

FILES = [
    ("ort", "detector.onnx"),
    ("tflite", "detector.fp32.tflite"),
    ("tflite", "detector.int8-static.tflite"),
    ("torch", "detector.safetensors"),
]

# Runs in a process of its own: what crashes there fails the test, and no other.
_OPEN_DAMAGED = """
import random, resource, sys
from pathlib import Path
import numpy as np
import tests.tiny
from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.registry import BACKENDS

backend, folder, name, kind, count = sys.argv[1:]
bundle = Bundle.open(Path(folder))
artifact = next(a for a in bundle.artifacts if a.file == name)
session_class = BACKENDS.load(backend).session
whole = (bundle.folder / name).read_bytes()
damaged = bundle.folder / ("damaged" + Path(name).suffix)
image = np.zeros(artifact.inputs[0].spec.shape, np.float32)
random.seed(0)
# A damaged shape may ask for any amount of memory: refuse it here and not the whole machine.
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
refused = 0
for i in range(int(count)):
    content = bytearray(whole)
    if kind == "cut":
        del content[i * len(whole) // int(count):]
    elif kind == "flip":
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    else:
        start = random.randrange(len(content))
        content[start:start + 16] = random.randbytes(16)
    damaged.write_bytes(content)
    try:
        with session_class(damaged, artifact, 1) as session:
            session.run({"image": image})
    except InvalidArtifact as error:
        assert str(damaged) in str(error) and "\\n" not in str(error), error
        refused += 1
print(refused)
"""


@pytest.mark.parametrize(("backend", "name"), FILES)
@pytest.mark.parametrize("kind", ["cut", "flip", "noise"])
def test_damage_is_refused_or_harmless(tiny: Bundle, backend: str, name: str, kind: str) -> None:
    count = 150
    run = subprocess.run(
        [sys.executable, "-c", _OPEN_DAMAGED, backend, tiny.folder, name, kind, str(count)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == 0, run.stderr[-2000:]
    refused = int(run.stdout.split()[-1])
    assert refused == count if kind == "cut" else refused > 0


@pytest.mark.parametrize(("backend", "name"), FILES)
@pytest.mark.parametrize(
    "content", [b"", b"\0", b"\x1c\0\0\0TFL3", b"TFL3" * 4, b"PK\x03\x04" + bytes(500), b"\xff" * 4096]
)
def test_what_is_no_model_at_all_is_refused(tiny: Bundle, backend: str, name: str, content: bytes) -> None:
    artifact = next(a for a in tiny.artifacts if a.file == name)
    path = tiny.folder / name
    path.write_bytes(content)
    with pytest.raises(InvalidArtifact, match=name):
        BACKENDS.load(backend).session(path, artifact, 1)
