"""A trained run at work: evaluate agrees with the run's own summary, translate keeps to its lines."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dist_s2s.distributed import Ranks
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.search.options import SearchOptions
from tests.commands import ROOT, Command, Finished, clean_environment, run
from tests.toy_corpus import PAIRS, options

SOURCES = [source for source, _ in PAIRS[:5]]


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    run("dist_s2s.train", *options(corpus, run_dir, training__max_steps=100), ranks=2)
    return run_dir


@pytest.fixture(scope="module")
def translated(trained: Path) -> list[str]:
    """Translations of SOURCES."""
    text = "".join(source + "\n" for source in SOURCES)
    return run("dist_s2s.translate", "--run", trained, stdin=text.encode()).output.splitlines()


@pytest.fixture(scope="module")
def evaluated(trained: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    file = tmp_path_factory.mktemp("scores") / "scores.json"
    return run("dist_s2s.evaluate", "--run", trained, "--data", corpus, "--json", file), file


def test_the_toy_model_has_learned(trained: Path, translated: list[str]) -> None:
    summary = json.loads((trained / "summary.json").read_text(encoding="utf-8"))
    assert summary["bleu"] > 50
    assert len(set(translated)) > 1


def test_evaluate_agrees_with_the_summary(trained: Path, evaluated: tuple[Finished, Path]) -> None:
    finished, file = evaluated
    scores = json.loads(file.read_text(encoding="utf-8"))
    summary = json.loads((trained / "summary.json").read_text(encoding="utf-8"))
    assert round(scores["bleu"], 2) == summary["bleu"]
    assert round(scores["chrf"], 2) == summary["chrf"]
    assert round(scores["ter"], 2) == summary["ter"]
    for key in ("signature", "chrf_signature", "ter_signature", "translations_cut"):
        assert scores[key] == summary[key]
    assert scores["sentences"] == len(PAIRS)
    assert scores["seconds"] > 0
    assert f"BLEU │ {scores['bleu']:.2f}" in " ".join(finished.output.split())
    assert scores["signature"] in finished.output


def test_evaluate_on_more_ranks_than_it_was_trained_on(
    trained: Path, corpus: Path, evaluated: tuple[Finished, Path], tmp_path: Path
) -> None:
    file = tmp_path / "scores.json"
    finished = run("dist_s2s.evaluate", "--run", trained, "--data", corpus, "--json", file, ranks=3)
    expected, found = (json.loads(path.read_text(encoding="utf-8")) for path in (evaluated[1], file))
    assert found.pop("perplexity") == pytest.approx(expected.pop("perplexity"), rel=1e-3)  # batches differ
    del expected["seconds"], found["seconds"]
    assert found == expected
    assert finished.outputs[1:] == ["", ""]


def test_the_test_data_of_the_run_are_the_default_and_a_file_scores_as_the_run_that_wrote_it(
    trained: Path, evaluated: tuple[Finished, Path], tmp_path: Path
) -> None:
    """With a copy of the run to compare with, on two ranks; then without a run."""
    hypotheses, file = tmp_path / "hypotheses.txt", tmp_path / "scores.json"
    copy = shutil.copytree(trained, tmp_path / "copy")
    files = ("--json", file, "--output", hypotheses)
    finished = run("dist_s2s.evaluate", "--run", trained, "--compare", copy, *files, ranks=2)
    expected, found = (json.loads(path.read_text(encoding="utf-8")) for path in (evaluated[1], file))
    assert finished.outputs[1] == ""
    [other] = found["compared"]
    assert (other["system"], other["bleu_p"], other["most_different"]) == (str(copy), 1.0, [])
    assert sum(row["equal"] for row in other["wins"]) == found["sentences"] == len(PAIRS)
    alone = ("--hypotheses", hypotheses, "--data", trained.parent / "toy.tsv", "--compare", hypotheses)
    (trained.parent / "toy.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    run("dist_s2s.evaluate", *alone, "--json", file)
    from_file = json.loads(file.read_text(encoding="utf-8"))
    for key in ("bleu", "chrf", "ter", "signature", "lengths", "bleu_interval"):
        assert found[key] == from_file[key] == from_file["compared"][0][key] == expected[key]
    assert (from_file["perplexity"], from_file["by_frequency"]) == (None, None)


def test_scores_of_given_translations(trained: Path, corpus: Path, evaluated: tuple[Finished, Path]) -> None:
    finished = run("dist_s2s.score", "--run", trained, corpus)
    totals = [float(line.split("\t")[0]) for line in finished.output.splitlines()]
    perplexity = json.loads(evaluated[1].read_text(encoding="utf-8"))["perplexity"]
    assert len(totals) == len(PAIRS)
    assert sum(totals) == pytest.approx(perplexity["log_probability"], rel=1e-4)
    assert f"{len(PAIRS):,} translations: log-probability" in finished.errors[0]


def test_translations_file_agrees_with_translate(trained: Path, translated: list[str]) -> None:
    rows = (trained / "translations.txt").read_text(encoding="utf-8").splitlines()
    assert [row.split("\t")[2] for row in rows[: len(SOURCES)]] == translated


def test_output_has_a_line_for_each_line_of_the_input(trained: Path, translated: list[str], tmp_path: Path) -> None:
    text = "\n".join([SOURCES[0], "", SOURCES[1] + "\r", "  ", SOURCES[2], "", ""])  # ends with an empty line
    expected = [translated[0], "", translated[1], "", translated[2], ""]
    assert run("dist_s2s.translate", "--run", trained, stdin=text.encode()).output.split("\n") == [*expected, ""]
    (tmp_path / "in.txt").write_bytes(text.encode())
    files = ("--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt")
    assert run("dist_s2s.translate", "--run", trained, *files).output == ""
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n") == [*expected, ""]


def test_marks_and_invisible_lines_change_nothing(trained: Path, translated: list[str]) -> None:
    text = f"\ufeff{SOURCES[0]}\n\u200b\n{SOURCES[1]}\n".encode()
    assert run("dist_s2s.translate", "--run", trained, stdin=text).output == f"{translated[0]}\n\n{translated[1]}\n"


def test_translations_that_are_cut_are_told(trained: Path, corpus: Path, tmp_path: Path) -> None:
    text, short = "".join(source + "\n" for source in SOURCES).encode(), ("--length_factor", 0, "--extra_length", 2)
    finished = run("dist_s2s.translate", "--run", trained, *short, stdin=text)
    assert [len(line.split()) for line in finished.output.splitlines()] == [2] * 5
    assert finished.errors[0] == (
        "warning: 5 of 5 translations reached the longest length (0 · source tokens + 2) and were cut there: "
        "lines 1, 2, 3, 4, 5; --length_factor and --extra_length allow more\n"
    )
    arguments = ("--run", trained, "--data", corpus, "--json", tmp_path / "scores.json", "--bleu_tokenizer", "char")
    run("dist_s2s.evaluate", *arguments, *short)
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert scores["translations_cut"] == len(PAIRS)
    assert "|tok:char|" in scores["signature"]
    assert scores["ter_signature"].endswith("|pretok:char")


def test_a_fault_in_a_file_leaves_no_output(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes((SOURCES[0] + "\n").encode() * 2000 + b"\xff\n")
    files = ("--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt")
    finished = run("dist_s2s.translate", "--run", trained, *files, status=2)
    assert "in.txt line 2001 is not UTF-8" in finished.errors[0]
    assert not (tmp_path / "out.txt").exists()


def test_a_program_that_talks_through_pipes_gets_each_answer(trained: Path, translated: list[str]) -> None:
    command = [sys.executable, "-m", "dist_s2s.translate", "--run", trained]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=clean_environment()
    ) as talk:
        assert talk.stdin is not None
        assert talk.stdout is not None
        for source, expected in zip(SOURCES, translated, strict=True):
            talk.stdin.write(f"{source}\n".encode())
            talk.stdin.flush()
            assert talk.stdout.readline().decode() == f"{expected}\n"
        talk.stdin.close()
        assert talk.wait(timeout=60) == 0


def test_long_lines_are_translated_in_pieces(trained: Path, translated: list[str], tmp_path: Path) -> None:
    """With all that is known of each, and what is said of them."""
    text = f"{''.join(SOURCES[:3])}\n\n{SOURCES[3]}\n".encode()
    flags = ("--json", "--nbest", 2, "--beam_size", 3, "--print_alignment")
    finished = run("dist_s2s.translate", "--run", trained, *flags, stdin=text)
    long, empty, short = map(json.loads, finished.output.splitlines())
    assert (long["source"], long["pieces"], empty["pieces"]) == ("".join(SOURCES[:3]), 3, 1)
    assert len(long["n_best"]) == len(short["n_best"]) == 2
    for each in (long, empty, short):
        assert each["n_best"][0].items() <= each.items()
    assert [each["score"] for each in long["n_best"]] == sorted((e["score"] for e in long["n_best"]), reverse=True)
    assert (empty["translation"], empty["score"], len(empty["n_best"])) == ("", 0.0, 1)
    assert long["alignment"]["source"] == list("".join(SOURCES[:3]))
    assert [place for _, place in long["alignment"]["pairs"]] == list(range(len(long["alignment"]["target"])))
    assert finished.errors[0].startswith(
        "warning: 1 of 3 lines has more than 7 tokens and was translated in pieces: line 1; "
    )
    (tmp_path / "in.txt").write_bytes(text)
    input_file = ("--input", tmp_path / "in.txt")
    assert run("dist_s2s.translate", "--run", trained, *input_file, ranks=2).output.splitlines() == [
        " ".join(translated[:3]),
        "",
        translated[3],
    ]
    whole = run("dist_s2s.translate", "--run", trained, *input_file, "--max_source_tokens", 30)
    assert (whole.output.count("\n"), whole.errors) == (3, [""])


def test_n_best_lists(trained: Path, translated: list[str]) -> None:
    text = f"{SOURCES[0]}\n\n{SOURCES[1]}\n".encode()
    flags = ("--nbest", 3, "--beam_size", 3)
    rows = [
        line.split(" ||| ")
        for line in run("dist_s2s.translate", "--run", trained, *flags, stdin=text).output.splitlines()
    ]
    assert [row[0] for row in rows] == ["0"] * 3 + ["1"] + ["2"] * 3
    assert (rows[0][1], rows[3][1:], rows[4][1]) == (translated[0], ["", "0.000000"], translated[1])
    aligned = run("dist_s2s.translate", "--run", trained, *flags, "--print_alignment", stdin=text).output.splitlines()
    for row, line in zip(rows, aligned, strict=True):
        assert line.split(" ||| ")[0] == row[0]
        assert line.split(" ||| ")[-1] == row[-1]
    assert aligned[0].split(" ||| ")[1] == " ".join(SOURCES[0])


def test_what_came_before_a_fault_is_answered(trained: Path, translated: list[str]) -> None:
    good = "".join(source + "\n" for source in SOURCES[:2])
    for fault, message in (
        (b"\xff\n", "stdin line 3 is not UTF-8"),
        ("".join(SOURCES).encode() + b"\n", "stdin line 3 has 27 tokens, but at most 7 are allowed; raise"),
    ):
        flags = ("--run", trained, "--long_lines", "refuse")
        finished = run("dist_s2s.translate", *flags, stdin=good.encode() + fault, status=2)
        assert finished.output.splitlines() == translated[:2]
        assert finished.errors[0].startswith(f"error: {message}")


def test_an_interrupt_leaves_what_was_done(trained: Path, translated: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    output = tmp_path / "out.txt"
    command = Command("dist_s2s.translate", "--run", trained, "--input", tmp_path / "pipe", "--output", output)
    with open(tmp_path / "pipe", "wb", buffering=0) as pipe:
        pipe.write(f"{SOURCES[0]}\n{SOURCES[1]}\n".encode())
        command.wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") == 2)
        command.signal(signal.SIGINT)
        assert command.wait(128 + signal.SIGINT).errors == ["\ninterrupted; 2 lines are translated\n"]
    assert output.read_text(encoding="utf-8").splitlines() == translated[:2]


def test_a_terminal_gets_a_prompt(trained: Path, translated: list[str], tmp_path: Path) -> None:
    main, terminal = os.openpty()
    command = [sys.executable, "-m", "dist_s2s.translate", "--run", trained, "--output", tmp_path / "out.txt"]
    environment = clean_environment() | {"TERM": "dumb"}
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=ROOT, env=environment) as talk:
        os.close(terminal)
        shown = b""
        for text in (f"{SOURCES[0]}\n", f"{SOURCES[1]}\n", "\x04"):
            while not shown.endswith(b"> "):
                shown += os.read(main, 1000)
            shown += b"|"
            os.write(main, text.encode())
        assert talk.wait(timeout=60) == 0
    os.close(main)
    assert re.match(rb"loading \S+ \.\.\. [\d.]+ s; a sentence a line, Ctrl-D ends\r\n", shown)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines() == translated[:2]


def test_last_line_may_lack_its_end_and_no_input_gives_no_output(trained: Path, translated: list[str]) -> None:
    assert run("dist_s2s.translate", "--run", trained, stdin=SOURCES[0].encode()).output == translated[0] + "\n"
    assert run("dist_s2s.translate", "--run", trained, stdin=b"").output == ""


def test_unknown_tokens_are_translated_somehow(trained: Path) -> None:
    output = run("dist_s2s.translate", "--run", trained, stdin="我☃看见🦆。\n☃\n".encode()).output
    assert output.count("\n") == 2
    assert "<" not in output  # no special token


def test_beam_search(trained: Path) -> None:
    text = "".join(source + "\n" for source in SOURCES)
    options = ("--beam_size", 3, "--nbest", 3, "--json")
    output = run("dist_s2s.translate", "--run", trained, *options, stdin=text.encode()).output
    translator = load_translator(trained, Ranks.alone())
    expected = translator.translate(SOURCES, SearchOptions.of(translator.config, 3), n_best=3)
    found = [json.loads(line)["n_best"] for line in output.splitlines()]
    assert [[each["translation"] for each in n_best] for n_best in found] == [
        [candidate.text for candidate in each.n_best] for each in expected
    ]
    scores = [[each["score"] for each in n_best] for n_best in found]
    assert scores == [pytest.approx([candidate.score for candidate in each.n_best], abs=1e-5) for each in expected]


def test_files_are_not_written_over(trained: Path, tmp_path: Path) -> None:
    """What is read, under any name, and what another option writes; nor is it lost that was there before a mistake."""
    source, link, report = (tmp_path / name for name in ("in.txt", "link.txt", "scores.json"))
    source.write_text("我看见猫。\n", encoding="utf-8")
    link.symlink_to(source)
    wrong = run("dist_s2s.translate", "--run", trained, "--input", source, "--output", link, status=2)
    assert f"{link} would be read and written; give another file" in wrong.errors[0]
    same = ("--json", report, "--output", report)
    wrong = run("dist_s2s.evaluate", "--run", trained, "--data", "phrasebook", *same, status=2)
    assert f"{report} would be written twice; give another file" in wrong.errors[0]
    report.write_text("before")
    run("dist_s2s.evaluate", "--run", trained, "--data", source, "--json", report, status=2)
    assert report.read_text() == "before"
    assert source.read_text(encoding="utf-8") == "我看见猫。\n"


def test_ranks_end_quietly_where_nobody_reads(trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("我看见猫。\n" * 2000, encoding="utf-8")
    command = [sys.executable, "-m", "dist_s2s.cli.main", "translate", "--ranks", "2", "--run", trained]
    command += ["--input", source]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, cwd=ROOT, env=clean_environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(60) == 141
    assert said == ""


def test_prefixes_and_terms_on_two_ranks(trained: Path, tmp_path: Path) -> None:
    lines = {"in.txt": SOURCES, "prefix.txt": ["", "Anna", "", "", ""], "terms.tsv": ["看见\tliked", "猫\ta tree"]}
    for name, texts in lines.items():
        (tmp_path / name).write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    files = ("--input", tmp_path / "in.txt", "--prefix", tmp_path / "prefix.txt", "--terms", tmp_path / "terms.tsv")
    others = ("--beam_size", 4, "--length_penalty", 0.6, "--coverage_penalty", 0.1, "--no_repeat_ngram", 3)
    finished = run("dist_s2s.translate", "--run", trained, *files, *others, "--min_length", 5, ranks=2)
    translated = finished.output.splitlines()
    assert len(translated) == len(SOURCES)
    assert finished.errors == ["", ""]
    assert translated[1].startswith("Anna ")
    for source, text in zip(SOURCES, translated, strict=True):
        assert len(text.split()) >= 5
        assert "看见" not in source or "liked" in text
        assert "猫" not in source or "a tree" in text


def test_translate_on_two_ranks(trained: Path, translated: list[str], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(source + "\n" for source in SOURCES), encoding="utf-8")
    finished = run("dist_s2s.translate", "--run", trained, "--input", tmp_path / "in.txt", ranks=2)
    assert finished.outputs == ["".join(line + "\n" for line in translated), ""]


def test_a_run_can_be_moved(trained: Path, translated: list[str], tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "elsewhere")
    output = run("dist_s2s.translate", "--run", tmp_path / "elsewhere", stdin=SOURCES[0].encode()).output
    assert output.splitlines() == translated[:1]


def test_ensembles_and_samples(trained: Path, corpus: Path, tmp_path: Path) -> None:
    text = "".join(source + "\n" for source in SOURCES)
    [checkpoint, *_] = sorted((trained / "checkpoints").iterdir())
    both, drawn = ("--run", trained, checkpoint), ("--sample", "--nbest", 3, "--temperature", 1.5, "--seed", 7)
    samples = run("dist_s2s.translate", *both, *drawn, stdin=text.encode()).output
    rows = [line.split(" ||| ") for line in samples.splitlines()]
    assert [row[0] for row in rows] == [str(number) for number in range(5) for _ in range(3)]
    assert len({row[1] for row in rows[:3]} | {row[1] for row in rows[3:6]}) > 2
    scores = tmp_path / "scores.json"
    run("dist_s2s.evaluate", *both, "--data", corpus, "--mbr", 4, "--top_p", 0.9, "--json", scores)
    told = json.loads(scores.read_text(encoding="utf-8"))
    sampling = {"num_samples": 4, "temperature": 1.0, "top_k": None, "top_p": 0.9, "seed": 0, "by_risk": True}
    assert (told["system"], told["sampling"]) == (f"{trained} + {checkpoint}", sampling)
    assert told["bleu"] > 25
