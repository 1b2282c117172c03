"""The project's first test: training gives the same losses and tables at every world size, and without any sharding."""

from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adagrad, Adam, Optimizer, SparseAdam

from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.models import Demand, Hypothesis
from dist_s2s.storage.checkpoint import load_weights
from dist_s2s.text.batches import collate, global_batches
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.text.vocabulary import Vocabulary
from dist_s2s.training.checkpoints import Checkpoints
from dist_s2s.training.events import Event, Report, Validation
from dist_s2s.training.meter import Meter
from dist_s2s.training.trainer import Trainer
from dist_s2s.training.validation import Validator
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.translator import Translator
from tests.ngram_reference import plain_ngram_ids
from tests.rank_pool import RankPool
from tests.rank_worker import second_group

VOCABULARY = Vocabulary(["<pad>", "<sos>", "<eos>", "<unk>", *(f"w{number}" for number in range(4, 131))])
STEPS = 22  # more than an epoch
CORE_RATE, TABLE_RATE = 0.03, 0.2
DECAY = 0.6  # its average's decay grows up to step 12
BATCH_TOKENS = 24
MAX_NORM = 0.34
OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad", "sparse_adam")
LAYOUTS = ("contiguous", "round_robin")
# Neither optimizer nor output layer knows the layout: each has one of the two, in turn.
RUNS = [(optimizer, layout, "replicated") for optimizer, layout in zip(OPTIMIZERS, LAYOUTS * 2, strict=True)]
RUNS += [("sgd", "round_robin", "sharded"), ("sparse_adam", "contiguous", "sharded"), ("adagrad", "contiguous", "tied")]
RUNS += [("sparse_adam", "round_robin", "ngrams")]  # with a replicated output layer, and n-grams that share rows
RUNS += [("sparse_adam", "round_robin", "one_table")]
ONE_TABLE = {  # for source, target and output; and a deeper model with another readout
    "tie_source": True,
    "scale_embeddings": True,
    "embedding_dim": 6,
    "encoder_layers": 2,
    "layer_norm": True,
    "lexical": True,
}
# All on two ranks. On three and four each run once, but the tied one twice, and on one rank each optimizer and each
# output layer once: an optimizer does not know how many ranks there are.
RUNS_OF = {1: [RUNS[2], *RUNS[4:]], 2: RUNS, 3: [RUNS[1], RUNS[2], *RUNS[5:]], 4: [RUNS[0], RUNS[3], RUNS[4], RUNS[6]]}
SENTENCES = ["w5 w6 w7", "w9", "w5 w6 w80 w81 nothing", "", "w30 w31 w32 w33"]
CHOICES = {"length_penalty": 0.6, "coverage_penalty": 0.2, "min_length": 2, "no_repeat_ngram": 2}
DEMANDS = [Demand((9, 130)), Demand(phrases=((5, 6), (77,))), Demand((4,), ((31,),)), Demand(), Demand()]
SAMPLED_RUNS = [("rowwise_adam", "round_robin", "sampled"), ("sparse_adam", "contiguous", "sampled")]


@dataclass
class Result:
    """What a training run leaves behind on one rank; a table is its rows and their ids.

    The averages are those that a checkpoint gives to translate with.
    """

    found: list[list[Hypothesis]]
    losses: list[float]
    tables: dict[str, tuple[Tensor, Tensor]]
    core: dict[str, Tensor]
    average_tables: dict[str, tuple[Tensor, Tensor]]
    average_core: dict[str, Tensor]


@dataclass
class Losses:
    """A listener that keeps the loss of each step, and counts validations."""

    values: list[float] = field(default_factory=list)
    validations: int = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Report(step, values):
                self.values.append(values["loss"])
                assert step == len(self.values)
            case Validation():
                self.validations += 1


@dataclass
class DataParallel:
    """Takes the place of accelerate, which needs torchrun's environment: wraps the core as it does. The tables use the
    same group, which is safe here: without input feeding, backward has the same order on all ranks."""

    group: dist.ProcessGroup

    def prepare(self, core: nn.Module) -> nn.Module:
        return DistributedDataParallel(core, process_group=self.group)


def make_config(optimizer: str, layout: str, output: str, run_dir: Path) -> Config:
    return Config.model_validate(
        {
            "run_dir": run_dir,
            "data": {
                "batch_tokens": BATCH_TOKENS,
                "source_tokenizer": "whitespace",
                "target_tokenizer": "whitespace",
                "joint_vocabulary": output == "one_table",
            },
            "model": {
                "embedding_dim": 8,
                "hidden_size": 8,
                "dropout": 0.0,
                "output": {"tied": "sharded", "one_table": "sharded", "ngrams": "replicated"}.get(output, output),
                "output_samples": 40,
                "tie_embeddings": output in ("tied", "one_table"),
            }
            | (ONE_TABLE if output == "one_table" else {}),
            "embedding": {
                "optimizer": optimizer,
                "layout": layout,
                "learning_rate": TABLE_RATE,
                "ngrams": [2, 3] if output == "ngrams" else [],
                "ngram_rows": len(VOCABULARY),
                "ngram_dim": 5,
                "ngram_dropout": 0.0,
            },
            "training": {
                "learning_rate": CORE_RATE,
                "warmup_steps": 10,
                "max_steps": STEPS,
                "max_epochs": None,
                "max_norm": MAX_NORM,
                "ema_decay": DECAY,
                "precision": "fp64",
                "log_every": 1,
            },
        }
    )


def make_examples() -> ExampleList:
    """Random sentences of 1 to 12 tokens; the longest targets fill a batch of their own."""
    generator = torch.Generator().manual_seed(5)

    def sentence() -> list[int]:
        length = int(torch.randint(1, 13, (), generator=generator))
        return torch.randint(4, len(VOCABULARY), (length,), generator=generator).tolist()

    return ExampleList(Example(sentence(), sentence()) for _ in range(40))


def make_translator(config: Config, ranks: Ranks) -> Translator:
    tokenizer = make_tokenizer("whitespace")
    side = TextSide(tokenizer, VOCABULARY)
    return Translator(config, side, side, ranks)


def train_on_ranks(group: dist.ProcessGroup, run_dir: Path, runs: list[tuple[str, str, str]]) -> list[Result]:
    """The shipped loop, Trainer.fit, for each optimizer, layout and output layer."""
    world_size = dist.get_world_size(group)
    ranks = Ranks(dist.get_rank(group), world_size, torch.device("cpu"), group, second_group(world_size))
    results = []
    for optimizer, layout, output in runs:
        config = make_config(optimizer, layout, output, run_dir / f"{optimizer}-{layout}-{output}")
        translator, losses = make_translator(config, ranks), Losses()
        trainer = Trainer(config, make_examples(), translator, DataParallel(group))
        validator = Validator(trainer, ExampleList([Example([5], [6])]), [("w5", "w6")])
        trainer.listeners += [Meter(trainer), validator, losses, Checkpoints(trainer)]
        trainer.fit()
        assert losses.validations == 1
        trained = copies(translator)
        found = find(translator, config)
        load_weights(config.run_dir / "checkpoints" / f"step-{STEPS}", translator.core, translator.tables)
        results.append(Result(found, losses.values, *trained, *copies(translator)))
    return results


def find(translator: Translator, config: Config) -> list[list[Hypothesis]]:
    """What a plain search finds, and for some runs, of both output layers, what one with every option does."""
    options = SearchOptions.of(config, beam_size=3)
    found = translator.search_n_best(SENTENCES, 3, options)
    if config.embedding.optimizer == "sgd":
        options = replace(options.with_limits(2.0, 4), **CHOICES)
        found += translator.search_n_best(SENTENCES, 2, options, demands=DEMANDS)
    return found


def copies(translator: Translator) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """A translator's tables and core, as they are now."""
    tables = {
        name: (table.partition.ids(table.rank), table.weight.detach().clone())
        for name, table in translator.tables.items()
    }
    return tables, {name: value.clone() for name, value in translator.core.state_dict().items()}


class DenseRowWiseAdagrad:
    """The rule of RowWiseAdagrad on whole tables: a row without gradient adds nothing, so it stays."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.param_groups: list[dict[str, float]] = [{}]
        self.weights = weights
        self.sums = [torch.zeros(len(weight), 1, dtype=weight.dtype) for weight in weights]

    @torch.no_grad()
    def step(self) -> None:
        for weight, total in zip(self.weights, self.sums, strict=True):
            assert weight.grad is not None
            gradient = weight.grad.to_dense()
            total += gradient.pow(2).mean(dim=1, keepdim=True)
            weight -= self.param_groups[0]["lr"] * gradient / (total.sqrt() + 1e-10)


def plain_optimizer(name: str, weights: list[nn.Parameter]) -> Optimizer | DenseRowWiseAdagrad:
    if name == "rowwise_adagrad":
        return DenseRowWiseAdagrad(weights)
    return {"sgd": SGD, "adagrad": Adagrad, "sparse_adam": SparseAdam}[name](weights)


def batch_order(examples: list[Example]) -> list[list[int]]:
    """The example numbers of each step's global batch, epoch after epoch."""
    epochs = [global_batches(examples, BATCH_TOKENS, seed=1, epoch=epoch) for epoch in range(3)]
    return [batch for epoch in epochs for batch in epoch][:STEPS]


@torch.sparse.check_sparse_tensor_invariants()  # Adagrad warns unless told whether to check
def train_plainly(optimizer: str, output: str) -> tuple[Result, list[float]]:
    """One process, whole batches, nn.Embedding, and nothing of the trainer; also the gradient norms before clipping."""
    config, examples = make_config(optimizer, "contiguous", output, Path("unused")), make_examples()
    start = make_translator(config, Ranks.alone())
    core = start.core
    tables = {
        name: nn.Embedding.from_pretrained(
            table.weight.detach().clone(), freeze=False, padding_idx=table.padding_idx, sparse=True
        )
        for name, table in start.tables.items()
    }
    output_table = tables.get("output_table", tables["target_table"])
    weights = [table.weight for table in tables.values()]
    optimizers = {CORE_RATE: Adam(core.parameters()), TABLE_RATE: plain_optimizer(optimizer, weights)}
    averages = [value.detach().clone() for value in (*core.parameters(), *weights)]
    losses, norms = [], []
    for step, numbers in enumerate(batch_order(examples)):
        batch = collate(examples, numbers, global_target_tokens=0)
        for parameter in [*core.parameters(), *weights]:
            parameter.grad = None
        source_table = tables.get("source_table", tables["target_table"])
        source, target = source_table(batch.source), tables["target_table"](batch.target_in)
        if output == "ngrams":
            ids = plain_ngram_ids(batch.source.tolist(), VOCABULARY.tokens, (2, 3), len(VOCABULARY))
            source = torch.cat((source, tables["ngram_table"](torch.tensor(ids)).flatten(2)), dim=-1)
        logits = core(source, batch.source_lengths, target)
        if output in ("sharded", "tied", "one_table"):
            logits = F.linear(logits, output_table.weight, tables["output_bias"].weight[:, 0])
        loss = F.cross_entropy(logits.flatten(0, 1), batch.target_out.flatten(), ignore_index=0, label_smoothing=0.1)
        loss.backward()
        for weight in weights:  # an output layer's gradient is dense
            weight.grad = (weight.grad if weight.grad.is_sparse else weight.grad.to_sparse(1)).coalesce()
        gradients = [parameter.grad for parameter in core.parameters()]
        gradients += [weight.grad.values() for weight in weights]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        for gradient in gradients:
            gradient.mul_(min(1.0, MAX_NORM / norm.item()))
        for peak, each in optimizers.items():
            each.param_groups[0]["lr"] = peak * min(1.0, (step + 1) / 10) * (1 - step / STEPS)
            each.step()
        decay = min(DECAY, (2 + step) / (11 + step))
        for average, value in zip(averages, (*core.parameters(), *weights), strict=True):
            average += (1 - decay) * (value.detach() - average)
        losses.append(loss.item())
        norms.append(norm.item())
    everything = torch.arange(len(VOCABULARY))
    final = {name: (everything, table.weight.detach()) for name, table in tables.items()}
    for name, (_, rows) in final.items():
        start.tables[name].weight.data.copy_(rows)
    found = find(start, config)
    average_core = dict(zip(dict(core.named_parameters()), averages, strict=False))
    average_tables = zip(tables, averages[len(average_core) :], strict=True)
    average_final = {name: (everything, average) for name, average in average_tables}
    return Result(found, losses, final, core.state_dict(), average_final, average_core), norms


def assert_equal(results: list[Result], expected: Result) -> None:
    """Each rank has the plain loop's losses, core and hypotheses, all ranks together its tables; cores are equal.

    So have the averages of the weights.
    """
    close = {"rtol": 0, "atol": 1e-9}
    for result in results:
        torch.testing.assert_close(torch.tensor(result.losses), torch.tensor(expected.losses), **close)
        for mine, theirs in zip(chain(*result.found), chain(*expected.found), strict=True):
            assert (mine.ids, mine.score) == (theirs.ids, pytest.approx(theirs.score, rel=0, abs=1e-9))
        for core in ("core", "average_core"):
            found, wanted, first = (getattr(each, core) for each in (result, expected, results[0]))
            torch.testing.assert_close(found, wanted, **close)
            assert all(map(torch.equal, found.values(), first.values()))
    for tables in ("tables", "average_tables"):
        parts = [getattr(result, tables) for result in results]
        for name, (_, whole) in getattr(expected, tables).items():
            ids = torch.cat([part[name][0] for part in parts])
            rows = torch.cat([part[name][1] for part in parts])
            assert ids.sort().values.tolist() == list(range(len(VOCABULARY)))
            torch.testing.assert_close(rows, whole[ids], **close)


@pytest.fixture(scope="module")
def plain() -> dict[tuple[str, str], Result]:
    kinds = {(optimizer, output) for optimizer, _, output in RUNS}
    return {kind: train_plainly(*kind)[0] for kind in sorted(kinds)}


@pytest.mark.parametrize("world_size", RUNS_OF)
def test_training_is_the_same_at_every_world_size_and_as_plain_pytorch(
    world_size: int, ranks: RankPool, plain: dict[tuple[str, str], Result], tmp_path: Path
) -> None:
    runs = RUNS_OF[world_size]
    by_rank = ranks.run(train_on_ranks, tmp_path, runs, world_size=world_size, timeout=100.0)
    for (optimizer, _, output), *results in zip(runs, *by_rank, strict=True):
        assert_equal(results, plain[optimizer, output])


def test_training_on_samples_is_the_same_at_every_world_size(ranks: RankPool, tmp_path: Path) -> None:
    alone = ranks.run(train_on_ranks, tmp_path / "1", SAMPLED_RUNS, world_size=1, timeout=100.0)
    for world_size in (2, 3):
        folder = tmp_path / str(world_size)
        by_rank = ranks.run(train_on_ranks, folder, SAMPLED_RUNS, world_size=world_size, timeout=100.0)
        for expected, *results in zip(*alone, *by_rank, strict=True):
            assert_equal(results, expected)
            assert sum(expected.losses[-10:]) < sum(expected.losses[:10]) - 1.0


def test_the_runs_above_meet_what_could_go_wrong() -> None:
    """Batches with fewer sentences than ranks, gradient norms on both sides of max_norm, and something learnt."""
    result, norms = train_plainly("sgd", "replicated")
    sizes = {len(batch) for batch in batch_order(make_examples())}
    assert sizes >= {1, 2, 3, 4}
    assert min(norms) < MAX_NORM < max(norms)
    assert sum(result.losses[-10:]) < sum(result.losses[:10]) - 1.0
