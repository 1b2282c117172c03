"""Hypotheses of sentences, batch by batch: searched for, or drawn."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from dist_s2s.distributed import Ranks
from dist_s2s.models import Demand, Demands, Hypothesis, beam_search
from dist_s2s.models.protocols import Stepwise
from dist_s2s.models.search.allowed import BestTokens
from dist_s2s.models.search.demands import LogProbabilitiesOf
from dist_s2s.text.batches import Batch
from dist_s2s.text.corpus import ExampleList
from dist_s2s.text.vocabulary import EOS, SOS
from dist_s2s.translation.batching import Batching
from dist_s2s.translation.predictor import Predictor
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.search.sampling import sample_batch


def find(
    predictor: Predictor,
    examples: ExampleList,
    wanted: Sequence[Demand],
    options: SearchOptions,
    n_best: int,
    batching: Batching,
    ranks: Ranks,
    after_batch: Callable[[], None],
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Yield the hypotheses of this rank's share of all examples, each with the number of its example (collective).

    Args:
        predictor: what predicts them.
        examples: sources, the same on every rank.
        wanted: the demand of each example; empty if none has any.
        options: how to find them.
        n_best: most hypotheses of an example: the best first, or samples in their order.
        batching: how much is worked on at a time.
        ranks: those that share the tables.
        after_batch: called after each batch, on every rank equally often; may call collectives.

    Raises:
        ValueError: on every rank, for demands of samples, which cannot be made to have anything.
    """
    if wanted and options.sampling is not None:
        raise ValueError("samples cannot have prefixes or terms: leave these out, or options.sampling")
    limits = options.max_lengths(examples.lengths[:, 0] + 1)
    for batch in batching.batches(examples, ranks, options.num_hypotheses, limits):
        found = _find_batch(predictor, batch, wanted, options, n_best, ranks)
        yield from zip(batch.indices, found, strict=False)  # a row that counts for nothing has no index
        after_batch()


@torch.no_grad()
def _find_batch(
    predictor: Predictor, batch: Batch, wanted: Sequence[Demand], options: SearchOptions, n_best: int, ranks: Ranks
) -> list[list[Hypothesis]]:
    # The row of a rank that has no sentence only joins the others' lookups.
    limits, output = options.max_lengths(batch.source_lengths) * bool(batch.indices), predictor.output
    forbidden = [*options.never_chosen, *predictor.unused]
    if options.sampling is not None:
        drawn = sample_batch(predictor, batch, limits, options.sampling, forbidden, ranks.all_agree)
        return [samples[:n_best] for samples in drawn]
    mine = [wanted[number] for number in batch.indices] or [Demand()] if wanted else []
    model: Stepwise[Any, Any] = predictor.model
    best_tokens: BestTokens = partial(output.best_tokens, forbidden=forbidden)
    given_tokens: LogProbabilitiesOf = partial(output.given_tokens, forbidden=forbidden)
    if predictor.listed is not None and options.shortlist:
        model = listed = predictor.listed(batch, forbidden, [demand.tokens for demand in mine])
        best_tokens, given_tokens = listed.best_tokens, listed.given_tokens
    return beam_search(
        model,
        predictor.source_rows(batch),
        batch.source_lengths,
        embed=predictor.embed,
        best_tokens=best_tokens,
        start_id=SOS,
        end_id=EOS,
        max_lengths_B=limits,
        beam_size=options.beam_size,
        all_finished=ranks.all_agree,
        n_best=n_best,
        ranking=options.ranking,
        rules=options.rules,
        demands=Demands.among(mine, given_tokens, wanted) if wanted else None,
    )
