"""From a run's best checkpoint to files of word vectors."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from dist_s2s.storage.checkpoint import read_manifest, table_of_side
from dist_s2s.storage.durable_files import check_new, writable
from dist_s2s.storage.quantization import refuse_quantized
from dist_s2s.storage.table_rows import read_rows
from dist_s2s.text.extras import extra
from dist_s2s.text.vectors.writing import write_projector, write_word2vec
from dist_s2s.translation.runs.averaging import write_mean
from dist_s2s.translation.runs.load import SavedRun, load_saved, read_run
from dist_s2s.translation.runs.quantizing import write_quantized
from dist_s2s.translation.search.shortlist import SHORTLIST, Shortlist

Rows = Iterator[NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """What was written, and from where."""

    checkpoint: Path
    count: int
    dim: int


def export_vectors(run_dir: Path, side: str, form: str, output: Path) -> Exported:
    """Write the vectors of all tokens of a side, "source" or "target", of the run's best checkpoint.

    The output is there whole or not at all.

    Args:
        form: one of ``dist_s2s.export.FORMATS``.

    Raises:
        UserError: if there is no run, no checkpoint, or a file of them is damaged; if ``output`` exists, or cannot be
            written; or without gensim for its form.
    """
    check_new(output)
    run = read_run(run_dir)
    tokens = (run.source if side == "source" else run.target).vocabulary.tokens
    checkpoint, manifest = run.checkpoint, read_manifest(run.checkpoint)
    table = table_of_side(manifest, side)
    dim = manifest["tables"][table]["embedding_dim"]
    rows = (block.float().numpy() for block in read_rows(checkpoint, manifest, table, range(len(tokens))))
    partial = output.with_name(f".{output.name}.partial")
    _remove(partial)
    try:
        with writable(output):
            _write(form, partial, tokens, dim, rows)
            os.replace(partial, output)
    finally:
        _remove(partial)
    return Exported(checkpoint, len(tokens), dim)


def check_export(run_dir: Path, output: Path, option: str, ranks: Ranks) -> SavedRun:
    """Return the run that is to be written as another, for translating; ``option`` is what asks for it.

    Raises:
        UserError: as ``read_run``; if there are several ranks; if the run is quantised or has a shortlist already; or
            if ``output`` exists.
    """
    if ranks.world_size > 1:
        raise UserError(f"export {option} runs in one process, not on {ranks.world_size} ranks: leave out torchrun")
    check_new(output)
    run = read_run(run_dir)
    refuse_quantized(run.checkpoint, read_manifest(run.checkpoint), f"export {option} begins with")
    if (run_dir / SHORTLIST).exists():
        raise UserError(f"{run_dir} has a shortlist already: give the run that it was exported from")
    return run


def export_shortlist(run_dir: Path, output: Path, shortlist: Shortlist, ranks: Ranks) -> Path:
    """Write the run's best checkpoint with a shortlist as a run of its own; return the checkpoint.

    Raises:
        UserError: as ``check_export``, or ``output`` cannot be written.
    """
    run = check_export(run_dir, output, "--shortlist", ranks)
    files = {SHORTLIST: shortlist.to_bytes(run.source, run.target)}
    write_mean(run_dir, [run.checkpoint], output, ranks, "", files, {"shortlist": True})
    return run.checkpoint


def export_quantized(
    run_dir: Path, output: Path, ranks: Ranks, shortlist: Shortlist | None = None
) -> tuple[Path, int, int]:
    """Write the run's best checkpoint with int8 weights as a run of its own, see ``write_quantized``.

    Args:
        shortlist: of the run that is written; None: it has none.

    Returns:
        The checkpoint, the bytes of its weights as float32, and those that were written.

    Raises:
        UserError: as ``check_export`` and ``load_saved``, or ``output`` cannot be written.
    """
    run = check_export(run_dir, output, "--quantize", ranks)
    files = {} if shortlist is None else {SHORTLIST: shortlist.to_bytes(run.source, run.target)}
    translator = load_saved(run, run_dir, ranks)
    write_quantized(translator, run_dir, run.checkpoint, output, files)
    written = sum(file.stat().st_size for file in output.glob("checkpoints/*/*"))
    return run.checkpoint, 4 * translator.num_parameters, written


def _write(form: str, path: Path, tokens: Sequence[str], dim: int, rows: Rows) -> None:
    match form:
        case "word2vec" | "word2vec_binary":
            write_word2vec(path, tokens, dim, rows, binary=form == "word2vec_binary")
        case "projector":
            write_projector(path, tokens, rows)
        case "safetensors":
            path.mkdir()
            save_file({"weight": np.concatenate(list(rows))}, path / "vectors.safetensors")
            (path / "vocabulary.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
        case "keyedvectors":
            path.mkdir()
            _write_keyed_vectors(path / "vectors.kv", tokens, dim, rows)


def _write_keyed_vectors(path: Path, tokens: Sequence[str], dim: int, rows: Rows) -> None:
    vectors = extra("gensim.models", "gensim", "--format keyedvectors").KeyedVectors(dim)
    vectors.add_vectors(list(tokens), np.concatenate(list(rows)))
    vectors.save(str(path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
