"""A session whose run has ended leaves the cores to others."""

import time

import numpy as np

from backends.bundle import Bundle
from backends.registry import open_session
from toolkit import find_bundle


def test_threads_of_onnx_runtime_sleep_once_a_run_has_ended() -> None:
    """They would spin for 40 ms, on the core that the next graph of a model needs."""
    bundle = Bundle.open(find_bundle("pocketseal"))
    artifact = bundle.find("detector", "onnx", "fp32")
    (image,) = artifact.inputs
    spent_s = []
    with open_session(bundle, artifact, "ort", threads=2) as session:
        for _ in range(5):
            session.run({image.spec.name: np.zeros(image.spec.shape, np.float32)})
            before = time.process_time()
            time.sleep(0.1)
            spent_s.append(time.process_time() - before)
    assert min(spent_s) < 0.005
