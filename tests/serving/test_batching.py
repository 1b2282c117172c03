"""What waits: together with what it is answered, and what becomes of those who cannot be, or who have gone."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dist_s2s import UserError
from dist_s2s.serving.batching import Batcher
from dist_s2s.serving.limits import Limits
from dist_s2s.serving.metrics import Metrics
from dist_s2s.serving.requests import NeighboursRequest, Refusal, TranslateRequest


class Recorder:
    """Turns that note what is asked, and answer after ``may_answer`` is set."""

    is_alone = True
    someone_is_told_to_stop = False

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    def ask(self, question: Any) -> Any:
        self.asked.append(question)
        assert self.may_answer.wait(20)
        if self.error is not None:
            raise self.error
        if not question or question["about"] == "neighbours":
            return {"word": question and question["word"]}
        return [{"text": each.upper(), "n_best": list(range(question["n_best"]))} for each in question["sentences"]]


def run(work: Callable[[Batcher], Any], turns: Recorder, stop: Callable[[], None] = lambda: None, **limits: Any) -> Any:
    async def within() -> Any:
        batcher = Batcher(turns, Limits(**limits), Metrics(), stop)  # type: ignore[arg-type]
        async with batcher.running():
            return await work(batcher)

    return asyncio.run(asyncio.wait_for(within(), 30))


def of(text: str, beam_size: int = 1, n_best: int = 1) -> TranslateRequest:
    return TranslateRequest(tuple(text), beam_size, n_best)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_sentences_of_one_beam_size_are_translated_together() -> None:
    turns = Recorder()

    async def work(batcher: Batcher) -> Any:
        requests = [of("ab", 3, 2), of("c"), of("d", 3, 3), of("e", 3)]
        word = batcher.neighbours(NeighboursRequest("f", "source", 1))
        return await asyncio.gather(*map(batcher.translate, requests), word)

    first, second, third, fourth, fifth = run(work, turns, batch_window=0.05)
    assert [question.get("sentences", question.get("word")) for question in turns.asked] == [list("abde"), ["c"], "f"]
    assert [each["text"] for each in first + second + third + fourth] == list("ABCDE")
    assert [len(each["n_best"]) for each in first + second + third + fourth] == [2, 2, 1, 3, 1]
    assert fifth == {"word": "f"}


def test_a_batch_waits_as_long_as_others_come_but_not_for_ever() -> None:
    turns, window = Recorder(), 0.03

    async def work(batcher: Batcher) -> None:
        tasks = []
        for text in "abcdefghijkl":  # one every 20 ms
            tasks.append(asyncio.create_task(batcher.translate(of(text))))
            await asyncio.sleep(2 * window / 3)
        await asyncio.gather(*tasks)

    run(work, turns, batch_window=window)
    asked = [question["sentences"] for question in turns.asked]
    assert [text for sentences in asked for text in sentences] == list("abcdefghijkl")
    assert 2 < len(asked[0]) < 12


def test_a_batch_has_a_largest_size() -> None:
    turns = Recorder()
    run(lambda batcher: batcher.translate(of("abcdefg")), turns, max_batch=3)
    assert [len(question["sentences"]) for question in turns.asked] == [3, 3, 1]


def test_too_much_that_waits_is_refused_whole() -> None:
    turns = Recorder()
    turns.may_answer.clear()

    async def work(batcher: Batcher) -> Any:
        first = asyncio.create_task(batcher.translate(of("a")))
        await until(lambda: bool(turns.asked))
        second = asyncio.create_task(batcher.translate(of("bc")))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="2 sentences wait already; try again later") as refused:
            await batcher.translate(of("de"))
        assert refused.value.status == 503
        turns.may_answer.set()
        return await first, await second, await batcher.translate(of("fgh"))

    run(work, turns, max_waiting=3)
    assert [question["sentences"] for question in turns.asked] == [["a"], ["b", "c"], list("fgh")]


def test_who_has_gone_takes_no_place() -> None:
    turns = Recorder()
    turns.may_answer.clear()

    async def work(batcher: Batcher) -> Any:
        first = asyncio.create_task(batcher.translate(of("a")))
        await until(lambda: bool(turns.asked))
        for _ in range(5):
            gone = asyncio.create_task(batcher.translate(of("bcd")))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
        last = asyncio.create_task(batcher.translate(of("xyz")))
        await asyncio.sleep(0)
        turns.may_answer.set()
        return await first, await last

    run(work, turns, max_waiting=3)
    assert turns.asked[-1]["sentences"] == list("xyz")


def test_who_has_gone_is_not_answered_and_disturbs_nobody() -> None:
    turns = Recorder()
    turns.may_answer.clear()

    async def work(batcher: Batcher) -> Any:
        first, second, third = (asyncio.create_task(batcher.translate(of(text))) for text in "abc")
        await until(lambda: bool(turns.asked))
        fourth, fifth = (asyncio.create_task(batcher.translate(of(text))) for text in "de")
        await asyncio.sleep(0)
        first.cancel()  # while its sentence is translated
        fourth.cancel()  # while it waits
        turns.may_answer.set()
        return await second, await third, await fifth

    answers = run(work, turns)
    assert [each["text"] for [each] in answers] == ["B", "C", "E"]
    assert turns.asked[-1]["sentences"] == ["e"]


def test_an_error_is_told_and_the_next_is_answered() -> None:
    turns = Recorder()

    async def work(batcher: Batcher) -> None:
        for error, kind, message in (
            (UserError("no such word"), UserError, "no such word"),
            (MemoryError("9 GB"), Refusal, "the answer could not be worked out: MemoryError: 9 GB"),
        ):
            turns.error = error
            with pytest.raises(kind, match=message):
                await batcher.translate(of("ab"))
        turns.error = None
        assert [each["text"] for each in await batcher.translate(of("a"))] == ["A"]

    run(work, turns)


def test_ranks_that_fail_end_the_service() -> None:
    turns, stops = Recorder(), list[bool]()
    turns.is_alone, turns.error = False, RuntimeError("Connection closed by peer")
    turns.may_answer.clear()

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.translate(of("a")))
        await until(lambda: bool(turns.asked))
        second = asyncio.create_task(batcher.translate(of("b")))
        await asyncio.sleep(0)
        turns.may_answer.set()
        for task, status in ((first, 500), (second, 503), (asyncio.create_task(batcher.translate(of("c"))), 503)):
            with pytest.raises(Refusal) as refused:
                await task
            assert refused.value.status == status
        assert batcher.failure is turns.error

    run(work, turns, lambda: stops.append(True))
    assert stops == [True]


def test_idle_ranks_take_turns_and_stop_when_one_of_them_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_s2s.serving.batching.IDLE_SECONDS", 0.01)
    turns, stopped = Recorder(), threading.Event()
    turns.is_alone, turns.someone_is_told_to_stop = False, True
    run(lambda _: until(stopped.is_set), turns, stopped.set)
    assert turns.asked[0] is None
