"""Admission and replacement against a plain reference that looks at all words each time; bounds, files, errors."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_s2s import UserError
from dist_s2s.text.counted_words import CountedWords
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary, load_vocabulary
from dist_s2s.text.least_frequent import LeastFrequent
from dist_s2s.text.vocabulary import EOS, SOS, SPECIALS, UNK, Vocabulary
from dist_s2s.text.vocabulary_changes import Change

WORDS = [f"w{number}" for number in range(12)]
UPDATES = st.lists(st.dictionaries(st.sampled_from(WORDS), st.integers(1, 4)), max_size=12)


class Plain:
    """The documented rules, a word at a time, with a scan of all words for each replacement."""

    def __init__(self, max_size: int, min_frequency: int, halve_every: int | None) -> None:
        self.max_size, self.min_frequency, self.halve_every = max_size, min_frequency, halve_every
        self.words: list[str] = []
        self.counts: Counter[str] = Counter()  # of all words ever seen
        self.counted = 0

    def update(self, counts: dict[str, int]) -> list[Change]:
        self.counts.update(counts)
        changes = []
        new = [word for word in counts if word not in self.words and self.counts[word] >= self.min_frequency]
        for word in sorted(new, key=lambda word: (-self.counts[word], word)):
            if len(self.words) + 4 < self.max_size:
                self.words.append(word)
                changes.append((len(self.words) + 3, None, word))
            elif self.words:
                place = min(range(len(self.words)), key=lambda place: (self.counts[self.words[place]], place))
                if self.counts[self.words[place]] < self.counts[word]:
                    changes.append((place + 4, self.words[place], word))
                    self.words[place] = word
        self.counted += sum(counts.values())
        if self.halve_every is not None and self.counted >= self.halve_every:
            self.counts = Counter({word: count // 2 for word, count in self.counts.items()})
            self.counted = 0
        return changes


@settings(max_examples=30)
@given(UPDATES, st.integers(4, 14), st.integers(1, 3), st.sampled_from([None, 1, 9]))
def test_updates_do_as_the_plain_rules_say(
    updates: list[dict[str, int]], max_size: int, min_frequency: int, halve_every: int | None
) -> None:
    plain = Plain(max_size, min_frequency, halve_every)
    vocabulary = DynamicVocabulary(max_size, min_frequency, halve_every)
    for counts in updates:
        assert list(vocabulary.update(counts)) == plain.update(dict(reversed(counts.items())))
        assert vocabulary.tokens == [*SPECIALS, *plain.words]
        assert vocabulary.counts.tolist()[4 : len(vocabulary)] == [plain.counts[word] for word in plain.words]
        assert vocabulary.encode(WORDS) == [vocabulary.tokens.index(w) if w in plain.words else UNK for w in WORDS]
        assert all((word in vocabulary) == (word in plain.words) for word in WORDS)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=40), st.data())
def test_least_frequent_ids_come_in_order(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    """Entering, rising counts and taking in any order, against a sort."""
    counts = np.zeros(31, dtype=np.int64)
    queue, inside = LeastFrequent(counts), set[int]()
    for index, rise in steps:
        counts[index] += rise
        if index not in inside:
            queue.add(np.array([index]))
            inside.add(index)
        assert queue.lowest_count() <= min(counts[list(inside)])
        number = data.draw(st.integers(0, 5))
        expected = sorted(inside, key=lambda index: (counts[index], index))[:number]
        assert queue.take(number).tolist() == expected
        inside -= set(expected)
        if not inside:
            queue.restart(np.array([0]))
            inside = {0}


def test_many_ids_keep_few_runs() -> None:
    generator = np.random.default_rng(1)
    counts = generator.integers(1, 50, 5000)
    queue = LeastFrequent(counts)
    for start in range(0, 5000, 10):
        queue.add(np.arange(start, start + 10))
        queue.take(3)
    assert len(queue._runs) <= 13
    sizes = [len(run) for run in queue._runs]
    assert sum(sizes) == 3500
    rest = queue.take(9999)
    assert (np.diff(counts[rest]) >= 0).all()
    assert len(set(rest.tolist())) == 3500


def test_candidates_are_bounded_and_their_counts_at_most_a_share_too_low() -> None:
    vocabulary, true_counts = DynamicVocabulary(10, min_frequency=10**6), Counter[str]()
    generator = np.random.default_rng(2)
    for _ in range(200):
        counts = Counter(f"w{number}" for number in generator.zipf(1.5, 50) if number < 2000)
        true_counts.update(counts)
        vocabulary.update(counts)
        assert vocabulary.num_candidates <= 20
    assert len(true_counts) > 100
    counted = vocabulary._words.counts[vocabulary._words.find(true_counts)]
    errors = [count - found for count, found in zip(true_counts.values(), counted.tolist(), strict=True)]
    assert 0 <= min(errors) <= max(errors) <= true_counts.total() / 11


def test_a_word_that_gave_way_comes_back_with_its_count() -> None:
    vocabulary = DynamicVocabulary(5)
    vocabulary.update({"a": 3})
    assert list(vocabulary.update({"b": 4})) == [(4, "a", "b")]
    assert list(vocabulary.update({"a": 1})) == []  # 4 are not more than 4
    assert list(vocabulary.update({"a": 1})) == [(4, "b", "a")]


def test_special_tokens_stay_and_their_strings_are_no_words() -> None:
    vocabulary = DynamicVocabulary(6)
    assert list(vocabulary.update({"<eos>": 99, "<unk>": 99})) == []
    vocabulary.update({"x": 1, "y": 1, "z": 5, "<sos>": 100})
    assert vocabulary.tokens == [*SPECIALS, "z", "x"]
    assert "<eos>" not in vocabulary
    assert vocabulary.encode(["<eos>", "z"]) == [UNK, 4]
    assert list(DynamicVocabulary(4).update({"x": 1})) == []


def test_ids_without_a_word_decode_to_unknown() -> None:
    vocabulary = DynamicVocabulary(7)
    vocabulary.update({"x": 1})
    assert (len(vocabulary), vocabulary.num_ids) == (5, 7)
    assert vocabulary.decode([SOS, 4, 6, EOS, 5]) == ["x", "<unk>"]
    with pytest.raises(ValueError, match="id 7 is outside"):
        vocabulary.decode([7])


@settings(max_examples=30)
@given(UPDATES, UPDATES)
def test_updates_go_on_after_a_file_as_without(before: list[dict[str, int]], after: list[dict[str, int]]) -> None:
    vocabulary = DynamicVocabulary(7, 2, halve_every=11)
    for counts in before:
        vocabulary.update(counts)
    text = vocabulary.to_text()
    loaded = DynamicVocabulary._from(CountedWords.parse(text.splitlines()))
    assert loaded.to_text() == text
    for counts in after:
        assert loaded.update(counts) == vocabulary.update(counts)
    assert loaded.to_text() == vocabulary.to_text()


def test_build_and_files(tmp_path: Path) -> None:
    vocabulary = DynamicVocabulary.build([["b", "a", "b"], ["c"]], max_size=6)
    assert vocabulary.tokens == [*SPECIALS, "b", "a"]
    with pytest.raises(ValueError, match="needs max_size"):
        DynamicVocabulary.build([["a"]])
    path = tmp_path / "vocabulary.txt"
    path.write_text(vocabulary.to_text(), encoding="utf-8")
    loaded = load_vocabulary(path)
    assert isinstance(loaded, DynamicVocabulary)
    assert loaded.counts.tolist() == [0, 0, 0, 0, 2, 1]
    other = DynamicVocabulary(6)
    other.take_over(loaded)
    assert list(other.update({"c": 1})) == [(5, "a", "c")]
    with pytest.raises(ValueError, match="max_size is 6, but that of the other vocabulary 7"):
        other.take_over(DynamicVocabulary(7))
    path.write_text(Vocabulary.build([["b"]]).to_text(), encoding="utf-8")
    assert type(load_vocabulary(path)) is Vocabulary
    with pytest.raises(UserError, match="does not exist"):
        load_vocabulary(tmp_path / "none.txt")


GOOD = DynamicVocabulary.build([["b", "a", "b"], ["c"]], max_size=6).to_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"max_size": 6', '"max_size": "6"', "line 1 must say max_size, a whole number, but has '6'"),
        ('"max_size": 6', '"max_size": 3', "line 1 says 6 tokens, but there are 7 words and 3 ids"),
        ('"dynamic_vocabulary": 1', '"dynamic_vocabulary": 9', "line 1 must hold settings"),
        ('"tokens": 6', '"tokens": 66', "line 1 says 66 tokens, but"),
        ("b\t2", "b 2", "line 6 holds 'b 2': expected TOKEN<TAB>COUNT"),
        ("b\t2", "b\t-2", "line 6 holds 'b\\\\t-2': expected TOKEN<TAB>COUNT"),
        ("b\t2", " \t2", "line 6 holds ' \\\\t2': expected"),
        ("c\t1", "b\t1", "line 8 repeats the word 'b'"),
        ("<eos>\t0", "eos\t0", "must begin with <pad> <sos>"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GOOD
    path = tmp_path / "v.txt"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=f"v.txt is not a dynamic vocabulary: {message}"):
        load_vocabulary(path)


@pytest.mark.parametrize("word", ["", " ", "a b", "a\n", "\u2028"])
def test_what_could_not_stand_in_a_file_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="is no word"):
        DynamicVocabulary(9).update({word: 1, "a": 1})


@pytest.mark.parametrize("settings", [(3,), (9, 0), (9, 1, 0)])
def test_impossible_settings(settings: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        DynamicVocabulary(*settings)


class SeedSketch:
    """The sketch that this vocabulary began as: a plain dict, and a search through all words for each replacement."""

    def __init__(self, max_size: int) -> None:
        self.max_size, self.frequency, self.looked_at = max_size, dict[str, int](), 0
        self.ids: dict[str, int] = {}

    def add(self, word: str, frequency: int) -> None:
        if word in self.ids:
            self.frequency[word] += frequency
        elif len(self.ids) < self.max_size:
            self.ids[word], self.frequency[word] = len(self.ids), frequency
        else:
            rarest = min(self.frequency, key=self._frequency_of)
            if self.frequency[rarest] < frequency:
                self.ids[word] = self.ids.pop(rarest)
                del self.frequency[rarest]
                self.frequency[word] = frequency

    def _frequency_of(self, word: str) -> int:
        self.looked_at += 1
        return self.frequency[word]


def test_a_replacement_looks_at_few_words_and_rare_words_add_up() -> None:
    """The sketch scans V words for each, and never admits a word that comes once at a time, however often."""
    size, new = 2000, [f"new{number}" for number in range(20)]
    sketch, vocabulary = SeedSketch(size), DynamicVocabulary(size + 4)
    for number in range(size):
        sketch.add(f"old{number}", 1)
    vocabulary.update({f"old{number}": 1 for number in range(size)})
    moved = 0
    taken = vocabulary._least._take_entries

    def count_entries(number: int) -> np.ndarray:
        nonlocal moved
        moved += number
        return taken(number)

    vocabulary._least._take_entries = count_entries
    changes = []
    for _ in range(3):
        for word in new:
            sketch.add(word, 1)
        changes += vocabulary.update(dict.fromkeys(new, 1))
    assert len(changes) == len(new)
    assert moved == len(new)  # entries of the queue that were looked at, all of them of words that gave way
    assert not any(word in sketch.ids for word in new)
    assert sketch.looked_at == 3 * len(new) * size
