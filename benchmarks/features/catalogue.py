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
    "pip_install": "what `pip install` brings has all it requires, and looks rows up on a CPU",
    "rows_divided": "each of two ranks holds half of the rows",
    "any_vocabulary_size": "131 rows on two ranks",
    "plain_tensors": "ids are a tensor of any shape, and rows come back in that shape",
    "uneven_batches": "each rank has a batch of its own, of its own size: rows and update are exact",
    "empty_batch": "one rank has no ids at all: rows and update are exact",
    "bad_id_raises": "an id out of range on one rank raises at once on every rank",
    "disagreement_raises": "a table of another dimension on one rank raises at once on every rank",
    "padding_idx": "the padding row is never trained",
    "max_norm": "rows are scaled down to a norm when looked up",
    "scale_grad_by_freq": "a row's gradient is divided by how often its id occurs",
    "sparse_adam": "Adam that updates only rows in use, equal to torch.optim.SparseAdam",
    "row_wise_adagrad": "Adagrad with one accumulator per row",
    "gradient_accumulation": "two micro-batches and one update equal one large batch",
    "mean_or_sum": "mean or sum over ranks is chosen for each table",
    "resharding": "rows and optimizer's state saved on two ranks are loaded on one",
    "grow": "a table gets more rows in place, the optimizer's state included",
    "several_tables": "two tables of different dimensions take as many collectives as one",
    "deduplicated_ids": "a repeated id travels once",
    "reduced_precision": "rows and gradients of a float32 table travel in 16 bits",
    "replicated_shards": "rows divided over two ranks and replicated twice, with an exact update (four ranks)",
    "prefetch": "ids travel while the batch before is computed",
    "sharded_cross_entropy": "exact softmax and loss over an output table whose rows are divided",
    "logits_in_chunks": "in that loss no rank stores the logits of all tokens",
    "own_tokens": "in that loss each rank has tokens of its own, of its own number",
    "sampled_softmax": "a loss from a sample of the classes",
    "tied_tables": "a divided table serves lookups and the output layer; its gradient is the sum of both",
    "pooled_lookups": "bags of ids, summed (EmbeddingBag)",
    "other_shardings": "tables divided by columns, and tables whole on one rank",
    "automatic_placement": "a planner chooses how each table is divided",
    "unbounded_ids": "ids of any size are mapped to a table of fixed size",
    "fused_optimizer": "backward updates the rows; no gradient of the table is stored",
    "host_memory_cache": "rows live in host memory, and those in use are cached on the GPU",
    "quantised_inference": "8-bit rows for inference",
    "tensor_parallel_layers": "linear layers divided over ranks",
}
FOUR_RANKS = ("replicated_shards",)
