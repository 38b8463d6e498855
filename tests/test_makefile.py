"""What `make` promises: it says what can be typed, makes an environment when its lock changes, and never otherwise."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin"; echo "made $3" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "requirements/run.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    python = tmp_path / "python-for-tests"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def env(folder: Path) -> list[str]:
    done = make(folder, "env", "PYTHONS=./gone ./python-for-tests", "PIP=echo pip")
    assert done.returncode == 0, done.stderr
    return [" ".join(line.split()[:2]) for line in done.stdout.splitlines() if line.startswith(("made", "pip"))]


def test_help_is_the_default_and_lists_every_target_a_person_types() -> None:
    listed = make(ROOT).stdout
    assert listed == make(ROOT, "help").stdout
    for target in (
        "demo",
        "test",
        "test-changed",
        "test-large",
        "lint",
        "export",
        "convert",
        "bench",
        "readme",
        "upgrade-check",
    ):
        assert f"make {target} " in listed


def test_bench_keeps_the_figures_of_a_second_machine_apart() -> None:
    for arguments, result in (((), "bench-pocketseal.json"), (("MACHINE=other",), "bench-pocketseal@other.json")):
        assert f"--json benchmarks/results/{result}" in make(ROOT, "--dry-run", "bench", *arguments).stdout


def test_an_environment_is_made_once_and_brought_up_to_date_when_a_lock_changes(checkout: Path) -> None:
    assert env(checkout) == ["made .venv", "pip install", "pip install"]
    assert env(checkout) == []

    (checkout / "Makefile").touch()
    (checkout / "requirements" / "run.lock").touch()  # what a fresh checkout does to a file that did not change
    assert env(checkout) == []

    (checkout / "requirements" / "run.lock").write_text("numpy==2.4.6\n")
    assert env(checkout) == ["pip install", "pip install"]
    assert env(checkout) == []

    with (checkout / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert env(checkout) == ["pip install"]
    assert env(checkout) == []


def test_an_installation_that_was_interrupted_is_made_again_from_nothing(checkout: Path) -> None:
    done = make(checkout, "env", "PYTHONS=./python-for-tests", "PIP=false")
    assert done.returncode == 2
    (checkout / ".venv" / "half-installed").touch()

    assert env(checkout) == ["made .venv", "pip install", "pip install"]
    assert not (checkout / ".venv" / "half-installed").exists()


def test_without_a_python_one_line_says_what_to_install(checkout: Path) -> None:
    done = make(checkout, "env", "PYTHONS=./gone")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Python 3.11 or newer: install python3.11")
    assert not (checkout / ".venv").exists()
