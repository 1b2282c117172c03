"""Wrong inputs of every kind, each with what the commands say: the table in docs/wrong_inputs.md.

After a change of the texts, `WRITE_TABLES=1 bash launch/test.sh tests/test_wrong_inputs.py` writes the table anew.
"""

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest

from dist_s2s.storage.checkpoint import list_checkpoints, read_manifest
from dist_s2s.storage.durable_files import write_checked_json
from dist_s2s.storage.publishing import MANIFEST
from tests.commands import ROOT, run
from tests.toy_corpus import PAIRS, options

TABLE = ROOT / "docs" / "wrong_inputs.md"
TSV = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
TMX = '<?xml version="1.0"?>\n<tmx version="1.4"><header srclang="en"/><body>{}</body></tmx>'
UNIT = '<tu><tuv xml:lang="{}"><seg>{}</seg></tuv><tuv xml:lang="{}"><seg>{}</seg></tuv></tu>'
# What is wrong; the file's name and content; and the options of `train` besides those of a toy run.
FILES: list[tuple[str, str, bytes]] = [
    ("a line without a tab", "pairs.tsv", TSV.encode() + b"no tab\n"),
    ("two of them", "pairs.tsv", b"no tab\n" + TSV.encode() + b"none\n"),
    ("two tabs", "pairs.tsv", TSV.encode() + b"a\tb\tc\n"),
    ("an empty side", "pairs.tsv", TSV.encode() + b"a\t \n"),
    ("bytes that are not UTF-8", "pairs.tsv", TSV.encode() + b"a\t\xff\n"),
    ("a file in UTF-16", "pairs.tsv", TSV.encode("utf-16")),
    ("an empty file", "pairs.tsv", b""),
    ("half a gzip file", "pairs.tsv.gz", gzip.compress(TSV.encode() * 50)[:-60]),
    ("broken JSON", "pairs.jsonl", b'{"source": "a", "target": "b"}\n{"source": \n'),
    ("JSON with other keys", "pairs.jsonl", b'{"question": "a", "answer": "b", "by": "c"}\n'),
    ("XML that declares entities", "pairs.tmx", b'<?xml version="1.0"?><!DOCTYPE tmx [<!ENTITY a "b">]><tmx/>'),
    ("TMX without pairs", "pairs.tmx", TMX.format("").encode()),
    ("TMX that ends too early", "pairs.tmx", TMX.format(UNIT.format("en", "a", "de", "b")).encode()[:-30]),
    ("a catalog without translations", "pairs.po", b'msgid ""\nmsgstr ""\n\nmsgid "a"\nmsgstr ""\n'),
]
KEYS: list[tuple[str, dict[str, object]]] = [
    ("no such file", {"data.train": "nowhere.tsv"}),
    ("no word is frequent enough", {"data.min_frequency": 1000}),
    ("a vocabulary without room", {"data.source_vocabulary_size": 4}),
    ("tokenizers that differ", {"data.joint_vocabulary": True}),
    ("dropout without merges", {"data.bpe_dropout": 0.1}),
    ("a tag that is a word", {"data.tags": "en"}),
    ("pieces of words that are whole", {"data.target_segmentation": "subword-nmt"}),
    ("an unknown Unicode form", {"data.normalization": "NFD"}),
    ("a stream of any size", {"data.stream": "pairs.tsv"}),
    ("frozen vectors without vectors", {"embedding.freeze_vectors": True}),
    ("an origin that is none", {"training.init_from": "nowhere"}),
    ("a vocabulary to extend without an origin", {"data.vocabulary": "extend"}),
    ("a part that is not there", {"training.frozen": "encodr.*"}),
    ("a word to record that is unknown", {"training.record_vectors_every": 5, "training.record_words": "猫,Hund"}),
    ("a share of nothing", {"data.mix_share": 0.5}),
    ("half a limit", {"translation.length_factor": 2}),
    ("an unknown metric", {"training.metric": "bleurt"}),
]
VECTORS: list[tuple[str, str]] = [
    ("of another dimension", "我 1 2 3\n"),
    ("with a broken line", "我 " + "1 " * 12 + "\n你 1 2\n"),
    ("with nan", "我 " + "1 " * 11 + "nan\n"),
    ("of another language", "Hund " + "1 " * 12 + "\n"),
    ("that are none", "once upon a time\n"),
]
# What is wrong with a dictionary of de.vec and en.vec, and its lines.
DICTIONARIES: list[tuple[str, str]] = [
    ("an empty dictionary", ""),
    ("reversed columns", "dog hund\ncat katze\nbaum tree\n"),
    ("unknown words", "vogel bird\n"),
    ("a line of three words", "hund dog hound\n"),
]
Answers = dict[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wrong")


def answer(folder: Path, module: str, *arguments: object, stdin: bytes = b"") -> str:
    """What the command says, without the folder's name; exit status 2, no traceback, nothing half-made."""
    errors = run(module, *arguments, stdin=stdin, status=2).errors[0]
    lines = errors.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines), errors
    text = " ⏎ ".join(line.removeprefix("error: ") for line in lines)
    text = re.sub(r"(relative to) \S+", r"\1 HERE", text.replace(f"{folder}/", "").replace(str(folder), "FOLDER"))
    return text.replace("|", "\\|")


def train(folder: Path, **overrides: object) -> str:
    corpus = folder / "good.tsv"
    corpus.write_text(TSV, encoding="utf-8")
    words = [*options(corpus, folder / "run"), *(f"--{key}={value}" for key, value in overrides.items())]
    said = answer(folder, "dist_s2s.train", *words)
    assert not (folder / "run" / "checkpoints").exists()
    shutil.rmtree(folder / "run", ignore_errors=True)
    return said


def wrong_files(folder: Path) -> Answers:
    answers = {}
    for what, name, content in FILES:
        (folder / name).write_bytes(content)
        answers[f"`train` on {what}"] = train(folder, **{"data.train": folder / name})
        (folder / name).unlink()
    (folder / "a.zh").write_text("你\n我\n", encoding="utf-8")
    (folder / "b.en").write_text("you\n", encoding="utf-8")
    answers["`train` on parallel files of different lengths"] = train(
        folder, **{"data.train": f"{folder / 'a.zh'},{folder / 'b.en'}"}
    )
    for what, members in (
        ("an archive with a member that leaves its folder", ["../evil.tsv"]),
        ("an archive with several members", ["a.tsv", "b.tsv"]),
    ):
        with ZipFile(folder / "pairs.zip", "w") as archive:
            for member in members:
                archive.writestr(member, TSV)
        answers[f"`train` on {what}"] = train(folder, **{"data.train": folder / "pairs.zip"})
    assert not (folder.parent / "evil.tsv").exists()
    return answers


def wrong_keys(folder: Path) -> Answers:
    answers = {f"`train` with {what}": train(folder, **overrides) for what, overrides in KEYS}
    for what, content in VECTORS:
        (folder / "vectors.txt").write_text(content, encoding="utf-8")
        answers[f"`train` with vectors {what}"] = train(folder, **{"data.source_vectors": folder / "vectors.txt"})
    return answers


def wrong_runs(folder: Path) -> Answers:
    corpus, run_dir = folder / "good.tsv", folder / "trained"
    corpus.write_text(TSV, encoding="utf-8")
    run("dist_s2s.train", *options(corpus, run_dir, training__max_steps=1))
    answers = {
        "`train` from a run of another model": train(
            folder, **{"training.init_from": run_dir, "model.hidden_size": 20, "model.attention": "none"}
        ),
        **wrong_sentences(folder, run_dir),
        "`evaluate` on a file without tabs": evaluate_lines(folder, run_dir),
        **wrong_evaluations(folder, run_dir),
        "`export` onto a file that is there": answer(
            folder, "dist_s2s.export", "--run", run_dir, "--side", "source", "--output", corpus
        ),
        "`export` of a folder that is no run": answer(
            folder, "dist_s2s.export", "--run", folder, "--side", "source", "--output", folder / "new"
        ),
        **wrong_ensembles(folder, run_dir),
        **wrong_shortlist(folder, run_dir),
        **wrong_quantized(folder, run_dir),
    }
    for what, question in (
        ("of an unknown word", ("nearest", "火车站长")),
        ("of a word that is close to others", ("--side", "target", "similar", "cat", "treee")),
        ("of a special token", ("nearest", "<unk>")),
    ):
        answers[f"`embeddings` {what}"] = answer(folder, "dist_s2s.embeddings", "--run", run_dir, *question)
    vocabulary = run_dir / "source_vocabulary.txt"
    vocabulary.write_bytes(vocabulary.read_bytes() + b"more\n")
    answers["`python -m dist_s2s.train` with ranks"] = answer(folder, "dist_s2s.train", "--ranks", 3)
    answers["`translate` with an edited vocabulary"] = answer(folder, "dist_s2s.translate", "--run", run_dir)
    return answers


def wrong_ensembles(folder: Path, run_dir: Path) -> Answers:
    other = folder / "other"
    run("dist_s2s.train", *options(folder / "good.tsv", other, training__max_steps=1, data__target_vocabulary_size=9))
    runs = ("--run", run_dir, other)
    return {
        "`translate` with runs of other vocabularies": answer(folder, "dist_s2s.translate", *runs),
        "`translate` with the attention of several runs": answer(
            folder, "dist_s2s.translate", *runs, "--print_alignment"
        ),
    }


def wrong_quantized(folder: Path, run_dir: Path) -> Answers:
    quantize = ["--run", run_dir, "--quantize", "int8", "--output", folder / "int8"]
    run("dist_s2s.export", *quantize)
    answers = {
        "`export` of a run and of vectors at once": answer(folder, "dist_s2s.export", *quantize, "--side", "source"),
        "`train` on from int8 weights": answer(folder, "dist_s2s.train", "--config", folder / "int8" / "config.yaml"),
    }
    [checkpoint] = list_checkpoints(folder / "int8" / "checkpoints")
    write_checked_json(checkpoint / MANIFEST, {**read_manifest(checkpoint), "quantized": "int3"})
    answers["`translate` with weights of another kind"] = answer(folder, "dist_s2s.translate", "--run", folder / "int8")
    return answers


def wrong_shortlist(folder: Path, run_dir: Path) -> Answers:
    listed = ["--run", run_dir, "--output", folder / "listed"]
    run("dist_s2s.export", *listed, "--shortlist")
    size = ["--run", run_dir, "--output", folder / "more", "--shortlist_frequent", 9]
    again = ["--run", folder / "listed", "--output", folder / "more", "--shortlist"]
    return {
        "`export` of a length without a shortlist": answer(folder, "dist_s2s.export", *size),
        "`export` of a second shortlist": answer(folder, "dist_s2s.export", *again),
        "`train` on with a shortlist": answer(folder, "dist_s2s.train", "--config", folder / "listed" / "config.yaml"),
    }


def wrong_sentences(folder: Path, run_dir: Path) -> Answers:
    contents = {
        "a compressed file": gzip.compress(b"a\n"),
        "UTF-16": "我看见猫。\n".encode("utf-16"),
        "a line that is not UTF-8": b"\n\n\xff\n",
        "a NUL": b"\n" + b"sentence " * 9 + b"\0\n",
        "a line of 17 MiB": b"a" * (17 << 20),
    }
    answers = {
        f"`translate` of {what}": answer(folder, "dist_s2s.translate", "--run", run_dir, stdin=content)
        for what, content in contents.items()
    }
    prefixes = folder / "prefixes.txt"
    prefixes.write_text("I\nyou hate\n", encoding="utf-8")
    choices: dict[str, tuple[list[object], bytes]] = {
        "a prefix of unknown words": (["--input", prefixes, "--prefix", prefixes], b""),
        "a beam of more than all words": (["--beam_size", 100], b""),
        "more translations than the beam finds": (["--nbest", 5, "--beam_size", 4], b""),
        "a long line that is to be refused": (
            ["--max_source_tokens", 4, "--long_lines", "refuse"],
            "我看见猫。\n".encode(),
        ),
        "unknown words replaced and aligned": (["--replace_unknown", "--print_alignment"], b""),
        "a shape of samples without samples": (["--top_k", 5], b""),
        "a beam of samples": (["--sample", "--beam_size", 4], b""),
        "terms of samples": (["--mbr", 4, "--terms", folder / "terms.tsv"], b""),
        "a probability above 1": (["--sample", "--top_p", 1.5], b""),
        "a temperature of 0": (["--mbr", 4, "--temperature", 0], b""),
        "a sample that is compared with none": (["--mbr", 1], b""),
        "all samples and the best of them": (["--mbr", 8, "--nbest", 2], b""),
        "an output without a folder": (["--output", folder / "nowhere" / "out.txt"], b""),
        "an output on a full disk": (["--output", "/dev/full"], b"\n"),
    }
    for what, (words, stdin) in choices.items():
        said = answer(folder, "dist_s2s.translate", "--run", run_dir, *words, stdin=stdin)
        answers[f"`translate` with {what}"] = said
    return answers


def evaluate_lines(folder: Path, run_dir: Path) -> str:
    (folder / "lines.txt").write_text("only\n", encoding="utf-8")
    return answer(folder, "dist_s2s.evaluate", "--run", run_dir, "--data", folder / "lines.txt")


def wrong_evaluations(folder: Path, run_dir: Path) -> Answers:
    pairs, short, long = folder / "pairs.tsv", folder / "short.txt", folder / "long.txt"
    pairs.write_text("我\tI\n你\tyou\n", encoding="utf-8")
    short.write_text("I\n", encoding="utf-8")
    long.write_text("I\nyou\nthey\n", encoding="utf-8")
    empty, endless = folder / "empty.tsv", folder / "endless.tsv"
    empty.write_text("我\tI\n你\t \n", encoding="utf-8")
    endless.write_text("我\tI\n" + "我" * 9000 + "\t" + "I " * 9000 + "\n", encoding="utf-8")
    (folder / "latin1.txt").write_bytes(b"I\n\xe4h\n")
    questions: dict[str, list[object]] = {
        "nothing to score": [],
        "translations without pairs": ["--hypotheses", long],
        "too few translations": ["--hypotheses", short, "--data", pairs],
        "too many translations": ["--run", run_dir, "--data", pairs, "--hypotheses", long],
        "other translations of another length": ["--run", run_dir, "--data", pairs, "--compare", short],
        "translations that are not UTF-8": ["--hypotheses", folder / "latin1.txt", "--data", pairs],
        "an empty reference": ["--hypotheses", short, "--data", empty],
        "nothing to compare with": ["--run", run_dir, "--data", pairs, "--compare", folder / "nowhere"],
        "a folder that is no run": ["--run", run_dir, "--data", pairs, "--compare", folder],
        "unknown words of given translations": ["--hypotheses", short, "--data", pairs, "--replace_unknown"],
        "columns of the phrasebook": ["--run", run_dir, "--data", "phrasebook", "--columns", "1,2"],
        "examples of no comparison": ["--run", run_dir, "--data", pairs, "--examples", 2],
    }
    scores, written = folder / "scores", ("--json", folder / "scores", "--output", folder / "texts")
    answers = {
        f"`evaluate` of {what}": answer(folder, "dist_s2s.evaluate", *words, *written)
        for what, words in questions.items()
    }
    answers["`score` of an endless pair"] = answer(
        folder, "dist_s2s.score", "--run", run_dir, endless, "--output", scores
    )
    assert not scores.exists()
    assert not (folder / "texts").exists()
    pairs.unlink()
    return answers


def wrong_corpora(folder: Path) -> Answers:
    corpus, output = folder / "many.tsv", folder / "corpus"
    corpus.write_text("".join(f"我有{n}。\tI have {n}.\n" for n in range(60)), encoding="utf-8")
    run("dist_s2s.prepare", corpus, "--output", output, "--workers", 1)
    other = {"data.train": output, "data.source_tokenizer": "words"}
    answers = {"`train` on a corpus that was prepared otherwise": train(folder, **other)}
    again = ("--output", output, "--workers", 1, "--seed", 2)
    answers["`prepare` into another corpus"] = answer(folder, "dist_s2s.prepare", corpus, *again)
    damaged = output / "valid.tsv"
    content = damaged.read_bytes()
    damaged.write_bytes(content.replace("有".encode(), "又".encode(), 1))
    answers["`train` on a damaged corpus"] = train(folder, **{"data.train": output})
    damaged.write_bytes(content)
    manifest = output / "prepared.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text(encoding="utf-8")), "x": 1}), encoding="utf-8")
    answers["`train` on a corpus with an edited manifest"] = train(folder, **{"data.train": output})
    return answers


def wrong_alignments(folder: Path) -> Answers:
    german, english, small, dictionary = (folder / name for name in ("de.vec", "en.vec", "small.vec", "de-en.txt"))
    german.write_text("hund 1 0 2\nkatze 0 1 1\nbaum 1 1 0\n", encoding="utf-8")
    english.write_text("dog 0 1 2\ncat 1 0 1\ntree 2 1 1\n", encoding="utf-8")
    small.write_text("dog 0 1\n", encoding="utf-8")
    answers = {}
    for what, content in DICTIONARIES:
        dictionary.write_text(content, encoding="utf-8")
        words = (german, english, "--dictionary", dictionary)
        answers[f"`align` with {what}"] = answer(folder, "dist_s2s.align", *words)
    answers["`align` of vectors of other dimensions"] = answer(folder, "dist_s2s.align", german, small)
    small.write_text("dog 0 1 nan\n", encoding="utf-8")
    answers["`align` of vectors with nan"] = answer(folder, "dist_s2s.align", german, small)
    small.write_text("dog 0 0 0\ncat 0 0 0\n", encoding="utf-8")
    answers["`align` of vectors that are all zero"] = answer(folder, "dist_s2s.align", german, small)
    answers["`align` with the attention of what is no run"] = answer(
        folder, "dist_s2s.align", german, english, "--attention", folder
    )
    return answers


KINDS: Sequence[Callable[[Path], Answers]] = (wrong_files, wrong_keys, wrong_runs, wrong_corpora, wrong_alignments)


def test_each_wrong_input_has_its_answer(folder: Path) -> None:
    answers: Answers = {}
    for kind in KINDS:
        answers |= kind(folder)
    assert len(answers) >= 40
    rows = "".join(f"| {what} | {said} |\n" for what, said in answers.items())
    table = "# Wrong inputs\n\nEach ends with exit status 2 and what stands here; `⏎` is a new line. Made by\n"
    table += "`tests/test_wrong_inputs.py`, which checks it.\n\n| input | answer |\n|---|---|\n" + rows
    if os.environ.get("WRITE_TABLES"):
        TABLE.write_text(table, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table
