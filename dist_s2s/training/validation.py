"""Loss and translations of a translator on held-out data."""

import torch

from dist_s2s.sharded import lookup
from dist_s2s.text.batches import evaluation_batches
from dist_s2s.text.corpus import Example
from dist_s2s.translation.scoring import Row
from dist_s2s.translation.translator import SENTENCES_PER_BATCH, Translator

Pairs = list[tuple[str, str]]


@torch.no_grad()
def validation_loss(translator: Translator, examples: list[Example]) -> float:
    """Mean negative log-likelihood of a target token, in nats, without label smoothing (collective)."""
    ranks, total, tokens = translator.ranks, 0.0, 0
    was_training = translator.core.training
    translator.core.eval()
    for batch in evaluation_batches(examples, SENTENCES_PER_BATCH, ranks.rank, ranks.world_size):
        batch = batch.to(ranks.device)
        source, target = lookup([translator.source_table, translator.target_table], [batch.source, batch.target_in])
        states = translator.core(source, batch.source_lengths, target, apply_output=False)
        with translator.autocast():
            total += translator.output.exact_loss(states, batch.target_out).item()
        tokens += batch.global_target_tokens
    translator.core.train(was_training)
    return ranks.sum([total])[0] / tokens


def translate_pairs(translator: Translator, pairs: Pairs, beam_size: int = 1) -> list[Row]:
    """(source, reference, hypothesis) of each pair (collective)."""
    hypotheses = translator.translate([source for source, _ in pairs], beam_size)
    return [(*pair, hypothesis) for pair, hypothesis in zip(pairs, hypotheses, strict=True)]
