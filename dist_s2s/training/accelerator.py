"""Accelerate wraps the replicated model in DDP, and keeps TensorBoard's files."""

from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration

from dist_s2s import UserError
from dist_s2s.distributed import Ranks


def make_accelerator(ranks: Ranks, log_dir: Path | None = None) -> Accelerator:
    """Return an accelerator for the process group that ``ranks`` have joined (collective).

    Mixed precision is not its business: the translator's ``autocast`` is used where it is due.

    Args:
        ranks: all ranks of the run.
        log_dir: where the TensorBoard tracker writes, if it is used.

    Raises:
        UserError: if accelerate does not see the world that torchrun has started.
    """
    try:
        accelerator = Accelerator(
            cpu=ranks.device.type == "cpu",
            mixed_precision="no",
            log_with=None if log_dir is None else "tensorboard",
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
