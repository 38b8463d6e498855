"""How many small changes to the code the tests notice: `pip install cosmic-ray==8.7.0`, then `python -m
benchmarks.mutation --out benchmarks/results/mutation.json`.

A seeded sample of changes is drawn from each package: a comparison turned round or moved by one, a number changed by
one, `and` for `or`, a branch negated, a loop skipped, a decorator removed. Each changed file is put into a copy of the
last commit, where the tests of the package's own room run until one of them fails: first the test files that are named
after the module, then the rest, but for tests that convert a model. Answers are appended to the state file: a run that
was stopped goes on; `--again` repeats the changes that survived. benchmarks/mutation_survivors.json holds, for
"FILE: CHANGE", the reason why a change may survive.
"""

import ast
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from rich.progress import track

# Package -> the folder of its tests.
ROOMS = {
    "backends": "tests/backends",
    "graphs/passes": "tests/graphs/passes",
    "toolkit/metrics": "tests/metrics",
    "toolkit/parity": "tests/parity",
}
# One or two replacements of each operator, as in mutmut: most of cosmic-ray's other replacements are type errors.
OPERATORS = re.compile(
    "NumberReplacer|AddNot|True|False|AndWithOr|OrWithAnd|Break|Continue|RemoveDecorator|ZeroIteration|Delete_|"
    "USub_UAdd|Eq_NotEq|Is_IsNot|IsNot_Is$|(Lt|Gt)E?_(Lt|Gt)E?$|Add_(Sub|Mul)|Sub_Add|Mul_(Div|Add)|Div_Mul|FloorDiv_Mul|"
    "Mod_FloorDiv|LShift_RShift|Pow_Mul|BitOr_BitAnd|BitAnd_BitOr"
)
# Tests that convert a model first take too long to be run for each change.
LEFT_OUT = ("tests/backends/test_hold.py", "tests/parity/test_kinds_compare.py")
PRELOADED = ["pytest", "numpy", "torch", "onnx", "onnx_ir", "onnxruntime", "ai_edge_litert.interpreter"]
TIMEOUT_S = 600  # A change that makes the tests hang is noticed.
REASONS = Path(__file__).with_name("mutation_survivors.json")


def mutants(package: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Return changes at up to `count` places of a package. With one seed, a larger sample contains the smaller ones."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(Path(package).glob("*.py"))}
    every = [item.mutations[0] for item in _all_work_items(sources, {})]
    every = [one for one in every if OPERATORS.search(one.operator_name)]
    random.Random(seed).shuffle(every)
    annotated = {path: set(_annotated(ast.parse(source))) for path, source in sources.items()}
    found: dict[tuple[Path, int, int], dict[str, Any]] = {}
    for one in every:
        place = (one.module_path, *one.start_pos)
        if place in found or one.start_pos in annotated[one.module_path] or len(found) == count:
            continue
        source = sources[one.module_path]
        changed = mutate_code(source, get_operator(one.operator_name)(), one.occurrence)
        lines = zip(source.splitlines(), changed.splitlines(), strict=False)
        old, new = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
        if old:
            change = f"- {old.strip()} + {new.strip()}"
            found[place] = {"file": str(one.module_path), "line": place[1], "change": change, "source": changed}
    return list(found.values())


def _annotated(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """Yield every line and column inside a type annotation."""
    for node in ast.walk(tree):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None:
                for line in range(part.lineno, part.end_lineno + 1):
                    yield from ((line, column) for column in range(part.col_offset, 120))


def run_tests(tree: str, tests: list[str], keep_bytecode: bool) -> None:
    """Run tests in this process until one fails, and exit with pytest's exit code."""
    os.setsid()
    os.chdir(tree)
    sys.path.insert(0, tree)
    # Bytecode is looked up by time and size, which two changes of one file may share.
    sys.dont_write_bytecode = not keep_bytecode
    os.environ |= {"PYTHONPATH": tree} | ({} if keep_bytecode else {"PYTHONDONTWRITEBYTECODE": "1"})
    log = os.open("mutation.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1), os.dup2(log, 2)
    import pytest

    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(f"--ignore={slow}" for slow in LEFT_OUT), *tests]))


def survives(mutant: dict[str, Any], room: str, tree: Path) -> bool:
    """Return whether the tests in folder `room` pass with a change in place."""
    path = tree / mutant["file"]
    original = path.read_bytes()
    own = sorted(str(found.relative_to(tree)) for found in (tree / room).glob(f"**/test_*{path.stem}*.py"))
    changed = mutant["source"].encode()
    if changed != original:
        path.write_bytes(changed)
    try:
        return all(_passes(tree, tests, changed == original) for tests in (own, [room]) if tests)
    finally:
        path.write_bytes(original)


def _passes(tree: Path, tests: list[str], keep_bytecode: bool) -> bool:
    process = get_context("forkserver").Process(target=run_tests, args=(str(tree), tests, keep_bytecode))
    process.start()
    process.join(TIMEOUT_S)
    if process.is_alive():
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode == 0


def _said(tree: Path) -> str:
    return (tree / "mutation.log").read_text(errors="replace")[-2000:]


def _key(mutant: dict[str, Any]) -> str:
    return sha256(f"{mutant['file']}\n{mutant['source']}".encode()).hexdigest()


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], stdout=subprocess.PIPE, check=True).stdout


@click.command(help=__doc__)
@click.option("--package", "packages", multiple=True, type=click.Choice(list(ROOMS)), default=list(ROOMS))
@click.option("--count", default=80, show_default=True, help="Changes of each package.")
@click.option("--seed", default=0, show_default=True)
@click.option("--again", is_flag=True, help="Run the changes that survived once more.")
@click.option(
    "--state", type=click.Path(path_type=Path), default="benchmarks/results/mutation.jsonl", show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(packages: tuple[str, ...], count: int, seed: int, again: bool, state: Path, out: Path | None) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    kept = [json.loads(line) for line in state.read_text().splitlines()] if state.exists() else []
    survived = {one["key"]: one["survived"] for one in kept}
    drawn = {package: mutants(package, count, seed) for package in packages}
    repeated = {key for key, lived in survived.items() if lived and again}
    todo = [(one, p) for p in packages for one in drawn[p] if _key(one) in repeated or _key(one) not in survived]
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it as it is loaded, and its idle threads spin
    get_context("forkserver").set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as tree:
        subprocess.run(["tar", "-x", "-C", tree], input=_git("archive", "HEAD"), check=True)
        for package in dict.fromkeys(package for _, package in todo):
            unchanged = {"file": f"{package}/__init__.py", "source": Path(package, "__init__.py").read_text()}
            if not survives(unchanged, ROOMS[package], Path(tree)):
                raise click.ClickException(f"{ROOMS[package]} fails without a change: {_said(Path(tree))}")
        for mutant, package in track(todo):
            survived[_key(mutant)] = survives(mutant, ROOMS[package], Path(tree))
            with state.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": _key(mutant), "survived": survived[_key(mutant)]}) + "\n")
    reasons = json.loads(REASONS.read_text()) if REASONS.exists() else {}
    rows = {}
    for package, sample in drawn.items():
        lived = [{key: one[key] for key in ("file", "line", "change")} for one in sample if survived[_key(one)]]
        for one in lived:
            one["reason"] = reasons.get(f"{one['file']}: {one['change']}", "")
            print(f"{one['file']}:{one['line']} {one['change']}  {one['reason']}")
        rows[package] = {"changes": len(sample), "noticed": len(sample) - len(lived), "survived": lived}
        print(f"{package}: {len(sample) - len(lived)} of {len(sample)} noticed")
    if out is not None:
        from backends.machine import Machine  # imported late: a child imports this module before its own tree

        result = {
            "machine": Machine.here().to_json(),
            "tree": _git("rev-parse", "HEAD^{tree}").decode().strip(),
            "seed": seed,
        }
        out.write_text(json.dumps(result | {"packages": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
