"""Libraries that only some forms of input need."""

from importlib import import_module
from types import ModuleType

from dist_s2s import UserError


def extra(module: str, name: str, purpose: str) -> ModuleType:
    """Import a module of the extra `name`.

    Raises:
        UserError: it is not installed; how to install it is told.
    """
    try:
        return import_module(module)
    except ImportError:
        raise UserError(
            f"{purpose} needs the extra \"{name}\": pip install 'dist-s2s[{name}]' (missing module: {module})"
        ) from None
