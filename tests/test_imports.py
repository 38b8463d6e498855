"""Running a bundle takes a runtime and nothing that made it; what made it may be absent or broken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COFFEE = ROOT / "tests" / "images" / "coffee.jpg"
TINY = ROOT / "tests" / "golden" / "tiny"
# Every import of these fails, as where they are not installed.
BLOCKED = """
import sys
blocked = {blocked!r}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
sys.meta_path.insert(0, Blocker())
from toolkit.cli import main
main({arguments!r}, prog_name="toolkit")
"""
MAKERS = ["torch", "onnx", "onnxsim", "onnxscript", "onnx2tf", "tensorflow", "ai_edge_quantizer", "safetensors"]


def toolkit(*arguments: str, blocked: list[str]) -> "subprocess.CompletedProcess[str]":
    code = BLOCKED.format(blocked=blocked, arguments=list(arguments))
    # From the root folder: the bundle that ships in the package, and not one in ./build.
    return subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("backend", "precision", "other"),
    [("ort", "fp32", "ai_edge_litert"), ("ort", "int8", "ai_edge_litert"), ("tflite", "fp32", "onnxruntime"),
     ("tflite", "fp16", "onnxruntime"), ("tflite", "int8", "onnxruntime")],
)  # fmt: skip
def test_the_shipped_bundle_runs_without_what_made_it_or_the_other_runtime(
    backend: str, precision: str, other: str
) -> None:
    arguments = ["run", str(COFFEE), "--json", "--backend", backend, "-p", precision]
    done = toolkit(*arguments, blocked=[*MAKERS, other])
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["model"], row["backend"], row["weights"]) == ("pocketseal", backend, "trained")


def test_a_message_is_hidden_without_what_made_the_bundle(tmp_path: Path) -> None:
    out = tmp_path / "marked.jpg"
    done = toolkit(
        "embed", str(COFFEE), "--message", "0123456789abcdef", "-o", str(out), blocked=[*MAKERS, "ai_edge_litert"]
    )
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("backend", "missing", "package"),
    [
        ("ort", "onnxruntime", "onnxruntime"),
        ("tflite", "ai_edge_litert", "ai-edge-litert"),
        ("torch", "torch", "torch"),
    ],
)
def test_a_missing_runtime_is_one_line_that_names_the_package(backend: str, missing: str, package: str) -> None:
    done = toolkit("run", str(COFFEE), "--bundle", str(TINY), "--backend", backend, blocked=[missing])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"`pip install {package}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def imported_with(command: str) -> set[str]:
    code = f"import sys, {command}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "command",
    [
        "toolkit",
        "toolkit.models.watermark.detector",
        "toolkit.models.watermark.embed",
        "graphs.networks.models",
        "backends.registry",
    ],
)
def test_importing_imports_no_runtime(command: str) -> None:
    assert not {"torch", "onnx", "onnxruntime", "ai_edge_litert", "tensorflow", "onnx2tf"} & imported_with(command)


def test_a_conversion_imports_no_torch() -> None:
    """A second of every conversion, and 200 MB, for a graph that was exported long ago."""
    assert "torch" not in imported_with("toolkit.convert.pipeline, toolkit.bench.speed")
