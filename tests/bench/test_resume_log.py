"""What an interrupted benchmark has measured, and what may be made of it later."""

from pathlib import Path

import pytest

from backends.errors import InvalidInput
from toolkit.bench.rounds import ResumeLog


def _never() -> object:
    raise AssertionError("measured again")


def test_what_is_measured_once_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    first = ResumeLog(path, {"threads": 1})
    assert first.once("a", lambda: {"ms": (1, 2.5)}) == {"ms": [1, 2.5]}
    assert first.once("a", _never) == {"ms": [1, 2.5]}
    again = ResumeLog(path, {"threads": 1})
    assert len(again) == 1
    assert again.once("a", _never) == {"ms": [1, 2.5]}
    again.close()
    assert not path.exists()


def test_figures_of_anything_else_are_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    ResumeLog(path, {"threads": 1}).once("a", lambda: 1)
    other = ResumeLog(path, {"threads": 2})
    assert (len(other), other.once("a", lambda: 2)) == (0, 2)


def test_a_line_that_a_killed_process_did_not_end_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    kept = ResumeLog(path, "of")
    kept.once("a", lambda: 1)
    kept.once("b", lambda: 2)
    path.write_bytes(path.read_bytes()[:-3])
    again = ResumeLog(path, "of")
    assert (again.once("a", _never), again.once("b", lambda: 3)) == (1, 3)
    assert ResumeLog(path, "of").once("b", _never) == 3


@pytest.mark.parametrize("rest", [b"{}\n", b"[1, 2, 3]\n", b"\xff\n", b"[[], 1]\n"])
def test_a_file_that_holds_something_else_is_named_and_left(rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    ResumeLog(path, "of")
    path.write_bytes(path.read_bytes() + rest)
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match=f"{path}: cannot go on.*remove it"):
        ResumeLog(path, "of")
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot go on"):
        ResumeLog(tmp_path, "of")


def test_without_a_path_nothing_is_kept() -> None:
    kept = ResumeLog()
    assert kept.once("a", lambda: 1) == 1
    kept.close()
