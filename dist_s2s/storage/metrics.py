"""metrics.jsonl: a JSON object a line, which a run appends to while others read."""

import json
import os
from pathlib import Path
from typing import Any

from dist_s2s import UserError

METRICS = "metrics.jsonl"


class MetricsReader:
    """Reads a file of metrics as it grows; a line counts when its end is there.

    Attributes:
        damaged: how many complete lines hold no JSON object with a step.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = -1
        self._position = 0
        self.damaged = 0

    def new_lines(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the lines since the last call, and whether they are the whole file, which another has replaced.

        A run that goes on replaces it, without the lines that it writes again. No file is an empty one.

        Raises:
            UserError: it cannot be read.
        """
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                is_other = status.st_ino != self._inode or status.st_size < self._position
                if is_other:
                    self._inode, self._position, self.damaged = status.st_ino, 0, 0
                file.seek(self._position)
                complete = file.read()
        except FileNotFoundError:
            return [], False
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}") from None
        complete = complete[: complete.rfind(b"\n") + 1]
        self._position += len(complete)
        lines = [parse_line(text) for text in complete.splitlines()]
        self.damaged += lines.count(None)
        return [line for line in lines if line is not None], is_other


def parse_line(text: bytes) -> dict[str, Any] | None:
    """Return what a line says; None if it is no JSON object with a step."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # of JSON, or of UTF-8
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None
