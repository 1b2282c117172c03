"""torch.distributed.checkpoint saves tables and their optimizers' state, and loads them on other numbers of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from dist_s2s.sharded import CheckpointState, DistributedEmbedding, DistributedRows, SparseAdam
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.sharded.companions.programs import OPTIMIZERS, D, Program, same
from tests.sharded.reference import LAYOUTS

Results = dict[str, list[Tensor]]


def save_and_go_on(group: dist.ProcessGroup, folder: str, num_rows: int, layout: str, later: bool) -> Results:
    """Save programs with each optimizer after two steps; return what they come to after two more."""
    results = {}
    for name in OPTIMIZERS:
        program = Program(group, num_rows, layout, name)
        program.train(range(2))
        state = {"training": CheckpointState(program.model, program.optimizers)}
        if later:
            own = second_group(dist.get_world_size(group))  # its thread's collectives must not meet the training's
            saving = dcp.async_save(state, checkpoint_id=f"{folder}/{name}", process_group=own)
            program.train(range(2, 4))
            saving.result()
        else:
            dcp.save(state, checkpoint_id=f"{folder}/{name}", process_group=group)
            program.train(range(2, 4))
        results[name] = program.result()
    return results


def load_and_go_on(group: dist.ProcessGroup, folder: str, num_rows: int, layout: str) -> Results:
    results = {}
    for name in OPTIMIZERS:
        program = Program(group, num_rows, layout, name, seed=7)
        state = {"training": CheckpointState(program.model, program.optimizers)}
        dcp.load(state, checkpoint_id=f"{folder}/{name}", process_group=group)
        program.train(range(2, 4))
        results[name] = program.result()
    return results


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("num_rows", "saved_at", "loaded_at", "later"), [(131, 2, (3, 1), False), (2, 4, (3, 1), True)])
def test_training_goes_on_the_same_on_another_number_of_ranks(
    ranks: RankPool, tmp_path: Path, num_rows: int, layout: str, saved_at: int, loaded_at: tuple[int, ...], later: bool
):
    folder = str(tmp_path)
    expected = ranks.run(save_and_go_on, folder, num_rows, layout, later, world_size=saved_at)
    for world_size in (*loaded_at, saved_at):
        loaded = ranks.run(load_and_go_on, folder, num_rows, layout, world_size=world_size)
        for name in OPTIMIZERS:
            same([result[name] for result in loaded], expected[0][name])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_one_rank_saved_is_loaded_by_several(ranks: RankPool, tmp_path: Path, layout: str):
    expected = ranks.run(save_and_go_on, str(tmp_path), 131, layout, True, world_size=1)
    for name, loaded in ranks.run(load_and_go_on, str(tmp_path), 131, layout, world_size=3)[2].items():
        same([loaded], expected[0][name])
