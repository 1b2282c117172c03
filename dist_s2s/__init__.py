"""LSTM sequence-to-sequence models whose embedding tables are sharded by rows over several processes."""

__version__ = "0.1.0"


class UserError(Exception):
    """Something that the user can put right: a wrong key, a missing file, a malformed line.

    Its text names the rule, the value and what to do. Commands print it as a single line and exit with status 2,
    without a traceback.
    """


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with what it counts: ``one``, or ``many``, by default the same with an s, unless it is one."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
