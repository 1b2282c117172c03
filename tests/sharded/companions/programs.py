"""A small program with two tables and a dense layer, which trains to the same numbers on any number of ranks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad, RowWiseAdam, SparseAdam, SparseSGD

D = 5
# Each with what it needs beside lr; torch's are here because their state is made and loaded by torch alone.
OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "SparseAdam": (SparseAdam, {}),
    "RowWiseAdam": (RowWiseAdam, {"betas": (0.8, 0.9)}),
    "RowWiseAdagrad": (RowWiseAdagrad, {}),
    "SparseSGD": (SparseSGD, {"momentum": 0.9}),
    "torch SparseAdam": (torch.optim.SparseAdam, {}),
    "torch Adagrad": (torch.optim.Adagrad, {}),
    "torch SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "torch SGD without state": (torch.optim.SGD, {}),
}


class Program:
    """A model and its optimizers, one for the tables' rows and one for the rest, on the ranks of a group."""

    def __init__(self, group: dist.ProcessGroup, num_rows: int, layout: str, optimizer: str, seed: int = 1) -> None:
        settings = {"process_group": group, "dtype": torch.float64, "grad_reduction": "sum", "layout": layout}
        torch.manual_seed(seed)
        self.group, self.num_rows = group, num_rows
        self.model = nn.ModuleDict(
            {
                "words": nn.ModuleDict({"source": DistributedEmbedding(num_rows, D, seed=seed, **settings)}),
                "target": DistributedEmbedding(num_rows + 3, D, seed=seed + 1, **settings),
                "core": nn.Linear(D, 2, dtype=torch.float64),
            }
        )
        kind, options = OPTIMIZERS[optimizer]
        self.tables = [self.model["words"]["source"], self.model["target"]]
        self.optimizers = [
            kind([table.weight for table in self.tables], lr=0.1, **options),
            torch.optim.AdamW(self.model["core"].parameters(), lr=0.01),
        ]

    def train(self, steps: range) -> None:
        """Take part in these steps, whose batches depend on their numbers alone."""
        rank, size = dist.get_rank(self.group), dist.get_world_size(self.group)
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            ids = torch.randint(self.num_rows, (11,), generator=generator)[rank::size]
            rows = self.tables[0](ids) + self.tables[1](ids + 3).tanh()
            self.model["core"](rows).tanh().sum().backward()
            for parameter in self.model["core"].parameters():
                dist.all_reduce(parameter.grad, group=self.group)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()

    def result(self) -> list[Tensor]:
        """Both tables whole, and the dense parameters."""
        whole = [table.to_embedding().weight.detach().clone() for table in self.tables]
        return [*whole, *(parameter.detach().clone() for parameter in self.model["core"].parameters())]


def same(results: list[list[Tensor]], expected: list[Tensor]) -> None:
    """Assert that the results of all ranks are the expected ones, but for the order of sums."""
    for result in results:
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-11)
