"""The tests of the files that differ from the last commit, for `make test-changed`: their names, one a line.

A changed test file is run itself. For `toolkit/metrics/error.py` it is tests/metrics/test_*error*.py where there is
such a file, else all tests in tests/metrics. `python -m tests.changed main` compares with a branch instead.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = {"backends": Path("tests/backends"), "graphs": Path("tests/graphs"), "toolkit": Path("tests")}


def changed_files(since: str) -> list[Path]:
    """Files that differ from a commit, and files that git does not know."""
    commands = (["git", "diff", "--name-only", since], ["git", "ls-files", "--others", "--exclude-standard"])
    shown = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]
    return [Path(name) for name in "".join(shown).splitlines()]


def find_tests(files: Iterable[Path], root: Path) -> list[Path]:
    """The test files and folders of changed files, each once; paths are relative to `root`."""
    found = {test for file in files for test in _find_tests(file, root)}
    return sorted(test for test in found if not found & set(test.parents))


def _find_tests(file: Path, root: Path) -> Iterator[Path]:
    if file.suffix != ".py":
        return
    if file.name.startswith("test_"):
        yield from [file] if (root / file).exists() else []
    elif file.parts[0] in PACKAGES:
        room = PACKAGES[file.parts[0]].joinpath(*file.parts[1:-1])
        while not (root / room).is_dir():
            room = room.parent
        own = sorted(path.relative_to(root) for path in (root / room).glob(f"test_*{file.stem.strip('_')}*.py"))
        yield from own or [room]
    elif file.parts[0] == "tests" and file.parent != Path("tests"):
        yield file.parent  # a helper of one room


if __name__ == "__main__":
    found = find_tests(changed_files(*sys.argv[1:] or ["HEAD"]), Path())
    sys.stdout.write("".join(f"{test}\n" for test in found))
