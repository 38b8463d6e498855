"""A fork server: a process that imports modules once, and of which each child process that needs them is a fork.

A fork starts in 20 ms, a fresh Python with ONNX Runtime or onnx2tf in half a second to two. This file is also the
program of the server. It runs in any Python, and imports only the standard library.

The server gets a request on a socket, with the file descriptors of the child, and forks twice. The first fork waits for
the second, the child, and tells the caller its process ID and its return code through a pipe of its own, so that the
server never waits. The server ends when its caller does.
"""

import atexit
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NoReturn, Self

_MOST_REQUEST_BYTES = 1 << 20
# Seconds in which a server ends after its caller has closed the socket, unless its imports still run.
_LEAVE_S = 1.0


class ForkedProcess:
    """A child of a fork server, with the attributes of subprocess.Popen that a caller of `backends.sandbox.start` uses.

    stdin, stdout: pipes to it. returncode: None until `wait` has returned.
    """

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], status: IO[bytes], end_server: Callable[[], None]) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._status = status
        self._end_server = end_server

    @property
    def pid(self) -> int:
        """The process ID. Waits until the server has its modules. Raises ProcessLookupError if the server ended."""
        if not self._pid:
            raise ProcessLookupError("the fork server ended before it started this process")
        return self._pid

    @cached_property
    def _pid(self) -> int:
        return int(self._status.readline() or 0)

    def end_server_unless_started(self) -> None:
        """Kill the server if it has not started this process yet, as one whose imports hang. `pid` waits no longer."""
        if "_pid" not in vars(self) and not select.select([self._status], [], [], 0)[0]:
            self._end_server()

    def wait(self) -> int:
        """Wait until the process has ended, and return its return code: a negative signal number if it was killed."""
        if self.returncode is None:
            # Without a first line the process was never started, without a second it was killed with its watcher.
            self.returncode = int(self._status.readline() or -signal.SIGKILL) if self._pid else 1
            self._status.close()
        return self.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        with suppress(BrokenPipeError):
            self.stdin.close()
        self.wait()


class _Server:
    def __init__(self, python: str, preload: Sequence[str], log: IO[Any], env: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_REQUEST_BYTES)
        command = [python, "-P", str(Path(__file__).resolve()), str(theirs.fileno()), *preload]
        none = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=dict(env),
                stdin=none,
                stdout=none,
                stderr=log,
                start_new_session=True,
            )
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._caller = os.getpid()
        self._requests = 0
        atexit.register(self.close)

    def is_usable(self) -> bool:
        """Whether the server runs, and this process is no fork of the one that started it."""
        return self._caller == os.getpid() and self._process.poll() is None

    def start(self, request: Mapping[str, Any], log: IO[Any]) -> ForkedProcess:
        (stdin, to_stdin), (from_stdout, stdout), (from_status, status) = (os.pipe() for _ in range(3))
        ours, theirs = (to_stdin, from_stdout, from_status), (stdin, stdout, status)
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [*theirs, log.fileno()])
        except OSError:
            for end in ours:
                os.close(end)
            raise
        finally:
            for end in theirs:
                os.close(end)
        self._requests += 1
        pipes = os.fdopen(to_stdin, "wb"), os.fdopen(from_stdout, "rb"), os.fdopen(from_status, "rb")
        return ForkedProcess(*pipes, self.kill)

    def kill(self) -> None:
        """Kill the server; and, before its second request, all that its imports have started."""
        if self._requests > 1:  # those that wait for other children are in its group
            self._process.kill()
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._socket.close()
        if self._caller != os.getpid():
            return
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:  # it still imports
            self.kill()
            self._process.wait()


_servers: dict[tuple[str, ...], _Server] = {}
_lock = threading.Lock()


def fork(
    python: str,
    preload: Sequence[str],
    module: str,
    arguments: Sequence[str],
    log: IO[Any],
    env: Mapping[str, str],
    folder: Path | None = None,
    memory_bytes: int | None = None,
) -> ForkedProcess:
    """Run a module as `python -m MODULE ARGUMENTS` does, in a fork of a server of this Python, in a new process group.

    preload: modules that the server has imported, or "module:function" for a function that it has called. Its stderr is
    written to `log`; env: all of its environment; folder: its working folder, this process's by default.
    memory_bytes: the limit of its data segment.
    Raises OSError if the server cannot be started or has ended.
    """
    request = {
        "module": module,
        "arguments": list(arguments),
        "env": dict(env),
        "folder": str(folder or Path.cwd()),
        "memory_bytes": memory_bytes,
    }
    key = (python, env.get("PYTHONPATH", ""), *preload)
    with _lock:
        server = _servers.get(key)
        if server is None or not server.is_usable():
            if server is not None:
                server.close()
            server = _servers[key] = _Server(python, preload, log, env)
        return server.start(request, log)


def _serve(control: socket.socket) -> None:
    """Fork for each request, until the caller has ended. Returns only in a child, with its request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted caller ends its children itself
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # first forks end by themselves
    while True:
        message, fds, _, _ = socket.recv_fds(control, _MOST_REQUEST_BYTES, 4)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _watch(json.loads(message), *fds)
        for fd in fds:
            os.close(fd)


def _watch(request: dict[str, Any], stdin: int, stdout: int, status: int, log: int) -> NoReturn:
    """Fork the child, and tell the caller of its start and its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    started, starting = os.pipe()
    if (pid := os.fork()) == 0:
        os.setsid()
        for fd in (started, starting, status):
            os.close(fd)
        _run(request, stdin, stdout, log)
    for fd in (stdin, stdout, log, starting):
        os.close(fd)
    os.read(started, 1)  # returns when the child has its own group, so that the caller can kill it
    os.write(status, b"%d\n" % pid)
    os.write(status, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _run(request: dict[str, Any], stdin: int, stdout: int, log: int) -> NoReturn:
    """Take the files, the folder and the environment of the child, run its module, and end."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd, place in ((stdin, 0), (stdout, 1), (log, 2)):
            os.dup2(fd, place)
            os.close(fd)
        if (limit := request["memory_bytes"]) is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  a traceback, as the interpreter itself would write it
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def main() -> None:
    """Be the server: argv has the number of the socket and the modules to import."""
    # Python warns of forks of a process that has threads, as numpy starts them, and of a module that is run again.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    for name in sys.argv[2:]:
        module, _, function = name.partition(":")
        try:
            imported = importlib.import_module(module)
            if function:
                getattr(imported, function)()
        except Exception:  # noqa: BLE001  the child imports it again, and its log tells the error
            continue
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # until here it was the log of the first child
    with socket.socket(fileno=int(sys.argv[1])) as control:
        _serve(control)
    os._exit(0)  # at once: the caller waits


if __name__ == "__main__":
    main()
