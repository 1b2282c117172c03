"""How a lookup begins: what each rank finds wrong with its tables, and what all of them agree on before rows move."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.shard import TableShard, called
from dist_s2s.sharded.tables.fingerprint import MOST_PACKED, check_fingerprints, fingerprints, pack, unpack
from dist_s2s.sharded.tables.wrappers import wrapper_error
from dist_s2s.sharded.transport.group import AGREED_ERRORS, RankGroup
from dist_s2s.sharded.transport.protocol import Subject

_MOVED, _REPLACED, _NOTE_BITS = 1, 2, 2  # what a rank notes of its shards
_SHARED_AGAIN = Subject("the end of the sharing again of tables' memory")
_REFUSED = Subject("a lookup that the ranks of another replica have refused")


def prepare(tables: Sequence[TableShard], ids: Sequence[object]) -> tuple[RankGroup, Exception | None]:
    """Return the tables' group, and a ValueError if these tables cannot share an exchange."""
    if not tables:
        raise ValueError("a lookup needs at least one table")
    first = tables[0]
    if len(ids) != len(tables):
        return first.group, ValueError(f"{len(tables)} tables need as many tensors of ids, but got {len(ids)}")
    if any(table.group is not first.group for table in tables):
        return first.group, ValueError(
            "tables that share an exchange must have the same process_group and transport; pass them to each of them"
        )
    dtypes = [table.comm_dtype or table.weight.dtype for table in tables]
    if len(set(dtypes)) > 1:
        return first.group, ValueError(f"rows that share an exchange must travel in the same dtype, but are {dtypes}")
    if any(table.deduplicate != first.deduplicate for table in tables):
        return first.group, ValueError("tables that share an exchange must have the same deduplicate")
    for table in tables:
        if not table.owns_weight and _is_transformed(table.weight):
            raise RuntimeError(
                "torch.func's transforms (grad, vmap, ...) can't pass through a table; call backward() instead"
            )
        if table.weight.is_meta:
            return first.group, RuntimeError(
                f'{called(table)}) is on the meta device, and has no rows; call to_empty(device="cpu") and '
                "reset_parameters() first"
            )
        if not first.group.is_alone and table.weight.device.type != first.group.device.type:
            return first.group, RuntimeError(
                f"{called(table)}) is on {table.weight.device}, but its ranks exchange rows on "
                f"{first.group.device.type}, where it was built; build it where it is to be, with device=..."
            )
    return first.group, wrapper_error(tables)


def begin(tables: Sequence[TableShard], subject: Subject, error: Exception | None) -> bool:
    """Agree to begin, and tell whether all ranks see all rows where they are (collective).

    Shards that have left the memory which the ranks share are put there again, if that can be. One that another tensor
    stands in for, as within functional_call, stays there, but is not read.
    """
    group, marks, count = tables[0].group, fingerprints(tables), len(tables)
    if count <= MOST_PACKED:  # in the note, since a message without numbers is cheaper
        received = group.exchange(subject, error, note=_note(tables) | pack(marks) << _NOTE_BITS)
        check_fingerprints(tables, [unpack(note >> _NOTE_BITS, count) for note in received.notes])
    else:
        received = group.exchange(subject, error, note=_note(tables), numbers=marks)
        check_fingerprints(tables, received.numbers)
    if any(note & _REPLACED for note in received.notes):
        return False
    if any(note & _MOVED for note in received.notes):
        for table in tables:
            table.share_again()
        group.exchange(_SHARED_AGAIN)  # nobody reads before all have put their rows there
    return is_in_place(tables)


@contextmanager
def replicas_told(tables: Sequence[TableShard]) -> Iterator[None]:
    """Let an error that all ranks of the shard group raise within be raised by those of other replicas too.

    They run backward, whose first exchange among replicas this rank joins in place of the backward that it will not
    run. Without gradients replicas have nothing in common, and go on.
    """
    try:
        yield
    except AGREED_ERRORS as error:
        replicas = tables[0].group.replicas
        if replicas.size > 1 and is_trained(tables):
            replicas.agree(_REFUSED, error)
        raise


def is_trained(tables: Sequence[TableShard]) -> bool:
    """Tell whether a lookup will have a backward."""
    return torch.is_grad_enabled() and any(table.weight.requires_grad for table in tables)


def is_in_place(tables: Sequence[TableShard]) -> bool:
    """Tell whether rows are read where they are; the same on all ranks. max_norm changes them before."""
    return all(table.is_in_place and table.max_norm is None for table in tables)


def _note(tables: Sequence[TableShard]) -> int:
    if tables[0].group.size == 1:
        return 0
    if not all(table.owns_weight for table in tables):
        return _REPLACED
    return _MOVED if any(table.has_moved() for table in tables) else 0


def _is_transformed(weight: Tensor) -> bool:
    """Tell whether it is a tensor of torch.func's, without memory of its own."""
    try:
        weight.data_ptr()
    except RuntimeError:
        return True
    return False
