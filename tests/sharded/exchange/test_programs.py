"""Any programs of the ranks: equal ones give right values, and those that differ the same error on every rank.

Never a wrong value, an abort, or a rank that waits for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    is_bad: a lookup or a plan has an id that its first table does not have.
    """

    kind: str
    tables: tuple[int, ...]
    back: int
    is_bad: bool = False


@dataclass(frozen=True)
class Program:
    """What a rank does; one that it doesn't end is one in which its own code raises an exception.

    converted: a table that is in another dtype on this rank.
    """

    operations: list[Operation]
    converted: int | None = None


KINDS = ("lookup", "plan", "planned lookup", "backward")
some_tables = st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 0), (1, 2)])
operations = st.builds(
    Operation,
    kind=st.sampled_from(KINDS),
    tables=some_tables,
    back=st.integers(0, 2),
)
lists_of_operations = st.lists(operations, min_size=1, max_size=6)


@st.composite
def cases(draw: st.DrawFn, world_size: int) -> list[Program]:
    """A program for each rank: all the same, or one that differs in an operation or more."""
    program, odd_one = draw(lists_of_operations), draw(st.integers(0, world_size - 1))
    place = draw(st.integers(0, len(program) - 1))
    before, operation, after = program[:place], program[place], program[place + 1 :]
    others = {
        "the same": program,
        "another": draw(lists_of_operations),
        "without one": [*before, *after],
        "without the rest": before,
        "in another order": [*before, *after[:1], operation, *after[1:]],
        "with other tables": [*before, replace(operation, tables=draw(some_tables)), *after],
        "of another kind": [*before, replace(operation, kind=draw(st.sampled_from(KINDS))), *after],
        "with a bad id": [*before, replace(operation, is_bad=True), *after],
        "in another dtype": program,
    }
    of_ranks = [Program(program)] * world_size
    how = draw(st.sampled_from(list(others)))
    of_ranks[odd_one] = Program(others[how], draw(st.integers(0, 2)) if how == "in another dtype" else None)
    return of_ranks


Exchange = tuple[str, tuple[int, ...], int, bool]


def exchanges_of(program: Program) -> list[Exchange]:
    """What a program does, without communication: kind, tables, number of the lookup, and whether one is converted."""
    return [(*exchange, program.converted in exchange[1]) for exchange in _exchanges_of(program.operations)]


def _exchanges_of(operations: list[Operation]) -> list[tuple[str, tuple[int, ...], int]]:
    number, rows, plans, done = 0, [], [], []
    for operation in operations:
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


def has_bad_ids(program: Program) -> bool:
    return any(operation.is_bad and operation.kind in ("lookup", "plan") for operation in program.operations)


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
            self.begin(kind, operation.tables, operation.is_bad)
        elif kind == "planned lookup" and back < len(self.plans):
            tables, number, plan = self.plans.pop(-1 - back)
            self.keep(tables, number, lookup([self.tables[t] for t in tables], self.ids(tables, number), plan))
        elif kind == "backward" and back < len(self.rows):
            torch.stack([block.sum() for block in self.rows.pop(-1 - back)]).sum().backward()

    def begin(self, kind: str, of: tuple[int, ...], is_bad: bool) -> None:
        tables, ids = [self.tables[t] for t in of], self.ids(of, self.number)
        if is_bad:
            ids[0] = torch.tensor([0, SIZES[of[0]][0]])
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
        for kind, tables, number, _ in exchanges_of(program):
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
        run, program = Run(tables, whole), case[rank]
        try:
            with poisoned_buffers():
                if program.converted is not None:
                    tables[program.converted].to(torch.float64)
                for operation in program.operations:
                    run.do(operation)
                tables[0].group.agree(END)  # so that who has less to do is not missed, but met
            outcomes.append("")
        except (ExchangeMismatchError, IndexError, ValueError) as error:
            outcomes.append(f"{type(error).__name__}: {error}")
        else:
            run.check_gradients(program)
        if program.converted is not None:
            tables[program.converted].to(torch.float32)
        assert all(torch.equal(t.weight, w[t.partition.ids(rank)]) for t, w in zip(tables, whole, strict=True))
    return outcomes


def check_programs(ranks: RankPool, path: str, world_size: int, of_cases: list[list[Program]]) -> None:
    """All ranks' outcomes are the same, and an error where their programs are not, or have a bad id."""
    outcomes = ranks.run(run_programs, path, of_cases, world_size=world_size)
    assert outcomes == [outcomes[0]] * world_size
    for case, outcome in zip(of_cases, outcomes[0], strict=True):
        traces = [exchanges_of(program) for program in case]
        is_right = traces == [traces[0]] * world_size and not any(map(has_bad_ids, case))
        assert (outcome == "") == is_right, (outcome, case)


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=10)  # of up to 8 programs each
@given(data=st.data())
def test_equal_programs_are_right_and_others_are_the_same_error(
    ranks: RankPool, path: str, world_size: int, data: st.DataObject
):
    check_programs(ranks, path, world_size, data.draw(st.lists(cases(world_size), min_size=1, max_size=8)))


@pytest.mark.nightly
@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60)
@given(data=st.data())
def test_many_more_programs(ranks: RankPool, path: str, world_size: int, data: st.DataObject):
    check_programs(ranks, path, world_size, data.draw(st.lists(cases(world_size), min_size=10, max_size=10)))
