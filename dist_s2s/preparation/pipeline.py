"""The preparation of a corpus from its plan to its manifest; what was done before is not done again."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dist_s2s import UserError
from dist_s2s.preparation.encoding import SIDES, EncodeTask, IdsFile, encode_block, ids_dtype
from dist_s2s.preparation.joining import JoinTask, WrittenFile, join_side
from dist_s2s.preparation.plan import Plan, differences
from dist_s2s.preparation.prepared import check_sums, is_finished, read_manifest, small_file_sums
from dist_s2s.preparation.reading import BlockStatistics, PairsFile, ReadTask, hashes_of, read_block
from dist_s2s.preparation.report import Dropped
from dist_s2s.preparation.selecting import DROPPED, TEST, VALID, Corpus, cut_off, filtered
from dist_s2s.preparation.sides import StoredPairs, build_stored_sides
from dist_s2s.preparation.workers import WorkerLost, ordered_map
from dist_s2s.storage.durable_files import read_checked_json, write_checked_json, write_durably
from dist_s2s.storage.lock import LOCK, RunLock
from dist_s2s.text.corpus import PREPARED_MANIFEST, WORK
from dist_s2s.text.inputs import Input, Pair, open_inputs, read_inputs
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import check_installed

Progress = Callable[[str, int, int | None], None]  # what is being done; how many are done, and of how many if known
_PLAN = "plan.json"


def prepare_corpus(
    plan: Plan, folder: Path, workers: int, progress: Progress, option: str = "--output"
) -> tuple[dict[str, Any], bool]:
    """Write a prepared corpus; return its manifest, and whether there was anything left to do.

    A preparation that was ended goes on where it was. The manifest comes last: without it nothing is taken for a
    corpus.

    Args:
        plan: what to do.
        folder: where; made if it does not exist.
        workers: processes; the result does not depend on it.
        progress: called as the work goes on.
        option: what names the folder on the command line.

    Raises:
        UserError: the inputs cannot be read, or the folder holds something else.
    """
    check_installed(plan.source.tokenizer, plan.target.tokenizer)
    files = plan.files()
    if is_finished(folder):
        manifest = read_manifest(folder)
        changed = differences(
            {**manifest["settings"], "files": manifest["inputs"]}, {**plan.settings(), "files": files}
        )
        if changed:
            raise UserError(
                f"{folder} holds a corpus that was prepared otherwise ({'; '.join(changed)}): give another {option}"
            )
        check_sums(folder, manifest)
        shutil.rmtree(folder / WORK, ignore_errors=True)  # of one that was killed at its very end
        return manifest, False
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder as {option}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / WORK).is_dir():
        raise UserError(f"{folder} holds something else: give a new or an empty folder as {option}")
    with RunLock(folder / WORK, option):
        _begin(folder / WORK, {"settings": plan.settings(), "files": files})
        try:
            manifest = _Preparation(plan, folder, workers, progress).run(files)
        except WorkerLost:
            raise
        except UserError:  # the same plan would come to the same end
            shutil.rmtree(folder / WORK)
            with suppress(OSError):
                folder.rmdir()
            raise
        write_checked_json(folder / PREPARED_MANIFEST, manifest)
        shutil.rmtree(folder / WORK)
    return manifest, True


def _begin(work: Path, plan: dict[str, Any]) -> None:
    """Keep what was done before by the same plan; throw away what another one has left."""
    there = read_checked_json(work / _PLAN) if (work / _PLAN).exists() else None
    if there is not None and not differences(there, plan):
        return
    for remains in work.iterdir():
        if remains.name != LOCK:
            remains.unlink()
    write_checked_json(work / _PLAN, plan)


class _Preparation:
    """The steps of one preparation, each of which leaves files in the work folder."""

    def __init__(self, plan: Plan, folder: Path, workers: int, progress: Progress) -> None:
        self.plan, self.folder, self.work = plan, folder, folder / WORK
        self.workers, self.progress = workers, progress

    def run(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Take all steps; return the manifest."""
        opened = open_inputs(self.plan.inputs, self.plan.columns)
        given = {
            split: read_inputs(name, self.plan.columns, self.plan.skip_bad_lines)
            for split, name in (("valid", self.plan.valid), ("test", self.plan.test))
            if name is not None
        }
        total = self.read(opened)
        places = self.select(given)
        sides = self.build_sides(places)
        ids = self.encode(places)
        if not any(len(IdsFile(file).lengths("source")) for file in ids):
            raise UserError("no pair is left for training: see --filters, and data.max_length")
        for name, content in (sides[0].files("source") | sides[1].files("target")).items():
            write_durably(self.folder / name, content)
        files, pairs = self.join(ids, sides)
        splits = self.write_splits(places, given)
        dropped = self.dropped(places, total.dropped, ids)
        report = {
            "inputs": [each.description for each in opened],
            "lines": total.lines,
            "bad": total.bad.total,
            "bad_lines": total.bad.described(),
            "dropped": dropped.counts,
            "examples": dropped.examples,
            "pairs": {"train": pairs, **splits},
        }
        return _manifest(self.plan, inputs, self.folder, files, sides, report)

    def read(self, inputs: Sequence[Input]) -> BlockStatistics:
        """Read all inputs into files of pairs; return what they held."""
        plan, total = self.plan, BlockStatistics()
        total.bad.skip = plan.skip_bad_lines
        self.pairs: list[PairsFile] = []

        def tasks() -> Iterator[ReadTask]:
            for each in inputs:
                for block in each.blocks():
                    file = self.work / f"pairs-{len(self.pairs):06}.npz"
                    self.pairs.append(PairsFile(file))
                    yield ReadTask(block, file, plan.filters, plan.max_ratio)

        for statistics in ordered_map(read_block, tasks(), self.workers):
            total.lines += statistics.lines
            total.bad.merge(statistics.bad)
            total.dropped.merge(statistics.dropped)
            self.progress("reading", total.lines, None)
        self.workers = min(self.workers, len(self.pairs))  # a process takes longer to begin than a block
        total.bad.check()
        if total.lines == total.bad.total:
            raise UserError(f"{', '.join(plan.inputs)}: there is no pair to be read")
        return total

    def select(self, given: dict[str, list[Pair]]) -> list[np.ndarray]:
        """Return for each block which of its pairs are for what."""
        plan, scripts = self.plan, [block.scripts() for block in self.pairs]
        ends = np.cumsum([len(block) for block in scripts])
        hashes = np.empty((ends[-1], 2), dtype=np.uint64)
        for block, end, size in zip(self.pairs, ends, map(len, scripts), strict=True):
            hashes[end - size : end] = block.hashes()
        corpus = Corpus(hashes, np.concatenate(scripts))
        held_out = [hashes_of(pairs) for pairs in given.values()]
        places = filtered(corpus, plan.filters, np.concatenate([*held_out, np.empty((0, 2), dtype=np.uint64)]))
        if len(given) < 2:
            valid_size = 0 if "valid" in given else plan.valid_size
            test_size = 0 if "test" in given else plan.test_size
            cut_off(corpus, places, valid_size, test_size, plan.seed)
        return np.split(places, ends[:-1])

    def build_sides(self, places: list[np.ndarray]) -> tuple[TextSide, TextSide]:
        """Build both sides from the training pairs, and write their files."""
        self.progress("vocabularies", 0, None)
        pairs = StoredPairs(self.pairs, places, self.plan.vocabulary_pairs)
        sides = build_stored_sides(self.plan.source, self.plan.target, pairs, self.workers)
        for name, content in (sides[0].files("source") | sides[1].files("target")).items():
            file = self.work / name
            if file.exists() and file.read_bytes() != content:  # built elsewhere, before a kill: so are the ids
                for old in self.work.glob("ids-*"):
                    old.unlink()
            write_durably(file, content)
        return sides

    def encode(self, places: list[np.ndarray]) -> list[Path]:
        """Encode all blocks; return their files."""
        files = [self.work / f"ids-{number:06}.npz" for number in range(len(self.pairs))]
        settings = (self.plan.source, self.plan.target)
        max_length = self.plan.max_length if "length" in self.plan.filters else None
        tasks = (
            EncodeTask(pairs.file, rows, file, self.work, settings, max_length)
            for pairs, rows, file in zip(self.pairs, places, files, strict=True)
        )
        sizes, done = [len(rows) for rows in places], 0
        for size, _ in zip(sizes, ordered_map(encode_block, tasks, self.workers), strict=True):
            done += size
            self.progress("encoding", done, sum(sizes))
        return files

    def join(self, ids: list[Path], sides: tuple[TextSide, TextSide]) -> tuple[dict[str, WrittenFile], int]:
        """Write the files of token ids; return them, and how many pairs there are."""
        self.progress("writing", 0, None)
        num_targets = len(sides[1].vocabulary)
        tasks = [
            JoinTask(name, ids_dtype(side), num_tokens, ids, self.folder)
            for name, side, num_tokens in zip(SIDES, sides, (None, num_targets), strict=True)
        ]
        (source, pairs), (target, _) = ordered_map(join_side, tasks, self.workers)
        return source | target, pairs

    def write_splits(self, places: list[np.ndarray], given: dict[str, list[Pair]]) -> dict[str, int]:
        """Write the validation and test pairs as text; return how many there are."""
        lines = {split: [f"{source}\t{target}" for source, target in pairs] for split, pairs in given.items()}
        for split, place in (("valid", VALID), ("test", TEST)):
            if split not in given:
                lines[split] = list(_lines(self.pairs, places, place))
            write_durably(self.folder / f"{split}.tsv", "".join(f"{line}\n" for line in lines[split]))
        return {split: len(lines[split]) for split in ("valid", "test")}

    def dropped(self, places: list[np.ndarray], by_pair: Dropped, ids: list[Path]) -> Dropped:
        """Return what was left out, in the order of the steps."""
        for reason, place in DROPPED.items():
            count = sum(int((rows == place).sum()) for rows in places)
            if count:
                by_pair.add(reason, count, _lines(self.pairs, places, place))
        for file in ids:
            by_pair.merge(IdsFile(file).dropped())
        return by_pair


def _lines(blocks: list[PairsFile], places: list[np.ndarray], place: int) -> Iterator[str]:
    """Yield the lines of all pairs in a place; blocks without any are not read."""
    for block, rows in zip(blocks, places, strict=True):
        yield from map("\t".join, zip(*block.columns(np.flatnonzero(rows == place)), strict=True))


def _manifest(
    plan: Plan,
    inputs: list[dict[str, Any]],
    folder: Path,
    files: dict[str, WrittenFile],
    sides: tuple[TextSide, TextSide],
    report: dict[str, Any],
) -> dict[str, Any]:
    small = [*sides[0].files("source"), *sides[1].files("target"), "valid.tsv", "test.tsv"]
    return {
        "settings": plan.settings(),
        "inputs": inputs,
        "report": report,
        "files": {name: asdict(written) for name, written in files.items()},
        "small_files": small_file_sums(folder, small),
    }
