"""Vocabularies that all ranks keep together, and rows that begin anew, bit by bit, when their id gets another word."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.sharded.tables.optimizer_state import row_state
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.pieces import pieces_of
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.text.vocabulary_changes import Change
from dist_s2s.training.new_words import _begin_averages, begin_new_words
from dist_s2s.training.trainer import Trainer
from dist_s2s.training.word_counts import merge_counts
from dist_s2s.translation.tables.new_rows import Beginning
from dist_s2s.translation.translator import Translator
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.training.test_equality import DataParallel, make_config, make_examples

SIZE = 131
STREAM = ["w5", "new", "w7", "vw5w9", "new", "w5", "zzz", "vw5w9", "new", "w66", "zzz", "once"]
RUNS: list[tuple[str, str, str, Beginning]] = [
    ("sparse_adam", "contiguous", "sharded", "initial"),
    ("adagrad", "round_robin", "replicated", "pieces"),
    ("rowwise_adam", "round_robin", "tied", "pieces"),
]
Rows = dict[str, tuple[Tensor, Tensor]]  # by name of table or state: ids, and a row for each


@dataclass
class Result:
    """What one rank has before and after the update."""

    changes: list[Change]
    text: str
    before: Rows
    after: Rows


def make_side() -> TextSide:
    """130 ids in use, of words counted once or, for some, more often; one id is free."""
    vocabulary = DynamicVocabulary(SIZE)
    for number in range(4, SIZE - 1):
        vocabulary.update({f"w{number}": 1 + (number % 3 > 0)})
    return TextSide(make_tokenizer("whitespace"), vocabulary)


def snapshot(trainer: Trainer) -> Rows:
    everything = torch.arange(SIZE)
    rows = {}
    for name, table in trainer.translator.tables.items():
        ids = table.partition.ids(table.rank)
        rows[name] = (ids, table.weight.detach().clone())
        for key, value in row_state(trainer.state.table_optimizer, table.weight).items():
            rows[f"{name}.{key}"] = (ids, value.clone())
    if isinstance(trainer.translator.output.layer, nn.Linear):
        optimizer = trainer.state.core_optimizer
        for name, value in trainer.translator.output.layer.named_parameters():
            rows[f"output.{name}"] = (everything, value.detach().clone())
            for key in ("exp_avg", "exp_avg_sq"):
                rows[f"output.{name}.{key}"] = (everything, optimizer.state[value][key].clone())
    return rows


def train_then_update(group: dist.ProcessGroup, run_dir: Path) -> list[Result]:
    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    ranks = Ranks(rank, world_size, torch.device("cpu"), group, second_group(world_size))
    assert ranks.share(f"von {rank} ä".encode()).decode() == "von 0 ä"
    assert ranks.share(b"") == b""
    results = []
    for optimizer, layout, output, beginning in RUNS:
        config = make_config(optimizer, layout, output, run_dir)
        config = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 3})})
        source, target = make_side(), make_side()
        translator = Translator(config, source, target, ranks)
        trainer = Trainer(config, make_examples(), translator, DataParallel(group))
        trainer.train()
        before = snapshot(trainer)
        counts = merge_counts(Counter(STREAM[rank::world_size]), ranks)
        assert counts == Counter(STREAM)
        changes = target.vocabulary.update(counts)
        assert source.vocabulary.update(dict(reversed(counts.items()))) == changes
        begin_new_words(translator, trainer.state, changes, changes, beginning)
        results.append(Result(changes, target.vocabulary.to_text(), before, snapshot(trainer)))
        check_averages(trainer, results[-1])
        translator.source_table(torch.arange(SIZE) if rank == 0 else torch.arange(0))  # the tables still work
    return results


def check_averages(trainer: Trainer, result: Result) -> None:
    """The averages of new rows begin with them; others know of three steps."""
    with trainer.averaged():
        averaged = snapshot(trainer)
    new = torch.tensor([index for index, _, _ in result.changes])
    for name, (ids, rows) in result.after.items():
        here = torch.isin(ids, new)
        assert torch.equal(averaged[name][1][here], rows[here]), name
    assert any(not torch.equal(averaged[name][1], rows) for name, (_, rows) in result.after.items())


def whole(parts: list[Rows]) -> dict[str, Tensor]:
    """All ranks' rows in order of their ids; of what is replicated, the first rank's, which must be equal."""
    tensors = {}
    for name, (_, first) in parts[0].items():
        if name.startswith("output."):
            assert all(torch.equal(part[name][1], first) for part in parts)
            tensors[name] = first
        else:
            order = torch.cat([part[name][0] for part in parts]).argsort()
            tensors[name] = torch.cat([part[name][1] for part in parts])[order]
    return tensors


@pytest.fixture(scope="module")
def alone(ranks: RankPool, tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    [results] = ranks.run(train_then_update, tmp_path_factory.mktemp("alone"), world_size=1)
    return results


def test_the_least_frequent_words_give_way(alone: list[Result]) -> None:
    changes = alone[0].changes
    assert list(changes) == [(130, None, "new"), (6, "w6", "vw5w9"), (9, "w9", "zzz")]  # w6, w9 …: counted once
    assert all(result.changes == changes and result.text == alone[0].text for result in alone)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_new_rows_are_fresh_and_all_others_as_they_were(
    world_size: int, alone: list[Result], ranks: RankPool, tmp_path: Path
) -> None:
    by_rank = ranks.run(train_then_update, tmp_path, world_size=world_size)
    for run, expected, *results in zip(RUNS, alone, *by_rank, strict=True):
        assert all(result.text == expected.text and result.changes == expected.changes for result in results)
        before, after = whole([result.before for result in results]), whole([result.after for result in results])
        new = torch.tensor([index for index, _, _ in expected.changes])
        kept = torch.tensor(sorted(set(range(SIZE)) - set(new.tolist())))
        beginnings = first_rows(run, before)
        for name, rows in after.items():
            assert torch.equal(rows[kept], before[name][kept]), name
            moments = name.count(".") - name.startswith("output.") > 0
            values = torch.zeros_like(rows[new]) if moments else beginnings[name][new]
            assert torch.equal(rows[new], values), name
            if name in (
                "output_table",
                "output.weight",
            ):  # trained in every step; left to the next word unless they are reset
                assert not (rows[new] == before[name][new]).any()


def first_rows(run: tuple[str, str, str, Beginning], before: dict[str, Tensor]) -> dict[str, Tensor]:
    """Where all rows begin, computed without sharding: as in an untrained model, or at the mean of pieces."""
    optimizer, layout, output, beginning = run
    config, side = make_config(optimizer, layout, output, Path("unused")), make_side()
    translator = Translator(config, side, side, Ranks.alone())
    rows = {}
    for name, table in translator.tables.items():
        embedding = table.to_embedding()
        assert embedding is not None
        rows[name] = embedding.weight.detach().clone()
    if output == "replicated":
        rows["output.weight"] = before["output.weight"].clone()
        # Not nn.Linear's own numbers, which depend on the size of the layer, but of their standard deviation.
        table = translator.source_table
        fresh = type(table)(SIZE, before["output.weight"].shape[1], init_std=(3 * 8) ** -0.5, seed=1)
        rows["output.weight"] = fresh.weight.detach().double()
    total = torch.tensor(make_counts()).double() + 1
    bias = (total.log() - total.sum().log()).to(torch.float64)
    rows |= {"output.bias": bias, "output_bias": bias[:, None]}
    if beginning == "pieces":
        for name in ("source_table", "target_table", "output_table", "output.weight"):
            if name in before:
                # zzz has no pieces, new neither; vw5w9 is w5 and, since w9 gives way, nothing else.
                rows[name][6] = before[name][[5]].mean(0)
    return rows


def make_counts() -> list[int]:
    vocabulary = make_side().vocabulary
    assert isinstance(vocabulary, DynamicVocabulary)
    vocabulary.update(Counter(STREAM))
    return vocabulary.counts.tolist()


def test_pieces_are_the_longest_that_follow() -> None:
    vocabulary = DynamicVocabulary.build([["un", "u", "believ", "able", "a", "ab", "unbelievable"]], max_size=20)

    def pieces(word: str, *left_out: str) -> list[str]:
        found = pieces_of(word, vocabulary, vocabulary.encode(left_out))
        return [vocabulary.tokens[index] for index in found]

    assert pieces("unbelievable") == ["un", "believ", "able"]
    assert pieces("unbelievable", "able", "un") == ["u", "believ", "ab"]
    assert pieces("xxabyyu") == ["ab", "u"]
    assert pieces("a") == pieces("xyz") == []


class Restarted:
    """Stands for the average, and notes whose rows it restarts."""

    def __init__(self) -> None:
        self.weights: list[int] = []

    def restart_rows(self, weight: Tensor, places: Tensor) -> None:
        self.weights.append(id(weight))


def test_averages_of_n_grams_stay() -> None:
    embedding = {"ngrams": [2], "ngram_rows": 200, "ngram_dim": 4}
    config = Config.model_validate(
        {"embedding": embedding, "model": {"embedding_dim": 8, "hidden_size": 8, "output": "replicated"}}
    )
    translator, average = Translator(config, make_side(), make_side(), Ranks.alone()), Restarted()
    state = SimpleNamespace(tables=translator.tables, core=translator.core)
    _begin_averages(state, average, torch.tensor([5]), torch.tensor([6]))  # type: ignore[arg-type]
    weights = {name: id(table.weight) for name, table in translator.tables.items()}
    assert weights.pop("ngram_table") not in average.weights
    assert set(weights.values()) <= set(average.weights)
