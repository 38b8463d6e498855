"""`toolkit run` of a DeepEncoder: a page's tokens, and a picture of them."""

from dataclasses import asdict
from pathlib import Path

import click

from toolkit.cli.runs.output import OUTPUT, write_arrays, write_picture
from toolkit.cli.runs.request import Request, milliseconds

OPTIONS = (
    click.Option(["--mode"], default="base", show_default=True, help="tiny, small, base, large or gundam."),
    click.Option(
        ["--compression"],
        is_flag=True,
        help="Also measure what 16 times fewer tokens save: FLOPs and seconds of the torch files, with and without.",
    ),
    OUTPUT,
)


def run(ctx: click.Context, request: Request, mode: str, compression: bool, output: Path) -> None:
    """Writes STEM.MODE.npz with `sequence` and `grid`, and STEM.MODE.png, for each page."""
    from toolkit.cli.bundles import warn_if_random
    from toolkit.kinds.deepencoder import GLOBAL_MODE, GUNDAM, PageEncoder, laid_over

    with PageEncoder(request.bundle, request.backend, request.precision, request.threads) as encoder:
        warn_if_random(request.bundle)
        saved = None
        if compression:
            from toolkit.kinds.compression import measure_compression

            saved = measure_compression(request.bundle, GLOBAL_MODE if mode == GUNDAM else mode)
        for name in request.inputs:
            encoder.graphs.timing_ms.clear()
            page = encoder.encode(name, mode)
            rows, columns, dim = page.grid.shape
            stem = output / f"{Path(name).stem}.{mode}"
            arrays = write_arrays(Path(f"{stem}.npz"), {"sequence": page.sequence, "grid": page.grid})
            picture = write_picture(Path(f"{stem}.png"), laid_over(name, page.grid, mode))
            row = request.row(
                name,
                GLOBAL_MODE if mode == GUNDAM else mode,
                mode=mode,
                tokens=len(page.sequence),
                dim=dim,
                grid=[rows, columns],
                tiles=list(page.tiles),
                files=[arrays, picture],
                compression=None if saved is None else asdict(saved),
                timing_ms=encoder.graphs.timing_ms,
            )
            tiles = f", {page.tiles[0]} x {page.tiles[1]} tiles" if mode == GUNDAM else ""
            lines = [
                f"{mode}: {len(page.sequence)} tokens of {dim}, grid of {rows} x {columns}{tiles}",
                *([] if saved is None else [str(saved)]),
                milliseconds(encoder.graphs.timing_ms),
                f"wrote {arrays} and {picture}",
            ]
            request.show(row, lines)
