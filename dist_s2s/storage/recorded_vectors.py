"""The vectors of chosen words over the steps of a training: RUN/vectors/source.safetensors and target.safetensors.

    steps      int64 [R]
    rows       float32 [R, N, D]; NaN where a word is absent
    metadata   "words", as JSON: [{"word": …, "id": …, "absent_after": …}, …]

A word is absent before it was recorded for the first time, and after another word has taken its id.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dist_s2s import UserError
from dist_s2s.storage.durable_files import write_durably

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
SIDES = ("source", "target")


@dataclass(frozen=True)
class RecordedWord:
    """A word of a vocabulary, with the number of its row.

    Attributes:
        absent_after: the step after which another word took its id; None if none has.
    """

    word: str
    id: int
    absent_after: int | None = None


@dataclass(frozen=True)
class RecordedVectors:
    """The records of one side: ``words`` N, ``steps`` int64 [R], ``rows`` float32 [R, N, D]."""

    words: tuple[RecordedWord, ...]
    steps: Ints
    rows: Floats

    @classmethod
    def empty(cls, words: Iterable[RecordedWord], dim: int) -> Self:
        """Return the records of these words before there are any."""
        words = tuple(words)
        return cls(words, np.zeros(0, dtype=np.int64), np.zeros((0, len(words), dim), dtype=np.float32))

    def until(self, step: int) -> Self:
        """Return what was known at a step: without later records, and with words that were absent only later."""
        words = tuple(
            replace(word, absent_after=None) if (word.absent_after or 0) > step else word for word in self.words
        )
        kept = self.steps <= step
        return replace(self, words=words, steps=self.steps[kept], rows=self.rows[kept])

    def of_words(self, words: Sequence[RecordedWord]) -> Self:
        """Return the records of these words, NaN for those that were not recorded."""
        places = {(word.word, word.id): place for place, word in enumerate(self.words)}
        found = [(new, places[each.word, each.id]) for new, each in enumerate(words) if (each.word, each.id) in places]
        rows = np.full((len(self.steps), len(words), self.rows.shape[2]), np.nan, dtype=np.float32)
        rows[:, [new for new, _ in found]] = self.rows[:, [old for _, old in found]]
        return replace(self, words=tuple(words), rows=rows)

    def extended(self, words: Sequence[RecordedWord], steps: Ints, rows: Floats) -> Self:
        """Return the records with later ones after them, NaN in place of rows that are another word's now.

        Args:
            words: those of this object, with what has become absent since.
            steps: int64 [R']; those that are not later than this object's are left out.
            rows: of the words' ids, float32 [R', N, D].
        """
        is_later = steps > self.steps[-1:].max(initial=-1)
        steps, rows = steps[is_later], rows[is_later]
        never = np.iinfo(np.int64).max
        last = np.array([never if word.absent_after is None else word.absent_after for word in words], dtype=np.int64)
        rows = np.where((steps[:, None] > last)[:, :, None], np.float32(np.nan), rows)
        return replace(
            self,
            words=tuple(words),
            steps=np.concatenate((self.steps, steps)),
            rows=np.concatenate((self.rows, rows)),
        )

    def every(self, interval: int) -> Self:
        """Return the records of steps that are multiples of ``interval``."""
        kept = self.steps % interval == 0
        return replace(self, steps=self.steps[kept], rows=self.rows[kept])

    def save(self, path: Path) -> None:
        """Write the file through to the disk; the one before it is replaced whole."""
        path.parent.mkdir(exist_ok=True)
        words = json.dumps([vars(word) for word in self.words], ensure_ascii=False)
        write_durably(path, save({"steps": self.steps, "rows": self.rows}, metadata={"words": words}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises:
            UserError: it is damaged, or something else.
            FileNotFoundError: there is none.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                steps, rows = file.get_tensor("steps"), file.get_tensor("rows")
                words = tuple(RecordedWord(**word) for word in json.loads(file.metadata()["words"]))
            if steps.dtype != np.int64 or rows.dtype != np.float32 or rows.shape[:2] != (*steps.shape, len(words)):
                raise ValueError(f"{len(words)} words, steps {steps.shape}, rows {rows.shape}")
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path} holds no recorded vectors ({error}); remove it, and the run records from then on"
            ) from None
        return cls(words, steps, rows)


def vectors_file(run_dir: Path, side: str) -> Path:
    """Return where a run has the records of a side, "source" or "target"."""
    return run_dir / "vectors" / f"{side}.safetensors"
