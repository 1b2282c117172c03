"""A rotation with noise is found again, with pairs and without."""

import pytest
import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.analysis.alignment.aligning import align
from dist_s2s.analysis.alignment.anchors import Settings
from dist_s2s.analysis.alignment.learning import (
    SelfLearning,
    frequency_ranks,
    identical_words,
    refine,
    self_learn,
    similar_structure,
)
from dist_s2s.analysis.alignment.mapping import map_rows, procrustes
from dist_s2s.analysis.alignment.normalizing import normalize
from dist_s2s.analysis.alignment.retrieval import Translations
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.analysis.rows import TableRows
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from tests.sharded.reference import random_rows

WORDS, D = 200, 12
ALONE = Ranks.alone()


def vectors(rows: Tensor, letter: str = "a") -> WordVectors:
    table = TableRows.of_table(DistributedEmbedding.from_pretrained(rows.clone(), layout="round_robin"))
    return WordVectors(f"{letter}.vec", [f"{letter}{number}" for number in range(len(rows))], table)


@pytest.fixture
def rotated() -> tuple[WordVectors, WordVectors, Tensor]:
    """Vectors in clusters, the same ones rotated, shuffled and with noise, and which of these belongs to each."""
    clusters = random_rows((8, D), seed=1)[torch.arange(WORDS) % 8]
    rows = random_rows((WORDS, D), seed=2) * torch.linspace(1, 0.2, D) + clusters
    order = torch.randperm(WORDS, generator=torch.Generator().manual_seed(3))
    rotation = torch.linalg.qr(random_rows((D, D), seed=4)).Q
    source, target = vectors(rows), vectors((rows @ rotation + 0.05 * random_rows((WORDS, D), seed=5))[order], "b")
    for side in (source, target):
        normalize(side.rows)
    return source, target, order.argsort()


def share_found(source: WordVectors, target: WordVectors, mapping: Tensor, right: Tensor) -> float:
    found, _ = Translations(map_rows(source.rows, mapping), target.rows).best_targets()
    return float((found == right).double().mean())


def test_pairs_give_the_rotation(rotated: tuple[WordVectors, WordVectors, Tensor]) -> None:
    source, target, right = rotated
    pairs = [(index, int(right[index])) for index in range(40)]
    mapping = procrustes(source.rows, target.rows, pairs)
    torch.testing.assert_close(mapping @ mapping.T, torch.eye(D, dtype=torch.float64))
    assert share_found(source, target, mapping, right) >= 0.99
    few = procrustes(source.rows, target.rows, pairs[:D])
    refined = refine(source, target, few, pairs[:D], rounds=2, words=WORDS)
    assert share_found(source, target, refined, right) >= 0.99


def test_structure_gives_it_without_pairs(rotated: tuple[WordVectors, WordVectors, Tensor]) -> None:
    source, target, right = rotated
    start, said = similar_structure(source, target), list[str]()
    mapping = self_learn(source, target, start, SelfLearning(WORDS, patience=1), said.append)
    assert share_found(source, target, mapping, right) >= 0.95
    assert said[0].endswith("10% of all pairs: mean similarity " + said[0][-6:])


def test_self_learning_mends_a_poor_start(rotated: tuple[WordVectors, WordVectors, Tensor]) -> None:
    source, target, right = rotated
    start = [(index, int(right[index]) if index % 3 else index) for index in range(WORDS)]
    begun = share_found(source, target, procrustes(source.rows, target.rows, start), right)
    mapping = self_learn(source, target, start, SelfLearning(WORDS, patience=1), lambda _: None)
    assert share_found(source, target, mapping, right) >= max(0.99, begun)


def test_other_starts() -> None:
    source, target = vectors(torch.eye(3)), vectors(torch.eye(4))
    assert identical_words(source, target) == [(0, 0), (1, 1), (2, 2)]
    assert frequency_ranks(source, target, 2) == [(0, 0), (1, 1)]


def test_what_cannot_be_aligned() -> None:
    eye = torch.eye(3)
    for source, target, message in (
        (vectors(eye), vectors(torch.eye(2), "b"), "the vectors of a.vec have 3 numbers, but those of b.vec have 2"),
        (vectors(eye * 0), vectors(eye, "b"), "a.vec: none of its 3 vectors has a direction"),
        (vectors(eye), vectors(eye * torch.nan, "b"), "b.vec: none of its 3 vectors has a direction"),
    ):
        with pytest.raises(UserError) as caught:
            align(source, target, Settings(), ALONE, lambda _: None)
        assert str(caught.value).startswith(message)
    with pytest.raises(UserError, match=r"a.vec and b.vec have no word in common; choose another --start"):
        align(vectors(eye), vectors(eye, "b"), Settings(start="identical"), ALONE, lambda _: None)
