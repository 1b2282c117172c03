"""What ranks tell each other, by each transport: blocks and numbers arrive, and trouble of one is an error of all."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.transport.collective import FIRST_BYTES
from dist_s2s.sharded.transport.group import ExchangeMismatchError, RankGroup, local_group
from dist_s2s.sharded.transport.making import find_group
from dist_s2s.sharded.transport.protocol import Block, PeerRows, Subject, split_evenly
from tests.rank_pool import RankPool
from tests.sharded.collectives import first_messages_of, poisoned_buffers
from tests.sharded.mismatches import mismatch
from tests.sharded.reference import TRANSPORTS

SUBJECT, CPU = Subject("a test"), torch.device("cpu")
Results = list[Any]


# By collectives with first messages of the usual size, and with others that hold as good as nothing.
WAYS = ["collective", "collective in parts", *TRANSPORTS[1:]]


def in_group(process_group: dist.ProcessGroup, way: str, run: Callable[[RankGroup], Results]) -> Results:
    in_parts = " in parts"
    with poisoned_buffers(), first_messages_of(32 if way.endswith(in_parts) else FIRST_BYTES):
        return run(find_group(way.removesuffix(in_parts), process_group, None, CPU))


def gather(group: RankGroup) -> Results:
    """What each rank has, of which rank r has r rows; of sizes that are known, and that are not."""
    mine = torch.full((group.rank, 2), group.rank, dtype=torch.int64)
    counts = list(range(group.size))
    first = [group.gather(mine, SUBJECT), group.gather(mine, SUBJECT, counts)]
    for number in range(2):  # what was gathered is the rank's own
        group.gather(torch.full((9,), number), SUBJECT)
    return [*first, group.gather_texts("é" * group.rank, SUBJECT)]


@pytest.mark.parametrize("way", WAYS)
def test_what_each_rank_has_is_gathered_on_every_rank(ranks: RankPool, way: str):
    for *gathered, texts in ranks.run(in_group, way, gather):
        assert [block.tolist() for block in gathered] == [[[1, 1], [2, 2], [2, 2], [3, 3], [3, 3], [3, 3]]] * 2
        assert texts == ["", "é", "éé", "ééé"]


def gather_on_one(group: RankGroup) -> Results:
    """As ``gather``, for rank 1 alone; and what this rank has sent for it beyond what goes to the others always."""
    mine = torch.full((1000 * group.rank, 2), group.rank, dtype=torch.int64)
    group.gather(mine[:0], SUBJECT, dst=1)  # what is made at first
    results: Results = []
    for dst in (None, 1):
        group.statistics.reset()
        results.append(group.gather(mine, SUBJECT, dst=dst))
        results.append(group.statistics.bytes_sent)
    return results


@pytest.mark.parametrize("way", WAYS)
def test_what_each_rank_has_is_gathered_on_one(ranks: RankPool, way: str):
    for rank, (everywhere, all_bytes, on_one, bytes_sent) in enumerate(ranks.run(in_group, way, gather_on_one)):
        assert torch.equal(on_one, everywhere if rank == 1 else everywhere[:0])
        if not way.startswith("shared"):
            assert all_bytes - bytes_sent == 3 * 1000 * rank * 2 * 8


def return_rows(group: RankGroup) -> list[Tensor]:
    """From each rank 100 times its number plus this one's, as often as that."""
    counts = list(range(group.size))
    rows = torch.cat([torch.full((count, 2), 100.0 * group.rank + count) for count in counts])
    before = sum(counts[: group.rank])
    received = group.exchange(
        SUBJECT,
        blocks=[Block.of(rows)],
        outgoing=[split_evenly(counts)],
        expected=[[PeerRows(group.rank, before, sum(counts))] * group.size],
    )
    return list(received.blocks[0].split([group.rank] * group.size))


@pytest.mark.parametrize("way", WAYS)
def test_rows_whose_number_all_ranks_know_arrive_without_a_header(ranks: RankPool, way: str):
    for rank, results in enumerate(ranks.run(in_group, way, return_rows)):
        assert [result.tolist() for result in results] == [[[100.0 * other + rank] * 2] * rank for other in range(4)]


DTYPES = [torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.float16]


def exchange_many(group: RankGroup) -> Results:
    """Fifty-one blocks of several dtypes and widths, and 130 numbers."""
    blocks, outgoing = [], []
    for number in range(51):
        # Of each block rank r gets its last r rows, or none.
        rows = torch.arange(3 * (1 + number % 4)).view(3, -1) + 10 * group.rank
        blocks.append(Block.of(rows.to(DTYPES[number % len(DTYPES)])))
        outgoing.append([PeerRows(rank if number % 7 else 0, 3 - rank, 3) for rank in range(group.size)])
    numbers = [1000 * group.rank + place for place in range(130)]
    received = group.exchange(SUBJECT, note=-group.rank, numbers=numbers, blocks=blocks, outgoing=outgoing)
    counts = [[rows.count for rows in of_block] for of_block in received.incoming]
    return [received.notes, received.numbers, counts, received.blocks]


@pytest.mark.parametrize("way", WAYS)
def test_many_blocks_of_several_dtypes_arrive(ranks: RankPool, way: str):
    for rank, (notes, numbers, counts, blocks) in enumerate(ranks.run(in_group, way, exchange_many)):
        assert notes == [0, -1, -2, -3]
        assert numbers == [[1000 * other + place for place in range(130)] for other in range(4)]
        assert counts == [[rank if number % 7 else 0] * 4 for number in range(51)]
        for number, block in enumerate(blocks):
            rows = torch.arange(3 * (1 + number % 4)).view(3, -1)[3 - rank if number % 7 else 3 :]
            expected = torch.cat([rows + 10 * other for other in range(4)]).to(DTYPES[number % len(DTYPES)])
            assert block.dtype == expected.dtype
            assert torch.equal(block, expected)


def agree_on_floats(group: RankGroup) -> Results:
    return group.agree_on_floats(SUBJECT, [0.1 * group.rank, float("-inf"), float("nan")])


@pytest.mark.parametrize("way", WAYS)
def test_floats_keep_their_bits(ranks: RankPool, way: str):
    for floats in ranks.run(in_group, way, agree_on_floats):
        assert [str(number) for of_rank in floats for number in of_rank] == [
            str(number) for rank in range(4) for number in (0.1 * rank, float("-inf"), float("nan"))
        ]


# Each with the ranks that are in trouble, and whether the last rank is in another exchange besides.
TROUBLES = [([1], False), ([2, 3], False), ([0, 2], True), ([3], True)]


def be_in_trouble(group: RankGroup) -> Results:
    """What is raised when ranks are in trouble; afterwards they agree on something."""
    caught, kinds = [], (IndexError, ValueError, TypeError, RuntimeError)
    for troubled, elsewhere in TROUBLES:
        error = kinds[group.rank](f"trouble of rank {group.rank}") if group.rank in troubled else None
        rows = torch.ones(5, 3)
        with pytest.raises(kinds) as found:
            group.exchange(
                Subject("something else") if elsewhere and group.rank == 3 else SUBJECT,
                error,
                numbers=[group.rank],
                blocks=[Block.of(rows)],
                outgoing=[group.to_all(rows)],
            )
        caught.append(f"{type(found.value).__name__}: {found.value}")
        assert group.agree(SUBJECT, None, [group.rank]) == [[0], [1], [2], [3]]
    return caught


@pytest.mark.parametrize("way", WAYS)
def test_the_first_rank_s_error_is_that_of_all_whatever_they_are_in(ranks: RankPool, way: str):
    expected = [
        "ValueError: trouble of rank 1",
        "TypeError: trouble of rank 2",
        "IndexError: trouble of rank 0",
        "AgreedError: trouble of rank 3",
    ]
    assert ranks.run(in_group, way, be_in_trouble) == [expected] * 4


def part_ways(group: RankGroup) -> Results:
    """Where two, three and four exchanges meet, of other numbers of blocks and numbers; then one in which all meet."""
    caught = []
    for others in (1, 2, 3):
        number = max(0, group.rank - 3 + others)
        rows = torch.full((2 + number, 1 + number), 7.0)
        with pytest.raises(ExchangeMismatchError) as found:
            group.exchange(
                Subject(f"exchange {number}"),
                numbers=[1] * (200 * number),
                blocks=[Block.of(rows)] * number,
                outgoing=[group.to_all(rows)] * number,
            )
        caught.append(str(found.value))
        assert group.agree(SUBJECT, None, [group.rank]) == [[0], [1], [2], [3]]
    return caught


@pytest.mark.parametrize("way", WAYS)
def test_ranks_in_different_exchanges_all_learn_of_two_of_them(ranks: RankPool, way: str):
    expected = [mismatch("exchange 0", first, "exchange 1") for first in (3, 2, 1)]
    assert ranks.run(in_group, way, part_ways) == [expected] * 4


def begin_lookups(group: RankGroup) -> Results:
    """How many lookups each rank counts before and after they meet in different exchanges."""
    group.lookups += (3, 5, 4)[group.rank]
    with pytest.raises(ExchangeMismatchError):
        group.agree(Subject(f"exchange {group.rank}"))
    return [group.lookups]


@pytest.mark.parametrize("way", WAYS)
def test_ranks_that_parted_go_on_with_the_same_number_of_lookups(ranks: RankPool, way: str):
    assert ranks.run(in_group, way, begin_lookups, world_size=3) == [[5]] * 3


def test_a_rank_alone_gets_what_it_has_sent():
    group, rows = local_group(CPU), torch.arange(6.0).view(3, 2)
    received = group.exchange(SUBJECT, numbers=[7], blocks=[Block.of(rows)], outgoing=[group.to_all(rows)])
    assert received.numbers == [[7]]
    assert received.incoming == [[(3, 0, 3)]]
    assert torch.equal(received.blocks[0], rows)
    with pytest.raises(TypeError, match=r"^mine$"):
        group.exchange(SUBJECT, TypeError("mine"))
