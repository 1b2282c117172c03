"""Ensembles against means of probabilities that are computed by hand."""

import math
from functools import partial

import pytest
import torch

from dist_s2s.models import best_of_logits
from dist_s2s.models.ensemble import Ensemble, Member, mean_of_probabilities, split
from dist_s2s.models.output import best_of, log_probabilities
from dist_s2s.models.search import Hypothesis, beam_search
from tests.models.test_search import EOS, FORBIDDEN, LENGTHS, SOS, E, H, Setting


def search(settings: list[Setting], beam_size: int) -> list[list[Hypothesis]]:
    sizes = [setting.table.num_embeddings for setting in settings]
    members = [Member(each.model, E, E, size, H, torch.float64) for each, size in zip(settings, sizes, strict=True)]

    def best_tokens(outputs: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        parts = split(outputs, members, sizes)
        return best_of(mean_of_probabilities([log_probabilities(part, FORBIDDEN) for part in parts]), k)

    return beam_search(
        Ensemble(members),
        torch.cat([each.source for each in settings], dim=-1),
        LENGTHS,
        embed=lambda ids: torch.cat([each.table(ids) for each in settings], dim=-1),
        best_tokens=best_tokens,
        start_id=SOS,
        end_id=EOS,
        max_lengths_B=torch.tensor([5, 3, 4, 2]),
        beam_size=beam_size,
    )


@pytest.mark.parametrize("beam_size", [1, 3])
def test_scores_are_those_of_the_mean_of_probabilities(beam_size: int) -> None:
    settings = [Setting(7), Setting(8, input_feeding=False), Setting(9, attention="additive")]
    for row, found in enumerate(search(settings, beam_size)):
        for each in found:
            tokens = [*each.ids, *([] if each.is_cut else [EOS])]
            steps = [setting.log_probabilities(row, tokens[:-1]).exp() for setting in settings]
            means = [math.log(sum(float(step[at, token]) for step in steps) / 3) for at, token in enumerate(tokens)]
            assert each.score == pytest.approx(sum(means) / len(means), abs=1e-12)


def test_a_model_twice_is_the_model_alone() -> None:
    setting = Setting(10)
    alone = setting.hypotheses(
        partial(beam_search, beam_size=3),  # type: ignore[arg-type]
        [5, 3, 4, 2],
        best_tokens=partial(best_of_logits, forbidden=FORBIDDEN),
    )
    for mine, others in zip(search([setting, setting], 3), alone, strict=True):
        assert [each.ids for each in mine] == [each.ids for each in others]  # type: ignore[attr-defined]
        assert [each.score for each in mine] == pytest.approx([each.score for each in others])  # type: ignore[attr-defined]


def test_teacher_forcing_gives_the_states_of_all() -> None:
    settings = [Setting(7), Setting(8)]
    members = [Member(each.model, E, E, 6, H, torch.float64) for each in settings]
    target = torch.cat([each.table(torch.full((4, 3), SOS)) for each in settings], dim=-1)
    source = torch.cat([each.source for each in settings], dim=-1)
    found = split(Ensemble(members)(source, LENGTHS, target, apply_output=False), members, [H, H])
    for each, states in zip(settings, found, strict=True):
        expected = each.model(each.source, LENGTHS, each.table(torch.full((4, 3), SOS)), apply_output=False)
        torch.testing.assert_close(states, expected, rtol=0, atol=1e-12)


def test_the_mean_has_the_most_precise_dtype_and_keeps_what_is_impossible() -> None:
    first, second = torch.tensor([0.5, 0.0, 0.5]).log(), torch.tensor([0.25, 0.0, 0.75]).double().log()
    found = mean_of_probabilities([first, second])
    assert found.dtype == torch.float64
    assert found.exp().tolist() == pytest.approx([0.375, 0.0, 0.625])
