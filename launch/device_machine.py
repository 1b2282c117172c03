"""Write what machine this is as JSON: python launch/device_machine.py FILE DEVICE.

Exits with status 1 if DEVICE is cuda, and torch finds none.
"""

import importlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Any

import torch

PACKAGES = (
    "accelerate",
    "hypothesis",
    "numpy",
    "pydantic",
    "pytest",
    "rich",
    "sacrebleu",
    "safetensors",
    "tensorboard",
)


def describe() -> dict[str, Any]:
    """Return processor, GPU and versions."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpu": _gpu() if torch.cuda.is_available() else None,
        "packages": {name: _version(name) for name in PACKAGES},
        "torchrec": _torchrec(),
    }


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "count": torch.cuda.device_count(),
        "driver": _driver(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "cudnn": torch.backends.cudnn.version(),
        "bf16": torch.cuda.is_bf16_supported(),
    }


def _driver() -> str | None:
    if which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torchrec() -> dict[str, str]:
    """Return the version of TorchRec, or why it cannot be imported: without the right fbgemm it fails in many ways."""
    try:
        importlib.import_module("torchrec")
        return {"version": version("torchrec")}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(describe()), encoding="utf-8")
    if sys.argv[2] == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no CUDA device")
