"""Bytes that are predicted, against those of real tables."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from dist_s2s import sharded
from dist_s2s.cost.problem import Cluster, Layout, Problem, TransportName
from dist_s2s.cost.seconds import EXCHANGES
from dist_s2s.cost.volume import bytes_sent, memory
from dist_s2s.sharded.averaging import MovingAverage
from tests.cost.machines import HOST, HOSTS, PROBLEM
from tests.rank_pool import RankPool

HEADER_BYTES = 1_000  # at most, of a step on 4 ranks: the words of two exchanges with each


def trained(group: dist.ProcessGroup, problem: Problem) -> dict[str, int]:
    """Bytes of this rank's rows and state after a step in which every rank asks for every row, and its exchanges."""
    table = sharded.DistributedEmbedding(
        problem.num_embeddings,
        problem.embedding_dim,
        layout=problem.layout,
        transport=problem.transport,
        process_group=group,
        dtype=problem.dtype,
        comm_dtype=problem.comm_dtype,
    )
    table.statistics.reset()  # building takes exchanges, too
    optimizer = getattr(sharded, problem.optimizer)(table.parameters())
    ids = torch.arange(problem.ids) % problem.num_embeddings
    table(ids).sum().backward()
    averages = []
    if problem.averaged:
        average = MovingAverage([], [table.weight], 0.9)
        with average.following():
            optimizer.step()
        averages = [*average.averages.values(), *average.known.values()]
    else:
        optimizer.step()
    state = [value for value in optimizer.state[table.weight].values() if isinstance(value, torch.Tensor)]
    return {
        "rows": table.weight.nbytes,
        "state": sum(value.nbytes for value in state),
        "average": sum(value.nbytes for value in averages),
        "sent": table.statistics.bytes_sent,
        "exchanges": table.statistics.collectives,
    }


@pytest.mark.parametrize(
    ("optimizer", "transport", "layout", "dtype", "comm_dtype"),
    [
        ("RowWiseAdagrad", "shared_memory", "round_robin", torch.float32, None),
        ("RowWiseAdam", "shared_memory", "contiguous", torch.bfloat16, None),
        ("SparseAdagrad", "collective", "round_robin", torch.float32, torch.bfloat16),
        ("SparseAdam", "collective", "contiguous", torch.float64, None),
        ("SparseSGD", "shared_memory", "round_robin", torch.float32, torch.float16),
    ],
)
def test_memory_and_bytes_are_those_of_a_real_table(
    ranks: RankPool,
    optimizer: str,
    transport: TransportName,
    layout: Layout,
    dtype: torch.dtype,
    comm_dtype: torch.dtype | None,
) -> None:
    # Of so many uniform ids it is certain that all rows are among them.
    averaged = optimizer in ("RowWiseAdagrad", "SparseAdam")
    problem = Problem(131, 1_000, 8_000, 0.0, HOST, layout, transport, optimizer, dtype, comm_dtype, averaged)
    found = ranks.run(trained, problem)
    expected = memory(problem, process_bytes=0.0)
    assert expected["rows"] == found[0]["rows"] == max(rank["rows"] for rank in found)
    assert expected["optimizer_state"] == found[0]["state"]
    assert expected["average"] == found[0]["average"]
    assert averaged == (found[0]["average"] > 0)

    assert problem.asked == pytest.approx([33, 33, 33, 32])
    row = 0 if transport == "shared_memory" else 1_000 * (comm_dtype or dtype).itemsize
    own_row = 4 + row + problem.sent_gradient_bytes
    to_others = max(rank["sent"] - round(asked) * own_row for rank, asked in zip(found, problem.asked, strict=True))
    assert 0 <= to_others - sum(bytes_sent(problem).values()) < HEADER_BYTES
    assert {rank["exchanges"] for rank in found} == {EXCHANGES[transport]}


def test_a_skewed_contiguous_table_is_asked_on_its_first_rank() -> None:
    dealt = replace(PROBLEM, transport="collective")
    contiguous = replace(dealt, layout="contiguous")
    assert contiguous.requests[0] > 3 * contiguous.requests[1:].max()
    assert bytes_sent(contiguous)["rows"] > 2 * bytes_sent(dealt)["rows"]


def test_rows_that_are_read_in_place_are_not_sent() -> None:
    sent = bytes_sent(PROBLEM)
    assert sent["rows"] == 0 < sent["gradients"]
    assert memory(PROBLEM, 0.0)["mailboxes"] > 0
    by_collectives = replace(PROBLEM, transport="collective")
    assert bytes_sent(by_collectives)["rows"] > 0
    assert memory(by_collectives, 0.0)["mailboxes"] == 0


def test_a_single_rank_sends_nothing() -> None:
    alone = replace(PROBLEM, cluster=Cluster(1, 1, 4))
    assert sum(bytes_sent(alone).values()) == memory(alone, 0.0)["mailboxes"] == 0


def test_half_as_much_travels_in_bfloat16() -> None:
    problem = replace(PROBLEM, transport="collective", cluster=HOSTS)
    reduced = replace(problem, comm_dtype=torch.bfloat16)
    for name in ("rows", "gradients"):
        assert bytes_sent(reduced)[name] == bytes_sent(problem)[name] / 2
