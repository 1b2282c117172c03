"""What every system is asked in the same way, through an adapter of its own: ``Table``. Imports torch alone.

Ranks have the same ids wherever a system needs that, and then the mean over ranks is what one process would compute.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from feature_list import Answer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Probe = Callable[[dist.ProcessGroup], Answer]
LEARNING_RATE = 0.1
IDS = torch.tensor([[1, 70, 130], [3, 3, 5]])
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


class Table(Protocol):
    """One or several tables with their optimizer. Every method may be collective."""

    def __init__(self, weights: Sequence[Tensor], optimizer: str = "SGD", **options: Any) -> None:
        """weights: all rows, the same on every rank. optimizer: SGD, Adam, Adagrad or RowWiseAdagrad."""

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """Rows of each table's ids."""

    def update(self) -> None:
        """The optimizer's step; gradients are gone afterwards."""

    def whole(self) -> Tensor:
        """All rows of the first table, on every rank."""

    def local_rows(self) -> int:
        """How many of the first table's rows this rank holds."""


def checks(table: type[Table]) -> dict[str, Probe]:
    """The probes that all systems share, for one of them."""
    functions = (
        rows_divided, any_vocabulary_size, plain_tensors, uneven_batches, empty_batch, bad_id_raises,
        disagreement_raises, padding_idx, max_norm, scale_grad_by_freq, sparse_adam, row_wise_adagrad,
        gradient_accumulation, several_tables, deduplicated_ids,
    )  # fmt: skip
    return {function.__name__: partial(function, table) for function in functions}


def rows_divided(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Half of the rows on each rank, and lookups still exact."""
    weight = rows(132)
    table = make([weight])
    held = table.local_rows()
    if not torch.equal(table.lookup(IDS)[0], weight[IDS]):
        return Answer("no", "looked up other rows than those of the ids")
    return Answer("yes" if held == 132 // group.size() else "no", f"rank {group.rank()} holds {held} of 132 rows")


def any_vocabulary_size(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """A number of rows that the number of ranks does not divide."""
    weight = rows(131)
    table = make([weight])
    right = torch.equal(table.lookup(IDS)[0], weight[IDS])
    return Answer("yes" if right else "no", f"rank {group.rank()} holds {table.local_rows()} of 131 rows")


def plain_tensors(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """The adapter's own way to look up, which says so if ids had to be wrapped."""
    shape = tuple(make([rows(132)]).lookup(IDS)[0].shape)
    return Answer("yes", f"ids of shape {tuple(IDS.shape)} give rows of shape {shape}")


def uneven_batches(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Three ids on rank 0, five on rank 1."""
    return _own_batches(make, group, [torch.tensor([1, 70, 130]), torch.tensor([3, 3, 5, 131, 70])])


def empty_batch(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Three ids on rank 0, none on rank 1."""
    return _own_batches(make, group, [torch.tensor([1, 70, 130]), torch.empty(0, dtype=torch.int64)])


def bad_id_raises(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Rank 1 alone asks for row 132 of 132."""
    weight = rows(132)
    table = make([weight])
    rank = group.rank()
    try:
        row = table.lookup(torch.tensor([132 if rank == 1 else 5]))[0].detach()[0]
    except (IndexError, RuntimeError, ValueError) as error:
        return Answer("yes", f"on rank {rank}: {one_line(error)}")
    if rank == 0:
        return Answer("partly", "rank 0 goes on without an error")
    same = [number for number in range(132) if torch.equal(weight[number], row)]
    return Answer("no", f"id 132 gives {f'row {same[0]}' if same else row.tolist()}")


def disagreement_raises(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Rows of dimension 4 on rank 0, and of 6 on rank 1."""
    try:
        shape = make([rows(132, 4 + 2 * group.rank())]).lookup(IDS)[0].shape
    except (IndexError, RuntimeError, ValueError) as error:
        return Answer("yes", f"on rank {group.rank()}: {one_line(error)}")
    return Answer("no", f"rank {group.rank()} gets rows of shape {tuple(shape)}, and no error")


def padding_idx(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Row 3 keeps its value while its neighbours learn."""
    weight = rows(132)
    table = make([weight], padding_idx=3)
    _train(table, IDS)
    moved = (table.whole() - weight).abs().amax(dim=1)
    verdict = "yes" if moved[3] == 0 and moved[5] > 0 else "no"
    return Answer(verdict, f"after a step row 3 has moved by {moved[3]:.2g}, row 5 by {moved[5]:.2g}")


def max_norm(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Rows of a norm of 2 or so are looked up with a norm of 0.5."""
    norm = make([rows(132)], max_norm=0.5).lookup(IDS)[0].detach().norm(dim=-1).max()
    return Answer("yes" if norm < 0.5001 else "no", f"the largest norm looked up with max_norm=0.5 is {norm:.4f}")


def scale_grad_by_freq(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """An id that occurs three times moves as far as one that occurs once."""
    weight = rows(132)
    table = make([weight], scale_grad_by_freq=True)
    _train(table, torch.tensor([[3, 3, 3, 5], [70, 70, 70, 90]])[group.rank()])
    moved = (table.whole() - weight).abs().amax(dim=1)
    verdict = "yes" if moved[3] > 0 and torch.allclose(moved[3], moved[5]) else "no"
    return Answer(verdict, f"looked up 3 times row 3 moves by {moved[3]:.3f}, row 5 looked up once by {moved[5]:.3f}")


def sparse_adam(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Two steps on different ids, against torch.optim.SparseAdam."""
    reference = nn.Embedding.from_pretrained(rows(132), freeze=False, sparse=True)
    optimizer = torch.optim.SparseAdam(reference.parameters(), LEARNING_RATE)
    table = make([rows(132)], "Adam")
    for ids in (IDS, IDS[0]):
        _backward(reference(ids))
        optimizer.step()
        optimizer.zero_grad()
        _train(table, ids)
    return _compare(table, reference.weight, "torch.optim.SparseAdam")


def row_wise_adagrad(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """A step from the definition: row -= lr · g / (sqrt(mean(g²)) + eps)."""
    expected = rows(132)
    gradient = torch.zeros_like(expected).index_add_(0, IDS.flatten(), _gradient(IDS).flatten(0, 1))
    expected -= LEARNING_RATE * gradient / (gradient.square().mean(dim=1, keepdim=True).sqrt() + 1e-10)
    table = make([rows(132)], "RowWiseAdagrad")
    _train(table, IDS)
    return _compare(table, expected, "its definition")


def gradient_accumulation(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """Two micro-batches that share ids, one step of Adagrad, against nn.Embedding."""
    reference = nn.Embedding.from_pretrained(rows(132), freeze=False)
    _backward(reference(IDS))
    _backward(reference(IDS[0]))
    torch.optim.Adagrad(reference.parameters(), LEARNING_RATE).step()
    table = make([rows(132)], "Adagrad")
    _backward(table.lookup(IDS)[0])
    _backward(table.lookup(IDS[0])[0])
    table.update()
    return _compare(table, reference.weight, "one large batch")


def several_tables(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """The collectives of forward and backward of one table, and of two of dimensions 4 and 8."""
    one, both = make([rows(132)]), make([rows(132), rows(50, 8)])
    with collectives() as few:
        _backward(one.lookup(IDS)[0])
    with collectives() as more:
        found = both.lookup(IDS, IDS % 50)
        torch.autograd.backward(found, [torch.ones_like(block) for block in found])
    if not few:
        return Answer("n/a", "a lookup takes no collective")
    verdict = "yes" if len(more) == len(few) else "no"
    return Answer(verdict, f"{len(few)} collectives for one table, {len(more)} for two")


def deduplicated_ids(make: type[Table], group: dist.ProcessGroup) -> Answer:
    """What a lookup of 1,000 times the same id hands to collectives."""
    table = make([rows(132)], deduplicate=True)
    with collectives() as few:
        table.lookup(torch.tensor([70]))
    with collectives() as more:
        table.lookup(torch.full((1000,), 70))
    if not few:
        return Answer("n/a", "a lookup takes no collective")
    verdict = "yes" if sum(more) == sum(few) else "no"
    return Answer(verdict, f"{sum(few)} numbers travel for an id, {sum(more)} for 1,000 times the same")


def rows(number: int, dim: int = 4) -> Tensor:
    """The same rows on every rank, about 2 in norm."""
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(number))


@contextmanager
def collectives() -> Iterator[list[int]]:
    """Collects the size of what each collective is given, in numbers."""
    sizes: list[int] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function.namespace == "c10d":
                sizes.append(sum(tensor.numel() for tensor in _tensors(args)))
            return function(*args, **(kwargs or {}))

    with Recorder():
        yield sizes


def search(folder: str | Path, pattern: str, name: str) -> Answer:
    """No, if no Python file under the folder has the pattern; otherwise the probe must be written anew."""
    files = sorted(Path(folder).rglob("*.py"))
    found = [file for file in files if re.search(pattern, file.read_text(encoding="utf-8"))]
    if found or not files:
        return Answer("error", f"/{pattern}/ occurs in {', '.join(file.name for file in found[:3])}")
    return Answer("no", f"none of the {len(files)} files of {name} has /{pattern}/")


def one_line(error: BaseException) -> str:
    """The error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _own_batches(make: type[Table], group: dist.ProcessGroup, batches: Sequence[Tensor]) -> Answer:
    weight, mine = rows(132), batches[group.rank()]
    table = make([weight])
    found = table.lookup(mine)[0]
    if not torch.equal(found, weight[mine]):
        return Answer("no", f"looked up other rows than those of the ids on rank {group.rank()}")
    _backward(found)
    table.update()
    for ids in batches:
        weight.index_add_(0, ids, _gradient(ids), alpha=-LEARNING_RATE / len(batches))
    return _compare(table, weight, "one process")


def _train(table: Table, ids: Tensor) -> None:
    _backward(table.lookup(ids)[0])
    table.update()


def _backward(found: Tensor) -> None:
    found.backward(_gradient(torch.empty(found.shape[:-1])))


def _gradient(ids: Tensor, dim: int = 4) -> Tensor:
    return torch.linspace(0.5, 2.0, dim).expand(*ids.shape, dim).contiguous()


def _compare(table: Table, expected: Tensor, name: str) -> Answer:
    difference = float((table.whole() - expected.detach()).abs().max())
    return Answer("yes" if difference < 1e-5 else "no", f"rows differ from {name} by at most {difference:.2g}")


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
