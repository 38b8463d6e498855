"""What a pip install may lack: each role has its extra."""

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

from backends.errors import InvalidInput, NotAvailable, ToolkitError

PACKAGES = {
    "export": ("torch", "onnx", "onnxruntime", "onnxsim", "onnxscript", "safetensors"),
    "tflite": ("ai_edge_litert",),
    "video": ("av",),
    "text": ("tokenizers",),
}


def need(*extras: str) -> None:
    """Raise NotAvailable, with the command that helps, unless everything that these extras bring is installed."""
    missing = [name.replace("_", "-") for extra in extras for name in PACKAGES[extra] if find_spec(name) is None]
    if missing:
        # By their own names: this project is installed from a checkout, and an index may know another by its name.
        raise NotAvailable(f"not installed: {', '.join(missing)}; run `pip install {' '.join(missing)}`")


CONVERTER_VARIABLE = "TOOLKIT_CONVERTER"

MARKER = ".toolkit-converter"  # written first as "unfinished", and last with the sha256 of the lock

UNFINISHED = "unfinished"

MINIMUM = (3, 12)

# 3.12 is the one the lock was tested with. Asked, not guessed from the name: a shim may exist for a missing Python.
CANDIDATES = ("python3.12", "python3.13", sys.executable, "python3")


class SetupFailed(ToolkitError):
    """The converter's environment could not be made. The message names the step and the log."""


def lock_text() -> str:
    """The exact `name==version` lines that the converter's environment holds."""
    return files("toolkit").joinpath("convert.lock").read_text(encoding="utf-8")


def default_folder() -> Path:
    """Where the environment goes: a checkout's own `.venv-convert`, else the user's data folder."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "Makefile").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout / ".venv-convert"
    return user_data_path("seal-toolkit", appauthor=False) / "converter"


def python_of(folder: Path) -> Path:
    """The interpreter inside an environment folder."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds a converter environment made to its end from today's lock."""
    marker = folder / MARKER
    return marker.is_file() and marker.read_text(encoding="utf-8") == _lock_sha256() and python_of(folder).exists()


def converter_python() -> Path:
    """The Python that runs the converter's worker: TOOLKIT_CONVERTER, else the environment in `default_folder()`.

    Raises NotAvailable with the one command that helps.
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
    """Make the converter's environment in `folder`, unless it is there already; returns its Python.

    `say` is given one line that a person should see, `step` each line of what is being done. Needs an index that
    pip can reach, and about 3 GB.
    Raises NotAvailable without a Python 3.12, InvalidInput if `folder` is something else, SetupFailed if pip fails.
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
    """The first Python 3.12 or newer among CANDIDATES. Raises NotAvailable when there is none."""
    question = f"import sys; sys.exit(sys.version_info < {MINIMUM})"
    for path in filter(None, map(shutil.which, CANDIDATES)):
        if subprocess.run([path, "-c", question], capture_output=True, check=False).returncode == 0:
            return path
    raise NotAvailable(
        "the converter needs Python 3.12 or newer and none was found: install python3.12 with its venv module "
        "(for example `apt-get install python3.12-venv` or `pyenv install 3.12`)"
    )


def _empty(folder: Path) -> None:
    """Make `folder` an empty one. What is in it is removed only if this module put it there."""
    if (folder / MARKER).is_file():
        shutil.rmtree(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} holds something else: remove it, or name a folder that is new or empty")
    folder.mkdir(parents=True, exist_ok=True)


def _logged(command: list[str], log: Path, step: Callable[[str], None]) -> None:
    """Run `command`; every line it prints goes to `log`, and to `step`."""
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
