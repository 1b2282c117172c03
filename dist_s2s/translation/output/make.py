"""From a configuration to its output layer."""

from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.translation.output.layer import OutputLayer
from dist_s2s.translation.output.replicated import ReplicatedOutput
from dist_s2s.translation.output.sampled import SampledOutput
from dist_s2s.translation.output.sharded import ShardedOutput
from dist_s2s.translation.tables.make import make_table


def make_output(config: Config, num_classes: int, target_table: DistributedEmbedding, ranks: Ranks) -> OutputLayer:
    """Build the layer that ``model.output`` names, which is no longer ``auto`` (collective if it is sharded).

    Args:
        num_classes: tokens of the target vocabulary.
        target_table: the output table too, if ``model.tie_embeddings``.
    """
    model, smoothing = config.model, config.training.label_smoothing
    if model.output == "replicated":
        return ReplicatedOutput(model.readout_dim, num_classes, smoothing)
    table = target_table
    if not model.tie_embeddings:
        std = model.readout_dim**-0.5
        table = make_table(config, num_classes, model.readout_dim, ranks, padding_idx=None, init_std=std)
    bias = make_table(config, num_classes, 1, ranks, padding_idx=None, init_std=0.0)
    if model.output == "sharded":
        return ShardedOutput(table, bias, num_classes, smoothing)
    assert model.output == "sampled", model.output
    return SampledOutput(table, bias, num_classes, smoothing, model.output_samples, config.training.seed)
