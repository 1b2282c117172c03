"""From words to the rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from heapq import nlargest

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.analysis.rows import TableRows
from dist_s2s.text.normalization import normalize
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import SubwordTokenizer
from dist_s2s.text.tokenizers.spaces import SPACE

_CANDIDATES = 1000  # tokens that a spelling is compared with
_SUGGESTIONS = 3
_LEAST_RATIO = 0.5  # two Chinese words of two characters that share one


@dataclass(frozen=True)
class Word:
    """A word that a vocabulary can spell.

    Attributes:
        text: as the side normalizes it.
        ids: of its tokens. If there are several, the word stands for the mean of their rows.
        tokens: of these ids.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]

    @property
    def explanation(self) -> str | None:
        """What the word has been taken for, unless it is a token."""
        if len(self.ids) == 1:
            return None
        return f"{self.text} is {len(self.ids)} pieces: {' '.join(self.tokens)}; their mean stands for it"


def find_word(text: str, side: TextSide, name: str, *, is_token: bool = False) -> Word:
    """Return a word by its tokens in a side's vocabulary.

    A word of a side with subwords is cut as at the beginning of a sentence; `▁` before it names the token itself.

    Args:
        text: the word; what a tokenizer cuts into several tokens is one word of several pieces.
        side: whose tokens.
        name: of the side, "source" or "target".
        is_token: the text is a token, as it stands in the vocabulary.

    Raises:
        UserError: if a token of it is unknown, or there is none; close spellings that exist are named.
    """
    vocabulary = side.vocabulary
    word = text if is_token and text in vocabulary else normalize(text, side.normalization)
    of_parts = isinstance(side.tokenizer, SubwordTokenizer)
    is_token = word in vocabulary and (is_token or word.startswith(SPACE) or not of_parts)
    ids = vocabulary.encode([word]) if is_token else side.encode(word)
    reserved = vocabulary.tokens[: vocabulary.num_reserved]
    if word in reserved:
        raise UserError(f"{word} is a special token of the {name} vocabulary, not a word")
    if not ids or min(ids) < len(reserved):
        near = close_spellings(word, side)
        hint = f"close to it are {', '.join(near)}" if near else "no token is spelled like it"
        raise UserError(f"{text!r} is not in the {name} vocabulary, which has {len(vocabulary):,} tokens; {hint}")
    return Word(word, tuple(ids), tuple(vocabulary.tokens[index] for index in ids))


def close_spellings(word: str, side: TextSide) -> list[str]:
    """Return tokens that are spelled like a word, the closest first, among those that share most letters."""
    letters = set(word.casefold())
    tokens = side.vocabulary.tokens[side.vocabulary.num_reserved :]
    shown = dict.fromkeys(token.removeprefix(SPACE) for token in tokens if token != SPACE)
    similar = (token for token in shown if abs(len(token) - len(word)) <= max(2, len(word) // 3))
    shares = ((2 * len(letters & set(token.casefold())) - len(set(token)), token) for token in similar)
    spelled = {token.casefold(): token for _, token in nlargest(_CANDIDATES, shares)}
    return [spelled[match] for match in get_close_matches(word.casefold(), spelled, _SUGGESTIONS, _LEAST_RATIO)]


def word_vectors(words: Sequence[Word], rows: TableRows) -> Tensor:
    """Return the vectors of words, float64 [N, dim]: the means of their tokens' rows (collective).

    Raises:
        UserError: on every rank, if one of them has no direction: it is zero, or has a number that is not finite.
    """
    found = rows.fetch(torch.tensor([index for word in words for index in word.ids]))
    vectors = torch.stack([part.mean(0) for part in found.split([len(word.ids) for word in words])])
    for word, norm in zip(words, torch.linalg.vector_norm(vectors, dim=1).tolist(), strict=True):
        if norm == 0:
            raise UserError(f"the vector of {word.text} is zero, so that nothing is close to it; look at another word")
        if not norm < torch.inf:
            raise UserError(f"the vector of {word.text} has a number that is not finite; look at another checkpoint")
    return vectors
