"""The command `toolkit compare`."""

import json
from pathlib import Path

import click

from toolkit.cli.group import Target
from toolkit.cli.inputs import input_options, with_given_inputs
from toolkit.cli.judge import judge_option
from toolkit.metrics.task import JudgeChoice

DIFFERS = 1


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--images", type=click.Path(path_type=Path), metavar="DIR", help="Images of yours, read as well.")
@input_options
@click.option("--json", "out", type=Target(), metavar="FILE", help="Write every number to FILE.")
@click.option("--html", type=Target(), metavar="FILE", help="Write a report for a browser to FILE.")
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
@click.option("--record", type=Target(or_folder=True), metavar="FILE|DIR", help="Keep every output there instead.")
@click.option(
    "--against-record",
    "recorded",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="Compare with the outputs kept there instead: what a new version of a runtime moved.",
)
@judge_option("Instead of the judge that the bundle keeps.")
@click.pass_context
def compare(
    ctx: click.Context,
    bundle: Path,
    images: Path | None,
    inputs: Path | None,
    preprocess: str | None,
    out: Path | None,
    html: Path | None,
    timed: Path | None,
    bisected: tuple[Path, ...],
    threads: int | None,
    record: Path | None,
    recorded: Path | None,
    judge: JudgeChoice | None,
) -> None:
    """Hold every file of BUNDLE to the reference, and to the file that it was made from.

    The reference is torch where it is installed, else the float32 ONNX file. Photographs that ship with this package
    are read as they are, marked, and distorted; so are noise, constants and extremes. Exit code 1 if a file differs by
    more than is written down for its kind and precision; the table says which number did it.

    An imported model is compared on noise, and on the inputs of --inputs, or of those that import or convert was given.
    Without real inputs its verdict is advisory; with them, files in less than float32 are judged on them alone.

    --html times, profiles and bisects the files too, unless results are given, and writes one page with all of it.

    --record keeps what every file gives for the samples that ship with this package, and with --against-record the
    same files are held to that: exit code 1 if an answer changed, such as a bit, a verdict or the largest of a list.

    \b
    Example:
      toolkit compare build/pocketseal --html report.html
      toolkit compare build/resnet50 --judge topk=5:logits
      toolkit compare build/resnet50 --inputs photographs --preprocess "mean=0.485 0.456 0.406,std=0.229 0.224 0.225"
      toolkit compare build/pocketseal --record before.npz
      toolkit compare build/pocketseal --against-record before.npz
    """
    if record is not None or recorded is not None:
        alone = (images, inputs, html, judge)
        if (record is not None and recorded is not None) or any(alone) or (record is not None and out):
            raise click.UsageError(
                "--record and --against-record go with --threads only, and --against-record with --json too", ctx
            )
        _records(ctx, bundle, record, recorded, out, threads)
        return
    from rich.console import Console

    from backends.atomic import replacing
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from toolkit.cli.console import warn_if_random, working
    from toolkit.cli.parity_table import print_report
    from toolkit.models.tensor import with_judge
    from toolkit.report.evidence import read_bench, read_bisection
    from toolkit.report.page import write_page

    if html is None and (timed or bisected):
        raise click.UsageError("--bench and --bisect bring results to the report: give --html too", ctx)
    opened = with_given_inputs(Bundle.open(bundle), inputs, preprocess)
    if judge is not None:
        opened = with_judge(opened, judge)
    bench = read_bench(timed, opened) if timed else None
    bisections = [read_bisection(path, opened) for path in bisected]
    warn_if_random(opened)
    with working(f"compare {bundle}") as progress:
        progress.step("loading the runtimes")
        from toolkit.images.open import image_files
        from toolkit.parity.compare import compare_bundle
        from toolkit.report.evidence import gather

        paths = image_files(images) if images else []
        threads = threads or default_threads()
        report = compare_bundle(opened, paths, threads, progress.step)
        if out is not None:
            with replacing(out) as temporary:
                temporary.write_text(json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if html is not None:
            evidence = gather(opened, report, paths, threads, bench, bisections, progress.step)
            progress.step("writing the report")
            write_page(evidence, html)
    print_report(report, Console(highlight=False))
    if not report.passed:
        ctx.exit(DIFFERS)


def _records(
    ctx: click.Context, folder: Path, record: Path | None, recorded: Path | None, out: Path | None, threads: int | None
) -> None:
    from rich.console import Console

    from backends.atomic import replacing
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from toolkit.cli.console import warn_if_random, working
    from toolkit.cli.record_table import print_drift

    bundle = Bundle.open(folder)
    warn_if_random(bundle)
    with working(f"compare {folder}") as progress:
        progress.step("loading the runtimes")
        from toolkit.records.drift import drift_of, records_at
        from toolkit.records.making import record_bundle
        from toolkit.records.record import write_record

        if record is not None:
            written = write_record(record_bundle(bundle, threads or default_threads(), progress.step), record)
            click.echo(f"{written}: {written.stat().st_size / 1e6:.1f} MB")
            return
        assert recorded is not None  # one of the two was given
        found = records_at(recorded, bundle)
        drifts = [drift_of(one, path.name, bundle, threads, progress.step) for path, one in found]
    if out is not None:
        with replacing(out) as temporary:
            document = {"drifts": [drift.to_json() for drift in drifts]}
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    console = Console(highlight=False)
    for drift in drifts:
        print_drift(drift, console)
    if not all(drift.passed for drift in drifts):
        ctx.exit(DIFFERS)
