"""A prepared corpus is the same however it came about, and holds what training would read from the files."""

import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dist_s2s import UserError
from dist_s2s.config import load_config
from dist_s2s.preparation.pipeline import prepare_corpus
from dist_s2s.preparation.plan import Plan, plan_of
from dist_s2s.preparation.prepared import open_prepared
from dist_s2s.preparation.report import REASONS, report_lines
from dist_s2s.text.batches import global_batches, rank_batch
from dist_s2s.text.building import build_sides
from dist_s2s.text.corpus import encode_pairs, load_pairs
from dist_s2s.text.side import SideSettings
from tests.kills import killed_at_every_change
from tests.toy_corpus import PAIRS

LONG = ("我看见树", " ".join(["tree"] * 8))
DROPPED = {
    "identical": [("猫", "猫")],
    "ratio": [("树", "a tree that is far too long for so short a source")],
    "duplicates": [PAIRS[0], PAIRS[7]],
    "script": [("猫和树", "кошка и дерево"), ("a cat", "a cat and a tree")],
    "leaks": [("你好", "held out"), ("留着", "another")],
    "length": [LONG, ("ー" * 9, "so be it then")],
}
HELD_OUT = [("留着", "held out"), ("月亮和猫", "the moon and a cat")]


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return path


def make_plan(folder: Path, pairs: list[tuple[str, str]], held_out: bool = True, **changes: object) -> Plan:
    config = load_config(None, {"data.max_length": "7", "data.min_frequency": "2"})
    valid = str(write(folder / "valid.tsv", HELD_OUT)) if held_out else None
    plan = plan_of(
        config,
        inputs=(str(write(folder / "train.tsv", pairs)),),
        valid=valid,
        test=valid,
        filters=tuple(REASONS),
        max_ratio=6.0,
        valid_size=None,
        test_size=None,
        seed=1,
        vocabulary_pairs=1000,
    )
    return replace(plan, **changes)


def prepare(folder: Path, plan: Plan, workers: int = 1) -> None:
    prepare_corpus(plan, folder, workers, lambda *_: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_s2s.text.inputs.lines.BLOCK_BYTES", 700)


@pytest.fixture
def pairs() -> list[tuple[str, str]]:
    mixed = [pair for reason in REASONS for pair in DROPPED[reason]]
    return PAIRS[:20] + mixed[:5] + PAIRS[20:] + mixed[5:]


def test_each_filter_leaves_out_its_pairs_and_says_so(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    manifest, is_new = prepare_corpus(make_plan(tmp_path, pairs), tmp_path / "out", 1, lambda *_: None)
    report = manifest["report"]
    assert is_new
    assert report["dropped"] == {reason: len(DROPPED[reason]) for reason in REASONS}
    found = {reason: [tuple(line.split("\t")) for line in lines] for reason, lines in report["examples"].items()}
    assert found == DROPPED
    assert report["pairs"] == {"train": len(PAIRS), "valid": 2, "test": 2}
    shown = report_lines(report)
    assert f"{len(pairs):,} lines read, 0 of them are no pair" in shown
    assert "2 pairs left out by the filter script: a side mostly in another script than the rest" in shown
    again, is_new = prepare_corpus(make_plan(tmp_path, pairs), tmp_path / "out", 1, lambda *_: None)
    assert not is_new
    assert again["report"] == report


def test_filters_can_be_left_out(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    manifest, _ = prepare_corpus(make_plan(tmp_path, pairs, filters=()), tmp_path / "out", 1, lambda *_: None)
    assert manifest["report"]["dropped"] == {}
    assert manifest["report"]["pairs"]["train"] == len(pairs)


def test_batches_are_those_of_a_corpus_in_memory(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    plan = make_plan(tmp_path, pairs, filters=("length",))
    prepare(tmp_path / "out", plan)
    mapped = open_prepared(tmp_path / "out")
    text = load_pairs(plan.inputs[0], "train")
    sides = build_sides(plan.source, plan.target, text)
    examples, dropped = encode_pairs(text, *sides, plan.max_length)
    assert list(mapped.train) == list(examples)
    assert (mapped.dropped, dropped, len(examples)) == (3, 3, len(pairs) - 3)
    assert torch.equal(mapped.train.lengths, examples.lengths)
    for epoch in range(2):
        batches = global_batches(mapped.train, 40, 1, epoch)
        assert batches == global_batches(examples, 40, 1, epoch)
        for batch in batches:
            one, other = rank_batch(mapped.train, batch, 1, 2), rank_batch(examples, batch, 1, 2)
            assert torch.equal(one.source, other.source)
            assert torch.equal(one.target_out, other.target_out)
            assert one.global_target_tokens == other.global_target_tokens
    counted = torch.bincount(torch.tensor([2 for _ in examples] + [t for e in examples for t in e.target]))
    assert torch.equal(mapped.train.target_counts()[: len(counted)], counted)


def test_another_vocabulary_than_that_of_the_run_is_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, PAIRS)
    prepare(tmp_path / "out", plan)
    corpus = open_prepared(tmp_path / "out")
    source, target = build_sides(plan.source, plan.target, PAIRS[:9])
    corpus.check_side("target", build_sides(plan.source, plan.target, PAIRS)[1])
    with pytest.raises(UserError, match=r"was prepared with another target_vocabulary\.txt than the run has"):
        corpus.check_side("target", target)
    with pytest.raises(UserError, match=r"another source_vocabulary\.txt"):
        corpus.check_side("source", source)


def test_ids_of_a_large_vocabulary_take_four_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_s2s.preparation.encoding.ids_dtype", lambda side: np.dtype("<u4"))
    monkeypatch.setattr("dist_s2s.preparation.pipeline.ids_dtype", lambda side: np.dtype("<u4"))
    prepare(tmp_path / "out", make_plan(tmp_path, PAIRS))
    assert np.load(tmp_path / "out" / "train.source.ids.npy", mmap_mode="r").dtype == np.uint32
    assert len(open_prepared(tmp_path / "out").train[0].source) == 5


def test_the_result_does_not_depend_on_repetition_or_workers(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    plan = make_plan(tmp_path, pairs)
    for name, workers in (("one", 1), ("again", 1), ("two", 2)):
        prepare(tmp_path / name, plan, workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "again") == contents(tmp_path / "two")


def test_splits_are_cut_off_so_that_no_side_leaks(tmp_path: Path) -> None:
    pairs = [(f"源{number}", f"target {number}") for number in range(300)]
    pairs += [(f"源{number}", f"other {number}") for number in range(60)]  # sources with two targets
    for seed in (1, 1, 2):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        prepare(folder, make_plan(tmp_path, pairs, held_out=False, valid_size=20, test_size=30, seed=seed))
    first, same, other = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert contents(first) == contents(same)
    assert contents(first)["test.tsv"] != contents(other)["test.tsv"]
    valid, test = (load_pairs(str(first), split) for split in ("valid", "test"))
    assert (len(valid), len(test), len(open_prepared(first).train)) == (20, 30, 310)
    train = set(pairs) - set(valid) - set(test)
    for side in (0, 1):
        splits = [{pair[side] for pair in split} for split in (valid, test, train)]
        assert len(set.union(*splits)) == sum(map(len, splits))
    with pytest.raises(UserError, match="too few to cut off 200 for validation and 100 for the test"):
        prepare(tmp_path / "few", make_plan(tmp_path, pairs, held_out=False, valid_size=200, test_size=100))


def prepared_again(plan: Plan, folder: Path) -> None:
    prepare(folder, plan)


def test_a_kill_at_any_moment_leaves_nothing_or_something_to_go_on_with(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, PAIRS[:12], filters=("duplicates",))  # two blocks
    prepare(tmp_path / "whole", plan)
    remains = killed_at_every_change(partial(prepared_again, plan), tmp_path / "nothing", tmp_path / "work")
    assert len(remains) > 20
    for folder in remains:
        if not (folder / "prepared.json").exists() and (folder / ".work").exists():
            with pytest.raises(UserError, match="is only half prepared: run the same dist-s2s prepare again"):
                load_pairs(str(folder), "valid")
        prepare(folder, plan)
        assert contents(folder) == contents(tmp_path / "whole")


def test_ids_of_other_sides_are_not_taken_over(tmp_path: Path) -> None:
    """As where subwords are learnt again on a machine that computes otherwise."""
    plan = make_plan(tmp_path, PAIRS[:12], filters=("duplicates",))
    prepare(tmp_path / "whole", plan)
    folder = tmp_path / "again"
    stopped(folder, plan, "writing")
    vocabulary = folder / ".work" / "source_vocabulary.txt"
    vocabulary.write_text("\n".join(reversed(vocabulary.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    for ids in folder.glob(".work/ids-*"):
        ids.write_bytes(b"")  # ids of that vocabulary, which would be damaged files if they were read
    prepare(folder, plan)
    assert contents(folder) == contents(tmp_path / "whole")


class Stop(Exception):
    pass


def stopped(folder: Path, plan: Plan, step: str) -> dict[str, int]:
    """Stops a preparation in one of its steps; returns which blocks' files it has left, and when each was written."""

    def stop(name: str, done: int, total: int | None) -> None:
        if name == step:
            raise Stop

    with pytest.raises(Stop):
        prepare_corpus(plan, folder, 1, stop)
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(".work/*.npz")}


def test_blocks_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, PAIRS)
    prepare(tmp_path / "whole", plan)
    half = tmp_path / "half"
    read = stopped(half, plan, "reading")
    assert list(read) == ["pairs-000000.npz"]
    more = stopped(half, plan, "encoding")
    assert more.items() > read.items()
    prepare(half, plan)
    assert contents(half) == contents(tmp_path / "whole")


def test_work_of_another_plan_is_not_taken_over(tmp_path: Path) -> None:
    stopped(tmp_path / "half", make_plan(tmp_path, PAIRS), "writing")
    other = make_plan(tmp_path, PAIRS, filters=())
    for name in ("half", "whole"):
        prepare(tmp_path / name, other)
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prepared.json", "prepared.json is damaged"),
        ("valid.tsv", "valid.tsv is damaged: its SHA-256 is not the one in prepared.json"),
        ("source_vocabulary.txt", "source_vocabulary.txt is damaged"),
        ("train.target.counts.npy", "train.target.counts.npy is damaged"),
        ("train.source.ids.npy", "train.source.ids.npy is damaged between bytes 0 and 1,048,576"),
        ("train.target.ends.npy", "train.target.ends.npy is damaged between bytes 0 and 1,048,576"),
    ],
)
def test_a_flipped_bit_is_found_before_it_is_used(tmp_path: Path, name: str, message: str) -> None:
    plan = make_plan(tmp_path, PAIRS)
    prepare(tmp_path / "out", plan)
    file = tmp_path / "out" / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + bytes([whole[-4] ^ 4]) + whole[-3:])
    with pytest.raises(UserError, match=message):
        open_prepared(tmp_path / "out").train[3]
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        prepare(tmp_path / "out", plan)
    file.write_bytes(whole[:-2])
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        open_prepared(tmp_path / "out")
    file.unlink()
    with pytest.raises((UserError, FileNotFoundError), match=name):
        open_prepared(tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, PAIRS)
    with pytest.raises(UserError, match="holds something else: give a new or an empty folder"):
        prepare(tmp_path, plan)
    with pytest.raises(UserError, match="is a file: give a folder"):
        prepare(tmp_path / "train.tsv", plan)
    prepare(tmp_path / "out", plan)
    with pytest.raises(UserError, match=r"prepared otherwise \(filters: .*; seed: 1 there, 2 here\)"):
        prepare(tmp_path / "out", replace(plan, seed=2, filters=()))
    shutil.copy(tmp_path / "valid.tsv", tmp_path / "train.tsv")
    with pytest.raises(UserError, match=r"prepared otherwise \(the content of its inputs\)"):
        prepare(tmp_path / "out", plan)


def test_bad_lines_are_told_of_all_blocks(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, PAIRS)
    lines = (tmp_path / "train.tsv").read_text(encoding="utf-8").splitlines()
    bad = [*lines[:10], "no tab", *lines[10:], "\tno source", "another"]
    (tmp_path / "train.tsv").write_text("".join(f"{line}\n" for line in bad), encoding="utf-8")
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "out", plan)
    assert "train.tsv line 11 has no tab: expected SOURCE<TAB>TARGET; so do 1 more (line 51)" in str(error.value)
    assert "3 in all: mend them" in str(error.value)
    manifest, _ = prepare_corpus(replace(plan, skip_bad_lines=True), tmp_path / "out", 1, lambda *_: None)
    assert (manifest["report"]["lines"], manifest["report"]["bad"]) == (51, 3)


def test_a_missing_extra_is_told_before_anything_is_read(
    tmp_path: Path, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    plan = make_plan(tmp_path, pairs, source=SideSettings("jieba"))
    monkeypatch.setattr(Plan, "files", lambda self: pytest.fail("the inputs were read"))
    with pytest.raises(UserError, match=r"cutting Chinese into words needs the extra \"jieba\": pip install"):
        prepare(tmp_path / "corpus", plan)
    assert not (tmp_path / "corpus").exists()
