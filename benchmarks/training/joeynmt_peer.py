"""JoeyNMT's part of train_bench.py, run by the interpreter of its environment, without dist_s2s.

    python -m training.joeynmt_peer measure JOB THREADS   trains on the batches of a file, and prints JSON
    python -m training.joeynmt_peer segment IN OUT SIZE   writes a TSV file's text as BPE pieces, SIZE for each side

What is timed is JoeyNMT's own TrainManager._train_step, on batches that lie ready as tensors, and the update as its
train_and_validate does it. The model is JoeyNMT's, with two changes that make it the very function of the other
contender, for which the losses must agree: its output layer gets a bias, and its decoder starts with an empty cell
rather than with a copy of the hidden state. (Its plateau schedule gives torch an argument that no longer exists, and
would have to be patched; another one takes its place.)
"""

# mypy: disable-error-code="import-not-found"

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from common.devices import peak, resident

# JoeyNMT's ids of its four special tokens, by ours: <pad>, <sos>, <eos>, <unk>.
SPECIALS = {"pad": 1, "bos": 2, "eos": 3, "unk": 0}
NUM_SPECIALS = len(SPECIALS)


def measure(job_file: str, threads: str) -> dict[str, Any]:
    """Train for as many steps as there are batches."""
    from joeynmt.config import parse_train_args
    from joeynmt.training import TrainManager

    torch.set_num_threads(int(threads))
    torch.set_flush_denormal(True)
    job: dict[str, Any] = torch.load(job_file, weights_only=True)
    idle = resident()
    model = build(job)
    autocast = {"device_type": "cpu", "enabled": job["precision"] == "bf16", "dtype": torch.bfloat16}
    settings = parse_train_args(job["training"])
    with TemporaryDirectory() as folder:
        manager = TrainManager(
            rank=0, model=model, model_dir=Path(folder), device=torch.device("cpu"), autocast=autocast,
            train_args=settings,
        )  # fmt: skip
        found = train(manager, optimizers(manager, job["tables"], job["table_learning_rate"]), job["batches"])
        manager.tb_writer.close()
    parts = {"source embedding": model.src_embed, "target embedding": model.trg_embed, "encoder": model.encoder}
    output = count(model.decoder.output_layer)
    sizes = {name: count(part) for name, part in parts.items()}
    sizes |= {"decoder": count(model.decoder) - output, "output layer": output}
    return {**found, "idle_bytes": [idle], "peak_bytes": [peak()], "parameters": sizes}


def optimizers(manager: Any, tables: list[str], table_learning_rate: float | None) -> list[Optimizer]:
    """Return JoeyNMT's Adam; or, to be compared, SGD for the modules that are tables in ours, and Adam for the rest."""
    if table_learning_rate is None:
        return [manager.optimizer]
    weights = [weight for name in tables for weight in manager.model.get_submodule(name).parameters()]
    known = set(weights)
    rest = [weight for weight in manager.model.parameters() if weight not in known]
    return [SGD(weights, table_learning_rate), Adam(rest, manager.args.learning_rate)]


def train(manager: Any, updates: list[Optimizer], batches: list[dict[str, Tensor]]) -> dict[str, list[float]]:
    """Run JoeyNMT's inner loop, without its logs and validation."""
    from joeynmt.batch import Batch

    norms: list[float] = []
    clip = manager.clip_grad_fun

    found: dict[str, list[float]] = {"losses": [], "norms": norms, "seconds": [], "tokens": []}
    manager.model.zero_grad()
    for tensors in batches:
        start = time.perf_counter()
        batch = Batch(
            **tensors, src_prompt_mask=None, trg_prompt_mask=None, device=torch.device("cpu"),
            pad_index=SPECIALS["pad"], eos_index=SPECIALS["eos"],
        )  # fmt: skip
        loss, _ = manager._train_step(batch)
        norms.append(float(clip(parameters=manager.model.parameters())))
        for optimizer in updates:
            optimizer.step()
        manager.model.zero_grad()
        found["seconds"].append(time.perf_counter() - start)
        found["losses"].append(loss)
        found["tokens"].append(batch.ntokens)
    return found


def build(job: dict[str, Any]) -> Any:
    """Build JoeyNMT's model with the weights of the job, which are ours by our names."""
    from joeynmt.model import build_model
    from joeynmt.vocabulary import Vocabulary

    special = SimpleNamespace(lang_tags=[], sep_token=None)
    for name, number in SPECIALS.items():
        setattr(special, f"{name}_id", number)
        setattr(special, f"{name}_token", f"<{name}>")
    vocabularies = [
        Vocabulary([str(number) for number in range(size - NUM_SPECIALS)], special) for size in job["vocabulary_sizes"]
    ]
    model = build_model(job["model"], *vocabularies)
    decoder = model.decoder
    decoder.output_layer = nn.Linear(decoder.hidden_size, len(vocabularies[1]))
    decoder._init_hidden = MethodType(start_with_an_empty_cell, decoder)
    model.loss_function = ("crossentropy", 0.0)
    model.load_state_dict(weights_of_joeynmt(job["weights"]))
    return model


def start_with_an_empty_cell(decoder: Any, encoder_final: Tensor) -> tuple[Tensor, Tensor]:
    """Take the place of RecurrentDecoder._init_hidden."""
    hidden = torch.tanh(decoder.bridge_layer(encoder_final))[None]
    return hidden, torch.zeros_like(hidden)


def weights_of_joeynmt(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict for JoeyNMT's model from that of our core and the rows of our tables."""
    theirs = {
        "src_embed.lut.weight": reorder_specials(ours["source_table"]),
        "trg_embed.lut.weight": reorder_specials(ours["target_table"]),
        "decoder.output_layer.weight": reorder_specials(ours["output.weight"]),
        "decoder.output_layer.bias": reorder_specials(ours["output.bias"]),
        "decoder.attention.key_layer.weight": ours["decoder.attention.key.weight"],
        # The context comes first in ours, the state in theirs.
        "decoder.att_vector_layer.weight": torch.cat(ours["decoder.combine.weight"].chunk(2, dim=1)[::-1], dim=1),
        "decoder.att_vector_layer.bias": ours["decoder.combine.bias"],
    }
    theirs |= {f"decoder.bridge_layer.{kind}": ours[f"decoder.bridge.{kind}"] for kind in ("weight", "bias")}
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        theirs[f"encoder.rnn.{name}"] = ours[f"encoder.forward_layers.0.{name}"]
        theirs[f"encoder.rnn.{name}_reverse"] = ours[f"encoder.backward_layers.0.{name}"]
        theirs[f"decoder.rnn.{name}"] = ours[f"decoder.layers.0.{name}"]
    return theirs


def reorder_specials(rows: Tensor) -> Tensor:
    """Return rows by JoeyNMT's ids, from rows by ours."""
    return torch.cat((rows[:NUM_SPECIALS].roll(1, 0), rows[NUM_SPECIALS:]))


def count(module: nn.Module) -> int:
    """Return how many parameters a module has."""
    return sum(weight.numel() for weight in module.parameters())


def segment(source_file: str, target_file: str, size: str) -> None:
    """Write each side in the pieces of a sentencepiece BPE model learnt from the file itself."""
    import sentencepiece

    pairs = [line.split("\t") for line in Path(source_file).read_text(encoding="utf-8").splitlines()]
    sides = []
    for side in zip(*pairs, strict=True):
        with TemporaryDirectory() as folder:
            prefix = str(Path(folder) / "bpe")
            try:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter(side), model_prefix=prefix, vocab_size=int(size), model_type="bpe",
                    minloglevel=2,
                )  # fmt: skip
            except RuntimeError as error:  # such as too small a vocabulary for all characters
                sys.exit(f"sentencepiece cannot learn {size} pieces from this text: {error}")
            model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
        sides.append([" ".join(pieces) for pieces in model.encode(list(side), out_type=str)])
    lines = "".join(f"{source}\t{target}\n" for source, target in zip(*sides, strict=True))
    Path(target_file).write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "segment":
        segment(*sys.argv[2:])
    else:
        print(json.dumps(measure(*sys.argv[2:])))
