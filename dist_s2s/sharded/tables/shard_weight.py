"""The weight of a table on several ranks, whose gradient no function takes for that of a whole parameter.

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

_NORM = (
    "one rank's gradient of a sharded table has only part of the norm, so that ranks clipping by it would drift apart; "
    "call dist_s2s.sharded.clip_grad_norm_(model, tables, max_norm) instead of {function}"
)
_VALUE = (
    "the gradient of a sharded table is sparse, and torch does not clip sparse gradients; call "
    "dist_s2s.sharded.clip_grad_value_(model, tables, clip_value) instead of {function}"
)
_SCALER = (
    "torch.amp.GradScaler looks for an overflow in the rows of one rank alone, so that some ranks would step and "
    'others skip; make the scaler dist_s2s.sharded.GradScaler("{device}", tables=tables), with the same arguments'
)
_GRADIENT: Any = torch.Tensor.grad
# Module, then function that reads gradients, then what it is told.
_TOLD = {
    "torch.nn.utils.clip_grad": {"clip_grad_norm_": _NORM, "clip_grad_value_": _VALUE},
    "torch.distributed.fsdp.fully_sharded_data_parallel": {"clip_grad_norm_": _NORM},
    "accelerate.accelerator": {"_clip_grad_norm_dtensor_aware": _NORM},
    "torch.amp.grad_scaler": {"_unscale_grads_": _SCALER},
}


class ShardWeight(nn.Parameter):
    """A parameter of which this rank holds some rows. Not to be built: ``guard`` makes a Parameter one."""

    @property
    def grad(self) -> Tensor | None:
        """The gradient of the shard.

        Raises:
            RuntimeError: if a function that would be wrong about it reads it.
        """
        gradient: Tensor | None = _GRADIENT.__get__(self)
        if gradient is not None:
            _refuse(sys._getframe(1), gradient)
        return gradient

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        _GRADIENT.__set__(self, gradient)

    @grad.deleter
    def grad(self) -> None:
        _GRADIENT.__delete__(self)


def guard(weight: Tensor) -> None:
    """Make the weight of a table on several ranks a ShardWeight, in place, as torch does with lazy parameters."""
    if type(weight) is nn.Parameter:
        weight.__class__ = ShardWeight


def _refuse(reader: FrameType, gradient: Tensor) -> None:
    functions = _TOLD.get(reader.f_globals.get("__name__", ""))
    if functions is None:
        return
    names = reader.f_code.co_qualname.split(".")  # those of a comprehension's function too
    function = next((name for name in names if name in functions), None)
    if function is None or (function == "clip_grad_value_" and not gradient.is_sparse):
        return
    scaler: Any = reader.f_locals.get("self")
    if function == "_unscale_grads_" and getattr(scaler, "shares_found_inf", False):
        return
    raise RuntimeError(functions[function].format(function=function, device=gradient.device.type))
