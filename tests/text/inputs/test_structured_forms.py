"""TMX, gettext's catalogs and Parquet."""

import struct
import sys
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.text.inputs import open_input, read_inputs
from tests.text.inputs.test_forms import PACKERS, PAIRS, write, write_zip

TMX = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu><note>no text</note><tuv xml:lang="en-US"><seg>A <bpt i="1">&lt;b&gt;</bpt>small<ept i="1">&lt;/b&gt;</ept>
cat &amp; tree</seg></tuv><tuv xml:lang="zh-CN"><seg>小<hi>猫</hi></seg></tuv></tu>
<tu><tuv lang="zh_CN"><seg>树</seg></tuv><tuv lang="EN"><seg>tree</seg></tuv></tu>
</body></tmx>
"""
PO = """\
# about
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"

#: here
msgctxt "menu"
msgid "A \\"small\\" "
"cat\\n"
msgstr "猫\\\\"

#, fuzzy, c-format
msgid "doubtful"
msgstr "疑"

msgid "one tree"
msgid_plural "%d trees"
msgstr[0] "一棵树"
msgstr[1] "%d 棵树"
#~ msgid "old"
#~ msgstr "旧"

msgid "untranslated"
msgstr ""
"""


def mo(messages: dict[str, str], order: str) -> bytes:
    texts = [[text.encode() for text in side] for side in (messages, messages.values())]
    begin = 28 + 16 * len(messages)
    tables, body = [], b""
    for side in texts:
        for text in side:
            tables.append(struct.pack(f"{order}2I", len(text), begin + len(body)))
            body += text + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(messages), 28, 28 + 8 * len(messages), 0, 0)
    return head + b"".join(tables) + body


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tmx(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.tmx", TMX.format(encoding=encoding).encode(encoding))
    assert read_inputs(path, columns="en,zh") == [("A small cat & tree", "小猫"), ("tree", "树")]
    assert read_inputs(path, columns="zh-CN,en")[1] == ("树", "tree")
    assert "from en-US to zh-CN, the order of its first unit" in open_input(path).description
    with pytest.raises(UserError, match="line 4 has a translation unit without de; so do 1 more"):
        read_inputs(path, columns="en,de")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><tmx>&c;</tmx>',
            "declares an XML entity",
        ),
        ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><tmx/>', "declares an XML entity"),
        ("<tmx><body><tu></body></tmx>", "line 1 is not well-formed XML: mismatched tag"),
        ('<?xml version="1.0"?><html/>', "is XML, but not TMX"),
        (
            '<?xml version="1.0" encoding="GB2312"?><tmx/>',
            "cannot be read .*: convert it to UTF-8, also in its first line",
        ),
        ('<?xml version="1.0" encoding="klingon"?><tmx/>', "cannot be read|is not well-formed XML: unknown encoding"),
        ("<tmx/>", r"which of its languages \(none\) are source and target"),
    ],
)
def test_xml_that_is_no_tmx_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_inputs(write(tmp_path / "a.xml", text.encode()))


def test_po(tmp_path: Path) -> None:
    expected = [('A "small" cat ', "猫\\"), ("one tree", "一棵树"), ("%d trees", "%d 棵树")]
    path = write(tmp_path / "zh.po", PO.encode())
    assert read_inputs(path) == expected
    assert read_inputs(path, columns="msgstr,msgid") == [pair[::-1] for pair in expected]
    assert read_inputs(write(tmp_path / "noname", PO.encode())) == expected
    with pytest.raises(UserError, match="is written in GBK: convert it to UTF-8 first"):
        read_inputs(write(path := tmp_path / "gbk.po", PO.replace("UTF-8", "GBK").encode()))
    with pytest.raises(UserError, match=r"broken\.po line 9 is no statement of a \.po file"):
        read_inputs(write(tmp_path / "broken.po", PO.replace('"cat\\n"', "cat").encode()))
    with pytest.raises(UserError, match="are msgid,msgstr or msgstr,msgid, but are '1,2'"):
        read_inputs(str(path), columns="1,2")


@pytest.mark.parametrize("order", ["<", ">"])
def test_mo(tmp_path: Path, order: str) -> None:
    messages = {"": "charset=UTF-8\n", "menu\x04cat": "猫", "none": "", "tree\0trees": "一棵树\0几棵树"}
    path = write(tmp_path / "zh.mo", mo(messages, order))
    assert read_inputs(path) == [("cat", "猫"), ("tree", "一棵树"), ("trees", "几棵树")]
    data = (tmp_path / "zh.mo").read_bytes()
    with pytest.raises(UserError, match=r"is damaged: message 4 lies outside|is damaged: message 3 lies outside"):
        read_inputs(write(tmp_path / "cut.mo", data[:-20]))
    with pytest.raises(UserError, match="is damaged: its tables lie outside of it"):
        read_inputs(write(tmp_path / "cut.mo", data[:40]))


@pytest.mark.parametrize("packing", [None, "gz", "zip"])
def test_parquet(tmp_path: Path, packing: str | None) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"id": 1, "zh": source, "en": target} for source, target in PAIRS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    if packing == "gz":
        path = write(tmp_path / "a.parquet.gz", PACKERS["gz"](data))
    elif packing == "zip":
        path = write_zip(tmp_path / "a.zip", {"a.parquet": data})
    assert read_inputs(path) == PAIRS
    assert read_inputs(path, columns="en,zh") == [pair[::-1] for pair in PAIRS]
    with pytest.raises(UserError, match="has no column of text de: it has zh, en"):
        read_inputs(path, columns="de,en")


def test_parquet_of_records_within_and_of_gaps(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"translation": {"de": "ein\tBaum", "en": "a tree"}}, {"translation": {"de": None, "en": "a cat"}}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    assert read_inputs(path, skip_bad_lines=True) == [("ein Baum", "a tree")]
    with pytest.raises(UserError, match="row 2 has no source"):
        read_inputs(path)
    data = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(UserError, match="is a damaged Parquet file"):
        read_inputs(write(tmp_path / "b.parquet", data[:-9]))


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    message = (
        r"a Parquet file, needs the extra \"parquet\": pip install 'dist-s2s\[parquet\]' \(missing module: pyarrow"
    )
    with pytest.raises(UserError, match=message):
        read_inputs(path)


def test_a_language_itself_comes_before_its_regional_forms(tmp_path: Path) -> None:
    texts = {"pt-BR": "trem", "pt-PT": "comboio", "pt": "comboio (PT)", "en": "train"}
    units = "".join(f'<tuv xml:lang="{name}"><seg>{text}</seg></tuv>' for name, text in texts.items())
    path = write(tmp_path / "a.tmx", f"<tmx><body><tu>{units}</tu></body></tmx>".encode())
    assert read_inputs(path, columns="pt,en") == [("comboio (PT)", "train")]
    assert read_inputs(path, columns="pt_BR,en") == [("trem", "train")]
    without = path.replace("a.tmx", "b.tmx")
    text = Path(path).read_text(encoding="utf-8").replace('xml:lang="pt"', 'xml:lang="fr"')
    Path(without).write_text(text, encoding="utf-8")
    assert read_inputs(without, columns="pt,en") == [("trem", "train")]  # the first of them


def test_escapes_are_those_of_c(tmp_path: Path) -> None:
    line = r'msgid "a\a\101\x41\q"' + "\n" + r'msgstr "\"b\"\\n"' + "\n"
    assert read_inputs(write(tmp_path / "a.po", line.encode())) == [("a\aAAq", '"b"\\n')]
