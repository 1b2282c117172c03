"""The tokenizers and vocabularies of both sides from the pairs of the blocks' files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dist_s2s.preparation.reading import PairsFile
from dist_s2s.preparation.selecting import TRAIN
from dist_s2s.preparation.workers import ordered_map
from dist_s2s.text.building import SideName, build_side
from dist_s2s.text.inputs import Pair
from dist_s2s.text.side import SideSettings, TextSide


@dataclass(frozen=True)
class StoredPairs:
    """The training pairs in their blocks' files, or some of them evenly spread; read again at each pass.

    Attributes:
        blocks: the files.
        places: what each block's pairs are for.
        most: how many pairs are gone through at most.
    """

    blocks: Sequence[PairsFile]
    places: Sequence[np.ndarray]
    most: int

    def __len__(self) -> int:
        return -(-self._total() // self._step())

    def __iter__(self) -> Iterator[Pair]:
        before, step = 0, self._step()
        for block, places in zip(self.blocks, self.places, strict=True):
            rows = np.flatnonzero(places == TRAIN)
            chosen = rows[-before % step :: step]
            before += len(rows)
            yield from zip(*block.columns(chosen), strict=True)

    def _step(self) -> int:
        return max(1, -(-self._total() // self.most))

    def _total(self) -> int:
        return sum(int((rows == TRAIN).sum()) for rows in self.places)


@dataclass(frozen=True)
class SideTask:
    """A side that is to be built, or both of them as one."""

    name: SideName
    settings: SideSettings
    pairs: StoredPairs


def build_stored_sides(
    source: SideSettings, target: SideSettings, pairs: StoredPairs, workers: int
) -> tuple[TextSide, TextSide]:
    """Build both sides, at the same time if there are two workers; see `text.building.build_sides`."""
    tasks = [SideTask("joint", source, pairs)]
    if not source.joint:
        tasks = [SideTask("source", source, pairs), SideTask("target", target, pairs)]
    files = list(ordered_map(_build_files, tasks, min(workers, len(tasks))))
    sides = [TextSide.from_files(each, task.name, task.settings) for each, task in zip(files, tasks, strict=True)]
    return sides[0], TextSide.of(target, sides[-1].tokenizer, sides[-1].vocabulary)


def _build_files(task: SideTask) -> dict[str, bytes]:
    return build_side(task.name, task.settings, task.pairs).files(task.name)
