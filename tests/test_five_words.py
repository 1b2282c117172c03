"""我 爱 自然 语言 处理: the example that the project began with, on the parts of a real translator."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from dist_s2s.analysis.fonts import fonts_for
from dist_s2s.analysis.map_picture import draw_map
from dist_s2s.analysis.projection import axes_of_vectors
from dist_s2s.analysis.rows import TableRows
from dist_s2s.config import Config
from dist_s2s.models import LSTMEncoderDecoder
from dist_s2s.models.attention import make_attention
from dist_s2s.sharded import (
    DistributedEmbedding,
    RowWiseAdagrad,
    RowWiseAdam,
    SparseAdagrad,
    SparseAdam,
    SparseSGD,
)
from dist_s2s.text.vocabulary import PAD, SPECIALS, Vocabulary
from dist_s2s.training.parameters import list_parameters
from dist_s2s.translation.model import make_model
from tests.commands import ROOT

CHINESE = ["我", "爱", "自然", "语言", "处理"]
ENGLISH = ["I", "love", "natural", "language", "processing"]
D, H = 64, 128
SOURCE, TARGET = Vocabulary.build([CHINESE]), Vocabulary.build([ENGLISH])
IDS = torch.tensor(SOURCE.encode(CHINESE))


def count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def lstm(inputs: int, units: int) -> int:
    """The parameters of an LSTM: four gates, each with a matrix for the input, one for the state, and two biases."""
    return 4 * units * (inputs + units + 2)


def test_the_words_have_the_ids_after_the_special_ones() -> None:
    assert sorted(IDS.tolist()) == [4, 5, 6, 7, 8]
    assert len(SOURCE) == len(TARGET) == len(SPECIALS) + 5
    assert SOURCE.decode(IDS.tolist()) == CHINESE


def test_similarity_matrix() -> None:
    table = DistributedEmbedding(len(SOURCE), D, padding_idx=PAD, seed=0, dtype=torch.float64)
    unit = nn.functional.normalize(table(IDS).detach())
    similarity = unit @ unit.T

    vectors = table.weight.detach().numpy()[SOURCE.encode(CHINESE)]
    norms = np.sqrt((vectors**2).sum(axis=1))
    expected = vectors @ vectors.T / np.outer(norms, norms)
    np.testing.assert_allclose(similarity.numpy(), expected, atol=1e-12)
    of_pairs = torch.cosine_similarity(table(IDS)[:, None], table(IDS)[None], dim=2)  # as the course notes have it
    torch.testing.assert_close(similarity, of_pairs.detach())
    assert (similarity - torch.eye(5)).abs().max() < 0.5  # untrained: as unlike as random vectors are


def test_context_vector_holds_the_last_states_of_both_directions() -> None:
    table = DistributedEmbedding(len(SOURCE), D, padding_idx=PAD, dtype=torch.float64)
    model = LSTMEncoderDecoder(nn.Identity(), D, H, attention="none").double()
    both = nn.LSTM(D, H // 2, batch_first=True, bidirectional=True, dtype=torch.float64)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    encoder = model.encoder
    with torch.no_grad():
        for name in names:
            getattr(both, name).copy_(getattr(encoder.forward_layers[0], name))
            getattr(both, f"{name}_reverse").copy_(getattr(encoder.backward_layers[0], name))

    padded = torch.tensor([[*IDS.tolist(), PAD, PAD]])
    encoding, _ = model.encode(table(padded), torch.tensor([5]))
    _, (last_states, _) = both(table(IDS[None]))
    torch.testing.assert_close(encoding.summary_BH, torch.cat((last_states[0], last_states[1]), dim=1))
    contexts = make_attention("none", H)(torch.randn(1, 3, H), encoding)
    assert torch.equal(contexts, encoding.summary_BH[:, None].expand(1, 3, H))


@pytest.mark.parametrize("sizes", [(D, H), (6, 10)])
def test_parameters_are_as_many_as_the_formula_says(sizes: tuple[int, int], tmp_path: Path) -> None:
    dim, units = sizes
    config = Config.model_validate({"run_dir": tmp_path, "model": {"embedding_dim": dim, "hidden_size": units}})
    tables = {
        "source_table": DistributedEmbedding(len(SOURCE), dim, padding_idx=PAD),
        "target_table": DistributedEmbedding(len(TARGET), dim, padding_idx=PAD),
    }
    core = make_model(config, nn.Linear(units, len(TARGET)))

    assert [table.weight.numel() for table in tables.values()] == [9 * dim, 9 * dim]
    bridge, combine, output = units * (units + 1), units * (2 * units + 1), 9 * (units + 1)
    expected = 2 * lstm(dim, units // 2) + bridge + lstm(dim, units) + combine + output
    assert count(core.parameters()) == expected
    listed = list_parameters(core, tables, world_size=1)
    assert sum(parameter.bytes_in_all for parameter in listed) == 4 * (expected + 2 * 9 * dim)


def test_the_theory_page_counts_what_the_notes_describe() -> None:
    encoder = nn.ModuleList([nn.Embedding(15, D), nn.LSTM(D, H)])
    decoder = nn.ModuleList([nn.Embedding(17, D), nn.LSTM(D, H), nn.Linear(H, 17)])
    counts = [count(encoder.parameters()), count(decoder.parameters())]
    assert counts == [15 * D + lstm(D, H), 17 * D + lstm(D, H) + 17 * (H + 1)]
    for page in ("theory.md", "theory.zh-CN.md"):
        corrections = (ROOT / "docs" / page).read_text("utf-8").rpartition("\n## ")[2]
        assert all(f"{number:,}" in corrections for number in [*counts, sum(counts)])


def second_step(table: nn.Module, optimizer: Optimizer) -> tuple[Tensor, Tensor]:
    """Train on 我 爱, then on 自然 语言 处理; return the rows of 我 爱 before and after the second step."""
    first, second = IDS[:2], IDS[2:]
    for ids in (first, second):
        before = table.weight.detach().clone()
        optimizer.zero_grad()
        table(ids).square().sum().backward()
        optimizer.step()
        assert (table.weight[ids] != before[ids]).all()
    return before[first], table.weight.detach()[first]


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: SparseSGD(weights, lr=0.1, momentum=0.9),
        lambda weights: SparseAdagrad(weights, weight_decay=0.1),
        RowWiseAdagrad,
        SparseAdam,
        lambda weights: RowWiseAdam(weights, weight_decay=0.1),
    ],
    ids=["SparseSGD", "SparseAdagrad", "RowWiseAdagrad", "SparseAdam", "RowWiseAdam"],
)
def test_rows_outside_the_batch_stay_bit_identical(make: Callable[[list[Tensor]], Optimizer]) -> None:
    table = DistributedEmbedding(len(SOURCE), D, padding_idx=PAD)
    before, after = second_step(table, make([table.weight]))
    assert torch.equal(before, after)
    assert not table.weight[PAD].any()


def test_a_dense_adam_moves_rows_outside_the_batch() -> None:
    table = nn.Embedding(len(SOURCE), D, padding_idx=PAD)
    before, after = second_step(table, Adam([table.weight]))
    assert (before != after).all()


def test_picture_of_the_principal_components(tmp_path: Path) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    pytest.importorskip("matplotlib")
    table = DistributedEmbedding(len(SOURCE), D, padding_idx=PAD, seed=0, dtype=torch.float64)
    vectors = TableRows.of_table(table).fetch(IDS)
    axes = axes_of_vectors(vectors)
    expected = decomposition.PCA(2).fit(vectors.numpy())
    np.testing.assert_allclose(axes.project(vectors), expected.transform(vectors.numpy()), atol=1e-6)
    np.testing.assert_allclose(axes.shares, expected.explained_variance_ratio_, atol=1e-6)
    how = f"{axes.shares.sum():.1%} of the variance"
    told = draw_map(axes.project(vectors).numpy(), CHINESE, "五个词", how, tmp_path / "words.png", equal=True)
    assert bool(told) == bool(fonts_for([*CHINESE, "五个词"], "labels")[1])  # not every machine has Chinese fonts
    assert (tmp_path / "words.png").read_bytes().startswith(b"\x89PNG")
