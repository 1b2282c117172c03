"""Answers to what is asked, by all ranks together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dist_s2s.analysis.neighbours import Neighbours
from dist_s2s.analysis.rows import TableRows
from dist_s2s.analysis.words import find_word, word_vectors
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.text.side import TextSide
from dist_s2s.text.vocabulary import EOS, SPECIALS
from dist_s2s.translation.attention import look
from dist_s2s.translation.search.joining import Translation
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.translator import Translator

MAX_WEIGHTS = 20_000  # of an attention: 100 words on one side, 200 on the other
_DECIMALS = 4

Answer = dict[str, Any]


class Answers:
    """A run's translator and the words of both its sides, on one rank. Building it, and its methods, are collective.

    All ranks are asked the same, and have the same answer or the same UserError. Answers are plain values for JSON.
    """

    def __init__(self, translator: Translator, search: Mapping[str, Any] | None = None) -> None:
        """Take attributes of SearchOptions by name, for all searches; UserError for what this model cannot do."""
        self.translator = translator
        self._options = replace(SearchOptions.of(translator.config), **(search or {}))
        self._options.check(translator, *translator.others)
        self._words = {
            "source": _Words(translator.source, translator.source_table),
            "target": _Words(translator.target, translator.target_table),
        }

    def translate(self, sentences: Sequence[str], beam_size: int, n_best: int, attention: bool) -> list[Answer]:
        """Return for each sentence its translation, the ``n_best`` and, if wanted, the attention of the best."""
        options = replace(self._options, beam_size=beam_size)
        found = self.translator.translate(sentences, options, n_best=n_best)
        answers = [_in_words(each) for each in found]
        if attention:
            for answer, each in zip(answers, found, strict=True):
                answer["attention"] = self._attention(each)
        return answers

    def neighbours(self, word: str, side: str, number: int, is_token: bool = False) -> Answer:
        """Return the words whose vectors are closest to a word's, or to a token's, as it stands in the vocabulary.

        Raises:
            UserError: on every rank, for a word that is unknown, or whose vector has no direction.
        """
        words = self._words[side]
        found = self.translator.ranks.together(lambda: find_word(word, words.side, side, is_token=is_token))
        [vector] = word_vectors([found], words.rows)
        closest = words.neighbours.nearest(vector, number, found.ids)
        tokens = words.side.vocabulary.tokens
        return {
            "word": found.text,
            "side": side,
            "note": found.explanation,
            "neighbours": [{"word": tokens[each.id], "score": round(each.score, _DECIMALS)} for each in closest],
        }

    def _attention(self, found: Translation) -> Answer:
        """Return words of both sides and weights, a list for each target word; or a note why there are none."""
        if len(found.pieces) > 1:
            return {"note": f"the sentence is too long: it was translated in {len(found.pieces)} pieces"}
        [sentence], [best] = found.pieces, found.n_best[0].parts
        translator, end = self.translator, SPECIALS[EOS]
        ids = translator.source.encode(sentence)
        if not ids:
            return {"note": "the sentence is empty"}
        if (len(ids) + 1) * (len(best.ids) + 1) > MAX_WEIGHTS:
            return {"note": f"the sentence is too long: its attention has more than {MAX_WEIGHTS:,} weights"}
        if translator.config.model.attention == "none":
            return {"note": "this model has no attention"}
        [seen] = look(translator, [sentence], [best])
        written = seen.target if best.is_cut else [*seen.target, end]
        weights = [[round(weight, _DECIMALS) for weight in row] for row in seen.weights[: len(written)].tolist()]
        return {"source": [*seen.source, end], "target": written, "weights": weights}


def _in_words(found: Translation) -> Answer:
    n_best = [
        {
            "text": each.text,
            "score": round(each.score, _DECIMALS) if math.isfinite(each.score) else None,
            "is_cut": each.is_cut,
        }
        for each in found.n_best
    ]
    return {"text": found.text, "is_cut": found.is_cut, "n_best": n_best, "pieces": len(found.pieces)}


class _Words:
    """The tokens of one side as neighbours. Building it is collective."""

    def __init__(self, side: TextSide, table: DistributedEmbedding) -> None:
        self.side = side
        self.rows = TableRows.of_table(table, len(side.vocabulary))
        self.neighbours = Neighbours(self.rows, range(side.vocabulary.num_reserved))
