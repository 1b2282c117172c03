"""Probes of nn.Embedding inside DistributedDataParallel, and of what else PyTorch itself has for tables."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from common.devices import MIB, peak
from features.catalogue import Answer, whether
from features.output_checks import OutputChecks
from features.probes import PlainTables, own_methods, rows
from features.table_checks import IDS, LEARNING_RATE, TableChecks, applied_gradient, both_reductions


class Tables(PlainTables):
    """Tables of nn.Embedding, each inside DistributedDataParallel unless told otherwise."""

    def __init__(self, weights: Sequence[Tensor], optimizer: str, replicate: bool = True, **options: Any) -> None:
        options["sparse"] = not options.get("scale_grad_by_freq")  # PyTorch has this for dense gradients alone
        self.whole_tables = [nn.Embedding.from_pretrained(each.clone(), freeze=False, **options) for each in weights]
        self.tables = [DistributedDataParallel(each) if replicate else each for each in self.whole_tables]
        name = "SparseAdam" if optimizer == "Adam" else optimizer
        if not hasattr(torch.optim, name):
            raise ValueError(f"torch.optim has no {name}")
        parameters = [table.weight for table in self.whole_tables]
        self.optimizer = getattr(torch.optim, name)(parameters, lr=LEARNING_RATE)

    def whole(self) -> Tensor:
        weight: Tensor = self.whole_tables[0].weight.detach()
        return weight

    def local_rows(self) -> int:
        return len(self.whole())


class Layer:
    """An output layer as PyTorch's tensor parallelism makes it; see output_checks.OutputLayer."""

    def __init__(self, weight: Tensor) -> None:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight = nn.Parameter(weight)
        self.linear = parallelize_module(linear, _mesh(), ColwiseParallel(use_local_output=False))
        self.weight: Any = self.linear.weight

    def lookup(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        with loss_parallel():
            loss: Tensor = F.cross_entropy(self.linear(hidden), target)
        return loss

    def backward(self, loss: Tensor) -> None:
        with loss_parallel():
            loss.backward()

    def whole_gradient(self) -> Tensor:
        return _whole(self.weight.grad)


class System(TableChecks, OutputChecks):
    """Each rank holds the whole table; what PyTorch's tensor parallelism does beside it counts as partly."""

    distribution = "torch"
    make_tables, make_layer = Tables, Layer
    package: ClassVar = nn
    absent: ClassVar = {
        "sampled_softmax": "(?i)sampled_?softmax",
        "automatic_placement": "(?i)planner",
        "host_memory_cache": "(?i)uvm|unified_?memory",
    }
    refusals: ClassVar = {
        "row_wise_adagrad": ValueError,
        "unbounded_ids": IndexError,
        "own_tokens": RuntimeError,
    }

    def rows_divided(self) -> Answer:
        """Hold a whole table, or divide it by tensor parallelism, for ids that are the same on every rank."""
        held = self.tables([rows(132)]).local_rows()
        table = parallelize_module(_embedding(), _mesh(), RowwiseParallel(input_layouts=Replicate()))
        found = _whole(table(IDS))
        found.sum().backward()
        assert isinstance(table.weight, DTensor)
        local = table.weight.to_local()
        right = torch.equal(found, rows(132)[IDS]) and len(local) == 66
        evidence = f"a rank holds {held} of 132 rows; with RowwiseParallel {len(local)}, and a dense gradient"
        return whether(right, evidence, "partly")

    def mean_or_sum(self) -> Answer:
        usual, hooked = self.tables([rows(132)]), self.tables([rows(132)])
        hooked.tables[0].register_comm_hook(
            None,
            lambda _, bucket: (
                dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])
            ),
        )
        return both_reductions(
            applied_gradient(usual), applied_gradient(hooked), "with a communication hook of one's own", "partly"
        )

    def resharding(self) -> Answer:
        """Save and load state_dict, which holds all rows on every rank."""

        def save(before: Tables) -> Any:
            return copy.deepcopy((before.whole_tables[0].state_dict(), before.optimizer.state_dict()))

        def load(after: Tables, saved: Any) -> None:
            after.whole_tables[0].load_state_dict(saved[0])
            after.optimizer.load_state_dict(saved[1])

        return self.reshard(save, load, "Adagrad")

    def logits_in_chunks(self) -> Answer:
        """Measure F.linear_cross_entropy of a whole table, new in torch 2.13; and tensor parallelism."""
        if not hasattr(F, "linear_cross_entropy"):
            return super().logits_in_chunks()
        tokens, classes = 16_384, 2000
        hidden, weight, before = rows(tokens).requires_grad_(), rows(classes).requires_grad_(), peak()
        options = nn.LinearCrossEntropyOptions()
        F.linear_cross_entropy(hidden, weight, torch.arange(tokens) % classes, options=options).backward()
        taken, logits = (peak() - before) / MIB, 4 * tokens * classes / MIB
        evidence = f"F.linear_cross_entropy of a whole table takes {taken:.0f} MiB, where logits would be {logits:.0f}"
        divided = super().logits_in_chunks()
        if divided.verdict == "yes":
            return divided
        return whether(taken < logits / 2, f"{evidence}; in a divided one {divided.evidence}", "partly")

    def tied_tables(self) -> Answer:
        embedding = _embedding()
        F.linear(embedding(IDS), embedding.weight).sum().backward()
        held = len(embedding.weight)
        evidence = f"F.linear takes embedding.weight, but a rank holds {held} of 132 rows"
        return whether(embedding.weight.grad is not None, evidence, "partly")

    def pooled_lookups(self) -> Answer:
        found = nn.EmbeddingBag.from_pretrained(rows(132), mode="sum")(IDS)
        right = torch.allclose(found, rows(132)[IDS].sum(dim=1))
        return whether(right, f"nn.EmbeddingBag gives sums of shape {tuple(found.shape)}")

    def other_shardings(self) -> Answer:
        table = parallelize_module(_embedding(), _mesh(), ColwiseParallel(output_layouts=Replicate()))
        right = torch.equal(_whole(table(IDS)), rows(132)[IDS])
        assert isinstance(table.weight, DTensor)
        shape = tuple(table.weight.to_local().shape)
        return whether(right, f"with ColwiseParallel a rank holds {shape}; a whole table on one rank: none", "partly")

    def fused_optimizer(self, **options: Any) -> Answer:
        """Use PyTorch's hook, which DistributedDataParallel does not allow for sparse gradients."""
        answer = super().fused_optimizer(replicate=False)
        return Answer(answer.verdict, f"without DistributedDataParallel, {answer.evidence}")

    def quantised_inference(self) -> Answer:
        scale = rows(132).abs().amax(dim=1) / 127
        weight = torch.quantize_per_channel(rows(132), scale, torch.full((132,), 128.0), 0, torch.quint8)
        table = torch.ao.nn.quantized.Embedding(132, 4)
        table.set_weight(weight)
        difference = (table(IDS) - rows(132)[IDS]).abs().max()
        return whether(difference < 0.05, f"torch.ao.nn.quantized.Embedding is right to {difference:.3f}")

    def tensor_parallel_layers(self) -> Answer:
        """Divide two linear layers, the first by columns, the second by rows."""
        layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
        expected = layers(rows(7))
        plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
        difference = (_whole(parallelize_module(layers, _mesh(), plan)(rows(7))) - expected).abs().max()
        evidence = f"ColwiseParallel and RowwiseParallel differ from one process by at most {difference:.1g}"
        return whether(difference < 1e-5, evidence)

    def grow(self) -> Answer:
        return own_methods(nn.Embedding)

    def reduced_precision(self) -> Answer:
        """Find nothing of a lookup that travels, as for replicated_shards and prefetch."""
        held = self.tables([rows(132)]).local_rows()
        return Answer("n/a", f"each rank holds {held} of 132 rows: nothing of a lookup travels")

    replicated_shards = prefetch = reduced_precision


def _embedding() -> nn.Embedding:
    embedding: nn.Embedding = nn.Embedding.from_pretrained(rows(132), freeze=False)
    return embedding


def _mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (2,))


def _whole(tensor: Any) -> Tensor:
    whole: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole
