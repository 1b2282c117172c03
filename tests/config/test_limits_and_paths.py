"""A limit that somebody gives replaces those that nobody gave; paths are expanded."""

from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.config import Config, load_config


def limits(config: Config) -> tuple[int | None, float | None, int | None]:
    training = config.training
    return training.max_steps, training.max_minutes, training.max_epochs


def in_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"training:\n{text}")
    return path


def test_without_a_limit_the_default_holds() -> None:
    assert limits(load_config(None, {})) == (None, None, 8)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"training.max_steps": "20"}, (20, None, None)),
        ({"training.max_minutes": "1.5"}, (None, 1.5, None)),
        ({"training.max_epochs": "3"}, (None, None, 3)),
        ({"training.max_steps": "20", "training.max_epochs": "3"}, (20, None, 3)),
        ({"training.max_steps": "null"}, (None, None, 8)),
    ],
)
def test_a_limit_of_the_command_line_replaces_defaults_and_file(
    tmp_path: Path, given: dict[str, str], expected: tuple[int | None, float | None, int | None]
) -> None:
    assert limits(load_config(None, given)) == expected
    file = in_file(tmp_path, "  max_minutes: 7\n  max_steps: null\n")
    is_limit = given != {"training.max_steps": "null"}
    assert limits(load_config(file, given)) == (expected if is_limit else (None, 7.0, None))


def test_limits_of_a_file_replace_the_default(tmp_path: Path) -> None:
    assert limits(load_config(in_file(tmp_path, "  max_steps: 5\n"), {})) == (5, None, None)
    assert limits(load_config(in_file(tmp_path, "  max_steps: null\n"), {})) == (None, None, 8)
    assert limits(load_config(in_file(tmp_path, "  max_steps: 5\n  max_epochs: 2\n"), {})) == (5, None, 2)


def test_a_configuration_that_was_written_is_read_back_with_its_limits(tmp_path: Path) -> None:
    for given in ({}, {"training.max_steps": "5"}, {"training.max_minutes": "2", "training.max_epochs": "4"}):
        config = load_config(None, given)
        path = tmp_path / "written.yaml"
        path.write_text(config.to_yaml())
        assert load_config(path, {}) == config


PATHS = {
    "run_dir": "run_dir",
    "data.train": "data.train",
    "data.valid": "data.valid",
    "data.test": "data.test",
    "training.resume": "training.resume",
}


@pytest.mark.parametrize("key", PATHS)
def test_a_home_and_variables_are_expanded(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("CORPORA", "/data/corpora")
    for text, expected in (
        ("~/x", "/home/ada/x"),
        ("$CORPORA/x", "/data/corpora/x"),
        ("${CORPORA}/x", "/data/corpora/x"),
        ("a~b", "a~b"),
    ):
        section, _, name = key.rpartition(".")
        of_file = tmp_path / "file.yaml"
        of_file.write_text(f"{section}:\n  {name}: {text}\n" if section else f"{name}: {text}\n")
        for config in (load_config(None, {key: text}), load_config(of_file, {})):
            value = getattr(getattr(config, section) if section else config, name)
            assert str(value) == expected


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(UserError) as error:
        load_config(None, {"data.train": "$NO_SUCH_PLACE/train.tsv"})
    assert str(error.value) == (
        "data.train: the environment variable in '$NO_SUCH_PLACE/train.tsv' is not set: $NO_SUCH_PLACE (command line)"
    )


def test_a_stream_needs_the_sizes_of_its_vocabularies() -> None:
    sizes = {"data.source_vocabulary_size": "50", "data.target_vocabulary_size": "60"}
    assert load_config(None, {"data.stream": "~/pairs.tsv", **sizes}).data.stream == str(Path.home() / "pairs.tsv")
    assert load_config(None, {"data.stream": "null"}).data.stream is None
    for missing in sizes:
        given = {key: value for key, value in sizes.items() if key != missing}
        with pytest.raises(UserError, match=f"data.stream needs {missing}, since"):
            load_config(None, {"data.stream": "pairs.tsv", **given})


@pytest.mark.parametrize(("key", "value"), [("columns", "2,1"), ("skip_bad_lines", "true")])
def test_a_stream_has_two_columns_and_no_bad_line(key: str, value: str) -> None:
    sizes = {"data.source_vocabulary_size": "10", "data.target_vocabulary_size": "10"}
    with pytest.raises(UserError, match=rf"data\.stream does not go with data\.{key}: its lines are SOURCE<TAB>TARGET"):
        load_config(None, {"data.stream": "pairs.tsv", **sizes, f"data.{key}": value})
