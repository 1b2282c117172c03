"""The output layer of a translator, from decoder states to losses and tokens: replicated, sharded or sampled."""

from dist_s2s.translation.output.choose import OutputName, choose_output
from dist_s2s.translation.output.layer import OutputLayer
from dist_s2s.translation.output.replicated import ReplicatedOutput
from dist_s2s.translation.output.sampled import SampledOutput
from dist_s2s.translation.output.sharded import ShardedOutput

__all__ = ["OutputLayer", "OutputName", "ReplicatedOutput", "SampledOutput", "ShardedOutput", "choose_output"]
