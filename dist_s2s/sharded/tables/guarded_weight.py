"""The weight of a table, whose gradient no function takes for that of an ordinary parameter.

A function that measures or checks gradients on one rank alone is wrong about a shard, and says nothing: the norm is
that of some of the rows, and an overflow on one rank is not seen on the others, so that replicas drift apart. All such
functions read ``parameter.grad`` first, on every rank. There they are told what to call instead, before they have
changed anything.
"""

import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from dist_s2s.sharded.eager import never_compiled

_GRADIENT: Any = torch.Tensor.grad
# Module and function that read the gradient of every parameter.
_CLIPPING = {
    ("torch.nn.utils.clip_grad", "clip_grad_norm_"),
    ("torch.nn.utils.clip_grad", "clip_grad_value_"),
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "clip_grad_norm_"),
    ("accelerate.accelerator", "_clip_grad_norm_dtensor_aware"),
}
_SCALING = {("torch.amp.grad_scaler", "_unscale_grads_")}
_READERS = {module for module, _ in _CLIPPING | _SCALING}
_BETWEEN = {"dist_s2s.sharded.eager", "torch._dynamo.eval_frame", "torch._dynamo.external_utils"}


class TableWeight(nn.Parameter):
    """The weight of a table on a single rank. Not to be built: ``guard`` makes a Parameter one."""

    is_sharded = False

    @property
    @never_compiled
    def grad(self) -> Tensor | None:
        """The gradient of the rows.

        Raises:
            RuntimeError: if a function reads it that would fail or be wrong, with what to call instead.
        """
        gradient: Tensor | None = _GRADIENT.__get__(self)
        if gradient is not None:
            reader = _reader()
            if reader.f_globals.get("__name__") in _READERS:
                _check_reader(reader, gradient, self.is_sharded)
        return gradient

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        _GRADIENT.__set__(self, gradient)

    @grad.deleter
    def grad(self) -> None:
        _GRADIENT.__delete__(self)


class ShardWeight(TableWeight):
    """The weight of a table on several ranks, of which this one holds some rows."""

    is_sharded = True


def guard(weight: nn.Parameter, is_sharded: bool) -> None:
    """Make a parameter a TableWeight or a ShardWeight, in place, as torch does with lazy parameters."""
    if type(weight) is nn.Parameter:
        weight.__class__ = ShardWeight if is_sharded else TableWeight


def is_guarded(weight: Tensor) -> bool:
    """Tell whether ``guard`` has made it what it is."""
    return isinstance(weight, TableWeight)


def _reader() -> FrameType:
    """Return the frame that reads TableWeight.grad, beyond those of never_compiled."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    return frame


def _check_reader(reader: FrameType, gradient: Tensor, is_sharded: bool) -> None:
    module, names = reader.f_globals["__name__"], reader.f_code.co_qualname.split(".")
    if _is_any(_SCALING, module, names):
        scaler: Any = reader.f_locals.get("self")
        if is_sharded and not getattr(scaler, "shares_found_inf", False):
            raise RuntimeError(
                "torch.amp.GradScaler looks for an overflow in the rows of one rank alone, so that some ranks would "
                f"step and others skip; make it dist_s2s.sharded.GradScaler({gradient.device.type!r}, tables=tables), "
                "with the same other arguments"
            )
    elif _is_any(_CLIPPING, module, names):
        kind = "value" if "clip_grad_value_" in names else "norm"
        instead = f"call dist_s2s.sharded.clip_grad_{kind}_(model, tables, ...) instead"
        if is_sharded and kind == "norm":  # a value is the same for each number, wherever it is
            raise RuntimeError(
                "the gradient of a sharded table's weight is that of one rank's rows, so that ranks would clip by "
                f"different norms and drift apart; {instead}"
            )
        if gradient.is_sparse:
            raise RuntimeError(f"the gradient of a table is sparse, which torch's clipping does not take; {instead}")


def _is_any(functions: set[tuple[str, str]], module: str, names: list[str]) -> bool:
    """Tell whether these names, of a comprehension within a function too, are one of the functions."""
    return any((module, name) in functions for name in names)
