"""Probes of this library."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from common.collectives import collectives, gathered
from dist_s2s import sharded
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import (
    DistributedEmbedding,
    DistributedEmbeddingBag,
    Lookahead,
    SampledSoftmaxLoss,
    VocabParallelCrossEntropy,
    lookup,
)
from dist_s2s.storage.checkpoint import load_training_state, save_checkpoint
from dist_s2s.storage.training_state import TrainingState
from features.catalogue import Answer, whether
from features.output_checks import OutputChecks
from features.probes import PlainTables, one_line, rows
from features.table_checks import IDS, LEARNING_RATE, TableChecks, applied_gradient, both_reductions, train

_OPTIMIZERS = {
    "SGD": sharded.SparseSGD,
    "Adam": sharded.SparseAdam,
    "Adagrad": sharded.SparseAdagrad,
    "RowWiseAdagrad": sharded.RowWiseAdagrad,
}


class Tables(PlainTables):
    """Tables that are looked up together, by collectives: what others use too, and what is counted."""

    def __init__(self, weights: Sequence[Tensor], optimizer: str, **options: Any) -> None:
        if "device_mesh" not in options:
            options["process_group"] = dist.new_group()
        options["transport"] = "collective"
        self.tables = [DistributedEmbedding.from_pretrained(weight, freeze=False, **options) for weight in weights]
        self.optimizer = _OPTIMIZERS[optimizer]([table.weight for table in self.tables], lr=LEARNING_RATE)

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        return lookup(self.tables, ids)

    def whole(self) -> Tensor:
        weight: Tensor = self.tables[0].to_embedding().weight.detach()
        return weight

    def state(self) -> TrainingState:
        """Return what a checkpoint holds, beside a model that does not matter here."""
        model = nn.Linear(1, 1)
        sgd = torch.optim.SGD(model.parameters())
        return TrainingState(model, sgd, {"table": self.tables[0]}, self.optimizer)


class Layer:
    """VocabParallelCrossEntropy of a table without bias."""

    def __init__(self, weight: Tensor) -> None:
        self.lookup = self.table = DistributedEmbedding.from_pretrained(weight, freeze=False)
        self.loss = VocabParallelCrossEntropy(self.table)
        self.backward = Tensor.backward

    def whole_gradient(self) -> Tensor:
        assert self.table.weight.grad is not None
        return gathered(self.table.weight.grad.to_dense())


class System(TableChecks, OutputChecks):
    """DistributedEmbedding and its output layers."""

    distribution = "dist-s2s"
    make_tables, make_layer = Tables, Layer
    package: ClassVar = sharded
    absent: ClassVar = {
        "automatic_placement": "(?i)sharding_?planner",
        "host_memory_cache": "(?i)uvm|unified_?memory|pin_memory",
        "quantised_inference": "(?i)quanti[sz]e|qint8",
        "tensor_parallel_layers": "(?i)parallel_?linear",
    }
    refusals: ClassVar = {"unbounded_ids": IndexError}

    def mean_or_sum(self) -> Answer:
        mean, total = (applied_gradient(self.tables([rows(132)], grad_reduction=each)) for each in ("mean", "sum"))
        return both_reductions(mean, total, "with grad_reduction=sum")

    def pooled_lookups(self) -> Answer:
        found = DistributedEmbeddingBag.from_pretrained(rows(132), mode="sum")(IDS)
        right = torch.allclose(found, rows(132)[IDS].sum(dim=1), atol=1e-5)
        return whether(right, f"a DistributedEmbeddingBag gives sums of shape {tuple(found.shape)}")

    def resharding(self) -> Answer:
        ranks = Ranks(self.rank, self.group.size(), torch.device("cpu"), dist.new_group())
        return self.reshard(
            lambda before: save_checkpoint(Path(), before.state(), 1, {}, ranks),
            lambda after, checkpoint: load_training_state(checkpoint, after.state()),
            "RowWiseAdagrad",
        )

    def grow(self) -> Answer:
        """Grow from 132 to 140 rows; the step after it would go wrong without the optimizer's state."""
        tables, expected = (self.tables([rows(132)], "RowWiseAdagrad") for _ in range(2))
        for both in (tables, expected):
            train(both, IDS)
        tables.tables[0].grow(140, tables.optimizer)
        for both in (tables, expected):
            train(both, IDS)
        grown = tables.whole()
        difference = float((grown[:132] - expected.whole()).abs().max())
        evidence = f"{len(grown)} rows; a step later the old ones differ by at most {difference:.1g}"
        return whether(len(grown) == 140 and difference < 1e-6, evidence)

    def reduced_precision(self) -> Answer:
        return self.less_traffic(comm_dtype=torch.bfloat16)

    def replicated_shards(self) -> Answer:
        mesh = init_device_mesh("cpu", (2, 2))
        if self.tables([rows(132)], device_mesh=mesh).local_rows() != 66:
            return Answer("no", "a rank does not hold half of the rows")
        return self.own_batches([torch.tensor([1, 70, rank]) for rank in range(4)], device_mesh=mesh)

    def prefetch(self) -> Answer:
        """Count the collectives that a step waits for until its rows are there; few ids would travel with the first."""
        whole, ids = rows(40_000), torch.arange(39_999)
        tables = self.tables([whole]).tables
        with collectives() as plain:
            lookup(tables, [ids])
        with collectives() as ahead:
            batch, found = next(iter(Lookahead(tables, [ids, ids + 1], lambda ids: [ids])))
        evidence = f"{len(plain)} collectives until the rows of {len(ids):,} ids are there, {len(ahead)} with Lookahead"
        return whether(torch.equal(found[0], whole[batch]) and len(ahead) < len(plain), evidence)

    def sampled_softmax(self) -> Answer:
        table = DistributedEmbedding.from_pretrained(rows(132), freeze=False)
        loss = SampledSoftmaxLoss(table, num_samples=20)(rows(7), torch.arange(7))
        loss.backward()
        assert table.weight.grad is not None
        touched = table.weight.grad.coalesce().indices().shape[1]
        return whether(touched < 30, f"the gradient of 66 rows on rank {self.rank} has {touched}")

    def other_shardings(self) -> Answer:
        try:
            DistributedEmbedding(132, 4, layout="column_wise")  # type: ignore[arg-type]
        except ValueError as error:
            return Answer("no", one_line(error))
        return Answer("error", "takes column_wise")
