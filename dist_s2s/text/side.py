"""One side of a translation: between its text and token ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dist_s2s.text.tokenizers import Tokenizer, TokenizerName, make_tokenizer
from dist_s2s.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class SideSettings:
    """What a side is built from, beside its sentences.

    Attributes:
        tokenizer: its name.
        max_size: most tokens of the vocabulary, specials included; None for no limit.
        min_frequency: rarer tokens are left out.
    """

    tokenizer: TokenizerName
    max_size: int | None = None
    min_frequency: int = 1


@dataclass(frozen=True)
class TextSide:
    """A tokenizer with its vocabulary."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary

    @classmethod
    def build(cls, settings: SideSettings, sentences: Iterable[str]) -> Self:
        """Make the tokenizer, and build the vocabulary from its tokens of `sentences`; see `Vocabulary.build`."""
        tokenizer = make_tokenizer(settings.tokenizer)
        tokens = map(tokenizer.tokenize, sentences)
        return cls(tokenizer, Vocabulary.build(tokens, settings.max_size, settings.min_frequency))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a sentence, without SOS and EOS."""
        return self.vocabulary.encode(self.tokenizer.tokenize(text))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each sentence, as `encode` does."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the sentence that `ids` stand for, up to the first EOS."""
        return self.tokenizer.detokenize(self.vocabulary.decode(ids))

    def files(self, name: str) -> dict[str, bytes]:
        """Return by file name what `load` reads again as side `name`, "source" or "target"."""
        return {_vocabulary_file(name): self.vocabulary.to_text().encode()}

    @classmethod
    def load(cls, directory: Path, name: str, settings: SideSettings) -> Self:
        """Read side `name`, "source" or "target", from its files in a directory.

        Raises:
            UserError: as `Vocabulary.load`.
        """
        return cls(make_tokenizer(settings.tokenizer), Vocabulary.load(directory / _vocabulary_file(name)))


def build_sides(
    source: SideSettings, target: SideSettings, pairs: Sequence[tuple[str, str]]
) -> tuple[TextSide, TextSide]:
    """Build both sides from sentence pairs."""
    return (
        TextSide.build(source, (sentence for sentence, _ in pairs)),
        TextSide.build(target, (sentence for _, sentence in pairs)),
    )


def _vocabulary_file(name: str) -> str:
    return f"{name}_vocabulary.txt"
