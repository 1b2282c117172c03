"""The training benchmark on tiny models: what it computes, compares and writes, never how long it takes."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import train_bench
from common.figures import Disagreement
from dist_s2s.distributed import Ranks
from tests.commands import run
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.training.test_equality import DataParallel
from training import job, joeynmt_peer, problems, race
from training.breakdown import BACKGROUND, PARTS
from training.job import OURS, Contender, Job, Measurement, run_on_ranks
from training.joeynmt import run_joeynmt
from training.problems import make_config, predicted_bytes, zipf_examples
from training.race import WHEN_COMPARED, WHEN_TIMED, compare
from training.rank import measure

SIZES = {"model.embedding_dim": "8", "model.hidden_size": "16", "model.output_samples": "50"}
SIZES |= {"data.batch_tokens": "300"}
SMALL = [f"--{key.partition('.')[2]}={value}" for key, value in SIZES.items()]
SMALL += ["--ranks=4", "--turns=1", "--seconds=0.001", "--output=sampled"]
DDP = [Contender("ddp_dense"), Contender("ddp_sparse")]


def measure_on_pool(group: dist.ProcessGroup, job: Job) -> dict[str, Any]:
    """A rank's part in a job, without torchrun and accelerate."""
    world_size = dist.get_world_size(group)
    ranks = Ranks(dist.get_rank(group), world_size, torch.device("cpu"), group, second_group(world_size))
    return asdict(measure(job, DataParallel(group), ranks))  # type: ignore[arg-type]


def run_on_pool(ranks: RankPool, job: Job) -> Measurement:
    answers = ranks.run(measure_on_pool, job, world_size=job.ranks)
    return Measurement.of_ranks([Measurement(**answer) for answer in answers])


def make_job(contender: Contender, vocabulary_size: int = 131, ranks: int = 4, steps: int = 4, **keys: str) -> Job:
    config = make_config(SIZES | {key.replace("__", "."): value for key, value in keys.items()})
    sizes = (vocabulary_size, vocabulary_size + 7)
    return Job(contender, config, ranks, sizes, zipf_examples(vocabulary_size, 1, sentences=60), steps)


@pytest.fixture
def pooled(ranks: RankPool, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the command run its jobs on the pool, whose processes are there already; ``change`` may alter a job."""

    def use_the_pool(change: Callable[[Job], Job] = lambda job: job) -> None:
        monkeypatch.setattr(race, "run_on_ranks", lambda job: run_on_pool(ranks, change(job)))

    return use_the_pool


@pytest.mark.parametrize("optimizer", ["sgd", "sparse_adam"])
@pytest.mark.parametrize("output", ["replicated", "sharded", "sampled"])
def test_contenders_compute_the_same(output: str, optimizer: str, ranks: RankPool) -> None:
    keys = {"model__output": output, "embedding__optimizer": optimizer, "training__max_norm": "0.1"}
    ours = run_on_pool(ranks, make_job(OURS, **keys))
    assert ours.losses[-1] < ours.losses[0]
    assert min(ours.norms) > 0.1  # or clipping would not be compared
    for contender in DDP:
        theirs = run_on_pool(ranks, make_job(contender, **keys))
        compare(contender, ours, theirs, 4 if optimizer == "sgd" else 2, WHEN_COMPARED)
        assert theirs.tokens == ours.tokens
        assert len(theirs.seconds) == len(theirs.peak_bytes) == 4


def run_forked(python: str, *arguments: str) -> str:
    """Run what torchrun is to start on ranks that are forked, with the environment that it would give them."""
    assert arguments[:3] == ("-m", "torch.distributed.run", "--standalone")
    number, _, module, folder = arguments[3:]
    return run(module, folder, ranks=int(number.removeprefix("--nproc_per_node="))).output


@pytest.mark.parametrize("starter", ["forked", pytest.param("torchrun", marks=pytest.mark.nightly)])
def test_torchrun_gives_what_the_pool_gives(ranks: RankPool, starter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on another number of ranks, with the same global batches."""
    if starter == "forked":
        monkeypatch.setattr(job, "run_python", run_forked)
    started = run_on_ranks(make_job(OURS, ranks=2, model__output="sampled"))
    pooled = run_on_pool(ranks, make_job(OURS, ranks=4, model__output="sampled"))
    assert started.losses == pytest.approx(pooled.losses, rel=1e-5)
    assert started.norms == pytest.approx(pooled.norms, rel=1e-4)
    assert started.tokens == pooled.tokens
    assert len(started.idle_bytes) == 2
    assert 0 < started.peak_above_idle < max(started.peak_bytes)


def test_parts_add_up_to_the_steps(ranks: RankPool) -> None:
    found = run_on_pool(ranks, replace(make_job(OURS, model__output="sampled", steps=8), breakdown=True))
    assert set(found.parts) == {*PARTS, BACKGROUND}
    assert min(found.parts.values()) >= 0
    assert found.parts["exchange"] > 0
    assert sum(found.parts[part] for part in PARTS) == pytest.approx(
        sum(found.seconds[2:]) / 6, rel=0.5
    )  # a busy machine may pause in between


def test_the_command_writes_its_figures(
    pooled: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pooled()
    file, picture = tmp_path / "figures.json", tmp_path / "plot.png"
    sizes = ["--num_embeddings", "400", "131"]
    outputs = [f"--json={file}"]
    if find_spec("matplotlib") is not None:
        outputs.append(f"--plot={picture}")
    assert train_bench.main([*SMALL, *sizes, *outputs]) == 0

    text = file.read_text(encoding="utf-8")
    assert str(tmp_path) not in text.replace(str(file), "").replace(str(picture), "")  # but in the command
    report = json.loads(text)
    found = [(result["num_embeddings"], result["contender"]) for result in report["contenders"]]
    assert found == [(size, name) for size in (131, 400) for name in ("ours", "ddp_dense", "ddp_sparse")]
    for result in report["contenders"]:
        ours = next(other for other in report["contenders"] if other["num_embeddings"] == result["num_embeddings"])
        assert result["median"] > 0
        assert result["processes"] == 4
        assert result["ours_by_this"] == pytest.approx(ours["median"] / result["median"])
    assert set(report["seconds_of_our_step"]) == {"131", "400"}
    assert report["config"]["model"]["hidden_size"] == 16
    assert picture.exists() == (len(outputs) == 2)
    output = capsys.readouterr().out
    assert "DDP, sparse" in output
    assert "table optimizer" in output


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"training__learning_rate": "0.004"}, "the loss of ddp_sparse in step"),
        ({"training__seed": "2"}, "the loss of ddp_sparse in step 0"),
        ({"training__max_norm": "1"}, "the loss of ddp_sparse in step"),
    ],
)
def test_no_figures_when_a_contender_differs(
    keys: dict[str, str], message: str, pooled: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = make_job(OURS, **keys).config

    def change(job: Job) -> Job:
        if job.contender.kind != "ddp_sparse":
            return job
        name = next(iter(keys)).partition("__")[2]
        training = job.config.training.model_copy(update={name: getattr(wrong.training, name)})
        return replace(job, config=job.config.model_copy(update={"training": training}))

    pooled(change)
    assert train_bench.main([*SMALL, "--num_embeddings=131"]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out


def test_other_norms_and_numbers_of_parameters_are_disagreements() -> None:
    ours = Measurement([5.0, 4.0], [1.0, 2.0], [0.1, 0.1], [9, 9], [0], [1], parameters={"encoder": 7})
    norm = 2.0 * (1 + 2 * WHEN_COMPARED[1])
    with pytest.raises(Disagreement, match="gradient norm of ddp_dense in step 1"):
        compare(DDP[0], ours, replace(ours, norms=[1.0, norm]), 2, WHEN_COMPARED)
    compare(DDP[0], ours, replace(ours, norms=[1.0, norm]), 2, WHEN_TIMED)
    with pytest.raises(Disagreement, match="nan"):
        compare(DDP[0], ours, replace(ours, losses=[float("nan"), 4.0]), 2, WHEN_TIMED)
    with pytest.raises(Disagreement, match="numbers of parameters"):
        compare(DDP[0], ours, replace(ours, parameters={"encoder": 8}), 2, WHEN_COMPARED)


def test_contenders_without_room_are_left_out(
    pooled: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pooled()
    needed = 4 * 3 * 131 * (8 + 8 + 17)  # by ours
    monkeypatch.setattr(problems, "available", lambda: 1.01 * needed / problems.MEMORY_SHARE)
    assert train_bench.main([*SMALL, "--num_embeddings=131"]) == 0
    output = capsys.readouterr().out
    assert "131: DDP, dense left out: it needs" in output
    assert "131: DDP, sparse left out: it needs" in output


def test_no_step_is_timed_if_a_size_has_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(problems, "available", lambda: 2**30 // 10)
    assert train_bench.main([*SMALL, "--num_embeddings", "131", "1000000"]) == 2
    assert "V = 1,000,000: ours has no room: it needs 0.4 GiB" in capsys.readouterr().err


def test_predicted_memory() -> None:
    config = make_config({"model.embedding_dim": "256", "model.hidden_size": "512", "model.output": "sampled"})
    tables = 4 * 1000 * (256 + 256 + 513)
    assert predicted_bytes("ours", config, 2, (1000, 1000)) == 3 * tables
    assert predicted_bytes("ddp_sparse", config, 2, (1000, 1000)) == 2 * 3 * tables
    assert predicted_bytes("ddp_dense", config, 2, (1000, 1000)) == 2 * 4 * tables


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=no.tsv"], "--data needs --peers joeynmt"),
        (["--peers=joeynmt", "--data=no.tsv"], "there is no file no.tsv"),
        (["--peers=joeynmt", "--num_layers=2"], "needs --num_layers 1, but it is 2"),
        (["--peers=joeynmt", "--num_embeddings", "5", "6"], "needs one --num_embeddings"),
    ],
)
def test_impossible_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        train_bench.main(arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_joeynmt_takes_turns_with_ours(
    ranks: RankPool, pooled: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In JoeyNMT's place ours runs on one rank; the order, the attention and the figures are the command's."""
    turns: list[str] = []

    def change(job: Job) -> Job:
        turns.append(job.contender.key)
        assert job.config.model.attention == "general"
        return job

    def run_in_its_place(python: str, job: Job) -> Measurement:
        assert python == "its-python"
        return run_on_pool(ranks, replace(change(job), contender=OURS, ranks=1))

    pooled(change)
    monkeypatch.setattr(train_bench, "python_of", lambda peer, folder: "its-python")
    monkeypatch.setattr(race, "run_joeynmt", run_in_its_place)
    file = tmp_path / "figures.json"
    assert train_bench.main([*SMALL, "--peers=joeynmt", "--num_embeddings=131", f"--json={file}"]) == 0
    names = ["ours", "joeynmt_1_threads", "joeynmt_2_threads"]
    assert turns == [*names, *names, "ours"]  # to compare, to be timed, and ours with clocks
    results = json.loads(file.read_text(encoding="utf-8"))["contenders"]
    assert [result["contender"] for result in results] == names
    assert [result["processes"] for result in results] == [4, 1, 1]


def test_special_tokens_change_places_for_joeynmt() -> None:
    rows = torch.arange(6)
    theirs = joeynmt_peer.reorder_specials(rows).tolist()
    numbers = joeynmt_peer.SPECIALS
    ours = {"pad": 0, "bos": 1, "eos": 2, "unk": 3}
    assert {name: theirs[number] for name, number in numbers.items()} == ours
    assert theirs[4:] == [4, 5]


@pytest.mark.skipif("JOEYNMT_PYTHON" not in os.environ, reason="JOEYNMT_PYTHON names no interpreter with JoeyNMT 2.3")
@pytest.mark.parametrize(
    ("output", "optimizer"), [("replicated", "sgd"), ("sharded", "sgd"), ("sharded", "sparse_adam")]
)
def test_joeynmt_computes_the_same(output: str, optimizer: str, ranks: RankPool) -> None:
    keys = {"model__output": output, "model__attention": "general", "training__max_norm": "0.1"}
    keys |= {"embedding__optimizer": optimizer, "embedding__learning_rate": "0.01"}
    contender = Contender("joeynmt", threads=2)
    theirs = run_joeynmt(os.environ["JOEYNMT_PYTHON"], make_job(contender, **keys))
    ours = run_on_pool(ranks, make_job(OURS, **keys))
    compare(contender, ours, theirs, 4 if optimizer == "sgd" else 1, WHEN_COMPARED)
