"""Probes of Megatron-Core's tensor parallelism: VocabParallelEmbedding and what belongs to it."""

# mypy: disable-error-code="import-not-found"

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import megatron.core
import torch
import torch.distributed as dist
from megatron.core import ModelParallelConfig, dist_checkpointing, parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    vocab_parallel_cross_entropy,
)
from megatron.core.transformer import TransformerConfig
from torch import Tensor, nn

from features import lookup_checks as feature_checks
from features.catalogue import Answer, whether
from features.evidence import Probe, collectives, gathered, installed, own_methods, refusing, rows, search
from features.lookup_checks import IDS, LEARNING_RATE, lookup_probes
from features.output_checks import output_probes
from features.update_checks import fused_by_hook, update_probes


class Tables:
    """See feature_checks.Table. Its design has the same ids on every rank of a tensor-parallel group."""

    def __init__(self, weights: Sequence[Tensor], optimizer: str = "SGD", **options: Any) -> None:
        self.tables = [_embedding(weight, **options) for weight in weights]
        # torch.optim's SparseAdam, as the one Adam that changes only rows in use.
        name = "SparseAdam" if optimizer == "Adam" else optimizer
        if not hasattr(torch.optim, name) and not hasattr(megatron.core.optimizer, name):
            raise ValueError(f"neither megatron.core.optimizer nor torch.optim has a {name}")
        parameters = [table.weight for table in self.tables]
        self.optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(parameters, lr=LEARNING_RATE)

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """See feature_checks.Table."""
        return [table(mine) for table, mine in zip(self.tables, ids, strict=True)]

    def update(self) -> None:
        """See feature_checks.Table."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def whole(self) -> Tensor:
        """See feature_checks.Table."""
        return gathered(self.tables[0].weight)

    def local_rows(self) -> int:
        """See feature_checks.Table."""
        return len(self.tables[0].weight)


class Layer:
    """See feature_output_checks.OutputLayer. The layer gets the embedding's weight, as in a GPTModel that ties them."""

    def __init__(self, weight: Tensor) -> None:
        self.lookup = self.embedding = _embedding(weight)
        self.linear = ColumnParallelLinear(
            weight.shape[1],
            weight.shape[0],
            config=_config(),
            init_method=nn.init.zeros_,
            bias=False,
            skip_weight_param_allocation=True,
        )
        self.backward = Tensor.backward

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """See feature_output_checks.OutputLayer."""
        logits, _ = self.linear(hidden, weight=self.embedding.weight)
        losses: Tensor = vocab_parallel_cross_entropy(logits, target)
        return losses.mean()

    def whole_gradient(self) -> Tensor:
        """See feature_output_checks.OutputLayer."""
        return gathered(self.embedding.weight.grad)


def pip_install(group: dist.ProcessGroup) -> Answer:
    """Whether pip has all it takes."""
    Tables([rows(132)]).lookup(IDS)
    return installed("megatron-core")


def resharding(group: dist.ProcessGroup) -> Answer:
    """By dist_checkpointing."""
    Path("checkpoint").mkdir(exist_ok=True)
    state = _embedding(rows(132)).sharded_state_dict(metadata={"dp_cp_group": parallel_state.get_data_parallel_group()})
    dist_checkpointing.save(state, str(Path("checkpoint").absolute()))
    return Answer("error", "dist_checkpointing runs on a CPU")


def data_parallel(group: dist.ProcessGroup) -> Answer:
    """Megatron's DistributedDataParallel, which reduces gradients over replicas of a shard."""
    config = TransformerConfig(num_layers=1, hidden_size=4, num_attention_heads=1, use_cpu_initialization=True)
    DistributedDataParallel(config, DistributedDataParallelConfig(), _embedding(rows(132)))
    return Answer("error", "DistributedDataParallel runs on a CPU")


def tensor_parallel_layers(group: dist.ProcessGroup) -> Answer:
    """Two linear layers, the first divided by columns, the second by rows."""
    _start()
    options: dict[str, Any] = {"config": _config(), "init_method": nn.init.ones_, "bias": False}
    first = ColumnParallelLinear(4, 8, gather_output=False, **options)
    second = RowParallelLinear(8, 4, input_is_parallel=True, skip_bias_add=False, **options)
    found = second(first(rows(7))[0])[0]
    expected = rows(7) @ torch.ones(4, 8) @ torch.ones(8, 4)
    difference = float((found - expected).abs().max())
    evidence = f"ColumnParallelLinear and RowParallelLinear differ from one process by at most {difference:.1g}"
    return whether(difference < 1e-4, evidence)


def other_shardings(group: dist.ProcessGroup) -> Answer:
    """The one division that there is."""
    table = _embedding(rows(132))
    held = f"rank {group.rank()} holds rows {table.vocab_start_index} to {table.vocab_end_index}"
    return Answer("no", f"{own_methods(VocabParallelEmbedding).evidence}; {held}")


def bad_id_raises(group: dist.ProcessGroup) -> Answer:
    """Both ranks ask for row 132 of 132, since their ids must be the same."""
    return feature_checks.bad_id_raises(Tables, group, culprits=(0, 1))


def reduced_precision(group: dist.ProcessGroup) -> Answer:
    """What a lookup takes; there is no argument for less."""
    table = Tables([rows(132, 256)])
    with collectives() as sizes:
        table.lookup(IDS)
    return whether(sum(sizes) < 6 * 256 * 4, f"{sum(sizes):,} bytes travel for 6 rows of 256 float32 numbers")


def fused_optimizer(group: dist.ProcessGroup) -> Answer:
    """By PyTorch's hook."""
    tables = Tables([rows(132)])
    return fused_by_hook(tables, tables.tables[0].weight)


def prefetch(group: dist.ProcessGroup) -> Answer:
    """Ids are on every rank."""
    return Answer("n/a", f"every rank has all ids: rank {group.rank()} masks those of other ranks")


def _start() -> None:
    if not parallel_state.is_initialized():
        parallel_state.initialize_model_parallel(tensor_model_parallel_size=2)


def _config() -> ModelParallelConfig:
    return ModelParallelConfig(tensor_model_parallel_size=2, use_cpu_initialization=True, params_dtype=torch.float32)


def _embedding(weight: Tensor, **options: Any) -> VocabParallelEmbedding:
    _start()
    table = VocabParallelEmbedding(*weight.shape, init_method=nn.init.zeros_, config=_config(), **options)
    table.weight.data.copy_(weight[table.vocab_start_index : table.vocab_end_index])
    return table


def _without(pattern: str) -> Probe:
    return lambda group: search(megatron.core, pattern)


PROBES = refusing(
    {
        **lookup_probes(Tables),
        **update_probes(Tables),
        **output_probes(Layer),
        "pip_install": pip_install,
        "bad_id_raises": bad_id_raises,
        "mean_or_sum": data_parallel,
        "resharding": resharding,
        "grow": lambda group: own_methods(VocabParallelEmbedding),
        "reduced_precision": reduced_precision,
        "replicated_shards": data_parallel,
        "prefetch": prefetch,
        "sampled_softmax": _without("(?i)sampled_?softmax"),
        "pooled_lookups": _without("(?i)embedding_?bag"),
        "other_shardings": other_shardings,
        "automatic_placement": _without("(?i)sharding_?planner"),
        "fused_optimizer": fused_optimizer,
        "host_memory_cache": _without("(?i)uvm_?cach"),
        "quantised_inference": _without("(?i)quanti[sz]ed_?embedding"),
        "tensor_parallel_layers": tensor_parallel_layers,
    },
    {
        "any_vocabulary_size": AssertionError,
        "uneven_batches": RuntimeError,
        "empty_batch": RuntimeError,
        "own_tokens": RuntimeError,
        "padding_idx": TypeError,
        "max_norm": TypeError,
        "scale_grad_by_freq": TypeError,
        "sparse_adam": RuntimeError,
        "row_wise_adagrad": ValueError,
    },
)
