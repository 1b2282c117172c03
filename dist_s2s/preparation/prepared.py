"""A prepared corpus: what it holds, whether it is whole, and whether it fits a run.

What is checked when:

    every start of a training     the manifest by its own sum; the size of each file; vocabularies, validation and test
                                  pairs and target counts by their SHA-256
    in training                   each megabyte of the token files by its CRC-32, when it is first read
    `dist-s2s prepare` again      every file by its SHA-256
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.config.data import ENCODING_KEYS, DataConfig
from dist_s2s.config.loading import with_keys
from dist_s2s.config.values import as_text
from dist_s2s.preparation.plan import FORMAT
from dist_s2s.storage.durable_files import read_checked_json, sha256_of
from dist_s2s.text.corpus import PREPARED_MANIFEST, is_prepared
from dist_s2s.text.side import TextSide
from dist_s2s.text.token_files import TARGET_COUNTS, StoredCorpus
from dist_s2s.translation.runs.load import side_settings


def is_finished(folder: Path) -> bool:
    """Tell whether a folder has a manifest."""
    return (folder / PREPARED_MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared corpus, once all its files have their sizes.

    Raises:
        UserError: it is damaged or of another version, or a file is missing or has another size.
    """
    manifest = read_checked_json(folder / PREPARED_MANIFEST)
    found = manifest.get("settings", {}).get("format") if isinstance(manifest.get("settings"), dict) else None
    if found != FORMAT:
        raise UserError(f"{folder} is a prepared corpus of format {found}, but this version reads {FORMAT}")
    for name, file in (manifest["files"] | manifest["small_files"]).items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"the prepared corpus {folder} lacks its file {name}: prepare it again")
        if path.stat().st_size != file["size"]:
            raise UserError(
                f"{path} is damaged: it has {path.stat().st_size:,} bytes, but the manifest says {file['size']:,}; "
                "prepare the corpus again"
            )
    return manifest


def small_file_sums(folder: Path, names: list[str]) -> dict[str, dict[str, object]]:
    """Return the size and SHA-256 of files, for the manifest."""
    return {name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}


def check_sums(folder: Path, manifest: Mapping[str, Any], names: set[str] | None = None) -> None:
    """Raise UserError unless files have the SHA-256 sums of the manifest.

    Args:
        folder: of the corpus.
        manifest: its manifest.
        names: of the files; None for all.
    """
    for name, file in (manifest["files"] | manifest["small_files"]).items():
        if (names is None or name in names) and sha256_of(folder / name) != file["sha256"]:
            raise UserError(
                f"{folder / name} is damaged: its SHA-256 is not the one in {PREPARED_MANIFEST}; "
                "prepare the corpus again"
            )


class PreparedCorpus:
    """A prepared corpus that is open for training.

    Attributes:
        train: its training pairs.
        dropped: how many were too long.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder, self._manifest = folder, manifest
        self.train = StoredCorpus(folder, {name: file["blocks"] for name, file in manifest["files"].items()})
        self.dropped: int = manifest["report"]["dropped"].get("length", 0)

    def check_fits(self, config: Config) -> None:
        """Raise UserError if the configuration makes other ids of a text than the corpus has."""
        there = self._manifest["settings"]
        _check_same(self.folder, config.data, there["data"], ENCODING_KEYS)
        for name, settings in zip(("source", "target"), side_settings(config), strict=True):
            if there[name] != json.loads(json.dumps(asdict(settings))):
                raise _other_settings(self.folder, [f"how the {name} side is built"])

    def check_side(self, name: str, side: TextSide) -> None:
        """Raise UserError unless side `name`, "source" or "target", is the one that the corpus was encoded with."""
        for file, content in side.files(name).items():
            if not (self.folder / file).is_file() or (self.folder / file).read_bytes() != content:
                raise UserError(
                    f"{self.folder} was prepared with another {file} than the run has that is to go on: train a new "
                    "run on it (another --run_dir)"
                )


def open_prepared(folder: Path) -> PreparedCorpus:
    """Open a prepared corpus for training; its token files are checked as they are read.

    Raises:
        UserError: it is damaged.
    """
    manifest = read_manifest(folder)
    check_sums(folder, manifest, {*manifest["small_files"], TARGET_COUNTS})
    return PreparedCorpus(folder, manifest)


def adopt(config: Config) -> Config:
    """Return the configuration with what its prepared corpus decides, where that is not set.

    These are the keys of how text becomes ids; and the corpus's own validation and test pairs, if none are named.

    Raises:
        UserError: the corpus is damaged.
    """
    data = config.data
    if not is_prepared(data.train):
        return config
    there = read_manifest(Path(data.train))["settings"]["data"]
    _check_same(Path(data.train), data, there, [key for key in ENCODING_KEYS if key in data.model_fields_set])
    updates = {key: there[key] for key in ENCODING_KEYS if key in there and key not in data.model_fields_set}
    updates |= {split: data.train for split in ("valid", "test") if split not in data.model_fields_set}
    return with_keys(config, {f"data.{key}": value for key, value in updates.items()})


def _check_same(folder: Path, data: DataConfig, there: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise UserError unless some keys are as a corpus was prepared with."""
    here = data.model_dump(mode="json")
    changed = [
        f"data.{key}: {as_text(there.get(key))} there, {as_text(here[key])} here"
        for key in keys
        if there.get(key) != here[key]
    ]
    if changed:
        raise _other_settings(folder, changed)


def _other_settings(folder: Path, changed: Sequence[str]) -> UserError:
    return UserError(
        f"{folder} was prepared with other settings ({'; '.join(changed)}): leave these keys out, which takes those of "
        "the corpus, or prepare it again"
    )
