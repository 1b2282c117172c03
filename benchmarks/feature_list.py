"""The features that features.py asks about, and the form of an answer. Standard library alone."""

from dataclasses import dataclass
from typing import Literal

# "n/a": the question does not arise. "not run": the probe cannot run here, and nothing is claimed. "error": the probe
# itself is at fault, so that nothing can be claimed either.
Verdict = Literal["yes", "partly", "no", "n/a", "not run", "error"]


@dataclass(frozen=True)
class Answer:
    """What a probe found, and by what: an error message or an observed value, in one line."""

    verdict: Verdict
    evidence: str


# Module of the probes, and the distribution whose version is reported, of each system.
SYSTEMS = {
    "nn.Embedding": ("feature_probes_torch", "torch"),
    "torchrec": ("feature_probes_torchrec", "torchrec"),
    "megatron": ("feature_probes_megatron", "megatron-core"),
    "dist_s2s": ("feature_probes_dist_s2s", "dist-s2s"),
}

# Name: what "yes" means.
FEATURES = {
    "pip_install_on_cpu": "what pip installs looks up rows on a CPU, and all its requirements are met",
    "rows_divided": "each of two ranks holds half of the rows",
    "any_vocabulary_size": "131 rows on two ranks",
    "plain_tensors": "ids are a tensor of any shape, rows come back in that shape",
    "uneven_batches": "each rank has a batch of its own, of its own size; rows and update are exact",
    "empty_batch": "one rank has no ids at all; rows and update are exact",
    "bad_id_raises": "an id out of range on one rank raises on every rank",
    "disagreement_raises": "tables of another dimension on one rank raise on every rank",
    "padding_idx": "the padding row is never trained",
    "max_norm": "rows are scaled down to a norm when looked up, as in nn.Embedding",
    "scale_grad_by_freq": "gradients are divided by an id's frequency, as in nn.Embedding",
    "sparse_adam": "Adam that updates only the rows in use, equal to torch.optim.SparseAdam, on CPU",
    "row_wise_adagrad": "Adagrad with one accumulator per row, on CPU",
    "gradient_accumulation": "two micro-batches and one update equal one large batch",
    "mean_or_sum": "mean or sum over ranks is chosen for each table",
    "resharding": "saved on two ranks, loaded on one",
    "grow": "a table gets more rows in place, and the optimizer's state moves along",
    "several_tables": "two tables of different dimensions take as many collectives as one",
    "deduplicated_ids": "a repeated id travels once, on CPU",
    "reduced_precision_exchange": "rows and gradients of a float32 table travel as bfloat16, on CPU",
    "replicated_shards": "rows are divided over 2 ranks and replicated twice; replicas stay equal and exact",
    "prefetch": "ids of the next batch travel while this one computes, on CPU",
    "sharded_cross_entropy": "softmax and loss over an output table whose rows are divided",
    "sampled_softmax": "a loss from some of the classes",
    "tied_tables": "one divided table for lookup and output layer; its gradient is the sum of both uses",
    "pooled_lookups": "bags of ids, summed or averaged (EmbeddingBag)",
    "other_shardings": "tables divided by columns, or whole on one rank",
    "automatic_placement": "a planner chooses how each table is divided",
    "unbounded_ids": "any 64-bit ids are mapped to a table of fixed size, and old ones evicted",
    "fused_optimizer": "rows are updated in backward, and no gradient is stored",
    "host_memory_cache": "rows live in host memory, those in use are cached on the GPU",
    "quantised_inference": "8-bit rows for inference",
    "tensor_parallel_layers": "linear layers divided over ranks",
}
FOUR_RANKS = ("replicated_shards",)
