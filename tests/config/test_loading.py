"""What the keys mean, and the exact line that each mistake gets."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.config import KEYS, Config, load_config

PHRASEBOOK = Path(__file__).parents[2] / "configs" / "phrasebook.yaml"


def errors_of(overrides: dict[str, str], config_file: Path | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(config_file, overrides)
    return str(caught.value).splitlines()


Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes x.yaml into the current directory, so that messages show this name alone."""
    monkeypatch.chdir(tmp_path)

    def write_file(content: str | bytes) -> Path:
        Path("x.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
        return Path("x.yaml")

    return write_file


def test_phrasebook_file_states_the_defaults_with_a_comment_on_every_key() -> None:
    assert load_config(PHRASEBOOK, {}) == Config()
    text = PHRASEBOOK.read_text(encoding="utf-8")
    commented = re.findall(r"^ *(\w+): +[^\s#]+ +# \S", text, re.MULTILINE)
    assert commented == [key.rpartition(".")[2] for key in KEYS]


def test_scalars_mean_what_the_key_declares(write: Write) -> None:
    file = write(
        "data: {train: no, valid: 010, test: 2020-01-01}\n"
        "model: {attention: none, input_feeding: yes}\n"
        "training: {learning_rate: 3e-4, warmup_steps: 010, max_steps: none, max_minutes: ~, max_epochs: 3}\n"
        "embedding:\n"
    )
    config = load_config(file, {})
    assert (config.data.train, config.data.valid, config.data.test) == ("no", "010", "2020-01-01")
    assert (config.model.attention, config.model.input_feeding) == ("none", True)
    training = config.training
    assert (training.learning_rate, training.warmup_steps, training.max_epochs) == (3e-4, 10, 3)
    assert (training.max_steps, training.max_minutes) == (None, None)


def test_null_on_the_command_line() -> None:
    config = load_config(None, {"training.max_epochs": "null", "training.max_steps": "50"})
    assert config.training.max_epochs is None
    assert load_config(None, {"embedding.learning_rate": "None"}).embedding.learning_rate is None


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("training.lerning_rate", "did you mean training.learning_rate?"),
        ("train.learning_rate", "did you mean training.learning_rate?"),
        ("embeding.learning_rate", "did you mean embedding.learning_rate?"),
        ("learning_rate", "did you mean embedding.learning_rate or training.learning_rate?"),
        ("seed", "did you mean training.seed?"),
        ("training.epochs", "did you mean training.max_epochs?"),
        ("data.dropout", "did you mean model.dropout?"),
        ("run-dir", "did you mean run_dir?"),
        ("ranks", "--help lists the keys"),
        ("training.xyz", "--help lists the keys"),
    ],
)
def test_unknown_key(key: str, suggestion: str, write: Write) -> None:
    assert errors_of({key: "1"}) == [f"unknown key {key} on the command line; {suggestion}"]
    section, dot, name = key.rpartition(".")
    file = write(f"{section}: {{{name}: 1}}" if dot else f"{name}: 1")
    assert errors_of({}, file) == [f"unknown key {key} in x.yaml; {suggestion}"]


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("training.learning_rate", "-1", "greater than 0, but is -1"),
        ("training.learning_rate", "fast", "a number, but is 'fast'"),
        ("model.hidden_size", "255", "a multiple of 2, but is 255"),
        ("training.max_norm", "nan", "a finite number, but is 'nan'"),
        ("training.max_minutes", "inf", "a finite number, but is 'inf'"),
        ("training.max_minutes", "0", "greater than 0, but is 0"),
        ("training.max_steps", "ten", "a whole number, but is 'ten'"),
        ("training.max_steps", "0", "greater than 0, but is 0"),
        ("training.seed", "1.5", "a whole number, but is '1.5'"),
        ("training.seed", "none", "a whole number, but is 'none'"),
        ("training.seed", "9223372036854775808", "less than 9223372036854775808, but is 9223372036854775808"),
        ("training.keep_checkpoints", "0", "at least 1, but is 0"),
        ("translation.length_penalty", "11", "at most 10, but is 11"),
        ("training.precision", "fp16", "one of auto, fp32, bf16 or fp64, but is 'fp16'"),
        ("data.source_vocabulary_size", "4", "at least 5, but is 4"),
        ("model.dropout", "1", "less than 1, but is 1"),
        ("model.input_feeding", "maybe", "true or false, but is 'maybe'"),
    ],
)
def test_value_of_a_wrong_type_or_out_of_bounds(key: str, value: str, rule: str, write: Write) -> None:
    assert errors_of({key: value}) == [f"{key} must be {rule} (command line)"]
    section, _, name = key.partition(".")
    assert errors_of({}, write(f"{section}:\n  {name}: {value}\n")) == [f"{key} must be {rule} (x.yaml)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training: {seed: [1]}", "training.seed must be a whole number, but is a list (x.yaml)"),
        (
            "training: {max_steps: {a: 1}}",
            "training.max_steps must be a whole number, but is a mapping (x.yaml)",
        ),
        ("training: {resume: [a]}", "training.resume must be text, but is a list (x.yaml)"),
        ("training: {resume: }", "training.resume must be text, but is null (x.yaml)"),
        ("training: {resume: ''}", "training.resume must not be empty (x.yaml)"),
        ("run_dir: ''", "run_dir must not be empty (x.yaml)"),
        ("run_dir: {a: b}", "run_dir must be a path, but is a mapping (x.yaml)"),
        (
            "model: {attention: ~}",
            "model.attention must be one of none, dot, general or additive, but is null (x.yaml)",
        ),
        ("training: 3", "training must be a section with keys of its own, but is '3' (x.yaml)"),
        ("training: [seed]", "training must be a section with keys of its own, but is a list (x.yaml)"),
        ("training.seed: 3", "training.seed must be written as seed in the section training (x.yaml)"),
        ("", "x.yaml is empty: expected sections such as data, model, training"),
        ("# a comment\n", "x.yaml is empty: expected sections such as data, model, training"),
        ("- 1", "x.yaml must hold sections such as data, model, training, but is a list"),
        ("training:\n  seed: 1\n  seed: 2\n", "x.yaml:3: key seed is given twice"),
        ("model:\ntraining:\nmodel:\n", "x.yaml:3: key model is given twice"),
        ("training:\n  seed: 1: 2\n", "x.yaml:2: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "x.yaml:2: expected a single document in the stream, but found another document"),
        (
            "run_dir: !!int 3",
            "x.yaml:1: could not determine a constructor for the tag 'tag:yaml.org,2002:int'",
        ),
        ("[a]: 3", "x.yaml:1: while constructing a mapping, found unhashable key"),
        ("training:\n  resume: \x01", "x.yaml:2: a character that YAML does not allow, '\\x01'"),
        (b"run_dir: \xff", "x.yaml is not UTF-8 text: byte 9 is 0xff"),
    ],
)
def test_malformed_file(content: str | bytes, message: str, write: Write) -> None:
    assert errors_of({}, write(content)) == [message]


def test_files_cannot_name_python_objects(write: Write) -> None:
    (line,) = errors_of({}, write("run_dir: !!python/object/apply:os.getcwd []"))
    assert line.startswith("x.yaml:1: could not determine a constructor for the tag")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert errors_of({}, missing) == [f"cannot read the configuration {missing}: No such file or directory"]
    assert errors_of({}, tmp_path) == [f"cannot read the configuration {tmp_path}: Is a directory"]


def test_a_run_must_end() -> None:
    assert errors_of({"training.max_epochs": "none"}) == [
        "set training.max_steps, training.max_minutes or training.max_epochs: all are null"
    ]


def test_all_errors_are_reported_with_their_origin(write: Write) -> None:
    file = write("training: {sede: 1, learning_rate: 0}\n")
    assert errors_of({"model": "big", "training.max_steps": "ten"}, file) == [
        "unknown key training.sede in x.yaml; did you mean training.seed?",
        "model must be a section with keys of its own, but is 'big' (command line)",
        "training.learning_rate must be greater than 0, but is 0 (x.yaml)",
        "training.max_steps must be a whole number, but is 'ten' (command line)",
    ]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("training:\n  part_learning_rates: [source_table=0.1]\n", "a mapping, but is a list"),
        ("training:\n  frozen: {source_table: true}\n", "a list, but is a mapping"),
        ("training:\n  record_words: {a: b}\n", "a list, but is a mapping"),
    ],
)
def test_lists_and_mappings_are_told_from_each_other(text: str, rule: str, write: Write) -> None:
    [error] = errors_of({}, write(text))
    assert f" must be {rule} (x.yaml)" in error


@pytest.mark.parametrize("empty", ["[]", "null", "none"])
def test_lists_can_be_emptied(empty: str, write: Write) -> None:
    keys = ("trackers", "frozen", "record_words")
    file = write("training:\n  trackers: [wandb]\n  frozen: [a]\n  record_words: [b]\n  part_learning_rates: {c: 2}\n")
    given = {f"training.{key}": empty for key in keys}
    given |= {"training.part_learning_rates": "{}" if empty == "[]" else empty}
    training = load_config(file, given).training
    assert [getattr(training, key) for key in keys] == [(), (), ()]
    assert training.part_learning_rates == {}
    nothing = load_config(write("training:\n  trackers:\n  frozen: null\n  part_learning_rates: {}\n"), {}).training
    assert (nothing.trackers, nothing.frozen, nothing.part_learning_rates) == ((), (), {})
    assert load_config(None, {"training.frozen": "[a, b]"}).training.frozen == ("a", "b")
