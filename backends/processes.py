"""Processes of ours: how one is started, and how it ended, in words."""

import os
import signal
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def python_module(module: str) -> list[str]:
    """The command that runs a module of these packages in a process of its own; arguments may follow."""
    # -P: a folder that is called like one of our packages, where somebody works, is not looked into.
    return [sys.executable, "-P", "-m", module]


def environment(**more: str) -> dict[str, str]:
    """The caller's environment, in which such a process finds the packages that this one runs."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def how_it_ended(returncode: int) -> str:
    """ "was killed by SIGABRT", or "failed with exit code 3"; for a process that did not end with 0."""
    if returncode >= 0:
        return f"failed with exit code {returncode}"
    name = signal.Signals(-returncode).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
