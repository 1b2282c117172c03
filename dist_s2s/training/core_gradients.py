"""Averaging of the replicated model's gradients on CPUs, by the transport of the tables, in place of DDP.

    1. each rank gives every rank an equal part of its gradients, which that one adds, in the order of the ranks
    2. each rank gives every rank the mean of its part

So every number is computed once, and is the same on all ranks and by every transport. DDP's all-reduce goes through
sockets also on a single host. It can begin while backward goes on; but where each rank has a core for itself, there is
none on which its threads could do so.
"""

import torch
from torch import Tensor, nn

from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Block, PeerRows, Subject

_BEGINNING = Subject("the beginning of training with rank 0's weights")
_PARTS = Subject("the parts of the model's gradients")
_MEANS = Subject("the means of the model's gradients")


class CoreGradients:
    """The gradients of a model that every rank has (collective: it begins with the first rank's weights everywhere).

    Args:
        core: the same model on every rank, its parameters of one dtype.
        group: the ranks.
    """

    def __init__(self, core: nn.Module, group: RankGroup) -> None:
        self._parameters = [parameter for parameter in core.parameters() if parameter.requires_grad]
        self._group = group
        with torch.no_grad():
            for tensor in (*core.parameters(), *core.buffers()):
                flat = tensor.reshape(-1)
                tensor.copy_(group.gather(flat if group.rank == 0 else flat[:0], _BEGINNING).view_as(tensor))

    @torch.no_grad()
    def average(self) -> None:
        """Replace each gradient by the mean over all ranks (collective); none at all counts as zeros."""
        if not self._parameters:
            return
        ranks = self._group.size
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in self._parameters]
        count = sum(gradient.numel() for gradient in gradients)
        padding = gradients[0].new_zeros(-count % ranks)
        parts = torch.cat([*(gradient.reshape(-1) for gradient in gradients), padding]).view(ranks, -1)
        outgoing = [PeerRows(1, rank, ranks) for rank in range(ranks)]
        received = self._group.exchange(_PARTS, blocks=[Block.of(parts)], outgoing=[outgoing]).blocks[0]
        mine = received[0]
        for other in received[1:]:
            mine += other
        means = self._group.gather((mine / ranks)[None], _MEANS).view(-1)[:count]
        self._give(means.split([gradient.numel() for gradient in gradients]))

    def _give(self, means: tuple[Tensor, ...]) -> None:
        for parameter, mean in zip(self._parameters, means, strict=True):
            parameter.grad = mean.view_as(parameter)
