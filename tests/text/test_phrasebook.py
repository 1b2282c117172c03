"""The phrasebook: enough of it, always the same, honestly split, and grammatical where rules can tell."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from typing import get_args

import pytest

from dist_s2s.text.phrasebook import HELD_OUT_PAIRS, Split, phrasebook, split_sentences
from dist_s2s.text.phrasebook.patterns import PATTERNS

SPLITS: tuple[Split, ...] = get_args(Split)
HELD_OUT: tuple[Split, ...] = ("valid", "test")
SHOWCASE = ("我 爱 自然 语言 处理", "I love natural language processing")
PAIRS = {split: phrasebook(split) for split in SPLITS}
EVERYTHING = [pair for split in SPLITS for pair in PAIRS[split]]


def words(sentence: str) -> set[str]:
    return set(sentence.removesuffix("?").split())


def fingerprint() -> str:
    return hashlib.sha256(repr([phrasebook(split) for split in SPLITS]).encode()).hexdigest()


def test_sizes() -> None:
    assert len(set(EVERYTHING)) >= 20_000
    assert 20_000 <= len(PAIRS["train"]) <= 30_000
    assert [len(PAIRS[split]) for split in HELD_OUT] == [HELD_OUT_PAIRS, HELD_OUT_PAIRS]


def test_same_in_another_process_with_another_hash_seed() -> None:
    program = "from tests.text.test_phrasebook import fingerprint; print(fingerprint())"
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == fingerprint()


def test_changing_a_returned_list_changes_nothing() -> None:
    phrasebook("test").clear()
    assert phrasebook("test") == PAIRS["test"]


def test_showcase_comes_first_in_test() -> None:
    assert PAIRS["test"][0] == SHOWCASE


@pytest.mark.parametrize("side", [0, 1], ids=["source", "target"])
def test_each_sentence_occurs_once(side: int) -> None:
    """So source to target is a function, no English has two sources, and no two splits share a sentence."""
    # Without its spaces, since that is what the character tokenizer sees.
    counts = Counter(pair[side].replace(" ", "") for pair in EVERYTHING)
    assert [sentence for sentence, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("split", HELD_OUT)
def test_held_out_words_and_patterns_are_in_training(split: Split) -> None:
    for side in (0, 1):
        known = set().union(*(words(pair[side]) for pair in PAIRS["train"]))
        assert set().union(*(words(pair[side]) for pair in PAIRS[split])) - known == set()
    patterns = {sentence.pattern for sentence in split_sentences()["train"]}
    assert {sentence.pattern for sentence in split_sentences()[split]} <= patterns


def test_held_out_combinations_are_not_even_part_of_one_in_training() -> None:
    combined = {split: {sentence.composition for sentence in split_sentences()[split]} for split in SPLITS}
    for split in HELD_OUT:
        assert len(combined[split]) > 100
        assert [new for new in combined[split] if any(new <= known for known in combined["train"])] == []
    assert combined["valid"].isdisjoint(combined["test"])


def test_every_pattern_is_well_used_in_training() -> None:
    counts = Counter(sentence.pattern for sentence in split_sentences()["train"])
    table = [line for line in PATTERNS.strip().splitlines() if not line.startswith("=")]
    assert len(set(table)) == len(table)
    assert set(counts) == set(table)
    assert min(counts.values()) >= 5


def test_sentences_are_short_and_written_alike() -> None:
    for source, target in EVERYTHING:
        assert len(source.split()) <= 14
        assert source == " ".join(source.split())
        assert target == " ".join(target.split())
        assert target[0].isupper()
        assert source.endswith(" ？") == target.endswith("?"), (source, target)
        assert not re.search(r"[.,!{}|]", source + target), (source, target)


def test_two_before_a_measure_word_is_liang() -> None:
    assert [source for source, _ in EVERYTHING if re.search(r"(^| )二 ", source)] == []
    two_books = [target for source, target in EVERYTHING if "两 本 书" in source]
    assert two_books
    assert all("two books" in target for target in two_books)


WRONG_ENGLISH = {
    "third person without -s": r"^(He|She|Xiaoming|My mother) (like|drink|eat|want|go|have|know|live|do|need)\b",
    "-s with another person": r"^(I|You|We|They|The children) ((also|often) )?(likes|drinks|goes|has|does|is)\b",
    "do with the third person": r"\b[Dd]o (he|she|Xiaoming|my mother)\b",
    "does with another person": r"\b[Dd]oes (I|you|we|they|the children)\b",
    "inflected after did": r"\b[Dd]id (not |\w+ )?(drank|ate|went|drinks|eats|goes|bought)\b",
    "inflected after will or to": r"\b([Ww]ill|wants? to) (not )?(drank|ate|went|drinks|eats|goes|bought)\b",
    "be with the wrong person": r"\bI (is|are|were)\b|\b([Ww]e|[Tt]hey) (is|was|am)\b|\b(S?he|[Ss]he) (are|were|am)\b",
    "a before a vowel": r"\b[Aa] [aeiou]",
    "an before a consonant": r"\b[Aa]n [^aeiou]",
    "one with a plural": r"\b(a|an) (books|eggs|cats|children)\b",
    "number with a singular": r"\b(two|three|ten) (book|egg|cat|child|cup|bowl|dictionary)\b",
    "there is with a plural": r"\b[Tt]here is (two|three|four|five)\b|\b[Tt]here are an? ",
    "subject case of an object": r"\b(with|gave|saw|helped|called|for|than) (I|he|she|we|they)\b",
    "regular ending on an irregular word": r"\b(drinked|eated|goed|runned|swimmed|readed|writed|buyed|childs)\b",
}


@pytest.mark.parametrize("mistake", WRONG_ENGLISH)
def test_english_is_free_of(mistake: str) -> None:
    assert [target for _, target in EVERYTHING if re.search(WRONG_ENGLISH[mistake], target)][:5] == []


TENSES = {  # what marks a tense in the Chinese: what the English must then have
    r"(昨天|前天|上 个 星期) .* 了$": r"^(?!.*\b(is|are|am|will)\b)",
    r" 正在 ": r"\b(is|am|are) \w+ing\b",
    r"^\S+ 没 在 ": r"\b(is|am|are) not \w+ing\b",
    r"^\S+ 明天 会 ": r"\b[Ww]ill\b",
    r"^\S+ 明天 要 ": r"\bgoing to\b",
    r" (每天|常常) [^？]*$": r"^(?!.*\b(did|will|is|are|am)\b)",
    r"^谁 ": r"^Who ",
}


@pytest.mark.parametrize("mark", TENSES)
def test_tense_follows_its_mark(mark: str) -> None:
    marked = [(source, target) for source, target in EVERYTHING if re.search(mark, source)]
    assert len(marked) > 50
    assert [pair for pair in marked if not re.search(TENSES[mark], pair[1])][:5] == []


@pytest.mark.parametrize(
    ("source", "target"), [SHOWCASE, ("你 好 吗 ？", "How are you?"), ("今天 是 星期一", "Today is Monday")]
)
def test_known_pairs(source: str, target: str) -> None:
    assert dict(EVERYTHING)[source] == target
