"""Samples of translations that are a function of the seed and the sentence alone."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dist_s2s.distributed import Ranks
from dist_s2s.models import Hypothesis
from dist_s2s.models.sampling import SamplingOptions, sample
from dist_s2s.sharded.rows.random_bits import GOLDEN_GAMMA, mix, shift_right
from dist_s2s.text.batches import Batch
from dist_s2s.text.side import TextSide
from dist_s2s.text.vocabulary import EOS, SOS
from dist_s2s.translation.predictor import Predictor
from dist_s2s.translation.search.joining import Translation, join_samples
from dist_s2s.translation.search.mbr import choose_by_risk

_NUMBERS_AT_A_TIME = 1 << 17  # what stays in a CPU's cache from one of their many operations to the next


@dataclass(frozen=True)
class Sampling:
    """That translations are drawn, instead of searched for.

    Attributes:
        options: how.
        seed: of the random numbers.
        by_risk: of the samples the one with the least Bayes risk is taken; see ``choose_by_risk``.
    """

    options: SamplingOptions
    seed: int = 0
    by_risk: bool = False


def sample_batch(
    predictor: Predictor,
    batch: Batch,
    limits_B: Tensor,
    sampling: Sampling,
    never_chosen: Sequence[int],
    all_finished: Callable[[bool], bool],
) -> list[list[Hypothesis]]:
    """Return samples of each sentence of a batch (collective)."""
    return sample(
        predictor.model,
        predictor.source_rows(batch),
        batch.source_lengths,
        embed=predictor.embed,
        log_probabilities=partial(predictor.output.log_probabilities, forbidden=never_chosen),
        exponentials=Draws.of(batch, sampling),
        start_id=SOS,
        end_id=EOS,
        max_lengths_B=limits_B,
        options=sampling.options,
        all_finished=all_finished,
    )


def join_drawn(
    parts: Sequence[tuple[list[str], Sequence[Sequence[Hypothesis]]]], side: TextSide, sampling: Sampling, ranks: Ranks
) -> list[Translation]:
    """Return all samples of each sentence, or the one with the least risk, on every rank (collective if by risk).

    Args:
        parts: the pieces of each sentence, and samples of each piece.
        side: of the target.
        sampling: how they were drawn.
        ranks: all of them have all samples.
    """
    translations = [join_samples(pieces, found, side) for pieces, found in parts]
    return choose_by_risk(translations, ranks) if sampling.by_risk else translations


class Draws:
    """Random numbers that depend on the seed, the sentence, the sample, the position and the token, and nothing else.

    So samples don't depend on the number of ranks, or on which other sentences there are. A sentence that occurs twice
    has the same samples.

    Args:
        keys_B: of each sentence, int64.
        num_samples: of each sentence.
    """

    def __init__(self, keys_B: Tensor, num_samples: int) -> None:
        numbers = torch.arange(1, num_samples + 1, device=keys_B.device)
        self._keys_M = mix(keys_B[:, None] + numbers * GOLDEN_GAMMA).flatten()

    @classmethod
    def of(cls, batch: Batch, sampling: Sampling) -> "Draws":
        """Return those of a batch's sentences."""
        lengths = batch.source_lengths.tolist()
        texts = [ids[:length] for ids, length in zip(batch.source.tolist(), lengths, strict=True)]
        keys = torch.tensor([_key(sampling.seed, ids) for ids in texts], device=batch.source.device)
        return cls(keys, sampling.options.num_samples)

    def __call__(self, samples_N: Tensor, position: int, ids_NC: Tensor) -> Tensor:
        """Return numbers of the exponential distribution, float64 [N, C]; see ``dist_s2s.models.sampling.sample``."""
        keys_N = mix(self._keys_M[samples_N] + torch.full_like(samples_N, position + 1) * GOLDEN_GAMMA)
        rows = max(1, _NUMBERS_AT_A_TIME // max(1, ids_NC.shape[1]))
        parts = zip(keys_N.split(rows), ids_NC.split(rows), strict=True)
        return torch.cat([_exponentials(mix(keys[:, None] + (ids + 1) * GOLDEN_GAMMA)) for keys, ids in parts])


def _exponentials(bits: Tensor) -> Tensor:
    """Return numbers of the exponential distribution, float64, from 64 random bits each."""
    uniform = shift_right(bits, 11).double().add_(0.5).mul_(2.0**-53)  # within (0, 1), or 1 by rounding
    return uniform.neg_().log1p_().neg_()


def _key(seed: int, ids: list[int]) -> int:
    """Return 64 bits that depend on all of a sentence."""
    digest = hashlib.blake2b(repr((seed, ids)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
