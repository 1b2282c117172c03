"""Functions of torch and accelerate that would be wrong about a shard's gradient are told what to call instead."""

import copy
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import SGD

from dist_s2s.sharded import DistributedEmbedding, DistributedRows
from dist_s2s.sharded.tables.guarded_weight import ShardWeight, TableWeight, guard
from tests.rank_pool import RankPool

V, D = 131, 5


def new_model(group: dist.ProcessGroup | None, dense: bool) -> nn.ModuleDict:
    """With gradients; dense: that of the table too."""
    table = DistributedEmbedding(V, D, process_group=group, seed=1)
    model = nn.ModuleDict({"table": table, "output": nn.Linear(D, 1)})
    model["output"](table(torch.arange(V))).sum().backward()
    if dense:
        table.weight.grad = table.weight.grad.to_dense()
    return model


def by_accelerate(parameters: Iterable[Tensor], max_norm: float) -> object:
    return Accelerator._clip_grad_norm_dtensor_aware(None, list(parameters), max_norm)


def by_fsdp(parameters: Iterable[Tensor], max_norm: float) -> object:
    """FSDP around a model that has the parameters, which it ignores."""
    model = nn.ParameterList(parameters)
    rest = nn.Sequential(nn.Linear(2, 2), model)
    wrapped = FullyShardedDataParallel(rest, ignored_states=list(model), device_id=torch.device("cpu"))
    return wrapped.clip_grad_norm_(max_norm)


Clip = Callable[[Iterable[Tensor], float], object]
DIFFERENT = (
    "the gradient of a sharded table's weight is that of one rank's rows, so that ranks would clip by different norms "
    "and drift apart; call dist_s2s.sharded.clip_grad_norm_(model, tables, ...) instead"
)
SPARSE = (
    "the gradient of a table is sparse, which torch's clipping does not take; call "
    "dist_s2s.sharded.clip_grad_{}_(model, tables, ...) instead"
)


def clip(group: dist.ProcessGroup, function: Clip, dense: bool, after_compiling: bool) -> None:
    if after_compiling:
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))
    model = new_model(group, dense)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    try:
        function(model.parameters(), 0.01)
    finally:
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            assert torch.equal(parameter.grad.to_dense(), gradient.to_dense())


@pytest.mark.parametrize(
    ("function", "dense", "message"),
    [
        (nn.utils.clip_grad_norm_, False, DIFFERENT),
        (nn.utils.clip_grad_norm_, True, DIFFERENT),
        (by_accelerate, False, DIFFERENT),
        (by_accelerate, True, DIFFERENT),
        (by_fsdp, True, DIFFERENT),
        (nn.utils.clip_grad_value_, False, SPARSE.format("value")),
    ],
)
def test_clipping_a_shard_is_refused_on_every_rank(ranks: RankPool, function: Clip, dense: bool, message: str):
    for after_compiling in (False, True):
        errors = ranks.run_expecting_errors(clip, function, dense, after_compiling, world_size=2)
        assert [(error.type_name, error.message) for error in errors] == [("RuntimeError", message)] * 2


@pytest.mark.parametrize("kind", ["norm", "value"])
def test_on_one_rank_only_sparse_gradients_are_refused(kind: str):
    function = getattr(nn.utils, f"clip_grad_{kind}_")
    with pytest.raises(RuntimeError) as error:
        function(new_model(None, dense=False).parameters(), 0.01)
    assert str(error.value) == SPARSE.format(kind)
    model = new_model(None, dense=True)
    function(model.parameters(), 0.01)
    assert 0 < model["table"].weight.grad.abs().max() <= 0.01


def clip_dense_by_value(group: dist.ProcessGroup) -> None:
    model = new_model(group, dense=True)
    nn.utils.clip_grad_value_(model.parameters(), 0.01)
    assert 0 < model["table"].weight.grad.abs().max() <= 0.01


def test_torch_clips_a_dense_shard_by_value(ranks: RankPool):
    ranks.run(clip_dense_by_value, world_size=2)


def weights(group: dist.ProcessGroup) -> list[type]:
    """Types of a table's weight after what may replace it."""
    table = DistributedEmbedding(V, D, process_group=group, seed=1)
    found = [type(table.weight), type(copy.deepcopy(table).weight), type(table.double().weight)]
    table.load_state_dict({name: value.clone() for name, value in table.state_dict().items()}, assign=True)
    return [*found, type(table.weight), type(table.state_dict()["weight"])]


def test_the_weight_stays_guarded(ranks: RankPool):
    assert ranks.run(weights, world_size=2) == [[*[ShardWeight] * 4, DistributedRows]] * 2
    assert isinstance(DistributedEmbedding(V, D).weight, TableWeight)


def guarded(**settings: Any) -> nn.Parameter:
    weight = nn.Parameter(torch.ones(3, 2), **settings)
    guard(weight, is_sharded=True)
    return weight


def test_its_gradient_is_that_of_any_parameter():
    weight = guarded()
    assert weight.grad is None
    weight.sum().backward()
    assert torch.equal(weight.grad, torch.ones(3, 2))
    weight.grad = torch.zeros(3, 2)
    assert not weight.grad.any()
    del weight.grad
    assert weight.grad is None
    assert isinstance(pickle.loads(pickle.dumps(weight)), nn.Parameter)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch._dynamo's own
def test_an_optimizer_that_has_it_can_be_compiled():
    weight = guarded()
    optimizer = SGD([weight], lr=1.0)
    (weight * 2).sum().backward()
    torch.compile(optimizer.step, backend="eager")()
    assert torch.equal(weight, -torch.ones(3, 2))
