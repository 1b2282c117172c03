"""The configuration and the sentence pairs that train_bench.py trains on."""

from collections.abc import Mapping
from pathlib import Path

import torch

from dist_s2s.config import Config, load_config
from dist_s2s.text.corpus import Example, encode_pairs, read_pairs
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary

SENTENCES = 4000
SHORTEST, LONGEST = 8, 32  # target tokens of a synthetic sentence
_NEVER = str(10**9)


def make_config(overrides: Mapping[str, str]) -> Config:
    """The project's configuration with ``overrides``; what a user gets, except for what would blur a comparison.

    Neither dropout nor label smoothing, whose noise and formula differ between toolkits; a constant learning rate; and
    nothing but training steps: no validation, checkpoint or log. Raises UserError as load_config does.
    """
    fixed = {
        "run_dir": "train-bench",  # where nothing is written
        "model.dropout": "0",
        "training.label_smoothing": "0",
        "training.warmup_steps": "0",
        "training.max_epochs": "null",
        "training.max_steps": _NEVER,
        "training.validate_every": _NEVER,
        "training.checkpoint_every": _NEVER,
        "training.log_every": _NEVER,
        "training.threads_per_rank": "1",
    }
    return load_config(None, fixed | dict(overrides))


def zipf_examples(vocabulary_size: int, seed: int, sentences: int = SENTENCES) -> list[Example]:
    """Sentence pairs of log-uniform tokens (Zipf's law), numbered by falling frequency, all but the specials.

    A target has 8 to 32 tokens, any number as likely; its source has up to 3 more or fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    words = vocabulary_size - len(SPECIALS)

    def sentence(length: int) -> list[int]:
        uniform = torch.rand(length, generator=generator, dtype=torch.float64)
        ids = ((words + 1.0) ** uniform).long() - 1 + len(SPECIALS)
        return ids.clamp_(max=vocabulary_size - 1).tolist()

    lengths = torch.randint(SHORTEST, LONGEST + 1, (sentences,), generator=generator)
    changes = torch.randint(-3, 4, (sentences,), generator=generator)
    return [
        Example(sentence(length + change), sentence(length))
        for length, change in zip(lengths.tolist(), changes.tolist(), strict=True)
    ]


def file_examples(file: Path, vocabulary_size: int) -> tuple[list[Example], tuple[int, int]]:
    """The pairs of a TSV file whose tokens are separated by spaces, and the sizes of both vocabularies.

    Raises UserError if the file cannot be read.
    """
    pairs, tokenizer = read_pairs(file), WhitespaceTokenizer()
    source, target = (
        Vocabulary.build((tokenizer.tokenize(pair[side]) for pair in pairs), vocabulary_size) for side in (0, 1)
    )
    examples, _ = encode_pairs(pairs, tokenizer, tokenizer, source, target, max_length=Config().data.max_length)
    return examples, (len(source), len(target))


def predicted_bytes(kind: str, config: Config, ranks: int, vocabulary_sizes: tuple[int, int]) -> int:
    """What all processes of a contender will take at least, beyond idle ones.

    Counted are the tables, Adam's two moments, dense gradients, and of an exact loss's logits three copies under DDP.
    Left out is the model.
    """
    model = config.model
    sources, targets = vocabulary_sizes
    inputs, output = 4 * model.embedding_dim * (sources + targets), 4 * (model.hidden_size + 1) * targets
    copies_of_output = 3 if model.output == "sampled" else 4
    if kind == "ours":
        return 3 * inputs + copies_of_output * output * (ranks if model.output == "replicated" else 1)
    logits = 0 if model.output == "sampled" else 3 * 4 * targets * config.data.batch_tokens
    if kind == "ddp_sparse":
        return ranks * (3 * inputs + copies_of_output * output) + logits
    return ranks * 4 * (inputs + output) + logits
