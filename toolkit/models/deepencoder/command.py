"""`toolkit run` of a DeepEncoder: writes the tokens of a page, and a picture of their grid over the page."""

from dataclasses import asdict
from pathlib import Path

from toolkit.models.command import RunRequest, milliseconds, write_arrays, write_picture
from toolkit.models.deepencoder.runner import GLOBAL_MODE, GUNDAM, PageEncoder, laid_over


def run(request: RunRequest, mode: str, compression: bool, output: Path) -> None:
    """Encode each page. Writes STEM.MODE.npz with `sequence` and `grid`, and STEM.MODE.png."""
    with PageEncoder(request.bundle, request.backend, request.precision, request.threads) as encoder:
        request.warn_if_random(request.bundle)
        saved = None
        if compression:
            from toolkit.models.deepencoder.compression import measure_compression  # needs torch

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
