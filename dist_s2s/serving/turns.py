"""One question after the other, put by the first rank and answered by all of them together.

The protocol. A turn is three steps, each of them on every rank:

1. Rank 0 shares the question as JSON (two broadcasts). ``null`` is the last: all ranks return, and nothing follows.
2. All ranks work out the answer. They have been asked the same of the same text sides and tables, so they call the same
   collectives in the same order. A UserError is raised on all of them, and is the answer.
3. All tell each other whether a signal has asked them to stop (one all_reduce); rank 0 then ends the service.

Rank 0 takes a turn every second even if nobody has asked anything: so no rank waits longer than collectives may, a rank
that has died is noticed, and a signal to any of them reaches all. Any error but a UserError ends its rank, and thereby
the service: the others may be in the midst of a collective, and cannot be told.
"""

import json
from collections.abc import Callable
from typing import Any

from dist_s2s import UserError
from dist_s2s.serving.answers import Answers

IDLE_SECONDS = 1.0

Question = dict[str, Any]


class Turns:
    """The turns of one rank. ``ask`` and ``end`` are for the first, ``follow`` is for all others.

    Args:
        answers: of this rank.
        is_told_to_stop: whether a signal has asked this process to stop.
    """

    def __init__(self, answers: Answers, is_told_to_stop: Callable[[], bool]) -> None:
        self._answers, self._is_told_to_stop = answers, is_told_to_stop
        self._ranks = answers.translator.ranks
        self.is_alone = self._ranks.world_size == 1
        self.someone_is_told_to_stop = False

    def ask(self, question: Question | None = None) -> Any:
        """Return the answer to a question; without one, take a turn for nothing.

        Args:
            question: the name of a method of Answers as ``about``, and its arguments.

        Raises:
            UserError: as the answer.
        """
        question = question or {"about": "nothing"}
        self._ranks.share(json.dumps(question).encode())
        return self._take_turn(question)

    def end(self) -> None:
        """Let all other ranks return from ``follow``."""
        self._ranks.share(json.dumps(None).encode())

    def follow(self) -> None:
        """Answer what the first rank asks until it ends the service."""
        while (question := json.loads(self._ranks.share(b""))) is not None:
            try:
                self._take_turn(question)
            except UserError:
                continue  # the first rank has the same, and tells whoever asked

    def _take_turn(self, question: Question) -> Any:
        answer, error = None, None
        try:
            answer = self._answer(**question)
        except UserError as raised:
            error = raised
        if not self.is_alone and self._ranks.sum([self._is_told_to_stop()])[0]:
            self.someone_is_told_to_stop = True
        if error is not None:
            raise error
        return answer

    def _answer(self, about: str, **arguments: Any) -> Any:
        match about:
            case "translate":
                return self._answers.translate(**arguments)
            case "neighbours":
                return self._answers.neighbours(**arguments)
