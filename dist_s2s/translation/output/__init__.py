"""The output layer of a translator, from decoder states to losses and tokens: replicated, sharded or sampled.

Each kind has

    layer           what the model applies to its states
    tables          what checkpoints and the optimizer see, by name
    lookup_tables   those whose rows the training loss looks up
    start_from      lets an untrained layer begin with the tokens' frequencies, int64 [V], for a bias
    sample          the ids of these rows for a step, known before the step; None if it needs none (local)
    training_loss   in nats, summed over this rank's tokens
    exact_loss      negative log-likelihood, summed likewise, without label smoothing
    best_tokens     log-probabilities and ids of the k likeliest tokens, [N, k] each

The losses take the model's states [B, T, H], best_tokens what ``layer`` makes of them; the three are collective unless
the layer is replicated. B sentences, T target positions, N tokens, V target vocabulary, H hidden_size, X: V or H, as
``layer`` says.
"""

from dist_s2s.translation.output.choose import OutputName, choose_output
from dist_s2s.translation.output.replicated import ReplicatedOutput
from dist_s2s.translation.output.sampled import SampledOutput
from dist_s2s.translation.output.sharded import ShardedOutput

OutputLayer = ReplicatedOutput | ShardedOutput

__all__ = ["OutputLayer", "OutputName", "ReplicatedOutput", "SampledOutput", "ShardedOutput", "choose_output"]
