"""Unknown words of translations, replaced by what the decoder looks at: by hand, and by a search on ranks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.vocabulary import UNK
from dist_s2s.translation.attention import look
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.search.joining import Translation
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.unknown_words import check_replaceable, replace_unknown, spell, words_looked_at
from tests.rank_pool import RankPool

ALONE = Ranks.alone()
WORDS = TextSide.build(SideSettings("words"), ["we see it."])
CHARACTERS = TextSide.build(SideSettings("characters"), ["我们看见it it"])
TAGGED = TextSide.build(SideSettings("characters", tags=("<2de>",)), ["我们看见it"])
NO_BYTES = SideSettings("unigram", byte_fallback=False)
SUBWORDS = TextSide.build(NO_BYTES, ["we see the cat", "the cats see we"] * 3)
BYTES = TextSide.build(SideSettings("bpe"), ["we see the cat"] * 3)


@pytest.mark.parametrize(
    ("side", "tokens", "words", "text"),
    [
        (WORDS, ["we", UNK, UNK, "￭."], ["Bern", "Bern"], "we Bern Bern."),
        (WORDS, ["we", UNK], [None], "we <unk>"),
        (CHARACTERS, ["看", UNK, UNK, "见", UNK], ["Bern", "Bern", "Bern"], "看Bern见Bern"),
        (CHARACTERS, ["看", UNK, UNK], ["猫", "狗"], "看猫狗"),
        (SUBWORDS, ["▁", UNK, UNK], ["猫", "猫"], "猫"),
        (SUBWORDS, ["▁we", "▁", "t", UNK, "e", "▁cat"], ["naïve"], "we naïve cat"),
        (CHARACTERS, ["i", "t", "▁", "t", UNK, "i", UNK, "▁", "i"], ["naïve", "naïve"], "it naïve i"),
        (CHARACTERS, ["看", "i", UNK, "见"], [None], "看i<unk>见"),
    ],
)
def test_words_are_written_in_the_places_of_unknown_tokens(
    side: TextSide, tokens: list[str | int], words: list[str | None], text: str
) -> None:
    ids = [token if isinstance(token, int) else side.vocabulary.encode([token])[0] for token in tokens]
    assert ids.count(UNK) == len(words)
    assert spell(ids, words, side) == text


@pytest.mark.parametrize(
    ("side", "text", "looked", "word"),
    [
        (WORDS, "we see Bern.", [0.1, 0.1, 0.5, 0.3], "Bern"),
        (CHARACTERS, "看见Bern", [0.35, 0.05, 0.2, 0.2, 0.1, 0.1], "Bern"),  # whose letters count together
        (CHARACTERS, "猫看见", [0.4, 0.3, 0.3], "猫"),
        (TAGGED, "<2de>猫看见", [0.9, 0.06, 0.03, 0.01], "猫"),
        (TAGGED, "<2de>", [1.0], None),
    ],
)
def test_the_word_that_is_looked_at_most(side: TextSide, text: str, looked: list[float], word: str | None) -> None:
    assert len(looked) == len(side.encode(text))
    weights_TS = torch.tensor([[0.0] * (len(looked) + 1), [*looked, 0.99]])  # the end counts for nothing
    assert list(words_looked_at(text, [4, UNK], weights_TS, side)) == [word]


def test_a_word_of_several_subwords_is_copied_as_a_whole() -> None:
    size = len(SUBWORDS.encode("see the cab"))
    weights_TS = torch.zeros(1, size + 1)
    weights_TS[0, size - 1] = 1.0
    assert list(words_looked_at("see the cab", [UNK], weights_TS, SUBWORDS)) == ["cab"]


def found_on_ranks(group: dist.ProcessGroup | None, run_dir: Path) -> list[Translation]:
    ranks = ALONE if group is None else Ranks(dist.get_rank(group), dist.get_world_size(group), ALONE.device, group)
    translator = load_translator(run_dir, ranks)
    with torch.no_grad():
        bias = translator.core.output.bias
        bias[UNK] = bias.max() + 3  # a model that knows few words
    options = replace(SearchOptions(2), extra_length=4, length_factor=0.5, replace_unknown=True)
    found = translator.translate(["我们看见猫。", "", "他们看见猫。" * 9], options, n_best=2)
    return replace_unknown(translator, found)


def test_it_is_what_words_look_at_on_any_ranks(saved_run: Path, ranks: RankPool) -> None:
    alone = found_on_ranks(None, saved_run)
    translator = load_translator(saved_run, ALONE)
    assert any(UNK in part.ids for each in alone for part in each.n_best[0].parts)
    assert not any("<unk>" in candidate.text for each in alone for candidate in each.n_best)
    first = alone[0]
    [part] = first.n_best[0].parts
    [seen] = look(translator, first.pieces, [part])
    written = [seen.source[source] if "<unk>" in seen.target[place] else None for source, place in seen.alignment]
    assert [word for word in written if word is not None] == [
        word for word in first.n_best[0].text.split() if word in seen.source
    ]
    for found in ranks.run(found_on_ranks, saved_run):
        assert [[each.text for each in one.n_best] for one in found] == [
            [each.text for each in one.n_best] for one in alone
        ]


def test_without_the_option_none_is_chosen(saved_run: Path) -> None:
    translator = load_translator(saved_run, ALONE)
    with torch.no_grad():
        translator.core.output.bias[UNK] += 99
    assert not any(UNK in part.ids for part in translator.search(["我们看见猫。"]))


def test_where_nothing_can_be_replaced(saved_run: Path) -> None:
    translator = load_translator(saved_run, ALONE)
    check_replaceable(translator)
    translator.target = BYTES
    with pytest.raises(UserError, match=r"spells what its vocabulary lacks in bytes .* leave it out"):
        check_replaceable(translator)
    translator.target = SUBWORDS
    check_replaceable(translator)
    with pytest.raises(UserError, match=r"what the decoder of one run looks at: give one --run, or leave it out"):
        check_replaceable(translator, translator)
    translator.config = Config.model_validate({"model": {"attention": "none"}})
    with pytest.raises(UserError, match=r"this run has no attention \(model.attention: none\): leave it out"):
        check_replaceable(translator)
