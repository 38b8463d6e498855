"""What a person runs of each kind is what the torch reference computes, on every backend."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from backends.errors import InvalidArtifact, InvalidInput
from graphs.checkpoint import random_weights
from graphs.networks.captioner.config import BEGIN, END
from graphs.networks.captioner.model import Captioner as CaptionerModule
from graphs.networks.foveated.model import Foveated, Look
from tests import foveated_tiny
from tests.kinds_tiny import CAPTIONER, SPECS, converted, exported
from toolkit.images.open import open_photo
from toolkit.models.captioner.runner import Captioner, likeliest
from toolkit.models.deepencoder.runner import PageEncoder, choose_tiles, laid_over, padded
from toolkit.models.foveated.runner import TwoPass

BACKENDS = ("torch", "ort")


def _page(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _whole_state(kind: str) -> dict[str, torch.Tensor]:
    """Every weight of a kind's tiny model under its checkpoint key."""
    spec = SPECS[kind]
    weights = random_weights(0, spec)
    state = {spec.graph(role).key(name): v for role, part in weights.states.items() for name, v in part.items()}
    return state | dict(weights.learned)


def _captioner_module() -> CaptionerModule:
    module = CaptionerModule(CAPTIONER).eval()
    module.load_state_dict(_whole_state("captioner"))
    return module


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_page_becomes_its_sequence_and_grid(backend: str) -> None:
    with PageEncoder(exported("deepencoder"), backend) as encoder:
        page = encoder.encode(_page(300, 200), "base")
    assert page.sequence.shape == (3 * 4 + 1, 40)
    assert page.grid.shape == (3, 3, 40)
    assert np.array_equal(page.sequence[:3], page.grid[0])


@given(width=st.integers(1, 400), height=st.integers(1, 400), size=st.sampled_from([64, 96, 128]))
@example(width=1024, height=681, size=1024)  # half of an odd number of rows is left over
@example(width=255, height=3, size=64)
def test_a_page_is_padded_where_the_reference_pads_it(width: int, height: int, size: int) -> None:
    assume(min(width, height) * size >= max(width, height))  # Pillow pads with nothing where a side rounds to 0
    page = Image.new("RGB", (width, height), "white")
    expected = np.asarray(ImageOps.pad(page, (size, size), color=(127, 127, 127)))
    assert np.array_equal(padded(open_photo(page), size) > 0.9, expected == 255)


def test_gundam_lays_tiles_out_as_one_grid_before_the_whole_page() -> None:
    with PageEncoder(exported("deepencoder")) as encoder:
        page = encoder.encode(_page(400, 270), "gundam")  # tiles of 128: 3 by 2 is nearest to 1.48
        whole = encoder.encode(_page(400, 270), "base").sequence
        tiny = encoder.encode(_page(100, 90), "gundam")
    rows, columns = 2 * 2, 3 * 2
    assert page.tiles == (3, 2)
    assert page.grid.shape == (rows, columns, 40)
    assert len(page.sequence) == rows * (columns + 1) + len(whole)
    assert np.array_equal(page.sequence[rows * (columns + 1) :], whole)
    lines = page.sequence[: rows * (columns + 1)].reshape(rows, columns + 1, 40)
    assert np.array_equal(lines[:, :columns], page.grid)
    assert all(np.array_equal(line[columns], whole[3]) for line in lines)  # the newline that the graph holds
    assert tiny.tiles == (1, 1)
    assert len(tiny.sequence) == len(whole)


def test_a_tile_is_that_part_of_the_page() -> None:
    """A page of exactly 2 x 1 tiles needs no resizing: its left half alone gives the left tile's tokens."""
    page = _page(256, 128)
    with PageEncoder(exported("deepencoder")) as encoder:
        both = encoder.encode(page, "gundam")
        left = encoder.encode(page.crop((0, 0, 128, 128)), "small")
    assert both.tiles == (2, 1)
    np.testing.assert_allclose(both.grid[:, :2], left.grid, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((640, 640), (1, 1)), ((1280, 640), (2, 1)), ((640, 1280), (1, 2)), ((3000, 1000), (3, 1)), ((2000, 2000), (2, 2)),
     ((1240, 1754), (2, 3)), ((9000, 700), (6, 1))],
)  # fmt: skip
def test_layouts_are_nearest_in_aspect(size: tuple[int, int], tiles: tuple[int, int]) -> None:
    assert choose_tiles(*size, 640) == tiles


def test_the_picture_of_a_grid_lies_over_the_page() -> None:
    page = _page(300, 200)
    grid = np.random.default_rng(0).standard_normal((4, 4, 8)).astype(np.float32)
    assert laid_over(page, grid, "small").size == (300, 200)
    assert laid_over(page, grid, "base").size == (300, 300)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["shallow", "deep"])
def test_two_passes_are_the_reference_modules(how: Look, backend: str) -> None:
    generator = np.random.default_rng(2)
    frames = [generator.random((64, 64, 3), dtype=np.float32) for _ in range(5)]  # two groups of three frames
    text = generator.standard_normal((2, 36), dtype=np.float32)
    latents = generator.standard_normal((5, 4, 8, 8), dtype=np.float32)
    with TwoPass(exported("foveated"), backend) as model:
        passes = model.run(frames, text, latents, how)
        calls = {role: len(times) for role, times in model.graphs.timing_ms.items()}
    assert calls == {"encode_frames": 5, f"query_{how}": 4, "language": 2, "predict": 4}

    module = Foveated(foveated_tiny.config()).eval()
    module.load_state_dict(_whole_state("foveated"))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tensor = torch.stack([((torch.from_numpy(frame) - mean) / deviation).permute(2, 0, 1) for frame in frames])
    with torch.no_grad():
        expected = module(tensor, torch.from_numpy(text), torch.from_numpy(latents), how)
        losses = module.losses(expected, torch.from_numpy(latents))
    for name in ("coarse", "fine", "coarse_attention", "fine_attention"):
        np.testing.assert_allclose(getattr(passes, name), getattr(expected, name).numpy(), atol=2e-4, err_msg=name)
    assert passes.losses is not None
    assert passes.losses == pytest.approx({name: float(value) for name, value in losses.items()}, rel=1e-4)


def test_a_clip_that_does_not_fit_is_refused() -> None:
    frame = np.zeros((64, 64, 3), np.float32)
    with TwoPass(exported("foveated")) as model:
        assert model.most_frames(1) == 6
        for frames, text, latents, said in (
            ([frame] * 7, None, None, "expected at most 6 frames beside 1 tokens of text"),
            ([frame], np.zeros((7, 36), np.float32), None, "text: expected at most 6 tokens beside a frame, got 7"),
            ([], None, None, "expected at least one frame"),
            ([frame], np.zeros((1, 5), np.float32), None, r"text: expected shape \(N, 36\), got \(1, 5\)"),
            ([frame], None, np.zeros((2, 4, 8, 8), np.float32), "latents: expected one for each of 1 frames, got 2"),
            ([frame], None, np.full((1, 4, 8, 8), np.nan, np.float32), "latents: expected finite float32"),
        ):
            with pytest.raises(InvalidInput, match=said):
                model.run(frames, text, latents)


@pytest.mark.parametrize("backend", BACKENDS)
def test_captions_with_and_without_a_cache_are_the_reference_modules(backend: str) -> None:
    module = _captioner_module()
    with Captioner(exported("captioner"), backend) as captioner:
        latent = captioner.encode(captioner.read(_page(50, 40)))
        got, plain = captioner.caption(latent), captioner.caption_without_cache(latent, CAPTIONER.max_tokens - 1)
        steps = len(captioner.graphs.timing_ms["decode_text_step"])
    tokens = [BEGIN]
    total = 0.0
    with torch.no_grad():
        while len(tokens) < CAPTIONER.max_tokens and tokens[-1] != END:
            scores = module.text_decoder(torch.from_numpy(latent), torch.tensor([tokens]))[0, -1].log_softmax(-1)
            tokens.append(int(scores.argmax()))
            total += float(scores.max())
    expected = tuple(token for token in tokens[1:] if token != END)
    assert got.tokens == plain.tokens == expected
    assert got.log_probability == pytest.approx(total, abs=1e-3)
    assert plain.log_probability == pytest.approx(total, abs=1e-3)
    assert steps == len(tokens) - 1


def test_as_many_beams_as_tokens_find_the_likeliest_text() -> None:
    module = _captioner_module()
    with Captioner(exported("captioner")) as captioner:
        latent = captioner.encode(captioner.read(_page(50, 40)))
        greedy, beams = captioner.caption(latent, 1, 2), captioner.caption(latent, CAPTIONER.vocabulary, 2)
    with torch.no_grad():
        z = torch.from_numpy(latent)
        first = module.text_decoder(z, torch.tensor([[BEGIN]]))[0, -1].log_softmax(-1)
        best: tuple[float, tuple[int, ...]] = (float(first[END]), ())
        for token in range(CAPTIONER.vocabulary):
            if token != END:
                second = module.text_decoder(z, torch.tensor([[BEGIN, token]]))[0, -1].log_softmax(-1)
                last = int(second.argmax())
                text = (token,) if last == END else (token, last)
                best = max(best, (float(first[token] + second[last]), text))
    assert beams.log_probability == pytest.approx(best[0], abs=1e-4)
    assert beams.tokens == best[1]
    assert beams.log_probability >= greedy.log_probability


@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_and_similarity_are_the_reference_modules(backend: str) -> None:
    module = _captioner_module()
    captions = [(7, 9, 11), (8,)]
    padded = torch.tensor([[BEGIN, 7, 9, 11, END], [BEGIN, 8, END, 0, 0]])
    with Captioner(exported("captioner"), backend) as captioner:
        pixels = [captioner.read(_page(50, 40)), captioner.read(_page(33, 60))]
        got = captioner.losses(pixels, captions)
    with torch.no_grad():
        expected = module(torch.from_numpy(np.concatenate(pixels)), padded)
    assert got == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-4)


def test_a_bundle_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidArtifact, match="expected a model of kind captioner, got 'foveated'"):
        Captioner(exported("foveated"))


def test_tflite_runs_a_decoder_too() -> None:
    texts = []
    for backend in ("tflite", "ort"):
        with Captioner(converted("captioner"), backend) as captioner:
            texts.append(captioner.caption(captioner.encode(captioner.read(_page(50, 40))), beams=2).tokens)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("best", [1, 2, 5, 40, 50])
def test_the_likeliest_tokens_are_those_of_a_whole_stable_sort(best: int) -> None:
    generator = np.random.default_rng(best)
    for _ in range(20):
        scores = generator.integers(0, 6, 40).astype(np.float64)  # many are equal
        assert likeliest(scores, best) == np.argsort(-scores, kind="stable")[:best].tolist()
