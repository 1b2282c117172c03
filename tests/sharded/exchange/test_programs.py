"""Any programs of the ranks: equal ones give right values, and those that differ the same error on every rank.

Never a wrong value, an abort, or a rank that waits for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, ExchangePlan, lookup, make_plan
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.transport.group import ExchangeMismatchError
from dist_s2s.sharded.transport.protocol import Subject
from tests.rank_pool import RankPool
from tests.sharded.collectives import poisoned_buffers
from tests.sharded.reference import TRANSPORTS, random_ids

PATHS = ["collective", *(["in place", "mailboxes"] if "shared_memory" in TRANSPORTS else [])]
SIZES = ((19, 3), (19, 3), (7, 2))  # of three tables; two are of the same size
END = Subject("the end of a program")


@dataclass(frozen=True)
class Operation:
    """One of a program.

    kind: "lookup" and "plan" are of ``tables``; "planned lookup" uses the plan, and "backward" the rows, that are
        ``back`` before the last one which has not been used. If there is none, the operation does nothing.
    """

    kind: str
    tables: tuple[int, ...]
    back: int


Program = list[Operation]
operations = st.builds(
    Operation,
    kind=st.sampled_from(["lookup", "lookup", "backward", "backward", "plan", "planned lookup"]),
    tables=st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 0), (1, 2)]),
    back=st.integers(0, 2),
)
programs = st.lists(operations, min_size=1, max_size=6)


@st.composite
def cases(draw: st.DrawFn, world_size: int) -> list[Program]:
    """A program for each rank: all the same, or one that differs in an operation or more."""
    program = draw(programs)
    of_ranks = [program] * world_size
    match draw(st.sampled_from(["same", "another", "without one", "swapped"])):
        case "another":
            of_ranks[draw(st.integers(0, world_size - 1))] = draw(programs)
        case "without one":
            place = draw(st.integers(0, len(program) - 1))
            of_ranks[draw(st.integers(0, world_size - 1))] = program[:place] + program[place + 1 :]
        case "swapped":
            place = draw(st.integers(0, len(program) - 1))
            swapped = [*program[:place], *program[place + 1 : place + 2], program[place], *program[place + 2 :]]
            of_ranks[draw(st.integers(0, world_size - 1))] = swapped
    return of_ranks


def exchanges_of(program: Program) -> list[tuple[str, tuple[int, ...], int]]:
    """What a program does, without communication: kind, tables and number of the lookup."""
    number, rows, plans, done = 0, [], [], []
    for operation in program:
        kind, unused = operation.kind, {"backward": rows, "planned lookup": plans}.get(operation.kind)
        if unused is not None:
            if operation.back < len(unused):
                found = unused.pop(-1 - operation.back)
                done.append((kind, *found))
                if kind == "planned lookup":
                    rows.append(found)
            continue
        number += 1
        (rows if kind == "lookup" else plans).append((operation.tables, number))
        done.append((kind, operation.tables, number))
    return done


def ids_of(table: int, rank: int, number: int) -> Tensor:
    """What a rank looks up in a table by the lookup of this number; nothing, now and then."""
    return random_ids(SIZES[table][0], ((rank + number) % 3, 4), seed=100 * number + 10 * rank + table)


class Run:
    """One rank's run of a program; its rows are checked at once, and its gradients in the end."""

    def __init__(self, tables: Sequence[DistributedEmbedding], whole: Sequence[Tensor]) -> None:
        self.tables, self.whole, self.rank = tables, whole, tables[0].rank
        self.number = 0
        self.rows: list[list[Tensor]] = []
        self.plans: list[tuple[tuple[int, ...], int, ExchangePlan]] = []
        for table in tables:
            table.weight.grad = None

    def do(self, operation: Operation) -> None:
        kind, back = operation.kind, operation.back
        if kind in ("lookup", "plan"):
            self.number += 1
            self.begin(kind, operation.tables)
        elif kind == "planned lookup" and back < len(self.plans):
            tables, number, plan = self.plans.pop(-1 - back)
            self.keep(tables, number, lookup([self.tables[t] for t in tables], self.ids(tables, number), plan))
        elif kind == "backward" and back < len(self.rows):
            torch.stack([block.sum() for block in self.rows.pop(-1 - back)]).sum().backward()

    def begin(self, kind: str, of: tuple[int, ...]) -> None:
        tables, ids = [self.tables[t] for t in of], self.ids(of, self.number)
        if kind == "plan":
            self.plans.append((of, self.number, make_plan(tables, ids)))
        else:
            self.keep(of, self.number, lookup(tables, ids))

    def ids(self, tables: tuple[int, ...], number: int) -> list[Tensor]:
        return [ids_of(t, self.rank, number) for t in tables]

    def keep(self, tables: tuple[int, ...], number: int, rows: list[Tensor]) -> None:
        for t, ids, block in zip(tables, self.ids(tables, number), rows, strict=True):
            assert torch.equal(block, self.whole[t][ids])
        self.rows.append(rows)

    def check_gradients(self, program: Program) -> None:
        uses = [torch.zeros(size) for size, _ in SIZES]
        for kind, tables, number in exchanges_of(program):
            for t in tables if kind == "backward" else ():
                for rank in range(self.tables[0].world_size):
                    uses[t] += torch.bincount(ids_of(t, rank, number).flatten(), minlength=SIZES[t][0])
        for table, times in zip(self.tables, uses, strict=True):
            gradient = torch.zeros_like(table.weight) if table.weight.grad is None else table.weight.grad.to_dense()
            assert torch.equal(gradient, times[table.partition.ids(self.rank)][:, None].expand_as(gradient))


def run_programs(group: dist.ProcessGroup, path: str, of_cases: list[list[Program]]) -> list[str]:
    """Of each case the error, or "" if there was none; the tables go on being used after it."""
    rank, outcomes = dist.get_rank(group), []
    settings: dict[str, Any] = {"transport": "collective" if path == "collective" else "shared_memory"}
    settings |= {"process_group": group, "grad_reduction": "sum"}
    tables = [DistributedEmbedding(*size, **settings) for size in SIZES]
    for table in tables:
        if path == "mailboxes":
            table._store = RowStore(table.group, table.weight.detach())
    whole = [table.to_embedding().weight.detach() for table in tables]
    for case in of_cases:
        run = Run(tables, whole)
        tables[0].group.lookups = 0
        try:
            with poisoned_buffers():
                for operation in case[rank]:
                    run.do(operation)
                tables[0].group.agree(END)  # so that who has less to do is not missed, but met
            outcomes.append("")
        except ExchangeMismatchError as error:
            outcomes.append(str(error))
        else:
            run.check_gradients(case[rank])
        assert all(torch.equal(t.weight, w[t.partition.ids(rank)]) for t, w in zip(tables, whole, strict=True))
    return outcomes


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=10)
@given(data=st.data())
def test_equal_programs_are_right_and_others_are_the_same_error(
    ranks: RankPool, path: str, world_size: int, data: st.DataObject
):
    of_cases = data.draw(st.lists(cases(world_size), min_size=1, max_size=6))
    outcomes = ranks.run(run_programs, path, of_cases, world_size=world_size)
    assert outcomes == [outcomes[0]] * world_size
    for case, outcome in zip(of_cases, outcomes[0], strict=True):
        traces = [exchanges_of(program) for program in case]
        assert (outcome == "") == (traces == [traces[0]] * world_size)
