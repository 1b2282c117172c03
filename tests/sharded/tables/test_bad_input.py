"""What is wrong on one rank becomes the same error on every rank, at once, and the table can be used again."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, ExchangePlan, RowPartition, lookup, make_plan
from dist_s2s.sharded.transport.group import ExchangeMismatchError, local_group
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS

V, D = 131, 4
# Really 2 s; the margin is for a machine that is busy with other tests. Without the error code it would be forever.
ERROR_SECONDS = 10.0

BAD_IDS = {
    "too large": (
        torch.zeros(5, 9).long().index_put((torch.tensor(3), torch.tensor(7)), torch.tensor(131)),
        "IndexError: id 131 at position (3, 7) on rank 1 is outside [0, 131)",
    ),
    "negative": (
        torch.tensor([5, -1, 200]),
        "IndexError: id -1 at position (1,) on rank 1 is outside [0, 131)",
    ),
    "scalar": (torch.tensor(-7), "IndexError: id -7 at position () on rank 1 is outside [0, 131)"),
    "int32": (
        torch.tensor([[0, 999]], dtype=torch.int32),
        "IndexError: id 999 at position (0, 1) on rank 1 is outside [0, 131)",
    ),
    # 131 does not fit into an int8: compared as one it would be -125, and the first id be blamed.
    "int8": (
        torch.tensor([3, -5], dtype=torch.int8),
        "IndexError: id -5 at position (1,) on rank 1 is outside [0, 131)",
    ),
    "huge": (torch.tensor([2**62]), f"IndexError: id {2**62} at position (0,) on rank 1 is outside [0, 131)"),
    "float": (
        torch.tensor([1.0]),
        "TypeError: ids on rank 1 must be integers, but their dtype is torch.float32; convert them with .long()",
    ),
    "bool": (
        torch.tensor([True]),
        "TypeError: ids on rank 1 must be integers, but their dtype is torch.bool; convert them with .long()",
    ),
    "no tensor": ([1], "TypeError: ids on rank 1 must be a tensor of integers, but are a list"),
    "empty float": (
        torch.tensor([]),
        "TypeError: ids on rank 1 must be integers, but their dtype is torch.float32; convert them with .long()",
    ),
}


def raised(action: Callable[[], object]) -> tuple[str, float]:
    """The error that the action raises, and after how many seconds."""
    start = time.monotonic()
    try:
        action()
    except (IndexError, TypeError, ValueError, ExchangeMismatchError) as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - start
    return "nothing", 0.0


def give_rank_one_bad_ids(group: dist.ProcessGroup) -> list[tuple[str, float, Tensor]]:
    """For each kind of bad ids: the error, the seconds until it came, and the next output of the same table."""
    table = DistributedEmbedding(V, D, process_group=group, seed=0)
    good, results = torch.tensor([0, 65, 130]), []
    for bad, _ in BAD_IDS.values():
        mine = bad if dist.get_rank(group) == 1 else good
        results.append((*raised(lambda mine=mine: table(mine)), table(good).detach()))
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_bad_ids_of_one_rank_raise_one_error_on_every_rank(ranks: RankPool, world_size: int):
    expected = DistributedEmbedding(V, D, seed=0)(torch.tensor([0, 65, 130]))
    for results in ranks.run(give_rank_one_bad_ids, world_size=world_size):
        for (error, seconds, next_output), (kind, (_, text)) in zip(results, BAD_IDS.items(), strict=True):
            assert error == text, kind
            assert seconds < ERROR_SECONDS, kind
            assert torch.equal(next_output, expected), kind


def give_several_ranks_bad_ids(group: dist.ProcessGroup) -> str:
    table = DistributedEmbedding(V, D, process_group=group, seed=0)
    bad = [torch.tensor([7]), torch.tensor([0.5]), torch.tensor([-1])][dist.get_rank(group)]
    return raised(lambda: table(bad))[0]


def test_the_first_rank_with_bad_ids_is_named(ranks: RankPool):
    errors = ranks.run(give_several_ranks_bad_ids, world_size=3)
    assert errors == [BAD_IDS["float"][1]] * 3


@pytest.mark.parametrize("kind", BAD_IDS)
def test_bad_ids_without_a_group(kind: str):
    bad, text = BAD_IDS[kind]
    table = DistributedEmbedding(V, D)
    assert raised(lambda: table(bad))[0] == text.replace("rank 1", "rank 0")


Tables = list[DistributedEmbedding]
GOOD = [torch.tensor([[0, 65], [130, 7]]), torch.tensor([3, 3])]
OTHER = [torch.tensor([[0, 65], [130, 8]]), torch.tensor([3, 3])]


def two_tables(group: dist.ProcessGroup | None, num_rows: int = V, **settings: object) -> Tables:
    return [
        DistributedEmbedding(rows, D, layout=layout, process_group=group, seed=0, **settings)
        for rows, layout in zip((num_rows, 30), LAYOUTS, strict=True)
    ]


def with_plans(make_plans: Callable[[Tables], Sequence[ExchangePlan]]) -> Callable[[Tables, bool], object]:
    """A lookup by the second of the plans on the rank that is wrong, by the first on all others."""
    return lambda tables, is_wrong: lookup(tables, GOOD, make_plans(tables)[is_wrong])


def in_another_group(tables: Tables) -> Tables:
    """The same tables, of which the second is no longer in the group of the first."""
    tables[1].group = local_group(tables[1].weight.device)
    return tables


def older_plan(tables: Tables, is_wrong: bool) -> object:
    """Its ids are right on this rank, but were others elsewhere."""
    older, newer = make_plan(tables, GOOD if is_wrong else OTHER), make_plan(tables, GOOD)
    return lookup(tables, GOOD, older if is_wrong else newer)


def uncounted_plan(tables: Tables, is_wrong: bool) -> object:
    counted = two_tables(tables[0].process_group, scale_grad_by_freq=True)
    plans = make_plan(counted, GOOD), make_plan(tables, GOOD)
    return lookup(counted, GOOD, plans[is_wrong])


WRONG_NUMBER = "ValueError: 2 tables need as many tensors of ids, but got "
OTHER_IDS = (
    "ValueError: the plan on rank 1 is of other ids (of shape (2, 2), not these) for table 0; plan these ids anew"
)
BOTH_TABLES = f"table 0 ({V} x {D}, torch.float32), table 1 (30 x {D}, torch.float32)"
OTHER_PARTITIONS = "ValueError: the plan on rank 1 is of {}, which are not the partitions of these tables"
# For each: a call with two tables, told whether this rank is to do it wrong; the error of every rank.
BAD_CALLS: dict[str, tuple[Callable[[Tables, bool], object], str]] = {
    "an id beyond the second table": (
        lambda tables, is_wrong: lookup(tables, [GOOD[0], torch.tensor([30])] if is_wrong else GOOD),
        f"IndexError: table 1 (30 x {D}): id 30 at position (0,) on rank 1 is outside [0, 30)",
    ),
    "too few ids": (lambda tables, is_wrong: lookup(tables, GOOD[is_wrong:]), f"{WRONG_NUMBER}1"),
    "too many ids": (lambda tables, is_wrong: lookup(tables, GOOD + GOOD[:is_wrong]), f"{WRONG_NUMBER}3"),
    "too few ids and a plan": (
        lambda tables, is_wrong: lookup(tables, GOOD[is_wrong:], make_plan(tables, GOOD)),
        f"{WRONG_NUMBER}1",
    ),
    "tables of two groups": (
        lambda tables, is_wrong: lookup(in_another_group(tables) if is_wrong else tables, GOOD),
        "ValueError: tables that share an exchange must have the same process_group and transport; pass them to each "
        "of them",
    ),
    "tables of two dtypes": (
        lambda tables, is_wrong: lookup([tables[0], tables[1].bfloat16() if is_wrong else tables[1]], GOOD),
        "ValueError: rows that share an exchange must travel in the same dtype, but are "
        "[torch.float32, torch.bfloat16]",
    ),
    "a plan of other ids": (
        lambda tables, is_wrong: lookup(tables, OTHER if is_wrong else GOOD, make_plan(tables, GOOD)),
        OTHER_IDS,
    ),
    "a plan of ids of another shape": (
        lambda tables, is_wrong: lookup(
            tables, [GOOD[0].flatten() if is_wrong else GOOD[0], GOOD[1]], make_plan(tables, GOOD)
        ),
        OTHER_IDS,
    ),
    "ids that are no tensor, and a plan": (
        lambda tables, is_wrong: lookup(tables, [[1], GOOD[1]] if is_wrong else GOOD, make_plan(tables, GOOD)),
        "ValueError: the plan on rank 1 is of other ids (not of these) for table 0; plan these ids anew",
    ),
    "a plan of one table": (
        with_plans(lambda tables: (make_plan(tables, GOOD), tables[0].plan(GOOD[0]))),
        OTHER_PARTITIONS.format((RowPartition(V, 3),)),
    ),
    "a plan of larger tables": (
        with_plans(
            lambda tables: (make_plan(tables, GOOD), make_plan(two_tables(tables[0].process_group, V + 1), GOOD))
        ),
        OTHER_PARTITIONS.format((RowPartition(V + 1, 3), RowPartition(30, 3, "round_robin"))),
    ),
    "a plan of another group": (
        with_plans(lambda tables: (plan := make_plan(tables, GOOD), dataclasses.replace(plan, group=None))),
        "ValueError: the plan on rank 1 was made for another process group; make one for these tables",
    ),
    "an older plan": (
        older_plan,
        "ExchangeMismatchError: all ranks must take part in the same exchange, but rank 0 is in planned lookup 2 of "
        f"{BOTH_TABLES}, and rank 1 in planned lookup 1 of {BOTH_TABLES}; call the tables in the same order on every "
        "rank, and run backward on all or on none",
    ),
    "a plan without frequencies": (
        uncounted_plan,
        "ValueError: the plan on rank 1 is of tables with another scale_grad_by_freq; make one for these tables",
    ),
}


def call_wrongly_on_rank_one(group: dist.ProcessGroup, kind: str) -> tuple[str, float, list[Tensor]]:
    """The error, the seconds until it came, and then a good lookup in the same group."""
    call, _ = BAD_CALLS[kind]
    tables = two_tables(group)
    error, seconds = raised(lambda: call(tables, dist.get_rank(group) == 1))
    return error, seconds, [rows.detach() for rows in lookup(two_tables(group), GOOD)]


@pytest.mark.parametrize("kind", BAD_CALLS)
def test_a_bad_call_of_one_rank_raises_one_error_on_every_rank(ranks: RankPool, kind: str):
    expected = [table(ids).detach() for table, ids in zip(two_tables(None), GOOD, strict=True)]
    for error, seconds, rows in ranks.run(call_wrongly_on_rank_one, kind, world_size=3):
        assert error == BAD_CALLS[kind][1]
        assert seconds < ERROR_SECONDS
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(rows, expected, strict=True))


@pytest.mark.parametrize("kind", ["too few ids", "too many ids", "a plan of other ids", "a plan of one table"])
def test_a_bad_call_without_a_group(kind: str):
    call, text = BAD_CALLS[kind]
    error, _ = raised(lambda: call(two_tables(None), True))
    assert error == text.replace("rank 1", "rank 0").replace("num_shards=3", "num_shards=1")


def build_in_a_group_of_others(_: dist.ProcessGroup) -> str:
    """Ranks 0 to 2 build a table in their group and use it; rank 3 is no member of it."""
    members = dist.new_group([0, 1, 2])
    error, _ = raised(lambda: DistributedEmbedding(V, D, process_group=members)(torch.tensor([0, 130])))
    if dist.get_rank() < 3:
        dist.destroy_process_group(members)
    return error


def test_a_rank_outside_the_group_is_told_so_and_the_members_go_on(ranks: RankPool):
    errors = ranks.run(build_in_a_group_of_others)
    assert errors == ["nothing"] * 3 + ["ValueError: rank 3 is not a member of the table's process group"]
