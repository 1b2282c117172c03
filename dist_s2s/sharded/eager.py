"""Functions that torch.compile leaves alone: collectives are no part of a graph."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

_REASON = "ranks exchange rows in it, which is no part of a graph; compile without fullgraph=True"
P = ParamSpec("P")
R = TypeVar("R")


def never_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Do as torch.compiler.disable, but only once something is compiled.

    That decorator imports torch._dynamo, which takes as long as torch itself; whoever compiles has imported it.
    """
    disabled: list[Callable[P, R]] = []

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function, reason=_REASON))
        return disabled[0](*args, **kwargs)

    return call
