"""What train_bench.py trains at a size of the vocabulary: configuration, sentence pairs, and who has room."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from common.devices import GIB, available
from common.samplers import draw_ids
from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.text.corpus import Example, encode_pairs
from dist_s2s.text.inputs import read_inputs
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary
from dist_s2s.translation.output import choose_output
from training.job import OURS, Contender, Job
from training.joeynmt import segment
from training.options import KEYS
from training.report import title

MEMORY_SHARE = 0.9  # of what is available, that contenders may take
SENTENCES = 4000
SHORTEST, LONGEST = 8, 32  # target tokens of a synthetic sentence
_DDP = (Contender("ddp_dense"), Contender("ddp_sparse"))
_NEVER = str(10**9)


def make_jobs(options: argparse.Namespace, size: int, python: str, skipped: list[str]) -> list[Job]:
    """Return what is to be trained at a V by each that has room, ours first; note in ``skipped`` who has none.

    Raises:
        UserError: Ours has no room.
    """
    overrides = {name: str(getattr(options, name.partition(".")[2])) for name in KEYS}
    config = make_config(overrides | ({"model.attention": "general"} if options.peers else {}))
    if options.data is None:
        examples, sizes = zipf_examples(size, config.training.seed), (size, size)
    else:
        with TemporaryDirectory(prefix="train-bench-") as folder:
            pieces = Path(folder) / options.data.name
            segment(python, options.data, pieces, size)
            examples, sizes = file_examples(pieces, size)
    if config.model.output == "auto":
        output = choose_output(sizes[1], config.model.readout_dim, options.ranks)
        config = config.model_copy(update={"model": config.model.model_copy(update={"output": output})})
    peers = [Contender("joeynmt", threads) for threads in options.peer_threads] if options.peers else _DDP
    room = MEMORY_SHARE * available()
    jobs = []
    for contender in (OURS, *peers):
        needed = predicted_bytes(contender.kind, config, options.ranks, sizes)
        reason = f"it needs {needed / GIB:.1f} GiB, and there are {room / GIB:.1f}"
        if needed <= room:
            jobs.append(Job(contender, config, options.ranks, sizes, examples))
        elif contender == OURS:
            raise UserError(
                f"V = {size:,}: ours has no room: {reason}; take a smaller --embedding_dim or --hidden_size"
            )
        else:
            skipped.append(f"V = {size:,}: {title(contender.key)} left out: {reason}")
    return jobs


def make_config(overrides: Mapping[str, str]) -> Config:
    """Return the project's configuration with ``overrides``, less what would blur a comparison.

    That is dropout and label smoothing, whose noise and formula differ between toolkits, a changing learning rate, and
    everything but training steps: validation, checkpoints and logs. Raises UserError as load_config does.
    """
    fixed = {
        "run_dir": "train-bench",  # where nothing is written
        "model.dropout": "0",
        "training.label_smoothing": "0",
        "training.warmup_steps": "0",
        "training.max_epochs": "null",
        "training.threads_per_rank": "1",
    }
    never = ("max_steps", "validate_every", "checkpoint_every", "log_every")
    return load_config(None, fixed | {f"training.{name}": _NEVER for name in never} | dict(overrides))


def zipf_examples(vocabulary_size: int, seed: int, sentences: int = SENTENCES) -> list[Example]:
    """Draw sentence pairs of log-uniform tokens (Zipf's law), numbered by falling frequency, all but the specials.

    A target has 8 to 32 tokens, any number as likely; its source has up to 3 more or fewer.
    """
    generator = torch.Generator().manual_seed(seed)

    def sentence(length: int) -> list[int]:
        words = draw_ids(length, vocabulary_size - len(SPECIALS), generator) + len(SPECIALS)
        return words.tolist()

    lengths = torch.randint(SHORTEST, LONGEST + 1, (sentences,), generator=generator)
    changes = torch.randint(-3, 4, (sentences,), generator=generator)
    return [
        Example(sentence(length + change), sentence(length))
        for length, change in zip(lengths.tolist(), changes.tolist(), strict=True)
    ]


def file_examples(file: Path, vocabulary_size: int) -> tuple[list[Example], tuple[int, int]]:
    """Read the pairs of a TSV file whose tokens are separated by spaces; return them and both vocabularies' sizes.

    Raises:
        UserError: The file cannot be read.
    """
    pairs, tokenizer = read_inputs(str(file)), WhitespaceTokenizer()
    source, target = (
        Vocabulary.build((tokenizer.tokenize(pair[side]) for pair in pairs), vocabulary_size) for side in (0, 1)
    )
    examples, _ = encode_pairs(
        pairs, TextSide(tokenizer, source), TextSide(tokenizer, target), Config().data.max_length
    )
    return examples, (len(source), len(target))


def predicted_bytes(kind: str, config: Config, ranks: int, vocabulary_sizes: tuple[int, int]) -> int:
    """Return what all processes of a contender will take at least, beyond idle ones; 0 for JoeyNMT, which is small.

    Counted are the tables, Adam's two moments, dense gradients, and of an exact loss's logits three copies under DDP.
    Left out is the model.
    """
    model = config.model
    sources, targets = vocabulary_sizes
    inputs, output = 4 * model.embedding_dim * (sources + targets), 4 * (model.readout_dim + 1) * targets
    copies_of_output = 3 if model.output == "sampled" else 4
    logits = 0 if model.output == "sampled" else 3 * 4 * targets * config.data.batch_tokens
    match kind:
        case "ours":
            return 3 * inputs + copies_of_output * output * (ranks if model.output == "replicated" else 1)
        case "ddp_sparse":
            return ranks * (3 * inputs + copies_of_output * output) + logits
        case "ddp_dense":
            return ranks * 4 * (inputs + output) + logits
        case _:
            return 0
