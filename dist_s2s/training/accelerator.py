"""Accelerate wraps the replicated model in DDP, and tells trackers, such as TensorBoard, what a run measures."""

from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker, get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration

from dist_s2s import UserError
from dist_s2s.distributed import Ranks


def make_accelerator(ranks: Ranks, log_dir: Path | None = None, trackers: Sequence[str] = ()) -> Accelerator:
    """Return an accelerator for the process group that ``ranks`` have joined (collective).

    Mixed precision is not its business: the translator's ``autocast`` is used where it is due.

    Args:
        ranks: all ranks of the run.
        log_dir: where trackers write that write files; TensorBoard's go to its ``tensorboard``.
        trackers: by accelerate's names.

    Raises:
        UserError: if accelerate does not see the world that torchrun has started.
    """
    # What it is called is its folder; the others are told the project.
    tensorboard = [TensorBoardTracker("tensorboard", str(log_dir)) for name in trackers if name == "tensorboard"]
    try:
        accelerator = Accelerator(
            cpu=ranks.device.type == "cpu",
            mixed_precision="no",
            log_with=[*tensorboard, *(name for name in trackers if name != "tensorboard")],
            project_config=ProjectConfiguration(project_dir=log_dir, logging_dir=log_dir),
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
    except (ValueError, ImportError) as error:  # settings in ACCELERATE_* variables that cannot be had here
        raise UserError(f"accelerate could not start: {error}") from None
    if accelerator.num_processes != ranks.world_size:
        raise UserError(
            f"WORLD_SIZE is {ranks.world_size}, but accelerate started with num_processes = "
            f"{accelerator.num_processes}; start with torchrun, and without settings of accelerate in the environment"
        )
    return accelerator


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError if the package of a tracker is missing; accelerate would leave it out without a word."""
    there = [str(name) for name in get_available_trackers()]
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(
            f"training.trackers names {missing[0]}, whose package is not installed; install it, or leave it out"
        )
