"""Dictionaries are read, found among words, and split; what will not do is told."""

from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.analysis.alignment.dictionary import Entry, check_columns, find_pairs, hold_out, read_dictionary

SOURCE, TARGET = {"eins": 4, "zwei": 5, "drei": 6, "Hand": 7}, {"one": 8, "two": 9, "Hand": 10}


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "d.txt"
    file.write_text("\ufeffeins\tone\n\nzwei two\r\ndrei\tthe three\n", encoding="utf-8")
    expected = [Entry(1, "eins", "one"), Entry(3, "zwei", "two"), Entry(4, "drei", "the three")]
    assert read_dictionary(str(file)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: it has no pair"),
        (b"\n \n", "is empty: it has no pair"),
        (b"eins one\nzwei\n", "line 2 has 1 words, but expected is SOURCE<TAB>TARGET"),
        (b"a b c\n", "line 1 has 3 words"),
        (b"a\t\tb\n", "line 1 has 3 words"),
        (b"a\t \tb\n", "line 1 has 3 words"),
        (b"a b\n\xff b\n", "line 2 is not UTF-8 at byte 1; convert the file"),
    ],
)
def test_files_that_are_no_dictionaries(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "d.txt"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_dictionary(str(file))
    assert str(caught.value).startswith(f"{file} {message}")


def entries(*pairs: str) -> list[Entry]:
    return [Entry(number, *pair.split()) for number, pair in enumerate(pairs, start=1)]


def test_finding() -> None:
    found = find_pairs("d", entries("eins one", "vier four", "eins one", "zwei zwo", "zwei two"), SOURCE, TARGET)
    assert found.pairs == [(4, 8), (5, 9)]
    assert found.description == (
        "d: 3 of 5 pairs found, 1 of them repeated; 2 with an unknown word: "
        "in line 2 'vier' has no source vector and 'four' has no target vector"
    )
    assert find_pairs("d", entries("eins one"), SOURCE, TARGET).description == "d: 1 of 1 pairs found"


def test_columns_that_are_swapped() -> None:
    for pairs, count in (
        (("one eins", "two zwei", "x y"), "0 of 3"),
        (("one eins", "two zwei", "Hand Hand"), "1 of 3"),
    ):
        with pytest.raises(UserError) as caught:
            check_columns("d", entries(*pairs), SOURCE, TARGET)
        swapped = 3 if "Hand Hand" in pairs else 2
        expected = f"d: {count} pairs found; {swapped} if the columns were swapped: swap them, or SRC and TGT"
        assert str(caught.value) == expected


def test_nothing_is_found() -> None:
    with pytest.raises(UserError, match="d: 0 of 1 pairs found; in line 1 'one' has no source vector: are these the"):
        find_pairs("d", entries("one two"), SOURCE, TARGET)


def test_holding_out() -> None:
    pairs = [(word, 10 * word + other) for word in range(20) for other in range(2)]
    learn, test = hold_out(pairs, 0.25, seed=1)
    assert sorted(learn + test) == pairs
    assert len(test) == 10
    assert {word for word, _ in learn}.isdisjoint(word for word, _ in test)
    assert hold_out(pairs, 0.25, seed=1) == (learn, test)
    assert hold_out(pairs, 0.25, seed=2) != (learn, test)
    assert hold_out(pairs, 0, seed=1) == (pairs, [])
