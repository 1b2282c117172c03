"""How many collectives a training step waits for, counted over the shipped training loop."""

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dist_s2s.distributed import Ranks
from dist_s2s.training.meter import Meter
from dist_s2s.training.signals import StopSignals
from dist_s2s.training.trainer import Trainer
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.sharded.collectives import counted_collectives
from tests.sharded.reference import TRANSPORTS
from tests.training.test_equality import DataParallel, make_config, make_examples, make_translator

STEPS = 4  # fewer than from one look for signals to the next


def count_collectives(group: dist.ProcessGroup, output: str, transport: str, run_dir: Path) -> dict[str, Counter[str]]:
    """The collectives that this rank called in all steps, by thread; DDP's own are none of Python's."""
    config = make_config("sparse_adam", "contiguous", output, run_dir)
    embedding = config.embedding.model_copy(update={"transport": transport})
    training = config.training.model_copy(update={"max_steps": STEPS, "log_every": 1000})
    config = config.model_copy(update={"embedding": embedding, "training": training})
    world_size = dist.get_world_size(group)
    ranks = Ranks(dist.get_rank(group), world_size, torch.device("cpu"), group, second_group(world_size))
    translator = make_translator(config, ranks)
    trainer = Trainer(config, make_examples(), translator, DataParallel(group))
    trainer.listeners += [StopSignals(trainer), Meter(trainer)]
    with counted_collectives() as counts:
        trainer.train()
    assert trainer.progress.step == STEPS
    return counts


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("output", ["ngrams", "sampled"])
def test_a_step_waits_for_one_exchange_forward_and_one_backward(
    output: str, transport: str, ranks: RankPool, tmp_path: Path
) -> None:
    """For both tables, that of n-grams or a sampled output layer's two besides; and one for the gradients' norm.

    Forward takes two all_to_alls, that it begins and the rows; backward, the norm and what is told about the next batch
    in the background, whether there is one and its ids, fit a first message here. In shared memory forward has a second
    meeting, too, after which rows may change again. Before the first step the background connects its shared memory,
    for which the ranks tell each other seven texts.
    """
    name, of_step, of_plan = {
        "collective": ("all_to_all_single", 2 + 1 + 1, 1 + 1),
        "shared_memory": ("meet", 2 + 1 + 1, 1 + 1),
    }[transport]
    plans = STEPS + 1  # the one after the last step was made ahead too
    for counts in ranks.run(count_collectives, output, transport, tmp_path, world_size=3):
        connecting = {"all_to_all_single": 7} if transport == "shared_memory" else {}
        assert counts["main"] == {name: of_step * STEPS, **connecting}
        assert counts["background"] == {name: of_plan * plans}
