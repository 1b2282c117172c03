"""What a preparation is to do: all that decides its result."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dist_s2s.config import Config
from dist_s2s.config.data import ENCODING_KEYS
from dist_s2s.storage.durable_files import sha256_of
from dist_s2s.text.corpus import data_files
from dist_s2s.text.side import SideSettings
from dist_s2s.translation.runs.load import side_settings

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """What decides a prepared corpus, beside the content of its inputs.

    Attributes:
        inputs: what is read for training; see `text.inputs.open_input`.
        valid, test: the same for the other splits; None to cut one off.
        columns, skip_bad_lines: as the keys of the same names.
        filters: those of `report.REASONS` that are to be applied.
        max_ratio: how many times as long the longer side may be, in bytes.
        valid_size, test_size: pairs to cut off; None: a twentieth, but no more than `selecting.SPLIT_PAIRS`.
        seed: of the choice of those.
        vocabulary_pairs: the sides are built from so many pairs at most, evenly spread.
        source, target: what the sides are built from.
        max_length: most tokens of a side.
        data: the keys of the section `data` that decide what text becomes, for the runs that train on the corpus.
    """

    inputs: tuple[str, ...]
    valid: str | None
    test: str | None
    columns: str | None
    skip_bad_lines: bool
    filters: tuple[str, ...]
    max_ratio: float
    valid_size: int | None
    test_size: int | None
    seed: int
    vocabulary_pairs: int
    source: SideSettings
    target: SideSettings
    max_length: int
    data: Mapping[str, object]

    def settings(self) -> dict[str, Any]:
        """Return the plan as what JSON holds."""
        settings: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(self)}))
        return settings

    def files(self) -> list[dict[str, Any]]:
        """Return the name, size and SHA-256 of each file that is read."""
        names = [name for name in (*self.inputs, self.valid, self.test) if name is not None]
        paths = [path for name in names for path in data_files(name, self.columns)]
        return [{"file": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths]


def plan_of(config: Config, **options: Any) -> Plan:
    """Return the plan of a configuration, and of what else is asked for: fields of `Plan`."""
    data = config.data
    source, target = side_settings(config)
    return Plan(
        columns=data.columns,
        skip_bad_lines=data.skip_bad_lines,
        source=source,
        target=target,
        max_length=data.max_length,
        data={key: getattr(data, key) for key in ENCODING_KEYS},
        **options,
    )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting that differs between two of what `Plan.settings` and `Plan.files` return."""
    lines = []
    for key in sorted(there.keys() | here.keys()):
        old, new = there.get(key), here.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += [f"{key}.{line}" for line in differences(old, new)]
        elif key == "files":
            lines.append("the content of its inputs")
        else:
            lines.append(f"{key}: {_shown(old)} there, {_shown(new)} here")
    return lines


def _shown(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
