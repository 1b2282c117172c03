"""Probes of this library."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from feature_checks import (
    IDS,
    LEARNING_RATE,
    compare,
    lookup_probes,
    own_batches,
    reduced_precision,
    train,
)
from feature_evidence import (
    Probe,
    become_a_world_of_one,
    collectives,
    gathered,
    installed,
    one_line,
    refusing,
    rows,
    search,
)
from feature_list import Answer, whether
from feature_output_checks import output_probes
from feature_update_checks import applied_gradient, fused_by_hook, update_probes
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from dist_s2s import sharded
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding, Lookahead, SampledSoftmaxLoss, VocabParallelCrossEntropy, lookup
from dist_s2s.storage.checkpoint import TrainingState, load_training_state, save_checkpoint

_OPTIMIZERS = {
    "SGD": sharded.SparseSGD,
    "Adam": sharded.SparseAdam,
    "Adagrad": sharded.SparseAdagrad,
    "RowWiseAdagrad": sharded.RowWiseAdagrad,
}


class Tables:
    """See feature_checks.Table."""

    def __init__(self, weights: Sequence[Tensor], optimizer: str = "SGD", **options: Any) -> None:
        if "device_mesh" not in options:
            options["process_group"] = dist.new_group()
        options["transport"] = "collective"  # what others use too, and what is counted
        self.tables = [DistributedEmbedding.from_pretrained(weight, freeze=False, **options) for weight in weights]
        self.optimizer = _OPTIMIZERS[optimizer]([table.weight for table in self.tables], lr=LEARNING_RATE)

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """See feature_checks.Table."""
        return lookup(self.tables, ids)

    def update(self) -> None:
        """See feature_checks.Table."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def whole(self) -> Tensor:
        """See feature_checks.Table."""
        embedding = self.tables[0].to_embedding()
        assert embedding is not None
        return embedding.weight.detach()

    def local_rows(self) -> int:
        """See feature_checks.Table."""
        return len(self.tables[0].weight)

    def state(self) -> TrainingState:
        """What a checkpoint holds, beside a model that does not matter here."""
        model = nn.Linear(1, 1)
        sgd = torch.optim.SGD(model.parameters())
        return TrainingState(model, sgd, {"table": self.tables[0]}, self.optimizer)


class Layer:
    """See feature_output_checks.OutputLayer."""

    def __init__(self, weight: Tensor) -> None:
        self.lookup = self.table = DistributedEmbedding.from_pretrained(weight, freeze=False)
        self.loss = VocabParallelCrossEntropy(self.table)
        self.backward = Tensor.backward

    def whole_gradient(self) -> Tensor:
        """See feature_output_checks.OutputLayer."""
        assert self.table.weight.grad is not None
        return gathered(self.table.weight.grad.to_dense())


def pip_install(group: dist.ProcessGroup) -> Answer:
    """Whether pip has all it takes."""
    Tables([rows(132)]).lookup(IDS)
    return installed("dist-s2s")


def mean_or_sum(group: dist.ProcessGroup) -> Answer:
    """The argument grad_reduction."""
    mean, total = (applied_gradient(Tables([rows(132)], grad_reduction=each)) for each in ("mean", "sum"))
    right = (round(mean, 4), round(total, 4)) == (2, 4)
    return whether(right, f"2 on each rank becomes {mean:.1f} with mean, {total:.1f} with sum")


def resharding(group: dist.ProcessGroup) -> Answer:
    """Through a checkpoint of training; the step after it would go wrong without the optimizer's state."""
    before = Tables([rows(132)], "RowWiseAdagrad")
    train(before, IDS)
    ranks = Ranks(group.rank(), group.size(), torch.device("cpu"), dist.new_group())
    checkpoint = save_checkpoint(Path(), before.state(), 1, {}, ranks)
    train(before, IDS)
    expected = before.whole()
    become_a_world_of_one()
    after = Tables([torch.zeros(132, 4)], "RowWiseAdagrad")
    load_training_state(checkpoint, after.state())
    train(after, IDS)
    return compare(after, expected, "those of two ranks, a step later,")


def grow(group: dist.ProcessGroup) -> Answer:
    """From 132 to 140 rows; the step after it would go wrong without the optimizer's state."""
    tables, expected = Tables([rows(132)], "RowWiseAdagrad"), Tables([rows(132)], "RowWiseAdagrad")
    for both in (tables, expected):
        train(both, IDS)
    tables.tables[0].grow(140, tables.optimizer)
    for both in (tables, expected):
        train(both, IDS)
    grown = tables.whole()
    difference = float((grown[:132] - expected.whole()).abs().max())
    return whether(
        len(grown) == 140 and difference < 1e-6,
        f"{len(grown)} rows; a step later the old ones differ by at most {difference:.1g}",
    )


def replicated_shards(group: dist.ProcessGroup) -> Answer:
    """A device mesh of 2 × 2."""
    make = partial(Tables, device_mesh=init_device_mesh("cpu", (2, 2)))
    if make([rows(132)]).local_rows() != 66:
        return Answer("no", "a rank does not hold half of the rows")
    return own_batches(make, group, [torch.tensor([1, 70, rank]) for rank in range(4)])


def prefetch(group: dist.ProcessGroup) -> Answer:
    """The collectives that a step waits for until its rows are there."""
    tables = Tables([rows(132)]).tables
    with collectives() as plain:
        lookup(tables, [IDS])
    with collectives() as ahead:
        batch, found = next(iter(Lookahead(tables, [IDS, IDS + 1], lambda ids: [ids])))
    return whether(
        torch.equal(found[0], rows(132)[batch]) and len(ahead) < len(plain),
        f"{len(plain)} collectives to wait for until rows are there, {len(ahead)} with Lookahead",
    )


def sampled_softmax(group: dist.ProcessGroup) -> Answer:
    """20 candidates of 132 classes."""
    table = DistributedEmbedding.from_pretrained(rows(132), freeze=False)
    loss = SampledSoftmaxLoss(table, num_samples=20)(rows(7), torch.arange(7))
    loss.backward()
    assert table.weight.grad is not None
    touched = table.weight.grad.coalesce().indices().shape[1]
    return whether(touched < 30, f"the gradient of 66 rows on rank {group.rank()} has {touched}")


def other_shardings(group: dist.ProcessGroup) -> Answer:
    """The argument layout."""
    try:
        DistributedEmbedding(132, 4, layout="column_wise")  # type: ignore[arg-type]
    except ValueError as error:
        return Answer("no", one_line(error))
    return Answer("error", "takes column_wise")


def fused_optimizer(group: dist.ProcessGroup) -> Answer:
    """By PyTorch's hook."""
    tables = Tables([rows(132)])
    return fused_by_hook(tables, tables.tables[0].weight)


def _without(pattern: str) -> Probe:
    return lambda group: search(sharded, pattern)


PROBES = refusing(
    {
        **lookup_probes(Tables),
        **update_probes(Tables),
        **output_probes(Layer),
        "pip_install": pip_install,
        "mean_or_sum": mean_or_sum,
        "resharding": resharding,
        "grow": grow,
        "reduced_precision": partial(reduced_precision, Tables, partial(Tables, comm_dtype=torch.bfloat16)),
        "replicated_shards": replicated_shards,
        "prefetch": prefetch,
        "sampled_softmax": sampled_softmax,
        "pooled_lookups": _without(r"class \w*Bag|per_sample_weights"),
        "other_shardings": other_shardings,
        "automatic_placement": _without("(?i)planner"),
        "fused_optimizer": fused_optimizer,
        "host_memory_cache": _without("(?i)uvm|unified_?memory|pin_memory"),
        "quantised_inference": _without("(?i)quanti[sz]e|qint8"),
        "tensor_parallel_layers": _without("(?i)parallel_?linear"),
    },
    {"unbounded_ids": IndexError},
)
