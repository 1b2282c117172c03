"""Where the parameters of a translator live, and how many bytes they take."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from rich.table import Table
from torch import nn

from dist_s2s.sharded import DistributedEmbedding


@dataclass(frozen=True)
class Parameter:
    """A parameter tensor, or a part of the model: bytes of the first rank, which has the most, and of all ranks."""

    name: str
    shape: str
    placement: str
    bytes_per_rank: int
    bytes_in_all: int


def list_parameters(core: nn.Module, tables: Mapping[str, DistributedEmbedding], world_size: int) -> list[Parameter]:
    """Return every parameter tensor: those of the sharded tables, then those of the replicated model."""
    found = []
    for name, table in tables.items():
        row_bytes = table.embedding_dim * table.weight.element_size()
        here, everywhere = table.partition.shard_size(0) * row_bytes, table.num_embeddings * row_bytes
        shape = f"{table.num_embeddings:,} x {table.embedding_dim}"
        found.append(Parameter(f"{name}.weight", shape, f"sharded by {world_size}", here, everywhere))
    for name, parameter in core.named_parameters():
        size = parameter.numel() * parameter.element_size()
        shape = " x ".join(f"{number:,}" for number in parameter.shape)
        found.append(Parameter(name, shape, "replicated", size, size * world_size))
    return found


def summarize(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return a line for each part of the model: a table, the encoder, the decoder, the output layer."""
    parts = []
    for name, group in groupby(parameters, key=lambda parameter: parameter.name.split(".")[0]):
        members = list(group)
        shape = members[0].shape if len(members) == 1 else f"{len(members)} tensors"
        per_rank, in_all = (sum(sizes) for sizes in zip(*map(_sizes, members), strict=True))
        parts.append(Parameter(name, shape, members[0].placement, per_rank, in_all))
    return parts


def parameter_table(title: str, parameters: Iterable[Parameter]) -> Table:
    """Return a table with a line for each parameter or part, and their sum."""
    grid = Table(title=title, title_justify="left")
    for column in ("parameter", "shape", "placement"):
        grid.add_column(column, no_wrap=True)
    grid.add_column("bytes per rank", justify="right")
    grid.add_column("bytes in all ranks", justify="right")
    per_rank = in_all = 0
    for each in parameters:
        grid.add_row(each.name, each.shape, each.placement, f"{each.bytes_per_rank:,}", f"{each.bytes_in_all:,}")
        per_rank, in_all = per_rank + each.bytes_per_rank, in_all + each.bytes_in_all
    grid.add_section()
    grid.add_row("total", "", "", f"{per_rank:,}", f"{in_all:,}")
    return grid


def _sizes(parameter: Parameter) -> tuple[int, int]:
    return parameter.bytes_per_rank, parameter.bytes_in_all
