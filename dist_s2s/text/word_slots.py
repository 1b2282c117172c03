"""Words in one large dictionary that is touched as little as can be."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, count, repeat

import numpy as np
from numpy.typing import NDArray

from dist_s2s.text.vocabulary import UNK

Ints = NDArray[np.int64]
_ABSENT = 0  # the slot of words that are not there


class WordSlots:
    """A slot for each word, numbered in the order in which they came, with its id, or a count while it has none.

    Looking a word up in a dictionary of millions misses all caches, and so does storing it. What changes about a word
    is therefore kept in arrays: a word that gets another id, or none, is not looked up again.

    Attributes:
        ids: by slot, int64; `UNK` for words without one, and for slot 0, that of all words that are not there.
        counts: by slot, int64; 0 for words with an id.
    """

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self.ids: Ints = np.full(1, UNK)
        self.counts: Ints = np.zeros(1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def find(self, words: Iterable[str]) -> Ints:
        """Return the slots of words, 0 for those that are not there."""
        return np.fromiter(map(self._slots.get, words, repeat(_ABSENT)), np.int64)

    def ids_of(self, words: Iterable[str]) -> list[int]:
        """Return the ids of words, `UNK` for those that have none."""
        ids, slot_of = memoryview(self.ids), self._slots.get  # type: ignore[arg-type]  # numpy arrays are buffers
        return [ids[slot_of(word, _ABSENT)] for word in words]

    def add(self, words: Sequence[str]) -> Ints:
        """Add words that are not there, without ids and counts; return their slots."""
        slots = np.arange(len(self) + 1, len(self) + 1 + len(words))
        if len(slots) and slots[-1] >= len(self.ids):
            room = 2 * int(slots[-1]) + 1 - len(self.ids)
            self.ids = np.concatenate((self.ids, np.full(room, UNK)))
            self.counts = np.concatenate((self.counts, np.zeros(room, dtype=np.int64)))
        self._slots.update(zip(words, slots.tolist(), strict=True))
        return slots

    def without_id(self) -> NDArray[np.bool_]:
        """Tell which slots are those of words without an id: bool [len(self) + 1], False for slot 0."""
        found: NDArray[np.bool_] = self.ids[: len(self) + 1] == UNK
        found[_ABSENT] = False
        return found

    def keep(self, which: NDArray[np.bool_]) -> Ints:
        """Forget all words but those of some slots, bool [len(self) + 1]; return the new slot of each old one."""
        which[_ABSENT] = True
        moved = np.cumsum(which) - 1
        self._slots = dict(zip(compress(self._slots, which[1:].tolist()), count(1)))
        self.ids, self.counts = self.ids[: len(which)][which], self.counts[: len(which)][which]
        return moved
