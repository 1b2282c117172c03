from collections.abc import Sequence

import pytest

from dist_s2s.config.training import Metric, TrainingConfig
from dist_s2s.training.schedule import Progress, learning_rate, warmup_warning


def limits(**given: float | str | None) -> TrainingConfig:
    return TrainingConfig.model_validate({"max_epochs": None} | given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_steps": 40}, 0.25),
        ({"max_minutes": 4.0}, 0.75),
        ({"max_epochs": 4}, 0.6),
        ({"max_steps": 40, "max_minutes": 4.0, "max_epochs": 4}, 0.75),
        ({"max_steps": 10, "max_minutes": 100.0}, 1.0),
        ({"max_steps": 3}, 1.0),
    ],
)
def test_fraction_is_that_of_the_nearest_limit(given: dict[str, float], expected: float) -> None:
    progress = Progress(step=10, epoch=2, position=8, seconds=180.0)
    assert progress.fraction(limits(**given), batches_in_epoch=20) == pytest.approx(expected)


def test_fraction_starts_at_zero() -> None:
    assert Progress().fraction(limits(max_steps=5, max_minutes=1.0, max_epochs=1), batches_in_epoch=3) == 0.0


def test_learning_rate_warms_up_to_the_peak_and_never_starts_at_zero() -> None:
    rates = [learning_rate(0.2, step, warmup_steps=4, fraction=0.0) for step in range(7)]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.2])


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(0.2, 0, warmup_steps=0, fraction=0.0) == 0.2


def test_learning_rate_falls_to_zero_at_the_end() -> None:
    rates = [learning_rate(0.2, 100, warmup_steps=4, fraction=fraction) for fraction in (0.0, 0.25, 0.5, 1.0)]
    assert rates == pytest.approx([0.2, 0.15, 0.1, 0.0])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"max_steps": 10}, "training.max_steps = 10 is reached"),
        ({"max_minutes": 2.5}, "training.max_minutes = 2.5 is reached"),
        ({"max_epochs": 2}, "training.max_epochs = 2 is reached"),
        ({"max_steps": 11, "patience": 3}, "stopping early: no better BLEU in 3 validations"),
        ({"max_steps": 11, "patience": 1}, "stopping early: no better BLEU in 1 validation"),
        ({"max_steps": 11, "patience": 2, "metric": "chrf"}, "stopping early: no better chrF in 2 validations"),
        ({"max_steps": 11, "patience": 3, "metric": "loss"}, "stopping early: no better loss in 3 validations"),
        ({"max_steps": 11, "max_minutes": 3.1, "max_epochs": 3, "patience": 4}, None),
    ],
)
def test_why_training_ends(given: dict[str, float], reason: str | None) -> None:
    progress = Progress(step=10, epoch=2, position=8, seconds=180.0, validations_since_best=3)
    assert progress.end_reason(limits(**given)) == reason


def validated(metric: Metric, scores: Sequence[tuple[float, float, float]]) -> Progress:
    """Progress after validations at steps 5, 10, 15 … of these BLEU, chrF and loss."""
    progress = Progress()
    for number, (bleu, chrf, loss) in enumerate(scores, start=1):
        progress.step = 5 * number
        progress.note_validation(bleu, chrf, loss, metric)
    return progress


@pytest.mark.parametrize(("metric", "best"), [("bleu", 10), ("chrf", 15), ("loss", 20)])
def test_best_validation_is_remembered(metric: Metric, best: int) -> None:
    scores = [(0.0, 8.0, 4.0), (3.0, 9.0, 3.0), (2.0, 9.5, 2.9), (2.5, 9.5, 2.5), (2.0, 7.0, 2.6)]
    if metric == "chrf":
        scores[3] = (2.5, 9.5, 3.0)  # a tie that the loss decides for the first
    progress = validated(metric, scores)
    assert progress.best_step == best
    assert (progress.best_bleu, progress.best_chrf, progress.best_loss) == scores[best // 5 - 1]
    assert (progress.validated_step, progress.validations_since_best) == (25, 5 - best // 5)
    assert progress.metric_varied


def test_a_tie_goes_by_the_loss_and_is_noticed() -> None:
    """BLEU 0 at all validations: patience does not end a run that learns, and the best is not the first."""
    progress = validated("bleu", [(0.0, 1.0, 4.0), (0.0, 1.0, 3.0), (0.0, 1.0, 2.0), (0.0, 1.0, 2.5)])
    assert (progress.best_step, progress.validations_since_best) == (15, 1)
    assert (progress.validations, progress.metric_varied) == (4, False)
    progress.forget_best()
    progress.note_validation(0.0, 0.5, 9.0, "bleu")
    assert (progress.best_loss, progress.validations, progress.metric_varied) == (9.0, 1, False)


def test_a_checkpoint_from_before_there_was_a_choice() -> None:
    progress = Progress(step=20, best_bleu=3.0, best_step=10, validated_step=15, validations_since_best=1)
    progress.note_validation(3.0, 30.0, 2.0, "bleu")  # a tie, with a loss that is not known
    assert (progress.best_step, progress.metric_varied) == (20, False)
    progress.note_validation(2.9, 30.0, 1.0, "bleu")
    assert (progress.best_step, progress.metric_varied) == (20, True)


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"max_steps": 20, "warmup_steps": 20}, "20"),
        ({"max_steps": 5000, "max_epochs": 2, "warmup_steps": 100}, "60"),
        ({"max_epochs": 100, "warmup_steps": 4000}, "3,000"),
        ({"max_steps": 20, "warmup_steps": 19}, None),
        ({"max_minutes": 1.0, "warmup_steps": 100}, None),
    ],
)
def test_a_warm_up_longer_than_the_run_is_told(given: dict[str, float], steps: str | None) -> None:
    said = warmup_warning(limits(**given), batches_in_epoch=30)
    assert (said is not None) == (steps is not None)
    if said is not None:
        assert (
            f"the warm-up of {given['warmup_steps']:,} steps is as long as the whole run of {steps} or longer" in said
        )
