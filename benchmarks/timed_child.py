"""The child of `benchmarks.side_by_side`: answer each line of stdin with the seconds of one run of a file.

    python -P benchmarks/timed_child.py BUNDLE FILE THREADS

The packages are those of the tree in PYTHONPATH, so that only names are imported that old trees have too.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from backends.bundle import Bundle
from backends.registry import open_session


def main(folder: str, file: str, threads: str) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the replies
    bundle = Bundle.open(Path(folder))
    (artifact,) = (artifact for artifact in bundle.artifacts if artifact.file == file)
    generator = np.random.default_rng(0)
    feeds = {one.spec.name: generator.random(one.spec.shape, np.float32) for one in artifact.inputs}
    backend = "ort" if artifact.format == "onnx" else artifact.format
    with open_session(bundle, artifact, backend, int(threads)) as session:
        for _ in sys.stdin:
            start = time.perf_counter()
            session.run(feeds)
            print(time.perf_counter() - start, file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
