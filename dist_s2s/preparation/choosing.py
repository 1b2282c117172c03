"""Rules by which a run on a person's own files is configured, where they say nothing themselves.

The sizes are those of runs on 2 cores within half an hour: of small corpora, where small models and many small steps
win first, and of larger ones, where time is short before the data are. See docs/data.md for the rules in words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dist_s2s import counted
from dist_s2s.config import Config
from dist_s2s.text.inputs import Pair
from dist_s2s.translation.scores.bleu_tokenizer import has_spaces

LOOK_PAIRS = 100_000  # of the beginning; what follows is taken to be like them
SIDES = ("source", "target")
_FEW_PAIRS = 1_000  # so few that subwords and rare words cannot be learnt
# By the number of training pairs: on a CPU many are not seen often enough to be known by heart. 0.1 was measured with
# 29,000 pairs in 12 minutes: 40.1 BLEU, against 39.3 with 0.2.
_DROPOUT = {
    "cpu": ((10_000, 0.3), (math.inf, 0.1)),
    "cuda": ((5_000, 0.3), (50_000, 0.4), (500_000, 0.3), (math.inf, 0.2)),
}
_MOST_WORDS = 30_000


@dataclass(frozen=True)
class Choice:
    """A key of the configuration, what it is set to, and why."""

    key: str
    value: Any
    reason: str

    def line(self) -> str:
        """Return the choice as a person reads it."""
        return f"{self.key} = {self.value}: {self.reason}"


def choose_encoding(pairs: Sequence[Pair], config: Config) -> list[Choice]:
    """Choose how text is cut, by the first pairs of a corpus, and which vocabularies and tables both sides share.

    Args:
        pairs: some of the corpus.
        config: what is set there is not chosen, and what is chosen goes with it.
    """
    data, texts = config.data, dict(zip(SIDES, zip(*pairs, strict=True), strict=True))
    choices = [choice for side in SIDES for choice in _choose_tokenizer(side, texts[side], config)]
    values = {choice.key: choice.value for choice in choices}
    tokenizers = [values.get(f"data.{side}_tokenizer", getattr(data, f"{side}_tokenizer")) for side in SIDES]
    sizes = [values.get(f"data.{side}_vocabulary_size", getattr(data, f"{side}_vocabulary_size")) for side in SIDES]
    if not set(tokenizers) & {"bpe", "unigram"} and len(pairs) >= _FEW_PAIRS:
        choices.append(Choice("data.min_frequency", 2, "a token that occurs once teaches nothing about itself"))
    is_joint = data.joint_vocabulary
    if "joint_vocabulary" not in data.model_fields_set and not _has_vectors(config):
        is_joint = tokenizers == ["bpe", "bpe"] and sizes[0] == sizes[1]
        if is_joint:
            why = "both sides are cut into subwords, of which they share some"
            choices.append(Choice("data.joint_vocabulary", True, why))
    return choices + _choose_ties(config, is_joint)


def _choose_ties(config: Config, is_joint: bool) -> list[Choice]:
    """Choose which tables are one. Rows of word vectors are neither shared with other uses nor scaled."""
    model, choices = config.model, []
    is_tied = model.tie_embeddings
    if not _has_vectors(config):
        if is_joint:
            choices.append(Choice("model.tie_source", True, "a token's row learns from both sides"))
        if "tie_embeddings" not in model.model_fields_set:
            is_tied = model.output != "replicated" and model.readout_size is None
            if is_tied:
                why = "a target token's row is that of the output layer too"
                choices.append(Choice("model.tie_embeddings", True, why))
        if is_tied:
            choices.append(Choice("model.scale_embeddings", True, "rows that are small enough for the output layer"))
    if is_tied and model.readout_size is not None:
        choices.append(Choice("model.embedding_dim", model.readout_size, "that of the readout, which tied rows have"))
    if model.attention != "none":
        choices.append(Choice("model.lexical", True, "rare words are translated by those that attention looks at"))
    return choices


def _has_vectors(config: Config) -> bool:
    return bool(config.data.source_vectors or config.data.target_vectors)


def _choose_tokenizer(side: str, texts: Sequence[str], config: Config) -> list[Choice]:
    key, given = f"data.{side}_tokenizer", config.data.model_fields_set
    if f"{side}_tokenizer" in given:
        return []
    [other] = set(SIDES) - {side}
    if config.data.joint_vocabulary and f"{other}_tokenizer" in given:
        return [Choice(key, getattr(config.data, f"{other}_tokenizer"), "one vocabulary is cut in one way")]
    if not has_spaces(texts):
        return [Choice(key, "characters", "its script has no spaces between words")]
    if getattr(config.data, f"{side}_vectors"):
        return [Choice(key, "words", "the vectors are of words")]
    if len(texts) < _FEW_PAIRS:
        return [Choice(key, "words", "there are few pairs")]
    if find_spec("sentencepiece") is not None:
        return [Choice(key, "bpe", "rare words are spelt in subwords")]
    choices = [Choice(key, "words", "subwords, which translate better, need pip install 'dist-s2s[subwords]'")]
    if f"{side}_vocabulary_size" not in given:
        choices.append(Choice(f"data.{side}_vocabulary_size", _MOST_WORDS, "rarer words become <unk>"))
    return choices


def choose_sizes(num_pairs: int, target_tokens: int, device: str) -> list[Choice]:
    """Choose the model and its batches, by the number of training pairs and of their target tokens.

    Args:
        device: the type of device that trains. On a CPU few steps fit into the minutes that people wait.
    """
    on_cpu = device == "cpu" and num_pairs < 500_000
    why = f"for {num_pairs:,} training pairs" + (" on a CPU" if on_cpu else "")
    embedding_dim, hidden_size, most_tokens = 256, 256 if on_cpu else 512, 1000 if on_cpu else 2000
    if num_pairs < 5_000:
        embedding_dim, hidden_size = 128, 256
    dropout = next(rate for pairs, rate in _DROPOUT["cpu" if device == "cpu" else "cuda"] if num_pairs < pairs)
    batch_tokens = max(300, min(most_tokens, target_tokens // 100 // 100 * 100))
    steps = max(1, target_tokens // batch_tokens)  # of an epoch
    every = max(100, min(1000, steps // 100 * 100))
    return [
        Choice("model.embedding_dim", embedding_dim, why),
        Choice("model.hidden_size", hidden_size, why),
        Choice("model.dropout", dropout, f"{why}, which a model knows by heart the sooner the fewer they are"),
        Choice(
            "data.batch_tokens",
            batch_tokens,
            f"an epoch of {target_tokens:,} target tokens has {counted(steps, 'step')}",
        ),
        Choice("training.warmup_steps", max(50, min(200, steps)), "an epoch, but no more than 200 steps"),
        Choice("training.validate_every", every, "about an epoch, between 100 and 1,000 steps"),
        Choice("training.checkpoint_every", every, "with each validation"),
        Choice("training.max_epochs", None, "the minutes are the limit"),
    ]


def unset(choices: Sequence[Choice], config: Config) -> list[Choice]:
    """Return the choices but for keys that are set."""

    def is_set(key: str) -> bool:
        section, _, name = key.partition(".")
        return name in getattr(config, section).model_fields_set

    return [choice for choice in choices if not is_set(choice.key)]
