"""Probes of Megatron-Core's tensor parallelism: VocabParallelEmbedding and what belongs to it."""

# mypy: disable-error-code="import-not-found"

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import megatron.core
import torch
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

from common.collectives import collectives, gathered
from features.catalogue import Answer, whether
from features.output_checks import OutputChecks
from features.probes import PlainTables, own_methods, rows
from features.table_checks import IDS, LEARNING_RATE, TableChecks


class Tables(PlainTables):
    """Tables whose design has the same ids on every rank of a tensor-parallel group."""

    def __init__(self, weights: Sequence[Tensor], optimizer: str, **options: Any) -> None:
        self.tables = [_embedding(weight, **options) for weight in weights]
        # torch.optim's SparseAdam, as the one Adam that changes only rows in use.
        name = "SparseAdam" if optimizer == "Adam" else optimizer
        if not hasattr(torch.optim, name) and not hasattr(megatron.core.optimizer, name):
            raise ValueError(f"neither megatron.core.optimizer nor torch.optim has a {name}")
        self.optimizer = getattr(torch.optim, name)([table.weight for table in self.tables], lr=LEARNING_RATE)

    def whole(self) -> Tensor:
        return gathered(self.tables[0].weight)


class Layer:
    """A layer that gets the embedding's weight, as in a GPTModel that ties them; see output_checks.OutputLayer."""

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
        logits, _ = self.linear(hidden, weight=self.embedding.weight)
        losses: Tensor = vocab_parallel_cross_entropy(logits, target)
        return losses.mean()

    def whole_gradient(self) -> Tensor:
        return gathered(self.embedding.weight.grad)


class System(TableChecks, OutputChecks):
    """A tensor-parallel group of all ranks."""

    distribution = "megatron-core"
    make_tables, make_layer = Tables, Layer
    package: ClassVar = megatron.core
    absent: ClassVar = {
        "sampled_softmax": "(?i)sampled_?softmax",
        "pooled_lookups": "(?i)embedding_?bag",
        "automatic_placement": "(?i)sharding_?planner",
        "host_memory_cache": "(?i)uvm_?cach",
        "quantised_inference": "(?i)quanti[sz]ed_?embedding",
    }
    refusals: ClassVar = {
        "any_vocabulary_size": AssertionError,
        **dict.fromkeys(("uneven_batches", "empty_batch", "own_tokens", "sparse_adam"), RuntimeError),
        **dict.fromkeys(("padding_idx", "max_norm", "scale_grad_by_freq"), TypeError),
        "row_wise_adagrad": ValueError,
    }

    def resharding(self) -> Answer:
        Path("checkpoint").mkdir(exist_ok=True)
        _start()
        data_parallel = {"dp_cp_group": parallel_state.get_data_parallel_group()}
        state = _embedding(rows(132)).sharded_state_dict(metadata=data_parallel)
        dist_checkpointing.save(state, str(Path("checkpoint").absolute()))
        return Answer("error", "dist_checkpointing runs on a CPU")

    def replicated_shards(self) -> Answer:
        """Use Megatron's DistributedDataParallel, which reduces gradients over replicas of a shard."""
        config = TransformerConfig(num_layers=1, hidden_size=4, num_attention_heads=1, use_cpu_initialization=True)
        DistributedDataParallel(config, DistributedDataParallelConfig(), _embedding(rows(132)))
        return Answer("error", "DistributedDataParallel runs on a CPU")

    mean_or_sum = replicated_shards

    def tensor_parallel_layers(self) -> Answer:
        """Divide two linear layers, the first by columns, the second by rows."""
        _start()
        options: dict[str, Any] = {"config": _config(), "init_method": nn.init.ones_, "bias": False}
        first = ColumnParallelLinear(4, 8, gather_output=False, **options)
        second = RowParallelLinear(8, 4, input_is_parallel=True, skip_bias_add=False, **options)
        found = second(first(rows(7))[0])[0]
        expected = rows(7) @ torch.ones(4, 8) @ torch.ones(8, 4)
        difference = float((found - expected).abs().max())
        evidence = f"ColumnParallelLinear and RowParallelLinear differ from one process by at most {difference:.1g}"
        return whether(difference < 1e-4, evidence)

    def grow(self) -> Answer:
        return own_methods(VocabParallelEmbedding)

    def other_shardings(self) -> Answer:
        table = _embedding(rows(132))
        held = f"rank {self.rank} holds rows {table.vocab_start_index} to {table.vocab_end_index}"
        return Answer("no", f"{self.grow().evidence}; {held}")

    def bad_id_raises(self, culprits: Sequence[int] = (0, 1), **options: Any) -> Answer:
        """Ask for row 132 of 132 on both ranks, since their ids must be the same."""
        return super().bad_id_raises(culprits, **options)

    def reduced_precision(self) -> Answer:
        """Count what a lookup takes; there is no argument for less."""
        table = self.tables([rows(132, 256)])
        with collectives() as sizes:
            table.lookup(IDS)
        return whether(sum(sizes) < 6 * 256 * 4, f"{sum(sizes):,} bytes travel for 6 rows of 256 float32 numbers")

    def prefetch(self) -> Answer:
        """Find ids on every rank."""
        return Answer("n/a", f"every rank has all ids: rank {self.rank} masks those of other ranks")


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
