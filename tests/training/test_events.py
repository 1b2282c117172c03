"""What a trainer tells its listeners, in which order, and the listener that the documentation shows."""

import signal
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
import torch.distributed as dist

from dist_s2s.distributed import Ranks
from dist_s2s.storage.checkpoint import list_checkpoints, read_manifest
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.training import events
from dist_s2s.training.checkpoints import Checkpoints
from dist_s2s.training.events import (
    CheckpointBegin,
    CheckpointSaved,
    Event,
    Paused,
    PhaseBegin,
    Report,
    Resumed,
    RunEnd,
    StepEnd,
    StepsEnd,
    ValidationBatch,
)
from dist_s2s.training.meter import Meter
from dist_s2s.training.signals import StopSignals
from dist_s2s.training.trainer import Trainer
from dist_s2s.training.validation import Validator
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.training.test_equality import DataParallel, make_config, make_examples, make_translator

STEP = [*get_args(events.Phase), StepEnd]


def make_trainer(group: dist.ProcessGroup, run_dir: Path, **training: object) -> Trainer:
    config = make_config("sgd", "contiguous", "replicated", run_dir)
    changed = config.training.model_copy(update=training)
    config = config.model_copy(update={"training": changed})
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group, second_group(2))
    return Trainer(config, make_examples(), make_translator(config, ranks), DataParallel(group))


def brief(event: Event) -> object:
    return event.phase if isinstance(event, PhaseBegin) else type(event)


def bare_training(group: dist.ProcessGroup, run_dir: Path) -> tuple[list[object], list[StepEnd], int]:
    trainer, heard, made = make_trainer(group, run_dir, max_steps=3), [], []
    trainer.listeners.append(heard.append)
    steps = trainer.steps()
    trainer.train(made.append(step) or step for step in steps)
    ends = [event for event in heard if isinstance(event, StepEnd)]
    return [brief(event) for event in heard], ends, len(made)


def test_phases_of_a_step_come_in_order_and_its_figures_at_its_end(ranks: RankPool, tmp_path: Path) -> None:
    by_rank = ranks.run(bare_training, tmp_path / "run", world_size=2)
    for told, ends, made in by_rank:
        assert told == STEP * 3
        assert [end.step for end in ends] == [1, 2, 3]
        assert made == 4  # one ahead
    assert not (tmp_path / "run").exists()
    for one, other in zip(by_rank[0][1], by_rank[1][1], strict=True):
        assert one.gradient_norm == other.gradient_norm > 0
        assert one.target_tokens == other.target_tokens > 0
        assert 0 < one.loss + other.loss < 10


def whole_training(group: dist.ProcessGroup, run_dir: Path) -> list[object]:
    trainer = make_trainer(group, run_dir, max_steps=5, log_every=3, validate_every=4, checkpoint_every=2)
    heard: list[Event] = []
    validator = Validator(trainer, ExampleList([Example([5], [6])]), [("w5", "w6")])
    trainer.listeners += [Meter(trainer), validator, Checkpoints(trainer), heard.append]
    trainer.fit()
    return [
        event if isinstance(event, RunEnd) else brief(event) for event in heard if not isinstance(event, PhaseBegin)
    ]


def test_validations_and_checkpoints_pause_training(ranks: RankPool, tmp_path: Path) -> None:
    """A validation saves, so that step 4 is saved once. What a listener causes is heard before what it heard."""
    saved = [Paused, CheckpointBegin, Resumed, CheckpointSaved]
    validated = [Report, Paused, ValidationBatch, ValidationBatch, *saved, events.Validation, Resumed]
    end = RunEnd(5, "training.max_steps = 5 is reached", interrupted=False)
    steps = [[], [Report, *saved], [Report], validated, []]
    expected = [told for caused in steps for told in (*caused, StepEnd)]
    for told in ranks.run(whole_training, tmp_path / "run", world_size=2):
        assert told == [*expected, *validated, StepsEnd, end]


def final_validation(group: dist.ProcessGroup, run_dir: Path) -> tuple[int, list[str]]:
    """The last step is saved, and only then validated."""
    trainer = make_trainer(group, run_dir, max_steps=2, validate_every=100, checkpoint_every=1)
    validator = Validator(trainer, ExampleList([Example([5], [6])]), [("w5", "w6")])
    trainer.listeners += [validator, Checkpoints(trainer)]
    trainer.fit()
    found = list_checkpoints(run_dir / "checkpoints")
    return read_manifest(found[-1])["progress"]["validated_step"], [path.name for path in found]


def test_the_outcome_of_a_validation_is_added_to_a_step_that_is_already_saved(ranks: RankPool, tmp_path: Path) -> None:
    assert ranks.run(final_validation, tmp_path / "run", world_size=2) == [(2, ["step-1", "step-2"])] * 2


def stopped_in_validation(
    group: dist.ProcessGroup, run_dir: Path, training: dict[str, int]
) -> tuple[list[object], list[str]]:
    """One rank is told to stop, in the first batch of the validation."""
    trainer = make_trainer(group, run_dir, checkpoint_every=100, log_every=100, **training)
    signals, heard = StopSignals(trainer), []

    def stop(event: Event) -> None:
        if isinstance(event, ValidationBatch) and trainer.ranks.rank == 1:
            signals._note(signal.SIGTERM, None)

    examples = [Example([5], [6])] * 200  # two batches of 64 on each rank
    validator = Validator(trainer, ExampleList(examples), [("w5", "w6")] * 200)
    trainer.listeners += [stop, signals, Meter(trainer), validator, Checkpoints(trainer), heard.append]
    trainer.fit()
    assert signals.exit_status == 128 + signal.SIGTERM
    assert trainer.translator.core.training
    told = [brief(event) for event in heard if not isinstance(event, PhaseBegin)]
    return told, [path.name for path in list_checkpoints(run_dir / "checkpoints")]


@pytest.mark.parametrize(
    "training", [{"max_steps": 2, "validate_every": 100}, {"max_steps": 9, "validate_every": 2}], ids=["last", "midway"]
)
def test_a_validation_that_is_interrupted_is_given_up_and_the_step_saved(
    training: dict[str, int], ranks: RankPool, tmp_path: Path
) -> None:
    for told, saved in ranks.run(stopped_in_validation, tmp_path / "run", training, world_size=2):
        assert told.count(StepEnd) == 2
        assert told.count(ValidationBatch) == 1
        assert events.Validation not in told
        assert told[-1] is RunEnd
        assert saved == ["step-2"]


def test_listener_of_the_documentation() -> None:
    documentation = events.__doc__
    assert documentation is not None
    example = dedent(documentation[documentation.index("    from dist") : documentation.index("Listeners are called")])
    trainer = SimpleNamespace(listeners=[])
    exec(example, {"trainer": trainer})
    (curve,) = trainer.listeners
    for event in (StepEnd(99, 3.0, 1.0, 10), StepEnd(100, 2.0, 1.0, 10), Paused()):
        curve(event)
    assert curve.points == [(100, 2.0)]
    assert len(example.strip().splitlines()) <= 12
