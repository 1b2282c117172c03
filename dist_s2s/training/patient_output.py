"""A screen whose loss ends no training."""

import os
from typing import Any, TextIO


class PatientOutput:
    """A text stream that goes on where nobody reads it any more, or its disk is full: what cannot be shown is lost.

    The rest is as of the stream within.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        try:
            return self._stream.write(text)
        except OSError:
            lose(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write what has been buffered, if that is possible."""
        try:
            self._stream.flush()
        except OSError:
            lose(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def lose(stream: TextIO) -> None:
    """Let all that a stream still holds, or is written to it, also by others to the same descriptor, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
