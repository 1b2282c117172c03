"""LibreOffice's help in a folder of Debian packages. The pages are made up."""

import pickle
import re
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.text.inputs import office_help, open_input, read_inputs
from dist_s2s.text.inputs.block import BadLine, Parsed
from tests.text.inputs.test_debian import CATALOG, EXPECTED, PLACE, deb

PAGE = "usr/share/libreoffice/help/{}/text/{}.html"
ENGLISH = """<!DOCTYPE html><html><head><title>Cells</title><script>var p = "<p id='x'>no</p>";</script></head><body>
<h1 id="hd_1">
<a name="top"></a>Colouring   cells</h1>
<p id="par_1">Choose <span class="emph">Format - <b>Cells</b></span>&nbsp;&amp; press
<span class="switchinline"> <span hidden="true" class="MAC"><span class="keycode">Command</span></span>
<span hidden="true"><span class="keycode">Ctrl</span></span></span>+1.<br>Then<!-- <p id="par_1">no --> wait.</p>
<p id="par_twice">First</p><p id="par_twice">Second</p>
<p id="par_uneven">One</p><p id="par_uneven">Other</p>
<p id="par_empty"> <img src="a.png" alt="empty"> </p><p id="par_same">=SUM(A1)</p><p>No id</p>
<p id="par_alone">Only English</p>
<p id="par_open">A tag that is < not closed<p id="par_switch"><span class="switchinline">
<span class="WIN">On Windows</span><span class="UNIX">On Unix</span></span>.</body>"""
CHINESE = """<body><h1 id="hd_1">给单元格上色</h1>
<p id="par_1">选择<span class="emph">格式&#32;- <b>单元格</b></span>，按<span
class="switchinline"><span class="MAC">Command</span><span>Ctrl</span></span>+1。</p>
<p id="par_twice">第一</p><p id="par_twice">第二</p>
<p id="par_uneven">一</p>
<p id="par_empty">空</p><p id="par_same">=SUM(A1)</p>
<p id="par_open">没有结束的标签</p>
<p id="par_switch"><span class="switchinline"><span class="WIN">在 Windows 上</span><span class="UNIX">在 Unix 上</span>
</span>。</p>"""
PAIRS = [
    ("Colouring cells", "给单元格上色"),
    ("Choose Format - Cells & press Ctrl+1. Then wait.", "选择格式 - 单元格，按Ctrl+1。"),
    ("First", "第一"),
    ("Second", "第二"),
    ("A tag that is < not closed", "没有结束的标签"),
    ("On Windows.", "在 Windows 上。"),
]


def packages(folder: Path, files: dict[str, dict[str, bytes]], is_packed: bool) -> str:
    """Write packages, given by their names and those of their files; return the folder."""
    for package, members in files.items():
        if is_packed:
            folder.mkdir(exist_ok=True)
            (folder / f"{package}.deb").write_bytes(deb(members))
            continue
        for name, data in members.items():
            path = folder / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return str(folder)


def page(text: str, identifier: str = "a") -> bytes:
    return f'<p id="{identifier}">{text}</p>'.encode()


@pytest.mark.parametrize("is_packed", [False, True])
def test_pages_are_aligned_by_the_ids_of_paragraphs(tmp_path: Path, is_packed: bool) -> None:
    files = {
        # In another order, as packages that other tools have made may be.
        "help-en-us": {
            PAGE.format("en-US", "b"): page("Second page"),
            PAGE.format("en-US", "a"): ENGLISH.encode(),
            PAGE.format("en-US", "lone"): page("Not translated"),
        },
        "help-zh-cn": {
            PAGE.format("zh-CN", "a"): CHINESE.encode(),
            PAGE.format("zh-CN", "b"): page("第二页"),
            PAGE.format("zh-CN", "other"): page("没有英文"),
        },
        "program": {PLACE.format("zh_CN"): CATALOG},
    }
    folder = packages(tmp_path / "set", files, is_packed)
    opened = open_input(folder)
    assert opened.description.endswith(
        "Debian packages' catalogs and LibreOffice help, from en to zh_CN, the only one that there is"
    )
    blocks = [pickle.loads(pickle.dumps(block)).parse() for block in opened.blocks()]
    assert [block.pairs for block in blocks] == [EXPECTED, [*PAIRS, ("Second page", "第二页")]]
    assert not any(block.bad for block in blocks)
    for columns, is_reversed in (("en,zh_CN", False), ("en,zh-CN", False), ("zh_CN,en", True)):
        pairs = [pair for block in blocks for pair in block.pairs]
        assert read_inputs(folder, columns) == [pair[::-1] if is_reversed else pair for pair in pairs]


def test_the_language_is_one_that_there_is(tmp_path: Path) -> None:
    files = {language: {PAGE.format(language, "a"): page(language)} for language in ("de", "pt-BR", "en-GB")}
    folder = packages(tmp_path, {language: files[language] for language in ("de", "pt-BR")}, is_packed=False)
    with pytest.raises(UserError, match=r"help in de, pt_BR, but none in English.*add libreoffice-help-en-us"):
        open_input(folder)
    packages(tmp_path, files, is_packed=False)
    with pytest.raises(UserError, match=r"which of its languages \(de, pt_BR\)"):
        open_input(folder)
    assert read_inputs(folder, "pt_BR,en") == [("pt-BR", "en-GB")]
    packages(tmp_path, {"en": {PAGE.format("en-US", "a"): page("en-US")}}, is_packed=False)
    assert read_inputs(folder, "en,de") == [("en-US", "de")]
    assert read_inputs(folder, "en,en_GB") == [("en-US", "en-GB")]


@pytest.mark.parametrize(
    ("data", "place", "problem"),
    [
        ("<p id='a'>gut\n</p><p id='b'>größer".encode("latin-1"), " line 2", "is not UTF-8: byte 17 of it"),
        (page("x" * office_help.PAGE_BYTES), "", "is larger than 1 MiB, which is no page of help"),
        (page(f"&#{'1' * 5000};"), "", "is no HTML: the number of a character in it has no end"),
    ],
)
def test_bad_pages_are_named(tmp_path: Path, data: bytes, place: str, problem: str) -> None:
    english, german = PAGE.format("en-US", "a"), PAGE.format("de", "a")
    folder = packages(tmp_path, {"help": {english: page("x"), german: data}}, is_packed=True)
    (block,) = open_input(folder).blocks()
    assert block.parse() == Parsed([], [BadLine(str(tmp_path / "help.deb"), f"./{german}{place}", problem)])
    with pytest.raises(UserError, match=re.escape(f"help.deb ./{german}{place} {problem}")):
        read_inputs(folder)


@pytest.mark.parametrize("unit", ["<", "<a ", "<!--", "<![CDATA[", "<![x y[z]]>", '<a b="'])
def test_markup_that_does_not_end_takes_no_longer(unit: str) -> None:
    pages = tuple(office_help.HelpPage("f", "n", "p", (unit * 9000).encode()) for _ in range(2))
    assert office_help.HelpBlock(((pages[0], pages[1]),), False).parse() == Parsed()


def test_what_leads_out_of_a_package_is_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside.html"
    outside.write_bytes(page("geheim"))
    english, german = PAGE.format("en-US", "a"), PAGE.format("de", "a")
    folder = packages(tmp_path / "set", {"help": {english: page("x"), german: page("y")}}, is_packed=False)
    link = tmp_path / "set" / "help" / PAGE.format("de", "b")
    link.symlink_to(outside)
    assert link not in open_input(folder).paths
    folder = packages(tmp_path / "deb", {"help": {f"usr/../../{german}": page("y")}}, is_packed=True)
    with pytest.raises(UserError, match=r"help\.deb has a member that leaves its folder"):
        open_input(folder)


def test_pages_that_wait_for_partners_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {PAGE.format(language, f"{language}{n}"): page("x") for language in ("en-US", "de") for n in range(9)}
    folder = packages(tmp_path, {"help": files}, is_packed=False)
    with pytest.raises(UserError, match=r", … is empty: it has no pair"):
        read_inputs(folder)
    monkeypatch.setattr(office_help, "_WAITING_BYTES", 99)
    with pytest.raises(UserError, match="have no partner in the other language"):
        read_inputs(folder)
