"""What each training step works on, made ahead of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from dist_s2s.config import Config
from dist_s2s.sharded import SampledIds
from dist_s2s.text.batches import Batch, global_batches, rank_batch
from dist_s2s.text.corpus import Corpus
from dist_s2s.text.mixed import of_epoch
from dist_s2s.text.resampled import ResampledCorpus
from dist_s2s.training.schedule import Progress
from dist_s2s.translation.translator import Translator


@dataclass(frozen=True)
class Step:
    """A rank's batch, the sample of its loss, and where training stands after it."""

    batch: Batch
    sample: SampledIds | None
    next_epoch: int
    next_position: int

    @property
    def target_ids(self) -> list[Tensor]:
        """What is looked up besides the source: target tokens, and what the loss samples of output table and bias."""
        sampled = [] if self.sample is None else [self.sample.ids] * 2
        return [self.batch.target_in, *sampled]


def training_steps(config: Config, corpus: Corpus, translator: Translator, start: Progress) -> Iterator[Step]:
    """Yield this rank's part of each global batch from ``start`` on, epoch after epoch without end (local)."""
    ranks, number = translator.ranks, start.step
    epoch, first = start.epoch, start.position
    while True:
        part = of_epoch(corpus, config.training.seed, epoch)
        batches = global_batches(part, config.data.batch_tokens, config.training.seed, epoch)
        examples = _examples_of_epoch(config, part, translator, epoch)
        for position in range(first, len(batches)):
            batch = rank_batch(examples, batches[position], ranks.rank, ranks.world_size).to(ranks.device)
            is_last = position + 1 == len(batches)
            yield Step(
                batch,
                translator.output.sample(batch.target_out, number),
                next_epoch=epoch + is_last,
                next_position=0 if is_last else position + 1,
            )
            number += 1
        epoch, first = epoch + 1, 0


def _examples_of_epoch(config: Config, corpus: Corpus, translator: Translator, epoch: int) -> Corpus:
    """Return the corpus, with subwords drawn for this epoch if ``data.bpe_dropout`` asks for it."""
    data = config.data
    if data.bpe_dropout == 0:
        return corpus
    source = translator.source if data.source_tokenizer == "bpe" else None
    target = translator.target if data.target_tokenizer == "bpe" else None
    return ResampledCorpus(corpus, source, target, data.bpe_dropout, config.training.seed, epoch)
