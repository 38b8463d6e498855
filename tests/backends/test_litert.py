"""LiteRT's own lines on stderr: the one about its delegate is read and kept away, and all others stay."""

import os

import pytest

from backends import litert


class _Said:
    """An interpreter that writes lines to stderr, as LiteRT does when it makes its delegate."""

    lines = b""

    def __init__(self, **_: object) -> None:
        os.write(2, self.lines)

    def allocate_tensors(self) -> None: ...


@pytest.mark.parametrize(
    ("lines", "name", "left"),
    [
        (b"INFO: Created TensorFlow Lite OTHER delegate for CPU.\n", "OTHER", ""),
        (
            b"mine\nINFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nERROR: yours\n",
            "XNNPACK",
            "mine\nERROR: yours\n",
        ),
        (b"", "XNNPACK", ""),
    ],
)
def test_the_line_about_the_delegate_names_it_and_only_the_others_reach_stderr(
    lines: bytes, name: str, left: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(litert, "_delegate", None)
    monkeypatch.setattr(litert, "Interpreter", _Said)
    monkeypatch.setattr(_Said, "lines", lines)
    assert litert.default_delegate() == name
    os.write(2, b"after\n")
    assert capfd.readouterr().err == left + "after\n"


def test_the_delegate_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    name = litert.default_delegate()
    monkeypatch.setattr(litert, "_make_delegate", lambda: pytest.fail("made twice"))
    assert litert.default_delegate() == name == "XNNPACK"
