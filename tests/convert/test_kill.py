"""A conversion that is killed at any moment leaves a whole bundle and no process; a rerun ends as if nothing was."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.bundle import Bundle, sha256_of

# Each slice has a run of the converter to itself.
_CONVERT = """
import sys
from pathlib import Path
from toolkit.convert import slices
from toolkit.convert.pipeline import convert_bundle
from toolkit.parity.agreement import conversion_rules
slices.DEFAULT_LIMIT_BYTES = 1
say = lambda line: print(line, flush=True)
convert_bundle(Path(sys.argv[1]), conversion_rules, ("fp32", "int8"), progress=say, slice_limit_bytes=5400)
"""
_MOST_LINES = 12  # of progress, which an undisturbed conversion has more of


@pytest.fixture
def graph(tiny: Bundle) -> Bundle:
    """The tiny bundle with nothing but its graphs."""
    for artifact in tiny.artifacts:
        if artifact.format == "tflite":
            (tiny.folder / artifact.file).unlink()
    bundle = Bundle(tiny.folder, tiny.model, tiny.weights, tuple(a for a in tiny.artifacts if a.format != "tflite"))
    bundle.write()
    return bundle


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 3), *(pytest.param(seed, 12, marks=pytest.mark.large) for seed in (1, 2))]
)
def test_a_killed_conversion_goes_on(seed: int, kills: int, graph: Bundle, tmp_path: Path) -> None:
    other = shutil.copytree(graph.folder, tmp_path / "other")
    draw = random.Random(seed)
    killed = 0
    for _ in range(kills):
        killed += _kill_after(graph.folder, lines=draw.randrange(1, _MOST_LINES), seconds=draw.random() / 5)
        _check(graph.folder)
    assert killed >= kills / 2
    for folder in (graph.folder, other):
        subprocess.run([sys.executable, "-c", _CONVERT, str(folder)], check=True, stdout=subprocess.DEVNULL)
        assert not [path for path in folder.iterdir() if path.is_dir()]
    assert _hashes(graph.folder) == _hashes(other)


def _kill_after(folder: Path, lines: int, seconds: float) -> bool:
    """Kill a conversion some time after a line of its progress. False if it came to its end before."""
    command = [sys.executable, "-c", _CONVERT, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout is not None  # PIPE
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def _check(folder: Path) -> None:
    bundle = Bundle.open(folder)
    for artifact in bundle.artifacts:
        bundle.verify(artifact)
    for _ in range(300):
        if not (left := _working_in(folder)):
            return
        time.sleep(0.1)
    raise AssertionError(f"still working in the bundle: {left}")


def _working_in(folder: Path) -> list[str]:
    """The processes whose working folder lies in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(folder):
                found.append(process.name)
        except OSError:
            continue  # it has ended
    return found


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.suffix != ".log"}


# No file may grow past a limit, which is how a system says that there is no more room for it.
_CONVERT_IN_LITTLE_ROOM = """
import resource, sys
from toolkit.cli import main
from toolkit.convert.pipeline import convert_bundle
from toolkit.parity.agreement import conversion_rules
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
main(["convert", sys.argv[2], "-p", "fp32", "-p", "int8"])
"""


def test_a_full_disk_is_one_clear_error(graph: Bundle) -> None:
    before = _hashes(graph.folder)
    command = [sys.executable, "-c", _CONVERT_IN_LITTLE_ROOM, "3000", str(graph.folder)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr
    (line,) = (line for line in shown.stderr.splitlines() if line.startswith("error: "))
    assert "no room on the disk" in line
    assert str(graph.folder) in line
    assert _hashes(graph.folder) == before
    _check(graph.folder)
