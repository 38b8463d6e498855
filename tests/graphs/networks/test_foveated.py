"""DINOv3 and SmolLM2 reproduce their references, tokens exactly; the two-pass model does what its description says."""

import pytest
import torch
from torch import Tensor, nn

from graphs.networks.foveated.config import DINOV3_VITS16, FOVEATED, SMOLLM2_135M
from graphs.networks.foveated.dino import Dino
from graphs.networks.foveated.llama import Llama
from graphs.networks.foveated.model import Foveated, Look
from tests import foveated_tiny
from tests.foveated_tiny import DINO, LANGUAGE, tensors

TOLERANCE = 2e-5  # stated with the goldens


@pytest.fixture(scope="module")
def llama() -> Llama:
    model = Llama(foveated_tiny.language(), 64).eval()
    state = foveated_tiny.state(LANGUAGE)
    assert torch.equal(state.pop("lm_head.weight"), state["model.embed_tokens.weight"])
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def foveated() -> Foveated:
    torch.manual_seed(0)
    model = Foveated(foveated_tiny.config()).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def test_dino_is_the_references() -> None:
    golden, model = tensors(DINO), Dino(foveated_tiny.dino()).eval()
    model.load_state_dict(foveated_tiny.state(DINO))
    with torch.no_grad():
        tokens = model(golden["inputs/pixel_values"])
    torch.testing.assert_close(tokens, golden["outputs/last_hidden_state"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(tokens[:, 0], golden["outputs/pooler_output"], atol=TOLERANCE, rtol=0)


def test_language_states_and_logits_are_the_references(llama: Llama) -> None:
    golden = tensors(LANGUAGE)
    with torch.no_grad():
        states = llama(golden["inputs/inputs_embeds"])
        logits = llama.logits(llama(llama.embed(golden["inputs/input_ids"])))
    torch.testing.assert_close(states, golden["outputs/last_hidden_state"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(logits, golden["outputs/logits"], atol=TOLERANCE, rtol=0)


def test_greedy_tokens_are_the_references_without_a_cache(llama: Llama) -> None:
    golden = tensors(LANGUAGE)
    tokens = golden["inputs/input_ids"]
    with torch.no_grad():
        for _ in range(24):
            tokens = torch.cat([tokens, llama.logits(llama(llama.embed(tokens)))[:, -1:].argmax(-1)], dim=1)
    assert tokens.tolist() == golden["outputs/greedy_24"].tolist()


def test_greedy_tokens_are_the_references_with_a_cache(llama: Llama) -> None:
    golden = tensors(LANGUAGE)
    prompt, expected = golden["inputs/input_ids"], golden["outputs/greedy_24"]
    length = prompt.shape[1]
    with torch.no_grad():
        states, keys, values = llama.prefill(llama.embed(prompt))
        room = torch.full((1, keys.shape[1], 40, keys.shape[3]), 9.0)  # what is beyond the position must not count
        caches = [room.clone(), room.clone()]
        for cache, new in zip(caches, (keys, values), strict=True):
            cache[:, :, :length] = new
        tokens = [int(llama.logits(states)[0, -1].argmax())]
        for position in range(length, length + 23):
            step = llama.step(llama.embed(torch.tensor([[tokens[-1]]])), torch.tensor([position]), *caches)
            for cache, new in zip(caches, step[1:], strict=True):
                cache[:, :, position : position + 1] = new
            tokens.append(int(llama.logits(step[0])[0, -1].argmax()))
    assert tokens == expected[0, length:].tolist()


def _clip(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((frames, 3, 64, 64), (2, 36), (frames, 4, 8, 8))
    images, text, latents = (torch.randn(shape, generator=generator) for shape in shapes)
    return images, text, latents


def test_a_shallow_query_attends_as_the_formula_says(foveated: Foveated) -> None:
    frames, _, _ = _clip(2)
    with torch.no_grad():
        patches = foveated.encode_frames(frames).patches
        seen, attention = foveated.query.shallow(foveated.q_init.expand(2, -1), patches)
        q = foveated.q_init[0] @ foveated.query.query_proj.weight.T + foveated.query.query_proj.bias
        for i in range(2):
            scores = torch.stack([q @ patch for patch in patches[i]]) / 24**0.5
            weights = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(attention[i], weights)
            expected = foveated.query.output_proj(sum(w * p for w, p in zip(weights, patches[i], strict=True)))
            torch.testing.assert_close(seen[i], expected)


def test_a_deep_query_is_one_more_token_that_nobody_sees(foveated: Foveated) -> None:
    """The whole encoder with the query among its tokens, and a mask: the query sees patches, nobody sees the query."""
    frames, _, _ = _clip(1)
    dino, prefix = foveated.dino, foveated.config.dino.prefix_tokens
    with torch.no_grad():
        encoded = foveated.encode_frames(frames)
        seen, attention = foveated.look(foveated.q_static, encoded, "deep")
        x = torch.cat([dino.embeddings(frames), foveated.q_static[None]], dim=1)
        tokens = x.shape[1]
        mask = torch.zeros(tokens, tokens)
        mask[:, -1] = mask[-1, :prefix] = mask[-1, -1] = float("-inf")
        rotation = dino._rotation
        rotation = type(rotation)(
            *(
                torch.cat([t, row])
                for t, row in zip((rotation.cos, rotation.sin), (torch.ones(1, 8), torch.zeros(1, 8)), strict=True)
            )
        )
        for block in dino.model.layer:
            normed = block.norm1(x)
            heads = [
                t.reshape(1, tokens, 3, 8).transpose(1, 2)
                for t in (
                    block.attention.q_proj(normed),
                    block.attention.k_proj(normed),
                    block.attention.v_proj(normed),
                )
            ]
            scores = rotation(heads[0]) @ rotation(heads[1]).transpose(-1, -2) / 8**0.5 + mask
            weights = scores.softmax(-1)
            y = block.attention.o_proj((weights @ heads[2]).transpose(1, 2).reshape(1, tokens, 24))
            x = x + y * block.layer_scale1.lambda1
            x = x + block.mlp(block.norm2(x)) * block.layer_scale2.lambda1
        expected = foveated.vision_to_language(foveated.query.output_proj(dino.norm(x)[:, -1]))
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(attention, weights.mean(1)[:, -1, prefix:-1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoded.patches, dino.norm(x)[:, prefix:-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("how", ["shallow", "deep"])
def test_a_pass_never_looks_ahead(foveated: Foveated, how: Look) -> None:
    """What is predicted for frame t comes from frames and latents before t: changing frame 2 changes 3, not 0 to 2."""
    frames, text, latents = _clip(4)
    with torch.no_grad():
        before = foveated(frames, text, latents, how)
        changed = frames.clone()
        changed[2] += 1
        after = foveated(changed, text, latents, how)
    for got, expected in ((after.coarse, before.coarse), (after.fine, before.fine)):
        assert torch.allclose(got[:3], expected[:3])
        assert not torch.allclose(got[3], expected[3])
    assert not torch.allclose(after.fine_attention[2], before.fine_attention[2])
    assert torch.allclose(before.fine_attention.sum((1, 2)), torch.ones(4))


def test_losses_are_the_two_errors_and_their_sum(foveated: Foveated) -> None:
    frames, text, latents = _clip(3)
    with torch.no_grad():
        passes = foveated(frames, text, latents, "shallow")
        losses = foveated.losses(passes, latents)
    coarse = float(((passes.coarse - latents) ** 2).mean())
    fine = float(((passes.fine - latents) ** 2).mean())
    got = {name: float(value) for name, value in losses.items()}
    assert got == pytest.approx({"loss_coarse": coarse, "loss_fine": fine, "loss": coarse + fine})


def test_the_full_sizes_are_the_counted_ones() -> None:
    with torch.device("meta"):
        dino, language = Dino(DINOV3_VITS16), Llama(SMOLLM2_135M, 32)
        whole = Foveated(FOVEATED)
    assert sum(p.numel() for p in dino.parameters()) == 21_596_544
    assert sum(p.numel() for p in language.parameters()) == 134_515_008
    assert sum(p.numel() for p in whole.dino.parameters()) == 21_596_544
