"""What a machine's work costs: the coefficients of the model, and the file that holds them.

Each comes from steps of DistributedEmbedding that a calibration has timed, see measure.py and fit.py.
"""

import json
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self

from dist_s2s import UserError
from dist_s2s.cost.problem import OPTIMIZERS, TRANSPORTS, Moves, OptimizerName


@dataclass(frozen=True)
class PartCost:
    """Seconds of a rank's own work in one part of a step, for each …

    step: once. id: of its batch (N). dealt_id: of its batch, if rows are laid out round_robin, for the id's position.
    id_element: N · D; also in plan, which finds the caches full of the rows of the step before.
    distinct: distinct id of its batch (U). distinct_element: U · D.
    request: row that ranks ask of it, once for each rank (R). request_element: R · D.
    row: distinct row that they ask of it (M). row_element: M · D.
    cold_row, cold_element: of the rows that are read or updated those that were not asked for in the step before, times
    the share of the table that the processor's cache does not hold.
    converted: element that changes its dtype.

    An element counts once for each 4 bytes of it. Measured: the time of this part between meetings, on ranks that have
    a core each. A part has only some of them; the others are 0.
    """

    step: float = 0.0
    id: float = 0.0
    dealt_id: float = 0.0
    id_element: float = 0.0
    distinct: float = 0.0
    distinct_element: float = 0.0
    request: float = 0.0
    request_element: float = 0.0
    row: float = 0.0
    row_element: float = 0.0
    cold_row: float = 0.0
    cold_element: float = 0.0
    converted: float = 0.0


@dataclass(frozen=True)
class TransportCost:
    """What a step costs with one transport, all but the update.

    plan, rows, gradients: a rank's own work in make_plan, in the lookup by that plan, and in backward. In shared memory
    there is no plan, and work is also what copies bytes from rank to rank.
    fixed, peer, switch, byte: seconds of an exchange, which is a meeting in shared memory, or an all_to_all of gloo.
    peer: of work for each other rank. Measured: the processor time of a small step of four ranks, against two.
    fixed: of each exchange. switch: of each, for every rank but one that shares a core. byte: for each byte that a rank
    sends to another one, and again for each that it receives; 0 in shared memory. Measured: what steps of two and of
    four ranks take beyond their work.
    """

    plan: PartCost
    rows: PartCost
    gradients: PartCost
    fixed: float = 0.0
    peer: float = 0.0
    switch: float = 0.0
    byte: float = 0.0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The reverse of ``Coefficients.to_json``. Raises KeyError or TypeError if one is missing or unknown."""
        plan, rows, gradients = (PartCost(**values[name]) for name in ("plan", "rows", "gradients"))
        exchange = (float(values.get(name, 0.0)) for name in ("fixed", "peer", "switch", "byte"))
        return cls(plan, rows, gradients, *exchange)


@dataclass(frozen=True)
class Coefficients:
    """All that the model knows of a machine.

    transports: of each. update: of each optimizer's step.
    crowded: how much longer a rank's work takes, beside the time that it waits for a core, where ranks share cores.
    crowded_element: the same of what it does for each element, since ranks that take turns on a core drive each other's
    rows from its caches. Measured: on four ranks, against two, in shared memory.
    cache_bytes: of a host's processor; the size with which the measured times of small and large tables fit best.
    process_bytes: largest resident memory of a rank that has joined its group, before it has a table.
    """

    transports: dict[Moves, TransportCost]
    update: dict[OptimizerName, PartCost]
    crowded: float
    crowded_element: float
    cache_bytes: float
    process_bytes: float

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The reverse of ``to_json``. Raises KeyError or TypeError if one is missing or unknown."""
        return cls(
            transports={name: TransportCost.from_json(values["transports"][name]) for name in TRANSPORTS},
            update={name: PartCost(**values["update"][name]) for name in OPTIMIZERS},
            crowded=float(values["crowded"]),
            crowded_element=float(values["crowded_element"]),
            cache_bytes=float(values["cache_bytes"]),
            process_bytes=float(values["process_bytes"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Numbers by name, rounded to what a measurement knows; without those that a part does not have."""
        values: dict[str, Any] = _rounded(asdict(self))
        return values


@dataclass(frozen=True)
class Calibration:
    """Coefficients, and where they come from: date, cpu, cores and torch's version."""

    date: str
    cpu: str
    cores: int
    torch: str
    coefficients: Coefficients

    def to_json(self) -> dict[str, Any]:
        """What read_calibration reads."""
        return {**asdict(self), "coefficients": self.coefficients.to_json()}


def read_calibration(path: Path | None) -> Calibration:
    """Reads a file that a calibration has written, by default that of the package. Raises UserError."""
    source: Path | Traversable = files("dist_s2s.cost") / "calibration.json" if path is None else path
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the calibration {source}: {error.strerror}; make one with --calibrate") from None
    except ValueError as error:  # also of the text's encoding
        raise UserError(f"the calibration {source} is not JSON: {error}; make one with --calibrate") from None
    try:
        coefficients = Coefficients.from_json(values["coefficients"])
        return Calibration(
            **{field.name: values[field.name] for field in fields(Calibration)[:-1]}, coefficients=coefficients
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"the calibration {source} is not of this version ({error!r}); make one with --calibrate"
        ) from None


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items() if part != 0}
    return float(f"{value:.4g}")
