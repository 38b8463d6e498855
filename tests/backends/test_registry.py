"""Names load on first use; duplicates and unknown names are told."""

import subprocess
import sys

import pytest

from backends.errors import NotAvailable
from backends.registry import SESSIONS, Registry


def test_importing_the_core_imports_no_runtime() -> None:
    code = (
        "import sys, backends.registry, backends.bundle\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} "
        "& {'torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'safetensors', 'PIL'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_backend_loads_and_names_its_format() -> None:
    assert {name: SESSIONS.load(name).FORMAT for name in SESSIONS.names} == {
        "ort": "onnx",
        "tflite": "tflite",
        "torch": "torch",
    }


def test_a_duplicate_is_refused() -> None:
    registry = Registry("thing")
    registry.register("a", "math:sin", needs="math")
    with pytest.raises(ValueError, match="'a' is registered already, as math:sin"):
        registry.register("a", "math:cos", needs="math")
    assert registry.load("a")(0.0) == 0.0


def test_a_miss_lists_what_there_is() -> None:
    with pytest.raises(NotAvailable, match="no backend named 'onnx'; there is ort, tflite, torch"):
        SESSIONS.load("onnx")


def test_a_missing_package_is_named_with_the_command_that_helps() -> None:
    registry = Registry("thing")
    registry.register("a", "no_such_module_here:x", needs="some-package")
    with pytest.raises(NotAvailable, match=r"no_such_module_here.*pip install some-package"):
        registry.load("a")


def test_a_target_without_an_attribute_is_refused() -> None:
    with pytest.raises(ValueError, match="expected module:attribute"):
        Registry("thing").register("a", "math", needs="math")
