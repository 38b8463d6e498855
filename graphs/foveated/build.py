"""The graphs of the foveated VLM, from the config that a manifest holds: each has only the networks that it runs.

Keys and values pass between graphs block by block, as the products of attention take them: where they were one
tensor, cutting it up cost a deep query on TFLite more than its products.
"""

from torch import Tensor, nn

from graphs.config_json import from_json
from graphs.foveated.config import DinoConfig, FoveatedConfig
from graphs.foveated.dino import Dino
from graphs.foveated.head import FilmHead
from graphs.foveated.llama import Llama
from graphs.foveated.query import QueryAttention


class EncodeFrames(Dino):
    """frames (B, 3, S, S) to patches (B, P, dim), each block's keys (B * heads, d, P), and each block's values
    (B * heads, P, d)."""

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # several results
        tokens, keys, values = self.encode(frames)
        return tokens[:, self.prefix_tokens :], *keys, *values


class ShallowQuery(nn.Module):
    """query (B, dim), patches (B, P, dim) to token (B, language dim), attention (B, P)."""

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        self.query = QueryAttention(config.dino)
        self.vision_to_language = nn.Linear(config.dino.dim, config.language.dim)

    def forward(self, query: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        seen, attention = self.query.shallow(query, patches)
        return self.vision_to_language(seen), attention


class DeepQuery(nn.Module):
    """query (B, dim), keys and values of EncodeFrames to token (B, language dim), attention (B, P)."""

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        self.dino = Dino(config.dino)
        self.query = QueryAttention(config.dino)
        self.vision_to_language = nn.Linear(config.dino.dim, config.language.dim)
        self._depth = config.dino.depth

    def forward(self, query: Tensor, *keys_values: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = keys_values[: self._depth], keys_values[self._depth :]
        seen, attention = self.query.deep(query, keys, values, self.dino)
        return self.vision_to_language(seen), attention


class Language(nn.Module):
    """sequence (B, N, language dim) to states (B, N, language dim), and the queries they raise (B, N, dim)."""

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        self.language = Llama(config.language, config.sequence_length)
        self.language_to_query = nn.Linear(config.language.dim, config.dino.dim)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        states = self.language(sequence)
        return states, self.language_to_query(states)


def encode_frames(config: object) -> nn.Module:
    """EncodeFrames of a DinoConfig as JSON, weights not loaded. Raises InvalidArtifact for a wrong config."""
    return EncodeFrames(from_json(DinoConfig, config, "foveated-encode-frames config"))


def query_shallow(config: object) -> nn.Module:
    """ShallowQuery of a FoveatedConfig as JSON, likewise."""
    return ShallowQuery(from_json(FoveatedConfig, config, "foveated-query-shallow config"))


def query_deep(config: object) -> nn.Module:
    """DeepQuery of a FoveatedConfig as JSON, likewise."""
    return DeepQuery(from_json(FoveatedConfig, config, "foveated-query-deep config"))


def language(config: object) -> nn.Module:
    """Language of a FoveatedConfig as JSON, likewise."""
    return Language(from_json(FoveatedConfig, config, "foveated-language config"))


def predict(config: object) -> nn.Module:
    """FilmHead of a FoveatedConfig as JSON, likewise."""
    whole = from_json(FoveatedConfig, config, "foveated-predict config")
    return FilmHead(whole.head, whole.language.dim, whole.latent_channels)
