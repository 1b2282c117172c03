"""The translations of a batch: searched for, or drawn."""

from functools import partial

import torch

from dist_s2s.distributed import Ranks
from dist_s2s.models import Hypothesis, beam_search
from dist_s2s.text.batches import Batch
from dist_s2s.text.vocabulary import EOS, SOS
from dist_s2s.translation.predictor import Predictor
from dist_s2s.translation.sampling import sample_batch
from dist_s2s.translation.search_options import SearchOptions


@torch.no_grad()
def find(predictor: Predictor, batch: Batch, options: SearchOptions, ranks: Ranks) -> list[list[Hypothesis]]:
    """Return hypotheses of each sentence of this rank's batch, the best first, or samples in their order (collective).

    Args:
        predictor: what predicts them.
        batch: sentences; of a rank that has none the row that counts for nothing.
        options: how to find them.
        ranks: those that share the tables.
    """
    limits = options.max_lengths(batch.source_lengths)
    if not batch.indices:  # the row of a rank that has no sentence: it only joins the others' lookups
        limits = torch.zeros_like(limits)
    if options.sampling is not None:
        return sample_batch(predictor, batch, limits, options.sampling, options.never_chosen, ranks.all_agree)
    return beam_search(
        predictor.model,
        predictor.source_rows(batch),
        batch.source_lengths,
        embed=predictor.embed,
        best_tokens=partial(predictor.output.best_tokens, forbidden=options.never_chosen),
        start_id=SOS,
        end_id=EOS,
        max_lengths_B=limits,
        beam_size=options.beam_size,
        all_finished=ranks.all_agree,
    )
