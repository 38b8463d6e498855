"""The command `toolkit bench`."""

import json
from pathlib import Path

import click

from toolkit.cli.group import Target
from toolkit.cli.inputs import input_options, with_given_inputs


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores this process may use.")
@click.option(
    "--time-limit",
    "time_limit_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="For the rounds of one role, where the figures are not steady before. Runs of a file alone get a tenth of it, "
    "at most a second.",
)
@click.option("--peers", is_flag=True, help="Also time the software that you would run instead: see below.")
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=2),
    multiple=True,
    metavar="N",
    help="Also measure images a second with N at once: makes every file again for N. May be repeated.",
)
@click.option("--profile", is_flag=True, help="Also sum the time of the operators by kind and by module.")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file that an imported bundle was made from: --peers and --batch need it.",
)
@input_options
@click.option("--json", "out", type=Target(), metavar="FILE", help="Write every figure to FILE.")
@click.option("--against", type=click.Path(path_type=Path), metavar="FILE", help="Compare with an earlier result.")
def bench(
    bundle: Path,
    threads: int | None,
    time_limit_s: float,
    peers: bool,
    batches: tuple[int, ...],
    profile: bool,
    source: Path | None,
    inputs: Path | None,
    preprocess: str | None,
    out: Path | None,
    against: Path | None,
) -> None:
    """Time every file of BUNDLE side by side, then each file alone.

    Files take turns in rounds until their figures are steady, so that other work on the machine slows all of them
    alike: trust the ratios. Load, first run, CPU time, memory and energy are those of a fresh process. --against names
    the figures that changed by more than the noise of both runs. Interrupted, the same command with --json FILE goes on
    where it stopped.

    --peers adds PyTorch, eager and compiled; ONNX Runtime and OpenVINO on the graph as it was exported; and the files
    that onnx2tf and TensorFlow's converter make of that graph. The row of a peer that is not installed, or fails, gives
    the reason.

    \b
    Example:
      toolkit bench build/pocketseal --json bench.json
      toolkit bench build/pocketseal --peers --profile --batch 4
      toolkit bench build/bert --inputs sentences.npz
    """
    from rich.console import Console

    from backends.atomic import replacing
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from toolkit.bench.regressions import read_result
    from toolkit.cli.bench_table import print_against, print_result
    from toolkit.cli.console import warn_if_random, working

    opened = with_given_inputs(Bundle.open(bundle), inputs, preprocess)
    before = read_result(against) if against else None
    warn_if_random(opened)
    with working(f"bench {bundle}") as progress:
        progress.step("loading the runtimes")
        from toolkit.bench.bundle import bench_bundle
        from toolkit.bench.result import BenchOptions

        request = BenchOptions(
            threads=threads or default_threads(),
            time_limit_s=time_limit_s,
            peers=peers,
            batches=tuple(dict.fromkeys(batches)),
            profile=profile,
            source=source,
        )
        keep = None if out is None else out.with_name(f"{out.name}.unfinished")
        try:
            result = bench_bundle(opened, request, progress.step, keep)
        except KeyboardInterrupt:
            if keep is not None:
                progress.say(f"{keep}: holds the measurements made so far; the same command goes on from there")
            raise
    if out is not None and keep is not None:
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        keep.unlink(missing_ok=True)
    console = Console(highlight=False)
    print_result(result, console)
    if before is not None:
        print_against(before, result, console)
