"""What a run needs to be used again: its small files under a checksum, and which data it was trained on.

``run.json`` holds the SHA-256 of each of these files. Several files cannot change at once, so a change is announced:

    1. run.json allows two sums for a file that is about to change: the old one (null: no file) and the new one
    2. the files are replaced one after the other
    3. run.json holds the new sums alone, and the new description of the data

A kill at any moment thus leaves a run that can be read and resumed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.storage.durable_files import read_checked_json, sha256_of, write_checked_json, write_durably

RUN_MANIFEST = "run.json"


def write_run_files(run_dir: Path, files: Mapping[str, bytes], data: Mapping[str, Mapping[str, object]]) -> None:
    """Write the small files of a run and the manifest that seals them. A kill at any moment leaves a valid run.

    Args:
        run_dir: an existing directory; if it holds a run, that has passed ``check_run``.
        files: content by name, in the order in which the files are to be written.
        data: what the run is trained on from now on, from ``describe_data``.
    """
    before = {name: _sha256_or_none(run_dir / name) for name in files}
    after = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    changing = [name for name in files if before[name] != after[name]]
    if changing:
        allowed = {name: [before[name], after[name]] for name in files}
        write_checked_json(run_dir / RUN_MANIFEST, {"sha256": allowed, "data": check_run(run_dir) or data})
    for name in changing:
        write_durably(run_dir / name, files[name])
    write_checked_json(run_dir / RUN_MANIFEST, {"sha256": after, "data": data})


def check_run(run_dir: Path) -> dict[str, dict[str, object]]:
    """Return what a run was trained on, as ``describe_data`` put it, once its files are found to be undamaged.

    Empty for a run from before there was a manifest.

    Raises:
        UserError: if a file is missing or damaged.
    """
    if not (run_dir / RUN_MANIFEST).exists():
        return {}
    manifest = read_checked_json(run_dir / RUN_MANIFEST)
    for name, expected in manifest["sha256"].items():
        actual = _sha256_or_none(run_dir / name)
        if actual in (expected if isinstance(expected, list) else [expected]):
            continue
        if actual is None:
            raise UserError(f"the run {run_dir} lacks its file {name}")
        raise UserError(
            f"{run_dir / name} is damaged or was edited: its SHA-256 is not the one in {RUN_MANIFEST}; put the file "
            "back as it was"
        )
    data: dict[str, dict[str, object]] = manifest["data"]
    return data


def describe_data(
    sources: Mapping[str, str], built_in: str, files_of: Callable[[str], Sequence[Path]] = lambda source: [Path(source)]
) -> dict[str, dict[str, object]]:
    """Return by key which data a run reads: the size and SHA-256 of its files.

    Args:
        sources: what the configuration names, by key; ``built_in`` stands for data that the program generates.
        built_in: see ``sources``.
        files_of: returns the files that a name stands for.
    """
    described: dict[str, dict[str, object]] = {}
    for key, source in sources.items():
        if source == built_in:
            described[key] = {"file": built_in}
            continue
        files = files_of(source)
        sums = [sha256_of(file) for file in files]
        together = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
        size = sum(file.stat().st_size for file in files)
        described[key] = {"file": source, "bytes": size, "sha256": together}
    return described


def data_id(data: Mapping[str, Mapping[str, object]]) -> str:
    """Return a hash of the data's content, wherever its files lie."""
    content = {key: described.get("sha256", described["file"]) for key, described in data.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def data_changes(there: Mapping[str, Mapping[str, object]], here: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Return a line for each key whose data is not what the run was trained on."""
    lines = []
    for key, old in there.items():
        new = here.get(key, {})
        if old.get("sha256") != new.get("sha256"):
            other = " of other content" if _size(old) == _size(new) else ""
            lines.append(f"{key} ({new.get('file')}): {_size(old)} there, {_size(new)}{other} here")
    return lines


def _size(described: Mapping[str, object]) -> str:
    return f"{described['bytes']:,} bytes" if "bytes" in described else str(described.get("file"))


def _sha256_or_none(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if there is no such file."""
    return sha256_of(path) if path.exists() else None
