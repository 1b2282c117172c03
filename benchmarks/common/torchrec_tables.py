"""TorchRec's tables with one interface for both benchmarks; see features.probes.Tables."""

# mypy: disable-error-code="import-not-found"

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    KeyedJaggedTensor,
)
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import ShardingEnv

from common.collectives import gathered

LEARNING_RATE = 0.1
_META = torch.device("meta")
_OPTIMIZERS = {
    "SGD": EmbOptimType.EXACT_SGD,
    "Adam": EmbOptimType.ADAM,
    "Adagrad": EmbOptimType.EXACT_ADAGRAD,
    "RowWiseAdagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
}


class Tables:
    """An EmbeddingCollection, by default with fused kernels, for which backward is the update.

    Args:
        weights: The rows of each table, [V, D], the same on every rank.
        optimizer: SGD, Adam, Adagrad or RowWiseAdagrad.
        kernel: TorchRec's compute kernel.
        sharding: How a table is divided, of torchrec.distributed.sharding_plan.
        fused: More arguments of the kernel.
        sharder: More arguments of the sharder.
        device: The type of device that rows are on; on CUDA they travel by nccl.
        sample_if_empty: Makes a batch without ids one sample that has none.
        options: More arguments of EmbeddingConfig.
    """

    Collection: Any = EmbeddingCollection
    Config: Any = EmbeddingConfig
    Sharder: Any = EmbeddingCollectionSharder
    name = "embeddings"

    def __init__(
        self,
        weights: Sequence[Tensor],
        optimizer: str = "SGD",
        *,
        kernel: str = "fused",
        sharding: Callable[..., Any] = row_wise,
        fused: dict[str, Any] | None = None,
        sharder: dict[str, Any] | None = None,
        device: str = "cpu",
        sample_if_empty: bool = False,
        **options: Any,
    ) -> None:
        self.sample_if_empty, self.dims = sample_if_empty, [weight.shape[1] for weight in weights]
        configs = [table_config(number, weight, self.Config, **options) for number, weight in enumerate(weights)]
        collection = self.Collection(tables=configs, device=_META)
        kernel_options = {"optimizer": _OPTIMIZERS[optimizer], "learning_rate": LEARNING_RATE, "eps": 1e-10}
        own = self.Sharder(fused_params=kernel_options | (fused or {}), **(sharder or {}))
        ranks = dist.get_world_size()
        kinds = {config.name: sharding(compute_kernel=kernel) for config in configs}
        plan = construct_module_sharding_plan(collection, kinds, own, ranks, ranks, device)
        group = dist.group.WORLD if device == "cpu" else dist.new_group(backend="nccl")
        assert group is not None
        where = torch.device(device, 0) if device == "cuda" else torch.device(device)
        self.module = own.shard(collection, plan, ShardingEnv.from_process_group(group), where)
        for number, weight in enumerate(weights):
            for shard in self.shards(number):
                ends = zip(shard.metadata.shard_offsets, shard.metadata.shard_sizes, strict=True)
                part = weight[tuple(slice(start, start + size) for start, size in ends)]
                shard.tensor.detach().copy_(part)
        self.dense = None
        if kernel == "dense":
            self.dense = getattr(torch.optim, optimizer)(self.module.parameters(), LEARNING_RATE)

    def shards(self, number: int = 0) -> Any:
        """Return this rank's shards of a table."""
        return self.module.state_dict()[f"{self.name}.t{number}.weight"].local_shards()

    def state(self) -> dict[str, Any]:
        """Return what torch.distributed.checkpoint saves and loads."""
        return {"module": self.module.state_dict(), "optimizer": self.module.fused_optimizer.state_dict()}

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """Return the rows of each table's ids (collective)."""
        found = self.module(jagged(ids, sample_if_empty=self.sample_if_empty)).wait()
        return [found[f"f{number}"].values().view(*mine.shape, self.dims[number]) for number, mine in enumerate(ids)]

    def update(self) -> None:
        """Step a dense kernel's optimizer; a fused one has updated in backward."""
        if self.dense is not None:
            self.dense.step()
            self.dense.zero_grad()

    def whole(self) -> Tensor:
        """Return all rows of the first table (collective)."""
        return gathered(self.shards()[0].tensor)

    def local_rows(self) -> int:
        """Return how many rows of the first table this rank holds."""
        return sum(len(shard.tensor) for shard in self.shards())


class Bags(Tables):
    """An EmbeddingBagCollection, in which each id is a bag of its own."""

    Collection = EmbeddingBagCollection
    Config = EmbeddingBagConfig
    Sharder = EmbeddingBagCollectionSharder
    name = "embedding_bags"

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """Return the rows of each table's ids (collective)."""
        found = self.module(jagged(ids)).wait().to_dict()
        return [found[f"f{number}"].view(*mine.shape, self.dims[number]) for number, mine in enumerate(ids)]


def table_config(number: int, weight: Tensor, kind: Any = EmbeddingConfig, **options: Any) -> Any:
    """Describe the table with this number and of this weight's size."""
    size = {"num_embeddings": weight.shape[0], "embedding_dim": weight.shape[1]}
    return kind(name=f"t{number}", feature_names=[f"f{number}"], **size, **options)


def jagged(ids: Sequence[Tensor], bag: int = 1, sample_if_empty: bool = False) -> KeyedJaggedTensor:
    """Return samples of ``bag`` ids each, for every table."""
    lengths = [torch.full((mine.numel() // bag,), bag, device=mine.device) for mine in ids]
    if sample_if_empty:
        lengths = [mine if len(mine) else torch.zeros(1, dtype=torch.int64) for mine in lengths]
    keys = [f"f{number}" for number in range(len(ids))]
    values = torch.cat([mine.flatten() for mine in ids])
    return KeyedJaggedTensor.from_lengths_sync(keys=keys, values=values, lengths=torch.cat(lengths))


def undivided(device: str = "meta") -> Any:
    """Return an EmbeddingCollection of 132 rows of 4 numbers."""
    return EmbeddingCollection(tables=[table_config(0, torch.empty(132, 4))], device=torch.device(device))
