"""The features that compare_features.py asks about, and the form of an answer. Standard library alone."""

from dataclasses import dataclass
from typing import Literal

# n/a: the question does not arise. not run: the probe cannot run here, so nothing is claimed. error: the probe itself
# does not fit this version of the system, so nothing is claimed either.
Verdict = Literal["yes", "partly", "no", "n/a", "not run", "error"]


@dataclass(frozen=True)
class Answer:
    """What a probe found, and by what: an error message or an observed value, in one line."""

    verdict: Verdict
    evidence: str


def whether(holds: bool, evidence: str, verdict: Verdict = "yes") -> Answer:
    """Return that verdict, or no."""
    return Answer(verdict if holds else "no", evidence)


@dataclass(frozen=True)
class System:
    """How a system is called, the module of its probes, and what pip installs."""

    title: str
    probes: str
    distribution: str


SYSTEMS = {
    "nn.Embedding": System("nn.Embedding", "features.probes_torch", "torch"),
    "torchrec": System("TorchRec", "features.probes_torchrec", "torchrec"),
    "megatron": System("Megatron-Core", "features.probes_megatron", "megatron-core"),
    "dist_s2s": System("dist_s2s", "features.probes_dist_s2s", "dist-s2s"),
}

# For each feature what "yes" means. Everything is tried on CPU, on two ranks joined by gloo.
FEATURES = {
    "pip_install": "`pip install` brings everything that is needed to look rows up on a CPU",
    "rows_divided": "each of two ranks holds half of the rows",
    "any_vocabulary_size": "131 rows can be split over two ranks",
    "plain_tensors": "ids are a tensor of any shape, and rows come back in that shape",
    "uneven_batches": "each rank has its own batch, of its own size; rows and update are exact",
    "empty_batch": "one rank has no ids at all; rows and update are exact",
    "bad_id_raises": "an out-of-range id on one rank raises at once on every rank",
    "disagreement_raises": "a table of a different dimension on one rank raises at once on every rank",
    "padding_idx": "the padding row is never trained",
    "max_norm": "rows are scaled down to a maximum norm when they are looked up",
    "scale_grad_by_freq": "a row's gradient is divided by how often its id occurs",
    "sparse_adam": "Adam that updates only the rows in use, equal to torch.optim.SparseAdam",
    "row_wise_adagrad": "Adagrad with one accumulator per row",
    "gradient_accumulation": "two micro-batches and one update equal one large batch",
    "mean_or_sum": "each table chooses between mean and sum over ranks",
    "resharding": "rows and optimizer state saved on two ranks can be loaded on one",
    "grow": "a table gains rows in place, optimizer state included",
    "several_tables": "two tables of different dimensions need no more collectives than one",
    "deduplicated_ids": "a repeated id travels once",
    "reduced_precision": "rows and gradients of a float32 table travel in 16 bits",
    "replicated_shards": "rows are sharded over two ranks and replicated twice, with an exact update (four ranks)",
    "prefetch": "ids travel while the previous batch is computed",
    "sharded_cross_entropy": "exact softmax and loss over a row-sharded output table",
    "logits_in_chunks": "that loss never stores the logits of all tokens on any rank",
    "own_tokens": "in that loss, each rank has its own tokens, and as many as it likes",
    "sampled_softmax": "a loss computed from a sample of the classes",
    "tied_tables": "a sharded table serves both lookups and the output layer; its gradient is the sum of both",
    "pooled_lookups": "bags of ids are summed (EmbeddingBag)",
    "other_shardings": "tables sharded by column, and tables placed whole on one rank",
    "automatic_placement": "a planner chooses how each table is sharded",
    "unbounded_ids": "ids of any size are mapped to a table of fixed size",
    "fused_optimizer": "backward updates the rows; the table's gradient is never stored",
    "host_memory_cache": "rows live in host memory, and those in use are cached on the GPU",
    "quantised_inference": "8-bit rows for inference",
    "tensor_parallel_layers": "linear layers sharded over ranks",
}
FOUR_RANKS = ("replicated_shards",)
