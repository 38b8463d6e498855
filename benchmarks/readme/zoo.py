"""The page of the zoo, benchmarks/ZOO.md, and the README's block: shares of files that are made and right, and a row
for each network."""

from collections.abc import Collection, Iterator
from typing import Any

from benchmarks.readme import read, table

RESULT = "zoo"
PLAIN = ("onnx2tf", "quantize_dynamic")
# A quantized file that is larger than this share of the float32 file holds most of its weights in float32.
_HOLLOW = 0.9
_HEAD = ("network", "exporter", "MB", "float32", "FP16", "INT8", "ORT FP16", "ORT INT8", "INT8 MB", *PLAIN)
_JUDGED = ("pass", "fail")


def zoo() -> str:
    """Return the README's block: the shares, and what the plain chain does on the same networks."""
    return _shares(read(RESULT)["networks"].values())


def zoo_page(result: dict[str, Any]) -> str:
    """Return the text of ZOO.md for a result of benchmarks/zoo.py."""
    networks = result["networks"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    rows = [_cells(key, networks[key]) for key in sorted(networks)]
    return (
        "# The zoo\n\n"
        "Public networks through `toolkit ship`, beside the plain chain of a user. Written by `python -m "
        "benchmarks.readme`, from [results/zoo.json](results/zoo.json); do not edit. "
        f"{versions}.\n\n{_shares(networks.values())}\n"
        "Each file is compared with the network as it was exported, on ONNX Runtime: *pass*, *fail* where it is over "
        "the tolerance of its precision, *not made*. The first three columns are files for LiteRT. Of the plain "
        "chain, *wrong* is a file that runs, without any word of warning, and is over the same tolerance; *other "
        "outputs* are of other sizes or names than the network's; *float32* is a file called INT8 whose weights are "
        "not; *-* was not tried.\n\n"
        f"{table(_HEAD, rows, left=len(_HEAD))}\n{_reasons(networks)}"
    )


def row(key: str, result: dict[str, Any]) -> str:
    """Return one result as a line of the table."""
    return " | ".join(_cells(key, result))


def _cells(key: str, result: dict[str, Any]) -> list[str]:
    name, _, exporter = key.partition(", ")
    shipped = result.get("shipped")
    if not isinstance(shipped, dict):
        return [name, exporter, *["-"] * 5, _line(shipped or result["exported"], 80), *["-"] * 3]
    files = {(file["runtime"], file["precision"]): file for file in shipped["files"]}
    marks = [_mark(files, "LiteRT", precision) for precision in ("fp32", "fp16", "int8")]
    marks += [_mark(files, "ONNX Runtime", precision) for precision in ("fp16", "int8")]
    sizes = [_megabytes(files, "ONNX Runtime", "fp32"), _megabytes(files, "LiteRT", "int8")]
    return [name, exporter, sizes[0], *marks, sizes[1], *(_plain_mark(result["plain"].get(title)) for title in PLAIN)]


def _mark(files: dict[tuple[str, str], dict[str, Any]], runtime: str, precision: str) -> str:
    """Return the verdict on a file, and whether TensorFlow's converter made it."""
    file = files.get((runtime, precision))
    if file is None:
        return "not made"
    return f"{file['verdict']}{' (TensorFlow)' if '.tf.' in file['file'] else ''}"


def _megabytes(files: dict[tuple[str, str], dict[str, Any]], runtime: str, precision: str) -> str:
    size = files.get((runtime, precision), {}).get("bytes")
    return f"{size / 1e6:.2f}" if size else "-"


def _plain_mark(made: dict[str, Any] | None) -> str:
    """Return what came of a file of the plain chain."""
    if made is None or "failed" in made:
        return "-" if made is None else "fails"
    if "other" in made:
        return "other outputs"
    return "wrong" if "wrong" in made else "float32" if _is_hollow(made) else "pass"


def _is_hollow(made: dict[str, Any]) -> bool:
    """Return whether a quantized file of the plain chain holds most of its weights in float32."""
    return str(made["file"]).endswith(".int8.onnx") and int(made["bytes"]) > _HOLLOW * int(made["of_bytes"])


def _line(text: object, most: int) -> str:
    """Return the first line of a text, without what would end a cell of a table."""
    return str(text).split("\n")[0][:most].replace("|", "/")


def _shares(results: Collection[dict[str, Any]]) -> str:
    """Return the shares of the goal as a table, and a line on the plain chain. Networks that torch's exporter refuses
    count for nothing, and those that `ship` refuses as a whole count as not made in every row."""
    tried = [result for result in results if result["exported"] is True]
    made = [result["shipped"] for result in tried if isinstance(result["shipped"], dict)]
    rows = []
    for runtime, precision in ((r, p) for r in ("LiteRT", "ONNX Runtime") for p in ("fp32", "fp16", "int8")):
        verdicts = [
            file["verdict"]
            for shipped in made
            for file in shipped["files"]
            if (file["runtime"], file["precision"]) == (runtime, precision)
        ]
        right = sum(verdict in ("pass", "reference") for verdict in verdicts)
        judged = right + verdicts.count("fail")
        rows.append([runtime, precision, *(f"{n} of {len(tried)} ({n / len(tried):.1%})" for n in (judged, right))])
    unsaid = sum(len(_unsaid(result)) for result in tried)
    chain = ", ".join(f"{title} {_count(tried, title)}" for title in PLAIN)
    return (
        f"{table(['runtime', 'precision', 'made and judged', 'right'], rows, left=2)}\n\n"
        f"{len(tried)} runs. Files that `ship` says pass, and that differ from the network: {unsaid}. The plain chain: "
        f"{chain}.\n"
    )


def _unsaid(result: dict[str, Any]) -> list[str]:
    """Return the files that pass by `ship`, and do not agree with the network as it was exported."""
    if not isinstance(result["shipped"], dict):
        return []
    passing = {file["file"] for file in result["shipped"]["files"] if file["verdict"] == "pass"}
    return [name for name, agrees in result["agrees"].items() if name in passing and not agrees]


def _count(tried: list[dict[str, Any]], title: str) -> str:
    """Return in words what came of one file of the plain chain."""
    marks = [_plain_mark(result["plain"].get(title)) for result in tried if isinstance(result["shipped"], dict)]
    words = {
        "wrong": "is wrong without saying so",
        "other outputs": "has other outputs",
        "float32": "leaves the weights in float32",
        "fails": "fails",
    }
    return " and ".join(f"{what} on {marks.count(mark)}" for mark, what in words.items() if mark in marks) or "is right"


def _reasons(networks: dict[str, Any]) -> str:
    """Return a list of all refusals, and of the files over their tolerance or not made, with the reasons."""
    lines = [f"- {key}: {reason}\n" for key in sorted(networks) for reason in _reasons_of(networks[key])]
    return "\n## Why not\n\n" + "".join(lines) if lines else ""


def _reasons_of(result: dict[str, Any]) -> Iterator[str]:
    """Yield each reason once, after the names of its files."""
    shipped = result.get("shipped")
    if not isinstance(shipped, dict):
        yield _line(shipped or f"not exported: {result['exported']}", 1000)
        return
    reasons: dict[str, list[str]] = {}
    for file in shipped["files"]:
        if file["verdict"] not in ("pass", "reference"):
            said = f"{file['verdict']}: {_line('; '.join(file['why']), 1000)}"
            reasons.setdefault(said, []).append(file["file"])
    for said, files in reasons.items():
        yield f"{', '.join(files)}: {said}"
    for step, why in shipped["failed"].items():
        yield f"{step} failed: {_line(why, 1000)}"
    for name in _unsaid(result):
        yield f"{name}: passes by `ship`, and differs from the network as it was exported"
