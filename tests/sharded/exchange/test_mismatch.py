"""Ranks that do not do the same: every one of them gets the same error, which names both sides; the tables stay right.

Real programs do that: they take tables in the order of a set, skip a batch, or validate on one rank alone.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from dist_s2s.sharded import DistributedEmbedding, Lookahead, SparseSGD, lookup, make_plan
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.transport.group import ExchangeMismatchError
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.sharded.mismatches import mismatch, text_of
from tests.sharded.reference import LAYOUTS, TRANSPORTS, random_ids

PATHS = ["collective", *(["in place", "mailboxes"] if "shared_memory" in TRANSPORTS else [])]
V, D = 131, 5
SIZES = {"equal": (V, D), "other rows": (57, D), "other dimension": (V, 3), "both": (3, 8)}
Tables = list[DistributedEmbedding]


def build(group: dist.ProcessGroup, path: str, *size: int, **settings: Any) -> DistributedEmbedding:
    transport = "collective" if path == "collective" else "shared_memory"
    table = DistributedEmbedding(*size, process_group=group, transport=transport, grad_reduction="sum", **settings)
    if path == "mailboxes":
        table._store = RowStore(table.group, table.weight.detach())
    return table


def ids_of(table: DistributedEmbedding, step: int = 0) -> Tensor:
    """Some of each rank, others in each step."""
    return random_ids(table.num_embeddings, (2 + table.rank, 3), seed=10 * step + table.rank)


def check(tables: Tables, whole: list[Tensor]) -> None:
    """The tables hold what they did, and a lookup of each is right, and its gradient."""
    for table, rows in zip(tables, whole, strict=True):
        assert torch.equal(table.weight, rows[table.partition.ids(table.rank)])
        table.weight.grad = None
    found = lookup(tables, [ids_of(table) for table in tables])
    torch.stack([block.sum() for block in found]).sum().backward()
    for table, rows, block in zip(tables, whole, found, strict=True):
        assert torch.equal(block, rows[ids_of(table)])
        all_ids = torch.cat(
            [random_ids(table.num_embeddings, (2 + rank, 3), seed=rank).flatten() for rank in range(table.world_size)]
        )
        uses = torch.bincount(all_ids, minlength=table.num_embeddings)[table.partition.ids(table.rank)]
        expected = (uses * table.group.replicas.size)[:, None].expand(-1, table.embedding_dim).to(rows.dtype)
        assert torch.equal(table.weight.grad.to_dense(), expected)


# What ranks do with two tables, in the order in which they come or in the other one.
Program = Callable[[Tables], object]


def single_lookups(tables: Tables) -> None:
    for table in tables:
        table(ids_of(table))


def joint_lookup(tables: Tables) -> None:
    lookup(tables, [ids_of(table) for table in tables])


def backward(tables: Tables) -> None:
    by_number = sorted(tables, key=lambda table: table.number)
    rows = {table: table(ids_of(table)) for table in by_number}
    for table in tables:
        rows[table].sum().backward()


def planning(tables: Tables) -> None:
    for table in tables:
        table.plan(ids_of(table))


def planned_lookups(tables: Tables) -> None:
    by_number = sorted(tables, key=lambda table: table.number)
    plans = {table: table.plan(ids_of(table)) for table in by_number}
    for table in tables:
        table(ids_of(table), plans[table])


def joint_plan(tables: Tables) -> None:
    make_plan(tables, [ids_of(table) for table in tables])


def ahead(tables: Tables) -> None:
    batches = [[ids_of(table, step) for table in tables] for step in range(2)]
    for _, rows in Lookahead(tables, batches, lambda ids: ids, second_group(tables[0].world_size)):
        torch.stack([block.sum() for block in rows]).sum().backward()


def gathering(tables: Tables) -> None:
    for table in tables:
        table.to_embedding()


def growing(tables: Tables) -> None:
    for table in tables:
        table.grow(table.num_embeddings + 2)


# Each with the exchanges in which the ranks part, of both orders; {0} is the table that was built first.
PROGRAMS: dict[Program, tuple[str, str]] = {
    single_lookups: ("lookup 1 of {0}", "lookup 1 of {1}"),
    joint_lookup: ("lookup 1 of {0}, {1}", "lookup 1 of {1}, {0}"),
    backward: ("the backward of lookup 1 of {0}", "the backward of lookup 2 of {1}"),
    planning: ("the plan of lookup 1 of {0}", "the plan of lookup 1 of {1}"),
    planned_lookups: ("planned lookup 1 of {0}", "planned lookup 2 of {1}"),
    joint_plan: ("the plan of lookup 1 of {0}, {1}", "the plan of lookup 1 of {1}, {0}"),
    ahead: ("the plan ahead of lookup 1 of {0}, {1}", "the plan ahead of lookup 1 of {1}, {0}"),
    gathering: ("the gathering of {0}", "the gathering of {1}"),
    growing: ("the growing of {0}", "the growing of {1}"),
}


def run_in_other_order(group: dist.ProcessGroup, path: str, size: tuple[int, int], odd_one: int) -> None:
    """All programs one after the other; on one rank the tables come in another order."""
    rank = dist.get_rank(group)
    for program, exchanges in PROGRAMS.items():
        tables = [build(group, path, V, D), build(group, path, *size)]
        whole = [table.to_embedding().weight.detach() for table in tables]
        tables[0].group.lookups = 0
        texts = [text.format(*map(text_of, tables)) for text in exchanges]
        with pytest.raises(RuntimeError) as error:
            program(tables if rank != odd_one else tables[::-1])
        assert type(error.value) is ExchangeMismatchError, program.__name__
        sides = texts if odd_one else texts[::-1]
        assert str(error.value) == mismatch(sides[0], odd_one or 1, sides[1]), program.__name__
        check(tables, whole)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", PATHS)
def test_another_order_of_tables_on_one_rank_is_an_error_of_all(ranks: RankPool, path: str, size: str):
    odd_one = list(SIZES).index(size) % 3
    ranks.run(run_in_other_order, path, SIZES[size], odd_one, world_size=3)


def follow_plans_in_other_order(group: dist.ProcessGroup, path: str) -> None:
    """Two plans of one table, and then two lookaheads, are followed in another order on one rank."""
    table, rank = build(group, path, V, D), dist.get_rank(group)
    whole = [table.to_embedding().weight.detach()]
    batches = [ids_of(table, step) for step in range(2)]
    plans = [table.plan(ids) for ids in batches]
    with pytest.raises(ExchangeMismatchError) as error:
        table(batches[rank % 2], plans[rank % 2])
    texts = [f"planned lookup {number} of {text_of(table)}" for number in (1, 2)]
    assert str(error.value) == mismatch(texts[0], 1, texts[1])
    groups = [dist.new_group(), second_group(dist.get_world_size(group))]
    loops = [iter(Lookahead([table], batches * 2, lambda ids: [ids], each)) for each in groups]
    for loop in loops:
        ids, [rows] = next(loop)
        assert torch.equal(rows, whole[0][ids])
    with pytest.raises(ExchangeMismatchError, match=r"^all ranks must .* planned lookup 4 of .* planned lookup 6 of "):
        next(loops[rank % 2])
    for loop in loops:
        loop.close()
    check([table], whole)


@pytest.mark.parametrize("path", PATHS)
def test_plans_that_are_followed_in_another_order_are_an_error(ranks: RankPool, path: str):
    ranks.run(follow_plans_in_other_order, path)


def convert_alone(group: dist.ProcessGroup, path: str, after_lookup: bool) -> None:
    """One rank's shard has another dtype, from the beginning or only in backward; then it has that of the others."""
    table, rank = build(group, path, V, D, layout="round_robin"), dist.get_rank(group)
    table.weight.detach().copy_(table.weight.bfloat16())
    whole = [table.to_embedding().weight.detach()]
    rows = table(ids_of(table)) if after_lookup else None
    if rank == 2:
        table.bfloat16()
    with pytest.raises(ExchangeMismatchError) as error:
        table(ids_of(table)) if rows is None else rows.sum().backward()
    kind = "lookup 1" if rows is None else "the backward of lookup 1"
    texts = [f"{kind} of table 0 (131 x 5, torch.{dtype})" for dtype in ("float32", "bfloat16")]
    assert str(error.value) == mismatch(texts[0], 2, texts[1])
    assert table.weight.grad is None
    if rank == 2:
        table.float()
    check([table], whole)
    table.bfloat16()
    check([table], [whole[0].bfloat16()])


@pytest.mark.parametrize("after_lookup", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_another_dtype_on_one_rank_is_an_error_before_anything_is_read(ranks: RankPool, path: str, after_lookup: bool):
    ranks.run(convert_alone, path, after_lookup, world_size=3)


def freeze_alone(group: dist.ProcessGroup, path: str) -> None:
    """The gradient of one of two tables is wanted on all ranks but one."""
    tables = [build(group, path, V, D), build(group, path, 57, 3)]
    whole = [table.to_embedding().weight.detach() for table in tables]
    tables[1].weight.requires_grad_(tables[1].rank != 0)
    rows = lookup(tables, [ids_of(table) for table in tables])
    with pytest.raises(ExchangeMismatchError) as error:
        sum(block.sum() for block in rows).backward()
    texts = [f"the backward of lookup 1 of {text}" for text in (text_of(tables[0]), ", ".join(map(text_of, tables)))]
    assert str(error.value) == mismatch(texts[0], 1, texts[1])
    assert [table.weight.grad for table in tables] == [None, None]
    tables[1].weight.requires_grad_()
    check(tables, whole)


@pytest.mark.parametrize("path", PATHS)
def test_a_table_that_one_rank_has_frozen_is_an_error_in_backward(ranks: RankPool, path: str):
    ranks.run(freeze_alone, path, world_size=2)


def reorder_in_one_replica(_: dist.ProcessGroup, transport: str) -> None:
    """The ranks of a replica run two backwards in the same order, but in another one than those of the other."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    settings = {"device_mesh": mesh, "transport": transport, "grad_reduction": "sum"}
    tables = [DistributedEmbedding(V, D, **settings) for _ in range(2)]
    whole = [table.to_embedding().weight.detach() for table in tables]
    rows = [table(ids_of(table)) for table in tables]
    first = rows[0 if dist.get_rank() < 2 else 1]
    with pytest.raises(ExchangeMismatchError) as error:
        first.sum().backward()
    texts = [f"the sum over replicas of {text_of(table)}" for table in tables]
    assert str(error.value) == mismatch(texts[0], 1, texts[1])
    assert [table.weight.grad for table in tables] == [None, None]
    check(tables, whole)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_another_order_of_backwards_in_one_replica_is_an_error(ranks: RankPool, transport: str):
    ranks.run(reorder_in_one_replica, transport)


Step = Callable[[DistributedEmbedding, Tensor], None]


def train(table: DistributedEmbedding, ids: Tensor) -> None:
    table(ids).square().sum().backward()


def skip_a_batch(table: DistributedEmbedding, ids: Tensor) -> None:
    rows = table(ids)
    if table.rank != 1:
        rows.square().sum().backward()


def leave_rows_unused(table: DistributedEmbedding, ids: Tensor) -> None:
    rows = table(ids)
    if table.rank == 2:
        rows = torch.zeros(1, requires_grad=True)
    rows.square().sum().backward()


def validate_alone(table: DistributedEmbedding, ids: Tensor) -> None:
    with torch.no_grad():
        for _ in range(2 if table.rank == 0 else 0):  # the first time it meets the lookup of the others
            table(ids)
    train(table, ids)


# Each with the step in which it is an error on each of three ranks, and with what two of them are in then.
FAULTS: dict[Step, tuple[list[int], dict[int, str]]] = {
    skip_a_batch: ([2, 3, 2], {0: "the backward of lookup 3", 1: "lookup 4"}),
    leave_rows_unused: ([2, 2, 3], {0: "the backward of lookup 3", 2: "lookup 4"}),
    validate_alone: ([2, 2, 2], {0: "lookup 4", 1: "the backward of lookup 3"}),
}


def train_with_a_fault(group: dist.ProcessGroup, path: str, fault: Step) -> None:
    """One rank does something else in step 2. No rank changes its shard after step 1."""
    steps, exchanges = FAULTS[fault]
    for layout in LAYOUTS:
        table = build(group, path, V, D, layout=layout)
        table.group.lookups = 0
        optimizer, text = SparseSGD([table.weight], lr=0.1), ""
        for step in range(5):
            optimizer.zero_grad()
            if step == 2:
                after_two_steps = table.to_embedding().weight.detach()
            try:
                (fault if step == 2 else train)(table, ids_of(table, step))
            except ExchangeMismatchError as error:
                text = str(error)
                break
            optimizer.step()
        assert step == steps[table.rank]
        (first, of_first), (other, of_other) = exchanges.items()
        assert first == 0
        texts = [f"{kind} of {text_of(table)}" for kind in (of_first, of_other)]
        assert text == mismatch(texts[0], other, texts[1])
        assert table.weight.grad is None
        check([table], [after_two_steps])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", PATHS)
def test_what_one_rank_leaves_out_is_an_error_of_all_and_nothing_is_applied(ranks: RankPool, path: str, fault: Step):
    ranks.run(train_with_a_fault, path, fault, world_size=3)
