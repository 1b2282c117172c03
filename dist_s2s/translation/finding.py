"""The translations of a batch: searched for, or drawn."""

import torch

from dist_s2s.distributed import Ranks
from dist_s2s.models import Demands, Hypothesis, beam_search
from dist_s2s.text.batches import Batch
from dist_s2s.text.vocabulary import EOS, SOS
from dist_s2s.translation.predictor import Predictor
from dist_s2s.translation.sampling import sample_batch
from dist_s2s.translation.search_options import SearchOptions


@torch.no_grad()
def find(
    predictor: Predictor, batch: Batch, options: SearchOptions, n_best: int, demands: Demands | None, ranks: Ranks
) -> list[list[Hypothesis]]:
    """Return up to ``n_best`` hypotheses of each sentence of a batch (collective).

    Args:
        predictor: what predicts them.
        batch: this rank's sentences.
        options: how to find them.
        n_best: hypotheses of a sentence.
        demands: what translations must have; None with samples, which can't be made to have anything.
        ranks: those that share the tables.
    """
    limits = options.max_lengths(batch.source_lengths)
    if not batch.indices:  # the row of a rank that has no sentence: it only joins the others' lookups
        limits = torch.zeros_like(limits)
    if options.sampling is not None:
        assert demands is None
        drawn = sample_batch(predictor, batch, limits, options.sampling, ranks.all_agree)
        return [samples[:n_best] for samples in drawn]
    return beam_search(
        predictor.model,
        predictor.source_rows(batch),
        batch.source_lengths,
        embed=predictor.embed,
        best_tokens=predictor.output.best_tokens,
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
