"""Every option of a search against all hypotheses that there are, and the early end against the full search."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from dist_s2s.models import Demand, Demands, Hypothesis, Ranking, Rules, beam_search, best_of_logits, given_of_logits
from dist_s2s.models.search import contains
from tests.models.test_search import EOS, FORBIDDEN, LENGTHS, SOS, Setting

LIMITS = [4, 2, 3, 1]
ALL = 121  # hypotheses of up to 4 of 3 words
GIVEN = partial(given_of_logits, forbidden=FORBIDDEN)
NONE = [Demand()] * 4
RANKINGS = [Ranking(), Ranking(0.0), Ranking(0.6), Ranking(2.0), Ranking(1.0, 0.3), Ranking(0.6, 2.0)]
PREFIXES = [Demand((5, 5)), Demand(), Demand((6, 4)), Demand()]
PHRASES = [Demand(phrases=((5, 5, 4),)), Demand(phrases=((6,),)), Demand(phrases=((4, 5), (5, 6))), Demand()]
BOTH = [Demand((4,), ((5,), (6,))), Demand((6,)), Demand((), ((4,), (6,))), Demand()]


@dataclass(frozen=True)
class Every:
    """A hypothesis, cut or with its end, with its log-probability, and the attention that the source has got."""

    tokens: tuple[int, ...]
    log_probability: float
    looked_S: Tensor

    @property
    def ids(self) -> list[int]:
        return [token for token in self.tokens if token != EOS]

    def score(self, ranking: Ranking) -> float:
        covered = float(self.looked_S.clamp(max=1).log().sum()) if ranking.coverage_penalty else 0.0
        length = len(self.tokens) ** ranking.length_penalty
        return self.log_probability / length + ranking.coverage_penalty * covered


@cache
def setting_of(seed: int) -> Setting:
    return Setting(seed, words=3)


@cache
@torch.no_grad()
def every(seed: int, row: int) -> list[Every]:
    """All hypotheses of a sentence, by teacher forcing."""
    setting, limit, length = setting_of(seed), LIMITS[row], int(LENGTHS[row])
    words = list(product(setting.words, repeat=limit))
    target = setting.table(torch.tensor([[SOS, *some[:-1]] for some in words]))
    source = setting.source[row : row + 1, :length].expand(len(words), -1, -1)
    lengths = torch.full((len(words),), length)
    logits = setting.model(source, lengths, target)
    logits[:, :, FORBIDDEN] = float("-inf")
    steps, seen = logits.log_softmax(dim=-1), setting.model.attention_weights(source, lengths, target)
    found: dict[tuple[int, ...], Every] = {}
    for some, steps_TV, weights_TS in zip(words, steps.tolist(), seen, strict=True):
        for tokens in [some, *((*some[:size], EOS) for size in range(limit))]:
            if tokens not in found:
                total = sum(step[token] for step, token in zip(steps_TV, tokens, strict=False))
                found[tokens] = Every(tokens, total, weights_TS[: len(tokens)].sum(0))
    return list(found.values())


def is_allowed(each: Every, rules: Rules, demand: Demand) -> bool:
    if tuple(each.ids[: len(demand.prefix)]) != demand.prefix or demand.unmet(each.ids):
        return False
    if EOS in each.tokens and len(each.ids) < rules.min_length:
        return False
    size = rules.no_repeat_ngram
    grams = [tuple(each.ids[place : place + size]) for place in range(len(each.ids) - size + 1)]
    return size == 0 or len(set(grams)) == len(grams)


def search(
    seed: int,
    beam_size: int = ALL,
    ranking: Ranking = RANKINGS[0],
    rules: Rules = Rules(),  # noqa: B008
    demands: Sequence[Demand] = NONE,
    rows: Sequence[int] = range(4),
    n_best: int | None = None,
    all_finished: Callable[[bool], bool] = bool,
) -> list[list[Hypothesis]]:
    setting, of_rows = setting_of(seed), list(rows)
    wanted = Demands.among([demands[row] for row in rows], GIVEN, demands) if any(d.size for d in demands) else None
    options = {"n_best": n_best, "ranking": ranking, "rules": rules, "demands": wanted}
    best_tokens = partial(_best, forbidden=FORBIDDEN)
    arguments = setting.source[of_rows], LENGTHS[of_rows], setting.table, best_tokens, SOS, EOS
    return beam_search(setting.model, *arguments, torch.tensor(LIMITS)[of_rows], beam_size, all_finished, **options)


def _best(logits: Tensor, k: int, forbidden: list[int]) -> tuple[Tensor, Tensor]:
    steps.append(k)
    return best_of_logits(logits, k, forbidden)


steps: list[int] = []  # what each step of a search has asked for


def cases() -> Iterator[tuple[Ranking, Rules, Sequence[Demand]]]:
    yield from ((ranking, Rules(), NONE) for ranking in RANKINGS)
    yield from ((RANKINGS[2], rules, NONE) for rules in (Rules(2), Rules(9), Rules(0, 1), Rules(0, 2), Rules(3, 2)))
    yield from ((ranking, Rules(), demands) for ranking in RANKINGS[1:5:3] for demands in (PREFIXES, PHRASES, BOTH))
    yield RANKINGS[5], Rules(2, 2), BOTH


@pytest.mark.parametrize(("ranking", "rules", "demands"), list(cases()))
def test_a_wide_beam_finds_all_hypotheses_that_are_allowed_with_their_scores(
    ranking: Ranking, rules: Rules, demands: Sequence[Demand]
) -> None:
    for seed in (7, 9):
        for row, found in enumerate(search(seed, ranking=ranking, rules=rules, demands=demands)):
            allowed = [each for each in every(seed, row) if is_allowed(each, rules, demands[row])]
            expected = sorted(allowed, key=lambda each: each.score(ranking), reverse=True)
            assert expected, "a case that tests nothing"
            if demands[row].phrases:  # those without all phrases come after
                found = found[: len(expected)]
            assert [each.ids for each in found] == [each.ids for each in expected]
            assert [each.is_cut for each in found] == [EOS not in each.tokens for each in expected]
            scores = [each.score(ranking) for each in expected]
            assert [each.score for each in found] == pytest.approx(scores, rel=1e-9)


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize(("beam_size", "n_best"), [(2, 1), (5, 1), (5, 3)])
def test_an_early_end_changes_nothing(ranking: Ranking, beam_size: int, n_best: int) -> None:
    for seed in range(7, 11):
        full = search(seed, beam_size, ranking)
        assert search(seed, beam_size, ranking, n_best=n_best) == [found[:n_best] for found in full]


def test_an_early_end_comes_early() -> None:
    """With a model that ends at once and is sure of it, and one that does not end."""
    sizes = []
    for end_bias in (4.0, -4.0):
        setting = Setting(7, end_bias=end_bias, words=3)
        limits = torch.full((4,), 30)
        for n_best in (1, None):
            steps.clear()
            beam_search(
                setting.model,
                *(setting.source, LENGTHS, setting.table, partial(_best, forbidden=FORBIDDEN), SOS, EOS),
                limits,
                4,
                n_best=n_best,
                ranking=Ranking(0.0),
            )
            sizes.append(len(steps))
    assert sizes[0] < sizes[1]
    assert sizes[0] < sizes[2]


@pytest.mark.parametrize("demands", [NONE, PREFIXES, PHRASES, BOTH])
def test_a_narrow_beam_keeps_rules_and_demands_whatever_its_companions(demands: Sequence[Demand]) -> None:
    rules, ranking = Rules(2, 2), Ranking(0.6, 0.2)
    for beam_size in (1, 3):
        together = search(8, beam_size, ranking, rules, demands)
        for row, [best, *_] in enumerate(together):
            expected = next(
                each for each in every(8, row) if each.ids == best.ids and (EOS in each.tokens) != best.is_cut
            )
            assert is_allowed(expected, rules, demands[row])
            assert best.score == pytest.approx(expected.score(ranking), rel=1e-9)
        for rows in ([0], [2], [3, 1], [2, 2, 0]):
            for row, found in zip(rows, search(8, beam_size, ranking, rules, demands, rows), strict=True):
                assert [each.ids for each in found] == [each.ids for each in together[row]]
                assert [e.score for e in found] == pytest.approx([e.score for e in together[row]], rel=1e-9)


@pytest.mark.parametrize("demands", [NONE, BOTH])
def test_a_rank_that_waits_for_others_finds_the_same(demands: Sequence[Demand]) -> None:
    answers = list[bool]()

    def all_finished(mine: bool) -> bool:
        answers.append(mine)
        return len(answers) > 7

    settings = {"beam_size": 3, "ranking": Ranking(0.6, 0.2), "rules": Rules(1, 2), "demands": demands}
    assert search(8, **settings, all_finished=all_finished) == search(8, **settings)
    assert answers[-3:] == [True] * 3


def test_the_likeliest_tokens_are_asked_for_as_far_as_rules_can_forbid() -> None:
    steps.clear()
    search(8, 3, rules=Rules(2, 2))
    assert steps == [4, 4, 4, 5]  # 3, and the end at first, and then the words after what has come before
    steps.clear()
    search(8, 3)
    assert steps == [3] * 4


def test_where_no_sentence_is_allowed_there_is_none() -> None:
    found = search(8, 3, rules=Rules(4, 1), rows=[0])  # 3 words, of which none may come twice, and no end
    assert found == [[Hypothesis([], -float("inf"))]]


def test_phrases_that_no_length_has_room_for_are_missed_in_part() -> None:
    wanted = [Demand(phrases=((4, 5, 6), (6, 4, 4)))] * 4
    [found] = search(8, 4, demands=wanted, rows=[0])
    assert {wanted[0].unmet(each.ids) for each in found} <= {1, 2}
    assert sorted(wanted[0].unmet(each.ids) for each in found) == [wanted[0].unmet(each.ids) for each in found]
    assert found[0].is_cut


def test_what_contains_what() -> None:
    assert contains([1, 2, 3], (2, 3))
    assert contains([1, 1, 2], (1, 2))
    assert not contains([1, 2, 3], (1, 3))
    assert not contains([1], (1, 1))
    assert all(contains("abcab", pair) for pair in pairwise("abcab"))
