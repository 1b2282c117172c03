"""What a run needs to be used again: its small files under a checksum, and which data it was trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.storage.durable_files import read_checked_json, sha256_of, write_checked_json

RUN_MANIFEST = "run.json"


def seal_run(run_dir: Path, names: Sequence[str], data: Mapping[str, Mapping[str, object]]) -> None:
    """Write the manifest of a run directory: the SHA-256 of the files ``names``, and what the run is trained on."""
    sums = {name: sha256_of(run_dir / name) for name in names}
    write_checked_json(run_dir / RUN_MANIFEST, {"sha256": sums, "data": {key: dict(of) for key, of in data.items()}})


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
        try:
            actual = sha256_of(run_dir / name)
        except FileNotFoundError:
            raise UserError(f"the run {run_dir} lacks its file {name}") from None
        if actual != expected:
            raise UserError(
                f"{run_dir / name} is damaged or was edited: its SHA-256 is not the one in {RUN_MANIFEST}; put the "
                "file back as it was"
            )
    data: dict[str, dict[str, object]] = manifest["data"]
    return data


def describe_data(sources: Mapping[str, str], built_in: str) -> dict[str, dict[str, object]]:
    """Return by key which data a run reads: the size and SHA-256 of each file.

    Args:
        sources: path by key of the configuration; ``built_in`` stands for data that the program generates.
    """
    described: dict[str, dict[str, object]] = {}
    for key, source in sources.items():
        if source == built_in:
            described[key] = {"file": built_in}
        else:
            path = Path(source)
            described[key] = {"file": source, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return described


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
