"""`toolkit doctor`: its tables fit 80 columns, --json has every figure, and the exit code tells broken parts apart."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backends.machine import Machine
from backends.precision import RECIPES
from backends.registry import BACKENDS
from toolkit.cli import main
from toolkit.doctor import diagnosis
from toolkit.doctor.diagnosis import Diagnosis, Needs
from toolkit.doctor.runtimes import BROKEN, MISSING, WORKS, Check, Trial
from toolkit.models.kind import all_models

FLAGS = ["avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]
MACHINE = Machine(
    "2026-01-02",
    "Linux x86_64",
    "3.12.1",
    64,
    {"seal-toolkit": "0.1.0"},
    "A(R) Processor of a long name",
    FLAGS,
    256.0,
    0.5,
)
LONG = "its outputs differ from float32 by 0.3 of their size, expected at most 0.1"
FOUND = Diagnosis(
    MACHINE,
    Path("build"),
    20 * 10**9,
    10**9,
    (
        Check("runtime ort", WORKS, "onnxruntime 1.31.1"),
        Check("runtime torch.compile", MISSING, "not installed", "install it with `pip install torch`"),
        Check("packages of export", WORKS, ", ".join(f"package-{i} 1.2.3" for i in range(8))),
    ),
    (
        Trial("ort", "fp32", "detector.onnx", WORKS, median_ms=4.126),
        Trial("ort", "int8", "detector.int8.onnx", WORKS, median_ms=2.5),
        Trial("ort", "fp16", "detector.fp16.onnx", MISSING, "this processor has none"),
    ),
    (Needs("small", 10**9, 3 * 10**9, 10**9), Needs("large", 10**10, 3 * 10**10, 2 * 10**10)),
)


def doctor(monkeypatch: pytest.MonkeyPatch, found: Diagnosis, *arguments: str) -> Result:
    monkeypatch.setattr(diagnosis, "diagnose", lambda folder, progress: found)
    return CliRunner(env={"COLUMNS": "80"}).invoke(main, ["doctor", *arguments], catch_exceptions=False)


def test_the_tables_fit_80_columns_and_advice_is_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = doctor(monkeypatch, FOUND)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(shown.stdout.split())
    for word in (
        "A(R) Processor of a long name (AVX-512, VNNI, BF16, AMX), 64 cores, load 0.5 at the start; 256.0 GB",
        "seal-toolkit 0.1.0, Python 3.12.1, Linux x86_64",
        "ort int8 works 2.50 fastest",
        "ort fp32 works 4.13",
        "missing: this processor has none",
        "large 10.00 30.00 20.00",
        "free here 20.00 1.00",
        "not tried, because pocketseal ships without such a file: int8-static",
        "What to do: - runtime torch.compile: install it with `pip install torch`",
    ):
        assert word in text
    assert shown.stdout.count("fastest") == 1
    assert "busy" not in text
    busy = replace(FOUND, machine=replace(MACHINE, load=64.5))
    assert "the machine is busy: these times are too long" in doctor(monkeypatch, busy).stdout


def test_a_broken_part_is_exit_code_1_and_a_missing_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Check("converter", BROKEN, "No module named 'onnx2tf'", f"remove it; {LONG * 3}")
    shown = doctor(monkeypatch, replace(FOUND, checks=(*FOUND.checks, broken)))
    assert shown.exit_code == 1
    assert f"- converter: remove it; {LONG * 3}" in shown.stdout.splitlines()
    shown = doctor(monkeypatch, replace(FOUND, checks=FOUND.checks[:1]))
    assert shown.exit_code == 0
    assert "Everything works." in shown.stdout


def test_json_is_one_line_with_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = doctor(monkeypatch, FOUND, "--json")
    (line,) = shown.stdout.splitlines()
    found = json.loads(line)
    assert found["machine"] == MACHINE.to_json()
    assert found["checks"][1] == {
        "part": "runtime torch.compile",
        "state": "missing",
        "detail": "not installed",
        "advice": "install it with `pip install torch`",
    }
    assert [trial["median_ms"] for trial in found["trials"]] == [4.126, 2.5, None]
    assert found["models"][1]["disk_bytes"] == 3 * 10**10
    assert (found["folder"], found["free_disk_bytes"], found["exit_code"]) == ("build", 20 * 10**9, 0)


def test_on_this_machine_every_part_is_found_by_the_registries() -> None:
    shown = CliRunner().invoke(main, ["doctor", "--json"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.stdout
    assert shown.stderr == ""
    found = json.loads(shown.stdout)
    parts = {check["part"]: check["state"] for check in found["checks"]}
    assert {f"runtime {name}" for name in BACKENDS.names} <= parts.keys()
    for part in ("runtime ort", "runtime tflite", "runtime torch", "packages of export", "converter", "disk"):
        assert parts[part] != BROKEN, shown.stdout
    assert {(trial["backend"], trial["precision"]) for trial in found["trials"]} >= {
        ("ort", "fp32"),
        ("tflite", "int8"),
        ("torch", "fp32"),
    }
    assert all(trial["median_ms"] > 0 for trial in found["trials"] if trial["state"] == WORKS)
    assert set(found["untried"]) | {trial["precision"] for trial in found["trials"]} == set(RECIPES)
    assert [model["model"] for model in found["models"]] == list(all_models())
    assert all(0 < model["weight_bytes"] < model["disk_bytes"] for model in found["models"])
