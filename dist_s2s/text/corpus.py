"""Parallel corpora: from files, or the phrasebook, to pairs of sentences and pairs of id lists."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.text.inputs import open_inputs, read_inputs, split_inputs
from dist_s2s.text.side import TextSide

Split = Literal["train", "valid", "test"]
PREPARED_MANIFEST = "prepared.json"  # what a prepared corpus is told by
WORK = ".work"  # its folder while it is prepared


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence pair as token ids, without SOS and EOS."""

    source: list[int]
    target: list[int]


class Corpus(Protocol):
    """Examples by number, wherever they are kept. `lengths` must not need the examples themselves."""

    @property
    def lengths(self) -> Tensor:
        """Tokens of each example's source and target, without SOS and EOS: int32 or int64 [N, 2]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class ExampleList(list[Example]):
    """A corpus in memory."""

    @property
    def lengths(self) -> Tensor:
        """Count the tokens of each example: int64 [N, 2]."""
        sizes = [(len(example.source), len(example.target)) for example in self]
        return torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)


def load_pairs(
    name: str, split: Split, columns: str | None = None, skip_bad_lines: bool | None = None
) -> list[tuple[str, str]]:
    """Return the sentence pairs of `data.train`, `data.valid` or `data.test`.

    Args:
        name: `phrasebook`, the directory of a prepared corpus, or inputs of any form (see `inputs.open_input`).
        split: which part of the phrasebook or the prepared corpus; of the latter not `train`, which has no text. Other
            inputs are read whole.
        columns: which of an input's columns, keys or languages are source and target; None: as the input tells.
        skip_bad_lines: leave out what is no pair, instead of refusing the input; None: refuse it, without a word on
            this setting, which the command does not have.

    Raises:
        UserError: as `inputs.read_inputs`.
    """
    if name == "phrasebook":
        from dist_s2s.text.phrasebook import phrasebook  # its tables are not needed to read a file

        return phrasebook(split)
    if is_prepared(name):
        return read_inputs(str(Path(name) / f"{split}.tsv"))
    return read_inputs(name, columns, skip_bad_lines)


def is_prepared(name: str) -> bool:
    """Tell whether `data.train`, say, names the directory of a prepared corpus.

    Raises:
        UserError: its preparation has not come to its end.
    """
    folder = Path(name)
    is_finished = os.path.isfile(folder / PREPARED_MANIFEST)  # False, too, for what cannot be a path
    if os.path.isdir(folder / WORK) and not is_finished:
        raise UserError(
            f"{folder} is only half prepared: run the same dist-s2s prepare again, which goes on from there"
        )
    return is_finished


def data_files(name: str, columns: str | None = None) -> list[Path]:
    """Return the files that `load_pairs` reads; of a prepared corpus its manifest, which seals the others.

    Raises:
        UserError: a file is missing, or its form is not recognised.
    """
    if is_prepared(name):
        return [Path(name) / PREPARED_MANIFEST]
    return [path for each in open_inputs(split_inputs(name), columns) for path in each.paths]


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
