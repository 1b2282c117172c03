"""LibreOffice's help: pages of HTML, one for each language, whose paragraphs have the same ids in all of them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import zip_longest

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine, Parsed

PAGE_BYTES = 1 << 20  # five times the largest; a larger one is refused
_BLOCK_BYTES = 1 << 21
_WAITING_BYTES = 1 << 28
_PAGE = re.compile(r"/libreoffice[^/]*/help/([A-Za-z]{2,3}(?:-[A-Za-z]+)*)/(.+\.html)$")
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6"}
_SWITCH = "switchinline"
# html.parser takes quadratic time and more over comments and tags that do not end: both go before it sees them.
_COMMENT = re.compile(r"<!--(?:.*?-->|.*)", re.DOTALL)
_NO_TAG = re.compile(r"<(?=!\[|[^<>]*(?:<|\Z))")


@dataclass(frozen=True, slots=True)
class HelpPage:
    """A page: the package or folder that it is in, its name there, and below its language's folder; its content."""

    file: str
    name: str
    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class HelpBlock:
    """English pages, each with the one that was made of it."""

    pages: tuple[tuple[HelpPage, HelpPage], ...]
    is_reversed: bool

    def parse(self) -> Parsed:
        """Return their paragraphs, aligned by their ids, in the order of the English pages."""
        parsed = Parsed()
        for english_page, translated_page in self.pages:
            english, translated = (_paragraphs(page, parsed) for page in (english_page, translated_page))
            for identifier, texts in english.items():
                others = translated.get(identifier, [])
                if len(texts) == len(others):  # otherwise it cannot be told which are partners
                    parsed.pairs += [
                        (other, text) if self.is_reversed else (text, other)
                        for text, other in zip(texts, others, strict=True)
                        if text and other and text != other  # what is not translated yet stands there in English
                    ]
        return parsed


def page_place(name: str) -> tuple[str, str]:
    """Return a page's language, written as catalogs write it (`zh_CN`), and path; both are empty if it is none."""
    found = _PAGE.search(f"/{name}")
    return (found[1].replace("-", "_"), found[2]) if found else ("", "")


def help_blocks(english: Iterable[HelpPage], translated: Iterable[HelpPage], is_reversed: bool) -> Iterator[HelpBlock]:
    """Yield the pages that are there in both languages.

    Raises:
        UserError: more than 256 MiB of pages wait for their partners.
    """
    pages: list[tuple[HelpPage, HelpPage]] = []
    size = 0
    for both in _partners(english, translated):
        pages.append(both)
        size += sum(len(page.data) for page in both)
        if size >= _BLOCK_BYTES:
            yield HelpBlock(tuple(pages), is_reversed)
            pages, size = [], 0
    if pages:
        yield HelpBlock(tuple(pages), is_reversed)


def _partners(english: Iterable[HelpPage], translated: Iterable[HelpPage]) -> Iterator[tuple[HelpPage, HelpPage]]:
    """Yield pages of the same path, in whatever order they come; those of real packages come in the same."""
    waiting: tuple[dict[str, HelpPage], dict[str, HelpPage]] = ({}, {})
    size = 0
    for both in zip_longest(english, translated):
        for side, page in enumerate(both):
            if page is None:
                continue
            partner = waiting[1 - side].pop(page.path, None)
            if partner is not None:
                size -= len(partner.data)
                yield (partner, page) if side else (page, partner)
            elif page.path not in waiting[side]:
                waiting[side][page.path] = page
                size += len(page.data)
        if size > _WAITING_BYTES:
            raise UserError(
                f"more than {_WAITING_BYTES >> 20} MiB of the pages of LibreOffice's help have no partner in the other "
                "language: take packages of the same version"
            )


def _paragraphs(page: HelpPage, parsed: Parsed) -> dict[str, list[str]]:
    """Return a page's texts by their ids, without markup and on one line; none of a bad page, which is noted."""
    if len(page.data) > PAGE_BYTES:
        problem = f"is larger than {PAGE_BYTES >> 20} MiB, which is no page of help"
        parsed.bad.append(BadLine(page.file, page.name, problem))
        return {}
    try:
        text = page.data.decode("utf-8")
    except UnicodeDecodeError as error:
        lines = page.data[: error.start + 1].split(b"\n")
        problem = f"is not UTF-8: byte {len(lines[-1])} of it"
        parsed.bad.append(BadLine(page.file, f"{page.name} line {len(lines)}", problem))
        return {}
    parser = _Parser()
    try:
        parser.feed(_NO_TAG.sub("&lt;", _COMMENT.sub(" ", text)))
        parser.close()
    except ValueError:  # Python refuses to convert so many digits
        parsed.bad.append(BadLine(page.file, page.name, "is no HTML: the number of a character in it has no end"))
        return {}
    return parser.texts


@dataclass(slots=True)
class _Span:
    """A paragraph, or a span in it, while it is read."""

    kind: str | None = None
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.parts[:1] if self.kind == _SWITCH else self.parts)


class _Parser(HTMLParser):
    """Collects what has an id.

    Of the alternatives of a switch (`Ctrl`, and `Command` on a Mac) a reader sees one. Taken is the default, which has
    no class; if there is none, the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self._identifier = ""
        self._open: list[_Span] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a paragraph, which ends the one before, or a span."""
        if tag in _PARAGRAPHS:
            self._end_paragraph()
            self._identifier = dict(attrs).get("id") or ""
            self._open = [_Span()] if self._identifier else []
        elif self._open and tag == "span":
            self._open.append(_Span(dict(attrs).get("class")))
        elif tag == "br":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        """End a paragraph or a span."""
        if tag in _PARAGRAPHS:
            self._end_paragraph()
        elif tag == "span" and len(self._open) > 1:
            self._end_span()

    def handle_data(self, data: str) -> None:
        """Keep a paragraph's text; between the alternatives of a switch, and in a script, there is none."""
        if self._open and self._open[-1].kind != _SWITCH and self.cdata_elem is None:
            self._open[-1].parts.append(data)

    def close(self) -> None:
        """End the page, and a paragraph that has not been ended."""
        super().close()
        self._end_paragraph()

    def _end_span(self) -> None:
        span = self._open.pop()
        outer = self._open[-1]
        is_default = outer.kind == _SWITCH and span.kind is None
        outer.parts.insert(0 if is_default else len(outer.parts), span.text)

    def _end_paragraph(self) -> None:
        while len(self._open) > 1:
            self._end_span()
        if self._open:
            self.texts.setdefault(self._identifier, []).append(" ".join(self._open.pop().text.split()))
