"""python -m dist_s2s.estimate: what it prints and writes, its mistakes, and a calibration in small."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dist_s2s import UserError, estimate
from dist_s2s.cost import calibrate as calibration_of
from dist_s2s.cost.calibrate import calibrate, problems
from dist_s2s.cost.coefficients import Coefficients, PartCost, read_calibration
from dist_s2s.cost.fit import fit, solve
from dist_s2s.cost.measure import RankResult, Timing
from dist_s2s.cost.problem import OPTIMIZERS, Problem
from dist_s2s.cost.ranks import run_on_ranks
from dist_s2s.cost.step_time import part_messages, step_time
from dist_s2s.cost.work import Work, part_works
from tests.commands import run
from tests.rank_pool import RankPool
from tests.test_estimate_model import KNOWN

BILLION = ["--num_embeddings=1_000_000_000", "--embedding_dim=64", "--ranks=64", "--hosts=8"]


def test_the_command_predicts_a_billion_rows(tmp_path: Path) -> None:
    finished = run("dist_s2s.estimate", *BILLION, f"--json={tmp_path / 'estimate.json'}")
    assert "1,000,000,000 rows × 64 in float32" in finished.output
    assert "64 ranks on 8 hosts of 8 cores; between hosts 3.125 GB/s and 50 µs" in finished.output
    assert "Best: round_robin, collective. With contiguous the busiest owner" in finished.output
    assert finished.seconds < 30

    report = json.loads((tmp_path / "estimate.json").read_text(encoding="utf-8"))
    assert report["best"]["layout"] == report["choices"][0]["layout"] == "round_robin"
    for choice in report["choices"]:
        assert choice["memory_per_rank"]["rows"] == 10**9 / 64 * 64 * 4
        assert choice["memory_per_rank"]["optimizer_state"] == 10**9 / 64 * 4
        seconds = [sum(part.values()) for part in choice["seconds"].values()]
        assert sum(seconds) == pytest.approx(choice["step_seconds"])
        memory, sent = choice["memory_per_rank"], choice["bytes_sent"]
        assert sum(memory.values()) == pytest.approx(2 * memory["total"])
        assert sent["to_others"] == pytest.approx(sent["requests"] + sent["rows"] + sent["gradients"])
    assert report["choices"][0]["step_seconds"] < report["choices"][1]["step_seconds"]


def test_settings_reach_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "estimate.json"

    def report(*settings: str) -> dict[str, Any]:
        assert estimate.main([*BILLION, *settings, f"--json={file}"]) == 0
        return json.loads(file.read_text(encoding="utf-8"))["choices"][0]  # type: ignore[no-any-return]

    usual = report()
    assert report("--bandwidth=0.1")["step_seconds"] > usual["step_seconds"]
    assert report("--latency=5000")["step_seconds"] == pytest.approx(usual["step_seconds"] + 4 * 4_950e-6)
    assert report("--cores=2")["step_seconds"] > usual["step_seconds"]
    assert report("--ids=8192")["distinct_ids_per_rank"] > usual["distinct_ids_per_rank"]
    assert report("--skew=0")["distinct_ids_per_rank"] == pytest.approx(4_096, abs=1)
    assert report("--optimizer=SparseAdam")["memory_per_rank"]["optimizer_state"] == 2 * 4e9
    assert report("--dtype=bfloat16")["memory_per_rank"]["rows"] == 2e9
    assert report("--comm_dtype=bfloat16")["bytes_sent"]["rows"] == usual["bytes_sent"]["rows"] / 2
    one_host = report("--hosts=1", "--transport=shared_memory")
    assert one_host["transport"] == "shared_memory"
    assert "which travel in bfloat16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--num_embeddings, --embedding_dim and --ranks are needed"),
        ([*BILLION, "--ids=0"], "must be at least 1, but is 0"),
        ([*BILLION, "--skew=-1"], "must be at least 0, but is -1"),
        ([*BILLION, "--skew=inf"], "must be at least 0, but is inf"),
        ([*BILLION, "--skew=much"], "must be a number, but is 'much'"),
        ([*BILLION, "--bandwidth=0"], "must be more than 0, but is 0"),
        ([*BILLION, "--optimizer=Adam"], "invalid choice"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        estimate.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hosts=7"], "64 ranks are not a multiple of 7 hosts"),
        (["--transport=shared_memory"], "ranks on 8 hosts do not share memory"),
        (["--calibration=missing.json"], "cannot read the calibration missing.json: No such file"),
        (["--json=missing/estimate.json"], "there is no folder missing"),
        (["--calibrate=missing/machine.json"], "there is no folder missing"),
        (["--json=."], "cannot write .: Is a directory"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        estimate.main([*BILLION, *arguments])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "is not of this version"),
        (b'{"coefficients": {"plan": {"hop": 1}}}', "is not of this version"),
    ],
)
def test_a_broken_calibration_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "machine.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_calibration(file)


def test_the_package_has_a_calibration() -> None:
    calibration = read_calibration(None)
    assert calibration.coefficients.update.keys() == set(OPTIMIZERS)
    assert calibration.coefficients.transports["collective"].fixed > 0
    assert calibration.cores >= 1


def test_coefficients_survive_being_written() -> None:
    assert Coefficients.from_json(json.loads(json.dumps(KNOWN.to_json()))) == KNOWN


def test_solving_leaves_out_what_would_be_negative() -> None:
    columns = [[1.0, float(n), float(n * n)] for n in range(1, 6)]
    exact, left = solve(columns, [2.0 + 3.0 * n for n in range(1, 6)])
    assert exact == pytest.approx([2.0, 3.0, 0.0], abs=1e-9)
    assert left == pytest.approx(0, abs=1e-12)
    without, left = solve(columns, [2.0 + 3.0 * n - 0.1 * n * n for n in range(1, 6)])
    assert without[2] == 0
    assert min(without) >= 0
    assert 0 < left < 0.1


def as_measured(problem: Problem, rank: int) -> Timing | None:
    """What a rank of a machine would measure that is just as the model with KNOWN says."""
    if rank >= problem.cluster.ranks:
        return None
    works = part_works(problem, KNOWN.cache_bytes)
    transport = KNOWN.transports[problem.moves]
    costs = {"plan": transport.plan, "rows": transport.rows, "gradients": transport.gradients}
    parts = {name: [seconds_of(works[name], cost, rank)] for name, cost in costs.items() if name in works}
    for name in OPTIMIZERS:
        work = part_works(replace(problem, optimizer=name), KNOWN.cache_bytes)["update"]
        parts[name] = [seconds_of(work, KNOWN.update[name], rank)]
    exchanges = sum(len(messages) for messages in part_messages(problem).values())
    processor = 1e-3 + transport.peer * exchanges * (problem.cluster.ranks - 1)
    ended = 5.0 + step_time(problem, KNOWN).total
    # Neither rank 0 is the first to begin, nor is it the last to end.
    return Timing(
        began=[5.0 + (rank == 0) * 1e-4], ended=[ended - (rank == 0) * 1e-4], processor=[processor], parts=parts
    )


def seconds_of(work: Work, cost: PartCost, rank: int) -> float:
    return float(sum(each[rank if len(each) > 1 else 0] for each in work.seconds(cost)))


def test_a_fit_finds_the_machine_that_was_measured() -> None:
    asked = problems()
    answers = [
        RankResult(process_bytes=3 * 10**8, timings=[as_measured(each, rank) for each in asked]) for rank in range(4)
    ]
    found = fit(asked, answers)
    assert found.process_bytes == 3e8
    assert found.crowded == pytest.approx(KNOWN.crowded, rel=0.02)
    assert found.crowded_element == pytest.approx(KNOWN.crowded_element, rel=0.02)
    assert found.transports["collective"].peer == pytest.approx(KNOWN.transports["collective"].peer)
    byte = KNOWN.transports["collective"].byte
    assert found.transports["collective"].byte == pytest.approx(byte, rel=0.05)
    for problem in asked:
        for name in OPTIMIZERS:
            asked_now = replace(problem, num_embeddings=problem.num_embeddings * 3 + 1, optimizer=name)
            assert step_time(asked_now, found).total == pytest.approx(step_time(asked_now, KNOWN).total, rel=0.03)


def test_calibrating_works_end_to_end_in_small(
    ranks: RankPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def on_the_pool(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return ranks.run(function, *args, world_size=world_size, timeout=100.0)

    assert calibration_of.run_on_ranks is run_on_ranks
    monkeypatch.setattr(calibration_of, "run_on_ranks", on_the_pool)
    monkeypatch.setattr(estimate, "calibrate", lambda asked: calibrate(asked, turns=2))
    monkeypatch.setattr(estimate, "problems", lambda: [replace(each, num_embeddings=500) for each in problems()[::5]])
    file = tmp_path / "machine.json"
    assert estimate.main([f"--calibrate={file}"]) == 0
    calibration = read_calibration(file)
    assert calibration.torch == torch.__version__
    assert calibration.coefficients.process_bytes > 2**20
    shared_memory = calibration.coefficients.transports["shared_memory"]
    for cost in (shared_memory.rows, *calibration.coefficients.update.values()):
        assert 0 < cost.step < 1
    assert str(tmp_path) not in file.read_text(encoding="utf-8")
    assert estimate.main([*BILLION, f"--calibration={file}"]) == 0
    assert "Best: " in capsys.readouterr().out


def rank_of(group: torch.distributed.ProcessGroup, shift: int) -> int:
    return group.rank() + shift


def test_ranks_of_a_calibration_are_processes_of_their_own() -> None:
    assert np.array_equal(run_on_ranks(rank_of, 2, 5), [5, 6])
