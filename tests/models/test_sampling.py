"""Samples against exact probabilities: how often each translation is drawn, and which tokens may be drawn at all."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dist_s2s.models.output import log_probabilities
from dist_s2s.models.sampling import SamplingOptions, likeliest, sample
from dist_s2s.models.search import Hypothesis
from dist_s2s.translation.sampling import Draws
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


def probabilities(setting: Setting, row: int, limit: int, options: SamplingOptions) -> dict[tuple[int, ...], float]:
    """Of each translation with up to ``limit`` words, its end included if it has one."""
    found, beginnings = dict[tuple[int, ...], float](), {(): 1.0}
    for _ in range(limit):
        longer = {}
        for words, before in beginnings.items():
            steps = setting.log_probabilities(row, list(words))[-1]
            weights, ids = likeliest(steps[None], options)
            shares = dict(zip(ids[0].tolist(), (weights[0] / weights[0].sum()).tolist(), strict=True))
            for token in (EOS, *setting.words):
                if share := shares.get(token, 0.0):
                    (found if token == EOS else longer)[(*words, token)] = before * share
        beginnings = longer
    return found | beginnings


@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(temperature=1.7, top_k=3, top_p=0.8)])
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


PROBABILITIES = torch.tensor([[0.1, 0.4, 0.0, 0.2, 0.2, 0.1]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SamplingOptions(), {0: 0.1, 1: 0.4, 3: 0.2, 4: 0.2, 5: 0.1}),
        (SamplingOptions(top_k=1), {1: 1.0}),
        (SamplingOptions(top_k=3), {1: 0.5, 3: 0.25, 4: 0.25}),
        (SamplingOptions(top_k=99), {0: 0.1, 1: 0.4, 3: 0.2, 4: 0.2, 5: 0.1}),
        (SamplingOptions(top_p=0.39), {1: 1.0}),
        (SamplingOptions(top_p=0.41), {1: 2 / 3, 3: 1 / 3}),
        (SamplingOptions(top_p=0.79), {1: 0.5, 3: 0.25, 4: 0.25}),
        (SamplingOptions(top_p=0.81), {0: 1 / 9, 1: 4 / 9, 3: 2 / 9, 4: 2 / 9}),
        (SamplingOptions(top_k=3, top_p=0.7), {1: 2 / 3, 3: 1 / 3}),  # of the three, 0.5 + 0.25 reach it
        (SamplingOptions(temperature=0.5, top_p=0.9), {1: 2 / 3, 3: 1 / 6, 4: 1 / 6}),
    ],
)
def test_which_tokens_may_be_drawn(options: SamplingOptions, expected: dict[int, float]) -> None:
    weights, ids = likeliest(PROBABILITIES.log(), options)
    shares = weights[0] / weights[0].sum()
    found = {token: share for token, share in zip(ids[0].tolist(), shares.tolist(), strict=True) if share}
    if len(expected) == 2:  # which of two equal tokens is undefined
        found = {3 if token == 4 else token: share for token, share in found.items()}
    assert found == pytest.approx(expected)


def test_a_nucleus_of_many_tokens() -> None:
    even, steep = torch.zeros(1, 1500), -torch.arange(1500.0)[None]
    options = SamplingOptions(top_p=0.9001)
    for rows in (even, steep, torch.cat([even, steep])):
        weights, _ = likeliest(rows.log_softmax(1), options)
        counts = (weights > 0).sum(1).tolist()
        assert counts == [{0.0: 1351, -1.0: 3}[float(row[1])] for row in rows]


@pytest.mark.parametrize(
    "wrong", [{"num_samples": 0}, {"top_k": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_impossible_options(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"but (is|are) "):
        SamplingOptions(**wrong)  # type: ignore[arg-type]
