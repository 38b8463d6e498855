"""Every backend keeps one contract, on the tiny files of every format and precision."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from backends.registry import open_session
from backends.session import Session
from backends.tensor import Binding, TensorSpec
from tests.tiny import BITS, DETECTOR_PX

CASES = [
    ("ort", "onnx", "fp32", 1e-5),
    ("torch", "torch", "fp32", 1e-5),
    ("tflite", "tflite", "fp32", 1e-5),
    ("tflite", "tflite", "int8", 5e-3),
    ("tflite", "tflite", "int8-static", 2e-2),
]
every_case = pytest.mark.parametrize(("backend", "kind", "precision", "tolerance"), CASES)
every_backend = pytest.mark.parametrize(
    ("backend", "kind", "precision"), [case[:3] for case in CASES if case[2] != "int8"]
)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 3, DETECTOR_PX, DETECTOR_PX), dtype=np.float32)


def opened(bundle: Bundle, backend: str, kind: str, precision: str, threads: int = 1) -> Session:
    return open_session(bundle, bundle.find("detector", kind, precision), backend, threads)


@every_case
def test_float32_nchw_in_and_logits_out(
    tiny: Bundle, backend: str, kind: str, precision: str, tolerance: float
) -> None:
    with opened(tiny, "torch", "torch", "fp32") as session:
        expected = session.run({"image": image()})["logits"]
    with opened(tiny, backend, kind, precision) as session:
        outputs = session.run({"image": image()})
    assert list(outputs) == ["logits"]
    assert outputs["logits"].dtype == np.float32
    assert outputs["logits"].shape == (1, 1 + BITS)
    np.testing.assert_allclose(outputs["logits"], expected, atol=tolerance)
    # Bounds mean something only if the logits differ by more.
    assert np.ptp(expected) > 10 * tolerance


@every_backend
def test_runs_repeat_to_the_byte_and_do_not_touch_feeds_or_earlier_results(
    tiny: Bundle, backend: str, kind: str, precision: str
) -> None:
    feed = image()
    feed.flags.writeable = False
    with opened(tiny, backend, kind, precision) as session:
        first = session.run({"image": feed})["logits"]
        kept = first.copy()
        other = session.run({"image": image(1)})["logits"]
        again = [session.run({"image": feed})["logits"].tobytes() for _ in range(20)]
    assert set(again) == {kept.tobytes()}
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(feed, image())
    assert not np.array_equal(other, kept)


@every_backend
def test_sessions_in_threads_do_not_disturb_each_other(tiny: Bundle, backend: str, kind: str, precision: str) -> None:
    with opened(tiny, backend, kind, precision, 1) as one, opened(tiny, backend, kind, precision, 2) as two:
        expected = [session.run({"image": image(seed)})["logits"] for seed, session in enumerate((one, two))]
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(session.run, {"image": image(i)}) for _ in range(30) for i, session in enumerate((one, two))
            ]
            results = [job.result()["logits"] for job in jobs]
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, expected[i % 2])


@every_backend
@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "expected inputs"),
        ({"Image": image()}, "expected inputs"),
        ({"image": image(), "more": image()}, "expected inputs"),
        ({"image": image()[0]}, "expected shape"),
        ({"image": image().transpose(0, 2, 3, 1)}, "expected shape"),
        ({"image": image().astype(np.float64)}, "expected dtype"),
        ({"image": image() * np.float32(np.nan)}, "NaN"),
    ],
)
def test_a_wrong_feed_is_refused(
    tiny: Bundle, backend: str, kind: str, precision: str, feeds: dict[str, np.ndarray], says: str
) -> None:
    with opened(tiny, backend, kind, precision) as session, pytest.raises(InvalidInput, match=says):
        session.run(feeds)


@every_backend
def test_use_after_close_is_an_error_and_closing_twice_is_not(
    tiny: Bundle, backend: str, kind: str, precision: str
) -> None:
    session = opened(tiny, backend, kind, precision)
    session.close()
    session.close()
    with pytest.raises(InvalidInput, match="closed"):
        session.run({"image": image()})


@every_backend
def test_a_signature_that_is_not_the_file_s_own_is_refused(
    tiny: Bundle, backend: str, kind: str, precision: str
) -> None:
    artifact = tiny.find("detector", kind, precision)
    wrong = Binding.same(TensorSpec("logits", (1, 2 + BITS), "float32", None))
    changed = replace(artifact, outputs=(wrong,))

    def run() -> None:
        with open_session(tiny.with_artifact(changed), changed, backend, 1) as session:
            session.run({"image": image()})

    with pytest.raises(InvalidArtifact, match="the manifest says"):
        run()


@pytest.mark.parametrize("zero_point", [-1, 5])
def test_another_quantization_than_the_file_s_own_is_refused(tiny: Bundle, zero_point: int) -> None:
    artifact = tiny.find("detector", "tflite", "int8-static")
    stored = replace(artifact.inputs[0], zero_point=zero_point)
    changed = replace(artifact, inputs=(stored,))
    with pytest.raises(InvalidArtifact, match="input 'image': the manifest says"):
        open_session(tiny, changed, "tflite", 1)


def test_a_file_of_another_format_is_refused(tiny: Bundle) -> None:
    with pytest.raises(InvalidArtifact, match="backend 'ort' opens onnx files, and this is a tflite file"):
        open_session(tiny, tiny.find("detector", "tflite", "fp32"), "ort", 1)


def test_zero_threads_are_refused(tiny: Bundle) -> None:
    with pytest.raises(InvalidInput, match="at least 1, got 0"):
        opened(tiny, "ort", "onnx", "fp32", threads=0)


def test_an_unknown_architecture_is_refused(tiny: Bundle) -> None:
    artifact = replace(tiny.find("detector", "torch", "fp32"), architecture={"name": "gone", "config": {}})
    with pytest.raises(NotAvailable, match=r"no architecture named 'gone'; there is .*tiny-detector"):
        open_session(tiny, artifact, "torch", 1)


def test_a_torch_session_leaves_the_process_s_thread_count_alone(tiny: Bundle) -> None:
    before = torch.get_num_threads()
    with opened(tiny, "torch", "torch", "fp32", threads=before + 1) as session:
        session.run({"image": image()})
    assert torch.get_num_threads() == before
