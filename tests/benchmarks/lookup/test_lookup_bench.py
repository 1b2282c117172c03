"""The lookup benchmark on tiny tables: what it writes and draws, never how long it takes. See also test_race.py."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessRaisedException

import lookup_bench
from common import arguments as arguments_of_all
from common import peers
from dist_s2s.cost.ranks import run_on_ranks
from lookup import measure, options, peak
from lookup.lineup import SYSTEMS, default_names
from lookup.plot import draw
from tests.rank_pool import RankPool

TINY = ["--num_embeddings=131", "--embedding_dim=8", "--ids=40", "--repetitions=2"]
FEW = ["--contenders", "collective", "floor", "megatron"]
PNG = b"\x89PNG"


def fail_on_rank_1(group: dist.ProcessGroup) -> None:
    if dist.get_rank(group) == 1:
        raise ValueError("this rank is broken")
    dist.barrier(group)


@pytest.fixture
def on_the_pool(ranks: RankPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes seconds: race on the pool's, and leave measuring memory to a test of its own."""

    def run(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return ranks.run(function, *args, world_size=world_size)

    def two_mebibytes(*_: object) -> Sequence[peak.Memory]:
        return [{"idle": 0, "above_idle": 2**20}, {"idle": 0, "above_idle": 2 * 2**20}]

    assert measure.run_on_ranks is run_on_ranks
    monkeypatch.setattr(measure, "run_on_ranks", run)
    monkeypatch.setattr(measure, "peak_above_idle", two_mebibytes)


@pytest.mark.usefixtures("on_the_pool")
def test_lookup_bench_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert lookup_bench.main([*TINY, f"--json={file}"]) == 0

    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["settings"]["embedding_dim"] == 8
    assert report["torch"] == torch.__version__
    (run,) = report["runs"]
    problem = {"num_embeddings": 131, "embedding_dim": 8, "ids": 40, "skew": 1.0, "device": "cpu", "ids_per_bag": 1}
    assert run["problem"] == problem
    names = [result["contender"] for result in run["results"]]
    assert names == default_names(sweep=False)
    assert {"shared_memory", "collective", "shared_memory+round_robin", "collective+round_robin"} < set(names)
    assert run["differences"]["SGD"].keys() == set(names) - {"floor"}
    for result in run["results"]:
        step = result["step_ms"]
        assert result["forward_ms"]["median"] < step["median"]
        assert step["lowest"] <= step["first_quartile"] <= step["median"]
        assert step["median"] <= step["third_quartile"] <= step["highest"]
        assert result["rows_per_second"] == pytest.approx(2 * 40 / (step["median"] / 1000))
        assert result["peak_bytes"] == 2 * 2**20
    steps = {result["contender"]: result["step_ms"]["median"] for result in run["results"]}
    assert len(run["ratios"]) == 4 * (len(names) - 4)
    for ratio in run["ratios"]:
        assert ratio["step"] == steps[ratio["other"]] / steps[ratio["ours"]]
    output = capsys.readouterr().out
    assert all(SYSTEMS[name].title in output for name in names)
    assert "ours ÷ the floor" in output


@pytest.mark.usefixtures("on_the_pool")
@pytest.mark.parametrize(
    ("setting", "values", "found"),
    [("ranks", ["1", "2"], [1, 2]), ("num_embeddings", ["131", "9"], [131, 9]), ("skew", [], [0.0, 1.0, "same"])],
)
def test_a_sweep_writes_a_run_for_each_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, values: list[str], found: list[object]
) -> None:
    file = tmp_path / "sweep.json"
    chosen = ["--values", *values] if values else []
    arguments = [*TINY, *FEW, f"--sweep={setting}", *chosen, "--no_memory", f"--json={file}"]
    assert lookup_bench.main(arguments) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [run["ranks"] if setting == "ranks" else run["problem"][setting] for run in report["runs"]] == found
    for run in report["runs"]:
        assert [result["contender"] for result in run["results"]] == FEW[1:]
        assert all(result["peak_bytes"] is None for result in run["results"])
    assert f"step ms over {setting}" in capsys.readouterr().out


@pytest.mark.usefixtures("on_the_pool")
def test_lookup_bench_of_bags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, arguments = tmp_path / "figures.json", [*TINY, "--ids_per_bag=4", "--no_memory"]
    assert lookup_bench.main([*arguments, f"--json={file}"]) == 0
    (run,) = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert run["problem"]["ids_per_bag"] == 4
    names = {result["contender"] for result in run["results"]}
    assert {"shared_memory", "collective", "floor"} < names
    assert names.isdisjoint({"megatron", "dtensor", "ddp_sparse", "ddp_dense"})
    assert "40 ids per rank, 4 ids a bag" in capsys.readouterr().out


@pytest.mark.usefixtures("on_the_pool")
@pytest.mark.parametrize("sweep", [[], ["--sweep=ids", "--values", "8", "40"], ["--sweep=skew"]])
def test_figures_are_drawn(tmp_path: Path, sweep: list[str]) -> None:
    pytest.importorskip("matplotlib")
    report, plot, again = tmp_path / "figures.json", tmp_path / "figures.png", tmp_path / "again.png"
    assert lookup_bench.main([*TINY, *FEW, *sweep, f"--json={report}", f"--plot={plot}"]) == 0
    draw(json.loads(report.read_text(encoding="utf-8")), again)
    assert plot.read_bytes().startswith(PNG)
    assert plot.read_bytes() == again.read_bytes()


@pytest.mark.usefixtures("on_the_pool")
def test_lookup_bench_gives_no_timings_when_contenders_disagree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "TOLERANCE", -1.0)
    assert lookup_bench.main([*TINY, *FEW, f"--json={tmp_path / 'figures.json'}"]) == 1
    assert not (tmp_path / "figures.json").exists()
    captured = capsys.readouterr()
    assert "megatron with SGD by" in captured.err
    assert "forward ms" not in captured.out


def test_not_a_number_is_a_disagreement() -> None:
    assert measure.find_disagreement({"SGD": {"ddp_dense": 1e-6, "collective+bf16": 0.01}}) == ""
    assert "ddp_dense with SGD by nan" in measure.find_disagreement({"SGD": {"ddp_dense": float("nan")}})


@pytest.mark.usefixtures("on_the_pool")
def test_what_does_not_fit_into_memory_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "available", lambda *_: 8 * 131 * 8 * 4 / measure.MEMORY_SHARE)
    assert lookup_bench.main([*TINY, *FEW, "ddp_dense"]) == 0
    assert "DDP, dense gradient, SGD: left out" in capsys.readouterr().out


def test_a_failing_rank_tells_why_and_ends_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessRaisedException):
        run_on_ranks(fail_on_rank_1, 2)
    assert "ValueError: this rank is broken" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ids=0"], "must be at least 1, but is 0"),
        (["--skew=-1"], "must be at least 0, but is -1"),
        (["--json=missing/figures.json"], "there is no folder"),
        (["--ids_per_bag=7"], "4096 ids cannot be divided into bags of 7; choose a multiple with --ids"),
        (["--ids_per_bag=4", "--sweep=ids", "--values", "8", "9"], "9 ids cannot be divided into bags of 4"),
        (["--ids_per_bag=4", "--contenders", "megatron"], "megatron does not sum the rows of bags"),
        (["--values", "1"], "name it with --sweep"),
        (["--sweep=ranks", "--values", "two"], "argument --values"),
        (["--sweep=skew", "--values", "nan"], "must be at least 0, but is nan"),
        (["--contenders", "horovod"], "invalid choice"),
    ],
)
def test_wrong_arguments_are_told_before_measuring(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        lookup_bench.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--plot=curve.png"], "pip install matplotlib"), (["--contenders", "torchrec"], "--peers torchrec")],
)
def test_what_is_not_installed_is_told_before_measuring(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (arguments_of_all, options):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        lookup_bench.main(arguments)
    assert message in capsys.readouterr().err


def test_torchrec_gets_an_environment_in_which_the_benchmark_starts_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def record(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (tmp_path / "torchrec" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "torchrec" / "bin" / "python").touch()
        return subprocess.CompletedProcess(command, 7 if lookup_bench.__file__ in command else 0)

    for module in (lookup_bench, options):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr(peers.subprocess, "run", record)
    arguments = ["--peers=torchrec", f"--peers_folder={tmp_path}"]
    assert lookup_bench.main(arguments) == 7
    python = str(tmp_path / "torchrec" / "bin" / "python")
    assert commands[0][:3] == [sys.executable, "-m", "venv"]
    assert commands[0][-1] == str(tmp_path / "torchrec")
    assert all(command[0] == python for command in commands[1:])
    assert commands[-1][-3:] == [lookup_bench.__file__, *arguments]
    assert peers.is_complete(peers.TORCHREC, tmp_path)


@pytest.mark.skipif(
    not peers.is_complete(peers.TORCHREC, peers.default_folder()), reason="needs the environment of --peers torchrec"
)
@pytest.mark.parametrize("ids_per_bag", [1, pytest.param(5, marks=pytest.mark.nightly)])
def test_torchrec_computes_the_same(tmp_path: Path, ids_per_bag: int) -> None:
    file = tmp_path / "figures.json"
    contenders = ["--contenders", "torchrec", "collective", "--no_memory", f"--ids_per_bag={ids_per_bag}"]
    assert lookup_bench.main([*TINY, *contenders, "--peers=torchrec", f"--json={file}"]) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["peers"] == {"torchrec": "1.8.0"}
    (run,) = report["runs"]
    assert all(of_update["torchrec"] <= measure.TOLERANCE for of_update in run["differences"].values())
    assert [result["contender"] for result in run["results"]] == ["torchrec", "collective"]
