"""A run's small files are whole or refused, and so is other data than a run was trained on."""

from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.storage.durable_files import read_checked_json, write_checked_json
from dist_s2s.storage.run_files import RUN_MANIFEST, check_run, data_changes, describe_data, write_run_files

CONTENT = {"step": 7, "of": {"2": [1, 2], "10": None, "é": 0.1}, "pair": (3, 4)}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_checked_json(tmp_path / "a.json", CONTENT)
    assert read_checked_json(tmp_path / "a.json") == {**CONTENT, "pair": [3, 4]}


def test_any_flipped_bit_of_a_checked_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_checked_json(path, CONTENT)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            content = read_checked_json(path)
        except (UserError, UnicodeDecodeError):
            continue
        assert content == {**CONTENT, "pair": [3, 4]}, f"byte {place}"  # white space, which says nothing


def test_a_file_of_format_1_needs_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"format": 1, "step": 3}')
    assert read_checked_json(tmp_path / "old.json") == {"format": 1, "step": 3}
    (tmp_path / "old.json").write_text('{"format": 2, "step": 3}')
    with pytest.raises(UserError, match="is damaged"):
        read_checked_json(tmp_path / "old.json")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "train.tsv").write_text("a\tb\n")
    data = describe_data({"data.train": str(tmp_path / "train.tsv"), "data.test": "phrasebook"}, "phrasebook")
    write_run_files(tmp_path, {"config.yaml": b"run_dir: x\n", "source_vocabulary.txt": b"<pad>\n"}, data)
    return tmp_path


@pytest.mark.parametrize("name", ["config.yaml", "source_vocabulary.txt", RUN_MANIFEST])
def test_a_damaged_file_of_a_run_is_named(run_dir: Path, name: str) -> None:
    whole = (run_dir / name).read_bytes()
    assert check_run(run_dir)["data.test"] == {"file": "phrasebook"}
    (run_dir / name).write_bytes(whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:])
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        check_run(run_dir)


def test_a_missing_file_of_a_run_is_named(run_dir: Path) -> None:
    (run_dir / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"lacks its file config\.yaml"):
        check_run(run_dir)


def test_a_run_without_a_manifest_is_taken_as_it_is(tmp_path: Path) -> None:
    assert check_run(tmp_path) == {}


def test_other_data_is_found_by_content_and_not_by_name(run_dir: Path) -> None:
    there = check_run(run_dir)
    train = run_dir / "train.tsv"
    moved = train.rename(run_dir / "moved.tsv")
    assert data_changes(there, describe_data({"data.train": str(moved), "data.test": "phrasebook"}, "phrasebook")) == []
    train.write_text("a\tc\n")
    changed = data_changes(there, describe_data({"data.train": str(train), "data.test": "phrasebook"}, "phrasebook"))
    assert changed == [f"data.train ({train}): 4 bytes there, 4 bytes of other content here"]
    to_file = data_changes(there, describe_data({"data.train": str(moved), "data.test": str(moved)}, "phrasebook"))
    assert to_file == [f"data.test ({moved}): phrasebook there, 4 bytes here"]
    to_built_in = data_changes(
        there, describe_data({"data.train": "phrasebook", "data.test": "phrasebook"}, "phrasebook")
    )
    assert to_built_in == ["data.train (phrasebook): 4 bytes there, phrasebook here"]
