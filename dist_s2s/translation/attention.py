"""What a translator looks at while it writes a sentence, which words that aligns, and sentences as vectors."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.models import Hypothesis
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.side import TextSide
from dist_s2s.text.whole_words import group_ids
from dist_s2s.translation.search.joining import Translation, all_parts
from dist_s2s.translation.translator import Translator

Alignment = list[tuple[int, int]]  # of words by their places, source first, in the order of the target
Floats = NDArray[np.float32]
Pooling = Literal["mean", "last"]
# Source tokens times target tokens of a sentence whose words are aligned, and of one whose weights are gathered.
MOST_ALIGNED, MOST_SHOWN = 1 << 26, 1 << 20


@dataclass(frozen=True)
class WordAttention:
    """What each word of a translation looks at.

    Attributes:
        source, target: the words.
        weights: [target words + 1, source words + 1], the last row and column those of the end. A row has the sum 1 but
            for what goes to tags. The tokens of a source word are summed up, those of a target word averaged.
    """

    source: list[str]
    target: list[str]
    weights: Floats

    @classmethod
    def from_lists(cls, source: list[str], target: list[str], weights: list[list[float]]) -> Self:
        """Return what plain values, as JSON gives them, stand for."""
        return cls(source, target, np.array(weights, dtype=np.float32))

    @property
    def alignment(self) -> Alignment:
        """Each target word with the source word that it looks at most; the end of the source is none."""
        if not self.source:
            return []
        return [(int(row[:-1].argmax()), place) for place, row in enumerate(self.weights[:-1])]


def pharaoh(alignment: Alignment) -> str:
    """Write an alignment as other programs read it: `0-0 2-1`, source word and target word, counted from 0."""
    return " ".join(f"{source}-{target}" for source, target in alignment)


def check_attention(translator: Translator) -> None:
    """Raise UserError if the model has no attention. Calls no collectives."""
    if translator.config.model.attention == "none":
        raise UserError("this run has no attention (model.attention: none), so its words align with nothing")


@dataclass(frozen=True)
class WordAlignment:
    """The words of a sentence and those of a translation, without spaces within, and which aligns with which."""

    source: list[str]
    target: list[str]
    alignment: Alignment

    @classmethod
    def of_pieces(cls, pieces: Sequence[Self]) -> Self:
        """Return that of a sentence whose pieces these are."""
        source, target, alignment = list[str](), list[str](), Alignment()
        for piece in pieces:
            alignment += [(mine + len(source), other + len(target)) for mine, other in piece.alignment]
            source += piece.source
            target += piece.target
        return cls(source, target, alignment)

    @property
    def line(self) -> str:
        """``source words ||| target words ||| 0-0 2-1``; nothing where neither has any."""
        parts = [" ".join(self.source), " ".join(self.target), pharaoh(self.alignment)]
        return " ||| ".join(parts) if self.source or self.target else ""


def align(translator: Translator, sentences: Sequence[str], found: Sequence[Hypothesis]) -> list[WordAlignment]:
    """Return the words of each sentence and its translation, aligned, on every rank (collective).

    One of more than ``MOST_ALIGNED`` pairs of tokens, which take gigabytes, gets an empty alignment.

    Raises:
        UserError: on every rank, if the model has no attention.
    """
    seen = _look(translator, pair_examples(translator, sentences, found, MOST_ALIGNED))
    by_number = translator.ranks.gather_by_number((number, looks.alignment) for number, looks in seen)
    aligned = []
    for number, (sentence, mine) in enumerate(zip(sentences, found, strict=True)):
        words = _words_of(translator.source.encode(sentence), translator.source), _words_of(mine.ids, translator.target)
        source, target = ([_without_spaces(word) for word in side] for side in words)
        aligned.append(WordAlignment(source, target, [(at, place) for at, place in by_number[number]]))
    return aligned


def align_candidates(translator: Translator, translations: Sequence[Translation]) -> list[list[WordAlignment]]:
    """Return the alignment of each candidate of each translation, on every rank (collective); see ``align``."""
    parts = list(all_parts(translations))
    aligned = iter(align(translator, [piece for piece, _ in parts], [part for _, part in parts]))
    return [
        [WordAlignment.of_pieces(list(islice(aligned, len(each.pieces)))) for _ in each.n_best] for each in translations
    ]


def count_alignments(translator: Translator, pairs: Sequence[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Count which source word each word of the references looks at most, over all pairs, on every rank (collective).

    Args:
        pairs: sentences and their references, which the decoder is given (teacher forcing).

    Raises:
        UserError: on every rank, if the model has no attention.
    """
    found = [Hypothesis(ids, 0.0) for ids in translator.target.encode_all([target for _, target in pairs])]
    mine, counts = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    examples = pair_examples(translator, [source for source, _ in pairs], found, MOST_SHOWN)
    for _, seen in _look(translator, examples):
        mine.update((seen.source[source], seen.target[target]) for source, target in seen.alignment)
    for part in translator.ranks.gather_texts(json.dumps([[*words, count] for words, count in mine.items()])):
        for source, target, count in json.loads(part):
            counts[source, target] += count
    return counts


def look(translator: Translator, sentences: Sequence[str], found: Sequence[Hypothesis]) -> list[WordAttention]:
    """Return what each word of the sentences' translations looks at, on every rank (collective).

    What a beam has found is read once more (teacher forcing), which gives the weights that it was found with.

    Args:
        sentences: few, as all of their weights are gathered. One of more than ``MOST_SHOWN`` pairs of tokens comes
            back without words.
        found: a translation of each.

    Raises:
        UserError: on every rank, if the model has no attention.
    """
    seen = _look(translator, pair_examples(translator, sentences, found, MOST_SHOWN))
    values = ((number, (looks.source, looks.target, looks.weights.tolist())) for number, looks in seen)
    by_number = translator.ranks.gather_by_number(values)
    return [WordAttention.from_lists(*by_number[number]) for number in range(len(sentences))]


@torch.no_grad()
def sentence_vectors(translator: Translator, sentences: Sequence[str], pooling: Pooling = "mean") -> Floats:
    """Return a vector of each sentence, [sentences, hidden_size], on every rank (collective).

    Args:
        pooling: mean of what the encoder makes of the tokens, the end among them; or its last states in both
            directions, the context vector of a model without attention.
    """
    ranks = translator.ranks
    sources = translator.source.encode_all(sentences)
    vectors = torch.zeros(len(sources), translator.config.model.hidden_size, device=ranks.device)
    with translator.evaluating():
        examples = ExampleList(Example(source, []) for source in sources)
        for batch in translator.batching.batches(examples, ranks):
            encoding, _ = translator.core.encode(translator.source_rows(batch), batch.source_lengths)
            pooled = encoding.summary_BH
            if pooling == "mean":
                masked_BSH = encoding.memory_BSH * encoding.mask_BS[:, :, None]
                pooled = masked_BSH.sum(1) / batch.source_lengths[:, None]
            vectors[batch.indices] = pooled[: len(batch.indices)].to(vectors)
    ranks.sum_in_place(vectors)
    return vectors.cpu().numpy()


def pair_examples(
    translator: Translator, sentences: Sequence[str], found: Sequence[Hypothesis], most: int
) -> ExampleList:
    """Return sentences with their translations as ids; those of more than ``most`` pairs of tokens are empty."""
    check_attention(translator)
    sources = translator.source.encode_all(sentences)
    pairs = [Example(source, mine.ids) for source, mine in zip(sources, found, strict=True)]
    return ExampleList(pair if len(pair.source) * len(pair.target) <= most else Example([], []) for pair in pairs)


def _look(translator: Translator, examples: ExampleList) -> Iterator[tuple[int, WordAttention]]:
    """Yield this rank's share, each with the number of its example (collective until it ends)."""
    for number, weights_TS in token_weights(translator, examples):
        yield number, _of_words(examples[number], weights_TS, translator.source, translator.target)


def token_weights(translator: Translator, examples: ExampleList) -> Iterator[tuple[int, Tensor]]:
    """Yield what each target token of this rank's examples looks at, with the number of the example.

    That is [T, S], with padding. Collective until it ends.
    """
    with translator.evaluating():
        for batch in translator.batching.batches(examples, translator.ranks):
            source_BSE, target_BTE = translator.rows(batch)
            weights_BTS = translator.core.attention_weights(source_BSE, batch.source_lengths, target_BTE)
            yield from zip(batch.indices, weights_BTS, strict=False)


def _of_words(example: Example, weights_TS: Tensor, source: TextSide, target: TextSide) -> WordAttention:
    weights = weights_TS.double().cpu().numpy()
    columns, rows = group_ids(example.source, source), group_ids(example.target, target)
    end_column, end_row = len(example.source), len(example.target)
    summed = np.stack([weights[:, each].sum(1) for each in [*columns, range(end_column, end_column + 1)]], axis=1)
    averaged = np.stack([summed[each].mean(0) for each in [*rows, range(end_row, end_row + 1)]])
    return WordAttention(
        _words_of(example.source, source), _words_of(example.target, target), averaged.astype(np.float32)
    )


def _words_of(ids: Sequence[int], side: TextSide) -> list[str]:
    return [side.decode([ids[place] for place in group]).strip() for group in group_ids(ids, side)]


def _without_spaces(word: str) -> str:
    """Return a word as one field of a line, so that those after it keep their places."""
    return "_".join(word.split()) or "_"
