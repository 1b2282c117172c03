"""The rows of a table in a checkpoint, in the order of their ids, whatever ranks and layout they were saved by."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.sharded import RowPartition
from dist_s2s.storage.checkpoint import read_manifest, shard_file
from dist_s2s.storage.durable_files import check_sha256

_ROWS_AT_A_TIME = 1 << 14


def table_size(checkpoint: Path, name: str) -> tuple[int, int]:
    """Return rows and columns of a table.

    Raises:
        UserError: if the checkpoint is damaged, or has no such table.
    """
    tables = read_manifest(checkpoint)["tables"]
    if name not in tables:
        raise UserError(f"{checkpoint} has no {name}, but {', '.join(tables)}")
    return tables[name]["num_embeddings"], tables[name]["embedding_dim"]


def table_rows(checkpoint: Path, name: str, count: int) -> Iterator[Tensor]:
    """Yield the rows of the ids 0 … count - 1 in blocks [N, D], as they were saved. Calls no collectives.

    Raises:
        UserError: as ``table_size``, or if a file is missing or damaged.
    """
    num_rows, _ = table_size(checkpoint, name)
    manifest = read_manifest(checkpoint)
    saved = manifest["tables"][name]
    partition = RowPartition(num_rows, saved["world_size"], saved["layout"])
    with ExitStack() as stack:
        shards = []
        for owner in range(partition.num_shards):
            file = checkpoint / shard_file(name, owner, partition.num_shards)
            check_sha256(file, manifest["sha256"].get(file.name))
            shards.append(stack.enter_context(safe_open(file, framework="pt")).get_slice("weight"))
        for start in range(0, count, _ROWS_AT_A_TIME):
            ids = torch.arange(start, min(start + _ROWS_AT_A_TIME, count))
            positions = partition.positions(ids)
            block = torch.empty(0)
            for owner, shard in enumerate(shards):
                places = positions - partition.offset(owner)
                mine = (places >= 0) & (places < partition.shard_size(owner))
                if mine.any():  # the rows of a run of ids are a run of rows on each owner
                    first, last = int(places[mine][0]), int(places[mine][-1])
                    rows = shard[first : last + 1]
                    block = rows.new_empty(len(ids), rows.shape[1]) if not len(block) else block
                    block[mine] = rows
            yield block
