"""`dist-s2s probe`, `translate --print_alignment` and `embeddings plot` on a trained run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from dist_s2s import UserError
from dist_s2s.analysis.answers import SavedSide
from dist_s2s.analysis.training_counts import token_counts, word_counts
from dist_s2s.analysis.word_map import map_words
from dist_s2s.cli.pairs import read_pairs
from dist_s2s.config import Config
from dist_s2s.distributed import joined_ranks
from dist_s2s.models import Hypothesis
from dist_s2s.probe import _check_sentences
from dist_s2s.storage.run_files import describe_data, write_run_files
from dist_s2s.text.corpus import PREPARED_MANIFEST, Example
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.token_files import TARGET_COUNTS
from dist_s2s.translation import attention
from dist_s2s.translation.attention import WordAttention, pharaoh
from dist_s2s.translation.runs.load import load_translator
from tests.commands import run
from tests.toy_corpus import PAIRS

SENTENCES = ["我看见猫。", "\ufeff树", "<b>我</b>喜欢树。"]
pytest.importorskip("matplotlib")


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def probed(saved_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed") / "probe"
    data = ("--data", figures_data(folder), "--number", 2, "--beam_size", 2)
    finished = run("dist_s2s.probe", "--run", saved_run, *data, "--output", folder, "--sentence", *SENTENCES)
    assert "48 pairs: BLEU" in finished.output
    assert f"figures and pictures in {folder}" in finished.output
    return folder


def figures_data(folder: Path) -> Path:
    path = folder.parent / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    return path


def test_figures(probed: Path) -> None:
    found = figures(probed)
    errors = found["errors"]
    assert errors["sentences"] == sum(each["sentences"] for each in errors["by_length"]) == len(PAIRS)
    expected = sum(len(target.split()) for _, target in PAIRS)
    for table in ("by_position", "by_frequency"):
        assert sum(each["expected"] for each in errors[table]) == expected
    assert all(each["first"] >= 10 for each in errors["by_frequency"] if each["expected"])  # the corpus is the data
    chrfs = [each["chrf"] for each in found["worst"]]
    assert chrfs == sorted(chrfs)
    assert len(chrfs) == 2


def test_attention_and_its_pictures(probed: Path) -> None:
    found = figures(probed)
    assert [each["sentence"] for each in found["attention"]][:3] == [each.lstrip("\ufeff") for each in SENTENCES]
    assert [each["reference"] for each in found["attention"]][2:4] == [None, found["worst"][0]["reference"]]
    for each in found["attention"]:
        weights = np.array(each["weights"])
        assert weights.shape == (len(each["target"]) + 1, len(each["source"]) + 1)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        assert (probed / each["picture"]).read_bytes().startswith(b"\x89PNG")
    vectors = load_file(probed / "sentences.safetensors")
    assert vectors["mean"].shape == vectors["last"].shape == (len(PAIRS) + len(SENTENCES), 16)
    assert (probed / "sentences.png").is_file()
    assert not list(probed.parent.glob(".*"))


def test_ranks_find_the_same(saved_run: Path, probed: Path, tmp_path: Path) -> None:
    data = ("--data", probed.parent / "pairs.tsv", "--number", 2, "--beam_size", 2)
    run("dist_s2s.probe", "--run", saved_run, *data, "--output", tmp_path / "p", "--sentence", *SENTENCES, ranks=2)
    mine, theirs = figures(probed), figures(tmp_path / "p")
    for one, other in zip(mine.pop("attention"), theirs.pop("attention"), strict=True):
        np.testing.assert_allclose(one.pop("weights"), other.pop("weights"), atol=1e-5)
        assert one == other
    assert mine == theirs
    vectors, others = (load_file(folder / "sentences.safetensors") for folder in (probed, tmp_path / "p"))
    np.testing.assert_allclose(vectors["mean"], others["mean"], atol=1e-5)


def test_translate_prints_the_alignment(saved_run: Path, probed: Path) -> None:
    text = "".join(f"{sentence}\n" for sentence in [*SENTENCES, ""]).encode()
    options = (
        "--beam_size",
        2,
        "--print_alignment",
        "--max_source_tokens",
        30,
    )  # no pieces, of which attention has none
    shown = run("dist_s2s.translate", "--run", saved_run, *options, stdin=text).output
    *lines, empty = shown.splitlines()
    assert empty == ""
    looks = figures(probed)["attention"][: len(SENTENCES)]
    assert looks[0]["target"]
    assert not looks[2]["target"]  # it was translated in pieces there
    for line, each in zip(lines, looks, strict=True):
        words = f"{' '.join(each['source'])} ||| "
        if each["target"]:
            assert line == f"{words}{' '.join(each['target'])} ||| {each['alignment']}"
        else:
            assert line.startswith(words)


def test_weights_of_words() -> None:
    source = TextSide.build(SideSettings("characters"), ["ab 我我"])
    target = TextSide.build(SideSettings("words"), ["x y"])
    example = Example(source.encode("ab我"), target.encode("x y"))
    weights = torch.tensor([[0.3, 0.3, 0.4, 0.0], [0.1, 0.0, 0.5, 0.4], [0.0, 0.0, 0.0, 1.0]])
    found = attention._of_words(example, weights, source, target)
    assert (found.source, found.target) == (["ab", "我"], ["x", "y"])
    np.testing.assert_allclose(found.weights, [[0.6, 0.4, 0], [0.1, 0.5, 0.4], [0, 0, 1]], atol=1e-6)
    assert pharaoh(found.alignment) == "0-0 1-1"
    turned = attention._of_words(Example(example.target, example.source), weights.T, target, source)
    np.testing.assert_allclose(turned.weights[0], [0.3, 0.05, 0], atol=1e-6)  # the mean of two letters
    assert WordAttention([], ["x"], np.ones((2, 1), np.float32)).alignment == []


def test_sentences_that_are_too_long_are_left_out(saved_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_ALIGNED", 30)
    with joined_ranks() as alone:
        translator = load_translator(saved_run, alone)
        sentences = ["我看见猫。", "我看见猫。" * 20]
        found = [Hypothesis([4, 5, 6], 0.0), Hypothesis([4, 5, 6], 0.0)]
        short, long = attention.align(translator, sentences, found)
        assert len(short.alignment) == 3
        assert (long.source, long.target, long.alignment) == (list(sentences[1]), short.target, [])
        assert long.line == f"{' '.join(sentences[1])} ||| {' '.join(short.target)} ||| "
        both = attention.WordAlignment.of_pieces([short, long, short])
        moved = [(mine + 5 + 100, other + 6) for mine, other in short.alignment]
        assert (both.source, both.alignment) == ([*short.source, *long.source, *short.source], short.alignment + moved)


def test_a_word_with_spaces_is_one_field() -> None:
    assert [attention._without_spaces(word) for word in ("a b\u3000c", "", "d")] == ["a_b_c", "_", "d"]


def test_a_model_without_attention_aligns_nothing() -> None:
    config = Config.model_validate({"run_dir": "x", "model": {"attention": "none"}})
    with pytest.raises(UserError, match="this run has no attention"):
        attention.check_attention(SimpleNamespace(config=config))


def test_the_test_data_are_read_as_training_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "swapped.tsv"
    path.write_text("a cat\t猫\nno pair\na tree\t树\n", encoding="utf-8")
    data = {"train": path, "valid": path, "test": path, "columns": "2,1", "skip_bad_lines": True}
    config = Config.model_validate({"run_dir": "x", "data": {key: str(value) for key, value in data.items()}})
    assert read_pairs(None, None, config)[1] == [("猫", "a cat"), ("树", "a tree")]
    named = figures_data(tmp_path / "x")  # says itself which columns are which
    assert read_pairs(str(named), None, config)[1] == PAIRS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe a".decode("utf-8", "surrogateescape"), "half of a surrogate pair, .* UTF-8"),
        ("a\0b", "a NUL character"),
        ("a\nb", "a line break"),
        ("a\r", "a line break"),
        ("", "is blank"),
        (" \u200b\t", "is blank"),
        ("\ufeff", "is blank"),
    ],
)
def test_what_is_no_sentence_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^--sentence: text 2 .*{message}"):
        _check_sentences(["a", text])


def test_mistakes_are_told(saved_run: Path, probed: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (
            ("--run", tmp_path / "no", "--output", tmp_path / "x", "--sentence", "a", "a\nb"),
            "--sentence: text 2 has a line break",
        ),
        (("--run", saved_run, "--output", probed), "exists; give another --output"),
        (("--run", saved_run, "--output", tmp_path / "no" / "x"), "make it first"),
        (("--run", tmp_path, "--output", tmp_path / "x"), "is not a run directory: it has no config.yaml"),
        (("--run", saved_run, "--output", tmp_path / "x", "--data", tmp_path / "x.tsv"), "x.tsv"),
    ):
        errors = run("dist_s2s.probe", *arguments, status=2).errors[0]
        assert message in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_maps(saved_run: Path, tmp_path: Path) -> None:
    plot = ("dist_s2s.embeddings", "--run", saved_run, "plot", "--output")
    shown = run(*plot, tmp_path / "map.html", "--json", tmp_path / "map.json").output
    found = json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))["plot"]
    assert f"{len(found['words'])} words in {tmp_path / 'map.html'}: the plane of most variance of all" in shown
    assert found["frequencies"] == sorted(found["frequencies"], reverse=True)
    assert found["words"][0] in "。老师"
    for name, message in (("map.doc", "no picture is written as .doc; try .png"), ("no/map.png", "make it first")):
        assert message in run(*plot, tmp_path / name, status=2).errors[0]
    assert "needs at least 2 words" in run(*plot, tmp_path / "a.png", "--number", 1, status=2).errors[0]


def test_named_words_lie_in_their_own_plane(saved_run: Path) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    saved = SavedSide.open(saved_run, "target")
    found = map_words(saved, ["cat", "tree", "a cat", "cat"], 300, "pca")
    assert found.words == ["cat", "tree", "a cat"]
    assert found.notes == ["a cat is 2 pieces: a cat; their mean stands for it"]
    expected = decomposition.PCA(2).fit(found.vectors)
    np.testing.assert_allclose(found.places, expected.transform(found.vectors), atol=1e-6)
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, atol=1e-6)
    assert found.frequencies.tolist() == [12, 12, 0]


def counted_run(folder: Path, **data: Path) -> Config:
    """A run's directory that knows of its data; nothing else of a run."""
    named = {key: str(path) for key, path in data.items()}
    manifest = {f"data.{key}": name for key, name in named.items()}
    write_run_files(folder, {}, describe_data(manifest, "phrasebook", lambda name: [data_file(Path(name))]))
    return Config.model_validate({"run_dir": "moved/away", "data": {**named, "target_tokenizer": "words"}})


def data_file(path: Path) -> Path:
    return path / PREPARED_MANIFEST if path.is_dir() else path


def test_counts_of_a_prepared_corpus_are_not_trusted(tmp_path: Path) -> None:
    corpus, side = tmp_path / "corpus", TextSide.build(SideSettings("words"), ["x y"])
    corpus.mkdir()
    (corpus / PREPARED_MANIFEST).write_text("{}")
    config, path = counted_run(tmp_path, train=corpus), corpus / TARGET_COUNTS
    np.save(path, np.arange(6, dtype=np.int32))
    assert token_counts(tmp_path, config, "target", side).tolist() == [0, 1, 2, 3, 4, 5]
    for wrong in (np.arange(5), np.arange(7), np.zeros(6), np.zeros((6, 1), int), np.array(None)):
        np.save(path, wrong)
        with pytest.raises(UserError, match="prepare the corpus again"):
            token_counts(tmp_path, config, "target", side)
    for content in (b"", b"no array", path.read_bytes()[:-3]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="it is no NumPy array"):
            word_counts(tmp_path, config, side)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        token_counts(tmp_path, config, "target", side)
    (corpus / PREPARED_MANIFEST).write_text('{"files": 1}')
    with pytest.raises(UserError, match="are not those that the run was trained on"):
        token_counts(tmp_path, config, "target", side)


def test_counts_of_other_data_are_refused(tmp_path: Path) -> None:
    pairs, side = tmp_path / "pairs.tsv", TextSide.build(SideSettings("words"), ["x y"])
    pairs.write_text("a\tx x\nb\ty\n", encoding="utf-8")
    config = counted_run(tmp_path, train=pairs)
    assert word_counts(tmp_path, config, side) == {"x": 2, "y": 1}
    pairs.write_text("a\tx x\nb\tx\n", encoding="utf-8")
    for count in (lambda: word_counts(tmp_path, config, side), lambda: token_counts(tmp_path, config, "target", side)):
        with pytest.raises(UserError, match="bytes of other content here"):
            count()


def test_pairs_of_another_domain_are_counted(tmp_path: Path) -> None:
    side, prepared = TextSide.build(SideSettings("words"), ["x y"]), tmp_path / "prepared"
    own, mix = tmp_path / "own.tsv", tmp_path / "mix.tsv"
    own.write_text("a\tx x\n", encoding="utf-8")
    mix.write_text("b\tx y\nc\ty\n", encoding="utf-8")
    config = counted_run(tmp_path, train=own, mix=mix)
    assert word_counts(tmp_path, config, side) == {"x": 3, "y": 2}
    assert token_counts(tmp_path, config, "target", side)[side.encode("x y")].tolist() == [3, 2]
    prepared.mkdir()
    (prepared / PREPARED_MANIFEST).write_text("{}")
    np.save(prepared / TARGET_COUNTS, np.full(6, 10))
    config = counted_run(tmp_path, train=prepared, mix=mix)
    assert token_counts(tmp_path, config, "target", side)[side.encode("x y")].tolist() == [11, 12]
