"""python -m toolkit.profiling FILE --threads N --runs N: the child process of operators.profile. JSON on stdout."""

import sys
from pathlib import Path

import click

from toolkit.profiling.operators import to_json


@click.command(help=__doc__)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--threads", type=click.IntRange(min=1), required=True)
@click.option("--runs", type=click.IntRange(min=1), required=True)
def main(path: Path, threads: int, runs: int) -> None:  # noqa: D103  click's help is the module's docstring
    if path.suffix == ".onnx":
        from toolkit.profiling.ort import profile
    else:
        from toolkit.profiling.litert import profile
    sys.stdout.write(to_json(profile(path, threads, runs)))


if __name__ == "__main__":
    main()
