"""The average of a run's checkpoints, written as a run of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import RowPartition
from dist_s2s.storage.checkpoint import core_tensors, list_checkpoints, read_manifest, text_directory
from dist_s2s.storage.derived_runs import write_derived_run
from dist_s2s.storage.publishing import save_tensors
from dist_s2s.storage.quantization import refuse_quantized
from dist_s2s.storage.run_directory import CONFIG
from dist_s2s.storage.table_rows import read_rows, shard_file
from dist_s2s.storage.training_state import model_tensors
from dist_s2s.translation.runs.load import best_checkpoint, read_saved

Manifests = Mapping[Path, dict[str, Any]]  # by checkpoint, oldest first


def newest(run_dir: Path, count: int | None) -> list[Path]:
    """Return the newest checkpoints of a run, or all of them if ``count`` is None."""
    found = list_checkpoints(run_dir / "checkpoints")
    _check_count(run_dir, found, count)
    return found[-(count or len(found)) :]


def of_steps(run_dir: Path, steps: Sequence[int]) -> list[Path]:
    """Return the checkpoints of these steps."""
    found = list_checkpoints(run_dir / "checkpoints")
    for number, step in enumerate(steps):
        if step in steps[:number]:
            raise UserError(f"step {step} is named twice")
        if not any(path.name == f"step-{step}" for path in found):
            raise UserError(f"{run_dir} has no checkpoint of step {step}; there are {_names(found)}")
    return [path for path in found if int(path.name[5:]) in steps]


def around_best(run_dir: Path, count: int) -> list[Path]:
    """Return so many successive checkpoints, with that of the best validation in their middle, or as near as can be."""
    found = list_checkpoints(run_dir / "checkpoints")
    _check_count(run_dir, found, count)
    best = best_checkpoint(run_dir)
    if best is None or best.name != f"step-{read_manifest(found[-1])['progress'].get('best_step')}":
        raise UserError(f"{run_dir} has no checkpoint that is known to be the best; choose by --last or --steps")
    first = min(max(0, found.index(best) - (count - 1) // 2), len(found) - count)
    return found[first : first + count]


def write_average(run_dir: Path, checkpoints: Sequence[Path], output: Path, ranks: Ranks) -> None:
    """Write the mean of each weight in these checkpoints of a run as a run with one checkpoint (collective).

    Each rank writes its share of the rows, and holds that of one table at a time; of the checkpoints it reads blocks
    of rows, one after the other. They may have been saved by any number of ranks. Sums are float64. What is not of a
    floating-point dtype is the newest checkpoint's. Of a run that keeps an average of its weights, those are averaged.
    The output is there whole or not at all.

    Args:
        checkpoints: oldest first, the same on all ranks.

    Raises:
        UserError: on every rank, if a file is missing or damaged, if the checkpoints differ in the tables, the model or
            the vocabularies, or if the output exists or cannot be written.
    """
    told = {"averaged": [path.name for path in checkpoints]}
    write_mean(run_dir, checkpoints, output, ranks, "an average is made of", {}, told)


def write_mean(
    run_dir: Path,
    checkpoints: Sequence[Path],
    output: Path,
    ranks: Ranks,
    purpose: str,
    more_files: Mapping[str, bytes],
    told: Mapping[str, Any],
) -> None:
    """Write what ``write_average`` does, of one checkpoint its very weights.

    Args:
        run_dir, checkpoints, output, ranks: as there.
        purpose: see ``refuse_quantized``.
        more_files: small files that the run has besides.
        told: what its manifest says of how it came about.

    Raises:
        UserError: as there.
    """

    def prepare() -> tuple[Manifests, dict[str, bytes]]:
        manifests = {path: read_manifest(path) for path in checkpoints}
        for path, manifest in manifests.items():
            refuse_quantized(path, manifest, purpose)
        _check_tables(manifests)
        return manifests, {**_run_files(run_dir, checkpoints, output), **more_files}

    manifests, files = ranks.together(prepare)
    last = manifests[checkpoints[-1]]

    def write(folder: Path) -> dict[str, str]:
        sums = {}
        for name, saved in last["tables"].items():
            partition = RowPartition(saved["num_embeddings"], ranks.world_size)
            ids = range(partition.offset(ranks.rank), partition.offset(ranks.rank + 1))
            file = shard_file(name, ranks.rank, ranks.world_size)
            sums[file] = save_tensors(folder / file, {"weight": _mean_rows(manifests, name, ids)})
        if ranks.is_first:
            core = {f"model.{key}": value for key, value in _mean_core(manifests).items()}
            sums["core.safetensors"] = save_tensors(folder / "core.safetensors", core)
        return sums

    here = {"layout": "contiguous", "world_size": ranks.world_size}
    tables = {name: saved | here for name, saved in last["tables"].items()}
    write_derived_run(run_dir, output, files, last, write, {"tables": tables, **told}, ranks)


def _mean_rows(manifests: Manifests, name: str, ids: range) -> Tensor:
    """Return the means of successive rows of a table, [len(ids), D]."""
    rows, done = torch.empty(0), 0
    dim = next(iter(manifests.values()))["tables"][name]["embedding_dim"]
    for blocks in zip(*(read_rows(path, each, name, ids) for path, each in manifests.items()), strict=True):
        if done == 0:
            rows = blocks[-1].new_empty(len(ids), dim)
        rows[done : done + len(blocks[0])] = _mean(blocks)
        done += len(blocks[0])
    return rows if len(ids) else rows.view(0, dim)


def _mean_core(manifests: Manifests) -> dict[str, Tensor]:
    """Return the means of the replicated model's tensors, one checkpoint after the other."""
    totals: dict[str, Tensor] = {}
    for path, manifest in manifests.items():
        newest = model_tensors(core_tensors(path, manifest), averaged=True)
        shapes = {key: list(value.shape) for key, value in newest.items()}
        if totals and shapes != {key: list(value.shape) for key, value in totals.items()}:
            raise UserError(f"{path} holds another model than {next(iter(manifests))}: they can't be averaged")
        for key, value in newest.items():
            totals[key] = value.double() + totals.get(key, 0)
    return {
        key: (totals[key] / len(manifests)).to(value.dtype) if value.is_floating_point() else value
        for key, value in newest.items()
    }


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    total: Tensor = sum(tensor.double() for tensor in tensors)  # type: ignore[assignment]
    return total / len(tensors)


def _check_count(run_dir: Path, found: Sequence[Path], count: int | None) -> None:
    if not found:
        raise UserError(f"{run_dir} has no checkpoint yet; train first, or wait for the first one")
    if count is not None and count > len(found):
        raise UserError(
            f"{run_dir} has only {len(found)} of {count} checkpoints: {_names(found)}; while it trains, it keeps as "
            "many of the newest as training.keep_checkpoints says"
        )


def _names(found: Sequence[Path]) -> str:
    return ", ".join(path.name for path in found) or "none"


def _check_tables(manifests: Manifests) -> None:
    """Raise UserError for the first checkpoint whose tables are not those of the newest."""
    newest, last = list(manifests.items())[-1]
    for path, manifest in manifests.items():
        there, here = _sizes(manifest), _sizes(last)
        for name in {**here, **there}:
            if there.get(name) != here.get(name):
                sizes = f"{there.get(name, 'missing')}, not {here.get(name, 'missing')}"
                raise UserError(f"{path.name} can't be averaged with {newest.name}: its {name} is {sizes}")


def _sizes(manifest: Mapping[str, Any]) -> dict[str, str]:
    tables = manifest["tables"].items()
    return {name: f"{saved['num_embeddings']} x {saved['embedding_dim']}" for name, saved in tables}


def _run_files(run_dir: Path, checkpoints: Sequence[Path], output: Path) -> dict[str, bytes]:
    """Return the small files of the output, by name.

    Raises:
        UserError: if checkpoints have vocabularies of their own, which differ.
    """
    newest = read_saved(run_dir, checkpoints[-1])
    texts = newest.source.files("source") | newest.target.files("target")
    for path in checkpoints:
        if text_directory(path) == text_directory(checkpoints[-1]):
            continue
        other = read_saved(run_dir, path)
        for name, content in (other.source.files("source") | other.target.files("target")).items():
            if content != texts.get(name):
                raise UserError(
                    f"{path.name} can't be averaged with {checkpoints[-1].name}: its {name} is another one, so that "
                    "ids may stand for other words"
                )
    config = newest.config.model_copy(update={"run_dir": output.resolve()})
    return {CONFIG: config.to_yaml().encode(), **texts}
