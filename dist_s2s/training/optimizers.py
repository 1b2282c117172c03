"""The optimizers of a run, of the replicated model and of the tables, and the average of all weights."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Adam, Optimizer

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad, RowWiseAdam, SparseAdagrad, SparseAdam, SparseSGD
from dist_s2s.sharded.averaging import MovingAverage


def make_table_optimizer(config: Config, tables: Mapping[str, DistributedEmbedding]) -> Optimizer:
    """Build the row-sparse optimizer that ``embedding.optimizer`` names, over all tables' shards in their order."""
    groups: list[dict[str, Any]] = [
        {"params": [table.weight], "lr": _learning_rate(config, name)} for name, table in tables.items()
    ]
    match config.embedding.optimizer:
        case "sgd":
            return SparseSGD(groups)
        case "adagrad":
            return SparseAdagrad(groups)
        case "rowwise_adagrad":
            return RowWiseAdagrad(groups)
        case "sparse_adam":
            return SparseAdam(groups)
        case "rowwise_adam":
            return RowWiseAdam(groups)


def make_core_optimizer(config: Config, core: nn.Module) -> Optimizer:
    """Build Adam for the replicated model, with a group of parameters for each learning rate."""
    parameters = dict(core.named_parameters())
    peak = config.training.learning_rate
    groups = [
        {"params": [parameters[name] for name in names], "lr": peak * factor}
        for factor, names in grouped_names(config, parameters).items()
    ]
    return Adam(groups, lr=peak, fused=True)


def make_average(config: Config, core: nn.Module, tables: Mapping[str, DistributedEmbedding]) -> MovingAverage | None:
    """Build the average of all weights that ``training.ema_decay`` asks for."""
    if config.training.ema_decay is None:
        return None
    return MovingAverage(core.parameters(), [table.weight for table in tables.values()], config.training.ema_decay)


def grouped_names(config: Config, names: Iterable[str]) -> dict[float, list[str]]:
    """Return by factor of the learning rate the names of parameters, in the order in which the optimizer has them."""
    groups: dict[float, list[str]] = {}
    for name in names:
        groups.setdefault(_factor(config, name), []).append(name)
    return groups


def freeze(config: Config, core: nn.Module, tables: Mapping[str, DistributedEmbedding]) -> None:
    """Take the parts that ``training.frozen`` names out of training.

    Raises:
        UserError: if a pattern of that or of ``training.part_learning_rates`` names no part, or none is left.
    """
    parts: dict[str, nn.Parameter] = {name: table.weight for name, table in tables.items()}
    parts |= dict(core.named_parameters())
    training = config.training
    for key, patterns in (("frozen", training.frozen), ("part_learning_rates", tuple(training.part_learning_rates))):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in parts):
                raise UserError(f"training.{key}: no part is called {pattern!r}; there are {', '.join(parts)}")
    frozen = [name for name in parts if any(fnmatchcase(name, pattern) for pattern in training.frozen)]
    if len(frozen) == len(parts):
        raise UserError(f"training.frozen: {', '.join(training.frozen)} leaves no part that could learn")
    for name in frozen:
        parts[name].requires_grad_(False)


def _factor(config: Config, name: str) -> float:
    """Return the factor of the first pattern that fits."""
    rates = config.training.part_learning_rates.items()
    return next((factor for pattern, factor in rates if fnmatchcase(name, pattern)), 1.0)


def _learning_rate(config: Config, name: str) -> float:
    """Return the peak rate of a table, by its name in checkpoints."""
    vectors = {"source_table": config.data.source_vectors, "target_table": config.data.target_vectors}.get(name)
    of_vectors = None if vectors is None else config.embedding.vectors_learning_rate
    return (of_vectors or config.embedding.learning_rate or config.training.learning_rate) * _factor(config, name)
