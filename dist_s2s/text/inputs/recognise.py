"""The one entry point: from what a user names to a reader of its pairs."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.text.inputs.block import Input
from dist_s2s.text.inputs.catalogs import MO_MAGICS, catalog_input
from dist_s2s.text.inputs.debian import debian_input
from dist_s2s.text.inputs.delimited import tsv_input
from dist_s2s.text.inputs.json_lines import json_input
from dist_s2s.text.inputs.packed import PackedFile
from dist_s2s.text.inputs.parallel import parallel_input
from dist_s2s.text.inputs.parquet import MAGIC as PARQUET_MAGIC
from dist_s2s.text.inputs.parquet import parquet_input
from dist_s2s.text.inputs.tmx import tmx_input

SEPARATOR = " + "
_HEAD_BYTES = 1 << 16


def split_inputs(text: str) -> list[str]:
    """Cut `a.tsv + b.zh,b.en` into its inputs; a path that exists is one as it stands."""
    return [text] if os.path.exists(text) else [part.strip() for part in text.split(SEPARATOR)]


def open_inputs(texts: Sequence[str], columns: str | None = None) -> list[Input]:
    """Return the readers of several inputs; see `open_input`."""
    return [open_input(text, columns) for text in texts]


def open_input(text: str, columns: str | None = None) -> Input:
    """Return the reader of an input, whose form its content and its name tell.

    Args:
        text: the path of a file, `archive.zip/member`, two parallel files with a comma between them, or a folder of
            Debian packages.
        columns: what is source and what is target: two numbers for tab-separated columns, two keys for JSON lines
            and Parquet, two languages for TMX and Debian packages.

    Raises:
        UserError: it cannot be read, or what it holds is not recognised.
    """
    if "," in text and not os.path.exists(text):
        sides = [side.strip() for side in text.split(",")]
        if len(sides) != 2:
            raise UserError(f"{text}: parallel files are two, as in a.zh,b.en, but these are {len(sides)}")
        return parallel_input(PackedFile.find(sides[0]), PackedFile.find(sides[1]))
    if os.path.isdir(text):
        packages = debian_input(Path(text), columns)
        return Input(packages.paths, packages.description, packages.blocks)
    return _by_content(PackedFile.find(text), columns)


def _by_content(file: PackedFile, columns: str | None) -> Input:
    """Look at the first bytes, then at the name, and take a text of which neither says anything for columns."""
    head, name = file.begin(_HEAD_BYTES), file.inner_name
    if head.startswith(PARQUET_MAGIC):
        return parquet_input(file, columns)
    if head[:4] in MO_MAGICS:
        return catalog_input(file, columns, is_binary=True)
    if name.endswith((".tsv", ".tab")):
        return tsv_input(file, columns, head)
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if name.endswith(".tmx") or begin.startswith((b"<?xml", b"<tmx", b"<!DOCTYPE tmx")):
        return tmx_input(file, columns)
    if name.endswith((".po", ".pot")) or re.match(rb'(?:#.*\n)*msgid "', begin):
        return catalog_input(file, columns, is_binary=False)
    if name.endswith((".jsonl", ".ndjson", ".json")) or _is_json_object(begin):
        return json_input(file, columns, head)
    return tsv_input(file, columns, head)


def _is_json_object(begin: bytes) -> bool:
    """Tell whether the first line is one, and not a sentence that begins with a brace."""
    if not begin.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(begin.partition(b"\n")[0]), dict)
    except (ValueError, RecursionError):
        return False
