"""One side of a translation: between its text and token ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dist_s2s.text.tokenizers import Tokenizer
from dist_s2s.text.vocabulary import Vocabulary


def vocabulary_file(name: str) -> str:
    """Return the name of the file that holds the vocabulary of side ``name``, "source" or "target"."""
    return f"{name}_vocabulary.txt"


@dataclass(frozen=True)
class TextSide:
    """A tokenizer with its vocabulary."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary

    @classmethod
    def build(
        cls, tokenizer: Tokenizer, sentences: Iterable[str], max_size: int | None = None, min_frequency: int = 1
    ) -> Self:
        """Build the vocabulary from the tokens of `sentences`; see `Vocabulary.build`."""
        return cls(tokenizer, Vocabulary.build(map(tokenizer.tokenize, sentences), max_size, min_frequency))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a sentence, without SOS and EOS."""
        return self.vocabulary.encode(self.tokenizer.tokenize(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the sentence that `ids` stand for, up to the first EOS."""
        return self.tokenizer.detokenize(self.vocabulary.decode(ids))

    @classmethod
    def load(cls, directory: Path, name: str, tokenizer: Tokenizer) -> Self:
        """Read the vocabulary of side `name`, "source" or "target", from its file in a directory.

        Raises:
            UserError: as `Vocabulary.load`.
        """
        return cls(tokenizer, Vocabulary.load(directory / vocabulary_file(name)))
