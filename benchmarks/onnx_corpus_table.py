"""The corpus result for a reader: outcomes by group, why graphs stop, and every graph."""

import re
from collections import Counter
from typing import Any

_FILES = ("fp32.tflite", "fp16.tflite", "int8.tflite", "fp16.onnx", "int8.onnx")


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by group and outcome, and by why."""
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        groups.setdefault(row["group"], Counter())[outcome(row)] += 1
    reasons = Counter(f"{row['stage']}: {_kind_of_reason(row['reason'])}" for row in rows if row.get("reason"))
    return {"groups": {group: dict(counts) for group, counts in groups.items()}, "reasons": dict(reasons.most_common())}


def outcome(row: dict[str, Any]) -> str:
    if row["stage"] != "done":
        return f"stops at {row['stage']}"
    if row["passed"]:
        return "every file passes"
    return "float32 passes, another does not" if row["files"]["fp32.tflite"]["passed"] else "float32 fails"


def _kind_of_reason(reason: str) -> str:
    """Without names and numbers, so that like ones count together."""
    reason = re.sub(r"'[^']*'", "X", reason)
    reason = re.sub(r"\[X(, X)*\]", "[X]", reason)
    reason = re.sub(r"expected a dtype of .*, got", "expected a dtype that we carry, got", reason)
    reason = re.sub(r"\b\d[\d.e+-]*\b", "N", reason)
    reason = re.sub(r"\(N(, N)*,?\)", "(N)", reason)
    return reason[:160]


def table(document: dict[str, Any]) -> str:
    """The result as Markdown."""
    groups = document["summary"]["groups"]
    outcomes = sorted({outcome for counts in groups.values() for outcome in counts})
    second = sum("constants" in row for row in document["rows"])
    lines = [
        "# onnx's own test graphs",
        "",
        f"`python -m benchmarks.onnx_corpus`, onnx {document['onnx']}: {document['graphs']} of {document['of']} "
        "graphs, each imported, converted and compared as a user would. Errors are relative, over noise, constant and "
        "extreme inputs; the worst output's. Bold: over the tolerance. The runtime that a file is for is its suffix.",
        "",
        f"{second} graphs, marked with +, stand with their further inputs as constants of the test's own data: without "
        "that they do not come through, because sizes depend on these inputs or because TFLite wants them constant.",
        "",
        f"| group | graphs | {' | '.join(outcomes)} |",
        f"|---|--:|{'--:|' * len(outcomes)}",
    ]
    for group, counts in groups.items():
        cells = " | ".join(str(counts.get(outcome, 0)) for outcome in outcomes)
        lines.append(f"| {group} | {sum(counts.values())} | {cells} |")
    total = [sum(counts.get(outcome, 0) for counts in groups.values()) for outcome in outcomes]
    lines.append(f"| all | {document['graphs']} | {' | '.join(map(str, total))} |")
    lines += ["", "## Why graphs stop", "", "| graphs | stage and reason |", "|--:|---|"]
    lines += [f"| {count} | {_cell(reason)} |" for reason, count in document["summary"]["reasons"].items()]
    lines += ["", "## Every graph", "", f"| graph | opset | outcome | {' | '.join(_FILES)} | why |"]
    lines += [f"|---|--:|---|{'--:|' * len(_FILES)}---|"]
    for row in document["rows"]:
        errors = " | ".join(_shown(row.get("files", {}).get(file)) for file in _FILES)
        name = row["name"].removeprefix("test_") + (" +" if "constants" in row else "")
        lines.append(f"| {name} | {row.get('opset') or ''} | {outcome(row)} | {errors} | {_cell(_why(row))} |")
    return "\n".join(lines) + "\n"


def _why(row: dict[str, Any]) -> str:
    if "reason" in row:
        return str(row["reason"])
    failed = [f"{file}: {text}" for file, figures in row["files"].items() for text in figures["failed"]]
    return (failed or [""])[0] or ("" if row["quantized"] == "done" else row["quantized"])


def _shown(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    error = figures["relative_l2"]
    shown = "same" if error == 0 else "integers" if error is None else f"{error:.1e}"
    return shown if figures["passed"] else f"**{shown}**"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")[:160]
