"""What a run decides for itself when it starts."""

from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks
from dist_s2s.text.building import build_sides
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.side import SideSettings
from dist_s2s.training.data import RunData
from dist_s2s.training.settle import score_warning, settle

ALONE = Ranks.alone()


def make_data(references: list[str]) -> RunData:
    pairs = [("a b", reference) for reference in references]
    source, target = build_sides(SideSettings("words"), SideSettings("characters"), pairs)
    train = ExampleList([Example([4] * 3, [4] * 12)])
    return RunData(source, target, train, train, pairs, pairs, 0)


def checkpoint_of(config: Config, folder: Path) -> Path:
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    return folder / "checkpoints" / "step-1"


def test_nothing_is_left_open(tmp_path: Path) -> None:
    settled = settle(Config(), None, None, make_data(["我看见猫。"]), ALONE)
    assert (settled.model.output, settled.training.bleu_tokenizer) == ("replicated", "zh")
    translation = settled.translation
    assert (translation.length_factor, translation.extra_length, translation.max_source_tokens) == (4.88, 10, 3)
    again = settle(Config(), checkpoint_of(settled, tmp_path), None, make_data(["I saw a cat ."]), ALONE)
    assert again.training.bleu_tokenizer == "zh"  # as before
    before_there_was_a_choice = settle(
        Config(), checkpoint_of(Config(), tmp_path), None, make_data(["我看见猫。"]), ALONE
    )
    assert before_there_was_a_choice.training.bleu_tokenizer == "zh"


def test_what_is_given_counts() -> None:
    limits = {"length_factor": "2", "extra_length": "9", "max_source_tokens": "7"}
    keys = {"training.bleu_tokenizer": "char", **{f"translation.{key}": value for key, value in limits.items()}}
    config = load_config(None, keys)
    settled = settle(config, None, None, make_data(["我看见猫。"]), ALONE)
    assert settled.training.bleu_tokenizer == "char"
    assert settled.translation == config.translation
    with pytest.raises(UserError, match=r"set both translation\.length_factor and translation\.extra_length"):
        load_config(None, {"translation.extra_length": "9"})


def test_a_bleu_that_can_only_be_0_is_told() -> None:
    """Also where it is no matter of the script: one word to a word."""
    chinese = load_config(None, {"training.bleu_tokenizer": "13a"})
    words = score_warning(chinese, make_data(["我看见了一只猫。", "我"]))
    assert words is not None
    assert words.startswith("no validation reference has four tokens as BLEU's tokenizer 13a cuts them")
    assert score_warning(chinese, make_data(["one", "two words"])) is not None
    assert score_warning(chinese, make_data(["one", "now four words here"])) is None
    assert score_warning(load_config(None, {"training.metric": "chrf"}), make_data(["one"])) is None
