"""A scaler of torch's own, and a mistake on one rank, are the same error on all ranks."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim import SGD, Optimizer

from dist_s2s.sharded import GradScaler
from tests.rank_pool import RankPool
from tests.sharded.companions.test_scaler import D, V, new_table, step_with


def step_plainly(group: dist.ProcessGroup) -> None:
    """With a scaler of torch's own."""
    table, scaler = new_table(group), torch.amp.GradScaler("cpu", init_scale=4.0)
    before, optimizer = table.weight.detach().clone(), SGD(table.parameters(), lr=1.0)
    scaler.scale(table(torch.arange(V)).sum()).backward()
    try:
        scaler.step(optimizer)
    finally:
        assert torch.equal(table.weight, before)
        assert (table.weight.grad.to_dense() == 4).all()  # not unscaled


def test_torchs_plain_scaler_is_told_what_to_write_on_every_rank(ranks: RankPool):
    errors = ranks.run_expecting_errors(step_plainly, world_size=3)
    assert {(error.type_name, error.message) for error in errors} == {
        (
            "RuntimeError",
            "torch.amp.GradScaler looks for an overflow in the rows of one rank alone, so that some ranks would step "
            "and others skip; make it dist_s2s.sharded.GradScaler('cpu', tables=tables), with the same other arguments",
        )
    }


def differ(group: dist.ProcessGroup, what: str) -> None:
    """Rank 1 does something else than the others, or all make the same mistake."""
    table, other, wrong = new_table(group), new_table(group), dist.get_rank(group) == 1
    scaler = GradScaler("cpu", init_scale=4.0 if what == "scale" and wrong else 8.0, tables=[table])
    dense = nn.Linear(D, 1)
    optimizers: list[Optimizer] = [SGD(table.parameters(), lr=1.0), SGD(dense.parameters(), lr=1.0)]
    if what == "order" and wrong:
        optimizers.reverse()
    if what == "table":
        optimizers[0].add_param_group({"params": [other.weight]})
    scaler.scale(dense(table(torch.arange(V)) + other(torch.arange(V))).sum()).backward()
    if what == "half" and wrong:
        dense.half()
    before = table.weight.detach().clone()
    try:
        step_with(scaler, optimizers[::-1] if what == "half" else optimizers, None)
    finally:
        assert torch.equal(table.weight, before)


MISTAKES = {
    "scale": (
        "ValueError",
        "the scale must be equal on all ranks, but is 8 on rank 0 and 4 on rank 1: make the scaler with the same "
        "arguments, load the same state and call update() on every rank",
    ),
    "order": (
        "ExchangeMismatchError",
        "all ranks must take part in the same exchange, but rank 0 is in unscaling 1 of gradients, of SGD with 1 "
        "parameters, and rank 1 in unscaling 1 of gradients, of SGD with 2 parameters; call the tables in the same "
        "order on every rank, and run backward on all or on none",
    ),
    "table": (
        "ValueError",
        "SGD has the weight of a table that is not among GradScaler's tables; pass all tables of the model",
    ),
    "half": ("ValueError", "Attempting to unscale FP16 gradients."),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_on_one_rank_is_the_same_error_on_all(ranks: RankPool, what: str):
    errors = ranks.run_expecting_errors(differ, what, world_size=3)
    assert [(error.type_name, error.message) for error in errors] == [MISTAKES[what]] * 3


def test_it_needs_tables():
    with pytest.raises(ValueError, match=r"^tables is empty; without sharded tables use torch\.amp\.GradScaler$"):
        GradScaler("cpu", tables=[])
