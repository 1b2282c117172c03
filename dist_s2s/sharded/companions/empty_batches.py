"""Batches without examples: like those that a rank has had, or like those that another rank describes to it."""

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def emptied(batch: Any) -> Any:
    """Return the same batch with no examples.

    Tensors of at least one dimension lose all along the first one, and lists of strings their strings; mappings, lists,
    tuples, named tuples and dataclasses keep what they are.

    Raises:
        TypeError: if the batch holds anything else but None, of which nobody knows what it is with no examples.
    """
    if isinstance(batch, Tensor) and batch.dim():
        return batch.new_empty(0, *batch.shape[1:])
    if batch is None:
        return None
    if isinstance(batch, Mapping):
        empty: Any = copy.copy(batch)
        for key, value in batch.items():
            empty[key] = emptied(value)
        return empty
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(emptied, batch))
    if isinstance(batch, (list, tuple)):
        texts = bool(batch) and all(isinstance(part, str) for part in batch)
        return type(batch)([] if texts else map(emptied, batch))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = [field.name for field in dataclasses.fields(batch) if field.init]
        return dataclasses.replace(batch, **{name: emptied(getattr(batch, name)) for name in fields})
    what = "a tensor without dimensions" if isinstance(batch, Tensor) else f"an object of type {type(batch).__name__}"
    raise TypeError(f"what is {what} in a batch without examples? Pass empty=, a function that returns such a batch")


def describe(empty: Any) -> str:
    """Return as JSON what ``restore`` makes the same empty batch of, on a rank that has had none.

    Raises:
        TypeError: if it holds anything but tensors, None, dict, list and tuple, whose types all ranks know.
    """
    return json.dumps(_form(empty))


def restore(description: str) -> Any:
    """Return the empty batch that ``describe`` has described, with tensors on the CPU."""
    return _of_form(json.loads(description))


def _form(empty: Any) -> Any:
    if isinstance(empty, Tensor):
        return {"tensor": list(empty.shape), "dtype": str(empty.dtype).removeprefix("torch.")}
    if empty is None:
        return None
    if type(empty) is dict and all(isinstance(key, str) for key in empty):
        return {"dict": {key: _form(value) for key, value in empty.items()}}
    if type(empty) in (list, tuple):
        return {type(empty).__name__: [_form(part) for part in empty]}
    raise TypeError(
        f"a rank without any batch cannot make an empty one of type {type(empty).__name__}; pass empty=, a function "
        "that returns a batch without examples"
    )


def _of_form(form: Any) -> Any:
    match form:
        case {"tensor": shape, "dtype": dtype}:
            return torch.empty(shape, dtype=getattr(torch, dtype))
        case {"dict": parts}:
            return {key: _of_form(value) for key, value in parts.items()}
        case {"list": parts}:
            return [_of_form(part) for part in parts]
        case {"tuple": parts}:
            return tuple(_of_form(part) for part in parts)
    return None
