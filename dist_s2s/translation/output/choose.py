"""Which output layer suits a vocabulary, a model and a number of ranks."""

from typing import Literal

OutputName = Literal["replicated", "sharded", "sampled"]
_MIB = 1 << 20
_REPLICATED_BYTES, _SHARDED_BYTES = 32 * _MIB, 256 * _MIB


def choose_output(num_classes: int, readout_size: int, world_size: int, *, tied: bool = False) -> OutputName:
    """Return what ``model.output: auto`` means, from the memory of the layer while it is trained.

    With R numbers of a state, weights, gradients and Adam's two moments take 16 · V · (R + 1) bytes. Up to 32 MiB the
    layer is replicated, as on a single rank always: its all_reduce is then cheap beside the work, and every rank
    searches alone. Beyond, it is sharded, and exact, as long as a rank's share is at most 256 MiB. Beyond that the
    product with all V rows would take most of a step, and it is sampled. A layer that is tied to the target table is
    never replicated.
    """
    training_bytes = 16 * num_classes * (readout_size + 1)
    if not tied and (world_size == 1 or training_bytes <= _REPLICATED_BYTES):
        return "replicated"
    return "sharded" if training_bytes / world_size <= _SHARDED_BYTES else "sampled"
