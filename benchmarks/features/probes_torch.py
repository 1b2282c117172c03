"""Probes of nn.Embedding inside DistributedDataParallel, and of what else PyTorch itself has for tables."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from features.catalogue import Answer, whether
from features.evidence import Probe, become_a_world_of_one, installed, own_methods, refusing, rows, search
from features.lookup_checks import IDS, LEARNING_RATE, compare, lookup_probes, train
from features.output_checks import output_probes
from features.update_checks import applied_gradient, fused_by_hook, update_probes


class Tables:
    """See feature_checks.Table."""

    def __init__(
        self, weights: Sequence[Tensor], optimizer: str = "SGD", replicate: bool = True, **options: Any
    ) -> None:
        options["sparse"] = not options.get("scale_grad_by_freq")  # PyTorch has this for dense gradients alone
        self.tables = [nn.Embedding.from_pretrained(weight.clone(), freeze=False, **options) for weight in weights]
        self.replicas: list[Any] = [DistributedDataParallel(each) if replicate else each for each in self.tables]
        name = "SparseAdam" if optimizer == "Adam" else optimizer
        if not hasattr(torch.optim, name):
            raise ValueError(f"torch.optim has no {name}")
        parameters = [table.weight for table in self.tables]
        self.optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(parameters, lr=LEARNING_RATE)

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """See feature_checks.Table."""
        return [replica(mine) for replica, mine in zip(self.replicas, ids, strict=True)]

    def update(self) -> None:
        """See feature_checks.Table."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def whole(self) -> Tensor:
        """See feature_checks.Table."""
        weight: Tensor = self.tables[0].weight.detach()
        return weight

    def local_rows(self) -> int:
        """See feature_checks.Table."""
        return len(self.tables[0].weight)


class Layer:
    """See feature_output_checks.OutputLayer. A DTensor, as PyTorch's tensor parallelism makes it."""

    def __init__(self, weight: Tensor) -> None:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight = nn.Parameter(weight)
        self.linear = parallelize_module(linear, _mesh(), ColwiseParallel(use_local_output=False))
        self.weight: Any = self.linear.weight

    def lookup(self, ids: Tensor) -> Tensor:
        """See feature_output_checks.OutputLayer."""
        return F.embedding(ids, self.weight)

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """See feature_output_checks.OutputLayer."""
        with loss_parallel():
            loss: Tensor = F.cross_entropy(self.linear(hidden), target)
        return loss

    def backward(self, loss: Tensor) -> None:
        """See feature_output_checks.OutputLayer."""
        with loss_parallel():
            loss.backward()

    def whole_gradient(self) -> Tensor:
        """See feature_output_checks.OutputLayer."""
        return _whole(self.weight.grad)


def pip_install(group: dist.ProcessGroup) -> Answer:
    """Whether pip has all it takes."""
    Tables([rows(132)]).lookup(IDS)
    return installed("torch")


def rows_divided(group: dist.ProcessGroup) -> Answer:
    """By itself it is whole; PyTorch's tensor parallelism divides it, for ids that are the same on every rank."""
    held = Tables([rows(132)]).local_rows()
    table = parallelize_module(_embedding(), _mesh(), RowwiseParallel(input_layouts=Replicate()))
    found = _whole(table(IDS))
    found.sum().backward()
    assert isinstance(table.weight, DTensor)
    local = table.weight.to_local()
    right = torch.equal(found, rows(132)[IDS]) and len(local) == 66
    evidence = f"a rank holds {held} of 132 rows; with RowwiseParallel {len(local)}, and a dense gradient"
    return whether(right, evidence, "partly")


def mean_or_sum(group: dist.ProcessGroup) -> Answer:
    """DistributedDataParallel's mean, and its communication hook."""

    usual, hooked = Tables([rows(132)]), Tables([rows(132)])
    hooked.replicas[0].register_comm_hook(
        None,
        lambda _, bucket: (
            dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])
        ),
    )
    mean, total = applied_gradient(usual), applied_gradient(hooked)
    evidence = f"2 on each rank becomes {mean:.1f}, and with a hook of one's own {total:.1f}"
    return whether((round(mean, 4), round(total, 4)) == (2, 4), evidence, "partly")


def resharding(group: dist.ProcessGroup) -> Answer:
    """By state_dict, which holds all rows on every rank."""
    before = Tables([rows(132)], "Adagrad")
    train(before, IDS)
    table, optimizer = copy.deepcopy((before.tables[0].state_dict(), before.optimizer.state_dict()))
    train(before, IDS)
    become_a_world_of_one()
    after = Tables([torch.zeros(132, 4)], "Adagrad")
    after.tables[0].load_state_dict(table)
    after.optimizer.load_state_dict(optimizer)
    train(after, IDS)
    return compare(after, before.whole(), "those of two ranks, a step later,")


def tied_tables(group: dist.ProcessGroup) -> Answer:
    """A whole table, in both uses."""
    embedding = _embedding()
    F.linear(embedding(IDS), embedding.weight).sum().backward()
    held = len(embedding.weight)
    evidence = f"F.linear takes embedding.weight, but a rank holds {held} of 132 rows"
    return whether(embedding.weight.grad is not None, evidence, "partly")


def pooled_lookups(group: dist.ProcessGroup) -> Answer:
    """nn.EmbeddingBag."""
    found = nn.EmbeddingBag.from_pretrained(rows(132), mode="sum")(IDS)
    right = torch.allclose(found, rows(132)[IDS].sum(dim=1))
    return whether(right, f"nn.EmbeddingBag gives sums of shape {tuple(found.shape)}")


def other_shardings(group: dist.ProcessGroup) -> Answer:
    """PyTorch's tensor parallelism."""
    table = parallelize_module(_embedding(), _mesh(), ColwiseParallel(output_layouts=Replicate()))
    right = torch.equal(_whole(table(IDS)), rows(132)[IDS])
    assert isinstance(table.weight, DTensor)
    shape = tuple(table.weight.to_local().shape)
    return whether(right, f"with ColwiseParallel a rank holds {shape}; a whole table on one rank: none", "partly")


def fused_optimizer(group: dist.ProcessGroup) -> Answer:
    """By PyTorch's hook, which DistributedDataParallel does not allow for sparse gradients."""
    tables = Tables([rows(132)], replicate=False)
    answer = fused_by_hook(tables, tables.tables[0].weight)
    return Answer(answer.verdict, f"without DistributedDataParallel, {answer.evidence}")


def quantised_inference(group: dist.ProcessGroup) -> Answer:
    """torch.ao."""
    scale = rows(132).abs().amax(dim=1) / 127
    weight = torch.quantize_per_channel(rows(132), scale, torch.full((132,), 128.0), 0, torch.quint8)
    table = torch.ao.nn.quantized.Embedding(132, 4)
    table.set_weight(weight)
    difference = (table(IDS) - rows(132)[IDS]).abs().max()
    return whether(difference < 0.05, f"torch.ao.nn.quantized.Embedding is right to {difference:.3f}")


def tensor_parallel_layers(group: dist.ProcessGroup) -> Answer:
    """Two linear layers, the first divided by columns, the second by rows."""
    layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    expected = layers(rows(7))
    plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
    difference = (_whole(parallelize_module(layers, _mesh(), plan)(rows(7))) - expected).abs().max()
    return whether(
        difference < 1e-5, f"ColwiseParallel and RowwiseParallel differ from one process by at most {difference:.1g}"
    )


def _embedding() -> nn.Embedding:
    embedding: nn.Embedding = nn.Embedding.from_pretrained(rows(132), freeze=False)
    return embedding


def _mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (2,))


def _whole(tensor: Any) -> Tensor:
    whole: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole


def _replicated(group: dist.ProcessGroup) -> Answer:
    return Answer("n/a", f"each rank holds {Tables([rows(132)]).local_rows()} of 132 rows: nothing of a lookup travels")


def _without(pattern: str) -> Probe:
    return lambda group: search(nn, pattern)


PROBES = refusing(
    {
        **lookup_probes(Tables),
        **update_probes(Tables),
        **output_probes(Layer),
        "pip_install": pip_install,
        "rows_divided": rows_divided,
        "mean_or_sum": mean_or_sum,
        "resharding": resharding,
        "grow": lambda group: own_methods(nn.Embedding),
        "reduced_precision": _replicated,
        "replicated_shards": _replicated,
        "prefetch": _replicated,
        "sampled_softmax": _without("(?i)sampled_?softmax"),
        "tied_tables": tied_tables,
        "pooled_lookups": pooled_lookups,
        "other_shardings": other_shardings,
        "automatic_placement": _without("(?i)planner"),
        "fused_optimizer": fused_optimizer,
        "host_memory_cache": _without("(?i)uvm|unified_?memory"),
        "quantised_inference": quantised_inference,
        "tensor_parallel_layers": tensor_parallel_layers,
    },
    {"row_wise_adagrad": ValueError, "unbounded_ids": IndexError, "own_tokens": RuntimeError},
)
