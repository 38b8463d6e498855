"""toolkit bench"""

import json
from pathlib import Path

import click


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
    help="For the rounds of one role, where the figures do not stand still before.",
)
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write every figure to FILE.")
@click.option("--against", type=click.Path(path_type=Path), metavar="FILE", help="An earlier FILE, to compare with.")
def bench(bundle: Path, threads: int | None, time_limit_s: float, out: Path | None, against: Path | None) -> None:
    """Time every file of BUNDLE, side by side, and what each takes alone.

    Files take turns in rounds until their figures stand still, so that what the machine does meets all of them alike:
    trust the ratios. Load, first run, CPU time, memory and energy are those of a fresh process. With --against, what
    changed by more than the noise of both runs.

    \b
    Example:
      toolkit bench build/pocketseal --json bench.json
    """
    from rich.console import Console

    from backends.atomic import replacing
    from backends.bundle import Bundle
    from toolkit.bench.against import read_result
    from toolkit.cli.bench_table import print_against, print_result
    from toolkit.cli.bundles import warn_if_random
    from toolkit.cli.console import working
    from toolkit.threads import default_threads

    opened = Bundle.open(bundle)
    before = read_result(against) if against else None
    warn_if_random(opened)
    with working(f"bench {bundle}") as progress:
        progress.step("loading the runtimes")
        from toolkit.bench.bundle import bench_bundle

        result = bench_bundle(opened, threads or default_threads(), time_limit_s, progress.step).to_json()
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    console = Console(highlight=False)
    print_result(result, console)
    if before is not None:
        print_against(before, result, console)
