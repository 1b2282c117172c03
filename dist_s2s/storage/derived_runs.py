"""A run that is made of another one: its weights alone, in one checkpoint, to translate with."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dist_s2s.distributed import Ranks
from dist_s2s.storage.durable_files import check_new, writable
from dist_s2s.storage.publishing import publish
from dist_s2s.storage.run_files import check_run, write_run_files


def write_derived_run(
    origin: Path,
    output: Path,
    files: Mapping[str, bytes],
    newest: Mapping[str, Any],
    write: Callable[[Path], Mapping[str, str]],
    manifest: Mapping[str, Any],
    ranks: Ranks,
) -> None:
    """Write a run with one checkpoint, which has no optimizers' state (collective). It is there whole or not at all.

    Args:
        origin: the run that it is made of, whose training data are told of it.
        output: its directory, which must not exist.
        files: its small files, by name.
        newest: the manifest of the newest checkpoint that it is made of, whose step it has.
        write: see ``publish``.
        manifest: what is to be told of its tables and how they came about.

    Raises:
        UserError: on every rank, if the output exists, or any of them cannot write.
    """
    ranks.together(lambda: check_new(output))  # on every rank, so that all say the same
    partial = output.with_name(f".{output.name}.partial")
    progress = {key: newest["progress"].get(key, 0) for key in ("step", "epoch")}
    scalars: dict[str, Any] = {"core_optimizer": {}, "table_optimizer": {}}

    def begin() -> None:
        if ranks.is_first:
            shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
            with writable(output):
                partial.mkdir()

    def finish() -> None:
        if ranks.is_first:
            write_run_files(partial, files, check_run(origin))
            os.replace(partial, output)

    try:
        ranks.together(begin)
        told = {"progress": progress, "scalars": scalars, "average": None, **manifest}
        publish(partial / "checkpoints", newest["step"], write, lambda: told, ranks)
        ranks.together(finish)
    finally:
        if ranks.is_first:
            shutil.rmtree(partial, ignore_errors=True)
