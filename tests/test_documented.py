"""README.md and docs/*.md: their commands are ones that the toolkit takes and does, their refusals are in the code."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.foreign_graphs import save_graph
from tests.foreign_graphs import toolkit as command
from toolkit.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COFFEE = ROOT / "tests" / "images" / "coffee.jpg"
# The commands that are not executed here, by a part of them, and the reason.
NOT_EXECUTED = {
    "setup-converter": "installs 3 GB; tests/test_environments.py has its own",
    "--checkpoint checkpoint.pth": "needs a published checkpoint of 3 GB",
    "-m deepencoder": "needs the bundle of a model of 400 MB; tests/cli/test_run_kinds.py runs small ones",
    "-m foveated": "likewise",
    "-m captioner": "likewise",
    "--peers": "takes many minutes; tests/bench/test_peers.py has its own",
}
_COMMAND = re.compile(r"^    (toolkit .*)$", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REFUSAL = re.compile(r"^\| `([^`]*)` \|", re.MULTILINE)


def _commands(page: Path) -> list[list[str]]:
    """The commands of a page as lists of words, comments left out."""
    return [shlex.split(line, comments=True)[1:] for line in _COMMAND.findall(page.read_text(encoding="utf-8"))]


ALL = [(page.name, shlex.join(words)) for page in PAGES for words in _commands(page)]


def test_every_page_that_the_readme_names_exists_and_has_commands_or_refusals() -> None:
    named = re.findall(r"\]\((docs/[\w-]+\.md)\)", PAGES[0].read_text(encoding="utf-8"))
    assert {ROOT / name for name in named} == set(PAGES[1:])
    assert {page for page, _ in ALL} == {"README.md", "your-model.md", "verdict.md"}
    assert len(ALL) > 20


@pytest.mark.parametrize(("page", "line"), ALL, ids=[line for _, line in ALL])
def test_every_command_is_one_that_the_toolkit_takes(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(line)
    found = main.get_command(click.Context(main), name)
    assert found is not None, f"{page} names a command that there is none of"
    found.make_context(name, arguments)


@pytest.fixture
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a small model, an image and a bundle under each of the names that the pages use."""
    monkeypatch.chdir(tmp_path)
    for name, output, sizes in (("model", "output", [1, 3, 16, 16]), ("resnet50", "logits", ["n", 3, "h", "w"])):
        rng = np.random.default_rng(0)
        weights = {"kernel": rng.standard_normal((8, 3, 3, 3)), "matrix": rng.standard_normal((8, 64))}
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["input", "kernel"], ["map"], pads=[1, 1, 1, 1]),
                helper.make_node("Relu", ["map"], ["positive"]),
                helper.make_node("ReduceMean", ["positive"], ["mean"], axes=[2, 3], keepdims=0),
                helper.make_node("MatMul", ["mean", "matrix"], [output]),
            ],
            "g",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, sizes)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [sizes[0], 64])],
            [numpy_helper.from_array(value.astype(np.float32), key) for key, value in weights.items()],
        )
        save_graph(tmp_path, graph).rename(f"{name}.onnx")
    np.savez("inputs.npz", input=np.random.default_rng(1).random((4, 3, 16, 16), dtype=np.float32))
    table = np.random.default_rng(2).standard_normal((100, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"]), helper.make_node("MatMul", ["rows", "w"], ["tokens"])],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 8])],
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [1, 8, 64])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(table[:64], "w")],
    )
    save_graph(tmp_path, graph).rename("bert.onnx")
    np.savez("sentences.npz", ids=np.random.default_rng(3).integers(0, 100, (4, 8)))
    Path("photographs").mkdir()
    shutil.copy(COFFEE, "photographs")
    shutil.copy(COFFEE, "photo.jpg")
    shutil.copytree(ROOT / "toolkit" / "bundles" / "pocketseal", "build/pocketseal")


def _globbed(words: list[str]) -> Iterator[str]:
    for word in words:
        yield from sorted(map(str, Path().glob(word))) if "*" in word else [word]


@pytest.mark.openvino
@pytest.mark.large
@pytest.mark.usefixtures("_place")
@pytest.mark.parametrize("page", [page for page in PAGES if _commands(page)], ids=lambda page: page.name)
def test_every_command_of_a_page_does_its_work_in_the_order_of_the_page(page: Path, tmp_path: Path) -> None:
    for words in _commands(page):
        line = shlex.join(words)
        if any(part in line for part in NOT_EXECUTED):
            continue
        if not (tmp_path / "build" / "mine").exists() and "build/mine" in line and words[0] != "ship":
            assert command("ship", "model.onnx", "-o", "build/mine", "--time-limit", 0).exit_code == 0
        shown = command(*_globbed(words))
        assert shown.exit_code == 0, f"toolkit {line}\n{shown.output}"


@pytest.mark.large
@pytest.mark.parametrize("page", [page for page in PAGES if _PYTHON.search(page.read_text())], ids=lambda p: p.name)
def test_every_python_block_runs(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(_PYTHON.findall(page.read_text(encoding="utf-8"))):
        script = tmp_path / f"block_{number}.py"
        script.write_text(block, encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "LiteRT: take model." in done.stdout


def _text(node: ast.AST) -> str:
    """The text of a string in code, with a line break in the place of each value in it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return str(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else "\n"


def _texts_of_the_code() -> list[str]:
    texts = []
    for folder in ("backends", "graphs", "toolkit"):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            texts += [_text(node) for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp)]
    return texts


def test_every_refusal_that_is_explained_is_in_the_code() -> None:
    refusals = _REFUSAL.findall((ROOT / "docs" / "refused.md").read_text(encoding="utf-8"))
    assert len(refusals) > 30
    texts = _texts_of_the_code()
    missing = []
    for refusal in refusals:
        pieces = [re.escape(piece.strip()) for piece in refusal.split("...") if piece.strip(" :;,()")]
        wanted = re.compile(r".*?".join(pieces), re.DOTALL)
        if not any(wanted.search(text) for text in texts):
            missing.append(refusal)
    assert missing == []
