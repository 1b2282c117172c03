"""Checkpoints: the same on any number of ranks and in either layout, whole or not there, and honest about damage."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Adagrad, Adam, Optimizer, SparseAdam

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad
from dist_s2s.sharded.rows.partition import Layout
from dist_s2s.storage.checkpoint import (
    list_checkpoints,
    load_training_state,
    load_weights,
    read_manifest,
    save_checkpoint,
    save_progress,
    shard_file,
)
from dist_s2s.storage.durable_files import write_checked_json
from dist_s2s.storage.training_state import TrainingState
from tests.kills import killed_at_every_change
from tests.rank_pool import RankPool

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sparse_adam": SparseAdam,
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": Adagrad,
}
ALONE = Ranks.alone()
SIZES = {"source_table": 13, "target_table": 2}  # the second has fewer rows than three ranks

Everything = dict[str, dict[str, Tensor]]


def ranks_of(group: dist.ProcessGroup) -> Ranks:
    return Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group)


def make_state(ranks: Ranks, optimizer: str, layout: Layout = "contiguous", seed: int = 1) -> TrainingState:
    torch.manual_seed(seed)
    core = nn.Linear(3, 2).double()
    tables = {
        name: DistributedEmbedding(size, 3, layout=layout, process_group=ranks.group, dtype=torch.float64)
        for name, size in SIZES.items()
    }
    weights = [table.weight for table in tables.values()]
    return TrainingState(core, Adam(core.parameters(), lr=0.1), tables, OPTIMIZERS[optimizer](weights, lr=0.1))


def train(state: TrainingState, ranks: Ranks) -> None:
    """Three steps, in which each rank looks up other rows, and some rows nobody."""
    for step in range(3):
        ids = (torch.arange(4) * 3 + 5 * step + ranks.rank) % 11
        rows = state.tables["source_table"](ids) + state.tables["target_table"](ids % 2)
        (state.core(rows).square().sum() + state.core.bias.sum()).backward()
        for parameter in state.core.parameters():
            parameter.grad = torch.full_like(parameter, step - 0.5)  # the same on every rank
        for optimizer in (state.core_optimizer, state.table_optimizer):
            optimizer.step()
            optimizer.zero_grad()


def everything(state: TrainingState) -> tuple[Everything, dict[str, Any]]:
    """Each table's rows and their optimizer's state by row id; and what is the same on every rank."""
    rows: Everything = {}
    shared: dict[str, Any] = {"core": state.core.state_dict(), "core_optimizer": state.core_optimizer.state_dict()}
    for name, table in state.tables.items():
        values = {"weight": table.weight.detach(), **state.table_optimizer.state[table.weight]}
        for key, value in values.items():
            if isinstance(value, Tensor) and value.dim() > 0:
                ids = table.partition.ids(table.rank).tolist()
                rows.setdefault(f"{name}.{key}", {}).update(
                    {str(row_id): row for row_id, row in zip(ids, value, strict=True)}
                )
            else:
                shared[f"{name}.{key}"] = value
    return rows, shared


def train_and_save(group: dist.ProcessGroup, folder: Path, optimizer: str) -> tuple[Everything, dict[str, Any]]:
    ranks = ranks_of(group)
    state = make_state(ranks, optimizer)
    train(state, ranks)
    path = save_checkpoint(folder, state, 3, {"epoch": 7}, ranks)
    assert path == folder / "step-3"
    return everything(state)


def load(
    group: dist.ProcessGroup, checkpoint: Path, optimizer: str, layout: Layout
) -> tuple[Everything, dict[str, Any]]:
    state = make_state(ranks_of(group), optimizer, layout, seed=2)
    manifest = load_training_state(checkpoint, state)
    assert (manifest["step"], manifest["progress"]) == (3, {"epoch": 7})
    return everything(state)


def merged(parts: list[tuple[Everything, dict[str, Any]]]) -> Everything:
    whole: Everything = {}
    for rows, _ in parts:
        for key, by_id in rows.items():
            assert not by_id.keys() & whole.setdefault(key, {}).keys()
            whole[key] |= by_id
    return whole


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_tables_and_optimizers_move_to_another_world(ranks: RankPool, tmp_path: Path, optimizer: str) -> None:
    saved = ranks.run(train_and_save, tmp_path, optimizer, world_size=2)
    expected = merged(saved)
    assert len(expected) == 2 * (3 if optimizer == "sparse_adam" else 2)
    assert all(len(rows) == SIZES[name.partition(".")[0]] for name, rows in expected.items())
    for world_size, layout in ((3, "round_robin"), (1, "contiguous"), (4, "contiguous")):
        loaded = ranks.run(load, tmp_path / "step-3", optimizer, layout, world_size=world_size)
        torch.testing.assert_close(merged(loaded), expected, rtol=0, atol=0)
        for _, shared in loaded:
            torch.testing.assert_close(shared, saved[0][1], rtol=0, atol=0)


def save_where_rank_one_cannot_write(group: dist.ProcessGroup, folder: Path) -> None:
    ranks = ranks_of(group)
    state = make_state(ranks, "sparse_adam")
    save_checkpoint(folder / ("good" if ranks.is_first else "a file"), state, 3, {}, ranks)


def test_a_rank_that_cannot_write_stops_all_and_publishes_nothing(ranks: RankPool, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("where rank 1 wants a directory", encoding="utf-8")
    errors = ranks.run_expecting_errors(save_where_rank_one_cannot_write, tmp_path, world_size=2)
    assert [error.type_name for error in errors] == ["UserError"] * 2
    assert errors[0].message == errors[1].message
    assert str(tmp_path / "a file") in errors[0].message
    assert "on rank 1" in errors[0].message
    assert list_checkpoints(tmp_path / "good") == []


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = make_state(ALONE, "sparse_adam")
    train(state, ALONE)
    return save_checkpoint(tmp_path / "checkpoints", state, 3, {"epoch": 7}, ALONE)


def load_alone(checkpoint: Path) -> TrainingState:
    state = make_state(ALONE, "sparse_adam", seed=2)
    load_training_state(checkpoint, state)
    return state


def test_weights_alone_can_be_loaded(checkpoint: Path) -> None:
    state, whole = make_state(ALONE, "sparse_adam", seed=2), load_alone(checkpoint)
    load_weights(checkpoint, state.core, state.tables)
    torch.testing.assert_close(state.core.state_dict(), whole.core.state_dict(), rtol=0, atol=0)
    for name, table in state.tables.items():
        assert torch.equal(table.weight, whole.tables[name].weight)
    assert not state.table_optimizer.state


def test_a_checkpoint_goes_on_in_another_dtype(checkpoint: Path) -> None:
    core = nn.Linear(3, 2)
    tables = {name: DistributedEmbedding(size, 3) for name, size in SIZES.items()}
    optimizer = SparseAdam([table.weight for table in tables.values()])
    state, whole = TrainingState(core, Adam(core.parameters()), tables, optimizer), load_alone(checkpoint)
    load_training_state(checkpoint, state)
    for name, table in tables.items():
        assert torch.equal(table.weight, whole.tables[name].weight.float())
        moments = optimizer.state[table.weight]["exp_avg"]
        assert torch.equal(moments, whole.table_optimizer.state[whole.tables[name].weight]["exp_avg"].float())
    assert torch.equal(core.weight, whole.core.weight.float())


@pytest.mark.parametrize("file", ["core.safetensors", shard_file("target_table", 0, 1)])
def test_flipped_bit_is_found(checkpoint: Path, file: str) -> None:
    content = bytearray((checkpoint / file).read_bytes())
    content[-5] ^= 1
    (checkpoint / file).write_bytes(content)
    with pytest.raises(UserError, match="is damaged") as caught:
        load_alone(checkpoint)
    assert str(checkpoint / file) in str(caught.value)


@pytest.mark.parametrize("file", ["core.safetensors", shard_file("source_table", 0, 1)])
def test_missing_file_is_named(checkpoint: Path, file: str) -> None:
    (checkpoint / file).unlink()
    with pytest.raises(UserError, match=f"{checkpoint} lacks its file {file}"):
        load_alone(checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"format": 2}', "is damaged: its SHA-256 is not the one that it names"),
        (b"{}", "is damaged: its SHA-256 is not the one that it names"),
        (b'{"format": 1, "st', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "is damaged"),
    ],
)
def test_damaged_manifest(checkpoint: Path, content: bytes, message: str) -> None:
    (checkpoint / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_alone(checkpoint)
    assert str(checkpoint) in str(caught.value)


@pytest.mark.parametrize("content", [{"format": 99}, {}])
def test_manifest_of_another_format(checkpoint: Path, content: dict[str, int]) -> None:
    write_checked_json(checkpoint / "manifest.json", content)
    message = f"{checkpoint} has format {content.get('format')}, but this version reads 1 to 2"
    with pytest.raises(UserError, match=message):
        load_alone(checkpoint)


def test_directory_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} is not a checkpoint"):
        read_manifest(tmp_path)


def test_model_of_another_shape_is_refused(checkpoint: Path) -> None:
    state = make_state(ALONE, "sparse_adam")
    larger = {**state.tables, "target_table": DistributedEmbedding(9, 3, dtype=torch.float64)}
    with pytest.raises(UserError, match="target_table is 2 x 3, not 9 x 3"):
        load_weights(checkpoint, state.core, larger)
    with pytest.raises(UserError, match="weight"):
        load_weights(checkpoint, nn.Linear(3, 4).double(), state.tables)


def test_half_written_checkpoint_is_ignored_and_replaced(checkpoint: Path) -> None:
    folder = checkpoint.parent
    partial = folder / ".step-5.partial"
    partial.mkdir()
    (partial / "manifest.json").write_text('{"format": 1}', encoding="utf-8")
    (partial / "leftover").touch()
    assert list_checkpoints(folder) == [checkpoint]
    final = save_checkpoint(folder, load_alone(checkpoint), 5, {}, ALONE)
    assert list_checkpoints(folder) == [checkpoint, final]
    assert not partial.exists()
    assert not (final / "leftover").exists()


def test_same_step_is_saved_again(checkpoint: Path) -> None:
    state = load_alone(checkpoint)
    with torch.no_grad():
        state.core.weight.fill_(4)
    assert save_checkpoint(checkpoint.parent, state, 3, {}, ALONE) == checkpoint
    assert torch.equal(load_alone(checkpoint).core.weight, state.core.weight)
    assert list_checkpoints(checkpoint.parent) == [checkpoint]


def save_again(checkpoints: Path) -> None:
    save_checkpoint(checkpoints, load_alone(checkpoints / "step-3"), 3, {}, ALONE)


def test_a_kill_while_a_step_is_saved_again_loses_nothing(checkpoint: Path, tmp_path: Path) -> None:
    state = load_alone(checkpoint)
    for checkpoints in killed_at_every_change(save_again, checkpoint.parent, tmp_path / "killed"):
        save_checkpoint(checkpoints, state, 4, {}, ALONE)
        found = list_checkpoints(checkpoints)
        assert [path.name for path in found] == ["step-3", "step-4"]
        for path in found:
            load_alone(path)
        assert sorted(path.name for path in checkpoints.iterdir()) == ["step-3", "step-4"]


def save_other_progress(checkpoints: Path) -> None:
    save_progress(checkpoints / "step-3", {"epoch": 8})


def test_progress_is_saved_again_without_losing_the_step(checkpoint: Path, tmp_path: Path) -> None:
    told = []
    for checkpoints in killed_at_every_change(save_other_progress, checkpoint.parent, tmp_path / "killed"):
        [found] = list_checkpoints(checkpoints)
        load_alone(found)
        told.append(read_manifest(found)["progress"]["epoch"])
    assert told == [7, 7, 8]


def test_manifest_is_plain_json_that_lists_every_file(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["sha256"].keys() | {"manifest.json"} == {path.name for path in checkpoint.iterdir()}
    assert manifest["tables"]["source_table"] == {
        "num_embeddings": 13,
        "embedding_dim": 3,
        "layout": "contiguous",
        "world_size": 1,
    }
