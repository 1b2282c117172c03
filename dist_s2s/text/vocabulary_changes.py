"""Which words of a dynamic vocabulary have given way to which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

Change = tuple[int, str | None, str]  # an id, its old word if it had one, and its new word


@dataclass(frozen=True)
class Changes(Sequence[Change]):
    """Ids with their old and new words, in three lists: a tuple for each would have the garbage collector look at all.

    Attributes:
        ids: which have got another word.
        olds: the words that had them, None where there was none.
        words: those that have them.
    """

    ids: list[int]
    olds: list[str | None]
    words: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Change: ...

    @overload
    def __getitem__(self, index: slice) -> "Changes": ...

    def __getitem__(self, index: int | slice) -> "Change | Changes":
        if isinstance(index, slice):
            return Changes(self.ids[index], self.olds[index], self.words[index])
        return self.ids[index], self.olds[index], self.words[index]
