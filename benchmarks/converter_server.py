"""One process of the converter's environment for many conversions: it forks for each request, where starting one anew
would import onnx2tf each time.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backends.sandbox import how_it_ended
from toolkit.convert import job
from toolkit.convert.converter import ConversionFailed, WorkerResult
from toolkit.environments import converter_python

_WORKER_PARENT = Path(job.__file__).parent

# Runs in the converter's environment. A request's child gets a pipe for its stdin, whose other end closes with us.
_SERVER = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
import worker.__main__, worker.lowering, worker.quantizing, worker.operators
for line in sys.stdin:
    request = json.loads(line)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(writing)
        os.dup2(reading, 0)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = 1
        try:
            worker.__main__.main(request["request"], request["result"])
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    os.close(reading)
    end = time.monotonic() + request["timeout_s"]
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.killpg(child, 9)
        time.sleep(0.01)
    os.close(writing)
    print(json.dumps({"request": request["request"], "status": os.waitstatus_to_exitcode(status)}), flush=True)
"""


class Server:
    """One process of the converter's environment, in the place of one a request."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        python = converter_python()
        self._process = subprocess.Popen(
            [str(python), "-c", _SERVER, str(_WORKER_PARENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "-1"},
        )

    def run_worker(
        self, request: dict[str, Any], folder: Path, log: Path, timeout_s: float, progress: Callable[[str], None]
    ) -> WorkerResult:
        """As toolkit.convert.converter.run_worker."""
        request_path, result_path = folder / "request.json", folder / "result.json"
        result_path.unlink(missing_ok=True)
        request_path.write_text(json.dumps(request | {"folder": str(folder)}))
        asked = {"request": str(request_path), "result": str(result_path), "log": str(log)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked | {"timeout_s": self._timeout_s}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["request"] == str(request_path)  # and not that of a caller that was killed meanwhile
        if answer["status"] or not result_path.is_file():
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            what = how_it_ended(answer["status"]) if answer["status"] < 0 else (lines or ["no output"])[-1]
            raise ConversionFailed(f"{request['task']}: {what}")
        result = json.loads(result_path.read_text())
        return WorkerResult({key: Path(path) for key, path in result["files"].items()}, result["tools"])

    def close(self) -> None:
        """End it, and whatever it is doing."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()  # its child sees the end of a pipe, and ends too
        self._process.wait()
