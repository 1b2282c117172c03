"""Checkpoints: safetensors files and a JSON manifest, in a directory that is renamed into place when it is complete.

    checkpoints/step-500/
        manifest.json                        step, progress, tables, scalars, and each file's SHA-256
        core.safetensors                     the replicated model and its optimizer's state, written by rank 0
        source_table-0-of-4.safetensors      rank 0's rows, and the rows of its optimizer's state; and so on; both files
                                             hold the weights' averages too, if the run keeps any
        source_vocabulary.txt, …             both sides' files, if they change while they are trained, as on a stream

A table is loaded on any number of ranks and in either layout: each rank picks its rows out of the old shards.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.tables.optimizer_state import row_state
from dist_s2s.storage.durable_files import (
    check_sha256,
    read_checked_json,
    sha256_of,
    write_checked_json,
    write_durably,
)
from dist_s2s.storage.publishing import FORMAT, MANIFEST, hide, publish, save_tensors
from dist_s2s.storage.quantization import check_quantization
from dist_s2s.storage.table_rows import AVERAGE, KNOWN, load_rows, shard_file
from dist_s2s.storage.training_state import (
    TrainingState,
    load_average,
    load_optimizer,
    model_tensors,
    replicated_tensors,
    saved_state,
    scalars,
)

_TENSORS = ".safetensors"


def save_checkpoint(
    checkpoints: Path,
    state: TrainingState,
    step: int,
    progress: dict[str, Any],
    ranks: Ranks,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write ``checkpoints/step-N``, see ``publish`` (collective).

    Args:
        progress: JSON values to be given back on resume.
        files: content by name of what else belongs to this step, such as vocabularies that change; the first rank's.

    Raises:
        UserError: on every rank, if any of them cannot write.
    """

    def write(folder: Path) -> dict[str, str]:
        sums = {}
        for name, table in state.tables.items():
            rows = {**row_state(state.table_optimizer, table.weight), **_average_of_rows(state, table)}
            file = shard_file(name, ranks.rank, ranks.world_size)
            sums[file] = save_tensors(folder / file, {"weight": table.weight.detach(), **rows})
        if ranks.is_first:
            sums["core.safetensors"] = save_tensors(folder / "core.safetensors", replicated_tensors(state))
            for name, content in (files or {}).items():
                write_durably(folder / name, content)
                sums[name] = sha256_of(folder / name)
        return sums

    def describe() -> dict[str, Any]:
        return {
            "progress": progress,
            "tables": {name: _describe(table) for name, table in state.tables.items()},
            "scalars": scalars(state),
            "average": _describe_average(state),
        }

    return publish(checkpoints, step, write, describe, ranks)


def save_progress(checkpoint: Path, progress: dict[str, Any]) -> None:
    """Replace what a checkpoint says of progress, where its step has been validated since it was written."""
    write_checked_json(checkpoint / MANIFEST, {**read_manifest(checkpoint), "progress": progress})


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return complete checkpoints, oldest first."""
    found = [path for path in checkpoints.glob("step-*") if (path / MANIFEST).is_file() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete it under another name, so that what is left after a kill is never taken for a checkpoint."""
    shutil.rmtree(hide(checkpoint))


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint. Raises UserError if it is missing, damaged or of another format."""
    try:
        manifest = read_checked_json(checkpoint / MANIFEST)
    except FileNotFoundError:
        raise UserError(f"{checkpoint} is not a checkpoint: it has no {MANIFEST}") from None
    if manifest.get("format") not in (1, FORMAT):
        raise UserError(f"{checkpoint} has format {manifest.get('format')}, but this version reads 1 to {FORMAT}")
    missing = {"step", "progress", "tables", "scalars", "sha256"} - manifest.keys()
    if missing:
        raise UserError(f"{checkpoint / MANIFEST} is damaged: it lacks {', '.join(sorted(missing))}")
    check_quantization(checkpoint, manifest)
    return manifest


def table_of_side(manifest: Mapping[str, Any], side: str) -> str:
    """Return the name of the table that has the rows of "source" or "target": of both, if a run has one for both."""
    name = f"{side}_table"
    return name if name in manifest["tables"] else "target_table"


def text_directory(checkpoint: Path) -> Path:
    """Return where the text files that belong to a checkpoint are: there, if it has its own, or else with its run.

    Raises:
        UserError: if one of its own is damaged or missing.
    """
    sums = read_manifest(checkpoint)["sha256"]
    own = [name for name in sums if not name.endswith(_TENSORS)]
    for name in own:
        check_sha256(checkpoint / name, sums[name])
    return checkpoint if own else checkpoint.parent.parent


def load_weights(checkpoint: Path, core: nn.Module, tables: Mapping[str, DistributedEmbedding]) -> None:
    """Load the model alone, averaged if the run keeps an average. Calls no collectives.

    Raises:
        UserError: for a file that is missing or damaged.
    """
    manifest = read_manifest(checkpoint)
    _load_core(checkpoint, core, model_tensors(core_tensors(checkpoint, manifest), averaged=True))
    for name, table in tables.items():
        load_rows(checkpoint, manifest, name, table, only_weight=True)


def load_training_state(checkpoint: Path, state: TrainingState) -> dict[str, Any]:
    """Load the model and its optimizers, on any number of ranks; return the manifest. Calls no collectives."""
    manifest = read_manifest(checkpoint)
    tensors = core_tensors(checkpoint, manifest)
    _load_core(checkpoint, state.core, model_tensors(tensors, averaged=False))
    core_state = saved_state("core_optimizer", tensors, manifest["scalars"])
    load_optimizer(state.core_optimizer, core_state)
    table_state = saved_state("table_optimizer", tensors, manifest["scalars"])
    averages = {}
    for number, (name, table) in enumerate(state.tables.items()):
        rows = load_rows(checkpoint, manifest, name, table, only_weight=False, averaged=False)
        if AVERAGE in rows:
            averages[name] = rows.pop(AVERAGE), rows.pop(KNOWN)
        if rows:
            table_state.setdefault(number, {}).update(rows)
    load_optimizer(state.table_optimizer, table_state)
    if state.average is not None and manifest.get("average"):
        load_average(state, tensors, averages, manifest["average"]["updates"])
    return manifest


def _load_core(checkpoint: Path, core: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        core.load_state_dict(tensors)
    except RuntimeError as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise UserError(f"{checkpoint} holds another model: {reasons}") from None


def core_tensors(checkpoint: Path, manifest: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the replicated part, see ``replicated_tensors``. Raises UserError for a damaged file."""
    check_sha256(checkpoint / "core.safetensors", manifest["sha256"].get("core.safetensors"))
    return load_file(checkpoint / "core.safetensors")


def _average_of_rows(state: TrainingState, table: DistributedEmbedding) -> dict[str, Tensor]:
    """Return the average of this rank's rows of a table, which may lag behind, and what it knows; or nothing."""
    average, weight = state.average, table.weight
    if average is None or weight not in average.known:
        return {}
    return {AVERAGE: average.averages[weight], KNOWN: average.known[weight]}


def _describe_average(state: TrainingState) -> dict[str, float] | None:
    """Return what the averages of rows catch up by; None if there are none yet."""
    average = state.average
    if average is None or not average.averages:
        return None
    return {"decay": average.decay.decay, "updates": average.updates}


def _describe(table: DistributedEmbedding) -> dict[str, Any]:
    partition = table.partition
    return {
        "num_embeddings": table.num_embeddings,
        "embedding_dim": table.embedding_dim,
        "layout": partition.layout,
        "world_size": partition.num_shards,
    }
