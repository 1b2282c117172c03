"""Parquet, two columns of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryFile
from typing import Any

from dist_s2s import UserError
from dist_s2s.text.extras import extra
from dist_s2s.text.inputs.block import Input, PairsBlock, Parsed, add_pair
from dist_s2s.text.inputs.keys import choose_keys
from dist_s2s.text.inputs.packed import PackedFile

MAGIC = b"PAR1"
_BLOCK_ROWS = 20_000


def parquet_input(file: PackedFile, columns: str | None) -> Input:
    """Return the reader of a Parquet file.

    Args:
        file: the file.
        columns: the names of two columns, with dots for what lies within: `translation.de,translation.en`; None: the
            two that hold text.

    Raises:
        UserError: it cannot be told which columns are meant, one is missing, or the file is damaged.
    """
    with _opened(file) as parquet:
        there = _text_columns(parquet.schema_arrow)
        keys, decided = choose_keys(str(file), columns, lambda: dict.fromkeys(there, ""))
    missing = [key for key in keys if key not in there]
    if missing:
        raise UserError(f"{file} has no column of text {missing[0]}: it has {', '.join(there) or 'none'}")
    description = f"{file}: Parquet, from {keys[0]} to {keys[1]}, {decided}"
    return Input([file.path], description, partial(_blocks, file, keys))


def _blocks(file: PackedFile, keys: tuple[str, str]) -> Iterator[PairsBlock]:
    """Yield its rows, a part of each row group at a time."""
    name, row = str(file), 0
    with _opened(file) as parquet:
        for batch in parquet.iter_batches(batch_size=_BLOCK_ROWS, columns=list(keys)):
            parsed = Parsed()
            columns = [_column(batch, key).to_pylist() for key in keys]
            for source, target in zip(*columns, strict=True):
                row += 1
                add_pair(parsed, name, f"row {row}", source, target)
            yield PairsBlock(parsed)


@contextmanager
def _opened(file: PackedFile) -> Iterator[Any]:
    """Open a Parquet file; one that is packed is unpacked to the disk, since it is not read from front to back."""
    parquet = extra("pyarrow.parquet", "parquet", f"{file}, a Parquet file,")
    arrow = extra("pyarrow", "parquet", f"{file}, a Parquet file,")
    with TemporaryFile() as unpacked, file.reading() as stream:
        seekable = stream
        if file.member is not None or file.path.name.lower() != file.inner_name:
            shutil.copyfileobj(stream, unpacked, 1 << 20)
            unpacked.seek(0)
            seekable = unpacked
        try:
            yield parquet.ParquetFile(seekable)
        except (arrow.ArrowException, ValueError) as error:
            raise UserError(f"{file} is a damaged Parquet file: {str(error).splitlines()[0]}") from None


def _text_columns(schema: Any) -> list[str]:
    names = []
    for field in schema:
        inner = [field.type.field(n) for n in range(field.type.num_fields)] if _is_struct(field.type) else []
        names += [f"{field.name}.{each.name}" for each in inner if _is_text(each.type)]
        if _is_text(field.type):
            names.append(field.name)
    return names


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _is_struct(kind: Any) -> bool:
    return str(kind).startswith("struct<")


def _column(batch: Any, key: str) -> Any:
    if key in batch.schema.names:
        return batch.column(key)
    outer, _, inner = key.partition(".")
    return batch.column(outer).field(inner)
