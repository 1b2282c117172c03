"""JoeyNMT's part of quality_bench.py, run by the interpreter of its environment, without dist_s2s.

    python -m training.joeynmt_quality JOB

JOB is a JSON file: train, valid (TSV files), folder, minutes, threads, validate_every, and what ``settings`` reads. It
learns a joint sentencepiece BPE, writes JoeyNMT's configuration, and trains as `joeynmt train` does, until the minutes
are over, validations included. In the end each validation is a line of curve.jsonl in the folder.
"""

# mypy: disable-error-code="import-not-found"

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

SPECIALS = ["<unk>", "<pad>", "<s>", "</s>"]
SOURCE, TARGET = "source", "target"


def write_corpus(job: dict[str, Any], folder: Path) -> None:
    """Write both sides of the files as JoeyNMT reads them, and the BPE of both together with its vocabulary."""
    import sentencepiece

    for name in ("train", "valid"):
        pairs = [line.split("\t") for line in Path(job[name]).read_text(encoding="utf-8").split("\n")[:-1]]
        for side, lines in zip((SOURCE, TARGET), zip(*pairs, strict=True), strict=True):
            (folder / f"{name}.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=[str(folder / f"train.{side}") for side in (SOURCE, TARGET)], model_prefix=str(folder / "bpe"),
        model_type="bpe", vocab_size=job["vocabulary_size"], character_coverage=1.0, minloglevel=2,
        unk_id=0, pad_id=1, bos_id=2, eos_id=3,
    )  # fmt: skip
    pieces = [line.split("\t")[0] for line in (folder / "bpe.vocab").read_text(encoding="utf-8").splitlines()]
    assert pieces[: len(SPECIALS)] == SPECIALS, pieces[: len(SPECIALS)]
    (folder / "vocabulary.txt").write_text("".join(f"{piece}\n" for piece in pieces[4:]), encoding="utf-8")


def settings(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return JoeyNMT's configuration: the job's sizes and rates, and the rest as its documentation proposes for LSTMs.

    Its learning rate falls by 0.7 where three validations bring no better BLEU: a decay to 0, as ours, is none of its.
    """
    side = {
        "level": "bpe", "tokenizer_type": "sentencepiece", "voc_file": str(folder / "vocabulary.txt"),
        "max_length": job["max_length"],
        "tokenizer_cfg": {"model_file": str(folder / "bpe.model"), "model_type": "bpe"},
    }  # fmt: skip
    size, dropout = job["hidden_size"], job["dropout"]
    embeddings = {"embedding_dim": job["embedding_dim"], "scale": True, "dropout": dropout}
    layer = {"type": "recurrent", "rnn_type": "lstm", "num_layers": 1, "embeddings": embeddings, "dropout": dropout}
    return {
        "name": "quality", "model_dir": str(folder / "model"), "use_cuda": False, "random_seed": job["seed"],
        "normalization": "tokens",
        "data": {
            "train": str(folder / "train"), "dev": str(folder / "valid"), "dataset_type": "plain",
            "src": {"lang": SOURCE, **side}, "trg": {"lang": TARGET, **side},
        },
        "testing": {
            "beam_size": 1, "batch_size": 64, "batch_type": "sentence", "eval_metrics": ["bleu"],
            "max_output_length": -1, "sacrebleu_cfg": {"tokenize": "13a"},  # as it is unless said otherwise
        },
        "training": {
            "optimizer": "adam", "learning_rate": job["learning_rate"], "learning_rate_min": 1e-6,
            "scheduling": "plateau", "patience": 3, "decrease_factor": 0.7, "clip_grad_norm": job["max_norm"],
            "normalization": "tokens", "label_smoothing": job["label_smoothing"], "batch_size": job["batch_tokens"],
            "batch_type": "token", "epochs": 100_000, "validation_freq": job["validate_every"],
            "logging_freq": job["validate_every"], "early_stopping_metric": "bleu", "keep_best_ckpts": 1,
            "print_valid_sents": [],
        },
        "model": {
            "initializer": "xavier_uniform", "embed_initializer": "normal", "embed_init_weight": size**-0.5,
            "bias_initializer": "zeros", "lstm_forget_gate": 1.0, "tied_embeddings": True, "tied_softmax": True,
            "encoder": {**layer, "hidden_size": size // 2, "bidirectional": True},
            "decoder": {
                **layer, "hidden_size": size, "hidden_dropout": dropout, "attention": "luong",
                "init_hidden": "bridge", "input_feeding": job["input_feeding"],
            },
        },
    }  # fmt: skip


def train(config: dict[str, Any], minutes: float, curve: Path) -> None:
    """Train, and write when which validation has found what; the clock starts with the first epoch."""
    from joeynmt import builders, training

    plateau = builders.ReduceLROnPlateau
    # torch has taken away its argument ``verbose``, which JoeyNMT gives.
    builders.ReduceLROnPlateau = lambda *args, verbose, **kwargs: plateau(*args, **kwargs)
    validate, run = training.TrainManager._validate, training.TrainManager.train_and_validate

    def start(manager: Any, *args: Any, **kwargs: Any) -> None:
        manager.started = time.monotonic()
        run(manager, *args, **kwargs)

    def noted(manager: Any, *args: Any, **kwargs: Any) -> None:
        before = time.monotonic()
        validate(manager, *args, **kwargs)
        now = time.monotonic()
        last = (manager.model_dir / "validations.txt").read_text(encoding="utf-8").splitlines()[-1]
        scores = dict(part.split(": ") for part in last.split("\t") if ": " in part)
        found = {
            "step": manager.stats.steps, "minutes": (before - manager.started) / 60, "bleu": float(scores["bleu"]),
            "target_tokens": manager.stats.total_tokens, "validation_seconds": now - before,
        }  # fmt: skip
        with curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        if now - manager.started >= 60 * minutes:
            raise KeyboardInterrupt  # as its user would end it

    training.TrainManager.train_and_validate, training.TrainManager._validate = start, noted
    training.train(rank=0, world_size=None, cfg=config, skip_test=True)


def main(job_file: str) -> None:
    """Run the command."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    torch.set_flush_denormal(True)
    folder = Path(job["folder"])
    (folder / "model").mkdir(parents=True)
    write_corpus(job, folder)
    unfinished = folder / "curve.partial"
    train(settings(job, folder), job["minutes"], unfinished)
    unfinished.rename(folder / "curve.jsonl")


if __name__ == "__main__":
    main(sys.argv[1])
