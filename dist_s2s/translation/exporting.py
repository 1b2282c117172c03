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
from dist_s2s.storage.checkpoint import read_manifest, table_of_side
from dist_s2s.storage.durable_files import writable
from dist_s2s.storage.table_rows import read_rows
from dist_s2s.text.extras import extra
from dist_s2s.text.vectors.writing import write_projector, write_word2vec
from dist_s2s.translation.load import read_run

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
    if output.exists():
        raise UserError(f"{output} exists; give another --output")
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
