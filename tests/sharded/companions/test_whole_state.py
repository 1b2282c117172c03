"""gather_state and load_state: whole states in plain tensors, on any number of ranks and in any layout."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from dist_s2s.sharded import DistributedEmbedding, SparseAdam, gather_state, load_state
from tests.rank_pool import RankPool
from tests.sharded.companions.programs import OPTIMIZERS, D, Program, same

Results = dict[str, list[Tensor]]


def save_and_go_on(group: dist.ProcessGroup, folder: str, num_rows: int, layout: str, start: int, dst: int) -> Results:
    """Load what is in the folder, unless it is the start; train two steps, save on one rank, and train two more."""
    results = {}
    for name in OPTIMIZERS:
        program = Program(group, num_rows, layout, name, seed=start + 1)
        file, rank = Path(folder, f"{name}.safetensors"), dist.get_rank(group)
        if start:
            state = safetensors.torch.load_file(file) if rank == dst else None
            load_state(program.model, state, program.optimizers, src=dst)
        program.train(range(start, start + 2))
        state = gather_state(program.model, program.optimizers, dst)
        assert bool(state) == (rank == dst)
        if rank == dst:
            safetensors.torch.save_file(state, file)
        program.train(range(start + 2, start + 4))
        results[name] = program.result()
    return results


@pytest.mark.parametrize("num_rows", [131, 2])
def test_training_goes_on_the_same_through_a_file(ranks: RankPool, tmp_path: Path, num_rows: int):
    """On 2, then 3, then 1 ranks, in layouts by turns: each goes on from what the one before has saved."""
    runs = [
        ranks.run(save_and_go_on, str(tmp_path), num_rows, layout, start, size - 1, world_size=size)
        for start, size, layout in ((0, 2, "contiguous"), (2, 3, "round_robin"), (4, 1, "contiguous"))
    ]
    for name in OPTIMIZERS:
        torch.manual_seed(1)
        (whole,) = ranks.run(uninterrupted, num_rows, name, world_size=1)
        for run, expected in zip(runs, whole, strict=True):
            same([result[name] for result in run], expected)


def uninterrupted(group: dist.ProcessGroup, num_rows: int, name: str) -> list[list[Tensor]]:
    """What training comes to after 4, 6 and 8 steps."""
    program, results = Program(group, num_rows, "contiguous", name), []
    for steps in (range(4), range(4, 6), range(6, 8)):
        program.train(steps)
        results.append(program.result())
    return results


def there_and_back(group: dist.ProcessGroup, drawn: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state, and what becomes of it in another table."""
    states = []
    for seed, layout in enumerate(drawn["layouts"]):
        table = DistributedEmbedding(
            drawn["rows"], 3, layout=layout, seed=seed, process_group=group, dtype=drawn["dtype"]
        )
        model, optimizer = nn.ModuleDict({"a/b": table}), SparseAdam([table.weight])
        if seed:
            load_state(model, states[0] or None, optimizer)
        else:
            table(torch.arange(0, drawn["rows"], 2)).sum().backward()
            optimizer.step()
        states.append(gather_state(model, optimizer))
    return states[0], states[1]


@settings(max_examples=12)
@given(
    drawn=st.fixed_dictionaries(
        {
            "rows": st.integers(1, 40),
            "layouts": st.tuples(*[st.sampled_from(["contiguous", "round_robin"])] * 2),
            "dtype": st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
        }
    ),
    world_size=st.integers(1, 4),
)
def test_a_state_is_the_same_there_and_back(ranks: RankPool, drawn: dict[str, Any], world_size: int):
    (saved, loaded), *others = ranks.run(there_and_back, drawn, world_size=world_size)
    assert others == [({}, {})] * (world_size - 1)
    assert saved.keys() == loaded.keys()
    assert {name for name in saved if not name.startswith("optimizer/0/")} == {"a/b.weight"}
    assert saved["a/b.weight"].shape == (drawn["rows"], 3)
    for name, value in saved.items():
        assert value.dtype == loaded[name].dtype
        assert torch.equal(value, loaded[name])


class Tied(nn.Module):
    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.core = table, table, nn.Linear(D, D)
        self.register_buffer("count", torch.tensor(7))
        self.again = self.core


def tied(group: dist.ProcessGroup, reference: dict[str, Tensor]) -> list[bool]:
    """A table and a layer under two names, and a state that a model without sharded tables has made."""
    model = Tied(DistributedEmbedding(131, D, process_group=group, layout="round_robin"))
    load_state(model, reference)
    state = gather_state(model)
    if dist.get_rank(group) > 0:
        return [not state]
    safetensors.torch.save(state)  # which refuses tensors that share memory
    return [state.keys() == reference.keys(), all(torch.equal(state[name], reference[name]) for name in reference)]


def test_a_model_with_nn_embedding_has_the_same_state(ranks: RankPool):
    model = Tied(nn.Embedding(131, D))
    model.count.fill_(3)
    reference = model.state_dict()
    assert ranks.run(tied, dict(reference), world_size=3) == [[True, True], [True], [True]]


def test_the_state_dict_of_a_single_rank_is_whole():
    tables = [DistributedEmbedding(131, D, seed=seed) for seed in range(2)]
    load_state(tables[1], tables[0].state_dict())
    assert torch.equal(tables[0].weight, tables[1].weight)
    assert gather_state(tables[0], None).keys() == {"weight"}


def with_replicas(group: dist.ProcessGroup) -> list[bool]:
    mesh = DeviceMesh("cpu", [[0, 1], [2, 3]], mesh_dim_names=("replicate", "shard"))
    states = []
    for seed in (1, 2):
        table = DistributedEmbedding(131, D, device_mesh=mesh, seed=seed)
        model = nn.ModuleDict({"table": table, "core": nn.Linear(D, 1)})
        model["core"].weight.detach().fill_(seed + (dist.get_rank() == 3))
        if seed == 2:
            load_state(model, states[0] if dist.get_rank() == 1 else None, src=1)
        states.append(gather_state(model, dst=1))
    weight = table.weight.detach()
    expected = DistributedEmbedding(131, D, device_mesh=mesh, seed=1).weight
    return [bool(states[1]), torch.equal(weight, expected), bool((model["core"].weight == 1).all())]


def test_replicas_all_get_the_state_of_the_first(ranks: RankPool):
    assert ranks.run(with_replicas) == [[rank == 1, True, True] for rank in range(4)]


def faults(group: dist.ProcessGroup) -> list[str]:
    """What a wrong call says; nothing is loaded by any."""
    rank, messages = dist.get_rank(group), []
    program = Program(group, 131, "contiguous", "SparseAdam")
    model, optimizers = program.model, program.optimizers
    state = gather_state(model, optimizers)
    larger = Program(group, 132, "contiguous", "SparseAdam")
    larger.train(range(1))
    of_larger = gather_state(larger.model, larger.optimizers)
    mixed = {**state, **{name: value for name, value in of_larger.items() if name.startswith("optimizer/")}}
    before = program.result()
    calls: list[Any] = [
        lambda: gather_state(model, dst=2 + rank),
        lambda: load_state(model, state, src=-1),
        lambda: load_state(model, None),
        lambda: load_state(model, {**state, **model.state_dict()}),
        lambda: load_state(model, {name: value for name, value in state.items() if "bias" not in name}),
        lambda: load_state(model, {**state, "more": torch.ones(1)}),
        lambda: load_state(model, of_larger),
        lambda: load_state(model, mixed, optimizers),
        lambda: load_state(model, state, optimizers[::-1]),
        lambda: load_state(model, gather_state(model), optimizers),
        lambda: load_state(model, state, [optimizers[0]] * (1 + rank)),
        lambda: gather_state(model, [SparseAdam([larger.tables[0].weight])] if rank else optimizers),
    ]
    for call in calls:
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        messages.append(str(error.value))
    assert all(torch.equal(*pair) for pair in zip(before, program.result(), strict=True))
    return messages


def test_faults_are_told_on_every_rank_before_anything_is_loaded(ranks: RankPool):
    first, second = ranks.run(faults, world_size=2)
    assert first == second
    for message, expected in zip(
        first,
        [
            "dst must be a rank of the tables' group, within [0, 2), but is 2",
            "src must be a rank of the tables' group, within [0, 2), but is -1",
            "rank 0 is to bring the state, but it is None there",
            "the state must hold whole tensors, as gather_state returns them, but words.source.weight is of type "
            "DistributedRows",
            "the state is that of another model: it lacks core.bias",
            "the state is that of another model: it has, but the model has not, more",
            "size mismatch for words.source.weight: the state has [132, 5], but the model [131, 5]",
            "size mismatch for exp_avg of words.source.weight: the state has 132 rows, but the table 131",
            "the saved state of AdamW has the parameter groups [['words.source.weight', 'target.weight']], but this "
            "one has [['core.weight', 'core.bias']]",
            "the state holds nothing of optimizer 0: it has no optimizer/0/settings; gather it with the optimizers, or "
            "load the model alone",
            "the number of optimizers must be the same on every rank, but is 1 on rank 0 and 2 on rank 1",
            "SparseAdam has a parameter of shape [66, 5] that is not one of the model; pass the model that it trains",
        ],
        strict=True,
    ):
        assert message == expected


def adafactor(table: DistributedEmbedding) -> torch.optim.Adafactor:
    return torch.optim.Adafactor([table.weight])


def test_an_optimizer_of_all_rows_together_goes_on_on_a_single_rank():
    first, second = (DistributedEmbedding(131, D, seed=seed) for seed in range(2))
    optimizers = adafactor(first), adafactor(second)
    first.weight.square().sum().backward()
    optimizers[0].step()
    load_state(second, gather_state(first, optimizers[0]), optimizers[1])
    for table, optimizer in zip((first, second), optimizers, strict=True):
        table.weight.grad = None
        table.weight.square().sum().backward()
        optimizer.step()
    assert torch.equal(first.weight, second.weight)


def gather_adafactor(group: dist.ProcessGroup) -> None:
    table = DistributedEmbedding(131, D, process_group=group)
    optimizer = adafactor(table)
    table.weight.square().sum().backward()
    optimizer.step()
    gather_state(table, optimizer)


def test_an_optimizer_of_all_rows_together_is_refused_on_several(ranks: RankPool):
    for error in ranks.run_expecting_errors(gather_adafactor, world_size=2):
        assert error.type_name == "TypeError"
        assert error.message.startswith("col_var of weight, of shape [1, 5], is not a row for each row")
