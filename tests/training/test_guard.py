"""When a loss counts as exploded."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.training.events import Report, Validation
from dist_s2s.training.guard import LossGuard

LIMIT = 4 * math.log(100)


def make_guard(**training: object) -> LossGuard:
    target = SimpleNamespace(vocabulary=SimpleNamespace(num_ids=100))
    config = Config.model_validate({"training": training})
    trainer: Any = SimpleNamespace(config=config, translator=SimpleNamespace(target=target))
    return LossGuard(trainer)


def validation(loss: float) -> Validation:
    return Validation(20, 0, 1.0, loss, 0.0, 0.0, [], "")


def test_ordinary_losses_pass() -> None:
    guard = make_guard()
    guard(Report(20, {"loss": math.log(100)}, 0.1))
    guard(validation(LIMIT - 0.01))


@pytest.mark.parametrize("loss", [LIMIT + 0.1, 3e32, math.inf, math.nan])
def test_exploded_losses_end_the_run(loss: float) -> None:
    guard = make_guard(learning_rate=1e30)
    with pytest.raises(UserError, match=r"^the loss is .* at step 20, .* 4 · ln\(100\) .* which is 1e\+30, "):
        guard(Report(20, {"loss": loss}, 0.1))
    with pytest.raises(UserError, match=r"^the validation loss is"):
        guard(validation(loss))


def test_steps_that_may_be_skipped_may_have_no_finite_loss() -> None:
    guard = make_guard(nonfinite_gradient="skip")
    guard(Report(20, {"loss": math.nan}, 0.1))
    with pytest.raises(UserError):
        guard(Report(20, {"loss": 1e6}, 0.1))
    with pytest.raises(UserError):
        guard(validation(math.nan))
