"""TMX, the XML of translation memories, read as a stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import BinaryIO
from xml.parsers import expat

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine, Input, PairsBlock, Parsed, add_pair
from dist_s2s.text.inputs.keys import check_two
from dist_s2s.text.inputs.packed import PackedFile

_CHUNK = 1 << 16
_BLOCK_UNITS = 10_000
_UNIT_CHARACTERS = 1 << 22
_CODES = {"bpt", "ept", "ph", "it", "ut", "sub"}  # markup of the original document, which is no text


@dataclass
class Unit:
    """A translation unit: its line, and its text by language."""

    line: int
    texts: dict[str, str] = field(default_factory=dict)


def tmx_input(file: PackedFile, columns: str | None) -> Input:
    """Return the reader of a TMX file.

    Args:
        file: the file.
        columns: two languages, such as `en,zh`; `zh` means `zh-CN` too. None: those of the first unit, if they are two.

    Raises:
        UserError: it cannot be told which languages are meant, or the file is no TMX.
    """
    if columns is not None:
        names = [name.strip() for name in columns.split(",")]
        if len(names) != 2 or not all(names):
            raise UserError(f"--columns of {file} are two languages, such as en,zh, but are {columns!r}")
        check_two(names, columns)
        return _input(file, (names[0], names[1]), "as given")
    with file.reading() as stream:
        first = next(read_units(stream, str(file)), None)
    languages = list(first.texts) if first else []
    if len(languages) != 2:
        raise UserError(
            f"{file}: which of its languages ({', '.join(languages) or 'none'}) are source and target? Say it, as in "
            "--columns en,zh"
        )
    return _input(file, (languages[0], languages[1]), "the order of its first unit (--columns for the other)")


def _input(file: PackedFile, languages: tuple[str, str], decided: str) -> Input:
    description = f"{file}: TMX, from {languages[0]} to {languages[1]}, {decided}"
    return Input([file.path], description, partial(_blocks, file, languages))


def _blocks(file: PackedFile, languages: tuple[str, str]) -> Iterator[PairsBlock]:
    with file.reading() as stream:
        units = read_units(stream, str(file))
        while batch := list(islice(units, _BLOCK_UNITS)):
            yield PairsBlock(_parse(batch, languages, str(file)))


def _parse(units: list[Unit], languages: tuple[str, str], file: str) -> Parsed:
    parsed = Parsed()
    for unit in units:
        source, target = (_text(unit, language) for language in languages)
        place = f"line {unit.line}"
        if source is None or target is None:
            missing = languages[0] if source is None else languages[1]
            parsed.bad.append(BadLine(file, place, f"has a translation unit without {missing}"))
        else:
            add_pair(parsed, file, place, source, target)
    return parsed


def read_units(stream: BinaryIO, file: str) -> Iterator[Unit]:
    """Yield the translation units of a TMX document, as it is read.

    Raises:
        UserError: it is not well-formed, or declares entities, which could expand without end.
    """
    handler = _Handler(file)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = handler.start, handler.end
    parser.CharacterDataHandler = handler.characters
    parser.EntityDeclHandler = handler.entity
    handler.parser = parser
    try:
        while chunk := stream.read(_CHUNK):
            parser.Parse(chunk, False)
            yield from handler.take()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        yield from handler.take()
        raise UserError(f"{file} line {error.lineno} is not well-formed XML: {expat.ErrorString(error.code)}") from None
    except (ValueError, LookupError) as error:  # of an encoding that the parser lacks
        raise UserError(f"{file} cannot be read ({error}): convert it to UTF-8, also in its first line") from None
    if not handler.is_tmx:
        raise UserError(f"{file} is XML, but not TMX: it has no element tmx")
    yield from handler.take()


class _Handler:
    """Collects the units as the parser goes through them."""

    def __init__(self, file: str) -> None:
        self.is_tmx = False
        self.parser: expat.XMLParserType | None = None
        self._file, self._units = file, list[Unit]()
        self._unit: Unit | None = None
        self._language, self._text, self._in_segment, self._codes, self._size = "", list[str](), False, 0, 0

    def take(self) -> list[Unit]:
        """Return the units that are complete, once."""
        units, self._units = self._units, []
        return units

    def entity(self, name: str, *_: object) -> None:
        """Refuse what could expand without end."""
        raise UserError(f"{self._file} declares an XML entity, {name}, which a TMX file has no use for: refused")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        if name == "tmx":
            self.is_tmx = True
        elif name == "tu" and self.parser is not None:
            self._unit, self._size = Unit(self.parser.CurrentLineNumber), 0
        elif name == "tuv":
            self._language = attributes.get("xml:lang") or attributes.get("lang") or ""
        elif name == "seg":
            self._in_segment, self._text = True, []
        elif name in _CODES:
            self._codes += 1

    def end(self, name: str) -> None:
        """End an element."""
        if name == "tu" and self._unit is not None:
            self._units.append(self._unit)
            self._unit = None
        elif name == "seg":
            self._in_segment = False
            if self._unit is not None:
                self._unit.texts.setdefault(self._language, "".join(self._text))
        elif name in _CODES:
            self._codes -= 1

    def characters(self, text: str) -> None:
        """Keep a segment's text, without the codes in it."""
        if self._in_segment and not self._codes:
            self._size += len(text)
            if self._size > _UNIT_CHARACTERS:
                raise UserError(f"{self._file} has a translation unit of more than {_UNIT_CHARACTERS:,} characters")
            self._text.append(text)


def _text(unit: Unit, language: str) -> str | None:
    """Return the unit's text in a language, or in a regional form of it."""
    wanted = language.lower().replace("_", "-")
    texts = {found.lower().replace("_", "-"): text for found, text in reversed(unit.texts.items())}
    regional = (text for name, text in reversed(texts.items()) if name.startswith(f"{wanted}-"))
    return texts[wanted] if wanted in texts else next(regional, None)
