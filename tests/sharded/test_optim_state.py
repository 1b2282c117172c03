"""State, dtypes, schedules and settings of the optimizers, each on a table of its own."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.optim import RowWiseAdagrad, RowWiseAdam, SparseAdagrad, SparseAdam, SparseSGD
from tests.sharded.reference import random_rows
from tests.sharded.reference_optim import RULES, Case

ROWS, D = 20, 5
CASES = [Case(rule, weight_decay) for rule in RULES for weight_decay in (0.0, 0.2)]


def gradients(dtype: torch.dtype, dense: bool) -> list[Tensor]:
    """By step, of 7 rows of a table, or of all."""
    whole = [random_rows((ROWS, D), seed=step).to(dtype) for step in range(4)]
    if dense:
        return whole
    rows = [torch.randperm(ROWS, generator=torch.Generator().manual_seed(step))[:7] for step in range(4)]
    return [
        torch.sparse_coo_tensor(r[None], g[r], (ROWS, D), check_invariants=True)
        for r, g in zip(rows, whole, strict=True)
    ]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bfloat16_table_is_computed_in_float32_and_rounded_once(case: Case, dense: bool):
    narrow = nn.Parameter(random_rows((ROWS, D), seed=9).bfloat16())
    wide = nn.Parameter(narrow.detach().float())
    optimizers = case.optimizer(narrow), case.optimizer(wide)
    for gradient in gradients(torch.bfloat16, dense):
        wide.data = narrow.detach().float()
        narrow.grad, wide.grad = gradient, gradient.float()
        for optimizer in optimizers:
            optimizer.step()
        assert torch.equal(narrow, wide.bfloat16())
    states = [optimizer.state_dict()["state"][0] for optimizer in optimizers]
    assert not torch.equal(wide, wide.bfloat16().float())  # the rounding did something
    torch.testing.assert_close(*states, rtol=0, atol=0)  # dtypes as well


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_loaded_state_goes_on_to_the_bit(case: Case, dtype: torch.dtype):
    weight = nn.Parameter(random_rows((ROWS, D), seed=9).to(dtype))
    optimizer = case.optimizer(weight)
    for step, gradient in enumerate(gradients(dtype, dense=False)):
        if step == 2:
            resumed = nn.Parameter(weight.detach().clone())
            other = case.optimizer(resumed)
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        weight.grad = gradient
        optimizer.step()
        if step >= 2:
            resumed.grad = gradient
            other.step()
    assert torch.equal(resumed, weight)
    states = optimizer.state[weight], other.state[resumed]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert type(states[1]["step"]) is int
    tensors = [value for value in states[1].values() if isinstance(value, Tensor)]
    assert all(len(value) == ROWS and value.dtype == torch.promote_types(dtype, torch.float32) for value in tensors)


@pytest.mark.parametrize("rule", ["momentum", "Adam"])
def test_a_schedule_of_momentum_is_followed(rule: str):
    """OneCycleLR changes momentum and beta1 along with the learning rate."""
    case = Case(rule)
    weights = [nn.Parameter(random_rows((ROWS, D), seed=9)) for _ in range(2)]
    optimizers = [case.optimizer(weights[0]), case.reference(weights[1])]
    schedules = [OneCycleLR(optimizer, max_lr=0.3, total_steps=5) for optimizer in optimizers]
    for gradient in gradients(torch.float64, dense=False):
        for weight, optimizer, schedule in zip(weights, optimizers, schedules, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(*weights, rtol=0, atol=1e-9)


def test_momentum_of_dense_gradients_is_that_of_torch():
    weights = [nn.Parameter(random_rows((ROWS, D), seed=9)) for _ in range(2)]
    optimizers = [kind([weight], lr=0.1, momentum=0.9) for kind, weight in zip((SparseSGD, SGD), weights, strict=True)]
    for gradient in gradients(torch.float64, dense=True):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(*weights, rtol=0, atol=1e-12)


def test_row_wise_adagrad_keeps_one_number_a_row():
    table, untouched = (DistributedEmbedding(ROWS, D, dtype=torch.float64) for _ in range(2))
    optimizer = RowWiseAdagrad([table.weight, untouched.weight])
    before = untouched.weight.detach().clone()

    def closure() -> float:
        loss = (table(torch.tensor([3, 8, 3])) * torch.arange(D)).sum()
        loss.backward()
        return loss.item()

    expected_loss = closure()
    table.weight.grad = None
    assert optimizer.step(closure) == expected_loss
    sums = optimizer.state[table.weight]["sum"]
    square = (torch.arange(D) ** 2).double().mean()
    assert sums.shape == (ROWS,)
    assert sums.nonzero().flatten().tolist() == [3, 8]
    torch.testing.assert_close(sums[[3, 8]], torch.stack([4 * square, square]), rtol=1e-12, atol=0)
    assert torch.equal(untouched.weight, before)  # it has no gradient


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_leaves_the_gradient_as_it_was(case: Case, dense: bool):
    weight = nn.Parameter(random_rows((ROWS, D), seed=9))
    weight.grad = gradients(torch.float64, dense)[0]
    before = weight.grad.to_dense().clone()
    case.optimizer(weight).step()
    assert torch.equal(weight.grad.to_dense(), before)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_that_is_given_twice_counts_once_with_its_sum(case: Case):
    weights = [nn.Parameter(random_rows((ROWS, 1), seed=9)) for _ in range(2)]
    values = ([1, 5, 1], [[3.0], [1.0], [4.0]]), ([1, 5], [[7.0], [1.0]])
    for weight, (rows, gradient) in zip(weights, values, strict=True):
        weight.grad = torch.sparse_coo_tensor([rows], gradient, weight.shape, dtype=weight.dtype, check_invariants=True)
        case.optimizer(weight).step()
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("optimizer_type", "settings", "message"),
    [
        (RowWiseAdagrad, {"lr": -0.1}, r"^lr must not be negative, but is -0.1$"),
        (RowWiseAdam, {"lr": float("nan")}, r"^lr must not be negative, but is nan$"),
        (RowWiseAdagrad, {"eps": 0.0}, r"^eps must be positive, but is 0.0$"),
        (SparseSGD, {"momentum": -1}, r"^momentum must not be negative, but is -1$"),
        (SparseAdagrad, {"weight_decay": -2.0}, r"^weight_decay must not be negative, but is -2.0$"),
        (SparseAdam, {"betas": (0.9, 1.0)}, r"^betas must be within \[0, 1\), but are \(0.9, 1.0\)$"),
    ],
)
def test_settings_out_of_range_are_refused(optimizer_type: type[Optimizer], settings: dict[str, Any], message: str):
    table = nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=message):
        optimizer_type([table], **settings)
    with pytest.raises(ValueError, match=message):
        optimizer_type([{"params": [table], **settings}])


def test_parameters_that_are_no_tables_are_refused():
    with pytest.raises(
        ValueError, match=r"^SparseAdam is for tables of shape \[rows, D\], but .* shape \[3\]; give it"
    ):
        SparseAdam([nn.Parameter(torch.zeros(3))])
