"""Tests of the promises of a Session, on every file of the shipped watermark detector that a backend opens.

The reference is the float32 ONNX file on the default backend of ONNX files, which must be installed.
"""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact, InvalidInput
from backends.precision import RECIPES
from backends.profiling import profile
from backends.registry import BackendSpec, default_backend, open_session
from backends.session import Session
from backends.tensor import Array, probe
from toolkit.contract import find_shipped
from toolkit.images.preprocess import preprocess
from toolkit.images.samples import shipped_photographs
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import Message

Case = tuple[BackendSpec, Artifact]

NOISE = 2
# How many runs must give the same bytes, at least and at most: within these limits, as many as fit into SECONDS.
RUNS = (3, 20)
SECONDS = 3.0


def opened(bundle: Bundle, case: Case, threads: int = 1) -> Session:
    """Open a session of a case."""
    spec, artifact = case
    return open_session(bundle, artifact, spec.name, threads)


@cache
def images(side: int) -> tuple[Array, ...]:
    """Return marked photographs, then seeded noise: each (1, 3, side, side) float32 in [0, 1]."""
    random = np.random.default_rng(5)
    with Embedder.open(find_shipped()) as embedder:
        marked = [
            embedder.embed(path, Message.drawn(embedder.model.bits, random)).image for path in shipped_photographs()
        ]
    noise = [random.random((1, 3, side, side), dtype=np.float32) for _ in range(NOISE)]
    return (*(preprocess(image, side) for image in marked), *noise)


def logits_of(session: Session) -> Array:
    """Return the logits of all `images`, (N, 1 + bits) float32."""
    side = session.artifact.inputs[0].spec.shape[-1]
    return np.concatenate([session.run({"image": image})["logits"] for image in images(side)])


@cache
def expected_logits() -> Array:
    """Return the logits of the float32 graph on the default backend of ONNX files."""
    bundle = Bundle.open(find_shipped())
    artifact = bundle.find("detector", "onnx", "fp32")
    with open_session(bundle, artifact, default_backend("onnx").name, 1) as session:
        return logits_of(session)


def test_outputs_have_the_names_shapes_and_dtypes_of_the_manifest(bundle: Bundle, case: Case) -> None:
    with opened(bundle, case) as session:
        outputs = session.run(probe(tuple(binding.spec for binding in session.artifact.inputs)))
    assert list(outputs) == [binding.spec.name for binding in session.artifact.outputs]
    for binding in session.artifact.outputs:
        value = outputs[binding.spec.name]
        assert (value.shape, value.dtype.name) == (binding.spec.shape, binding.spec.dtype)
        assert value.flags.c_contiguous
        assert np.isfinite(value).all()


def test_answers_agree_with_the_float32_graph(bundle: Bundle, case: Case) -> None:
    recipe, expected = RECIPES[case[1].precision], expected_logits()
    with opened(bundle, case) as session:
        got = logits_of(session)
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error <= recipe.limit("relative_l2")
    ours, theirs = got[:-NOISE, 1:] > 0, expected[:-NOISE, 1:] > 0
    assert ours.size >= 256
    assert (ours != theirs).mean() <= recipe.limit("bits_flipped")


def test_a_file_keeps_no_memory_between_runs(bundle: Bundle, case: Case) -> None:
    given = images(case[1].inputs[0].spec.shape[-1])
    with opened(bundle, case) as session:
        first, *others = [session.run({"image": image}) for image in (*given, given[0])]
    again = others.pop()
    for name, value in first.items():
        assert again[name].tobytes() == value.tobytes(), f"{name}: the same image gave another output after others"
        assert all(other[name].tobytes() != value.tobytes() for other in others)


def test_the_same_input_gives_the_same_bytes_each_time(bundle: Bundle, case: Case) -> None:
    with opened(bundle, case, threads=2) as session:
        first, second, *_ = images(session.artifact.inputs[0].spec.shape[-1])
        expected = session.run({"image": first})["logits"].tobytes()
        other = session.run({"image": second})["logits"].tobytes()
        again = {expected}
        end = time.monotonic() + SECONDS
        for count in range(RUNS[1]):
            if count < RUNS[0] or time.monotonic() < end:
                again.add(session.run({"image": first})["logits"].tobytes())
    assert again == {expected}
    assert other != expected


def test_an_output_is_not_overwritten_by_later_runs(bundle: Bundle, case: Case) -> None:
    with opened(bundle, case) as session:
        first, second, *_ = images(session.artifact.inputs[0].spec.shape[-1])
        kept = session.run({"image": first})["logits"]
        before = kept.copy()
        session.run({"image": second})
        np.testing.assert_array_equal(kept, before)
        kept[...] = 0  # the array is the caller's own
        np.testing.assert_array_equal(session.run({"image": first})["logits"], before)


def test_inputs_are_left_as_they_are(bundle: Bundle, case: Case) -> None:
    with opened(bundle, case) as session:
        image = images(session.artifact.inputs[0].spec.shape[-1])[0].copy()
        image.setflags(write=False)
        before = image.copy()
        session.run({"image": image})
    np.testing.assert_array_equal(image, before)


def test_an_input_that_is_held_gives_the_same_answer(bundle: Bundle, case: Case) -> None:
    with opened(bundle, case) as session:
        first, second, *_ = images(session.artifact.inputs[0].spec.shape[-1])
        expected = [session.run({"image": image})["logits"] for image in (first, second)]
        for image, wanted in zip((first, second), expected, strict=True):
            session.hold({"image": image})
            np.testing.assert_array_equal(session.run({})["logits"], wanted)
        session.hold({})
        np.testing.assert_array_equal(session.run({"image": first})["logits"], expected[0])


def test_wrong_feeds_are_refused_before_the_runtime_sees_them(bundle: Bundle, case: Case) -> None:
    with opened(bundle, case) as session:
        image = images(session.artifact.inputs[0].spec.shape[-1])[0]
        wrong: tuple[tuple[dict[str, Array], str], ...] = (
            ({"picture": image}, "expected inputs"),
            ({}, "expected inputs"),
            ({"image": image[:, :1]}, "expected shape"),
            ({"image": image.astype(np.float64)}, "expected dtype"),
            ({"image": np.full_like(image, np.nan)}, "NaN"),
        )
        for feeds, says in wrong:
            with pytest.raises(InvalidInput, match=says):
                session.run(feeds)
        assert np.isfinite(session.run({"image": image})["logits"]).all()


def test_a_closed_session_says_so_and_closes_twice(bundle: Bundle, case: Case) -> None:
    session = opened(bundle, case)
    image = images(session.artifact.inputs[0].spec.shape[-1])[0]
    session.close()
    session.close()
    with pytest.raises(InvalidInput, match="closed"):
        session.run({"image": image})


def test_two_sessions_and_several_threads_do_not_disturb_each_other(bundle: Bundle, case: Case) -> None:
    with opened(bundle, case) as one, opened(bundle, case) as two:
        pair = images(one.artifact.inputs[0].spec.shape[-1])[:2]
        expected = [one.run({"image": image})["logits"] for image in pair]

        def read(session: Session, index: int) -> bool:
            found = [session.run({"image": pair[index]})["logits"] for _ in range(2)]
            return all(np.array_equal(value, expected[index]) for value in found)

        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(read, session, index) for session in (one, two) for index in (0, 1)]
            assert [job.result() for job in jobs] == [True] * 4


def test_a_damaged_file_is_one_clear_error(bundle: Bundle, case: Case, tmp_path: Path) -> None:
    spec, artifact = case
    for name in artifact.files:
        shutil.copyfile(bundle.folder / name, tmp_path / name)
    path = tmp_path / artifact.file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    files = [tmp_path / name for name in artifact.files]
    cut = replace(artifact, sha256=sha256_of(*files), bytes=sum(file.stat().st_size for file in files))
    damaged = replace(bundle, folder=tmp_path, artifacts=(cut,))
    with pytest.raises(InvalidArtifact, match=artifact.file.replace(".", r"\.")):
        open_session(damaged, cut, spec.name, 1)


def test_a_file_that_is_not_what_the_manifest_says_is_refused(bundle: Bundle, case: Case) -> None:
    spec, artifact = case
    (output,) = artifact.outputs
    narrower = replace(output.spec, shape=(1, output.spec.shape[1] - 1))
    wrong = replace(
        artifact, outputs=(replace(output, spec=narrower, stored=replace(output.stored, shape=(1, narrower.shape[1]))),)
    )
    refused = pytest.raises(InvalidArtifact, match=artifact.file.replace(".", r"\."))
    with refused, open_session(bundle, wrong, spec.name, 1) as session:
        session.run({"image": images(artifact.inputs[0].spec.shape[-1])[0]})


def test_an_opened_file_describes_itself_in_json(bundle: Bundle, case: Case) -> None:
    with opened(bundle, case) as session:
        described = session.describe()
    assert json.loads(json.dumps(described)) == described


def test_a_profiler_lists_the_operators_and_their_times(bundle: Bundle, profiled_case: Case) -> None:
    spec, artifact = profiled_case
    times = profile(bundle.folder / artifact.file, spec.profile, 1, 2, artifact.precision)
    assert times
    assert all(time.kind for time in times)
    assert sum(time.median_ms for time in times) > 0
