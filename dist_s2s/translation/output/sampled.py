"""The sharded output layer, trained on a sample of its classes."""

from collections.abc import Sequence

from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, SampledIds, SampledSoftmaxLoss
from dist_s2s.text.vocabulary import PAD
from dist_s2s.translation.output.sharded import ShardedOutput


class SampledOutput(ShardedOutput):
    """The same table, trained on a sample of its classes in each step; validation and search are exact."""

    def __init__(
        self,
        table: DistributedEmbedding,
        bias: DistributedEmbedding,
        num_classes: int,
        label_smoothing: float,
        num_samples: int,
        seed: int,
    ) -> None:
        super().__init__(table, bias, num_classes, label_smoothing)
        self.lookup_tables = [table, bias]
        self._sampled = SampledSoftmaxLoss(
            table,
            bias,
            num_samples=num_samples,
            num_classes=num_classes,
            ignore_index=PAD,
            label_smoothing=label_smoothing,
            reduction="sum",
            seed=seed,
        )

    def sample(self, target_out_BT: Tensor, step: int) -> SampledIds | None:
        """Return the targets, and candidates that all ranks share: a function of the seed and the step."""
        return self._sampled.sample(target_out_BT, step)

    def training_loss(
        self, states_BTH: Tensor, target_out_BT: Tensor, sample: SampledIds | None, rows: Sequence[Tensor]
    ) -> Tensor:
        """Return the sampled softmax loss from rows that were looked up together with the model's."""
        assert sample is not None
        return self._sampled.from_rows(states_BTH, sample, *rows)
