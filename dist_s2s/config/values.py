"""Kinds of values that keys have, what a text on the command line means for them, and the base of all sections."""

import os
import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MOST_TRACED_STEPS = 100
MOST_LENGTH_PENALTY = 10.0  # lengths to this power are still numbers


def none_from_text(value: object) -> object:
    """Return None for the texts none and null; what is anything else as it is."""
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


def expand_path(text: object) -> object:
    """Return a path with ``~`` and environment variables expanded; what is no text is returned as it is.

    Raises:
        ValueError: if a variable is not set.
    """
    if not isinstance(text, str):
        return text
    expanded = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unset is not None:
        raise ValueError(f"the environment variable in {text!r} is not set: {unset.group()}")
    return expanded


def expand_inputs(value: object) -> object:
    """Return inputs as text: those of a list with ` + ` between them, each path expanded as by `expand_path`.

    Raises:
        ValueError: as `expand_path`.
    """
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = " + ".join(value)
    if not isinstance(value, str):
        return value
    return "".join(str(expand_path(part)) for part in re.split(r"( \+ |,)", value))


PathText = Annotated[str, BeforeValidator(expand_path)]
OptionalPath = Annotated[str | None, BeforeValidator(lambda value: expand_path(none_from_text(value)))]
InputsText = Annotated[str, BeforeValidator(expand_inputs)]
OptionalInputs = Annotated[str | None, BeforeValidator(lambda value: expand_inputs(none_from_text(value)))]
OptionalText = Annotated[str | None, BeforeValidator(none_from_text)]
OptionalInt = Annotated[int | None, BeforeValidator(none_from_text)]
OptionalFloat = Annotated[float | None, BeforeValidator(none_from_text)]


def _list_from_text(value: object) -> object:
    """Return the parts of a,b or [a,b]; none, null and nothing are the empty list."""
    value = none_from_text(value)
    if value is None:
        return []
    if not isinstance(value, str):
        return value
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    return [part.strip() for part in inner.split(",") if part.strip()]


def _check_orders(value: object) -> object:
    """Return lengths of n-grams from a list, 2,3 or [2, 3]. Raises ValueError for what is none, or given twice."""
    listed = _list_from_text(value.strip("[]")) if isinstance(value, str) else value
    texts = list(map(str, listed)) if isinstance(listed, list | tuple) else [""]
    if not all(re.fullmatch("[2-8]", text) for text in texts) or len(set(texts)) < len(texts):
        raise ValueError(f"must be lengths from 2 to 8, each once, such as 2,3, or [] for none, but is {value!r}")
    return tuple(map(int, texts))


def _rates_from_text(value: object) -> object:
    """Return {pattern: factor} from PATTERN=FACTOR,PATTERN=FACTOR; none, null, {} and nothing are no factors."""
    value = none_from_text(value)
    if value in (None, "{}"):
        return {}
    if not isinstance(value, str):
        return value
    return dict(part.strip().rpartition("=")[::2] for part in value.split(",") if part.strip())


def _check_steps(value: object) -> object:
    """Return FIRST:LAST; of a single step both are the same.

    Raises:
        ValueError: if it is no such range, or a longer one than a trace can have.
    """
    value = none_from_text(value)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]+(:[0-9]+)?", str(value), re.ASCII):
        raise ValueError(f"must be FIRST:LAST, such as 100:105, but is {value!r}")
    ends = str(value).split(":")
    first, last = int(ends[0]), int(ends[-1])
    if not 1 <= first <= last:
        raise ValueError(f"must begin at step 1 or later, and not end before it begins, but is {value!r}")
    if last - first >= MOST_TRACED_STEPS:
        raise ValueError(f"may be {MOST_TRACED_STEPS} steps at most, as a trace is kept in memory, but is {value!r}")
    return f"{first}:{last}"


Patterns = Annotated[tuple[str, ...], BeforeValidator(_list_from_text)]
Words = Annotated[tuple[str, ...], BeforeValidator(_list_from_text)]
Tracker = Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]
Trackers = Annotated[tuple[Tracker, ...], BeforeValidator(_list_from_text)]
Orders = Annotated[tuple[int, ...], BeforeValidator(_check_orders)]
Steps = Annotated[str | None, BeforeValidator(_check_steps)]
Rates = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_rates_from_text)]


class Section(BaseModel):
    """One section of the YAML file: immutable, without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def as_text(value: object) -> str:
    """Return a value in YAML's words, such as null and true."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)
