"""`toolkit run` of a captioner, and the vocabularies of its texts: a tokenizer.json, or token ids as numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from backends.errors import InvalidInput, one_line
from graphs.networks.captioner.config import END
from toolkit.environments import need
from toolkit.models.captioner.runner import Captioner, to_picture
from toolkit.models.command import RunRequest, milliseconds, write_arrays, write_picture

Tokens = tuple[int, ...]


class Vocabulary(Protocol):
    """A conversion of texts to token ids and back."""

    def tokens(self, text: str) -> Tokens:
        """Return the token ids of a text, without begin and end. Raises InvalidInput for an invalid text."""

    def text(self, tokens: Sequence[int]) -> str | None:
        """Return the text of token ids, or None if the words are not known."""


class Numbers:
    """The vocabulary without a tokenizer: a text is token ids separated by spaces, such as "17 4 250"."""

    def tokens(self, text: str) -> Tokens:
        try:
            return tuple(int(word) for word in text.split())
        except ValueError as error:
            raise InvalidInput(
                f"expected token ids apart by spaces, like '17 4 250', got {text!r}; a text needs --tokenizer"
            ) from error

    def text(self, tokens: Sequence[int]) -> str | None:
        return None


class Tokenizer:
    """A vocabulary in a tokenizer.json, as the tokenizers package writes it. Ids 0 to 2 are padding, begin and end."""

    def __init__(self, path: Path, vocabulary: int) -> None:
        """Open a file. vocabulary: the number of token ids that the model has.

        Raises InvalidInput for a file that is not a tokenizer or has more ids, NotAvailable without the tokenizers
        package.
        """
        need("text")
        import tokenizers

        if not path.is_file():
            raise InvalidInput(f"{path}: no such tokenizer file")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises plain Exception
            raise InvalidInput(f"{path}: not a tokenizer.json that can be read: {one_line(error)}") from error
        # The file may set truncation and padding.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if (size := self._tokenizer.get_vocab_size()) > vocabulary:
            raise InvalidInput(f"{path}: expected at most the {vocabulary} tokens that the model has, got {size}")
        self._path = path

    def tokens(self, text: str) -> Tokens:
        tokens: Tokens = tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
        if special := [token for token in tokens if token <= END]:
            word = self._tokenizer.id_to_token(special[0])
            raise InvalidInput(
                f"{self._path}: {word!r} in {text!r} is token {special[0]}; 0 to {END} are padding, begin and end"
            )
        return tokens

    def text(self, tokens: Sequence[int]) -> str | None:
        found: str = self._tokenizer.decode(list(tokens))
        return found


def run(
    request: RunRequest,
    beams: int,
    length: int | None,
    tokenizer: Path | None,
    similar: str | None,
    caption: str | None,
    output: Path,
) -> None:
    """Describe each image, and draw it again. Writes STEM.latent.npz and STEM.rebuilt.png."""
    with Captioner(request.bundle, request.backend, request.precision, request.threads) as captioner:
        vocabulary: Vocabulary = Numbers() if tokenizer is None else Tokenizer(tokenizer, captioner.vocabulary)
        other = None if similar is None else vocabulary.tokens(similar)
        own = None if caption is None else vocabulary.tokens(caption)
        request.warn_if_random(request.bundle)
        for name in request.inputs:
            captioner.graphs.forget_times()
            pixels = captioner.read(name)
            latent = captioner.encode(pixels)
            found = captioner.caption(latent, beams, length)
            rebuilt = captioner.decode(latent)
            likeness = None if other is None else captioner.similarity(latent, other)
            losses = {} if own is None else captioner.losses([pixels], [own])
            text = vocabulary.text(found.tokens)
            stem = output / Path(name).stem
            arrays = write_arrays(Path(f"{stem}.latent.npz"), {"latent": latent})
            picture = write_picture(Path(f"{stem}.rebuilt.png"), to_picture(rebuilt))
            row = request.row(
                name,
                "encode_image",
                tokens=list(found.tokens),
                text=text,
                log_probability=found.log_probability,
                similarity=likeness,
                losses=losses or None,
                files=[arrays, picture],
                timing_ms=captioner.graphs.timing_ms,
            )
            lines = [
                f"tokens {' '.join(map(str, found.tokens))}" if text is None else f"caption {text!r}",
                f"log probability {found.log_probability:.4f}",
                *([] if likeness is None else [f"similarity {likeness:.4f}"]),
                *(f"{key} {value:.6f}" for key, value in losses.items()),
                milliseconds(captioner.graphs.timing_ms, captioner.graphs.first_runs),
                f"wrote {arrays} and {picture}",
            ]
            request.show(row, lines)
