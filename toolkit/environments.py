"""The optional packages that features need, and the separate Python environment in which the converter runs."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_data_path

from backends.errors import InvalidInput, NotAvailable, NotInstalled, ToolkitError

PACKAGES = {
    "export": ("torch", "onnx", "onnxruntime", "onnxsim", "onnxscript", "safetensors"),
    "tflite": ("ai_edge_litert",),
    "video": ("av",),
    "text": ("tokenizers",),
    "audio": ("soundfile",),
}


def need(*extras: str) -> None:
    """Raise NotInstalled, with the pip command to run, if a package of these extras (keys of PACKAGES) is missing."""
    missing = [name.replace("_", "-") for extra in extras for name in PACKAGES[extra] if find_spec(name) is None]
    if missing:
        # Name the packages, not this project's extras: an index may have another project of the same name.
        raise NotInstalled(f"not installed: {', '.join(missing)}; run `pip install {' '.join(missing)}`")


CONVERTER_VARIABLE = "TOOLKIT_CONVERTER"
MARKER = ".toolkit-converter"  # written first as "unfinished", and last with the sha256 of the lock
UNFINISHED = "unfinished"
MINIMUM = (3, 12)

# The lock was tested with Python 3.12. Each candidate is run to learn its version: a shim may exist without a Python.
CANDIDATES = ("python3.12", "python3.13", sys.executable, "python3")


class SetupFailed(ToolkitError):
    """Error: the converter's environment could not be made. The message names the command and the log."""


def lock_text() -> str:
    """Return the lock file: the exact `name==version` lines of the converter's environment."""
    return files("toolkit").joinpath("convert.lock").read_text(encoding="utf-8")


def default_folder() -> Path:
    """Return the environment's folder: `.venv-convert` in a checkout, otherwise one in the user's data folder."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "Makefile").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout / ".venv-convert"
    return user_data_path("seal-toolkit", appauthor=False) / "converter"


def python_of(folder: Path) -> Path:
    """Return the path of the Python interpreter of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_complete(folder: Path) -> bool:
    """Return whether `folder` holds a complete converter environment that was made from the present lock file."""
    marker = folder / MARKER
    return marker.is_file() and marker.read_text(encoding="utf-8") == _lock_sha256() and python_of(folder).exists()


def converter_python() -> Path:
    """Return the Python that runs the converter's worker: TOOLKIT_CONVERTER, else that in `default_folder()`.

    Raises NotAvailable, with the command to run, if TOOLKIT_CONVERTER is no program or the environment is not complete.
    """
    named = os.environ.get(CONVERTER_VARIABLE)
    if named:
        path = shutil.which(named)
        if path is None:
            raise NotAvailable(f"{CONVERTER_VARIABLE} names {named!r}, which is no program: give a Python's path")
        return Path(path)
    folder = default_folder()
    if is_complete(folder):
        return python_of(folder)
    state = "is out of date or was not finished" if folder.exists() else "has not been made"
    raise NotAvailable(f"the converter's environment {state} ({folder}): run `toolkit setup-converter`")


def setup_converter(folder: Path, say: Callable[[str], None], step: Callable[[str], None]) -> Path:
    """Make the converter's environment in `folder`, unless it is complete already. Returns the path of its Python.

    `say` is called with one line for the user, `step` with every line that the commands print. Needs a package index
    that pip can reach, and about 3 GB of disk space.
    Raises NotAvailable without Python 3.12 or newer, InvalidInput if `folder` holds other files, SetupFailed if a
    command fails.
    """
    if is_complete(folder):
        return python_of(folder)
    base = find_python()
    _empty(folder)
    marker, log, lock = folder / MARKER, folder / "setup.log", folder / "convert.lock"
    say(f"Installing the converter's tested versions into {folder} (once, a few minutes) ...")
    marker.write_text(UNFINISHED, encoding="utf-8")
    lock.write_text(lock_text(), encoding="utf-8")
    _logged([base, "-m", "venv", str(folder)], log, step)
    pip = [str(python_of(folder)), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _logged([*pip, "install", "-r", str(lock)], log, step)
    _logged([*pip, "check"], log, step)
    marker.write_text(_lock_sha256(), encoding="utf-8")
    return python_of(folder)


def find_python() -> str:
    """Return the first Python of CANDIDATES that is 3.12 or newer. Raises NotAvailable if there is none."""
    question = f"import sys; sys.exit(sys.version_info < {MINIMUM})"
    for path in filter(None, map(shutil.which, CANDIDATES)):
        if subprocess.run([path, "-c", question], capture_output=True, check=False).returncode == 0:
            return path
    raise NotAvailable(
        "the converter needs Python 3.12 or newer and none was found: install python3.12 with its venv module "
        "(for example `apt-get install python3.12-venv` or `pyenv install 3.12`)"
    )


def _empty(folder: Path) -> None:
    """Make `folder` an empty folder. Its content is removed only if it is an environment made by this module.

    Raises InvalidInput if it holds anything else.
    """
    if (folder / MARKER).is_file():
        shutil.rmtree(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} holds something else: remove it, or name a folder that is new or empty")
    folder.mkdir(parents=True, exist_ok=True)


def _logged(command: list[str], log: Path, step: Callable[[str], None]) -> None:
    """Run `command`, and give every line that it prints to `log` and to `step`. Raises SetupFailed if it fails."""
    with (
        log.open("a", encoding="utf-8") as out,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None  # because of PIPE
        for line in process.stdout:
            out.write(line)
            step(line.strip())
    if process.returncode:
        raise SetupFailed(f"`{' '.join(command)}` failed with exit code {process.returncode}: see {log}")


def _lock_sha256() -> str:
    return hashlib.sha256(lock_text().encode()).hexdigest()
