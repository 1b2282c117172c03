"""The average of a run's checkpoints: a run of its own, the same whoever writes it, and honest about what can't be."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import load_config
from dist_s2s.distributed import Ranks
from dist_s2s.storage.checkpoint import list_checkpoints, load_weights, read_manifest
from dist_s2s.storage.durable_files import sha256_of, write_checked_json
from dist_s2s.storage.run_directory import checkpoint_to_resume
from dist_s2s.translation.runs.averaging import around_best, newest, of_steps, write_average
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.translator import Translator
from tests.commands import run
from tests.rank_pool import RankPool
from tests.toy_corpus import options

ALONE = Ranks.alone()


def tensors(translator: Translator) -> dict[str, Tensor]:
    """All weights of a translator on one rank, by row id."""
    core = {name: value.clone() for name, value in translator.core.state_dict().items()}
    return core | {name: table.weight.detach().clone() for name, table in translator.tables.items()}


@pytest.fixture(scope="module")
def average(saved_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("average") / "run"
    finished = run("dist_s2s.average", "--run", saved_run, "--last", 2, "--output", output)
    assert finished.output == f"the average of step-1, step-2 of {saved_run} in {output}\n"
    return output


def test_every_weight_is_the_mean(saved_run: Path, average: Path) -> None:
    translator, both = load_translator(saved_run, ALONE), []
    for checkpoint in list_checkpoints(saved_run / "checkpoints"):
        load_weights(checkpoint, translator.core, translator.tables)
        both.append(tensors(translator))
    found = tensors(load_translator(average, ALONE))
    assert found.keys() == both[0].keys()
    for name, value in found.items():
        assert torch.equal(value, ((both[0][name].double() + both[1][name].double()) / 2).to(value.dtype))
        assert not torch.equal(both[0][name], both[1][name])
    assert run("dist_s2s.translate", "--run", average, stdin="我看见猫。\n".encode()).output.count("\n") == 1


@pytest.mark.parametrize(("choice", "named"), [(("--steps", 1), "step-1"), (("--around_best", 1), "step-")])
def test_the_command_takes_chosen_checkpoints(
    saved_run: Path, tmp_path: Path, choice: tuple[str, int], named: str
) -> None:
    output = tmp_path / "run"
    finished = run("dist_s2s.average", "--run", saved_run, *choice, "--output", output)
    assert finished.output.startswith(f"the average of {named}")
    [name] = re.findall(r"step-\d+", finished.output)
    translator = load_translator(saved_run, ALONE)
    load_weights(saved_run / "checkpoints" / name, translator.core, translator.tables)
    for key, value in tensors(load_translator(output, ALONE)).items():
        assert torch.equal(value, tensors(translator)[key])


def average_on_ranks(group: dist.ProcessGroup, run_dir: Path, output: Path) -> None:
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group)
    write_average(run_dir, newest(run_dir, None), output, ranks)


def test_ranks_write_a_share_each(saved_run: Path, average: Path, ranks: RankPool, tmp_path: Path) -> None:
    output = tmp_path / "three"
    ranks.run(average_on_ranks, saved_run, output, world_size=3)
    assert [path.name for path in tmp_path.iterdir()] == ["three"]
    assert len(list((output / "checkpoints" / "step-2").glob("source_table-?-of-3.safetensors"))) == 3
    alone, together = (tensors(load_translator(each, ALONE)) for each in (average, output))
    assert all(torch.equal(alone[name], value) for name, value in together.items())
    errors = ranks.run_expecting_errors(average_on_ranks, saved_run, output, world_size=3)
    assert {error.message for error in errors} == {f"{output} exists; give another --output"}


def test_training_begins_with_it_but_does_not_go_on(corpus: Path, average: Path, tmp_path: Path) -> None:
    config = load_config(average / "config.yaml", {})
    assert config.run_dir == average
    with pytest.raises(UserError, match=r"is an average.*--training\.init_from") as caught:
        checkpoint_to_resume(config)
    assert str(average / "checkpoints" / "step-2") in str(caught.value)
    settings = options(corpus, tmp_path / "next", training__init_from=average, training__max_steps=1)
    assert f"begins with {average / 'checkpoints' / 'step-2'}" in run("dist_s2s.train", *settings).output


def test_a_missing_folder_is_not_made(saved_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no/run cannot be written: No such file or directory"):
        write_average(saved_run, newest(saved_run, None), tmp_path / "no" / "run", ALONE)
    assert list(tmp_path.iterdir()) == []


def flip_a_bit(run_dir: Path) -> None:
    file = run_dir / "checkpoints" / "step-1" / "source_table-1-of-2.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def tear(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "step-1" / "core.safetensors").unlink()


def grow(run_dir: Path) -> None:
    path = run_dir / "checkpoints" / "step-1"
    manifest = read_manifest(path)
    manifest["tables"]["source_table"]["num_embeddings"] += 1
    write_checked_json(path / "manifest.json", manifest)


def change_words(run_dir: Path) -> None:
    """As on a stream, whose checkpoints have vocabularies of their own."""
    path = run_dir / "checkpoints" / "step-1"
    manifest = read_manifest(path)
    for name in ("source_vocabulary.txt", "target_vocabulary.txt"):
        words = (run_dir / name).read_text(encoding="utf-8").replace("saw", "was")
        (path / name).write_text(words, encoding="utf-8")
        manifest["sha256"][name] = sha256_of(path / name)
    write_checked_json(path / "manifest.json", manifest)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, r"step-1/source_table-1-of-2\.safetensors is damaged"),
        (tear, r"step-1 lacks its file core\.safetensors"),
        (grow, r"step-1 can't be averaged with step-2: its source_table is \d+ x 12, not \d+ x 12"),
        (change_words, r"step-1 can't be averaged with step-2: its target_vocabulary\.txt is another one"),
    ],
)
def test_what_cannot_be_averaged_is_named(
    saved_run: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(saved_run, run_dir)
    damage(run_dir)
    with pytest.raises(UserError, match=message):
        write_average(run_dir, newest(run_dir, None), tmp_path / "average", ALONE)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def make_checkpoints(run_dir: Path, progress: Mapping[str, int]) -> None:
    for step in (10, 20, 30, 40, 50):
        path = run_dir / "checkpoints" / f"step-{step}"
        path.mkdir(parents=True)
        empty: dict[str, dict[str, int]] = {key: {} for key in ("tables", "scalars", "sha256")}
        write_checked_json(path / "manifest.json", {"format": 2, "step": step, "progress": progress, **empty})


@pytest.mark.parametrize(
    ("best", "count", "steps"),
    [(30, 3, [20, 30, 40]), (30, 2, [30, 40]), (10, 3, [10, 20, 30]), (50, 4, [20, 30, 40, 50]), (40, 1, [40])],
)
def test_the_window_is_around_the_best(tmp_path: Path, best: int, count: int, steps: list[int]) -> None:
    make_checkpoints(tmp_path, {"best_step": best})
    assert [path.name for path in around_best(tmp_path, count)] == [f"step-{step}" for step in steps]


def test_checkpoints_that_are_not_there(tmp_path: Path) -> None:
    make_checkpoints(tmp_path, {"best_step": 0})
    assert [path.name for path in newest(tmp_path, 2)] == ["step-40", "step-50"]
    assert [path.name for path in of_steps(tmp_path, [50, 10])] == ["step-10", "step-50"]
    names = "step-10, step-20, step-30, step-40, step-50"
    for choose, message in (
        (lambda: newest(tmp_path, 6), f"{tmp_path} has only 5 of 6 checkpoints: {names}; while it trains, it keeps as"),
        (lambda: around_best(tmp_path, 6), f"{tmp_path} has only 5 of 6 checkpoints"),
        (lambda: around_best(tmp_path, 3), f"{tmp_path} has no checkpoint that is known to be the best"),
        (lambda: of_steps(tmp_path, [10, 11]), f"{tmp_path} has no checkpoint of step 11; there are {names}"),
        (lambda: of_steps(tmp_path, [10, 20, 10]), "step 10 is named twice"),
        (lambda: newest(tmp_path / "x", None), f"{tmp_path / 'x'} has no checkpoint yet"),
    ):
        with pytest.raises(UserError) as caught:
            choose()
        assert str(caught.value).startswith(message)
