"""Requests wait here, and are answered in batches by a thread that does nothing else."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dist_s2s import UserError, counted
from dist_s2s.serving.answers import Answer
from dist_s2s.serving.limits import Limits
from dist_s2s.serving.metrics import Metrics
from dist_s2s.serving.requests import NeighboursRequest, Refusal, TranslateRequest
from dist_s2s.serving.turns import IDLE_SECONDS, Question, Turns

_LOG = logging.getLogger(__name__)
_MOST_WINDOWS = 4  # that a sentence waits for others


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A sentence or a word, and who waits for the answer.

    Attributes:
        question: what is asked if it is asked alone.
        beam_size: those of one beam size are asked together; None: alone.
    """

    question: Question
    beam_size: int | None
    answer: asyncio.Future[Answer]


class Batcher:
    """All that waits, in the order in which it came.

    The oldest sentence waits ``limits.batch_window`` seconds for others, and as long again while others come, up to
    four times; those of its beam size are then translated together. So clients that are answered together, and then
    ask again, stay together, although their requests come one after the other. Sentences of a request need not stay
    together, so a large one does not hold up the small.

    Args:
        turns: of the first rank.
        limits: of the service.
        metrics: where it is told what has been done.
        stop: called when a rank has been asked to stop, or the ranks have failed.
    """

    def __init__(self, turns: Turns, limits: Limits, metrics: Metrics, stop: Callable[[], None]) -> None:
        self._turns, self._limits, self._metrics, self._stop = turns, limits, metrics, stop
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        # A new thread has torch's default, although numbers so small cost much time in any.
        self._thread = ThreadPoolExecutor(1, "answers", torch.set_flush_denormal, (True,))
        self.failure: Exception | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer within; afterwards a batch that is under way has ended."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            self._thread.shutdown()

    async def translate(self, request: TranslateRequest) -> list[Answer]:
        """Return the answer to each sentence.

        Raises:
            Refusal: too many sentences wait; none of the request's then do.
        """
        how = {"about": "translate", "n_best": request.n_best, "beam_size": request.beam_size}
        questions = [{**how, "sentences": [each], "attention": request.attention} for each in request.sentences]
        # Attention takes longer than a translation, which others shall not wait for: it is asked alone.
        answers = await self._wait_for(questions, None if request.attention else request.beam_size)
        return [{**answer, "n_best": answer["n_best"][: request.n_best]} for answer in answers]

    async def neighbours(self, request: NeighboursRequest) -> Answer:
        """Return the neighbours of a word.

        Raises:
            Refusal: too much waits.
            UserError: as Answers.neighbours.
        """
        question = {"about": "neighbours", "word": request.word, "side": request.side, "number": request.number}
        question["is_token"] = request.is_token
        [answer] = await self._wait_for([question], None)
        return answer

    async def _wait_for(self, questions: list[Question], beam_size: int | None) -> list[Answer]:
        if self.failure is not None:
            raise Refusal(503, "the service has failed and is about to stop")
        waits = sum(not each.answer.done() for each in self._waiting)  # for an asker who is still there
        if waits + len(questions) > self._limits.max_waiting:
            raise Refusal(503, f"{counted(waits, 'sentence waits', 'sentences wait')} already; try again later")
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(question, beam_size, loop.create_future()) for question in questions]
        self._waiting.extend(waiting)
        self._metrics.waiting.set(len(self._waiting))
        self._arrived.set()
        return await asyncio.gather(*(each.answer for each in waiting))  # cancelled, it cancels all of them

    async def _run(self) -> None:
        while self.failure is None:
            try:
                async with asyncio.timeout(None if self._turns.is_alone else IDLE_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                await self._answer([])
                continue
            if self._waiting[0].beam_size is not None:
                await self._others()
            await self._answer(self._take())

    async def _others(self) -> None:
        """Wait for others that may come."""
        for _ in range(_MOST_WINDOWS):
            before = len(self._waiting)
            if before >= self._limits.max_batch:
                break
            await asyncio.sleep(self._limits.batch_window)
            if len(self._waiting) == before:
                break

    def _take(self) -> list[_Waiting]:
        """Take the oldest and what is asked together with it; those whose asker has gone are dropped."""
        alive = [each for each in self._waiting if not each.answer.done()]
        beam_size = alive[0].beam_size if alive else None
        fitting = alive[:1] if beam_size is None else [each for each in alive if each.beam_size == beam_size]
        taken = fitting[: self._limits.max_batch]
        self._waiting = deque(each for each in alive if each not in taken)
        self._metrics.waiting.set(len(self._waiting))
        if not self._waiting:
            self._arrived.clear()
        return taken

    async def _answer(self, taken: list[_Waiting]) -> None:
        """Have all ranks answer what was taken, and hand the answers, or the error, to those who wait."""
        question = _together(taken) if taken else None
        started = time.perf_counter()
        error: Exception | None = None
        found: Any = None
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._turns.ask, question)
        except UserError as raised:
            error = raised
        except Exception as raised:  # such as a lack of memory: those who wait are told
            _LOG.exception("an answer could not be worked out")
            reason = next(iter(str(raised).splitlines()), "")
            error = Refusal(500, f"the answer could not be worked out: {type(raised).__name__}: {reason}")
            if not self._turns.is_alone:
                self._fail(raised)
        if question is not None and question["about"] == "translate":
            self._metrics.batch_sentences.observe(len(taken))
            self._metrics.batch_seconds.observe(time.perf_counter() - started)
        answers = found if isinstance(found, list) else [found] * len(taken)
        for place, each in enumerate(taken):
            if each.answer.done():
                continue  # its asker has gone meanwhile
            if error is not None:
                each.answer.set_exception(error)
            else:
                each.answer.set_result(answers[place])
        if self._turns.someone_is_told_to_stop:
            self._stop()

    def _fail(self, error: Exception) -> None:
        """Tell all who wait that the ranks can no longer answer together, and stop."""
        self.failure = error
        for each in self._waiting:
            if not each.answer.done():
                each.answer.set_exception(Refusal(503, "the service has failed and is about to stop"))
        self._stop()


def _together(taken: list[_Waiting]) -> Question:
    """Return one question that asks what is asked by several; n_best is the largest, and cut by whoever asked less."""
    first = taken[0].question
    if first["about"] != "translate":
        return first
    sentences = [sentence for each in taken for sentence in each.question["sentences"]]
    return {**first, "sentences": sentences, "n_best": max(each.question["n_best"] for each in taken)}
