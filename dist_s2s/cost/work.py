"""How much work the parts of a step are: the amounts that a machine's coefficients are multiplied by."""

from dataclasses import dataclass

import numpy as np

from dist_s2s.cost.coefficients import PartCost
from dist_s2s.cost.id_traffic import Floats
from dist_s2s.cost.memory import STATE_TENSORS
from dist_s2s.cost.problem import Problem

_OF_ELEMENTS = {"id_element", "distinct_element", "request_element", "row_element", "cold_element", "converted"}


@dataclass(frozen=True)
class Work:
    """What a part's coefficients are multiplied by: for each rank its own ids' work, and an owner's, [W] each."""

    of_ids: dict[str, float]
    of_owners: dict[str, Floats]

    def seconds(self, cost: PartCost, slowdown: float = 1.0, element_slowdown: float = 1.0) -> tuple[Floats, Floats]:
        """Of both kinds, [W] each, or [1] if owners have nothing to do.

        element_slowdown multiplies the work for each element, slowdown all other work.
        """

        def each(name: str) -> float:
            return float(getattr(cost, name)) * (element_slowdown if name in _OF_ELEMENTS else slowdown)

        owners = sum((each(name) * amount for name, amount in self.of_owners.items()), np.zeros(1))
        return np.full_like(owners, sum(each(name) * amount for name, amount in self.of_ids.items())), owners


def part_works(problem: Problem, cache_bytes: float) -> dict[str, Work]:
    """The work of each part, by its name; those before the update differ where ranks read rows in place."""
    before_update = _in_place if problem.in_place else _by_plan
    return before_update(problem, cache_bytes) | {"update": _update(problem, cache_bytes)}


def _in_place(problem: Problem, cache_bytes: float) -> dict[str, Work]:
    """Every id's row is copied from the whole table; ids are sorted only when their gradients go to the owners."""
    ids, dim, traffic = problem.ids, problem.embedding_dim, problem.traffic
    table = problem.dtype.itemsize / 4
    cold = traffic.fresh_of_rank * _outside(cache_bytes, _table_bytes(problem))
    row_changes = problem.row_wire_dtype != problem.dtype
    of_ids = {"step": 1, "id": ids, "dealt_id": _dealt(problem) * ids}
    return {
        "rows": Work(
            of_ids
            | {
                "id_element": ids * dim * table,
                "cold_row": cold,
                "cold_element": cold * dim * table,
                "converted": row_changes * ids * dim,
            },
            {},
        ),
        "gradients": Work(of_ids | _sums_by_id(problem) | {"distinct": traffic.distinct}, _sums_by_owner(problem)),
    }


def _by_plan(problem: Problem, cache_bytes: float) -> dict[str, Work]:
    """Rows are asked for, once each, and sent by their owners."""
    ids, dim, traffic = problem.ids, problem.embedding_dim, problem.traffic
    requests, table = traffic.requests, problem.dtype.itemsize / 4
    cold = traffic.fresh * _outside(cache_bytes, _table_bytes(problem))
    row_changes = problem.row_wire_dtype != problem.dtype
    elements = {"id_element": ids * dim * table}
    return {
        "plan": Work(
            {"step": 1, "id": ids, "dealt_id": _dealt(problem) * ids, "distinct": traffic.distinct} | elements,
            {"request": requests},
        ),
        "rows": Work(
            {"step": 1, "id": ids, "converted": row_changes * traffic.distinct * dim} | elements,
            {
                "request": requests,
                "request_element": requests * dim * table,
                "cold_row": cold,
                "cold_element": cold * dim * table,
                "converted": row_changes * requests * dim,
            },
        ),
        "gradients": Work({"step": 1, "id": ids} | _sums_by_id(problem), _sums_by_owner(problem)),
    }


def _sums_by_id(problem: Problem) -> dict[str, float]:
    """What a rank does for each element of its gradients, to send the sums of its distinct ids."""
    ids, dim, distinct, sums = problem.ids, problem.embedding_dim, problem.traffic.distinct, problem.sum_dtype
    sum_changes, wire_changes = problem.dtype != sums, problem.gradient_wire_dtype != sums
    return {
        "id_element": ids * dim * sums.itemsize / 4,
        "distinct_element": distinct * dim * sums.itemsize / 4,
        "converted": (sum_changes * ids + wire_changes * distinct) * dim,
    }


def _sums_by_owner(problem: Problem) -> dict[str, Floats]:
    """What an owner does with the gradients that come, to have its shard's."""
    requests, dim, sums = problem.traffic.requests, problem.embedding_dim, problem.sum_dtype
    sum_changes, wire_changes = problem.dtype != sums, problem.gradient_wire_dtype != sums
    return {
        "request": requests,
        "request_element": requests * dim * sums.itemsize / 4,
        "converted": (wire_changes * requests + sum_changes * problem.traffic.touched) * dim,
    }


def _update(problem: Problem, cache_bytes: float) -> Work:
    dim, touched, sums = problem.embedding_dim, problem.traffic.touched, problem.sum_dtype
    whole, per_row = STATE_TENSORS[problem.optimizer]
    per_host = problem.num_embeddings / problem.cluster.hosts
    state_bytes = per_host * (whole * dim + per_row) * sums.itemsize
    cold = problem.traffic.fresh * _outside(cache_bytes, _table_bytes(problem) + state_bytes)
    elements = dim * sums.itemsize / 4
    return Work(
        {"step": 1},
        {"row": touched, "row_element": touched * elements, "cold_row": cold, "cold_element": cold * elements},
    )


def _dealt(problem: Problem) -> bool:
    """Whether an id's position has to be computed."""
    return problem.layout == "round_robin" and problem.cluster.ranks > 1


def _table_bytes(problem: Problem) -> float:
    """Of the rows that a host has."""
    return problem.num_embeddings / problem.cluster.hosts * problem.embedding_dim * problem.dtype.itemsize


def _outside(cache_bytes: float, table_bytes: float) -> float:
    """The share of a table that the cache does not hold."""
    return 1 - min(1.0, cache_bytes / table_bytes)
