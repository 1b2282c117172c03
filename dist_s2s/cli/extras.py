"""The commands need more than the library does: an extra of the package, whose absence is told in one line."""

from importlib.util import find_spec

from dist_s2s import UserError

TRAIN = ("accelerate", "psutil", "pydantic", "yaml", "regex", "rich", "sacrebleu", "safetensors", "tensorboard")
_MODULES = {
    "train": TRAIN,
    "serve": ("starlette", "uvicorn", "prometheus_client"),
    "analysis": ("matplotlib", "jinja2"),  # scikit-learn is for t-SNE alone
}


def check_extra(command: str, extra: str = "train") -> None:
    """Check that the modules of an extra can be imported, without importing them.

    Args:
        command: what the user has called, for the message.
        extra: its name.

    Raises:
        UserError: naming the missing modules, and how to install them.
    """
    missing = [module for module in _MODULES[extra] if not _is_installed(module)]
    if missing:
        what = "module" if len(missing) == 1 else "modules"
        raise UserError(
            f"{command} needs the extra \"{extra}\": pip install 'dist-s2s[{extra}]' "
            f"(missing {what}: {', '.join(missing)})"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # something else of that name is in the way
        return False
