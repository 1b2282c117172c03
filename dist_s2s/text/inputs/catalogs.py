"""Gettext's message catalogs: `.po` as translators write it, `.mo` as programs read it."""

import re
import struct
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import BinaryIO

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine, Input, PairsBlock, Parsed, add_pair
from dist_s2s.text.inputs.lines import single_lines
from dist_s2s.text.inputs.packed import PackedFile

MO_MAGICS = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}
_MO_BYTES = 1 << 28
_BLOCK_MESSAGES = 10_000
_CHARSET = re.compile(r"charset=([\w.:-]+)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_STATEMENT = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr(?:\[\d+\])?)?\s*("(?:[^"\\]|\\.)*")\s*')


Message = tuple[str, str, str | BadLine]  # where it stands, the message, its translation


def catalog_input(file: PackedFile, columns: str | None, is_binary: bool) -> Input:
    """Return the reader of a catalog: messages, and their translations, but none that is missing or doubtful (fuzzy).

    `columns` is `msgid,msgstr`, `msgstr,msgid`, or None for the former.
    """
    directions = {None: False, "msgid,msgstr": False, "msgstr,msgid": True}
    if columns not in directions:
        raise UserError(f"--columns of {file} are msgid,msgstr or msgstr,msgid, but are {columns!r}")
    form = "gettext's .mo" if is_binary else "gettext's .po"
    direction = "from translation to message" if directions[columns] else "from message to translation"
    description = f"{file}: {form}, {direction} (--columns msgid,msgstr or msgstr,msgid)"
    return Input([file.path], description, partial(_blocks, file, is_binary, directions[columns]))


def _blocks(file: PackedFile, is_binary: bool, is_reversed: bool) -> Iterator[PairsBlock]:
    name = str(file)
    with file.reading() as stream:
        messages = read_mo(stream, name) if is_binary else read_po(stream, name)
        while batch := list(islice(messages, _BLOCK_MESSAGES)):
            parsed = Parsed()
            for place, source, target in batch:
                if isinstance(target, BadLine):
                    parsed.bad.append(target)
                else:
                    sides = (target, source) if is_reversed else (source, target)
                    add_pair(parsed, name, place, *sides)
            yield PairsBlock(parsed)


def read_mo(stream: BinaryIO, file: str) -> Iterator[Message]:
    """Yield the messages of a compiled catalog (GNU gettext manual, "The Format of GNU MO Files")."""
    data = stream.read(_MO_BYTES + 1)
    order = MO_MAGICS.get(data[:4])
    if order is None or len(data) > _MO_BYTES:
        raise UserError(f"{file} is no compiled catalog, or larger than {_MO_BYTES >> 20} MiB")
    try:
        _, count, messages, translations = struct.unpack_from(f"{order}4I", data, 4)
        if count > len(data) // 16:
            raise struct.error
        both = (_table(order, data, begin, count) for begin in (messages, translations))
        places = list(zip(*both, strict=True))
    except struct.error:
        raise UserError(f"{file} is damaged: its tables lie outside of it") from None
    for number, ((size, begin), (other_size, other_begin)) in enumerate(places, start=1):
        place = f"message {number}"
        if max(begin + size, other_begin + other_size) > len(data):
            raise UserError(f"{file} is damaged: {place} lies outside of it")
        try:
            message = data[begin : begin + size].decode("utf-8")
            translation = data[other_begin : other_begin + other_size].decode("utf-8")
        except UnicodeDecodeError as error:
            yield place, "", BadLine(file, place, f"is not UTF-8: byte {error.start + 1}")
            continue
        if not message:
            _check_charset(translation, file)
        elif translation:
            message = message.rpartition("\x04")[2]  # what stands before is its context
            yield from _forms(place, message.split("\0"), translation.split("\0"))


def _table(order: str, data: bytes, begin: int, count: int) -> list[tuple[int, int]]:
    """Return the sizes and places of texts."""
    numbers = struct.unpack_from(f"{order}{2 * count}I", data, begin)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def read_po(stream: BinaryIO, file: str) -> Iterator[Message]:
    """Yield the messages of a catalog's source (GNU gettext manual, "The Format of PO Files")."""
    entry = _Entry()
    for number, line in enumerate(single_lines(stream, file), start=1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            yield f"line {number}", "", BadLine(file, f"line {number}", f"is not UTF-8: byte {error.start + 1} of it")
            continue
        if not text or text.startswith("#"):
            if entry.is_begun:
                yield from entry.messages(file)
                entry = _Entry()
            entry.is_fuzzy |= text.startswith("#,") and "fuzzy" in text
            continue
        statement = _STATEMENT.fullmatch(text)
        if statement is None:
            yield f"line {number}", "", BadLine(file, f"line {number}", "is no statement of a .po file")
            continue
        keyword = statement[1]
        if keyword in ("msgctxt", "msgid") and entry.has_translation:
            yield from entry.messages(file)
            entry = _Entry()
        entry.add(keyword, _unquoted(statement[2]), number)
    if entry.is_begun:
        yield from entry.messages(file)


class _Entry:
    """A message of a .po file, while it is read."""

    def __init__(self) -> None:
        self.is_fuzzy = False
        self._texts: dict[str, str] = {}
        self._keyword, self._line = "", 0

    @property
    def is_begun(self) -> bool:
        return bool(self._texts)

    @property
    def has_translation(self) -> bool:
        return any(key.startswith("msgstr") for key in self._texts)

    def add(self, keyword: str | None, text: str, line: int) -> None:
        """Add a statement, or the continuation of one."""
        self._keyword = keyword or self._keyword
        if keyword == "msgid":
            self._line = line
        self._texts[self._keyword] = self._texts.get(self._keyword, "") + text

    def messages(self, file: str) -> Iterator[Message]:
        message = self._texts.get("msgid", "")
        translations = [text for key, text in self._texts.items() if key.startswith("msgstr")]
        if not message:
            _check_charset("".join(translations), file)
        elif not self.is_fuzzy:
            forms = [message, *([self._texts["msgid_plural"]] if "msgid_plural" in self._texts else [])]
            yield from _forms(f"line {self._line}", forms, translations)


def _unquoted(text: str) -> str:
    """Return what a string in C's notation stands for; an escape that C lacks stands for itself."""
    return _ESCAPE.sub(lambda match: _escaped(match[1]), text[1:-1])


def _escaped(code: str) -> str:
    if code[0] in "01234567":
        return chr(int(code, 8))
    return chr(int(code[1:], 16)) if code[0] == "x" and len(code) > 1 else _ESCAPES.get(code, code)


def _forms(place: str, messages: list[str], translations: list[str]) -> Iterator[Message]:
    """Pair the singulars, and the plurals with the last of theirs, where they are translated."""
    if translations and translations[0].strip() and messages[0].strip():
        yield place, messages[0], translations[0]
    if (
        len(messages) > 1
        and translations[-1].strip()
        and (messages[-1], translations[-1]) != (messages[0], translations[0])
    ):
        yield place, messages[-1], translations[-1]


def _check_charset(header: str, file: str) -> None:
    found = _CHARSET.search(header)
    if found is not None and found[1].lower() not in ("utf-8", "utf8", "us-ascii", "ascii", "charset"):
        raise UserError(f"{file} is written in {found[1]}: convert it to UTF-8 first (msgconv -t UTF-8)")
