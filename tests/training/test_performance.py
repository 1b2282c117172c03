"""Where a step's time goes, which owner is asked for how many rows, and the trace of some steps."""

import json
from collections import Counter
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.training import performance
from dist_s2s.training.events import Event, Phase, Report
from dist_s2s.training.meter import Meter
from dist_s2s.training.performance import FIGURES, PART_OF, PARTS, PartClock
from dist_s2s.training.trace import Tracer
from tests.rank_pool import RankPool
from tests.training.test_equality import VOCABULARY
from tests.training.test_events import make_trainer

STEPS, EVERY = 5, 2


class DeviceEvent:
    """Stands for CUDA's: the device comes to events later, a second after each other, when one is waited for."""

    waiting: ClassVar[list["DeviceEvent"]] = []
    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.time: float | None = None

    def record(self) -> None:
        self.waiting.append(self)

    def synchronize(self) -> None:
        for event in self.waiting:
            event.time = DeviceEvent.now
            DeviceEvent.now += 1.0
        self.waiting.clear()

    def elapsed_time(self, end: "DeviceEvent") -> float:
        assert self.time is not None
        assert end.time is not None
        return 1_000 * (end.time - self.time)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_phases_add_up_to_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1_000))
    monkeypatch.setattr(performance.time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(torch.cuda, "Event", DeviceEvent)
    clock = PartClock(torch.device(kind))
    clock.begin("data")  # no step follows, as at the end of a stream's chunk
    for _ in range(3):
        for phase in get_args(Phase):
            clock.begin(phase)
        clock.end()
    phases = Counter(PART_OF.values())
    assert clock.seconds == {part: 3.0 * phases[part] for part in PARTS}
    clock.reset()
    assert set(clock.seconds.values()) == {0.0}


def owners(ids: Tensor, world_size: int) -> np.ndarray:
    """How many distinct ids each owner has, in the contiguous layout."""
    borders = np.linspace(0, len(VOCABULARY), world_size + 1)
    return np.histogram(np.unique(ids.numpy()), borders)[0]


def measured(group: dist.ProcessGroup, run_dir: Path) -> tuple[list[Report], list[tuple[np.ndarray, int]], list[str]]:
    """The reports, and of each step what its ids ask of each owner and how many they are; what the tracer said."""
    trainer = make_trainer(group, run_dir, max_steps=STEPS, log_every=EVERY, trace="2:3")
    said: list[str] = []
    heard: list[Event] = []
    run_dir.mkdir(exist_ok=True)
    trainer.listeners += [Meter(trainer), Tracer(trainer, said.append), heard.append]
    steps = [step for _, step in zip(range(STEPS), trainer.steps(), strict=False)]
    trainer.fit()
    world_size = dist.get_world_size(group)
    looked_up = [[step.batch.source, *step.target_ids] for step in steps]
    asked = [(sum(owners(ids, world_size) for ids in step), sum(ids.numel() for ids in step)) for step in looked_up]
    return [report for report in heard if isinstance(report, Report)], asked, said


def test_figures_of_each_rank(ranks: RankPool, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (reports, first, said), (others, second, _) = ranks.run(measured, run_dir, world_size=2)
    assert [report.step for report in reports] == [2, 3, 4]  # at 3 the trace is written, which is no training
    assert reports == others
    for report, steps in zip(reports, (slice(0, 2), slice(2, 3), slice(3, 4)), strict=True):
        found = report.by_rank
        assert tuple(found) == FIGURES
        times = np.array([found[f"{part}_seconds"] for part in (*PARTS, "other")])
        np.testing.assert_allclose(times.sum(axis=0), found["step_seconds"], rtol=1e-5)
        assert (times >= 0).all()
        assert (times[1:-1] > 0).all()
        assert (np.array(found["waited_seconds"]) < found["step_seconds"]).all()
        asked = np.array([[of_step[0] for of_step in of_rank[steps]] for of_rank in (first, second)])  # [W, steps, W]
        np.testing.assert_allclose(found["rows_served"], asked.sum(axis=0).mean(axis=0))
        np.testing.assert_allclose(found["distinct_ids"], asked.mean(axis=1).sum(axis=1))
        ids = [np.mean([of_step[1] for of_step in of_rank[steps]]) for of_rank in (first, second)]
        np.testing.assert_allclose(found["ids"], ids)
        assert report.values["distinct_id_ratio"] == pytest.approx(asked.mean(axis=1).sum() / sum(ids))
        assert min(found["bytes_sent"]) > 0
        assert min(found["memory_bytes"]) > 2**20
    assert said == [f"traces of steps 2 to 3 are in {run_dir}/trace/steps-2-3-rank-*.json; see ui.perfetto.dev"]
    assert sorted(path.name for path in (run_dir / "trace").iterdir()) == [
        f"steps-2-3-rank-{rank}.json" for rank in (0, 1)
    ]
    for path in (run_dir / "trace").iterdir():
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
        names = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
        assert {phase: names[phase] for phase in get_args(Phase)} == dict.fromkeys(get_args(Phase), 2)
        assert any(event["name"].startswith("aten::") for event in events)


def traced(group: dist.ProcessGroup, run_dir: Path, steps: str) -> tuple[list[str], list[str]]:
    trainer = make_trainer(group, run_dir, max_steps=2, trace=steps)
    said: list[str] = []
    run_dir.mkdir()
    trainer.listeners.append(Tracer(trainer, said.append))
    trainer.fit()
    return said, [path.name for path in run_dir.rglob("*.json")]


def test_a_trace_ends_with_the_training_and_is_missed_if_it_does_not_begin(ranks: RankPool, tmp_path: Path) -> None:
    run_dir = tmp_path / "short"
    [(said, files)] = ranks.run(traced, run_dir, "2:9", world_size=1)
    assert said == [f"traces of steps 2 to 2 are in {run_dir}/trace/steps-2-2-rank-*.json; see ui.perfetto.dev"]
    assert files == ["steps-2-2-rank-0.json"]
    [(said, files)] = ranks.run(traced, tmp_path / "none", "3:9", world_size=1)
    assert said == ["no trace: step 3 is not among those of this training, 1 to 2"]
    assert files == []
