"""toolkit import"""

from pathlib import Path

import click


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    if not name or not all(size.strip().isdecimal() for size in sizes.split(",")):
        raise click.UsageError(
            f"--input-shape: expected NAME=1,3,224,224, got {text!r}", click.get_current_context(silent=True)
        )
    return name, tuple(int(size) for size in sizes.split(","))


@click.command("import")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", required=True, help="The bundle.")
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar="NAME=1,3,224,224",
    help="Sizes of an input, where the file leaves some open; may be repeated.",
)
def import_(model: Path, output: Path, shapes: tuple[str, ...]) -> None:
    """Make a bundle of any ONNX file, which convert, compare and bench then work on.

    Opsets 11 to the newest that the installed onnx knows, external data, several inputs and outputs. The graph is
    simplified and held to the file on ONNX Runtime. Operators that TFLite will not have are named here.

    \b
    Example:
      toolkit import resnet50.onnx -o build/resnet50 --input-shape input=1,3,224,224
    """
    from toolkit.cli.bundles import print_artifacts
    from toolkit.cli.console import working
    from toolkit.extras import need

    given = dict(_shape(text) for text in shapes)
    need("export")
    with working(f"import {model}") as progress:
        progress.step("loading onnx")
        from toolkit.convert.support import lowering_problems
        from toolkit.import_model import import_model

        bundle = import_model(model, output, given, progress.step)
        problems = lowering_problems(bundle, progress.step)
    for problem in problems:
        click.secho(f"warning: {problem}", fg="yellow", err=True)
    print_artifacts(bundle)
