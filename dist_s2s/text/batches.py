"""Padded batches: a pure function of (seed, epoch, position), whatever the number of ranks."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self, overload

import numpy as np
import torch
from torch import Tensor

from dist_s2s.text.corpus import Corpus
from dist_s2s.text.vocabulary import EOS, PAD, SOS

# Examples are sorted by length among this many batches' worth of a shuffled epoch. More means less padding;
# fewer means that an example's companions differ more from epoch to epoch. With 200 batches and 4 buckets less than a
# tenth of all source and target positions is padding, also where lengths differ as much as in software messages.
POOL_BATCHES = 200
BUCKETS_PER_DOUBLING = 4  # target lengths of a bucket differ by a fifth
SOURCES_PER_TARGET = 8  # most source positions of a global batch for each of its target tokens


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One rank's rows of a global batch: B rows, S and T positions, all tensors int64, PAD at row ends.

    A rank that has no row of a global batch gets one row that counts for nothing, so that it can take part in
    every collective: source [EOS], target_in [SOS], target_out [PAD], and no index.

    Attributes:
        source: [B, S] source tokens, then EOS.
        source_lengths: [B] tokens of each source row, EOS included; never 0.
        target_in: [B, T] SOS, then target tokens: what the decoder reads.
        target_out: [B, T] target tokens, then EOS: what it is to predict.
        global_target_tokens: tokens of `target_out` on all ranks, PAD not counted; the loss is divided by it.
        indices: the example number of each row; empty for the row that counts for nothing.
    """

    source: Tensor
    source_lengths: Tensor
    target_in: Tensor
    target_out: Tensor
    global_target_tokens: int
    indices: list[int]

    @property
    def source_mask(self) -> Tensor:
        """[B, S] bool, True at tokens (EOS included) and False at padding."""
        positions = torch.arange(self.source.size(1), device=self.source.device)
        return positions < self.source_lengths.unsqueeze(1)

    def to(self, device: torch.device | str) -> Self:
        """Return the batch with its tensors on `device`."""
        return replace(
            self,
            source=self.source.to(device),
            source_lengths=self.source_lengths.to(device),
            target_in=self.target_in.to(device),
            target_out=self.target_out.to(device),
        )


class EpochBatches(Sequence[list[int]]):
    """The batches of an epoch, as lists of example numbers, in two arrays however many there are.

    Args:
        order: the example numbers of all batches, one batch after the other: integers [N].
        ends: where each batch ends in it, in ascending order: int64 [B].
        sequence: which batch comes when: int64 [B].
    """

    def __init__(self, order: np.ndarray, ends: np.ndarray, sequence: np.ndarray) -> None:
        self._order, self._sequence = order, sequence
        self._ends = np.concatenate([[0], ends])

    def __len__(self) -> int:
        return len(self._sequence)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...

    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        batch = self._sequence[index]
        numbers: list[int] = self._order[self._ends[batch] : self._ends[batch + 1]].tolist()
        return numbers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def global_batches(corpus: Corpus, batch_tokens: int, seed: int, epoch: int) -> EpochBatches:
    """Cut an epoch into batches of example numbers; every example occurs exactly once.

    A seeded shuffle is cut into pools of about `POOL_BATCHES` batches; each pool is sorted by buckets of target
    lengths, then source length. The direction alternates, for targets from pool to pool, for sources from one
    bucket to the next, so that lengths do not jump at a border. A batch takes examples in this order while
    they fit; then the order of the batches is shuffled. Nothing here depends on rank or world size.

    Args:
        corpus: whose `lengths` are read.
        batch_tokens: most target tokens of a batch, over all ranks, EOS counted. An example that is longer by
            itself is a batch of its own. Source positions, padding counted, are at most `SOURCES_PER_TARGET` times as
            many, so that long sources with short targets do not fill the memory.
        seed, epoch: what the shuffles depend on.

    Raises:
        ValueError: `batch_tokens` is not positive.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
    count = len(corpus)
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    lengths = corpus.lengths.numpy()
    total = int(lengths[:, 1].sum(dtype=np.int64)) + count  # an EOS each
    pools = max(1, round(total / batch_tokens / POOL_BATCHES))

    order = torch.randperm(count, generator=generator).numpy()
    if count < 1 << 31:
        order = order.astype(np.int32)
    sizes_here = np.empty_like(lengths)  # of the examples in order, EOS counted
    begins = [-(-pool * count // pools) for pool in range(pools + 1)]
    for pool, (begin, end) in enumerate(pairwise(begins)):
        numbers = order[begin:end]
        sizes = lengths.take(numbers, axis=0)  # from all over the memory: what takes longest, and is done once
        places = _by_length(sizes[:, 0].astype(np.int64), sizes[:, 1] + 1, is_falling=pool % 2 == 1)
        order[begin:end], sizes_here[begin:end] = numbers[places], sizes.take(places, axis=0) + 1
    ends = _batch_ends(np.cumsum(sizes_here[:, 1], dtype=np.int64), sizes_here[:, 0], batch_tokens)
    return EpochBatches(order, ends, torch.randperm(len(ends), generator=generator).numpy())


def _by_length(sources: np.ndarray, targets: np.ndarray, is_falling: bool) -> np.ndarray:
    """Return the order of a pool's examples, each from 1 target token on; equal ones keep theirs."""
    buckets = (np.log2(targets) * BUCKETS_PER_DOUBLING).astype(np.int64)
    span = int(sources.max(initial=0)) + 1
    keys = buckets * span + np.where(buckets % 2 == 0, sources, span - 1 - sources)
    # Keys are made distinct by their place: what is sorted then needs no stable sort, which takes four times as long.
    keys = (-keys if is_falling else keys) * len(keys) + np.arange(len(keys))
    return np.sort(keys) % len(keys) if len(keys) else keys


def _batch_ends(tokens: np.ndarray, sources: np.ndarray, batch_tokens: int) -> np.ndarray:
    """Return where batches end, given how many target tokens there are up to each example, and its source positions."""
    ends, end, used = [], 0, 0
    while end < len(tokens):
        begin, end = end, max(int(np.searchsorted(tokens, used + batch_tokens, side="right")), end + 1)
        end = _within_sources(sources, begin, end, SOURCES_PER_TARGET * batch_tokens)
        used = int(tokens[end - 1])
        ends.append(end)
    return np.array(ends, dtype=np.int64)


def shard_batch(batch: list[int], rank: int, world_size: int) -> list[int]:
    """Return every `world_size`-th row of a global batch, from row `rank` on.

    Rows are in order of length, so all ranks get like lengths, and equally many rows to within one.

    Raises:
        ValueError: `rank` is not in range(world_size).
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in range({world_size}), got {rank}")
    return batch[rank::world_size]


def collate(corpus: Corpus, indices: list[int], global_target_tokens: int) -> Batch:
    """Pad the examples numbered `indices` to one batch, or make the row that counts for nothing."""
    rows = [corpus[i] for i in indices]
    return Batch(
        source=_pad([[*row.source, EOS] for row in rows] or [[EOS]]),
        source_lengths=torch.tensor([len(row.source) + 1 for row in rows] or [1]),
        target_in=_pad([[SOS, *row.target] for row in rows] or [[SOS]]),
        target_out=_pad([[*row.target, EOS] for row in rows] or [[PAD]]),
        global_target_tokens=global_target_tokens,
        indices=list(indices),
    )


def rank_batch(corpus: Corpus, batch: list[int], rank: int, world_size: int) -> Batch:
    """Return this rank's part of a global batch of example numbers.

    Every rank gets one, with the row that counts for nothing where a batch has fewer rows than there are ranks.
    No collective is called.

    Raises:
        ValueError: as `shard_batch`.
    """
    target_tokens = sum(len(corpus[i].target) + 1 for i in batch)
    return collate(corpus, shard_batch(batch, rank, world_size), target_tokens)


def evaluation_batches(
    corpus: Corpus,
    rank: int,
    world_size: int,
    *,
    max_rows: int,
    max_tokens: int,
    target_lengths_N: Tensor | None = None,
) -> Iterator[Batch]:
    """Yield batches that cover each example exactly once over all ranks, longest sources first.

    Every rank gets the same number of batches, with the row that counts for nothing where one would be empty.
    No collective is called.

    Args:
        max_rows: most rows of a batch on one rank.
        max_tokens: most source and target positions of a batch on one rank, EOS and padding counted. An example that
            has more by itself is a batch of its own on its rank.
        target_lengths_N: int64 positions of each example's target; None: those of the corpus, and EOS.

    Raises:
        ValueError: `max_rows` or `max_tokens` is not positive, or as `shard_batch`.
    """
    if max_rows < 1 or max_tokens < 1:
        raise ValueError(f"max_rows and max_tokens must be at least 1, got {max_rows} and {max_tokens}")
    source_N, target_N = (corpus.lengths + 1).unbind(1)
    if target_lengths_N is not None:
        target_N = target_lengths_N
    order = source_N.argsort(descending=True, stable=True)
    rows_of_a_rank = 1 + torch.arange(max_rows * world_size) // world_size
    begin = 0
    while begin < len(order):
        taken = order[begin : begin + len(rows_of_a_rank)]
        positions = source_N[taken[0]] + target_N[taken].cummax(0).values
        fitting = int((rows_of_a_rank[: len(taken)] * positions <= max_tokens).sum())  # a prefix: the product grows
        end = begin + min(len(taken), max(fitting, world_size))
        yield rank_batch(corpus, order[begin:end].tolist(), rank, world_size)
        begin = end


def _within_sources(sources: np.ndarray, begin: int, end: int, most: int) -> int:
    """Return how far from `begin` towards `end` rows go that have at most `most` positions, padded; one always fits."""
    taken = sources[begin:end].astype(np.int64)
    if int(taken.max()) * len(taken) <= most:
        return end
    positions = np.maximum.accumulate(taken) * np.arange(1, len(taken) + 1)
    return begin + max(1, int((positions <= most).sum()))


def _mix(seed: int, epoch: int) -> int:
    """Hash (seed, epoch) to 63 bits: the same in every process, unlike for neighbouring pairs."""
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _pad(rows: list[list[int]]) -> Tensor:
    """[len(rows), longest row] int64, PAD after the end of each row."""
    width = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
