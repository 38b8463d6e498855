"""Child processes for code that may crash or hang, with a deadline, a memory limit and a log.

`SandboxProcess` calls Python functions in a child, with typed arguments and results. `start`, `deadline` and `kill` are
its parts. The converter, which runs in another Python with its own protocol, uses them directly.
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
from pathlib import Path
from typing import IO, Any, ParamSpec, Protocol, Self, TypeVar

from backends.fork_server import ForkedProcess, fork
from backends.session import Closing

P = ParamSpec("P")
Result = TypeVar("Result")

_ROOT = Path(__file__).resolve().parent.parent
# The first protocol of pickle that writes arrays without copying them.
_PROTOCOL = 5


class ChildProcess(Protocol):
    """A child that `start` started: the part of subprocess.Popen that a fork of a server has as well."""

    @property
    def pid(self) -> int: ...

    @property
    def stdin(self) -> IO[bytes] | None: ...

    @property
    def stdout(self) -> IO[bytes] | None: ...

    @property
    def returncode(self) -> int | None: ...

    def wait(self) -> int: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None: ...


def start(
    python: str,
    module: str,
    arguments: Sequence[str],
    log: IO[Any],
    env: Mapping[str, str],
    folder: Path | None = None,
    memory_bytes: int | None = None,
    preload: Sequence[str] = (),
) -> ChildProcess:
    """Start a Python module in a child, in a new process group, so that `kill` also ends the programs that it starts.

    Its stdin and stdout are pipes; the end of its stdin tells it that this process has ended. Its stderr is appended to
    `log`. memory_bytes limits its data segment on systems with prlimit (Linux). preload: modules that a fork server
    imports once for all children that need them; on other systems than Linux each child imports its own.
    Raises OSError if it cannot be started.
    """
    process: ChildProcess | None = None
    if preload and sys.platform == "linux":
        with suppress(OSError):  # a fresh process then tells the error
            process = fork(python, preload, module, arguments, log, env, folder, memory_bytes)
    if process is None:
        # -P: do not import a folder of the caller's working folder that has the name of one of our packages.
        process = subprocess.Popen(
            [python, "-P", "-m", module, *arguments],
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
def deadline(process: ChildProcess, timeout_s: float) -> Iterator[threading.Event]:
    """Kill a child that still runs after `timeout_s` seconds. Yields an event that is set if the child was killed."""
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


def kill(process: ChildProcess) -> None:
    """Kill a child that `start` started, and every program in its process group."""
    if isinstance(process, ForkedProcess):
        process.end_server_unless_started()
    with suppress(ProcessLookupError):  # the whole group may have ended already
        os.killpg(process.pid, signal.SIGKILL)


def how_it_ended(returncode: int) -> str:
    """Return "was killed by SIGABRT" or "failed with exit code 3" for the return code of a failed process."""
    if returncode >= 0:
        return f"failed with exit code {returncode}"
    name = signal.Signals(-returncode).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


class SandboxDied(Exception):
    """Error for a child that ended or was killed during a call. The message says how, as in "was killed by SIGABRT"."""


class SandboxLate(SandboxDied):
    """Error for a child that was killed because a call took longer than its deadline."""


class SandboxProcess(Closing):
    """A child Python process that calls functions. The first call starts it; the call after its death starts a new one.

    log: the file to which the child's output is appended. timeout_s: seconds for each call. preload: modules that all
    children with the same list share, imported once, or "module:function" for a function that is called once; without
    any, the child is a fresh process. memory_bytes: limit of its memory, None for no limit. variables: additional
    environment variables.
    """

    def __init__(
        self,
        log: Path,
        timeout_s: float,
        preload: tuple[str, ...] = (),
        memory_bytes: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._timeout_s = timeout_s
        self._preload = preload
        self._memory_bytes = memory_bytes
        self._variables = dict(variables or {})
        self._process: ChildProcess | None = None

    def start(self) -> None:
        """Start the child before its first call, so that it imports its modules while the caller does other work."""
        self._started()

    def call(self, function: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
        """Call a module-level function in the child. Returns its result, or raises the exception that it raises.

        Arguments and result are pickled. Raises SandboxDied if the child ends or exceeds its time during the call.
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
                if late.is_set():
                    raise SandboxLate(f"took longer than {self._timeout_s:g} s") from error
                raise SandboxDied(how_it_ended(process.wait())) from error
        if not done:
            raise result
        returned: Result = result
        return returned

    def close(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                try:
                    pipe.close()  # the child exits at the end of its stdin
                except BrokenPipeError:
                    continue  # the child ended without reading everything
            self._process.wait()
            self._process = None

    def _started(self) -> ChildProcess:
        if self._process is None:
            paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **self._variables}
            with self._log.open("a", encoding="utf-8") as log:
                self._process = start(
                    sys.executable, "backends.sandbox", (), log, env, None, self._memory_bytes, self._preload
                )
        return self._process


def _serve() -> None:
    """Answer calls from stdin until it ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with the replies
    while True:
        try:
            function, arguments, named = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        reply: tuple[bool, Any]
        try:
            reply = (True, function(*arguments, **named))
        except Exception as error:  # noqa: BLE001  the caller raises it
            reply = (False, error)
        pickle.dump(reply, replies, _PROTOCOL)
        replies.flush()


if __name__ == "__main__":
    _serve()
