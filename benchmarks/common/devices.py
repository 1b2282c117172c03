"""Memory and time of the CPU or one CUDA device; without dist_s2s, because a peer's program uses it too.

Memory of the CPU is this process's, as Linux tells it. A page that several processes have mapped, such as a row of
another rank's shard, is resident in each of them. It counts here as in the kernel's "proportional set size": divided
among them, so that ranks add up to what the machine spends.
"""

import argparse
from pathlib import Path

import torch

MIB, GIB = 2**20, 2**30


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


def resident(device: str = "cpu") -> int:
    """Return the bytes that this process takes now, or its tensors on a CUDA device."""
    return torch.cuda.memory_allocated() if device == "cuda" else _field("smaps_rollup", "Pss")


def peak(device: str = "cpu") -> int:
    """Return the most bytes so far; shared ones are divided among their present users, who must still be there."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    private = _field("status", "VmHWM") - _field("status", "RssShmem") - _field("status", "RssFile")
    return private + _field("smaps_rollup", "Pss_Shmem") + _field("smaps_rollup", "Pss_File")


def available(device: str = "cpu") -> int:
    """Return the bytes that new processes may take without swapping."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else _field("../meminfo", "MemAvailable")


def _field(file: str, name: str) -> int:
    lines = (Path("/proc/self") / file).read_text(encoding="utf-8").splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(value) * 1024
