"""Kinds of models as the commands find them."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from backends.errors import NotAvailable
from graphs.networks.models import MODELS
from toolkit.models.command import milliseconds
from toolkit.models.kind import KINDS, ModelKind, all_kinds, all_models, find_kind, find_model
from toolkit.models.tensor import TensorKind

OURS = ["watermark", "deepencoder", "foveated", "captioner", "tensor"]
HEAVY = ("numpy", "PIL", "rich", "torch", "onnx", "onnxruntime")


class _Poem(TensorKind):
    name = "poem"
    rank = 100


@pytest.fixture
def poem() -> Iterator[ModelKind]:
    kind = _Poem()
    KINDS.add("poem", kind)
    yield kind
    del KINDS._added["poem"]


def test_our_kinds_come_first_and_are_called_as_they_are_registered(poem: ModelKind) -> None:
    assert [kind.name for kind in all_kinds()] == [*OURS, "poem"]
    assert all(find_kind(name).name == name for name in KINDS.names)
    assert find_kind("poem") is poem


def test_an_unknown_kind_and_a_name_that_is_taken_are_refused(poem: ModelKind) -> None:
    with pytest.raises(NotAvailable, match="no kind of model named 'song'; there is captioner, deepencoder"):
        find_kind("song")
    for name in ("poem", "watermark"):
        with pytest.raises(ValueError, match="is registered already"):
            KINDS.add(name, poem)


def test_the_kinds_bring_every_model_of_ours_in_its_order() -> None:
    assert all_models() == MODELS
    assert list(all_models()) == list(MODELS)
    assert all(spec.description["kind"] == kind.name for kind in all_kinds() for spec in kind.specs)
    with pytest.raises(NotAvailable, match=r"no model named 'ode'; there is pocketseal, "):
        find_model("ode")


def test_a_model_that_two_kinds_bring_is_refused(poem: ModelKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Poem, "specs", (MODELS["pocketseal"],))
    with pytest.raises(NotAvailable, match="'pocketseal' is registered twice, the second time by kind 'poem'"):
        all_models()


def test_an_option_that_several_kinds_have_is_the_same_in_each() -> None:
    seen: dict[str, Any] = {}
    for kind in all_kinds():
        for option in kind.options():
            assert option.name is not None
            assert seen.setdefault(option.name, option) is option


def test_kinds_and_their_options_import_no_runtime() -> None:
    code = (
        "import sys; from toolkit.models.kind import all_kinds; [kind.options() for kind in all_kinds()]; "
        "kinds = [kind.tolerance('detector', 'int8') for kind in all_kinds() if kind.name == 'watermark']; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_kind_that_is_not_run_says_so() -> None:
    with pytest.raises(NotAvailable, match="models of kind 'tensor' are not run"):
        find_kind("tensor").run(None, None)  # type: ignore[arg-type]  # neither is looked at


@pytest.mark.parametrize(
    ("times", "first", "text"),
    [
        ({"a": [31.04]}, {"a"}, "a 31.0 ms (first run)"),
        ({"a": [9.0]}, set(), "a 1 x 9.0 ms"),
        ({"a": [90.0, 1.0, 2.0, 6.0], "b": [5.0, 7.0]}, {"a"}, "a 90.0 ms (first run), then 3 x 2.0 ms; b 2 x 6.0 ms"),
    ],
)
def test_times_are_told_as_a_first_run_and_the_median_of_the_others(
    times: dict[str, list[float]], first: set[str], text: str
) -> None:
    assert milliseconds(times, first) == text
