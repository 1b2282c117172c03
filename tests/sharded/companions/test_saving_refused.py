"""Whatever would save one rank's rows as if they were all is refused, and says what to write instead."""

import copy
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded import DistributedEmbedding, DistributedRows, RowPartition
from dist_s2s.sharded.tables.distributed_rows import Shard
from dist_s2s.sharded.transport.group import local_group
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS

V, D = 131, 5
ADVICE = (
    "save with torch.distributed.checkpoint (dcp.save), or whole with dist_s2s.sharded.gather_state, on all ranks; "
    "this rank's rows alone are to_local(), or the table's weight"
)


def model_on(group: dist.ProcessGroup, layout: str = "contiguous") -> nn.ModuleDict:
    table = DistributedEmbedding(V, D, layout=layout, process_group=group)
    return nn.ModuleDict({"words": table, "core": nn.Linear(D, 2)})


def refusals(group: dist.ProcessGroup, folder: str, layout: str) -> list[str]:
    """The messages of each way to save, on the last rank alone: refusing is not collective."""
    model = model_on(group, layout)
    if dist.get_rank(group) == 0:
        return []
    state, file, messages = model.state_dict(), Path(folder, "file"), []
    ways: list[Callable[[], Any]] = [
        lambda: torch.save(state, file),
        lambda: torch.save(nn.Parameter(state["words.weight"]), file),
        lambda: safetensors.torch.save_file(dict(state), file),
        lambda: safetensors.torch.save_model(model, str(file)),
        lambda: state["words.weight"].share_memory_(),
        lambda: state["words.weight"].storage(),
    ]
    for way in ways:
        with pytest.raises(TypeError) as error:
            way()
        messages.append(str(error.value))
    return messages


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saving_a_shard_is_refused_on_any_single_rank(ranks: RankPool, tmp_path: Path, layout: str):
    _, messages = ranks.run(refusals, str(tmp_path), layout, world_size=2)
    assert len(messages) == 6
    for message in messages:
        assert message.startswith("words.weight is sharded: rank 1 holds 65 of its 131 rows, and to ")
        assert message.endswith(f" would lose the others; {ADVICE}")
    assert not [path for path in tmp_path.iterdir() if path.stat().st_size > 2000]  # less than a shard


def accelerate_saves(group: dist.ProcessGroup, folder: str, safe: bool) -> str:
    """The message of accelerator.save_state, which writes on the main process alone."""
    from accelerate.checkpointing import save_accelerator_state
    from accelerate.state import PartialState

    PartialState(cpu=True)
    model = model_on(group)
    try:
        save_accelerator_state(folder, [model.state_dict()], [], [], [], 0, 0, safe_serialization=safe)
    except TypeError as error:
        return str(error)
    return ""


def test_accelerates_save_state_is_refused_on_every_rank(ranks: RankPool, tmp_path: Path):
    for rank, message in enumerate(ranks.run(accelerate_saves, str(tmp_path), True)):
        assert message.startswith(f"words.weight is sharded: rank {rank} holds ")


def rows_of(rank: int = 1, partition: RowPartition | None = None, name: str = "words.weight") -> DistributedRows:
    group = local_group(torch.device("cpu"))
    group.transport.rank, group.transport.size = rank, 3  # nothing is exchanged
    shard = Shard(partition or RowPartition(7, 3), group, name)
    return DistributedRows(torch.arange(2.0 * shard.size).view(shard.size, 2), shard)


@pytest.mark.parametrize(
    "operation",
    [
        torch.Tensor.sum,
        torch.Tensor.unbind,
        torch.Tensor.t,
        lambda rows: rows[0],
        lambda rows: rows.new_empty([]),
        lambda rows: torch.equal(rows, rows),
        lambda rows: rows == rows.clone(),
        lambda rows: rows + torch.ones(7, 2),
        lambda rows: torch.ones(7, 2).copy_(rows),
        lambda rows: rows.copy_(torch.ones(7, 2)),
        lambda rows: rows + rows_of(0),
        lambda rows: rows + rows_of(1, RowPartition(7, 3, "round_robin")),
        lambda rows: torch.stack([rows, rows]),
    ],
)
def test_what_needs_rows_of_other_ranks_is_refused(operation: Callable[[Tensor], Any]):
    with pytest.raises(
        RuntimeError, match=r"^words\.weight is sharded over 3 ranks, and aten\.\w+\.\w+ would need rows"
    ):
        operation(rows_of())


@pytest.mark.parametrize("operation", [torch.Tensor.tolist, torch.Tensor.numpy])
def test_rows_do_not_become_numbers_of_python_or_numpy(operation: Callable[[Tensor], Any]):
    with pytest.raises(RuntimeError, match="not supported for tensor subclasses"):
        operation(rows_of())


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (torch.Tensor.clone, lambda own: own),
        (copy.deepcopy, lambda own: own),
        (torch.Tensor.double, torch.Tensor.double),
        (lambda rows: 3 * rows - rows / 2, lambda own: 3 * own - own / 2),
        (lambda rows: rows.clone().lerp_(-rows, 0.25), lambda own: own.lerp(-own, 0.25)),
        (lambda rows: rows.clone().mul_(0.9).add_(rows_of(name="other"), alpha=0.1), lambda own: own * 0.9 + own * 0.1),
        (torch.zeros_like, torch.zeros_like),
        (lambda rows: torch.empty_like(rows).copy_(rows), lambda own: own),
        (lambda rows: rows.new_empty(rows.shape).fill_(2), lambda own: torch.full_like(own, 2)),
    ],
)
def test_rows_can_be_copied_and_averaged(operation: Callable[[Any], Any], expected: Callable[[Tensor], Tensor]):
    rows = rows_of()
    result = operation(rows)
    assert isinstance(result, DistributedRows)
    assert result.shape == (7, 2)
    assert result.shard.partition == rows.shard.partition
    assert torch.equal(result.to_local(), expected(torch.arange(4.0).view(2, 2)))
    assert result.to_local().data_ptr() != rows.to_local().data_ptr()


def test_rows_share_the_memory_they_were_made_of():
    rows = rows_of()
    assert rows.mul_(3) is rows
    assert operator.iadd(rows, rows).to_local().tolist() == [[0.0, 6.0], [12.0, 18.0]]
    assert rows.detach().to_local().data_ptr() == rows.to_local().data_ptr()
    assert "DistributedRows(words.weight, [7, 2], torch.float32, rank 1 of 3 holds 2 rows)" in repr(rows)
