"""The two-way map between tokens and ids."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Self

from dist_s2s import UserError
from dist_s2s.text.lines import read_lines

PAD, SOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<sos>", "<eos>", "<unk>")


class Vocabulary:
    """An immutable list of tokens; the id of a token is its position.

    The four special tokens come first and stand for ids only: a text that spells `<eos>` must not end a
    sentence, so `encode` treats the four strings as unknown words, and `in` answers False for them.

    Args:
        tokens: all tokens in id order, the four specials first.

    Raises:
        ValueError: the specials are missing, a token is repeated, empty, or contains a line break.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens: Sequence[str] = tuple(tokens)
        if self.tokens[: len(SPECIALS)] != SPECIALS:
            first = " ".join(self.tokens[: len(SPECIALS)])
            raise ValueError(f"must begin with {' '.join(SPECIALS)}, one on a line, but begins with {first!r}")
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        _check_tokens(self.tokens, self._ids)
        for special in SPECIALS:
            del self._ids[special]

    @classmethod
    def build(cls, sentences: Iterable[Sequence[str]], max_size: int | None = None, min_frequency: int = 1) -> Self:
        """Count the tokens of `sentences`: the most frequent first, equally frequent ones in string order.

        Args:
            sentences: tokenized sentences.
            max_size: largest `len()` of the result, specials included; None for no limit.
            min_frequency: tokens seen less often are left out.

        Raises:
            ValueError: `max_size` leaves no room for the specials.
        """
        if max_size is not None and max_size < len(SPECIALS):
            raise ValueError(f"max_size must be at least {len(SPECIALS)} (the special tokens), got {max_size}")
        counts = Counter(chain.from_iterable(sentences))
        for special in SPECIALS:
            counts.pop(special, None)
        frequent = [(-count, token) for token, count in counts.items() if count >= min_frequency]
        words = [token for _, token in sorted(frequent)]
        return cls([*SPECIALS, *words][:max_size])

    @property
    def num_ids(self) -> int:
        """How many rows a table of this vocabulary needs."""
        return len(self)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the id of each token, `UNK` for those not in the vocabulary. Adds neither SOS nor EOS."""
        ids = self._ids
        return [ids.get(token, UNK) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the tokens of `ids` up to the first EOS, without PAD and SOS; UNK becomes `<unk>`.

        Raises:
            ValueError: an id is negative or not below `len(self)`.
        """
        tokens = []
        for index in ids:
            if index == EOS:
                break
            if not 0 <= index < len(self.tokens):
                raise ValueError(f"id {index} is outside the vocabulary: ids run from 0 to {len(self) - 1}")
            if index not in (PAD, SOS):
                tokens.append(self.tokens[index])
        return tokens

    def to_text(self) -> str:
        """Return what `load` reads: one token a line, in id order."""
        return "".join(f"{token}\n" for token in self.tokens)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a UTF-8 file that holds what `to_text` returns.

        Raises:
            UserError: the file cannot be read as UTF-8 text, or is no vocabulary; the line is named.
        """
        try:
            return cls(read_lines(path))
        except ValueError as error:
            raise UserError(f"{path} is not a vocabulary: {error}") from None

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens)"


def fits_on_a_line(token: str) -> bool:
    """Tell whether a token has visible characters and no line end, so that a file can hold it."""
    return bool(token.strip()) and "\n" not in token and not token.endswith("\r")


def _check_tokens(tokens: Sequence[str], last_index: dict[str, int]) -> None:
    """Raise ValueError unless every token fits on a line of its own and occurs once.

    `last_index` maps each token to its last position. Lines count from 1, as in the text of `to_text`.
    """
    for index, token in enumerate(tokens):
        if not fits_on_a_line(token):
            raise ValueError(f"line {index + 1} holds {token!r}: a token has visible characters and no line end")
        if last_index[token] != index:
            raise ValueError(f"line {last_index[token] + 1} repeats the token {token!r} of line {index + 1}")
