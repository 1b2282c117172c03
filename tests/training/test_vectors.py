"""Tables that begin with word vectors, on one rank and on several."""

from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding, SparseSGD
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vectors import reading
from dist_s2s.text.vectors.writing import write_word2vec
from dist_s2s.text.vocabulary import PAD, SPECIALS, Vocabulary
from dist_s2s.training.events import PhaseBegin
from dist_s2s.training.vectors import read_vectors
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble

WORDS = [f"w{number}" for number in range(127)]
COVERED = WORDS[::2]
V = len(SPECIALS) + len(WORDS)


def vectors_of(dim: int, scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(dim).normal(size=(len(COVERED), dim))).astype(np.float32)


def vector_file(folder: Path, dim: int, binary: bool = False) -> Path:
    path = folder / f"vectors-{dim}"
    write_word2vec(path, COVERED, dim, iter([vectors_of(dim)]), binary)
    return path


def begin(
    group: dist.ProcessGroup | None, path: str, layout: str, settings: dict[str, object], resuming: bool = False
) -> tuple[Tensor, Tensor, list[str]]:
    """A rank's rows before and after, of a file that is read in many blocks.

    The target table has none of the file's words, and no file.
    """
    rank, size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    ranks = Ranks(rank, size, torch.device("cpu"), group)
    table = DistributedEmbedding(V, 6, PAD, layout=layout, process_group=group, seed=1, init_std=0.5)
    side = TextSide(WhitespaceTokenizer(), Vocabulary([*SPECIALS, *WORDS]))
    config = Config.model_validate({"data": {"source_vectors": path}, "embedding": settings})
    translator = SimpleNamespace(source=side, target=side, source_table=table, target_table=table, ranks=ranks)
    before, said = table.weight.detach().clone(), []
    with mock.patch.object(reading, "_BLOCK_BYTES", 200):
        frozen = read_vectors(config, translator, said.append, resuming=resuming)
    after = table.weight.detach().clone()
    if settings.get("freeze_vectors"):
        optimizer = SparseSGD([table.weight], lr=1.0)
        table(torch.arange(V)).sum().backward()
        frozen(PhaseBegin("clip"))
        assert table.weight.grad.is_coalesced()
        optimizer.step()
        moved = (table.weight.detach() != after).any(dim=1)
        return before, moved, said
    assert frozen is None
    return before, after, said


IDS = torch.tensor([len(SPECIALS) + WORDS.index(word) for word in COVERED])


def whole(group_results: list[tuple[Tensor, Tensor, list[str]]], layout: str) -> tuple[Tensor, Tensor]:
    before, after, _ = zip(*group_results, strict=True)
    return assemble(before, layout), assemble(after, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("world_size", "binary"), [(2, False), (3, True)])
def test_rows_begin_with_the_vectors(
    ranks: RankPool, tmp_path: Path, world_size: int, binary: bool, layout: str
) -> None:
    results = ranks.run(begin, str(vector_file(tmp_path, 6, binary)), layout, {}, world_size=world_size)
    before, after = whole(results, layout)
    assert torch.equal(after[IDS], torch.from_numpy(vectors_of(6)))
    others = torch.ones(V, dtype=torch.bool)
    others[IDS] = False
    std = float(torch.from_numpy(vectors_of(6)).double().square().mean().sqrt())
    torch.testing.assert_close(after[others], before[others] * (std / 0.5))
    assert not after[PAD].any()
    assert len({str(said) for _, _, said in results}) == 1
    assert "64 of 127 tokens (50.4%) are among its 64 words" in results[0][2][0]


def test_uncovered_rows_have_the_scale_that_is_asked_for(tmp_path: Path) -> None:
    before, after, _ = begin(None, str(vector_file(tmp_path, 6)), "contiguous", {"uncovered_std": 0.25})
    torch.testing.assert_close(after[len(SPECIALS) + 1], before[len(SPECIALS) + 1] / 2)


@pytest.mark.parametrize("dim", [4, 9])
def test_another_dimension_is_projected_alike_on_every_rank(ranks: RankPool, tmp_path: Path, dim: int) -> None:
    path, given = str(vector_file(tmp_path, dim)), torch.from_numpy(vectors_of(dim)).double()
    _, after = whole(ranks.run(begin, path, "round_robin", {"project_vectors": True}, world_size=2), "round_robin")
    _, alone, _ = begin(None, path, "contiguous", {"project_vectors": True})
    torch.testing.assert_close(after.abs(), alone.abs(), rtol=0, atol=1e-5)
    found = after[IDS].double()
    if dim < 6:
        assert torch.equal(found[:, :dim], given)
        assert not found[:, dim:].any()
    else:  # the best approximation of rank 6 keeps these products
        left, singular, _ = torch.linalg.svd(given, full_matrices=False)
        best = left[:, :6] * singular[:6]
        torch.testing.assert_close(found @ found.t(), best @ best.t(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("resuming", [False, True])
def test_frozen_rows_stay(ranks: RankPool, tmp_path: Path, resuming: bool) -> None:
    path = str(vector_file(tmp_path, 6))
    results = ranks.run(begin, path, "contiguous", {"freeze_vectors": True}, resuming, world_size=2)
    _, moved = whole(results, "contiguous")
    expected = torch.ones(V, dtype=torch.bool)
    expected[[PAD, *IDS.tolist()]] = False
    assert torch.equal(moved, expected)


def begin_wrongly(group: dist.ProcessGroup, path: str) -> str:
    with pytest.raises(UserError) as error:
        begin(group, path, "contiguous", {})
    return str(error.value)


def test_what_does_not_fit_is_the_same_error_on_every_rank(ranks: RankPool, tmp_path: Path) -> None:
    wide, foreign = vector_file(tmp_path, 9), tmp_path / "foreign"
    foreign.write_text("".join(f"x{number} 1 2 3 4 5 6\n" for number in range(9)))
    spoilt = tmp_path / "spoilt"
    spoilt.write_text("w0 1 2 3 4 5 6\nw126 1 2 3 4 5 nan\n")  # a word of the last rank
    for path, message in (
        (wide, "have 9 numbers, but model.embedding_dim is 6; set it to 9, or embedding.project_vectors to true"),
        (foreign, "none of 9 words of"),
        (spoilt, "line 2: the word 'w126' has nan as number 6 of its vector"),
    ):
        first, second = ranks.run(begin_wrongly, str(path), world_size=2)
        assert first == second
        assert message in first


def test_ranks_that_see_other_files_are_told(ranks: RankPool, tmp_path: Path) -> None:
    for rank, dim in enumerate((6, 9)):
        (tmp_path / str(rank)).mkdir()
        vector_file(tmp_path / str(rank), dim).rename(tmp_path / str(rank) / "vectors")
    first, second = ranks.run(begin_elsewhere, str(tmp_path), world_size=2)
    assert first == second
    assert "text, 6 numbers a word on rank 0, but text, 9 numbers a word on rank 1" in first


def begin_elsewhere(group: dist.ProcessGroup, folder: str) -> str:
    with chdir(Path(folder) / str(dist.get_rank(group))):
        return begin_wrongly(group, "vectors")


def test_the_first_of_equal_words_counts(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    lines = ["W2 9 9 9 9 9 9", "w1 1 1 1 1 1 1", "w2 2 2 2 2 2 2", *["other 0 0 0 0 0 0"] * 40, "w1 3 3 3 3 3 3"]
    path.write_text("\n".join(lines), encoding="utf-8")
    _, after, said = begin(None, str(path), "contiguous", {})
    assert after[[len(SPECIALS) + 1, len(SPECIALS) + 2], 0].tolist() == [1, 2]
    assert "2 of 127 tokens (1.6%) are among its 44 words" in said[0]
    assert "1 word occurs again, such as 'w1' in line 44; the first one counts" in said[0]


def test_settings_of_vectors_need_vectors() -> None:
    with pytest.raises(
        ValueError, match=r"without data.source_vectors or data.target_vectors, leave out embedding.freeze_vectors"
    ):
        Config.model_validate({"embedding": {"freeze_vectors": True}})
