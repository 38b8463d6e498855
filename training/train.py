"""Train pocketseal: `python -m training.train --data data --out build/training`.

Embedder and detector learn together, from a message laid out as cells in a tile (training/supervision.py). The mark
starts far too strong; crops and flips are there from the start. Once bits come through, the detection channel joins
and the mark fades until its mean PSNR is the final one. Everything drawn at random is a function of the seed and the
step, so a run that was interrupted continues as it would have gone on.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn

from graphs.networks.seal.cards import POCKET_BITS, POCKET_DETECTOR, POCKET_EMBEDDER
from graphs.networks.seal.detector import SealDetector
from graphs.networks.seal.embedder import SealEmbedder, resize
from training import attacks
from training.crops import SIDE_PX, CropPool
from training.photographs import fetch, training_drawings, training_photographs, validation_photographs
from training.supervision import SupervisedDetector, TileLayout, whole

CHECKPOINT_EVERY_S = 180
VALIDATE_EVERY = 250


@dataclass(frozen=True)
class Recipe:
    """Every choice of a run; it is stored with the weights."""

    seed: int = 0
    steps: int = 4000
    batch: int = 32
    unmarked: int = 8
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    # Mean over a batch of crops. They are smaller than photographs, on which the PSNR is about 2.5 dB higher.
    first_psnr_db: float = 26.0
    last_psnr_db: float = 36.0
    # Fading begins at this accuracy over attacked images, and waits whenever it falls below.
    fade_at_accuracy: float = 0.8
    fade_steps: int = 2000
    phase_weight: float = 1.0
    cell_weight: float = 6.0
    detection_weight: float = 0.2
    ema_decay: float = 0.995
    pool_size: int = 1536
    renewed_per_step: int = 8


@dataclass
class Curriculum:
    """The difficulty of the task: `strength`, which multiplies the heat map, follows the PSNR that is due.

    accuracy: running mean of the bit accuracy. faded: how far the mark has faded, 0 to 1.
    """

    accuracy: float = 0.5
    faded: float = 0.0
    strength: float = 2.0

    def update(self, accuracy: float, psnr_db: float, recipe: Recipe) -> None:
        """Take in the bit accuracy (0 to 1) and the PSNR in dB of a step."""
        self.accuracy = 0.98 * self.accuracy + 0.02 * accuracy
        if self.accuracy > recipe.fade_at_accuracy:
            self.faded = min(1.0, self.faded + 1 / recipe.fade_steps)
        due = recipe.first_psnr_db + self.faded * (recipe.last_psnr_db - recipe.first_psnr_db)
        self.strength *= 10 ** (0.05 * (psnr_db - due) / 20)


class Trainer:
    """Both networks, their averages, the optimizer and the curriculum: everything that a checkpoint holds."""

    def __init__(self, recipe: Recipe, device: torch.device, compiled: bool) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.layout = TileLayout(POCKET_EMBEDDER)
        self.embedder = SealEmbedder(POCKET_EMBEDDER).to(device, memory_format=torch.channels_last)
        detector = SealDetector(POCKET_DETECTOR)
        _initialize(detector)
        with torch.no_grad():
            first = self.layout.embedding(POCKET_EMBEDDER.message_dim, np.random.default_rng((recipe.seed, 3)))
            self.embedder.unet.msg_processor.msg_embeddings.weight.copy_(first)
        self.supervised = SupervisedDetector(detector, POCKET_BITS).to(device, memory_format=torch.channels_last)
        self.networks = nn.ModuleDict({"embedder": self.embedder, "supervised": self.supervised})
        self.average = torch.optim.swa_utils.AveragedModel(
            self.networks, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(
            self.networks.parameters(), lr=recipe.learning_rate, weight_decay=0.01, fused=True
        )
        self.curriculum = Curriculum()
        self.step = 0
        self._detect = torch.compile(self.supervised) if compiled else self.supervised
        self._embed = torch.compile(self.embedder) if compiled else self.embedder

    def train_step(self, pool: CropPool) -> dict[str, float | None]:
        """Train on one batch from the pool, and return the losses and figures of the step."""
        recipe, rng = self.recipe, np.random.default_rng((self.recipe.seed, 1, self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(self.step, recipe)
        self.networks.train()
        side = int(rng.choice([128, 192, SIDE_PX]))
        images, heatmaps = pool.batch(rng, recipe.batch + recipe.unmarked, side)
        images, heatmaps = images.to(self.device), heatmaps.to(self.device)
        message = torch.from_numpy(rng.integers(0, 2, (recipe.batch, POCKET_BITS)).astype(np.float32)).to(self.device)

        strength = self.curriculum.strength
        marked, watermark = mark(self._embed, images[: recipe.batch], heatmaps[: recipe.batch], message, strength)
        both = torch.cat([marked, images[recipe.batch :]])
        order = torch.from_numpy(rng.permutation(len(both)))
        attacked, frames = torch.empty_like(both), whole(len(both))
        attacked[order], frames[order.numpy()] = attacks.attack(both[order], rng)
        small = resize(attacked, POCKET_DETECTOR.image_size_px, POCKET_DETECTOR.image_size_px)
        logits, phases, maps = self._detect(small.contiguous(memory_format=torch.channels_last))
        phase_loss, cell_loss = self.layout.loss(
            frames[: recipe.batch], message, phases[: recipe.batch], [bits[: recipe.batch] for bits in maps]
        )

        present = torch.zeros(len(both), device=self.device)
        present[: recipe.batch] = 1
        bits_loss = F.binary_cross_entropy_with_logits(logits[: recipe.batch, 1:], message)
        detection_loss = F.binary_cross_entropy_with_logits(logits[:, 0], present)
        self.optimizer.zero_grad(set_to_none=True)
        # Detection is easy. If it is learned first, it settles on one mark for every message, so it waits for the bits.
        detection_weight = recipe.detection_weight * min(1.0, 10 * self.curriculum.faded)
        loss = bits_loss + detection_weight * detection_loss
        (loss + recipe.phase_weight * phase_loss + recipe.cell_weight * cell_loss).backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.networks)
        self.step += 1

        logits, marked, watermark = logits.detach(), marked.detach(), watermark.detach()
        right = ((logits[: recipe.batch, 1:] > 0) == (message > 0.5)).float().mean(dim=1).cpu().numpy()
        error = ((marked - images[: recipe.batch]) ** 2).mean(dim=(1, 2, 3))
        psnr_db = float(-10 * error.log10().mean())
        self.curriculum.update(float(right.mean()), psnr_db, recipe)
        cropped = np.abs(frames[: recipe.batch, 2] - frames[: recipe.batch, 0]) < 1
        return {
            "loss_bits": float(bits_loss.detach()),
            "loss_detection": float(detection_loss.detach()),
            "loss_phase": float(phase_loss.detach()),
            "loss_cells": float(cell_loss.detach()),
            "bit_accuracy": float(right.mean()),
            "bit_accuracy_cropped": float(right[cropped].mean()) if cropped.any() else None,
            "bit_accuracy_whole": float(right[~cropped].mean()) if not cropped.all() else None,
            "psnr_db": psnr_db,
            "watermark_rms": float((watermark**2).mean().sqrt()),
        }

    @torch.no_grad()
    def validate(self, pool: CropPool, batches: int = 4) -> dict[str, float]:
        """Return the bit accuracy of the averaged weights at the present strength, plain and under each attack."""
        networks: Any = self.average.module
        networks.eval()
        results: dict[str, list[float]] = {}
        for index in range(batches):
            rng = np.random.default_rng((self.recipe.seed, 2, index))
            images, heatmaps = pool.batch(rng, self.recipe.batch, SIDE_PX)
            images, heatmaps = images.to(self.device), heatmaps.to(self.device)
            message = torch.from_numpy(rng.integers(0, 2, (len(images), POCKET_BITS)).astype(np.float32)).to(
                self.device
            )
            marked, _ = mark(networks["embedder"], images, heatmaps, message, self.curriculum.strength)
            attacked = {"plain": marked}
            attacked |= {move.__name__: move(marked, whole(len(images)), rng)[0] for move in attacks.MOVES}
            attacked |= {change.__name__: change(marked, rng) for change in attacks.CHANGES}
            for name, pixels in attacked.items():
                logits = networks["supervised"].detector(
                    resize(pixels, POCKET_DETECTOR.image_size_px, POCKET_DETECTOR.image_size_px)
                )
                right = ((logits[:, 1:] > 0) == (message > 0.5)).float().mean()
                results.setdefault(name, []).append(float(right))
        return {name: float(np.mean(values)) for name, values in results.items()}

    def state(self) -> dict[str, Any]:
        """Return everything that `restore` needs to continue the run."""
        return {
            "step": self.step,
            "recipe": asdict(self.recipe),
            "curriculum": asdict(self.curriculum),
            "networks": self.networks.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        # Another number of steps only moves the end of the same run; any other change would make it another run.
        """Continue the run of a state. Raises ClickException if its recipe differs in more than the number of steps."""
        if state["recipe"] | {"steps": self.recipe.steps} != asdict(self.recipe):
            raise click.ClickException(f"the checkpoint was made by another recipe: {state['recipe']}")
        self.step = state["step"]
        self.curriculum = Curriculum(**state["curriculum"])
        self.networks.load_state_dict(state["networks"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def mark(
    embedder: nn.Module, images: Tensor, heatmaps: Tensor, message: Tensor, strength: float
) -> tuple[Tensor, Tensor]:
    """Return marked images, rounded to 8 bits, and their watermarks before attenuation."""
    small = resize(images, POCKET_EMBEDDER.image_size_px, POCKET_EMBEDDER.image_size_px).contiguous(
        memory_format=torch.channels_last
    )
    watermark = embedder(small, message)
    change = resize(watermark, images.shape[2], images.shape[3]) * heatmaps * strength
    return attacks.to_8_bits((images + change).clamp(0, 1)), watermark


def _initialize(detector: nn.Module) -> None:
    """Draw small random weights (truncated normal, 0.02), from which ConvNeXt starts."""
    for module in detector.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _schedule(step: int, recipe: Recipe) -> float:
    """Return the factor of the learning rate at a step: a linear warm-up, then a cosine down to 0.01."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return float(0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(1.0, progress))))


def _save(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _continued_log(path: Path, step: int) -> Path:
    """Remove the log's rows from `step` on, which an interrupted run wrote after its last checkpoint.

    Returns the path.
    """
    if path.exists():
        rows = path.read_text().splitlines(keepends=True)
        path.write_text("".join(row for row in rows if json.loads(row)["step"] < step))
    return path


def _steps(trainer: Trainer) -> Iterator[int]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("training", total=trainer.recipe.steps, completed=trainer.step)
        while trainer.step < trainer.recipe.steps:
            yield trainer.step
            c = trainer.curriculum
            text = f"bits {c.accuracy:.1%}  faded {c.faded:.0%}  strength {c.strength:.2f}"
            progress.update(task, completed=trainer.step, description=text)


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="build/training", show_default=True)
@click.option("--steps", default=Recipe.steps, show_default=True)
@click.option("--seed", default=Recipe.seed, show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Compile both networks: minutes of wait, then faster steps.")
def main(data: Path, out: Path, steps: int, seed: int, compiled: bool) -> None:
    recipe = Recipe(seed=seed, steps=steps)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    trainer = Trainer(recipe, device, compiled)
    if checkpoint.exists():
        trainer.restore(torch.load(checkpoint, weights_only=True, map_location=device))
        click.echo(f"continuing at step {trainer.step}")

    fetch(data)
    click.echo("reading photographs")
    pool = CropPool(training_photographs(data), training_drawings(data), recipe.pool_size, seed)
    pool.fill(trainer.step, recipe.renewed_per_step)
    validation = CropPool(validation_photographs(data), [], 128, seed + 1)
    validation.fill(0, 0)

    saved = time.monotonic()
    with _continued_log(out / "log.jsonl", trainer.step).open("a") as log:
        for step in _steps(trainer):
            pool.renew(step, recipe.renewed_per_step)
            row: dict[str, Any] = {"step": step, **trainer.train_step(pool), **asdict(trainer.curriculum)}
            if trainer.step % VALIDATE_EVERY == 0 or trainer.step == recipe.steps:
                row["validation"] = trainer.validate(validation)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if time.monotonic() - saved > CHECKPOINT_EVERY_S or trainer.step == recipe.steps:
                _save(trainer.state(), checkpoint)
                saved = time.monotonic()
    networks: Any = trainer.average.module
    for name, network in (("detector", networks["supervised"].detector), ("embedder", networks["embedder"])):
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        save_file(weights, out / f"{name}.safetensors")
    click.echo(f"weights are in {out}")


if __name__ == "__main__":
    main()
