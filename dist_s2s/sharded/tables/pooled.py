"""Pooled lookups: bags of ids of one or several tables in one exchange.

Where all ranks see all rows (shared memory, a single rank), bags are pooled straight from the whole table. In backward
the asking rank writes the gradients of its bags once for each owner, with the rows that are in them; owners spread and
sum them. Elsewhere each rank decides for itself, for each table and lookup, what it asks for: its owners' sums of each
bag, or the distinct rows, whichever are fewer. Max pooling, and weights that need a gradient, take rows in any case,
because the rows themselves are needed. Owners need not know which it is; see exchange/sums.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_s2s.sharded.eager import never_compiled
from dist_s2s.sharded.exchange.function import apply_route
from dist_s2s.sharded.exchange.ids import in_table
from dist_s2s.sharded.exchange.route import Route, ask
from dist_s2s.sharded.exchange.shard import subject_of
from dist_s2s.sharded.exchange.sums import WantedSums
from dist_s2s.sharded.rows.bags import Bags, ListedBags, SummedBags
from dist_s2s.sharded.tables.bag_input import BagInput, BagTable, bags_of, input_error
from dist_s2s.sharded.tables.beginning import begin, is_in_place, is_trained, prepare, replicas_told
from dist_s2s.sharded.tables.fingerprint import check_fingerprints, fingerprints


@never_compiled
def lookup_bags(tables: Sequence[BagTable], inputs: Sequence[BagInput], error: Exception | None = None) -> list[Tensor]:
    """Return the pooled bags of ``inputs[t]`` from ``tables[t]``, [bags, embedding_dim] (collective, as its backward).

    The tables share one exchange, which takes as many collectives as that of ``lookup``, and has its conditions.

    Args:
        tables: in the same order on every rank.
        inputs: for each table ids of two dimensions, each row of which is a bag; or what nn.EmbeddingBag takes: (ids,
            offsets) or (ids, offsets, per_sample_weights). Ranks may have different numbers of bags, or none.
        error: what else is wrong on this rank, to be raised on all.

    Raises:
        IndexError, TypeError, ValueError: on every rank, for the first rank's invalid ids, offsets or weights, and for
            tables that cannot share an exchange.
        RuntimeError: on every rank, if ranks look up other tables, or another order of them.
    """
    group, wrong = prepare(tables, inputs)
    bags, error = _checked(tables, inputs, error or wrong)
    if is_trained(tables):  # backward must not see that the caller overwrites them
        bags = [(ids.clone(), _kept(mine)) for ids, mine in bags]
    with group.lock:
        number, requested = group.begin_lookup(), None
        subject = subject_of("pooled lookup", tables, number)
        with replicas_told(tables):
            in_place = is_in_place(tables) and begin(tables, subject, error)
            wanted = [_wanted(table, *mine, in_place) for table, mine in zip(tables, bags, strict=True)]
            if not in_place:
                requested, marks = ask(wanted, group, subject, error, fingerprints(tables))
                check_fingerprints(tables, marks)
        group.statistics.ids += sum(len(ids) for ids, _ in bags)
        if requested is not None:
            group.statistics.distinct_ids += sum(mine.owners[0].total for mine in wanted)
            group.statistics.rows_served += sum(len(asked.rows) for asked in requested)
        outputs = apply_route(Route(tables, wanted, number, requested, in_place))
    return [mine.selection.pool(found) for mine, found in zip(wanted, outputs, strict=True)]


def _checked(
    tables: Sequence[BagTable], inputs: Sequence[BagInput], error: Exception | None
) -> tuple[list[tuple[Tensor, Bags]], Exception | None]:
    """Return the ids and bags of each table, and what is wrong with them, if anything is; then there are none."""
    asked = [each if isinstance(each, tuple) else (each,) for each in inputs]
    if error is None:
        problems = ((table, input_error(table, mine)) for table, mine in zip(tables, asked, strict=True))
        table, error = next((found for found in problems if found[1] is not None), (tables[0], None))
        if error is not None and (len(tables) > 1 or table.name):
            error = in_table(error, table)
    if error is not None:
        asked = [(torch.empty(0, 1, dtype=torch.int64, device=tables[0].weight.device),)] * len(tables)
    return [bags_of(table, *mine) for table, mine in zip(tables, asked, strict=True)], error


def _kept(bags: Bags) -> Bags:
    """Return bags whose weights do not change; of weights that need a gradient torch will tell that they have."""
    weights = bags.weights
    return bags if weights is None or weights.requires_grad else Bags(bags.sizes, weights.clone())


def _wanted(table: BagTable, ids: Tensor, bags: Bags, in_place: bool) -> WantedSums:
    """Return what to ask for: sums or rows, see the module."""
    positions, offsets = table.partition.positions(ids), table.partition.offsets
    rows = ListedBags(positions, bags, table.mode, offsets, table.deduplicate)
    trains_weights = bags.weights is not None and bags.weights.requires_grad and torch.is_grad_enabled()
    selection: ListedBags | SummedBags = rows
    if table.mode != "max" and not trains_weights:
        weights = None if bags.weights is None else bags.weights.detach()
        sums = SummedBags(positions, Bags(bags.sizes, weights), table.mode, offsets)
        selection = sums if in_place or sums.num_sums < rows.num_sums else rows
    return WantedSums(selection, table.partition, table.scale_grad_by_freq, table.weight.dtype)
