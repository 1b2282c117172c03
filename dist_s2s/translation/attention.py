"""What a translation looks at in its source."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_s2s.text.vocabulary import EOS, SOS
from dist_s2s.translation.translator import Translator


def attention_of(translator: Translator, source: Sequence[int], target: Sequence[int]) -> Tensor | None:
    """Return how much each target token looks at each source token, [T + 1, S + 1] with EOS on both sides (collective).

    Args:
        translator: whose model is led through the target (teacher forcing).
        source, target: ids without SOS and EOS, the same on every rank.

    Returns:
        Rows of sum 1 on the CPU; None for a model without attention.
    """
    if translator.config.model.attention == "none":
        return None
    device = translator.ranks.device
    source_1S, target_1T = torch.tensor([[*source, EOS]]), torch.tensor([[SOS, *target]])
    with translator.evaluating(), torch.no_grad():
        weights_1TS = translator.core.attention_weights(
            translator.source_table(source_1S.to(device)),
            torch.tensor([source_1S.shape[1]], device=device),
            translator.target_table(target_1T.to(device)),
        )
    return weights_1TS[0].float().cpu()
