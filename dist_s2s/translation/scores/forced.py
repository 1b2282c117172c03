"""Forced decoding: how likely a translator finds translations that are given."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_s2s import UserError, counted
from dist_s2s.text.batches import Batch
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.side import TextSide
from dist_s2s.text.vocabulary import EOS, UNK
from dist_s2s.translation.translator import Translator

MOST_POSITIONS = 1 << 26  # source tokens times target tokens of a pair, which attention looks at


@dataclass(frozen=True)
class ForcedScore:
    """The log-probabilities of a given translation, in nats.

    Attributes:
        ids: its tokens, without the end.
        log_probabilities: of each token after those before it, and of the end: one more than there are ids.
    """

    ids: list[int]
    log_probabilities: list[float]

    def tokens(self, side: TextSide) -> list[str]:
        """Return the tokens that the log-probabilities belong to, of the target side, the end among them."""
        return [side.vocabulary.tokens[index] for index in [*self.ids, EOS]]

    @property
    def total(self) -> float:
        """The log-probability of the translation."""
        return math.fsum(self.log_probabilities)

    @property
    def mean(self) -> float:
        """That divided by its tokens and the end, a search's score with a length penalty of 1."""
        return self.total / len(self.log_probabilities)


@dataclass(frozen=True)
class Likelihood:
    """How likely some translations are together.

    Attributes:
        log_probability: their sum, in nats.
        tokens: of the translations, the ends counted.
        unknown_tokens: those of them that are no words of the vocabulary. They count as likely as the token that stands
            for all unknown words.
        characters: of the translations, spaces counted and ends not.
    """

    log_probability: float
    tokens: int
    unknown_tokens: int
    characters: int

    @classmethod
    def of(cls, scores: Sequence[ForcedScore], texts: Iterable[str]) -> "Likelihood":
        """Return what the scores of these texts add up to."""
        return cls(
            math.fsum(score.total for score in scores),
            sum(len(score.log_probabilities) for score in scores),
            sum(score.ids.count(UNK) for score in scores),
            sum(map(len, texts)),
        )

    @property
    def perplexity(self) -> float:
        """The perplexity of a token, which depends on how text is cut into tokens."""
        return _perplexity(self.log_probability, self.tokens)

    @property
    def character_perplexity(self) -> float:
        """The perplexity of a character, which compares models of other tokens, where no word is unknown."""
        return _perplexity(self.log_probability, self.characters)


def encode_pairs(translator: Translator, pairs: Sequence[tuple[str, str]]) -> ExampleList:
    """Return the token ids of sources and their translations. Calls no collectives.

    Raises:
        UserError: a pair is too long to be scored.
    """
    sources = translator.source.encode_all([source for source, _ in pairs])
    targets = translator.target.encode_all([target for _, target in pairs])
    examples = ExampleList(map(Example, sources, targets))
    for number, each in enumerate(examples, 1):
        source, target = len(each.source) + 1, len(each.target) + 1
        if source * target > MOST_POSITIONS:
            raise UserError(
                f"pair {number:,} is too long to be scored: {counted(source, 'source token')} times "
                f"{counted(target, 'target token')} "
                f"are more than {MOST_POSITIONS:,}; leave it out"
            )
    return examples


def force(translator: Translator, examples: Sequence[Example]) -> list[ForcedScore]:
    """Return how likely each target is as translation of its source, on every rank (collective).

    The target is read with teacher forcing and in the precision of a search. The probabilities are those of the model,
    over all tokens; a search leaves out the token for unknown words, so that its own are slightly higher. They depend
    neither on the number of ranks nor on what else is in a batch, but for rounding.

    Args:
        translator: at rest or in training; the mode stays.
        examples: what ``encode_pairs`` has returned, or a part of it; the same on every rank.
    """
    examples = ExampleList(examples)
    ranks, mine = translator.ranks, list[tuple[int, list[float]]]()
    with translator.evaluating():
        for batch in translator.batching.batches(examples, ranks):
            losses_BT = token_losses(translator, batch)
            for number, losses_T in zip(batch.indices, losses_BT, strict=False):
                mine.append((number, losses_T[: len(examples[number].target) + 1].neg().tolist()))
    by_number = ranks.gather_by_number(mine)
    return [ForcedScore(each.target, by_number[number]) for number, each in enumerate(examples)]


@torch.no_grad()
def token_losses(translator: Translator, batch: Batch) -> Tensor:
    """Return the negative log-likelihood of each of ``target_out``'s tokens, [B, T], 0 at PAD (collective)."""
    predictor = translator.predictor
    source_BSE, target_BTE = predictor.rows(batch)
    states = predictor.model(source_BSE, batch.source_lengths, target_BTE, apply_output=False)
    return predictor.output.token_losses(states, batch.target_out)


def _perplexity(log_probability: float, count: int) -> float:
    """Return exp of the mean negative log-probability; infinite where that is too large for a number."""
    mean = -log_probability / count if count else math.inf
    return math.exp(mean) if mean < 700 else math.inf
