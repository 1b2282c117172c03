"""Batches without examples keep everything but their examples."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from dist_s2s.sharded.companions.empty_batches import describe, emptied, restore


class Pair(NamedTuple):
    ids: Tensor
    texts: list[str]


@dataclass
class Record:
    ids: Tensor
    mask: Tensor | None


IDS = torch.ones(3, 2, dtype=torch.int32)


def same(mine: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor):
        return mine.dtype == expected.dtype and mine.shape == expected.shape
    if isinstance(expected, Record):
        return same(vars(mine), vars(expected))
    if type(mine) is not type(expected):
        return False
    if isinstance(expected, (dict, UserDict)):
        return list(mine) == list(expected) and all(same(mine[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(mine) == len(expected) and all(map(same, mine, expected))
    return mine == expected


EMPTY = torch.ones(0, 2, dtype=torch.int32)
CASES = [
    (IDS, EMPTY),
    ({"ids": IDS, "lengths": [torch.ones(3), None]}, {"ids": EMPTY, "lengths": [torch.ones(0), None]}),
    ((IDS, ["a", "b", "c"]), (EMPTY, [])),
    (([], ()), ([], ())),
]
OTHER_TYPES = [
    (Pair(IDS, ["a"]), Pair(EMPTY, [])),
    (Record(IDS, None), Record(EMPTY, None)),
    (OrderedDict(ids=IDS), OrderedDict(ids=EMPTY)),
    (UserDict(ids=IDS), UserDict(ids=EMPTY)),
]


@pytest.mark.parametrize(("batch", "expected"), CASES + OTHER_TYPES)
def test_examples_are_taken_out(batch: Any, expected: Any):
    assert same(emptied(batch), expected)
    assert IDS.shape == (3, 2)
    assert same(batch, batch)  # the batch itself is left alone


@pytest.mark.parametrize(("batch", "expected"), CASES)
def test_an_empty_batch_can_be_described(batch: Any, expected: Any):
    assert same(restore(describe(emptied(batch))), expected)


@pytest.mark.parametrize("batch", [empty for _, empty in OTHER_TYPES])
def test_a_type_that_others_do_not_know_cannot_be_described(batch: Any):
    with pytest.raises(TypeError, match=rf"cannot make an empty one of type {type(batch).__name__}; pass empty="):
        describe(batch)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (3, "an object of type int"),
        ("text", "an object of type str"),
        (torch.tensor(3), "a tensor without dimensions"),
        (Record, "an object of type type"),
    ],
)
def test_what_may_count_examples_is_not_guessed(part: object, name: str):
    with pytest.raises(TypeError) as error:
        emptied({"ids": IDS, "part": part})
    assert str(error.value) == (
        f"what is {name} in a batch without examples? Pass empty=, a function that returns such a batch"
    )
