"""A listener that records how the vectors of chosen words move: see ``storage.recorded_vectors`` for the files.

Protocol. To record takes no collective: each rank copies those of the rows that it owns, and keeps them. Collectives
are called at these moments alone, unconditionally and in the same order on all ranks:

    1. begin        the first rank reads the files of the run that goes on, or chooses the words; all learn of them.
                    When the recorder is made; on a new stream, with its first chunk
    2. gather       before a checkpoint is written, for each side that has new records: one all_reduce of int32
                    [records, words, D], in which each rank has the bits of its rows, and zeros elsewhere
    3. write        the first rank, then all learn whether it could

So the files hold the same bits at any number of ranks. They are complete before the checkpoint is: a kill between the
two leaves records of later steps than the newest checkpoint, which the run drops when it goes on.

Memory and files stay bounded: after 1,000 records the interval is doubled, and every other record dropped, and so on.
The interval depends on the step alone, so a run that was stopped goes on like one that was not.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dist_s2s import counted
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.storage.recorded_vectors import SIDES, RecordedVectors, RecordedWord, vectors_file
from dist_s2s.training.events import CheckpointBegin, ChunkBegin, Event, StepEnd
from dist_s2s.training.recorded_words import Words, default_words, named_words
from dist_s2s.training.trainer import Trainer
from dist_s2s.translation.scores.scoring import Pairs

MOST_RECORDS = 1_000


class VectorRecorder:
    """Records the vectors of both sides every ``training.record_vectors_every`` steps. Making it is collective.

    It must hear of a step before those listeners that write a checkpoint of it.

    Args:
        trainer: stands where the run begins or goes on.
        samples: pairs whose words are recorded too, unless the run names its words.
        checkpoint: what the run goes on from, with what was recorded until then; None for a new run.
        say: shows a line to the user.

    Raises:
        UserError: on all ranks, for a word that is unknown, or a file that is damaged.
    """

    def __init__(self, trainer: Trainer, samples: Pairs, checkpoint: Path | None, say: Callable[[str], None]) -> None:
        every = trainer.config.training.record_vectors_every
        assert every is not None
        self._every, self._trainer, self._samples, self._say = every, trainer, samples, say
        self._sides: dict[str, _SideRecorder] = {}
        # A new stream has no words before its first chunk.
        if trainer.config.data.stream is None or trainer.progress.step > 0:
            self._begin(checkpoint)

    def __call__(self, event: Event) -> None:
        """Record (local), begin on a stream, or write the files (collective), if it is time."""
        match event:
            case StepEnd(step) if step % record_interval(step, self._every) == 0:
                self._record(step)
            case ChunkBegin(step):
                if not self._sides:
                    self._begin(None)
                for name, changes in (("source", event.source), ("target", event.target)):
                    self._note_replaced(name, {index for index, old, _ in changes if old is not None}, step)
            case CheckpointBegin(step):
                self._save(step)

    def _begin(self, checkpoint: Path | None) -> None:
        trainer, translator = self._trainer, self._trainer.translator
        step = trainer.progress.step
        saved: dict[str, RecordedVectors] = {}  # on the first rank

        def choose() -> dict[str, list[dict[str, Any]]]:
            if checkpoint is not None:
                saved.update(_load(checkpoint.parent.parent, step))
            words = self._choose({name: list(records.words) for name, records in saved.items()})
            return {name: [asdict(word) for word in words[name]] for name in SIDES}

        found = trainer.ranks.on_first(choose)
        for name, table in zip(SIDES, (translator.source_table, translator.target_table), strict=True):
            words = [RecordedWord(**word) for word in found[name]]
            self._sides[name] = _SideRecorder(table, words, saved.get(name))
        counts = " and ".join(counted(len(self._sides[name].words), f"{name} word") for name in SIDES)
        self._say(f"recording the vectors of {counts} every {counted(self._every, 'step')}")
        if step % record_interval(step, self._every) == 0:
            self._record(step)

    def _choose(self, known: Words) -> Words:
        trainer, names = self._trainer, self._trainer.config.training.record_words
        sides = {"source": trainer.translator.source, "target": trainer.translator.target}
        if names:
            return named_words(names, sides, known)
        return known if known.keys() == sides.keys() else default_words(sides, trainer.corpus, self._samples)

    def _record(self, step: int) -> None:
        for side in self._sides.values():
            side.record(step)

    def _note_replaced(self, name: str, ids: set[int], step: int) -> None:
        gone = self._sides[name].note_replaced(ids, step)
        if gone:
            self._say(f"other {name} words have replaced recorded ones, absent from here on: {' '.join(gone)}")

    def _save(self, step: int) -> None:
        ranks, interval = self._trainer.ranks, record_interval(step, self._every)
        for side in self._sides.values():
            side.gather(ranks)

        def write() -> None:
            for name, side in self._sides.items() if ranks.is_first else ():
                if interval > self._every:
                    side.records = side.records.every(interval)
                side.records.save(vectors_file(self._trainer.config.run_dir, name))

        ranks.together(write)


class _SideRecorder:
    """The recorded words of one table.

    Attributes:
        words: the same on all ranks.
        records: of all ranks' rows, on the first one; without those since ``gather``.
    """

    def __init__(self, table: DistributedEmbedding, words: list[RecordedWord], records: RecordedVectors | None) -> None:
        self._table, self.words = table, words
        dim = table.embedding_dim
        self.records = RecordedVectors.empty(words, dim) if records is None else records.of_words(words)
        owners_and_rows = [table.partition.owner_and_row(word.id) for word in words]
        self._places = [place for place, (owner, _) in enumerate(owners_and_rows) if owner == table.rank]
        rows = [owners_and_rows[place][1] for place in self._places]
        self._own_rows = torch.tensor(rows, dtype=torch.int64, device=table.weight.device)
        self._new_steps: list[int] = []
        self._new_rows: list[Tensor] = []  # [own words, D] of each new step

    def record(self, step: int) -> None:
        """Copy this rank's rows (local)."""
        self._new_steps.append(step)
        self._new_rows.append(self._table.weight.detach().index_select(0, self._own_rows).float())

    def note_replaced(self, ids: set[int], step: int) -> list[str]:
        """Let those words be absent after a step whose ids others have now; return them (local)."""
        gone = [place for place, word in enumerate(self.words) if word.id in ids and word.absent_after is None]
        for place in gone:
            self.words[place] = replace(self.words[place], absent_after=step)
        return [self.words[place].word for place in gone]

    def gather(self, ranks: Ranks) -> None:
        """Move all ranks' new rows to the records of the first one (collective, if there are any)."""
        if not self._new_steps:
            return
        rows = torch.zeros(len(self._new_steps), len(self.words), self._table.embedding_dim, device=ranks.device)
        rows[:, self._places] = torch.stack(self._new_rows)
        # As integers, of which all but one are zero: no bit changes, not even the sign of a zero.
        ranks.sum_in_place(rows.view(torch.int32))
        if ranks.is_first:
            self.records = self.records.extended(self.words, np.array(self._new_steps), rows.cpu().numpy())
        self._new_steps, self._new_rows = [], []


def record_interval(step: int, every: int) -> int:
    """Return how many steps lie between records at a step, if at first ``every`` do."""
    while step >= MOST_RECORDS * every:
        every *= 2
    return every


def _load(run_dir: Path, step: int) -> dict[str, RecordedVectors]:
    """Return what was recorded of each side until a step; nothing if the run did not record."""
    paths = {name: vectors_file(run_dir, name) for name in SIDES}
    return {name: RecordedVectors.load(path).until(step) for name, path in paths.items() if path.exists()}
