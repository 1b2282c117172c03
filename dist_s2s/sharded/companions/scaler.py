"""torch's gradient scaler, for a model with sharded tables: all ranks step, or all skip.

After backward the dense gradients are the same on every rank, but each rank has those of its own rows alone. An inf in
one of them must stop the step, and lower the scale, on every rank.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.tables.guarded_weight import ShardWeight
from dist_s2s.sharded.transport.group import AGREED_ERRORS
from dist_s2s.sharded.transport.protocol import Subject


class GradScaler(torch.amp.GradScaler):
    """``torch.amp.GradScaler`` that tells all ranks of an inf or nan in the gradients of any.

    Use it as torch's. ``unscale_``, or else ``step``, is collective: one exchange for each optimizer and group of ranks
    among the tables. As on one process, an optimizer skips a step if one of its own gradients is not finite, and the
    scale falls if any optimizer has skipped. Optimizers that are unscaled before any of them steps, as they are for
    clipping, skip together: ``clip_grad_norm_`` then clips none of them. An optimizer may have no gradient at all on
    some ranks, or on all.

    Args:
        device, init_scale, growth_factor, backoff_factor, growth_interval, enabled: as of torch's; the same on every
            rank.
        tables: those whose weights the optimizers have; the same on every rank.

    Raises:
        ValueError: without tables; and in ``unscale_`` and ``step`` on every rank, if the scale differs between ranks,
            or an optimizer has the weight of another table.
    """

    shares_found_inf = True  # which lets it read the gradient of a ShardWeight

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
        *,
        tables: Iterable[DistributedEmbedding],
    ) -> None:
        super().__init__(device, init_scale, growth_factor, backoff_factor, growth_interval, enabled)
        self._tables = list(dict.fromkeys(tables))
        if not self._tables:
            raise ValueError("tables is empty; without sharded tables use torch.amp.GradScaler")
        replicas = [table.group.replicas for table in self._tables]
        groups = [*(table.group for table in self._tables), *replicas]
        self._groups = list(dict.fromkeys(group for group in groups if group.size > 1))
        self._number = 0

    def unscale_(self, optimizer: Optimizer) -> None:
        """Unscale the gradients of an optimizer, once before its step (collective)."""
        super().unscale_(optimizer)
        if self._enabled:
            waiting = [s for s in self._per_optimizer_states.values() if s["stage"] is OptState.UNSCALED]
            found = [value for state in waiting for value in state["found_inf_per_device"].values()]
            if any(map(bool, found)):
                for value in found:
                    value.fill_(1.0)

    def _unscale_grads_(
        self, optimizer: Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        """Unscale as torch does, and return whether any rank has found an inf (collective)."""
        self._number += 1
        error: Exception | None = None
        found = False
        try:
            self._check_tables(optimizer)
            per_device = super()._unscale_grads_(optimizer, inv_scale, found_inf, allow_fp16)
            found = any(bool(value) for value in per_device.values())
        except (TypeError, ValueError, RuntimeError) as caught:
            error = caught
        size = sum(len(group["params"]) for group in optimizer.param_groups)
        subject = Subject(
            f"unscaling {self._number} of gradients, of {type(optimizer).__name__} with {size} parameters"
        )
        found = self._share(subject, found, error)
        return {found_inf.device: torch.full_like(found_inf, float(found))}

    def _check_tables(self, optimizer: Optimizer) -> None:
        weights = {table.weight for table in self._tables}
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        if any(isinstance(parameter, ShardWeight) and parameter not in weights for parameter in parameters):
            raise ValueError(
                f"{type(optimizer).__name__} has the weight of a table that is not among GradScaler's tables; pass all "
                "tables of the model"
            )

    def _share(self, subject: Subject, found: bool, error: Exception | None) -> bool:
        """Return whether any rank has found an inf; raise the error of any rank on all (collective).

        A group that has agreed on an error takes it on to the next one, whose other ranks wait there.
        """
        assert self._scale is not None
        scale = float(self._scale)
        for group in self._groups:
            try:
                reports = group.agree_on_floats(subject, [found, scale], error)
            except AGREED_ERRORS as caught:
                error = caught
                continue
            found = any(found_there for found_there, _ in reports)
            error = _difference([scale_there for _, scale_there in reports])
        if error is not None:
            raise error
        return found


def _difference(scales: list[float]) -> ValueError | None:
    """Return an error if the scales of two ranks differ."""
    for rank, scale in enumerate(scales):
        if scale != scales[0]:
            return ValueError(
                f"the scale must be equal on all ranks, but is {scales[0]:g} on rank 0 and {scale:g} on rank {rank}: "
                "make the scaler with the same arguments, load the same state and call update() on every rank"
            )
    return None
