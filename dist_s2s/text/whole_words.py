"""The words of a text, and which tokens make up each of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise

from dist_s2s.text.cut_texts import CutTexts
from dist_s2s.text.normalization import normalize
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import SubwordTokenizer
from dist_s2s.text.tokenizers.characters import CharacterTokenizer
from dist_s2s.text.tokenizers.spaces import SPACE, is_unspaced
from dist_s2s.text.vocabulary import UNK

_CONTINUES = "@@"  # at the end of a token of subword-nmt
_TEXTS_AT_A_TIME = 50_000


def group_tokens(tokens: Sequence[str], side: TextSide) -> list[range]:
    """Return the positions of each word's tokens.

    Subwords and characters are put together as far as no space separates them; but those of a script written without
    spaces stay words of their own. The tokens of other tokenizers are words already, punctuation marks too, and so are
    those of text that SentencePiece had cut and that has been put together again.
    """
    if side.segmentation == "sentencepiece" and not any(token.startswith(SPACE) for token in tokens):
        return [range(place, place + 1) for place in range(len(tokens))]
    ends = [place for place in range(1, len(tokens)) if _is_border(tokens[place - 1], tokens[place], side)]
    groups = [range(begin, end) for begin, end in pairwise([0, *ends, len(tokens)])] if tokens else []
    return [group for group in groups if any(tokens[place] != SPACE for place in group)]


def group_ids(ids: Sequence[int], side: TextSide) -> list[range]:
    """Return the positions of each word's tokens in a sentence of ids; special tokens and tags are in no word."""
    first = side.vocabulary.num_reserved
    begin = next((place for place, number in enumerate(ids) if number == UNK or number >= first), len(ids))
    groups = group_tokens([side.vocabulary.tokens[number] for number in ids[begin:]], side)
    return [range(begin + group.start, begin + group.stop) for group in groups]


def words_of(text: str, side: TextSide) -> list[str]:
    """Return the words of a text, whether the vocabulary has them or not."""
    tokenizer = side.tokenizer
    tokens = tokenizer.tokenize(normalize(text, side.normalization))
    groups = group_tokens(tokens, side)
    return [side.readable(tokenizer.detokenize([tokens[place] for place in group])).strip() for group in groups]


def count_words(texts: Iterable[str], side: TextSide) -> Counter[str]:
    """Count the words of any number of texts in bounded memory, beside that of the distinct ones."""
    counts: Counter[str] = Counter()
    texts = iter(texts)
    while some := list(islice(texts, _TEXTS_AT_A_TIME)):
        cut = CutTexts.of(some, side.tokenizer.cuts_at_spaces, lambda parts: [words_of(part, side) for part in parts])
        counts.update(cut.counts())
    return counts


def _is_border(before: str, token: str, side: TextSide) -> bool:
    """Tell whether a word ends between two tokens."""
    if side.segmentation == "subword-nmt":
        return not before.endswith(_CONTINUES)
    if side.segmentation == "none" and not isinstance(side.tokenizer, SubwordTokenizer | CharacterTokenizer):
        return before != SPACE
    if before == SPACE:
        return False
    return token.startswith(SPACE) or is_unspaced(before[-1]) or is_unspaced(token[0])
