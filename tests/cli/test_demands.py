"""Prefixes and terms: what is read of files, what is said of those that cannot be used, and what comes of them."""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from dist_s2s import UserError
from dist_s2s.cli.demands import Wanted
from dist_s2s.cli.sentences import until_fault
from dist_s2s.config import Config
from dist_s2s.distributed import joined_ranks
from dist_s2s.models.search import contains
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.translator import Translator
from tests.toy_corpus import PAIRS


class Searched(NamedTuple):
    config: Config
    target: TextSide


OPTIONS = SearchOptions(3, length_factor=0.0, extra_length=7)
LINES = ["我看见猫。", "☃喜欢树。", ""]


@pytest.fixture(scope="module")
def translator() -> Iterator[Translator]:
    """Untrained, from characters to words."""
    sources, targets = zip(*PAIRS, strict=True)
    source = TextSide.build(SideSettings("characters"), sources)
    target = TextSide.build(SideSettings("whitespace"), targets)
    config = Config.model_validate({"model": {"embedding_dim": 8, "hidden_size": 10, "output": "replicated"}})
    with joined_ranks() as alone:
        yield Translator(config, source, target, alone)


def read(translator: Translator, folder: Path, prefixes: str | None = None, terms: str | None = None) -> Wanted:
    paths = []
    for name, text in (("prefixes", prefixes), ("terms", terms)):
        paths.append(None if text is None else folder / name)
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return Wanted.read(Namespace(prefix=paths[0], terms=paths[1]), translator)


def check(translator: Translator, wanted: Wanted, groups: list[list[str]]) -> list[list[str]]:
    checked = until_fault(groups, "in.txt", lambda group, begin: wanted.fault(group, begin, translator, OPTIONS))
    return list(wanted.paired(checked, "in.txt"))


def test_translations_begin_with_prefixes_and_contain_terms(translator: Translator, tmp_path: Path) -> None:
    wanted = read(translator, tmp_path, "Anna saw\n\n\n", "☃\tthe moon\n猫。\ta cat\n\n看\tAnna\n")
    assert check(translator, wanted, [LINES[:2], LINES[2:]]) == [LINES[:2], LINES[2:]]
    for options in (OPTIONS, replace(OPTIONS, beam_size=1), replace(OPTIONS, coverage_penalty=0.1, no_repeat_ngram=1)):
        found = translator.translate(LINES, options, prefixes=wanted.prefixes_of(0, 3), terms=wanted.terms)
        texts = [each.text for each in found]
        assert texts[0].startswith("Anna saw")
        assert contains(texts[0].split(), ["a", "cat"])
        assert contains(texts[1].split(), ["the", "moon"])
        assert texts[2] == ""
        wanted.add(found, 0, translator)
    wanted.tell(True, 3)
    assert wanted.lacking == []


def test_a_long_line_has_its_prefix_once_and_each_term_in_its_piece(translator: Translator, tmp_path: Path) -> None:
    wanted = read(translator, tmp_path, "Anna\n", "树\ta tree\n")
    whole, translator.batching = translator.batching, translator.batching.with_options(None, 5)
    try:
        [found] = translator.translate(["我看见猫。我喜欢树。"], OPTIONS, prefixes=wanted.prefixes, terms=wanted.terms)
    finally:
        translator.batching = whole
    first, second = (translator.target.decode(part.ids) for part in found.n_best[0].parts)
    assert first.startswith("Anna")
    assert contains(second.split(), ["a", "tree"])


def test_what_could_not_be_met_is_told(
    translator: Translator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = read(translator, tmp_path, terms="我\ta a\n喜\tthe tree\n")
    never_twice = replace(OPTIONS, no_repeat_ngram=1)
    wanted.add(translator.translate(LINES, never_twice, terms=wanted.terms), 10, translator)
    wanted.tell(False, 13)
    assert capsys.readouterr().err == ""
    wanted.tell(True, 13)
    said = "warning: 1 of 13 translations lacks 1 term: line 11; a larger --beam_size or --extra_length may find more\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("prefixes", "terms", "message"),
    [
        ("I saw\nI hate you\n", None, "prefixes line 2: the target vocabulary lacks 'hate', so no translation can "),
        (None, "猫\ta cat\n树 a tree\n", "terms line 2 is no term: expected SOURCE<TAB>TARGET"),
        (None, "猫\ta\tcat\n", "terms line 1 is no term"),
        (None, "猫\t \n", "terms line 1 is no term"),
        (None, "\u200b\ta cat\n", "terms line 1 is no term"),
        (None, "猫\t\u200b\n", "terms line 1 is no term"),
        (None, "\n猫\ta dog\n", "terms line 2: the target vocabulary lacks 'dog'"),
        (None, "猫\ta cat\n树\ta tree\n 猫\tthe\n", "terms line 3 has the source phrase of line 1 again"),
    ],
)
def test_files_that_cannot_be_used(
    prefixes: str | None, terms: str | None, message: str, translator: Translator, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        read(translator, tmp_path, prefixes, terms)
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("prefixes", "terms", "message"),
    [
        ("I\n\n", None, "prefixes has 2 lines, but in.txt has 3 lines: each line needs a prefix, which may be empty"),
        (
            "I\n\n\n\n",
            None,
            "prefixes has 4 lines, but in.txt has 3 lines: each line needs a prefix, which may be empty",
        ),
        ("\n" + "I " * 7 + "\n\n", None, "in.txt line 2 has a prefix of 7 tokens, but its translation has at most 7, "),
        ("\n\nI\n", None, "in.txt line 3 is empty, and so is its translation: leave line 3 of the prefixes empty"),
        (None, "欢\ta a a a\n树\tI I I\n", "in.txt line 2 has terms of 7 tokens, but its translation has at most 7"),
        ("I\n\n\n", "我\tI I I\n猫\ta a a\n", "in.txt line 1 has a prefix of 1 and terms of 6 tokens, but its "),
    ],
)
def test_lines_that_cannot_have_what_they_must(
    prefixes: str | None, terms: str | None, message: str, translator: Translator, tmp_path: Path
) -> None:
    wanted = read(translator, tmp_path, prefixes, terms)
    with pytest.raises(UserError) as error:
        check(translator, wanted, [LINES[:2], LINES[2:]])
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_searches_that_the_model_cannot_do(translator: Translator) -> None:
    size = len(translator.target.vocabulary)
    with pytest.raises(UserError, match=f"beam_size is {size}, but there are only {size - 3} target tokens to choose"):
        translator.translate(LINES, replace(OPTIONS, beam_size=size))
    blind = Searched(Config.model_validate({"model": {"attention": "none"}}), translator.target)
    with pytest.raises(UserError, match=r"coverage_penalty goes by attention, which this run does not have"):
        replace(OPTIONS, coverage_penalty=0.1).check(translator, blind)
    OPTIONS.check(translator, blind)


def test_scores_do_not_depend_on_the_size_of_batches(translator: Translator, tmp_path: Path) -> None:
    wanted = read(translator, tmp_path, "Anna saw\n\n", "☃\tthe moon\n")
    options = replace(OPTIONS, length_penalty=0.5, coverage_penalty=0.2, min_length=2, no_repeat_ngram=2)
    expected = translator.translate(LINES[:2], options, n_best=3, prefixes=wanted.prefixes, terms=wanted.terms)
    for place, line in enumerate(LINES[:2]):
        prefixes = wanted.prefixes_of(place, 1)
        [found] = translator.translate([line], options, n_best=3, prefixes=prefixes, terms=wanted.terms)
        assert [each.text for each in found.n_best] == [each.text for each in expected[place].n_best]
        scores = [torch.tensor([each.score for each in of.n_best]) for of in (found, expected[place])]
        torch.testing.assert_close(*scores)
