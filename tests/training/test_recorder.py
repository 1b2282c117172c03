"""The recorder on tables that move as a function of the step: any number of ranks, stops, words that go."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.storage.recorded_vectors import RecordedVectors, vectors_file
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import CharacterTokenizer, WhitespaceTokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary
from dist_s2s.training import recorder
from dist_s2s.training.events import CheckpointBegin, ChunkBegin, StepEnd
from dist_s2s.training.recorded_words import AT_MOST, default_words, named_words
from dist_s2s.training.recorder import VectorRecorder, record_interval
from tests.rank_pool import RankPool

WORDS = [f"w{number}" for number in range(127)]  # with the specials 131 rows
DIM = 5


def side_of(words: list[str]) -> TextSide:
    return TextSide(WhitespaceTokenizer(), Vocabulary([*SPECIALS, *words]))


SIDES = {"source": side_of(WORDS), "target": side_of([f"t{word}" for word in WORDS])}
CORPUS = ExampleList(Example([4 + n % 40, 4 + n % 7], [130 - n % 90]) for n in range(200))


def rows_at(step: int, ids: list[int]) -> np.ndarray:
    numbers = np.array(ids, dtype=np.int64)[:, None] * 1.7 + np.arange(DIM)
    return np.sin(numbers + step * 0.3).astype(np.float32)


class Training:
    """Stands for a trainer, and takes its steps."""

    def __init__(self, run_dir: Path, group: dist.ProcessGroup | None, layout: str, **settings: Any) -> None:
        rank, size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
        self.ranks = Ranks(rank, size, torch.device("cpu"), group)
        self.config = Config.model_validate({"run_dir": run_dir, "training": {"record_vectors_every": 2} | settings})
        self.progress, self.corpus = SimpleNamespace(step=0), CORPUS
        tables = [DistributedEmbedding(131, DIM, layout=layout, process_group=group, seed=1) for _ in range(2)]
        self.translator = SimpleNamespace(source_table=tables[0], target_table=tables[1], **SIDES)
        self.said: list[str] = []
        self.move()

    def move(self) -> None:
        for table in (self.translator.source_table, self.translator.target_table):
            ids = table.partition.ids(table.rank).tolist()
            table.weight.data.copy_(torch.from_numpy(rows_at(self.progress.step, ids)))

    def begin(self, step: int = 0) -> VectorRecorder:
        self.progress.step = step
        self.move()
        checkpoint = self.config.run_dir / "checkpoints" / f"step-{step}" if step else None
        return VectorRecorder(self, [("w100 unheard", "tw7")], checkpoint, self.said.append)  # type: ignore[arg-type]

    def go_on(self, listener: VectorRecorder, until: int, saving: int = 6) -> None:
        while self.progress.step < until:
            self.progress.step += 1
            self.move()
            listener(StepEnd(self.progress.step, 1.0, 1.0, 1))
            if self.progress.step % saving == 0:
                listener(CheckpointBegin(self.progress.step))


def files(run_dir: Path) -> list[bytes]:
    return [vectors_file(run_dir, name).read_bytes() for name in ("source", "target")]


def whole(group: dist.ProcessGroup | None, run_dir: Path, layout: str) -> list[str]:
    training = Training(run_dir, group, layout)
    training.go_on(training.begin(), until=18)
    return training.said


def stopped(group: dist.ProcessGroup, run_dir: Path) -> None:
    """Killed at step 17, the newest checkpoint is that of step 6; its successor was killed while it was written."""
    training = Training(run_dir, group, "round_robin")
    training.go_on(training.begin(), until=17)
    again = Training(run_dir, group, "contiguous")
    again.go_on(again.begin(step=6), until=18)


def test_files_do_not_depend_on_ranks_layout_or_stops(ranks: RankPool, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    assert whole(None, alone, "contiguous") == [
        "recording the vectors of 26 source words and 26 target words every 2 steps"
    ]
    found = RecordedVectors.load(vectors_file(alone, "source"))
    assert found.steps.tolist() == list(range(0, 19, 2))
    for step, rows in zip(found.steps.tolist(), found.rows, strict=True):
        assert np.array_equal(rows, rows_at(step, [word.id for word in found.words]))
    for name, function, arguments in (("two", whole, ["round_robin"]), ("stopped", stopped, [])):
        run_dir = tmp_path / name
        run_dir.mkdir()
        ranks.run(function, run_dir, *arguments, world_size=2)
        assert files(run_dir) == files(alone)


def test_records_stay_bounded_and_a_run_that_was_stopped_thins_them_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MOST_RECORDS", 4)
    assert [record_interval(step, 2) for step in (0, 7, 8, 15, 16, 33)] == [2, 2, 4, 4, 8, 16]
    training = Training(tmp_path, None, "contiguous")
    training.go_on(training.begin(), until=30)
    steps = RecordedVectors.load(vectors_file(tmp_path, "target")).steps.tolist()
    assert steps == [0, 8, 16, 24]
    before = files(tmp_path)
    again = Training(tmp_path, None, "contiguous")
    again.go_on(again.begin(step=6), until=30)
    assert files(tmp_path) == before


def test_other_words_may_be_named_where_a_run_goes_on(tmp_path: Path) -> None:
    """A word that stays keeps its records; a new one is absent before."""
    training = Training(tmp_path, None, "contiguous", record_words=["w3", "tw5"])
    training.go_on(training.begin(), until=6)
    again = Training(tmp_path, None, "contiguous", record_words=["w9", "w3"])
    again.go_on(again.begin(step=6), until=12)
    source, target = (RecordedVectors.load(vectors_file(tmp_path, name)) for name in ("source", "target"))
    assert [word.word for word in source.words] == ["w9", "w3"]
    assert np.isnan(source.rows[:, 0, 0]).tolist() == [True] * 4 + [False] * 3
    assert not np.isnan(source.rows[:, 1]).any()
    assert target.rows.shape == (7, 0, DIM)


@contextmanager
def streaming(run_dir: Path) -> Iterator[tuple[Training, dict[str, DynamicVocabulary]]]:
    """A stream whose vocabularies have room for two words."""
    training = Training(run_dir, None, "contiguous", validate_every=99)
    vocabularies = {name: DynamicVocabulary(6) for name in SIDES}
    training.config = training.config.model_copy(
        update={"data": training.config.data.model_copy(update={"stream": "pairs"})}
    )
    for name, vocabulary in vocabularies.items():
        setattr(training.translator, name, TextSide(WhitespaceTokenizer(), vocabulary))
    yield training, vocabularies


def chunk(training: Training, vocabularies: dict[str, DynamicVocabulary], **counts: int) -> ChunkBegin:
    changes = [vocabulary.update(counts) for vocabulary in vocabularies.values()]
    return ChunkBegin(training.progress.step, 0, 1, 0, *changes)


def test_words_that_are_replaced_are_absent_from_then_on(tmp_path: Path) -> None:
    """Also after the run has gone on, and where the word comes back."""
    with streaming(tmp_path) as (training, vocabularies):
        listener = training.begin()
        assert training.said == []
        listener(chunk(training, vocabularies, cat=3, dog=2))
        assert training.said == ["recording the vectors of 2 source words and 2 target words every 2 steps"]
        training.go_on(listener, until=6)
        listener(chunk(training, vocabularies, owl=5))
        assert "other source words have replaced recorded ones, absent from here on: dog" in training.said
        training.go_on(listener, until=12)
        before = files(tmp_path)
    again = Training(tmp_path, None, "contiguous")
    again.config, again.translator = training.config, training.translator
    again.go_on(again.begin(step=6), until=12)
    assert files(tmp_path) == before
    found = RecordedVectors.load(vectors_file(tmp_path, "source"))
    assert [word.word for word in found.words] == ["cat", "dog"]
    assert np.isnan(found.rows[:, 1]).all(axis=1).tolist() == [False] * 4 + [True] * 3
    assert not np.isnan(found.rows[:, 0]).any()


def test_the_words_that_are_recorded_if_none_are_named() -> None:
    words = default_words(SIDES, CORPUS, [("w100 unheard w0", "tw7 tw8")])
    source = [word.word for word in words["source"]]
    assert source == [f"w{n}" for n in range(20)] + [f"w{n}" for n in range(35, 40)] + ["w100"]
    assert [word.word for word in words["target"]][-2:] == ["tw7", "tw8"]
    many = default_words(SIDES, CORPUS, [(" ".join(WORDS), "")])
    assert len(many["source"]) == AT_MOST


def test_named_words_are_looked_up_on_both_sides() -> None:
    sides = SIDES | {"target": side_of(["w5", "猫"])}
    words = named_words(["w5", "猫", "w5"], sides, {})
    assert {name: [(w.word, w.id) for w in found] for name, found in words.items()} == {
        "source": [("w5", 9)],
        "target": [("w5", 4), ("猫", 5)],
    }
    gone = replace(words["target"][1], absent_after=3)
    assert named_words(["猫"], SIDES, {"target": [gone]})["target"] == [gone]


def test_an_unknown_word_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'unheard' is no token of the run: it is not in the source vocabulary, and"):
        Training(tmp_path, None, "contiguous", record_words=["w5", "unheard"]).begin()
    characters = TextSide(CharacterTokenizer(), Vocabulary([*SPECIALS, "天", "气"]))
    with pytest.raises(UserError, match=r"'天气' is .*the source cuts it into 天 气, and it is not in the target voc"):
        named_words(["天气"], SIDES | {"source": characters}, {})
    with pytest.raises(ValueError, match=r"training.record_words needs training.record_vectors_every"):
        Config.model_validate({"training": {"record_words": ["w5"]}})
