import random
from functools import partial
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s.text.batches import (
    SOURCES_PER_TARGET,
    collate,
    evaluation_batches,
    global_batches,
    rank_batch,
    shard_batch,
)
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.vocabulary import EOS, PAD, SOS

lengths = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=60)
worlds = st.integers(1, 5)


def make_examples(sizes):
    return ExampleList(Example([4 + i] * source, [5 + i] * target) for i, (source, target) in enumerate(sizes))


def random_examples(count, seed=0):
    """Examples with the long-tailed lengths of a real corpus; target length follows source length loosely."""
    rng = random.Random(seed)
    sizes = []
    for _ in range(count):
        source = 1 + int(rng.gammavariate(4, 3))
        sizes.append((source, max(1, round(source * rng.uniform(0.5, 1.1)))))
    return make_examples(sizes)


def tokens_of(examples, batch):
    return sum(len(examples[i].target) + 1 for i in batch)


@given(lengths, st.integers(1, 50), st.integers(0, 2**63), st.integers(0, 1000))
def test_every_example_occurs_once_and_batches_keep_to_the_token_limit(sizes, batch_tokens, seed, epoch):
    examples = make_examples(sizes)
    batches = global_batches(examples, batch_tokens, seed, epoch)
    assert sorted(chain.from_iterable(batches)) == list(range(len(examples)))
    assert all(batch and (len(batch) == 1 or tokens_of(examples, batch) <= batch_tokens) for batch in batches)


def test_batches_are_a_function_of_seed_and_epoch():
    examples = random_examples(500)
    assert global_batches(examples, 200, 1, 2) == global_batches(examples, 200, 1, 2)
    plans = [global_batches(examples, 200, seed, epoch) for seed in range(3) for epoch in range(3)]
    contents = [{frozenset(batch) for batch in plan} for plan in plans]
    assert all(a != b for i, a in enumerate(contents) for b in contents[:i])


def test_the_order_of_an_epoch_stays_the_same_from_version_to_version():
    """A run resumes at a position in this order, so a change here loses or repeats sentences of old runs."""
    examples = make_examples([(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 2), (7, 3), (8, 4)])
    assert global_batches(examples, 9, seed=3, epoch=1) == [[3], [6, 7], [5, 2], [0, 4, 1]]


def test_batches_are_full():
    examples = random_examples(5000)
    sizes = sorted(tokens_of(examples, batch) for batch in global_batches(examples, 1000, 0, 0))
    longest = max(len(example.target) + 1 for example in examples)
    assert sizes[1] > 1000 - longest  # all but the last one, which takes what is left


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_less_than_a_tenth_is_padding(world_size):
    examples = random_examples(20_000)
    whole = global_batches(examples, 2000, 0, 0)
    batches = [rank_batch(examples, batch, r, world_size) for r in range(world_size) for batch in whole]
    for sides in (["source"], ["target_out"], ["source", "target_out"]):
        tensors = [getattr(batch, side) for batch in batches for side in sides]
        assert sum(int((ids == PAD).sum()) for ids in tensors) / sum(ids.numel() for ids in tensors) < 0.10


def test_companions_change_from_epoch_to_epoch():
    examples = random_examples(20_000)
    first, second = (global_batches(examples, 2000, 0, epoch) for epoch in (0, 1))
    home = {i: set(batch) for batch in second for i in batch}
    kept = sum(len(home[i].intersection(batch)) - 1 for batch in first for i in batch)
    assert kept / sum(len(batch) * (len(batch) - 1) for batch in first) < 0.6


def test_batches_of_one_length_do_not_follow_each_other():
    examples = random_examples(20_000)
    means = [tokens_of(examples, b) / len(b) for b in global_batches(examples, 2000, 0, 0)]
    correlation = torch.corrcoef(torch.tensor([means[:-1], means[1:]]))[0, 1]
    assert abs(correlation) < 0.35


@given(st.lists(st.integers()), worlds)
def test_shards_cover_a_batch_with_equal_rows_to_within_one(batch, world_size):
    shards = [shard_batch(batch, rank, world_size) for rank in range(world_size)]
    assert sorted(chain.from_iterable(shards)) == sorted(batch)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_outside_the_world_is_refused(rank):
    with pytest.raises(ValueError, match=rf"rank must be in range\(2\), got {rank}"):
        shard_batch([0, 1], rank, 2)


def test_collate_pads_and_shifts():
    examples = [Example([7], [8, 9]), Example([4, 5, 6], [4])]
    batch = collate(examples, [1, 0], global_target_tokens=17)
    assert batch.source.tolist() == [[4, 5, 6, EOS], [7, EOS, PAD, PAD]]
    assert batch.source_lengths.tolist() == [4, 2]
    assert batch.source_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.target_in.tolist() == [[SOS, 4, PAD], [SOS, 8, 9]]
    assert batch.target_out.tolist() == [[4, EOS, PAD], [8, 9, EOS]]
    assert batch.global_target_tokens == 17
    assert batch.indices == [1, 0]
    tensors = (batch.source, batch.source_lengths, batch.target_in, batch.target_out)
    assert all(tensor.dtype == torch.int64 for tensor in tensors)


def test_collate_of_nothing_is_a_row_that_counts_for_nothing():
    batch = collate([Example([7], [8])], [], global_target_tokens=2)
    assert batch.source.tolist() == [[EOS]]
    assert batch.source_lengths.tolist() == [1]
    assert batch.target_in.tolist() == [[SOS]]
    assert batch.target_out.tolist() == [[PAD]]
    assert batch.indices == []


def test_to_moves_every_tensor():
    batch = collate([Example([7], [8])], [0], global_target_tokens=2).to("meta")
    tensors = (batch.source, batch.source_lengths, batch.source_mask, batch.target_in, batch.target_out)
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert batch.indices == [0]


def assert_ranks_agree(examples, by_rank):
    """Same steps on every rank, each example once, and a token count that is that of all ranks together."""
    for step in zip(*by_rank, strict=True):
        tokens = sum(int((batch.target_out != PAD).sum()) for batch in step)
        assert {batch.global_target_tokens for batch in step} == {tokens}
    seen = [index for batches in by_rank for batch in batches for index in batch.indices]
    assert sorted(seen) == list(range(len(examples)))


@given(lengths, st.integers(1, 50), worlds)
def test_rank_batches_together_are_the_global_batches(sizes, batch_tokens, world_size):
    examples = make_examples(sizes)
    whole = global_batches(examples, batch_tokens, 5, 6)
    by_rank = [[rank_batch(examples, batch, r, world_size) for batch in whole] for r in range(world_size)]
    assert_ranks_agree(examples, by_rank)
    steps = [sorted(i for batch in step for i in batch.indices) for step in zip(*by_rank, strict=True)]
    assert steps == [sorted(batch) for batch in whole]


def test_global_batches_refuse_impossible_numbers():
    with pytest.raises(ValueError, match="must be at least 1"):
        global_batches(random_examples(3), 0, 0, 0)


@given(lengths, st.integers(1, 20), st.integers(1, 100), worlds)
def test_evaluation_covers_each_example_once_in_equal_steps(sizes, rows, tokens, world_size):
    examples = make_examples(sizes)
    plan = partial(evaluation_batches, examples, world_size=world_size, max_rows=rows, max_tokens=tokens)
    by_rank = [list(plan(r)) for r in range(world_size)]
    assert_ranks_agree(examples, by_rank)
    for batch in chain.from_iterable(by_rank):
        assert len(batch.indices) <= rows
        assert len(batch.indices) <= 1 or batch.source.numel() + batch.target_in.numel() <= tokens


def test_one_long_example_does_not_widen_the_others():
    sizes = [(2, 3)] * 200 + [(3000, 2), (2, 2900)]
    batches = list(evaluation_batches(make_examples(sizes), 0, 1, max_rows=64, max_tokens=16384))
    assert [len(batch.indices) for batch in batches][:2] == [5, 64]  # with a source of 3,000, five fit
    assert all(batch.source.numel() + batch.target_in.numel() <= 16384 for batch in batches)
    assert sum(batch.source.numel() + batch.target_in.numel() for batch in batches) < 40_000


def test_lengths_of_targets_that_are_yet_to_be_found_count():
    examples = make_examples([(5, 0)] * 12)
    limits = torch.full((12,), 14)
    batches = evaluation_batches(examples, 0, 1, max_rows=64, max_tokens=100, target_lengths_N=limits)
    assert [len(batch.indices) for batch in batches] == [5, 5, 2]


def test_long_sources_with_short_targets_do_not_fill_a_training_batch():
    examples = make_examples([(99, 1)] * 1000 + [(5, 4)] * 10)
    batches = global_batches(examples, 2000, 0, 0)
    assert max(sum(len(examples[i].source) + 1 for i in batch) for batch in batches) <= SOURCES_PER_TARGET * 2000
    assert sorted(chain.from_iterable(batches)) == list(range(1010))
    assert len(batches) < 10


def test_evaluation_takes_the_longest_sources_first():
    examples = random_examples(100)
    order = [i for batch in evaluation_batches(examples, 0, 1, max_rows=8, max_tokens=10_000) for i in batch.indices]
    sources = [len(examples[i].source) for i in order]
    assert sources == sorted(sources, reverse=True)


def test_evaluation_refuses_an_empty_batch():
    with pytest.raises(ValueError, match="max_rows and max_tokens must be at least 1, got 0 and 9"):
        next(evaluation_batches(random_examples(3), 0, 1, max_rows=0, max_tokens=9))


class Counted:
    """A corpus that keeps nothing in memory, and counts what is read of it."""

    def __init__(self, examples):
        self.examples, self.read = examples, 0

    @property
    def lengths(self):
        return self.examples.lengths

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        self.read += 1
        return self.examples[index]


def test_any_corpus_will_do_and_planning_an_epoch_reads_no_examples():
    examples = random_examples(50)
    corpus = Counted(examples)
    batches = global_batches(corpus, 200, 0, 0)
    assert batches == global_batches(examples, 200, 0, 0)
    assert corpus.read == 0
    assert torch.equal(rank_batch(corpus, batches[0], 0, 1).source, rank_batch(examples, batches[0], 0, 1).source)
    plan = partial(evaluation_batches, rank=0, world_size=2, max_rows=8, max_tokens=500)
    pairs = zip(plan(corpus), plan(examples), strict=True)
    assert all(one.indices == other.indices for one, other in pairs)
