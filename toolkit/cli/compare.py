"""toolkit compare"""

import json
from pathlib import Path

import click

DIFFERS = 1


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--images", type=click.Path(path_type=Path), metavar="DIR", help="Images of yours, read as well.")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write every number to FILE.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a report for a browser to FILE.")
@click.option(
    "--bench",
    "timed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For the report, instead of timing: what `toolkit bench --json` wrote.",
)
@click.option(
    "--bisect",
    "bisected",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    help="For the report, instead of bisecting: what `toolkit bisect --json` wrote; may be repeated.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores this process may use.")
@click.pass_context
def compare(
    ctx: click.Context,
    bundle: Path,
    images: Path | None,
    out: Path | None,
    html: Path | None,
    timed: Path | None,
    bisected: tuple[Path, ...],
    threads: int | None,
) -> None:
    """Hold every file of BUNDLE to the reference, and to the file that it was made from.

    The reference is torch where it is installed, else the float32 ONNX file. Photographs that ship with this package
    are read as they are, marked, and distorted; so are noise, constants and extremes. Exit code 1 if a file differs by
    more than is written down for its kind and precision; the table says which number did it.

    --html times, profiles and bisects the files too, unless results are given, and writes one page with all of it.

    \b
    Example:
      toolkit compare build/pocketseal --html report.html
    """
    from rich.console import Console

    from backends.atomic import replacing
    from backends.bundle import Bundle
    from toolkit.cli.bundles import warn_if_random
    from toolkit.cli.console import working
    from toolkit.cli.parity_table import print_report
    from toolkit.report.evidence import read_bench, read_bisection
    from toolkit.report.page import check_target, write_page
    from toolkit.threads import default_threads

    if html is None and (timed or bisected):
        raise click.UsageError("--bench and --bisect bring results to the report: give --html too", ctx)
    opened = Bundle.open(bundle)
    if html is not None:
        check_target(html)
    bench = read_bench(timed, opened) if timed else None
    bisections = [read_bisection(path, opened) for path in bisected]
    warn_if_random(opened)
    with working(f"compare {bundle}") as progress:
        progress.step("loading the runtimes")
        from toolkit.image_files import image_files
        from toolkit.parity.compare import compare_bundle
        from toolkit.report.gather import gather

        paths = image_files(images) if images else []
        threads = threads or default_threads()
        report = compare_bundle(opened, paths, threads, progress.step)
        if out is not None:
            with replacing(out) as temporary:
                temporary.write_text(json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if html is not None:
            evidence = gather(opened, report.to_json(), paths, threads, bench, bisections, progress.step)
            progress.step("writing the report")
            write_page(evidence, html)
    print_report(report, Console(highlight=False))
    if not report.passed:
        ctx.exit(DIFFERS)
