"""Words that a vocabulary lacks, copied from the source by attention.

As in Luong et al. 2015 (https://arxiv.org/abs/1410.8206) and Jean et al. 2015 (https://arxiv.org/abs/1412.2007): the
token for unknown words stands for the source word that the decoder looks at most where it writes the token. Names and
numbers, which are most of what is unknown, are the same in many languages.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.models import Hypothesis
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import SubwordTokenizer
from dist_s2s.text.tokenizers.spaces import SPACE
from dist_s2s.text.vocabulary import UNK
from dist_s2s.text.whole_words import group_ids, group_tokens
from dist_s2s.translation.attention import MOST_ALIGNED, pair_examples, token_weights
from dist_s2s.translation.search.joining import Candidate, Translation, all_parts, join_texts
from dist_s2s.translation.search.options import Searchable
from dist_s2s.translation.search.terms import tokens_of
from dist_s2s.translation.translator import Translator

_BYTE = "<0x00>"  # a token where SentencePiece spells in bytes what it does not know


def check_replaceable(run: Searchable, *others: Searchable) -> None:
    """Raise UserError if no unknown word can be found, or none replaced. Calls no collectives."""
    if others:
        raise UserError(
            "--replace_unknown copies what the decoder of one run looks at: give one --run, or leave it out"
        )
    if run.config.model.attention == "none":
        raise UserError(
            "--replace_unknown copies what the decoder looks at, but this run has no attention (model.attention: "
            "none): leave it out"
        )
    if isinstance(run.target.tokenizer, SubwordTokenizer) and _BYTE in run.target.vocabulary:
        raise UserError(
            "--replace_unknown has nothing to replace, as this run spells what its vocabulary lacks in bytes "
            "(data.byte_fallback): leave it out"
        )


def replace_unknown(translator: Translator, found: Sequence[Translation]) -> list[Translation]:
    """Return translations with source words for unknown ones, on every rank (collective).

    Scores, and the parts of candidates, stay as they were found. In a sentence of more than ``MOST_ALIGNED`` pairs of
    tokens the unknown words stay unknown.

    Args:
        translator: that has found them, with ``SearchOptions.replace_unknown``.
        found: the same on every rank.
    """
    parts = [(piece, part) for piece, part in all_parts(found) if UNK in part.ids]
    copied = iter(_copied_words(translator, [piece for piece, _ in parts], [part for _, part in parts]))

    def replaced(candidate: Candidate) -> Candidate:
        if not any(UNK in part.ids for part in candidate.parts):
            return candidate
        texts = [
            spell(part.ids, next(copied), translator.target) if UNK in part.ids else translator.target.decode(part.ids)
            for part in candidate.parts
        ]
        return replace(candidate, text=join_texts(texts, translator.target))

    return [replace(each, n_best=list(map(replaced, each.n_best))) for each in found]


def spell(ids: Sequence[int], words: Sequence[str | None], side: TextSide) -> str:
    """Return the text of a translation, with the words in the places of its unknown tokens; None leaves one as it is.

    Of subwords or characters an unknown token may be a part of a word; the copied word is then all of it, and is
    written once if several tokens of the word look at it.
    """
    rest = iter(words)
    copied = {place: next(rest, None) for place, number in enumerate(ids) if number == UNK}
    in_places = [side.vocabulary.decode([number]) for number in ids]
    for group in group_ids(ids, side):
        found = list(dict.fromkeys(word for place in group if (word := copied.get(place)) is not None))
        if found:
            space = [SPACE] * "".join(in_places[group.start]).startswith(SPACE)
            in_places[group.start : group.stop] = [[*space, *found], *([] for _ in group[1:])]
    return side.readable(side.tokenizer.detokenize([token for tokens in in_places for token in tokens]))


def words_looked_at(text: str, ids: Sequence[int], weights_TS: Tensor, side: TextSide) -> Iterator[str | None]:
    """Yield for each unknown token of a translation the source word that it looks at most; None if there is none.

    Args:
        text: the source.
        ids: of the translation.
        weights_TS: of its tokens for those of the source, and more that count for nothing.
        side: of the source.
    """
    tokens = tokens_of(text, side)
    groups, weights = group_tokens(tokens, side), weights_TS.double().cpu().numpy()
    weights = weights[:, len(side.encode(text)) - len(tokens) :]  # without those of tags
    for place in (place for place, number in enumerate(ids) if number == UNK):
        sums = [weights[place, group].sum() for group in groups]
        if not sums:
            yield None
            continue
        word = side.tokenizer.detokenize([tokens[number] for number in groups[int(np.argmax(sums))]])
        yield side.readable(word).strip()


def _copied_words(
    translator: Translator, sentences: Sequence[str], found: Sequence[Hypothesis]
) -> list[list[str | None]]:
    """Return the words for each translation's unknown tokens (collective)."""
    if not found:  # on every rank
        return []
    examples = pair_examples(translator, sentences, found, MOST_ALIGNED)
    mine = [
        (number, list(words_looked_at(sentences[number], examples[number].target, weights_TS, translator.source)))
        for number, weights_TS in token_weights(translator, examples)
    ]
    by_number = translator.ranks.gather_by_number(mine)
    return [by_number[number] for number in range(len(found))]
