"""What predicts the tokens of a translation: one run's model, or several that predict as one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dist_s2s.config import Config
from dist_s2s.models.ensemble import Ensemble, Member, mean_of_probabilities, split
from dist_s2s.models.output import best_of
from dist_s2s.models.protocols import AttentiveEncoderDecoder, EncoderDecoder
from dist_s2s.models.shortlist import ListedModel
from dist_s2s.text.batches import Batch
from dist_s2s.text.side import TextSide
from dist_s2s.translation.output.layer import OutputLayer, Predictions
from dist_s2s.translation.output.start import NEVER_CHOSEN
from dist_s2s.translation.tables.make import parameter_dtype

# Shapes: B sentences, T target positions, N rows, V target vocabulary, X and H: numbers of outputs and of states.


@dataclass(frozen=True)
class Predictor:
    """A model with what stands before and after it. All of it may be collective but the model.

    Attributes:
        model: an encoder-decoder.
        source_rows: looks up what the model reads of a batch's source, [B, S, E].
        embed: looks up the rows of target tokens.
        rows: looks up both of a batch at once, the target's being those of its ``target_in``.
        output: applied to what the model returns.
        listed: returns a model for the search of one batch, with the choice of what its sentences list; from the batch,
            the ids that are never chosen, and what each sentence lists besides. None: searches choose from all tokens.
        unused: target ids that no token has yet, of a vocabulary that grows; never chosen.
    """

    model: EncoderDecoder[Any, Any]
    source_rows: Callable[[Batch], Tensor]
    embed: Callable[[Tensor], Tensor]
    rows: Callable[[Batch], tuple[Tensor, Tensor]]
    output: Predictions
    listed: Callable[[Batch, Sequence[int], Sequence[Sequence[int]]], ListedModel[Any, Any]] | None = None
    unused: Sequence[int] = ()


def member_of(
    config: Config, model: AttentiveEncoderDecoder[Any, Any], output: OutputLayer, target: TextSide
) -> Member:
    """Return a run's model with the sizes that its configuration gives it."""
    sizes, embedding = config.model, config.embedding
    return Member(
        model,
        source_dim=sizes.embedding_dim + len(embedding.ngrams) * embedding.ngram_dim,
        target_dim=sizes.embedding_dim,
        output_dim=sizes.readout_dim if output.tables else target.vocabulary.num_ids,
        state_dim=sizes.readout_dim,
        dtype=parameter_dtype(config),
    )


def ensemble(members: Sequence[Member], predictors: Sequence[Predictor]) -> Predictor:
    """Return what predicts with the mean of the probabilities of all members, which have the same vocabularies."""

    def rows(batch: Batch) -> tuple[Tensor, Tensor]:
        sources, targets = zip(*(each.rows(batch) for each in predictors), strict=True)
        return torch.cat(sources, dim=-1), torch.cat(targets, dim=-1)

    return Predictor(
        Ensemble(members),
        lambda batch: torch.cat([each.source_rows(batch) for each in predictors], dim=-1),
        lambda ids: torch.cat([each.embed(ids) for each in predictors], dim=-1),
        rows,
        EnsembleOutput(members, [each.output for each in predictors]),
        unused=predictors[0].unused,
    )


class EnsembleOutput:
    """The output layers of an ensemble: the probability of a token is the mean of the members' probabilities."""

    def __init__(self, members: Sequence[Member], outputs: Sequence[Predictions]) -> None:
        self._members, self._outputs = members, outputs

    def token_losses(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Return the negative log-likelihood of each token, [B, T], 0 at PAD (collective if a member's is)."""
        parts = split(states_BTH, self._members, [each.state_dim for each in self._members])
        losses = [output.token_losses(part, target_out_BT) for output, part in zip(self._outputs, parts, strict=True)]
        return mean_of_probabilities([each.neg() for each in losses]).neg()

    def best_tokens(self, outputs_NX: Tensor, k: int, forbidden: Sequence[int] = NEVER_CHOSEN) -> tuple[Tensor, Tensor]:
        """Return the k likeliest tokens of each row (collective if a member's is)."""
        return best_of(self.log_probabilities(outputs_NX, forbidden), k)

    def given_tokens(self, outputs_NX: Tensor, ids_NM: Tensor, forbidden: Sequence[int] = NEVER_CHOSEN) -> Tensor:
        """Return the log-probabilities [N, M] of given tokens, int64 [N, M] (collective if a member's is)."""
        return self.log_probabilities(outputs_NX, forbidden).gather(1, ids_NM)

    def log_probabilities(self, outputs_NX: Tensor, forbidden: Sequence[int] = NEVER_CHOSEN) -> Tensor:
        """Return the log-probabilities of all tokens, [N, V] (collective if a member's is)."""
        parts = split(outputs_NX, self._members, [each.output_dim for each in self._members])
        return mean_of_probabilities(
            [output.log_probabilities(part, forbidden) for output, part in zip(self._outputs, parts, strict=True)]
        )
