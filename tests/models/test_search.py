"""Greedy and beam search against hand-written searches, and their protocol where lookups are collective."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dist_s2s.models import Hypothesis, LSTMEncoderDecoder, beam_search, best_of_logits
from dist_s2s.models.attention import AttentionName

PAD, SOS, EOS, UNK, E, H = 0, 1, 2, 3, 4, 8
FORBIDDEN = [PAD, SOS, UNK]
SEEDS = range(7, 13)
LENGTHS = torch.tensor([5, 2, 3, 1])
Search = Callable[..., list[Hypothesis]]
ALLOWED = partial(best_of_logits, forbidden=FORBIDDEN)


def best_of_beam(*arguments: Any, **settings: Any) -> list[Hypothesis]:
    return [best for best, *_ in beam_search(*arguments, **settings)]


greedy_search = partial(best_of_beam, beam_size=1)
SEARCHES: list[Search] = [greedy_search, partial(best_of_beam, beam_size=3)]


class Setting:
    """A random model whose probabilities are far from even, its target table, and four source sentences."""

    def __init__(
        self,
        seed: int,
        end_bias: float = 0.0,
        input_feeding: bool = True,
        words: int = 2,
        attention: AttentionName = "dot",
    ) -> None:
        torch.manual_seed(seed)
        self.words = range(4, 4 + words)
        self.model = LSTMEncoderDecoder(
            nn.Linear(H, 4 + words), E, H, num_layers=2, attention=attention, input_feeding=input_feeding
        ).double()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.mul_(2) if parameter.ndim > 1 else parameter.zero_()
            self.model.output.weight.mul_(2)
            self.model.output.bias[EOS] = end_bias
        self.table = nn.Embedding(4 + words, E).double()
        self.source = torch.randn(4, 5, E).double()

    def search(self, search: Search, limits: list[int], **options: object) -> list[list[int]]:
        return [hypothesis.ids for hypothesis in self.hypotheses(search, limits, **options)]

    def hypotheses(self, search: Search, limits: list[int], **options: object) -> list[Hypothesis]:
        settings = {"embed": self.table, "best_tokens": ALLOWED} | options
        maximum = torch.tensor(limits)
        return search(self.model, self.source, LENGTHS, start_id=SOS, end_id=EOS, max_lengths_B=maximum, **settings)

    @torch.no_grad()
    def log_probabilities(self, row: int, tokens: list[int]) -> Tensor:
        """[len(tokens) + 1, V] of the next token after SOS and after each of ``tokens``, forbidden ones ruled out."""
        length = int(LENGTHS[row])
        target = self.table(torch.tensor([[SOS, *tokens]]))
        logits = self.model(self.source[row : row + 1, :length], LENGTHS[row : row + 1], target)[0]
        logits[:, FORBIDDEN] = float("-inf")
        return logits.log_softmax(dim=-1)

    def greedy_by_hand(self, row: int, limit: int) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < limit:
            best = int(self.log_probabilities(row, tokens)[-1].argmax())
            if best == EOS:
                break
            tokens.append(best)
        return tokens

    def best_by_hand(self, row: int, limit: int) -> list[int]:
        """The highest log-probability / length of all hypotheses that end, or that have ``limit`` words."""
        hypotheses = [[*words, EOS] for length in range(limit) for words in product(self.words, repeat=length)] + [
            list(words) for words in product(self.words, repeat=limit)
        ]

        best = max(hypotheses, key=partial(self.score, row))
        return [token for token in best if token != EOS]

    def beam_by_hand(self, row: int, limit: int, beam_size: int) -> list[int]:
        """Keeps the ``beam_size`` best hypotheses, ended ones among them, of each length."""
        beam: list[list[int]] = [[]]
        for _ in range(limit):
            ended = [hypothesis for hypothesis in beam if EOS in hypothesis]
            grown = [[*words, word] for words in beam if words not in ended for word in (EOS, *self.words)]
            beam = sorted(ended + grown, key=partial(self.score, row), reverse=True)[:beam_size]
        return [token for token in beam[0] if token != EOS]

    def score(self, row: int, hypothesis: list[int]) -> float:
        steps = self.log_probabilities(row, hypothesis[:-1])
        return sum(float(step[token]) for step, token in zip(steps, hypothesis, strict=True)) / len(hypothesis)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("input_feeding", [False, True])
def test_greedy_takes_the_likeliest_token_and_a_beam_of_one_is_greedy(seed: int, input_feeding: bool) -> None:
    setting, limits = Setting(seed, input_feeding=input_feeding), [9, 4, 12, 1]
    expected = [setting.greedy_by_hand(row, limit) for row, limit in enumerate(limits)]
    assert setting.search(greedy_search, limits) == expected
    assert setting.search(best_of_beam, limits, beam_size=1) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wide_beam_finds_the_best_of_all_hypotheses(seed: int) -> None:
    setting, limits = Setting(seed), [4, 2, 3, 1]
    expected = [setting.best_by_hand(row, limit) for row, limit in enumerate(limits)]
    assert setting.search(best_of_beam, limits, beam_size=31) == expected  # there are 31 hypotheses of up to 4 words


def test_all_hypotheses_of_a_beam_come_in_the_order_of_their_scores() -> None:
    """With room for all 31 hypotheses of up to 4 words each of them is there, once, and no other."""
    found = Setting(7).hypotheses(beam_search, [4, 0, 1, 1], beam_size=31)
    assert [len(hypotheses) for hypotheses in found] == [31, 1, 3, 3]
    for hypotheses in found:
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({(*hypothesis.ids, hypothesis.is_cut) for hypothesis in hypotheses}) == len(hypotheses)


@pytest.mark.parametrize("beam_size", [2, 3])
def test_a_narrow_beam_prunes_by_score_for_length(beam_size: int) -> None:
    limits = [6, 2, 5, 1]
    for seed in SEEDS:
        setting = Setting(seed)
        expected = [setting.beam_by_hand(row, limit, beam_size) for row, limit in enumerate(limits)]
        assert setting.search(best_of_beam, limits, beam_size=beam_size) == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_a_beam_narrower_than_the_vocabulary_prunes_by_score_for_length(seed: int) -> None:
    """Against all continuations of each hypothesis, where the search asks for the beam_size likeliest alone."""
    setting, limits = Setting(seed, words=9), [4, 2, 5, 1]
    expected = [setting.beam_by_hand(row, limit, beam_size=4) for row, limit in enumerate(limits)]
    assert setting.search(best_of_beam, limits, beam_size=4) == expected


def test_the_seeds_above_are_worth_searching() -> None:
    """Sentences that end and that do not, and some where the greedy choice is not the best."""
    greedy_lengths, differ = set(), 0
    for seed in SEEDS:
        setting = Setting(seed)
        for row in range(3):
            greedy = setting.greedy_by_hand(row, 4 - row)
            greedy_lengths.add(len(greedy) - (4 - row))
            differ += greedy != setting.best_by_hand(row, 4 - row)
    assert len(greedy_lengths) > 1
    assert 0 in greedy_lengths
    assert differ > 2


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_score_is_the_log_probability_divided_by_the_length(search: Search, seed: int) -> None:
    """The end token counts in both, where a sentence has one."""
    setting, limits = Setting(seed), [6, 2, 5, 0]
    found = setting.hypotheses(search, limits)
    for row, (hypothesis, limit) in enumerate(zip(found[:3], limits, strict=False)):
        ended = [*hypothesis.ids, EOS] if len(hypothesis.ids) < limit else hypothesis.ids
        assert hypothesis.score == pytest.approx(setting.score(row, ended), rel=1e-6)
    assert found[3] == Hypothesis([], 0.0)


@pytest.mark.parametrize("search", SEARCHES)
def test_maximum_lengths_are_each_sentences_own(search: Search) -> None:
    setting = Setting(0, end_bias=-100.0)
    found = setting.hypotheses(search, [7, 0, 3, 1])
    assert [len(hypothesis.ids) for hypothesis in found] == [7, 0, 3, 1]
    assert [hypothesis.is_cut for hypothesis in found] == [True, False, True, True]


@pytest.mark.parametrize("search", SEARCHES)
def test_an_immediate_end_is_an_empty_sentence(search: Search) -> None:
    found = Setting(0, end_bias=100.0).hypotheses(search, [7, 0, 3, 1])
    assert [(hypothesis.ids, hypothesis.is_cut) for hypothesis in found] == [([], False)] * 4


@pytest.mark.parametrize("search", SEARCHES)
def test_forbidden_ids_are_never_chosen(search: Search) -> None:
    setting = Setting(0, end_bias=-50.0)
    with torch.no_grad():
        setting.model.output.bias[[*FORBIDDEN, 4]] = torch.tensor([40.0, 40.0, 40.0, 20.0]).double()
    fewer = partial(best_of_logits, forbidden=[*FORBIDDEN, 4])
    found = {token for row in setting.search(search, [6] * 4, best_tokens=fewer) for token in row}
    assert found == {5}
    every = partial(best_of_logits, forbidden=[])
    free = {token for row in setting.search(search, [6] * 4, best_tokens=every) for token in row}
    assert free & set(FORBIDDEN)


def test_candidates_that_do_not_exist_never_win() -> None:
    """A beam of 31 asks for 31 tokens, of which 3 are allowed. The ids of the others are not even looked up."""
    setting, limits, embedded = Setting(7), [4, 2, 3, 1], set()

    def embed(ids: Tensor) -> Tensor:
        embedded.update(ids.tolist())
        return setting.table(ids)

    def best_tokens(outputs: Tensor, k: int) -> tuple[Tensor, Tensor]:
        log_probabilities, ids = ALLOWED(outputs, k)
        return log_probabilities, ids.masked_fill(log_probabilities.isneginf(), -1)

    expected = [setting.best_by_hand(row, limit) for row, limit in enumerate(limits)]
    assert setting.search(best_of_beam, limits, beam_size=31, best_tokens=best_tokens, embed=embed) == expected
    assert embedded == {SOS, *setting.words}


@pytest.mark.parametrize("search", SEARCHES)
def test_tokens_can_be_ranked_outside_the_model(search: Search) -> None:
    setting, limits = Setting(8), [9, 4, 12, 6]
    expected = setting.search(search, limits)
    output, setting.model.output = setting.model.output, nn.Identity()
    assert setting.search(search, limits, best_tokens=lambda hidden, k: ALLOWED(output(hidden), k)) == expected


@pytest.mark.parametrize("search", [greedy_search, partial(beam_search, beam_size=3)])
@pytest.mark.parametrize("input_feeding", [False, True])
@pytest.mark.parametrize("attention", ["dot", "general", "additive"])
def test_a_sentence_does_not_depend_on_its_companions(
    search: Search, input_feeding: bool, attention: AttentionName
) -> None:
    """Alone, in any order, beside itself, and padded more than it needs: the same tokens, and scores to rounding."""
    setting, limits = Setting(1, input_feeding=input_feeding, attention=attention), torch.tensor([9, 4, 12, 6])

    def found(rows: list[int], width: int) -> list[list[Hypothesis]]:
        arguments = setting.source[rows, :width], LENGTHS[rows], setting.table, ALLOWED, SOS, EOS, limits[rows]
        return [each if isinstance(each, list) else [each] for each in search(setting.model, *arguments)]

    together = found([0, 1, 2, 3], 5)
    assert len({len(hypotheses[0].ids) for hypotheses in together}) > 1  # some go on when others have ended
    for rows in ([0], [1], [2], [3], [3, 0], [2, 1, 2, 2], [3, 2, 1, 0], [1, 3, 1]):
        for width in {int(LENGTHS[rows].max()), 5}:
            for row, hypotheses in zip(rows, found(rows, width), strict=True):
                assert [each.ids for each in hypotheses] == [each.ids for each in together[row]]
                scores = [[each.score for each in some] for some in (hypotheses, together[row])]
                assert scores[0] == pytest.approx(scores[1], rel=1e-12)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("limits", "own"), [([0, 0, 0, 0], 0), ([5, 0, 2, 3], 5)])
def test_ranks_keep_in_step(search: Search, limits: list[int], own: int) -> None:
    """One lookup and one ranking a step, however early this rank has finished, and its sentences do not change."""
    setting = Setting(0, end_bias=-100.0)
    calls, answers = [], []

    def embed(ids: Tensor) -> Tensor:
        calls.append(("embed", len(ids)))
        return setting.table(ids)

    def best_tokens(outputs: Tensor, k: int) -> tuple[Tensor, Tensor]:
        calls.append((k, len(outputs)))
        return ALLOWED(outputs, k)

    def all_finished(mine: bool) -> bool:
        answers.append(mine)
        return len(answers) > 8  # the slowest rank needs 8 steps

    found = setting.search(search, limits, embed=embed, best_tokens=best_tokens, all_finished=all_finished)
    assert answers == [False] * own + [True] * (9 - own)
    kinds = [kind for kind, _ in calls]
    assert kinds == ["embed", kinds[1]] * 8
    sizes = [rows for _, rows in calls]
    assert sizes[::2] == sizes[1::2]
    assert sizes[2 * own :] == [1] * (16 - 2 * own)  # a row that counts for nothing
    if search is greedy_search and own:
        assert sizes[: 2 * own : 2] == [3, 3, 2, 1, 1]  # those that have ended are not computed
    assert found == setting.search(search, limits)
