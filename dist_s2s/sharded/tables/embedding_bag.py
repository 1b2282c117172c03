"""DistributedEmbeddingBag: nn.EmbeddingBag with its rows divided among the ranks of a process group."""

from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from dist_s2s.sharded.eager import never_compiled
from dist_s2s.sharded.rows.bags import Mode
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.tables.pooled import lookup_bags
from dist_s2s.sharded.transport.protocol import Subject

_BUILDING = Subject("the building of a table of bags")


class DistributedEmbeddingBag(DistributedEmbedding):
    """A table of which each rank holds num_embeddings / world_size rows, and which pools the rows of bags of ids.

    Used like ``nn.EmbeddingBag``, each rank with bags of its own. All calls that are collective for a
    DistributedEmbedding are so for this one. Bags are pooled by the owners of the rows where that sends less, see
    tables/pooled.py. So sums over several owners may differ in their rounding from those that one rank adds up, and
    between transports.

    ``lookup([table], [ids])`` gives its rows as they are, ``lookup_bags`` pools bags of several tables in one exchange.

    Args:
        num_embeddings, embedding_dim: size of the whole table, the same on every rank.
        max_norm, norm_type, scale_grad_by_freq: as of DistributedEmbedding.
        mode: "sum", "mean" or "max" of the rows of a bag. An empty one gives zeros.
        include_last_offset: whether offsets have one more element, the end of the last bag.
        padding_idx: id of a row that starts as zeros, never receives a gradient, and does not count in any bag.
        settings: further ones of DistributedEmbedding: layout, transport, process_group and so on.

    Raises:
        ValueError: on every rank, for impossible settings, or if the ranks do not agree on one.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: Mode = "mean",
        *,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, **settings
        )
        self.mode, self.include_last_offset = mode, include_last_offset
        own = {"mode": mode, "include_last_offset": include_last_offset}
        self.group.check_same_everywhere(own, _BUILDING)
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, but is {mode!r}")
        if mode == "max" and scale_grad_by_freq:
            raise ValueError("scale_grad_by_freq is for the modes sum and mean, as in nn.EmbeddingBag")

    @classmethod
    def from_embedding_bag(cls, bag: nn.EmbeddingBag, **settings: Any) -> Self:
        """Return the sharded form of rank 0's ``bag``, with its mode, padding_idx and so on (collective)."""
        own = {"mode": bag.mode, "include_last_offset": bag.include_last_offset}
        return cls.from_embedding(bag, **{**own, **settings})  # type: ignore[arg-type]  # it has all attributes that count

    def to_embedding_bag(self, dst: int | None = None) -> nn.EmbeddingBag | None:
        """Return the whole table as an nn.EmbeddingBag, on rank ``dst`` or on every rank; None elsewhere (collective).

        Rows travel in pieces of 16 MiB.
        """
        rows = self.to_embedding(dst)
        if rows is None:
            return None
        bag = nn.EmbeddingBag(
            self.num_embeddings,
            self.embedding_dim,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            sparse=not self.scale_grad_by_freq and self.mode != "max",  # with which torch has no sparse gradients
            _weight=rows.weight.detach(),
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )
        return bag.requires_grad_(self.weight.requires_grad)

    def forward(  # type: ignore[override]
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Return the pooled rows of each bag, [bags, embedding_dim] (collective, and so is its backward).

        Args:
            input: integers of shape [bags, ids per bag]; or [ids], with ``offsets``. Ranks may have different shapes.
            offsets: where in ``input`` each bag begins: ascending integers, the first of them 0.
            per_sample_weights: what each row is multiplied by, of the shape of ``input`` and the table's dtype; for
                mode "sum" alone. May need a gradient, which then takes the rows themselves to this rank.

        Raises:
            IndexError, TypeError, ValueError, RuntimeError: on every rank, as ``lookup_bags``.
        """
        if torch.compiler.is_exporting():
            raise RuntimeError("a table of bags cannot be exported; put its to_embedding_bag() in its place")
        return self._pool(input, offsets, per_sample_weights)

    @never_compiled
    def _pool(self, input: Tensor, offsets: Tensor | None, per_sample_weights: Tensor | None) -> Tensor:
        return lookup_bags([self], [(input, offsets, per_sample_weights)])[0]

    def extra_repr(self) -> str:
        """Return what print(module) shows between the parentheses."""
        return f"{super().extra_repr()}, mode={self.mode}"
