"""The cost model against simulation, real tables and common sense; what it knows of a machine is made up here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dist_s2s import UserError, sharded
from dist_s2s.cost.choices import choices, reason
from dist_s2s.cost.coefficients import Coefficients, PartCost, TransportCost
from dist_s2s.cost.id_traffic import IdDistribution, expected_traffic
from dist_s2s.cost.memory import STATE_TENSORS, bytes_sent, mailbox_capacity, memory
from dist_s2s.cost.problem import LAYOUTS, OPTIMIZERS, Cluster, Moves, OptimizerName, Problem
from dist_s2s.cost.step_time import busiest, step_time
from dist_s2s.sharded import RowPartition
from dist_s2s.sharded.partition import Layout
from tests.rank_pool import RankPool

PART = PartCost(
    step=1e-4, id=5e-8, id_element=5e-10, request=5e-8, request_element=1e-9, row=5e-8, row_element=1e-9, cold_row=5e-8
)
PARTS = (replace(PART, row=0, row_element=0, cold_row=0), PART, replace(PART, distinct_element=1e-9))
KNOWN = Coefficients(
    transports={
        "shared_memory": TransportCost(PartCost(), *PARTS[1:], fixed=5e-5, peer=1e-5, switch=2e-5),
        "collective": TransportCost(*PARTS, fixed=3e-4, peer=5e-5, switch=1e-4, byte=5e-10),
    },
    update=dict.fromkeys(OPTIMIZERS, PART),
    crowded=1.1,
    crowded_element=1.5,
    cache_bytes=3e7,
    process_bytes=3e8,
)
HOST = Cluster(ranks=4, hosts=1, cores=4, bandwidth=3e9, latency=5e-5)
HOSTS = Cluster(ranks=64, hosts=8, cores=8, bandwidth=3e9, latency=5e-5)
PROBLEM = Problem(100_000, 64, 4_096, 1.0, "round_robin", "shared_memory", "RowWiseAdagrad", torch.float32, None, HOST)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("skew", [0.0, 0.7, 1.0, 1.5])
@pytest.mark.parametrize(("num_ids", "ranks", "ids"), [(131, 4, 40), (100_000, 4, 2_000), (3, 4, 5), (1, 1, 3)])
def test_expected_requests_are_those_of_simulated_batches(
    layout: Layout, skew: float, num_ids: int, ranks: int, ids: int
) -> None:
    distribution, partition = IdDistribution(num_ids, skew), RowPartition(num_ids, ranks, layout)
    generator = torch.Generator().manual_seed(5)
    trials, asked, touched, fresh, fresh_of_rank = 400 if ids < 100 else 20, *np.zeros((3, ranks)), 0.0

    def owners(rows: torch.Tensor) -> np.ndarray[Any, Any]:
        of_rows = rows % ranks if layout == "round_robin" else torch.bucketize(rows, partition.offsets, right=True) - 1
        return np.bincount(of_rows.numpy(), minlength=ranks)

    for _ in range(trials):
        batches = [distribution.draw(ids, generator) for _ in range(ranks)]
        asked += sum(owners(batch.unique()) for batch in batches) / ranks / trials
        rows, before = torch.cat(batches).unique(), distribution.draw(ranks * ids, generator)
        touched += owners(rows) / trials
        fresh += owners(rows[~torch.isin(rows, before)]) / trials
        mine = batches[0].unique()
        fresh_of_rank += len(mine[~torch.isin(mine, before)]) / trials
    expected = expected_traffic(distribution, ids, partition)
    # The number of distinct ids varies less than that of as many independent events: 4 standard deviations of these.
    assert (np.abs(expected.asked - asked) <= 4 * np.sqrt(expected.asked / trials)).all()
    assert (np.abs(expected.touched - touched) <= 4 * np.sqrt(expected.touched / trials)).all()
    assert (np.abs(expected.fresh - fresh) <= 4 * np.sqrt(expected.fresh / trials)).all()
    assert abs(expected.fresh_of_rank - fresh_of_rank) <= 4 * np.sqrt(expected.fresh_of_rank / trials)
    assert expected.distinct == pytest.approx(asked.sum(), rel=0.02)


@pytest.mark.parametrize("skew", [0.0, 0.7, 1.0, 1.5])
def test_buckets_of_ids_give_what_single_ids_give(skew: float) -> None:
    distribution = IdDistribution(1_000_003, skew)
    edges = np.arange(distribution.num_ids + 1, dtype=np.float64)
    single = -np.expm1(5_000 * np.log1p(-np.diff(distribution.below(edges))))
    for layout in LAYOUTS:
        partition = RowPartition(distribution.num_ids, 7, layout)
        expected = expected_traffic(distribution, 5_000, partition)
        exact = [single[partition.ids(owner).numpy()].sum() for owner in range(7)]
        assert expected.asked == pytest.approx(exact, rel=1e-4)


def test_a_table_of_a_trillion_rows_is_no_more_work() -> None:
    partition = RowPartition(10**12, 1_024, "contiguous")
    uniform = expected_traffic(IdDistribution(10**12, 0.0), 4_096, partition)
    assert uniform.asked == pytest.approx(np.full(1_024, 4.0), rel=1e-6)  # hardly an id comes twice
    skewed = expected_traffic(IdDistribution(10**12, 1.0), 4_096, partition)
    assert skewed.asked.argmax() == 0
    assert 0.5 * skewed.distinct < skewed.asked[0] < skewed.distinct < 4_096


def trained(group: dist.ProcessGroup, problem: Problem, dtypes: Mapping[str, torch.dtype | None]) -> dict[str, int]:
    """A step of the problem; what its objects weigh, in bytes, and what has travelled."""
    alone = dist.new_group(list(range(dist.get_world_size(group))))  # with mailboxes that nobody else has used
    assert alone is not None
    table = sharded.DistributedEmbedding(
        problem.num_embeddings,
        problem.embedding_dim,
        layout=problem.layout,
        transport=problem.moves,
        process_group=alone,
        **dtypes,
    )
    optimizer = getattr(sharded, problem.optimizer)(table.parameters())
    generator = torch.Generator().manual_seed(dist.get_rank(group))
    ids = IdDistribution(problem.num_embeddings, problem.skew).draw(problem.ids, generator)
    table(ids).sum().backward()
    optimizer.step()
    state = [value for value in optimizer.state[table.weight].values() if isinstance(value, torch.Tensor)]
    mailboxes = getattr(table.transport, "_mailboxes", None)
    return {
        "rows": table.weight.nbytes,
        "state": sum(value.nbytes for value in state),
        "mailbox": 0 if mailboxes is None else mailboxes._capacities[table.rank],
        "sent": table.statistics.bytes_sent,
    }


@pytest.mark.parametrize(
    ("optimizer", "moves", "layout", "dtype", "comm_dtype"),
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
    optimizer: OptimizerName,
    moves: Moves,
    layout: Layout,
    dtype: torch.dtype,
    comm_dtype: torch.dtype | None,
) -> None:
    problem = Problem(20_001, 100, 5_000, 0.0, layout, moves, optimizer, dtype, comm_dtype, HOST)
    found = ranks.run(trained, problem, {"dtype": dtype, "comm_dtype": comm_dtype})
    expected, sent = memory(problem, 0.0), bytes_sent(problem)
    assert expected.rows == found[0]["rows"] == max(rank["rows"] for rank in found)
    assert expected.optimizer_state == found[0]["state"]
    assert STATE_TENSORS[optimizer] != (0, 0) or found[0]["state"] == 0
    assert expected.mailboxes == 2 * max(rank["mailbox"] for rank in found)
    assert sent.to_others + sent.to_itself == pytest.approx(max(rank["sent"] for rank in found), rel=0.02)


def test_a_skewed_contiguous_table_is_asked_on_its_first_rank() -> None:
    dealt = replace(PROBLEM, moves="collective")
    contiguous = replace(dealt, layout="contiguous")
    assert contiguous.traffic.requests[0] > 3 * contiguous.traffic.requests[1:].max()
    assert bytes_sent(contiguous).rows > 2 * bytes_sent(dealt).rows
    assert step_time(contiguous, KNOWN).total > 1.3 * step_time(dealt, KNOWN).total


def test_rows_that_are_read_in_place_are_not_sent() -> None:
    sent, time = bytes_sent(PROBLEM), step_time(PROBLEM, KNOWN)
    assert sent.rows == 0 < sent.gradients
    assert time.plan.total == 0 < time.rows.total
    assert bytes_sent(replace(PROBLEM, moves="collective")).rows > 0


@pytest.mark.parametrize(
    "change",
    [
        {"ids": 8_192},
        {"embedding_dim": 128},
        {"num_embeddings": 10_000_000},
        {"skew": 0.0},
        {"moves": "collective"},
        {"dtype": torch.float64},
        {"cluster": replace(HOST, cores=2)},
        {"cluster": replace(HOST, ranks=8, cores=8)},
    ],
)
def test_more_work_takes_longer(change: dict[str, Any]) -> None:
    assert step_time(replace(PROBLEM, **change), KNOWN).total > 1.01 * step_time(PROBLEM, KNOWN).total


@pytest.mark.parametrize(
    "change", [{"bandwidth": 1e8}, {"latency": 1e-3}, {"cores": 4}, {"hosts": 16}, {"ranks": 1_024, "hosts": 128}]
)
def test_slower_networks_and_more_messages_take_longer(change: dict[str, Any]) -> None:
    problem = replace(PROBLEM, moves="collective", cluster=HOSTS)
    changed = replace(problem, cluster=replace(HOSTS, **change))
    quicker = change == {"hosts": 16}  # each has a network of its own
    assert (step_time(changed, KNOWN).total < step_time(problem, KNOWN).total) == quicker


def test_less_travels_in_bfloat16() -> None:
    problem = replace(PROBLEM, moves="collective", cluster=HOSTS)
    reduced = replace(problem, comm_dtype=torch.bfloat16)
    assert bytes_sent(reduced).rows == bytes_sent(problem).rows / 2
    assert step_time(reduced, KNOWN).total < step_time(problem, KNOWN).total


def test_ranks_share_cores_evenly() -> None:
    two_cores = Cluster(ranks=4, hosts=1, cores=2, bandwidth=1.0, latency=0.0)
    assert busiest(np.full(4, 1.0), two_cores) == pytest.approx(2.0)
    # Three ranks are done after 2 seconds; then the last one has a core for itself.
    assert busiest(np.array([5.0, 1.0, 1.0, 1.0]), two_cores) == pytest.approx(6.0)
    assert busiest(np.array([5.0, 1.0, 1.0, 1.0]), HOST) == pytest.approx(5.0)
    assert busiest(np.array([5.0, 1.0, 1.0, 1.0]), replace(two_cores, hosts=2)) == pytest.approx(5.0)


def test_a_single_rank_sends_nothing() -> None:
    alone = replace(PROBLEM, cluster=replace(HOST, ranks=1))
    time = step_time(alone, KNOWN)
    assert time.rows.latency == time.gradients.transfer == 0
    assert bytes_sent(alone).to_others == mailbox_capacity(alone) == 0
    assert reason(choices(alone, None, KNOWN)) == "One rank owns all rows, so layouts do not differ. Nothing travels."


def test_the_best_choice_comes_first_and_says_why() -> None:
    found = choices(PROBLEM, None, KNOWN)
    assert len(found) == 4
    assert (found[0].problem.layout, found[0].problem.moves) == ("round_robin", "shared_memory")
    assert found[0].time.total == min(choice.time.total for choice in found)
    assert "With contiguous the busiest owner is asked for 3." in reason(found)
    assert "With the transport collective a step takes" in reason(found)
    assert found[0].imbalance == pytest.approx(1, abs=0.01)


def test_uniform_ids_are_laid_out_contiguously() -> None:
    found = choices(replace(PROBLEM, skew=0.0), "collective", KNOWN)
    assert len(found) == 2
    assert found[0].problem.layout == "contiguous"
    assert reason(found).startswith("With round_robin a step takes the same time.")


def test_hosts_share_no_memory() -> None:
    problem = replace(PROBLEM, cluster=HOSTS)
    assert {choice.problem.moves for choice in choices(problem, None, KNOWN)} == {"collective"}
    with pytest.raises(UserError, match="ranks on 8 hosts do not share memory; use auto or collective"):
        choices(problem, "shared_memory", KNOWN)


def test_a_mailbox_has_a_limit() -> None:
    problem = replace(PROBLEM, num_embeddings=10**9, ids=20_000_000, skew=0.0)
    assert {choice.problem.moves for choice in choices(problem, None, KNOWN)} == {"collective"}
    with pytest.raises(UserError, match="do not fit into a mailbox"):
        choices(problem, "shared_memory", KNOWN)
