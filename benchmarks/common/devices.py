"""Time and memory on the device that a benchmark runs on: the CPU, or one CUDA device."""

import argparse

import torch

from common import memory


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where tensors are; cuda: on one rank")


def check_device(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the command with a message if --device cannot be had."""
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA device, but torch finds none")
    if options.device == "cuda" and options.ranks > 1:
        parser.error(f"--device cuda is for one rank, but --ranks is {options.ranks}")


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was given, so that the clock tells what that took."""
    if device == "cuda":
        torch.cuda.synchronize()


def resident(device: str) -> int:
    """Return the bytes that this process takes now, or its tensors on a CUDA device."""
    return torch.cuda.memory_allocated() if device == "cuda" else memory.resident()


def peak(device: str) -> int:
    """Return the most bytes of ``resident`` so far."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else memory.peak()


def available(device: str) -> int:
    """Return the bytes that new processes may take."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else memory.available()
