"""Two ways to train one translator on several ranks, with the same rows and weights, batches and losses.

train_ours         The `train` command's own loop: sharded tables, batches and plans made in the background.
train_replicated   Every table is an nn.Embedding, whole on every rank, inside DistributedDataParallel with the model.
                   With ddp_dense all gradients are dense, and Adam moves every row of every table; with ddp_sparse
                   nn.Embedding(sparse=True) and torch's SparseAdam touch only the rows in use, and gloo gathers the
                   sparse gradients. A table that multiplies all states (an exact output layer) is dense in both.

Both get what makes them fast: batches prepared one ahead in a thread, DDP's buckets as gradients, fused Adam, autocast.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from process_memory import peak
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, Optimizer
from torch.optim import SparseAdam as TorchSparseAdam
from train_breakdown import Stopwatch, replaced
from train_job import Job

import dist_s2s.training.trainer
from dist_s2s.distributed import Ranks
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import PAD, Vocabulary
from dist_s2s.training.schedule import Progress
from dist_s2s.training.steps import Step, training_steps
from dist_s2s.training.trackers import RunLog
from dist_s2s.training.trainer import Trainer, TrainingData
from dist_s2s.translation.output import SampledOutput
from dist_s2s.translation.text_side import TextPipeline
from dist_s2s.translation.translator import Translator

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Record:
    """A step of this rank: its part of the loss, the norm of all gradients, target tokens of all ranks, and its end."""

    loss: float
    norm: float
    tokens: int
    end: float


class Records(list[Record]):
    """Of all steps of a run, which began at ``start``. peak_bytes: the most memory that this process took."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.peak_bytes = time.perf_counter(), 0

    def finish(self, ranks: Ranks) -> None:
        """Notes the peak, when all ranks are through and none has let go of what they share (collective)."""
        ranks.together(lambda: None)
        self.peak_bytes = ranks.together(peak)


class NumberedVocabulary(Vocabulary):
    """A number of ids without texts, which would take more memory than some tables; enough to build a translator."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def build_translator(job: Job, ranks: Ranks) -> Translator:
    """The translator of the job's configuration on ``ranks`` (collective); on one rank its tables are whole."""
    tokenizer = WhitespaceTokenizer()
    source, target = map(NumberedVocabulary, job.vocabulary_sizes)
    return Translator(job.config, TextPipeline(tokenizer, tokenizer, source, target), ranks)


def count_parameters(translator: Translator) -> dict[str, int]:
    """By part of the model; the translator's tables are whole, or sharded among ranks."""
    core = translator.core
    sizes = {name: table.num_embeddings * table.embedding_dim for name, table in translator.tables.items()}
    output = sum(size for name, size in sizes.items() if name.startswith("output"))
    return {
        "source embedding": sizes["source_table"],
        "target embedding": sizes["target_table"],
        "encoder": sum(weight.numel() for weight in core.encoder.parameters()),
        "decoder": sum(weight.numel() for weight in core.decoder.parameters()),
        "output layer": output + sum(weight.numel() for weight in core.output.parameters()),
    }


class _BoundedTrainer(Trainer):
    """The shipped trainer, which stops after some steps and keeps a record of each."""

    def run(self, steps: int) -> Records:
        """Trains (collective)."""
        self._steps, self._seen, self._norm = steps, (0.0, 0), 0.0
        with (
            replaced(self._meter, "add", self._noting_loss),
            replaced(dist_s2s.training.trainer, "clip_grad_norm_", self._noting_norm),
        ):
            self._records = Records()
            self._train()
        self._records.finish(self.ranks)
        return self._records

    def _noting_loss(self, add: Callable[[float, int], None]) -> Callable[[float, int], None]:
        def noting(loss: float, target_tokens: int) -> None:
            add(loss, target_tokens)
            self._seen = loss, target_tokens

        return noting

    def _noting_norm(self, clip: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noting(*args: Any) -> Tensor:
            norm = clip(*args)
            self._norm = float(norm)
            return norm

        return noting

    def _after_step(self) -> None:
        super()._after_step()
        loss, tokens = self._seen
        self._records.append(Record(loss, self._norm, tokens, time.perf_counter()))

    def _is_finished(self) -> bool:
        return len(self._records) >= self._steps


def train_ours(
    job: Job, accelerator: "Accelerator", ranks: Ranks, stopwatch: Stopwatch | None
) -> tuple[Records, dict[str, int]]:
    """Runs the shipped loop (collective); returns the steps' records and the numbers of parameters."""
    translator = build_translator(job, ranks)
    log = RunLog(job.config.run_dir, accelerator, ranks)
    trainer = _BoundedTrainer(job.config, TrainingData(job.examples, [], []), translator, accelerator, log)
    with nullcontext() if stopwatch is None else stopwatch.timing(trainer):
        return trainer.run(job.steps), count_parameters(translator)


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
        """The loss of this rank's part of a global batch."""
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


def train_replicated(job: Job, ranks: Ranks) -> tuple[Records, dict[str, int]]:
    """Trains nn.Embedding tables under DDP (collective); returns the steps' records and the numbers of parameters."""
    training = job.config.training
    alone, _ = dist.new_subgroups(group_size=1)
    translator = build_translator(job, replace(ranks, rank=0, world_size=1, group=alone))
    translator.ranks = ranks  # among which the batches are divided
    model = ReplicatedModel(translator, sparse=job.contender.kind == "ddp_sparse")
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizers = make_optimizers(job, model)
    records = Records()
    for step in _one_ahead(training_steps(job.config, job.examples, translator, Progress()), job.steps):
        loss = replica(step) / step.batch.global_target_tokens
        (loss * ranks.world_size).backward()  # DDP averages over ranks
        norm = clip_(model, training.max_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        records.append(Record(loss.item(), norm, step.batch.global_target_tokens, time.perf_counter()))
    records.finish(ranks)
    return records, count_parameters(translator)


def make_optimizers(job: Job, model: ReplicatedModel) -> list[Optimizer]:
    """Of the core, and of the tables as the configuration says: Adam in torch's forms of it, or SGD."""
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
    """As torch.nn.utils.clip_grad_norm_, which does not take sparse gradients; returns the norm before.

    Row by row, which takes no longer: over 128 million float32 numbers at once torch's norm is 1.6 % too small.
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    norm = float(nn.utils.get_total_norm([torch.linalg.vector_norm(value, dim=-1) for value in values]))
    if norm > max_norm:
        for value in values:
            value.mul_(max_norm / norm)
    return norm


def _one_ahead(steps: Iterator[Step], count: int) -> Iterator[Step]:
    """The first steps, each made while the one before it is worked on."""
    with ThreadPoolExecutor(1) as background:
        following = background.submit(next, steps)
        for _ in range(count):
            step = following.result()
            following = background.submit(next, steps)
            yield step
