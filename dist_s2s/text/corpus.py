"""Parallel corpora: from a TSV file, or the phrasebook, to pairs of sentences and pairs of id lists."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.text.lines import read_lines
from dist_s2s.text.side import TextSide

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence pair as token ids, without SOS and EOS."""

    source: list[int]
    target: list[int]


class Corpus(Protocol):
    """Examples by number, wherever they are kept. `lengths` must not need the examples themselves."""

    @property
    def lengths(self) -> Tensor:
        """Tokens of each example's source and target, without SOS and EOS: int64 [N, 2]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class ExampleList(list[Example]):
    """A corpus in memory."""

    @property
    def lengths(self) -> Tensor:
        """Count the tokens of each example: int64 [N, 2]."""
        sizes = [(len(example.source), len(example.target)) for example in self]
        return torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)


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
    """Return what to call a corpus where its scores are shown: the phrasebook is always said to be generated."""
    return "phrasebook (generated sentences)" if name == "phrasebook" else name


def encode_pairs(
    pairs: Sequence[tuple[str, str]], source_side: TextSide, target_side: TextSide, max_length: int | None
) -> tuple[ExampleList, int]:
    """Turn sentence pairs into examples, dropping those with an empty or too long side.

    Args:
        max_length: most tokens on either side, EOS not counted; None for no limit.

    Returns:
        The examples in the order of `pairs`, and the number of pairs dropped.

    Raises:
        UserError: there were pairs and every one was dropped.
    """
    examples = ExampleList()
    dropped = 0
    sources = source_side.encode_all([source for source, _ in pairs])
    targets = target_side.encode_all([target for _, target in pairs])
    for source, target in zip(sources, targets, strict=True):
        example = Example(source, target)
        longest = max(len(example.source), len(example.target))
        if not example.source or not example.target or (max_length is not None and longest > max_length):
            dropped += 1
        else:
            examples.append(example)
    if dropped and not examples:
        raise UserError(
            f"no sentence pair is left: all {dropped} have an empty side or one of more than "
            f"max_length = {max_length} tokens"
        )
    return examples, dropped
