"""The captioner has the listed sizes; its cache changes nothing; its losses are the written-out ones."""

import numpy as np
import pytest
import torch
from torch import nn

from graphs.networks.captioner.config import BEGIN, END, PADDING, VARIANTS, CaptionerConfig
from graphs.networks.captioner.model import Captioner
from graphs.networks.captioner.text import sinusoids

TINY = CaptionerConfig(32, (4, 6, 8, 10), latent=12, embedding=16, vocabulary=40, depth=3, num_heads=4, max_tokens=20)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    torch.manual_seed(2)
    model = Captioner(TINY).eval()
    for name, parameter in model.named_parameters():
        # Small enough that the latent, the same for every token, does not outweigh the tokens.
        std = 0.1 if parameter.ndim == 1 else 0.7 * parameter[0].numel() ** -0.5
        nn.init.normal_(parameter, std=1 if "embed" in name else std)
        if "norm" in name and name.endswith("weight"):
            nn.init.normal_(parameter, mean=1, std=0.1)
    return model


def test_the_large_variant_has_the_counted_parameters() -> None:
    with torch.device("meta"):
        model = Captioner(VARIANTS["large"])
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert round(counts["image_encoder"] / 1e6, 2) == 3.28
    assert round(counts["image_decoder"] / 1e6, 2) == 540.15
    assert round(counts["text_decoder"] / 1e6) == 21
    assert model.image_decoder.from_latent.weight.numel() + model.image_decoder.from_latent.bias.numel() == 537_395_200


def test_shapes_and_ranges(captioner: Captioner) -> None:
    with torch.no_grad():
        latent = captioner.image_encoder(torch.rand(2, 3, 32, 32) * 2 - 1)
        image = captioner.image_decoder(latent)
    assert latent.shape == (2, 12)
    assert image.shape == (2, 3, 32, 32)
    assert image.abs().max() <= 1


def test_greedy_tokens_are_the_same_with_and_without_a_cache(captioner: Captioner) -> None:
    decoder, room = captioner.text_decoder, TINY.max_tokens
    with torch.no_grad():
        latent = torch.randn(1, 12, generator=torch.Generator().manual_seed(0))
        plain = [BEGIN]
        while len(plain) < room:
            plain.append(int(decoder(latent, torch.tensor([plain]))[0, -1].argmax()))
        memory = decoder.memory(latent)
        keys, values = torch.full((1, 12, room, 4), 9.0), torch.full((1, 12, room, 4), 9.0)
        cached = [BEGIN]
        while len(cached) < room:
            at = len(cached) - 1
            logits, k, v = decoder.step(torch.tensor([cached[-1:]]), torch.tensor([at]), keys, values, memory)
            keys[:, :, at : at + 1], values[:, :, at : at + 1] = k, v
            cached.append(int(logits[0, 0].argmax()))
    assert cached == plain
    assert len(set(plain)) > 3  # not one token over and over


def test_attention_over_one_token_is_attention(captioner: Captioner) -> None:
    cross = captioner.text_decoder.layers[0].cross_attn
    queries, token = torch.randn(2, 5, 16), torch.randn(2, 16)
    with torch.no_grad():
        expected = cross(queries, *cross.keys_values(token[:, None]), None)
        torch.testing.assert_close(cross.over_one(token)[:, None].expand(2, 5, 16), expected)


def test_what_follows_a_token_does_not_change_its_logits(captioner: Captioner) -> None:
    tokens = torch.tensor([[1, 5, 6, 7, 8]])
    changed = torch.tensor([[1, 5, 6, 9, 4]])
    latent = torch.randn(1, 12)
    with torch.no_grad():
        before, after = captioner.text_decoder(latent, tokens), captioner.text_decoder(latent, changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_padding_has_no_say_in_a_texts_latent(captioner: Captioner) -> None:
    short = torch.tensor([[BEGIN, 7, 9, END]])
    padded = torch.tensor([[BEGIN, 7, 9, END, PADDING, PADDING]])
    with torch.no_grad():
        torch.testing.assert_close(captioner.text_encoder(padded), captioner.text_encoder(short))


def test_losses_are_the_written_out_ones(captioner: Captioner) -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    tokens = torch.tensor([[BEGIN, 7, 9, 11, END], [BEGIN, 8, END, PADDING, PADDING]])
    with torch.no_grad():
        got = captioner(images, tokens)
        latent, text = captioner.image_encoder(images), captioner.text_encoder(tokens)
        logits = captioner.text_decoder(latent, tokens)
        rebuilt = captioner.image_decoder(latent)
    pairs = [(i, j) for i in range(2) for j in range(4) if tokens[i, j + 1] != PADDING]
    caption = -sum(logits[i, j].log_softmax(-1)[tokens[i, j + 1]] for i, j in pairs) / len(pairs)
    cosines = torch.tensor([[torch.cosine_similarity(a, b, dim=0) for b in text] for a in latent]) / 0.07
    contrastive = -sum(cosines.log_softmax(axis)[i, i] for axis in (0, 1) for i in (0, 1)) / 4
    reconstruction = ((rebuilt - images) ** 2).mean()
    expected = {
        "reconstruction": reconstruction,
        "caption": caption,
        "contrastive": contrastive,
        "loss": reconstruction + 2 * caption + 0.5 * contrastive,
    }
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, msg=lambda m, n=name: f"{n}: {m}")


def test_positions_are_the_published_sinusoids() -> None:
    table = sinusoids(100, 512)
    for position, channel in ((0, 0), (3, 10), (99, 510)):
        angle = position / 10_000 ** (channel / 512)
        assert table[position, channel] == pytest.approx(np.sin(angle), abs=1e-6)
        assert table[position, channel + 1] == pytest.approx(np.cos(angle), abs=1e-6)
