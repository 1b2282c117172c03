"""Keys on tokenizers and vocabularies that must fit each other."""

from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.config import Config, load_config


def test_tags_from_the_command_line_and_from_a_file(tmp_path: Path) -> None:
    assert load_config(None, {"data.tags": "<2en>, >>de<<"}).data.tags == ("<2en>", ">>de<<")
    file = tmp_path / "config.yaml"
    file.write_text("data:\n  tags: [<2en>, '>>de<<']\n", encoding="utf-8")
    config = load_config(file, {})
    assert config.data.tags == ("<2en>", ">>de<<")
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(file, {}) == config != Config()
    assert load_config(file, {"data.tags": "[]"}).data.tags == ()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.tags": "2en"}, r"^data.tags: a tag is ASCII .* but this is '2en' \(command line\)$"),
        ({"data.tags": "<für>"}, "this is '<für>'"),
        ({"data.tags": "<eos>"}, "<eos> has another meaning; choose another tag"),
        ({"data.tags": "<0x4A>"}, "<0x4A> has another meaning"),
        ({"data.tags": "<a> <a>"}, "<a> is given twice"),
        (
            {"data.joint_vocabulary": "true"},
            "^data.joint_vocabulary needs data.source_tokenizer = data.target_tokenizer, but they are characters and w",
        ),
        (
            {
                "data.joint_vocabulary": "true",
                "data.target_tokenizer": "characters",
                "data.target_vocabulary_size": "9",
            },
            "needs data.source_vocabulary_size = data.target_vocabulary_size, but they are null and 9",
        ),
        (
            {"data.target_segmentation": "subword-nmt"},
            "^data.target_segmentation subword-nmt needs data.target_tokenizer whitespace, but it is words$",
        ),
        (
            {"data.tags": "<a> <b>", "data.source_vocabulary_size": "6"},
            "^data.source_vocabulary_size is 6, of which 6 are special tokens and data.tags; give at least 7$",
        ),
        ({"data.bpe_dropout": "0.1"}, "needs data.source_tokenizer or data.target_tokenizer bpe, but they are char"),
        ({"embedding.ngrams": "2,2"}, "^embedding.ngrams: must be lengths from 2 to 8, each once, .* but is '2,2'"),
        ({"embedding.ngrams": "1,2"}, "from 2 to 8"),
        ({"embedding.ngrams": "3.0"}, "from 2 to 8"),
        ({"embedding.ngrams": "2 9"}, "from 2 to 8"),
        ({"embedding.ngram_rows": "1"}, "embedding.ngram_rows must be at least 2, but is 1"),
        ({"data.normalization": "nfd"}, "data.normalization must be one of none, NFC or NFKC, but is 'nfd'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, overrides)


@pytest.mark.parametrize(("given", "kept"), [("2,3", (2, 3)), ("[3, 2]", (3, 2)), ("8", (8,)), ("[]", ())])
def test_lengths_of_ngrams(given: str, kept: tuple[int, ...], tmp_path: Path) -> None:
    config = load_config(None, {"embedding.ngrams": given})
    assert config.embedding.ngrams == kept
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml", {}) == config


@pytest.mark.parametrize(("given", "kept"), [("10:15", "10:15"), ("7", "7:7"), ("null", None)])
def test_steps_of_a_trace(given: str, kept: str | None, tmp_path: Path) -> None:
    """In YAML, 10:15 would be a number in base 60."""
    file = tmp_path / "config.yaml"
    file.write_text(f"training:\n  trace: {given}\n", encoding="utf-8")
    config = load_config(file, {})
    assert config.training.trace == kept == load_config(None, {"training.trace": given}).training.trace
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(file, {}) == config


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("trace", "0:3", "must begin at step 1 or later"),
        ("trace", "5:4", "not end before it begins, but is '5:4'"),
        ("trace", "1:101", "may be 100 steps at most"),
        ("trace", "a:b", "must be FIRST:LAST, such as 100:105, but is 'a:b'"),
        ("trace", "1:2:3", "must be FIRST:LAST"),
        ("trackers", "tensorboard,wandbb", "must be one of .*wandb"),
    ],
)
def test_figures_that_cannot_be_had(key: str, value: str, rule: str) -> None:
    with pytest.raises(UserError, match=rf"^training.{key}:? .*{rule}.*\(command line\)$"):
        load_config(None, {f"training.{key}": value})
