"""The translations of a batch: searched for, or drawn."""

from collections.abc import Sequence
from functools import partial

import torch

from dist_s2s.distributed import Ranks
from dist_s2s.models import Demand, Demands, Hypothesis, beam_search
from dist_s2s.text.batches import Batch
from dist_s2s.text.vocabulary import EOS, SOS
from dist_s2s.translation.predictor import Predictor
from dist_s2s.translation.sampling import sample_batch
from dist_s2s.translation.search_options import SearchOptions


@torch.no_grad()
def find(
    predictor: Predictor, batch: Batch, options: SearchOptions, n_best: int, wanted: Sequence[Demand], ranks: Ranks
) -> list[list[Hypothesis]]:
    """Return up to ``n_best`` hypotheses of each sentence of a batch, the best first, or samples in their order.

    Collective.

    Args:
        predictor: what predicts them.
        batch: this rank's sentences; of a rank that has none the row that counts for nothing.
        options: how to find them.
        n_best: hypotheses of a sentence.
        wanted: the demands of all sentences of all batches, by their number; empty where there are none.
        ranks: those that share the tables.

    Raises:
        ValueError: on every rank, for demands of samples, which cannot be made to have anything.
    """
    limits = options.max_lengths(batch.source_lengths)
    if not batch.indices:  # the row of a rank that has no sentence: it only joins the others' lookups
        limits = torch.zeros_like(limits)
    if options.sampling is not None:
        if wanted:
            raise ValueError("samples cannot have prefixes or terms: leave these out, or sampling")
        drawn = sample_batch(predictor, batch, limits, options.sampling, options.never_chosen, ranks.all_agree)
        return [samples[:n_best] for samples in drawn]
    output, never = predictor.output, options.never_chosen
    demands = None
    if wanted:
        mine = [wanted[number] for number in batch.indices] or [Demand()]
        demands = Demands.among(mine, partial(output.given_tokens, forbidden=never), wanted)
    return beam_search(
        predictor.model,
        predictor.source_rows(batch),
        batch.source_lengths,
        embed=predictor.embed,
        best_tokens=partial(output.best_tokens, forbidden=never),
        start_id=SOS,
        end_id=EOS,
        max_lengths_B=limits,
        beam_size=options.beam_size,
        all_finished=ranks.all_agree,
        n_best=n_best,
        ranking=options.ranking,
        rules=options.rules,
        demands=demands,
    )
