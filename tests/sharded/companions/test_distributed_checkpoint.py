"""torch.distributed.checkpoint saves tables and their optimizers' state, and loads them on other numbers of ranks."""

import subprocess
import sys
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
from torch.distributed.device_mesh import DeviceMesh

from dist_s2s.sharded import CheckpointState, DistributedEmbedding, DistributedRows, SparseAdam
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.sharded.companions.programs import OPTIMIZERS, D, Program, same
from tests.sharded.reference import LAYOUTS

Results = dict[str, list[Tensor]]


def states(programs: dict[str, Program]) -> dict[str, Any]:
    """Programs with different optimizers in one checkpoint, since to save takes many collectives."""
    return {name: CheckpointState(program.model, program.optimizers) for name, program in programs.items()}


def save_and_go_on(group: dist.ProcessGroup, folder: str, num_rows: int, layout: str, later: bool) -> Results:
    """Save programs with each optimizer after two steps; return what they come to after two more."""
    programs = {name: Program(group, num_rows, layout, name) for name in OPTIMIZERS}
    for program in programs.values():
        program.train(range(2))
    if later:
        own = second_group(dist.get_world_size(group))  # its thread's collectives must not meet the training's
        saving = dcp.async_save(states(programs), checkpoint_id=folder, process_group=own)
    else:
        dcp.save(states(programs), checkpoint_id=folder, process_group=group)
    for program in programs.values():
        program.train(range(2, 4))
    if later:
        saving.result()
    return {name: program.result() for name, program in programs.items()}


def load_and_go_on(group: dist.ProcessGroup, folder: str, num_rows: int, layout: str) -> Results:
    programs = {name: Program(group, num_rows, layout, name, seed=7) for name in OPTIMIZERS}
    dcp.load(states(programs), checkpoint_id=folder, process_group=group)
    for program in programs.values():
        program.train(range(2, 4))
    return {name: program.result() for name, program in programs.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("num_rows", "saved_at", "loaded_at", "later"), [(131, 2, (3, 1), False), (2, 4, (3, 1), True)]
)
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


def save_in_a_grid(group: dist.ProcessGroup, folder: str, layout: str) -> list[Tensor]:
    """Save a table of two shards and two replicas, by the staging of a storage writer; return it whole."""
    mesh = DeviceMesh("cpu", [[0, 1], [2, 3]], mesh_dim_names=("replicate", "shard"))
    table = DistributedEmbedding(131, D, device_mesh=mesh, layout=layout, seed=1)
    optimizer = SparseAdam([table.weight])
    table(torch.arange(0, 131, 2)).sum().backward()
    optimizer.step()
    state = {"training": CheckpointState(table, optimizer)}
    saving = dcp.async_save(state, storage_writer=dcp.FileSystemWriter(folder), process_group=group)
    moment = optimizer.state[table.weight]["exp_avg"].clone()
    table.weight.detach().mul_(2)  # after it has been staged
    saving.result()
    return [table.weight.detach() / 2, moment]


def load_on_two(group: dist.ProcessGroup, folder: str, layout: str) -> list[Tensor]:
    table = DistributedEmbedding(131, D, process_group=group, layout=layout, seed=2)
    optimizer = SparseAdam([table.weight])
    dcp.load({"training": CheckpointState(table, optimizer)}, checkpoint_id=folder, process_group=group)
    return [table.weight.detach().clone(), optimizer.state[table.weight]["exp_avg"]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_replicas_are_saved_once(ranks: RankPool, tmp_path: Path, layout: str):
    saved = ranks.run(save_in_a_grid, str(tmp_path), layout)
    for one, other in zip(saved, ranks.run(load_on_two, str(tmp_path), layout, world_size=2), strict=False):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def torchs_own(group: dist.ProcessGroup, folder: str, layout: str, name: str, load: bool) -> list[Tensor]:
    """What training comes to after torch's own functions for states have saved it, or loaded it."""
    program = Program(group, 131, layout, name, seed=7 if load else 1)
    program.train(range(0 if load else 2))
    state: dict[str, Any] = {
        "model": get_model_state_dict(program.model),
        "optimizers": get_optimizer_state_dict(program.model, program.optimizers),
    }
    (dcp.load if load else dcp.save)(state, checkpoint_id=folder, process_group=group)
    if load:
        set_model_state_dict(program.model, state["model"])
        set_optimizer_state_dict(program.model, program.optimizers, state["optimizers"])
    program.train(range(2, 4))
    return program.result()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["RowWiseAdam", "torch SGD"])
def test_torchs_own_functions_for_states_know_tables(ranks: RankPool, tmp_path: Path, layout: str, name: str):
    expected = ranks.run(torchs_own, str(tmp_path), layout, name, False, world_size=2)[0]
    for world_size in (3, 2):
        same(ranks.run(torchs_own, str(tmp_path), layout, name, True, world_size=world_size), expected)


def full_state(group: dist.ProcessGroup, layout: str) -> list[bool]:
    """Whether torch's full_state_dict leaves rows that say so, and loads whole tables."""
    program, other = (Program(group, 131, layout, "SparseAdam", seed) for seed in (1, 7))
    full = get_model_state_dict(program.model, options=StateDictOptions(full_state_dict=True))
    rows = full["words.source.weight"]
    answers = [isinstance(rows, DistributedRows)]
    with pytest.raises(TypeError, match=r"^words\.source\.weight is sharded: rank \d holds"):
        torch.save(full, Path("/dev/null"))
    whole = {name: value.full_tensor() if isinstance(value, DistributedRows) else value for name, value in full.items()}
    set_model_state_dict(other.model, whole, options=StateDictOptions(full_state_dict=True))
    answers.append(all(torch.equal(*pair) for pair in zip(program.result(), other.result(), strict=True)))
    reference = {name: value for name, value in whole.items() if "extra" not in name}
    other.model["target"].weight.detach().zero_()
    set_model_state_dict(other.model, reference, options=StateDictOptions(full_state_dict=True))
    return [*answers, all(torch.equal(*pair) for pair in zip(program.result(), other.result(), strict=True))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_state_dict_of_torch_never_takes_a_shard_for_the_whole(ranks: RankPool, layout: str):
    assert ranks.run(full_state, layout, world_size=2) == [[True, True, True]] * 2


def load_into_another(group: dist.ProcessGroup, folder: str) -> list[str]:
    """The messages for a checkpoint of another layout, of another size, and of state that is not asked for."""
    program = Program(group, 131, "contiguous", "SparseAdam")
    program.train(range(1))
    state = {"training": CheckpointState(program.model, program.optimizers)}
    dcp.save(state, checkpoint_id=folder, process_group=group)
    messages = []
    for rows, layout in ((131, "round_robin"), (130, "contiguous")):
        other = Program(group, rows, layout, "SparseAdam", seed=7)
        before = other.result()
        with pytest.raises(BaseException, match="Size mismatch") as error:  # CheckpointException is no Exception
            dcp.load(
                {"training": CheckpointState(other.model, other.optimizers)}, checkpoint_id=folder, process_group=group
            )
        messages.append(str(error.value))
        assert all(torch.equal(*pair) for pair in zip(before, other.result(), strict=True))
    partly = Program(group, 131, "contiguous", "SparseAdam", seed=7)
    partly.tables[0](torch.tensor([1])).sum().backward()
    partly.optimizers[0].step()
    with pytest.raises(ValueError, match=r"target\.weight\.exp_avg, target\.weight\.exp_avg_sq, target\.weight\.step"):
        dcp.load(
            {"training": CheckpointState(partly.model, partly.optimizers)}, checkpoint_id=folder, process_group=group
        )
    return messages


def test_a_checkpoint_of_something_else_is_refused(ranks: RankPool, tmp_path: Path):
    for layout, size in ranks.run(load_into_another, str(tmp_path), world_size=2):
        assert "[131, 5]) and current: torch.Size([1, 131, 5]) for training.model.words.source.weight" in layout
        assert "[131, 5]) and current: torch.Size([130, 5]) for training.model.words.source.weight" in size


def test_optimizers_that_are_made_ready_to_load_begin_as_if_they_were_not():
    weights = [nn.Parameter(torch.ones(3, 2)) for _ in range(2)]
    optimizers = [torch.optim.AdamW([weight], lr=0.1) for weight in weights]
    CheckpointState(nn.ParameterList(weights), optimizers[:1]).state_dict()
    assert torch.equal(*weights)
    for weight, optimizer in zip(weights, optimizers, strict=True):
        assert weight.grad is None
        weight.square().sum().backward()
        optimizer.step()
    assert torch.equal(*weights)


def test_state_that_depends_on_all_rows_is_refused(ranks: RankPool):
    for error in ranks.run_expecting_errors(save_adafactor, world_size=2):
        assert error.type_name == "TypeError"
        assert error.message.startswith("col_var of weight, of shape [1, 5], is not a row for each row")


def save_adafactor(group: dist.ProcessGroup) -> None:
    table = DistributedEmbedding(131, D, process_group=group)
    CheckpointState(table, torch.optim.Adafactor([table.weight])).state_dict()


def unlike(group: dist.ProcessGroup) -> list[str]:
    one, other = (DistributedEmbedding(131 + n, D, process_group=group) for n in range(2))
    model = nn.ModuleDict({"one": one})
    messages = []
    for optimizer in (SparseAdam([other.weight]), SparseAdam([one.weight, other.weight])):
        with pytest.raises(ValueError, match="not one of the model") as error:
            CheckpointState(model, optimizer).state_dict()
        messages.append(str(error.value))
    return messages


def test_parameters_that_the_model_does_not_have_are_refused(ranks: RankPool):
    assert all(message.startswith("SparseAdam has a parameter") for message in ranks.run(unlike, world_size=2)[0])


def test_the_library_is_imported_without_what_it_meets():
    names = ("torch.distributed.checkpoint", "torch.distributed.tensor", "safetensors", "accelerate")
    code = f"import sys, dist_s2s.sharded; sys.exit(any(name in sys.modules for name in {names}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
