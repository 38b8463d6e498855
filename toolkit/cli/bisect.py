"""The command `toolkit bisect`."""

import json
from pathlib import Path

import click

from backends.precision import RECIPES
from toolkit.cli.group import Target
from toolkit.cli.inputs import input_options, with_given_inputs


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--candidate", required=True, metavar="FILE", help="The file of BUNDLE to look into, ONNX or TFLite.")
@click.option("-b", "--backend", metavar="NAME", help="Run FILE's layers on this backend, for ONNX files.")
@click.option(
    "-p",
    "--precision",
    type=click.Choice([name for name, recipe in RECIPES.items() if recipe.base is not None]),
    help="With --backend: run FILE, a float32 file, in this precision.",
)
@click.option(
    "--before",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use this ONNX file as the reference instead of the float32 file of BUNDLE.",
)
@click.option("--pass", "around_pass", metavar="NAME", help="Compare the graph before and after this pass instead.")
@click.option("--repro", type=click.Path(path_type=Path), metavar="DIR", help="Default: beside BUNDLE.")
@input_options
@click.option("--json", "out", type=Target(), metavar="FILE", help="Write every layer to FILE.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores this process may use.")
def bisect(
    bundle: Path,
    candidate: str,
    backend: str | None,
    precision: str | None,
    before: Path | None,
    around_pass: str | None,
    repro: Path | None,
    inputs: Path | None,
    preprocess: str | None,
    out: Path | None,
    threads: int | None,
) -> None:
    """Compare a file of BUNDLE with the float32 graph layer by layer, and say which one introduces an error.

    Inherited is the error of a tensor as the file comes to it; introduced, that of one layer alone, given the float32
    graph's own inputs: both as noise over signal. The layer that introduces most ends in a folder of its own, as the
    smallest part of both files, with its inputs and a script that shows the difference.

    With --pass, --candidate is a float32 ONNX file, and the graphs just before and just after that pass on the way to
    it, or from it to TFLite, are compared.

    \b
    Example:
      toolkit bisect build/pocketseal --candidate detector.int8.tflite
      toolkit bisect build/pocketseal --candidate detector.onnx --pass fold_affine
      toolkit bisect build/pocketseal --candidate detector.onnx --backend openvino -p bf16
      toolkit bisect build/bert --candidate model.int8.tflite --inputs sentences.npz
    """
    from rich.console import Console

    from backends.atomic import replacing
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from toolkit.cli.bisect_table import print_report
    from toolkit.cli.console import warn_if_random, working

    if before is not None and around_pass is not None:
        raise click.UsageError("--before and --pass both name a reference: give one", click.get_current_context())
    opened = with_given_inputs(Bundle.open(bundle), inputs, preprocess)
    warn_if_random(opened)
    with working(f"bisect {candidate}") as progress:
        progress.step("loading the runtimes")
        from toolkit.bisect.bundle import bisect_bundle

        report = bisect_bundle(
            opened,
            candidate,
            before,
            around_pass,
            repro,
            threads or default_threads(),
            progress.step,
            backend=backend,
            precision=precision,
        )
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print_report(report, Console(highlight=False))
