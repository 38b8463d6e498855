"""What is measured, what is used as it was brought, and what is left out with its reason."""

from pathlib import Path
from typing import Any

import pytest

from backends.bundle import Bundle
from backends.errors import NotAvailable
from tests.report.made import benched, bisected, bundle, made
from toolkit.profiling.operators import OperatorTime
from toolkit.report import gather as module
from toolkit.report.evidence import Evidence
from toolkit.report.gather import gather


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise NotAvailable("too large")

    for name in ("bench_bundle", "profile"):
        monkeypatch.setattr(module, name, refused)
    monkeypatch.setattr(Bundle, "verify", lambda self, artifact: Path(artifact.file))


def gathered(bench: Any = None, bisections: Any = ()) -> Evidence:
    return gather(bundle(), made().parity, (), 1, bench, list(bisections), lambda step: None)


def test_what_this_machine_cannot_measure_is_left_out_and_says_why() -> None:
    evidence = gathered(bisections=[bisected()])
    assert evidence.bench is None
    assert evidence.missing["bench"] == "Nothing was timed: too large."
    assert evidence.missing["profile"].startswith("Not profiled: ")
    assert list(evidence.profiles) == []


def test_every_file_but_torch_s_is_profiled_unless_the_bench_brought_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "profile", lambda *_: (OperatorTime("Conv", 1.0), OperatorTime("Add", 3.0)))
    evidence = gathered(benched(bundle()), [bisected()])
    assert [profile["file"] for profile in evidence.profiles] == [
        artifact.file for artifact in bundle().artifacts if artifact.format != "torch"
    ]
    assert evidence.profiles[0]["by_kind"][0] == {"kind": "Add", "count": 1, "total_ms": 3.0, "share": 0.75}
    brought = [{"file": "detector.onnx", "by_kind": []}]
    assert gathered(benched(bundle()) | {"profile": brought}, [bisected()]).profiles == brought
