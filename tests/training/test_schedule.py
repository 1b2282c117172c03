import pytest

from dist_s2s.config.schema import TrainingConfig
from dist_s2s.training.schedule import Progress, learning_rate, warmup_warning


def limits(**given: float | None) -> TrainingConfig:
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
        ({"max_steps": 11, "max_minutes": 3.1, "max_epochs": 3, "patience": 4}, None),
    ],
)
def test_why_training_ends(given: dict[str, float], reason: str | None) -> None:
    progress = Progress(step=10, epoch=2, position=8, seconds=180.0, validations_since_best=3)
    assert progress.end_reason(limits(**given)) == reason


def test_best_validation_is_remembered() -> None:
    progress = Progress(step=5)
    for step, bleu in ((5, 0.0), (10, 3.0), (15, 2.0), (20, 3.0)):
        progress.step = step
        progress.note_validation(bleu)
    assert (progress.best_step, progress.best_bleu) == (10, 3.0)
    assert (progress.validated_step, progress.validations_since_best) == (20, 2)


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
