"""Two trees take turns; a tree beside itself is not slower, and one that is made slower is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from backends.bundle import Bundle
from benchmarks import side_by_side

ROOT = Path(__file__).resolve().parents[2]


def test_this_tree_beside_itself(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "ROUNDS", replace(side_by_side.ROUNDS, time_limit_s=0, least=3, most=3))
    monkeypatch.setattr(side_by_side, "OPENINGS", 1)
    monkeypatch.setattr(side_by_side, "LEAST", 1e6)  # how quick a busy machine is is not the question here
    replace(tiny, artifacts=(tiny.find("detector", "onnx", "fp32"),)).write()
    out = tmp_path / "result.json"
    command = [str(ROOT), str(tiny.folder), "--json", str(out)]
    assert CliRunner().invoke(side_by_side.main, command, catch_exceptions=False).exit_code == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["file"], row["outside_noise"]) == ("detector.onnx", False)
    assert all(row["ms"][name] > 0 for name in ("before", "again", "now"))

    child, slower = side_by_side.CHILD, tmp_path / "slower.py"
    slower.write_text(child.read_text().replace("session.run(feeds)", "session.run(feeds), time.sleep(0.05)"))
    monkeypatch.setattr(side_by_side, "LEAST", 0.05)
    opened = side_by_side.opened

    def open_slower(tree: Path, folder: Path, file: str) -> object:
        monkeypatch.setattr(side_by_side, "CHILD", slower if tree == side_by_side.HERE else child)
        return opened(tree, folder, file)

    monkeypatch.setattr(side_by_side, "HERE", ROOT / "benchmarks" / "..")
    monkeypatch.setattr(side_by_side, "opened", open_slower)
    shown = CliRunner().invoke(side_by_side.main, command, catch_exceptions=False)
    assert shown.exit_code == 1
    assert "detector.onnx: outside the noise" in shown.stdout
