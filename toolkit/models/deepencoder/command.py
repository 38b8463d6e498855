"""`toolkit run` of a DeepEncoder: the tokens of a page, a picture of their grid over the page, and the work that the
compressor saves: CLIP on all of SAM's tokens against CLIP on a sixteenth of them."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.registry import ARCHITECTURES
from backends.timing import time_after_warmup
from toolkit.models.command import RunRequest, milliseconds, write_arrays, write_picture
from toolkit.models.deepencoder.runner import GLOBAL_MODE, GUNDAM, PageEncoder, laid_over

if TYPE_CHECKING:
    import torch

    from graphs.networks.deepencoder.encoder import DeepEncoder


def run(request: RunRequest, mode: str, compression: bool, output: Path) -> None:
    """Encode each page. Writes STEM.MODE.npz with `sequence` and `grid`, and STEM.MODE.png."""
    with PageEncoder(request.bundle, request.backend, request.precision, request.threads) as encoder:
        request.warn_if_random(request.bundle)
        saved = None
        if compression:
            saved = measure_compression(request.bundle, GLOBAL_MODE if mode == GUNDAM else mode)
        for name in request.inputs:
            encoder.graphs.forget_times()
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
                milliseconds(encoder.graphs.timing_ms, encoder.graphs.first_runs),
                f"wrote {arrays} and {picture}",
            ]
            request.show(row, lines)


# The compressor makes one token of this many along each axis.
_STRIDE = 4


@dataclass(frozen=True)
class Compression:
    """The cost with and without the compressor.

    flops_*: of the whole encoder, where a multiplication and an addition count as two. clip_seconds_*: of one run of
    CLIP alone, on torch.
    """

    mode: str
    tokens_with: int
    tokens_without: int
    flops_with: int
    flops_without: int
    clip_seconds_with: float
    clip_seconds_without: float

    def __str__(self) -> str:
        times = self.flops_without / self.flops_with
        return (
            f"compression: {self.tokens_with} tokens instead of {self.tokens_without}: "
            f"{self.flops_with / 1e9:.1f} GFLOP, without it {self.flops_without / 1e9:.1f} ({times:.1f}x); "
            f"CLIP takes {self.clip_seconds_with:.2f} s, without it {self.clip_seconds_without:.2f} s"
        )


def measure_compression(bundle: Bundle, mode: str) -> Compression:
    """Count the FLOPs of one page and time CLIP on maps of both sizes, with the bundle's torch weights.

    Without compression CLIP gets each of SAM's tokens, and its positions are resized to their grid. A time is that of
    one run after a warm-up. Raises NotAvailable if the bundle has no torch file of the mode, InvalidArtifact if the
    weights do not fit the network.
    """
    import torch
    from safetensors.torch import load_file

    artifact = bundle.find(mode, "torch", "fp32")
    assert artifact.architecture is not None  # a torch file's manifest has one
    make, config = ARCHITECTURES.load(artifact.architecture["name"]), artifact.architecture["config"]
    weights = load_file(bundle.verify(artifact))
    with torch.device("meta"):
        empty: DeepEncoder = make(config).eval()
        side, size = empty.config.grid_side, empty.config.image_size_px
        few, all_of_them = (torch.zeros(1, empty.config.clip.dim, n, n) for n in (side, _STRIDE * side))
        whole = _flops(empty, torch.zeros(1, 3, size, size))
        clip_with, clip_without = (_flops(empty.vision_model, maps) for maps in (few, all_of_them))
    module: DeepEncoder = make(config).eval()
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InvalidArtifact(f"{artifact.file}: does not fit {mode!r}: {error}") from error
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        seconds = [
            time_after_warmup(partial(module.vision_model, torch.randn(maps.shape, generator=generator)))
            for maps in (few, all_of_them)
        ]
    return Compression(
        mode,
        side**2,
        (_STRIDE * side) ** 2,
        whole,
        whole - clip_with + clip_without,
        seconds[0],
        seconds[1],
    )


def _flops(module: "torch.nn.Module", x: "torch.Tensor") -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter: Any = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        module(x)
    return int(counter.get_total_flops())
