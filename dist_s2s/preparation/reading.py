"""A block of an input to its pairs, each with what the filters of the whole corpus need of it."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dist_s2s.preparation.report import Dropped
from dist_s2s.preparation.scripts import main_scripts
from dist_s2s.storage.durable_files import naming
from dist_s2s.text.inputs import BadLine, BadLines, Block, Pair


@dataclass(frozen=True)
class ReadTask:
    """A block that is to be read into a file."""

    block: Block
    file: Path
    filters: tuple[str, ...]
    max_ratio: float


@dataclass
class BlockStatistics:
    """What a block held: its lines, those that are no pair, and the pairs that a filter left out."""

    lines: int = 0
    bad: BadLines = field(default_factory=lambda: BadLines(skip=True))
    dropped: Dropped = field(default_factory=Dropped)

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        bad = [
            [file, kind, count, [[line.place, line.problem] for line in self.bad.examples[file, kind]]]
            for (file, kind), count in self.bad.counts.items()
        ]
        return json.dumps([self.lines, bad, self.dropped.counts, self.dropped.examples])

    @classmethod
    def from_json(cls, text: str) -> "BlockStatistics":
        """Read what `to_json` returned."""
        lines, bad, counts, examples = json.loads(text)
        statistics = cls(lines, dropped=Dropped(counts, examples))
        for file, kind, count, shown in bad:
            statistics.bad.counts[file, kind] = count
            statistics.bad.examples[file, kind] = [BadLine(file, place, problem) for place, problem in shown]
        return statistics


class PairsFile:
    """The pairs of a block that are left once each was looked at by itself."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def columns(self, rows: np.ndarray) -> tuple[list[str], list[str]]:
        """Return the sources and the targets of some of them."""
        if not len(rows):  # which need not be read
            return [], []
        texts = self._part("text").tobytes().decode("utf-8", "surrogatepass").replace("\t", "\n").split("\n")
        numbers = rows.tolist()
        return [texts[2 * number] for number in numbers], [texts[2 * number + 1] for number in numbers]

    def hashes(self) -> np.ndarray:
        """Return the hash of each side: uint64 [N, 2]."""
        return self._part("hashes")

    def scripts(self) -> np.ndarray:
        """Return the script of each side: uint8 [N, 2]."""
        return self._part("scripts")

    def statistics(self) -> BlockStatistics:
        """Return what the block held."""
        return BlockStatistics.from_json(self._part("statistics").tobytes().decode())

    def _part(self, name: str) -> np.ndarray:
        with np.load(self.file, allow_pickle=False) as parts:
            part: np.ndarray = parts[name]
        return part


def read_block(task: ReadTask) -> BlockStatistics:
    """Take a block apart, leave out what its filters say, and write the rest, unless that was done before."""
    if task.file.exists():
        return PairsFile(task.file).statistics()
    parsed = task.block.parse()
    statistics = BlockStatistics(len(parsed.pairs) + len(parsed.bad))
    statistics.bad.add(parsed.bad)
    pairs = _filtered(parsed.pairs, task, statistics.dropped)
    write_arrays(
        task.file,
        text=_as_bytes("\n".join(map("\t".join, pairs))),
        hashes=hashes_of(pairs),
        scripts=_scripts(pairs, task.filters),
        statistics=_as_bytes(statistics.to_json()),
    )
    return statistics


def hashes_of(pairs: Sequence[Pair]) -> np.ndarray:
    """Return a hash of each side, by which equal ones are found: uint64 [N, 2].

    Among ten million sides, two different ones share a hash with a probability of three in a million.
    """
    blake2b = hashlib.blake2b
    digests = [
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for pair in pairs for text in pair
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def _scripts(pairs: Sequence[Pair], filters: tuple[str, ...]) -> np.ndarray:
    if "script" not in filters:
        return np.zeros((len(pairs), 2), dtype=np.uint8)
    return np.stack([main_scripts([pair[side] for pair in pairs]) for side in (0, 1)], axis=1)


def write_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write arrays as one file, which is there whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    with naming(partial), open(partial, "wb") as opened:
        np.savez(opened, **arrays)  # type: ignore[arg-type]
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(partial, file)


def _filtered(pairs: list[Pair], task: ReadTask, dropped: Dropped) -> list[Pair]:
    if "identical" in task.filters:
        pairs = _without(dropped, "identical", pairs, np.array([source == target for source, target in pairs], bool))
    if "ratio" in task.filters:
        pairs = _without(dropped, "ratio", pairs, _are_uneven(pairs, task.max_ratio))
    return pairs


def _are_uneven(pairs: list[Pair], max_ratio: float) -> np.ndarray:
    """Compare the sides in UTF-8 bytes, which say about as much in most scripts, as characters do not: bool [N]."""
    lengths = np.array([(len(source), len(target)) for source, target in pairs], dtype=np.int64).reshape(-1, 2)
    # A character takes one byte to four, so that most pairs need not be encoded.
    uneven: np.ndarray = 4 * lengths.max(axis=1) > max_ratio * lengths.min(axis=1)
    for number in np.flatnonzero(uneven).tolist():
        shorter, longer = sorted(len(text.encode("utf-8", "surrogatepass")) for text in pairs[number])
        uneven[number] = longer > max_ratio * shorter
    return uneven


def _without(dropped: Dropped, reason: str, pairs: list[Pair], unwanted: np.ndarray) -> list[Pair]:
    found = np.flatnonzero(unwanted).tolist()
    if not found:
        return pairs
    dropped.add(reason, len(found), ("\t".join(pairs[number]) for number in found))
    return [pairs[number] for number in np.flatnonzero(~unwanted).tolist()]


def _as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
