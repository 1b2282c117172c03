"""Principal axes on any number of ranks and in both layouts are scikit-learn's; maps hold what they should."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dist_s2s import UserError, embeddings
from dist_s2s.analysis import word_map
from dist_s2s.analysis.fonts import fonts_for
from dist_s2s.analysis.map_page import write_page
from dist_s2s.analysis.map_picture import _overlaps, draw_map, place_labels
from dist_s2s.analysis.projection import PrincipalAxes, axes_of_table, axes_of_vectors, tsne
from dist_s2s.analysis.rows import TableRows
from dist_s2s.analysis.word_map import WordMap, write_parquet
from dist_s2s.sharded import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, random_rows

LEFT_OUT = range(4)
WHOLE = random_rows((131, 6), seed=1) * torch.tensor([3, 1, 2, 0.5, 0.2, 0.1]) + 40
WHOLE[20, 1], WHOLE[21] = torch.nan, torch.inf
COUNTED = WHOLE[[*range(4, 20), *range(22, 131)]]


def look(group: dist.ProcessGroup) -> list[PrincipalAxes]:
    tables = [DistributedEmbedding.from_pretrained(WHOLE, process_group=group, layout=layout) for layout in LAYOUTS]
    return [axes_of_table(TableRows.of_table(table), 3, LEFT_OUT) for table in tables]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_axes_of_a_table_are_those_of_scikit_learn(world_size: int, ranks: RankPool) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    first, *others = ranks.run(look, world_size=world_size)
    for found in first:
        check(found, decomposition.PCA(3).fit(COUNTED.numpy()), COUNTED)
        assert found.number == len(COUNTED)
    for other in others:
        assert all(torch.equal(mine.axes, found.axes) for mine, found in zip(other, first, strict=True))


def check(found: PrincipalAxes, expected: object, vectors: torch.Tensor) -> None:
    for mine, name in (
        (found.mean, "mean_"),
        (found.axes, "components_"),
        (found.variances, "explained_variance_"),
        (found.shares, "explained_variance_ratio_"),
    ):
        np.testing.assert_allclose(mine, getattr(expected, name), atol=1e-6)
    np.testing.assert_allclose(found.project(vectors), expected.transform(vectors.numpy()), atol=1e-6)


def test_axes_of_few_vectors() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    check(axes_of_vectors(COUNTED[:4], 3), decomposition.PCA(3).fit(COUNTED[:4].numpy()), COUNTED[:4])
    flat = axes_of_vectors(torch.ones(3, 1))  # no variance, and one dimension
    assert flat.shares.tolist() == [0, 0]
    assert flat.project(torch.ones(3, 1)).tolist() == [[0, 0]] * 3
    empty = TableRows.of_table(DistributedEmbedding.from_pretrained(WHOLE[20:22]))
    assert axes_of_table(empty).shares.tolist() == [0, 0]


def test_tsne() -> None:
    pytest.importorskip("sklearn")
    centres = torch.eye(4, dtype=torch.float64)[[0] * 8 + [1] * 8]
    places = tsne(centres + random_rows((16, 4), seed=2) * 0.01)
    between = (places[:8].mean(0) - places[8:].mean(0)).norm()
    assert between > 2 * max(places[:8].std(0).max(), places[8:].std(0).max())
    with pytest.raises(UserError, match="t-SNE needs at least 4 words, but there are 3; take --method pca"):
        tsne(centres[:3])


def test_labels_lie_beside_their_points_and_not_on_each_other() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 400, size=(150, 2))
    sizes = np.stack([rng.uniform(10, 60, 150), np.full(150, 12.0)], axis=1)
    sizes[7] = 0
    boxes = place_labels(points, sizes, (0, 0, 400, 400))
    shown = np.flatnonzero(~np.isnan(boxes[:, 0]))
    assert 30 < len(shown) < 150
    assert 7 not in shown
    for place in shown:
        assert _overlaps(boxes[place], boxes[shown]).sum() == 1  # itself
        left, bottom, right, top = boxes[place]
        assert left >= 0 <= bottom
        assert max(right, top) <= 400
        nearest = np.clip(points[place], (left, bottom), (right, top))
        assert np.linalg.norm(nearest - points[place]) <= 6


EVIL = ["</script><script>alert(1)</script>", "猫", "<!--", "$a_1$"]


def words() -> WordMap:
    rng = np.random.default_rng(0)
    frequencies = np.array([5, 3, 2, 0])
    return WordMap(EVIL, rng.normal(size=(4, 2)), rng.normal(size=(4, 3)), frequencies, None, "how", [])


def test_page_holds_words_as_data_alone(tmp_path: Path) -> None:
    write_page(words(), "a <b> title", tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    text = page.split('type="application/json">')[1].split("</script>")[0]
    data = json.loads(text)
    assert (data["words"], data["title"]) == (EVIL, "a <b> title")
    vectors = words().vectors / np.linalg.norm(words().vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T - 2 * np.eye(4)
    assert data["neighbours"] == np.argsort(-cosines, axis=1)[:, :3].tolist()


def test_parquet_has_the_columns_of_embedding_atlas(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(words(), tmp_path / "map.parquet")
    table = parquet.read_table(tmp_path / "map.parquet").to_pydict()
    assert list(table) == ["text", "x", "y", "vector", "frequency"]
    assert (table["text"], table["frequency"]) == (EVIL, [5, 3, 2, 0])
    np.testing.assert_allclose(table["vector"], words().vectors, atol=1e-6)
    np.testing.assert_allclose(np.stack([table["x"], table["y"]], axis=1), words().places)


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_picture(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    told = draw_map(words().places, EVIL, "title", "how", tmp_path / name, equal=name == "a.png")
    assert bool(told) == bool(fonts_for(EVIL, "labels")[1])  # not every machine has a font for 猫
    assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "start", "module"),
    [
        ("a.HTML", b"<!", "json"),
        ("a.Parquet", b"PAR1", "pyarrow"),
        ("a.PNG", b"\x89PNG", "matplotlib"),
        ("a.webp", b"RIFF", "matplotlib"),
    ],
)
def test_suffixes_say_what_is_written(
    name: str, start: bytes, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(module)
    monkeypatch.setattr(word_map, "map_words", lambda *_: words())
    plot(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pgf", r"a\.pgf: no picture is written as \.pgf; try \.png"),
        ("a.RAW", r"no picture is written as \.RAW"),
        ("a", "no picture is written without a suffix"),
        ("a.png", r"a map needs the extra \"analysis\""),
        ("a.PARQUET", r"writing Parquet needs the extra \"parquet\""),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_map, "map_words", lambda *_: pytest.fail("the map was made"))
    for module in ("matplotlib", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=message):
        plot(tmp_path / name)


def plot(output: Path) -> None:
    saved: Any = SimpleNamespace(name="source")
    embeddings._plot(saved, Namespace(output=output, run="run", words=[], number=4, method="pca"))
