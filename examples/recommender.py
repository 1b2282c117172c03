"""A recommender of two row-sharded tables and a small network: will this user click on this item?

    torchrun --nproc_per_node=2 examples/recommender.py
    python examples/recommender.py --steps 500

Each rank has its own clicks, half of the users and half of the items. Clicks are made up: everybody has one of four
tastes, every item one of four genres, and where they meet a click is likely. The tables have to find out which.
"""

import argparse
import os
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad, lookup

USERS, ITEMS, KINDS = 100_000, 20_000, 4
BATCH = 512  # clicks of a rank and step
REPORT_EVERY = 50


def main() -> None:
    """Train, and print the loss over all ranks' clicks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    if "RANK" in os.environ:  # torchrun sets it
        dist.init_process_group("gloo")
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(0)  # the network starts the same on every rank; the tables take care of themselves
    train(steps, rank, ranks)
    if dist.is_initialized():
        time.sleep(0.1)  # lets gloo's threads finish: https://github.com/pytorch/pytorch/issues/190489
        dist.destroy_process_group()


def train(steps: int, rank: int, ranks: int) -> None:
    """Train two tables and a network on made-up clicks. All that concerns the tables is in here."""
    group = dist.new_group() if ranks > 1 else None  # for the tables: DDP has the default group to itself
    users = DistributedEmbedding(USERS, 32, init_std=0.1, process_group=group)
    items = DistributedEmbedding(ITEMS, 16, init_std=0.1, process_group=group)
    network: nn.Module = nn.Sequential(nn.Linear(32 + 16, 64), nn.ReLU(), nn.Linear(64, 1))
    if ranks > 1:
        network = DistributedDataParallel(network)
    row_optimizer = RowWiseAdagrad([users.weight, items.weight], lr=0.3)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)

    generator = torch.Generator().manual_seed(1 + rank)
    total = torch.zeros(())
    for step in range(1, steps + 1):
        user_ids, item_ids, clicked = draw_clicks(generator)
        rows = lookup([users, items], [user_ids, item_ids])  # one exchange for both tables
        loss = F.binary_cross_entropy_with_logits(network(torch.cat(rows, dim=1)).squeeze(1), clicked)
        loss.backward()
        for each in (row_optimizer, optimizer):
            each.step()
            each.zero_grad()

        total += loss.detach()
        if step % REPORT_EVERY == 0:
            if ranks > 1:
                dist.all_reduce(total)
            if rank == 0:
                print(f"step {step}  loss {total / REPORT_EVERY / ranks:.4f}", flush=True)
            total.zero_()


def draw_clicks(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return user ids and item ids, int64 [BATCH] each, and whether it was a click, float32 [BATCH]."""
    # Log-uniform, as popularity is: some users and items come up again and again.
    user_ids, item_ids = (
        torch.rand(BATCH, generator=generator).mul(torch.tensor(float(number)).log()).exp().long() - 1
        for number in (USERS, ITEMS)
    )
    match = user_ids % KINDS == item_ids % KINDS
    likely = torch.where(match, 0.95, 0.05)
    return user_ids, item_ids, torch.bernoulli(likely, generator=generator)


if __name__ == "__main__":
    main()
