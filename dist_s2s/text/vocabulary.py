"""The two-way map between tokens and ids."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Self

from dist_s2s import UserError, counted
from dist_s2s.text.lines import read_lines

PAD, SOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<sos>", "<eos>", "<unk>")


class Vocabulary:
    """An immutable list of tokens; the id of a token is its position.

    The four special tokens come first, then the tags, such as `<2en>`. Both stand for ids only: a text that spells
    `<eos>` must not end a sentence, so `encode` treats these strings as unknown words, and `in` answers False for them.

    Args:
        tokens: all tokens in id order, the four specials first, then `tags`.
        tags: tokens that no text spells, and that `decode` leaves out.

    Raises:
        ValueError: the specials or tags are missing, a token is repeated, empty, or contains a line break.
    """

    def __init__(self, tokens: Sequence[str], tags: Sequence[str] = ()) -> None:
        self.tokens: Sequence[str] = tuple(tokens)
        self.tags: tuple[str, ...] = tuple(tags)
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        _check_tokens(self.tokens, self._ids, (*SPECIALS, *tags))
        for reserved in (*SPECIALS, *tags):
            del self._ids[reserved]

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sequence[str]],
        max_size: int | None = None,
        min_frequency: int = 1,
        tags: Sequence[str] = (),
    ) -> Self:
        """Count the tokens of tokenized sentences, and go on as `of_counts`."""
        return cls.of_counts(Counter(chain.from_iterable(sentences)), max_size, min_frequency, tags)

    @classmethod
    def of_counts(
        cls,
        counts: Mapping[str, int],
        max_size: int | None = None,
        min_frequency: int = 1,
        tags: Sequence[str] = (),
    ) -> Self:
        """Return the tokens by falling frequency, equally frequent ones in string order.

        Args:
            counts: how often each token occurs.
            max_size: largest `len()` of the result, specials and tags included; None for no limit.
            min_frequency: tokens seen less often are left out.
            tags: see the class.

        Raises:
            ValueError: `max_size` leaves no room for the specials and tags.
            UserError: there are tokens, and all are rarer than `min_frequency`.
        """
        reserved = [*SPECIALS, *tags]
        if max_size is not None and max_size < len(reserved):
            raise ValueError(f"max_size must be at least {len(reserved)} (the special tokens), got {max_size}")
        counts = {token: count for token, count in counts.items() if token not in reserved}
        frequent = [(-count, token) for token, count in counts.items() if count >= min_frequency]
        if counts and not frequent:
            token, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
            raise UserError(
                f"no token occurs min_frequency = {min_frequency:,} times: the most frequent, {token!r}, occurs "
                f"{counted(count, 'time')}; lower data.min_frequency"
            )
        words = [token for _, token in sorted(frequent)]
        return cls([*reserved, *words][:max_size], tags)

    @property
    def num_reserved(self) -> int:
        """How many of the first ids are those of special tokens and tags."""
        return len(SPECIALS) + len(self.tags)

    @property
    def num_ids(self) -> int:
        """How many rows a table of this vocabulary needs."""
        return len(self)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the id of each token, `UNK` for those not in the vocabulary. Adds neither SOS nor EOS."""
        ids = self._ids
        return [ids.get(token, UNK) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the tokens of `ids` up to the first EOS, without PAD, SOS and tags; UNK becomes `<unk>`.

        Raises:
            ValueError: an id is negative or not below `len(self)`.
        """
        tokens = []
        for index in ids:
            if index == EOS:
                break
            if not 0 <= index < len(self.tokens):
                raise ValueError(f"id {index} is outside the vocabulary: ids run from 0 to {len(self) - 1}")
            if index == UNK or index >= self.num_reserved:
                tokens.append(self.tokens[index])
        return tokens

    def to_text(self) -> str:
        """Return what `load` reads: one token a line, in id order."""
        return "".join(f"{token}\n" for token in self.tokens)

    @classmethod
    def load(cls, path: str | os.PathLike[str], tags: Sequence[str] = ()) -> Self:
        """Read a UTF-8 file that holds what `to_text` returns.

        Args:
            path: the file.
            tags: of the vocabulary that was saved.

        Raises:
            UserError: the file cannot be read as UTF-8 text, or is no vocabulary; the line is named.
        """
        try:
            return cls(read_lines(path), tags)
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


def _check_tokens(tokens: Sequence[str], last_index: dict[str, int], reserved: Sequence[str]) -> None:
    """Raise ValueError unless `reserved` come first, and every token fits on a line of its own and occurs once.

    `last_index` maps each token to its last position. Lines count from 1, as in the text of `to_text`.
    """
    for index, expected in enumerate(reserved):
        if tokens[index : index + 1] != (expected,):
            found = f"holds {tokens[index]!r}" if index < len(tokens) else "is missing"
            raise ValueError(f"line {index + 1} {found}; a vocabulary begins with {' '.join(reserved)}, one on a line")
    for index, token in enumerate(tokens):
        if not fits_on_a_line(token):
            raise ValueError(f"line {index + 1} holds {token!r}: a token has visible characters and no line end")
        if last_index[token] != index:
            raise ValueError(f"line {last_index[token] + 1} repeats the token {token!r} of line {index + 1}")
