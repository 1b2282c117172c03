"""The rows of a table in a checkpoint, whatever ranks and layout they were saved by."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.sharded import DistributedEmbedding, RowPartition
from dist_s2s.sharded.averaging import Decay, caught_up
from dist_s2s.storage.durable_files import check_sha256
from dist_s2s.storage.quantization import SCALE, dequantize, to_words, words_per_row

AVERAGE, KNOWN = "average", "average_updates"  # of rows, if the run keeps an average; see MovingAverage
_ROWS_AT_A_TIME = 1 << 16


def shard_file(name: str, rank: int, world_size: int) -> str:
    """Return the file name of one rank's rows of a table."""
    return f"{name}-{rank}-of-{world_size}.safetensors"


@torch.no_grad()
def load_rows(
    checkpoint: Path,
    manifest: dict[str, Any],
    name: str,
    table: DistributedEmbedding,
    *,
    only_weight: bool,
    averaged: bool = True,
    new_ids: Tensor | None = None,
    as_words: bool = False,
) -> dict[str, Tensor]:
    """Copy this rank's rows into the table, block by block, from whatever shards hold them. Calls no collectives.

    Args:
        manifest: that of the checkpoint.
        only_weight: leave the optimizer's state.
        averaged: take the weights' average, if the run has kept one; False: the weights that are trained, and the
            average and what it knows as further rows.
        new_ids: where each row of the checkpoint belongs, int64 [its rows], -1 for nowhere; the table may then have
            another number of rows, and those that none belongs to stay as they are. By default all stay in place.
        as_words: the rows are quantised, and the table holds them as words.

    Returns:
        This rank's rows of the optimizer's state and the average, zeros where there were none.

    Raises:
        UserError: for a table of another size, or a file that is missing or damaged.
    """
    old, new, saved = _partition(manifest, name), table.partition, manifest["tables"][name]
    width = words_per_row(saved["embedding_dim"]) if as_words else saved["embedding_dim"]
    sizes = [(saved["num_embeddings"], width), (table.num_embeddings, table.embedding_dim)]
    if sizes[0][1] != sizes[1][1] or (new_ids is None and sizes[0] != sizes[1]):
        there, here = (f"{rows} x {columns}" for rows, columns in sizes)
        raise UserError(f"{checkpoint}: {name} is {there}, not {here}")
    first, end = new.offset(table.rank), new.offset(table.rank + 1)
    local = {"weight": table.weight.detach()}
    for owner in [table.rank] if old == new and new_ids is None else range(old.num_shards):
        file = checkpoint / shard_file(name, owner, old.num_shards)
        check_sha256(file, manifest["sha256"].get(file.name))
        with safe_open(file, framework="pt") as shard:
            keys = shard.keys()
            if only_weight:
                keys = ["weight"]
            elif averaged:
                keys = [key for key in keys if key not in (AVERAGE, KNOWN)]
            for start in range(0, old.shard_size(owner), _ROWS_AT_A_TIME):
                stop = min(start + _ROWS_AT_A_TIME, old.shard_size(owner))
                ids = old.ids(owner, start, stop)
                ids = ids if new_ids is None else new_ids[ids]
                places = new.positions(ids.clamp(min=0)) - first
                mine = (ids >= 0) & (places >= 0) & (places < end - first)
                if not mine.any():
                    continue
                for key in keys:
                    if as_words:
                        block = to_words(*(shard.get_slice(name)[start:stop] for name in ("weight", SCALE)))
                    elif key == "weight" and averaged:
                        block = _averaged(shard, slice(start, stop), manifest)
                    else:
                        block = shard.get_slice(key)[start:stop]
                    if key not in local:
                        local[key] = block.new_zeros(end - first, *block.shape[1:], device=table.weight.device)
                    local[key][places[mine]] = block[mine].to(local[key])  # device and dtype
    del local["weight"]
    return local


def read_rows(checkpoint: Path, manifest: dict[str, Any], name: str, ids: range) -> Iterator[Tensor]:
    """Yield the rows of successive ids in blocks [N, D], averaged if the run keeps an average (local).

    Raises:
        UserError: if a file is missing or damaged.
    """
    partition = _partition(manifest, name)
    with ExitStack() as stack:
        shards = {}
        for owner in _owners(partition, ids):
            file = checkpoint / shard_file(name, owner, partition.num_shards)
            check_sha256(file, manifest["sha256"].get(file.name))
            shards[owner] = stack.enter_context(safe_open(file, framework="pt"))
        for start in range(ids.start, ids.stop, _ROWS_AT_A_TIME):
            block = torch.arange(start, min(start + _ROWS_AT_A_TIME, ids.stop))
            parts, places = [], []
            for owner, shard in shards.items():
                rows = partition.positions(block) - partition.offset(owner)
                mine = ((rows >= 0) & (rows < partition.shard_size(owner))).nonzero()[:, 0]
                if len(mine):  # a run of ids is a run of rows on each owner
                    run = slice(int(rows[mine[0]]), int(rows[mine[-1]]) + 1)
                    parts.append(_averaged(shard, run, manifest))
                    places.append(mine)
            yield torch.cat(parts)[torch.cat(places).argsort()]


def _owners(partition: RowPartition, ids: range) -> list[int]:
    """Return the owners of successive ids; of a round-robin layout all, which own some unless the ids are very few."""
    owners = range(partition.num_shards)
    if partition.layout == "round_robin":
        return list(owners)
    return [owner for owner in owners if partition.offset(owner) < ids.stop and partition.offset(owner + 1) > ids.start]


def _averaged(shard: Any, rows: slice, manifest: dict[str, Any]) -> Tensor:
    """Return weights [N, D] of an open file: their average, if there is one; float32 if they are quantised."""
    weight: Tensor = shard.get_slice("weight")[rows]
    names = shard.keys()
    if SCALE in names:
        return dequantize(weight, shard.get_slice(SCALE)[rows])
    if AVERAGE not in names:
        return weight
    average, known = (shard.get_slice(key)[rows] for key in (AVERAGE, KNOWN))
    kept = Decay(manifest["average"]["decay"]).since(known, manifest["average"]["updates"])
    return caught_up(average, weight, kept)


def _partition(manifest: dict[str, Any], name: str) -> RowPartition:
    saved = manifest["tables"][name]
    return RowPartition(saved["num_embeddings"], saved["world_size"], saved["layout"])
