"""The one way to run code that may die or hang: a child process with a deadline, a bound on its memory and a log.

`SandboxProcess` calls Python functions in a child, with typed arguments and results. `start`, `deadline` and `kill` are
its parts, for the converter, which lives in another Python and speaks a protocol of its own.
"""

import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

from backends.session import Closing

P = ParamSpec("P")
Result = TypeVar("Result")

_ROOT = Path(__file__).resolve().parent.parent
# The first protocol of pickle that writes arrays without copying them.
_PROTOCOL = 5


def start(
    command: Sequence[str],
    log: IO[Any],
    env: Mapping[str, str],
    folder: Path | None = None,
    memory_bytes: int | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a child in a process group of its own, so that `kill` also ends the programs that it starts.

    Its stdin and stdout are pipes; the end of its stdin tells it that this process is gone. Its stderr is added to
    `log`. memory_bytes bounds its data segment where the system can do that (Linux). Raises OSError.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=folder,
        env=dict(env),
        start_new_session=True,
    )
    if memory_bytes is not None and hasattr(resource, "prlimit"):
        with suppress(ProcessLookupError):  # it may have ended already
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    return process


@contextmanager
def deadline(process: "subprocess.Popen[bytes]", timeout_s: float) -> Iterator[threading.Event]:
    """Kill a child that is still running after `timeout_s`. Yields an event that is set where that happened."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        kill(process)

    timer = threading.Timer(timeout_s, stop)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a child of `start` and every program that it started."""
    with suppress(ProcessLookupError):  # the whole group may have ended already
        os.killpg(process.pid, signal.SIGKILL)


def how_it_ended(returncode: int) -> str:
    """ "was killed by SIGABRT", or "failed with exit code 3"; for a process that did not end with 0."""
    if returncode >= 0:
        return f"failed with exit code {returncode}"
    name = signal.Signals(-returncode).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


class SandboxDied(Exception):
    """The child ended, or was stopped, inside a call. The message says how, as in "was killed by SIGABRT"."""


class SandboxProcess(Closing):
    """A child Python process that calls functions: started by the first call, and again by the call after its death.

    log: a file to which everything that the child prints is added. timeout_s: for each call. modules: names of modules
    that the child imports before its first call. memory_bytes: bound of its memory, none by default. variables: added
    to the child's environment.
    """

    def __init__(
        self,
        log: Path,
        timeout_s: float,
        modules: tuple[str, ...] = (),
        memory_bytes: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._timeout_s = timeout_s
        self._modules = modules
        self._memory_bytes = memory_bytes
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child before the first call, so that it imports its modules while the caller does other work."""
        self._started()

    def call(self, function: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
        """Call a module-level function in the child. Returns its result, or raises the exception that it raises.

        Arguments and result are pickled. Raises SandboxDied if the child did not live to the end of the call.
        """
        process = self._started()
        assert process.stdin is not None and process.stdout is not None  # pipes
        with deadline(process, self._timeout_s) as late:
            try:
                pickle.dump((function, arguments, named), process.stdin, _PROTOCOL)
                process.stdin.flush()
                done, result = pickle.load(process.stdout)  # from our own child
            except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
                self.close()
                too_late = f"took longer than {self._timeout_s:g} s"
                raise SandboxDied(too_late if late.is_set() else how_it_ended(process.returncode)) from error
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
                    continue  # the child had not read everything
            self._process.wait()
            self._process = None

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **self._variables}
            # -P: a folder with the name of one of our packages, in the caller's working folder, is not imported.
            command = [sys.executable, "-P", "-m", "backends.sandbox", *self._modules]
            with self._log.open("a", encoding="utf-8") as log:
                self._process = start(command, log, env, memory_bytes=self._memory_bytes)
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
