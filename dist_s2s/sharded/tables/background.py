"""What walks through batches ahead of a loop needs: a thread, and to know whether all ranks have a next batch."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Subject

Result = TypeVar("Result")
READY, ENDED, FAILED = 0, 1, 2
_SECONDS_TO_FINISH = 5.0


class PeerError(RuntimeError):
    """Another rank could not make its next batch, and says why in an error of its own."""


class InBackground(Generic[Result]):
    """One call of a function in a thread of its own."""

    def __init__(self, function: Callable[[], Result], name: str) -> None:
        self._function = function
        self._results: list[Result] = []
        self._errors: list[BaseException] = []
        # A daemon, so that a rank that leaves with an error does not wait for the others to meet it here.
        self._thread = threading.Thread(target=self._work, daemon=True, name=name)
        self._thread.start()

    def result(self) -> Result:
        """Return what the function returned, when it has; raise what it raised."""
        self._thread.join()
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def abandon(self) -> None:
        """Wait for the end, so that no collective is left behind, unless the other ranks do not come."""
        self._thread.join(_SECONDS_TO_FINISH)

    def _work(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:  # result raises it, in the thread that waits
            self._errors.append(error)


def agree_on_batches(
    group: RankGroup, subject: Subject, state: int, error: Exception | None, numbers: Sequence[int] = ()
) -> list[list[int]]:
    """Return the state and the numbers of each rank's next batch, by rank (collective).

    Args:
        state: READY, ENDED, FAILED, or a further one of the caller's.
        error: why this rank FAILED.

    Raises:
        Exception: ``error`` itself; on the other ranks a PeerError that quotes the first one.
    """
    reports = group.agree(subject, None, [state, *numbers])
    states = [report[0] for report in reports]
    if FAILED in states:
        text = "" if error is None else f"{type(error).__name__}: {error}"
        texts = group.gather_texts(text, subject)
        if error is not None:
            raise error
        rank = states.index(FAILED)
        raise PeerError(f"rank {rank} could not make its next batch: {texts[rank]}")
    return reports
