"""Processes of ours: how one is started, and how it ended, in words."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from backends.session import Closing

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


P = ParamSpec("P")

Result = TypeVar("Result")

# The first that does not copy arrays to write them.
_PROTOCOL = 5


class SandboxDied(Exception):
    """The process ended, or was stopped, inside a call. The message goes on from what was running: "was killed by"."""


class SandboxProcess(Closing):
    """One child process at a time, started by the first call, and anew by the one after its death.

    What the runtimes print is added to `log`. A call may take `timeout_s`. It imports `modules`, by name, before it is
    asked for anything.
    """

    def __init__(self, log: Path, timeout_s: float, modules: tuple[str, ...] = ()) -> None:
        self._log = log
        self._timeout_s = timeout_s
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process before the first call, so that it imports its modules while the caller does other work."""
        self._started()

    def call(self, function: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
        """Call a function of a module there, and return what it returns, or raise what it raises.

        Raises TrialEnded if the process did not live to its end.
        """
        process = self._started()
        assert process.stdin is not None and process.stdout is not None  # PIPE
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._timeout_s, stop)
        timer.start()
        try:
            pickle.dump((function, arguments, named), process.stdin, _PROTOCOL)
            process.stdin.flush()
            done, result = pickle.load(process.stdout)  # from our own child
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            self.close()
            reason = f"took longer than {self._timeout_s:g} s" if late.is_set() else how_it_ended(process.returncode)
            raise SandboxDied(reason) from error
        finally:
            timer.cancel()
        if not done:
            raise result
        returned: Result = result
        return returned

    def close(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                try:
                    pipe.close()  # the child ends when its stdin does
                except BrokenPipeError:
                    continue  # of what it had not read
            self._process.wait()
            self._process = None

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            with self._log.open("a", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    [*python_module("backends.sandbox"), *self._modules],
                    env=environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
        return self._process


def _serve() -> None:
    """Answer calls until there are no more."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    for name in sys.argv[1:]:
        import_module(name)
    while True:
        try:
            function, arguments, named = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        reply: tuple[bool, Any]
        try:
            reply = (True, function(*arguments, **named))
        except Exception as error:  # noqa: BLE001  whatever it is, the caller raises it
            reply = (False, error)
        pickle.dump(reply, replies, _PROTOCOL)
        replies.flush()


if __name__ == "__main__":
    _serve()
