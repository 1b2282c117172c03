"""Loss and translations of a translator on held-out data."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dist_s2s.scoring import Row
from dist_s2s.text.batches import evaluation_batches
from dist_s2s.text.corpus import Example
from dist_s2s.text.vocabulary import PAD
from dist_s2s.translator import SENTENCES_PER_BATCH, Translator

Pairs = list[tuple[str, str]]


def token_loss(logits_BTV: Tensor, target_BT: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy in nats, summed over the tokens that are not padding, in float32 or better."""
    logits_NV = logits_BTV.flatten(0, 1)
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return F.cross_entropy(
        logits_NV, target_BT.flatten(), ignore_index=PAD, reduction="sum", label_smoothing=label_smoothing
    )


@torch.no_grad()
def validation_loss(translator: Translator, examples: list[Example]) -> float:
    """Mean negative log-likelihood of a target token, in nats, without label smoothing (collective)."""
    ranks, total, tokens = translator.ranks, 0.0, 0
    was_training = translator.core.training
    translator.core.eval()
    for batch in evaluation_batches(examples, SENTENCES_PER_BATCH, ranks.rank, ranks.world_size):
        batch = batch.to(ranks.device)
        source = translator.source_table(batch.source)
        target = translator.target_table(batch.target_in)
        logits = translator.core(source, batch.source_lengths, target)
        total += token_loss(logits, batch.target_out, label_smoothing=0.0).item()
        tokens += batch.global_target_tokens
    translator.core.train(was_training)
    return ranks.sum([total])[0] / tokens


def translate_pairs(translator: Translator, pairs: Pairs, beam_size: int = 1) -> list[Row]:
    """(source, reference, hypothesis) of each pair (collective)."""
    hypotheses = translator.translate([source for source, _ in pairs], beam_size)
    return [(*pair, hypothesis) for pair, hypothesis in zip(pairs, hypotheses, strict=True)]
