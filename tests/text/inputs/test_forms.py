"""Each form of input is recognised, says how, and gives the same pairs, packed or not."""

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.text.inputs import open_input, read_inputs

PAIRS = [("我看见猫。", "I saw a cat ."), ("你画\u2028树。", "you painted\x85 a tree .")]
TSV = "".join(f"{source}\t{target}\n" for source, target in PAIRS).encode()


def zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    half = len(data) // 2
    return zstandard.compress(data[:half]) + zstandard.compress(data[half:])  # two frames


PACKERS = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstd}


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def write_zip(path: Path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


@pytest.mark.parametrize("packing", PACKERS)
def test_compressed_files_are_told_by_their_content(tmp_path: Path, packing: str) -> None:
    for name in (f"a.tsv.{packing}", "misnamed.txt"):
        assert read_inputs(write(tmp_path / name, PACKERS[packing](b"\xef\xbb\xbf" + TSV))) == PAIRS
    cut = write(tmp_path / f"cut.{packing}", PACKERS[packing](TSV)[:-9])
    with pytest.raises(UserError, match=rf"cut\.{packing} cannot be read: "):
        read_inputs(cut)


def test_members_of_an_archive(tmp_path: Path) -> None:
    one = write_zip(tmp_path / "one.zip", {"_about.txt": b"x", "readme.md": b"y", "d/a.tsv.gz": gzip.compress(TSV)})
    assert read_inputs(one) == read_inputs(f"{one}/d/a.tsv.gz") == PAIRS
    two = write_zip(tmp_path / "two.zip", {"a.zh": b"\n".join(TSV.split(b"\t")[:1]), "a.en": b"b"})
    assert read_inputs(f"{two}/a.zh,{two}/a.en") == [(PAIRS[0][0], "b")]
    with pytest.raises(UserError, match=r"which of its 2 members \(a\.zh, a\.en\)\? Write .*two\.zip/MEMBER"):
        read_inputs(two)
    with pytest.raises(UserError, match=r"two\.zip has no member b; its members are a\.zh, a\.en"):
        read_inputs(f"{two}/b")


@pytest.mark.parametrize("name", ["../evil.tsv", "/etc/evil.tsv", "a/../../evil.tsv", "..\\evil.tsv", "C:\\evil.tsv"])
def test_a_member_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="has a member that leaves its folder"):
        read_inputs(write_zip(tmp_path / "a.zip", {"good.tsv": TSV, name: TSV}))


def test_an_encrypted_or_oversized_or_damaged_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write_zip(path, {"a.tsv": TSV})
    whole = path.read_bytes()
    header, entry = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    data = bytearray(whole)
    data[header + 6] |= 1
    data[entry + 8] |= 1
    with pytest.raises(UserError, match="is encrypted: unpack it first"):
        read_inputs(write(path, bytes(data)))
    flipped = bytearray(whole)
    flipped[header + 30 + len("a.tsv") + 5] ^= 0x55
    with pytest.raises(UserError, match="cannot be read: "):
        read_inputs(write(path, bytes(flipped)))
    with pytest.raises(UserError, match="is a damaged zip archive"):
        read_inputs(write(path, whole[:-30]))
    with pytest.raises(UserError, match="would expand from"):
        read_inputs(write_zip(path, {"a.tsv": b"a\tb\n" + b"\0" * (1 << 21)}))


def test_anki_in_its_archive_goes_the_way_of_its_name(tmp_path: Path) -> None:
    lines = "Hi.\t嗨。\tCC-BY 2.0 (France) Attribution: #1 (x)\nRun!\t你跑。\tCC-BY 2.0\n".encode()
    archive = write_zip(tmp_path / "cmn-eng.zip", {"_about.txt": b"about", "cmn.txt": lines})
    assert read_inputs(archive) == [("嗨。", "Hi."), ("你跑。", "Run!")]
    assert "from 2 to 1: cmn-eng by its name, in which English comes first" in open_input(archive).description
    assert read_inputs(archive, columns="1,2") == [("Hi.", "嗨。"), ("Run!", "你跑。")]
    plain = write(tmp_path / "anki.tsv", lines)
    assert read_inputs(plain) == [("Hi.", "嗨。"), ("Run!", "你跑。")]
    assert "from 1 to 2 (--columns 2,1 for the other direction)" in open_input(plain).description


def test_a_sentence_in_braces_is_no_json(tmp_path: Path) -> None:
    for name in ("a.tsv", "a.txt"):
        assert read_inputs(write(tmp_path / name, b"{0} files\t{0} Dateien\n")) == [("{0} files", "{0} Dateien")]
    named = " + ".join([write(tmp_path / "a.tsv", TSV)] * 60)
    assert len(read_inputs(named)) == 60 * len(PAIRS)


def test_any_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.tsv", b"1\ta\tx\tb\n2\tc\ty\td\n3\te\n")
    with pytest.raises(UserError, match="has 4 columns: say which two"):
        read_inputs(path)
    with pytest.raises(UserError, match="line 3 has 1 tab: expected at least 4 columns"):
        read_inputs(path, columns="4,2")
    assert read_inputs(path, columns="4,2", skip_bad_lines=True) == [("b", "a"), ("d", "c")]
    with pytest.raises(UserError, match="are two numbers, such as 1,2, but are '0,1'"):
        read_inputs(path, columns="0,1")


def test_parallel_files(tmp_path: Path) -> None:
    sides = [write(tmp_path / f"a.{side}", "".join(f"{pair[side]}\n" for pair in PAIRS).encode()) for side in (0, 1)]
    assert read_inputs(",".join(sides)) == PAIRS
    assert read_inputs(f"{','.join(sides)} + {sides[1]},{sides[0]}") == PAIRS + [pair[::-1] for pair in PAIRS]
    longer = write(tmp_path / "longer", b"a\nb\nc\n\n")
    with pytest.raises(UserError, match=r"a\.0 has 2 lines, but .*longer has 3: parallel files have a line for each"):
        read_inputs(f"{sides[0]},{longer}")
    gap = write(tmp_path / "gap", b"a\n \xff\n")
    with pytest.raises(UserError, match="gap line 2 is not UTF-8"):
        read_inputs(f"{sides[0]},{gap}")
    with pytest.raises(UserError, match="parallel files are two"):
        read_inputs("a,b,c")
    named = write(tmp_path / "a,b + c.tsv", TSV)
    assert read_inputs(named) == PAIRS


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"id": number, "target": target, "source": source} for number, (source, target) in enumerate(PAIRS)]
    path = write(tmp_path / "a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    assert read_inputs(path) == PAIRS
    assert read_inputs(path, columns="target,source") == [pair[::-1] for pair in PAIRS]
    nested = [{"translation": {"zh": source, "en": f"{target}\n"}, "n": 1} for source, target in PAIRS]
    path = write(tmp_path / "a.txt", "".join(f"{json.dumps(row)}\n" for row in nested).encode())
    assert read_inputs(path) == [(source, f"{target} ") for source, target in PAIRS]
    assert "from translation.zh to translation.en" in open_input(path).description
    assert read_inputs(path, columns="translation.en,translation.zh")[0][1] == PAIRS[0][0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"source": "a"}]', "is one JSON array: write an object a line"),
        (b'{"a": "1", "b": "2", "c": "3"}\n', r"which of its texts \(a, b, c\) are source and target\?"),
        (b'{"source": "a", "target": "b"}\n{"source": 1}\n', "line 2 has a source that is no text: '1'"),
        (b'{"source": "a", "target": "b"}\n{"source": "a"}\n', "line 2 has no target"),
        (b'{"source": "a", "target": "b"}\n{"source": \n', "line 2 is not JSON: Expecting value"),
        (b'{"source": "a", "target": "b"}\n7\n', "line 2 is not a JSON object"),
        (
            b'{"source": "a", "target": "b"}\n{"source": "a", "target": "b\\ud83d"}\n',
            "line 2 has a target with half of a surrogate pair, which is no character",
        ),
    ],
)
def test_malformed_json_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_inputs(write(tmp_path / "a.jsonl", data))


@pytest.mark.parametrize(
    ("name", "columns"), [("a.tsv", "2,2"), ("a.jsonl", "source,source"), ("a.tmx", "en,en"), ("a.tsv", "1, 1")]
)
def test_both_sides_the_same_is_refused(tmp_path: Path, name: str, columns: str) -> None:
    content = {".tsv": b"a\tb\n", ".jsonl": b'{"source": "a", "target": "b"}\n', ".tmx": b"<tmx/>"}
    with pytest.raises(UserError, match=f"--columns are '{columns}', but source and target must be two different ones"):
        read_inputs(write(tmp_path / name, content[Path(name).suffix]), columns=columns)


def test_a_member_that_is_packed_in_a_way_that_python_lacks(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.tsv", "a\tb\n")
    content = (tmp_path / "a.zip").read_bytes()
    assert content.count(b"PK\x01\x02") == 1
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    changed = bytearray(content)
    changed[local + 8], changed[central + 10] = 9, 9  # Deflate64
    (tmp_path / "a.zip").write_bytes(changed)
    with pytest.raises(UserError, match=r"a\.zip.* cannot be read: .*compression"):
        read_inputs(str(tmp_path / "a.zip"))
