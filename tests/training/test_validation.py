from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from dist_s2s.config import Config
from dist_s2s.config.training import TrainingConfig
from dist_s2s.distributed import Ranks
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.text.vocabulary import Vocabulary
from dist_s2s.training.events import StepsEnd, Validation
from dist_s2s.training.schedule import Progress
from dist_s2s.training.validation import Validator, validation_loss
from dist_s2s.translation.scores.scoring import Row, translate_pairs
from dist_s2s.translation.translator import Translator
from tests.rank_pool import RankPool

VOCABULARY = Vocabulary(["<pad>", "<sos>", "<eos>", "<unk>", *(f"w{number}" for number in range(4, 23))])


def make_examples(count: int) -> ExampleList:
    generator = torch.Generator().manual_seed(3)

    def sentence() -> list[int]:
        length = int(torch.randint(1, 7, (), generator=generator))
        return torch.randint(4, len(VOCABULARY), (length,), generator=generator).tolist()

    return ExampleList(Example(sentence(), sentence()) for _ in range(count))


def make_translator(group: dist.ProcessGroup | None) -> Translator:
    """Untrained, with dropout, which must not show."""
    rank, world_size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    config = Config.model_validate(
        {
            "model": {"embedding_dim": 8, "hidden_size": 8, "dropout": 0.5, "output": "replicated"},
            "training": {"precision": "fp64"},
        }
    )
    tokenizer = make_tokenizer("whitespace")
    side = TextSide(tokenizer, VOCABULARY)
    translator = Translator(config, side, side, Ranks(rank, world_size, torch.device("cpu"), group))
    with torch.no_grad():
        for parameter in translator.core.parameters():
            parameter.mul_(3)  # so that translations differ from sentence to sentence
    return translator


def validate(group: dist.ProcessGroup, counts: list[int]) -> list[float]:
    translator = make_translator(group)
    return [validation_loss(translator, make_examples(count)) for count in counts]


def translate(group: dist.ProcessGroup, pairs: list[tuple[str, str]]) -> list[Row]:
    return translate_pairs(make_translator(group), pairs).rows


@torch.no_grad()
def loss_by_hand(count: int) -> float:
    """Sentence by sentence, with rows looked up in the whole tables."""
    translator, total, tokens = make_translator(None), 0.0, 0
    translator.core.eval()
    source_rows, target_rows = translator.source_table.weight, translator.target_table.weight
    for example in make_examples(count):
        source, target = [*example.source, 2], [*example.target, 2]
        length = torch.tensor([len(source)])
        logits = translator.core(source_rows[source][None], length, target_rows[[1, *example.target]][None])
        total += F.cross_entropy(logits[0], torch.tensor(target), reduction="sum").item()
        tokens += len(target)
    return total / tokens


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_loss_is_the_same_at_every_world_size(world_size: int, ranks: RankPool) -> None:
    counts = [1, 67, 130]  # fewer sentences than ranks, and more than one batch of 64
    expected = [loss_by_hand(count) for count in counts]
    for losses in ranks.run(validate, counts, world_size=world_size):
        assert losses == pytest.approx(expected, rel=0, abs=1e-12)


def test_validation_leaves_the_core_in_training_mode() -> None:
    translator = make_translator(None)
    validation_loss(translator, make_examples(3))
    assert translator.core.training


def test_translations_are_the_same_at_every_world_size(ranks: RankPool) -> None:
    pairs = [(f"w{4 + number} w9", f"w{5 + number}") for number in range(5)]
    alone = ranks.run(translate, pairs, world_size=1)
    assert [(source, target) for source, target, _ in alone[0]] == pairs
    assert len({hypothesis for _, _, hypothesis in alone[0]}) > 1
    for world_size in (2, 3):
        assert ranks.run(translate, pairs, world_size=world_size) == alone * world_size


class OneRank:
    """Stands for a trainer, and takes down what is told."""

    def __init__(self, metric: str) -> None:
        training = TrainingConfig.model_validate({"metric": metric, "bleu_tokenizer": "13a"})
        self.translator = make_translator(None)
        self.config, self.ranks = SimpleNamespace(training=training), self.translator.ranks
        self.progress, self.interrupted, self.heard = Progress(), False, list[object]()
        self.paused, self.averaged, self.tell = nullcontext, nullcontext, self.heard.append

    def warnings(self) -> list[str]:
        return [event.warning for event in self.heard if isinstance(event, Validation)]


@pytest.mark.parametrize(
    ("metric", "validations", "warned"), [("bleu", 5, [2]), ("bleu", 2, [1]), ("bleu", 1, []), ("loss", 3, [2])]
)
def test_a_metric_that_cannot_tell_is_told_once(metric: str, validations: int, warned: list[int]) -> None:
    """An untrained model that stays as it is: everything is equal at all validations, the last of them at the end."""
    trainer = OneRank(metric)
    validator = Validator(cast(Any, trainer), make_examples(2), [("w4", "a b c d")])
    for step in range(1, validations + 1):
        trainer.progress.step = step
        validator(StepsEnd(step)) if step == validations else validator._validate()
    said = trainer.warnings()
    assert [number for number, warning in enumerate(said) if warning] == warned
    if warned and metric == "bleu":
        assert said[warned[0]].startswith(f"the BLEU was 0.00 at all {warned[0] + 1} validations, so it cannot tell")
