"""Parallel corpora: from a TSV file, or the phrasebook, to pairs of sentences and pairs of id lists."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dist_s2s import UserError
from dist_s2s.text.lines import read_lines
from dist_s2s.text.tokenizers import Tokenizer
from dist_s2s.text.vocabulary import Vocabulary

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence pair as token ids, without SOS and EOS."""

    source: list[int]
    target: list[int]


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Read a UTF-8 file with `SOURCE<TAB>TARGET` on each line.

    Returns:
        (source, target) sentences in file order, as they stand in the file.

    Raises:
        UserError: the file cannot be read, is empty or not UTF-8 (see `read_lines`), or a line does not have
            exactly one tab with text on both sides; file and line are named.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        source, tab, target = line.partition("\t")
        if not tab:
            raise UserError(f"{path} line {number} has no tab: expected SOURCE<TAB>TARGET")
        if "\t" in target:
            raise UserError(f"{path} line {number} has {line.count(tab)} tabs: expected SOURCE<TAB>TARGET")
        if not source.strip() or not target.strip():
            side = "target" if source.strip() else "source"
            raise UserError(f"{path} line {number} has an empty {side}: expected SOURCE<TAB>TARGET")
        pairs.append((source, target))
    return pairs


def load_pairs(name: str, split: Split) -> list[tuple[str, str]]:
    """Return the sentence pairs of `data.train`, `data.valid` or `data.test`.

    Args:
        name: `phrasebook`, or the path of a TSV file.
        split: which part of the phrasebook; a file is read whole.

    Raises:
        UserError: as `read_pairs`.
    """
    if name == "phrasebook":
        from dist_s2s.text.phrasebook import phrasebook  # its tables are not needed to read a file

        return phrasebook(split)
    return read_pairs(name)


def describe(name: str) -> str:
    """What to call a corpus where its scores are shown: the phrasebook is always said to be generated."""
    return "phrasebook (generated sentences)" if name == "phrasebook" else name


def encode_pairs(
    pairs: Iterable[tuple[str, str]],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    source_vocabulary: Vocabulary,
    target_vocabulary: Vocabulary,
    max_length: int | None,
) -> tuple[list[Example], int]:
    """Turn sentence pairs into examples, dropping those with an empty or too long side.

    Args:
        max_length: most tokens on either side, EOS not counted; None for no limit.

    Returns:
        The examples in the order of `pairs`, and the number of pairs dropped.

    Raises:
        UserError: there were pairs and every one was dropped.
    """
    examples = []
    dropped = 0
    for source_text, target_text in pairs:
        source = source_tokenizer.tokenize(source_text)
        target = target_tokenizer.tokenize(target_text)
        longest = max(len(source), len(target))
        if not source or not target or (max_length is not None and longest > max_length):
            dropped += 1
        else:
            examples.append(Example(source_vocabulary.encode(source), target_vocabulary.encode(target)))
    if dropped and not examples:
        raise UserError(
            f"no sentence pair is left: all {dropped} have an empty side or one of more than "
            f"max_length = {max_length} tokens"
        )
    return examples, dropped
