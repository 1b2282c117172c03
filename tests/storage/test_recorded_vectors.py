"""Recorded vectors as a file, cut at a step, for other words, and with words that have gone."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dist_s2s import UserError
from dist_s2s.storage.recorded_vectors import RecordedVectors, RecordedWord, vectors_file

WORDS = (RecordedWord("猫", 4), RecordedWord("tree", 9, absent_after=10))
ROWS = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
STEPS = np.array([0, 5, 10, 15])


def records() -> RecordedVectors:
    empty = RecordedVectors.empty([WORDS[0], RecordedWord("tree", 9)], dim=3)
    return empty.extended((WORDS[0], RecordedWord("tree", 9)), STEPS[:1], ROWS[:1]).extended(WORDS, STEPS, ROWS)


def test_rows_of_another_word_are_absent() -> None:
    """Steps that come again are not recorded twice."""
    found = records()
    assert found.steps.tolist() == STEPS.tolist()
    assert np.isnan(found.rows[3, 1]).all()
    assert np.array_equal(found.rows[:3], ROWS[:3])
    assert np.array_equal(found.rows[3, 0], ROWS[3, 0])


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = vectors_file(tmp_path, "source")
    records().save(path)
    found = RecordedVectors.load(path)
    assert found.words == WORDS
    assert found.steps.tolist() == STEPS.tolist()
    assert found.rows.tobytes() == records().rows.tobytes()
    assert set(load_file(path)) == {"steps", "rows"}
    first = path.read_bytes()
    found.save(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize(("step", "kept", "absent_after"), [(9, 2, None), (10, 3, 10), (99, 4, 10), (-1, 0, None)])
def test_what_was_known_at_a_step(step: int, kept: int, absent_after: int | None) -> None:
    found = records().until(step)
    assert found.steps.tolist() == STEPS[:kept].tolist()
    assert found.rows.shape == (kept, 2, 3)
    assert found.words[1].absent_after == absent_after


def test_other_words_keep_the_rows_that_they_had() -> None:
    found = records().of_words([RecordedWord("new", 7), WORDS[0]])
    assert np.isnan(found.rows[:, 0]).all()
    assert np.array_equal(found.rows[:, 1], ROWS[:, 0])


def test_fewer_records() -> None:
    assert records().every(10).steps.tolist() == [0, 10]


def test_a_file_that_is_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "source.safetensors"
    wrong = {"steps": np.zeros(2, np.int64), "rows": np.zeros((2, 1, 3), np.float32)}
    for write in (
        lambda: path.write_bytes(b"no safetensors"),
        lambda: save_file(wrong, path),
        lambda: save_file(wrong, path, {"words": "[]"}),
        lambda: save_file(wrong, path, {"words": '[{"name": "a"}]'}),
        lambda: save_file(wrong, path, {"words": "5"}),
        lambda: save_file({"rows": wrong["rows"]}, path, {"words": "[]"}),
    ):
        write()
        with pytest.raises(UserError, match=r"source\.safetensors holds no recorded vectors .*; remove it"):
            RecordedVectors.load(path)
