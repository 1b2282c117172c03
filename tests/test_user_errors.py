"""What a user can get wrong, met by the commands: one clear line on every rank, status 2, no traceback, no wait."""

import re
import socket
from pathlib import Path

import pytest

from tests.commands import Command, run
from tests.toy_corpus import options


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    run("dist_s2s.train", *options(corpus, run_dir, training__max_steps=2))
    return run_dir


def error_of(module: str, *arguments: object, ranks: int = 1, stdin: bytes = b"", **environment: str) -> str:
    """The one line that the command says, the same on every rank, without the rank's name."""
    finished = run(module, *arguments, ranks=ranks, stdin=stdin, environment=environment, status=2)
    # 2 seconds for a person; here the machine may run other tests at the same time.
    assert finished.seconds < 10, finished
    said = []
    for rank, errors in enumerate(finished.errors):
        prefix = f"rank {rank}: error: " if ranks > 1 else "error: "
        assert errors.startswith(prefix), finished
        assert errors.count("\n") == 1, finished
        assert errors.endswith("\n"), finished
        said.append(errors.removeprefix(prefix).rstrip("\n"))
    assert said == said[:1] * ranks
    return said[0]


def test_unknown_and_mistyped_keys() -> None:
    train = "dist_s2s.train"
    wrong = "unknown key training.lerning_rate on the command line; did you mean training.learning_rate?"
    assert error_of(train, "--training.lerning_rate", "1") == wrong
    assert error_of(train, "--training.lerning_rate", "1", ranks=2) == wrong
    ten = error_of(train, "--training.max_steps", "ten")
    assert ten == "training.max_steps must be a whole number, but is 'ten' (command line)"
    assert error_of(train, "max_steps=3").startswith("max_steps=3 does not exist")


def test_scientific_notation_is_a_number(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text("training:\n  learning_rate: 3e-4\n", encoding="utf-8")
    arguments = [
        word for word in options(corpus, tmp_path / "run", training__max_steps=1) if "learning_rate" not in word
    ]
    run("dist_s2s.train", "--config", file, *arguments, "--embedding.learning_rate", "1e-3")
    written = (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    assert re.findall(r" learning_rate: (.*)", written) == ["0.001", "0.0003"]


BAD_FILES = {
    "no tab": (b"a\tb\nc d\n", "line 2 has no tab: expected SOURCE<TAB>TARGET"),
    "not UTF-8": (b"a\tb\nc\t\xff\xfe\n", "line 2 is not UTF-8: byte 3 of the line is 0xff"),
    "empty": (b"", "is empty: it has no pair"),
    "without text": (b"\n \n", "is empty: it has no pair"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("key", ["data.train", "data.test"])
def test_bad_corpus(kind: str, key: str, corpus: Path, tmp_path: Path) -> None:
    content, message = BAD_FILES[kind]
    bad = tmp_path / "bad.tsv"
    bad.write_bytes(content)
    said = error_of("dist_s2s.train", *options(corpus, tmp_path / "run"), f"--{key}={bad}")
    assert said.startswith(f"{bad} {message}")
    assert not (tmp_path / "run").exists()


def test_missing_corpus(corpus: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.tsv"
    arguments = (*options(corpus, tmp_path / "run"), f"--data.valid={missing}")
    said = error_of("dist_s2s.train", *arguments)
    assert said.startswith(f"{missing} does not exist")
    assert error_of("dist_s2s.train", *arguments, ranks=2) == said


def test_no_sentence_is_short_enough(corpus: Path, tmp_path: Path) -> None:
    said = error_of("dist_s2s.train", *options(corpus, tmp_path / "run", data__max_length=1))
    assert "no sentence pair is left: all 48" in said
    assert "max_length = 1" in said


def test_tables_smaller_than_a_vocabulary(corpus: Path, tmp_path: Path) -> None:
    said = error_of("dist_s2s.train", *options(corpus, tmp_path / "run", embedding__num_embeddings=5))
    assert said.startswith("embedding.num_embeddings is 5, but a vocabulary has ")
    assert not (tmp_path / "run").exists()


def test_tied_tables_of_different_width(corpus: Path, tmp_path: Path) -> None:
    sizes = {"model__tie_embeddings": "true", "model__embedding_dim": 8, "model__readout_size": 16}
    said = error_of("dist_s2s.train", *options(corpus, tmp_path / "run", **sizes))
    assert said == "model.tie_embeddings needs model.readout_size = model.embedding_dim, or null, but they are 16 and 8"


def test_run_directory_of_another_configuration(trained: Path, corpus: Path) -> None:
    before = sorted(trained.parent.rglob("*"))
    arguments = options(corpus, trained, training__seed=9)
    said = error_of("dist_s2s.train", *arguments, ranks=2)
    assert said.startswith(f"{trained} belongs to a run of another configuration")
    assert "training.seed: 1 there, 9 here" in said
    assert sorted(trained.parent.rglob("*")) == before


def test_directories_that_hold_no_run(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    said = error_of("dist_s2s.train", *options(corpus, tmp_path))
    assert said.startswith(f"{tmp_path} exists and is not a run directory")
    said = error_of("dist_s2s.translate", "--run", tmp_path)
    assert said == f"{tmp_path} is not a run directory: it has no config.yaml"
    missing = tmp_path / "missing"
    assert error_of("dist_s2s.evaluate", "--run", missing, "--data", corpus).startswith(f"{missing} is not a run")


def test_run_without_a_checkpoint(trained: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    said = error_of("dist_s2s.evaluate", "--run", tmp_path, "--data", corpus)
    assert said.startswith(f"{tmp_path} has no checkpoint yet")


def test_checkpoint_of_another_model(trained: Path, corpus: Path, tmp_path: Path) -> None:
    (checkpoint,) = (trained / "checkpoints").iterdir()
    arguments = options(corpus, tmp_path / "run", model__hidden_size=20, training__resume=checkpoint)
    said = error_of("dist_s2s.train", *arguments)
    assert said.startswith(
        f"{checkpoint} belongs to a run of another configuration (model.hidden_size: 16 there, 20 here)"
    )


def test_damaged_checkpoint(trained: Path, corpus: Path, tmp_path: Path) -> None:
    (checkpoint,) = (trained / "checkpoints").iterdir()
    copy = tmp_path / "run" / "checkpoints" / "step-2"
    copy.mkdir(parents=True)
    for name in ("config.yaml", "source_vocabulary.txt", "target_vocabulary.txt"):
        (tmp_path / "run" / name).write_bytes((trained / name).read_bytes())
    for file in checkpoint.iterdir():
        content = bytearray(file.read_bytes())
        content[-1] ^= file.name.startswith("target")
        (copy / file.name).write_bytes(content)
    said = error_of("dist_s2s.evaluate", "--run", tmp_path / "run", "--data", corpus, ranks=2)
    assert said.startswith(f"{copy / 'target_table-0-of-1.safetensors'} is damaged")


def test_bad_sentences_and_files_to_translate(trained: Path, tmp_path: Path) -> None:
    translate = ("dist_s2s.translate", "--run", trained)
    assert error_of(*translate, stdin=b"ok\n\xff\n").startswith("stdin line 2 is not UTF-8")
    assert str(tmp_path / "none") in error_of(*translate, "--input", tmp_path / "none")
    nowhere = tmp_path / "none" / "out"
    (tmp_path / "in").write_text("我\n", encoding="utf-8")
    files = ("--input", tmp_path / "in", "--output", nowhere)
    assert str(nowhere) in error_of(*translate, *files)
    assert str(nowhere) in error_of(*translate, *files, ranks=2)
    assert "give --input FILE" in error_of(*translate, ranks=2)


def test_scores_that_cannot_be_written(trained: Path, corpus: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "none" / "scores.json"
    arguments = ("--run", trained, "--data", corpus, "--json", nowhere)
    assert str(nowhere) in error_of("dist_s2s.evaluate", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "x", "--beam_size", "0"], "argument --beam_size: must be at least 1, but is 0"),
        (["--run", "x", "--beam_size", "two"], "argument --beam_size: must be a whole number, but is 'two'"),
        ([], "the following arguments are required: --run"),
    ],
)
def test_malformed_options_of_translate(arguments: list[str], message: str) -> None:
    errors = run("dist_s2s.translate", *arguments, status=2).errors[0]
    assert errors.splitlines()[-1] == f"python -m dist_s2s.translate: error: {message}"
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2", "RANK": "0"},  # no MASTER_ADDR: not started by torchrun
        {"WORLD_SIZE": "two", "RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    ],
)
def test_environment_that_torchrun_would_not_make(environment: dict[str, str], corpus: Path, tmp_path: Path) -> None:
    command = Command("dist_s2s.train", *options(corpus, tmp_path / "run"), environment=environment)
    (errors,) = command.wait(2, timeout=10).errors
    assert errors.startswith(f"rank {environment['RANK']}: error: ")
    assert f"WORLD_SIZE={environment['WORLD_SIZE']}" in errors or f"WORLD_SIZE is {environment['WORLD_SIZE']}" in errors
    assert "torchrun" in errors
    assert errors.count("\n") == 1


def test_world_size_that_accelerate_does_not_share(corpus: Path, tmp_path: Path) -> None:
    """Two processes as mpirun starts them: WORLD_SIZE is not set, and each would train alone in the same directory."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    mpi = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    commands = [
        Command(
            "dist_s2s.train",
            *options(corpus, tmp_path / "run"),
            environment=mpi
            | {"MASTER_PORT": port}
            | {f"OMPI_COMM_WORLD_{name}": rank for name in ("RANK", "LOCAL_RANK")},
        )
        for rank in ("0", "1")
    ]
    for command in commands:
        (errors,) = command.wait(2).errors
        assert "WORLD_SIZE is 1, but OMPI_COMM_WORLD_SIZE is 2, as another launcher has set it" in errors
        assert errors.count("\n") == 1
