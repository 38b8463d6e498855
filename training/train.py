"""Train pocketseal: `python -m training.train --data data --out build/training`.

Embedder and detector learn together. The mark starts twelve times too strong and unattacked. Once most bits come
through, attacks and the detection channel ramp in, then the strength falls to the final one. Everything drawn at
random is a function of the seed and the step, so a run that was interrupted continues as it would have gone on.
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

from graphs.seal.detector import SealDetector
from graphs.seal.embedder import SealEmbedder, resize
from graphs.seal.pocketseal import BITS, DETECTOR, EMBEDDER
from training import attacks
from training.crops import SIDE_PX, CropPool
from training.photographs import fetch, training_drawings, training_photographs, validation_photographs

CHECKPOINT_EVERY_S = 180
VALIDATE_EVERY = 250


@dataclass(frozen=True)
class Recipe:
    """Every choice of a run; stored with the weights."""

    seed: int = 0
    steps: int = 4500
    batch: int = 32
    unmarked: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 150
    # What multiplies the heat map in training, times a strength that falls from first to last.
    scaling_w: float = 0.33
    first_strength: float = 12.0
    last_strength: float = 1.55
    attack_ramp_steps: int = 400
    strength_ramp_steps: int = 1200
    detection_weight: float = 0.2
    # Crops stay near chance while everything else is learnt, and hold the rest back: see the model card.
    crop_until_step: int = 1966
    ema_decay: float = 0.998
    pool_size: int = 1536
    renewed_per_step: int = 8


@dataclass
class Curriculum:
    """How hard the task is. Attacks begin once bits come through; strength falls once attacks are all there."""

    accuracy: float = 0.5
    attack_share: float = 0.0
    annealed: float = 0.0

    def update(self, accuracy: float, recipe: Recipe) -> None:
        self.accuracy = 0.98 * self.accuracy + 0.02 * accuracy
        if self.attack_share > 0 or self.accuracy > 0.9:
            self.attack_share = min(1.0, self.attack_share + 1 / recipe.attack_ramp_steps)
        if self.attack_share == 1.0 and self.accuracy > 0.8:
            self.annealed = min(1.0, self.annealed + 1 / recipe.strength_ramp_steps)

    def strength(self, recipe: Recipe) -> float:
        return float(max(recipe.last_strength, recipe.first_strength ** (1 - self.annealed)))


class Trainer:
    """Both networks, their averages, the optimizer and the curriculum: all that a checkpoint holds."""

    def __init__(self, recipe: Recipe, device: torch.device, compiled: bool) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.embedder = SealEmbedder(EMBEDDER).to(device, memory_format=torch.channels_last)
        self.detector = SealDetector(DETECTOR).to(device, memory_format=torch.channels_last)
        _initialize(self.detector)
        with torch.no_grad():  # a message's tile is a sum over the bits: keep it at unit variance
            self.embedder.unet.msg_processor.msg_embeddings.weight.mul_(BITS**-0.5)
        self.networks = nn.ModuleDict({"embedder": self.embedder, "detector": self.detector})
        self.average = torch.optim.swa_utils.AveragedModel(
            self.networks, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(
            self.networks.parameters(), lr=recipe.learning_rate, weight_decay=0.01, fused=True
        )
        self.curriculum = Curriculum()
        self.step = 0
        self._detect = torch.compile(self.detector) if compiled else self.detector

    def train_step(self, pool: CropPool) -> dict[str, float]:
        recipe, rng = self.recipe, np.random.default_rng((self.recipe.seed, 1, self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(self.step, recipe)
        self.networks.train()
        side = int(rng.choice([128, 192, SIDE_PX]))
        images, heatmaps = pool.batch(rng, recipe.batch + recipe.unmarked, side)
        images, heatmaps = images.to(self.device), heatmaps.to(self.device)
        message = torch.from_numpy(rng.integers(0, 2, (recipe.batch, BITS)).astype(np.float32)).to(self.device)

        strength = recipe.scaling_w * self.curriculum.strength(recipe)
        marked, watermark = mark(self.embedder, images[: recipe.batch], heatmaps[: recipe.batch], message, strength)
        both = torch.cat([marked, images[recipe.batch :]])
        order = torch.from_numpy(rng.permutation(len(both)))
        attacked = torch.empty_like(both)
        attacked[order] = attacks.attack(
            both[order], rng, self.curriculum.attack_share, cropping=self.step < recipe.crop_until_step
        )
        logits = self._detect(resize(attacked, DETECTOR.image_size_px, DETECTOR.image_size_px))

        present = torch.zeros(len(both), device=self.device)
        present[: recipe.batch] = 1
        bits_loss = F.binary_cross_entropy_with_logits(logits[: recipe.batch, 1:], message)
        detection_loss = F.binary_cross_entropy_with_logits(logits[:, 0], present)
        self.optimizer.zero_grad(set_to_none=True)
        # Detection is easy and, learnt first, settles on one mark for every message: it waits for the bits.
        detection_weight = recipe.detection_weight * self.curriculum.attack_share
        (bits_loss + detection_weight * detection_loss).backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.networks)
        self.step += 1

        logits, marked, watermark = logits.detach(), marked.detach(), watermark.detach()
        accuracy = float(((logits[: recipe.batch, 1:] > 0) == (message > 0.5)).float().mean())
        self.curriculum.update(accuracy, recipe)
        error = ((marked - images[: recipe.batch]) ** 2).mean(dim=(1, 2, 3))
        return {
            "loss_bits": float(bits_loss.detach()),
            "loss_detection": float(detection_loss.detach()),
            "bit_accuracy": accuracy,
            "psnr_db": float(-10 * error.log10().mean()),
            "watermark_rms": float((watermark**2).mean().sqrt()),
        }

    @torch.no_grad()
    def validate(self, pool: CropPool, batches: int = 4) -> dict[str, float]:
        """Bit accuracy of the averaged weights at the final strength, plain and under each attack."""
        networks: Any = self.average.module
        networks.eval()
        results: dict[str, list[float]] = {}
        for index in range(batches):
            rng = np.random.default_rng((self.recipe.seed, 2, index))
            images, heatmaps = pool.batch(rng, self.recipe.batch, SIDE_PX)
            images, heatmaps = images.to(self.device), heatmaps.to(self.device)
            message = torch.from_numpy(rng.integers(0, 2, (len(images), BITS)).astype(np.float32)).to(self.device)
            marked, _ = mark(
                networks["embedder"], images, heatmaps, message, self.recipe.scaling_w * self.recipe.last_strength
            )
            for name, change in [("plain", None), *((a.__name__, a) for a in attacks.WEIGHTS)]:
                attacked = change(marked, rng) if change else marked
                logits = networks["detector"](resize(attacked, DETECTOR.image_size_px, DETECTOR.image_size_px))
                right = ((logits[:, 1:] > 0) == (message > 0.5)).float().mean()
                results.setdefault(name, []).append(float(right))
        return {name: float(np.mean(values)) for name, values in results.items()}

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "recipe": asdict(self.recipe),
            "curriculum": asdict(self.curriculum),
            "networks": self.networks.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        # More or fewer steps are another end of the same run; everything else would make it another run.
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
    """Marked images, rounded to 8 bits, and their watermarks before attenuation."""
    small = resize(images, EMBEDDER.image_size_px, EMBEDDER.image_size_px).contiguous(memory_format=torch.channels_last)
    watermark = embedder(small, message)
    change = resize(watermark, images.shape[2], images.shape[3]) * heatmaps * strength
    return attacks.to_8_bits((images + change).clamp(0, 1)), watermark


def _initialize(detector: nn.Module) -> None:
    """Small random weights (truncated normal, 0.02), as ConvNeXt starts from."""
    for module in detector.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to a hundredth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return float(0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(1.0, progress))))


def _save(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _steps(trainer: Trainer) -> Iterator[int]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("training", total=trainer.recipe.steps, completed=trainer.step)
        while trainer.step < trainer.recipe.steps:
            yield trainer.step
            c = trainer.curriculum
            text = f"bits {c.accuracy:.1%}  attacks {c.attack_share:.0%}  strength x{c.strength(trainer.recipe):.2f}"
            progress.update(task, completed=trainer.step, description=text)


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="build/training", show_default=True)
@click.option("--steps", default=Recipe.steps, show_default=True)
@click.option("--seed", default=Recipe.seed, show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Compile the detector: a minute's wait, then faster steps.")
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
    with (out / "log.jsonl").open("a") as log:
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
    for name in ("detector", "embedder"):
        weights = {key: value.contiguous() for key, value in networks[name].state_dict().items()}
        save_file(weights, out / f"{name}.safetensors")
    click.echo(f"weights are in {out}")


if __name__ == "__main__":
    main()
