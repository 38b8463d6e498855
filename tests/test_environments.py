"""The converter's environment: made whole or not at all, and found where it should be."""

import os
import subprocess
from pathlib import Path

import pytest

from backends.errors import InvalidInput, NotAvailable
from toolkit import environments
from toolkit.environments import SetupFailed, converter_python, is_complete, python_of, setup_converter


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that installs nothing, so that no index is needed."""
    monkeypatch.setattr(environments, "lock_text", lambda: "# nothing\n")


def make(folder: Path) -> list[str]:
    said: list[str] = []
    setup_converter(folder, said.append, lambda step: None)
    return said


@pytest.mark.usefixtures("lock")
def test_an_environment_is_made_once_and_again_when_its_lock_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep" / "converter"
    assert not is_complete(folder)

    assert len(make(folder)) == 1
    assert is_complete(folder)
    version = "import sys; print(sys.version_info >= (3, 12), sys.prefix)"
    answer = subprocess.run([python_of(folder), "-c", version], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["True", str(folder)]
    assert make(folder) == []

    monkeypatch.setattr(environments, "lock_text", lambda: "=== not a requirement\n")
    assert not is_complete(folder)
    with pytest.raises(SetupFailed, match=r"pip .*install -r .* failed with exit code \d+: see .*setup\.log"):
        make(folder)
    assert "not a requirement" in (folder / "setup.log").read_text()
    assert not is_complete(folder)


@pytest.mark.usefixtures("lock")
def test_a_setup_that_was_killed_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(environments, "_logged", killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "converter")
    assert not is_complete(tmp_path / "converter")

    # The next try starts from nothing: what was left over is gone.
    (tmp_path / "converter" / "half-installed").touch()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "converter")
    assert not (tmp_path / "converter" / "half-installed").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").touch()
    with pytest.raises(InvalidInput, match="holds something else"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pyvenv.cfg"]

    with pytest.raises(InvalidInput, match="holds something else"):
        make(tmp_path / "pyvenv.cfg")


def test_without_a_new_enough_python_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 1\n")
    shim.chmod(0o755)
    monkeypatch.setattr(environments, "CANDIDATES", (str(shim), "python3.12-that-is-not-here"))
    with pytest.raises(NotAvailable, match=r"Python 3\.12 or newer .* install"):
        make(tmp_path / "converter")
    assert not (tmp_path / "converter").exists()


def test_the_variable_names_another_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "python"
    other.touch(mode=0o755)
    monkeypatch.setenv("TOOLKIT_CONVERTER", str(other))
    assert converter_python() == other

    monkeypatch.setenv("TOOLKIT_CONVERTER", str(tmp_path / "gone"))
    with pytest.raises(NotAvailable, match=r"TOOLKIT_CONVERTER names .*gone"):
        converter_python()


def test_without_an_environment_the_single_command_that_helps_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOOLKIT_CONVERTER", raising=False)
    monkeypatch.setattr(environments, "default_folder", lambda: tmp_path / "converter")
    with pytest.raises(NotAvailable, match=r"has not been made .*run `toolkit setup-converter`"):
        converter_python()
    (tmp_path / "converter").mkdir()
    with pytest.raises(NotAvailable, match=r"out of date or was not finished .*run `toolkit setup-converter`"):
        converter_python()


def test_a_checkout_keeps_it_beside_the_makefile_and_an_installed_package_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environments.default_folder() == Path(environments.__file__).parents[1] / ".venv-convert"

    monkeypatch.setattr(environments, "__file__", str(tmp_path / "site-packages" / "toolkit" / "environments.py"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert environments.default_folder() == tmp_path / "seal-toolkit" / "converter"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert environments.default_folder() == tmp_path / ".local" / "share" / "seal-toolkit" / "converter"
