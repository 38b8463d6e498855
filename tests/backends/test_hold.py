"""Inputs that a session holds: checked once, there for every run, on each backend alike."""

from collections.abc import Iterator

import numpy as np
import pytest

from backends.errors import InvalidInput
from backends.registry import open_session
from backends.session import Session
from backends.tensor import Array, probe
from tests.kinds_tiny import SPECS, converted

FORMATS = {"torch": "torch", "ort": "onnx", "tflite": "tflite"}


@pytest.fixture(params=FORMATS)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    bundle = converted("foveated")
    artifact = bundle.find("query_deep", FORMATS[request.param], "fp32")
    with open_session(bundle, artifact, request.param, threads=1) as opened:
        yield opened


def _feeds(seed: int) -> dict[str, Array]:
    return probe(SPECS["foveated"].graph("query_deep").inputs, seed)


def test_runs_with_held_inputs_give_what_runs_with_all_of_them_give(session: Session) -> None:
    queries, frames = [_feeds(seed)["query"] for seed in (1, 2, 1)], _feeds(1)
    del frames["query"]
    expected = [session.run({"query": query, **frames}) for query in queries]
    session.hold(frames)
    got = [session.run({"query": query}) for query in queries]
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert not np.array_equal(got[0]["token"], got[1]["token"])


def test_other_inputs_take_the_place_of_those_that_were_held(session: Session) -> None:
    first, second = _feeds(1), _feeds(2)
    expected = session.run(second)["token"]
    session.hold({"keys_0": first["keys_0"], "values_0": first["values_0"]})
    session.hold({"keys_0": second.pop("keys_0")})
    np.testing.assert_array_equal(session.run(second)["token"], expected)
    session.hold({})
    with pytest.raises(InvalidInput, match="expected inputs .*keys_0"):
        session.run(second)


def test_what_cannot_be_held_is_refused_and_nothing_changes(session: Session) -> None:
    feeds = _feeds(1)
    expected = session.run(feeds)["token"]
    with pytest.raises(InvalidInput, match="expected some of .*, got .*nobody"):
        session.hold({"nobody": feeds["query"]})
    with pytest.raises(InvalidInput, match="keys_0.*finite"):
        session.hold({"keys_0": np.full_like(feeds["keys_0"], np.nan)})
    np.testing.assert_array_equal(session.run(feeds)["token"], expected)


def test_a_held_input_is_no_input_of_a_run(session: Session) -> None:
    feeds = _feeds(1)
    session.hold({"query": feeds["query"]})
    with pytest.raises(InvalidInput, match="expected inputs"):
        session.run(feeds)


def test_a_closed_session_holds_nothing(session: Session) -> None:
    session.close()
    with pytest.raises(InvalidInput, match="closed"):
        session.hold({"query": _feeds(1)["query"]})
