"""The coefficients of a machine, as a file."""

import json
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from dist_s2s import UserError
from dist_s2s.cost.seconds import COEFFICIENTS


@dataclass(frozen=True)
class Calibration:
    """What was measured on a machine, and where and when.

    Attributes:
        process_bytes: the peak resident memory of a rank that has joined its group, before it has a table.
        coefficients: those of seconds.py.
    """

    date: str
    cpu: str
    cores: int
    torch: str
    process_bytes: float
    coefficients: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return what read_calibration reads, with three digits of each coefficient."""
        rounded = {name: float(f"{value:.3g}") for name, value in self.coefficients.items()}
        return {**asdict(self), "coefficients": rounded}


def read_calibration(path: Path | None) -> Calibration:
    """Read a file that ``--calibrate`` has written, by default that of the package.

    Raises:
        UserError: the file cannot be read, or is not a calibration.
    """
    source = files("dist_s2s.cost") / "calibration.json" if path is None else path
    try:
        found = Calibration(**json.loads(source.read_text(encoding="utf-8")))
        coefficients = {name: float(found.coefficients[name]) for name in COEFFICIENTS}
        return replace(
            found, cores=int(found.cores), process_bytes=float(found.process_bytes), coefficients=coefficients
        )
    except OSError as error:
        raise UserError(f"cannot read the calibration {source}: {error.strerror}; make one with --calibrate") from None
    except (ValueError, TypeError, KeyError) as error:  # not JSON, or not what to_json returns
        raise UserError(f"{source} is not a calibration of this version ({error}); make one with --calibrate") from None
