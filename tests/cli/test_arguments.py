"""The command line of `train`: what it overrides, its mistakes, and --help."""

from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.cli.arguments import parse_arguments
from dist_s2s.config import KEYS, Config, load_config


def test_command_line_overrides_file_overrides_defaults(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("training: {seed: 5, max_steps: 7}\nrun_dir: there\n", encoding="utf-8")
    argv = ["--training.seed", "6", "--config", str(file), "--training.seed=8", "--model.attention", "none"]
    config = load_config(*parse_arguments(argv, "train", "Trains."))
    assert (config.training.seed, config.training.max_steps, config.run_dir) == (8, 7, Path("there"))
    assert config.model.attention == "none"
    assert config.data == Config().data


def test_arguments_are_split_but_not_judged() -> None:
    assert parse_arguments([], "train", "") == (None, {})
    argv = ["--training.learning_rate", "-1e-3", "--no.key=--a=b", "--config=c.yaml"]
    expected = {"training.learning_rate": "-1e-3", "no.key": "--a=b"}
    assert parse_arguments(argv, "train", "") == (Path("c.yaml"), expected)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stray"], "unexpected argument 'stray': expected --config FILE or --section.key VALUE"),
        (["--"], "unexpected argument '--': expected --config FILE or --section.key VALUE"),
        (["--training.seed"], "--training.seed needs a value: --training.seed VALUE"),
        (["--training.seed="], "--training.seed needs a value: --training.seed VALUE"),
        (["--config", "--training.seed", "1"], "--config needs a value: --config VALUE"),
    ],
)
def test_malformed_arguments(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_arguments(argv, "train", "")
    assert str(caught.value) == message


def test_help_lists_each_key_with_description_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # a narrow screen breaks words at their hyphens
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--training.seed", "x", "--help"], "python -m dist_s2s.train", "Trains a model.")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(
        "usage: python -m dist_s2s.train [INPUT ...] [--minutes M] [--columns A,B] [--trace FIRST:LAST] "
        "[--config FILE] [--verbose] [--section.key VALUE ...] Trains a model."
    )
    for key, field in KEYS.items():
        assert f"--{key} " in shown
        assert f" {field.description} (default: " in shown
    assert "--model.attention none|dot|general|additive" in shown
    assert "feed the attention output into the next decoder step (default: false)" in shown
