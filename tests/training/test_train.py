"""A run can be repeated, and goes on where it was stopped."""

from pathlib import Path

import click
import pytest
import torch

from training.crops import CropPool
from training.train import Curriculum, Recipe, Trainer

PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "images").glob("*.jpg"))
RECIPE = Recipe(batch=3, unmarked=1, pool_size=8, renewed_per_step=2)


def _pool(step: int) -> CropPool:
    pool = CropPool(PHOTOGRAPHS[:2], [], RECIPE.pool_size, RECIPE.seed)
    pool.fill(step, RECIPE.renewed_per_step)
    return pool


def _train(trainer: Trainer, pool: CropPool, steps: int) -> list[dict[str, float | None]]:
    rows = []
    for _ in range(steps):
        pool.renew(trainer.step, RECIPE.renewed_per_step)
        rows.append(trainer.train_step(pool))
    return rows


def test_a_stopped_run_goes_on_as_it_would_have() -> None:
    whole = Trainer(RECIPE, torch.device("cpu"), compiled=False)
    rows = _train(whole, _pool(0), 3)

    first = Trainer(RECIPE, torch.device("cpu"), compiled=False)
    assert _train(first, _pool(0), 2) == rows[:2]
    second = Trainer(RECIPE, torch.device("cpu"), compiled=False)
    second.restore(first.state())
    assert _train(second, _pool(2), 1) == rows[2:]


def test_another_recipe_does_not_go_on() -> None:
    first = Trainer(RECIPE, torch.device("cpu"), compiled=False)
    other = Trainer(Recipe(batch=4), torch.device("cpu"), compiled=False)
    with pytest.raises(click.ClickException, match="another recipe"):
        other.restore(first.state())


def test_the_mark_fades_once_bits_come_through_and_follows_the_psnr_that_is_due() -> None:
    recipe = Recipe(fade_steps=10, first_psnr_db=26, last_psnr_db=36)
    curriculum = Curriculum()
    curriculum.update(accuracy=0.5, psnr_db=26, recipe=recipe)
    assert curriculum.faded == 0.0
    assert curriculum.strength == Curriculum().strength
    for _ in range(200):
        curriculum.update(accuracy=1.0, psnr_db=30, recipe=recipe)
    assert curriculum.faded == 1.0
    assert curriculum.strength < Curriculum().strength  # 36 dB are due, the mark shows at 30
