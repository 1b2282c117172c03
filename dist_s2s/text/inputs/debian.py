"""A folder of Debian packages: `.deb` files, or what `dpkg-deb -x` has made of them.

Read are gettext's catalogs in them, and LibreOffice's help.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine, Block, PairsBlock, Parsed, add_pair
from dist_s2s.text.inputs.catalogs import read_mo
from dist_s2s.text.inputs.office_help import PAGE_BYTES, HelpPage, help_blocks, page_place
from dist_s2s.text.inputs.packages import member_names, members

_CATALOG = re.compile(r"/locale/([^/]+)/LC_MESSAGES/[^/]+\.mo$")
_CATALOG_BYTES = 1 << 28
_BLOCK_MESSAGES = 10_000
# `文件(_F)`, `文件(&F)...`; `_File`, `E&xit`, `~Edit`; tags.
_KEY_IN_BRACKETS = re.compile(r"\s*\([_&~]\w\)")
_KEY_MARK = re.compile(r"(?<!\w)[_~](?=\w)|&(?=\w)(?!\w+;)")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


@dataclass(frozen=True)
class DebianInput:
    """The catalogs and the help of one language in a folder of packages. Messages of programs are English.

    Attributes:
        folder: where the packages are.
        catalogs: those with catalogs of the language; an unpacked one is a file for each of its catalogs and pages.
        help: those with pages in English, and those with pages in the language; none without both.
        english: the folder of English pages, written as catalogs write it: `en_US`.
        language: the other language.
        is_reversed: English is the target.
        decided: how the language was chosen.
    """

    folder: Path
    catalogs: tuple[Path, ...]
    help: tuple[tuple[Path, ...], tuple[Path, ...]]
    english: str
    language: str
    is_reversed: bool
    decided: str

    @property
    def paths(self) -> list[Path]:
        """What is read from the disk."""
        return sorted({*self.catalogs, *self.help[0], *self.help[1]})

    @property
    def description(self) -> str:
        """What was recognised, and by what."""
        kinds = [kind for kind, there in (("catalogs", self.catalogs), ("LibreOffice help", self.help[0])) if there]
        sides = (self.language, "en") if self.is_reversed else ("en", self.language)
        return f"{self.folder}: Debian packages' {' and '.join(kinds)}, from {sides[0]} to {sides[1]}, {self.decided}"

    def blocks(self) -> Iterator[Block]:
        """Yield the translated messages, without tags and the marks of shortcut keys; then the pages of help.

        Raises:
            UserError: a package or a catalog is damaged.
        """
        for path in self.catalogs:
            for name, data in members(path, lambda name: _catalog_language(name) == self.language, _CATALOG_BYTES):
                messages = read_mo(io.BytesIO(data), f"{path}/{name}" if path.suffix == ".deb" else str(path))
                while batch := list(islice(messages, _BLOCK_MESSAGES)):
                    yield PairsBlock(self._parse(str(path), batch))
        english, translated = self.help
        yield from help_blocks(
            self._pages(english, self.english), self._pages(translated, self.language), self.is_reversed
        )

    def _parse(self, file: str, messages: list[tuple[str, str, str | BadLine]]) -> Parsed:
        parsed = Parsed()
        for place, message, translation in messages:
            if isinstance(translation, BadLine):
                parsed.bad.append(translation)
                continue
            sides = (plain(message), plain(translation))
            if all(sides):  # what was nothing but markup is no fault of the file
                add_pair(parsed, file, place, *(sides[::-1] if self.is_reversed else sides))
        return parsed

    def _pages(self, packages: Sequence[Path], language: str) -> Iterator[HelpPage]:
        for path in packages:
            for name, data in members(path, lambda name: page_place(name)[0] == language, PAGE_BYTES):
                if path.suffix == ".deb":
                    file, place = str(path), name
                else:
                    file, place = str(self.folder), path.relative_to(self.folder).as_posix()
                yield HelpPage(file, place, page_place(name)[1], data)


def debian_input(folder: Path, columns: str | None) -> DebianInput:
    """Return the reader of a folder of packages.

    Args:
        folder: with `.deb` files, catalogs or pages of help somewhere below.
        columns: `en,zh_CN` or `zh_CN,en`; None: from English to the only language that there is.

    Raises:
        UserError: there are no packages, or it cannot be told which language is meant.
    """
    packages = {path: _languages(path) for path in sorted(filter(_is_read, folder.rglob("*")))}
    if not packages:
        raise UserError(f"{folder} is a directory without Debian packages, catalogs or help in it: name a file in it")
    translated = {language for catalogs, _ in packages.values() for language in catalogs}
    helps = {language for _, pages in packages.values() for language in pages}
    english = min((name for name in helps if _is_english(name)), key=lambda name: (name != "en_US", name), default="")
    if english:
        translated |= helps - {english}
    elif helps and not translated:
        raise UserError(
            f"{folder} has LibreOffice help in {', '.join(sorted(helps))}, but none in English, which it is "
            "aligned with: add libreoffice-help-en-us"
        )
    language, is_reversed, decided = _direction(folder, columns, sorted(translated))
    sides = (english, language)
    help_packages = [tuple(path for path, (_, pages) in packages.items() if side in pages) for side in sides]
    return DebianInput(
        folder,
        tuple(path for path, (catalogs, _) in packages.items() if language in catalogs),
        (help_packages[0], help_packages[1]) if all(help_packages) else ((), ()),
        english,
        language,
        is_reversed,
        decided,
    )


def _direction(folder: Path, columns: str | None, there: list[str]) -> tuple[str, bool, str]:
    """Return the language beside English, whether English is the target, and how that was decided."""
    if columns is None:
        if len(there) != 1:
            raise UserError(
                f"{folder}: which of its languages ({', '.join(there) or 'none'})? Say it: --columns en,zh_CN"
            )
        return there[0], False, "the only one that there is"
    source, _, target = (name.strip() for name in columns.partition(","))
    wanted = target if source == "en" else source
    same = [name for name in there if _spelling(name) == _spelling(wanted)]
    language = min(same, key=lambda name: name != wanted, default=None)
    if "en" not in (source, target) or language is None:
        raise UserError(
            f"--columns of {folder} are en and one of {', '.join(there) or 'no language'}, but are {columns!r}"
        )
    return language, source != "en", "as given"


def plain(text: str) -> str:
    """Return a message without tags, without the marks of shortcut keys, and on one line."""
    return " ".join(_KEY_MARK.sub("", _KEY_IN_BRACKETS.sub("", _TAG.sub("", text))).split())


def _is_read(path: Path) -> bool:
    """Tell whether a file is a package, or of an unpacked one; a link in it may lead out of it, and is none."""
    if path.suffix == ".deb":
        return True
    name = path.as_posix()
    return bool(_catalog_language(name) or page_place(name)[0]) and path.is_file() and not path.is_symlink()


def _languages(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return the languages of a package's catalogs, and of its help."""
    names = list(member_names(path))
    catalogs, pages = map(_catalog_language, names), (page_place(name)[0] for name in names)
    return frozenset(catalogs) - {""}, frozenset(pages) - {""}


def _catalog_language(name: str) -> str:
    """Return the language of a catalog's path; empty if it is none."""
    found = _CATALOG.search(f"/{name}")
    return found[1] if found else ""


def _is_english(language: str) -> bool:
    return language.startswith("en_") or language == "en"


def _spelling(language: str) -> str:
    """Return what `zh_CN` and `zh-CN` have in common."""
    return language.replace("-", "_").lower()
