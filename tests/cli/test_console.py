"""The table of a bundle's files, in a terminal of 80 columns."""

import pytest

from backends.bundle import Bundle
from toolkit.cli.console import print_artifacts
from toolkit.export import SHIPPED


def test_no_word_of_a_further_column_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    bundle = Bundle.open(SHIPPED / "pocketseal")
    outcomes = ("made", "over its tolerance", "failed", "impossible")
    files = [artifact.file for artifact in bundle.artifacts]
    shares = dict.fromkeys(files, "91% int8, 6% float16, 3% float32")
    columns = {
        "weights in": shares,
        "time": dict.fromkeys(files, "0.55x"),
        "outcome": {file: outcomes[i % len(outcomes)] for i, file in enumerate(files)},
    }
    print_artifacts(bundle, columns)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[1:])) <= 80
    words = set(shown.split())
    assert {"detector.onnx", "outcome", "made", "over", "its", "tolerance", "failed", "impossible", "float16,"} <= words
