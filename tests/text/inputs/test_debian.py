"""A folder of Debian packages, packed or unpacked."""

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.text.inputs import open_input, read_inputs
from dist_s2s.text.inputs.debian import plain
from tests.text.inputs.test_structured_forms import mo

CATALOG = mo(
    {"": "charset=UTF-8\n", "_Open <b>file</b>": "打开<b>文件</b>(_O)", "<br/>": "<br/>", "E&xit": "退出(&X)"}, "<"
)
PLACE = "usr/share/locale/{}/LC_MESSAGES/app.mo"
EXPECTED = [("Open file", "打开文件"), ("Exit", "退出")]


def deb(catalogs: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in {"usr/bin/app": b"binary", **catalogs}.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    members = {"debian-binary": b"2.0", "control.tar": b"odd", "data.tar.xz": lzma.compress(packed.getvalue())}
    parts = [
        f"{name:<16}{0:<12}{0:<6}{0:<6}{0:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        for name, data in members.items()
    ]
    return b"!<arch>\n" + b"".join(parts)


def test_packages_packed_and_unpacked(tmp_path: Path) -> None:
    (tmp_path / "deb").mkdir()
    (tmp_path / "deb" / "app_1_all.deb").write_bytes(deb({PLACE.format("zh_CN"): CATALOG}))
    assert read_inputs(str(tmp_path / "deb")) == EXPECTED
    assert read_inputs(str(tmp_path / "deb"), columns="zh_CN,en") == [pair[::-1] for pair in EXPECTED]
    assert "from en to zh_CN, the only one that there is" in open_input(str(tmp_path / "deb")).description
    for language in ("zh_CN", "de"):
        path = tmp_path / "unpacked" / "app" / PLACE.format(language)
        path.parent.mkdir(parents=True)
        path.write_bytes(CATALOG)
    assert read_inputs(str(tmp_path / "unpacked"), columns="en,zh_CN") == EXPECTED
    assert "from en to zh_CN, as given" in open_input(str(tmp_path / "unpacked"), columns="en,zh-cn").description
    with pytest.raises(UserError, match=r"which of its languages \(de, zh_CN\)\?"):
        read_inputs(str(tmp_path / "unpacked"))
    with pytest.raises(UserError, match="are en and one of de, zh_CN, but are 'en,fr'"):
        read_inputs(str(tmp_path / "unpacked"), columns="en,fr")


def test_the_spelling_that_is_given_comes_first(tmp_path: Path) -> None:
    for language in ("zh-CN", "zh_CN"):
        (tmp_path / f"{language}.deb").write_bytes(deb({PLACE.format(language): CATALOG}))
    for language in ("zh-CN", "zh_CN"):
        assert open_input(str(tmp_path), columns=f"en,{language}").paths == [tmp_path / f"{language}.deb"]


def test_damaged_packages_are_named(tmp_path: Path) -> None:
    whole = deb({PLACE.format("de"): CATALOG})
    for data, message in (
        (whole[:-60], "cannot be read"),
        (b"x" * 99, "is no Debian package"),
        (whole[:150], "damaged"),
    ):
        (tmp_path / "app.deb").write_bytes(data)
        with pytest.raises(UserError, match=rf"app\.deb .*{message}"):
            read_inputs(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_File", "File"),
        ("文件(_F)...", "文件..."),
        ("&Save &amp; close", "Save &amp; close"),
        ("a_b < c > d", "a_b < c > d"),
        ("~Edit\n<link>here</link>", "Edit here"),
    ],
)
def test_shortcuts_and_tags_are_dropped(text: str, expected: str) -> None:
    assert plain(text) == expected
