"""Trains a translator on tables of nn.Embedding, whole on every rank, inside DistributedDataParallel with the model.

With ddp_dense all gradients are dense, and Adam moves every row of every table; with ddp_sparse
nn.Embedding(sparse=True) and torch's SparseAdam touch only the rows in use, and gloo gathers the sparse gradients. A
table that multiplies all states (an exact output layer) is dense in both.

It gets what makes it fast: batches prepared one ahead in a thread, DDP's buckets as gradients, fused Adam, autocast.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, Optimizer
from torch.optim import SparseAdam as TorchSparseAdam

from common.devices import resident
from dist_s2s.distributed import Ranks
from dist_s2s.text.corpus import ExampleList
from dist_s2s.text.vocabulary import PAD
from dist_s2s.training.schedule import Progress
from dist_s2s.training.steps import Step, training_steps
from dist_s2s.translation.output import SampledOutput
from dist_s2s.translation.translator import Translator
from training.job import Job, Measurement
from training.translator import Recorder, build_translator


class ReplicatedModel(nn.Module):
    """A translator with whole tables as one module, from a batch to the sum of its tokens' losses."""

    def __init__(self, translator: Translator, sparse: bool) -> None:
        super().__init__()
        self._output = translator.output
        self._autocast = translator.autocast
        self.core = translator.core
        is_sampled = isinstance(translator.output, SampledOutput)
        self.tables = nn.ModuleDict(
            {
                name: nn.Embedding.from_pretrained(
                    table.weight.detach(),
                    freeze=False,
                    padding_idx=table.padding_idx,
                    sparse=sparse and (is_sampled or name in ("source_table", "target_table")),
                )
                for name, table in translator.tables.items()
            }
        )

    def forward(self, step: Step) -> Tensor:
        """Return the loss of this rank's part of a global batch, summed over its tokens."""
        batch, sample = step.batch, step.sample
        tables = {name: cast(nn.Embedding, table) for name, table in self.tables.items()}
        source, target = tables["source_table"](batch.source), tables["target_table"](batch.target_in)
        with self._autocast():
            outputs = self.core(source, batch.source_lengths, target)
            if sample is not None:
                rows = [tables[name](sample.ids) for name in ("output_table", "output_bias")]
                return self._output.training_loss(outputs, batch.target_out, sample, rows)
            if "output_table" in tables:
                bias = tables["output_bias"].weight.squeeze(1)
                outputs = F.linear(outputs, tables["output_table"].weight, bias)
        logits = outputs.flatten(0, 1).float()
        return F.cross_entropy(logits, batch.target_out.flatten(), ignore_index=PAD, reduction="sum")


def train_replicated(job: Job, ranks: Ranks) -> Measurement:
    """Train under DDP (collective)."""
    idle = resident()
    training = job.config.training
    alone, _ = dist.new_subgroups(group_size=1)
    translator = build_translator(job, replace(ranks, rank=0, world_size=1, group=alone))
    translator.ranks = ranks  # among which the batches are divided
    model = ReplicatedModel(translator, sparse=job.contender.kind == "ddp_sparse")
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizers = make_optimizers(job, model)
    recorder = Recorder(idle)
    for step in _one_ahead(training_steps(job.config, ExampleList(job.examples), translator, Progress()), job.steps):
        loss = replica(step) / step.batch.global_target_tokens
        (loss * ranks.world_size).backward()  # DDP averages over ranks
        norm = clip_(model, training.max_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        recorder.add(loss.item(), norm, step.batch.global_target_tokens)
    return recorder.finish(ranks, translator)


def make_optimizers(job: Job, model: ReplicatedModel) -> list[Optimizer]:
    """Make the core's optimizer, and the tables' as the configuration says: Adam in torch's forms of it, or SGD."""
    rate = job.config.training.learning_rate
    table_rate = job.config.embedding.learning_rate or rate
    weights: dict[bool, list[Tensor]] = {True: [], False: []}
    for table in model.tables.values():
        weights[bool(table.sparse)].append(table.weight)  # type: ignore[arg-type]
    optimizers: list[Optimizer] = [Adam(model.core.parameters(), rate, fused=True)]
    if job.config.embedding.optimizer == "sgd":
        return [*optimizers, SGD(model.tables.parameters(), table_rate)]
    assert job.config.embedding.optimizer == "sparse_adam", job.config.embedding.optimizer
    if weights[True]:
        optimizers.append(TorchSparseAdam(weights[True], table_rate))
    if weights[False]:
        optimizers.append(Adam(weights[False], table_rate, fused=True))
    return optimizers


@torch.no_grad()
def clip_(model: nn.Module, max_norm: float) -> float:
    """Clip like torch.nn.utils.clip_grad_norm_, which does not take sparse gradients; return the norm before.

    The norm is taken row by row, which takes no longer: over 128 million float32 numbers at once torch's is 1.6 % too
    small.
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    norm = float(nn.utils.get_total_norm([torch.linalg.vector_norm(value, dim=-1) for value in values]))
    if norm > max_norm:
        for value in values:
            value.mul_(max_norm / norm)
    return norm


def _one_ahead(steps: Iterator[Step], count: int) -> Iterator[Step]:
    """Yield the first steps, each made while the one before it is worked on."""
    with ThreadPoolExecutor(1) as background:
        following = background.submit(next, steps)
        for _ in range(count):
            step = following.result()
            following = background.submit(next, steps)
            yield step
