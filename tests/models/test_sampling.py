"""Samples against exact probabilities: how often each translation is drawn, and which tokens may be drawn at all."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dist_s2s.models.output import log_probabilities
from dist_s2s.models.sampling import SamplingOptions, first_in_nucleus, is_in_nucleus, likeliest, sample
from dist_s2s.models.search import Hypothesis
from dist_s2s.translation.search.sampling import Draws
from tests.models.test_search import EOS, FORBIDDEN, LENGTHS, SOS, Setting


def draw(setting: Setting, limits: list[int], options: SamplingOptions, keys: Tensor) -> list[list[Hypothesis]]:
    return sample(
        setting.model,
        setting.source,
        LENGTHS,
        embed=setting.table,
        log_probabilities=lambda outputs: log_probabilities(outputs, FORBIDDEN),
        exponentials=Draws(keys, options.num_samples),
        start_id=SOS,
        end_id=EOS,
        max_lengths_B=torch.tensor(limits),
        options=options,
    )


def shares_of(log_probabilities_V: Tensor, options: SamplingOptions) -> dict[int, float]:
    """The probability of each token that may be drawn."""
    weights, ids = likeliest(log_probabilities_V[None], options)
    places = torch.arange(weights.shape[1])
    weights = weights[0] * is_in_nucleus(weights.expand(len(places), -1), places, options.top_p)
    shares = zip(ids[0].tolist(), (weights / weights.sum()).tolist(), strict=True)
    return {token: share for token, share in shares if share}


def probabilities(setting: Setting, row: int, limit: int, options: SamplingOptions) -> dict[tuple[int, ...], float]:
    """Of each translation with up to ``limit`` words, its end included if it has one."""
    found, beginnings = dict[tuple[int, ...], float](), {(): 1.0}
    for _ in range(limit):
        longer = {}
        for words, before in beginnings.items():
            steps = setting.log_probabilities(row, list(words))[-1]
            shares = shares_of(steps, options)
            for token in (EOS, *setting.words):
                if share := shares.get(token, 0.0):
                    (found if token == EOS else longer)[(*words, token)] = before * share
        beginnings = longer
    return found | beginnings


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(),
        SamplingOptions(temperature=1.7),
        SamplingOptions(temperature=1.7, top_k=3, top_p=0.8),
    ],
)
def test_each_translation_is_drawn_as_often_as_its_probability_says(options: SamplingOptions) -> None:
    """Pearson's chi-square of 4 times 2,000 samples; 14 degrees of freedom at most exceed 45 once in 20,000 times."""
    setting, limits, count = Setting(8, end_bias=1.0), [3, 2, 3, 1], 2000
    found = draw(setting, limits, replace(options, num_samples=count), torch.arange(4))
    for row, (samples, limit) in enumerate(zip(found, limits, strict=True)):
        expected = probabilities(setting, row, limit, options)
        assert sum(expected.values()) == pytest.approx(1)
        drawn = Counter((*each.ids, *([] if each.is_cut else [EOS])) for each in samples)
        assert set(drawn) <= set(expected)
        statistic = sum((drawn[words] - count * p) ** 2 / (count * p) for words, p in expected.items())
        assert len(expected) > 1
        assert statistic < 45
        for each in samples[:20]:
            hypothesis = [*each.ids, *([] if each.is_cut else [EOS])]
            assert each.score == pytest.approx(setting.score(row, hypothesis))  # without temperature and top_p


def test_samples_do_not_depend_on_what_else_is_in_the_batch_or_how_many_there_are() -> None:
    setting, keys = Setting(9), torch.tensor([5, -7, 2**62, 0])
    together = draw(setting, [6, 0, 9, 4], SamplingOptions(7), keys)
    fewer = draw(setting, [6, 0, 9, 4], SamplingOptions(3), keys)
    for many, few in zip(together, fewer, strict=True):
        assert [each.ids for each in many[:3]] == [each.ids for each in few]
    assert together[1] == [Hypothesis([], 0.0)] * 7
    setting.source = setting.source.flip(0).clone()
    alone = sample(
        setting.model,
        setting.source[3:],
        LENGTHS[:1],
        setting.table,
        lambda outputs: log_probabilities(outputs, FORBIDDEN),
        Draws(keys[:1], 7),
        SOS,
        EOS,
        torch.tensor([6]),
        SamplingOptions(7),
    )
    assert [each.ids for each in alone[0]] == [each.ids for each in together[0]]
    assert len({tuple(each.ids) for each in together[0]}) > 2


PROBABILITIES = torch.tensor([0.1, 0.4, 0.0, 0.21, 0.19, 0.1], dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SamplingOptions(), {0: 0.1, 1: 0.4, 3: 0.21, 4: 0.19, 5: 0.1}),
        (SamplingOptions(top_k=1), {1: 1.0}),
        (SamplingOptions(top_k=3), {1: 0.5, 3: 0.2625, 4: 0.2375}),
        (SamplingOptions(top_k=99), {0: 0.1, 1: 0.4, 3: 0.21, 4: 0.19, 5: 0.1}),
        (SamplingOptions(top_p=0.39), {1: 1.0}),
        (SamplingOptions(top_p=0.41), {1: 40 / 61, 3: 21 / 61}),
        (SamplingOptions(top_p=0.79), {1: 0.5, 3: 0.2625, 4: 0.2375}),
        (SamplingOptions(top_p=0.81), {0: 0.1, 1: 0.4, 3: 0.21, 4: 0.19, 5: 0.1}),  # two are equally likely
        (SamplingOptions(top_k=3, top_p=0.75), {1: 40 / 61, 3: 21 / 61}),  # of the three, 0.5 + 0.2625 reach it
        (SamplingOptions(temperature=0.5, top_p=0.8), {1: 1600 / 2402, 3: 441 / 2402, 4: 361 / 2402}),
    ],
)
def test_which_tokens_may_be_drawn(options: SamplingOptions, expected: dict[int, float]) -> None:
    assert shares_of(PROBABILITIES.log(), options) == pytest.approx(expected)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_the_first_that_is_in_the_nucleus_is_drawn(top_p: float) -> None:
    torch.manual_seed(0)
    probabilities = (torch.randn(50, 131, dtype=torch.float64) * 2).softmax(1)
    exponentials = torch.empty_like(probabilities).exponential_()
    order = (probabilities / exponentials).argsort(dim=1, descending=True)
    found = first_in_nucleus(probabilities, exponentials, top_p)
    for row, place in enumerate(found.tolist()):
        largest, sizes = probabilities[row].sort(descending=True).values, list[float]()
        while sum(sizes) < top_p and len(sizes) < 131:
            sizes.append(float(largest[len(sizes)]))
        allowed = [each for each in order[row].tolist() if float(probabilities[row, each]) >= sizes[-1]]
        assert place == allowed[0]


@pytest.mark.parametrize(
    "wrong", [{"num_samples": 0}, {"top_k": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_impossible_options(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"but (is|are) "):
        SamplingOptions(**wrong)  # type: ignore[arg-type]
