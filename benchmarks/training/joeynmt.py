"""JoeyNMT 2.3 as a contender of train_bench.py: its data and its turns, in processes of its own.

JoeyNMT refuses DistributedDataParallel on a CPU, so it is one process, with as many threads as it is told. Its Luong
attention is the ``general`` one of ours, and its encoder and decoder are ours too as long as they have a single layer:
further ones have residual connections here and none there.
"""

import json
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from dist_s2s.distributed import Ranks
from dist_s2s.text.batches import Batch
from dist_s2s.text.corpus import ExampleList
from dist_s2s.text.vocabulary import EOS, PAD, SOS, UNK
from dist_s2s.training.schedule import Progress
from dist_s2s.training.steps import training_steps
from training.job import Job, Measurement, run_python
from training.translator import build_translator

_PROGRAM = ("-W", "ignore", "-m", "training.joeynmt_peer")


def segment(python: str, file: Path, target: Path, vocabulary_size: int) -> None:
    """Write a TSV file as BPE pieces, separated by spaces.

    Raises:
        RuntimeError: sentencepiece cannot.
    """
    run_python(python, *_PROGRAM, "segment", str(file), str(target), str(vocabulary_size))


def run_joeynmt(python: str, job: Job) -> Measurement:
    """Train JoeyNMT on the job's batches, from the weights that ours starts with.

    Raises:
        RuntimeError: It fails.
    """
    with TemporaryDirectory(prefix="train-bench-") as folder:
        file = Path(folder) / "job.pt"
        torch.save(_exported(job), file)
        printed = run_python(python, *_PROGRAM, "measure", str(file), str(job.contender.threads))
    return Measurement(**json.loads(printed.splitlines()[-1]))


@torch.no_grad()
def _exported(job: Job) -> dict[str, Any]:
    """Return what JoeyNMT needs: settings under its names, our first weights, and the global batches in our order."""
    model, training, embedding = job.config.model, job.config.training, job.config.embedding
    translator = build_translator(job, Ranks.alone())
    weights = translator.core.state_dict() | {name: table.weight.detach() for name, table in translator.tables.items()}
    if "output_table" in weights:
        weights["output.weight"] = weights.pop("output_table")
        weights["output.bias"] = weights.pop("output_bias").squeeze(1)
    steps = islice(training_steps(job.config, ExampleList(job.examples), translator, Progress()), job.steps)
    embeddings = {"embedding_dim": model.embedding_dim, "dropout": 0.0}
    layer = {"type": "recurrent", "rnn_type": "lstm", "num_layers": 1, "embeddings": embeddings, "dropout": 0.0}
    return {
        "weights": weights,
        "batches": [_renumbered(step.batch) for step in steps],
        "vocabulary_sizes": list(job.vocabulary_sizes),
        "precision": training.precision,
        "tables": ["src_embed", "trg_embed", *([] if model.output == "replicated" else ["decoder.output_layer"])],
        "table_learning_rate": embedding.learning_rate if embedding.optimizer == "sgd" else None,
        "model": {
            "encoder": {**layer, "hidden_size": model.hidden_size // 2, "bidirectional": True},
            "decoder": {
                **layer, "hidden_size": model.hidden_size, "attention": "luong", "init_hidden": "bridge",
                "input_feeding": False, "hidden_dropout": 0.0,
            },
        },
        "training": {
            "optimizer": "adam", "learning_rate": training.learning_rate, "normalization": "tokens",
            "clip_grad_norm": training.max_norm, "batch_size": job.config.data.batch_tokens, "batch_type": "token",
            "scheduling": "decaying",  # at the end of an epoch, which never comes
        },
    }  # fmt: skip


def _renumbered(batch: Batch) -> dict[str, Tensor]:
    """Return a batch with JoeyNMT's ids of the special tokens, under the names of its Batch's arguments."""

    def renumber(ids: Tensor) -> Tensor:
        return torch.where(ids <= UNK, (ids + 1) % (UNK + 1), ids)

    assert [PAD, SOS, EOS, UNK] == [0, 1, 2, 3]
    return {
        "src": renumber(batch.source),
        "src_length": batch.source_lengths,
        "trg": renumber(torch.cat((batch.target_in[:, :1], batch.target_out), dim=1)),
        "indices": torch.arange(len(batch.source)),
    }
