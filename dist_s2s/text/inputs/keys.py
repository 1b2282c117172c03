"""Which two named values are the source and the target: of JSON objects, and of Parquet's columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dist_s2s import UserError

_USUAL = (("source", "target"), ("src", "tgt"), ("src", "trg"))


def choose_keys(
    file: str, columns: str | None, example: Callable[[], Mapping[str, Any]]
) -> tuple[tuple[str, str], str]:
    """Return the keys of both sides, with dots for what lies within, and how they were chosen.

    Args:
        file: its name, for the message.
        columns: two keys with a comma between them, or None.
        example: returns an entry of the file, from which the keys are taken if there is no choice.

    Raises:
        UserError: there are other than two.
    """
    if columns is not None:
        names = [name.strip() for name in columns.split(",")]
        if len(names) != 2 or not all(names):
            raise UserError(f"--columns of {file} are two names, such as source,target, but are {columns!r}")
        check_two(names, columns)
        return (names[0], names[1]), "as given"
    found = list(_texts(example()))
    for usual in _USUAL:
        if set(usual) <= set(found):
            return usual, "by their names"
    if len(found) != 2:
        texts = ", ".join(found) or "none"
        raise UserError(
            f"{file}: which of its texts ({texts}) are source and target? Say it, as in --columns source,target"
        )
    return (found[0], found[1]), "the two that hold text (--columns for another choice or order)"


def check_two(names: Sequence[object], columns: str) -> None:
    """Raise UserError if both sides would be the same: a model would learn to copy."""
    if names[0] == names[1]:
        raise UserError(f"--columns are {columns!r}, but source and target must be two different ones")


def value_at(entry: Mapping[str, Any], key: str) -> object:
    """Return the value of a key; the part after a dot is a key within. None if there is none."""
    if key in entry:
        return entry[key]
    value: object = entry
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(entry: Mapping[str, Any]) -> Iterator[str]:
    for key, value in entry.items():
        if isinstance(value, str):
            yield key
        elif isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner, text in value.items() if isinstance(text, str))
