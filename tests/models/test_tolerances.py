"""The limits that every kind composes of a precision's recipe, pinned one by one in tolerances.json."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.errors import NotAvailable
from backends.precision import INT8, RECIPES
from toolkit.metrics.limit import Limit
from toolkit.models.kind import KINDS, find_kind

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "tolerances.json").read_text())


def _limits(limits: tuple[Limit, ...]) -> list[list[Any]]:
    return [[one.number, one.at_most, one.at_least, one.needs_training] for one in limits]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}, {row['role']}, {row['precision']}")
def test_a_tolerance_has_exactly_these_limits_and_the_reason_of_its_precision(row: dict[str, Any]) -> None:
    role = "any role" if row["role"] == "*" else row["role"]
    tolerance = find_kind(row["kind"]).tolerance(role, row["precision"])
    assert _limits(tolerance.outputs) == row["outputs"]
    assert _limits(tolerance.task) == row["task"]
    assert tolerance.changed == row["changed"]
    assert RECIPES[row["precision"]].reason in tolerance.reason


@pytest.mark.parametrize(
    ("kind", "role", "precision", "said"),
    [
        ("watermark", "decoder", "fp32", "the roles are detector and embedder"),
        ("watermark", "embedder", "int8", "an embedder is compared in float32 alone"),
        ("foveated", "two passes", "fp32", "the roles are encode_frames"),
        ("foveated", "predict", "mixed", "precision 'mixed' states no limit for 'layer_error'"),
        ("foveated", "two passes, deep", "mixed", "precision 'mixed' states no limit for 'choices_changed'"),
        ("captioner", "text", "fp32", "the roles are encode_image"),
        ("captioner", "caption", "mixed", "precision 'mixed' states no limit for 'captions_changed'"),
        ("deepencoder", "base", "mixed", "precision 'mixed' states no limit for 'mean_cosine'"),
        ("tensor", "model", "int4", "no precision named 'int4'; there is bf16, fp16, fp32"),
    ],
)
def test_what_has_no_tolerance_is_refused_by_name(kind: str, role: str, precision: str, said: str) -> None:
    with pytest.raises(NotAvailable, match=f"kind '{kind}', role '{role}', precision '{precision}'.*{said}"):
        find_kind(kind).tolerance(role, precision)


@pytest.mark.parametrize("kind", KINDS.names)
def test_a_recipe_without_any_limit_judges_nothing(kind: str) -> None:
    role = next(row["role"] for row in ROWS if row["kind"] == kind)
    RECIPES.registry.add("bare", replace(INT8, name="bare", limits={}))
    try:
        with pytest.raises(NotAvailable, match="precision 'bare' states no limit for"):
            find_kind(kind).tolerance(role, "bare")
    finally:
        del RECIPES.registry._added["bare"]
